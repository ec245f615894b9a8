//! What only pods have, on the wire: files, mounts and probes of containers.

use model::{
    health::probe::{self, Action},
    instance::{
        content::{File, FileSet, MemoryMount, Mount, Shows, VolumeGroup},
        lifecycle::{self, Hook},
        pod::{self, Shared},
        tag::Tag,
    },
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};
use utoipa::ToSchema;

/// A set of files that are mounted together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSetRequest {
    /// What `mounts` call it.
    #[schema(value_type = String)]
    pub name: Tag,
    /// The files.
    pub files: Vec<FileRequest>,
}

/// A file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRequest {
    /// Path in the set.
    pub path: String,
    /// Permissions; 420 (0644 in octal digits) when missing.
    #[serde(default = "usual_mode")]
    pub mode: u32,
    /// Its bytes in base64.
    pub content: String,
}

impl std::fmt::Debug for FileRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} characters)", self.path, self.content.len())
    }
}

/// Values by name that are not shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretValues(pub BTreeMap<String, String>);

impl SecretValues {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for SecretValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn usual_mode() -> u32 {
    0o644
}

/// A set of files, as its instance tells it: what is in them is not told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileSetNames {
    /// What `mounts` call it.
    pub name: String,
    /// Its files.
    pub files: Vec<FileName>,
}

/// A file of a set, without what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileName {
    /// Path in the set.
    pub path: String,
    /// Permissions.
    pub mode: u32,
}

impl From<&FileSet> for FileSetNames {
    fn from(set: &FileSet) -> Self {
        let file = |file: &File| FileName { path: file.path.clone(), mode: file.mode };
        Self { name: set.name.to_string(), files: set.files.iter().map(file).collect() }
    }
}

/// Where a container sees a volume or a set of files of its instance, or a directory of the host: one of them is named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerMount {
    /// Tag of the volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub volume: Option<Tag>,
    /// Name of the set of files.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub files: Option<Tag>,
    /// Path of a directory or file of the host, in a directory that its operator lends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// It is to be there; else it is made as a directory where it is missing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub host_exists: bool,
    /// Where.
    pub path: String,
    /// One file or directory of the set or of the volume, instead of all of it. What a volume has not is made as a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_path: Option<String>,
    /// Writes are refused; of files they always are.
    pub read_only: bool,
    /// Group that all of it is given to before the containers start: it may read and write there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// Only where the volume's own directory is not the group's yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub group_once: bool,
}

impl ContainerMount {
    /// The same for the cloud; `None` unless one of volume, files and host is named.
    pub fn mount(&self) -> Option<Mount> {
        let shows = match (&self.volume, &self.files, &self.host) {
            (Some(tag), None, None) => Shows::Volume(tag.clone()),
            (None, Some(name), None) => Shows::Files(name.clone()),
            (None, None, Some(path)) => Shows::Host { path: path.clone(), exists: self.host_exists },
            _ => return None,
        };
        let (path, sub_path, read_only) = (self.path.clone(), self.sub_path.clone(), self.read_only);
        let group = self.group.map(|gid| VolumeGroup { gid, once: self.group_once });
        Some(Mount { shows, path, sub_path, read_only, group })
    }
}

impl From<&Mount> for ContainerMount {
    fn from(mount: &Mount) -> Self {
        let mut told = Self::default();
        match &mount.shows {
            Shows::Volume(tag) => told.volume = Some(tag.clone()),
            Shows::Files(name) => told.files = Some(name.clone()),
            Shows::Host { path, exists } => (told.host, told.host_exists) = (Some(path.clone()), *exists),
        }
        let (path, sub_path, read_only) = (mount.path.clone(), mount.sub_path.clone(), mount.read_only);
        let (group, group_once) = (mount.group.map(|it| it.gid), mount.group.is_some_and(|it| it.once));
        Self { path, sub_path, read_only, group, group_once, ..told }
    }
}

/// A mount that is kept in memory. What is on it counts as the container's memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryMountRequest {
    /// Where.
    pub path: String,
    /// Most bytes; 64 MiB when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Permissions of its top; 1023 (1777 in octal digits) when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// User inside that its top belongs to.
    pub uid: u32,
    /// Group inside.
    pub gid: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// Programs on it are not run.
    pub no_exec: bool,
}

impl MemoryMountRequest {
    /// The same for the cloud.
    pub fn mount(&self) -> MemoryMount {
        let Self { size_bytes, mode, uid, gid, read_only, no_exec, .. } = *self;
        MemoryMount { path: self.path.clone(), size_bytes, mode, uid, gid, read_only, no_exec }
    }
}

impl From<&MemoryMount> for MemoryMountRequest {
    fn from(mount: &MemoryMount) -> Self {
        let MemoryMount { size_bytes, mode, uid, gid, read_only, no_exec, .. } = *mount;
        Self { path: mount.path.clone(), size_bytes, mode, uid, gid, read_only, no_exec }
    }
}

/// What is asked of a container again and again, and what follows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Probes {
    /// Until it has succeeded no other is asked; failed too often, the container is ended and its restart policy decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
    /// While it fails, no name that several instances share leads here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Probe>,
    /// Failed too often, the container is ended and its restart policy decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
}

/// A probe: one of `exec`, `tcp` and `http`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = ContainerProbe)]
pub struct Probe {
    /// A program in the container, which ends with 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<Vec<String>>,
    /// A port on which the pod takes connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<u16>,
    /// A page that the pod serves with a status from 200 to 399.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// Whose health the pod tells as SERVING by `grpc.health.v1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcProbe>,
    /// Milliseconds from the container's start to the first, at most 86400000; 0 is usual.
    pub delay_ms: u64,
    /// Milliseconds from the end of one to the next, 100 to 86400000; 10000 is usual.
    pub interval_ms: u64,
    /// Milliseconds that one may take, 100 to 86400000; 1000 is usual.
    pub timeout_ms: u64,
    /// Successes in a row until it counts as good, 1 to 1000; 1 is usual.
    pub successes: u32,
    /// Failures in a row until it counts as bad, 1 to 1000; 3 is usual.
    pub failures: u32,
}

/// A question by HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpProbe {
    /// Port.
    pub port: u16,
    /// Path and query; `/` when missing.
    #[serde(default = "root")]
    pub path: String,
    /// Further headers, as pairs of name and value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Vec<String>>)]
    pub headers: Vec<(String, String)>,
    /// By HTTPS; the certificate is not verified.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
}

/// A question by gRPC, without TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpcProbe {
    /// Port.
    pub port: u16,
    /// Service; the server as a whole when missing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
}

/// What is done for a container after its start and before its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lifecycle {
    /// Once its program was started: until it has ended well nothing after it is started in the pod, and nothing is asked
    /// of it. Failed, the container is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_start: Option<LifecycleHook>,
    /// Before it is asked to end, within the grace period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_stop: Option<LifecycleHook>,
}

/// What a hook does: one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LifecycleHook {
    /// A program in the container that ends with 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<Vec<String>>,
    /// A port on which the pod takes connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<u16>,
    /// A page that the pod serves, with any status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// So many seconds of waiting, at most 3600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sleep_s: Option<u32>,
}

/// What the containers of a pod share beside its network and volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SharedRequest {
    /// They see each other's processes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub processes: bool,
    /// How they look names up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsRequest>,
}

/// How names are looked up (resolv.conf(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DnsRequest {
    /// Instead of what its networks tell: names of other instances are then known where these servers know them.
    pub instead: bool,
    /// Servers, at most 3.
    #[schema(value_type = Vec<String>)]
    pub servers: Vec<IpAddr>,
    /// Search domains, at most 32.
    pub search: Vec<String>,
    /// Options, at most 16, like `ndots:2`.
    pub options: Vec<String>,
}

impl SharedRequest {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same for the cloud.
    pub fn shared(&self) -> Shared {
        let dns = |dns: &DnsRequest| pod::Dns {
            instead: dns.instead,
            servers: dns.servers.clone(),
            search: dns.search.clone(),
            options: dns.options.clone(),
        };
        Shared { processes: self.processes, dns: self.dns.as_ref().map(dns) }
    }
}

impl From<&Shared> for SharedRequest {
    fn from(shared: &Shared) -> Self {
        let dns = |dns: &pod::Dns| DnsRequest {
            instead: dns.instead,
            servers: dns.servers.clone(),
            search: dns.search.clone(),
            options: dns.options.clone(),
        };
        Self { processes: shared.processes, dns: shared.dns.as_ref().map(dns) }
    }
}

impl Lifecycle {
    /// Whether there is no hook.
    pub fn is_empty(&self) -> bool {
        self.post_start.is_none() && self.pre_stop.is_none()
    }

    /// The same for the cloud.
    ///
    /// # Errors
    /// The name of a hook that does nothing, or more than one thing.
    pub fn lifecycle(&self) -> Result<lifecycle::Lifecycle, &'static str> {
        let read = |name, asked: &Option<LifecycleHook>| match asked {
            None => Ok(None),
            Some(asked) => asked.hook().map(Some).ok_or(name),
        };
        Ok(lifecycle::Lifecycle {
            post_start: read("post_start", &self.post_start)?,
            pre_stop: read("pre_stop", &self.pre_stop)?,
        })
    }
}

impl LifecycleHook {
    fn hook(&self) -> Option<Hook> {
        let action = match (&self.exec, self.tcp, &self.http, self.sleep_s) {
            (Some(argv), None, None, None) => Action::Exec { argv: argv.clone() },
            (None, Some(port), None, None) => Action::Tcp { port },
            (None, None, Some(asked), None) => asked.action(),
            (None, None, None, Some(seconds)) => return Some(Hook::Sleep { seconds }),
            _ => return None,
        };
        Some(Hook::Ask { action })
    }
}

impl From<&Hook> for LifecycleHook {
    fn from(hook: &Hook) -> Self {
        match hook.clone() {
            Hook::Sleep { seconds } => Self { sleep_s: Some(seconds), ..Self::default() },
            Hook::Ask { action: Action::Exec { argv } } => Self { exec: Some(argv), ..Self::default() },
            Hook::Ask { action: Action::Tcp { port } } => Self { tcp: Some(port), ..Self::default() },
            Hook::Ask { action: Action::Http { port, path, headers, tls } } => {
                Self { http: Some(HttpProbe { port, path, headers, tls }), ..Self::default() }
            }
            // Refused where hooks are made.
            Hook::Ask { action: Action::Grpc { .. } } => Self::default(),
        }
    }
}

impl From<&lifecycle::Lifecycle> for Lifecycle {
    fn from(hooks: &lifecycle::Lifecycle) -> Self {
        let told = |hook: &Option<Hook>| hook.as_ref().map(LifecycleHook::from);
        Self { post_start: told(&hooks.post_start), pre_stop: told(&hooks.pre_stop) }
    }
}

impl HttpProbe {
    fn action(&self) -> Action {
        let (port, path, headers) = (self.port, self.path.clone(), self.headers.clone());
        Action::Http { port, path, headers, tls: self.tls }
    }
}

fn root() -> String {
    "/".into()
}

impl Default for Probe {
    fn default() -> Self {
        let (delay_ms, interval_ms, timeout_ms, successes, failures) = (0, 10_000, 1_000, 1, 3);
        let (exec, tcp, http, grpc) = (None, None, None, None);
        Self { exec, tcp, http, grpc, delay_ms, interval_ms, timeout_ms, successes, failures }
    }
}

impl Probe {
    /// The same for the cloud; `None` unless one of the four questions is asked.
    pub fn probe(&self) -> Option<probe::Probe> {
        let action = match (&self.exec, self.tcp, &self.http, &self.grpc) {
            (Some(argv), None, None, None) => Action::Exec { argv: argv.clone() },
            (None, Some(port), None, None) => Action::Tcp { port },
            (None, None, Some(asked), None) => asked.action(),
            (None, None, None, Some(asked)) => {
                Action::Grpc { port: asked.port, service: asked.service.clone() }
            }
            _ => return None,
        };
        let Self { delay_ms, interval_ms, timeout_ms, successes, failures, .. } = *self;
        Some(probe::Probe { action, delay_ms, interval_ms, timeout_ms, successes, failures })
    }
}

impl From<&probe::Probe> for Probe {
    fn from(probe: &probe::Probe) -> Self {
        let probe::Probe { delay_ms, interval_ms, timeout_ms, successes, failures, .. } = *probe;
        let rest = Self { delay_ms, interval_ms, timeout_ms, successes, failures, ..Self::default() };
        match probe.action.clone() {
            Action::Exec { argv } => Self { exec: Some(argv), ..rest },
            Action::Tcp { port } => Self { tcp: Some(port), ..rest },
            Action::Http { port, path, headers, tls } => {
                Self { http: Some(HttpProbe { port, path, headers, tls }), ..rest }
            }
            Action::Grpc { port, service } => Self { grpc: Some(GrpcProbe { port, service }), ..rest },
        }
    }
}

impl Probes {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.startup.is_none() && self.readiness.is_none() && self.liveness.is_none()
    }

    /// The same for the cloud.
    ///
    /// # Errors
    /// The name of a probe that asks nothing, or more than one question.
    pub fn probes(&self) -> Result<probe::Probes, &'static str> {
        let read = |name, asked: &Option<Probe>| match asked {
            None => Ok(None),
            Some(asked) => asked.probe().map(Some).ok_or(name),
        };
        Ok(probe::Probes {
            startup: read("startup", &self.startup)?,
            readiness: read("readiness", &self.readiness)?,
            liveness: read("liveness", &self.liveness)?,
        })
    }
}

impl From<&probe::Probes> for Probes {
    fn from(probes: &probe::Probes) -> Self {
        let told = |probe: &Option<probe::Probe>| probe.as_ref().map(Probe::from);
        Self {
            startup: told(&probes.startup),
            readiness: told(&probes.readiness),
            liveness: told(&probes.liveness),
        }
    }
}
