//! Whether a flow may start: the same question that the compiled firewall answers, answered from the nouns.
//!
//! Used to find established flows that no rule allows any more, and to tell people which rule lets something
//! pass or which one is missing. It must never say anything else than the kernel does; tests hold both together
//! with real packets.

use crate::{
    dataplane::view::NetworkView,
    id::{PortId, RuleId, SecurityGroupId, SubnetId},
    port::Port,
    security_group::{Direction, Family, Peer, Protocol, Rule},
};
use std::net::IpAddr;

/// The first packet of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// What the protocol adds.
    pub transport: Transport,
}

/// What a protocol adds to the addresses of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP, UDP, SCTP, DCCP and UDP-Lite.
    Ports {
        /// Of the sender.
        source: u16,
        /// Of the receiver.
        destination: u16,
    },
    /// ICMP of either family.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// Nothing that rules look at.
    Bare,
}

/// The answer for one side of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The side is not a port of this network: other gates decide.
    NotHere,
    /// The port filters nothing.
    Open(PortId),
    /// A rule lets the flow pass.
    Rule {
        /// The port.
        port: PortId,
        /// The group.
        group: SecurityGroupId,
        /// The rule.
        rule: RuleId,
    },
    /// No rule of the port's groups lets the flow pass.
    NoRule {
        /// The port.
        port: PortId,
        /// Into or out of it.
        direction: Direction,
        /// Its groups.
        groups: Vec<SecurityGroupId>,
    },
    /// The port's groups let the flow pass, and none of its subnet's groups does.
    NoSegmentRule {
        /// The port.
        port: PortId,
        /// The subnet.
        subnet: SubnetId,
        /// Into or out of it.
        direction: Direction,
    },
    /// The port, or the whole network, is administratively down.
    Down(Option<PortId>),
    /// The address lies in one of the network's subnets and nobody here has it.
    NoPort(IpAddr),
}

impl Decision {
    /// Whether this side lets the flow pass.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::NotHere | Self::Open(_) | Self::Rule { .. })
    }
}

/// The answer for a flow through a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The sender's side.
    pub egress: Decision,
    /// The receiver's side.
    pub ingress: Decision,
}

impl Verdict {
    /// Whether both sides let the flow pass.
    pub fn is_allowed(&self) -> bool {
        self.egress.is_allowed() && self.ingress.is_allowed()
    }
}

/// Whether a flow may start in the network of `view`.
pub fn allows(view: &NetworkView, flow: &Flow) -> Verdict {
    Verdict {
        egress: side(view, flow, Direction::Egress, flow.source, flow.destination),
        ingress: side(view, flow, Direction::Ingress, flow.destination, flow.source),
    }
}

fn side(view: &NetworkView, flow: &Flow, direction: Direction, own: IpAddr, other: IpAddr) -> Decision {
    let Some(port) = port_of(view, own) else {
        let inside = view.subnets.iter().any(|s| s.cidr.contains(&own) && s.gateway != Some(own));
        let router = view.routers.iter().any(|a| a.addresses.contains(&own));
        return if inside && !router { Decision::NoPort(own) } else { Decision::NotHere };
    };
    let id = port.meta.id;
    if !view.network.admin_up {
        return Decision::Down(None);
    }
    if !port.admin_up {
        return Decision::Down(Some(id));
    }
    if !port.port_security {
        return Decision::Open(id);
    }
    let fits = |groups: &[SecurityGroupId]| {
        groups.iter().filter_map(|id| view.group(*id)).find_map(|group| {
            let mut rules = group.rules.iter().filter(|rule| rule.direction == direction);
            let rule = rules.find(|rule| matches(view, rule, flow, other))?;
            Some((group.meta.id, rule.id))
        })
    };
    let Some((group, rule)) = fits(&port.security_groups) else {
        return Decision::NoRule { port: id, direction, groups: port.security_groups.clone() };
    };
    let gate = view.subnets.iter().find(|s| s.cidr.contains(&own) && !s.security_groups.is_empty());
    match gate {
        Some(subnet) if fits(&subnet.security_groups).is_none() => {
            Decision::NoSegmentRule { port: id, subnet: subnet.meta.id, direction }
        }
        _ => Decision::Rule { port: id, group, rule },
    }
}

/// The port on this host behind an address: as its own, or as a further one that leads to it.
fn port_of(view: &NetworkView, address: IpAddr) -> Option<&Port> {
    let ports = || view.attached().map(|(port, _)| port);
    ports().find(|port| port.addresses.iter().any(|fixed| fixed.address == address)).or_else(|| {
        ports()
            .filter(|port| port.allowed_pairs.iter().any(|pair| pair.net.contains(&address)))
            .min_by_key(|p| p.meta.id)
    })
}

fn matches(view: &NetworkView, rule: &Rule, flow: &Flow, other: IpAddr) -> bool {
    if Family::of(flow.source) != rule.family || rule.protocol.is_some_and(|p| p != flow.protocol) {
        return false;
    }
    let peer = match rule.peer {
        Peer::Any => true,
        Peer::Net(net) => net.contains(&other),
        Peer::Group(id) => view.members.get(&id).is_some_and(|members| members.contains(&other)),
    };
    let ports = rule.ports.is_none_or(|range| match flow.transport {
        Transport::Ports { destination, .. } => (range.first..=range.last).contains(&destination),
        _ => false,
    });
    let icmp = rule.icmp.is_none_or(|wanted| match flow.transport {
        Transport::Icmp { kind, code } => wanted.kind == kind && wanted.code.is_none_or(|c| c == code),
        _ => false,
    });
    peer && ports && icmp
}
