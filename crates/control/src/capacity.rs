//! What hosts have, and what was promised of it: counted once, told alike by every door.
//!
//! A disk that is thin, and the limit of a container's own files, take space only as they are written. So more may be
//! promised than there is; how much more is what an operator wants to see.

use crate::Control;
use model::{
    id::NodeId,
    instance::{Instance, Kind, Power},
    volume::Volume,
};
use std::collections::HashMap;

/// What was given out on a host, or by all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Promised {
    /// Instances placed there.
    pub instances: u64,
    /// Those of them that are to run.
    pub running: u64,
    /// Virtual CPUs of all of them.
    pub vcpus: u64,
    /// Their memory in MiB.
    pub memory_mib: u64,
    /// Sizes in GiB of all volumes, root disks among them, and most that containers may write to their own files.
    pub disk_gib: u64,
}

/// What hosts have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// CPUs.
    pub cpus: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Size of the file systems with the volumes in GiB.
    pub disk_gib: u64,
}

impl Control {
    /// What was given out on each host.
    pub fn promised(&self) -> HashMap<NodeId, Promised> {
        let mut all: HashMap<NodeId, Promised> = HashMap::new();
        for stored in self.store.list::<Instance>() {
            let instance = &stored.record;
            let Some(node) = instance.node else { continue };
            let sum = all.entry(node).or_default();
            sum.instances += 1;
            sum.running += u64::from(instance.power != Power::Off);
            sum.vcpus += u64::from(instance.size.vcpus);
            sum.memory_mib += instance.size.memory_mib;
            // A VM's root disk is a volume.
            if instance.kind != Kind::Vm {
                sum.disk_gib += instance.size.disk_gib;
            }
        }
        for stored in self.store.list::<Volume>() {
            if let Some(node) = stored.record.node {
                all.entry(node).or_default().disk_gib += stored.record.size_gib;
            }
        }
        all
    }

    /// What all hosts together have.
    pub fn capacity(&self) -> Capacity {
        let mut sum = Capacity::default();
        for status in self.nodes().iter().filter_map(|(_, status)| status.as_ref()) {
            sum.cpus += u64::from(status.record.cpus);
            sum.memory_mib += status.record.memory_mib;
            sum.disk_gib += status.record.disk_gib;
        }
        sum
    }
}
