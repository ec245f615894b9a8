//! Flows: listed with their translation, deleted one by one, and judged anew after that.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use sys::conntrack::{self, Conntrack, Flow};
use sys::nft;

use crate::guard::Pair;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// `left` is the outside; `right` owns the addresses, tracks flows and translates port 80 to 8080.
fn tracked() -> Pair {
    let pair = Pair::new();
    for (netlink, device, host) in [(&pair.left_netlink, "left", 1), (&pair.right_netlink, "right", 2)] {
        netlink.add_address(device, format!("10.7.0.{host}/24").parse().expect("a prefix")).expect("added");
        netlink.add_address(device, format!("fd07::{host}/64").parse().expect("a prefix")).expect("added");
    }
    nft::apply(
        &pair.right,
        "table inet holm {
            chain nat { type nat hook prerouting priority dstnat; tcp dport 80 redirect to :8080; }
            chain in { type filter hook input priority 0; ct state established accept; ct mark set 0x2a; }
        }",
    )
    .expect("applied");
    pair
}

fn udp_flow(pair: &Pair, from: &str, to: &str) -> (UdpSocket, UdpSocket) {
    let receiver = pair.right.run(|| UdpSocket::bind((ip(to), 0))).expect("ran").expect("bound");
    let sender = pair.left.run(|| UdpSocket::bind((ip(from), 0))).expect("ran").expect("bound");
    sender.connect(receiver.local_addr().expect("an address")).expect("connected");
    sender.send(b"x").expect("sent");
    receiver.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    receiver.recv(&mut [0; 8]).expect("received");
    (sender, receiver)
}

fn find(flows: &[Flow], socket: &UdpSocket) -> Option<Flow> {
    let port = socket.local_addr().expect("an address").port();
    flows.iter().find(|flow| flow.original.source_port == port && flow.original.protocol == 17).copied()
}

#[test]
fn flows_are_listed_and_exactly_one_is_deleted() {
    let pair = tracked();
    let (first, _receiver) = udp_flow(&pair, "10.7.0.1", "10.7.0.2");
    let (second, _receiver) = udp_flow(&pair, "10.7.0.1", "10.7.0.2");
    let (third, _receiver) = udp_flow(&pair, "fd07::1", "fd07::2");
    let flows = conntrack::list(&pair.right).expect("listed");
    let flow = find(&flows, &first).expect("the first flow");
    assert_eq!((flow.original.source, flow.original.destination), (ip("10.7.0.1"), ip("10.7.0.2")));
    assert_eq!((flow.mark, flow.zone, flow.is_answered(), flow.has_source_nat()), (0x2a, 0, false, false));
    assert_eq!(find(&flows, &third).expect("the third flow").original.destination, ip("fd07::2"));
    for _ in 0..2 {
        conntrack::delete(&pair.right, &flow).expect("deleted");
    }
    let flows = conntrack::list(&pair.right).expect("listed");
    assert_eq!(find(&flows, &first), None);
    assert!(find(&flows, &second).is_some() && find(&flows, &third).is_some(), "the others stay");
    // Its next packet makes a new entry.
    first.send(b"again").expect("sent");
    crate::guard::eventually("tracked again", || {
        find(&conntrack::list(&pair.right).expect("listed"), &first).is_some()
    });
    let mut table = Conntrack::open(&pair.right).expect("a socket");
    let deleted = table.delete_matching(|flow| flow.original.source == ip("10.7.0.1")).expect("deleted");
    assert_eq!(deleted, 2);
    assert!(find(&table.list().expect("listed"), &third).is_some());
    assert_eq!(conntrack::list(&pair.left).expect("listed"), Vec::<Flow>::new(), "nothing is tracked there");
}

#[test]
fn a_revoked_rule_ends_a_flow_once_its_entry_is_deleted() {
    let pair = tracked();
    let listener = pair.right.run(|| TcpListener::bind("10.7.0.2:8080")).expect("ran").expect("bound");
    let mut client = pair.left.run(|| TcpStream::connect("10.7.0.2:80")).expect("ran").expect("connected");
    let (mut server, _) = listener.accept().expect("accepted");
    server.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    client.write_all(b"one").expect("sent");
    server.read_exact(&mut [0; 3]).expect("received");
    let flows = conntrack::list(&pair.right).expect("listed");
    let flow = flows.iter().find(|flow| flow.original.protocol == 6).expect("the flow");
    assert_eq!((flow.original.destination_port, flow.reply.source_port), (80, 8080));
    assert!(flow.is_answered() && flow.has_destination_nat() && !flow.has_source_nat());
    // The rule goes; the established flow goes on, until it is forgotten.
    nft::apply(&pair.right, "add rule inet holm in drop").expect("applied");
    client.write_all(b"two").expect("sent");
    server.read_exact(&mut [0; 3]).expect("still received");
    conntrack::delete(&pair.right, flow).expect("deleted");
    client.write_all(b"three").expect("sent into the void");
    server.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
    assert!(server.read(&mut [0; 8]).is_err(), "nothing arrives any more");
}

#[test]
fn an_echo_is_a_flow_of_its_own() {
    let pair = tracked();
    for address in ["10.7.0.2", "fd07::2"] {
        // A ping socket would need a sysctl; the kernel's own raw one is at hand for root.
        let protocol = if address.contains(':') { 58 } else { 1 };
        let ping = || std::process::Command::new("ping").args(["-c1", "-W5", address]).output();
        let output = pair.left.run(ping).expect("ran").expect("ping is installed");
        assert!(output.status.success(), "{output:?}");
        let mut table = Conntrack::open(&pair.right).expect("a socket");
        let is_echo = |flow: &Flow| {
            flow.original.protocol == protocol
                && flow.original.icmp.is_some_and(|icmp| [8, 128].contains(&icmp.kind))
        };
        assert!(table.list().expect("listed").iter().any(is_echo));
        assert_eq!(table.delete_matching(is_echo).expect("deleted"), 1);
        assert!(!table.list().expect("listed").iter().any(is_echo));
    }
}
