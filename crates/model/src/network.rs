//! Networks: private ones (a VPC of a project), host-only ones, and external ones that hold floating addresses.

use crate::{id::NetworkId, meta::Meta, record::Record};
use serde::{Deserialize, Serialize};

/// Smallest and largest MTU in bytes that a network may have (RFC 8200 asks 1280 of IPv6 links).
pub const MTU_BYTES: std::ops::RangeInclusive<u32> = 1280..=9000;
/// MTU of a network that says nothing.
pub const MTU_BYTES_DEFAULT: u32 = 1500;

/// A network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Head.
    pub meta: Meta<NetworkId>,
    /// What stands behind the name.
    pub kind: NetworkKind,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Other projects may use it.
    #[serde(default)]
    pub shared: bool,
    /// New ports filter (security groups, anti-spoof) unless told otherwise.
    #[serde(default = "yes")]
    pub port_security: bool,
    /// Domain under which instances are named, without dots at the ends; empty for the default.
    #[serde(default)]
    pub dns_domain: String,
    /// Administratively up; a network that is down passes nothing.
    #[serde(default = "yes")]
    pub admin_up: bool,
}

fn yes() -> bool {
    true
}

/// Kinds of network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum NetworkKind {
    /// Reached through routers only; the host takes no part in it.
    Private,
    /// As private, and the host itself has an address in it (the gateway's); never routed out.
    HostOnly,
    /// Where routers have their outer side and floating IPs live.
    External(External),
}

/// How an external network meets the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// The host's interface on whose link the addresses are answered by proxy ARP and ND; `None`: the pool is routed
    /// by this host.
    #[serde(default)]
    pub interface: Option<String>,
    /// Hide the pool behind the host's own address when it leaves the host (a laptop needs it).
    #[serde(default)]
    pub masquerade: bool,
    /// The network that new projects' routers use.
    #[serde(default)]
    pub is_default: bool,
}

impl Network {
    /// The external part, if this is an external network.
    pub fn external(&self) -> Option<&External> {
        match &self.kind {
            NetworkKind::External(external) => Some(external),
            _ => None,
        }
    }
}

impl Record for Network {
    const TABLE: &'static str = "network";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}
