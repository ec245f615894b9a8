//! Several networks on one router, extra routes, errors on the way, and a pool that is part of a LAN.

use crate::lab::*;
use model::{
    dataplane::view::AttachedRouter,
    network::NetworkKind,
    port::AddressPair,
    security_group::{Direction::*, Family::*, Peer},
    subnet::HostRoute,
};
use std::{io::ErrorKind, net::SocketAddr, time::Duration};

/// Puts the second cloud's subnets on the first one's router.
fn peer(lab: &mut Lab, first: usize, second: usize) {
    let far: Vec<_> = lab.clouds[second].view.subnets.clone();
    let near: Vec<_> = lab.clouds[first].view.subnets.iter().map(|s| s.cidr).collect();
    let view = lab.clouds[first].router.as_mut().expect("router");
    view.subnets.extend(far.iter().map(|subnet| (subnet.clone(), 1500)));
    let router = view.router.clone();
    let addresses = far.iter().filter_map(|s| s.gateway).collect();
    lab.clouds[second].view.routers.push(AttachedRouter { router, addresses, far_ranges: near });
    lab.clouds[first].view.routers[0].far_ranges = far.iter().map(|s| s.cidr).collect();
}

fn set_ranges(lab: &mut Lab, cloud: usize, v4: &str, v6: &str) {
    for (subnet, (range, gateway)) in lab.clouds[cloud].view.subnets.iter_mut().zip([(v4, 1), (v6, 1)]) {
        subnet.cidr = range.parse().unwrap();
        subnet.gateway = model::address::nth(&subnet.cidr, gateway);
    }
}

#[test]
fn networks_on_one_router_reach_each_other_as_their_groups_say() {
    let mut lab = Lab::new();
    lab.external(None, false);
    let web = lab.cloud(NetworkKind::Private, Some(["203.0.113.10", "2001:db8:f::10"]));
    let db = lab.cloud(NetworkKind::Private, None);
    set_ranges(&mut lab, db, "10.0.1.0/24", "fd00:b::/64");
    peer(&mut lab, web, db);
    let web_group = lab.group(web, out());
    let mut rules = out();
    rules.push(rule(Ingress, Ipv4, Some("tcp"), Some("5432"), Peer::Net("10.0.0.0/24".parse().unwrap())));
    rules.push(rule(Ingress, Ipv6, Some("tcp"), Some("5432"), Peer::Net("fd00:a::/64".parse().unwrap())));
    let db_group = lab.group(db, rules);
    let client = lab.guest(web, 4, &[web_group]).configure();
    let server = lab.guest(db, 4, &[db_group]).configure_by("10.0.1.1");
    for ip in [server.v4(), server.v6()] {
        for port in [5432, 80] {
            serve_tcp(&server.namespace, SocketAddr::new(ip, port));
        }
        let (_, seen) = connect(&client.namespace, SocketAddr::new(ip, 5432), PATIENCE).expect("web to db");
        assert_eq!(seen, if ip.is_ipv4() { client.v4() } else { client.v6() }, "untranslated");
        assert!(connect(&client.namespace, SocketAddr::new(ip, 80), SILENCE).is_err(), "nothing else");
        assert!(!ping(&client.namespace, ip, SILENCE));
    }
    // Both leave by the same router.
    for (guest, name) in [(&client, "web"), (&server, "db")] {
        let at = serve_tcp(&lab.outside, SocketAddr::new(address("198.51.100.9"), 0));
        assert_eq!(connect(&guest.namespace, at, PATIENCE).expect(name).1, address("203.0.113.10"));
    }
    // The way shows the router.
    let trace =
        text(&run(&client.namespace, &["busybox", "traceroute", "-n", "-q1", "-w2", "-m4", "192.0.2.2"]));
    assert!(trace.contains("203.0.113.10"), "{trace}");
}

#[test]
fn an_extra_route_leads_to_an_instance_that_may_forward() {
    let mut lab = Lab::new();
    lab.external(None, false);
    let cloud = lab.cloud(NetworkKind::Private, Some(["203.0.113.10", "2001:db8:f::10"]));
    let group = lab.group(cloud, open());
    let client = lab.guest(cloud, 4, &[group]).configure();
    let gate = lab.guest(cloud, 5, &[group]).configure();
    let route = HostRoute { destination: "172.20.0.0/16".parse().unwrap(), next_hop: gate.v4() };
    lab.clouds[cloud].router.as_mut().unwrap().router.routes.push(route);
    lab.clouds[cloud].view.routers[0].router.routes.push(route);
    sys::netlink::Netlink::open(&gate.namespace)
        .unwrap()
        .add_address("lo", "172.20.0.1/32".parse().unwrap())
        .unwrap();
    lab.apply();
    assert!(
        !ping(&client.namespace, address("172.20.0.1"), SILENCE),
        "the answer's address is not the gate's own"
    );
    let view = &mut lab.clouds[cloud].view;
    let port = view.ports.iter_mut().find(|p| p.meta.id == gate.port.meta.id).unwrap();
    port.allowed_pairs.push(AddressPair { net: "172.20.0.0/16".parse().unwrap(), mac: None });
    lab.apply();
    assert!(ping(&client.namespace, address("172.20.0.1"), PATIENCE));
}

#[test]
fn errors_about_allowed_flows_come_back() {
    let mut lab = Lab::new();
    lab.external(None, false);
    let cloud = lab.cloud(NetworkKind::Private, Some(["203.0.113.10", "2001:db8:f::10"]));
    let group = lab.group(cloud, out());
    let a = lab.guest(cloud, 4, &[group]).configure();
    for to in ["192.0.2.2", "2001:db8:ff::2"] {
        // Nobody listens outside: the port unreachable message is let in as related, although no rule lets ICMP in.
        let error = ask_udp(&a.namespace, SocketAddr::new(address(to), 9), PATIENCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
    }
    // A smaller link on the way: the guest learns its size, through SNAT.
    let host = sys::netlink::Netlink::open(&lab.host).unwrap();
    host.set_mtu("lan0", 1400).unwrap();
    let big = run(&a.namespace, &["ping", "-n", "-c2", "-W1", "-M", "do", "-s", "1450", "192.0.2.2"]);
    assert!(text(&big).contains("mtu = 1400") || text(&big).contains("mtu=1400"), "{}", text(&big));
}

#[test]
fn a_family_without_a_way_out_is_refused_at_once() {
    let mut lab = Lab::new();
    lab.external(None, false);
    let cloud = lab.cloud(NetworkKind::Private, Some(["203.0.113.10", "2001:db8:f::10"]));
    lab.clouds[cloud].router.as_mut().unwrap().outside.as_mut().unwrap().addresses.pop();
    let group = lab.group(cloud, out());
    let a = lab.guest(cloud, 4, &[group]).configure();
    assert!(ping(&a.namespace, address("198.51.100.9"), PATIENCE));
    let error = connect(&a.namespace, "[2001:db8:99::9]:80".parse().unwrap(), PATIENCE).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable), "{error:?}");
}

#[test]
fn a_pool_on_the_lan_is_answered_for_by_the_host() {
    let mut lab = Lab::new();
    lab.external(Some("lan0"), false);
    let cloud = lab.cloud(NetworkKind::Private, Some(["192.0.2.10", "2001:db8:ff::10"]));
    let group = lab.group(cloud, open());
    let a = lab.guest(cloud, 4, &[group]).configure();
    lab.floating("192.0.2.50", Some((cloud, &a.port)));
    lab.floating("2001:db8:ff::50", Some((cloud, &a.port)));
    let outcome = lab.apply().pop().expect("the host's");
    assert!(outcome.announcements.contains(&("lan0".into(), address("192.0.2.50"))));
    let listener = sys::packet::FrameSocket::open(&lab.outside, "lan0", Some(0x0806)).unwrap();
    node::network::announce::announce(&lab.host, &outcome.announcements);
    let mut frame = [0; 128];
    // An ARP packet whose sender and target are the same address.
    while listener.receive(&mut frame).expect("hears the announcement") > 0 {
        if frame[28..32] == [192, 0, 2, 50] && frame[38..42] == [192, 0, 2, 50] {
            break;
        }
    }
    for to in ["192.0.2.50", "2001:db8:ff::50"] {
        assert!(ping(&lab.outside, address(to), PATIENCE), "{to}");
    }
    assert!(!ping(&lab.outside, address("192.0.2.51"), SILENCE), "others of the LAN are not ours");
    for (server, seen) in [("192.0.2.2", "192.0.2.50"), ("2001:db8:ff::2", "2001:db8:ff::50")] {
        let at = serve_tcp(&lab.outside, SocketAddr::new(address(server), 0));
        assert_eq!(connect(&a.namespace, at, PATIENCE).expect("out").1, address(seen));
    }
    // Released while the daemon was away: a fresh start withdraws the answer.
    let handles = lab.run.path().join("netns");
    let host = lab.host.run(sys::netns::NetNs::current).unwrap().unwrap();
    lab.dataplane = node::network::apply::Dataplane::new(&handles, host, Default::default());
    lab.externals[0].floating_ips.clear();
    lab.clouds[cloud].router.as_mut().unwrap().floating_ips.clear();
    lab.apply();
    let proxies = sys::netlink::Netlink::open(&lab.host).unwrap().proxy_neighbours("lan0").unwrap();
    assert!(!proxies.contains(&address("192.0.2.50")), "{proxies:?}");
    assert!(proxies.contains(&address("192.0.2.10")), "{proxies:?}");
}

#[test]
fn a_killed_daemon_heals_whatever_was_left() {
    let mut lab = Lab::new();
    lab.external(None, false);
    let cloud = lab.cloud(NetworkKind::Private, Some(["203.0.113.10", "2001:db8:f::10"]));
    let group = lab.group(cloud, open());
    let a = lab.guest(cloud, 4, &[group]).configure();
    let b = lab.guest(cloud, 5, &[group]).configure();
    let handles = lab.run.path().join("netns");
    let place = lab.place(cloud);
    let inside = lab.dataplane.namespace(place).unwrap();
    let netlink = sys::netlink::Netlink::open(&inside).unwrap();
    type Damage<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let damages: [Damage; 5] = [
        ("the firewall is gone", Box::new(|| sys::nft::apply(&inside, "delete table inet holm").unwrap())),
        (
            "a route is gone",
            Box::new(|| {
                let target = sys::netlink::RouteTarget::Device(b.port.device_name());
                netlink
                    .delete_route(&sys::netlink::Route::new("10.0.0.5/32".parse().unwrap(), target))
                    .unwrap();
            }),
        ),
        (
            "a stray route and a stray device",
            Box::new(|| {
                netlink.add_veth("stray0", "stray1", None).unwrap();
                let target = sys::netlink::RouteTarget::Device(b.port.device_name());
                netlink
                    .replace_route(&sys::netlink::Route::new("10.0.0.4/31".parse().unwrap(), target))
                    .unwrap();
            }),
        ),
        (
            "the link to the router is gone",
            Box::new(|| {
                let router = lab.clouds[cloud].router.as_ref().unwrap().router.meta.id;
                netlink.delete_link(&model::dataplane::network::router_device(router)).unwrap();
            }),
        ),
        (
            "a neighbour is gone",
            Box::new(|| netlink.delete_neighbour(&b.port.device_name(), b.v4()).unwrap()),
        ),
    ];
    for (what, damage) in &damages {
        damage();
        let host = lab.host.run(sys::netns::NetNs::current).unwrap().unwrap();
        let fresh = node::network::apply::Dataplane::new(&handles, host, Default::default());
        lab.apply_with(&fresh);
        fresh.sweep(place).unwrap();
        assert!(netlink.link("stray0").unwrap().is_none());
        assert!(ping(&a.namespace, b.v4(), PATIENCE), "{what}");
        assert!(ping(&a.namespace, b.v6(), PATIENCE), "{what}");
        assert!(ping(&a.namespace, address("198.51.100.9"), PATIENCE), "{what}");
    }
}

#[test]
fn a_device_whose_port_went_passes_nothing_and_stands_in_nobodys_way() {
    let mut lab = Lab::new();
    let cloud = lab.cloud(NetworkKind::Private, None);
    let group = lab.group(cloud, open());
    let a = lab.guest(cloud, 4, &[group]).configure();
    let b = lab.guest(cloud, 5, &[group]).configure();
    assert!(ping(&a.namespace, b.v4(), PATIENCE));
    let place = lab.place(cloud);
    let netlink = sys::netlink::Netlink::open(&lab.dataplane.namespace(place).unwrap()).unwrap();
    let index = || netlink.link(&b.port.device_name()).unwrap().map(|link| link.index);
    let first = index().expect("the port's device");
    let attachment = lab.clouds[cloud].view.attachments.remove(&b.port.meta.id).expect("it was attached");
    assert!(lab.apply().iter().any(|outcome| outcome.leaves));
    assert_eq!(index(), Some(first), "the kernel takes long to remove it: nobody waits for that");
    assert!(!ping(&a.namespace, b.v4(), Duration::from_millis(500)));
    assert!(!ping(&b.namespace, a.v4(), Duration::from_millis(500)));
    // The port is back before its old device went.
    lab.clouds[cloud].view.attachments.insert(b.port.meta.id, attachment);
    lab.apply();
    let second = index().expect("a device of its own");
    assert_ne!(first, second, "the other end of the old one is somewhere else");
    lab.dataplane.sweep(place).unwrap();
    assert_eq!(index(), Some(second));
    lab.clouds[cloud].view.attachments.remove(&b.port.meta.id);
    lab.apply();
    lab.dataplane.sweep(place).unwrap();
    assert_eq!(index(), None);
    lab.dataplane.sweep(place).unwrap();
}
