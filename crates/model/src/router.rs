//! Routers: they join the networks of a project with each other and with an external network.

use crate::{
    id::{NetworkId, PortId, RouterId, SubnetId},
    meta::Meta,
    record::Record,
    subnet::HostRoute,
};
use serde::{Deserialize, Serialize};

/// Most interfaces or extra routes of one router.
pub const ROUTER_LIST_MAX: usize = 64;

/// A virtual router.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Router {
    /// Head.
    pub meta: Meta<RouterId>,
    /// The way out.
    #[serde(default)]
    pub gateway: Option<Gateway>,
    /// Subnets it joins; each has a port that holds the subnet's gateway address.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// Extra routes.
    #[serde(default)]
    pub routes: Vec<HostRoute>,
    /// A router that is down passes nothing.
    pub admin_up: bool,
}

/// A router's place in an external network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// The external network.
    pub network: NetworkId,
    /// The port there, which holds the router's outer addresses.
    pub port: PortId,
    /// Hide instances without a floating IP behind the router's outer address.
    pub snat: bool,
}

/// A router's place in a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The subnet.
    pub subnet: SubnetId,
    /// Its network.
    pub network: NetworkId,
    /// The port that holds the gateway address.
    pub port: PortId,
}

impl Record for Router {
    const TABLE: &'static str = "router";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}
