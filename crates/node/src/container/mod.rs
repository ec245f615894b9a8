//! Pods of OCI containers: one shim process per pod, and the driver that speaks to the shims.
//!
//! ```text
//!  bundle   plan of an instance → everything a shim needs (pure)      capability, seccomp, user, restart: pure rules
//!  driver   the daemon's side: network, shim, observing, destroying   client, network, file
//!  shim     the role `holm shim`: starts, keeps streams, restarts     root, process, cgroup, log
//!  protocol what the two say to each other, and the state file
//! ```
//!
//! Containers are made by the shim itself rather than by libcontainer; [`process`] tells why.

pub mod bundle;
pub mod capability;
pub mod cgroup;
pub mod client;
pub mod driver;
pub mod log;
mod network;
mod process;
pub mod protocol;
pub mod restart;
mod root;
pub mod seccomp;
pub mod shim;
mod terminal;
pub mod user;
