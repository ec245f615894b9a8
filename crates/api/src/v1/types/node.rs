//! Nodes on the wire.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Id.
    pub id: Uuid,
    /// Host name.
    pub name: String,
    /// New instances may be placed here.
    pub schedulable: bool,
    /// When it joined.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// What it tells of itself; missing before it first did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<NodeStatus>,
    /// What was given out on it.
    pub used: NodeUse,
}

/// What a host tells of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// Architecture, like `x86_64`.
    pub arch: String,
    /// Kernel release.
    pub kernel: String,
    /// Operating system.
    pub os: String,
    /// Version of holm.
    pub version: String,
    /// CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Size of the file system with the state directory in GiB.
    pub disk_gib: u64,
    /// Free space there in GiB.
    pub disk_free_gib: u64,
    /// What VMs run on: `kvm` or `tcg`.
    pub accelerator: String,
    /// Why, and what to do for better.
    pub accelerator_reason: String,
    /// QEMU's version, empty where there is none.
    pub qemu: String,
    /// Further facts for people.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// When it told this.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// What was given out on a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeUse {
    /// Instances placed there.
    pub instances: u64,
    /// Their virtual CPUs.
    pub vcpus: u64,
    /// Their memory in MiB.
    pub memory_mib: u64,
    /// Sizes of all volumes there in GiB, root disks among them, and most that containers may write to their own
    /// files. It may be more than the host has: disks take space as they are written.
    #[serde(default)]
    pub disk_gib: u64,
}

/// Changes to a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateNode {
    /// New instances may be placed here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedulable: Option<bool>,
}
