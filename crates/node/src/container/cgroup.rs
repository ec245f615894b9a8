//! The control groups of a pod: one for the pod as a whole, and one below it for each container.
//!
//! ```text
//!   <root>/<pod>            limits of the instance; no process of its own
//!   <root>/<pod>/<name>     limits of a container; its processes and those started beside them
//!   <root>/<pod>/<name>/…   what the init of a system container makes of its own part
//! ```
//!
//! The shim itself stays outside, so that freezing, killing or an exhausted memory limit never meet it.

use super::bundle::{Limits, Places};
use std::io;
use sys::cgroup::{DiskTraffic, Limits as KernelLimits, Stats, Tree};

/// The control groups of one pod.
#[derive(Debug, Clone)]
pub struct PodGroup {
    tree: Tree,
    name: String,
}

fn kernel_limits(limits: &Limits) -> KernelLimits {
    KernelLimits {
        cpu_quota_us: limits.cpu_quota_us,
        cpu_weight: limits.cpu_weight.map(|weight| weight.clamp(1, 10_000) as u32),
        memory_max_bytes: limits.memory_max_bytes,
        // A limit on memory that swap would soften is none.
        swap_max_bytes: limits.memory_max_bytes.map(|_| 0),
        pids_max: limits.pids_max,
    }
}

impl PodGroup {
    /// The groups of a pod, whether they are there or not.
    pub fn open(places: &Places) -> io::Result<Self> {
        Ok(Self { tree: Tree::probe(&places.cgroup_root)?, name: places.cgroup.clone() })
    }

    /// Makes the pod's group with these limits.
    pub fn create(places: &Places, limits: &Limits) -> io::Result<Self> {
        let group = Self::open(places)?;
        group.set(limits)?;
        Ok(group)
    }

    /// Sets the limits of the pod.
    pub fn set(&self, limits: &Limits) -> io::Result<()> {
        Ok(self.tree.create(&self.name, &kernel_limits(limits))?)
    }

    fn of(&self, container: &str) -> String {
        format!("{}/{container}", self.name)
    }

    /// Makes the group of a container.
    pub fn add_container(&self, container: &str, limits: &Limits) -> io::Result<()> {
        Ok(self.tree.create(&self.of(container), &kernel_limits(limits))?)
    }

    /// Makes the group of a container whose init makes groups of its own, and gives it to its root. What an earlier run made
    /// below goes first: with groups below it that use controllers, no process could enter it.
    pub fn add_system(&self, container: &str, limits: &Limits, owner: u32) -> io::Result<()> {
        self.tree.delete(&self.of(container))?;
        self.add_container(container, limits)?;
        Ok(self.tree.delegate(&self.of(container), owner)?)
    }

    /// Puts a process into the group of a container.
    pub fn admit(&self, container: &str, pid: i32) -> io::Result<()> {
        Ok(self.tree.add(&self.of(container), pid)?)
    }

    /// Puts an init into the group that [`Self::add_system`] made.
    pub fn admit_init(&self, container: &str, pid: i32) -> io::Result<()> {
        Ok(self.tree.add_delegated(&self.of(container), pid)?)
    }

    /// Puts a process to where the container's init is by now.
    pub fn admit_beside(&self, container: &str, init: i32, pid: i32) -> io::Result<()> {
        Ok(self.tree.add_beside(&self.of(container), init, pid)?)
    }

    /// How often the kernel killed a process of a container for lack of memory.
    pub fn oom_kills(&self, container: &str) -> u64 {
        self.tree.oom_kills(&self.of(container)).unwrap_or(0)
    }

    /// What the pod uses.
    pub fn stats(&self) -> io::Result<Stats> {
        Ok(self.tree.stats(&self.name)?)
    }

    /// What passed between the pod and disks; `None` where the kernel does not count it.
    pub fn disk_traffic(&self) -> io::Result<Option<DiskTraffic>> {
        Ok(self.tree.disk_traffic(&self.name)?)
    }

    /// Stops every process of the pod where it is.
    pub fn freeze(&self) -> io::Result<()> {
        Ok(self.tree.freeze(&self.name)?)
    }

    /// Lets them go on.
    pub fn thaw(&self) -> io::Result<()> {
        Ok(self.tree.thaw(&self.name)?)
    }

    /// The processes of the pod.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        Ok(self.tree.processes(&self.name)?)
    }

    /// Kills every process of a container, and waits until they are gone.
    pub fn kill_container(&self, container: &str) -> io::Result<()> {
        Ok(self.tree.kill(&self.of(container))?)
    }

    /// Kills every process of the pod, frozen or not, and waits until they are gone.
    pub fn kill(&self) -> io::Result<()> {
        Ok(self.tree.kill(&self.name)?)
    }

    /// Removes the groups, which must have no processes. None there is no error.
    pub fn delete(&self) -> io::Result<()> {
        Ok(self.tree.delete(&self.name)?)
    }
}
