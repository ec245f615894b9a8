//! What clients ask the shim, on its way there.
//!
//! Each has a connection of its own to the shim, made with his first line. To connect to a shim that takes nobody would hold up
//! everybody: it is tried without waiting, now and then, and who asked is told when that was in vain.

use super::{Agent, Connection, TOO_MANY};
use crate::container::{
    machine::{
        link::ChannelId,
        talk::{ConnectionId, ToHost},
    },
    protocol::Reply,
};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::{Duration, Instant},
};

/// How long the shim may take nobody.
const SHIM_PATIENCE: Duration = Duration::from_secs(5);
/// Most lines that wait for it.
const WAITING_MAX: usize = 256;

/// A line of a client.
pub(super) struct Asked {
    connection: ConnectionId,
    line: String,
    streams: Vec<ChannelId>,
    early: bool,
    until: Instant,
}

impl Asked {
    pub(super) fn new(connection: ConnectionId, line: String, streams: Vec<ChannelId>, early: bool) -> Self {
        Self { connection, line, streams, early, until: Instant::now() + SHIM_PATIENCE }
    }
}

/// The line of a refusal.
pub(super) fn failed(message: &str) -> String {
    let reply = Reply::Failed { code: 125, message: message.into() };
    serde_json::to_string(&reply).unwrap_or_default()
}

/// Connects to a socket, without waiting until somebody takes the connection: `WouldBlock` where too many wait already.
pub(super) fn reach(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let made = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(made.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(made.into())
}

impl Agent {
    /// Hands a line to the shim, behind those that its client said before.
    pub(super) fn ask(&mut self, asked: Asked) {
        let is_behind = self.waiting.iter().any(|other| other.connection == asked.connection);
        let outcome = if is_behind { Err(io::ErrorKind::WouldBlock.into()) } else { self.hand_over(&asked) };
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.waiting.len() < WAITING_MAX => {
                self.waiting.push_back(asked);
            }
            Err(error) => self.refuse(&asked, &error),
            Ok(()) => {}
        }
    }

    /// Tries again what waits, and gives up what waited for too long.
    pub(super) fn ask_again(&mut self) {
        let now = Instant::now();
        for asked in std::mem::take(&mut self.waiting) {
            match asked.until <= now {
                true => self.refuse(&asked, &io::ErrorKind::WouldBlock.into()),
                false => self.ask(asked),
            }
        }
    }

    /// Forgets what waits of a client that is gone.
    pub(super) fn forget_asked(&mut self, connection: ConnectionId) {
        let all = std::mem::take(&mut self.waiting).into_iter();
        let (gone, waiting): (VecDeque<Asked>, _) = all.partition(|asked| asked.connection == connection);
        self.waiting = waiting;
        gone.iter().flat_map(|asked| &asked.streams).for_each(|stream| self.link.refuse(*stream));
    }

    fn hand_over(&mut self, asked: &Asked) -> io::Result<()> {
        let Asked { connection: id, line, streams, early, .. } = asked;
        if !self.connections.contains_key(id) {
            let socket = if *early {
                let (near, far) = UnixStream::pair()?;
                self.early = Some((*id, far));
                near
            } else {
                reach(&self.shim)?
            };
            self.connections.insert(*id, Connection::new(socket)?);
        }
        let mut far_ends = Vec::new();
        for (number, channel) in streams.iter().enumerate() {
            let (reading, writing) = io::pipe()?;
            // The first is read by the program, the others are written by it.
            let is_taken = if number == 0 {
                far_ends.push(OwnedFd::from(reading));
                self.link.accept(*channel, None, Some(writing.into()))
            } else {
                far_ends.push(OwnedFd::from(writing));
                self.link.accept(*channel, Some(reading.into()), None)
            };
            if !is_taken {
                return Err(io::Error::other(TOO_MANY));
            }
        }
        let connection = self.connections.get_mut(id).expect("it was just made");
        connection.streams.extend(streams);
        connection.send(line, &far_ends);
        Ok(())
    }

    /// Tells a client that the shim was not reached. The streams that came along end on his side too.
    fn refuse(&mut self, asked: &Asked, error: &io::Error) {
        let connection = asked.connection;
        asked.streams.iter().for_each(|stream| self.link.refuse(*stream));
        if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            // The shim has ended: its socket is closed, and so is what led to it.
            self.forget_asked(connection);
            return self.tell(&ToHost::Closed { connection });
        }
        let line = match error.kind() {
            io::ErrorKind::WouldBlock => {
                failed(&format!("the shim in the machine took nobody for {} s", SHIM_PATIENCE.as_secs()))
            }
            _ => failed(&format!("cannot ask the shim in the machine: {error}")),
        };
        self.tell(&ToHost::Line { connection, line, stream: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::machine::{
        link::{Link, Side},
        talk::ToGuest,
    };
    use nix::sys::socket::{Backlog, bind, listen};
    use std::{
        fs::File,
        io::{BufRead, BufReader, Read},
        os::unix::net::UnixListener,
    };

    const PATIENCE: Duration = Duration::from_secs(30);

    /// An agent, the relay's end of its port, and a directory for the shim's socket.
    struct Stage {
        agent: Agent,
        host: Link,
        place: tempfile::TempDir,
    }

    impl Stage {
        fn new() -> Self {
            let (near, far) = UnixStream::pair().unwrap();
            let place = tempfile::tempdir().unwrap();
            let file = |stream: UnixStream| File::from(OwnedFd::from(stream));
            let agent = Agent::new(file(near), place.path().join("socket")).unwrap();
            Self { agent, host: Link::new(file(far), Side::Host).unwrap(), place }
        }

        /// A shim that listens, and has room for one who waits.
        fn listen(&self) -> UnixListener {
            let made = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
            bind(made.as_raw_fd(), &UnixAddr::new(&self.place.path().join("socket")).unwrap()).unwrap();
            listen(&made, Backlog::new(0).unwrap()).unwrap();
            made.into()
        }

        /// Asks with three streams; gives what leads to the first and comes out of the others.
        fn ask(&mut self, connection: ConnectionId, line: &str) -> [UnixStream; 3] {
            let pairs = [(); 3].map(|()| UnixStream::pair().unwrap());
            let [(input, far_in), (output, far_out), (errors, far_err)] = pairs;
            let ends =
                [(Some(far_in.into()), None), (None, Some(far_out.into())), (None, Some(far_err.into()))];
            let streams = self.host.open_all(ends).unwrap().into();
            self.host.tell(&ToGuest::Line { connection, line: line.into(), streams, early: false }).unwrap();
            [input, output, errors]
        }

        /// Lets both do their work until the relay hears something.
        fn hear(&mut self) -> ToHost {
            let deadline = Instant::now() + PATIENCE;
            loop {
                assert!(Instant::now() < deadline, "the agent says nothing");
                self.turn();
                if let Some(message) = self.host.next::<ToHost>() {
                    return message;
                }
            }
        }

        fn turn(&mut self) {
            let ids: Vec<ChannelId> = self.host.wanted().iter().map(|it| it.0).collect();
            ids.into_iter().for_each(|id| self.host.serve(id));
            self.agent.wait(Some(Duration::from_millis(10)));
            while let Some(message) = self.agent.link.next::<ToGuest>() {
                self.agent.on_message(message);
            }
            self.agent.ask_again();
            for id in self.agent.connections.keys().copied().collect::<Vec<_>>() {
                self.agent.forward(id);
            }
        }

        /// Nothing is left of the streams of who asked.
        fn are_closed(&mut self, ends: [UnixStream; 3]) {
            for mut end in ends {
                end.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut rest = Vec::new();
                end.read_to_end(&mut rest).unwrap();
                assert_eq!(rest, b"");
            }
            assert!(self.host.has_room(1024), "a place is lost");
        }
    }

    fn is_failure(message: ToHost, asked: ConnectionId, words: &str) {
        let ToHost::Line { connection, line, stream: None } = message else { panic!("{message:?}") };
        let Ok(Reply::Failed { message, .. }) = serde_json::from_str(&line) else { panic!("{line}") };
        assert!(connection == asked && message.contains(words), "{connection}: {message}");
    }

    #[test]
    fn a_shim_that_has_ended_is_told_and_streams_end() {
        let mut stage = Stage::new();
        let ends = stage.ask(7, "{}");
        assert!(matches!(stage.hear(), ToHost::Closed { connection: 7 }));
        stage.are_closed(ends);
    }

    #[test]
    fn a_shim_that_takes_nobody_is_told_in_time_and_holds_up_nobody() {
        let mut stage = Stage::new();
        let shim = stage.listen();
        let mut queue = Vec::new();
        while let Ok(waits) = reach(&stage.agent.shim) {
            queue.push(waits);
        }
        let begun = Instant::now();
        let [one, other] = [stage.ask(7, "first"), stage.ask(7, "second")];
        // Others are answered meanwhile.
        stage.host.tell(&ToGuest::Usage { connection: 8 }).unwrap();
        assert!(matches!(stage.hear(), ToHost::Usage { connection: 8, .. }));
        assert!(begun.elapsed() < SHIM_PATIENCE);
        is_failure(stage.hear(), 7, "took nobody for 5 s");
        is_failure(stage.hear(), 7, "took nobody for 5 s");
        assert!(begun.elapsed() >= SHIM_PATIENCE);
        stage.are_closed(one);
        stage.are_closed(other);

        // One that takes its clients again within that time gets every line, in order.
        let _ends = [stage.ask(9, "first"), stage.ask(9, "second")];
        stage.turn();
        assert_eq!(stage.agent.waiting.len(), 2);
        // Who gives up meanwhile leaves nothing behind.
        let gone = stage.ask(10, "never mind");
        stage.host.tell(&ToGuest::Closed { connection: 10 }).unwrap();
        (0..5).for_each(|_| stage.turn());
        drop(gone);
        assert_eq!(stage.agent.waiting.len(), 2);
        queue.iter().for_each(|_| drop(shim.accept().unwrap()));
        while !stage.agent.waiting.is_empty() {
            stage.turn();
        }
        let taken = BufReader::new(shim.accept().unwrap().0);
        let lines: Vec<String> = taken.lines().take(2).map(Result::unwrap).collect();
        assert_eq!(lines, ["first", "second"]);
    }
}
