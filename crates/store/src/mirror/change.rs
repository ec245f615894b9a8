//! What changed, for those who act on it: table, key and revision, never the content.
//!
//! A subscriber gets a bounded queue. One that falls too far behind loses the queue and is told to look at
//! everything again; it can never slow the mirror down, and never misses that something changed.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::engine::Revision;

/// The most changes that wait for one subscriber before it is told to resync.
pub(super) const CHANGES_MAX: usize = 8192;

/// One thing to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A record was created, changed or deleted.
    Record {
        /// Its table.
        table: &'static str,
        /// Its key.
        key: Arc<str>,
        /// The revision that did it.
        revision: Revision,
        /// Whether it is gone (or cannot be read) now.
        deleted: bool,
    },
    /// Changes were missed: look at all records again.
    Resync,
}

/// The changes since [`crate::Mirror::subscribe`].
pub struct Changes {
    receiver: broadcast::Receiver<Change>,
}

impl Changes {
    pub(super) fn new(receiver: broadcast::Receiver<Change>) -> Changes {
        Changes { receiver }
    }

    /// The next change; `None` when the store was dropped. Safe to cancel.
    pub async fn next(&mut self) -> Option<Change> {
        match self.receiver.recv().await {
            Ok(change) => Some(change),
            Err(broadcast::error::RecvError::Closed) => None,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                // What is still queued is older than what the subscriber will now read.
                self.receiver = self.receiver.resubscribe();
                Some(Change::Resync)
            }
        }
    }
}
