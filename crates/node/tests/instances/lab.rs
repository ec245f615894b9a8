//! A cloud of one fake host: control and a node that meet in a store in memory, and whose daemon can die anywhere.

use crate::engine::Mortal;
use async_trait::async_trait;
use control::{
    Caller, Control, Role,
    bootstrap::Beginning,
    image::NewImage,
    instance::{ContainerAsked, NewInstance},
};
use jiff::{SignedDuration, Timestamp};
use model::{
    id::{ImageId, InstanceId, NetworkId, NodeId},
    image::{Image, ImageContent, ImageKind, ImageState, ImageStatus, OciContent},
    instance::{ContainerSpec, Instance, InstanceStatus, Kind, State, phase::Phase},
    meta::Labels,
    node::NodeStatus,
    plan::{Accelerator, DiskFormat, RestartPolicy},
    volume::{Form, Volume, VolumeStatus},
};
use node::{
    driver::Driver,
    fake::{FakeHost, Fuse},
    image::{layer_tree::LayerLimits, layers::LayerStore},
    instance::{InstanceDirs, Instances, wires::Wires},
    network::reconcile::NetworkError,
};
use reconcile::Outcome;
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use store::{
    Memory, Store, Tx,
    engine::{Engine, Range},
};
use tempfile::TempDir;
use tokio::time::Instant;

/// Runs of one key before a test takes it for one that never rests.
const RUNS_MAX: usize = 400;
/// What a failing run waits for, in place of the loop's backoff.
const BACKOFF: Duration = Duration::from_secs(1);

pub const NODE: [u8; 16] = [9; 16];

/// Networks as instances need them: a list of those that were asked for.
pub struct Threads {
    fuse: Arc<Fuse>,
    failures: Arc<AtomicU32>,
}

#[async_trait]
impl Wires for Threads {
    async fn ensure(&self, _: NetworkId) -> Result<(), NetworkError> {
        self.fuse.point().await;
        let fails = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if fails.is_ok() {
            return Err(NetworkError::Stopping);
        }
        self.fuse.point().await;
        Ok(())
    }
    fn handle(&self, network: NetworkId) -> PathBuf {
        PathBuf::from(format!("/nowhere/{network}"))
    }
}

/// A daemon's node: gone when dropped, and dead when its fuse has blown.
pub struct Daemon {
    pub instances: Instances,
    pub store: Store,
    pub fuse: Arc<Fuse>,
}

pub struct Lab {
    pub memory: Arc<Memory>,
    pub control: Control,
    pub caller: Caller,
    pub host: FakeHost,
    pub network_failures: Arc<AtomicU32>,
    pub dir: TempDir,
    pub host_boot: Mutex<String>,
    began: Instant,
}

fn clock(began: Instant) -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
    let base = Timestamp::from_second(1_800_000_000).unwrap();
    Arc::new(move || base + SignedDuration::try_from(began.elapsed()).unwrap())
}

impl Lab {
    pub async fn new() -> Self {
        let began = Instant::now();
        let memory = Arc::new(Memory::new());
        let engine: Arc<dyn Engine> = Arc::clone(&memory) as _;
        let store = Store::open(engine, control::schema::schema()).await.unwrap();
        let control = Control::with_clock(store, clock(began));
        let beginning = Beginning { external_v4: "203.0.113.0/28".parse().unwrap(), external_v6: None };
        control.bootstrap(&beginning).await.unwrap();
        let node = NodeId::from_random(NODE);
        control.join_node(node, "here").await.unwrap();
        let mut tx = Tx::new();
        tx.put(&node_status(node));
        control.store().commit(tx).await.unwrap();
        let root = control::finalize::system_caller(model::id::ProjectId::from_random([0; 16]));
        let project = control.find_project(&root, "default").unwrap().record.meta.id;
        let caller = Caller {
            project,
            role: Role::Admin,
            actor: "test".into(),
            request_id: "r".into(),
            proof: Default::default(),
        };
        let lab = Self {
            memory,
            control,
            caller,
            host: FakeHost::new(clock(began)),
            network_failures: Arc::default(),
            dir: tempfile::tempdir().unwrap(),
            host_boot: Mutex::new("boot-1".into()),
            began,
        };
        lab.add_images().await;
        lab.supply().await;
        lab
    }

    async fn add_images(&self) {
        let disk = NewImage { name: "debian".into(), kind: ImageKind::Disk, reference: None, ..busybox() };
        self.control.create_image(&self.caller, disk).await.unwrap();
        self.control.create_image(&self.caller, busybox()).await.unwrap();
    }

    /// Starts a daemon over what is there.
    pub async fn daemon(&self, fuse: Fuse) -> Daemon {
        let fuse = Arc::new(fuse);
        let engine = Arc::new(Mortal { inner: Arc::clone(&self.memory), fuse: Arc::clone(&fuse) });
        let store = Store::open(engine, control::schema::schema()).await.unwrap();
        let driver: Arc<dyn Driver> = Arc::new(self.host.driver(Arc::clone(&fuse)));
        let drivers = HashMap::from([(Kind::Vm, Arc::clone(&driver)), (Kind::Container, driver)]);
        let dirs = InstanceDirs {
            state: self.dir.path().join("instances"),
            images: self.dir.path().join("images"),
            disks: node::volume::files::disks_dir(self.dir.path()),
        };
        let wires = Threads { fuse: Arc::clone(&fuse), failures: Arc::clone(&self.network_failures) };
        let layers = LayerStore::open(self.dir.path(), LayerLimits::default()).unwrap();
        let boot = self.host_boot.lock().unwrap().clone();
        let node = NodeId::from_random(NODE);
        let instances = Instances::new(store.clone(), node, dirs, wires, layers, drivers, boot)
            .with_clock(clock(self.began));
        Daemon { instances, store, fuse }
    }

    /// The paused clock of this cloud.
    pub fn clock(&self) -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
        clock(self.began)
    }

    /// A daemon that does not die.
    pub async fn healthy(&self) -> Daemon {
        self.daemon(Fuse::new()).await
    }

    /// Writes what the loops of images and volumes would: all are ready.
    pub async fn supply(&self) {
        let store = self.control.store();
        let mut tx = Tx::new();
        for image in store.list::<Image>() {
            let state = ImageState::Ready(content(image.record.kind));
            tx.put(&self.image_status(image.record.meta.id, state));
        }
        for volume in store.list::<Volume>() {
            let id = volume.record.meta.id;
            let user = volume.record.attached_to.and_then(|user| self.status(user));
            // A guest that may have it open writes to the layer that it says, else the uppermost is the top.
            let layer = match user.filter(|status| status.volumes.contains(&id)) {
                Some(status) => status.layers.get(&id).copied().unwrap_or(0),
                None => volume.record.layer,
            };
            let old = store.get::<VolumeStatus>(&id.to_string()).and_then(|status| status.record.form());
            // What a pod has or had is a directory.
            let is_pods = match volume.record.attached_to.and_then(|user| self.instance(user)) {
                Some(user) => !user.has_own_kernel(),
                None => old == Some(Form::Directory),
            };
            let path = match layer {
                _ if is_pods => format!("/nowhere/{id}.dir/data"),
                0 => format!("/nowhere/{id}.qcow2"),
                layer => format!("/nowhere/{id}.{layer}.qcow2"),
            };
            tx.put(&VolumeStatus {
                id,
                node: NodeId::from_random(NODE),
                path: Some(path),
                format: DiskFormat::Qcow2,
                backing: vec![],
                layer,
                layer_made: volume.record.layer,
                size_gib: volume.record.size_gib,
                used_bytes: 0,
                fault: None,
                at: Timestamp::UNIX_EPOCH,
            });
        }
        store.commit(tx).await.unwrap();
    }

    /// What the node says of an image in answer to the last ask.
    pub fn image_status(&self, id: ImageId, state: ImageState) -> ImageStatus {
        let asked = self.control.get::<Image>(id).unwrap().record.asked;
        let (node, at) = (NodeId::from_random(NODE), Timestamp::UNIX_EPOCH);
        ImageStatus { id, node, state, asked, stale: None, at }
    }

    pub async fn put<R: store::Record>(&self, record: &R) {
        let mut tx = Tx::new();
        tx.put(record);
        self.control.store().commit(tx).await.unwrap();
    }

    /// Makes an instance whose images and volumes are ready.
    pub async fn create(&self, new: NewInstance) -> InstanceId {
        let instance = self.control.create_instance(&self.caller, new).await.unwrap();
        self.supply().await;
        instance.meta.id
    }

    /// One run of the node, and what control does on its change.
    pub async fn run_once(&self, daemon: &Daemon, id: InstanceId) -> Result<Outcome, String> {
        daemon.store.wait_for(self.control.store().mirror().revision()).await.unwrap();
        let outcome = daemon.instances.run(id).await.map_err(|e| node::instance::sentence(&e));
        self.control.store().wait_for(daemon.store.mirror().revision()).await.unwrap();
        self.control.finalize_instance(id).await.unwrap();
        outcome
    }

    /// Runs a key as the loop would until it rests. Gives the failures on the way.
    pub async fn drive(&self, daemon: &Daemon, id: InstanceId) -> Vec<String> {
        let mut failures = vec![];
        for _ in 0..RUNS_MAX {
            let before = self.instance(id);
            match self.run_once(daemon, id).await {
                // Control changed the wish on what it saw, or ended the record: that wakes the key again.
                Ok(Outcome::Done) if self.instance(id) != before => {}
                Ok(Outcome::Done) => return failures,
                Ok(Outcome::Again) => {}
                Ok(Outcome::After(pause)) => tokio::time::sleep(pause).await,
                Err(error) => {
                    failures.push(error);
                    tokio::time::sleep(BACKOFF).await;
                }
            }
        }
        panic!("{id} never rests: {:?}, failures {failures:?}", self.status(id));
    }

    /// The same by a daemon that may die on the way. Gives whether it did.
    pub async fn drive_to_death(&self, daemon: &Daemon, id: InstanceId) -> bool {
        tokio::select! {
            biased;
            () = daemon.fuse.blown() => true,
            _ = self.drive(daemon, id) => false,
        }
    }

    /// Drives with a new daemon that must meet no failure.
    pub async fn rest(&self, id: InstanceId) {
        let failures = self.drive(&self.healthy().await, id).await;
        assert_eq!(failures, Vec::<String>::new());
    }

    /// The machine is restarted: all that ran is gone, and the kernel has another boot id.
    pub fn reboot_host(&self) {
        self.host.reboot();
        self.host_boot.lock().unwrap().push('x');
    }

    pub fn instance(&self, id: InstanceId) -> Option<Instance> {
        self.control.get::<Instance>(id).map(|i| i.record.clone())
    }

    pub fn status(&self, id: InstanceId) -> Option<InstanceStatus> {
        self.control.instance_status(id).map(|s| s.record.clone())
    }

    pub fn phase(&self, id: InstanceId) -> Phase {
        self.control.phase(&self.instance(id).expect("the instance is there"))
    }

    /// What users would see and what the host has, without times and process ids.
    pub fn end(&self, id: InstanceId) -> String {
        let status = self.status(id).map(|s| {
            let state = match s.state {
                State::Absent => "absent".to_string(),
                State::Running { .. } => "running".into(),
                State::Paused { .. } => "paused".into(),
                State::Stopped { code, failed, .. } => format!("stopped {code:?} failed={failed}"),
            };
            format!(
                "{state} boot={} progress={:?} fault={:?} failures={} asked={} ports={} volumes={} gone={}",
                s.boot,
                s.progress,
                s.fault,
                s.failures,
                s.stop_asked_at.is_some(),
                s.ports.len(),
                s.volumes.len(),
                s.gone
            )
        });
        let phase = self.instance(id).map(|_| self.phase(id));
        format!("{phase:?}; {status:?}; boots {:?}; host {:?}", self.host.boots(id), self.host.ids())
    }

    /// All keys of the store with a mark of what they hold. Counters that are zero count as absent, and the history
    /// is meant to stay, as is how often anybody came to stand on what is there.
    pub async fn footprint(&self) -> BTreeMap<String, String> {
        let page = self.memory.range(Range::prefix("/holm/")).await.unwrap();
        assert!(page.next.is_none(), "a test's store fits a page");
        let lasting = |key: &str| {
            key.starts_with("/holm/record/event/") || key.starts_with("/holm/record/counter/arrivals/")
        };
        let marks = page.keys.into_iter().filter(|kv| !lasting(&kv.key)).filter_map(|kv| {
            let value: serde_json::Value = serde_json::from_slice(&kv.value).unwrap_or_default();
            let used = value.pointer("/r/used").and_then(serde_json::Value::as_u64);
            match (kv.key.contains("/record/counter/"), used) {
                (true, Some(0) | None) => None,
                (true, Some(n)) => Some((kv.key, n.to_string())),
                (false, _) => Some((kv.key, String::new())),
            }
        });
        marks.collect()
    }
}

fn busybox() -> NewImage {
    NewImage::from_registry("busybox")
}

fn content(kind: ImageKind) -> ImageContent {
    ImageContent {
        digest: format!("sha256:{}", "0".repeat(64)),
        size_bytes: 1,
        virtual_bytes: 1 << 20,
        format: (kind == ImageKind::Disk).then_some(DiskFormat::Qcow2),
        oci: (kind == ImageKind::Oci).then(|| OciContent { cmd: vec!["sh".into()], ..OciContent::default() }),
        ..ImageContent::default()
    }
}

pub fn vm(name: &str) -> NewInstance {
    NewInstance {
        kind: Kind::Vm,
        image: Some("debian".into()),
        root: None,
        flavor: Some("g1.c1m512".into()),
        containers: vec![],
        grace_s: Some(30),
        ..pod(name)
    }
}

pub fn pod(name: &str) -> NewInstance {
    NewInstance {
        name: name.into(),
        description: String::new(),
        labels: Labels::new(),
        tags: Default::default(),
        access: Default::default(),
        user: None,
        kind: Kind::Container,
        image: None,
        root: None,
        flavor: None,
        vcpus: None,
        memory_mib: None,
        cpu_weight: None,
        disk_gib: None,
        thick: false,
        nics: None,
        security_groups: None,
        keypairs: vec![],
        user_data_base64: None,
        config_drive: false,
        accelerator: Accelerator::Auto,
        containers: vec![ContainerAsked {
            image: "busybox".into(),
            spec: ContainerSpec::default(),
            ..Default::default()
        }],
        volumes: vec![],
        server_group: None,
        floating_ip: None,
        publish: vec![],
        autostart: false,
        start_after: vec![],
        extra_hosts: vec![],
        files: vec![],
        schedule: None,
        shared: Default::default(),
        isolation: Default::default(),
        publish_within: vec![],
        succeeds: None,
        restart: RestartPolicy::No,
        grace_s: Some(30),
        remove_on_exit: false,
        start: true,
    }
}

fn node_status(id: NodeId) -> NodeStatus {
    NodeStatus {
        id,
        arch: "x86_64".into(),
        kernel: "6".into(),
        os: "test".into(),
        version: "0".into(),
        boot_id: "b".into(),
        cpus: 64,
        memory_mib: 1 << 20,
        disk_gib: 1000,
        disk_free_gib: 900,
        accelerator: "tcg".into(),
        accelerator_reason: String::new(),
        qemu: "7.2".into(),
        facts: BTreeMap::new(),
        at: Timestamp::UNIX_EPOCH,
    }
}
