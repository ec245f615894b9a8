//! Projects: tenants. A project owns instances, networks and all else, and its quota counts them.

use crate::{
    id::{DomainId, ProjectId},
    meta::{Labels, Meta},
    name::Name,
    quota::Limits,
    record::Record,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Most tags of a project.
pub const TAGS_MAX: usize = 80;
/// Longest tag in bytes.
pub const TAG_BYTES_MAX: usize = 255;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Project {
    /// Head; `meta.project` is the project itself.
    pub meta: Meta<ProjectId>,
    /// Domain in which its name is unique.
    #[serde(default)]
    pub domain: DomainId,
    /// Words that OpenStack's users hang on it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// Limits that differ from the defaults.
    #[serde(default)]
    pub limits: Limits,
    /// A disabled project keeps what it has and may start nothing.
    #[serde(default = "enabled")]
    pub enabled: bool,
}

fn enabled() -> bool {
    true
}

impl Project {
    /// A new enabled project with the default limits.
    pub fn new(id: ProjectId, name: Name, labels: Labels, now: Timestamp) -> Self {
        let mut meta = Meta::new(id, id, name, now);
        meta.labels = labels;
        Self {
            meta,
            domain: DomainId::DEFAULT,
            tags: BTreeSet::new(),
            limits: Limits::default(),
            enabled: true,
        }
    }
}

impl Record for Project {
    const TABLE: &'static str = "project";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}
