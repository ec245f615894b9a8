//! Control groups: how much of the machine an instance may use, and a grip on all of its processes at once.
//!
//! Two kernels' worth of interface behind one value: version 2 (the usual case), and version 1 with one hierarchy for each
//! controller. What the machine has is found out once, from the mount table; mounts are never changed, and nothing outside
//! the tree's own directory is touched except that its ancestors are told to offer the controllers (version 2).
//!
//! ```text
//!  version 2   /sys/fs/cgroup/holm/<name>            one directory
//!  version 1   /sys/fs/cgroup/{cpu,memory,…}/holm/<name>   one in each hierarchy
//! ```
//!
//! A name may have parts ("instance/container"): limits hold for the part and for all below it. In version 2 processes may
//! live only in parts that have no parts below.

mod delegated;
mod disk;
mod layout;
mod v1;
mod v2;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::error::{Context, Error, Result};
use crate::pidfd::PidFd;

pub use disk::DiskTraffic;
pub use layout::{Layout, MissingControllers};

/// The period that a processor quota is measured over.
pub const CPU_PERIOD_US: u64 = 100_000;
/// The weight of a group that says none.
pub const CPU_WEIGHT_DEFAULT: u32 = 100;
/// Deeper names than this are refused.
const PARTS_MAX: usize = 4;
const PART_SIZE_BYTES_MAX: usize = 128;
/// A frozen or killed group gets there within milliseconds; on a machine with too much to do, within seconds.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
const SETTLE_POLL: Duration = Duration::from_millis(2);

/// What a group may use. `None` means as much as its parent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Processor time in each period of [`CPU_PERIOD_US`]: 250000 is two and a half processors.
    pub cpu_quota_us: Option<u64>,
    /// The share of processor time when there is not enough, 1 to 10000, against 100 for one that says nothing.
    pub cpu_weight: Option<u32>,
    /// Memory, page cache included; past it pages are reclaimed, and if that does not help a process is killed.
    pub memory_max_bytes: Option<u64>,
    /// Swap beside the memory.
    pub swap_max_bytes: Option<u64>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
}

/// What a group uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Processor time since it was made.
    pub cpu_usage_us: u64,
    /// Time that it was held back by its quota.
    pub cpu_throttled_us: u64,
    /// Memory, page cache included.
    pub memory_bytes: u64,
    /// The part of the memory that is page cache which was not used lately, and is given back first.
    pub memory_inactive_file_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// How often a process was killed because the memory was used up.
    pub oom_kills: u64,
}

/// Open files that put the process which writes to them into a group; see [`crate::spawn::Command::cgroup`].
#[derive(Debug)]
pub struct Entrance {
    files: Vec<OwnedFd>,
}

impl Entrance {
    pub(crate) fn into_files(self) -> Vec<OwnedFd> {
        self.files
    }
}

/// The tree of all groups of one owner.
#[derive(Debug, Clone)]
pub struct Tree {
    layout: Layout,
    root: PathBuf,
}

impl Tree {
    /// The tree under `root` ("holm") of the hierarchies that this machine has mounted. Nothing is made yet.
    pub fn probe(root: &str) -> Result<Tree> {
        let layout = Layout::probe(&crate::mount::table()?)
            .map_err(|missing| Error::invalid("use", "control groups", &missing.to_string()))?;
        Tree::with_layout(layout, root)
    }

    /// A tree in a layout that is known.
    pub fn with_layout(layout: Layout, root: &str) -> Result<Tree> {
        Ok(Tree { layout, root: parsed(root)? })
    }

    /// What the machine has.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The group's path below the mount points, with a slash before it: what libcontainer wants as `cgroupsPath`.
    pub fn relative_path(&self, name: &str) -> Result<PathBuf> {
        Ok(Path::new("/").join(&self.root).join(parsed(name)?))
    }

    /// Makes a group, and those above it, and sets its limits. One that is there gets these limits.
    pub fn create(&self, name: &str, limits: &Limits) -> Result<()> {
        let path = self.root.join(parsed(name)?);
        match &self.layout {
            Layout::V2 { mount, controllers } => v2::make(mount, &path, controllers)?,
            Layout::V1 { .. } => {
                for directory in self.directories(name)? {
                    fs::create_dir_all(&directory).context("make control group", directory.display())?;
                }
            }
        }
        self.set(name, limits)
    }

    /// Sets all limits of a group; `None` takes a limit away.
    pub fn set(&self, name: &str, limits: &Limits) -> Result<()> {
        let path = self.root.join(parsed(name)?);
        match &self.layout {
            Layout::V2 { mount, controllers } => v2::set(&mount.join(path), controllers, limits),
            Layout::V1 { hierarchies, .. } => v1::set(hierarchies, &path, limits),
        }
    }

    /// Tells the kernel that processes are about to be moved. The first move after a while waits, 10 ms and more, until no
    /// processor is about to fork without a lock; this waits in its place and moves nothing. Version 2 starts processes where
    /// they are to be, so there it does nothing.
    pub fn foretell(&self) -> Result<()> {
        match &self.layout {
            Layout::V2 { .. } => Ok(()),
            Layout::V1 { hierarchies, .. } => v1::foretell(hierarchies),
        }
    }

    /// Moves a process into a group.
    pub fn add(&self, name: &str, pid: i32) -> Result<()> {
        for directory in self.directories(name)? {
            write(&directory.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Opens a group for a process that is about to be started in it.
    pub fn entrance(&self, name: &str) -> Result<Entrance> {
        let open = |directory: PathBuf| {
            let path = directory.join("cgroup.procs");
            OpenOptions::new()
                .write(true)
                .open(&path)
                .context("open control group", path.display())
                .map(OwnedFd::from)
        };
        Ok(Entrance { files: self.directories(name)?.into_iter().map(open).collect::<Result<_>>()? })
    }

    /// Whether the group is there, in any hierarchy.
    pub fn exists(&self, name: &str) -> Result<bool> {
        Ok(self.places(name)?.iter().any(|directory| directory.is_dir()))
    }

    /// The names of the groups directly below `name`, or below the root for an empty name. Sorted.
    pub fn list(&self, name: &str) -> Result<Vec<String>> {
        let path = if name.is_empty() { self.root.clone() } else { self.root.join(parsed(name)?) };
        let mut names = Vec::new();
        for mount in self.layout.places() {
            names.extend(children(&mount.join(&path))?);
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// The processes of a group and of those below it.
    pub fn processes(&self, name: &str) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for directory in self.directories(name)? {
            for directory in below(&directory)? {
                pids.extend(listed(&directory)?);
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Kills every process of a group and of those below it, and waits until none is left. A group that is not there, or
    /// is empty, is fine. Processes that are being made meanwhile do not escape.
    pub fn kill(&self, name: &str) -> Result<()> {
        if !self.exists(name)? {
            return Ok(());
        }
        let path = self.root.join(parsed(name)?);
        if let Layout::V2 { mount, .. } = &self.layout {
            let killed = v2::kill(&mount.join(&path))?;
            if killed {
                return self.wait_empty(name, SETTLE_TIMEOUT);
            }
        }
        // Frozen processes make no more; a signal reaches them when they are thawed.
        let frozen = self.freeze(name);
        for pid in self.processes(name)? {
            if let Some(process) = PidFd::open(pid)? {
                process.send_signal(Signal::SIGKILL)?;
            }
        }
        self.thaw(name)?;
        match self.wait_empty(name, SETTLE_TIMEOUT) {
            Err(error) => Err(frozen.err().unwrap_or(error)),
            Ok(()) => Ok(()),
        }
    }

    /// Waits until the last process has left.
    pub fn wait_empty(&self, name: &str, timeout: Duration) -> Result<()> {
        settle("wait for the end of processes in", name, timeout, || Ok(self.processes(name)?.is_empty()))
    }

    /// Stops every process of a group where it is, and waits until all have stopped.
    pub fn freeze(&self, name: &str) -> Result<()> {
        let path = self.root.join(parsed(name)?);
        match &self.layout {
            Layout::V2 { mount, .. } => v2::freeze(&mount.join(path), true),
            Layout::V1 { hierarchies, .. } => v1::freeze(hierarchies, &path, true),
        }
    }

    /// Lets the processes of a group run again.
    pub fn thaw(&self, name: &str) -> Result<()> {
        let path = self.root.join(parsed(name)?);
        match &self.layout {
            Layout::V2 { mount, .. } => v2::freeze(&mount.join(path), false),
            Layout::V1 { hierarchies, .. } => v1::freeze(hierarchies, &path, false),
        }
    }

    /// Removes a group and those below it. None there is fine; one that has processes is an error of kind `ResourceBusy`:
    /// kill it first.
    pub fn delete(&self, name: &str) -> Result<()> {
        for directory in self.places(name)? {
            remove(&directory)?;
        }
        Ok(())
    }

    /// Removes the root of the tree, if no group is left in it.
    pub fn delete_root(&self) -> Result<()> {
        for mount in self.layout.places() {
            match fs::remove_dir(mount.join(&self.root)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::new("remove control group", self.root.display(), error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What a group uses.
    pub fn stats(&self, name: &str) -> Result<Stats> {
        let path = self.root.join(parsed(name)?);
        match &self.layout {
            Layout::V2 { mount, .. } => v2::stats(&mount.join(path)),
            Layout::V1 { hierarchies, .. } => v1::stats(hierarchies, &path),
        }
    }

    /// How many processes of a group the kernel killed for lack of memory. [`Self::stats`] has it too, and has the kernel sum up
    /// what is used for that.
    pub fn oom_kills(&self, name: &str) -> Result<u64> {
        let path = self.root.join(parsed(name)?);
        match &self.layout {
            Layout::V2 { mount, .. } => v2::oom_kills(&mount.join(path)),
            Layout::V1 { hierarchies, .. } => v1::oom_kills(hierarchies, &path),
        }
    }

    /// The group's directory in each hierarchy.
    pub fn directories(&self, name: &str) -> Result<Vec<PathBuf>> {
        let path = self.root.join(parsed(name)?);
        Ok(self.layout.mounts().into_iter().map(|mount| mount.join(&path)).collect())
    }
}

impl Tree {
    /// Where a group may have left a directory.
    fn places(&self, name: &str) -> Result<Vec<PathBuf>> {
        let path = self.root.join(parsed(name)?);
        Ok(self.layout.places().into_iter().map(|mount| mount.join(&path)).collect())
    }
}

/// A name of a group: parts of plain characters.
fn parsed(name: &str) -> Result<PathBuf> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    let good = |part: &str| (1..=PART_SIZE_BYTES_MAX).contains(&part.len()) && part.bytes().all(plain);
    let parts: Vec<&str> = name.split('/').collect();
    // A name like "cgroup.procs" would be a file of the kernel's.
    let own = |part: &&str| good(part) && !part.starts_with('.') && !part.starts_with("cgroup.");
    if parts.len() <= PARTS_MAX && parts.iter().all(own) {
        Ok(parts.iter().collect())
    } else {
        Err(Error::invalid(
            "name control group",
            format!("{name:?}"),
            "1 to 4 parts of letters, digits, - _ . @",
        ))
    }
}

/// Waits until `condition` holds.
fn settle(
    operation: &'static str,
    object: &str,
    timeout: Duration,
    condition: impl Fn() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    while !condition()? {
        if Instant::now() >= deadline {
            return Err(Error::new(operation, object, io::Error::from(io::ErrorKind::TimedOut)));
        }
        std::thread::sleep(SETTLE_POLL);
    }
    Ok(())
}

fn write(path: &Path, value: &str) -> Result<()> {
    // Never created: a missing file means a missing controller, and has to show.
    let mut file = OpenOptions::new().write(true).open(path).context("open", path.display())?;
    io::Write::write_all(&mut file, value.as_bytes())
        .context("write", format!("{value} to {}", path.display()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).context("read", path.display())
}

fn read_number(path: &Path) -> Result<u64> {
    let text = read(path)?;
    text.trim().parse().map_err(|_| Error::invalid("read", path.display(), "not a number"))
}

/// The value of a line "key value".
fn field(text: &str, key: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or(0)
}

/// The processes of one directory; a directory that is gone has none.
fn listed(directory: &Path) -> Result<Vec<i32>> {
    let path = directory.join("cgroup.procs");
    let text = match File::open(&path).and_then(io::read_to_string) {
        Ok(text) => text,
        // ENODEV: removed while it was open.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::new("read", path.display(), error)),
    };
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

fn children(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context("list control group", directory.display())?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.context("list control group", directory.display())?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(names)
}

/// A directory and all below it, the deepest last.
fn below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![directory.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        found.extend(children(&directory)?.into_iter().map(|name| directory.join(name)));
        next += 1;
    }
    Ok(found)
}

fn remove(directory: &Path) -> Result<()> {
    for directory in below(directory)?.iter().rev() {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::new("remove control group", directory.display(), error));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parts_of_plain_characters() {
        for name in ["a", "0a1b2c3d", "pod-1/web_2", "holm.slice/x@y"] {
            assert!(parsed(name).is_ok(), "{name}");
        }
        for name in
            ["", "/", "/a", "a/", "a//b", "..", "a/../b", ".hidden", "cgroup.procs", "a b", "a/b/c/d/e", "ü"]
        {
            assert!(parsed(name).is_err(), "{name}");
        }
    }
}
