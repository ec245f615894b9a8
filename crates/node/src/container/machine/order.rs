//! What a pod's machine is, and what its guest is told. Pure.

use super::{GUEST_BASE, GUEST_LOG, GUEST_NETNS, GUEST_ROOT, GUEST_RUN, GUEST_STATE, GUEST_VOLUMES};
use crate::{
    container::bundle::{Limits, Places, Pod, Source},
    vm::{self, accel::Accelerator},
};
use model::plan::{DiskPlan, FileSetPlan, NicPlan};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The virtual machine of a pod, ready to run: part of the pod's file, and all that the relay reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// QEMU.
    pub program: PathBuf,
    /// Versioned machine type.
    pub machine_type: String,
    /// Processor model as QEMU spells it.
    pub cpu_model: String,
    /// Who runs the guest's instructions.
    pub accelerator: Accelerator,
    /// The same with the reason, for people.
    pub acceleration: String,
    /// Group that may open `/dev/kvm`.
    pub kvm_group: Option<u32>,
    /// Packets pass through the host's kernel (`/dev/vhost-net`).
    pub vhost_net: bool,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory of the machine in MiB: the pod's and what the guest's own kernel and shim take.
    pub memory_mib: u64,
    /// The part of it that the pod cannot have.
    pub overhead_mib: u64,
    /// Kernel image.
    pub kernel: PathBuf,
    /// Initial RAM disk with holm and the kernel's modules.
    pub initramfs: PathBuf,
    /// Limits of the control group that QEMU runs in. Those of the pod hold inside.
    pub limits: Limits,
    /// Disks in their order.
    pub disks: Vec<MachineDisk>,
    /// Network cards in their order: `eth0`, `eth1` …
    pub nics: Vec<NicPlan>,
    /// The pod is not started in it: it is there for work on the files of one that does not run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub maintenance: bool,
}

impl Machine {
    /// The same as virtual hardware, as that of VMs is told.
    pub fn hardware(&self) -> vm::machine::Machine {
        vm::machine::Machine {
            machine_type: self.machine_type.clone(),
            accelerator: self.accelerator,
            cpu_model: self.cpu_model.clone(),
            sockets: 1,
            cores: self.vcpus,
            threads: 1,
            memory_mib: self.memory_mib,
            uefi: false,
            qemu_version: String::new(),
            layout: Default::default(),
        }
    }
}

/// A disk of a pod's machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineDisk {
    /// File, layers below it, serial number by which the guest finds it. Disks that are no volumes have ids that are no volume's.
    pub disk: DiskPlan,
    /// What it is.
    pub role: DiskRole,
}

/// What a disk of a pod's machine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "role")]
pub enum DiskRole {
    /// The read-only root file system of the image of these containers.
    Base {
        /// Names of the containers.
        containers: Vec<String>,
    },
    /// What the containers write.
    Root,
    /// A volume.
    Volume,
}

/// What the guest of a pod is told when it has booted. Everything in it is in the guest's own terms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The pod, with paths of the guest and its secret variables among the others: in the guest nothing of it is written but to
    /// memory.
    pub pod: Pod,
    /// Files that containers are shown.
    pub files: Vec<FileSetPlan>,
    /// Network cards in their order: `eth0`, `eth1` …
    pub nics: Vec<NicPlan>,
    /// Disks to be mounted.
    pub disks: Vec<GuestDisk>,
    /// The host's time in nanoseconds since 1970.
    pub now_ns: i64,
    /// Nothing of the pod is started: its files alone are worked on.
    #[serde(default)]
    pub maintenance: bool,
}

/// A disk, as the guest mounts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestDisk {
    /// Serial number.
    pub serial: String,
    /// Where it is mounted: each of these shows the same file system.
    pub places: Vec<PathBuf>,
    /// Writes are refused.
    pub read_only: bool,
}

/// What the guest of a pod is told. `files` are those that its containers are shown.
pub fn order(pod: &Pod, machine: &Machine, files: Vec<FileSetPlan>, now_ns: i64) -> Order {
    let mut inside = pod.clone();
    inside.machine = None;
    inside.root_disk = None;
    inside.limits.disk_bytes = None;
    inside.places = Places {
        state: GUEST_STATE.into(),
        run: GUEST_RUN.into(),
        netns: GUEST_NETNS.into(),
        cgroup_root: "holm".into(),
        cgroup: "pod".into(),
    };
    for container in &mut inside.containers {
        container.layers = vec![Path::new(GUEST_BASE).join(&container.name)];
        let own = container.upper.file_name().unwrap_or(container.name.as_ref());
        container.upper = Path::new(GUEST_ROOT).join(own);
        container.log = GUEST_LOG.into();
        for mount in &mut container.mounts {
            if let Source::Bind { path, .. } = &mut mount.source {
                *path = path_inside(path, pod, machine, &inside.places);
            }
        }
    }
    let disks = machine.disks.iter().map(|disk| disk.inside()).collect();
    Order { pod: inside, files, nics: machine.nics.clone(), disks, now_ns, maintenance: machine.maintenance }
}

/// Where what lies at a path of the host is in the guest: a volume, or a file that came with the pod.
fn path_inside(path: &Path, pod: &Pod, machine: &Machine, places: &Places) -> PathBuf {
    if let Ok(rest) = path.strip_prefix(pod.places.files()) {
        return places.files().join(rest);
    }
    let is_it = |disk: &&MachineDisk| disk.role == DiskRole::Volume && disk.disk.path == path;
    match machine.disks.iter().find(is_it) {
        Some(volume) => Path::new(GUEST_VOLUMES).join(&volume.disk.serial),
        None => path.to_path_buf(),
    }
}

impl MachineDisk {
    fn inside(&self) -> GuestDisk {
        let places = match &self.role {
            DiskRole::Base { containers } => {
                containers.iter().map(|name| Path::new(GUEST_BASE).join(name)).collect()
            }
            DiskRole::Root => vec![GUEST_ROOT.into()],
            DiskRole::Volume => vec![Path::new(GUEST_VOLUMES).join(&self.disk.serial)],
        };
        GuestDisk { serial: self.disk.serial.clone(), places, read_only: self.disk.read_only }
    }
}
