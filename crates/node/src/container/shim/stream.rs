//! The standard streams of a container: read into its log and to whoever is attached, and fed from them.
//!
//! Memory is bounded: while a reader who is attached has more than [`BACKLOG_BYTES_MAX`] waiting, the container's output
//! is not read, so the container waits as it would on a pipe; a reader who takes nothing for [`PATIENCE`] is let go, so
//! it never waits for ever.

use super::log::TaskLog;
use jiff::Timestamp;
use std::{
    collections::VecDeque,
    fs, io,
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};
use sys::jail::privilege;

/// Most bytes that wait for one reader.
pub const BACKLOG_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of input that wait for the container.
const INPUT_BYTES_MAX: usize = 64 * 1024;
/// How long a reader may take nothing.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Most readers of one container.
pub const ATTACHMENTS_MAX: usize = 32;
const CHUNK_BYTES: usize = 64 * 1024;

/// The near ends of a container's standard streams.
#[derive(Debug, Default)]
pub struct Streams {
    /// Output (1) and errors (2); with a terminal, one stream of both.
    pub outputs: Vec<(u8, fs::File)>,
    /// Input; with a terminal, the same terminal.
    pub input: Option<fs::File>,
    /// The terminal.
    pub terminal: Option<OwnedFd>,
    /// The far end of a console, held so that it stays open while nobody inside has it.
    _console: Option<OwnedFd>,
    waiting: VecDeque<u8>,
    /// Input has ended and is closed once it is all written.
    ended: bool,
}

/// The far ends that a started program gets.
#[derive(Debug)]
pub struct FarEnds {
    files: [OwnedFd; 3],
}

impl FarEnds {
    /// Descriptors for 0, 1 and 2.
    pub fn descriptors(&self) -> [RawFd; 3] {
        [0, 1, 2].map(|number| self.files[number].as_raw_fd())
    }
}

impl Streams {
    /// Pipes for a program without a terminal.
    pub fn pipes(stdin_open: bool) -> io::Result<(Self, FarEnds)> {
        let (output, output_far) = io::pipe()?;
        let (errors, errors_far) = io::pipe()?;
        let (input, input_far) = if stdin_open {
            let (far, near) = io::pipe()?;
            (Some(near), OwnedFd::from(far))
        } else {
            (None, OwnedFd::from(fs::File::open("/dev/null")?))
        };
        let streams = Self {
            outputs: vec![(1, near_end(output)?), (2, near_end(errors)?)],
            input: input.map(near_end).transpose()?,
            ..Self::default()
        };
        Ok((streams, FarEnds { files: [input_far, output_far.into(), errors_far.into()] }))
    }

    /// A terminal whose near end came from the program's process.
    pub fn terminal(near: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            outputs: vec![(1, near_end(near.try_clone()?)?)],
            input: Some(near_end(near.try_clone()?)?),
            terminal: Some(near),
            ..Self::default()
        })
    }

    /// A terminal that is a system's console: its programs open and close it as they like.
    pub fn console(near: OwnedFd) -> io::Result<Self> {
        let console = privilege::terminal_peer(near.as_raw_fd())?;
        Ok(Self { _console: Some(console), ..Self::terminal(near)? })
    }

    /// Whether more input may be taken from readers.
    pub fn takes_input(&self) -> bool {
        self.input.is_some() && !self.ended && self.waiting.len() < INPUT_BYTES_MAX
    }

    /// Whether input waits to be written.
    pub fn input_waits(&self) -> bool {
        self.input.is_some() && !self.waiting.is_empty()
    }

    /// Takes input for the container.
    pub fn put_input(&mut self, bytes: &[u8]) {
        if self.input.is_some() && !self.ended {
            self.waiting.extend(bytes);
            self.feed();
        }
    }

    /// No more input comes. A terminal stays open for the next reader.
    pub fn end_input(&mut self) {
        if self.terminal.is_none() {
            self.ended = true;
            self.feed();
        }
    }

    /// Writes waiting input as far as the container takes it.
    pub fn feed(&mut self) {
        if let Some(input) = &mut self.input
            && drain(&mut self.waiting, input).is_err()
        {
            self.input = None;
            self.waiting.clear();
        }
        if self.ended && self.waiting.is_empty() {
            self.input = None;
        }
    }
}

/// Somebody who reads along, and may write.
#[derive(Debug)]
pub struct Attachment {
    /// The container's input stays open when this one's ends.
    pub keeps_input: bool,
    input: Option<fs::File>,
    outputs: [Option<fs::File>; 2],
    backlogs: [VecDeque<u8>; 2],
    progress: Instant,
}

impl Attachment {
    /// Takes three descriptors: to read input from, to write output and errors to.
    pub fn new([input, output, errors]: [OwnedFd; 3], with_input: bool) -> io::Result<Self> {
        Ok(Self {
            keeps_input: false,
            input: if with_input { Some(near_end(input)?) } else { None },
            outputs: [Some(near_end(output)?), Some(near_end(errors)?)],
            backlogs: [VecDeque::new(), VecDeque::new()],
            progress: Instant::now(),
        })
    }

    /// The descriptor to wait on for input.
    pub fn input(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().map(AsFd::as_fd)
    }

    /// The descriptors that have bytes waiting for them.
    pub fn waiting(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let pairs = self.outputs.iter().zip(&self.backlogs);
        pairs
            .filter(|(_, backlog)| !backlog.is_empty())
            .filter_map(|(output, _)| output.as_ref())
            .map(AsFd::as_fd)
    }

    /// Whether the reader is behind so far that the container has to wait.
    pub fn is_full(&self) -> bool {
        self.backlogs.iter().any(|backlog| backlog.len() >= BACKLOG_BYTES_MAX)
    }

    /// Whether everything was taken.
    pub fn is_empty(&self) -> bool {
        self.backlogs.iter().all(VecDeque::is_empty)
    }

    /// Whether the reader is gone, or took nothing for too long.
    pub fn is_over(&self, now: Instant) -> bool {
        self.outputs.iter().all(Option::is_none) || (!self.is_empty() && now >= self.gives_up())
    }

    /// When the reader is let go if it takes nothing.
    pub fn gives_up(&self) -> Instant {
        self.progress + PATIENCE
    }

    fn push(&mut self, stream: u8, bytes: &[u8]) {
        let number = usize::from(stream == 2);
        if self.is_empty() {
            self.progress = Instant::now();
        }
        if self.outputs[number].is_some() {
            self.backlogs[number].extend(bytes);
        }
        self.flush();
    }

    /// Writes what waits as far as the reader takes it.
    pub fn flush(&mut self) {
        for (output, backlog) in self.outputs.iter_mut().zip(&mut self.backlogs) {
            let Some(file) = output else { continue };
            match drain(backlog, file) {
                Ok(0) => {}
                Ok(_) => self.progress = Instant::now(),
                Err(_) => {
                    *output = None;
                    backlog.clear();
                }
            }
        }
    }

    /// Reads input for the container. `None` at its end.
    pub fn read_input(&mut self) -> Option<Vec<u8>> {
        let file = self.input.as_mut()?;
        let mut buffer = vec![0; CHUNK_BYTES / 4];
        match file.read(&mut buffer) {
            Ok(0) => {
                self.input = None;
                None
            }
            Ok(length) => {
                buffer.truncate(length);
                Some(buffer)
            }
            Err(error) if is_later(&error) => Some(Vec::new()),
            Err(_) => {
                self.input = None;
                None
            }
        }
    }
}

/// Reads once from an output of the container, into the log and to the readers. Tells whether the stream is open.
pub fn pump(stream: u8, file: &mut fs::File, log: &mut TaskLog, attachments: &mut [Attachment]) -> Pumped {
    let mut buffer = [0; CHUNK_BYTES];
    match file.read(&mut buffer) {
        // The far end of a terminal reports its last close as EIO.
        Ok(0) => Pumped::Closed,
        Ok(length) => {
            log.write(Timestamp::now(), stream, &buffer[..length]);
            for attachment in attachments {
                attachment.push(stream, &buffer[..length]);
            }
            Pumped::Some
        }
        Err(error) if is_later(&error) => Pumped::Nothing,
        Err(_) => Pumped::Closed,
    }
}

/// What reading an output gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pumped {
    /// Bytes.
    Some,
    /// None now.
    Nothing,
    /// None ever again.
    Closed,
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Writes from the front of a queue; tells how much went.
fn drain(queue: &mut VecDeque<u8>, file: &mut fs::File) -> io::Result<usize> {
    let mut total = 0;
    while !queue.is_empty() {
        let (front, _) = queue.as_slices();
        match file.write(front) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => {
                queue.drain(..length);
                total += length;
            }
            Err(error) if is_later(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

/// A descriptor that never blocks the shim.
fn near_end(fd: impl Into<OwnedFd>) -> io::Result<fs::File> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let fd = fd.into();
    let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(fs::File::from(fd))
}
