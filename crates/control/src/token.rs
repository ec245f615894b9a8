//! Tokens: how programs prove who they are. Only a hash of the secret is kept.

use crate::{Caller, Control, Error, Result, Role};
use jiff::Timestamp;
use model::{error::Code, id::ProjectId, project::Project, record::Record};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::{Stored, Tx};

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Public part, 16 hex digits.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// Project that it acts for.
    pub project: ProjectId,
    /// What it may do there.
    pub role: Role,
    /// SHA-256 of the secret in hex.
    pub secret_sha256: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

impl Record for Token {
    const TABLE: &'static str = "token";
    fn key(&self) -> String {
        self.id.clone()
    }
}

impl Control {
    /// A token by its public part, unless it has expired.
    pub fn token(&self, id: &str) -> Option<Arc<Stored<Token>>> {
        let now = self.now();
        self.store.get::<Token>(id).filter(|t| t.record.expires_at.is_none_or(|end| now < end))
    }

    /// Keeps a new token; the caller made id and secret and shows the secret once.
    ///
    /// # Errors
    /// `forbidden` unless the caller is an admin, and for an application credential that may not make others.
    pub async fn create_token(&self, caller: &Caller, token: Token) -> Result<()> {
        caller.require(Role::Admin, "creating a token")?;
        if !self.may_vouch(caller) {
            let message = "an application credential makes no tokens: they would outlast it";
            return Err(Error::new(Code::Forbidden, message)
                .hint("log in by password, or make the credential with --unrestricted"));
        }
        self.transact(|tx| {
            tx.raw().create(&token).expect_exists::<Project>(&token.project.to_string());
            Ok(())
        })
        .await
    }

    /// Ends the tokens of a project that is no more.
    pub(crate) async fn drop_tokens(&self, project: ProjectId) -> Result<()> {
        let mut all = self.store.list::<Token>();
        all.retain(|token| token.record.project == project);
        for token in all {
            let mut tx = Tx::new();
            tx.remove::<Token>(&token.record.id);
            self.store.commit(tx).await.map_err(|e| Error::new(Code::Unavailable, e))?;
        }
        Ok(())
    }

    /// Tokens of the caller's project; every project's for admins.
    pub fn tokens(&self, caller: &Caller) -> Vec<Arc<Stored<Token>>> {
        let mut all = self.store.list::<Token>();
        all.retain(|t| caller.sees(t.record.project));
        all
    }

    /// Ends a token at once.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn delete_token(&self, caller: &Caller, id: &str) -> Result<()> {
        caller.require(Role::Admin, "deleting a token")?;
        if self.store.get::<Token>(id).is_none() {
            return Err(Error::new(Code::NotFound, format!("no token {id:?}")));
        }
        let mut tx = Tx::new();
        tx.remove::<Token>(id);
        self.store.commit(tx).await.map(|_| ()).map_err(|e| Error::new(Code::Unavailable, e))
    }
}
