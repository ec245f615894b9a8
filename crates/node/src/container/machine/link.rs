//! Many streams over the one serial port between a relay and its guest, none of which holds up another.
//!
//! Both ends use this module. What is said is a sequence of frames, and what a frame says happens in that order:
//!
//! ```text
//!   kind (1 byte)  channel (4 bytes, little endian)  length (4 bytes)  bytes
//!   message        0                                  JSON of a Message
//!   data           of the channel                     at most DATA_BYTES_MAX
//!   eof            of the channel                     none: its sender has no more
//!   gone           of the channel                     none: its receiver takes no more
//!   credit         of the channel                     4 bytes: so many more bytes may be sent
//! ```
//!
//! A channel is a descriptor at each end: read from here and written to there, or both ways. A sender never has more than
//! [`WINDOW_BYTES`] on a channel that the receiver has not handed on, so memory is bounded and a reader who takes nothing
//! stops his own stream alone. The other end is believed nothing: sizes, numbers and credits are checked, and whoever
//! breaks the rules is hung up on.

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::PollFlags,
    sys::socket::{MsgFlags, Shutdown, send, shutdown},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// Most bytes of a channel that are on their way.
const WINDOW_BYTES: u32 = 256 * 1024;
/// Most bytes of one data frame.
const DATA_BYTES_MAX: usize = 32 * 1024;
/// Most bytes of a message: what a guest is told first holds all the files of its pod.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// The same of what a guest says.
const GUEST_MESSAGE_BYTES_MAX: usize = 2 << 20;
/// Most bytes that wait for an end that does not read.
const OUTGOING_BYTES_MAX: usize = 32 << 20;
/// Most channels at a time that one end makes.
const OPENED_MAX: usize = 1024;
/// Most that it takes of the other end's: some that were ended there have words left here that nobody has taken yet.
const TAKEN_MAX: usize = 2 * OPENED_MAX;
/// Most bytes that wait for the port before streams are read no further.
const BACKLOG_BYTES_MAX: usize = 1 << 20;
/// Most bytes that are written at once to what may wait: a pipe that is ready takes so many (`PIPE_BUF`, pipe(7)).
const PIPE_BYTES: usize = 4096;
const HEADER_BYTES: usize = 9;

const MESSAGE: u8 = 0;
const DATA: u8 = 1;
const EOF: u8 = 2;
const GONE: u8 = 3;
const CREDIT: u8 = 4;

/// The number of a channel, the same at both ends.
pub type ChannelId = u32;

/// Which end this is: each numbers the channels that it makes, one evenly and one oddly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The relay.
    Host,
    /// The guest.
    Guest,
}

/// One end of the port.
#[derive(Debug)]
pub struct Link {
    port: File,
    incoming: Vec<u8>,
    /// So many bytes of that were taken already: they go when more comes, all at once.
    taken: usize,
    outgoing: VecDeque<u8>,
    channels: BTreeMap<ChannelId, Channel>,
    next: ChannelId,
    side: Side,
    over: bool,
    /// Nobody takes what is said any more; what was said before can still be read.
    deaf: bool,
}

/// One end of a channel.
#[derive(Debug, Default)]
struct Channel {
    /// Read from here, and sent.
    source: Option<File>,
    /// What came is written here.
    sink: Option<File>,
    /// What came is kept for [`Link::take`].
    keeps: bool,
    /// Bytes that may still be sent.
    credit: u32,
    /// What came and was not handed on yet.
    waiting: VecDeque<u8>,
    /// Bytes handed on of which the sender was not told.
    untold: u32,
    /// The sender has no more.
    ended: bool,
}

impl Channel {
    fn is_over(&self) -> bool {
        self.source.is_none()
            && self.sink.is_none()
            && !(self.keeps && !(self.ended && self.waiting.is_empty()))
    }
}

/// Makes reads and writes of a descriptor return at once. Only for those that nobody else has.
pub fn never_wait(fd: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Link {
    /// An end over a port, which is this one's alone.
    pub fn new(port: File, side: Side) -> io::Result<Self> {
        never_wait(&port)?;
        let next = if side == Side::Host { 2 } else { 1 };
        Ok(Self {
            port,
            incoming: Vec::new(),
            taken: 0,
            outgoing: VecDeque::new(),
            channels: BTreeMap::new(),
            next,
            side,
            over: false,
            deaf: false,
        })
    }

    /// Whether the other end hung up or was hung up on.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Hears and says nothing any more.
    pub fn hang_up(&mut self) {
        self.over = true;
    }

    /// Whether all that was said is on its way.
    pub fn is_flushed(&self) -> bool {
        self.outgoing.is_empty() || self.over
    }

    /// Says something.
    pub fn tell(&mut self, message: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        if text.len() > MESSAGE_BYTES_MAX {
            return Err(broken("the message is too long"));
        }
        self.frame(MESSAGE, 0, &text);
        self.flush();
        Ok(())
    }

    /// Makes a channel: what is read from `source` is sent, what comes is written to `sink`. `None` while there are too many.
    pub fn open(&mut self, source: Option<OwnedFd>, sink: Option<OwnedFd>) -> Option<ChannelId> {
        self.open_all([(source, sink)]).map(|[id]| id)
    }

    /// Makes several channels, or none.
    pub fn open_all<const COUNT: usize>(
        &mut self,
        ends: [(Option<OwnedFd>, Option<OwnedFd>); COUNT],
    ) -> Option<[ChannelId; COUNT]> {
        if !self.has_room(COUNT) {
            return None;
        }
        Some(ends.map(|(source, sink)| {
            let id = self.next;
            self.next = self.next.checked_add(2).unwrap_or(if self.side == Side::Host { 2 } else { 1 });
            self.bind(id, source, sink, false);
            id
        }))
    }

    /// Whether so many more channels can be made.
    pub fn has_room(&self, count: usize) -> bool {
        self.count(self.side) + count <= OPENED_MAX
    }

    /// Channels that an end has made.
    fn count(&self, side: Side) -> usize {
        self.channels.keys().filter(|id| is_of(**id, side)).count()
    }

    /// Whether a channel is there.
    pub fn has(&self, id: ChannelId) -> bool {
        self.channels.contains_key(&id)
    }

    /// Takes the other end's channel, before its first data can come: right when it is told of. One too many is refused: then
    /// its ends are closed, here and there.
    pub fn accept(&mut self, id: ChannelId, source: Option<OwnedFd>, sink: Option<OwnedFd>) -> bool {
        self.take_on(id, source, sink, false)
    }

    /// Takes the other end's channel and keeps what comes, unless it is one too many.
    pub fn accept_kept(&mut self, id: ChannelId) -> bool {
        self.take_on(id, None, None, true)
    }

    fn take_on(
        &mut self,
        id: ChannelId,
        source: Option<OwnedFd>,
        sink: Option<OwnedFd>,
        keeps: bool,
    ) -> bool {
        if !self.is_others(id) {
            return false;
        }
        let other = if self.side == Side::Host { Side::Guest } else { Side::Host };
        if self.count(other) >= TAKEN_MAX && !self.has(id) {
            self.refuse(id);
            return false;
        }
        self.bind(id, source, sink, keeps);
        !self.over
    }

    /// Ends the other end's channel, whether it was taken here or not: whoever holds it there is told.
    pub fn refuse(&mut self, id: ChannelId) {
        if !self.is_others(id) {
            return;
        }
        if self.has(id) {
            return self.close(id);
        }
        self.frame(EOF, id, &[]);
        self.frame(GONE, id, &[]);
        self.flush();
    }

    /// Whether a number is one that the other end may give; who gives another is hung up on.
    fn is_others(&mut self, id: ChannelId) -> bool {
        self.over |= id == 0 || is_of(id, self.side);
        !self.over
    }

    fn bind(&mut self, id: ChannelId, source: Option<OwnedFd>, sink: Option<OwnedFd>, keeps: bool) {
        if self.channels.contains_key(&id) {
            self.over = true;
            return;
        }
        let channel = Channel {
            source: source.map(File::from),
            sink: sink.map(File::from),
            keeps,
            credit: WINDOW_BYTES,
            ..Channel::default()
        };
        self.channels.insert(id, channel);
    }

    /// What came on a kept channel. `None` once there will be no more.
    pub fn take(&mut self, id: ChannelId) -> Option<Vec<u8>> {
        let channel = self.channels.get_mut(&id)?;
        let bytes: Vec<u8> = channel.waiting.drain(..).collect();
        if bytes.is_empty() && channel.ended {
            self.channels.remove(&id);
            return None;
        }
        channel.untold += bytes.len() as u32;
        self.give_credit(id);
        Some(bytes)
    }

    /// Ends a channel in both directions.
    pub fn close(&mut self, id: ChannelId) {
        if self.channels.contains_key(&id) {
            self.end_source(id);
            self.end_sink(id, true);
        }
        // What is only kept here has nothing to close: its sender is told all the same.
        if let Some(channel) = self.channels.remove(&id)
            && channel.keeps
            && !channel.ended
        {
            self.frame(GONE, id, &[]);
            self.flush();
        }
    }

    /// Whether nothing of a channel waits: neither here to be sent nor to be handed on. Reads what is there first.
    pub fn is_dry(&mut self, id: ChannelId) -> bool {
        self.pump_source(id);
        self.pump_sink(id);
        let Some(channel) = self.channels.get(&id) else { return true };
        let unread = channel.source.as_ref().is_some_and(|source| is_ready(source.as_fd()));
        !unread && (channel.sink.is_none() || channel.waiting.is_empty())
    }

    /// Whether all that came on a channel was handed on, as far as it was taken now.
    pub fn is_sunk(&mut self, id: ChannelId) -> bool {
        self.pump_sink(id);
        self.channels.get(&id).is_none_or(|channel| channel.sink.is_none() || channel.waiting.is_empty())
    }

    /// Whether that is so on all of them.
    pub fn is_all_sunk(&mut self) -> bool {
        let ids: Vec<ChannelId> = self.channels.keys().copied().collect();
        ids.into_iter().filter(|id| !self.is_sunk(*id)).count() == 0
    }

    /// What is to be waited for, with the number of its channel; 0 is the port.
    pub fn wanted(&self) -> Vec<(ChannelId, BorrowedFd<'_>, PollFlags)> {
        let out = if self.outgoing.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        let mut wanted = vec![(0, self.port.as_fd(), PollFlags::POLLIN | out)];
        for (id, channel) in &self.channels {
            if let Some(source) = &channel.source
                && channel.credit > 0
                && self.outgoing.len() < BACKLOG_BYTES_MAX
            {
                wanted.push((*id, source.as_fd(), PollFlags::POLLIN));
            }
            if let Some(sink) = &channel.sink
                && !channel.waiting.is_empty()
            {
                wanted.push((*id, sink.as_fd(), PollFlags::POLLOUT));
            }
        }
        wanted
    }

    /// Does what can be done on a channel that is ready.
    pub fn serve(&mut self, id: ChannelId) {
        if id == 0 {
            self.flush();
            self.receive();
            return;
        }
        self.pump_source(id);
        self.pump_sink(id);
    }

    /// The next message, after all that was said before it has happened. `None` until more comes.
    #[expect(clippy::should_implement_trait, reason = "who asks says what the message is")]
    pub fn next<M: DeserializeOwned>(&mut self) -> Option<M> {
        while !self.over {
            let frame = self.next_frame()?;
            let result = match frame {
                (MESSAGE, 0, bytes) => match serde_json::from_slice(&bytes) {
                    Ok(message) => return Some(message),
                    Err(_) => Err(broken("a message that is none")),
                },
                (kind, id, bytes) => self.on_frame(kind, id, &bytes),
            };
            if let Err(error) = result {
                eprintln!("hanging up on the other end: {error}");
                self.over = true;
            }
        }
        None
    }

    fn next_frame(&mut self) -> Option<(u8, ChannelId, Vec<u8>)> {
        let here = &self.incoming[self.taken..];
        let header: [u8; HEADER_BYTES] = here.get(..HEADER_BYTES)?.try_into().ok()?;
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (kind, id, length) = (header[0], word(1), word(5) as usize);
        let most = match (kind, self.side) {
            (MESSAGE, Side::Host) => GUEST_MESSAGE_BYTES_MAX,
            (MESSAGE, Side::Guest) => MESSAGE_BYTES_MAX,
            _ => DATA_BYTES_MAX,
        };
        if length > most {
            eprintln!("hanging up on the other end: a frame of {length} bytes");
            self.over = true;
            return None;
        }
        let bytes = here.get(HEADER_BYTES..HEADER_BYTES + length)?.to_vec();
        self.taken += HEADER_BYTES + length;
        Some((kind, id, bytes))
    }

    fn on_frame(&mut self, kind: u8, id: ChannelId, bytes: &[u8]) -> io::Result<()> {
        let Some(channel) = self.channels.get_mut(&id) else {
            // It was closed here while this was on its way.
            return Ok(());
        };
        match kind {
            DATA => {
                if channel.waiting.len() + bytes.len() + channel.untold as usize > WINDOW_BYTES as usize {
                    return Err(broken("more than was allowed"));
                }
                if channel.sink.is_none() && !channel.keeps {
                    channel.untold += bytes.len() as u32;
                    self.give_credit(id);
                } else {
                    channel.waiting.extend(bytes);
                    self.pump_sink(id);
                }
            }
            EOF => {
                channel.ended = true;
                self.pump_sink(id);
            }
            GONE => {
                if let Some(source) = channel.source.take()
                    && channel.sink.is_some()
                {
                    let _ = shutdown(source.as_raw_fd(), Shutdown::Read);
                }
                self.forget(id);
            }
            CREDIT => {
                let more =
                    bytes.try_into().map(u32::from_le_bytes).map_err(|_| broken("a credit that is none"))?;
                channel.credit = channel.credit.saturating_add(more).min(WINDOW_BYTES);
                self.pump_source(id);
            }
            _ => return Err(broken("a frame of no kind")),
        }
        Ok(())
    }

    fn frame(&mut self, kind: u8, id: ChannelId, bytes: &[u8]) {
        if self.deaf || self.over {
            return;
        }
        if self.outgoing.len() + bytes.len() > OUTGOING_BYTES_MAX {
            eprintln!("hanging up on the other end: it does not read");
            self.outgoing.clear();
            self.over = true;
            return;
        }
        self.outgoing.push_back(kind);
        self.outgoing.extend(id.to_le_bytes());
        self.outgoing.extend((bytes.len() as u32).to_le_bytes());
        self.outgoing.extend(bytes);
    }

    /// Reads what is there of a source, as far as it may be sent.
    fn pump_source(&mut self, id: ChannelId) {
        let mut buffer = [0; DATA_BYTES_MAX];
        loop {
            let full = self.outgoing.len() >= BACKLOG_BYTES_MAX;
            let Some(channel) = self.channels.get_mut(&id) else { return };
            let Some(source) = &mut channel.source else { return };
            let room = (channel.credit as usize).min(DATA_BYTES_MAX);
            // A descriptor that others have too may wait in a read: only what is ready is read.
            if room == 0 || full || !is_ready(source.as_fd()) {
                break;
            }
            match source.read(&mut buffer[..room]) {
                Ok(length) if length > 0 => {
                    channel.credit -= length as u32;
                    self.frame(DATA, id, &buffer[..length]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A terminal reports its last close as EIO.
                Ok(_) | Err(_) => {
                    self.end_source(id);
                    break;
                }
            }
        }
        self.flush();
    }

    fn end_source(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if let Some(source) = channel.source.take() {
            // One that is closed in both directions takes nothing any more either.
            let is_gone = channel.sink.is_some() && is_hung_up(source.as_fd());
            self.frame(EOF, id, &[]);
            self.flush();
            if is_gone {
                return self.end_sink(id, true);
            }
        }
        self.forget(id);
    }

    /// Hands on what came, as far as it is taken.
    fn pump_sink(&mut self, id: ChannelId) {
        loop {
            let Some(channel) = self.channels.get_mut(&id) else { return };
            let Some(sink) = &mut channel.sink else { return };
            if channel.waiting.is_empty() {
                break;
            }
            let (front, _) = channel.waiting.as_slices();
            match write_some(sink, front) {
                Ok(0) => break,
                Ok(length) => {
                    drop(channel.waiting.drain(..length));
                    channel.untold += length as u32;
                }
                Err(_) => {
                    self.end_sink(id, true);
                    break;
                }
            }
        }
        self.give_credit(id);
        if self.channels.get(&id).is_some_and(|it| it.ended && it.waiting.is_empty() && it.sink.is_some()) {
            self.end_sink(id, false);
        }
    }

    /// Closes where a channel leads to. The sender is told where he would go on otherwise.
    fn end_sink(&mut self, id: ChannelId, tells: bool) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        channel.waiting.clear();
        if let Some(sink) = channel.sink.take() {
            if channel.source.is_some() {
                // Of a socket for both directions a copy is open still.
                let _ = shutdown(sink.as_raw_fd(), Shutdown::Write);
            }
            if tells && !channel.ended {
                self.frame(GONE, id, &[]);
            }
        }
        self.flush();
        self.forget(id);
    }

    fn forget(&mut self, id: ChannelId) {
        if self.channels.get(&id).is_some_and(Channel::is_over) {
            self.channels.remove(&id);
        }
    }

    /// Tells the sender what was handed on, when it is worth it.
    fn give_credit(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if channel.untold >= WINDOW_BYTES / 4 || (channel.untold > 0 && channel.waiting.is_empty()) {
            let more = std::mem::take(&mut channel.untold);
            self.frame(CREDIT, id, &more.to_le_bytes());
            self.flush();
        }
    }

    /// Writes to the port what waits, as far as it takes it.
    fn flush(&mut self) {
        while !self.outgoing.is_empty() && !self.over {
            let (front, _) = self.outgoing.as_slices();
            match self.port.write(front) {
                Ok(0) => return,
                Ok(length) => drop(self.outgoing.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.outgoing.clear();
                    self.deaf = true;
                }
            }
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; 64 * 1024];
        self.incoming.drain(..std::mem::take(&mut self.taken));
        // What was read is looked at before more is: memory stays bounded.
        if self.incoming.len() > MESSAGE_BYTES_MAX + HEADER_BYTES {
            return;
        }
        match self.port.read(&mut buffer) {
            Ok(0) => self.over = true,
            Ok(length) => self.incoming.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.over = true,
        }
    }
}

/// Whether a number is one that this end gives.
fn is_of(id: ChannelId, side: Side) -> bool {
    (id & 1 == 0) == (side == Side::Host)
}

/// Whether a read would not wait.
fn is_ready(fd: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollTimeout, poll};
    let mut polled = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).is_ok() && polled[0].any().unwrap_or(true)
}

/// Whether the other end of a socket is closed in both directions.
fn is_hung_up(fd: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollTimeout, poll};
    let mut polled = [PollFd::new(fd, PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO).is_ok()
        && polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

/// Writes without waiting, though the descriptor may be one that waits. 0 when it takes nothing now.
fn write_some(sink: &mut File, bytes: &[u8]) -> io::Result<usize> {
    use nix::poll::{PollFd, PollTimeout, poll};
    match send(sink.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
        Ok(length) => return Ok(length),
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(0),
        Err(Errno::ENOTSOCK) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut polled = [PollFd::new(sink.as_fd(), PollFlags::POLLOUT)];
    poll(&mut polled, PollTimeout::ZERO)?;
    let events = polled[0].revents().unwrap_or(PollFlags::empty());
    if !events.intersects(PollFlags::POLLOUT | PollFlags::POLLERR | PollFlags::POLLHUP) {
        return Ok(0);
    }
    match sink.write(&bytes[..bytes.len().min(PIPE_BYTES)]) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        result => result,
    }
}

#[cfg(test)]
mod tests;
