//! Domains: made and changed by admins. A domain goes with all that is in it, once it is disabled.

use crate::{
    Control, Error, Result,
    access::{Realm, denied, missing},
    session::{Place, Session},
};
use model::{
    assignment::{Assignment, Target},
    domain::{Domain, domain_text, parse_domain},
    error::Code,
    group::Group,
    id::DomainId,
    name::Name,
    project::Project,
    role::Role,
    user::User,
};
use std::sync::Arc;
use store::Stored;

/// What may be said of a domain; what is not said stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DomainChange {
    /// Name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Whether anybody may log in and work in it.
    pub enabled: Option<bool>,
}

impl DomainChange {
    fn apply(&self, domain: &mut Domain) -> Result<()> {
        if let Some(name) = &self.name {
            domain.name = parse_name(name)?;
        }
        domain.description = self.description.clone().unwrap_or_else(|| domain.description.clone());
        domain.enabled = self.enabled.unwrap_or(domain.enabled);
        Ok(())
    }
}

/// A name that was given.
pub(crate) fn parse_name(name: &str) -> Result<Name> {
    name.parse().map_err(|e| Error::invalid("name", e))
}

const SCOPE: &str = "name/domain";

impl Control {
    /// The domains that the session may see: all, or the one that it works in.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn domains(&self, asker: &Session) -> Result<Vec<Arc<Stored<Domain>>>> {
        let mut all = self.store.list::<Domain>();
        if !asker.looks(Realm::Cloud) {
            let own = match &asker.place {
                Place::Domain(domain) => domain.record.id,
                _ => return Err(denied("identity:list_domains")),
            };
            all.retain(|d| d.record.id == own);
        }
        all.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        Ok(all)
    }

    /// A domain that the session may see: its own, its project's, or any for those who look at the cloud.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub fn domain_for(&self, asker: &Session, id: &str) -> Result<Arc<Stored<Domain>>> {
        let own = match &asker.place {
            Place::Domain(domain) | Place::Project(_, domain) => Some(domain.record.id),
            _ => None,
        };
        let found = parse_domain(id).and_then(|id| self.domain(id));
        let sees = asker.looks(Realm::Cloud)
            || found
                .as_ref()
                .is_some_and(|d| Some(d.record.id) == own || asker.looks(Realm::Domain(d.record.id)));
        asker.allow(sees, "identity:get_domain")?;
        found.ok_or_else(|| missing("domain", id))
    }

    /// Refuses what would be in a domain that is not there.
    pub(crate) fn require_domain(&self, id: DomainId) -> Result<()> {
        self.domain(id).map(|_| ()).ok_or_else(|| missing("domain", &domain_text(id)))
    }

    /// Makes a domain.
    ///
    /// # Errors
    /// `forbidden`, `invalid`, `taken`.
    pub async fn create_domain(&self, asker: &Session, wish: &DomainChange) -> Result<Domain> {
        asker.allow(asker.manages(Realm::Cloud), "identity:create_domain")?;
        let name = wish.name.as_deref().ok_or_else(|| Error::invalid("name", "a domain needs a name"))?;
        let mut domain = Domain {
            id: DomainId::from_random(rand::random()),
            name: parse_name(name)?,
            description: String::new(),
            enabled: true,
            created_at: self.now(),
        };
        wish.apply(&mut domain)?;
        self.transact(|tx| {
            tx.claim(SCOPE, domain.name.as_str(), &domain.id.to_string());
            tx.raw().create(&domain);
            Ok(domain.clone())
        })
        .await
    }

    /// Changes a domain.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `invalid`, `taken`; the default domain stays enabled.
    pub async fn change_domain(&self, asker: &Session, id: &str, wish: &DomainChange) -> Result<Domain> {
        asker.allow(asker.manages(Realm::Cloud), "identity:update_domain")?;
        self.transact(|tx| {
            let found = self.domain_for(asker, id)?;
            let mut next = found.record.clone();
            wish.apply(&mut next)?;
            if next.id == DomainId::DEFAULT && !next.enabled {
                return Err(Error::new(Code::Forbidden, "The default domain cannot be disabled."));
            }
            let owner = next.id.to_string();
            if next.name != found.record.name {
                tx.release(SCOPE, found.record.name.as_str(), &owner);
                tx.claim(SCOPE, next.name.as_str(), &owner);
            }
            tx.raw().update(&next, found.mod_revision);
            Ok(next)
        })
        .await
    }

    /// Removes a disabled domain with its users, groups, roles and projects.
    ///
    /// # Errors
    /// `forbidden` while it is enabled, `in_use` while a project has something, `not_found`.
    pub async fn delete_domain(&self, asker: &Session, id: &str) -> Result<()> {
        asker.allow(asker.manages(Realm::Cloud), "identity:delete_domain")?;
        let found = self.domain_for(asker, id)?;
        let domain = found.record.id;
        if found.record.enabled {
            let message = "Cannot delete a domain that is enabled, please disable it first.";
            return Err(Error::new(Code::Forbidden, message));
        }
        for project in self.store.list::<Project>().iter().filter(|p| p.record.domain == domain) {
            self.remove_project(asker, project).await?;
        }
        for user in self.store.list::<User>().iter().filter(|u| u.record.domain == domain) {
            self.drop_user(user.record.id).await?;
        }
        for group in self.store.list::<Group>().iter().filter(|g| g.record.domain == domain) {
            self.drop_group(group.record.id).await?;
        }
        for role in self.store.list::<Role>().iter().filter(|r| r.record.domain == Some(domain)) {
            self.drop_role(role.record.id).await?;
        }
        let here = [Target::Domain(domain), Target::ProjectsOf(domain)];
        self.drop_assignments(|a: &Assignment| here.contains(&a.target)).await?;
        self.transact(|tx| {
            let Some(found) = self.domain(domain) else {
                return Err(missing("domain", &domain_text(domain)));
            };
            tx.release(SCOPE, found.record.name.as_str(), &domain.to_string());
            tx.raw().delete::<Domain>(&domain.to_string(), found.mod_revision);
            Ok(())
        })
        .await
    }
}
