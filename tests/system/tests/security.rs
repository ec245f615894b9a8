//! Security groups, tiers and separation, by packets between the network namespaces of real containers.

use api::v1::types::{
    instance::{CreateInstance, Instance, NetworkRequest},
    network::{CreateNetwork, Network, NetworkKind},
    security_group::{CreateSecurityGroup, SecurityGroup},
    subnet::{CreateSubnet, Subnet, UpdateSubnet},
};
use lab::{
    Capture, Cloud, INTERNET, Lab, ask_udp, can_connect, connect, echo_server, eventually, http_get, ping,
    udp_server, v4_of, v6_of,
};
use model::error::Code;
use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
    time::Duration,
};
use sys::netns::NetNs;

const SHORT: Duration = Duration::from_millis(800);
const LONG: Duration = Duration::from_secs(20);

/// A container's own network namespace: what is sent and heard there, a program in it sends and hears.
fn inside(lab: &Lab, instance: &Instance) -> NetNs {
    lab.namespace(&format!("i-{}", instance.head.id.simple()))
}

fn launch_in(cloud: &Cloud, name: &str, groups: &[&str]) -> Instance {
    let groups = groups.iter().map(ToString::to_string).collect();
    cloud.launch(&CreateInstance { security_groups: Some(groups), ..cloud.idle_container(name) })
}

/// Serves TCP and UDP on a port, for both families.
fn serve(namespace: &NetNs, port: u16) {
    for any in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
        if any.is_ipv4() {
            continue; // The wildcard of IPv6 takes both.
        }
        echo_server(namespace, SocketAddr::new(any, port));
        udp_server(namespace, SocketAddr::new(any, port));
    }
}

#[test]
fn groups_let_pass_what_they_say() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    shop.add_group("client", &[]);
    shop.add_group("service", &["tcp 7000", "udp 7000", "icmp"]);
    shop.add_group("closed", &[]);
    let client = launch_in(&shop, "client", &["client"]);
    let server = launch_in(&shop, "server", &["service"]);
    let closed = launch_in(&shop, "closed", &["closed"]);
    let (from, at) = (inside(&lab, &client), inside(&lab, &server));
    for port in [7000, 7001] {
        serve(&at, port);
    }
    let capture = Capture::begin(&at, "eth0", lab.directory().join("server.dump"));
    let closed_capture = Capture::begin(&inside(&lab, &closed), "eth0", lab.directory().join("closed.dump"));
    for address in [v4_of(&server), v6_of(&server)] {
        let port = |port| SocketAddr::new(address, port);
        assert!(can_connect(&from, None, port(7000), LONG), "tcp to {address} is allowed");
        assert!(!can_connect(&from, None, port(7001), SHORT), "tcp to {address} port 7001 is not");
        assert!(ask_udp(&from, port(7000), LONG).is_ok(), "udp to {address} is allowed");
        assert!(ask_udp(&from, port(7001), SHORT).is_err(), "udp to {address} port 7001 is not");
        assert!(ping(&from, address, LONG), "ping of {address} is allowed");
    }
    for address in [v4_of(&closed), v6_of(&closed)] {
        assert!(!ping(&from, address, SHORT), "ping of {address} is not");
    }
    eventually("what passed was heard", LONG, || capture.text().contains(".7000"));
    assert!(!capture.text().contains(".7001"), "what was dropped was heard: {}", capture.text());
    assert!(!closed_capture.text().contains("echo request"), "{}", closed_capture.text());
    // The closed one may begin itself, and gets its answers: groups know state.
    assert!(can_connect(&inside(&lab, &closed), None, SocketAddr::new(v4_of(&server), 7000), LONG));
    assert!(ping(&inside(&lab, &closed), v6_of(&server), LONG));
    // Whoever is root inside may do away with every rule there is: these are not there.
    let flush = || Command::new("nft").args(["flush", "ruleset"]).status();
    assert!(inside(&lab, &closed).run(flush).unwrap().expect("nft").success());
    assert!(!ping(&from, v4_of(&closed), SHORT), "still not");
    held_back(&lab, &shop, &server);
    revoked(&shop, &from, &server);
    shop.empty();
    lab.finish();
}

/// A group that names what may go out lets out that alone; answers to what it let in pass all the same.
fn held_back(lab: &Lab, shop: &Cloud, server: &Instance) {
    let request = serde_json::json!({"name": "narrow", "rules": [
        {"direction": "egress", "family": "ipv4", "protocol": "tcp", "ports": "7000"},
        {"direction": "ingress", "family": "ipv4", "protocol": "tcp", "ports": "7000"},
    ], "closed": true});
    shop.create::<SecurityGroup>(&serde_json::from_value::<CreateSecurityGroup>(request).unwrap());
    let narrow = launch_in(shop, "narrow", &["narrow"]);
    let within = inside(lab, &narrow);
    let capture = Capture::begin(&inside(lab, server), "eth0", lab.directory().join("narrow.dump"));
    let to = |port| SocketAddr::new(v4_of(server), port);
    assert!(can_connect(&within, None, to(7000), LONG), "what it names goes out");
    assert!(ask_udp(&within, to(7000), SHORT).is_err(), "no datagram does");
    assert!(!ping(&within, v4_of(server), SHORT), "no ping");
    assert!(!can_connect(&within, None, SocketAddr::new(v6_of(server), 7000), SHORT), "nothing by IPv6");
    serve(&within, 7000);
    let back = SocketAddr::new(v4_of(&narrow), 7000);
    assert!(can_connect(&inside(lab, server), None, back, LONG), "answers to what may come in pass");
    let mark = format!("IP {}", v4_of(&narrow));
    eventually("what it sent was heard", LONG, || capture.text().contains(&mark));
    let heard = capture.text();
    assert!(
        !heard.contains("UDP") && !heard.contains("echo request") && !heard.contains("IP6 fd"),
        "{heard}"
    );
}

/// A rule that is taken away ends the flow that lived by it.
fn revoked(shop: &Cloud, from: &NetNs, server: &Instance) {
    let mut stream = connect(from, None, SocketAddr::new(v4_of(server), 7000), LONG).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut exchange = || {
        let mut back = [0; 4];
        stream.write_all(b"ping").is_ok() && stream.read_exact(&mut back).is_ok()
    };
    assert!(exchange(), "before");
    let group = shop.get::<SecurityGroup>("service");
    for rule in group.rules.iter().filter(|rule| rule.protocol == "tcp") {
        shop.delete_rule("service", rule);
    }
    eventually("the flow has ended", LONG, || !exchange());
    assert!(!can_connect(from, None, SocketAddr::new(v4_of(server), 7000), SHORT), "and none begins");
    shop.add_rule("service", "tcp 7000");
    eventually("a new one may begin", LONG, || {
        can_connect(from, None, SocketAddr::new(v4_of(server), 7000), SHORT)
    });
}

fn add_subnet(cloud: &Cloud, name: &str, network: &str, cidr: &str) -> Result<Subnet, api::client::Error> {
    let request = serde_json::json!({"name": name, "network": network, "cidr": cidr});
    cloud.try_create::<Subnet>(&serde_json::from_value::<CreateSubnet>(request).unwrap())
}

fn launch_at(cloud: &Cloud, name: &str, network: NetworkRequest, groups: &[&str]) -> Instance {
    let groups = groups.iter().map(ToString::to_string).collect();
    cloud.launch(&CreateInstance {
        networks: Some(vec![network]),
        security_groups: Some(groups),
        ..cloud.idle_container(name)
    })
}

#[test]
fn tiers_and_projects_are_apart() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    shop.create::<Network>(&CreateNetwork { name: "vpc".into(), ..CreateNetwork::default() });
    add_subnet(&shop, "web", "vpc", "10.9.1.0/24").expect("web");
    add_subnet(&shop, "db", "vpc", "10.9.2.0/24").expect("db");
    let refused = add_subnet(&shop, "again", "vpc", "10.9.0.0/16").expect_err("overlapping");
    assert!(refused.to_string().contains("overlaps"), "{refused}");
    shop.add_group("web", &[]);
    shop.add_group("db", &["tcp 5432 @web"]);
    let in_subnet = |subnet: &str| NetworkRequest {
        network: Some("vpc".into()),
        subnet: Some(subnet.into()),
        ..NetworkRequest::default()
    };
    let web = launch_at(&shop, "web", in_subnet("web"), &["web"]);
    let other = launch_at(&shop, "other", in_subnet("web"), &["default"]);
    let db = launch_at(&shop, "db", in_subnet("db"), &["db"]);
    for port in [5432, 22] {
        serve(&inside(&lab, &db), port);
        serve(&inside(&lab, &web), port);
    }
    let to_db = |port| SocketAddr::new(v4_of(&db), port);
    assert!(can_connect(&inside(&lab, &web), None, to_db(5432), LONG), "web reaches db:5432");
    assert!(!can_connect(&inside(&lab, &web), None, to_db(22), SHORT), "and no other port");
    assert!(
        !can_connect(&inside(&lab, &other), None, to_db(5432), SHORT),
        "who is not of the group does not"
    );
    let back = SocketAddr::new(v4_of(&web), 5432);
    assert!(!can_connect(&inside(&lab, &db), None, back, SHORT), "db does not reach web");
    let inner = launch_at(&shop, "inner", in_subnet("db"), &["default"]);
    gated(&lab, &shop, &other, &inner);
    overlapping(&lab, &shop);
    host_only(&lab, &shop);
    shop.empty();
    lab.finish();
}

/// A group at a subnet is asked besides those of the ports: members of one group pass only as the segment lets them.
fn gated(lab: &Lab, shop: &Cloud, outer: &Instance, inner: &Instance) {
    let (from, at) = (inside(lab, outer), inside(lab, inner));
    let to = |port| SocketAddr::new(v4_of(inner), port);
    for port in [5432, 22] {
        serve(&at, port);
        assert!(can_connect(&from, None, to(port), LONG), "members reach each other on port {port}");
    }
    shop.add_group("segment", &["tcp 5432 10.9.1.0/24"]);
    let gate = |groups: &[&str]| {
        let groups = Some(groups.iter().map(ToString::to_string).collect());
        shop.update::<Subnet>("db", &UpdateSubnet { security_groups: groups, ..UpdateSubnet::default() })
    };
    gate(&["segment"]);
    eventually("the gate is shut", LONG, || !can_connect(&from, None, to(22), SHORT));
    assert!(can_connect(&from, None, to(5432), LONG), "both groups let this pass");
    assert!(!ping(&from, v4_of(inner), SHORT));
    gate(&[]);
    eventually("the gate is gone", LONG, || can_connect(&from, None, to(22), SHORT));
}

/// Two projects use the same range and the same address; neither meets the other.
fn overlapping(lab: &Lab, shop: &Cloud) {
    let bank = lab.project("bank");
    let address: IpAddr = "10.0.0.50".parse().unwrap();
    let at =
        |address| NetworkRequest { network: Some("default".into()), address, ..NetworkRequest::default() };
    let server = launch_at(shop, "fifty", at(Some(address)), &["default"]);
    let friend = launch_at(shop, "friend", at(None), &["default"]);
    let stranger = launch_at(&bank, "stranger", at(None), &["default"]);
    serve(&inside(lab, &server), 7000);
    let to = SocketAddr::new(address, 7000);
    let overheard = Capture::begin(&inside(lab, &stranger), "eth0", lab.directory().join("stranger.dump"));
    assert!(can_connect(&inside(lab, &friend), None, to, LONG), "within a project");
    assert!(ping(&inside(lab, &friend), address, LONG));
    let heard = overheard.text();
    drop(overheard);
    assert!(!heard.contains(&address.to_string()), "nothing of it is heard in another project: {heard}");
    assert!(!can_connect(&inside(lab, &stranger), None, to, SHORT), "not from another");
    let namesake = launch_at(&bank, "fifty", at(Some(address)), &["default"]);
    assert!(!can_connect(&inside(lab, &stranger), None, to, SHORT), "its own 10.0.0.50 does not listen");
    serve(&inside(lab, &namesake), 7000);
    assert!(can_connect(&inside(lab, &stranger), None, to, LONG), "now its own does");
    let taken = shop.try_create::<Instance>(&CreateInstance {
        networks: Some(vec![at(Some(address))]),
        ..shop.idle_container("second")
    });
    assert_eq!(taken.expect_err("taken").code(), Code::Taken);
    bank.empty();
}

/// Instances of a host-only network and the machine reach each other; nothing leads out.
fn host_only(lab: &Lab, shop: &Cloud) {
    shop.create::<Network>(&CreateNetwork {
        name: "near".into(),
        kind: NetworkKind::HostOnly,
        ..CreateNetwork::default()
    });
    add_subnet(shop, "near", "near", "192.168.77.0/24").expect("near");
    shop.add_group("near", &["icmp", "tcp 7000"]);
    let near = NetworkRequest { network: Some("near".into()), ..NetworkRequest::default() };
    let hermit = launch_at(shop, "hermit", near, &["near"]);
    let within = inside(lab, &hermit);
    serve(&within, 7000);
    assert!(ping(&lab.world.machine, v4_of(&hermit), LONG), "the machine reaches it");
    assert!(ping(&within, "192.168.77.1".parse().unwrap(), LONG), "it reaches the machine");
    let add_route = || {
        Command::new("ip")
            .args(["route", "replace", "default", "via", "192.168.77.1", "dev", "eth0"])
            .status()
    };
    within.run(add_route).unwrap().expect("ip");
    assert!(http_get(&within, SocketAddr::from((INTERNET, 80)), SHORT).is_err(), "no way out");
    let to = SocketAddr::new(v4_of(&hermit), 7000);
    assert!(!can_connect(&lab.world.outside, None, to, SHORT), "no way in");
}

/// Whoever is given the address next neither inherits them nor waits for their end.
#[test]
fn flows_end_when_their_address_is_nobodys() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    shop.add_group("service", &["tcp 7000"]);
    let client = launch_in(&shop, "client", &["service"]);
    let server = launch_in(&shop, "server", &["service"]);
    serve(&inside(&lab, &server), 7000);
    let at = SocketAddr::new(v4_of(&server), 7000);
    let _stream = connect(&inside(&lab, &client), None, at, LONG).expect("allowed");
    let network = shop.namespace_of("default");
    let has_flow = || {
        let flows = sys::conntrack::list(&network).expect("conntrack");
        flows.iter().any(|flow| flow.original.destination == at.ip() && flow.original.protocol == 6)
    };
    assert!(has_flow());
    shop.delete::<Instance>("server");
    // By itself the kernel would keep it for days.
    eventually("its flow ends", LONG, || !has_flow());
    shop.empty();
    lab.finish();
}
