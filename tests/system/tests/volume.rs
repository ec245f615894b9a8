//! Disks as a whole, with real guests: snapshots under load, copies, going back, images of disks, and booting from them.

use api::{
    client::Verb,
    v1::types::{
        image::{Image, ImageState},
        instance::{AttachVolume, CreateInstance, Instance, RootRequest, VolumeRequest},
        list::WaitQuery,
        snapshot::{CreateSnapshot, Snapshot, SnapshotState},
        volume::{CreateVolume, RestoreVolume, SaveVolume, Volume, VolumeState},
    },
};
use lab::{Cloud, Lab, eventually};
use model::{
    error::Code,
    image::ImageKind,
    instance::{Kind, phase::Phase},
    plan::DiskFormat,
};
use std::{os::unix::fs::MetadataExt, time::Duration};

const LONG: Duration = Duration::from_secs(60);
/// More than the room that there is at first, in bytes.
const WRITTEN_BYTES: u64 = 80 << 20;

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

/// The disk under a VM's disks is full: the VM stands still, and goes on without loss when there is room; nobody else is
/// held up.
fn stands_still(lab: &Lab, shop: &Cloud) {
    let place = lab.state().join("volumes/disks");
    let resize = |mib: u64| {
        let flags = nix::mount::MsFlags::MS_REMOUNT;
        let size = format!("size={}", mib << 20);
        nix::mount::mount(None::<&str>, &place, None::<&str>, flags, Some(size.as_str()))
            .expect("another size");
    };
    let used_mib = || {
        let stat = nix::sys::statvfs::statvfs(&place).expect("looks");
        ((stat.blocks() - stat.blocks_available()) * stat.fragment_size()) >> 20
    };
    shop.create::<Volume>(&CreateVolume {
        name: "data".into(),
        size_gib: Some(1),
        ..CreateVolume::default()
    });
    let device = attach(shop, "data");
    let boot = shop.ssh("vm", "cat /proc/sys/kernel/random/boot_id").text();
    resize(used_mib() + 40);
    let write = format!("yes holm-was-here | head -c {WRITTEN_BYTES} >{device}; sync; echo $? >/tmp/wrote");
    shop.ssh("vm", &format!("(({write}) >/dev/null 2>&1 &)")).text();
    let still = shop.wait_phase("vm", Phase::Paused);
    let fault =
        lab::until(LONG, || shop.instance("vm").fault).unwrap_or_else(|| panic!("no fault: {still:#?}"));
    assert_eq!(fault.code, Code::NoCapacity);
    assert!(fault.message.contains(&place.display().to_string()), "{fault:?}");
    assert!(fault.hint.contains("free space") && fault.hint.contains("holm resume vm"), "{fault:?}");
    let page = lab.holm("shop", &["info", "vm"]).output().expect("holm");
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains("paused") && page.contains("no room at"), "{page}");

    // Others go on: a container and its volume, and a disk for which there is no room is refused with numbers.
    let attach =
        VolumeRequest { size_gib: Some(1), mount_path: Some("/data".into()), ..VolumeRequest::default() };
    shop.launch(&CreateInstance { volumes: vec![attach], ..shop.idle_container("box") });
    shop.exec("box", "head -c 8388608 /dev/zero >/data/mine && sync").text();
    let thick =
        CreateVolume { name: "thick".into(), size_gib: Some(1), thick: true, ..CreateVolume::default() };
    let refused = shop.create::<Volume>(&thick);
    let told = refused.fault.as_ref().unwrap_or_else(|| panic!("{refused:#?}"));
    assert!(told.code == Code::NoCapacity && told.message.contains("1073741824"), "{told:?}");
    shop.delete::<Volume>("thick");
    // To ask for it does not help, and harms nothing.
    shop.ask(shop.client.act("vm", Verb::Resume, &WaitQuery::default())).expect("tried at once");
    shop.wait_phase("vm", Phase::Paused);
    assert_eq!(shop.instance("vm").started_at, still.started_at);

    resize(used_mib() + 600);
    let runs = shop.wait_phase("vm", Phase::Running);
    assert_eq!(runs.started_at, still.started_at, "{runs:#?}");
    eventually("nothing is wrong any more", LONG, || shop.instance("vm").fault.is_none());
    eventually("all is written", LONG, || shop.ssh("vm", "cat /tmp/wrote").stdout.trim() == "0");
    assert_eq!(
        shop.ssh("vm", "cat /proc/sys/kernel/random/boot_id").text(),
        boot,
        "it was not started again"
    );
    let compare = format!(
        "echo 3 >/proc/sys/vm/drop_caches; yes holm-was-here | head -c {WRITTEN_BYTES} | cmp -n {WRITTEN_BYTES} - {device}"
    );
    shop.ssh("vm", &compare).text();
    detach(shop, "data");
    shop.delete::<Volume>("data");
    shop.delete::<Instance>("box");
}

#[test]
fn guest_disks_have_snapshots_and_copies() {
    let lab = Lab::with(lab::Options { registry: true, ..lab::Options::default() });
    // Disks lie on a file system of their own, which is small for a while.
    let place = lab.state().join("volumes/disks");
    sys::mount::tmpfs(&place, 1 << 30, 0o700).expect("a file system");
    let shop = shop(&lab);
    stands_still(&lab, &shop);
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
    eventually("no disk is left", LONG, || std::fs::read_dir(&place).expect("lists").next().is_none());
    sys::mount::unmount(&place).expect("unmounts");
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

/// What a guest gives back, its host has again; and what containers left is a disk to a VM, byte for byte.
#[test]
fn guest_disks_give_back_what_is_trimmed_and_take_over_files() {
    let lab = Lab::with(lab::Options { registry: true, ..lab::Options::default() });
    let shop = lab.project("shop");
    shop.add_micro(&lab.images);
    trims(&lab, &shop);
    takes_over(&shop);
    shop.empty();
    lab.finish();
}

fn trims(lab: &Lab, shop: &Cloud) {
    shop.launch(&shop.micro("vm"));
    shop.wait_ssh("vm");
    let place = lab.state().join("volumes/disks");
    for (name, thick) in [("thin", false), ("thick", true)] {
        let asked = CreateVolume { name: name.into(), size_gib: Some(1), thick, ..CreateVolume::default() };
        shop.create::<Volume>(&asked);
        let device = attach(shop, name);
        let id = shop.get::<Volume>(name).head.id.to_string();
        let files = || std::fs::read_dir(&place).expect("lists").map(|entry| entry.expect("lists").path());
        let file = files().find(|path| path.to_string_lossy().contains(&id)).expect("its file");
        let taken_mib = || std::fs::metadata(&file).expect("looks").blocks() * 512 / (1 << 20);
        // By blocks: 48 of 64 MiB.
        shop.ssh("vm", &format!("head -c 67108864 /dev/urandom >{device}; sync")).text();
        let (full, kept) = (taken_mib(), sum(shop, &device));
        assert!(full >= 64, "{name}: {full} MiB");
        shop.ssh("vm", &format!("blkdiscard -o 16777216 -l 50331648 {device}")).text();
        let left = taken_mib();
        assert!(left + 47 <= full, "{name}: {full} MiB before, {left} after");
        assert_eq!(sum(shop, &device), kept, "{name}: what was not discarded is as it was");
        // By a file system that tells of what was deleted on it.
        let make = format!(
            "mke2fs {device} >/dev/null 2>&1 && mkdir -p /tmp/{name} && mount -t ext4 {device} /tmp/{name}"
        );
        shop.ssh("vm", &make).text();
        shop.ssh("vm", &format!("head -c 50331648 /dev/urandom >/tmp/{name}/large; sync")).text();
        let full = taken_mib();
        shop.ssh("vm", &format!("rm /tmp/{name}/large; sync; fstrim /tmp/{name}")).text();
        let left = taken_mib();
        assert!(left + 40 <= full, "{name}: {full} MiB before, {left} after");
        shop.ssh("vm", &format!("umount /tmp/{name}")).text();
        detach(shop, name);
        shop.delete::<Volume>(name);
    }
}

fn takes_over(shop: &Cloud) {
    let asked = VolumeRequest {
        size_gib: Some(1),
        mount_path: Some("/data".into()),
        keep: true,
        ..VolumeRequest::default()
    };
    shop.launch(&CreateInstance { volumes: vec![asked], ..shop.idle_container("box") });
    let fill = "mkdir /data/deep; head -c 20000000 /dev/urandom >/data/deep/file; ln -s deep/file /data/link; \
                chown 1234 /data/deep/file; sync";
    shop.exec("box", fill).text();
    let print = |root: &str| format!("cd {root} && sha256sum link && ls -ln deep | tail -n 1");
    let before = shop.exec("box", &print("/data")).text();
    let volume = shop.instance("box").volumes[0].id.to_string();
    shop.delete::<Instance>("box");
    assert_eq!(shop.get::<Volume>(&volume).state, VolumeState::Available, "it outlives the container");
    let device = attach(shop, &volume);
    shop.ssh("vm", &format!("mkdir -p /tmp/data && mount -t ext4 {device} /tmp/data")).text();
    assert_eq!(shop.ssh("vm", &print("/tmp/data")).text(), before);
    shop.ssh("vm", "echo more >/tmp/data/more; umount /tmp/data").text();
    detach(shop, &volume);
    // What a guest wrote no kernel of a host reads.
    let asked = VolumeRequest {
        volume: Some(volume.clone()),
        mount_path: Some("/data".into()),
        ..VolumeRequest::default()
    };
    let again = CreateInstance { volumes: vec![asked], ..shop.idle_container("again") };
    let refused =
        shop.ask(shop.client.create::<Instance>(&again, &WaitQuery::default())).expect_err("refused");
    assert_eq!(refused.code(), Code::Unsupported, "{refused:?}");
    shop.delete::<Instance>("vm");
    shop.delete::<Volume>(&volume);
}
