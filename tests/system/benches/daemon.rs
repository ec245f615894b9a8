//! The daemon itself: memory, idle time, reads and starts, with few and with many records.

use crate::{
    network,
    table::{Budget, Table, median, soon, took},
};
use api::v1::types::{
    instance::{CreateInstance, Instance, NetworkRequest},
    list::{ListQuery, WaitQuery},
    subnet::{CreateSubnet, Subnet},
};
use lab::{Cloud, Lab, Options};
use model::instance::{Kind, phase::Phase};
use std::{
    fs,
    time::{Duration, Instant},
};

const MANY: usize = 1000;
/// How long a daemon is left alone before its memory is measured.
const QUIET: Duration = Duration::from_secs(25);
/// Subnet for as many.
pub const LARGE: &str = "large";
/// Requests on their way at once.
const ABREAST: usize = 16;

/// Memory of a process in MiB: all that is resident, and what of it is its own.
pub fn memory_mib(pid: i32) -> (f64, f64) {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line of status");
        line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").trim().parse::<f64>().expect("a number")
    };
    (kib("VmRSS") / 1024.0, kib("RssAnon") / 1024.0)
}

/// What a daemon takes that has done something, once it is quiet again.
pub fn after(table: &mut Table, pid: i32, what: &str) {
    std::thread::sleep(QUIET);
    table.value(&format!("{what}, quiet again: resident memory"), memory_mib(pid).0, " MiB", Budget::None);
}

fn cpu_ticks(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let fields: Vec<&str> = text.rsplit(')').next().expect("fields").split_whitespace().collect();
    fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
}

/// What an idle daemon takes.
pub fn idle(table: &mut Table, lab: &mut Lab) {
    let pid = lab.daemon().pid();
    let fresh = memory_mib(pid).0;
    table.value("daemon that has just started: resident memory", fresh, " MiB", Budget::None);
    std::thread::sleep(Duration::from_secs(3));
    let before = cpu_ticks(pid);
    std::thread::sleep(Duration::from_secs(10));
    let ticks = cpu_ticks(pid) - before;
    let (resident, own) = memory_mib(pid);
    table.value("idle daemon: resident memory", resident, " MiB", Budget::AtMost(40.0));
    table.value("idle daemon: of that its own, not the program's file", own, " MiB", Budget::None);
    table.value("idle daemon: processor time in 10 s", (ticks * 10) as f64, " ms", Budget::AtMost(10.0));
}

/// A thousand instances whose VMs live in memory; then ten thousand records.
pub fn many(table: &mut Table) {
    let options = Options { registry: true, arguments: vec!["--fake-vms".into()], ..Options::default() };
    let mut lab = Lab::with(options);
    let crowd = lab.project("crowd");
    for resource in ["instances", "vcpus", "memory_mib", "ports", "volumes", "volume_gib"] {
        crowd.set_quota(resource, 1_000_000);
    }
    crowd.add_micro(&lab.images);
    // A project's own subnet has room for 250; this one is beside it in the same network.
    let request = serde_json::json!({"name": LARGE, "network": "default", "cidr": "10.32.0.0/16"});
    crowd.create::<Subnet>(&serde_json::from_value::<CreateSubnet>(request).expect("a subnet"));
    let began = Instant::now();
    create_all(&crowd);
    let created = began.elapsed();
    soon_running(&crowd);
    table.value(
        "1,000 instances on the fake driver: created, each",
        created.as_secs_f64() * 1e3 / MANY as f64,
        " ms",
        Budget::None,
    );
    table.value("and running", began.elapsed().as_secs_f64(), " s", Budget::None);
    let pid = lab.daemon().pid();
    // What the burst took is given back within this time.
    std::thread::sleep(QUIET);
    table.value(
        "daemon with 1,000 instances, quiet again: resident memory",
        memory_mib(pid).0,
        " MiB",
        Budget::AtMost(80.0),
    );
    reads(table, &crowd);
    network::rule_change(table, &lab, &crowd, MANY);
    table.value("after all that: resident memory", memory_mib(pid).0, " MiB", Budget::None);
    restarts(table, &mut lab);
}

/// As many instances as there are to be.
pub fn create_all(crowd: &Cloud) {
    let numbers: Vec<usize> = (0..MANY).collect();
    for chunk in numbers.chunks(ABREAST) {
        crowd.must("create", async {
            let calls = chunk.iter().map(|number| {
                let request = CreateInstance {
                    memory_mib: Some(16),
                    keypairs: vec![],
                    kind: Some(Kind::Vm),
                    networks: Some(vec![NetworkRequest {
                        subnet: Some(LARGE.into()),
                        ..NetworkRequest::default()
                    }]),
                    ..crowd.micro(&format!("one-{number}"))
                };
                let client = crowd.client.clone();
                async move { client.create::<Instance>(&request, &WaitQuery::default()).await }
            });
            futures::future::join_all(calls).await.into_iter().collect::<Result<Vec<_>, _>>()
        });
    }
}

/// Waits until all of them run.
pub fn soon_running(crowd: &Cloud) {
    soon("all are running", || {
        let all = crowd.list::<Instance>();
        (all.len() == MANY && all.iter().all(|i| i.phase == Phase::Running)).then_some(())
    });
}

fn reads(table: &mut Table, crowd: &Cloud) {
    let time = |work: &dyn Fn()| {
        let mut times: Vec<Duration> = (0..30).map(|_| took(work)).collect();
        median(&mut times).as_secs_f64() * 1e3
    };
    let whole = ListQuery { limit: Some(1000), ..ListQuery::default() };
    let list =
        time(&|| assert_eq!(crowd.must("list", crowd.client.list::<Instance>(&whole)).items.len(), MANY));
    let what = "list of 1,000 instances with all details, beside the same of Nova (5,643 ms, recorded)";
    table.ratio(what, &format!("{list:.1} ms"), "5643 ms", list / 5643.0, Budget::AtMost(0.05));
    let one = time(&|| drop(crowd.instance("one-500")));
    let what = "one instance of 1,000, beside the same of Nova (31 ms, recorded)";
    table.ratio(what, &format!("{one:.2} ms"), "31 ms", one / 31.0, Budget::AtMost(0.05));
}

/// How soon a daemon answers that has many records to read.
fn restarts(table: &mut Table, lab: &mut Lab) {
    lab.daemon().stop();
    let records = records(lab);
    let began = Instant::now();
    lab.start_daemon();
    let what = format!("start of the daemon with {records} records until it answers");
    table.value(&what, began.elapsed().as_secs_f64(), " s", Budget::AtMost(1.0));
}

/// Keys of the store.
fn records(lab: &Lab) -> usize {
    let output = std::process::Command::new("python3")
        .args(["-c", "import sqlite3,sys; print(sqlite3.connect(sys.argv[1]).execute('select count(*) from kv').fetchone()[0])"])
        .arg(lab.state().join("holm.db"))
        .output()
        .expect("python3");
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0)
}
