//! The host goes down: its guests are asked to end first, each with its own grace, so that disks are unmounted and
//! databases closed before the power is gone.
//!
//! Nothing of what is wished for changes: what starts with the host runs again when that is back. The loops must have
//! been stopped before, or they would start again what ends here.

use super::{ASKED_PAUSE, Instances, Timed, sentence};
use crate::driver::Seen;
use futures::future::join_all;
use jiff::SignedDuration;
use model::{id::InstanceId, instance::Instance};
use std::{sync::Arc, time::Duration};

/// Longest that a host waits for a guest, whatever grace that has.
pub const PARTING_S_MAX: u32 = 300;

impl Instances {
    /// Ends all that runs on this host, all at once. Whoever is late is killed.
    pub async fn part(&self) {
        join_all(self.wished().into_iter().map(|id| self.end(id))).await;
    }

    /// Longest time that [`Self::part`] may take.
    pub fn parting_max(&self) -> Duration {
        let graces = self.store.list::<Instance>();
        let longest = graces.iter().map(|instance| instance.record.grace_s).max().unwrap_or(0);
        Duration::from_secs(u64::from(longest.min(PARTING_S_MAX)))
    }

    async fn end(&self, id: InstanceId) {
        let Some(stored) = self.store.get::<Instance>(&id.to_string()) else { return };
        let instance = &stored.record;
        let Ok(driver) = self.driver(instance.kind) else { return };
        let driver = Timed(Arc::clone(driver));
        if self.ended_in_time(instance, &driver).await {
            return;
        }
        if let Err(error) = driver.kill(id).await {
            let (name, error) = (&instance.meta.name, sentence(&error));
            tracing::warn!(instance = %name, error, "the guest could not be ended before the host goes down");
        }
    }

    async fn ended_in_time(&self, instance: &Instance, driver: &Timed) -> bool {
        let begun = self.now();
        let grace = SignedDuration::from_secs(i64::from(instance.grace_s.min(PARTING_S_MAX)));
        loop {
            match driver.observe(instance.meta.id).await {
                // What is frozen cannot hear, and what cannot be seen may still be killed.
                Ok(Seen::Paused(_) | Seen::Stalled(_)) | Err(_) => return false,
                Ok(Seen::Absent | Seen::Stopped(_) | Seen::Asleep { .. }) => return true,
                Ok(Seen::Running(_)) => {}
            }
            let now = self.now();
            if now.duration_since(begun) >= grace {
                return false;
            }
            if self.asked.is_due(instance, now) {
                self.ask_to_stop(instance, driver).await;
            }
            tokio::time::sleep(ASKED_PAUSE).await;
        }
    }
}
