//! The role `holm shim <dir>`: one small single-threaded process per pod that starts its containers and stays with them.
//!
//! It holds their standard streams, writes their logs, collects their exit codes and starts them again by their policy,
//! whether the daemon lives or not. It answers on a unix socket and writes every change to a state file. It ends when
//! every container has ended for good; with it go its mounts. It never has threads, never talks to the store or by the
//! network, and reads nothing but its pod's files.
//!
//! The daemon has its shims made by a [`nursery`]. Inside of a pod's machine there is one shim, which is a program:
//!
//! ```text
//!   holm guest ──▶ holm shim <dir> ──fork──▶ the shim (own session): sets up, starts containers, loops
//!                  waits until the pod is up, ends with 0, or tells on standard error why it is not
//! ```

pub(super) mod connection;
mod hook;
mod log;
pub mod nursery;
mod pod;
mod stream;
mod task;
pub(super) mod told;

use super::{
    bundle::Pod,
    machine::relay::Relay,
    protocol::{LOCK, POD, SOCKET},
    secret,
};
use pod::ShimPod;
use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};
pub(super) use stream::ATTACHMENTS_MAX;
use sys::{
    file::Lock,
    jail::{
        privilege,
        process::{self, Fork},
    },
};

/// Longest wait for a shim to have its pod up.
const UP_TIMEOUT: Duration = Duration::from_secs(120);
/// How long the shim of a pod's last run may take to leave, and how often it is looked whether it has.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
const LEAVE_POLL: Duration = Duration::from_millis(2);
/// What a shim says when its pod is up.
const UP: &str = "up";
/// Size at which the shim's own log begins anew.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// Why a shim cannot run its pod.
#[derive(Debug, thiserror::Error)]
enum ShimError {
    /// A step failed.
    #[error("cannot {step}: {source}")]
    Step {
        /// The step.
        step: String,
        /// The cause.
        source: io::Error,
    },
    /// Another shim has the pod.
    #[error("another shim runs this pod")]
    Taken,
}

fn step<E: Into<io::Error>>(text: impl Into<String>) -> impl FnOnce(E) -> ShimError {
    move |source| ShimError::Step { step: text.into(), source: source.into() }
}

/// Runs the role. Must be called before the process has any thread. `arguments` are those after `shim`.
pub fn main(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let (Some(directory), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: holm shim DIRECTORY (started by the daemon, not by people)");
        return ExitCode::from(2);
    };
    match launch(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Forks the shim and waits until its pod is up.
fn launch(directory: &Path) -> Result<(), ShimError> {
    let (mut up, told) = io::pipe().map_err(step("make a pipe"))?;
    let first = first_client().map_err(step("keep the first client"))?;
    Fork::default().spawn(|| live(directory, told.into(), first)).map_err(step("fork"))?;
    // The shim's copy is now the only one, so its death ends the pipe.
    let mut message = String::new();
    wait_readable(&up, UP_TIMEOUT).map_err(step("wait for the pod"))?;
    up.read_to_string(&mut message).map_err(step("hear from the shim"))?;
    match heard(&message) {
        Ok(()) => Ok(()),
        Err(complaint) => Err(step("start the pod")(io::Error::other(complaint))),
    }
}

/// What a shim said until it closed its pipe: nothing but [`UP`], or why its pod is not up.
pub(super) fn heard(message: &str) -> Result<(), &str> {
    match message {
        UP => Ok(()),
        "" => Err("the shim ended; see shim.log"),
        complaint => Err(complaint),
    }
}

/// The life of a shim, in a process of its own: tells by the pipe that its pod is up, or why it is not, and stays until
/// the pod has ended. Gives its exit code.
fn live(directory: &Path, told: OwnedFd, first: Option<UnixStream>) -> i32 {
    let mut told = fs::File::from(told);
    let started = become_shim(&told, first.as_ref(), directory)
        .and_then(|()| read_pod(directory))
        .and_then(|pod| start(pod, &told, first));
    match started {
        Ok(Started::Pod(shim)) => {
            // Nobody listens any more when the daemon was killed meanwhile; the pod runs all the same.
            let _ = told.write_all(UP.as_bytes());
            drop(told);
            shim.run_until_ended();
            0
        }
        Ok(Started::Machine(mut relay)) => {
            drop(told);
            relay.run_until_ended();
            0
        }
        Err(error) => {
            let _ = told.write_all(error.to_string().as_bytes());
            eprintln!("{error}");
            1
        }
    }
}

fn wait_readable(pipe: &io::PipeReader, timeout: Duration) -> io::Result<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::NONE);
    match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout)? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

fn read_pod(directory: &Path) -> Result<Pod, ShimError> {
    let path = directory.join(POD);
    let text = fs::read(&path).map_err(step(format!("read {}", path.display())))?;
    let mut pod: Pod = serde_json::from_slice(&text)
        .map_err(io::Error::from)
        .map_err(step(format!("understand {}", path.display())))?;
    secret::put_back(&mut pod).map_err(step("read the secret variables"))?;
    Ok(pod)
}

/// Leaves the session, files, signals and working directory of who made it behind.
fn become_shim(told: &fs::File, first: Option<&UnixStream>, directory: &Path) -> Result<(), ShimError> {
    let kept: Vec<RawFd> = first.iter().map(|first| first.as_raw_fd()).chain([told.as_raw_fd()]).collect();
    privilege::close_others(3, &kept).map_err(step("close files"))?;
    nix::unistd::setsid().map_err(step("make a session"))?;
    privilege::ignore_hangups();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    std::env::set_current_dir("/").map_err(step("leave the working directory"))?;
    let null =
        fs::File::options().read(true).write(true).open("/dev/null").map_err(step("open /dev/null"))?;
    let path = directory.join("shim.log");
    let mut options = fs::File::options();
    options.create(true).append(true);
    let mut log = options.open(&path).map_err(step("open the shim's log"))?;
    if log.metadata().is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
        let _ = log.set_len(0);
    }
    let _ = log.flush();
    for (number, file) in [(0, &null), (1, &null), (2, &log)] {
        privilege::place(file.as_raw_fd(), number).map_err(step("connect the standard streams"))?;
    }
    Ok(())
}

/// A socket as the standard input is a client who asked before the pod is there: requests wait in it.
fn first_client() -> io::Result<Option<UnixStream>> {
    let input = io::stdin();
    let kind = nix::sys::stat::fstat(&input)?.st_mode & libc::S_IFMT;
    if kind != libc::S_IFSOCK {
        return Ok(None);
    }
    Ok(Some(UnixStream::from(input.as_fd().try_clone_to_owned()?)))
}

/// What a shim stays with.
enum Started {
    /// The containers of a pod.
    Pod(ShimPod),
    /// The machine of a pod that has a kernel of its own: the shim is inside, and this process stands for it. It tells by
    /// itself that the pod is up.
    Machine(Relay),
}

/// Sets the pod up.
fn start(pod: Pod, told: &fs::File, first: Option<UnixStream>) -> Result<Started, ShimError> {
    let Some(machine) = pod.machine.clone() else {
        return set_up(pod, first).map(Started::Pod);
    };
    let lock = lock(&pod)?;
    let told = told.try_clone().map_err(step("keep the pipe"))?;
    Relay::start(pod, &machine, lock, told, first)
        .map(Started::Machine)
        .map_err(|error| step("run the pod's machine")(io::Error::other(error)))
}

/// Takes the pod for this process alone. The shim of its last run may be on its way out: it has told the end, and takes its
/// mounts and control groups away.
fn lock(pod: &Pod) -> Result<Lock, ShimError> {
    let run = &pod.places.run;
    fs::create_dir_all(run).map_err(step(format!("create {}", run.display())))?;
    let deadline = Instant::now() + LEAVE_TIMEOUT;
    loop {
        match Lock::try_create(&run.join(LOCK)).map_err(step("lock the pod"))? {
            Some(lock) => return Ok(lock),
            None if Instant::now() >= deadline => return Err(ShimError::Taken),
            None => std::thread::sleep(LEAVE_POLL),
        }
    }
}

fn set_up(pod: Pod, first: Option<UnixStream>) -> Result<ShimPod, ShimError> {
    let lock = lock(&pod)?;
    let run = pod.places.run.clone();
    let netns = fs::File::open(&pod.places.netns).map_err(step("open the pod's network namespace"))?;
    process::join(netns.as_fd(), process::namespace::NET)
        .map_err(step("join the pod's network namespace"))?;
    super::root::enter(&pod).map_err(|error| ShimError::Step { step: error.step, source: error.source })?;
    let listener = listen(&run.join(SOCKET)).map_err(step("listen"))?;
    ShimPod::start(pod, netns.as_fd(), listener, lock, first)
}

/// Listens at a path in place of whoever did before.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
