//! Placement: which host takes a new instance, and which range of uids it gets there.

use super::NewInstance;
use crate::{Control, Error, Result, transact::Transaction};
use model::{
    error::Code,
    flavor::Size,
    id::{InstanceId, NodeId},
    instance::{Instance, Power},
    node::{Node, NodeStatus},
    server_group::ServerGroup,
};
use std::collections::HashSet;

/// Places in a node's table of uid ranges: 65,536 ids each from 2^28 on. The last 2^22 ids up to 2^31 are for programs that the
/// node runs for itself.
pub const ID_SLOTS: u32 = 28_608;
const _: () = assert!((1 << 28) + ID_SLOTS * 65_536 == (1 << 31) - (1 << 22));
/// vCPUs that a host gives out for each of its CPUs.
pub const CPU_OVERCOMMIT: u64 = 16;
/// vCPUs that one instance may have for each of its host's CPUs.
pub const CPU_SHARE_MAX: u64 = 4;
/// Memory that a host keeps for itself, in MiB.
pub const RESERVED_MIB: u64 = 512;

/// What an instance needs of its host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needs {
    size: Size,
    /// Its memory is taken and not only limited.
    own_kernel: bool,
    /// A machine is made for it, which has memory beside its own.
    in_machine: bool,
}

impl Needs {
    fn of_new(new: &NewInstance, size: Size) -> Self {
        Self { size, own_kernel: new.has_own_kernel(), in_machine: !new.isolation.is_shared() }
    }

    pub(super) fn of(instance: &Instance, size: Size) -> Self {
        Self { size, own_kernel: instance.has_own_kernel(), in_machine: !instance.isolation.is_shared() }
    }

    /// What it takes of a host, in MiB.
    fn memory_mib(&self, host: &NodeStatus) -> u64 {
        let beside_mib = if self.in_machine { host.guest_overhead_mib() } else { 0 };
        self.size.memory_mib.saturating_add(beside_mib)
    }
}

impl Control {
    /// Chooses a host with room that the group's policy allows, and a free uid range on it.
    pub(super) fn place(
        &self,
        tx: &mut Transaction,
        new: &NewInstance,
        size: Size,
        group: Option<&ServerGroup>,
    ) -> Result<(NodeId, u32)> {
        let needs = Needs::of_new(new, size);
        let mut reasons = vec![];
        let mut nodes = self.store.list::<Node>();
        let hosts = group.map_or(vec![], |group| self.hosts_of_server_group(group));
        if let Some(group) = group {
            nodes.sort_by_key(|node| group.distance(&hosts, node.record.id));
        }
        for node in nodes {
            let unfit = |group: &&ServerGroup| !group.allows(&hosts, node.record.id);
            let of_group = group.filter(unfit).map(|group| {
                format!("the policy {} of server group {}", group.policy.as_str(), group.meta.name)
            });
            match of_group.or_else(|| self.refusal_of(&node.record, needs)) {
                None => {
                    let slot = self.free_slot(tx, node.record.id)?;
                    return Ok((node.record.id, slot));
                }
                Some(reason) => reasons.push(format!("{}: {reason}", node.record.name)),
            }
        }
        let message = match reasons.as_slice() {
            [] => "this cloud has no host yet".to_string(),
            reasons => format!("no host takes it ({})", reasons.join("; ")),
        };
        Err(Error::new(Code::NoCapacity, message)
            .field("flavor")
            .hint("choose a smaller flavor, or stop or delete instances (`holm ls`)"))
    }

    /// Why a host does not take a new instance of this size.
    fn refusal_of(&self, node: &Node, needs: Needs) -> Option<String> {
        if !node.schedulable {
            return Some("takes no new instances".into());
        }
        self.refusal_beside(node, needs, None)
    }

    /// Why a host has no room for this size, beside all that it has but `except`.
    pub(super) fn refusal_beside(
        &self,
        node: &Node,
        needs: Needs,
        except: Option<InstanceId>,
    ) -> Option<String> {
        let status = self.store.get::<NodeStatus>(&node.id.to_string())?;
        let status = &status.record;
        let Needs { size, own_kernel, .. } = needs;
        if own_kernel && status.qemu.is_empty() {
            return Some("QEMU is not installed (apt install qemu-system-x86)".into());
        }
        let mut here = self.store.list::<Instance>();
        here.retain(|i| i.record.node == Some(node.id) && i.record.power != Power::Off);
        here.retain(|i| Some(i.record.meta.id) != except);
        // What a container is given is a limit and no reservation: it takes what it uses.
        here.retain(|i| i.record.has_own_kernel());
        let used_mib: u64 = here.iter().map(|i| Needs::of(&i.record, i.record.size).memory_mib(status)).sum();
        let used_vcpus: u64 = here.iter().map(|i| u64::from(i.record.size.vcpus)).sum();
        let room_mib = status.memory_mib.saturating_sub(RESERVED_MIB);
        if own_kernel && used_mib + needs.memory_mib(status) > room_mib {
            let asked = needs.memory_mib(status);
            return Some(format!("{asked} MiB of memory asked, {used_mib} of {room_mib} MiB given to VMs"));
        }
        if size.memory_mib > status.memory_mib {
            return Some(format!(
                "{} MiB of memory asked, it has {} MiB",
                size.memory_mib, status.memory_mib
            ));
        }
        let room_vcpus = u64::from(status.cpus) * CPU_OVERCOMMIT;
        if u64::from(size.vcpus) > u64::from(status.cpus).max(1) * CPU_SHARE_MAX
            || (own_kernel && used_vcpus + u64::from(size.vcpus) > room_vcpus)
        {
            return Some(format!(
                "{} vCPUs asked, {used_vcpus} of {room_vcpus} given to VMs on {} CPUs",
                size.vcpus, status.cpus
            ));
        }
        None
    }

    fn free_slot(&self, tx: &mut Transaction, node: NodeId) -> Result<u32> {
        let instances = self.store.list::<Instance>();
        let used: HashSet<u32> = instances
            .iter()
            .filter(|i| i.record.node == Some(node))
            .filter_map(|i| i.record.id_slot)
            .collect();
        let first = rand::random::<u32>() % 1024;
        let slot = (0..ID_SLOTS)
            .map(|step| (first + step) % ID_SLOTS)
            .find(|slot| !used.contains(slot))
            .ok_or_else(|| {
                Error::new(Code::NoCapacity, format!("the host has {ID_SLOTS} instances already"))
            })?;
        tx.claim(&format!("slot/{node}"), &slot.to_string(), "instance");
        Ok(slot)
    }
}
