//! What users see of an instance: a pure function of the wish and of what was seen.

use super::{Instance, InstanceStatus, Power, State};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Phase of an instance's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// No host was chosen yet.
    Scheduling,
    /// Its first start is being prepared.
    Creating,
    /// It is being started.
    Starting,
    /// It runs.
    Running,
    /// It is being frozen.
    Pausing,
    /// It is frozen. With a fault it waits for what that tells, and goes on by itself.
    Paused,
    /// It is being let go on.
    Resuming,
    /// Its memory is being put on disk.
    Suspending,
    /// It sleeps: it does not run, and its memory is on disk.
    Suspended,
    /// It was asked to stop.
    Stopping,
    /// It will stop and start again.
    Rebooting,
    /// It will stop and start again on new disks.
    Rebuilding,
    /// It will stop and start again with another size.
    Resizing,
    /// It does not run, as wanted.
    Stopped,
    /// It ended by itself.
    Exited,
    /// It cannot be brought where it is wanted; the fault says why. holm goes on trying.
    Failed,
    /// It is going.
    Deleting,
}

impl Phase {
    /// Name on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduling => "scheduling",
            Self::Creating => "creating",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Resuming => "resuming",
            Self::Suspending => "suspending",
            Self::Suspended => "suspended",
            Self::Stopping => "stopping",
            Self::Rebooting => "rebooting",
            Self::Rebuilding => "rebuilding",
            Self::Resizing => "resizing",
            Self::Stopped => "stopped",
            Self::Exited => "exited",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        }
    }

    /// Nothing more happens by itself.
    pub fn is_settled(self) -> bool {
        use Phase::{Exited, Failed, Paused, Running, Stopped, Suspended};
        matches!(self, Running | Paused | Suspended | Stopped | Exited | Failed)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Computes the phase.
pub fn phase(instance: &Instance, status: Option<&InstanceStatus>) -> Phase {
    if instance.meta.is_deleting() {
        return Phase::Deleting;
    }
    let Some(status) = status else {
        return match (instance.node, instance.power) {
            (None, _) => Phase::Scheduling,
            (Some(_), Power::Off) => Phase::Stopped,
            (Some(_), _) => Phase::Creating,
        };
    };
    let on = instance.power != Power::Off;
    let behind = status.boot < instance.boots;
    match &status.state {
        State::Absent if !on => Phase::Stopped,
        State::Stopped { .. } if !on => match (status.asleep, instance.suspended) {
            (true, true) => Phase::Suspended,
            // Its memory is being thrown away.
            (true, false) => Phase::Stopping,
            (false, _) => Phase::Stopped,
        },
        State::Absent | State::Stopped { .. } if status.fault_of(instance).is_some() => Phase::Failed,
        State::Absent | State::Stopped { .. } if behind && status.boot < instance.rebuilt => {
            Phase::Rebuilding
        }
        State::Absent | State::Stopped { .. } if behind && is_resizing(instance, status) => Phase::Resizing,
        State::Absent => Phase::Creating,
        State::Stopped { .. } if behind => Phase::Starting,
        State::Stopped { .. } if status.asleep => Phase::Resuming,
        State::Stopped { .. } => Phase::Exited,
        State::Running { .. } | State::Paused { .. } if !on && instance.suspended => Phase::Suspending,
        State::Running { .. } | State::Paused { .. } if !on => Phase::Stopping,
        State::Running { .. } | State::Paused { .. } if behind => restart_word(instance, status),
        State::Running { .. } if instance.power == Power::Paused => Phase::Pausing,
        State::Running { .. } => Phase::Running,
        // It waits for something, which the fault tells, and goes on by itself.
        State::Paused { .. } if status.fault_of(instance).is_some() => Phase::Paused,
        State::Paused { .. } if instance.power == Power::On => Phase::Resuming,
        State::Paused { .. } => Phase::Paused,
    }
}

/// Why an instance that runs is to be started anew.
fn restart_word(instance: &Instance, status: &InstanceStatus) -> Phase {
    if status.boot < instance.rebuilt {
        Phase::Rebuilding
    } else if is_resizing(instance, status) {
        Phase::Resizing
    } else {
        Phase::Rebooting
    }
}

/// Whether the first boot of a size on trial is still to come.
fn is_resizing(instance: &Instance, status: &InstanceStatus) -> bool {
    instance.trial.as_ref().is_some_and(|trial| status.boot < trial.boot)
}
