//! Files into a container, from an archive.
//!
//! Each entry is made anew in the directory that its name leads to inside the container, through links of the container
//! as a program in it would go. What is made is never opened by name again: owner, mode and times are set through the
//! descriptor, so that a container which swaps things meanwhile changes nothing but its own.

use super::{ContainerFiles, FilesError, Seen, io_at, pack::CAPABILITY, place::Asked, shown};
use crate::{
    container::user,
    image::{
        compression::decompress,
        shifted_copy::namespaced_capability,
        tar::{Entry, Kind, TarReader},
        tree_removal::remove_tree,
    },
    room::{CHECK_BYTES, FREE_BYTES_MIN, Short, Space},
};
use rustix::{
    fs::{
        self as rfs, AtFlags, FileType, Gid, Mode, OFlags, StatVfsMountFlags, Timespec, Timestamps, Uid,
        XattrFlags,
    },
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};
use sys::jail::{privilege, tree};

/// Most entries of an archive.
const ENTRIES_MAX: u64 = 1_000_000;
/// Most directories whose times are set at the end: they are kept open. Those beyond have the time of their last change.
const TIMES_MAX: usize = 1_000;
/// Most levels between the root and a mount (PATH_MAX, in names of one letter).
const LEVELS_MAX: usize = 2048;
/// Longest name of one part (NAME_MAX).
const NAME_BYTES_MAX: usize = 255;
const COPY_BYTES: usize = 128 << 10;

/// How an archive is written into a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Into {
    /// Directory of the container that it is unpacked in; it must be there.
    pub path: String,
    /// A directory is not replaced by something else, nor something else by a directory.
    pub keeps_kinds: bool,
    /// All belongs to the container's user then, else to whom the archive says.
    pub as_user: bool,
}

/// What is being unpacked.
struct Unpacker<'a> {
    files: &'a ContainerFiles,
    /// The directory, as a path of the container.
    target: PathBuf,
    keeps_kinds: bool,
    /// Owner of all, in place of what the archive says.
    owner: Option<(u32, u32)>,
    times: Vec<(OwnedFd, (i64, u32))>,
    written_bytes: u64,
    checked_at: u64,
    buffer: Vec<u8>,
}

impl ContainerFiles {
    /// Writes an archive (plain, or compressed by gzip or zstd) below a directory of the container. The calling thread
    /// makes files as the container's root from then on.
    ///
    /// # Errors
    /// What is wrong with the place or the archive. What was written before stays.
    pub(super) fn unpack(&self, into: &Into, archive: impl Read) -> Result<(), FilesError> {
        let mut asked = Asked::read(&into.path)?;
        asked.follows = true;
        let found = self.find(&asked)?;
        if !found.seen.is_directory() {
            return Err(FilesError::NoDirectory(asked.text()));
        }
        let stat = rfs::fstatvfs(&found.handle).map_err(io_at(format!("look at {}", asked.text())))?;
        if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(FilesError::ReadOnly(asked.text()));
        }
        let base = self.ids().base;
        // Shifted mounts know no other owner of new files.
        privilege::make_files_as(base, base).map_err(io_at("become the container's root"))?;
        let owner = if into.as_user { Some(self.user()?) } else { None };
        let mut unpacker = Unpacker {
            files: self,
            target: asked.path(),
            keeps_kinds: into.keeps_kinds,
            owner,
            times: vec![],
            written_bytes: 0,
            checked_at: 0,
            buffer: vec![0; COPY_BYTES],
        };
        let mut reader = TarReader::new(decompress(archive)?);
        let mut entries = 0;
        while let Some(entry) = reader.next_entry()? {
            entries += 1;
            if entries > ENTRIES_MAX {
                return Err(FilesError::Limit { what: "entries in the archive", limit: ENTRIES_MAX });
            }
            unpacker.write(&entry, &mut reader)?;
        }
        // A client waits until all that it sent was read.
        io::copy(&mut reader.into_inner(), &mut io::sink()).map_err(io_at("read the archive's end"))?;
        unpacker.set_times()
    }

    /// The container's user, by its own account files.
    fn user(&self) -> Result<(u32, u32), FilesError> {
        let (passwd, group) = (self.text("/etc/passwd")?, self.text("/etc/group")?);
        let found = user::resolve(&self.container().process.user, &passwd, &group, self.ids().count)?;
        Ok((found.uid, found.gid))
    }
}

fn refused(entry: &Entry, why: impl std::convert::Into<String>) -> FilesError {
    FilesError::Entry { entry: shown(&entry.path), why: why.into() }
}

/// The parts of an archive's name. Leading slashes are dropped, as tar does.
fn parts(entry: &Entry, name: &[u8]) -> Result<PathBuf, FilesError> {
    let mut path = PathBuf::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(refused(entry, "leads out of the directory")),
            part if part.len() > NAME_BYTES_MAX => return Err(refused(entry, "has a name that is too long")),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

impl Unpacker<'_> {
    fn write<R: Read>(&mut self, entry: &Entry, archive: &mut TarReader<R>) -> Result<(), FilesError> {
        let path = parts(entry, &entry.path)?;
        let Some(name) = path.file_name() else {
            // "./" speaks of the directory itself, which is there.
            return if entry.kind == Kind::Directory { Ok(()) } else { Err(refused(entry, "has no name")) };
        };
        let failed = |operation: &str| {
            let operation = format!("{operation} {}", shown(&entry.path));
            move |errno: Errno| match errno {
                Errno::ROFS => FilesError::ReadOnly(operation),
                errno => io_at(operation)(errno),
            }
        };
        let parent = self.parent(entry, path.parent().unwrap_or(Path::new("")))?;
        self.make_room_for(entry, &parent, name.as_bytes())?;
        match entry.kind {
            Kind::Directory => {
                match rfs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(failed("make")(errno)),
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rfs::openat(&parent, name, flags, Mode::empty()).map_err(failed("open"))?;
                self.dress(&made, entry)?;
                if self.times.len() < TIMES_MAX {
                    self.times.push((made, entry.mtime));
                }
                Ok(())
            }
            Kind::File => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rfs::openat(&parent, name, flags, Mode::from_raw_mode(0o600));
                let mut file = File::from(made.map_err(failed("make"))?);
                self.copy(&mut file, entry, archive)?;
                self.dress(&file, entry)?;
                rfs::futimens(&file, &times(entry.mtime)).map_err(failed("set the time of"))
            }
            Kind::Symlink => {
                rfs::symlinkat(&entry.link[..], &parent, name).map_err(failed("make"))?;
                let (uid, gid) = self.owner(entry)?;
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rfs::chownat(&parent, name, Some(uid), Some(gid), flags).map_err(failed("give away"))?;
                rfs::utimensat(&parent, name, &times(entry.mtime), flags).map_err(failed("set the time of"))
            }
            Kind::HardLink => {
                let target = parts(entry, &entry.link)?;
                let Some(target_name) = target.file_name() else {
                    return Err(refused(entry, "is a link to nothing"));
                };
                let from = self.parent(entry, target.parent().unwrap_or(Path::new("")))?;
                match rfs::linkat(&from, target_name, &parent, name, AtFlags::empty()) {
                    Err(Errno::NOENT) => Err(refused(entry, "is a link to a file that is not there")),
                    result => result.map_err(failed("link")),
                }
            }
            Kind::Fifo => {
                rfs::mknodat(&parent, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                    .map_err(failed("make"))?;
                let (uid, gid) = self.owner(entry)?;
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rfs::chownat(&parent, name, Some(uid), Some(gid), flags).map_err(failed("give away"))
            }
            Kind::CharDevice | Kind::BlockDevice => {
                Err(refused(entry, "is a device: a container has those of its own /dev and no others"))
            }
        }
    }

    /// The directory that a thing lies in; what is missing of it is made.
    fn parent(&self, entry: &Entry, below: &Path) -> Result<OwnedFd, FilesError> {
        let path = self.target.join(below);
        let base = self.files.ids().base;
        tree::make_directory_in_root(self.files.at.root.as_fd(), &path, 0o755, (base, base)).map_err(
            |error| match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOTDIR | Errno::LOOP) => refused(entry, "lies in something that is no directory"),
                Some(Errno::ROFS) => FilesError::ReadOnly(shown(path.as_os_str().as_bytes())),
                _ => io_at(format!("make the directory of {}", shown(&entry.path)))(error),
            },
        )
    }

    /// Takes away what is in the way of an entry.
    fn make_room_for(&self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<(), FilesError> {
        let failed = |operation: &str| format!("{operation} {}", shown(&entry.path));
        let Some(there) = Seen::at(parent, name).map_err(io_at(failed("look at")))? else { return Ok(()) };
        let (is_directory, comes_directory) = (there.is_directory(), entry.kind == Kind::Directory);
        if is_directory && comes_directory {
            return Ok(());
        }
        if self.keeps_kinds && is_directory != comes_directory {
            let word = |directory| if directory { "directory" } else { "non-directory" };
            let path = shown(&entry.path);
            return Err(FilesError::Overwrite { what: word(is_directory), path, by: word(comes_directory) });
        }
        if there.mount != Seen::of(parent).map_err(io_at(failed("look around")))?.mount {
            return Err(refused(entry, "would replace a mount of the container"));
        }
        if is_directory && self.holds_mount(parent, name).map_err(io_at(failed("look into")))? {
            return Err(refused(entry, "would replace a directory with a mount of the container below it"));
        }
        let removed = if is_directory {
            // Through the descriptor: the last part alone is a name, and links are not followed there.
            remove_tree(
                &PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd())).join(OsStr::from_bytes(name)),
            )
        } else {
            rfs::unlinkat(parent, name, AtFlags::empty()).map_err(io::Error::from)
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EROFS) => {
                Err(FilesError::ReadOnly(shown(&entry.path)))
            }
            other => other.map_err(io_at(failed("replace"))),
        }
    }

    /// Whether any of the container's mounts lies below a directory: removing what is in the way must not empty a volume.
    fn holds_mount(&self, parent: &OwnedFd, name: &[u8]) -> io::Result<bool> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = Seen::of(rfs::openat(parent, name, flags, Mode::empty())?)?;
        let root = Seen::of(&self.files.at.root)?;
        for mount in self.files.container().mounts.iter().map(|mount| &mount.target) {
            // A mount that is not there now has nothing below it.
            let Ok(mut at) = tree::open_in_root(self.files.at.root.as_fd(), mount, libc::O_PATH, 0) else {
                continue;
            };
            if !Seen::of(&at)?.is_directory() {
                let parent = mount.parent().unwrap_or(Path::new("/"));
                at = tree::open_in_root(self.files.at.root.as_fd(), parent, libc::O_PATH, 0)?;
            }
            for _ in 0..LEVELS_MAX {
                let seen = Seen::of(&at)?;
                if seen.file == top.file && seen.mount == top.mount {
                    return Ok(true);
                }
                if seen.file == root.file && seen.mount == root.mount {
                    break;
                }
                at = rfs::openat(&at, "..", flags, Mode::empty())?;
            }
        }
        Ok(false)
    }

    fn owner(&self, entry: &Entry) -> Result<(Uid, Gid), FilesError> {
        let ids = self.files.ids();
        let shift = |id: u64| match u32::try_from(id) {
            Ok(id) if id < ids.count => Ok(ids.base + id),
            _ => Err(refused(entry, format!("belongs to {id}; a container has the ids below {}", ids.count))),
        };
        let (uid, gid) = match self.owner {
            Some((uid, gid)) => (u64::from(uid), u64::from(gid)),
            None => (entry.uid, entry.gid),
        };
        Ok((Uid::from_raw(shift(uid)?), Gid::from_raw(shift(gid)?)))
    }

    /// Owner, mode and attributes of what was made.
    fn dress(&self, made: impl AsFd, entry: &Entry) -> Result<(), FilesError> {
        let failed = || format!("set the owner and mode of {}", shown(&entry.path));
        let (uid, gid) = self.owner(entry)?;
        // Owner first: changing it clears set-id bits and capabilities.
        rfs::fchown(&made, Some(uid), Some(gid)).map_err(io_at(failed()))?;
        rfs::fchmod(&made, Mode::from_raw_mode(entry.mode)).map_err(io_at(failed()))?;
        for (name, value) in &entry.xattrs {
            let value = match name.as_slice() {
                name if name.starts_with(b"user.") => value.clone(),
                name if name == CAPABILITY => namespaced_capability(value.clone(), self.files.ids().base),
                // The others speak to the host, or to overlayfs.
                _ => continue,
            };
            match rfs::fsetxattr(&made, name.as_slice(), &value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(errno) => {
                    return Err(io_at(format!("set an attribute of {}", shown(&entry.path)))(errno));
                }
            }
        }
        Ok(())
    }

    fn copy<R: Read>(
        &mut self,
        file: &mut File,
        entry: &Entry,
        archive: &mut TarReader<R>,
    ) -> Result<(), FilesError> {
        let mut left = entry.size_bytes;
        while left > 0 {
            if self.written_bytes >= self.checked_at {
                check_room(file)?;
                self.checked_at = self.written_bytes + CHECK_BYTES;
            }
            let count = left.min(COPY_BYTES as u64) as usize;
            let piece = &mut self.buffer[..count];
            archive
                .read_exact(piece)
                .map_err(io_at(format!("read {} from the archive", shown(&entry.path))))?;
            file.write_all(piece).map_err(io_at(format!("write {}", shown(&entry.path))))?;
            (left, self.written_bytes) = (left - count as u64, self.written_bytes + count as u64);
        }
        Ok(())
    }

    /// The last step, since writing into a directory changes its time.
    fn set_times(self) -> Result<(), FilesError> {
        for (directory, mtime) in self.times.into_iter().rev() {
            rfs::futimens(&directory, &times(mtime)).map_err(io_at("set the time of a directory"))?;
        }
        Ok(())
    }
}

fn check_room(file: &File) -> Result<(), FilesError> {
    let space = Space::around(file).map_err(io_at("look at the free space"))?;
    // A small file system of the container's own is its own matter: it is full when it is full.
    if space.total_bytes <= 8 * FREE_BYTES_MIN {
        return Ok(());
    }
    let short = |short: Short| FilesError::NoRoom {
        free_bytes: short.free_bytes,
        free_bytes_min: short.free_bytes_min,
    };
    space.holds(0).map_err(short)
}
