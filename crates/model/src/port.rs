//! Ports: where an instance meets a network. A port has the MAC, the addresses and the security groups.

pub mod alias;
pub mod spread;

use alias::Alias;
use spread::Spread;

use crate::{
    address::Mac,
    id::{InstanceId, NetworkId, PortId, RouterId, SecurityGroupId, SubnetId},
    instance::tag::Tag,
    meta::Meta,
    record::Record,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Most addresses of one port.
pub const PORT_ADDRESSES_MAX: usize = 16;
/// Most allowed address pairs of one port.
pub const ADDRESS_PAIRS_MAX: usize = 64;

/// Least and most of a port's rate in Mbit/s.
pub const RATE_MBIT: std::ops::RangeInclusive<u32> = 1..=100_000;

/// A place in a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Head. A port made along with an instance has a name of its own making.
    pub meta: Meta<PortId>,
    /// Network it is in.
    pub network: NetworkId,
    /// Ethernet address, kept for life.
    pub mac: Mac,
    /// Addresses, kept for life.
    pub addresses: Vec<FixedIp>,
    /// Who uses it.
    #[serde(default)]
    pub device: Device,
    /// Groups whose rules let traffic pass.
    #[serde(default)]
    pub security_groups: Vec<SecurityGroupId>,
    /// Whether groups and anti-spoof apply at all.
    pub port_security: bool,
    /// Further senders and receivers behind this port (for VRRP and the like).
    #[serde(default)]
    pub allowed_pairs: Vec<AddressPair>,
    /// A port that is down passes nothing.
    pub admin_up: bool,
    /// Most megabits per second (10^6 bits) in each direction; as fast as the host can when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_mbit: Option<u32>,
    /// What a client says of the user of a port that no record of ours uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_user: Option<ForeignUser>,
    /// The port goes when its instance goes.
    #[serde(default)]
    pub delete_with_instance: bool,
    /// A word by which its user tells it from the instance's other interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_tag: Option<Tag>,
    /// Further names by which it is found in its network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Alias>,
    /// What comes to its addresses goes on to others; no instance uses it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
}

/// An address of a port in one subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FixedIp {
    /// Subnet.
    pub subnet: SubnetId,
    /// Address.
    pub address: IpAddr,
}

/// An address (range) that may be used behind a port beside its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPair {
    /// Address or range.
    pub net: IpNet,
    /// Ethernet address, the port's own when `None`.
    #[serde(default)]
    pub mac: Option<Mac>,
}

/// Longest text of a [`ForeignUser`] in characters.
pub const FOREIGN_USER_CHARS_MAX: usize = 255;

/// Who uses a port by a client's word alone: kept and shown, never acted on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignUser {
    /// Which kind of user.
    #[serde(default)]
    pub kind: String,
    /// Which one.
    #[serde(default)]
    pub id: String,
}

/// Who uses a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", content = "id")]
pub enum Device {
    /// Nobody.
    #[default]
    None,
    /// An instance.
    Instance(InstanceId),
    /// A router's inner side.
    RouterInterface(RouterId),
    /// A router's outer side.
    RouterGateway(RouterId),
    /// A floating IP's place in the external network.
    FloatingIp,
}

impl Port {
    /// Name of the port's device in its network's namespace: at most 15 characters, made from the id alone.
    pub fn device_name(&self) -> String {
        format!("p{}", self.meta.id.short())
    }

    /// Its fixed addresses.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|fixed| fixed.address)
    }

    /// The instance that uses the port.
    pub fn instance(&self) -> Option<InstanceId> {
        match self.device {
            Device::Instance(id) => Some(id),
            _ => None,
        }
    }
}

impl Record for Port {
    const TABLE: &'static str = "port";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}
