//! The kernel made safe: the only crate with `unsafe`. It knows no noun of the cloud.
//!
//! Everything here is synchronous and short. A caller inside an async runtime wraps a call in a blocking task; nothing in
//! this crate ever changes the namespace, credentials or signal mask of the thread that calls it (the exceptions say so
//! loudly: `jail` and `terminal`). Every function that changes the kernel is idempotent: it reaches the wanted state
//! whatever state it finds, so that it can be repeated after a crash.
//!
//! Errors carry the operation, the object and the errno: see [`Error`].

pub mod cgroup;
mod clone;
pub mod conntrack;
pub mod error;
pub mod fdpass;
pub mod file;
pub mod jail;
pub mod kvm;
pub mod loop_device;
pub mod machine;
pub mod memory;
pub mod mount;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod packet;
pub mod pidfd;
pub mod process;
pub mod spawn;
pub mod sysctl;
pub mod tap;
pub mod terminal;
pub mod userns;

pub use error::{Error, Result};
