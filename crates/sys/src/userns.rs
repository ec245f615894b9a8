//! User namespaces as open files: a mapping of users that mounts and containers are given.
//!
//! A namespace needs a process to be made in. That process is a copy of ours which does nothing, is killed and reaped
//! before the function returns, and dies with us if we die first. Source: user_namespaces(7).

use std::fmt::Write;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::clone::clone_process;
use crate::error::{Context, Error, Result};
use crate::pidfd::PidFd;

/// The kernel takes at most so many lines in a map.
const EXTENTS_MAX: usize = 340;
/// A killed process that does nothing is gone within microseconds.
const REAP_TIMEOUT: Duration = Duration::from_secs(30);

/// A run of ids: `inside`, `inside + 1`, … are `outside`, `outside + 1`, ….
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// The first id as seen inside (on the disk, for an id-mapped mount).
    pub inside: u32,
    /// The first id on the host.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Which users and groups inside are which on the host. Ids that no extent names do not exist inside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdMap {
    /// Users.
    pub uids: Vec<Extent>,
    /// Groups.
    pub gids: Vec<Extent>,
}

impl IdMap {
    /// Users and groups 0 to `count` - 1 inside are `base` and on outside.
    pub fn shifted(base: u32, count: u32) -> IdMap {
        let extents = vec![Extent { inside: 0, outside: base, count }];
        IdMap { uids: extents.clone(), gids: extents }
    }
}

/// Makes a user namespace with this map and returns it as an open file; it lives as long as the file does.
pub fn create(map: &IdMap) -> Result<OwnedFd> {
    make(map, libc::CLONE_NEWUSER, "user")
}

fn make(map: &IdMap, flags: libc::c_int, kind: &str) -> Result<OwnedFd> {
    let uids = text_of(&map.uids)?;
    let gids = text_of(&map.gids)?;
    let parent = std::process::id() as libc::c_int;
    // SAFETY: `hold` makes three raw system calls and touches no memory.
    let holder = unsafe { clone_process(flags, "user namespace", || hold(parent)) }?;
    let result = write_maps(&holder, &uids, &gids, kind);
    // The holder is ended whether the maps were taken or not.
    holder.send_signal(Signal::SIGKILL)?;
    holder
        .wait_exit(REAP_TIMEOUT)?
        .ok_or_else(|| Error::invalid("end holder of", "user namespace", "it did not end"))?;
    result
}

/// Makes a user namespace with this map and a network namespace that belongs to it, and returns the network namespace
/// as an open file. Whoever is privileged in the user namespace is in the network too. [`owner`] gives the former.
pub fn create_with_network(map: &IdMap) -> Result<OwnedFd> {
    make(map, libc::CLONE_NEWUSER | libc::CLONE_NEWNET, "net")
}

/// The user namespace that a namespace (given as an open file of any kind) belongs to. Source: ioctl_nsfs(2).
pub fn owner(namespace: impl AsFd) -> Result<OwnedFd> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: the request takes no argument and returns a new descriptor.
    let descriptor = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_USERNS) };
    if descriptor < 0 {
        return Err(Error::last("find owner of", "namespace"));
    }
    // SAFETY: the kernel has just made it, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The process that the namespace is made in: waits to be killed, by us or by our end.
fn hold(parent: libc::c_int) {
    // SAFETY: numbers only; none of these touches memory of ours.
    unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        while libc::syscall(libc::SYS_getppid) == libc::c_long::from(parent) {
            libc::syscall(libc::SYS_pause);
        }
    }
}

fn write_maps(holder: &PidFd, uids: &str, gids: &str, kind: &str) -> Result<OwnedFd> {
    let directory = format!("/proc/{}", holder.pid());
    fs::write(format!("{directory}/uid_map"), uids).context("map users of", "user namespace")?;
    fs::write(format!("{directory}/gid_map"), gids).context("map groups of", "user namespace")?;
    let file = File::open(format!("{directory}/ns/{kind}")).context("open", format!("{kind} namespace"))?;
    Ok(file.into())
}

fn text_of(extents: &[Extent]) -> Result<String> {
    if extents.is_empty() || extents.len() > EXTENTS_MAX {
        return Err(Error::invalid("map ids of", "user namespace", "1 to 340 extents"));
    }
    let mut text = String::new();
    for Extent { inside, outside, count } in extents {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{inside} {outside} {count}");
    }
    Ok(text)
}
