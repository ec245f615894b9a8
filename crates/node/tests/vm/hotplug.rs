//! Disks and network cards in and out of a running guest, as the guest sees it.

use crate::lab::{Lab, Terminal};
use model::{
    id::{PortId, VolumeId},
    plan::{BackingFile, DiskFormat, DiskPlan, NicPlan},
};
use node::driver::{Driver, DriverError};
use std::{fs, process::Command};
use sys::netns::NetNs;

/// A qcow2 over a raw file, whose header names another file: the plan counts, not the header.
fn lying_disk(lab: &Lab) -> DiskPlan {
    let base = lab.disk("base");
    fs::write(&base.path, [b"from-the-base\n".as_slice(), &vec![0; 16 << 20]].concat()).unwrap();
    let mut disk = lab.disk("data");
    let lie = lab.disk("lie");
    let arguments = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b"];
    let made = Command::new("qemu-img").args(arguments).arg(&lie.path).arg(&disk.path).status().unwrap();
    assert!(made.success());
    disk.format = DiskFormat::Qcow2;
    disk.backing = vec![BackingFile { path: base.path, format: DiskFormat::Raw }];
    disk
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_plugged_into_a_running_guest_and_out_again() {
    let lab = Lab::new();
    let driver = lab.driver();
    let mut plan = lab.plan();
    let root = lab.disk("root");
    plan.disks = vec![root.clone()];
    driver.start(&plan).await.unwrap();
    let mut terminal = Terminal::open(&driver, plan.id).await;
    terminal.log_in().await;
    let disks = terminal.run("cat /sys/block/vda/serial").await;
    assert!(disks.contains(&root.serial), "the first disk is vda: {disks}");

    let disk = lying_disk(&lab);
    for _ in 0..2 {
        driver.attach_disk(plan.id, &disk).await.unwrap();
        assert!(driver.attached(plan.id).await.unwrap().1.contains(&disk.volume));
    }
    let came = terminal
        .run("while ! [ -e /dev/vdc ]; do usleep 100000; done; cat /sys/block/vdc/serial; head -n 1 /dev/vdc")
        .await;
    assert!(came.contains(&disk.serial) && came.contains("from-the-base"), "{came}");
    let before = driver.disk_traffic(plan.id).await.unwrap().expect("QEMU counts");
    terminal
        .run("echo written-inside > /dev/vdc; dd if=/dev/zero of=/dev/vdc bs=1M seek=1 count=1; sync")
        .await;
    let after = driver.disk_traffic(plan.id).await.unwrap().expect("QEMU counts");
    assert!(before.read_bytes > 0 && after.read_bytes >= before.read_bytes, "{before:?} {after:?}");
    assert!(after.written_bytes >= before.written_bytes + (1 << 20), "{before:?} {after:?}");

    // It grows under the guest, again and again; a smaller size changes nothing.
    for size_bytes in [1 << 30, 1 << 30, 1 << 20] {
        driver.grow_disk(plan.id, &disk, size_bytes).await.unwrap();
    }
    let grown = terminal
        .run("while [ $(cat /sys/block/vdc/size) != 2097152 ]; do usleep 100000; done; head -n 1 /dev/vdc")
        .await;
    assert!(grown.contains("written-inside"), "{grown}");
    let stranger = lab.disk("stranger");
    let error = driver.grow_disk(plan.id, &stranger, 1 << 30).await.unwrap_err();
    assert!(matches!(error, DriverError::Refused { .. }), "{error}");

    for _ in 0..2 {
        driver.detach_disk(plan.id, disk.volume).await.unwrap();
    }
    let left = terminal.run("while [ -e /dev/vdc ]; do usleep 100000; done; ls /dev/vd*").await;
    assert!(!left.contains("/dev/vdc\r"), "{left}");
    assert_eq!(driver.attached(plan.id).await.unwrap().1, [root.volume]);
    driver.detach_disk(plan.id, VolumeId::from_random([9; 16])).await.unwrap();

    // It comes back with what was written, also to a new driver; a disk of the start can go too.
    drop(driver);
    let driver = lab.driver();
    driver.attach_disk(plan.id, &disk).await.unwrap();
    let mut terminal = Terminal::open(&driver, plan.id).await;
    let again = terminal.run("while ! [ -e /dev/vdc ]; do usleep 100000; done; head -n 1 /dev/vdc").await;
    assert!(again.contains("written-inside"), "{again}");
    driver.detach_disk(plan.id, root.volume).await.unwrap();
    assert_eq!(driver.attached(plan.id).await.unwrap().1, [disk.volume]);

    // What cannot be opened leaves nothing behind.
    let mut broken = lab.disk("broken");
    broken.format = DiskFormat::Qcow2;
    let error = driver.attach_disk(plan.id, &broken).await.unwrap_err();
    assert!(matches!(error, DriverError::Refused { .. }), "{error}");
    broken.format = DiskFormat::Raw;
    driver.attach_disk(plan.id, &broken).await.unwrap();
    driver.destroy(plan.id).await.unwrap();
}

/// What a layer below holds of the first bytes of a disk, while QEMU has it open.
fn frozen_bytes(path: &std::path::Path, format: DiskFormat) -> String {
    let raw = path.with_extension("copy");
    let done = Command::new("qemu-img")
        .args(["convert", "-U", "-f", format.as_str(), "-O", "raw"])
        .args([path, raw.as_path()])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let bytes = fs::read(raw).unwrap();
    String::from_utf8_lossy(bytes.split(|byte| *byte == b'\n').next().unwrap()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_frozen_under_a_running_guest() {
    let lab = Lab::new();
    let driver = lab.driver();
    let mut plan = lab.plan();
    let disk = lab.disk("data");
    plan.disks = vec![disk.clone()];
    driver.start(&plan).await.unwrap();
    let mut terminal = Terminal::open(&driver, plan.id).await;
    terminal.log_in().await;
    // The guest writes all the time, beside what is looked at.
    let writer = "(n=0; while :; do n=$((n+1)); echo $n | dd of=/dev/vda seek=8 bs=512 conv=fsync 2>/dev/null; done) &";
    terminal.run(&format!("echo morning >/dev/vda; sync; {writer} writer=$!")).await;
    let layer = |number: u32| {
        let path = lab.directory.path().join(format!("data.{number}.qcow2"));
        let below = match number {
            1 => (disk.path.clone(), "raw"),
            _ => (lab.directory.path().join(format!("data.{}.qcow2", number - 1)), "qcow2"),
        };
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-u", "-F", below.1, "-b"])
            .args([below.0.as_path(), path.as_path()])
            .arg("16M")
            .status();
        assert!(made.unwrap().success());
        path
    };
    let above = [layer(1), layer(2)];
    driver.stack_disk(plan.id, &disk, &above[..1]).await.unwrap();
    terminal.run("echo noon >/dev/vda; sync").await;
    // Again, also by a new driver, is the same as once; the next comes on top of that.
    driver.stack_disk(plan.id, &disk, &above[..1]).await.unwrap();
    drop(terminal);
    drop(driver);
    let driver = lab.driver();
    driver.stack_disk(plan.id, &disk, &above).await.unwrap();
    let mut terminal = Terminal::open(&driver, plan.id).await;
    let seen = terminal.run("head -n 1 /dev/vda; echo evening >/dev/vda; sync; head -n 1 /dev/vda").await;
    assert!(seen.contains("noon") && seen.contains("evening"), "{seen}");
    assert_eq!(frozen_bytes(&disk.path, DiskFormat::Raw), "morning");
    assert_eq!(frozen_bytes(&above[0], DiskFormat::Qcow2), "noon");
    let first = fs::read(&disk.path).unwrap();
    terminal.run("kill $writer; wait $writer; sync").await;
    assert!(fs::read(&disk.path).unwrap() == first, "nothing is written below any more");

    // The top grows, goes with all its layers, and comes back as one disk.
    let stacked = DiskPlan {
        path: above[1].clone(),
        format: DiskFormat::Qcow2,
        backing: vec![
            BackingFile { path: above[0].clone(), format: DiskFormat::Qcow2 },
            BackingFile { path: disk.path.clone(), format: DiskFormat::Raw },
        ],
        ..disk.clone()
    };
    driver.grow_disk(plan.id, &stacked, 32 << 20).await.unwrap();
    // A layer that was made before that, and is smaller.
    let third = layer(3);
    driver.stack_disk(plan.id, &stacked, std::slice::from_ref(&third)).await.unwrap();
    let size = terminal.run("cat /sys/block/vda/size").await;
    assert!(size.contains("65536"), "{size}");
    driver.detach_disk(plan.id, disk.volume).await.unwrap();
    assert_eq!(driver.attached(plan.id).await.unwrap().1, []);
    let error = driver.stack_disk(plan.id, &stacked, std::slice::from_ref(&third)).await.unwrap_err();
    assert!(matches!(error, DriverError::Refused { .. }), "{error}");
    driver.attach_disk(plan.id, &stacked).await.unwrap();
    let again = terminal.run("while ! [ -e /dev/vda ]; do usleep 100000; done; head -n 1 /dev/vda").await;
    assert!(again.contains("evening"), "{again}");
    driver.destroy(plan.id).await.unwrap();
}

struct Namespace(std::path::PathBuf);

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = NetNs::delete(&self.0) {
            eprintln!("the namespace {} is left: {error}", self.0.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn card_at_the_start_and_card_plugged_in_later() {
    let lab = Lab::new();
    let namespace = Namespace(lab.directory.path().join("ns"));
    let handle = NetNs::create(&namespace.0).unwrap();
    let card = |number: u8| NicPlan {
        port: PortId::from_random(rand::random()),
        device: format!("tap{number}"),
        netns: namespace.0.clone(),
        mac: format!("fa:16:3e:00:00:0{number}").parse().unwrap(),
        mtu: 1400,
        addresses: vec![],
        ranges_v6: vec![],
        gateway_v4: None,
        gateway_v6: None,
        dns: vec![],
        search: vec![],
    };
    let (one, two) = (card(1), card(2));
    for nic in [&one, &two] {
        sys::tap::create(&handle, &nic.device, lab.uid, model::address::GATEWAY_MAC.0).unwrap();
    }
    let driver = lab.driver();
    let mut plan = lab.plan();
    plan.nics = vec![one.clone()];
    driver.start(&plan).await.unwrap();
    let mut terminal = Terminal::open(&driver, plan.id).await;
    terminal.log_in().await;
    let first = terminal.run("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu").await;
    assert!(first.contains("fa:16:3e:00:00:01") && first.contains("1400"), "{first}");

    for _ in 0..2 {
        driver.attach_nic(plan.id, &two).await.unwrap();
    }
    let second = terminal
        .run("while ! [ -e /sys/class/net/eth1 ]; do usleep 100000; done; cat /sys/class/net/eth1/address")
        .await;
    assert!(second.contains("fa:16:3e:00:00:02"), "{second}");
    assert_eq!(driver.attached(plan.id).await.unwrap().0.len(), 2);

    for _ in 0..2 {
        driver.detach_nic(plan.id, one.port).await.unwrap();
    }
    assert_eq!(driver.attached(plan.id).await.unwrap().0, [two.port]);
    let went =
        terminal.run("while [ -e /sys/class/net/eth0 ]; do usleep 100000; done; ls /sys/class/net").await;
    assert!(went.contains("eth1"), "{went}");
    // The tap is free again.
    driver.attach_nic(plan.id, &one).await.unwrap();
    driver.destroy(plan.id).await.unwrap();
}
