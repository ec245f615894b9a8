//! Volumes that go from one project to another: offered by one, taken by whoever has the key.

use crate::{Caller, Control, Error, Result, Role, schema::TRANSFER_BY_VOLUME, transact::Transaction};
use model::{
    error::Code,
    id::{TransferId, VolumeId, VolumeTypeId},
    quota::Resource,
    snapshot::Snapshot,
    volume::{Volume, transfer::Transfer},
    volume_type::VolumeType,
};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use store::Stored;
use subtle::ConstantTimeEq;

/// Where volumes that are offered are unique.
const SCOPE: &str = "transfer/volume";
/// Longest name of a transfer, in characters.
const NAME_CHARS_MAX: usize = 255;

fn hashed(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}

fn unknown(id: TransferId) -> Error {
    Error::new(Code::NotFound, format!("there is no transfer {id}"))
}

impl Control {
    /// Offers a volume that no instance has. Gives the key, which nobody is told again.
    ///
    /// # Errors
    /// `in_use` while an instance has it, `taken` while it is offered, `invalid`, `not_found`, `forbidden`.
    pub async fn offer_volume(
        &self,
        caller: &Caller,
        volume: &str,
        name: &str,
    ) -> Result<(Transfer, String)> {
        if name.chars().count() > NAME_CHARS_MAX {
            let message = format!("a transfer's name has at most {NAME_CHARS_MAX} characters");
            return Err(Error::invalid("name", message));
        }
        let (id, key) = (TransferId::from_random(rand::random()), hex::encode(rand::random::<[u8; 16]>()));
        let made = self
            .transact(|tx| {
                let found = self.find_own::<Volume>(caller, volume, "offering a volume")?;
                self.refuse_attached(&found.record, "volume")?;
                let transfer = Transfer {
                    id,
                    project: found.record.meta.project,
                    name: name.to_string(),
                    volume: found.record.meta.id,
                    key_sha256: hashed(&key),
                    created_at: self.now(),
                };
                tx.expect(&found);
                tx.claim(SCOPE, &transfer.volume.to_string(), &id.to_string());
                tx.create_unnamed(&transfer);
                Ok(transfer)
            })
            .await;
        let refuse = |error: Error| match error.code {
            Code::Taken => Error::new(Code::Conflict, format!("volume {volume} is offered already")),
            _ => error,
        };
        made.map(|transfer| (transfer, key)).map_err(refuse)
    }

    /// What is offered by the caller's project; by every project for admins who ask for that.
    pub fn transfers(&self, caller: &Caller, everywhere: bool) -> Vec<Arc<Stored<Transfer>>> {
        let mut all = self.store.list::<Transfer>();
        let is_admin = caller.role == Role::Admin;
        all.retain(|t| t.record.project == caller.project || everywhere && is_admin);
        all
    }

    /// The offer of a volume.
    pub fn transfer_of(&self, volume: VolumeId) -> Option<Arc<Stored<Transfer>>> {
        self.store.by_index(&TRANSFER_BY_VOLUME, &volume.to_string()).into_iter().next()
    }

    /// An offer of a project that the caller sees.
    ///
    /// # Errors
    /// `not_found`.
    pub fn transfer(&self, caller: &Caller, id: TransferId) -> Result<Arc<Stored<Transfer>>> {
        let found = self.store.get::<Transfer>(&id.to_string());
        found.filter(|found| caller.sees(found.record.project)).ok_or_else(|| unknown(id))
    }

    /// Takes an offer back.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn withdraw_transfer(&self, caller: &Caller, id: TransferId) -> Result<Transfer> {
        caller.require(Role::Member, "taking an offer back")?;
        self.transact(|tx| {
            let found = self.transfer(caller, id)?;
            end(tx, &found);
            Ok(found.record.clone())
        })
        .await
    }

    /// Takes what is offered into the caller's project, its snapshots too, which count for it from now on.
    ///
    /// # Errors
    /// `forbidden` for a wrong key, `in_use` if an instance has the volume by now, `quota_exceeded`, `taken` where names are
    /// unique, `not_found`.
    pub async fn accept_transfer(
        &self,
        caller: &Caller,
        id: TransferId,
        key: &str,
    ) -> Result<(Transfer, Volume)> {
        caller.require(Role::Member, "taking a volume")?;
        self.transact(|tx| {
            let found = self.store.get::<Transfer>(&id.to_string()).ok_or_else(|| unknown(id))?;
            let is_right = hashed(key).as_bytes().ct_eq(found.record.key_sha256.as_bytes());
            if !bool::from(is_right) {
                let message = format!("the key is not that of transfer {id}");
                return Err(Error::new(Code::Forbidden, message).field("key"));
            }
            let volume = self.get::<Volume>(found.record.volume).ok_or_else(|| unknown(id))?;
            self.refuse_attached(&volume.record, "volume")?;
            let next = self.hand_to_project(tx, caller, &volume);
            end(tx, &found);
            Ok((found.record.clone(), next))
        })
        .await
    }

    fn hand_to_project(&self, tx: &mut Transaction, caller: &Caller, volume: &Stored<Volume>) -> Volume {
        let mut next = volume.record.clone();
        let (from, to) = (next.meta.project, caller.project);
        let size = next.size_gib.cast_signed();
        let snapshots = self.snapshots_of(next.meta.id);
        let count = i64::try_from(snapshots.len()).unwrap_or(i64::MAX);
        let all = [(Resource::Volumes, 1), (Resource::VolumeGib, size), (Resource::Snapshots, count)];
        if from != to {
            self.charge(tx, to, &all);
            self.charge(tx, from, &all.map(|(resource, amount)| (resource, -amount)));
        }
        next.meta.project = to;
        // A type that is not open to the other project stays behind; the volume is kept as it was.
        let is_open =
            |kind: &VolumeTypeId| self.get::<VolumeType>(*kind).is_some_and(|k| k.record.is_open_to(to));
        next.kind = next.kind.filter(is_open);
        next.meta.touch(self.now());
        tx.update(volume, &next);
        for snapshot in snapshots {
            let mut moved: Snapshot = snapshot.record.clone();
            moved.meta.project = to;
            moved.meta.touch(self.now());
            tx.update(&snapshot, &moved);
        }
        next
    }

    /// Ends the offer of a volume that goes.
    pub(crate) fn drop_transfer(&self, tx: &mut Transaction, volume: VolumeId) {
        if let Some(found) = self.transfer_of(volume) {
            end(tx, &found);
        }
    }
}

fn end(tx: &mut Transaction, found: &Stored<Transfer>) {
    let Transfer { id, volume, .. } = &found.record;
    tx.release(SCOPE, &volume.to_string(), &id.to_string());
    tx.raw().delete::<Transfer>(&id.to_string(), found.mod_revision);
}
