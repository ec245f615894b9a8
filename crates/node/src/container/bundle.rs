//! What a shim needs to run a pod: the plan of an instance with every default of confinement written out.
//!
//! Pure: no file is looked at here. The result is written to `pod.json` before the shim starts and is all that the shim
//! ever reads, so that it can restart containers while the daemon is away. Its golden file is the list of what holm
//! promises about a container by default; it changes only on purpose.

use super::{
    capability::{Capabilities, CapabilityError},
    machine::order::Machine,
    system,
};
use model::{
    id::InstanceId,
    instance::{
        content::{Role, VolumeGroup},
        lifecycle::Lifecycle,
        pod::{DNS_SERVERS_MAX, Dns},
    },
    plan::{
        Body, ContainerPlan, IdRange, InstancePlan, LogLimits, MountSource, NicPlan, RestartPolicy,
        SecretEnv, SystemPlan,
    },
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fmt::Write,
    net::IpAddr,
    path::{Component, Path, PathBuf},
};

/// Most containers of a pod.
pub const CONTAINERS_MAX: usize = 32;
/// Size of a pod's shared memory (`/dev/shm`), as docker has it.
const SHARED_MEMORY_BYTES: u64 = 64 << 20;
/// Size of a mount in memory that asks for none.
const MEMORY_MOUNT_BYTES: u64 = 64 << 20;
/// Least CPU time that the kernel takes as a limit (`min_cfs_quota_period` in kernel/sched/core.c).
const CPU_QUOTA_US_MIN: u64 = 1_000;
/// Programs are looked for here when the image says nothing.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a plan cannot be run as a pod.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The plan is of another kind.
    #[error("instance {0} is no pod")]
    NoPod(InstanceId),
    /// Wrong number of containers.
    #[error("a pod has 1 to {CONTAINERS_MAX} containers, not {0}")]
    Containers(usize),
    /// Two containers of one name.
    #[error("two containers are named {0:?}")]
    SameName(String),
    /// A name that cannot be a directory.
    #[error("{0:?} cannot name a container: letters, digits, '-', '_' and '.' are allowed, 63 at most")]
    BadName(String),
    /// Nothing to run.
    #[error("container {0:?} has no program: neither its image nor the request names one")]
    NoProgram(String),
    /// An unknown capability.
    #[error("container {container:?}")]
    Capability {
        /// The container.
        container: String,
        /// The capability.
        #[source]
        source: CapabilityError,
    },
    /// A path that is not absolute, or climbs.
    #[error("{path:?} in container {container:?} must be an absolute path without '..'")]
    BadPath {
        /// The container.
        container: String,
        /// The path.
        path: PathBuf,
    },
}

/// Where things of a pod are on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Survives a restart of the host: plan, state, logs.
    pub state: PathBuf,
    /// Does not: socket, generated files.
    pub run: PathBuf,
    /// Handle of the pod's network namespace.
    pub netns: PathBuf,
    /// Name of the tree of cgroups.
    pub cgroup_root: String,
    /// Name of the pod's cgroup in it.
    pub cgroup: String,
}

impl Places {
    /// Directory of the files that its containers are shown: in memory on usual hosts, as secrets may be among them.
    pub fn files(&self) -> PathBuf {
        self.run.join("files")
    }
}

/// A pod, ready to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// The instance.
    pub id: InstanceId,
    /// Which boot of it this is.
    pub boot: u64,
    /// Host name inside.
    pub hostname: String,
    /// Host ids; the first is root inside.
    pub ids: IdRange,
    /// Where things are.
    pub places: Places,
    /// Limits of the pod as a whole.
    pub limits: Limits,
    /// Text of /etc/hosts.
    pub hosts: String,
    /// Text of /etc/resolv.conf.
    pub resolv_conf: String,
    /// Containers in their order.
    pub containers: Vec<Container>,
    /// File of the size of `limits.disk_bytes` whose file system all containers write to; `None` is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_disk: Option<PathBuf>,
    /// Its containers see each other's processes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub share_processes: bool,
    /// Its own address, where hooks ask it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The virtual machine that it runs in; `None` under the host's kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
}

impl Pod {
    /// Whether it is a system container: one container, whose first process is an init.
    pub fn is_system(&self) -> bool {
        self.containers.iter().any(|container| container.system.is_some())
    }

    /// What keeps its programs in, for people.
    pub fn confinement(&self) -> String {
        let names = |container: &Container| {
            let names = container.process.capabilities.names();
            let short: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("CAP_")).collect();
            if short.is_empty() {
                "no capabilities".into()
            } else {
                format!("capabilities {}", short.join(" "))
            }
        };
        let all: Vec<String> = self.containers.iter().map(names).collect();
        let same = all.iter().all(|one| Some(one) == all.first());
        let capabilities = match all.first() {
            Some(first) if same => first.clone(),
            _ => {
                let each = self
                    .containers
                    .iter()
                    .zip(&all)
                    .map(|(container, names)| format!("{} has {names}", container.name));
                each.collect::<Vec<_>>().join(", ")
            }
        };
        // An init's services may be of other users, who use sudo and its like.
        let privileges = if self.is_system() { "" } else { "; no new privileges" };
        let (around, whose) = match &self.machine {
            Some(_) => (
                "a virtual machine with a kernel of its own, which runs as a user of the host that owns nothing; in it ",
                "guest",
            ),
            None => ("", "host"),
        };
        format!(
            "{around}namespaces of its own; root inside is uid {} of the {whose}; {capabilities}; system calls filtered \
             (seccomp){privileges}",
            self.ids.base
        )
    }
}

/// Limits of a cgroup; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// CPU time in microseconds per 100 ms.
    pub cpu_quota_us: Option<u64>,
    /// Share under contention, 1 to 10,000.
    pub cpu_weight: Option<u64>,
    /// Memory in bytes.
    pub memory_max_bytes: Option<u64>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
    /// What is written to the root file systems in bytes; only a pod as a whole has such a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
}

/// A container, ready to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// Name inside the pod.
    pub name: String,
    /// Unpacked layers, lowest first.
    pub layers: Vec<PathBuf>,
    /// Directory of what the container writes; with a root disk its last part is the directory's name there.
    pub upper: PathBuf,
    /// The root file system cannot be written.
    pub read_only: bool,
    /// Its program.
    pub process: Process,
    /// Mounts in the order in which they are made.
    pub mounts: Vec<Mount>,
    /// Paths that are hidden.
    pub masked_paths: Vec<PathBuf>,
    /// Paths below which nothing can be written.
    pub read_only_paths: Vec<PathBuf>,
    /// Limits within the pod's.
    pub limits: Limits,
    /// When it is started again.
    pub restart: RestartPolicy,
    /// Signal that asks it to end.
    pub stop_signal: i32,
    /// Seconds between asking and killing.
    pub grace_s: u32,
    /// Its log.
    pub log: PathBuf,
    /// Rotation of the log.
    pub log_limits: LogLimits,
    /// Paths below the read-only ones that can be written after all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writable_paths: Vec<PathBuf>,
    /// Its first process is an init; `None` for a container of one program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemPlan>,
    /// When it runs, of the pod's containers.
    #[serde(default, skip_serializing_if = "Role::is_main")]
    pub role: Role,
    /// What is done for it after its start and before its end.
    #[serde(default, skip_serializing_if = "Lifecycle::is_empty")]
    pub lifecycle: Lifecycle,
}

/// What a container runs, and with which powers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// More of it, which has no part in what is written of the pod for good.
    #[serde(skip)]
    pub secret_env: SecretEnv,
    /// Working directory.
    pub cwd: PathBuf,
    /// User, as docker spells it.
    pub user: String,
    /// A terminal instead of pipes.
    pub tty: bool,
    /// Rows and columns of the terminal at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal_size: Option<(u16, u16)>,
    /// Standard input stays open.
    pub stdin_open: bool,
    /// Capabilities of root inside, and the bound of everyone's.
    pub capabilities: Capabilities,
    /// setuid bits and file capabilities give nothing.
    pub no_new_privileges: bool,
    /// Open files, soft and hard; clamped to what this host allows.
    pub open_files: (u64, u64),
    /// Other limits, and these instead of the usual ones: number of the resource, soft and hard. Clamped, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<(u32, u64, u64)>,
    /// Groups of its user beside those of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
    /// A small init is the first process, and the program its child.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
}

/// A mount in a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// Where.
    pub target: PathBuf,
    /// What.
    pub source: Source,
    /// Nothing can be written.
    pub read_only: bool,
    /// setuid bits do nothing.
    pub no_suid: bool,
    /// Device nodes cannot be opened.
    pub no_devices: bool,
    /// Programs cannot be run.
    pub no_exec: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Source {
    /// The processes of the container.
    Processes,
    /// null, zero, full, random, urandom, tty and links.
    Devices,
    /// Pseudo terminals of the container's own.
    Terminals,
    /// The pod's POSIX message queues.
    MessageQueues,
    /// The pod's shared memory.
    SharedMemory {
        /// Most bytes.
        size_bytes: u64,
    },
    /// The kernel's objects, with the pod's network devices.
    KernelObjects,
    /// The container's cgroup (version 2 only).
    ControlGroups,
    /// A text made for the pod.
    Text(PodText),
    /// A directory or file of the host, its ids shifted into the container's range where the file system can.
    Bind {
        /// The path.
        path: PathBuf,
        /// A path in it, instead of all of it; made as a directory where it is missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<PathBuf>,
        /// Group that all of it is given to before the containers start.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<VolumeGroup>,
    },
    /// A directory that the host's operator lends, or what lies in it.
    Lent {
        /// The directory.
        directory: PathBuf,
        /// The way from there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<PathBuf>,
        /// It is to be there; else it is made as a directory where it is missing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        exists: bool,
    },
    /// Memory that belongs to somebody inside.
    OwnedMemory {
        /// Most bytes.
        size_bytes: u64,
        /// Permissions.
        mode: u32,
        /// User inside.
        uid: u32,
        /// Group inside.
        gid: u32,
    },
    /// Memory.
    Memory {
        /// Most bytes.
        size_bytes: u64,
        /// Only root may make files at its top.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        roots: bool,
    },
}

/// A text that is made for each pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodText {
    /// Names and addresses.
    Hosts,
    /// The host name.
    Hostname,
    /// DNS servers.
    ResolvConf,
}

impl PodText {
    /// Name of the file below the pod's run directory.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Hosts => "hosts",
            Self::Hostname => "hostname",
            Self::ResolvConf => "resolv.conf",
        }
    }
}

/// What docker hides.
const MASKED_PATHS: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What docker lets nobody write.
const READ_ONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Turns a plan into what its shim runs.
pub fn bundle(plan: &InstancePlan, places: Places) -> Result<Pod, BundleError> {
    let Body::Pod(pod) = &plan.body else {
        return Err(BundleError::NoPod(plan.id));
    };
    if pod.containers.is_empty() || pod.containers.len() > CONTAINERS_MAX {
        return Err(BundleError::Containers(pod.containers.len()));
    }
    let mut names = BTreeSet::new();
    for container in &pod.containers {
        check_name(&container.name)?;
        if !names.insert(&container.name) {
            return Err(BundleError::SameName(container.name.clone()));
        }
    }
    let containers = pod.containers.iter().map(|container| bundle_container(plan, container, &places));
    Ok(Pod {
        id: plan.id,
        boot: plan.boot,
        hostname: plan.hostname.clone(),
        ids: plan.id_range,
        limits: limits(plan),
        hosts: hosts_text(plan, &pod.extra_hosts),
        resolv_conf: resolv_conf_text(&plan.nics, pod.shared.dns.as_ref()),
        containers: containers.collect::<Result<_, _>>()?,
        root_disk: pod.root_disk.as_ref().map(|disk| disk.path.clone()),
        share_processes: pod.shared.processes,
        address: pod
            .containers
            .iter()
            .find(|it| !it.lifecycle.is_empty())
            .and_then(|_| own_address(&plan.nics)),
        places,
        machine: None,
    })
}

/// The limits of a pod as a whole.
pub fn limits(plan: &InstancePlan) -> Limits {
    Limits {
        cpu_quota_us: Some(u64::from(plan.vcpus) * 100_000),
        cpu_weight: Some(u64::from(plan.cpu_weight)),
        memory_max_bytes: Some(plan.memory_mib << 20),
        pids_max: Some(plan.pids_max),
        disk_bytes: match &plan.body {
            Body::Pod(pod) => pod.root_disk.as_ref().map(|disk| disk.size_gib << 30),
            Body::Vm(_) => None,
        },
    }
}

/// Names become directories, cgroups and log files.
fn check_name(name: &str) -> Result<(), BundleError> {
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !name.starts_with('.');
    if fits { Ok(()) } else { Err(BundleError::BadName(name.to_string())) }
}

fn bundle_container(
    plan: &InstancePlan,
    it: &ContainerPlan,
    places: &Places,
) -> Result<Container, BundleError> {
    let is_system = it.system.is_some();
    // An init need not be named: it is looked for in the image.
    if !is_system && it.argv.first().is_none_or(String::is_empty) {
        return Err(BundleError::NoProgram(it.name.clone()));
    }
    let chosen = if is_system { Capabilities::chosen_for_system } else { Capabilities::chosen };
    let capabilities = chosen(&it.cap_add, &it.cap_drop)
        .map_err(|source| BundleError::Capability { container: it.name.clone(), source })?;
    let mut mounts =
        if is_system { system::mounts(plan.memory_mib) } else { standard_mounts(shared_memory(plan)) };
    mounts.extend(user_mounts(plan, it, places)?);
    let [masked, read_only, writable] =
        if is_system { system::paths() } else { [&MASKED_PATHS as &[&str], &READ_ONLY_PATHS, &[]] };
    let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
    let cwd = if it.cwd.as_os_str().is_empty() { Path::new("/") } else { &it.cwd };
    Ok(Container {
        name: it.name.clone(),
        layers: it.layers.clone(),
        upper: it.upper.clone(),
        read_only: it.read_only_rootfs,
        process: Process {
            argv: it.argv.clone(),
            env: match is_system {
                true => system::environment(&it.env, plan.id),
                false => environment(&it.env, &plan.hostname, it.tty),
            },
            secret_env: it.secret_env.clone(),
            cwd: absolute(&it.name, cwd)?,
            user: it.user.clone(),
            tty: it.tty || is_system,
            terminal_size: it.terminal_size,
            stdin_open: it.stdin_open || is_system,
            capabilities,
            no_new_privileges: !is_system,
            open_files: (1024 * 1024, 1024 * 1024),
            ulimits: it.ulimits.iter().map(|(r, limit)| (r.number(), limit.soft, limit.hard)).collect(),
            groups: it.groups.clone(),
            init: it.init,
        },
        mounts,
        masked_paths: paths(masked),
        read_only_paths: paths(read_only),
        writable_paths: paths(writable),
        system: it.system.clone(),
        limits: Limits {
            cpu_quota_us: it.cpu_millis.map(|millis| (u64::from(millis) * 100).max(CPU_QUOTA_US_MIN)),
            memory_max_bytes: it.memory_mib.map(|mib| mib << 20),
            ..Limits::default()
        },
        restart: match it.restart {
            // What others wait for is done once.
            RestartPolicy::Always | RestartPolicy::UnlessStopped if it.role == Role::Init => {
                RestartPolicy::OnFailure { retries_max: 0 }
            }
            policy => policy,
        },
        stop_signal: it.stop_signal,
        grace_s: it.grace_s,
        log: places.state.join("logs").join(format!("{}.log", it.name)),
        log_limits: it.log,
        role: it.role,
        lifecycle: it.lifecycle.clone(),
    })
}

/// An environment with what every program expects, unless the image or the user set it.
fn environment(wanted: &[(String, String)], hostname: &str, tty: bool) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> =
        vec![("PATH".into(), DEFAULT_PATH.into()), ("HOSTNAME".into(), hostname.into())];
    if tty {
        env.push(("TERM".into(), "xterm".into()));
    }
    for (key, value) in wanted {
        env.retain(|(known, _)| known != key);
        env.push((key.clone(), value.clone()));
    }
    env
}

/// Size of the memory that the containers of a pod share: the largest that any asks for.
fn shared_memory(plan: &InstancePlan) -> u64 {
    let Body::Pod(pod) = &plan.body else { return SHARED_MEMORY_BYTES };
    pod.containers.iter().filter_map(|it| it.shm_bytes).max().unwrap_or(SHARED_MEMORY_BYTES)
}

fn standard_mounts(shared_memory_bytes: u64) -> Vec<Mount> {
    let mount = |target: &str, source, read_only, no_devices, no_exec| Mount {
        target: target.into(),
        source,
        read_only,
        no_suid: true,
        no_devices,
        no_exec,
    };
    vec![
        mount("/proc", Source::Processes, false, true, true),
        mount("/dev", Source::Devices, false, false, true),
        mount("/dev/pts", Source::Terminals, false, false, true),
        mount("/dev/mqueue", Source::MessageQueues, false, true, true),
        mount("/dev/shm", Source::SharedMemory { size_bytes: shared_memory_bytes }, false, true, true),
        mount("/sys", Source::KernelObjects, true, true, true),
        mount("/sys/fs/cgroup", Source::ControlGroups, true, true, true),
        mount("/etc/hosts", Source::Text(PodText::Hosts), true, true, true),
        mount("/etc/hostname", Source::Text(PodText::Hostname), true, true, true),
        mount("/etc/resolv.conf", Source::Text(PodText::ResolvConf), true, true, true),
    ]
}

/// The user's mounts and the instance's volumes, outer ones first.
fn user_mounts(plan: &InstancePlan, it: &ContainerPlan, places: &Places) -> Result<Vec<Mount>, BundleError> {
    let mount = |target: &Path, source, read_only| {
        let target = absolute(&it.name, target)?;
        if target == Path::new("/") {
            return Err(BundleError::BadPath { container: it.name.clone(), path: target });
        }
        Ok(Mount { target, source, read_only, no_suid: true, no_devices: true, no_exec: false })
    };
    let mut mounts = Vec::new();
    for disk in &plan.disks {
        if let Some(target) = &disk.mount_path {
            mounts.push(mount(target, bind(disk.path.clone()), disk.read_only)?);
        }
    }
    for wanted in &it.mounts {
        let source = match &wanted.source {
            MountSource::Bind { path } => bind(absolute(&it.name, path)?),
            MountSource::Part { path, part, group } => {
                let path = absolute(&it.name, path)?;
                check_part(&it.name, part.as_deref())?;
                Source::Bind { path, part: part.clone(), group: *group }
            }
            MountSource::Tmpfs { size_bytes } => Source::Memory { size_bytes: *size_bytes, roots: false },
            MountSource::Lent { directory, part, exists } => {
                check_part(&it.name, part.as_deref())?;
                let directory = absolute(&it.name, directory)?;
                Source::Lent { directory, part: part.clone(), exists: *exists }
            }
            MountSource::Memory(memory) => Source::OwnedMemory {
                size_bytes: memory.size_bytes.unwrap_or(MEMORY_MOUNT_BYTES),
                mode: memory.mode.unwrap_or(0o1777),
                uid: memory.uid,
                gid: memory.gid,
            },
            MountSource::Files { set, path, group } => {
                let whole = places.files().join(set);
                let path = path.as_ref().map_or(whole.clone(), |path| whole.join(path));
                Source::Bind { path: absolute(&it.name, &path)?, part: None, group: *group }
            }
        };
        let no_exec = matches!(&wanted.source, MountSource::Memory(memory) if memory.no_exec);
        mounts.push(Mount { no_exec, ..mount(&wanted.target, source, wanted.read_only)? });
    }
    mounts.sort_by_key(|mount: &Mount| mount.target.components().count());
    Ok(mounts)
}

/// A way from a directory on that does not climb.
fn check_part(container: &str, part: Option<&Path>) -> Result<(), BundleError> {
    let climbs = |part: &&Path| !part.components().all(|it| matches!(it, Component::Normal(_)));
    match part.filter(climbs) {
        None => Ok(()),
        Some(part) => Err(BundleError::BadPath { container: container.into(), path: part.into() }),
    }
}

/// The first address of a pod, of version 4 if it has one.
fn own_address(nics: &[NicPlan]) -> Option<IpAddr> {
    let addresses = || nics.iter().flat_map(|nic| &nic.addresses).map(ipnet::IpNet::addr);
    addresses().find(IpAddr::is_ipv4).or_else(|| addresses().next())
}

fn bind(path: PathBuf) -> Source {
    Source::Bind { path, part: None, group: None }
}

fn absolute(container: &str, path: &Path) -> Result<PathBuf, BundleError> {
    if path.is_absolute() && !path.components().any(|part| part == Component::ParentDir) {
        return Ok(path.to_path_buf());
    }
    Err(BundleError::BadPath { container: container.to_string(), path: path.to_path_buf() })
}

fn hosts_text(plan: &InstancePlan, extra: &[(IpAddr, String)]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for address in plan.nics.iter().flat_map(|nic| &nic.addresses) {
        let _ = writeln!(text, "{}\t{}", address.addr(), plan.hostname);
    }
    for (address, name) in extra {
        let _ = writeln!(text, "{address}\t{name}");
    }
    text
}

/// DNS servers and search domains, each once; a C library reads three servers. What is asked for comes after what the
/// networks tell, or instead of it.
fn resolv_conf_text(nics: &[NicPlan], asked: Option<&Dns>) -> String {
    let nics = if asked.is_some_and(|dns| dns.instead) { &[] } else { nics };
    let mut text = String::new();
    let mut search: Vec<&str> = Vec::new();
    let own = asked.iter().flat_map(|dns| &dns.search);
    for domain in nics.iter().flat_map(|nic| &nic.search).chain(own) {
        if !search.contains(&domain.as_str()) {
            search.push(domain);
        }
    }
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    let mut servers: Vec<&IpAddr> = Vec::new();
    let own = asked.iter().flat_map(|dns| &dns.servers);
    for server in nics.iter().flat_map(|nic| &nic.dns).chain(own) {
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    for server in servers.into_iter().take(DNS_SERVERS_MAX) {
        let _ = writeln!(text, "nameserver {server}");
    }
    // Of an option that is there twice the last counts.
    let own = asked.iter().flat_map(|dns| &dns.options).map(String::as_str);
    let options: Vec<&str> = ["ndots:1", "timeout:2", "attempts:3"].into_iter().chain(own).collect();
    let _ = writeln!(text, "options {}", options.join(" "));
    text
}

#[cfg(test)]
pub(super) mod tests;
