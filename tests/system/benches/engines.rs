//! What engines of containers are asked for every day, of holm beside docker and podman: builds, pulls, crowds.
//!
//! holm and docker are asked by the same client, docker's own; podman has none to ask.

use crate::{
    peers::{Peers, REGISTRY, Took, add_images, ended, finish, memory_mib},
    table::{Budget, Table, Times, took},
};
use lab::{Cloud, Docker, Lab};
use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Project of the clients.
const PROJECT: &str = "shop";
const BUILDS: usize = 10;
const PULLS: usize = 5;
const CROWDS: usize = 3;
/// Containers of a crowd.
const CROWD: usize = 100;
/// How long engines are left alone before their memory is measured.
const QUIET: Duration = Duration::from_secs(5);
/// Removes what runs, without asking it to end first.
const REMOVE: [&str; 2] = ["rm", "-f"];
/// Of a project with a crowd.
const ROOM: u64 = 1_000_000;
/// What is built, in a sentence.
pub const BUILD: &str =
    "eight steps on busybox, three RUN and two COPY among them, with 200 files of 16 KiB.";
/// Small files in the context of a build, and their size.
const FILES: usize = 200;
const FILE_BYTES: usize = 16 * 1024;
const DOCKERFILE: &str = "FROM 127.0.0.1:5000/library/base
WORKDIR /app
COPY parts/ ./parts/
RUN cat parts/* >whole
RUN sha256sum parts/* whole >sums
ENV MODE=fast
COPY main.sh .
RUN mkdir out && cp whole sums out/ && chmod 755 main.sh
CMD [\"./main.sh\"]
";

/// The name that all engines know an image of the registry by.
fn image(name: &str) -> String {
    format!("127.0.0.1:{REGISTRY}/library/{name}")
}

/// An own client before holm, which must succeed.
fn ours(docker: &Docker, arguments: &[&str]) -> Duration {
    quiet(docker.command(arguments)).unwrap_or_else(|reason| panic!("holm: {arguments:?}: {reason}"))
}

/// A client that need not succeed, with its output thrown away.
fn quiet(mut command: Command) -> Took {
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    finish(command)
}

/// Docker's client before docker's engine.
fn docker(peers: Result<&Peers, &String>, arguments: &[&str]) -> Took {
    quiet(peers?.docker.as_ref()?.command(arguments))
}

fn podman(peers: Result<&Peers, &String>, arguments: &[&str]) -> Took {
    peers?.run("podman", arguments)
}

/// Brings the small image to all of them.
pub fn warm(lab: &Lab, peers: Result<&Peers, &String>) {
    let pull = ["pull", &*image("base")];
    ours(&Docker::find(lab, PROJECT), &pull);
    // What has none says so in its rows.
    let _ = (docker(peers, &pull), podman(peers, &pull));
}

/// `run --rm` of a small image by the same client as docker's, and by each engine with its network.
pub fn starts(
    table: &mut Table,
    lab: &Lab,
    peers: Result<&Peers, &String>,
    rounds: usize,
    holm: impl FnMut() -> Duration,
) {
    let (name, client) = (image("base"), Docker::with_buildx(lab, PROJECT));
    let run = ["run", "--rm", &name, "true"];
    let what = "`holm run --rm` of an image that is here";
    table.beside(
        what,
        rounds,
        Budget::AtMost(0.34),
        holm,
        &mut [("docker", &mut || docker(peers, &run)), ("podman", &mut || podman(peers, &run))],
    );
    let what = "`docker run --rm` of an image that is here";
    table.beside(
        what,
        rounds,
        Budget::None,
        || ours(&client, &run),
        &mut [("docker", &mut || docker(peers, &run))],
    );
}

/// A Dockerfile of eight steps, without and with what was built before.
pub fn builds(table: &mut Table, lab: &Lab, peers: Result<&Peers, &String>) {
    let client = Docker::with_buildx(lab, PROJECT);
    let context =
        context(peers.map_or_else(|_| lab.directory().join("context"), |peers| peers.data().join("context")));
    let context = context.to_str().expect("a path of text");
    for (what, option) in [("without a cache", "--no-cache"), ("all in the cache", "--pull=false")] {
        let build = ["build", option, "-t", "bench", context];
        table.beside(
            &format!("`docker build` of 8 steps, {what}"),
            BUILDS,
            Budget::None,
            || ours(&client, &build),
            &mut [
                ("docker (BuildKit)", &mut || docker(peers, &build)),
                ("podman", &mut || podman(peers, &build)),
            ],
        );
    }
}

fn context(directory: PathBuf) -> PathBuf {
    fs::create_dir_all(directory.join("parts")).expect("context");
    fs::write(directory.join("Dockerfile"), DOCKERFILE).expect("Dockerfile");
    fs::write(directory.join("main.sh"), "#!/bin/sh\ncat /app/sums\n").expect("program");
    for n in 0..FILES {
        let mut text = String::new();
        while text.len() < FILE_BYTES {
            let _ = writeln!(text, "line {} of file {n}", text.len());
        }
        fs::write(directory.join(format!("parts/{n}")), text).expect("file");
    }
    directory
}

/// A pull of 200 MB from loopback, until a container of it has run.
pub fn pulls(table: &mut Table, peers: Result<&Peers, &String>) {
    let name = image("large");
    let run = ["run", "--rm", &name, "true"];
    let (pull, remove) = (["pull", &name], ["rmi", "-f", &name]);
    // What was pulled must be gone, and written, before the next pull begins.
    let timed = |ask: &dyn Fn(&[&str]) -> Took| -> Took {
        nix::unistd::sync();
        let time = ask(&pull)? + ask(&run)?;
        ask(&remove)?;
        Ok(time)
    };
    table.beside(
        "pull of 200 MB in 7 layers from loopback, until a first container of it has ended",
        PULLS,
        Budget::None,
        || pull_afresh(&pull, &run),
        &mut [
            ("docker", &mut || timed(&|arguments| docker(peers, arguments))),
            ("podman", &mut || timed(&|arguments| podman(peers, arguments))),
        ],
    );
}

/// By a holm that has seen nothing yet: one that lived would have kept the bytes for a while.
fn pull_afresh(pull: &[&str], run: &[&str]) -> Duration {
    let lab = Lab::new();
    let shop = lab.project(PROJECT);
    add_images(&lab, lab.registry(), &lab.world.machine);
    let client = Docker::find(&lab, PROJECT);
    nix::unistd::sync();
    let time = ours(&client, pull) + ours(&client, run);
    shop.empty();
    lab.finish();
    time
}

/// What a crowd of containers took: to start, in memory, to remove.
struct Crowd {
    starts: Times,
    removals: Times,
    memory_mib: f64,
}

impl Crowd {
    fn new() -> Self {
        Self { starts: Ok(vec![]), removals: Ok(vec![]), memory_mib: 0.0 }
    }

    fn note(&mut self, seen: Result<(Duration, Duration, f64), String>) {
        let (Ok(starts), Ok(removals)) = (&mut self.starts, &mut self.removals) else { return };
        match seen {
            Ok((start, removal, memory_mib)) => {
                starts.push(start);
                removals.push(removal);
                self.memory_mib = memory_mib;
            }
            Err(reason) => (self.starts, self.removals) = (Err(reason.clone()), Err(reason)),
        }
    }
}

/// A hundred containers, asked for by as many clients at once; then they sleep; then they go.
pub fn crowds(table: &mut Table, lab: &Lab, shop: &Cloud, peers: Result<&Peers, &String>) {
    for resource in ["instances", "vcpus", "memory_mib", "ports", "volumes", "volume_gib"] {
        shop.set_quota(resource, ROOM);
    }
    let client = Docker::find(lab, PROJECT);
    let program = lab::program();
    let own = fs::read_link("/proc/self/ns/pid").expect("a namespace");
    let is_ours = |process: &Path| {
        let named = fs::read(process.join("cmdline")).unwrap_or_default();
        fs::read_link(process.join("exe")).is_ok_and(|exe| exe == program)
            && fs::read_link(process.join("ns/pid")).is_ok_and(|namespace| namespace == own)
            && String::from_utf8_lossy(&named).contains(&*lab.directory().to_string_lossy())
    };
    let (mut holm, mut others) = (Crowd::new(), [Crowd::new(), Crowd::new()]);
    for _ in 0..CROWDS {
        let seen = crowd(&|arguments| start(client.command(arguments)), &REMOVE, || memory_mib(is_ours));
        holm.note(Ok(seen.unwrap_or_else(|reason| panic!("holm: {reason}"))));
        others[0].note(peers.map_err(Clone::clone).and_then(|peers| {
            let client = peers.docker.as_ref()?;
            crowd(&|arguments| start(client.command(arguments)), &REMOVE, || {
                peers.memory_mib(&["dockerd", "containerd"])
            })
        }));
        others[1].note(peers.map_err(Clone::clone).and_then(|peers| {
            let podman = |arguments: &[&str]| {
                let command = peers.command("podman", arguments);
                peers.inside(|| start(command))
            };
            crowd(&podman, &["rm", "-f", "-t", "0"], || peers.memory_mib(&["conmon", "podman"]))
        }));
    }
    let starts = holm.starts.expect("they ran");
    let removals = holm.removals.expect("they went");
    for (name, other) in ["docker", "podman"].into_iter().zip(others) {
        let what = format!("{CROWD} containers by as many clients at once until all run, beside {name}");
        table.compare(&what, &starts, other.starts.clone(), Budget::None);
        table.compare(
            &format!("these {CROWD} removed, beside {name}"),
            &removals,
            other.removals,
            Budget::None,
        );
        let what = format!("memory of the engine while they sleep (PSS; daemon and shims), beside {name}");
        let memory = format!("{:.1} MiB", holm.memory_mib);
        match other.starts {
            Ok(_) => {
                let (theirs, ratio) =
                    (format!("{:.1} MiB", other.memory_mib), holm.memory_mib / other.memory_mib);
                table.ratio(&what, &memory, &theirs, ratio, Budget::None);
            }
            Err(reason) => table.alone(&what, &memory, &reason, Budget::None),
        }
    }
}

/// One crowd: time until all run, time until all are gone, memory in between.
fn crowd(
    start: &dyn Fn(&[&str]) -> io::Result<Child>,
    remove: &[&str],
    memory: impl Fn() -> f64,
) -> Result<(Duration, Duration, f64), String> {
    let says = |arguments: &[&str]| {
        let output = start(arguments).and_then(Child::wait_with_output);
        let said =
            output.as_ref().map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).into());
        ended(arguments[0], output).map(|()| said)
    };
    let (name, names) = (image("base"), (0..CROWD).map(|n| format!("crowd-{n}")).collect::<Vec<_>>());
    nix::unistd::sync();
    let began = Instant::now();
    let clients: Vec<_> =
        names.iter().map(|own| start(&["run", "-d", "--name", own, &name, "sleep", "1000000"])).collect();
    // All are waited for, whatever became of one.
    let ends: Vec<_> =
        clients.into_iter().map(|client| ended("run", client.and_then(Child::wait_with_output))).collect();
    let started = began.elapsed();
    ends.into_iter().collect::<Result<Vec<()>, String>>()?;
    let running = says(&["ps", "-q"])?.lines().count();
    if running != CROWD {
        return Err(format!("{running} of {CROWD} run"));
    }
    std::thread::sleep(QUIET);
    let memory_mib = memory();
    let removal: Vec<&str> = remove.iter().copied().chain(names.iter().map(String::as_str)).collect();
    let mut gone = Ok(String::new());
    let removed = took(|| gone = says(&removal));
    gone.map(|_| (started, removed, memory_mib))
}

/// Starts a client whose words are kept.
fn start(mut command: Command) -> io::Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}
