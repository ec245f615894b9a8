//! From a pod of a file to what holm is asked for.

use super::{DIGEST, OBJECT};
use crate::cli::failure::{Failure, Result};
use api::v1::types::{
    instance::{ContainerRequest, CreateInstance, ExtraHost, NetworkRequest, VolumeRequest},
    pod::{ContainerMount, FileRequest, FileSetRequest, SecretValues},
    publish::PublishedPort,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use model::{
    instance::{Kind, pod::Shared, tag::Tag},
    kube::{
        container::Container,
        pod::{Pod, Times},
        volume::Volume,
    },
    plan::RestartPolicy,
    port::alias::Alias,
};
use std::collections::BTreeMap;

/// The request for a pod that is part of `object`.
///
/// # Errors
/// A name that holm does not take.
pub fn request(pod: &Pod, object: &str) -> Result<CreateInstance> {
    let mut labels: BTreeMap<String, String> = pod.labels.clone();
    labels.insert(OBJECT.to_string(), object.to_string());
    labels.insert(DIGEST.to_string(), pod.digest.clone());
    let mut containers =
        pod.containers.iter().map(|it| container(it, &pod.volumes)).collect::<Result<Vec<_>>>()?;
    if let Some(first) = containers.first_mut() {
        first.hostname.clone_from(&pod.hostname);
    }
    let extra_hosts = pod.extra_hosts.iter().map(|(name, address)| {
        let name: Alias = name.parse().map_err(Failure::usage)?;
        Ok(ExtraHost { name, address: *address })
    });
    let publish = pod.publish.iter().map(|port| PublishedPort {
        address: port.address,
        host_port: port.host_port,
        port: port.port,
        protocol: port.protocol.into(),
    });
    // It comes back with its host, as Kubernetes starts pods again.
    let autostart = pod.containers.iter().any(|it| it.role.is_main() && it.restart == RestartPolicy::Always);
    Ok(CreateInstance {
        name: pod.name.clone(),
        labels,
        kind: Some(Kind::Container),
        vcpus: Some(pod.vcpus),
        memory_mib: Some(pod.memory_mib),
        networks: Some(vec![NetworkRequest { aliases: aliases(pod)?, ..NetworkRequest::default() }]),
        containers,
        volumes: volumes(pod)?,
        files: files(pod)?,
        extra_hosts: extra_hosts.collect::<Result<_>>()?,
        publish: publish.collect(),
        grace_s: Some(pod.grace_s),
        autostart,
        schedule: match &pod.schedule {
            Some(Times::At(times)) => Some(times.to_string()),
            _ => None,
        },
        isolation: pod.isolation,
        shared: (&Shared { processes: pod.share_processes, dns: pod.dns.clone() }).into(),
        start: pod.schedule.is_some().then_some(false),
        ..CreateInstance::default()
    })
}

/// Names by which a pod's Services find it.
///
/// # Errors
/// A name that is none in DNS.
pub fn aliases(pod: &Pod) -> Result<Vec<Alias>> {
    pod.aliases.iter().map(|name| name.parse().map_err(Failure::usage)).collect()
}

fn tag(name: &str) -> Result<Tag> {
    name.parse().map_err(Failure::usage)
}

fn container(it: &Container, volumes: &BTreeMap<String, Volume>) -> Result<ContainerRequest> {
    let mount = |mount: &model::kube::container::VolumeMount| {
        let mut shown = ContainerMount::default();
        match volumes.get(&mount.volume) {
            Some(Volume::Files(_)) => shown.files = Some(tag(&mount.volume)?),
            Some(Volume::Host { path, exists }) => {
                (shown.host, shown.host_exists) = (Some(path.clone()), *exists);
            }
            _ => shown.volume = Some(tag(&mount.volume)?),
        }
        let (path, sub_path, read_only) = (mount.path.clone(), mount.sub_path.clone(), mount.read_only);
        let (group, group_once) = (mount.group.map(|it| it.gid), mount.group.is_some_and(|it| it.once));
        Ok(ContainerMount { path, sub_path, read_only, group, group_once, ..shown })
    };
    Ok(ContainerRequest {
        name: it.name.clone(),
        image: it.image.clone(),
        command: it.command.clone(),
        args: it.args.clone(),
        env: it.env.plain.clone(),
        secret_env: SecretValues(it.env.secret.clone()),
        working_dir: it.working_dir.clone(),
        user: it.user.clone(),
        tty: it.tty,
        stdin_open: it.stdin,
        restart: Some(it.restart),
        read_only: it.read_only,
        cap_add: it.cap_add.clone(),
        cap_drop: it.cap_drop.clone(),
        tmpfs: it.tmpfs.clone(),
        role: Some(it.role),
        mounts: it.mounts.iter().map(mount).collect::<Result<_>>()?,
        cpu_millis: it.cpu_millis,
        memory_mib: it.memory_mib,
        probes: (&it.probes).into(),
        lifecycle: (&it.lifecycle).into(),
        groups: it.groups.clone(),
        memory_mounts: it.memory_mounts.iter().map(Into::into).collect(),
        ..ContainerRequest::default()
    })
}

fn volumes(pod: &Pod) -> Result<Vec<VolumeRequest>> {
    let is_mounted = |name: &str| pod.containers.iter().flat_map(|it| &it.mounts).any(|it| it.volume == name);
    let mut all = vec![];
    for (name, volume) in pod.volumes.iter().filter(|(name, _)| is_mounted(name)) {
        let tag = Some(tag(name)?);
        match volume {
            Volume::Empty { size_gib } => {
                all.push(VolumeRequest { size_gib: Some(*size_gib), tag, ..VolumeRequest::default() });
            }
            // Of those kept in memory only what several mount is left here.
            Volume::Memory | Volume::LimitedMemory { .. } => {
                all.push(VolumeRequest { size_gib: Some(1), tag, ..VolumeRequest::default() });
            }
            Volume::Claim { name, .. } => {
                all.push(VolumeRequest { volume: Some(name.clone()), tag, ..VolumeRequest::default() });
            }
            Volume::Files(_) | Volume::Host { .. } => {}
        }
    }
    Ok(all)
}

fn files(pod: &Pod) -> Result<Vec<FileSetRequest>> {
    let mut all = vec![];
    for (name, volume) in &pod.volumes {
        if let Volume::Files(set) = volume {
            let file = |file: &model::kube::pod::File| FileRequest {
                path: file.path.clone(),
                mode: file.mode,
                content: STANDARD.encode(&file.bytes),
            };
            all.push(FileSetRequest { name: tag(name)?, files: set.files.iter().map(file).collect() });
        }
    }
    Ok(all)
}
