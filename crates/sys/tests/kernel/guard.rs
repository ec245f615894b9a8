//! What a test makes and a drop takes away: unique names, directories, namespaces.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sys::netlink::Netlink;
use sys::netns::NetNs;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A name that no other test on this machine uses at this moment; at most 15 bytes, so a device can have it.
pub fn unique(prefix: &str) -> String {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{:x}-{count:x}", std::process::id())
}

/// A directory of the test's own, with everything that is mounted in it.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Directory {
        let path = std::env::temp_dir().join(unique("holm-sys-"));
        std::fs::create_dir(&path).expect("the temporary directory is writable");
        Directory(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = sys::mount::unmount_below(&self.0);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Two namespaces joined by a veth pair: `left` in the first, `right` in the second, both up.
pub struct Pair {
    pub left: NetNs,
    pub right: NetNs,
    pub left_netlink: Netlink,
    pub right_netlink: Netlink,
}

impl Pair {
    pub fn new() -> Pair {
        let left = NetNs::anonymous().expect("we are root");
        let right = NetNs::anonymous().expect("we are root");
        let left_netlink = Netlink::open(&left).expect("a route socket");
        let right_netlink = Netlink::open(&right).expect("a route socket");
        left_netlink.add_veth("left", "right", Some(&right)).expect("a veth pair");
        for (netlink, device) in [(&left_netlink, "left"), (&right_netlink, "right")] {
            netlink.set_up("lo").expect("loopback up");
            netlink.set_up(device).expect("device up");
        }
        Pair { left, right, left_netlink, right_netlink }
    }
}

/// Waits until `condition` holds; panics with `what` when it does not within thirty seconds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not within thirty seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
