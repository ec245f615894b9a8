//! Control's clock: starts instances when their time has come.

use control::Control;
use model::{instance::Instance, record::Record};
use std::time::Duration;
use store::Change;
use tokio_util::sync::CancellationToken;

/// Longest wait: the host's clock may be set meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Wait after a failure.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// Runs until holm stops.
pub async fn run(control: Control, stopping: CancellationToken) {
    let mut changes = control.store().subscribe();
    loop {
        let wait = match control.start_due().await {
            Ok(()) => wait(&control),
            Err(error) => {
                tracing::warn!(%error, "instances could not be started by their schedules");
                FAILURE_PAUSE
            }
        };
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep_until(deadline) => break,
                change = changes.next() => match change {
                    Some(Change::Record { table, .. }) if table != Instance::TABLE => {}
                    Some(_) => break,
                    None => return,
                },
            }
        }
    }
}

fn wait(control: &Control) -> Duration {
    let Some(next) = control.next_due() else { return LOOK_EVERY };
    let left_ms = next.as_millisecond() - control.now().as_millisecond();
    Duration::from_millis(u64::try_from(left_ms).unwrap_or(0) + 1).min(LOOK_EVERY)
}
