//! The node's life: its loops, and which change in the store wakes which key.
//!
//! ```text
//!   store changes ──► route() ──► images ──► volumes ──► instances ──► drivers
//!                            └──► namespaces (networks, routers, outside, host)
//!   drivers tell of guests that changed by themselves ──► instances
//!   statuses of instances ──► health checks
//! ```

use crate::{
    driver::Driver,
    health::Health,
    image::reconcile::Images,
    instance::{Instances, sentence},
    network::{apply::Dataplane, reconcile::Networks},
    volume::{COUNT_EVERY, Volumes},
};
use model::{
    dataplane::namespace::Place,
    floating_ip::FloatingIp,
    health::status::{ContainerHealth, Word},
    id::{ImageId, InstanceId, VolumeId},
    image::{Image, ImageSource},
    instance::{Instance, InstanceStatus, Kind},
    port::Port,
    record::Record,
    volume::{Ground, Volume, VolumeStatus},
};
use reconcile::{Outcome, Queue, Runner, RunnerHandle};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use store::{Change, Store};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    task::JoinSet,
};

/// How long running work may take to finish when holm stops.
const DRAIN: Duration = Duration::from_secs(10);
/// The same for pulls: what came is kept, and the next start goes on with it.
const DRAIN_PULLS: Duration = Duration::from_millis(200);
/// Images fetched, volumes made and instances worked on at once.
const CONCURRENCY: usize = 8;

/// How often the host's own listeners are looked at while ports are published.
const LISTENERS_EVERY: Duration = Duration::from_secs(5);

/// What an agent is made of.
pub struct Parts {
    /// The store.
    pub store: Store,
    /// Images.
    pub images: Arc<Images>,
    /// Volumes.
    pub volumes: Arc<Volumes>,
    /// Networks.
    pub networks: Arc<Networks>,
    /// The namespaces' writer.
    pub dataplane: Arc<Dataplane>,
    /// Instances.
    pub instances: Arc<Instances>,
    /// Health checks.
    pub health: Arc<Health>,
    /// Drivers by kind, to hear of guests that change by themselves.
    pub drivers: HashMap<Kind, Arc<dyn Driver>>,
}

/// The running loops of a node.
pub struct Agent {
    images: RunnerHandle<ImageId>,
    volumes: RunnerHandle<VolumeId>,
    places: RunnerHandle<Place>,
    instances: RunnerHandle<InstanceId>,
    networks: Arc<Networks>,
    tasks: JoinSet<()>,
}

impl Agent {
    /// Starts all loops.
    pub async fn start(parts: Parts) -> Self {
        if let Err(error) = parts.volumes.tell_unknown().await {
            tracing::warn!(error = sentence(&error), "volumes could not be compared with their records");
        }
        let places = start_places(&parts);
        let images = start_images(&parts);
        let volumes = start_volumes(&parts);
        let instances = start_instances(&parts);
        let queues = Queues {
            store: parts.store.clone(),
            images: images.queue(),
            volumes: volumes.queue(),
            places: places.queue(),
            instances: instances.queue(),
        };
        for id in parts.instances.keys().await {
            queues.instances.add(id);
        }
        let mut tasks = JoinSet::new();
        for driver in parts.drivers.values() {
            tasks.spawn(hear(Arc::clone(driver), queues.instances.clone()));
        }
        let images_kept = Arc::clone(&parts.images);
        tasks.spawn(async move { images_kept.collect_always().await });
        tasks.spawn(Arc::clone(&parts.health).keep());
        tasks.spawn(hear_borrowed(parts.instances.borrowed(), queues.instances.clone()));
        tasks.spawn(hear_grown(parts.instances.grown(), queues.volumes.clone()));
        tasks.spawn(count(Arc::clone(&parts.volumes), queues.volumes.clone()));
        tasks.spawn(look_at_listeners(Arc::clone(&parts.networks), queues.places.clone()));
        let rooms = (Arc::clone(&parts.networks), Arc::clone(&parts.volumes));
        tasks.spawn(route_all(parts.store.clone(), queues, rooms));
        Self { images, volumes, places, instances, networks: parts.networks, tasks }
    }

    /// Lets what runs finish, stops the servers of networks, and leaves every guest as it is.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        let (images, volumes, places, instances) = tokio::join!(
            self.images.drain(DRAIN_PULLS),
            self.volumes.drain(DRAIN),
            self.places.drain(DRAIN),
            self.instances.drain(DRAIN)
        );
        for (loop_name, left) in [
            ("images", images.abandoned.len()),
            ("volumes", volumes.abandoned.len()),
            ("namespaces", places.abandoned.len()),
            ("instances", instances.abandoned.len()),
        ] {
            if left > 0 {
                tracing::warn!(loop_name, left, "work was cut off; the next start goes on with it");
            }
        }
        self.networks.stop().await;
    }
}

fn start_places(parts: &Parts) -> RunnerHandle<Place> {
    let networks = Arc::clone(&parts.networks);
    let lister = Arc::clone(&networks);
    let keys = move || lister.places().into_iter().chain(lister.strays()).collect();
    Runner::builder("namespaces", keys).concurrency(1).spawn(move |place| {
        let networks = Arc::clone(&networks);
        async move { networks.run(place).await.map(|()| Outcome::Done) }
    })
}

fn start_images(parts: &Parts) -> RunnerHandle<ImageId> {
    let images = Arc::clone(&parts.images);
    let lister = Arc::clone(&images);
    Runner::builder("images", move || lister.keys()).concurrency(CONCURRENCY).spawn(move |id| {
        let images = Arc::clone(&images);
        async move { images.run(id).await }
    })
}

fn start_volumes(parts: &Parts) -> RunnerHandle<VolumeId> {
    let volumes = Arc::clone(&parts.volumes);
    let lister = Arc::clone(&volumes);
    Runner::builder("volumes", move || lister.keys()).concurrency(CONCURRENCY).spawn(move |id| {
        let volumes = Arc::clone(&volumes);
        async move { volumes.run(id).await }
    })
}

fn start_instances(parts: &Parts) -> RunnerHandle<InstanceId> {
    let instances = Arc::clone(&parts.instances);
    let lister = Arc::clone(&instances);
    Runner::builder("instances", move || lister.wished()).concurrency(CONCURRENCY).spawn(move |id| {
        let instances = Arc::clone(&instances);
        async move { instances.run(id).await }
    })
}

/// Guests that change by themselves wake their key.
async fn hear(driver: Arc<dyn Driver>, queue: Queue<InstanceId>) {
    let mut changes = driver.changes();
    loop {
        match changes.recv().await {
            Ok(id) => queue.add(id),
            Err(RecvError::Lagged(_)) => queue.resync(),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Volumes that are wanted without their guest, or are not any more, wake its instance.
async fn hear_borrowed(mut borrowed: Receiver<InstanceId>, queue: Queue<InstanceId>) {
    loop {
        match borrowed.recv().await {
            Ok(id) => queue.add(id),
            Err(RecvError::Lagged(_)) => queue.resync(),
            Err(RecvError::Closed) => return,
        }
    }
}

/// A disk that grew under its guest wakes its volume.
async fn hear_grown(mut grown: Receiver<VolumeId>, queue: Queue<VolumeId>) {
    loop {
        match grown.recv().await {
            Ok(id) => queue.add(id),
            Err(RecvError::Lagged(_)) => queue.resync(),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Guests write, and nobody tells: the space of volumes is looked at again and again. Volumes that fail keep their own
/// pace.
async fn count(volumes: Arc<Volumes>, queue: Queue<VolumeId>) {
    loop {
        tokio::time::sleep(COUNT_EVERY).await;
        for id in volumes.keys() {
            if queue.status(&id).is_none_or(|status| status.failures == 0) {
                queue.add(id);
            }
        }
    }
}

/// Programs of the host begin to listen, and nobody tells: published ports are theirs when they do.
async fn look_at_listeners(networks: Arc<Networks>, queue: Queue<Place>) {
    loop {
        tokio::time::sleep(LISTENERS_EVERY).await;
        match networks.is_published_stale().await {
            Ok(true) => queue.add(Place::Host),
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "the host's listeners were not looked at"),
        }
    }
}

struct Queues {
    store: Store,
    images: Queue<ImageId>,
    volumes: Queue<VolumeId>,
    places: Queue<Place>,
    instances: Queue<InstanceId>,
}

async fn route_all(store: Store, queues: Queues, (networks, volumes): (Arc<Networks>, Arc<Volumes>)) {
    let mut changes = store.subscribe();
    let mut words = BTreeMap::new();
    while let Some(change) = changes.next().await {
        match change {
            Change::Record { table, key, .. } => {
                queues.route(table, &key, &networks);
                queues.route_readiness(table, &key, &mut words);
                queues.route_leftovers(table, &key, &volumes);
            }
            Change::Resync => {
                queues.images.resync();
                queues.volumes.resync();
                queues.places.resync();
                queues.instances.resync();
            }
        }
    }
}

impl Queues {
    fn route(&self, table: &str, key: &str, networks: &Networks) {
        match table {
            "instance" => self.route_instance(key),
            "instance_status" => self.route_volumes_of(key),
            "image" | "image_status" => self.route_image(key),
            "volume" | "volume_status" => self.route_volume(key),
            "host_port" => self.places.add(Place::Host),
            "network" | "subnet" | "router" | "port" | "security_group" | "floating_ip" => {
                self.route_network(table, key, networks);
            }
            _ => {}
        }
    }

    fn route_instance(&self, key: &str) {
        if let Ok(id) = key.parse() {
            self.instances.add(id);
        }
        if let Some(instance) = self.store.get::<Instance>(key) {
            self.route_published(&instance.record);
            for port in &instance.record.ports {
                if let Some(port) = self.store.get::<Port>(&port.to_string()) {
                    self.places.add(Place::Network(port.record.network));
                }
            }
        }
    }

    /// Addresses that are spread lead to those that are up and ready. Probes write again and again and mostly the same word:
    /// `words` has the last one of each run, and one that is not known there is taken for a change.
    fn route_readiness(&self, table: &str, key: &str, words: &mut BTreeMap<String, (i64, Word)>) {
        let id: Option<InstanceId> = match table {
            InstanceStatus::TABLE => key.parse().ok(),
            ContainerHealth::TABLE => {
                let record = self.store.get::<ContainerHealth>(key);
                let word = record.map(|stored| (stored.record.run_ms, stored.record.health.word));
                let before = match word {
                    Some(word) => words.insert(key.to_string(), word),
                    None => words.remove(key),
                };
                ContainerHealth::instance_of(key).filter(|_| before != word)
            }
            _ => None,
        };
        let Some(instance) = id.and_then(|id| self.store.get::<Instance>(&id.to_string())) else { return };
        for port in &instance.record.ports {
            let port = self.store.get::<Port>(&port.to_string());
            if let Some(port) = port.filter(|port| !port.record.aliases.is_empty()) {
                self.places.add(Place::Network(port.record.network));
            }
        }
    }

    /// What a volume or image stood on may be needed by nobody any more.
    fn route_leftovers(&self, table: &str, key: &str, volumes: &Volumes) {
        let is_over = match table {
            "volume" => self.store.get::<Volume>(key).is_none(),
            "image" => self.store.get::<Image>(key).is_none(),
            "image_status" => self.store.get::<Image>(key).is_some_and(|i| is_of_volume(&i.record)),
            _ => false,
        };
        if is_over {
            for id in volumes.leftovers() {
                self.volumes.add(id);
            }
        }
    }

    /// Copies wait until what they are copies of is frozen.
    fn route_copies(&self, id: VolumeId) {
        let stands = |ground: &Ground| ground.stretches.iter().any(|s| s.volume == id);
        for volume in self.store.list::<Volume>() {
            if volume.record.meta.id != id && stands(&volume.record.ground()) {
                self.volumes.add(volume.record.meta.id);
            }
        }
        for image in self.store.list::<Image>() {
            if let ImageSource::Volume { ground, .. } = &image.record.source
                && stands(ground)
            {
                self.images.add(image.record.meta.id);
            }
        }
    }

    /// A disk that was to grow and could not under its guest grows when the guest has let go of it.
    fn route_volumes_of(&self, instance: &str) {
        let Some(instance) = self.store.get::<Instance>(instance) else { return };
        for id in &instance.record.volumes {
            // Too small, or not yet led to its new layer.
            let is_behind = |v: &Volume, s: &VolumeStatus| s.size_gib < v.size_gib || s.layer < v.layer;
            let key = id.to_string();
            let volume = self.store.get::<Volume>(&key);
            let status = self.store.get::<VolumeStatus>(&key);
            if let (Some(volume), Some(status)) = (volume, status)
                && is_behind(&volume.record, &status.record)
            {
                self.volumes.add(*id);
            }
        }
    }

    /// The host leads to published ports, and routers let them in; the end of the last is seen in the records of the
    /// host's ports and of floating IPs.
    fn route_published(&self, instance: &Instance) {
        if instance.publish.is_empty() {
            return;
        }
        self.places.add(Place::Host);
        for floating in self.store.list::<FloatingIp>() {
            if let Some(target) = floating.record.target
                && instance.ports.contains(&target.port)
            {
                self.places.add(Place::Router(target.router));
            }
        }
    }

    fn route_image(&self, key: &str) {
        let Ok(id) = key.parse::<ImageId>() else { return };
        self.images.add(id);
        for volume in self.store.list::<Volume>() {
            if volume.record.ground().image == Some(id) {
                self.volumes.add(volume.record.meta.id);
            }
        }
        let boots: Vec<ImageId> = self
            .store
            .list::<Image>()
            .iter()
            .filter(|i| i.record.boot.as_ref().is_some_and(|b| b.kernel == id || b.initrd == Some(id)))
            .map(|i| i.record.meta.id)
            .collect();
        for instance in self.store.list::<Instance>() {
            let i = &instance.record;
            let uses = i.containers.iter().any(|c| c.image == Some(id))
                || i.image.is_some_and(|image| image == id || boots.contains(&image));
            if uses {
                self.instances.add(i.meta.id);
            }
        }
    }

    fn route_volume(&self, key: &str) {
        if let Ok(id) = key.parse() {
            self.volumes.add(id);
            self.route_copies(id);
        }
        if let Some(instance) = self.store.get::<Volume>(key).and_then(|v| v.record.attached_to) {
            self.instances.add(instance);
        }
    }

    /// Namespaces compare what they would write with what they wrote, so waking too many is cheap. Waking is by the
    /// record's reach: a port's or subnet's network with its routers; all else, and what is gone, wakes all.
    fn route_network(&self, table: &str, key: &str, networks: &Networks) {
        if let ("network" | "router", Ok(uuid)) = (table, key.parse::<model::id::NetworkId>()) {
            let gone = if table == "network" {
                [Place::Network(uuid), Place::External(uuid)].to_vec()
            } else {
                vec![Place::Router(model::id::RouterId(uuid.0))]
            };
            for place in gone {
                self.places.add(place);
            }
        }
        for place in networks.places() {
            self.places.add(place);
        }
    }
}

fn is_of_volume(image: &Image) -> bool {
    matches!(image.source, ImageSource::Volume { .. })
}
