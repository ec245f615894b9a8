//! The OpenStack door beside what a real OpenStack took on a machine of this kind, by the same calls.
//!
//! `scripts/bench.d/openstack.py` times them, against any cloud. What stands beside was recorded once, not in this run.

use crate::{
    daemon::{LARGE, create_all, memory_mib, soon_running},
    table::{Budget, Table},
};
use api::v1::types::{
    network::{CreateNetwork, Network},
    subnet::{CreateSubnet, Subnet},
};
use lab::{Lab, Options};
use std::{fs, path::Path, process::Command};

const DOOR: &str = "127.0.0.1:5003";
/// Servers of the list.
const SERVERS: usize = 1000;
/// Most networks and instances that the calls make.
const ROOM: u64 = 1_000_000;

/// A call: its key in the script's answer, what it is, what the real OpenStack took in milliseconds, and the budget.
const CALLS: [(&str, &str, f64, Budget); 7] = [
    ("token", "OpenStack API: a token by password", 270.0, Budget::AtMost(0.5)),
    ("validate", "OpenStack API: a token is checked", 49.0, Budget::AtMost(0.05)),
    ("flavors", "OpenStack API: list of flavors", 9.5, Budget::AtMost(0.5)),
    ("networks", "OpenStack API: list of networks", 16.0, Budget::AtMost(0.5)),
    ("network_create", "OpenStack API: a network is made", 32.0, Budget::AtMost(0.5)),
    ("server", "OpenStack API: one server of 1,000", 31.0, Budget::AtMost(0.05)),
    ("servers", "OpenStack API: list of 1,000 servers with details", 5643.0, Budget::AtMost(0.05)),
];
/// Memory of the real OpenStack's processes when nothing was asked of them, in MiB.
const IDLE_MIB: f64 = 2.45 * 1024.0;

/// Calls of the door with a thousand servers behind it.
pub fn calls(table: &mut Table) {
    let arguments = vec!["--fake-vms".into(), "--openstack".into(), DOOR.into()];
    let mut lab = Lab::with(Options { registry: true, arguments, ..Options::default() });
    std::thread::sleep(std::time::Duration::from_secs(3));
    let idle = memory_mib(lab.daemon().pid()).0;
    let what = "memory when nothing is asked, beside all processes of that OpenStack";
    let (ours, theirs) = (format!("{idle:.1} MiB"), format!("{IDLE_MIB:.0} MiB"));
    table.ratio(what, &ours, &theirs, idle / IDLE_MIB, Budget::AtMost(0.05));
    let admin = lab.project("admin");
    for resource in ["instances", "vcpus", "memory_mib", "ports", "volumes", "volume_gib", "networks"] {
        admin.set_quota(resource, ROOM);
    }
    admin.add_micro(&lab.images);
    // This project begins with no network.
    let request = serde_json::json!({"name": "bench"});
    admin.create::<Network>(&serde_json::from_value::<CreateNetwork>(request).expect("a network"));
    let request = serde_json::json!({"name": LARGE, "network": "bench", "cidr": "10.32.0.0/16"});
    admin.create::<Subnet>(&serde_json::from_value::<CreateSubnet>(request).expect("a subnet"));
    create_all(&admin);
    soon_running(&admin);
    let took = timed(&lab);
    for (key, what, theirs, budget) in CALLS {
        let ours = took[key].as_f64().unwrap_or_else(|| panic!("{key} was measured: {took}"));
        table.ratio(what, &format!("{ours:.2} ms"), &format!("{theirs} ms"), ours / theirs, budget);
    }
}

/// What the script says, run on the lab's machine as the user admin.
fn timed(lab: &Lab) -> serde_json::Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/bench.d/openstack.py");
    let password = fs::read_to_string(lab.state().join("openstack/admin-password")).expect("password");
    let mut command = Command::new("python3");
    command
        .arg(script)
        .arg(SERVERS.to_string())
        .env("OS_AUTH_URL", format!("http://{DOOR}/identity/v3"))
        .env("OS_USERNAME", "admin")
        .env("OS_PASSWORD", password.trim())
        .env("OS_PROJECT_NAME", "admin")
        .env("OS_USER_DOMAIN_NAME", "Default")
        .env("OS_PROJECT_DOMAIN_NAME", "Default");
    let output = lab.world.machine.run(move || command.output()).expect("enter").expect("python3");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"))
}
