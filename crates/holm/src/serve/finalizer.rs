//! Control's loop: brings the records of instances to their end when their node is done.

use control::Control;
use model::{id::InstanceId, instance::Instance};
use reconcile::{Outcome, Runner};
use std::time::Duration;
use store::Change;
use tokio_util::sync::CancellationToken;

/// How often the history is trimmed.
const TRIM_EVERY: Duration = Duration::from_secs(600);

/// Runs until holm stops.
pub async fn run(control: Control, stopping: CancellationToken) {
    let store = control.store().clone();
    let lister = store.clone();
    let list =
        move || lister.list::<Instance>().iter().map(|i| i.record.meta.id).collect::<Vec<InstanceId>>();
    let worker = control.clone();
    let runner = Runner::builder("finalizer", list).spawn(move |id| {
        let control = worker.clone();
        async move { control.finalize_instance(id).await.map(|()| Outcome::Done) }
    });
    let queue = runner.queue();
    let mut changes = store.subscribe();
    let mut trim = tokio::time::interval(TRIM_EVERY);
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            _ = trim.tick() => {
                if let Err(error) = control.sweep_images().await {
                    tracing::warn!(%error, "deleted images stay for now");
                }
                if let Err(error) = control.trim_history().await {
                    tracing::warn!(error, "old events could not be forgotten");
                }
            }
            change = changes.next() => match change {
                Some(Change::Record { table, key, .. }) => {
                    // What was deleted may have been the last that stood on a deleted image.
                    if matches!(table, "instance" | "volume")
                        && let Err(error) = control.sweep_images().await
                    {
                        tracing::warn!(%error, "deleted images stay for now");
                    }
                    if matches!(table, "instance" | "instance_status")
                        && let Ok(id) = key.parse() {
                        queue.add(id);
                    }
                }
                Some(Change::Resync) => queue.resync(),
                None => break,
            },
        }
    }
    runner.drain(Duration::from_secs(5)).await;
}
