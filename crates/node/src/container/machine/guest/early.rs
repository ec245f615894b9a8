//! From a bare kernel to a host that a shim could run on.

use super::{
    super::{PORT, boot::MODULES},
    Outcome, Step,
};
use nix::mount::{MsFlags, mount};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use sys::{jail::privilege, machine};

/// How long a device may take to be there.
pub(super) const DEVICE_TIMEOUT: Duration = Duration::from_secs(10);
const DEVICE_POLL: Duration = Duration::from_millis(5);
/// Descriptors that a process may ask for, as systemd has it: the kernel's own limit is too low for servers.
const OPEN_FILES: (u64, u64) = (1024, 1 << 19);
/// What hosts usually are set to, and containers cannot set themselves.
const SETTINGS: [(&str, &str); 3] = [
    ("vm/max_map_count", "1048576"),
    ("fs/inotify/max_user_instances", "1024"),
    ("fs/inotify/max_user_watches", "524288"),
];

/// A file system of the kernel's.
struct Kernels {
    kind: &'static str,
    place: &'static str,
    flags: MsFlags,
    options: Option<&'static str>,
}

/// Makes the first file system one that can be left: the kernel's own mount of it never can, and a container leaves its
/// root behind by pivot_root(2). A second mount of the same files is put over it, so that nothing is copied.
pub(super) fn leave_first_root() -> Outcome {
    const NEW: &str = "/newroot";
    let none = None::<&str>;
    mount(Some("/"), NEW, none, MsFlags::MS_BIND, none).step(|| "mount the root again".into())?;
    std::env::set_current_dir(NEW).step(|| "enter the new root".into())?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none).step(|| "move the new root".into())?;
    nix::unistd::chroot(".").step(|| "change the root".into())?;
    std::env::set_current_dir("/").step(|| "enter the root".into())
}

/// Mounts what the kernel shows of itself, and memory for what is written.
pub(super) fn mount_all() -> Outcome {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let data = plain | MsFlags::MS_NOEXEC;
    let all = [
        Kernels { kind: "proc", place: "/proc", flags: data, options: None },
        Kernels { kind: "sysfs", place: "/sys", flags: data, options: None },
        Kernels { kind: "devtmpfs", place: "/dev", flags: MsFlags::MS_NOSUID, options: Some("mode=0755") },
        Kernels {
            kind: "devpts",
            place: "/dev/pts",
            flags: MsFlags::MS_NOSUID,
            options: Some("mode=0620,gid=5"),
        },
        Kernels { kind: "tmpfs", place: "/run", flags: plain, options: Some("mode=0755") },
        Kernels { kind: "tmpfs", place: "/tmp", flags: plain, options: Some("mode=1777") },
        Kernels { kind: "cgroup2", place: "/sys/fs/cgroup", flags: data, options: Some("nsdelegate") },
    ];
    for Kernels { kind, place, flags, options } in all {
        // The kernel makes the directories in its own file systems, but for this one.
        if kind == "devpts" {
            fs::create_dir_all(place).step(|| format!("create {place}"))?;
        }
        mount(Some(kind), place, Some(kind), flags, options).step(|| format!("mount {place}"))?;
    }
    Ok(())
}

/// Gives the kernel its modules in their order, which is that of their names, and lets their memory go.
pub(super) fn load_modules() -> Outcome {
    let entries = fs::read_dir(MODULES).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut paths: Vec<PathBuf> = match entries {
        // Everything is built in.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.step(|| format!("list {MODULES}"))?.into_iter().map(|it| it.path()).collect(),
    };
    paths.sort();
    for path in paths {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let image = fs::read(&path).step(|| format!("read {}", path.display()))?;
        machine::load_module(&name, &image).step(|| format!("start the kernel's module {name}"))?;
        fs::remove_file(&path).step(|| format!("remove {}", path.display()))?;
    }
    fs::remove_dir(MODULES).step(|| format!("remove {MODULES}"))
}

/// What a host's own init sets for all that it starts.
pub(super) fn settle() -> Outcome {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    privilege::set_limit_clamped(libc::RLIMIT_NOFILE, OPEN_FILES.0, OPEN_FILES.1)
        .step(|| "set the limit of open files".into())?;
    for resource in [libc::RLIMIT_NPROC, libc::RLIMIT_MEMLOCK] {
        privilege::set_limit_clamped(resource, libc::RLIM_INFINITY, libc::RLIM_INFINITY)
            .step(|| "lift a limit of processes".into())?;
    }
    for (key, value) in SETTINGS {
        match fs::write(format!("/proc/sys/{key}"), value) {
            // A kernel without it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            written => written.step(|| format!("set {key}"))?,
        }
    }
    Ok(())
}

/// The port that the relay listens on, by its name.
pub(super) fn open_port() -> Outcome<File> {
    let ports = Path::new("/sys/class/virtio-ports");
    let find = || {
        let entries = fs::read_dir(ports).into_iter().flatten().flatten();
        let mut named = entries.filter(|entry| is(&entry.path().join("name"), PORT));
        named.next().map(|entry| Path::new("/dev").join(entry.file_name()))
    };
    let path = wait_for(find).ok_or_else(|| format!("the machine has no port named {PORT:?}"))?;
    let opened = wait_for(|| match File::options().read(true).write(true).open(&path) {
        // The node comes a moment later than the device.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        opened => Some(opened),
    });
    opened
        .ok_or_else(|| format!("{} did not come up", path.display()))?
        .step(|| format!("open {}", path.display()))
}

/// Whether a file of the kernel's holds this text.
pub(super) fn is(path: &Path, text: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|read| read.trim_end_matches('\n') == text)
}

/// Looks again and again, until there is something or the time for devices is over.
pub(super) fn wait_for<T>(mut find: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + DEVICE_TIMEOUT;
    loop {
        match find() {
            None if Instant::now() < deadline => std::thread::sleep(DEVICE_POLL),
            found => return found,
        }
    }
}
