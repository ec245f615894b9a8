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

/// Lets the allocator split its heap into at most so many parts (arenas). It makes up to eight for each processor, so that
/// threads do not wait for each other, and what a burst leaves free in one of them is of no use to the others. To be called
/// before there is a second thread. Source: mallopt(3).
pub fn limit_arenas(count: u8) {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number, and no other thread is there to read it.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, i32::from(count.max(1)));
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = count;
}
