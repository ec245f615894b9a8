//! QEMU as the kernel sees it: who it is, what it may do, what it may use.

use crate::lab::Lab;
use node::driver::{Driver, Seen};
use std::{collections::HashMap, fs};

fn status(pid: u32) -> HashMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines()
        .filter_map(|line| line.split_once(":\t"))
        .map(|(name, value)| (name.into(), value.trim().into()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_runs_as_nobody_with_nothing() {
    let lab = Lab::new();
    let driver = lab.driver();
    let mut plan = lab.plan();
    plan.disks = vec![lab.disk("disk")];
    driver.start(&plan).await.unwrap();
    let Seen::Running(running) = driver.observe(plan.id).await.unwrap() else { panic!("it runs") };

    let facts = status(running.pid);
    let ids = format!("{0}\t{0}\t{0}\t{0}", lab.uid);
    assert_eq!((facts["Uid"].as_str(), facts["Gid"].as_str()), (ids.as_str(), ids.as_str()));
    assert_eq!(facts["Groups"], "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(facts[set], "0000000000000000", "{set}");
    }
    assert_eq!((facts["NoNewPrivs"].as_str(), facts["Seccomp"].as_str()), ("1", "2"));
    for namespace in ["mnt", "net", "ipc"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_ne!(of(&running.pid.to_string()), of("self"), "{namespace}");
    }
    // A leader of its own session: signals to the daemon's group do not reach it.
    let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(running.pid as i32))).unwrap();
    assert_eq!(session.as_raw(), running.pid as i32);

    let group = plan.id.to_string();
    assert_eq!(lab.cgroups.processes(&group).unwrap(), [running.pid as i32]);
    let limits: Vec<String> = (lab.cgroups.directories(&group).unwrap().iter())
        .flat_map(|directory| ["memory.max", "memory.limit_in_bytes"].map(|name| directory.join(name)))
        .filter_map(|file| fs::read_to_string(file).ok())
        .collect();
    let limit: u64 = limits[0].trim().parse().unwrap();
    assert!(limit > 128 << 20 && limit < 1 << 30, "{limit}");
    driver.destroy(plan.id).await.unwrap();
}
