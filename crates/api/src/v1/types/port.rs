//! Ports on the wire.

use super::{
    Head, Reference,
    patch::{LabelChanges, nullable},
};
use ipnet::IpNet;
use model::{address::Mac, meta::Labels, port::alias::Alias};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;
use uuid::Uuid;

/// A place where an instance meets a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Port {
    /// Head.
    #[serde(flatten)]
    pub head: Head,
    /// Network it is in.
    pub network: Reference,
    /// Ethernet address.
    #[schema(value_type = String)]
    pub mac: Mac,
    /// Addresses.
    pub addresses: Vec<FixedIp>,
    /// Who uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<PortDevice>,
    /// Groups whose rules let traffic pass.
    pub security_groups: Vec<Reference>,
    /// Whether groups and anti-spoof apply at all.
    pub port_security: bool,
    /// Further senders and receivers behind this port.
    pub allowed_pairs: Vec<AddressPair>,
    /// A port that is down passes nothing.
    pub admin_up: bool,
    /// Most Mbit/s (10^6 bits) in each direction; missing when there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_mbit: Option<u32>,
    /// Who uses it by a client's word, where nothing of this cloud does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_user: Option<UserNote>,
    /// Floating addresses that lead here.
    #[schema(value_type = Vec<String>)]
    pub floating_ips: Vec<IpAddr>,
    /// It goes when its instance goes.
    pub delete_with_instance: bool,
    /// Further names by which it is found in its network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub aliases: Vec<Alias>,
    /// What comes to its addresses goes on to others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
}

/// Where packets go on to that come to the addresses of a port which nothing uses: to the ports of its network with an alias,
/// in turn, of which those are led to whose instances run and are ready. Their own groups decide who gets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// Alias of the ports that they go on to.
    #[schema(value_type = String)]
    pub over: Alias,
    /// Which packets, 1 to 64 entries. What is not named here is refused.
    pub ports: Vec<SpreadPort>,
}

/// A port number that is led on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SpreadPort {
    /// Asked for.
    pub port: u16,
    /// Where it is answered.
    pub to: u16,
    /// `tcp`, `udp` or `sctp`.
    #[serde(default = "tcp")]
    pub protocol: String,
}

fn tcp() -> String {
    "tcp".into()
}

impl From<&model::port::spread::Spread> for Spread {
    fn from(spread: &model::port::spread::Spread) -> Self {
        let port = |it: &model::port::spread::SpreadPort| SpreadPort {
            port: it.port,
            to: it.to,
            protocol: it.protocol.to_string(),
        };
        Self { over: spread.over.clone(), ports: spread.ports.iter().map(port).collect() }
    }
}

/// An address of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FixedIp {
    /// Subnet.
    pub subnet: Reference,
    /// Address.
    #[schema(value_type = String)]
    pub address: IpAddr,
}

/// Who uses a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortDevice {
    /// What it is: `instance`, `router_interface`, `router_gateway` or `floating_ip`.
    pub kind: String,
    /// Its id; missing for a floating IP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// Who uses a port by a client's word: kept and shown, never acted on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UserNote {
    /// Which kind of user.
    pub kind: String,
    /// Which one.
    pub id: String,
}

/// An address (range) that may be used behind a port beside its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressPair {
    /// Address or range.
    #[schema(value_type = String)]
    pub net: IpNet,
    /// Ethernet address, the port's own when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub mac: Option<Mac>,
}

/// An address that is asked for: a subnet, an address or both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedIpRequest {
    /// Subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// Address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
}

/// A new port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePort {
    /// Name; made up when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Labels.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// Network it is in; the project's own when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Addresses; one of each family that the network has when empty.
    #[serde(default)]
    pub addresses: Vec<FixedIpRequest>,
    /// Ethernet address; made up when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub mac: Option<Mac>,
    /// Groups; the project's default group when missing, none when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    /// Whether groups and anti-spoof apply; as the network says when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_security: Option<bool>,
    /// Further senders and receivers behind this port.
    #[serde(default)]
    pub allowed_pairs: Vec<AddressPair>,
    /// A port that is down passes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_up: Option<bool>,
    /// Most Mbit/s in each direction, 1 to 100000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_mbit: Option<u32>,
    /// Who uses it by a client's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_user: Option<UserNote>,
    /// Further names by which the network's DNS finds it, at most 32. Of several ports with the same alias those are told
    /// whose instances run, in turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub aliases: Vec<Alias>,
    /// What comes to its addresses goes on to others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
}

/// Changes to a port. They take effect while its instance runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdatePort {
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
    /// Addresses, all of them; those that stay are kept. Its guest hears of others when it asks again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<FixedIpRequest>>,
    /// Ethernet address; not while something uses the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub mac: Option<Mac>,
    /// Groups, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    /// Whether groups and anti-spoof apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_security: Option<bool>,
    /// Further senders and receivers, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_pairs: Option<Vec<AddressPair>>,
    /// A port that is down passes nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_up: Option<bool>,
    /// Most Mbit/s in each direction, 1 to 100000; `null` for no limit.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>)]
    pub rate_mbit: Option<Option<u32>>,
    /// Who uses it by a client's word; `null` for nobody.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    #[schema(value_type = Option<UserNote>)]
    pub foreign_user: Option<Option<UserNote>>,
    /// Further names by which it is found in its network, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub aliases: Option<Vec<Alias>>,
    /// What comes to its addresses goes on to others; `null` for no longer.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    #[schema(value_type = Option<Spread>)]
    pub spread: Option<Option<Spread>>,
}
