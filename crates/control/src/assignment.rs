//! Who has which role where: given, taken, listed, and what follows from it.

use crate::{
    Control, Error, Result,
    access::{Realm, missing},
    session::{Scope, Session},
};
use model::{
    assignment::{Actor, Assignment, Target},
    error::Code,
    id::{DomainId, GroupId, ProjectId, RoleId, UserId},
    project::Project,
    record::Record,
    role::Role,
};
use std::{collections::BTreeSet, sync::Arc};
use store::{Stored, Tx};

/// Records that are removed by one transaction.
const DROPPED_AT_ONCE: usize = 100;

/// An actor or a place as a client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActorRef {
    /// A user by id.
    User(String),
    /// A group by id.
    Group(String),
}

/// Where a role holds, as a client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetRef {
    /// A project by id.
    Project(String),
    /// A domain by id.
    Domain(String),
    /// All projects of a domain, by its id.
    ProjectsOf(String),
    /// The cloud.
    System,
}

/// What a commit was refused for that needs something to be there.
pub(crate) fn gone_or(error: store::Error, noun: &str, id: &str) -> Error {
    match error {
        store::Error::Conflict { .. } => missing(noun, id),
        other => Error::new(Code::Unavailable, other),
    }
}

impl Control {
    /// Gives a role. Twice is once.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn grant(
        &self,
        asker: &Session,
        actor: &ActorRef,
        target: &TargetRef,
        role: &str,
    ) -> Result<()> {
        let assignment = self.meant(asker, actor, target, role, "identity:create_grant")?;
        let mut tx = Tx::new();
        tx.put(&assignment);
        tx.expect_exists::<Role>(&assignment.role.to_string());
        self.store.commit(tx).await.map(|_| ()).map_err(|e| gone_or(e, "role", role))
    }

    /// Takes a role.
    ///
    /// # Errors
    /// `forbidden`, `not_found` if it was not given.
    pub async fn revoke(
        &self,
        asker: &Session,
        actor: &ActorRef,
        target: &TargetRef,
        role: &str,
    ) -> Result<()> {
        let assignment = self.meant(asker, actor, target, role, "identity:revoke_grant")?;
        let key = assignment.key();
        if self.store.get::<Assignment>(&key).is_none() {
            return Err(missing("role assignment", role));
        }
        self.forget::<Assignment>(&key).await
    }

    /// Whether a role was given.
    ///
    /// # Errors
    /// `forbidden`, `not_found` if not.
    pub fn check_grant(
        &self,
        asker: &Session,
        actor: &ActorRef,
        target: &TargetRef,
        role: &str,
    ) -> Result<()> {
        let rule = "identity:check_grant";
        let (actor, target) = self.parties(asker, actor, target, rule)?;
        let role = self.role_for(asker, role, rule)?;
        let assignment = Assignment { actor, target, role: role.record.id };
        match self.store.get::<Assignment>(&assignment.key()) {
            Some(_) => Ok(()),
            None => Err(missing("role assignment", &role.record.id.hex())),
        }
    }

    /// The roles that were given to an actor in one place, without those that follow from them.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub fn grants(
        &self,
        asker: &Session,
        actor: &ActorRef,
        target: &TargetRef,
    ) -> Result<Vec<Arc<Stored<Role>>>> {
        let (actor, target) = self.parties(asker, actor, target, "identity:list_grants")?;
        let all = self.store.mirror().list_prefix::<Assignment>(&format!("{actor}/{target}/"));
        Ok(all.iter().filter_map(|a| self.role(a.record.role)).collect())
    }

    fn meant(
        &self,
        asker: &Session,
        actor: &ActorRef,
        target: &TargetRef,
        role: &str,
        rule: &str,
    ) -> Result<Assignment> {
        let (actor, target) = self.parties(asker, actor, target, rule)?;
        let role = self.role_for(asker, role, rule)?;
        let realm = self.realm_of(target);
        asker.allow(asker.gives(realm, &role.record), rule)?;
        let fits = match (role.record.domain, realm) {
            (None, _) => true,
            (Some(own), Realm::Domain(here)) => own == here,
            (Some(_), Realm::Cloud) => false,
        };
        if !fits {
            let message = "A role of a domain can be given inside of this domain alone.";
            return Err(Error::new(Code::Forbidden, message));
        }
        Ok(Assignment { actor, target, role: role.record.id })
    }

    /// Looks up who and where, for somebody who may look at both.
    fn parties(
        &self,
        asker: &Session,
        actor: &ActorRef,
        target: &TargetRef,
        rule: &str,
    ) -> Result<(Actor, Target)> {
        let actor = match actor {
            ActorRef::User(id) => Actor::User(self.user_in_sight(asker, id, rule)?),
            ActorRef::Group(id) => Actor::Group(self.group_for(asker, id, rule)?.record.id),
        };
        let target = match target {
            TargetRef::System => Target::System,
            TargetRef::Domain(id) => Target::Domain(self.domain_in_sight(asker, id, rule)?),
            TargetRef::ProjectsOf(id) => Target::ProjectsOf(self.domain_in_sight(asker, id, rule)?),
            TargetRef::Project(id) => {
                let found = id.parse::<ProjectId>().ok().and_then(|id| self.get::<Project>(id));
                let realm = found.as_ref().map_or(Realm::Cloud, |p| Realm::Domain(p.record.domain));
                asker.allow(asker.looks(realm), rule)?;
                Target::Project(found.ok_or_else(|| missing("project", id))?.record.meta.id)
            }
        };
        asker.allow(asker.looks(self.realm_of(target)), rule)?;
        Ok((actor, target))
    }

    fn user_in_sight(&self, asker: &Session, id: &str, rule: &str) -> Result<UserId> {
        let found = self.user_for(asker, id, rule)?;
        asker.allow(asker.looks(Realm::Domain(found.record.domain)), rule)?;
        Ok(found.record.id)
    }

    fn domain_in_sight(&self, asker: &Session, id: &str, rule: &str) -> Result<DomainId> {
        let found = model::domain::parse_domain(id).and_then(|id| self.domain(id));
        let realm = found.as_ref().map_or(Realm::Cloud, |d| Realm::Domain(d.record.id));
        asker.allow(asker.looks(realm), rule)?;
        Ok(found.ok_or_else(|| missing("domain", id))?.record.id)
    }

    fn realm_of(&self, target: Target) -> Realm {
        match target {
            Target::System => Realm::Cloud,
            Target::Domain(id) | Target::ProjectsOf(id) => Realm::Domain(id),
            Target::Project(id) => {
                self.get::<Project>(id).map_or(Realm::Cloud, |p| Realm::Domain(p.record.domain))
            }
        }
    }

    /// Refuses those who manage a domain alone to act on a user or group with a role that they could not give: they would
    /// have it by a password that they set, or by joining. `all` is what the user or group of the domain was given.
    ///
    /// # Errors
    /// `forbidden`.
    pub(crate) fn refuse_above(
        &self,
        asker: &Session,
        all: &[Assignment],
        domain: DomainId,
        rule: &str,
    ) -> Result<()> {
        let is_above = |given: &Assignment| {
            let role = self.role(given.role);
            let is_small = role.is_none_or(|role| crate::access::is_small(&role.record));
            !is_small || self.realm_of(given.target) != Realm::Domain(domain)
        };
        if asker.is_admin() || !all.iter().any(is_above) {
            return Ok(());
        }
        let refusal = crate::access::denied(rule);
        let message = format!(
            "{} It is about somebody with a role outside of the domain, or with another one than manager, member and \
             reader: admins of the cloud do that.",
            refusal.message
        );
        Err(Error { message, ..refusal })
    }

    /// All that was given to a group.
    pub(crate) fn assignments_of_group(&self, group: GroupId) -> Vec<Assignment> {
        let all = self.store.mirror().list_prefix::<Assignment>(&format!("{}/", Actor::Group(group)));
        all.iter().map(|a| a.record).collect()
    }

    /// All assignments that the session may see: of the cloud, of its domain, or of its project.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn assignments(&self, asker: &Session) -> Result<Vec<Assignment>> {
        let all = self.store.list::<Assignment>();
        let own = asker.project().filter(|_| asker.has_role(model::role::MANAGER));
        let own = own.map(|p| Target::Project(p.record.meta.id));
        let is_domain = matches!(asker.place, crate::session::Place::Domain(_));
        let looks =
            asker.looks(Realm::Cloud) || own.is_some() || is_domain && asker.has_role(model::role::READER);
        asker.allow(looks, "identity:list_role_assignments")?;
        let sees = |a: &Assignment| asker.looks(self.realm_of(a.target)) || own == Some(a.target);
        Ok(all.iter().map(|a| a.record).filter(sees).collect())
    }

    /// Projects in which a user has a role.
    pub fn projects_of(&self, user: UserId) -> Vec<Arc<Stored<Project>>> {
        let targets: BTreeSet<String> =
            self.assignments_of(user).iter().map(|a| a.target.to_string()).collect();
        let mut all = self.store.list::<Project>();
        all.retain(|p| {
            let (id, domain) = (p.record.meta.id, p.record.domain);
            [Target::Project(id), Target::ProjectsOf(domain)].iter().any(|t| targets.contains(&t.to_string()))
        });
        all.sort_by(|a, b| a.record.meta.name.cmp(&b.record.meta.name));
        all
    }

    /// Domains in which a user has a role.
    pub fn domains_of(&self, user: UserId) -> Vec<Arc<Stored<model::domain::Domain>>> {
        let ids: BTreeSet<DomainId> = self
            .assignments_of(user)
            .iter()
            .filter_map(|a| if let Target::Domain(id) = a.target { Some(id) } else { None })
            .collect();
        ids.into_iter().filter_map(|id| self.domain(id)).collect()
    }

    /// Whether a user has a role in the whole cloud.
    pub fn has_system_role(&self, user: UserId) -> bool {
        !self.effective_roles(user, Scope::System).is_empty()
    }

    /// Removes all assignments of a kind, some at a time: what is left of a crash in between is removed by doing it
    /// again, and means nothing meanwhile.
    pub(crate) async fn drop_assignments(&self, which: impl Fn(&Assignment) -> bool) -> Result<()> {
        let all = self.store.list::<Assignment>();
        let keys: Vec<String> = all.iter().filter(|a| which(&a.record)).map(|a| a.record.key()).collect();
        for some in keys.chunks(DROPPED_AT_ONCE) {
            let mut tx = Tx::new();
            for key in some {
                tx.remove::<Assignment>(key);
            }
            self.store.commit(tx).await.map_err(|e| Error::new(Code::Unavailable, e))?;
        }
        Ok(())
    }

    /// A role by id.
    pub fn role(&self, id: RoleId) -> Option<Arc<Stored<Role>>> {
        self.store.get::<Role>(&id.to_string())
    }
}
