//! Networks and all in them: what is asked together is had together or not at all, and names that are shared.

use crate::cloud;
use control::{
    Caller, Control,
    address_scope::NewAddressScope,
    network::{Joined, NewNetwork},
    port::{FixedAsked, NewPort, PortChange},
    router::{GatewayAsked, InterfaceAsked, NewRouter, RouterChange},
    security_group::{NewRule, NewSecurityGroup},
    subnet::NewSubnet,
    subnet_pool::{NewSubnetPool, PoolAsked},
};
use model::{
    error::Code,
    network::{Network, NetworkKind},
    port::{Device, Port},
    quota::Resource,
    router::Router,
    security_group::Direction,
    subnet::{HostRoute, Ipv6Mode, Subnet},
};
use std::net::IpAddr;

fn subnet(name: &str, network: &str, cidr: &str) -> NewSubnet {
    NewSubnet {
        name: name.into(),
        network: network.into(),
        cidr: cidr.into(),
        dhcp: true,
        no_router: true,
        ..NewSubnet::default()
    }
}

async fn network(control: &Control, caller: &Caller, name: &str) -> Network {
    control.create_network(caller, NewNetwork::of_kind(name, NetworkKind::Private)).await.unwrap()
}

fn fixed(subnet: Option<&str>, address: Option<&str>) -> FixedAsked {
    FixedAsked { subnet: subnet.map(Into::into), address: address.map(|a| a.parse().unwrap()) }
}

fn addresses(port: &Port) -> Vec<String> {
    port.addresses.iter().map(|fixed| fixed.address.to_string()).collect()
}

#[tokio::test]
async fn names_are_unique_here_and_shared_where_a_door_says_so() {
    let (control, caller) = cloud().await;
    let first = network(&control, &caller, "net").await;
    let again = NewNetwork::of_kind("net", NetworkKind::Private);
    assert_eq!(control.create_network(&caller, again.clone()).await.unwrap_err().code, Code::Taken);
    let lax = control.with_shared_names();
    let second = lax.create_network(&caller, again.clone()).await.unwrap();
    let third = lax.create_network(&caller, again).await.unwrap();
    let error = control.find::<Network>(&caller, "net").unwrap_err();
    assert_eq!(error.code, Code::Conflict, "who asks by name is told: {error}");
    // The one that holds the name keeps it from others until it goes; the rest hold nothing.
    lax.delete_network(&caller, &third.meta.id.to_string(), Joined::Refuse).await.unwrap();
    let taken = NewNetwork::of_kind("net", NetworkKind::Private);
    assert_eq!(control.create_network(&caller, taken.clone()).await.unwrap_err().code, Code::Taken);
    control.delete_network(&caller, &first.meta.id.to_string(), Joined::Refuse).await.unwrap();
    assert_eq!(control.find::<Network>(&caller, "net").unwrap().record.meta.id, second.meta.id);
    control.create_network(&caller, taken).await.unwrap();
    let nameless = NewNetwork::of_kind("", NetworkKind::Private);
    let made = lax.create_network(&caller, nameless.clone()).await.unwrap();
    assert_eq!(made.meta.name.as_str(), format!("network-{}", made.meta.id.short()));
    assert_eq!(control.create_network(&caller, nameless).await.unwrap_err().code, Code::Invalid);
}

#[tokio::test]
async fn many_are_made_at_once_or_none() {
    let (control, caller) = cloud().await;
    network(&control, &caller, "net").await;
    let (_, before) = control.quota(caller.project);
    let bad = [subnet("a", "net", "10.1.0.0/24"), subnet("b", "net", "10.1.0.128/25")];
    let error = control.create_subnets(&caller, &bad).await.unwrap_err();
    assert!(error.message.contains("overlaps"), "{error}");
    assert!(control.find::<Subnet>(&caller, "a").is_err());
    let good = [subnet("a", "net", "10.1.0.0/24"), subnet("b", "net", "10.1.1.0/24")];
    assert_eq!(control.create_subnets(&caller, &good).await.unwrap().len(), 2);

    let port = |address: &str| NewPort {
        network: Some("net".into()),
        fixed: Some(vec![fixed(None, Some(address))]),
        ..NewPort::default()
    };
    let twice = [port("10.1.0.9"), port("10.1.0.9")];
    assert_eq!(control.create_ports(&caller, &twice).await.unwrap_err().code, Code::Taken);
    let free = NewPort { network: Some("net".into()), ..NewPort::default() };
    let many = vec![free; 20];
    let made = control.create_ports(&caller, &many).await.unwrap();
    let mut all: Vec<String> = made.iter().flat_map(addresses).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 20, "each has an address of its own");
    control
        .set_quota(&caller, "default", &[(Resource::Ports, Some(before.of(Resource::Ports) + 21))])
        .await
        .unwrap();
    assert_eq!(control.create_ports(&caller, &many[..2]).await.unwrap_err().code, Code::QuotaExceeded);
    control.create_ports(&caller, &many[..1]).await.unwrap();
    let networks = ["x", "y", "x"].map(|name| NewNetwork::of_kind(name, NetworkKind::Private));
    assert!(control.create_networks(&caller, &networks).await.is_err());
    assert!(control.find::<Network>(&caller, "y").is_err());
}

#[tokio::test]
async fn a_port_has_the_addresses_that_are_asked_for() {
    let (control, caller) = cloud().await;
    network(&control, &caller, "net").await;
    control.create_subnet(&caller, subnet("a", "net", "10.1.0.0/28")).await.unwrap();
    control.create_subnet(&caller, subnet("b", "net", "10.1.1.0/24")).await.unwrap();
    let slaac = NewSubnet { ipv6_mode: Some(Ipv6Mode::Slaac), ..subnet("six", "net", "fd00:1::/64") };
    control.create_subnet(&caller, slaac).await.unwrap();
    let new =
        |fixed: Option<Vec<FixedAsked>>| NewPort { network: Some("net".into()), fixed, ..NewPort::default() };
    let plain = control.create_port(&caller, new(None)).await.unwrap();
    let follows = plain.mac.slaac_address("fd00:1::".parse().unwrap()).to_string();
    assert_eq!(addresses(&plain)[1], follows, "one of each family, the second by the MAC");
    for (asked, code) in [
        (fixed(None, None), Code::Invalid),
        (fixed(Some("b"), Some("10.1.0.9")), Code::Invalid),
        (fixed(None, Some("10.9.0.9")), Code::Invalid),
        (fixed(None, Some("fd00:1::9")), Code::Invalid),
        (fixed(None, Some("10.1.0.0")), Code::Invalid),
        (fixed(Some("nowhere"), None), Code::NotFound),
        (fixed(None, Some(&addresses(&plain)[0])), Code::Taken),
    ] {
        let error = control.create_port(&caller, new(Some(vec![asked.clone()]))).await.unwrap_err();
        assert_eq!(error.code, code, "{asked:?}: {error}");
    }
    // The first one may have any address of the range.
    let free: Vec<String> =
        (4..9).map(|n| format!("10.1.0.{n}")).filter(|a| *a != addresses(&plain)[0]).collect();
    let (one, other) = (free[0].as_str(), free[1].as_str());
    let asked = vec![fixed(Some("b"), None), fixed(None, Some(one)), fixed(Some("b"), None)];
    let port = control.create_port(&caller, new(Some(asked))).await.unwrap();
    assert_eq!(port.addresses.len(), 3);
    assert_eq!(addresses(&port).iter().filter(|a| a.starts_with("10.1.1.")).count(), 2);
    // Those that stay are kept, those that go are free at once.
    let id = port.meta.id.to_string();
    let kept = addresses(&port).into_iter().find(|a| a.starts_with("10.1.1.")).unwrap();
    let change = PortChange {
        fixed: Some(vec![fixed(Some("b"), None), fixed(None, Some(other))]),
        mac: Some("02:00:00:00:00:09".parse().unwrap()),
        ..PortChange::default()
    };
    let changed = control
        .update_port(&caller, &id, &change, |port| {
            port.admin_up = false;
            Ok(())
        })
        .await
        .unwrap();
    assert!(addresses(&changed).contains(&other.to_string()) && !changed.admin_up);
    assert!(addresses(&port).iter().any(|a| addresses(&changed).contains(a)), "{kept}");
    assert_eq!(changed.mac.to_string(), "02:00:00:00:00:09");
    control.create_port(&caller, new(Some(vec![fixed(None, Some(one))]))).await.unwrap();
    let none = control.create_port(&caller, new(Some(vec![]))).await.unwrap();
    assert!(none.addresses.is_empty());
    // A full subnet leaves its place to the next one.
    let mut last = plain;
    for _ in 0..14 {
        last = control.create_port(&caller, new(None)).await.unwrap();
    }
    assert!(addresses(&last)[0].starts_with("10.1.1."), "{:?}", addresses(&last));
}

#[tokio::test]
async fn a_router_is_changed_in_one_go() {
    let (control, caller) = cloud().await;
    network(&control, &caller, "net").await;
    control.create_subnet(&caller, subnet("a", "net", "10.1.0.0/24")).await.unwrap();
    let route = |to: &str, over: &str| HostRoute {
        destination: to.parse().unwrap(),
        next_hop: over.parse::<IpAddr>().unwrap(),
    };
    let pool = control.default_external().unwrap().record.meta.id;
    let taken = control.taken_addresses(pool);
    let outer: Vec<String> = (2..14)
        .map(|last| format!("203.0.113.{last}"))
        .filter(|text| !taken.contains(&text.parse().unwrap()))
        .collect();
    let new = NewRouter {
        name: "edge".into(),
        gateway: Some(GatewayAsked {
            fixed: Some(vec![fixed(None, Some(&outer[0]))]),
            ..GatewayAsked::default()
        }),
        interfaces: vec!["a".into()],
        routes: vec![route("192.168.0.0/24", "10.1.0.7")],
        ..NewRouter::default()
    };
    let stray = NewRouter { routes: vec![route("192.168.0.0/24", "10.77.0.1")], ..new.clone() };
    assert_eq!(control.create_router(&caller, &stray).await.unwrap_err().field.as_deref(), Some("routes"));
    let router = control.create_router(&caller, &new).await.unwrap();
    let port = control.get::<Port>(router.gateway.unwrap().port).unwrap().record.clone();
    assert_eq!(addresses(&port), outer[..1]);
    // The same way out under another address keeps the port.
    let moved = RouterChange {
        gateway: Some(Some(GatewayAsked {
            snat: Some(false),
            fixed: Some(vec![fixed(None, Some(&outer[1]))]),
            ..GatewayAsked::default()
        })),
        ..RouterChange::default()
    };
    let next = control.update_router(&caller, "edge", &moved, |_| Ok(())).await.unwrap().gateway.unwrap();
    assert_eq!((next.port, next.snat), (port.meta.id, false));
    assert_eq!(addresses(&control.get::<Port>(next.port).unwrap().record), outer[1..2]);
    // A change that fails in its second part leaves the first undone.
    let half = RouterChange { gateway: Some(None), routes: Some(vec![route("1.2.3.0/24", "10.9.9.9")]) };
    assert!(control.update_router(&caller, "edge", &half, |_| Ok(())).await.is_err());
    assert!(control.find::<Router>(&caller, "edge").unwrap().record.gateway.is_some());
}

#[tokio::test]
async fn a_router_joins_by_subnet_or_by_port() {
    let (control, caller) = cloud().await;
    network(&control, &caller, "net").await;
    control.create_subnet(&caller, subnet("a", "net", "10.1.0.0/24")).await.unwrap();
    control.create_subnet(&caller, subnet("b", "net", "10.1.1.0/24")).await.unwrap();
    let new = NewRouter {
        name: "edge".into(),
        interfaces: vec!["a".into()],
        routes: vec![HostRoute {
            destination: "192.168.0.0/24".parse().unwrap(),
            next_hop: "10.1.0.7".parse().unwrap(),
        }],
        ..NewRouter::default()
    };
    control.create_router(&caller, &new).await.unwrap();
    let by = |subnet: &str| InterfaceAsked::Subnet(subnet.into());
    let error = control.remove_router_interface(&caller, "edge", &by("a")).await.unwrap_err();
    assert_eq!(error.code, Code::InUse, "a route leads through it: {error}");
    let second = NewRouter { name: "second".into(), ..NewRouter::default() };
    control.create_router(&caller, &second).await.unwrap();
    let error = control.add_router_interface(&caller, "second", &by("a")).await.unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (Code::Taken, Some("subnet")), "the gateway is taken");
    let port = NewPort {
        name: "inner".into(),
        network: Some("net".into()),
        fixed: Some(vec![fixed(None, Some("10.1.0.40"))]),
        ..NewPort::default()
    };
    control.create_port(&caller, port).await.unwrap();
    let asked = InterfaceAsked::Port("inner".into());
    let joined = control.add_router_interface(&caller, "second", &asked).await.unwrap();
    assert_eq!(joined.interfaces.len(), 1);
    let inner = control.find::<Port>(&caller, "inner").unwrap().record.clone();
    assert_eq!((inner.device, inner.port_security), (Device::RouterInterface(joined.meta.id), false));
    // A router's port that gets an address of another subnet joins that one too.
    let both = PortChange {
        fixed: Some(vec![fixed(None, Some("10.1.0.40")), fixed(Some("b"), None)]),
        ..PortChange::default()
    };
    control.update_port(&caller, "inner", &both, |_| Ok(())).await.unwrap();
    assert_eq!(control.find::<Router>(&caller, "second").unwrap().record.interfaces.len(), 2);
    let error = control.delete_subnet(&caller, "b", Joined::Refuse).await.unwrap_err();
    assert_eq!(error.code, Code::InUse);
    control.delete_subnet(&caller, "b", Joined::Remove).await.unwrap();
    assert_eq!(control.find::<Router>(&caller, "second").unwrap().record.interfaces.len(), 1);
    assert_eq!(addresses(&control.find::<Port>(&caller, "inner").unwrap().record), ["10.1.0.40"]);
    let (left, gone) = control.remove_router_interface(&caller, "second", &asked).await.unwrap();
    assert_eq!((left.interfaces.len(), gone.len()), (0, 1));
    assert!(control.find::<Port>(&caller, "inner").is_err());
    assert_eq!(control.delete_network(&caller, "net", Joined::Refuse).await.unwrap_err().code, Code::InUse);
    control.delete_network(&caller, "net", Joined::Remove).await.unwrap();
}

#[tokio::test]
async fn subnets_are_cut_from_pools_and_scopes_keep_pools_apart() {
    let (control, caller) = cloud().await;
    let scope = NewAddressScope { name: "space".into(), ipv4: true, ..NewAddressScope::default() };
    control.create_address_scope(&caller, scope).await.unwrap();
    let pool = |name: &str, range: &str| NewSubnetPool {
        name: name.into(),
        ranges: vec![range.parse().unwrap()],
        default_prefix_len: Some(26),
        min_prefix_len: Some(20),
        scope: Some("space".into()),
        quota: Some(256),
        ..NewSubnetPool::default()
    };
    control.create_subnet_pool(&caller, pool("pool", "10.64.0.0/22")).await.unwrap();
    let error = control.create_subnet_pool(&caller, pool("other", "10.64.1.0/24")).await.unwrap_err();
    assert_eq!(error.code, Code::Conflict, "{error}");
    assert_eq!(control.delete_address_scope(&caller, "space").await.unwrap_err().code, Code::InUse);
    let cut = |name: &str, network: &str| NewSubnet {
        name: name.into(),
        network: network.into(),
        pool: Some(PoolAsked { pool: Some("pool".into()), ..PoolAsked::default() }),
        dhcp: true,
        no_router: true,
        ..NewSubnet::default()
    };
    for name in ["one", "two"] {
        network(&control, &caller, name).await;
    }
    // Of racing cuts none gets what another has.
    let racers: Vec<_> = (0..4)
        .map(|n| {
            let (control, caller) = (control.clone(), caller.clone());
            let new = cut(&format!("s{n}"), if n % 2 == 0 { "one" } else { "two" });
            tokio::spawn(async move { control.create_subnet(&caller, new).await.unwrap().cidr })
        })
        .collect();
    let mut all = vec![];
    for racer in racers {
        all.push(racer.await.unwrap().to_string());
    }
    all.sort();
    assert_eq!(all, ["10.64.0.0/26", "10.64.0.128/26", "10.64.0.192/26", "10.64.0.64/26"]);
    let error = control.create_subnet(&caller, cut("more", "one")).await.unwrap_err();
    assert_eq!(error.code, Code::QuotaExceeded, "{error}");
    assert_eq!(control.delete_subnet_pool(&caller, "pool").await.unwrap_err().code, Code::InUse);
    let grow = |range: &'static str| {
        control.update_subnet_pool(&caller, "pool", None, move |pool| {
            pool.ranges = vec![range.parse().unwrap()];
            pool.quota = None;
            Ok(())
        })
    };
    assert_eq!(grow("10.64.0.0/24").await.unwrap_err().field.as_deref(), Some("ranges"));
    assert_eq!(grow("10.64.0.0/21").await.unwrap().ranges[0].to_string(), "10.64.0.0/21");
    let exact = NewSubnet { cidr: "10.64.7.0/26".into(), ..cut("exact", "one") };
    assert_eq!(control.create_subnet(&caller, exact).await.unwrap().cidr.to_string(), "10.64.7.0/26");
    let outside = NewSubnet { cidr: "10.65.0.0/26".into(), ..cut("outside", "one") };
    assert_eq!(control.create_subnet(&caller, outside).await.unwrap_err().code, Code::Invalid);
}

#[tokio::test]
async fn a_group_of_a_subnet_stays_while_the_subnet_has_it() {
    let (control, caller) = cloud().await;
    let rule = |port: &str| NewRule {
        direction: Direction::Ingress,
        family: None,
        protocol: Some("6".into()),
        ports: Some(port.into()),
        icmp: None,
        net: None,
        group: None,
        description: String::new(),
    };
    let bad = NewSecurityGroup { rules: vec![rule("80"), rule("0")], ..NewSecurityGroup::named("gate") };
    let error = control.create_security_group(&caller, &bad).await.unwrap_err();
    assert!(error.field.is_some_and(|f| f.starts_with("rules[1]")));
    let good = NewSecurityGroup { rules: vec![rule("80")], closed: true, ..NewSecurityGroup::named("gate") };
    let group = control.create_security_group(&caller, &good).await.unwrap();
    assert_eq!(group.rules.iter().map(|r| r.protocol_text().unwrap()).collect::<Vec<_>>(), ["6", "6"]);
    let pair = [("gate".to_string(), rule("81")), ("gate".to_string(), rule("81"))];
    assert_eq!(control.add_rules(&caller, &pair).await.unwrap_err().code, Code::Taken, "all or none");
    assert_eq!(control.add_rules(&caller, &pair[..1]).await.unwrap().len(), 2);

    network(&control, &caller, "net").await;
    let gated = NewSubnet { security_groups: vec!["gate".into()], ..subnet("s", "net", "10.1.0.0/24") };
    control.create_subnet(&caller, gated).await.unwrap();
    assert_eq!(control.delete_security_group(&caller, "gate").await.unwrap_err().code, Code::InUse);
    control.update_subnet(&caller, "s", Some(&[]), |_| Ok(())).await.unwrap();
    control.delete_security_group(&caller, "gate").await.unwrap();
}
