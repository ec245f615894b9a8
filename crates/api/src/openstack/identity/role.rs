//! Roles, and which bring which others.

use super::{
    listing::{self, domain_filter},
    noun::{self, Noun},
};
use crate::openstack::{base::Base, door::Door, fault::Result, query::Query, session::Bearer};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use control::{Control, access::missing, role::RoleChange, session::Session};
use model::{domain::domain_text, role::Role};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// The routes.
pub fn router() -> Router<Door> {
    noun::routes::<Role>()
        .route("/v3/roles/{id}/implies", get(implied))
        .route("/v3/roles/{id}/implies/{other}", get(shows_implied).put(imply).delete(imply_no_more))
        .route("/v3/role_inferences", get(inferences))
}

/// The body of a wish.
#[derive(Debug, Deserialize)]
pub struct Input {
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

impl Noun for Role {
    const ONE: &'static str = "role";
    const MANY: &'static str = "roles";
    type Input = Input;

    fn view(&self, base: &Base) -> Value {
        let id = self.id.hex();
        let own = base.link(&format!("/v3/roles/{id}"));
        json!({
            "id": id,
            "name": self.name,
            "domain_id": self.domain.map(domain_text),
            "description": self.description,
            "options": {},
            "links": { "self": own },
        })
    }

    fn known_as(&self) -> (String, String) {
        (self.id.to_string(), self.name.to_string())
    }

    fn all(control: &Control, asker: &Session, query: &Query) -> Result<Vec<Arc<Stored<Self>>>> {
        Ok(control.roles(asker, domain_filter(query)?)?)
    }

    fn find(control: &Control, asker: &Session, id: &str, rule: &str) -> Result<Arc<Stored<Self>>> {
        Ok(control.role_for(asker, id, rule)?)
    }

    async fn create(control: &Control, asker: &Session, input: Input) -> Result<Self> {
        let domain = input.role.domain_id.as_deref().map(listing::domain).transpose()?;
        Ok(control.create_role(asker, domain, &input.role.change()).await?)
    }

    async fn change(control: &Control, asker: &Session, id: &str, input: Input) -> Result<Self> {
        Ok(control.change_role(asker, id, &input.role.change()).await?)
    }

    async fn remove(control: &Control, asker: &Session, id: &str) -> Result<()> {
        Ok(control.delete_role(asker, id).await?)
    }
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
