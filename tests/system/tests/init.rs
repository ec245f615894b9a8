//! System containers with other inits and with cloud-init: what most of them are, as image servers and Debian's packages have them.

use crate::system::{LONG, installs_packages, is_up, process_of};
use api::{
    client::Verb,
    v1::types::{
        image::{Image, UpdateImage},
        instance::{CreateInstance, Instance},
    },
};
use base64::Engine as _;
use lab::{Cloud, Lab, Options, eventually, v4_of};
use model::{
    image::ImageKind,
    instance::{Kind, phase::Phase},
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// An init that is asked to power off does so much faster than its time is over.
const FAREWELL: Duration = Duration::from_secs(40);
/// cloud-init has much to do in a first boot.
const CONFIGURED: Duration = Duration::from_secs(90);

fn request(name: &str, image: &str) -> CreateInstance {
    CreateInstance {
        name: name.into(),
        image: Some(image.into()),
        memory_mib: Some(512),
        keypairs: vec!["lab".into()],
        ..CreateInstance::default()
    }
}

fn upload(lab: &Lab, shop: &Cloud, image: &str) {
    shop.upload(image, ImageKind::System, None, &lab.images.file(image, "rootfs.tar.zst"));
}

#[test]
fn openrc_runs_a_machine_of_its_own() {
    let mut lab = Lab::with(Options::default());
    let shop = lab.project("shop");
    shop.add_key();
    upload(&lab, &shop, "debian-openrc");
    for name in ["box", "twin"] {
        assert_eq!(shop.launch(&request(name, "debian-openrc")).kind, Kind::System);
        openrc_is_up(&shop, name);
    }
    let box_ = shop.instance("box");
    shop.wait_ssh("box");
    let ssh = |script: &str| shop.ssh("box", script).text();
    assert_eq!(ssh("id -un; hostname; cat /proc/1/comm"), "root\nbox\ninit");
    assert_eq!(ssh("cat /etc/machine-id"), box_.head.id.simple().to_string());
    assert!(ssh("ip -4 address show eth0").contains(&v4_of(&box_).to_string()));
    let twin = v4_of(&shop.instance("twin")).to_string();
    assert!(ssh("getent ahostsv4 twin").starts_with(&twin), "DNS");
    let key = lab.key().to_string_lossy().into_owned();
    let login = lab.holm("shop", &["ssh", "-i", &key, "box", "--", "hostname"]).output().expect("holm");
    assert_eq!(String::from_utf8_lossy(&login.stdout), "box\n", "{login:?}");
    let mut console = shop.console("box");
    console.type_in("\n");
    console.expect("box login:", LONG);
    drop(console);
    installs_packages(&lab, &ssh);
    services_obey(&ssh);
    let keys = ["box", "twin"].map(|name| shop.exec(name, "cat /etc/ssh/ssh_host_*_key.pub").text());
    assert!(keys[0] != keys[1] && keys[0].lines().count() == 1, "{keys:?}");
    shop.delete::<Instance>("twin");
    openrc_is_the_init_itself(&shop);
    openrc_goes_down_and_comes_back(&mut lab);
    let shop = lab.project("shop");
    shop.drop_ssh(&shop.instance("box"));
    shop.empty();
    lab.finish();
}

/// OpenRC has started all that it is to start, and nothing of it has crashed.
fn openrc_is_up(shop: &Cloud, name: &str) {
    let status = || shop.exec(name, "rc-status --runlevel; rc-status --nocolor default").stdout;
    let is_up = |said: &str| {
        let mut lines = said.lines();
        let services: Vec<&str> = said.lines().filter(|line| line.contains('[')).collect();
        lines.next() == Some("default")
            && !services.is_empty()
            && services.iter().all(|line| line.contains("[  started"))
    };
    let came = lab::until(LONG, || Some(status()).filter(|said| is_up(said)));
    assert!(came.is_some_and(|said| said.contains("ssh")), "{}\n{}", status(), shop.log(name));
    let crashed = shop.exec(name, "rc-status --nocolor --crashed").stdout;
    assert_eq!(crashed.trim(), "", "{}", shop.log(name));
}

/// A service is stopped and started by its manager, which finds its processes.
fn services_obey(ssh: &impl Fn(&str) -> String) {
    let server = "pgrep -f '^sshd: /usr/sbin/sshd'";
    let first = ssh(server);
    ssh("rc-service ssh restart >/dev/null 2>&1");
    assert_ne!(ssh(server), first, "another process");
    assert!(ssh("rc-service ssh status").contains("running"));
}

/// Its init has run once more, since somebody inside said so.
fn has_rebooted(shop: &Cloud) {
    eventually("another boot", LONG, || {
        let one = &shop.instance("box").facts["containers"][0];
        one["restarts"] == 1 && one["status"] == "running"
    });
}

/// OpenRC has a first process of its own, which is asked in another way than sysvinit's.
fn openrc_is_the_init_itself(shop: &Cloud) {
    let command = Some(vec!["/sbin/openrc-init".to_string()]);
    shop.launch(&CreateInstance { command, ..request("bare", "debian-openrc") });
    openrc_is_up(shop, "bare");
    assert_eq!(shop.exec("bare", "cat /proc/1/comm").text(), "openrc-init");
    powers_off_when_it_is_stopped(shop, "bare");
    shop.delete::<Instance>("bare");
}

fn powers_off_when_it_is_stopped(shop: &Cloud, name: &str) {
    let begun = Instant::now();
    let exit = shop.act(name, Verb::Stop).exit.expect("an end");
    assert!(!exit.failed && exit.cause.contains("powered off"), "{exit:?}");
    assert!(begun.elapsed() < FAREWELL, "it took {:?}", begun.elapsed());
}

fn openrc_goes_down_and_comes_back(lab: &mut Lab) {
    let shop = lab.project("shop");
    shop.exec("box", "echo kept >/root/kept; touch /run/mark").text();
    let script = "#!/sbin/openrc-run\nstart() {\n:\n}\nstop() {\ndate >>/root/farewell\n}\n";
    shop.exec("box", &format!("printf '{script}' >/etc/init.d/farewell; chmod 755 /etc/init.d/farewell"))
        .text();
    shop.exec("box", "rc-update add farewell default && rc-service farewell start").text();
    let farewells = |shop: &Cloud| shop.exec("box", "cat /root/farewell 2>/dev/null | wc -l").text();
    let first = shop.instance("box");
    shop.drop_ssh(&first);
    shop.exec("box", "reboot");
    has_rebooted(&shop);
    openrc_is_up(&shop, "box");
    assert!(!shop.exec("box", "test -e /run/mark").ok(), "what was in memory is gone");
    assert_eq!(farewells(&shop), "1", "its services were stopped");
    shop.wait_ssh("box");
    assert_eq!(shop.ssh("box", "cat /root/kept").text(), "kept");
    shop.drop_ssh(&first);
    let init = process_of(&shop, "box");
    // Its halt takes the interface down, and nobody outside sets it up again.
    shop.exec("box", "(sleep 1; reboot) >/dev/null 2>&1 &").text();
    let namespace = shop.namespace_of("default");
    lab.kill_daemon();
    let address = SocketAddr::new(v4_of(&first), 22);
    let is_open = || lab::can_connect(&namespace, None, address, Duration::from_secs(1));
    eventually("it goes down", LONG, || !is_open());
    eventually("it is back at its address", LONG, is_open);
    lab.start_daemon();
    let shop = lab.project("shop");
    openrc_is_up(&shop, "box");
    assert_ne!(process_of(&shop, "box"), init, "it rebooted while holm was dead");
    let init = process_of(&shop, "box");
    lab.kill_daemon();
    lab.start_daemon();
    let shop = lab.project("shop");
    assert_eq!(process_of(&shop, "box"), init);
    powers_off_when_it_is_stopped(&shop, "box");
    shop.act("box", Verb::Start);
    openrc_is_up(&shop, "box");
    assert_eq!(farewells(&shop), "3");
    shop.exec("box", "poweroff");
    let off = shop.wait_phase("box", Phase::Exited);
    assert!(!off.exit.expect("an end").failed);
    shop.act("box", Verb::Start);
    openrc_is_up(&shop, "box");
    assert_eq!(farewells(&shop), "4");
}

const USER_DATA: &str = "#cloud-config
bootcmd:
  - [sh, -c, 'echo boot >>/srv/boots']
users:
  - default
  - name: ada
    gecos: Ada
write_files:
  - path: /srv/proof
    content: written by cloud-init
runcmd:
  - [sh, -c, 'id -u >>/srv/ran']
";

#[test]
fn cloud_init_runs_in_a_guest_system_of_bookworm() {
    // From inside.
    is_told_by_cloud_init("debian-12", "bookworm", |shop| {
        shop.exec("box", "systemctl reboot");
        has_rebooted(shop);
    });
}

#[test]
fn cloud_init_runs_in_a_guest_system_of_trixie() {
    // From outside.
    is_told_by_cloud_init("debian-13", "trixie", |shop| {
        shop.act("box", Verb::Reboot);
    });
}

/// A whole Debian as its cloud images are, but for its kernel, is the machine that its user-data says.
fn is_told_by_cloud_init(image: &str, release: &str, reboot: impl Fn(&Cloud)) {
    let mut lab = Lab::with(Options::default());
    let shop = lab.project("shop");
    shop.add_key();
    upload(&lab, &shop, image);
    let login = UpdateImage { login: Some(Some("debian".into())), ..UpdateImage::default() };
    shop.update::<Image>(image, &login);
    let user_data = Some(base64::engine::general_purpose::STANDARD.encode(USER_DATA));
    shop.launch(&CreateInstance { user_data, ..request("box", image) });
    is_configured(&shop);
    let text = |script: &str| shop.exec("box", script).text();
    let result = text("cat /run/cloud-init/result.json");
    assert!(result.contains("DataSourceOpenStack"), "{result}");
    assert_eq!(text(". /etc/os-release; echo $VERSION_CODENAME"), release);
    assert_eq!(text("hostname; cat /etc/hostname"), "box\nbox");
    assert_eq!(text("cat /srv/proof; echo; cat /srv/ran /srv/boots"), "written by cloud-init\n0\nboot");
    assert_eq!(text("getent passwd ada | cut -d: -f5"), "Ada");
    let instance = shop.instance("box");
    assert!(text("ip -4 address show eth0").contains(&v4_of(&instance).to_string()));
    // By the user that the image lets in, with the keypair's key.
    shop.wait_ssh("box");
    assert_eq!(shop.ssh("box", "id -un; sudo id -un").text(), "debian\nroot");
    shop.drop_ssh(&instance);
    let key = lab.key().to_string_lossy().into_owned();
    let login = lab.holm("shop", &["ssh", "-i", &key, "box", "--", "hostname"]).output().expect("holm");
    assert_eq!(String::from_utf8_lossy(&login.stdout), "box\n", "{login:?}");
    lab.kill_daemon();
    lab.start_daemon();
    let shop = lab.project("shop");
    reboot(&shop);
    is_configured(&shop);
    let text = |script: &str| shop.exec("box", script).text();
    assert_eq!(text("cat /srv/ran /srv/boots"), "0\nboot\nboot", "once is once");
    shop.wait_ssh("box");
    shop.drop_ssh(&shop.instance("box"));
    shop.empty();
    lab.finish();
}

/// How far cloud-init is, when it has ended or some time has gone by.
const STATUS: &str = "timeout 20 cloud-init status --wait >/dev/null; cloud-init status --long";

/// cloud-init has ended well, and so has all else.
fn is_configured(shop: &Cloud) {
    let status = || shop.exec("box", STATUS).stdout;
    let has_ended = |said: &str| said.contains("status: done") || said.contains("status: error");
    let came = lab::until(CONFIGURED, || Some(status()).filter(|said| has_ended(said)));
    let log = || shop.exec("box", "grep -v DEBUG /var/log/cloud-init.log | tail -n 40").stdout;
    let is_done = came.as_ref().is_some_and(|s| s.contains("status: done") && !s.contains("degraded"));
    assert!(is_done, "{came:?}\n{}\n{}", log(), shop.log("box"));
    is_up(shop, "box");
}
