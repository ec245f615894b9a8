//! Every call that changes something, or tried to, leaves one operation behind, as on the native door.

use super::{
    door::{Door, Service},
    fault::Fault,
};
use axum::{
    http::{Extensions, Method},
    response::{IntoResponse, Response},
};
use control::Caller;
use model::error::{Code, Fault as Kept};

/// What a handler knows better than the path: put it on the reply with [`Deed::on`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// The verb, like `create`.
    pub action: String,
    /// The noun as the native door has it, like `instance`.
    pub noun: String,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

impl Deed {
    /// A deed.
    pub fn new(action: &str, noun: &str, id: impl ToString, name: impl ToString) -> Self {
        Self { action: action.into(), noun: noun.into(), id: id.to_string(), name: name.to_string() }
    }

    /// The reply with the deed on it.
    pub fn on(self, reply: impl IntoResponse) -> Response {
        let mut response = reply.into_response();
        response.extensions_mut().insert(self);
        response
    }

    /// What the path of a call tells: `DELETE /v2.0/ports/1` is to delete the port 1.
    fn of_path(method: &Method, path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).skip(1).collect();
        let (noun, id) = (parts.first().copied().unwrap_or(""), parts.get(1).copied().unwrap_or(""));
        let last = parts.get(2..).and_then(|rest| rest.first()).copied();
        let action = match (last, method.as_str()) {
            (Some(verb), _) => verb,
            (None, "POST") => "create",
            (None, "DELETE") => "delete",
            (None, _) => "update",
        };
        Self::new(action, noun.trim_end_matches('s'), id, "")
    }
}

/// Notes a call that is over.
pub(super) async fn note(
    door: &Door,
    service: Service,
    caller: &Caller,
    (method, path): (&Method, &str),
    reply: &Extensions,
    fault: Option<&Fault>,
) {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return;
    }
    let deed = reply.get::<Deed>().cloned().unwrap_or_else(|| Deed::of_path(method, path));
    let kept = fault.map(|fault| Kept {
        code: fault.code,
        message: fault.message.clone(),
        hint: String::new(),
        since: door.control().now(),
    });
    // Who is not let in at all leaves no trace here: the log has it, and nobody can fill the store from outside.
    if fault.is_some_and(|fault| fault.code == Code::Unauthenticated) {
        return;
    }
    let Deed { action, noun, id, name } = &deed;
    door.control().note_operation(caller, action, noun, id, name, kept).await;
    tracing::info!(
        actor = caller.actor,
        action,
        noun,
        id,
        name,
        service = service.kind(),
        request_id = caller.request_id,
        failed = fault.is_some(),
        "done"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_what_was_done() {
        for (method, path, action, noun, id) in [
            (Method::POST, "/v2.0/ports", "create", "port", ""),
            (Method::DELETE, "/v2.0/ports/1", "delete", "port", "1"),
            (Method::PUT, "/v2.0/routers/1/add_router_interface", "add_router_interface", "router", "1"),
            (Method::POST, "/v2.1/servers/1/action", "action", "server", "1"),
            (Method::PATCH, "/v2/images/1", "update", "image", "1"),
            (Method::POST, "/", "create", "", ""),
        ] {
            assert_eq!(Deed::of_path(&method, path), Deed::new(action, noun, id, ""), "{path}");
        }
    }
}
