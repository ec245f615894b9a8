//! Security groups as nft: one chain per group and direction, sets of remote members, and the match of one rule.
//!
//! Rules only ever accept; what no rule accepts falls through to the base chain's policy, which is to drop.

use crate::{
    dataplane::{
        nft::{Set, Table},
        view::NetworkView,
    },
    id::SecurityGroupId,
    port::Port,
    security_group::{Direction, Family, Peer, Rule, SecurityGroup},
};
use std::{collections::BTreeSet, fmt::Write, net::IpAddr};

const SEGMENT_EGRESS: &str = "type filter hook forward priority filter + 20; policy accept;";
const SEGMENT_INGRESS: &str = "type filter hook forward priority filter + 30; policy accept;";

/// Adds the chains of all groups of the view, and the sets of members that their rules name.
pub(super) fn put_groups(view: &NetworkView, table: &mut Table) {
    for group in &view.groups {
        for direction in [Direction::Ingress, Direction::Egress] {
            let rules =
                group.rules.iter().filter(|rule| rule.direction == direction).map(rule_text).collect();
            table.chain(chain_name(direction, group.meta.id), rules);
        }
    }
    for id in peers(&view.groups) {
        for family in [Family::Ipv4, Family::Ipv6] {
            let mut set = Set::new(if family == Family::Ipv4 { "ipv4_addr" } else { "ipv6_addr" });
            for address in view.members.get(&id).into_iter().flatten().filter(|a| Family::of(**a) == family) {
                set.insert(address.to_string());
            }
            table.sets.insert(members_name(family, id), set);
        }
    }
}

/// Groups that rules of `groups` name as their peer.
pub fn peers(groups: &[SecurityGroup]) -> BTreeSet<SecurityGroupId> {
    let peer = |rule: &Rule| {
        if let Peer::Group(id) = rule.peer { Some(id) } else { None }
    };
    groups.iter().flat_map(|group| group.rules.iter().filter_map(peer)).collect()
}

/// What the verdict map says of a port: the chain of its group; a chain made for its set of groups, shared with
/// all ports that have the same ones; or nothing when no group lets anything pass.
pub(super) fn port_verdict(
    port: &Port,
    direction: Direction,
    view: &NetworkView,
    table: &mut Table,
) -> Option<String> {
    if !port.port_security {
        return Some("accept".to_string());
    }
    let groups: BTreeSet<SecurityGroupId> =
        port.security_groups.iter().copied().filter(|id| view.group(*id).is_some()).collect();
    match groups.len() {
        0 => None,
        1 => groups.first().map(|id| format!("goto {}", chain_name(direction, *id))),
        _ => {
            let name = list_name(direction, &groups);
            let jumps = groups.iter().map(|id| format!("jump {}", chain_name(direction, *id))).collect();
            table.chain(name.clone(), jumps);
            Some(format!("goto {name}"))
        }
    }
}

/// Adds the second gate: what passes a filtered port under an address of a subnet with groups must be accepted by one
/// of these as well. Chains that stand after the ports' own, so that both have their say.
pub(super) fn put_segments(view: &NetworkView, table: &mut Table) {
    let gated: Vec<_> = view.subnets.iter().filter(|s| !s.security_groups.is_empty()).collect();
    if gated.is_empty() {
        return;
    }
    for (direction, name, hook, device, side) in [
        (Direction::Egress, "segment_egress", SEGMENT_EGRESS, "iifname", "saddr"),
        (Direction::Ingress, "segment_ingress", SEGMENT_INGRESS, "oifname", "daddr"),
    ] {
        let mut rules = vec!["ct state established,related accept".to_string()];
        for subnet in &gated {
            let chain = format!("s{}_{}", letter(direction), subnet.meta.id.hex());
            let word = if subnet.cidr.addr().is_ipv4() { "ip" } else { "ip6" };
            rules.push(format!("{device} @guarded {word} {side} {} goto {chain}", subnet.cidr));
            let known = subnet.security_groups.iter().filter(|id| view.group(**id).is_some());
            let mut gate: Vec<String> =
                known.map(|id| format!("jump {}", chain_name(direction, *id))).collect();
            gate.push("drop".to_string());
            table.chain(chain, gate);
        }
        table.base(name, hook, rules);
    }
}

fn letter(direction: Direction) -> char {
    match direction {
        Direction::Ingress => 'i',
        Direction::Egress => 'e',
    }
}

fn chain_name(direction: Direction, id: SecurityGroupId) -> String {
    format!("g{}_{}", letter(direction), id.hex())
}

fn members_name(family: Family, id: SecurityGroupId) -> String {
    let digit = if family == Family::Ipv4 { 4 } else { 6 };
    format!("m{digit}_{}", id.hex())
}

/// A name for a set of groups: FNV-1a over their ids, since names in the kernel are bounded.
fn list_name(direction: Direction, groups: &BTreeSet<SecurityGroupId>) -> String {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in groups.iter().flat_map(|id| *id.0.as_bytes()) {
        hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    format!("l{}_{hash:032x}", letter(direction))
}

/// A rule as nft says it.
fn rule_text(rule: &Rule) -> String {
    let (family, address) = match rule.family {
        Family::Ipv4 => ("ipv4", "ip"),
        Family::Ipv6 => ("ipv6", "ip6"),
    };
    let side = match rule.direction {
        Direction::Ingress => "saddr",
        Direction::Egress => "daddr",
    };
    let mut out = format!("meta nfproto {family}");
    match rule.peer {
        Peer::Any => {}
        Peer::Net(net) if net.prefix_len() == 0 => {}
        Peer::Net(net) => {
            let _ = write!(out, " {address} {side} {}", net.trunc());
        }
        Peer::Group(id) => {
            let _ = write!(out, " {address} {side} @{}", members_name(rule.family, id));
        }
    }
    if let Some(protocol) = rule.protocol {
        let _ = write!(out, " meta l4proto {}", protocol.0);
    }
    if let Some(range) = rule.ports {
        let _ = write!(out, " th dport {range}");
    }
    if let Some(icmp) = rule.icmp {
        let word = if rule.family == Family::Ipv4 { "icmp" } else { "icmpv6" };
        let _ = write!(out, " {word} type {}", icmp.kind);
        if let Some(code) = icmp.code {
            let _ = write!(out, " {word} code {code}");
        }
    }
    out.push_str(" accept");
    out
}

/// Addresses of a port that count as members of its groups.
pub fn member_addresses(port: &Port) -> impl Iterator<Item = IpAddr> {
    port.addresses.iter().map(|fixed| fixed.address)
}
