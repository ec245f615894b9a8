//! Succession: an instance that is made to take the place of another, while that still has its ports, volumes and addresses.
//!
//! ```text
//!   old runs ── new is made ── old goes ── new starts, with what was old's
//! ```
//! A port of a host, a volume and an address belong to one instance at a time. So what old has is only noted when new is made, and
//! taken when new is started; whoever was quicker meanwhile has it.

use crate::{
    id::{InstanceId, VolumeId},
    port::FixedIp,
    publish::Publish,
};
use serde::{Deserialize, Serialize};

/// What an instance takes over with its first start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Succession {
    /// Whom it follows.
    pub of: InstanceId,
    /// Ports of the host.
    #[serde(default)]
    pub publish: Vec<Publish>,
    /// Volumes.
    #[serde(default)]
    pub volumes: Vec<Inherited>,
    /// Addresses in networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<InheritedAddress>,
}

/// An address that is taken over, instead of the one that its interface has until then in the same subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InheritedAddress {
    /// Which of its interfaces, from 0.
    pub interface: usize,
    /// The address.
    pub fixed: FixedIp,
}

/// A volume that is taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inherited {
    /// Which.
    pub volume: VolumeId,
    /// Where containers see it.
    #[serde(default)]
    pub mount_path: Option<String>,
    /// Writes are refused.
    #[serde(default)]
    pub read_only: bool,
}
