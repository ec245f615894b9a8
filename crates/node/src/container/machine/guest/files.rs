//! Work on the files of the pod, in a process of its own: the same code as on a host, in front of the same mounts.
//!
//! The agent starts it with the way in as its standard input and the way out as its standard output ([`begin`]). It ends with
//! its work, or when nobody takes what it says. Whatever it meets in the files of a container, the agent goes on.
//!
//! Where the pod is not started nobody has mounted its files. One process does so then and keeps them ([`Keeper`]), as no upper
//! directory may be under two overlays at a time: each piece of work comes to it as a message with both ends, and has a thread.

use super::super::{GUEST_RUN, GUEST_STATE};
use crate::container::{
    bundle::Pod,
    files::{
        ContainerFiles, FilesError,
        turn::Turn,
        work::{Teller, Work},
    },
    protocol::{POD, PodState, STATE},
};
use crate::driver::DriverError;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde::de::DeserializeOwned;
use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, Mutex, PoisonError},
};
use sys::fdpass;

/// What the role is called, behind `holm guest`.
pub(super) const ROLE: &str = "files";
/// The same, of the process that keeps the files of a pod that is not started.
pub(super) const KEEPER: &str = "files-kept";
/// Where it has them mounted, in a namespace of its own.
const SCRATCH: &str = "/run/holm/files";
/// Longest piece of work: a path, and who it is for.
const WORK_BYTES_MAX: usize = 64 << 10;
/// Most pieces of work at a time.
const WORKERS_MAX: usize = 16;

/// Starts the process, between these two ends.
pub(super) fn begin(work: &Work, input: OwnedFd, output: OwnedFd) -> io::Result<Child> {
    Command::new("/proc/self/exe")
        .args(["guest", ROLE, &serde_json::to_string(work)?])
        .env_clear()
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .spawn()
}

/// The process.
pub(super) fn main(work: &str) -> ExitCode {
    match serve(work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holm: the work on files ended: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(work: &str) -> io::Result<()> {
    let work: Work = serde_json::from_str(work)?;
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    match open() {
        Ok(files) => files.perform(&work, input, output),
        Err(error) => Teller::new(output).end(&Err(error)),
    }
}

/// The files of the pod that runs here.
fn open() -> Result<ContainerFiles, FilesError> {
    let pod: Pod = read(&Path::new(GUEST_STATE).join(POD))?;
    let state: PodState = read(&Path::new(GUEST_RUN).join(STATE))?;
    let shim = (state.shim.pid, state.shim.start_time);
    ContainerFiles::of_running(pod, shim, Turn::undisputed())
}

/// What the shim writes is whole at every moment; before it has, the pod is being started.
fn read<T: DeserializeOwned>(path: &Path) -> Result<T, FilesError> {
    let text = fs::read(path).map_err(|_| FilesError::Moving)?;
    serde_json::from_slice(&text).map_err(|_| FilesError::Moving)
}

/// The agent's end of the process that keeps the files of a pod which is not started. It is started with the first piece of
/// work, and again when it is found dead.
#[derive(Debug, Default)]
pub(super) struct Keeper(Option<OwnedFd>);

impl Keeper {
    /// Hands a piece of work over, between these two ends.
    pub(super) fn begin(&mut self, work: &Work, input: &OwnedFd, output: &OwnedFd) -> io::Result<()> {
        let message = serde_json::to_vec(work)?;
        if message.len() > WORK_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the work is described at too great a length",
            ));
        }
        let ends = [input.as_fd(), output.as_fd()];
        if let Some(socket) = &self.0
            && fdpass::send(socket, &message, &ends).is_ok()
        {
            return Ok(());
        }
        let (near, far) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Command::new("/proc/self/exe")
            .args(["guest", KEEPER])
            .env_clear()
            .stdin(far)
            .stdout(Stdio::null())
            .spawn()?;
        fdpass::send(&near, &message, &ends)?;
        self.0 = Some(near);
        Ok(())
    }
}

/// The process that keeps them.
pub(super) fn keep() -> ExitCode {
    let kept: Arc<Mutex<Option<Arc<ContainerFiles>>>> = Arc::default();
    let mut buffer = vec![0; WORK_BYTES_MAX];
    loop {
        let received = match fdpass::receive(io::stdin(), &mut buffer, 2) {
            Ok(received) if received.length > 0 => received,
            Ok(_) => return ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("holm: the work on files ended: {error}: {}", error.source);
                return ExitCode::FAILURE;
            }
        };
        let work: Result<Work, _> = serde_json::from_slice(&buffer[..received.length]);
        let ends: Result<[OwnedFd; 2], _> = received.descriptors.try_into();
        let (Ok(work), Ok([input, output])) = (work, ends) else { continue };
        let kept = Arc::clone(&kept);
        // A thread of its own: unpacking changes who the thread is.
        let begun = std::thread::Builder::new()
            .spawn(move || perform_kept(&kept, &work, input.into(), output.into()));
        if let Err(error) = begun {
            eprintln!("holm: cannot make a thread: {error}");
        }
    }
}

fn perform_kept(kept: &Mutex<Option<Arc<ContainerFiles>>>, work: &Work, input: File, output: File) {
    let outcome = match open_kept(kept) {
        // Each of those who work has one, and one is kept.
        Ok(files) if Arc::strong_count(&files) > WORKERS_MAX + 1 => Teller::new(output)
            .end(&Err(FilesError::Limit { what: "pieces of work at a time", limit: WORKERS_MAX as u64 })),
        Ok(files) => files.perform(work, input, output),
        Err(error) => Teller::new(output).end(&Err(error)),
    };
    if let Err(error) = outcome {
        eprintln!("holm: the work on files ended: {error}");
    }
}

/// The files of the pod that is not started here, mounted by who comes first.
fn open_kept(kept: &Mutex<Option<Arc<ContainerFiles>>>) -> Result<Arc<ContainerFiles>, FilesError> {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(files) = &*kept {
        return Ok(Arc::clone(files));
    }
    let pod: Pod = read(&Path::new(GUEST_STATE).join(POD))?;
    let opened = ContainerFiles::of_stopped(pod, SCRATCH.into(), Turn::undisputed(), |_| Ok(()));
    let files = Arc::new(opened.map_err(|error| match error {
        DriverError::Files(error) => error,
        other => FilesError::Io { operation: "mount its files".into(), source: io::Error::other(other) },
    })?);
    *kept = Some(Arc::clone(&files));
    Ok(files)
}
