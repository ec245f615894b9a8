//! Joining a container's own program: before it starts, or while it runs.

use super::found;
use crate::{
    app::Asker,
    docker::{
        door::Door,
        hijack::{self, Hijack, Wanted},
        multiplex::{Form, Output},
        query::Query,
        refusal::conflict,
    },
    error::{Failure, Result},
    streams::{Attach, LogWanted},
    v1::audit::{deed, known, note_as},
};
use axum::{
    extract::{Path, Request, State},
    http::StatusCode,
    response::Response,
};
use bytes::Bytes;
use control::Caller;
use model::error::Code;

/// Most bytes of the log that are sent before a program's own output.
const LOG_BYTES_MAX: usize = 16 * 1024 * 1024;

/// POST of an attach.
pub async fn attach(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    query: Query,
    mut request: Request,
) -> Result<Response> {
    let found = found::find(&door, &caller, &name)?;
    if found.is_paused() {
        return Err(conflict(format!(
            "container {} is paused, unpause the container before attach",
            found.name()
        )));
    }
    if found.is_restarting() {
        return Err(conflict(format!(
            "container {} is restarting, wait until the container is running",
            found.name()
        )));
    }
    let spec = found.spec();
    let input = query.flag("stdin") && spec.stdin_open;
    let form = Form::of(spec.tty);
    let hijack = Hijack::of(&mut request, form);
    let before = if query.flag("logs") { log(&door, &found, form).await? } else { vec![] };
    let wanted =
        Wanted { before, stdout: query.flag("stdout"), stderr: query.flag("stderr"), is_exec: false };
    if !query.flag("stream") {
        return past(&door, &caller, hijack, wanted);
    }
    let attach = Attach { container: None, input, keeps_input: !spec.stdin_once, waits: !found.is_alive() };
    let outcome = door.app().streams().attach(found.instance(), attach).await;
    let subject = known(found.id(), found.name());
    let session = note_as(door.app(), &caller, deed("attach", "instance", &name), outcome, subject).await?;
    hijack.join(&door, &caller, session, wanted, |_| ())
}

/// What was said until now, and nothing more.
fn past(door: &Door, caller: &Caller, hijack: Hijack, wanted: Wanted) -> Result<Response> {
    hijack.join(door, caller, hijack::nothing(), wanted, |_| ())
}

async fn log(door: &Door, found: &found::Found, form: Form) -> Result<Vec<Bytes>> {
    let mut lines = match door.app().streams().logs(found.instance(), LogWanted::default()).await {
        Ok(lines) => lines,
        // It never ran.
        Err(error) if error.code == Code::Conflict => return Ok(vec![]),
        Err(error) => return Err(error.into()),
    };
    let (mut all, mut bytes) = (vec![], 0);
    while let Some(line) = lines.recv().await {
        bytes += line.bytes.len();
        if bytes > LOG_BYTES_MAX {
            return Err(Failure::new(Code::TooLarge, format!("the log has more than {LOG_BYTES_MAX} bytes"))
                .hint("read it with `docker logs`"));
        }
        let output = if line.is_stderr { Output::Stderr } else { Output::Stdout };
        all.push(form.wrap(output, &line.bytes));
    }
    Ok(all)
}

/// POST of a terminal's size.
pub async fn resize(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    query: Query,
) -> Result<StatusCode> {
    let (rows, columns) = hijack::size(&query)?;
    let found = found::find(&door, &caller, &name)?;
    found.require_running()?;
    door.app().streams().resize(found.instance(), rows, columns).await?;
    Ok(StatusCode::OK)
}
