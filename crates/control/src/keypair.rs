//! SSH keys: public keys that are put into instances. A key is its project's, or a user's own in every project.

use crate::{Caller, Control, Error, Result, Role, transact::Transaction};
use model::{
    error::Code,
    id::{KeypairId, UserId},
    instance::Instance,
    keypair::{KeyKind, Keypair, check_certificate, check_public_key},
    meta::Meta,
    name::Name,
    quota::Resource,
    user::User,
};
use std::sync::Arc;
use store::Stored;

/// A key to be kept.
#[derive(Debug, Clone)]
pub struct NewKeypair {
    /// Name.
    pub name: String,
    /// What it is.
    pub kind: KeyKind,
    /// One line in OpenSSH's form, or a certificate in PEM.
    pub public_key: String,
    /// User whose own it is to be; the project's when `None`.
    pub user: Option<UserId>,
}

impl Control {
    /// Imports a public key or certificate for the caller's project or for one user. The project's quota counts both.
    ///
    /// # Errors
    /// `invalid` with what is wrong with the key, `taken`, `quota_exceeded`, `not_found` for a user who is not there.
    pub async fn add_keypair(&self, caller: &Caller, new: NewKeypair) -> Result<Keypair> {
        caller.require(Role::Member, "importing a key")?;
        let name: Name = new.name.parse().map_err(|e| Error::invalid("name", e))?;
        let checked = match new.kind {
            KeyKind::Ssh => check_public_key(&new.public_key),
            KeyKind::X509 => check_certificate(&new.public_key),
        };
        let (public_key, fingerprint) = checked.map_err(|e| Error::invalid("public_key", e))?;
        let meta = Meta::new(KeypairId::from_random(rand::random()), caller.project, name, self.now());
        let keypair = Keypair { meta, public_key, fingerprint, kind: new.kind, user: new.user };
        self.transact(|tx| {
            if let Some(user) = new.user {
                // A user who goes at this moment takes the key along, or is not there for it.
                tx.raw().expect_exists::<User>(&user.to_string());
                if self.store.get::<User>(&user.to_string()).is_none() {
                    return Err(Error::new(Code::NotFound, format!("no user {user}")).field("user"));
                }
            }
            self.charge(tx, caller.project, &[(Resource::Keypairs, 1)]);
            tx.create(&keypair);
            Ok(keypair.clone())
        })
        .await
    }

    /// Keys that a user may name in the caller's project, by name: the user's own, and the project's. Of two that are
    /// called alike the user's own counts.
    pub fn keypairs_for(&self, caller: &Caller, user: UserId) -> Vec<Arc<Stored<Keypair>>> {
        let mut all = self.keypairs_of(user);
        let of_project = self.list::<Keypair>(caller).into_iter().filter(|key| key.record.user.is_none());
        for key in of_project {
            if !all.iter().any(|own| own.record.meta.name == key.record.meta.name) {
                all.push(key);
            }
        }
        all.sort_by(|a, b| a.record.meta.name.cmp(&b.record.meta.name));
        all
    }

    /// A user's own keys, wherever they were made.
    pub fn keypairs_of(&self, user: UserId) -> Vec<Arc<Stored<Keypair>>> {
        let mut all = self.store.mirror().list::<Keypair>();
        all.retain(|key| key.record.user == Some(user));
        all.sort_by(|a, b| a.record.meta.name.cmp(&b.record.meta.name));
        all
    }

    /// A key that the caller's project has, or, by its id, one that `user` has in any project.
    pub(crate) fn keypair_asked(
        &self,
        caller: &Caller,
        user: Option<UserId>,
        reference: &str,
    ) -> Result<Arc<Stored<Keypair>>> {
        let by_id = reference.parse().ok().and_then(|id| self.get::<Keypair>(id));
        match by_id.filter(|key| user.is_some() && key.record.user == user) {
            Some(own) => Ok(own),
            None => self.find::<Keypair>(caller, reference),
        }
    }

    /// Removes a key of the caller's project, or by its id one of `user`. Instances that have it keep it.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn delete_keypair(
        &self,
        caller: &Caller,
        user: Option<UserId>,
        reference: &str,
    ) -> Result<Arc<Stored<Keypair>>> {
        caller.require(Role::Member, "deleting a key")?;
        self.transact(|tx| {
            let found = self.keypair_asked(caller, user, reference)?;
            let of_another = found.record.user.is_some() && found.record.user != user;
            if of_another && caller.role != Role::Admin {
                let message = format!("key {} is a user's own", found.record.meta.name);
                return Err(Error::new(Code::Forbidden, message).hint("its user or an admin may delete it"));
            }
            self.drop_keypair(tx, &found);
            Ok(found)
        })
        .await
    }

    fn drop_keypair(&self, tx: &mut Transaction, found: &Stored<Keypair>) {
        self.charge(tx, found.record.meta.project, &[(Resource::Keypairs, -1)]);
        tx.delete(found);
    }

    /// Removes the keys of a user who goes.
    pub(crate) async fn drop_keypairs_of(&self, user: UserId) -> Result<()> {
        for key in self.keypairs_of(user) {
            self.transact(|tx| {
                if let Some(found) = self.get::<Keypair>(key.record.meta.id) {
                    self.drop_keypair(tx, &found);
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Names of the project's instances that hold a key.
    pub fn keypair_holders(&self, keypair: &Keypair) -> Vec<String> {
        let all = self.instances_of(keypair.meta.project);
        let holds = |i: &Instance| i.keys.iter().any(|(_, key)| *key == keypair.public_key);
        all.iter().filter(|i| holds(&i.record)).map(|i| i.record.meta.name.to_string()).collect()
    }
}
