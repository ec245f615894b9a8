//! Established flows: they live as long as something allows them, and not a packet longer.

use crate::lab::*;
use model::{
    dataplane::{
        allow::{Flow, Transport},
        namespace::Place,
    },
    network::NetworkKind,
    security_group::{Direction, Direction::*, Family::*, IcmpMatch, Peer, PortRange, Protocol, Rule},
};
use node::network::conntrack;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use sys::{netns::NetNs, packet::FrameSocket};

fn revoke(lab: &Lab, cloud: usize) -> usize {
    let namespace = lab.dataplane.namespace(lab.place(cloud)).unwrap();
    conntrack::revoke(&namespace, &lab.clouds[cloud].view).unwrap()
}

fn retranslate(lab: &Lab, cloud: usize) -> usize {
    let view = lab.clouds[cloud].router.as_ref().unwrap();
    let namespace = lab.dataplane.namespace(Place::Router(view.router.meta.id)).unwrap();
    conntrack::retranslate(&namespace, view).unwrap()
}

#[test]
fn answers_pass_without_a_rule_and_a_revoked_rule_ends_its_flows_alone() {
    let mut lab = Lab::new();
    let cloud = lab.cloud(NetworkKind::Private, None);
    let client_group = lab.group(cloud, out());
    let allowed = |port| [Ipv4, Ipv6].map(|family| rule(Ingress, family, Some("tcp"), Some(port), Peer::Any));
    let mut rules = out();
    rules.extend(allowed("22"));
    rules.extend(allowed("80"));
    let server_group = lab.group(cloud, rules.clone());
    let client = lab.guest(cloud, 4, &[client_group]).configure();
    let server = lab.guest(cloud, 5, &[server_group]).configure();
    let mut streams = Vec::new();
    for ip in [server.v4(), server.v6()] {
        for port in [22, 80] {
            let at = serve_tcp(&server.namespace, SocketAddr::new(ip, port));
            streams.push((port, connect(&client.namespace, at, PATIENCE).expect("allowed").0));
        }
    }
    assert_eq!(revoke(&lab, cloud), 0, "everything is allowed");
    rules.retain(|rule| rule.ports.is_none_or(|ports| ports.first != 22));
    lab.set_rules(cloud, server_group, rules);
    lab.apply();
    assert!(streams.iter_mut().all(|(_, s)| echoes(s, PATIENCE)), "a rule alone does not end flows");
    assert_eq!(revoke(&lab, cloud), 2);
    for (port, stream) in &mut streams {
        let alive = echoes(stream, if *port == 22 { SILENCE } else { PATIENCE });
        assert_eq!(alive, *port == 80, "port {port}");
    }
    // The server may send where it likes, but its old flow must not come back by that.
    std::thread::sleep(SILENCE);
    assert!(!echoes(&mut streams[0].1, SILENCE));
}

#[test]
fn an_address_goes_to_another_without_its_flows() {
    let mut lab = Lab::new();
    let cloud = lab.cloud(NetworkKind::Private, None);
    let group = lab.group(cloud, open());
    let client = lab.guest(cloud, 4, &[group]).configure();
    let old = lab.guest(cloud, 5, &[group]).configure();
    let other = lab.guest(cloud, 6, &[group]).configure();
    let mut streams = vec![];
    for ip in [old.v4(), old.v6(), other.v4()] {
        let owner = if ip == other.v4() { &other } else { &old };
        let at = serve_tcp(&owner.namespace, SocketAddr::new(ip, 80));
        streams.push(connect(&client.namespace, at, PATIENCE).expect("allowed").0);
    }
    // And one that it has begun itself.
    let at = serve_tcp(&client.namespace, SocketAddr::new(client.v4(), 81));
    streams.push(connect(&old.namespace, at, PATIENCE).expect("allowed").0);
    let namespace = lab.dataplane.namespace(lab.place(cloud)).unwrap();
    let of_old = || {
        let flows = sys::conntrack::list(&namespace).unwrap().into_iter();
        let has = |ip: IpAddr| [old.v4(), old.v6()].contains(&ip);
        let of_old = flows.filter(|flow| has(flow.original.source) || has(flow.original.destination));
        of_old.filter(|flow| flow.original.protocol == 6).count()
    };
    assert_eq!((of_old(), revoke(&lab, cloud)), (3, 0), "every rule allows them");
    let ended = conntrack::forget(&namespace, &[old.v4(), old.v6()].into()).unwrap();
    assert!(ended >= 3, "{ended}");
    assert_eq!(of_old(), 0);
    assert!(echoes(&mut streams[2], PATIENCE), "others' flows are left alone");
}

#[test]
fn a_floating_ip_moves_live_and_nothing_of_the_old_flow_leaks() {
    let mut lab = Lab::new();
    lab.external(None, false);
    // To a neighbour on the same router, and to another project.
    let one = lab.cloud(NetworkKind::Private, Some(["203.0.113.10", "2001:db8:f::10"]));
    let two = lab.cloud(NetworkKind::Private, Some(["203.0.113.20", "2001:db8:f::20"]));
    let groups = [lab.group(one, open()), lab.group(two, open())];
    let guests = [
        (one, lab.guest(one, 4, &[groups[0]]).configure()),
        (one, lab.guest(one, 5, &[groups[0]]).configure()),
        (two, lab.guest(two, 6, &[groups[1]]).configure()),
    ];
    for (index, (_, guest)) in guests.iter().enumerate() {
        serve_tcp(&guest.namespace, SocketAddr::new(guest.v4(), 80));
        answer_as(&guest.namespace, SocketAddr::new(guest.v4(), 7), index as u8);
    }
    let floating: SocketAddr = "203.0.113.50:80".parse().unwrap();
    lab.floating("203.0.113.50", Some((guests[0].0, &guests[0].1.port)));
    lab.apply();
    assert!(ping(&lab.outside, floating.ip(), PATIENCE));
    let probe = Probe::start(&lab.outside, "203.0.113.50:7".parse().unwrap());
    probe.wait_for(0);
    for target in [1, 2, 0] {
        let (mut stream, _) = connect(&lab.outside, floating, PATIENCE).expect("before the move");
        assert!(echoes(&mut stream, PATIENCE));
        let (cloud, guest) = &guests[target];
        lab.floating("203.0.113.50", Some((*cloud, &guest.port)));
        lab.apply();
        retranslate(&lab, one);
        retranslate(&lab, two);
        probe.wait_for(target as u8);
        assert!(!echoes(&mut stream, SILENCE), "the old flow ended with the move to {target}");
        let (_, seen) = connect(&lab.outside, floating, PATIENCE).expect("after the move");
        assert_eq!(seen, address("192.0.2.2"));
    }
    let gap = probe.stop();
    println!("longest silence of the floating IP over three moves: {gap:?}");
    assert!(gap < Duration::from_secs(1), "{gap:?}");
    // Released: at once, for flows that are established too.
    let (mut stream, _) = connect(&lab.outside, floating, PATIENCE).expect("still there");
    lab.floating("203.0.113.50", None);
    lab.apply();
    retranslate(&lab, one);
    assert!(!echoes(&mut stream, SILENCE));
    assert!(connect(&lab.outside, floating, SILENCE).is_err());
}

/// A UDP server that answers with a number.
fn answer_as(namespace: &NetNs, at: SocketAddr, number: u8) {
    let socket = namespace.run(|| std::net::UdpSocket::bind(at)).unwrap().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&[number], peer);
        }
    });
}

/// Asks an address every few milliseconds, each time by a new flow, and notes who answered and the longest silence.
struct Probe {
    stop: Arc<AtomicBool>,
    last: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<Duration>,
}

impl Probe {
    fn start(from: &NetNs, to: SocketAddr) -> Self {
        let (stop, last) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(u64::MAX)));
        let inside = from.run(NetNs::current).unwrap().unwrap();
        let (stopped, answered) = (stop.clone(), last.clone());
        let thread = std::thread::spawn(move || {
            let mut heard = Instant::now();
            let mut longest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let socket = inside.run(|| std::net::UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
                socket.connect(to).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                let mut buffer = [0; 1];
                if socket.send(b"?").is_ok() && socket.recv(&mut buffer).is_ok() {
                    longest = longest.max(heard.elapsed());
                    heard = Instant::now();
                    answered.store(u64::from(buffer[0]), Ordering::Relaxed);
                }
            }
            longest
        });
        Self { stop, last, thread }
    }

    fn wait_for(&self, number: u8) {
        let deadline = Instant::now() + PATIENCE;
        while self.last.load(Ordering::Relaxed) != u64::from(number) {
            assert!(Instant::now() < deadline, "{number} never answered");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn nothing_of_a_dropped_packet_is_seen_in_the_guest() {
    let mut lab = Lab::new();
    let cloud = lab.cloud(NetworkKind::Private, None);
    let group = lab.group(cloud, out());
    let a = lab.guest(cloud, 4, &[group]).configure();
    let b = lab.guest(cloud, 5, &[group]).configure();
    let ear = FrameSocket::open(&b.namespace, "eth0", Some(0x0800)).unwrap();
    nix_nonblocking(&ear);
    assert!(!ping(&a.namespace, b.v4(), SILENCE));
    assert!(ask_udp(&a.namespace, SocketAddr::new(b.v4(), 9), SILENCE).is_err());
    let mut frame = [0; 2048];
    assert!(ear.receive(&mut frame).is_err(), "the guest's own interface saw a packet: {:?}", &frame[..64]);
}

fn nix_nonblocking(socket: &FrameSocket) {
    use std::os::fd::AsFd;
    rustix::io::ioctl_fionbio(socket.as_fd(), true).unwrap();
}

/// What a probe of the comparison sends: built by hand, so that every protocol can be sent at once.
#[derive(Debug, Clone, Copy)]
struct Packet {
    protocol: u8,
    port: u16,
    kind: u8,
    code: u8,
    v4: bool,
}

fn random_rules(direction: Direction) -> impl Strategy<Value = Vec<Rule>> {
    let one = (any::<bool>(), 0..6u8, 0..4u16, 0..4u16, 0..4u8, 0..3u8).prop_map(
        move |(v4, protocol, first, more, peer, icmp)| {
            let family = if v4 { Ipv4 } else { Ipv6 };
            let own_icmp = if v4 { Protocol::ICMP } else { Protocol::ICMPV6 };
            let protocol = [
                None,
                Some(Protocol::TCP),
                Some(Protocol::UDP),
                Some(own_icmp),
                Some(Protocol(47)),
                Some(Protocol::SCTP),
            ][usize::from(protocol)];
            let ranged = protocol.is_some_and(Protocol::has_ports) && first > 0;
            let other = |v4: &str, v6: &str| Peer::Net(if family == Ipv4 { v4 } else { v6 }.parse().unwrap());
            Rule {
                protocol,
                ports: ranged.then_some(PortRange { first: 1000 + first, last: 1000 + first + more }),
                icmp: (protocol == Some(own_icmp) && icmp > 0)
                    .then(|| IcmpMatch { kind: if v4 { 8 } else { 128 }, code: (icmp > 1).then_some(0) }),
                peer: match peer {
                    0 | 1 => Peer::Any,
                    2 => other("10.0.0.0/29", "fd00:a::/125"),
                    _ => other("10.0.0.32/27", "fd00:a::20/123"),
                },
                ..rule(direction, family, None, None, Peer::Any)
            }
        },
    );
    proptest::collection::vec(one, 0..12)
}

/// Random rules and random packets: the model's evaluator and the kernel with the compiled rules must agree.
#[test]
fn the_evaluator_and_the_kernel_agree() {
    let mut lab = Lab::new();
    let cloud = lab.cloud(NetworkKind::Private, None);
    let groups = [lab.group(cloud, open()), lab.group(cloud, open())];
    let gate = lab.group(cloud, vec![]);
    let a = lab.guest(cloud, 4, &[groups[0]]).configure();
    let b = lab.guest(cloud, 5, &[groups[1]]).configure();
    let namespace = lab.dataplane.namespace(lab.place(cloud)).unwrap();
    let ear = FrameSocket::open(&b.namespace, "eth0", None).unwrap();
    nix_nonblocking(&ear);
    let mouth = FrameSocket::open(&a.namespace, "eth0", Some(0)).unwrap();
    let mut runner = TestRunner::deterministic();
    let rules = (random_rules(Egress), random_rules(Ingress));
    let packets = proptest::collection::vec(
        (0..5u8, 999..1008u16, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(protocol, port, odd, code, v4)| {
                let protocol = [6, 17, if v4 { 1 } else { 58 }, 47, 132][usize::from(protocol)];
                let kind = match (v4, odd) {
                    (true, false) => 8,
                    (true, true) => 13,
                    (false, _) => 128,
                };
                Packet { protocol, port, kind, code: u8::from(code), v4 }
            },
        ),
        16,
    );
    let mut table = sys::conntrack::Conntrack::open(&namespace).unwrap();
    let mut passed = [0, 0];
    for round in 0..60 {
        let (egress, ingress) = rules.new_tree(&mut runner).unwrap().current();
        // In every third round the subnets have a gate of their own, whose rules are as random.
        let (out, into) = rules.new_tree(&mut runner).unwrap().current();
        let both = [out, into].concat();
        lab.set_rules(cloud, gate, both.clone());
        for subnet in &mut lab.clouds[cloud].view.subnets {
            subnet.security_groups = if round % 3 == 0 { vec![gate] } else { vec![] };
        }
        lab.set_rules(cloud, groups[0], egress.clone());
        lab.set_rules(cloud, groups[1], ingress.clone());
        lab.apply();
        for packet in packets.new_tree(&mut runner).unwrap().current() {
            table.delete_matching(|_| true).unwrap();
            let (source, destination) = if packet.v4 { (a.v4(), b.v4()) } else { (a.v6(), b.v6()) };
            let flow = Flow {
                source,
                destination,
                protocol: Protocol(packet.protocol),
                transport: match packet.protocol {
                    1 | 58 => Transport::Icmp { kind: packet.kind, code: packet.code },
                    47 => Transport::Bare,
                    _ => Transport::Ports { source: 40_000, destination: packet.port },
                },
            };
            let expected = lab.model_allows(cloud, &flow);
            while ear.receive(&mut [0; 2048]).is_ok() {}
            mouth.send(&frame(&a, packet, source, destination)).unwrap();
            // Passing is synchronous on a veth but for the receiver's softirq; a miss is looked at twice.
            let seen =
                heard(&ear, packet, source, if expected { PATIENCE } else { Duration::from_millis(3) });
            assert_eq!(
                seen, expected,
                "round {round} {packet:?}\negress {egress:#?}\ningress {ingress:#?}\ngate {both:#?}"
            );
            passed[usize::from(expected)] += 1;
        }
    }
    assert!(passed[0] > 100 && passed[1] > 100, "the cases are worth something: {passed:?}");
}

fn heard(ear: &FrameSocket, packet: Packet, source: IpAddr, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    let mut buffer = [0; 2048];
    loop {
        if let Ok(length) = ear.receive(&mut buffer) {
            let (protocol, from) =
                if packet.v4 { (buffer[23], &buffer[26..30]) } else { (buffer[20], &buffer[22..38]) };
            let expected = match source {
                IpAddr::V4(a) => a.octets().to_vec(),
                IpAddr::V6(a) => a.octets().to_vec(),
            };
            if length >= 38 && protocol == packet.protocol && from == expected {
                return true;
            }
        } else if Instant::now() >= deadline {
            return false;
        } else {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// An Ethernet frame from guest to gateway with correct checksums: connection tracking drops others.
fn frame(from: &Guest, packet: Packet, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let mut body = match packet.protocol {
        6 => [
            &40_000u16.to_be_bytes()[..],
            &packet.port.to_be_bytes(),
            &[0; 8],
            &[0x50, 2, 255, 255, 0, 0, 0, 0],
        ]
        .concat(),
        17 => {
            [&40_000u16.to_be_bytes()[..], &packet.port.to_be_bytes(), &8u16.to_be_bytes(), &[0, 0]].concat()
        }
        1 | 58 if packet.kind == 13 => [&[13, packet.code, 0, 0, 1, 2, 0, 1][..], &[0; 12]].concat(),
        1 | 58 => vec![packet.kind, packet.code, 0, 0, 1, 2, 0, 1],
        132 => sctp_init(packet.port),
        _ => vec![0, 0, 8, 0],
    };
    let octets = |address: IpAddr| match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let pseudo = [
        octets(source),
        octets(destination),
        vec![0, packet.protocol],
        (body.len() as u16).to_be_bytes().to_vec(),
    ]
    .concat();
    let place = match packet.protocol {
        6 => Some(16),
        17 => Some(6),
        1 | 58 => Some(2),
        _ => None,
    };
    if let Some(place) = place {
        let covered = if packet.protocol == 1 { body.clone() } else { [pseudo, body.clone()].concat() };
        body[place..place + 2].copy_from_slice(&checksum(&covered).to_be_bytes());
    }
    let mut out = [&model::address::GATEWAY_MAC.0[..], &from.port.mac.0].concat();
    if packet.v4 {
        out.extend([8, 0]);
        let mut header = [
            &[0x45, 0][..],
            &(20 + body.len() as u16).to_be_bytes(),
            &[0, 1, 0x40, 0, 64, packet.protocol, 0, 0],
        ]
        .concat();
        header.extend(octets(source));
        header.extend(octets(destination));
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        out.extend(header);
    } else {
        out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        out.extend((body.len() as u16).to_be_bytes());
        out.extend([packet.protocol, 64]);
        out.extend(octets(source));
        out.extend(octets(destination));
    }
    out.extend(body);
    out
}

/// An SCTP packet with an INIT chunk and its CRC32c (RFC 9260).
fn sctp_init(port: u16) -> Vec<u8> {
    let mut out = [&40_000u16.to_be_bytes()[..], &port.to_be_bytes(), &[0; 8]].concat();
    out.extend([1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0x10, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let mut crc = !0u32;
    for byte in &out {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    out[8..12].copy_from_slice(&(!crc).to_le_bytes());
    out
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
