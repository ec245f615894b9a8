//! The engine: what every place that can hold our records must be able to do, in the shape of etcd.
//!
//! It exists so that one machine (SQLite) and a cluster (etcd) run the same code above this line. The
//! promises are written here and proven by [`crate::conformance`]; a new engine is right when it passes.
//! Nothing here may know a noun: keys are text, values are bytes.
//!
//! ```text
//!  revision   one counter for the whole store; a transaction that changes anything takes the next one,
//!             and all its changes carry it
//!  key        create_revision  the revision that made it (absent: 0)
//!             mod_revision     the revision that changed it last (absent: 0)
//!             version          1 at creation, +1 with every change, 0 when absent
//! ```

pub mod apply;
mod error;
mod feed;
mod txn;
mod value;

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

pub use error::{Error, Result};
pub(crate) use feed::{Feed, HISTORY_REVISIONS_MAX, History, watch_stream};
pub use txn::{Compare, Op, Outcome, Relation, Reply, Target, Txn};
pub use value::{
    Batch, Event, KeyValue, LeaseId, Page, Range, Revision, check_key, check_prefix, prefix_end,
};

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// The largest value, in bytes. Records are small; logs, metrics and images do not belong in the store.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// The most compares, and the most operations in either branch, of one transaction.
pub const TXN_OPS_MAX: usize = 512;
/// The most keys one [`Page`] holds, whatever the caller asks for.
pub const PAGE_KEYS_MAX: usize = 10_000;
/// The shortest time a lease may live without being kept alive (etcd counts in whole seconds).
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(1);

/// Revision batches, oldest first; each holds the changes of one whole revision that match the prefix.
///
/// The stream ends only after an error: [`Error::Compacted`] when the history it still needed is gone
/// (read everything again and watch from there), [`Error::Unavailable`] when the engine stopped.
pub type Watch = BoxStream<'static, Result<Batch>>;

/// A revisioned, transactional, watchable map from keys to values.
///
/// Every method is safe to call from many tasks at once. A future that is dropped before it finishes may
/// or may not have taken effect.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// The newest committed revision; 0 in an empty store.
    async fn head(&self) -> Result<Revision>;

    /// One key, now or as it was at revision `at`.
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<KeyValue>>;

    /// The keys that start with a prefix, in byte order, now or as they were at a revision, page by page.
    async fn range(&self, range: Range) -> Result<Page>;

    /// Commits one transaction: all compares hold and `then` runs, or `otherwise` runs; nothing in between.
    ///
    /// When this returns `Ok` the change is durable. [`Error::Unavailable`] means the outcome is unknown:
    /// read before trying again.
    async fn commit(&self, txn: Txn) -> Result<Outcome>;

    /// All changes under `prefix` from revision `from` on (inclusive), without gap or repetition.
    ///
    /// Fails with [`Error::Compacted`] when `from` is no longer in the history. `from` may lie ahead.
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch>;

    /// Makes a lease that lives `ttl` unless kept alive; keys put with it are deleted when it ends.
    ///
    /// A `ttl` below [`LEASE_TTL_MIN`] is raised to it. An engine that restarts gives every lease its
    /// full time again, since nobody could keep it alive meanwhile.
    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId>;

    /// Starts the lease's time again; gives that time, or [`Error::LeaseNotFound`] when it has ended.
    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<Duration>;

    /// Ends the lease now and deletes its keys in one revision.
    async fn lease_revoke(&self, lease: LeaseId) -> Result<()>;

    /// Forgets history up to and including `revision`; reads at it still work, before it they do not.
    async fn compact(&self, revision: Revision) -> Result<()>;

    /// Finishes what was accepted and stops. Later calls fail with [`Error::Unavailable`]. Idempotent.
    async fn close(&self);
}
