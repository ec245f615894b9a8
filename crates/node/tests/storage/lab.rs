//! A cloud of one node that keeps images and volumes in a directory of the test's own.

use control::{
    Caller, Control, Role,
    bootstrap::Beginning,
    image::NewImage,
    instance::NewInstance,
    volume::{NewVolume, SourceAsked},
};
use model::{
    error::Fault,
    id::{ImageId, NodeId, VolumeId},
    image::{Image, ImageKind, ImageState, ImageStatus},
    instance::{InstanceStatus, Kind, State, isolation::Isolation},
    meta::Labels,
    node::NodeStatus,
    plan::{Accelerator, RestartPolicy},
    volume::{Volume, VolumeStatus},
};
use node::{
    image::reconcile::{Images, RegistrySettings},
    volume::Volumes,
};
use std::{os::unix::fs::PermissionsExt, path::Path, process::Command, sync::Arc};
use store::{Memory, Store, Tx};
use tempfile::TempDir;

pub const NODE: [u8; 16] = [7; 16];

pub struct Lab {
    pub store: Store,
    pub control: Control,
    pub caller: Caller,
    pub dir: TempDir,
    pub images: Arc<Images>,
    pub volumes: Volumes,
}

fn open(store: &Store, state: &Path, web_hosts: &[String]) -> (Arc<Images>, Volumes) {
    let node = NodeId::from_random(NODE);
    let settings = RegistrySettings { web_hosts: web_hosts.to_vec(), ..RegistrySettings::default() };
    let images = Images::open(store.clone(), node, state, settings).unwrap();
    let volumes = Volumes::open(store.clone(), node, state, images.disks().clone()).unwrap();
    (Arc::new(images), volumes)
}

impl Lab {
    pub async fn new() -> Self {
        Self::with_web_hosts(&[]).await
    }

    /// A lab whose operator allows images to be fetched from these hosts.
    pub async fn with_web_hosts(web_hosts: &[String]) -> Self {
        let store = Store::open(Arc::new(Memory::new()), control::schema::schema()).await.unwrap();
        let control = Control::new(store.clone());
        let beginning = Beginning { external_v4: "203.0.113.0/28".parse().unwrap(), external_v6: None };
        control.bootstrap(&beginning).await.unwrap();
        let node = NodeId::from_random(NODE);
        control.join_node(node, "here").await.unwrap();
        let root = control::finalize::system_caller(model::id::ProjectId::from_random([0; 16]));
        let project = control.find_project(&root, "default").unwrap().record.meta.id;
        let caller = Caller {
            project,
            role: Role::Admin,
            actor: "test".into(),
            request_id: "r".into(),
            proof: Default::default(),
        };
        // Closed to all but root, as a state directory may be.
        let closed = std::fs::Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new().permissions(closed).tempdir_in("/var/tmp").unwrap();
        let (images, volumes) = open(&store, dir.path(), web_hosts);
        let lab = Self { store, control, caller, dir, images, volumes };
        lab.put(&node_status(node)).await;
        lab
    }

    /// The daemon starts anew over the same files and records.
    pub fn restart(&mut self) {
        (self.images, self.volumes) = open(&self.store, self.dir.path(), &[]);
    }

    pub async fn put<R: store::Record>(&self, record: &R) {
        let mut tx = Tx::new();
        tx.put(record);
        self.store.commit(tx).await.unwrap();
    }

    pub async fn new_image(&self, name: &str, kind: ImageKind) -> Image {
        let new = NewImage { name: name.into(), kind, reference: None, ..NewImage::from_registry("x") };
        self.control.create_image(&self.caller, new).await.unwrap()
    }

    /// Makes an image and sends its bytes.
    pub async fn image(&self, name: &str, kind: ImageKind, bytes: &[u8]) -> Result<Image, Fault> {
        let image = self.new_image(name, kind).await;
        self.images.take_upload(&image, bytes, Some(bytes.len() as u64)).await.map(|()| image)
    }

    pub fn image_state(&self, id: ImageId) -> Option<ImageState> {
        self.store.get::<ImageStatus>(&id.to_string()).map(|s| s.record.state.clone())
    }

    pub async fn volume(&self, size_gib: u64, thick: bool, image: Option<&Image>) -> VolumeId {
        let new = NewVolume {
            name: format!("v{}", rand::random::<u32>()),
            description: String::new(),
            size_gib: Some(size_gib),
            thick,
            kind: None,
            source: image.map_or(SourceAsked::Empty, |i| SourceAsked::Image(i.meta.id.to_string())),
            labels: Labels::new(),
        };
        self.control.create_volume(&self.caller, new).await.unwrap().meta.id
    }

    pub fn wish(&self, id: VolumeId) -> Volume {
        self.store.get::<Volume>(&id.to_string()).unwrap().record.clone()
    }

    pub fn status(&self, id: VolumeId) -> VolumeStatus {
        self.store.get::<VolumeStatus>(&id.to_string()).unwrap().record.clone()
    }

    /// Gives a volume to a new instance, and says whether the guest has it.
    pub async fn attach(&self, id: VolumeId, kind: Kind, is_open: bool) -> model::id::InstanceId {
        self.attach_to(id, instance(&format!("i{}", rand::random::<u32>()), kind), is_open).await
    }

    /// The same to containers in a machine of their own.
    pub async fn attach_in_machine(&self, id: VolumeId, is_open: bool) -> model::id::InstanceId {
        let new = instance(&format!("i{}", rand::random::<u32>()), Kind::Container);
        self.attach_to(id, NewInstance { isolation: Isolation::Vm, ..new }, is_open).await
    }

    async fn attach_to(&self, id: VolumeId, new: NewInstance, is_open: bool) -> model::id::InstanceId {
        let (name, mount) = (new.name.clone(), (new.kind != Kind::Vm).then(|| "/data".to_string()));
        let instance = self.control.create_instance(&self.caller, new).await.unwrap();
        self.control.attach_volume(&self.caller, &name, &id.to_string(), mount, false).await.unwrap();
        self.hold(instance.meta.id, id, is_open).await;
        instance.meta.id
    }

    /// The same, where it may be refused.
    pub async fn try_attach(&self, id: VolumeId, kind: Kind) -> control::Result<Volume> {
        let name = format!("i{}", rand::random::<u32>());
        self.control.create_instance(&self.caller, instance(&name, kind)).await?;
        let mount = (kind != Kind::Vm).then(|| "/data".to_string());
        self.control.attach_volume(&self.caller, &name, &id.to_string(), mount, false).await
    }

    /// Takes a volume from an instance that let go of it.
    pub async fn free(&self, id: VolumeId, instance: model::id::InstanceId) {
        self.control.detach_volume(&self.caller, &id.to_string()).await.unwrap();
        self.hold(instance, id, false).await;
        self.control.finalize_instance(instance).await.unwrap();
        assert_eq!(self.wish(id).attached_to, None);
    }

    /// Writes whether a guest has the volume.
    pub async fn hold(&self, instance: model::id::InstanceId, volume: VolumeId, is_open: bool) {
        let stored = self.store.get::<InstanceStatus>(&instance.to_string());
        let mut status = stored.map_or_else(|| fresh(instance), |s| s.record.clone());
        status.volumes = if is_open { vec![volume] } else { vec![] };
        self.put(&status).await;
    }
}

fn fresh(id: model::id::InstanceId) -> InstanceStatus {
    serde_json::from_value(serde_json::json!({
        "id": id, "node": NodeId::from_random(NODE), "state": State::Absent, "boot": 0, "at": jiff::Timestamp::UNIX_EPOCH,
    }))
    .unwrap()
}

fn instance(name: &str, kind: Kind) -> NewInstance {
    let is_vm = kind == Kind::Vm;
    NewInstance {
        name: name.into(),
        description: String::new(),
        labels: Labels::new(),
        tags: Default::default(),
        access: Default::default(),
        user: None,
        kind,
        image: is_vm.then(|| "root".into()),
        root: None,
        flavor: Some("g1.c1m512".into()),
        vcpus: None,
        memory_mib: None,
        cpu_weight: None,
        disk_gib: None,
        thick: false,
        nics: Some(vec![]),
        security_groups: None,
        keypairs: vec![],
        user_data_base64: None,
        config_drive: false,
        accelerator: Accelerator::Auto,
        containers: if is_vm {
            vec![]
        } else {
            vec![control::instance::ContainerAsked {
                image: "busybox".into(),
                spec: Default::default(),
                ..Default::default()
            }]
        },
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
        grace_s: None,
        remove_on_exit: false,
        start: true,
    }
}

fn node_status(id: NodeId) -> NodeStatus {
    serde_json::from_value(serde_json::json!({
        "id": id, "arch": "x86_64", "kernel": "6", "os": "test", "version": "0", "boot_id": "b", "cpus": 64,
        "memory_mib": 1 << 20, "disk_gib": 1000, "disk_free_gib": 900, "accelerator": "tcg", "accelerator_reason": "",
        "qemu": "7.2", "at": jiff::Timestamp::UNIX_EPOCH,
    }))
    .unwrap()
}

/// What the real qemu-img makes.
pub fn qemu_img(arguments: &[&str], path: &Path) {
    let done = Command::new("qemu-img").args(arguments).arg(path).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Size that guests see, as qemu-img tells it.
pub fn virtual_bytes(path: &Path) -> u64 {
    let done = Command::new("qemu-img").args(["info", "--output=json"]).arg(path).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let told: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    told["virtual-size"].as_u64().unwrap()
}

/// Names in a directory.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
