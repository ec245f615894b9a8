//! `HEALTHCHECK`.

use super::{Flags, Program, program};
use crate::dockerfile::words::WordResult;

/// Least time between two probes, as docker has it.
const INTERVAL_NS_MIN: u64 = 1_000_000;

/// How the health of containers is asked for. Times are in nanoseconds, 0 where nothing was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What asks.
    pub program: Program,
    /// Time between two probes.
    pub interval_ns: u64,
    /// How long one may take.
    pub timeout_ns: u64,
    /// Time in which failures do not count.
    pub start_period_ns: u64,
    /// Time between two probes in that time.
    pub start_interval_ns: u64,
    /// Failures in a row that make it unhealthy; 0 where nothing was said.
    pub retries: u32,
}

pub(super) fn read(mut flags: Flags, text: &str) -> WordResult<Option<Check>> {
    let mut time = |name: &str| -> WordResult<u64> {
        let Some(text) = flags.value(name)? else { return Ok(0) };
        let wrong = || format!("time: invalid duration {text:.40?} of --{name}");
        let time = duration_ns(&text).ok_or_else(wrong)?;
        if time != 0 && time < INTERVAL_NS_MIN {
            return Err(format!("--{name} can not be less than 1ms"));
        }
        Ok(time)
    };
    let (interval_ns, timeout_ns) = (time("interval")?, time("timeout")?);
    let (start_period_ns, start_interval_ns) = (time("start-period")?, time("start-interval")?);
    let retries = match flags.value("retries")? {
        None => 0,
        Some(text) => match text.parse::<u32>() {
            Ok(number) if number <= i32::MAX as u32 => number,
            _ => return Err(format!("--retries {text:.40?} is no whole number")),
        },
    };
    let is_bare = flags.0.is_empty();
    flags.end()?;
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    match (word.to_ascii_uppercase().as_str(), rest.trim()) {
        ("NONE", "") if is_bare => Ok(None),
        ("NONE", _) => Err("HEALTHCHECK NONE takes no arguments".into()),
        ("CMD", "") => Err("missing command after HEALTHCHECK CMD".into()),
        ("CMD", rest) => {
            let program = program(rest);
            Ok(Some(Check { program, interval_ns, timeout_ns, start_period_ns, start_interval_ns, retries }))
        }
        (other, _) => Err(format!("unknown type {other:.40?} in HEALTHCHECK (try CMD)")),
    }
}

/// A duration as Go writes it: `1h30m`, `1.5s`, `100ms`.
fn duration_ns(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut sum) = (text, 0_f64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let factor = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        rest = &rest[end..];
        sum += number * factor;
    }
    // Go's durations end at 292 years.
    (sum < 9.2e18).then_some(sum as u64)
}
