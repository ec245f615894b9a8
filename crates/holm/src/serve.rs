//! `holm serve`: the daemon. Opens the store, starts the node's loops and the doors, and stops in the reverse order.
//!
//! Stopping it stops no guest: what runs is found again by looking. Only when the machine goes down are guests asked to end.

mod autoscale;
mod backup;
mod config;
mod deployments;
mod finalizer;
mod heartbeat;
mod host;
mod identity;
mod listen;
mod openstack;
mod poweroff;
mod ready;
mod schedule;
mod streams;

pub use config::Options;
pub(crate) use identity::node_id;

use api::{
    auth::LocalAccess,
    server::{
        tls::{CertificateFiles, TlsServer},
        unix::{SocketAccess, UnixServer},
    },
};
use control::{Control, Role, bootstrap::Beginning};
use model::{id::NodeId, instance::Kind, seal::SealKey};
use node::{
    agent::{Agent, Parts},
    container::driver::{Machines, PodDriver, PodDriverConfig},
    driver::Driver,
    health::Health,
    host::HostFacts,
    image::{
        collect::COLLECT_EVERY,
        reconcile::{Images, RegistrySettings},
    },
    instance::{InstanceDirs, Instances, measure::Meter},
    network::{
        apply::Dataplane, directory_mirror::MirrorDirectory, dns_server::Upstream, gather::Gather,
        host_record, reconcile::Networks,
    },
    volume::Volumes,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use store::{Sqlite, Store};
use sys::netns::NetNs;
use tokio_util::sync::CancellationToken;

/// How often memory that was freed is given back to the system. Costs a millisecond each time.
const GIVE_BACK_PAUSE: Duration = Duration::from_secs(20);
/// What runs for the first time after this is not the start any more: by then all loops have looked at all that there is.
const START_LASTS: Duration = Duration::from_secs(5);
/// A burst of a thousand instances on two processors left the daemon with four times the memory when each thread had an
/// arena of its own, and was no slower with one for all.
const PROCESSORS_PER_ARENA: usize = 8;

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The store file.
    #[error(transparent)]
    Open(store::sqlite::OpenError),
    /// The store file is damaged, and where its copies are.
    #[error("{found}. {way_out}")]
    Damaged {
        /// What was found.
        found: store::sqlite::OpenError,
        /// What to do.
        way_out: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The first records could not be written.
    #[error("the cloud's first records could not be made")]
    Bootstrap(#[from] control::Error),
    /// A door.
    #[error(transparent)]
    Door(#[from] api::server::ServerError),
    /// A driver.
    #[error(transparent)]
    Driver(#[from] node::driver::DriverError),
    /// The volumes.
    #[error("the directory of volumes cannot be used")]
    Volumes(#[from] node::volume::VolumeError),
    /// Something of the host.
    #[error("{operation}: {source}")]
    Host {
        /// What was tried.
        operation: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The host lacks what holm needs.
    #[error("{0}")]
    Unfit(String),
}

pub(crate) fn host_error(operation: impl Into<String>) -> impl FnOnce(std::io::Error) -> ServeError {
    let operation = operation.into();
    move |source| ServeError::Host { operation, source }
}

/// The role `holm serve`: logs to standard error, says why it cannot run, and gives the exit code.
pub fn main(options: Options) -> std::process::ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_new(&options.log)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
    match run(options) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", node::instance::sentence(&error));
            std::process::ExitCode::FAILURE
        }
    }
}

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// What keeps it from running, with the way out in the text.
pub fn run(options: Options) -> Result<(), ServeError> {
    if !nix_is_root() {
        return Err(ServeError::Unfit("holm serve needs root: try `sudo holm serve`".into()));
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    sys::memory::limit_arenas(u8::try_from(processors / PROCESSORS_PER_ARENA).unwrap_or(u8::MAX));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("holm")
        .build()
        .map_err(host_error("start the runtime"))?;
    runtime.block_on(serve(options))
}

fn nix_is_root() -> bool {
    sys::process::effective_uid() == 0
}

async fn serve(options: Options) -> Result<(), ServeError> {
    let dirs = Dirs::make(&options)?;
    let engine = Arc::new(open_engine(&dirs.state)?);
    let store = Store::open(Arc::clone(&engine) as _, control::schema::schema()).await?;
    let seal_key = identity::seal_key(&dirs.state).map_err(host_error("read the key to what is sealed"))?;
    let control =
        Control::new(store.clone()).with_rules(options.openstack.rules()).with_seal_key(seal_key.clone());
    let control = control.with_host_directories(&options.host_directory);
    let node_id = identity::node_id(&dirs.state).map_err(host_error("read the node's id"))?;
    let beginning =
        Beginning { external_v4: options.external_v4, external_v6: options.external_v6.range(node_id) };
    control.bootstrap(&beginning).await?;
    openstack::begin(&control, &dirs).await?;
    control.join_node(node_id, &identity::host_name()).await?;
    // Builds live in the daemon's memory: what is here of one was cut off.
    control.sweep_builds().await?;
    let built = build(&options, &dirs, &store, (node_id, seal_key))?;
    let known = built.facts.clone();
    heartbeat::beat(&store, node_id, &dirs.state, &known).await?;
    let meter = Arc::new(Meter::new(store.clone(), Arc::clone(&built.instances)));
    let streams = streams::NodeStreams::new(
        Arc::clone(&built.instances),
        Arc::clone(&built.images),
        Arc::clone(&meter),
        store.clone(),
    );
    let instances = Arc::clone(&built.instances);
    let agent = Agent::start(built.parts).await;
    let stopping = CancellationToken::new();
    let doors = doors(&options, &dirs, &control, streams, &stopping).await?;
    let finalizer = tokio::spawn(finalizer::run(control.clone(), stopping.clone()));
    let scaled = tokio::spawn(autoscale::run(control.clone(), Arc::clone(&instances), stopping.clone()));
    let deployed = tokio::spawn(deployments::run(control.clone(), stopping.clone()));
    let copies = tokio::spawn(backup::run(engine, dirs.state.clone(), stopping.clone()));
    let heart =
        tokio::spawn(heartbeat::run(control.clone(), node_id, dirs.state.clone(), known, stopping.clone()));
    let measuring = stopping.clone();
    let measured = tokio::spawn(async move { meter.run(measuring).await });
    let clock = tokio::spawn(schedule::run(control.clone(), stopping.clone()));
    let tidy = tokio::spawn(give_back_memory(stopping.clone()));
    let bases = tokio::spawn(tidy_bases(built.pods, stopping.clone()));
    tracing::info!(socket = %options.socket().display(), "holm is ready");
    ready::ready();
    wait_for_signal().await.map_err(host_error("wait for signals"))?;
    let goes_down = poweroff::goes_down().await;
    match goes_down {
        true => tracing::info!("the machine goes down; guests are asked to end"),
        false => tracing::info!("stopping; guests go on"),
    }
    ready::stopping(if goes_down { instances.parting_max() } else { Duration::ZERO });
    stopping.cancel();
    for door in doors {
        let _ = door.await;
    }
    let _ = finalizer.await;
    let _ = deployed.await;
    let _ = scaled.await;
    let _ = clock.await;
    let _ = heart.await;
    let _ = copies.await;
    let _ = measured.await;
    let _ = tidy.await;
    let _ = bases.await;
    agent.stop().await;
    if goes_down {
        instances.part().await;
    }
    Ok(())
}

/// Gives back what the start took, and what bursts took, from time to time: two thirds of what a new daemon has. The start maps
/// most of the program, of which little is needed while nobody asks: that is let go of once.
async fn give_back_memory(stopping: CancellationToken) {
    let _ = tokio::task::spawn_blocking(sys::memory::give_back).await;
    tokio::select! {
        () = tokio::time::sleep(START_LASTS) => {}
        () = stopping.cancelled() => return,
    }
    let _ = tokio::task::spawn_blocking(sys::memory::let_go_of_program).await;
    loop {
        let _ = tokio::task::spawn_blocking(sys::memory::give_back).await;
        tokio::select! {
            () = tokio::time::sleep(GIVE_BACK_PAUSE) => {}
            () = stopping.cancelled() => return,
        }
    }
}

/// Removes disks of images that nobody needs, from time to time.
async fn tidy_bases(pods: PodDriver, stopping: CancellationToken) {
    loop {
        let pods = pods.clone();
        match tokio::task::spawn_blocking(move || pods.tidy()).await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(freed_bytes)) => {
                tracing::info!(freed_bytes, "disks of images that no pod needs were removed")
            }
            Ok(Err(error)) => tracing::warn!(
                error = node::instance::sentence(&error),
                "disks of images stay that no pod needs"
            ),
        }
        tokio::select! {
            () = tokio::time::sleep(COLLECT_EVERY) => {}
            () = stopping.cancelled() => return,
        }
    }
}

fn open_engine(state: &Path) -> Result<Sqlite, ServeError> {
    use store::sqlite::OpenError;
    let path = state.join("holm.db");
    tokio::task::block_in_place(|| Sqlite::open(&path, store::sqlite::Options::default())).map_err(|error| {
        match error {
            found @ OpenError::Corrupt { .. } => {
                ServeError::Damaged { found, way_out: backup::way_out(state, jiff::Timestamp::now()) }
            }
            other => ServeError::Open(other),
        }
    })
}

async fn doors(
    options: &Options,
    dirs: &Dirs,
    control: &Control,
    streams: streams::NodeStreams,
    stopping: &CancellationToken,
) -> Result<Vec<tokio::task::JoinHandle<()>>, ServeError> {
    let local = LocalAccess { own_uid: sys::process::effective_uid(), group_role: Role::Admin };
    let told = api::app::Doors {
        openstack: openstack::view(&options.openstack, dirs),
        image_server: options.image_server.map(|listen| listen.origin()),
    };
    let app = api::App::with_doors(control.clone(), Arc::new(streams), local, stopping.clone(), told);
    let docker =
        options.docker_socket().map(|path| (path, api::docker::router(api::docker::Door::new(app.clone()))));
    let mut router = api::v1::router(app.clone());
    if let Some((_, docker)) = &docker {
        // For the command line's docker verbs, and for those elsewhere with a token.
        router = router.nest_service("/docker", docker.clone());
    }
    let (mut doors, bounds) = (vec![], options.bounds());
    if let Some(listen) = options.image_server {
        let images = api::image_server::router(app.clone());
        doors.push(listen.open("image server for everybody", images, dirs, bounds, stopping)?);
    }
    doors.extend(openstack::open(&options.openstack, dirs, app, bounds, stopping)?);
    let gid = match &options.group {
        Some(name) => Some(identity::group_id(name).map_err(host_error(format!("find the group {name}")))?),
        None => None,
    };
    let unix = UnixServer::bind(&options.socket(), SocketAccess { gid }).await?;
    doors.push(tokio::spawn(unix.serve(router.clone(), stopping.clone())));
    if let Some((path, docker)) = docker {
        // As docker has it: its group's members, who here are root's where no group is named, may use it.
        let socket = UnixServer::bind(&path, SocketAccess { gid: gid.or(Some(0)) }).await?;
        tracing::info!(socket = %path.display(), "Docker Engine API");
        doors.push(tokio::spawn(socket.serve(docker, stopping.clone())));
    }
    if let Some(address) = options.listen {
        let files = CertificateFiles::in_directory(&dirs.state.join("tls"));
        files.ensure(&[identity::host_name(), "localhost".into(), address.ip().to_string()])?;
        let certificate = files.load()?;
        tracing::info!(%address, fingerprint = certificate.fingerprint, "API by TLS");
        let tls = TlsServer::bind(address, certificate)?.with_bounds(bounds);
        doors.push(tokio::spawn(tls.serve(router, stopping.clone())));
    }
    Ok(doors)
}

/// Directories of a daemon, made with tight modes.
struct Dirs {
    state: PathBuf,
    run: PathBuf,
}

impl Dirs {
    fn make(options: &Options) -> Result<Self, ServeError> {
        use std::os::unix::fs::DirBuilderExt;
        for dir in [options.state.clone(), options.run.clone(), options.state.join("instances")] {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o711);
            builder.create(&dir).map_err(host_error(format!("make {}", dir.display())))?;
        }
        Ok(Self { state: options.state.clone(), run: options.run.clone() })
    }
}

struct Built {
    parts: Parts,
    instances: Arc<Instances>,
    images: Arc<Images>,
    pods: PodDriver,
    facts: HostFacts,
}

fn build(
    options: &Options,
    dirs: &Dirs,
    store: &Store,
    (node, seal_key): (NodeId, SealKey),
) -> Result<Built, ServeError> {
    let host = NetNs::current().map_err(|e| ServeError::Unfit(e.to_string()))?;
    let dns_host = NetNs::current().map_err(|e| ServeError::Unfit(e.to_string()))?;
    let gather = Gather::new(store.clone(), node);
    let record = dirs.run.join(host_record::FILE_NAME);
    let settings = host_record::discover(&host, &options.prefix, &record)
        .map_err(|e| ServeError::Unfit(e.to_string()))?;
    let dataplane = Arc::new(Dataplane::new(&dirs.run.join("netns"), host, settings));
    let directory = Arc::new(MirrorDirectory::new(store.clone(), gather.clone()));
    let resolvers = Upstream::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let upstream = Upstream { host: Arc::new(dns_host), resolvers };
    let networks = Arc::new(Networks::new(Arc::clone(&dataplane), gather, directory, upstream));
    let registry = RegistrySettings {
        mirrors: options.mirrors(),
        insecure: options.insecure_registry.clone(),
        private: options.private_registry.clone(),
        web_hosts: options.image_host.clone(),
    };
    let images = Arc::new(
        Images::open(store.clone(), node, &dirs.state, registry)
            .map_err(host_error("open the image store"))?,
    );
    let volumes = Volumes::open(store.clone(), node, &dirs.state, images.disks().clone())?;
    let (drivers, pods, facts) = drivers(options, dirs)?;
    let instance_dirs = InstanceDirs {
        state: dirs.state.join("instances"),
        images: images.disks().images_dir().to_path_buf(),
        disks: node::volume::files::disks_dir(&dirs.state),
    };
    let boot = node::host::boot_id().map_err(host_error("read the host's boot id"))?;
    let layers = images.layers().clone();
    let wires = Arc::clone(&networks);
    let instances = Instances::new(store.clone(), node, instance_dirs, wires, layers, drivers.clone(), boot);
    let instances = instances.with_host_directories(options.host_directory.clone());
    let instances = Arc::new(instances.with_seal_key(seal_key));
    let parts = Parts {
        store: store.clone(),
        images: Arc::clone(&images),
        volumes: Arc::new(volumes),
        networks,
        dataplane,
        instances: Arc::clone(&instances),
        health: Arc::new(Health::new(store.clone(), node, drivers.clone())),
        drivers,
    };
    Ok(Built { parts, instances, images, pods, facts })
}

type Drivers = HashMap<Kind, Arc<dyn Driver>>;

fn drivers(options: &Options, dirs: &Dirs) -> Result<(Drivers, PodDriver, HostFacts), ServeError> {
    let program = std::env::current_exe().map_err(host_error("find holm's own program"))?;
    let (vms, mut facts) = host::vm_driver(options, &dirs.state, &dirs.run)?;
    let pods = PodDriver::new(PodDriverConfig {
        state: dirs.state.clone(),
        run: dirs.run.clone(),
        cgroup_root: options.prefix.clone(),
        program: Some(program),
        machines: Some(Machines { hardware: vms.hardware(), guest_kernel: options.guest_kernel.clone() }),
    });
    pods.sweep()?;
    if !facts.qemu.is_empty() {
        host::tell_overhead(&pods, &mut facts);
    }
    let mut drivers: Drivers = HashMap::new();
    let driver: Arc<dyn Driver> = Arc::new(pods.clone());
    drivers.insert(Kind::System, Arc::clone(&driver));
    drivers.insert(Kind::Container, driver);
    drivers.insert(Kind::Vm, if options.fake_vms { host::fake_driver() } else { Arc::new(vms) });
    Ok((drivers, pods, facts))
}

async fn wait_for_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
