//! Sending images to registries, told as lines of JSON while it goes on.

use super::{
    found::{self, Local},
    login::of_header,
};
use crate::{
    docker::{door::Door, query::Query, refusal},
    error::{Failure, Result},
    streams::{PushStep, RegistryLogin},
    v1::image::content::refuse_withdrawn,
};
use axum::{
    body::Body,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use control::{Caller, Role};
use futures::StreamExt;
use model::{error::Code, image::Reach, image_reference::Reference};
use serde_json::{Value, json};
use std::convert::Infallible;
use tokio::sync::mpsc;

/// Lines that wait for a slow client.
const LINES_MAX: usize = 64;
/// Digits of a layer's digest that are shown.
const LAYER_DIGITS: usize = 12;

/// POST of a push: of one tag, or of all tags of a repository.
pub async fn push(
    door: &Door,
    caller: &Caller,
    name: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response> {
    caller.require(Role::Member, "pushing an image")?;
    let login = of_header(headers)?;
    let named = found::parse(name)?;
    let wanted: Vec<(Local, Reference)> = match query.text("tag").or(explicit_tag(name, &named)) {
        Some(tag) => {
            let reference = found::parse(&format!("{}/{}:{tag}", named.registry(), named.repository()))?;
            let local = found::find(door, caller, &reference.to_string()).map_err(|_| {
                let text =
                    format!("An image does not exist locally with the tag: {}", reference.familiar_name());
                Failure::new(Code::NotFound, text)
            })?;
            vec![(local, reference)]
        }
        None => {
            let of_repository = |local: Local| {
                let has = local.reference()?;
                let is_same = (has.registry(), has.repository()) == (named.registry(), named.repository());
                is_same.then_some((local, has))
            };
            found::all(door, caller).into_iter().filter_map(of_repository).collect()
        }
    };
    if wanted.is_empty() {
        return Err(refusal::no_image(name));
    }
    for (local, _) in &wanted {
        refuse_withdrawn(caller, local.image())?;
    }
    let (slot, reach) = (door.app().stream_slot(caller)?, caller.reach());
    let (lines, queue) = mpsc::channel::<Value>(LINES_MAX);
    let (task_door, ended) = (door.clone(), slot.ended());
    door.app().tasks().spawn(async move {
        let _slot = slot;
        tokio::select! {
            _ = tell(&task_door, wanted, (login, reach), &lines) => {}
            () = ended.cancelled() => {}
        }
    });
    let body = futures::stream::unfold(queue, |mut queue| async move {
        let line = queue.recv().await?;
        Some((Ok::<_, Infallible>(Bytes::from(format!("{line}\r\n"))), queue))
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body.fuse())).into_response())
}

/// A tag that is a part of the name: the path has it, and no parameter.
fn explicit_tag<'a>(name: &str, named: &'a Reference) -> Option<&'a str> {
    let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    named.tag().filter(|_| has_tag)
}

/// Pushes one after the other, until one fails or nobody listens any more.
async fn tell(
    door: &Door,
    wanted: Vec<(Local, Reference)>,
    (login, reach): (Option<RegistryLogin>, Reach),
    lines: &mpsc::Sender<Value>,
) -> Option<()> {
    for (local, reference) in wanted {
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        let first = format!("The push refers to repository [{repository}]");
        lines.send(json!({ "status": first })).await.ok()?;
        let streams = door.app().streams();
        let mut steps = match streams.push(&local.content, &reference, login.clone(), reach).await {
            Ok(steps) => steps,
            Err(error) => return lines.send(failed(&error.message)).await.ok(),
        };
        let tag = reference.tag().unwrap_or("latest").to_string();
        while let Some(step) = steps.recv().await {
            match step {
                PushStep::Blob(digest) => {
                    let id: String =
                        digest.trim_start_matches("sha256:").chars().take(LAYER_DIGITS).collect();
                    let line = json!({ "status": "Pushed", "progressDetail": {}, "id": id });
                    lines.send(line).await.ok()?;
                }
                PushStep::Done { digest, size_bytes } => {
                    let last = format!("{tag}: digest: {digest} size: {size_bytes}");
                    lines.send(json!({ "status": last })).await.ok()?;
                    let aux = json!({ "Tag": tag, "Digest": digest, "Size": size_bytes });
                    lines.send(json!({ "progressDetail": {}, "aux": aux })).await.ok()?;
                    tracing::info!(image = %reference, digest, "pushed");
                }
                PushStep::Failed(fault) => {
                    let hint =
                        if fault.hint.is_empty() { String::new() } else { format!(" ({})", fault.hint) };
                    return lines.send(failed(&format!("{}{hint}", fault.message))).await.ok();
                }
            }
        }
    }
    Some(())
}

fn failed(message: &str) -> Value {
    json!({ "errorDetail": { "message": message }, "error": message })
}
