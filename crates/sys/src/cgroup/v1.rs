//! Groups of version 1: one directory in each hierarchy, the files of Documentation/admin-guide/cgroup-v1.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{
    CPU_PERIOD_US, CPU_WEIGHT_DEFAULT, Limits, SETTLE_TIMEOUT, Stats, field, read, read_number, settle, write,
};
use crate::error::{Error, Result};

/// Shares of a group that says none.
const CPU_SHARES_DEFAULT: u64 = 1024;

type Hierarchies = BTreeMap<String, PathBuf>;

fn directory(hierarchies: &Hierarchies, controller: &str, path: &Path) -> Result<PathBuf> {
    hierarchies
        .get(controller)
        .map(|mount| mount.join(path))
        .ok_or_else(|| Error::invalid("use control group", path.display(), "a controller is not mounted"))
}

/// Puts this process to where it is, by any hierarchy.
pub(super) fn foretell(hierarchies: &Hierarchies) -> Result<()> {
    let own = |line: &str| {
        // "9:cpu,cpuacct:/path", see cgroups(7).
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let mount = controllers.split(',').find_map(|controller| hierarchies.get(controller))?;
        Some(mount.join(path.trim_start_matches('/')).join("cgroup.procs"))
    };
    match read(Path::new("/proc/self/cgroup"))?.lines().find_map(own) {
        Some(path) => write(&path, "0"),
        None => Ok(()),
    }
}

pub(super) fn set(hierarchies: &Hierarchies, path: &Path, limits: &Limits) -> Result<()> {
    let number = |limit: Option<u64>| limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string());
    let cpu = directory(hierarchies, "cpu", path)?;
    write(&cpu.join("cpu.cfs_period_us"), &CPU_PERIOD_US.to_string())?;
    write(&cpu.join("cpu.cfs_quota_us"), &number(limits.cpu_quota_us))?;
    write(&cpu.join("cpu.shares"), &shares(limits.cpu_weight).to_string())?;
    set_memory(&directory(hierarchies, "memory", path)?, limits)?;
    let pids = limits.pids_max.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
    write(&directory(hierarchies, "pids", path)?.join("pids.max"), &pids)
}

/// Weights count from 100, shares from 1024.
fn shares(weight: Option<u32>) -> u64 {
    let weight = u64::from(weight.unwrap_or(CPU_WEIGHT_DEFAULT).clamp(1, 10_000));
    (weight * CPU_SHARES_DEFAULT / u64::from(CPU_WEIGHT_DEFAULT)).max(2)
}

/// The second limit is for memory and swap together and must never be below the first: taking both away first lets any pair
/// follow any other.
fn set_memory(directory: &Path, limits: &Limits) -> Result<()> {
    let memory = directory.join("memory.limit_in_bytes");
    let both = directory.join("memory.memsw.limit_in_bytes");
    let counts_swap = both.exists();
    let total = match (limits.memory_max_bytes, limits.swap_max_bytes) {
        (Some(memory), Some(swap)) => Some(memory.saturating_add(swap)),
        _ => None,
    };
    if counts_swap {
        write(&both, "-1")?;
    }
    write(&memory, &limits.memory_max_bytes.map_or_else(|| "-1".to_owned(), |limit| limit.to_string()))?;
    match total {
        Some(total) if counts_swap => write(&both, &total.to_string()),
        _ => Ok(()),
    }
}

pub(super) fn freeze(hierarchies: &Hierarchies, path: &Path, wanted: bool) -> Result<()> {
    let directory = directory(hierarchies, "freezer", path)?;
    let file = directory.join("freezer.state");
    let state = if wanted { "FROZEN" } else { "THAWED" };
    settle("freeze or thaw", &directory.display().to_string(), SETTLE_TIMEOUT, || {
        // Written again each time: a process that was being made while the group froze needs it.
        write(&file, state)?;
        Ok(read(&file)?.trim() == state)
    })
}

pub(super) fn oom_kills(hierarchies: &Hierarchies, path: &Path) -> Result<u64> {
    let memory = directory(hierarchies, "memory", path)?;
    Ok(field(&read(&memory.join("memory.oom_control"))?, "oom_kill"))
}

pub(super) fn stats(hierarchies: &Hierarchies, path: &Path) -> Result<Stats> {
    let memory = directory(hierarchies, "memory", path)?;
    let cpu = read(&directory(hierarchies, "cpu", path)?.join("cpu.stat"))?;
    let usage_ns = match hierarchies.get("cpuacct") {
        Some(mount) => read_number(&mount.join(path).join("cpuacct.usage"))?,
        None => 0,
    };
    Ok(Stats {
        cpu_usage_us: usage_ns / 1000,
        cpu_throttled_us: field(&cpu, "throttled_time") / 1000,
        memory_bytes: read_number(&memory.join("memory.usage_in_bytes"))?,
        memory_inactive_file_bytes: field(&read(&memory.join("memory.stat"))?, "total_inactive_file"),
        pids: read_number(&directory(hierarchies, "pids", path)?.join("pids.current"))?,
        oom_kills: oom_kills(hierarchies, path)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_keep_their_ratio_as_shares() {
        assert_eq!(shares(None), 1024);
        assert_eq!(shares(Some(300)), 3 * 1024);
        assert_eq!(shares(Some(1)), 10);
        assert_eq!(shares(Some(1_000_000)), 102_400);
    }
}
