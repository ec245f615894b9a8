//! How much projects used in a time: hours of what their servers were given. Servers that are gone leave no record.

use super::server::{state::State as ServerState, view::micros};
use crate::openstack::{Door, Fault, Result, Session, paging::same_id, query::Query};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
};
use jiff::{SignedDuration, Timestamp};
use model::{
    id::ProjectId,
    instance::{Instance, InstanceStatus},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The time that is meant when none is named, in hours.
const DEFAULT_HOURS: i64 = 24 * 28;

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.1/os-simple-tenant-usage", get(all))
        .route("/v2.1/os-simple-tenant-usage/{project}", get(one))
}

struct Span {
    start: Timestamp,
    end: Timestamp,
}

fn span(door: &Door, query: &Query) -> Result<Span> {
    let now = door.control().now();
    let read = |key: &str| {
        query.get(key).map(|text| {
            let civil = text.trim_end_matches('Z').parse::<jiff::civil::DateTime>();
            let zoned = civil.and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC));
            zoned
                .map(|time| time.timestamp())
                .map_err(|_| Fault::invalid(format!("Datetime is in invalid format: {text}")))
        })
    };
    let end = read("end").transpose()?.unwrap_or(now);
    let start = read("start").transpose()?.unwrap_or(now - SignedDuration::from_hours(DEFAULT_HOURS));
    if start >= end {
        return Err(Fault::invalid("Invalid start time. The start time cannot occur after the end time."));
    }
    Ok(Span { start, end })
}

fn hours(instance: &Instance, span: &Span, now: Timestamp) -> f64 {
    let from = instance.meta.created_at.max(span.start);
    let to = span.end.min(now);
    (to.duration_since(from).as_secs_f64() / 3600.0).max(0.0)
}

fn server(door: &Door, instance: &Instance, span: &Span) -> Value {
    let now = door.control().now();
    let known = door.control().instance_status(instance.meta.id);
    let status: Option<&InstanceStatus> = known.as_ref().map(|s| &s.record);
    let state = ServerState::of(instance, door.control().phase(instance), status);
    json!({
        "instance_id": instance.meta.id,
        "name": instance.meta.name,
        "tenant_id": instance.meta.project.hex(),
        "flavor": instance.flavor_name,
        "hours": hours(instance, span, now),
        "memory_mb": instance.size.memory_mib,
        "local_gb": instance.size.disk_gib,
        "vcpus": instance.size.vcpus,
        "state": state.vm_state,
        "started_at": micros(instance.meta.created_at),
        "ended_at": null,
        "uptime": now.duration_since(instance.meta.created_at).as_secs().max(0),
    })
}

fn usage(door: &Door, project: ProjectId, instances: &[Instance], span: &Span, detailed: bool) -> Value {
    let now = door.control().now();
    let sum =
        |of: fn(&Instance) -> f64| -> f64 { instances.iter().map(|i| of(i) * hours(i, span, now)).sum() };
    let mut shown = json!({
        "tenant_id": project.hex(),
        "start": micros(span.start),
        "stop": micros(span.end),
        "total_hours": sum(|_| 1.0),
        "total_vcpus_usage": sum(|i| f64::from(i.size.vcpus)),
        "total_memory_mb_usage": sum(|i| i.size.memory_mib as f64),
        "total_local_gb_usage": sum(|i| i.size.disk_gib as f64),
    });
    if detailed {
        shown["server_usages"] = instances.iter().map(|i| server(door, i, span)).collect();
    }
    shown
}

fn by_project(door: &Door, span: &Span) -> BTreeMap<ProjectId, Vec<Instance>> {
    let mut map: BTreeMap<ProjectId, Vec<Instance>> = BTreeMap::new();
    for stored in door.control().store().list::<Instance>() {
        if stored.record.meta.created_at < span.end {
            map.entry(stored.record.meta.project).or_default().push(stored.record.clone());
        }
    }
    map
}

async fn all(State(door): State<Door>, session: Session, query: Query) -> Result<Json<Value>> {
    session.require_admin("os_compute_api:os-simple-tenant-usage:list")?;
    let span = span(&door, &query)?;
    let detailed = query.get("detailed").is_some_and(|text| text == "1");
    let all = by_project(&door, &span);
    let shown: Vec<Value> =
        all.iter().map(|(project, instances)| usage(&door, *project, instances, &span, detailed)).collect();
    Ok(Json(json!({ "tenant_usages": shown })))
}

async fn one(
    State(door): State<Door>,
    session: Session,
    Path(project): Path<String>,
    query: Query,
) -> Result<Json<Value>> {
    if !same_id(&project, &session.project_id()) {
        session.require_admin("os_compute_api:os-simple-tenant-usage:show")?;
    }
    let id =
        project.parse::<ProjectId>().map_err(|_| Fault::invalid(format!("{project} is no project id.")))?;
    let span = span(&door, &query)?;
    match by_project(&door, &span).get(&id) {
        Some(instances) => Ok(Json(json!({ "tenant_usage": usage(&door, id, instances, &span, true) }))),
        None => Ok(Json(json!({ "tenant_usage": {} }))),
    }
}
