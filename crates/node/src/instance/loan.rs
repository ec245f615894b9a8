//! Volumes of pods with a kernel of their own that are opened while the pod does not run: for work on its files.
//!
//! Who may have a disk open is in the instance's status before it can be. A start says so by itself; here somebody else asks for
//! it, and the instance's own run writes it: a [`Loan`] is noted, the run is woken, and it finds the loan. From then on the
//! volumes are taken, as by a guest, until the loan is given back and the driver has nothing of them open any more.

use super::{InstanceError, Instances, sentence};
use model::{
    error::{Code, Fault},
    id::{InstanceId, VolumeId},
    instance::{Instance, Kind, State},
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::broadcast, time::Instant};

/// Loans that wait for a slow listener, who then looks at all.
const LOANS_MAX: usize = 256;
/// How long it is waited for the instance's run.
const NOTE_TIMEOUT: Duration = Duration::from_secs(20);
const NOTE_POLL: Duration = Duration::from_millis(20);

/// All loans.
#[derive(Debug)]
pub(super) struct Loans {
    given: Mutex<HashMap<InstanceId, usize>>,
    asked: broadcast::Sender<InstanceId>,
}

impl Default for Loans {
    fn default() -> Self {
        Self { given: Mutex::default(), asked: broadcast::Sender::new(LOANS_MAX) }
    }
}

/// The right to open an instance's volumes while it does not run, given back by dropping it. What is open then is told by the
/// driver.
#[derive(Debug)]
pub struct Loan {
    loans: Arc<Loans>,
    id: InstanceId,
}

impl Loans {
    fn lock(&self) -> MutexGuard<'_, HashMap<InstanceId, usize>> {
        // Nothing can panic while it is held.
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(self: &Arc<Self>, id: InstanceId) -> Loan {
        *self.lock().entry(id).or_default() += 1;
        Loan { loans: Arc::clone(self), id }
    }

    fn wake(&self, id: InstanceId) {
        // Nobody may be listening yet: then all instances are looked at anyway.
        let _ = self.asked.send(id);
    }

    /// Whether somebody has the right.
    pub(super) fn are_given(&self, id: InstanceId) -> bool {
        self.lock().contains_key(&id)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut given = self.loans.lock();
        if let Some(count) = given.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                given.remove(&self.id);
            }
        }
        drop(given);
        self.loans.wake(self.id);
    }
}

impl Instances {
    /// Instances to be looked at because their volumes are wanted, or are wanted no more.
    pub fn borrowed(&self) -> broadcast::Receiver<InstanceId> {
        self.loans.asked.subscribe()
    }

    /// The right to open the volumes of a pod with a kernel of its own while it does not run, or if it ends just now. `None` where
    /// there is nothing to be opened, or directories are: these are waited for alone.
    ///
    /// # Errors
    /// Its disks are not ready, or its run does not come to note it.
    pub async fn lend(&self, instance: &Instance) -> Result<Option<Loan>, InstanceError> {
        let deadline = Instant::now() + NOTE_TIMEOUT;
        let is_in_machine = instance.kind == Kind::Container && instance.has_own_kernel();
        if !is_in_machine || instance.volumes.is_empty() {
            while !self.are_formed(instance) && Instant::now() < deadline {
                tokio::time::sleep(NOTE_POLL).await;
            }
            return Ok(None);
        }
        if matches!(self.status(instance).state, State::Running { .. } | State::Paused { .. }) {
            return Ok(Some(self.loans.give(instance.meta.id)));
        }
        let mut waiting = self.not_ready(instance).await?;
        while waiting.is_some() && Instant::now() < deadline {
            tokio::time::sleep(NOTE_POLL).await;
            waiting = self.not_ready(instance).await?;
        }
        let loan = self.loans.give(instance.meta.id);
        self.loans.wake(instance.meta.id);
        while waiting.is_none() && Instant::now() < deadline {
            let status = self.status(instance);
            let are_noted = instance.volumes.iter().all(|id| status.volumes.contains(id));
            if are_noted && status.layers == self.layers_of(&instance.volumes) {
                return Ok(Some(loan));
            }
            tokio::time::sleep(NOTE_POLL).await;
        }
        Err(InstanceError::Needs(Fault {
            code: Code::Conflict,
            message: format!(
                "the disks of {} cannot be opened at this moment: {}",
                instance.meta.name,
                waiting.as_deref().unwrap_or("it is being started, ended or changed")
            ),
            hint: "try again in a moment".into(),
            since: self.now(),
        }))
    }

    /// Volumes of an instance without a guest that somebody has open, or is about to open.
    pub(super) async fn lent_of(&self, instance: &Instance, driver: &super::Timed) -> Vec<VolumeId> {
        if instance.kind != Kind::Container || !instance.has_own_kernel() {
            return vec![];
        }
        let are_given = self.loans.are_given(instance.meta.id);
        let open = self.open_of(instance, driver).await;
        if !are_given {
            return open;
        }
        // One that was detached meanwhile is open all the same.
        let noted = self.status(instance).volumes;
        let all: BTreeSet<VolumeId> = noted.iter().chain(&instance.volumes).chain(&open).copied().collect();
        all.into_iter().collect()
    }

    /// Volumes that the driver has open.
    async fn open_of(&self, instance: &Instance, driver: &super::Timed) -> Vec<VolumeId> {
        match driver.lent(instance.meta.id).await {
            Ok(open) => open,
            Err(error) => {
                // What may be open is taken to be.
                tracing::warn!(instance = %instance.meta.name, error = sentence(&error), "open volumes cannot be told");
                self.status(instance).volumes
            }
        }
    }
}
