//! What a pod's containers share beside its volumes: sets of small files that came with the request, and where each
//! container sees them and the volumes.
//!
//! The files' bytes are sealed in the record. The node opens them when it starts the pod and writes them beside the
//! pod's state, where they go with it.

use super::tag::Tag;
use crate::seal::Sealed;
use serde::{Deserialize, Serialize};

/// Most sets of files of an instance.
pub const FILE_SETS_MAX: usize = 32;
/// Most files of an instance.
pub const FILES_MAX: usize = 256;
/// Most bytes of an instance's files and secret variables together.
pub const SEALED_BYTES_MAX: usize = 256 * 1024;
/// Most mounts of a container.
pub const MOUNTS_MAX: usize = 64;
/// Longest path in bytes (`PATH_MAX` of Linux, without its end).
pub const PATH_BYTES_MAX: usize = 4095;

/// Files that are mounted together, read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSet {
    /// What mounts call it.
    pub name: Tag,
    /// The files.
    pub files: Vec<File>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Path in the set: names with `/` between them.
    pub path: String,
    /// Permissions (inode(7)), at most 0o777.
    pub mode: u32,
    /// Its bytes.
    pub bytes: Sealed,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shows {
    /// The volume of the instance with this tag.
    Volume(Tag),
    /// The set of files with this name.
    Files(Tag),
    /// A directory or file of the host, where its operator lends it.
    Host {
        /// Where on the host.
        path: String,
        /// It is to be there; else it is made as a directory where it is missing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        exists: bool,
    },
}

/// Where a container sees a volume or a set of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What.
    pub shows: Shows,
    /// Where.
    pub path: String,
    /// One file or directory of a set, or one directory or file of a volume, instead of all of it. What a volume has not
    /// is made as a directory; links in it never lead out of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_path: Option<String>,
    /// Writes are refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Group that all of the volume, or of the set, is given to before the containers start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<VolumeGroup>,
}

/// A group that the files of a volume are given to: it may read and write them, and what is made there is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeGroup {
    /// Its number inside.
    pub gid: u32,
    /// Only where the volume's own directory is not the group's yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
}

/// A mount that is kept in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryMount {
    /// Where.
    pub path: String,
    /// Most bytes; 64 MiB when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Permissions of its top, at most 0o1777, which is usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// User inside that its top belongs to.
    #[serde(default)]
    pub uid: u32,
    /// Group inside.
    #[serde(default)]
    pub gid: u32,
    /// Writes are refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Programs on it are not run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_exec: bool,
}

/// When a container of a pod runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Beside the others, once what comes before has run.
    #[default]
    Main,
    /// Before the others, to its end: what comes after waits for its success.
    Init,
    /// Started before the others, and ended when the last of these has ended.
    Sidecar,
}

impl Role {
    /// Whether it is one of those that make the pod.
    pub fn is_main(&self) -> bool {
        *self == Self::Main
    }

    /// Name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Init => "init",
            Self::Sidecar => "sidecar",
        }
    }
}

/// Why a path cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no path of names with / between them: no empty part, '.' or '..', {PATH_BYTES_MAX} bytes at most"
)]
pub struct BadPath(pub String);

/// Checks a path that stays where it begins.
///
/// # Errors
/// [`BadPath`].
pub fn check_relative(path: &str) -> Result<(), BadPath> {
    let fits = |part: &str| {
        !matches!(part, "" | "." | "..") && part.len() <= 255 && !part.bytes().any(|b| b.is_ascii_control())
    };
    if path.len() <= PATH_BYTES_MAX && path.split('/').all(fits) {
        Ok(())
    } else {
        Err(BadPath(path.chars().take(80).collect()))
    }
}

/// Checks a path from the root on.
///
/// # Errors
/// [`BadPath`].
pub fn check_absolute(path: &str) -> Result<(), BadPath> {
    let bad = || BadPath(path.chars().take(80).collect());
    let inner = path.strip_prefix('/').filter(|_| path.len() <= PATH_BYTES_MAX).ok_or_else(bad)?;
    check_relative(inner.strip_suffix('/').unwrap_or(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_where_they_begin() {
        for (path, relative, absolute) in [
            ("a", true, false),
            ("a/b.c/..d", true, false),
            ("/a", false, true),
            ("/a/b/", false, true),
            ("/", false, false),
            ("", false, false),
            ("..", false, false),
            ("/a/../b", false, false),
            ("/a//b", false, false),
            ("./a", false, false),
            ("a\nb", false, false),
            (&format!("/{}", "x".repeat(255)), false, true),
            (&format!("/{}", "x".repeat(256)), false, false),
            (&"/x".repeat(2048), false, false),
        ] {
            assert_eq!(check_relative(path).is_ok(), relative, "{path:?}");
            assert_eq!(check_absolute(path).is_ok(), absolute, "{path:?}");
        }
    }
}
