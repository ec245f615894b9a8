//! Pods of OCI containers: one shim process per pod, and the driver that speaks to the shims.
//!
//! ```text
//!  bundle   plan of an instance → everything a shim needs (pure)      capability, seccomp, user, restart: pure rules
//!  driver   the daemon's side: network, shim, observing, destroying   client, network, file
//!  shim     the role `holm shim`: starts, keeps streams, restarts     root, root_disk, process, cgroup, log
//!  files    what is in a container's file system: copied in and out, running or not
//!  init     a first process that only collects and hands signals on; volume_group: whose the files of a volume are
//!  system   what is different where the first process is an init; first_boot, host_key: who such an instance is;
//!           sysvinit: how that one is asked to power off
//!  machine  the same under a kernel of its own
//!  secret   variables that are kept apart from what is written of a pod
//!  protocol what the two say to each other, and the state file        listener: what both listen on
//! ```
//!
//! Containers are made by the shim itself rather than by libcontainer; [`process`] tells why.

pub mod bundle;
pub mod capability;
pub mod cgroup;
pub mod client;
pub mod driver;
pub mod files;
mod first_boot;
mod holder;
mod host_key;
mod init;
mod listener;
pub mod log;
pub mod machine;
pub(crate) mod network;
mod process;
pub mod protocol;
pub mod restart;
mod root;
mod root_disk;
pub mod seccomp;
pub(crate) mod secret;
pub mod shim;
pub mod system;
mod sysvinit;
mod terminal;
pub mod user;
mod volume_group;

pub(crate) use root_disk::run as e2fsprogs;
