//! The plan of a router's namespace: a link to each of its networks and one to the outside, SNAT and floating IPs.
//!
//! Translation happens only here. Networks attached to the router reach each other as they are. Towards the outside
//! a guest with a floating IP is seen under it, any other under the router's own address; and the same holds when
//! the way to a floating IP turns back inside (hairpin), since the answer must come back over the router.

use crate::{
    dataplane::{
        namespace::{NamespacePlan, Place, RouteAction, Uplink, everything, single},
        network::{TABLE, quoted, router_device},
        nft::{Set, Table},
        view::{Outside, RouterView},
    },
    floating_ip::FloatingIp,
    id::NetworkId,
    publish::Passage,
    security_group::Protocol,
};
use ipnet::IpNet;
use std::{collections::BTreeMap, net::IpAddr};

const DNAT: &str = "type nat hook prerouting priority dstnat; policy accept;";
const SNAT: &str = "type nat hook postrouting priority srcnat; policy accept;";
const FORWARD: &str = "type filter hook forward priority filter; policy drop;";
const INPUT: &str = "type filter hook input priority filter; policy drop;";

/// Name of a router's link to a network.
pub fn network_device(network: NetworkId) -> String {
    format!("n{}", network.short())
}

/// Name of a router's link to an external network.
pub fn outside_device(network: NetworkId) -> String {
    format!("x{}", network.short())
}

/// Compiles the namespace of a router.
pub fn compile(view: &RouterView) -> NamespacePlan {
    let id = view.router.meta.id;
    let mut plan = NamespacePlan::new(Place::Router(id), Table::new(TABLE));
    // Links to the networks, and what lies behind each.
    let mut networks: BTreeMap<NetworkId, (u32, Vec<IpNet>)> = BTreeMap::new();
    for (subnet, mtu) in &view.subnets {
        networks.entry(subnet.network).or_insert_with(|| (*mtu, Vec::new())).1.push(subnet.cidr);
    }
    for route in &view.router.routes {
        let near = view.subnets.iter().find(|(subnet, _)| subnet.cidr.contains(&route.next_hop));
        if let Some((_, ranges)) = near.and_then(|(subnet, _)| networks.get_mut(&subnet.network)) {
            ranges.push(route.destination);
        }
    }
    if !view.router.admin_up {
        networks.values_mut().for_each(|(_, ranges)| ranges.clear());
    }
    for (network, (mtu, ranges)) in &networks {
        plan.downlink(Uplink {
            device: network_device(*network),
            peer: router_device(id),
            peer_place: Place::Network(*network),
            mtu: *mtu,
            ranges,
        });
    }
    if let Some(outside) = &view.outside {
        put_outside(view, outside, &mut plan);
    }
    plan.route("169.254.0.0/16".parse().expect("constant ranges parse"), RouteAction::Unreachable);
    put_firewall(view, networks.keys().copied(), &mut plan.table);
    plan
}

fn put_outside(view: &RouterView, outside: &Outside, plan: &mut NamespacePlan) {
    // A family without an outer address has no way out; guests hear so at once instead of waiting in vain.
    let has =
        |v4: bool| view.router.admin_up && outside.addresses.iter().any(|address| address.is_ipv4() == v4);
    let ranges: Vec<IpNet> = [true, false].into_iter().filter(|v4| has(*v4)).map(everything).collect();
    if !has(false) {
        // To say so in IPv6 the router needs an address that may cross links.
        for gateway in view.subnets.iter().filter_map(|(subnet, _)| subnet.gateway).filter(IpAddr::is_ipv6) {
            plan.address("lo", single(gateway));
        }
    }
    plan.uplink(Uplink {
        device: outside_device(outside.network),
        peer: router_device(view.router.meta.id),
        peer_place: Place::External(outside.network),
        mtu: outside.mtu,
        ranges: &ranges,
    });
    for address in &outside.addresses {
        plan.address("lo", single(*address));
    }
    // A floating IP that leads nowhere just now must not be sought outside, where it would come back from.
    for floating in &view.floating_ips {
        plan.route(single(floating.address), RouteAction::Unreachable);
    }
}

fn put_firewall(view: &RouterView, networks: impl Iterator<Item = NetworkId>, table: &mut Table) {
    let mut inside = Set::new("ifname");
    if view.router.admin_up {
        for network in networks {
            inside.insert(quoted(&network_device(network)));
        }
    }
    table.sets.insert("inside".into(), inside);
    let mut forward = vec![
        "ct state invalid drop".to_string(),
        "ct state established,related accept".to_string(),
        "iifname @inside oifname @inside accept".to_string(),
    ];
    if let Some(outside) = view.outside.as_ref().filter(|_| view.router.admin_up) {
        let device = quoted(&outside_device(outside.network));
        forward.push(format!("iifname {device} oifname @inside ct status dnat accept"));
        forward.push(format!("iifname @inside oifname {device} accept"));
        put_translation(view, outside, &device, table);
    }
    table.base("forward", FORWARD, forward);
    let input = [
        "iifname \"lo\" accept",
        "ct state established,related accept",
        "icmp type echo-request accept",
        "icmpv6 type echo-request accept",
    ];
    table.base("input", INPUT, input.map(str::to_string).to_vec());
}

fn put_translation(view: &RouterView, outside: &Outside, device: &str, table: &mut Table) {
    let mut dnat = Vec::new();
    let mut translate = Vec::new();
    let mut snat = Vec::new();
    for (v4, word, kind) in [(true, "ip", "ipv4_addr"), (false, "ip6", "ipv6_addr")] {
        let digit = if v4 { 4 } else { 6 };
        let mut inward = Set::new(&format!("{kind} : {kind}"));
        let mut outward = Set::new(&format!("{kind} : {kind}"));
        let mut passages = Set::new(&format!("{kind} . inet_proto . inet_service : {kind}"));
        for floating in view.floating_ips.iter().filter(|f| f.address.is_ipv4() == v4) {
            if floating.internal {
                put_passages(view, floating, &mut passages);
            } else if let Some(target) = floating.target.filter(|t| t.router == view.router.meta.id) {
                inward.map(floating.address.to_string(), target.address.to_string());
                outward.map(target.address.to_string(), floating.address.to_string());
            }
        }
        table.sets.insert(format!("floating{digit}"), inward);
        table.sets.insert(format!("fixed{digit}"), outward);
        dnat.push(format!("dnat {word} to {word} daddr map @floating{digit}"));
        if !passages.is_empty() {
            table.sets.insert(format!("published{digit}"), passages);
            dnat.push(format!("dnat {word} to {word} daddr . meta l4proto . th dport map @published{digit}"));
        }
        translate.push(format!("snat {word} to {word} saddr map @fixed{digit}"));
        let own = outside.addresses.iter().find(|address| address.is_ipv4() == v4);
        if let Some(own) = own.filter(|_| view.router.gateway.is_some_and(|gateway| gateway.snat)) {
            translate.push(format!("meta nfproto ipv{digit} snat {word} to {own}"));
        }
        let mut ranges = Set::ranges(kind);
        for (subnet, _) in view.subnets.iter().filter(|(subnet, _)| subnet.cidr.addr().is_ipv4() == v4) {
            ranges.insert(subnet.cidr.to_string());
        }
        table.sets.insert(format!("inside{digit}"), ranges);
        snat.push(format!("ct status dnat {word} saddr @inside{digit} jump translate"));
    }
    snat.insert(0, format!("oifname {device} jump translate"));
    table.chain("translate", translate);
    table.base("from_outside", DNAT, dnat);
    table.base("to_outside", SNAT, snat);
}

/// An outside address of the cloud's own leads inwards for published ports alone. Outwards its guest is seen as any
/// other: publishing a port must not change whom servers see.
fn put_passages(view: &RouterView, floating: &FloatingIp, passages: &mut Set) {
    let Some(target) = floating.target.filter(|t| t.router == view.router.meta.id) else {
        return;
    };
    for passage in view.passages.iter().filter(|p| p.outside == floating.address) {
        passages.map(
            format!("{} . {} . {}", passage.outside, passage.protocol.0, passage.port),
            target.address.to_string(),
        );
    }
}

/// Where a packet to an outside address and port is led, if it is led anywhere.
pub fn leads_to(view: &RouterView, outside: IpAddr, protocol: Protocol, port: u16) -> Option<IpAddr> {
    let floating = view.floating_ips.iter().find(|f| f.address == outside)?;
    let target = floating.target.filter(|t| t.router == view.router.meta.id)?;
    let passage = Passage { outside, protocol, port };
    (!floating.internal || view.passages.contains(&passage)).then_some(target.address)
}

/// The outer address under which a guest's address is seen outside, if at all: its floating IP, else the router's.
pub fn seen_as(view: &RouterView, address: IpAddr) -> Option<IpAddr> {
    let floating =
        view.floating_ips.iter().find(|f| !f.internal && f.target.is_some_and(|t| t.address == address));
    let own = || {
        let outside =
            view.outside.as_ref().filter(|_| view.router.gateway.is_some_and(|gateway| gateway.snat))?;
        outside.addresses.iter().copied().find(|own| own.is_ipv4() == address.is_ipv4())
    };
    floating.map(|f| f.address).or_else(own)
}
