//! Routes, addresses and neighbours: every change twice, every deletion twice, and packets that take the way.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use ipnet::IpNet;
use sys::netlink::{MAIN_TABLE, Netlink, Route, RouteTarget, Rule};
use sys::netns::NetNs;
use sys::sysctl;

use crate::guard::{Pair, eventually};

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn via(gateway: &str, device: Option<&str>, onlink: bool) -> RouteTarget {
    RouteTarget::Via { gateway: ip(gateway), device: device.map(str::to_owned), onlink }
}

/// Sends a datagram from one namespace to an address and reads it in another.
fn passes(from: &NetNs, to: &NetNs, address: IpAddr) -> bool {
    let receiver = to.run(|| UdpSocket::bind((address, 0))).expect("ran").expect("bound");
    receiver.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
    let target = receiver.local_addr().expect("an address");
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sender = from.run(|| UdpSocket::bind(any)).expect("ran").expect("bound");
    let mut buffer = [0; 8];
    sender.send_to(b"hello", target).is_ok()
        && receiver.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == b"hello")
}

#[test]
fn links_are_made_changed_and_deleted_twice() {
    let namespace = NetNs::anonymous().expect("we are root");
    let other = NetNs::anonymous().expect("we are root");
    let netlink = Netlink::open(&namespace).expect("a socket");
    let other_netlink = Netlink::open(&other).expect("a socket");
    for _ in 0..2 {
        netlink.add_veth("here", "there", Some(&other)).expect("a pair");
        netlink.add_bridge("bridge0").expect("a bridge");
        netlink.set_mtu("here", 1400).expect("an MTU");
        netlink.set_mac("here", [2, 0x68, 0x6f, 0x6c, 0x6d, 1]).expect("a MAC");
        netlink.set_controller("here", Some("bridge0")).expect("a port");
        netlink.set_up("here").expect("up");
        other_netlink.set_up("there").expect("up");
    }
    let here = netlink.link("here").expect("asked").expect("there");
    assert_eq!((here.mtu, here.mac), (1400, Some([2, 0x68, 0x6f, 0x6c, 0x6d, 1])));
    assert_eq!((here.up, here.carrier, here.kind.as_deref()), (true, true, Some("veth")));
    let bridge = netlink.link("bridge0").expect("asked").expect("there");
    assert_eq!(here.controller, Some(bridge.index));
    let there = other_netlink.link("there").expect("asked").expect("there");
    assert_eq!(here.peer, Some(there.index));
    assert_eq!(netlink.links().expect("listed").len(), 3, "lo, here, bridge0");

    let error = netlink.add_bridge("here").expect_err("the name is a veth's");
    assert_eq!(error.errno(), Some(libc::EEXIST));
    netlink.set_controller("here", None).expect("released");
    netlink.set_down("here").expect("down");
    netlink.rename("here", "moved").expect("renamed");
    netlink.rename("here", "moved").expect("renamed before");
    assert!(netlink.rename("here", "nowhere").is_err());
    netlink.set_ns("moved", &other).expect("moved");
    assert!(netlink.link("moved").expect("asked").is_none());
    for _ in 0..2 {
        other_netlink.delete_link("moved").expect("deleted");
        netlink.delete_link("bridge0").expect("deleted");
    }
    assert!(other_netlink.link("there").expect("asked").is_none(), "the peer went too");
    let error = netlink.set_up("gone").expect_err("no such device");
    assert_eq!((error.errno(), error.object.as_str()), (Some(libc::ENODEV), "gone"));
}

#[test]
fn addresses_of_both_families_carry_packets_at_once() {
    let pair = Pair::new();
    for _ in 0..2 {
        pair.left_netlink.add_address("left", net("10.7.0.1/24")).expect("added");
        pair.left_netlink.add_address("left", net("fd07::1/64")).expect("added");
        pair.right_netlink.add_address("right", net("10.7.0.2/24")).expect("added");
        pair.right_netlink.add_address("right", net("fd07::2/64")).expect("added");
    }
    let addresses = pair.left_netlink.addresses("left").expect("listed");
    assert!(
        addresses.contains(&net("10.7.0.1/24")) && addresses.contains(&net("fd07::1/64")),
        "{addresses:?}"
    );
    pair.left_netlink.add_address("left", net("fe80::1/64")).expect("link-local ones too");
    assert!(pair.left_netlink.addresses("left").expect("listed").contains(&net("fe80::1/64")));
    // Learned by ARP and by neighbour discovery; no duplicate address detection is waited for.
    assert!(passes(&pair.left, &pair.right, ip("10.7.0.2")));
    assert!(passes(&pair.left, &pair.right, ip("fd07::2")));
    for _ in 0..2 {
        pair.left_netlink.delete_address("left", net("10.7.0.1/24")).expect("deleted");
        pair.left_netlink.delete_address("left", net("fd07::1/64")).expect("deleted");
        pair.left_netlink.delete_address("gone", net("fd07::1/64")).expect("no such device");
    }
    assert!(!pair.left_netlink.addresses("left").expect("listed").contains(&net("fd07::1/64")));
}

fn mac_of(netlink: &Netlink, device: &str) -> [u8; 6] {
    let link = netlink.link(device).expect("asked").expect("there");
    link.mac.expect("a MAC")
}

#[test]
fn a_routed_port_with_permanent_neighbours_carries_packets() {
    let pair = Pair::new();
    pair.right_netlink.add_address("right", net("10.8.0.2/32")).expect("added");
    pair.left_netlink.add_address("left", net("10.99.0.1/32")).expect("added");
    // The guest's side: everything by way of a gateway that no prefix contains.
    let default = Route::new(net("0.0.0.0/0"), via("169.254.0.1", Some("right"), true));
    let port = Route::new(net("10.8.0.2/32"), RouteTarget::Device("left".into()));
    for _ in 0..2 {
        pair.right_netlink.replace_route(&default).expect("default route");
        pair.left_netlink.replace_route(&port).expect("port route");
    }
    assert_eq!(pair.right_netlink.list_routes(MAIN_TABLE).expect("listed").first(), Some(&default));
    let mac = mac_of(&pair.left_netlink, "left");
    let right_mac = mac_of(&pair.right_netlink, "right");
    for _ in 0..2 {
        pair.right_netlink.replace_neighbour("right", ip("169.254.0.1"), mac).expect("neighbour");
        pair.left_netlink.replace_neighbour("left", ip("10.8.0.2"), right_mac).expect("neighbour");
        pair.left_netlink.replace_neighbour("left", ip("fd08::2"), right_mac).expect("neighbour");
    }
    assert!(passes(&pair.left, &pair.right, ip("10.8.0.2")));
    assert!(passes(&pair.right, &pair.left, ip("10.99.0.1")));
    let neighbours = pair.left_netlink.neighbours("left").expect("listed");
    let permanent: Vec<_> = neighbours.iter().filter(|neighbour| neighbour.permanent).collect();
    assert!(
        permanent
            .iter()
            .any(|neighbour| neighbour.address == ip("10.8.0.2") && neighbour.mac == Some(right_mac))
    );
    for _ in 0..2 {
        pair.left_netlink.delete_neighbour("left", ip("10.8.0.2")).expect("deleted");
        pair.left_netlink.delete_neighbour("gone", ip("10.8.0.2")).expect("no such device");
    }
    let rest = pair.left_netlink.neighbours("left").expect("listed");
    assert!(
        !rest.iter().any(|neighbour| neighbour.permanent && neighbour.address == ip("10.8.0.2")),
        "{rest:?}"
    );
}

#[test]
fn proxy_neighbours_answer_for_addresses_behind_us() {
    let pair = Pair::new();
    pair.right_netlink.add_address("right", net("10.9.0.2/24")).expect("added");
    pair.right_netlink.add_address("right", net("fd09::2/64")).expect("added");
    // `left` owns the addresses only on loopback, so without a proxy entry nobody answers on the link.
    for (address, prefix) in [("10.9.0.77", "10.9.0.77/32"), ("fd09::77", "fd09::77/128")] {
        pair.left_netlink.add_address("lo", net(prefix)).expect("added");
        for _ in 0..2 {
            pair.left_netlink.add_proxy_neighbour("left", ip(address)).expect("a proxy");
        }
    }
    sysctl::write_all(
        &pair.left,
        [
            ("net/ipv4/conf/left/proxy_arp", "0"),
            ("net/ipv4/conf/left/arp_ignore", "2"),
            ("net/ipv4/conf/all/forwarding", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv6/conf/left/proxy_ndp", "1"),
            ("net/ipv4/neigh/left/proxy_delay", "0"),
            ("net/ipv6/neigh/left/proxy_delay", "0"),
        ],
    )
    .expect("set");
    assert_eq!(sysctl::read(&pair.left, "net/ipv4/conf/left/arp_ignore").expect("read"), "2");
    let mut proxies = pair.left_netlink.proxy_neighbours("left").expect("listed");
    proxies.sort();
    assert_eq!(proxies, [ip("10.9.0.77"), ip("fd09::77")]);
    assert!(
        pair.left_netlink
            .neighbours("left")
            .expect("listed")
            .iter()
            .all(|entry| entry.address != ip("10.9.0.77"))
    );
    // The answer comes from a link-local address, which the kernel first checks for duplicates for a second or two.
    eventually("neighbour discovery by proxy", || passes(&pair.right, &pair.left, ip("fd09::77")));
    for _ in 0..2 {
        pair.left_netlink.delete_proxy_neighbour("left", ip("10.9.0.77")).expect("deleted");
        pair.left_netlink.delete_proxy_neighbour("left", ip("fd09::77")).expect("deleted");
    }
    assert_eq!(pair.left_netlink.proxy_neighbours("left").expect("listed"), Vec::<IpAddr>::new());
}

/// Every way of a route is replaced by every other, in both families, and each is found alone afterwards.
#[test]
fn any_route_replaces_any_other() {
    let pair = Pair::new();
    let netlink = &pair.left_netlink;
    netlink.add_veth("second", "peer", None).expect("a pair");
    for device in ["second", "peer"] {
        netlink.set_up(device).expect("up");
    }
    for (destination, gateway) in
        [("10.20.0.0/16", "10.7.0.9"), ("fd20::/48", "fd07::9"), ("::/0", "fd07::9")]
    {
        let targets = [
            RouteTarget::Device("left".into()),
            RouteTarget::Device("second".into()),
            via(gateway, Some("left"), true),
            via(gateway, Some("second"), true),
            RouteTarget::Unreachable,
            RouteTarget::Blackhole,
        ];
        for table in [MAIN_TABLE, 1007] {
            for first in &targets {
                for second in &targets {
                    let route = |target: &RouteTarget| Route {
                        table,
                        ..Route::new(net(destination), target.clone())
                    };
                    netlink.replace_route(&route(first)).expect("first");
                    netlink.replace_route(&route(second)).expect("second");
                    let found = netlink.list_routes(table).expect("listed");
                    let found: Vec<_> =
                        found.iter().filter(|route| route.destination == net(destination)).collect();
                    assert_eq!(found.len(), 1, "{first:?} then {second:?}: {found:?}");
                    assert_eq!(&found[0].target, second, "{first:?} then {second:?}");
                    netlink.delete_route(&route(second)).expect("deleted");
                    netlink.delete_route(&route(second)).expect("deleted before");
                    let left = netlink.list_routes(table).expect("listed");
                    assert!(left.iter().all(|route| route.destination != net(destination)), "{left:?}");
                }
            }
        }
    }
}

#[test]
fn routes_keep_metric_source_and_a_gateway_of_the_other_family() {
    let pair = Pair::new();
    let netlink = &pair.left_netlink;
    netlink.add_address("left", net("10.7.0.1/24")).expect("added");
    let target = via("fe80::1", Some("left"), true);
    let route = Route { metric: 50, source: Some(ip("10.7.0.1")), ..Route::new(net("10.30.1.7/16"), target) };
    netlink.replace_route(&route).expect("replaced");
    let worse =
        Route { metric: 60, source: None, ..Route::new(net("10.30.0.0/16"), RouteTarget::Unreachable) };
    netlink.replace_route(&worse).expect("replaced");
    let found = netlink.list_routes(MAIN_TABLE).expect("listed");
    assert!(found.contains(&route) && found.contains(&worse), "two metrics are two routes: {found:?}");
    let impossible = Route::new(net("fd30::/64"), via("10.7.0.9", None, false));
    assert!(netlink.replace_route(&impossible).is_err());
    let lost = Route::new(net("10.40.0.0/16"), RouteTarget::Device("gone".into()));
    assert_eq!(netlink.replace_route(&lost).expect_err("no device").errno(), Some(libc::ENODEV));
    netlink.delete_route(&lost).expect("no device, no route");
    let error = netlink
        .replace_route(&Route::new(net("10.41.0.0/16"), via("192.0.2.1", None, false)))
        .expect_err("the gateway is nowhere");
    assert!(error.explanation.is_some_and(|text| text.contains("gateway")), "the kernel's words are kept");
}

#[test]
fn a_socket_serves_many_threads_and_large_tables() {
    let namespace = NetNs::anonymous().expect("we are root");
    let netlink = Netlink::open(&namespace).expect("a socket");
    netlink.set_up("lo").expect("up");
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let netlink = &netlink;
            scope.spawn(move || {
                for number in 0..250u32 {
                    let destination = net(&format!("10.{thread}.{}.{}/32", number / 256, number % 256));
                    netlink
                        .replace_route(&Route::new(destination, RouteTarget::Blackhole))
                        .expect("replaced");
                }
            });
        }
    });
    assert_eq!(netlink.list_routes(MAIN_TABLE).expect("listed").len(), 1000);
}

#[test]
fn many_routes_are_applied_at_once_and_only_differences_again() {
    let pair = Pair::new();
    let port = |number: u32, device: &str| {
        let target = RouteTarget::Device(device.into());
        let v6 = net(&format!("fd40::{number:x}/128"));
        let v4 = net(&format!("10.40.{}.{}/32", number / 256, number % 256));
        [Route::new(v4, target.clone()), Route { table: 7, ..Route::new(v6, target) }]
    };
    let mut routes: Vec<Route> = (0..500).flat_map(|number| port(number, "left")).collect();
    pair.left_netlink.replace_routes(&routes).expect("applied");
    routes[10].target = RouteTarget::Unreachable;
    routes[11].target = RouteTarget::Blackhole;
    pair.left_netlink.replace_routes(&routes).expect("applied again");
    let mut found = pair.left_netlink.list_routes(MAIN_TABLE).expect("listed");
    found.extend(pair.left_netlink.list_routes(7).expect("listed"));
    found.retain(|route| routes.iter().any(|wanted| wanted.destination == route.destination));
    // The kernel tells the metric that it chose.
    found.iter_mut().for_each(|route| route.metric = 0);
    found.sort();
    routes.sort();
    assert_eq!(found, routes);
}

/// Sends a datagram from one address to another.
fn passes_from(from: &NetNs, source: IpAddr, to: &NetNs, address: IpAddr) -> bool {
    let receiver = to.run(|| UdpSocket::bind((address, 0))).expect("ran").expect("bound");
    receiver.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
    let target = receiver.local_addr().expect("an address");
    let sender = from.run(|| UdpSocket::bind((source, 0))).expect("ran").expect("bound");
    sender.send_to(b"hello", target).is_ok() && receiver.recv(&mut [0; 8]).is_ok()
}

#[test]
fn a_rule_leads_what_one_address_sends_by_a_table_of_its_own() {
    let pair = Pair::new();
    for (all, near, far) in
        [("0.0.0.0/0", "10.9.0.1/32", "10.9.9.9/32"), ("::/0", "fd09::1/128", "fd09::9:9/128")]
    {
        pair.left_netlink.add_address("left", net(near)).expect("added");
        pair.right_netlink.add_address("right", net(far)).expect("added");
        let back = Route::new(net(near), RouteTarget::Device("right".into()));
        pair.right_netlink.replace_route(&back).expect("the way back");
        // The main table leads nowhere; the rule's does.
        let nowhere = Route::new(net(all), RouteTarget::Unreachable);
        pair.left_netlink.replace_route(&nowhere).expect("a refusal");
        let way = Route { table: 1001, ..Route::new(net(all), RouteTarget::Device("left".into())) };
        pair.left_netlink.replace_route(&way).expect("the table's route");
        let rule = Rule { source: net(near), table: 1001, priority: 1000 };
        for _ in 0..2 {
            pair.left_netlink.add_rule(&rule).expect("added");
        }
        let passes = || passes_from(&pair.left, net(near).addr(), &pair.right, net(far).addr());
        assert!(passes(), "{rule}");
        for _ in 0..2 {
            pair.left_netlink.delete_rule(&rule).expect("deleted");
        }
        assert!(!passes(), "without {rule}");
    }
}
