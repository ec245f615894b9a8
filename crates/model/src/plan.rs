//! Plans: what a driver needs to run one instance on one host, fully resolved.
//!
//! A plan is made from the store's records by the node and is the only input of a driver. It holds paths of this host
//! and never secrets beside what the guest itself is meant to read.

use crate::{
    address::Mac,
    id::{InstanceId, PortId, ProjectId, VolumeId},
    instance::{
        Grant,
        content::{MemoryMount, Role, VolumeGroup},
        isolation::Isolation,
        lifecycle::Lifecycle,
        pod::Shared,
        ulimit::Ulimits,
    },
    metadata::GuestData,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

/// One instance on one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstancePlan {
    /// The instance.
    pub id: InstanceId,
    /// Its owner.
    pub project: ProjectId,
    /// Which of the boots that were asked for this is: a driver keeps it and tells it when it observes, so that a
    /// repeated start and a reboot can be told apart after a crash.
    pub boot: u64,
    /// Name as the user gave it.
    pub name: String,
    /// DNS label made of the name.
    pub hostname: String,
    /// Host uids and gids that belong to this instance alone.
    pub id_range: IdRange,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Share of the CPU under contention, 1 to 10,000; 100 is usual (cgroup v2 `cpu.weight`).
    pub cpu_weight: u32,
    /// Most processes (containers) or threads (QEMU).
    pub pids_max: u64,
    /// Network interfaces in their order in the guest.
    pub nics: Vec<NicPlan>,
    /// Disks (VMs) or volumes (containers), the root disk of a VM first.
    pub disks: Vec<DiskPlan>,
    /// What the kinds do not share.
    pub body: Body,
}

impl InstancePlan {
    /// Whether it is a pod with a machine of its own.
    pub fn is_pod_in_machine(&self) -> bool {
        matches!(&self.body, Body::Pod(pod) if pod.isolation == Isolation::Vm)
    }

    /// What it gives of the host's CPUs, memory and disk.
    pub fn grant(&self) -> Grant {
        Grant {
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            cpu_weight: self.cpu_weight,
            disk_gib: match &self.body {
                Body::Pod(PodPlan { root_disk: Some(disk), .. }) => disk.size_gib,
                _ => 0,
            },
        }
    }
}

/// A range of host uids and gids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id. QEMU runs as it; a container's root is it.
    pub base: u32,
    /// How many.
    pub count: u32,
}

/// What the kinds of instances do not share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Body {
    /// A virtual machine.
    Vm(VmPlan),
    /// A pod of containers.
    Pod(PodPlan),
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NicPlan {
    /// The port.
    pub port: PortId,
    /// Host-side device in the network's namespace: a tap (VM, pod with a machine of its own) or one end of a veth (pod).
    pub device: String,
    /// Handle of the network's namespace.
    pub netns: PathBuf,
    /// Ethernet address in the guest.
    pub mac: Mac,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Addresses with the prefix length of their subnet.
    pub addresses: Vec<IpNet>,
    /// Ranges of its IPv6 subnets, whose prefixes the addresses do not tell.
    #[serde(default)]
    pub ranges_v6: Vec<IpNet>,
    /// IPv4 gateway.
    pub gateway_v4: Option<Ipv4Addr>,
    /// IPv6 gateway: `fe80::1` on every routed network.
    pub gateway_v6: Option<Ipv6Addr>,
    /// DNS servers.
    pub dns: Vec<IpAddr>,
    /// DNS search domains.
    pub search: Vec<String>,
}

/// Format of a disk's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    /// Plain bytes.
    Raw,
    /// QEMU copy-on-write, version 3.
    Qcow2,
}

impl DiskFormat {
    /// Name as QEMU spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiskPlan {
    /// The volume.
    pub volume: VolumeId,
    /// Its file (VM, pod with a machine of its own) or directory (container).
    pub path: PathBuf,
    /// Format of the file.
    pub format: DiskFormat,
    /// Files below it, nearest first. Opened read-only.
    pub backing: Vec<BackingFile>,
    /// Writes are refused.
    pub read_only: bool,
    /// Serial number by which the guest finds it: the first 20 characters of the volume's id.
    pub serial: String,
    /// Place in the firmware's boot order, lowest first.
    pub boot_index: Option<u32>,
    /// Where a container sees it.
    #[serde(default)]
    pub mount_path: Option<PathBuf>,
}

/// A file that a qcow2 disk stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackingFile {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: DiskFormat,
}

/// What only virtual machines have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VmPlan {
    /// How it boots.
    pub boot: BootPlan,
    /// What the guest may read of itself, on its config drive and from the metadata service.
    pub guest: GuestData,
    /// Offer a config drive.
    pub config_drive: bool,
    /// Acceleration wanted.
    pub accelerator: Accelerator,
}

/// Acceleration of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// KVM where it truly runs guests, else TCG.
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Emulation.
    Tcg,
}

/// How a VM boots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum BootPlan {
    /// The machine's firmware reads the disk.
    Firmware {
        /// UEFI rather than BIOS.
        uefi: bool,
    },
    /// QEMU loads a kernel.
    Kernel {
        /// Kernel image.
        kernel: PathBuf,
        /// Initial RAM disk.
        initrd: Option<PathBuf>,
        /// Kernel command line.
        cmdline: String,
    },
}

/// What only pods have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PodPlan {
    /// Containers, in the order in which they start.
    pub containers: Vec<ContainerPlan>,
    /// Names told in /etc/hosts beside the pod's own.
    #[serde(default)]
    pub extra_hosts: Vec<(IpAddr, String)>,
    /// What all its containers write goes here, where that is limited.
    #[serde(default)]
    pub root_disk: Option<RootDiskPlan>,
    /// Sets of small files that containers are shown.
    #[serde(default)]
    pub files: Vec<FileSetPlan>,
    /// What its containers share beside network and volumes.
    #[serde(default)]
    pub shared: Shared,
    /// What stands between its containers and the host.
    #[serde(default)]
    pub isolation: Isolation,
}

/// A set of files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileSetPlan {
    /// Name of its directory.
    pub name: String,
    /// Path in it, permissions and bytes of each file.
    pub files: Vec<FilePlan>,
}

/// A file of a set.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct FilePlan {
    /// Path in the set.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// Its bytes, which may be a secret.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for FilePlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (mode {:o}, {} bytes)", self.path, self.mode, self.bytes.len())
    }
}

/// The limited space that the containers of a pod write to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootDiskPlan {
    /// A file that holds a file system; removed with the containers.
    pub path: PathBuf,
    /// Its size.
    pub size_gib: u64,
}

/// Variables whose values are not shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretEnv(pub Vec<(String, String)>);

impl std::fmt::Debug for SecretEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// One container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerPlan {
    /// Name inside the pod.
    pub name: String,
    /// Unpacked layers, lowest first.
    pub layers: Vec<PathBuf>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// More of it, which is written to no disk.
    #[serde(default)]
    pub secret_env: SecretEnv,
    /// Working directory.
    pub cwd: PathBuf,
    /// User as docker spells it: `name`, `uid`, `name:group`, `uid:gid` or empty for root.
    pub user: String,
    /// A terminal instead of pipes.
    pub tty: bool,
    /// Rows and columns of the terminal at first.
    #[serde(default)]
    pub terminal_size: Option<(u16, u16)>,
    /// Standard input stays open.
    pub stdin_open: bool,
    /// What happens when it ends.
    pub restart: RestartPolicy,
    /// Signal that asks it to stop.
    pub stop_signal: i32,
    /// Seconds between asking and killing.
    pub grace_s: u32,
    /// File systems beside the root.
    pub mounts: Vec<MountPlan>,
    /// The root file system cannot be written.
    pub read_only_rootfs: bool,
    /// Capabilities beside the default set, like `CAP_NET_ADMIN`.
    pub cap_add: Vec<String>,
    /// Capabilities less than the default set; `ALL` drops every one.
    pub cap_drop: Vec<String>,
    /// Memory of this container in MiB, within the pod's; `None` means the pod's.
    pub memory_mib: Option<u64>,
    /// CPUs of this container in thousandths; `None` means the pod's.
    pub cpu_millis: Option<u32>,
    /// Limits of its processes, instead of the usual ones.
    #[serde(default)]
    pub ulimits: Ulimits,
    /// Rotation of its log.
    pub log: LogLimits,
    /// Writable root files go here; removed with the container.
    pub upper: PathBuf,
    /// Labels told to clients.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When it runs, of the pod's containers.
    #[serde(default)]
    pub role: Role,
    /// Its program is an init, which is looked for in the image where `argv` is empty. A stop signal of 0 is then the init's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemPlan>,
    /// What is done for it after its start and before its end.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// Groups that its user is in beside those that the image says.
    #[serde(default)]
    pub groups: Vec<u32>,
    /// A small init is its first process.
    #[serde(default)]
    pub init: bool,
    /// Size of `/dev/shm` in bytes; the usual one when `None`.
    #[serde(default)]
    pub shm_bytes: Option<u64>,
}

/// Who a system container is, told to its files before its first boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemPlan {
    /// Public keys that it lets in by SSH.
    pub keys: Vec<String>,
    /// The user who is let in.
    pub login: String,
    /// Its machine id: 32 hex digits (machine-id(5)).
    pub machine_id: String,
}

/// Rotation of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Size in bytes at which a file is rotated.
    pub size_bytes_max: u64,
    /// Files kept.
    pub files_max: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { size_bytes_max: 10 * 1024 * 1024, files_max: 3 }
    }
}

/// What happens when a container's program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum RestartPolicy {
    /// Stay ended.
    #[default]
    No,
    /// Start again after a failure, at most so often (0: without end).
    OnFailure {
        /// Most restarts in a row.
        retries_max: u32,
    },
    /// Start again whatever the exit code was.
    Always,
    /// As always, but a stop by the user outlives a restart of the host.
    UnlessStopped,
    /// As on a failure, without end; and one whose health check finds it unhealthy is ended and started again.
    OnUnhealthy,
}

/// A file system in a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountPlan {
    /// Where in the container.
    pub target: PathBuf,
    /// What.
    pub source: MountSource,
    /// Writes are refused.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum MountSource {
    /// A directory or file of the host.
    Bind {
        /// The path on the host.
        path: PathBuf,
    },
    /// A directory or file of the host, with more asked of it.
    Part {
        /// The path on the host.
        path: PathBuf,
        /// A path in it, instead of all of it; made as a directory where it is missing.
        part: Option<PathBuf>,
        /// Group that all of it is given to.
        group: Option<VolumeGroup>,
    },
    /// Memory.
    Tmpfs {
        /// Most bytes.
        size_bytes: u64,
    },
    /// A directory that the host's operator lends, or what lies in it.
    Lent {
        /// The directory.
        directory: PathBuf,
        /// The way from there.
        part: Option<PathBuf>,
        /// It is to be there; else it is made as a directory where it is missing.
        exists: bool,
    },
    /// Memory, with more asked of it; its path is the target's.
    Memory(MemoryMount),
    /// Files of the pod.
    Files {
        /// Name of the set.
        set: String,
        /// A path in it, instead of all of it.
        path: Option<PathBuf>,
        /// Group that all of it is given to.
        #[serde(default)]
        group: Option<VolumeGroup>,
    },
}
