//! Turns between those who look into a container's files and its start.
//!
//! Any number may look at a time. A start waits for them for a while, then asks them to break off: a client that reads an
//! archive slowly must not keep a container down. Those who look at a container that does not run share its mounts: an
//! upper directory, and a root disk even more so, is mounted once.

use super::Mounted;
use model::id::InstanceId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::{
    Mutex as AsyncMutex, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock,
};
use tokio_util::sync::CancellationToken;

/// How long a start waits before it asks those who look to break off.
const PATIENCE: Duration = Duration::from_secs(10);

/// The turns of all containers of a driver.
#[derive(Debug, Default)]
pub(in crate::container) struct Turns(Mutex<HashMap<InstanceId, Gate>>);

#[derive(Debug, Clone, Default)]
struct Gate {
    lock: Arc<RwLock<()>>,
    hurry: CancellationToken,
    mounted: Arc<Mutex<Weak<Mounted>>>,
    rousing: Arc<AsyncMutex<()>>,
}

/// The turn of one who looks.
#[derive(Debug)]
pub struct Turn {
    _guard: OwnedRwLockReadGuard<()>,
    mounted: Arc<Mutex<Weak<Mounted>>>,
    /// Somebody waits for the end of this turn: break off.
    pub(in crate::container) hurry: CancellationToken,
    /// Held by what starts a machine for all of them, which goes on when who asked for it is gone. Who came first has it first.
    pub(in crate::container) rousing: Arc<AsyncMutex<()>>,
}

impl Turn {
    /// The turn of a process that nobody takes turns with: inside of a machine, where the host has taken one for it.
    pub fn undisputed() -> Self {
        let lock = Arc::new(RwLock::new(()));
        let guard = lock.try_read_owned().expect("nobody else has it");
        let (mounted, rousing) = (Arc::default(), Arc::default());
        Self { _guard: guard, mounted, hurry: CancellationToken::new(), rousing }
    }

    /// The mounts that those share who look at the same time. Held while they are made.
    pub(super) fn shared(&self) -> MutexGuard<'_, Weak<Mounted>> {
        // What is in it is whole at every moment.
        self.mounted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turn of a start or a removal.
#[derive(Debug)]
pub(in crate::container) struct Alone {
    _guard: OwnedRwLockWriteGuard<()>,
    /// Nobody is about to start a machine for those who looked before.
    _rousing: OwnedMutexGuard<()>,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, HashMap<InstanceId, Gate>> {
        // Nothing can panic while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self, id: InstanceId) -> Gate {
        let mut all = self.lock();
        all.retain(|known, gate| *known == id || Arc::strong_count(&gate.lock) > 1);
        let gate = all.entry(id).or_default();
        if gate.hurry.is_cancelled() {
            // Those of the turn before were asked; the next ones were not.
            gate.hurry = CancellationToken::new();
        }
        gate.clone()
    }

    /// Waits for a start that goes on, then looks.
    pub async fn look(&self, id: InstanceId) -> Turn {
        let Gate { lock, mounted, rousing, .. } = self.gate(id);
        let guard = lock.read_owned().await;
        Turn { _guard: guard, mounted, hurry: self.gate(id).hurry, rousing }
    }

    /// Waits until nobody looks.
    pub async fn alone(&self, id: InstanceId) -> Alone {
        let Gate { lock, hurry, rousing, .. } = self.gate(id);
        let patient = tokio::time::timeout(PATIENCE, Arc::clone(&lock).write_owned()).await;
        let guard = match patient {
            Ok(guard) => guard,
            Err(_) => {
                hurry.cancel();
                lock.write_owned().await
            }
        };
        Alone { _guard: guard, _rousing: rousing.lock_owned().await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_and_then_asks_to_break_off() {
        let turns = Arc::new(Turns::default());
        let id = InstanceId(uuid::Uuid::from_u128(1));
        let first = turns.look(id).await;
        let second = turns.look(id).await;
        let starting = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.alone(id).await }
        });
        first.hurry.cancelled().await;
        assert!(second.hurry.is_cancelled() && !starting.is_finished());
        drop((first, second));
        let alone = starting.await.unwrap();
        drop(alone);
        assert!(!turns.look(id).await.hurry.is_cancelled(), "the next one is not in a hurry");
        drop(turns.look(InstanceId(uuid::Uuid::from_u128(2))).await);
        turns.gate(id);
        assert_eq!(turns.lock().len(), 1, "what nobody uses is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_for_a_machine_that_is_being_started_for_others() {
        let turns = Arc::new(Turns::default());
        let id = InstanceId(uuid::Uuid::from_u128(1));
        let looks = turns.look(id).await;
        let rousing = Arc::clone(&looks.rousing).lock_owned().await;
        // Who asked is gone.
        drop(looks);
        let starting = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.alone(id).await }
        });
        tokio::time::sleep(4 * PATIENCE).await;
        assert!(!starting.is_finished());
        drop(rousing);
        drop(starting.await.unwrap());
    }
}
