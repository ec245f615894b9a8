//! When an ended container is started again. Pure: what happened comes in, a delay or nothing comes out.

use model::plan::RestartPolicy;
use std::time::Duration;

/// First delay.
const DELAY_FIRST: Duration = Duration::from_millis(100);
/// Longest delay.
const DELAY_MAX: Duration = Duration::from_secs(60);
/// A container that ran so long was healthy: the count of failures starts anew.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// It ended with code 0.
    pub succeeded: bool,
    /// How long it ran.
    pub lasted: Duration,
    /// Its end was asked for by the user.
    pub stop_requested: bool,
    /// Its end was asked for because it was found to be of no use.
    pub renewed: bool,
    /// Quick ends in a row before this run, each within [`HEALTHY_AFTER`].
    pub failures: u32,
    /// Restarts since the user started it, however long each run lasted.
    pub restarts: u32,
}

/// Restarts in a row, counting this end of a run.
pub fn failures_after(run: Run) -> u32 {
    if run.lasted >= HEALTHY_AFTER { 1 } else { run.failures.saturating_add(1) }
}

/// How long to wait before the next run, or `None` when there is none: 100 ms, doubled with every quick end in a row up
/// to a minute. As docker has it, a healthy time shortens the wait again and does not give back retries.
pub fn delay(policy: RestartPolicy, run: Run) -> Option<Duration> {
    let failures = failures_after(run);
    let again = match policy {
        _ if run.stop_requested => false,
        RestartPolicy::No => false,
        RestartPolicy::OnFailure { retries_max } => {
            !run.succeeded && (retries_max == 0 || run.restarts < retries_max)
        }
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnUnhealthy => !run.succeeded || run.renewed,
    };
    let doublings = (failures - 1).min(16);
    again.then(|| (DELAY_FIRST * 2_u32.pow(doublings)).min(DELAY_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let failed = Run {
            succeeded: false,
            lasted: Duration::ZERO,
            stop_requested: false,
            renewed: false,
            failures: 0,
            restarts: 0,
        };
        let fine = Run { succeeded: true, ..failed };
        let three = RestartPolicy::OnFailure { retries_max: 3 };
        let ms = |ms| Some(Duration::from_millis(ms));
        for (policy, run, wanted) in [
            (RestartPolicy::No, failed, None),
            (RestartPolicy::Always, fine, ms(100)),
            (RestartPolicy::Always, Run { failures: 1, ..fine }, ms(200)),
            (RestartPolicy::Always, Run { failures: 9, ..fine }, ms(51_200)),
            (RestartPolicy::Always, Run { failures: 10, ..fine }, ms(60_000)),
            (RestartPolicy::Always, Run { failures: u32::MAX, ..fine }, ms(60_000)),
            (RestartPolicy::Always, Run { failures: 9, lasted: HEALTHY_AFTER, ..fine }, ms(100)),
            (RestartPolicy::Always, Run { stop_requested: true, ..failed }, None),
            (RestartPolicy::UnlessStopped, Run { stop_requested: true, ..failed }, None),
            (three, fine, None),
            (three, Run { failures: 2, restarts: 2, ..failed }, ms(400)),
            (three, Run { failures: 3, restarts: 3, ..failed }, None),
            (three, Run { restarts: 2, lasted: HEALTHY_AFTER, ..failed }, ms(100)),
            (three, Run { restarts: 3, lasted: HEALTHY_AFTER, ..failed }, None),
            (RestartPolicy::OnUnhealthy, fine, None),
            (RestartPolicy::OnUnhealthy, failed, ms(100)),
            (RestartPolicy::OnUnhealthy, Run { renewed: true, ..fine }, ms(100)),
            (RestartPolicy::OnUnhealthy, Run { renewed: true, stop_requested: true, ..fine }, None),
            (RestartPolicy::OnFailure { retries_max: 0 }, Run { failures: 50, ..failed }, ms(60_000)),
        ] {
            assert_eq!(delay(policy, run), wanted, "{policy:?} {run:?}");
        }
    }
}
