//! The engine that forgets: all keys in this process's memory.
//!
//! It exists for tests of everything above the engine line, and as the plain reading of the engine's
//! promises that the conformance suite compares the others with. It must never serve a real cloud.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Notify, task::JoinHandle, time::Instant};

use crate::engine::{
    Batch, Engine, Error, Event, Feed, HISTORY_REVISIONS_MAX, History, KeyValue, LEASE_TTL_MIN, LeaseId,
    Outcome, PAGE_KEYS_MAX, Page, Range, Result, Revision, Txn, Watch,
    apply::{Rows, apply, delete_all},
    check_key, check_prefix, prefix_end, watch_stream,
};

/// An engine in memory. Its leases run on tokio's clock, so a paused clock drives them.
pub struct Memory {
    shared: Arc<Shared>,
    expiry: JoinHandle<()>,
}

struct Shared {
    state: Mutex<State>,
    feed: Feed,
    leases_changed: Notify,
}

#[derive(Default)]
struct State {
    keys: BTreeMap<String, KeyValue>,
    history: VecDeque<Arc<Batch>>,
    head: Revision,
    compacted: Revision,
    leases: HashMap<LeaseId, Lease>,
    lease_last: i64,
    closed: bool,
}

struct Lease {
    ttl: Duration,
    deadline: Instant,
}

impl Memory {
    /// An empty engine. Must be called inside a tokio runtime: a task of it ends leases.
    pub fn new() -> Memory {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            feed: Feed::new(Revision::ABSENT),
            leases_changed: Notify::new(),
        });
        let expiry = tokio::spawn(expire_leases(Arc::clone(&shared)));
        Memory { shared, expiry }
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::new()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.expiry.abort();
        self.shared.feed.close();
    }
}

impl Shared {
    fn state(&self, operation: &'static str) -> Result<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed { Err(Error::closed(operation)) } else { Ok(state) }
    }

    /// Records the events of a new revision and announces it, still under the lock to keep the order.
    fn publish(&self, state: &mut State, revision: Revision, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let batch = Batch { revision, events };
        state.head = revision;
        state.history.push_back(Arc::new(batch.clone()));
        self.feed.publish(batch);
    }

    fn end_lease(&self, lease: LeaseId, state: &mut State) -> Result<()> {
        state.leases.remove(&lease).ok_or(Error::LeaseNotFound { lease })?;
        let revision = state.head.next();
        let keys = state.leased(lease)?;
        let events = delete_all(keys, state, revision)?;
        self.publish(state, revision, events);
        Ok(())
    }
}

impl State {
    /// Refuses revisions that are gone or not there yet.
    fn check_revision(&self, at: Option<Revision>) -> Result<Revision> {
        let at = at.unwrap_or(self.head);
        if at < self.compacted {
            return Err(Error::Compacted { requested: at, compacted: self.compacted });
        }
        if at > self.head {
            return Err(Error::Future { requested: at, head: self.head });
        }
        Ok(at)
    }

    /// All keys with the prefix as they were at a revision: today's, with younger changes undone.
    fn keys_at(&self, prefix: &str, at: Revision) -> BTreeMap<String, KeyValue> {
        let range = prefix.to_owned()..prefix_end(prefix);
        let mut keys: BTreeMap<_, _> =
            self.keys.range(range).map(|(key, kv)| (key.clone(), kv.clone())).collect();
        for batch in self.history.iter().rev().take_while(|batch| batch.revision > at) {
            for event in batch.events.iter().rev().filter(|event| event.key.starts_with(prefix)) {
                match &event.before {
                    Some(before) => keys.insert(event.key.clone(), before.clone()),
                    None => keys.remove(&event.key),
                };
            }
        }
        keys
    }
}

impl Rows for State {
    fn get(&mut self, key: &str) -> Result<Option<KeyValue>> {
        Ok(self.keys.get(key).cloned())
    }
    fn range(&mut self, prefix: &str) -> Result<Vec<KeyValue>> {
        Ok(self.keys.range(prefix.to_owned()..prefix_end(prefix)).map(|(_, kv)| kv.clone()).collect())
    }
    fn leased(&mut self, lease: LeaseId) -> Result<Vec<KeyValue>> {
        Ok(self.keys.values().filter(|kv| kv.lease == Some(lease)).cloned().collect())
    }
    fn lease_exists(&mut self, lease: LeaseId) -> Result<bool> {
        Ok(self.leases.contains_key(&lease))
    }
    fn write(&mut self, _: Revision, event: &Event) -> Result<()> {
        match &event.now {
            Some(kv) => self.keys.insert(event.key.clone(), kv.clone()),
            None => self.keys.remove(&event.key),
        };
        Ok(())
    }
}

#[async_trait]
impl History for Shared {
    async fn history(&self, from: Revision) -> Result<Vec<Arc<Batch>>> {
        let state = self.state("watch")?;
        if from <= state.compacted {
            return Err(Error::Compacted { requested: from, compacted: state.compacted });
        }
        let most = HISTORY_REVISIONS_MAX as usize;
        Ok(state.history.iter().filter(|batch| batch.revision >= from).take(most).cloned().collect())
    }
    fn feed(&self) -> &Feed {
        &self.feed
    }
}

#[async_trait]
impl Engine for Memory {
    async fn head(&self) -> Result<Revision> {
        Ok(self.shared.state("read")?.head)
    }

    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<KeyValue>> {
        check_key(key)?;
        let state = self.shared.state("read")?;
        let at = state.check_revision(at)?;
        if at == state.head {
            return Ok(state.keys.get(key).cloned());
        }
        Ok(state.keys_at(key, at).remove(key))
    }

    async fn range(&self, range: Range) -> Result<Page> {
        check_prefix(&range.prefix)?;
        let state = self.shared.state("read")?;
        let revision = state.check_revision(range.at)?;
        let limit = range.limit.unwrap_or(PAGE_KEYS_MAX).clamp(1, PAGE_KEYS_MAX);
        let mut rest = state
            .keys_at(&range.prefix, revision)
            .into_values()
            .filter(|kv| range.after.as_ref().is_none_or(|after| kv.key > *after));
        let keys: Vec<KeyValue> = rest.by_ref().take(limit).collect();
        let next = rest.next().and(keys.last()).map(|last| Range {
            at: Some(revision),
            after: Some(last.key.clone()),
            ..range.clone()
        });
        Ok(Page { revision, keys, next })
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        let mut state = self.shared.state("commit")?;
        let head = state.head;
        let (outcome, events) = apply(&txn, &mut *state, head)?;
        self.shared.publish(&mut state, outcome.revision, events);
        Ok(outcome)
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        check_prefix(prefix)?;
        let compacted = self.shared.state("watch")?.compacted;
        if from <= compacted && compacted > Revision::ABSENT {
            return Err(Error::Compacted { requested: from, compacted });
        }
        Ok(watch_stream(Arc::clone(&self.shared), prefix, from))
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId> {
        let ttl = ttl.max(LEASE_TTL_MIN);
        let mut state = self.shared.state("grant a lease")?;
        state.lease_last += 1;
        let lease = LeaseId(state.lease_last);
        state.leases.insert(lease, Lease { ttl, deadline: Instant::now() + ttl });
        self.shared.leases_changed.notify_one();
        Ok(lease)
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        let mut state = self.shared.state("keep a lease alive")?;
        let found = state.leases.get_mut(&lease).ok_or(Error::LeaseNotFound { lease })?;
        found.deadline = Instant::now() + found.ttl;
        Ok(found.ttl)
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<()> {
        let mut state = self.shared.state("revoke a lease")?;
        self.shared.end_lease(lease, &mut state)
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        let mut state = self.shared.state("compact")?;
        let revision = state.check_revision(Some(revision))?;
        state.history.retain(|batch| batch.revision > revision);
        state.compacted = revision;
        Ok(())
    }

    async fn close(&self) {
        if let Ok(mut state) = self.shared.state("close") {
            state.closed = true;
        }
        self.expiry.abort();
        self.shared.feed.close();
    }
}

async fn expire_leases(shared: Arc<Shared>) {
    loop {
        let due = {
            let Ok(mut state) = shared.state("end a lease") else {
                return;
            };
            let now = Instant::now();
            let over: Vec<LeaseId> =
                state.leases.iter().filter(|(_, lease)| lease.deadline <= now).map(|(id, _)| *id).collect();
            for lease in over {
                // Ending a lease in memory fails only when it is unknown, and it was just listed.
                let _ = shared.end_lease(lease, &mut state);
            }
            state.leases.values().map(|lease| lease.deadline).min()
        };
        match due {
            Some(due) => tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = shared.leases_changed.notified() => {}
            },
            None => shared.leases_changed.notified().await,
        }
    }
}
