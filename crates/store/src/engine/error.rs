//! How an engine fails. Each variant asks something different of the caller.

use super::{LeaseId, Revision};

/// The result of an engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an engine refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The revision asked for is no longer in the history: read everything again at the head.
    #[error("revision {requested} is compacted away; history starts after revision {compacted}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// Everything up to here is forgotten.
        compacted: Revision,
    },
    /// A read asked for a revision that does not exist yet.
    #[error("revision {requested} does not exist yet; the newest is {head}")]
    Future {
        /// What was asked for.
        requested: Revision,
        /// The newest revision.
        head: Revision,
    },
    /// The lease never existed, was revoked, or ran out.
    #[error("lease {lease} does not exist or has run out")]
    LeaseNotFound {
        /// The lease that was named.
        lease: LeaseId,
    },
    /// The request breaks a rule of the engine; sending it again will not help.
    #[error("invalid store request: {reason}")]
    Invalid {
        /// Which rule, in words.
        reason: String,
    },
    /// What is stored cannot be read back; a person has to look.
    #[error("the store at {place} is damaged: {detail}")]
    Corrupt {
        /// The file or endpoint.
        place: String,
        /// What was found.
        detail: String,
    },
    /// The engine cannot serve now (disk full, I/O error, connection lost, closed). A commit that ends
    /// this way may have happened: read before trying again.
    #[error("the store cannot {operation}: {detail}")]
    Unavailable {
        /// What was being done.
        operation: &'static str,
        /// Why it did not work.
        detail: String,
    },
}

impl Error {
    /// The error of every call after the engine was closed.
    pub fn closed(operation: &'static str) -> Error {
        Error::Unavailable { operation, detail: "it is closed".into() }
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> Error {
        Error::Invalid { reason: reason.into() }
    }
}
