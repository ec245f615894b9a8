//! Groups and who is in them.

use super::{
    listing::{self, domain_filter, list},
    user,
};
use crate::openstack::{
    audit::Deed, base::Base, body::Body, door::Door, fault::Result, query::Query, session::Bearer,
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
    routing::get,
};
use control::group::GroupChange;
use model::{domain::domain_text, group::Group};
use serde::Deserialize;
use serde_json::{Value, json};

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v3/groups", get(index).post(create))
        .route("/v3/groups/{id}", get(show).patch(update).delete(delete))
        .route("/v3/groups/{id}/users", get(members))
        .route("/v3/groups/{id}/users/{user}", get(is_member).put(join).delete(leave))
}

/// A group.
pub fn view(group: &Group, base: &Base) -> Value {
    let id = group.id.hex();
    let own = base.link(&format!("/v3/groups/{id}"));
    json!({
        "id": id,
        "name": group.name,
        "domain_id": domain_text(group.domain),
        "description": group.description,
        "links": { "self": own },
    })
}

#[derive(Debug, Deserialize)]
struct Input {
    group: Fields,
}

#[derive(Debug, Deserialize)]
struct Fields {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    domain_id: Option<String>,
    #[serde(default, deserialize_with = "listing::maybe")]
    description: Option<Option<String>>,
}

impl Fields {
    fn change(self) -> GroupChange {
        GroupChange { name: self.name, description: self.description.map(Option::unwrap_or_default) }
    }
}

async fn index(
    State(door): State<Door>,
    base: Base,
    query: Query,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let all = door.control().groups(&session, domain_filter(&query)?)?;
    Ok(Json(list("groups", all.iter().map(|g| view(&g.record, &base)).collect(), &base, &query)?))
}

async fn show(
    State(door): State<Door>,
    base: Base,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let found = door.control().group_for(&session, &id, "identity:get_group")?;
    Ok(Json(json!({ "group": view(&found.record, &base) })))
}

async fn create(
    State(door): State<Door>,
    base: Base,
    Bearer { session, .. }: Bearer,
    Body(input): Body<Input>,
) -> Result<Response> {
    let domain = match input.group.domain_id.as_deref() {
        Some(id) => listing::domain(id)?,
        None => session.home_domain(),
    };
    let made = door.control().create_group(&session, domain, &input.group.change()).await?;
    let body = Json(json!({ "group": view(&made, &base) }));
    Ok(Deed::new("create", "group", made.id, &made.name).on((StatusCode::CREATED, body)))
}

async fn update(
    State(door): State<Door>,
    base: Base,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
    Body(input): Body<Input>,
) -> Result<Response> {
    let changed = door.control().change_group(&session, &id, &input.group.change()).await?;
    let body = Json(json!({ "group": view(&changed, &base) }));
    Ok(Deed::new("update", "group", changed.id, &changed.name).on(body))
}

async fn delete(
    State(door): State<Door>,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<StatusCode> {
    door.control().delete_group(&session, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn members(
    State(door): State<Door>,
    base: Base,
    query: Query,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let found = door.control().group_for(&session, &id, "identity:list_users_in_group")?;
    let all = door.control().members(found.record.id);
    Ok(Json(list("users", all.iter().map(|u| user::view(&u.record, &base)).collect(), &base, &query)?))
}

async fn is_member(
    State(door): State<Door>,
    Path((group, user)): Path<(String, String)>,
    Bearer { session, .. }: Bearer,
) -> Result<StatusCode> {
    door.control().check_membership(&session, &group, &user)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn join(
    State(door): State<Door>,
    Path((group, user)): Path<(String, String)>,
    Bearer { session, .. }: Bearer,
) -> Result<Response> {
    door.control().join_group(&session, &group, &user).await?;
    Ok(Deed::new("join", "group", &group, format!("user {user}")).on(StatusCode::NO_CONTENT))
}

async fn leave(
    State(door): State<Door>,
    Path((group, user)): Path<(String, String)>,
    Bearer { session, .. }: Bearer,
) -> Result<Response> {
    door.control().leave_group(&session, &group, &user).await?;
    Ok(Deed::new("leave", "group", &group, format!("user {user}")).on(StatusCode::NO_CONTENT))
}
