//! Snapshots: listed, shown, taken, changed and deleted.

use super::{
    asked::{self, Words, field, labels, object, refused, text},
    find, form,
    list::{self, Entry},
};
use crate::openstack::{
    Base, Door, Fault, Microversion, Result, Session,
    audit::Deed,
    body::Body,
    query::{Query, truth},
};
use crate::routing::{Router, get, post};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::snapshot::NewSnapshot;
use model::snapshot::Snapshot;
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// What lists of snapshots are filtered by.
const FILTERS: &[&str] = &["id", "name", "status", "volume_id", "size", "description"];

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v3/snapshots", get(brief).post(create))
        .route("/v3/snapshots/detail", get(detail))
        .route("/v3/snapshots/{id}", get(show).put(update).delete(delete))
        .route("/v3/snapshots/{id}/action", post(act))
}

fn entries(
    door: &Door,
    session: &Session,
    query: &Query,
    version: Microversion,
    in_full: bool,
) -> Result<Vec<Entry>> {
    let control = door.control();
    let found = asked::listed::<Snapshot>(control, session, query)?;
    let entry = |stored: &Arc<Stored<Snapshot>>| {
        let full = form::snapshot(control, session, &stored.record, version, true);
        let shown = form::snapshot(control, session, &stored.record, version, in_full);
        Entry { full, shown, created_at: stored.record.meta.created_at }
    };
    Ok(found.iter().map(entry).collect())
}

async fn brief(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    query: Query,
) -> Result<Json<Value>> {
    let all = entries(&door, &session, &query, version, false)?;
    list::reply("snapshots", all, FILTERS, &query, version, &base).map(Json)
}

async fn detail(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    query: Query,
) -> Result<Json<Value>> {
    let all = entries(&door, &session, &query, version, true)?;
    list::reply("snapshots", all, FILTERS, &query, version, &base).map(Json)
}

async fn show(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let found = find::snapshot(door.control(), &session, &id)?;
    Ok(Json(json!({ "snapshot": form::snapshot(door.control(), &session, &found.record, version, true) })))
}

async fn create(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Body(input): Body<Value>,
) -> Result<Response> {
    let control = door.control();
    let input = object(&input, "snapshot")?;
    let volume = match input.get("volume_id") {
        Some(Value::String(id)) => id.as_str(),
        // Cinder looks for a volume of that name, and finds none.
        Some(Value::Null) => return Err(Fault::not_found("Volume", "None")),
        _ => return Err(Fault::invalid("Invalid input for field/attribute volume_id: it is missing.")),
    };
    let found = find::volume(control, &session, volume)?;
    let status = form::status(control, &found.record);
    let forced = field(&input, "force");
    let is_forced = forced.and_then(|v| v.as_bool().or_else(|| truth(v.as_str()?)));
    if forced.is_some() && is_forced.is_none() {
        return Err(Fault::invalid("Invalid input for field/attribute force: a boolean is wanted."));
    }
    // From 3.66 on a volume that a server has needs no force.
    if version.has(3, 66) && is_forced == Some(false) {
        return Err(Fault::invalid("Invalid value '' for attribute force: it is always on from 3.66 on."));
    }
    let may_be_used = version.has(3, 66) || is_forced == Some(true);
    let is_fine = matches!(status, "available" | "uploading" | "backing-up")
        || may_be_used && matches!(status, "in-use" | "attaching" | "detaching");
    if !is_fine {
        return Err(Fault::invalid(format!(
            "Invalid volume: Volume {volume} status must be available, but current status is: {status}."
        )));
    }
    let new = NewSnapshot {
        name: text(&input, "name")?.unwrap_or_default().trim().to_string(),
        description: text(&input, "description")?.unwrap_or_default().to_string(),
        volume: found.record.meta.id.to_string(),
        labels: labels(&input)?,
    };
    control::change::check_labels(&new.labels)?;
    let made = control.create_snapshot(&session.caller, new).await.map_err(refused)?;
    let view = form::snapshot(control, &session, &made, version, false);
    let reply = (StatusCode::ACCEPTED, Json(json!({ "snapshot": view })));
    Ok(Deed::new("create", "snapshot", made.meta.id, &made.meta.name).on(reply))
}

async fn update(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
    Body(input): Body<Value>,
) -> Result<Response> {
    let control = door.control();
    let found = find::snapshot(control, &session, &id)?;
    let input = object(&input, "snapshot")?;
    let id = found.record.meta.id.to_string();
    let words = Words::read(&input, "snapshot", &id)?;
    let changed = control
        .change::<Snapshot>(&session.caller, &id, |snapshot| {
            words.put(&mut snapshot.meta);
            Ok(())
        })
        .await?;
    let view = form::snapshot(control, &session, &changed, version, false);
    Ok(Deed::new("update", "snapshot", &id, &changed.meta.name).on(Json(json!({ "snapshot": view }))))
}

async fn delete(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    let found = find::snapshot(door.control(), &session, &id)?;
    let meta = &found.record.meta;
    door.control().delete_snapshot(&session.caller, &meta.id.to_string()).await.map_err(refused)?;
    Ok(Deed::new("delete", "snapshot", meta.id, &meta.name).on(StatusCode::ACCEPTED))
}

/// Actions of administrators: states are what is found, and nobody sets them.
async fn act(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(input): Body<Value>,
) -> Result<StatusCode> {
    session.require_admin("volume_extension:snapshot_admin_actions:reset_status")?;
    let found = find::snapshot(door.control(), &session, &id)?;
    if field(&input, "os-force_delete").is_some() || input.get("os-force_delete").is_some() {
        let id = found.record.meta.id.to_string();
        door.control().delete_snapshot(&session.caller, &id).await.map_err(refused)?;
        return Ok(StatusCode::ACCEPTED);
    }
    let wanted = field(&input, "os-reset_status").and_then(|v| v.get("status")?.as_str());
    let status = form::snapshot_status(door.control(), &found.record);
    match wanted {
        Some(wanted) if wanted == status => Ok(StatusCode::ACCEPTED),
        Some(_) => Err(Fault::invalid(format!(
            "The state of a snapshot is what is found ({status}) and cannot be set."
        ))),
        None => Err(Fault::invalid("There is no such action.")),
    }
}
