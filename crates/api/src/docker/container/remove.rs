//! Removing containers.

use super::{
    found::{self, Found},
    publish,
};
use crate::{
    app::Asker,
    docker::{
        door::Door,
        query::Query,
        refusal::{conflict, not_honoured},
        watch,
    },
    error::{Failure, Result},
    v1::audit::{deed, note},
};
use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use control::Caller;
use model::error::Code;
use std::time::Duration;

/// Longest wait for all of a container to be gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(120);

/// DELETE of one. Volumes that were made along with it go too, whether `v` is set or not: they are its own.
pub async fn remove(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    query: Query,
) -> Result<StatusCode> {
    if query.flag("link") {
        return Err(not_honoured("link", "containers of a network find each other by their names"));
    }
    let found = found::find(&door, &caller, &name)?;
    if found.is_alive() && !query.flag("force") {
        let what = if found.is_paused() {
            "container is paused and must be unpaused first"
        } else {
            "container is running: stop the container before removing or force remove"
        };
        return Err(conflict(format!("cannot remove container \"{}\": {what}", found.name())));
    }
    end(&door, &caller, &found, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a container, and waits until all of it is gone. `name` is what the client called it.
///
/// # Errors
/// What the cloud refuses, and `timeout`.
pub async fn end(door: &Door, caller: &Caller, found: &Found, name: &str) -> Result<()> {
    let publishes = !found.instance().publish.is_empty() || found.instance().succession.is_some();
    let outcome = door.control().delete_instance(caller, &found.id().to_string()).await;
    note(door.app(), caller, deed("delete", "instance", name), outcome).await?;
    let gone =
        watch::until(door, found.id(), Some(GONE_TIMEOUT), |sight| sight.instance.is_none().then_some(()));
    if gone.await.is_none() {
        let message = format!(
            "container {} is not gone within {} s; it is still going",
            found.name(),
            GONE_TIMEOUT.as_secs()
        );
        return Err(Failure::new(Code::Timeout, message));
    }
    if publishes {
        publish::sweep(door, caller).await;
    }
    Ok(())
}
