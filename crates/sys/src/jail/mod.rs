//! What a confined process is made of: new namespaces, detached mounts, identity, capabilities and a system call filter.
//!
//! These are mechanisms for a small single-threaded parent that starts confined programs. Which namespaces,
//! capabilities and calls are right is decided by the caller; nothing here knows what is being confined.
//! Forking is refused in a process with several threads, because a forked child may then only make
//! async-signal-safe calls, and the children started here allocate.

pub mod filter;
pub mod init;
pub mod privilege;
pub mod process;
pub mod tree;
