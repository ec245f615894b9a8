//! Every call that changes something, or tried to, leaves one operation behind.

use crate::{
    app::App,
    error::{Failure, Result},
    request::unescape,
};
use axum::http::{Extensions, Method};
use control::{Caller, resolve::Noun};
use model::error::Fault;
use std::fmt::Display;

/// What was done, to what.
#[derive(Debug, Clone, Copy)]
pub struct Deed<'a> {
    /// The verb, like `create`.
    pub action: &'a str,
    /// The noun, like `instance`.
    pub noun: &'a str,
    /// As the caller named it.
    pub reference: &'a str,
}

/// Notes a deed on a record, and passes its outcome on.
///
/// # Errors
/// The deed's own.
pub async fn note<R: Noun>(
    app: &App,
    caller: &Caller,
    deed: Deed<'_>,
    outcome: control::Result<R>,
) -> Result<R> {
    note_as(app, caller, deed, outcome, |record| {
        let meta = record.meta();
        (meta.id.to_string(), meta.name.to_string())
    })
    .await
}

/// Notes a deed whose outcome is no record; `subject` tells id and name.
///
/// # Errors
/// The deed's own.
pub async fn note_as<T>(
    app: &App,
    caller: &Caller,
    deed: Deed<'_>,
    outcome: control::Result<T>,
    subject: impl Fn(&T) -> (String, String),
) -> Result<T> {
    let control = app.control();
    match outcome {
        Ok(value) => {
            let (id, name) = subject(&value);
            control.note_operation(caller, deed.action, deed.noun, &id, &name, None).await;
            tracing::info!(
                actor = caller.actor,
                action = deed.action,
                noun = deed.noun,
                id,
                name,
                request_id = caller.request_id,
                "done"
            );
            Ok(value)
        }
        Err(error) => {
            let fault = Fault {
                code: error.code,
                message: error.message.clone(),
                hint: error.hint.clone(),
                since: control.now(),
            };
            control.note_operation(caller, deed.action, deed.noun, "", deed.reference, Some(fault)).await;
            Err(Failure { is_noted: true, ..Failure::from(error) })
        }
    }
}

/// Notes a change that was refused before its handler knew enough to note it itself: by what the path tells.
pub async fn note_refused(app: &App, caller: &Caller, method: &Method, path: &str, reply: &Extensions) {
    let Some(failure) = reply.get::<Failure>().filter(|failure| !failure.is_noted) else {
        return;
    };
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return;
    }
    let (action, noun, reference) = of_path(method, path);
    let error = failure.error.clone();
    let deed = deed(&action, &noun, &reference);
    // The refusal is on its way to the caller already.
    let _ = note_as(app, caller, deed, Err::<(), _>(error), known("", "")).await;
}

/// What the path of a call tells: action, noun and what it names. `DELETE /v1/ports/web` is to delete the port web.
fn of_path(method: &Method, path: &str) -> (String, String, String) {
    let mut parts = path.trim_start_matches("/v1/").split('/').filter(|part| !part.is_empty());
    let (collection, reference) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let (noun, action) = match (collection, parts.next(), method.as_str()) {
        ("quotas", _, _) => ("project", "set_quota".to_string()),
        (noun, Some(part), "DELETE") => (noun, format!("remove_{}", one_of(part))),
        (noun, Some(verb), _) => (noun, verb.replace('-', "_")),
        (noun, None, "POST") => (noun, "create".to_string()),
        (noun, None, "DELETE") => (noun, "delete".to_string()),
        (noun, None, _) => (noun, "update".to_string()),
    };
    let reference = unescape(reference).unwrap_or_else(|_| reference.to_string());
    (action, one_of(noun).to_string(), reference)
}

fn one_of(collection: &str) -> &str {
    collection.strip_suffix('s').unwrap_or(collection)
}

/// A deed.
pub fn deed<'a>(action: &'a str, noun: &'a str, reference: &'a str) -> Deed<'a> {
    Deed { action, noun, reference }
}

/// Id and name of something already known.
pub fn known<T>(id: impl Display, name: impl Display) -> impl Fn(&T) -> (String, String) {
    let (id, name) = (id.to_string(), name.to_string());
    move |_| (id.clone(), name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_what_was_asked_for() {
        for (method, path, expected) in [
            (Method::DELETE, "/v1/ports/web", ("delete", "port", "web")),
            (Method::PATCH, "/v1/instances/my%20vm", ("update", "instance", "my vm")),
            (Method::POST, "/v1/instances/web/start", ("start", "instance", "web")),
            (Method::PUT, "/v1/quotas/shop", ("set_quota", "project", "shop")),
            (Method::DELETE, "/v1/security_groups/g/rules/1", ("remove_rule", "security_group", "g")),
            (Method::POST, "/v1/volumes", ("create", "volume", "")),
            (Method::POST, "/v1/", ("create", "", "")),
        ] {
            let (action, noun, reference) = of_path(&method, path);
            assert_eq!((action.as_str(), noun.as_str(), reference.as_str()), expected, "{method} {path}");
        }
    }
}
