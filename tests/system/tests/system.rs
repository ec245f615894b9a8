//! System containers: an init and its services on the host's kernel, which boot, reboot and power off like a machine and are
//! kept in like a container.

use api::{
    client::Verb,
    v1::types::{
        image::Image,
        instance::{ContainerRequest, CreateInstance, Instance, VolumeRequest},
        list::WaitQuery,
    },
};
use lab::{Cloud, INTERNET, Lab, Options, eventually, v4_of};
use model::{
    error::Code,
    image::ImageKind,
    instance::{Kind, phase::Phase},
};
use sha2::Digest as _;
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use sys::netns::NetNs;

/// Until an init has booted.
pub(crate) const LONG: Duration = Duration::from_secs(60);

fn bring_in(lab: &Lab, shop: &Cloud, image: &str) {
    shop.upload(image, ImageKind::Oci, None, &lab.images.file(image, "image.tar"));
}

/// How often busybox's init has come up, by what it writes when it does.
fn boots(shop: &Cloud, name: &str) -> usize {
    let ran = shop.exec(name, "cat /root/history");
    ran.stdout.lines().filter(|line| *line == "up").count()
}

fn wait_boots(shop: &Cloud, name: &str, wanted: usize) {
    let came = lab::until(LONG, || {
        let there = shop.instance(name).phase == Phase::Running && log_of(shop, name).contains(&nth(wanted));
        there.then_some(())
    });
    assert!(came.is_some(), "no boot {wanted}: {} {:#?}", log_of(shop, name), shop.instance(name));
    assert_eq!(boots(shop, name), wanted);
}

fn nth(boot: usize) -> String {
    format!("up for the {boot}. time")
}

fn log_of(shop: &Cloud, name: &str) -> String {
    shop.log(name)
}

#[test]
fn an_init_boots_reboots_and_powers_off() {
    let mut lab = Lab::with(Options::default());
    let shop = lab.project("shop");
    bring_in(&lab, &shop, "busybox-system");
    shop.launch(&shop.system("box", "busybox-system"));
    wait_boots(&shop, "box", 1);
    is_itself(&shop, "box");
    console_is_typed_to(&shop, "box");
    let first = shop.instance("box");
    // From inside: at once another boot of the same instance, with its files and address.
    shop.exec("box", "ip address flush dev eth0; (sleep 0.2; reboot) &");
    wait_boots(&shop, "box", 2);
    let again = shop.instance("box");
    assert_eq!((again.boots, again.started_at), (first.boots, first.started_at), "holm did not start it");
    assert!(lab::http_get(&shop.namespace_of("default"), SocketAddr::new(v4_of(&first), 80), LONG).is_ok());
    // From outside.
    shop.act("box", Verb::Reboot);
    wait_boots(&shop, "box", 3);
    let history = shop.exec("box", "cat /root/history").text();
    assert_eq!(history, "up\ndown\nup\ndown\nup", "it was asked to go down each time");
    // holm dies and comes back: the init does not notice.
    let init = process_of(&shop, "box");
    lab.kill_daemon();
    lab.start_daemon();
    let shop = lab.project("shop");
    assert_eq!(process_of(&shop, "box"), init);
    assert_eq!(boots(&shop, "box"), 3);
    shop.exec("box", "(sleep 0.2; poweroff) &");
    let off = shop.wait_phase("box", Phase::Exited);
    let exit = off.exit.expect("an end");
    assert!(!exit.failed && exit.code == Some(0) && exit.cause.contains("powered off"), "{exit:?}");
    shop.act("box", Verb::Start);
    wait_boots(&shop, "box", 4);
    let stopped = shop.act("box", Verb::Stop);
    assert!(!stopped.exit.expect("an end").failed);
    shop.act("box", Verb::Start);
    wait_boots(&shop, "box", 5);
    assert!(shop.exec("box", "cat /root/history").text().ends_with("up\ndown\nup"));
    shop.empty();
    lab.finish();
}

pub(crate) fn process_of(shop: &Cloud, name: &str) -> String {
    shop.instance(name).facts["containers"][0]["pid"].to_string()
}

/// Name, machine id, addresses and names are the instance's own.
fn is_itself(shop: &Cloud, name: &str) {
    let instance = shop.instance(name);
    let text = |script: &str| shop.exec(name, script).text();
    assert_eq!(text("hostname"), name);
    assert_eq!(text("cat /etc/hostname"), name);
    assert_eq!(text("cat /etc/machine-id"), instance.head.id.simple().to_string());
    assert!(text("ip -4 address show eth0").contains(&v4_of(&instance).to_string()));
    assert!(text("cat /etc/resolv.conf").contains("nameserver"), "DNS");
    assert!(text("cat /etc/hosts").contains(&v4_of(&instance).to_string()));
    assert_eq!(text("tr '\\0' '\\n' </proc/1/environ | grep ^container="), "container=lxc");
    for (place, kind) in
        [("/run", "tmpfs"), ("/tmp", "tmpfs"), ("/sys/fs/cgroup", "cgroup2"), ("/", "overlay")]
    {
        assert_eq!(
            text(&format!("awk '$2 == \"{place}\" {{print $3}}' /proc/mounts | tail -n 1")),
            kind,
            "{place}"
        );
    }
}

fn console_is_typed_to(shop: &Cloud, name: &str) {
    let mut console = shop.console(name);
    console.type_in("\n");
    console.expect("#", LONG);
    console.type_in("echo typed $((6 * 7)); tty\n");
    console.expect("typed 42", LONG);
    drop(console);
    // Who looks at it next finds the shell where it was.
    let mut again = shop.console(name);
    again.type_in("echo again $((6 * 8))\n");
    again.expect("again 48", LONG);
    assert!(log_of(shop, name).contains("typed 42"), "the log is what the console showed");
}

#[test]
fn a_system_is_kept_in_and_has_what_every_instance_has() {
    let lab = Lab::with(Options::default());
    let shop = lab.project("shop");
    bring_in(&lab, &shop, "busybox-system");
    shop.add_group("web", &["tcp 80"]);
    let request = CreateInstance {
        memory_mib: Some(128),
        vcpus: Some(1),
        disk_gib: Some(1),
        security_groups: Some(vec!["web".into()]),
        floating_ip: Some("auto".into()),
        volumes: vec![VolumeRequest {
            size_gib: Some(1),
            mount_path: Some("/data".into()),
            ..Default::default()
        }],
        labels: [("tier".to_string(), "front".to_string())].into(),
        ..shop.system("box", "busybox-system")
    };
    let made = shop.launch(&request);
    wait_boots(&shop, "box", 1);
    assert_eq!((made.kind, made.size.memory_mib), (Kind::System, 128));
    let text = |script: &str| shop.exec("box", script).text();
    // Namespaces of its own, its root somebody else on the host.
    for namespace in ["pid", "mnt", "net", "uts", "ipc", "user", "cgroup"] {
        let own = fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap().to_string_lossy().into_owned();
        let inside = text(&format!("readlink /proc/1/ns/{namespace}; readlink /proc/self/ns/{namespace}"));
        let (init, beside) = inside.split_once('\n').unwrap();
        assert!(init == beside && init != own, "{namespace}: {inside}, {own}");
    }
    let map: Vec<u64> = text("cat /proc/1/uid_map").split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert!(map[0] == 0 && map[1] >= 65536, "{map:?}");
    let mask = u64::from_str_radix(&text("awk '/^CapBnd/ {print $2}' /proc/1/status"), 16).unwrap();
    for (bit, has, name) in [
        (21, true, "SYS_ADMIN"),
        (12, true, "NET_ADMIN"),
        (22, true, "SYS_BOOT"),
        (16, false, "SYS_MODULE"),
        (17, false, "SYS_RAWIO"),
        (25, false, "SYS_TIME"),
        (34, false, "SYSLOG"),
    ] {
        assert_eq!(mask >> bit & 1 == 1, has, "{name}");
    }
    assert_eq!(text("awk '/^Seccomp:/ {print $2}' /proc/self/status"), "2");
    does_what_is_its_own(&shop);
    limits_hold(&lab, &shop, "box");
    reached_as_its_groups_say(&lab, &shop);
    text("echo kept >/data/file");
    assert_eq!(shop.used("memory_mib"), 128);
    let wrong = CreateInstance {
        name: "wrong".into(),
        containers: vec![ContainerRequest::default(), ContainerRequest::default()],
        image: None,
        ..request
    };
    assert!(shop.try_create::<Instance>(&wrong).is_err());
    shop.empty();
    lab.finish();
}

/// What is the host's stays refused, and what is its own is not.
fn does_what_is_its_own(shop: &Cloud) {
    let text = |script: &str| shop.exec("box", script).text();
    for forbidden in [
        "mknod /tmp/disk b 8 0",
        "echo 1 >/proc/sys/vm/drop_caches",
        "echo b >/proc/sysrq-trigger",
        "echo core >/proc/sys/kernel/core_pattern",
        "dmesg",
        "mount -t ext4 /dev/loop0 /tmp",
        "mount -o remount,rw /sys",
        "swapon /dev/null",
    ] {
        assert!(!shop.exec("box", forbidden).ok(), "{forbidden}");
    }
    text("mkdir /tmp/m && mount -t tmpfs none /tmp/m && umount /tmp/m");
    text("echo 1 >/proc/sys/net/ipv4/ip_forward && ip link add d0 type veth");
    text("mkdir /sys/fs/cgroup/mine && echo $$ >/sys/fs/cgroup/mine/cgroup.procs");
}

/// All its processes, wherever it moves them, are in the groups that bear its limits.
fn limits_hold(lab: &Lab, shop: &Cloud, name: &str) {
    let groups = lab.remains().tree();
    let own = groups.list("").expect("groups");
    let [pod] = own.as_slice() else { panic!("one instance: {own:?}") };
    let inside: usize = shop.exec(name, "ls /proc | grep -c '^[0-9]'").text().parse().unwrap();
    let seen = groups.processes(pod).expect("processes").len();
    assert!(seen + 3 >= inside && seen > 1, "{seen} of {inside}");
    assert!(groups.stats(pod).expect("stats").memory_bytes > 0);
    let ran = shop.exec(name, "head -c 300m /dev/zero | tail -c 290m | wc -c");
    assert_ne!(ran.stdout.trim(), (290 << 20).to_string(), "128 MiB are 128 MiB");
    assert!(!shop.exec(name, "fallocate -l 1200m /root/big").ok(), "1 GiB is 1 GiB");
    shop.exec(name, "rm -f /root/big").text();
}

fn reached_as_its_groups_say(lab: &Lab, shop: &Cloud) {
    let instance = shop.instance("box");
    let floating = instance.floating_ips[0];
    let page = lab::http_get(&lab.world.outside, SocketAddr::new(floating, 80), LONG);
    assert!(page.is_ok(), "by its floating IP: {page:?}");
    assert!(!lab::can_connect(
        &lab.world.outside,
        None,
        SocketAddr::new(floating, 22),
        Duration::from_secs(2)
    ));
    assert!(shop.exec("box", &format!("wget -qO- http://{INTERNET}/")).ok(), "the way out");
}

#[test]
fn systemd_runs_a_machine_of_its_own() {
    let mut lab = Lab::with(Options::default());
    let shop = lab.project("shop");
    shop.add_key();
    bring_in(&lab, &shop, "debian-system");
    let request = |name: &str| CreateInstance {
        memory_mib: Some(512),
        keypairs: vec!["lab".into()],
        ..shop.system(name, "debian-system")
    };
    shop.launch(&request("box"));
    is_up(&shop, "box");
    shop.wait_ssh("box");
    let ssh = |script: &str| shop.ssh("box", script).text();
    assert_eq!(ssh("id -un; hostname; systemd-detect-virt"), "root\nbox\nlxc");
    assert_eq!(ssh("cat /etc/machine-id"), shop.instance("box").head.id.simple().to_string());
    let key = lab.key().to_string_lossy().into_owned();
    let login = lab.holm("shop", &["ssh", "-i", &key, "box", "--", "hostname"]).output().expect("holm");
    assert_eq!(String::from_utf8_lossy(&login.stdout), "box\n", "{login:?}");
    services_are_shut_in(&ssh);
    installs_packages(&lab, &ssh);
    shop.launch(&request("twin"));
    is_up(&shop, "twin");
    let key = "cat /etc/ssh/ssh_host_*_key.pub";
    let (one, other) = (shop.exec("box", key).text(), shop.exec("twin", key).text());
    assert!(one != other && one.lines().count() == 1 && one.starts_with("ssh-ed25519 "), "{one} {other}");
    shop.delete::<Instance>("twin");
    goes_down_and_comes_back(&mut lab);
    let shop = lab.project("shop");
    shop.drop_ssh(&shop.instance("box"));
    shop.empty();
    lab.finish();
}

/// systemd has started all that there is, and nothing has failed.
pub(crate) fn is_up(shop: &Cloud, name: &str) {
    let said = || shop.exec(name, "systemctl is-system-running --wait").stdout.trim().to_string();
    let came = lab::until(LONG, || Some(said()).filter(|said| said == "running" || said == "degraded"));
    let failed = || shop.exec(name, "systemctl --failed --no-legend; journalctl -b -p 3 --no-pager").stdout;
    assert_eq!(came.as_deref(), Some("running"), "{}\n{}", failed(), shop.log(name));
}

/// The ways in which systemd shuts its services in work inside.
fn services_are_shut_in(ssh: &impl Fn(&str) -> String) {
    ssh("systemd-run --quiet --wait -p PrivateTmp=yes -p ProtectSystem=strict -p ProtectHome=yes \
         -p PrivateDevices=yes -p NoNewPrivileges=yes -p DynamicUser=yes -p TasksMax=20 true");
    let place = ssh("systemctl show --property=ControlGroup --value ssh");
    assert_eq!(place, "/system.slice/ssh.service");
    assert!(ssh(&format!("cat /sys/fs/cgroup{place}/cgroup.procs")).lines().count() >= 1);
    assert!(ssh("loginctl list-sessions --no-legend").contains("root"), "a session of the log in");
    assert_eq!(ssh("su nobody -s /bin/sh -c 'ping -c 1 -W 2 127.0.0.1 >/dev/null; echo $?'"), "0");
}

/// apt fetches a package from a server on the internet and installs it.
pub(crate) fn installs_packages(lab: &Lab, ssh: &impl Fn(&str) -> String) {
    let place = lab.directory().join("packages");
    let _server = serve_package(&lab.world.internet, &place);
    ssh("rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*");
    ssh(&format!("echo 'deb [trusted=yes] http://{INTERNET}:8080/ ./' >/etc/apt/sources.list"));
    ssh("apt-get -q update 2>&1");
    ssh("DEBIAN_FRONTEND=noninteractive apt-get -q -y install proof 2>&1");
    assert_eq!(
        ssh("cat /usr/share/proof; dpkg-query -W -f '${Status}' proof"),
        "installed\ninstall ok installed"
    );
}

struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A repository of one package, served on the internet.
fn serve_package(internet: &NetNs, place: &Path) -> Server {
    let root = place.join("root");
    fs::create_dir_all(root.join("DEBIAN")).unwrap();
    fs::create_dir_all(root.join("usr/share")).unwrap();
    let control = "Package: proof\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: proof\n";
    fs::write(root.join("DEBIAN/control"), control).unwrap();
    fs::write(root.join("usr/share/proof"), "installed\n").unwrap();
    let web = place.join("web");
    fs::create_dir_all(&web).unwrap();
    let built = Command::new("dpkg-deb")
        .args(["--root-owner-group", "-b"])
        .arg(&root)
        .arg(web.join("proof.deb"))
        .output();
    assert!(built.expect("dpkg-deb").status.success());
    let package = fs::read(web.join("proof.deb")).unwrap();
    let sum: String = sha2::Sha256::digest(&package).iter().map(|byte| format!("{byte:02x}")).collect();
    let index = format!("{control}Filename: ./proof.deb\nSize: {}\nSHA256: {sum}\n\n", package.len());
    fs::write(web.join("Packages"), index).unwrap();
    let mut command = Command::new("busybox");
    command.args(["httpd", "-f", "-p", &format!("{INTERNET}:8080"), "-h"]).arg(&web);
    Server(internet.run(move || command.spawn()).expect("enter").expect("busybox"))
}

/// Reboot and power off from inside, stop and start from outside, and a crash of holm.
fn goes_down_and_comes_back(lab: &mut Lab) {
    let shop = lab.project("shop");
    let text = |shop: &Cloud, script: &str| shop.exec("box", script).text();
    text(&shop, "echo kept >/root/kept; touch /run/mark");
    let first = shop.instance("box");
    shop.drop_ssh(&first);
    shop.exec("box", "systemctl reboot");
    eventually("another boot", LONG, || {
        let one = &shop.instance("box").facts["containers"][0];
        one["restarts"] == 1 && one["status"] == "running"
    });
    is_up(&shop, "box");
    assert!(!shop.exec("box", "test -e /run/mark").ok(), "what was in memory is gone");
    assert_eq!(shop.instance("box").started_at, first.started_at, "the same start of holm's");
    shop.wait_ssh("box");
    assert_eq!(shop.ssh("box", "cat /root/kept").text(), "kept");
    shop.drop_ssh(&first);
    let init = process_of(&shop, "box");
    lab.kill_daemon();
    lab.start_daemon();
    let shop = lab.project("shop");
    assert_eq!(process_of(&shop, "box"), init);
    is_up(&shop, "box");
    // A service is told to stop when the machine is, and what it writes then is there afterwards.
    text(
        &shop,
        "systemd-run --quiet --unit=farewell -p RemainAfterExit=yes -p ExecStop='touch /root/farewell' true",
    );
    let stopped = shop.act("box", Verb::Stop);
    let exit = stopped.exit.expect("an end");
    assert!(!exit.failed && exit.cause.contains("powered off"), "{exit:?}");
    shop.act("box", Verb::Start);
    is_up(&shop, "box");
    text(&shop, "test -e /root/farewell");
    shop.exec("box", "systemctl poweroff");
    let off = shop.wait_phase("box", Phase::Exited);
    assert!(!off.exit.expect("an end").failed);
    shop.act("box", Verb::Start);
    is_up(&shop, "box");
}

#[test]
fn what_is_no_system_is_refused() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    let refused = |request: &CreateInstance| {
        let asked = shop.ask(shop.client.create::<Instance>(request, &WaitQuery::default()));
        let error = asked.expect_err("refused");
        (error.code(), error.field().map(str::to_string))
    };
    let of = |change: fn(&mut CreateInstance)| {
        let mut request = shop.system("box", "busybox");
        change(&mut request);
        refused(&request)
    };
    let invalid = |field: &str| (Code::Invalid, Some(field.to_string()));
    assert_eq!(of(|r| r.tty = true), invalid("tty"));
    assert_eq!(of(|r| r.user = Some("web".into())), invalid("user"));
    assert_eq!(of(|r| r.working_dir = Some("/srv".into())), invalid("working_dir"));
    assert_eq!(of(|r| r.config_drive = true), invalid("config_drive"));
    // An image without an init does not boot, and says what it lacks.
    let request = CreateInstance { command: None, ..shop.system("box", "web") };
    let made = shop.create::<Instance>(&request);
    let exit = made.exit.expect("it ended");
    assert!(exit.failed && exit.cause.contains("the image has no init"), "{exit:?}");
    shop.empty();
    lab.finish();
}

#[test]
fn a_root_in_a_tar_boots_and_no_other_archive_does() {
    let lab = Lab::with(Options::default());
    let shop = lab.project("shop");
    let root = lab.images.file("busybox-system", "rootfs.tar.xz");
    let image = shop.upload("box", ImageKind::System, None, &root);
    let digest = format!("sha256:{:x}", sha2::Sha256::digest(fs::read(&root).unwrap()));
    assert_ne!(
        image.content.as_ref().expect("content").digest,
        digest,
        "its digest is that of what is made of it"
    );
    for program in ["zstd", "gzip"] {
        let plain = Command::new("xz").args(["-dc"]).arg(&root).output().expect("xz").stdout;
        let (tar, packed) = (lab.directory().join("root.tar"), lab.directory().join("root.tar.packed"));
        fs::write(&tar, plain).unwrap();
        let output = Command::new(program).arg("-c").arg(&tar).output().expect(program);
        fs::write(&packed, output.stdout).unwrap();
        shop.upload(&format!("box-{program}"), ImageKind::System, None, &packed);
    }
    let squashed = squashed(&lab, &root);
    shop.upload("box-squashfs", ImageKind::System, None, &squashed);
    // The image says what it is, as for the other kinds.
    for (name, image) in [("one", "box"), ("two", "box-zstd"), ("three", "box-squashfs")] {
        let request =
            CreateInstance { name: name.into(), image: Some(image.into()), ..CreateInstance::default() };
        assert_eq!(shop.launch(&request).kind, Kind::System);
        wait_boots(&shop, name, 1);
    }
    let stranger = CreateInstance {
        kind: Some(Kind::Vm),
        vcpus: Some(1),
        memory_mib: Some(128),
        ..shop.system("vm", "box")
    };
    let error = shop.try_create::<Instance>(&stranger).expect_err("no VM");
    assert!(error.to_string().contains("is a system container's"), "{error}");
    let broken = lab.directory().join("broken");
    for (whole, why) in [(&root, "xz refuses it"), (&squashed, "sqfs2tar refuses it")] {
        let bytes = fs::read(whole).unwrap();
        fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
        let mut command = lab.holm("shop", &["image", "import", "broken", "--kind", "system", "--file"]);
        let output = command.arg(&broken).output().expect("holm");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "half of it: {said}");
    }
    shop.empty();
    lab.finish();
}

/// A squashfs of what is in a tar behind xz.
fn squashed(lab: &Lab, root: &Path) -> PathBuf {
    let squashed = lab.directory().join("root.squashfs");
    let mut command = Command::new("tar2sqfs");
    command.args(["--quiet", "--force"]).arg(&squashed).stdin(fs::File::open(root).expect("the root"));
    let output = command.output().expect("tar2sqfs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    squashed
}

/// A server of the test's own, in the form of those of LXC and Incus.
fn serve_streams(lab: &Lab, at: &str) -> Server {
    let web = lab.directory().join("streams");
    fs::create_dir_all(web.join("streams/v1")).unwrap();
    fs::create_dir_all(web.join("images/box")).unwrap();
    let root = fs::read(lab.images.file("busybox-system", "rootfs.tar.xz")).unwrap();
    fs::write(web.join("images/box/root.tar.xz"), &root).unwrap();
    fs::write(web.join("images/box/other.tar.xz"), &root[..100]).unwrap();
    let sum_of = |bytes: &[u8]| format!("{:x}", sha2::Sha256::digest(bytes));
    let sum = sum_of(&root);
    let squashed = fs::read(squashed(lab, &lab.images.file("busybox-system", "rootfs.tar.xz"))).unwrap();
    fs::write(web.join("images/box/root.squashfs"), &squashed).unwrap();
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let version = |path: &str| {
        serde_json::json!({"items": {
            "incus.tar.xz": {"ftype": "incus.tar.xz", "path": "images/box/incus.tar.xz", "sha256": sum, "size": 1},
            "root.tar.xz": {"ftype": "root.tar.xz", "path": path, "sha256": sum, "size": root.len()},
        }})
    };
    let images = serde_json::json!({"format": "products:1.0", "datatype": "image-downloads", "products": {
        "box:1": {"aliases": "box/1/default,box/1", "arch": arch, "versions": {
            "20260101_00:00": version("images/gone.tar.xz"), "20260201_00:00": version("images/box/root.tar.xz")}},
        "squashed:1": {"aliases": "squashed/1", "arch": arch, "versions": {"1": {"items": {
            "disk.qcow2": {"ftype": "disk-kvm.img", "path": "images/box/disk.qcow2", "sha256": sum, "size": 1},
            "root.squashfs": {"ftype": "squashfs", "path": "images/box/root.squashfs", "sha256": sum_of(&squashed)}}}}},
        "bad:1": {"aliases": "bad/1", "arch": arch, "versions": {"1": version("images/box/other.tar.xz")}},
        "out:1": {"aliases": "out/1", "arch": arch, "versions": {"1": version("../../etc/passwd")}},
    }});
    let index = serde_json::json!({"format": "index:1.0", "index": {
        "images": {"datatype": "image-downloads", "path": "streams/v1/images.json", "products": []}}});
    fs::write(web.join("streams/v1/images.json"), images.to_string()).unwrap();
    fs::write(web.join("streams/v1/index.json"), index.to_string()).unwrap();
    let mut command = Command::new("busybox");
    command.args(["httpd", "-f", "-p", at, "-h"]).arg(&web);
    Server(lab.world.machine.run(move || command.spawn()).expect("enter").expect("busybox"))
}

#[test]
fn an_image_server_gives_the_newest_root_if_it_is_what_it_says() {
    const AT: &str = "127.0.0.1:8089";
    let lab = Lab::with(Options { arguments: vec!["--image-host".into(), AT.into()], ..Options::default() });
    let shop = lab.project("shop");
    let server = serve_streams(&lab, AT);
    let import = |name: &str, alias: &str| {
        let url = format!("simplestreams:http://{AT}#{alias}");
        let output = lab.holm("shop", &["image", "import", name, "--url", &url]).output().expect("holm");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (name, alias) in [("box", "box/1"), ("squashed", "squashed/1")] {
        let (done, said) = import(name, alias);
        assert!(done, "{said}");
        let request =
            CreateInstance { name: name.into(), image: Some(name.into()), ..CreateInstance::default() };
        assert_eq!(shop.launch(&request).kind, Kind::System);
        wait_boots(&shop, name, 1);
    }
    for (name, alias, why) in [
        ("none", "box/2", "the server has no image"),
        ("bad", "bad/1", "digest"),
        ("out", "out/1", "not below its own address"),
    ] {
        let (done, said) = import(name, alias);
        assert!(!done && said.contains(why), "{alias}: {said}");
    }
    let output =
        lab.holm("shop", &["image", "import", "x", "--url", "simplestreams:nowhere"]).output().expect("holm");
    assert!(String::from_utf8_lossy(&output.stderr).contains("write simplestreams:https://HOST#ALIAS"));
    drop(server);
    shop.empty();
    lab.finish();
}

/// Leads what comes to an address of one machine on to the same address of another, as a network between them would, until
/// the process ends.
fn lead_on(from: &NetNs, to: &NetNs, at: SocketAddr) {
    let listener = from.run(|| TcpListener::bind(at)).expect("enter").expect("listen");
    let to = to.clone();
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let Ok(Ok(far)) = to.run(|| TcpStream::connect(at)) else { continue };
            let (near_in, far_out) =
                (near.try_clone().expect("a stream"), far.try_clone().expect("a stream"));
            let copy = |from: TcpStream, to: TcpStream| {
                let _ = std::io::copy(&mut &from, &mut &to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            };
            std::thread::spawn(move || copy(near_in, far_out));
            std::thread::spawn(move || copy(far, near));
        }
    });
}

#[test]
fn another_cloud_boots_what_this_one_publishes() {
    const AT: &str = "127.0.0.1:8090";
    let address: SocketAddr = AT.parse().unwrap();
    let option = |name: &str| Options { arguments: vec![name.into(), AT.into()], ..Options::default() };
    let giving = Lab::with(option("--image-server"));
    let maker = giving.project("default");
    let root = giving.images.file("busybox-system", "rootfs.tar.xz");
    for name in ["plain", "private"] {
        maker.upload(name, ImageKind::System, None, &root);
    }
    maker.upload("kernel", ImageKind::Kernel, None, &root);
    let holm = |lab: &Lab, arguments: &[&str]| {
        let output = lab.holm("default", arguments).output().expect("holm");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    own_image_is_made(&maker, &|arguments| holm(&giving, arguments));
    let (refused, said) = holm(&giving, &["image", "publish", "kernel"]);
    assert!(!refused && said.contains("is no root file system"), "{said}");
    let (done, said) = holm(&giving, &["image", "publish", "box/1"]);
    assert!(done && said.contains(&format!("everybody who reaches http://{AT} may fetch it")), "{said}");

    // The other machine fetches it as from any image server, and nothing else is there.
    let taking = Lab::with(option("--image-host"));
    lead_on(&taking.world.machine, &giving.world.machine, address);
    let import = |name: &str, alias: &str| {
        holm(&taking, &["image", "import", name, "--url", &format!("simplestreams:http://{AT}#{alias}")])
    };
    let (done, said) = import("box", "box/1");
    assert!(done, "{said}");
    let shop = taking.project("default");
    let request =
        CreateInstance { name: "box".into(), image: Some("box".into()), ..CreateInstance::default() };
    assert_eq!(shop.launch(&request).kind, Kind::System);
    // It has what was put into it, and is somebody else.
    eventually("its init is up", LONG, || shop.exec("box", "cat /root/history").text().ends_with("up"));
    assert_eq!(shop.exec("box", "cat /srv/own").text(), "made here");
    let id = shop.instance("box").head.id.simple().to_string();
    assert_eq!(shop.exec("box", "cat /etc/machine-id").text(), id);
    let (done, said) = import("none", "private");
    assert!(!done && said.contains("it has box/1"), "what is not public is not told: {said}");

    nothing_else_is_there(&giving, &maker, address);
    // What is taken back is gone for those who come later; who has it keeps it.
    assert!(holm(&giving, &["image", "set", "box/1", "--public", "no"]).0);
    let (done, said) = import("late", "box/1");
    assert!(!done && said.contains("the server has no image"), "{said}");
    assert_eq!(shop.exec("box", "cat /srv/own").text(), "made here");
    for (lab, cloud) in [(taking, shop), (giving, maker)] {
        cloud.empty();
        lab.finish();
    }
}

/// An image of what a system container has become: `box/1`.
fn own_image_is_made(maker: &Cloud, holm: &impl Fn(&[&str]) -> (bool, String)) {
    let plain =
        CreateInstance { name: "maker".into(), image: Some("plain".into()), ..CreateInstance::default() };
    maker.launch(&plain);
    wait_boots(maker, "maker", 1);
    maker.exec("maker", "mkdir -p /srv && echo made here >/srv/own && ln /srv/own /srv/same");
    let make = ["image", "import", "box/1", "--instance", "maker"];
    let (done, said) = holm(&make);
    assert!(!done && said.contains("`holm stop maker` first"), "what runs is not copied: {said}");
    maker.act("maker", Verb::Stop);
    let (done, said) = holm(&make);
    assert!(done && said.contains("has the files of maker"), "{said}");
    let (done, said) = holm(&make);
    assert!(!done && said.contains("box/1"), "its name is taken: {said}");
    maker.delete::<Instance>("maker");
}

/// No other image, no API, and nothing that changes anything.
fn nothing_else_is_there(lab: &Lab, maker: &Cloud, at: SocketAddr) {
    let answer = |method: &str, path: &str| -> String {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        let talk = || -> std::io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect(at)?;
            stream.write_all(request.as_bytes())?;
            let mut answer = vec![];
            stream.read_to_end(&mut answer)?;
            Ok(answer)
        };
        let bytes = lab.world.machine.run(talk).expect("enter").expect("an answer");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let images = answer("GET", "/streams/v1/images.json");
    assert!(images.contains("combined_rootxz_sha256") && !images.contains("private"), "{images}");
    let id = |name: &str| maker.get::<Image>(name).head.id.to_string();
    let root = answer("HEAD", &format!("/images/{}/root.tar", id("box/1")));
    assert!(root.starts_with("HTTP/1.1 200"), "{root}");
    let metadata = answer("GET", &format!("/images/{}/metadata.tar", id("box/1")));
    assert!(metadata.contains("\"creation_date\""), "{metadata}");
    for (method, path, status) in [
        ("GET", format!("/images/{}/root.tar.xz", id("private")), 404),
        ("GET", format!("/images/{}/root.tar.xz", id("box/1")), 404),
        ("GET", "/v1/images".into(), 404),
        ("GET", "/docker/images/json".into(), 404),
        ("DELETE", format!("/images/{}/root.tar", id("box/1")), 405),
    ] {
        let said = answer(method, &path);
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{method} {path}: {said}");
    }
}
