//! Writes the entries of one layer below a directory, whatever the archive says.
//!
//! Every name is walked from the layer's root by `openat2` with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, so no entry
//! can reach outside or go through a link, whether the link came earlier in the archive or not. Whiteouts of the OCI
//! layer specification become what overlayfs reads (kernel, "overlayfs.rst": 0:0 character devices and the attribute
//! `trusted.overlay.opaque`). Devices are never made: a container gets its own `/dev`. Attributes that would speak to
//! overlayfs itself are never taken from an archive.

use super::tar::{Entry, Kind, PATH_BYTES_MAX, TarReader};
use rustix::{
    fs::{self as rfs, AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};
use std::{
    collections::BTreeMap,
    io::{self, Read, Seek, SeekFrom, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// Deepest directory.
pub const DEPTH_MAX: usize = 255;
/// Longest name of one directory entry (NAME_MAX).
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes copied at a time; runs of zeros of this size become holes.
const COPY_BYTES: usize = 128 << 10;
/// `openat2` answers EAGAIN when a rename races with it; nothing renames here, so a few tries are plenty.
const OPEN_TRIES_MAX: u32 = 8;
const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// Limits of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerLimits {
    /// Most entries.
    pub entries_max: u64,
    /// Most bytes of the unpacked archive.
    pub unpacked_bytes_max: u64,
    /// Unpacked bytes that are fine however small the archive is.
    pub expansion_free_bytes: u64,
    /// Past these, unpacked bytes per byte of the archive.
    pub expansion_ratio_max: u64,
    /// Free bytes that must stay on the file system.
    pub free_bytes_min: u64,
}

impl Default for LayerLimits {
    fn default() -> Self {
        Self {
            entries_max: 2_000_000,
            unpacked_bytes_max: 256 << 30,
            expansion_free_bytes: 4 << 30,
            expansion_ratio_max: 100,
            free_bytes_min: 64 << 20,
        }
    }
}

/// What was written and what was left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LayerFacts {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of file content.
    pub size_bytes: u64,
    /// Device nodes that were not made.
    pub devices_skipped: u64,
    /// Attributes that were not taken.
    pub xattrs_skipped: u64,
    /// Highest owner or group: above the instance's id range it shows as nobody.
    pub id_max: u32,
}

/// Why an entry cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// `..` in the name.
    #[error("it leads out of the image")]
    Outside,
    /// Empty where a name is needed, or a whiteout of nothing.
    #[error("it has no usable name")]
    BadName,
    /// A part is longer than NAME_MAX, or all of it than PATH_MAX.
    #[error("its name is too long")]
    TooLong,
    /// Deeper than [`DEPTH_MAX`].
    #[error("it is more than {DEPTH_MAX} directories deep")]
    TooDeep,
    /// A directory on its way is a symbolic link.
    #[error("it goes through a symbolic link")]
    ThroughSymlink,
    /// Something on its way is no directory.
    #[error("it goes through something that is no directory")]
    ThroughFile,
    /// The other name of a hard link is missing.
    #[error("it is a hard link to a file that the layer does not have")]
    LinkMissing,
    /// Hard links to directories, devices or whiteouts.
    #[error("it is a hard link to something that is no file")]
    LinkKind,
    /// A symbolic link to nothing.
    #[error("it is a symbolic link without a target")]
    LinkEmpty,
    /// An owner that no file can have.
    #[error("its owner {0} is out of range")]
    Owner(u64),
    /// The file system failed.
    #[error("cannot {operation} it")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn at(operation: &'static str) -> impl Fn(Errno) -> EntryError {
    move |errno| EntryError::Io { operation, source: errno.into() }
}

/// The parts of an archive's name below the root, without `.` and doubled slashes. Leading slashes are dropped, as
/// tar itself does: the name stays below the root all the same.
fn parts(name: &[u8]) -> Result<Vec<&[u8]>, EntryError> {
    let mut parts = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(EntryError::Outside),
            _ if part.len() > NAME_BYTES_MAX => return Err(EntryError::TooLong),
            _ => parts.push(part),
        }
    }
    if parts.len() > DEPTH_MAX {
        return Err(EntryError::TooDeep);
    }
    Ok(parts)
}

/// A layer being written.
pub(super) struct LayerTree {
    root: OwnedFd,
    /// The directory of the last entry: archives come directory by directory.
    last_parent: Option<(Vec<u8>, OwnedFd)>,
    /// Set at the end, since writing into a directory changes its time.
    directory_times: BTreeMap<Vec<u8>, (i64, u32)>,
    facts: LayerFacts,
    buffer: Vec<u8>,
}

impl LayerTree {
    /// Writes below `root`, an empty directory that nobody else uses.
    pub(super) fn new(root: &Path) -> Result<Self, EntryError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rfs::open(root, flags, Mode::empty()).map_err(at("open"))?;
        Ok(Self {
            root,
            last_parent: None,
            directory_times: BTreeMap::new(),
            facts: LayerFacts::default(),
            buffer: vec![0; COPY_BYTES],
        })
    }

    /// Counts so far.
    pub(super) fn facts(&self) -> LayerFacts {
        self.facts
    }

    /// Bytes free on the file system for anyone but root.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let stat = rfs::fstatvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Writes one entry; the content of a file is read from `archive`.
    pub(super) fn write<R: Read>(
        &mut self,
        entry: &Entry,
        archive: &mut TarReader<R>,
    ) -> Result<(), EntryError> {
        self.facts.entries += 1;
        let parts = parts(&entry.path)?;
        let Some((name, parents)) = parts.split_last() else {
            // "./" speaks of the root itself; anything else cannot take its place.
            return if entry.kind == Kind::Directory {
                self.write_root(entry)
            } else {
                Err(EntryError::BadName)
            };
        };
        if parts.iter().any(|part| part.starts_with(AUFS_PREFIX)) {
            // Aufs kept its own notes under these names; only the opaque mark means something to others.
            return if *name == OPAQUE_MARK { self.set_opaque(parents) } else { Ok(()) };
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
            return self.write_whiteout(parents, hidden);
        }
        if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
            self.facts.devices_skipped += 1;
            return Ok(());
        }
        let (uid, gid) = self.owner(entry)?;
        let parent = self.open_parent(parents)?;
        match entry.kind {
            Kind::Directory => self.write_directory(&parent, name, &parts, entry, uid, gid),
            Kind::File => self.write_file(&parent, name, entry, uid, gid, archive),
            Kind::Symlink => self.write_symlink(&parent, name, entry, uid, gid),
            Kind::HardLink => self.write_hard_link(&parent, name, &parts, entry),
            Kind::Fifo => self.write_fifo(&parent, name, entry, uid, gid),
            Kind::CharDevice | Kind::BlockDevice => Ok(()),
        }
    }

    /// Sets the times of all directories: the last step.
    pub(super) fn finish(mut self) -> Result<LayerFacts, EntryError> {
        self.last_parent = None;
        for (path, mtime) in std::mem::take(&mut self.directory_times) {
            let parts: Vec<&[u8]> =
                path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
            // It may have been replaced by something else since.
            if let Ok(directory) = self.resolve(&parts, OFlags::RDONLY | OFlags::DIRECTORY) {
                rfs::futimens(&directory, &times(mtime)).map_err(at("set the time of"))?;
            }
        }
        Ok(self.facts)
    }

    fn owner(&mut self, entry: &Entry) -> Result<(Uid, Gid), EntryError> {
        let check = |id: u64| match u32::try_from(id) {
            Ok(id) if id < u32::MAX => Ok(id),
            _ => Err(EntryError::Owner(id)),
        };
        let (uid, gid) = (check(entry.uid)?, check(entry.gid)?);
        self.facts.id_max = self.facts.id_max.max(uid).max(gid);
        Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    fn write_root(&mut self, entry: &Entry) -> Result<(), EntryError> {
        let (uid, gid) = self.owner(entry)?;
        rfs::fchown(&self.root, Some(uid), Some(gid)).map_err(at("chown"))?;
        rfs::fchmod(&self.root, Mode::from_raw_mode(entry.mode)).map_err(at("chmod"))?;
        let root = self.root.try_clone().map_err(|source| EntryError::Io { operation: "open", source })?;
        self.set_xattrs(&root, entry)?;
        self.directory_times.insert(Vec::new(), entry.mtime);
        Ok(())
    }

    fn write_directory(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        parts: &[&[u8]],
        entry: &Entry,
        uid: Uid,
        gid: Gid,
    ) -> Result<(), EntryError> {
        let directory = self.make_directory(parent, name)?;
        rfs::fchown(&directory, Some(uid), Some(gid)).map_err(at("chown"))?;
        rfs::fchmod(&directory, Mode::from_raw_mode(entry.mode)).map_err(at("chmod"))?;
        self.set_xattrs(&directory, entry)?;
        self.directory_times.insert(parts.join(&b'/'), entry.mtime);
        Ok(())
    }

    /// Opens the directory `name`, made if need be in the place of whatever else is there.
    fn make_directory(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, EntryError> {
        let mut opaque = false;
        if let Some(stat) = stat(parent, name)? {
            match rfs::FileType::from_raw_mode(stat.st_mode) {
                rfs::FileType::Directory => return open_directory(parent, name).map_err(at("open")),
                _ => {
                    // In place of a whiteout: what was hidden below must stay hidden.
                    opaque = is_whiteout(&stat);
                    self.remove(parent, name)?;
                }
            }
        }
        rfs::mkdirat(parent, name, Mode::from_raw_mode(0o755)).map_err(at("create"))?;
        let directory = open_directory(parent, name).map_err(at("open"))?;
        rfs::fchmod(&directory, Mode::from_raw_mode(0o755)).map_err(at("chmod"))?;
        if opaque {
            mark_opaque(&directory)?;
        }
        Ok(directory)
    }

    fn write_file<R: Read>(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        uid: Uid,
        gid: Gid,
        archive: &mut TarReader<R>,
    ) -> Result<(), EntryError> {
        self.remove(parent, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rfs::openat(parent, name, flags, Mode::from_raw_mode(0o600)).map_err(at("create"))?;
        let mut file = std::fs::File::from(file);
        self.copy(&mut file, entry.size_bytes, archive)?;
        // Owner first: changing it clears set-id bits and capabilities.
        rfs::fchown(&file, Some(uid), Some(gid)).map_err(at("chown"))?;
        rfs::fchmod(&file, Mode::from_raw_mode(entry.mode)).map_err(at("chmod"))?;
        self.set_xattrs(&file, entry)?;
        rfs::futimens(&file, &times(entry.mtime)).map_err(at("set the time of"))
    }

    fn copy<R: Read>(
        &mut self,
        file: &mut std::fs::File,
        size_bytes: u64,
        archive: &mut TarReader<R>,
    ) -> Result<(), EntryError> {
        let io = |operation| move |source| EntryError::Io { operation, source };
        let mut left = size_bytes;
        let mut hole = false;
        while left > 0 {
            let count = left.min(COPY_BYTES as u64) as usize;
            let chunk = &mut self.buffer[..count];
            archive.read_exact(chunk).map_err(io("read the content of"))?;
            hole = count == COPY_BYTES && chunk.iter().all(|byte| *byte == 0);
            if hole {
                file.seek(SeekFrom::Current(count as i64)).map_err(io("write"))?;
            } else {
                file.write_all(chunk).map_err(io("write"))?;
            }
            left -= count as u64;
        }
        if hole {
            file.set_len(size_bytes).map_err(io("write"))?;
        }
        self.facts.size_bytes += size_bytes;
        Ok(())
    }

    fn write_symlink(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        uid: Uid,
        gid: Gid,
    ) -> Result<(), EntryError> {
        if entry.link.is_empty() {
            return Err(EntryError::LinkEmpty);
        }
        self.remove(parent, name)?;
        rfs::symlinkat(&entry.link[..], parent, name).map_err(at("create"))?;
        self.set_owner_and_time(parent, name, entry, uid, gid)
    }

    fn write_fifo(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        uid: Uid,
        gid: Gid,
    ) -> Result<(), EntryError> {
        self.remove(parent, name)?;
        rfs::mknodat(parent, name, rfs::FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .map_err(at("create"))?;
        self.set_owner_and_time(parent, name, entry, uid, gid)?;
        // The pipe was made just now in a directory of our own, so this follows no link.
        rfs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty()).map_err(at("chmod"))
    }

    fn set_owner_and_time(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        uid: Uid,
        gid: Gid,
    ) -> Result<(), EntryError> {
        rfs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(at("chown"))?;
        rfs::utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(at("set the time of"))
    }

    fn write_hard_link(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[&[u8]],
        entry: &Entry,
    ) -> Result<(), EntryError> {
        let target = parts(&entry.link)?;
        if target == path {
            return Ok(());
        }
        let Some((target_name, target_parents)) = target.split_last() else {
            return Err(EntryError::LinkKind);
        };
        let directory = match self.resolve(target_parents, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => return Err(EntryError::LinkMissing),
            other => other.map_err(walk_error)?,
        };
        let stat = stat(&directory, target_name)?.ok_or(EntryError::LinkMissing)?;
        match rfs::FileType::from_raw_mode(stat.st_mode) {
            rfs::FileType::RegularFile | rfs::FileType::Symlink | rfs::FileType::Fifo => {}
            _ => return Err(EntryError::LinkKind),
        }
        self.remove(parent, name)?;
        // Replacing a directory may have removed the target with it.
        match rfs::linkat(&directory, *target_name, parent, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Err(EntryError::LinkMissing),
            other => other.map_err(at("link")),
        }
    }

    fn write_whiteout(&mut self, parents: &[&[u8]], hidden: &[u8]) -> Result<(), EntryError> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(EntryError::BadName);
        }
        let parent = self.open_parent(parents)?;
        match stat(&parent, hidden)? {
            None => rfs::mknodat(&parent, hidden, rfs::FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(at("create the whiteout for")),
            // A whiteout speaks of lower layers only: what this layer brings itself stays, and hides what is below.
            Some(stat) if rfs::FileType::from_raw_mode(stat.st_mode) == rfs::FileType::Directory => {
                mark_opaque(&open_directory(&parent, hidden).map_err(at("open"))?)
            }
            Some(_) => Ok(()),
        }
    }

    fn set_opaque(&mut self, parents: &[&[u8]]) -> Result<(), EntryError> {
        // An opaque root hides nothing that a walk could meet otherwise, but overlayfs reads the mark there as well.
        let parent = self.open_parent(parents)?;
        let directory = open_directory(&parent, b".").map_err(at("open"))?;
        mark_opaque(&directory)
    }

    /// The directory that an entry lies in; what is missing of it is made.
    fn open_parent(&mut self, parents: &[&[u8]]) -> Result<OwnedFd, EntryError> {
        let clone =
            |fd: &OwnedFd| fd.try_clone().map_err(|source| EntryError::Io { operation: "open", source });
        if parents.is_empty() {
            return clone(&self.root);
        }
        let path = parents.join(&b'/');
        if let Some((last, fd)) = &self.last_parent
            && *last == path
        {
            return clone(fd);
        }
        let fd = match self.resolve(parents, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(parents)?,
            Err(errno) => return Err(walk_error(errno)),
        };
        self.last_parent = Some((path, clone(&fd)?));
        Ok(fd)
    }

    fn make_parents(&mut self, parents: &[&[u8]]) -> Result<OwnedFd, EntryError> {
        let mut directory =
            self.root.try_clone().map_err(|source| EntryError::Io { operation: "open", source })?;
        for part in parents {
            directory = match stat(&directory, part)? {
                None => self.make_directory(&directory, part)?,
                Some(stat) => match rfs::FileType::from_raw_mode(stat.st_mode) {
                    rfs::FileType::Directory => open_directory(&directory, part).map_err(walk_error)?,
                    rfs::FileType::Symlink => return Err(EntryError::ThroughSymlink),
                    _ if is_whiteout(&stat) => self.make_directory(&directory, part)?,
                    _ => return Err(EntryError::ThroughFile),
                },
            };
        }
        Ok(directory)
    }

    /// Opens what lies at `parts` below the root and through no link.
    fn resolve(&self, parts: &[&[u8]], flags: OFlags) -> Result<OwnedFd, Errno> {
        if parts.is_empty() {
            return rfs::openat(&self.root, ".", flags | OFlags::CLOEXEC, Mode::empty());
        }
        let path = parts.join(&b'/');
        if path.len() >= PATH_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = flags | OFlags::CLOEXEC;
        for _ in 0..OPEN_TRIES_MAX {
            match rfs::openat2(&self.root, &path[..], flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Removes what has the name, with all below it.
    fn remove(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<(), EntryError> {
        match rfs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => {
                // The cached directory may be below it.
                self.last_parent = None;
                remove_tree(parent, name).map_err(at("replace"))
            }
            Err(errno) => Err(at("replace")(errno)),
        }
    }

    fn set_xattrs(&mut self, file: impl AsFd, entry: &Entry) -> Result<(), EntryError> {
        for (name, value) in &entry.xattrs {
            let value = match name.as_slice() {
                b"security.capability" => plain_capability(value),
                b"system.posix_acl_access" | b"system.posix_acl_default" => Some(value.clone()),
                _ if name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") => Some(value.clone()),
                _ => None,
            };
            let Some(value) = value else {
                self.facts.xattrs_skipped += 1;
                continue;
            };
            match rfs::fsetxattr(file.as_fd(), &name[..], &value, XattrFlags::empty()) {
                Ok(()) => {}
                // The file system has no such attributes. Without its capability a program would fail in ways
                // that nobody can explain, so that one is not optional.
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSPC) if name != b"security.capability" => {
                    self.facts.xattrs_skipped += 1;
                }
                Err(errno) => return Err(at("set an attribute of")(errno)),
            }
        }
        Ok(())
    }
}

fn walk_error(errno: Errno) -> EntryError {
    match errno {
        Errno::LOOP => EntryError::ThroughSymlink,
        Errno::NOTDIR => EntryError::ThroughFile,
        Errno::XDEV => EntryError::Outside,
        Errno::NAMETOOLONG => EntryError::TooLong,
        errno => at("reach")(errno),
    }
}

/// `security.capability` without a namespace's root id: version 2 of the kernel's `vfs_cap_data`. A version 3 value
/// names ids of the machine that made the image.
fn plain_capability(value: &[u8]) -> Option<Vec<u8>> {
    const REVISION_2: u32 = 0x0200_0000;
    const REVISION_3: u32 = 0x0300_0000;
    let magic = u32::from_le_bytes(value.get(..4)?.try_into().ok()?);
    match (magic & 0xff00_0000, value.len()) {
        (REVISION_2, 20) => Some(value.to_vec()),
        (REVISION_3, 24) => {
            let mut plain = value[..20].to_vec();
            plain[..4].copy_from_slice(&(REVISION_2 | magic & 0x00ff_ffff).to_le_bytes());
            Some(plain)
        }
        _ => None,
    }
}

fn times(mtime: (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn stat(parent: &OwnedFd, name: &[u8]) -> Result<Option<rfs::Stat>, EntryError> {
    match rfs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(at("look at")(errno)),
    }
}

fn is_whiteout(stat: &rfs::Stat) -> bool {
    rfs::FileType::from_raw_mode(stat.st_mode) == rfs::FileType::CharacterDevice && stat.st_rdev == 0
}

fn mark_opaque(directory: &OwnedFd) -> Result<(), EntryError> {
    rfs::fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())
        .map_err(at("mark as opaque"))
}

fn open_directory(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rfs::openat(parent, name, flags, Mode::empty())
}

/// Removes a directory and all below it, never through a link. Its depth is at most [`DEPTH_MAX`] by construction.
fn remove_tree(parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    let directory = open_directory(parent, name)?;
    for entry in rfs::Dir::read_from(&directory)? {
        let entry = entry?;
        let child = entry.file_name().to_bytes();
        if matches!(child, b"." | b"..") {
            continue;
        }
        match rfs::unlinkat(&directory, child, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => remove_tree(&directory, child)?,
            Err(errno) => return Err(errno),
        }
    }
    rfs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}
