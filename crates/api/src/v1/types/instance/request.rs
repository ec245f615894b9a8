//! Instances on the wire: what is asked for.

use crate::v1::types::{
    health::HealthRequest,
    patch::LabelChanges,
    pod::{
        ContainerMount, FileSetRequest, Lifecycle, MemoryMountRequest, Probes, SecretValues, SharedRequest,
    },
    publish::{PublishedPort, UnpublishPort},
    restart, schema,
};
use model::{
    instance::{Kind, content::Role, isolation::Isolation, tag::Tag},
    meta::Labels,
    plan::{Accelerator, RestartPolicy},
    port::alias::Alias,
};
use serde::{Deserialize, Deserializer, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use utoipa::ToSchema;

/// A new instance. Its size is a flavor, or `vcpus` and `memory_mib` (each of which also overrides the flavor's).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CreateInstance {
    /// Name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Labels.
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// Words to find it by, without commas and slashes.
    #[schema(value_type = Vec<String>)]
    pub tags: BTreeSet<Tag>,
    /// Where its users reach it by IPv4: told, and nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub access_v4: Option<Ipv4Addr>,
    /// The same by IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub access_v6: Option<Ipv6Addr>,
    /// Kind; as the image says when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::InstanceKind>)]
    pub kind: Option<Kind>,
    /// Image, or for containers a registry's reference, which is pulled if it is not here. Not with `containers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Root disk instead of a new one made of an image (VM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<RootRequest>,
    /// Flavor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    /// Virtual CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Memory in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Its part of the host's CPUs when they are short: with 300 it gets three times what one with 100 gets. 1 to
    /// 10,000; 100 when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<u32>,
    /// Root disk in GiB; 0: as large as the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_gib: Option<u64>,
    /// Networks in the order of the guest's interfaces: the project's own when missing, none when empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<NetworkRequest>>,
    /// Groups for every new port; the project's default group when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    /// SSH keys to put in.
    pub keypairs: Vec<String>,
    /// User-data for cloud-init, base64, at most 64 KiB of bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// Offer a config drive (VM).
    pub config_drive: bool,
    /// Containers of a pod of several. For one container `image`, `command`, `args` and `env` are enough.
    pub containers: Vec<ContainerRequest>,
    /// Instead of the image's entrypoint (container).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Instead of the image's arguments (container).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Environment beside the image's (container).
    pub env: BTreeMap<String, String>,
    /// Working directory instead of the image's (container).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// User instead of the image's (container).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A terminal (container).
    pub tty: bool,
    /// Standard input stays open (container).
    pub stdin_open: bool,
    /// How its health is checked, over what its image says (container).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthRequest>,
    /// What happens when it ends by itself: `no`, `on-failure[:N]`, `always`, `unless-stopped`, `on-unhealthy`.
    #[serde(skip_serializing_if = "Option::is_none", with = "restart::option")]
    #[schema(value_type = Option<String>)]
    pub restart: Option<RestartPolicy>,
    /// Volumes beside the root disk.
    pub volumes: Vec<VolumeRequest>,
    /// Server group whose policy chooses its host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_group: Option<String>,
    /// Names that containers find in /etc/hosts, at most 128 (container).
    pub extra_hosts: Vec<ExtraHost>,
    /// Small files that containers are shown where their `mounts` say so: 256 KiB in all with the secret variables
    /// (container). They are kept sealed and are not told again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileSetRequest>,
    /// Times at which it is started, in UTC, as crontab(5) has them: `30 2 * * 1-5`, `@hourly`. While it still runs, its
    /// time passes. It is made and not started then, unless `start` says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// What its containers share beside network and volumes (container).
    #[serde(skip_serializing_if = "SharedRequest::is_empty")]
    pub shared: SharedRequest,
    /// What stands between its containers and the host: the host's kernel (`shared`), or a kernel of their own in a small
    /// virtual machine (`vm`). It stays so for the instance's life (container).
    #[serde(skip_serializing_if = "Isolation::is_shared")]
    #[schema(value_type = schema::Isolation)]
    pub isolation: Isolation,
    /// Start again when the host starts.
    pub autostart: bool,
    /// Instances that are to run before it starts with its host.
    pub start_after: Vec<String>,
    /// Acceleration wanted (VM).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Accelerator>)]
    pub accelerator: Option<Accelerator>,
    /// `auto` for a new floating IP, or the address of one that the project has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floating_ip: Option<String>,
    /// Ports of the host that lead to it; the security groups still decide who gets in.
    pub publish: Vec<PublishedPort>,
    /// Delete it when it ends.
    pub remove_on_exit: bool,
    /// Seconds between asking the guest to stop and pulling the plug.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<u32>,
    /// Start it at once (the default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<bool>,
}

/// A name and the address that it stands for inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtraHost {
    /// Name.
    #[schema(value_type = String)]
    pub name: Alias,
    /// Address.
    #[schema(value_type = String)]
    pub address: IpAddr,
}

/// An interface that is asked for: a network, a subnet or a port that exists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkRequest {
    /// Network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Subnet of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// Address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// Most Mbit/s in each direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_mbit: Option<u32>,
    /// A port that exists, instead of all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Further names by which it is found in this network, at most 32.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub aliases: Vec<Alias>,
}

/// A root disk that is asked for: a volume as it is, or a copy of a snapshot or a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RootRequest {
    /// A volume, which is kept when the instance goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// An image to make it of: the disk is then a volume as all others, and not the instance's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// A snapshot to make it of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// A volume to copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<String>,
    /// Size of a copy in GiB; its source's when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_gib: Option<u64>,
    /// Take all space of a copy at once.
    pub thick: bool,
    /// Keep a copy when the instance goes.
    pub keep: bool,
}

/// A volume that is asked for: one that exists or a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VolumeRequest {
    /// A volume that exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Size of a new volume in GiB, which goes with the instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_gib: Option<u64>,
    /// Where containers see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_path: Option<String>,
    /// Take all space of a new volume at once.
    pub thick: bool,
    /// Writes are refused.
    pub read_only: bool,
    /// Keep a new volume when the instance goes.
    pub keep: bool,
    /// A word by which `mounts` of containers mean it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tag: Option<Tag>,
}

/// A container of a pod that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerRequest {
    /// Name inside the pod.
    pub name: String,
    /// Image or a registry's reference.
    pub image: String,
    /// Instead of the image's entrypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Instead of the image's arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Environment beside the image's.
    pub env: BTreeMap<String, String>,
    /// Instead of the image's working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Instead of the image's user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A terminal.
    pub tty: bool,
    /// Standard input stays open.
    pub stdin_open: bool,
    /// What happens when it ends; the instance's when missing.
    #[serde(skip_serializing_if = "Option::is_none", with = "restart::option")]
    #[schema(value_type = Option<String>)]
    pub restart: Option<RestartPolicy>,
    /// The root file system cannot be written.
    pub read_only: bool,
    /// Capabilities beside the default ones, like `NET_ADMIN`.
    pub cap_add: Vec<String>,
    /// Capabilities less than the default ones; `ALL` drops every one.
    pub cap_drop: Vec<String>,
    /// Mount paths that are kept in memory.
    pub tmpfs: Vec<String>,
    /// How its health is checked, over what its image says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthRequest>,
    /// `main`, `init` for one that runs to its end before the others, or `sidecar` for one that is started before the
    /// others and ended after them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub role: Option<Role>,
    /// Volumes and files of the instance that this container is shown, at most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<ContainerMount>,
    /// Host name inside, instead of the one made of the instance's name; the first container's is the pod's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Variables whose values are kept sealed and are not told again.
    #[serde(skip_serializing_if = "SecretValues::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub secret_env: SecretValues,
    /// Most CPU time in thousandths of a CPU, within the instance's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Most memory in MiB, within the instance's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// What is asked of it again and again, and what follows.
    #[serde(skip_serializing_if = "Probes::is_empty")]
    pub probes: Probes,
    /// What is done for it after its start and before its end.
    #[serde(skip_serializing_if = "Lifecycle::is_empty")]
    pub lifecycle: Lifecycle,
    /// Groups that its user is in beside those that the image says, at most 32.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
    /// Its first process is a small init that hands signals on and collects what nobody waits for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
    /// Size of `/dev/shm` in bytes; 64 MiB is usual. Of a pod's containers, which share it, the largest counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_bytes: Option<u64>,
    /// Mounts that are kept in memory, with what is asked of each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub memory_mounts: Vec<MemoryMountRequest>,
    /// Signal that asks it to end instead of the image's, by name or number: `SIGINT`, `2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Most processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_max: Option<u64>,
    /// Limits of each of its processes by name (getrlimit(2)): `nofile`, `nproc`, `core`, …
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, UlimitRequest>,
    /// How much of its log is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogRequest>,
}

/// A limit of processes. Without a number there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UlimitRequest {
    /// What holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft: Option<u64>,
    /// How far a process may raise it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hard: Option<u64>,
}

/// How much of a log is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogRequest {
    /// Bytes at which a file is full, at least 4096; 10 MiB when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes_max: Option<u64>,
    /// Files that are kept, 1 to 1000; 3 when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files_max: Option<u32>,
}

/// An image to be made of a system container's files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SaveInstance {
    /// Name of the image.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Labels of the image.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
}

/// Changes to an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateInstance {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Labels to set; `null` removes one.
    #[serde(skip_serializing_if = "LabelChanges::is_empty")]
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    pub labels: LabelChanges,
    /// Names of the SSH keys that a VM is to let in, instead of those that it lets in. Its guest agent is told; a guest
    /// without one keeps what it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keypairs: Option<Vec<String>>,
    /// Start again when the host starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autostart: Option<bool>,
    /// Times at which it is started, in UTC, as crontab(5) has them; `null` for none.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub schedule: Option<Option<String>>,
    /// Instances that are to run before it starts with its host, instead of those that it has waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_after: Option<Vec<String>>,
    /// What happens when it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none", with = "restart::option")]
    #[schema(value_type = Option<String>)]
    pub restart: Option<RestartPolicy>,
    /// Seconds between asking the guest to stop and pulling the plug.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<u32>,
    /// Delete it when it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_on_exit: Option<bool>,
    /// Refuses deletion and power changes of anyone but an admin while set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<bool>,
    /// Tags instead of all that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub tags: Option<BTreeSet<Tag>>,
    /// Where its users reach it by IPv4; `null` for nowhere in particular.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub access_v4: Option<Option<Ipv4Addr>>,
    /// The same by IPv6.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub access_v6: Option<Option<Ipv6Addr>>,
    /// Another flavor. A container takes it while it runs, a VM with its next boot. Its disks stay as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    /// Other virtual CPUs, at once for a container, with its next boot for a VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Other memory in MiB, at once for a container, with its next boot for a VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// More GiB that containers may write to their own files, at once. Of a VM, whose root disk is a volume, it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_gib: Option<u64>,
    /// Another part of the host's CPUs when they are short, at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<u32>,
    /// Published ports instead of all that there are; one asked for again keeps its port of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<Vec<PublishedPort>>,
    /// Ports to publish beside the others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish_add: Vec<PublishedPort>,
    /// Published ports that shall go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish_remove: Vec<UnpublishPort>,
}

/// A network interface to plug in, while the instance runs or not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AttachPort {
    /// Network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Subnet of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// Address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// A port that exists, instead of all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Groups of a new port; the project's default group when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    /// Further names by which it is found in this network, at most 32.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub aliases: Vec<Alias>,
}

/// A volume to plug in, while the instance runs or not.
pub type AttachVolume = VolumeRequest;

/// How to stop. The body may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StopRequest {
    /// Seconds until the plug is pulled; the instance's own when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<u32>,
}

/// Why it is locked. The body may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LockRequest {
    /// The reason, told to whoever is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What to begin anew from. The body may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RebuildRequest {
    /// Another image; the instance's own when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Variables to set; `null` takes one away. The others stay (container).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Option<String>>,
    /// Other arguments of its program (container).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
}

/// What to boot from to rescue a VM. The body may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RescueRequest {
    /// Another image; the instance's own when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// Another size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeRequest {
    /// Flavor.
    pub flavor: String,
}

/// A value that may be `null`, told from one that is missing.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(reader: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(reader).map(Some)
}
