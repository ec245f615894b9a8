//! Sizes: what is asked for is what a guest sees; it changes later, within the host and the quota, and CPUs that are
//! short are shared by weight.

use api::{
    client::Verb,
    v1::types::{
        instance::{CreateInstance, Instance, UpdateInstance},
        list::WaitQuery,
        node::Node,
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

#[test]
fn guest_and_container_take_another_size() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    shop.add_micro(&lab.images);
    let free = host(&shop).used;
    let vm = shop.launch(&shop.micro("vm"));
    shop.launch(&CreateInstance { memory_mib: Some(64), ..shop.idle_container("box") });
    let used = host(&shop).used;
    assert_eq!((used.vcpus, used.memory_mib), (free.vcpus + 2, free.memory_mib + 128 + 64), "{used:?}");
    shop.wait_ssh("vm");
    assert_eq!(shop.ssh("vm", "nproc").text(), "1");

    // A running VM keeps what it has, and says so; the restart brings the rest.
    let grow = UpdateInstance { vcpus: Some(3), memory_mib: Some(192), ..UpdateInstance::default() };
    let changed = shop.update::<Instance>("vm", &grow);
    let has = changed.until_restart.expect("it waits for a restart");
    assert_eq!((has.vcpus, has.memory_mib, changed.size.vcpus), (1, 128, 3));
    assert_eq!(changed.started_at, vm.started_at, "it runs on");
    assert_eq!(shop.ssh("vm", "nproc").text(), "1");
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
