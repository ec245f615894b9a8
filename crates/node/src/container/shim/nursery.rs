//! The role `holm nursery <dir> <room>`: one single-threaded process per daemon that does nothing but fork shims.
//!
//! A program as large as holm takes milliseconds to be loaded, and writes into a megabyte of its pages while its addresses
//! are settled (ld.so(8)). Here that happens once: a shim is a fork, up sooner, and shares those pages with all others.
//!
//! ```text
//!   daemon ──"<pod's directory>", a pipe[, first client]──▶ nursery ──fork──▶ the shim (own session)
//!          ◀─────────────── "up", or why it is not ─────────────────────────────┘
//! ```
//!
//! It ends when the daemon's end of its socket closes, and no shim with it. It must never have a thread, open a file, or
//! keep anything of a pod.

use super::live;
use crate::container::{init, protocol::SHIM};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixStream},
    },
    path::Path,
    process::ExitCode,
};
use sys::{
    fdpass,
    jail::{privilege, process::Fork},
};

/// Longest path of a pod's directory.
const PATH_BYTES_MAX: usize = 4096;
/// The pipe, and the first client.
const DESCRIPTORS_MAX: usize = 2;

/// Runs the role. Must be called before the process has any thread. The socket to the daemon is the standard input;
/// arguments are only to be seen, and to be room for those of the shims.
pub fn main() -> ExitCode {
    privilege::leave_children();
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the nursery of shims ends: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let daemon = io::stdin().as_fd().try_clone_to_owned()?;
    let program = std::env::args_os().next().unwrap_or_default();
    let mut path = vec![0; PATH_BYTES_MAX];
    loop {
        let received = fdpass::receive(&daemon, &mut path, DESCRIPTORS_MAX)?;
        if received.length == 0 {
            return Ok(());
        }
        let directory = OsStr::from_bytes(&path[..received.length]);
        let mut descriptors = received.descriptors.into_iter();
        let Some(told) = descriptors.next() else { continue };
        let first = descriptors.next();
        fork(&program, Path::new(directory), told, first);
    }
}

/// Makes one shim. What hinders it is told to who asked, as anything that hinders the shim is.
fn fork(program: &OsString, directory: &Path, told: OwnedFd, first: Option<OwnedFd>) {
    let first = first.map(UnixStream::from);
    let teller = told.try_clone();
    let forked = Fork::default().spawn(|| {
        // A shim waits for its children.
        privilege::keep_children();
        init::show_arguments(&[program.as_bytes(), SHIM.as_bytes(), directory.as_os_str().as_bytes()]);
        live(directory, told, first)
    });
    if let (Err(error), Ok(teller)) = (forked, teller) {
        let _ = File::from(teller).write_all(format!("cannot fork: {error}").as_bytes());
    }
}
