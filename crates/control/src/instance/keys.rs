//! Keys of an instance after it was made: given to it, and taken from it again. Its node tells the guest's agent.

use crate::{Caller, Control, Error, Result, Role};
use model::{
    error::Code,
    instance::{Instance, Kind, keys::NamedKey},
    keypair::Keypair,
};
use std::sync::Arc;
use store::Stored;

const ACTION: &str = "changing the keys of an instance";

/// A key that was taken from all who had it.
#[derive(Debug, Clone)]
pub struct Revoked {
    /// The key.
    pub keypair: Arc<Stored<Keypair>>,
    /// The instances that had it, as they are now.
    pub instances: Vec<Instance>,
}

/// Most keys of one instance.
pub const KEYS_MAX: usize = 32;

impl Control {
    /// Lets those in whose keys these are, and nobody else. A name that the instance knows means the key that it has,
    /// whatever has become of the project's.
    ///
    /// # Errors
    /// `not_found` for an unknown key, `too_large`, `unsupported` for what has no keys.
    pub async fn set_keys(&self, caller: &Caller, reference: &str, names: &[String]) -> Result<Instance> {
        if names.len() > KEYS_MAX {
            let message = format!("an instance has at most {KEYS_MAX} keys, not {}", names.len());
            return Err(Error::new(Code::TooLarge, message).field("keypairs"));
        }
        self.transact(|tx| {
            let found = self.find_own::<Instance>(caller, reference, ACTION)?;
            let mut next = found.record.clone();
            refuse_keyless(&next)?;
            let mut keys: Vec<NamedKey> = vec![];
            for name in names {
                let key = self.key_for(caller, &found.record, name)?;
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
            next.keys = keys;
            if next != found.record {
                next.meta.touch(self.now());
                tx.update(&found, &next);
            }
            Ok(next)
        })
        .await
    }

    /// What the instance has comes first: another key that is called alike by now must not take its place unasked.
    fn key_for(&self, caller: &Caller, instance: &Instance, name: &str) -> Result<NamedKey> {
        if let Some(held) = instance.keys.iter().find(|(known, _)| known == name) {
            return Ok(held.clone());
        }
        let key = self.find_for::<Keypair>(caller, "keypairs", name)?;
        Ok((key.record.meta.name.to_string(), key.record.public_key.clone()))
    }

    /// Takes a key from all instances of its project; a user's own, which may be in every project, from all of these if
    /// an admin asks. The key itself stays; with it comes who had it, as they are then.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn revoke_keypair(&self, caller: &Caller, reference: &str) -> Result<Revoked> {
        self.transact(|tx| {
            let found = self.find_own::<Keypair>(caller, reference, "revoking a key")?;
            let (project, key) = (found.record.meta.project, &found.record.public_key);
            let everywhere = found.record.user.is_some() && caller.role == Role::Admin;
            let mut holders = self.store.mirror().list::<Instance>();
            holders.retain(|holder| everywhere || holder.record.meta.project == project);
            let mut changed = vec![];
            for holder in holders {
                let mut next = holder.record.clone();
                next.keys.retain(|(_, held)| held != key);
                if next != holder.record {
                    next.meta.touch(self.now());
                    tx.update(&holder, &next);
                    changed.push(next);
                }
            }
            Ok(Revoked { keypair: found, instances: changed })
        })
        .await
    }
}

/// Refuses what lets nobody in by a key, or asks for its keys at its first boot alone.
fn refuse_keyless(instance: &Instance) -> Result<()> {
    let name = &instance.meta.name;
    let (message, hint) = match instance.kind {
        Kind::Vm => return Ok(()),
        Kind::Container => (
            format!("{name} is no virtual machine: nobody logs in to it by a key"),
            format!("holm exec {name} COMMAND"),
        ),
        Kind::System => (
            format!("{name} is a system container: its keys were put in before its first boot"),
            format!("change them inside: `holm exec {name} -- vi /root/.ssh/authorized_keys`"),
        ),
    };
    Err(Error::invalid("keypairs", message).hint(hint))
}
