//! Volumes of servers. A detach is done when the guest let go, and the attachment is shown while it has not.

use super::{
    form::Form,
    server::{deed, find, view::is_attachment},
};
use crate::openstack::{Door, Fault, Microversion, Result, Session, body::Body, query::Query};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
    routing::get,
};
use model::{id::VolumeId, instance::Instance, volume::Volume};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.1/servers/{id}/os-volume_attachments", get(list).post(attach))
        .route("/v2.1/servers/{id}/os-volume_attachments/{volume}", get(show).put(change).delete(detach))
}

/// What a server has, what it is letting go of included.
fn of_server(door: &Door, instance: &Instance) -> Vec<Arc<Stored<Volume>>> {
    let mut all = door.control().volumes_of_instance(instance.meta.id);
    all.retain(|volume| is_attachment(instance, &volume.record) && !volume.record.meta.is_deleting());
    all.sort_by_key(|volume| instance.volumes.iter().position(|id| *id == volume.record.meta.id));
    all
}

/// Name of the disk in the guest, as virtio counts them.
fn device(instance: &Instance, id: VolumeId) -> Option<String> {
    let place = instance.volumes.iter().position(|known| *known == id)?;
    let letter = b'a'.checked_add(u8::try_from(place).ok()?)?;
    Some(format!("/dev/vd{}", char::from(letter)))
}

fn view(instance: &Instance, volume: &Volume, version: Microversion) -> Value {
    let id = volume.meta.id.to_string();
    let mut shown =
        json!({ "volumeId": id, "serverId": instance.meta.id, "device": device(instance, volume.meta.id) });
    if !version.has(2, 89) {
        shown["id"] = id.clone().into();
    }
    if version.has(2, 70) {
        shown["tag"] = Value::Null;
    }
    if version.has(2, 79) {
        shown["delete_on_termination"] = volume.delete_with_instance.into();
    }
    if version.has(2, 89) {
        shown["attachment_id"] = id.clone().into();
        shown["bdm_uuid"] = id.into();
    }
    shown
}

fn one(door: &Door, instance: &Instance, volume: &str) -> Result<Arc<Stored<Volume>>> {
    let missing = || {
        let id = instance.meta.id;
        let message = format!("Instance {id} is not attached to volume {volume}");
        Fault::status(StatusCode::NOT_FOUND, message)
    };
    let id = volume.parse::<VolumeId>().map_err(|_| missing())?;
    of_server(door, instance).into_iter().find(|v| v.record.meta.id == id).ok_or_else(missing)
}

async fn list(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<Value>> {
    let found = find(&door, &session, &id)?;
    let (limit, offset) = (query.number("limit")?, query.number("offset")?.unwrap_or(0));
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let shown: Vec<Value> = of_server(&door, &found.record)
        .iter()
        .skip(size(offset))
        .take(limit.map_or(usize::MAX, size))
        .map(|volume| view(&found.record, &volume.record, version))
        .collect();
    Ok(Json(json!({ "volumeAttachments": shown })))
}

async fn show(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path((id, volume)): Path<(String, String)>,
) -> Result<Json<Value>> {
    let found = find(&door, &session, &id)?;
    let volume = one(&door, &found.record, &volume)?;
    Ok(Json(json!({ "volumeAttachment": view(&found.record, &volume.record, version) })))
}

async fn attach(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let form = Form::under(&body, "volumeAttachment")?;
    let mut known = vec!["volumeId", "device"];
    if version.has(2, 49) {
        known.push("tag");
    }
    if version.has(2, 79) {
        known.push("delete_on_termination");
    }
    form.refuse_others(&known)?;
    let volume = form.needed("volumeId")?;
    volume.parse::<VolumeId>().map_err(|_| {
        Fault::invalid(format!("Invalid input for field/attribute volumeId. Value: {volume}."))
    })?;
    let found = find(&door, &session, &id)?;
    let (control, caller) = (door.control(), &session.caller);
    let server = found.record.meta.id.to_string();
    let attached = control.attach_volume(caller, &server, volume, None, false).await;
    let attached = attached.map_err(|error| match error.code {
        model::error::Code::InUse => Fault::invalid(format!("Invalid volume: {}", error.message)),
        _ => error.into(),
    })?;
    if form.flag("delete_on_termination")?.unwrap_or(false) {
        set_end(&door, &session, attached.meta.id, true).await?;
    }
    let now = find(&door, &session, &id)?;
    let current = control.get::<Volume>(attached.meta.id).map_or(attached, |v| v.record.clone());
    let shown = json!({ "volumeAttachment": view(&now.record, &current, version) });
    Ok(deed("attach_volume", &now.record).on(Json(shown)))
}

async fn set_end(door: &Door, session: &Session, id: VolumeId, goes_along: bool) -> Result<()> {
    let set = |volume: &mut Volume| {
        volume.delete_with_instance = goes_along;
        Ok(())
    };
    door.control().change::<Volume>(&session.caller, &id.to_string(), set).await?;
    Ok(())
}

/// What is changed of an attachment: whether its volume goes with the server (from 2.85). Swapping volumes is for
/// clouds with several kinds of storage.
async fn change(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path((id, volume)): Path<(String, String)>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let form = Form::under(&body, "volumeAttachment")?;
    form.refuse_others(&["volumeId", "delete_on_termination", "device", "serverId", "tag", "id"])?;
    let found = find(&door, &session, &id)?;
    let attached = one(&door, &found.record, &volume)?;
    let same = form.needed("volumeId")? == attached.record.meta.id.to_string();
    match form.flag("delete_on_termination")? {
        Some(goes_along) if same && version.has(2, 85) => {
            set_end(&door, &session, attached.record.meta.id, goes_along).await?;
            Ok(deed("update", &found.record).on(StatusCode::ACCEPTED))
        }
        _ if same => Err(Fault::invalid("The new volume is the one that is attached.")),
        _ => {
            session.require_admin("os_compute_api:os-volumes-attachments:swap")?;
            Err(Fault::conflict("Volumes cannot be swapped: detach one and attach the other."))
        }
    }
}

async fn detach(
    State(door): State<Door>,
    session: Session,
    Path((id, volume)): Path<(String, String)>,
) -> Result<Response> {
    let found = find(&door, &session, &id)?;
    let attached = one(&door, &found.record, &volume)?;
    let volume = attached.record.meta.id;
    // One that is being let go of already is on its way.
    if found.record.volumes.contains(&volume) {
        door.control().detach_volume(&session.caller, &volume.to_string()).await.map_err(
            |error| match error.code {
                model::error::Code::Conflict => {
                    Fault::forbidden(format!("Cannot detach a root device volume: {}", error.message))
                }
                _ => error.into(),
            },
        )?;
    }
    Ok(deed("detach_volume", &found.record).on(StatusCode::ACCEPTED))
}
