//! A socket that is listened on from a loop that polls, and that rests where the system has nothing to make a connection of.
//!
//! With no descriptor or memory left, accept(2) fails at once and the socket stays ready: who only polls would try again
//! without end.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
    time::{Duration, Instant},
};

/// How long it rests.
const REST: Duration = Duration::from_millis(200);

/// A listening socket that never waits.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    rests_until: Option<Instant>,
}

impl Listener {
    /// Over a socket that returns at once.
    pub fn new(socket: UnixListener) -> Self {
        Self { socket, rests_until: None }
    }

    /// Until when it is not to be polled.
    pub fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.rests_until.filter(|until| *until > now)
    }

    /// The next who has connected; `None` when there is none for now.
    pub fn accept(&mut self) -> Option<UnixStream> {
        let accepted = self.socket.accept().map(|(stream, _)| stream);
        self.settle(accepted, Instant::now())
    }

    fn settle(&mut self, accepted: io::Result<UnixStream>, now: Instant) -> Option<UnixStream> {
        match accepted {
            Ok(stream) => {
                self.rests_until = None;
                Some(stream)
            }
            // Nobody is there, or who was there has gone again: the socket is not ready any more.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                ) =>
            {
                None
            }
            Err(error) => {
                if self.rests_until.is_none() {
                    eprintln!("cannot take a connection: {error}");
                }
                self.rests_until = Some(now + REST);
                None
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_where_the_system_has_nothing_left_and_takes_who_waited() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("socket");
        let socket = UnixListener::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut listener = Listener::new(socket);
        let now = Instant::now();
        assert!(listener.accept().is_none());
        assert_eq!(listener.rests_until(now), None, "nobody came, which is usual");
        let _client = UnixStream::connect(&path).unwrap();
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
            assert!(listener.settle(Err(io::Error::from_raw_os_error(errno)), now).is_none());
            assert_eq!(listener.rests_until(now), Some(now + REST));
            assert_eq!(listener.rests_until(now + REST), None, "it is polled again");
        }
        assert!(listener.accept().is_some(), "who connected meanwhile is not lost");
        assert_eq!(listener.rests_until(now), None);
    }
}
