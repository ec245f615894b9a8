//! Streams that leave HTTP: `Upgrade: tcp`, and after `101` a program's input one way and its outputs the other.
//!
//! A client that closes its half has ended the program's input; the outputs go on. One that asks for no upgrade gets the
//! outputs as the body of an ordinary answer, and sends no input.

use super::{
    door::Door,
    frame::Version,
    multiplex::{Form, Output},
};
use crate::{
    error::{Failure, Result},
    streams::{Program, Reader, Session, Writer},
};
use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use control::Caller;
use futures::StreamExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use model::error::Code;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};

/// Bytes read at a time.
const READ_BYTES: usize = 32 * 1024;
/// Pieces that wait for a slow client before the program is held up.
const PIECES_MAX: usize = 16;
/// Time for the rest of the outputs once the program has ended: its children may hold them open.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that may leave HTTP.
pub struct Hijack {
    upgrade: Option<OnUpgrade>,
    version: Version,
    form: Form,
}

/// What is sent of a session, and how it ends.
pub struct Wanted {
    /// What the client reads first.
    pub before: Vec<Bytes>,
    /// Send standard output.
    pub stdout: bool,
    /// Send standard error.
    pub stderr: bool,
    /// The program is one of `exec`: it ends with its own end, and with its client.
    pub is_exec: bool,
}

impl Hijack {
    /// What a request asks for.
    pub fn of(request: &mut Request, form: Form) -> Self {
        let version = request.extensions().get::<Version>().copied();
        let version = version.expect("the frame has put the version there");
        let asks = request
            .headers()
            .get(header::UPGRADE)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"tcp"));
        let upgrade = request.extensions_mut().remove::<OnUpgrade>().filter(|_| asks);
        Self { upgrade, version, form }
    }

    /// Joins the client with a program. `ended` gets its exit code, where it is told.
    ///
    /// # Errors
    /// `too_many` streams.
    pub fn join(
        self,
        door: &Door,
        caller: &Caller,
        session: Session,
        wanted: Wanted,
        ended: impl FnOnce(Option<i32>) + Send + 'static,
    ) -> Result<Response> {
        let slot = door.app().stream_slot(caller)?;
        let over = slot.ended();
        let (pieces, queue) = mpsc::channel::<Bytes>(PIECES_MAX);
        let (form, media_type) = (self.form, self.form.media_type(self.version));
        let Session { stdin, stdout, stderr, program } = session;
        let outputs = Outputs { stdout, stderr, program: Arc::clone(&program), form, wanted };
        let Some(upgrade) = self.upgrade else {
            drop(stdin);
            door.app().tasks().spawn(async move {
                let _slot = slot;
                tokio::select! {
                    code = outputs.send(pieces) => ended(code),
                    () = over.cancelled() => {}
                }
            });
            let body = futures::stream::unfold(queue, |mut queue| async move {
                Some((Ok::<_, Infallible>(queue.recv().await?), queue))
            });
            return Ok(answer(StatusCode::OK, media_type, Body::from_stream(body.boxed())));
        };
        door.app().tasks().spawn(async move {
            let _slot = slot;
            let client = match upgrade.await {
                Ok(client) => TokioIo::new(client),
                Err(error) => {
                    tracing::debug!(%error, "a stream was not taken up");
                    return program.abandon().await;
                }
            };
            tokio::select! {
                () = relay(client, stdin, queue, outputs.send(pieces), ended, &program) => {}
                () = over.cancelled() => {}
            }
        });
        let mut response = answer(StatusCode::SWITCHING_PROTOCOLS, media_type, Body::empty());
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("tcp"));
        Ok(response)
    }

    /// Tells the client that its program could not be run, where it reads the program's output.
    ///
    /// # Errors
    /// `too_many` streams.
    pub fn refuse(self, door: &Door, caller: &Caller, text: &str) -> Result<Response> {
        let told = self.form.wrap(Output::Stdout, format!("{text}\r\n").as_bytes());
        let wanted = Wanted { before: vec![told], stdout: true, stderr: true, is_exec: true };
        self.join(door, caller, nothing(), wanted, |_| ())
    }
}

/// A session that has ended.
pub fn nothing() -> Session {
    Session { stdin: None, stdout: None, stderr: None, program: Arc::new(Nothing) }
}

/// A program that has ended.
struct Nothing;

#[async_trait::async_trait]
impl Program for Nothing {
    async fn wait(&self) -> control::Result<i32> {
        Ok(0)
    }
    async fn resize(&self, _rows: u16, _columns: u16) -> control::Result<()> {
        Ok(())
    }
    async fn signal(&self, _signal: i32) -> control::Result<()> {
        Ok(())
    }
}

fn answer(status: StatusCode, media_type: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

/// A program's outputs on their way to a client.
struct Outputs {
    stdout: Option<Reader>,
    stderr: Option<Reader>,
    program: Arc<dyn Program>,
    form: Form,
    wanted: Wanted,
}

impl Outputs {
    /// Sends them until they end; gives the exit code of a program that tells one.
    async fn send(self, pieces: mpsc::Sender<Bytes>) -> Option<i32> {
        let Wanted { before, stdout, stderr, is_exec } = self.wanted;
        for piece in before {
            let _ = pieces.send(piece).await;
        }
        let form = self.form;
        let pumps = async {
            tokio::join!(
                pump(self.stdout, stdout, form, Output::Stdout, &pieces),
                pump(self.stderr, stderr, form, Output::Stderr, &pieces)
            );
        };
        if !is_exec {
            pumps.await;
            return None;
        }
        let mut pumps = std::pin::pin!(pumps);
        let wait = self.program.wait();
        let mut wait = std::pin::pin!(wait);
        let mut drained = false;
        let end = loop {
            tokio::select! {
                end = &mut wait => break end,
                () = &mut pumps, if !drained => drained = true,
            }
        };
        if !drained {
            let _ = timeout(DRAIN_TIMEOUT, pumps).await;
        }
        match end {
            Ok(code) => Some(code),
            Err(error) => {
                tracing::debug!(%error, "a program was lost");
                None
            }
        }
    }
}

/// Reads an output to its end, and sends it if it is wanted: a program must not wait for a reader that nobody is.
async fn pump(
    reader: Option<Reader>,
    is_wanted: bool,
    form: Form,
    output: Output,
    pieces: &mpsc::Sender<Bytes>,
) {
    let Some(mut reader) = reader else { return };
    let mut buffer = vec![0; READ_BYTES];
    // A terminal's other end gives an error, not an end, when the program is gone.
    while let Ok(count @ 1..) = reader.read(&mut buffer).await {
        if is_wanted && pieces.send(form.wrap(output, &buffer[..count])).await.is_err() {
            return;
        }
    }
}

/// Joins both directions until all outputs were sent, or the client takes no more.
async fn relay(
    client: impl AsyncRead + AsyncWrite + Unpin,
    stdin: Option<Writer>,
    mut queue: mpsc::Receiver<Bytes>,
    outputs: impl Future<Output = Option<i32>>,
    ended: impl FnOnce(Option<i32>),
    program: &Arc<dyn Program>,
) {
    let (reading, mut writing) = tokio::io::split(client);
    let send = async {
        while let Some(piece) = queue.recv().await {
            if writing.write_all(&piece).await.is_err() || writing.flush().await.is_err() {
                return false;
            }
        }
        true
    };
    let work = async {
        let mut ended = Some(ended);
        let outputs = async {
            let code = outputs.await;
            // Told before the client sees the end, since it asks for the exit code then.
            if let Some(ended) = ended.take() {
                ended(code);
            }
        };
        // What the client reads ends with the outputs; one that is gone ends the outputs.
        let mut outputs = std::pin::pin!(outputs);
        let mut send = std::pin::pin!(send);
        tokio::select! {
            sent = &mut send => sent,
            () = &mut outputs => send.await,
        }
    };
    let input = async {
        feed(reading, stdin).await;
        std::future::pending::<()>().await;
    };
    let went_well = tokio::select! {
        went_well = work => went_well,
        () = input => true,
    };
    if !went_well {
        program.abandon().await;
    }
    let _ = writing.shutdown().await;
}

/// Sends what the client says to the program. Its end closes the program's input.
async fn feed(mut reading: impl AsyncRead + Unpin, stdin: Option<Writer>) {
    let Some(mut stdin) = stdin else {
        // Nobody reads it, and still it must not fill the connection.
        let _ = tokio::io::copy(&mut reading, &mut tokio::io::sink()).await;
        return;
    };
    // A program that closed its input is like a pipe without a reader: what else comes is passed over.
    if tokio::io::copy(&mut reading, &mut stdin).await.is_err() {
        let _ = tokio::io::copy(&mut reading, &mut tokio::io::sink()).await;
    }
    let _ = stdin.shutdown().await;
}

/// The size of a terminal that a client asks for: `h` rows and `w` columns.
///
/// # Errors
/// `invalid`.
pub fn size(query: &super::query::Query) -> Result<(u16, u16)> {
    let read = |name: &str| {
        let number = query.number(name)?.unwrap_or(0);
        u16::try_from(number)
            .map_err(|_| Failure::new(Code::Invalid, format!("invalid value of {name}: {number}")))
    };
    Ok((read("h")?, read("w")?))
}
