//! holm beside its peers, measured in turns in one run, on real containers, guests and packets.
//!
//! ```text
//!   cargo bench -p holm-system-tests [SECTION…]     daemon containers network vms density many; default: all
//!   OUTPUT=docs/benchmarks.md                       writes the page, too
//! ```
//! It needs root, crun, podman and the release program beside it (`cargo build --release --bin holm`). It must never
//! report a pair of which one part failed.

mod containers;
mod daemon;
mod density;
mod network;
mod openstack;
mod table;
mod vms;

use lab::Lab;
use std::{fmt::Write as _, fs};
use table::Table;

fn main() {
    let sections: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wanted = |name: &str| sections.is_empty() || sections.iter().any(|section| section == name);
    let mut table = Table::default();
    let mut lab = Lab::new();
    if wanted("daemon") {
        daemon::idle(&mut table, &mut lab);
    }
    let shop = lab.project("shop");
    shop.add_micro(&lab.images);
    if wanted("containers") {
        containers::starts(&mut table, &lab, &shop);
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
    lab.finish();
    if wanted("many") {
        daemon::many(&mut table);
    }
    if wanted("openstack") {
        openstack::calls(&mut table);
    }
    let page = page(&table);
    println!("{page}");
    if let Some(path) = std::env::var_os("OUTPUT") {
        fs::write(path, page).expect("the page");
    }
}

fn page(table: &Table) -> String {
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
    page + &table.page()
}
