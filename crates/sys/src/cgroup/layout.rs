//! Which control group interface this machine has, read from the mount table.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::mount::Entry;

/// What limits need. A version 2 group can be frozen without a controller; in version 1 it takes one.
const NEEDED_V2: [&str; 3] = ["cpu", "memory", "pids"];
const NEEDED_V1: [&str; 4] = ["cpu", "memory", "pids", "freezer"];
/// Accounting of processors and disks: good to have.
const WANTED_V2: &str = "io";
const WANTED_V1: [&str; 6] = ["cpu", "memory", "pids", "freezer", "cpuacct", "blkio"];

/// The interface to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// One hierarchy for all.
    V2 {
        /// Where it is mounted.
        mount: PathBuf,
        /// Which of its controllers are used.
        controllers: Vec<String>,
    },
    /// One hierarchy for each controller, or several controllers on one.
    V1 {
        /// Where each controller is mounted.
        hierarchies: BTreeMap<String, PathBuf>,
        /// Where version 2 is mounted beside them, without what limits need; systemd names its groups there.
        unified: Option<PathBuf>,
    },
}

/// Neither interface offers everything that limits need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingControllers {
    /// What version 1 lacks.
    pub missing: Vec<&'static str>,
}

impl fmt::Display for MissingControllers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no control group hierarchy offers {}", self.missing.join(", "))
    }
}

impl std::error::Error for MissingControllers {}

impl Layout {
    /// Finds the interface in a mount table: version 2 if it offers what limits need, else version 1.
    pub fn probe(table: &[Entry]) -> std::result::Result<Layout, MissingControllers> {
        let offered =
            |mount: &PathBuf| std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        Layout::choose(table, offered)
    }

    fn choose(
        table: &[Entry],
        offered: impl Fn(&PathBuf) -> String,
    ) -> std::result::Result<Layout, MissingControllers> {
        for entry in table.iter().filter(|entry| entry.kind == "cgroup2") {
            let text = offered(&entry.target);
            let offers = |wanted: &str| text.split_whitespace().any(|offered| offered == wanted);
            if NEEDED_V2.iter().all(|needed| offers(needed)) {
                let mut controllers = NEEDED_V2.map(str::to_owned).to_vec();
                controllers.extend(offers(WANTED_V2).then(|| WANTED_V2.to_owned()));
                return Ok(Layout::V2 { mount: entry.target.clone(), controllers });
            }
        }
        let mut hierarchies = BTreeMap::new();
        for entry in table.iter().filter(|entry| entry.kind == "cgroup") {
            for option in entry.file_system_options.split(',').filter(|option| WANTED_V1.contains(option)) {
                // The same hierarchy may be mounted twice; one place is enough.
                hierarchies.entry(option.to_owned()).or_insert_with(|| entry.target.clone());
            }
        }
        let missing: Vec<_> =
            NEEDED_V1.into_iter().filter(|needed| !hierarchies.contains_key(*needed)).collect();
        if !missing.is_empty() {
            return Err(MissingControllers { missing });
        }
        let unified = table.iter().find(|entry| entry.kind == "cgroup2").map(|entry| entry.target.clone());
        Ok(Layout::V1 { hierarchies, unified })
    }

    /// Where the hierarchies are mounted, each once.
    pub(super) fn mounts(&self) -> Vec<PathBuf> {
        match self {
            Layout::V2 { mount, .. } => vec![mount.clone()],
            Layout::V1 { hierarchies, .. } => {
                let mut mounts: Vec<PathBuf> = hierarchies.values().cloned().collect();
                mounts.sort();
                mounts.dedup();
                mounts
            }
        }
    }

    /// Where version 2 is mounted, with controllers or without.
    pub fn unified(&self) -> Option<&Path> {
        match self {
            Layout::V2 { mount, .. } => Some(mount),
            Layout::V1 { unified, .. } => unified.as_deref(),
        }
    }

    /// Where a group may have a directory: the hierarchies, and version 2 beside them.
    pub(super) fn places(&self) -> Vec<PathBuf> {
        let mut places = self.mounts();
        if let Layout::V1 { unified: Some(unified), .. } = self {
            places.push(unified.clone());
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, target: &str, options: &str) -> Entry {
        Entry {
            id: 1,
            parent_id: 0,
            device: "0:1".into(),
            root: "/".into(),
            target: target.into(),
            options: "rw".into(),
            shared: false,
            kind: kind.into(),
            source: "cgroup".into(),
            file_system_options: options.into(),
        }
    }

    #[test]
    fn the_interface_is_chosen_by_what_it_offers() {
        let unified = entry("cgroup2", "/sys/fs/cgroup", "rw,nsdelegate");
        let offers = |text: &'static str| move |_: &PathBuf| text.to_owned();
        let layout = Layout::choose(std::slice::from_ref(&unified), offers("cpuset cpu io memory pids"));
        let Ok(Layout::V2 { mount, controllers }) = layout else { panic!("{layout:?}") };
        assert_eq!((mount.as_path(), controllers.len()), (Path::new("/sys/fs/cgroup"), 4));
        let layout = Layout::choose(std::slice::from_ref(&unified), offers("cpu memory pids"));
        assert!(
            matches!(layout, Ok(Layout::V2 { controllers, .. }) if controllers == ["cpu", "memory", "pids"])
        );

        let hybrid = [
            entry("cgroup", "/c/cpu,cpuacct", "rw,cpu,cpuacct"),
            entry("cgroup", "/c/memory", "rw,memory"),
            entry("cgroup", "/c/pids", "rw,pids"),
            entry("cgroup", "/c/freezer", "rw,freezer"),
            entry("cgroup", "/c/systemd", "rw,name=systemd"),
            entry("cgroup2", "/c/unified", "rw"),
        ];
        let layout = Layout::choose(&hybrid, offers("hugetlb")).expect("all there");
        let Layout::V1 { hierarchies, .. } = &layout else { panic!("{layout:?}") };
        assert_eq!(hierarchies.len(), 5);
        assert_eq!(layout.mounts().len(), 4, "cpu and cpuacct share one");
        assert_eq!(layout.unified(), Some(Path::new("/c/unified")));
        assert_eq!(layout.places().len(), 5);

        let missing = Layout::choose(&hybrid[..2], offers("")).expect_err("not all there");
        assert_eq!(missing.missing, ["pids", "freezer"]);
        assert_eq!(missing.to_string(), "no control group hierarchy offers pids, freezer");
    }
}
