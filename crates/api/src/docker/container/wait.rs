//! Waiting for containers to end. The answer's head is sent at once, so that a client knows that it waits before it starts
//! the container; its body comes with the end.

use super::{found, publish, state};
use crate::{
    app::Asker,
    docker::{
        door::Door,
        query::Query,
        watch::{self, Sight},
    },
    error::{Failure, Result},
};
use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use control::Caller;
use model::{
    error::Code,
    instance::{InstanceStatus, State as Seen},
};
use serde_json::json;
use std::convert::Infallible;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// It does not run.
    NotRunning,
    /// It ends the next time.
    NextExit,
    /// It is gone.
    Removed,
}

/// Where a container is when the wait begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Begin {
    is_alive: bool,
    boot: u64,
    restarts: u64,
}

/// POST of a wait.
pub async fn wait(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response> {
    let condition = match query.text("condition") {
        None | Some("not-running") => Condition::NotRunning,
        Some("next-exit") => Condition::NextExit,
        Some("removed") => Condition::Removed,
        Some(other) => return Err(Failure::new(Code::Invalid, format!("invalid condition: {other:?}"))),
    };
    let found = found::find(&door, &caller, &name)?;
    let begin = Begin {
        is_alive: found.is_alive(),
        boot: found.status().map_or(0, |status| status.boot),
        restarts: found.status().map_or(0, restarts),
    };
    let (id, publishes, known) = (found.id(), !found.instance().publish.is_empty(), state::exit_code(&found));
    let end = async move {
        let mut last = known;
        let code = watch::until(&door, id, None, |sight| ended(sight, condition, begin, &mut last)).await;
        if condition == Condition::Removed && publishes {
            sweep(&door, &caller).await;
        }
        let code = code?;
        Some(Bytes::from(format!("{}\n", json!({ "StatusCode": code }))))
    };
    let body = futures::stream::once(end);
    // Nothing is said when the server stops first: the client sees an answer that breaks off.
    let body = futures::StreamExt::filter_map(body, async |bytes| bytes.map(Ok::<_, Infallible>));
    let kind = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(body)).into_response())
}

async fn sweep(door: &Door, caller: &Caller) {
    publish::sweep(door, caller).await;
}

/// How often its policy started it again in this boot.
fn restarts(status: &InstanceStatus) -> u64 {
    let count = status.facts.get("containers").and_then(|all| all.get(0)?.get("restarts")?.as_u64());
    count.unwrap_or(0)
}

/// The exit code, once what is waited for has come. `last` is the code of the last run that was seen to end.
fn ended(sight: &Sight, condition: Condition, begin: Begin, last: &mut i32) -> Option<i32> {
    let Some(_) = &sight.instance else { return Some(*last) };
    let status = sight.status.as_ref().map(|stored| &stored.record);
    if let Some(InstanceStatus { state: Seen::Stopped { code, .. }, .. }) = status {
        *last = code.unwrap_or(255);
    }
    let is_alive = status.is_some_and(|s| matches!(s.state, Seen::Running { .. } | Seen::Paused { .. }));
    let has_ended = match (condition, status) {
        (Condition::Removed, _) => false,
        (Condition::NotRunning, _) => !is_alive,
        (Condition::NextExit, None) => false,
        (Condition::NextExit, Some(status)) => {
            let in_new_boot = status.boot > begin.boot || begin.is_alive;
            let was_restarted = is_alive
                && (status.boot, restarts(status)) > (begin.boot, begin.restarts)
                && restarts(status) > 0;
            if was_restarted {
                let code =
                    status.facts.get("containers").and_then(|all| all.get(0)?.get("exit_code")?.as_i64());
                *last = code.and_then(|code| i32::try_from(code).ok()).unwrap_or(0);
            }
            was_restarted || (!is_alive && in_new_boot && matches!(status.state, Seen::Stopped { .. }))
        }
    };
    has_ended.then_some(*last)
}
