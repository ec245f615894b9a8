//! What every record of a user has: id, owner, name, labels and times.

use crate::{id::ProjectId, name::Name};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Labels: small key and value pairs that users hang on anything.
pub type Labels = BTreeMap<String, String>;

/// Most labels on one record.
pub const LABELS_MAX: usize = 128;
/// Longest label key or value in bytes.
pub const LABEL_BYTES_MAX: usize = 4096;
/// Most bytes of all labels of one record together.
pub const ALL_LABELS_BYTES_MAX: usize = 64 * 1024;
/// Longest description in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 4096;

/// The head of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta<Id> {
    /// Identity, a UUID on every door.
    pub id: Id,
    /// Owner. Records of the cloud itself (flavors, public images) belong to the `admin` project.
    pub project: ProjectId,
    /// Name given by the user.
    pub name: Name,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Labels of the user.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
    /// When the record was made.
    pub created_at: Timestamp,
    /// When the wish of the user last changed.
    pub updated_at: Timestamp,
    /// Raised by one with each change of the wish; a status says which generation it has seen.
    #[serde(default)]
    pub generation: u64,
    /// Set once deletion was asked for: the record goes when all that stands behind it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
}

impl<Id> Meta<Id> {
    /// A fresh head.
    pub fn new(id: Id, project: ProjectId, name: Name, now: Timestamp) -> Self {
        Self {
            id,
            project,
            name,
            description: String::new(),
            labels: Labels::new(),
            created_at: now,
            updated_at: now,
            generation: 1,
            deleted_at: None,
        }
    }

    /// Notes that the wish changed at `now`.
    pub fn touch(&mut self, now: Timestamp) {
        self.updated_at = now;
        self.generation += 1;
    }

    /// Whether deletion was asked for.
    pub fn is_deleting(&self) -> bool {
        self.deleted_at.is_some()
    }
}
