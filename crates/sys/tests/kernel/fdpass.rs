//! Descriptors over a socket: they arrive open, close-on-exec, in order, and never too many.

use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

use sys::fdpass;

#[test]
fn files_and_bytes_arrive_together() {
    let (here, there) = UnixStream::pair().expect("a pair");
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(b"content").expect("written");
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    assert_eq!(fdpass::send(&here, b"two files", &[file.as_fd(), writer.as_fd()]).expect("sent"), 9);
    let mut buffer = [0; 64];
    let received = fdpass::receive(&there, &mut buffer, 4).expect("received");
    assert_eq!(&buffer[..received.length], b"two files");
    let [copy, _] = <[_; 2]>::try_from(received.descriptors).expect("two files");
    let flags = nix::fcntl::fcntl(&copy, nix::fcntl::FcntlArg::F_GETFD).expect("flags");
    assert_eq!(flags, libc::FD_CLOEXEC);
    assert_ne!(copy.as_raw_fd(), file.as_raw_fd());
    let mut copy = std::fs::File::from(copy);
    let mut text = String::new();
    copy.rewind().expect("rewound");
    copy.read_to_string(&mut text).expect("read");
    assert_eq!(text, "content");
    drop(here);
    let end = fdpass::receive(&there, &mut buffer, 4).expect("the end");
    assert_eq!((end.length, end.descriptors.len()), (0, 0));
}

#[test]
fn too_many_files_are_refused_and_closed() {
    let (here, there) = UnixStream::pair().expect("a pair");
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    fdpass::send(&here, b"x", &[writer.as_fd(), writer.as_fd(), writer.as_fd()]).expect("sent");
    assert!(fdpass::receive(&there, &mut [0; 8], 2).is_err());
    drop(writer);
    // If a copy had stayed open this would wait for ever.
    assert_eq!(reader.read(&mut [0; 8]).expect("the end"), 0);
    assert!(
        fdpass::send(&here, b"", &[here.as_fd()]).is_err(),
        "without a byte the descriptor would be lost"
    );
}

#[test]
fn the_peer_is_known() {
    let (here, _there) = UnixStream::pair().expect("a pair");
    let peer = fdpass::peer_cred(&here).expect("a peer");
    assert_eq!((peer.pid, peer.uid, peer.gid), (std::process::id() as i32, 0, 0));
}
