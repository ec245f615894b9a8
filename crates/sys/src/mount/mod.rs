//! Mounts: bind, tmpfs, overlay, id-mapped clones, and the mount table.
//!
//! Must never touch a mount that it was not given, and never follow a symbolic link at a mount point.

mod overlay;
mod tree;

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};

use crate::error::{Context, Error, Result};
use crate::file::c_string;

pub use overlay::{Lower, overlay, overlay_readonly};
pub use tree::{idmapped_clone, move_mount};

/// More mounts on one point than anyone stacks; bounds the loop of [`unmount`].
const STACKED_MOUNTS_MAX: usize = 1024;

/// One line of the mount table of this process (`/proc/self/mountinfo`, proc(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The mount's id.
    pub id: u64,
    /// The id of the mount that it is mounted on.
    pub parent_id: u64,
    /// Major and minor number of the file system, as the table writes them ("254:0").
    pub device: String,
    /// The directory of the file system that is the root of this mount.
    pub root: PathBuf,
    /// Where it is mounted.
    pub target: PathBuf,
    /// The options of the mount ("rw,nosuid").
    pub options: String,
    /// Whether mounts below it propagate to peers.
    pub shared: bool,
    /// The type of the file system ("overlay").
    pub kind: String,
    /// The source, as the mounter gave it.
    pub source: String,
    /// The options of the file system itself ("rw,size=1024k", the controllers of a control group hierarchy).
    pub file_system_options: String,
}

/// The mount table of this process.
pub fn table() -> Result<Vec<Entry>> {
    let text = fs::read("/proc/self/mountinfo").context("read", "the mount table")?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse_entry).collect())
}

/// The mounts at or below `path`, in the order in which they were made.
pub fn below(path: &Path) -> Result<Vec<Entry>> {
    Ok(table()?.into_iter().filter(|entry| entry.target.starts_with(path)).collect())
}

/// The mount that `path` lies in.
pub fn entry_of(path: &Path) -> Result<Entry> {
    let id = mount_id(path)?;
    table()?
        .into_iter()
        .find(|entry| entry.id == id)
        .ok_or_else(|| Error::invalid("find mount of", path.display(), "not in the mount table"))
}

/// Whether something is mounted exactly at `path`. A missing path is no mount point.
pub fn is_mountpoint(path: &Path) -> Result<bool> {
    match status(path) {
        Ok(status) => Ok(status.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether `path` is a bind mount of itself, the way [`crate::netns`] makes a directory private.
pub(crate) fn is_self_bind(path: &Path) -> Result<bool> {
    if !is_mountpoint(path)? {
        return Ok(false);
    }
    let entries: HashMap<u64, Entry> = table()?.into_iter().map(|entry| (entry.id, entry)).collect();
    let Some(entry) = entries.get(&mount_id(path)?) else {
        return Ok(false);
    };
    let Some(parent) = entries.get(&entry.parent_id) else {
        return Ok(false);
    };
    let Ok(relative) = entry.target.strip_prefix(&parent.target) else {
        return Ok(false);
    };
    Ok(entry.device == parent.device && entry.root == parent.root.join(relative))
}

/// Makes the tree at `source` visible at `target` too (which must exist and be of the same sort: file or directory).
pub fn bind(source: &Path, target: &Path) -> Result<()> {
    nix::mount::mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .context("bind mount", format!("{} on {}", source.display(), target.display()))
}

/// Like [`bind`], including the mounts below the source.
pub fn bind_recursive(source: &Path, target: &Path) -> Result<()> {
    nix::mount::mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .context("bind mount", format!("{} on {}", source.display(), target.display()))
}

/// Like [`bind`], but nothing can be written through `target`, from its first moment.
pub fn bind_readonly(source: &Path, target: &Path) -> Result<()> {
    let tree = tree::clone(source)?;
    tree::set_readonly(&tree, source)?;
    move_mount(&tree, target)
}

/// Mounts a fresh file system in memory at `target`.
pub fn tmpfs(target: &Path, size_bytes_max: u64, mode: u32) -> Result<()> {
    let options = format!("size={size_bytes_max},mode={mode:o}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    nix::mount::mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options.as_str()))
        .context("mount tmpfs on", target.display())
}

/// Takes away everything that is mounted exactly at `path`, at once for new users and for the rest when they are done
/// (lazy). Nothing mounted, or nothing there, is fine.
pub fn unmount(path: &Path) -> Result<()> {
    for _ in 0..STACKED_MOUNTS_MAX {
        match nix::mount::umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => continue,
            // EINVAL: not (or no longer) a mount point.
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => return Ok(()),
            Err(error) => return Err(Error::new("unmount", path.display(), error)),
        }
    }
    Err(Error::invalid("unmount", path.display(), "more mounts are stacked here than holm takes away"))
}

/// Takes away every mount at or below `path`, the newest first.
pub fn unmount_below(path: &Path) -> Result<()> {
    for entry in below(path)?.iter().rev() {
        unmount(&entry.target)?;
    }
    Ok(())
}

fn mount_id(path: &Path) -> Result<u64> {
    Ok(status(path)?.stx_mnt_id)
}

fn status(path: &Path) -> Result<libc::statx> {
    let c_path = c_string(path.as_os_str().as_bytes())?;
    // SAFETY: statx is plain data for which all zeros is a valid value.
    let mut status: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in NUL and the buffer is a whole statx.
    let result = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            c_path.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT,
            libc::STATX_MNT_ID,
            &mut status,
        )
    };
    crate::error::check("stat", path.display(), result.into())?;
    Ok(status)
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`: the optional fields before the dash
/// are of any number.
fn parse_entry(line: &[u8]) -> Option<Entry> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |index: usize| fields.get(index).map(|field| String::from_utf8_lossy(field).into_owned());
    Some(Entry {
        id: text(0)?.parse().ok()?,
        parent_id: text(1)?.parse().ok()?,
        device: text(2)?,
        root: unescape(fields.get(3)?),
        target: unescape(fields.get(4)?),
        options: text(5)?,
        shared: fields.get(6..dash)?.iter().any(|field| field.starts_with(b"shared:")),
        kind: text(dash + 1)?,
        source: text(dash + 2)?,
        file_system_options: text(dash + 3)?,
    })
}

/// The table writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *first == b'\\');
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(std::ffi::OsString::from(<std::ffi::OsStr as OsStrExt>::from_bytes(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_read_with_optional_fields_and_escapes() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402 rw,noatime shared:7 master:1 - ext3 /dev/root rw";
        let entry = parse_entry(line).expect("a line from proc(5)");
        assert_eq!(entry.target, Path::new("/mnt 2"));
        assert_eq!((entry.id, entry.parent_id, entry.shared), (36, 35, true));
        assert_eq!((entry.kind.as_str(), entry.source.as_str()), ("ext3", "/dev/root"));
        assert!(!parse_entry(b"1 2 0:1 / /x rw - tmpfs none rw").expect("no optional field").shared);
        assert_eq!(parse_entry(b""), None);
        assert_eq!(parse_entry(b"1 2 0:1 / /x rw"), None);
    }
}
