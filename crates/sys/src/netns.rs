//! Network namespaces as values: made, found again by a handle in the file system, entered by short-lived threads.
//!
//! A handle is a file that the namespace is bind-mounted on, so a namespace outlives the process that made it and a
//! restarted daemon finds it by its path. The directory of handles is made a private mount if its mount is shared:
//! otherwise every peer mount namespace (each systemd service with a private one) would receive a copy of the handle and
//! keep the namespace alive after we deleted it.
//!
//! Must never move the calling thread: worker threads of an async runtime are shared by unrelated tasks.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;

use crate::error::{Context, Error, Result};
use crate::file::Lock;
use crate::mount;

/// `f_type` of the file system of namespaces (`NSFS_MAGIC` of `linux/magic.h`).
const NSFS_MAGIC: i64 = 0x6e73_6673;
/// A file of the calling thread's namespace; `/proc/self` would be that of the main thread.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// An open network namespace. Cheap to clone; the namespace lives at least as long as any clone.
#[derive(Debug, Clone)]
pub struct NetNs {
    descriptor: Arc<OwnedFd>,
    name: PathBuf,
}

impl NetNs {
    /// Makes a namespace with a handle at `path`, or opens the one that is there. The parent directory is made too.
    /// A new namespace has a loopback device that is down, and nothing else.
    pub fn create(path: &Path) -> Result<NetNs> {
        let directory = parent(path)?;
        fs::create_dir_all(directory).context("create directory", directory.display())?;
        // The lock makes "is there a private mount, a file, a namespace?" one step for all who share the directory.
        let _lock = Lock::exclusive(directory)?;
        make_private(directory)?;
        if !is_namespace(path) {
            create_handle(path)?;
        }
        NetNs::open(path)
    }

    /// Opens the namespace whose handle is at `path`, or makes the handle for one that `make` gives.
    pub fn create_by(path: &Path, make: impl FnOnce() -> Result<NetNs>) -> Result<NetNs> {
        let directory = parent(path)?;
        fs::create_dir_all(directory).context("create directory", directory.display())?;
        let _lock = Lock::exclusive(directory)?;
        make_private(directory)?;
        if !is_namespace(path) {
            let namespace = make()?;
            create_file(path)?;
            let source = format!("/proc/self/fd/{}", namespace.as_fd().as_raw_fd());
            mount::bind(Path::new(&source), path)?;
        }
        NetNs::open(path)
    }

    /// Opens the namespace whose handle is at `path`.
    pub fn open(path: &Path) -> Result<NetNs> {
        let file = File::open(path).context("open network namespace", path.display())?;
        if !is_namespace_file(&file) {
            return Err(Error::invalid("open network namespace", path.display(), "not a namespace handle"));
        }
        Ok(NetNs { descriptor: Arc::new(file.into()), name: path.to_owned() })
    }

    /// A namespace that is open already. `name` is for messages.
    pub fn of(descriptor: OwnedFd, name: &Path) -> NetNs {
        NetNs { descriptor: Arc::new(descriptor), name: name.to_owned() }
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<NetNs> {
        NetNs::open(Path::new(OWN_NAMESPACE))
    }

    /// Makes a namespace without a handle: it ends with the last clone, socket, process or device peer in it.
    pub fn anonymous() -> Result<NetNs> {
        in_new_namespace(NetNs::current)?
    }

    /// Removes the handle at `path`; a handle that is not there is fine. The namespace itself ends when nothing uses it
    /// any more. The private mount of the directory goes with its last handle.
    pub fn delete(path: &Path) -> Result<()> {
        let directory = parent(path)?;
        if !directory.exists() {
            return Ok(());
        }
        let _lock = Lock::exclusive(directory)?;
        mount::unmount(path)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::new("delete network namespace handle", path.display(), error));
            }
            _ => {}
        }
        release_private(directory)
    }

    /// Runs `work` in a thread of its own inside the namespace and waits for it. Sockets, files and children made in it
    /// belong to the namespace for good. A panic of `work` continues in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().name("in-netns".into());
            let thread = builder.spawn_scoped(scope, || {
                nix::sched::setns(self.as_fd(), CloneFlags::CLONE_NEWNET)
                    .context("enter network namespace", self.name.display())?;
                Ok::<T, Error>(work())
            })?;
            match thread.join() {
                Ok(result) => Ok(result?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// The path that the namespace was opened by, for messages.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// The inode of the namespace: two values are the same namespace if and only if these are equal.
    pub fn inode(&self) -> Result<u64> {
        let status =
            nix::sys::stat::fstat(self.as_fd()).context("stat network namespace", self.name.display())?;
        Ok(status.st_ino)
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn parent(path: &Path) -> Result<&Path> {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).ok_or_else(|| {
        Error::invalid("use network namespace", path.display(), "the handle needs a directory")
    })
}

fn is_namespace(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| is_namespace_file(&file))
}

fn is_namespace_file(file: &File) -> bool {
    nix::sys::statfs::fstatfs(file).is_ok_and(|status| status.filesystem_type().0 == NSFS_MAGIC)
}

/// Runs `work` in a new thread with a new network namespace of its own.
fn in_new_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("new-netns".into());
        let thread = builder
            .spawn_scoped(scope, || {
                nix::sched::unshare(CloneFlags::CLONE_NEWNET).context("create", "network namespace")?;
                Ok(work())
            })
            .context("create", "thread for a network namespace")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn create_file(path: &Path) -> Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    file.map(|_| ()).context("create network namespace handle", path.display())
}

fn create_handle(path: &Path) -> Result<()> {
    create_file(path)?;
    in_new_namespace(|| {
        nix::mount::mount(Some(OWN_NAMESPACE), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .context("bind network namespace to", path.display())
    })?
}

/// Makes mounts below `directory` invisible to peers. Nothing is done if they already are.
fn make_private(directory: &Path) -> Result<()> {
    let entry = mount::entry_of(directory)?;
    if !entry.shared {
        return Ok(());
    }
    if !mount::is_mountpoint(directory)? {
        mount::bind(directory, directory)?;
    }
    nix::mount::mount(None::<&str>, directory, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)
        .context("make private mount of", directory.display())
}

/// Undoes [`make_private`] when no handle is left. A mount that is not a bind of the directory on itself is not ours.
fn release_private(directory: &Path) -> Result<()> {
    let empty = fs::read_dir(directory).context("read directory", directory.display())?.next().is_none();
    if !empty || !mount::is_self_bind(directory)? {
        return Ok(());
    }
    match nix::mount::umount2(directory, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL) => Ok(()),
        Err(error) => Err(Error::new("unmount", directory.display(), error)),
    }
}

impl PartialEq for NetNs {
    fn eq(&self, other: &NetNs) -> bool {
        self.descriptor.as_raw_fd() == other.descriptor.as_raw_fd()
            || matches!((self.inode(), other.inode()), (Ok(mine), Ok(theirs)) if mine == theirs)
    }
}
