//! Elements of sets and maps that are there already, spoken over netlink: the change that an instance's coming and going is.
//!
//! A run of nft takes ten milliseconds of a processor for it, the kernel a fraction of one. Keys and values are those of
//! nft(8); what is not known here is left to nft. Protocol: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::{
    error::{Context, Result},
    netlink::{Conversation, NESTED, put},
    netns::NetNs,
};

/// Longer changes go to nft, whose loading they outlast.
const CHANGES_MAX: usize = 256;
/// A key and its value are a few dozen bytes; the names of a table, a set and a chain at most 255 each.
const NAME_BYTES_MAX: usize = 255;
/// `IFNAMSIZ`: a device's name in a key is filled up with zeros.
const DEVICE_NAME_BYTES: usize = 16;

// Message types, `enum nfnl_batch_msg_types` and `enum nf_tables_msg_types` in the subsystem of nf_tables.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;
/// `NFPROTO_INET`.
const FAMILY_INET: u8 = 1;
// enum nft_set_elem_list_attributes
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
// enum nft_list_attributes
const LIST_ELEMENT: u16 = 1;
// enum nft_set_elem_attributes
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
// enum nft_data_attributes
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
// enum nft_verdict_attributes
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
// enum nft_verdicts, and those of linux/netfilter.h
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;

/// An element that comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElementChange<'a> {
    /// The set or map.
    pub set: &'a str,
    /// Its type as nft(8) spells it: `ifname . ether_addr`, `ifname : verdict`. No intervals.
    pub kind: &'a str,
    /// The key, in nft's words.
    pub key: &'a str,
    /// The value in a map, else empty.
    pub value: &'a str,
    /// It comes.
    pub added: bool,
}

/// Changes the elements of one namespace's tables of family `inet`.
#[derive(Debug)]
pub struct Elements {
    namespace: Arc<NetNs>,
    conversation: Mutex<Option<Conversation>>,
}

impl Elements {
    /// For a namespace; no socket is opened before the first change.
    pub fn new(namespace: Arc<NetNs>) -> Self {
        Self { namespace, conversation: Mutex::default() }
    }

    /// Makes all the changes to sets of `table`, or none and an error. Gives whether it could: `false` when there is something
    /// among them that is left to nft.
    ///
    /// # Errors
    /// The kernel's: a set that is not there, an element to be removed that is not, another value of one to be added.
    pub fn change(&self, table: &str, changes: &[ElementChange<'_>]) -> Result<bool> {
        let payloads: Option<Vec<_>> = changes.iter().map(|change| payload(table, change)).collect();
        let Some(payloads) = payloads.filter(|_| changes.len() <= CHANGES_MAX) else {
            return Ok(false);
        };
        if changes.is_empty() {
            return Ok(true);
        }
        let operation = "change rules of";
        let name = &self.namespace.name().display().to_string();
        let mut held = self.conversation.lock().unwrap_or_else(PoisonError::into_inner);
        let mut conversation = match held.take() {
            Some(conversation) => conversation,
            None => self
                .namespace
                .run(|| Conversation::open(NETLINK_NETFILTER))
                .context(operation, name)?
                .context(operation, name)?,
        };
        let messages = transaction(&mut conversation, changes, &payloads);
        let exchanged = conversation.exchange_batch(&messages, changes.len());
        exchanged.map_err(|failure| failure.into_error(operation, name))?;
        *held = Some(conversation);
        Ok(true)
    }
}

/// The messages; the last change asks for an answer.
fn transaction(
    conversation: &mut Conversation,
    changes: &[ElementChange<'_>],
    payloads: &[Vec<u8>],
) -> Vec<Vec<u8>> {
    let frame = header(0, SUBSYSTEM);
    let mut messages = vec![conversation.encode_raw(BATCH_BEGIN, NLM_F_REQUEST, &frame)];
    for (index, (change, payload)) in changes.iter().zip(payloads).enumerate() {
        let (kind, create) = if change.added { (NEW_ELEMENT, NLM_F_CREATE) } else { (DELETE_ELEMENT, 0) };
        let answer = if index + 1 == changes.len() { NLM_F_ACK } else { 0 };
        messages.push(conversation.encode_raw(kind, NLM_F_REQUEST | create | answer, payload));
    }
    messages.push(conversation.encode_raw(BATCH_END, NLM_F_REQUEST, &frame));
    messages
}

/// `struct nfgenmsg`.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn payload(table: &str, change: &ElementChange<'_>) -> Option<Vec<u8>> {
    let (key_kind, value_kind) =
        change.kind.split_once(" : ").map_or((change.kind, None), |(k, v)| (k, Some(v)));
    let mut element = Vec::new();
    let mut key = Vec::new();
    put(&mut key, DATA_VALUE, &parse(key_kind, change.key)?);
    put(&mut element, ELEMENT_KEY | NESTED, &key);
    match value_kind {
        Some("verdict") => put(&mut element, ELEMENT_DATA | NESTED, &verdict(change.value)?),
        Some(kind) => {
            let mut value = Vec::new();
            put(&mut value, DATA_VALUE, &parse(kind, change.value)?);
            put(&mut element, ELEMENT_DATA | NESTED, &value);
        }
        None => {}
    }
    let mut elements = Vec::new();
    put(&mut elements, LIST_ELEMENT | NESTED, &element);
    let mut payload = header(FAMILY_INET, 0).to_vec();
    put(&mut payload, LIST_TABLE, &named(table)?);
    put(&mut payload, LIST_SET, &named(change.set)?);
    put(&mut payload, LIST_ELEMENTS | NESTED, &elements);
    Some(payload)
}

fn named(name: &str) -> Option<Vec<u8>> {
    let fits = name.len() <= NAME_BYTES_MAX && !name.contains('\0');
    fits.then(|| [name.as_bytes(), &[0]].concat())
}

fn verdict(text: &str) -> Option<Vec<u8>> {
    let (code, chain) = match text.split_once(' ') {
        Some(("jump", chain)) => (JUMP, Some(chain)),
        Some(("goto", chain)) => (GOTO, Some(chain)),
        Some(_) => return None,
        None => match text {
            "accept" => (ACCEPT, None),
            "drop" => (DROP, None),
            "return" => (RETURN, None),
            _ => return None,
        },
    };
    let mut verdict = Vec::new();
    put(&mut verdict, VERDICT_CODE, &code.to_be_bytes());
    if let Some(chain) = chain {
        put(&mut verdict, VERDICT_CHAIN, &named(chain)?);
    }
    let mut data = Vec::new();
    put(&mut data, DATA_VERDICT | NESTED, &verdict);
    Some(data)
}

/// A key or a value as the kernel holds it: the parts of a concatenation each fill whole registers of four bytes.
fn parse(kind: &str, text: &str) -> Option<Vec<u8>> {
    let (kinds, texts): (Vec<_>, Vec<_>) = (kind.split(" . ").collect(), text.split(" . ").collect());
    match kinds[..] {
        [kind] => part(kind, text),
        _ if kinds.len() != texts.len() => None,
        _ => {
            let mut bytes = Vec::new();
            for (kind, text) in kinds.into_iter().zip(texts) {
                bytes.extend(part(kind, text)?);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            Some(bytes)
        }
    }
}

fn part(kind: &str, text: &str) -> Option<Vec<u8>> {
    match kind {
        "ifname" => {
            let name = text.strip_prefix('"')?.strip_suffix('"')?;
            // A star at the end would mean all devices that begin so.
            let is_plain =
                !name.is_empty() && name.len() < DEVICE_NAME_BYTES && !name.contains(['*', '\\', '\0']);
            let mut bytes = name.as_bytes().to_vec();
            bytes.resize(DEVICE_NAME_BYTES, 0);
            is_plain.then_some(bytes)
        }
        "ether_addr" => {
            let bytes: Option<Vec<u8>> =
                text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
            bytes.filter(|bytes| bytes.len() == 6)
        }
        "ipv4_addr" => text.parse().ok().map(|address: Ipv4Addr| address.octets().to_vec()),
        "ipv6_addr" => text.parse().ok().map(|address: Ipv6Addr| address.octets().to_vec()),
        "inet_service" => text.parse().ok().map(|port: u16| port.to_be_bytes().to_vec()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_key_fill_registers() {
        let key = parse("ifname . ether_addr . ipv4_addr", "\"p1\" . fa:16:3e:00:00:01 . 10.0.0.5").unwrap();
        let mut wanted = b"p1".to_vec();
        wanted.resize(16, 0);
        wanted.extend([0xfa, 0x16, 0x3e, 0, 0, 1, 0, 0, 10, 0, 0, 5]);
        assert_eq!(key, wanted);
        assert_eq!(parse("ether_addr", "fa:16:3e:00:00:01").unwrap().len(), 6);
    }

    #[test]
    fn what_is_not_known_is_left_to_nft() {
        for (kind, text) in [
            ("ifname", "\"tap*\""),
            ("ifname", "p1"),
            ("ipv4_addr", "10.0.0.0/24"),
            ("ipv4_addr", "10.0.0.1-10.0.0.9"),
            ("inet_service", "http"),
            ("inet_proto", "tcp"),
            ("ifname . ipv4_addr", "\"p1\""),
        ] {
            assert_eq!(parse(kind, text), None, "{kind} {text}");
        }
        assert_eq!(verdict("queue to 1"), None);
    }
}
