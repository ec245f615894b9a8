//! One process per store file, by an exclusive flock on a file beside it.
//!
//! The lock is not on the database itself: SQLite drops its own locks there when any handle of the process
//! on that file is closed. The kernel lets go of a flock when its holder dies, however it dies.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::open::OpenError;

/// Held as long as this lives.
pub(super) struct StoreLock {
    _file: Flock<File>,
}

/// Takes the lock, or says who has it.
pub(super) fn take(store: &Path) -> Result<StoreLock, OpenError> {
    let path = lock_path(store);
    let failed = |operation| {
        let path = path.clone();
        move |error| OpenError::Io { operation, path, error }
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open the lock file"))?;
    let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => file,
        Err((mut file, Errno::EWOULDBLOCK)) => {
            return Err(OpenError::Held { path: store.to_owned(), pid: read_pid(&mut file) });
        }
        Err((_, errno)) => return Err(failed("lock")(errno.into())),
    };
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(failed("write the lock file"))?;
    Ok(StoreLock { _file: file })
}

fn lock_path(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// The holder writes its pid right after it got the lock, so it may be missing for an instant.
fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
