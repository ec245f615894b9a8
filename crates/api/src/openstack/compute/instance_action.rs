//! What was asked of a server: the operations that the cloud keeps, as Nova's instance actions.

use super::server::{
    find, state_of,
    view::{host_id, micros, user_of},
};
use crate::openstack::{Door, Fault, Microversion, Result, Session, paging::Page, query::Query};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use jiff::Timestamp;
use model::{instance::Instance, node::Node, operation::Operation};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.1/servers/{id}/os-instance-actions", get(list))
        .route("/v2.1/servers/{id}/os-instance-actions/{request}", get(show))
}

/// Nova's word for what was done; `None` for what it keeps no action of.
fn word(action: &str) -> Option<&str> {
    Some(match action {
        "create" | "start" | "stop" | "pause" | "unpause" | "suspend" | "resume" | "rebuild" | "resize"
        | "lock" | "unlock" | "delete" | "reboot" | "shelve" | "unshelve" | "rescue" | "unrescue" => action,
        "kill" => "stop",
        "reset" => "reboot",
        "confirm-size" => "confirmResize",
        "revert-size" => "revertResize",
        "create_image" => "createImage",
        "attach_volume" | "detach_volume" | "extend_volume" | "swap_volume" => action,
        "attach_port" => "attach_interface",
        "detach_port" => "detach_interface",
        _ => return None,
    })
}

/// What was asked of a server.
struct History {
    server: Arc<Stored<Instance>>,
    /// Newest first.
    operations: Vec<Arc<Stored<Operation>>>,
}

impl History {
    fn of(door: &Door, session: &Session, id: &str) -> Result<Self> {
        let server = find(door, session, id)?;
        let id = server.record.meta.id.to_string();
        let mut operations = door.control().operations_on("instance", &id);
        operations.retain(|o| word(&o.record.action).is_some());
        Ok(Self { server, operations })
    }

    fn user(&self) -> String {
        user_of(&self.server.record)
    }

    /// When what was asked was done: an order is taken at once, and carried out by the host. The newest is under way as
    /// long as the server is on its way; others ended when the next one began, at the latest.
    fn ended_at(&self, door: &Door, operation: &Operation) -> Option<Timestamp> {
        let newest = self.operations.first().is_some_and(|newest| newest.record.id == operation.id);
        let is_under_way = || state_of(door, &self.server.record).task.is_some();
        if newest && operation.fault.is_none() && is_under_way() {
            return None;
        }
        operation.ended_at
    }
}

fn view(operation: &Operation, user: &str, version: Microversion) -> Value {
    let mut shown = json!({
        "action": word(&operation.action),
        "instance_uuid": operation.subject.id,
        "request_id": operation.request_id,
        "user_id": user,
        "project_id": operation.project.hex(),
        "start_time": micros(operation.started_at),
        "message": operation.fault.as_ref().map(|fault| fault.message.clone()),
    });
    if version.has(2, 58) {
        shown["updated_at"] = micros(operation.ended_at.unwrap_or(operation.started_at)).into();
    }
    shown
}

async fn list(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<Value>> {
    let history = History::of(&door, &session, &id)?;
    let (user, mut all) = (history.user(), history.operations);
    if !version.has(2, 58) {
        let shown: Vec<Value> = all.iter().map(|o| view(&o.record, &user, version)).collect();
        return Ok(Json(json!({ "instanceActions": shown })));
    }
    let time = |key: &str| {
        let read = |text: &str| {
            text.parse::<Timestamp>()
                .map_err(|_| Fault::invalid(format!("Invalid filter field: {key}. Value: {text}.")))
        };
        query.get(key).map(read).transpose()
    };
    let (since, before) = (time("changes-since")?, time("changes-before")?);
    all.retain(|o| {
        let at = o.record.ended_at.unwrap_or(o.record.started_at);
        since.is_none_or(|since| at >= since) && before.is_none_or(|before| at <= before)
    });
    let max = crate::openstack::paging::LIMIT_MAX;
    let page = Page::cut(all, &query, max, |o| o.record.request_id.clone())?;
    let shown: Vec<Value> = page.items.iter().map(|o| view(&o.record, &user, version)).collect();
    Ok(Json(json!({ "instanceActions": shown })))
}

async fn show(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path((id, request)): Path<(String, String)>,
) -> Result<Json<Value>> {
    let history = History::of(&door, &session, &id)?;
    let missing = || Fault::status(StatusCode::NOT_FOUND, format!("Action {request} not found"));
    let found = history.operations.iter().find(|o| o.record.request_id == request).ok_or_else(missing)?;
    let operation = &found.record;
    let ended_at = history.ended_at(&door, operation);
    let mut shown = view(operation, &history.user(), version);
    let result = if operation.fault.is_some() { "Error" } else { "Success" };
    let mut event = json!({
        "event": format!("compute_{}", operation.action.replace('-', "_")),
        "start_time": micros(operation.started_at),
        "finish_time": ended_at.map(micros),
        "result": ended_at.map(|_| result),
    });
    if session.is_admin() {
        event["traceback"] = Value::Null;
    }
    if version.has(2, 62) {
        let server = &history.server.record;
        event["hostId"] = host_id(server).into();
        if session.is_admin() {
            let node = server.node.and_then(|id| door.control().store().get::<Node>(&id.to_string()));
            event["host"] = json!(node.map(|node| node.record.name.to_string()));
        }
    }
    if version.has(2, 84) {
        event["details"] = json!(operation.fault.as_ref().map(|fault| fault.message.clone()));
    }
    shown["events"] = json!([event]);
    Ok(Json(json!({ "instanceAction": shown })))
}
