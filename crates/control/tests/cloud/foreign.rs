//! What members may not: take of the host what is its own, and speak for others in networks that are not theirs.

use crate::cloud;
use control::{
    Caller, Control, Role,
    network::NewNetwork,
    port::{FixedAsked, NewPort, PortChange},
    router::{GatewayAsked, InterfaceAsked, NewRouter, RouterChange},
    subnet::NewSubnet,
};
use model::{
    error::Code,
    network::{External, Network, NetworkKind},
    port::{AddressPair, Port},
    router::Router,
    subnet::Subnet,
};

/// A cloud, its admin, a member of the same project, and one of another.
async fn three() -> (Control, Caller, Caller, Caller) {
    let (control, admin) = cloud().await;
    control.create_project(&admin, "other", "", Default::default()).await.unwrap();
    let other = control.find_project(&admin, "other").unwrap().record.meta.id;
    let own = Caller { role: Role::Member, ..admin.clone() };
    let other = Caller { project: other, ..own.clone() };
    (control, admin, own, other)
}

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

fn at(address: &str) -> Option<Vec<FixedAsked>> {
    FixedAsked::one(None, Some(address.parse().unwrap()))
}

fn refused<T: std::fmt::Debug>(outcome: control::Result<T>, code: Code, field: &str, words: &str) {
    let error = outcome.unwrap_err();
    assert_eq!((error.code, error.field.as_deref().unwrap_or("")), (code, field), "{error}");
    assert!(error.message.contains(words) && !error.hint.is_empty(), "{error} ({})", error.hint);
}

#[tokio::test]
async fn what_the_host_routes_itself_is_for_admins() {
    let (control, admin, own, _) = three().await;
    let host_only = |name| NewNetwork::of_kind(name, NetworkKind::HostOnly);
    refused(control.create_network(&own, host_only("lab")).await, Code::Forbidden, "", "host-only");
    control.create_network(&admin, host_only("lab")).await.unwrap();
    // The network is its project's, and the ranges in it are not.
    let range = || subnet("lab", "lab", "8.8.8.0/30");
    refused(control.create_subnet(&own, range()).await, Code::Forbidden, "", "creating a subnet");
    let kept = control.create_subnet(&admin, range()).await.unwrap();
    let to = |address: Option<&'static str>| {
        move |s: &mut Subnet| {
            s.gateway = address.map(|a| a.parse().unwrap());
            Ok(())
        }
    };
    let moved = control.update_subnet(&own, "lab", None, to(Some("8.8.8.2"))).await;
    refused(moved, Code::Forbidden, "", "gateway");
    control.update_subnet(&admin, "lab", None, to(Some("8.8.8.2"))).await.unwrap();
    let rename = |s: &mut Subnet| {
        s.meta.description = "ours".into();
        Ok(())
    };
    control.update_subnet(&own, &kept.meta.id.to_string(), None, rename).await.unwrap();
    // The same goes for an external network that is the project's.
    let kind = NetworkKind::External(External { interface: None, masquerade: true, is_default: false });
    control.create_network(&admin, NewNetwork::of_kind("street", kind)).await.unwrap();
    let street = || subnet("street", "street", "198.18.9.0/24");
    refused(control.create_subnet(&own, street()).await, Code::Forbidden, "", "creating a subnet");
    control.create_subnet(&admin, street()).await.unwrap();
}

#[tokio::test]
async fn a_range_is_routed_by_the_host_once() {
    let (control, admin, ..) = three().await;
    for name in ["lab", "hall"] {
        control.create_network(&admin, NewNetwork::of_kind(name, NetworkKind::HostOnly)).await.unwrap();
    }
    // The external pool of this cloud is 203.0.113.0/28.
    for cidr in ["203.0.113.8/30", "203.0.113.0/24"] {
        let made = control.create_subnet(&admin, subnet("a", "lab", cidr)).await;
        refused(made, Code::Conflict, "cidr", "overlaps 203.0.113.0/28 of network external");
    }
    control.create_subnet(&admin, subnet("a", "lab", "10.9.0.0/24")).await.unwrap();
    let again = control.create_subnet(&admin, subnet("b", "hall", "10.9.0.0/25")).await;
    refused(again, Code::Conflict, "cidr", "of network lab");
    let pool = control.create_subnet(&admin, subnet("b", "external", "10.9.0.128/25")).await;
    refused(pool, Code::Conflict, "cidr", "of network lab");
    // Networks behind routers may have any range, until they become the host's.
    control.create_network(&admin, NewNetwork::of_kind("net", NetworkKind::Private)).await.unwrap();
    control.create_subnet(&admin, subnet("c", "net", "10.9.0.0/24")).await.unwrap();
    let turn = |n: &mut Network| {
        n.kind = NetworkKind::HostOnly;
        Ok(())
    };
    refused(control.update_network(&admin, "net", turn).await, Code::Conflict, "kind", "of network lab");
    control.delete_network(&admin, "lab", control::network::Joined::Refuse).await.unwrap();
    control.update_network(&admin, "net", turn).await.unwrap();
}

/// A shared network `hall` of the first project with a range whose gateway's address is free.
async fn hall(control: &Control, admin: &Caller) -> Network {
    let new = NewNetwork { shared: true, ..NewNetwork::of_kind("hall", NetworkKind::Private) };
    let network = control.create_network(admin, new).await.unwrap();
    control.create_subnet(admin, subnet("hall", "hall", "10.7.0.0/24")).await.unwrap();
    network
}

#[tokio::test]
async fn in_a_shared_network_a_port_is_what_its_owner_lets_it_be() {
    let (control, admin, own, other) = three().await;
    hall(&control, &admin).await;
    let new = || NewPort { network: Some("hall".into()), ..NewPort::default() };
    let pair = AddressPair { net: "10.7.0.0/24".parse().unwrap(), mac: None };
    let mac = "02:00:00:00:00:09".parse().unwrap();
    let wishes = [
        ("mac", NewPort { mac: Some(mac), ..new() }),
        ("addresses", NewPort { fixed: at("10.7.0.1"), ..new() }),
        ("addresses", NewPort { fixed: at("10.7.0.9"), ..new() }),
        ("port_security", NewPort { port_security: Some(false), ..new() }),
        ("allowed_pairs", NewPort { allowed_pairs: vec![pair], ..new() }),
    ];
    for (field, wish) in &wishes {
        let made = control.create_port(&other, wish.clone()).await;
        refused(made, Code::Forbidden, field, "in network hall is up to the project that shares it");
    }
    let theirs = control.create_port(&other, NewPort { name: "p".into(), ..new() }).await.unwrap();
    let has = theirs.addresses[0].address.to_string();
    let no_edit = |_: &mut Port| Ok(());
    let change = |fixed| PortChange { fixed, ..PortChange::default() };
    let macs = PortChange { mac: Some(mac), ..PortChange::default() };
    refused(control.update_port(&other, "p", &macs, no_edit).await, Code::Forbidden, "mac", "MAC");
    let moved = control.update_port(&other, "p", &change(at("10.7.0.1")), no_edit).await;
    refused(moved, Code::Forbidden, "addresses", "choosing an address");
    let same = control.update_port(&other, "p", &change(at(&has)), no_edit).await.unwrap();
    assert_eq!(same.addresses, theirs.addresses);
    let off = |p: &mut Port| {
        p.port_security = false;
        Ok(())
    };
    let wide = move |p: &mut Port| {
        p.allowed_pairs = vec![pair];
        Ok(())
    };
    let none = PortChange::default();
    refused(control.update_port(&other, "p", &none, off).await, Code::Forbidden, "port_security", "off");
    refused(control.update_port(&other, "p", &none, wide).await, Code::Forbidden, "allowed_pairs", "further");
    // An admin gives it, and its owner may let go of it again.
    control.update_port(&admin, &theirs.meta.id.to_string(), &none, wide).await.unwrap();
    let close = |p: &mut Port| {
        p.allowed_pairs.clear();
        Ok(())
    };
    control.update_port(&other, "p", &none, close).await.unwrap();
    // The network's own project may all of it.
    for (_, wish) in wishes {
        let made = control.create_port(&own, wish).await.unwrap();
        control.delete_port(&own, &made.meta.id.to_string()).await.unwrap();
    }
}

#[tokio::test]
async fn only_admins_join_a_router_with_the_network_of_another_project() {
    let (control, admin, own, other) = three().await;
    hall(&control, &admin).await;
    let router = |name: &str| NewRouter { name: name.into(), ..NewRouter::default() };
    let edge = control.create_router(&other, &router("edge")).await.unwrap();
    let new = NewPort { name: "inner".into(), network: Some("hall".into()), ..NewPort::default() };
    let inner = control.create_port(&other, new).await.unwrap();
    let asked = InterfaceAsked::Port(inner.meta.id.to_string());
    let joined = control.add_router_interface(&other, "edge", &asked).await;
    refused(joined, Code::Forbidden, "port", "network hall belongs to another project than router edge");
    let by_subnet = InterfaceAsked::Subnet("hall".into());
    let hidden = control.add_router_interface(&other, "edge", &by_subnet).await.unwrap_err();
    assert_eq!(hidden.code, Code::NotFound);
    let id = edge.meta.id.to_string();
    let joined = control.add_router_interface(&admin, &id, &asked).await.unwrap();
    assert_eq!(joined.interfaces.len(), 1);
    control.create_router(&own, &router("ours")).await.unwrap();
    control.add_router_interface(&own, "ours", &by_subnet).await.unwrap();
}

#[tokio::test]
async fn a_router_has_one_outer_address_of_a_family() {
    let (control, admin, own, _) = three().await;
    let external = control.find::<Network>(&admin, "external").unwrap().record.meta.id;
    let taken = control.taken_addresses(external);
    let all = (2..15).map(|n| format!("203.0.113.{n}"));
    let free: Vec<String> = all.filter(|a| !taken.contains(&a.parse().unwrap())).collect();
    let fixed = |all: &[String]| {
        let fixed = all.iter().flat_map(|a| at(a).unwrap()).collect();
        GatewayAsked { fixed: Some(fixed), ..GatewayAsked::default() }
    };
    let two = fixed(&free[..2]);
    let new = |gateway| NewRouter { name: "edge".into(), gateway: Some(gateway), ..NewRouter::default() };
    refused(
        control.create_router(&own, &new(two.clone())).await,
        Code::Invalid,
        "addresses",
        "2 outer addresses of IPv4",
    );
    let made = control.create_router(&own, &new(fixed(&free[..1]))).await.unwrap();
    let change = |gateway| RouterChange { gateway: Some(Some(gateway)), ..RouterChange::default() };
    let more = control.update_router(&own, "edge", &change(two), |_| Ok(())).await;
    refused(more, Code::Invalid, "addresses", "one of each family");
    control.update_router(&own, "edge", &change(fixed(&free[2..3])), |_| Ok(())).await.unwrap();
    // Nor by the port behind it.
    let outer = made.gateway.unwrap().port.to_string();
    let all = fixed(&free[2..4]).fixed;
    let by_port = PortChange { fixed: all, ..PortChange::default() };
    let moved = control.update_port(&own, &outer, &by_port, |_| Ok(())).await;
    assert!(matches!(moved.unwrap_err().code, Code::Forbidden | Code::Invalid));
    assert_eq!(control.find::<Router>(&own, "edge").unwrap().record.gateway.unwrap().port.to_string(), outer);
}
