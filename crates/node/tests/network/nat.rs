//! The way out and in: SNAT, floating IPs, hairpin and the live move.

use crate::lab::*;
use model::{
    network::NetworkKind,
    security_group::{Direction::*, Family::*, Peer},
};
use std::net::SocketAddr;

#[test]
fn an_outside_server_sees_the_router_and_cannot_come_in() {
    let mut lab = Lab::new();
    lab.external(None, false);
    let cloud = lab.cloud(NetworkKind::Private, Some(["203.0.113.10", "2001:db8:f::10"]));
    let group = lab.group(cloud, open());
    let a = lab.guest(cloud, 4, &[group]).configure();
    for (server, seen) in [("198.51.100.9", "203.0.113.10"), ("2001:db8:99::9", "2001:db8:f::10")] {
        let at = serve_tcp(&lab.outside, SocketAddr::new(address(server), 80));
        let (_, by) = connect(&a.namespace, at, PATIENCE).expect("connects");
        assert_eq!(by, address(seen));
        assert!(ping(&a.namespace, address(server), PATIENCE));
        // The router itself shows nothing of what is behind it.
        serve_tcp(&a.namespace, SocketAddr::new(if server.contains(':') { a.v6() } else { a.v4() }, 80));
        assert!(connect(&lab.outside, SocketAddr::new(address(seen), 80), SILENCE).is_err());
    }
    let there = sys::netlink::Netlink::open(&lab.outside).unwrap();
    let target = sys::netlink::RouteTarget::Via {
        gateway: address("192.0.2.1"),
        device: Some("lan0".into()),
        onlink: true,
    };
    there.replace_route(&sys::netlink::Route::new("10.0.0.0/24".parse().unwrap(), target)).unwrap();
    assert!(!ping(&lab.outside, a.v4(), SILENCE), "private addresses are not routed from outside");
}

#[test]
fn a_masqueraded_pool_is_seen_as_the_host() {
    let mut lab = Lab::new();
    lab.external(None, true);
    let cloud = lab.cloud(NetworkKind::Private, Some(["203.0.113.10", "2001:db8:f::10"]));
    let group = lab.group(cloud, out());
    let a = lab.guest(cloud, 4, &[group]).configure();
    for (server, seen) in [("198.51.100.9", "192.0.2.1"), ("2001:db8:99::9", "2001:db8:ff::1")] {
        let at = serve_tcp(&lab.outside, SocketAddr::new(address(server), 80));
        let (_, by) = connect(&a.namespace, at, PATIENCE).expect("connects");
        assert_eq!(by, address(seen));
    }
}

#[test]
fn a_floating_ip_works_inwards_outwards_and_around() {
    let mut lab = Lab::new();
    lab.external(None, false);
    let cloud = lab.cloud(NetworkKind::Private, Some(["203.0.113.10", "2001:db8:f::10"]));
    let mut rules = out();
    for family in [Ipv4, Ipv6] {
        rules.push(rule(Ingress, family, Some("tcp"), Some("80"), Peer::Any));
    }
    let group = lab.group(cloud, rules);
    let web = lab.guest(cloud, 4, &[group]).configure();
    let plain = lab.guest(cloud, 5, &[group]).configure();
    lab.floating("203.0.113.50", Some((cloud, &web.port)));
    lab.floating("2001:db8:f::50", Some((cloud, &web.port)));
    lab.apply();
    for (floating, own, server, router) in [
        ("203.0.113.50", web.v4(), "198.51.100.9", "203.0.113.10"),
        ("2001:db8:f::50", web.v6(), "2001:db8:99::9", "2001:db8:f::10"),
    ] {
        serve_tcp(&web.namespace, SocketAddr::new(own, 80));
        serve_tcp(&web.namespace, SocketAddr::new(own, 81));
        let at = |port| SocketAddr::new(address(floating), port);
        let (_, seen) = connect(&lab.outside, at(80), PATIENCE).expect("in");
        let client = if own.is_ipv4() { "192.0.2.2" } else { "2001:db8:ff::2" };
        assert_eq!(seen, address(client), "the client's address is kept");
        assert!(connect(&lab.outside, at(81), SILENCE).is_err(), "only what the group allows");
        assert!(connect(&lab.host, at(80), PATIENCE).is_ok(), "from the host");
        let outside = serve_tcp(&lab.outside, SocketAddr::new(address(server), 80));
        assert_eq!(connect(&web.namespace, outside, PATIENCE).expect("out").1, address(floating));
        assert_eq!(connect(&plain.namespace, outside, PATIENCE).expect("out").1, address(router));
        // Around: a neighbour and the owner itself use the floating address.
        assert_eq!(connect(&plain.namespace, at(80), PATIENCE).expect("hairpin").1, address(router));
        assert_eq!(
            connect(&web.namespace, at(80), PATIENCE).expect("hairpin to itself").1,
            address(floating)
        );
    }
    // Released, it is gone at once, for new flows.
    lab.floating("203.0.113.50", None);
    lab.apply();
    assert!(connect(&lab.outside, "203.0.113.50:80".parse().unwrap(), SILENCE).is_err());
}

#[test]
fn floating_ips_of_two_projects_reach_each_other() {
    let mut lab = Lab::new();
    lab.external(None, false);
    let mut sides = Vec::new();
    for (outer, floating) in [
        (["203.0.113.10", "2001:db8:f::10"], "203.0.113.51"),
        (["203.0.113.20", "2001:db8:f::20"], "203.0.113.52"),
    ] {
        let cloud = lab.cloud(NetworkKind::Private, Some(outer));
        let group = lab.group(cloud, open());
        let guest = lab.guest(cloud, 4, &[group]).configure();
        lab.floating(floating, Some((cloud, &guest.port)));
        sides.push((guest, floating));
    }
    lab.apply();
    for (here, there) in [(0, 1), (1, 0)] {
        let port = 8000 + here as u16;
        serve_tcp(&sides[there].0.namespace, SocketAddr::new(sides[there].0.v4(), port));
        let to = SocketAddr::new(address(sides[there].1), port);
        let (_, seen) = connect(&sides[here].0.namespace, to, PATIENCE).expect("reaches");
        assert_eq!(seen, address(sides[here].1));
    }
}
