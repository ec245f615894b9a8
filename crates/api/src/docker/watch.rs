//! Waiting for what becomes of an instance: looks at the mirror and again after each change of its records.

use super::door::Door;
use model::{
    id::InstanceId,
    instance::{Instance, InstanceStatus},
};
use std::{sync::Arc, time::Duration};
use store::{Change, Changes, Stored};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// An instance as it is at one moment.
#[derive(Clone)]
pub struct Sight {
    /// The wish; `None` once it is gone.
    pub instance: Option<Arc<Stored<Instance>>>,
    /// What its node says.
    pub status: Option<Arc<Stored<InstanceStatus>>>,
}

/// An instance as it is now.
pub fn look(door: &Door, id: InstanceId) -> Sight {
    let control = door.control();
    Sight { instance: control.get::<Instance>(id), status: control.instance_status(id) }
}

/// Looks until there is an answer; `None` when the time is over or the server stops. Safe to cancel.
pub async fn until<T>(
    door: &Door,
    id: InstanceId,
    patience: Option<Duration>,
    mut answer: impl FnMut(&Sight) -> Option<T>,
) -> Option<T> {
    // A wait without an end of its own ends with its client, or with the server.
    const LONG: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    let deadline = Instant::now() + patience.unwrap_or(LONG);
    let mut changes = Touches::of(door, id.to_string());
    loop {
        if let Some(found) = answer(&look(door, id)) {
            return Some(found);
        }
        if !changes.next(deadline).await {
            return answer(&look(door, id));
        }
    }
}

/// Changes of the records with one key: a wish, and the status that has the key of what it tells about.
pub struct Touches {
    changes: Changes,
    key: String,
    stopping: CancellationToken,
}

impl Touches {
    /// Those from now on.
    pub fn of(door: &Door, key: String) -> Self {
        let changes = door.control().store().subscribe();
        Self { changes, key, stopping: door.app().stopping().clone() }
    }

    /// Waits for the next; false when the time is over or the server stops. Safe to cancel.
    pub async fn next(&mut self, deadline: Instant) -> bool {
        let touched = async {
            loop {
                match self.changes.next().await {
                    Some(Change::Record { key: changed, .. }) if *changed != *self.key => {}
                    Some(_) => return true,
                    None => return false,
                }
            }
        };
        tokio::select! {
            outcome = timeout_at(deadline, touched) => outcome.unwrap_or(false),
            () = self.stopping.cancelled() => false,
        }
    }
}
