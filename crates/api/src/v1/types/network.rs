//! Networks on the wire.

use super::{Head, patch::LabelChanges};
use ipnet::IpNet;
use model::meta::Labels;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A private, host-only or external network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Network {
    /// Head.
    #[serde(flatten)]
    pub head: Head,
    /// What stands behind the name.
    pub kind: NetworkKind,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Other projects may use it.
    pub shared: bool,
    /// New ports filter unless told otherwise.
    pub port_security: bool,
    /// Domain under which instances are named; empty for the default.
    #[serde(default)]
    pub dns_domain: String,
    /// A network that is down passes nothing.
    pub admin_up: bool,
    /// How an external network meets the world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// Ranges of addresses in it.
    pub subnets: Vec<NetworkSubnet>,
}

/// Kinds of network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkKind {
    /// Reached through routers only.
    #[default]
    Private,
    /// The host has an address in it; never routed out.
    HostOnly,
    /// Where routers have their outer side and floating IPs live.
    External,
}

impl NetworkKind {
    /// Name on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::HostOnly => "host_only",
            Self::External => "external",
        }
    }
}

/// How an external network meets the world.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// The host's interface on whose link the addresses are answered; missing: the pool is routed by this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Hide the pool behind the host's own address when it leaves the host.
    #[serde(default)]
    pub masquerade: bool,
    /// The network that new projects' routers use.
    #[serde(default)]
    pub is_default: bool,
}

/// A subnet as its network shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkSubnet {
    /// Id.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// The range.
    #[schema(value_type = String)]
    pub cidr: IpNet,
}

/// A new network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateNetwork {
    /// Name.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Labels.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// What stands behind the name; `external` and `shared` need the role admin.
    #[serde(default)]
    pub kind: NetworkKind,
    /// Largest packet in bytes, 1280 to 9000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Other projects may use it.
    #[serde(default)]
    pub shared: bool,
    /// New ports filter unless told otherwise (the default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_security: Option<bool>,
    /// Domain under which instances are named.
    #[serde(default)]
    pub dns_domain: String,
    /// A network that is down passes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_up: Option<bool>,
    /// How an external network meets the world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

/// Changes to a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateNetwork {
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
    /// Largest packet in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Other projects may use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<bool>,
    /// New ports filter unless told otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_security: Option<bool>,
    /// Domain under which instances are named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_domain: Option<String>,
    /// A network that is down passes nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_up: Option<bool>,
}
