//! How long a failing key waits: doubling, bounded, and spread so that many do not come back together.

use std::time::Duration;

use rand::{Rng, RngCore};

/// The waiting times of a key that fails again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// About how long after the first failure; doubled with each further one.
    pub first: Duration,
    /// No wait is longer.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(120) }
    }
}

impl Backoff {
    /// The wait after so many failures in a row: between half of the doubled time and all of it.
    pub fn delay(&self, failures: u32, rng: &mut dyn RngCore) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.first.saturating_mul(1 << doublings).min(self.longest);
        full.mul_f64(rng.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn waits_double_stay_in_bounds_and_differ() {
        let backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(10) };
        let mut rng = StdRng::seed_from_u64(7);
        let mut check = |failures: u32, full_ms: u64| {
            let delays: Vec<Duration> = (0..100).map(|_| backoff.delay(failures, &mut rng)).collect();
            let full = Duration::from_millis(full_ms);
            assert!(delays.iter().all(|delay| (full / 2..=full).contains(delay)), "{failures}: {delays:?}");
            assert!(delays.iter().any(|delay| *delay != delays[0]), "{failures} failures: no jitter");
        };
        check(0, 100);
        check(1, 100);
        check(2, 200);
        check(7, 6400);
        check(8, 10_000);
        check(33, 10_000);
        check(u32::MAX, 10_000);
    }
}
