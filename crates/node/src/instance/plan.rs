//! From records to a driver's plan: every name looked up, every path filled in.

use super::{InstanceError, Instances, guest::guest_data, id_range};
use crate::{image::disk::image_path, network::directory_mirror::hostname};
use model::{
    dataplane::service::port_facts,
    image::{Image, KernelBoot, OciContent},
    instance::{ContainerSpec, Instance, Kind},
    plan::{
        Body, BootPlan, ContainerPlan, DiskPlan, InstancePlan, MountPlan, MountSource, NicPlan, PodPlan,
        VmPlan,
    },
    port::Port,
    volume::{Volume, VolumeStatus},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
};

/// Gateway of every routed network on IPv6.
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Threads of QEMU, and processes of a pod.
const PIDS_MAX: u64 = 4096;
/// `PATH` of containers whose image says nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Instances {
    /// The plan of an instance whose images, volumes and networks are ready.
    ///
    /// # Errors
    /// What is missing after all.
    pub fn plan(&self, instance: &Instance) -> Result<InstancePlan, InstanceError> {
        let nics = self.gather.ports(&instance.ports).iter().filter_map(|p| self.nic(instance, p)).collect();
        let disks = instance.volumes.iter().enumerate().map(|(n, id)| self.disk(instance, n, *id));
        let disks = disks.collect::<Result<Vec<_>, _>>()?;
        let body = match instance.kind {
            Kind::Vm => Body::Vm(self.vm(instance)?),
            Kind::Container | Kind::System => Body::Pod(self.pod(instance, &disks)?),
        };
        Ok(InstancePlan {
            id: instance.meta.id,
            project: instance.meta.project,
            boot: instance.boots,
            name: instance.meta.name.to_string(),
            hostname: hostname_inside(instance),
            id_range: id_range(instance),
            vcpus: instance.size.vcpus,
            memory_mib: instance.size.memory_mib,
            cpu_weight: instance.cpu_weight,
            pids_max: pids_max(instance),
            nics,
            disks,
            body,
        })
    }

    fn nic(&self, instance: &Instance, port: &Port) -> Option<NicPlan> {
        let view = self.gather.network(port.network)?;
        let facts = port_facts(&view, port, Some(&hostname(instance)));
        let addresses = port
            .addresses
            .iter()
            .filter_map(|fixed| {
                let subnet = view.subnets.iter().find(|s| s.meta.id == fixed.subnet)?;
                // On IPv6 no prefix is on the link: even a neighbour is reached through the gateway.
                let bits = if fixed.address.is_ipv6() { 128 } else { subnet.cidr.prefix_len() };
                ipnet::IpNet::new(fixed.address, bits).ok()
            })
            .collect();
        let v4 = facts.v4.as_ref();
        let v4_dns = v4.iter().flat_map(|f| f.dns.iter().map(|a| IpAddr::V4(*a)));
        let v6_dns = facts.v6.iter().flat_map(|f| f.dns.iter().map(|a| IpAddr::V6(*a)));
        Some(NicPlan {
            port: port.meta.id,
            device: port.device_name(),
            netns: self.wires.handle(port.network),
            mac: port.mac,
            mtu: view.network.mtu,
            addresses,
            gateway_v4: v4.and_then(|f| f.gateway),
            gateway_v6: (!facts.v6.is_empty()).then_some(GATEWAY_V6),
            dns: v4_dns.chain(v6_dns).collect(),
            search: vec![facts.domain],
        })
    }

    pub(super) fn disk(
        &self,
        instance: &Instance,
        place: usize,
        id: model::id::VolumeId,
    ) -> Result<DiskPlan, InstanceError> {
        let missing =
            || InstanceError::Storage { what: format!("volume {id} is not there"), hint: String::new() };
        let volume = self.store.get::<Volume>(&id.to_string()).ok_or_else(missing)?;
        let status = self.store.get::<VolumeStatus>(&id.to_string()).ok_or_else(missing)?;
        let path = status.record.path.clone().ok_or_else(missing)?;
        Ok(DiskPlan {
            volume: id,
            path: PathBuf::from(path),
            format: status.record.format,
            backing: status.record.backing.clone(),
            read_only: volume.record.refuses_writes(),
            serial: volume.record.serial(),
            boot_index: (instance.kind == Kind::Vm && place == 0).then_some(1),
            mount_path: volume.record.mount_path.as_ref().map(PathBuf::from),
        })
    }

    /// The image that says how a VM boots: its own, or the one that its root disk once was.
    pub(super) fn boot_image(&self, instance: &Instance) -> Option<std::sync::Arc<store::Stored<Image>>> {
        let of_root = || {
            let root = self.store.get::<Volume>(&instance.volumes.first()?.to_string())?;
            root.record.ground().image
        };
        let id = instance.image.or_else(of_root)?;
        self.store.get::<Image>(&id.to_string())
    }

    fn vm(&self, instance: &Instance) -> Result<VmPlan, InstanceError> {
        let image = self.boot_image(instance);
        let boot = match image.as_ref().and_then(|i| i.record.boot.clone()) {
            Some(KernelBoot { kernel, initrd, cmdline }) => BootPlan::Kernel {
                kernel: image_path(&self.dirs.images, kernel, None),
                initrd: initrd.map(|id| image_path(&self.dirs.images, id, None)),
                cmdline: if cmdline.is_empty() { "console=ttyS0".into() } else { cmdline },
            },
            None => BootPlan::Firmware { uefi: image.is_some_and(|i| i.record.uefi) },
        };
        Ok(VmPlan {
            boot,
            guest: guest_data(&self.gather, instance),
            config_drive: instance.config_drive,
            accelerator: instance.accelerator,
        })
    }

    fn pod(&self, instance: &Instance, disks: &[DiskPlan]) -> Result<PodPlan, InstanceError> {
        let containers = instance.containers.iter().map(|spec| self.container(instance, spec, disks));
        Ok(PodPlan { containers: containers.collect::<Result<_, _>>()?, extra_hosts: vec![] })
    }

    /// Directories of an image's layers, lowest first. Of two equal ones the upper counts: overlayfs refuses the same
    /// directory twice.
    fn layer_paths(&self, image: &OciContent) -> Vec<PathBuf> {
        let digests = image.diff_ids.iter().filter_map(|id| id.parse().ok());
        let all: Vec<PathBuf> = digests.map(|digest| self.layers.path(&digest)).collect();
        let mut paths: Vec<PathBuf> = vec![];
        for path in all.into_iter().rev() {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        paths.reverse();
        paths
    }

    fn container(
        &self,
        instance: &Instance,
        spec: &ContainerSpec,
        disks: &[DiskPlan],
    ) -> Result<ContainerPlan, InstanceError> {
        let content = spec.image.and_then(|id| self.image_content(id)).and_then(|c| c.oci);
        let image = content.ok_or_else(|| InstanceError::Storage {
            what: format!("the image of container {} is not there", spec.name),
            hint: String::new(),
        })?;
        let argv = argv(spec, &image);
        if argv.is_empty() {
            return Err(InstanceError::Storage {
                what: format!("the image of container {} names no program", spec.name),
                hint: "give a command: `holm run IMAGE COMMAND`".into(),
            });
        }
        let layers = self.layer_paths(&image);
        Ok(ContainerPlan {
            name: spec.name.clone(),
            layers,
            argv,
            env: environment(spec, &image, &hostname_inside(instance)),
            cwd: PathBuf::from(first(&[spec.working_dir.as_deref().unwrap_or(""), &image.working_dir, "/"])),
            user: spec.user.clone().unwrap_or_else(|| image.user.clone()),
            tty: spec.tty,
            terminal_size: spec.terminal_size,
            stdin_open: spec.stdin_open,
            restart: spec.restart,
            stop_signal: signal_number(spec.stop_signal.as_ref().unwrap_or(&image.stop_signal)),
            grace_s: instance.grace_s,
            mounts: mounts(spec, disks),
            read_only_rootfs: spec.read_only,
            cap_add: spec.cap_add.clone(),
            cap_drop: spec.cap_drop.clone(),
            memory_mib: None,
            cpu_millis: spec.cpu_millis,
            log: spec.log,
            upper: self.dirs.state.join(instance.meta.id.to_string()).join(layer_name(instance, &spec.name)),
            labels: BTreeMap::new(),
        })
    }
}

/// The host name that a guest finds; others find it by the one made of its name.
fn hostname_inside(instance: &Instance) -> String {
    let asked = instance.containers.first().and_then(|c| c.hostname.clone());
    asked.unwrap_or_else(|| hostname(instance))
}

/// What a pod of one container was given, else what every instance has.
fn pids_max(instance: &Instance) -> u64 {
    match instance.containers.as_slice() {
        [one] => one.pids_max.unwrap_or(PIDS_MAX),
        _ => PIDS_MAX,
    }
}

/// Name of the directory that a container of this build of a pod writes to.
pub(super) fn layer_name(instance: &Instance, container: &str) -> String {
    // A container's name is a DNS label: what follows the dot is the build's alone.
    if instance.build == 0 { container.to_string() } else { format!("{container}.{}", instance.build) }
}

fn first<'a>(texts: &[&'a str]) -> &'a str {
    texts.iter().copied().find(|t| !t.is_empty()).unwrap_or_default()
}

/// Entrypoint and arguments, as docker joins them: a new entrypoint drops the image's arguments.
fn argv(spec: &ContainerSpec, image: &OciContent) -> Vec<String> {
    let entrypoint = spec.entrypoint.clone().unwrap_or_else(|| image.entrypoint.clone());
    let args = match (&spec.args, &spec.entrypoint) {
        (Some(args), _) => args.clone(),
        (None, Some(_)) => vec![],
        (None, None) => image.cmd.clone(),
    };
    entrypoint.into_iter().chain(args).collect()
}

fn environment(spec: &ContainerSpec, image: &OciContent, hostname: &str) -> Vec<(String, String)> {
    let mut env = BTreeMap::from([
        ("PATH".to_string(), DEFAULT_PATH.to_string()),
        ("HOSTNAME".to_string(), hostname.to_string()),
    ]);
    if spec.tty {
        env.insert("TERM".into(), "xterm".into());
    }
    for pair in &image.env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        env.insert(name.to_string(), value.to_string());
    }
    env.extend(spec.env.clone());
    env.into_iter().collect()
}

fn mounts(spec: &ContainerSpec, disks: &[DiskPlan]) -> Vec<MountPlan> {
    const TMPFS_BYTES: u64 = 64 * 1024 * 1024;
    let tmpfs = spec.tmpfs.iter().map(|target| MountPlan {
        target: PathBuf::from(target),
        source: MountSource::Tmpfs { size_bytes: TMPFS_BYTES },
        read_only: false,
    });
    let volumes = disks.iter().filter_map(|disk| {
        Some(MountPlan {
            target: disk.mount_path.clone()?,
            source: MountSource::Bind { path: disk.path.clone() },
            read_only: disk.read_only,
        })
    });
    tmpfs.chain(volumes).collect()
}

/// The number of a signal by name, with or without `SIG`, or by number; SIGTERM for what nobody knows.
fn signal_number(name: &str) -> i32 {
    const NAMES: [(&str, i32); 12] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("PIPE", 13),
        ("TERM", 15),
        ("WINCH", 28),
        ("PWR", 30),
        ("RTMIN+3", 37),
        ("RTMIN", 34),
    ];
    let short = name.trim_start_matches("SIG");
    let known = NAMES.iter().find(|(n, _)| *n == short).map(|(_, number)| *number);
    known.or_else(|| name.parse().ok().filter(|n| (1..=64).contains(n))).unwrap_or(15)
}
