//! The client of OCI registries (OCI distribution specification 1.1, Docker's token authentication).
//!
//! ```text
//! pull ── fetch (ranges, retries) ── request (endpoints, tokens, redirects) ── connection (dial, TLS, deadlines)
//! ```
//!
//! A registry is a stranger, and so is everything between it and us: every answer has a limit and a deadline, every
//! byte is checked against a digest, a redirect never takes credentials to another host nor leads from the outside
//! to this machine. Plain HTTP is spoken only to loopback and to registries that the operator listed.
//!
//! Users choose the registry, and this host asks: so at a private address there are only those of admins' images and
//! those that the operator listed, and a registry on loopback leads to nothing else there ([`request`] decides).

mod auth;
mod connection;
mod fetch;
mod login;
mod pull;
mod push;
mod request;
mod web;

pub use pull::{Asked, LayerProgress, LayerState, Phase, Progress, Pulled, Trouble};
pub use web::{Web, WebError};

use super::{blobs::BlobError, stored::StoredError};
use model::{error::Code, image::Reach, image_digest::Digest, image_manifest::ManifestError};
use std::{collections::BTreeMap, fmt, io, path::PathBuf, sync::Arc, time::Duration};

/// How registries are reached. The operator's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For a registry (`docker.io`), URLs that are tried in order before the registry itself.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// `host` or `host:port` that may be spoken to in plain HTTP.
    pub insecure: Vec<String>,
    /// `host` or `host:port` that may be at a private address whoever asks; those of `insecure` may be, too.
    pub private: Vec<String>,
    /// PEM files of further certificate authorities.
    pub certificate_authorities: Vec<PathBuf>,
    /// Looking a name up.
    pub resolve_timeout: Duration,
    /// One TCP connection.
    pub connect_timeout: Duration,
    /// The TLS handshake.
    pub tls_timeout: Duration,
    /// From the request to the answer's head.
    pub answer_timeout: Duration,
    /// Between two pieces of a body.
    pub idle_timeout: Duration,
    /// Least bytes in each `idle_timeout` of a body: slower is stalled.
    pub idle_bytes_min: u64,
    /// Tries in a row without progress.
    pub tries_max: u32,
    /// Wait after the first failed try; doubled after each further one.
    pub backoff: Duration,
    /// Longest wait that a registry may ask for (`Retry-After`) before it is an error.
    pub retry_after_max: Duration,
    /// Layers that are downloaded at the same time.
    pub parallel_layers: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mirrors: BTreeMap::new(),
            insecure: Vec::new(),
            private: Vec::new(),
            certificate_authorities: Vec::new(),
            resolve_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            tls_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
            idle_bytes_min: 16 << 10,
            tries_max: 5,
            backoff: Duration::from_millis(500),
            retry_after_max: Duration::from_secs(15),
            parallel_layers: 3,
        }
    }
}

/// A user of a registry. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Name.
    pub user: String,
    /// Password or access token.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Why a registry did not give what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The settings cannot be used.
    #[error("the setting '{setting}' cannot be used: {reason}")]
    Setting {
        /// Which.
        setting: String,
        /// Why not.
        reason: String,
    },
    /// Nobody answers there.
    #[error("cannot reach {host}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why not.
        source: io::Error,
    },
    /// It took too long.
    #[error("{host} did not {phase} within {after:?}")]
    Timeout {
        /// Host and port.
        host: String,
        /// `answer`, `take the connection`…
        phase: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The name leads to this machine, but was given by another one.
    #[error("{from} redirects to {host}, which is this machine or its local network link")]
    LocalRedirect {
        /// Who redirected.
        from: String,
        /// Whither.
        host: String,
    },
    /// It is where only this host gets, and who asks may not send it there.
    #[error("{}{host} is not at a public address", .from.as_ref().map(|from| format!("{from} leads to {host}, and ")).unwrap_or_default())]
    Private {
        /// Whither.
        host: String,
        /// The registry that named it; `None` for the registry itself.
        from: Option<String>,
    },
    /// HTTP itself failed.
    #[error("the connection to {host} broke")]
    Http {
        /// Host and port.
        host: String,
        /// Why.
        source: hyper::Error,
    },
    /// The body ended too early.
    #[error("{host} sent {got_bytes} of {size_bytes} bytes")]
    Cut {
        /// Host and port.
        host: String,
        /// What came.
        got_bytes: u64,
        /// What was announced.
        size_bytes: u64,
    },
    /// An answer that no registry gives.
    #[error("{host} answered in a way that is no registry's: {reason}")]
    Protocol {
        /// Host and port.
        host: String,
        /// What was wrong.
        reason: String,
    },
    /// Name and password are missing or wrong.
    #[error("{host} wants a login for {repository}, or there is no such image")]
    Unauthorized {
        /// Host and port.
        host: String,
        /// The repository.
        repository: String,
        /// Whether credentials were given.
        logged_in: bool,
    },
    /// The user may not.
    #[error("{host} denies access to {repository}: {message}")]
    Denied {
        /// Host and port.
        host: String,
        /// The repository.
        repository: String,
        /// The registry's words.
        message: String,
    },
    /// No such image.
    #[error("{host} has no {what}")]
    NotFound {
        /// Host and port.
        host: String,
        /// Repository and tag or digest.
        what: String,
    },
    /// Too many pulls.
    #[error("{host} refuses more pulls for now (429 Too Many Requests{})", retry_text(*.retry_after_s))]
    RateLimited {
        /// Host and port.
        host: String,
        /// What the registry asks to wait.
        retry_after_s: Option<u64>,
    },
    /// Any other refusal.
    #[error("{host} answered {status}: {message}")]
    Status {
        /// Host and port.
        host: String,
        /// HTTP status.
        status: u16,
        /// The registry's words.
        message: String,
    },
    /// A manifest that is not what its name says.
    #[error("{host} sent a manifest with digest {actual} for {expected}: it is broken or lies")]
    ManifestDigest {
        /// Host and port.
        host: String,
        /// Asked for.
        expected: Digest,
        /// Sent.
        actual: Digest,
    },
    /// A layer or config that is not what its name says.
    #[error("{host} sent content with digest {actual} for {what} {expected}: it is broken or lies")]
    BlobDigest {
        /// Host and port.
        host: String,
        /// `layer 2 of 5` or `the config`.
        what: String,
        /// Asked for.
        expected: Digest,
        /// Sent.
        actual: Digest,
    },
    /// More bytes than announced or allowed.
    #[error("{host} sent more than {size_bytes_max} bytes for {what}")]
    TooLarge {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// The limit.
        size_bytes_max: u64,
    },
    /// The store failed.
    #[error("what was pulled cannot be stored")]
    Blob(#[from] BlobError),
    /// The image cannot be used.
    #[error(transparent)]
    Image(#[from] StoredError),
    /// A document cannot be used.
    #[error(transparent)]
    Document(#[from] ManifestError),
    /// Every mirror and the registry failed.
    #[error("{}", .0.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; then "))]
    AllFailed(Vec<RegistryError>),
}

fn retry_text(retry_after_s: Option<u64>) -> String {
    retry_after_s.map(|seconds| format!(", again in {seconds} s")).unwrap_or_default()
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

impl RegistryError {
    /// What to do about it, for people.
    pub fn hint(&self) -> String {
        match self {
            Self::RateLimited { host, .. } if host.contains("docker.io") => {
                "Docker Hub counts pulls by address: wait, log in for a higher limit (docker login, then docker pull), or set a mirror".into()
            }
            Self::RateLimited { .. } => "wait, log in for a higher limit (docker login, then docker pull), or set a mirror".into(),
            Self::Unauthorized { host, logged_in: false, .. } => {
                format!("check the image's name, or log in and pull with docker: docker login {}", registry_of(host))
            }
            Self::Unauthorized { host, .. } => {
                format!("check the image's name, or log in again: docker login {}", registry_of(host))
            }
            Self::Denied { .. } => "ask the repository's owner for access".into(),
            Self::NotFound { .. } => "check the name and the tag".into(),
            Self::Connect { .. } | Self::Timeout { .. } => {
                "check the network and the name, or set a mirror that this machine can reach".into()
            }
            Self::ManifestDigest { .. } | Self::BlobDigest { .. } | Self::TooLarge { .. } => {
                "pull again; if it stays, do not trust this registry or mirror".into()
            }
            Self::Setting { .. } => "correct the daemon's configuration".into(),
            Self::Private { host, from: None } => {
                format!("have an admin pull it once (`holm pull`), or the operator allow it to all: holm serve --private-registry {host}")
            }
            Self::Private { host, .. } => {
                format!("have the operator allow it: holm serve --private-registry {host}")
            }
            Self::Image(error) => error.hint(),
            Self::Blob(error) if error.is_full() => crate::room::HINT.into(),
            Self::Document(error) => error.hint(),
            Self::AllFailed(errors) => errors.last().map(Self::hint).unwrap_or_default(),
            _ => "try again later, or set a mirror".into(),
        }
    }

    /// What kind of failure it is: `unavailable` and `too_many` may pass by themselves, all else stays until the image,
    /// its registry or the wish is another one.
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NotFound,
            Self::Unauthorized { .. } | Self::Denied { .. } | Self::LocalRedirect { .. } => Code::Forbidden,
            Self::RateLimited { .. } => Code::TooMany,
            Self::ManifestDigest { .. } | Self::BlobDigest { .. } | Self::Protocol { .. } => Code::Conflict,
            Self::TooLarge { .. } => Code::TooLarge,
            Self::Setting { .. } | Self::Private { .. } => Code::Invalid,
            Self::Image(error) => error.code(),
            Self::Document(_) => Code::Unsupported,
            Self::AllFailed(errors) => {
                let passing = errors.iter().map(Self::code).find(|code| code.is_passing());
                passing.or_else(|| errors.first().map(Self::code)).unwrap_or(Code::Unavailable)
            }
            Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Http { .. }
            | Self::Cut { .. }
            | Self::Status { .. } => Code::Unavailable,
            Self::Blob(error) => error.code(),
        }
    }

    /// Whether another try may help.
    fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::Http { .. } | Self::Cut { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

fn registry_of(host: &str) -> &str {
    if host.starts_with("registry-1.docker.io") { "docker.io" } else { host }
}

/// The client. Cheap to clone; clones share tokens.
#[derive(Debug, Clone)]
pub struct Registry {
    settings: Arc<Settings>,
    dialer: Arc<connection::Dialer>,
    tokens: Arc<auth::Tokens>,
    reach: Reach,
}

impl Registry {
    /// The same client for somebody whose registries may be there.
    pub fn reaching(&self, reach: Reach) -> Self {
        Self { reach, ..self.clone() }
    }

    /// A client with these settings, for everybody. Reads the machine's trusted roots: blocking, some milliseconds.
    pub fn new(settings: Settings) -> Result<Self, RegistryError> {
        for url in settings.mirrors.values().flatten() {
            request::Base::parse(url)?;
        }
        let dialer = connection::Dialer::new(&settings)?;
        Ok(Self {
            settings: Arc::new(settings),
            dialer: Arc::new(dialer),
            tokens: Arc::new(auth::Tokens::default()),
            reach: Reach::default(),
        })
    }
}
