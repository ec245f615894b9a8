//! Verbs on instances: each changes the wish in one transaction; the node brings it about.

use crate::{Caller, Control, Error, Result, transact::Transaction};
use model::{
    error::Code,
    instance::{Instance, InstanceStatus, Kind, Power, phase::Phase},
};

impl Control {
    /// Changes an instance's wish, unless it is going or locked.
    async fn wish(
        &self,
        caller: &Caller,
        reference: &str,
        action: &str,
        change: impl Fn(&mut Transaction, &mut Instance, Phase) -> Result<()> + Send + Sync,
    ) -> Result<Instance> {
        self.transact(|tx| {
            let found = self.find_own::<Instance>(caller, reference, action)?;
            let mut next = found.record.clone();
            if next.meta.is_deleting() {
                return Err(Error::new(Code::Conflict, format!("{} is being deleted", next.meta.name)));
            }
            refuse_locked(caller, &next)?;
            change(tx, &mut next, self.phase(&found.record))?;
            if next != found.record {
                next.meta.touch(self.now());
                tx.update(&found, &next);
            }
            Ok(next)
        })
        .await
    }

    /// Starts an instance. One that runs is left alone; a frozen or sleeping one goes on; one that failed is tried again
    /// at once, and so are its images.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict`, `no_capacity` when its host has given to others what it needs.
    pub async fn start_instance(&self, caller: &Caller, reference: &str) -> Result<Instance> {
        self.wish(caller, reference, "starting an instance", |tx, next, phase| {
            self.take_over(tx, caller, next)?;
            let ended = matches!(phase, Phase::Stopped | Phase::Exited | Phase::Failed | Phase::Stopping);
            // One that could not be woken is tried again with the memory that it has.
            let is_new = |s: &InstanceStatus| s.boot >= next.boots && !(s.asleep && phase == Phase::Failed);
            if ended && self.instance_status(next.meta.id).is_some_and(|s| is_new(&s.record)) {
                next.boots += 1;
            }
            if next.power == Power::Off {
                self.refuse_without_room(next, next.size)?;
            }
            next.power = Power::On;
            next.hard = false;
            (next.shelved, next.suspended) = (false, false);
            if phase == Phase::Failed {
                next.meta.touch(self.now());
                self.ask_images_anew(tx, next);
            }
            Ok(())
        })
        .await
    }

    /// Stops an instance: asks the guest, and pulls the plug after its grace period, or at once with `hard`. The memory of
    /// one that sleeps is thrown away.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict`.
    pub async fn stop_instance(
        &self,
        caller: &Caller,
        reference: &str,
        hard: bool,
        grace_s: Option<u32>,
    ) -> Result<Instance> {
        self.wish(caller, reference, "stopping an instance", |_, next, _| {
            next.power = Power::Off;
            next.hard = hard;
            next.suspended = false;
            next.grace_s = grace_s.unwrap_or(next.grace_s).min(model::instance::GRACE_S_MAX);
            Ok(())
        })
        .await
    }

    /// Puts an instance away: it stops as its guest likes, gives back memory and CPUs, and keeps its disks and addresses.
    /// Starting it takes it out again.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict` for one that is on its way somewhere or has a size on trial.
    pub async fn shelve_instance(&self, caller: &Caller, reference: &str) -> Result<Instance> {
        self.wish(caller, reference, "shelving an instance", |_, next, phase| {
            if !matches!(phase, Phase::Running | Phase::Paused | Phase::Stopped | Phase::Exited) {
                let message = format!("{} is {phase}: it cannot be put away now", next.meta.name);
                return Err(Error::new(Code::Conflict, message));
            }
            super::rebuild::refuse_unsettled(next)?;
            next.power = Power::Off;
            next.hard = false;
            next.shelved = true;
            Ok(())
        })
        .await
    }

    /// Stops and starts an instance.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict` for one that does not run.
    pub async fn reboot_instance(&self, caller: &Caller, reference: &str, hard: bool) -> Result<Instance> {
        self.wish(caller, reference, "rebooting an instance", |_, next, phase| {
            if next.power == Power::Off {
                let message = format!("{} is {phase}: only a running instance reboots", next.meta.name);
                return Err(
                    Error::new(Code::Conflict, message).hint(format!("`holm start {}`", next.meta.name))
                );
            }
            next.power = Power::On;
            next.boots += 1;
            next.hard = hard;
            Ok(())
        })
        .await
    }

    /// Freezes an instance in memory.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict` for one that does not run.
    pub async fn pause_instance(&self, caller: &Caller, reference: &str) -> Result<Instance> {
        self.wish(caller, reference, "pausing an instance", |_, next, phase| {
            if !matches!(phase, Phase::Running | Phase::Pausing | Phase::Paused | Phase::Resuming) {
                let message = format!("{} is {phase}: only a running instance can be paused", next.meta.name);
                return Err(Error::new(Code::Conflict, message));
            }
            next.power = Power::Paused;
            Ok(())
        })
        .await
    }

    /// Puts a VM to sleep: its memory is kept on disk, and it gives back memory and CPUs of its host. It goes on where it
    /// was when it is resumed or started, also after its host was restarted.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `unsupported` for containers, `conflict` for one that does not run or has a size on trial.
    pub async fn suspend_instance(&self, caller: &Caller, reference: &str) -> Result<Instance> {
        self.wish(caller, reference, "suspending an instance", |_, next, phase| {
            if next.kind != Kind::Vm {
                let message = format!("{} is a container: only VMs can be suspended", next.meta.name);
                return Err(Error::new(Code::Unsupported, message)
                    .hint(format!("`holm pause {}` freezes it in memory", next.meta.name)));
            }
            if matches!(phase, Phase::Suspending | Phase::Suspended) {
                return Ok(());
            }
            if !matches!(phase, Phase::Running | Phase::Paused) {
                let message = format!("{} is {phase}: only a running VM can be suspended", next.meta.name);
                return Err(Error::new(Code::Conflict, message));
            }
            super::rebuild::refuse_unsettled(next)?;
            self.refuse_while_plugging(next)?;
            (next.power, next.hard, next.suspended) = (Power::Off, false, true);
            Ok(())
        })
        .await
    }

    /// Lets a frozen or sleeping instance go on.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict` for one that is neither, `no_capacity` when its host has given to others what
    /// a sleeping one needs.
    pub async fn resume_instance(&self, caller: &Caller, reference: &str) -> Result<Instance> {
        self.wish(caller, reference, "resuming an instance", |_, next, phase| {
            // What ended before it slept is started anew.
            let ended = next.suspended && matches!(phase, Phase::Stopped | Phase::Failed);
            let sleeps = ended || matches!(phase, Phase::Suspending | Phase::Suspended);
            // One that waits for room on its host is tried at once.
            let waits = next.power == Power::On && phase == Phase::Paused;
            if next.power != Power::Paused && !sleeps && !waits {
                let message = format!("{} is {phase}, neither paused nor suspended", next.meta.name);
                return Err(Error::new(Code::Conflict, message));
            }
            if sleeps {
                self.refuse_without_room(next, next.size)?;
            }
            let was_begun = self.instance_status(next.meta.id).is_some_and(|s| s.record.boot >= next.boots);
            if ended && was_begun && !self.instance_status(next.meta.id).is_some_and(|s| s.record.asleep) {
                next.boots += 1;
            }
            (next.power, next.suspended) = (Power::On, false);
            Ok(())
        })
        .await
    }

    /// Changes what is said of an instance and its switches.
    ///
    /// # Errors
    /// `invalid`, `taken`, `not_found`, `forbidden`.
    pub async fn update_instance(
        &self,
        caller: &Caller,
        reference: &str,
        change: impl Fn(&mut Instance) -> Result<()> + Send + Sync,
    ) -> Result<Instance> {
        self.wish(caller, reference, "changing an instance", |_, next, _| change(next)).await
    }

    /// Asks for an instance to go. Its record goes when nothing of it is left on its host.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict` for a locked one.
    pub async fn delete_instance(&self, caller: &Caller, reference: &str) -> Result<Instance> {
        self.transact(|tx| {
            let found = self.find_own::<Instance>(caller, reference, "deleting an instance")?;
            refuse_locked(caller, &found.record)?;
            let mut next = found.record.clone();
            if next.meta.deleted_at.is_none() {
                next.meta.deleted_at = Some(self.now());
                next.meta.touch(self.now());
                tx.update(&found, &next);
            }
            Ok(next)
        })
        .await
    }
}

impl Control {
    /// Refuses to put a VM to sleep whose disks and cards are not yet those of its wish: it would wake on another machine
    /// than the one it knows.
    fn refuse_while_plugging(&self, instance: &Instance) -> Result<()> {
        let Some(status) = self.instance_status(instance.meta.id) else {
            return Ok(());
        };
        let status = &status.record;
        if same(&instance.ports, &status.ports) && same(&instance.volumes, &status.volumes) {
            return Ok(());
        }
        let name = &instance.meta.name;
        Err(Error::new(
            Code::Conflict,
            format!("a disk or a card of {name} is still being plugged in or out"),
        )
        .hint(format!("try again in a moment; `holm info {name}` shows both")))
    }
}

/// Whether two lists have the same members.
pub fn same<T: PartialEq>(wanted: &[T], seen: &[T]) -> bool {
    wanted.len() == seen.len() && wanted.iter().all(|one| seen.contains(one))
}

/// Refuses a change of what is plugged into a VM that sleeps: it would wake on another machine than the one it knows.
pub(crate) fn refuse_asleep(instance: &Instance) -> Result<()> {
    if !instance.suspended {
        return Ok(());
    }
    let name = &instance.meta.name;
    Err(Error::new(Code::Conflict, format!("{name} is suspended, and its hardware stays as it is"))
        .hint(format!("`holm resume {name}`, or `holm stop {name}`, which throws its memory away")))
}

/// Refuses to change, stop or remove what is locked. Admins may.
pub(crate) fn refuse_locked(caller: &Caller, instance: &Instance) -> Result<()> {
    let Some(lock) = instance.lock.as_ref().filter(|_| caller.role != crate::Role::Admin) else {
        return Ok(());
    };
    let why = lock.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
    Err(Error::new(Code::Conflict, format!("{} is locked{why}", instance.meta.name))
        .hint(format!("`holm unlock {}`", instance.meta.name)))
}
