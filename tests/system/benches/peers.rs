//! The engines that holm is measured beside: docker, podman and crun of Debian, unpacked and not installed, in namespaces,
//! control groups and directories of their own. All of it goes when it is dropped, or with the process that made it.

use lab::{Docker, Lab, Registry, until};
use nix::sched::{CloneFlags, setns, unshare};
use std::{
    fmt::Display,
    fs::{self, File},
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};
use sys::{netlink::Netlink, netns::NetNs};

const SCRIPT: &str = include_str!("peers.sh");
const PATIENCE: Duration = Duration::from_secs(60);
/// Port of their registry, on their own loopback; the lab's has the same.
pub const REGISTRY: u16 = 5000;
/// Control groups, and where those of other versions are.
const GROUPS: &str = "/sys/fs/cgroup";
/// Starts docker's engine and waits for it; `$0` is the directory of its data.
const DOCKERD: &str = r#"
(setsid dockerd --host "unix://$0/docker.sock" --data-root "$0/docker" --exec-root /run/docker --pidfile /run/docker.pid \
  --exec-opt native.cgroupdriver=cgroupfs --storage-driver overlay2 >"$0/dockerd.log" 2>&1 </dev/null &)
for n in $(seq 300); do
  if grep -q 'API listen on' "$0/dockerd.log"; then exit 0; fi
  sleep 0.1
done
grep -vE 'level=(info|warning)' "$0/dockerd.log" | tail -n 1 >&2
exit 1"#;
const VERSIONS: &str = "echo \"docker $(dockerd --version | sed 's/.*version \\([^,+]*\\).*/\\1/')\"
containerd --version | sed 's/^[^ ]* [^ ]* \\([^ ~+]*\\).*/containerd \\1/'
runc --version | sed -n 's/^runc version \\([^+]*\\).*/runc \\1/p'
podman --version | sed 's/ version//'
crun --version | sed -n 's/^crun version/crun/p'";

/// A duration, or why there is none.
pub type Took = Result<Duration, String>;

/// Where the engines of others run.
pub struct Peers {
    holder: Child,
    first: i32,
    network: NetNs,
    directory: PathBuf,
    group: String,
    /// Goes before what it runs in.
    registry: Option<Registry>,
    /// Docker's own client before docker's own engine.
    pub docker: Result<Docker, String>,
}

/// The last line of what was said, without what would end a column of a table.
fn reason(what: &str, said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    format!("{what}: {}", last.trim().replace('|', "/"))
}

fn words<T>(what: &str, result: Result<T, impl Display>) -> Result<T, String> {
    result.map_err(|error| reason(what, error.to_string().as_bytes()))
}

impl Peers {
    /// Makes the namespaces, a registry with the images `busybox`, `base` and `large`, and starts docker's engine.
    ///
    /// # Errors
    /// What this machine does not let them have.
    pub fn enter(lab: &Lab) -> Result<Self, String> {
        let network = words("network namespace", NetNs::anonymous())?;
        words("loopback", Netlink::open(&network).and_then(|netlink| netlink.set_up("lo")))?;
        let directory = lab.directory().join("peers");
        let group = format!("holm-peers-{}", lab.prefix());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child=KILL", "--propagation", "private"]);
        command.args(["bash", "-c", SCRIPT, "peers.sh"]);
        command.arg(lab.images.file("peers", "root")).arg(&directory).arg(&group);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::create(lab.directory().join("peers.log")).expect("log"));
        let holder = words("unshare", network.run(move || command.spawn()).and_then(|child| child))?;
        let docker = Err("not started".into());
        let mut peers = Self { holder, first: 0, network, directory, group, registry: None, docker };
        let note = peers.data().join("first");
        let first = until(PATIENCE, || fs::read_to_string(&note).ok()?.strip_suffix('\n')?.parse().ok());
        peers.first = first.ok_or_else(|| {
            reason(
                "namespaces of the peers",
                &fs::read(lab.directory().join("peers.log")).unwrap_or_default(),
            )
        })?;
        peers.registry =
            Some(Registry::start(&peers.network, &lab.directory().join("registry-of-peers"), REGISTRY));
        add_images(lab, peers.registry.as_ref().expect("just started"), &peers.network);
        let data = peers.data();
        let started = peers.run("bash", &["-c", DOCKERD, data.to_str().expect("a path of text")]);
        peers.docker = started.map(|_| Docker::beside(lab, &data.join("docker.sock")));
        Ok(peers)
    }

    /// A directory that is at the same path inside.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Names and versions.
    pub fn versions(&self) -> String {
        let output = self.inside(|| self.command("bash", &["-c", VERSIONS]).stdout(Stdio::piped()).output());
        let said = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().replace('\n', ", "));
        said.unwrap_or_default()
    }

    /// Works in their namespaces, in a thread of its own. What it starts is theirs; it can start no threads.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let namespaces = PathBuf::from(format!("/proc/{}/ns", self.first));
            let open = |name| File::open(namespaces.join(name)).expect("a namespace of the peers");
            let (cgroup, pid, mount) = (open("cgroup"), open("pid"), open("mnt"));
            // The directory and root of threads that share them cannot change.
            unshare(CloneFlags::CLONE_FS).expect("a directory of its own");
            setns(self.network.as_fd(), CloneFlags::CLONE_NEWNET).expect("network");
            setns(cgroup, CloneFlags::CLONE_NEWCGROUP).expect("control groups");
            setns(pid, CloneFlags::CLONE_NEWPID).expect("processes");
            setns(mount, CloneFlags::CLONE_NEWNS).expect("mounts");
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().expect("a peer"))
    }

    /// A command as it is to be started inside.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin").env("HOME", "/root");
        command.env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Runs a program that must succeed; how long it took.
    ///
    /// # Errors
    /// Its last words.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Took {
        self.inside(|| finish(self.command(program, arguments)))
    }

    /// Proportional memory of what runs beside the programs of containers, which are in namespaces of their own: in MiB.
    pub fn memory_mib(&self, of: &[&str]) -> f64 {
        let own = fs::read_link(format!("/proc/{}/ns/pid", self.first)).expect("a namespace");
        let is_theirs = |process: &Path| {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            of.iter().any(|of| name.starts_with(of))
                && fs::read_link(process.join("ns/pid")).is_ok_and(|namespace| namespace == own)
        };
        memory_mib(is_theirs)
    }
}

/// Proportional memory of the processes of which this holds, in MiB.
pub fn memory_mib(counts: impl Fn(&Path) -> bool) -> f64 {
    let mut kib = 0;
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        if !counts(&entry.path()) {
            continue;
        }
        let rollup = fs::read_to_string(entry.path().join("smaps_rollup")).unwrap_or_default();
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        kib += pss.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
    }
    kib as f64 / 1024.0
}

/// Brings the images that are pulled and built on into a registry.
pub fn add_images(lab: &Lab, registry: &Registry, network: &NetNs) {
    for name in ["base", "large"] {
        registry.push(network, &lab.images.file("bench", name), &format!("library/{name}"));
    }
}

/// Runs a command that must succeed; how long it took.
///
/// # Errors
/// Its last words.
pub fn finish(mut command: Command) -> Took {
    let began = Instant::now();
    let output = command.output();
    let took = began.elapsed();
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    ended(&name, output).map(|()| took)
}

/// Whether a program did what it was to do.
///
/// # Errors
/// Its last words.
pub fn ended(name: &str, output: io::Result<Output>) -> Result<(), String> {
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(reason(name, &output.stderr)),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.registry = None;
        // The kernel ends all that runs in it with its first process, which ends with its parent.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let trees = fs::read_dir(GROUPS).into_iter().flatten().flatten().map(|entry| entry.path());
        let groups: Vec<PathBuf> = trees
            .chain([PathBuf::from(GROUPS)])
            .map(|tree| tree.join(&self.group))
            .filter(|group| group.is_dir())
            .collect();
        let gone = until(PATIENCE, || groups.iter().all(|group| remove_group(group)).then_some(()));
        if gone.is_none() {
            eprintln!("control groups {} are left", self.group);
        }
    }
}

/// Removes a control group and those below it; false while there are processes.
fn remove_group(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_group(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}
