//! Many real ones on one machine: 50 containers and 10 micro VMs, their memory, and how soon the cloud answers.

use crate::table::{Budget, Table, soon};
use api::v1::types::{instance::Instance, list::WaitQuery};
use lab::{Cloud, Lab};
use model::instance::{Kind, phase::Phase};
use std::{collections::BTreeMap, fs, time::Instant};

const CONTAINERS: usize = 50;
const VMS: usize = 10;
/// Of memory that is shared out, in MiB.
const GIB_MIB: f64 = 1024.0;

/// Proportional memory of a process and its descendants, in MiB.
fn memory_mib(root: i64) -> f64 {
    let mut children: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i64>() else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(pid);
    }
    let (mut todo, mut kib) = (vec![root], 0);
    while let Some(pid) = todo.pop() {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        kib += pss.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
        todo.extend(children.remove(&pid).unwrap_or_default());
    }
    kib as f64 / 1024.0
}

/// Starts them all and looks.
pub fn crowd(table: &mut Table, lab: &Lab, shop: &Cloud) {
    for resource in ["instances", "vcpus", "memory_mib", "ports", "volumes", "volume_gib"] {
        shop.set_quota(resource, 1_000_000);
    }
    let began = Instant::now();
    let requests = (0..CONTAINERS).map(|n| shop.idle_container(&format!("c-{n}")));
    let requests = requests.chain((0..VMS).map(|n| shop.micro(&format!("v-{n}"))));
    for request in requests {
        shop.must("create", shop.client.create::<Instance>(&request, &WaitQuery::default()));
    }
    let (all, _) = soon("all are running", || {
        let all = shop.list::<Instance>();
        all.iter().all(|i| i.phase == Phase::Running).then_some(all)
    });
    assert_eq!(all.len(), CONTAINERS + VMS);
    let what = "50 containers and 10 micro VMs: from the first request until all run";
    table.value(what, began.elapsed().as_secs_f64(), " s", Budget::None);
    let mut each = vec![];
    for (kind, what) in [(Kind::Container, "a container, its shim included"), (Kind::Vm, "a micro VM")] {
        let of: Vec<&Instance> = all.iter().filter(|i| i.kind == kind).collect();
        let total: f64 = of.iter().map(|i| memory_mib(i.facts["pid"].as_i64().expect("a pid"))).sum();
        table.value(&format!("memory of {what}"), total / of.len() as f64, " MiB", Budget::None);
        each.push(total / of.len() as f64);
    }
    let fit = |each: f64| (GIB_MIB / each).floor();
    let what = "how many fit into 1 GiB by that: containers, beside micro VMs";
    let (containers, vms) = (fit(each[0]), fit(each[1]));
    table.ratio(what, &containers.to_string(), &vms.to_string(), containers / vms.max(1.0), Budget::None);
    let mut list: Vec<_> = (0..20).map(|_| crate::table::took(|| drop(shop.list::<Instance>()))).collect();
    let time = crate::table::median(&mut list).as_secs_f64() * 1e3;
    table.value("list of these 60 while they run", time, " ms", Budget::None);
    let mut exec: Vec<_> =
        (0..10).map(|_| crate::table::took(|| assert!(shop.exec("c-7", "true").ok()))).collect();
    let time = crate::table::median(&mut exec).as_secs_f64() * 1e3;
    table.value("`exec` of true in one of them", time, " ms", Budget::None);
    let began = Instant::now();
    shop.empty();
    table.value("all of them deleted", began.elapsed().as_secs_f64(), " s", Budget::None);
    lab.assert_no_instances();
}
