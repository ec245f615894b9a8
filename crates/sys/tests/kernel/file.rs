//! Files: replaced whole or not at all, allocated, punched, cloned, locked, marked.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sys::file::{self, Lock};

use crate::guard::Directory;

#[test]
fn an_atomic_write_replaces_whole_and_leaves_no_temporary() {
    let directory = Directory::new();
    let path = directory.path("record");
    file::write_atomic(&path, b"old", 0o600).expect("written");
    file::write_atomic(&path, b"new content", 0o644).expect("written");
    assert_eq!(fs::read(&path).expect("read"), b"new content");
    assert_eq!(fs::metadata(&path).expect("stat").permissions().mode() & 0o777, 0o644);
    fs::create_dir(directory.path("taken")).expect("made");
    assert!(
        file::write_atomic(&directory.path("taken"), b"x", 0o600).is_err(),
        "a directory is not replaced"
    );
    assert!(file::write_atomic(&directory.path("no/such"), b"x", 0o600).is_err());
    let mut names: Vec<_> =
        fs::read_dir(&directory.0).expect("read").map(|e| e.expect("read").file_name()).collect();
    names.sort();
    assert_eq!(names, ["record", "taken"]);
}

#[test]
fn many_writers_never_show_half_a_file() {
    let directory = Directory::new();
    let path = directory.path("record");
    file::write_atomic(&path, &[b'a'; 4096], 0o600).expect("written");
    std::thread::scope(|scope| {
        for letter in b'a'..b'e' {
            let path = &path;
            scope.spawn(move || {
                (0..20).for_each(|_| file::write_atomic(path, &[letter; 4096], 0o600).expect("written"))
            });
        }
        for _ in 0..200 {
            let content = fs::read(&path).expect("always there");
            assert!(content.len() == 4096 && content.iter().all(|byte| *byte == content[0]));
        }
    });
}

#[test]
fn space_is_taken_and_given_back() {
    let directory = Directory::new();
    let path = directory.path("disk");
    let disk = File::create(&path).expect("made");
    disk.set_len(8 << 20).expect("sized");
    assert_eq!(file::allocated_bytes(&path).expect("stat"), 0, "a sparse file takes nothing");
    file::allocate(&disk, 8 << 20).expect("allocated");
    assert!(file::allocated_bytes(&path).expect("stat") >= 8 << 20);
    file::punch_hole(&disk, 1 << 20, 4 << 20).expect("punched");
    let rest = file::allocated_bytes(&path).expect("stat");
    assert!((3 << 20..=5 << 20).contains(&rest), "{rest}");
    assert_eq!(fs::metadata(&path).expect("stat").len(), 8 << 20);
    assert!(file::allocate(&disk, u64::MAX).is_err());
    sys::mount::tmpfs(&directory.0, 1 << 20, 0o755).expect("a small file system");
    let full = File::create(directory.path("full")).expect("made");
    assert_eq!(file::allocate(&full, 2 << 20).expect_err("too large").errno(), Some(libc::ENOSPC));
}

#[test]
fn a_reflink_shares_blocks_or_says_that_it_cannot() {
    let directory = Directory::new();
    let mut source = File::create(directory.path("source")).expect("made");
    source.write_all(&[7; 8192]).expect("written");
    let target =
        File::options().create(true).truncate(true).write(true).open(directory.path("target")).expect("made");
    match file::reflink(&File::open(directory.path("source")).expect("opened"), &target) {
        Ok(()) => assert_eq!(fs::read(directory.path("target")).expect("read"), vec![7; 8192]),
        // ext4 and tmpfs have none.
        Err(error) => assert_eq!(error.errno(), Some(libc::EOPNOTSUPP), "{error:?}"),
    }
}

#[test]
fn a_lock_has_one_holder_until_it_is_dropped() {
    let directory = Directory::new();
    let path = directory.path("lock");
    let held = Lock::try_create(&path).expect("asked").expect("free");
    assert!(Lock::try_create(&path).expect("asked").is_none());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| Lock::create(&path).expect("waited"));
        assert!(!waiter.is_finished());
        drop(held);
        drop(waiter.join().expect("no panic"));
    });
    drop(Lock::exclusive(&directory.0).expect("a directory can be locked"));
    Lock::try_create(&path).expect("asked").expect("free again");
}

#[test]
fn who_holds_a_lock_is_found_though_it_never_said_so() {
    let directory = Directory::new();
    let path = directory.path("lock");
    assert!(Lock::holders(&path).expect("asked").is_empty(), "there is no such file");
    let own = Lock::try_create(&path).expect("asked").expect("free");
    assert!(Lock::holders(&path).expect("asked").is_empty(), "this process does not count");
    drop(own);
    // It keeps the file open for its child, too.
    let mut holder = Command::new("flock").arg(&path).args(["sleep", "600"]).spawn().expect("started");
    let deadline = Instant::now() + Duration::from_secs(30);
    let holders = loop {
        let found = Lock::holders(&path).expect("asked");
        if found.len() == 2 {
            break found;
        }
        assert!(Instant::now() < deadline, "{found:?}");
        std::thread::yield_now();
    };
    assert!(holders.iter().any(|process| process.pid() == holder.id() as i32));
    for process in holders {
        process.send_signal(Signal::SIGKILL).expect("sent");
        process.wait_exit(Duration::from_secs(30)).expect("waited").expect("it ended");
    }
    // Its end was collected by the descriptor.
    let _ = holder.wait();
    Lock::try_create(&path).expect("asked").expect("free again");
}

#[test]
fn owners_and_attributes_are_set_without_following_links() {
    let directory = Directory::new();
    let (path, link) = (directory.path("file"), directory.path("link"));
    fs::write(&path, "").expect("written");
    std::os::unix::fs::symlink(&path, &link).expect("linked");
    file::chown(&link, 1234, 5678).expect("changed");
    assert_eq!(fs::metadata(&path).expect("stat").uid(), 0, "the link was changed, not its target");
    file::chown(&path, 1234, 5678).expect("changed");
    let metadata = fs::metadata(&path).expect("stat");
    assert_eq!((metadata.uid(), metadata.gid()), (1234, 5678));
    file::set_xattr(&path, "user.holm.test", b"one").expect("set");
    file::set_xattr(&path, "user.holm.test", b"two").expect("set again");
    assert_eq!(file::get_xattr(&path, "user.holm.test").expect("got").as_deref(), Some(&b"two"[..]));
    assert_eq!(file::get_xattr(&path, "user.holm.none").expect("got"), None);
    assert!(file::get_xattr(&directory.path("gone"), "user.x").is_err());
    assert!(file::open_no_follow(&link).is_err());
    file::open_no_follow(&path).expect("opened");
}
