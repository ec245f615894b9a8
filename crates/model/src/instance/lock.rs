//! Locks: what keeps an instance from being deleted or stopped by mistake.

use serde::{Deserialize, Serialize};

/// Longest reason in characters.
pub const REASON_CHARS_MAX: usize = 255;

/// A lock on an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Why, in the words of who locked it.
    #[serde(default)]
    pub reason: Option<String>,
    /// An admin locked it: its project cannot unlock it.
    #[serde(default)]
    pub by_admin: bool,
}
