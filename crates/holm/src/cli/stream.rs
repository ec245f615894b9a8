//! Programs in containers with their streams: `holm exec`, `holm attach`, and the terminal in raw mode.
//!
//! ```text
//!   keyboard ──raw──► Stdin frames        window size ──► Resize frames       SIGINT, SIGTERM ──► Signal frames
//!   screen   ◄─────── Stdout frames       Exit frame  ──► our exit code
//! ```
//! The terminal is given back on every way out: return, error, signal and panic (a guard restores it when dropped).

use super::{
    completion,
    failure::{Failure, Result},
    input::Input,
    output,
    run::request_environment,
    session::Session,
};
use api::{
    client::FrameStream,
    frame::Frame,
    v1::types::stream::{AttachQuery, ExecRequest},
};
use bytes::Bytes;
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use std::{io::Write, os::fd::AsFd};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The key that leaves a console or an attached terminal: Ctrl-].
pub const ESCAPE_KEY: u8 = 0x1d;

/// A program to run in a container.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "The exit code is the program's: 126 it cannot be run, 127 it was not found, 128+n it died of signal n."
)]
pub struct ExecArgs {
    /// Instance
    #[arg(value_name = "NAME", add = completion::names("instances"))]
    pub instance: String,
    /// Program and arguments
    #[arg(required = true, value_name = "CMD", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// Send standard input
    #[arg(long, short)]
    pub interactive: bool,
    /// A terminal
    #[arg(long, short)]
    pub tty: bool,
    /// Variable of the environment: KEY=VALUE, or KEY to pass on your own (may be given several times)
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    pub env: Vec<String>,
    /// Working directory
    #[arg(long, short, value_name = "PATH")]
    pub workdir: Option<String>,
    /// User: name or number, with :group if wanted
    #[arg(long, short, value_name = "USER")]
    pub user: Option<String>,
    /// Container of the pod [default: the first]
    #[arg(long, short, value_name = "CONTAINER")]
    pub container: Option<String>,
}

/// A container to attach to.
#[derive(Debug, Clone, clap::Args)]
pub struct AttachArgs {
    /// Instance
    #[arg(value_name = "NAME", add = completion::names("instances"))]
    pub instance: String,
    /// Container of the pod [default: the first]
    #[arg(long, short, value_name = "CONTAINER")]
    pub container: Option<String>,
    /// Only listen: send no input
    #[arg(long)]
    pub no_stdin: bool,
}

/// What of our side is connected.
#[derive(Debug, Clone, Copy)]
pub struct Io {
    /// Send standard input.
    pub stdin: bool,
    /// Put our terminal into raw mode and tell its size.
    pub terminal: bool,
    /// Ctrl-] leaves the program running.
    pub escape: bool,
}

/// `holm exec`.
///
/// # Errors
/// As the server refuses; the program's exit code, if it is not 0.
pub async fn exec(session: &Session, args: &ExecArgs) -> Result {
    if args.tty && args.interactive && !session.stdin_is_terminal {
        return Err(Failure::usage("standard input is no terminal").hint("leave out -t"));
    }
    let size = sys::terminal::size(std::io::stdin()).ok().filter(|_| args.tty);
    let request = ExecRequest {
        container: args.container.clone(),
        argv: args.command.clone(),
        env: request_environment(&args.env)?,
        cwd: args.workdir.clone(),
        user: args.user.clone(),
        tty: args.tty,
        stdin: args.interactive,
        rows: size.map(|s| s.rows),
        columns: size.map(|s| s.columns),
    };
    let frames = session.client.exec(&args.instance, &request).await?;
    let io = Io { stdin: args.interactive, terminal: args.tty && session.stdin_is_terminal, escape: false };
    leave(relay(session, frames, io).await?)
}

/// `holm attach`.
///
/// # Errors
/// As the server refuses; the program's exit code, if it is not 0.
pub async fn attach(session: &Session, args: &AttachArgs) -> Result {
    let query = AttachQuery { container: args.container.clone() };
    let instance: api::v1::types::instance::Instance = session.client.get(&args.instance).await?;
    let frames = session.client.attach(&args.instance, &query).await?;
    let container = match &args.container {
        Some(name) => instance.containers.iter().find(|c| c.name == *name),
        None => instance.containers.first(),
    };
    let has_terminal = container.is_some_and(|c| c.tty) && session.stdin_is_terminal;
    let io = Io {
        stdin: !args.no_stdin && container.is_none_or(|c| c.stdin_open || c.tty),
        terminal: has_terminal && !args.no_stdin,
        escape: true,
    };
    leave(relay(session, frames, io).await?)
}

fn leave(code: i32) -> Result {
    match code {
        0 => Ok(()),
        code => Err(Failure::silent(u8::try_from(code).unwrap_or(1))),
    }
}

/// Connects our standard streams with a program until it ends; gives its exit code.
///
/// # Errors
/// The connection or our streams broke, or the user left.
pub async fn relay(session: &Session, frames: FrameStream, io: Io) -> Result<i32> {
    let stdin = std::io::stdin();
    if io.terminal && io.escape {
        session.say("attached; Ctrl-] leaves it running");
    }
    let _raw = io.terminal.then(|| enter_raw(stdin.as_fd())).transpose()?;
    let (sink, source) = frames.split();
    // Side by side: a program that waits until its output is taken takes no input, and the other way round.
    tokio::select! {
        code = receive(source) => code,
        failure = send(sink, io) => Err(failure),
    }
}

/// Shows what comes until the program ends; gives its exit code.
async fn receive(mut source: SplitStream<FrameStream>) -> Result<i32> {
    while let Some(frame) = source.next().await {
        let frame = frame.map_err(|e| Failure::local("the connection broke", &e))?;
        if let Some(code) = show(frame)? {
            return Ok(code);
        }
    }
    Err(Failure::new(model::error::Code::Unavailable, "the connection ended before the program did"))
}

/// Sends what is typed, new sizes of the terminal and signals. Ends when the user leaves or our input breaks.
async fn send(mut sink: SplitSink<FrameStream, Frame>, io: Io) -> Failure {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return Failure::local("cannot listen to signals", &error),
    };
    let mut input = io.stdin.then(Input::stdin);
    let mut frame = io.terminal.then(size_frame);
    loop {
        if let Some(frame) = frame.take() {
            // What cannot be sent is no loss: the program has ended, and the source says how.
            let _ = sink.send(frame).await;
        }
        frame = tokio::select! {
            piece = next(&mut input), if input.is_some() => match piece {
                None => { input = None; Some(Frame::Stdin(Bytes::new())) }
                Some(Ok(keys)) if io.escape && io.terminal && keys.contains(&ESCAPE_KEY) => return Failure::silent(0),
                Some(Ok(keys)) => Some(Frame::Stdin(keys)),
                Some(Err(e)) => return Failure::local("cannot read standard input", &e),
            },
            frame = signals.next(io.terminal) => Some(frame),
        };
    }
}

/// Signals that are passed on.
struct Signals {
    resized: Signal,
    interrupted: Signal,
    terminated: Signal,
    hung_up: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            resized: signal(SignalKind::window_change())?,
            interrupted: signal(SignalKind::interrupt())?,
            terminated: signal(SignalKind::terminate())?,
            hung_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self, has_terminal: bool) -> Frame {
        tokio::select! {
            _ = self.resized.recv(), if has_terminal => size_frame(),
            _ = self.interrupted.recv() => Frame::Signal(libc::SIGINT),
            _ = self.terminated.recv() => Frame::Signal(libc::SIGTERM),
            _ = self.hung_up.recv() => Frame::Signal(libc::SIGHUP),
        }
    }
}

/// The next bytes of an input that is there.
async fn next(input: &mut Option<Input>) -> Option<std::io::Result<Bytes>> {
    input.as_mut()?.next().await
}

/// Puts a terminal into raw mode until the guard is dropped.
///
/// # Errors
/// It is no terminal.
pub fn enter_raw(terminal: std::os::fd::BorrowedFd<'_>) -> Result<sys::terminal::RawMode<'_>> {
    sys::terminal::RawMode::enter(terminal).map_err(|e| {
        Failure::new(
            model::error::Code::Internal,
            format!("the terminal cannot be set up: {e}: {}", e.source),
        )
    })
}

fn size_frame() -> Frame {
    let size = sys::terminal::size(std::io::stdin()).unwrap_or_default();
    Frame::Resize { rows: size.rows, columns: size.columns }
}

/// Shows what came; `Some` is the exit code.
fn show(frame: Frame) -> Result<Option<i32>> {
    match frame {
        Frame::Stdout(bytes) => output::write(&bytes).map(|()| None),
        Frame::Stderr(bytes) => {
            let mut err = std::io::stderr().lock();
            err.write_all(&bytes).map(|()| None).map_err(|e| Failure::output(&e))
        }
        Frame::Exit(code) => Ok(Some(code)),
        Frame::Error(text) => Err(Failure { exit: 125, ..Failure::new(model::error::Code::Internal, text) }),
        Frame::Stdin(_) | Frame::Resize { .. } | Frame::Signal(_) => Ok(None),
    }
}
