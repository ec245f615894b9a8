//! A copy of a layer with every owner shifted: for file systems whose mounts cannot shift ids themselves.
//!
//! It costs time and space, so it is the last resort. The layer came through the layer store: its depth is bounded, it
//! has no devices but whiteouts, and nobody else writes it.

use super::tree_removal::remove_tree;
use model::plan::IdRange;
use rustix::fs::{self as rfs, AtFlags, CWD, Mode, XattrFlags, ioctl_ficlone};
use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Longest list of attribute names that is read.
const XATTR_NAMES_BYTES_MAX: usize = 64 << 10;
const CAPABILITY: &str = "security.capability";

/// The shifted copy of a container's layer below its `upper` directory, made once and gone with it. Blocking.
pub(crate) fn layer_copy(upper: &Path, number: usize, layer: &Path, ids: IdRange) -> io::Result<PathBuf> {
    let place = upper.join("shifted");
    let copy = place.join(number.to_string());
    if !copy.is_dir() {
        let staged = place.join(format!("{number}.new"));
        fs::create_dir_all(&place)?;
        remove_tree(&staged)?;
        copy_shifted(layer, &staged, ids)?;
        fs::rename(&staged, &copy)?;
    }
    Ok(copy)
}

/// The kernel's ways to say that mounts of a file system cannot shift ids.
pub(crate) fn cannot_shift(errno: i32) -> bool {
    [nix::libc::EINVAL, nix::libc::EOPNOTSUPP, nix::libc::ENOSYS, nix::libc::EPERM].contains(&errno)
}

/// Copies `layer` to `target`, which must not exist. Ids outside the range become nobody's (its last). Blocking.
fn copy_shifted(layer: &Path, target: &Path, ids: IdRange) -> io::Result<()> {
    let mut links = HashMap::new();
    copy_entry(layer, target, ids, &mut links)
}

fn shifted(id: u32, ids: IdRange) -> u32 {
    ids.base + id.min(ids.count.saturating_sub(1))
}

fn copy_entry(
    source: &Path,
    target: &Path,
    ids: IdRange,
    links: &mut HashMap<(u64, u64), PathBuf>,
) -> io::Result<()> {
    let meta = fs::symlink_metadata(source)?;
    let kind = meta.file_type();
    if meta.nlink() > 1 && !kind.is_dir() {
        if let Some(first) = links.get(&(meta.dev(), meta.ino())) {
            return fs::hard_link(first, target);
        }
        links.insert((meta.dev(), meta.ino()), target.to_path_buf());
    }
    let (uid, gid) = (shifted(meta.uid(), ids), shifted(meta.gid(), ids));
    if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(source)?, target)?;
        std::os::unix::fs::lchown(target, Some(uid), Some(gid))?;
        return set_times(target, &meta);
    }
    if kind.is_dir() {
        fs::create_dir(target)?;
        for entry in fs::read_dir(source)? {
            let name = entry?.file_name();
            copy_entry(&source.join(&name), &target.join(&name), ids, links)?;
        }
    } else if kind.is_file() {
        copy_content(source, target)?;
    } else {
        let file_type = rfs::FileType::from_raw_mode(meta.mode());
        rfs::mknodat(CWD, target, file_type, Mode::from_raw_mode(0o600), meta.rdev())?;
    }
    std::os::unix::fs::chown(target, Some(uid), Some(gid))?;
    rfs::chmod(target, Mode::from_raw_mode(meta.mode() & 0o7777))?;
    copy_xattrs(source, target, ids)?;
    set_times(target, &meta)
}

fn copy_content(source: &Path, target: &Path) -> io::Result<()> {
    let mut from = File::open(source)?;
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
    if ioctl_ficlone(&to, &from).is_err() {
        io::copy(&mut from, &mut to)?;
    }
    Ok(())
}

fn set_times(target: &Path, meta: &fs::Metadata) -> io::Result<()> {
    let time = rfs::Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() as _ };
    let times = rfs::Timestamps { last_access: time, last_modification: time };
    Ok(rfs::utimensat(CWD, target, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn copy_xattrs(source: &Path, target: &Path, ids: IdRange) -> io::Result<()> {
    let mut names = vec![0u8; XATTR_NAMES_BYTES_MAX];
    let count = match rfs::llistxattr(source, &mut names) {
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    };
    for name in names[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; super::tar::XATTR_BYTES_MAX];
        let length = rfs::lgetxattr(source, name, &mut value)?;
        value.truncate(length);
        if name == CAPABILITY.as_bytes() {
            value = namespaced_capability(value, ids.base);
        }
        rfs::lsetxattr(target, name, &value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Version 2 of `vfs_cap_data` is for the host's root alone; version 3 names the root of a user namespace. One of the
/// machine that it comes from means nothing here, or somebody else: `root` takes its place.
pub(crate) fn namespaced_capability(mut value: Vec<u8>, root: u32) -> Vec<u8> {
    const REVISION_2: u32 = 0x0200_0000;
    const REVISION_3: u32 = 0x0300_0000;
    let Some(Ok(magic)) = value.get(..4).map(|bytes| bytes.try_into().map(u32::from_le_bytes)) else {
        return value;
    };
    if magic & 0xff00_0000 == REVISION_2 && value.len() == 20 {
        value[..4].copy_from_slice(&(REVISION_3 | magic & 0x00ff_ffff).to_le_bytes());
        value.extend_from_slice(&root.to_le_bytes());
    }
    if magic & 0xff00_0000 == REVISION_3 && value.len() == 24 {
        value[20..].copy_from_slice(&root.to_le_bytes());
    }
    value
}
