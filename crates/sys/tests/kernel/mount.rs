//! Mounts: overlays of many layers, shifted owners, read-only binds, and unmounting twice.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sys::mount::{self, Lower};
use sys::userns::{self, Extent, IdMap};

use crate::guard::Directory;

fn make(directory: &Directory, name: &str) -> PathBuf {
    let path = directory.path(name);
    fs::create_dir_all(&path).expect("made");
    path
}

#[test]
fn an_overlay_of_many_layers_with_long_names_hides_and_copies_up() {
    let directory = Directory::new();
    // 200 layers whose paths, with commas and colons in them, would fill many pages of options.
    let layers: Vec<PathBuf> = (0..200)
        .map(|number| {
            let layer = make(&directory, &format!("layers/{}:,{number}", "x".repeat(200)));
            fs::write(layer.join(format!("file{number}")), "content").expect("written");
            fs::write(layer.join("all"), format!("{number}")).expect("written");
            layer
        })
        .collect();
    let lowers: Vec<Lower> = layers.iter().map(|layer| Lower::Path(layer)).collect();
    let (upper, work, target) =
        (make(&directory, "upper"), make(&directory, "work"), make(&directory, "target"));
    mount::overlay(&lowers, &upper, &work, &target).expect("mounted");
    assert!(mount::is_mountpoint(&target).expect("asked"));
    assert_eq!(fs::read_to_string(target.join("all")).expect("read"), "0", "the first layer is the topmost");
    assert!(target.join("file199").exists());
    fs::write(target.join("file7"), "changed").expect("written");
    fs::remove_file(target.join("file8")).expect("removed");
    assert_eq!(fs::read_to_string(upper.join("file7")).expect("copied up"), "changed");
    assert_eq!(fs::read_to_string(layers[7].join("file7")).expect("read"), "content", "layers never change");
    for _ in 0..2 {
        mount::unmount(&target).expect("unmounted");
    }
    assert!(!mount::is_mountpoint(&target).expect("asked"));
    let two = [Lower::Path(&layers[0]), Lower::Path(&layers[1])];
    mount::overlay_readonly(&two, &target).expect("mounted");
    let error = fs::write(target.join("x"), "").expect_err("nothing can be written");
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn a_wrong_overlay_is_an_error_that_says_why() {
    let directory = Directory::new();
    let (one, upper, target) =
        (make(&directory, "one"), make(&directory, "upper"), make(&directory, "target"));
    let lowers = [Lower::Path(&one)];
    let missing = directory.path("missing");
    assert!(mount::overlay(&[Lower::Path(&missing)], &upper, &one, &target).is_err());
    assert!(mount::overlay(&lowers, &upper, &missing, &target).is_err());
    assert!(mount::overlay(&[], &upper, &one, &target).is_err());
    // The work directory has to be on the file system of the upper one.
    let elsewhere = make(&directory, "elsewhere");
    mount::tmpfs(&elsewhere, 1 << 20, 0o755).expect("mounted");
    let error = mount::overlay(&lowers, &upper, &elsewhere, &target).expect_err("two file systems");
    assert_eq!((error.operation, error.errno()), ("mount overlay at", Some(libc::EINVAL)));
    assert!(!mount::is_mountpoint(&target).expect("asked"));
}

#[test]
fn owners_are_shifted_in_a_clone_and_in_an_overlay_on_it() {
    let directory = Directory::new();
    let layer = make(&directory, "layer");
    fs::write(layer.join("root"), "").expect("written");
    fs::write(layer.join("user"), "").expect("written");
    sys::file::chown(&layer.join("user"), 33, 44).expect("changed");
    let clone = mount::idmapped_clone(&layer, &IdMap::shifted(700_000, 65_536)).expect("cloned");
    let (upper, work, target) =
        (make(&directory, "upper"), make(&directory, "work"), make(&directory, "target"));
    let owner = |path: &Path| fs::metadata(path).map(|data| (data.uid(), data.gid())).expect("stat");
    let shifted = make(&directory, "shifted");
    mount::move_mount(&clone, &shifted).expect("it appears");
    assert_eq!(owner(&shifted.join("root")), (700_000, 700_000));
    assert_eq!(owner(&shifted.join("user")), (700_033, 700_044));
    assert_eq!(owner(&layer.join("user")), (33, 44), "on the disk nothing changed");
    // As layers of an overlay, by path and by descriptor of the mounted clone.
    let opened = fs::File::open(&shifted).expect("opened");
    for lower in [Lower::Path(&shifted), Lower::Fd(opened.as_fd()), Lower::Fd(clone.as_fd())] {
        mount::overlay(&[lower], &upper, &work, &target).expect("mounted");
        assert_eq!(owner(&target.join("user")), (700_033, 700_044));
        mount::unmount(&target).expect("unmounted");
    }
    // A clone that was never attached serves as well on kernels that allow it (6.15 and later).
    let detached = mount::idmapped_clone(&layer, &IdMap::shifted(800_000, 65_536)).expect("cloned");
    match mount::overlay(&[Lower::Fd(detached.as_fd())], &upper, &work, &target) {
        Ok(()) => assert_eq!(owner(&target.join("user")), (800_033, 800_044)),
        Err(error) => assert_eq!(error.errno(), Some(libc::EINVAL), "{error:?}"),
    }
}

#[test]
fn a_read_only_bind_refuses_writes_and_leaves_the_source_writable() {
    let directory = Directory::new();
    let (source, target) = (make(&directory, "source"), make(&directory, "target"));
    fs::write(source.join("file"), "content").expect("written");
    mount::bind_readonly(&source, &target).expect("bound");
    assert_eq!(fs::read_to_string(target.join("file")).expect("read"), "content");
    let error = fs::write(target.join("file"), "x").expect_err("read-only");
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    fs::write(source.join("file"), "new").expect("the source is writable");
    // A file can be bound on a file.
    let (one, two) = (directory.path("one"), directory.path("two"));
    fs::write(&one, "one").expect("written");
    fs::write(&two, "two").expect("written");
    mount::bind(&one, &two).expect("bound");
    mount::bind(&one, &two).expect("and again, on top");
    assert_eq!(fs::read_to_string(&two).expect("read"), "one");
    mount::unmount(&two).expect("both are taken away");
    assert_eq!(fs::read_to_string(&two).expect("read"), "two");
    mount::unmount(&directory.path("missing")).expect("nothing there is fine");
    assert!(!mount::is_mountpoint(&directory.path("missing")).expect("asked"));
    assert_eq!(mount::below(&directory.0).expect("the table").len(), 1);
    mount::unmount_below(&directory.0).expect("unmounted");
    assert_eq!(mount::below(&directory.0).expect("the table").len(), 0);
}

#[test]
fn a_user_namespace_maps_as_told_and_its_holder_is_gone() {
    let map = IdMap {
        uids: vec![
            Extent { inside: 0, outside: 500_000, count: 1000 },
            Extent { inside: 5000, outside: 0, count: 1 },
        ],
        gids: vec![Extent { inside: 0, outside: 600_000, count: 1000 }],
    };
    let children = || {
        let path = format!("/proc/self/task/{}/children", nix::unistd::gettid());
        fs::read_to_string(path).expect("read")
    };
    let before = children();
    let namespace = userns::create(&map).expect("made");
    assert_eq!(children(), before, "the process that held it is gone");
    let inode = fs::metadata(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&namespace)))
        .expect("stat")
        .ino();
    assert_ne!(inode, fs::metadata("/proc/self/ns/user").expect("stat").ino());
    let empty = IdMap { uids: Vec::new(), ..map.clone() };
    assert!(userns::create(&empty).is_err());
    let overlapping = IdMap { uids: vec![map.uids[0], map.uids[0]], ..map };
    assert!(userns::create(&overlapping).is_err());
    assert_eq!(children(), before, "nor after an error");
}
