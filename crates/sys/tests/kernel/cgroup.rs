//! Control groups that really hold: a fork bomb stops, a hungry process is killed, weights divide the processor.

use std::path::Path;
use std::time::Duration;

use sys::cgroup::{Layout, Limits, Tree};
use sys::pidfd::Exit;
use sys::spawn::{Child, Command};

use crate::guard::{eventually, unique};

const LONG: Duration = Duration::from_secs(30);

/// A tree of the test's own; its groups, and what runs in them, go with it.
struct OwnTree(Tree);

impl OwnTree {
    fn new() -> OwnTree {
        OwnTree(Tree::probe(&unique("holmtest")).expect("control groups"))
    }

    fn spawn(&self, name: &str, script: &str) -> Child {
        let command = Command::new("/bin/sh").args(["-c", script]).env("PATH", "/usr/bin:/bin");
        command.cgroup(self.0.entrance(name).expect("the group is there")).spawn().expect("spawned")
    }
}

impl Drop for OwnTree {
    fn drop(&mut self) {
        for name in self.0.list("").unwrap_or_default() {
            let _ = self.0.kill(&name);
            let _ = self.0.delete(&name);
        }
        let _ = self.0.delete_root();
    }
}

#[test]
fn groups_are_made_set_listed_and_deleted_twice() {
    let tree = OwnTree::new();
    let limits = Limits {
        cpu_quota_us: Some(150_000),
        cpu_weight: Some(300),
        memory_max_bytes: Some(64 << 20),
        swap_max_bytes: Some(0),
        pids_max: Some(32),
    };
    for _ in 0..2 {
        tree.0.create("one", &limits).expect("made");
        tree.0.create("two/inner", &Limits::default()).expect("made");
    }
    assert!(tree.0.exists("two").expect("asked"), "the outer part was made too");
    assert_eq!(tree.0.list("").expect("listed"), ["one", "two"]);
    assert_eq!(tree.0.list("two").expect("listed"), ["inner"]);
    // From any limits to any others, in both directions.
    let larger = Limits { memory_max_bytes: Some(256 << 20), swap_max_bytes: Some(1 << 30), ..limits };
    for limits in [larger, limits, Limits::default(), limits] {
        tree.0.set("one", &limits).expect("set");
    }
    assert_eq!(tree.0.stats("one").expect("read").pids, 0);
    assert!(tree.0.create("../out", &limits).is_err());
    for _ in 0..2 {
        tree.0.kill("one").expect("nobody to kill");
        tree.0.delete("one").expect("deleted");
        tree.0.delete("two").expect("deleted with its inner part");
    }
    assert!(!tree.0.exists("two").expect("asked"));
    tree.0.delete_root().expect("empty");
    assert!(
        tree.0.directories("one").expect("a name").iter().all(|one| !one.parent().is_some_and(Path::exists))
    );
}

#[test]
fn a_fork_bomb_stops_at_its_limit_and_dies_whole() {
    let tree = OwnTree::new();
    tree.0.create("bomb", &Limits { pids_max: Some(40), ..Limits::default() }).expect("made");
    // The shell ends when it cannot fork any more; what it forked stays.
    let bomb = tree.spawn("bomb", "while :; do sleep 1000 & done 2>/dev/null");
    eventually("the limit is reached", || tree.0.stats("bomb").expect("read").pids >= 39);
    for _ in 0..20 {
        assert!(tree.0.stats("bomb").expect("read").pids <= 40);
    }
    let error = tree.0.delete("bomb").expect_err("it is full of processes");
    assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy);
    tree.0.kill("bomb").expect("killed");
    assert_eq!(tree.0.processes("bomb").expect("listed"), Vec::<i32>::new());
    bomb.wait(LONG).expect("waited").expect("ended");
    tree.0.delete("bomb").expect("deleted");
}

#[test]
fn a_hungry_process_is_killed_and_counted_and_its_neighbour_lives() {
    let tree = OwnTree::new();
    let limits = Limits { memory_max_bytes: Some(32 << 20), swap_max_bytes: Some(0), ..Limits::default() };
    tree.0.create("pod", &Limits::default()).expect("made");
    tree.0.create("pod/hungry", &limits).expect("made");
    tree.0.create("pod/modest", &limits).expect("made");
    let modest = tree.spawn("pod/modest", "exec sleep 1000");
    let hungry = tree.spawn("pod/hungry", "exec tail /dev/zero");
    assert_eq!(hungry.wait(LONG).expect("waited"), Some(Exit::Signal(libc::SIGKILL)));
    assert!(tree.0.stats("pod/hungry").expect("read").oom_kills >= 1);
    assert_eq!(tree.0.stats("pod/modest").expect("read").oom_kills, 0);
    assert_eq!(modest.wait(Duration::ZERO).expect("asked"), None);
    assert_eq!(tree.0.processes("pod").expect("listed"), [modest.pid()]);
    tree.0.kill("pod").expect("killed, with the parts below");
    assert_eq!(modest.wait(LONG).expect("waited"), Some(Exit::Signal(libc::SIGKILL)));
}

#[test]
fn a_quota_holds_back_and_is_told() {
    let tree = OwnTree::new();
    tree.0.create("slow", &Limits { cpu_quota_us: Some(10_000), ..Limits::default() }).expect("made");
    let _busy = tree.spawn("slow", "while :; do :; done");
    eventually("it was held back", || tree.0.stats("slow").expect("read").cpu_throttled_us > 100_000);
    let (start, before) = (std::time::Instant::now(), tree.0.stats("slow").expect("read").cpu_usage_us);
    std::thread::sleep(Duration::from_millis(500));
    let used = tree.0.stats("slow").expect("read").cpu_usage_us - before;
    let share = used as f64 / start.elapsed().as_micros() as f64;
    assert!(share < 0.3, "a tenth of a processor, not {share}");
}

#[test]
fn a_frozen_group_stands_still_until_it_is_thawed() {
    let tree = OwnTree::new();
    tree.0.create("ice", &Limits::default()).expect("made");
    let child = Command::new("/bin/sh").args(["-c", "while :; do :; done"]).spawn().expect("spawned");
    tree.0.add("ice", child.pid()).expect("moved in");
    assert_eq!(tree.0.processes("ice").expect("listed"), [child.pid()]);
    for _ in 0..2 {
        tree.0.freeze("ice").expect("frozen");
    }
    let before = tree.0.stats("ice").expect("read").cpu_usage_us;
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(tree.0.stats("ice").expect("read").cpu_usage_us, before);
    for _ in 0..2 {
        tree.0.thaw("ice").expect("thawed");
    }
    eventually("it runs again", || tree.0.stats("ice").expect("read").cpu_usage_us > before);
    tree.0.freeze("ice").expect("frozen");
    tree.0.kill("ice").expect("even a frozen group can be killed");
    assert_eq!(child.wait(LONG).expect("waited"), Some(Exit::Signal(libc::SIGKILL)));
}

/// The calls of version 2 that need no controller, on the real hierarchy, wherever this machine has mounted it.
#[test]
fn version_two_adds_freezes_kills_and_deletes() {
    let table = sys::mount::table().expect("the table");
    let mount =
        table.iter().find(|entry| entry.kind == "cgroup2").expect("version 2 is mounted").target.clone();
    let layout = Layout::V2 { mount: mount.clone(), controllers: Vec::new() };
    let tree = OwnTree(Tree::with_layout(layout, &unique("holmtest")).expect("a name"));
    tree.0.create("pod/one", &Limits::default()).expect("made");
    let child = tree.spawn("pod/one", "while :; do sleep 1000; done");
    eventually("both processes", || tree.0.processes("pod").expect("listed").len() == 2);
    tree.0.freeze("pod").expect("frozen");
    tree.0.thaw("pod").expect("thawed");
    assert!(tree.0.delete("pod").is_err());
    tree.0.kill("pod").expect("killed");
    assert_eq!(child.wait(LONG).expect("waited"), Some(Exit::Signal(libc::SIGKILL)));
    tree.0.delete("pod").expect("deleted");
    assert!(tree.0.relative_path("pod").expect("a name").starts_with("/"));
}
