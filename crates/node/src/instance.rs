//! Instances made true: look, decide by `next_step`, do one step, look again.
//!
//! A run gets an id and nothing else. What it decides on is read afresh each time: the wish from the mirror, the guest
//! by its driver. So a run after a crash, a run too many and a run that was cut off are all the same.

mod deadline;
pub mod guest;
pub mod history;
pub mod loan;
pub mod measure;
mod parting;
pub mod plan;
mod ready;
mod restart;
mod settle;
mod stall;
mod status;
mod stop;
pub mod wires;

use crate::{
    driver::{Driver, DriverError, Seen},
    image::{layers::LayerStore, tree_removal::remove_tree},
};
use deadline::Timed;
use jiff::Timestamp;
use model::{
    error::{Code, Fault},
    id::{InstanceId, NodeId, PortId, VolumeId},
    instance::{
        Instance, InstanceStatus, Kind, State,
        step::{Sight, Step, Wanted, next_step},
    },
    plan::{IdRange, RestartPolicy},
    seal::SealKey,
    volume::VolumeStatus,
};
use reconcile::Outcome;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use store::{Store, Tx};
use tokio::sync::broadcast;
use wires::Wires;

/// First host id of the table of uid ranges, and ids of one range.
const ID_RANGES_BASE: u32 = 1 << 28;
const ID_RANGE_COUNT: u32 = 1 << 16;
/// First of the host ids behind that table, for programs that are each a user of their own by the number of their process.
pub(crate) const PROGRAM_IDS_BASE: u32 = (1 << 31) - sys::spawn::PROCESS_IDS;

/// Grown disks that wait for a slow listener, who then looks at all.
const GROWN_MAX: usize = 256;
/// Steps of one run. More than any way through `next_step` takes; a guest that flaps waits for the next run.
const STEPS_MAX: usize = 12;
/// Pause of an instance that took all steps of a run and is not at rest.
const FLAP_PAUSE: Duration = Duration::from_secs(5);
/// When a guest that was just asked to stop is looked at first.
const ASKED_PAUSE: Duration = Duration::from_millis(250);
/// How often an instance is looked at whose volumes are open though no guest has them.
const LENT_PAUSE: Duration = Duration::from_secs(2);
/// How often an instance that waits for its images and disks is looked at; their changes wake it, too.
const READY_PAUSE: Duration = Duration::from_secs(2);

/// Host uids and gids of an instance.
pub fn id_range(instance: &Instance) -> IdRange {
    let slot = instance.id_slot.unwrap_or(0);
    IdRange { base: ID_RANGES_BASE + slot * ID_RANGE_COUNT, count: ID_RANGE_COUNT }
}

/// Why an instance is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The driver's.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// Its network.
    #[error("the instance's network could not be prepared")]
    Network(#[from] crate::network::reconcile::NetworkError),
    /// Its root file system or disk.
    #[error("{what}")]
    Storage {
        /// What failed.
        what: String,
        /// What to do.
        hint: String,
    },
    /// What it stands on cannot be had.
    #[error("{}", .0.message)]
    Needs(Fault),
    /// The store.
    #[error("the state could not be written")]
    Store(#[from] store::Error),
}

impl InstanceError {
    /// As users are shown it.
    pub fn fault(&self, since: Timestamp) -> Fault {
        let (code, hint) = match self {
            Self::Needs(fault) => return Fault { since, ..fault.clone() },
            Self::Driver(DriverError::Missing { hint, .. }) => (Code::Unavailable, hint.clone()),
            Self::Driver(DriverError::Unsupported { hint, .. }) => (Code::Unsupported, hint.clone()),
            Self::Driver(DriverError::Timeout { .. }) => (Code::Timeout, String::new()),
            Self::Driver(DriverError::NoRoom { .. }) => {
                (Code::NoCapacity, "free space there; it is tried again".into())
            }
            Self::Driver(DriverError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                (Code::NoCapacity, "free space on the host; it is tried again".into())
            }
            Self::Storage { hint, .. } => (Code::Internal, hint.clone()),
            _ => (Code::Internal, String::new()),
        };
        Fault { code, message: sentence(self), hint, since }
    }
}

/// An error with all its causes, in one line.
pub fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let part = source.to_string();
        if !text.ends_with(&part) {
            text = format!("{text}: {part}");
        }
        cause = source.source();
    }
    text
}

/// Directories that instances use.
#[derive(Debug, Clone)]
pub struct InstanceDirs {
    /// Disks, writable layers and logs: lives as long as the instance.
    pub state: PathBuf,
    /// Files of VM images.
    pub images: PathBuf,
    /// Files of disks.
    pub disks: PathBuf,
}

/// Where the time comes from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// All instances of this node.
pub struct Instances {
    pub(crate) store: Store,
    pub(crate) node: NodeId,
    pub(crate) dirs: InstanceDirs,
    pub(crate) wires: Box<dyn Wires>,
    pub(crate) layers: LayerStore,
    pub(crate) gather: crate::network::gather::Gather,
    drivers: HashMap<Kind, Arc<dyn Driver>>,
    host_boot: String,
    clock: Clock,
    asked: stop::Asked,
    revived: stall::Revived,
    grown: broadcast::Sender<VolumeId>,
    loans: Arc<loan::Loans>,
    seal_key: Option<SealKey>,
    host_directories: Vec<PathBuf>,
}

impl Instances {
    /// Instances run by `drivers`, one for each kind.
    pub fn new(
        store: Store,
        node: NodeId,
        dirs: InstanceDirs,
        wires: impl Wires,
        layers: LayerStore,
        drivers: HashMap<Kind, Arc<dyn Driver>>,
        host_boot: String,
    ) -> Self {
        let gather = crate::network::gather::Gather::new(store.clone(), node);
        let (wires, clock) = (Box::new(wires), Arc::new(Timestamp::now));
        let (asked, revived) = (stop::Asked::default(), stall::Revived::default());
        let grown = broadcast::Sender::new(GROWN_MAX);
        Self {
            store,
            node,
            dirs,
            wires,
            layers,
            gather,
            drivers,
            host_boot,
            clock,
            asked,
            revived,
            grown,
            loans: Arc::default(),
            seal_key: None,
            host_directories: vec![],
        }
    }

    /// The same, with the time read from `clock`.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The same with the key for what records do not tell.
    #[must_use]
    pub fn with_seal_key(self, key: SealKey) -> Self {
        Self { seal_key: Some(key), ..self }
    }

    /// The same with directories of this host that containers may be shown.
    #[must_use]
    pub fn with_host_directories(self, host_directories: Vec<PathBuf>) -> Self {
        Self { host_directories, ..self }
    }

    /// Tells of disks that were made larger under their guests.
    pub fn grown(&self) -> broadcast::Receiver<VolumeId> {
        self.grown.subscribe()
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The driver of a kind.
    ///
    /// # Errors
    /// [`DriverError::Unsupported`] when this holm has none.
    pub fn driver(&self, kind: Kind) -> Result<&Arc<dyn Driver>, DriverError> {
        self.drivers.get(&kind).ok_or_else(|| DriverError::Unsupported {
            what: format!("this holm runs no instances of kind {}", kind.as_str()),
            hint: "use a VM or a container".into(),
        })
    }

    /// Ids of the instances that are wished for on this node, in the order in which they were made: after a restart of
    /// the host those that others were built upon start first.
    pub fn wished(&self) -> Vec<InstanceId> {
        let mut all = self.store.list::<Instance>();
        all.retain(|i| i.record.node == Some(self.node));
        all.sort_by_key(|i| (i.record.meta.created_at, i.record.meta.id));
        all.iter().map(|i| i.record.meta.id).collect()
    }

    /// The same, and then those of which anything is here without being wished for.
    pub async fn keys(&self) -> Vec<InstanceId> {
        let mut ids = self.wished();
        let wished: HashSet<InstanceId> = ids.iter().copied().collect();
        let mut strays = vec![];
        for driver in self.drivers.values() {
            match driver.list().await {
                Ok(found) => strays.extend(found),
                Err(error) => tracing::warn!(%error, "instances on this host could not be listed"),
            }
        }
        strays.retain(|id| !wished.contains(id));
        strays.sort();
        strays.dedup();
        ids.extend(strays);
        ids
    }

    /// Brings one instance nearer to its wish.
    ///
    /// # Errors
    /// What failed; it is in the instance's status too, and the queue tries again.
    pub async fn run(&self, id: InstanceId) -> Result<Outcome, InstanceError> {
        let Some(stored) = self.store.get::<Instance>(&id.to_string()) else {
            // A record that cannot be read is no reason to end anybody's guest.
            if self.store.is_unreadable::<Instance>(&id.to_string()) {
                return Ok(Outcome::Done);
            }
            return self.remove_stray(id).await;
        };
        if stored.record.node != Some(self.node) {
            return Ok(Outcome::Done);
        }
        let instance = stored.record.clone();
        let outcome = self.walk(&instance).await;
        if let Err(error) = &outcome {
            tracing::warn!(instance = %instance.meta.name, %id, error = sentence(error), "instance is not as wanted");
            let fault = error.fault(self.now());
            let generation = instance.meta.generation;
            self.note(&instance, |status| status::write_fault(status, fault, generation)).await?;
        }
        outcome
    }

    async fn walk(&self, instance: &Instance) -> Result<Outcome, InstanceError> {
        let driver = match self.driver(instance.kind) {
            Ok(driver) => Timed(Arc::clone(driver)),
            // What no driver here ever ran leaves nothing behind.
            Err(_) if instance.meta.is_deleting() && self.status(instance).boot == 0 => {
                return self.say_gone(instance).await;
            }
            Err(error) => return Err(error.into()),
        };
        // Noted with what is seen next, which comes at once: one commit for both.
        let mut has_started = false;
        for _ in 0..STEPS_MAX {
            let seen = match driver.observe(instance.meta.id).await {
                Ok(seen) => seen,
                Err(error) => {
                    self.note_start(instance, has_started).await?;
                    return self.walk_blind(instance, &driver, error).await;
                }
            };
            let status = self.note_seen(instance, &seen, has_started).await?;
            let sight = self.sight(instance, &status, &seen);
            let step = next_step(wanted(instance, &status), sight);
            tracing::debug!(instance = %instance.meta.name, ?step, "step");
            if !matches!(step, Step::AskStop | Step::AwaitStop) {
                self.asked.forget(instance.meta.id);
            }
            let outcome = match step {
                Step::Start => self.start(instance, &status, sight, &driver).await?,
                Step::Resume if matches!(seen, Seen::Stalled(_)) => self.revive(instance, &driver).await?,
                step => self.take(step, instance, &status, &driver).await?,
            };
            has_started = step == Step::Start && outcome.is_none();
            match outcome {
                Some(outcome) => return Ok(outcome),
                None if self.changed(instance) => {
                    self.note_start(instance, has_started).await?;
                    return Ok(Outcome::Again);
                }
                None => {}
            }
        }
        self.note_start(instance, has_started).await?;
        Ok(Outcome::After(FLAP_PAUSE))
    }

    /// The driver cannot see the instance: its monitor hangs, or its files are damaged. What is to go goes all the
    /// same, and what is to stop is stopped, in time; all else waits until it can be seen.
    async fn walk_blind(
        &self,
        instance: &Instance,
        driver: &Timed,
        error: DriverError,
    ) -> Result<Outcome, InstanceError> {
        let status = self.status(instance);
        if instance.meta.is_deleting() {
            return self.forget(instance, driver).await;
        }
        if !matches!(status.state, State::Running { .. } | State::Paused { .. }) {
            let sleeps = Sight::Stopped {
                boot: status.boot,
                failed: false,
                host_rebooted: false,
                retries: status.restarts,
                asleep: true,
            };
            // Memory that nobody can wake is kept until somebody wants to be rid of it.
            if status.asleep && next_step(wanted(instance, &status), sleeps) == Step::Discard {
                driver.discard(instance.meta.id).await?;
                return Ok(Outcome::Again);
            }
            return Err(error.into());
        }
        let stop = stop::stop_progress(instance, &status, self.now());
        let step = next_step(wanted(instance, &status), Sight::Running { boot: status.boot, stop });
        if matches!(step, Step::AskStop | Step::AwaitStop | Step::Kill)
            && let Some(outcome) = self.take(step, instance, &status, driver).await?
        {
            return Ok(outcome);
        }
        Err(error.into())
    }

    /// Whether the wish is another one by now.
    fn changed(&self, instance: &Instance) -> bool {
        let now = self.store.get::<Instance>(&instance.meta.id.to_string());
        now.is_none_or(|s| s.record.meta.generation != instance.meta.generation)
    }

    fn sight(&self, instance: &Instance, status: &InstanceStatus, seen: &Seen) -> Sight {
        let stopped = |boot, failed| Sight::Stopped {
            boot,
            failed,
            host_rebooted: status.host_boot != self.host_boot,
            retries: status.restarts,
            asleep: false,
        };
        match seen {
            // It ran, and the host has forgotten it. How it ended is in the status alone.
            Seen::Absent if status.boot > 0 => {
                stopped(status.boot, !matches!(status.state, State::Stopped { failed: false, .. }))
            }
            Seen::Absent => Sight::Absent,
            Seen::Stopped(exit) => stopped(exit.boot, exit.failed),
            Seen::Asleep { boot } => Sight::Stopped {
                boot: *boot,
                failed: false,
                host_rebooted: false,
                retries: status.restarts,
                asleep: true,
            },
            Seen::Running(running) => {
                Sight::Running { boot: running.boot, stop: stop::stop_progress(instance, status, self.now()) }
            }
            Seen::Paused(running) | Seen::Stalled(running) => Sight::Paused { boot: running.boot },
        }
    }

    /// Does one step. `Some` when this run is over, `None` to look again.
    async fn take(
        &self,
        step: Step,
        instance: &Instance,
        status: &InstanceStatus,
        driver: &Timed,
    ) -> Result<Option<Outcome>, InstanceError> {
        let id = instance.meta.id;
        match step {
            Step::AskStop => {
                // The time is written first: a crash after asking must not ask for another full grace period.
                let now = self.now();
                self.note(instance, |status| status.stop_asked_at = Some(now)).await?;
                self.ask_to_stop(instance, driver).await;
                return Ok(Some(Outcome::After(ASKED_PAUSE)));
            }
            Step::AwaitStop => {
                if self.asked.is_due(instance, self.now()) {
                    self.ask_to_stop(instance, driver).await;
                }
                return Ok(Some(Outcome::After(stop::remaining(instance, status, self.now()))));
            }
            Step::Kill => driver.kill(id).await?,
            Step::Pause => driver.pause(id).await?,
            Step::Resume => driver.resume(id).await?,
            Step::Suspend => {
                self.note(instance, |status| status.progress = "putting its memory on disk".into()).await?;
                driver.suspend(id).await?;
            }
            Step::Discard => driver.discard(id).await?,
            Step::Destroy | Step::Forget => return self.forget(instance, driver).await.map(Some),
            Step::Settle => {
                return self.settle(instance, driver).await.map(Some);
            }
            // Has needs of its own and is done by `start`.
            Step::Start => {}
        }
        Ok(None)
    }

    /// Asks the guest to stop. One that cannot be asked is asked again until its time is over, and then ended.
    async fn ask_to_stop(&self, instance: &Instance, driver: &Timed) {
        match driver.shutdown(instance.meta.id).await {
            Ok(()) => self.asked.note(instance.meta.id, self.now()),
            Err(error) => {
                let (name, error) = (&instance.meta.name, sentence(&error));
                tracing::warn!(instance = %name, error, "the guest could not be asked to stop");
            }
        }
    }

    async fn start(
        &self,
        instance: &Instance,
        status: &InstanceStatus,
        sight: Sight,
        driver: &Timed,
    ) -> Result<Option<Outcome>, InstanceError> {
        let restart = restart::is_restart(instance, sight);
        let wait = if restart { restart::wait(status, self.now()) } else { Duration::ZERO };
        if !wait.is_zero() {
            return Ok(Some(Outcome::After(wait)));
        }
        self.say_free(instance, status, driver).await?;
        let with_host = matches!(sight, Sight::Stopped { host_rebooted: true, .. });
        if let Some(waiting) = self.waits_for(instance, with_host).await? {
            self.note(instance, |status| {
                status.progress.clone_from(&waiting);
                status.fault = None;
            })
            .await?;
            return Ok(Some(Outcome::After(READY_PAUSE)));
        }
        // What it is about is told while its network is made.
        let told = self.note(instance, |status| status.progress = "starting".into());
        let (told, wired) = tokio::join!(told, self.wire(instance, driver));
        told.and(wired)?;
        let now = self.now();
        let (ports, layers) = (self.ports_of(instance), self.layers_of(&instance.volumes));
        // Written before the guest can have any of it: what it may hold must not be given to others, and a restart
        // that a crash cut off counts, so that there are never more than allowed.
        self.note(instance, |status| {
            status.ports = ports;
            status.volumes.clone_from(&instance.volumes);
            status.layers.clone_from(&layers);
            (status.grant, status.disk_waits) = (Some(instance.grant()), false);
            if settle::takes_keys(instance, status) {
                status.keys = Some(instance.keys.clone());
                status.keys_refused.clear();
            }
            status.restarts = if restart { status.restarts.saturating_add(1) } else { 0 };
            status.restarted_at = restart.then_some(now);
        })
        .await?;
        // From here on no disk of it is frozen behind its back; one that was a moment ago is seen now.
        if self.layers_of(&instance.volumes) != layers {
            return Ok(Some(Outcome::Again));
        }
        let plan = self.plan(instance)?;
        self.remove_old_builds(instance).await?;
        match sight {
            Sight::Stopped { asleep: true, .. } => driver.wake(&plan).await?,
            _ => driver.start(&plan).await?,
        }
        Ok(None)
    }

    /// Makes the networks of an instance true, with its own end of them where it has one.
    async fn wire(&self, instance: &Instance, driver: &Timed) -> Result<(), InstanceError> {
        if !instance.has_own_kernel() {
            driver.make_room(instance.meta.id, id_range(instance)).await?;
        }
        for port in self.gather.ports(&instance.ports) {
            self.wires.ensure(port.network).await?;
        }
        Ok(())
    }

    /// Says that nothing has the disks of an instance that does not run, so that one that was to be frozen when the last
    /// guest ended is.
    async fn say_free(
        &self,
        instance: &Instance,
        status: &InstanceStatus,
        driver: &Timed,
    ) -> Result<(), InstanceError> {
        if !self.is_any_behind(instance) || status.volumes.is_empty() {
            return Ok(());
        }
        // Somebody works on its files: what is open is not free before that ends.
        if !self.lent_of(instance, driver).await.is_empty() {
            return Ok(());
        }
        self.note(instance, |status| {
            status.volumes.clear();
            status.layers.clear();
        })
        .await
    }

    fn ports_of(&self, instance: &Instance) -> Vec<PortId> {
        self.gather.ports(&instance.ports).iter().map(|port| port.meta.id).collect()
    }

    /// Layers to which a guest writes that gets these disks now, where they are not 0.
    pub(super) fn layers_of(&self, volumes: &[VolumeId]) -> BTreeMap<VolumeId, u32> {
        let layer =
            |id: &VolumeId| Some((*id, self.store.get::<VolumeStatus>(&id.to_string())?.record.layer));
        volumes.iter().filter_map(layer).filter(|(_, layer)| *layer > 0).collect()
    }

    /// Removes all that is left of the instance on this host, and says so.
    async fn forget(&self, instance: &Instance, driver: &Timed) -> Result<Outcome, InstanceError> {
        driver.destroy(instance.meta.id).await?;
        self.say_gone(instance).await
    }

    async fn say_gone(&self, instance: &Instance) -> Result<Outcome, InstanceError> {
        self.asked.forget(instance.meta.id);
        self.remove_state(instance.meta.id).await?;
        let fresh = status::fresh(instance.meta.id, self.node);
        self.note(instance, |status| *status = InstanceStatus { gone: true, at: status.at, ..fresh }).await?;
        Ok(Outcome::Done)
    }

    /// What the containers of a pod wrote before it was rebuilt is of no use to anybody.
    async fn remove_old_builds(&self, instance: &Instance) -> Result<(), InstanceError> {
        if instance.build == 0 {
            return Ok(());
        }
        let dir = self.dirs.state.join(instance.meta.id.to_string());
        let names = instance.containers.iter().map(|c| plan::layer_name(instance, &c.name));
        let kept: HashSet<OsString> =
            names.chain([plan::root_disk_name(instance)]).map(OsString::from).collect();
        let sweep = move || {
            for entry in std::fs::read_dir(&dir).into_iter().flatten() {
                let entry = entry?;
                let (kind, name) = (entry.file_type()?, entry.file_name());
                let is_root_disk =
                    kind.is_file() && Path::new(&name).extension().is_some_and(|e| e == "ext4");
                if (kind.is_dir() || is_root_disk) && !kept.contains(&name) {
                    remove_tree(&entry.path())?;
                }
            }
            Ok(())
        };
        let swept = tokio::task::spawn_blocking(sweep).await.map_err(std::io::Error::other);
        swept.and_then(|swept| swept).map_err(|error: std::io::Error| InstanceError::Storage {
            what: format!(
                "what {} wrote before it was rebuilt could not be removed: {error}",
                instance.meta.name
            ),
            hint: String::new(),
        })
    }

    async fn remove_state(&self, id: InstanceId) -> Result<(), InstanceError> {
        let dir = self.dirs.state.join(id.to_string());
        let name = dir.display().to_string();
        let removed =
            tokio::task::spawn_blocking(move || remove_tree(&dir)).await.map_err(std::io::Error::other);
        removed.and_then(|removed| removed).map_err(|error| InstanceError::Storage {
            what: format!("{name} could not be removed: {error}"),
            hint: String::new(),
        })
    }

    /// Something of an instance is here that nobody wishes for: a record restored from an older copy, or a start that
    /// a crash cut off. It goes.
    async fn remove_stray(&self, id: InstanceId) -> Result<Outcome, InstanceError> {
        self.asked.forget(id);
        for driver in self.drivers.values().cloned().map(Timed) {
            match driver.observe(id).await {
                Ok(Seen::Absent) => {}
                _ => tracing::warn!(%id, "removing an instance that no record asks for"),
            }
            driver.destroy(id).await?;
        }
        self.remove_state(id).await?;
        Ok(Outcome::Done)
    }

    /// Changes the status record, if that changes anything.
    async fn note(
        &self,
        instance: &Instance,
        change: impl FnOnce(&mut InstanceStatus),
    ) -> Result<(), InstanceError> {
        let stored = self.store.get::<InstanceStatus>(&instance.meta.id.to_string());
        let old = stored.map(|s| s.record.clone());
        let mut next = old.clone().unwrap_or_else(|| status::fresh(instance.meta.id, self.node));
        change(&mut next);
        if old.as_ref() == Some(&next) {
            return Ok(());
        }
        next.at = self.now();
        let mut tx = Tx::new();
        if let Some(event) = history::event(instance, old.as_ref(), &next, next.at) {
            tx.put(&event);
        }
        // A record that was removed meanwhile must not come back through its status.
        tx.expect_exists::<Instance>(&instance.meta.id.to_string());
        tx.put(&next);
        match self.store.commit(tx).await {
            Ok(_) | Err(store::Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes what was seen, and that it was started just before. That nothing is here of what nobody has seen yet needs no
    /// record.
    async fn note_seen(
        &self,
        instance: &Instance,
        seen: &Seen,
        has_started: bool,
    ) -> Result<InstanceStatus, InstanceError> {
        let is_known = self.store.get::<InstanceStatus>(&instance.meta.id.to_string()).is_some();
        if is_known || *seen != Seen::Absent || has_started {
            let now = self.now();
            let change = |status: &mut InstanceStatus| {
                if has_started {
                    status::write_start(status, &self.host_boot);
                }
                status::write_seen(status, seen, &self.host_boot, now);
            };
            self.note(instance, change).await?;
        }
        Ok(self.status(instance))
    }

    /// Writes that a guest was started which nobody has seen since.
    async fn note_start(&self, instance: &Instance, has_started: bool) -> Result<(), InstanceError> {
        if !has_started {
            return Ok(());
        }
        self.note(instance, |status| status::write_start(status, &self.host_boot)).await
    }

    fn status(&self, instance: &Instance) -> InstanceStatus {
        let stored = self.store.get::<InstanceStatus>(&instance.meta.id.to_string());
        stored.map_or_else(|| status::fresh(instance.meta.id, self.node), |s| s.record.clone())
    }
}

fn wanted(instance: &Instance, status: &InstanceStatus) -> Wanted {
    Wanted {
        gone: instance.meta.is_deleting(),
        power: instance.power,
        sleeps: instance.suspended,
        boots: instance.boots,
        hard: instance.hard,
        autostart: instance.autostart || has_restarting_container(instance),
        restart: restart::policy(instance, status),
    }
}

/// A pod's containers have restart policies of their own: after a restart of the host it is the pod that must start,
/// for them to be kept.
fn has_restarting_container(instance: &Instance) -> bool {
    let restarts = |policy| matches!(policy, RestartPolicy::Always | RestartPolicy::UnlessStopped);
    instance.kind != Kind::Vm && instance.containers.iter().any(|c| restarts(c.restart))
}
