//! The clients of a relay: what they ask, and what the guest answers them.
//!
//! Who watches is told by the relay alone, and nothing that the guest says is for him. So no guest wakes the daemon but by a
//! change of its pod, and these have their pace ([`super::pace`]).

use super::{
    super::{link::ChannelId, talk::ToGuest},
    CONNECTIONS_MAX, HELD_MAX, POWER_OFF_TIMEOUT, Phase, Relay, WATCH,
    words::readable,
};
use crate::container::{
    files::work::Work,
    listener::Listener,
    protocol::{Exec, Reply, Request},
    shim::connection::Connection,
};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

/// How long the guest may take to say how the pod is, before what it said last is told.
const STATE_PATIENCE: Duration = Duration::from_secs(5);

/// What is told to who asks for one stream too many.
const TOO_MANY: &str =
    "the pod has too many streams at a time: end some of what was attached or executed first";

/// What is kept of a client beside its connection.
#[derive(Default)]
pub(super) struct Client {
    /// Channels of its streams.
    pub(super) streams: Vec<ChannelId>,
    /// Replies that wait until those are dry.
    pub(super) held: VecDeque<(Reply, Option<ChannelId>)>,
    /// When the state is told as it was last said, for each time that it was asked.
    pub(super) state_until: VecDeque<Instant>,
    /// So many answers of the guest came too late and are not told.
    pub(super) late: usize,
    /// Far ends of streams to ports that are being connected to.
    pub(super) dialled: BTreeMap<ChannelId, UnixStream>,
}

impl Relay {
    pub(super) fn accept(&mut self) {
        while let Some(stream) = self.listener.as_mut().and_then(Listener::accept) {
            self.add(stream);
            if self.connections.len() >= CONNECTIONS_MAX {
                return;
            }
        }
    }

    pub(super) fn add(&mut self, stream: UnixStream) {
        self.connections_made += 1;
        if let Ok(connection) = Connection::new(self.connections_made, stream) {
            self.clients.insert(connection.id, Client::default());
            self.connections.push(connection);
        }
    }

    /// Whether a client waits for changes and for nothing else.
    pub(super) fn is_watching(&self, id: u64) -> bool {
        self.connections.iter().any(|connection| connection.id == id && connection.watches)
    }

    pub(super) fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    pub(super) fn serve(&mut self, id: u64, early: bool) {
        let Some(connection) = self.connection(id) else { return };
        connection.flush();
        for request in connection.read() {
            match request {
                Ok(request) => self.on_request(id, request, early),
                Err(message) => self.reply(id, Reply::Failed { code: 125, message }, None),
            }
        }
    }

    fn on_request(&mut self, id: u64, request: Request, early: bool) {
        if self.is_for_maintenance() {
            return self.on_request_for_files(id, request);
        }
        match &request {
            // A guest that is at its end answers nobody.
            Request::State if self.answers_nobody() => {
                if let Some(state) = self.state.clone() {
                    self.reply(id, Reply::State(state), None);
                }
                return;
            }
            Request::State => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.state_until.push_back(Instant::now() + STATE_PATIENCE);
                }
            }
            Request::Watch => return self.watch(id),
            // As by a shim that has ended.
            _ if self.answers_nobody() => {
                self.is_asked_to_end |= matches!(request, Request::Shutdown);
                return self.let_go(id);
            }
            Request::Dial { port, limit_ms } => return self.dial(id, *port, *limit_ms),
            Request::Processes => return self.say(&ToGuest::Processes { connection: id }),
            Request::Usage => return self.say(&ToGuest::Usage { connection: id }),
            Request::Files { work } => return self.work_on_files(id, work.clone()),
            Request::Plug { nic } => return self.say(&ToGuest::Plug { connection: id, nic: nic.clone() }),
            Request::Unplug { port } => {
                return self.say(&ToGuest::Unplug { connection: id, port: *port });
            }
            Request::Shutdown => {
                self.is_asked_to_end = true;
                self.kill_by(POWER_OFF_TIMEOUT);
            }
            _ => {}
        }
        let takes_streams =
            matches!(request, Request::Attach { .. } | Request::Exec(Exec { tty: false, .. }));
        let streams = if takes_streams { self.take_streams(id) } else { Ok(Vec::new()) };
        match (streams, serde_json::to_string(&request)) {
            (Ok(streams), Ok(line)) => self.say(&ToGuest::Line { connection: id, line, streams, early }),
            (Err(why), _) => self.refuse(id, why),
            (_, Err(_)) => {}
        }
    }

    /// Whether the guest is at its end, or was hung up on.
    fn answers_nobody(&self) -> bool {
        self.phase == Phase::Ended || self.link.is_over()
    }

    fn refuse(&mut self, id: u64, why: &str) {
        self.reply(id, Reply::Failed { code: 125, message: why.into() }, None);
    }

    /// From now on the client hears of every change: of the state as it is first.
    fn watch(&mut self, id: u64) {
        let state = self.state.clone();
        if let Some(connection) = self.connection(id) {
            connection.watches = true;
        }
        if let Some(state) = state {
            self.reply(id, Reply::State(state), None);
        }
    }

    /// Makes channels of the descriptors that came with a request: the first is read, the others are written.
    fn take_streams(&mut self, id: u64) -> Result<Vec<ChannelId>, &'static str> {
        let ends = self.connection(id).and_then(Connection::take::<3>);
        let [input, output, errors] = ends.ok_or("three descriptors must come along")?;
        let ends = [(Some(input), None), (None, Some(output)), (None, Some(errors))];
        let streams = self.link.open_all(ends).ok_or(TOO_MANY)?;
        streams.iter().for_each(|stream| self.keep_stream(id, *stream));
        Ok(streams.into())
    }

    /// What goes in and the answer pass here unread: the daemon believes the answer nothing.
    pub(super) fn work_on_files(&mut self, id: u64, work: Work) {
        let Some([input, output]) = self.connection(id).and_then(Connection::take::<2>) else {
            return self.refuse(id, "two descriptors must come along");
        };
        match self.link.open_all([(Some(input), None), (None, Some(output))]) {
            Some([input, output]) => self.say(&ToGuest::Files { connection: id, work, input, output }),
            None => self.refuse(id, TOO_MANY),
        }
    }

    /// Notes a stream of a client, and forgets those that have ended.
    fn keep_stream(&mut self, id: u64, stream: ChannelId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.streams.retain(|known| self.link.has(*known));
        client.streams.push(stream);
    }

    fn dial(&mut self, id: u64, port: u16, limit_ms: u64) {
        let opened = UnixStream::pair().and_then(|(near, far)| Ok((near.try_clone()?, near, far)));
        let opened = opened.and_then(|(source, sink, far)| {
            let channel = self.link.open(Some(source.into()), Some(sink.into()));
            let channel = channel.ok_or_else(|| io::Error::other(TOO_MANY))?;
            Ok((channel, far))
        });
        match opened {
            Ok((channel, far)) => {
                self.keep_stream(id, channel);
                if let Some(client) = self.clients.get_mut(&id) {
                    client.dialled.insert(channel, far);
                }
                self.say(&ToGuest::Dial { connection: id, port, limit_ms, channel });
            }
            Err(error) => {
                let message = format!("cannot make a stream: {error}");
                self.reply(id, Reply::Failed { code: 125, message }, None);
            }
        }
    }

    pub(super) fn dialled(&mut self, id: u64, channel: ChannelId, error: Option<String>) {
        let far = self.clients.get_mut(&id).and_then(|client| client.dialled.remove(&channel));
        match (error, far) {
            (None, Some(far)) => {
                if let Some(connection) = self.connection(id) {
                    connection.send(&Reply::Done, Some(far.as_fd()));
                }
            }
            (error, _) => {
                self.link.close(channel);
                let message = readable(&error.unwrap_or_default());
                self.reply(id, Reply::Failed { code: 125, message }, None);
            }
        }
    }

    /// A line of the shim's to a client. What stream comes along has an end in the guest: it is taken here or refused.
    pub(super) fn on_line(&mut self, id: u64, line: &str, stream: Option<ChannelId>) {
        let untaken = self.take_line(id, line, stream);
        untaken.into_iter().for_each(|stream| self.link.refuse(stream));
        self.forward(id);
    }

    /// Gives back the stream that nobody takes.
    fn take_line(&mut self, id: u64, line: &str, stream: Option<ChannelId>) -> Option<ChannelId> {
        let Ok(mut reply) = serde_json::from_str::<Reply>(line) else {
            self.complain("the guest's shim says what is no reply");
            return stream;
        };
        if let Reply::State(state) = &mut reply {
            // Who hears of an end finds the last words of it in the log.
            self.write_logs();
            *state = self.as_seen_here(state.clone());
            if id == WATCH {
                self.changed(state.clone());
                return stream;
            }
            let Some(client) = self.clients.get_mut(&id) else { return stream };
            if client.late > 0 {
                client.late -= 1;
                return stream;
            }
            client.state_until.pop_front();
        }
        let Some(client) = self.clients.get_mut(&id) else { return stream };
        if client.held.len() >= HELD_MAX {
            self.complain("the guest says more than its client takes");
            return stream;
        }
        // Only the terminal of a program comes along.
        let is_terminal = matches!(reply, Reply::Executing { .. });
        client.held.push_back((reply, stream.filter(|_| is_terminal)));
        stream.filter(|_| !is_terminal)
    }

    /// The shim has closed the connection of a client, who gets what is known of what he asked.
    pub(super) fn let_go(&mut self, id: u64) {
        let asked = self.forget_client(id);
        if let Some(state) = self.state.clone() {
            (0..asked).for_each(|_| self.reply(id, Reply::State(state.clone()), None));
        }
        self.connections.retain(|it| it.id != id);
    }

    /// Forgets what was kept of a client, and ends the terminals that he did not come to have. Tells how often he waits for the
    /// state.
    pub(super) fn forget_client(&mut self, id: u64) -> usize {
        let Some(client) = self.clients.remove(&id) else { return 0 };
        client.held.iter().filter_map(|(_, stream)| *stream).for_each(|stream| self.link.refuse(stream));
        client.state_until.len()
    }

    /// Sends the replies of a client, each when the output that was before it was taken.
    pub(super) fn forward(&mut self, id: u64) {
        while let Some(client) = self.clients.get_mut(&id) {
            let Some((reply, _)) = client.held.front() else { return };
            let streams = match reply {
                Reply::Exited { .. } => client.streams.clone(),
                _ => Vec::new(),
            };
            let is_dry = streams.into_iter().filter(|stream| !self.link.is_sunk(*stream)).count() == 0;
            let Some((reply, stream)) =
                self.clients.get_mut(&id).filter(|_| is_dry).and_then(|client| client.held.pop_front())
            else {
                return;
            };
            match stream.map(|stream| self.bind_terminal(id, stream)) {
                None => self.reply(id, reply, None),
                Some(Some(terminal)) => self.reply(id, reply, Some(terminal)),
                // Its terminal is closed, which ends the program.
                Some(None) => self.refuse(id, TOO_MANY),
            }
        }
    }

    /// A stream of both directions for the client, whose other end is a terminal inside. `None` for one too many.
    fn bind_terminal(&mut self, id: u64, stream: ChannelId) -> Option<OwnedFd> {
        let ends = UnixStream::pair().and_then(|(near, far)| Ok((near.try_clone()?, near, far)));
        let Ok((source, sink, far)) = ends else {
            self.link.refuse(stream);
            return None;
        };
        if !self.link.accept(stream, Some(source.into()), Some(sink.into())) {
            return None;
        }
        self.keep_stream(id, stream);
        Some(far.into())
    }

    pub(super) fn reply(&mut self, id: u64, reply: Reply, descriptor: Option<OwnedFd>) {
        if let Some(connection) = self.connection(id) {
            connection.send(&reply, descriptor.as_ref().map(AsFd::as_fd));
        }
    }
}
