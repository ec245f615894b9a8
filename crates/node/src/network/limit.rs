//! Token buckets: how many questions each port may ask of a service.
//!
//! The table is bounded, so that a flood from many sources costs no memory.

use std::{collections::HashMap, hash::Hash, time::Instant};

/// Most sources that a limiter remembers at once.
const SOURCES_MAX: usize = 4096;

/// How much a source may ask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// At once.
    pub burst: f64,
    /// In the long run.
    pub per_second: f64,
}

/// A bucket per source.
#[derive(Debug)]
pub struct RateLimit<K> {
    rate: Rate,
    buckets: HashMap<K, (f64, Instant)>,
}

impl<K: Eq + Hash> RateLimit<K> {
    /// A limiter that has seen nobody.
    pub fn new(rate: Rate) -> Self {
        Self { rate, buckets: HashMap::new() }
    }

    /// Takes a token of `source`, if it has one.
    pub fn take(&mut self, source: K, now: Instant) -> bool {
        if self.buckets.len() >= SOURCES_MAX && !self.buckets.contains_key(&source) {
            self.forget_full(now);
            if self.buckets.len() >= SOURCES_MAX {
                return false;
            }
        }
        let Rate { burst, per_second } = self.rate;
        let (tokens, seen) = self.buckets.entry(source).or_insert((burst, now));
        *tokens = (*tokens + now.saturating_duration_since(*seen).as_secs_f64() * per_second).min(burst);
        *seen = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }

    /// Forgets sources whose bucket has filled up again: forgetting them changes nothing.
    fn forget_full(&mut self, now: Instant) {
        let Rate { burst, per_second } = self.rate;
        self.buckets.retain(|_, (tokens, seen)| {
            *tokens + now.saturating_duration_since(*seen).as_secs_f64() * per_second < burst
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_source_gets_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut limit = RateLimit::new(Rate { burst: 3.0, per_second: 2.0 });
        let taken = (0..10).filter(|_| limit.take("a", start)).count();
        assert_eq!(taken, 3);
        assert!(limit.take("b", start), "another source has its own bucket");
        let later = start + Duration::from_secs(1);
        assert_eq!((0..10).filter(|_| limit.take("a", later)).count(), 2);
    }

    #[test]
    fn a_flood_of_sources_is_bounded() {
        let start = Instant::now();
        let mut limit = RateLimit::new(Rate { burst: 1.0, per_second: 1.0 });
        for source in 0..2 * SOURCES_MAX {
            limit.take(source, start);
        }
        assert!(limit.buckets.len() <= SOURCES_MAX);
        assert!(limit.take(usize::MAX, start + Duration::from_secs(5)), "old sources make room");
    }
}
