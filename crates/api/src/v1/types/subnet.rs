//! Subnets on the wire.

use super::{
    Head, Reference,
    patch::{LabelChanges, nullable},
    schema,
};
use ipnet::IpNet;
use model::{
    meta::Labels,
    subnet::{Ipv6Mode, Ipv6Part},
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// A range of addresses of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subnet {
    /// Head.
    #[serde(flatten)]
    pub head: Head,
    /// Network it belongs to.
    pub network: Reference,
    /// The range.
    #[schema(value_type = String)]
    pub cidr: IpNet,
    /// Address of the gateway; missing for a subnet that is not routed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub gateway: Option<IpAddr>,
    /// Addresses are told by DHCP (v4) or DHCPv6 and RA (v6).
    pub dhcp: bool,
    /// DNS servers told to instances; empty means holm's own.
    #[schema(value_type = Vec<String>)]
    pub dns_servers: Vec<IpAddr>,
    /// Where automatic addresses come from; empty means all that is usable.
    pub pools: Vec<Pool>,
    /// Routes told to instances beside the default one.
    pub host_routes: Vec<Route>,
    /// How IPv6 instances get their address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Ipv6Mode>)]
    pub ipv6_mode: Option<Ipv6Mode>,
    /// Which part of telling them is the network's own: `both`, `advertise` or `serve`.
    #[serde(default)]
    #[schema(value_type = schema::Ipv6Part)]
    pub ipv6_part: Ipv6Part,
    /// A second gate: what passes a port under an address of the subnet must pass one of these groups as well as one
    /// of the port's. Empty for no such gate.
    #[serde(default)]
    pub security_groups: Vec<Reference>,
    /// Pool that the range was cut from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet_pool: Option<Reference>,
}

/// First and last address of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// First address.
    #[schema(value_type = String)]
    pub start: IpAddr,
    /// Last address.
    #[schema(value_type = String)]
    pub end: IpAddr,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where to.
    #[schema(value_type = String)]
    pub destination: IpNet,
    /// Through which neighbour.
    #[schema(value_type = String)]
    pub next_hop: IpAddr,
}

/// A new subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSubnet {
    /// Name.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Labels.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// Network it belongs to.
    pub network: String,
    /// The range, like `10.0.0.0/24` or `fd00:1::/64`; may be missing when a pool gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub cidr: Option<IpNet>,
    /// Pool that the range is cut from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet_pool: Option<String>,
    /// Prefix length of the range that the pool gives; the pool's own when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_len: Option<u8>,
    /// Address of the gateway: the first of the range when missing, none when `null`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub gateway: Option<Option<IpAddr>>,
    /// Addresses are told by DHCP (the default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// DNS servers told to instances; empty means holm's own.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub dns_servers: Vec<IpAddr>,
    /// Where automatic addresses come from; empty means all that is usable.
    #[serde(default)]
    pub pools: Vec<Pool>,
    /// Routes told to instances beside the default one.
    #[serde(default)]
    pub host_routes: Vec<Route>,
    /// How IPv6 instances get their address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Ipv6Mode>)]
    pub ipv6_mode: Option<Ipv6Mode>,
    /// Which part of telling them is the network's own: `both` (the default), `advertise` or `serve`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Ipv6Part>)]
    pub ipv6_part: Option<Ipv6Part>,
    /// Groups that are a second gate for all of the subnet.
    #[serde(default)]
    pub security_groups: Vec<String>,
    /// Router that joins it: the project's router named `default` when missing, none when `null`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub router: Option<Option<String>>,
}

/// Changes to a subnet. Its range never changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateSubnet {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Labels to set; `null` removes one.
    #[serde(skip_serializing_if = "LabelChanges::is_empty")]
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    pub labels: LabelChanges,
    /// Address of the gateway; `null` for none.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub gateway: Option<Option<IpAddr>>,
    /// Addresses are told by DHCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// DNS servers told to instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub dns_servers: Option<Vec<IpAddr>>,
    /// Where automatic addresses come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pools: Option<Vec<Pool>>,
    /// Routes told to instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_routes: Option<Vec<Route>>,
    /// Groups that are a second gate, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
}
