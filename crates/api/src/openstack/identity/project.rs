//! Projects: holm's own, as Keystone shows them.
//!
//! A project made here starts with its default security group and no network: OpenStack's tools make their own.

use super::{
    listing::{self, domain_filter},
    noun::{self, Noun},
};
use crate::openstack::{
    base::Base,
    body::Body,
    door::Door,
    fault::{Fault, Result},
    query::Query,
    session::Bearer,
};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use control::{Control, access::missing, project::ProjectChange, session::Session};
use model::{
    domain::{domain_text, parse_domain},
    id::DomainId,
    project::Project,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};
use store::Stored;

/// The routes.
pub fn router() -> Router<Door> {
    noun::routes::<Project>()
        .route("/v3/projects/{id}/tags", get(tags).put(set_tags).delete(clear_tags))
        .route("/v3/projects/{id}/tags/{tag}", get(has_tag).put(add_tag).delete(remove_tag))
}

/// The body of a wish.
#[derive(Debug, Deserialize)]
pub struct Input {
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

impl Noun for Project {
    const ONE: &'static str = "project";
    const MANY: &'static str = "projects";
    type Input = Input;

    fn view(&self, base: &Base) -> Value {
        let meta = &self.meta;
        let domain = domain_text(self.domain);
        let own = base.link(&format!("/v3/projects/{}", meta.id.hex()));
        json!({
            "id": meta.id.hex(),
            "name": meta.name,
            "domain_id": domain,
            "parent_id": domain,
            "description": meta.description,
            "enabled": self.enabled,
            "is_domain": false,
            "tags": self.tags,
            "options": {},
            "links": { "self": own },
        })
    }

    fn known_as(&self) -> (String, String) {
        (self.meta.id.to_string(), self.meta.name.to_string())
    }

    fn all(control: &Control, asker: &Session, query: &Query) -> Result<Vec<Arc<Stored<Self>>>> {
        Ok(control.tenants(asker, domain_filter(query)?)?)
    }

    fn find(control: &Control, asker: &Session, id: &str, rule: &str) -> Result<Arc<Stored<Self>>> {
        Ok(control.tenant_for(asker, id, rule)?)
    }

    async fn create(control: &Control, asker: &Session, input: Input) -> Result<Self> {
        let domain = input.project.domain()?.unwrap_or_else(|| asker.home_domain());
        Ok(control.create_tenant(asker, domain, &input.project.change()).await?)
    }

    async fn change(control: &Control, asker: &Session, id: &str, input: Input) -> Result<Self> {
        let domain = input.project.domain()?;
        let found = control.tenant_for(asker, id, "identity:update_project")?;
        if domain.is_some_and(|domain| domain != found.record.domain) {
            return Err(Fault::invalid("A project stays in its domain."));
        }
        Ok(control.change_tenant(asker, id, &input.project.change()).await?)
    }

    async fn remove(control: &Control, asker: &Session, id: &str) -> Result<()> {
        Ok(control.delete_tenant(asker, id).await?)
    }
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
