//! A pod under a kernel of its own: the same shim, inside of a small virtual machine.
//!
//! ```text
//!  daemon ─ shim.sock ─▶ relay ─ virtio-serial ─▶ holm guest ─ shim.sock ─▶ shim ─▶ containers
//!                         └─ QEMU                  pid 1 of the guest
//! ```
//!
//! What runs, restarts, is limited and answers is the shim, here as there, so that both isolations behave alike. On the
//! host a relay stands in its place: it holds the pod's lock, listens on its socket, keeps its state file and logs, and
//! QEMU is its child. The daemon sees no difference but in what the pod's file says ([`order::Machine`]).
//!
//! ```text
//!  order   what the machine is, and what its guest is told (pure)
//!  link    many streams over the one serial port, none of which holds up another
//!  relay   the role on the host            qemu   its command line and its process
//!  talk    what the two say                far_log   output on its way to the files of its log
//!  guest   the role inside                 boot   kernel and initial RAM disk     base   images as disks
//! ```
//!
//! The files of a pod that does not run are worked on in a machine for *maintenance*: the same disks, little memory, no network
//! and no shim. It has places of its own, so that nobody takes it for the pod, and ends by itself when nobody uses it
//! (`relay::maintenance`).

pub mod base;
pub mod boot;
pub mod far_log;
pub mod guest;
pub mod link;
pub mod order;
pub mod qemu;
pub mod relay;
pub mod talk;

/// Name of the serial port that guest and relay speak over.
pub const PORT: &str = "holm";
/// Run directory of the pod in the guest.
pub const GUEST_RUN: &str = "/run/holm/pod";
/// State directory of the pod in the guest: `pod.json`, `shim.log`.
pub const GUEST_STATE: &str = "/run/holm/state";
/// Root file systems of images in the guest, by container.
pub const GUEST_BASE: &str = "/run/holm/base";
/// What the containers write, in the guest.
pub const GUEST_ROOT: &str = "/run/holm/root";
/// Volumes in the guest, by serial number.
pub const GUEST_VOLUMES: &str = "/run/holm/volumes";
/// The pod's network namespace in the guest: one that belongs to the pod's user namespace, as on a host.
pub const GUEST_NETNS: &str = "/run/holm/netns/pod";
/// Socket that logs are written to in the guest.
pub const GUEST_LOG: &str = "/run/holm/log.sock";

/// A machine, for tests.
#[cfg(test)]
pub(in crate::container) use qemu::tests::machine as example;
