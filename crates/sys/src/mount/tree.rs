//! Mounts that are put together out of sight and appear whole: open_tree(2), mount_setattr(2), move_mount(2).

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Result, check};
use crate::file::c_string;
use crate::userns::{self, IdMap};

const EMPTY: *const libc::c_char = c"".as_ptr();

/// A detached copy of the mount that `path` lies in, rooted at `path`.
pub(super) fn clone(path: &Path) -> Result<OwnedFd> {
    let c_path = c_string(path.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path ends in NUL and lives through the call; the rest are numbers.
    let result = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c_path.as_ptr(), flags) };
    let number = check("clone mount of", path.display(), result)?;
    // SAFETY: the kernel has just returned this descriptor, so it is open and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number as i32) })
}

pub(super) fn set_readonly(tree: &OwnedFd, path: &Path) -> Result<()> {
    set_attributes("make read-only mount of", tree, path, libc::MOUNT_ATTR_RDONLY, 0)
}

fn set_attributes(
    operation: &'static str,
    tree: &OwnedFd,
    path: &Path,
    set: u64,
    userns_fd: u64,
) -> Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd };
    // SAFETY: the structure lives through the call and is given with its size; the path is empty, so the descriptor itself
    // is meant.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            EMPTY,
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(operation, path.display(), result).map(drop)
}

/// A detached copy of the mount at `path` in which every owner is shifted by `map`: a file of user 0 on the disk belongs, seen
/// through the copy, to the user that 0 maps to. The file system has to know how (ext4, xfs, btrfs and others; overlayfs as
/// such does not, its layers do).
pub fn idmapped_clone(path: &Path, map: &IdMap) -> Result<OwnedFd> {
    let namespace = userns::create(map)?;
    let tree = clone(path)?;
    let number = namespace.as_raw_fd() as u64;
    set_attributes("shift owners in mount of", &tree, path, libc::MOUNT_ATTR_IDMAP, number)?;
    Ok(tree)
}

/// Lets a detached mount appear at `target`.
pub fn move_mount(tree: impl AsFd, target: &Path) -> Result<()> {
    let c_target = c_string(target.as_os_str().as_bytes())?;
    let tree = tree.as_fd().as_raw_fd();
    // SAFETY: both strings end in NUL and live through the call; the first is empty, so the descriptor itself is meant.
    let result = unsafe {
        let flags = libc::MOVE_MOUNT_F_EMPTY_PATH;
        libc::syscall(libc::SYS_move_mount, tree, EMPTY, libc::AT_FDCWD, c_target.as_ptr(), flags)
    };
    check("move mount to", target.display(), result).map(drop)
}
