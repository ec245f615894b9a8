//! DHCPv4 (RFC 2131, RFC 2132, RFC 3442): the answer to one message of one port, and the loop that serves a network.
//!
//! There is no pool and no lease file: a port has its address for life, so every answer is a pure function of the
//! message and the port's facts, and a restarted daemon renews what its predecessor gave. The device that a
//! message came in by says which port it is; a message that names another port's MAC is not answered at all.

use crate::network::{
    directory::Directory,
    limit::{Rate, RateLimit},
    sockets::{DatagramSocket, Devices, Reply},
};
use dhcproto::{
    Decodable, Encodable,
    v4::{DhcpOption, Flags, HType, Message, MessageType, Opcode, OptionCode},
};
use hickory_proto::rr::Name;
use ipnet::Ipv4Net;
use model::{
    dataplane::service::{PortFacts, V4Facts},
    id::NetworkId,
};
use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Instant,
};

/// Port that servers listen on.
pub const SERVER_PORT: u16 = 67;
/// Port that clients listen on.
pub const CLIENT_PORT: u16 = 68;
/// How long an address is told to be good for. It is good for the life of the port, but options change sometimes.
pub const LEASE_S: u32 = 86_400;
/// Messages that a port may send: bursts of 20, then 5 a second.
const RATE: Rate = Rate { burst: 20.0, per_second: 5.0 };
/// What a client must be able to take when it says nothing (RFC 2131, section 2), without IP and UDP headers.
const MESSAGE_BYTES_DEFAULT: usize = 576 - 28;

/// Bytes of a message before its options: the fixed part and the magic cookie (RFC 2131, section 3).
const HEAD_BYTES: usize = 240;
/// Where the fields for a server's name and a boot file begin; clients have nothing to say there.
const NAMES_START: usize = 44;
const MAGIC_COOKIE: [u8; 4] = [99, 130, 83, 99];

/// Reads a client's message. Only the options that answers depend on are handed to the library, and those only in
/// their right length: its decoder panics on some that are malformed, and guests may send anything.
pub fn parse(bytes: &[u8]) -> Option<Message> {
    if bytes.len() < HEAD_BYTES || bytes[HEAD_BYTES - 4..HEAD_BYTES] != MAGIC_COOKIE || bytes[2] != 6 {
        return None;
    }
    let mut clean = bytes[..HEAD_BYTES].to_vec();
    clean[NAMES_START..HEAD_BYTES - 4].fill(0);
    let mut rest = &bytes[HEAD_BYTES..];
    let mut seen = Vec::new();
    while let [code, tail @ ..] = rest {
        match code {
            0 => rest = tail,
            255 => break,
            code => {
                let (length, tail) = tail.split_first()?;
                let value = tail.get(..usize::from(*length))?;
                rest = &tail[value.len()..];
                // One said twice would be put together into one of a wrong length (RFC 3396).
                if is_known(*code, value.len()) && !seen.contains(code) {
                    seen.push(*code);
                    clean.extend([*code, *length]);
                    clean.extend(value);
                }
            }
        }
    }
    clean.push(255);
    Message::from_bytes(&clean).ok()
}

/// Whether an option is one that answers depend on, in its right length.
fn is_known(code: u8, length: usize) -> bool {
    match code {
        // Requested address, server identifier.
        50 | 54 => length == 4,
        // Message type.
        53 => length == 1,
        // Longest message.
        57 => length == 2,
        // Client identifier.
        61 => length >= 2,
        // Rapid commit.
        80 => length == 0,
        _ => false,
    }
}

/// An answer and where it goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The message.
    pub message: Message,
    /// Address it is sent to, on the device that the question came in by.
    pub to: Ipv4Addr,
}

/// The answer to `request` from the port that `facts` describe, or `None` if it deserves none.
pub fn answer(request: &Message, facts: &PortFacts) -> Option<Answer> {
    let v4 = facts.v4.as_ref()?;
    if !is_from(request, facts) {
        return None;
    }
    let named_server = match request.opts().get(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(server)) => Some(*server),
        _ => None,
    };
    if named_server.is_some_and(|server| server != v4.server) {
        return None;
    }
    match request.opts().msg_type()? {
        MessageType::Discover if request.opts().contains(OptionCode::RapidCommit) => {
            let mut answer = lease(request, facts, v4, MessageType::Ack);
            answer.message.opts_mut().insert(DhcpOption::RapidCommit);
            Some(answer)
        }
        MessageType::Discover => Some(lease(request, facts, v4, MessageType::Offer)),
        MessageType::Request => {
            let wanted = match request.opts().get(OptionCode::RequestedIpAddress) {
                Some(DhcpOption::RequestedIpAddress(address)) => *address,
                _ => request.ciaddr(),
            };
            if wanted == v4.address {
                Some(lease(request, facts, v4, MessageType::Ack))
            } else {
                Some(refusal(request, v4))
            }
        }
        MessageType::Inform if request.ciaddr() == v4.address => Some(information(request, facts, v4)),
        // The address stays the port's, whatever the guest says of it.
        MessageType::Decline => {
            tracing::warn!(port = %facts.port, address = %v4.address, "guest declined its address");
            None
        }
        _ => None,
    }
}

/// Whether the message is a client's, on this link, and from the port's own MAC. The length comes first: the
/// library panics when asked for a longer address than the field holds.
fn is_from(request: &Message, facts: &PortFacts) -> bool {
    request.hlen() == 6
        && request.opcode() == Opcode::BootRequest
        && request.htype() == HType::Eth
        && request.chaddr() == facts.mac.0
        && request.giaddr().is_unspecified()
}

fn head(request: &Message, v4: &V4Facts, kind: MessageType) -> Message {
    let mut message = Message::new_with_id(
        request.xid(),
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        request.chaddr(),
    );
    message.set_opcode(Opcode::BootReply).set_flags(request.flags());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(v4.server));
    // RFC 6842: the client's identifier goes back to it.
    if let Some(id) = request.opts().get(OptionCode::ClientIdentifier) {
        options.insert(id.clone());
    }
    message
}

fn lease(request: &Message, facts: &PortFacts, v4: &V4Facts, kind: MessageType) -> Answer {
    let mut message = head(request, v4, kind);
    message.set_yiaddr(v4.address).set_siaddr(v4.server);
    if kind == MessageType::Ack {
        message.set_ciaddr(request.ciaddr());
    }
    let options = message.opts_mut();
    options.insert(DhcpOption::AddressLeaseTime(LEASE_S));
    options.insert(DhcpOption::Renewal(LEASE_S / 2));
    options.insert(DhcpOption::Rebinding(LEASE_S / 8 * 7));
    describe(&mut message, facts, v4);
    fit(&mut message, request);
    let to = destination(request, v4);
    Answer { message, to }
}

fn information(request: &Message, facts: &PortFacts, v4: &V4Facts) -> Answer {
    let mut message = head(request, v4, MessageType::Ack);
    message.set_ciaddr(request.ciaddr()).set_siaddr(v4.server);
    describe(&mut message, facts, v4);
    fit(&mut message, request);
    Answer { message, to: request.ciaddr() }
}

fn refusal(request: &Message, v4: &V4Facts) -> Answer {
    let mut message = head(request, v4, MessageType::Nak);
    // A refused client has no address to be reached by (RFC 2131, section 4.3.2).
    message.set_flags(Flags::default().set_broadcast());
    Answer { message, to: Ipv4Addr::BROADCAST }
}

fn describe(message: &mut Message, facts: &PortFacts, v4: &V4Facts) {
    let options = message.opts_mut();
    if let Ok(net) = Ipv4Net::new(v4.address, v4.prefix_len) {
        options.insert(DhcpOption::SubnetMask(net.netmask()));
        options.insert(DhcpOption::BroadcastAddr(net.broadcast()));
    }
    let mut routes = v4.routes.clone();
    if let Some(gateway) = v4.gateway {
        options.insert(DhcpOption::Router(vec![gateway]));
        // A client that reads option 121 ignores option 3 (RFC 3442), so the default route is in both.
        let everything = Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0).expect("0 is a prefix length");
        routes.push((everything, gateway));
    }
    options.insert(DhcpOption::ClasslessStaticRoute(routes));
    if !v4.dns.is_empty() {
        options.insert(DhcpOption::DomainNameServer(v4.dns.clone()));
    }
    if let Some(hostname) = &facts.hostname {
        options.insert(DhcpOption::Hostname(hostname.clone()));
    }
    options.insert(DhcpOption::DomainName(facts.domain.clone()));
    if let Ok(domain) = Name::from_ascii(format!("{}.", facts.domain)) {
        options.insert(DhcpOption::DomainSearch(vec![domain]));
    }
    if let Ok(mtu) = u16::try_from(facts.mtu) {
        options.insert(DhcpOption::InterfaceMtu(mtu));
    }
}

/// Leaves out what is told elsewhere too, until the message is as small as the client asks.
fn fit(message: &mut Message, request: &Message) {
    let limit = match request.opts().get(OptionCode::MaxMessageSize) {
        Some(DhcpOption::MaxMessageSize(bytes)) => usize::from(*bytes).max(576) - 28,
        _ => MESSAGE_BYTES_DEFAULT,
    };
    let spare = [
        OptionCode::DomainSearch,
        OptionCode::Hostname,
        OptionCode::BroadcastAddr,
        OptionCode::ClasslessStaticRoute,
    ];
    for code in spare {
        if message.to_vec().map_or(usize::MAX, |bytes| bytes.len()) <= limit {
            return;
        }
        message.opts_mut().remove(code);
    }
}

/// Where an answer to `request` goes (RFC 2131, section 4.1). A permanent neighbour entry of the port lets the
/// kernel reach an address that the client does not have yet.
fn destination(request: &Message, v4: &V4Facts) -> Ipv4Addr {
    if !request.ciaddr().is_unspecified() {
        request.ciaddr()
    } else if request.flags().broadcast() {
        Ipv4Addr::BROADCAST
    } else {
        v4.address
    }
}

/// Serves a network until the socket's task is dropped.
pub async fn serve(
    socket: DatagramSocket,
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
        let Ok(bytes) = answer.message.to_vec() else {
            continue;
        };
        let server = facts.v4.as_ref().map(|v4| v4.server.into());
        let to = SocketAddr::V4(SocketAddrV4::new(answer.to, CLIENT_PORT));
        let reply = Reply { bytes: &padded(bytes), to, from: server, device_index: datagram.device_index };
        if let Err(error) = socket.send(reply).await {
            tracing::debug!(%network, port = %facts.port, %error, "DHCP answer was not sent");
        }
    }
}

/// Old clients drop messages shorter than BOOTP's 300 bytes (RFC 1542, section 2.1).
fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() < 300 {
        bytes.resize(300, 0);
    }
    bytes
}
