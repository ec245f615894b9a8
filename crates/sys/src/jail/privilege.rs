//! The identity and powers of the calling process, given up one by one before it runs a confined program.
//!
//! Order matters to the caller: the bounding set and the ids while still privileged, then the other sets, then
//! no_new_privs, then the filter, then exec. None of it can be taken back.

use super::process::check;
use std::{fs, io, os::fd::RawFd};

/// Capabilities by number (`capability.h`), with their names.
pub const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Drops every capability outside `keep` (a mask of bits) from the bounding set.
pub fn bound_capabilities(keep: u64) -> io::Result<()> {
    for capability in 0..64 {
        if keep & (1 << capability) != 0 {
            continue;
        }
        // SAFETY: takes integers.
        match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0) }) {
            // Past the last capability that this kernel knows.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
            result => result?,
        }
    }
    Ok(())
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Sets the effective and permitted sets to `mask` and clears the inheritable and ambient ones.
pub fn set_capabilities(mask: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = CapabilityHeader { version: VERSION_3, pid: 0 };
    let half = |bits: u32| CapabilityData { effective: bits, permitted: bits, inheritable: 0 };
    let data = [half(mask as u32), half((mask >> 32) as u32)];
    // SAFETY: header and data have the layout of version 3: one header, two data records.
    let result = unsafe { libc::syscall(libc::SYS_capset, &header, data.as_ptr()) };
    check(result as i32)?;
    // SAFETY: takes integers.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })
}

/// Becomes this user with exactly these groups.
pub fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer and length describe the slice. Raw calls, because the process has one thread and needs no
    // broadcast to others.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) as i32)?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid) as i32)?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid) as i32)
    }
}

/// Files that this thread makes from now on belong to this user and group; its capabilities stay as they are. For a
/// thread that does this work and ends: others of the process are not changed. Source: setfsuid(2), capabilities(7).
pub fn make_files_as(uid: u32, gid: u32) -> io::Result<()> {
    const KEEP_CAPABILITIES: libc::c_ulong = 1 << 2; // SECBIT_NO_SETUID_FIXUP
    // SAFETY: takes integers. Raw calls, because they are to change the calling thread alone.
    unsafe {
        let has = libc::prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0);
        check(has)?;
        check(libc::prctl(libc::PR_SET_SECUREBITS, has as libc::c_ulong | KEEP_CAPABILITIES, 0, 0, 0))?;
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
        // These calls tell the id before, and never that they failed: asked again, they tell what is so.
        let is_set = libc::syscall(libc::SYS_setfsgid, gid) == libc::c_long::from(gid)
            && libc::syscall(libc::SYS_setfsuid, uid) == libc::c_long::from(uid);
        if is_set { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

/// No program that this process runs gains powers (setuid bits, file capabilities).
pub fn set_no_new_privileges() -> io::Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
}

/// Whether other processes of the same user may look into this one.
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, dumpable as libc::c_ulong, 0, 0, 0) })
}

/// Gives this process a session keyring of its own, so that the parent's keys are out of reach.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) };
    match check(result as i32) {
        // A kernel without keyrings has nothing to hide.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        result => result,
    }
}

/// Gives every signal its default action and blocks none.
pub fn reset_signals() -> io::Result<()> {
    // SAFETY: SIG_DFL is a valid action; the two signals that have no other are left alone; the mask is initialised.
    unsafe {
        for signal in 1..=64 {
            if signal != libc::SIGKILL && signal != libc::SIGSTOP {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        check(libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()))
    }
}

/// Ignores the signals by which a terminal or a service manager would end this process.
pub fn ignore_hangups() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGPIPE, libc::SIGQUIT] {
        // SAFETY: SIG_IGN is a valid action for these.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Leaves the children of this process to the kernel, which forgets them when they end: there is no code of theirs to
/// collect, and none stays as a zombie (sigaction(2), SIGCHLD). Forks inherit it.
pub fn leave_children() {
    // SAFETY: SIG_IGN is a valid action for it.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Has the children of this process kept until they are waited for, as a process has from the beginning.
pub fn keep_children() {
    // SAFETY: SIG_DFL is a valid action for it.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Marks every descriptor from `first` on to be closed by exec.
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: takes integers; nothing is closed now.
    check(unsafe { libc::syscall(libc::SYS_close_range, first as u32, u32::MAX, CLOSE_RANGE_CLOEXEC) } as i32)
}

/// Closes every descriptor from `first` on except those in `keep`.
///
/// For a child just forked, which must not carry its parent's files into a place where others could reach them.
pub fn close_others(first: RawFd, keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter(|fd| **fd >= first).map(|fd| *fd as u32).collect();
    keep.sort_unstable();
    let mut from = first as u32;
    for kept in keep {
        if kept > from {
            // SAFETY: the child owns its copy of the table and uses no other descriptor afterwards.
            check(unsafe { libc::syscall(libc::SYS_close_range, from, kept - 1, 0) } as i32)?;
        }
        from = from.max(kept + 1);
    }
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_close_range, from, u32::MAX, 0) } as i32)
}

/// Makes `fd` the descriptor `number`, kept open by exec.
pub fn place(fd: RawFd, number: RawFd) -> io::Result<()> {
    if fd == number {
        // SAFETY: takes integers.
        return check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) });
    }
    // SAFETY: takes integers; an open descriptor `number` is closed, which the caller asks for.
    check(unsafe { libc::dup2(fd, number) })
}

/// Sets a resource limit, clamped to what the hard limit allows when it cannot be raised.
pub fn set_limit_clamped(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let wanted = libc::rlimit { rlim_cur: soft.min(hard), rlim_max: hard };
    // SAFETY: both are valid rlimit records.
    unsafe {
        if libc::setrlimit(resource as _, &wanted) == 0 {
            return Ok(());
        }
        check(libc::getrlimit(resource as _, &mut now))?;
        let clamped = libc::rlimit { rlim_cur: soft.min(now.rlim_max), rlim_max: hard.min(now.rlim_max) };
        check(libc::setrlimit(resource as _, &clamped))
    }
}

/// Writes one of the calling process's files under /proc/self.
pub fn write_own(file: &str, text: &str) -> io::Result<()> {
    fs::write(format!("/proc/self/{file}"), text)
}

/// Takes the terminal `fd` as the controlling one of this session, which must have none.
pub fn take_terminal(fd: RawFd) -> io::Result<()> {
    // SAFETY: the request takes an integer.
    check(unsafe { libc::ioctl(fd, libc::TIOCSCTTY, 0) })
}

/// The other end of the pty of which `master` is one, without looking at any path.
pub fn terminal_peer(master: RawFd) -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    let unlocked: libc::c_int = 0;
    // SAFETY: the first request reads an int; the second takes flags and returns a new descriptor.
    unsafe {
        check(libc::ioctl(master, libc::TIOCSPTLCK, &unlocked))?;
        let fd = libc::ioctl(master, libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        check(fd)?;
        Ok(std::os::fd::OwnedFd::from_raw_fd(fd))
    }
}

/// Sets the size of the terminal behind `fd`.
pub fn set_terminal_size(fd: RawFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads a winsize.
    check(unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &size) })
}
