//! Virtual machines as a whole: what a guest sees of its hardware, how QEMU is confined, and how they end.

use api::{
    client::Verb,
    v1::types::{
        instance::{AttachPort, AttachVolume, CreateInstance, Instance},
        network::{CreateNetwork, Network},
        port::{Port, UpdatePort},
        security_group::{CreateSecurityGroup, SecurityGroup},
        stream::ConsoleQuery,
        subnet::{CreateSubnet, Subnet},
        volume::{CreateVolume, Volume},
    },
};
use base64::Engine as _;
use lab::{Capture, Cloud, INTERNET, Lab, eventually, v4_of};
use model::{
    error::Code,
    image::ImageKind,
    instance::{Kind, phase::Phase},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    process::Command,
    time::{Duration, Instant},
};

const LONG: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

fn pid_of(instance: &Instance) -> i32 {
    i32::try_from(instance.facts["pid"].as_i64().expect("a pid")).unwrap()
}

/// Bytes that the files below a directory really take.
fn real_bytes(directory: &std::path::Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => real_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn guest_hardware_and_plugs() {
    let lab = Lab::with(lab::Options::default());
    let shop = lab.project("shop");
    shop.add_micro(&lab.images);
    let before = real_bytes(lab.state());
    let script = "#!/bin/sh\necho ran as $(id -u) >/srv/proof\n";
    let vm = shop.launch(&CreateInstance {
        vcpus: Some(2),
        memory_mib: Some(192),
        disk_gib: Some(2),
        user_data: Some(base64::engine::general_purpose::STANDARD.encode(script)),
        config_drive: true,
        ..shop.micro("vm")
    });
    shop.wait_ssh("vm");
    eventually("user-data has run", LONG, || shop.ssh("vm", "cat /srv/proof").stdout.trim() == "ran as 0");
    assert_eq!(shop.ssh("vm", "nproc").text(), "2");
    let total_kib: u64 = shop.ssh("vm", "awk '/^MemTotal/ {print $2}' /proc/meminfo").text().parse().unwrap();
    assert!((140..=192).contains(&(total_kib / 1024)), "{total_kib} KiB");
    assert_ne!(
        shop.ssh("vm", "uname -r").text(),
        fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim()
    );
    assert_eq!(shop.ssh("vm", "hostname").text(), "vm");
    assert!(
        shop.ssh("vm", "cat /run/cloud/source").text().contains("config drive"),
        "the config drive was read"
    );
    let disk = &vm.volumes[0];
    let serial = &disk.serial[..disk.serial.len().min(20)];
    let seen =
        shop.ssh("vm", "for d in /sys/block/vd*; do echo $(cat $d/size) $(cat $d/serial); done").text();
    assert!(seen.contains(&format!("{} {serial}", 2 * 1024 * MIB / 512)), "{seen} has no {serial}");
    assert!(shop.ssh("vm", "cat /sys/class/net/eth0/address").text() == vm.ports[0].mac.to_string());
    let fresh = real_bytes(lab.state()) - before;
    assert!(fresh < 100 * MIB, "a fresh VM takes {fresh} bytes");

    no_way_to_the_host(&shop);
    held_back(&lab, &shop, &vm);
    plug(&shop);
    let vm = two_cards(&shop);
    stays_itself(&shop, &vm);
    confined(&lab, &shop);
    shop.empty();
    lab.finish();
}

/// The ways to a host that hypervisors can offer are not there; of the others there is one, the guest agent's.
fn no_way_to_the_host(shop: &Cloud) {
    let sockets = shop.ssh("vm", "ls /dev/vsock /dev/vhost* 2>/dev/null; grep -c qemu /proc/net/unix");
    assert_eq!(sockets.stdout.trim(), "0", "{sockets:?}");
    assert_eq!(shop.ssh("vm", "cat /sys/class/virtio-ports/*/name").text(), "org.qemu.guest_agent.0");
    // By their kinds (virtio specification, "Device Types"): card, disk, console, entropy and memory balloon; no socket (19),
    // and no file system of the host (9, 26).
    let devices = shop.ssh("vm", "cat /sys/bus/virtio/devices/*/device | sort -u").text();
    for device in devices.lines() {
        let kind = u32::from_str_radix(device.trim_start_matches("0x"), 16).unwrap();
        assert!([1, 2, 3, 4, 5].contains(&kind), "a virtio device of kind {kind}: {devices}");
    }
    let own = shop.ssh("vm", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").text();
    assert!(!own.contains("qemu") && !own.contains("holm serve"), "{own}");
}

/// What a group does not let out of a VM never comes to the outside, whatever root in it does.
fn held_back(lab: &Lab, shop: &Cloud, vm: &Instance) {
    let rules = serde_json::json!({"name": "narrow", "closed": true, "rules": [
        {"direction": "ingress", "family": "ipv4", "protocol": "tcp", "ports": "22"},
        {"direction": "egress", "family": "ipv4", "protocol": "tcp", "ports": "80"},
    ]});
    shop.create::<SecurityGroup>(&serde_json::from_value::<CreateSecurityGroup>(rules).unwrap());
    let set = |groups: &[&str]| {
        let groups = Some(groups.iter().map(ToString::to_string).collect());
        let change = UpdatePort { security_groups: groups, ..UpdatePort::default() };
        shop.update::<Port>(&vm.ports[0].id.to_string(), &change)
    };
    let fetch = || shop.ssh("vm", &format!("timeout 20 wget -q -O - http://{INTERNET}/"));
    let pings = || shop.ssh("vm", &format!("ping -c1 -W2 {INTERNET}")).ok();
    eventually("before, all goes out", LONG, || pings() && fetch().ok());
    let own: Vec<String> = vm.ports[0].security_groups.iter().map(|group| group.name.clone()).collect();
    set(&["narrow"]);
    eventually("no ping goes out", LONG, || !pings());
    let heard = Capture::begin(&lab.world.internet, "eth0", lab.directory().join("held.dump"));
    assert!(!pings() && !shop.ssh("vm", &format!("nc -w 2 {INTERNET} 22 </dev/null")).ok());
    fetch().text();
    let page = format!("> {INTERNET}.80:");
    eventually("what the group names is heard", LONG, || heard.text().contains(&page));
    let text = heard.text();
    assert!(!text.contains("echo request") && !text.contains(&format!("> {INTERNET}.22:")), "{text}");
    set(&own.iter().map(String::as_str).collect::<Vec<_>>());
    eventually("all goes out again", LONG, pings);
}

/// A disk and an interface come and go while the guest runs.
fn plug(shop: &Cloud) {
    let wait = api::v1::types::list::WaitQuery { wait: Some(60), phase: None };
    let asked = AttachVolume { size_gib: Some(1), ..AttachVolume::default() };
    let with = shop.must("attach a volume", shop.client.attach_volume("vm", &asked, &wait));
    let volume = with.volumes.last().unwrap().clone();
    let serial = volume.serial[..volume.serial.len().min(20)].to_string();
    let serials = || shop.ssh("vm", "cat /sys/block/vd*/serial").stdout;
    let asked_at = Instant::now();
    eventually("the disk comes", LONG, || serials().contains(&serial));
    eprintln!("the guest saw the disk {:?} after the call was answered", asked_at.elapsed());
    let device = shop.ssh("vm", &format!("grep -l {serial} /sys/block/vd*/serial | cut -d/ -f4")).text();
    shop.ssh("vm", &format!("echo kept >/dev/{device}; sync; head -c 5 /dev/{device}")).text();
    shop.must("detach it", shop.client.detach_volume("vm", &volume.id.to_string(), &wait));
    eventually("the disk goes", LONG, || !serials().contains(&serial));
    eventually("and is free", LONG, || {
        shop.list::<Volume>().iter().find(|v| v.head.id == volume.id).is_none_or(|v| v.attached_to.is_none())
    });

    let asked = AttachPort { network: Some("default".into()), ..AttachPort::default() };
    let with = shop.must("attach a port", shop.client.attach_port("vm", &asked, &wait));
    let port = with.ports.last().unwrap().clone();
    let seen = || shop.ssh("vm", "cat /sys/class/net/*/address; ip -4 address").stdout;
    let own = port.addresses.iter().find(|a| a.is_ipv4()).unwrap().to_string();
    eventually("the interface comes with its address", LONG, || {
        let text = seen();
        text.contains(&port.mac.to_string()) && text.contains(&own)
    });
    shop.must("detach it", shop.client.detach_port("vm", &port.id.to_string(), &wait));
    eventually("the interface goes", LONG, || !seen().contains(&port.mac.to_string()));
}

/// A second card, on another network.
fn two_cards(shop: &Cloud) -> Instance {
    shop.create::<Network>(&CreateNetwork { name: "back".into(), ..CreateNetwork::default() });
    let subnet = serde_json::json!({"name": "back", "network": "back", "cidr": "10.7.0.0/24"});
    shop.create::<Subnet>(&serde_json::from_value::<CreateSubnet>(subnet).unwrap());
    let asked = AttachPort { network: Some("back".into()), ..AttachPort::default() };
    let wait = api::v1::types::list::WaitQuery { wait: Some(60), phase: None };
    let vm = shop.must("attach a card", shop.client.attach_port("vm", &asked, &wait));
    assert_eq!(vm.ports.len(), 2, "{vm:#?}");
    has_its_cards(shop, &vm);
    vm
}

/// Each card has the MAC and the address that the cloud says.
fn has_its_cards(shop: &Cloud, vm: &Instance) {
    for port in &vm.ports {
        let (mac, own) = (port.mac.to_string(), port.addresses.iter().find(|a| a.is_ipv4()).unwrap());
        let script = format!(
            "for c in /sys/class/net/*; do grep -q {mac} $c/address && ip -4 address show dev ${{c##*/}}; done"
        );
        let told = || shop.ssh("vm", &script).stdout.contains(&format!("inet {own}/"));
        eventually(&format!("the card {mac} has {own}"), LONG, told);
    }
}

/// Freeze, reboot, stop and start: the same machine comes back, with its MAC and address.
fn stays_itself(shop: &Cloud, vm: &Instance) {
    let uptime = || shop.ssh("vm", "cut -d. -f1 /proc/uptime").text().parse::<u64>().unwrap();
    let before = uptime();
    assert_eq!(shop.act("vm", Verb::Pause).phase, Phase::Paused);
    assert_eq!(shop.act("vm", Verb::Resume).phase, Phase::Running);
    assert!(uptime() >= before, "it went on");
    let boot_id = || shop.ssh("vm", "cat /proc/sys/kernel/random/boot_id");
    let first = boot_id().text();
    shop.drop_ssh(vm);
    shop.act("vm", Verb::Reboot);
    shop.wait_ssh("vm");
    let second = boot_id().text();
    assert_ne!(first, second, "another boot");
    shop.drop_ssh(vm);
    let stopped = shop.act("vm", Verb::Stop);
    assert_eq!(stopped.phase, Phase::Stopped, "{stopped:#?}");
    assert!(shop.console_log("vm").contains("stopping"), "the guest was asked");
    let started = shop.act("vm", Verb::Start);
    let cards = |vm: &Instance| vm.ports.iter().map(|p| (p.mac, p.addresses.clone())).collect::<Vec<_>>();
    assert_eq!((cards(&started), v4_of(&started)), (cards(vm), v4_of(vm)));
    shop.wait_ssh("vm");
    has_its_cards(shop, vm);
    assert_ne!(boot_id().text(), second);
    assert_eq!(shop.ssh("vm", "cat /sys/class/net/eth0/address").text(), vm.ports[0].mac.to_string());
}

/// QEMU is nobody, without capabilities, behind a filter, in its own control group.
fn confined(lab: &Lab, shop: &Cloud) {
    let instance = shop.instance("vm");
    let pid = pid_of(&instance);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line =
            status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {status}"));
        line.split_whitespace().skip(1).map(str::to_string).collect::<Vec<_>>()
    };
    assert!(field("Uid:").iter().all(|uid| uid.parse::<u32>().unwrap() > 65535), "{:?}", field("Uid:"));
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field("Seccomp:"), ["2"]);
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    let group = instance.head.id.to_string();
    assert!(lab.remains().tree().processes(&group).unwrap().contains(&pid), "in its own control group");
    let limits: Vec<String> = lab
        .remains()
        .tree()
        .directories(&group)
        .unwrap()
        .iter()
        .flat_map(|directory| ["memory.max", "memory.limit_in_bytes"].map(|name| directory.join(name)))
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect();
    let limit: u64 = limits.first().expect("a limit of memory").trim().parse().expect("a number");
    assert!((192 * MIB..1024 * MIB).contains(&limit), "{limit}");
    escaped(lab, shop, pid);
}

/// Whoever broke out of QEMU would be its user, in its namespaces: no file of the cloud can be read, its own disk's and
/// another's included, no process looked into, no packet sent.
fn escaped(lab: &Lab, shop: &Cloud, pid: i32) {
    let uid = fs::metadata(format!("/proc/{pid}")).unwrap().uid().to_string();
    let other = shop.create::<Volume>(&CreateVolume {
        name: "other".into(),
        size_gib: Some(1),
        ..CreateVolume::default()
    });
    let volumes = lab.state().join("volumes/disks");
    let mut disks: Vec<_> = fs::read_dir(&volumes).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(
        disks.iter().any(|disk| disk.to_string_lossy().contains(&other.head.id.to_string())),
        "{disks:?}"
    );
    disks.extend([lab.state().join("holm.db"), "/proc/1/environ".into(), lab.run().join("holm.sock")]);
    let burglar = |script: &str, place: &str| {
        let output = Command::new("nsenter")
            .args(["--target", &pid.to_string(), "--mount", "--net", "--ipc"])
            .args([
                "setpriv",
                "--reuid",
                &uid,
                "--regid",
                &uid,
                "--clear-groups",
                "--no-new-privs",
                "--bounding-set=-all",
            ])
            .args(["sh", "-c", script, "sh", place])
            .output()
            .expect("nsenter");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned(), said)
    };
    let (works, who, said) = burglar("id -u", "");
    assert!(works && who.trim() == uid, "{who} {said}");
    for place in disks {
        let (read, _, said) = burglar("head -c1 \"$1\" || head -c1 \"$1\"/*", &place.to_string_lossy());
        assert!(!read, "{}: {said}", place.display());
    }
    let (_, links, _) = burglar("cat /proc/self/net/dev", "");
    assert_eq!(links.lines().count(), 3, "two lines of head and lo: {links}");
    shop.delete::<Volume>("other");
}

#[test]
fn guest_ends_are_told() {
    let lab = Lab::with(lab::Options::default());
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
    // A firmware boot from a disk, on which files stay.
    shop.ssh("vm", "echo kept >/root/kept; sync").text();
    let mut console = shop.console("vm");
    console.type_in("\r");
    console.expect("login:", LONG);
    console.type_in("root\r");
    console.expect("/root# ", LONG);
    console.type_in("echo $((6*7))-by-console\r");
    console.expect("42-by-console", LONG);
    drop(console);
    let refused = shop.ask(shop.client.console("vm", &ConsoleQuery { login: true }));
    assert_eq!(refused.expect_err("no agent runs in it").code(), Code::Unsupported);
    let killed = shop.instance("vm");
    shop.drop_ssh(&killed);
    kill(Pid::from_raw(pid_of(&killed)), Signal::SIGKILL).expect("kill QEMU");
    let ended = lab::until(LONG, || Some(shop.instance("vm")).filter(|i| i.phase != Phase::Running))
        .expect("it is seen");
    let exit = ended.exit.clone().unwrap_or_else(|| panic!("no cause: {ended:#?}"));
    assert!(exit.failed && exit.cause.to_lowercase().contains("kill"), "{exit:?}");
    let again = shop.act("vm", Verb::Start);
    assert_eq!(again.phase, Phase::Running, "{again:#?}");
    shop.wait_ssh("vm");
    assert_eq!(shop.ssh("vm", "cat /root/kept").text(), "kept");
    // A panic of the guest's kernel: told, and no more than that.
    shop.drop_ssh(&again);
    shop.ssh_to(
        &shop.namespace_of("default"),
        None,
        v4_of(&again),
        "(sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &",
        false,
    );
    shop.wait_console("vm", "Kernel panic");
    eventually("the panic shows", LONG, || {
        let seen = shop.instance("vm");
        format!("{:?} {:?} {:?}", seen.exit, seen.fault, seen.facts).to_lowercase().contains("panic")
    });
    assert!(shop.list::<Instance>().len() == 1, "the host is fine");
    shop.empty();
    lab.finish();
}
