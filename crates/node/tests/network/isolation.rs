//! Ports of one network: what passes between them and what never does.

use crate::lab::*;
use model::{
    network::NetworkKind,
    security_group::{Direction::*, Family::*, Peer, Rule},
};
use std::net::{IpAddr, SocketAddr};

fn net(text: &str) -> Peer {
    Peer::Net(text.parse().unwrap())
}

#[test]
fn two_ports_ping_each_other_and_nobody_else_answers() {
    let mut lab = Lab::new();
    let cloud = lab.cloud(NetworkKind::Private, None);
    let group = lab.group(cloud, open());
    let a = lab.guest(cloud, 4, &[group]).configure();
    let b = lab.guest(cloud, 5, &[group]).configure();
    for to in [
        b.v4(),
        b.v6(),
        address("10.0.0.1"),
        address("fd00:a::1"),
        address("fe80::1%eth0".split('%').next().unwrap()),
    ] {
        if to == address("fe80::1") {
            assert!(
                run(&a.namespace, &["ping", "-n", "-c1", "-W2", "fe80::1%eth0"]).status.success(),
                "gateway on the link"
            );
        } else {
            assert!(ping(&a.namespace, to, PATIENCE), "{to}");
        }
    }
    assert!(!ping(&a.namespace, address("10.0.0.9"), SILENCE), "nobody has this address");
    // Applying again, with and without memory, changes nothing.
    assert!(lab.apply().iter().all(|outcome| !outcome.changed));
    let fresh = node::network::apply::Dataplane::new(
        &lab.run.path().join("netns"),
        lab.host.run(sys::netns::NetNs::current).unwrap().unwrap(),
        Default::default(),
    );
    lab.dataplane = fresh;
    lab.apply();
    assert!(ping(&a.namespace, b.v4(), PATIENCE));
    assert!(ping(&a.namespace, b.v6(), PATIENCE));
}

#[test]
fn nothing_comes_in_that_no_rule_lets_in() {
    let mut lab = Lab::new();
    let cloud = lab.cloud(NetworkKind::Private, None);
    let group = lab.group(cloud, out());
    let a = lab.guest(cloud, 4, &[group]).configure();
    let b = lab.guest(cloud, 5, &[group]).configure();
    for (from, to) in [(&a, &b), (&b, &a)] {
        assert!(!ping(&from.namespace, to.v4(), SILENCE));
        assert!(!ping(&from.namespace, to.v6(), SILENCE));
    }
    assert!(ping(&a.namespace, address("10.0.0.1"), PATIENCE), "the gateway answers");
}

/// TCP, UDP and ICMP, each allowed and denied, on IPv4 and IPv6.
#[test]
fn twelve_probes_pass_or_not_as_the_rules_say() {
    let mut lab = Lab::new();
    let cloud = lab.cloud(NetworkKind::Private, None);
    let client = lab.group(cloud, out());
    let mut rules: Vec<Rule> = out();
    for (family, allowed, icmp) in [(Ipv4, "10.0.0.4/32", "icmp"), (Ipv6, "fd00:a::4/128", "icmpv6")] {
        rules.push(rule(Ingress, family, Some("tcp"), Some("22"), net(allowed)));
        rules.push(rule(Ingress, family, Some("udp"), Some("5000-5010"), net(allowed)));
        rules.push(rule(Ingress, family, Some(icmp), None, net(allowed)));
    }
    let server = lab.group(cloud, rules);
    let good = lab.guest(cloud, 4, &[client]).configure();
    let bad = lab.guest(cloud, 6, &[client]).configure();
    let target = lab.guest(cloud, 5, &[server]).configure();
    for ip in [target.v4(), target.v6()] {
        let at = |port| SocketAddr::new(ip, port);
        let n = &target.namespace;
        for port in [22, 23] {
            serve_tcp(n, at(port));
        }
        for port in [5005, 5011] {
            serve_udp(n, at(port));
        }
        assert!(connect(&good.namespace, at(22), PATIENCE).is_ok(), "{ip} tcp allowed");
        assert!(connect(&bad.namespace, at(22), SILENCE).is_err(), "{ip} tcp from elsewhere");
        assert!(connect(&good.namespace, at(23), SILENCE).is_err(), "{ip} tcp to another port");
        assert!(ask_udp(&good.namespace, at(5005), PATIENCE).is_ok(), "{ip} udp allowed");
        assert!(ask_udp(&bad.namespace, at(5005), SILENCE).is_err(), "{ip} udp from elsewhere");
        assert!(ask_udp(&good.namespace, at(5011), SILENCE).is_err(), "{ip} udp to another port");
        assert!(ping(&good.namespace, ip, PATIENCE), "{ip} icmp allowed");
        assert!(!ping(&bad.namespace, ip, SILENCE), "{ip} icmp from elsewhere");
    }
}

#[test]
fn members_of_a_group_come_and_go() {
    let mut lab = Lab::new();
    let cloud = lab.cloud(NetworkKind::Private, None);
    let client = lab.group(cloud, out());
    let mut rules = out();
    for family in [Ipv4, Ipv6] {
        rules.push(rule(Ingress, family, None, None, Peer::Group(client)));
    }
    let server = lab.group(cloud, rules);
    let target = lab.guest(cloud, 5, &[server]).configure();
    let a = lab.guest(cloud, 4, &[client]).configure();
    let other = lab.group(cloud, out());
    let stranger = lab.guest(cloud, 7, &[other]).configure();
    for to in [target.v4(), target.v6()] {
        assert!(ping(&a.namespace, to, PATIENCE), "{to}");
        assert!(!ping(&stranger.namespace, to, SILENCE), "{to}");
    }
    // The stranger joins by an element of a set.
    let view = &mut lab.clouds[cloud].view;
    view.ports.iter_mut().find(|p| p.meta.id == stranger.port.meta.id).unwrap().security_groups.push(client);
    lab.count_members();
    lab.apply();
    for to in [target.v4(), target.v6()] {
        assert!(ping(&stranger.namespace, to, PATIENCE), "{to}");
    }
}

#[test]
fn a_port_sends_only_as_itself() {
    let mut lab = Lab::new();
    let cloud = lab.cloud(NetworkKind::Private, None);
    let group = lab.group(cloud, open());
    let a = lab.guest(cloud, 4, &[group]).configure();
    let b = lab.guest(cloud, 5, &[group]).configure();
    let victim = lab.guest(cloud, 6, &[group]).configure();
    let netlink = sys::netlink::Netlink::open(&a.namespace).unwrap();
    // A false address, and the address of a neighbour.
    for (false_address, to) in [
        ("10.0.0.66/32", b.v4()),
        ("10.0.0.6/32", b.v4()),
        ("fd00:a::66/128", b.v6()),
        ("fd00:a::6/128", b.v6()),
    ] {
        netlink.add_address("eth0", false_address.parse().unwrap()).unwrap();
        let source = false_address.split('/').next().unwrap();
        let probe = run(&a.namespace, &["ping", "-n", "-c1", "-W0.3", "-I", source, &to.to_string()]);
        assert!(!probe.status.success(), "{source}: {}", text(&probe));
        netlink.delete_address("eth0", false_address.parse().unwrap()).unwrap();
    }
    assert!(ping(&victim.namespace, b.v4(), PATIENCE), "the victim's own address still works");
    assert!(ping(&a.namespace, b.v4(), PATIENCE));
    // Another MAC.
    netlink.set_mac("eth0", [0xfa, 0x16, 0x3e, 9, 9, 9]).unwrap();
    assert!(!ping(&a.namespace, b.v4(), SILENCE));
    netlink.set_mac("eth0", a.port.mac.0).unwrap();
    // Without port security all of it passes out, and comes in without rules.
    let view = &mut lab.clouds[cloud].view;
    let port = view.ports.iter_mut().find(|p| p.meta.id == a.port.meta.id).unwrap();
    port.port_security = false;
    port.security_groups.clear();
    lab.apply();
    assert!(ping(&b.namespace, a.v4(), PATIENCE));
}

#[test]
fn a_network_without_router_has_no_way_out_and_the_host_does_not_leak() {
    let mut lab = Lab::new();
    lab.external(None, false);
    let closed = lab.cloud(NetworkKind::Private, None);
    let group = lab.group(closed, open());
    let a = lab.guest(closed, 4, &[group]).configure();
    for to in [
        "192.0.2.1",
        "192.0.2.2",
        "198.51.100.9",
        "203.0.113.1",
        "2001:db8:ff::1",
        "2001:db8:ff::2",
        "2001:db8:99::9",
    ] {
        assert!(!ping(&a.namespace, address(to), SILENCE), "{to}");
    }
    // From outside by way of the host: the range is not known there.
    let there = sys::netlink::Netlink::open(&lab.outside).unwrap();
    let target = sys::netlink::RouteTarget::Via {
        gateway: address("192.0.2.1"),
        device: Some("lan0".into()),
        onlink: true,
    };
    there.replace_route(&sys::netlink::Route::new("10.0.0.0/24".parse().unwrap(), target)).unwrap();
    assert!(!ping(&lab.outside, a.v4(), SILENCE));
    assert!(!ping(&lab.host, a.v4(), SILENCE));
}

#[test]
fn the_host_talks_with_a_host_only_network_and_passes_nothing_on() {
    let mut lab = Lab::new();
    lab.external(None, false);
    let cloud = lab.cloud(NetworkKind::HostOnly, None);
    let group = lab.group(cloud, open());
    let a = lab.guest(cloud, 4, &[group]).configure();
    let b = lab.guest(cloud, 5, &[group]).configure();
    assert!(ping(&a.namespace, b.v4(), PATIENCE), "guests of the network");
    for (guest, host) in [(a.v4(), "10.0.0.1"), (a.v6(), "fd00:a::1")] {
        assert!(ping(&lab.host, guest, PATIENCE), "from the host to {guest}");
        assert!(ping(&a.namespace, address(host), PATIENCE), "to the host at {host}");
    }
    let there = sys::netlink::Netlink::open(&lab.outside).unwrap();
    for (range, gateway) in [("10.0.0.0/24", "192.0.2.1"), ("fd00:a::/64", "2001:db8:ff::1")] {
        let target = sys::netlink::RouteTarget::Via {
            gateway: address(gateway),
            device: Some("lan0".into()),
            onlink: true,
        };
        there.replace_route(&sys::netlink::Route::new(range.parse().unwrap(), target)).unwrap();
    }
    for to in ["192.0.2.2", "198.51.100.9", "2001:db8:ff::2"].map(address) {
        assert!(!ping(&a.namespace, to, SILENCE), "out to {to}");
    }
    let inwards: [IpAddr; 2] = [a.v4(), a.v6()];
    for to in inwards {
        assert!(!ping(&lab.outside, to, SILENCE), "in to {to}");
    }
}

#[test]
fn the_same_addresses_in_two_projects_never_meet() {
    let mut lab = Lab::new();
    lab.external(None, false);
    let mut guests = Vec::new();
    for outer in [["203.0.113.10", "2001:db8:f::10"], ["203.0.113.20", "2001:db8:f::20"]] {
        let cloud = lab.cloud(NetworkKind::Private, Some(outer));
        let group = lab.group(cloud, open());
        guests.push((lab.guest(cloud, 4, &[group]).configure(), cloud, group));
    }
    // Only the second project has 10.0.0.5.
    let (_, cloud, group) = guests[1];
    let five = lab.guest(cloud, 5, &[group]).configure();
    assert!(ping(&guests[1].0.namespace, five.v4(), PATIENCE));
    assert!(ping(&guests[1].0.namespace, five.v6(), PATIENCE));
    assert!(!ping(&guests[0].0.namespace, five.v4(), SILENCE));
    assert!(!ping(&guests[0].0.namespace, five.v6(), SILENCE));
}
