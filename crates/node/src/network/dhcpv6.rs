//! DHCPv6 (RFC 8415): addresses and DNS servers of one port, and the loop that serves a network.
//!
//! As with DHCPv4 nothing is remembered: the device that a message came in by tells the port, the port has its
//! addresses for life, so every answer is a pure function of the message and the port's facts.

use crate::network::{
    directory::Directory,
    limit::{Rate, RateLimit},
    sockets::{DatagramSocket, Devices, Reply},
};
use dhcproto::{
    Decodable, Encodable,
    v6::{DhcpOption, DhcpOptions, IAAddr, IANA, Message, MessageType, OptionCode, Status, StatusCode},
};
use hickory_proto::rr::Name;
use model::{address::GATEWAY_MAC, dataplane::service::PortFacts, id::NetworkId, subnet::Ipv6Mode};
use std::{net::Ipv6Addr, sync::Arc, time::Instant};

/// Port that servers listen on.
pub const SERVER_PORT: u16 = 547;
/// Group that clients send to (All_DHCP_Relay_Agents_and_Servers).
pub const SERVERS_GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// How long an address is told to be good for, in seconds.
pub const LIFETIME_S: u32 = 86_400;
/// Messages that a port may send: bursts of 20, then 5 a second.
const RATE: Rate = Rate { burst: 20.0, per_second: 5.0 };

/// Bytes before the options of a message: its type and transaction (RFC 8415, section 8).
const HEAD_BYTES: usize = 4;
/// Bytes before the options of an identity association.
const ASSOCIATION_BYTES: usize = 12;
/// Bytes before the options of an address.
const ADDRESS_BYTES: usize = 24;
/// Longest DUID (RFC 8415, section 11.1).
const DUID_BYTES_MAX: usize = 130;

/// Reads a client's message. Only what answers depend on is handed to the library, in its right length: guests may
/// send anything, and no decoder's mistake may cost the others their service.
pub fn parse(bytes: &[u8]) -> Option<Message> {
    let head = bytes.get(..HEAD_BYTES)?;
    // Relays have another layout, and there are none on a guest's link.
    if head[0] == 0 || head[0] > 11 {
        return None;
    }
    let mut clean = head.to_vec();
    for (code, value) in options(&bytes[HEAD_BYTES..]) {
        match (code, value.len()) {
            (1 | 2, length) if (1..=DUID_BYTES_MAX).contains(&length) => put(&mut clean, code, value),
            (14, 0) => put(&mut clean, code, value),
            (3, ASSOCIATION_BYTES..) => {
                let mut association = value[..ASSOCIATION_BYTES].to_vec();
                for (code, value) in options(&value[ASSOCIATION_BYTES..]).filter(|(code, _)| *code == 5) {
                    if let Some(address) = value.get(..ADDRESS_BYTES) {
                        put(&mut association, code, address);
                    }
                }
                put(&mut clean, code, &association);
            }
            (25, ASSOCIATION_BYTES..) => put(&mut clean, code, &value[..ASSOCIATION_BYTES]),
            _ => {}
        }
    }
    Message::from_bytes(&clean).ok()
}

/// Codes and values of options, up to the first that is cut off.
fn options(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (head, tail) = rest.split_at_checked(4)?;
        let (value, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes([head[2], head[3]])))?;
        rest = tail;
        Some((u16::from_be_bytes([head[0], head[1]]), value))
    })
}

fn put(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend(code.to_be_bytes());
    out.extend((value.len() as u16).to_be_bytes());
    out.extend(value);
}

/// This server's DUID: link-layer kind (RFC 8415, section 11.4) of the gateway's MAC, the same on every host.
pub fn server_id() -> Vec<u8> {
    let mut id = vec![0, 3, 0, 1];
    id.extend(GATEWAY_MAC.0);
    id
}

/// The answer to `request` from the port that `facts` describe, or `None` if it deserves none.
pub fn answer(request: &Message, facts: &PortFacts) -> Option<Message> {
    if !facts.v6.iter().any(|v6| v6.part.serves()) {
        return None;
    }
    let options = request.opts();
    let client = options.get(OptionCode::ClientId);
    let named_server = match options.get(OptionCode::ServerId) {
        Some(DhcpOption::ServerId(id)) => Some(id.as_slice()),
        _ => None,
    };
    let ours = server_id();
    let to_us = named_server == Some(ours.as_slice());
    let rapid = options.get(OptionCode::RapidCommit).is_some();
    let kind = match request.msg_type() {
        MessageType::Solicit if client.is_some() && named_server.is_none() => {
            if rapid {
                MessageType::Reply
            } else {
                MessageType::Advertise
            }
        }
        MessageType::Request | MessageType::Renew | MessageType::Release | MessageType::Decline
            if client.is_some() && to_us =>
        {
            MessageType::Reply
        }
        MessageType::Rebind | MessageType::Confirm if client.is_some() && named_server.is_none() => {
            MessageType::Reply
        }
        MessageType::InformationRequest if named_server.is_none() || to_us => MessageType::Reply,
        _ => return None,
    };
    let mut reply = Message::new_with_id(kind, request.xid());
    let out = reply.opts_mut();
    out.insert(DhcpOption::ServerId(ours));
    if let Some(client) = client {
        out.insert(client.clone());
    }
    match request.msg_type() {
        MessageType::Confirm => out.insert(status(confirm(request, facts)?, "")),
        MessageType::Release | MessageType::Decline => {
            out.insert(status(Status::Success, "the address stays the port's"))
        }
        MessageType::InformationRequest => describe(out, facts),
        kind => {
            if kind == MessageType::Solicit && rapid {
                out.insert(DhcpOption::RapidCommit);
            }
            out.insert(DhcpOption::Preference(255));
            bind(request, facts, out);
            describe(out, facts);
        }
    }
    Some(reply)
}

fn status(status: Status, msg: &str) -> DhcpOption {
    DhcpOption::StatusCode(StatusCode { status, msg: msg.to_string() })
}

fn stateful(facts: &PortFacts) -> impl Iterator<Item = Ipv6Addr> {
    facts.v6.iter().filter(|v6| v6.mode == Ipv6Mode::Stateful && v6.part.serves()).map(|v6| v6.address)
}

/// Whether all addresses that the client asks about are the port's; `None` when it names none.
fn confirm(request: &Message, facts: &PortFacts) -> Option<Status> {
    let asked: Vec<Ipv6Addr> = request
        .opts()
        .iter()
        .filter_map(|option| if let DhcpOption::IANA(ia) = option { Some(ia) } else { None })
        .flat_map(|ia| addresses(&ia.opts))
        .collect();
    if asked.is_empty() {
        return None;
    }
    let ours: Vec<Ipv6Addr> = stateful(facts).collect();
    Some(if asked.iter().all(|address| ours.contains(address)) { Status::Success } else { Status::NotOnLink })
}

fn addresses(options: &DhcpOptions) -> Vec<Ipv6Addr> {
    let address = |option: &DhcpOption| {
        if let DhcpOption::IAAddr(a) = option { Some(a.addr) } else { None }
    };
    options.iter().filter_map(address).collect()
}

/// Answers each identity association: the first gets the port's addresses, the others get none.
fn bind(request: &Message, facts: &PortFacts, out: &mut DhcpOptions) {
    let ours: Vec<Ipv6Addr> = stateful(facts).collect();
    let mut first = true;
    for option in request.opts().iter().take(16) {
        match option {
            DhcpOption::IANA(asked) => {
                let mut opts = DhcpOptions::new();
                if first && !ours.is_empty() {
                    for addr in &ours {
                        opts.insert(address(*addr, LIFETIME_S));
                    }
                    // Addresses that the client holds in error end at once (RFC 8415, section 18.3.4).
                    for stale in addresses(&asked.opts).into_iter().filter(|a| !ours.contains(a)).take(8) {
                        opts.insert(address(stale, 0));
                    }
                } else {
                    opts.insert(status(Status::NoAddrsAvail, "the port has no further address"));
                }
                first = false;
                out.insert(DhcpOption::IANA(IANA {
                    id: asked.id,
                    t1: LIFETIME_S / 2,
                    t2: LIFETIME_S / 8 * 7,
                    opts,
                }));
            }
            DhcpOption::IAPD(asked) => {
                let mut refused = asked.clone();
                refused.opts = DhcpOptions::new();
                refused.opts.insert(status(Status::NoPrefixAvail, "prefixes are not delegated"));
                out.insert(DhcpOption::IAPD(refused));
            }
            _ => {}
        }
    }
}

fn address(addr: Ipv6Addr, lifetime_s: u32) -> DhcpOption {
    DhcpOption::IAAddr(IAAddr {
        addr,
        preferred_life: lifetime_s,
        valid_life: lifetime_s,
        opts: DhcpOptions::new(),
    })
}

fn describe(out: &mut DhcpOptions, facts: &PortFacts) {
    let mut dns: Vec<Ipv6Addr> = facts.v6.iter().flat_map(|v6| v6.dns.iter().copied()).collect();
    dns.dedup();
    if !dns.is_empty() {
        out.insert(DhcpOption::DomainNameServers(dns));
    }
    if let Ok(domain) = Name::from_ascii(format!("{}.", facts.domain)) {
        out.insert(DhcpOption::DomainSearchList(vec![domain]));
    }
}

/// Serves a network until the socket's task is dropped.
pub async fn serve(
    socket: Arc<DatagramSocket>,
    network: NetworkId,
    directory: Arc<dyn Directory>,
    devices: Devices,
) -> std::io::Result<()> {
    let mut limit = RateLimit::new(RATE);
    loop {
        let datagram = socket.receive().await?;
        if !limit.take(datagram.device_index, Instant::now()) {
            continue;
        }
        let facts =
            devices.name(datagram.device_index).and_then(|name| directory.port_of_device(network, &name));
        let (Some(facts), Some(request)) = (facts, parse(&datagram.bytes)) else {
            continue;
        };
        let Some(answer) = answer(&request, &facts) else {
            continue;
        };
        let Ok(bytes) = answer.to_vec() else { continue };
        let reply =
            Reply { bytes: &bytes, to: datagram.peer, from: None, device_index: datagram.device_index };
        if let Err(error) = socket.send(reply).await {
            tracing::debug!(%network, port = %facts.port, %error, "DHCPv6 answer was not sent");
        }
    }
}
