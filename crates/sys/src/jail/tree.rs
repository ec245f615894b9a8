//! Mounts as file descriptors, and paths resolved inside a root that is not trusted.
//!
//! A tree of mounts is put together from detached pieces (`fsopen`, `open_tree`) that are attached to places found by
//! `openat2` with `RESOLVE_IN_ROOT`, so that a symbolic link in an image cannot lead a mount out of the image.
//! Needs Linux 5.12.

use super::process::check;
use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path},
};

/// Attributes of a mount (`MOUNT_ATTR_*`).
pub mod attribute {
    /// Nothing can be written.
    pub const READ_ONLY: u64 = 1;
    /// setuid bits do nothing.
    pub const NO_SUID: u64 = 2;
    /// Device nodes cannot be opened.
    pub const NO_DEVICES: u64 = 4;
    /// Programs cannot be run.
    pub const NO_EXEC: u64 = 8;
}

const ATTRIBUTE_IDMAP: u64 = 0x0010_0000;
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const CONFIG_FLAG: u32 = 0;
const CONFIG_STRING: u32 = 1;
const CONFIG_CREATE: u32 = 6;
const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC as u32;
const AT_RECURSIVE: u32 = 0x8000;
const MOVE_FROM_EMPTY_PATH: u32 = 0x4;
const MOVE_TO_EMPTY_PATH: u32 = 0x40;
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_IN_ROOT: u64 = 0x10;

fn text(value: &[u8]) -> io::Result<CString> {
    CString::new(value)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path or option holds a NUL byte"))
}

fn own(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

/// Makes a detached mount of a new file system with these options (a flag has no value) and attributes.
pub fn new_file_system(kind: &str, options: &[(&str, Option<&str>)], attributes: u64) -> io::Result<OwnedFd> {
    let kind = text(kind.as_bytes())?;
    // SAFETY: the name is a C string.
    let context = own(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    for (key, value) in options {
        let key = text(key.as_bytes())?;
        let value = value.map(|value| text(value.as_bytes())).transpose()?;
        let (command, pointer) = match &value {
            Some(value) => (CONFIG_STRING, value.as_ptr()),
            None => (CONFIG_FLAG, std::ptr::null()),
        };
        configure(&context, command, key.as_ptr(), pointer)?;
    }
    configure(&context, CONFIG_CREATE, std::ptr::null(), std::ptr::null())?;
    // SAFETY: takes integers.
    own(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })
}

fn configure(context: &OwnedFd, command: u32, key: *const i8, value: *const i8) -> io::Result<()> {
    // SAFETY: key and value are null or C strings that the caller keeps alive.
    let result = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0) };
    check(result as i32).map_err(|error| explain(context, error))
}

/// Adds what the kernel says in the context's log to an error.
fn explain(context: &OwnedFd, error: io::Error) -> io::Error {
    let mut message = [0_u8; 512];
    // SAFETY: the buffer is valid for its length.
    let length = unsafe { libc::read(context.as_raw_fd(), message.as_mut_ptr().cast(), message.len()) };
    match length {
        1.. => {
            let said = String::from_utf8_lossy(&message[..length as usize]);
            io::Error::new(error.kind(), format!("{error} ({})", said.trim()))
        }
        _ => error,
    }
}

/// A detached copy of the mount at `path` below `directory` (an empty path means the directory itself), with the
/// mounts below it if `recursive`.
pub fn clone_tree(directory: BorrowedFd<'_>, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let path = text(path.as_os_str().as_bytes())?;
    let mut flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as u32;
    if recursive {
        flags |= AT_RECURSIVE;
    }
    // SAFETY: the path is a C string.
    own(unsafe { libc::syscall(libc::SYS_open_tree, directory.as_raw_fd(), path.as_ptr(), flags) })
}

/// A detached copy of the mount at an absolute path of this process's own view.
pub fn clone_path(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    clone_tree(here(), path, recursive)
}

fn here() -> BorrowedFd<'static> {
    // SAFETY: AT_FDCWD is not a descriptor that could be closed.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
#[derive(Default)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

fn set_attributes(mount: BorrowedFd<'_>, change: &MountAttributes, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH as u32 | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string and the record has the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            change,
            size_of::<MountAttributes>(),
        )
    };
    check(result as i32)
}

/// Adds attributes to a mount; none is taken away.
pub fn restrict(mount: BorrowedFd<'_>, attributes: u64, recursive: bool) -> io::Result<()> {
    set_attributes(mount, &MountAttributes { set: attributes, ..Default::default() }, recursive)
}

/// Shows the files of a detached mount with their ids mapped as in a user namespace.
pub fn map_ids(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    let change = MountAttributes {
        set: ATTRIBUTE_IDMAP,
        user_namespace: user_namespace.as_raw_fd() as u64,
        ..Default::default()
    };
    set_attributes(mount, &change, false)
}

/// Keeps mount events of all mounts below `path` from reaching others, and lets theirs come in.
pub fn make_slave(path: &Path) -> io::Result<()> {
    change_mount(path, libc::MS_SLAVE | libc::MS_REC)
}

/// Keeps mount events of all mounts below `path` from leaving and from coming in.
pub fn make_private(path: &Path) -> io::Result<()> {
    change_mount(path, libc::MS_PRIVATE | libc::MS_REC)
}

fn change_mount(path: &Path, flags: libc::c_ulong) -> io::Result<()> {
    let path = text(path.as_os_str().as_bytes())?;
    let none = std::ptr::null::<i8>();
    // SAFETY: the path is a C string; the other pointers are unused with these flags.
    check(unsafe { libc::mount(none, path.as_ptr(), none, flags, none.cast()) })
}

/// Attaches a detached mount to the place that `target` (opened with `O_PATH`) names.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both paths are empty C strings.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_FROM_EMPTY_PATH | MOVE_TO_EMPTY_PATH,
        )
    };
    check(result as i32)
}

/// Detaches whatever is mounted on `path`, now or when it is no longer used. Nothing mounted is no error.
pub fn detach(path: &Path) -> io::Result<()> {
    let path = text(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string.
    match check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) }) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(()),
        result => result,
    }
}

/// Makes `new_root` (a mount of this process's own mount namespace) the root directory and lets the old one go.
pub fn pivot(new_root: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: all paths are C strings. The old root is stacked on the new one, and the working directory is in the
    // old one, so that "." names it (pivot_root(2), NOTES).
    unsafe {
        check(libc::fchdir(new_root.as_raw_fd()))?;
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) as i32)?;
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
        check(libc::chdir(c"/".as_ptr()))
    }
}

/// `struct open_how` of `openat2(2)`.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Opens `path` as a process with the root directory `root` would see it. Links never lead outside.
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    let path = text(path.as_os_str().as_bytes())?;
    let path: &CStr = if path.is_empty() { c"." } else { &path };
    let how = OpenHow {
        flags: (flags | libc::O_CLOEXEC) as u64,
        mode: u64::from(mode),
        resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    for _ in 0..64 {
        // SAFETY: the path is a C string and the record has the size given.
        let result = unsafe {
            libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), &how, size_of::<OpenHow>())
        };
        match own(result) {
            // A rename anywhere on the machine can make the kernel unsure about "..".
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => continue,
            result => return result,
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

/// A handle (`O_PATH`) to the directory `path` in `root`; missing directories are made and belong to `owner`.
pub fn make_directory_in_root(
    root: BorrowedFd<'_>,
    path: &Path,
    mode: u32,
    owner: (u32, u32),
) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    match open_in_root(root, path, flags, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    let mut sofar = std::path::PathBuf::from("/");
    for component in path.components() {
        let Component::Normal(name) = component else {
            if component == Component::ParentDir {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a target path may not hold '..'"));
            }
            continue;
        };
        let parent = open_in_root(root, &sofar, flags, 0)?;
        sofar.push(name);
        if open_in_root(root, &sofar, flags, 0).is_ok() {
            continue;
        }
        let name = text(name.as_bytes())?;
        // SAFETY: the name is a C string of one component.
        unsafe {
            check(libc::mkdirat(parent.as_raw_fd(), name.as_ptr(), mode))?;
            check(libc::fchownat(
                parent.as_raw_fd(),
                name.as_ptr(),
                owner.0,
                owner.1,
                libc::AT_SYMLINK_NOFOLLOW,
            ))?;
        }
    }
    open_in_root(root, path, flags, 0)
}

/// A handle (`O_PATH`) to the file `path` in `root`, made empty with its directories if it is missing.
pub fn make_file_in_root(root: BorrowedFd<'_>, path: &Path, owner: (u32, u32)) -> io::Result<OwnedFd> {
    match open_in_root(root, path, libc::O_PATH, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    if let Some(parent) = path.parent() {
        make_directory_in_root(root, parent, 0o755, owner)?;
    }
    let file = open_in_root(root, path, libc::O_WRONLY | libc::O_CREAT | libc::O_NOCTTY, 0o644)?;
    // SAFETY: takes integers.
    check(unsafe { libc::fchown(file.as_raw_fd(), owner.0, owner.1) })?;
    open_in_root(root, path, libc::O_PATH, 0)
}

/// Makes a character device below `directory`, readable and writable by all.
pub fn make_device(directory: BorrowedFd<'_>, name: &str, major: u32, minor: u32) -> io::Result<()> {
    let name = text(name.as_bytes())?;
    let device = libc::makedev(major, minor);
    // SAFETY: the name is a C string. The mode is set again because of the umask.
    unsafe {
        check(libc::mknodat(directory.as_raw_fd(), name.as_ptr(), libc::S_IFCHR | 0o666, device))?;
        check(libc::fchmodat(directory.as_raw_fd(), name.as_ptr(), 0o666, 0))
    }
}

/// Makes a symbolic link below `directory`.
pub fn make_link(directory: BorrowedFd<'_>, name: &str, target: &str) -> io::Result<()> {
    let (name, target) = (text(name.as_bytes())?, text(target.as_bytes())?);
    // SAFETY: both are C strings.
    check(unsafe { libc::symlinkat(target.as_ptr(), directory.as_raw_fd(), name.as_ptr()) })
}

/// Whether a handle names a directory.
pub fn is_directory(handle: impl AsFd) -> io::Result<bool> {
    // SAFETY: stat is plain data, and the call fills it.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        check(libc::fstat(handle.as_fd().as_raw_fd(), &mut stat))?;
        Ok(stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
    }
}
