//! Users, and the change of one's own password.

use super::{
    group,
    listing::{self, domain_filter, list},
    project,
};
use crate::openstack::{
    audit::Deed,
    base::Base,
    body::Body,
    door::Door,
    fault::{Fault, Result},
    query::Query,
    session::Bearer,
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use control::user::UserChange;
use model::{
    domain::domain_text,
    user::{Options, User},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Fields that Keystone makes itself; in a wish they mean nothing.
const MADE_HERE: [&str; 4] = ["id", "links", "password_expires_at", "federated"];

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v3/users", get(index).post(create))
        .route("/v3/users/{id}", get(show).patch(update).delete(delete))
        .route("/v3/users/{id}/password", post(change_password))
        .route("/v3/users/{id}/projects", get(projects))
        .route("/v3/users/{id}/groups", get(groups))
}

/// A user; nothing of its password.
pub fn view(user: &User, base: &Base) -> Value {
    let id = user.id.hex();
    let own = base.link(&format!("/v3/users/{id}"));
    let extra = user.extra.iter().map(|(key, value)| (key.clone(), value.clone()));
    let mut view: Map<String, Value> = extra.collect();
    let known = json!({
        "id": id,
        "name": user.name,
        "domain_id": domain_text(user.domain),
        "enabled": user.enabled,
        "password_expires_at": null,
        "options": user.options,
        "links": { "self": own },
    });
    if let Value::Object(known) = known {
        view.extend(known);
    }
    let optional = [
        ("description", user.description.clone()),
        ("email", user.email.clone()),
        ("default_project_id", user.default_project.map(|id| id.hex())),
    ];
    view.extend(optional.into_iter().filter_map(|(key, value)| Some((key.to_string(), json!(value?)))));
    Value::Object(view)
}

#[derive(Debug, Deserialize)]
struct Input {
    user: Fields,
}

#[derive(Debug, Deserialize)]
struct Fields {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    domain_id: Option<String>,
    #[serde(default, deserialize_with = "listing::maybe")]
    description: Option<Option<String>>,
    #[serde(default, deserialize_with = "listing::maybe")]
    email: Option<Option<String>>,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default, deserialize_with = "listing::maybe")]
    default_project_id: Option<Option<String>>,
    #[serde(default, deserialize_with = "listing::maybe")]
    password: Option<Option<String>>,
    #[serde(default)]
    options: Option<Options>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl Fields {
    fn change(self) -> Result<UserChange> {
        let default_project = match self.default_project_id {
            None => None,
            Some(None) => Some(None),
            Some(Some(id)) => Some(Some(listing::project(&id)?)),
        };
        let extra = self.extra.into_iter().filter(|(key, _)| !MADE_HERE.contains(&key.as_str())).collect();
        Ok(UserChange {
            name: self.name,
            description: self.description,
            email: self.email,
            enabled: self.enabled,
            default_project,
            password: self.password,
            options: self.options,
            extra,
        })
    }
}

async fn index(
    State(door): State<Door>,
    base: Base,
    query: Query,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let all = door.control().users(&session, domain_filter(&query)?)?;
    Ok(Json(list("users", all.iter().map(|u| view(&u.record, &base)).collect(), &base, &query)?))
}

async fn show(
    State(door): State<Door>,
    base: Base,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let found = door.control().user_for(&session, &id, "identity:get_user")?;
    Ok(Json(json!({ "user": view(&found.record, &base) })))
}

async fn create(
    State(door): State<Door>,
    base: Base,
    Bearer { session, .. }: Bearer,
    Body(input): Body<Input>,
) -> Result<Response> {
    let domain = match input.user.domain_id.as_deref() {
        Some(id) => listing::domain(id)?,
        None => session.home_domain(),
    };
    let made = door.control().create_user(&session, domain, &input.user.change()?).await?;
    let body = Json(json!({ "user": view(&made, &base) }));
    Ok(Deed::new("create", "user", made.id, &made.name).on((StatusCode::CREATED, body)))
}

async fn update(
    State(door): State<Door>,
    base: Base,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
    Body(input): Body<Input>,
) -> Result<Response> {
    if let Some(domain) = input.user.domain_id.as_deref() {
        let domain = listing::domain(domain)?;
        let found = door.control().user_for(&session, &id, "identity:update_user")?;
        if domain != found.record.domain {
            return Err(Fault::invalid("A user stays in its domain."));
        }
    }
    let changed = door.control().change_user(&session, &id, &input.user.change()?).await?;
    let body = Json(json!({ "user": view(&changed, &base) }));
    Ok(Deed::new("update", "user", changed.id, &changed.name).on(body))
}

async fn delete(
    State(door): State<Door>,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<StatusCode> {
    door.control().delete_user(&session, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
struct PasswordInput {
    user: Passwords,
}

#[derive(Debug, Deserialize)]
struct Passwords {
    original_password: String,
    password: String,
}

/// Needs no token, as in Keystone: the old password is the proof.
async fn change_password(
    State(door): State<Door>,
    Path(id): Path<String>,
    Body(input): Body<PasswordInput>,
) -> Result<StatusCode> {
    let Passwords { original_password, password } = input.user;
    door.control().change_own_password(&id, &original_password, &password).await?;
    tracing::info!(user = id, "changed its password; its sessions have ended");
    Ok(StatusCode::NO_CONTENT)
}

async fn projects(
    State(door): State<Door>,
    base: Base,
    query: Query,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let all = door.control().projects_of_user(&session, &id)?;
    Ok(Json(list("projects", all.iter().map(|p| project::view(&p.record, &base)).collect(), &base, &query)?))
}

async fn groups(
    State(door): State<Door>,
    base: Base,
    query: Query,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let control = door.control();
    let found = control.user_for(&session, &id, "identity:list_groups_for_user")?;
    let all = control.groups_of(found.record.id).into_iter().filter_map(|id| control.group(id));
    Ok(Json(list("groups", all.map(|g| group::view(&g.record, &base)).collect(), &base, &query)?))
}
