//! Gives volumes to a group of the pod's, before any container of it runs (`fsGroup` of Kubernetes).
//!
//! Every file belongs to the group then, which may read and write it, and every directory hands its
//! group on to what is made in it. Containers of earlier runs have written what is there: no link is followed, and nothing
//! is opened but directories.

use super::{
    bundle::{Pod, Source},
    root::{RootError, Step},
};
use model::instance::content::VolumeGroup;
use rustix::{
    fs::{self as rfs, AtFlags, FileType, Gid, Mode, OFlags},
    io::Errno,
};
use std::{
    collections::BTreeSet,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
};
use sys::jail::tree;

/// Most directories within directories.
const DEPTH_MAX: usize = 256;
/// What the group may do with files and with directories where containers may write, and where they may not.
const WRITABLE: (u32, u32) = (0o660, 0o2770);
const READABLE: (u32, u32) = (0o440, 0o2550);

/// Gives all volumes and files of a pod whose mounts say so.
pub(super) fn settle(pod: &Pod, user_namespace: BorrowedFd<'_>) -> Result<(), RootError> {
    let mut done = BTreeSet::new();
    let files = pod.places.files();
    for mount in pod.containers.iter().flat_map(|container| &container.mounts) {
        let Source::Bind { path, group: Some(group), .. } = &mount.source else { continue };
        if !done.insert(path) {
            continue;
        }
        let at = || format!("give {} to group {}", path.display(), group.gid);
        let whole = tree::clone_path(path, false).step(at)?;
        // Where the ids are not shifted when it is mounted, the files have those of the host.
        let is_shifted = tree::map_ids(whole.as_fd(), user_namespace).is_ok();
        let gid = if is_shifted { group.gid } else { pod.ids.base + group.gid };
        let bits = if path.starts_with(&files) { READABLE } else { WRITABLE };
        let work = || -> io::Result<()> {
            let top = rfs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            match is_given(&top, *group, gid, bits)? {
                true => Ok(()),
                false => give(&top, gid, bits, 0),
            }
        };
        work().step(at)?;
    }
    Ok(())
}

/// Whether the top is the group's already, and that is enough.
fn is_given(top: &OwnedFd, group: VolumeGroup, gid: u32, bits: (u32, u32)) -> io::Result<bool> {
    let seen = rfs::fstat(top)?;
    Ok(group.once && seen.st_gid == gid && seen.st_mode & bits.1 == bits.1)
}

/// Gives what a handle means, with all below it: the top comes last, so that whoever is cut off is done anew.
fn give(handle: &OwnedFd, gid: u32, bits: (u32, u32), depth: usize) -> io::Result<()> {
    let seen = rfs::fstat(handle)?;
    let kind = FileType::from_raw_mode(seen.st_mode);
    if kind == FileType::Directory {
        if depth == DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} directories within directories");
            return Err(io::Error::other(message));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rfs::openat(handle, ".", flags, Mode::empty())?;
        for entry in rfs::Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rfs::openat(&directory, name, flags, Mode::empty()) {
                Ok(inner) => give(&inner, gid, bits, depth + 1)?,
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    if seen.st_gid != gid {
        rfs::chownat(handle, "", None, Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?;
    }
    // A link has no permissions of its own.
    if kind == FileType::Symlink {
        return Ok(());
    }
    let more = if kind == FileType::Directory { bits.1 } else { bits.0 };
    let mode = (seen.st_mode & 0o7777) | more;
    let own = std::path::PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    std::fs::set_permissions(own, std::fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::MetadataExt};

    #[test]
    fn all_of_a_volume_is_given_and_nothing_beside_it() {
        let place = tempfile::tempdir().unwrap();
        let (volume, outside) = (place.path().join("volume"), place.path().join("outside"));
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::write(volume.join("a/b/file"), "x").unwrap();
        fs::set_permissions(volume.join("a/b/file"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&outside, "y").unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&outside, volume.join("link")).unwrap();
        let own = fs::metadata(&outside).unwrap().gid();
        let top = rfs::open(&volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let group = VolumeGroup { gid: 4321, once: true };
        assert!(!is_given(&top, group, 4321, WRITABLE).unwrap());
        // Giving to another group takes root, as the shim is.
        if !nix::unistd::Uid::effective().is_root() {
            return;
        }
        give(&top, 4321, WRITABLE, 0).unwrap();
        for (path, mode) in [("", 0o2775), ("a", 0o2775), ("a/b", 0o2775), ("a/b/file", 0o660)] {
            let seen = fs::metadata(volume.join(path)).unwrap();
            assert_eq!((seen.gid(), seen.mode() & 0o2777), (4321, mode), "{path:?}");
        }
        assert_eq!(fs::symlink_metadata(volume.join("link")).unwrap().gid(), 4321);
        let seen = fs::metadata(&outside).unwrap();
        assert_eq!((seen.gid(), seen.mode() & 0o777), (own, 0o600), "what a link leads to is left alone");
        assert!(is_given(&top, group, 4321, WRITABLE).unwrap());
        assert!(!is_given(&top, VolumeGroup { once: false, ..group }, 4321, WRITABLE).unwrap());
    }

    #[test]
    fn how_deep_a_volume_may_be_is_bounded() {
        let place = tempfile::tempdir().unwrap();
        let deep = |levels: usize| {
            let mut path = place.path().join(levels.to_string());
            for _ in 0..levels {
                path.push("d");
            }
            fs::create_dir_all(&path).unwrap();
            rfs::open(place.path().join(levels.to_string()), OFlags::PATH, Mode::empty()).unwrap()
        };
        let gid = fs::metadata(place.path()).unwrap().gid();
        give(&deep(DEPTH_MAX - 1), gid, WRITABLE, 0).unwrap();
        let refused = give(&deep(DEPTH_MAX), gid, WRITABLE, 0).unwrap_err();
        assert!(refused.to_string().contains("within directories"), "{refused}");
    }
}
