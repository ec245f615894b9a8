//! Backups: images that are kept of volumes, each a full copy that needs nothing of its volume any more.
//!
//! They lie where images lie, on the host's disk, and are listed here alone. Restoring one makes a new volume of it, or
//! puts a volume back to it that no server has.

use super::{
    asked::{Words, field, labels, object, refused, text},
    collection::check_zone,
    find,
    form::{self, ZONE},
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
use control::{
    Control,
    volume::{NewImageOfVolume, NewVolume, SourceAsked},
};
use model::{
    image::{BackupOf, Image, ImageState},
    plan::DiskFormat,
    volume::Volume,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use store::Stored;

/// What lists of backups are filtered by.
const FILTERS: &[&str] = &["id", "name", "status", "volume_id"];

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v3/backups", get(brief).post(create))
        .route("/v3/backups/detail", get(detail))
        .route("/v3/backups/{id}", get(show).put(update).delete(delete))
        .route("/v3/backups/{id}/restore", post(restore))
        .route("/v3/backups/{id}/action", post(act))
}

/// A backup: the image and what it is of.
type Found = (Arc<Stored<Image>>, BackupOf);

fn backup_of(image: &Arc<Stored<Image>>) -> Option<Found> {
    let of = image.record.backup.filter(|_| !image.record.meta.is_deleting())?;
    Some((Arc::clone(image), of))
}

fn find(control: &Control, session: &Session, id: &str) -> Result<Found> {
    let missing = || Fault::not_found("Backup", id);
    let image = control.get::<Image>(id.parse().map_err(|_| missing())?).ok_or_else(missing)?;
    let is_visible = session.caller.sees(image.record.meta.project);
    backup_of(&image).filter(|_| is_visible).ok_or_else(missing)
}

/// The id of a backup that a volume can be made of.
///
/// # Errors
/// 404, and 400 for one that is not ready.
pub fn ready(control: &Control, session: &Session, id: &str) -> Result<String> {
    let (image, _) = find(control, session, id)?;
    match status(control, &image.record) {
        "available" => Ok(image.record.meta.id.to_string()),
        status => Err(Fault::invalid(format!(
            "Invalid backup: Backup status must be available, but current status is: {status}."
        ))),
    }
}

/// What Cinder's clients call the state of a backup.
fn status(control: &Control, image: &Image) -> &'static str {
    match control.image_status(image.meta.id).as_ref().map(|status| &status.record.state) {
        Some(ImageState::Ready(_)) => "available",
        Some(ImageState::Failed(_)) => "error",
        _ => "creating",
    }
}

fn view(control: &Control, session: &Session, found: &Found, version: Microversion, base: &Base) -> Value {
    let (image, of) = (&found.0.record, found.1);
    let meta = &image.meta;
    let fault = match control.image_status(meta.id).as_ref().map(|status| &status.record.state) {
        Some(ImageState::Failed(fault)) => json!(fault.message),
        _ => Value::Null,
    };
    let mut view = json!({
        "id": meta.id,
        "status": status(control, image),
        "size": image.min_disk_gib,
        "object_count": 1,
        "availability_zone": ZONE,
        "container": Value::Null,
        "created_at": form::time(meta.created_at),
        "updated_at": form::updated(meta),
        "name": form::name(meta, "image"),
        "description": form::description(meta),
        "fail_reason": fault,
        "links": form::links(base, &format!("/backups/{}", meta.id)),
        "volume_id": of.volume,
        "snapshot_id": of.snapshot,
        "is_incremental": false,
        "has_dependent_backups": false,
        "data_timestamp": form::time(meta.created_at),
    });
    if version.has(3, 18) && session.is_admin() {
        view["os-backup-project-attr:project_id"] = json!(meta.project.hex());
    }
    if version.has(3, 43) {
        view["metadata"] = json!(meta.labels);
    }
    if version.has(3, 56) {
        view["user_id"] = json!(session.user_id());
    }
    view
}

fn short(image: &Image, version: Microversion, base: &Base) -> Value {
    let mut view = json!({
        "id": image.meta.id,
        "name": form::name(&image.meta, "image"),
        "links": form::links(base, &format!("/backups/{}", image.meta.id)),
    });
    if version.has(3, 43) {
        view["metadata"] = json!(image.meta.labels);
    }
    view
}

fn listed(
    door: &Door,
    session: &Session,
    query: &Query,
    version: Microversion,
    base: &Base,
    in_full: bool,
) -> Result<Json<Value>> {
    let control = door.control();
    let entry = |found: Found| {
        let full = view(control, session, &found, version, base);
        let image = &found.0.record;
        let brief = json!({ "id": full["id"], "name": full["name"], "links": full["links"] });
        Entry { shown: if in_full { full.clone() } else { brief }, full, created_at: image.meta.created_at }
    };
    let all = super::asked::listed::<Image>(control, session, query)?;
    // A list of images has what other projects share, too; backups are a project's own.
    let is_everywhere = session.is_admin() && query.flag("all_tenants")? == Some(true);
    let own = |image: &&Arc<Stored<Image>>| {
        is_everywhere
            || image.record.meta.project == session.caller.project
            || session.is_admin() && query.get("project_id").is_some()
    };
    let entries = all.iter().filter(own).filter_map(backup_of).map(entry).collect();
    list::reply("backups", entries, FILTERS, query, version, base).map(Json)
}

async fn brief(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    query: Query,
) -> Result<Json<Value>> {
    listed(&door, &session, &query, version, &base, false)
}

async fn detail(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    query: Query,
) -> Result<Json<Value>> {
    listed(&door, &session, &query, version, &base, true)
}

async fn show(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let found = find(door.control(), &session, &id)?;
    Ok(Json(json!({ "backup": view(door.control(), &session, &found, version, &base) })))
}

fn flag(input: &Value, key: &str) -> Result<bool> {
    let Some(value) = field(input, key) else { return Ok(false) };
    let read = value.as_bool().or_else(|| truth(value.as_str()?));
    read.ok_or_else(|| {
        Fault::invalid(format!("Invalid input for field/attribute {key}: a boolean is wanted."))
    })
}

/// Refuses what backups here have none of.
fn check(input: &Value) -> Result<()> {
    if flag(input, "incremental")? {
        return Err(Fault::invalid(
            "No backups available to do an incremental backup: each is a full copy here.",
        ));
    }
    if text(input, "container")?.is_some_and(|name| !name.is_empty()) {
        return Err(Fault::invalid("Invalid input for field/attribute container: backups are in none here."));
    }
    check_zone(input)
}

async fn create(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Body(input): Body<Value>,
) -> Result<Response> {
    let control = door.control();
    let input = object(&input, "backup")?;
    check(&input)?;
    let volume = text(&input, "volume_id")?
        .ok_or_else(|| Fault::invalid("Invalid input for field/attribute volume_id: it is missing."))?;
    let volume = find::volume(control, &session, volume)?;
    let snapshot = text(&input, "snapshot_id")?.filter(|id| !id.is_empty());
    let snapshot = snapshot.map(|id| find::snapshot(control, &session, id)).transpose()?;
    let status = form::status(control, &volume.record);
    let is_fine = match (&snapshot, flag(&input, "force")?) {
        (Some(snapshot), _) => form::snapshot_status(control, &snapshot.record) == "available",
        (None, true) => matches!(status, "available" | "in-use"),
        (None, false) => status == "available",
    };
    if !is_fine {
        return Err(Fault::invalid(format!(
            "Invalid volume: Volume to be backed up must be available or in-use, but the current status is \"{status}\"."
        )));
    }
    // Who restores it gets these back, also when the volume is gone.
    let mut kept = volume.record.meta.labels.clone();
    kept.extend(labels(&input)?);
    control::change::check_labels(&kept)?;
    let new = NewImageOfVolume {
        name: text(&input, "name")?.unwrap_or_default().trim().to_string(),
        description: text(&input, "description")?.unwrap_or_default().to_string(),
        volume: volume.record.meta.id.to_string(),
        snapshot: snapshot.map(|snapshot| snapshot.record.meta.id.to_string()),
        is_backup: true,
        format: DiskFormat::Qcow2,
        public: false,
        protected: false,
        properties: BTreeMap::new(),
        labels: kept,
    };
    let made = control.image_of_volume(&session.caller, new).await.map_err(refused)?;
    let reply = (StatusCode::ACCEPTED, Json(json!({ "backup": short(&made, version, &base) })));
    Ok(Deed::new("create", "backup", made.meta.id, &made.meta.name).on(reply))
}

async fn update(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Path(id): Path<String>,
    Body(input): Body<Value>,
) -> Result<Response> {
    version.require(3, 9)?;
    let control = door.control();
    let (image, _) = find(control, &session, &id)?;
    let input = object(&input, "backup")?;
    let id = image.record.meta.id.to_string();
    let words = Words::read(&input, "image", &id)?;
    let change = |image: &mut Image| {
        words.put(&mut image.meta);
        Ok(())
    };
    let changed = control.update_image(&session.caller, &id, change).await?;
    let reply = Json(json!({ "backup": short(&changed, version, &base) }));
    Ok(Deed::new("update", "backup", &id, &changed.meta.name).on(reply))
}

async fn delete(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    let (image, _) = find(door.control(), &session, &id)?;
    let meta = &image.record.meta;
    // A volume that was made of it goes on standing on its file.
    door.control().delete_image_when_unused(&session.caller, &meta.id.to_string()).await.map_err(refused)?;
    Ok(Deed::new("delete", "backup", meta.id, &meta.name).on(StatusCode::ACCEPTED))
}

async fn restore(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(input): Body<Value>,
) -> Result<Response> {
    let control = door.control();
    let (image, of) = find(control, &session, &id)?;
    let backup = ready(control, &session, &id)?;
    let input = object(&input, "restore")?;
    let volume = match text(&input, "volume_id")?.filter(|id| !id.is_empty()) {
        Some(volume) => {
            let volume = find::volume(control, &session, volume)?;
            let status = form::status(control, &volume.record);
            if status != "available" {
                let message = "Invalid volume: Volume to be restored to must be available";
                return Err(Fault::invalid(format!("{message}, but current status is: {status}.")));
            }
            let volume = volume.record.meta.id.to_string();
            control.restore_backup(&session.caller, &volume, &backup).await.map_err(refused)?
        }
        None => {
            let name = text(&input, "name")?.map(str::trim).filter(|name| !name.is_empty());
            let new = NewVolume {
                name: name.map_or_else(|| format!("restore_backup_{backup}"), str::to_string),
                description: "auto-created_from_restore_from_backup".into(),
                size_gib: Some(image.record.min_disk_gib),
                source: SourceAsked::Image(backup.clone()),
                labels: image.record.meta.labels.clone(),
                ..NewVolume::default()
            };
            let made = control.create_volume(&session.caller, new).await.map_err(refused)?;
            let keep = |volume: &mut Volume| {
                volume.bootable = of.bootable;
                Ok(())
            };
            control.change::<Volume>(&session.caller, &made.meta.id.to_string(), keep).await?
        }
    };
    let meta = &image.record.meta;
    let reply = json!({ "restore": {
        "backup_id": meta.id, "volume_id": volume.meta.id, "volume_name": volume.meta.name,
    } });
    Ok(Deed::new("restore", "backup", meta.id, &meta.name).on((StatusCode::ACCEPTED, Json(reply))))
}

/// Actions of administrators: states are what is found, and nobody sets them.
async fn act(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(input): Body<Value>,
) -> Result<StatusCode> {
    session.require_admin("volume_extension:backup_admin_actions")?;
    let (image, _) = find(door.control(), &session, &id)?;
    if input.get("os-force_delete").is_some() {
        let id = image.record.meta.id.to_string();
        door.control().delete_image_when_unused(&session.caller, &id).await.map_err(refused)?;
        return Ok(StatusCode::ACCEPTED);
    }
    let wanted = field(&input, "os-reset_status").and_then(|value| value.get("status")?.as_str());
    let status = status(door.control(), &image.record);
    match wanted {
        Some(wanted) if wanted == status => Ok(StatusCode::ACCEPTED),
        Some(_) => Err(Fault::invalid(format!(
            "The state of a backup is what is found ({status}) and cannot be set."
        ))),
        None => Err(Fault::invalid("There is no such action.")),
    }
}
