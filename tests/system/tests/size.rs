//! Sizes: what is asked for is what a guest sees; it changes later, within the host and the quota, and CPUs that are
//! short are shared by weight.

use api::{
    client::Verb,
    v1::types::{
        instance::{CreateInstance, Instance, NetworkRequest, UpdateInstance},
        list::WaitQuery,
        node::Node,
        port::{Port, UpdatePort},
    },
};
use lab::{Cloud, Lab, eventually};
use model::error::Code;
use std::{fs, time::Duration};

const LONG: Duration = Duration::from_secs(60);

fn memory_mib(shop: &Cloud, vm: &str) -> u64 {
    let kib = shop.ssh(vm, "awk '/^MemTotal/ {print $2}' /proc/meminfo").text();
    kib.parse::<u64>().unwrap() / 1024
}

fn host(shop: &Cloud) -> Node {
    shop.list::<Node>().remove(0)
}

/// A limit of an instance's control group, under its name in version 2 or in version 1.
fn limit(lab: &Lab, group: &str, names: [&str; 2]) -> u64 {
    let directories = lab.remains().tree().directories(group).unwrap();
    let files = directories.iter().flat_map(|directory| names.map(|name| directory.join(name)));
    let texts: Vec<String> = files.filter_map(|path| fs::read_to_string(path).ok()).collect();
    let first = texts.first().unwrap_or_else(|| panic!("{group} has none of {names:?}"));
    first.split_whitespace().next().unwrap().parse().unwrap()
}

/// What is measured of a guest and a container is what they take; a moment is no ground for advice.
fn uses_little(lab: &Lab, shop: &Cloud) {
    let told = shop.must("advice", shop.client.advice(None, None));
    let of = |name: &str| told.iter().find(|a| a.instance.name == name).unwrap_or_else(|| panic!("{told:?}"));
    let (vm, container) = (of("vm"), of("box"));
    assert!(vm.memory_mib == 8192 && (40..2048).contains(&vm.memory_peak_mib), "{vm:?}");
    assert!(container.memory_mib == 64 && container.memory_peak_mib <= 64, "{container:?}");
    assert!(told.iter().all(|a| a.flavor.is_none() && a.measured_s < 3_600), "{told:?}");
    let page = lab.holm("shop", &["info", "vm"]).output().expect("holm");
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains("Uses:") && page.contains(" of 8 GiB and "), "{page}");
}

#[test]
fn guest_and_container_take_another_size() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    shop.add_micro(&lab.images);
    let free = host(&shop).used;
    let flavor = Some("g4.r8c4".into());
    let vm = shop.launch(&CreateInstance { flavor, vcpus: None, memory_mib: None, ..shop.micro("vm") });
    shop.launch(&CreateInstance { memory_mib: Some(64), ..shop.idle_container("box") });
    let used = host(&shop).used;
    assert_eq!((used.vcpus, used.memory_mib), (free.vcpus + 5, free.memory_mib + 8192 + 64), "{used:?}");
    shop.wait_ssh("vm");
    assert_eq!(shop.ssh("vm", "nproc").text(), "4");
    assert!((7800..=8192).contains(&memory_mib(&shop, "vm")), "{} MiB", memory_mib(&shop, "vm"));

    uses_little(&lab, &shop);

    // A running VM keeps what it has, and says so; the restart brings the rest.
    let grow = UpdateInstance { vcpus: Some(3), memory_mib: Some(192), ..UpdateInstance::default() };
    let changed = shop.update::<Instance>("vm", &grow);
    let has = changed.until_restart.expect("it waits for a restart");
    assert_eq!((has.vcpus, has.memory_mib, changed.size.vcpus), (4, 8192, 3));
    assert_eq!(changed.started_at, vm.started_at, "it runs on");
    assert_eq!(shop.ssh("vm", "nproc").text(), "4");
    assert_eq!(shop.used("vcpus"), 4, "what it is to have counts at once");
    shop.drop_ssh(&vm);
    let again = shop.act("vm", Verb::Reboot);
    assert_eq!(again.until_restart, None, "{again:#?}");
    shop.wait_ssh("vm");
    assert_eq!(shop.ssh("vm", "nproc").text(), "3");
    assert!((140..=192).contains(&memory_mib(&shop, "vm")), "{} MiB", memory_mib(&shop, "vm"));

    changes_while_it_runs(&lab, &shop);
    beyond_the_host(&shop);
    shop.empty();
    lab.finish();
}

/// A container takes all of it at once, a VM its weight; neither is started again.
fn changes_while_it_runs(lab: &Lab, shop: &Cloud) {
    let before = ["box", "vm"].map(|name| shop.instance(name));
    let request = UpdateInstance {
        vcpus: Some(2),
        memory_mib: Some(96),
        cpu_weight: Some(300),
        ..UpdateInstance::default()
    };
    shop.update::<Instance>("box", &request);
    shop.update::<Instance>("vm", &UpdateInstance { cpu_weight: Some(200), ..UpdateInstance::default() });
    let group = format!("i-{}", before[0].head.id.simple());
    let memory = || limit(lab, &group, ["memory.max", "memory.limit_in_bytes"]);
    eventually("the container has its memory", LONG, || memory() == 96 << 20);
    let quota = || limit(lab, &group, ["cpu.max", "cpu.cfs_quota_us"]);
    eventually("it has two CPUs, in microseconds of each 100 ms", LONG, || quota() == 200_000);
    let weight = |group: &str| limit(lab, group, ["cpu.weight", "cpu.shares"]);
    let usual = if weight(&group) == 300 { 100 } else { 1024 };
    assert_eq!(weight(&group), usual * 3);
    let group = before[1].head.id.to_string();
    let quota = limit(lab, &group, ["cpu.max", "cpu.cfs_quota_us"]);
    assert_eq!(quota, 300_000, "the VM gets no more than its three CPUs, in microseconds of each 100 ms");
    eventually("the VM has its weight", LONG, || weight(&group) == usual * 2);
    for (old, name) in before.iter().zip(["box", "vm"]) {
        let now = shop.instance(name);
        assert_eq!((now.facts["pid"].clone(), now.started_at), (old.facts["pid"].clone(), old.started_at));
    }
}

/// More than the host has is refused with numbers, at creation, at a change and at a start.
fn beyond_the_host(shop: &Cloud) {
    let status = host(shop).status.expect("a status");
    let all = status.memory_mib;
    let refused = |what: &str, outcome: Result<Instance, api::client::Error>| {
        let error = outcome.expect_err(what);
        assert_eq!(error.code(), Code::NoCapacity, "{what}: {error}");
        assert!(error.to_string().contains(&all.saturating_sub(512).to_string()), "{what}: {error}");
        assert!(error.hint().contains("holm"), "{what}: {}", error.hint());
    };
    shop.set_quota("memory_mib", 4 * all);
    let huge = CreateInstance { memory_mib: Some(all), ..shop.micro("huge") };
    refused("create", shop.try_create::<Instance>(&huge));
    let grow = UpdateInstance { memory_mib: Some(all), ..UpdateInstance::default() };
    refused("change", shop.ask(shop.client.update::<Instance>("vm", &grow, &WaitQuery::default())));
    let half = |name: &str| CreateInstance {
        memory_mib: Some(all * 6 / 10),
        start: Some(false),
        ..shop.micro(name)
    };
    for name in ["one", "two"] {
        shop.create::<Instance>(&half(name));
    }
    // What is to run counts; nobody waits for it.
    let wait = WaitQuery::default();
    shop.must("start one", shop.client.act("one", Verb::Start, &wait));
    refused("start", shop.ask(shop.client.act("two", Verb::Start, &wait)));
}

#[test]
fn a_container_fills_its_disk_and_no_more() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    shop.launch(&CreateInstance { disk_gib: Some(1), ..shop.idle_container("box") });
    assert_eq!(shop.used("volume_gib"), 1);
    let kib = || shop.exec("box", "df -k / | awk 'END {print $2}'").text().parse::<u64>().unwrap();
    assert!((900_000..=1_048_576).contains(&kib()), "{} KiB", kib());
    // 1200 MB do not fit, and the container is told as by any full disk.
    let fill = "fallocate -l 1200000000 /big 2>&1 || { rm /big; echo refused; }";
    let told = shop.exec("box", fill).text();
    assert!(told.contains("No space left on device") && told.contains("refused"), "{told}");
    let before = shop.instance("box");
    assert_eq!(shop.exec("box", "echo mine >/kept; cat /kept").text(), "mine");
    let grow = UpdateInstance { disk_gib: Some(2), ..UpdateInstance::default() };
    let changed = shop.update::<Instance>("box", &grow);
    assert_eq!(changed.started_at, before.started_at, "it runs on");
    if let Some(has) = changed.until_restart {
        // The kernel of this host lets nobody grow what is mounted.
        assert_eq!((has.disk_gib, changed.size.disk_gib), (1, 2));
        let again = shop.act("box", Verb::Reboot);
        assert_eq!(again.until_restart, None, "{again:#?}");
    }
    assert!(kib() > 1_900_000, "{} KiB", kib());
    assert_eq!(shop.exec("box", "fallocate -l 1200000000 /big && cat /kept").text(), "mine");
    shop.act("box", Verb::Reboot);
    assert_eq!(shop.exec("box", "stat -c %s /big").text(), "1200000000", "a restart keeps what was written");
    shop.empty();
    lab.finish();
}

/// What is sent to see a rate, in kibibytes.
const SENT_KIB: u64 = 4096;

/// How long something on the network takes to send that to the container `sink`.
fn sends(shop: &Cloud, send: impl Fn(&str) -> lab::Ran) -> Duration {
    let to = lab::v4_of(&shop.instance("sink"));
    // Its input stays open: with the end of that it would take no more.
    let listen = "(sleep 100 </dev/null 2>/dev/null | nc -l -p 9000 >/dev/null 2>&1 &)";
    assert!(shop.exec("sink", listen).ok());
    let script = format!("dd if=/dev/zero bs=1k count={SENT_KIB} 2>/dev/null | nc -w 60 {to} 9000");
    let mut took = Duration::ZERO;
    // It may be asked before the other end listens.
    eventually("it is sent", LONG, || {
        let began = std::time::Instant::now();
        let sent = send(&script).ok();
        took = began.elapsed();
        sent
    });
    took
}

#[test]
fn guest_and_container_send_no_faster_than_their_rate() {
    const RATE_MBIT: u32 = 8;
    // What a port may send at once, beside a second of its rate.
    const BURST_BYTES: u64 = 262_144;
    let lab = Lab::new();
    let shop = lab.project("shop");
    shop.add_micro(&lab.images);
    shop.launch(&shop.idle_container("sink"));
    let network = |rate_mbit| vec![NetworkRequest { rate_mbit, ..NetworkRequest::default() }];
    shop.launch(&CreateInstance { networks: Some(network(Some(RATE_MBIT))), ..shop.idle_container("box") });
    let vm = shop.launch(&shop.micro("vm"));
    shop.wait_ssh("vm");
    // The one has its rate from the beginning, the other gets it while it runs.
    let change = serde_json::json!({"rate_mbit": RATE_MBIT});
    let change: UpdatePort = serde_json::from_value(change).unwrap();
    shop.update::<Port>(&vm.ports[0].id.to_string(), &change);
    let per_s = u64::from(RATE_MBIT) * 125_000;
    let least = Duration::from_secs_f64((SENT_KIB * 1024 - per_s - BURST_BYTES) as f64 / per_s as f64);
    let container = sends(&shop, |script| shop.exec("box", script));
    let guest = sends(&shop, |script| shop.ssh("vm", script));
    assert!(container >= least && guest >= least, "{container:?} and {guest:?}, at least {least:?}");
    shop.empty();
    lab.finish();
}

#[test]
fn short_cpus_are_shared_by_weight() {
    const LOOK_US: u64 = 3_000_000;
    let lab = Lab::new();
    let shop = lab.project("shop");
    let spin = |name: &str, weight| {
        let script = format!(
            "for i in $(seq {}); do (while :; do :; done) & done; wait",
            host(&shop).status.unwrap().cpus
        );
        shop.launch(&CreateInstance {
            vcpus: host(&shop).status.map(|status| status.cpus),
            cpu_weight: Some(weight),
            args: Some(vec!["sh".into(), "-c".into(), script]),
            ..shop.container(name, "busybox")
        })
    };
    let groups = [("light", 100), ("heavy", 300)].map(|(name, weight)| {
        let instance = spin(name, weight);
        format!("i-{}", instance.head.id.simple())
    });
    let used = || {
        let stats = |group: &String| lab.remains().tree().stats(group).unwrap().cpu_usage_us;
        [stats(&groups[0]), stats(&groups[1])]
    };
    let measure = || {
        let before = used();
        eventually("both have used CPUs", LONG, || {
            let now = used();
            (now[0] - before[0]) + (now[1] - before[1]) > LOOK_US
        });
        let now = used();
        (now[1] - before[1]) as f64 / (now[0] - before[0]).max(1) as f64
    };
    let ratio = measure();
    assert!((2.0..4.5).contains(&ratio), "3 : 1 was asked for, {ratio} : 1 was given");
    // The other way round, while they run.
    let light = UpdateInstance { cpu_weight: Some(900), ..UpdateInstance::default() };
    shop.update::<Instance>("light", &light);
    let ratio = measure();
    assert!((0.2..0.55).contains(&ratio), "1 : 3 was asked for, {ratio} : 1 was given");
    let wrong = UpdateInstance { cpu_weight: Some(0), ..UpdateInstance::default() };
    let error = shop.ask(shop.client.update::<Instance>("light", &wrong, &WaitQuery::default()));
    assert_eq!(error.expect_err("no such weight").field(), Some("cpu_weight"));
    for name in ["light", "heavy"] {
        shop.act(name, Verb::Kill);
    }
    shop.empty();
    lab.finish();
}
