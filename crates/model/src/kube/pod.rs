//! Pods: their containers, what these share, and how the whole of it lives.

use super::{
    Refusal,
    config::Config,
    container::{self, Container},
    environment::EXPANDED_BYTES_MAX,
    field::Fields,
    security,
    volume::{self, Volume},
};
use crate::{
    instance::{
        CONTAINERS_MAX,
        content::{MemoryMount, Role, SEALED_BYTES_MAX},
        isolation::Isolation,
        pod::Dns,
    },
    plan::RestartPolicy,
    schedule::Cron,
};
use serde::{Serialize, Serializer, ser::SerializeStruct};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

/// Memory of a container that asks for none, in MiB.
const MEMORY_MIB_USUAL: u64 = 512;
/// Seconds between asking a pod to stop and killing it, where it does not say.
const GRACE_S_USUAL: u64 = 30;
/// What a pod may not ask for, and why.
const REFUSED: [(&str, &str); 4] = [
    ("hostNetwork", "a pod has a network of its own: publish ports with hostPort"),
    ("hostPID", "a pod has processes of its own"),
    ("hostIPC", "a pod has shared memory of its own"),
    ("ephemeralContainers", "nothing is added to a running pod: use `holm exec`"),
];
/// What says nothing here, or what is so anyway.
const PASSED_OVER: [&str; 5] = [
    "automountServiceAccountToken",
    "enableServiceLinks",
    "schedulerName",
    "serviceAccount",
    "serviceAccountName",
];

/// A pod, as one instance is made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pod {
    /// Name of the instance.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its containers, those that make it first.
    pub containers: Vec<Container>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, Volume>,
    /// Ports of the host that lead to it.
    pub publish: Vec<HostPort>,
    /// Names in /etc/hosts.
    pub extra_hosts: Vec<(String, IpAddr)>,
    /// Host name inside.
    pub hostname: Option<String>,
    /// When it is started; at once where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Times>,
    /// Names by which Services find it.
    #[serde(skip)]
    pub aliases: Vec<String>,
    /// Its ports that have names.
    #[serde(skip)]
    pub port_names: BTreeMap<String, u16>,
    /// CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Seconds between asking it to stop and killing it.
    pub grace_s: u32,
    /// Its containers see each other's processes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub share_processes: bool,
    /// How names are looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// What stands between its containers and the host.
    #[serde(skip_serializing_if = "Isolation::is_shared")]
    pub isolation: Isolation,
    /// Tells it from what the file asked for before it was changed; the values of secrets have no part in it.
    #[serde(skip)]
    pub digest: String,
}

/// When a pod is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Times {
    /// At these times.
    At(Cron),
    /// When somebody starts it.
    Never,
}

/// A port of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostPort {
    /// Address of the host.
    pub address: Option<IpAddr>,
    /// Port of the host.
    pub host_port: u16,
    /// Port of the pod.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
}

/// Files that are mounted together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileSet {
    /// Name of the volume.
    pub name: String,
    /// The files.
    pub files: Vec<File>,
}

/// A file.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Path in the set.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// They come from a Secret.
    pub is_secret: bool,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (mode {:o}, {} bytes)", self.path, self.mode, self.bytes.len())
    }
}

impl Serialize for File {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut file = out.serialize_struct("File", 3)?;
        file.serialize_field("path", &self.path)?;
        file.serialize_field("mode", &self.mode)?;
        // Whoever sees the digest could try values of secrets until one fits.
        file.serialize_field("bytes", &(!self.is_secret).then_some(&self.bytes))?;
        file.end()
    }
}

impl Pod {
    /// Ten digits that tell what is asked for.
    pub(super) fn fingerprint(&self) -> String {
        let text = serde_json::to_vec(self).expect("a pod is plain data");
        let digest = Sha256::digest(text);
        digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What a pod refers to: itself, and the ConfigMaps and Secrets of its file.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its namespace.
    pub namespace: &'a str,
    /// ConfigMaps by name.
    pub config_maps: &'a BTreeMap<String, Config>,
    /// Secrets by name.
    pub secrets: &'a BTreeMap<String, Config>,
    /// Claims of its own: names of volumes, and of the claims.
    pub claims: &'a [(String, String)],
}

impl<'a> Scene<'a> {
    /// The ConfigMap or Secret that `named` names; `None` where an optional one is not there.
    pub fn config(
        &self,
        named: &Fields<'_>,
        field: &str,
        is_secret: bool,
    ) -> Result<Option<&'a Config>, Refusal> {
        let name = named.needed(field)?;
        let optional = named.flag("optional")?.unwrap_or(false);
        let (all, kind) = if is_secret { (self.secrets, "Secret") } else { (self.config_maps, "ConfigMap") };
        match all.get(&name) {
            Some(config) => Ok(Some(config)),
            None if optional => Ok(None),
            None => Err(named
                .wrong(field, format!("there is no {kind} {name:.80} in this file"))
                .hint(format!("put the {kind} before the pod, with --- between them"))),
        }
    }

    /// What a `fieldRef` tells.
    pub fn field(&self, fields: &Fields<'_>) -> Result<String, Refusal> {
        fields.pass_over(&["apiVersion"]);
        let path = fields.needed("fieldPath")?;
        let label = path.strip_prefix("metadata.labels['").and_then(|rest| rest.strip_suffix("']"));
        match (path.as_str(), label) {
            ("metadata.name", _) => Ok(self.name.to_string()),
            ("metadata.namespace", _) => Ok(self.namespace.to_string()),
            ("metadata.labels", _) => {
                let lines = self.labels.iter().map(|(key, value)| format!("{key}={value:?}\n"));
                Ok(lines.collect())
            }
            (_, Some(label)) => Ok(self.labels.get(label).cloned().unwrap_or_default()),
            _ => Err(fields
                .wrong("fieldPath", format!("{path:.80} is not told to containers"))
                .hint("metadata.name, metadata.namespace, metadata.labels and one label of these are")),
        }
    }
}

/// Reads a pod. `restarts` are the restart policies that its kind may have, the usual one first.
pub(super) fn read(
    spec: &Fields<'_>,
    scene: &Scene<'_>,
    restarts: &[(&str, RestartPolicy)],
) -> Result<Pod, Refusal> {
    for (field, reason) in REFUSED {
        spec.refuse(field, reason)?;
    }
    spec.pass_over(&PASSED_OVER);
    if let Some(os) = spec.child("os")? {
        os.word("name", &[("linux", ())])?;
    }
    let (dns, isolation) = (dns(spec)?, isolation(spec)?);
    let restart = spec.word("restartPolicy", restarts)?;
    let security = security::of_pod(spec)?;
    let grace_s = spec.number("terminationGracePeriodSeconds", 0..=3600)?.unwrap_or(GRACE_S_USUAL);
    let volumes = volume::read(spec, scene)?;
    let mut containers = vec![];
    let (mut publish, mut port_names, mut env_bytes) = (vec![], BTreeMap::new(), 0);
    for (field, is_init) in [("containers", false), ("initContainers", true)] {
        let all = spec.children(field)?;
        if all.is_empty() && !is_init {
            return Err(spec.wrong(field, "a pod has at least one container"));
        }
        for fields in all {
            let place =
                container::Place { is_init, restart, security: &security, volumes: &volumes, grace_s };
            let (container, ports, names) = container::read(&fields, scene, &place)?;
            if containers.iter().any(|known: &Container| known.name == container.name) {
                return Err(fields.wrong("name", format!("two containers are called {}", container.name)));
            }
            if containers.len() == CONTAINERS_MAX {
                return Err(spec.wrong(field, format!("a pod has at most {CONTAINERS_MAX} containers")));
            }
            env_bytes += container.env.bytes();
            if env_bytes > EXPANDED_BYTES_MAX {
                let message = format!("its variables come to more than {EXPANDED_BYTES_MAX} bytes");
                return Err(spec.wrong(field, message).hint("mount what is large as a file"));
            }
            containers.push(container);
            publish.extend(ports);
            port_names.extend(names);
        }
    }
    keep_memory_apart(spec, &volumes, &mut containers);
    check_sealed(spec, &volumes, &containers)?;
    let (vcpus, memory_mib) = size(&containers);
    Ok(Pod {
        name: scene.name.to_string(),
        labels: scene.labels.clone(),
        containers,
        volumes,
        publish,
        extra_hosts: extra_hosts(spec)?,
        hostname: hostname(spec)?,
        schedule: None,
        aliases: vec![],
        port_names,
        vcpus,
        memory_mib,
        grace_s: u32::try_from(grace_s).unwrap_or(0),
        share_processes: spec.flag("shareProcessNamespace")?.unwrap_or(false),
        dns,
        isolation,
        digest: String::new(),
    })
}

/// The runtime class that a pod asks for: another than holm has would be another wall than its file counts on.
fn isolation(spec: &Fields<'_>) -> Result<Isolation, Refusal> {
    match spec.text("runtimeClassName")?.as_deref() {
        None | Some("") => Ok(Isolation::Shared),
        Some("vm") => Ok(Isolation::Vm),
        Some(other) => Err(spec
            .wrong("runtimeClassName", format!("there is no runtime class {other:.80}"))
            .hint("leave it out for the host's kernel, or write vm for a kernel of its own")),
    }
}

/// How names are looked up, where the file says more than that the network's own server is asked.
fn dns(spec: &Fields<'_>) -> Result<Option<Dns>, Refusal> {
    let policies =
        [("ClusterFirst", false), ("ClusterFirstWithHostNet", false), ("Default", false), ("None", true)];
    let instead = spec.word("dnsPolicy", &policies)?;
    if spec.text("dnsPolicy")?.as_deref() == Some("Default") {
        spec.warn("dnsPolicy", "not honoured: names are asked of the network's own server");
    }
    let Some(config) = spec.child("dnsConfig")? else {
        return match instead {
            true => Err(spec.wrong("dnsConfig", "is missing, with dnsPolicy None")),
            false => Ok(None),
        };
    };
    let mut servers = vec![];
    for (number, text) in config.texts("nameservers")?.unwrap_or_default().into_iter().enumerate() {
        let wrong = || config.wrong(&format!("nameservers[{number}]"), "is no IP address");
        servers.push(text.parse().map_err(|_| wrong())?);
    }
    let mut options = vec![];
    for option in config.children("options")? {
        let name = option.needed("name")?;
        options.push(match option.text("value")?.filter(|value| !value.is_empty()) {
            Some(value) => format!("{name}:{value}"),
            None => name,
        });
    }
    let search = config.texts("searches")?.unwrap_or_default();
    let dns = Dns { instead, servers, search, options };
    dns.check().map_err(|wrong| spec.wrong("dnsConfig", wrong))?;
    Ok(Some(dns))
}

fn hostname(spec: &Fields<'_>) -> Result<Option<String>, Refusal> {
    let name = spec.text("hostname")?.filter(|name| !name.is_empty());
    match name.as_ref().filter(|name| crate::name::dns_label(name, "") != **name) {
        Some(_) => Err(spec.wrong("hostname", "has at most 63 lower case letters, digits and dashes")),
        None => Ok(name),
    }
}

/// What is kept sealed with an instance is bounded; so it is said before anything is made.
fn check_sealed(
    spec: &Fields<'_>,
    volumes: &BTreeMap<String, Volume>,
    containers: &[Container],
) -> Result<(), Refusal> {
    let in_files = volumes.values().map(|volume| match volume {
        Volume::Files(set) => set.files.iter().map(|file| file.bytes.len()).sum::<usize>(),
        _ => 0,
    });
    let in_env =
        containers.iter().flat_map(|it| &it.env.secret).map(|(name, value)| name.len() + value.len());
    let bytes = in_files.sum::<usize>() + in_env.sum::<usize>();
    if bytes <= SEALED_BYTES_MAX {
        return Ok(());
    }
    let message =
        format!("ConfigMaps and Secrets of {bytes} bytes: a pod is shown at most {SEALED_BYTES_MAX}");
    Err(spec.wrong("volumes", message).hint("put them on a volume, or name single keys with items"))
}

/// Memory is one container's own: where several mount the same, each would find its own. Of what is mounted once nobody
/// sees the rest, so that a part of it is as good as all of it.
fn keep_memory_apart(spec: &Fields<'_>, volumes: &BTreeMap<String, Volume>, containers: &mut [Container]) {
    let of = |name: &str, containers: &[Container]| {
        containers.iter().flat_map(|it| &it.mounts).filter(|mount| mount.volume == name).count()
    };
    for (name, volume) in volumes.iter().filter(|(_, volume)| volume.is_memory()) {
        if of(name, containers) > 1 {
            spec.warn(
                &format!("volumes.{name}"),
                "emptyDir.medium is not honoured: several mount it, so it is on disk",
            );
            continue;
        }
        for container in containers.iter_mut() {
            let at = container.mounts.iter().position(|mount| mount.volume == *name);
            if let Some(at) = at {
                let mount = container.mounts.remove(at);
                match volume {
                    Volume::LimitedMemory { size_bytes } => container.memory_mounts.push(MemoryMount {
                        path: mount.path,
                        size_bytes: Some(*size_bytes),
                        read_only: mount.read_only,
                        ..MemoryMount::default()
                    }),
                    _ => container.tmpfs.push(mount.path),
                }
            }
        }
    }
}

fn extra_hosts(spec: &Fields<'_>) -> Result<Vec<(String, IpAddr)>, Refusal> {
    let mut all = vec![];
    for alias in spec.children("hostAliases")? {
        let address = alias.needed("ip")?;
        let address = address.parse().map_err(|_| alias.wrong("ip", "is no IP address"))?;
        for name in alias.texts("hostnames")?.unwrap_or_default() {
            all.push((name, address));
        }
    }
    Ok(all)
}

/// What the pod needs: its containers together, or one that runs before them alone.
fn size(containers: &[Container]) -> (u32, u64) {
    let cpu = |it: &Container| u64::from(it.cpu_millis.or(it.cpu_asked_millis).unwrap_or(0));
    let memory = |it: &Container| it.memory_mib.or(it.memory_asked_mib).unwrap_or(MEMORY_MIB_USUAL);
    let (first, beside): (Vec<_>, Vec<_>) = containers.iter().partition(|it| it.role == Role::Init);
    let most = |together: u64, alone: Option<u64>| together.max(alone.unwrap_or(0));
    let millis = most(beside.iter().map(|it| cpu(it)).sum(), first.iter().map(|it| cpu(it)).max());
    let mib = most(beside.iter().map(|it| memory(it)).sum(), first.iter().map(|it| memory(it)).max());
    (u32::try_from(millis.div_ceil(1_000).max(1)).unwrap_or(u32::MAX), mib)
}

/// Reads a pod template's or a pod's labels.
pub(super) fn labels(metadata: Option<&Fields<'_>>) -> Result<BTreeMap<String, String>, Refusal> {
    metadata.map_or(Ok(BTreeMap::new()), |metadata| metadata.pairs("labels"))
}

/// Claims that a pod names.
pub(super) fn claims(pod: &Pod) -> BTreeSet<&str> {
    let mut all = BTreeSet::new();
    for volume in pod.volumes.values() {
        if let Volume::Claim { name, .. } = volume {
            all.insert(name.as_str());
        }
    }
    all
}
