//! Application credentials: made by a user for its own programs, in the project that it works in.

use crate::{
    Control, Error, Result,
    access::{Realm, denied, missing},
    domain::parse_name,
    login::secret_sha256,
    session::Session,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use model::{
    application_credential::{ACCESS_RULES_MAX, AccessRule, ApplicationCredential, RULE_PATH_BYTES_MAX},
    error::Code,
    id::{ApplicationCredentialId, UserId},
    role::Role,
};
use std::{collections::BTreeSet, sync::Arc};
use store::Stored;

/// Most credentials of one user.
pub const CREDENTIALS_MAX: usize = 100;

/// A role as a client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleRef {
    /// By id.
    Id(String),
    /// By name, among those of the whole cloud.
    Name(String),
}

/// A wish for a credential.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewApplicationCredential {
    /// Name.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// The secret that the user chose; else one is made up.
    pub secret: Option<String>,
    /// Roles; all that the session has when none is named.
    pub roles: Vec<RoleRef>,
    /// Whether it may manage its user's credentials.
    pub unrestricted: bool,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// The only calls that it may make: service type, method, path.
    pub access_rules: Option<Vec<(String, String, String)>>,
}

impl Control {
    /// The credentials of a user, for itself and for those who look at its domain.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub fn application_credentials(
        &self,
        asker: &Session,
        user: &str,
    ) -> Result<Vec<Arc<Stored<ApplicationCredential>>>> {
        let user = self.credential_holder(asker, user, "identity:list_application_credentials")?;
        Ok(self.credentials_of(user))
    }

    fn credentials_of(&self, user: UserId) -> Vec<Arc<Stored<ApplicationCredential>>> {
        let mut all = self.store.list::<ApplicationCredential>();
        all.retain(|c| c.record.user == user);
        all.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        all
    }

    /// One credential of a user.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub fn application_credential(
        &self,
        asker: &Session,
        user: &str,
        id: &str,
    ) -> Result<Arc<Stored<ApplicationCredential>>> {
        let user = self.credential_holder(asker, user, "identity:get_application_credential")?;
        let found = id
            .parse::<ApplicationCredentialId>()
            .ok()
            .and_then(|id| self.store.get::<ApplicationCredential>(&id.to_string()));
        found.filter(|c| c.record.user == user).ok_or_else(|| missing("Application Credential", id))
    }

    /// Makes a credential for the session's own user in the session's own project. Gives it with its secret, which is
    /// told this once.
    ///
    /// # Errors
    /// `forbidden`, `invalid`, `taken`, `too_large`.
    pub async fn create_application_credential(
        &self,
        asker: &Session,
        user: &str,
        wish: NewApplicationCredential,
    ) -> Result<(ApplicationCredential, String)> {
        let rule = "identity:create_application_credential";
        let is_own = user.parse::<UserId>().is_ok_and(|id| asker.is_user(id));
        asker.allow(is_own && asker.is_unrestricted(), rule)?;
        let project = asker.project().ok_or_else(|| denied(rule))?.record.meta.id;
        if wish.expires_at.is_some_and(|end| end <= self.now()) {
            return Err(Error::invalid("expires_at", "The end of an application credential is in the past."));
        }
        let roles = self.granted(asker, &wish.roles)?;
        let access_rules = wish.access_rules.map(checked_rules).transpose()?;
        let (secret, secret_hash) = match wish.secret {
            Some(chosen) => {
                let hash = self.hash_password(&chosen).await?;
                (chosen, hash)
            }
            None => {
                let made = made_up()?;
                let hash = secret_sha256(&made);
                (made, hash)
            }
        };
        let credential = ApplicationCredential {
            id: ApplicationCredentialId::from_random(rand::random()),
            name: parse_name(&wish.name)?,
            description: wish.description,
            user: asker.claims.user,
            project,
            roles,
            unrestricted: wish.unrestricted,
            secret_hash,
            access_rules,
            created_at: self.now(),
            expires_at: wish.expires_at,
        };
        self.transact(|tx| {
            if self.credentials_of(credential.user).len() >= CREDENTIALS_MAX {
                let message = format!("A user has at most {CREDENTIALS_MAX} application credentials.");
                return Err(Error::new(Code::Forbidden, message));
            }
            tx.claim(&scope(credential.user), credential.name.as_str(), &credential.id.to_string());
            tx.raw().create(&credential);
            Ok(())
        })
        .await?;
        Ok((credential, secret))
    }

    /// The roles of a new credential: some of those that the session has.
    fn granted(&self, asker: &Session, wished: &[RoleRef]) -> Result<BTreeSet<model::id::RoleId>> {
        let has = |fits: &dyn Fn(&Role) -> bool| asker.roles.iter().find(|r| fits(&r.record));
        if wished.is_empty() {
            return Ok(asker.roles.iter().map(|r| r.record.id).collect());
        }
        let ids = wished.iter().map(|wish| {
            let found = match wish {
                RoleRef::Id(id) => has(&|r| id.parse().is_ok_and(|id: model::id::RoleId| r.id == id)),
                RoleRef::Name(name) => has(&|r| r.domain.is_none() && r.name.as_str() == name),
            };
            found.map(|r| r.record.id).ok_or_else(|| {
                let message = "An application credential has no roles that its maker has not.";
                Error::invalid("roles", message)
            })
        });
        ids.collect()
    }

    /// Ends a credential and its sessions at once.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn delete_application_credential(&self, asker: &Session, user: &str, id: &str) -> Result<()> {
        let rule = "identity:delete_application_credential";
        let is_own = user.parse::<UserId>().is_ok_and(|id| asker.is_user(id));
        asker.allow(asker.is_unrestricted() && (is_own || asker.is_admin()), rule)?;
        let found = self.application_credential(asker, user, id)?;
        self.drop_credential(found.record.id).await
    }

    async fn drop_credential(&self, id: ApplicationCredentialId) -> Result<()> {
        let key = id.to_string();
        self.transact(|tx| {
            if let Some(found) = self.store.get::<ApplicationCredential>(&key) {
                tx.release(&scope(found.record.user), found.record.name.as_str(), &key);
                tx.raw().delete::<ApplicationCredential>(&key, found.mod_revision);
            }
            Ok(())
        })
        .await
    }

    /// Ends all credentials of a kind.
    pub(crate) async fn drop_credentials(
        &self,
        which: impl Fn(&ApplicationCredential) -> bool,
    ) -> Result<()> {
        for credential in self.store.list::<ApplicationCredential>().iter().filter(|c| which(&c.record)) {
            self.drop_credential(credential.record.id).await?;
        }
        Ok(())
    }

    /// The user whose credentials somebody asks for.
    fn credential_holder(&self, asker: &Session, user: &str, rule: &str) -> Result<UserId> {
        let id = user.parse::<UserId>().ok();
        if let Some(id) = id.filter(|id| asker.is_user(*id)) {
            return Ok(id);
        }
        let found = self.user_for(asker, user, rule)?;
        asker.allow(asker.looks(Realm::Domain(found.record.domain)), rule)?;
        Ok(found.record.id)
    }
}

fn scope(user: UserId) -> String {
    format!("name/application_credential/{user}")
}

/// A secret with 256 random bits.
fn made_up() -> Result<String> {
    let mut bytes = [0; 32];
    rand::TryRngCore::try_fill_bytes(&mut rand::rngs::OsRng, &mut bytes)
        .map_err(|e| Error::new(Code::Internal, format!("the kernel gives no random bytes: {e}")))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn checked_rules(rules: Vec<(String, String, String)>) -> Result<Vec<AccessRule>> {
    if rules.len() > ACCESS_RULES_MAX {
        let message = format!("at most {ACCESS_RULES_MAX} access rules are possible");
        return Err(Error::invalid("access_rules", message));
    }
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    rules
        .into_iter()
        .map(|(service, method, path)| {
            if !methods.contains(&method.as_str()) {
                return Err(Error::invalid("access_rules", format!("{method} is no method")));
            }
            if service.is_empty() || !path.starts_with('/') || path.len() > RULE_PATH_BYTES_MAX {
                return Err(Error::invalid("access_rules", "a rule names a service and a path"));
            }
            let id = uuid::Uuid::from_bytes(rand::random()).simple().to_string();
            Ok(AccessRule { id, service, method, path })
        })
        .collect()
}
