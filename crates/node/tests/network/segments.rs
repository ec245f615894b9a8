//! Segments: the group of a subnet as a second gate, what is down, and a router that is not the gateway.

use crate::lab::*;
use model::{
    network::NetworkKind,
    port::AddressPair,
    security_group::{Direction::*, Family::*, Peer},
};
use node::network::conntrack;
use std::net::SocketAddr;

#[test]
fn a_group_of_the_subnet_is_a_second_gate() {
    let mut lab = Lab::new();
    let cloud = lab.cloud(NetworkKind::Private, None);
    let own = lab.group(cloud, open());
    let mut rules = out();
    rules.extend([Ipv4, Ipv6].map(|family| rule(Ingress, family, Some("tcp"), Some("5432"), Peer::Any)));
    let gate = lab.group(cloud, rules);
    let web = lab.guest(cloud, 4, &[own]).configure();
    let db = lab.guest(cloud, 5, &[own]).configure();
    let mut streams = Vec::new();
    for ip in [db.v4(), db.v6()] {
        for port in [22, 5432] {
            let at = serve_tcp(&db.namespace, SocketAddr::new(ip, port));
            streams.push((port, connect(&web.namespace, at, PATIENCE).expect("no gate yet").0));
        }
    }
    for subnet in &mut lab.clouds[cloud].view.subnets {
        subnet.security_groups = vec![gate];
    }
    lab.apply();
    let namespace = lab.dataplane.namespace(lab.place(cloud)).unwrap();
    assert_eq!(conntrack::revoke(&namespace, &lab.clouds[cloud].view).unwrap(), 2, "what is shut out ends");
    for (port, stream) in &mut streams {
        let patience = if *port == 22 { SILENCE } else { PATIENCE };
        assert_eq!(echoes(stream, patience), *port == 5432, "port {port}");
    }
    for ip in [db.v4(), db.v6()] {
        let to = |port| SocketAddr::new(ip, port);
        assert!(connect(&web.namespace, to(5432), PATIENCE).is_ok(), "{ip}: both gates let it pass");
        assert!(connect(&web.namespace, to(22), SILENCE).is_err(), "{ip}: the port alone lets it pass");
        assert!(!ping(&web.namespace, ip, SILENCE), "{ip}");
    }
    // The port's own groups are asked as before.
    lab.set_rules(cloud, own, out());
    lab.apply();
    assert!(connect(&web.namespace, SocketAddr::new(db.v4(), 5432), SILENCE).is_err());
    // A port that filters nothing passes no gate.
    for port in &mut lab.clouds[cloud].view.ports {
        port.port_security = false;
    }
    lab.apply();
    assert!(ping(&web.namespace, db.v4(), PATIENCE) && ping(&web.namespace, db.v6(), PATIENCE));
    // And the gate goes as it came.
    for port in &mut lab.clouds[cloud].view.ports {
        port.port_security = true;
    }
    lab.set_rules(cloud, own, open());
    lab.clouds[cloud].view.subnets.iter_mut().for_each(|subnet| subnet.security_groups.clear());
    lab.apply();
    assert!(ping(&web.namespace, db.v4(), PATIENCE) && ping(&web.namespace, db.v6(), PATIENCE));
}

#[test]
fn what_is_down_passes_nothing() {
    let mut lab = Lab::new();
    let cloud = lab.cloud(NetworkKind::Private, None);
    let group = lab.group(cloud, open());
    let a = lab.guest(cloud, 4, &[group]).configure();
    let b = lab.guest(cloud, 5, &[group]).configure();
    let reach = |lab: &Lab, expected: bool| {
        lab.apply();
        let patience = if expected { PATIENCE } else { SILENCE };
        for (from, to) in [(&a, &b), (&b, &a)] {
            for ip in [to.v4(), to.v6()] {
                assert_eq!(ping(&from.namespace, ip, patience), expected, "{ip}");
            }
        }
    };
    reach(&lab, true);
    lab.clouds[cloud].view.ports[1].admin_up = false;
    reach(&lab, false);
    lab.clouds[cloud].view.ports[1].admin_up = true;
    reach(&lab, true);
    lab.clouds[cloud].view.network.admin_up = false;
    reach(&lab, false);
    lab.clouds[cloud].view.network.admin_up = true;
    reach(&lab, true);
}

#[test]
fn a_router_stands_where_its_port_is() {
    let mut lab = Lab::new();
    lab.external(None, true);
    let cloud = lab.cloud(NetworkKind::Private, Some(["203.0.113.10", "2001:db8:f::10"]));
    let view = &mut lab.clouds[cloud].view;
    view.subnets.iter_mut().for_each(|subnet| subnet.gateway = None);
    view.routers[0].addresses = vec![address("10.0.0.9"), address("fd00:a::9")];
    let group = lab.group(cloud, open());
    let guest = lab.guest(cloud, 4, &[group]).configure_by("10.0.0.9");
    assert!(ping(&guest.namespace, address("10.0.0.9"), PATIENCE), "the router itself answers");
    assert!(ping(&guest.namespace, address("fd00:a::9"), PATIENCE));
    assert!(ping(&guest.namespace, address("198.51.100.9"), PATIENCE), "and leads out");
}

#[test]
fn several_addresses_of_a_port_and_pairs_without_security() {
    let mut lab = Lab::new();
    let cloud = lab.cloud(NetworkKind::Private, None);
    let group = lab.group(cloud, open());
    let a = lab.guest(cloud, 4, &[group]).configure();
    let b = lab.guest(cloud, 5, &[group]).configure();
    // A second address of the same subnet, by the port's record, and one that only a pair allows.
    let view = &mut lab.clouds[cloud].view;
    let mut second = view.ports[1].addresses[0];
    second.address = address("10.0.0.50");
    view.ports[1].addresses.push(second);
    view.ports[1].allowed_pairs = vec![AddressPair { net: "10.0.0.60/32".parse().unwrap(), mac: None }];
    lab.count_members();
    lab.apply();
    let inner = sys::netlink::Netlink::open(&b.namespace).unwrap();
    for extra in ["10.0.0.50/32", "10.0.0.60/32"] {
        inner.add_address("eth0", extra.parse().unwrap()).unwrap();
    }
    for ip in ["10.0.0.5", "10.0.0.50", "10.0.0.60"] {
        assert!(ping(&a.namespace, address(ip), PATIENCE), "{ip}");
        let out = run(&b.namespace, &["ping", "-n", "-c1", "-W", "5", "-I", ip, &a.v4().to_string()]);
        assert!(out.status.success(), "as {ip}: {}", text(&out));
    }
    lab.clouds[cloud].view.ports[1].addresses.pop();
    lab.clouds[cloud].view.ports[1].allowed_pairs.clear();
    lab.apply();
    for ip in ["10.0.0.50", "10.0.0.60"] {
        assert!(!ping(&a.namespace, address(ip), SILENCE), "{ip} is no longer the port's");
    }
    assert!(ping(&a.namespace, b.v4(), PATIENCE));
}
