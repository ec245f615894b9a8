//! holm beside its peers, measured in turns in one run, on real containers, guests and packets.
//!
//! ```text
//!   cargo bench -p holm-system-tests [SECTION…]     SECTIONS below; default: all
//!   OUTPUT=docs/benchmarks.md                       writes the page, too
//! ```
//! It needs root, the images of `scripts/images` (its peers are one of them) and the release program beside it (`cargo build
//! --release --bin holm`). It must never report a pair of which one part failed.

mod containers;
mod daemon;
mod density;
mod deployment;
mod engines;
mod network;
mod openstack;
mod peers;
mod table;
mod vms;

use lab::{Cloud, Lab};
use peers::Peers;
use std::{fmt::Write as _, fs};
use table::Table;

/// What can be measured alone.
const SECTIONS: [&str; 11] = [
    "daemon",
    "containers",
    "build",
    "pull",
    "crowd",
    "network",
    "vms",
    "density",
    "deployment",
    "many",
    "openstack",
];

fn main() {
    let sections: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if let Some(unknown) = sections.iter().find(|section| !SECTIONS.contains(&section.as_str())) {
        eprintln!("bench: no section is called '{unknown}': {}", SECTIONS.join(", "));
        std::process::exit(2);
    }
    let wanted = |name: &str| sections.is_empty() || sections.iter().any(|section| section == name);
    let mut table = Table::default();
    let mut lab = Lab::new();
    if wanted("daemon") {
        daemon::idle(&mut table, &mut lab);
    }
    let shop = lab.project("shop");
    shop.add_micro(&lab.images);
    let mut versions = String::new();
    if ["containers", "build", "pull", "crowd"].into_iter().any(wanted) {
        let pid = lab.daemon().pid();
        versions = beside_engines(&mut table, (&lab, pid), &shop, &wanted);
    }
    if wanted("network") {
        network::traffic(&mut table, &lab, &shop);
        network::floating_ip_move(&mut table, &lab, &shop);
    }
    if wanted("vms") {
        vms::boots(&mut table, &lab, &shop);
    }
    if wanted("density") {
        density::crowd(&mut table, &lab, &shop);
    }
    if wanted("deployment") {
        deployment::scale(&mut table, &lab);
    }
    lab.finish();
    if wanted("many") {
        daemon::many(&mut table);
    }
    if wanted("openstack") {
        openstack::calls(&mut table);
    }
    let page = page(&table, &versions);
    println!("{page}");
    if let Some(path) = std::env::var_os("OUTPUT") {
        fs::write(path, page).expect("the page");
    }
}

/// What is measured beside other engines, and which these were.
fn beside_engines(
    table: &mut Table,
    (lab, pid): (&Lab, i32),
    shop: &Cloud,
    wanted: &dyn Fn(&str) -> bool,
) -> String {
    peers::add_images(lab, lab.registry(), &lab.world.machine);
    let entered = Peers::enter(lab);
    let peers = entered.as_ref();
    engines::warm(lab, peers);
    if wanted("containers") {
        containers::starts(table, lab, shop, peers);
        daemon::after(table, pid, "daemon after these starts");
    }
    if wanted("build") {
        engines::builds(table, lab, peers);
    }
    if wanted("crowd") {
        engines::crowds(table, lab, shop, peers);
    }
    if wanted("pull") {
        engines::pulls(table, peers);
    }
    shop.empty();
    peers.map(|peers| format!(" ({})", peers.versions())).unwrap_or_default()
}

fn page(table: &Table, versions: &str) -> String {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_string();
        line.split_once(':').map_or(line.clone(), |(_, value)| value.trim().to_string())
    };
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let size = fs::metadata(lab::program()).map_or(0, |meta| meta.len());
    let mut page = String::from("# Benchmarks\n\n");
    let _ = writeln!(
        page,
        "Written by `make bench`. Pairs were measured in turns in one run; times are medians; a ratio is holm's value by\n\
         that of what stands beside it. Where a figure of a real OpenStack stands beside it, that was recorded on a machine\n\
         of this kind, not measured in this run.\n\n\
         {cpus} CPUs ({}), {} of memory, Linux {}, load {}; the program has {:.1} MiB.\n",
        first("/proc/cpuinfo", "model name"),
        first("/proc/meminfo", "MemTotal"),
        kernel.trim(),
        load.split(' ').next().unwrap_or_default(),
        size as f64 / f64::from(1 << 20),
    );
    page += &table.page();
    let _ = write!(
        page,
        "\n## What stands beside it\n\n\
         The engines are Debian 13's{versions},\n\
         unpacked into a root of their own and run in namespaces of their own (`scripts/images/peers`); their files lie\n\
         on the same file system as holm's. docker has its overlay2 store, its bridge and iptables; podman its overlay store,\n\
         netavark and crun. A peer that a machine does not run has its reason in its row.\n\n\
         - `docker run`, `docker build` and the crowd: holm and docker are asked by the same client, docker's own; podman is one.\n\
         - Builds: {}\n\
         - Pulls: plain HTTP on loopback; three layers of 40 MB that cannot be packed, three of 2,000 files that can, one of busybox.\n  \
           holm pulls into an empty state, the others after `rmi`.\n\
         - Memory: proportional (PSS), of the daemon and all that stands beside each container (holm's shims; containerd and its shims;\n  \
           conmon), without the containers' own programs.\n\
         - Resident memory of the daemon: with what is mapped of its file. Five seconds after its start it lets go of that, once: it\n  \
           stays in the kernel's cache of files, which gives it up when there is need of room, and what is used is mapped again. So\n  \
           `idle` is a daemon that nobody has asked anything yet; one that has started containers has most of it mapped again.\n",
        engines::BUILD,
    );
    page
}
