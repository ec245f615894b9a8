//! Instances on the wire: views. What is asked for is in [`request`].

pub mod request;

pub use request::{
    AttachPort, AttachVolume, ContainerRequest, CreateInstance, ExtraHost, LockRequest, LogRequest,
    NetworkRequest, RebuildRequest, RescueRequest, ResizeRequest, RootRequest, SaveInstance, StopRequest,
    UlimitRequest, UpdateInstance, VolumeRequest,
};

use super::{
    Fault, Head, Reference,
    flavor::Size,
    health::{Health, HealthRequest},
    pod::{ContainerMount, FileSetNames, Lifecycle, MemoryMountRequest, Probes, SharedRequest},
    publish::PublishedPort,
    restart, schema,
};
use jiff::Timestamp;
use model::{
    address::Mac,
    instance::{Kind, Power, content::Role, isolation::Isolation, phase::Phase, tag::Tag},
    plan::{Accelerator, RestartPolicy},
    port::alias::Alias,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use utoipa::ToSchema;
use uuid::Uuid;

/// A virtual machine, a pod of containers or a system container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// Head.
    #[serde(flatten)]
    pub head: Head,
    /// Kind.
    #[schema(value_type = schema::InstanceKind)]
    pub kind: Kind,
    /// Where it is in its life.
    #[schema(value_type = schema::Phase)]
    pub phase: Phase,
    /// `starting`, `healthy` or `unhealthy`, as its worst container is; missing where nothing that runs is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Whether it can be given work, as the startup and readiness probes and the postStart hooks of its containers say;
    /// missing where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Whether it is meant to run.
    #[schema(value_type = schema::Power)]
    pub power: Power,
    /// CPU, memory and root disk.
    pub size: Size,
    /// What the running guest has while it is not yet what `size` says: a VM gets the rest with its next boot, a container
    /// in a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_restart: Option<RunningSize>,
    /// Its part of the host's CPUs when they are short; 100 is usual.
    #[serde(default = "usual_weight")]
    pub cpu_weight: u32,
    /// Flavor it was made with; missing when it was given its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<Reference>,
    /// Image it was made from; for a pod, its first container's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Reference>,
    /// Host that it was placed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// Server group whose policy chose the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_group: Option<Reference>,
    /// All its addresses, in the order of its ports.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// All floating addresses that lead to it.
    #[schema(value_type = Vec<String>)]
    pub floating_ips: Vec<IpAddr>,
    /// Ports, in the order of the guest's interfaces.
    pub ports: Vec<InstancePort>,
    /// Ports of its host that lead to it.
    #[serde(default)]
    pub publish: Vec<PublishedPort>,
    /// Volumes, a VM's root disk first.
    pub volumes: Vec<InstanceVolume>,
    /// Names of the SSH keys that it is to let in.
    pub keypairs: Vec<String>,
    /// What the guest has not taken over of these yet; missing when nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_pending: Option<KeysPending>,
    /// User that the image lets in by SSH, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Containers of a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Container>,
    /// Files that its containers are shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileSetNames>,
    /// Offer a config drive (VM).
    pub config_drive: bool,
    /// Acceleration wanted (VM); what it really runs on is in `facts`.
    #[schema(value_type = schema::Accelerator)]
    pub accelerator: Accelerator,
    /// Names that its containers find in /etc/hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<ExtraHost>,
    /// Times at which it is started, in UTC, as crontab(5) has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The next of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_start: Option<Timestamp>,
    /// What its containers share beside network and volumes.
    #[serde(default, skip_serializing_if = "SharedRequest::is_empty")]
    pub shared: SharedRequest,
    /// What stands between its containers and the host, where it is not the host's kernel (`shared`).
    #[serde(default, skip_serializing_if = "Isolation::is_shared")]
    #[schema(value_type = schema::Isolation)]
    pub isolation: Isolation,
    /// Start again when the host starts.
    pub autostart: bool,
    /// Instances that are to run before it starts with its host.
    #[serde(default)]
    pub start_after: Vec<Reference>,
    /// Start again when it ends by itself.
    #[serde(with = "restart")]
    #[schema(value_type = String)]
    pub restart: RestartPolicy,
    /// Seconds between asking a guest to stop and pulling the plug.
    pub grace_s: u32,
    /// It is deleted when it ends.
    pub remove_on_exit: bool,
    /// Refuses deletion and power changes of anyone but an admin.
    pub locked: bool,
    /// It was put away: stopped until somebody starts it.
    #[serde(default)]
    pub shelved: bool,
    /// Image from which it runs for a while, to be rescued; its own root disk is its second one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescue: Option<Reference>,
    /// Why, if who locked it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_reason: Option<String>,
    /// Words to find it by.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub tags: BTreeSet<Tag>,
    /// Where its users reach it by IPv4, if they said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub access_v4: Option<Ipv4Addr>,
    /// The same by IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub access_v6: Option<Ipv6Addr>,
    /// What it had before its size, which is on trial until it is confirmed or taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// How many boots were asked for.
    pub boots: u64,
    /// Starts by the restart policy in a row, each soon after the one before.
    #[serde(default)]
    pub restarts: u32,
    /// What is being done, in words: `fetching image 40 %`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub progress: String,
    /// Start of the running guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// How its last run ended, while it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Facts for people: accelerator, machine type, guest OS, pid, containers.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub facts: serde_json::Map<String, serde_json::Value>,
}

/// What an instance goes back to if the size on trial is taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Trial {
    /// CPU, memory and root disk before.
    pub size: Size,
    /// Flavor before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<Reference>,
    /// When the trial began.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
}

fn usual_weight() -> u32 {
    model::instance::CPU_WEIGHT_USUAL
}

/// Keys that a guest is to let in and does not yet, or no more and still does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeysPending {
    /// Names of keys that it does not let in yet.
    pub add: Vec<String>,
    /// Names of keys that it still lets in.
    pub remove: Vec<String>,
    /// Why, where that is known.
    pub reason: String,
}

/// CPUs, memory and disk of a running guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunningSize {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Most that containers may write to their own files, in GiB; 0 is no limit.
    #[serde(default)]
    pub disk_gib: u64,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Exit {
    /// Exit code, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// How it ended.
    pub cause: String,
    /// It ended by itself and not well.
    pub failed: bool,
    /// When that was seen.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// A port as its instance shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstancePort {
    /// Id.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// Network.
    pub network: Reference,
    /// Ethernet address.
    #[schema(value_type = String)]
    pub mac: Mac,
    /// Addresses.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Floating addresses that lead here.
    #[schema(value_type = Vec<String>)]
    pub floating_ips: Vec<IpAddr>,
    /// Groups whose rules let traffic pass.
    pub security_groups: Vec<Reference>,
    /// Most Mbit/s in each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_mbit: Option<u32>,
    /// A word that tells it from the instance's other interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tag: Option<Tag>,
    /// Further names by which it is found in this network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub aliases: Vec<Alias>,
}

/// A volume as its instance shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceVolume {
    /// Id.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// Size in GiB.
    pub size_gib: u64,
    /// Space that it takes in bytes.
    pub used_bytes: u64,
    /// Where a container sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_path: Option<String>,
    /// Serial number by which a guest finds the disk.
    pub serial: String,
    /// A word that tells it from the instance's other disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tag: Option<Tag>,
    /// It goes when the instance goes.
    #[serde(default)]
    pub delete_with_instance: bool,
}

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Container {
    /// Name inside the pod.
    pub name: String,
    /// Image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Reference>,
    /// Instead of the image's entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Instead of the image's arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Environment beside the image's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Instead of the image's working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Instead of the image's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A terminal.
    pub tty: bool,
    /// Standard input stays open.
    pub stdin_open: bool,
    /// What happens when it ends.
    #[serde(with = "restart")]
    #[schema(value_type = String)]
    pub restart: RestartPolicy,
    /// The root file system cannot be written.
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
    /// How its health is checked, by its own wish and its image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthRequest>,
    /// How healthy it is, or was while it last ran; missing where it is not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// `main`, `init` or `sidecar`.
    #[serde(default, skip_serializing_if = "Role::is_main")]
    #[schema(value_type = String)]
    pub role: Role,
    /// Volumes and files of the instance that this container is shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<ContainerMount>,
    /// Host name inside, where it is not the one made of the instance's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Names of variables whose values are not told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_env: Vec<String>,
    /// Most CPU time in thousandths of a CPU, within the instance's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Most memory in MiB, within the instance's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// What is asked of it again and again.
    #[serde(default, skip_serializing_if = "Probes::is_empty")]
    pub probes: Probes,
    /// What is done for it after its start and before its end.
    #[serde(default, skip_serializing_if = "Lifecycle::is_empty")]
    pub lifecycle: Lifecycle,
    /// Groups that its user is in beside those that the image says, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
    /// Its first process is a small init that hands signals on and collects what nobody waits for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
    /// Size of `/dev/shm` in bytes; 64 MiB is usual. Of a pod's containers, which share it, the largest counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_bytes: Option<u64>,
    /// Mounts that are kept in memory, with what is asked of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory_mounts: Vec<MemoryMountRequest>,
    /// Signal that asks it to end, by name or number, where it is not the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Most processes and threads, where it is not holm's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_max: Option<u64>,
    /// Limits of each of its processes by name (getrlimit(2)) that are not the usual ones; no number is no limit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, UlimitRequest>,
    /// How much of its log is kept, where it is not the usual: 3 files of 10 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogRequest>,
    /// Standard input ends for good with the first client that was attached to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin_once: bool,
}
