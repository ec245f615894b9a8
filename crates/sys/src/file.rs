//! Files that survive a crash, take only the space they use, and are locked while they are ours.
//!
//! What the standard library lacks: atomic replacement, preallocation, holes, reflinks, locks that end with the process,
//! extended attributes. Must never leave a half-written file under its final name.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};

use crate::error::{Context, Error, Result};
use crate::pidfd::PidFd;

/// `FICLONE` of `linux/fs.h`: `_IOW(0x94, 9, int)`.
const FICLONE: libc::Ioctl = 0x4004_9409u32 as libc::Ioctl;
/// The largest extended attribute the kernel knows (`XATTR_SIZE_MAX`).
const XATTR_SIZE_BYTES_MAX: usize = 64 * 1024;
/// Makes temporary names unique inside this process.
static TEMPORARY_COUNT: AtomicU64 = AtomicU64::new(0);

/// Replaces `path` by `content` with the permission bits `mode`, so that after a crash either the old or the new content
/// is there, whole. The directory entry is flushed too.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let temporary = temporary_beside(path);
    let result = write_durable(&temporary, content, mode)
        .and_then(|()| fs::rename(&temporary, path).context("replace", path.display()));
    if result.is_err() {
        // The first error is the one to tell; a temporary that cannot be removed harms nobody.
        let _ = fs::remove_file(&temporary);
        return result;
    }
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// Writes all of `content` to a new file and waits until it is on the disk.
fn write_durable(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .context("create", path.display())?;
    // The umask may have taken bits that were asked for.
    file.set_permissions(fs::Permissions::from_mode(mode)).context("set mode of", path.display())?;
    file.write_all(content).context("write", path.display())?;
    file.sync_all().context("flush", path.display())
}

/// A name in the same directory (and so on the same file system) that nobody else uses.
fn temporary_beside(path: &Path) -> PathBuf {
    let count = TEMPORARY_COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.{count}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Waits until the entries of a directory are on the disk.
pub fn sync_directory(directory: &Path) -> Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory).and_then(|handle| handle.sync_all()).context("flush directory", directory.display())
}

/// Gives the first `size_bytes` of the file real blocks and at least that length, so that a full disk shows now and not
/// in the middle of a guest's write.
pub fn allocate(file: &File, size_bytes: u64) -> Result<()> {
    let length = offset("allocate", size_bytes)?;
    retry(|| fallocate(file, FallocateFlags::empty(), 0, length))
        .context("allocate", format!("{size_bytes} bytes"))
}

/// Frees the blocks of a range; it reads as zeros afterwards and the length stays.
pub fn punch_hole(file: &File, start: u64, length_bytes: u64) -> Result<()> {
    let (start, length) = (offset("punch hole", start)?, offset("punch hole", length_bytes)?);
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    retry(|| fallocate(file, flags, start, length)).context("punch hole at", start)
}

/// Makes `target` share all blocks of `source` (copy on write). An error of kind `Unsupported`, `CrossesDevices` or
/// `InvalidInput` means that this pair of files cannot share blocks: copy instead.
pub fn reflink(source: &File, target: &File) -> Result<()> {
    // SAFETY: FICLONE takes a file descriptor by value and touches no memory of ours; both descriptors are open.
    let result = unsafe { libc::ioctl(target.as_raw_fd(), FICLONE, source.as_raw_fd()) };
    crate::error::check("share blocks of", "file", result.into()).map(drop)
}

/// Bytes that the file really takes on the disk (holes and preallocation considered).
pub fn allocated_bytes(path: &Path) -> Result<u64> {
    let metadata = fs::symlink_metadata(path).context("stat", path.display())?;
    // st_blocks counts 512-byte units whatever the block size of the file system (stat(2)).
    Ok(metadata.blocks() * 512)
}

/// Changes the owner; a symbolic link is changed itself, never what it points to.
pub fn chown(path: &Path, uid: u32, gid: u32) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).context("change owner of", path.display())
}

/// Sets an extended attribute (for example `user.holm.origin`), replacing an old value. Symbolic links are not followed.
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> Result<()> {
    let (c_path, c_name) = (c_string(path.as_os_str().as_bytes())?, c_string(name.as_bytes())?);
    // SAFETY: both strings end in NUL and live through the call; the value is given with its length.
    let result =
        unsafe { libc::lsetxattr(c_path.as_ptr(), c_name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    crate::error::check("set extended attribute of", path.display(), result.into()).map(drop)
}

/// Reads an extended attribute; `None` if the file has none of this name.
pub fn get_xattr(path: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let (c_path, c_name) = (c_string(path.as_os_str().as_bytes())?, c_string(name.as_bytes())?);
    let mut value = vec![0u8; XATTR_SIZE_BYTES_MAX];
    // SAFETY: both strings end in NUL; the buffer is writable for the length that is given.
    let length =
        unsafe { libc::lgetxattr(c_path.as_ptr(), c_name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    match usize::try_from(length) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENODATA) => Ok(None),
            error => Err(Error::new("get extended attribute of", path.display(), error)),
        },
    }
}

/// An exclusive lock on a file or directory; it ends with this value or with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Waits until the lock is ours. The path must exist; see [`Lock::create`] for a lock file.
    pub fn exclusive(path: &Path) -> Result<Lock> {
        let file = File::open(path).context("open for locking", path.display())?;
        Lock::wait(file, path)
    }

    /// Waits until the lock is ours; a missing file is created (mode 0600).
    pub fn create(path: &Path) -> Result<Lock> {
        Lock::wait(Lock::open_or_create(path)?, path)
    }

    /// Takes the lock if it is free; `None` if somebody else holds it. A missing file is created (mode 0600).
    pub fn try_create(path: &Path) -> Result<Option<Lock>> {
        match Flock::lock(Lock::open_or_create(path)?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(Lock { _file: file })),
            Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(Error::new("lock", path.display(), error)),
        }
    }

    /// The processes, but this one, that hold the lock on a file now. They are found by what the kernel tells of open files
    /// (proc_pid_fdinfo(5)), whether or not they ever said who they are; those that share the open file, as forks do, all hold
    /// it. A file that is not there is held by nobody. Looks at every process of the machine: for what is rare.
    pub fn holders(path: &Path) -> Result<Vec<PidFd>> {
        let file = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            found => found.context("look at lock file", path.display())?,
        };
        let mut holders = vec![];
        for entry in fs::read_dir("/proc").context("list", "/proc")?.flatten() {
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let Some(pid) = number.filter(|pid| *pid != std::process::id() as i32) else { continue };
            // Opened first: what is found is then of this process, and not of one that has its number later.
            let Some(process) = PidFd::open(pid)? else { continue };
            if holds(&entry.path(), &file) {
                holders.push(process);
            }
        }
        Ok(holders)
    }

    fn wait(mut file: File, path: &Path) -> Result<Lock> {
        loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(locked) => return Ok(Lock { _file: locked }),
                Err((unlocked, nix::Error::EINTR)) => file = unlocked,
                Err((_, error)) => return Err(Error::new("lock", path.display(), error)),
            }
        }
    }

    fn open_or_create(path: &Path) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .context("open lock file", path.display())
    }
}

/// Whether a process has this file open with a lock. One that went meanwhile has nothing.
fn holds(process: &Path, file: &fs::Metadata) -> bool {
    let Ok(open) = fs::read_dir(process.join("fdinfo")) else { return false };
    open.flatten().any(|entry| {
        let told = fs::read_to_string(entry.path()).unwrap_or_default();
        let is_locked = told.lines().any(|line| line.starts_with("lock:") && line.contains("FLOCK"));
        let same = |open: fs::Metadata| (open.dev(), open.ino()) == (file.dev(), file.ino());
        is_locked && fs::metadata(process.join("fd").join(entry.file_name())).is_ok_and(same)
    })
}

/// Opens `path` without following a symbolic link in its last component.
pub fn open_no_follow(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path).context("open", path.display())
}

/// Makes `file` close itself when a new program is started, or not.
pub fn set_close_on_exec(file: impl AsFd, close: bool) -> Result<()> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    let flags = if close { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl(file.as_fd(), FcntlArg::F_SETFD(flags)).context("set close-on-exec of", "descriptor").map(drop)
}

fn offset(operation: &'static str, value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| Error::invalid(operation, value, "larger than a file can be"))
}

fn retry(mut call: impl FnMut() -> nix::Result<()>) -> nix::Result<()> {
    loop {
        match call() {
            Err(nix::Error::EINTR) => continue,
            result => return result,
        }
    }
}

/// A C string, or an error that names the text with the NUL byte.
pub(crate) fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes)
        .map_err(|_| Error::invalid("use", String::from_utf8_lossy(bytes), "the text contains a NUL byte"))
}
