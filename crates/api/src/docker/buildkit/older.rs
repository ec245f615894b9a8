//! Clients before 23, which speak to BuildKit without a plugin: `POST /build?version=2`, and steps as lines of JSON.

use super::{
    asked::{Files, Read, results},
    run::Run,
    wire::{Exporter, StatusResponse},
};
use crate::{
    docker::{build::Asked, door::Door, query::Query},
    error::{Failure, Result},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use control::Caller;
use futures::{StreamExt, stream, stream::BoxStream};
use model::error::Code;
use prost::Message;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// Events that wait for a slow client.
const EVENTS_MAX: usize = 256;

/// Whether a build is asked for in this way.
pub fn is_asked(query: &Query) -> bool {
    query.text("version") == Some("2")
}

/// Builds: what it tells, line by line.
///
/// # Errors
/// `invalid` for what is not honoured, `unavailable` without a session.
pub async fn lines(door: Door, caller: Caller, query: &Query) -> Result<BoxStream<'static, Bytes>> {
    if query.text("remote") != Some("client-session") {
        let message =
            "only a directory of the client is a context: an archive is built with DOCKER_BUILDKIT=0";
        return Err(Failure::new(Code::Invalid, message).field("remote"));
    }
    let asked = with_outputs(Asked::read(query)?, query.text("outputs"))?;
    let is_quiet = asked.quiet;
    let id = query.text("session").unwrap_or("");
    let found = door.buildkit().sessions.get(caller.project, id).await;
    let session = found.map_err(|status| status.failure())?;
    let slot = door.app().stream_slot(&caller)?;
    let (events, mut told) = mpsc::channel::<StatusResponse>(EVENTS_MAX);
    let (lines, queue) = mpsc::channel::<Value>(1);
    let read = Read { asked, files: Files::usual() };
    let run = Run { door: door.clone(), caller, session, read, events, seed: id.to_string() };
    door.app().tasks().spawn(async move {
        let _slot = slot;
        let build = run.build();
        let mut build = std::pin::pin!(build);
        let (mut outcome, mut is_told) = (None, false);
        while outcome.is_none() || !is_told {
            let line = tokio::select! {
                biased;
                // A client that is gone ends its build, which is dropped here.
                () = lines.closed() => return,
                event = told.recv(), if !is_told => match event {
                    Some(event) => trace(&event),
                    None => {
                        is_told = true;
                        continue;
                    }
                },
                ended = &mut build, if outcome.is_none() => {
                    outcome = Some(ended);
                    continue;
                }
            };
            let _ = lines.send(line).await;
        }
        let last = match outcome {
            Some(Ok(image)) => {
                if is_quiet {
                    let _ = lines.send(json!({ "stream": format!("{image}\n") })).await;
                }
                json!({ "id": "moby.image.id", "aux": { "ID": image } })
            }
            Some(Err(status)) => {
                json!({ "errorDetail": { "message": status.message }, "error": status.message })
            }
            None => return,
        };
        let _ = lines.send(last).await;
    });
    let lines = stream::unfold(queue, |mut queue| async move { Some((queue.recv().await?, queue)) });
    Ok(lines.map(|line| Bytes::from(format!("{line}\r\n"))).boxed())
}

/// What such a client wants of the result: nothing is said of an image that stays here.
#[derive(Deserialize)]
struct OutputAsked {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(rename = "Attrs", default)]
    attributes: Option<BTreeMap<String, String>>,
}

fn with_outputs(asked: Asked, text: Option<&str>) -> Result<Asked> {
    let wrong =
        |error| Failure::new(Code::Invalid, format!("error reading outputs: {error}")).field("outputs");
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(asked) };
    let wanted: Option<Vec<OutputAsked>> = serde_json::from_str(text).map_err(wrong)?;
    let wanted = wanted.unwrap_or_default().into_iter();
    let all: Vec<Exporter> =
        wanted.map(|it| Exporter { kind: it.kind, attributes: it.attributes.unwrap_or_default() }).collect();
    if all.is_empty() {
        return Ok(asked);
    }
    let results = results(&all, None)?;
    Ok(Asked { forgets: results.image.is_none(), outputs: results.outputs, ..asked })
}

fn trace(event: &StatusResponse) -> Value {
    json!({ "id": "moby.buildkit.trace", "aux": STANDARD.encode(event.encode_to_vec()) })
}
