//! Quota sets and limits: how much a project may have, in Nova's words.

use super::form::{Form, wrong};
use crate::openstack::{
    Door, Fault, Microversion, Result, Session, audit::Deed, body::Body, paging::same_id, query::Query,
};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::schema::by_project;
use model::{
    id::ProjectId,
    meta::LABELS_MAX,
    project::Project,
    quota::{Limits, Resource, Usage},
    server_group::{GROUPS_MAX, MEMBERS_MAX, ServerGroup},
};
use serde_json::{Map, Value, json};

/// Files that may be put into a new server: none here, but Nova's figures are what its clients know.
const FILES: [(&str, u64); 3] =
    [("injected_files", 5), ("injected_file_content_bytes", 10_240), ("injected_file_path_bytes", 255)];
/// Server groups of a project, and servers of a group.
const GROUPS: [(&str, u64); 2] =
    [("server_groups", GROUPS_MAX), ("server_group_members", MEMBERS_MAX as u64)];

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.1/os-quota-sets/{project}", get(show).put(update).delete(reset))
        .route("/v2.1/os-quota-sets/{project}/defaults", get(defaults))
        .route("/v2.1/os-quota-sets/{project}/detail", get(detail))
        .route("/v2.1/os-quota-class-sets/{class}", get(class))
        .route("/v2.1/limits", get(limits))
}

/// What a name of a quota set counts here.
fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "instances" => Resource::Instances,
        "cores" => Resource::Vcpus,
        "ram" => Resource::MemoryMib,
        "key_pairs" => Resource::Keypairs,
        "floating_ips" => Resource::FloatingIps,
        "security_groups" => Resource::SecurityGroups,
        "security_group_rules" => Resource::SecurityGroupRules,
        _ => return None,
    })
}

/// Names of a quota set, with what is fixed and not counted by project.
fn names(version: Microversion) -> Vec<(&'static str, Option<i64>)> {
    let mut all: Vec<(&str, Option<i64>)> = vec![
        ("instances", None),
        ("cores", None),
        ("ram", None),
        ("key_pairs", None),
        ("metadata_items", Some(LABELS_MAX as i64)),
    ];
    all.extend(GROUPS.map(|(name, limit)| (name, Some(limit.cast_signed()))));
    if !version.has(2, 36) {
        all.extend([("fixed_ips", Some(-1)), ("floating_ips", None)]);
        all.extend([("security_groups", None), ("security_group_rules", None)]);
    }
    if !version.has(2, 57) {
        all.extend(FILES.map(|(name, limit)| (name, Some(limit.cast_signed()))));
    }
    all
}

/// Minus one is without a limit.
fn number(limit: Option<u64>) -> i64 {
    limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

fn set(version: Microversion, limit: impl Fn(Resource) -> Option<u64>) -> Map<String, Value> {
    names(version)
        .into_iter()
        .map(|(name, fixed)| {
            let value = fixed.unwrap_or_else(|| number(resource(name).and_then(&limit)));
            (name.to_string(), value.into())
        })
        .collect()
}

/// The project of a path. Others than one's own are for those who run the cloud.
fn project_of(session: &Session, text: &str, rule: &str) -> Result<ProjectId> {
    if !same_id(text, &session.project_id()) {
        session.require_admin(rule)?;
    }
    let wrong = |_| Fault::invalid(format!("{text} is not a valid project ID."));
    text.parse::<ProjectId>().map_err(wrong)
}

fn quota(door: &Door, project: ProjectId) -> Result<(Limits, Usage)> {
    if door.control().get::<Project>(project).is_none() {
        return Err(Fault::invalid(format!("Project ID {} is not a valid project.", project.hex())));
    }
    Ok(door.control().quota(project))
}

/// Server groups that a project has.
fn groups_of(door: &Door, project: ProjectId) -> u64 {
    let all = door.control().store().by_index(&by_project::<ServerGroup>(), &project.to_string());
    all.len() as u64
}

async fn show(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(project): Path<String>,
    _: Query,
) -> Result<Json<Value>> {
    let id = project_of(&session, &project, "os_compute_api:os-quota-sets:show")?;
    let (limits, _) = quota(&door, id)?;
    let mut shown = set(version, |resource| limits.of(resource));
    shown.insert("id".into(), project.into());
    Ok(Json(json!({ "quota_set": shown })))
}

async fn defaults(
    version: Microversion,
    session: Session,
    Path(project): Path<String>,
) -> Result<Json<Value>> {
    let _ = session;
    let mut shown = set(version, Resource::default_limit);
    shown.insert("id".into(), project.into());
    Ok(Json(json!({ "quota_set": shown })))
}

async fn detail(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(project): Path<String>,
) -> Result<Json<Value>> {
    let id = project_of(&session, &project, "os_compute_api:os-quota-sets:detail")?;
    let (limits, usage) = quota(&door, id)?;
    let one = |(name, fixed): (&str, Option<i64>)| {
        let counted = resource(name);
        let limit = fixed.unwrap_or_else(|| number(counted.and_then(|r| limits.of(r))));
        let used = match name {
            "server_groups" => groups_of(&door, id),
            _ => counted.and_then(|r| usage.used.get(&r).copied()).unwrap_or(0),
        };
        (name.to_string(), json!({ "limit": limit, "in_use": used, "reserved": 0 }))
    };
    let mut shown: Map<String, Value> = names(version).into_iter().map(one).collect();
    shown.insert("id".into(), project.into());
    Ok(Json(json!({ "quota_set": shown })))
}

async fn update(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(project): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    session.require_admin("os_compute_api:os-quota-sets:update")?;
    let form = Form::under(&body, "quota_set")?;
    let mut known: Vec<&str> = names(version).into_iter().map(|(name, _)| name).collect();
    known.extend(["force", "tenant_id", "project_id"]);
    form.refuse_others(&known)?;
    let id = project_of(&session, &project, "os_compute_api:os-quota-sets:update")?;
    let (_, usage) = quota(&door, id)?;
    let force = form.flag("force")?.unwrap_or(false);
    let mut wanted = vec![];
    for (name, value) in form.fields() {
        let Some(resource) = resource(name) else { continue };
        let text = value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        let limit = match text {
            Some(-1) => None,
            Some(limit @ 0..) => Some(limit.cast_unsigned()),
            _ => return Err(wrong(name, value, "it is no limit")),
        };
        let used = usage.used.get(&resource).copied().unwrap_or(0);
        if !force && limit.is_some_and(|limit| limit < used) {
            let message = format!(
                "Quota limit {value} for {name} must be greater than or equal to already used {used}."
            );
            return Err(Fault::invalid(message));
        }
        wanted.push((resource, limit));
    }
    let limits = door.control().set_quota(&session.caller, &id.to_string(), &wanted).await?;
    let shown = json!({ "quota_set": set(version, |resource| limits.of(resource)) });
    Ok(Deed::new("update", "quota", id, "").on(Json(shown)))
}

async fn reset(State(door): State<Door>, session: Session, Path(project): Path<String>) -> Result<Response> {
    session.require_admin("os_compute_api:os-quota-sets:delete")?;
    let id = project_of(&session, &project, "os_compute_api:os-quota-sets:delete")?;
    quota(&door, id)?;
    let all: Vec<_> = ["instances", "cores", "ram", "key_pairs"]
        .into_iter()
        .filter_map(resource)
        .map(|resource| (resource, resource.default_limit()))
        .collect();
    door.control().set_quota(&session.caller, &id.to_string(), &all).await?;
    Ok(Deed::new("reset", "quota", id, "").on(StatusCode::ACCEPTED))
}

async fn class(session: Session, version: Microversion, Path(class): Path<String>) -> Result<Json<Value>> {
    session.require_admin("os_compute_api:os-quota-class-sets:show")?;
    let mut shown = set(version, Resource::default_limit);
    if !version.has(2, 50) {
        GROUPS.iter().for_each(|(name, _)| {
            shown.remove(*name);
        });
    }
    shown.insert("id".into(), class.into());
    Ok(Json(json!({ "quota_class_set": shown })))
}

async fn limits(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    query: Query,
) -> Result<Json<Value>> {
    let project = match query.get("tenant_id").filter(|_| !version.has(2, 75) || session.is_admin()) {
        Some(text) => project_of(&session, text, "os_compute_api:limits:other_project")?,
        None => session.caller.project,
    };
    let (limits, usage) = door.control().quota(project);
    let most = |resource| json!(number(limits.of(resource)));
    let used = |resource| json!(usage.used.get(&resource).copied().unwrap_or(0));
    let mut shown = vec![
        ("maxTotalInstances", most(Resource::Instances)),
        ("maxTotalCores", most(Resource::Vcpus)),
        ("maxTotalRAMSize", most(Resource::MemoryMib)),
        ("maxTotalKeypairs", most(Resource::Keypairs)),
        ("maxServerMeta", json!(LABELS_MAX)),
        ("maxServerGroups", json!(GROUPS[0].1)),
        ("maxServerGroupMembers", json!(GROUPS[1].1)),
        ("totalInstancesUsed", used(Resource::Instances)),
        ("totalCoresUsed", used(Resource::Vcpus)),
        ("totalRAMUsed", used(Resource::MemoryMib)),
        ("totalServerGroupsUsed", json!(groups_of(&door, project))),
    ];
    if !version.has(2, 36) {
        shown.extend([
            ("maxTotalFloatingIps", most(Resource::FloatingIps)),
            ("maxSecurityGroups", most(Resource::SecurityGroups)),
            ("maxSecurityGroupRules", most(Resource::SecurityGroupRules)),
            ("totalFloatingIpsUsed", used(Resource::FloatingIps)),
            ("totalSecurityGroupsUsed", used(Resource::SecurityGroups)),
        ]);
    }
    if !version.has(2, 39) {
        shown.push(("maxImageMeta", json!(LABELS_MAX)));
    }
    if !version.has(2, 57) {
        shown.extend([("maxPersonality", json!(FILES[0].1)), ("maxPersonalitySize", json!(FILES[1].1))]);
    }
    let absolute: Map<String, Value> =
        shown.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
    Ok(Json(json!({ "limits": { "rate": [], "absolute": absolute } })))
}
