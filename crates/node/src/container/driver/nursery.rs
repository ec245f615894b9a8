//! The daemon's end of the process that forks its shims.
//!
//! It is started when the first pod is, and again when it is found dead: nothing of a pod depends on it.

use super::{COMPLAINT_BYTES_MAX, START_TIMEOUT, blocking, io_error};
use crate::{
    container::{protocol::NURSERY, shim::heard},
    driver::DriverError,
};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};
use sys::fdpass;
use tokio::{io::AsyncReadExt, net::unix::pipe};

/// Longest part of a pod's directory that is the pod's own: `/pods/`, its id and `/maintenance`. Shims show their arguments in
/// the room of the nursery's, which is therefore made so much longer.
const OWN_PART_BYTES: usize = 56;

/// Makes shims.
#[derive(Debug)]
pub(super) struct Nursery {
    program: Option<PathBuf>,
    /// Directory of all pods' files, which its arguments show.
    state: PathBuf,
    running: Mutex<Option<Running>>,
}

/// A nursery's process.
#[derive(Debug)]
struct Running {
    socket: Option<OwnedFd>,
    process: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It ends when this closes, and takes no time for it.
        drop(self.socket.take());
        let _ = self.process.wait();
    }
}

impl Nursery {
    /// None is started yet. Without a program none ever is, and no pod either.
    pub(super) fn new(program: Option<PathBuf>, state: &Path) -> Self {
        Self { program, state: state.to_path_buf(), running: Mutex::default() }
    }

    /// Has the shim of a pod made, and waits until the pod is up. Requests that wait in `first` are its first client's.
    pub(super) async fn start_shim(
        self: &Arc<Self>,
        directory: PathBuf,
        first: Option<OwnedFd>,
    ) -> Result<(), DriverError> {
        let (up, told) = io::pipe().map_err(io_error("make a pipe"))?;
        let up = pipe::Receiver::from_owned_fd(up.into()).map_err(io_error("wait for a pipe"))?;
        let nursery = Arc::clone(self);
        // The first time a program is started, which takes some milliseconds.
        blocking(move || nursery.ask(&directory, &told.into(), first.as_ref())).await?;
        let mut message = String::new();
        let mut up = up.take(COMPLAINT_BYTES_MAX);
        tokio::time::timeout(START_TIMEOUT, up.read_to_string(&mut message))
            .await
            .map_err(|_| DriverError::Timeout {
                what: "the shim".into(),
                after_ms: START_TIMEOUT.as_millis() as u64,
            })?
            .map_err(io_error("hear from the shim"))?;
        heard(&message).map_err(|complaint| DriverError::Refused {
            operation: "start the pod".into(),
            answer: complaint.trim().into(),
        })
    }

    /// Asks for a shim; once more of a new nursery when the old one is dead.
    fn ask(&self, directory: &Path, told: &OwnedFd, first: Option<&OwnedFd>) -> Result<(), DriverError> {
        let descriptors: Vec<BorrowedFd<'_>> = [told].into_iter().chain(first).map(AsFd::as_fd).collect();
        let message = directory.as_os_str().as_bytes();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = running.as_ref().and_then(|running| running.socket.as_ref())
            && fdpass::send(socket, message, &descriptors).is_ok()
        {
            return Ok(());
        }
        *running = None;
        let fresh = self.start()?;
        let socket = fresh.socket.as_ref().expect("it was just opened");
        fdpass::send(socket, message, &descriptors)
            .map_err(|error| io_error("ask for a shim")(error.into()))?;
        *running = Some(fresh);
        Ok(())
    }

    fn start(&self) -> Result<Running, DriverError> {
        let program = self.program.as_ref().ok_or_else(|| DriverError::Missing {
            what: "the shim".into(),
            hint: "set the path of holm".into(),
        })?;
        // Messages stay whole, and come with their descriptors or not at all.
        let (near, far) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|error| io_error("make a socket")(error.into()))?;
        let process = Command::new(program)
            .arg(NURSERY)
            .arg(&self.state)
            .arg(" ".repeat(OWN_PART_BYTES))
            .env_clear()
            // What a terminal sends to the daemon is not meant for shims that are being made.
            .process_group(0)
            .stdin(far)
            .stdout(Stdio::null())
            .spawn()
            .map_err(io_error(format!("run {}", program.display())))?;
        Ok(Running { socket: Some(near), process })
    }
}
