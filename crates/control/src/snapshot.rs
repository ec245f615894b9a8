//! Snapshots of volumes.

use crate::{Caller, Control, Error, Result, Role, resolve::Noun, schema::SNAPSHOT_BY_VOLUME};
use model::{
    error::Code,
    id::{SnapshotId, VolumeId},
    meta::{Labels, Meta},
    quota::Resource,
    snapshot::{Snapshot, SnapshotState},
    volume::Volume,
};
use std::sync::Arc;
use store::Stored;

/// A snapshot to be taken.
#[derive(Debug, Clone, Default)]
pub struct NewSnapshot {
    /// Name; made from the id when empty.
    pub name: String,
    /// Free text.
    pub description: String,
    /// The volume.
    pub volume: String,
    /// Labels.
    pub labels: Labels,
}

impl Control {
    /// Takes a snapshot of a volume, while a guest writes to it as well: it holds what was there at one moment, as
    /// if the power had failed then.
    ///
    /// # Errors
    /// `not_found`, `taken`, `quota_exceeded`, `too_large`, `conflict` for a volume that cannot be had, `forbidden`.
    pub async fn create_snapshot(&self, caller: &Caller, new: NewSnapshot) -> Result<Snapshot> {
        caller.require(Role::Member, "taking a snapshot")?;
        let id = SnapshotId::from_random(rand::random());
        self.transact(|tx| {
            let found = self
                .find_own::<Volume>(caller, &new.volume, "taking a snapshot")
                .map_err(|e| e.field("volume"))?;
            let volume = &found.record;
            if let Some(fault) = self.volume_status(volume.meta.id).and_then(|s| s.record.fault.clone()) {
                let message = format!("volume {} cannot be used: {}", volume.meta.name, fault.message);
                return Err(Error::new(Code::Conflict, message).field("volume").hint(fault.hint));
            }
            let name = match new.name.as_str() {
                "" => format!("snapshot-{}", id.short()),
                text => text.to_string(),
            };
            let mut meta = Meta::new(id, volume.meta.project, crate::volume::parse_name(&name)?, self.now());
            meta.description.clone_from(&new.description);
            meta.labels.clone_from(&new.labels);
            let (layer, ground) = self.freeze_volume(tx, &found)?;
            let snapshot =
                Snapshot { meta, volume: volume.meta.id, layer, ground, size_gib: volume.size_gib };
            self.charge(tx, volume.meta.project, &[(Resource::Snapshots, 1)]);
            tx.create(&snapshot);
            Ok(snapshot)
        })
        .await
    }

    /// Removes a snapshot. Copies that were made of it stay as they are.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn delete_snapshot(&self, caller: &Caller, reference: &str) -> Result<()> {
        self.transact(|tx| {
            let found = self.find_own::<Snapshot>(caller, reference, "deleting a snapshot")?;
            self.charge(tx, found.record.meta.project, &[(Resource::Snapshots, -1)]);
            tx.delete(&found);
            // Its volume may now join layers.
            if let Some(volume) = self.get::<Volume>(found.record.volume) {
                let mut next = volume.record.clone();
                next.meta_mut().generation += 1;
                tx.update(&volume, &next);
            }
            Ok(())
        })
        .await
    }

    /// Snapshots of a volume, oldest first.
    pub fn snapshots_of(&self, volume: VolumeId) -> Vec<Arc<Stored<Snapshot>>> {
        let mut all = self.store.by_index(&SNAPSHOT_BY_VOLUME, &volume.to_string());
        all.sort_by_key(|s| (s.record.layer, s.record.meta.id));
        all
    }

    /// How far a snapshot is.
    pub fn snapshot_state(&self, snapshot: &Snapshot) -> SnapshotState {
        let status = self.volume_status(snapshot.volume);
        snapshot.state(status.as_deref().map(|s| &s.record))
    }
}
