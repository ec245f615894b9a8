//! Logging in: proofs of who one is, the scope that is wanted, and the session that comes of both.
//!
//! Every refusal of a login is the same sentence, and a login for nobody takes as long as one for somebody, so that
//! nothing can be learned about who exists. A user that failed too often in a row is refused even with the right
//! password until the lock ends ([`model::user::Rules`]).

use crate::{
    Control, Error, Result,
    session::{Claims, Methods, Scope, Session, refused},
};
use model::{
    application_credential::ApplicationCredential,
    domain::{Domain, parse_domain},
    error::Code,
    id::{ApplicationCredentialId, DomainId, ProjectId, UserId},
    project::Project,
    user::{Failures, User},
};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use store::{Stored, Tx};
use subtle::ConstantTimeEq;

/// Most proofs of one login.
pub const PROOFS_MAX: usize = 3;

/// A domain as a client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainRef {
    /// By id.
    Id(String),
    /// By name.
    Name(String),
}

/// A user or project as a client names it: an id is enough, a name needs a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// By id.
    Id(String),
    /// By name in a domain.
    Name(String, DomainRef),
}

/// An application credential as a client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialRef {
    /// By id.
    Id(String),
    /// By name among a user's.
    Name(String, Reference),
}

/// A proof of who one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A password.
    Password(Reference, String),
    /// A session that holds.
    Token(String),
    /// An application credential with its secret.
    ApplicationCredential(CredentialRef, String),
}

/// The scope that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The user's default project, if there is one.
    Default,
    /// None.
    Unscoped,
    /// A project.
    Project(Reference),
    /// A domain.
    Domain(DomainRef),
    /// The whole cloud.
    System,
}

/// Who was proven.
struct Proven {
    user: UserId,
    methods: Methods,
    chain: Option<Claims>,
    credential: Option<Arc<Stored<ApplicationCredential>>>,
}

impl Control {
    /// Logs in.
    ///
    /// # Errors
    /// `unauthenticated`, `forbidden` for another scope than a credential's own, `too_many`.
    pub async fn log_in(&self, proofs: &[Proof], wanted: &Wanted) -> Result<(String, Session)> {
        if proofs.is_empty() || proofs.len() > PROOFS_MAX {
            return Err(refused());
        }
        let mut all: Vec<Proven> = vec![];
        for proof in proofs {
            all.push(self.prove(proof).await?);
        }
        let first = all.remove(0);
        let proven = all.into_iter().try_fold(first, |one, other| {
            (one.user == other.user).then(|| Proven {
                user: one.user,
                methods: one.methods.and(other.methods),
                chain: one.chain.or(other.chain),
                credential: one.credential.or(other.credential),
            })
        });
        let proven = proven.ok_or_else(refused)?;
        let scope = self.wanted_scope(&proven, wanted)?;
        let credential = proven.credential.as_ref().map(|c| c.record.id);
        self.open_session(proven.user, scope, proven.methods, credential, proven.chain.as_ref())
    }

    async fn prove(&self, proof: &Proof) -> Result<Proven> {
        match proof {
            Proof::Password(user, password) => {
                let user = self.check_password(self.user_meant(user), password).await?;
                Ok(Proven { user, methods: Methods::PASSWORD, chain: None, credential: None })
            }
            Proof::Token(text) => {
                // Keystone's word for a token that is none: clients tell it from a wrong password.
                let gone = |_| Error::new(Code::NotFound, "Could not find token.");
                let session = self.session(text).map_err(gone)?;
                if session.credential.is_some() {
                    let message = "A token by an application credential cannot be exchanged for another.";
                    return Err(Error::new(Code::Forbidden, message));
                }
                let user = session.claims.user;
                Ok(Proven { user, methods: Methods::TOKEN, chain: Some(session.claims), credential: None })
            }
            Proof::ApplicationCredential(reference, secret) => {
                let found = self.check_secret(self.credential_meant(reference), secret).await?;
                let user = found.record.user;
                let methods = Methods::APPLICATION_CREDENTIAL;
                Ok(Proven { user, methods, chain: None, credential: Some(found) })
            }
        }
    }

    /// Makes sure of a password, counts failures, and locks.
    ///
    /// # Errors
    /// `unauthenticated`, `too_many`.
    pub async fn check_password(&self, user: Option<Arc<Stored<User>>>, password: &str) -> Result<UserId> {
        let hash = user.as_ref().and_then(|u| u.record.password.as_ref()).map(|p| p.hash.clone());
        let hashes: Vec<&str> = hash.as_deref().into_iter().collect();
        let is_right = self.password_matches(password, &hashes).await?;
        let user = user.ok_or_else(refused)?;
        let id = user.record.id;
        // Looked at after the hash: of attempts at the same time none slips through a lock that another set.
        let failures = self.store.get::<Failures>(&id.to_string());
        if self.rules.locks(&user.record, failures.as_ref().map(|f| &f.record), self.now()) {
            return Err(refused());
        }
        if !is_right {
            self.count_failure(id).await?;
            return Err(refused());
        }
        if failures.is_some() {
            let mut tx = Tx::new();
            tx.remove::<Failures>(&id.to_string());
            self.store.commit(tx).await.map_err(|e| Error::new(Code::Unavailable, e))?;
        }
        Ok(id)
    }

    async fn count_failure(&self, user: UserId) -> Result<()> {
        let key = user.to_string();
        self.transact(|tx| {
            let before = self.store.get::<Failures>(&key);
            let next = self.rules.failed(user, before.as_ref().map(|f| &f.record), self.now());
            match &before {
                Some(stored) => tx.raw().update(&next, stored.mod_revision),
                None => tx.raw().create(&next),
            };
            Ok(())
        })
        .await
    }

    async fn check_secret(
        &self,
        credential: Option<Arc<Stored<ApplicationCredential>>>,
        secret: &str,
    ) -> Result<Arc<Stored<ApplicationCredential>>> {
        let kept = credential.as_ref().map_or("", |c| c.record.secret_hash.as_str());
        let is_right = if kept.starts_with('$') {
            self.password_matches(secret, &[kept]).await?
        } else {
            bool::from(secret_sha256(secret).as_bytes().ct_eq(kept.as_bytes()))
        };
        credential.filter(|_| is_right).ok_or_else(refused)
    }

    /// The scope that a login gets; an application credential has its own and no other.
    fn wanted_scope(&self, proven: &Proven, wanted: &Wanted) -> Result<Scope> {
        if let Some(credential) = &proven.credential {
            let own = credential.record.project;
            return match wanted {
                Wanted::Default => Ok(Scope::Project(own)),
                Wanted::Project(project) if self.project_meant(project) == Some(own) => {
                    Ok(Scope::Project(own))
                }
                _ => Err(refused()),
            };
        }
        match wanted {
            Wanted::Unscoped => Ok(Scope::Unscoped),
            Wanted::System => Ok(Scope::System),
            Wanted::Domain(domain) => {
                self.domain_meant(domain).map(|d| Scope::Domain(d.record.id)).ok_or_else(refused)
            }
            Wanted::Project(project) => self.project_meant(project).map(Scope::Project).ok_or_else(refused),
            Wanted::Default => Ok(self.default_scope(proven.user)),
        }
    }

    fn default_scope(&self, user: UserId) -> Scope {
        let project = self.store.get::<User>(&user.to_string()).and_then(|u| u.record.default_project);
        match project.map(Scope::Project) {
            Some(scope) if !self.effective_roles(user, scope).is_empty() => scope,
            _ => Scope::Unscoped,
        }
    }

    /// The user that a client means.
    pub fn user_meant(&self, reference: &Reference) -> Option<Arc<Stored<User>>> {
        match reference {
            Reference::Id(id) => {
                let id: UserId = id.parse().ok()?;
                self.store.get::<User>(&id.to_string())
            }
            Reference::Name(name, domain) => self.user_named(self.domain_meant(domain)?.record.id, name),
        }
    }

    /// The domain that a client means.
    pub fn domain_meant(&self, reference: &DomainRef) -> Option<Arc<Stored<Domain>>> {
        match reference {
            DomainRef::Id(id) => self.domain(parse_domain(id)?),
            DomainRef::Name(name) => {
                let all = self.store.list::<Domain>();
                all.into_iter().find(|d| d.record.name.as_str() == name)
            }
        }
    }

    /// The project that a client means.
    pub fn project_meant(&self, reference: &Reference) -> Option<ProjectId> {
        match reference {
            Reference::Id(id) => {
                let id: ProjectId = id.parse().ok()?;
                self.get::<Project>(id).map(|p| p.record.meta.id)
            }
            Reference::Name(name, domain) => {
                let domain = self.domain_meant(domain)?.record.id;
                let all = self.store.list::<Project>();
                let fits = |p: &&Arc<Stored<Project>>| {
                    p.record.domain == domain && p.record.meta.name.as_str() == name
                };
                all.iter().find(fits).map(|p| p.record.meta.id)
            }
        }
    }

    fn credential_meant(&self, reference: &CredentialRef) -> Option<Arc<Stored<ApplicationCredential>>> {
        match reference {
            CredentialRef::Id(id) => {
                let id: ApplicationCredentialId = id.parse().ok()?;
                self.store.get::<ApplicationCredential>(&id.to_string())
            }
            CredentialRef::Name(name, user) => {
                let user = self.user_meant(user)?.record.id;
                let all = self.store.list::<ApplicationCredential>();
                all.into_iter().find(|c| c.record.user == user && c.record.name.as_str() == name)
            }
        }
    }

    /// A domain by id.
    pub fn domain(&self, id: DomainId) -> Option<Arc<Stored<Domain>>> {
        self.store.get::<Domain>(&id.to_string())
    }
}

/// How a secret with 256 random bits is kept: there is nothing to guess from a dictionary.
pub(crate) fn secret_sha256(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}
