//! This host as it tells of itself: what it has, what it can do, and that it lives.

use jiff::Timestamp;
use model::{
    id::NodeId,
    node::{NodeStatus, Room},
};
use std::{collections::BTreeMap, fs, io, path::Path};

/// What does not change while holm runs, besides what is asked afresh each time.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// What VMs run on.
    pub accelerator: String,
    /// Why, and what to do for better.
    pub accelerator_reason: String,
    /// QEMU's version, empty where there is none.
    pub qemu: String,
    /// Further facts.
    pub facts: BTreeMap<String, String>,
    /// CPUs that it is taken to have, where these are not its own.
    pub cpus: Option<u32>,
}

/// Id of this boot of the host, from the kernel.
///
/// # Errors
/// When /proc is not mounted.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_string())
}

/// The host's status now. `state` is the directory whose file system counts.
///
/// # Errors
/// When /proc or the directory cannot be read.
pub fn status(id: NodeId, state: &Path, known: &HostFacts) -> io::Result<NodeStatus> {
    let Room { total_bytes, available_bytes, .. } = disk_room(state)?;
    Ok(NodeStatus {
        id,
        arch: std::env::consts::ARCH.to_string(),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_string(),
        os: os_name(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        boot_id: boot_id()?,
        cpus: known.cpus.unwrap_or_else(own_cpus),
        memory_mib: memory_mib(&fs::read_to_string("/proc/meminfo")?),
        disk_gib: total_bytes >> 30,
        disk_free_gib: available_bytes >> 30,
        accelerator: known.accelerator.clone(),
        accelerator_reason: known.accelerator_reason.clone(),
        qemu: known.qemu.clone(),
        facts: known.facts.clone(),
        at: Timestamp::now(),
    })
}

fn own_cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
}

fn memory_mib(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn os_name() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or("Linux".to_string(), |n| n.trim_matches('"').to_string())
}

/// The room in the file system of a directory.
///
/// # Errors
/// When it is not there.
pub fn disk_room(path: &Path) -> io::Result<Room> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    let unit = stat.fragment_size();
    Ok(Room {
        total_bytes: stat.blocks() * unit,
        used_bytes: stat.blocks().saturating_sub(stat.blocks_free()) * unit,
        available_bytes: stat.blocks_available() * unit,
    })
}

/// CPUs of this host that a process may run on, as the kernel lists them: `0-3,8` (proc_pid_status(5)).
pub fn cpus_of(pid: i32) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    Some(line.trim().to_string())
}

/// Version of a QEMU program, like `7.2.22`; empty when it cannot be run.
pub fn qemu_version(program: &str) -> String {
    let output = std::process::Command::new(program).arg("--version").output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let version = text.split_whitespace().skip_while(|word| *word != "version").nth(1);
    version.unwrap_or_default().trim_end_matches(',').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read() {
        assert_eq!(memory_mib("MemTotal:       24652128 kB\nMemFree: 1 kB\n"), 24074);
        assert_eq!(memory_mib(""), 0);
    }

    #[test]
    fn cpus_of_a_process_are_read() {
        let own = cpus_of(i32::try_from(std::process::id()).unwrap()).expect("it lives");
        assert!(own.starts_with(|first: char| first.is_ascii_digit()), "{own}");
        assert_eq!(cpus_of(-1), None);
    }
}
