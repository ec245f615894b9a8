//! What is asked and told of registries.

use model::error::Fault;
use std::fmt;

/// A user of a registry. Never printed, never written.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryLogin {
    /// Name.
    pub user: String,
    /// Password or access token.
    pub password: String,
}

impl fmt::Debug for RegistryLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryLogin").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A step of a push.
#[derive(Debug, Clone, PartialEq)]
pub enum PushStep {
    /// A blob with this digest is there.
    Blob(String),
    /// The image is there, and can be pulled by this digest.
    Done {
        /// Of the manifest.
        digest: String,
        /// Its bytes.
        size_bytes: u64,
    },
    /// It is not.
    Failed(Fault),
}
