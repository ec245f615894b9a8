//! Work on the files of the pod, in a process of its own: the same code as on a host, in front of the same mounts.
//!
//! The agent starts it with the way in as its standard input and the way out as its standard output ([`begin`]). It ends with
//! its work, or when nobody takes what it says. Whatever it meets in the files of a container, the agent goes on.

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
use serde::de::DeserializeOwned;
use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
};

/// What the role is called, behind `holm guest`.
pub(super) const ROLE: &str = "files";

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
