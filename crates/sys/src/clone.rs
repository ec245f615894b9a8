//! A copy of this process with its pidfd, made by clone3(2) behind libc's back.
//!
//! The copy has one thread and may find any lock of the others taken for ever, so what runs in it must keep to raw system
//! calls. This is the only place where processes are made.

use std::os::fd::{FromRawFd, OwnedFd};

use nix::sys::signal::{SigSet, SigmaskHow};

use crate::error::{Error, Result};
use crate::pidfd::PidFd;

/// Clones this process with additional `flags` and runs `child` in the copy, which ends with code 127 if that returns. All signals are blocked meanwhile, and stay
/// blocked in the copy, so that no handler of ours runs there.
///
/// # Safety
/// `child` may use only raw system calls and memory that exists already; it must not allocate, lock, or unwind.
/// `flags` must not contain `CLONE_VM`.
pub(crate) unsafe fn clone_process(flags: i32, name: &str, child: impl FnOnce()) -> Result<PidFd> {
    debug_assert_eq!(flags & libc::CLONE_VM, 0);
    let mut descriptor: libc::c_int = -1;
    // SAFETY: clone_args is plain data for which all zeros is a valid value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = (flags | libc::CLONE_PIDFD) as u64;
    arguments.pidfd = &raw mut descriptor as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    let old = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .map_err(|error| Error::new("block signals for", name, error))?;
    // SAFETY: without CLONE_VM this is a fork: the child gets a copy of all memory and goes on with this stack. What it
    // runs there is the caller's promise.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    if pid == 0 {
        child();
        loop {
            // SAFETY: a number; it ends the process without running anything of ours.
            unsafe { libc::syscall(libc::SYS_exit_group, 127) };
        }
    }
    let failure = if pid < 0 { Some(std::io::Error::last_os_error()) } else { None };
    // It cannot fail: the mask was valid when we got it.
    let _ = old.thread_set_mask();
    if let Some(error) = failure {
        return Err(Error::new("start process for", name, error));
    }
    // SAFETY: the kernel has put the descriptor of the new process there, open and ours alone.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    Ok(PidFd::from_parts(descriptor, pid as i32))
}
