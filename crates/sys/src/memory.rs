//! Memory of this process that nobody uses any more.

/// Gives memory that was freed back to the system. The allocator keeps it for later by itself, which after a start or a burst
/// is most of what a quiet process has. Takes about a millisecond; others wait for memory meanwhile. Source: malloc_trim(3).
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time by any thread, and moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
