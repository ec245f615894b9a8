//! Groups and who is in them.

use super::{
    listing::{self, domain_filter},
    noun::{self, Noun, listed},
};
use crate::openstack::{audit::Deed, base::Base, door::Door, fault::Result, query::Query, session::Bearer};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::{Control, group::GroupChange, session::Session};
use model::{domain::domain_text, group::Group};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// The routes.
pub fn router() -> Router<Door> {
    noun::routes::<Group>()
        .route("/v3/groups/{id}/users", get(members))
        .route("/v3/groups/{id}/users/{user}", get(is_member).put(join).delete(leave))
}

/// The body of a wish.
#[derive(Debug, Deserialize)]
pub struct Input {
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

impl Noun for Group {
    const ONE: &'static str = "group";
    const MANY: &'static str = "groups";
    type Input = Input;

    fn view(&self, base: &Base) -> Value {
        let id = self.id.hex();
        let own = base.link(&format!("/v3/groups/{id}"));
        json!({
            "id": id,
            "name": self.name,
            "domain_id": domain_text(self.domain),
            "description": self.description,
            "links": { "self": own },
        })
    }

    fn known_as(&self) -> (String, String) {
        (self.id.to_string(), self.name.to_string())
    }

    fn all(control: &Control, asker: &Session, query: &Query) -> Result<Vec<Arc<Stored<Self>>>> {
        Ok(control.groups(asker, domain_filter(query)?)?)
    }

    fn find(control: &Control, asker: &Session, id: &str, rule: &str) -> Result<Arc<Stored<Self>>> {
        Ok(control.group_for(asker, id, rule)?)
    }

    async fn create(control: &Control, asker: &Session, input: Input) -> Result<Self> {
        let domain = listing::home(asker, input.group.domain_id.as_deref())?;
        Ok(control.create_group(asker, domain, &input.group.change()).await?)
    }

    async fn change(control: &Control, asker: &Session, id: &str, input: Input) -> Result<Self> {
        Ok(control.change_group(asker, id, &input.group.change()).await?)
    }

    async fn remove(control: &Control, asker: &Session, id: &str) -> Result<()> {
        Ok(control.delete_group(asker, id).await?)
    }
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
    listed(all, &base, &query)
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
