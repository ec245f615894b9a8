//! What can go wrong on the client's side: a refusal by holm, or no holm to be heard.

use crate::v1::types::error::{ErrorBody, ErrorDetail};
use hyper::StatusCode;
use model::error::Code;
use std::{io, time::Duration};

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// holm refused, and says why.
    #[error("{}", .0.message)]
    Refused(Box<ErrorDetail>),
    /// Nobody answers there.
    #[error("cannot connect to {address}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server is not the one that is trusted.
    #[error("{address} shows a certificate that is not trusted: {reason}")]
    Untrusted {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// The connection broke or the answer makes no sense.
    #[error("{0}")]
    Protocol(String),
    /// What was given cannot be sent.
    #[error("{0}")]
    Invalid(String),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// A file or stream on this side broke.
    #[error("{0}")]
    Local(String, #[source] io::Error),
}

impl Error {
    /// Kind, from which the command line takes its exit code.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(detail) => detail.code,
            Self::Unreachable { .. } | Self::Untrusted { .. } => Code::Unavailable,
            Self::Protocol(_) => Code::Internal,
            Self::Invalid(_) | Self::Local(..) => Code::Invalid,
            Self::Timeout(_) => Code::Timeout,
        }
    }

    /// What to do; may be empty.
    pub fn hint(&self) -> String {
        match self {
            Self::Refused(detail) => detail.hint.clone(),
            Self::Unreachable { source, .. } => unreachable_hint(source).to_string(),
            Self::Untrusted { .. } => {
                "compare the fingerprint with the one that holm printed when it started".to_string()
            }
            _ => String::new(),
        }
    }

    /// The field of the request that is wrong.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Refused(detail) => detail.field.as_deref(),
            _ => None,
        }
    }

    /// Id of the request, to be found in the server's log.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Refused(detail) if !detail.request_id.is_empty() => Some(&detail.request_id),
            _ => None,
        }
    }

    /// The error in an answer.
    pub(super) fn from_answer(status: StatusCode, bytes: &[u8]) -> Self {
        match serde_json::from_slice::<ErrorBody>(bytes) {
            Ok(body) => Self::Refused(Box::new(body.error)),
            Err(_) => {
                Self::Protocol(format!("the server answered {status} and no reason that holm would give"))
            }
        }
    }
}

fn unreachable_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "is holm running? start it with: holm serve"
        }
        io::ErrorKind::PermissionDenied => "run as root or as a member of the socket's group",
        _ => "",
    }
}
