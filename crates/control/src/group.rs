//! Groups and who is in them.

use crate::{
    Control, Error, Result,
    access::{Realm, missing},
    assignment::gone_or,
    domain::parse_name,
    session::Session,
};
use model::{
    assignment::Actor,
    error::Code,
    group::{Group, Membership},
    id::{DomainId, GroupId, UserId},
    record::Record,
    user::User,
};
use std::sync::Arc;
use store::{Stored, Tx};

/// What may be said of a group; what is not said stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupChange {
    /// Name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
}

fn scope(domain: DomainId) -> String {
    format!("name/group/{domain}")
}

impl Control {
    /// The groups that the session may see.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn groups(&self, asker: &Session, domain: Option<DomainId>) -> Result<Vec<Arc<Stored<Group>>>> {
        self.check_looks(asker, domain, "identity:list_groups")?;
        let mut all = self.store.list::<Group>();
        all.retain(|g| asker.looks(Realm::Domain(g.record.domain)));
        all.retain(|g| domain.is_none_or(|d| g.record.domain == d));
        all.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        Ok(all)
    }

    /// A group that the session may see.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub fn group_for(&self, asker: &Session, id: &str, rule: &str) -> Result<Arc<Stored<Group>>> {
        let found = id.parse::<GroupId>().ok().and_then(|id| self.store.get::<Group>(&id.to_string()));
        let realm = found.as_ref().map_or(Realm::Cloud, |g| Realm::Domain(g.record.domain));
        asker.allow(asker.looks(realm), rule)?;
        found.ok_or_else(|| missing("group", id))
    }

    /// Makes a group.
    ///
    /// # Errors
    /// `forbidden`, `invalid`, `taken`.
    pub async fn create_group(&self, asker: &Session, domain: DomainId, wish: &GroupChange) -> Result<Group> {
        asker.allow(asker.manages(Realm::Domain(domain)), "identity:create_group")?;
        let name = wish.name.as_deref().ok_or_else(|| Error::invalid("name", "a group needs a name"))?;
        let group = Group {
            id: GroupId::from_random(rand::random()),
            domain,
            name: parse_name(name)?,
            description: wish.description.clone().unwrap_or_default(),
            created_at: self.now(),
        };
        self.transact(|tx| {
            self.require_domain(domain)?;
            tx.claim(&scope(domain), group.name.as_str(), &group.id.to_string());
            tx.raw().create(&group).expect_exists::<model::domain::Domain>(&domain.to_string());
            Ok(group.clone())
        })
        .await
    }

    /// Lets those through who may change a group or say who is in it.
    fn allow_on_group(&self, asker: &Session, group: &Group, rule: &str) -> Result<()> {
        asker.allow(asker.manages(Realm::Domain(group.domain)), rule)?;
        self.refuse_above(asker, &self.assignments_of_group(group.id), group.domain, rule)
    }

    /// Changes a group.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `invalid`, `taken`.
    pub async fn change_group(&self, asker: &Session, id: &str, wish: &GroupChange) -> Result<Group> {
        let rule = "identity:update_group";
        self.transact(|tx| {
            let found = self.group_for(asker, id, rule)?;
            self.allow_on_group(asker, &found.record, rule)?;
            let mut next = found.record.clone();
            if let Some(name) = &wish.name {
                next.name = parse_name(name)?;
            }
            next.description = wish.description.clone().unwrap_or(next.description);
            let owner = next.id.to_string();
            if next.name != found.record.name {
                tx.release(&scope(next.domain), found.record.name.as_str(), &owner);
                tx.claim(&scope(next.domain), next.name.as_str(), &owner);
            }
            tx.raw().update(&next, found.mod_revision);
            Ok(next)
        })
        .await
    }

    /// Removes a group with its roles. Its users stay.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn delete_group(&self, asker: &Session, id: &str) -> Result<()> {
        let rule = "identity:delete_group";
        let found = self.group_for(asker, id, rule)?;
        self.allow_on_group(asker, &found.record, rule)?;
        self.drop_group(found.record.id).await
    }

    pub(crate) async fn drop_group(&self, id: GroupId) -> Result<()> {
        self.drop_assignments(|a| a.actor == Actor::Group(id)).await?;
        for member in self.store.list::<Membership>().iter().filter(|m| m.record.group == id) {
            self.forget::<Membership>(&member.record.key()).await?;
        }
        self.transact(|tx| {
            if let Some(found) = self.store.get::<Group>(&id.to_string()) {
                tx.release(&scope(found.record.domain), found.record.name.as_str(), &id.to_string());
                tx.raw().delete::<Group>(&id.to_string(), found.mod_revision);
            }
            Ok(())
        })
        .await
    }

    /// Puts a user into a group. Twice is once.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn join_group(&self, asker: &Session, group: &str, user: &str) -> Result<()> {
        let membership = self.membership(asker, group, user, "identity:add_user_to_group")?;
        let mut tx = Tx::new();
        tx.put(&membership);
        tx.expect_exists::<Group>(&membership.group.to_string());
        tx.expect_exists::<User>(&membership.user.to_string());
        self.store.commit(tx).await.map(|_| ()).map_err(|e| gone_or(e, "user or group", user))
    }

    /// Takes a user out of a group.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn leave_group(&self, asker: &Session, group: &str, user: &str) -> Result<()> {
        let membership = self.membership(asker, group, user, "identity:remove_user_from_group")?;
        if !self.is_member(membership.user, membership.group) {
            return Err(missing("user", user));
        }
        self.forget::<Membership>(&membership.key()).await
    }

    /// Whether a user is in a group, for those who may look.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub fn check_membership(&self, asker: &Session, group: &str, user: &str) -> Result<()> {
        let rule = "identity:check_user_in_group";
        let group = self.group_for(asker, group, rule)?;
        let found = self.user_for(asker, user, rule)?;
        let is_member = self.is_member(found.record.id, group.record.id);
        if is_member { Ok(()) } else { Err(missing("user", user)) }
    }

    fn is_member(&self, user: UserId, group: GroupId) -> bool {
        self.store.get::<Membership>(&Membership { user, group }.key()).is_some()
    }

    fn membership(&self, asker: &Session, group: &str, user: &str, rule: &str) -> Result<Membership> {
        let group = self.group_for(asker, group, rule)?;
        let user = self.user_for(asker, user, rule)?;
        self.allow_on_group(asker, &group.record, rule)?;
        self.allow_on_user(asker, &user.record, rule)?;
        Ok(Membership { user: user.record.id, group: group.record.id })
    }

    /// A group by id.
    pub fn group(&self, id: GroupId) -> Option<Arc<Stored<Group>>> {
        self.store.get::<Group>(&id.to_string())
    }

    /// The users of a group.
    pub fn members(&self, group: GroupId) -> Vec<Arc<Stored<User>>> {
        let all = self.store.list::<Membership>();
        let ids = all.iter().filter(|m| m.record.group == group).map(|m| m.record.user.to_string());
        ids.filter_map(|id| self.store.get::<User>(&id)).collect()
    }

    /// Removes one record whatever it holds.
    pub(crate) async fn forget<R: Record>(&self, key: &str) -> Result<()> {
        let mut tx = Tx::new();
        tx.remove::<R>(key);
        self.store.commit(tx).await.map(|_| ()).map_err(|e| Error::new(Code::Unavailable, e))
    }

    /// Refuses those who look at neither the cloud nor the domain that they ask for, or their own.
    pub(crate) fn check_looks(&self, asker: &Session, domain: Option<DomainId>, rule: &str) -> Result<()> {
        let own = match &asker.place {
            crate::session::Place::Domain(domain) => Some(domain.record.id),
            _ => None,
        };
        let realm = domain.or(own).map_or(Realm::Cloud, Realm::Domain);
        asker.allow(asker.looks(realm), rule)
    }
}
