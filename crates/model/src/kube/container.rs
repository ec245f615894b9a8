//! Containers of a pod.

use super::{
    Refusal, environment,
    environment::Environment,
    field::Fields,
    pod::{HostPort, Scene},
    probe, quantity,
    volume::Volume,
};
use crate::{
    health::probe::Probes,
    instance::content::{Role, check_absolute, check_relative},
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
}

/// What a container has of its pod.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// It is one of `initContainers`.
    pub is_init: bool,
    /// The pod's restart policy.
    pub restart: RestartPolicy,
    /// The pod's user.
    pub user: Option<&'a str>,
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
    let security = security(fields, place.user)?;
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
        mounts: mounts(fields, place.volumes)?,
        tmpfs: vec![],
        cpu_millis: resources.0[0],
        cpu_asked_millis: resources.0[1],
        memory_mib: resources.1[0],
        memory_asked_mib: resources.1[1],
        probes,
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

fn mounts(fields: &Fields<'_>, volumes: &BTreeMap<String, Volume>) -> Result<Vec<VolumeMount>, Refusal> {
    let mut all: Vec<VolumeMount> = vec![];
    for mount in fields.children("volumeMounts")? {
        let name = mount.needed("name")?;
        let volume = volumes.get(&name);
        let volume =
            volume.ok_or_else(|| mount.wrong("name", format!("the pod has no volume {name:.63}")))?;
        let path = mount.needed("mountPath")?;
        check_absolute(&path).map_err(|bad| mount.wrong("mountPath", bad.to_string()))?;
        if all.iter().any(|known| known.path == path) {
            return Err(mount.wrong("mountPath", format!("{path} is mounted twice")));
        }
        mount.refuse("subPathExpr", "is not worked out here: write subPath")?;
        mount.word("mountPropagation", &[("None", ())])?;
        let sub_path = mount.text("subPath")?.filter(|path| !path.is_empty());
        if let Some(part) = &sub_path {
            if !matches!(volume, Volume::Files(_)) {
                let message = "a part of a volume that containers write to cannot be mounted";
                return Err(mount.wrong("subPath", message).hint("mount all of it elsewhere"));
            }
            check_relative(part).map_err(|bad| mount.wrong("subPath", bad.to_string()))?;
        }
        let read_only = mount.flag("readOnly")?.unwrap_or(false)
            || matches!(volume, Volume::Claim { read_only: true, .. });
        all.push(VolumeMount { volume: name, path, sub_path, read_only });
    }
    Ok(all)
}

struct Security {
    user: Option<String>,
    read_only: bool,
    cap_add: Vec<String>,
    cap_drop: Vec<String>,
}

fn security(fields: &Fields<'_>, pod_user: Option<&str>) -> Result<Security, Refusal> {
    let pod_user = pod_user.map(String::from);
    let Some(context) = fields.child("securityContext")? else {
        return Ok(Security { user: pod_user, read_only: false, cap_add: vec![], cap_drop: vec![] });
    };
    context.refuse("privileged", "no container has the powers of the host's root")?;
    context.refuse("procMount", "what /proc hides stays hidden")?;
    // Set-uid programs give nothing to anybody here.
    if context.flag("allowPrivilegeEscalation")? == Some(true) {
        context.warn("allowPrivilegeEscalation", "not honoured: no program gains privileges here");
    }
    seccomp(&context)?;
    let user = user(&context)?.or(pod_user);
    not_root(&context, user.as_deref())?;
    let capabilities = context.child("capabilities")?;
    let list = |name: &str| match &capabilities {
        None => Ok(vec![]),
        Some(fields) => fields.texts(name).map(Option::unwrap_or_default),
    };
    Ok(Security {
        user,
        read_only: context.flag("readOnlyRootFilesystem")?.unwrap_or(false),
        cap_add: list("add")?,
        cap_drop: list("drop")?,
    })
}

/// The user that the pod as a whole asks for.
pub(super) fn pod_user(spec: &Fields<'_>) -> Result<Option<String>, Refusal> {
    let Some(context) = spec.child("securityContext")? else { return Ok(None) };
    seccomp(&context)?;
    let user = user(&context)?;
    not_root(&context, user.as_deref())?;
    Ok(user)
}

fn user(context: &Fields<'_>) -> Result<Option<String>, Refusal> {
    let ids = 0..=65_535;
    let user = context.number("runAsUser", ids.clone())?;
    let group = context.number("runAsGroup", ids)?;
    Ok(match (user, group) {
        (None, None) => None,
        (Some(user), None) => Some(user.to_string()),
        (user, Some(group)) => Some(format!("{}:{group}", user.unwrap_or(0))),
    })
}

fn not_root(context: &Fields<'_>, user: Option<&str>) -> Result<(), Refusal> {
    if context.flag("runAsNonRoot")? != Some(true) {
        return Ok(());
    }
    match user {
        Some(user) if user == "0" || user.starts_with("0:") => {
            Err(context.wrong("runAsNonRoot", "the user that is asked for is root"))
        }
        Some(_) => Ok(()),
        None => {
            context.warn("runAsNonRoot", "not checked: the image's user is not known yet; say runAsUser");
            Ok(())
        }
    }
}

/// System calls are filtered in one way for all.
fn seccomp(context: &Fields<'_>) -> Result<(), Refusal> {
    let Some(profile) = context.child("seccompProfile")? else { return Ok(()) };
    match profile.text("type")?.as_deref() {
        None | Some("RuntimeDefault") => Ok(()),
        Some(_) => {
            Err(profile.wrong("type", "system calls are filtered by holm's own rules: RuntimeDefault"))
        }
    }
}
