//! Paths as docker's clients send them, and what lies there.
//!
//! A path is read as Go's `path.Join("/", path)` does: `..` never climbs above the root, and goes before anything is
//! looked at. Of a link the link itself is meant, unless the path ends with a slash or a dot.

use super::{ContainerFiles, FilesError, Seen, io_at, shown};
use rustix::{
    fs::{self as rfs, FileType, Mode, OFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    ffi::{CString, OsStr},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
};
use sys::jail::tree;

/// Longest path in bytes (PATH_MAX).
const PATH_BYTES_MAX: usize = 4096;
/// Most links that are followed to tell where one leads in the end.
const LINKS_MAX: usize = 40;
/// Most steps on that way: a container can make a chain of links that is as long as its texts together.
const STEPS_MAX: usize = 4096;

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStat {
    /// The last part of the path: `/` for the root, `.` where the path ends so.
    pub name: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Kind and permissions (inode(7)).
    pub mode: u32,
    /// Seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Where a link leads in the end, as a path of the container; empty for all else.
    pub link_target: String,
}

impl PathStat {
    /// The same, as far as it may come of a guest that was asked for this path.
    pub(super) fn believed(self, asked: &Asked) -> Self {
        let target: String = self.link_target.chars().filter(|it| !it.is_control()).take(400).collect();
        Self {
            name: String::from_utf8_lossy(&asked.name).into_owned(),
            mtime: (self.mtime.0, self.mtime.1.min(999_999_999)),
            link_target: target,
            ..self
        }
    }
}

/// A path that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Its parts, without `.` and `..`.
    pub parts: Vec<Vec<u8>>,
    /// A link at its end is followed.
    pub follows: bool,
    /// Its last part, as archives name what lies there.
    pub name: Vec<u8>,
}

/// What was found at a path.
pub(super) struct Found {
    /// An `O_PATH` handle.
    pub handle: OwnedFd,
    pub seen: Seen,
}

impl Asked {
    pub fn read(path: &str) -> Result<Self, FilesError> {
        let bytes = path.as_bytes();
        if bytes.len() > PATH_BYTES_MAX || bytes.contains(&0) {
            return Err(FilesError::Missing(shown(bytes)));
        }
        let mut parts: Vec<Vec<u8>> = vec![];
        for part in bytes.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop();
                }
                part => parts.push(part.to_vec()),
            }
        }
        let is_dotted = bytes == b"." || bytes.ends_with(b"/.");
        let name = match parts.last() {
            _ if is_dotted => b".".to_vec(),
            Some(last) => last.clone(),
            None => b"/".to_vec(),
        };
        Ok(Self { follows: is_dotted || bytes.ends_with(b"/") || parts.is_empty(), parts, name })
    }

    /// As a path below the root.
    pub fn path(&self) -> PathBuf {
        joined(&self.parts)
    }

    /// For people.
    pub fn text(&self) -> String {
        shown(self.path().as_os_str().as_bytes())
    }
}

fn joined(parts: &[Vec<u8>]) -> PathBuf {
    let mut path = PathBuf::from("/");
    path.extend(parts.iter().map(|part| OsStr::from_bytes(part)));
    path
}

impl ContainerFiles {
    /// What lies at a path.
    ///
    /// # Errors
    /// [`FilesError::Missing`], [`FilesError::NoDirectory`].
    pub fn stat(&self, path: &str) -> Result<PathStat, FilesError> {
        let asked = Asked::read(path)?;
        let found = self.find(&asked)?;
        Ok(self.tell(&asked, &found))
    }

    pub(super) fn tell(&self, asked: &Asked, found: &Found) -> PathStat {
        let seen = &found.seen;
        let is_link = seen.kind == FileType::Symlink;
        PathStat {
            name: String::from_utf8_lossy(&asked.name).into_owned(),
            size_bytes: seen.size_bytes,
            mode: seen.mode,
            mtime: seen.mtime,
            link_target: if is_link {
                shown(self.leads_to(asked).as_os_str().as_bytes())
            } else {
                String::new()
            },
        }
    }

    pub(super) fn find(&self, asked: &Asked) -> Result<Found, FilesError> {
        let missing = |error: &std::io::Error| match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::LOOP | Errno::NAMETOOLONG) => Some(FilesError::Missing(asked.text())),
            Some(Errno::NOTDIR) => Some(FilesError::NoDirectory(asked.text())),
            _ => None,
        };
        let opened = || {
            if asked.follows {
                return tree::open_in_root(self.at.root.as_fd(), &asked.path(), libc::O_PATH, 0);
            }
            let (name, parents) =
                asked.parts.split_last().expect("a path without parts is the root, and followed");
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let parent = tree::open_in_root(self.at.root.as_fd(), &joined(parents), flags, 0)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(rfs::openat(&parent, name.as_slice(), flags, Mode::empty())?)
        };
        let handle = opened().map_err(|error| {
            missing(&error).unwrap_or_else(|| io_at(format!("open {}", asked.text()))(error))
        })?;
        let seen = Seen::of(&handle).map_err(io_at(format!("look at {}", asked.text())))?;
        if asked.follows && !asked.parts.is_empty() && !seen.is_directory() {
            return Err(FilesError::NoDirectory(asked.text()));
        }
        Ok(Found { handle, seen })
    }

    /// Where a path leads in the end. Only told to people and clients: what is opened is resolved by the kernel. A way
    /// that is too long is told as far as it was gone.
    fn leads_to(&self, asked: &Asked) -> PathBuf {
        let mut left: VecDeque<Vec<u8>> = asked.parts.iter().cloned().collect();
        let mut sofar: Vec<Vec<u8>> = vec![];
        // The directory that `sofar` is; none where there is no directory, so that no link can follow either.
        let mut here = self.directory(&sofar);
        let (mut links, mut steps) = (0, 0);
        while let Some(part) = left.pop_front() {
            steps += 1;
            if steps > STEPS_MAX {
                sofar.push(part);
                break;
            }
            if part == b".." {
                sofar.pop();
                // Found anew from the root, as many steps as that takes.
                steps += sofar.len();
                here = self.directory(&sofar);
                continue;
            }
            let target = here.as_ref().and_then(|here| rfs::readlinkat(here, part.as_slice(), vec![]).ok());
            let Some(target) = target.map(CString::into_bytes).filter(|_| links < LINKS_MAX) else {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                here = here.and_then(|here| rfs::openat(&here, part.as_slice(), flags, Mode::empty()).ok());
                sofar.push(part);
                continue;
            };
            links += 1;
            if target.starts_with(b"/") {
                sofar.clear();
                here = self.directory(&sofar);
            }
            let parts = target.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
            for part in parts.rev() {
                left.push_front(part.to_vec());
            }
        }
        sofar.extend(left);
        joined(&sofar)
    }

    /// A directory whose path has no links.
    fn directory(&self, parts: &[Vec<u8>]) -> Option<OwnedFd> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        tree::open_in_root(self.at.root.as_fd(), &joined(parts), flags, 0).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_docker_reads_them() {
        for (path, parts, follows, name) in [
            ("/", &[][..], true, "/"),
            ("", &[], true, "/"),
            (".", &[], true, "."),
            ("/.", &[], true, "."),
            ("/../..", &[], true, "/"),
            ("etc", &["etc"], false, "etc"),
            ("/etc/", &["etc"], true, "etc"),
            ("/etc/.", &["etc"], true, "."),
            ("/a/../b/./c", &["b", "c"], false, "c"),
            ("../../etc/passwd", &["etc", "passwd"], false, "passwd"),
        ] {
            let asked = Asked::read(path).unwrap();
            let wanted: Vec<Vec<u8>> = parts.iter().map(|part| part.as_bytes().to_vec()).collect();
            assert_eq!((asked.parts, asked.follows, asked.name), (wanted, follows, name.into()), "{path:?}");
        }
        assert!(Asked::read("a\0b").is_err() && Asked::read(&"a".repeat(4097)).is_err());
    }
}
