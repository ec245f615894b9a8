//! How often the daemon is told of a change: at once as long as that is seldom, and no guest wakes it without end.

use std::time::{Duration, Instant};

/// Changes that are told right one after the other.
const BURST: u32 = 32;
/// Between two of them after that.
const EVERY: Duration = Duration::from_millis(250);

/// When the next change may be told. Each one moves a line in time on; as long as that is not too far ahead, the next may.
#[derive(Debug)]
pub(super) struct Pace {
    line: Instant,
}

impl Pace {
    /// Nothing was told yet.
    pub fn new(now: Instant) -> Self {
        Self { line: now }
    }

    /// Until when nothing is told; `None` where that is over.
    pub fn waits_until(&self, now: Instant) -> Option<Instant> {
        let ahead = self.line.saturating_duration_since(now);
        let too_far = ahead.checked_sub(EVERY * (BURST - 1)).filter(|it| !it.is_zero())?;
        Some(now + too_far)
    }

    /// One is told.
    pub fn step(&mut self, now: Instant) {
        self.line = self.line.max(now) + EVERY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_told_at_once_and_a_flood_is_not() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut told = 0;
        // A change every millisecond, for ten seconds.
        for millisecond in 0..10_000 {
            let now = start + Duration::from_millis(millisecond);
            if pace.waits_until(now).is_none() {
                pace.step(now);
                told += 1;
                assert!(told > BURST || millisecond < u64::from(BURST));
            }
        }
        assert!((BURST..=BURST + 41).contains(&told), "{told}");
        let now = start + Duration::from_secs(10);
        let next = pace.waits_until(now).map_or(Duration::ZERO, |at| at - now);
        assert!(next <= EVERY, "{next:?}");
        // After a rest it may burst again.
        assert_eq!(pace.waits_until(now + EVERY * BURST), None);
    }
}
