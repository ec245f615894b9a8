//! The plan of a network's namespace: its ports, its gateways and services, its links to routers, its firewall.
//!
//! The firewall has four gates. `spoof` (before connection tracking) lets a port send only as itself. `egress` and
//! `ingress` both stand on the forward hook: a packet between two ports passes the sender's groups and then the
//! receiver's. Before both, `rate` drops what is more than a port's rate. `input` lets ports reach the services and nothing else of the namespace.

use crate::{
    address::{GATEWAY_MAC, Mac},
    dataplane::{
        group::{port_verdict, put_groups, put_segments},
        namespace::{
            DeviceKind, DevicePlan, NamespacePlan, Place, RouteAction, Uplink, everything, link_local, single,
        },
        nft::{Set, Table},
        spread::{put_spreads, refusals},
        view::{AttachedRouter, Attachment, GATEWAY_LINK_LOCAL, METADATA_V4, METADATA_V6, NetworkView},
    },
    id::RouterId,
    port::Port,
    security_group::Direction,
};
use ipnet::IpNet;
use std::net::IpAddr;

/// Name of the table in namespaces of ours.
pub const TABLE: &str = "holm";
/// Link to the host in a host-only network.
pub(super) const HOST_DEVICE: &str = "host";

const RAW: &str = "type filter hook prerouting priority raw; policy accept;";
const EGRESS: &str = "type filter hook forward priority filter; policy drop;";
const INGRESS: &str = "type filter hook forward priority filter + 10; policy drop;";
const RATE: &str = "type filter hook forward priority filter - 10; policy accept;";
/// Least bytes that a port with a rate may send at once: a few of the largest packets that a guest hands over whole.
const BUCKET_BYTES_MIN: u64 = 256 << 10;
/// Least burst that a limit has.
const BURST_BYTES_MIN: u64 = 1500;
const INPUT: &str = "type filter hook input priority filter; policy drop;";

/// Name of a network's link to a router.
pub fn router_device(router: RouterId) -> String {
    format!("r{}", router.short())
}

/// Name of the end of a container's veth that waits to be taken into the container.
pub fn peer_device(port: &Port) -> String {
    format!("c{}", port.meta.id.short())
}

/// Compiles the namespace of a network. `host_device` names the host's end of a host-only network's link.
pub fn compile(view: &NetworkView, host_device: &str) -> NamespacePlan {
    let mut plan = NamespacePlan::new(Place::Network(view.network.meta.id), Table::new(TABLE));
    plan.sysctls.push(("net/ipv4/conf/default/proxy_arp".into(), "1".into()));
    plan.sysctls.push(("net/ipv6/conf/default/proxy_ndp".into(), "1".into()));
    put_gateways(view, &mut plan);
    for (port, attachment) in view.attached() {
        put_port(view, port, attachment, &mut plan);
    }
    put_routers(view, &mut plan);
    if view.is_host_only() {
        put_host(view, host_device, &mut plan);
    }
    put_firewall(view, &mut plan);
    put_spreads(view, &mut plan);
    plan
}

fn put_gateways(view: &NetworkView, plan: &mut NamespacePlan) {
    for subnet in &view.subnets {
        // Without this route an unknown neighbour would be sought at the router, which would send it back.
        plan.route(subnet.cidr, RouteAction::Unreachable);
        if let Some(gateway) = subnet.gateway
            && !view.is_host_only()
            && !is_link_local(gateway)
        {
            plan.address("lo", single(gateway));
        }
    }
    // A router may stand in a subnet under another address than the gateway's.
    for address in view.routers.iter().flat_map(|attached| attached.addresses.iter().copied()) {
        if !view.is_host_only() && !is_link_local(address) {
            plan.address("lo", single(address));
        }
    }
    plan.address("lo", single(METADATA_V4.into()));
    plan.route("169.254.0.0/16".parse().expect("constant ranges parse"), RouteAction::Unreachable);
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(a) if a.is_unicast_link_local())
}

fn put_port(view: &NetworkView, port: &Port, attachment: Attachment, plan: &mut NamespacePlan) {
    let device = port.device_name();
    let kind = match attachment {
        Attachment::Tap { owner_uid } => DeviceKind::Tap { owner_uid },
        Attachment::Veth => DeviceKind::Veth { peer: peer_device(port), holder: port.instance() },
    };
    // Strict reverse path filtering also keeps senders with false addresses out of the ARP cache.
    let strict = if port.port_security && port.allowed_pairs.is_empty() { "1" } else { "0" };
    let sysctls = vec![
        (format!("net/ipv4/conf/{device}/rp_filter"), strict.to_string()),
        (format!("net/ipv4/neigh/{device}/proxy_delay"), "0".to_string()),
        (format!("net/ipv6/neigh/{device}/proxy_delay"), "0".to_string()),
    ];
    plan.devices
        .insert(device.clone(), DevicePlan { kind, mac: GATEWAY_MAC, mtu: view.network.mtu, sysctls });
    plan.address(&device, link_local(GATEWAY_LINK_LOCAL.into()));
    plan.address(&device, single(METADATA_V6.into()));
    // A guest that believes the subnet to be on its link asks for the gateway there.
    let gateways = view.subnets.iter().filter_map(|subnet| subnet.gateway);
    let routers = view.routers.iter().flat_map(|attached| attached.addresses.iter().copied());
    for gateway in gateways.chain(routers).filter(|a| a.is_ipv6() && !is_link_local(*a)) {
        plan.proxies.insert((device.clone(), gateway));
    }
    if !port.admin_up || !view.network.admin_up {
        return;
    }
    for fixed in &port.addresses {
        plan.route(single(fixed.address), RouteAction::Device(device.clone()));
        plan.neighbour(&device, fixed.address, port.mac);
    }
    for pair in &port.allowed_pairs {
        if pair.net.prefix_len() == pair.net.max_prefix_len() && is_first_claim(view, port, pair.net) {
            plan.route(pair.net, RouteAction::Device(device.clone()));
            plan.neighbour(&device, pair.net.addr(), pair.mac.unwrap_or(port.mac));
        }
    }
}

/// Whether `port` is the one that packets to the further address `net` go to: nobody has it as a fixed address,
/// and no port before this one names it.
fn is_first_claim(view: &NetworkView, port: &Port, net: IpNet) -> bool {
    let fixed = view.ports.iter().any(|p| p.addresses.iter().any(|f| f.address == net.addr()));
    let claims = |p: &&Port| p.allowed_pairs.iter().any(|pair| pair.net == net);
    let first =
        view.attached().map(|(p, _)| p).filter(|p| p.admin_up).filter(claims).map(|p| p.meta.id).min();
    !fixed && first == Some(port.meta.id)
}

fn put_routers(view: &NetworkView, plan: &mut NamespacePlan) {
    let default = view.default_router().map(|attached| attached.router.meta.id);
    for attached in &view.routers {
        let mut ranges = attached.far_ranges.clone();
        if Some(attached.router.meta.id) == default {
            ranges.extend([everything(true), everything(false)]);
        }
        if !attached.router.admin_up || !view.network.admin_up {
            ranges.clear();
        }
        plan.uplink(Uplink {
            device: router_device(attached.router.meta.id),
            peer: super::router::network_device(view.network.meta.id),
            peer_place: Place::Router(attached.router.meta.id),
            mtu: view.network.mtu,
            ranges: &ranges,
        });
    }
    for attached in view.routers.iter().filter(|attached| view.owns(attached)) {
        put_extra_routes(view, attached, plan);
    }
}

/// Extra routes of a router whose next hop is in this network lead there at once, without the way over the router. Those
/// of another project's router do not: they are for what comes through that.
fn put_extra_routes(view: &NetworkView, attached: &AttachedRouter, plan: &mut NamespacePlan) {
    for route in &attached.router.routes {
        let by_port =
            view.attached().find(|(port, _)| port.addresses.iter().any(|f| f.address == route.next_hop));
        let by_router = view.routers.iter().find(|other| other.addresses.contains(&route.next_hop));
        if let Some((port, _)) = by_port.filter(|(port, _)| port.admin_up) {
            plan.route(
                route.destination,
                RouteAction::Via { device: port.device_name(), gateway: route.next_hop },
            );
        } else if let Some(other) = by_router
            && other.router.meta.id != attached.router.meta.id
        {
            let v4 = route.destination.addr().is_ipv4();
            let gateway = if v4 { super::namespace::UPSTREAM_V4 } else { super::namespace::UPSTREAM_V6 };
            plan.route(
                route.destination,
                RouteAction::Via { device: router_device(other.router.meta.id), gateway },
            );
        }
    }
}

/// In a host-only network the gateway's addresses are the host's, over a link that routes nothing else.
fn put_host(view: &NetworkView, host_device: &str, plan: &mut NamespacePlan) {
    let gateways: Vec<IpNet> = view.subnets.iter().filter_map(|s| s.gateway).map(single).collect();
    plan.uplink(Uplink {
        device: HOST_DEVICE.to_string(),
        peer: host_device.to_string(),
        peer_place: Place::Host,
        mtu: view.network.mtu,
        ranges: &gateways,
    });
}

fn put_firewall(view: &NetworkView, plan: &mut NamespacePlan) {
    let table = &mut plan.table;
    put_groups(view, table);
    put_segments(view, table);
    put_spoof(view, table);
    put_rates(view, table);
    let mut egress = Set::new("ifname : verdict");
    let mut ingress = Set::new("ifname : verdict");
    let mut attached = Set::new("ifname");
    if view.network.admin_up {
        for (port, _) in view.attached().filter(|(port, _)| port.admin_up) {
            let key = quoted(&port.device_name());
            attached.insert(key.clone());
            for (direction, map) in [(Direction::Egress, &mut egress), (Direction::Ingress, &mut ingress)] {
                if let Some(verdict) = port_verdict(port, direction, view, table) {
                    map.map(key.clone(), verdict);
                }
            }
        }
        let mut links: Vec<String> = view.routers.iter().map(|a| router_device(a.router.meta.id)).collect();
        links.extend(view.is_host_only().then(|| HOST_DEVICE.to_string()));
        for link in links {
            egress.map(quoted(&link), "accept");
            ingress.map(quoted(&link), "accept");
        }
    }
    table.sets.insert("egress_of".into(), egress);
    table.sets.insert("ingress_of".into(), ingress);
    table.sets.insert("attached".into(), attached);
    let known =
        || vec!["ct state established,related accept".to_string(), "ct state invalid drop".to_string()];
    table.base("egress", EGRESS, [known(), vec!["iifname vmap @egress_of".into()]].concat());
    table.base("ingress", INGRESS, [known(), vec!["oifname vmap @ingress_of".into()]].concat());
    table.base("input", INPUT, [input_rules(), refusals(view)].concat());
}

/// What goes beyond a port's rate is lost, as on a slower line: senders of TCP slow down by that. Each direction has the
/// rate for itself.
fn put_rates(view: &NetworkView, table: &mut Table) {
    let (mut from, mut to) = (Set::new("ifname : verdict"), Set::new("ifname : verdict"));
    for (port, _) in view.attached() {
        let Some(rate) = port.rate_mbit else { continue };
        let bytes = u64::from(rate) * 125_000;
        // The kernel's bucket holds what passes in a second and the burst (net/netfilter/nft_limit.c).
        let burst = BUCKET_BYTES_MIN.saturating_sub(bytes).max(BURST_BYTES_MIN);
        let device = port.device_name();
        for (word, map) in [("from", &mut from), ("to", &mut to)] {
            let chain = format!("rate_{word}_{device}");
            let rule = format!("limit rate over {bytes} bytes/second burst {burst} bytes drop");
            table.chain(chain.clone(), vec![rule]);
            map.map(quoted(&device), format!("jump {chain}"));
        }
    }
    if from.is_empty() {
        return;
    }
    table.sets.insert("rate_from".into(), from);
    table.sets.insert("rate_to".into(), to);
    let rules = ["iifname vmap @rate_from", "oifname vmap @rate_to"].map(str::to_string);
    table.base("rate", RATE, rules.to_vec());
}

fn input_rules() -> Vec<String> {
    [
        "iifname \"lo\" accept",
        "icmp type echo-request accept",
        "iifname != @attached drop",
        "udp sport 68 udp dport 67 accept",
        "ip6 saddr fe80::/10 udp dport 547 accept",
        "meta l4proto { tcp, udp } th dport 53 accept",
        "ip daddr 169.254.169.254 tcp dport 80 accept",
        "ip6 daddr fe80::a9fe:a9fe tcp dport 80 accept",
        "icmpv6 type { echo-request, nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept",
        "icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept",
        "ct state established,related accept",
    ]
    .map(str::to_string)
    .to_vec()
}

/// A port sends as itself only: its MAC with its addresses, and before it has them what DHCP and neighbour discovery
/// need. It never speaks as a router or DHCP server.
fn put_spoof(view: &NetworkView, table: &mut Table) {
    let mut guarded = Set::new("ifname");
    let mut macs = Set::new("ifname . ether_addr");
    let mut bound_v4 = Set::new("ifname . ether_addr . ipv4_addr");
    let mut bound_v6 = Set::new("ifname . ether_addr . ipv6_addr");
    let mut ranges = Vec::new();
    for (port, _) in view.attached().filter(|(port, _)| port.port_security) {
        let device = quoted(&port.device_name());
        guarded.insert(device.clone());
        macs.insert(format!("{device} . {}", port.mac));
        let own = port.addresses.iter().map(|fixed| (single(fixed.address), port.mac));
        let further = port.allowed_pairs.iter().map(|pair| (pair.net, pair.mac.unwrap_or(port.mac)));
        for (net, mac) in own.chain(further) {
            if mac != port.mac {
                macs.insert(format!("{device} . {mac}"));
            }
            if net.prefix_len() < net.max_prefix_len() {
                ranges.push(range_rule(&device, mac, net));
                continue;
            }
            let bound = if net.addr().is_ipv4() { &mut bound_v4 } else { &mut bound_v6 };
            bound.insert(format!("{device} . {mac} . {}", net.addr()));
        }
    }
    table.sets.insert("guarded".into(), guarded);
    table.sets.insert("macs".into(), macs);
    table.sets.insert("bound4".into(), bound_v4);
    table.sets.insert("bound6".into(), bound_v6);
    let first = [
        "icmpv6 type { nd-router-advert, nd-redirect } drop",
        "udp sport 67 udp dport 68 drop",
        "udp sport 547 udp dport 546 drop",
        "iifname . ether saddr . ip saddr @bound4 return",
        "iifname . ether saddr . ip6 saddr @bound6 return",
        "iifname . ether saddr != @macs drop",
        "ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 return",
        "ip6 saddr fe80::/10 ip6 daddr { fe80::/10, ff02::/16 } return",
        "ip6 saddr :: ip6 daddr ff02::/16 icmpv6 type { nd-neighbor-solicit, nd-router-solicit, mld-listener-report, mld2-listener-report } return",
    ];
    let rules = first.map(str::to_string).into_iter().chain(ranges).chain(["drop".to_string()]).collect();
    table.chain("sender", rules);
    table.base("spoof", RAW, vec!["iifname @guarded jump sender".into()]);
}

fn range_rule(device: &str, mac: Mac, net: IpNet) -> String {
    let word = if net.addr().is_ipv4() { "ip" } else { "ip6" };
    format!("iifname {device} ether saddr {mac} {word} saddr {} return", net.trunc())
}

/// A device's name as nft wants it in rules and sets.
pub(super) fn quoted(device: &str) -> String {
    format!("\"{device}\"")
}
