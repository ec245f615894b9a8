//! Attachments: who has a volume. One server at most, so an attachment has its volume's id.

use super::{
    asked::{field, refused},
    collection, find, form,
};
use crate::openstack::{Door, Fault, Microversion, Result, Session, audit::Deed, body::Body, query::Query};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::Control;
use model::{instance::Instance, volume::Volume};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v3/attachments", get(brief).post(create))
        .route("/v3/attachments/detail", get(detail))
        .route("/v3/attachments/{id}", get(show).delete(delete))
}

fn view(control: &Control, volume: &Volume, in_full: bool) -> Value {
    let status = match form::status(control, volume) {
        "in-use" => "attached",
        other => other,
    };
    let mut view = json!({
        "id": volume.meta.id,
        "status": status,
        "instance": volume.attached_to,
        "volume_id": volume.meta.id,
    });
    if in_full {
        view["attached_at"] = json!(volume.attached_at.map(form::time));
        view["detached_at"] = Value::Null;
        view["attach_mode"] = json!(if volume.refuses_writes() { "ro" } else { "rw" });
        view["connection_info"] = json!({});
    }
    view
}

fn all(door: &Door, session: &Session, query: &Query, in_full: bool) -> Result<Json<Value>> {
    let found = collection::all(door.control(), session, query)?;
    let fits = |volume: &Volume| {
        let user = volume.attached_to.map(|id| id.to_string());
        user.is_some()
            && query.get("instance_id").is_none_or(|id| user.as_deref() == Some(id))
            && query.get("volume_id").is_none_or(|id| volume.meta.id.to_string() == id)
    };
    let shown = found.iter().filter(|v| fits(&v.record)).map(|v| view(door.control(), &v.record, in_full));
    Ok(Json(json!({ "attachments": shown.collect::<Vec<_>>() })))
}

async fn brief(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    query: Query,
) -> Result<Json<Value>> {
    version.require(3, 27)?;
    all(&door, &session, &query, false)
}

async fn detail(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    query: Query,
) -> Result<Json<Value>> {
    version.require(3, 27)?;
    all(&door, &session, &query, true)
}

fn attached(control: &Control, session: &Session, id: &str) -> Result<Arc<Stored<Volume>>> {
    let missing = || Fault::not_found("Volume attachment", id);
    let found = find::volume(control, session, id).map_err(|_| missing())?;
    if found.record.attached_to.is_some() { Ok(found) } else { Err(missing()) }
}

async fn show(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    version.require(3, 27)?;
    let found = attached(door.control(), &session, &id)?;
    Ok(Json(json!({ "attachment": view(door.control(), &found.record, true) })))
}

async fn create(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Body(input): Body<Value>,
) -> Result<Response> {
    version.require(3, 27)?;
    let control = door.control();
    let missing =
        |key: &str| Fault::invalid(format!("Invalid input for field/attribute {key}: it is missing."));
    let input = field(&input, "attachment").cloned().ok_or_else(|| missing("attachment"))?;
    let volume =
        field(&input, "volume_uuid").and_then(Value::as_str).ok_or_else(|| missing("volume_uuid"))?;
    let volume = find::volume(control, &session, volume)?;
    let server =
        field(&input, "instance_uuid").and_then(Value::as_str).ok_or_else(|| missing("instance_uuid"))?;
    let instance = server.parse().ok().and_then(|id| control.get::<Instance>(id));
    let instance = instance.filter(|i| session.caller.sees(i.record.meta.project));
    let instance = instance.ok_or_else(|| Fault::not_found("Instance", server))?;
    let is_read_only = version.has(3, 54) && field(&input, "mode").is_some_and(|mode| mode == "ro");
    let (instance, id) = (instance.record.meta.id.to_string(), volume.record.meta.id.to_string());
    let made =
        control.attach_volume(&session.caller, &instance, &id, None, is_read_only).await.map_err(refused)?;
    let reply = Json(json!({ "attachment": view(control, &made, true) }));
    Ok(Deed::new("attach", "volume", &id, &made.meta.name).on(reply))
}

async fn delete(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Response> {
    version.require(3, 27)?;
    let found = attached(door.control(), &session, &id)?;
    let meta = &found.record.meta;
    door.control().detach_volume(&session.caller, &meta.id.to_string()).await.map_err(refused)?;
    Ok(Deed::new("detach", "volume", meta.id, &meta.name)
        .on((StatusCode::OK, Json(json!({ "attachments": [] })))))
}
