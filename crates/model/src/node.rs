//! Nodes: hosts, what they have and what they can do.

use crate::{id::NodeId, instance::isolation::GUEST_OVERHEAD_MIB, name::Name, record::Record};
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

/// The fact that tells how much memory a pod's own kernel takes on a host, beside the pod's; missing where none can run, and
/// before that is known.
pub const GUEST_OVERHEAD_FACT: &str = "memory beside a pod with a kernel of its own";

/// The fact that tells of a host whose storage is nearly full; missing while it is not.
pub const STORAGE_LOW_FACT: &str = "storage low";
/// Use of a host's storage from which on it is nearly full, in percent.
pub const STORAGE_LOW_PERCENT: u64 = 80;
/// Use under which it no longer is, in percent: what goes up and down around one line is not told each time.
pub const STORAGE_WELL_PERCENT: u64 = 75;

/// Room in a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Its size in bytes.
    pub total_bytes: u64,
    /// What is written, in bytes.
    pub used_bytes: u64,
    /// What may still be written, in bytes: some file systems keep a part for root.
    pub available_bytes: u64,
}

impl Room {
    /// Use as df(1) counts it, in percent, rounded up.
    pub fn used_percent(self) -> u64 {
        let both = self.used_bytes.saturating_add(self.available_bytes);
        self.used_bytes.saturating_mul(100).div_ceil(both.max(1))
    }

    /// Whether it is nearly full, given whether it was.
    pub fn is_low(self, was_low: bool) -> bool {
        let line = if was_low { STORAGE_WELL_PERCENT } else { STORAGE_LOW_PERCENT };
        self.used_percent() >= line
    }
}

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

impl NodeStatus {
    /// Memory in MiB that a pod's own kernel takes beside the pod's.
    pub fn guest_overhead_mib(&self) -> u64 {
        let told = self.facts.get(GUEST_OVERHEAD_FACT).and_then(|fact| fact.split(' ').next()?.parse().ok());
        told.unwrap_or(GUEST_OVERHEAD_MIB)
    }
}

/// How [`GUEST_OVERHEAD_FACT`] is told.
pub fn guest_overhead_fact(mib: u64) -> String {
    format!("{mib} MiB")
}

impl Record for NodeStatus {
    const TABLE: &'static str = "node_status";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_is_low_from_one_line_on_and_well_below_another() {
        let room = |used_bytes: u64| Room { total_bytes: 110, used_bytes, available_bytes: 100 - used_bytes };
        for (used, was_low, low) in [
            (0, false, false),
            (79, false, false),
            (80, false, true),
            (100, false, true),
            (79, true, true),
            (75, true, true),
            (74, true, false),
        ] {
            assert_eq!(room(used).is_low(was_low), low, "{used} after {was_low}");
        }
        let none = Room { total_bytes: 0, used_bytes: 0, available_bytes: 0 };
        assert_eq!((none.used_percent(), none.is_low(false)), (0, false));
    }
}
