//! Subnet pools and address scopes on the wire.

use super::{
    Head, Reference,
    patch::{LabelChanges, nullable},
};
use ipnet::IpNet;
use model::meta::Labels;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Ranges that subnets are cut from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubnetPool {
    /// Head.
    #[serde(flatten)]
    pub head: Head,
    /// The ranges.
    #[schema(value_type = Vec<String>)]
    pub ranges: Vec<IpNet>,
    /// Prefix length of a subnet that says nothing.
    pub default_prefix_len: u8,
    /// Shortest prefix (largest subnet).
    pub min_prefix_len: u8,
    /// Longest prefix (smallest subnet).
    pub max_prefix_len: u8,
    /// Most that each project may have of it: addresses of IPv4, /64 networks of IPv6; missing for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
    /// Space in which its addresses are unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Reference>,
    /// Other projects may use it.
    pub shared: bool,
    /// The pool of its family that is used where none is named.
    pub is_default: bool,
}

/// A new subnet pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSubnetPool {
    /// Name.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Labels.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// The ranges, all of one address family.
    #[schema(value_type = Vec<String>)]
    pub ranges: Vec<IpNet>,
    /// Shortest prefix; 8 (IPv4) or 64 when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_prefix_len: Option<u8>,
    /// Prefix length of a subnet that says nothing; the shortest when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_prefix_len: Option<u8>,
    /// Longest prefix; all bits when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefix_len: Option<u8>,
    /// Most that each project may have of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
    /// Address scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Other projects may use it: admin only.
    #[serde(default)]
    pub shared: bool,
    /// The pool of its family that is used where none is named: admin only.
    #[serde(default)]
    pub is_default: bool,
}

/// Changes to a subnet pool. Its ranges only grow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateSubnetPool {
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
    /// The ranges, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub ranges: Option<Vec<IpNet>>,
    /// Prefix length of a subnet that says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_prefix_len: Option<u8>,
    /// Shortest prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_prefix_len: Option<u8>,
    /// Longest prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_prefix_len: Option<u8>,
    /// Most that each project may have of it; `null` for no limit.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    #[schema(value_type = Option<u64>)]
    pub quota: Option<Option<u64>>,
    /// Address scope; `null` for none.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub scope: Option<Option<String>>,
    /// Other projects may use it: admin only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<bool>,
    /// The pool of its family that is used where none is named: admin only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_default: Option<bool>,
}

/// A space in which addresses are unique.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddressScope {
    /// Head.
    #[serde(flatten)]
    pub head: Head,
    /// Address family: 4 or 6.
    pub family: u8,
    /// Other projects may use it.
    pub shared: bool,
}

/// A new address scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAddressScope {
    /// Name.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Labels.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// Address family: 4 or 6.
    pub family: u8,
    /// Other projects may use it: admin only.
    #[serde(default)]
    pub shared: bool,
}

/// Changes to an address scope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateAddressScope {
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
}
