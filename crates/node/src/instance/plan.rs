//! From records to a driver's plan: every name looked up, every path filled in.

use super::{InstanceError, Instances, guest::guest_data, id_range};
use crate::{image::disk::image_path, network::directory_mirror::hostname};
use model::{
    dataplane::service::port_facts,
    id::VolumeId,
    image::{Image, KernelBoot, OciContent},
    instance::{
        ContainerSpec, Instance, Kind,
        content::{File, FileSet, Mount, Shows},
        host_directory::within,
        tag::Tag,
    },
    plan::{
        Body, BootPlan, ContainerPlan, DiskPlan, FilePlan, FileSetPlan, InstancePlan, MountPlan, MountSource,
        NicPlan, PodPlan, RootDiskPlan, SecretEnv, SystemPlan, VmPlan,
    },
    port::Port,
    seal::{NotOpened, Sealed},
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
        let subnets = port
            .addresses
            .iter()
            .filter(|fixed| fixed.address.is_ipv6())
            .filter_map(|fixed| view.subnets.iter().find(|subnet| subnet.meta.id == fixed.subnet));
        let ranges_v6 = subnets.map(|subnet| subnet.cidr);
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
            ranges_v6: ranges_v6.collect(),
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
        id: VolumeId,
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

    /// The image that says how a VM boots: the one that it is rescued from, its own, or the one that its root disk once was.
    pub(super) fn boot_image(&self, instance: &Instance) -> Option<std::sync::Arc<store::Stored<Image>>> {
        let of_root = || {
            let root = self.store.get::<Volume>(&instance.root_volume()?.to_string())?;
            root.record.ground().image
        };
        let of_rescue = instance.rescue.as_ref().map(|rescue| rescue.image);
        let id = of_rescue.or(instance.image).or_else(of_root)?;
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
        let extra_hosts = instance.extra_hosts.iter().map(|host| (host.address, host.name.to_string()));
        let size_gib = instance.own_disk_gib();
        let name = root_disk_name(instance);
        let path = self.dirs.state.join(instance.meta.id.to_string()).join(name);
        Ok(PodPlan {
            containers: containers.collect::<Result<_, _>>()?,
            extra_hosts: extra_hosts.collect(),
            files: self.file_sets(instance)?,
            shared: instance.shared.clone(),
            isolation: instance.isolation,
            root_disk: (size_gib > 0).then_some(RootDiskPlan { path, size_gib }),
        })
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
        let system = (instance.kind == Kind::System).then(|| self.system(instance));
        let argv = if system.is_some() { init_argv(spec) } else { argv(spec, &image) };
        if argv.is_empty() && system.is_none() {
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
            env: match system {
                Some(_) => spec.env.clone().into_iter().collect(),
                None => environment(spec, &image, &hostname_inside(instance)),
            },
            secret_env: self.secret_env(instance, spec)?,
            cwd: match system {
                Some(_) => PathBuf::from("/"),
                None => PathBuf::from(first(&[
                    spec.working_dir.as_deref().unwrap_or(""),
                    &image.working_dir,
                    "/",
                ])),
            },
            user: match system {
                Some(_) => String::new(),
                None => spec.user.clone().unwrap_or_else(|| image.user.clone()),
            },
            tty: spec.tty,
            terminal_size: spec.terminal_size,
            stdin_open: spec.stdin_open,
            restart: spec.restart,
            stop_signal: match spec.stop_signal.as_ref().unwrap_or(&image.stop_signal) {
                none if none.is_empty() && system.is_some() => 0,
                name => signal_number(name),
            },
            grace_s: instance.grace_s,
            mounts: mounts(spec, disks).chain(self.own_mounts(instance, spec, disks)?).collect(),
            read_only_rootfs: spec.read_only,
            cap_add: spec.cap_add.clone(),
            cap_drop: spec.cap_drop.clone(),
            memory_mib: spec.memory_mib,
            cpu_millis: spec.cpu_millis,
            ulimits: spec.ulimits.clone(),
            log: spec.log,
            upper: self.dirs.state.join(instance.meta.id.to_string()).join(layer_name(instance, &spec.name)),
            labels: BTreeMap::new(),
            system,
            role: spec.role,
            lifecycle: spec.lifecycle.clone(),
            groups: spec.groups.clone(),
            init: spec.init,
            shm_bytes: spec.shm_bytes,
        })
    }

    /// Who a system container is.
    fn system(&self, instance: &Instance) -> SystemPlan {
        SystemPlan {
            keys: instance.keys.iter().map(|(_, key)| key.clone()).collect(),
            login: self.login(instance),
            machine_id: instance.meta.id.hex(),
        }
    }
}

impl Instances {
    /// The files that a pod's containers are shown, opened.
    fn file_sets(&self, instance: &Instance) -> Result<Vec<FileSetPlan>, InstanceError> {
        let file = |file: &File| {
            let bytes = self.open_sealed(instance, &file.bytes)?;
            Ok(FilePlan { path: file.path.clone(), mode: file.mode, bytes })
        };
        let set = |set: &FileSet| {
            let files = set.files.iter().map(file).collect::<Result<_, InstanceError>>()?;
            Ok(FileSetPlan { name: set.name.to_string(), files })
        };
        instance.files.iter().map(set).collect()
    }

    fn secret_env(&self, instance: &Instance, spec: &ContainerSpec) -> Result<SecretEnv, InstanceError> {
        let open = |(name, value): (&String, &Sealed)| {
            let value = self.open_sealed(instance, value)?;
            Ok((name.clone(), String::from_utf8_lossy(&value).into_owned()))
        };
        spec.secret_env.iter().map(open).collect::<Result<_, _>>().map(SecretEnv)
    }

    fn open_sealed(&self, instance: &Instance, sealed: &Sealed) -> Result<Vec<u8>, InstanceError> {
        let id = instance.meta.id.to_string();
        let opened = self.seal_key.as_ref().ok_or(NotOpened).and_then(|key| key.open(id.as_bytes(), sealed));
        opened.map_err(|error| InstanceError::Storage {
            what: error.to_string(),
            hint: "put the file seal.key back that the records were made with, or make the instance anew"
                .into(),
        })
    }

    /// What one container alone is shown of the pod's volumes and files.
    fn own_mounts(
        &self,
        instance: &Instance,
        spec: &ContainerSpec,
        disks: &[DiskPlan],
    ) -> Result<Vec<MountPlan>, InstanceError> {
        let tag_of = |id: VolumeId| self.store.get::<Volume>(&id.to_string())?.record.device_tag.clone();
        let volume = |tag: &Tag| {
            let id = instance.volumes.iter().find(|id| tag_of(**id).as_ref() == Some(tag))?;
            disks.iter().find(|disk| disk.volume == *id)
        };
        let mount = |mount: &Mount| -> Result<Option<MountPlan>, InstanceError> {
            let (source, refuses_writes) = match &mount.shows {
                // One that was unplugged since is not shown.
                Shows::Volume(tag) => {
                    let Some(disk) = volume(tag) else { return Ok(None) };
                    let part = mount.sub_path.as_ref().map(PathBuf::from);
                    let path = disk.path.clone();
                    (MountSource::Part { path, part, group: mount.group }, disk.read_only)
                }
                Shows::Host { path, exists } => (self.lent(path, mount.sub_path.as_deref(), *exists)?, false),
                Shows::Files(set) => {
                    let path = mount.sub_path.as_ref().map(PathBuf::from);
                    (MountSource::Files { set: set.to_string(), path, group: mount.group }, true)
                }
            };
            let read_only = mount.read_only || refuses_writes;
            Ok(Some(MountPlan { target: PathBuf::from(&mount.path), source, read_only }))
        };
        spec.mounts.iter().filter_map(|it| mount(it).transpose()).collect()
    }

    /// A path of this host, in a directory that its operator lends still.
    fn lent(&self, path: &str, sub_path: Option<&str>, exists: bool) -> Result<MountSource, InstanceError> {
        let found = within(path, &self.host_directories).ok_or_else(|| InstanceError::Storage {
            what: format!("{path} is in no directory that this host lends to containers"),
            hint: "its operator may lend it: `holm serve --host-directory DIR`".into(),
        });
        let (directory, rest) = found?;
        let part = match (rest, sub_path) {
            (rest, None) => rest,
            (None, Some(part)) => Some(part.into()),
            (Some(rest), Some(part)) => Some(rest.join(part)),
        };
        Ok(MountSource::Lent { directory, part, exists })
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

/// Name of the file that all containers of this build of a pod write to, where that is limited. No container's directory
/// is named so, since the name of one has no dot but before the build's number.
pub(super) fn root_disk_name(instance: &Instance) -> String {
    match instance.build {
        0 => "root.ext4".to_string(),
        build => format!("root.{build}.ext4"),
    }
}

fn first<'a>(texts: &[&'a str]) -> &'a str {
    texts.iter().copied().find(|t| !t.is_empty()).unwrap_or_default()
}

/// The init that the user names, with its arguments; else none. What an image would run as a container is no init.
fn init_argv(spec: &ContainerSpec) -> Vec<String> {
    spec.entrypoint.iter().chain(&spec.args).flatten().cloned().collect()
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

fn mounts(spec: &ContainerSpec, disks: &[DiskPlan]) -> impl Iterator<Item = MountPlan> {
    const TMPFS_BYTES: u64 = 64 * 1024 * 1024;
    let tmpfs = spec.tmpfs.iter().map(|target| MountPlan {
        target: PathBuf::from(target),
        source: MountSource::Tmpfs { size_bytes: TMPFS_BYTES },
        read_only: false,
    });
    let memory = spec.memory_mounts.iter().map(|mount| MountPlan {
        target: PathBuf::from(&mount.path),
        source: MountSource::Memory(mount.clone()),
        read_only: mount.read_only,
    });
    let volumes = disks.iter().filter_map(|disk| {
        Some(MountPlan {
            target: disk.mount_path.clone()?,
            source: MountSource::Bind { path: disk.path.clone() },
            read_only: disk.read_only,
        })
    });
    tmpfs.chain(memory).chain(volumes)
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
