//! Transfers: a volume is offered to whoever has the key, and goes to the project of who takes it.

use crate::{
    id::{ProjectId, TransferId, VolumeId},
    record::Record,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A volume that is offered. There is one for a volume at most, and it ends with the volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Its id.
    pub id: TransferId,
    /// Project that offers it.
    pub project: ProjectId,
    /// What it is called; may be empty.
    pub name: String,
    /// The volume.
    pub volume: VolumeId,
    /// SHA-256 of the key in hex. The key itself is told once and kept nowhere.
    pub key_sha256: String,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Record for Transfer {
    const TABLE: &'static str = "volume_transfer";
    fn key(&self) -> String {
        self.id.to_string()
    }
}
