//! Programs in containers with their standard streams: exec and attach, framed (see [`crate::frame`]).
//!
//! ```text
//!   client ==frames==> input  --> stdin, resize, signal
//!          <==frames== writer <-- stdout, stderr, then exit
//! ```
//! The session ends when the program has ended and its output was sent, or when the client is gone.

use super::streams::{Upgrade, bytes, noted, reach, told};
use crate::{
    app::{App, Asker},
    error::{Failure, Result},
    frame::{Frame, FrameCodec},
    pool::StreamPlace,
    request::{Params, read_body},
    streams::{Attach, Exec, Program, Reader, Session, Writer},
    v1::types::stream::{AttachQuery, ExecRequest},
};
use axum::{
    body::Body,
    extract::{Path, Request, State},
    response::Response,
};
use control::Role;
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use model::error::Code;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};
use tokio_util::codec::Framed;

type Wire = Framed<TokioIo<hyper::upgrade::Upgraded>, FrameCodec>;

/// Bytes read at a time from a program.
const READ_BYTES: usize = 32 * 1024;
/// Frames that wait for a slow client before the program is held up.
const FRAMES_MAX: usize = 16;
/// Time for the rest of the output once the program has ended: its children may hold its streams open.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Most arguments of a program.
const ARGUMENTS_MAX: usize = 4_096;

/// POST of an exec.
pub async fn exec(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    request: Request,
) -> Result<Response> {
    let instance = reach(&app, &caller, &reference, Role::Member, "running a program")?;
    let (parts, body) = request.into_parts();
    let input: ExecRequest = crate::request::read_json_body(&parts.headers, &read_body(body).await?)?;
    let upgrade = Upgrade::of(Request::from_parts(parts, Body::empty()))?;
    let exec = exec_of(input)?;
    let slot = app.stream_slot(&caller)?;
    let outcome = app.streams().exec(&instance.record, exec).await;
    let session = noted(&app, &caller, "exec", &reference, &instance.record, outcome).await?;
    Ok(start(&app, upgrade, session, slot))
}

/// GET of an attach.
pub async fn attach(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(query): Params<AttachQuery>,
    request: Request,
) -> Result<Response> {
    let instance = reach(&app, &caller, &reference, Role::Member, "attaching to a program")?;
    let upgrade = Upgrade::of(request)?;
    let slot = app.stream_slot(&caller)?;
    let wanted = Attach { container: query.container, input: true, ..Attach::default() };
    let outcome = app.streams().attach(&instance.record, wanted).await;
    let session = noted(&app, &caller, "attach", &reference, &instance.record, outcome).await?;
    Ok(start(&app, upgrade, session, slot))
}

fn exec_of(input: ExecRequest) -> Result<Exec> {
    if input.argv.first().is_none_or(String::is_empty) {
        return Err(Failure::new(Code::Invalid, "name a program to run").field("argv"));
    }
    if input.argv.len() > ARGUMENTS_MAX {
        let message = format!("a program gets at most {ARGUMENTS_MAX} arguments");
        return Err(Failure::new(Code::TooLarge, message).field("argv"));
    }
    let has_nul = |text: &String| text.contains('\0');
    if input.argv.iter().any(has_nul) || input.env.iter().any(|(k, v)| has_nul(k) || has_nul(v)) {
        return Err(
            Failure::new(Code::Invalid, "arguments and environment cannot hold a NUL byte").field("argv")
        );
    }
    if let Some((key, _)) = input.env.iter().find(|(key, _)| key.is_empty() || key.contains('=')) {
        let message = format!("{key:?} is no name of a variable");
        return Err(Failure::new(Code::Invalid, message).field("env"));
    }
    Ok(Exec {
        container: input.container,
        argv: input.argv,
        env: input.env.into_iter().collect(),
        cwd: input.cwd,
        user: input.user,
        tty: input.tty,
        stdin: input.stdin,
        size: input.rows.zip(input.columns),
    })
}

fn start(app: &App, upgrade: Upgrade, session: Session, slot: StreamPlace) -> Response {
    let ended = slot.ended();
    app.tasks().spawn(async move {
        let _slot = slot;
        let program = Arc::clone(&session.program);
        let wire = match upgrade.stream().await {
            Ok(stream) => Framed::new(stream, FrameCodec),
            Err(error) => {
                tracing::debug!(%error, "a session was not taken up");
                return program.abandon().await;
            }
        };
        tokio::select! {
            () = run(wire, session) => {}
            () = ended.cancelled() => {}
        }
    });
    Upgrade::response()
}

async fn run(wire: Wire, session: Session) {
    let (mut sink, mut source) = wire.split();
    let (frames, mut queue) = mpsc::channel::<Frame>(FRAMES_MAX);
    let Session { stdin, stdout, stderr, program } = session;
    let writing = async {
        while let Some(frame) = queue.recv().await {
            let is_last = matches!(frame, Frame::Exit(_) | Frame::Error(_));
            if sink.send(frame).await.is_err() || is_last {
                break;
            }
        }
        let _ = sink.close().await;
    };
    let output = output(stdout, stderr, Arc::clone(&program), frames);
    let input = async {
        let mut stdin = stdin;
        while let Some(Ok(frame)) = source.next().await {
            feed(frame, &mut stdin, &*program).await;
        }
    };
    // Either all is said, or the client is gone.
    let is_done = tokio::select! {
        ((), ()) = async { tokio::join!(writing, output) } => true,
        () = input => false,
    };
    if !is_done {
        program.abandon().await;
    }
}

/// Takes one frame of the client.
async fn feed(frame: Frame, stdin: &mut Option<Writer>, program: &dyn Program) {
    let outcome = match frame {
        Frame::Stdin(data) if data.is_empty() => {
            if let Some(mut writer) = stdin.take() {
                let _ = writer.shutdown().await;
            }
            Ok(())
        }
        Frame::Stdin(data) => {
            let broke = match stdin {
                Some(writer) => writer.write_all(&data).await.is_err() || writer.flush().await.is_err(),
                None => false,
            };
            // The program closed its input: what else comes is passed over, as a pipe's reader would.
            if broke {
                *stdin = None;
            }
            Ok(())
        }
        Frame::Resize { rows, columns } => program.resize(rows, columns).await,
        Frame::Signal(signal) => program.signal(signal).await,
        Frame::Stdout(_) | Frame::Stderr(_) | Frame::Exit(_) | Frame::Error(_) => Ok(()),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a session's request was refused");
    }
}

/// Sends what the program writes, and then how it ended.
async fn output(
    stdout: Option<Reader>,
    stderr: Option<Reader>,
    program: Arc<dyn Program>,
    frames: mpsc::Sender<Frame>,
) {
    let pumps = async {
        tokio::join!(pump(stdout, Frame::Stdout, &frames), pump(stderr, Frame::Stderr, &frames));
    };
    let mut pumps = std::pin::pin!(pumps);
    let mut drained = false;
    let wait = program.wait();
    let mut wait = std::pin::pin!(wait);
    let end = loop {
        tokio::select! {
            end = &mut wait => break end,
            () = &mut pumps, if !drained => drained = true,
        }
    };
    if !drained {
        let _ = timeout(DRAIN_TIMEOUT, pumps).await;
    }
    let last = match end {
        Ok(code) => Frame::Exit(code),
        Err(error) => Frame::Error(told(&error)),
    };
    let _ = frames.send(last).await;
}

async fn pump(reader: Option<Reader>, wrap: fn(bytes::Bytes) -> Frame, frames: &mpsc::Sender<Frame>) {
    let Some(mut reader) = reader else { return };
    let mut buffer = vec![0; READ_BYTES];
    // A terminal's other end gives an error, not an end, when the program is gone.
    while let Ok(count @ 1..) = reader.read(&mut buffer).await {
        if frames.send(wrap(bytes(&buffer[..count]))).await.is_err() {
            return;
        }
    }
}
