//! What a container changed of its image: its upper directory, read as overlayfs writes it.
//!
//! A character device 0:0 stands for a name that is gone, and a directory with `trusted.overlay.opaque` hides all that is
//! below it (kernel, "overlayfs.rst"). Whether a name was there before is looked up in the layers, from the top down, as
//! overlayfs does. What was made only to mount something on it is no change.

use super::{ContainerFiles, DEPTH_MAX, FilesError, Seen, inside, io_at, pack::under, shown};
use crate::container::bundle::{Mount, Source};
use rustix::{
    fs::{self as rfs, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsStr,
    io::{self, BufRead, BufReader, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// Most changes that are told.
const CHANGES_MAX: usize = 200_000;
/// Most bytes of their paths.
const PATHS_BYTES_MAX: usize = 32 << 20;
/// Longest record of one: a path may be told with three bytes for one that is no text.
const RECORD_BYTES_MAX: u64 = 4 * 4096;
const OPAQUE: &str = "trusted.overlay.opaque";

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is another one, or has other content, or something in it changed.
    Modified,
    /// It was not there.
    Added,
    /// It is gone.
    Deleted,
}

/// A file that differs from the image's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its path in the container.
    pub path: String,
    /// What became of it.
    pub kind: ChangeKind,
}

impl Change {
    /// The change in a list of them: a letter, the path, and a zero.
    pub(super) fn record(&self) -> Vec<u8> {
        let letter = match self.kind {
            ChangeKind::Modified => b'C',
            ChangeKind::Added => b'A',
            ChangeKind::Deleted => b'D',
        };
        [[letter].as_slice(), self.path.as_bytes(), &[0]].concat()
    }

    /// Reads a record without its end. `None` for what is none.
    fn read(record: &[u8]) -> Option<Self> {
        let (letter, path) = record.split_first()?;
        let kind = match letter {
            b'C' => ChangeKind::Modified,
            b'A' => ChangeKind::Added,
            b'D' => ChangeKind::Deleted,
            _ => return None,
        };
        let path = std::str::from_utf8(path).ok().filter(|path| path.starts_with('/'))?;
        Some(Self { path: path.into(), kind })
    }

    /// Reads a list that a guest made.
    ///
    /// # Errors
    /// More changes than are told, or what is no list of them.
    pub(super) fn read_all(list: impl Read) -> Result<Vec<Self>, FilesError> {
        let no_list = || io_at("read the changes")(io::Error::from(io::ErrorKind::InvalidData));
        let mut list = BufReader::new(list);
        let (mut all, mut bytes) = (vec![], 0);
        loop {
            let mut record = vec![];
            let length = list.by_ref().take(RECORD_BYTES_MAX).read_until(0, &mut record);
            if length.map_err(io_at("read the changes"))? == 0 {
                return Ok(all);
            }
            if all.len() == CHANGES_MAX {
                return Err(FilesError::Limit { what: "changes", limit: CHANGES_MAX as u64 });
            }
            bytes += record.len();
            refuse_more(bytes)?;
            let record = record.strip_suffix(&[0]).ok_or_else(no_list)?;
            all.push(Self::read(record).ok_or_else(no_list)?);
        }
    }
}

fn refuse_more(paths_bytes: usize) -> Result<(), FilesError> {
    match paths_bytes > PATHS_BYTES_MAX {
        true => Err(FilesError::Limit { what: "bytes of paths that changed", limit: PATHS_BYTES_MAX as u64 }),
        false => Ok(()),
    }
}

/// A step of a walk through an upper directory.
pub(super) enum Step<'a> {
    /// A name of the layers below is gone.
    Gone {
        /// Path of its directory, without a slash in front.
        parent: &'a [u8],
        name: &'a [u8],
    },
    /// A directory that was made to mount a volume on it.
    Place {
        handle: &'a OwnedFd,
        seen: &'a Seen,
        /// Its path without a slash in front.
        path: &'a [u8],
    },
    /// Something is here.
    Here {
        handle: &'a OwnedFd,
        seen: &'a Seen,
        /// Its path without a slash in front.
        path: &'a [u8],
        /// A directory that hides what the layers below have under its name.
        hides: bool,
    },
}

impl ContainerFiles {
    /// Paths that differ from the image's, in their order.
    ///
    /// # Errors
    /// What cannot be read, or more changes than can be told.
    pub fn changes(&self) -> Result<Vec<Change>, FilesError> {
        let layers = Layers::open(&self.container().layers)?;
        let mut found: BTreeMap<Vec<u8>, ChangeKind> = BTreeMap::new();
        let mut bytes = 0;
        let ids = self.ids();
        self.visit_upper(&mut |step| {
            let (path, kind) = match step {
                Step::Place { .. } => return Ok(()),
                Step::Gone { parent, name } => (under(parent, name), ChangeKind::Deleted),
                Step::Here { seen, path, hides, .. } => match layers.find(path)? {
                    None => (path.to_vec(), ChangeKind::Added),
                    Some(was) if was.is_directory() && seen.is_directory() && !hides => {
                        let owner = (inside(seen.uid, ids), inside(seen.gid, ids));
                        if was.mode == seen.mode && (was.uid, was.gid) == owner {
                            // It is here because of what is in it, if anything.
                            return Ok(());
                        }
                        (path.to_vec(), ChangeKind::Modified)
                    }
                    Some(_) => (path.to_vec(), ChangeKind::Modified),
                },
            };
            // What holds a change is changed.
            let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
            for at in slashes.collect::<Vec<_>>() {
                found.entry(path[..at].to_vec()).or_insert_with(|| {
                    bytes += at;
                    ChangeKind::Modified
                });
            }
            bytes += path.len();
            refuse_more(bytes)?;
            found.insert(path, kind);
            if found.len() > CHANGES_MAX {
                return Err(FilesError::Limit { what: "changes", limit: CHANGES_MAX as u64 });
            }
            Ok(())
        })?;
        let told = found
            .into_iter()
            .map(|(path, kind)| Change { path: format!("/{}", String::from_utf8_lossy(&path)), kind });
        Ok(told.collect())
    }

    /// Bytes of the files that the container wrote, each counted once; those of volumes are not its own.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn written_bytes(&self) -> Result<u64, FilesError> {
        let (mut bytes, mut counted) = (0_u64, HashSet::new());
        self.visit_upper(&mut |step| {
            if let Step::Here { seen, .. } = step
                && seen.kind == rfs::FileType::RegularFile
                && (seen.links < 2 || counted.insert(seen.file))
            {
                bytes = bytes.saturating_add(seen.size_bytes);
            }
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Walks through what the container wrote, parents first.
    pub(super) fn visit_upper(
        &self,
        visit: &mut dyn FnMut(Step<'_>) -> Result<(), FilesError>,
    ) -> Result<(), FilesError> {
        self.visit_directory(self.at.upper.as_fd(), b"", 0, visit)
    }

    fn visit_directory(
        &self,
        directory: BorrowedFd<'_>,
        path: &[u8],
        depth: usize,
        visit: &mut dyn FnMut(Step<'_>) -> Result<(), FilesError>,
    ) -> Result<(), FilesError> {
        if depth > DEPTH_MAX {
            return Err(FilesError::Limit { what: "levels of directories", limit: DEPTH_MAX as u64 });
        }
        let failed = || format!("read {}", shown(path));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rfs::openat(directory, ".", flags, Mode::empty()).map_err(io_at(failed()))?;
        let mut names = vec![];
        for entry in rfs::Dir::read_from(&opened).map_err(io_at(failed()))? {
            let name = entry.map_err(io_at(failed()))?.file_name().to_bytes().to_vec();
            if !matches!(name.as_slice(), b"." | b"..") {
                names.push(name);
            }
        }
        // In an order that is not the file system's: the same changes make the same layer.
        names.sort();
        for name in &names {
            let path_here = under(path, name);
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let handle = match rfs::openat(&opened, name.as_slice(), flags, Mode::empty()) {
                Ok(handle) => handle,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(io_at(format!("open {}", shown(&path_here)))(errno)),
            };
            let seen = Seen::of(&handle).map_err(io_at(format!("look at {}", shown(&path_here))))?;
            if let Some(mount) = self.mounted_on(&path_here) {
                if seen.is_directory() && matches!(mount.source, Source::Bind { .. }) {
                    visit(Step::Place { handle: &handle, seen: &seen, path: &path_here })?;
                }
                continue;
            }
            if seen.is_whiteout() {
                visit(Step::Gone { parent: path, name })?;
                continue;
            }
            let hides = seen.is_directory() && is_opaque(&handle);
            visit(Step::Here { handle: &handle, seen: &seen, path: &path_here, hides })?;
            if seen.is_directory() {
                self.visit_directory(handle.as_fd(), &path_here, depth + 1, visit)?;
            }
        }
        Ok(())
    }

    /// What is mounted on a path: such a place was made for that.
    fn mounted_on(&self, path: &[u8]) -> Option<&Mount> {
        let path = Path::new("/").join(OsStr::from_bytes(path));
        self.container().mounts.iter().find(|mount| mount.target == path)
    }
}

fn is_opaque(directory: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut value = [0_u8; 4];
    rfs::openat(directory, ".", flags, Mode::empty())
        .and_then(|opened| rfs::fgetxattr(&opened, OPAQUE, &mut value[..]))
        .is_ok_and(|length| &value[..length] == b"y")
}

/// The layers of an image, lowest first. Nobody writes them.
struct Layers(Vec<OwnedFd>);

impl Layers {
    fn open(paths: &[PathBuf]) -> Result<Self, FilesError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = paths.iter().map(|path| {
            rfs::open(path, flags, Mode::empty()).map_err(io_at(format!("open the layer {}", path.display())))
        });
        opened.collect::<Result<_, _>>().map(Self)
    }

    /// What the image has under a path.
    fn find(&self, path: &[u8]) -> Result<Option<Seen>, FilesError> {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let mut layers: Vec<&OwnedFd> = self.0.iter().rev().collect();
        for length in 1..=parts.len() {
            let is_last = length == parts.len();
            let here = parts[..length].join(&b'/');
            let mut seen_here = None;
            let mut kept = vec![];
            for layer in layers {
                let Some((handle, seen)) = look(layer, &here)? else { continue };
                if seen.is_whiteout() {
                    break;
                }
                let is_directory = seen.is_directory();
                if seen_here.is_none() {
                    seen_here = Some(seen);
                } else if !is_directory {
                    // Hidden by the directory above it.
                    break;
                }
                kept.push(layer);
                if !is_directory || is_opaque(&handle) {
                    break;
                }
            }
            match seen_here {
                None => return Ok(None),
                Some(seen) if is_last => return Ok(Some(seen)),
                Some(seen) if !seen.is_directory() => return Ok(None),
                Some(_) => layers = kept,
            }
        }
        Ok(None)
    }
}

fn look(layer: &OwnedFd, path: &[u8]) -> Result<Option<(OwnedFd, Seen)>, FilesError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rfs::openat2(layer, path, flags, Mode::empty(), resolve) {
        Ok(handle) => {
            let seen = Seen::of(&handle).map_err(io_at(format!("look at {} in a layer", shown(path))))?;
            Ok(Some((handle, seen)))
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(io_at(format!("look at {} in a layer", shown(path)))(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn lists_are_read_as_they_are_made_and_nothing_else_is() {
        let change = |path: &str, kind| Change { path: path.into(), kind };
        let all = [
            change("/etc", ChangeKind::Modified),
            change("/etc/a b\n", ChangeKind::Added),
            change("/x", ChangeKind::Deleted),
        ];
        let list: Vec<u8> = all.iter().flat_map(Change::record).collect();
        assert_eq!(Change::read_all(list.as_slice()).unwrap(), all);
        assert_eq!(Change::read_all(&b""[..]).unwrap(), []);
        let endless = [b"A/".as_slice(), &[b'a'; 20_000], b"\0"].concat();
        for wrong in [&b"A/x"[..], b"X/x\0", b"Aetc\0", b"\0", b"A/\xff\0", endless.as_slice()] {
            assert!(Change::read_all(wrong).is_err(), "{:?}", &wrong[..wrong.len().min(9)]);
        }
        let many = b"A/x\0".repeat(CHANGES_MAX + 1);
        assert!(matches!(Change::read_all(many.as_slice()), Err(FilesError::Limit { .. })));
    }

    #[test]
    fn what_was_there_before_is_asked_from_the_top_down() {
        let dir = tempfile::tempdir().unwrap();
        let (low, high) = (dir.path().join("low"), dir.path().join("high"));
        for path in ["low/etc/a", "low/gone/b", "low/only/c", "high/etc/d", "high/only"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        rfs::mknodat(rfs::CWD, high.join("gone"), rfs::FileType::CharacterDevice, Mode::empty(), 0)
            .expect("needs root, as all of these tests");
        let layers = Layers::open(&[low, high]).unwrap();
        for (path, is_there) in [
            ("etc", true),
            ("etc/a", true),
            ("etc/d", true),
            ("etc/e", false),
            ("gone", false),
            ("gone/b", false),
            ("only", true),
            ("only/c", false),
            ("no/such", false),
        ] {
            assert_eq!(layers.find(path.as_bytes()).unwrap().is_some(), is_there, "{path}");
        }
    }
}
