//! The hands of the network: plans of the dataplane written to the kernel, flows ended that may not go on, and the
//! services that guests find in their network.
//!
//! All decisions are made in `model::dataplane`; this room writes what was decided and serves what a
//! [`directory::Directory`] knows. The namespace that counts as the host's is always given, never assumed.

pub mod announce;
pub mod apply;
pub mod conntrack;
pub mod dhcp;
pub mod dhcpv6;
pub mod directory;
pub mod directory_mirror;
pub mod dns;
pub mod dns_server;
pub mod gather;
pub mod host_record;
pub mod limit;
pub mod listeners;
pub mod metadata;
pub mod published;
pub mod ra;
mod ranges;
pub mod reconcile;
pub mod relay;
pub mod servers;
pub mod sockets;
pub mod traffic;
