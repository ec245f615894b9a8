//! Routers on the wire.

use super::{
    Head, Reference,
    patch::{LabelChanges, nullable},
    subnet::Route,
};
use ipnet::IpNet;
use model::meta::Labels;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// A virtual router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Router {
    /// Head.
    #[serde(flatten)]
    pub head: Head,
    /// The way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
    /// Subnets it joins.
    pub interfaces: Vec<Interface>,
    /// Extra routes.
    pub routes: Vec<Route>,
    /// A router that is down passes nothing.
    pub admin_up: bool,
}

/// A router's place in an external network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gateway {
    /// The external network.
    pub network: Reference,
    /// The router's outer addresses.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Instances without a floating IP are hidden behind the outer address.
    pub snat: bool,
}

/// A router's place in a subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Interface {
    /// The subnet.
    pub subnet: Reference,
    /// Its network.
    pub network: Reference,
    /// Its range.
    #[schema(value_type = String)]
    pub cidr: IpNet,
    /// The router's addresses there.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
}

/// A way out that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewayRequest {
    /// The external network; the default one when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Hide instances without a floating IP behind the outer address (the default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snat: Option<bool>,
    /// Outer addresses; one of each family when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
}

/// A subnet to join, or a port in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddInterface {
    /// The subnet: the router takes its gateway address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// A port that nothing uses: the router takes it with its addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

/// A new router.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRouter {
    /// Name.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Labels.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// The way out; none when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayRequest>,
    /// Subnets to join.
    #[serde(default)]
    pub interfaces: Vec<String>,
    /// Extra routes.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// A router that is down passes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_up: Option<bool>,
}

/// Changes to a router.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateRouter {
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
    /// The way out; `null` closes it.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    #[schema(value_type = Option<GatewayRequest>)]
    pub gateway: Option<Option<GatewayRequest>>,
    /// Extra routes, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<Route>>,
    /// A router that is down passes nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_up: Option<bool>,
}
