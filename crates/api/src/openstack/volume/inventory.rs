//! What storage there is: zones, hosts, services and pools, the extensions that are served, and what is not here: empty
//! lists where a cloud without the service has them.

use super::form::{ZONE, host, time};
use crate::openstack::{Door, Fault, Result, Session};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use jiff::Timestamp;
use model::node::{Node, NodeStatus};
use serde_json::{Value, json};

/// Extensions: name, alias, what it is.
const EXTENSIONS: [(&str, &str, &str); 15] = [
    ("VolumeImageMetadata", "os-vol-image-meta", "Show image metadata associated with the volume."),
    ("UsedLimits", "os-used-limits", "Provide data on limited resources that are being used."),
    ("AdminActions", "os-admin-actions", "Enable admin actions."),
    ("TypesExtraSpecs", "os-types-extra-specs", "Type extra specs support."),
    ("Quotas", "os-quota-sets", "Quota management support."),
    ("QuotaClasses", "os-quota-class-sets", "Quota classes management support."),
    ("VolumeActions", "os-volume-actions", "Enable volume actions."),
    ("Backups", "backups", "Backups support."),
    ("AvailabilityZones", "os-availability-zone", "Describe Availability Zones."),
    ("Services", "os-services", "Services support."),
    ("ExtendedSnapshotAttributes", "os-extended-snapshot-attributes", "Extended SnapshotAttributes support."),
    (
        "VolumeTenantAttribute",
        "os-vol-tenant-attr",
        "Expose the internal project_id as an attribute of a volume.",
    ),
    ("VolumeHostAttribute", "os-vol-host-attr", "Expose host as an attribute of a volume."),
    (
        "VolumeMigStatusAttribute",
        "os-vol-mig-status-attr",
        "Expose migration_status as an attribute of a volume.",
    ),
    ("Scheduler_stats", "scheduler-stats", "Scheduler stats support."),
];

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v3/extensions", get(extensions))
        .route("/v3/extensions/{alias}", get(extension))
        .route("/v3/os-availability-zone", get(zones))
        .route("/v3/os-services", get(services))
        .route("/v3/scheduler-stats/get_pools", get(pools))
        .route("/v3/resource_filters", get(filters))
        .route("/v3/messages", get(no_messages))
        .route("/v3/messages/{id}", get(missing_message).delete(missing_message))
        .route("/v3/qos-specs", get(no_qos))
}

fn shown((name, alias, description): &(&str, &str, &str)) -> Value {
    json!({
        "name": name,
        "alias": alias,
        "description": description,
        "updated": "2026-01-01T00:00:00+00:00",
        "links": [],
    })
}

async fn extensions(_session: Session) -> Json<Value> {
    Json(json!({ "extensions": EXTENSIONS.iter().map(shown).collect::<Vec<_>>() }))
}

async fn extension(_session: Session, Path(alias): Path<String>) -> Result<Json<Value>> {
    let found = EXTENSIONS.iter().find(|(_, known, _)| *known == alias);
    let found = found.ok_or_else(|| Fault::not_found("Extension", &alias))?;
    Ok(Json(json!({ "extension": shown(found) })))
}

async fn zones(_session: Session) -> Json<Value> {
    Json(json!({ "availabilityZoneInfo": [{ "zoneName": ZONE, "zoneState": { "available": true } }] }))
}

/// The parts of Cinder that clients know, all of them in one program here.
async fn services(State(door): State<Door>, session: Session) -> Result<Json<Value>> {
    session.require_admin("volume_extension:services:index")?;
    let mut all = vec![];
    for node in door.control().store().list::<Node>() {
        let status = door.control().store().get::<NodeStatus>(&node.record.id.to_string());
        let at = status.map_or(Timestamp::UNIX_EPOCH, |s| s.record.at);
        let name = node.record.name.to_string();
        for (binary, host) in [
            ("cinder-scheduler", name.clone()),
            ("cinder-volume", format!("{name}@holm")),
            ("cinder-backup", name.clone()),
        ] {
            all.push(json!({
                "binary": binary,
                "host": host,
                "zone": ZONE,
                "status": if node.record.schedulable { "enabled" } else { "disabled" },
                "state": "up",
                "updated_at": time(at),
                "disabled_reason": Value::Null,
            }));
        }
    }
    Ok(Json(json!({ "services": all })))
}

async fn pools(State(door): State<Door>, session: Session) -> Result<Json<Value>> {
    session.require_admin("scheduler_extension:scheduler_stats:get_pools")?;
    let mut all = vec![];
    let promised = door.control().promised();
    for (node, status) in door.control().nodes() {
        let status = status.as_ref().map(|s| &s.record);
        let promised_gib = promised.get(&node.record.id).map_or(0, |promised| promised.disk_gib);
        all.push(json!({
            "name": host(&node.record.name),
            "capabilities": {
                "volume_backend_name": "holm",
                "storage_protocol": "file",
                "total_capacity_gb": status.map_or(0, |s| s.disk_gib),
                "free_capacity_gb": status.map_or(0, |s| s.disk_free_gib),
                "provisioned_capacity_gb": promised_gib,
                "allocated_capacity_gb": promised_gib,
                // Whoever promises more than there is watches the use: nothing is refused for it but thick disks.
                "max_over_subscription_ratio": "infinite",
                "reserved_percentage": 0,
                "thin_provisioning_support": true,
                "thick_provisioning_support": true,
                "multiattach": false,
                "timestamp": time(status.map_or(Timestamp::UNIX_EPOCH, |s| s.at)),
            },
        }));
    }
    Ok(Json(json!({ "pools": all })))
}

async fn filters(_session: Session) -> Json<Value> {
    Json(json!({ "resource_filters": [
        { "resource": "volume", "filters": ["name", "status", "metadata", "bootable", "availability_zone"] },
        { "resource": "snapshot", "filters": ["name", "status", "volume_id", "metadata", "availability_zone"] },
        { "resource": "backup", "filters": ["name", "status", "volume_id"] },
    ] }))
}

async fn no_messages(_session: Session) -> Json<Value> {
    Json(json!({ "messages": [] }))
}

async fn missing_message(_session: Session, Path(id): Path<String>) -> Result<StatusCode> {
    Err(Fault::not_found("Message", id))
}

async fn no_qos(session: Session) -> Result<Json<Value>> {
    session.require_admin("volume_extension:qos_specs_manage:get_all")?;
    Ok(Json(json!({ "qos_specs": [] })))
}
