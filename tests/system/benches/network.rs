//! The network beside a plain veth pair, and how soon a change is in force.

use crate::table::{Budget, Table, median, soon};
use api::v1::types::{
    instance::{CreateInstance, Instance, NetworkRequest},
    network::{CreateNetwork, Network, NetworkKind},
    subnet::{CreateSubnet, Subnet},
};
use lab::{Cloud, Lab, Watch, can_connect, echo_server, v4_of};
use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};
use sys::{netlink::Netlink, netns::NetNs};

const ROUNDS: usize = 7;
const STREAM_TIME: Duration = Duration::from_secs(1);
const PORT: u16 = 7000;
const SHORT: Duration = Duration::from_millis(20);

fn inside(lab: &Lab, instance: &Instance) -> NetNs {
    lab.namespace(&format!("i-{}", instance.head.id.simple()))
}

fn launch(cloud: &Cloud, name: &str, group: &str) -> Instance {
    cloud.launch(&CreateInstance { security_groups: Some(vec![group.into()]), ..cloud.idle_container(name) })
}

/// Bytes per second of one TCP stream from a namespace to another.
fn throughput(from: &NetNs, to: &NetNs, at: SocketAddr) -> f64 {
    let listener = to.run(|| TcpListener::bind(at)).expect("enter").expect("listen");
    let sink = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let (mut buffer, mut total) = (vec![0; 256 << 10], 0);
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            total += count;
        }
        total
    });
    let mut stream = from.run(|| TcpStream::connect(at)).expect("enter").expect("connect");
    let block = vec![7; 256 << 10];
    let began = Instant::now();
    while began.elapsed() < STREAM_TIME {
        stream.write_all(&block).expect("send");
    }
    drop(stream);
    sink.join().expect("sink") as f64 / began.elapsed().as_secs_f64()
}

/// Traffic between two containers through their security groups, beside two namespaces and a veth: in the project's own
/// network, and in one that leads to their host alone.
pub fn traffic(table: &mut Table, lab: &Lab, shop: &Cloud) {
    shop.add_group("iperf", &["tcp"]);
    shop.create::<Network>(&CreateNetwork {
        name: "near".into(),
        kind: NetworkKind::HostOnly,
        ..CreateNetwork::default()
    });
    let request = serde_json::json!({"name": "near", "network": "near", "cidr": "192.168.77.0/24"});
    shop.create::<Subnet>(&serde_json::from_value::<CreateSubnet>(request).expect("a subnet"));
    let launch = |name: &str, network: &str| {
        let network = NetworkRequest { network: Some(network.into()), ..NetworkRequest::default() };
        shop.launch(&CreateInstance {
            networks: Some(vec![network]),
            security_groups: Some(vec!["iperf".into()]),
            ..shop.idle_container(name)
        })
    };
    let pairs = [("default", ""), ("near", " of a host-only network")].map(|(network, of)| {
        let (a, b) = (launch(&format!("{network}-a"), network), launch(&format!("{network}-b"), network));
        (inside(lab, &a), inside(lab, &b), SocketAddr::new(v4_of(&b), PORT), of)
    });
    let (here, there) = (NetNs::anonymous().expect("namespace"), NetNs::anonymous().expect("namespace"));
    let (near, far) = (Netlink::open(&here).expect("netlink"), Netlink::open(&there).expect("netlink"));
    near.add_veth("eth0", "eth0", Some(&there)).expect("veth");
    for (side, address) in [(&near, "192.0.2.1/24"), (&far, "192.0.2.2/24")] {
        side.set_up("eth0").expect("up");
        side.add_address("eth0", address.parse().expect("address")).expect("address");
    }
    let plain = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 2), PORT));
    for (from, to, at, of) in &pairs {
        let (mut ours, mut theirs) = (vec![], vec![]);
        for _ in 0..ROUNDS {
            ours.push(throughput(from, to, *at));
            theirs.push(throughput(&here, &there, plain));
        }
        ours.sort_by(f64::total_cmp);
        theirs.sort_by(f64::total_cmp);
        let (a, b) = (ours[ROUNDS / 2], theirs[ROUNDS / 2]);
        let gbit = |bytes: f64| format!("{:.1} Gbit/s", bytes * 8.0 / 1e9);
        let what =
            format!("one TCP stream between two containers{of}, through both groups, beside a plain veth");
        table.ratio(&what, &gbit(a), &gbit(b), a / b, Budget::AtLeast(0.85));
    }
    shop.empty();
}

/// From the request that adds a rule until a connection comes to be.
pub fn rule_change(table: &mut Table, lab: &Lab, cloud: &Cloud, others: usize) {
    cloud.add_group("bench-client", &[]);
    cloud.add_group("bench-server", &[]);
    let client = launch(cloud, "bench-client", "bench-client");
    let server = launch(cloud, "bench-server", "bench-server");
    let (from, at) = (inside(lab, &client), SocketAddr::new(v4_of(&server), PORT));
    echo_server(&inside(lab, &server), SocketAddr::new(IpAddr::from(Ipv4Addr::UNSPECIFIED), PORT));
    let mut times = vec![];
    for _ in 0..ROUNDS * 3 {
        assert!(!can_connect(&from, None, at, SHORT), "closed before");
        let began = Instant::now();
        let rules = cloud.add_rule("bench-server", &format!("tcp {PORT}"));
        soon("the rule is in force", || can_connect(&from, None, at, SHORT).then_some(()));
        times.push(began.elapsed());
        for rule in &rules {
            cloud.delete_rule("bench-server", rule);
        }
        soon("the rule is out of force", || (!can_connect(&from, None, at, SHORT)).then_some(()));
    }
    let what = format!("security rule added until it lets pass, {others} other ports in the network");
    table.value(&what, median(&mut times).as_secs_f64() * 1e3, " ms", Budget::AtMost(50.0));
}

/// The longest time without an answer while a floating IP moves between two containers.
pub fn floating_ip_move(table: &mut Table, lab: &Lab, shop: &Cloud) {
    shop.add_group("http", &["tcp 80"]);
    for name in ["left", "right"] {
        let groups = Some(vec!["default".into(), "http".into()]);
        shop.launch(&CreateInstance { security_groups: groups, ..shop.container(name, "web") });
    }
    let floating = shop.add_floating_ip("moving", "left");
    let at = SocketAddr::new(floating.address, 80);
    let watch = Watch::begin(&lab.world.outside, at);
    soon("the watch is answered", || (watch.answers().len() > 5).then_some(()));
    for turn in 0..10 {
        shop.move_floating_ip("moving", Some(["right", "left"][turn % 2]));
        let before = watch.answers().len();
        soon("answers after a move", || (watch.answers().len() > before + 5).then_some(()));
    }
    // The client pauses for 20 ms between two questions.
    let gap = watch.longest_gap().saturating_sub(Duration::from_millis(20));
    drop(watch);
    let what = "floating IP moved ten times: longest gap that a client saw";
    table.value(what, gap.as_secs_f64() * 1e3, " ms", Budget::AtMost(50.0));
    shop.empty();
}
