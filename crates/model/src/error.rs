//! Error codes: the closed list that every door maps to its dialect and the command line to its exit code.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Kinds of refusal and failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// A value that was given is wrong.
    Invalid,
    /// Nobody proved who is asking.
    Unauthenticated,
    /// The caller's role does not allow it.
    Forbidden,
    /// There is no such thing (or it is not the caller's).
    NotFound,
    /// The name or address is in use.
    Taken,
    /// The thing's state does not allow it now.
    Conflict,
    /// Something else still needs the thing.
    InUse,
    /// A project's limit is reached.
    QuotaExceeded,
    /// No host has room or what it takes.
    NoCapacity,
    /// More than a limit of this holm allows.
    TooLarge,
    /// Too many requests.
    TooMany,
    /// This holm or this host cannot do it.
    Unsupported,
    /// Something that holm needs does not answer.
    Unavailable,
    /// It took too long; it may still happen.
    Timeout,
    /// A bug or a broken host.
    Internal,
}

impl Code {
    /// Whether the failure may pass by itself, so that another try later makes sense.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Unavailable | Self::TooMany | Self::Timeout | Self::NoCapacity | Self::Internal)
    }

    /// HTTP status (RFC 9110).
    pub fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden | Self::QuotaExceeded => 403,
            Self::NotFound => 404,
            Self::Taken | Self::Conflict | Self::InUse | Self::NoCapacity => 409,
            Self::TooLarge => 413,
            Self::TooMany => 429,
            Self::Unsupported => 501,
            Self::Unavailable => 503,
            Self::Timeout => 504,
            Self::Internal => 500,
        }
    }

    /// Exit code of the command line. 2 is kept for wrong usage, 125 to 127 and 128+n for what ran inside.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Invalid | Self::TooLarge => 2,
            Self::NotFound => 3,
            Self::Taken | Self::Conflict | Self::InUse => 4,
            Self::QuotaExceeded | Self::NoCapacity => 5,
            Self::Unauthenticated | Self::Forbidden => 6,
            Self::Timeout => 7,
            Self::Unavailable | Self::TooMany => 8,
            Self::Unsupported => 9,
            Self::Internal => 1,
        }
    }

    /// The code as it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Taken => "taken",
            Self::Conflict => "conflict",
            Self::InUse => "in_use",
            Self::QuotaExceeded => "quota_exceeded",
            Self::NoCapacity => "no_capacity",
            Self::TooLarge => "too_large",
            Self::TooMany => "too_many",
            Self::Unsupported => "unsupported",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Something that went wrong behind a record, as users are shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Kind.
    pub code: Code,
    /// What failed.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Since when.
    pub since: jiff::Timestamp,
}
