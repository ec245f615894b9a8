//! Containers of a pod.

use super::{
    Refusal, environment,
    environment::Environment,
    field::Fields,
    lifecycle,
    pod::{HostPort, Scene},
    probe, quantity,
    security::{self, PodSecurity},
    volume::Volume,
};
use crate::{
    health::probe::Probes,
    instance::{
        content::{MemoryMount, Role, VolumeGroup, check_absolute, check_relative},
        lifecycle::Lifecycle,
    },
    plan::RestartPolicy,
};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Container {
    /// Name in the pod.
    pub name: String,
    /// Image.
    pub image: String,
    /// When it runs.
    pub role: Role,
    /// Program instead of the image's.
    pub command: Option<Vec<String>>,
    /// Arguments instead of the image's.
    pub args: Option<Vec<String>>,
    /// Environment beside the image's.
    pub env: Environment,
    /// Working directory.
    pub working_dir: Option<String>,
    /// User, and group if one is told.
    pub user: Option<String>,
    /// What happens when it ends.
    pub restart: RestartPolicy,
    /// Its own files cannot be written.
    pub read_only: bool,
    /// Capabilities more.
    pub cap_add: Vec<String>,
    /// Capabilities less.
    pub cap_drop: Vec<String>,
    /// A terminal.
    pub tty: bool,
    /// Standard input stays open.
    pub stdin: bool,
    /// Volumes that it sees.
    pub mounts: Vec<VolumeMount>,
    /// Paths kept in memory.
    pub tmpfs: Vec<String>,
    /// Most CPU time in thousandths.
    pub cpu_millis: Option<u32>,
    /// CPU time that it asks for.
    pub cpu_asked_millis: Option<u32>,
    /// Most memory in MiB.
    pub memory_mib: Option<u64>,
    /// Memory that it asks for.
    pub memory_asked_mib: Option<u64>,
    /// Probes.
    pub probes: Probes,
    /// Hooks.
    #[serde(skip_serializing_if = "Lifecycle::is_empty")]
    pub lifecycle: Lifecycle,
    /// Further groups of its user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
    /// Mounts kept in memory that are limited.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub memory_mounts: Vec<MemoryMount>,
}

/// Where a container sees a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeMount {
    /// Name of the volume.
    pub volume: String,
    /// Where.
    pub path: String,
    /// A part of it.
    pub sub_path: Option<String>,
    /// Writes are refused.
    pub read_only: bool,
    /// Group that it is given to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<VolumeGroup>,
}

/// What a container has of its pod.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// It is one of `initContainers`.
    pub is_init: bool,
    /// The pod's restart policy.
    pub restart: RestartPolicy,
    /// The pod's users and groups.
    pub security: &'a PodSecurity,
    /// Seconds that the pod has to end.
    pub grace_s: u64,
    /// The pod's volumes.
    pub volumes: &'a BTreeMap<String, Volume>,
}

/// Reads one, with the ports of the host that lead to it and its own that have names.
pub(super) fn read(
    fields: &Fields<'_>,
    scene: &Scene<'_>,
    place: &Place<'_>,
) -> Result<(Container, Vec<HostPort>, BTreeMap<String, u16>), Refusal> {
    let name = fields.needed("name")?;
    if crate::name::dns_label(&name, "") != name {
        return Err(fields.wrong("name", "has at most 63 lower case letters, digits and dashes"));
    }
    let (role, restart) = role(fields, place)?;
    let env = environment::read(fields, scene)?;
    let (ports, publish) = ports(fields)?;
    let resources = resources(fields)?;
    let security = security::of_container(fields, place.security.user.as_deref())?;
    fields.word("imagePullPolicy", &[("IfNotPresent", true), ("Always", false), ("Never", false)]).map(
        |is_usual| {
            if !is_usual {
                fields.warn("imagePullPolicy", "not honoured: an image is pulled when it is not here");
            }
        },
    )?;
    fields.word("terminationMessagePath", &[("/dev/termination-log", ())])?;
    fields.word("terminationMessagePolicy", &[("File", ())])?;
    fields.refuse("volumeDevices", "containers have directories, not disks")?;
    let probes = probe::read(fields, &ports)?;
    if role == Role::Init && !probes.is_empty() {
        return Err(Refusal::new(fields.object(), fields.path(), "an init container has no probes"));
    }
    let lifecycle = lifecycle::read(fields, &ports, place.grace_s)?;
    if role == Role::Init && !lifecycle.is_empty() {
        return Err(fields.wrong("lifecycle", "an init container has no hooks: it runs to its end"));
    }
    let container = Container {
        image: fields.needed("image")?,
        role,
        command: expanded(fields, "command", &env)?,
        args: expanded(fields, "args", &env)?,
        working_dir: fields.text("workingDir")?.filter(|path| !path.is_empty()),
        user: security.user,
        restart,
        read_only: security.read_only,
        cap_add: security.cap_add,
        cap_drop: security.cap_drop,
        tty: fields.flag("tty")?.unwrap_or(false),
        stdin: fields.flag("stdin")?.unwrap_or(false),
        mounts: mounts(fields, place, &env)?,
        tmpfs: vec![],
        cpu_millis: resources.0[0],
        cpu_asked_millis: resources.0[1],
        memory_mib: resources.1[0],
        memory_asked_mib: resources.1[1],
        probes,
        lifecycle,
        groups: place.security.groups.clone(),
        memory_mounts: vec![],
        env,
        name,
    };
    Ok((container, publish, ports))
}

/// An init container is done once; one that is always restarted serves the others.
fn role(fields: &Fields<'_>, place: &Place<'_>) -> Result<(Role, RestartPolicy), Refusal> {
    if !place.is_init {
        fields.refuse("restartPolicy", "is for initContainers: the others have their pod's")?;
        return Ok((Role::Main, place.restart));
    }
    match fields.text("restartPolicy")?.as_deref() {
        None => {
            let restart = match place.restart {
                RestartPolicy::No => RestartPolicy::No,
                _ => RestartPolicy::OnFailure { retries_max: 0 },
            };
            Ok((Role::Init, restart))
        }
        Some("Always") => Ok((Role::Sidecar, RestartPolicy::Always)),
        Some(_) => Err(fields.wrong("restartPolicy", "is Always, for a sidecar, or missing")),
    }
}

fn expanded(fields: &Fields<'_>, name: &str, env: &Environment) -> Result<Option<Vec<String>>, Refusal> {
    let Some(texts) = fields.texts(name)? else { return Ok(None) };
    let mut bytes = 0;
    let expand = |text: &String| match env.expand(text) {
        (text, false) => {
            bytes += text.len();
            match bytes > environment::EXPANDED_BYTES_MAX {
                true => Err(fields
                    .wrong(name, format!("comes to more than {} bytes", environment::EXPANDED_BYTES_MAX))),
                false => Ok(text),
            }
        }
        (_, true) => Err(fields
            .wrong(name, "refers to a secret, which everybody who sees the command would see")
            .hint("have a shell read the variable: sh -c 'exec program \"$NAME\"'")),
    };
    texts
        .iter()
        .map(expand)
        .collect::<Result<Vec<_>, _>>()
        .map(Some)
        .map(|argv| argv.filter(|a| !a.is_empty()))
}

type Ports = (BTreeMap<String, u16>, Vec<HostPort>);

fn ports(fields: &Fields<'_>) -> Result<Ports, Refusal> {
    let (mut named, mut publish) = (BTreeMap::new(), vec![]);
    for port in fields.children("ports")? {
        let number = |name: &str| {
            let number = port.number(name, 0..=65_535)?;
            Ok::<u16, Refusal>(number.and_then(|n| u16::try_from(n).ok()).unwrap_or(0))
        };
        let (inner, outer) = (number("containerPort")?, number("hostPort")?);
        if inner == 0 {
            return Err(port.wrong("containerPort", "is to be a number from 1 to 65535"));
        }
        if let Some(name) = port.text("name")? {
            named.insert(name, inner);
        }
        let protocol = port.word("protocol", &[("TCP", "tcp"), ("UDP", "udp"), ("SCTP", "sctp")])?;
        let address =
            port.text("hostIP")?.filter(|text| !text.is_empty()).map(|text| text.parse::<std::net::IpAddr>());
        let address = address.transpose().map_err(|_| port.wrong("hostIP", "is no IP address"))?;
        if outer != 0 {
            publish.push(HostPort { address, host_port: outer, port: inner, protocol });
        }
    }
    Ok((named, publish))
}

/// CPU in thousandths and memory in MiB: most, and asked for.
fn resources(fields: &Fields<'_>) -> Result<([Option<u32>; 2], [Option<u64>; 2]), Refusal> {
    let (mut cpu, mut memory) = ([None; 2], [None; 2]);
    let Some(resources) = fields.child("resources")? else { return Ok((cpu, memory)) };
    for (at, name) in ["limits", "requests"].into_iter().enumerate() {
        let Some(amounts) = resources.child(name)? else { continue };
        let read = |field: &str| match amounts.raw(field) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => amounts.text(field),
        };
        let wrong = |field: &str, text: &str| amounts.wrong(field, format!("{text:.40} is no amount"));
        if let Some(text) = read("cpu")? {
            let millis = quantity::thousandths(&text).and_then(|millis| u32::try_from(millis).ok());
            cpu[at] = Some(millis.ok_or_else(|| wrong("cpu", &text))?).filter(|millis| *millis > 0);
        }
        if let Some(text) = read("memory")? {
            let mib = quantity::pieces(&text, 1 << 20);
            memory[at] = Some(mib.ok_or_else(|| wrong("memory", &text))?).filter(|mib| *mib > 0);
        }
    }
    Ok((cpu, memory))
}

fn mounts(fields: &Fields<'_>, place: &Place<'_>, env: &Environment) -> Result<Vec<VolumeMount>, Refusal> {
    let mut all: Vec<VolumeMount> = vec![];
    for mount in fields.children("volumeMounts")? {
        let name = mount.needed("name")?;
        let volume = place.volumes.get(&name);
        let volume =
            volume.ok_or_else(|| mount.wrong("name", format!("the pod has no volume {name:.63}")))?;
        let path = mount.needed("mountPath")?;
        check_absolute(&path).map_err(|bad| mount.wrong("mountPath", bad.to_string()))?;
        if all.iter().any(|known| known.path == path) {
            return Err(mount.wrong("mountPath", format!("{path} is mounted twice")));
        }
        mount.word("mountPropagation", &[("None", ())])?;
        let sub_path = sub_path(&mount, env)?;
        let read_only = mount.flag("readOnly")?.unwrap_or(false)
            || matches!(volume, Volume::Claim { read_only: true, .. });
        // Memory is given to everybody, and a directory of the host stays whose it is.
        let group = place.security.volume_group.filter(|_| volume.takes_group());
        all.push(VolumeMount { volume: name, path, sub_path, read_only, group });
    }
    Ok(all)
}

/// The part of a volume that is mounted, which may name variables.
fn sub_path(mount: &Fields<'_>, env: &Environment) -> Result<Option<String>, Refusal> {
    let plain = mount.text("subPath")?.filter(|path| !path.is_empty());
    let named = mount.text("subPathExpr")?.filter(|path| !path.is_empty());
    let (field, path) = match (plain, named) {
        (None, None) => return Ok(None),
        (Some(path), None) => ("subPath", path),
        (None, Some(text)) => match env.expand(&text) {
            (path, false) => ("subPathExpr", path),
            (_, true) => {
                return Err(mount.wrong("subPathExpr", "refers to a secret, which everybody would see"));
            }
        },
        (Some(_), Some(_)) => return Err(mount.wrong("subPathExpr", "is there beside subPath: say one")),
    };
    check_relative(&path).map_err(|bad| mount.wrong(field, bad.to_string()))?;
    Ok(Some(path))
}
