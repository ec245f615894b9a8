//! Volume types: an admin's names for ways of keeping volumes, open to all projects or to some.
//!
//! Every cloud has the types `thin` and `thick`, which are no records. What a further type means is in its extra specs, of
//! which [`PROVISIONING`] alone decides anything.

use crate::{
    id::{ProjectId, VolumeTypeId},
    meta::Meta,
    record::Record,
    volume::Provisioning,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The extra spec that says when space is taken: `thin` or `thick`; thin when it is missing.
pub const PROVISIONING: &str = "provisioning:type";
/// Most extra specs of a type.
pub const SPECS_MAX: usize = 64;
/// Most types of a cloud.
pub const TYPES_MAX: u64 = 256;
/// Most projects that one type is opened to while it is not public.
pub const PROJECTS_MAX: usize = 1_000;

/// A volume type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeType {
    /// Head.
    pub meta: Meta<VolumeTypeId>,
    /// Every project may use it.
    pub public: bool,
    /// Projects that may use it while it is not public.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub projects: BTreeSet<ProjectId>,
    /// Extra specs.
    #[serde(default)]
    pub extra_specs: BTreeMap<String, String>,
}

impl VolumeType {
    /// When volumes of this type take their space.
    pub fn provisioning(&self) -> Provisioning {
        match self.extra_specs.get(PROVISIONING).map(String::as_str) {
            Some("thick") => Provisioning::Thick,
            _ => Provisioning::Thin,
        }
    }

    /// Whether `project` may use it.
    pub fn is_open_to(&self, project: ProjectId) -> bool {
        self.public || self.projects.contains(&project)
    }
}

impl Record for VolumeType {
    const TABLE: &'static str = "volume_type";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}
