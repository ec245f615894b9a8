//! Ordinary cloud guests of two releases of Debian with cloud-init, one told by the metadata service and one by its config
//! drive, beside a guest of another distribution.

use api::v1::types::{
    image::{Image, UpdateImage},
    instance::{AttachPort, AttachVolume, CreateInstance, Instance, NetworkRequest},
    list::WaitQuery,
    network::{CreateNetwork, Network},
    subnet::{CreateSubnet, Subnet},
};
use base64::Engine as _;
use lab::{Cloud, Lab, Options, eventually, v6_of};
use model::image::ImageKind;
use std::{fs, net::IpAddr, process::Command, time::Duration};

/// A Debian guest boots in 40 s where it is emulated and alone. Here are two, and whatever else the machine has to do.
const BOOT: Duration = Duration::from_secs(600);
/// cloud-init takes its time for a card that was plugged in.
const CONFIGURED: Duration = Duration::from_secs(300);
const LONG: Duration = Duration::from_secs(120);
const USER_DATA: &str = "#cloud-config
write_files:
  - path: /srv/proof
    content: written by cloud-init
runcmd:
  - [sh, -c, 'id -u >/srv/ran']
";

#[test]
fn debian_guest_is_what_was_asked_for() {
    let lab = Lab::with(Options::default());
    let shop = lab.project("shop");
    shop.add_micro(&lab.images);
    for image in ["debian-12", "debian-13"] {
        shop.upload(image, ImageKind::Disk, None, &lab.images.file(image, "disk.qcow2"));
        let login = UpdateImage { login: Some(Some("debian".into())), ..UpdateImage::default() };
        shop.update::<Image>(image, &login);
    }
    add_back_network(&shop);
    let request = |name: &str, image: &str, config_drive| CreateInstance {
        image: Some(image.into()),
        memory_mib: Some(512),
        disk_gib: Some(4),
        user_data: Some(base64::engine::general_purpose::STANDARD.encode(USER_DATA)),
        config_drive,
        ..shop.micro(name)
    };
    shop.launch(&request("asked", "debian-12", false));
    shop.launch(&request("handed", "debian-13", true));
    let guests = [
        ("asked", "DataSourceOpenStack", "Debian GNU/Linux 12"),
        ("handed", "DataSourceConfigDrive", "Debian GNU/Linux 13"),
    ];
    for (name, source, system) in guests {
        came_up(&lab, &shop, name);
        told_by(&shop, name, source, system);
    }
    beside_another(&shop);
    let_in_at_the_console(&shop);
    not_by_password(&shop);
    for (name, _, system) in guests {
        eventually("the guest's own name for its system", LONG, || {
            let page = lab.holm("shop", &["info", name]).output().expect("holm").stdout;
            let page = String::from_utf8_lossy(&page).into_owned();
            page.lines().any(|line| line.starts_with("Guest OS") && line.contains(system))
        });
    }
    keys_changed(&lab, &shop);
    full_control(&shop);
    disk_plugged_in(&shop);
    card_plugged_in(&shop);
    let stopped = shop.act("handed", api::client::Verb::Stop);
    assert!(!stopped.exit.as_ref().is_some_and(|exit| exit.failed), "it powered off: {stopped:#?}");
    shop.empty();
    lab.finish();
}

fn add_back_network(shop: &Cloud) {
    shop.create::<Network>(&CreateNetwork { name: "back".into(), ..CreateNetwork::default() });
    let request = serde_json::json!({"name": "back", "network": "back", "cidr": "10.8.0.0/24"});
    shop.create::<Subnet>(&serde_json::from_value::<CreateSubnet>(request).expect("a subnet"));
    shop.add_group("pinged", &["icmp"]);
}

/// Waits for the log in, and for cloud-init's end.
fn came_up(lab: &Lab, shop: &Cloud, name: &str) {
    let ends = |said: &str, how: &str| said.lines().any(|line| line == format!("status: {how}"));
    let status = || shop.ssh(name, "cloud-init status --wait >/dev/null; cloud-init status --long").stdout;
    let came = lab::until(BOOT, || Some(status()).filter(|said| ends(said, "done") || ends(said, "error")));
    if let Some(failed) = came.as_ref().filter(|said| ends(said, "error")) {
        panic!("{name}: {failed}");
    }
    let console = shop.console_log(name);
    let end = console.get(console.len().saturating_sub(2000)..).unwrap_or(&console);
    assert!(came.is_some(), "{name} does not come up in {}: {end}", lab.directory().display());
}

/// Name, key (by which we are here), user-data and hardware are those that were asked for.
fn told_by(shop: &Cloud, name: &str, source: &str, system: &str) {
    let ran = |script: &str| shop.ssh(name, script).text();
    assert_eq!(ran("hostname"), name);
    assert_eq!(ran("cat /srv/proof"), "written by cloud-init");
    assert_eq!(ran("cat /srv/ran"), "0");
    let result = ran("cat /run/cloud-init/result.json");
    assert!(result.contains(source), "{name}: {result}");
    assert!(ran("cat /etc/os-release").contains(system));
    let own = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_ne!(ran("uname -r"), own.trim(), "a kernel of its own");
    assert_eq!(ran("nproc"), "1");
    let memory_kib: u64 = ran("awk '/^MemTotal/ {print $2}' /proc/meminfo").parse().unwrap();
    assert!(
        (430..=512).contains(&(memory_kib / 1024)),
        "512 MiB less what the kernel takes: {memory_kib} KiB"
    );
    let instance = shop.instance(name);
    let serial: String = instance.volumes[0].serial.chars().take(20).collect();
    let disks = ran("lsblk --nodeps --bytes --noheadings --output SERIAL,SIZE");
    let words: Vec<&str> = disks.split_whitespace().collect();
    assert!(words.windows(2).any(|pair| pair == [serial.as_str(), "4294967296"]), "{serial}: {disks}");
    let root: u64 = ran("df --output=size -BM / | tail -n1 | tr -dc 0-9").parse().unwrap();
    assert!(root > 3500, "the root file system grew with its disk: {root} MiB");
    let links = ran("ip -br link");
    let cards: Vec<&str> = links.lines().filter(|line| !line.starts_with("lo ")).collect();
    assert!(cards.len() == 1 && cards[0].contains(&instance.ports[0].mac.to_string()), "{links}");
    let address = v6_of(&instance).to_string();
    eventually("its IPv6 address and a way out", LONG, || {
        let seen = shop.ssh(name, "ip -6 address show -tentative; ip -6 route").stdout;
        seen.contains(&address) && seen.contains("default")
    });
    let other = if name == "asked" { "handed" } else { "asked" };
    assert!(shop.ssh(name, &format!("getent ahosts {other}")).ok(), "{name} resolves {other}");
}

/// A guest of another distribution on the same host, with a card in each of two networks: each has a system and a
/// process of its own, and both take a log in.
fn beside_another(shop: &Cloud) {
    let networks = ["default", "back"]
        .map(|network| NetworkRequest { network: Some(network.into()), ..NetworkRequest::default() });
    let groups = Some(vec!["default".into(), "pinged".into()]);
    shop.launch(&CreateInstance {
        networks: Some(networks.into()),
        security_groups: groups,
        ..shop.micro("small")
    });
    shop.wait_ssh("small");
    let system = |name: &str| shop.ssh(name, ". /etc/os-release; echo $ID $VERSION_CODENAME").text();
    let systems = ["asked", "handed", "small"].map(system);
    assert_eq!(systems.each_ref().map(String::as_str), ["debian bookworm", "debian trixie", "holm-micro"]);
    let kernels = ["asked", "handed"].map(|name| shop.ssh(name, "uname -r").text());
    assert_ne!(kernels[0], kernels[1]);
    let mut pids = ["asked", "handed", "small"].map(|name| shop.instance(name).facts["pid"].as_i64());
    pids.sort_unstable();
    assert!(pids.windows(2).all(|pair| pair[0] != pair[1]), "each has a QEMU of its own: {pids:?}");
    let listed = Command::new("ps").args(["-eo", "pid=,comm="]).output().expect("ps");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for pid in pids.into_iter().flatten() {
        let of = |line: &str| line.split_whitespace().next() == Some(&pid.to_string());
        assert!(listed.lines().any(|line| of(line) && line.contains("qemu")), "{pid} in {listed}");
    }
}

/// An owner with no other way in is root at the console as long as it is open, and nothing of that stays.
fn let_in_at_the_console(shop: &Cloud) {
    let mut console = shop.console_login("asked");
    console.expect("root@asked", LONG);
    console.type_in("echo $(id -u) at $(tty)\r");
    console.expect("0 at /dev/ttyS0", LONG);
    drop(console);
    eventually("who comes next is asked", LONG, || {
        let there = shop.ssh("asked", "ps -o args= -t ttyS0").stdout;
        there.contains("agetty") && !there.contains("autologin") && !there.contains("bash")
    });
    assert!(!shop.ssh("asked", "test -e /run/systemd/system/serial-getty@ttyS0.service.d").ok());
}

/// Nobody logs in by a password, and none is set.
fn not_by_password(shop: &Cloud) {
    let policy = shop.ssh("asked", "sudo sshd -T").text();
    assert!(policy.lines().any(|line| line == "passwordauthentication no"), "{policy}");
    let shadow = shop.ssh("asked", "sudo cut -d: -f2 /etc/shadow").text();
    assert!(shadow.lines().all(|hash| hash.starts_with(['!', '*'])), "a password is set");
}

/// A key that is given to the running guest opens it, and one that is revoked does no more.
fn keys_changed(lab: &Lab, shop: &Cloud) {
    let key = lab.directory().join("second");
    let path = key.to_string_lossy().into_owned();
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f", &path])
        .status()
        .expect("ssh-keygen");
    assert!(made.success());
    let holm = |arguments: &[&str]| {
        let output = lab.holm("shop", arguments).output().expect("holm");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let opens = || {
        let login = lab.holm("shop", &["ssh", "-i", &path, "asked", "--", "true"]).output().expect("holm");
        login.status.success()
    };
    holm(&["keypair", "import", "second", &format!("{path}.pub")]);
    assert!(!opens(), "nobody gave it the key");
    holm(&["set", "asked", "--key", "second"]);
    assert!(shop.instance("asked").keys_pending.is_none(), "its agent has told it");
    assert!(opens(), "the new key opens it");
    let said = holm(&["keypair", "revoke", "second"]);
    assert!(said.contains("asked lets the holder of second in no more"), "{said}");
    assert!(!opens(), "the key is revoked");
    assert!(shop.ssh("asked", "true").ok(), "the other key still opens it");
}

/// Whoever is root in the guest installs what they like, and the host has nothing of it.
fn full_control(shop: &Cloud) {
    let script = "set -e; mkdir -p /tmp/own/DEBIAN /tmp/own/usr/bin
        printf 'Package: own\\nVersion: 1\\nArchitecture: all\\nMaintainer: me\\nDescription: mine\\n' >/tmp/own/DEBIAN/control
        printf '#!/bin/sh\\necho installed\\n' >/tmp/own/usr/bin/holm-own && chmod 755 /tmp/own/usr/bin/holm-own
        dpkg-deb --build /tmp/own /tmp/own.deb >/dev/null && sudo apt-get -qq install /tmp/own.deb >/dev/null && holm-own";
    assert!(shop.ssh("asked", script).text().ends_with("installed"));
    assert!(!std::path::Path::new("/usr/bin/holm-own").exists(), "the host has it not");
}

/// A disk that is plugged in while it runs is there under its stable name, and works.
fn disk_plugged_in(shop: &Cloud) {
    let wait = WaitQuery { wait: Some(60), phase: None };
    let asked = AttachVolume { size_gib: Some(1), ..AttachVolume::default() };
    let with: Instance = shop.must("attach a volume", shop.client.attach_volume("asked", &asked, &wait));
    let serial: String = with.volumes.last().unwrap().serial.chars().take(20).collect();
    let by_id = format!("/dev/disk/by-id/virtio-{serial}");
    eventually("the disk by its stable name", LONG, || shop.ssh("asked", &format!("test -b {by_id}")).ok());
    shop.ssh(
        "asked",
        &format!("sudo mkfs.ext4 -q {by_id} && sudo mount {by_id} /mnt && sudo touch /mnt/mine"),
    )
    .text();
    shop.ssh("asked", "sudo umount /mnt").text();
}

/// A card that is plugged in while it runs gets its address by cloud-init, as on images that know of no others than those it
/// configures, and works in both directions.
fn card_plugged_in(shop: &Cloud) {
    shop.ssh("asked", "sudo rm /etc/netplan/90-default.yaml && sudo netplan apply").text();
    let asked = AttachPort {
        network: Some("back".into()),
        security_groups: Some(vec!["default".into(), "pinged".into()]),
        ..AttachPort::default()
    };
    let wait = WaitQuery { wait: Some(60), phase: None };
    let with: Instance = shop.must("attach a port", shop.client.attach_port("asked", &asked, &wait));
    let card = with.ports.last().unwrap().clone();
    let address = *card.addresses.iter().find(|a| a.is_ipv4()).unwrap();
    has_address(shop, "eth1", address);
    let small = shop.instance("small");
    assert_eq!(small.ports.len(), 2, "{small:#?}");
    let beyond = *small.ports[1].addresses.iter().find(|a| a.is_ipv4()).unwrap();
    // An address comes before its routes and neighbours are known everywhere.
    eventually("out by the new card", LONG, || shop.ssh("asked", &format!("ping -c1 -W5 {beyond}")).ok());
    eventually("in by the new card", LONG, || shop.ssh("small", &format!("ping -c1 -W5 {address}")).ok());
}

fn has_address(shop: &Cloud, card: &str, address: IpAddr) {
    let seen = || shop.ssh("asked", &format!("ip -4 address show dev {card}")).stdout;
    if lab::until(CONFIGURED, || seen().contains(&address.to_string()).then_some(())).is_none() {
        let log = shop.ssh("asked", "ip address; ip route; sudo tail -n 60 /var/log/cloud-init.log").stdout;
        panic!("{card} has no {address}: {log}");
    }
}
