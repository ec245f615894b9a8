//! Room on a file system, looked at before bytes come: a disk that is nearly full is a refusal with numbers, and not a
//! write that breaks in the middle, or one of a neighbour's that does.

use rustix::fs as rfs;
use std::{io, os::fd::AsFd, path::Path};

/// Bytes that stay free for what cannot be refused: records, logs, and the writes of those that run.
pub const FREE_BYTES_MIN: u64 = 64 << 20;
/// Bytes between two looks of who does not know how many come.
pub const CHECK_BYTES: u64 = 8 << 20;

/// What to do about a full disk of images, for people.
pub const HINT: &str = "free space on the host, or delete images that nobody uses: `holm image rm IMAGE`";

/// What a file system has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// Free for anyone but root.
    pub free_bytes: u64,
}

/// Too little is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{wanted_bytes} bytes are wanted, {free_bytes} are free and {free_bytes_min} of these must stay")]
pub struct Short {
    /// Bytes that are to come.
    pub wanted_bytes: u64,
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Bytes that stay.
    pub free_bytes_min: u64,
}

impl Space {
    /// Of the file system that an open file lies in.
    ///
    /// # Errors
    /// The kernel's (fstatvfs(3)).
    pub fn around(file: impl AsFd) -> io::Result<Self> {
        Ok(Self::read(&rfs::fstatvfs(file)?))
    }

    /// Of the file system that a path lies in.
    ///
    /// # Errors
    /// The kernel's (statvfs(3)).
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::read(&rfs::statvfs(path)?))
    }

    fn read(stat: &rfs::StatVfs) -> Self {
        Self {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        }
    }

    /// Whether so many bytes may come.
    ///
    /// # Errors
    /// [`Short`].
    pub fn holds(self, wanted_bytes: u64) -> Result<(), Short> {
        self.holds_beside(wanted_bytes, FREE_BYTES_MIN)
    }

    /// Whether so many bytes may come, and so many stay free.
    ///
    /// # Errors
    /// [`Short`].
    pub fn holds_beside(self, wanted_bytes: u64, free_bytes_min: u64) -> Result<(), Short> {
        if self.free_bytes >= wanted_bytes.saturating_add(free_bytes_min) {
            return Ok(());
        }
        Err(Short { wanted_bytes, free_bytes: self.free_bytes, free_bytes_min })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_stay_is_not_given_away() {
        let space = Space { total_bytes: 1 << 30, free_bytes: FREE_BYTES_MIN + 10 };
        assert_eq!(space.holds(10), Ok(()));
        let short = space.holds(11).unwrap_err();
        assert_eq!((short.wanted_bytes, short.free_bytes), (11, FREE_BYTES_MIN + 10));
        assert!(space.holds(u64::MAX).is_err());
        let here = Space::at(Path::new("/")).unwrap();
        assert!(here.total_bytes >= here.free_bytes && here.total_bytes > 0);
    }
}
