//! What a group of requests does inside its one SQLite transaction.

use std::{path::Path, time::Duration};

use rusqlite::{Transaction, params};

use super::{
    open::Meta,
    reader::{check_revision, failure},
    rows,
    writer::{Answer, What},
};
use crate::engine::{
    Batch, Error, Event, KeyValue, LEASE_TTL_MIN, LeaseId, Result, Revision,
    apply::{Rows, apply, delete_all},
};

/// History is trimmed by at most this many revisions in one group, so that no commit pays for many.
const TRIM_REVISIONS_MAX: u64 = 256;
/// History is trimmed only when at least this many revisions are too many.
const TRIM_REVISIONS_MIN: u64 = 64;

/// What a group did, to be made known once it is committed.
#[derive(Default)]
pub(super) struct Done {
    pub(super) batches: Vec<Batch>,
    pub(super) granted: Vec<(LeaseId, Duration)>,
    pub(super) ended: Vec<LeaseId>,
}

/// A group being applied.
pub(super) struct Group<'a> {
    transaction: &'a Transaction<'a>,
    path: &'a Path,
    meta: Meta,
    done: Done,
}

impl<'a> Group<'a> {
    pub(super) fn new(transaction: &'a Transaction<'a>, path: &'a Path, meta: Meta) -> Group<'a> {
        Group { transaction, path, meta, done: Done::default() }
    }

    /// Applies one request. An error other than of the file itself has left everything as it was.
    pub(super) fn run(&mut self, what: &What) -> Result<Answer> {
        let head = self.meta.head;
        match what {
            What::Commit(txn) => {
                let (outcome, events) = apply(txn, self, head)?;
                self.record(events);
                Ok(Answer::Outcome(outcome))
            }
            What::Grant(ttl) => {
                let ttl = (*ttl).max(LEASE_TTL_MIN);
                let lease = self.grant(ttl).map_err(|error| self.failed(&error))?;
                self.done.granted.push((lease, ttl));
                Ok(Answer::Lease(lease))
            }
            // The writer keeps leases alive itself; reaching here, it is known not to.
            What::KeepAlive(lease) => Err(Error::LeaseNotFound { lease: *lease }),
            What::Revoke(lease) | What::Expire(lease) => {
                if !self.lease_exists(*lease)? {
                    return Err(Error::LeaseNotFound { lease: *lease });
                }
                let keys = self.leased(*lease)?;
                let events = delete_all(keys, self, head.next())?;
                self.record(events);
                let forget = self.transaction.execute("DELETE FROM lease WHERE id = ?1", [lease.0]);
                forget.map_err(|error| self.failed(&error))?;
                self.done.ended.push(*lease);
                Ok(Answer::Done)
            }
            What::Compact(revision) => {
                let revision = check_revision(self.meta, Some(*revision))?;
                self.forget(revision).map_err(|error| self.failed(&error))?;
                Ok(Answer::Done)
            }
        }
    }

    /// Trims history and writes down where it stands.
    pub(super) fn finish(mut self, before: Meta, history_revisions: u64) -> rusqlite::Result<Done> {
        let surplus = (self.meta.head.0 - self.meta.compacted.0).saturating_sub(history_revisions);
        if surplus >= TRIM_REVISIONS_MIN {
            self.forget(Revision(self.meta.compacted.0 + surplus.min(TRIM_REVISIONS_MAX)))?;
        }
        if self.meta.head != before.head || self.meta.compacted != before.compacted {
            self.transaction
                .prepare_cached("UPDATE meta SET head = ?1, compacted = ?2")?
                .execute([self.meta.head.0, self.meta.compacted.0])?;
        }
        Ok(self.done)
    }

    fn record(&mut self, events: Vec<Event>) {
        if !events.is_empty() {
            self.meta.head = self.meta.head.next();
            self.done.batches.push(Batch { revision: self.meta.head, events });
        }
    }

    fn grant(&self, ttl: Duration) -> rusqlite::Result<LeaseId> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).min(i64::MAX as u64);
        self.transaction.execute("INSERT INTO lease (ttl_ms) VALUES (?1)", params![ttl_ms])?;
        Ok(LeaseId(self.transaction.last_insert_rowid()))
    }

    fn forget(&mut self, revision: Revision) -> rusqlite::Result<()> {
        self.transaction.prepare_cached("DELETE FROM event WHERE revision <= ?1")?.execute([revision.0])?;
        self.meta.compacted = revision;
        Ok(())
    }

    fn failed(&self, error: &rusqlite::Error) -> Error {
        failure("commit", self.path, error)
    }
}

impl Rows for Group<'_> {
    fn get(&mut self, key: &str) -> Result<Option<KeyValue>> {
        rows::get(self.transaction, key).map_err(|error| self.failed(&error))
    }

    fn range(&mut self, prefix: &str) -> Result<Vec<KeyValue>> {
        // A transaction is not paged: what it deletes it has to know whole.
        rows::range(self.transaction, prefix, None, i64::MAX as usize).map_err(|error| self.failed(&error))
    }

    fn leased(&mut self, lease: LeaseId) -> Result<Vec<KeyValue>> {
        rows::leased(self.transaction, lease).map_err(|error| self.failed(&error))
    }

    fn lease_exists(&mut self, lease: LeaseId) -> Result<bool> {
        let mut statement = self
            .transaction
            .prepare_cached("SELECT 1 FROM lease WHERE id = ?1")
            .map_err(|error| self.failed(&error))?;
        statement.exists([lease.0]).map_err(|error| self.failed(&error))
    }

    fn write(&mut self, revision: Revision, event: &Event) -> Result<()> {
        rows::write(self.transaction, revision, event).map_err(|error| self.failed(&error))
    }
}
