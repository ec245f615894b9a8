//! Removes a directory tree that a guest has written, however deep it made it.
//!
//! A removal that calls itself for every level opens one file per level and grows its stack with it: a container that
//! nests directories deep enough would make its own files impossible to remove, or take the daemon down. Here a
//! subtree that lies too deep is moved up beside the top first, so that the depth is bounded. Links are never followed.

use rustix::{
    fs::{self as rfs, AtFlags, CWD, Mode, OFlags},
    io::Errno,
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// Levels that are walked before a subtree is moved up.
const DEPTH_MAX: u32 = 64;
/// Rounds of removing what was moved up: each one takes [`DEPTH_MAX`] levels off, so this bounds the whole depth.
const ROUNDS_MAX: u32 = 1 << 20;
const MOVED_PREFIX: &str = "removed-";

/// Removes `path` and all below it. Fine when it is gone. Blocking.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match open_directory(CWD, path) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return std::fs::remove_file(path),
        Err(errno) => return Err(errno.into()),
    };
    let mut moved = 0;
    for _ in 0..ROUNDS_MAX {
        let before = moved;
        empty(&top, &top, 0, &mut moved)?;
        if moved == before {
            rfs::rmdir(path)?;
            return Ok(());
        }
    }
    Err(io::Error::other("the tree is too deep"))
}

fn open_directory(parent: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rfs::openat(parent, name, flags, Mode::empty())
}

/// Removes all that `directory` holds, or moves it to `top` where it lies too deep.
fn empty(top: &OwnedFd, directory: &OwnedFd, depth: u32, moved: &mut u64) -> Result<(), Errno> {
    for entry in rfs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match rfs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR) => {}
            Err(errno) => return Err(errno),
        }
        if depth == DEPTH_MAX {
            *moved += 1;
            let place = format!("{MOVED_PREFIX}{}", uuid::Uuid::new_v4());
            rfs::renameat(directory, name, top, place)?;
            continue;
        }
        empty(top, &open_directory(directory, name)?, depth + 1, moved)?;
        rfs::unlinkat(directory, name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_and_wide_trees_go_and_links_out_of_them_stay() {
        let dir = tempfile::tempdir().expect("temp dir");
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).expect("creates");
        std::fs::write(dir.path().join("kept"), "kept").expect("writes");
        std::os::unix::fs::symlink(dir.path(), tree.join("out")).expect("links");
        for n in 0..300 {
            std::fs::create_dir(tree.join(n.to_string())).expect("creates");
        }
        // Deeper than a path can name, and than files can be open.
        let mut current = open_directory(CWD, &tree).expect("opens");
        for _ in 0..3_000 {
            rfs::mkdirat(&current, "d", Mode::from_raw_mode(0o700)).expect("creates");
            current = open_directory(&current, "d").expect("opens");
        }
        drop(current);
        remove_tree(&tree).expect("removes");
        remove_tree(&tree).expect("again is fine");
        assert!(!tree.exists());
        assert_eq!(std::fs::read_to_string(dir.path().join("kept")).expect("reads"), "kept");
    }
}
