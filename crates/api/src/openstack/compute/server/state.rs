//! From a phase to the words that Nova has for it: status, vm_state, task_state and power_state.

use crate::openstack::{Fault, Result};
use model::instance::{Instance, InstanceStatus, phase::Phase};
use std::fmt::Display;

/// What Nova tells of where a server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// `ACTIVE`, `BUILD`, …
    pub status: &'static str,
    /// `active`, `building`, …
    pub vm_state: &'static str,
    /// What is being done; `None` when nothing.
    pub task: Option<&'static str>,
    /// 0 none, 1 running, 3 paused, 4 shut down (`nova.objects.fields.InstancePowerState`).
    pub power: u8,
}

const fn state(status: &'static str, vm_state: &'static str, task: Option<&'static str>, power: u8) -> State {
    State { status, vm_state, task, power }
}

impl State {
    /// The state of an instance in this phase.
    pub fn of(instance: &Instance, phase: Phase, status: Option<&InstanceStatus>) -> Self {
        let on_trial = instance.trial.is_some();
        let rescue = Self::in_rescue(instance, phase, status);
        if let Some(state) = rescue.or_else(|| Self::out_of_rescue(instance, phase, status)) {
            return state;
        }
        match phase {
            Phase::Scheduling => state("BUILD", "building", Some("scheduling"), 0),
            Phase::Creating => state("BUILD", "building", Some("spawning"), 0),
            Phase::Starting => state("SHUTOFF", "stopped", Some("powering-on"), 4),
            Phase::Running if on_trial => state("VERIFY_RESIZE", "resized", None, 1),
            Phase::Running => state("ACTIVE", "active", None, 1),
            Phase::Pausing => state("ACTIVE", "active", Some("pausing"), 1),
            Phase::Paused => state("PAUSED", "paused", None, 3),
            Phase::Resuming if status.is_some_and(|s| s.asleep) => {
                state("SUSPENDED", "suspended", Some("resuming"), 4)
            }
            Phase::Resuming => state("PAUSED", "paused", Some("unpausing"), 3),
            Phase::Suspending => state("ACTIVE", "active", Some("suspending"), 1),
            Phase::Suspended => state("SUSPENDED", "suspended", None, 4),
            Phase::Stopping if instance.shelved => state("ACTIVE", "active", Some("shelving"), 1),
            Phase::Stopping => state("ACTIVE", "active", Some("powering-off"), 1),
            Phase::Rebooting if instance.hard => state("HARD_REBOOT", "active", Some("rebooting_hard"), 1),
            Phase::Rebooting => state("REBOOT", "active", Some("rebooting"), 1),
            Phase::Rebuilding => state("REBUILD", "active", Some("rebuilding"), 1),
            Phase::Resizing => state("RESIZE", "active", Some("resize_migrating"), 1),
            Phase::Stopped if on_trial => state("VERIFY_RESIZE", "resized", None, 4),
            Phase::Stopped | Phase::Exited if instance.shelved => {
                state("SHELVED_OFFLOADED", "shelved_offloaded", None, 4)
            }
            Phase::Stopped | Phase::Exited => state("SHUTOFF", "stopped", None, 4),
            Phase::Failed => state("ERROR", "error", None, 0),
            Phase::Deleting => state(Self::before_end(status), "active", Some("deleting"), 1),
        }
    }

    /// Where a server is that boots from another disk, unless it is as with any other.
    fn in_rescue(instance: &Instance, phase: Phase, status: Option<&InstanceStatus>) -> Option<Self> {
        let rescue = instance.rescue.as_ref()?;
        let is_coming = status.is_none_or(|status| status.boot < rescue.boot);
        Some(match phase {
            Phase::Rebooting if is_coming => state("ACTIVE", "active", Some("rescuing"), 1),
            Phase::Starting if is_coming => state("SHUTOFF", "stopped", Some("rescuing"), 4),
            Phase::Running => state("RESCUE", "rescued", None, 1),
            Phase::Stopped | Phase::Exited => state("RESCUE", "rescued", None, 4),
            _ => return None,
        })
    }

    /// Where a server is that goes back to its own disk: in rescue, until the guest has come so far.
    fn out_of_rescue(instance: &Instance, phase: Phase, status: Option<&InstanceStatus>) -> Option<Self> {
        let first = instance.unrescued.filter(|_| instance.rescue.is_none())?;
        let is_leaving = status.is_none_or(|status| status.boot < first);
        match phase {
            Phase::Rebooting if is_leaving => Some(state("RESCUE", "rescued", Some("unrescuing"), 1)),
            Phase::Starting if is_leaving => Some(state("RESCUE", "rescued", Some("unrescuing"), 4)),
            _ => None,
        }
    }

    /// Refuses an action on the server `id` in another state than one of `states`, or while something else is being
    /// done.
    ///
    /// # Errors
    /// 409, with the state.
    pub fn require(&self, id: impl Display, action: &str, states: &[&str]) -> Result<()> {
        let refuse = |what: &str, word: &str| {
            Err(Fault::conflict(format!("Cannot '{action}' instance {id} while it is in {what} {word}")))
        };
        if !states.contains(&self.vm_state) {
            return refuse("vm_state", self.vm_state);
        }
        match self.task {
            Some(task) => refuse("task_state", task),
            None => Ok(()),
        }
    }

    /// A server that goes keeps the status that it had.
    fn before_end(status: Option<&InstanceStatus>) -> &'static str {
        match status.map(|status| &status.state) {
            None | Some(model::instance::State::Absent) => "BUILD",
            Some(model::instance::State::Running { .. }) => "ACTIVE",
            Some(model::instance::State::Paused { .. }) => "PAUSED",
            Some(model::instance::State::Stopped { .. }) => "SHUTOFF",
        }
    }

    /// Whether Nova tells the progress in this status.
    pub fn has_progress(&self) -> bool {
        matches!(self.status, "ACTIVE" | "BUILD" | "REBUILD" | "RESIZE" | "VERIFY_RESIZE" | "MIGRATING")
    }
}

/// Whether Nova knows a status by this word, in any case.
pub fn is_status(word: &str) -> bool {
    const WORDS: [&str; 20] = [
        "ACTIVE",
        "BUILD",
        "DELETED",
        "ERROR",
        "HARD_REBOOT",
        "MIGRATING",
        "PASSWORD",
        "PAUSED",
        "REBOOT",
        "REBUILD",
        "RESCUE",
        "RESIZE",
        "REVERT_RESIZE",
        "SHELVED",
        "SHELVED_OFFLOADED",
        "SHUTOFF",
        "SOFT_DELETED",
        "SUSPENDED",
        "UNKNOWN",
        "VERIFY_RESIZE",
    ];
    WORDS.iter().any(|known| known.eq_ignore_ascii_case(word))
}
