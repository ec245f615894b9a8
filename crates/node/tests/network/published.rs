//! Published ports with real packets: from outside, from the host, from a neighbour; closed by groups, changed while
//! connections run, and never at the cost of what the host itself serves.

use crate::lab::*;
use model::{
    dataplane::{
        host,
        publish::{Publication, publish},
    },
    id::{InstanceId, ProjectId},
    network::NetworkKind,
    operation::Event,
    publish::{Passage, Publish},
    security_group::{Direction::*, Family::*, Peer, Protocol, SecurityGroup},
};
use node::network::{
    conntrack,
    published::{Published, PublishedPort},
    relay::Relays,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    time::Instant,
};
use store::{Memory, Store};
use sys::netns::NetNs;

/// A guest with outside addresses of the cloud's own, and groups that let ports 80 and 81 in.
struct World {
    lab: Lab,
    web: Guest,
    neighbour: Guest,
    in_force: BTreeSet<Publication>,
}

const OUTSIDE: [&str; 2] = ["203.0.113.50", "2001:db8:f::50"];
const HOST: [&str; 2] = ["192.0.2.1", "2001:db8:ff::1"];
const CLIENT: [&str; 2] = ["192.0.2.2", "2001:db8:ff::2"];

impl World {
    fn new() -> Self {
        let mut lab = Lab::new();
        lab.external(None, false);
        let cloud = lab.cloud(NetworkKind::Private, Some(["203.0.113.10", "2001:db8:f::10"]));
        let mut rules = out();
        for family in [Ipv4, Ipv6] {
            rules.push(rule(Ingress, family, Some("tcp"), Some("80-81"), Peer::Any));
            rules.push(rule(Ingress, family, Some("udp"), Some("53"), Peer::Any));
        }
        let group = lab.group(cloud, rules);
        let web = lab.guest(cloud, 4, &[group]).configure();
        let neighbour = lab.guest(cloud, 5, &[group]).configure();
        for own in [web.v4(), web.v6()] {
            serve_tcp(&web.namespace, SocketAddr::new(own, 80));
            serve_tcp(&web.namespace, SocketAddr::new(own, 81));
            serve_udp(&web.namespace, SocketAddr::new(own, 53));
        }
        Self { lab, web, neighbour, in_force: BTreeSet::new() }
    }

    /// Takes the outside addresses and lets these ports in.
    fn pass(&mut self, ports: &[(Protocol, u16)]) {
        for outer in OUTSIDE {
            self.lab.floating(outer, Some((0, &self.web.port)));
        }
        let passage = |outer: &str, (protocol, port): &(Protocol, u16)| Passage {
            outside: address(outer),
            protocol: *protocol,
            port: *port,
        };
        let own = |f: &mut model::floating_ip::FloatingIp| f.internal = true;
        self.lab.externals[0].floating_ips.iter_mut().for_each(own);
        let router = self.lab.clouds[0].router.as_mut().unwrap();
        router.floating_ips.iter_mut().for_each(own);
        router.passages = OUTSIDE.iter().flat_map(|outer| ports.iter().map(|p| passage(outer, p))).collect();
        self.lab.apply();
        let view = self.lab.clouds[0].router.as_ref().unwrap();
        let place = model::dataplane::namespace::Place::Router(view.router.meta.id);
        let namespace = self.lab.dataplane.namespace(place).unwrap();
        conntrack::retranslate(&namespace, view).unwrap();
    }

    /// Puts publications in force as a run of the host's plan does.
    fn publish(&mut self, all: &[Publication]) {
        let settings = self.lab.dataplane.settings();
        let mut plan = host::compile(settings, &self.lab.externals, &[]);
        publish(settings, all, &mut plan);
        self.lab.dataplane.apply(&plan).unwrap_or_else(|e| panic!("{}", chain(&e)));
        let now: BTreeSet<Publication> = all.iter().copied().collect();
        conntrack::unpublish(&self.lab.host, &self.lab.externals, &self.in_force, &now).unwrap();
        self.in_force = now;
    }
}

fn publication(protocol: Protocol, port: u16, family: usize, inner: u16) -> Publication {
    Publication { protocol, address: None, port, to: SocketAddr::new(address(OUTSIDE[family]), inner) }
}

fn both(protocol: Protocol, port: u16, inner: u16) -> [Publication; 2] {
    [0, 1].map(|family| publication(protocol, port, family, inner))
}

#[test]
fn an_address_of_the_clouds_own_passes_published_ports_alone() {
    let mut world = World::new();
    let servers = ["198.51.100.9", "2001:db8:99::9"];
    // Connections outwards from before, which publishing must not touch.
    let mut before: Vec<_> = servers
        .iter()
        .map(|server| {
            let at = serve_tcp(&world.lab.outside, SocketAddr::new(address(server), 80));
            connect(&world.web.namespace, at, PATIENCE).expect("outwards").0
        })
        .collect();
    world.pass(&[(Protocol::TCP, 80), (Protocol::UDP, 53)]);
    world.publish(&[both(Protocol::TCP, 8080, 80), both(Protocol::UDP, 5353, 53)].concat());
    for family in [0, 1] {
        assert!(echoes(&mut before[family], PATIENCE), "what ran before goes on");
        let at = |ip: &str, port| SocketAddr::new(address(ip), port);
        let (_, seen) = connect(&world.lab.outside, at(HOST[family], 8080), PATIENCE).expect("published");
        assert_eq!(seen, address(CLIENT[family]), "the client's address is kept");
        let seen = ask_udp(&world.lab.outside, at(HOST[family], 5353), PATIENCE).expect("by UDP");
        assert_eq!(seen, address(CLIENT[family]));
        assert!(connect(&world.lab.host, at(HOST[family], 8080), PATIENCE).is_ok(), "from the host");
        let around = connect(&world.neighbour.namespace, at(HOST[family], 8080), PATIENCE);
        assert!(around.is_ok(), "from a neighbour: {around:?}");
        let itself = connect(&world.web.namespace, at(HOST[family], 8080), PATIENCE);
        assert!(itself.is_ok(), "from itself: {itself:?}");
        // The group would let port 81 and the router pings in; nothing of that is published.
        assert!(connect(&world.lab.outside, at(OUTSIDE[family], 81), SILENCE).is_err());
        assert!(connect(&world.lab.host, at(OUTSIDE[family], 81), SILENCE).is_err());
        assert!(!ping(&world.lab.outside, address(OUTSIDE[family]), SILENCE));
        // Outwards the guest is seen as before.
        let server = at(servers[family], 80);
        let router = ["203.0.113.10", "2001:db8:f::10"][family];
        assert_eq!(connect(&world.web.namespace, server, PATIENCE).expect("outwards").1, address(router));
    }
    assert!(connect(&world.lab.host, "127.0.0.1:8080".parse().unwrap(), PATIENCE).is_ok());
}

#[test]
fn a_group_that_closes_closes_the_published_port() {
    let mut world = World::new();
    world.pass(&[(Protocol::TCP, 80)]);
    world.publish(&both(Protocol::TCP, 8080, 80));
    let group: SecurityGroup = world.lab.clouds[0].view.groups[0].clone();
    for (rules, open) in [(out(), false), (group.rules.clone(), true)] {
        world.lab.set_rules(0, group.meta.id, rules);
        let plan = model::dataplane::network::compile(&world.lab.clouds[0].view, "");
        world.lab.dataplane.apply(&plan).unwrap();
        for host in HOST {
            let at = SocketAddr::new(address(host), 8080);
            let patience = if open { PATIENCE } else { SILENCE };
            assert_eq!(connect(&world.lab.outside, at, patience).is_ok(), open, "{at}");
            assert_eq!(connect(&world.lab.host, at, patience).is_ok(), open, "{at} from the host");
        }
    }
}

#[test]
fn what_is_not_published_any_more_ends_and_the_rest_goes_on() {
    let mut world = World::new();
    world.pass(&[(Protocol::TCP, 80), (Protocol::TCP, 81)]);
    let (first, second) = (both(Protocol::TCP, 8080, 80), both(Protocol::TCP, 8081, 81));
    world.publish(&[first, second].concat());
    let at = |family: usize, port| SocketAddr::new(address(HOST[family]), port);
    for family in [0, 1] {
        let (mut one, _) = connect(&world.lab.outside, at(family, 8080), PATIENCE).unwrap();
        let (mut other, _) = connect(&world.lab.outside, at(family, 8081), PATIENCE).unwrap();
        world.publish(&second);
        assert!(!echoes(&mut one, SILENCE), "its connections end");
        assert!(echoes(&mut other, PATIENCE), "others go on");
        assert!(connect(&world.lab.outside, at(family, 8080), SILENCE).is_err());
        world.publish(&[first, second].concat());
        assert!(connect(&world.lab.outside, at(family, 8080), PATIENCE).is_ok(), "published again");
    }
}

fn here(namespace: &NetNs) -> Arc<NetNs> {
    Arc::new(namespace.run(NetNs::current).unwrap().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loopback_address_of_ipv6_is_relayed() {
    let mut world = World::new();
    world.pass(&[(Protocol::TCP, 80)]);
    world.publish(&both(Protocol::TCP, 8080, 80));
    let loopback: SocketAddr = "[::1]:8080".parse().unwrap();
    let host = here(&world.lab.host);
    let mut relays = Relays::default();
    for outside in OUTSIDE {
        let wanted = BTreeMap::from([(8080, SocketAddr::new(address(outside), 80))]);
        let refused = relays.set(&host, &wanted);
        assert!(refused.is_empty(), "{refused:?}");
        let (mut stream, _) = connect(&world.lab.host, loopback, PATIENCE).expect("relayed");
        assert!(echoes(&mut stream, PATIENCE));
        // The same again is nothing new.
        assert!(relays.set(&host, &wanted).is_empty());
        assert!(echoes(&mut stream, PATIENCE));
        relays.set(&host, &BTreeMap::new());
        // What is under way at that moment may still pass.
        let end = Instant::now() + PATIENCE;
        while echoes(&mut stream, PATIENCE) {
            assert!(Instant::now() < end, "ends with its publication");
        }
        let again = connect(&world.lab.host, loopback, SILENCE);
        assert!(again.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_host_itself_serves_is_left_alone_and_told_of() {
    let mut world = World::new();
    world.pass(&[(Protocol::TCP, 80)]);
    let store = Store::open(Arc::new(Memory::new()), control::schema::schema()).await.unwrap();
    serve_tcp(&world.lab.host, "0.0.0.0:2222".parse().unwrap());
    serve_udp(&world.lab.host, "127.0.0.1:53".parse().unwrap());
    serve_tcp(&world.lab.host, "[::1]:9090".parse().unwrap());
    let wanted = |at: Option<IpAddr>, host_port, protocol| PublishedPort {
        instance: InstanceId::from_random([1; 16]),
        project: ProjectId::from_random([2; 16]),
        name: "web".parse().unwrap(),
        publish: Publish { address: at, host_port, port: 80, protocol },
        publication: Publication { address: at, ..publication(protocol, host_port, 0, 80) },
    };
    let all = vec![
        wanted(None, 2222, Protocol::TCP),
        wanted(None, 2222, Protocol::UDP),
        wanted(None, 53, Protocol::UDP),
        wanted(Some(address(HOST[0])), 53, Protocol::UDP),
        wanted(None, 9090, Protocol::TCP),
        wanted(Some(address(HOST[0])), 9090, Protocol::TCP),
        wanted(None, 8080, Protocol::TCP),
    ];
    let host = here(&world.lab.host);
    let mut published = Published::default();
    for _ in 0..2 {
        let admission = published.admit(&host, all.clone()).unwrap();
        let admitted: Vec<String> = admission.admitted.iter().map(|p| p.publish.to_string()).collect();
        assert_eq!(admitted, ["2222:80/udp", "192.0.2.1:53:80/udp", "192.0.2.1:9090:80/tcp", "8080:80/tcp"]);
        world.publish(&admission.publications());
        published.note(&store, &host, admission).await;
        let events = store.list::<Event>();
        assert_eq!(events.len(), 3, "each is told of once");
        let told = |text: &str| events.iter().any(|e| e.record.message.contains(text));
        assert!(told("0.0.0.0:2222") && told("127.0.0.1:53") && told("[::1]:9090"));
    }
    let ssh = SocketAddr::new(address(HOST[0]), 2222);
    let (_, seen) = connect(&world.lab.outside, ssh, PATIENCE).expect("the host's own");
    assert_eq!(seen, address(CLIENT[0]));
    // Its own relay is no stranger, and a program that comes later has its port, too. What a client of UDP does is no
    // reason to end what is in force.
    let tunnel = world.lab.host.run(|| TcpListener::bind("127.0.0.1:8080")).unwrap().unwrap();
    assert!(
        !published.is_stale(&host, all.clone()).unwrap(),
        "a tunnel of somebody on this host ends nothing"
    );
    drop(tunnel);
    let late = world.lab.host.run(|| TcpListener::bind("0.0.0.0:8080")).unwrap().unwrap();
    let client = world.lab.host.run(|| UdpSocket::bind("0.0.0.0:2222")).unwrap().unwrap();
    assert!(published.is_stale(&host, all.clone()).unwrap());
    let admission = published.admit(&host, all.clone()).unwrap();
    let admitted: Vec<String> = admission.admitted.iter().map(|p| p.publish.to_string()).collect();
    assert_eq!(admitted, ["2222:80/udp", "192.0.2.1:53:80/udp", "192.0.2.1:9090:80/tcp"]);
    world.publish(&admission.publications());
    published.note(&store, &host, admission).await;
    assert!(store.list::<Event>().iter().any(|e| e.record.message.contains("0.0.0.0:8080")));
    assert!(!published.is_stale(&host, all.clone()).unwrap());
    // It ends, and is not only away for a moment: the publication is in force again.
    drop((late, client));
    assert!(!published.is_stale(&host, all.clone()).unwrap());
    assert!(published.is_stale(&host, all.clone()).unwrap());
    let admission = published.admit(&host, all).unwrap();
    assert!(admission.admitted.iter().any(|p| p.publish.host_port == 8080));
    published.stop();
}
