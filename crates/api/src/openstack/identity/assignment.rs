//! Assignments: who has which role where.
//!
//! ```text
//!   /v3/{projects,domains}/{id}/{users,groups}/{id}/roles[/{role}]
//!   /v3/system/{users,groups}/{id}/roles[/{role}]
//!   /v3/OS-INHERIT/domains/{id}/{users,groups}/{id}/roles[/{role}]/inherited_to_projects
//! ```

use super::noun::listed;
use crate::openstack::{
    audit::Deed,
    base::Base,
    door::Door,
    fault::{Fault, Result},
    paging::same_id,
    query::Query,
    session::Bearer,
};
use crate::routing::{MethodRouter, Router, get};
use axum::{
    Json,
    extract::{RawPathParams, State},
    http::StatusCode,
    response::Response,
};
use control::{
    Control,
    assignment::{ActorRef, TargetRef},
};
use model::{
    assignment::{Actor, Assignment, Target},
    domain::domain_text,
    id::RoleId,
    project::Project,
    user::User,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The routes.
pub fn router() -> Router<Door> {
    let places = [
        ("/v3/projects/{project}", ""),
        ("/v3/domains/{domain}", ""),
        ("/v3/system", ""),
        ("/v3/OS-INHERIT/domains/{inherited}", "/inherited_to_projects"),
    ];
    let mut routes = Router::new().route("/v3/role_assignments", get(index));
    for (place, end) in places {
        for actor in ["/users/{user}", "/groups/{group}"] {
            let roles = format!("{place}{actor}/roles");
            routes = routes
                .route(&format!("{roles}{end}"), get(given))
                .route(&format!("{roles}/{{role}}{end}"), one());
        }
    }
    routes
}

fn one() -> MethodRouter<Door> {
    get(check).put(grant).delete(revoke)
}

/// What a path of this file names.
struct Named {
    actor: ActorRef,
    target: TargetRef,
    role: String,
}

impl Named {
    /// For the record: which role, of whom, where.
    fn deed(&self, action: &str) -> Deed {
        let actor = match &self.actor {
            ActorRef::User(id) => format!("user {id}"),
            ActorRef::Group(id) => format!("group {id}"),
        };
        let target = match &self.target {
            TargetRef::Project(id) => format!("project {id}"),
            TargetRef::Domain(id) => format!("domain {id}"),
            TargetRef::ProjectsOf(id) => format!("all projects of domain {id}"),
            TargetRef::System => "system".to_string(),
        };
        Deed::new(action, "role", &self.role, format!("{actor}, {target}"))
    }
}

/// `{project}` of one route is `{id}` of another, so the words of a path are read by their names.
fn named(params: &RawPathParams) -> Result<Named> {
    let find = |name: &str| params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
    let actor = find("user").map(ActorRef::User).or_else(|| find("group").map(ActorRef::Group));
    let target = find("project")
        .map(TargetRef::Project)
        .or_else(|| find("domain").map(TargetRef::Domain))
        .or_else(|| find("inherited").map(TargetRef::ProjectsOf))
        .unwrap_or(TargetRef::System);
    let actor = actor.ok_or_else(|| Fault::invalid("The path names neither a user nor a group."))?;
    Ok(Named { actor, target, role: find("role").unwrap_or_default() })
}

async fn given(
    State(door): State<Door>,
    base: Base,
    query: Query,
    params: RawPathParams,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let named = named(&params)?;
    let all = door.control().grants(&session, &named.actor, &named.target)?;
    listed(all, &base, &query)
}

async fn check(
    State(door): State<Door>,
    params: RawPathParams,
    Bearer { session, .. }: Bearer,
) -> Result<StatusCode> {
    let named = named(&params)?;
    door.control().check_grant(&session, &named.actor, &named.target, &named.role)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn grant(
    State(door): State<Door>,
    params: RawPathParams,
    Bearer { session, .. }: Bearer,
) -> Result<Response> {
    let named = named(&params)?;
    door.control().grant(&session, &named.actor, &named.target, &named.role).await?;
    Ok(named.deed("grant").on(StatusCode::NO_CONTENT))
}

async fn revoke(
    State(door): State<Door>,
    params: RawPathParams,
    Bearer { session, .. }: Bearer,
) -> Result<Response> {
    let named = named(&params)?;
    door.control().revoke(&session, &named.actor, &named.target, &named.role).await?;
    Ok(named.deed("revoke").on(StatusCode::NO_CONTENT))
}

/// All assignments, with the filters of Keystone: `user.id`, `group.id`, `role.id`, `scope.project.id`,
/// `scope.domain.id`, `scope.system`, and `effective`, `include_names`.
async fn index(
    State(door): State<Door>,
    base: Base,
    query: Query,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let control = door.control();
    let flag =
        |key: &str| query.get(key).is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "0" | "false"));
    let mut all = control.assignments(&session)?;
    if flag("effective") {
        all = effective(control, &all);
    }
    let mut items = vec![];
    for assignment in all {
        if fits(&assignment, &query) {
            items.push(view(control, &assignment, &base, flag("include_names")));
        }
    }
    let own = base.link("/v3/role_assignments");
    Ok(Json(json!({ "role_assignments": items, "links": { "self": own, "next": null, "previous": null } })))
}

fn fits(assignment: &Assignment, query: &Query) -> bool {
    let (user, group) = match assignment.actor {
        Actor::User(id) => (Some(id.hex()), None),
        Actor::Group(id) => (None, Some(id.hex())),
    };
    let (project, domain, system) = match assignment.target {
        Target::Project(id) => (Some(id.hex()), None, false),
        Target::Domain(id) | Target::ProjectsOf(id) => (None, Some(domain_text(id)), false),
        Target::System => (None, None, true),
    };
    let asked = |key: &str, have: Option<String>| {
        query.get(key).is_none_or(|wanted| have.is_some_and(|have| same_id(&have, wanted)))
    };
    asked("user.id", user)
        && asked("group.id", group)
        && asked("role.id", Some(assignment.role.hex()))
        && asked("scope.project.id", project)
        && asked("scope.domain.id", domain)
        && (query.get("scope.system").is_none() || system)
}

/// What follows from assignments: groups become their users, a domain's projects themselves, and roles bring others.
fn effective(control: &Control, given: &[Assignment]) -> Vec<Assignment> {
    let mut seen = BTreeSet::new();
    let mut all = vec![];
    for assignment in given {
        let users: Vec<Actor> = match assignment.actor {
            Actor::Group(id) => control.members(id).iter().map(|u| Actor::User(u.record.id)).collect(),
            user => vec![user],
        };
        let targets: Vec<Target> = match assignment.target {
            Target::ProjectsOf(domain) => projects_in(control, domain),
            target => vec![target],
        };
        let roles: Vec<RoleId> = control.implied([assignment.role]).into_iter().collect();
        for actor in &users {
            for target in &targets {
                for role in &roles {
                    if seen.insert(format!("{actor}/{target}/{role}")) {
                        all.push(Assignment { actor: *actor, target: *target, role: *role });
                    }
                }
            }
        }
    }
    all
}

fn projects_in(control: &Control, domain: model::id::DomainId) -> Vec<Target> {
    let all = control.store().list::<Project>();
    all.iter().filter(|p| p.record.domain == domain).map(|p| Target::Project(p.record.meta.id)).collect()
}

fn view(control: &Control, assignment: &Assignment, base: &Base, names: bool) -> Value {
    let role = control.role(assignment.role);
    let role_name = role.map(|r| r.record.name.to_string());
    let mut view = json!({ "role": named_thing(assignment.role.hex(), role_name, None, names) });
    let (kind, actor, path) = match assignment.actor {
        Actor::User(id) => {
            let user = control.store().get::<User>(&id.to_string());
            let name = user.as_ref().map(|u| u.record.name.to_string());
            let domain = user.map(|u| domain_thing(control, u.record.domain, names));
            ("user", named_thing(id.hex(), name, domain, names), format!("users/{}", id.hex()))
        }
        Actor::Group(id) => {
            let group = control.group(id);
            let name = group.as_ref().map(|g| g.record.name.to_string());
            let domain = group.map(|g| domain_thing(control, g.record.domain, names));
            ("group", named_thing(id.hex(), name, domain, names), format!("groups/{}", id.hex()))
        }
    };
    view[kind] = actor;
    let (scope, place, end) = scope_view(control, assignment.target, names);
    view["scope"] = scope;
    let link = base.link(&format!("/v3/{place}/{path}/roles/{}{end}", assignment.role.hex()));
    view["links"] = json!({ "assignment": link });
    view
}

fn scope_view(control: &Control, target: Target, names: bool) -> (Value, String, &'static str) {
    match target {
        Target::System => (json!({ "system": { "all": true } }), "system".into(), ""),
        Target::Domain(id) => {
            let thing = domain_thing(control, id, names);
            (json!({ "domain": thing }), format!("domains/{}", domain_text(id)), "")
        }
        Target::ProjectsOf(id) => {
            let thing = domain_thing(control, id, names);
            let scope = json!({ "domain": thing, "OS-INHERIT:inherited_to": "projects" });
            (scope, format!("OS-INHERIT/domains/{}", domain_text(id)), "/inherited_to_projects")
        }
        Target::Project(id) => {
            let project = control.get::<Project>(id);
            let name = project.as_ref().map(|p| p.record.meta.name.to_string());
            let domain = project.map(|p| domain_thing(control, p.record.domain, names));
            let thing = named_thing(id.hex(), name, domain, names);
            (json!({ "project": thing }), format!("projects/{}", id.hex()), "")
        }
    }
}

fn domain_thing(control: &Control, id: model::id::DomainId, names: bool) -> Value {
    let name = control.domain(id).map(|d| d.record.name.to_string());
    named_thing(domain_text(id), name, None, names)
}

fn named_thing(id: String, name: Option<String>, domain: Option<Value>, names: bool) -> Value {
    let mut thing = json!({ "id": id });
    if names {
        thing["name"] = json!(name);
        if let Some(domain) = domain {
            thing["domain"] = domain;
        }
    }
    thing
}
