//! Images from a registry as a whole: those that cannot be had are told at once with their cause, and had as soon as the
//! cause is gone and somebody asks anew.

use api::v1::types::{
    Fault,
    image::{Image, ImageState},
    instance::{CreateInstance, Instance},
};
use lab::{Cloud, Lab, eventually};
use model::{error::Code, instance::phase::Phase};
use sha2::{Digest as _, Sha256};
use std::{fs, path::Path, time::Duration};

const LONG: Duration = Duration::from_secs(20);

#[test]
fn images_that_cannot_be_had_are_told_with_their_cause() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    let busybox = lab.images.file("busybox", "layout");
    let foreign = lab.directory().join("foreign");
    write_variant(&busybox, &foreign, "arm64");
    lab.registry().push(&lab.world.machine, &foreign, "library/foreign:latest");
    let fault = fault_of(&shop, "foreign");
    assert!(fault.message.contains("arm64") && fault.message.contains("amd64"), "{fault:?}");
    assert!(fault.code == Code::Unsupported && fault.hint.contains("VM"), "{fault:?}");

    let liar = lab.directory().join("liar");
    write_variant(&busybox, &liar, "amd64");
    lab.registry().push(&lab.world.machine, &liar, "library/liar:latest");
    lie_about(&lab.registry().store(), &liar);
    let fault = fault_of(&shop, "liar");
    assert!(fault.message.contains("sha256:") && fault.message.contains("lies"), "{fault:?}");

    let fault = fault_of(&shop, "nobody/nothing:1");
    assert!(fault.message.contains("127.0.0.1:5000 has no nobody/nothing:1"), "{fault:?}");
    // It is published now: who asks again gets it at once.
    lab.registry().push(&lab.world.machine, &busybox, "nobody/nothing:1");
    let again = shop.idle_container("again");
    shop.launch(&CreateInstance { image: Some("nobody/nothing:1".into()), ..again });
    shop.empty();
    lab.finish();
}

#[test]
fn a_registry_that_is_down_is_told_and_nothing_else_suffers() {
    let mut lab = Lab::new();
    let shop = lab.project("shop");
    shop.launch(&shop.idle_container("box"));
    lab.stop_registry();
    let request = shop.container("waits", "web");
    shop.ask(shop.client.create::<Instance>(&request, &Default::default())).expect("accepted");
    let fault = lab::until(LONG, || shop.instance("waits").fault).expect("a fault");
    assert!(fault.message.contains("cannot reach 127.0.0.1:5000"), "{fault:?}");
    assert!(fault.code == Code::Unavailable && !fault.hint.is_empty(), "{fault:?}");
    assert_eq!(shop.instance("waits").phase, Phase::Failed);
    assert!(shop.exec("box", "true").ok(), "the rest goes on");
    shop.launch(&shop.idle_container("from-cache"));
    lab.start_registry();
    let started = shop.act("waits", api::client::Verb::Start);
    assert_eq!(started.phase, Phase::Running, "{started:#?}");
    let image = shop.list::<Image>().into_iter().find(|i| i.head.name.contains("web")).expect("the image");
    assert_eq!((image.state, image.fault), (ImageState::Ready, None));
    shop.empty();
    lab.finish();
}

#[test]
fn a_pull_brings_what_is_new_and_nothing_twice() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    let busybox = lab.images.file("busybox", "layout");
    let pulled = shop.pull("", "busybox");
    let again = shop.pull("", "busybox");
    assert_eq!(
        (again.head.id, &again.content),
        (pulled.head.id, &pulled.content),
        "a second pull changes nothing"
    );
    assert_eq!(again.fault, None);
    let newer = lab.directory().join("newer");
    write_variant(&busybox, &newer, "amd64");
    shop.launch(&shop.idle_container("old"));
    let digest = lab.registry().push(&lab.world.machine, &newer, "library/busybox:latest");
    let now = shop.pull("", "busybox");
    assert_eq!(now.content.expect("content").digest, digest, "the tag leads to another image now");
    assert!(shop.exec("old", "true").ok(), "what runs from the old one goes on");
    shop.launch(&shop.idle_container("new"));
    shop.delete::<Instance>("old");
    eventually("the new one answers", LONG, || shop.exec("new", "true").ok());
    shop.empty();
    lab.finish();
}

/// Asks for a container of an image that cannot be had, and gives the fault.
fn fault_of(shop: &Cloud, reference: &str) -> Fault {
    eprintln!("asking for {reference}");
    let request = shop.container("faulty", reference);
    shop.ask(shop.client.create::<Instance>(&request, &Default::default())).expect("accepted");
    let fault = lab::until(LONG, || shop.instance("faulty").fault);
    let fault = fault.unwrap_or_else(|| panic!("no fault: {:#?}", shop.instance("faulty")));
    assert_eq!(shop.instance("faulty").phase, Phase::Failed);
    assert!(!fault.hint.is_empty(), "{fault:?}");
    shop.delete::<Instance>("faulty");
    fault
}

fn blob(layout: &Path, digest: &str) -> std::path::PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

fn put_blob(layout: &Path, bytes: &[u8]) -> (String, usize) {
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
    fs::write(blob(layout, &digest), bytes).unwrap();
    (digest, bytes.len())
}

/// Copies a layout with another architecture, a label and a layer of its own.
fn write_variant(from: &Path, to: &Path, architecture: &str) {
    fs::create_dir_all(to.join("blobs/sha256")).unwrap();
    for entry in fs::read_dir(from.join("blobs/sha256")).unwrap().flatten() {
        fs::copy(entry.path(), to.join("blobs/sha256").join(entry.file_name())).unwrap();
    }
    fs::copy(from.join("oci-layout"), to.join("oci-layout")).unwrap();
    let read = |path: &Path| serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap();
    let mut index = read(&from.join("index.json"));
    let mut manifest = read(&blob(from, index["manifests"][0]["digest"].as_str().unwrap()));
    let mut config = read(&blob(from, manifest["config"]["digest"].as_str().unwrap()));
    config["architecture"] = architecture.into();
    config["author"] = to.to_string_lossy().into();
    let (digest, size) = put_blob(to, config.to_string().as_bytes());
    manifest["config"]["digest"] = digest.into();
    manifest["config"]["size"] = size.into();
    let (digest, size) = put_blob(to, manifest.to_string().as_bytes());
    index["manifests"][0]["digest"] = digest.into();
    index["manifests"][0]["size"] = size.into();
    if let Some(platform) = index["manifests"][0].get_mut("platform") {
        platform["architecture"] = architecture.into();
    }
    fs::write(to.join("index.json"), index.to_string()).unwrap();
}

/// Changes a byte of the config in the registry's store, so that it no longer is what its name says.
fn lie_about(store: &Path, layout: &Path) {
    let read = |path: &Path| serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap();
    let index = read(&layout.join("index.json"));
    let manifest = read(&blob(layout, index["manifests"][0]["digest"].as_str().unwrap()));
    let digest = manifest["config"]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_string();
    let data = store.join("docker/registry/v2/blobs/sha256").join(&digest[..2]).join(&digest).join("data");
    let mut bytes = fs::read(&data).unwrap();
    let place = bytes.windows(5).position(|w| w == b"amd64").expect("architecture");
    bytes[place] = b'A';
    fs::write(&data, bytes).unwrap();
}
