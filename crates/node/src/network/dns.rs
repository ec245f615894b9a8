//! DNS answers of a network: names of instances, and which questions go to the outside instead.
//!
//! This file decides; sockets and forwarding are in `dns_server`. The server is the authority for the network's
//! domain and the reverse names of its ranges, and a forwarder for the rest where the network has a way out.

use crate::network::directory::{Directory, Zone};
use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, NS, PTR, SOA},
    },
};
use model::id::NetworkId;
use std::net::IpAddr;

/// Seconds that clients may keep an answer: short, since addresses come and go with instances.
pub const TTL_S: u32 = 5;
/// Largest UDP answer that is offered (the size that avoids fragments, DNS flag day 2020).
pub const UDP_BYTES_MAX: u16 = 1232;
/// Largest UDP answer to a client without EDNS (RFC 1035, section 4.2.1).
pub const UDP_BYTES_PLAIN: u16 = 512;

/// What becomes of a question.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// This is the answer.
    Answer(Box<Message>),
    /// The outside must be asked.
    Forward,
    /// Not worth an answer (it is an answer itself, or not DNS at all).
    Drop,
}

/// Decides on a message from `asker`, a guest of `network`.
pub fn decide(bytes: &[u8], network: NetworkId, asker: IpAddr, directory: &dyn Directory) -> Outcome {
    let request = match Message::from_vec(bytes) {
        Ok(request) => request,
        Err(_) => return format_error(bytes),
    };
    if request.metadata.message_type != MessageType::Query {
        return Outcome::Drop;
    }
    let Some(zone) = directory.zone(network) else {
        return refuse(&request, ResponseCode::Refused);
    };
    if request.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        return bad_version(&request);
    }
    if request.metadata.op_code != OpCode::Query {
        return refuse(&request, ResponseCode::NotImp);
    }
    let [query] = request.queries.as_slice() else {
        return refuse(&request, ResponseCode::FormErr);
    };
    if query.query_class() != DNSClass::IN
        || matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR)
    {
        return refuse(&request, ResponseCode::Refused);
    }
    match local(query, &zone, (network, asker), directory) {
        Some(found) => Outcome::Answer(Box::new(reply(&request, query, found))),
        None if !zone.forward || !request.metadata.recursion_desired => {
            refuse(&request, ResponseCode::Refused)
        }
        None => Outcome::Forward,
    }
}

/// What is known here about a name.
enum Found {
    Records(Vec<RData>),
    NoData(Name),
    NoName(Name),
}

fn local(
    query: &Query,
    zone: &Zone,
    (network, asker): (NetworkId, IpAddr),
    directory: &dyn Directory,
) -> Option<Found> {
    let name = query.name().to_ascii().to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    let origin = Name::from_ascii(format!("{}.", zone.domain)).ok()?;
    if name == zone.domain {
        return Some(apex(query.query_type(), &origin));
    }
    let inside = name.strip_suffix(&zone.domain).and_then(|rest| rest.strip_suffix('.'));
    let relative = inside.unwrap_or(name);
    let Some(addresses) = directory.addresses_of(network, asker, relative) else {
        // A bare label can only mean an instance: nothing outside is called that. An alias with dots can be either.
        let is_ours = inside.is_some() || !name.contains('.') && !name.is_empty();
        return if is_ours { Some(Found::NoName(origin)) } else { reverse(query, zone, network, directory) };
    };
    let wanted = query.query_type();
    let records: Vec<RData> = addresses
        .into_iter()
        .filter_map(|address| match address {
            IpAddr::V4(a) if matches!(wanted, RecordType::A | RecordType::ANY) => Some(RData::A(A(a))),
            IpAddr::V6(a) if matches!(wanted, RecordType::AAAA | RecordType::ANY) => {
                Some(RData::AAAA(AAAA(a)))
            }
            _ => None,
        })
        .collect();
    Some(if records.is_empty() { Found::NoData(origin) } else { Found::Records(records) })
}

fn apex(wanted: RecordType, origin: &Name) -> Found {
    match wanted {
        RecordType::SOA => Found::Records(vec![RData::SOA(authority(origin))]),
        RecordType::NS => Found::Records(vec![RData::NS(NS(server_name(origin)))]),
        _ => Found::NoData(origin.clone()),
    }
}

/// Reverse names of this network's own ranges; `None` for all that is not ours to answer.
fn reverse(query: &Query, zone: &Zone, network: NetworkId, directory: &dyn Directory) -> Option<Found> {
    let net = query.name().parse_arpa_name().ok()?;
    let address = net.addr();
    if !zone.ranges.iter().any(|range| range.contains(&net)) {
        return None;
    }
    let origin = Name::from_ascii(format!("{}.", zone.domain)).ok()?;
    if net.prefix_len() != net.max_prefix_len() {
        return Some(Found::NoData(origin));
    }
    match directory.name_of(network, address) {
        None => Some(Found::NoName(origin)),
        Some(name) if matches!(query.query_type(), RecordType::PTR | RecordType::ANY) => {
            let target = Name::from_ascii(format!("{name}.{}.", zone.domain)).ok()?;
            Some(Found::Records(vec![RData::PTR(PTR(target))]))
        }
        Some(_) => Some(Found::NoData(origin)),
    }
}

fn server_name(origin: &Name) -> Name {
    Name::from_ascii("ns.")
        .and_then(|ns| Name::from_labels(ns.iter().chain(origin.iter())))
        .unwrap_or_else(|_| origin.clone())
}

fn authority(origin: &Name) -> SOA {
    let mailbox = Name::from_ascii("hostmaster.")
        .and_then(|label| Name::from_labels(label.iter().chain(origin.iter())))
        .unwrap_or_else(|_| origin.clone());
    SOA::new(server_name(origin), mailbox, 1, 3600, 600, 86_400, TTL_S)
}

fn response(request: &Message, code: ResponseCode) -> Message {
    let mut message = Message::response(request.metadata.id, request.metadata.op_code);
    message.metadata = Metadata::response_from_request(&request.metadata);
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.add_queries(request.queries.iter().cloned());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES_MAX).set_version(0);
        message.set_edns(edns);
    }
    message
}

fn reply(request: &Message, query: &Query, found: Found) -> Message {
    let code = if matches!(found, Found::NoName(_)) { ResponseCode::NXDomain } else { ResponseCode::NoError };
    let mut message = response(request, code);
    message.metadata.authoritative = true;
    match found {
        Found::Records(records) => {
            for data in records {
                message.add_answer(Record::from_rdata(query.name().clone(), TTL_S, data));
            }
        }
        // The SOA lets clients remember for how long there is nothing (RFC 2308).
        Found::NoData(origin) | Found::NoName(origin) => {
            let data = RData::SOA(authority(&origin));
            message.add_authority(Record::from_rdata(origin, TTL_S, data));
        }
    }
    message
}

fn refuse(request: &Message, code: ResponseCode) -> Outcome {
    Outcome::Answer(Box::new(response(request, code)))
}

/// An answer that says that the outside could not be asked.
pub fn server_failure(bytes: &[u8]) -> Option<Message> {
    let request = Message::from_vec(bytes).ok()?;
    Some(response(&request, ResponseCode::ServFail))
}

fn bad_version(request: &Message) -> Outcome {
    let mut message = response(request, ResponseCode::BADVERS);
    if let Some(edns) = message.edns.as_mut() {
        edns.set_rcode_high(ResponseCode::BADVERS.high());
    }
    Outcome::Answer(Box::new(message))
}

/// A header is enough to say that the rest made no sense; less is not DNS.
fn format_error(bytes: &[u8]) -> Outcome {
    let is_query = bytes.len() >= 12 && bytes[2] & 0x80 == 0;
    if !is_query {
        return Outcome::Drop;
    }
    let id = u16::from_be_bytes([bytes[0], bytes[1]]);
    Outcome::Answer(Box::new(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr)))
}

/// Largest UDP answer that the sender of `bytes` takes.
pub fn udp_limit(request: &Message) -> u16 {
    request
        .edns
        .as_ref()
        .map_or(UDP_BYTES_PLAIN, |edns| edns.max_payload().clamp(UDP_BYTES_PLAIN, UDP_BYTES_MAX))
}

/// The answer on the wire; one that is longer than `limit` goes empty with the bit set that sends clients to TCP.
pub fn encode(message: &Message, limit: u16) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok()?;
    if bytes.len() <= usize::from(limit) {
        return Some(bytes);
    }
    let mut short = message.truncate();
    short.metadata.message_type = MessageType::Response;
    short.to_vec().ok()
}
