//! Groups whose users make groups of their own below them: what an init like systemd needs.
//!
//! Only version 2 can be given away (cgroups(7), "Delegation"). Where limits are kept by version 1 and version 2 is mounted
//! beside it, a group of the same name is made there: an init sorts its services in it, and the limits hold as before, since
//! all its processes stay in one group of each version 1 hierarchy.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use super::{Layout, Tree, parsed, v2, write};
use crate::error::{Context, Error, Result};

/// What belongs to whom a group is given to (Documentation/admin-guide/cgroup-v2.rst, "Model of Delegation", and what
/// kernels list in /sys/kernel/cgroup/delegate). The limits do not.
const GIVEN_AWAY: [&str; 4] =
    ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "memory.oom.group"];
/// An init may move itself between a look and the next step.
const TRIES_MAX: usize = 8;

impl Tree {
    /// Gives a group that is there to a user of the host: its processes may make groups below it and move in them.
    pub fn delegate(&self, name: &str, owner: u32) -> Result<()> {
        let path = self.root.join(parsed(name)?);
        let Some(mount) = self.layout.unified() else {
            let why = "control groups of version 2 are not mounted, not even beside version 1";
            return Err(Error::invalid("give away control group", name, why));
        };
        if matches!(self.layout, Layout::V1 { .. }) {
            v2::make(mount, &path, &[])?;
        }
        let directory = mount.join(path);
        chown(&directory, Some(owner), Some(owner)).context("give away", directory.display())?;
        for file in GIVEN_AWAY.map(|file| directory.join(file)) {
            match chown(&file, Some(owner), Some(owner)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::new("give away", file.display(), error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Moves a process into a group that is given away, before it has any below it.
    pub fn add_delegated(&self, name: &str, pid: i32) -> Result<()> {
        self.add(name, pid)?;
        match self.beside_limits(name)? {
            Some(directory) => write(&directory.join("cgroup.procs"), &pid.to_string()),
            None => Ok(()),
        }
    }

    /// Moves a process into a group that is given away, to where `first` is by now: with groups below it, the group itself
    /// may take no process any more.
    pub fn add_beside(&self, name: &str, first: i32, pid: i32) -> Result<()> {
        if matches!(self.layout, Layout::V1 { .. }) {
            self.add(name, pid)?;
        }
        let Some(mount) = self.layout.unified() else { return Ok(()) };
        let own = self.root.join(parsed(name)?);
        for tried in 1.. {
            let place = unified_group_of(first)?.filter(|place| place.starts_with(&own));
            let directory = mount.join(place.as_ref().unwrap_or(&own));
            match write(&directory.join("cgroup.procs"), &pid.to_string()) {
                Err(error) if tried == TRIES_MAX => return Err(error),
                Err(_) => {}
                Ok(()) => break,
            }
        }
        Ok(())
    }

    /// The group's directory in version 2, where that is another than the one with its limits.
    fn beside_limits(&self, name: &str) -> Result<Option<PathBuf>> {
        let path = self.root.join(parsed(name)?);
        Ok(match &self.layout {
            Layout::V2 { .. } => None,
            Layout::V1 { unified, .. } => unified.as_ref().map(|mount| mount.join(path)),
        })
    }
}

/// The group of version 2 that a process is in, below the mount point (cgroups(7), /proc/PID/cgroup).
fn unified_group_of(pid: i32) -> Result<Option<PathBuf>> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).context("read", &path)?;
    Ok(text.lines().find_map(|line| line.strip_prefix("0::/")).map(PathBuf::from))
}
