//! Server groups on the wire.

use super::{Head, Reference, patch::LabelChanges};
use model::{meta::Labels, server_group::Policy};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Instances that are to be kept on one host, or on different ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerGroup {
    /// Head.
    #[serde(flatten)]
    pub head: Head,
    /// How its members are placed: `affinity`, `anti-affinity`, `soft-affinity` or `soft-anti-affinity`.
    #[schema(value_type = String)]
    pub policy: Policy,
    /// Most members on one host (anti-affinity); 1 when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_host_max: Option<u32>,
    /// Its instances.
    #[serde(default)]
    pub members: Vec<Reference>,
}

/// A new server group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateServerGroup {
    /// Name.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Labels.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// How its members are placed: `affinity`, `anti-affinity`, `soft-affinity` or `soft-anti-affinity`.
    #[schema(value_type = String)]
    pub policy: Policy,
    /// Most members on one host (anti-affinity); 1 when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_host_max: Option<u32>,
}

/// Changes to a server group. Its policy never changes: make another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateServerGroup {
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
