//! How healthy a container is, as its node writes it, and what a probe changes.

use super::{HealthCheck, probe::Purpose};
use crate::{
    id::{InstanceId, NodeId},
    instance::{Instance, InstanceStatus, State},
    record::Record,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Probes of a container that are kept.
pub const PROBES_MAX: usize = 5;
/// Most bytes of a probe's output that are kept.
pub const OUTPUT_BYTES_MAX: usize = 4_096;
/// Exit code of a probe that was killed, or could not be run.
pub const NO_EXIT: i32 = -1;

/// The health of one container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerHealth {
    /// The instance.
    pub instance: InstanceId,
    /// Name of the container in it.
    pub container: String,
    /// What is checked for.
    #[serde(default, skip_serializing_if = "Purpose::is_health")]
    pub purpose: Purpose,
    /// Node that writes this.
    pub node: NodeId,
    /// Start of the run that the rest is about, in milliseconds since 1970.
    pub run_ms: i64,
    /// What is said of it.
    pub health: Health,
}

/// What is said of a run of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// In a word.
    pub word: Word,
    /// Failed probes in a row that count.
    #[serde(default)]
    pub failing_streak: u32,
    /// Successes in a row while more are needed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub passing_streak: u32,
    /// The last probes, oldest first.
    #[serde(default)]
    pub probes: Vec<Probe>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How healthy in a word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// No probe has succeeded yet, and not too many have failed.
    #[default]
    Starting,
    /// The last probe succeeded, or not too many have failed since one did.
    Healthy,
    /// Too many probes failed in a row.
    Unhealthy,
}

impl Word {
    /// Name on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One run of a check's program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Its start.
    pub started_at: Timestamp,
    /// Its end.
    pub ended_at: Timestamp,
    /// 0 for success; [`NO_EXIT`] when it was killed, or could not be run.
    pub exit_code: i32,
    /// The beginning of what it said.
    pub output: String,
}

impl Health {
    /// What is said after a probe of a run that began at `run_ms`.
    #[must_use]
    pub fn after(&self, check: &HealthCheck, run_ms: i64, probe: Probe) -> Self {
        let is_counted = self.word != Word::Starting || !is_start_period(check, run_ms, probe.started_at);
        let passes = self.passing_streak.saturating_add(1);
        let (word, failing_streak, passing_streak) = match probe.exit_code {
            0 if self.word == Word::Healthy || passes >= check.successes => (Word::Healthy, 0, 0),
            0 => (self.word, 0, passes),
            _ if !is_counted => (self.word, self.failing_streak, 0),
            _ => {
                let streak = self.failing_streak.saturating_add(1);
                (if streak >= check.retries { Word::Unhealthy } else { self.word }, streak, 0)
            }
        };
        let mut probes = self.probes.clone();
        probes.push(probe);
        probes.drain(..probes.len().saturating_sub(PROBES_MAX));
        Self { word, failing_streak, passing_streak, probes }
    }

    /// Milliseconds until the next probe.
    pub fn next_probe_ms(&self, check: &HealthCheck, run_ms: i64, now: Timestamp) -> u64 {
        let is_early = self.word == Word::Starting && is_start_period(check, run_ms, now);
        let interval = match check.delay_ms.filter(|_| self.probes.is_empty()) {
            Some(delay_ms) => delay_ms,
            None if is_early => check.start_interval_ms,
            None => check.interval_ms,
        };
        let last = self.probes.last().map_or(run_ms, |probe| probe.ended_at.as_millisecond());
        let passed = u64::try_from(now.as_millisecond() - last).unwrap_or(0);
        interval.saturating_sub(passed)
    }
}

fn is_start_period(check: &HealthCheck, run_ms: i64, at: Timestamp) -> bool {
    u64::try_from(at.as_millisecond() - run_ms).unwrap_or(0) < check.start_period_ms
}

impl ContainerHealth {
    /// The key of a container's record. No name of a container has a slash.
    pub fn key_of(instance: InstanceId, container: &str, purpose: Purpose) -> String {
        match purpose {
            Purpose::Health => format!("{instance}.{container}"),
            other => format!("{instance}.{container}/{}", other.as_str()),
        }
    }

    /// The instance that a key is about.
    pub fn instance_of(key: &str) -> Option<InstanceId> {
        key.split_once('.')?.0.parse().ok()
    }
}

impl Record for ContainerHealth {
    const TABLE: &'static str = "container_health";
    fn key(&self) -> String {
        Self::key_of(self.instance, &self.container, self.purpose)
    }
}

/// Start of the run that a container is in, in milliseconds since 1970; `None` when it does not run.
pub fn run_of(status: &InstanceStatus, container: &str) -> Option<i64> {
    let (State::Running { since } | State::Paused { since }) = &status.state else { return None };
    let Some(all) = status.facts.get("containers").and_then(|all| all.as_array()) else {
        return Some(since.as_millisecond());
    };
    let fact = all.iter().find(|fact| fact["name"] == container)?;
    fact["since_ms"].as_i64()
}

/// What users are told of a container with a check: a run of which nothing was seen yet is starting, and of what runs no
/// more its last run is told.
pub fn told(record: Option<&ContainerHealth>, run_ms: Option<i64>) -> Health {
    let is_of_run = |record: &&ContainerHealth| run_ms.is_none_or(|run_ms| record.run_ms == run_ms);
    record.filter(is_of_run).map(|record| record.health.clone()).unwrap_or_default()
}

/// Whether all that was asked about the readiness of an instance's containers was answered well, in the runs that they are
/// in. Where nothing is asked, it is ready.
pub fn is_ready(
    instance: &Instance,
    status: Option<&InstanceStatus>,
    record: impl Fn(&str) -> Option<ContainerHealth>,
) -> bool {
    let id = instance.meta.id;
    instance.containers.iter().all(|spec| {
        let asked = spec.probes.all().into_iter().map(|(purpose, _)| purpose);
        let mut asked = asked.filter(|purpose| *purpose != Purpose::Liveness).peekable();
        if asked.peek().is_none() && spec.lifecycle.post_start.is_none() {
            return true;
        }
        // A container whose postStart hook has not ended well has no run that anything could be said of.
        let Some(run_ms) = status.and_then(|status| run_of(status, &spec.name)) else { return false };
        asked.all(|purpose| {
            let found = record(&ContainerHealth::key_of(id, &spec.name, purpose));
            told(found.as_ref(), Some(run_ms)).word == Word::Healthy
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::probe::Action;

    const RUN_MS: i64 = 1_800_000_000_000;

    fn check() -> HealthCheck {
        HealthCheck {
            action: Action::Exec { argv: vec!["true".into()] },
            delay_ms: None,
            successes: 1,
            interval_ms: 10_000,
            timeout_ms: 1_000,
            retries: 2,
            start_period_ms: 60_000,
            start_interval_ms: 1_000,
        }
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(RUN_MS + ms).unwrap()
    }

    fn probe(ms: i64, exit_code: i32) -> Probe {
        Probe { started_at: at(ms), ended_at: at(ms + 10), exit_code, output: String::new() }
    }

    fn walk(probes: &[(i64, i32)]) -> Health {
        let step =
            |health: Health, (ms, code): &(i64, i32)| health.after(&check(), RUN_MS, probe(*ms, *code));
        probes.iter().fold(Health::default(), step)
    }

    #[test]
    fn so_many_failures_in_a_row_make_unhealthy() {
        for (probes, word, streak) in [
            (&[][..], Word::Starting, 0),
            (&[(1_000, 1), (2_000, 1), (59_999, 1)], Word::Starting, 0),
            (&[(60_000, 1)], Word::Starting, 1),
            (&[(60_000, 1), (70_000, NO_EXIT)], Word::Unhealthy, 2),
            (&[(1_000, 0)], Word::Healthy, 0),
            (&[(1_000, 0), (2_000, 1)], Word::Healthy, 1),
            (&[(1_000, 0), (2_000, 1), (3_000, 1)], Word::Unhealthy, 2),
            (&[(1_000, 0), (2_000, 1), (3_000, 1), (4_000, 1)], Word::Unhealthy, 3),
            (&[(1_000, 0), (2_000, 1), (3_000, 1), (4_000, 0)], Word::Healthy, 0),
            (&[(1_000, 0), (2_000, 1), (3_000, 0), (4_000, 1)], Word::Healthy, 1),
        ] {
            let health = walk(probes);
            assert_eq!((health.word, health.failing_streak), (word, streak), "{probes:?}");
        }
        let many = walk(&(0..9).map(|n| (n * 1_000, 0)).collect::<Vec<_>>());
        assert_eq!(many.probes.len(), PROBES_MAX);
        assert_eq!(many.probes[0].started_at, at(4_000), "the last ones, oldest first");
    }

    #[test]
    fn probes_are_more_frequent_while_it_starts() {
        for (probes, now, wanted) in [
            (&[][..], 0, 1_000),
            (&[], 400, 600),
            (&[], 5_000, 0),
            (&[(1_000, 1)], 1_010, 1_000),
            (&[(1_000, 0)], 1_010, 10_000),
            (&[(59_500, 1)], 60_000, 9_510),
            (&[(70_000, 1)], 90_000, 0),
        ] {
            assert_eq!(walk(probes).next_probe_ms(&check(), RUN_MS, at(now)), wanted, "{probes:?} {now}");
        }
    }

    #[test]
    fn a_new_run_is_starting_whatever_the_last_one_was() {
        let record = ContainerHealth {
            instance: InstanceId::from_random([1; 16]),
            container: "main".into(),
            purpose: Purpose::Health,
            node: NodeId::from_random([2; 16]),
            run_ms: RUN_MS,
            health: walk(&[(1_000, 0)]),
        };
        for (run, word) in
            [(Some(RUN_MS), Word::Healthy), (Some(RUN_MS + 1), Word::Starting), (None, Word::Healthy)]
        {
            assert_eq!(told(Some(&record), run).word, word, "{run:?}");
        }
        assert_eq!(told(None, None), Health::default());
        for purpose in Purpose::ALL {
            let record = ContainerHealth { purpose, ..record.clone() };
            assert_eq!(ContainerHealth::instance_of(&record.key()), Some(record.instance));
        }
    }

    #[test]
    fn where_several_successes_are_asked_for_they_come_in_a_row() {
        let check = HealthCheck { successes: 2, start_period_ms: 0, delay_ms: Some(300), ..check() };
        assert_eq!(Health::default().next_probe_ms(&check, RUN_MS, at(100)), 200);
        for (codes, word) in [
            (&[0][..], Word::Starting),
            (&[0, 0], Word::Healthy),
            (&[0, 1, 0], Word::Starting),
            (&[0, 0, 1, 0], Word::Healthy),
            (&[0, 0, 1, 1, 0], Word::Unhealthy),
            (&[0, 0, 1, 1, 0, 0], Word::Healthy),
        ] {
            let step = |health: Health, code: &i32| health.after(&check, RUN_MS, probe(1_000, *code));
            let health = codes.iter().fold(Health::default(), step);
            assert_eq!(health.word, word, "{codes:?}");
            assert_eq!(health.next_probe_ms(&check, RUN_MS, at(1_010)), check.interval_ms);
        }
    }
}
