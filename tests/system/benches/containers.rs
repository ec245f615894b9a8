//! Containers beside bare crun and podman, with the same files.

use crate::table::{Budget, Table, percentile, took};
use lab::{Cloud, Lab};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const ROUNDS: usize = 30;
/// Starts of which the slow ones are told.
const STARTS: usize = 100;
/// Control groups of version 2 on a host that has both.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// A program that must succeed, with its output thrown away; how long it took.
fn run(lab: &Lab, program: &Path, arguments: &[&str]) -> Duration {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    took(|| {
        let output = lab.world.machine.run(|| command.output()).expect("enter").expect("start");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {arguments:?}: {said}", program.display());
    })
}

/// The same for a peer that refuses hosts with control groups of both versions: it sees those of version 1 alone.
fn run_peer(lab: &Lab, program: &str, arguments: &[&str]) -> Duration {
    let work = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        let slave = nix::mount::MsFlags::MS_SLAVE | nix::mount::MsFlags::MS_REC;
        nix::mount::mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).expect("apart");
        if Path::new(UNIFIED).exists() {
            nix::mount::umount(UNIFIED).expect("without version 2");
        }
        run(lab, program.as_ref(), arguments)
    };
    // A mount namespace is a thread's own.
    std::thread::scope(|scope| scope.spawn(work).join().expect("the peer"))
}

/// `run --rm` of a program that ends at once.
pub fn starts(table: &mut Table, lab: &Lab, shop: &Cloud) {
    shop.launch(&shop.idle_container("warm"));
    let holm = lab::program();
    let socket = lab.socket();
    let socket = socket.to_str().expect("a path of text");
    let ours =
        || run(lab, &holm, &["--socket", socket, "--project", "shop", "run", "--rm", "busybox", "true"]);
    let alone = || run(lab, &holm, &["completion", "bash"]);
    table.pair("`holm run --rm` beside a holm command that asks nobody", ROUNDS, Budget::None, ours, alone);
    let mut starts: Vec<Duration> = (0..STARTS).map(|_| ours()).collect();
    let slow = percentile(&mut starts, 95).as_secs_f64() * 1e3;
    let what = "`holm run --rm` of an image that is here: 95 of 100 were done within";
    table.value(what, slow, " ms", Budget::AtMost(1000.0));
    let bundle = make_bundle(lab);
    let path = bundle.to_str().expect("a path of text");
    let name = || format!("bench-{:x}", rand::random::<u64>());
    let crun = || run_peer(lab, "crun", &["run", "--bundle", path, &name()]);
    table.pair("`holm run --rm` beside bare crun, same namespaces", ROUNDS, Budget::AtMost(1.5), ours, crun);
    let files = bundle.join("rootfs");
    let files = files.to_str().expect("a path of text");
    // Limits that a host without CAP_SYS_RESOURCE can give; podman's own it cannot.
    let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
    let arguments =
        [&["run", "--rm", "--network", "none"], &limits[..], &["--rootfs", files, "true"]].concat();
    let podman = || run_peer(lab, "podman", &arguments);
    table.pair("`holm run --rm` beside podman without a network", ROUNDS, Budget::AtMost(0.34), ours, podman);
    table.pair("bare crun beside podman", 10, Budget::None, crun, podman);
    shop.empty();
}

/// The files of the image `busybox` as a bundle for a bare runtime, with namespaces as holm's containers have them.
fn make_bundle(lab: &Lab) -> PathBuf {
    let bundle = lab.directory().join("bundle");
    let files = bundle.join("rootfs");
    fs::create_dir_all(&files).expect("bundle");
    let layout = lab.images.file("busybox", "layout");
    for blob in fs::read_dir(layout.join("blobs/sha256")).expect("blobs").flatten() {
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(blob.path()).arg("-C").arg(&files).stderr(Stdio::null());
        // Manifests are no archives.
        let _ = tar.status().expect("tar");
    }
    assert!(files.join("bin").exists(), "the image has its files");
    let status = Command::new("crun").arg("spec").current_dir(&bundle).status().expect("crun");
    assert!(status.success(), "crun spec");
    let path = bundle.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&path).expect("spec")).expect("JSON");
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!(["true"]);
    let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
    namespaces.push(serde_json::json!({"type": "user"}));
    let ids = serde_json::json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
    spec["linux"]["uidMappings"] = ids.clone();
    spec["linux"]["gidMappings"] = ids;
    fs::write(&path, spec.to_string()).expect("spec");
    bundle
}
