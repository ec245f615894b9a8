//! Roles, and which bring which others.

use super::listing::{self, domain_filter, list};
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
use control::{access::missing, role::RoleChange};
use model::{domain::domain_text, role::Role};
use serde::Deserialize;
use serde_json::{Value, json};

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v3/roles", get(index).post(create))
        .route("/v3/roles/{id}", get(show).patch(update).delete(delete))
        .route("/v3/roles/{id}/implies", get(implied))
        .route("/v3/roles/{id}/implies/{other}", get(shows_implied).put(imply).delete(imply_no_more))
        .route("/v3/role_inferences", get(inferences))
}

/// A role.
pub fn view(role: &Role, base: &Base) -> Value {
    let id = role.id.hex();
    let own = base.link(&format!("/v3/roles/{id}"));
    json!({
        "id": id,
        "name": role.name,
        "domain_id": role.domain.map(domain_text),
        "description": role.description,
        "options": {},
        "links": { "self": own },
    })
}

#[derive(Debug, Deserialize)]
struct Input {
    role: Fields,
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
    fn change(self) -> RoleChange {
        RoleChange { name: self.name, description: self.description }
    }
}

async fn index(
    State(door): State<Door>,
    base: Base,
    query: Query,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let all = door.control().roles(&session, domain_filter(&query)?)?;
    Ok(Json(list("roles", all.iter().map(|r| view(&r.record, &base)).collect(), &base, &query)?))
}

async fn show(
    State(door): State<Door>,
    base: Base,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let found = door.control().role_for(&session, &id, "identity:get_role")?;
    Ok(Json(json!({ "role": view(&found.record, &base) })))
}

async fn create(
    State(door): State<Door>,
    base: Base,
    Bearer { session, .. }: Bearer,
    Body(input): Body<Input>,
) -> Result<Response> {
    let domain = input.role.domain_id.as_deref().map(listing::domain).transpose()?;
    let made = door.control().create_role(&session, domain, &input.role.change()).await?;
    let body = Json(json!({ "role": view(&made, &base) }));
    Ok(Deed::new("create", "role", made.id, &made.name).on((StatusCode::CREATED, body)))
}

async fn update(
    State(door): State<Door>,
    base: Base,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
    Body(input): Body<Input>,
) -> Result<Response> {
    let changed = door.control().change_role(&session, &id, &input.role.change()).await?;
    let body = Json(json!({ "role": view(&changed, &base) }));
    Ok(Deed::new("update", "role", changed.id, &changed.name).on(body))
}

async fn delete(
    State(door): State<Door>,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<StatusCode> {
    door.control().delete_role(&session, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A role in an inference.
fn short(role: &Role, base: &Base) -> Value {
    let own = base.link(&format!("/v3/roles/{}", role.id.hex()));
    json!({ "id": role.id.hex(), "name": role.name, "links": { "self": own } })
}

fn inference(door: &Door, role: &Role, base: &Base) -> Value {
    let implied = role.implies.iter().filter_map(|id| door.control().role(*id));
    let implied: Vec<Value> = implied.map(|r| short(&r.record, base)).collect();
    json!({ "prior_role": short(role, base), "implies": implied })
}

async fn implied(
    State(door): State<Door>,
    base: Base,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let found = door.control().role_for(&session, &id, "identity:list_implied_roles")?;
    let own = base.link(&format!("/v3/roles/{id}/implies"));
    Ok(Json(json!({ "role_inference": inference(&door, &found.record, &base), "links": { "self": own } })))
}

async fn inferences(
    State(door): State<Door>,
    base: Base,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    session.allow(session.looks(control::access::Realm::Cloud), "identity:list_role_inference_rules")?;
    let all = door.control().roles(&session, None)?;
    let rules: Vec<Value> = all
        .iter()
        .filter(|r| !r.record.implies.is_empty())
        .map(|r| inference(&door, &r.record, &base))
        .collect();
    Ok(Json(json!({ "role_inferences": rules, "links": { "self": base.link("/v3/role_inferences") } })))
}

fn one_inference(door: &Door, session: &Bearer, prior: &str, other: &str, base: &Base) -> Result<Value> {
    let rule = "identity:get_implied_role";
    let asker = &session.session;
    let found = door.control().role_for(asker, prior, rule)?;
    let implied = door.control().role_for(asker, other, rule)?;
    if !found.record.implies.contains(&implied.record.id) {
        return Err(missing("implied role", other).into());
    }
    let own = base.link(&format!("/v3/roles/{prior}/implies/{other}"));
    let inference =
        json!({ "prior_role": short(&found.record, base), "implies": short(&implied.record, base) });
    Ok(json!({ "role_inference": inference, "links": { "self": own } }))
}

async fn shows_implied(
    State(door): State<Door>,
    base: Base,
    Path((prior, other)): Path<(String, String)>,
    bearer: Bearer,
) -> Result<Json<Value>> {
    Ok(Json(one_inference(&door, &bearer, &prior, &other, &base)?))
}

async fn imply(
    State(door): State<Door>,
    base: Base,
    Path((prior, other)): Path<(String, String)>,
    bearer: Bearer,
) -> Result<(StatusCode, Json<Value>)> {
    door.control().change_implied(&bearer.session, &prior, &other, true).await?;
    Ok((StatusCode::CREATED, Json(one_inference(&door, &bearer, &prior, &other, &base)?)))
}

async fn imply_no_more(
    State(door): State<Door>,
    Path((prior, other)): Path<(String, String)>,
    Bearer { session, .. }: Bearer,
) -> Result<StatusCode> {
    door.control().change_implied(&session, &prior, &other, false).await?;
    Ok(StatusCode::NO_CONTENT)
}
