//! Nodes: hosts, what they have and what they can do.

use crate::{id::NodeId, name::Name, record::Record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A host, as the cloud wants it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Identity, made when the state directory is made.
    pub id: NodeId,
    /// Host name.
    pub name: Name,
    /// New instances may be placed here.
    pub schedulable: bool,
    /// Joined at.
    pub created_at: Timestamp,
}

impl Record for Node {
    const TABLE: &'static str = "node";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

/// The fact that names the hosts on the web that images may be fetched from; missing when there are none.
pub const IMAGE_HOSTS_FACT: &str = "image hosts";

/// A host, as it tells of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Identity.
    pub id: NodeId,
    /// Architecture as Rust and Linux name it, like `x86_64`.
    pub arch: String,
    /// Kernel release.
    pub kernel: String,
    /// Operating system, from os-release.
    pub os: String,
    /// Version of holm.
    pub version: String,
    /// Id of this boot of the host.
    pub boot_id: String,
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
    /// When this was written.
    pub at: Timestamp,
}

impl Record for NodeStatus {
    const TABLE: &'static str = "node_status";
    fn key(&self) -> String {
        self.id.to_string()
    }
}
