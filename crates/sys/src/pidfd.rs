//! Processes by file descriptor: a signal can never reach a stranger who got a re-used number.
//!
//! A pid alone is only a hint. What is written down about a process is its pid and its start time; [`PidFd::open_started_at`]
//! turns both back into a descriptor after a restart, or finds that the process is gone. Source: pidfd_open(2).

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::error::{Context, Error, Result, check};

/// The field of `/proc/PID/stat` with the start time, counted from the state (the third field of proc(5), the first after the
/// name in parentheses).
const START_TIME_FIELD: usize = 19;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// It ended, and how is not ours to know: it was not our child, or somebody else has asked already.
    Unknown,
}

/// An open process. Readable (in the sense of poll) when the process has ended.
#[derive(Debug)]
pub struct PidFd {
    descriptor: OwnedFd,
    pid: i32,
}

impl PidFd {
    /// Opens the process that has this number now. `None` if there is none.
    pub fn open(pid: i32) -> Result<Option<PidFd>> {
        // SAFETY: pidfd_open takes numbers and touches no memory of ours.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        match check("open process", pid, result) {
            Ok(number) => {
                // SAFETY: the kernel has just returned this descriptor, so it is open and ours alone.
                let descriptor = unsafe { OwnedFd::from_raw_fd(number as i32) };
                Ok(Some(PidFd { descriptor, pid }))
            }
            Err(error) if error.errno() == Some(libc::ESRCH) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens the process that was written down as `pid`, started at `start_time`. `None` if it is gone, even if its number
    /// lives on in another process.
    pub fn open_started_at(pid: i32, start_time: u64) -> Result<Option<PidFd>> {
        let Some(process) = PidFd::open(pid)? else {
            return Ok(None);
        };
        // Asked after opening: the descriptor holds on to whoever has the number now, so the answer is about it.
        Ok((process_start_time(pid)? == Some(start_time)).then_some(process))
    }

    pub(crate) fn from_parts(descriptor: OwnedFd, pid: i32) -> PidFd {
        PidFd { descriptor, pid }
    }

    /// The number of the process. It may be re-used once the process has ended and was waited for.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal. Returns whether the process was still there to get it.
    pub fn send_signal(&self, signal: Signal) -> Result<bool> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a null siginfo is allowed and means an ordinary kill; the rest are numbers.
        let result = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.descriptor.as_raw_fd(), signal as i32, no_info, 0)
        };
        match check("send signal to process", self.pid, result) {
            Ok(_) => Ok(true),
            Err(error) if error.errno() == Some(libc::ESRCH) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the process has ended (it may still be a zombie).
    pub fn has_exited(&self) -> Result<bool> {
        self.poll(Duration::ZERO)
    }

    /// Waits until the process ends, for at most `timeout`; `None` means that it still runs. A child of ours is reaped.
    pub fn wait_exit(&self, timeout: Duration) -> Result<Option<Exit>> {
        if self.poll(timeout)? { self.reap().map(Some) } else { Ok(None) }
    }

    /// Collects how the process ended, which must be the case already: the descriptor is readable.
    pub fn reap(&self) -> Result<Exit> {
        // SAFETY: siginfo is plain data for which all zeros is a valid value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = self.descriptor.as_raw_fd() as libc::id_t;
        // SAFETY: waitid writes one siginfo_t, which lives through the call.
        let result = unsafe { libc::waitid(libc::P_PIDFD, id, &mut info, libc::WEXITED | libc::WNOHANG) };
        match check("wait for process", self.pid, result.into()) {
            Err(error) if error.errno() == Some(libc::ECHILD) => Ok(Exit::Unknown),
            Err(error) => Err(error),
            Ok(_) => Ok(exit_of(&info)),
        }
    }

    fn poll(&self, timeout: Duration) -> Result<bool> {
        let deadline = Instant::now() + timeout;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            // Rounded up, so that the last turn does not spin; a wait of weeks is cut into many.
            let milliseconds = rest.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32;
            let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
            let mut descriptors = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
            match poll(&mut descriptors, timeout) {
                Ok(0) if Instant::now() >= deadline => return Ok(false),
                Ok(0) | Err(nix::Error::EINTR) => continue,
                Ok(_) => return Ok(true),
                Err(error) => return Err(Error::new("wait for process", self.pid, error)),
            }
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> i32 {
        self.descriptor.as_raw_fd()
    }
}

impl From<PidFd> for OwnedFd {
    fn from(process: PidFd) -> OwnedFd {
        process.descriptor
    }
}

pub(crate) fn exit_of(info: &libc::siginfo_t) -> Exit {
    // SAFETY: waitid has filled the child part of the union (or left zeros, for a process that still runs).
    let status = unsafe { info.si_status() };
    match info.si_code {
        libc::CLD_EXITED => Exit::Code(status),
        libc::CLD_KILLED | libc::CLD_DUMPED => Exit::Signal(status),
        _ => Exit::Unknown,
    }
}

/// When the process `pid` started, in clock ticks since boot; `None` if there is no such process. With the pid it names a
/// process for good (until the next boot).
pub fn process_start_time(pid: i32) -> Result<Option<u64>> {
    let path = format!("/proc/{pid}/stat");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(Error::new("read", path, error)),
    };
    let broken = || Error::invalid("read", &path, "not the format of proc(5)");
    start_time_field(&text).ok_or_else(broken).map(Some)
}

/// The name of a process may contain spaces and parentheses, so the fields are counted after the last one.
fn start_time_field(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(START_TIME_FIELD)?.parse().ok()
}

/// The boot that this is: pids and start times that were written down in another boot name nobody.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(path).context("read", path)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_a_hostile_name() {
        let fields: Vec<String> = (4..=52).map(|number| number.to_string()).collect();
        let stat = format!("7 (a) S 1 ) (b) R {}", fields.join(" "));
        assert_eq!(start_time_field(stat.as_bytes()), Some(22));
        assert_eq!(start_time_field(b"7 (x"), None);
        assert_eq!(start_time_field(b"7 (x) R 1 2"), None);
    }

    #[test]
    fn this_process_has_a_start_time_and_a_free_number_has_none() {
        let pid = std::process::id() as i32;
        let start = process_start_time(pid).expect("proc is mounted").expect("we live");
        assert!(PidFd::open_started_at(pid, start).expect("we live").is_some());
        assert!(PidFd::open_started_at(pid, start + 1).expect("we live").is_none());
        assert_eq!(process_start_time(i32::MAX).expect("proc is mounted"), None);
        assert!(PidFd::open(i32::MAX).expect("pidfds work").is_none());
    }
}
