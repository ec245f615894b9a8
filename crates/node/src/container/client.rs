//! Speaks to a shim over its socket. Blocking, with a deadline on every answer; the driver calls it from blocking tasks.

use super::protocol::{LINE_BYTES_MAX, Reply, Request, SOCKET};
use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};
use sys::fdpass;

/// How long a shim may take for an answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to a shim.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    line: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Client {
    /// Connects to the shim of the pod with this run directory. `None` if no shim listens there.
    pub fn connect(run: &Path) -> io::Result<Option<Self>> {
        let stream = match UnixStream::connect(run.join(SOCKET)) {
            Ok(stream) => stream,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Some(Self { stream, line: Vec::new(), descriptors: VecDeque::new() }))
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<Reply> {
        self.send(request, descriptors)?;
        self.next()
    }

    /// Asks without waiting.
    pub fn send(&mut self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        use std::io::Write;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let sent = fdpass::send(&self.stream, &line, descriptors)?;
        self.stream.write_all(&line[sent..])
    }

    /// Waits for the next answer or event. `UnexpectedEof` when the shim has ended.
    #[expect(clippy::should_implement_trait, reason = "an answer that fails is no item")]
    pub fn next(&mut self) -> io::Result<Reply> {
        loop {
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.line.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            if self.line.len() > LINE_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut buffer = [0; 16 * 1024];
            let received = fdpass::receive(&self.stream, &mut buffer, 4)?;
            if received.length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.line.extend_from_slice(&buffer[..received.length]);
            self.descriptors.extend(received.descriptors);
        }
    }

    /// The descriptor that came with an answer.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    /// A second handle to the same connection, for asking while somebody waits for events.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, line: Vec::new(), descriptors: VecDeque::new() })
    }

    /// The socket, and what was read of it and not taken yet, for a caller that waits by itself.
    pub fn into_parts(self) -> (UnixStream, Vec<u8>) {
        (self.stream, self.line)
    }

    /// The socket.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
