//! The config drive: a read-only disk labelled `config-2` with the documents that the metadata service would give.
//!
//! For guests that have no network yet, or look at disks first. It is made anew for each boot.

use model::metadata::GuestData;

use super::iso9660::{IsoError, image};

/// The label by which guests find it.
pub const LABEL: &str = "config-2";

/// The drive's image. `random_seed` is entropy for the guest's first boot.
pub fn build(guest: &GuestData, random_seed: &[u8]) -> Result<Vec<u8>, IsoError> {
    image(LABEL, &guest.config_drive_files(random_seed))
}
