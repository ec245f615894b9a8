//! What no image needs goes, and nothing else does.

use crate::lab::{Lab, names};
use flate2::{Compression, write::GzEncoder};
use model::{
    image::{ImageKind, ImageState},
    image_digest::Digest,
};
use std::{io::Write, path::Path, time::Duration};

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// `docker save` of an image with these layers.
fn archive(layers: &[&[u8]]) -> Vec<u8> {
    let platform = model::image_manifest::Platform::linux_on(std::env::consts::ARCH);
    let tars: Vec<Vec<u8>> = layers.iter().map(|content| tar(&[("file", *content)])).collect();
    let diff_ids: Vec<String> = tars.iter().map(|tar| Digest::of(tar).to_string()).collect();
    let config = serde_json::json!({
        "os": "linux", "architecture": platform.architecture, "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let names: Vec<String> = (0..tars.len()).map(|n| format!("{n}/layer.tar")).collect();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": ["x:1"], "Layers": names}]);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut files: Vec<(&str, &[u8])> = vec![("config.json", &config), ("manifest.json", &manifest)];
    files.extend(names.iter().zip(&tars).map(|(name, tar)| (name.as_str(), tar.as_slice())));
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&tar(&files)).unwrap();
    gzip.finish().unwrap()
}

fn count(lab: &Lab) -> (usize, usize) {
    let layers = names(&lab.dir.path().join("layers"));
    let blobs = names(&lab.dir.path().join("blobs/sha256"));
    (blobs.len(), layers.iter().filter(|name| !name.ends_with(".json")).count())
}

#[tokio::test]
async fn what_other_images_share_stays_and_the_rest_goes() {
    let lab = Lab::new().await;
    let one = lab.image("one", ImageKind::Oci, &archive(&[b"shared", b"of one"])).await.unwrap();
    lab.image("two", ImageKind::Oci, &archive(&[b"shared", b"of two"])).await.unwrap();
    assert_eq!(count(&lab).1, 3);
    let all = count(&lab);
    lab.images.collect(Duration::ZERO).await.unwrap();
    let needed = count(&lab);
    assert_eq!(needed, (7, 3), "of {all:?}: two manifests, two configs, three layers");

    lab.control.delete_image(&lab.caller, "one").await.unwrap();
    lab.images.run(one.meta.id).await.unwrap();
    let kept = lab.images.collect(Duration::from_secs(3600)).await.unwrap();
    assert_eq!((kept.blobs, kept.layers, count(&lab)), (0, 0, needed), "what is fresh stays");
    let swept = lab.images.collect(Duration::ZERO).await.unwrap();
    assert_eq!((swept.blobs, swept.layers), (3, 1));
    assert_eq!(count(&lab), (4, 2));
    let two = lab.control.find_own::<model::image::Image>(&lab.caller, "two", "x").unwrap();
    lab.images.run(two.record.meta.id).await.unwrap();
    assert!(matches!(lab.image_state(two.record.meta.id), Some(ImageState::Ready(_))));
}

#[tokio::test]
async fn layers_of_pods_stay_whatever_became_of_their_image() {
    let lab = Lab::new().await;
    let image = lab.image("one", ImageKind::Oci, &archive(&[b"under a pod"])).await.unwrap();
    let layer = names(&lab.dir.path().join("layers")).remove(0);
    let pod = lab.dir.path().join("pods/00000000-0000-4000-8000-000000000001");
    std::fs::create_dir_all(&pod).unwrap();
    let layer_path = lab.dir.path().join("layers").join(layer.trim_end_matches(".json"));
    std::fs::write(pod.join("pod.json"), pod_text(&layer_path)).unwrap();
    lab.control.delete_image(&lab.caller, "one").await.unwrap();
    lab.images.run(image.meta.id).await.unwrap();
    assert_eq!(lab.images.collect(Duration::ZERO).await.unwrap().layers, 0);
    assert!(layer_path.is_dir());
    // What cannot be read might need any layer, and no blob.
    std::fs::write(pod.join("pod.json"), "{").unwrap();
    let two = lab.image("two", ImageKind::Oci, &archive(&[b"nobody's"])).await.unwrap();
    lab.control.delete_image(&lab.caller, "two").await.unwrap();
    lab.images.run(two.meta.id).await.unwrap();
    assert_ne!(count(&lab).0, 0);
    lab.images.collect(Duration::ZERO).await.unwrap_err();
    assert_eq!(count(&lab), (0, 2));
    assert!(layer_path.is_dir());
    std::fs::write(pod.join("pod.json"), pod_text(&layer_path)).unwrap();
    assert_eq!(lab.images.collect(Duration::ZERO).await.unwrap().layers, 1);
    // What a crash of the host leaves of a file that was not flushed.
    std::fs::write(pod.join("pod.json"), [0; 4096]).unwrap();
    assert_eq!(lab.images.collect(Duration::ZERO).await.unwrap().layers, 1);
    assert!(!layer_path.exists());
}

#[tokio::test]
async fn a_failure_that_may_pass_is_tried_again() {
    use model::{
        error::{Code, Fault},
        image::{Image, ImageStatus},
    };
    use reconcile::Outcome;
    let lab = Lab::new().await;
    let first = lab.image("one", ImageKind::Oci, &archive(&[b"one"])).await.unwrap();
    let Some(ImageState::Ready(content)) = lab.image_state(first.meta.id) else { panic!("it is there") };
    let named = lab.control.name_content(&lab.caller, &content.digest, Some("again:1")).await.unwrap();
    let id = named.meta.id;
    let fail = async |code, before: Duration| {
        let at = jiff::Timestamp::now() - before;
        let state = ImageState::Failed(Fault { code, message: "no".into(), hint: String::new(), since: at });
        let asked = lab.store.get::<Image>(&id.to_string()).unwrap().record.asked;
        let node = model::id::NodeId::from_random(crate::lab::NODE);
        lab.put(&ImageStatus { id, node, state, asked, stale: None, at }).await;
        lab.images.run(id).await.unwrap()
    };
    let is_ready = || matches!(lab.image_state(id), Some(ImageState::Ready(_)));
    let long = Duration::from_secs(3600);
    assert!(matches!(fail(Code::NoCapacity, Duration::ZERO).await, Outcome::After(_)) && !is_ready());
    assert!(matches!(fail(Code::Invalid, long).await, Outcome::Done) && !is_ready());
    assert!(matches!(fail(Code::NoCapacity, long).await, Outcome::Done) && is_ready());
}

/// A pod's papers as its driver writes them.
fn pod_text(layer: &Path) -> Vec<u8> {
    use model::plan::{Body, ContainerPlan, IdRange, InstancePlan, PodPlan};
    let container: ContainerPlan = serde_json::from_value(serde_json::json!({
        "name": "c", "layers": [layer], "argv": ["/bin/true"], "env": [], "cwd": "/", "user": "", "tty": false,
        "stdin_open": false, "restart": model::plan::RestartPolicy::No, "stop_signal": 15, "grace_s": 1, "mounts": [], "read_only_rootfs": false,
        "cap_add": [], "cap_drop": [], "upper": "/nowhere", "labels": {}, "log": model::plan::LogLimits::default(),
    }))
    .unwrap();
    let id = "00000000-0000-4000-8000-000000000001".parse().unwrap();
    let plan = InstancePlan {
        id,
        project: model::id::ProjectId::from_random([1; 16]),
        boot: 1,
        name: "pod".into(),
        hostname: "pod".into(),
        id_range: IdRange { base: 1 << 28, count: 1 << 16 },
        vcpus: 1,
        memory_mib: 64,
        cpu_weight: 100,
        pids_max: 100,
        nics: vec![],
        disks: vec![],
        body: Body::Pod(PodPlan {
            containers: vec![container],
            extra_hosts: vec![],
            root_disk: None,
            files: vec![],
            shared: Default::default(),
            isolation: Default::default(),
        }),
    };
    let driver = node::container::driver::PodDriver::new(node::container::driver::PodDriverConfig {
        state: "/nowhere".into(),
        run: "/nowhere".into(),
        cgroup_root: "x".into(),
        program: None,
        machines: None,
    });
    let pod = node::container::bundle::bundle(&plan, driver.places(id)).unwrap();
    serde_json::to_vec(&pod).unwrap()
}
