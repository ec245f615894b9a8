//! Domains.

use super::listing::{self, list};
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
use control::domain::DomainChange;
use model::domain::{Domain, domain_text};
use serde::Deserialize;
use serde_json::{Value, json};

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v3/domains", get(index).post(create))
        .route("/v3/domains/{id}", get(show).patch(update).delete(delete))
}

/// A domain.
pub fn view(domain: &Domain, base: &Base) -> Value {
    let id = domain_text(domain.id);
    let own = base.link(&format!("/v3/domains/{id}"));
    json!({
        "id": id,
        "name": domain.name,
        "description": domain.description,
        "enabled": domain.enabled,
        "tags": [],
        "options": {},
        "links": { "self": own },
    })
}

#[derive(Debug, Deserialize)]
struct Input {
    domain: Fields,
}

#[derive(Debug, Deserialize)]
struct Fields {
    #[serde(default)]
    name: Option<String>,
    #[serde(default, deserialize_with = "listing::maybe")]
    description: Option<Option<String>>,
    #[serde(default)]
    enabled: Option<bool>,
}

impl Fields {
    fn change(self) -> DomainChange {
        let description = self.description.map(Option::unwrap_or_default);
        DomainChange { name: self.name, description, enabled: self.enabled }
    }
}

async fn index(
    State(door): State<Door>,
    base: Base,
    query: Query,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let all = door.control().domains(&session)?;
    Ok(Json(list("domains", all.iter().map(|d| view(&d.record, &base)).collect(), &base, &query)?))
}

async fn show(
    State(door): State<Door>,
    base: Base,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let found = door.control().domain_for(&session, &id)?;
    Ok(Json(json!({ "domain": view(&found.record, &base) })))
}

async fn create(
    State(door): State<Door>,
    base: Base,
    Bearer { session, .. }: Bearer,
    Body(input): Body<Input>,
) -> Result<Response> {
    let made = door.control().create_domain(&session, &input.domain.change()).await?;
    let body = Json(json!({ "domain": view(&made, &base) }));
    Ok(Deed::new("create", "domain", domain_text(made.id), &made.name).on((StatusCode::CREATED, body)))
}

async fn update(
    State(door): State<Door>,
    base: Base,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
    Body(input): Body<Input>,
) -> Result<Response> {
    let changed = door.control().change_domain(&session, &id, &input.domain.change()).await?;
    let body = Json(json!({ "domain": view(&changed, &base) }));
    Ok(Deed::new("update", "domain", domain_text(changed.id), &changed.name).on(body))
}

async fn delete(
    State(door): State<Door>,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<StatusCode> {
    door.control().delete_domain(&session, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
