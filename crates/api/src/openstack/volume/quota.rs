//! Quota sets and limits: how much of storage a project may have, and has.

use super::asked::field;
use crate::openstack::{Door, Fault, Result, Session, body::Body, query::Query};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use control::Control;
use model::{
    id::ProjectId,
    project::Project,
    quota::{Limits, Resource, Usage},
};
use serde_json::{Value, json};

/// What is counted here, under Cinder's names.
const COUNTED: [(&str, Option<Resource>); 7] = [
    ("volumes", Some(Resource::Volumes)),
    ("per_volume_gigabytes", None),
    ("snapshots", Some(Resource::Snapshots)),
    ("gigabytes", Some(Resource::VolumeGib)),
    ("backups", Some(Resource::Backups)),
    ("backup_gigabytes", None),
    ("groups", None),
];

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v3/limits", get(limits))
        .route("/v3/os-quota-sets/{project}", get(show).put(update).delete(reset))
        .route("/v3/os-quota-sets/{project}/defaults", get(defaults))
        .route("/v3/os-quota-class-sets/{class}", get(class))
}

/// A limit as OpenStack writes it: -1 is none.
fn number(limit: Option<u64>) -> i64 {
    limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

/// The limit of one name: groups are not here at all, what has no limit of its own has none.
fn limit(name: &str, resource: Option<Resource>, limits: &Limits) -> i64 {
    match resource {
        Some(resource) => number(limits.of(resource)),
        None if name == "groups" => 0,
        None => -1,
    }
}

fn used(resource: Option<Resource>, usage: &Usage) -> u64 {
    resource.map_or(0, |resource| usage.of(resource))
}

/// The project that a path names, if the caller may look at it.
fn project(control: &Control, session: &Session, text: &str) -> Result<ProjectId> {
    let missing = || Fault::not_found("Project", text);
    let id: ProjectId = text.parse().map_err(|_| missing())?;
    if id != session.caller.project && !session.is_admin() {
        return Err(Fault::forbidden("Not authorized for this project's quota."));
    }
    control.get::<Project>(id).map(|_| id).ok_or_else(missing)
}

async fn show(
    State(door): State<Door>,
    session: Session,
    query: Query,
    Path(text): Path<String>,
) -> Result<Json<Value>> {
    let id = project(door.control(), &session, &text)?;
    let (limits, usage) = door.control().quota(id);
    let with_usage = query.flag("usage")? == Some(true);
    let mut set = json!({ "id": text });
    for (name, resource) in COUNTED {
        let limit = limit(name, resource, &limits);
        set[name] = match with_usage {
            true => json!({ "limit": limit, "in_use": used(resource, &usage), "reserved": 0 }),
            false => json!(limit),
        };
    }
    Ok(Json(json!({ "quota_set": set })))
}

fn of_limits(id: Option<&str>, limits: &Limits) -> Value {
    let mut set = json!({});
    if let Some(id) = id {
        set["id"] = json!(id);
    }
    for (name, resource) in COUNTED {
        set[name] = json!(limit(name, resource, limits));
    }
    set
}

async fn defaults(
    State(door): State<Door>,
    session: Session,
    Path(text): Path<String>,
) -> Result<Json<Value>> {
    project(door.control(), &session, &text)?;
    Ok(Json(json!({ "quota_set": of_limits(Some(&text), &Limits::default()) })))
}

async fn class(session: Session, Path(class): Path<String>) -> Result<Json<Value>> {
    session.require_admin("volume_extension:quota_classes:get")?;
    Ok(Json(json!({ "quota_class_set": of_limits(Some(&class), &Limits::default()) })))
}

async fn update(
    State(door): State<Door>,
    session: Session,
    Path(text): Path<String>,
    Body(input): Body<Value>,
) -> Result<Json<Value>> {
    session.require_admin("volume_extension:quotas:update")?;
    let id = project(door.control(), &session, &text)?;
    let set = field(&input, "quota_set").and_then(Value::as_object);
    let set =
        set.ok_or_else(|| Fault::invalid("Invalid input for field/attribute quota_set: it is missing."))?;
    let mut changes = vec![];
    for (name, value) in
        set.iter().filter(|(name, _)| !matches!(name.as_str(), "tenant_id" | "force" | "skip_validation"))
    {
        let known = COUNTED.iter().find(|(known, _)| known == name);
        let read = value.as_i64().or_else(|| value.as_str()?.parse().ok()).filter(|n| *n >= -1);
        let wanted = read
            .ok_or_else(|| Fault::invalid(format!("Invalid input for field/attribute {name}: {value}.")))?;
        match known {
            Some((_, Some(resource))) => changes.push((*resource, u64::try_from(wanted).ok())),
            Some(_) => {}
            None => return Err(Fault::invalid(format!("Bad key in quota set: {name}."))),
        }
    }
    let limits = door.control().set_quota(&session.caller, &id.to_string(), &changes).await?;
    Ok(Json(json!({ "quota_set": of_limits(None, &limits) })))
}

/// What was set for storage is taken back; other services' limits stay.
async fn reset(State(door): State<Door>, session: Session, Path(text): Path<String>) -> Result<StatusCode> {
    session.require_admin("volume_extension:quotas:delete")?;
    let id = project(door.control(), &session, &text)?;
    let act = |project: &mut Project| {
        for (_, resource) in COUNTED {
            if let Some(resource) = resource {
                project.limits.0.remove(&resource);
            }
        }
        Ok(())
    };
    door.control().change::<Project>(&session.caller, &id.to_string(), act).await?;
    Ok(StatusCode::OK)
}

async fn limits(State(door): State<Door>, session: Session, query: Query) -> Result<Json<Value>> {
    // The client asks with `project_id=None` when it means its own.
    let asked = query.get("project_id").filter(|text| !text.is_empty() && *text != "None");
    let id = match asked {
        Some(text) if session.is_admin() => project(door.control(), &session, text)?,
        _ => session.caller.project,
    };
    let (limits, usage) = door.control().quota(id);
    let most = |resource: Resource| number(limits.of(resource));
    Ok(Json(json!({ "limits": { "rate": [], "absolute": {
        "maxTotalVolumes": most(Resource::Volumes),
        "maxTotalSnapshots": most(Resource::Snapshots),
        "maxTotalVolumeGigabytes": most(Resource::VolumeGib),
        "maxTotalBackups": most(Resource::Backups),
        "maxTotalBackupGigabytes": -1,
        "totalVolumesUsed": usage.of(Resource::Volumes),
        "totalGigabytesUsed": usage.of(Resource::VolumeGib),
        "totalSnapshotsUsed": usage.of(Resource::Snapshots),
        "totalBackupsUsed": usage.of(Resource::Backups),
        "totalBackupGigabytesUsed": 0,
    } } })))
}
