//! A size on trial: an instance runs with another size until that is confirmed or taken back.
//!
//! ```text
//!   size A ──resize──▶ size B, A kept ──confirm──▶ size B (and the root disk grows)
//!                           └─────────revert───▶ size A
//! ```
//! Nothing that cannot be undone happens before the confirmation: the disk, which never shrinks, grows with it.

use crate::{flavor::Size, id::FlavorId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What an instance goes back to when its new size is not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The size before.
    pub size: Size,
    /// The flavor before.
    pub flavor: Option<FlavorId>,
    /// That flavor's name.
    pub flavor_name: String,
    /// The boot that is the first of the new size.
    pub boot: u64,
    /// GiB by which the root disk grows when the size is confirmed; charged from the beginning.
    #[serde(default)]
    pub disk_more_gib: u64,
    /// When it began.
    pub since: Timestamp,
}

/// The larger of each.
pub fn larger(a: Size, b: Size) -> Size {
    Size {
        vcpus: a.vcpus.max(b.vcpus),
        memory_mib: a.memory_mib.max(b.memory_mib),
        disk_gib: a.disk_gib.max(b.disk_gib),
    }
}
