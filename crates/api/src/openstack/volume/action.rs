//! What is done to a volume: `POST /v3/volumes/{id}/action` with one key that says what.

use super::{
    asked::{field, refused, size, text},
    collection::remove,
    find,
    form::{self, READONLY_KEY},
    kind,
};
use crate::openstack::{
    Door, Fault, Microversion, Result, Session, audit::Deed, body::Body, fault::Fault as Refusal,
    query::truth,
};
use crate::routing::{Router, post};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use control::{Control, volume::NewImageOfVolume};
use model::{instance::Instance, meta::Labels, plan::DiskFormat, volume::Volume};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use store::Stored;

/// The routes.
pub fn router() -> Router<Door> {
    Router::new().route("/v3/volumes/{id}/action", post(act))
}

/// A call: who asks, for what.
struct Call<'a> {
    control: &'a Control,
    session: &'a Session,
    volume: Arc<Stored<Volume>>,
    version: Microversion,
    input: Value,
}

impl Call<'_> {
    fn id(&self) -> String {
        self.volume.record.meta.id.to_string()
    }

    /// Refuses a volume in another state than these.
    fn must_be(&self, states: &[&str]) -> Result<()> {
        let status = form::status(self.control, &self.volume.record);
        if states.contains(&status) {
            return Ok(());
        }
        let wanted = states.join(", ");
        Err(Fault::invalid(format!(
            "Invalid volume: Volume {} status must be {wanted}, but is {status}.",
            self.id()
        )))
    }

    fn flag(&self, key: &str) -> Result<bool> {
        let value = field(&self.input, key);
        let read = value.and_then(|v| v.as_bool().or_else(|| truth(v.as_str()?)));
        read.ok_or_else(|| {
            Fault::invalid(format!("Invalid input for field/attribute {key}: a boolean is wanted."))
        })
    }
}

async fn act(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
    Body(input): Body<Value>,
) -> Result<Response> {
    let control = door.control();
    let volume = find::volume(control, &session, &id)?;
    let action = input.as_object().filter(|map| map.len() == 1).and_then(|map| map.iter().next());
    let Some((action, input)) = action else {
        return Err(Fault::invalid("There is no such action."));
    };
    let meta = volume.record.meta.clone();
    let call = Call { control, session: &session, volume, version, input: input.clone() };
    let reply = dispatch(&call, action).await?;
    let word = action.trim_start_matches("os-").replace(['-', '_'], " ");
    Ok(Deed::new(&word, "volume", meta.id, &meta.name).on(reply))
}

async fn dispatch(call: &Call<'_>, action: &str) -> Result<Response> {
    match action {
        "os-attach" => attach(call).await,
        "os-detach" | "os-force_detach" => detach(call, action).await,
        "os-extend" => extend(call).await,
        "os-set_bootable" => set_bootable(call).await,
        "os-update_readonly_flag" => set_readonly(call).await,
        "os-volume_upload_image" => upload(call).await,
        "os-retype" => retype(call).await,
        "os-force_delete" => {
            call.session.require_admin("volume_extension:volume_admin_actions:force_delete")?;
            remove(call.control, call.session, &call.volume.record, true).await?;
            Ok(StatusCode::ACCEPTED.into_response())
        }
        "os-reset_status" => {
            call.session.require_admin("volume_extension:volume_admin_actions:reset_status")?;
            same_status(call)
        }
        "os-show_image_metadata" => Ok(Json(json!({ "metadata": image_metadata(call) })).into_response()),
        "revert" => revert(call).await,
        "os-reserve"
        | "os-unreserve"
        | "os-begin_detaching"
        | "os-roll_detaching"
        | "os-initialize_connection"
        | "os-terminate_connection"
        | "os-set_image_metadata"
        | "os-unset_image_metadata"
        | "os-migrate_volume"
        | "os-migrate_volume_completion"
        | "os-reimage"
        | "os-extend_volume_completion"
        | "os-unmanage" => {
            Err(Fault::invalid(format!("The action {action} is not supported by this cloud.")))
        }
        _ => Err(Fault::invalid(format!("There is no such action: {action}."))),
    }
}

async fn attach(call: &Call<'_>) -> Result<Response> {
    call.must_be(&["available"])?;
    let server = text(&call.input, "instance_uuid")?.ok_or_else(|| {
        Fault::invalid("Invalid request to attach volume: a server (instance_uuid) must be named.")
    })?;
    let instance = server.parse().ok().and_then(|id| call.control.get::<Instance>(id));
    let instance = instance.filter(|i| call.session.caller.sees(i.record.meta.project));
    let instance = instance.ok_or_else(|| Fault::not_found("Instance", server))?;
    let is_read_only = match text(&call.input, "mode")? {
        Some("ro") => true,
        None | Some("rw") => false,
        Some(other) => return Err(Fault::invalid(format!("Invalid attaching mode '{other}'."))),
    };
    let instance = instance.record.meta.id.to_string();
    call.control
        .attach_volume(&call.session.caller, &instance, &call.id(), None, is_read_only)
        .await
        .map_err(refused)?;
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn detach(call: &Call<'_>, action: &str) -> Result<Response> {
    if action == "os-force_detach" {
        call.session.require_admin("volume_extension:volume_admin_actions:force_detach")?;
    }
    if call.volume.record.attached_to.is_none() {
        return Err(Fault::invalid(format!("Volume {} is not attached.", call.id())));
    }
    call.control.detach_volume(&call.session.caller, &call.id()).await.map_err(refused)?;
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn extend(call: &Call<'_>) -> Result<Response> {
    let wanted = size(&call.input, "new_size")?
        .ok_or_else(|| Fault::invalid("Invalid input for field/attribute new_size: it is missing."))?;
    let states: &[&str] = if call.version.has(3, 42) { &["available", "in-use"] } else { &["available"] };
    call.must_be(states)?;
    let now = call.volume.record.size_gib;
    if wanted <= now {
        let message = format!(
            "New size for extend must be greater than current size. (current: {now}, extended: {wanted})."
        );
        return Err(Fault::invalid(message));
    }
    call.control.resize_volume(&call.session.caller, &call.id(), wanted).await.map_err(refused)?;
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn set_bootable(call: &Call<'_>) -> Result<Response> {
    let is_bootable = call.flag("bootable")?;
    let change = |volume: &mut Volume| {
        volume.bootable = is_bootable;
        Ok(())
    };
    call.control.change::<Volume>(&call.session.caller, &call.id(), change).await?;
    Ok(StatusCode::OK.into_response())
}

async fn set_readonly(call: &Call<'_>) -> Result<Response> {
    call.must_be(&["available"])?;
    let is_read_only = call.flag("readonly")?;
    let word = if is_read_only { "True" } else { "False" };
    let change = |volume: &mut Volume| {
        volume.read_only = is_read_only;
        volume.meta.labels.insert(READONLY_KEY.into(), word.into());
        Ok(())
    };
    call.control.change::<Volume>(&call.session.caller, &call.id(), change).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn upload(call: &Call<'_>) -> Result<Response> {
    let is_forced = field(&call.input, "force")
        .is_some_and(|v| v.as_bool() == Some(true) || v.as_str().and_then(truth) == Some(true));
    call.must_be(if is_forced { &["available", "in-use", "uploading"] } else { &["available"] })?;
    let name = text(&call.input, "image_name")?
        .ok_or_else(|| Fault::invalid("Invalid input for field/attribute image_name: it is missing."))?;
    let disk_format = text(&call.input, "disk_format")?.unwrap_or("raw");
    let format = match disk_format {
        "raw" => DiskFormat::Raw,
        "qcow2" => DiskFormat::Qcow2,
        other => return Err(Fault::invalid(format!("Images of volumes are raw or qcow2, not {other}."))),
    };
    let container_format = text(&call.input, "container_format")?.unwrap_or("bare");
    if container_format != "bare" {
        return Err(Fault::invalid(format!("Invalid container format {container_format}: it is bare.")));
    }
    let visibility = text(&call.input, "visibility")?.unwrap_or("private");
    let is_public = visibility == "public" && call.version.has(3, 1);
    let protected = call.version.has(3, 1)
        && field(&call.input, "protected").is_some_and(|_| call.flag("protected") == Ok(true));
    let new = NewImageOfVolume {
        name: name.trim().to_string(),
        description: String::new(),
        volume: call.id(),
        snapshot: None,
        is_backup: false,
        format,
        public: is_public,
        protected,
        properties: BTreeMap::new(),
        labels: Labels::new(),
    };
    let made = call.control.image_of_volume(&call.session.caller, new).await.map_err(refused)?;
    let volume =
        call.control.get::<Volume>(call.volume.record.meta.id).unwrap_or_else(|| Arc::clone(&call.volume));
    let volume = &volume.record;
    let kind = kind::of(call.control, volume);
    let mut view = json!({
        "id": volume.meta.id,
        "updated_at": form::updated(&volume.meta),
        "status": "uploading",
        "display_description": form::description(&volume.meta),
        "size": volume.size_gib,
        "volume_type": {
            "id": kind.id,
            "name": kind.name,
            "description": Value::Null,
            "is_public": true,
            "extra_specs": {},
            "qos_specs_id": Value::Null,
            "created_at": form::time(jiff::Timestamp::UNIX_EPOCH),
            "updated_at": Value::Null,
            "deleted": false,
            "deleted_at": Value::Null,
        },
        "image_id": made.meta.id,
        "container_format": container_format,
        "disk_format": disk_format,
        "image_name": name,
    });
    if call.version.has(3, 1) {
        view["visibility"] = json!(visibility);
        view["protected"] = json!(protected);
    }
    Ok((StatusCode::ACCEPTED, Json(json!({ "os-volume_upload_image": view }))).into_response())
}

/// Another type would mean another file: that is a copy, which users make.
async fn retype(call: &Call<'_>) -> Result<Response> {
    let wanted = text(&call.input, "new_type")?
        .ok_or_else(|| Fault::invalid("Invalid input for field/attribute new_type: it is missing."))?;
    if let Some(policy) = text(&call.input, "migration_policy")?
        && !matches!(policy, "never" | "on-demand")
    {
        return Err(Fault::invalid("migration_policy must be 'on-demand' or 'never'."));
    }
    let wanted = kind::find(call.control, call.session, wanted);
    let wanted = wanted.map_err(|fault: Refusal| fault.with_status(StatusCode::BAD_REQUEST))?;
    call.must_be(&["available", "in-use"])?;
    if wanted.id == kind::of(call.control, &call.volume.record).id {
        return Err(Fault::invalid("New volume_type same as original."));
    }
    let id = call.id();
    call.control.retype_volume(&call.session.caller, &id, wanted.asked).await.map_err(refused)?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// A state is what is there, and nobody sets it; asking for what is the case is fine.
fn same_status(call: &Call<'_>) -> Result<Response> {
    let wanted = text(&call.input, "status")?;
    let status = form::status(call.control, &call.volume.record);
    match wanted {
        None => Ok(StatusCode::ACCEPTED.into_response()),
        Some(wanted) if wanted == status => Ok(StatusCode::ACCEPTED.into_response()),
        Some(_) => Err(Fault::invalid(format!(
            "The state of a volume is what is found ({status}) and cannot be set."
        ))),
    }
}

fn image_metadata(call: &Call<'_>) -> Value {
    let volume = &call.volume.record;
    volume.ground().image.map_or(json!({}), |id| form::image_metadata(call.control, id))
}

async fn revert(call: &Call<'_>) -> Result<Response> {
    call.version.require(3, 40)?;
    let id = text(&call.input, "snapshot_id")?
        .ok_or_else(|| Fault::invalid("Invalid input for field/attribute snapshot_id: it is missing."))?;
    let snapshot = find::snapshot(call.control, call.session, id)?;
    let snapshot = snapshot.record.meta.id.to_string();
    call.control.restore_volume(&call.session.caller, &call.id(), &snapshot).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}
