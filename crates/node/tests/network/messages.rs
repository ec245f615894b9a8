//! Messages that clients rarely send, and bytes that nobody should: answered by the book, or not at all.

use dhcproto::{Decodable, Encodable, v4, v6};
use hickory_proto::op::{Message, ResponseCode};
use model::{
    dataplane::service::{PortFacts, V4Facts, V6Facts},
    id::{NetworkId, PortId},
    metadata::Document,
    subnet::{Ipv6Mode, Ipv6Part},
};
use node::network::{
    dhcp, dhcpv6,
    directory::{Directory, Zone},
    dns::{self, Outcome},
    ra,
};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const MAC: [u8; 6] = [0xfa, 0x16, 0x3e, 1, 2, 3];
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn facts() -> PortFacts {
    PortFacts {
        port: PortId::from_random([1; 16]),
        device: "p1".into(),
        mac: model::address::Mac(MAC),
        hostname: Some("web".into()),
        domain: "holm.internal".into(),
        mtu: 1450,
        routed: true,
        v4: Some(V4Facts {
            address: OWN,
            prefix_len: 24,
            gateway: Some(SERVER),
            server: SERVER,
            dns: vec![SERVER],
            routes: vec![("169.254.169.254/32".parse().unwrap(), SERVER)],
        }),
        v6: vec![V6Facts {
            address: "fd00:a::4".parse().unwrap(),
            prefix: "fd00:a::/64".parse().unwrap(),
            mode: Ipv6Mode::Stateful,
            part: Ipv6Part::Both,
            dns: vec!["fd00:a::1".parse().unwrap()],
        }],
    }
}

fn v4_message(kind: v4::MessageType, ciaddr: Ipv4Addr, options: &[v4::DhcpOption]) -> v4::Message {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = v4::Message::new_with_id(7, ciaddr, none, none, none, &MAC);
    message.opts_mut().insert(v4::DhcpOption::MessageType(kind));
    for option in options {
        message.opts_mut().insert(option.clone());
    }
    message
}

#[test]
fn dhcp_is_answered_by_the_book() {
    use v4::{DhcpOption as O, MessageType as M};
    let none = Ipv4Addr::UNSPECIFIED;
    let other = Ipv4Addr::new(10, 0, 0, 9);
    // What is asked, and the kind of the answer with the address it goes to.
    let cases: Vec<(&str, v4::Message, Option<(M, Ipv4Addr)>)> = vec![
        ("discover", v4_message(M::Discover, none, &[]), Some((M::Offer, OWN))),
        ("discover, rapid", v4_message(M::Discover, none, &[O::RapidCommit]), Some((M::Ack, OWN))),
        (
            "select",
            v4_message(M::Request, none, &[O::RequestedIpAddress(OWN), O::ServerIdentifier(SERVER)]),
            Some((M::Ack, OWN)),
        ),
        (
            "select another server",
            v4_message(M::Request, none, &[O::RequestedIpAddress(OWN), O::ServerIdentifier(other)]),
            None,
        ),
        ("reboot", v4_message(M::Request, none, &[O::RequestedIpAddress(OWN)]), Some((M::Ack, OWN))),
        (
            "reboot elsewhere",
            v4_message(M::Request, none, &[O::RequestedIpAddress(other)]),
            Some((M::Nak, Ipv4Addr::BROADCAST)),
        ),
        ("renew", v4_message(M::Request, OWN, &[]), Some((M::Ack, OWN))),
        ("renew another's", v4_message(M::Request, other, &[]), Some((M::Nak, Ipv4Addr::BROADCAST))),
        ("inform", v4_message(M::Inform, OWN, &[]), Some((M::Ack, OWN))),
        ("inform of another's", v4_message(M::Inform, other, &[]), None),
        ("release", v4_message(M::Release, OWN, &[O::ServerIdentifier(SERVER)]), None),
        (
            "decline",
            v4_message(M::Decline, none, &[O::RequestedIpAddress(OWN), O::ServerIdentifier(SERVER)]),
            None,
        ),
        ("an offer", v4_message(M::Offer, none, &[]), None),
    ];
    for (what, request, expected) in cases {
        let answer = dhcp::answer(&request, &facts());
        let got = answer.as_ref().map(|a| (a.message.opts().msg_type().unwrap(), a.to));
        assert_eq!(got, expected, "{what}");
        if what == "inform" {
            let message = answer.unwrap().message;
            assert!(message.yiaddr().is_unspecified());
            assert!(
                !message.opts().contains(v4::OptionCode::AddressLeaseTime),
                "no lease in an answer to inform"
            );
        }
    }
    let mut broadcast = v4_message(M::Discover, none, &[]);
    broadcast.set_flags(v4::Flags::default().set_broadcast());
    assert_eq!(dhcp::answer(&broadcast, &facts()).unwrap().to, Ipv4Addr::BROADCAST);
    let mut relayed = v4_message(M::Discover, none, &[]);
    relayed.set_giaddr(other);
    assert_eq!(dhcp::answer(&relayed, &facts()), None);
    let mut foreign = v4_message(M::Discover, none, &[]);
    foreign.set_chaddr(&[1, 2, 3, 4, 5, 6]);
    assert_eq!(dhcp::answer(&foreign, &facts()), None);
    let without = PortFacts { v4: None, ..facts() };
    assert_eq!(dhcp::answer(&v4_message(M::Discover, none, &[]), &without), None);
}

#[test]
fn a_dhcp_answer_is_never_longer_than_the_client_takes() {
    let mut many = facts();
    let route = |n: u8| (format!("10.{n}.0.0/16").parse().unwrap(), SERVER);
    many.v4.as_mut().unwrap().routes.extend((0..120).map(route));
    let short =
        dhcp::answer(&v4_message(v4::MessageType::Discover, Ipv4Addr::UNSPECIFIED, &[]), &many).unwrap();
    assert!(short.message.to_vec().unwrap().len() <= 548);
    assert!(short.message.opts().contains(v4::OptionCode::Router), "what matters stays");
    let roomy = [v4::DhcpOption::MaxMessageSize(1500)];
    let long =
        dhcp::answer(&v4_message(v4::MessageType::Discover, Ipv4Addr::UNSPECIFIED, &roomy), &many).unwrap();
    assert!(long.message.opts().contains(v4::OptionCode::ClasslessStaticRoute));
}

#[test]
fn a_hardware_address_that_is_too_long_does_no_harm() {
    let mut bytes = v4_message(v4::MessageType::Discover, Ipv4Addr::UNSPECIFIED, &[]).to_vec().unwrap();
    for length in [0, 5, 7, 16, 17, 255] {
        bytes[2] = length;
        if let Some(message) = dhcp::parse(&bytes) {
            assert_eq!(dhcp::answer(&message, &facts()), None, "{length}");
        }
    }
}

fn v6_message(kind: v6::MessageType, server: Option<Vec<u8>>, address: Option<&str>) -> v6::Message {
    let mut message = v6::Message::new_with_id(kind, [1, 2, 3]);
    let options = message.opts_mut();
    options.insert(v6::DhcpOption::ClientId(vec![0, 3, 0, 1, 9]));
    if let Some(server) = server {
        options.insert(v6::DhcpOption::ServerId(server));
    }
    let mut opts = v6::DhcpOptions::new();
    if let Some(address) = address {
        let addr: Ipv6Addr = address.parse().unwrap();
        let opts_of = v6::DhcpOptions::new();
        opts.insert(v6::DhcpOption::IAAddr(v6::IAAddr {
            addr,
            preferred_life: 1,
            valid_life: 1,
            opts: opts_of,
        }));
    }
    if kind != v6::MessageType::InformationRequest {
        options.insert(v6::DhcpOption::IANA(v6::IANA { id: 5, t1: 0, t2: 0, opts }));
    }
    message
}

fn bound(message: &v6::Message) -> Vec<(Ipv6Addr, u32)> {
    let ia =
        message.opts().iter().filter_map(|o| if let v6::DhcpOption::IANA(ia) = o { Some(ia) } else { None });
    let address = |o: &v6::DhcpOption| {
        if let v6::DhcpOption::IAAddr(a) = o { Some((a.addr, a.valid_life)) } else { None }
    };
    let mut bound: Vec<_> =
        ia.flat_map(|ia| ia.opts.iter().filter_map(address).collect::<Vec<_>>()).collect();
    bound.sort();
    bound
}

#[test]
fn dhcpv6_is_answered_by_the_book() {
    use v6::MessageType as M;
    let ours = || Some(dhcpv6::server_id());
    let own: (Ipv6Addr, u32) = ("fd00:a::4".parse().unwrap(), dhcpv6::LIFETIME_S);
    let cases = [
        ("solicit", M::Solicit, None, None, Some((M::Advertise, vec![own]))),
        ("request", M::Request, ours(), None, Some((M::Reply, vec![own]))),
        ("request to another", M::Request, Some(vec![1]), None, None),
        ("request to nobody", M::Request, None, None, None),
        ("renew", M::Renew, ours(), Some("fd00:a::4"), Some((M::Reply, vec![own]))),
        (
            "renew another's",
            M::Renew,
            ours(),
            Some("fd00:a::9"),
            Some((M::Reply, vec![own, ("fd00:a::9".parse().unwrap(), 0)])),
        ),
        ("rebind", M::Rebind, None, Some("fd00:a::4"), Some((M::Reply, vec![own]))),
        ("confirm", M::Confirm, None, Some("fd00:a::4"), Some((M::Reply, vec![]))),
        ("confirm nothing", M::Confirm, None, None, None),
        ("release", M::Release, ours(), Some("fd00:a::4"), Some((M::Reply, vec![]))),
        ("decline", M::Decline, ours(), Some("fd00:a::4"), Some((M::Reply, vec![]))),
        ("information", M::InformationRequest, None, None, Some((M::Reply, vec![]))),
        ("a reply", M::Reply, ours(), None, None),
    ];
    for (what, kind, server, address, expected) in cases {
        let answer = dhcpv6::answer(&v6_message(kind, server, address), &facts());
        let got = answer.as_ref().map(|a| (a.msg_type(), bound(a)));
        assert_eq!(got, expected, "{what}");
        if let Some(answer) = answer {
            assert!(
                answer.opts().get(v6::OptionCode::ServerId).is_some()
                    && answer.opts().get(v6::OptionCode::ClientId).is_some()
            );
            let again = v6::Message::from_bytes(&answer.to_vec().unwrap()).unwrap();
            assert_eq!(again.xid(), [1, 2, 3], "{what}");
        }
    }
    let stateless = facts().v6.into_iter().map(|v6| V6Facts { mode: Ipv6Mode::Stateless, ..v6 }).collect();
    let facts = PortFacts { v6: stateless, ..facts() };
    let answer = dhcpv6::answer(&v6_message(M::Solicit, None, None), &facts).unwrap();
    assert!(bound(&answer).is_empty(), "a stateless subnet gives no addresses");
    let of_others = |part| facts.v6.iter().map(|v6| V6Facts { part, ..v6.clone() }).collect();
    let foreign = PortFacts { v6: of_others(Ipv6Part::Advertise), ..facts.clone() };
    assert!(dhcpv6::answer(&v6_message(M::Solicit, None, None), &foreign).is_none(), "others serve");
    let foreign = PortFacts { v6: of_others(Ipv6Part::Serve), ..facts.clone() };
    assert!(dhcpv6::answer(&v6_message(M::Solicit, None, None), &foreign).is_some());
    assert_eq!(ra::advertisement(&foreign), None, "others advertise");
}

#[test]
fn advertisements_say_what_the_subnet_is() {
    let flags = |mode, routed| {
        let v6 = facts().v6.into_iter().map(|v6| V6Facts { mode, ..v6 }).collect();
        let bytes = ra::advertisement(&PortFacts { v6, routed, ..facts() }).unwrap();
        assert_eq!(bytes.len() % 8, 0, "options are whole");
        // The prefix option follows 16 bytes of head, 8 of link-layer address and 8 of MTU.
        assert_eq!(&bytes[32..35], [3, 4, 64]);
        (bytes[5], bytes[35])
    };
    assert_eq!(flags(Ipv6Mode::Stateful, true), (0xc0, 0));
    assert_eq!(flags(Ipv6Mode::Stateless, true), (0x40, 0x40));
    assert_eq!(flags(Ipv6Mode::Slaac, true), (0, 0x40));
    assert_eq!(flags(Ipv6Mode::Stateful, false), (0xd8, 0), "low preference without a router");
    assert_eq!(ra::advertisement(&PortFacts { v6: vec![], ..facts() }), None);
    assert!(
        ra::is_solicitation(&[133, 0, 0, 0, 0, 0, 0, 0])
            && !ra::is_solicitation(&[134; 8])
            && !ra::is_solicitation(&[133, 0])
    );
}

/// Who asks.
const ASKER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));

/// A directory in which nothing is known and everything may be asked for outside.
struct Empty;

impl Directory for Empty {
    fn port_of_device(&self, _: NetworkId, _: &str) -> Option<PortFacts> {
        None
    }
    fn port_of_address(&self, _: NetworkId, _: IpAddr) -> Option<PortFacts> {
        None
    }
    fn zone(&self, _: NetworkId) -> Option<Zone> {
        Some(Zone {
            domain: "holm.internal".into(),
            ranges: vec!["10.0.0.0/24".parse().unwrap()],
            forward: true,
        })
    }
    fn addresses_of(&self, _: NetworkId, _: IpAddr, name: &str) -> Option<Vec<IpAddr>> {
        (name == "many").then(|| (0..=255).map(|n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))).collect())
    }
    fn name_of(&self, _: NetworkId, _: IpAddr) -> Option<String> {
        None
    }
    fn document(&self, _: PortId, _: &str) -> Option<Document> {
        None
    }
}

fn network() -> NetworkId {
    NetworkId::from_random([2; 16])
}

#[test]
fn a_long_answer_sends_the_client_to_tcp() {
    use hickory_proto::{
        op::Query,
        rr::{Name, RecordType},
    };
    let mut request = Message::query();
    request.add_query(Query::query(Name::from_ascii("many.holm.internal.").unwrap(), RecordType::A));
    let Outcome::Answer(answer) = dns::decide(&request.to_vec().unwrap(), network(), ASKER, &Empty) else {
        panic!("answered here")
    };
    assert_eq!(answer.answers.len(), 256);
    let short = dns::encode(&answer, dns::udp_limit(&request)).unwrap();
    assert!(short.len() <= 512);
    let short = Message::from_vec(&short).unwrap();
    assert!(short.metadata.truncation && short.answers.is_empty());
    let long = Message::from_vec(&dns::encode(&answer, u16::MAX).unwrap()).unwrap();
    assert_eq!(long.answers.len(), 256);
}

#[test]
fn questions_that_make_no_sense_are_told_so() {
    let Outcome::Answer(answer) =
        dns::decide(&[1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], network(), ASKER, &Empty)
    else {
        panic!("a head is answered")
    };
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (0x0102, ResponseCode::FormErr));
    assert_eq!(dns::decide(&[1, 2, 3], network(), ASKER, &Empty), Outcome::Drop);
    assert_eq!(
        dns::decide(&[1, 2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0], network(), ASKER, &Empty),
        Outcome::Drop,
        "an answer"
    );
}

proptest! {
    #[test]
    fn no_bytes_make_a_service_stumble(bytes in proptest::collection::vec(any::<u8>(), 0..700), hlen in any::<u8>()) {
        let _ = dns::decide(&bytes, network(), ASKER, &Empty);
        let question = [&[1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, hlen & 1][..], &bytes].concat();
        let _ = dns::decide(&question, network(), ASKER, &Empty);
        let _ = dns::server_failure(&bytes);
        let _ = ra::is_solicitation(&bytes);
        // Random bytes rarely get past the first checks, so a valid head is put before them.
        let mut head = v4_message(v4::MessageType::Discover, Ipv4Addr::UNSPECIFIED, &[]).to_vec().unwrap();
        head[2] = hlen;
        head.truncate(243);
        head.extend(&bytes);
        if let Some(message) = dhcp::parse(&head) {
            let _ = dhcp::answer(&message, &facts()).map(|answer| answer.message.to_vec());
        }
        let mut head = v6_message(v6::MessageType::Solicit, None, None).to_vec().unwrap();
        head.extend(&bytes);
        if let Some(message) = dhcpv6::parse(&head) {
            let _ = dhcpv6::answer(&message, &facts()).map(|answer| answer.to_vec());
        }
    }
}
