//! Server groups: servers that are to be kept on one host, or on different ones.

use super::form::{Form, wrong};
use crate::openstack::{Door, Fault, Microversion, Result, Session, audit::Deed, body::Body, query::Query};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::server_group::NewServerGroup;
use model::{
    id::ServerGroupId,
    meta::Labels,
    server_group::{Policy, ServerGroup},
};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.1/os-server-groups", get(list).post(create))
        .route("/v2.1/os-server-groups/{id}", get(show).delete(delete))
}

fn find(door: &Door, session: &Session, id: &str) -> Result<Arc<Stored<ServerGroup>>> {
    let missing = || Fault::status(StatusCode::NOT_FOUND, format!("Instance group {id} could not be found."));
    let parsed = id.parse::<ServerGroupId>().map_err(|_| missing())?;
    door.control().find::<ServerGroup>(&session.caller, &parsed.to_string()).map_err(|_| missing())
}

/// The group that a scheduler hint names.
///
/// # Errors
/// 400 for none.
pub fn hinted(door: &Door, session: &Session, hints: &Form<'_>) -> Result<Option<String>> {
    let Some(id) = hints.text("group")? else { return Ok(None) };
    let found = find(door, session, id);
    let missing = |_| Fault::invalid(format!("Instance group {id} could not be found."));
    Ok(Some(found.map_err(missing)?.record.meta.id.to_string()))
}

fn view(door: &Door, group: &ServerGroup, version: Microversion) -> Value {
    let members = door.control().members_of_server_group(group.meta.id);
    let members: Vec<Value> = members.iter().map(|member| json!(member.record.meta.id)).collect();
    let mut shown = json!({ "id": group.meta.id, "name": group.meta.name, "members": members });
    let policy = group.policy.as_str();
    let user = group.user.map_or_else(|| group.meta.project.hex(), |user| user.hex());
    if version.has(2, 64) {
        shown["policy"] = policy.into();
        shown["rules"] = group.per_host_max.map_or(json!({}), |most| json!({ "max_server_per_host": most }));
    } else {
        shown["policies"] = json!([policy]);
        shown["metadata"] = json!(group.meta.labels);
    }
    if version.has(2, 13) {
        shown["project_id"] = group.meta.project.hex().into();
        shown["user_id"] = user.into();
    }
    shown
}

async fn list(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    query: Query,
) -> Result<Json<Value>> {
    let everywhere = query.get("all_projects").is_some() && session.is_admin();
    let mut all = if everywhere {
        door.control().list_everywhere::<ServerGroup>(&session.caller)?
    } else {
        door.control().list::<ServerGroup>(&session.caller)
    };
    all.sort_by_key(|group| group.record.meta.created_at);
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let (offset, limit) = (query.number("offset")?.unwrap_or(0), query.number("limit")?);
    let shown: Vec<Value> = all
        .iter()
        .skip(size(offset))
        .take(limit.map_or(usize::MAX, size))
        .map(|group| view(&door, &group.record, version))
        .collect();
    Ok(Json(json!({ "server_groups": shown })))
}

async fn show(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let found = find(&door, &session, &id)?;
    Ok(Json(json!({ "server_group": view(&door, &found.record, version) })))
}

/// The policy that is asked for: one of a list up to 2.63, then a text. Soft ones came with 2.15.
fn policy_of(form: &Form<'_>, version: Microversion) -> Result<Policy> {
    let value = if version.has(2, 64) {
        form.raw("policy").ok_or_else(|| Fault::invalid("'policy' is a required property"))?
    } else {
        let list = form.list("policies")?.unwrap_or_default();
        match list {
            [one] => one,
            _ => {
                return Err(Fault::invalid(
                    "Invalid input for field/attribute policies: exactly one is wanted.",
                ));
            }
        }
    };
    let found = Policy::ALL.into_iter().find(|policy| value == policy.as_str());
    let known = found.filter(|policy| version.has(2, 15) || !policy.is_soft());
    known.ok_or_else(|| wrong("policy", value, "it is no policy of this version"))
}

async fn create(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Body(body): Body<Value>,
) -> Result<Response> {
    let form = Form::under(&body, "server_group")?;
    if version.has(2, 64) {
        form.refuse_others(&["name", "policy", "rules"])?;
    } else {
        form.refuse_others(&["name", "policies"])?;
    }
    let name = form.name("name")?.ok_or_else(|| Fault::invalid("'name' is a required property"))?;
    let policy = policy_of(&form, version)?;
    let per_host_max = match form.get("rules") {
        None => None,
        Some(value) => {
            let rules = Form::of(value, "rules")?;
            rules.refuse_others(&["max_server_per_host"])?;
            if policy != Policy::AntiAffinity && !rules.fields().is_empty() {
                return Err(Fault::invalid("Only anti-affinity policy supports rules."));
            }
            let most = rules.number("max_server_per_host")?;
            let many =
                |_| Fault::invalid("Invalid input for field/attribute max_server_per_host: it is too large.");
            most.map(u32::try_from).transpose().map_err(many)?
        }
    };
    let new = NewServerGroup {
        name: name.to_string(),
        description: String::new(),
        labels: Labels::new(),
        policy,
        per_host_max,
        user: Some(session.user.record.id),
    };
    let made = door.control().create_server_group(&session.caller, new).await?;
    let shown = json!({ "server_group": view(&door, &made, version) });
    Ok(Deed::new("create", "server_group", made.meta.id, &made.meta.name).on(Json(shown)))
}

async fn delete(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    let found = find(&door, &session, &id)?;
    let meta = &found.record.meta;
    door.control().delete_server_group(&session.caller, &meta.id.to_string()).await?;
    Ok(Deed::new("delete", "server_group", meta.id, &meta.name).on(StatusCode::NO_CONTENT))
}
