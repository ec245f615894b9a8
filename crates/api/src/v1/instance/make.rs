//! From what a client asks of a new instance to what control takes.

use crate::v1::types::{
    health::HealthRequest,
    instance::{ContainerRequest, CreateInstance, LogRequest, NetworkRequest, RootRequest, VolumeRequest},
    pod::MemoryMountRequest,
};
use control::{
    Caller, Control, Error,
    instance::{ContainerAsked, DiskAsked, FloatingAsked, NewInstance, NicAsked, SecretEnv, VolumeAsked},
    port::{FixedAsked, NewPort},
    volume::{Attach, NewVolume, SourceAsked},
};
use model::{
    image::{Image, ImageKind},
    instance::{
        Access, ContainerSpec, Instance, Kind,
        extra_host::ExtraHost,
        ulimit::{Resource, Ulimit, Ulimits},
    },
    plan::{Accelerator, LogLimits, RestartPolicy},
    schedule::Cron,
};

/// Smallest file of a log that is asked for.
const LOG_FILE_BYTES_MIN: u64 = 4_096;
/// Most files of a log that are asked for.
const LOG_FILES_MAX: u32 = 1_000;

/// Makes the instance.
///
/// # Errors
/// What the request lacks or control refuses.
pub async fn make(control: &Control, caller: &Caller, input: &CreateInstance) -> control::Result<Instance> {
    control.create_instance(caller, translate(control, caller, input)?).await
}

/// What control takes.
///
/// # Errors
/// What the request lacks, or has of another kind of instance.
pub fn translate(control: &Control, caller: &Caller, input: &CreateInstance) -> control::Result<NewInstance> {
    let kind = kind_of(control, caller, input)?;
    refuse_foreign_fields(kind, input)?;
    let nics = input.networks.as_ref().map(|networks| {
        networks.iter().enumerate().map(|(number, n)| nic(n, number)).collect::<control::Result<Vec<_>>>()
    });
    let volumes = input.volumes.iter().enumerate().map(|(number, v)| volume(v, number));
    Ok(NewInstance {
        name: input.name.clone(),
        description: input.description.clone(),
        labels: input.labels.clone(),
        tags: input.tags.clone(),
        access: Access { v4: input.access_v4, v6: input.access_v6 },
        user: None,
        kind,
        image: input.image.clone().filter(|_| kind == Kind::Vm),
        root: input.root.as_ref().map(root).transpose()?,
        flavor: input.flavor.clone(),
        vcpus: input.vcpus,
        cpu_weight: input.cpu_weight,
        memory_mib: input.memory_mib,
        disk_gib: input.disk_gib,
        thick: false,
        nics: nics.transpose()?,
        security_groups: input.security_groups.clone(),
        keypairs: input.keypairs.clone(),
        user_data_base64: input.user_data.clone(),
        config_drive: input.config_drive,
        accelerator: input.accelerator.unwrap_or(Accelerator::Auto),
        containers: containers(kind, input)?,
        volumes: volumes.collect::<control::Result<_>>()?,
        server_group: input.server_group.clone(),
        floating_ip: input.floating_ip.as_ref().map(|asked| match asked.as_str() {
            "auto" => FloatingAsked::New,
            other => FloatingAsked::Existing(other.to_string()),
        }),
        publish: super::publish::asked(&input.publish)?,
        extra_hosts: input
            .extra_hosts
            .iter()
            .map(|host| ExtraHost { name: host.name.clone(), address: host.address })
            .collect(),
        files: super::content::files(&input.files)?,
        schedule: input.schedule.as_deref().map(cron).transpose()?,
        shared: input.shared.shared(),
        isolation: input.isolation,
        publish_within: vec![],
        succeeds: None,
        autostart: input.autostart,
        start_after: input.start_after.clone(),
        restart: input.restart.unwrap_or(RestartPolicy::No),
        grace_s: input.grace_s,
        remove_on_exit: input.remove_on_exit,
        start: input.start.unwrap_or(input.schedule.is_none()),
    })
}

/// Times at which an instance is started.
///
/// # Errors
/// What names no times.
pub fn cron(text: &str) -> control::Result<Cron> {
    text.parse().map_err(|wrong| Error::invalid("schedule", wrong))
}

/// The kind that was asked for, or the one that the image is made for; what is no image here is a registry's.
fn kind_of(control: &Control, caller: &Caller, input: &CreateInstance) -> control::Result<Kind> {
    if let Some(kind) = input.kind {
        return Ok(kind);
    }
    if !input.containers.is_empty() {
        return Ok(Kind::Container);
    }
    if input.root.is_some() {
        return Ok(Kind::Vm);
    }
    let Some(reference) = &input.image else {
        return Err(
            Error::invalid("image", "an instance needs an image").hint("`holm image list` shows those")
        );
    };
    match control.find::<Image>(caller, reference) {
        Ok(found) => Ok(match found.record.kind {
            ImageKind::Oci => Kind::Container,
            ImageKind::System => Kind::System,
            ImageKind::Disk | ImageKind::Kernel | ImageKind::Initrd => Kind::Vm,
        }),
        Err(_) => Ok(Kind::Container),
    }
}

/// Fields of the other kind are refused, not passed over.
fn refuse_foreign_fields(kind: Kind, input: &CreateInstance) -> control::Result<()> {
    let of_containers = [
        ("containers", !input.containers.is_empty()),
        ("command", input.command.is_some()),
        ("args", input.args.is_some()),
        ("env", !input.env.is_empty()),
        ("working_dir", input.working_dir.is_some()),
        ("user", input.user.is_some()),
        ("tty", input.tty),
        ("stdin_open", input.stdin_open),
        ("health", input.health.is_some()),
        ("extra_hosts", !input.extra_hosts.is_empty()),
        ("files", !input.files.is_empty()),
        ("shared", !input.shared.is_empty()),
        ("isolation", !input.isolation.is_shared()),
    ];
    let of_vms = [
        ("root", input.root.is_some()),
        ("accelerator", input.accelerator.is_some()),
        ("config_drive", input.config_drive),
        // Told by the metadata service: to cloud-init, which a container of one program has not.
        ("user_data", input.user_data.is_some() && kind != Kind::System),
    ];
    let (foreign, other): (&[_], _) =
        if kind == Kind::Vm { (&of_containers, "containers") } else { (&of_vms, "VMs") };
    match foreign.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(Error::invalid(field, format!("{field} is for {other}"))
            .hint(format!("this is an instance of kind {}", kind.as_str()))),
        None => Ok(()),
    }
}

fn containers(kind: Kind, input: &CreateInstance) -> control::Result<Vec<ContainerAsked>> {
    if kind == Kind::Vm {
        return Ok(vec![]);
    }
    let default_restart = input.restart.unwrap_or(RestartPolicy::No);
    match (&input.image, input.containers.as_slice()) {
        (Some(_), [_, ..]) => {
            Err(Error::invalid("image", "an instance has an image or containers with theirs, not both"))
        }
        (None, []) => Err(Error::invalid("image", "a container needs an image")),
        (None, several) => several
            .iter()
            .enumerate()
            .map(|(number, container)| container_of(container, number, default_restart))
            .collect(),
        (Some(image), []) => {
            let one = ContainerRequest {
                image: image.clone(),
                command: input.command.clone(),
                args: input.args.clone(),
                env: input.env.clone(),
                working_dir: input.working_dir.clone(),
                user: input.user.clone(),
                tty: input.tty,
                stdin_open: input.stdin_open,
                health: input.health.clone(),
                ..ContainerRequest::default()
            };
            Ok(vec![container_of(&one, 0, default_restart)?])
        }
    }
}

/// A root disk that is asked for, checked.
fn root(asked: &RootRequest) -> control::Result<VolumeAsked> {
    let mut sources = [
        asked.image.clone().map(SourceAsked::Image),
        asked.snapshot.clone().map(SourceAsked::Snapshot),
        asked.copy_of.clone().map(SourceAsked::Volume),
    ]
    .into_iter()
    .flatten();
    let (disk, is_new) = match (&asked.volume, sources.next(), sources.next()) {
        (Some(volume), None, None) if asked.size_gib.is_none() && !asked.thick => {
            (DiskAsked::Volume(volume.clone()), false)
        }
        (None, Some(source), None) => {
            let (size_gib, thick) = (asked.size_gib, asked.thick);
            (DiskAsked::New(NewVolume { size_gib, thick, source, ..NewVolume::default() }), true)
        }
        _ => {
            let message = "name one: a volume as it is, or an image, a snapshot or a volume to make it of";
            return Err(Error::invalid("root.volume", message));
        }
    };
    let delete_with_instance = Some(is_new && !asked.keep);
    Ok(VolumeAsked { disk, attach: Attach { delete_with_instance, ..Attach::default() } })
}

fn container_of(
    asked: &ContainerRequest,
    number: usize,
    default_restart: RestartPolicy,
) -> control::Result<ContainerAsked> {
    if asked.image.is_empty() {
        return Err(Error::invalid(&format!("containers[{number}].image"), "a container needs an image"));
    }
    Ok(ContainerAsked {
        image: asked.image.clone(),
        spec: ContainerSpec {
            name: asked.name.clone(),
            image: None,
            entrypoint: asked.command.clone(),
            args: asked.args.clone(),
            env: asked.env.clone(),
            working_dir: asked.working_dir.clone(),
            user: asked.user.clone(),
            tty: asked.tty,
            stdin_open: asked.stdin_open,
            restart: asked.restart.unwrap_or(default_restart),
            read_only: asked.read_only,
            cap_add: asked.cap_add.clone(),
            cap_drop: asked.cap_drop.clone(),
            tmpfs: asked.tmpfs.clone(),
            health: asked.health.as_ref().map(HealthRequest::spec),
            hostname: asked.hostname.clone(),
            role: asked.role.unwrap_or_default(),
            mounts: super::content::mounts(number, &asked.mounts)?,
            cpu_millis: asked.cpu_millis,
            memory_mib: asked.memory_mib,
            probes: super::content::probes(number, &asked.probes)?,
            lifecycle: super::content::lifecycle(number, &asked.lifecycle)?,
            groups: asked.groups.clone(),
            init: asked.init,
            shm_bytes: asked.shm_bytes,
            memory_mounts: asked.memory_mounts.iter().map(MemoryMountRequest::mount).collect(),
            stop_signal: asked.stop_signal.as_deref().map(|text| stop_signal(number, text)).transpose()?,
            pids_max: asked.pids_max,
            ulimits: ulimits(number, asked)?,
            log: log_limits(number, asked.log)?,
            ..ContainerSpec::default()
        },
        secret_env: SecretEnv(asked.secret_env.0.clone()),
    })
}

/// A signal by its number: images know more names than one.
fn stop_signal(number: usize, text: &str) -> control::Result<String> {
    let wrong =
        || Error::invalid(&format!("containers[{number}].stop_signal"), format!("{text:.32?} is no signal"));
    crate::docker::signal_number(text).map(|number| number.to_string()).ok_or_else(wrong)
}

fn ulimits(number: usize, asked: &ContainerRequest) -> control::Result<Ulimits> {
    let mut all = Ulimits::new();
    for (name, limit) in &asked.ulimits {
        let wrong = |why: &str| {
            Error::invalid(&format!("containers[{number}].ulimits"), format!("{name:.32}: {why}"))
        };
        let resource = Resource::of_name(name).ok_or_else(|| wrong("there is no such limit"))?;
        let limit = Ulimit { soft: limit.soft.unwrap_or(u64::MAX), hard: limit.hard.unwrap_or(u64::MAX) };
        if limit.soft > limit.hard {
            return Err(wrong("the soft limit is above the hard one"));
        }
        all.insert(resource, limit);
    }
    Ok(all)
}

fn log_limits(number: usize, asked: Option<LogRequest>) -> control::Result<LogLimits> {
    let (usual, asked) = (LogLimits::default(), asked.unwrap_or_default());
    let limits = LogLimits {
        size_bytes_max: asked.file_bytes_max.unwrap_or(usual.size_bytes_max),
        files_max: asked.files_max.unwrap_or(usual.files_max),
    };
    if limits.size_bytes_max < LOG_FILE_BYTES_MIN || !(1..=LOG_FILES_MAX).contains(&limits.files_max) {
        let message = format!("a log has 1 to {LOG_FILES_MAX} files of at least {LOG_FILE_BYTES_MIN} bytes");
        return Err(Error::invalid(&format!("containers[{number}].log"), message));
    }
    Ok(limits)
}

fn nic(asked: &NetworkRequest, number: usize) -> control::Result<NicAsked> {
    match &asked.port {
        Some(port)
            if asked.network.is_none()
                && asked.subnet.is_none()
                && asked.address.is_none()
                && asked.rate_mbit.is_none()
                && asked.aliases.is_empty() =>
        {
            Ok(NicAsked::Port { port: port.clone(), tag: None })
        }
        Some(_) => Err(Error::invalid(
            &format!("networks[{number}].port"),
            "a port has its network, address and aliases already: name nothing beside it",
        )),
        None => Ok(NicAsked::New(NewPort {
            network: asked.network.clone(),
            fixed: FixedAsked::one(asked.subnet.clone(), asked.address),
            rate_mbit: asked.rate_mbit,
            aliases: asked.aliases.clone(),
            ..NewPort::default()
        })),
    }
}

/// A volume that is asked for, checked.
///
/// # Errors
/// Neither or both of a volume and a size, or a mount path that is not absolute.
pub fn volume(asked: &VolumeRequest, number: usize) -> control::Result<VolumeAsked> {
    let field = |name: &str| format!("volumes[{number}].{name}");
    let disk = match (&asked.volume, asked.size_gib) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid(&field("size_gib"), "the size of a volume that exists is its own"));
        }
        (None, None) => {
            return Err(Error::invalid(&field("volume"), "name a volume, or give size_gib for a new one"));
        }
        (Some(volume), None) => DiskAsked::Volume(volume.clone()),
        (None, size_gib) => {
            DiskAsked::New(NewVolume { size_gib, thick: asked.thick, ..NewVolume::default() })
        }
    };
    if asked.mount_path.as_ref().is_some_and(|path| !path.starts_with('/')) {
        return Err(Error::invalid(&field("mount_path"), "a mount path begins with /"));
    }
    let attach = Attach {
        mount_path: asked.mount_path.clone(),
        read_only: asked.read_only,
        delete_with_instance: asked.volume.is_none().then_some(!asked.keep),
        tag: asked.tag.clone(),
    };
    Ok(VolumeAsked { disk, attach })
}
