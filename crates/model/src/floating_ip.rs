//! Floating IPs: outside addresses that move between instances while these run.

use crate::{
    id::{FloatingIpId, NetworkId, PortId, RouterId},
    meta::Meta,
    record::Record,
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// An outside address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloatingIp {
    /// Head; the name is the address unless the user gave another.
    pub meta: Meta<FloatingIpId>,
    /// External network it was taken from.
    pub network: NetworkId,
    /// The address, kept until release.
    pub address: IpAddr,
    /// What it leads to.
    #[serde(default)]
    pub target: Option<Target>,
    /// The cloud took it for the published ports of an instance: it counts in no quota, is not listed, passes those
    /// ports alone, and goes when nothing is published any more.
    #[serde(default)]
    pub internal: bool,
}

/// Where a floating IP leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Port.
    pub port: PortId,
    /// Which of the port's addresses.
    pub address: IpAddr,
    /// Router that translates.
    pub router: RouterId,
}

impl Record for FloatingIp {
    const TABLE: &'static str = "floating_ip";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}
