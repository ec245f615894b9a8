//! The guest's end of the port: connections to the shim and their streams, and the shim itself.
//!
//! One thread and one loop. Every line of a client goes to the shim on a connection of its own; descriptors that come
//! along become pipes here and channels of the [`Link`](super::super::link::Link). A connection of the agent's own watches the
//! shim: what it says of the pod goes to the relay, and its end is the shim's end. A reply that tells of an end is held
//! until all output that was there before is on its way, so that nobody hears of an end and misses the last words.

mod asked;

use super::{
    super::{
        GUEST_LOG, GUEST_NETNS, GUEST_RUN, GUEST_STATE,
        link::{ChannelId, Link, Side},
        order::Order,
        talk::{ConnectionId, ToGuest, ToHost},
    },
    Outcome, files,
    network::Cards,
};
use crate::{
    container::{
        bundle::Places,
        cgroup::PodGroup,
        driver::processes,
        files::work::Work,
        listener::Listener,
        protocol::{LINE_BYTES_MAX, Reply, Request, SOCKET},
    },
    driver::{ProcessSeen, Usage},
};
use asked::Asked;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io::{self, Read, Write},
    net::SocketAddr,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use sys::{fdpass, jail::process::borrowed, netns::NetNs};

/// How long the host may take to open its end, and to say good bye.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often children are looked for that ended.
const REAP_EVERY: Duration = Duration::from_millis(1000);
/// The same while the shim starts.
const REAP_OFTEN: Duration = Duration::from_millis(20);
/// How long a state waits for logs that do not end.
const LOG_PATIENCE: Duration = Duration::from_millis(500);
/// Most bytes of arguments of all processes that are told of, and most processes.
const ARGUMENTS_BYTES_MAX: usize = 256 * 1024;
const PROCESSES_MAX: usize = 4000;
/// Room for channels that logs have, however many terminals there are.
const LOG_CHANNELS: usize = 128;
/// What is told to who asks for one stream too many.
const TOO_MANY: &str =
    "the pod has too many streams at a time: end some of what was attached or executed first";
/// Most processes at a time that work on files.
const WORKERS_MAX: usize = 16;
/// The connection that watches.
const WATCH: ConnectionId = 0;
/// Most bytes of the shim's complaint that are told.
const COMPLAINT_BYTES_MAX: u64 = 4096;

/// Serves the port until the pod has ended and the host has all that was said. `prepare` makes what the order tells.
///
/// # Errors
/// The host hung up.
pub fn serve(port: File, prepare: impl FnOnce(&Order) -> Result<(), String>) -> io::Result<()> {
    wait_for_host(&port)?;
    let mut agent = Agent::new(port, Path::new(GUEST_RUN).join(SOCKET))?;
    let release = nix::sys::utsname::uname().map(|it| it.release().to_string_lossy().into_owned());
    agent.tell(&ToHost::Hello { kernel: release.unwrap_or_default() });
    let order = agent.wait_for_order()?;
    agent.cards = Cards::new(&order.nics);
    agent.places = Some(order.pod.places.clone());
    agent.keeper = order.maintenance.then(files::Keeper::default);
    let listening = prepare(&order).and_then(|()| {
        UnixListener::bind(GUEST_LOG)
            .and_then(|logs| logs.set_nonblocking(true).map(|()| Listener::new(logs)))
            .map_err(|error| format!("cannot take logs: {error}"))
    });
    match listening {
        Ok(logs) => agent.logs = Some(logs),
        Err(message) => return agent.fail(message),
    }
    agent.tell(&ToHost::Prepared);
    agent.run()
}

/// Reads at once give nothing before the host has opened its end.
fn wait_for_host(port: &File) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let mut polled = [PollFd::new(port.as_fd(), PollFlags::POLLOUT)];
        poll(&mut polled, PollTimeout::ZERO)?;
        if !polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)) {
            return Ok(());
        }
        std::thread::sleep(REAP_OFTEN);
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "nobody is at the other end of the port"))
}

/// A connection to the shim.
struct Connection {
    socket: UnixStream,
    read: Vec<u8>,
    unsent: VecDeque<u8>,
    /// Channels of programs that this connection started or joined.
    streams: Vec<ChannelId>,
    /// Lines that wait until those are dry.
    held: VecDeque<(String, Option<OwnedFd>)>,
    descriptors: VecDeque<OwnedFd>,
    over: bool,
}

impl Connection {
    fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            read: Vec::new(),
            unsent: VecDeque::new(),
            streams: Vec::new(),
            held: VecDeque::new(),
            descriptors: VecDeque::new(),
            over: false,
        })
    }

    /// Sends a line, with descriptors if there are any.
    fn send(&mut self, line: &str, descriptors: &[OwnedFd]) {
        self.flush();
        let mut bytes = line.as_bytes().to_vec();
        bytes.push(b'\n');
        if descriptors.is_empty() {
            self.unsent.extend(bytes);
            return self.flush();
        }
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        // The shim reads its clients' requests before anything else: the socket has room.
        match fdpass::send(&self.socket, &bytes, &borrowed) {
            Ok(sent) => self.unsent.extend(&bytes[sent..]),
            Err(_) => self.over = true,
        }
        self.flush();
    }

    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            let (front, _) = self.unsent.as_slices();
            match self.socket.write(front) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.over = true;
                    return;
                }
            }
        }
    }

    /// Reads the lines that are whole, each with the descriptor that came with it.
    fn receive(&mut self) {
        let mut buffer = [0; 16 * 1024];
        match fdpass::receive(&self.socket, &mut buffer, 4) {
            Ok(received) if received.length == 0 => self.over = true,
            Ok(received) => {
                self.read.extend_from_slice(&buffer[..received.length]);
                self.descriptors.extend(received.descriptors);
            }
            Err(error) => self.over |= io::Error::from(error).kind() != io::ErrorKind::WouldBlock,
        }
        if self.read.len() > LINE_BYTES_MAX {
            self.over = true;
        }
        while let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.read.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]).into_owned();
            let terminal = match serde_json::from_str(&line) {
                Ok(Reply::Executing { .. }) => self.descriptors.pop_front(),
                _ => None,
            };
            self.held.push_back((line, terminal));
        }
    }
}

struct Agent {
    link: Link,
    /// Where the shim listens.
    shim: PathBuf,
    /// Lines that the shim has no room for yet.
    waiting: VecDeque<Asked>,
    connections: BTreeMap<ConnectionId, Connection>,
    logs: Option<Listener>,
    log_channels: Vec<ChannelId>,
    places: Option<Places>,
    cards: Cards,
    /// The far end of who attached before the start.
    early: Option<(ConnectionId, UnixStream)>,
    launching: Option<Child>,
    /// Since when a state waits for the logs.
    held_since: Option<Instant>,
    dialling: Vec<Dialling>,
    /// Processes that work on files.
    working: Vec<i32>,
    /// Who works on those of a pod that is not started here.
    keeper: Option<files::Keeper>,
    ended: bool,
    bye: bool,
}

impl Agent {
    fn new(port: File, shim: PathBuf) -> io::Result<Self> {
        Ok(Self {
            link: Link::new(port, Side::Guest)?,
            shim,
            waiting: VecDeque::new(),
            connections: BTreeMap::new(),
            logs: None,
            log_channels: Vec::new(),
            places: None,
            cards: Cards::default(),
            early: None,
            launching: None,
            held_since: None,
            dialling: Vec::new(),
            working: Vec::new(),
            keeper: None,
            ended: false,
            bye: false,
        })
    }

    fn tell(&mut self, message: &ToHost) {
        if let Err(error) = self.link.tell(message) {
            super::tell(&format!("cannot tell the host: {error}"));
        }
    }

    /// Tells why the pod cannot run, and waits until the host has heard it.
    fn fail(&mut self, message: String) -> io::Result<()> {
        super::tell(&message);
        self.tell(&ToHost::Failed { message });
        self.ended = true;
        let deadline = Instant::now() + PATIENCE;
        while !self.bye && !self.link.is_over() && Instant::now() < deadline {
            self.turn();
        }
        Ok(())
    }

    fn wait_for_order(&mut self) -> io::Result<Order> {
        loop {
            self.wait(None);
            match self.link.next::<ToGuest>() {
                Some(ToGuest::Order(order)) => return Ok(*order),
                Some(_) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "an order was to come first"));
                }
                None if self.link.is_over() => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => {}
            }
        }
    }

    fn run(&mut self) -> io::Result<()> {
        let mut leaves_at = None;
        loop {
            if self.link.is_over() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if self.bye {
                return Ok(());
            }
            if self.ended {
                let at = *leaves_at.get_or_insert(Instant::now() + PATIENCE);
                if Instant::now() >= at {
                    return Ok(());
                }
            }
            self.turn();
        }
    }

    /// Waits for something and does it.
    fn turn(&mut self) {
        let is_busy = self.launching.is_some()
            || self.held_since.is_some()
            || !self.dialling.is_empty()
            || !self.waiting.is_empty()
            || self.cards.are_coming();
        let patience = if is_busy { REAP_OFTEN } else { REAP_EVERY };
        self.wait(Some(patience));
        while let Some(message) = self.link.next::<ToGuest>() {
            self.on_message(message);
        }
        self.accept_logs();
        self.look_at_dialling();
        self.ask_again();
        for (connection, outcome) in self.cards.look() {
            self.answer(connection, outcome);
        }
        self.reap();
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            self.forward(id);
        }
    }

    fn wait(&mut self, limit: Option<Duration>) {
        enum Source {
            Link(ChannelId),
            Connection(ConnectionId),
            Logs,
        }
        let mut sources = Vec::new();
        let mut polled = Vec::new();
        for (id, fd, flags) in self.link.wanted() {
            sources.push(Source::Link(id));
            // The descriptors live in self, which outlives the set.
            polled.push(PollFd::new(borrowed(fd.as_raw_fd()), flags));
        }
        for (id, connection) in &self.connections {
            let out = if connection.unsent.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            if connection.held.is_empty() && !connection.over {
                sources.push(Source::Connection(*id));
                polled.push(PollFd::new(borrowed(connection.socket.as_raw_fd()), PollFlags::POLLIN | out));
            }
        }
        let awake = |logs: &&Listener| logs.rests_until(Instant::now()).is_none();
        if let Some(logs) = self.logs.as_ref().filter(awake) {
            sources.push(Source::Logs);
            polled.push(PollFd::new(borrowed(logs.as_fd().as_raw_fd()), PollFlags::POLLIN));
        }
        let timeout =
            limit.map_or(PollTimeout::NONE, |limit| PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
        if poll(&mut polled, timeout).is_err() {
            return;
        }
        let ready: Vec<Source> = sources
            .into_iter()
            .zip(&polled)
            .filter(|(_, it)| it.any().unwrap_or(true))
            .map(|it| it.0)
            .collect();
        for source in ready {
            match source {
                Source::Link(id) => self.link.serve(id),
                Source::Connection(id) => {
                    if let Some(connection) = self.connections.get_mut(&id) {
                        connection.flush();
                        connection.receive();
                    }
                }
                Source::Logs => self.accept_logs(),
            }
        }
    }

    fn on_message(&mut self, message: ToGuest) {
        match message {
            ToGuest::Order(_) => super::tell("a second order is not followed"),
            ToGuest::Run => {
                if let Err(error) = self.start_shim() {
                    self.tell(&ToHost::Failed { message: format!("cannot start the shim: {error}") });
                }
            }
            ToGuest::Line { connection, line, streams, early } => {
                self.ask(Asked::new(connection, line, streams, early));
            }
            ToGuest::Closed { connection } => {
                // Its programs' streams end with the programs.
                self.connections.remove(&connection);
                self.forget_asked(connection);
            }
            ToGuest::Dial { connection, port, limit_ms, channel } => {
                self.dial(connection, port, Duration::from_millis(limit_ms), channel);
            }
            ToGuest::Processes { connection } => {
                let processes = self.places.as_ref().and_then(|places| processes::of(places).ok());
                let processes = short(processes.unwrap_or_default());
                self.tell(&ToHost::Processes { connection, processes });
            }
            ToGuest::Usage { connection } => {
                let stats = self.places.as_ref().and_then(|places| PodGroup::open(places).ok()?.stats().ok());
                let usage = stats.map(Usage::from).unwrap_or_default();
                self.tell(&ToHost::Usage { connection, usage });
            }
            ToGuest::Files { connection, work, input, output } => {
                let begun = self.work_on_files(&work, input, output);
                if begun.is_err() {
                    [input, output].into_iter().for_each(|id| self.link.refuse(id));
                }
                self.answer(connection, begun.map_err(|error| format!("cannot work on its files: {error}")));
            }
            ToGuest::Plug { connection, nic } => self.cards.expect(connection, *nic),
            ToGuest::Unplug { connection, port } => {
                let outcome = self.cards.take_down(port);
                self.answer(connection, outcome);
            }
            ToGuest::Bye => self.bye = true,
        }
    }

    /// Answers who asked for something to be done.
    fn answer(&mut self, connection: ConnectionId, outcome: Outcome) {
        let reply = match outcome {
            Ok(()) => Reply::Done,
            Err(message) => Reply::Failed { code: 125, message },
        };
        let line = serde_json::to_string(&reply).unwrap_or_default();
        self.tell(&ToHost::Line { connection, line, stream: None });
    }

    /// Starts a process that does it. Who asked reads the answer.
    fn work_on_files(&mut self, work: &Work, input: ChannelId, output: ChannelId) -> io::Result<()> {
        let (going_in, far_in) = UnixStream::pair()?;
        let (coming_out, far_out) = UnixStream::pair()?;
        let is_taken = self.link.accept(input, None, Some(going_in.into()))
            && self.link.accept(output, Some(coming_out.into()), None);
        if !is_taken {
            return Err(io::Error::other(TOO_MANY));
        }
        if let Some(keeper) = &mut self.keeper {
            return keeper.begin(work, &far_in.into(), &far_out.into());
        }
        if self.working.len() >= WORKERS_MAX {
            return Err(io::Error::other(format!("{WORKERS_MAX} others do so at this moment")));
        }
        let child = files::begin(work, far_in.into(), far_out.into())?;
        self.working.push(child.id().cast_signed());
        Ok(())
    }

    fn start_shim(&mut self) -> io::Result<()> {
        let first = match self.early.take() {
            Some((_, far)) => Stdio::from(OwnedFd::from(far)),
            None => Stdio::null(),
        };
        let child = Command::new("/proc/self/exe")
            .args(["shim", GUEST_STATE])
            .env_clear()
            .stdin(first)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        self.launching = Some(child);
        Ok(())
    }

    /// The shim's launcher has ended: the pod is up, or it is not.
    fn launched(&mut self, code: i32) {
        let Some(mut child) = self.launching.take() else { return };
        if code == 0 {
            let watching = UnixStream::connect(Path::new(GUEST_RUN).join(SOCKET)).and_then(Connection::new);
            match watching {
                Ok(mut connection) => {
                    connection.send(&serde_json::to_string(&Request::Watch).unwrap_or_default(), &[]);
                    self.connections.insert(WATCH, connection);
                }
                // A pod that was over at once: its state file tells the end.
                Err(_) => self.tell_last_state(),
            }
            return;
        }
        let mut said = String::new();
        if let Some(errors) = child.stderr.take() {
            let _ = errors.take(COMPLAINT_BYTES_MAX).read_to_string(&mut said);
        }
        let message = if said.trim().is_empty() { format!("the shim ended with code {code}") } else { said };
        self.tell(&ToHost::Failed { message: message.trim().to_string() });
        self.ended = true;
    }

    /// What the shim wrote last, and that it is gone.
    fn tell_last_state(&mut self) {
        let state = Path::new(GUEST_RUN).join(crate::container::protocol::STATE);
        let state = fs::read(state).ok().and_then(|text| serde_json::from_slice(&text).ok());
        self.drain_logs();
        if let Some(state) = state
            && let Ok(line) = serde_json::to_string(&Reply::State(state))
        {
            self.tell(&ToHost::Line { connection: WATCH, line, stream: None });
        }
        self.ended = true;
        self.tell(&ToHost::Ended);
    }

    /// As the first process, it gets every process that lost its parent.
    fn reap(&mut self) {
        for (pid, ended) in super::reap() {
            self.working.retain(|working| *working != pid);
            if self.launching.as_ref().is_some_and(|child| child.id().cast_signed() == pid) {
                self.launched(ended.shell_code());
            }
        }
    }

    fn accept_logs(&mut self) {
        while let Some(socket) = self.logs.as_mut().and_then(Listener::accept) {
            // One too many is closed: its output is lost, and nothing else.
            if let Some(channel) = self.link.open(Some(socket.into()), None) {
                self.log_channels.push(channel);
                self.tell(&ToHost::Log { channel });
            }
        }
    }

    /// Sends all output that is there. Tells whether none is left.
    fn drain_logs(&mut self) -> bool {
        self.accept_logs();
        let Self { link, log_channels, .. } = self;
        log_channels.iter().filter(|id| !link.is_dry(**id)).count() == 0
    }

    /// Whether the words that were before a state are on their way. The shim wrote those of an end before it told it; others'
    /// may be endless, and are waited for no longer than a moment.
    fn are_logs_sent(&mut self) -> bool {
        let is_dry = self.drain_logs();
        let since = *self.held_since.get_or_insert_with(Instant::now);
        if !is_dry && since.elapsed() < LOG_PATIENCE {
            return false;
        }
        self.held_since = None;
        true
    }

    /// Hands the shim's replies on, each when the output that was before it is on its way.
    fn forward(&mut self, id: ConnectionId) {
        while let Some(connection) = self.connections.get_mut(&id) {
            let Some((line, _)) = connection.held.front() else { break };
            let tells_end = id == WATCH || matches!(serde_json::from_str(line), Ok(Reply::Exited { .. }));
            let streams = if tells_end { connection.streams.clone() } else { Vec::new() };
            let is_dry = streams.into_iter().filter(|stream| !self.link.is_dry(*stream)).count() == 0;
            if !is_dry || (id == WATCH && !self.are_logs_sent()) {
                return;
            }
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let Some((line, terminal)) = connection.held.pop_front() else { return };
            let (line, stream) = match terminal.map(|terminal| self.share_terminal(id, terminal)) {
                None => (line, None),
                // The terminal is closed, which ends the program.
                Some(None) => (asked::failed(TOO_MANY), None),
                Some(stream) => (line, stream),
            };
            self.tell(&ToHost::Line { connection: id, line, stream });
        }
        if self.connections.get(&id).is_some_and(|it| it.over) {
            self.connections.remove(&id);
            if id == WATCH {
                self.tell_last_state();
            } else {
                self.tell(&ToHost::Closed { connection: id });
            }
        }
    }

    fn share_terminal(&mut self, id: ConnectionId, terminal: OwnedFd) -> Option<ChannelId> {
        super::super::link::never_wait(&terminal).ok()?;
        if !self.link.has_room(1 + LOG_CHANNELS) {
            return None;
        }
        let copy = terminal.try_clone().ok()?;
        let channel = self.link.open(Some(terminal), Some(copy))?;
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.streams.push(channel);
        }
        Some(channel)
    }

    /// Begins to connect to the pod's own address, in the pod's own network.
    fn dial(&mut self, connection: ConnectionId, port: u16, limit: Duration, channel: ChannelId) {
        match begin_to_connect(SocketAddr::new(self.cards.address(), port)) {
            Ok(socket) => {
                let until = Instant::now() + limit;
                self.dialling.push(Dialling { connection, channel, socket, until });
            }
            Err(error) => self.tell(&ToHost::Dialled { connection, channel, error: Some(error.to_string()) }),
        }
    }

    /// Tells of connections that are made, refused or given up.
    fn look_at_dialling(&mut self) {
        let mut pending = Vec::new();
        for one in std::mem::take(&mut self.dialling) {
            let made = match one.socket.outcome() {
                None if Instant::now() < one.until => {
                    pending.push(one);
                    continue;
                }
                None => Err(io::ErrorKind::TimedOut.into()),
                Some(made) => made.and_then(|()| Ok((one.socket.0.try_clone()?, one.socket.0))),
            };
            let (connection, channel) = (one.connection, one.channel);
            let error = match made {
                Ok((source, sink)) => {
                    let is_taken = self.link.accept(channel, Some(source), Some(sink));
                    (!is_taken).then(|| TOO_MANY.to_string())
                }
                Err(error) => Some(error.to_string()),
            };
            self.tell(&ToHost::Dialled { connection, channel, error });
        }
        self.dialling = pending;
    }
}

/// A connection that is being made.
struct Dialling {
    connection: ConnectionId,
    channel: ChannelId,
    socket: Connecting,
    until: Instant,
}

/// A socket that does not wait.
struct Connecting(OwnedFd);

impl Connecting {
    /// How it came out; `None` while that is open.
    fn outcome(&self) -> Option<io::Result<()>> {
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
        let is_open = poll(&mut polled, PollTimeout::ZERO).is_ok() && !polled[0].any().unwrap_or(true);
        if is_open {
            return None;
        }
        use nix::sys::socket::{getsockopt, sockopt::SocketError};
        Some(match getsockopt(&self.0, SocketError) {
            Ok(0) => Ok(()),
            Ok(code) => Err(io::Error::from_raw_os_error(code)),
            Err(errno) => Err(errno.into()),
        })
    }
}

fn begin_to_connect(to: SocketAddr) -> io::Result<Connecting> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let namespace = NetNs::open(Path::new(GUEST_NETNS))?;
    let made = namespace.run(|| socket(family, SockType::Stream, flags, None))??;
    match connect(made.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(nix::Error::EINPROGRESS) => Ok(Connecting(made)),
        Err(errno) => Err(errno.into()),
    }
}

/// So many processes, with so much of their arguments, as go into one message.
fn short(mut processes: Vec<ProcessSeen>) -> Vec<ProcessSeen> {
    processes.truncate(PROCESSES_MAX);
    let mut left = ARGUMENTS_BYTES_MAX;
    for process in &mut processes {
        let length: usize = process.argv.iter().map(String::len).sum();
        if length > left {
            process.argv.truncate(1);
            process.argv.iter_mut().for_each(|word| *word = word.chars().take(32).collect());
        }
        left = left.saturating_sub(length);
    }
    processes
}
