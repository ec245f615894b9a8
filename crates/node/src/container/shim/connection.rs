//! One connection to the shim's socket: lines and descriptors in, lines and descriptors out, never waiting.

use crate::container::protocol::{LINE_BYTES_MAX, Reply, Request};
use std::{
    collections::VecDeque,
    io,
    io::Write,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};
use sys::fdpass;

/// Most descriptors that wait for their request.
const DESCRIPTORS_MAX: usize = 8;
/// Most bytes of replies that wait; a client that reads nothing is let go.
const REPLIES_BYTES_MAX: usize = 1 << 20;

/// A client.
#[derive(Debug)]
pub struct Connection {
    /// Number that is never used again.
    pub id: u64,
    /// It wants to be told of every change.
    pub watches: bool,
    stream: UnixStream,
    line: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    unsent: VecDeque<u8>,
    over: bool,
}

impl Connection {
    /// A client that has just connected.
    pub fn new(id: u64, stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            id,
            watches: false,
            stream,
            line: Vec::new(),
            descriptors: VecDeque::new(),
            unsent: VecDeque::new(),
            over: false,
        })
    }

    /// The socket.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether the client is gone or broke the rules.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether replies wait to be sent.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() && !self.over
    }

    /// Reads what came. Gives the requests that are whole, with an error for a line that is none.
    pub fn read(&mut self) -> Vec<Result<Request, String>> {
        let mut buffer = [0; 16 * 1024];
        match fdpass::receive(&self.stream, &mut buffer, DESCRIPTORS_MAX) {
            Ok(received) if received.length == 0 => self.over = true,
            Ok(received) => {
                self.line.extend_from_slice(&buffer[..received.length]);
                self.descriptors.extend(received.descriptors);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.over = true,
        }
        if self.line.len() > LINE_BYTES_MAX || self.descriptors.len() > DESCRIPTORS_MAX {
            self.over = true;
        }
        let mut requests = Vec::new();
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            requests.push(serde_json::from_slice(&line).map_err(|error| format!("not a request: {error}")));
        }
        requests
    }

    /// The descriptors that came with a request, if they are as many as it has.
    pub fn take<const COUNT: usize>(&mut self) -> Option<[OwnedFd; COUNT]> {
        let all: Vec<OwnedFd> = self.descriptors.drain(..self.descriptors.len().min(COUNT)).collect();
        all.try_into().ok()
    }

    /// Sends a reply, with a descriptor if one is given.
    pub fn send(&mut self, reply: &Reply, descriptor: Option<BorrowedFd<'_>>) {
        let Ok(mut line) = serde_json::to_vec(reply) else {
            return;
        };
        line.push(b'\n');
        if self.unsent.len() + line.len() > REPLIES_BYTES_MAX {
            self.over = true;
        }
        let Some(descriptor) = descriptor else {
            self.unsent.extend(line);
            return self.flush();
        };
        self.flush();
        if self.has_unsent() {
            // A client that asks for a descriptor reads its replies first.
            self.over = true;
            return;
        }
        match fdpass::send(&self.stream, &line, &[descriptor]) {
            Ok(sent) => {
                self.unsent.extend(&line[sent..]);
                self.flush();
            }
            Err(_) => self.over = true,
        }
    }

    /// Sends what waits, as far as the client takes it.
    pub fn flush(&mut self) {
        while !self.unsent.is_empty() {
            let (front, _) = self.unsent.as_slices();
            match self.stream.write(front) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.over = true;
                    return;
                }
            }
        }
    }
}
