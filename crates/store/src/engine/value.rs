//! The values an engine gives and takes: revisions, leases, keys with their values, events, pages.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Error, KEY_BYTES_MAX, Result};

/// A point in the store's single history; 0 is before everything and stands for "absent".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// Before everything; as an expected revision it says that the key must not exist.
    pub const ABSENT: Revision = Revision(0);

    /// The revision right after this one.
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a lease; never 0 and never given twice by one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A key that exists, with its value and where it stands in history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Printable ASCII without spaces, at most [`KEY_BYTES_MAX`] long.
    pub key: String,
    /// The value; shared, not copied, when this is cloned.
    pub value: Bytes,
    /// The revision that made the key.
    pub create_revision: Revision,
    /// The revision that changed the key last.
    pub mod_revision: Revision,
    /// 1 at creation, one more with every change.
    pub version: u64,
    /// The lease whose end deletes the key.
    pub lease: Option<LeaseId>,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The key that changed.
    pub key: String,
    /// What it is now; `None` when it was deleted.
    pub now: Option<KeyValue>,
    /// What it was before; `None` when it was created.
    pub before: Option<KeyValue>,
}

/// The changes of one whole revision, in the order the transaction made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The revision that all these changes carry.
    pub revision: Revision,
    /// Never empty.
    pub events: Vec<Event>,
}

/// A question for all keys that start with a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Range {
    /// The empty prefix asks for everything.
    pub prefix: String,
    /// The revision to read at; `None` reads the newest.
    pub at: Option<Revision>,
    /// The most keys to give; `None` and anything larger mean [`super::PAGE_KEYS_MAX`].
    pub limit: Option<usize>,
    /// Only keys after this one.
    pub after: Option<String>,
}

impl Range {
    /// All keys that start with `prefix`, newest values.
    pub fn prefix(prefix: impl Into<String>) -> Range {
        Range { prefix: prefix.into(), ..Range::default() }
    }
    /// Reads at `revision`.
    pub fn at(mut self, revision: Revision) -> Range {
        self.at = Some(revision);
        self
    }
    /// Gives at most `keys` keys per page.
    pub fn limit(mut self, keys: usize) -> Range {
        self.limit = Some(keys);
        self
    }
}

/// An answer to a [`Range`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The revision these keys were read at.
    pub revision: Revision,
    /// In byte order of the key.
    pub keys: Vec<KeyValue>,
    /// The question for the following page, pinned to the same revision; `None` when this was the last.
    pub next: Option<Range>,
}

/// Refuses keys that an engine cannot hold: empty, too long, or not printable ASCII without spaces.
pub fn check_key(key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::invalid("a key is empty"));
    }
    check_prefix(key)
}

/// As [`check_key`], but the empty prefix is allowed.
pub fn check_prefix(prefix: &str) -> Result<()> {
    if prefix.len() > KEY_BYTES_MAX {
        let start: String = prefix.chars().take(64).collect();
        return Err(Error::invalid(format!(
            "key {start:?}... has {} bytes; at most {KEY_BYTES_MAX} are allowed",
            prefix.len()
        )));
    }
    match prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(Error::invalid(format!("key {prefix:?} holds something else than printable ASCII"))),
    }
}

/// The smallest text that sorts after every key with this prefix (keys hold nothing above `~`).
pub fn prefix_end(prefix: &str) -> String {
    format!("{prefix}\x7f")
}
