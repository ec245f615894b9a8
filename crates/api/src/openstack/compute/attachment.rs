//! Volumes of servers. A detach is done when the guest let go, and the attachment is shown while it has not.

use super::{
    form::{Form, wrong},
    server::{deed, find, refuse_locked, state_of, view::is_attachment},
    tag,
};
use crate::openstack::{Door, Fault, Microversion, Result, Session, body::Body, query::Query};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::volume::Attach;
use model::{
    error::Code,
    id::VolumeId,
    instance::{Instance, Kind},
    volume::Volume,
};
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

/// Name of the disk in the guest, as virtio counts them; for a container, where it sees the volume.
fn device(instance: &Instance, volume: &Volume) -> Option<String> {
    if instance.kind != Kind::Vm {
        return volume.mount_path.clone();
    }
    let place = instance.volumes.iter().position(|known| *known == volume.meta.id)?;
    let letter = b'a'.checked_add(u8::try_from(place).ok()?)?;
    Some(format!("/dev/vd{}", char::from(letter)))
}

fn view(instance: &Instance, volume: &Volume, version: Microversion) -> Value {
    let id = volume.meta.id.to_string();
    let mut shown =
        json!({ "volumeId": id, "serverId": instance.meta.id, "device": device(instance, volume) });
    if !version.has(2, 89) {
        shown["id"] = id.clone().into();
    }
    if version.has(2, 70) {
        shown["tag"] = json!(volume.device_tag);
    }
    if version.has(2, 79) {
        shown["delete_on_termination"] = volume.delete_with_instance.into();
    }
    if version.has(2, 89) {
        // One server at most has a volume, so an attachment has its volume's id on every door.
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

/// Nova's words for what control refuses of an attachment.
fn refused(error: control::Error) -> Fault {
    match error.code {
        Code::InUse => Fault::invalid(format!("Invalid volume: {}", error.message)),
        Code::TooLarge => Fault::forbidden(error.message),
        _ => error.into(),
    }
}

/// States in which the disks of a server may change.
const CHANGEABLE: [&str; 5] = ["active", "paused", "stopped", "resized", "shelved_offloaded"];

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
    let volume = id_of("volumeId", form.needed("volumeId")?)?;
    let found = find(&door, &session, &id)?;
    let asked = asked(&form, &found.record)?;
    refuse_locked(&session, &found.record)?;
    state_of(&door, &found.record).require(&id, "attach_volume", &CHANGEABLE)?;
    let (control, caller) = (door.control(), &session.caller);
    let missing = |_| Fault::status(StatusCode::NOT_FOUND, format!("Volume {volume} could not be found."));
    let free = control.find::<Volume>(caller, &volume.to_string()).map_err(missing)?;
    if free.record.meta.is_deleting() {
        return Err(Fault::invalid(format!("Invalid volume: volume {volume} is being deleted")));
    }
    let server = found.record.meta.id.to_string();
    let attached =
        control.attach_volume_as(caller, &server, &volume.to_string(), &asked).await.map_err(refused)?;
    let now = find(&door, &session, &id)?;
    let shown = json!({ "volumeAttachment": view(&now.record, &attached, version) });
    Ok(deed("attach_volume", &now.record).on(Json(shown)))
}

fn id_of(key: &str, text: &str) -> Result<VolumeId> {
    text.parse().map_err(|_| wrong(key, &json!(text), "it is no id of a volume"))
}

/// How a volume is to be attached. `device` is a name of which a guest's kernel makes its own, and the path at which a
/// container sees the volume.
fn asked(form: &Form<'_>, instance: &Instance) -> Result<Attach> {
    let device = form.text("device")?;
    let mount_path = match device {
        _ if instance.kind == Kind::Vm => {
            check_device(device)?;
            None
        }
        Some(path) if path.starts_with('/') && !path.starts_with("/dev/") => Some(path.to_string()),
        _ => {
            let value = form.raw("device").cloned().unwrap_or_default();
            return Err(wrong("device", &value, "a container sees a volume at a path: name it, like /data"));
        }
    };
    Ok(Attach {
        mount_path,
        read_only: false,
        delete_with_instance: Some(form.flag("delete_on_termination")?.unwrap_or(false)),
        tag: form.get("tag").map(|value| tag::read("tag", value)).transpose()?,
    })
}

/// Refuses what is no name of a disk: `/dev/vdb`, `/dev/sdc1`.
fn check_device(device: Option<&str>) -> Result<()> {
    let Some(text) = device else { return Ok(()) };
    let name = text.strip_prefix("/dev/").unwrap_or_default().trim_end_matches(|c: char| c.is_ascii_digit());
    if (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase()) {
        return Ok(());
    }
    Err(wrong("device", &json!(text), "a disk is called like /dev/vdb"))
}

/// What is changed of an attachment: whether its volume goes with the server (from 2.85). Before that, and where another
/// volume is named, it is to put one volume in another's place, which admins alone may ask for.
async fn change(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path((id, volume)): Path<(String, String)>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let form = Form::under(&body, "volumeAttachment")?;
    let mut known = vec!["volumeId"];
    if version.has(2, 85) {
        known.extend(["delete_on_termination", "device", "serverId", "tag", "id"]);
    }
    form.refuse_others(&known)?;
    let named = id_of("volumeId", form.needed("volumeId")?)?;
    let goes_along = form.flag("delete_on_termination")?;
    let found = find(&door, &session, &id)?;
    if !version.has(2, 85) || volume.parse().ok() != Some(named) {
        session.require_admin("os_compute_api:os-volumes-attachments:swap")?;
        let old = one(&door, &found.record, &volume)?;
        return Err(refuse_swap(&door, &session, &old.record, named));
    }
    let attached = one(&door, &found.record, &volume)?;
    let shown = view(&found.record, &attached.record, Microversion::new(2, 85));
    for key in ["id", "serverId", "device", "tag"] {
        if form.raw(key).is_some_and(|value| *value != shown[key]) {
            return Err(Fault::invalid(format!("The {key} property is not mutable")));
        }
    }
    if let Some(goes_along) = goes_along {
        let set = |volume: &mut Volume| {
            volume.delete_with_instance = goes_along;
            Ok(())
        };
        let id = attached.record.meta.id.to_string();
        door.control().change::<Volume>(&session.caller, &id, set).await?;
    }
    Ok(deed("update", &found.record).on(StatusCode::ACCEPTED))
}

/// Why a volume does not take another's place. There is one kind of storage here, so nothing is to be had by it.
fn refuse_swap(door: &Door, session: &Session, old: &Volume, named: VolumeId) -> Fault {
    match door.control().find::<Volume>(&session.caller, &named.to_string()) {
        Err(_) => Fault::invalid(format!("Volume {named} could not be found.")),
        Ok(new) if new.record.meta.id == old.meta.id || new.record.attached_to.is_some() => {
            Fault::invalid(format!("Invalid volume: volume {named} is attached already"))
        }
        Ok(_) => Fault::conflict("Volumes cannot be swapped: detach one and attach the other."),
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
    refuse_locked(&session, &found.record)?;
    state_of(&door, &found.record).require(&id, "detach_volume", &CHANGEABLE)?;
    // One that is being let go of already is on its way.
    if found.record.volumes.contains(&volume) {
        door.control().detach_volume(&session.caller, &volume.to_string()).await.map_err(
            |error| match error.code {
                Code::Conflict => {
                    Fault::forbidden(format!("Cannot detach a root device volume: {}", error.message))
                }
                _ => error.into(),
            },
        )?;
    }
    Ok(deed("detach_volume", &found.record).on(StatusCode::ACCEPTED))
}
