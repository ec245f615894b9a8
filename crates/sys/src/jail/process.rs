//! Forks into namespaces, and handles to the children.
//!
//! `clone3` is called without a stack of its own, so it behaves as `fork`. The caller must be single-threaded, which
//! is checked: a child made here may then allocate and panic like any program.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Kinds of namespaces, as bits of `clone(2)`.
pub mod namespace {
    /// Mounts.
    pub const MOUNT: u64 = libc::CLONE_NEWNS as u64;
    /// User and group ids.
    pub const USER: u64 = libc::CLONE_NEWUSER as u64;
    /// Process ids.
    pub const PID: u64 = libc::CLONE_NEWPID as u64;
    /// Host name.
    pub const UTS: u64 = libc::CLONE_NEWUTS as u64;
    /// System V IPC and POSIX message queues.
    pub const IPC: u64 = libc::CLONE_NEWIPC as u64;
    /// The view of the cgroup tree.
    pub const CGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
    /// Network.
    pub const NET: u64 = libc::CLONE_NEWNET as u64;
}

/// How a child is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fork<'a> {
    /// New namespaces, bits of [`namespace`].
    pub namespaces: u64,
    /// The child becomes a child of the caller's parent, so that the parent can wait for it.
    pub sibling: bool,
    /// Directory of a version 2 cgroup to start in (`CLONE_INTO_CGROUP`, Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// `struct clone_args` of `clone3(2)`.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

impl Fork<'_> {
    /// Runs `child` in a new process, which ends with the code it returns (101 after a panic), and gives the
    /// process's id as the caller's pid namespace numbers it.
    ///
    /// Fails with `InvalidInput` in a process that has several threads.
    pub fn spawn(self, child: impl FnOnce() -> i32) -> io::Result<i32> {
        refuse_threads()?;
        let mut args = CloneArgs { flags: self.namespaces, ..Default::default() };
        if self.sibling {
            args.flags |= libc::CLONE_PARENT as u64;
        } else {
            args.exit_signal = libc::SIGCHLD as u64;
        }
        if let Some(cgroup) = self.cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = cgroup.as_raw_fd() as u64;
        }
        // SAFETY: the arguments are a valid clone_args without a stack, thread-local storage or shared memory, so this
        // is a fork; the process has one thread, so the child may run any code.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<CloneArgs>()) };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(101);
                // SAFETY: ends this process without running the parent's exit handlers.
                unsafe { libc::_exit(code) }
            }
            pid => Ok(pid as i32),
        }
    }
}

/// Fails unless this process has exactly one thread.
pub fn refuse_threads() -> io::Result<()> {
    // One directory per thread, and `.` and `..`. A child without /proc was forked by a parent that was checked.
    match fs::metadata("/proc/self/task").map(|meta| meta.nlink()) {
        Ok(links) if links > 3 => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("forking a process of {} threads is not safe", links - 2),
        )),
        _ => Ok(()),
    }
}

/// Opens a handle to a child by its id. Free of races only for an own child that was not waited for.
pub fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a signal through a handle. A process that has ended is no error.
pub fn signal_pidfd(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is passed: the siginfo is null.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            gone if gone.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        },
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl Ended {
    /// The code that a shell would tell: 128 and the number after a signal.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Collects a child. `None` while it runs, unless `block`.
pub fn wait(pid: i32, block: bool) -> io::Result<Option<Ended>> {
    let flags = if block { 0 } else { libc::WNOHANG } | libc::__WALL;
    loop {
        let mut status = 0;
        // SAFETY: status is a valid place for the result.
        match unsafe { libc::waitpid(pid, &mut status, flags) } {
            0 => return Ok(None),
            -1 => match io::Error::last_os_error() {
                again if again.kind() == io::ErrorKind::Interrupted => continue,
                error => return Err(error),
            },
            _ if libc::WIFEXITED(status) => return Ok(Some(Ended::Code(libc::WEXITSTATUS(status)))),
            _ if libc::WIFSIGNALED(status) => return Ok(Some(Ended::Signal(libc::WTERMSIG(status)))),
            _ if block => continue,
            _ => return Ok(None),
        }
    }
}

/// Joins namespaces: of a handle to one namespace, or those in `kinds` of the process that a pidfd names.
pub fn join(handle: BorrowedFd<'_>, kinds: u64) -> io::Result<()> {
    // SAFETY: takes two integers.
    check(unsafe { libc::setns(handle.as_raw_fd(), kinds as i32) })
}

/// Moves this process into new namespaces.
pub fn unshare(kinds: u64) -> io::Result<()> {
    // SAFETY: takes an integer.
    check(unsafe { libc::unshare(kinds as i32) })
}

/// Replaces this process's program. Returns only with an error.
pub fn exec(path: &std::ffi::CStr, argv: &[std::ffi::CString], env: &[std::ffi::CString]) -> io::Error {
    let pointers = |list: &[std::ffi::CString]| {
        list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both lists end with a null pointer and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// A descriptor that was inherited or that another value owns, for a call that only borrows it.
///
/// Panics on a negative number. The caller keeps it open for as long as it is used; a closed one only makes calls fail.
pub fn borrowed<'a>(fd: i32) -> BorrowedFd<'a> {
    assert!(fd >= 0, "a descriptor is not negative");
    // SAFETY: the number is valid for the type; no call through a borrowed descriptor touches memory through it.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

pub(crate) fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_may_not_fork() {
        // The test harness runs every test in a thread of its own.
        let error = Fork::default().spawn(|| 0).expect_err("forked with threads");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
