//! Manners towards the host: published ports, the guard between its own networks, and leaving it as it was.

use crate::lab::*;
use model::{
    dataplane::{
        host,
        host::HostSettings,
        namespace::Place,
        publish::{Publication, publish},
    },
    network::NetworkKind,
    security_group::{Direction::*, Family::*, Peer, Protocol},
};
use node::network::{apply::Dataplane, host_record};
use std::net::{IpAddr, SocketAddr};
use sys::{netlink::Netlink, netns::NetNs};

/// Everything of the host that holm could have touched, as text.
fn state(host: &NetNs) -> String {
    let mut out = String::new();
    for argv in [
        &["nft", "list", "ruleset"][..],
        &["ip", "-d", "link"],
        &["ip", "address"],
        &["ip", "route", "show", "table", "all"],
        &["ip", "-6", "route", "show", "table", "all"],
        &["ip", "neigh", "show", "proxy"],
        &[
            "sh",
            "-c",
            "cd /proc/sys/net && grep -rs '' ipv4/ip_forward ipv4/conf ipv6/conf ipv4/neigh ipv6/neigh | sort",
        ],
    ] {
        out.push_str(&text(&run(host, argv)));
    }
    // Lifetimes and counters are nobody's doing.
    out.lines()
        .filter(|line| !line.contains("valid_lft") && !line.contains("stable_secret"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_host_is_left_as_it_was() {
    let mut lab = Lab::new();
    let before = state(&lab.host);
    lab.external(Some("lan0"), false);
    let cloud = lab.cloud(NetworkKind::Private, Some(["192.0.2.10", "2001:db8:ff::10"]));
    let group = lab.group(cloud, open());
    let a = lab.guest(cloud, 4, &[group]).configure();
    lab.floating("192.0.2.50", Some((cloud, &a.port)));
    lab.apply();
    lab.cloud(NetworkKind::HostOnly, None);
    lab.apply();
    assert!(ping(&lab.outside, address("192.0.2.50"), PATIENCE));
    assert_ne!(state(&lab.host), before);
    // Another daemon, that remembers nothing, takes everything away.
    let handles = lab.run.path().join("netns");
    let fresh =
        Dataplane::new(&handles, lab.host.run(NetNs::current).unwrap().unwrap(), HostSettings::default());
    lab.apply_with(&fresh);
    fresh.remove(Place::Host).unwrap();
    fresh.remove(Place::Host).unwrap();
    let after = state(&lab.host);
    for (old, new) in before.lines().zip(after.lines()) {
        assert_eq!(old, new);
    }
    assert_eq!(before, after);
}

#[test]
fn a_range_that_the_hosts_owner_routes_is_left_alone() {
    let mut lab = Lab::new();
    let here = Netlink::open(&lab.host).unwrap();
    let owners = sys::netlink::RouteTarget::Via {
        gateway: address("192.0.2.2"),
        device: Some("lan0".into()),
        onlink: false,
    };
    // The range of the network below, by way of the outside.
    let route = sys::netlink::Route::new("10.0.0.0/24".parse().unwrap(), owners.clone());
    here.replace_route(&route).unwrap();
    lab.cloud(NetworkKind::HostOnly, None);
    let routes_to = |range: &str| {
        let all = here.list_routes(sys::netlink::MAIN_TABLE).unwrap();
        let to = range.parse().unwrap();
        all.into_iter().filter(|r| r.destination == to).map(|r| r.target).collect::<Vec<_>>()
    };
    let has_gateway = || text(&run(&lab.host, &["ip", "-4", "address"])).contains("10.0.0.1/32");
    for _ in 0..2 {
        let left_out = lab.apply().pop().unwrap().left_out;
        assert_eq!(left_out, ["10.0.0.0/24".parse().unwrap()].into());
        assert_eq!(routes_to("10.0.0.0/24"), std::slice::from_ref(&owners));
        assert_eq!(routes_to("fd00:a::/64").len(), 1, "the other range is reached");
        assert!(!has_gateway());
    }
    // Once the owner's is gone, the next look finds the range free.
    here.delete_route(&route).unwrap();
    assert!(lab.apply().pop().unwrap().left_out.is_empty());
    assert_eq!(routes_to("10.0.0.0/24").len(), 1);
    assert!(has_gateway());
    // A daemon that remembers nothing knows its own route by the device.
    let handles = lab.run.path().join("netns");
    let fresh =
        Dataplane::new(&handles, lab.host.run(NetNs::current).unwrap().unwrap(), HostSettings::default());
    assert!(lab.apply_with(&fresh).pop().unwrap().left_out.is_empty());
}

#[test]
fn turning_forwarding_on_does_not_make_the_host_a_router() {
    let mut lab = Lab::new();
    // A second network of the host's owner.
    let second = NetNs::anonymous().unwrap();
    let (here, there) = (Netlink::open(&lab.host).unwrap(), Netlink::open(&second).unwrap());
    here.add_veth("lan1", "lan1", Some(&second)).unwrap();
    for (netlink, last) in [(&here, 1), (&there, 2)] {
        netlink.set_up("lan1").unwrap();
        netlink.add_address("lan1", format!("198.18.0.{last}/24").parse().unwrap()).unwrap();
    }
    let route = |to: &str, by: &str, device: &str| {
        let target = sys::netlink::RouteTarget::Via {
            gateway: address(by),
            device: Some(device.into()),
            onlink: true,
        };
        sys::netlink::Route::new(to.parse().unwrap(), target)
    };
    there.replace_route(&route("0.0.0.0/0", "198.18.0.1", "lan1")).unwrap();
    Netlink::open(&lab.outside).unwrap().replace_route(&route("198.18.0.0/24", "192.0.2.1", "lan0")).unwrap();
    lab.external(None, false);
    let cloud = lab.cloud(NetworkKind::Private, Some(["203.0.113.10", "2001:db8:f::10"]));
    let group = lab.group(cloud, open());
    let settings =
        HostSettings { guarded_interfaces: vec!["lan0".into(), "lan1".into()], ..HostSettings::default() };
    let handles = lab.run.path().join("netns");
    lab.dataplane = Dataplane::new(&handles, lab.host.run(NetNs::current).unwrap().unwrap(), settings);
    let a = lab.guest(cloud, 4, &[group]).configure();
    assert!(ping(&a.namespace, address("192.0.2.2"), PATIENCE), "instances reach the outside");
    assert!(!ping(&second, address("192.0.2.2"), SILENCE), "networks of the host stay apart");
    assert!(!ping(&lab.outside, address("198.18.0.2"), SILENCE));
    // An owner who had forwarding on before keeps it.
    let other = NetNs::anonymous().unwrap();
    sys::sysctl::write(&other, "net/ipv4/ip_forward", "1").unwrap();
    let found = host_record::discover(&other, "holm", &lab.run.path().join("none")).unwrap();
    assert!(found.guarded_interfaces.is_empty());
}

#[test]
fn a_published_port_obeys_the_group_and_keeps_the_client() {
    let mut lab = Lab::new();
    lab.external(None, false);
    let cloud = lab.cloud(NetworkKind::Private, Some(["203.0.113.10", "2001:db8:f::10"]));
    let mut rules = out();
    for family in [Ipv4, Ipv6] {
        rules.push(rule(Ingress, family, Some("tcp"), Some("80"), Peer::Any));
    }
    let group = lab.group(cloud, rules);
    let web = lab.guest(cloud, 4, &[group]).configure();
    let other = lab.guest(cloud, 5, &[group]).configure();
    lab.floating("203.0.113.50", Some((cloud, &web.port)));
    lab.floating("2001:db8:f::50", Some((cloud, &web.port)));
    lab.apply();
    let publish_all = |lab: &Lab, publications: &[Publication]| {
        let settings = lab.dataplane.settings();
        let mut plan = host::compile(settings, &lab.externals, &[]);
        publish(settings, publications, &mut plan);
        lab.dataplane.apply(&plan).unwrap_or_else(|e| panic!("{}", chain(&e)));
    };
    let outer: [(IpAddr, IpAddr, &str, &str, &str); 2] = [
        (address("203.0.113.50"), web.v4(), "192.0.2.1", "192.0.2.2", "127.0.0.1"),
        (address("2001:db8:f::50"), web.v6(), "2001:db8:ff::1", "2001:db8:ff::2", "::1"),
    ];
    let publication = |port, to: IpAddr, inner, at: Option<&str>| Publication {
        protocol: Protocol::TCP,
        address: at.map(address),
        port,
        to: SocketAddr::new(to, inner),
    };
    let all: Vec<Publication> = outer
        .iter()
        .flat_map(|(to, _, host, ..)| {
            [
                publication(8080, *to, 80, None),
                publication(8081, *to, 81, None),
                publication(8082, *to, 80, Some(host)),
            ]
        })
        .collect();
    publish_all(&lab, &all);
    for (_, own, host, client, loopback) in &outer {
        for port in [80, 81] {
            serve_tcp(&web.namespace, SocketAddr::new(*own, port));
        }
        let at = |port| SocketAddr::new(address(host), port);
        assert_eq!(
            connect(&lab.outside, at(8080), PATIENCE).expect("published").1,
            address(client),
            "client kept"
        );
        assert!(connect(&lab.outside, at(8081), SILENCE).is_err(), "the group does not allow port 81");
        assert!(connect(&lab.outside, at(8082), PATIENCE).is_ok(), "on one address");
        assert!(connect(&lab.host, at(8080), PATIENCE).is_ok(), "from the host by its address");
        // The kernel lets nothing leave ::1, whatever it is translated to; IPv6 is reached by the host's addresses.
        if own.is_ipv4() {
            let by_loopback = connect(&lab.host, SocketAddr::new(address(loopback), 8080), PATIENCE);
            assert!(by_loopback.is_ok(), "by loopback: {by_loopback:?}");
        }
        assert!(connect(&lab.host, SocketAddr::new(address(loopback), 8082), SILENCE).is_err(), "not there");
        assert!(connect(&other.namespace, at(8080), PATIENCE).is_ok(), "from a neighbour, over the host");
    }
    // Changed while the instance runs.
    let moved: Vec<Publication> = outer.iter().map(|(to, ..)| publication(9090, *to, 80, None)).collect();
    publish_all(&lab, &moved);
    for (_, _, host, ..) in &outer {
        assert!(connect(&lab.outside, SocketAddr::new(address(host), 9090), PATIENCE).is_ok());
        assert!(connect(&lab.outside, SocketAddr::new(address(host), 8080), SILENCE).is_err());
    }
}
