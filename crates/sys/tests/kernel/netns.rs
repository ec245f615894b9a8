//! Network namespaces: handles outlive their creator, threads stay where they are, deletion leaves nothing.

use std::net::UdpSocket;

use sys::mount;
use sys::netlink::Netlink;
use sys::netns::NetNs;

use crate::guard::{Directory, exists};

#[test]
fn a_handle_survives_its_creator_and_delete_leaves_nothing() {
    let directory = Directory::new();
    let path = directory.path("netns/blue");
    // A thread that makes the namespace and ends: only the handle holds it.
    let inode = std::thread::scope(|scope| {
        scope
            .spawn(|| NetNs::create(&path).expect("created").inode().expect("an inode"))
            .join()
            .expect("no panic")
    });
    let again = NetNs::create(&path).expect("creating twice is fine");
    assert_eq!(again.inode().expect("an inode"), inode, "the second create opened the first namespace");
    assert_eq!(NetNs::open(&path).expect("opened"), again);
    NetNs::delete(&path).expect("deleted");
    NetNs::delete(&path).expect("deleting twice is fine");
    assert!(!exists(&path));
    assert_eq!(mount::below(&directory.0).expect("the table"), vec![]);
    assert!(NetNs::open(&path).is_err());
}

#[test]
fn a_plain_file_left_by_a_crash_becomes_a_handle() {
    let directory = Directory::new();
    let path = directory.path("green");
    std::fs::write(&path, "").expect("written");
    assert!(NetNs::open(&path).is_err(), "a plain file is no namespace");
    NetNs::create(&path).expect("created over the file");
    NetNs::open(&path).expect("opened");
    NetNs::delete(&path).expect("deleted");
}

#[test]
fn run_works_inside_and_never_moves_the_caller() {
    let before = NetNs::current().expect("our own").inode().expect("an inode");
    let namespace = NetNs::anonymous().expect("we are root");
    let inside =
        namespace.run(|| NetNs::current().expect("its own").inode().expect("an inode")).expect("ran");
    assert_eq!(inside, namespace.inode().expect("an inode"));
    assert_eq!(NetNs::current().expect("our own").inode().expect("an inode"), before);
    assert_ne!(before, inside);
    // A socket keeps to the namespace that it was made in.
    Netlink::open(&namespace).expect("a route socket").set_up("lo").expect("loopback up");
    let socket = namespace.run(|| UdpSocket::bind("127.0.0.1:0")).expect("ran").expect("bound");
    let address = socket.local_addr().expect("an address");
    UdpSocket::bind(address).expect("the same port is free outside");
}

#[test]
fn a_panic_inside_continues_in_the_caller() {
    let namespace = NetNs::anonymous().expect("we are root");
    let caught = std::panic::catch_unwind(|| namespace.run(|| panic!("inside")).expect("not reached"));
    assert_eq!(caught.expect_err("it panicked").downcast_ref(), Some(&"inside"));
}

/// In a mount namespace of its own (a child's), because what is tested is propagation of the root mount.
#[test]
fn handles_do_not_leak_to_peer_mount_namespaces() {
    let directory = Directory::new();
    let shared = directory.path("shared");
    std::fs::create_dir(&shared).expect("made");
    mount::tmpfs(&shared, 1 << 20, 0o755).expect("mounted");
    nix::mount::mount(None::<&str>, &shared, None::<&str>, nix::mount::MsFlags::MS_SHARED, None::<&str>)
        .expect("made shared");
    let handles = shared.join("netns");
    let (ready, wait) = std::io::pipe().expect("a pipe");
    // The peer: a process with a copy of all mounts, in which those below `shared` keep arriving.
    let peer = sys::spawn::Command::new("cat").private_mounts().stdin(sys::spawn::Stdio::Fd(ready.into()));
    let peer = peer.spawn().expect("spawned");
    std::fs::create_dir(shared.join("seen")).expect("made");
    mount::tmpfs(&shared.join("seen"), 1 << 20, 0o755).expect("mounted");
    NetNs::create(&handles.join("red")).expect("created");
    let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", peer.pid())).expect("its mount table");
    assert!(table.contains(shared.join("seen").to_str().expect("text")), "the test's own mount arrived");
    assert!(!table.contains("netns/red"), "the handle did not");
    NetNs::delete(&handles.join("red")).expect("deleted");
    assert_eq!(
        mount::below(&handles).expect("the table"),
        vec![],
        "the private mount went with the last handle"
    );
    drop(wait);
    peer.wait(std::time::Duration::from_secs(10)).expect("waited").expect("cat ends with its input");
}
