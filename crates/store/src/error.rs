//! How a typed read or commit fails: each variant names what lost, to whom, and so what to do next.

use crate::engine::{self, Revision};

/// The result of a typed store call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a commit or read did not succeed. Unless a variant says otherwise nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The record changed since it was read: read it again, decide again, commit again.
    #[error("{table} {key} is at revision {found}, not at {expected} as expected")]
    Conflict {
        /// The record's table.
        table: String,
        /// The record's key.
        key: String,
        /// The revision the transaction was made for; 0 means that any existing record would do.
        expected: Revision,
        /// The revision it has now; 0 means that it does not exist.
        found: Revision,
    },
    /// A record that was to be created is there already.
    #[error("{table} {key} exists already")]
    Exists {
        /// The record's table.
        table: String,
        /// The record's key.
        key: String,
    },
    /// A unique value belongs to somebody else.
    #[error("{value} is taken in {scope} by {owner}")]
    Taken {
        /// Where the value must be unique.
        scope: String,
        /// The value that was claimed.
        value: String,
        /// Who owns it, as given when it was claimed.
        owner: String,
    },
    /// A counter would pass its limit.
    #[error("{name} in {scope}: {used} used, {requested} more requested, limit {limit}")]
    Exceeded {
        /// What the counter belongs to, for example a project.
        scope: String,
        /// What is counted.
        name: String,
        /// The count now.
        used: u64,
        /// What the transaction would have added.
        requested: u64,
        /// The most that is allowed.
        limit: u64,
    },
    /// What is stored under a key cannot be understood by this version.
    #[error("the stored {table} {key} cannot be read: {reason}")]
    Corrupt {
        /// The record's table.
        table: String,
        /// The record's key.
        key: String,
        /// Why, in words.
        reason: String,
    },
    /// The transaction breaks a rule, for example a key that no engine can hold. A mistake of the caller.
    #[error("invalid transaction: {reason}")]
    Invalid {
        /// Which rule, in words.
        reason: String,
    },
    /// So many others changed the same counters that this transaction never got through: try later.
    #[error("gave up after {attempts} attempts against concurrent changes")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// The change is committed, but this process's mirror did not show it in time.
    #[error("committed at revision {revision}, but the local copy of the store has not caught up")]
    Behind {
        /// The revision to wait for.
        revision: Revision,
    },
    /// The engine failed. If it was unavailable during a commit, the outcome is unknown.
    #[error("the store failed")]
    Engine(#[from] engine::Error),
}

impl Error {
    /// Whether reading again and deciding again may succeed at once.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Error::Conflict { .. } | Error::Contended { .. })
    }

    /// Whether the engine cannot serve now, so that only waiting or a person helps.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Error::Behind { .. }
                | Error::Engine(engine::Error::Unavailable { .. } | engine::Error::Corrupt { .. })
        )
    }
}
