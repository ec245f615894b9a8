//! The queue as others see it: add keys, and ask what fails and why.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::agenda::{Agenda, Entry, Key, Stage};

/// Adds keys to a runner and answers questions about it. Cheap to clone; never waits.
pub struct Queue<K> {
    shared: Arc<Shared<K>>,
}

pub(crate) struct Shared<K> {
    agenda: Mutex<Agenda<K>>,
    pub(crate) news: Notify,
    pub(crate) resync: Notify,
}

/// What a key is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waits only for a free place.
    Ready,
    /// Waits for its time.
    Delayed {
        /// How long still.
        due_in: Duration,
    },
    /// Runs.
    Running {
        /// For how long already.
        running_for: Duration,
        /// Whether it was added meanwhile, so that one more run follows.
        again: bool,
    },
}

/// What a key is doing and how it fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStatus {
    /// What it is doing.
    pub phase: Phase,
    /// How often it has failed in a row; 0 when it does not fail.
    pub failures: u32,
    /// How long it has been failing.
    pub failing_for: Option<Duration>,
    /// The last error, with its causes.
    pub last_error: Option<String>,
}

/// A key that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing<K> {
    /// The key.
    pub key: K,
    /// How often it has failed in a row.
    pub failures: u32,
    /// Since when.
    pub failing_for: Duration,
    /// The last error, with its causes.
    pub last_error: String,
    /// When it is tried again; zero when it runs or is about to.
    pub next_try_in: Duration,
}

/// How many keys are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Wait only for a free place.
    pub ready: usize,
    /// Wait for their time.
    pub delayed: usize,
    /// Run.
    pub running: usize,
    /// Have failed and not succeeded since; counted under one of the others too.
    pub failing: usize,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Queue { shared: Arc::clone(&self.shared) }
    }
}

impl<K: Key> Queue<K> {
    pub(crate) fn new(agenda: Agenda<K>) -> Queue<K> {
        let shared = Shared { agenda: Mutex::new(agenda), news: Notify::new(), resync: Notify::new() };
        Queue { shared: Arc::new(shared) }
    }

    /// Asks for a run of the key that starts after this call. Many adds before it starts are one run.
    pub fn add(&self, key: K) {
        self.add_after(key, Duration::ZERO);
    }

    /// As [`Self::add`], but the run may wait so long. If the key is due earlier anyway, it is not put off.
    pub fn add_after(&self, key: K, wait: Duration) {
        let now = Instant::now();
        let mut agenda = self.agenda();
        if !agenda.add(key, now + wait, now) {
            agenda.miss();
        }
        drop(agenda);
        self.shared.news.notify_one();
    }

    /// Asks for a run of every key there is, for who has missed changes.
    pub fn resync(&self) {
        self.shared.resync.notify_one();
    }

    /// What a key is doing; `None` when there is nothing to do for it.
    pub fn status(&self, key: &K) -> Option<KeyStatus> {
        let now = Instant::now();
        self.agenda().entry(key).map(|entry| status(entry, now))
    }

    /// All keys that fail, those failing longest first.
    pub fn failing(&self) -> Vec<Failing<K>> {
        let now = Instant::now();
        let agenda = self.agenda();
        let mut failing: Vec<Failing<K>> =
            agenda.entries().filter_map(|(key, entry)| failing(key, entry, now)).collect();
        drop(agenda);
        failing.sort_by_key(|failing| std::cmp::Reverse(failing.failing_for));
        failing
    }

    /// How many keys are where.
    pub fn counts(&self) -> Counts {
        let agenda = self.agenda();
        let (ready, delayed, running) = agenda.counts();
        let failing = agenda.entries().filter(|(_, entry)| entry.failure.is_some()).count();
        Counts { ready, delayed, running, failing }
    }

    pub(crate) fn shared(&self) -> &Shared<K> {
        &self.shared
    }

    pub(crate) fn agenda(&self) -> MutexGuard<'_, Agenda<K>> {
        // The agenda's own methods do not panic half way; what a caller's key does in Hash is its own affair.
        self.shared.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn status(entry: &Entry, now: Instant) -> KeyStatus {
    let phase = match entry.stage {
        Stage::Ready => Phase::Ready,
        Stage::Delayed(at, _) => Phase::Delayed { due_in: at.saturating_duration_since(now) },
        Stage::Running { since, again } => {
            Phase::Running { running_for: now.saturating_duration_since(since), again: again.is_some() }
        }
    };
    let failure = entry.failure.as_ref();
    KeyStatus {
        phase,
        failures: failure.map_or(0, |failure| failure.count),
        failing_for: failure.map(|failure| now.saturating_duration_since(failure.since)),
        last_error: failure.map(|failure| failure.error.clone()),
    }
}

fn failing<K: Key>(key: &K, entry: &Entry, now: Instant) -> Option<Failing<K>> {
    let failure = entry.failure.as_ref()?;
    let next_try_in = match entry.stage {
        Stage::Delayed(at, _) => at.saturating_duration_since(now),
        Stage::Ready | Stage::Running { .. } => Duration::ZERO,
    };
    Some(Failing {
        key: key.clone(),
        failures: failure.count,
        failing_for: now.saturating_duration_since(failure.since),
        last_error: failure.error.clone(),
        next_try_in,
    })
}
