//! Floating IPs on the wire.

use super::{
    Head, Reference,
    patch::{LabelChanges, nullable},
};
use model::meta::Labels;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// An outside address that moves between running instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FloatingIp {
    /// Head.
    #[serde(flatten)]
    pub head: Head,
    /// External network it was taken from.
    pub network: Reference,
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// What it leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// Where a floating IP leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Target {
    /// Instance, if the port is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Reference>,
    /// Port.
    pub port: Reference,
    /// Which of the port's addresses.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Router that translates.
    pub router: Reference,
}

/// Where a floating IP shall lead: an instance or a port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetRequest {
    /// Instance; its first port that a router reaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Which of the port's addresses; the first of the family when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
}

/// A floating IP to allocate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateFloatingIp {
    /// Name; the address when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Labels.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// External network; the default one when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The address; any free one when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// Address family, 4 or 6; that of `address`, else 4 where the network has it, when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<u8>,
    /// Where it shall lead; nowhere when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetRequest>,
}

/// Changes to a floating IP: attach, move (at once, while both instances run) or detach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateFloatingIp {
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
    /// Where it shall lead; `null` detaches.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    #[schema(value_type = Option<TargetRequest>)]
    pub target: Option<Option<TargetRequest>>,
}
