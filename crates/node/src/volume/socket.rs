//! Sockets in volumes that are directories: what programs of a container reach of the daemon, and nothing else of it.
//!
//! The socket's file is made before the container starts, so that nobody else can put something in its place, and goes
//! with the volume.

use std::{
    fs::{File, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{OpenOptionsExt, PermissionsExt, lchown},
            net::UnixListener,
        },
    },
    path::Path,
};

/// Listens on a new socket in a directory that no container has opened yet. Its file gets these permissions, and belongs to this
/// owner and this group. Blocking.
///
/// # Errors
/// The directory is not there, or has the name already.
pub fn listen(directory: &Path, name: &str, mode: u32, owner: (u32, u32)) -> io::Result<UnixListener> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let directory = File::options().read(true).custom_flags(flags).open(directory)?;
    // The address of a socket is short (unix(7)); the way through the descriptor is, too.
    let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    let listener = UnixListener::bind(&path)?;
    lchown(&path, Some(owner.0), Some(owner.1))?;
    std::fs::set_permissions(&path, Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    #[test]
    fn a_socket_is_made_in_a_directory_of_any_depth() {
        let top = tempfile::tempdir().unwrap();
        let directory = top.path().join("x".repeat(120));
        std::fs::create_dir(&directory).unwrap();
        let own = std::fs::metadata(&directory).map(|it| std::os::unix::fs::MetadataExt::uid(&it)).unwrap();
        let listener = listen(&directory, "agent", 0o620, (own, own)).unwrap();
        let seen = std::fs::symlink_metadata(directory.join("agent")).unwrap();
        assert_eq!(seen.permissions().mode() & 0o777, 0o620);
        std::os::unix::fs::symlink(&directory, top.path().join("short")).unwrap();
        let mut client = UnixStream::connect(top.path().join("short/agent")).unwrap();
        listener.set_nonblocking(false).unwrap();
        listener.accept().unwrap().0.write_all(b"here").unwrap();
        let mut text = [0; 4];
        client.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"here");
        assert!(listen(&directory, "agent", 0o600, (own, own)).is_err(), "nothing is replaced");
        assert!(listen(&top.path().join("nosuch"), "agent", 0o600, (own, own)).is_err());
    }
}
