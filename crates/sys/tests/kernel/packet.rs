//! Announcements move an address to another card, frames arrive as sent, router solicitations are heard.

use std::net::{IpAddr, Ipv6Addr};

use sys::netlink::Netlink;
use sys::packet::{self, FrameSocket, RouterSocket};
use sys::sysctl;

use crate::guard::{Pair, eventually};

const OLD: [u8; 6] = [2, 0, 0, 0, 0, 1];
const NEW: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn mac_of(netlink: &Netlink, device: &str, address: &str) -> Option<[u8; 6]> {
    let address: IpAddr = address.parse().expect("an address");
    netlink.neighbours(device).expect("listed").into_iter().find(|entry| entry.address == address)?.mac
}

#[test]
fn announcements_move_addresses_at_once() {
    let pair = Pair::new();
    pair.right_netlink.add_address("right", "10.7.0.2/24".parse().expect("a prefix")).expect("added");
    pair.right_netlink.add_address("right", "fd07::2/64".parse().expect("a prefix")).expect("added");
    // These let the receiver learn an address from the announcement alone.
    sysctl::write(&pair.right, "net/ipv4/conf/right/arp_accept", "1").expect("set");
    sysctl::write(&pair.right, "net/ipv6/conf/right/forwarding", "1").expect("set");
    sysctl::write(&pair.right, "net/ipv6/conf/right/accept_untracked_na", "1").expect("set");
    for mac in [OLD, NEW] {
        let address = "10.7.0.77".parse().expect("an address");
        // Sent until it is learned: the kernel holds an entry for a second against flapping, and a link that has just
        // come up may lose a frame.
        eventually("learned by ARP", || {
            packet::send_gratuitous_arp(&pair.left, "left", mac, address).expect("sent");
            mac_of(&pair.right_netlink, "right", "10.7.0.77") == Some(mac)
        });
        pair.right_netlink.delete_neighbour("right", address.into()).expect("deleted");
    }
    for mac in [OLD, NEW] {
        let address: Ipv6Addr = "fd07::77".parse().expect("an address");
        eventually("learned by neighbour discovery", || {
            packet::send_unsolicited_na(&pair.left, "left", mac, address, false).expect("sent");
            mac_of(&pair.right_netlink, "right", "fd07::77") == Some(mac)
        });
    }
}

#[test]
fn a_frame_arrives_as_it_was_sent_and_only_its_type_is_heard() {
    let pair = Pair::new();
    let listener = FrameSocket::open(&pair.right, "right", Some(0x88b5)).expect("opened");
    let frame = |ethertype: [u8; 2]| [&[255; 6][..], &OLD, &ethertype, &[7; 50]].concat();
    packet::send_frame(&pair.left, "left", &frame([0x88, 0xb6])).expect("sent");
    packet::send_frame(&pair.left, "left", &frame([0x88, 0xb5])).expect("sent");
    let mut buffer = [0; 2048];
    let length = listener.receive(&mut buffer).expect("received");
    assert_eq!(&buffer[..length], frame([0x88, 0xb5]));
    assert!(FrameSocket::open(&pair.right, "gone", None).is_err());
}

#[test]
fn a_host_solicits_and_takes_its_prefix_and_route_from_the_advertisement() {
    let pair = Pair::new();
    sysctl::write(&pair.right, "net/ipv6/conf/right/accept_ra", "1").expect("set");
    pair.left_netlink.add_address("left", "fe80::1/64".parse().expect("a prefix")).expect("added");
    let router = RouterSocket::open(&pair.left, "left").expect("opened");
    // Taking a host's device down and up makes it solicit.
    pair.right_netlink.set_down("right").expect("down");
    pair.right_netlink.set_up("right").expect("up");
    let mut buffer = [0; 512];
    let (length, _) = router.receive(&mut buffer).expect("a solicitation");
    assert!(length >= 8 && buffer[0] == 133);
    // Hop limit 64, no flags, router for 1800 s; a prefix to form addresses from (RFC 4861, RFC 4862).
    let mut message = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0]);
    message.extend("fd77::".parse::<Ipv6Addr>().expect("an address").octets());
    router.send(&message, RouterSocket::all_nodes()).expect("sent");
    eventually("an address of the prefix", || {
        let addresses = pair.right_netlink.addresses("right").expect("listed");
        addresses.iter().any(|address| address.to_string().starts_with("fd77:"))
    });
    router.set_nonblocking().expect("set");
    while let Ok((length, _)) = router.receive(&mut buffer) {
        assert!(length > 0 && buffer[0] == 133, "nothing but solicitations is heard");
    }
}
