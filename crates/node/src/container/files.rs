//! The files of a container, running or not: looked at, copied out and in as archives, compared with its image.
//!
//! All that is read and written lies in a file system that its container wrote, and may be changing at this moment. So no
//! path of it is ever walked by the host's own rules: names are resolved by `openat2` with RESOLVE_IN_ROOT below the
//! container's root, and what was opened is worked on by its descriptor. What a name leads to after it was looked at is
//! of no matter: it leads nowhere but into the container.
//!
//! ```text
//!   running   /proc/<shim>/root/<run>/root/<name>   what its shim has mounted: layers, volumes, tmpfs. Nothing that
//!                                                    the container mounted itself, and no proc
//!   stopped   the same mounts, made by a thread in a mount namespace of its own (`apart`), gone with the last handle
//! ```
//!
//! Those of a pod with a kernel of its own are worked on by the same code inside of its machine ([`work`]), and what comes out
//! of there is believed nothing ([`inside`], [`sieve`]): the host reads no file system that a guest wrote. While such a pod does
//! not run, its machine is started for that alone.
//!
//! A container that does not run is not started while its files are open: two overlays would share one upper directory.
//! [`turn`] sees to that. Ids come out as the container knows them, and go in the same way.

mod apart;
mod changes;
pub mod inside;
mod opened;
mod pack;
mod place;
mod sieve;
pub mod stream;
pub(super) mod turn;
mod unpack;
pub(super) mod work;

pub use changes::{Change, ChangeKind};
pub use opened::{Kept, OpenFiles};
pub use place::PathStat;
pub use unpack::Into;

use super::{
    bundle::{Container, Mount, Pod, Source},
    root, user,
};
use crate::{
    driver::DriverError,
    image::{compression::CompressionError, tar::TarError},
};
use model::{error::Code, plan::IdRange};
use rustix::{
    fs::{self as rfs, AtFlags, FileType, Mode, OFlags, Statx, StatxFlags},
    io::Errno,
};
use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};
use sys::{jail::tree, pidfd::PidFd};
use turn::Turn;

/// Most bytes of a container's `/etc/passwd` or `/etc/group` that are read.
const ACCOUNTS_BYTES_MAX: u64 = 4 << 20;
/// Owner of what belongs to no user of the container, as user_namespaces(7) shows it.
const NOBODY: u32 = 65_534;
/// Deepest directory that is walked: each level holds files open.
const DEPTH_MAX: usize = 255;

/// Why a container's files cannot be had, or not be changed.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is nothing under this path.
    #[error("no such file or directory: {0}")]
    Missing(String),
    /// It is there, and is none.
    #[error("{0} is not a directory")]
    NoDirectory(String),
    /// It is no file of the container's.
    #[error("{0} is the kernel's and not copied")]
    Kernel(String),
    /// Nothing can be written there.
    #[error("{0} is read-only")]
    ReadOnly(String),
    /// A directory would be replaced by something else, or the other way round.
    #[error("cannot overwrite {what} {path} with {by}")]
    Overwrite {
        /// What is there.
        what: &'static str,
        /// Where.
        path: String,
        /// What was to come.
        by: &'static str,
    },
    /// An entry of an archive cannot be written into a container.
    #[error("the archive's entry {entry:?} {why}")]
    Entry {
        /// Its name.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// The archive is damaged.
    #[error("the archive cannot be read")]
    Archive(#[from] TarError),
    /// It is compressed in a way that is not known.
    #[error("the archive cannot be read")]
    Compression(#[from] CompressionError),
    /// A limit was passed.
    #[error("there are more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The file system is nearly full.
    #[error("there is no room: {free_bytes} bytes are free, {free_bytes_min} must stay")]
    NoRoom {
        /// Free now.
        free_bytes: u64,
        /// Reserve.
        free_bytes_min: u64,
    },
    /// The user whom files are to belong to is unknown.
    #[error(transparent)]
    User(#[from] user::UserError),
    /// It could not be done inside of the pod's machine.
    #[error("{message}")]
    Inside {
        /// What doors tell.
        code: Code,
        /// The guest's words.
        message: String,
    },
    /// The machine in which its files are worked on while it does not run could not be started.
    #[error("its machine cannot be started for the work on its files")]
    Machine(#[source] Box<DriverError>),
    /// Too many work on files of such pods.
    #[error(
        "all of {whose} {limit} places for work on files of stopped pods with a kernel of their own are taken, and none was \
         given back within {waited_s} s"
    )]
    Crowded {
        /// Whose places, as in "your project's".
        whose: &'static str,
        /// How many there are.
        limit: usize,
        /// How long one was waited for, in seconds.
        waited_s: u64,
    },
    /// It does not run, and it is no matter for which its machine is started.
    #[error("what it wrote is weighed only while it runs, as it has a kernel of its own")]
    Asleep,
    /// It ended, started or went meanwhile.
    #[error("the container is being started or ended")]
    Moving,
    /// The system failed.
    #[error("cannot {operation}")]
    Io {
        /// What was tried.
        operation: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl FilesError {
    /// What doors tell.
    pub fn code(&self) -> Code {
        match self {
            Self::Missing(_) => Code::NotFound,
            Self::NoDirectory(_)
            | Self::Overwrite { .. }
            | Self::Entry { .. }
            | Self::Archive(_)
            | Self::Compression(_)
            | Self::User(_) => Code::Invalid,
            Self::ReadOnly(_) | Self::Kernel(_) => Code::Forbidden,
            Self::Limit { .. } => Code::TooLarge,
            Self::Crowded { .. } => Code::TooMany,
            Self::NoRoom { .. } => Code::NoCapacity,
            Self::Inside { code, .. } => *code,
            Self::Machine(error) => match **error {
                DriverError::Missing { .. } => Code::Unavailable,
                DriverError::Unsupported { .. } => Code::Unsupported,
                DriverError::NoRoom { .. } => Code::NoCapacity,
                DriverError::Timeout { .. } => Code::Timeout,
                _ => Code::Internal,
            },
            Self::Moving | Self::Asleep => Code::Conflict,
            Self::Io { .. } => Code::Internal,
        }
    }

    /// What to do about it, for people.
    pub fn hint(&self) -> &str {
        match self {
            Self::Machine(error) => match &**error {
                DriverError::Missing { hint, .. } | DriverError::Unsupported { hint, .. } => hint,
                _ => {
                    "`holm doctor` tells what the host has; while the container runs, its files are within reach, too"
                }
            },
            Self::Crowded { .. } => {
                "try again when another copy, export, diff or commit of them has ended, or start the container: files of one \
                 that runs need no place"
            }
            Self::Moving => "try again in a moment",
            Self::Kernel(_) => "read it inside: docker exec CONTAINER cat FILE",
            Self::NoRoom { .. } | Self::Inside { code: Code::NoCapacity, .. } => {
                "remove files of it, or images that nobody uses"
            }
            _ => "",
        }
    }
}

/// Names what was tried.
fn io_at<E: std::convert::Into<io::Error>>(
    operation: impl std::convert::Into<String>,
) -> impl FnOnce(E) -> FilesError {
    move |source| FilesError::Io { operation: operation.into(), source: source.into() }
}

/// Opened files of a container. All its work is blocking.
#[derive(Debug)]
pub struct ContainerFiles {
    /// Let go before the turn is given back.
    at: Arc<Mounted>,
    turn: Turn,
}

/// The mounts of a container, by which all look at it who look at the same time.
#[derive(Debug)]
pub(super) struct Mounted {
    root: OwnedFd,
    /// Directory of what it wrote.
    upper: OwnedFd,
    pod: Pod,
    /// Mounts that are not walked into: devices and the like.
    skipped: HashSet<u64>,
    /// What keeps the mounts of a container that does not run.
    _apart: Option<apart::Apart>,
}

impl ContainerFiles {
    /// The files of a running pod's first container, as its shim has mounted them.
    pub(super) fn of_running(pod: Pod, shim: (i32, u64), turn: Turn) -> Result<Self, FilesError> {
        let (pid, start_time) = shim;
        let gone = |_| FilesError::Moving;
        let handle = PidFd::open_started_at(pid, start_time).map_err(gone)?.ok_or(FilesError::Moving)?;
        let container = first(&pod)?;
        let seen_by_shim = |path: &Path| {
            let path = path.strip_prefix("/").unwrap_or(path);
            PathBuf::from(format!("/proc/{pid}/root")).join(path)
        };
        let open = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rfs::open(path, flags, Mode::empty()).map_err(|_| FilesError::Moving)
        };
        let root = open(&seen_by_shim(&pod.places.run.join("root").join(&container.name)))?;
        // A disk of the container's own may be mounted there in the shim's namespace alone.
        let upper = open(&seen_by_shim(&root::upper_of(&pod, container).join("fs")))?;
        // Between two runs the place is an empty directory of the host's.
        if !root::is_overlay(format!("/proc/self/fd/{}", root.as_raw_fd())) {
            return Err(FilesError::Moving);
        }
        // It lives, so its number was no other process's meanwhile.
        if handle.has_exited().map_err(gone)? {
            return Err(FilesError::Moving);
        }
        let at = Arc::new(Mounted::new(root, upper, pod, None)?);
        // Who looks when the run is over, while this look goes on, shares what it holds: nothing is mounted a second time.
        *turn.shared() = Arc::downgrade(&at);
        Ok(Self { at, turn })
    }

    /// The files of the first container of a pod that does not run. Those who look at the same time share its mounts.
    /// `make_disk` makes the disk that they are on, if there is to be one.
    pub(super) fn of_stopped(
        mut pod: Pod,
        scratch: PathBuf,
        turn: Turn,
        make_disk: impl FnOnce(&mut Pod) -> Result<(), DriverError>,
    ) -> Result<Self, DriverError> {
        let at = {
            let mut shared = turn.shared();
            match shared.upgrade() {
                Some(mounted) => mounted,
                None => {
                    make_disk(&mut pod)?;
                    let (apart, root, upper) = apart::open(&pod, scratch)?;
                    let mounted = Arc::new(Mounted::new(root, upper, pod, Some(apart))?);
                    *shared = Arc::downgrade(&mounted);
                    mounted
                }
            }
        };
        Ok(Self { at, turn })
    }
}

impl Mounted {
    fn new(root: OwnedFd, upper: OwnedFd, pod: Pod, apart: Option<apart::Apart>) -> Result<Self, FilesError> {
        let own = |mount: &&Mount| {
            matches!(
                mount.source,
                Source::Devices | Source::SharedMemory { .. } | Source::KernelObjects | Source::ControlGroups
            )
        };
        let own: Vec<PathBuf> = first(&pod)?.mounts.iter().filter(own).map(|m| m.target.clone()).collect();
        let at_root = Seen::of(&root).map_err(io_at("look at the root"))?.mount;
        let mut skipped = HashSet::new();
        for target in own {
            if let Ok(handle) = tree::open_in_root(root.as_fd(), &target, libc::O_PATH, 0)
                && let Ok(seen) = Seen::of(&handle)
                && seen.mount != at_root
            {
                skipped.insert(seen.mount);
            }
        }
        Ok(Self { root, upper, pod, skipped, _apart: apart })
    }
}

impl ContainerFiles {
    fn container(&self) -> &Container {
        // Looked at when it was opened.
        &self.at.pod.containers[0]
    }

    fn ids(&self) -> IdRange {
        self.at.pod.ids
    }

    /// Text of an account file, empty if it is missing. Only a plain file of a sane size is read.
    fn text(&self, path: &str) -> Result<String, FilesError> {
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        let Ok(file) = tree::open_in_root(self.at.root.as_fd(), Path::new(path), flags, 0) else {
            return Ok(String::new());
        };
        let file = File::from(file);
        if !file.metadata().map_err(io_at(format!("look at {path}")))?.is_file() {
            return Ok(String::new());
        }
        let mut bytes = vec![];
        file.take(ACCOUNTS_BYTES_MAX).read_to_end(&mut bytes).map_err(io_at(format!("read {path}")))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn first(pod: &Pod) -> Result<&Container, FilesError> {
    pod.containers.first().ok_or_else(|| FilesError::Missing("the container".into()))
}

/// What the kernel says of an open file.
#[derive(Debug, Clone)]
struct Seen {
    kind: FileType,
    mode: u32,
    uid: u32,
    gid: u32,
    size_bytes: u64,
    mtime: (i64, u32),
    links: u32,
    /// Device and number: the same file under two names has the same.
    file: (u64, u64),
    device: (u32, u32),
    mount: u64,
}

impl Seen {
    fn of(handle: impl AsFd) -> Result<Self, Errno> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
        let stat = rfs::statx(handle, "", flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
        Ok(Self::read(&stat))
    }

    fn at(directory: impl AsFd, name: &[u8]) -> Result<Option<Self>, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match rfs::statx(directory, name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID) {
            Ok(stat) => Ok(Some(Self::read(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn read(stat: &Statx) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.stx_mode.into()),
            mode: stat.stx_mode.into(),
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size_bytes: stat.stx_size,
            mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            links: stat.stx_nlink,
            file: (u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor), stat.stx_ino),
            device: (stat.stx_rdev_major, stat.stx_rdev_minor),
            mount: stat.stx_mnt_id,
        }
    }

    fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// What overlayfs writes in the place of a file that is gone (kernel, "overlayfs.rst").
    fn is_whiteout(&self) -> bool {
        self.kind == FileType::CharacterDevice && self.device == (0, 0)
    }
}

/// An id of the host as the container knows it.
fn inside(id: u32, ids: IdRange) -> u32 {
    match id.checked_sub(ids.base) {
        Some(id) if id < ids.count => id,
        _ => NOBODY,
    }
}

/// Opens what an `O_PATH` handle names, if that is a plain file: nothing else is ever opened for reading.
fn reopen(handle: BorrowedFd<'_>) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rfs::open(format!("/proc/self/fd/{}", handle.as_raw_fd()), flags, Mode::empty())?.into())
}

/// A name as people are shown it.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(400).collect()
}
