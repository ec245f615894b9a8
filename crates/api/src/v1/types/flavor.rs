//! Flavors on the wire.

use super::{Head, Reference, patch::LabelChanges};
use model::meta::Labels;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A named size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flavor {
    /// Head.
    #[serde(flatten)]
    pub head: Head,
    /// What it gives.
    #[serde(flatten)]
    pub size: Size,
    /// Every project may use it.
    pub public: bool,
    /// Projects that may use it while it is not public.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub projects: Vec<Reference>,
    /// Id that OpenStack's clients know it by.
    #[serde(default)]
    pub openstack_id: String,
    /// Extra specs as OpenStack knows them.
    #[serde(default)]
    pub extra_specs: BTreeMap<String, String>,
}

/// CPU, memory and disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Size {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Root disk in GiB; 0: as large as the image.
    pub disk_gib: u64,
}

impl From<model::flavor::Size> for Size {
    fn from(size: model::flavor::Size) -> Self {
        Self { vcpus: size.vcpus, memory_mib: size.memory_mib, disk_gib: size.disk_gib }
    }
}

/// A new flavor. Sizes that are missing are read from the name, like `g1.c1m512` or `g4.r8c4`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateFlavor {
    /// Name.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Labels.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// Virtual CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Root disk in GiB; 0: as large as the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_gib: Option<u64>,
    /// Every project may use it (the default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// Extra specs as OpenStack knows them.
    #[serde(default)]
    pub extra_specs: BTreeMap<String, String>,
}

/// Changes to a flavor. Its size never changes: make another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateFlavor {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Labels to set; `null` removes one.
    #[serde(skip_serializing_if = "LabelChanges::is_empty")]
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    pub labels: LabelChanges,
    /// Every project may use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// Projects that may use it while it is not public, by names or ids, instead of all that could.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projects: Option<Vec<String>>,
    /// Extra specs to set; `null` removes one.
    #[serde(skip_serializing_if = "LabelChanges::is_empty")]
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    pub extra_specs: LabelChanges,
}
