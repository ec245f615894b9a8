//! `/v2.0/quotas`: limits of projects and what they use.

use super::attributes::{Attributes, wrong};
use crate::openstack::{Door, Fault, Result, Session, audit::Deed, body::Body};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::Control;
use model::{
    id::ProjectId,
    project::Project,
    quota::{Limits, Resource},
};
use serde_json::{Map, Value, json};

/// What Neutron counts, and what it is here.
const COUNTED: [(&str, Resource); 7] = [
    ("network", Resource::Networks),
    ("subnet", Resource::Subnets),
    ("port", Resource::Ports),
    ("router", Resource::Routers),
    ("floatingip", Resource::FloatingIps),
    ("security_group", Resource::SecurityGroups),
    ("security_group_rule", Resource::SecurityGroupRules),
];
/// What Neutron counts and this cloud does not.
const UNLIMITED: [&str; 1] = ["subnetpool"];

/// The routes of quotas.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.0/quotas", get(list))
        .route("/v2.0/quotas/{project}", get(show).put(update).delete(reset))
        .route("/v2.0/quotas/{project}/default", get(defaults))
        .route("/v2.0/quotas/{project}/details", get(details))
        .route("/v2.0/quotas/{project}/details.json", get(details))
}

fn number(limit: Option<u64>) -> Value {
    limit.map_or(json!(-1), |limit| json!(limit))
}

fn view(limits: &Limits) -> Map<String, Value> {
    let counted = COUNTED.iter().map(|(key, resource)| ((*key).to_string(), number(limits.of(*resource))));
    counted.chain(UNLIMITED.iter().map(|key| ((*key).to_string(), json!(-1)))).collect()
}

/// The project that a path means; another than one's own is for admins.
fn project(control: &Control, session: &Session, text: &str) -> Result<ProjectId> {
    let id: ProjectId = text.parse().map_err(|_| Fault::not_found("Project", text))?;
    if !session.caller.sees(id) {
        return Err(Fault::forbidden("Only admin can view or configure quota of another project."));
    }
    if control.get::<Project>(id).is_none() {
        return Err(Fault::not_found("Project", text));
    }
    Ok(id)
}

async fn list(State(door): State<Door>, session: Session) -> Result<Json<Value>> {
    session.require_admin("get_quota")?;
    let all = door.control().store().list::<Project>();
    let changed = all.iter().filter(|project| !project.record.limits.0.is_empty());
    let views: Vec<Value> = changed
        .map(|project| {
            let mut view = view(&project.record.limits);
            let id = project.record.meta.id.hex();
            view.insert("tenant_id".into(), json!(id));
            view.insert("project_id".into(), json!(id));
            Value::Object(view)
        })
        .collect();
    Ok(Json(json!({ "quotas": views })))
}

async fn show(State(door): State<Door>, session: Session, Path(text): Path<String>) -> Result<Json<Value>> {
    if matches!(text.as_str(), "tenant" | "project") {
        let id = session.project_id();
        return Ok(Json(json!({ "tenant": { "tenant_id": id }, "project": { "project_id": id } })));
    }
    let id = project(door.control(), &session, &text)?;
    let (limits, _) = door.control().quota(id);
    Ok(Json(json!({ "quota": view(&limits) })))
}

async fn defaults(
    State(door): State<Door>,
    session: Session,
    Path(text): Path<String>,
) -> Result<Json<Value>> {
    project(door.control(), &session, &text)?;
    Ok(Json(json!({ "quota": view(&Limits::default()) })))
}

async fn details(
    State(door): State<Door>,
    session: Session,
    Path(text): Path<String>,
) -> Result<Json<Value>> {
    let control = door.control();
    let id = project(control, &session, &text)?;
    let (limits, usage) = control.quota(id);
    let mut all = Map::new();
    for (key, resource) in COUNTED {
        let detail =
            json!({ "limit": number(limits.of(resource)), "used": usage.of(resource), "reserved": 0 });
        all.insert(key.into(), detail);
    }
    let pools = control.store().list::<model::subnet_pool::SubnetPool>();
    let used = pools.iter().filter(|pool| pool.record.meta.project == id).count();
    all.insert("subnetpool".into(), json!({ "limit": -1, "used": used, "reserved": 0 }));
    Ok(Json(json!({ "quota": all })))
}

async fn update(
    State(door): State<Door>,
    session: Session,
    Path(text): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    session.require_admin("update_quota")?;
    let control = door.control();
    let id = project(control, &session, &text)?;
    let mut body = Attributes::read(body, "quota")?;
    let (check, force) = (body.flag("check_limit")?, body.flag("force")?);
    body.take("tenant_id");
    body.take("project_id");
    let mut limits = vec![];
    for (key, resource) in COUNTED {
        if let Some(limit) = body.number(key)? {
            let limit = match limit {
                -1 => None,
                limit => Some(
                    u64::try_from(limit).map_err(|_| wrong(key, format!("'{limit}' must be -1 or more")))?,
                ),
            };
            limits.push((key, resource, limit));
        }
    }
    for key in UNLIMITED {
        if body.number(key)?.is_some_and(|limit| limit != -1) {
            return Err(wrong(key, "this cloud does not limit it"));
        }
    }
    body.finish()?;
    if check == Some(true) && force != Some(true) {
        let (_, usage) = control.quota(id);
        if let Some((key, _, _)) = limits.iter().find(|(_, r, limit)| limit.is_some_and(|l| l < usage.of(*r)))
        {
            let message = format!("Quota limit exceeded: more of {key} is in use than the new limit allows.");
            return Err(Fault::invalid(message).kind("InvalidQuotaValue"));
        }
    }
    let limits: Vec<_> = limits.into_iter().map(|(_, resource, limit)| (resource, limit)).collect();
    let changed = control.set_quota(&session.caller, &id.to_string(), &limits).await?;
    let reply = json!({ "quota": view(&changed) });
    Ok(Deed::new("quota", "project", id, "").on(Json(reply)))
}

/// Back to the defaults, for what Neutron counts.
async fn reset(State(door): State<Door>, session: Session, Path(text): Path<String>) -> Result<Response> {
    session.require_admin("delete_quota")?;
    let control = door.control();
    let id = project(control, &session, &text)?;
    let limits: Vec<_> = COUNTED.iter().map(|(_, resource)| (*resource, resource.default_limit())).collect();
    control.set_quota(&session.caller, &id.to_string(), &limits).await?;
    Ok(Deed::new("quota", "project", id, "").on(StatusCode::NO_CONTENT))
}
