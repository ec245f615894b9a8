//! Instances: making them in one transaction, with ports, root disk, host and quota, or not at all.

pub mod action;
pub mod attach;
pub mod content;
pub mod keys;
pub mod lock;
pub mod order;
mod placement;
mod pod;
pub mod publish;
pub mod rebuild;
pub mod rescue;
pub mod resize;
mod root;
mod schedule;
mod succession;
pub mod trial;

pub use content::{FileAsked, FileSetAsked, SecretEnv};
pub use placement::{CPU_OVERCOMMIT, CPU_SHARE_MAX, RESERVED_MIB};

use crate::{
    Caller, Control, Error, Result, Role,
    floating_ip::{NewFloatingIp, TargetAsked},
    port::NewPort,
    resolve::Noun,
    transact::Transaction,
    volume::{Attach, NewVolume, parse_name},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use model::{
    error::Code,
    flavor::Size,
    floating_ip::FloatingIp,
    id::{FlavorId, FloatingIpId, InstanceId, PortId, UserId},
    image::{Image, ImageKind},
    instance::{
        Access, CONTAINERS_MAX, CPU_WEIGHT_USUAL, ContainerSpec, GRACE_S_MAX, Instance, InstanceStatus, Kind,
        PORTS_MAX, Power, VOLUMES_MAX,
        extra_host::{EXTRA_HOSTS_MAX, ExtraHost},
        isolation::{Isolation, OWN_DISK_GIB},
        phase::{Phase, phase},
        pod::Shared,
        tag::{TAGS_MAX, Tag},
    },
    meta::{Labels, Meta},
    metadata::USER_DATA_BYTES_MAX,
    name::Name,
    plan::{Accelerator, RestartPolicy},
    port::{Device, Port},
    publish::Publish,
    quota::Resource,
    schedule::{Cron, Schedule},
    server_group::ServerGroup,
};
use std::{collections::BTreeSet, ops::RangeInclusive, sync::Arc};
use store::Stored;

/// An instance to be made.
#[derive(Debug, Clone)]
pub struct NewInstance {
    /// Name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Labels (OpenStack: metadata).
    pub labels: Labels,
    /// Words to find it by.
    pub tags: BTreeSet<Tag>,
    /// Where its users reach it.
    pub access: Access,
    /// User who makes it, where one is known.
    pub user: Option<UserId>,
    /// Kind.
    pub kind: Kind,
    /// Image of a VM, by name or id.
    pub image: Option<String>,
    /// Root disk of a VM, instead of a new one made of an image.
    pub root: Option<VolumeAsked>,
    /// Flavor.
    pub flavor: Option<String>,
    /// CPUs instead of the flavor's.
    pub vcpus: Option<u32>,
    /// Memory in MiB instead of the flavor's.
    pub memory_mib: Option<u64>,
    /// Part of the host's CPUs when they are short; 100 when `None`.
    pub cpu_weight: Option<u32>,
    /// Root disk in GiB instead of the flavor's; of containers, most that they may write to their own files.
    pub disk_gib: Option<u64>,
    /// Take the root disk's space at once.
    pub thick: bool,
    /// Interfaces; one in the project's own network when `None`.
    pub nics: Option<Vec<NicAsked>>,
    /// Groups of the interfaces that name none.
    pub security_groups: Option<Vec<String>>,
    /// Keys by name or id.
    pub keypairs: Vec<String>,
    /// User-data in base64.
    pub user_data_base64: Option<String>,
    /// Offer a config drive.
    pub config_drive: bool,
    /// Acceleration.
    pub accelerator: Accelerator,
    /// Containers of a pod.
    pub containers: Vec<ContainerAsked>,
    /// Volumes beside the root disk.
    pub volumes: Vec<VolumeAsked>,
    /// Server group whose policy chooses the host, by name or id.
    pub server_group: Option<String>,
    /// A floating IP for the first interface.
    pub floating_ip: Option<FloatingAsked>,
    /// Ports of its host that lead to it.
    pub publish: Vec<Publish>,
    /// Where entries of `publish` without a port of the host have it from, if not from all that are given out.
    pub publish_within: Vec<(Publish, RangeInclusive<u16>)>,
    /// Names that its containers find in /etc/hosts.
    pub extra_hosts: Vec<ExtraHost>,
    /// Files that its containers are shown.
    pub files: Vec<FileSetAsked>,
    /// When it is started by itself.
    pub schedule: Option<Cron>,
    /// What its containers share beside network and volumes.
    pub shared: Shared,
    /// What stands between its containers and the host.
    pub isolation: Isolation,
    /// Instance whose place it takes: what that has of the ports and volumes asked for here, it gets with its first start.
    pub succeeds: Option<InstanceId>,
    /// Start again with the host.
    pub autostart: bool,
    /// Instances that are to run before it starts with its host.
    pub start_after: Vec<String>,
    /// Start again when it ends (VM).
    pub restart: RestartPolicy,
    /// Seconds between asking a guest to stop and pulling the plug; 60 for VMs and 10 for pods when `None`.
    pub grace_s: Option<u32>,
    /// Delete it when it ends.
    pub remove_on_exit: bool,
    /// Start it at once.
    pub start: bool,
}

/// An interface to be made, or a port that is there.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "requests are few and short-lived")]
pub enum NicAsked {
    /// A new port.
    New(NewPort),
    /// A port that is there.
    Port {
        /// Its name or id.
        port: String,
        /// A word that tells it from the instance's other interfaces.
        tag: Option<Tag>,
    },
}

/// A container to be made.
#[derive(Debug, Clone, Default)]
pub struct ContainerAsked {
    /// Image by name, id or registry reference.
    pub image: String,
    /// The rest; its `image` and `secret_env` are filled in here.
    pub spec: ContainerSpec,
    /// Variables whose values are sealed.
    pub secret_env: SecretEnv,
}

/// A volume of an instance to be used or made.
#[derive(Debug, Clone)]
pub struct VolumeAsked {
    /// Which.
    pub disk: DiskAsked,
    /// How the instance has it.
    pub attach: Attach,
}

/// Which disk.
#[derive(Debug, Clone)]
pub enum DiskAsked {
    /// A volume that is there, by name or id.
    Volume(String),
    /// A new one.
    New(NewVolume),
}

/// A floating IP to be used.
#[derive(Debug, Clone)]
pub enum FloatingAsked {
    /// A new one of the default external network.
    New,
    /// One that the project has, by address, name or id.
    Existing(String),
}

/// What a size costs of a project's quotas, so many times. A VM's root disk is a volume and charged as that; what containers
/// may write is charged here.
pub(crate) fn charges(kind: Kind, size: Size, times: i64) -> [(Resource, i64); 3] {
    let number = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX).saturating_mul(times);
    let disk_gib = if kind == Kind::Vm { 0 } else { size.disk_gib };
    [
        (Resource::Vcpus, number(u64::from(size.vcpus))),
        (Resource::MemoryMib, number(size.memory_mib)),
        (Resource::VolumeGib, number(disk_gib)),
    ]
}

impl NewInstance {
    /// As [`Instance::has_own_kernel`] says of it once it is made.
    pub(crate) fn has_own_kernel(&self) -> bool {
        self.kind == Kind::Vm || self.isolation == Isolation::Vm
    }
}

impl Control {
    /// Makes an instance with all that belongs to it.
    ///
    /// # Errors
    /// `invalid`, `not_found`, `taken`, `quota_exceeded`, `no_capacity`, `conflict`; nothing is left of a refused one.
    pub async fn create_instance(&self, caller: &Caller, new: NewInstance) -> Result<Instance> {
        self.check_new_instance(caller, &new)?;
        let id = InstanceId::from_random(rand::random());
        self.transact(|tx| self.add_instance(tx, caller, id, &new)).await
    }

    /// As [`Self::create_instance`], as long as what it is made for is as it was seen.
    ///
    /// # Errors
    /// As [`Self::create_instance`]; `conflict` once that is another or gone.
    pub(crate) async fn create_instance_for<R: Noun>(
        &self,
        caller: &Caller,
        new: NewInstance,
        reason: &Stored<R>,
    ) -> Result<Instance> {
        self.check_new_instance(caller, &new)?;
        let id = InstanceId::from_random(rand::random());
        self.transact(|tx| {
            let meta = reason.record.meta();
            let now = self.get::<R>(meta.id).filter(|now| now.mod_revision == reason.mod_revision);
            if now.is_none() {
                let message = format!("{} {} was changed meanwhile", R::WORD, meta.name);
                return Err(Error::new(Code::Conflict, message));
            }
            let made = self.add_instance(tx, caller, id, &new)?;
            tx.expect(reason);
            Ok(made)
        })
        .await
    }

    /// Refuses what no instance can be, whatever there is in the cloud.
    ///
    /// # Errors
    /// `invalid`, `too_large`, `forbidden`.
    pub fn check_new_instance(&self, caller: &Caller, new: &NewInstance) -> Result<()> {
        caller.require(Role::Member, "creating an instance")?;
        check_limits(new)?;
        self.check_content(new)?;
        pod::check(new)?;
        self.check_lent(caller, new)
    }

    fn add_instance(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        id: InstanceId,
        new: &NewInstance,
    ) -> Result<Instance> {
        let (new, succession) = self.part_succession(caller, new)?;
        let new = new.as_ref();
        let name = parse_name(&new.name)?;
        let (flavor, flavor_name, size) = self.size_of_new(caller, new)?;
        let image = self.image_of_vm(tx, caller, new, size)?;
        let group = self.group_of_new(tx, caller, new)?;
        let (node, id_slot) = self.place(tx, new, size, group.as_deref().map(|g| &g.record))?;
        self.refuse_inheriting_elsewhere(succession.as_ref(), node)?;
        let ports = self.add_nics(tx, caller, id, new)?;
        let volumes = self.add_disks(tx, caller, (id, node), new, size, image.as_ref())?;
        let containers = self.containers_asked(tx, caller, id, new)?;
        let floating = self.add_floating(tx, caller, new, &ports)?;
        self.charge_new(tx, caller, new.kind, size);
        let mut instance = Instance {
            meta: self.meta_of_new(id, caller, name, new),
            user: new.user,
            kind: new.kind,
            size,
            cpu_weight: new.cpu_weight.unwrap_or(CPU_WEIGHT_USUAL),
            flavor,
            flavor_name,
            image: image.map(|i| i.meta.id),
            ports: ports.iter().map(|p| p.meta.id).collect(),
            publish: new.publish.clone(),
            volumes,
            keys: self.keys_asked(caller, new.user, &new.keypairs)?,
            user_data_base64: new.user_data_base64.clone(),
            config_drive: new.config_drive,
            accelerator: new.accelerator,
            containers,
            power: if new.start { Power::On } else { Power::Off },
            boots: 1,
            hard: false,
            autostart: new.autostart,
            start_after: self.start_after(caller, id, &new.start_after)?,
            restart: new.restart,
            grace_s: new.grace_s.unwrap_or_else(|| default_grace_s(new.kind)),
            remove_on_exit: new.remove_on_exit,
            node: Some(node),
            id_slot: Some(id_slot),
            lock: None,
            tags: new.tags.clone(),
            access: new.access,
            rebuilt: 0,
            build: 0,
            trial: None,
            shelved: false,
            extra_hosts: new.extra_hosts.clone(),
            succession,
            suspended: false,
            rescue: None,
            unrescued: None,
            files: self.seal_files(id, &new.files),
            schedule: new.schedule.clone().map(|at| Schedule { at, since: self.now() }),
            server_group: group.map(|group| group.record.meta.id),
            shared: new.shared.clone(),
            isolation: new.isolation,
        };
        self.take_host_ports_of_new(tx, caller, &mut instance, &new.publish_within)?;
        self.settle_outside(tx, &instance, &ports, floating.as_slice(), &[], true)?;
        tx.create(&instance);
        Ok(instance)
    }

    fn meta_of_new(
        &self,
        id: InstanceId,
        caller: &Caller,
        name: Name,
        new: &NewInstance,
    ) -> Meta<InstanceId> {
        let mut meta = Meta::new(id, caller.project, name, self.now());
        meta.description.clone_from(&new.description);
        meta.labels.clone_from(&new.labels);
        meta
    }

    fn group_of_new(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        new: &NewInstance,
    ) -> Result<Option<Arc<Stored<ServerGroup>>>> {
        let group = new.server_group.as_deref();
        group.map(|reference| self.join_server_group(tx, caller, reference)).transpose()
    }

    fn charge_new(&self, tx: &mut Transaction, caller: &Caller, kind: Kind, size: Size) {
        self.charge(tx, caller.project, &[(Resource::Instances, 1)]);
        self.charge(tx, caller.project, &charges(kind, size, 1));
    }

    /// The size of a new instance. What the containers of a machine of their own write is always limited: it is a disk.
    fn size_of_new(&self, caller: &Caller, new: &NewInstance) -> Result<(Option<FlavorId>, String, Size)> {
        let (flavor, name, mut size) = self.size_of_kind(caller, new)?;
        if new.isolation == Isolation::Vm && size.disk_gib == 0 {
            size.disk_gib = OWN_DISK_GIB;
        }
        Ok((flavor, name, size))
    }

    /// The size asked for. What a container asks nothing of is that of a small one.
    fn size_of_kind(&self, caller: &Caller, new: &NewInstance) -> Result<(Option<FlavorId>, String, Size)> {
        const CONTAINER: Size = Size { vcpus: 1, memory_mib: 512, disk_gib: 0 };
        match (new.kind, &new.flavor, new.vcpus, new.memory_mib) {
            (Kind::Container | Kind::System, None, None, None) if new.disk_gib.is_none() => {
                Ok((None, "default".to_string(), CONTAINER))
            }
            (Kind::Container | Kind::System, None, vcpus, memory_mib) => {
                let (vcpus, memory_mib) =
                    (vcpus.or(Some(CONTAINER.vcpus)), memory_mib.or(Some(CONTAINER.memory_mib)));
                self.size_asked(caller, None, vcpus, memory_mib, new.disk_gib)
            }
            _ => self.size_asked(caller, new.flavor.as_deref(), new.vcpus, new.memory_mib, new.disk_gib),
        }
    }

    fn image_of_vm(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        new: &NewInstance,
        size: Size,
    ) -> Result<Option<Image>> {
        if new.kind != Kind::Vm {
            return Ok(None);
        }
        let Some(reference) = &new.image else {
            if new.root.is_some() {
                return Ok(None);
            }
            return Err(Error::invalid("image", "a VM needs an image").hint("`holm image list` shows those"));
        };
        self.vm_image(tx, caller, reference, size).map(Some)
    }

    /// An image that a VM of this size can start from, and stands on from then on.
    fn vm_image(&self, tx: &mut Transaction, caller: &Caller, reference: &str, size: Size) -> Result<Image> {
        let image = self.find_for::<Image>(caller, "image", reference)?.record.clone();
        tx.stand_on::<Image>(image.meta.id);
        match image.kind {
            ImageKind::Disk => {}
            ImageKind::Kernel if image.boot.is_some() => {}
            ImageKind::Oci => {
                let message = format!("image {} is a container's, not a VM's", image.meta.name);
                return Err(Error::invalid("image", message)
                    .hint(format!("start it as a container: `holm run {}`", image.meta.name)));
            }
            ImageKind::System => {
                let message = format!("image {} is a system container's, not a VM's", image.meta.name);
                return Err(Error::invalid("image", message)
                    .hint(format!("start it as one: `holm run {}`", image.meta.name)));
            }
            _ => {
                let message = format!("image {} cannot be booted by itself", image.meta.name);
                return Err(Error::invalid("image", message).hint("name a disk image"));
            }
        }
        if image.arch != std::env::consts::ARCH {
            let message = format!(
                "image {} is for {}, this cloud's hosts are {}",
                image.meta.name,
                image.arch,
                std::env::consts::ARCH
            );
            return Err(Error::invalid("image", message).hint("use an image for the hosts' architecture"));
        }
        if size.memory_mib < image.min_memory_mib || (size.disk_gib > 0 && size.disk_gib < image.min_disk_gib)
        {
            let message = format!(
                "image {} needs {} MiB of memory and a disk of {} GiB; the size asked for has {} MiB and {} GiB",
                image.meta.name, image.min_memory_mib, image.min_disk_gib, size.memory_mib, size.disk_gib
            );
            return Err(Error::invalid("flavor", message).hint("choose a larger flavor"));
        }
        self.refuse_failed_image(&image)?;
        Ok(image)
    }

    fn add_nics(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        id: InstanceId,
        new: &NewInstance,
    ) -> Result<Vec<Port>> {
        let default = vec![NicAsked::New(NewPort::default())];
        let asked = new.nics.as_ref().unwrap_or(&default);
        asked
            .iter()
            .map(|nic| match nic {
                NicAsked::New(port) => {
                    let mut port = port.clone();
                    if port.security_groups.is_none() {
                        port.security_groups.clone_from(&new.security_groups);
                    }
                    let port_id = PortId::from_random(rand::random());
                    self.add_asked_port(tx, caller, port_id, &port, Device::Instance(id), true)
                }
                NicAsked::Port { port, tag } => self.take_port(tx, caller, id, port, tag.as_ref()),
            })
            .collect()
    }

    pub(crate) fn take_port(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        id: InstanceId,
        reference: &str,
        tag: Option<&Tag>,
    ) -> Result<Port> {
        let found = self.find_own::<Port>(caller, reference, "using a port").map_err(|e| e.field("port"))?;
        if found.record.device != Device::None {
            return Err(
                Error::new(Code::InUse, format!("port {} is in use", found.record.meta.name)).field("port")
            );
        }
        crate::port::refuse_spread(&found.record)?;
        let is_gateway = |f: &model::port::FixedIp| {
            self.subnet(f.subnet).is_some_and(|s| s.record.gateway == Some(f.address))
        };
        if found.record.addresses.iter().any(is_gateway) {
            let message = format!("port {} has its subnet's gateway address", found.record.meta.name);
            return Err(Error::invalid("port", message).hint("it is for a router"));
        }
        let mut next = found.record.clone();
        next.device = Device::Instance(id);
        next.device_tag = tag.cloned();
        next.meta.touch(self.now());
        tx.update(&found, &next);
        Ok(next)
    }

    fn containers_asked(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        id: InstanceId,
        new: &NewInstance,
    ) -> Result<Vec<ContainerSpec>> {
        if new.kind == Kind::Vm {
            return Ok(vec![]);
        }
        let mut containers: Vec<ContainerSpec> = vec![];
        let mut made: Vec<(String, Image)> = vec![];
        for (number, asked) in new.containers.iter().enumerate() {
            let image = match made.iter().find(|(text, _)| *text == asked.image) {
                Some((_, image)) => image.clone(),
                None => match asked.spec.image {
                    // A build's container, which no door but the builder asks for.
                    Some(step) => self.step_image(tx, caller, step)?,
                    None => self.oci_image(tx, caller, &asked.image)?,
                },
            };
            self.refuse_failed_oci(&image)?;
            made.push((asked.image.clone(), image.clone()));
            crate::health::check_health(&asked.spec)?;
            content::check_probes(number, &asked.spec)?;
            let mut spec = asked.spec.clone();
            spec.image = Some(image.meta.id);
            spec.secret_env = self.seal_env(id, &asked.secret_env);
            if spec.name.is_empty() {
                spec.name = model::name::dns_label(&new.name, "main");
            }
            if containers.iter().any(|c| c.name == spec.name) {
                return Err(Error::invalid("containers", format!("two containers are called {}", spec.name)));
            }
            containers.push(spec);
        }
        Ok(containers)
    }

    fn refuse_failed_oci(&self, image: &Image) -> Result<()> {
        match image.source {
            // A pull that failed is tried again when somebody needs the image.
            model::image::ImageSource::Registry { .. } => self.refuse_withdrawn_image(image),
            _ => self.refuse_failed_image(image),
        }
    }

    fn keys_asked(
        &self,
        caller: &Caller,
        user: Option<UserId>,
        names: &[String],
    ) -> Result<Vec<(String, String)>> {
        names
            .iter()
            .map(|name| {
                let key = self.keypair_asked(caller, user, name).map_err(|e| e.field("keypairs"))?;
                Ok((key.record.meta.name.to_string(), key.record.public_key.clone()))
            })
            .collect()
    }

    fn add_floating(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        new: &NewInstance,
        ports: &[Port],
    ) -> Result<Option<FloatingIp>> {
        let Some(asked) = &new.floating_ip else {
            return Ok(None);
        };
        match asked {
            FloatingAsked::New => {
                let id = FloatingIpId::from_random(rand::random());
                let request = NewFloatingIp::default();
                let floating = self.draft_floating(tx, caller, id, &request)?;
                let target = self.target_among(&floating, ports, None)?;
                let led = FloatingIp { target: Some(target), ..floating };
                tx.create(&led);
                Ok(Some(led))
            }
            FloatingAsked::Existing(reference) => {
                let found = self.find_floating(caller, reference).map_err(|e| e.field("floating_ip"))?;
                let mut next = found.record.clone();
                next.target = Some(self.target_among(&next, ports, None)?);
                self.settle_floating(tx, &found.record, None)?;
                next.meta.touch(self.now());
                tx.update(&found, &next);
                Ok(Some(next))
            }
        }
    }

    /// What the node that holds an instance says of it.
    pub fn instance_status(&self, id: InstanceId) -> Option<Arc<Stored<InstanceStatus>>> {
        self.store.get::<InstanceStatus>(&id.to_string())
    }

    /// What users see of an instance.
    pub fn phase(&self, instance: &Instance) -> Phase {
        phase(instance, self.instance_status(instance.meta.id).as_deref().map(|s| &s.record))
    }

    /// Where a floating IP's target asks for an instance by reference.
    pub fn target_instance(reference: &str) -> TargetAsked {
        TargetAsked::Instance(reference.to_string())
    }
}

fn default_grace_s(kind: Kind) -> u32 {
    if kind == Kind::Container { 10 } else { 60 }
}

fn check_limits(new: &NewInstance) -> Result<()> {
    let too_many = |field: &str, what: &str, max: usize| {
        Err(Error::new(Code::TooLarge, format!("an instance has at most {max} {what}")).field(field))
    };
    if new.nics.as_ref().is_some_and(|n| n.len() > PORTS_MAX) {
        return too_many("networks", "network interfaces", PORTS_MAX);
    }
    if new.volumes.len() >= VOLUMES_MAX {
        return too_many("volumes", "volumes, its root disk included", VOLUMES_MAX);
    }
    if new.containers.len() > CONTAINERS_MAX {
        return too_many("containers", "containers", CONTAINERS_MAX);
    }
    if new.extra_hosts.len() > EXTRA_HOSTS_MAX {
        return too_many("extra_hosts", "extra hosts", EXTRA_HOSTS_MAX);
    }
    if new.kind != Kind::Vm && new.containers.is_empty() {
        return Err(Error::invalid("image", "a container needs an image").hint("`holm run IMAGE`"));
    }
    if new.kind == Kind::System {
        check_system(&new.containers)?;
    }
    resize::check_weight(new.cpu_weight)?;
    if let Some(grace_s) = new.grace_s.filter(|g| *g > GRACE_S_MAX) {
        return Err(Error::invalid("grace_s", format!("{grace_s} s: at most {GRACE_S_MAX} s are possible")));
    }
    check_tags(&new.tags)?;
    new.user_data_base64.as_deref().map_or(Ok(()), check_user_data)
}

/// A system container is one container, whose init decides what runs in it and as whom.
fn check_system(containers: &[ContainerAsked]) -> Result<()> {
    let [one] = containers else {
        let message = format!("a system container is one container, not {}", containers.len());
        return Err(Error::invalid("containers", message)
            .hint("make an instance of each, or a pod (kind container) for programs that share a network"));
    };
    let spec = &one.spec;
    let of_programs = [
        ("read_only", spec.read_only, "its init writes to its root"),
        ("user", spec.user.is_some(), "its init is root, inside"),
        ("working_dir", spec.working_dir.is_some(), "its init begins at the root"),
        ("tty", spec.tty || spec.stdin_open, "it has a console in any case: holm console"),
    ];
    match of_programs.iter().find(|(_, asked, _)| *asked) {
        Some((field, _, why)) => {
            Err(Error::invalid(field, format!("{field} is not for a system container: {why}")))
        }
        None => Ok(()),
    }
}

/// Refuses more tags than an instance may have.
///
/// # Errors
/// `too_large`, with the field `tags`.
pub fn check_tags(tags: &BTreeSet<Tag>) -> Result<()> {
    if tags.len() <= TAGS_MAX {
        return Ok(());
    }
    let message = format!("{} tags: an instance has at most {TAGS_MAX}", tags.len());
    Err(Error::new(Code::TooLarge, message).field("tags"))
}

fn check_user_data(text: &str) -> Result<()> {
    let bytes = STANDARD.decode(text).map_err(|_| Error::invalid("user_data", "user-data must be base64"))?;
    if bytes.len() > USER_DATA_BYTES_MAX {
        let message =
            format!("user-data has {} bytes, at most {USER_DATA_BYTES_MAX} are possible", bytes.len());
        return Err(Error::new(Code::TooLarge, message).field("user_data").hint("have it fetch the rest"));
    }
    Ok(())
}
