//! Disks frozen, copied, put back and saved as images: by the bytes that they hold.

use crate::lab::{Lab, names, qemu_img};
use control::{
    snapshot::NewSnapshot,
    volume::{NewImageOfVolume, NewVolume, SourceAsked},
};
use model::{
    error::Code,
    id::{SnapshotId, VolumeId},
    image::{ImageKind, ImageState},
    instance::{InstanceStatus, Kind},
    meta::Labels,
    plan::DiskFormat,
    snapshot::SnapshotState,
    volume::Volume,
};
use node::volume::files::disks_dir;
use std::{os::unix::fs::MetadataExt, path::Path, process::Command};

const MIB: usize = 1 << 20;
const GIB: u64 = 1 << 30;

/// Writes a pattern to a disk's first MiB.
fn write(lab: &Lab, id: VolumeId, byte: u8) {
    let status = lab.status(id);
    let command = format!("write -P {byte} 0 1M");
    let path = status.path.unwrap();
    let done = Command::new("qemu-io").args(["-f", status.format.as_str(), "-c", &command, &path]).output();
    let done = done.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// The first byte of a disk, which the whole first MiB must be.
fn read(path: &Path, format: DiskFormat) -> u8 {
    let scratch = tempfile::NamedTempFile::new().unwrap();
    let from = path.to_str().unwrap();
    qemu_img(&["convert", "-f", format.as_str(), "-O", "raw", from], scratch.path());
    let mut bytes = vec![0; MIB];
    std::io::Read::read_exact(&mut std::fs::File::open(scratch.path()).unwrap(), &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
    bytes[0]
}

fn content(lab: &Lab, id: VolumeId) -> u8 {
    let status = lab.status(id);
    read(Path::new(&status.path.unwrap()), status.format)
}

async fn snapshot(lab: &Lab, volume: VolumeId, name: &str) -> SnapshotId {
    let new = NewSnapshot { name: name.into(), volume: volume.to_string(), ..NewSnapshot::default() };
    lab.control.create_snapshot(&lab.caller, new).await.unwrap().meta.id
}

async fn copy(lab: &Lab, source: SourceAsked, thick: bool) -> VolumeId {
    let new = NewVolume { thick, source, ..NewVolume::default() };
    lab.control.create_volume(&lab.caller, new).await.unwrap().meta.id
}

fn state(lab: &Lab, id: SnapshotId) -> SnapshotState {
    lab.control.snapshot_state(&lab.control.get::<model::snapshot::Snapshot>(id).unwrap().record)
}

#[tokio::test]
async fn what_a_snapshot_holds_outlives_writes_and_its_volume() {
    for thick in [false, true] {
        let lab = Lab::new().await;
        let dir = disks_dir(lab.dir.path());
        let volume = lab.volume(1, thick, None).await;
        lab.volumes.run(volume).await.unwrap();
        write(&lab, volume, 1);
        let morning = snapshot(&lab, volume, "morning").await;
        assert_eq!(state(&lab, morning), SnapshotState::Creating);
        lab.volumes.run(volume).await.unwrap();
        assert_eq!(state(&lab, morning), SnapshotState::Available);
        write(&lab, volume, 2);
        if thick {
            let used = std::fs::metadata(lab.status(volume).path.unwrap()).unwrap().blocks() * 512;
            assert!(used >= GIB, "the new layer of a thick disk has its space: {used}");
        }
        assert_eq!(content(&lab, volume), 2);

        // A copy of the snapshot and one of the volume, neither of which takes any space.
        let old = copy(&lab, SourceAsked::Snapshot("morning".into()), false).await;
        let new = copy(&lab, SourceAsked::Volume(volume.to_string()), false).await;
        for id in [new, old] {
            lab.volumes.run(id).await.unwrap();
        }
        assert!(lab.store.get::<model::volume::VolumeStatus>(&new.to_string()).is_none(), "not frozen yet");
        lab.volumes.run(volume).await.unwrap();
        lab.volumes.run(new).await.unwrap();
        assert_eq!((content(&lab, old), content(&lab, new)), (1, 2));
        assert!(lab.status(old).used_bytes < MIB as u64);
        for id in [volume, old, new] {
            write(&lab, id, 3);
            assert_eq!(content(&lab, id), 3);
        }
        assert_eq!(lab.wish(new).ground().stretches.len(), 1);

        // Put back, and the snapshot gone.
        lab.control.restore_volume(&lab.caller, &volume.to_string(), "morning").await.unwrap();
        lab.volumes.run(volume).await.unwrap();
        assert_eq!(content(&lab, volume), 1);
        let refused = lab.control.delete_volume(&lab.caller, &volume.to_string()).await.unwrap_err();
        assert_eq!(refused.code, Code::InUse, "{refused}");
        lab.control.delete_snapshot(&lab.caller, "morning").await.unwrap();
        lab.control.delete_volume(&lab.caller, &volume.to_string()).await.unwrap();
        lab.volumes.run(volume).await.unwrap();
        assert_eq!(lab.volumes.leftovers(), [volume]);
        assert_eq!((content(&lab, old), content(&lab, new)), (3, 3), "copies stand on what is left");
        for id in [new, old] {
            lab.control.delete_volume(&lab.caller, &id.to_string()).await.unwrap();
            lab.volumes.run(id).await.unwrap();
            lab.volumes.run(volume).await.unwrap();
        }
        assert_eq!(names(&dir), Vec::<String>::new());
        let quota = lab.control.quota(lab.caller.project).1;
        assert_eq!(quota.of(model::quota::Resource::Snapshots), 0);
    }
}

#[tokio::test]
async fn a_thick_copy_is_whole_and_needs_nothing() {
    let lab = Lab::new().await;
    let volume = lab.volume(1, false, None).await;
    lab.volumes.run(volume).await.unwrap();
    write(&lab, volume, 7);
    let thick = copy(&lab, SourceAsked::Volume(volume.to_string()), true).await;
    lab.volumes.run(volume).await.unwrap();
    lab.volumes.run(thick).await.unwrap();
    assert_eq!((lab.status(thick).format, content(&lab, thick)), (DiskFormat::Raw, 7));
    assert!(lab.status(thick).used_bytes >= GIB);
    lab.control.delete_volume(&lab.caller, &volume.to_string()).await.unwrap();
    lab.volumes.run(volume).await.unwrap();
    assert_eq!(names(&disks_dir(lab.dir.path())), [format!("{thick}.raw")]);
    lab.volumes.run(thick).await.unwrap();
    assert_eq!((lab.status(thick).fault, content(&lab, thick)), (None, 7));
}

#[tokio::test]
async fn a_disk_that_a_guest_has_is_frozen_when_the_guest_has_moved_on() {
    let mut lab = Lab::new().await;
    lab.image("root", ImageKind::Disk, &vec![0; MIB]).await.unwrap();
    let volume = lab.volume(1, false, None).await;
    lab.volumes.run(volume).await.unwrap();
    write(&lab, volume, 1);
    let instance = lab.attach(volume, Kind::Vm, true).await;
    let taken = snapshot(&lab, volume, "s").await;
    for _ in 0..2 {
        lab.volumes.run(volume).await.unwrap();
        let status = lab.status(volume);
        assert_eq!((status.layer, status.layer_made), (0, 1), "made, and not used yet");
        assert_eq!(state(&lab, taken), SnapshotState::Creating);
        // The daemon dies in between.
        lab.restart();
    }
    let lower = lab.status(volume).path.unwrap();
    let key = instance.to_string();
    let mut status = lab.store.get::<InstanceStatus>(&key).unwrap().record.clone();
    status.layers.insert(volume, 1);
    lab.put(&status).await;
    lab.volumes.run(volume).await.unwrap();
    assert_eq!((lab.status(volume).layer, state(&lab, taken)), (1, SnapshotState::Available));
    assert_ne!(lab.status(volume).path.unwrap(), lower);
    assert_eq!(lab.status(volume).backing[0].path, Path::new(&lower));

    // A guest that ends before it was led to the next layer leaves the disk frozen as it was.
    snapshot(&lab, volume, "t").await;
    lab.volumes.run(volume).await.unwrap();
    assert_eq!(lab.status(volume).layer, 1);
    lab.hold(instance, volume, false).await;
    lab.volumes.run(volume).await.unwrap();
    assert_eq!(lab.status(volume).layer, 2);
    assert_eq!(content(&lab, volume), 1);
    // Putting it back waits for nobody now, but an instance that may run is in the way.
    let refused = lab.control.restore_volume(&lab.caller, &volume.to_string(), "s").await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict, "{refused}");
}

#[tokio::test]
async fn a_copy_on_an_image_grows_and_becomes_an_image() {
    let lab = Lab::new().await;
    let image = lab.image("root", ImageKind::Disk, &vec![9; MIB]).await.unwrap();
    let volume = lab.volume(1, false, Some(&image)).await;
    lab.volumes.run(volume).await.unwrap();
    assert_eq!(content(&lab, volume), 9);
    assert!(lab.wish(volume).bootable);
    let copied = copy(&lab, SourceAsked::Volume(volume.to_string()), false).await;
    lab.volumes.run(volume).await.unwrap();
    lab.volumes.run(copied).await.unwrap();
    lab.control.resize_volume(&lab.caller, &copied.to_string(), 2).await.unwrap();
    lab.volumes.run(copied).await.unwrap();
    assert_eq!((lab.status(copied).size_gib, content(&lab, copied)), (2, 9));
    lab.control.delete_volume(&lab.caller, &volume.to_string()).await.unwrap();
    lab.volumes.run(volume).await.unwrap();
    let in_use = lab.control.delete_image(&lab.caller, "root").await.unwrap_err();
    assert_eq!(in_use.code, Code::InUse, "{in_use}");

    for format in [DiskFormat::Qcow2, DiskFormat::Raw] {
        write(&lab, copied, 4);
        let new = NewImageOfVolume {
            name: format!("saved-{}", format.as_str()),
            description: String::new(),
            volume: copied.to_string(),
            snapshot: None,
            is_backup: false,
            format,
            public: false,
            protected: false,
            properties: Default::default(),
            labels: Labels::new(),
        };
        let saved = lab.control.image_of_volume(&lab.caller, new).await.unwrap();
        lab.images.run(saved.meta.id).await.unwrap();
        assert_eq!(lab.image_state(saved.meta.id), None, "it is not frozen yet");
        lab.volumes.run(copied).await.unwrap();
        write(&lab, copied, 5);
        lab.images.run(saved.meta.id).await.unwrap();
        let Some(ImageState::Ready(made)) = lab.image_state(saved.meta.id) else {
            panic!("{:?}", lab.image_state(saved.meta.id))
        };
        assert_eq!((made.format, made.virtual_bytes), (Some(format), 2 * GIB));
        let dir = lab.dir.path().join("images");
        let file = node::image::disk::image_path(&dir, saved.meta.id, made.format);
        assert_eq!(read(&file, format), 4, "what it held when the image was asked for");
    }
}

#[tokio::test]
async fn a_copy_tells_why_its_source_cannot_be_had() {
    let lab = Lab::new().await;
    let volume = lab.volume(1, true, None).await;
    let copied = copy(&lab, SourceAsked::Volume(volume.to_string()), false).await;
    let mut huge = lab.wish(volume);
    huge.size_gib = 60_000;
    lab.put(&huge).await;
    lab.volumes.run(volume).await.unwrap_err();
    lab.volumes.run(copied).await.unwrap_err();
    let fault = lab.status(copied).fault.unwrap();
    assert_eq!(fault.code, Code::NoCapacity);
    let refused = lab
        .control
        .create_snapshot(&lab.caller, NewSnapshot { volume: volume.to_string(), ..NewSnapshot::default() });
    assert_eq!(refused.await.unwrap_err().code, Code::Conflict);
    // Nothing is in the way of their going.
    for id in [volume, copied] {
        lab.control.delete_volume(&lab.caller, &id.to_string()).await.unwrap();
        lab.volumes.run(id).await.unwrap();
        assert!(lab.store.get::<Volume>(&id.to_string()).is_none());
    }
    assert_eq!(names(&disks_dir(lab.dir.path())), Vec::<String>::new());
}

#[tokio::test]
async fn a_thin_disk_that_becomes_thick_has_its_space_and_its_bytes() {
    use control::volume::TypeAsked;
    use model::volume::Provisioning;
    let lab = Lab::new().await;
    let volume = lab.volume(1, false, None).await;
    lab.volumes.run(volume).await.unwrap();
    write(&lab, volume, 5);
    assert!(lab.status(volume).used_bytes < GIB / 2);
    let id = volume.to_string();
    let thick = TypeAsked::BuiltIn(Provisioning::Thick);
    lab.control.retype_volume(&lab.caller, &id, thick).await.unwrap();
    lab.volumes.run(volume).await.unwrap();
    let used = std::fs::metadata(lab.status(volume).path.unwrap()).unwrap().blocks() * 512;
    assert!(used >= GIB, "all that can be written has a place: {used}");
    assert_eq!(content(&lab, volume), 5);
    write(&lab, volume, 6);
    assert_eq!(content(&lab, volume), 6);
    // What is written from the next layer on takes space as it comes.
    let thin = TypeAsked::BuiltIn(Provisioning::Thin);
    lab.control.retype_volume(&lab.caller, &id, thin).await.unwrap();
    snapshot(&lab, volume, "later").await;
    lab.volumes.run(volume).await.unwrap();
    let used = std::fs::metadata(lab.status(volume).path.unwrap()).unwrap().blocks() * 512;
    assert!(used < GIB / 2, "the new layer is thin: {used}");
    assert_eq!(content(&lab, volume), 6);
}

#[tokio::test]
async fn layers_that_restored_records_do_not_know_stay_and_are_told() {
    // Of the record that comes back: how often the disk was frozen by then.
    for known in [0, 1] {
        let mut lab = Lab::new().await;
        let dir = disks_dir(lab.dir.path());
        let volume = lab.volume(1, false, None).await;
        lab.volumes.run(volume).await.unwrap();
        write(&lab, volume, 1);
        for name in ["a", "b"].iter().take(known) {
            snapshot(&lab, volume, name).await;
            lab.volumes.run(volume).await.unwrap();
        }
        let (wish, status) = (lab.wish(volume), lab.status(volume));
        write(&lab, volume, 2);
        let later = snapshot(&lab, volume, "later").await;
        lab.volumes.run(volume).await.unwrap();
        write(&lab, volume, 3);
        let files = names(&dir);
        let newest = std::path::PathBuf::from(lab.status(volume).path.unwrap());

        let mut tx = store::Tx::new();
        tx.put(&wish).put(&status).remove::<model::snapshot::Snapshot>(&later.to_string());
        lab.store.commit(tx).await.unwrap();
        lab.restart();
        // Before anybody starts from it, and with every look at it.
        lab.volumes.tell_unknown().await.unwrap();
        for _ in 0..2 {
            let fault = lab.status(volume).fault.unwrap();
            let path = newest.display().to_string();
            assert_eq!(fault.code, Code::Conflict, "{fault:?}");
            assert!(
                fault.message.contains(&path) && fault.hint.contains(&format!("mv {path} ")),
                "{fault:?}"
            );
            lab.volumes.run(volume).await.unwrap_err();
        }
        let next = NewSnapshot { volume: volume.to_string(), ..NewSnapshot::default() };
        let refused = lab.control.create_snapshot(&lab.caller, next).await.unwrap_err();
        assert_eq!(refused.code, Code::Conflict, "{refused}");
        assert_eq!((names(&dir), read(&newest, DiskFormat::Qcow2)), (files, 3));
        // The way out.
        std::fs::rename(&newest, lab.dir.path().join("elsewhere")).unwrap();
        lab.volumes.run(volume).await.unwrap();
        assert_eq!((lab.status(volume).fault, content(&lab, volume)), (None, 2));
    }
}

#[tokio::test]
async fn what_a_disk_held_stays_until_it_can_be_put_back() {
    let lab = Lab::new().await;
    let dir = disks_dir(lab.dir.path());
    let volume = lab.volume(1, false, None).await;
    lab.volumes.run(volume).await.unwrap();
    write(&lab, volume, 1);
    // To an image that is not here at this moment.
    let image = lab.new_image("backup", ImageKind::Disk).await;
    let mut wish = lab.wish(volume);
    wish.put_back(model::volume::Ground { stretches: vec![], image: Some(image.meta.id) });
    lab.put(&wish).await;
    lab.volumes.run(volume).await.unwrap();
    assert_eq!((names(&dir), content(&lab, volume)), (vec![format!("{volume}.qcow2")], 1));
}

#[tokio::test]
async fn an_image_of_a_disk_is_tried_again_once_what_kept_it_from_being_made_may_have_passed() {
    use model::{error::Fault, image::ImageStatus};
    let lab = Lab::new().await;
    let volume = lab.volume(1, false, None).await;
    lab.volumes.run(volume).await.unwrap();
    write(&lab, volume, 6);
    let new = NewImageOfVolume {
        name: "saved".into(),
        description: String::new(),
        volume: volume.to_string(),
        snapshot: None,
        is_backup: false,
        format: DiskFormat::Qcow2,
        public: false,
        protected: false,
        properties: Default::default(),
        labels: Labels::new(),
    };
    let id = lab.control.image_of_volume(&lab.caller, new).await.unwrap().meta.id;
    let at = jiff::Timestamp::now() - std::time::Duration::from_secs(3600);
    let fault = Fault { code: Code::NoCapacity, message: "full".into(), hint: String::new(), since: at };
    let host = model::id::NodeId::from_random(crate::lab::NODE);
    lab.put(&ImageStatus { id, node: host, state: ImageState::Failed(fault), asked: 0, stale: None, at })
        .await;
    // What it reads stays for the next try, though the volume goes.
    lab.volumes.run(volume).await.unwrap();
    lab.control.delete_volume(&lab.caller, &volume.to_string()).await.unwrap();
    lab.volumes.run(volume).await.unwrap();
    lab.images.run(id).await.unwrap();
    assert!(matches!(lab.image_state(id), Some(ImageState::Ready(_))), "{:?}", lab.image_state(id));
    let dir = lab.dir.path().join("images");
    let file = node::image::disk::image_path(&dir, id, Some(DiskFormat::Qcow2));
    assert_eq!(read(&file, DiskFormat::Qcow2), 6);
}
