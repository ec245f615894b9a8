//! Domains.

use super::{
    listing,
    noun::{self, Noun},
};
use crate::openstack::{base::Base, door::Door, fault::Result, query::Query};
use crate::routing::Router;
use control::{Control, domain::DomainChange, session::Session};
use model::domain::{Domain, domain_text};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// The routes.
pub fn router() -> Router<Door> {
    noun::routes::<Domain>()
}

/// The body of a wish.
#[derive(Debug, Deserialize)]
pub struct Input {
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

impl Noun for Domain {
    const ONE: &'static str = "domain";
    const MANY: &'static str = "domains";
    type Input = Input;

    fn view(&self, base: &Base) -> Value {
        let id = domain_text(self.id);
        let own = base.link(&format!("/v3/domains/{id}"));
        json!({
            "id": id,
            "name": self.name,
            "description": self.description,
            "enabled": self.enabled,
            "tags": [],
            "options": {},
            "links": { "self": own },
        })
    }

    fn known_as(&self) -> (String, String) {
        (domain_text(self.id), self.name.to_string())
    }

    fn all(control: &Control, asker: &Session, _query: &Query) -> Result<Vec<Arc<Stored<Self>>>> {
        Ok(control.domains(asker)?)
    }

    fn find(control: &Control, asker: &Session, id: &str, _rule: &str) -> Result<Arc<Stored<Self>>> {
        Ok(control.domain_for(asker, id)?)
    }

    async fn create(control: &Control, asker: &Session, input: Input) -> Result<Self> {
        Ok(control.create_domain(asker, &input.domain.change()).await?)
    }

    async fn change(control: &Control, asker: &Session, id: &str, input: Input) -> Result<Self> {
        Ok(control.change_domain(asker, id, &input.domain.change()).await?)
    }

    async fn remove(control: &Control, asker: &Session, id: &str) -> Result<()> {
        Ok(control.delete_domain(asker, id).await?)
    }
}
