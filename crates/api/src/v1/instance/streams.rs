//! Bytes out of instances: the console and its log, the screen, and containers' logs.

use crate::{
    app::{App, Asker},
    error::{Failure, Result},
    frame::PROTOCOL,
    limits::CONSOLE_LOG_BYTES_MAX,
    request::Params,
    streams::{Duplex, LogLine as Kept, LogWanted},
    v1::{
        audit::{deed, known, note_as},
        types::stream::{ConsoleLogQuery, ConsoleQuery, LogFormat, LogLine, LogQuery, LogStream},
    },
};
use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use control::{Caller, Error, Role};
use futures::{StreamExt, stream};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use model::{error::Code, instance::Instance};
use std::{convert::Infallible, sync::Arc};
use store::Stored;

/// An instance that the caller may reach into.
///
/// # Errors
/// `forbidden` for readers where `role` says so, `not_found`.
pub fn reach(
    app: &App,
    caller: &Caller,
    reference: &str,
    role: Role,
    what: &str,
) -> Result<Arc<Stored<Instance>>> {
    caller.require(role, what)?;
    Ok(app.control().find::<Instance>(caller, reference)?)
}

/// GET of the console's log.
pub async fn console_log(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(query): Params<ConsoleLogQuery>,
) -> Result<Response> {
    let instance = reach(&app, &caller, &reference, Role::Reader, "reading a console")?;
    let bytes_max = query.bytes.unwrap_or(CONSOLE_LOG_BYTES_MAX);
    if bytes_max > CONSOLE_LOG_BYTES_MAX {
        let message = format!("at most {CONSOLE_LOG_BYTES_MAX} bytes are told at once");
        return Err(Failure::new(Code::TooLarge, message).field("bytes"));
    }
    let mut bytes = app.streams().console_log(&instance.record, bytes_max).await?;
    if let Some(lines) = query.tail {
        bytes.drain(..tail_start(&bytes, lines));
    }
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], bytes).into_response())
}

/// Where the last `lines` lines begin.
fn tail_start(bytes: &[u8], lines: usize) -> usize {
    if lines == 0 {
        return bytes.len();
    }
    let end = bytes.len() - usize::from(bytes.ends_with(b"\n"));
    let breaks = bytes[..end].iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    breaks.map(|(at, _)| at + 1).nth(lines - 1).unwrap_or(0)
}

/// GET of a container's log.
pub async fn logs(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(query): Params<LogQuery>,
) -> Result<Response> {
    let instance = reach(&app, &caller, &reference, Role::Reader, "reading a log")?;
    let slot = app.stream_slot(&caller)?;
    let ended = slot.ended();
    let wanted = LogWanted {
        container: query.container,
        tail_lines: query.tail,
        since_ms: query.since.as_deref().map(|text| read_time(text, app.control().now())).transpose()?,
        follow: query.follow == Some(1),
    };
    let lines = app.streams().logs(&instance.record, wanted).await?;
    let format = query.format.unwrap_or_default();
    let batches = stream::unfold((lines, slot), move |(mut lines, slot)| async move {
        let first = lines.recv().await?;
        let mut batch = BytesMut::new();
        put_line(&mut batch, &first, format);
        // What waits already goes along, up to a packet's worth.
        while batch.len() < BATCH_BYTES
            && let Ok(line) = lines.try_recv()
        {
            put_line(&mut batch, &line, format);
        }
        Some((Ok::<_, Infallible>(batch.freeze()), (lines, slot)))
    });
    let body = Body::from_stream(batches.take_until(ended.cancelled_owned()));
    let kind = match format {
        LogFormat::Ndjson => "application/x-ndjson",
        LogFormat::Plain => "application/octet-stream",
    };
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], body).into_response())
}

/// Bytes that are gathered before they are sent, while more wait.
const BATCH_BYTES: usize = 32 * 1024;

fn put_line(batch: &mut BytesMut, line: &Kept, format: LogFormat) {
    if format == LogFormat::Plain {
        batch.put_slice(&line.bytes);
        return;
    }
    let (text, base64) = match std::str::from_utf8(&line.bytes) {
        Ok(text) => (text.to_string(), None),
        Err(_) => (String::from_utf8_lossy(&line.bytes).into_owned(), Some(STANDARD.encode(&line.bytes))),
    };
    let shown = LogLine {
        time: Timestamp::from_nanosecond(i128::from(line.time_ns)).unwrap_or_default(),
        stream: if line.is_stderr { LogStream::Stderr } else { LogStream::Stdout },
        text,
        base64,
    };
    batch.put_slice(&serde_json::to_vec(&shown).expect("texts and a time become JSON"));
    batch.put_u8(b'\n');
}

/// A point in time, in milliseconds since 1970: RFC 3339, seconds since 1970, or so long ago (`10m`, `2h`).
fn read_time(text: &str, now: Timestamp) -> Result<i64> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_millisecond());
    }
    if let Ok(seconds) = text.parse::<f64>()
        && seconds.is_finite()
    {
        return Ok((seconds * 1000.0) as i64);
    }
    let ago = text.char_indices().last().and_then(|(at, unit)| {
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        };
        text[..at].parse::<i64>().ok()?.checked_mul(seconds * 1000)
    });
    match ago {
        Some(ago_ms) => Ok(now.as_millisecond().saturating_sub(ago_ms)),
        None => Err(Failure::new(Code::Invalid, format!("{text:?} is no time"))
            .field("since")
            .hint("give 2026-01-31T12:00:00Z, seconds since 1970, or 10m for ten minutes ago")),
    }
}

/// GET of the console.
pub async fn console(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(query): Params<ConsoleQuery>,
    request: Request,
) -> Result<Response> {
    let instance = reach(&app, &caller, &reference, Role::Member, "opening a console")?;
    let upgrade = Upgrade::of(request)?;
    let (action, outcome) = match query.login {
        true => ("console_login", app.streams().console_login(&instance.record).await),
        false => ("console", app.streams().console(&instance.record).await),
    };
    let stream = noted(&app, &caller, action, &reference, &instance.record, outcome).await?;
    join(&app, &caller, upgrade, stream)
}

/// GET of the screen.
pub async fn vnc(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    request: Request,
) -> Result<Response> {
    let instance = reach(&app, &caller, &reference, Role::Member, "opening a screen")?;
    let upgrade = Upgrade::of(request)?;
    let outcome = app.streams().vnc(&instance.record).await;
    let stream = noted(&app, &caller, "vnc", &reference, &instance.record, outcome).await?;
    join(&app, &caller, upgrade, stream)
}

/// Notes who reached into an instance: a console can do all that its user can.
///
/// # Errors
/// The outcome's own.
pub async fn noted<T>(
    app: &App,
    caller: &Caller,
    action: &str,
    reference: &str,
    instance: &Instance,
    outcome: control::Result<T>,
) -> Result<T> {
    let subject = known(instance.meta.id, &instance.meta.name);
    note_as(app, caller, deed(action, "instance", reference), outcome, subject).await
}

/// A connection that will leave HTTP.
pub struct Upgrade(OnUpgrade);

impl Upgrade {
    /// The upgrade that a request asks for.
    ///
    /// # Errors
    /// 426 if it asks for none, or for another protocol.
    pub fn of(mut request: Request) -> Result<Self> {
        let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
        match on_upgrade {
            Some(on_upgrade) if asks_for_us(request.method(), request.headers()) => Ok(Self(on_upgrade)),
            _ => Err(Failure::new(Code::Invalid, "this path is a stream")
                .with_status(StatusCode::UPGRADE_REQUIRED)
                .hint(format!("send the headers Connection: Upgrade and Upgrade: {PROTOCOL}"))),
        }
    }

    /// The answer to it.
    pub fn response() -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
        response
    }

    /// The connection, once the answer was sent.
    ///
    /// # Errors
    /// It broke before.
    pub async fn stream(self) -> hyper::Result<TokioIo<hyper::upgrade::Upgraded>> {
        self.0.await.map(TokioIo::new)
    }
}

fn asks_for_us(method: &Method, headers: &HeaderMap) -> bool {
    let has = |name: header::HeaderName, word: &str| {
        let values = headers.get_all(name);
        let mut words =
            values.iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
        words.any(|given| given.trim().eq_ignore_ascii_case(word))
    };
    matches!(*method, Method::GET | Method::POST)
        && has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, PROTOCOL)
}

/// Joins the client with a stream until either ends.
fn join(app: &App, caller: &Caller, upgrade: Upgrade, mut stream: Duplex) -> Result<Response> {
    let slot = app.stream_slot(caller)?;
    let ended = slot.ended();
    app.tasks().spawn(async move {
        let _slot = slot;
        let mut client = match upgrade.stream().await {
            Ok(client) => client,
            Err(error) => return tracing::debug!(%error, "a stream was not taken up"),
        };
        tokio::select! {
            outcome = tokio::io::copy_bidirectional(&mut client, &mut stream) => {
                if let Err(error) = outcome {
                    tracing::debug!(%error, "a stream broke");
                }
            }
            () = ended.cancelled() => {}
        }
    });
    Ok(Upgrade::response())
}

/// A refusal in the words of a stream.
pub fn told(error: &Error) -> String {
    if error.hint.is_empty() { error.message.clone() } else { format!("{} ({})", error.message, error.hint) }
}

/// Bytes as they are sent.
pub fn bytes(slice: &[u8]) -> Bytes {
    Bytes::copy_from_slice(slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_is_cut_at_lines() {
        for (text, lines, tail) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\nc\n", 9, "a\nb\nc\n"),
            ("a\n", 0, ""),
            ("", 3, ""),
        ] {
            assert_eq!(&text[tail_start(text.as_bytes(), lines)..], tail, "{text:?} {lines}");
        }
    }

    #[test]
    fn times_are_read() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let start = now.as_millisecond() - 600_000;
        for text in ["2026-01-01T00:00:00Z", "1767225600", "10m", "600s"] {
            assert_eq!(read_time(text, now).unwrap(), start, "{text}");
        }
        for bad in ["", "m", "yesterday", "10x", "99999999999999999999d", "ü"] {
            assert!(read_time(bad, now).is_err(), "{bad}");
        }
    }
}
