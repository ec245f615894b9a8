//! Roles: which a user has where, by itself or by its groups, given or implied.

use crate::{
    Control, Error, Result,
    access::{Realm, missing},
    domain::parse_name,
    session::{Scope, Session},
};
use model::{
    assignment::{Actor, Assignment, Target},
    error::Code,
    group::Membership,
    id::{DomainId, GroupId, RoleId, UserId},
    role::{DEFAULT_ROLES, Role, with_implied},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::Stored;

/// What may be said of a role; what is not said stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleChange {
    /// Name.
    pub name: Option<String>,
    /// Free text, or its removal.
    pub description: Option<Option<String>>,
}

fn scope(domain: Option<DomainId>) -> String {
    domain.map_or("name/role".to_string(), |domain| format!("name/role/{domain}"))
}

impl Control {
    /// Roles of the whole cloud, or those of a domain: all who give roles may see them.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn roles(&self, asker: &Session, domain: Option<DomainId>) -> Result<Vec<Arc<Stored<Role>>>> {
        self.check_sees_roles(asker, domain, "identity:list_roles")?;
        let mut all = self.store.list::<Role>();
        all.retain(|r| r.record.domain == domain);
        all.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        Ok(all)
    }

    fn check_sees_roles(&self, asker: &Session, domain: Option<DomainId>, rule: &str) -> Result<()> {
        let manages = matches!(&asker.place, crate::session::Place::Domain(own)
            if domain.is_none_or(|d| d == own.record.id) && asker.has_role(model::role::MANAGER));
        asker.allow(asker.looks(domain.map_or(Realm::Cloud, Realm::Domain)) || manages, rule)
    }

    /// A role that the session may see.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub fn role_for(&self, asker: &Session, id: &str, rule: &str) -> Result<Arc<Stored<Role>>> {
        let found = id.parse::<RoleId>().ok().and_then(|id| self.role(id));
        self.check_sees_roles(asker, found.as_ref().and_then(|r| r.record.domain), rule)?;
        found.ok_or_else(|| missing("role", id))
    }

    /// Makes a role. It means something to holm only by the roles that it implies.
    ///
    /// # Errors
    /// `forbidden`, `invalid`, `taken`.
    pub async fn create_role(
        &self,
        asker: &Session,
        domain: Option<DomainId>,
        wish: &RoleChange,
    ) -> Result<Role> {
        asker.allow(asker.manages(Realm::Cloud), "identity:create_role")?;
        let name = wish.name.as_deref().ok_or_else(|| Error::invalid("name", "a role needs a name"))?;
        domain.map_or(Ok(()), |domain| self.require_domain(domain))?;
        let role = Role {
            id: RoleId::from_random(rand::random()),
            name: parse_name(name)?,
            domain,
            description: wish.description.clone().flatten(),
            implies: BTreeSet::new(),
            created_at: self.now(),
        };
        self.add_role(&role).await?;
        Ok(role)
    }

    async fn add_role(&self, role: &Role) -> Result<()> {
        self.transact(|tx| {
            tx.claim(&scope(role.domain), role.name.as_str(), &role.id.to_string());
            tx.raw().create(role);
            Ok(())
        })
        .await
    }

    /// Changes a role. The four that the cloud is made with keep their names.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `invalid`, `taken`.
    pub async fn change_role(&self, asker: &Session, id: &str, wish: &RoleChange) -> Result<Role> {
        let rule = "identity:update_role";
        asker.allow(asker.manages(Realm::Cloud), rule)?;
        self.transact(|tx| {
            let found = self.role_for(asker, id, rule)?;
            let mut next = found.record.clone();
            if let Some(name) = &wish.name {
                next.name = parse_name(name)?;
            }
            next.description = wish.description.clone().unwrap_or(next.description);
            let owner = next.id.to_string();
            if next.name != found.record.name {
                refuse_default(&found.record)?;
                tx.release(&scope(next.domain), found.record.name.as_str(), &owner);
                tx.claim(&scope(next.domain), next.name.as_str(), &owner);
            }
            tx.raw().update(&next, found.mod_revision);
            Ok(next)
        })
        .await
    }

    /// Removes a role from everyone who has it.
    ///
    /// # Errors
    /// `forbidden` for the four that the cloud is made with, `not_found`.
    pub async fn delete_role(&self, asker: &Session, id: &str) -> Result<()> {
        let rule = "identity:delete_role";
        asker.allow(asker.manages(Realm::Cloud), rule)?;
        let found = self.role_for(asker, id, rule)?;
        refuse_default(&found.record)?;
        self.drop_role(found.record.id).await
    }

    pub(crate) async fn drop_role(&self, id: RoleId) -> Result<()> {
        self.drop_assignments(|a| a.role == id).await?;
        for other in self.store.list::<Role>().iter().filter(|r| r.record.implies.contains(&id)) {
            self.imply(other.record.id, id, false).await?;
        }
        self.transact(|tx| {
            if let Some(found) = self.role(id) {
                tx.release(&scope(found.record.domain), found.record.name.as_str(), &id.to_string());
                tx.raw().delete::<Role>(&id.to_string(), found.mod_revision);
            }
            Ok(())
        })
        .await
    }

    /// Lets a role bring another, or not any more. The role admin is brought by none.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn change_implied(&self, asker: &Session, prior: &str, implied: &str, on: bool) -> Result<()> {
        let rule = if on { "identity:create_implied_role" } else { "identity:delete_implied_role" };
        asker.allow(asker.manages(Realm::Cloud), rule)?;
        let prior = self.role_for(asker, prior, rule)?;
        let brought = self.role_for(asker, implied, rule)?;
        if on && brought.record.domain.is_none() && brought.record.name.as_str() == model::role::ADMIN {
            return Err(Error::new(Code::Forbidden, "The role admin cannot be implied by another role."));
        }
        if !on && !prior.record.implies.contains(&brought.record.id) {
            return Err(missing("implied role", implied));
        }
        self.imply(prior.record.id, brought.record.id, on).await
    }

    async fn imply(&self, prior: RoleId, implied: RoleId, on: bool) -> Result<()> {
        self.transact(|tx| {
            let Some(found) = self.role(prior) else { return Ok(()) };
            let mut next = found.record.clone();
            if on {
                next.implies.insert(implied);
            } else {
                next.implies.remove(&implied);
            }
            tx.raw().update(&next, found.mod_revision);
            Ok(())
        })
        .await
    }

    /// The roles of a user in a scope, implied ones included, by name.
    pub fn effective_roles(&self, user: UserId, scope: Scope) -> Vec<Arc<Stored<Role>>> {
        let given: Vec<RoleId> = self
            .assignments_of(user)
            .into_iter()
            .filter(|a| self.holds_in(a.target, scope))
            .map(|a| a.role)
            .collect();
        let mut roles: Vec<_> = self
            .implied(given)
            .into_iter()
            .filter_map(|id| self.store.get::<Role>(&id.to_string()))
            .collect();
        roles.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        roles
    }

    /// Roles with all that they imply.
    pub fn implied(&self, given: impl IntoIterator<Item = RoleId>) -> BTreeSet<RoleId> {
        let all = self.store.list::<Role>();
        let implies: BTreeMap<_, _> = all.iter().map(|r| (r.record.id, r.record.implies.clone())).collect();
        with_implied(given, &implies)
    }

    /// All that was given to a user and to its groups.
    pub fn assignments_of(&self, user: UserId) -> Vec<Assignment> {
        let mut actors = vec![Actor::User(user)];
        actors.extend(self.groups_of(user).into_iter().map(Actor::Group));
        let mirror = self.store.mirror();
        let lists = actors.iter().map(|actor| mirror.list_prefix::<Assignment>(&format!("{actor}/")));
        lists.flatten().map(|a| a.record).collect()
    }

    /// The groups that a user is in.
    pub fn groups_of(&self, user: UserId) -> Vec<GroupId> {
        let all = self.store.mirror().list_prefix::<Membership>(&format!("{user}/"));
        all.iter().map(|m| m.record.group).collect()
    }

    fn holds_in(&self, target: Target, scope: Scope) -> bool {
        match (target, scope) {
            (Target::Project(at), Scope::Project(here)) => at == here,
            (Target::Domain(at), Scope::Domain(here)) => at == here,
            (Target::System, Scope::System) => true,
            (Target::ProjectsOf(domain), Scope::Project(here)) => self
                .get::<model::project::Project>(here)
                .is_some_and(|project| project.record.domain == domain),
            _ => false,
        }
    }

    /// A role of the whole cloud by its name.
    pub fn role_named(&self, name: &str) -> Option<Arc<Stored<Role>>> {
        let all = self.store.list::<Role>();
        all.into_iter().find(|r| r.record.domain.is_none() && r.record.name.as_str() == name)
    }

    /// Makes those of the four roles that are missing.
    pub(crate) async fn begin_roles(&self) -> Result<()> {
        for (name, implied) in DEFAULT_ROLES {
            if self.role_named(name).is_some() {
                continue;
            }
            let implies = implied.and_then(|name| self.role_named(name)).map(|r| r.record.id);
            let role = Role {
                id: RoleId::from_random(rand::random()),
                name: parse_name(name)?,
                domain: None,
                description: None,
                implies: implies.into_iter().collect(),
                created_at: self.now(),
            };
            self.add_role(&role).await?;
        }
        Ok(())
    }

    /// Gives a role. Giving it twice is giving it once.
    pub(crate) async fn assign(&self, assignment: Assignment) -> Result<()> {
        let mut tx = store::Tx::new();
        tx.put(&assignment);
        self.store.commit(tx).await.map(|_| ()).map_err(|e| Error::new(Code::Unavailable, e))
    }
}

fn refuse_default(role: &Role) -> Result<()> {
    let is_default =
        role.domain.is_none() && DEFAULT_ROLES.iter().any(|(name, _)| *name == role.name.as_str());
    if !is_default {
        return Ok(());
    }
    let message = format!("The role {} is what holm's own rules are made of: it stays.", role.name);
    Err(Error::new(Code::Forbidden, message))
}
