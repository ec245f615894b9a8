//! The machine itself: who we are, kernel, control groups, namespaces, file systems, memory, disk, clock.

use super::{DoctorArgs, Finding, first_line};
use crate::cli::wording;
use model::node::{Room, STORAGE_LOW_PERCENT};
use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

/// Oldest kernel with all that holm uses (idmapped mounts of overlay's layers came with 5.15 and 5.19).
const KERNEL_MIN: (u32, u32) = (5, 15);
/// Kernel from which nothing is lacking.
const KERNEL_GOOD: (u32, u32) = (6, 1);
const GIB: u64 = 1 << 30;

/// All checks of this file.
pub fn look(args: &DoctorArgs, socket: &Path, is_root: bool) -> Vec<Finding> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut all = vec![
        privilege(is_root),
        kernel(read("/proc/sys/kernel/osrelease").trim()),
        cgroups(),
        namespaces(),
        file_systems(&read("/proc/filesystems")),
        seccomp(&read("/proc/sys/kernel/seccomp/actions_avail")),
        memory(&read("/proc/meminfo")),
        disk(&args.state),
        open_files(&read("/proc/self/limits")),
        clock(),
        daemon(socket),
    ];
    if is_root {
        all.insert(5, idmapped_mounts(&args.state));
    }
    all
}

fn privilege(is_root: bool) -> Finding {
    if is_root {
        return Finding::ok("privilege", "root");
    }
    Finding::warn(
        "privilege",
        "not root: some checks were left out",
        "look again with `sudo holm doctor`; the daemon needs root",
    )
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (major, minor) = KERNEL_MIN;
    if version < KERNEL_MIN {
        return Finding::fail(
            "kernel",
            format!("Linux {release}"),
            format!(
                "holm needs Linux {major}.{minor} or later: use a newer distribution or its backported kernel"
            ),
        );
    }
    if version < KERNEL_GOOD {
        return Finding::warn(
            "kernel",
            format!("Linux {release}"),
            "Linux 6.1 or later starts containers faster (layers are shifted by the mount, not copied)",
        );
    }
    Finding::ok("kernel", format!("Linux {release}"))
}

fn cgroups() -> Finding {
    match sys::cgroup::Tree::probe("holm") {
        Ok(_) => {
            let unified = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
            let kind = if unified.contains("memory") {
                "version 2"
            } else {
                "version 1 (limits work; newer distributions have version 2)"
            };
            Finding::ok("control groups", kind)
        }
        Err(error) => Finding::fail(
            "control groups",
            error.to_string(),
            "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 on /sys/fs/cgroup",
        ),
    }
}

fn namespaces() -> Finding {
    let missing: Vec<&str> = ["user", "net", "mnt", "pid", "uts", "ipc", "cgroup"]
        .into_iter()
        .filter(|n| !Path::new("/proc/self/ns").join(n).exists())
        .collect();
    if !missing.is_empty() {
        return Finding::fail(
            "namespaces",
            format!("the kernel has no {} namespaces", missing.join(", ")),
            "use a distribution's own kernel",
        );
    }
    let max = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    if max.trim() == "0" {
        return Finding::fail(
            "namespaces",
            "user namespaces are switched off",
            "sysctl -w user.max_user_namespaces=15000, and put it into /etc/sysctl.d/",
        );
    }
    Finding::ok("namespaces", "user, net, mnt, pid, uts, ipc, cgroup")
}

fn file_systems(known: &str) -> Finding {
    if known.lines().any(|line| line.trim_end().ends_with("overlay")) {
        return Finding::ok("overlay", "the kernel has it");
    }
    if first_line("modprobe", &["-n", "-v", "overlay"]).is_some() {
        return Finding::ok("overlay", "a module, loaded when it is needed");
    }
    Finding::fail(
        "overlay",
        "the kernel has no overlay file system",
        "modprobe overlay, or use a distribution's own kernel",
    )
}

/// Tried on a clone of the mount that nothing else sees and that is gone at once.
fn idmapped_mounts(state: &Path) -> Finding {
    let place = nearest(state);
    match sys::mount::idmapped_clone(&place, &sys::userns::IdMap::shifted(0x1000_0000, 65_536)) {
        Ok(_) => Finding::ok("idmapped mounts", format!("work on {}", place.display())),
        Err(error) => Finding::warn(
            "idmapped mounts",
            format!("do not work on {}: {}", place.display(), error.source),
            "put the state directory on ext4, xfs or btrfs; else layers of containers are copied for each range of users",
        ),
    }
}

fn seccomp(actions: &str) -> Finding {
    if actions.contains("errno") {
        return Finding::ok("seccomp", "filters work");
    }
    Finding::fail("seccomp", "the kernel has no seccomp filters", "use a kernel with CONFIG_SECCOMP_FILTER")
}

fn memory(info: &str) -> Finding {
    let kib = |key: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    let (total, free) = (kib("MemTotal").unwrap_or(0) * 1024, kib("MemAvailable").unwrap_or(0) * 1024);
    let found = format!("{} of {} are free", wording::bytes(free), wording::bytes(total));
    if free < GIB / 4 {
        return Finding::warn(
            "memory",
            found,
            "a small virtual machine takes 512 MiB: end something, or add memory",
        );
    }
    Finding::ok("memory", found)
}

/// The path itself, or the nearest directory above it that is there.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/")).to_path_buf()
}

fn disk(state: &Path) -> Finding {
    let place = nearest(state);
    let Ok(room) = node::host::disk_room(&place) else {
        return Finding::warn(
            "disk",
            format!("{} cannot be looked at", place.display()),
            "name another directory with --state",
        );
    };
    judge_disk(state, room)
}

fn judge_disk(state: &Path, room: Room) -> Finding {
    let (free, used) = (room.available_bytes, room.used_percent());
    let found = format!("{} are free for {} ({used} % used)", wording::bytes(free), state.display());
    match free / GIB {
        10.. if used >= STORAGE_LOW_PERCENT => Finding::warn(
            "disk",
            found,
            "virtual machines that find no room stand still: delete volumes, snapshots or images, or give it more space",
        ),
        0 => Finding::fail("disk", found, "free some space, or name another directory with --state"),
        1..10 => Finding::warn(
            "disk",
            found,
            "images and disks of virtual machines take gigabytes: free some space, or name another directory with --state",
        ),
        _ => Finding::ok("disk", found),
    }
}

fn open_files(limits: &str) -> Finding {
    const WANTED: u64 = 8_192;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    let hard = line.split_whitespace().nth(4).unwrap_or("0");
    match hard.parse::<u64>() {
        Ok(count) if count < WANTED => Finding::warn(
            "open files",
            format!("at most {count}"),
            format!("raise the hard limit to {WANTED} or more: LimitNOFILE= in the service, or `ulimit -Hn`"),
        ),
        _ => Finding::ok("open files", format!("at most {hard}")),
    }
}

fn clock() -> Finding {
    match first_line("timedatectl", &["show", "-p", "NTPSynchronized", "--value"]).as_deref() {
        Some("yes") => Finding::ok("clock", "set by the network"),
        Some(_) => Finding::warn(
            "clock",
            "not set by the network",
            "timedatectl set-ntp true: certificates, tokens and backups stand on the time",
        ),
        None => Finding::ok("clock", "nobody here can tell who sets it"),
    }
}

fn daemon(socket: &Path) -> Finding {
    match UnixStream::connect(socket) {
        Ok(_) => Finding::ok("daemon", format!("holm runs already, at {}", socket.display())),
        Err(_) => Finding::ok("daemon", format!("none at {}", socket.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    #[test]
    fn kernels_are_judged() {
        for (release, level) in [
            ("6.18.4-x", Level::Ok),
            ("6.1.0-18-amd64", Level::Ok),
            ("5.15.0-91-generic", Level::Warn),
            ("5.10.0", Level::Fail),
            ("4.19", Level::Fail),
            ("", Level::Fail),
        ] {
            assert_eq!(kernel(release).level, level, "{release}");
        }
    }

    #[test]
    fn room_is_judged_by_what_is_left_and_by_its_share() {
        for (used_gib, free_gib, level) in [
            (10, 100, Level::Ok),
            (79, 21, Level::Ok),
            (80, 20, Level::Warn),
            (1, 9, Level::Warn),
            (99, 0, Level::Fail),
        ] {
            let (used_bytes, available_bytes) = (used_gib * GIB, free_gib * GIB);
            let room = Room { total_bytes: used_bytes + available_bytes, used_bytes, available_bytes };
            assert_eq!(judge_disk(Path::new("/var/lib/holm"), room).level, level, "{used_gib} {free_gib}");
        }
    }

    #[test]
    fn limits_and_memory_are_read() {
        let limits = "Limit   Soft Limit   Hard Limit   Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(open_files(limits).level, Level::Warn);
        assert_eq!(open_files("").level, Level::Warn);
        assert_eq!(memory("MemTotal: 2000000 kB\nMemAvailable: 1000 kB\n").level, Level::Warn);
    }
}
