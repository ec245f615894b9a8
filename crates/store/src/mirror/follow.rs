//! The mirror's follower: reads all records at one revision, then applies every later revision in order.
//!
//! When the engine goes away it tries again from where it was; when the history it needs is compacted away
//! it reads everything again and tells all subscribers to resync. Parsing happens outside the lock.

use std::{
    any::Any,
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak, atomic::AtomicU64},
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use tokio::{
    sync::{broadcast, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::{
    Change, Corrupt, Health, Schema, Shared, State,
    change::CHANGES_MAX,
    table::{AnyTable, Decoder, Row},
};
use crate::{
    engine::{self, Batch, Engine, KeyValue, Range, Revision},
    key::{RECORD_ROOT, ROOT, parse_record_key},
};

/// How many keys are read at once when everything is read.
const LOAD_KEYS: usize = 2_000;
/// How often reading everything is tried when history is compacted away meanwhile.
const LOAD_ATTEMPTS_MAX: u32 = 5;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

type Decoders = HashMap<&'static str, Decoder>;
type Tables = HashMap<&'static str, Box<dyn AnyTable>>;

/// One parsed change of one record.
struct Parsed {
    table: &'static str,
    key: Arc<str>,
    revision: Revision,
    what: What,
}

enum What {
    Set(Row),
    Corrupt(String),
    Removed,
}

struct Follower {
    engine: Arc<dyn Engine>,
    decoders: Decoders,
    shared: Weak<Shared>,
}

pub(super) async fn start(
    engine: Arc<dyn Engine>,
    schema: Schema,
) -> crate::Result<(Arc<Shared>, JoinHandle<()>)> {
    let mut tables: Tables = schema.tables.into_iter().map(|(name, entry)| (name, entry.table)).collect();
    let decoders: Decoders = tables.values().map(|table| (table.name(), table.decoder())).collect();
    let revision = load(&*engine, &decoders, &mut tables).await?;
    let shared = Arc::new(Shared {
        state: RwLock::new(State { revision, tables }),
        applied: watch::Sender::new(revision),
        changes: broadcast::Sender::new(CHANGES_MAX),
        health: Mutex::new(Health::Live),
        handed_out: AtomicU64::new(0),
    });
    let follower = Follower { engine, decoders, shared: Arc::downgrade(&shared) };
    Ok((shared, tokio::spawn(supervise(follower, revision.next()))))
}

/// Follows for ever. A panic (in a record's parser or index) leaves the state in doubt, so everything is read
/// again after it; until that works the mirror says that it is stale.
async fn supervise(follower: Follower, mut next: Revision) {
    loop {
        let Err(panic) = AssertUnwindSafe(follower.follow(next)).catch_unwind().await else {
            return;
        };
        follower.set_health(Some(format!("a record made the reader panic: {}", panic_text(&*panic))));
        sleep(RETRY_LONGEST).await;
        // A panic or failure here is met again, and told again, by the next turn.
        let reload = AssertUnwindSafe(follower.reload(&mut next)).catch_unwind().await;
        if !matches!(reload, Ok(Ok(()))) {
            tracing::error!("the store's copy in memory could not be read again; it is tried again");
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

/// Fills empty tables with all records of one revision, the newest when it begins.
async fn load(engine: &dyn Engine, decoders: &Decoders, tables: &mut Tables) -> engine::Result<Revision> {
    let mut attempt = 1;
    loop {
        match load_once(engine, decoders, tables).await {
            Err(engine::Error::Compacted { .. }) if attempt < LOAD_ATTEMPTS_MAX => attempt += 1,
            other => return other,
        }
        for table in tables.values_mut() {
            *table = table.empty();
        }
    }
}

async fn load_once(
    engine: &dyn Engine,
    decoders: &Decoders,
    tables: &mut Tables,
) -> engine::Result<Revision> {
    let mut question = Some(Range::prefix(RECORD_ROOT).limit(LOAD_KEYS));
    let mut revision = Revision::ABSENT;
    while let Some(range) = question {
        let page = engine.range(range).await?;
        for kv in &page.keys {
            if let Some(parsed) = parse(decoders, &kv.key, kv.mod_revision, Some(kv)) {
                parsed.apply(tables);
            }
        }
        revision = page.revision;
        question = page.next;
    }
    Ok(revision)
}

/// `None` for what is no record of a table we hold.
fn parse(decoders: &Decoders, key: &str, revision: Revision, now: Option<&KeyValue>) -> Option<Parsed> {
    let (table, key) = parse_record_key(key)?;
    let (table, decoder) = decoders.get_key_value(table)?;
    let what = match now.map(decoder) {
        Some(Ok(row)) => What::Set(row),
        Some(Err(reason)) => {
            tracing::error!(table, key, %revision, reason, "a stored record cannot be read and is left out");
            What::Corrupt(reason)
        }
        None => What::Removed,
    };
    Some(Parsed { table, key: key.into(), revision, what })
}

impl Parsed {
    fn apply(self, tables: &mut Tables) -> Change {
        let Parsed { table, key, revision, what } = self;
        let deleted = !matches!(what, What::Set(_));
        if let Some(rows) = tables.get_mut(table) {
            match what {
                What::Set(row) => rows.set(&key, row),
                What::Corrupt(reason) => {
                    rows.set_corrupt(Corrupt { table, key: key.to_string(), revision, reason });
                }
                What::Removed => rows.remove(&key),
            }
        }
        Change::Record { table, key, revision, deleted }
    }
}

impl Follower {
    async fn follow(&self, mut next: Revision) {
        let mut pause = RETRY_FIRST;
        loop {
            let started = next;
            let error = self.follow_watch(&mut next).await;
            if next > started {
                pause = RETRY_FIRST;
            }
            let reloaded = match error {
                engine::Error::Compacted { .. } => self.reload(&mut next).await,
                error => Err(error),
            };
            if let Err(error) = reloaded {
                self.set_health(Some(error.to_string()));
                sleep(pause).await;
                pause = (pause * 2).min(RETRY_LONGEST);
            }
            if self.shared.strong_count() == 0 {
                return;
            }
        }
    }

    /// Applies revisions until the watch fails.
    async fn follow_watch(&self, next: &mut Revision) -> engine::Error {
        let mut watch = match self.engine.watch(ROOT, *next).await {
            Ok(watch) => watch,
            Err(error) => return error,
        };
        self.set_health(None);
        loop {
            match watch.next().await {
                Some(Ok(batch)) => {
                    *next = batch.revision.next();
                    self.apply(batch);
                }
                Some(Err(error)) => return error,
                None => return engine::Error::closed("watch"),
            }
        }
    }

    fn apply(&self, batch: Batch) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let parsed: Vec<Parsed> = batch
            .events
            .iter()
            .filter_map(|event| parse(&self.decoders, &event.key, batch.revision, event.now.as_ref()))
            .collect();
        let changes: Vec<Change> = {
            let mut state = shared.state.write().unwrap_or_else(PoisonError::into_inner);
            state.revision = batch.revision;
            parsed.into_iter().map(|parsed| parsed.apply(&mut state.tables)).collect()
        };
        for change in changes {
            // Nobody listening is fine.
            let _ = shared.changes.send(change);
        }
        // Last, so that who waited for a revision finds its changes announced already.
        shared.applied.send_replace(batch.revision);
    }

    /// Reads everything again beside the old state, then puts it in its place.
    async fn reload(&self, next: &mut Revision) -> engine::Result<()> {
        let Some(shared) = self.shared.upgrade() else {
            return Ok(());
        };
        let mut tables: Tables = {
            let state = shared.state.read().unwrap_or_else(PoisonError::into_inner);
            state.tables.iter().map(|(name, table)| (*name, table.empty())).collect()
        };
        let revision = load(&*self.engine, &self.decoders, &mut tables).await?;
        {
            let mut state = shared.state.write().unwrap_or_else(PoisonError::into_inner);
            *state = State { revision, tables };
        }
        *next = revision.next();
        let _ = shared.changes.send(Change::Resync);
        shared.applied.send_replace(revision);
        tracing::warn!(%revision, "the store's history was compacted away; all records were read again");
        Ok(())
    }

    fn set_health(&self, failure: Option<String>) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let mut health = shared.health.lock().unwrap_or_else(PoisonError::into_inner);
        *health = match (failure, &*health) {
            (None, _) => Health::Live,
            (Some(reason), Health::Stale { since, .. }) => Health::Stale { since: *since, reason },
            (Some(reason), Health::Live) => {
                tracing::warn!(reason, "the store's copy in memory has stopped following and tries again");
                Health::Stale { since: Instant::now(), reason }
            }
        };
    }
}
