//! A whole machine of a user: Debian with systemd and cgroup v2 alone, on which holm is installed as the documents say,
//! restarted, killed, rebooted and taken off again. It is itself a guest of holm.

use api::v1::types::{
    image::{Image, UpdateImage},
    instance::{CreateInstance, NetworkRequest, VolumeRequest},
    network::{CreateNetwork, Network},
    subnet::{CreateSubnet, Subnet},
    volume::{CreateVolume, Volume},
};
use lab::{Cloud, Lab, Options, Ran, eventually, http_get, v4_of};
use model::image::ImageKind;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The machine is emulated, and boots twice.
const BOOT: Duration = Duration::from_secs(400);
const LONG: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_secs(2);
const MACHINE: &str = "machine";
/// What the container does: it notes each of its beginnings and ends on a page that it serves.
const DIARY: &str = "mkdir -p /www; trap 'echo asked to end >>/www/index.html; exit 0' TERM; \
    echo begun >>/www/index.html; httpd -p 80 -h /www; while :; do sleep 1 & wait $!; done";
/// Warnings that are true of the machine.
const WARNINGS: [&str; 5] = ["QEMU", "qemu-img", "KVM", "clock", "disk"];

#[test]
fn debian_machine_takes_holm_and_gives_all_of_it_back() {
    let lab = Lab::with(Options::default());
    let shop = lab.project("shop");
    start_machine(&lab, &shop);
    // What the kernel's modules bring along is not holm's.
    root(&shop, "modprobe -a nf_tables nf_conntrack nf_nat; bash /parts/machine-state >/before").text();
    installed(&shop);
    doctor_finds_nothing_bad(&shop);
    container_is_limited(&shop);
    system_boots(&shop);
    let site = published(&shop);
    let page = || http_get(&shop.namespace_of("lan"), site, SHORT).unwrap_or_default();
    eventually("the page, from another machine", LONG, || page() == "begun\n");
    let before = made(&shop);

    root(&shop, "systemctl restart holm").text();
    assert_eq!(made(&shop), before, "a restart of the daemon");
    root(&shop, "kill -9 $(systemctl show -p MainPID --value holm)").text();
    let restarts = || root(&shop, "systemctl show -p NRestarts --value holm; holm ls").stdout;
    eventually("systemd starts it again", LONG, || restarts().starts_with("1\nNAME"));
    assert_eq!(made(&shop), before, "a crash of the daemon");
    root(&shop, "systemctl daemon-reload").text();
    assert_eq!(made(&shop), before, "systemd has read its units again");
    assert_eq!(page(), "begun\n", "nobody has noticed");

    reboot(&shop);
    eventually("the page after the reboot", LONG, || page() == "begun\nasked to end\nbegun\n");
    let after = made(&shop);
    assert_eq!(after.0, before.0, "all is there again, and once");
    container_is_limited(&shop);
    taken_off(&shop);
    shop.empty();
    lab.finish();
}

/// Runs a script as the machine's root.
fn root(shop: &Cloud, script: &str) -> Ran {
    shop.ssh(MACHINE, &format!("sudo bash -eu <<'SCRIPT'\n{script}\nSCRIPT"))
}

fn start_machine(lab: &Lab, shop: &Cloud) {
    shop.add_key();
    shop.upload("debian-12", ImageKind::Disk, None, &lab.images.file("debian-12", "disk.qcow2"));
    let login = UpdateImage { login: Some(Some("debian".into())), ..UpdateImage::default() };
    shop.update::<Image>("debian-12", &login);
    shop.upload("parts", ImageKind::Disk, None, &parts(lab));
    let parts = CreateVolume { name: "parts".into(), image: Some("parts".into()), ..volume() };
    shop.create::<Volume>(&parts);
    // Its own networks may be the same as those inside: this one must not, as a LAN must not.
    shop.create::<Network>(&CreateNetwork { name: "lan".into(), ..CreateNetwork::default() });
    let request = serde_json::json!({"name": "lan", "network": "lan", "cidr": "192.168.50.0/24"});
    shop.create::<Subnet>(&serde_json::from_value::<CreateSubnet>(request).expect("a subnet"));
    let network = NetworkRequest { network: Some("lan".into()), ..NetworkRequest::default() };
    shop.launch(&CreateInstance {
        image: Some("debian-12".into()),
        vcpus: Some(2),
        memory_mib: Some(1024),
        disk_gib: Some(6),
        networks: Some(vec![network]),
        volumes: vec![VolumeRequest { volume: Some("parts".into()), ..VolumeRequest::default() }],
        ..shop.micro(MACHINE)
    });
    boots(shop);
}

fn volume() -> CreateVolume {
    serde_json::from_value(serde_json::json!({"name": ""})).expect("a volume")
}

fn boots(shop: &Cloud) {
    let came = lab::until(BOOT, || root(shop, "true").ok().then_some(()));
    assert!(came.is_some(), "no log in: {}", shop.console_log(MACHINE));
    // Until that has ended, files come and go that holm has nothing to do with.
    root(shop, "cloud-init status --wait >/dev/null || true; mkdir -p /parts; mount LABEL=parts /parts")
        .text();
}

/// A disk with what a user brings: the program, its unit, an image; and the script that compares.
fn parts(lab: &Lab) -> PathBuf {
    let directory = lab.directory().join("parts");
    fs::create_dir(&directory).expect("directory");
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (from, name) in [
        (lab.images.file("busybox", "image.tar"), "busybox.tar"),
        (lab.images.file("debian-system", "image.tar"), "system.tar"),
        (top.join("packaging/holm.service"), "holm.service"),
        (top.join("scripts/machine-state"), "machine-state"),
    ] {
        fs::copy(&from, directory.join(name)).expect("copy");
    }
    // With what only a debugger reads it is several times as large.
    does(Command::new("strip").arg("-o").arg(directory.join("holm")).arg(lab::program()));
    let disk = lab.directory().join("parts.raw");
    let mut make = Command::new("mke2fs");
    make.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").args(["-q", "-t", "ext4", "-L", "parts", "-d"]);
    does(make.arg(&directory).arg(&disk).arg("300M"));
    disk
}

fn does(command: &mut Command) {
    let output = command.output().expect("a program");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// As the documents say; the first command after it is answered at once.
fn installed(shop: &Cloud) {
    let script = "cd /parts
        install -m 755 holm /usr/local/bin/holm
        install -m 644 holm.service /etc/systemd/system/holm.service
        systemctl daemon-reload
        systemctl enable --now --quiet holm
        holm ls >/dev/null
        holm image import busybox --oci-layout busybox.tar >&2
        test $(stat -fc %T /sys/fs/cgroup) = cgroup2fs
        systemctl show -p Type,ActiveState holm";
    assert_eq!(root(shop, script).text(), "Type=notify\nActiveState=active");
}

fn doctor_finds_nothing_bad(shop: &Cloud) {
    let doctor = root(shop, "holm doctor");
    assert!(doctor.ok(), "{doctor:?}");
    let first = |line: &str| {
        let mut words = line.splitn(2, ' ');
        (words.next().unwrap_or_default().to_string(), words.next().unwrap_or_default().trim().to_string())
    };
    for (level, rest) in doctor.stdout.lines().map(first) {
        let is_true = level == "warn" && WARNINGS.iter().any(|check| rest.starts_with(check));
        assert!(level == "ok" || level.is_empty() || is_true, "{}", doctor.stdout);
    }
    for (check, found) in [("control groups", "version 2"), ("overlay", ""), ("daemon", "holm runs already")]
    {
        let says = |line: &str| line.starts_with("ok") && line.contains(check) && line.contains(found);
        assert!(doctor.stdout.lines().any(says), "{check}: {}", doctor.stdout);
    }
}

/// Runs it if it is not there. The kernel holds its limits, and keeps them.
fn container_is_limited(shop: &Cloud) {
    let script = format!(
        "holm info box >/dev/null 2>&1 || {{
            holm security-group rule add default tcp 80 >&2
            holm run -d --name box -m 64m --autostart -p 8080:80 busybox sh -c {} >&2
        }}
        group=$(echo /sys/fs/cgroup/holm/i-*)
        cat $group/memory.max $group/pids.max
        holm exec box -- cat /proc/1/oom_score_adj",
        quoted(DIARY)
    );
    assert_eq!(root(shop, &script).text(), "67108864\n4096\n0");
    let greedy = "holm exec box -- sh -c 'tail /dev/zero' >&2 || echo ended; \
        grep -h '^oom_kill ' $(find /sys/fs/cgroup/holm -name memory.events) | sort -u | tail -n 1";
    assert_eq!(root(shop, greedy).text(), "ended\noom_kill 1");
}

/// Its systemd has the part of the tree that the machine's own gave holm, sorts its services in it with its controllers, and
/// comes up again after a reboot. Nothing of it is left.
fn system_boots(shop: &Cloud) {
    let script = "cd /parts
        holm image import system --oci-layout system.tar >&2
        holm run --system --name system -m 256m system >&2
        up() {
            for _ in $(seq 120); do
                case $(holm exec system -- systemctl is-system-running 2>/dev/null) in
                    running) echo running; return ;;
                    degraded) holm exec system -- systemctl --failed --no-legend; return ;;
                esac
                sleep 1
            done
            holm logs system >&2
        }
        up
        holm exec system -- cat /sys/fs/cgroup/cgroup.subtree_control
        holm exec system -- sed -n 's/^0:://p' /proc/self/cgroup
        holm exec system -- systemd-run --quiet --wait -p MemoryMax=32M -p TasksMax=9 true
        holm exec system -- sh -c 'echo max >/sys/fs/cgroup/memory.max' 2>/dev/null || echo its limits stay
        cat /sys/fs/cgroup/holm/i-*/system/../memory.max
        holm exec system -- touch /run/mark
        holm exec system -- systemctl reboot >&2 || true
        for _ in $(seq 60); do holm exec system -- test ! -e /run/mark 2>/dev/null && break; sleep 1; done
        up
        holm delete -y system >&2
        holm image delete -y system >&2
        find /sys/fs/cgroup/holm -name system";
    let said = root(shop, script).text();
    let lines: Vec<&str> = said.lines().collect();
    // Which of them it hands on, beside these, is its own matter.
    let has = |line: &&&str| line.contains("memory") && line.contains("pids");
    assert!(lines.get(1).filter(has).is_some(), "{lines:?}");
    assert_eq!(
        (lines[0], &lines[2..]),
        ("running", &["/init.scope", "its limits stay", "268435456", "running"][..])
    );
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Where another machine finds the published port, and this one the floating IP.
fn published(shop: &Cloud) -> SocketAddr {
    let script = "holm floating-ip create --name front --to box >&2
        address=$(holm floating-ip ls -o json | grep -o '172[0-9.]*' | head -n 1)
        curl -sf -m 5 --retry 10 --retry-all-errors http://$address/";
    assert_eq!(root(shop, script).text(), "begun");
    SocketAddr::new(v4_of(&shop.instance(MACHINE)), 8080)
}

/// What holm has made in the machine, and then the process of its container.
fn made(shop: &Cloud) -> (String, String) {
    let script = "nft --stateless list table inet holm | sort
        ip -o link | grep -o ': holm[^@]*' | sort
        ip route | grep holm | sort
        ls /run/holm/netns
        find /sys/fs/cgroup/holm -mindepth 1 -type d | sort
        holm ls | grep -o '^box *running.*8080->80/tcp'
        holm floating-ip ls | grep -o '^172.*external'
        holm network ls -o name; holm volume ls -o name; holm image ls -o name
        pgrep -fc '^/usr/local/bin/holm shim'";
    (root(shop, script).text(), root(shop, "pgrep -f '^/usr/local/bin/holm shim'; pgrep -x httpd").text())
}

fn reboot(shop: &Cloud) {
    let boot = || root(shop, "cat /proc/sys/kernel/random/boot_id").stdout;
    let old = boot();
    root(shop, "systemctl reboot");
    shop.drop_ssh(&shop.instance(MACHINE));
    let came = lab::until(BOOT, || Some(boot()).filter(|new| !new.is_empty() && *new != old));
    assert!(came.is_some(), "it does not come back: {}", shop.console_log(MACHINE));
    boots(shop);
}

/// Nothing of the network is changed, and of the rest nothing with its name is left. What else comes and goes on a
/// machine that was rebooted is its own.
fn taken_off(shop: &Cloud) {
    let script = "systemctl disable --now --quiet holm
        holm uninstall -y --data >&2
        rm /etc/systemd/system/holm.service /usr/local/bin/holm
        systemctl daemon-reload
        bash /parts/machine-state >/after
        for state in /before /after; do
            sed '/^== mounts/,$d' $state >$state.network
            sed '1,/^== mounts/d' $state | grep holm >$state.rest || true
        done
        diff /before.network /after.network || true
        diff /before.rest /after.rest || true";
    assert_eq!(root(shop, script).text(), "", "what has changed on the machine");
}
