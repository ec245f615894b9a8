//! What can be reached from outside: floating IPs and published ports, and what the security groups let in from where.
//!
//! Computed from the nouns alone, by the rules that are compiled for the kernel. A rule whose peer is a group lets
//! nobody in from outside: members are seen there under their router's or floating address, never as members.

use crate::{
    floating_ip::FloatingIp,
    id::{InstanceId, PortId, ProjectId, SecurityGroupId},
    instance::Instance,
    network::Network,
    port::{Port, spread::Spread},
    publish::outside_of,
    security_group::{Direction, Family, IcmpMatch, Peer, PortRange, Protocol, Rule, SecurityGroup},
    subnet::Subnet,
};
use ipnet::IpNet;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The nouns that exposure depends on. More than needed does no harm.
#[derive(Debug, Clone, Copy)]
pub struct ExposureView<'a> {
    /// Instances.
    pub instances: &'a [Instance],
    /// Ports.
    pub ports: &'a [Port],
    /// Networks.
    pub networks: &'a [Network],
    /// Floating IPs.
    pub floating_ips: &'a [FloatingIp],
    /// Subnets, whose groups are a second gate.
    pub subnets: &'a [Subnet],
    /// Groups.
    pub groups: &'a [SecurityGroup],
}

/// Something that can be reached from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// The way in.
    pub way: Way,
    /// Project that owns it.
    pub project: ProjectId,
    /// The instance, unless the floating IP leads to a port without one.
    pub instance: Option<InstanceId>,
    /// The port of a network.
    pub port: PortId,
    /// Outside address; `0.0.0.0` and `::` are every address of the host.
    pub address: IpAddr,
    /// Protocol; `None` is every one.
    pub protocol: Option<Protocol>,
    /// Ports outside; `None` where the protocol has none, or all of them.
    pub ports: Option<PortRange>,
    /// ICMP type and code, where a rule names them.
    pub icmp: Option<IcmpMatch>,
    /// The instance's port that a published one leads to.
    pub inner_port: Option<u16>,
    /// From where; empty when the security groups let nobody in.
    pub from: Vec<IpNet>,
}

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// A floating IP.
    FloatingIp,
    /// A published port.
    Published,
}

impl Exposure {
    /// Whether anybody gets in.
    pub fn is_open(&self) -> bool {
        !self.from.is_empty()
    }
}

/// Everything that can be reached from outside, in order of address and port.
pub fn exposures(view: &ExposureView<'_>) -> Vec<Exposure> {
    let mut all: Vec<Exposure> = view
        .floating_ips
        .iter()
        .filter(|f| !f.internal)
        .flat_map(|f| of_floating(view, f))
        .chain(view.instances.iter().flat_map(|i| of_published(view, i)))
        .collect();
    all.sort_by_key(|e| {
        let ports = e.ports.map(|p| (p.first, p.last));
        (e.way, e.address, e.protocol, ports, e.icmp.map(|i| (i.kind, i.code)))
    });
    all
}

fn of_floating(view: &ExposureView<'_>, floating: &FloatingIp) -> Vec<Exposure> {
    let Some((target, port)) = floating.target.and_then(|t| Some((t, port_of(view, t.port)?))) else {
        return vec![];
    };
    if let Some(spread) = &port.spread {
        return of_spread(view, floating, port, spread);
    }
    let instance = port.instance();
    if instance.is_some_and(|id| is_going(view, id)) {
        return vec![];
    }
    let exposure = |protocol, ports, icmp, from| Exposure {
        way: Way::FloatingIp,
        project: floating.meta.project,
        instance,
        port: target.port,
        address: floating.address,
        protocol,
        ports,
        icmp,
        inner_port: None,
        from,
    };
    let family = Family::of(floating.address);
    if let Some(from) = unfiltered(view, port, family) {
        return vec![exposure(None, None, None, from)];
    }
    // Rules that differ in their peer alone are one line.
    type What = (Option<Protocol>, Option<(u16, u16)>, Option<(u8, Option<u8>)>);
    let mut by_what: BTreeMap<What, Vec<Rule>> = BTreeMap::new();
    for rule in rules_of(view, port, target.address) {
        let what =
            (rule.protocol, rule.ports.map(|p| (p.first, p.last)), rule.icmp.map(|i| (i.kind, i.code)));
        by_what.entry(what).or_default().push(rule);
    }
    let mut all: Vec<Exposure> = by_what
        .into_iter()
        .map(|((protocol, ports, icmp), rules)| {
            let ports = ports.map(|(first, last)| PortRange { first, last });
            let icmp = icmp.map(|(kind, code)| IcmpMatch { kind, code });
            exposure(protocol, ports, icmp, sources(&rules, family))
        })
        .filter(Exposure::is_open)
        .collect();
    if all.is_empty() {
        all.push(exposure(None, None, None, vec![]));
    }
    all
}

/// What comes to an address that is spread gets in where any of those behind it lets it in, ready or not. The network itself
/// answers whoever asks whether the address is there.
fn of_spread(view: &ExposureView<'_>, floating: &FloatingIp, port: &Port, spread: &Spread) -> Vec<Exposure> {
    let family = Family::of(floating.address);
    let is_behind = |other: &&Port| {
        (other.network, other.meta.project) == (port.network, port.meta.project)
            && other.instance().is_some_and(|id| !is_going(view, id))
            && other.aliases.iter().any(|alias| alias.is_meant(spread.over.as_str()))
    };
    let exposure = |protocol, ports, icmp, inner_port, from| Exposure {
        way: Way::FloatingIp,
        project: floating.meta.project,
        instance: None,
        port: port.meta.id,
        address: floating.address,
        protocol: Some(protocol),
        ports,
        icmp,
        inner_port,
        from,
    };
    let is_up = unfiltered(view, port, family).is_none_or(|from| !from.is_empty());
    let mut all = vec![];
    for led in &spread.ports {
        let lets_in = |rule: &Rule| is_let_in(rule, led.protocol, led.to);
        let of_member = |member: &Port| {
            let own = member.addresses.iter().find(|fixed| Family::of(fixed.address) == family);
            let rules = own.map(|own| rules_of(view, member, own.address)).unwrap_or_default();
            let rules: Vec<Rule> = rules.into_iter().filter(lets_in).collect();
            unfiltered(view, member, family).unwrap_or_else(|| sources(&rules, family))
        };
        let members = view.ports.iter().filter(is_behind).filter(|_| is_up);
        let from = IpNet::aggregate(&members.flat_map(of_member).collect());
        let outer = PortRange { first: led.port, last: led.port };
        all.push(exposure(led.protocol, Some(outer), None, Some(led.to), from));
    }
    if family == Family::Ipv4 && is_up {
        let echo = IcmpMatch { kind: 8, code: None };
        all.push(exposure(Protocol::ICMP, None, Some(echo), None, vec![family.everything()]));
    }
    all
}

/// Whether a rule lets in what goes to a port.
fn is_let_in(rule: &Rule, protocol: Protocol, port: u16) -> bool {
    rule.protocol.is_none_or(|p| p == protocol)
        && rule.ports.is_none_or(|p| (p.first..=p.last).contains(&port))
        && rule.icmp.is_none()
}

fn of_published(view: &ExposureView<'_>, instance: &Instance) -> Vec<Exposure> {
    let mut all = Vec::new();
    if instance.meta.is_deleting() {
        return all;
    }
    for v4 in [true, false] {
        let outside = outside_of(instance, view.floating_ips, v4);
        let Some((target, port)) = outside.and_then(|f| Some((f.target?, port_of(view, f.target?.port)?)))
        else {
            continue;
        };
        let family = if v4 { Family::Ipv4 } else { Family::Ipv6 };
        let everywhere: IpAddr = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        for publish in instance.publish.iter().filter(|p| p.is_for(v4)) {
            let lets_in = |rule: &Rule| is_let_in(rule, publish.protocol, publish.port);
            let rules: Vec<Rule> = rules_of(view, port, target.address).into_iter().filter(lets_in).collect();
            all.push(Exposure {
                way: Way::Published,
                project: instance.meta.project,
                instance: Some(instance.meta.id),
                port: port.meta.id,
                address: publish.address.unwrap_or(everywhere),
                protocol: Some(publish.protocol),
                ports: Some(PortRange { first: publish.host_port, last: publish.host_port }),
                icmp: None,
                inner_port: Some(publish.port),
                from: unfiltered(view, port, family).unwrap_or_else(|| sources(&rules, family)),
            });
        }
    }
    all
}

fn port_of<'a>(view: &ExposureView<'a>, id: PortId) -> Option<&'a Port> {
    view.ports.iter().find(|p| p.meta.id == id)
}

fn is_going(view: &ExposureView<'_>, id: InstanceId) -> bool {
    view.instances.iter().any(|i| i.meta.id == id && i.meta.is_deleting())
}

/// Who gets in where no rule is asked: everybody without port security, nobody where something is down.
fn unfiltered(view: &ExposureView<'_>, port: &Port, family: Family) -> Option<Vec<IpNet>> {
    let network_down = view.networks.iter().any(|n| n.meta.id == port.network && !n.admin_up);
    if network_down || !port.admin_up {
        return Some(vec![]);
    }
    (!port.port_security).then(|| vec![family.everything()])
}

/// What the port's groups let in to one of its addresses, as far as the groups of its subnet do too.
fn rules_of(view: &ExposureView<'_>, port: &Port, address: IpAddr) -> Vec<Rule> {
    let family = Family::of(address);
    let rules = |ids: &[SecurityGroupId]| -> Vec<Rule> {
        let groups = view.groups.iter().filter(|g| ids.contains(&g.meta.id));
        let rules = groups.flat_map(|g| g.rules.iter());
        rules.filter(|r| r.direction == Direction::Ingress && r.family == family).cloned().collect()
    };
    let own = rules(&port.security_groups);
    let subnet = port.addresses.iter().find(|fixed| fixed.address == address).map(|fixed| fixed.subnet);
    let gate = view.subnets.iter().find(|s| Some(s.meta.id) == subnet && !s.security_groups.is_empty());
    match gate {
        None => own,
        Some(subnet) => {
            let gate = rules(&subnet.security_groups);
            own.iter().flat_map(|rule| gate.iter().filter_map(|other| rule.meet(other))).collect()
        }
    }
}

/// Ranges that rules let in from outside, joined where they touch.
fn sources(rules: &[Rule], family: Family) -> Vec<IpNet> {
    let nets: Vec<IpNet> = rules
        .iter()
        .filter_map(|rule| match rule.peer {
            Peer::Any => Some(family.everything()),
            Peer::Net(net) => Some(net),
            Peer::Group(_) => None,
        })
        .collect();
    IpNet::aggregate(&nets)
}

#[cfg(test)]
mod tests;
