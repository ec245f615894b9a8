//! What a holm has on the machine outside of namespaces: processes, control groups, mounts, files. Shown to prove
//! that nothing is left, and taken away by force when a lab goes.
//!
//! A lab that is cut off cannot do that for itself. When it is told to end (SIGTERM, SIGINT) it still sweeps first; what a
//! lab left that was killed, or whose machine went down, the next lab that starts sweeps. So each keeps a note in its
//! directory, locked as long as its process lives.

use nix::{
    fcntl::{Flock, FlockArg},
    mount::MntFlags,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};
use sys::cgroup::Tree;

const SWEEP_PATIENCE: Duration = Duration::from_secs(10);
/// Beginning of the name of a lab's directory.
pub(crate) const DIRECTORY_PREFIX: &str = "holm-";
/// The note in it: what its control groups are called.
const NOTE: &str = "lab";

/// The locked note of a lab that lives.
pub(crate) struct Note(#[allow(dead_code, reason = "held, not read")] Flock<File>);

/// Sweeps what labs left whose processes are gone.
pub fn sweep_dead_labs() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let directory = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(DIRECTORY_PREFIX) {
            continue;
        }
        let Ok(file) = File::open(directory.join(NOTE)) else { continue };
        let Ok(_note) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
        let prefix = fs::read_to_string(directory.join(NOTE)).unwrap_or_default();
        if prefix.is_empty() {
            continue;
        }
        eprintln!("sweeping what a dead run left in {}", directory.display());
        Remains::of(&directory, &prefix).sweep_all();
    }
}

/// Where the things of one holm are.
#[derive(Clone)]
pub struct Remains {
    directory: PathBuf,
    prefix: String,
    groups: Tree,
}

impl Remains {
    /// Of the holm whose state and run directories lie below `directory` and whose control groups bear `prefix`.
    ///
    /// # Panics
    /// When this machine has no control groups.
    pub fn of(directory: &Path, prefix: &str) -> Self {
        let groups = Tree::probe(prefix).expect("control groups");
        Self { directory: directory.to_path_buf(), prefix: prefix.into(), groups }
    }

    /// What the control groups bear.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Processes that name the directory in their arguments or live in one of the groups.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let mark = self.directory.to_string_lossy().into_owned();
        let grouped = self.grouped();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let Ok(bytes) = fs::read(entry.path().join("cmdline")) else {
                continue;
            };
            let arguments = String::from_utf8_lossy(&bytes).replace('\0', " ");
            if arguments.contains(&mark) || grouped.contains(&pid) {
                found.push((pid, arguments));
            }
        }
        found
    }

    fn grouped(&self) -> Vec<i32> {
        let names = self.groups.list("").unwrap_or_default();
        names.iter().flat_map(|name| self.groups.processes(name).unwrap_or_default()).collect()
    }

    /// Control groups.
    pub fn control_groups(&self) -> Vec<String> {
        self.groups.list("").unwrap_or_default()
    }

    /// The tree of control groups.
    pub fn tree(&self) -> &Tree {
        &self.groups
    }

    /// Mounts below the directory.
    pub fn mounts(&self) -> Vec<PathBuf> {
        let below = sys::mount::below(&self.directory).unwrap_or_default();
        below.into_iter().map(|entry| entry.target).collect()
    }

    /// Notes that a lab is here, for those that come after it should it be cut off.
    pub(crate) fn note(&self) -> Note {
        // Whoever sees it finds it locked.
        let made = self.directory.join(".lab");
        let mut file = File::create(&made).expect("note");
        file.write_all(self.prefix.as_bytes()).expect("note");
        let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error);
        fs::rename(&made, self.directory.join(NOTE)).expect("note");
        Note(locked.expect("a lock on one's own note"))
    }

    /// Sweeps, and removes the directory too.
    pub(crate) fn sweep_all(&self) {
        self.sweep();
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("{} is left: {error}", self.directory.display());
        }
    }

    /// Kills, unmounts and removes what there is, except for the test's own process and the directory itself.
    pub fn sweep(&self) {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        // Those that are killed may have started others meanwhile.
        let _ = crate::until(SWEEP_PATIENCE, || {
            for name in self.control_groups() {
                let _ = self.groups.kill(&name);
            }
            let strangers: Vec<i32> =
                self.processes().into_iter().map(|(pid, _)| pid).filter(|pid| *pid != own).collect();
            for pid in &strangers {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            strangers.is_empty().then_some(())
        });
        let mut mounts = self.mounts();
        mounts.reverse();
        for mount in mounts {
            let _ = nix::mount::umount2(&mount, MntFlags::MNT_DETACH);
        }
        for name in self.control_groups() {
            let _ = self.groups.delete(&name);
        }
        let _ = self.groups.delete_root();
    }
}
