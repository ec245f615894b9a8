//! The connection tracking table of a network namespace: which flows the kernel remembers, and forgetting one.
//!
//! A rule that is taken away does not end a flow that it once let in, and a floating IP that has moved still has its old
//! translation: the entries of exactly those flows have to be deleted. Must never flush more than was named.
//! Protocol: ctnetlink, linux/netfilter/nfnetlink_conntrack.h.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::error::{Context, Error, Result};
use crate::netlink::{Conversation, NESTED, attributes_of, parse_address, put};
use crate::netns::NetNs;

/// Message types: the subsystem in the upper byte.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const NEW: u16 = 1 << 8;
/// `struct nfgenmsg`.
const HEADER_SIZE_BYTES: usize = 4;

// enum ctattr_type
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_MARK: u16 = 8;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
// enum ctattr_tuple
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;
// enum ctattr_ip
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
// enum ctattr_l4proto
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMPV6_ID: u16 = 7;
/// A dump during which entries came and went is asked again, so often at most.
const ATTEMPTS_MAX: u32 = 16;

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Where its packets come from.
    pub source: IpAddr,
    /// Where they go.
    pub destination: IpAddr,
    /// The number of the protocol (6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6).
    pub protocol: u8,
    /// The port they come from; 0 for a protocol without ports.
    pub source_port: u16,
    /// The port they go to; 0 for a protocol without ports.
    pub destination_port: u16,
    /// For ICMP: what tells one echo from another.
    pub icmp: Option<Icmp>,
    /// The zone of this direction alone.
    pub zone: Option<u16>,
}

/// The parts of an ICMP message that name a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Icmp {
    /// The identifier of an echo.
    pub id: u16,
    /// The type of the message.
    pub kind: u8,
    /// The code of the message.
    pub code: u8,
}

/// A flow that the kernel remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// As the first packet was, before any translation.
    pub original: Tuple,
    /// As the answers are, before they are translated back.
    pub reply: Tuple,
    /// `IPS_*` bits of linux/netfilter/nf_conntrack_common.h; see the methods.
    pub status: u32,
    /// The mark that rules gave it.
    pub mark: u32,
    /// The zone of both directions; 0 is the usual one.
    pub zone: u16,
    /// The number of the entry. A later one with the same tuples may have it again.
    pub id: Option<u32>,
}

impl Flow {
    /// Whether an answer was seen.
    pub fn is_answered(&self) -> bool {
        self.status & 1 << 1 != 0
    }

    /// Whether its source is translated.
    pub fn has_source_nat(&self) -> bool {
        self.status & 1 << 4 != 0
    }

    /// Whether its destination is translated.
    pub fn has_destination_nat(&self) -> bool {
        self.status & 1 << 5 != 0
    }
}

/// A socket to the table of one namespace.
#[derive(Debug)]
pub struct Conntrack {
    conversation: Conversation,
    name: String,
}

impl Conntrack {
    /// Opens a socket inside `namespace`.
    pub fn open(namespace: &NetNs) -> Result<Conntrack> {
        let name = namespace.name().display().to_string();
        let conversation = namespace
            .run(|| Conversation::open(NETLINK_NETFILTER))
            .context("open conntrack socket in", &name)?
            .context("open conntrack socket in", &name)?;
        Ok(Conntrack { conversation, name })
    }

    /// All flows, of both address families.
    pub fn list(&mut self) -> Result<Vec<Flow>> {
        for _ in 0..ATTEMPTS_MAX {
            let mut flows = Vec::new();
            let request =
                self.conversation.encode_raw(GET, NLM_F_REQUEST | NLM_F_DUMP, &header(libc::AF_UNSPEC));
            let result = self.conversation.exchange(&request, |kind, payload| {
                if kind == NEW {
                    flows.extend(payload.get(HEADER_SIZE_BYTES..).and_then(parse));
                }
            });
            match result {
                Ok(()) => return Ok(flows),
                Err(failure) if failure.error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(failure) => return Err(failure.into_error("list flows of", &self.name)),
            }
        }
        Err(Error::new("list flows of", &self.name, std::io::Error::from_raw_os_error(libc::EAGAIN)))
    }

    /// Forgets a flow: its next packet is judged as a new one. A flow that is gone already is fine.
    pub fn delete(&mut self, flow: &Flow) -> Result<()> {
        let family = if flow.original.source.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let mut payload = header(family).to_vec();
        put(&mut payload, CTA_TUPLE_ORIG | NESTED, &encode(&flow.original));
        if flow.zone != 0 {
            put(&mut payload, CTA_ZONE, &flow.zone.to_be_bytes());
        }
        if let Some(id) = flow.id {
            put(&mut payload, CTA_ID, &id.to_be_bytes());
        }
        let request = self.conversation.encode_raw(DELETE, NLM_F_REQUEST | NLM_F_ACK, &payload);
        match self.conversation.exchange(&request, |_, _| ()) {
            Err(failure) if failure.error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result.map_err(|failure| failure.into_error("delete flow of", &self.name)),
        }
    }

    /// Forgets every flow that `chosen` picks; returns how many.
    pub fn delete_matching(&mut self, chosen: impl Fn(&Flow) -> bool) -> Result<usize> {
        let flows: Vec<Flow> = self.list()?.into_iter().filter(|flow| chosen(flow)).collect();
        flows.iter().try_for_each(|flow| self.delete(flow))?;
        Ok(flows.len())
    }
}

/// All flows of a namespace.
pub fn list(namespace: &NetNs) -> Result<Vec<Flow>> {
    Conntrack::open(namespace)?.list()
}

/// Forgets a flow of a namespace; see [`Conntrack::delete`].
pub fn delete(namespace: &NetNs, flow: &Flow) -> Result<()> {
    Conntrack::open(namespace)?.delete(flow)
}

fn header(family: i32) -> [u8; HEADER_SIZE_BYTES] {
    [family as u8, 0, 0, 0]
}

fn encode(tuple: &Tuple) -> Vec<u8> {
    let mut addresses = Vec::new();
    match (tuple.source, tuple.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            put(&mut addresses, CTA_IP_V4_SRC, &source.octets());
            put(&mut addresses, CTA_IP_V4_SRC + 1, &destination.octets());
        }
        (source, destination) => {
            // A pair of two families cannot be in the table; the kernel answers that there is none.
            for (kind, address) in [(CTA_IP_V6_SRC, source), (CTA_IP_V6_SRC + 1, destination)] {
                if let IpAddr::V6(address) = address {
                    put(&mut addresses, kind, &address.octets());
                }
            }
        }
    }
    let mut protocol = Vec::new();
    put(&mut protocol, CTA_PROTO_NUM, &[tuple.protocol]);
    match tuple.icmp {
        Some(icmp) => {
            let first = if tuple.source.is_ipv4() { CTA_PROTO_ICMP_ID } else { CTA_PROTO_ICMPV6_ID };
            put(&mut protocol, first, &icmp.id.to_be_bytes());
            put(&mut protocol, first + 1, &[icmp.kind]);
            put(&mut protocol, first + 2, &[icmp.code]);
        }
        None => {
            put(&mut protocol, CTA_PROTO_SRC_PORT, &tuple.source_port.to_be_bytes());
            put(&mut protocol, CTA_PROTO_DST_PORT, &tuple.destination_port.to_be_bytes());
        }
    }
    let mut bytes = Vec::new();
    put(&mut bytes, CTA_TUPLE_IP | NESTED, &addresses);
    put(&mut bytes, CTA_TUPLE_PROTO | NESTED, &protocol);
    if let Some(zone) = tuple.zone {
        put(&mut bytes, CTA_TUPLE_ZONE, &zone.to_be_bytes());
    }
    bytes
}

fn parse(attributes: &[u8]) -> Option<Flow> {
    let (mut original, mut reply) = (None, None);
    let (mut status, mut mark, mut zone, mut id) = (0, 0, 0, None);
    for (kind, value) in attributes_of(attributes) {
        match kind {
            CTA_TUPLE_ORIG => original = parse_tuple(&value),
            CTA_TUPLE_REPLY => reply = parse_tuple(&value),
            CTA_STATUS => status = be_u32(&value)?,
            CTA_MARK => mark = be_u32(&value)?,
            CTA_ZONE => zone = be_u16(&value)?,
            CTA_ID => id = be_u32(&value),
            _ => {}
        }
    }
    Some(Flow { original: original?, reply: reply?, status, mark, zone, id })
}

fn parse_tuple(attributes: &[u8]) -> Option<Tuple> {
    let (mut source, mut destination, mut zone) = (None, None, None);
    let (mut protocol, mut source_port, mut destination_port) = (0, 0, 0);
    let (mut id, mut icmp_kind, mut code) = (None, 0, 0);
    for (kind, value) in attributes_of(attributes) {
        match kind {
            CTA_TUPLE_IP => {
                for (kind, value) in attributes_of(&value) {
                    // Sources have odd numbers, destinations even ones.
                    let place = if kind % 2 == 1 { &mut source } else { &mut destination };
                    *place = parse_address(&value);
                }
            }
            CTA_TUPLE_PROTO => {
                for (kind, value) in attributes_of(&value) {
                    match kind {
                        CTA_PROTO_NUM => protocol = *value.first()?,
                        CTA_PROTO_SRC_PORT => source_port = be_u16(&value)?,
                        CTA_PROTO_DST_PORT => destination_port = be_u16(&value)?,
                        CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID => id = be_u16(&value),
                        5 | 8 => icmp_kind = *value.first()?,
                        6 | 9 => code = *value.first()?,
                        _ => {}
                    }
                }
            }
            CTA_TUPLE_ZONE => zone = be_u16(&value),
            _ => {}
        }
    }
    let icmp = id.map(|id| Icmp { id, kind: icmp_kind, code });
    let (source, destination) = (source?, destination?);
    Some(Tuple { source, destination, protocol, source_port, destination_port, icmp, zone })
}

fn be_u16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|first| u16::from_be_bytes(*first))
}

fn be_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|first| u32::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tuple_is_read_back_as_it_was_written() {
        let tuple = |source: &str, destination: &str, icmp| Tuple {
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
            protocol: if icmp { 1 } else { 6 },
            source_port: if icmp { 0 } else { 40000 },
            destination_port: if icmp { 0 } else { 80 },
            icmp: icmp.then_some(Icmp { id: 7, kind: 8, code: 0 }),
            zone: (!icmp).then_some(9),
        };
        for tuple in [
            tuple("10.0.0.1", "10.0.0.2", false),
            tuple("10.0.0.1", "10.0.0.2", true),
            tuple("fd00::1", "fd00::2", false),
            tuple("fd00::1", "fd00::2", true),
        ] {
            assert_eq!(parse_tuple(&encode(&tuple)), Some(tuple));
        }
        assert_eq!(parse_tuple(&[]), None);
        assert_eq!(parse(&[8, 0, 1, 0, 255, 255, 255, 255]), None, "broken attributes are no flow");
    }
}
