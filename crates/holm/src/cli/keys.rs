//! What came of changed keys: what a guest took over of them, what it did not, and why.

use super::{failure::Result, session::Session};
use api::v1::types::instance::{Instance, KeysPending};
use model::instance::phase::Phase;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a command waits for a guest's agent, which answers in moments or not at all.
const PATIENCE: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(100);

/// The instance when its guest has taken over its keys, or it is known why not.
///
/// # Errors
/// As the server refuses.
pub async fn taken_over(session: &Session, instance: &str) -> Result<Instance> {
    let end = Instant::now() + PATIENCE;
    loop {
        let now = session.client.get::<Instance>(instance).await?;
        let waits = now.phase == Phase::Running
            && now.keys_pending.as_ref().is_some_and(|pending| pending.reason.is_empty());
        if !waits || Instant::now() >= end {
            return Ok(now);
        }
        sleep(PAUSE).await;
    }
}

/// `it does not let mine in yet, it still lets old in: no guest agent answers in it`, where something is pending.
pub fn pending_in_words(instance: &Instance) -> Option<String> {
    let KeysPending { add, remove, reason } = instance.keys_pending.as_ref()?;
    let mut parts = vec![];
    if !add.is_empty() {
        parts.push(format!("it does not let {} in yet", add.join(", ")));
    }
    if !remove.is_empty() {
        parts.push(format!("it still lets {} in", remove.join(", ")));
    }
    let why = match (reason.as_str(), instance.phase) {
        ("", Phase::Running) => "its guest has not answered yet",
        ("", _) => "it does not run",
        (reason, _) => reason,
    };
    Some(format!("{}: {why}", parts.join(", ")))
}

/// Says what is pending. Whether the guest still lets somebody in who is to stay out.
pub fn warn(session: &Session, instance: &Instance) -> bool {
    if let Some(pending) = pending_in_words(instance) {
        session.warn(format!("{}: {pending}", instance.head.name));
    }
    instance.keys_pending.as_ref().is_some_and(|pending| !pending.remove.is_empty())
}
