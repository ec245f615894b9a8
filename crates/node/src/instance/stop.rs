//! Stopping in time: when a guest was asked, whether it is asked again, and when the plug is pulled.

use jiff::{SignedDuration, Timestamp};
use model::{
    id::InstanceId,
    instance::{Instance, InstanceStatus, Kind, step::StopProgress},
};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// A VM whose guest is still booting hears no power button, so it is pressed again.
const ASK_VM_AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// How far a graceful stop is.
pub(super) fn stop_progress(instance: &Instance, status: &InstanceStatus, now: Timestamp) -> StopProgress {
    match status.stop_asked_at {
        None => StopProgress::NotAsked,
        Some(asked) if now.duration_since(asked) >= grace(instance) => StopProgress::Overdue,
        Some(_) => StopProgress::Waiting,
    }
}

fn grace(instance: &Instance) -> SignedDuration {
    SignedDuration::from_secs(i64::from(instance.kill_after_s()))
}

/// Time until the plug is pulled, looked at once a second: guests tell of their end, but may be missed.
pub(super) fn remaining(instance: &Instance, status: &InstanceStatus, now: Timestamp) -> Duration {
    let asked = status.stop_asked_at.unwrap_or(now);
    let left = grace(instance) - now.duration_since(asked);
    let left = Duration::try_from(left).unwrap_or(Duration::ZERO);
    left.clamp(Duration::from_millis(20), Duration::from_secs(1))
}

/// Which guests this daemon has truly asked, and when last. The time in the status is written before the guest is
/// asked, so after a crash or a refused request it does not tell whether the guest ever heard.
#[derive(Default)]
pub(super) struct Asked {
    last: Mutex<HashMap<InstanceId, Timestamp>>,
}

impl Asked {
    /// Whether the guest is to be asked (again).
    pub fn is_due(&self, instance: &Instance, now: Timestamp) -> bool {
        match self.lock().get(&instance.meta.id) {
            None => true,
            Some(last) => instance.kind == Kind::Vm && now.duration_since(*last) >= ASK_VM_AGAIN,
        }
    }

    /// The guest was asked.
    pub fn note(&self, id: InstanceId, now: Timestamp) {
        self.lock().insert(id, now);
    }

    /// The guest is not (or no more) being stopped.
    pub fn forget(&self, id: InstanceId) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<InstanceId, Timestamp>> {
        // Nothing can panic while it is held.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
