//! Virtual machines beside a bare QEMU with the same kernel, initramfs and machine.

use crate::table::{Budget, Table, median, millis, soon};
use api::v1::types::{instance::Instance, node::Node};
use lab::{Cloud, Lab};
use model::instance::phase::Phase;
use std::{
    fs,
    io::Read as _,
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const ROUNDS: usize = 7;
/// What the micro guest says when its init has begun.
const MARK: &str = "login:";

/// From the request to a running QEMU, and to the guest's login; beside QEMU started by hand.
pub fn boots(table: &mut Table, lab: &Lab, shop: &Cloud) {
    let accelerator = shop.list::<Node>()[0].status.as_ref().expect("the node's status").accelerator.clone();
    let (mut starts, mut ours, mut bare_starts, mut bare) = (vec![], vec![], vec![], vec![]);
    for round in 0..=ROUNDS {
        let name = format!("vm-{round}");
        let began = Instant::now();
        let vm = shop.launch(&shop.micro(&name));
        assert_eq!(vm.phase, Phase::Running);
        let start = began.elapsed();
        soon("the guest's login", || shop.console_log(&name).contains(MARK).then_some(()));
        let boot = began.elapsed();
        shop.delete::<Instance>(&name);
        let (bare_start, bare_boot) = bare_qemu(lab, &accelerator);
        if round > 0 {
            starts.push(start);
            ours.push(boot);
            bare_starts.push(bare_start);
            bare.push(bare_boot);
        }
    }
    let (start, bare_start) = (median(&mut starts), median(&mut bare_starts));
    let own = start.saturating_sub(bare_start);
    table.ratio(
        "create a VM from a cached image until QEMU runs, beside bare QEMU until its monitor answers",
        &millis(start),
        &millis(bare_start),
        start.as_secs_f64() / bare_start.as_secs_f64(),
        Budget::None,
    );
    table.value("of that, holm's own work", own.as_secs_f64() * 1e3, " ms", Budget::AtMost(150.0));
    let (a, b) = (median(&mut ours), median(&mut bare));
    let ratio = a.saturating_sub(start).as_secs_f64() / b.saturating_sub(bare_start).as_secs_f64();
    table.ratio(
        "from a running QEMU to the guest's login",
        &millis(a - start),
        &millis(b - bare_start),
        ratio,
        Budget::AtMost(1.05),
    );
}

struct Bare(Child);

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Time to the monitor's first word, and to the guest's login.
fn bare_qemu(lab: &Lab, accelerator: &str) -> (Duration, Duration) {
    let path = |name: &str| lab.images.micro(name).to_string_lossy().into_owned();
    let console = lab.directory().join("bare.log");
    let monitor = lab.directory().join("bare.qmp");
    let _ = fs::remove_file(&console);
    let _ = fs::remove_file(&monitor);
    let disk = lab.directory().join("bare.disk");
    fs::File::create(&disk).and_then(|file| file.set_len(1 << 30)).expect("a disk");
    let cmdline = fs::read_to_string(lab.images.micro("cmdline")).expect("cmdline");
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-machine",
        "q35",
        "-cpu",
        "max",
        "-m",
        "128",
        "-smp",
        "1",
        "-nodefaults",
        "-display",
        "none",
    ])
    .args(["-accel", accelerator])
    .args(["-kernel", &path("kernel"), "-initrd", &path("initrd"), "-append", cmdline.trim()])
    .args(["-serial", &format!("file:{}", console.display())])
    .args(["-qmp", &format!("unix:{},server=on,wait=off", monitor.display())])
    .args(["-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"])
    // A disk and a card, as ours has: a guest looks for both. QEMU itself answers to DHCP.
    .args(["-drive", &format!("if=none,id=disk,format=raw,file={}", disk.display())])
    .args(["-device", "virtio-blk-pci,drive=disk"])
    .args(["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net"])
    .stdin(Stdio::null());
    let began = Instant::now();
    let _qemu = Bare(qemu.spawn().expect("QEMU"));
    soon("a monitor that answers", || {
        let mut stream = UnixStream::connect(&monitor).ok()?;
        stream.read_exact(&mut [0]).ok()
    });
    let start = began.elapsed();
    soon("the guest's login", || {
        let log = fs::read(&console).ok()?;
        String::from_utf8_lossy(&log).contains(MARK).then_some(())
    });
    (start, began.elapsed())
}
