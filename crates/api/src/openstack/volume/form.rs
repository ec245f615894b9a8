//! How volumes and snapshots look to Cinder's clients: their words for what holm computes.
//!
//! ```text
//!   creating ─► available ◄─► attaching ─► in-use ─► detaching ─► available        error: it cannot be had
//!                   └─► uploading (an image is made of it), backing-up, extending
//! ```

use crate::openstack::{Base, Microversion, Session};
use control::Control;
use jiff::Timestamp;
use model::{
    id::{ImageId, InstanceId, NodeId},
    image::{Image, ImageSource},
    instance::{Instance, State},
    meta::Meta,
    node::Node,
    snapshot::{Snapshot, SnapshotState},
    volume::{Volume, VolumeSource},
};
use serde_json::{Map, Value, json};
use std::fmt::Display;

/// The one availability zone.
pub const ZONE: &str = "nova";
/// Key of the metadata that says whether a volume may be written to, once that was asked for.
pub const READONLY_KEY: &str = "readonly";

/// A time as Cinder writes it: UTC, microseconds, no zone.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()
}

/// When a record was changed; null as long as it was not.
pub fn updated<Id>(meta: &Meta<Id>) -> Value {
    if meta.updated_at == meta.created_at { Value::Null } else { json!(time(meta.updated_at)) }
}

/// The name as it was given: null for one that was made up for want of any.
pub fn name<Id: Display>(meta: &Meta<Id>, word: &str) -> Value {
    let id = meta.id.to_string();
    let made_up = format!("{word}-{}", id.get(..8).unwrap_or_default());
    if meta.name.as_str() == made_up { Value::Null } else { json!(meta.name) }
}

/// The description: null when there is none.
pub fn description<Id>(meta: &Meta<Id>) -> Value {
    if meta.description.is_empty() { Value::Null } else { json!(meta.description) }
}

/// What Cinder's clients call the state of a volume.
pub fn status(control: &Control, volume: &Volume) -> &'static str {
    let kept = control.volume_status(volume.meta.id);
    let kept = kept.as_ref().map(|s| &s.record);
    if volume.meta.is_deleting() {
        return "deleting";
    }
    let Some(made) = kept.filter(|s| s.path.is_some()) else {
        return if kept.is_some_and(|s| s.fault.is_some()) { "error" } else { "creating" };
    };
    if let Some(user) = volume.attached_to {
        return attached_status(control, volume, user);
    }
    if made.fault.is_some() {
        return if made.size_gib < volume.size_gib { "error_extending" } else { "error" };
    }
    if made.size_gib < volume.size_gib {
        return "extending";
    }
    if control.transfer_of(volume.meta.id).is_some() {
        return "awaiting-transfer";
    }
    copied(control, volume).unwrap_or("available")
}

fn attached_status(control: &Control, volume: &Volume, user: InstanceId) -> &'static str {
    let id = volume.meta.id;
    let instance = control.get::<Instance>(user);
    if instance.is_none_or(|i| i.record.meta.is_deleting() || !i.record.volumes.contains(&id)) {
        return "detaching";
    }
    let seen = control.instance_status(user);
    let runs = seen
        .as_ref()
        .map(|s| &s.record)
        .filter(|s| !matches!(s.state, State::Absent | State::Stopped { .. }));
    match runs {
        Some(seen) if !seen.volumes.contains(&id) => "attaching",
        _ => "in-use",
    }
}

/// What it is called while an image or a backup is being made of it.
fn copied(control: &Control, volume: &Volume) -> Option<&'static str> {
    let images = control.store().list::<Image>();
    let coming = images.iter().find(|image| match &image.record.source {
        ImageSource::Volume { volume: source, .. } if *source == volume.meta.id => {
            is_coming(control, image.record.meta.id)
        }
        _ => false,
    })?;
    Some(if coming.record.backup.is_some() { "backing-up" } else { "uploading" })
}

fn is_coming(control: &Control, id: ImageId) -> bool {
    use model::image::ImageState::{Failed, Ready};
    let status = control.image_status(id);
    !status.is_some_and(|s| matches!(s.record.state, Ready(_) | Failed(_)))
}

/// Name of the guest's device: what Nova's clients are told, which no guest has to keep to.
pub fn device(instance: &Instance, volume: &Volume) -> Option<String> {
    let place = instance.volumes.iter().position(|id| *id == volume.meta.id)?;
    let letter = char::from(b'a' + u8::try_from(place).ok()?);
    Some(format!("/dev/vd{letter}"))
}

/// Who has a volume. One attachment is all that there can be, so it has the volume's id.
pub fn attachments(control: &Control, volume: &Volume) -> Vec<Value> {
    let Some(user) = volume.attached_to else { return vec![] };
    let instance = control.get::<Instance>(user);
    vec![json!({
        "id": volume.meta.id,
        "attachment_id": volume.meta.id,
        "volume_id": volume.meta.id,
        "server_id": user,
        "host_name": volume.node.and_then(|id| node_name(control, id)),
        "device": instance.and_then(|i| device(&i.record, volume)),
        "attached_at": time(volume.attached_at.unwrap_or(volume.meta.updated_at)),
    })]
}

/// The user's metadata.
pub fn metadata(volume: &Volume) -> Map<String, Value> {
    let mut all: Map<String, Value> =
        volume.meta.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    if volume.read_only {
        all.insert(READONLY_KEY.into(), json!("True"));
    }
    all
}

/// Both links of a thing.
pub fn links(base: &Base, path: &str) -> Value {
    json!([
        { "rel": "self", "href": base.link(&format!("/v3{path}")) },
        { "rel": "bookmark", "href": base.link(path) },
    ])
}

/// A volume in a list without details.
pub fn brief(volume: &Volume, base: &Base) -> Value {
    json!({
        "id": volume.meta.id,
        "name": name(&volume.meta, "volume"),
        "links": links(base, &format!("/volumes/{}", volume.meta.id)),
    })
}

/// A volume as a reply to its making or change.
pub fn volume(
    control: &Control,
    session: &Session,
    volume: &Volume,
    version: Microversion,
    base: &Base,
) -> Value {
    let (snapshot, source) = match &volume.source {
        VolumeSource::Copy(origin) => (origin.snapshot, origin.snapshot.is_none().then_some(origin.volume)),
        VolumeSource::Empty | VolumeSource::Image(_) => (None, None),
    };
    let kind = super::kind::of(control, volume);
    let mut view = json!({
        "id": volume.meta.id,
        "status": status(control, volume),
        "size": volume.size_gib,
        "availability_zone": ZONE,
        "created_at": time(volume.meta.created_at),
        "updated_at": updated(&volume.meta),
        "name": name(&volume.meta, "volume"),
        "description": description(&volume.meta),
        "volume_type": kind.name,
        "snapshot_id": snapshot,
        "source_volid": source,
        "metadata": metadata(volume),
        "links": links(base, &format!("/volumes/{}", volume.meta.id)),
        "user_id": session.user_id(),
        "bootable": if volume.bootable { "true" } else { "false" },
        "encrypted": false,
        "replication_status": null,
        "consistencygroup_id": null,
        "multiattach": false,
        "attachments": attachments(control, volume),
        "migration_status": null,
    });
    let mut add = |key: &str, value: Value| view[key] = value;
    if version.has(3, 13) {
        add("group_id", Value::Null);
    }
    if version.has(3, 21) {
        add("provider_id", Value::Null);
    }
    if version.has(3, 48) {
        add("shared_targets", if version.has(3, 69) { Value::Null } else { json!(false) });
        add("service_uuid", json!(volume.node));
    }
    if version.has(3, 61) {
        add("cluster_name", Value::Null);
    }
    if version.has(3, 63) {
        add("volume_type_id", json!(kind.id));
    }
    if version.has(3, 65) {
        add("consumes_quota", json!(true));
    }
    view
}

/// A volume with all that its readers see.
pub fn volume_in_full(
    control: &Control,
    session: &Session,
    volume: &Volume,
    version: Microversion,
    base: &Base,
) -> Value {
    let mut view = self::volume(control, session, volume, version, base);
    view["os-vol-tenant-attr:tenant_id"] = json!(volume.meta.project.hex());
    if let Some(image) = volume.ground().image.filter(|_| volume.bootable) {
        view["volume_image_metadata"] = image_metadata(control, image);
    }
    if session.is_admin() {
        view["os-vol-mig-status-attr:migstat"] = Value::Null;
        view["os-vol-mig-status-attr:name_id"] = Value::Null;
        view["os-vol-host-attr:host"] = json!(volume.node.and_then(|id| node_name(control, id)).map(host));
    }
    view
}

/// Name of a host.
pub fn node_name(control: &Control, id: NodeId) -> Option<String> {
    control.store().get::<Node>(&id.to_string()).map(|node| node.record.name.to_string())
}

/// A host as Cinder names one: host, backend and pool.
pub fn host(node: impl Display) -> String {
    format!("{node}@holm#disks")
}

/// What a volume still knows of the image that it once was.
pub fn image_metadata(control: &Control, id: ImageId) -> Value {
    let Some(image) = control.get::<Image>(id) else {
        return json!({ "image_id": id });
    };
    let mut all: Map<String, Value> =
        image.record.properties.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let status = control.image_status(id);
    if let Some(content) = status.as_ref().and_then(|s| s.record.content()) {
        let format = content.format.map_or("raw", model::plan::DiskFormat::as_str);
        all.insert("disk_format".into(), json!(format));
        all.insert("size".into(), json!(content.size_bytes.to_string()));
    }
    all.insert("container_format".into(), json!("bare"));
    all.insert("image_id".into(), json!(id));
    all.insert("image_name".into(), json!(image.record.meta.name));
    all.insert("min_disk".into(), json!(image.record.min_disk_gib.to_string()));
    all.insert("min_ram".into(), json!(image.record.min_memory_mib.to_string()));
    Value::Object(all)
}

/// What Cinder's clients call the state of a snapshot.
pub fn snapshot_status(control: &Control, snapshot: &Snapshot) -> &'static str {
    match control.snapshot_state(snapshot) {
        SnapshotState::Creating => "creating",
        SnapshotState::Available => "available",
        SnapshotState::Failed => "error",
    }
}

/// A snapshot; `in_full` as its readers see it.
pub fn snapshot(
    control: &Control,
    session: &Session,
    snapshot: &Snapshot,
    version: Microversion,
    in_full: bool,
) -> Value {
    let status = snapshot_status(control, snapshot);
    let mut view = json!({
        "id": snapshot.meta.id,
        "created_at": time(snapshot.meta.created_at),
        "updated_at": updated(&snapshot.meta),
        "name": name(&snapshot.meta, "snapshot"),
        "description": description(&snapshot.meta),
        "volume_id": snapshot.volume,
        "status": status,
        "size": snapshot.size_gib,
        "metadata": snapshot.meta.labels,
    });
    if in_full {
        let progress = if status == "available" { "100%" } else { "0%" };
        view["os-extended-snapshot-attributes:progress"] = json!(progress);
        view["os-extended-snapshot-attributes:project_id"] = json!(snapshot.meta.project.hex());
    }
    if version.has(3, 14) {
        view["group_snapshot_id"] = Value::Null;
    }
    if version.has(3, 41) {
        view["user_id"] = json!(session.user_id());
    }
    if version.has(3, 65) {
        view["consumes_quota"] = json!(true);
    }
    view
}
