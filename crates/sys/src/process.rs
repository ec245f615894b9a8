//! The calling process itself.

use nix::unistd::Uid;

/// The user whose rights this process has.
pub fn effective_uid() -> u32 {
    Uid::effective().as_raw()
}
