//! What instances were seen to use: the highest use of each hour of the last week, and the size that would do.
//!
//! A host measures once a minute and keeps peaks in its own memory: they change too often for the store, and what is
//! lost with a restart of holm is measured again.

use crate::flavor::Size;
use jiff::Timestamp;
use std::collections::VecDeque;

/// Hours that are kept.
pub const HOURS_KEPT: usize = 7 * 24;
/// Seconds that are measured before any size is named.
pub const MEASURED_S_MIN: u64 = 3_600;
/// Seconds between two looks after which nothing is known of the time between them.
const GAP_S_MAX: i64 = 300;
/// Memory that is left to an instance beyond its peak, in parts of that, and at least.
const SPARE_PART: u64 = 4;
const SPARE_MIB: u64 = 32;

/// The highest use in one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hour {
    number: i64,
    measured_s: u64,
    memory_bytes: u64,
    cpu_millis: u64,
}

/// What an instance was seen to use, hour by hour.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    hours: VecDeque<Hour>,
    last: Option<(Timestamp, u64)>,
}

/// The highest use in all that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peaks {
    /// Seconds of which anything is known.
    pub measured_s: u64,
    /// Memory in MiB, rounded up.
    pub memory_mib: u64,
    /// Thousandths of a CPU, over a minute.
    pub cpu_millis: u64,
}

impl History {
    /// Adds what is seen now: memory in use, and processor time since the start.
    pub fn add(&mut self, now: Timestamp, memory_bytes: u64, cpu_usage_us: u64) {
        let before = self.last.replace((now, cpu_usage_us));
        let passed = before.map(|(at, cpu)| (now.duration_since(at).as_secs(), cpu));
        // A start in between begins to count anew.
        let known =
            passed.filter(|(passed_s, cpu)| (1..=GAP_S_MAX).contains(passed_s) && *cpu <= cpu_usage_us);
        let (measured_s, cpu_millis) = known.map_or((0, 0), |(passed_s, cpu)| {
            let passed_s = passed_s.unsigned_abs();
            (passed_s, (cpu_usage_us - cpu).div_ceil(1_000 * passed_s))
        });
        let number = now.as_second().div_euclid(3_600);
        if self.hours.back().is_none_or(|hour| hour.number != number) {
            self.hours.push_back(Hour { number, measured_s: 0, memory_bytes: 0, cpu_millis: 0 });
        }
        while self.hours.len() > HOURS_KEPT
            || self.hours.front().is_some_and(|hour| hour.number + HOURS_KEPT as i64 <= number)
        {
            self.hours.pop_front();
        }
        if let Some(hour) = self.hours.back_mut() {
            hour.measured_s += measured_s;
            hour.memory_bytes = hour.memory_bytes.max(memory_bytes);
            hour.cpu_millis = hour.cpu_millis.max(cpu_millis);
        }
    }

    /// The highest of all; `None` before anything was seen.
    pub fn peaks(&self) -> Option<Peaks> {
        let highest = |of: fn(&Hour) -> u64| self.hours.iter().map(of).max();
        Some(Peaks {
            measured_s: self.hours.iter().map(|hour| hour.measured_s).sum(),
            memory_mib: highest(|hour| hour.memory_bytes)?.div_ceil(1 << 20),
            cpu_millis: highest(|hour| hour.cpu_millis)?,
        })
    }
}

impl Peaks {
    /// Memory that would do, in MiB.
    pub fn needed_mib(self) -> u64 {
        self.memory_mib + (self.memory_mib / SPARE_PART).max(SPARE_MIB)
    }

    /// CPUs that would do.
    pub fn needed_vcpus(self) -> u32 {
        let millis = self.cpu_millis + self.cpu_millis / SPARE_PART;
        u32::try_from(millis.div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
    }
}

/// The least of `sizes` that would do instead of `has`: none of it larger, some of it smaller. `None` while too little was
/// measured, and where nothing smaller would do.
pub fn smaller<T>(has: Size, peaks: Peaks, sizes: impl IntoIterator<Item = (T, Size)>) -> Option<(T, Size)> {
    if peaks.measured_s < MEASURED_S_MIN {
        return None;
    }
    let fits = |size: &Size| {
        let is_less = (size.memory_mib, size.vcpus) != (has.memory_mib, has.vcpus);
        (peaks.needed_mib()..=has.memory_mib).contains(&size.memory_mib)
            && (peaks.needed_vcpus()..=has.vcpus).contains(&size.vcpus)
            && is_less
    };
    let fitting = sizes.into_iter().filter(|(_, size)| fits(size));
    fitting.min_by_key(|(_, size)| (size.memory_mib, size.vcpus))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flavor::defaults;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn peaks_are_kept_for_a_week_and_no_longer() {
        let mut history = History::default();
        assert_eq!(history.peaks(), None);
        // Half a CPU all the time, a whole one for one minute of the second hour, and 300 MiB once in the third.
        let mut cpu_us = 0;
        for minute in 0..240 {
            let memory = if minute == 150 { 300 << 20 } else { 100 << 20 };
            history.add(at(minute * 60), memory, cpu_us);
            cpu_us += if minute == 90 { 60_000_000 } else { 30_000_000 };
        }
        let peaks = history.peaks().unwrap();
        assert_eq!(peaks, Peaks { measured_s: 239 * 60, memory_mib: 300, cpu_millis: 1_000 });
        let week = i64::try_from(HOURS_KEPT).unwrap() * 3_600;
        history.add(at(week + 3_600), 50 << 20, cpu_us);
        assert_eq!(history.peaks().unwrap().memory_mib, 300, "the third hour is still there");
        history.add(at(week + 2 * 3_600), 50 << 20, cpu_us);
        let peaks = history.peaks().unwrap();
        assert_eq!((peaks.memory_mib, peaks.cpu_millis), (100, 500), "the fourth one is what is left");
        history.add(at(3 * week), 1, cpu_us);
        assert_eq!(history.peaks().unwrap(), Peaks { measured_s: 0, memory_mib: 1, cpu_millis: 0 });
    }

    #[test]
    fn a_start_or_a_gap_in_between_is_no_use_of_cpus() {
        let mut history = History::default();
        history.add(at(0), 1, 50_000_000);
        history.add(at(60), 1, 1_000);
        history.add(at(1_000), 1, 900_000_000);
        assert_eq!(history.peaks().unwrap(), Peaks { measured_s: 0, memory_mib: 1, cpu_millis: 0 });
        history.add(at(1_060), 1, 900_000_001);
        assert_eq!(history.peaks().unwrap(), Peaks { measured_s: 60, memory_mib: 1, cpu_millis: 1 });
    }

    #[test]
    fn the_smallest_flavor_with_room_to_spare_would_do() {
        let size = |vcpus, memory_mib| Size { vcpus, memory_mib, disk_gib: 10 };
        let would = |has: Size, measured_s, memory_mib, cpu_millis| {
            let peaks = Peaks { measured_s, memory_mib, cpu_millis };
            smaller(has, peaks, defaults()).map(|(name, _)| name)
        };
        let day = 86_400;
        for (has, measured_s, memory_mib, cpu_millis, expected) in [
            (size(2, 4_096), day, 210, 300, Some("g1.c1m512")),
            (size(2, 4_096), MEASURED_S_MIN - 1, 210, 300, None),
            (size(2, 4_096), day, 210, 900, None),
            (size(4, 8_192), day, 210, 1_500, Some("g2.c2m4g")),
            (size(1, 512), day, 420, 300, None),
            (size(1, 512), day, 96, 300, Some("g1.c1m128")),
            (size(1, 512), day, 97, 300, Some("g1.c1m256")),
            (size(1, 64), day, 1, 1, None),
            (size(2, 512), day, 300, 10, Some("g1.c1m512")),
        ] {
            let found = would(has, measured_s, memory_mib, cpu_millis);
            assert_eq!(found, expected, "{has:?} of which {memory_mib} MiB and {cpu_millis} are used");
        }
    }
}
