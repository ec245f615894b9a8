//! SSH keys: public keys that a project puts into its instances.

use crate::{Caller, Control, Error, Result, Role};
use model::{
    id::KeypairId,
    instance::Instance,
    keypair::{KeyKind, Keypair, check_certificate, check_public_key},
    meta::Meta,
    name::Name,
    quota::Resource,
};
use std::sync::Arc;
use store::Stored;

impl Control {
    /// Imports a public key or certificate.
    ///
    /// # Errors
    /// `invalid` with what is wrong with the key, `taken`, `quota_exceeded`.
    pub async fn create_keypair(
        &self,
        caller: &Caller,
        name: &str,
        kind: KeyKind,
        public_key: &str,
    ) -> Result<Keypair> {
        caller.require(Role::Member, "importing a key")?;
        let name: Name = name.parse().map_err(|e| Error::invalid("name", e))?;
        let checked = match kind {
            KeyKind::Ssh => check_public_key(public_key),
            KeyKind::X509 => check_certificate(public_key),
        };
        let (public_key, fingerprint) = checked.map_err(|e| Error::invalid("public_key", e))?;
        let meta = Meta::new(KeypairId::from_random(rand::random()), caller.project, name, self.now());
        let keypair = Keypair { meta, public_key, fingerprint, kind };
        self.transact(|tx| {
            self.charge(tx, caller.project, &[(Resource::Keypairs, 1)]);
            tx.create(&keypair);
            Ok(keypair.clone())
        })
        .await
    }

    /// Removes a key from the project. Instances that have it keep it.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn delete_keypair(&self, caller: &Caller, reference: &str) -> Result<Arc<Stored<Keypair>>> {
        self.transact(|tx| {
            let found = self.find_own::<Keypair>(caller, reference, "deleting a key")?;
            let project = found.record.meta.project;
            self.charge(tx, project, &[(Resource::Keypairs, -1)]);
            tx.delete(&found);
            Ok(found)
        })
        .await
    }

    /// Names of the project's instances that hold a key.
    pub fn keypair_holders(&self, keypair: &Keypair) -> Vec<String> {
        let all = self.store.mirror().list::<Instance>();
        let holds = |i: &Instance| {
            i.meta.project == keypair.meta.project && i.keys.iter().any(|(_, key)| *key == keypair.public_key)
        };
        all.iter().filter(|i| holds(&i.record)).map(|i| i.record.meta.name.to_string()).collect()
    }
}
