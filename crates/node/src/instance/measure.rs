//! What instances use, looked at once a minute; see [`model::usage`] for what is kept of it, and why not in the store.

use super::Instances;
use futures::StreamExt;
use jiff::Timestamp;
use model::{
    id::InstanceId,
    instance::{Instance, InstanceStatus, State},
    usage::{History, Peaks},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use store::Store;
use tokio_util::sync::CancellationToken;

/// How often all instances are looked at.
const EVERY: Duration = Duration::from_secs(60);

/// How long one may take to tell: some are told by their guest, which may not want to.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many are asked at a time.
const AT_A_TIME: usize = 8;

/// The use of all instances of this node.
pub struct Meter {
    store: Store,
    instances: Arc<Instances>,
    histories: Mutex<HashMap<InstanceId, History>>,
}

impl Meter {
    /// Knows nothing yet.
    pub fn new(store: Store, instances: Arc<Instances>) -> Self {
        Self { store, instances, histories: Mutex::default() }
    }

    /// Looks again and again until holm stops.
    pub async fn run(&self, stopping: CancellationToken) {
        loop {
            let looked_and_slept = async {
                self.look().await;
                tokio::time::sleep(EVERY).await;
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                () = looked_and_slept => {}
            }
        }
    }

    /// Looks at all that run, and forgets those that are gone.
    pub async fn look(&self) {
        let all = self.store.list::<Instance>();
        self.histories().retain(|id, _| all.iter().any(|stored| stored.record.meta.id == *id));
        let each = futures::stream::iter(&all);
        each.for_each_concurrent(AT_A_TIME, |stored| self.measure(&stored.record)).await;
    }

    /// The highest use that was seen of an instance, this moment's included.
    pub async fn peaks(&self, instance: &Instance) -> Option<Peaks> {
        self.measure(instance).await;
        self.histories().get(&instance.meta.id)?.peaks()
    }

    async fn measure(&self, instance: &Instance) {
        let id = instance.meta.id;
        let status = self.store.get::<InstanceStatus>(&id.to_string());
        if !status.is_some_and(|status| matches!(status.record.state, State::Running { .. })) {
            return;
        }
        let Ok(driver) = self.instances.driver(instance.kind) else {
            return;
        };
        match tokio::time::timeout(PATIENCE, driver.usage(id)).await {
            Ok(Ok(usage)) => {
                // Files that were read once and are kept in case are given back before anything is short.
                let memory_bytes = usage.memory_bytes.saturating_sub(usage.memory_inactive_file_bytes);
                self.histories().entry(id).or_default().add(
                    Timestamp::now(),
                    memory_bytes,
                    usage.cpu_usage_us,
                );
            }
            Ok(Err(error)) => tracing::debug!(%id, %error, "its use could not be seen"),
            Err(_) => tracing::debug!(%id, "its use is not told in time"),
        }
    }

    fn histories(&self) -> MutexGuard<'_, HashMap<InstanceId, History>> {
        // The map is whole at every moment, so a panic elsewhere does not spoil it.
        self.histories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
