//! What is asked and told of images of containers beyond their records.

use bytes::Bytes;
use model::{image_reference::Reference, simplestreams::offer::File};
use serde_json::Value;
use std::any::Any;

/// What an image says of itself in full.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageDetails {
    /// Its config (OCI image specification, config.md).
    pub config: Value,
    /// Unpacked bytes of its layers, lowest first.
    pub layer_bytes: Vec<u64>,
}

/// An image that came in, and that no record names yet.
pub struct ImageIn {
    /// Digest of its manifest.
    pub digest: String,
    /// Docker's id.
    pub config_digest: String,
    /// Names that its archive gives it.
    pub names: Vec<Reference>,
    /// It stays here as long as this lives, and then as long as a record names it.
    pub held: Box<dyn Any + Send + Sync>,
}

/// The files of an image that everybody may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedRoot {
    /// A tar with `metadata.yaml`, for LXD and Incus.
    pub metadata: Bytes,
    /// What that is.
    pub metadata_file: File,
    /// The root file system as it was sent.
    pub root: File,
    /// What that is, as a name's suffix.
    pub suffix: &'static str,
    /// SHA-256 in hex of both, one behind the other.
    pub combined_sha256: String,
}

/// How an image is made of what a container changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitAsked {
    /// The container is frozen meanwhile.
    pub pauses: bool,
    /// No time of a file in it is later, in seconds since 1970.
    pub newest_s: Option<i64>,
}
