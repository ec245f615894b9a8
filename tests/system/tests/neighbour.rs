//! Neighbours: what one guest does, and what becomes of it, is nobody else's trouble, the host's least of all.

use api::v1::types::instance::Instance;
use lab::{Cloud, Lab, eventually, http_get, ping, v4_of};
use model::instance::phase::Phase;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);
/// VMs of the test: the four with a part to play, and others that are only there.
const VMS: usize = 10;
/// Requests whose time is measured while a neighbour takes all the CPU it can get.
const REQUESTS: usize = 100;
/// The slowest but one of a hundred may take this long, with all of it emulated on a machine that does other things too.
/// An idle machine needs a tenth of it; what must never be is that a neighbour's work holds a request up for good.
const P99_MAX: Duration = Duration::from_secs(3);

fn pid_of(instance: &Instance) -> i32 {
    i32::try_from(instance.facts["pid"].as_i64().expect("a pid")).unwrap()
}

#[test]
fn guests_leave_each_other_and_the_host_alone() {
    let lab = Lab::with(lab::Options::default());
    let shop = lab.project("shop");
    shop.add_micro(&lab.images);
    let names = ["server", "greedy", "victim", "mad"].map(str::to_string);
    let names: Vec<String> = names.into_iter().chain((4..VMS).map(|n| format!("other-{n}"))).collect();
    let made: Vec<Instance> = names.iter().map(|name| shop.launch(&shop.micro(name))).collect();
    for name in &names[..4] {
        shop.wait_ssh(name);
    }
    let mut pids: Vec<i32> = made.iter().map(pid_of).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), VMS, "each has a QEMU of its own");
    let program =
        |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).unwrap().to_string_lossy().into_owned();
    assert!(pids.iter().all(|pid| program(pid).contains("qemu")));

    full_control(&shop);
    nothing_of_the_host(&shop, &made[1]);
    shop.ssh("server", "echo served >/srv/index.html; httpd -p 80 -h /srv");
    let boot_ids = |of: &[&str]| -> Vec<String> {
        of.iter().map(|name| shop.ssh(name, "cat /proc/sys/kernel/random/boot_id").text()).collect()
    };
    let others = ["server", "greedy"];
    let before = boot_ids(&others);
    slow_requests(&shop, &made[0]);

    kill(Pid::from_raw(pid_of(&made[2])), Signal::SIGKILL).expect("kill a QEMU");
    ends_alone(&shop, &made, &["victim"]);
    // The kernel of another guest panics.
    shop.ssh_to(
        &shop.namespace_of("default"),
        None,
        v4_of(&made[3]),
        "(sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &",
        false,
    );
    ends_alone(&shop, &made, &["victim", "mad"]);
    assert_eq!(boot_ids(&others), before, "they were not started again");
    shop.empty();
    lab.finish();
}

/// The end of these is seen with its cause; all others are the processes that they were, and their kernels answer.
fn ends_alone(shop: &Cloud, made: &[Instance], ended: &[&str]) {
    let network = shop.namespace_of("default");
    for old in made {
        let name = old.head.name.as_str();
        if ended.contains(&name) {
            let ends = || shop.instance(name).phase != Phase::Running;
            eventually(&format!("the end of {name} is seen"), LONG, ends);
            let ended = shop.instance(name);
            assert!(ended.exit.as_ref().is_some_and(|exit| exit.failed), "{ended:#?}");
        } else {
            let now = shop.instance(name);
            assert_eq!((now.phase, pid_of(&now)), (Phase::Running, pid_of(old)), "{name} runs on");
            eventually(&format!("{name} answers"), LONG, || ping(&network, v4_of(old), SHORT));
        }
    }
}

/// In the guest, root is root: a module, a sysctl and an address are its own, and none of them is the host's.
fn full_control(shop: &Cloud) {
    let on_host = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let name_of_host = on_host("/proc/sys/kernel/hostname");
    shop.ssh("greedy", "insmod /lib/modules/dummy.ko && ip link add mine type dummy").text();
    assert!(shop.ssh("greedy", "cat /proc/modules").text().contains("dummy "));
    shop.ssh("greedy", "ip address add 192.0.2.77/32 dev mine && ip link set mine up").text();
    shop.ssh("greedy", "echo 4242 >/proc/sys/kernel/pid_max && hostname changed").text();
    assert_eq!(shop.ssh("greedy", "cat /proc/sys/kernel/pid_max; hostname").text(), "4242\nchanged");
    assert_ne!(on_host("/proc/sys/kernel/pid_max").trim(), "4242");
    assert_eq!(on_host("/proc/sys/kernel/hostname"), name_of_host);
    let links = std::process::Command::new("ip").args(["-br", "address"]).output().expect("ip");
    assert!(!String::from_utf8_lossy(&links.stdout).contains("192.0.2.77"));
}

/// No process, no file and no name of the host is to be seen in a guest.
fn nothing_of_the_host(shop: &Cloud, greedy: &Instance) {
    let own = shop.ssh("greedy", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").text();
    assert!(!own.contains("qemu") && !own.contains("holm serve"), "{own}");
    let hosts = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_ne!(shop.ssh("greedy", "cat /proc/sys/kernel/random/boot_id").text(), hosts.trim());
    let mounts = shop.ssh("greedy", "cat /proc/mounts").text();
    assert!(!mounts.contains("9p") && !mounts.contains("virtiofs"), "{mounts}");
    // And from outside: what the guest holds, its QEMU holds, and no other user may look into that.
    let status = fs::read_to_string(format!("/proc/{}/status", pid_of(greedy))).unwrap();
    assert!(status.lines().any(|line| line == "Seccomp:\t2"), "{status}");
}

/// The server answers in time while its neighbour spins on every CPU it has.
fn slow_requests(shop: &Cloud, server: &Instance) {
    shop.ssh("greedy", "(while :; do :; done) >/dev/null 2>&1 & (while :; do :; done) >/dev/null 2>&1 &");
    let (network, to) = (shop.namespace_of("default"), SocketAddr::new(v4_of(server), 80));
    eventually("the server serves", LONG, || http_get(&network, to, P99_MAX).is_ok());
    let mut times: Vec<Duration> = (0..REQUESTS)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(http_get(&network, to, LONG).expect("a page").trim(), "served");
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    let (median, p99) = (times[REQUESTS / 2], times[REQUESTS * 99 / 100 - 1]);
    eprintln!("beside a busy neighbour: median {median:?}, p99 {p99:?}");
    assert!(p99 < P99_MAX, "p99 {p99:?}, median {median:?}");
}
