//! Volumes: made, grown, counted, lost and removed.

use crate::lab::{Lab, names, qemu_img, virtual_bytes};
use model::{
    error::Code,
    id::VolumeId,
    image::{Image, ImageKind},
    instance::Kind,
    plan::DiskFormat,
};
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

const GIB: u64 = 1 << 30;
const MIB: usize = 1 << 20;

pub async fn root_image(lab: &Lab) -> Image {
    let scratch = tempfile::tempdir().unwrap();
    let (raw, path) = (scratch.path().join("raw"), scratch.path().join("qcow2"));
    std::fs::write(&raw, [b"the beginning".as_slice(), &vec![0; 2 * MIB]].concat()).unwrap();
    std::fs::File::options().write(true).open(&raw).unwrap().set_len(4 * MIB as u64).unwrap();
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", raw.to_str().unwrap()], &path);
    lab.image("root", ImageKind::Disk, &std::fs::read(&path).unwrap()).await.unwrap()
}

fn path(lab: &Lab, id: VolumeId) -> PathBuf {
    PathBuf::from(lab.status(id).path.unwrap())
}

#[tokio::test]
async fn disks_are_made_of_nothing_and_of_images_thin_and_thick() {
    let lab = Lab::new().await;
    let image = root_image(&lab).await;
    for (thick, source) in [(false, None), (true, None), (false, Some(&image)), (true, Some(&image))] {
        let id = lab.volume(1, thick, source).await;
        for _ in 0..2 {
            lab.volumes.run(id).await.unwrap();
        }
        let status = lab.status(id);
        let file = path(&lab, id);
        assert_eq!((status.size_gib, status.fault.clone()), (1, None));
        assert_eq!(status.format, if thick { DiskFormat::Raw } else { DiskFormat::Qcow2 });
        assert_eq!(virtual_bytes(&file), GIB);
        assert_eq!(status.used_bytes, std::fs::metadata(&file).unwrap().blocks() * 512);
        assert_eq!(status.used_bytes >= GIB, thick);
        if source.is_some() {
            let out = lab.dir.path().join("out.raw");
            let format = status.format.as_str();
            qemu_img(&["convert", "-f", format, "-O", "raw", file.to_str().unwrap()], &out);
            let mut head = [0; 13];
            std::io::Read::read_exact(&mut std::fs::File::open(&out).unwrap(), &mut head).unwrap();
            assert_eq!(&head, b"the beginning");
            std::fs::remove_file(out).unwrap();
        }
        lab.control.delete_volume(&lab.caller, &id.to_string()).await.unwrap();
        assert!(lab.volumes.keys().contains(&id), "its file is found without a record");
        lab.volumes.run(id).await.unwrap();
    }
    assert_eq!(names(&node::volume::files::disks_dir(lab.dir.path())), Vec::<String>::new());
}

#[tokio::test]
async fn a_crash_anywhere_leaves_nothing_that_counts() {
    let mut lab = Lab::new().await;
    let id = lab.volume(1, false, None).await;
    let dir = node::volume::files::disks_dir(lab.dir.path());
    // Made and not named; a sandbox that was in the middle.
    std::fs::write(dir.join(format!("{id}.new")), b"half").unwrap();
    std::fs::create_dir(dir.join("tmp-00000000-0000-4000-8000-000000000000")).unwrap();
    lab.restart();
    lab.volumes.run(id).await.unwrap();
    assert_eq!(names(&dir), [format!("{id}.qcow2")]);
    assert_eq!(virtual_bytes(&path(&lab, id)), GIB);
}

#[tokio::test]
async fn a_free_disk_grows_and_one_in_use_is_left_to_its_guest() {
    let lab = Lab::new().await;
    root_image(&lab).await;
    for thick in [false, true] {
        let id = lab.volume(1, thick, None).await;
        lab.volumes.run(id).await.unwrap();
        lab.control.resize_volume(&lab.caller, &id.to_string(), 2).await.unwrap();
        lab.volumes.run(id).await.unwrap();
        assert_eq!((lab.status(id).size_gib, virtual_bytes(&path(&lab, id))), (2, 2 * GIB));

        let instance = lab.attach(id, Kind::Vm, true).await;
        lab.control.resize_volume(&lab.caller, &id.to_string(), 3).await.unwrap();
        lab.volumes.run(id).await.unwrap();
        assert_eq!(
            (lab.status(id).size_gib, virtual_bytes(&path(&lab, id))),
            (2, 2 * GIB),
            "the guest has it"
        );
        // Its guest's driver makes it larger: that is read back.
        qemu_img(
            &["resize", "-q", "-f", lab.status(id).format.as_str(), path(&lab, id).to_str().unwrap()],
            Path::new("3G"),
        );
        lab.volumes.run(id).await.unwrap();
        assert_eq!(lab.status(id).size_gib, 3);

        lab.control.resize_volume(&lab.caller, &id.to_string(), 4).await.unwrap();
        lab.hold(instance, id, false).await;
        lab.volumes.run(id).await.unwrap();
        assert_eq!(lab.status(id).size_gib, 4, "the guest let go");
        let used = lab.status(id).used_bytes;
        assert_eq!(used >= 4 * GIB, thick, "{used}");
    }
}

#[tokio::test]
async fn a_disk_that_cannot_be_made_says_why_and_what_to_do() {
    let lab = Lab::new().await;
    let scratch = tempfile::tempdir().unwrap();
    let large = scratch.path().join("large");
    qemu_img(&["create", "-q", "-f", "qcow2", large.to_str().unwrap()], Path::new("5G"));
    let image = lab.image("large", ImageKind::Disk, &std::fs::read(&large).unwrap()).await.unwrap();
    let id = VolumeId::from_random([3; 16]);
    // Past control, which would refuse it.
    let mut volume = lab.wish(lab.volume(1, false, None).await);
    volume.meta.id = id;
    volume.source = model::volume::VolumeSource::Image(image.meta.id);
    lab.put(&volume).await;
    lab.volumes.run(id).await.unwrap_err();
    let fault = lab.status(id).fault.unwrap();
    assert_eq!(fault.code, Code::Invalid);
    assert!(fault.hint.contains("at least as large"), "{fault:?}");
    let since = fault.since;
    lab.volumes.run(id).await.unwrap_err();
    assert_eq!(lab.status(id).fault.unwrap().since, since, "the same fault is not a new one");

    // The host has less room than that.
    let thick = lab.volume(1, true, None).await;
    let mut huge = lab.wish(thick);
    huge.size_gib = 60_000;
    lab.put(&huge).await;
    lab.volumes.run(thick).await.unwrap_err();
    let fault = lab.status(thick).fault.unwrap();
    assert_eq!(fault.code, Code::NoCapacity);
    assert!(fault.hint.contains("thin"), "{fault:?}");
    let left = names(&node::volume::files::disks_dir(lab.dir.path()));
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_lost_disk_is_never_replaced_by_an_empty_one() {
    let lab = Lab::new().await;
    let id = lab.volume(1, false, None).await;
    lab.volumes.run(id).await.unwrap();
    let file = path(&lab, id);
    let aside = lab.dir.path().join("aside");
    std::fs::rename(&file, &aside).unwrap();
    lab.volumes.run(id).await.unwrap_err();
    let fault = lab.status(id).fault.unwrap();
    assert!(fault.message.contains("gone") && fault.hint.contains("put the file back"), "{fault:?}");
    assert!(!file.exists());
    std::fs::rename(&aside, &file).unwrap();
    lab.volumes.run(id).await.unwrap();
    assert_eq!(lab.status(id).fault, None);
}

#[tokio::test]
async fn a_pods_volume_is_a_directory_whose_space_is_counted() {
    let lab = Lab::new().await;
    lab.control.create_image(&lab.caller, control::image::NewImage::from_registry("busybox")).await.unwrap();
    let id = lab.volume(1, false, None).await;
    lab.attach(id, Kind::Container, true).await;
    lab.volumes.run(id).await.unwrap();
    let dir = path(&lab, id);
    let facts = |path: &Path| std::fs::metadata(path).map(|meta| (meta.uid(), meta.mode() & 0o777)).unwrap();
    assert_eq!(facts(&dir), (0, 0o755), "root's, as the container sees it");
    assert_eq!(facts(dir.parent().unwrap()), (0, 0o700), "and out of reach of the host's users");
    std::fs::write(dir.join("data"), vec![1; 3 * MIB]).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while lab.status(id).used_bytes < 3 * MIB as u64 {
        assert!(std::time::Instant::now() < deadline, "it is counted");
        lab.volumes.run(id).await.unwrap();
    }
    // As deep as a container may make it.
    let mut deep = dir.join("d");
    for _ in 0..200 {
        deep.push("d");
    }
    std::fs::create_dir_all(deep).unwrap();
    let mut tx = store::Tx::new();
    tx.remove::<model::volume::Volume>(&id.to_string());
    lab.store.commit(tx).await.unwrap();
    lab.volumes.run(id).await.unwrap();
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_record_that_cannot_be_read_deletes_no_data() {
    use store::engine::{Op, Txn};
    let lab = Lab::new().await;
    let image = lab.image("kept", ImageKind::Disk, &vec![0; MIB]).await.unwrap();
    let id = lab.volume(1, false, None).await;
    lab.volumes.run(id).await.unwrap();
    let file = path(&lab, id);
    for key in [
        store::record_key("volume", &id.to_string()),
        store::record_key("image", &image.meta.id.to_string()),
        store::record_key("image_status", &image.meta.id.to_string()),
    ] {
        let engine = lab.store.engine();
        engine.commit(Txn::new().then(Op::put(key, "{of a later version"))).await.unwrap();
        lab.store.wait_for(engine.head().await.unwrap()).await.unwrap();
    }
    assert_eq!(lab.store.mirror().corrupt().len(), 3);
    lab.volumes.run(id).await.unwrap();
    assert!(file.exists());
    lab.images.run(image.meta.id).await.unwrap();
    assert_eq!(lab.images.keys(), [image.meta.id]);
    lab.images.collect(std::time::Duration::ZERO).await.unwrap_err();
}
