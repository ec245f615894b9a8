//! Files out of a container, as an archive.

use super::{
    ContainerFiles, DEPTH_MAX, FilesError, Seen, inside, io_at,
    place::{Asked, Found, PathStat},
    reopen, shown,
};
use crate::image::{
    tar::{Entry, Kind, XATTR_BYTES_MAX, XATTRS_MAX},
    tar_writer::TarWriter,
};
use model::plan::IdRange;
use rustix::{
    fs::{self as rfs, FileType, Mode, OFlags},
    io::Errno,
};
use std::{
    collections::{HashMap, HashSet},
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Most entries of an archive.
const ENTRIES_MAX: u64 = 5_000_000;
/// Most files with several names that are remembered, to be told as links; further ones are told as files of their own.
const LINKS_MAX: usize = 1_000_000;
/// `SYSFS_MAGIC` of linux/magic.h.
const SYSFS_MAGIC: i64 = 0x6265_6572;
/// Longest list of attribute names that is read.
const XATTR_NAMES_BYTES_MAX: usize = 64 << 10;
/// File capabilities; of the other attributes only the users' own are the container's.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// Which mounts are a part of what is packed.
enum Mounts<'a> {
    /// All but these.
    But(&'a HashSet<u64>),
    /// The one of the root alone: of others the place is shown.
    Only(u64),
}

impl Mounts<'_> {
    fn holds(&self, mount: u64) -> bool {
        match self {
            Self::But(skipped) => !skipped.contains(&mount),
            Self::Only(root) => mount == *root,
        }
    }
}

/// Whether something lies in a file system that shows the kernel.
fn is_kernels(handle: &OwnedFd) -> io::Result<bool> {
    Ok(rfs::fstatfs(handle)?.f_type as i64 == SYSFS_MAGIC)
}

/// What is being packed.
pub(super) struct Packer<'a, W> {
    tar: TarWriter<W>,
    ids: IdRange,
    mounts: Mounts<'a>,
    links: HashMap<(u64, u64), Vec<u8>>,
    entries: u64,
    /// No time is told that is later, in seconds since 1970.
    newest_s: Option<i64>,
}

impl ContainerFiles {
    /// Opens what lies at a path, to be packed.
    pub(super) fn open_for_packing(&self, path: &str) -> Result<(PathStat, Asked, Found), FilesError> {
        let asked = Asked::read(path)?;
        let found = self.find(&asked)?;
        Ok((self.tell(&asked, &found), asked, found))
    }

    /// Writes an archive of what was found at a path: the thing itself, and all below it, named after its last part.
    pub(super) fn pack(&self, asked: &Asked, found: Found, output: impl Write) -> Result<(), FilesError> {
        let mut packer = Packer::new(output, self.ids(), Mounts::But(&self.at.skipped));
        packer.add(found.handle, found.seen, asked.name.clone(), 0)?;
        packer.finish()
    }

    /// Writes an archive of all its files but those of volumes.
    pub(super) fn export(&self, output: impl Write) -> Result<(), FilesError> {
        let root = Seen::of(&self.at.root).map_err(io_at("look at the root"))?;
        let mut packer = Packer::new(output, self.ids(), Mounts::Only(root.mount));
        packer.add_below(self.at.root.as_fd(), b"", 1)?;
        packer.finish()
    }

    /// Writes an archive of what it changed, as a layer of an image (OCI image specification, "layer"). No time in it is
    /// later than `newest_s`.
    pub(super) fn pack_layer(&self, output: impl Write, newest_s: Option<i64>) -> Result<(), FilesError> {
        let mut packer = Packer::new(output, self.ids(), Mounts::But(&self.at.skipped));
        packer.newest_s = newest_s;
        self.visit_upper(&mut |step| packer.add_step(step))?;
        packer.finish()
    }
}

impl<'a, W: Write> Packer<'a, W> {
    fn new(output: W, ids: IdRange, mounts: Mounts<'a>) -> Self {
        Self { tar: TarWriter::new(output), ids, mounts, links: HashMap::new(), entries: 0, newest_s: None }
    }

    fn finish(self) -> Result<(), FilesError> {
        self.tar.finish().map_err(io_at("end the archive")).map(|_| ())
    }

    /// Adds all that a directory holds.
    fn add_below(&mut self, directory: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<(), FilesError> {
        if depth > DEPTH_MAX {
            return Err(FilesError::Limit { what: "levels of directories", limit: DEPTH_MAX as u64 });
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rfs::openat(directory, ".", flags, Mode::empty());
        let opened = opened.map_err(io_at(format!("open {}", shown(path))))?;
        for entry in rfs::Dir::read_from(&opened).map_err(io_at(format!("read {}", shown(path))))? {
            let entry = entry.map_err(io_at(format!("read {}", shown(path))))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let handle = match rfs::openat(&opened, name, flags, Mode::empty()) {
                Ok(handle) => handle,
                // It went meanwhile.
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(io_at(format!("open {}", shown(name)))(errno)),
            };
            let seen = Seen::of(&handle).map_err(io_at(format!("look at {}", shown(name))))?;
            self.add(handle, seen, under(path, name), depth)?;
        }
        Ok(())
    }

    /// Adds one thing, and all below it.
    fn add(&mut self, handle: OwnedFd, seen: Seen, path: Vec<u8>, depth: usize) -> Result<(), FilesError> {
        // What was asked for by its own path is packed whatever mount it lies in.
        let is_inside = depth == 0 || self.mounts.holds(seen.mount);
        if depth == 0 && is_kernels(&handle).map_err(io_at(format!("look at {}", shown(&path))))? {
            // The container sees less of it than the host's root, who reads it here.
            return Err(FilesError::Kernel(shown(&path)));
        }
        match seen.kind {
            FileType::Directory => {
                self.add_directory(&handle, &seen, &path)?;
                if is_inside { self.add_below(handle.as_fd(), &path, depth + 1) } else { Ok(()) }
            }
            FileType::RegularFile => self.add_file(&handle, &seen, path, is_inside),
            FileType::Symlink => self.add_symlink(&handle, &seen, path),
            FileType::Fifo => self.put(&self.entry(&seen, path, Kind::Fifo)),
            // Sockets have no place in archives, and devices are the container's own.
            _ => Ok(()),
        }
    }

    fn add_directory(&mut self, handle: &OwnedFd, seen: &Seen, path: &[u8]) -> Result<(), FilesError> {
        let mut named = path.to_vec();
        if !named.ends_with(b"/") {
            named.push(b'/');
        }
        let mut entry = self.entry(seen, named, Kind::Directory);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(opened) = rfs::openat(handle, ".", flags, Mode::empty()) {
            entry.xattrs = self.attributes(&opened, path)?;
        }
        self.put(&entry)
    }

    fn add_file(
        &mut self,
        handle: &OwnedFd,
        seen: &Seen,
        path: Vec<u8>,
        is_inside: bool,
    ) -> Result<(), FilesError> {
        if seen.links > 1 {
            if let Some(first) = self.links.get(&seen.file) {
                let link = first.clone();
                return self.put(&Entry { link, ..self.entry(seen, path, Kind::HardLink) });
            }
            if self.links.len() < LINKS_MAX {
                self.links.insert(seen.file, path.clone());
            }
        }
        let mut entry = self.entry(seen, path, Kind::File);
        if !is_inside {
            return self.put(&entry);
        }
        let operation = format!("read {}", shown(&entry.path));
        let mut content = reopen(handle.as_fd()).map_err(io_at(operation.clone()))?;
        entry.xattrs = self.attributes(&content, &entry.path)?;
        entry.size_bytes = seen.size_bytes;
        self.count()?;
        self.tar.add_file(&entry, &mut content).map_err(io_at(operation))
    }

    fn add_symlink(&mut self, handle: &OwnedFd, seen: &Seen, path: Vec<u8>) -> Result<(), FilesError> {
        let text = rfs::readlinkat(handle, "", vec![]).map_err(io_at(format!("read {}", shown(&path))))?;
        self.put(&Entry { link: text.into_bytes(), ..self.entry(seen, path, Kind::Symlink) })
    }

    fn put(&mut self, entry: &Entry) -> Result<(), FilesError> {
        self.count()?;
        self.tar.add(entry).map_err(io_at("write the archive"))
    }

    fn count(&mut self) -> Result<(), FilesError> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(FilesError::Limit { what: "files", limit: ENTRIES_MAX });
        }
        Ok(())
    }

    fn entry(&self, seen: &Seen, path: Vec<u8>, kind: Kind) -> Entry {
        Entry {
            path,
            link: vec![],
            kind,
            mode: seen.mode & 0o7777,
            uid: inside(seen.uid, self.ids).into(),
            gid: inside(seen.gid, self.ids).into(),
            size_bytes: 0,
            mtime: (self.newest_s.map_or(seen.mtime.0, |newest| newest.min(seen.mtime.0)), 0),
            xattrs: vec![],
        }
    }

    /// The attributes that are the container's own.
    fn attributes(&self, file: impl AsFd, path: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, FilesError> {
        let failed = || format!("read the attributes of {}", shown(path));
        let mut names = vec![0_u8; XATTR_NAMES_BYTES_MAX];
        let length = match rfs::flistxattr(&file, &mut names[..]) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => return Ok(vec![]),
            Err(errno) => return Err(io_at(failed())(errno)),
        };
        let mut all = vec![];
        for name in names[..length].split(|byte| *byte == 0).take(XATTRS_MAX) {
            if name != CAPABILITY && !name.starts_with(b"user.") {
                continue;
            }
            let mut value = vec![0_u8; XATTR_BYTES_MAX];
            let length = match rfs::fgetxattr(&file, name, &mut value[..]) {
                Ok(length) => length,
                Err(Errno::NODATA) => continue,
                Err(errno) => return Err(io_at(failed())(errno)),
            };
            value.truncate(length);
            if name == CAPABILITY {
                value = plain_capability(value);
            }
            all.push((name.to_vec(), value));
        }
        Ok(all)
    }

    /// A step of a walk through what a container wrote, as an entry of a layer.
    fn add_step(&mut self, step: super::changes::Step<'_>) -> Result<(), FilesError> {
        use super::changes::Step;
        match step {
            Step::Gone { parent, name } => {
                let path = under(parent, &[b".wh.", name].concat());
                self.put(&Packer::<W>::mark(path))
            }
            Step::Place { handle, seen, path } => self.add_directory(handle, seen, path),
            Step::Here { handle, seen, path, hides } => {
                match seen.kind {
                    FileType::Directory => self.add_directory(handle, seen, path)?,
                    FileType::RegularFile => self.add_file(handle, seen, path.to_vec(), true)?,
                    FileType::Symlink => self.add_symlink(handle, seen, path.to_vec())?,
                    FileType::Fifo => self.put(&self.entry(seen, path.to_vec(), Kind::Fifo))?,
                    _ => {}
                }
                if hides { self.put(&Packer::<W>::mark(under(path, b".wh..wh..opq"))) } else { Ok(()) }
            }
        }
    }

    fn mark(path: Vec<u8>) -> Entry {
        Entry {
            path,
            link: vec![],
            kind: Kind::File,
            mode: 0o600,
            uid: 0,
            gid: 0,
            size_bytes: 0,
            mtime: (0, 0),
            xattrs: vec![],
        }
    }
}

/// A name below a directory.
pub(super) fn under(path: &[u8], name: &[u8]) -> Vec<u8> {
    match path {
        b"" => name.to_vec(),
        path if path.ends_with(b"/") => [path, name].concat(),
        path => [path, b"/".as_slice(), name].concat(),
    }
}

/// The host sees the capabilities of a user namespace with the namespace's root (version 3 of `vfs_cap_data`); the
/// container knows them without (version 2).
fn plain_capability(mut value: Vec<u8>) -> Vec<u8> {
    const REVISION_2: u32 = 0x0200_0000;
    const REVISION_3: u32 = 0x0300_0000;
    if let Some(Ok(magic)) = value.get(..4).map(|bytes| bytes.try_into().map(u32::from_le_bytes))
        && magic & 0xff00_0000 == REVISION_3
        && value.len() == 24
    {
        value[..4].copy_from_slice(&(REVISION_2 | magic & 0x00ff_ffff).to_le_bytes());
        value.truncate(20);
    }
    value
}
