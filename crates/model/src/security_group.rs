//! Security groups: what may pass a port. Nothing passes that no rule lets pass; rules are stateful.

use crate::{
    id::{RuleId, SecurityGroupId},
    meta::Meta,
    record::Record,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, str::FromStr};

/// Most rules of one group.
pub const RULES_MAX: usize = 500;
/// Most groups on one port.
pub const GROUPS_PER_PORT_MAX: usize = 16;

/// A set of rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// Head.
    pub meta: Meta<SecurityGroupId>,
    /// Rules, in the order they were made; order has no meaning.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// The project's default group: used where none is named; cannot be deleted.
    #[serde(default)]
    pub is_default: bool,
    /// Answers to allowed flows pass too. Always true today; kept since OpenStack clients send it.
    #[serde(default = "yes")]
    pub stateful: bool,
}

fn yes() -> bool {
    true
}

/// One rule: traffic that passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Identity.
    pub id: RuleId,
    /// Into or out of the instance.
    pub direction: Direction,
    /// Address family.
    pub family: Family,
    /// Protocol; `None` is any.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// The protocol was given as a number and is shown as one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_number: bool,
    /// Destination ports of TCP, UDP, SCTP, DCCP and UDP-Lite; type and code of ICMP are in `icmp`.
    #[serde(default)]
    pub ports: Option<PortRange>,
    /// ICMP type and code.
    #[serde(default)]
    pub icmp: Option<IcmpMatch>,
    /// The other side.
    pub peer: Peer,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// Into or out of the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Into the instance.
    Ingress,
    /// Out of the instance.
    Egress,
}

/// Address family of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
    /// The range of all addresses.
    pub fn everything(self) -> IpNet {
        match self {
            Self::Ipv4 => "0.0.0.0/0".parse().expect("constant"),
            Self::Ipv6 => "::/0".parse().expect("constant"),
        }
    }
}

/// An IP protocol (IANA protocol numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP of IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP of IPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);

    const NAMES: [(&'static str, u8); 18] = [
        ("icmp", 1),
        ("igmp", 2),
        ("ipip", 4),
        ("tcp", 6),
        ("egp", 8),
        ("udp", 17),
        ("dccp", 33),
        ("rsvp", 46),
        ("gre", 47),
        ("esp", 50),
        ("ah", 51),
        ("icmpv6", 58),
        ("ipv6-icmp", 58),
        ("ospf", 89),
        ("pgm", 113),
        ("vrrp", 112),
        ("sctp", 132),
        ("udplite", 136),
    ];

    /// Whether the protocol has ports.
    pub fn has_ports(self) -> bool {
        matches!(self.0, 6 | 17 | 33 | 132 | 136)
    }
    /// Whether the protocol is ICMP of either family.
    pub fn is_icmp(self) -> bool {
        matches!(self.0, 1 | 58)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.pad(name),
            None => f.pad(&self.0.to_string()),
        }
    }
}

impl FromStr for Protocol {
    type Err = RuleError;
    fn from_str(text: &str) -> Result<Self, RuleError> {
        let lower = text.to_ascii_lowercase();
        if let Some((_, number)) = Self::NAMES.iter().find(|(name, _)| *name == lower) {
            return Ok(Self(*number));
        }
        lower.parse::<u8>().map(Self).map_err(|_| RuleError::UnknownProtocol(text.to_string()))
    }
}

/// Destination ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl FromStr for PortRange {
    type Err = RuleError;
    /// Reads `80` or `8000-8080` (also `8000:8080`).
    fn from_str(text: &str) -> Result<Self, RuleError> {
        let wrong = || RuleError::BadPorts(text.to_string());
        let (first, last) = text.split_once(['-', ':']).unwrap_or((text, text));
        let number = |part: &str| part.trim().parse::<u16>().map_err(|_| wrong());
        let range = Self { first: number(first)?, last: number(last)? };
        if range.first > range.last || range.last == 0 { Err(wrong()) } else { Ok(range) }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// ICMP type and, where it matters, code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpMatch {
    /// Type.
    pub kind: u8,
    /// Code; `None` is any.
    #[serde(default)]
    pub code: Option<u8>,
}

/// The other side of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", content = "value")]
pub enum Peer {
    /// Anyone.
    Any,
    /// Addresses in a range.
    Net(IpNet),
    /// Ports that are members of a group.
    Group(SecurityGroupId),
}

/// Why a rule cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No such protocol.
    #[error(
        "unknown protocol {0:?}: use tcp, udp, icmp, icmpv6, another IANA name or a number from 0 to 255"
    )]
    UnknownProtocol(String),
    /// Not a port or range.
    #[error("{0:?} is not a port or range of ports from 1 to 65535, like 80 or 8000-8080")]
    BadPorts(String),
    /// Ports without a protocol that has them.
    #[error("ports need a protocol that has ports (tcp, udp, sctp, dccp, udplite), not {0}")]
    PortsWithoutProtocol(String),
    /// ICMP type without ICMP.
    #[error("an ICMP type needs protocol icmp or icmpv6")]
    IcmpWithoutProtocol,
    /// Families differ.
    #[error("{0} is not an address range of the rule's family")]
    FamilyMismatch(IpNet),
    /// ICMP of the other family.
    #[error("protocol {0} does not belong to the rule's address family")]
    ProtocolFamily(Protocol),
}

impl Rule {
    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// Says which part does not fit.
    pub fn check(&self) -> Result<(), RuleError> {
        if let Some(range) = &self.ports {
            if !self.protocol.is_some_and(Protocol::has_ports) {
                let given = self.protocol.map_or("any".to_string(), |p| p.to_string());
                return Err(RuleError::PortsWithoutProtocol(given));
            }
            if range.first > range.last {
                return Err(RuleError::BadPorts(range.to_string()));
            }
        }
        if self.icmp.is_some() && !self.protocol.is_some_and(Protocol::is_icmp) {
            return Err(RuleError::IcmpWithoutProtocol);
        }
        match (self.protocol, self.family) {
            (Some(p @ Protocol::ICMPV6), Family::Ipv4) | (Some(p @ Protocol::ICMP), Family::Ipv6) => {
                return Err(RuleError::ProtocolFamily(p));
            }
            _ => {}
        }
        match self.peer {
            Peer::Net(net) if Family::of(net.addr()) != self.family => Err(RuleError::FamilyMismatch(net)),
            _ => Ok(()),
        }
    }

    /// The protocol as it was given: a name or a number; `None` is any.
    pub fn protocol_text(&self) -> Option<String> {
        self.protocol.map(|p| if self.by_number { p.0.to_string() } else { p.to_string() })
    }

    /// The rule that lets pass what both let pass, if there is anything; the identity is this one's.
    pub fn meet(&self, other: &Self) -> Option<Self> {
        if self.direction != other.direction || self.family != other.family {
            return None;
        }
        let protocol = match (self.protocol, other.protocol) {
            (Some(a), Some(b)) if a != b => return None,
            (a, b) => a.or(b),
        };
        let ports = match (self.ports, other.ports) {
            (Some(a), Some(b)) => {
                let meet = PortRange { first: a.first.max(b.first), last: a.last.min(b.last) };
                if meet.first > meet.last {
                    return None;
                }
                Some(meet)
            }
            (a, b) => a.or(b),
        };
        let icmp = match (self.icmp, other.icmp) {
            (Some(a), Some(b)) if a.kind != b.kind => return None,
            (Some(IcmpMatch { code: Some(a), .. }), Some(IcmpMatch { code: Some(b), .. })) if a != b => {
                return None;
            }
            (Some(a), Some(b)) => Some(IcmpMatch { kind: a.kind, code: a.code.or(b.code) }),
            (a, b) => a.or(b),
        };
        let peer = match (self.peer, other.peer) {
            (Peer::Any, peer) | (peer, Peer::Any) => peer,
            (Peer::Net(a), Peer::Net(b)) if a.contains(&b) => Peer::Net(b),
            (Peer::Net(a), Peer::Net(b)) if b.contains(&a) => Peer::Net(a),
            (Peer::Net(_), Peer::Net(_)) => return None,
            // Members of a group are not outside: for who looks from there a range and a group never meet.
            (group @ Peer::Group(_), _) | (_, group @ Peer::Group(_)) => group,
        };
        Some(Self { protocol, ports, icmp, peer, ..self.clone() })
    }

    /// Whether two rules let the same traffic pass.
    pub fn same_effect(&self, other: &Self) -> bool {
        let strip = |rule: &Self| {
            (
                rule.direction,
                rule.family,
                rule.protocol,
                rule.ports.map(|p| (p.first, p.last)),
                rule.icmp.map(|i| (i.kind, i.code)),
            )
        };
        // A range of all addresses is anyone.
        let peer = |rule: &Self| match rule.peer {
            Peer::Net(net) if net.prefix_len() == 0 => Peer::Any,
            peer => peer,
        };
        strip(self) == strip(other) && peer(self) == peer(other)
    }
}

impl Record for SecurityGroup {
    const TABLE: &'static str = "security_group";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_and_ports_are_read() {
        assert_eq!("TCP".parse::<Protocol>().unwrap(), Protocol::TCP);
        assert_eq!("47".parse::<Protocol>().unwrap().to_string(), "gre");
        assert!("tpc".parse::<Protocol>().is_err());
        assert!("256".parse::<Protocol>().is_err());
        assert_eq!("80".parse::<PortRange>().unwrap(), PortRange { first: 80, last: 80 });
        assert_eq!("1-65535".parse::<PortRange>().unwrap().to_string(), "1-65535");
        for bad in ["", "0", "99999", "90-80", "a"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }
}
