//! Links, addresses, routes, rules and neighbours of one network namespace, spoken over one netlink socket.
//!
//! Requests are built with `netlink-packet-route`. Of the answers only the attributes that are needed are read, one by
//! one: an attribute that a newer kernel adds or lengthens must never make a whole dump fail.
//!
//! Every change reaches the wanted state from any state: adding what exists and deleting what does not are fine.
//! Protocol: RFC 3549, netlink(7), rtnetlink(7).

mod address;
mod link;
mod neighbour;
mod route;
mod rule;

use std::fmt::Display;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlaBuffer, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::error::{Context, Error, Result};
use crate::netns::NetNs;

pub(crate) use address::parse_address;
pub(crate) use link::index_by_name;
pub use link::{Link, Mac};
pub use neighbour::Neighbour;
pub use route::{MAIN_TABLE, Route, RouteTarget};
pub use rule::Rule;

/// The header of every message: length, type, flags, sequence number, port.
const HEADER_SIZE_BYTES: usize = 16;
/// The kernel builds dump answers of at most 32 KiB; a single link with all its attributes stays below that.
const RECEIVE_SIZE_BYTES: usize = 64 * 1024;
/// A dump that was disturbed by a change is asked again, so often at most.
const DUMP_ATTEMPTS_MAX: u32 = 16;
/// The kernel answers within microseconds; a socket that says nothing for so long is broken.
const ANSWER_TIMEOUT_S: i64 = 30;
/// Of an attribute's type: it holds attributes.
pub(crate) const NESTED: u16 = 1 << 15;
/// `NLMSGERR_ATTR_MSG` of `linux/netlink.h`: the text of an extended acknowledgement.
const EXPLANATION: u16 = 1;

/// A route socket of one network namespace. It keeps the namespace alive; calls from several threads take turns.
#[derive(Debug)]
pub struct Netlink {
    conversation: Mutex<Conversation>,
    name: String,
}

impl Netlink {
    /// Opens a socket inside `namespace`.
    pub fn open(namespace: &NetNs) -> Result<Netlink> {
        let name = namespace.name().display().to_string();
        let conversation = namespace
            .run(|| Conversation::open(NETLINK_ROUTE))
            .context("open route socket in", &name)?
            .context("open route socket in", &name)?;
        Ok(Netlink { conversation: Mutex::new(conversation), name })
    }

    /// Opens a socket in the namespace of the calling thread; no further thread is needed for it.
    pub fn here() -> Result<Netlink> {
        let name = "this network namespace";
        let conversation = Conversation::open(NETLINK_ROUTE).context("open route socket in", name)?;
        Ok(Netlink { conversation: Mutex::new(conversation), name: name.to_string() })
    }

    /// The namespace's name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a change and waits for the kernel's verdict.
    fn change(
        &self,
        operation: &'static str,
        object: impl Display,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<()> {
        let mut conversation = self.lock();
        let request = conversation.encode(message, NLM_F_REQUEST | NLM_F_ACK | flags);
        conversation.exchange(&request, |_, _| ()).map_err(|failure| failure.into_error(operation, object))
    }

    /// Sends a question and gives the payload of each answer of type `kind` to `read`; what `read` finds is collected.
    fn ask<T>(
        &self,
        operation: &'static str,
        object: impl Display,
        message: RouteNetlinkMessage,
        flags: u16,
        kind: u16,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut conversation = self.lock();
        for _ in 0..DUMP_ATTEMPTS_MAX {
            let mut found = Vec::new();
            let request = conversation.encode(message.clone(), NLM_F_REQUEST | flags);
            let result = conversation.exchange(&request, |answer, payload| {
                if answer == kind {
                    found.extend(read(payload));
                }
            });
            match result {
                Ok(()) => return Ok(found),
                Err(Failure { error, .. }) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(failure) => return Err(failure.into_error(operation, object)),
            }
        }
        Err(Error::new(operation, object, io::Error::from_raw_os_error(libc::EAGAIN)))
    }

    /// Asks for a whole table.
    fn dump<T>(
        &self,
        operation: &'static str,
        message: RouteNetlinkMessage,
        kind: u16,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        self.ask(operation, &self.name, message, NLM_F_DUMP, kind, read)
    }

    fn lock(&self) -> MutexGuard<'_, Conversation> {
        // A panic in another thread leaves at most unread answers behind; the sequence number tells them apart.
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index of a device, or `None` if there is no device of this name.
    fn index_of(&self, device: &str) -> Result<Option<u32>> {
        let conversation = self.lock();
        link::index_by_name(conversation.socket.as_raw_fd(), device)
    }

    /// The index of a device that has to be there.
    fn index(&self, operation: &'static str, device: &str) -> Result<u32> {
        self.index_of(device)?
            .ok_or_else(|| Error::new(operation, device, io::Error::from_raw_os_error(libc::ENODEV)))
    }
}

/// What the kernel said no with.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The errno; `Interrupted` means that the dump has to be asked again.
    pub(crate) error: io::Error,
    /// The text beside it.
    pub(crate) explanation: Option<String>,
}

impl Failure {
    pub(crate) fn into_error(self, operation: &'static str, object: impl Display) -> Error {
        Error { explanation: self.explanation, ..Error::new(operation, object, self.error) }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure { error, explanation: None }
    }
}

/// A socket and the sequence number of its next request: one request and its answers at a time. Shared with the other
/// netlink families (conntrack).
#[derive(Debug)]
pub(crate) struct Conversation {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Conversation {
    /// Opens a socket of `protocol` in the namespace of the calling thread.
    pub(crate) fn open(protocol: isize) -> io::Result<Conversation> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Texts for errors, and answers that do not repeat the request.
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        if protocol == NETLINK_ROUTE {
            // Filters of a dump (device, table) are obeyed by the kernel (since 4.20) only with this.
            socket.set_netlink_get_strict_chk(true)?;
        }
        set_receive_timeout(&socket)?;
        Ok(Conversation { socket, sequence: 0, buffer: vec![0; RECEIVE_SIZE_BYTES] })
    }

    /// Puts the header with a fresh sequence number before the message.
    fn encode<M: NetlinkSerializable>(&mut self, message: M, flags: u16) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.next_sequence();
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut request = vec![0; message.buffer_len()];
        message.serialize(&mut request);
        request
    }

    /// Like [`Conversation::encode`], for a family whose messages are put together as bytes.
    pub(crate) fn encode_raw(&mut self, kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let length =
            u32::try_from(HEADER_SIZE_BYTES + payload.len()).expect("requests are a few hundred bytes");
        let mut request = Vec::with_capacity(length as usize);
        request.extend(length.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend(flags.to_ne_bytes());
        request.extend(self.next_sequence().to_ne_bytes());
        request.extend(0u32.to_ne_bytes());
        request.extend(payload);
        request
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends a request and reads answers until the kernel says that it was the last. Each answer's type and payload go to
    /// `read`. Answers to earlier requests are passed over.
    pub(crate) fn exchange(
        &mut self,
        request: &[u8],
        mut read: impl FnMut(u16, &[u8]),
    ) -> Result<(), Failure> {
        let wants_end = request_flags(request) & (NLM_F_ACK | NLM_F_DUMP) != 0;
        send(&self.socket, request)?;
        let mut interrupted = false;
        loop {
            let mut space = &mut self.buffer[..];
            let length = receive(&self.socket, &mut space)?;
            let mut rest = &self.buffer[..length];
            while let Some((message, tail)) = split_message(rest)? {
                rest = tail;
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_NOOP => {}
                    NLMSG_ERROR | NLMSG_DONE => {
                        verdict(message.payload)?;
                        return if interrupted {
                            Err(io::Error::from(io::ErrorKind::Interrupted).into())
                        } else {
                            Ok(())
                        };
                    }
                    kind => {
                        read(kind, message.payload);
                        if !wants_end {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }
}

impl Conversation {
    /// Sends a transaction: all of its messages or none take effect. `messages` are what [`Conversation::encode_raw`] gave one
    /// after the other, the `asked`-th the last that asks for an answer. After a failure answers may be left unread, so the
    /// conversation is of no more use.
    pub(crate) fn exchange_batch(&mut self, messages: &[Vec<u8>], asked: usize) -> Result<(), Failure> {
        let sequence_of = |message: &[u8]| read_u32(&message[8..]).unwrap_or_default();
        let (first, last) = (sequence_of(&messages[0]), sequence_of(&messages[asked]));
        send(&self.socket, &messages.concat())?;
        loop {
            let mut space = &mut self.buffer[..];
            let length = receive(&self.socket, &mut space)?;
            let mut rest = &self.buffer[..length];
            while let Some((message, tail)) = split_message(rest)? {
                rest = tail;
                let is_of_it = message.sequence.wrapping_sub(first) < messages.len() as u32;
                if message.kind != NLMSG_ERROR || !is_of_it {
                    continue;
                }
                // What is refused answers without having been asked.
                verdict(message.payload)?;
                if message.sequence == last {
                    return Ok(());
                }
            }
        }
    }
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

fn request_flags(request: &[u8]) -> u16 {
    u16::from_ne_bytes([request[6], request[7]])
}

/// Takes the first message off a datagram; messages are padded to four bytes.
fn split_message(bytes: &[u8]) -> io::Result<Option<(Message<'_>, &[u8])>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "netlink message shorter than it says");
    let length = read_u32(bytes).ok_or_else(broken)? as usize;
    let message =
        bytes.get(..length).filter(|message| message.len() >= HEADER_SIZE_BYTES).ok_or_else(broken)?;
    let tail = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    let sequence = u32::from_ne_bytes([message[8], message[9], message[10], message[11]]);
    let kind = u16::from_ne_bytes([message[4], message[5]]);
    let flags = u16::from_ne_bytes([message[6], message[7]]);
    Ok(Some((Message { kind, flags, sequence, payload: &message[HEADER_SIZE_BYTES..] }, tail)))
}

/// Reads the end of an exchange: a negative errno (or zero), for an error the header of the request, then attributes.
fn verdict(payload: &[u8]) -> Result<(), Failure> {
    let code = read_u32(payload).map_or(0, |bits| bits as i32);
    if code == 0 {
        return Ok(());
    }
    let attributes = payload.get(4 + HEADER_SIZE_BYTES..).unwrap_or_default();
    let explanation =
        attributes_of(attributes).find(|(kind, _)| *kind == EXPLANATION).map(|(_, text)| text_of(&text));
    Err(Failure { error: io::Error::from_raw_os_error(-code), explanation })
}

/// The attributes of a message after its fixed header, nested flags taken off; it ends at the first broken one.
pub(crate) fn attributes_of(bytes: &[u8]) -> impl Iterator<Item = (u16, Vec<u8>)> + '_ {
    NlasIterator::new(bytes)
        .map_while(|attribute: std::result::Result<NlaBuffer<&[u8]>, _>| attribute.ok())
        .map(|attribute| (attribute.kind(), attribute.value().to_vec()))
}

/// A number of four bytes in the machine's order, from the front of `bytes`.
pub(crate) fn read_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|first| u32::from_ne_bytes(*first))
}

/// Appends an attribute: length and type, value, padding to four bytes.
pub(crate) fn put(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("the attributes here are a few bytes long");
    buffer.extend(length.to_ne_bytes());
    buffer.extend(kind.to_ne_bytes());
    buffer.extend(value);
    buffer.resize(buffer.len().next_multiple_of(4), 0);
}

/// A text that ends with NUL or with the bytes.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn send(socket: &Socket, request: &[u8]) -> io::Result<()> {
    loop {
        match socket.send(request, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
    }
}

fn receive(socket: &Socket, buffer: &mut &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.recv(buffer, 0) {
            // Not to be mixed up with an interrupted dump, which has the same kind.
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
            result => return result,
        }
    }
}

fn set_receive_timeout(socket: &Socket) -> io::Result<()> {
    let timeout = libc::timeval { tv_sec: ANSWER_TIMEOUT_S, tv_usec: 0 };
    // SAFETY: the option's value is a timeval that lives through the call, given with its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const timeout).cast(),
            size_of::<libc::timeval>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_lies_about_its_length_is_an_error_and_never_a_panic() {
        for bytes in
            [&[1u8][..], &[0, 0, 0, 0], &[255, 255, 0, 0, 1, 2, 3, 4], &[12, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]]
        {
            assert!(split_message(bytes).is_err(), "{bytes:?}");
        }
        assert!(split_message(&[]).is_ok_and(|message| message.is_none()));
    }

    #[test]
    fn a_verdict_carries_errno_and_text() {
        let mut payload = (-libc::EEXIST).to_ne_bytes().to_vec();
        payload.extend([0; HEADER_SIZE_BYTES]);
        payload.extend([8, 0, 1, 0, b'd', b'u', b'p', 0]);
        let failure = verdict(&payload).expect_err("the code is negative");
        assert_eq!(failure.error.raw_os_error(), Some(libc::EEXIST));
        assert_eq!(failure.explanation.as_deref(), Some("dup"));
        assert!(verdict(&0i32.to_ne_bytes()).is_ok());
        assert!(verdict(&[]).is_ok());
    }
}
