//! Rescue: a VM that runs from another disk for a while, with its own root disk plugged in beside it.

use crate::id::{ImageId, VolumeId};
use serde::{Deserialize, Serialize};

/// What a VM in rescue runs from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rescue {
    /// Image that it boots from.
    pub image: ImageId,
    /// Disk made of it: the first of the instance's volumes until the rescue is over, and then no more.
    pub volume: VolumeId,
    /// The first boot from it.
    pub boot: u64,
}
