//! The driver for pods: makes their networks, starts their shims, and finds everything again by looking.
//!
//! ```text
//!   <state>/pods/<id>/   pod.json   what the shim runs        logs/<container>.log   shim.log
//!   <run>/pods/<id>/     shim.sock  state.json  shim.lock     nics.json   hosts …   files/<set>/   secrets.json
//!   <run>/netns/i-<id>   the pod's network namespace          <root>/i-<id>   its cgroup
//! ```
//!
//! Beside that lies what the machine is made of in which the files of a stopped pod are worked on ([`maintenance`]).
//!
//! Nothing is remembered: an observation asks the shim, and where none answers reads what it wrote last and looks into
//! the cgroup. Processes without a shim have lost their streams, log and exit codes; they are killed and told as such.

mod attach;
mod card;
pub(super) mod content;
mod dial;
mod files;
mod machine;
pub(super) mod maintenance;
mod nursery;
mod observe;
pub(super) mod processes;
mod streams;

pub use machine::Machines;
use nursery::Nursery;

use super::{
    bundle::{self, Places, Pod},
    cgroup::PodGroup,
    client::Client,
    files::{OpenFiles, turn::Turns},
    machine::base::Bases,
    network::{self, NICS},
    protocol::{POD, Reply, Request},
    root_disk, secret,
};
use crate::{
    driver::{
        AttachRequest, Dialed, DiskTraffic, Driver, DriverError, ExecHandle, ExecRequest, LogLine, LogQuery,
        Place, ProcessSeen, Seen, Stdio, Stream, Usage,
    },
    image::tree_removal::remove_tree,
};
use async_trait::async_trait;
use model::{
    id::{InstanceId, PortId, VolumeId},
    instance::Grant,
    plan::{Body, DiskPlan, IdRange, InstancePlan, NicPlan},
};
use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use sys::{cgroup::Tree, netlink::Netlink, netns::NetNs};
use tokio::sync::{Mutex, broadcast};

/// How long a shim may take to have its pod up.
const START_TIMEOUT: Duration = Duration::from_secs(175);
/// Changes that wait for a slow reader before it misses some and has to look at all.
const CHANGES_MAX: usize = 1024;
/// Most bytes of a shim's complaint that are told.
const COMPLAINT_BYTES_MAX: u64 = 4096;

/// Where a driver keeps its things, and how it starts a shim.
#[derive(Debug, Clone)]
pub struct PodDriverConfig {
    /// Directory that survives a restart of the host.
    pub state: PathBuf,
    /// Directory that does not.
    pub run: PathBuf,
    /// Name of the tree of cgroups.
    pub cgroup_root: String,
    /// holm itself, which shims and the first process of machines are; `None` where nothing is started.
    pub program: Option<PathBuf>,
    /// What pods with a machine of their own run in; `None` where there are none.
    pub machines: Option<Machines>,
}

/// Runs pods on this host.
#[derive(Debug, Clone)]
pub struct PodDriver {
    config: Arc<PodDriverConfig>,
    nursery: Arc<Nursery>,
    changes: broadcast::Sender<InstanceId>,
    /// Pods whose shims are being watched for changes.
    watched: Arc<Mutex<std::collections::HashSet<InstanceId>>>,
    early: Arc<attach::Early>,
    /// Who looks into the files of pods.
    turns: Arc<Turns>,
    /// Images as disks.
    bases: Arc<Bases>,
    /// Places for work on files of pods that do not run.
    allotment: Arc<maintenance::place::Allotment>,
}

/// Turns an error of a step into one of the driver.
fn io_error(operation: impl Into<String>) -> impl FnOnce(io::Error) -> DriverError {
    move |source| DriverError::Io { operation: operation.into(), source }
}

/// Runs blocking work beside the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DriverError> + Send + 'static,
) -> Result<T, DriverError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(DriverError::Io { operation: "run a step".into(), source: io::Error::other(error) })
    })
}

impl PodDriver {
    /// A driver over these directories. Pods that run already are found by [`Driver::list`] and observing.
    pub fn new(config: PodDriverConfig) -> Self {
        Self {
            bases: Arc::new(Bases::new(&config.state)),
            nursery: Arc::new(Nursery::new(config.program.clone(), &config.state)),
            config: Arc::new(config),
            changes: broadcast::channel(CHANGES_MAX).0,
            watched: Arc::default(),
            early: Arc::default(),
            turns: Arc::default(),
            allotment: Arc::default(),
        }
    }

    /// Where things of a pod are.
    pub fn places(&self, id: InstanceId) -> Places {
        let config = &self.config;
        Places {
            state: config.state.join("pods").join(id.to_string()),
            run: config.run.join("pods").join(id.hex()),
            netns: config.run.join("netns").join(network::pod_handle_name(id)),
            cgroup_root: config.cgroup_root.clone(),
            cgroup: format!("i-{}", id.hex()),
        }
    }

    /// What a running pod uses.
    pub async fn stats(&self, id: InstanceId) -> Result<sys::cgroup::Stats, DriverError> {
        let places = self.places(id);
        blocking(move || {
            let group = PodGroup::open(&places).map_err(io_error("look at the cgroups"))?;
            group.stats().map_err(|_| DriverError::NotRunning)
        })
        .await
    }

    /// Changes the limits of a running pod; its containers go on.
    pub async fn set_limits(&self, id: InstanceId, limits: bundle::Limits) -> Result<(), DriverError> {
        self.ask(id, Request::Limits { limits }).await.map(|_| ())
    }

    /// Stops containers that are running, or starts those that have ended: one by name, or all.
    pub async fn ask_container(&self, id: InstanceId, request: Request) -> Result<(), DriverError> {
        self.ask(id, request).await.map(|_| ())
    }

    async fn ask(&self, id: InstanceId, request: Request) -> Result<Reply, DriverError> {
        let run = self.places(id).run;
        blocking(move || ask(&run, &request)).await
    }

    /// Asks, and takes a pod that is not there for one that is ended already.
    async fn ask_if_running(&self, id: InstanceId, request: Request) -> Result<(), DriverError> {
        match self.ask(id, request).await {
            Ok(_) | Err(DriverError::NotRunning) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Asks the shim of a pod; a refusal becomes an error.
fn ask(run: &Path, request: &Request) -> Result<Reply, DriverError> {
    let mut client = connect(run)?;
    answer(client.ask(request, &[]))
}

fn connect(run: &Path) -> Result<Client, DriverError> {
    Client::connect(run).map_err(io_error("connect to the shim"))?.ok_or(DriverError::NotRunning)
}

fn answer(reply: io::Result<Reply>) -> Result<Reply, DriverError> {
    match reply {
        Ok(Reply::Failed { message, .. }) => {
            Err(DriverError::Refused { operation: "ask the shim".into(), answer: message })
        }
        Ok(reply) => Ok(reply),
        // It ended while it was asked.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(DriverError::NotRunning),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Err(DriverError::Timeout {
                what: "the shim".into(),
                after_ms: super::client::ANSWER_TIMEOUT.as_millis() as u64,
            })
        }
        Err(error) => Err(io_error("ask the shim")(error)),
    }
}

/// Writes what the shim needs, and what the pod stands on: its network, or its machine.
fn prepare(
    driver: &PodDriver,
    plan: &InstancePlan,
    pod: &mut Pod,
    offer: Option<machine::Offer>,
) -> Result<(), DriverError> {
    match offer {
        Some(_) => root_disk::make_for_machine(pod)?,
        None => root_disk::make(pod)?,
    }
    let places = pod.places.clone();
    prepare_directories(&places)?;
    pod.machine = offer.map(|offer| driver.furnish(plan, pod, offer)).transpose()?;
    write_json(&places.state.join(POD), pod)?;
    secret::write(pod).map_err(io_error("write the secret variables"))?;
    if let Body::Pod(body) = &plan.body {
        content::write(&places, &body.files)
            .map_err(io_error("write the files that containers are shown"))?;
    }
    observe::forget_last_run(&places).map_err(io_error("forget the last run"))?;
    write_json(&places.run.join(NICS), &plan.nics)?;
    let volumes: Vec<VolumeId> = plan.disks.iter().map(|disk| disk.volume).collect();
    write_json(&places.run.join(observe::VOLUMES), &volumes)?;
    if pod.machine.is_some() {
        return Ok(());
    }
    let namespace = network::create(&places.netns, plan.id_range)
        .map_err(io_error("make the pod's network namespace"))?;
    if pod.is_system() {
        let inside = Netlink::open(&namespace).map_err(std::io::Error::from);
        inside
            .and_then(|inside| network::forget(&inside, &plan.nics))
            .map_err(io_error("forget what its last boot set"))?;
    }
    for (number, nic) in plan.nics.iter().enumerate() {
        network::plug(&namespace, nic, number).map_err(io_error(format!("plug in port {}", nic.port)))?;
    }
    Ok(())
}

/// Makes the directories of a pod, into which only root may look.
fn prepare_directories(places: &Places) -> Result<(), DriverError> {
    for directory in [&places.state, &places.run, &places.state.join("logs")] {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(io_error(format!("create {}", directory.display())))?;
    }
    Ok(())
}

/// Replaces a file whole, also if the host crashes.
fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), DriverError> {
    let text = serde_json::to_vec_pretty(value).map_err(io::Error::from);
    text.and_then(|text| Ok(sys::file::write_atomic(path, &text, 0o600)?))
        .map_err(io_error(format!("write {}", path.display())))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn remove_directory(path: &Path) -> Result<(), DriverError> {
    // Containers write into some of these, as deep as they like.
    remove_tree(path).map_err(io_error(format!("remove {}", path.display())))
}

/// Ends the shim and all processes, then removes everything of the pod.
fn destroy(places: &Places) -> Result<(), DriverError> {
    observe::end(places)?;
    let pod: Option<Pod> = read_json(&places.state.join(POD));
    NetNs::delete(&places.netns)
        .map_err(|error| io_error("delete the pod's network namespace")(error.into()))?;
    for container in pod.iter().flat_map(|pod| &pod.containers) {
        remove_directory(&container.upper)?;
    }
    if let Some(disk) = pod.as_ref().and_then(|pod| pod.root_disk.as_ref()) {
        root_disk::remove(disk)?;
    }
    remove_directory(&places.run)?;
    remove_directory(&places.state)
}

#[async_trait]
impl Driver for PodDriver {
    async fn observe(&self, id: InstanceId) -> Result<Seen, DriverError> {
        let places = self.places(id);
        let seen = blocking(move || observe::observe(&places)).await?;
        if matches!(seen, Seen::Running(_) | Seen::Paused(_)) {
            self.watch(id).await;
        }
        Ok(seen)
    }

    async fn list(&self) -> Result<Vec<InstanceId>, DriverError> {
        let run = &self.config.run;
        let directories =
            [self.config.state.join("pods"), run.join("pods"), run.join("netns"), self.maintenance_runs()];
        blocking(move || {
            let mut ids: Vec<InstanceId> = Vec::new();
            for directory in directories {
                let Ok(entries) = fs::read_dir(&directory) else {
                    continue;
                };
                let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
                // Handles of networks' namespaces, which lie beside those of pods, have other first letters.
                let names = names.map(|name| name.strip_prefix("i-").map(String::from).unwrap_or(name));
                ids.extend(names.filter_map(|name| name.parse::<InstanceId>().ok()));
            }
            ids.sort();
            ids.dedup();
            Ok(ids)
        })
        .await
    }

    async fn make_room(&self, id: InstanceId, ids: IdRange) -> Result<(), DriverError> {
        let netns = self.places(id).netns;
        blocking(move || {
            network::create(&netns, ids).map(drop).map_err(io_error("make the pod's network namespace"))
        })
        .await
    }

    async fn start(&self, plan: &InstancePlan) -> Result<(), DriverError> {
        let places = self.places(plan.id);
        let pod = bundle::bundle(plan, places.clone()).map_err(|error| DriverError::Unsupported {
            what: describe(&error),
            hint: "change the request".into(),
        })?;
        let cgroup_root = places.cgroup_root.clone();
        // Beside all that comes before the first process is put into its group.
        tokio::task::spawn_blocking(move || {
            let foretold = Tree::probe(&cgroup_root).and_then(|tree| tree.foretell());
            foretold
                .unwrap_or_else(|error| tracing::debug!(%error, "the kernel was not told of moves to come"));
        });
        let offer = self.offer(plan).await?;
        // Its files, and the disk that they are on, are mounted by one at a time.
        let _alone = self.turns.alone(plan.id).await;
        let (owned, at, mut pod, driver) = (plan.clone(), places.clone(), pod, self.clone());
        let resting = self.maintenance_places(plan.id);
        let runs = blocking(move || {
            let seen = observe::observe(&at)?;
            if matches!(seen, Seen::Running(_) | Seen::Paused(_)) {
                return Ok(true);
            }
            maintenance::end(&resting)?;
            prepare(&driver, &owned, &mut pod, offer)?;
            Ok(false)
        })
        .await?;
        if !runs {
            let first = self.early.hand_over(plan.id)?;
            self.nursery.start_shim(places.state, first).await?;
        }
        self.join_late(plan.id).await;
        self.watch(plan.id).await;
        Ok(())
    }

    async fn shutdown(&self, id: InstanceId) -> Result<(), DriverError> {
        self.ask_if_running(id, Request::Stop { container: None, grace_ms: None }).await
    }

    async fn kill(&self, id: InstanceId) -> Result<(), DriverError> {
        let places = self.places(id);
        blocking(move || observe::end(&places)).await
    }

    async fn renew(
        &self,
        id: InstanceId,
        container: &str,
        since_ms: i64,
        grace_ms: u64,
    ) -> Result<(), DriverError> {
        let container = container.to_string();
        self.ask_if_running(id, Request::Renew { container, since_ms, grace_ms }).await
    }

    async fn dial(&self, id: InstanceId, port: u16, limit: Duration) -> Result<Dialed, DriverError> {
        dial::dial(self.places(id), port, limit).await
    }

    async fn pause(&self, id: InstanceId) -> Result<(), DriverError> {
        self.ask(id, Request::Pause).await.map(|_| ())
    }

    async fn resume(&self, id: InstanceId) -> Result<(), DriverError> {
        self.ask(id, Request::Resume).await.map(|_| ())
    }

    async fn destroy(&self, id: InstanceId) -> Result<(), DriverError> {
        self.early.forget(id);
        let _alone = self.turns.alone(id).await;
        let (places, bases) = (self.places(id), Arc::clone(&self.bases));
        let resting = self.maintenance_places(id);
        blocking(move || {
            let was_last = machine::of(&places).is_some() || resting.state.exists();
            maintenance::end(&resting)?;
            destroy(&places)?;
            // What it had of an image may be of no use any more; if that cannot be told now, it is later.
            if was_last && let Err(error) = bases.collect(SystemTime::now()) {
                tracing::warn!(%id, error = describe(&error), "disks of images stay that nobody needs");
            }
            Ok(())
        })
        .await
    }

    async fn resize(&self, plan: &InstancePlan, has: Grant) -> Result<Grant, DriverError> {
        if plan.is_pod_in_machine() {
            return self.resize_inside(plan, has).await;
        }
        let limits = bundle::limits(plan);
        match self.set_limits(plan.id, limits).await {
            Ok(()) => Ok(plan.grant()),
            Err(DriverError::Refused { answer, .. }) if has.disk_gib != plan.grant().disk_gib => {
                // Not every host may let a mounted file system grow; the rest of the size is taken nevertheless.
                tracing::info!(id = %plan.id, %answer, "its disk grows at the next start");
                let disk_bytes = Some(has.disk_gib << 30);
                self.set_limits(plan.id, bundle::Limits { disk_bytes, ..limits }).await?;
                Ok(Grant { disk_gib: has.disk_gib, ..plan.grant() })
            }
            Err(error) => Err(error),
        }
    }

    async fn attach_nic(&self, id: InstanceId, nic: &NicPlan) -> Result<(), DriverError> {
        self.plug_in(id, nic).await
    }

    async fn detach_nic(&self, id: InstanceId, port: PortId) -> Result<(), DriverError> {
        self.plug_out(id, port).await
    }

    async fn attach_disk(&self, _: InstanceId, disk: &DiskPlan) -> Result<(), DriverError> {
        Err(unsupported_disk(disk.volume))
    }

    async fn detach_disk(&self, _: InstanceId, volume: VolumeId) -> Result<(), DriverError> {
        Err(unsupported_disk(volume))
    }

    async fn attached(&self, id: InstanceId) -> Result<(Vec<PortId>, Vec<VolumeId>), DriverError> {
        let places = self.places(id);
        blocking(move || {
            let nics: Vec<NicPlan> = read_json(&places.run.join(NICS)).unwrap_or_default();
            if machine::of(&places).is_some() {
                return Ok((nics.iter().map(|nic| nic.port).collect(), observe::volumes(&places)));
            }
            let Ok(namespace) = NetNs::open(&places.netns) else {
                return Ok((Vec::new(), Vec::new()));
            };
            let mut ports = Vec::new();
            for nic in nics {
                if network::plugged(&namespace, &nic)
                    .map_err(io_error("look at the pod's network"))?
                    .is_some()
                {
                    ports.push(nic.port);
                }
            }
            Ok((ports, observe::volumes(&places)))
        })
        .await
    }

    async fn console_log(&self, id: InstanceId, bytes_max: usize) -> Result<Vec<u8>, DriverError> {
        self.log_tail(id, bytes_max).await
    }

    async fn console(&self, id: InstanceId) -> Result<Stream, DriverError> {
        self.attach_terminal(id).await
    }

    async fn vnc(&self, _: InstanceId) -> Result<Stream, DriverError> {
        Err(DriverError::Unsupported {
            what: "a container has no graphical console".into(),
            hint: "use the console or exec".into(),
        })
    }

    async fn logs(
        &self,
        id: InstanceId,
        query: &LogQuery,
    ) -> Result<tokio::sync::mpsc::Receiver<LogLine>, DriverError> {
        self.read_log(id, query).await
    }

    async fn exec(
        &self,
        id: InstanceId,
        request: &ExecRequest,
        stdio: Stdio,
    ) -> Result<Box<dyn ExecHandle>, DriverError> {
        self.run_beside(id, request, stdio).await
    }

    async fn attach(
        &self,
        id: InstanceId,
        request: &AttachRequest,
        stdio: [OwnedFd; 3],
    ) -> Result<Place, DriverError> {
        self.attach_streams(id, request, stdio).await
    }

    async fn resize_terminal(&self, id: InstanceId, rows: u16, columns: u16) -> Result<(), DriverError> {
        self.ask(id, Request::Resize { container: None, rows, columns }).await.map(|_| ())
    }

    async fn signal(&self, id: InstanceId, signal: i32) -> Result<(), DriverError> {
        self.ask(id, Request::Kill { container: None, signal }).await.map(|_| ())
    }

    async fn usage(&self, id: InstanceId) -> Result<Usage, DriverError> {
        let places = self.places(id);
        let is_inside = blocking(move || Ok(machine::of(&places).is_some())).await?;
        if is_inside { self.usage_inside(id).await } else { Ok(self.stats(id).await?.into()) }
    }

    async fn disk_traffic(&self, id: InstanceId) -> Result<Option<DiskTraffic>, DriverError> {
        let places = self.places(id);
        let look = move || {
            if machine::of(&places).is_some() {
                return Ok(Err(places.run));
            }
            let group = PodGroup::open(&places).map_err(io_error("look at the cgroups"))?;
            group.disk_traffic().map(Ok).map_err(io_error("look at what the pod's disks did"))
        };
        match blocking(look).await? {
            Ok(seen) => Ok(seen.map(DiskTraffic::from)),
            Err(run) => machine::disk_traffic(&run).await,
        }
    }

    async fn processes(&self, id: InstanceId) -> Result<Vec<ProcessSeen>, DriverError> {
        let places = self.places(id);
        let look =
            move || if machine::of(&places).is_some() { Ok(None) } else { processes::of(&places).map(Some) };
        match blocking(look).await? {
            Some(processes) => Ok(processes),
            None => self.processes_inside(id).await,
        }
    }

    async fn files(&self, plan: &InstancePlan) -> Result<OpenFiles, DriverError> {
        self.open_files(plan).await
    }

    async fn lent(&self, id: InstanceId) -> Result<Vec<VolumeId>, DriverError> {
        self.lent_volumes(id).await
    }

    fn changes(&self) -> broadcast::Receiver<InstanceId> {
        self.changes.subscribe()
    }
}

fn unsupported_disk(volume: VolumeId) -> DriverError {
    DriverError::Unsupported {
        what: format!("volume {volume} cannot be changed while the pod runs"),
        hint: "stop the pod first".into(),
    }
}

/// An error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}
