//! What is to be run when: the pure heart of the loop, without tasks, clock or randomness.
//!
//! It exists so that the promises (one run per key, no lost add, bounded memory) can be checked by feeding
//! it any sequence of calls. Time comes in as an argument. A key is held only while it waits or runs.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt::Debug,
    hash::Hash,
    time::Duration,
};

use tokio::time::Instant;

/// What a key must be: something to copy, compare and print.
pub trait Key: Clone + Eq + Hash + Debug + Send + Sync + 'static {}
impl<K: Clone + Eq + Hash + Debug + Send + Sync + 'static> Key for K {}

/// How a run ended, with the wait already decided.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    Done,
    Again,
    After(Duration),
    Failed { error: String, delay: Duration },
}

/// A row of failures that has not ended yet.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) count: u32,
    pub(crate) since: Instant,
    pub(crate) last: Instant,
    pub(crate) error: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Ready,
    /// Waits for its time; `(time, ticket)` is its place among the delayed.
    Delayed(Instant, u64),
    /// Runs; if it was added meanwhile, when it is due again.
    Running {
        since: Instant,
        again: Option<Instant>,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) stage: Stage,
    pub(crate) failure: Option<Failure>,
}

pub(crate) struct Agenda<K> {
    entries: HashMap<K, Entry>,
    ready: VecDeque<K>,
    delayed: BTreeMap<(Instant, u64), K>,
    tickets: u64,
    running: usize,
    keys_max: usize,
    retry_floor: Duration,
    missed: bool,
}

impl<K: Key> Agenda<K> {
    /// An empty agenda for at most `keys_max` keys; a failing key that is added is not tried before
    /// `retry_floor` after it failed.
    pub(crate) fn new(keys_max: usize, retry_floor: Duration) -> Agenda<K> {
        Agenda {
            entries: HashMap::new(),
            ready: VecDeque::new(),
            delayed: BTreeMap::new(),
            tickets: 0,
            running: 0,
            keys_max: keys_max.max(1),
            retry_floor,
            missed: false,
        }
    }

    /// Sees to it that a run of the key starts when `due` is reached (or before) and after this call. False
    /// if there is no place for another key.
    #[must_use]
    pub(crate) fn add(&mut self, key: K, due: Instant, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&key) else {
            if self.entries.len() >= self.keys_max {
                return false;
            }
            self.entries.insert(key.clone(), Entry { stage: Stage::Ready, failure: None });
            self.schedule(key, due, now);
            return true;
        };
        match &mut entry.stage {
            Stage::Ready => {}
            Stage::Running { again, .. } => *again = Some(again.map_or(due, |again| again.min(due))),
            Stage::Delayed(at, ticket) => {
                let floor = entry.failure.as_ref().map(|failure| failure.last + self.retry_floor);
                let due = floor.map_or(due, |floor| floor.max(due));
                if due < *at {
                    let place = (*at, *ticket);
                    self.delayed.remove(&place);
                    self.schedule(key, due, now);
                }
            }
        }
        true
    }

    /// The next key to run now; it counts as running until [`Self::finish`].
    pub(crate) fn start(&mut self, now: Instant) -> Option<K> {
        while let Some(first) = self.delayed.first_entry() {
            if first.key().0 > now {
                break;
            }
            let key = first.remove();
            self.set_stage(&key, Stage::Ready);
            self.ready.push_back(key);
        }
        let key = self.ready.pop_front()?;
        self.set_stage(&key, Stage::Running { since: now, again: None });
        self.running += 1;
        Some(key)
    }

    /// Ends a run. Gives the number of failures in a row.
    pub(crate) fn finish(&mut self, key: &K, verdict: Verdict, now: Instant) -> u32 {
        let Some(Entry { stage: Stage::Running { again, .. }, failure }) = self.entries.get_mut(key) else {
            return 0;
        };
        let again = *again;
        self.running -= 1;
        let mut failures = 0;
        let due = match verdict {
            Verdict::Failed { error, delay } => {
                let before = failure.take();
                let since = before.as_ref().map_or(now, |before| before.since);
                failures = before.map_or(0, |before| before.count).saturating_add(1);
                *failure = Some(Failure { count: failures, since, last: now, error });
                let again = again.map(|again| again.max(now + self.retry_floor));
                Some(again.map_or(now + delay, |again| again.min(now + delay)))
            }
            verdict => {
                *failure = None;
                let wanted = match verdict {
                    Verdict::Again => Some(now),
                    Verdict::After(wait) => Some(now + wait),
                    Verdict::Done | Verdict::Failed { .. } => None,
                };
                wanted.into_iter().chain(again).min()
            }
        };
        match due {
            Some(due) => self.schedule(key.clone(), due, now),
            None => _ = self.entries.remove(key),
        }
        failures
    }

    /// When the next delayed key is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|((due, _), _)| *due)
    }

    /// How many failures in a row the key has had.
    pub(crate) fn failures(&self, key: &K) -> u32 {
        self.entries.get(key).and_then(|entry| entry.failure.as_ref()).map_or(0, |failure| failure.count)
    }

    /// Notes that a key was turned away, so that all keys have to be listed anew when there is room.
    pub(crate) fn miss(&mut self) {
        self.missed = true;
    }

    /// Whether a key was turned away since this was asked last.
    pub(crate) fn take_missed(&mut self) -> bool {
        std::mem::take(&mut self.missed)
    }

    /// Whether so many places are free that listing keys anew is worth it.
    pub(crate) fn has_room(&self) -> bool {
        self.entries.len() <= self.keys_max / 2
    }

    pub(crate) fn entry(&self, key: &K) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&K, &Entry)> {
        self.entries.iter()
    }

    /// Ready, delayed, running.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.ready.len(), self.delayed.len(), self.running)
    }

    fn schedule(&mut self, key: K, due: Instant, now: Instant) {
        if due <= now {
            self.set_stage(&key, Stage::Ready);
            self.ready.push_back(key);
        } else {
            self.tickets += 1;
            self.set_stage(&key, Stage::Delayed(due, self.tickets));
            self.delayed.insert((due, self.tickets), key);
        }
    }

    fn set_stage(&mut self, key: &K, stage: Stage) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.stage = stage;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const FLOOR: Duration = Duration::from_millis(100);

    #[derive(Debug, Clone)]
    enum Call {
        Add(u8),
        AddLater(u8, u16),
        Start,
        Finish(u8, u8),
        Pass(u16),
    }

    fn calls() -> impl Strategy<Value = Vec<Call>> {
        let key = 0..6_u8;
        let call = prop_oneof![
            3 => key.clone().prop_map(Call::Add),
            1 => (key.clone(), 1..500_u16).prop_map(|(key, wait)| Call::AddLater(key, wait)),
            4 => Just(Call::Start),
            3 => (key, 0..4_u8).prop_map(|(key, verdict)| Call::Finish(key, verdict)),
            2 => (1..300_u16).prop_map(Call::Pass),
        ];
        prop::collection::vec(call, 1..200)
    }

    /// The plain account of what was promised: which adds no run has started after yet.
    #[derive(Default)]
    struct Account {
        owed: HashMap<u8, Instant>,
        running: HashMap<u8, ()>,
    }

    impl Account {
        fn add(&mut self, key: u8, due: Instant) {
            let owed = self.owed.entry(key).or_insert(due);
            *owed = (*owed).min(due);
        }
        fn start(&mut self, key: u8) {
            assert!(self.running.insert(key, ()).is_none(), "two runs of {key} at once");
            self.owed.remove(&key);
        }
    }

    fn verdict(number: u8) -> Verdict {
        match number {
            0 => Verdict::Done,
            1 => Verdict::Again,
            2 => Verdict::After(Duration::from_millis(250)),
            _ => Verdict::Failed { error: "broken".into(), delay: Duration::from_millis(400) },
        }
    }

    proptest! {
        #[test]
        fn one_run_per_key_and_every_add_is_followed_by_a_run(calls in calls()) {
            let mut now = Instant::now();
            let mut agenda = Agenda::new(100, FLOOR);
            let mut account = Account::default();
            for call in calls {
                match call {
                    Call::Add(key) => {
                        prop_assert!(agenda.add(key, now, now));
                        account.add(key, now);
                    }
                    Call::AddLater(key, wait) => {
                        let due = now + Duration::from_millis(u64::from(wait));
                        prop_assert!(agenda.add(key, due, now));
                        account.add(key, due);
                    }
                    Call::Start => if let Some(key) = agenda.start(now) {
                        account.start(key);
                    },
                    Call::Finish(key, number) => {
                        let wanted = account.running.remove(&key).is_some();
                        agenda.finish(&key, verdict(number), now);
                        if wanted && number != 0 {
                            account.add(key, now + Duration::from_millis(400));
                        }
                    }
                    Call::Pass(time) => now += Duration::from_millis(u64::from(time)),
                }
                prop_assert_eq!(agenda.counts().2, account.running.len());
            }
            // Finish what runs; then everything owed must start by the time it was due or the floor allows.
            let running: Vec<u8> = account.running.drain().map(|(key, ())| key).collect();
            for key in running {
                agenda.finish(&key, Verdict::Done, now);
            }
            let latest = account.owed.values().copied().max().unwrap_or(now).max(now + FLOOR);
            while let Some(key) = agenda.start(latest) {
                account.start(key);
                account.running.remove(&key);
                agenda.finish(&key, Verdict::Done, latest);
            }
            prop_assert!(account.owed.is_empty(), "no run followed the adds of {:?}", account.owed);
            prop_assert_eq!(agenda.entries().count(), agenda.counts().1, "a key is held for nothing");
        }
    }

    #[test]
    fn a_failing_key_that_is_added_waits_only_for_the_floor() {
        let now = Instant::now();
        let mut agenda = Agenda::new(10, FLOOR);
        assert!(agenda.add("a", now, now));
        agenda.start(now);
        let failed = || Verdict::Failed { error: "broken".into(), delay: Duration::from_secs(60) };
        assert_eq!(agenda.finish(&"a", failed(), now), 1);
        assert_eq!(agenda.next_due(), Some(now + Duration::from_secs(60)));
        assert!(agenda.add("a", now, now));
        assert_eq!(agenda.next_due(), Some(now + FLOOR));
        let later = now + FLOOR;
        assert_eq!(agenda.start(later), Some("a"));
        assert!(agenda.add("a", later, later));
        assert_eq!(agenda.finish(&"a", failed(), later), 2, "an add does not end the row of failures");
        assert_eq!(agenda.next_due(), Some(later + FLOOR));
        let later = later + FLOOR;
        agenda.start(later);
        agenda.finish(&"a", Verdict::Done, later);
        assert_eq!(agenda.entries().count(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let now = Instant::now();
        let mut agenda = Agenda::new(4, FLOOR);
        let fits: Vec<bool> = (0..5).map(|key| agenda.add(key, now, now)).collect();
        assert_eq!(fits, [true, true, true, true, false]);
        assert!(agenda.add(0, now, now), "a key that has a place needs no other");
        assert!(!agenda.has_room());
        for _ in 0..2 {
            let key = agenda.start(now).unwrap();
            agenda.finish(&key, Verdict::Done, now);
        }
        assert!(agenda.has_room());
    }
}
