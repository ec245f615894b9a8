//! The processes of a pod, as proc(5) tells of them.

use super::io_error;
use crate::{
    container::{bundle::Places, cgroup::PodGroup},
    driver::{DriverError, ProcessSeen},
};
use std::{fs, os::unix::fs::MetadataExt};

/// Most processes that are told of.
const PROCESSES_MAX: usize = 4096;
/// Most bytes of a program's arguments that are told.
const ARGV_BYTES_MAX: usize = 4096;

/// All processes of a pod, by number. Those that end meanwhile are left out.
pub(in crate::container) fn of(places: &Places) -> Result<Vec<ProcessSeen>, DriverError> {
    let group = PodGroup::open(places).map_err(io_error("look at the cgroups"))?;
    let mut pids = group.processes().map_err(|_| DriverError::NotRunning)?;
    pids.sort_unstable();
    pids.truncate(PROCESSES_MAX);
    let now_s = jiff::Timestamp::now().as_second();
    let uptime = fs::read_to_string("/proc/uptime").map_err(io_error("read the uptime"))?;
    let uptime_s = uptime.split('.').next().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    Ok(pids.into_iter().filter_map(|pid| look(pid, now_s - uptime_s)).collect())
}

fn look(pid: i32, booted_s: i64) -> Option<ProcessSeen> {
    let directory = format!("/proc/{pid}");
    let uid = fs::metadata(&directory).ok()?.uid();
    let stat = fs::read_to_string(format!("{directory}/stat")).ok()?;
    let mut arguments = fs::read(format!("{directory}/cmdline")).ok()?;
    arguments.truncate(ARGV_BYTES_MAX);
    let mut argv: Vec<String> = arguments
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty())
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect();
    let mut seen = parse(&stat, booted_s)?;
    if argv.is_empty() {
        // A process that has ended, or never had arguments, is shown by its short name.
        argv = vec![format!("[{}]", name_in(&stat)?)];
    }
    (seen.pid, seen.uid, seen.argv) = (pid, uid, argv);
    Some(seen)
}

/// The short name stands in parentheses and may have any character.
fn name_in(stat: &str) -> Option<&str> {
    stat.get(stat.find('(')? + 1..stat.rfind(')')?)
}

/// Reads the fields behind the short name: state, ppid, pgrp, session, tty_nr … (proc_pid_stat(5)).
fn parse(stat: &str, booted_s: i64) -> Option<ProcessSeen> {
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    let number = |place: usize| fields.get(place)?.parse::<i64>().ok();
    let ticks = u64::try_from(number(11)?.checked_add(number(12)?)?).ok()?;
    Some(ProcessSeen {
        parent: i32::try_from(number(1)?).ok()?,
        terminal: i32::try_from(number(4)?).ok()?,
        cpu_s: ticks / TICKS_PER_S,
        started_s: booted_s + number(19)? / TICKS_PER_S.cast_signed(),
        ..ProcessSeen::default()
    })
}

/// The kernel's unit in proc(5): USER_HZ is 100 on every architecture that holm runs on.
const TICKS_PER_S: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_confuses_nobody() {
        let stat = "42 (a) b) S 7 42 42 34816 42 4194304 1 2 3 4 250 150 0 0 20 0 1 0 12345 1 1 1";
        let seen = parse(stat, 1000).unwrap();
        assert_eq!((seen.parent, seen.terminal, seen.cpu_s, seen.started_s), (7, 34816, 4, 1123));
        assert_eq!(name_in(stat), Some("a) b"));
        assert!(parse("42 (a", 0).is_none() && parse("42 (a) S 7", 0).is_none());
    }
}
