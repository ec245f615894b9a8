//! What the dataplane's compilers write, as golden files, and what the evaluator says of flows.
//!
//! The golden files are read by people when they change; that the kernel does what they say is proven with real
//! packets in the node's tests.

use model::{
    address::Mac,
    dataplane::{
        allow::{Decision, Flow, Transport, allows},
        external, host,
        host::HostSettings,
        namespace::{DeviceKind, NamespacePlan, RouteAction},
        network, router,
        service::port_facts,
        view::{AttachedRouter, Attachment, ExternalView, NetworkView, Outside, RouterView},
    },
    floating_ip::{FloatingIp, Target},
    id::*,
    meta::Meta,
    network::{External, Network, NetworkKind},
    port::{AddressPair, Device, FixedIp, Port},
    router::{Gateway, Interface, Router},
    security_group::{Direction, Family, IcmpMatch, Peer, Protocol, Rule, SecurityGroup},
    subnet::{HostRoute, Ipv6Mode, Ipv6Part, Subnet},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::IpAddr,
};

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

fn meta<Id>(id: Id, name: &str) -> Meta<Id> {
    Meta::new(id, ProjectId::from_random([9; 16]), name.parse().expect(name), jiff::Timestamp::UNIX_EPOCH)
}

fn network_record(byte: u8, kind: NetworkKind) -> Network {
    Network {
        meta: meta(NetworkId::from_random([byte; 16]), "net"),
        kind,
        mtu: 1450,
        shared: false,
        port_security: true,
        dns_domain: String::new(),
        admin_up: true,
    }
}

fn subnet(byte: u8, network: &Network, cidr: &str, gateway: Option<&str>) -> Subnet {
    let cidr: ipnet::IpNet = cidr.parse().expect(cidr);
    Subnet {
        meta: meta(SubnetId::from_random([byte; 16]), "subnet"),
        network: network.meta.id,
        cidr,
        gateway: gateway.map(ip),
        dhcp: true,
        dns_servers: Vec::new(),
        pools: Vec::new(),
        host_routes: Vec::new(),
        ipv6_mode: cidr.addr().is_ipv6().then_some(Ipv6Mode::Stateful),
        ipv6_part: Ipv6Part::Both,
        security_groups: Vec::new(),
        subnet_pool: None,
    }
}

fn rule(
    byte: u8,
    direction: Direction,
    family: Family,
    protocol: Option<Protocol>,
    ports: Option<&str>,
    peer: Peer,
) -> Rule {
    Rule {
        id: RuleId::from_random([byte; 16]),
        direction,
        family,
        protocol,
        by_number: false,
        ports: ports.map(|p| p.parse().expect(p)),
        icmp: None,
        peer,
        description: String::new(),
    }
}

/// A port with an address of each family that ends with `last`.
fn port_record(
    network: &Network,
    [v4, v6]: [&Subnet; 2],
    byte: u8,
    last: u8,
    groups: Vec<SecurityGroupId>,
) -> Port {
    Port {
        meta: meta(PortId::from_random([byte; 16]), "port"),
        network: network.meta.id,
        mac: Mac([0xfa, 0x16, 0x3e, 0, 0, last]),
        addresses: vec![
            FixedIp { subnet: v4.meta.id, address: ip(&format!("10.0.0.{last}")) },
            FixedIp { subnet: v6.meta.id, address: ip(&format!("fd00:a::{last}")) },
        ],
        device: Device::Instance(InstanceId::from_random([byte; 16])),
        security_groups: groups,
        port_security: true,
        allowed_pairs: Vec::new(),
        admin_up: true,
        rate_mbit: None,
        foreign_user: None,
        delete_with_instance: true,
        device_tag: None,
        aliases: vec![],
        spread: None,
    }
}

/// A network with two subnets of each family's kind, a VM, a container with an address pair and an open port.
fn network_view() -> NetworkView {
    use {Direction::*, Family::*};
    let network = network_record(0x11, NetworkKind::Private);
    let v4 = subnet(0x21, &network, "10.0.0.0/24", Some("10.0.0.1"));
    let v6 = subnet(0x22, &network, "fd00:a::/64", Some("fd00:a::1"));
    let (web, all) = (SecurityGroupId::from_random([0x31; 16]), SecurityGroupId::from_random([0x32; 16]));
    let ping = Rule {
        icmp: Some(IcmpMatch { kind: 8, code: Some(0) }),
        ..rule(4, Ingress, Ipv4, Some(Protocol::ICMP), None, Peer::Net("203.0.113.0/24".parse().unwrap()))
    };
    let web_rules = vec![
        rule(1, Ingress, Ipv4, Some(Protocol::TCP), Some("80"), Peer::Any),
        rule(2, Ingress, Ipv6, Some(Protocol::TCP), Some("8000-8080"), Peer::Any),
        rule(3, Ingress, Ipv4, None, None, Peer::Group(all)),
        ping,
    ];
    let all_rules = vec![
        rule(5, Egress, Ipv4, None, None, Peer::Any),
        rule(6, Egress, Ipv6, None, None, Peer::Any),
        rule(7, Ingress, Ipv4, Some(Protocol(47)), None, Peer::Net("0.0.0.0/0".parse().unwrap())),
    ];
    let group =
        |id, rules| SecurityGroup { meta: meta(id, "group"), rules, is_default: false, stateful: true };
    let port = |byte, last, groups| port_record(&network, [&v4, &v6], byte, last, groups);
    let vm = port(0x41, 4, vec![web, all]);
    let mut container = port(0x42, 5, vec![all]);
    container.allowed_pairs = vec![
        AddressPair { net: "10.0.0.200/32".parse().unwrap(), mac: None },
        AddressPair { net: "172.16.0.0/16".parse().unwrap(), mac: Some(Mac([2, 0, 0, 0, 0, 1])) },
    ];
    container.rate_mbit = Some(100);
    let mut open = port(0x43, 6, vec![]);
    open.port_security = false;
    let far_away = port(0x44, 7, vec![all]);
    let attachments = BTreeMap::from([
        (vm.meta.id, Attachment::Tap { owner_uid: 100_000 }),
        (container.meta.id, Attachment::Veth),
        (open.meta.id, Attachment::Veth),
    ]);
    let members =
        BTreeMap::from([(all, [ip("10.0.0.4"), ip("10.0.0.5"), ip("10.0.0.7"), ip("fd00:a::7")].into())]);
    let router = router_record(&[&v4, &v6]);
    NetworkView {
        subnets: vec![v4, v6],
        ports: vec![vm, container, open, far_away],
        groups: vec![group(web, web_rules), group(all, all_rules)],
        members,
        routers: vec![AttachedRouter {
            router,
            addresses: vec![ip("10.0.0.1"), ip("fd00:a::1")],
            far_ranges: vec!["10.0.1.0/24".parse().unwrap()],
        }],
        attachments,
        spreads: vec![],
        network,
    }
}

fn router_record(subnets: &[&Subnet]) -> Router {
    Router {
        meta: meta(RouterId::from_random([0x51; 16]), "router"),
        gateway: Some(Gateway { network: external_id(), port: PortId::from_random([0x59; 16]), snat: true }),
        interfaces: subnets
            .iter()
            .map(|s| Interface {
                subnet: s.meta.id,
                network: s.network,
                port: PortId::from_random([0x58; 16]),
            })
            .collect(),
        routes: vec![HostRoute { destination: "192.168.7.0/24".parse().unwrap(), next_hop: ip("10.0.0.5") }],
        admin_up: true,
    }
}

fn external_id() -> NetworkId {
    NetworkId::from_random([0x12; 16])
}

fn floating_ips() -> Vec<FloatingIp> {
    let floating = |byte: u8, outer: &str, inner: Option<&str>| FloatingIp {
        meta: meta(FloatingIpId::from_random([byte; 16]), "fip"),
        network: external_id(),
        address: ip(outer),
        target: inner.map(|inner| Target {
            port: PortId::from_random([0x41; 16]),
            address: ip(inner),
            router: RouterId::from_random([0x51; 16]),
        }),
        internal: false,
    };
    vec![floating(1, "203.0.113.50", Some("10.0.0.4")), floating(2, "203.0.113.51", None)]
}

fn router_view() -> RouterView {
    let view = network_view();
    let other = network_record(0x13, NetworkKind::Private);
    let mut subnets: Vec<(Subnet, u32)> = view.subnets.iter().map(|s| (s.clone(), 1450)).collect();
    subnets.push((subnet(0x23, &other, "10.0.1.0/24", Some("10.0.1.1")), 1400));
    RouterView {
        router: view.routers[0].router.clone(),
        subnets,
        outside: Some(Outside { network: external_id(), addresses: vec![ip("203.0.113.10")], mtu: 1500 }),
        floating_ips: floating_ips().into_iter().filter(|f| f.target.is_some()).collect(),
        passages: std::collections::BTreeSet::new(),
    }
}

fn external_view(interface: Option<&str>) -> ExternalView {
    let kind = NetworkKind::External(External {
        interface: interface.map(str::to_string),
        masquerade: interface.is_none(),
        is_default: true,
    });
    let network = network_record(0x12, kind);
    let pool = subnet(0x24, &network, "203.0.113.0/24", Some("203.0.113.1"));
    ExternalView {
        network,
        subnets: vec![pool],
        routers: vec![(router_record(&[]), vec![ip("203.0.113.10")])],
        floating_ips: floating_ips(),
    }
}

/// A plan as text that people can read, in the words of ip(8) and nft(8).
fn show(plan: &NamespacePlan) -> String {
    let mut out = format!("{:?}\n", plan.place);
    for (key, value) in &plan.sysctls {
        let _ = writeln!(out, "sysctl {key} = {value}");
    }
    for (name, device) in &plan.devices {
        let kind = match &device.kind {
            DeviceKind::Tap { owner_uid } => format!("tap of uid {owner_uid}"),
            DeviceKind::Veth { peer, .. } => format!("veth, peer {peer} waits"),
            DeviceKind::Link { peer_place, peer, peer_mac } => {
                format!("link to {peer} {peer_mac} in {peer_place:?}")
            }
        };
        let _ = writeln!(out, "device {name} {} mtu {}: {kind}", device.mac, device.mtu);
        for (key, value) in &device.sysctls {
            let _ = writeln!(out, "  sysctl {key} = {value}");
        }
    }
    for (device, address) in &plan.addresses {
        let _ = writeln!(out, "address {address} dev {device}");
    }
    for route in &plan.routes {
        let _ = match &route.action {
            RouteAction::Device(device) => writeln!(out, "route {} dev {device}", route.destination),
            RouteAction::Via { device, gateway } => {
                writeln!(out, "route {} via {gateway} dev {device}", route.destination)
            }
            RouteAction::Unreachable => writeln!(out, "route unreachable {}", route.destination),
        };
    }
    for neighbour in &plan.neighbours {
        let _ = writeln!(
            out,
            "neighbour {} lladdr {} dev {}",
            neighbour.address, neighbour.mac, neighbour.device
        );
    }
    for (device, address) in &plan.proxies {
        let _ = writeln!(out, "proxy {address} dev {device}");
    }
    out + &plan.table.replace_script()
}

#[test]
fn a_network_is_compiled_to_this() {
    insta::assert_snapshot!(show(&network::compile(&network_view(), "holm-h11111111")));
}

#[test]
fn a_host_only_network_is_compiled_to_this() {
    let mut view = network_view();
    view.network.kind = NetworkKind::HostOnly;
    view.routers.clear();
    view.ports.clear();
    view.attachments.clear();
    insta::assert_snapshot!(show(&network::compile(&view, "holm-h11111111")));
}

#[test]
fn a_router_is_compiled_to_this() {
    insta::assert_snapshot!(show(&router::compile(&router_view())));
}

#[test]
fn an_external_network_is_compiled_to_this() {
    insta::assert_snapshot!(show(&external::compile(&external_view(None), "holm-x12121212")));
}

#[test]
fn the_host_is_given_this_for_a_pool_and_this_for_a_lan() {
    let settings = HostSettings {
        guarded_interfaces: vec!["eth0".into(), "eth1".into()],
        advertised_interfaces: vec!["eth0".into()],
        ..HostSettings::default()
    };
    insta::assert_snapshot!("host_pool", show(&host::compile(&settings, &[external_view(None)], &[])));
    insta::assert_snapshot!("host_lan", show(&host::compile(&settings, &[external_view(Some("eth0"))], &[])));
    let nothing = host::compile(&settings, &[], &[]);
    assert!(nothing.sysctls.is_empty(), "without an external network the host's forwarding is not touched");
}

#[test]
fn another_projects_router_is_nobodys_way_out_but_where_there_is_no_other() {
    let mut view = network_view();
    let own = view.routers[0].clone();
    // Older, with a way out, and with a route of its owner's.
    let mut foreign = own.clone();
    foreign.router.meta.id = RouterId::from_random([0x01; 16]);
    foreign.router.meta.project = ProjectId::from_random([0x77; 16]);
    foreign.router.routes[0].destination = "8.8.8.0/24".parse().unwrap();
    foreign.far_ranges = vec!["10.0.9.0/24".parse().unwrap()];
    view.routers = vec![foreign.clone(), own.clone()];
    view.routers[1].router.gateway = None;
    assert_eq!(view.default_router().unwrap().router.meta.id, own.router.meta.id);
    let leads = |view: &NetworkView, to: &str| {
        let plan = network::compile(view, "unused");
        let to: ipnet::IpNet = to.parse().unwrap();
        plan.routes.iter().filter(|r| r.destination == to).count()
    };
    assert_eq!(leads(&view, "8.8.8.0/24"), 0, "its routes are for what comes through it");
    assert_eq!(leads(&view, "192.168.7.0/24"), 1, "the network's own project may set routes");
    assert_eq!(leads(&view, "10.0.9.0/24"), 1, "and its subnets are reached");
    view.routers = vec![foreign.clone()];
    assert_eq!(view.default_router().unwrap().router.meta.id, foreign.router.meta.id);
}

#[test]
fn what_is_down_passes_nothing() {
    let mut view = network_view();
    view.ports[0].admin_up = false;
    let plan = network::compile(&view, "h");
    let device = view.ports[0].device_name();
    assert!(!plan.routes.iter().any(|r| r.action == RouteAction::Device(device.clone())));
    assert!(plan.table.sets["egress_of"].elements.keys().all(|key| !key.contains(&device)));
    view.network.admin_up = false;
    let plan = network::compile(&view, "h");
    assert!(
        plan.table.sets["egress_of"].elements.is_empty() && plan.table.sets["ingress_of"].elements.is_empty()
    );
    let mut view = router_view();
    view.router.admin_up = false;
    let plan = router::compile(&view);
    assert!(!plan.routes.iter().any(|route| matches!(route.action, RouteAction::Via { .. })));
}

#[test]
fn a_rule_more_is_a_small_script() {
    let before = network::compile(&network_view(), "h");
    let mut view = network_view();
    view.groups[1].rules.push(rule(
        8,
        Direction::Ingress,
        Family::Ipv4,
        Some(Protocol::UDP),
        Some("53"),
        Peer::Any,
    ));
    let script = network::compile(&view, "h").table.update_script(&before.table);
    let chain = format!("gi_{}", view.groups[1].meta.id.hex());
    let expected = format!(
        "flush chain inet holm {chain}\n\
         add rule inet holm {chain} meta nfproto ipv4 meta l4proto 47 accept\n\
         add rule inet holm {chain} meta nfproto ipv4 meta l4proto 17 th dport 53 accept\n"
    );
    assert_eq!(script, expected);
    let mut view = network_view();
    view.members.values_mut().for_each(|members| {
        members.insert(ip("10.0.0.9"));
    });
    let script = network::compile(&view, "h").table.update_script(&before.table);
    assert_eq!(script, format!("add element inet holm m4_{} {{ 10.0.0.9 }}\n", view.groups[1].meta.id.hex()));
}

#[test]
fn only_what_is_added_ends_no_flow() {
    let mut new = network_view();
    new.ports[1].allowed_pairs.clear();
    let mut old = new.clone();
    // A port less, with its device, its group and its place among the members of the other.
    let gone = old.ports.remove(0);
    old.attachments.remove(&gone.meta.id);
    old.groups.remove(0);
    old.members.values_mut().for_each(|members| {
        members.remove(&ip("10.0.0.4"));
    });
    let nobody = BTreeSet::new();
    assert!(new.allows_all_of(&old, &nobody) && new.allows_all_of(&new, &nobody));
    assert_eq!((new.departed_since(&old), new.departed_since(&new)), (nobody.clone(), nobody.clone()));
    let departed: BTreeSet<IpAddr> = gone.ips().collect();
    assert_eq!(old.departed_since(&new), departed);
    assert!(old.allows_all_of(&new, &departed), "a port went, with all that it alone had");
    let mut stopped = new.clone();
    stopped.attachments.remove(&gone.meta.id);
    assert_eq!(stopped.departed_since(&new), departed, "its device alone");
    assert!(stopped.allows_all_of(&new, &departed));
    let mut moved = new.clone();
    moved.ports[0].addresses.pop();
    assert_eq!(moved.departed_since(&new).len(), 1, "an address alone");
    assert!(!moved.allows_all_of(&new, &departed));
    let changes: [fn(&mut NetworkView); 9] = [
        |view| drop(view.groups[1].rules.remove(0)),
        |view| drop(view.groups.remove(1)),
        |view| {
            view.members.values_mut().for_each(|members| {
                members.remove(&ip("10.0.0.7"));
            })
        },
        |view| view.ports[1].port_security = !view.ports[1].port_security,
        |view| view.ports[1].security_groups.clear(),
        |view| view.network.admin_up = false,
        |view| drop(view.subnets.remove(1)),
        |view| view.routers.clear(),
        |view| {
            view.ports[0].allowed_pairs = vec![AddressPair { net: "10.0.0.9/32".parse().unwrap(), mac: None }]
        },
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut other = new.clone();
        change(&mut other);
        assert!(!other.allows_all_of(&old, &other.departed_since(&old)), "change {number}");
    }
}

#[test]
fn the_evaluator_names_the_rule_or_what_is_missing() {
    let view = network_view();
    let flow = |source: &str, destination: &str, protocol, transport| Flow {
        source: ip(source),
        destination: ip(destination),
        protocol,
        transport,
    };
    let tcp = |port| Transport::Ports { source: 40000, destination: port };
    let vm = view.ports[0].meta.id;
    let (web, all) = (view.groups[0].meta.id, view.groups[1].meta.id);
    // From outside to the web server: the rule for port 80, and none for port 81.
    let verdict = allows(&view, &flow("198.51.100.1", "10.0.0.4", Protocol::TCP, tcp(80)));
    assert_eq!(verdict.egress, Decision::NotHere);
    assert_eq!(verdict.ingress, Decision::Rule { port: vm, group: web, rule: RuleId::from_random([1; 16]) });
    let verdict = allows(&view, &flow("198.51.100.1", "10.0.0.4", Protocol::TCP, tcp(81)));
    let missing = Decision::NoRule { port: vm, direction: Direction::Ingress, groups: vec![web, all] };
    assert_eq!((verdict.is_allowed(), verdict.ingress), (false, missing));
    // A member of the group may do anything, in its own family.
    assert!(allows(&view, &flow("10.0.0.5", "10.0.0.4", Protocol::UDP, tcp(9))).is_allowed());
    assert!(!allows(&view, &flow("fd00:a::5", "fd00:a::4", Protocol::UDP, tcp(9))).is_allowed());
    // ICMP by type and code, and another protocol by number.
    let echo = |kind, code| {
        allows(&view, &flow("203.0.113.9", "10.0.0.4", Protocol::ICMP, Transport::Icmp { kind, code }))
    };
    assert!(echo(8, 0).is_allowed() && !echo(8, 1).is_allowed() && !echo(13, 0).is_allowed());
    assert!(allows(&view, &flow("203.0.113.9", "10.0.0.5", Protocol(47), Transport::Bare)).is_allowed());
    // Ports without security, addresses that nobody has, and ports that are down.
    assert!(allows(&view, &flow("198.51.100.1", "10.0.0.6", Protocol::TCP, tcp(1))).is_allowed());
    let verdict = allows(&view, &flow("10.0.0.4", "10.0.0.99", Protocol::TCP, tcp(1)));
    assert_eq!(verdict.ingress, Decision::NoPort(ip("10.0.0.99")));
    let mut down = network_view();
    down.ports[0].admin_up = false;
    let verdict = allows(&down, &flow("198.51.100.1", "10.0.0.4", Protocol::TCP, tcp(80)));
    assert_eq!(verdict.ingress, Decision::Down(Some(vm)));
}

#[test]
fn a_port_is_told_its_own_facts() {
    let view = network_view();
    let facts = port_facts(&view, &view.ports[0], Some("web"));
    let v4 = facts.v4.expect("has IPv4");
    assert_eq!(
        (v4.address.to_string(), v4.prefix_len, v4.gateway),
        ("10.0.0.4".into(), 24, Some("10.0.0.1".parse().unwrap()))
    );
    assert_eq!(v4.routes, [("169.254.169.254/32".parse().unwrap(), "10.0.0.1".parse().unwrap())]);
    assert_eq!((facts.mtu, facts.domain.as_str(), facts.routed), (1450, "holm.internal", true));
    assert_eq!(facts.v6[0].dns, ["fd00:a::1".parse::<std::net::Ipv6Addr>().unwrap()]);
    let mut view = view;
    view.subnets[0].dhcp = false;
    assert_eq!(port_facts(&view, &view.ports[0], None).v4, None, "a subnet without DHCP is not told");
}

#[test]
fn names_fit_the_kernel() {
    let settings = HostSettings { prefix: "x".repeat(host::PREFIX_BYTES_MAX), ..HostSettings::default() };
    let id = NetworkId::from_random([0xff; 16]);
    for name in [settings.external_device(id), settings.host_only_device(id)] {
        assert!(name.len() <= 15, "{name}");
        assert!(settings.is_ours(&name));
    }
    for other in ["eth0", "holm0", "holmes-x1", "xxxxx-y", "docker0"] {
        assert!(!settings.is_ours(other), "{other}");
        assert!(!HostSettings::default().is_ours(other), "{other}");
    }
}
