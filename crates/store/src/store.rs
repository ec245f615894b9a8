//! The front of the store: an engine and its mirror, as one thing that reads its own writes.
//!
//! It exists so that control and node hold one cheap handle: commits go to the engine, reads come from the
//! mirror, and a commit returns only when this process's mirror shows it.

use std::{sync::Arc, time::Duration};

use model::record::Record;
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    engine::{Engine, KeyValue, Revision},
    envelope,
    error::{Error, Result},
    mirror::{Changes, Index, Mirror, Schema, Stored},
    quota::{Counter, counter_key},
    tx::{Seen, Tx},
};

/// How often a commit is tried against concurrent changes of the same counters. Each failed attempt means
/// that another one succeeded, so this is also the longest queue it can have stood in.
const ATTEMPTS_MAX: u32 = 2_000;
/// How long a commit waits for the mirror to show it.
const MIRROR_WAIT_MAX: Duration = Duration::from_secs(30);

/// The store as the rest of the house sees it. Cheap to clone; the last clone stops the mirror.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<dyn Engine>,
    mirror: Mirror,
    follower: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Store {
    /// Reads all records of the schema's tables into the mirror and follows the engine from there.
    pub async fn open(engine: Arc<dyn Engine>, schema: Schema) -> Result<Store> {
        let (mirror, follower) = Mirror::load(Arc::clone(&engine), schema).await?;
        Ok(Store { inner: Arc::new(Inner { engine, mirror, follower }) })
    }

    /// Commits all changes or none, and returns when the mirror shows them. An empty transaction does
    /// nothing. Gives the revision of the change.
    ///
    /// Waiting for others to let go of a counter happens in here; every other refusal comes back at once.
    pub async fn commit(&self, tx: Tx) -> Result<Revision> {
        if tx.is_empty() {
            return Ok(self.mirror().revision());
        }
        let mut seen = self.counters_in_mirror(&tx)?;
        let mut fresh = false;
        for _ in 0..ATTEMPTS_MAX {
            let txn = match tx.compile(&seen) {
                // The mirror may not know yet that something was given back.
                Err(Error::Exceeded { .. }) if !fresh => {
                    seen = self.counters_in_engine(&tx).await?;
                    fresh = true;
                    continue;
                }
                compiled => compiled?,
            };
            let outcome = self.inner.engine.commit(txn.clone()).await?;
            if outcome.succeeded {
                if outcome.changed() {
                    self.wait_for(outcome.revision).await?;
                }
                return Ok(outcome.revision);
            }
            tx.judge(&txn, outcome.replies, &mut seen)?;
            fresh = true;
        }
        Err(Error::Contended { attempts: ATTEMPTS_MAX })
    }

    /// Changes one record by a pure function, again and again until nobody else changed it meanwhile.
    ///
    /// Nothing is written when `change` leaves the record as it was. Gives the record as it is afterwards,
    /// or `None` if it does not exist (any more).
    pub async fn modify<R: Record>(
        &self,
        key: &str,
        mut change: impl FnMut(&mut R) + Send,
    ) -> Result<Option<Arc<Stored<R>>>> {
        for _ in 0..ATTEMPTS_MAX {
            let Some(stored) = self.get::<R>(key) else {
                return Ok(None);
            };
            let mut record = stored.record.clone();
            change(&mut record);
            let encoded = |record: &R| {
                envelope::encode(record).map_err(|error| Error::Invalid { reason: error.to_string() })
            };
            if encoded(&record)? == encoded(&stored.record)? {
                return Ok(Some(stored));
            }
            let mut tx = Tx::new();
            tx.update(&record, stored.mod_revision);
            match self.commit(tx).await {
                Ok(_) => return Ok(self.get::<R>(key)),
                Err(Error::Conflict { found, .. }) if found > Revision::ABSENT => {
                    self.wait_for(found).await?
                }
                Err(Error::Conflict { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Err(Error::Contended { attempts: ATTEMPTS_MAX })
    }

    /// One record. Never waits.
    pub fn get<R: Record>(&self, key: &str) -> Option<Arc<Stored<R>>> {
        self.mirror().get(key)
    }

    /// All records of a table, in order of their keys. Never waits, copies no record.
    pub fn list<R: Record>(&self) -> Vec<Arc<Stored<R>>> {
        self.mirror().list()
    }

    /// All records that an index of the schema files under `value`, in order of their keys.
    pub fn by_index<R: Record>(&self, index: &Index<R>, value: &str) -> Vec<Arc<Stored<R>>> {
        self.mirror().by_index(index, value)
    }

    /// What changes from now on.
    pub fn subscribe(&self) -> Changes {
        self.mirror().subscribe()
    }

    /// Returns when the mirror shows `revision`; [`Error::Behind`] if it does not in time.
    pub async fn wait_for(&self, revision: Revision) -> Result<()> {
        match timeout(MIRROR_WAIT_MAX, self.mirror().wait_for(revision)).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Error::Behind { revision }),
        }
    }

    /// The copy in memory that answers all reads.
    pub fn mirror(&self) -> &Mirror {
        &self.inner.mirror
    }

    /// Whether there is a record under this key that this program cannot read. It is left out of all lists: whoever
    /// removes what no record asks for must ask first.
    pub fn is_unreadable<R: Record>(&self, key: &str) -> bool {
        let corrupt = self.mirror().corrupt();
        corrupt.iter().any(|record| record.table == R::TABLE && record.key == key)
    }

    /// The engine below, for leases and for what has no table.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.inner.engine
    }

    /// What the counters of a transaction hold, as the mirror shows them: usually right, and free.
    fn counters_in_mirror(&self, tx: &Tx) -> Result<Seen> {
        let mut seen = Seen::new();
        for (engine_key, count) in tx.counts() {
            let stored = self.get::<Counter>(&counter_key(&count.scope, &count.name));
            let found = match stored {
                Some(stored) => Some(KeyValue {
                    key: engine_key.clone(),
                    value: envelope::encode(&stored.record)
                        .map_err(|error| Error::Invalid { reason: error.to_string() })?,
                    create_revision: stored.create_revision,
                    mod_revision: stored.mod_revision,
                    version: 1,
                    lease: None,
                }),
                None => None,
            };
            seen.insert(engine_key.clone(), found);
        }
        Ok(seen)
    }

    /// The same from the engine, to be sure.
    async fn counters_in_engine(&self, tx: &Tx) -> Result<Seen> {
        let mut seen = Seen::new();
        for (engine_key, _) in tx.counts() {
            seen.insert(engine_key.clone(), self.inner.engine.get(engine_key, None).await?);
        }
        Ok(seen)
    }
}
