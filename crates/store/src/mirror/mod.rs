//! All records in memory, typed, parsed once, always a consistent state of one revision.
//!
//! It exists because reads outnumber writes by far: a list is a walk over shared pointers, no SQL, no
//! parsing, no copying. It follows the engine's watch, applies whole revisions at a time, and so never
//! shows half a transaction. It must never be written by anything but its follower, and its lock is never
//! held while anything waits.

mod change;
mod follow;
mod schema;
mod table;

use std::{
    any::type_name,
    collections::HashMap,
    ops::Deref,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use model::record::Record;
use tokio::{
    sync::{broadcast, watch},
    task::JoinHandle,
    time::Instant,
};

use crate::engine::{Engine, KeyValue, LeaseId, Revision};

pub use change::{Change, Changes};
pub use schema::{Index, Schema};
use table::{AnyTable, Table};

/// A record with its place in history. Reads like the record itself.
#[derive(Debug, Clone)]
pub struct Stored<R> {
    /// The record.
    pub record: R,
    /// The revision that made it.
    pub create_revision: Revision,
    /// The revision that changed it last; what [`crate::Tx::update`] expects.
    pub mod_revision: Revision,
    /// The lease it lives by.
    pub lease: Option<LeaseId>,
}

impl<R> Stored<R> {
    fn new(record: R, kv: &KeyValue) -> Stored<R> {
        Stored { record, create_revision: kv.create_revision, mod_revision: kv.mod_revision, lease: kv.lease }
    }
}

impl<R> Deref for Stored<R> {
    type Target = R;
    fn deref(&self) -> &R {
        &self.record
    }
}

/// A stored record that this program cannot read. It is left out of all lists; everything else works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corrupt {
    /// Its table.
    pub table: &'static str,
    /// Its key.
    pub key: String,
    /// The revision that wrote it.
    pub revision: Revision,
    /// Why it cannot be read.
    pub reason: String,
}

/// Whether the mirror follows the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Live,
    /// It does not, and tries again; reads show the state of that time.
    Stale {
        /// Since when.
        since: Instant,
        /// Why, in words.
        reason: String,
    },
}

/// The copy of all records in memory. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Mirror {
    shared: Arc<Shared>,
}

struct Shared {
    state: RwLock<State>,
    applied: watch::Sender<Revision>,
    changes: broadcast::Sender<Change>,
    health: Mutex<Health>,
    handed_out: AtomicU64,
}

struct State {
    revision: Revision,
    tables: HashMap<&'static str, Box<dyn AnyTable>>,
}

impl Mirror {
    /// Reads everything and follows from there; the task ends when it is aborted.
    pub(crate) async fn load(
        engine: Arc<dyn Engine>,
        schema: Schema,
    ) -> crate::Result<(Mirror, JoinHandle<()>)> {
        let (shared, follower) = follow::start(engine, schema).await?;
        Ok((Mirror { shared }, follower))
    }

    /// The revision whose state this shows.
    pub fn revision(&self) -> Revision {
        *self.shared.applied.borrow()
    }

    /// Whether this follows the engine.
    pub fn health(&self) -> Health {
        self.shared.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads several things at one and the same revision. The closure must be short: changes wait for it.
    /// It must not use the mirror except through the view, or it may wait for itself.
    pub fn view<T>(&self, read: impl FnOnce(&View<'_>) -> T) -> T {
        let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
        read(&View { state: &state })
    }

    /// One record.
    ///
    /// # Panics
    /// As all reads, when the table is not part of the schema: a mistake in the program.
    pub fn get<R: Record>(&self, key: &str) -> Option<Arc<Stored<R>>> {
        let found = self.view(|view| view.get(key).cloned());
        self.count_handed_out(usize::from(found.is_some()));
        found
    }

    /// All records of a table, in order of their keys.
    pub fn list<R: Record>(&self) -> Vec<Arc<Stored<R>>> {
        self.handing_out(self.view(|view| view.list().cloned().collect()))
    }

    /// The records whose keys start with `prefix`, in order of their keys.
    pub fn list_prefix<R: Record>(&self, prefix: &str) -> Vec<Arc<Stored<R>>> {
        self.handing_out(self.view(|view| view.list_prefix(prefix).cloned().collect()))
    }

    /// The records that `index` files under `value`, in order of their keys.
    pub fn by_index<R: Record>(&self, index: &Index<R>, value: &str) -> Vec<Arc<Stored<R>>> {
        self.handing_out(self.view(|view| view.by_index(index, value).cloned().collect()))
    }

    /// How many records were handed out so far, other than through [`Self::view`]: what a read costs is the difference
    /// that it makes, and must not grow with what the read is not about.
    pub fn handed_out(&self) -> u64 {
        self.shared.handed_out.load(Ordering::Relaxed)
    }

    fn handing_out<R>(&self, rows: Vec<Arc<Stored<R>>>) -> Vec<Arc<Stored<R>>> {
        self.count_handed_out(rows.len());
        rows
    }

    fn count_handed_out(&self, rows: usize) {
        self.shared.handed_out.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// How many records a table has.
    pub fn count<R: Record>(&self) -> usize {
        self.view(|view| view.count::<R>())
    }

    /// The records that cannot be read, of all tables.
    pub fn corrupt(&self) -> Vec<Corrupt> {
        self.view(|view| view.state.tables.values().flat_map(|table| table.corrupt()).collect())
    }

    /// What changes from now on. A change is announced when reads show it already.
    pub fn subscribe(&self) -> Changes {
        Changes::new(self.shared.changes.subscribe())
    }

    /// Returns true when reads show `revision`, false when the mirror stopped before that.
    pub async fn wait_for(&self, revision: Revision) -> bool {
        self.shared.applied.subscribe().wait_for(|applied| *applied >= revision).await.is_ok()
    }
}

/// All records at one revision, for as long as the closure given to [`Mirror::view`] runs.
pub struct View<'a> {
    state: &'a State,
}

impl<'a> View<'a> {
    /// The revision that is seen.
    pub fn revision(&self) -> Revision {
        self.state.revision
    }

    /// One record.
    pub fn get<R: Record>(&self, key: &str) -> Option<&'a Arc<Stored<R>>> {
        self.table::<R>().get(key)
    }

    /// All records of a table, in order of their keys.
    pub fn list<R: Record>(&self) -> impl Iterator<Item = &'a Arc<Stored<R>>> + use<'a, R> {
        self.table::<R>().list()
    }

    /// The records whose keys start with `prefix`, in order of their keys.
    pub fn list_prefix<R: Record>(
        &self,
        prefix: &str,
    ) -> impl Iterator<Item = &'a Arc<Stored<R>>> + use<'a, R> {
        self.table::<R>().list_prefix(prefix)
    }

    /// The records that `index` files under `value`, in order of their keys.
    pub fn by_index<R: Record>(
        &self,
        index: &Index<R>,
        value: &str,
    ) -> impl Iterator<Item = &'a Arc<Stored<R>>> + use<'a, R> {
        self.table::<R>().by_index(index, value)
    }

    /// How many records a table has.
    pub fn count<R: Record>(&self) -> usize {
        self.table::<R>().len()
    }

    fn table<R: Record>(&self) -> &'a Table<R> {
        let table = self.state.tables.get(R::TABLE).and_then(|table| table.as_any().downcast_ref());
        table.unwrap_or_else(|| panic!("{} is not part of the mirror's schema", type_name::<R>()))
    }
}
