//! Logs of containers.

use super::found;
use crate::{
    app::Asker,
    docker::{
        door::Door,
        frame::Version,
        multiplex::{Form, Output},
        query::Query,
    },
    error::{Failure, Result},
    streams::{LogLine, LogWanted},
};
use axum::{
    Extension,
    body::Body,
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use jiff::Timestamp;
use model::error::Code;
use std::convert::Infallible;
use tokio::sync::mpsc;

/// Bytes that are gathered before they are sent, while more wait.
const BATCH_BYTES: usize = 32 * 1024;

/// Which lines are sent, and how.
#[derive(Debug, Clone, Copy)]
struct Shown {
    stdout: bool,
    stderr: bool,
    timestamps: bool,
    until_ns: Option<i64>,
    form: Form,
}

/// GET of a log.
pub async fn logs(
    State(door): State<Door>,
    Asker(caller): Asker,
    Extension(version): Extension<Version>,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response> {
    let found = found::find(&door, &caller, &name)?;
    let form = Form::of(found.spec().tty);
    let shown = Shown {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        timestamps: query.flag("timestamps"),
        until_ns: time_ns(&query, "until")?,
        form,
    };
    if !shown.stdout && !shown.stderr {
        return Err(Failure::new(Code::Invalid, "Bad parameters: you must choose at least one stream"));
    }
    let wanted = LogWanted {
        container: None,
        tail_lines: tail(&query)?,
        since_ms: time_ns(&query, "since")?.map(|ns| ns.div_euclid(1_000_000)),
        follow: query.flag("follow") && found.is_alive(),
    };
    let slot = door.app().stream_slot(&caller)?;
    let ended = slot.ended();
    let lines = match door.app().streams().logs(found.instance(), wanted).await {
        Ok(lines) => lines,
        // It never ran, so that it said nothing.
        Err(error) if error.code == Code::Conflict => mpsc::channel(1).1,
        Err(error) => return Err(error.into()),
    };
    let batches = futures::stream::unfold((lines, slot), move |(mut lines, slot)| async move {
        let batch = next_batch(&mut lines, shown).await?;
        Some((Ok::<_, Infallible>(batch), (lines, slot)))
    });
    let body = Body::from_stream(batches.take_until(ended.cancelled_owned()));
    Ok(([(header::CONTENT_TYPE, form.media_type(version))], body).into_response())
}

/// What waits, up to a packet's worth; `None` at the end.
async fn next_batch(lines: &mut mpsc::Receiver<LogLine>, shown: Shown) -> Option<Bytes> {
    let mut batch = BytesMut::new();
    while batch.is_empty() {
        let first = lines.recv().await?;
        if !put(&mut batch, &first, shown) {
            return None;
        }
        while batch.len() < BATCH_BYTES
            && let Ok(line) = lines.try_recv()
        {
            if !put(&mut batch, &line, shown) {
                lines.close();
                break;
            }
        }
    }
    Some(batch.freeze())
}

/// Appends a line, if it is to be shown. False once no further one is.
fn put(batch: &mut BytesMut, line: &LogLine, shown: Shown) -> bool {
    if shown.until_ns.is_some_and(|until| line.time_ns > until) {
        return false;
    }
    let (output, is_wanted) =
        if line.is_stderr { (Output::Stderr, shown.stderr) } else { (Output::Stdout, shown.stdout) };
    if !is_wanted {
        return true;
    }
    if !shown.timestamps {
        shown.form.put(batch, output, &line.bytes);
        return true;
    }
    let time = Timestamp::from_nanosecond(i128::from(line.time_ns)).unwrap_or_default();
    let mut bytes = format!("{time:.9} ").into_bytes();
    bytes.extend_from_slice(&line.bytes);
    shown.form.put(batch, output, &bytes);
    true
}

/// How many lines of the end: all unless a number is given.
fn tail(query: &Query) -> Result<Option<usize>> {
    match query.text("tail") {
        None | Some("all") => Ok(None),
        // Docker takes what is no number for all of it, and less than none as well.
        Some(text) => Ok(text.parse::<i64>().ok().and_then(|lines| usize::try_from(lines).ok())),
    }
}

/// A time in nanoseconds since 1970, sent as seconds with up to nine digits behind the point, or as RFC 3339. 0 is none.
pub fn time_ns(query: &Query, name: &str) -> Result<Option<i64>> {
    let Some(text) = query.text(name) else { return Ok(None) };
    let wrong = || Failure::new(Code::Invalid, format!("invalid value of {name}: {text:?} is no time"));
    if let Ok(time) = text.parse::<Timestamp>() {
        return i64::try_from(time.as_nanosecond()).map(Some).map_err(|_| wrong());
    }
    let (seconds, rest) = text.split_once('.').unwrap_or((text, ""));
    if rest.len() > 9 || !rest.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let seconds: i64 = seconds.parse().map_err(|_| wrong())?;
    let nanos: i64 = format!("{rest:0<9}").parse().map_err(|_| wrong())?;
    let time = seconds.checked_mul(1_000_000_000).and_then(|ns| ns.checked_add(nanos)).ok_or_else(wrong)?;
    Ok((time != 0).then_some(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_tails_are_read() {
        let query = Query::parse(
            "a=1767225600.000000001&b=2026-01-01T00:00:00Z&c=0&d=x&e=1.1234567890&t=5&u=all&v=-1",
        )
        .unwrap();
        let base = 1_767_225_600_000_000_000;
        assert_eq!(time_ns(&query, "a").unwrap(), Some(base + 1));
        assert_eq!(time_ns(&query, "b").unwrap(), Some(base));
        assert_eq!((time_ns(&query, "c").unwrap(), time_ns(&query, "none").unwrap()), (None, None));
        assert!(time_ns(&query, "d").is_err() && time_ns(&query, "e").is_err());
        let tail = |text: &str| tail(&Query::parse(&format!("tail={text}")).unwrap()).unwrap();
        assert_eq!((tail("5"), tail("all"), tail("-1"), tail("")), (Some(5), None, None, None));
    }

    #[tokio::test]
    async fn lines_are_chosen_and_stamped() {
        let shown =
            Shown { stdout: true, stderr: false, timestamps: true, until_ns: Some(5), form: Form::Raw };
        let (sender, mut lines) = mpsc::channel(8);
        for (time_ns, is_stderr, text) in
            [(1, false, "a\n"), (2, true, "b\n"), (5, false, "c\n"), (6, false, "d\n")]
        {
            sender.send(LogLine { time_ns, is_stderr, bytes: text.into() }).await.unwrap();
        }
        drop(sender);
        let batch = next_batch(&mut lines, shown).await.unwrap();
        let text = String::from_utf8_lossy(&batch);
        assert_eq!(text, "1970-01-01T00:00:00.000000001Z a\n1970-01-01T00:00:00.000000005Z c\n");
        assert!(next_batch(&mut lines, shown).await.is_none());
    }
}
