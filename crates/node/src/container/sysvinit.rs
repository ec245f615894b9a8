//! Asks sysvinit for another run level, as its own `telinit` does: by a record that is written to its pipe.
//!
//! What it does about SIGPWR its table says, and Debian's names a script there that no package has: nothing would happen until
//! the time of the stop is over. Run level 0 is in every table. Who has no such pipe gets the signal, which LXC's images heed.

use super::root::Root;
use rustix::fs::FileType;
use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    path::Path,
};
use sys::jail::tree;

/// Where its pipe is, and where it was before `/run` was there (initctl(5)).
const PIPES: [&str; 2] = ["/run/initctl", "/dev/initctl"];
/// Size of a record (`struct init_request` in `initreq.h` of sysvinit).
const RECORD_BYTES: usize = 384;
/// What a record begins with (`INIT_MAGIC`).
const MAGIC: i32 = 0x0309_1969;
/// It asks for a run level (`INIT_CMD_RUNLVL`).
const RUN_LEVEL: i32 = 1;
/// Seconds from SIGTERM to SIGKILL for what init itself has started, as `telinit` has them.
const PATIENCE_S: i32 = 3;

/// Asks for the run level in which all services are stopped and the power is cut.
///
/// # Errors
/// It does not listen.
pub(super) fn power_off(root: &Root) -> io::Result<()> {
    let mut pipe = PIPES.into_iter().find_map(|path| pipe(root, path)).ok_or(io::ErrorKind::NotFound)?;
    pipe.write_all(&record(b'0'))
}

/// A pipe that somebody reads. It is the instance's own, so it may be anything and must not be waited for.
fn pipe(root: &Root, path: &str) -> Option<File> {
    let flags = libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let handle = tree::open_in_root(root.as_fd(), Path::new(path), flags, 0).ok()?;
    let seen = rustix::fs::fstat(handle.as_fd()).ok()?;
    (FileType::from_raw_mode(seen.st_mode) == FileType::Fifo).then(|| File::from(handle))
}

fn record(level: u8) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    for (place, value) in [MAGIC, RUN_LEVEL, i32::from(level), PATIENCE_S].into_iter().enumerate() {
        record[place * 4..][..4].copy_from_slice(&value.to_ne_bytes());
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that `telinit 0` of sysvinit 3.06 wrote.
    #[test]
    fn a_record_is_as_telinit_writes_it() {
        let record = record(b'0');
        let head = [0x69, 0x19, 0x09, 0x03, 1, 0, 0, 0, b'0', 0, 0, 0, 3, 0, 0, 0];
        assert_eq!(record[..16], head);
        assert!(record[16..].iter().all(|byte| *byte == 0));
    }
}
