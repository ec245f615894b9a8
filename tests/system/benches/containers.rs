//! Containers beside bare crun, docker and podman, with the same files.

use crate::{
    engines,
    peers::Peers,
    table::{Budget, Table, percentile, took},
};
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

/// `run --rm` of a program that ends at once.
pub fn starts(table: &mut Table, lab: &Lab, shop: &Cloud, peers: Result<&Peers, &String>) {
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
    engines::starts(table, lab, peers, ROUNDS, ours);
    let bundle = peers.map(|peers| make_bundle(lab, peers));
    let run_bare = || {
        let bundle = bundle.as_ref().map_err(|reason| (*reason).clone())?;
        let name = format!("bench-{:x}", rand::random::<u64>());
        peers?.run("crun", &["run", "--bundle", bundle.to_str().expect("a path of text"), &name])
    };
    let what = "`holm run --rm`, with namespaces of the same kinds";
    table.beside(what, ROUNDS, Budget::AtMost(1.5), ours, &mut [("bare crun", &mut || run_bare())]);
    let alone = ["run", "--rm", "--network", "none", "127.0.0.1:5000/library/base", "true"];
    let podman = || peers?.run("podman", &alone);
    let what = "`holm run --rm` of an image that is here";
    table.beside(
        what,
        ROUNDS,
        Budget::AtMost(0.34),
        ours,
        &mut [("podman without a network", &mut || podman())],
    );
    shop.empty();
}

/// The files of the image `busybox` as a bundle for a bare runtime, with namespaces as holm's containers have them.
fn make_bundle(lab: &Lab, peers: &Peers) -> PathBuf {
    let bundle = peers.data().join("bundle");
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
    peers.run("crun", &["spec", "--bundle", bundle.to_str().expect("a path of text")]).expect("crun spec");
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
