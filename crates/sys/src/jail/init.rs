//! What the first process of a process namespace does: waits for signals, and for whatever ended.

use super::process::Ended;
use std::io;

/// Blocks every signal, so that [`next_signal`] gets them. One that is blocked is kept even where its default action would
/// be to do nothing, as is so for the first process of a namespace (pid_namespaces(7)).
pub fn hold_signals() -> io::Result<()> {
    // SAFETY: the set is initialised before it is used.
    let result = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits for a signal that is held. `None` when the wait was cut short.
pub fn next_signal() -> Option<i32> {
    // SAFETY: the set is initialised, and no information is asked for.
    let signal = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigwaitinfo(&all, std::ptr::null_mut())
    };
    (signal > 0).then_some(signal)
}

/// Collects one child that has ended, whichever; `None` where none has.
pub fn collect_any() -> Option<(i32, Ended)> {
    loop {
        let mut status = 0;
        // SAFETY: status is a valid place for the result.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::__WALL) };
        match pid {
            pid if pid > 0 && libc::WIFEXITED(status) => {
                return Some((pid, Ended::Code(libc::WEXITSTATUS(status))));
            }
            pid if pid > 0 && libc::WIFSIGNALED(status) => {
                return Some((pid, Ended::Signal(libc::WTERMSIG(status))));
            }
            // Stopped or continued.
            pid if pid > 0 => {}
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return None,
        }
    }
}

/// Sends a signal to an own child. One that has ended is no error.
pub fn send(pid: i32, signal: i32) {
    // SAFETY: takes integers.
    unsafe { libc::kill(pid, signal) };
}

/// Makes this process the leader of a group of its own, in front of the terminal that its standard input is, if it is one.
/// Signals by which a terminal stops those behind it must be held.
pub fn lead_terminal() {
    // SAFETY: takes integers; without a terminal the second call fails and changes nothing.
    unsafe {
        libc::setpgid(0, 0);
        libc::tcsetpgrp(0, libc::getpgrp());
    }
}

/// Ends this process at once, without what its program would do at its end.
pub fn leave(code: i32) -> ! {
    // SAFETY: takes an integer and does not return.
    unsafe { libc::_exit(code) }
}
