//! Groups of version 2: the files of Documentation/admin-guide/cgroup-v2.rst.

use std::fs;
use std::io;
use std::path::Path;

use super::{
    CPU_PERIOD_US, CPU_WEIGHT_DEFAULT, Limits, SETTLE_TIMEOUT, Stats, field, read, read_number, settle, write,
};
use crate::error::{Context, Error, Result};

/// Makes a group below `mount`, and has every group above it offer the controllers to those below.
pub(super) fn make(mount: &Path, path: &Path, controllers: &[String]) -> Result<()> {
    let mut directory = mount.to_owned();
    for part in path {
        offer(&directory, controllers)?;
        directory.push(part);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::new("make control group", directory.display(), error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes only what is missing: ancestors may belong to somebody else, who has done it already.
fn offer(directory: &Path, controllers: &[String]) -> Result<()> {
    let path = directory.join("cgroup.subtree_control");
    let present = read(&path)?;
    for controller in controllers {
        if !present.split_whitespace().any(|one| one == controller) {
            write(&path, &format!("+{controller}"))?;
        }
    }
    Ok(())
}

pub(super) fn set(directory: &Path, controllers: &[String], limits: &Limits) -> Result<()> {
    let has = |name: &str| controllers.iter().any(|controller| controller == name);
    let number = |limit: Option<u64>| limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
    if has("cpu") {
        write(&directory.join("cpu.max"), &format!("{} {CPU_PERIOD_US}", number(limits.cpu_quota_us)))?;
        let weight = limits.cpu_weight.unwrap_or(CPU_WEIGHT_DEFAULT).clamp(1, 10_000);
        write(&directory.join("cpu.weight"), &weight.to_string())?;
    }
    if has("memory") {
        write(&directory.join("memory.max"), &number(limits.memory_max_bytes))?;
        let swap = directory.join("memory.swap.max");
        // A kernel without swap has no such file, and nothing to limit.
        if swap.exists() {
            write(&swap, &number(limits.swap_max_bytes))?;
        }
    }
    if has("pids") {
        write(&directory.join("pids.max"), &number(limits.pids_max))?;
    }
    Ok(())
}

pub(super) fn freeze(directory: &Path, wanted: bool) -> Result<()> {
    write(&directory.join("cgroup.freeze"), if wanted { "1" } else { "0" })?;
    let events = directory.join("cgroup.events");
    let name = directory.display().to_string();
    settle("freeze or thaw", &name, SETTLE_TIMEOUT, || {
        Ok(field(&read(&events)?, "frozen") == u64::from(wanted))
    })
}

/// Kills all at once; `false` if the kernel (before 5.14) cannot.
pub(super) fn kill(directory: &Path) -> Result<bool> {
    match fs::OpenOptions::new().write(true).open(directory.join("cgroup.kill")) {
        Ok(mut file) => {
            io::Write::write_all(&mut file, b"1").context("kill", directory.display()).map(|()| true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::new("kill", directory.display(), error)),
    }
}

pub(super) fn oom_kills(directory: &Path) -> Result<u64> {
    Ok(field(&read(&directory.join("memory.events"))?, "oom_kill"))
}

pub(super) fn stats(directory: &Path) -> Result<Stats> {
    let cpu = read(&directory.join("cpu.stat"))?;
    let memory = read(&directory.join("memory.stat"))?;
    Ok(Stats {
        cpu_usage_us: field(&cpu, "usage_usec"),
        cpu_throttled_us: field(&cpu, "throttled_usec"),
        memory_bytes: read_number(&directory.join("memory.current"))?,
        memory_inactive_file_bytes: field(&memory, "inactive_file"),
        pids: read_number(&directory.join("pids.current"))?,
        oom_kills: oom_kills(directory)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files and texts, in a directory that stands for the kernel's.
    #[test]
    fn limits_become_the_files_of_the_documentation() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = ["cpu.max", "cpu.weight", "memory.max", "memory.swap.max", "pids.max"];
        let controllers = ["cpu", "memory", "pids"].map(str::to_owned);
        let check = |limits: &Limits, expected: [&str; 5]| {
            for file in files {
                fs::write(directory.path().join(file), "").expect("written");
            }
            set(directory.path(), &controllers, limits).expect("set");
            let found = files.map(|file| fs::read_to_string(directory.path().join(file)).expect("read"));
            assert_eq!(found, expected);
        };
        check(&Limits::default(), ["max 100000", "100", "max", "max", "max"]);
        let limits = Limits {
            cpu_quota_us: Some(250_000),
            cpu_weight: Some(300),
            memory_max_bytes: Some(1 << 30),
            swap_max_bytes: Some(0),
            pids_max: Some(512),
        };
        check(&limits, ["250000 100000", "300", "1073741824", "0", "512"]);
        check(&Limits { cpu_weight: Some(0), ..limits }, ["250000 100000", "1", "1073741824", "0", "512"]);
    }

    #[test]
    fn use_is_read_from_the_files_of_the_documentation() {
        let directory = tempfile::tempdir().expect("a directory");
        let put = |file: &str, text: &str| fs::write(directory.path().join(file), text).expect("written");
        put("cpu.stat", "usage_usec 12\nuser_usec 7\nsystem_usec 5\nnr_throttled 1\nthrottled_usec 3\n");
        put("memory.stat", "anon 4096\ninactive_file 8192\n");
        put("memory.events", "low 0\noom 2\noom_kill 1\n");
        put("memory.current", "12288\n");
        put("pids.current", "4\n");
        let expected = Stats {
            cpu_usage_us: 12,
            cpu_throttled_us: 3,
            memory_bytes: 12288,
            memory_inactive_file_bytes: 8192,
            pids: 4,
            oom_kills: 1,
        };
        assert_eq!(stats(directory.path()).expect("read"), expected);
    }
}
