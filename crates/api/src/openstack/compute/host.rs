//! Hosts: zones, hypervisors, services, and what a cloud of one host has none of.

use super::server::view::{ZONE, micros};
use crate::openstack::{Door, Fault, Microversion, Result, Session, query::Query};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use control::capacity::Promised;
use jiff::Timestamp;
use model::{
    instance::Instance,
    node::{Node, NodeStatus},
};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use store::Stored;

/// A host that has not told of itself for so long, in seconds, is down.
const SILENT_S_MAX: i64 = 90;

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.1/os-availability-zone", get(zones))
        .route("/v2.1/os-availability-zone/detail", get(zones_with_hosts))
        .route("/v2.1/os-hypervisors", get(hypervisors))
        .route("/v2.1/os-hypervisors/detail", get(hypervisors_detail))
        .route("/v2.1/os-hypervisors/statistics", get(statistics))
        .route("/v2.1/os-hypervisors/{id}", get(hypervisor))
        .route("/v2.1/os-hypervisors/{id}/uptime", get(uptime))
        .route("/v2.1/os-hypervisors/{pattern}/search", get(search))
        .route("/v2.1/os-hypervisors/{pattern}/servers", get(servers))
        .route("/v2.1/os-services", get(services))
        .route("/v2.1/os-migrations", get(migrations))
        .route("/v2.1/os-aggregates", get(aggregates))
        .route("/v2.1/os-instance_usage_audit_log", get(audit_log))
}

type Host = (Arc<Stored<Node>>, Option<Arc<Stored<NodeStatus>>>);

fn is_up(status: Option<&NodeStatus>, now: Timestamp) -> bool {
    status.is_some_and(|status| now.duration_since(status.at).as_secs() <= SILENT_S_MAX)
}

async fn zones(State(door): State<Door>, session: Session) -> Json<Value> {
    let _ = session;
    let available = door.control().nodes().iter().any(|(node, _)| node.record.schedulable);
    let zone = json!({ "zoneName": ZONE, "zoneState": { "available": available }, "hosts": null });
    Json(json!({ "availabilityZoneInfo": [zone] }))
}

async fn zones_with_hosts(State(door): State<Door>, session: Session) -> Result<Json<Value>> {
    session.require_admin("os_compute_api:os-availability-zone:detail")?;
    let now = door.control().now();
    let host = |(node, status): &Host, binary: &str| {
        let status = status.as_ref().map(|s| &s.record);
        let active = node.record.schedulable;
        let at = micros(status.map_or(node.record.created_at, |s| s.at));
        let shown =
            json!({ binary: { "active": active, "available": is_up(status, now), "updated_at": at } });
        (node.record.name.to_string(), shown)
    };
    let nodes = door.control().nodes();
    let hosts = |binary: &str| nodes.iter().map(|node| host(node, binary)).collect::<Map<String, Value>>();
    Ok(Json(json!({ "availabilityZoneInfo": [
        { "zoneName": "internal", "zoneState": { "available": true }, "hosts": hosts("nova-conductor") },
        { "zoneName": ZONE, "zoneState": { "available": true }, "hosts": hosts("nova-compute") },
    ] })))
}

/// A number for a host, as Nova had them before 2.53.
fn number(node: &Node) -> u32 {
    u32::from_str_radix(&node.id.to_string()[..8], 16).unwrap_or(0) & 0x7fff_ffff
}

fn shown_id(node: &Node, version: Microversion) -> Value {
    if version.has(2, 53) { json!(node.id) } else { json!(number(node)) }
}

fn brief(door: &Door, (node, status): &Host, version: Microversion) -> Value {
    let node = &node.record;
    let up = is_up(status.as_ref().map(|s| &s.record), door.control().now());
    json!({
        "id": shown_id(node, version),
        "hypervisor_hostname": node.name,
        "state": if up { "up" } else { "down" },
        "status": if node.schedulable { "enabled" } else { "disabled" },
    })
}

/// What was given out on a host, and its instances.
struct Given {
    vcpus: u64,
    memory_mib: u64,
    disk_gib: u64,
    running: u64,
    instances: Vec<Arc<Stored<Instance>>>,
}

fn given(door: &Door, node: &Node) -> Given {
    let mut instances = door.control().store().list::<Instance>();
    instances.retain(|instance| instance.record.node == Some(node.id));
    let promised = door.control().promised().remove(&node.id).unwrap_or_default();
    let Promised { vcpus, memory_mib, disk_gib, running, instances: _ } = promised;
    Given { vcpus, memory_mib, disk_gib, running, instances }
}

fn detail(door: &Door, host: &Host, version: Microversion, with_servers: bool) -> Value {
    let mut shown = brief(door, host, version);
    let (node, status) = (&host.0.record, host.1.as_ref().map(|s| &s.record));
    let given = given(door, node);
    let reason = if node.schedulable { Value::Null } else { json!("takes no new instances") };
    shown["host_ip"] = "127.0.0.1".into();
    shown["hypervisor_type"] = "QEMU".into();
    shown["hypervisor_version"] = qemu_number(status.map_or("", |s| s.qemu.as_str())).into();
    shown["service"] = json!({ "id": shown_id(node, version), "host": node.name, "disabled_reason": reason });
    if !version.has(2, 88) {
        let cpus = status.map_or(0, |s| s.cpus);
        let (memory, disk) = status.map_or((0, 0), |s| (s.memory_mib, s.disk_gib));
        let free_disk = status.map_or(0, |s| s.disk_free_gib);
        for (key, value) in [
            ("vcpus", json!(cpus)),
            ("vcpus_used", json!(given.vcpus)),
            ("memory_mb", json!(memory)),
            ("memory_mb_used", json!(given.memory_mib)),
            ("free_ram_mb", json!(memory.saturating_sub(given.memory_mib))),
            ("local_gb", json!(disk)),
            ("local_gb_used", json!(given.disk_gib)),
            ("free_disk_gb", json!(free_disk)),
            ("disk_available_least", json!(free_disk)),
            ("current_workload", json!(0)),
            ("running_vms", json!(given.running)),
        ] {
            shown[key] = value;
        }
        let arch = status.map_or("", |s| s.arch.as_str());
        let info = json!({ "arch": arch, "model": "", "vendor": "", "features": [], "topology": {} });
        shown["cpu_info"] = if version.has(2, 28) { info } else { info.to_string().into() };
    } else {
        shown["uptime"] = Value::Null;
    }
    if with_servers && version.has(2, 53) {
        shown["servers"] = servers_on(&given);
    }
    shown
}

fn servers_on(given: &Given) -> Value {
    let one = |i: &Arc<Stored<Instance>>| {
        let meta = &i.record.meta;
        json!({ "uuid": meta.id, "name": meta.name })
    };
    given.instances.iter().map(one).collect()
}

/// `7.2.22` as Nova counts it: 7002022.
fn qemu_number(version: &str) -> u64 {
    let mut parts = version.split('.').map(|part| part.parse::<u64>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    next() * 1_000_000 + next() * 1_000 + next()
}

fn hosts_named(door: &Door, query: &Query) -> Vec<Host> {
    let mut all = door.control().nodes();
    if let Some(pattern) = query.get("hypervisor_hostname_pattern") {
        all.retain(|(node, _)| node.record.name.as_str().contains(pattern));
    }
    all
}

async fn hypervisors(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    query: Query,
) -> Result<Json<Value>> {
    session.require_admin("os_compute_api:os-hypervisors:list")?;
    let all = hosts_named(&door, &query);
    let shown: Vec<Value> = all.iter().map(|host| brief(&door, host, version)).collect();
    Ok(Json(json!({ "hypervisors": shown })))
}

async fn hypervisors_detail(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    query: Query,
) -> Result<Json<Value>> {
    session.require_admin("os_compute_api:os-hypervisors:list-detail")?;
    let with_servers = query.flag("with_servers")?.unwrap_or(false);
    let all = hosts_named(&door, &query);
    let shown: Vec<Value> = all.iter().map(|host| detail(&door, host, version, with_servers)).collect();
    Ok(Json(json!({ "hypervisors": shown })))
}

fn find(door: &Door, id: &str) -> Result<Host> {
    let fits = |node: &Node| node.id.to_string() == id || number(node).to_string() == id;
    let all = door.control().nodes();
    let missing =
        || Fault::status(StatusCode::NOT_FOUND, format!("Hypervisor with ID '{id}' could not be found."));
    all.into_iter().find(|(node, _)| fits(&node.record)).ok_or_else(missing)
}

async fn hypervisor(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<Value>> {
    session.require_admin("os_compute_api:os-hypervisors:show")?;
    let host = find(&door, &id)?;
    let with_servers = query.flag("with_servers")?.unwrap_or(false);
    Ok(Json(json!({ "hypervisor": detail(&door, &host, version, with_servers) })))
}

async fn uptime(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    session.require_admin("os_compute_api:os-hypervisors:uptime")?;
    let host = find(&door, &id)?;
    let mut shown = brief(&door, &host, version);
    shown["uptime"] = "".into();
    Ok(Json(json!({ "hypervisor": shown })))
}

fn matching(door: &Door, pattern: &str) -> Result<Vec<Host>> {
    let mut all = door.control().nodes();
    all.retain(|(node, _)| node.record.name.as_str().contains(pattern));
    if all.is_empty() {
        let message = format!("No hypervisor matching '{pattern}' could be found.");
        return Err(Fault::status(StatusCode::NOT_FOUND, message));
    }
    Ok(all)
}

async fn search(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(pattern): Path<String>,
) -> Result<Json<Value>> {
    session.require_admin("os_compute_api:os-hypervisors:search")?;
    let all = matching(&door, &pattern)?;
    let shown: Vec<Value> = all.iter().map(|host| brief(&door, host, version)).collect();
    Ok(Json(json!({ "hypervisors": shown })))
}

async fn servers(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(pattern): Path<String>,
) -> Result<Json<Value>> {
    session.require_admin("os_compute_api:os-hypervisors:servers")?;
    let all = matching(&door, &pattern)?;
    let one = |host: &Host| {
        let mut shown = brief(&door, host, version);
        shown["servers"] = servers_on(&given(&door, &host.0.record));
        shown
    };
    Ok(Json(json!({ "hypervisors": all.iter().map(one).collect::<Vec<_>>() })))
}

async fn statistics(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
) -> Result<Json<Value>> {
    session.require_admin("os_compute_api:os-hypervisors:statistics")?;
    if version.has(2, 88) {
        return Err(Fault::status(StatusCode::NOT_FOUND, "The resource could not be found."));
    }
    let all = door.control().nodes();
    let mut sums: Map<String, Value> = Map::new();
    for host in &all {
        let shown = detail(&door, host, Microversion::new(2, 1), false);
        for (key, value) in shown.as_object().into_iter().flatten() {
            let Some(more) = value.as_u64().filter(|_| !matches!(key.as_str(), "id" | "hypervisor_version"))
            else {
                continue;
            };
            let old = sums.get(key).and_then(Value::as_u64).unwrap_or(0);
            sums.insert(key.clone(), (old + more).into());
        }
    }
    sums.insert("count".into(), all.len().into());
    Ok(Json(json!({ "hypervisor_statistics": sums })))
}

async fn services(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    query: Query,
) -> Result<Json<Value>> {
    session.require_admin("os_compute_api:os-services:list")?;
    let now = door.control().now();
    let mut shown = vec![];
    for (node, status) in door.control().nodes() {
        let (node, status) = (&node.record, status.as_ref().map(|s| &s.record));
        for (binary, zone) in
            [("nova-scheduler", "internal"), ("nova-conductor", "internal"), ("nova-compute", ZONE)]
        {
            let wrong_host = query.get("host").is_some_and(|host| host != node.name.as_str());
            if wrong_host || query.get("binary").is_some_and(|wanted| wanted != binary) {
                continue;
            }
            let enabled = node.schedulable || binary != "nova-compute";
            let mut service = json!({
                "id": shown_id(node, version),
                "binary": binary,
                "host": node.name,
                "zone": zone,
                "status": if enabled { "enabled" } else { "disabled" },
                "state": if is_up(status, now) { "up" } else { "down" },
                "updated_at": micros(status.map_or(node.created_at, |s| s.at)),
                "disabled_reason": null,
            });
            if version.has(2, 11) {
                service["forced_down"] = false.into();
            }
            shown.push(service);
        }
    }
    Ok(Json(json!({ "services": shown })))
}

async fn migrations(session: Session) -> Result<Json<Value>> {
    session.require_admin("os_compute_api:os-migrations:index")?;
    Ok(Json(json!({ "migrations": [] })))
}

async fn aggregates(session: Session) -> Result<Json<Value>> {
    session.require_admin("os_compute_api:os-aggregates:index")?;
    Ok(Json(json!({ "aggregates": [] })))
}

async fn audit_log(session: Session) -> Result<Json<Value>> {
    session.require_admin("os_compute_api:os-instance-usage-audit-log:list")?;
    Ok(Json(json!({ "instance_usage_audit_logs": {
        "hosts_not_run": [], "log": {}, "num_hosts": 0, "num_hosts_done": 0, "num_hosts_not_run": 0,
        "num_hosts_running": 0, "overall_status": "ALL hosts done. 0 errors.", "total_errors": 0,
        "total_instances": 0, "period_beginning": null, "period_ending": null,
    } })))
}
