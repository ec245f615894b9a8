//! What a node does next for an instance: one pure function from what is wanted and what is seen.
//!
//! ```text
//!   wanted \ seen   Absent         Stopped(b)            Running(b)              Paused(b)
//!   gone            Forget         Destroy               AskStop..Kill, Destroy  Kill, Destroy
//!   off             Settle         Settle                AskStop..Kill           Kill
//!   on, b = boots   Start          Settle or Start*      Settle                  Resume
//!   on, b < boots   Start          Start                 AskStop..Kill           Kill
//!   paused          Start          Start or Settle*      Pause                   Settle
//!   asleep          Settle         Settle                Suspend                 Suspend
//! ```
//! `*` as the restart policy and the host's boot say. Start always prepares first; preparing twice does nothing. One that
//! sleeps is stopped, with its memory on disk: Start lets that boot go on, and Discard throws the memory away where it is
//! to be off.

use super::Power;
use crate::plan::RestartPolicy;

/// What is wanted of an instance, reduced to what decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// It is to go for good.
    pub gone: bool,
    /// Whether it is meant to run.
    pub power: Power,
    /// It is to be off with its memory kept on disk.
    pub sleeps: bool,
    /// How many boots were asked for.
    pub boots: u64,
    /// The last stop or reboot pulls the plug.
    pub hard: bool,
    /// Start again when the host has started.
    pub autostart: bool,
    /// Start again when it ends by itself.
    pub restart: RestartPolicy,
}

/// What is seen of an instance, reduced to what decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Nothing of it is here.
    Absent,
    /// It ended.
    Stopped {
        /// The boot that ended.
        boot: u64,
        /// It failed.
        failed: bool,
        /// The host has started since it last ran.
        host_rebooted: bool,
        /// Starts after a failure, in a row.
        retries: u32,
        /// Its memory is on disk.
        asleep: bool,
    },
    /// It runs.
    Running {
        /// Which boot it is.
        boot: u64,
        /// It was asked to stop, and its time to do so is or is not over.
        stop: StopProgress,
    },
    /// It is frozen.
    Paused {
        /// Which boot it is.
        boot: u64,
    },
}

/// How far a graceful stop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopProgress {
    /// Nobody asked.
    NotAsked,
    /// Asked, time is left.
    Waiting,
    /// Asked, no time is left.
    Overdue,
}

/// What to do next. Each is safe to do twice and to be cut off by a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Prepare disks, layers and ports, then start the boot that is wanted.
    Start,
    /// Ask the guest to stop.
    AskStop,
    /// Wait for the guest to stop.
    AwaitStop,
    /// Pull the plug.
    Kill,
    /// Freeze.
    Pause,
    /// Let go on.
    Resume,
    /// Put its memory on disk and end it.
    Suspend,
    /// Throw away the memory that is on disk.
    Discard,
    /// Remove all that is on this host.
    Destroy,
    /// Nothing is left: the records may go.
    Forget,
    /// All is as wanted: bring attachments up to date and rest.
    Settle,
}

/// Decides the next step.
pub fn next_step(wanted: Wanted, sight: Sight) -> Step {
    match sight {
        Sight::Absent => absent(wanted),
        Sight::Stopped { boot, asleep: true, .. } => asleep(wanted, boot),
        Sight::Stopped { boot, failed, host_rebooted, retries, asleep: false } => {
            stopped(wanted, boot, failed, host_rebooted, retries)
        }
        Sight::Running { boot, stop } => running(wanted, boot, stop),
        Sight::Paused { boot } => paused(wanted, boot),
    }
}

fn absent(wanted: Wanted) -> Step {
    match (wanted.gone, wanted.power) {
        (true, _) => Step::Forget,
        (false, Power::Off) => Step::Settle,
        (false, Power::On | Power::Paused) => Step::Start,
    }
}

fn stopped(wanted: Wanted, boot: u64, failed: bool, host_rebooted: bool, retries: u32) -> Step {
    if wanted.gone {
        return Step::Destroy;
    }
    if wanted.power == Power::Off {
        return Step::Settle;
    }
    let again = match wanted.restart {
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnFailure { retries_max } => failed && (retries_max == 0 || retries < retries_max),
        RestartPolicy::OnUnhealthy => failed,
        RestartPolicy::No => false,
    };
    if boot < wanted.boots || again || (host_rebooted && wanted.autostart) {
        Step::Start
    } else {
        Step::Settle
    }
}

/// Nothing but a start wakes it: no policy and no start of the host.
fn asleep(wanted: Wanted, boot: u64) -> Step {
    match (wanted.gone, wanted.power) {
        (true, _) => Step::Destroy,
        (false, Power::Off) if wanted.sleeps && boot >= wanted.boots => Step::Settle,
        (false, Power::Off) => Step::Discard,
        (false, Power::On | Power::Paused) => Step::Start,
    }
}

/// Whether a guest that is here is to be put to sleep instead of being ended.
fn falls_asleep(wanted: Wanted, boot: u64) -> bool {
    !wanted.gone && wanted.power == Power::Off && wanted.sleeps && boot >= wanted.boots
}

fn running(wanted: Wanted, boot: u64, stop: StopProgress) -> Step {
    if falls_asleep(wanted, boot) {
        return Step::Suspend;
    }
    let must_stop = wanted.gone || wanted.power == Power::Off || boot < wanted.boots;
    if !must_stop {
        return if wanted.power == Power::Paused { Step::Pause } else { Step::Settle };
    }
    match (wanted.gone || wanted.hard, stop) {
        (true, _) | (false, StopProgress::Overdue) => Step::Kill,
        (false, StopProgress::NotAsked) => Step::AskStop,
        (false, StopProgress::Waiting) => Step::AwaitStop,
    }
}

fn paused(wanted: Wanted, boot: u64) -> Step {
    if falls_asleep(wanted, boot) {
        return Step::Suspend;
    }
    if wanted.gone || wanted.power == Power::Off || boot < wanted.boots {
        return Step::Kill;
    }
    if wanted.power == Power::Paused { Step::Settle } else { Step::Resume }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_wanted() -> Vec<Wanted> {
        let mut all = vec![];
        for gone in [false, true] {
            for power in [Power::On, Power::Off, Power::Paused] {
                for boots in [1, 2] {
                    for hard in [false, true] {
                        for autostart in [false, true] {
                            for restart in [
                                RestartPolicy::No,
                                RestartPolicy::Always,
                                RestartPolicy::UnlessStopped,
                                RestartPolicy::OnFailure { retries_max: 0 },
                                RestartPolicy::OnFailure { retries_max: 2 },
                            ] {
                                for sleeps in [false, true] {
                                    all.push(Wanted { gone, power, sleeps, boots, hard, autostart, restart });
                                }
                            }
                        }
                    }
                }
            }
        }
        all
    }

    fn every_sight() -> Vec<Sight> {
        let mut all = vec![Sight::Absent];
        for boot in [1, 2] {
            for failed in [false, true] {
                for host_rebooted in [false, true] {
                    for (retries, asleep) in [(0, false), (2, false), (0, true)] {
                        all.push(Sight::Stopped { boot, failed, host_rebooted, retries, asleep });
                    }
                }
            }
            for stop in [StopProgress::NotAsked, StopProgress::Waiting, StopProgress::Overdue] {
                all.push(Sight::Running { boot, stop });
            }
            all.push(Sight::Paused { boot });
        }
        all
    }

    /// A world that obeys: what is seen after a step was carried out.
    fn obey(wanted: Wanted, sight: Sight, step: Step) -> Sight {
        let boot_of = |s: Sight| match s {
            Sight::Absent => 0,
            Sight::Stopped { boot, .. } | Sight::Running { boot, .. } | Sight::Paused { boot } => boot,
        };
        let stopped =
            |boot, asleep| Sight::Stopped { boot, failed: false, host_rebooted: false, retries: 0, asleep };
        match step {
            Step::Start => Sight::Running { boot: wanted.boots, stop: StopProgress::NotAsked },
            Step::AskStop => Sight::Running { boot: boot_of(sight), stop: StopProgress::Waiting },
            Step::AwaitStop => Sight::Running { boot: boot_of(sight), stop: StopProgress::Overdue },
            Step::Kill | Step::Discard => stopped(boot_of(sight), false),
            Step::Suspend => stopped(boot_of(sight), true),
            Step::Pause => Sight::Paused { boot: boot_of(sight) },
            Step::Resume => Sight::Running { boot: boot_of(sight), stop: StopProgress::NotAsked },
            Step::Destroy => Sight::Absent,
            Step::Forget | Step::Settle => sight,
        }
    }

    #[test]
    fn from_every_sight_every_wish_is_reached_and_rests() {
        for wanted in every_wanted() {
            for start in every_sight() {
                let mut sight = start;
                let mut steps = vec![];
                loop {
                    let step = next_step(wanted, sight);
                    assert_eq!(step, next_step(wanted, sight));
                    steps.push(step);
                    assert!(steps.len() < 8, "{wanted:?} from {start:?} never rests: {steps:?}");
                    if matches!(step, Step::Settle | Step::Forget) {
                        break;
                    }
                    sight = obey(wanted, sight, step);
                }
                check_rest(wanted, start, sight, &steps);
            }
        }
    }

    fn check_rest(wanted: Wanted, start: Sight, end: Sight, steps: &[Step]) {
        let context = format!("{wanted:?} from {start:?} by {steps:?} to {end:?}");
        match (wanted.gone, wanted.power) {
            (true, _) => assert_eq!(end, Sight::Absent, "{context}"),
            (false, Power::Off) => {
                assert!(!matches!(end, Sight::Running { .. } | Sight::Paused { .. }), "{context}");
                assert!(!steps.contains(&Step::Start), "{context}");
                let is_asleep = matches!(end, Sight::Stopped { asleep: true, .. });
                assert!(!is_asleep || wanted.sleeps, "{context}");
                assert!(!steps.contains(&Step::Suspend) || is_asleep, "{context}");
            }
            (false, Power::On) => match end {
                Sight::Running { boot, .. } => assert!(boot >= wanted.boots, "{context}"),
                Sight::Stopped { boot, asleep: false, .. } => {
                    assert_eq!(boot, wanted.boots.max(boot), "{context}");
                }
                other => panic!("rests {other:?}: {context}"),
            },
            (false, Power::Paused) => {
                assert!(matches!(end, Sight::Paused { .. } | Sight::Stopped { .. }), "{context}");
            }
        }
    }

    #[test]
    fn a_running_guest_is_left_alone_unless_told() {
        for wanted in every_wanted() {
            if !wanted.gone && wanted.power == Power::On {
                let same = Sight::Running { boot: wanted.boots, stop: StopProgress::NotAsked };
                assert_eq!(next_step(wanted, same), Step::Settle, "{wanted:?}");
            }
        }
    }
}
