//! Disks as a whole, with real guests: snapshots under load, copies, going back, images of disks, and booting from them.

use api::v1::types::{
    image::{Image, ImageState},
    instance::{AttachVolume, CreateInstance, Instance, RootRequest},
    list::WaitQuery,
    snapshot::{CreateSnapshot, Snapshot, SnapshotState},
    volume::{CreateVolume, RestoreVolume, SaveVolume, Volume, VolumeState},
};
use lab::{Cloud, Lab, eventually};
use model::{
    image::ImageKind,
    instance::{Kind, phase::Phase},
    plan::DiskFormat,
};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn wait() -> WaitQuery {
    WaitQuery { wait: Some(120), phase: None }
}

/// Plugs a volume in and returns the guest's device.
fn attach(shop: &Cloud, volume: &str) -> String {
    let asked = AttachVolume { volume: Some(volume.into()), ..AttachVolume::default() };
    shop.must("attach", shop.client.attach_volume("vm", &asked, &wait()));
    let serial = shop.get::<Volume>(volume).serial;
    let found = || shop.ssh("vm", &format!("grep -l {serial} /sys/block/vd*/serial | cut -d/ -f4")).stdout;
    eventually("the disk comes", LONG, || !found().trim().is_empty());
    format!("/dev/{}", found().trim())
}

fn detach(shop: &Cloud, volume: &str) {
    let id = shop.get::<Volume>(volume).head.id.to_string();
    shop.must("detach", shop.client.detach_volume("vm", &id, &wait()));
    eventually("and it is free", LONG, || shop.get::<Volume>(volume).state == VolumeState::Available);
}

fn snapshot(shop: &Cloud, volume: &str, name: &str) {
    let asked = CreateSnapshot { name: name.into(), volume: volume.into(), ..CreateSnapshot::default() };
    let taken = shop.create::<Snapshot>(&asked);
    assert_eq!(taken.state, SnapshotState::Available, "{taken:#?}");
}

/// Checksum of the first 8 MiB of a device, as the guest reads it.
fn sum(shop: &Cloud, device: &str) -> String {
    shop.ssh(
        "vm",
        &format!("echo 3 >/proc/sys/vm/drop_caches; head -c 8388608 {device} | sha256sum | cut -c1-64"),
    )
    .text()
}

/// A project with a running VM, whose root disk is made of an image.
fn shop(lab: &Lab) -> Cloud {
    let shop = lab.project("shop");
    shop.add_key();
    shop.upload("disk", ImageKind::Disk, None, &lab.images.micro("disk.qcow2"));
    shop.launch(&CreateInstance {
        kind: Some(Kind::Vm),
        image: Some("disk".into()),
        disk_gib: Some(1),
        ..shop.micro("vm")
    });
    shop.wait_ssh("vm");
    shop
}

#[test]
fn guest_disks_have_snapshots_and_copies() {
    let lab = Lab::with(lab::Options::default());
    let shop = shop(&lab);
    shop.create::<Volume>(&CreateVolume {
        name: "data".into(),
        size_gib: Some(1),
        ..CreateVolume::default()
    });
    let device = attach(&shop, "data");

    // A first content, known by its sum; then a snapshot while the guest writes elsewhere on the disk without a pause.
    shop.ssh("vm", &format!("head -c 8388608 /dev/urandom >{device}; sync")).text();
    let first = sum(&shop, &device);
    let load = format!("while :; do dd if=/dev/zero of={device} bs=1M seek=64 count=32 conv=fsync; done");
    shop.ssh("vm", &format!("({load}) >/dev/null 2>&1 & echo $! >/tmp/load")).text();
    snapshot(&shop, "data", "morning");
    shop.ssh("vm", &format!("head -c 8388608 /dev/urandom >{device}; sync")).text();
    let second = sum(&shop, &device);
    assert_ne!(first, second);
    // A copy of the disk in use, and one of the snapshot.
    let copy = |name: &str, snapshot: Option<&str>, of: Option<&str>| {
        let asked = CreateVolume {
            name: name.into(),
            snapshot: snapshot.map(Into::into),
            copy_of: of.map(Into::into),
            ..CreateVolume::default()
        };
        let made = shop.create::<Volume>(&asked);
        assert_eq!(made.state, VolumeState::Available, "{made:#?}");
    };
    copy("old", Some("morning"), None);
    copy("new", None, Some("data"));
    shop.ssh("vm", "kill $(cat /tmp/load)");
    for (name, wanted) in [("old", &first), ("new", &second)] {
        let other = attach(&shop, name);
        assert_eq!(&sum(&shop, &other), wanted, "{name}");
        detach(&shop, name);
    }
    assert_eq!(sum(&shop, &device), second);

    // Back to the morning, once the guest has let go; copies stay as they are when all they stand on is deleted.
    detach(&shop, "data");
    let back = RestoreVolume { snapshot: "morning".into() };
    shop.must("restore", shop.client.restore_volume("data", &back, &wait()));
    let device = attach(&shop, "data");
    assert_eq!(sum(&shop, &device), first);
    detach(&shop, "data");
    shop.delete::<Snapshot>("morning");
    shop.delete::<Volume>("data");
    let other = attach(&shop, "old");
    assert_eq!(sum(&shop, &other), first);
    detach(&shop, "old");
    shop.empty();
    assert_eq!(shop.used("snapshots"), 0);
    lab.finish();
}

/// The root disk of a running VM becomes an image; a VM boots from a volume made of that, which outlives it.
#[test]
fn guest_disks_become_images_to_boot_from() {
    let lab = Lab::with(lab::Options::default());
    let shop = shop(&lab);
    shop.ssh("vm", "echo saved >/root/mark; sync").text();
    let root = shop.instance("vm").volumes[0].id.to_string();
    let save = SaveVolume { name: "saved".into(), format: Some(DiskFormat::Qcow2), ..SaveVolume::default() };
    let image: Image = shop.must("save", shop.client.save_volume(&root, &save, &wait()));
    assert_eq!(image.state, ImageState::Ready, "{image:#?}");
    let asked = CreateVolume { name: "boot".into(), image: Some("saved".into()), ..CreateVolume::default() };
    assert!(shop.create::<Volume>(&asked).bootable);
    shop.delete::<Instance>("vm");
    let second = CreateInstance {
        kind: Some(Kind::Vm),
        image: None,
        root: Some(RootRequest { volume: Some("boot".into()), ..RootRequest::default() }),
        ..shop.micro("second")
    };
    let made = shop.launch(&second);
    assert_eq!((made.phase, made.image), (Phase::Running, None));
    shop.wait_ssh("second");
    assert_eq!(shop.ssh("second", "cat /root/mark").text(), "saved");
    shop.delete::<Instance>("second");
    assert_eq!(shop.get::<Volume>("boot").state, VolumeState::Available, "it is kept");
    shop.empty();
    lab.finish();
}
