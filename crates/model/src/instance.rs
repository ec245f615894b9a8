//! Instances: virtual machines, pods of containers and system containers, one noun.
//!
//! ```text
//!            control writes            the node writes
//!   user --> Instance (spec)    +      InstanceStatus     --> phase(): what users see
//!                    \_____________ next_step() ____________ what the node does next
//! ```

pub mod content;
pub mod extra_host;
pub mod host_directory;
pub mod isolation;
pub mod keys;
pub mod lifecycle;
pub mod lock;
pub mod order;
pub mod phase;
pub mod pod;
pub mod rescue;
pub mod step;
pub mod succession;
pub mod tag;
pub mod trial;
pub mod ulimit;

use content::{FileSet, MemoryMount, Mount, Role};
use extra_host::ExtraHost;
use isolation::Isolation;
use keys::NamedKey;
use lifecycle::Lifecycle;
use lock::Lock;
use pod::Shared;
use rescue::Rescue;
use succession::Succession;
use tag::Tag;
use trial::Trial;
use ulimit::Ulimits;

use crate::{
    error::Fault,
    flavor::Size,
    health::{HealthSpec, probe::Probes},
    id::{FlavorId, ImageId, InstanceId, NodeId, PortId, ServerGroupId, UserId, VolumeId},
    meta::Meta,
    plan::{Accelerator, LogLimits, RestartPolicy},
    publish::Publish,
    record::Record,
    schedule::Schedule,
    seal::Sealed,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

/// Most ports of one instance (q35 with spare root ports has room for these).
pub const PORTS_MAX: usize = 8;
/// Most volumes of one instance.
pub const VOLUMES_MAX: usize = 16;
/// Most containers of one pod.
pub const CONTAINERS_MAX: usize = 32;
/// Longest wait for a guest that was asked to stop, in seconds.
pub const GRACE_S_MAX: u32 = 3600;
/// Least and most weight of an instance when CPUs are short.
pub const CPU_WEIGHT: std::ops::RangeInclusive<u32> = 1..=10_000;
/// Weight of an instance that asks for none.
pub const CPU_WEIGHT_USUAL: u32 = 100;

/// An instance, as the user wants it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Head.
    pub meta: Meta<InstanceId>,
    /// User who made it; `None` where nobody was known by a user.
    #[serde(default)]
    pub user: Option<UserId>,
    /// Kind.
    pub kind: Kind,
    /// Size, copied from the flavor so that a changed flavor changes no instance.
    pub size: Size,
    /// Its part of the host's CPUs when they are short: with 300 it gets three times what one with 100 gets.
    #[serde(default = "usual_weight")]
    pub cpu_weight: u32,
    /// Flavor it was made with.
    pub flavor: Option<FlavorId>,
    /// Name of that flavor.
    pub flavor_name: String,
    /// Image it was made from; a pod's containers name theirs.
    pub image: Option<ImageId>,
    /// Ports, in the order of the guest's interfaces.
    pub ports: Vec<PortId>,
    /// Ports of its host that lead to it.
    #[serde(default)]
    pub publish: Vec<Publish>,
    /// Volumes, a VM's root disk first.
    pub volumes: Vec<VolumeId>,
    /// SSH keys that it lets in: name and public key, copied when they were given to it.
    #[serde(default)]
    pub keys: Vec<NamedKey>,
    /// User-data in base64.
    #[serde(default)]
    pub user_data_base64: Option<String>,
    /// Offer a config drive (VM).
    #[serde(default)]
    pub config_drive: bool,
    /// Acceleration wanted (VM).
    pub accelerator: Accelerator,
    /// Containers (pod).
    #[serde(default)]
    pub containers: Vec<ContainerSpec>,
    /// Whether it is meant to run.
    pub power: Power,
    /// How many boots were asked for; raised by start and reboot. A driver tells which boot it runs.
    pub boots: u64,
    /// The last reboot pulls the plug instead of asking the guest.
    #[serde(default)]
    pub hard: bool,
    /// Start again when the host starts.
    #[serde(default)]
    pub autostart: bool,
    /// Instances that are to run before it starts with its host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub start_after: Vec<InstanceId>,
    /// Start again when it ends by itself (VM; containers have their own).
    #[serde(default)]
    pub restart: RestartPolicy,
    /// Seconds between asking a guest to stop and pulling the plug.
    pub grace_s: u32,
    /// Delete it when it ends.
    #[serde(default)]
    pub remove_on_exit: bool,
    /// Host that it was placed on.
    #[serde(default)]
    pub node: Option<NodeId>,
    /// Place in the node's table of uid ranges.
    #[serde(default)]
    pub id_slot: Option<u32>,
    /// Refuses deletion and changes of its power while set.
    #[serde(default)]
    pub lock: Option<Lock>,
    /// Words hung on it.
    #[serde(default)]
    pub tags: BTreeSet<Tag>,
    /// Where its users reach it, if they said so.
    #[serde(default)]
    pub access: Access,
    /// The boot that was the first on the disks of the last rebuild; 0 when it never was rebuilt.
    #[serde(default)]
    pub rebuilt: u64,
    /// The boot that was the first on its own root disk after the last rescue; missing when it never was rescued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrescued: Option<u64>,
    /// How often a pod was rebuilt: each build has writable layers of its own.
    #[serde(default)]
    pub build: u32,
    /// A size on trial, until it is confirmed or taken back.
    #[serde(default)]
    pub trial: Option<Trial>,
    /// It was put away: stopped for a while, until somebody starts it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shelved: bool,
    /// It sleeps: its memory is kept on disk until somebody lets it go on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
    /// It runs from another disk, to be rescued (VM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescue: Option<Rescue>,
    /// Group whose policy chose its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_group: Option<ServerGroupId>,
    /// Names that its containers find in /etc/hosts (pod); told to those that start from then on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<ExtraHost>,
    /// What it takes over with its first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succession: Option<Succession>,
    /// Files that came with it (pod).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileSet>,
    /// When it is started by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// What its containers share beside network and volumes (pod).
    #[serde(default, skip_serializing_if = "Shared::is_empty")]
    pub shared: Shared,
    /// What stands between its containers and the host (pod); the same for its whole life.
    #[serde(default, skip_serializing_if = "Isolation::is_shared")]
    pub isolation: Isolation,
}

/// Addresses at which users say that an instance is reached. They are told, and decide nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// By IPv4.
    #[serde(default)]
    pub v4: Option<Ipv4Addr>,
    /// By IPv6.
    #[serde(default)]
    pub v6: Option<Ipv6Addr>,
}

impl Instance {
    /// What its project is charged for CPUs and memory: of two sizes on trial the larger of each, so that either can be
    /// had back.
    pub fn charged(&self) -> Size {
        match &self.trial {
            None => self.size,
            Some(trial) => trial::larger(self.size, trial.size),
        }
    }
}

fn usual_weight() -> u32 {
    CPU_WEIGHT_USUAL
}

impl Instance {
    /// Whether it runs in a machine of its own: with disks and taps, and a kernel that finds its CPUs and memory when it
    /// boots. All others share the host's kernel.
    pub fn has_own_kernel(&self) -> bool {
        self.kind == Kind::Vm || self.isolation == Isolation::Vm
    }

    /// Seconds from asking it to end until it is killed. Hooks are part of its grace period; a program whose hook took all
    /// of that has a moment more.
    pub fn kill_after_s(&self) -> u32 {
        match self.containers.iter().any(|container| container.lifecycle.pre_stop.is_some()) {
            true => self.grace_s.saturating_add(lifecycle::EXTENSION_S),
            false => self.grace_s,
        }
    }

    /// Its own root disk (VM): the first of its volumes, but for one in rescue.
    pub fn root_volume(&self) -> Option<VolumeId> {
        let place = usize::from(self.rescue.is_some());
        self.volumes.get(place).copied().filter(|_| self.kind == Kind::Vm)
    }

    /// What it is to get of its host's CPUs, memory and disk.
    pub fn grant(&self) -> Grant {
        Grant {
            vcpus: self.size.vcpus,
            memory_mib: self.size.memory_mib,
            cpu_weight: self.cpu_weight,
            disk_gib: self.own_disk_gib(),
        }
    }

    /// Most that its containers may write to their own files, in GiB; 0 is no limit, and what a VM has, whose root disk is
    /// a volume. What is on trial counts when it is confirmed, since a disk never shrinks.
    pub fn own_disk_gib(&self) -> u64 {
        match (&self.trial, self.kind) {
            (_, Kind::Vm) => 0,
            (Some(trial), _) => trial.size.disk_gib,
            (None, _) => self.size.disk_gib,
        }
    }
}

/// What an instance gets of its host's CPUs, memory and disk. What a running guest has may be behind the wish: a VM finds
/// other CPUs and other memory when it boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Weight when CPUs are short.
    pub cpu_weight: u32,
    /// Most that a pod's containers may write, in GiB; 0 is no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub disk_gib: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Kinds of instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A virtual machine with a kernel of its own.
    Vm,
    /// One or more containers that share network and volumes.
    Container,
    /// A root file system with an init of its own on the host's kernel.
    System,
}

impl Kind {
    /// Name on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vm => "vm",
            Self::Container => "container",
            Self::System => "system",
        }
    }
}

/// Whether an instance is meant to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// Runs.
    On,
    /// Does not run.
    Off,
    /// Frozen in memory.
    Paused,
}

/// A container of a pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Name inside the pod.
    pub name: String,
    /// Image; set by control from what the user named.
    pub image: Option<ImageId>,
    /// Instead of the image's entrypoint.
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    /// Instead of the image's arguments.
    #[serde(default)]
    pub args: Option<Vec<String>>,
    /// Environment beside the image's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Instead of the image's working directory.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// Instead of the image's user.
    #[serde(default)]
    pub user: Option<String>,
    /// A terminal.
    #[serde(default)]
    pub tty: bool,
    /// Standard input stays open.
    #[serde(default)]
    pub stdin_open: bool,
    /// What happens when it ends.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// The root file system cannot be written.
    #[serde(default)]
    pub read_only: bool,
    /// Capabilities beside the default ones.
    #[serde(default)]
    pub cap_add: Vec<String>,
    /// Capabilities less than the default ones.
    #[serde(default)]
    pub cap_drop: Vec<String>,
    /// Mount paths that are kept in memory.
    #[serde(default)]
    pub tmpfs: Vec<String>,
    /// Rotation of its log.
    #[serde(default)]
    pub log: LogLimits,
    /// Host name inside, instead of the one made of the instance's name; the first container's is the pod's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Signal that asks it to stop, instead of the image's: `SIGINT`, `INT` or `2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// CPUs in thousandths, within the instance's; all of these when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Most processes and threads; holm's own limit when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_max: Option<u64>,
    /// Rows and columns of its terminal until somebody changes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal_size: Option<(u16, u16)>,
    /// Standard input ends for good with the first client that was attached to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin_once: bool,
    /// Limits of its processes instead of the usual ones, as far as its host allows them.
    #[serde(default, skip_serializing_if = "Ulimits::is_empty")]
    pub ulimits: Ulimits,
    /// How its health is checked, over what its image says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSpec>,
    /// When it runs, of the pod's containers.
    #[serde(default, skip_serializing_if = "Role::is_main")]
    pub role: Role,
    /// Volumes and files of the pod that it alone is shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Variables of its environment whose values are sealed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_env: BTreeMap<String, Sealed>,
    /// Memory in MiB, within the instance's; all of it when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// What is asked of it again and again, and what follows.
    #[serde(default, skip_serializing_if = "Probes::is_empty")]
    pub probes: Probes,
    /// What is done for it after its start and before its end.
    #[serde(default, skip_serializing_if = "Lifecycle::is_empty")]
    pub lifecycle: Lifecycle,
    /// Groups that its user is in beside those that the image says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
    /// Its first process is a small init that hands signals on to the program and collects what nobody waits for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
    /// Size of `/dev/shm` in bytes; 64 MiB when `None`. Of a pod's containers, which share it, the largest counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_bytes: Option<u64>,
    /// Mounts that are kept in memory, with what is asked of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory_mounts: Vec<MemoryMount>,
}

impl Record for Instance {
    const TABLE: &'static str = "instance";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}

/// An instance, as the node that holds it sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// The instance.
    pub id: InstanceId,
    /// Node that writes this.
    pub node: NodeId,
    /// What was last seen.
    pub state: State,
    /// Boot that was last started (see `Instance::boots`).
    #[serde(default)]
    pub boot: u64,
    /// What is being done, in words: `fetching image 40 %`.
    #[serde(default)]
    pub progress: String,
    /// What is wrong.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// Generation of the wish that the fault answers.
    #[serde(default)]
    pub fault_generation: u64,
    /// Failed tries in a row.
    #[serde(default)]
    pub failures: u32,
    /// Starts by the restart policy in a row, each soon after the one before.
    #[serde(default)]
    pub restarts: u32,
    /// When the last of these was.
    #[serde(default)]
    pub restarted_at: Option<Timestamp>,
    /// When the guest was asked to stop, while it has not yet.
    #[serde(default)]
    pub stop_asked_at: Option<Timestamp>,
    /// Ports that the guest has now.
    #[serde(default)]
    pub ports: Vec<PortId>,
    /// Volumes that the guest has now.
    #[serde(default)]
    pub volumes: Vec<VolumeId>,
    /// What the last start gave it, and what was changed while it ran.
    #[serde(default)]
    pub grant: Option<Grant>,
    /// The host cannot let the disk of a running pod grow: it is larger after a restart.
    #[serde(default)]
    pub disk_waits: bool,
    /// Layers of these that it writes to, where that is not 0.
    #[serde(default)]
    pub layers: BTreeMap<VolumeId, u32>,
    /// Keys that the guest was given: at the first boot on its disks, and by its agent since.
    #[serde(default)]
    pub keys: Option<Vec<NamedKey>>,
    /// Why the guest has not taken the keys of the wish, in words; empty where nobody knows of a reason.
    #[serde(default)]
    pub keys_refused: String,
    /// Its memory is on disk: it goes on where it was when it is started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asleep: bool,
    /// Nothing of it is left on the host: its records may go.
    #[serde(default)]
    pub gone: bool,
    /// Id of the host's boot in which it was last seen running.
    #[serde(default)]
    pub host_boot: String,
    /// Facts for people: accelerator, machine type, guest OS, pid, containers.
    #[serde(default)]
    pub facts: serde_json::Map<String, serde_json::Value>,
    /// When this was written.
    pub at: Timestamp,
}

/// What was last seen of an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum State {
    /// Nothing is there yet.
    Absent,
    /// It runs since then.
    Running {
        /// Start of the guest.
        since: Timestamp,
    },
    /// It is frozen.
    Paused {
        /// Start of the guest.
        since: Timestamp,
    },
    /// It ran and ended.
    Stopped {
        /// Exit code, where there is one.
        code: Option<i32>,
        /// How it ended.
        cause: String,
        /// It ended by itself and not well.
        failed: bool,
        /// When that was seen.
        at: Timestamp,
    },
}

impl InstanceStatus {
    /// What is wrong with the wish as it is now: a wish that changed since is tried anew first.
    pub fn fault_of(&self, instance: &Instance) -> Option<&Fault> {
        self.fault.as_ref().filter(|_| self.fault_generation >= instance.meta.generation)
    }
}

impl Record for InstanceStatus {
    const TABLE: &'static str = "instance_status";
    fn key(&self) -> String {
        self.id.to_string()
    }
}
