//! A limit of what the containers of a pod write: kept, told inside, raised while they run, and gone with them.

use crate::{
    confinement::exec,
    lab::{Lab, until},
};
use model::{
    instance::Grant,
    plan::{Body, InstancePlan, RootDiskPlan},
};
use node::driver::Driver;
use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// More than a disk of one GiB takes, in bytes.
const TOO_MUCH: u64 = 1_200_000_000;

#[tokio::test]
async fn a_root_disk_limits_what_containers_write_and_grows_while_they_run() {
    let mut lab = Lab::new();
    let script = format!(
        "cat /kept 2>/dev/null; echo kept >/kept; df -k / | tail -n 1; fallocate -l {TOO_MUCH} /big || echo full; \
         while [ ! -e /go ]; do sleep 0.1; done; df -k / | tail -n 1; fallocate -l {TOO_MUCH} /big && echo room || echo none; while :; do sleep 1; done"
    );
    let (main, beside) =
        (lab.container("main", &script), lab.container("beside", "while :; do sleep 1; done"));
    let mut plan = lab.pod(vec![main, beside]);
    let path = lab.directory.path().join("root.ext4");
    set_disk(&mut plan, &path, 1);
    lab.driver.start(&plan).await.unwrap();
    let told = lab.output_with(plan.id, "full").await;
    assert!((900_000..=1_048_576).contains(&size_kib(&told, 0)), "{told}");
    assert_eq!(devices_of(&path), 1);
    assert!(is_held(&path), "nobody else mounts it meanwhile");
    // It takes what was written, not what may be.
    assert!(fs::metadata(&path).unwrap().blocks() * 512 < 200 << 20, "{:?}", fs::metadata(&path));

    let before = lab.driver.places(plan.id);
    set_disk(&mut plan, &path, 2);
    let has = lab.driver.resize(&plan, Grant { disk_gib: 1, ..plan.grant() }).await.unwrap();
    // Without a capability the kernel lets no mounted file system grow; then it is told, and larger at the next start.
    assert_eq!(has.disk_gib, if may_grow() { 2 } else { 1 });
    assert_eq!(exec(&lab, &plan, &["touch", "/go"], None).await.0, 0);
    let told = lab.output_with(plan.id, if may_grow() { "room" } else { "none" }).await;
    let now_kib = has.disk_gib * 1_048_576;
    assert!((now_kib * 9 / 10..=now_kib).contains(&size_kib(&told, 1)), "{told}");
    assert_eq!(before, lab.driver.places(plan.id));

    // A pod that is killed leaves no device, and its files are there at its next boot, with the size that it has then.
    lab.driver.kill(plan.id).await.unwrap();
    until("the end of the device", async || devices_of(&path) == 0).await;
    set_disk(&mut plan, &path, 3);
    plan.boot = 2;
    lab.driver.start(&plan).await.unwrap();
    let told = lab.output_with(plan.id, "kept").await;
    until("the new size", async || {
        let told = lab.output(plan.id).await;
        told.lines().rfind(|line| line.starts_with("holm")).is_some_and(|line| kib(line) > 2_900_000)
    })
    .await;
    assert!(told.contains("kept"), "{told}");
    lab.driver.destroy(plan.id).await.unwrap();
    until("the end of the device", async || devices_of(&path) == 0).await;
    assert!(!path.exists());
    lab.close().await;
}

/// Whether this process has `CAP_SYS_RESOURCE`.
fn may_grow() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    u64::from_str_radix(bits, 16).unwrap() & 1 << 24 != 0
}

fn set_disk(plan: &mut InstancePlan, path: &Path, size_gib: u64) {
    let Body::Pod(pod) = &mut plan.body else { panic!("no pod") };
    pod.root_disk = Some(RootDiskPlan { path: path.into(), size_gib });
}

/// The size in a line of `df -k`.
fn kib(line: &str) -> u64 {
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn size_kib(output: &str, which: usize) -> u64 {
    let mut lines = output.lines().filter(|line| line.split_whitespace().last() == Some("/"));
    kib(lines.nth(which).unwrap_or_else(|| panic!("{output}")))
}

/// Whether somebody has taken a file for itself.
fn is_held(path: &Path) -> bool {
    let file = fs::File::open(path).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
}

/// Loop devices over a file.
fn devices_of(path: &Path) -> usize {
    let is_over = |entry: fs::DirEntry| {
        let name = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        name.trim_end().trim_end_matches(" (deleted)") == path.to_str().unwrap()
    };
    fs::read_dir("/sys/block").unwrap().flatten().map(is_over).filter(|is| *is).count()
}
