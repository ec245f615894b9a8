//! What happens between clone and exec, in a process that is a copy of one thread of a threaded one.
//!
//! Only raw system calls on memory that was prepared before: another thread may have held any lock when the copy was made,
//! and libc's own wrappers for changing ids would wait for threads that do not exist here.

use std::convert::Infallible;
use std::ffi::{CString, c_char, c_int, c_long};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::sys::resource::Resource;

use super::Credentials;
use crate::clone::clone_process;
use crate::error::Result;
use crate::netns::NetNs;
use crate::pidfd::PidFd;

/// A step of the child, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Reset signals.
    Signals,
    /// Lead a new session.
    Session,
    /// Enter the cgroup.
    Cgroup,
    /// Enter the network namespace.
    Namespace,
    /// Get namespaces of its own.
    Unshare,
    /// Set resource limits.
    Limits,
    /// Put the open files in their places.
    Files,
    /// Give up capabilities.
    Capabilities,
    /// Become another user.
    Credentials,
    /// Enter the working directory.
    Directory,
    /// Forbid new privileges.
    NoNewPrivileges,
    /// Ask to die with the parent.
    ParentDeath,
    /// Execute the program.
    Execute,
}

const STAGES: [Stage; 13] = [
    Stage::Signals,
    Stage::Session,
    Stage::Cgroup,
    Stage::Namespace,
    Stage::Unshare,
    Stage::Limits,
    Stage::Files,
    Stage::Capabilities,
    Stage::Credentials,
    Stage::Directory,
    Stage::NoNewPrivileges,
    Stage::ParentDeath,
    Stage::Execute,
];

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Signals => "resetting signals failed",
            Stage::Session => "making a session failed",
            Stage::Cgroup => "entering the cgroup failed",
            Stage::Namespace => "entering the network namespace failed",
            Stage::Unshare => "making private namespaces failed",
            Stage::Limits => "setting resource limits failed",
            Stage::Files => "handing over open files failed",
            Stage::Capabilities => "giving up capabilities failed",
            Stage::Credentials => "changing user and groups failed",
            Stage::Directory => "entering the working directory failed",
            Stage::NoNewPrivileges => "forbidding new privileges failed",
            Stage::ParentDeath => "asking to end with the parent failed",
            Stage::Execute => "executing the program failed",
        })
    }
}

/// A list of C strings in the form that exec takes.
#[derive(Debug)]
pub(super) struct Strings {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Strings {
    pub(super) fn new(strings: Vec<CString>) -> Strings {
        // Moving a CString leaves its bytes where they are, so the pointers stay good.
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Strings { _strings: strings, pointers }
    }
}

/// Everything that the child needs, prepared.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) program: CString,
    pub(super) argv: Strings,
    pub(super) envp: Strings,
    /// Target number and file, by rising number; the files themselves have numbers above all targets.
    pub(super) files: Vec<(RawFd, OwnedFd)>,
    pub(super) credentials: Option<Credentials>,
    pub(super) namespace: Option<NetNs>,
    pub(super) cgroup: Vec<OwnedFd>,
    pub(super) directory: Option<CString>,
    pub(super) umask: Option<u32>,
    pub(super) limits: Vec<(Resource, libc::rlimit64)>,
    pub(super) unshare: i32,
    pub(super) new_session: bool,
    pub(super) no_new_privileges: bool,
    pub(super) dies_with_parent: bool,
}

/// Makes the child.
pub(super) fn start(plan: &Plan, report: &OwnedFd, name: &str) -> Result<PidFd> {
    let parent = std::process::id() as c_int;
    // SAFETY: `run` keeps to raw system calls on memory that exists already, and never returns.
    unsafe { clone_process(0, name, || run(plan, report.as_raw_fd(), parent)) }
}

/// The child: either executes the program or reports the stage and errno and returns, which ends it.
fn run(plan: &Plan, report: RawFd, parent: c_int) {
    let Err(stage) = become_program(plan, parent);
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    let number = errno.to_ne_bytes();
    let message = [stage as u8, number[0], number[1], number[2], number[3]];
    // SAFETY: the message lives through the write.
    unsafe { libc::syscall(libc::SYS_write, report, message.as_ptr(), message.len()) };
}

/// Reads what [`run`] wrote; nothing means that the program runs.
pub(super) fn decode(bytes: &[u8]) -> Option<(Stage, i32)> {
    let (stage, errno) = bytes.split_first()?;
    let errno = i32::from_ne_bytes(errno.try_into().ok()?);
    Some((*STAGES.get(usize::from(*stage))?, errno))
}

fn become_program(plan: &Plan, parent: c_int) -> Result<Infallible, Stage> {
    reset_signals()?;
    if plan.new_session {
        call(Stage::Session, libc::SYS_setsid, [0; 5])?;
    }
    for file in &plan.cgroup {
        // "0" is the process that writes.
        call(Stage::Cgroup, libc::SYS_write, [file.as_raw_fd().into(), c"0".as_ptr() as c_long, 1, 0, 0])?;
    }
    if let Some(namespace) = &plan.namespace {
        let arguments = [namespace.as_fd().as_raw_fd().into(), libc::CLONE_NEWNET.into(), 0, 0, 0];
        call(Stage::Namespace, libc::SYS_setns, arguments)?;
    }
    unshare(plan.unshare)?;
    for (resource, limit) in &plan.limits {
        let limit = &raw const *limit as c_long;
        call(Stage::Limits, libc::SYS_prlimit64, [0, *resource as c_long, limit, 0, 0])?;
    }
    if let Some(mask) = plan.umask {
        call(Stage::Files, libc::SYS_umask, [mask.into(), 0, 0, 0, 0])?;
    }
    place_files(&plan.files)?;
    change_user(plan)?;
    if let Some(directory) = &plan.directory {
        call(Stage::Directory, libc::SYS_chdir, [directory.as_ptr() as c_long, 0, 0, 0, 0])?;
    }
    if plan.no_new_privileges {
        call(Stage::NoNewPrivileges, libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS.into(), 1, 0, 0, 0])?;
    }
    if plan.dies_with_parent {
        die_with(parent)?;
    }
    unblock_signals()?;
    let (argv, envp) = (plan.argv.pointers.as_ptr() as c_long, plan.envp.pointers.as_ptr() as c_long);
    call(Stage::Execute, libc::SYS_execve, [plan.program.as_ptr() as c_long, argv, envp, 0, 0])?;
    Err(Stage::Execute)
}

/// One raw system call.
fn call(stage: Stage, number: c_long, arguments: [c_long; 5]) -> Result<c_long, Stage> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the callers in this file pass numbers, or pointers into the plan, which lives until exec or exit.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    if result < 0 { Err(stage) } else { Ok(result) }
}

/// Handlers vanish with exec, but ignored signals would stay ignored: Rust programs ignore SIGPIPE. The raw call reaches
/// the two signals that libc keeps for itself as well.
fn reset_signals() -> Result<(), Stage> {
    // The kernel's own struct sigaction: handler, flags, restorer, mask; all zeros is the default action.
    let default = [0u64; 4];
    for signal in 1..=c_long::from(libc::SIGRTMAX()) {
        if signal != c_long::from(libc::SIGKILL) && signal != c_long::from(libc::SIGSTOP) {
            let arguments = [signal, &raw const default as c_long, 0, size_of::<u64>() as c_long, 0];
            call(Stage::Signals, libc::SYS_rt_sigaction, arguments)?;
        }
    }
    Ok(())
}

fn unblock_signals() -> Result<(), Stage> {
    let none = 0u64;
    let arguments = [libc::SIG_SETMASK.into(), &raw const none as c_long, 0, size_of::<u64>() as c_long, 0];
    call(Stage::Signals, libc::SYS_rt_sigprocmask, arguments).map(drop)
}

fn unshare(flags: i32) -> Result<(), Stage> {
    if flags == 0 {
        return Ok(());
    }
    call(Stage::Unshare, libc::SYS_unshare, [flags.into(), 0, 0, 0, 0])?;
    if flags & libc::CLONE_NEWNS != 0 {
        let (root, propagation) = (c"/".as_ptr() as c_long, (libc::MS_REC | libc::MS_SLAVE) as c_long);
        call(Stage::Unshare, libc::SYS_mount, [0, root, 0, propagation, 0])?;
    }
    Ok(())
}

/// Puts each file under its number and marks all others, the report's pipe among them, to be closed by exec.
fn place_files(files: &[(RawFd, OwnedFd)]) -> Result<(), Stage> {
    let mut next: c_long = 0;
    for (number, file) in files {
        let number = c_long::from(*number);
        close_between(next, number - 1)?;
        // dup3 without flags: this copy survives exec.
        call(Stage::Files, libc::SYS_dup3, [file.as_raw_fd().into(), number, 0, 0, 0])?;
        next = number + 1;
    }
    close_between(next, u32::MAX.into())
}

fn close_between(first: c_long, last: c_long) -> Result<(), Stage> {
    if first > last {
        return Ok(());
    }
    let flags = libc::CLOSE_RANGE_CLOEXEC as c_long;
    call(Stage::Files, libc::SYS_close_range, [first, last, flags, 0, 0]).map(drop)
}

fn change_user(plan: &Plan) -> Result<(), Stage> {
    let (uid, gid, groups) = match &plan.credentials {
        None => return Ok(()),
        Some(Credentials::User { uid, gid, groups }) => (c_long::from(*uid), c_long::from(*gid), &groups[..]),
        Some(Credentials::OfProcess { base }) => {
            let id = c_long::from(*base) + call(Stage::Credentials, libc::SYS_getpid, [0; 5])?;
            (id, id, &[][..])
        }
    };
    if uid != 0 {
        empty_bounding_set()?;
    }
    let (count, list) = (groups.len() as c_long, groups.as_ptr() as c_long);
    call(Stage::Credentials, libc::SYS_setgroups, [count, list, 0, 0, 0])?;
    call(Stage::Credentials, libc::SYS_setresgid, [gid, gid, gid, 0, 0])?;
    // Leaving root empties the effective, permitted and ambient sets (capabilities(7)).
    call(Stage::Credentials, libc::SYS_setresuid, [uid, uid, uid, 0, 0])?;
    if uid != 0 { empty_inheritable_set() } else { Ok(()) }
}

/// Drops every capability that the kernel knows; the first unknown number answers EINVAL.
fn empty_bounding_set() -> Result<(), Stage> {
    for capability in 0..64 {
        let present =
            call(Stage::Capabilities, libc::SYS_prctl, [libc::PR_CAPBSET_READ.into(), capability, 0, 0, 0]);
        match present {
            Err(_) => break,
            Ok(0) => {}
            Ok(_) => {
                let arguments = [libc::PR_CAPBSET_DROP.into(), capability, 0, 0, 0];
                call(Stage::Capabilities, libc::SYS_prctl, arguments)?;
            }
        }
    }
    Ok(())
}

/// `capset(2)`, version 3: three sets of two words each, all empty, for this process.
fn empty_inheritable_set() -> Result<(), Stage> {
    let header: [u32; 2] = [0x2008_0522, 0];
    let sets = [0u32; 6];
    let arguments = [&raw const header as c_long, &raw const sets as c_long, 0, 0, 0];
    call(Stage::Capabilities, libc::SYS_capset, arguments).map(drop)
}

/// Changing ids forgets this wish, so it comes after. The parent may have ended before it was expressed.
fn die_with(parent: c_int) -> Result<(), Stage> {
    let arguments = [libc::PR_SET_PDEATHSIG.into(), libc::SIGKILL.into(), 0, 0, 0];
    call(Stage::ParentDeath, libc::SYS_prctl, arguments)?;
    let now = call(Stage::ParentDeath, libc::SYS_getppid, [0; 5])?;
    if now == c_long::from(parent) { Ok(()) } else { Err(Stage::ParentDeath) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_its_stage() {
        for (index, stage) in STAGES.iter().enumerate() {
            assert_eq!(*stage as usize, index);
            let errno = 13i32.to_ne_bytes();
            let bytes = [*stage as u8, errno[0], errno[1], errno[2], errno[3]];
            assert_eq!(decode(&bytes), Some((*stage, 13)));
        }
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[1, 2]), None);
    }
}
