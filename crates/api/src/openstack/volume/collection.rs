//! Volumes: listed, shown, made, changed and deleted.

use super::{
    asked::{self, Words, field, labels, object, refused, size, text},
    backup, find,
    form::{self, ZONE},
    kind,
    list::{self, Entry},
};
use crate::openstack::{
    Base, Door, Fault, Microversion, Result, Session, audit::Deed, body::Body, query::Query,
};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::{
    Control,
    volume::{NewVolume, SourceAsked, TypeAsked},
};
use model::{
    image::Image,
    volume::{Provisioning, Volume},
};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use store::Stored;

/// What lists of volumes are filtered by.
const FILTERS: &[&str] = &[
    "id",
    "name",
    "status",
    "availability_zone",
    "bootable",
    "snapshot_id",
    "source_volid",
    "volume_type",
    "size",
    "description",
];

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v3/volumes", get(brief).post(create))
        .route("/v3/volumes/detail", get(detail))
        .route("/v3/volumes/summary", get(summary))
        .route("/v3/volumes/{id}", get(show).put(update).delete(delete))
}

/// Volumes that a list is about: all but the disks that instances have of their own.
///
/// # Errors
/// 400 for a flag that cannot be read.
pub fn all(control: &Control, session: &Session, query: &Query) -> Result<Vec<Arc<Stored<Volume>>>> {
    let mut found = asked::listed::<Volume>(control, session, query)?;
    found.retain(|v| !find::is_own_disk(control, &v.record));
    Ok(found)
}

fn entries(
    door: &Door,
    session: &Session,
    query: &Query,
    version: Microversion,
    base: &Base,
    in_full: bool,
) -> Result<Vec<Entry>> {
    let control = door.control();
    let entry = |stored: &Arc<Stored<Volume>>| {
        let full = form::volume_in_full(control, session, &stored.record, version, base);
        let shown = if in_full { full.clone() } else { form::brief(&stored.record, base) };
        Entry { full, shown, created_at: stored.record.meta.created_at }
    };
    Ok(all(control, session, query)?.iter().map(entry).collect())
}

async fn brief(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    query: Query,
) -> Result<Json<Value>> {
    let all = entries(&door, &session, &query, version, &base, false)?;
    list::reply("volumes", all, FILTERS, &query, version, &base).map(Json)
}

async fn detail(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    query: Query,
) -> Result<Json<Value>> {
    let all = entries(&door, &session, &query, version, &base, true)?;
    list::reply("volumes", all, FILTERS, &query, version, &base).map(Json)
}

async fn summary(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    query: Query,
) -> Result<Json<Value>> {
    version.require(3, 12)?;
    let found = all(door.control(), &session, &query)?;
    let size: u64 = found.iter().map(|v| v.record.size_gib).sum();
    let mut summary = json!({ "total_size": size, "total_count": found.len() });
    if version.has(3, 36) {
        let mut keys: Map<String, Value> = Map::new();
        for (key, value) in found.iter().flat_map(|v| v.record.meta.labels.iter()) {
            let values = keys.entry(key.clone()).or_insert_with(|| json!([]));
            if let Some(values) = values.as_array_mut()
                && !values.contains(&json!(value))
            {
                values.push(json!(value));
            }
        }
        summary["metadata"] = Value::Object(keys);
    }
    Ok(Json(json!({ "volume-summary": summary })))
}

async fn show(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let found = find::volume(door.control(), &session, &id)?;
    let view = form::volume_in_full(door.control(), &session, &found.record, version, &base);
    Ok(Json(json!({ "volume": view })))
}

fn source(control: &Control, session: &Session, input: &Value) -> Result<SourceAsked> {
    let named = ["imageRef", "snapshot_id", "source_volid", "backup_id"];
    let given: Vec<(&str, &str)> =
        named.iter().filter_map(|key| Some((*key, field(input, key)?.as_str()?))).collect();
    match given.as_slice() {
        [] => Ok(SourceAsked::Empty),
        [("imageRef", id)] => {
            let id = id.rsplit('/').next().unwrap_or(id);
            let image = id.parse().ok().and_then(|id| control.get::<Image>(id));
            let image = image.ok_or_else(|| {
                Fault::invalid("Invalid image identifier or unable to access requested image.")
            })?;
            Ok(SourceAsked::Image(image.record.meta.id.to_string()))
        }
        [("snapshot_id", id)] => {
            let found = find::snapshot(control, session, id)?;
            if form::snapshot_status(control, &found.record) == "error" {
                return Err(Fault::invalid(format!("Originating snapshot status must be available: {id}.")));
            }
            Ok(SourceAsked::Snapshot(found.record.meta.id.to_string()))
        }
        [("source_volid", id)] => {
            let found = find::volume(control, session, id)?;
            let status = form::status(control, &found.record);
            if !matches!(status, "available" | "in-use" | "uploading" | "backing-up") {
                return Err(Fault::invalid(format!("Source volume {id} is {status}, it must be available.")));
            }
            Ok(SourceAsked::Volume(found.record.meta.id.to_string()))
        }
        [("backup_id", id)] => Ok(SourceAsked::Image(backup::ready(control, session, id)?)),
        _ => Err(Fault::invalid("A volume is made of one source, not of several.")),
    }
}

/// Refuses a zone that is not here.
///
/// # Errors
/// 400.
pub(super) fn check_zone(input: &Value) -> Result<()> {
    match text(input, "availability_zone")? {
        Some(zone) if zone != ZONE && !zone.is_empty() => {
            Err(Fault::invalid(format!("Availability zone '{zone}' is invalid.")))
        }
        _ => Ok(()),
    }
}

async fn create(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Body(input): Body<Value>,
) -> Result<Response> {
    let input = object(&input, "volume")?;
    let control = door.control();
    check_zone(&input)?;
    for group in ["consistencygroup_id", "group_id"] {
        if let Some(id) = field(&input, group).and_then(Value::as_str) {
            return Err(Fault::not_found("Group", id));
        }
    }
    if field(&input, "multiattach").is_some_and(|v| v.as_bool() == Some(true) || v == "True" || v == "true") {
        return Err(Fault::invalid("Multiattach is not supported by this cloud: one server has a volume."));
    }
    let size_gib = size(&input, "size")?;
    let asked = source(control, &session, &input)?;
    if size_gib.is_none() && matches!(asked, SourceAsked::Empty | SourceAsked::Image(_)) {
        return Err(Fault::invalid("Invalid input received: volume size is missing."));
    }
    let named = field(&input, "volume_type").map(|v| v.as_str().unwrap_or_default());
    let kind = match named {
        Some(reference) => kind::find(control, &session, reference)?.asked,
        None => inherited(control, &session, &asked),
    };
    let new = NewVolume {
        name: text(&input, "name")?.unwrap_or_default().trim().to_string(),
        description: text(&input, "description")?.unwrap_or_default().to_string(),
        size_gib,
        thick: kind == TypeAsked::BuiltIn(Provisioning::Thick),
        kind: kind.made(),
        source: asked,
        labels: labels(&input)?,
    };
    control::change::check_labels(&new.labels)?;
    let made = control.create_volume(&session.caller, new).await.map_err(refused)?;
    let view = form::volume(control, &session, &made, version, &base);
    let reply = (StatusCode::ACCEPTED, Json(json!({ "volume": view })));
    Ok(Deed::new("create", "volume", made.meta.id, &made.meta.name).on(reply))
}

/// The type of a volume that names none: its source's, if that is a volume whose type the caller may use.
fn inherited(control: &Control, session: &Session, source: &SourceAsked) -> TypeAsked {
    let volume = match source {
        SourceAsked::Volume(id) => id.parse().ok(),
        SourceAsked::Snapshot(id) => {
            let snapshot = id.parse().ok().and_then(|id| control.get::<model::snapshot::Snapshot>(id));
            snapshot.map(|s| s.record.volume)
        }
        SourceAsked::Empty | SourceAsked::Image(_) => None,
    };
    let Some(volume) = volume.and_then(|id| control.get::<Volume>(id)) else {
        return TypeAsked::BuiltIn(Provisioning::Thin);
    };
    let kind = kind::of(control, &volume.record);
    kind::find(control, session, &kind.id).map_or(TypeAsked::BuiltIn(kind.provisioning), |kind| kind.asked)
}

async fn update(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Path(id): Path<String>,
    Body(input): Body<Value>,
) -> Result<Response> {
    let control = door.control();
    let found = find::volume(control, &session, &id)?;
    let input = object(&input, "volume")?;
    let id = found.record.meta.id.to_string();
    let words = Words::read(&input, "volume", &id)?;
    let changed = control
        .change::<Volume>(&session.caller, &id, |volume| {
            words.put(&mut volume.meta);
            Ok(())
        })
        .await?;
    let view = form::volume(control, &session, &changed, version, &base);
    Ok(Deed::new("update", "volume", &id, &changed.meta.name).on(Json(json!({ "volume": view }))))
}

async fn delete(
    State(door): State<Door>,
    session: Session,
    query: Query,
    Path(id): Path<String>,
) -> Result<Response> {
    let found = find::volume(door.control(), &session, &id)?;
    remove(door.control(), &session, &found.record, query.flag("cascade")? == Some(true)).await?;
    let meta = &found.record.meta;
    Ok(Deed::new("delete", "volume", meta.id, &meta.name).on(StatusCode::ACCEPTED))
}

/// Deletes a volume, with `cascade` its snapshots, too.
///
/// # Errors
/// 400 while a server has it, or while it has snapshots.
pub async fn remove(control: &Control, session: &Session, volume: &Volume, cascade: bool) -> Result<()> {
    let id = volume.meta.id;
    if cascade && volume.attached_to.is_none() {
        for snapshot in control.snapshots_of(id) {
            control.delete_snapshot(&session.caller, &snapshot.record.meta.id.to_string()).await?;
        }
    }
    control.delete_volume(&session.caller, &id.to_string()).await.map_err(refused)
}
