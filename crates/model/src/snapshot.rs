//! Snapshots of volumes: what a disk held at one moment.
//!
//! A snapshot is no file of its own. It names the layer of its volume that was frozen for it, and is there as soon as
//! the volume's guest (if it has one) writes to the next layer; see [`crate::volume`].

use crate::{
    id::{SnapshotId, VolumeId},
    meta::Meta,
    record::Record,
    volume::{Ground, VolumeStatus},
};
use serde::{Deserialize, Serialize};

/// A snapshot of a volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Head.
    pub meta: Meta<SnapshotId>,
    /// The volume, which stays as long as it has snapshots.
    pub volume: VolumeId,
    /// Layer that was frozen for it.
    pub layer: u32,
    /// All that it holds.
    pub ground: Ground,
    /// Size of the volume then, in GiB.
    pub size_gib: u64,
}

impl Record for Snapshot {
    const TABLE: &'static str = "snapshot";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}

/// How far a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotState {
    /// Its moment is yet to come.
    Creating,
    /// It holds what was there.
    Available,
    /// It cannot be taken; the volume's fault says why.
    Failed,
}

impl Snapshot {
    /// How far it is, by what the node says of the volume.
    pub fn state(&self, volume: Option<&VolumeStatus>) -> SnapshotState {
        match volume {
            Some(status) if status.layer > self.layer => SnapshotState::Available,
            Some(status) if status.fault.is_some() => SnapshotState::Failed,
            _ => SnapshotState::Creating,
        }
    }
}
