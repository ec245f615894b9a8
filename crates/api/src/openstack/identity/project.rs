//! Projects: holm's own, as Keystone shows them.
//!
//! A project made here starts with its default security group and no network: OpenStack's tools make their own.

use super::listing::{self, domain_filter, list};
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
    routing::get,
};
use control::{access::missing, project::ProjectChange};
use model::{
    domain::{domain_text, parse_domain},
    id::DomainId,
    project::Project,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v3/projects", get(index).post(create))
        .route("/v3/projects/{id}", get(show).patch(update).delete(delete))
        .route("/v3/projects/{id}/tags", get(tags).put(set_tags).delete(clear_tags))
        .route("/v3/projects/{id}/tags/{tag}", get(has_tag).put(add_tag).delete(remove_tag))
}

/// A project.
pub fn view(project: &Project, base: &Base) -> Value {
    let meta = &project.meta;
    let domain = domain_text(project.domain);
    let own = base.link(&format!("/v3/projects/{}", meta.id.hex()));
    json!({
        "id": meta.id.hex(),
        "name": meta.name,
        "domain_id": domain,
        "parent_id": domain,
        "description": meta.description,
        "enabled": project.enabled,
        "is_domain": false,
        "tags": project.tags,
        "options": {},
        "links": { "self": own },
    })
}

#[derive(Debug, Deserialize)]
struct Input {
    project: Fields,
}

#[derive(Debug, Deserialize)]
struct Fields {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    domain_id: Option<String>,
    #[serde(default)]
    parent_id: Option<String>,
    #[serde(default, deserialize_with = "listing::maybe")]
    description: Option<Option<String>>,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    is_domain: Option<bool>,
    #[serde(default)]
    tags: Option<BTreeSet<String>>,
}

impl Fields {
    /// The domain that a new project is wished for: its parent, if one is named, is a domain too.
    fn domain(&self) -> Result<Option<DomainId>> {
        if self.is_domain == Some(true) {
            return Err(Fault::invalid("A project cannot act as a domain here: make a domain."));
        }
        let domain = self.domain_id.as_deref().map(listing::domain).transpose()?;
        match self.parent_id.as_deref() {
            None => Ok(domain),
            Some(parent) => {
                let parent = parse_domain(parent).ok_or_else(|| Fault::from(missing("project", parent)))?;
                Ok(Some(domain.unwrap_or(parent)))
            }
        }
    }

    fn change(self) -> ProjectChange {
        ProjectChange {
            name: self.name,
            description: self.description.map(Option::unwrap_or_default),
            enabled: self.enabled,
            tags: self.tags,
        }
    }
}

async fn index(
    State(door): State<Door>,
    base: Base,
    query: Query,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let all = door.control().tenants(&session, domain_filter(&query)?)?;
    Ok(Json(list("projects", all.iter().map(|p| view(&p.record, &base)).collect(), &base, &query)?))
}

async fn show(
    State(door): State<Door>,
    base: Base,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let found = door.control().tenant_for(&session, &id, "identity:get_project")?;
    Ok(Json(json!({ "project": view(&found.record, &base) })))
}

async fn create(
    State(door): State<Door>,
    base: Base,
    Bearer { session, .. }: Bearer,
    Body(input): Body<Input>,
) -> Result<Response> {
    let domain = match input.project.domain()? {
        Some(domain) => domain,
        None => session.home_domain(),
    };
    let made = door.control().create_tenant(&session, domain, &input.project.change()).await?;
    let body = Json(json!({ "project": view(&made, &base) }));
    Ok(Deed::new("create", "project", made.meta.id, &made.meta.name).on((StatusCode::CREATED, body)))
}

async fn update(
    State(door): State<Door>,
    base: Base,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
    Body(input): Body<Input>,
) -> Result<Response> {
    let domain = input.project.domain()?;
    let found = door.control().tenant_for(&session, &id, "identity:update_project")?;
    if domain.is_some_and(|domain| domain != found.record.domain) {
        return Err(Fault::invalid("A project stays in its domain."));
    }
    let changed = door.control().change_tenant(&session, &id, &input.project.change()).await?;
    let body = Json(json!({ "project": view(&changed, &base) }));
    Ok(Deed::new("update", "project", changed.meta.id, &changed.meta.name).on(body))
}

async fn delete(
    State(door): State<Door>,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<StatusCode> {
    door.control().delete_tenant(&session, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn tags(
    State(door): State<Door>,
    base: Base,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let found = door.control().tenant_for(&session, &id, "identity:list_project_tags")?;
    let own = base.link(&format!("/v3/projects/{id}/tags"));
    Ok(Json(json!({ "tags": found.record.tags, "links": { "self": own } })))
}

#[derive(Debug, Deserialize)]
struct Tags {
    tags: BTreeSet<String>,
}

async fn set_tags(
    State(door): State<Door>,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
    Body(input): Body<Tags>,
) -> Result<Json<Value>> {
    let tags = input.tags;
    let changed = door.control().change_tags(&session, &id, |all| *all = tags.clone()).await?;
    Ok(Json(json!({ "tags": changed.tags })))
}

async fn clear_tags(
    State(door): State<Door>,
    Path(id): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<StatusCode> {
    door.control().change_tags(&session, &id, BTreeSet::clear).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn has_tag(
    State(door): State<Door>,
    Path((id, tag)): Path<(String, String)>,
    Bearer { session, .. }: Bearer,
) -> Result<StatusCode> {
    let found = door.control().tenant_for(&session, &id, "identity:get_project_tag")?;
    if found.record.tags.contains(&tag) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(missing("tag", &tag).into())
    }
}

async fn add_tag(
    State(door): State<Door>,
    Path((id, tag)): Path<(String, String)>,
    Bearer { session, .. }: Bearer,
) -> Result<StatusCode> {
    door.control()
        .change_tags(&session, &id, |all| {
            all.insert(tag.clone());
        })
        .await?;
    Ok(StatusCode::CREATED)
}

async fn remove_tag(
    State(door): State<Door>,
    Path((id, tag)): Path<(String, String)>,
    Bearer { session, .. }: Bearer,
) -> Result<StatusCode> {
    let found = door.control().tenant_for(&session, &id, "identity:delete_project_tag")?;
    if !found.record.tags.contains(&tag) {
        return Err(missing("tag", &tag).into());
    }
    door.control()
        .change_tags(&session, &id, |all| {
            all.remove(&tag);
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
