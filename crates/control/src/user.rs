//! Users: made and changed by admins, and by the managers of their domain. Everyone changes the own password.

use crate::{
    Control, Error, Result,
    access::{Realm, missing},
    domain::parse_name,
    login::Reference,
    session::{Session, refused},
};
use model::{
    assignment::{Actor, Assignment, Target},
    domain::{DEFAULT_DOMAIN_NAME, Domain},
    error::Code,
    group::Membership,
    id::{DomainId, ProjectId, UserId},
    project::Project,
    record::Record,
    role,
    user::{Failures, Options, Password, User},
};
use serde_json::Value;
use std::sync::Arc;
use store::Stored;

/// Most bytes of what else is kept with a user.
pub const EXTRA_BYTES_MAX: usize = 16 * 1024;

/// What may be said of a user; what is not said stays as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UserChange {
    /// Name.
    pub name: Option<String>,
    /// Free text, or its removal.
    pub description: Option<Option<String>>,
    /// Address for mail, or its removal.
    pub email: Option<Option<String>>,
    /// Whether it may log in.
    pub enabled: Option<bool>,
    /// Project that a login means, or none.
    pub default_project: Option<Option<ProjectId>>,
    /// A password, or none any more.
    pub password: Option<Option<String>>,
    /// Rules that do not hold for it.
    pub options: Option<Options>,
    /// What else is to be kept; null removes a key.
    pub extra: Vec<(String, Value)>,
}

impl UserChange {
    fn apply(&self, user: &mut User) -> Result<()> {
        if let Some(name) = &self.name {
            user.name = parse_name(name)?;
        }
        user.description = self.description.clone().unwrap_or_else(|| user.description.clone());
        user.email = self.email.clone().unwrap_or_else(|| user.email.clone());
        user.enabled = self.enabled.unwrap_or(user.enabled);
        user.default_project = self.default_project.unwrap_or(user.default_project);
        if let Some(options) = &self.options {
            let old = user.options;
            user.options.ignore_lockout_failure_attempts =
                options.ignore_lockout_failure_attempts.or(old.ignore_lockout_failure_attempts);
            user.options.lock_password = options.lock_password.or(old.lock_password);
        }
        for (key, value) in &self.extra {
            if value.is_null() {
                user.extra.remove(key);
            } else {
                user.extra.insert(key.clone(), value.clone());
            }
        }
        let bytes: usize = user.extra.iter().map(|(key, value)| key.len() + value.to_string().len()).sum();
        if bytes > EXTRA_BYTES_MAX {
            let message = format!("at most {EXTRA_BYTES_MAX} bytes of other fields are kept with a user");
            return Err(Error::new(Code::TooLarge, message));
        }
        Ok(())
    }
}

/// Name of the user that the first start makes.
pub const ADMIN_USER: &str = "admin";

impl Control {
    /// A user by name in a domain.
    pub fn user_named(&self, domain: DomainId, name: &str) -> Option<Arc<Stored<User>>> {
        let all = self.store.list::<User>();
        all.into_iter().find(|u| u.record.domain == domain && u.record.name.as_str() == name)
    }

    /// Makes the domain, the roles and the signing key that every cloud has.
    pub(crate) async fn begin_identity(&self) -> Result<()> {
        self.begin_signing().await?;
        let default = DomainId::DEFAULT;
        if self.store.get::<Domain>(&default.to_string()).is_none() {
            let domain = Domain {
                id: default,
                name: DEFAULT_DOMAIN_NAME.parse().map_err(|e| Error::invalid("name", e))?,
                description: "The default domain".into(),
                enabled: true,
                created_at: self.now(),
            };
            self.transact(|tx| {
                tx.claim("name/domain", domain.name.as_str(), &domain.id.to_string());
                tx.raw().create(&domain);
                Ok(())
            })
            .await?;
        }
        self.begin_roles().await
    }

    /// Makes the user `admin` with this password, unless there is one, and gives it the role admin in the admin
    /// project, in the default domain and in the system.
    ///
    /// # Errors
    /// What the store refuses.
    pub async fn begin_admin(&self, password: &str) -> Result<UserId> {
        if let Some(user) = self.user_named(DomainId::DEFAULT, ADMIN_USER) {
            return Ok(user.record.id);
        }
        let hash = self.hash_password(password).await?;
        let project = self.project_named(crate::bootstrap::ADMIN_PROJECT)?;
        let id = UserId::from_random(rand::random());
        let mut user = User::new(id, DomainId::DEFAULT, parse_name(ADMIN_USER)?, self.now());
        user.default_project = Some(project);
        user.password = Some(Password { hash, set_at: self.now() });
        // The roles first: a crash in between leaves roles of nobody, and never an admin without roles.
        self.begin_admin_roles(id, project).await?;
        self.transact(|tx| {
            tx.claim(&name_scope(user.domain), user.name.as_str(), &id.to_string());
            tx.raw().create(&user);
            Ok(id)
        })
        .await
    }

    async fn begin_admin_roles(&self, user: UserId, project: ProjectId) -> Result<()> {
        let missing = || Error::new(Code::Internal, "the cloud has no role admin");
        let role = self.role_named(role::ADMIN).ok_or_else(missing)?.record.id;
        let own = self.project_named(crate::bootstrap::DEFAULT_PROJECT).ok().map(Target::Project);
        let all = [Target::Project(project), Target::Domain(DomainId::DEFAULT), Target::System];
        for target in all.into_iter().chain(own) {
            self.assign(Assignment { actor: Actor::User(user), target, role }).await?;
        }
        Ok(())
    }

    fn project_named(&self, name: &str) -> Result<ProjectId> {
        let root = crate::finalize::system_caller(ProjectId(uuid::Uuid::nil()));
        Ok(self.find_project(&root, name)?.record.meta.id)
    }
}

impl Control {
    /// The users that the session may see.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn users(&self, asker: &Session, domain: Option<DomainId>) -> Result<Vec<Arc<Stored<User>>>> {
        self.check_looks(asker, domain, "identity:list_users")?;
        let mut all = self.store.list::<User>();
        all.retain(|u| asker.looks(Realm::Domain(u.record.domain)));
        all.retain(|u| domain.is_none_or(|d| u.record.domain == d));
        all.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        Ok(all)
    }

    /// A user that the session may see: itself, or one of a realm that it looks at.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub fn user_for(&self, asker: &Session, id: &str, rule: &str) -> Result<Arc<Stored<User>>> {
        let found = self.user_meant(&Reference::Id(id.to_string()));
        let realm = found.as_ref().map_or(Realm::Cloud, |u| Realm::Domain(u.record.domain));
        let is_own = found.as_ref().is_some_and(|u| asker.is_user(u.record.id));
        asker.allow(is_own || asker.looks(realm), rule)?;
        found.ok_or_else(|| missing("user", id))
    }

    /// Makes a user.
    ///
    /// # Errors
    /// `forbidden`, `invalid`, `taken`, `too_large`.
    pub async fn create_user(&self, asker: &Session, domain: DomainId, wish: &UserChange) -> Result<User> {
        asker.allow(asker.manages(Realm::Domain(domain)), "identity:create_user")?;
        let name = wish.name.as_deref().ok_or_else(|| Error::invalid("name", "a user needs a name"))?;
        let mut user = User::new(UserId::from_random(rand::random()), domain, parse_name(name)?, self.now());
        wish.apply(&mut user)?;
        if let Some(Some(password)) = &wish.password {
            let hash = self.hash_password(password).await?;
            user.password = Some(Password { hash, set_at: self.now() });
        }
        self.transact(|tx| {
            self.require_domain(domain)?;
            tx.claim(&name_scope(domain), user.name.as_str(), &user.id.to_string());
            tx.raw().create(&user).expect_exists::<Domain>(&domain.to_string());
            Ok(user.clone())
        })
        .await
    }

    /// Lets those through who may change a user or say in which groups it is.
    ///
    /// # Errors
    /// `forbidden`.
    pub(crate) fn allow_on_user(&self, asker: &Session, user: &User, rule: &str) -> Result<()> {
        asker.allow(asker.manages(Realm::Domain(user.domain)), rule)?;
        self.refuse_above(asker, &self.assignments_of(user.id), user.domain, rule)
    }

    /// Changes a user. A new password, and being disabled, end its sessions at once.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `invalid`, `taken`, `too_large`.
    pub async fn change_user(&self, asker: &Session, id: &str, wish: &UserChange) -> Result<User> {
        let rule = "identity:update_user";
        let found = self.user_for(asker, id, rule)?;
        self.allow_on_user(asker, &found.record, rule)?;
        let hash = match &wish.password {
            Some(Some(password)) => Some(self.hash_password(password).await?),
            _ => None,
        };
        let changed = self
            .transact(|tx| {
                let found = self.user_for(asker, id, rule)?;
                self.allow_on_user(asker, &found.record, rule)?;
                let mut next = found.record.clone();
                wish.apply(&mut next)?;
                match (&wish.password, &hash) {
                    (_, Some(hash)) => {
                        next.set_password(hash.clone(), self.now(), self.rules.unique_passwords);
                    }
                    (Some(None), None) => next.password = None,
                    _ => {}
                }
                if wish.password.is_some() || !next.enabled {
                    next.sessions_after = Some(self.now());
                }
                let owner = next.id.to_string();
                if next.name != found.record.name {
                    tx.release(&name_scope(next.domain), found.record.name.as_str(), &owner);
                    tx.claim(&name_scope(next.domain), next.name.as_str(), &owner);
                }
                tx.raw().update(&next, found.mod_revision);
                Ok(next)
            })
            .await?;
        if hash.is_some() {
            self.forget::<Failures>(&changed.id.to_string()).await?;
        }
        Ok(changed)
    }

    /// Changes one's own password. Nobody needs a session for it: the old password is the proof. All sessions of the
    /// user end at once.
    ///
    /// # Errors
    /// `unauthenticated` for a wrong password or a locked user, `invalid` for one that was used lately, `forbidden`.
    pub async fn change_own_password(&self, id: &str, old: &str, new: &str) -> Result<()> {
        let user = self.user_meant(&Reference::Id(id.to_string()));
        let id = self.check_password(user, old).await?;
        let user = self.store.get::<User>(&id.to_string()).ok_or_else(refused)?;
        let domain = self.domain(user.record.domain).is_some_and(|d| d.record.enabled);
        if !user.record.enabled || !domain {
            return Err(refused());
        }
        if user.record.options.lock_password == Some(true) {
            return Err(crate::access::denied("identity:change_password"));
        }
        crate::password::check(new)?;
        if self.password_matches_any(new, &self.rules.forbidden(&user.record)).await? {
            let count = self.rules.unique_passwords;
            let message = format!(
                "The new password cannot be identical to a previous password. The total number which includes \
                 the new password must be unique is {count}."
            );
            return Err(Error::invalid("password", message));
        }
        let hash = self.hash_password(new).await?;
        self.transact(|tx| {
            let found = self.store.get::<User>(&id.to_string()).ok_or_else(refused)?;
            // Somebody else changed it meanwhile: the old password is none any more.
            if found.record.password != user.record.password {
                return Err(refused());
            }
            let mut next = found.record.clone();
            next.set_password(hash.clone(), self.now(), self.rules.unique_passwords);
            next.sessions_after = Some(self.now());
            tx.raw().update(&next, found.mod_revision);
            Ok(())
        })
        .await
    }

    /// Removes a user with its roles, memberships and credentials. Its sessions end at once.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn delete_user(&self, asker: &Session, id: &str) -> Result<()> {
        let rule = "identity:delete_user";
        let found = self.user_for(asker, id, rule)?;
        self.allow_on_user(asker, &found.record, rule)?;
        self.drop_user(found.record.id).await
    }

    /// What hangs on a user goes first, so that a crash in between leaves a user that can be deleted again.
    pub(crate) async fn drop_user(&self, id: UserId) -> Result<()> {
        self.drop_assignments(|a| a.actor == Actor::User(id)).await?;
        self.drop_credentials(|c| c.user == id).await?;
        self.drop_keypairs_of(id).await?;
        for membership in self.store.mirror().list_prefix::<Membership>(&format!("{id}/")) {
            self.forget::<Membership>(&membership.record.key()).await?;
        }
        self.forget::<Failures>(&id.to_string()).await?;
        self.transact(|tx| {
            if let Some(found) = self.store.get::<User>(&id.to_string()) {
                tx.release(&name_scope(found.record.domain), found.record.name.as_str(), &id.to_string());
                tx.raw().delete::<User>(&id.to_string(), found.mod_revision);
            }
            Ok(())
        })
        .await
    }

    /// A user's name; empty for one who is gone.
    pub fn user_name(&self, id: UserId) -> String {
        self.store.get::<User>(&id.to_string()).map_or(String::new(), |user| user.record.name.to_string())
    }

    /// Projects in which a user has a role, for itself and for those who look at it.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub fn projects_of_user(&self, asker: &Session, id: &str) -> Result<Vec<Arc<Stored<Project>>>> {
        let found = self.user_for(asker, id, "identity:list_user_projects")?;
        Ok(self.projects_of(found.record.id))
    }
}

/// Where a user's name is unique.
pub(crate) fn name_scope(domain: DomainId) -> String {
    format!("name/user/{domain}")
}
