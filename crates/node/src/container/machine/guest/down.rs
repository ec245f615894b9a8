//! The end of the machine: no process, no mount that could be written, no power.

use super::{reap, tell};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::{
    convert::Infallible,
    path::Path,
    time::{Duration, Instant},
};
use sys::machine;

/// How long killed processes may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(3);
const KILL_POLL: Duration = Duration::from_millis(5);

/// Ends everything and takes the power away. What is on a disk is whole then.
pub(super) fn power_off() -> ! {
    if let Err(error) = machine::kill_all_others() {
        tell(&format!("{error}: {}", error.source));
    }
    let deadline = Instant::now() + KILL_TIMEOUT;
    while has_children() && Instant::now() < deadline {
        std::thread::sleep(KILL_POLL);
    }
    unmount_disks();
    nix::unistd::sync();
    let error = match machine::power_off() {
        Ok(()) => "the power stays on".into(),
        Err(error) => format!("{error}: {}", error.source),
    };
    tell(&error);
    let _: Infallible = wait_forever();
    unreachable!("nothing comes behind for ever")
}

fn wait_forever() -> Infallible {
    loop {
        reap();
        std::thread::sleep(KILL_TIMEOUT);
    }
}

/// Collects those that have ended, and tells whether others live.
fn has_children() -> bool {
    reap();
    // Whoever is left is a child of this process by now, as its parents are gone.
    std::fs::read_to_string("/proc/self/task/1/children").is_ok_and(|children| !children.trim().is_empty())
}

/// Takes the mounts of disks away, the newest first. One that somebody holds on to is at least not written any more.
fn unmount_disks() {
    let mounts = match sys::mount::table() {
        Ok(mounts) => mounts,
        Err(error) => return tell(&format!("{error}: {}", error.source)),
    };
    for entry in mounts.iter().rev().filter(|entry| entry.kind == "ext4") {
        unmount(&entry.target);
    }
}

fn unmount(target: &Path) {
    let Err(error) = umount2(target, MntFlags::UMOUNT_NOFOLLOW) else { return };
    tell(&format!("cannot unmount {}: {error}", target.display()));
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    if let Err(error) = mount(None::<&str>, target, None::<&str>, read_only, None::<&str>) {
        tell(&format!("cannot stop writes to {}: {error}", target.display()));
    }
}
