//! Users, and the change of one's own password.

use super::{
    listing::{self, domain_filter},
    noun::{self, Noun, listed},
};
use crate::openstack::{
    base::Base,
    body::Body,
    door::Door,
    fault::{Fault, Result},
    query::Query,
    session::Bearer,
};
use crate::routing::{Router, get, post};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use control::{Control, session::Session, user::UserChange};
use model::{
    domain::domain_text,
    user::{Options, User},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use store::Stored;

/// Fields that Keystone makes itself; in a wish they mean nothing.
const MADE_HERE: [&str; 4] = ["id", "links", "password_expires_at", "federated"];

/// The routes.
pub fn router() -> Router<Door> {
    noun::routes::<User>()
        .route("/v3/users/{id}/password", post(change_password))
        .route("/v3/users/{id}/projects", get(projects))
        .route("/v3/users/{id}/groups", get(groups))
}

/// The body of a wish.
#[derive(Debug, Deserialize)]
pub struct Input {
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

impl Noun for User {
    const ONE: &'static str = "user";
    const MANY: &'static str = "users";
    type Input = Input;

    fn view(&self, base: &Base) -> Value {
        let id = self.id.hex();
        let own = base.link(&format!("/v3/users/{id}"));
        let extra = self.extra.iter().map(|(key, value)| (key.clone(), value.clone()));
        let mut view: Map<String, Value> = extra.collect();
        let known = json!({
            "id": id,
            "name": self.name,
            "domain_id": domain_text(self.domain),
            "enabled": self.enabled,
            "password_expires_at": null,
            "options": self.options,
            "links": { "self": own },
        });
        if let Value::Object(known) = known {
            view.extend(known);
        }
        let optional = [
            ("description", self.description.clone()),
            ("email", self.email.clone()),
            ("default_project_id", self.default_project.map(|id| id.hex())),
        ];
        view.extend(optional.into_iter().filter_map(|(key, value)| Some((key.to_string(), json!(value?)))));
        Value::Object(view)
    }

    fn known_as(&self) -> (String, String) {
        (self.id.to_string(), self.name.to_string())
    }

    fn all(control: &Control, asker: &Session, query: &Query) -> Result<Vec<Arc<Stored<Self>>>> {
        Ok(control.users(asker, domain_filter(query)?)?)
    }

    fn find(control: &Control, asker: &Session, id: &str, rule: &str) -> Result<Arc<Stored<Self>>> {
        Ok(control.user_for(asker, id, rule)?)
    }

    async fn create(control: &Control, asker: &Session, input: Input) -> Result<Self> {
        let domain = listing::home(asker, input.user.domain_id.as_deref())?;
        Ok(control.create_user(asker, domain, &input.user.change()?).await?)
    }

    async fn change(control: &Control, asker: &Session, id: &str, input: Input) -> Result<Self> {
        if let Some(domain) = input.user.domain_id.as_deref() {
            let domain = listing::domain(domain)?;
            let found = control.user_for(asker, id, "identity:update_user")?;
            if domain != found.record.domain {
                return Err(Fault::invalid("A user stays in its domain."));
            }
        }
        Ok(control.change_user(asker, id, &input.user.change()?).await?)
    }

    async fn remove(control: &Control, asker: &Session, id: &str) -> Result<()> {
        Ok(control.delete_user(asker, id).await?)
    }
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
    listed(all, &base, &query)
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
    listed(all, &base, &query)
}
