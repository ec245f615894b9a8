//! Building images from Dockerfiles, for docker's classic builder and for BuildKit's clients (`docker::buildkit`).
//!
//! ```text
//!   context (an archive without a name) ── Dockerfile ── stages ── steps ──▶ RUN: a container of its own, and what it changed
//!                                                                      ├──▶ COPY, ADD: files put into one that does not run
//!                                                                      └──▶ all else: the image's config
//! ```
//!
//! Everything that a build needs beside this are the things of other doors: containers, commits, copies, pulls. Its steps
//! are kept as the project's build cache. A client that goes ends its build, and nothing is left of it.

mod agent;
mod asked;
mod builder;
mod cache;
mod chain;
mod context;
mod copy;
mod export;
mod given;
mod mounts;
mod numbers;
mod room;
mod side;
mod stage;
mod tell;

pub(crate) use asked::Asked;
pub(super) use builder::{Builder, Failed, arch};
pub(super) use cache::{Kept, kept, list as cached, prune_caches};
pub(super) use context::{Client, Context};
pub(super) use export::{Output, OutputKind};
pub(super) use given::{AllGiven, Given};
pub(super) use tell::Tell;

use super::{body, buildkit, door::Door, image, query::Query};
use crate::routing::{Router, post};
use crate::{
    app::{App, Asker},
    error::{Failure, Result},
    limits::CONTEXT_BYTES_MAX,
};
use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use control::{Caller, Role};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use image::Logins;
use model::error::Code;
use serde_json::Value;
use std::{convert::Infallible, time::Duration};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// How long the answer waits for the first word, so that a refusal is an error and not a line.
const FIRST_WORD: Duration = Duration::from_secs(20);
/// Lines that wait for a slow client.
const LINES_MAX: usize = 64;

/// Adds the routes.
pub fn routes(routes: Router<Door>) -> Router<Door> {
    routes
        .route("/build", post(build))
        .route("/build/cancel", post(cancel))
        .route("/build/prune", post(cache::prune))
}

async fn build(
    State(door): State<Door>,
    Asker(caller): Asker,
    query: Query,
    request: Request,
) -> Result<Response> {
    caller.require(Role::Member, "building an image")?;
    let lines = if buildkit::is_asked(&query) {
        buildkit::older_lines(door, caller, &query).await?
    } else {
        let asked = Asked::read(&query)?;
        let logins = image::logins_of(request.headers())?;
        let lines = start(door, caller, asked, logins, request.into_body()).await?;
        lines.map(|line| Bytes::from(format!("{line}\r\n"))).boxed()
    };
    let kind = HeaderValue::from_static("application/json");
    let body = Body::from_stream(lines.map(Ok::<_, Infallible>));
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

/// POST: a build ends with its client, so that there is nothing left to cancel.
async fn cancel(State(_door): State<Door>, Asker(_caller): Asker) -> StatusCode {
    StatusCode::OK
}

/// Builds for another door: what it tells, line by line, in docker's form.
///
/// # Errors
/// As [`start`].
pub(crate) async fn lines(
    app: &App,
    caller: Caller,
    asked: Asked,
    context: Body,
) -> Result<BoxStream<'static, Value>> {
    caller.require(Role::Member, "building an image")?;
    start(Door::new(app.clone()), caller, asked, Logins::default(), context).await
}

/// Starts a build, which ends with who hears it.
///
/// # Errors
/// `too_many`, and what fails before the first line.
async fn start(
    door: Door,
    caller: Caller,
    asked: Asked,
    logins: Logins,
    context: Body,
) -> Result<BoxStream<'static, Value>> {
    let held = (door.app().stream_slot(&caller)?, door.app().build_place(&caller)?);
    let context = body::reader(context, CONTEXT_BYTES_MAX);
    let (lines, mut queue) = mpsc::channel::<Value>(LINES_MAX);
    let (failed, failure) = oneshot::channel::<Failure>();
    let cut = CancellationToken::new();
    let (hearing, watched, revoked) = (lines.clone(), cut.clone(), held.0.ended());
    let ended = CancellationToken::new();
    let over = ended.clone();
    let tasks = door.app().tasks().clone();
    tasks.spawn(async move {
        tokio::select! {
            () = hearing.closed() => watched.cancel(),
            () = revoked.cancelled() => watched.cancel(),
            () = over.cancelled() => {}
        }
    });
    tasks.spawn(async move {
        let _held = held;
        let tell = Tell::new(lines, asked.quiet);
        let builder = Builder::new(door, caller, asked, logins, tell, cut);
        if let Err(error) = builder.build(Context::Archive(context)).await {
            let _ = failed.send(error.failure);
        }
        ended.cancel();
    });
    let first = tokio::select! {
        first = queue.recv() => first,
        () = tokio::time::sleep(FIRST_WORD) => None,
    };
    if let Some(text) = first.as_ref().and_then(|line| line.get("error")?.as_str()) {
        // It ended before it began: an error as any other.
        return Err(failure.await.unwrap_or_else(|_| Failure::new(Code::Invalid, text)));
    }
    let rest = stream::unfold(queue, |mut queue| async move { Some((queue.recv().await?, queue)) });
    Ok(stream::iter(first).chain(rest).boxed())
}
