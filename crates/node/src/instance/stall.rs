//! Guests that stand still because their host has no room for what they write: told with the way out, and let go on as
//! soon as there is room. Nobody has to do more than to make some.

use super::{InstanceError, Instances, deadline::Timed, status};
use crate::room::{FREE_BYTES_MIN, Space};
use jiff::{SignedDuration, Timestamp};
use model::{
    error::{Code, Fault},
    id::InstanceId,
    instance::Instance,
    volume::{Volume, VolumeStatus},
};
use reconcile::Outcome;
use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// How often room is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A guest that was let go on and stands still again waits at least so long: where room is shown and none is given, it
/// would go to and fro.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// Of a small file system that part is enough to go on with, in place of [`FREE_BYTES_MIN`].
const SMALL_PART: u64 = 16;

/// When guests were let go on.
#[derive(Default)]
pub(super) struct Revived(Mutex<HashMap<InstanceId, Timestamp>>);

impl Revived {
    fn is_due(&self, id: InstanceId, now: Timestamp) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever is past that time needs no entry, and those that are gone leave none.
        all.retain(|_, at| now.duration_since(*at) < AGAIN_AFTER);
        !all.contains_key(&id)
    }

    fn note(&self, id: InstanceId, now: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, now);
    }
}

impl Instances {
    /// Lets a guest go on that stands still, or says what it waits for.
    pub(super) async fn revive(
        &self,
        instance: &Instance,
        driver: &Timed,
    ) -> Result<Option<Outcome>, InstanceError> {
        let (id, now) = (instance.meta.id, self.now());
        let full = self.full_places(instance).await;
        if full.is_empty() && self.revived.is_due(id, now) {
            self.revived.note(id, now);
            driver.resume(id).await?;
            return Ok(None);
        }
        let fault = waits(instance, &full, now);
        self.note(instance, |status| status::tell(status, fault, instance.meta.generation)).await?;
        Ok(Some(Outcome::After(LOOK_EVERY)))
    }

    /// Directories of the guest's disks that have no room.
    async fn full_places(&self, instance: &Instance) -> BTreeSet<PathBuf> {
        let places = instance.volumes.iter().filter_map(|id| {
            let volume = self.store.get::<Volume>(&id.to_string())?;
            let path = self.store.get::<VolumeStatus>(&id.to_string())?.record.path.clone()?;
            let place = Path::new(&path).parent()?.to_path_buf();
            (!volume.record.attached_read_only).then_some(place)
        });
        let places: BTreeSet<PathBuf> = places.collect();
        let look = move || places.into_iter().filter(|place| is_full(place)).collect();
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }
}

/// What cannot be looked at is tried.
fn is_full(place: &Path) -> bool {
    Space::at(place).is_ok_and(|space| {
        let enough = FREE_BYTES_MIN.min(space.total_bytes / SMALL_PART);
        space.holds_beside(0, enough).is_err()
    })
}

fn waits(instance: &Instance, full: &BTreeSet<PathBuf>, since: Timestamp) -> Fault {
    let places: Vec<String> = full.iter().map(|place| place.display().to_string()).collect();
    let at =
        if places.is_empty() { "on its host".to_string() } else { format!("at {}", places.join(" and ")) };
    let name = &instance.meta.name;
    Fault {
        code: Code::NoCapacity,
        message: format!("{name} stands still and loses nothing: there is no room {at} for what it writes"),
        hint: format!("free space there: it goes on by itself, or at once with `holm resume {name}`"),
        since,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_goes_to_and_fro() {
        let (revived, now) = (Revived::default(), Timestamp::UNIX_EPOCH);
        let ids = [[1; 16], [2; 16]].map(InstanceId::from_random);
        assert!(revived.is_due(ids[0], now));
        revived.note(ids[0], now);
        assert!(!revived.is_due(ids[0], now + SignedDuration::from_secs(9)) && revived.is_due(ids[1], now));
        assert!(revived.is_due(ids[0], now + AGAIN_AFTER));
        assert!(revived.0.lock().unwrap().is_empty());
    }
}
