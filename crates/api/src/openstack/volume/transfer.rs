//! Transfers: volumes that are offered to another project, by the path of old and by the one that came with 3.55.

use super::{
    asked::{field, object, refused, text},
    find, form,
};
use crate::openstack::{
    Base, Door, Fault, Microversion, Result, Session, audit::Deed, body::Body, query::Query,
};
use crate::routing::{Router, get, post};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::Control;
use model::{id::TransferId, volume::transfer::Transfer};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v3/os-volume-transfer", get(brief).post(create))
        .route("/v3/os-volume-transfer/detail", get(detail))
        .route("/v3/os-volume-transfer/{id}", get(show).delete(delete))
        .route("/v3/os-volume-transfer/{id}/accept", post(accept))
        .route("/v3/volume-transfers", get(brief).post(create))
        .route("/v3/volume-transfers/detail", get(detail))
        .route("/v3/volume-transfers/{id}", get(show).delete(delete))
        .route("/v3/volume-transfers/{id}/accept", post(accept))
}

fn id_of(id: &str) -> Result<TransferId> {
    id.parse().map_err(|_| Fault::not_found("Transfer", id))
}

fn found(control: &Control, session: &Session, id: &str) -> Result<Arc<Stored<Transfer>>> {
    control.transfer(&session.caller, id_of(id)?).map_err(|_| Fault::not_found("Transfer", id))
}

fn short(transfer: &Transfer, base: &Base) -> Value {
    json!({
        "id": transfer.id,
        "name": if transfer.name.is_empty() { Value::Null } else { json!(transfer.name) },
        "volume_id": transfer.volume,
        "links": form::links(base, &format!("/os-volume-transfer/{}", transfer.id)),
    })
}

fn view(transfer: &Transfer, version: Microversion, base: &Base) -> Value {
    let mut view = short(transfer, base);
    view["created_at"] = json!(form::time(transfer.created_at));
    if version.has(3, 57) {
        view["source_project_id"] = json!(transfer.project.hex());
        view["destination_project_id"] = Value::Null;
        view["accepted"] = json!(false);
    }
    view
}

fn listed(door: &Door, session: &Session, query: &Query) -> Result<Vec<Arc<Stored<Transfer>>>> {
    let everywhere = session.is_admin() && query.flag("all_tenants")? == Some(true);
    let mut all = door.control().transfers(&session.caller, everywhere);
    all.sort_by_key(|t| std::cmp::Reverse((t.record.created_at, t.record.id)));
    if let Some(name) = query.get("name") {
        all.retain(|t| t.record.name == name);
    }
    Ok(all)
}

async fn brief(State(door): State<Door>, session: Session, base: Base, query: Query) -> Result<Json<Value>> {
    let all = listed(&door, &session, &query)?;
    let shown: Vec<Value> = all.iter().map(|t| short(&t.record, &base)).collect();
    Ok(Json(json!({ "transfers": shown })))
}

async fn detail(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    query: Query,
) -> Result<Json<Value>> {
    let all = listed(&door, &session, &query)?;
    let shown: Vec<Value> = all.iter().map(|t| view(&t.record, version, &base)).collect();
    Ok(Json(json!({ "transfers": shown })))
}

async fn show(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let found = found(door.control(), &session, &id)?;
    Ok(Json(json!({ "transfer": view(&found.record, version, &base) })))
}

async fn create(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Body(input): Body<Value>,
) -> Result<Response> {
    let control = door.control();
    let input = object(&input, "transfer")?;
    let volume = text(&input, "volume_id")?
        .ok_or_else(|| Fault::invalid("Invalid input for field/attribute volume_id: it is missing."))?;
    let volume = find::volume(control, &session, volume)?;
    let status = form::status(control, &volume.record);
    if status != "available" {
        return Err(Fault::invalid(format!("Invalid volume: status must be available, but is {status}.")));
    }
    let stays = field(&input, "no_snapshots").and_then(Value::as_bool) == Some(true);
    if stays && !control.snapshots_of(volume.record.meta.id).is_empty() {
        return Err(Fault::invalid("Invalid volume: it has snapshots, and they go where it goes."));
    }
    let name = text(&input, "name")?.unwrap_or_default().trim();
    let id = volume.record.meta.id.to_string();
    let (made, key) = control.offer_volume(&session.caller, &id, name).await.map_err(refused)?;
    let mut shown = view(&made, version, &base);
    shown["auth_key"] = json!(key);
    let reply = (StatusCode::ACCEPTED, Json(json!({ "transfer": shown })));
    Ok(Deed::new("offer", "volume", id, &volume.record.meta.name).on(reply))
}

async fn delete(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    let control = door.control();
    let found = found(control, &session, &id)?;
    control.withdraw_transfer(&session.caller, found.record.id).await?;
    Ok(Deed::new("withdraw", "volume", found.record.volume, &found.record.name).on(StatusCode::ACCEPTED))
}

async fn accept(
    State(door): State<Door>,
    session: Session,
    base: Base,
    Path(id): Path<String>,
    Body(input): Body<Value>,
) -> Result<Response> {
    let input = object(&input, "accept")?;
    let key = text(&input, "auth_key")?
        .ok_or_else(|| Fault::invalid("Invalid input for field/attribute auth_key: it is missing."))?;
    let taken = door.control().accept_transfer(&session.caller, id_of(&id)?, key).await;
    let (transfer, volume) = taken.map_err(|error| match error.code {
        model::error::Code::Forbidden if error.field.as_deref() == Some("key") => {
            Fault::invalid(format!("Invalid auth key: Attempt to transfer {id} with invalid auth key."))
        }
        model::error::Code::NotFound => Fault::not_found("Transfer", &id),
        _ => refused(error),
    })?;
    let reply = (StatusCode::ACCEPTED, Json(json!({ "transfer": short(&transfer, &base) })));
    Ok(Deed::new("accept", "volume", volume.meta.id, &volume.meta.name).on(reply))
}
