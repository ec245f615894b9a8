//! Restarts by policy: counted in the status before they happen, and put off ever longer when they come quickly. The
//! delays are those of containers, so both kinds behave alike.

use crate::container::restart::{self, HEALTHY_AFTER, Run};
use jiff::Timestamp;
use model::{
    instance::{Instance, InstanceStatus, Kind, State, step::Sight},
    plan::RestartPolicy,
};
use std::time::Duration;

/// The policy that counts for an instance as a whole. A pod's containers are started again, and counted, by its shim: when
/// the pod has told how it ended they are through with their policies, and starting it anew would count from the
/// beginning. What its shim could not tell (it was killed, or vanished with the host) is made good here.
pub(super) fn policy(instance: &Instance, status: &InstanceStatus) -> RestartPolicy {
    match status.state {
        State::Stopped { code: Some(_), .. } if instance.kind != Kind::Vm => RestartPolicy::No,
        _ => instance.restart,
    }
}

/// Whether a start of what is seen would be one by policy: the boot that is wanted has run and ended by itself.
pub(super) fn is_restart(instance: &Instance, sight: Sight) -> bool {
    matches!(sight, Sight::Stopped { boot, host_rebooted: false, asleep: false, .. } if boot >= instance.boots)
}

/// How long a restart must still wait; zero for the first in a row.
pub(super) fn wait(status: &InstanceStatus, now: Timestamp) -> Duration {
    let Some(last) = status.restarted_at.filter(|_| status.restarts > 0) else {
        return Duration::ZERO;
    };
    let before = status.restarts - 1;
    let quick = Run {
        succeeded: true,
        lasted: Duration::ZERO,
        stop_requested: false,
        renewed: false,
        failures: before,
        restarts: before,
    };
    let delay = restart::delay(RestartPolicy::Always, quick).unwrap_or_default();
    let passed = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    delay.saturating_sub(passed)
}

/// A guest that ran long enough was healthy: its restarts are counted anew.
pub(super) fn forgive(status: &mut InstanceStatus, now: Timestamp) {
    if let State::Running { since } | State::Paused { since } = status.state
        && Duration::try_from(now.duration_since(since)).is_ok_and(|lasted| lasted >= HEALTHY_AFTER)
    {
        status.restarts = 0;
    }
}
