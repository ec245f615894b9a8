//! A lab: a world, a daemon in it, and all that must be gone afterwards.

use crate::{
    Cloud, Daemon, Images, Registry, Remains, World,
    remains::{DIRECTORY_PREFIX, Note, sweep_dead_labs},
    until,
};
use api::client::Client;
use model::instance::InstanceStatus;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};
use store::{
    Schema, Store, Tx,
    sqlite::{Options as StoreOptions, Sqlite},
};
use sys::netns::NetNs;
use tempfile::TempDir;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

/// Port of the registry, on loopback of the machine.
const REGISTRY_PORT: u16 = 5000;
const GONE_PATIENCE: Duration = Duration::from_secs(20);
const ROOT_SCRIPT: &str = include_str!("root.sh");
const READY_PATIENCE: Duration = Duration::from_secs(30);

/// What a lab has beside a daemon and a world.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A registry with the images `busybox` and `web`, standing in for docker.io.
    pub registry: bool,
    /// Further arguments of the daemon.
    pub arguments: Vec<String>,
    /// Room for the daemon's state; as much as the disk has when missing.
    pub state_bytes_max: Option<u64>,
    /// The files of another distribution, which holm is to find instead of this machine's.
    pub root: Option<PathBuf>,
}

/// A machine with holm on it and a world around it.
pub struct Lab {
    /// The world.
    pub world: World,
    /// Images to start from.
    pub images: Images,
    registry: Option<Registry>,
    daemon: Option<Daemon>,
    remains: Remains,
    arguments: Vec<String>,
    runtime: Arc<Runtime>,
    program: PathBuf,
    root: Option<PathBuf>,
    state: PathBuf,
    // The last to go.
    directory: TempDir,
    _note: Note,
}

impl Lab {
    /// A lab with a registry.
    ///
    /// # Panics
    /// When something of it cannot be made, as do all functions here.
    pub fn new() -> Self {
        Self::with(Options { registry: true, ..Options::default() })
    }

    /// A lab with these options, its daemon ready.
    pub fn with(options: Options) -> Self {
        let lab = Self::before_start(options);
        lab.started()
    }

    /// A lab whose daemon was not started yet.
    pub fn before_start(options: Options) -> Self {
        sweep_dead_labs();
        let directory = tempfile::Builder::new().prefix(DIRECTORY_PREFIX).tempdir().expect("directory");
        // QEMU and containers run under other users and come by here.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).expect("mode");
        let prefix = format!("t{:04x}", rand::random::<u16>());
        let remains = Remains::of(directory.path(), &prefix);
        let note = remains.note();
        let builder = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = Arc::new(builder.expect("runtime"));
        sweep_when_told(&runtime, remains.clone());
        let world = World::new();
        let state = directory.path().join("state");
        if let Some(bytes) = options.state_bytes_max {
            fs::create_dir(&state).expect("state");
            sys::mount::tmpfs(&state, bytes, 0o711).expect("a small file system");
        }
        let mut arguments: Vec<String> = [
            ("--state", state.to_string_lossy().as_ref()),
            ("--run", directory.path().join("run").to_string_lossy().as_ref()),
            ("--prefix", &prefix),
            ("--external-v6", "2001:db8:f::/64"),
            ("--log", "info,node=debug"),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_string(), value.to_string()])
        .collect();
        let registry = options.registry.then(|| {
            arguments
                .extend(["--registry-mirror".into(), format!("docker.io=http://127.0.0.1:{REGISTRY_PORT}")]);
            Registry::start(&world.machine, &directory.path().join("registry"), REGISTRY_PORT)
        });
        arguments.extend(options.arguments);
        Self {
            world,
            images: Images::find(),
            registry,
            daemon: None,
            remains,
            arguments,
            runtime,
            program: crate::program(),
            root: options.root,
            state,
            directory,
            _note: note,
        }
    }

    fn started(mut self) -> Self {
        self.start_daemon();
        self
    }

    /// The directory of everything.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The daemon's state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// What its names in the kernel begin with.
    pub fn prefix(&self) -> &str {
        self.remains.prefix()
    }

    /// The daemon's run directory.
    pub fn run(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// What holm has on the machine.
    pub fn remains(&self) -> &Remains {
        &self.remains
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        self.registry.as_ref().expect("a lab with a registry")
    }

    /// Ends the registry.
    pub fn stop_registry(&mut self) {
        self.registry = None;
    }

    /// Starts the registry again, or for the first time.
    pub fn start_registry(&mut self) {
        let directory = self.directory.path().join("registry");
        self.registry = Some(Registry::start(&self.world.machine, &directory, REGISTRY_PORT));
    }

    /// The daemon.
    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("a daemon that was started")
    }

    /// Kills the daemon without a word.
    pub fn kill_daemon(&mut self) {
        self.daemon.take().expect("a daemon that was started").kill();
    }

    /// Starts the daemon and waits until it answers.
    pub fn start_daemon(&mut self) {
        self.launch_daemon();
        let client = self.client();
        let daemon = self.daemon.as_mut().expect("just started");
        let runtime = Arc::clone(&self.runtime);
        let answers = until(READY_PATIENCE, || {
            if let Some(status) = daemon.ended() {
                panic!("holm ended with {status}:\n{}", daemon.log_end());
            }
            runtime.block_on(client.version()).ok()
        });
        assert!(answers.is_some(), "holm does not answer:\n{}", daemon.log_end());
    }

    /// The machine loses its power and comes back: what ran is gone, and what did not lie on disk.
    ///
    /// The machine's boot id cannot be changed for one program alone, so the records are made to name another boot.
    pub fn power_cut(&mut self) {
        self.kill_daemon();
        let had_registry = self.registry.take().is_some();
        self.remains.sweep();
        let run = self.run();
        fs::remove_dir_all(&run).expect("what does not lie on disk");
        self.runtime.block_on(name_another_boot(&self.state.join("holm.db")));
        if had_registry {
            self.start_registry();
        }
        self.start_daemon();
    }

    /// Runs the command line as the machine's root would, in a project.
    pub fn holm(&self, project: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(crate::program());
        command.args(arguments).env("HOLM_SOCKET", self.socket()).env("HOLM_PROJECT", project);
        // Host keys and the like are kept here.
        command.env("HOME", self.directory.path()).env_remove("XDG_STATE_HOME").env_remove("XDG_DATA_HOME");
        command.stdin(std::process::Stdio::null());
        command
    }

    /// Starts the daemon and does not wait.
    pub fn launch_daemon(&mut self) {
        let log = self.directory.path().join("daemon.log");
        self.daemon = Some(Daemon::start(&self.world.machine, self.serve(), &log));
    }

    /// A second daemon with the same arguments.
    pub fn second_daemon(&self) -> Daemon {
        let log = self.directory.path().join("second.log");
        Daemon::start(&self.world.machine, self.serve(), &log)
    }

    /// The next daemon runs from this file, as after an upgrade.
    pub fn set_program(&mut self, program: PathBuf) {
        self.program = program;
    }

    fn serve(&self) -> Command {
        let mut command = match &self.root {
            None => Command::new(&self.program),
            Some(root) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "--propagation", "private", "sh", "-c", ROOT_SCRIPT, "root.sh"]);
                command.arg(root).arg(self.directory.path()).arg(&self.program);
                command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
                command
            }
        };
        command.arg("serve").args(&self.arguments);
        command
    }

    /// Changes an argument of the next daemon that is started.
    pub fn set_argument(&mut self, name: &str, value: &str) {
        match self.arguments.iter().position(|argument| argument == name) {
            Some(place) => self.arguments[place + 1] = value.into(),
            None => self.arguments.extend([name.into(), value.into()]),
        }
    }

    /// The local socket.
    pub fn socket(&self) -> PathBuf {
        self.run().join("holm.sock")
    }

    /// A client as the machine's root, who is admin.
    pub fn client(&self) -> Client {
        Client::unix(self.socket())
    }

    /// A project of this name, made if need be, and all that one does in it.
    pub fn project(&self, name: &str) -> Cloud {
        Cloud::enter(self, Arc::clone(&self.runtime), name)
    }

    /// A namespace of the daemon's by the name of its handle, like `n-…`.
    pub fn namespace(&self, handle: &str) -> NetNs {
        NetNs::open(&self.run().join("netns").join(handle)).expect(handle)
    }

    /// The private key of the tests; the public one is beside it.
    pub fn key(&self) -> PathBuf {
        let path = self.directory.path().join("key");
        if !path.exists() {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"]).arg(&path);
            assert!(keygen.status().expect("ssh-keygen").success(), "ssh-keygen");
        }
        path
    }

    /// Proves that no instance left anything: no process, control group, mount, file, device or route.
    pub fn assert_no_instances(&self) {
        let own = [self.daemon.as_ref().map(Daemon::pid), i32::try_from(std::process::id()).ok()];
        let strangers = || {
            let all = self.remains.processes().into_iter();
            // The last of them is the daemon's as long as that lives.
            let harmless = |arguments: &str| {
                ["docker-registry", "/ssh-", "holm nursery "].iter().any(|word| arguments.contains(word))
            };
            all.filter(|(pid, arguments)| !own.contains(&Some(*pid)) && !harmless(arguments))
                .collect::<Vec<_>>()
        };
        // One look decides: a program that the daemon starts has the daemon's arguments for a moment.
        let mut seen = vec![];
        until(GONE_PATIENCE, || {
            seen = strangers();
            seen.is_empty().then_some(())
        });
        assert_eq!(seen, [], "processes");
        assert_eq!(self.remains.control_groups(), [] as [&str; 0], "control groups");
        for (directory, what) in [
            (self.state.join("instances"), "state of VMs"),
            (self.state.join("pods"), "state of pods"),
            (self.run().join("instances"), "run files of VMs"),
            (self.run().join("pods"), "run files of pods"),
        ] {
            assert_eq!(names_in(&directory), [] as [&str; 0], "{what} in {}", directory.display());
        }
        // What was deleted a moment ago is still on its way out.
        let (mut volumes, mut disks) = (vec![], vec![]);
        until(GONE_PATIENCE, || {
            volumes = names_in(&self.state.join("volumes"));
            disks = names_in(&self.state.join("volumes").join("disks"));
            (volumes == ["disks"] && disks.is_empty()).then_some(())
        });
        assert_eq!(volumes, ["disks"], "volumes of pods");
        assert_eq!(disks, [] as [&str; 0], "disks in {}", self.state.display());
        // Namespaces that are mounted on another distribution's files alone cannot be looked into from here.
        let handles = if self.root.is_none() { names_in(&self.run().join("netns")) } else { vec![] };
        assert!(!handles.iter().any(|name| name.starts_with("i-")), "namespaces of pods: {handles:?}");
        for handle in handles.iter().filter(|name| name.starts_with("n-")) {
            let path = self.run().join("netns").join(handle);
            crate::eventually(&format!("no devices of ports in {handle}"), GONE_PATIENCE, || {
                let Ok(namespace) = NetNs::open(&path) else { return !path.exists() };
                let netlink = sys::netlink::Netlink::open(&namespace).expect("netlink");
                !netlink.links().expect("links").iter().any(|link| link.name.starts_with(['p', 'c']))
            });
        }
        let other: Vec<PathBuf> = self
            .remains
            .mounts()
            .into_iter()
            .filter(|mount| *mount != self.state && !mount.starts_with(self.run().join("netns")))
            .collect();
        assert!(other.is_empty(), "mounts: {other:?}");
    }

    /// Ends a test that passed: no instance left anything, and the daemon stops when asked.
    pub fn finish(mut self) {
        self.assert_no_instances();
        let status = self.daemon().stop();
        assert!(status.success(), "holm ended with {status}");
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.daemon.as_ref().map(Daemon::log_end).unwrap_or_default();
            eprintln!("--- end of the daemon's log ---\n{log}\n---");
        }
        self.registry = None;
        self.daemon = None;
        self.remains.sweep();
    }
}

/// A run that is told to end leaves nothing either.
fn sweep_when_told(runtime: &Runtime, remains: Remains) {
    let _entered = runtime.enter();
    let told = [SignalKind::terminate(), SignalKind::interrupt()]
        .map(|kind| (kind, signal(kind).expect("a signal to listen to")));
    for (kind, mut told) in told {
        let remains = remains.clone();
        runtime.spawn(async move {
            told.recv().await;
            tokio::task::block_in_place(|| remains.sweep_all());
            std::process::exit(128 + kind.as_raw_value());
        });
    }
}

async fn name_another_boot(path: &Path) {
    let engine = Sqlite::open(path, StoreOptions::default()).expect("the store's file");
    let schema = Schema::new().table::<InstanceStatus>();
    let store = Store::open(Arc::new(engine), schema).await.expect("the store");
    let mut tx = Tx::new();
    for status in store.list::<InstanceStatus>() {
        tx.put(&InstanceStatus { host_boot: "another".into(), ..status.record.clone() });
    }
    store.commit(tx).await.expect("a commit");
}

/// Names of what is in a directory; none when it is not there.
fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
