//! A walk through all that a directory holds, to count it. Links are never followed, no path is ever put together, and what
//! goes meanwhile is passed by: a container may be writing there.

use rustix::{
    fs::{self as rfs, AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
};
use std::{collections::HashSet, io, os::fd::OwnedFd, path::Path};

/// Files with several names whose second name is known for one.
const LINKED_FILES_MAX: usize = 1 << 20;

/// Something on the way.
pub(crate) struct Found {
    /// What the kernel says of it.
    pub stat: Stat,
    /// Directories between it and the top.
    pub depth: usize,
    /// Another name of it was met before.
    pub is_again: bool,
}

impl Found {
    /// Whether more may lie below.
    pub fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// What it is.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// Where the walk goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Into it, where it is a directory.
    In,
    /// Past it.
    Past,
    /// Nowhere.
    End,
}

/// Walks through all below `top`.
///
/// # Errors
/// A directory that cannot be read; what `visit` gives.
pub(crate) fn walk(top: &Path, visit: &mut dyn FnMut(&Found) -> io::Result<Next>) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top: OwnedFd = rfs::openat(CWD, top, flags, Mode::empty())?;
    let mut linked = HashSet::new();
    let mut stack = vec![(Dir::read_from(&top)?, top)];
    while let Some(depth) = stack.len().checked_sub(1) {
        let (entries, directory) = &mut stack[depth];
        let Some(entry) = entries.next() else {
            stack.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match rfs::statat(&*directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        let mut found = Found { stat, depth, is_again: false };
        if !found.is_directory() && stat.st_nlink > 1 && linked.len() < LINKED_FILES_MAX {
            found.is_again = !linked.insert((stat.st_dev, stat.st_ino));
        }
        match visit(&found)? {
            Next::End => return Ok(()),
            Next::In if found.is_directory() => {}
            Next::In | Next::Past => continue,
        }
        match rfs::openat(&*directory, name, flags, Mode::empty()) {
            Ok(below) => stack.push((Dir::read_from(&below)?, below)),
            // It is gone, or another thing by now.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn everything_is_met_once_and_links_lead_nowhere() {
        let top = tempfile::tempdir().unwrap();
        let at = |path: &str| top.path().join(path);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/file"), [0; 10]).unwrap();
        fs::hard_link(at("a/b/file"), at("again")).unwrap();
        symlink(top.path(), at("a/loop")).unwrap();
        let met = |next: fn(&Found) -> Next| {
            let (mut depths, mut again) = (vec![], 0);
            walk(top.path(), &mut |found| {
                depths.push(found.depth);
                again += usize::from(found.is_again);
                Ok(next(found))
            })
            .unwrap();
            depths.sort_unstable();
            (depths, again)
        };
        assert_eq!(met(|_| Next::In), (vec![0, 0, 1, 1, 2], 1));
        assert_eq!(met(|found| if found.depth == 1 { Next::Past } else { Next::In }).0, [0, 0, 1, 1]);
        assert_eq!(met(|_| Next::End).0, [0]);
        assert!(walk(&at("again"), &mut |_| Ok(Next::In)).is_err());
        assert!(walk(&at("a/loop"), &mut |_| Ok(Next::In)).is_err(), "not even the top may be a link");
    }
}
