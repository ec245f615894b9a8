//! Health: a program that is run in a container again and again, and what its exit codes say of the container.
//!
//! ```text
//!   start ──▶ starting ──a probe succeeds──▶ healthy ──so many fail in a row──▶ unhealthy
//!                 └──── so many fail in a row, the start period not counted ───────▲ │
//!                                            ▲──────────a probe succeeds────────────┘
//! ```
//! What is asked for, what an image brings along and what is usual are put together here; so is what a probe changes.
//! Running probes is the node's. Those of pods
//! that are asked for more are in [`probe`], and are made by the same means.

pub mod probe;
pub mod status;
pub mod test;

use probe::Action;
use serde::{Deserialize, Serialize};
use test::Test;

/// Between two probes, when nobody says.
pub const INTERVAL_MS_USUAL: u64 = 30_000;
/// Of one probe, when nobody says.
pub const TIMEOUT_MS_USUAL: u64 = 30_000;
/// Failures in a row until a container is unhealthy, when nobody says.
pub const RETRIES_USUAL: u32 = 3;
/// Between two probes in the start period, when nobody says.
pub const START_INTERVAL_MS_USUAL: u64 = 5_000;
/// Least and most of an interval and a timeout in milliseconds: a program is started for each probe.
pub const DURATION_MS: std::ops::RangeInclusive<u64> = 100..=86_400_000;
/// Most of a start period in milliseconds.
pub const START_PERIOD_MS_MAX: u64 = 86_400_000;
/// Least and most failures in a row.
pub const RETRIES: std::ops::RangeInclusive<u32> = 1..=1_000;

/// A check as it is asked for, by a user or by an image. What is missing is the image's, else the usual.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthSpec {
    /// What is run, or that nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Test>,
    /// Milliseconds from the end of a probe to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// Milliseconds that a probe may take; it is killed then, and has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Failures in a row until the container is unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Milliseconds after the start in which failures do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period_ms: Option<u64>,
    /// Instead of the interval while the start period lasts and no probe has succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval_ms: Option<u64>,
}

/// A check with everything said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub action: Action,
    /// Milliseconds from the start to the first probe; an interval when `None`.
    pub delay_ms: Option<u64>,
    /// Milliseconds from the end of a probe to the next.
    pub interval_ms: u64,
    /// Milliseconds that a probe may take.
    pub timeout_ms: u64,
    /// Successes in a row until the container is healthy.
    pub successes: u32,
    /// Failures in a row until the container is unhealthy.
    pub retries: u32,
    /// Milliseconds after the start in which failures do not count.
    pub start_period_ms: u64,
    /// Instead of the interval in that time.
    pub start_interval_ms: u64,
}

/// A value that is out of bounds: its name in [`HealthSpec`], and what is possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} of a health check is {least} to {most}, not {given}")]
pub struct OutOfBounds {
    /// Field.
    pub name: &'static str,
    /// What was asked for.
    pub given: u64,
    /// Least.
    pub least: u64,
    /// Most.
    pub most: u64,
}

impl HealthSpec {
    /// That no check is made, whatever the image says.
    pub fn none() -> Self {
        Self { test: Some(Test::None), ..Self::default() }
    }

    /// Refuses what is out of bounds.
    ///
    /// # Errors
    /// The first such value.
    pub fn check(&self) -> Result<(), OutOfBounds> {
        let (least, most) = (*DURATION_MS.start(), *DURATION_MS.end());
        let retries = self.retries.map(u64::from);
        for (name, given, least, most) in [
            ("interval_ms", self.interval_ms, least, most),
            ("timeout_ms", self.timeout_ms, least, most),
            ("start_interval_ms", self.start_interval_ms, least, most),
            ("start_period_ms", self.start_period_ms, 0, START_PERIOD_MS_MAX),
            ("retries", retries, u64::from(*RETRIES.start()), u64::from(*RETRIES.end())),
        ] {
            if let Some(given) = given.filter(|given| !(least..=most).contains(given)) {
                return Err(OutOfBounds { name, given, least, most });
            }
        }
        Ok(())
    }

    /// The same with each value moved into its bounds: an image cannot be refused for what it says.
    #[must_use]
    pub fn moved_into_bounds(self) -> Self {
        let duration = |ms: Option<u64>| ms.map(|ms| ms.clamp(*DURATION_MS.start(), *DURATION_MS.end()));
        Self {
            interval_ms: duration(self.interval_ms),
            timeout_ms: duration(self.timeout_ms),
            start_interval_ms: duration(self.start_interval_ms),
            start_period_ms: self.start_period_ms.map(|ms| ms.min(START_PERIOD_MS_MAX)),
            retries: self.retries.map(|n| n.clamp(*RETRIES.start(), *RETRIES.end())),
            test: self.test,
        }
    }
}

/// The check of a container: what is asked for, else what its image says, else the usual. `None` when nothing is run.
pub fn resolve(asked: Option<&HealthSpec>, image: Option<&HealthSpec>) -> Option<HealthCheck> {
    let spec = merged(asked, image)?;
    Some(HealthCheck {
        action: Action::Exec { argv: spec.test?.argv()? },
        delay_ms: None,
        successes: 1,
        interval_ms: spec.interval_ms.unwrap_or(INTERVAL_MS_USUAL),
        timeout_ms: spec.timeout_ms.unwrap_or(TIMEOUT_MS_USUAL),
        retries: spec.retries.unwrap_or(RETRIES_USUAL),
        start_period_ms: spec.start_period_ms.unwrap_or(0),
        start_interval_ms: spec.start_interval_ms.unwrap_or(START_INTERVAL_MS_USUAL),
    })
}

/// What is asked for over what an image says, field by field. `None` where neither says anything.
pub fn merged(asked: Option<&HealthSpec>, image: Option<&HealthSpec>) -> Option<HealthSpec> {
    let (asked, image) = match (asked, image) {
        (None, other) => return other.cloned(),
        (Some(asked), None) => return Some(asked.clone()),
        (Some(asked), Some(image)) => (asked.clone(), image.clone()),
    };
    Some(HealthSpec {
        test: asked.test.or(image.test),
        interval_ms: asked.interval_ms.or(image.interval_ms),
        timeout_ms: asked.timeout_ms.or(image.timeout_ms),
        retries: asked.retries.or(image.retries),
        start_period_ms: asked.start_period_ms.or(image.start_period_ms),
        start_interval_ms: asked.start_interval_ms.or(image.start_interval_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str) -> HealthSpec {
        HealthSpec { test: Some(Test::Shell(text.into())), ..HealthSpec::default() }
    }

    fn shell_action(text: &str) -> Action {
        Action::Exec { argv: ["/bin/sh", "-c", text].map(String::from).to_vec() }
    }

    #[test]
    fn what_is_asked_for_stands_over_the_image() {
        let image = HealthSpec { interval_ms: Some(1_000), retries: Some(7), ..shell("image") };
        let own = HealthSpec { retries: Some(2), ..HealthSpec::default() };
        assert_eq!(resolve(None, None), None);
        assert_eq!(resolve(Some(&own), None), None, "nothing says what to run");
        assert_eq!(resolve(Some(&HealthSpec::none()), Some(&image)), None);
        let check = resolve(Some(&own), Some(&image)).unwrap();
        assert_eq!(check.action, shell_action("image"));
        assert_eq!((check.interval_ms, check.retries, check.timeout_ms), (1_000, 2, TIMEOUT_MS_USUAL));
        let check = resolve(Some(&shell("own")), Some(&image)).unwrap();
        assert_eq!((check.action, check.interval_ms, check.retries), (shell_action("own"), 1_000, 7));
        let check = resolve(None, Some(&shell("image"))).unwrap();
        assert_eq!((check.interval_ms, check.retries, check.start_period_ms), (INTERVAL_MS_USUAL, 3, 0));
    }

    #[test]
    fn bounds_are_kept() {
        for (spec, name) in [
            (HealthSpec { interval_ms: Some(99), ..shell("x") }, Some("interval_ms")),
            (HealthSpec { interval_ms: Some(100), ..shell("x") }, None),
            (HealthSpec { timeout_ms: Some(86_400_001), ..shell("x") }, Some("timeout_ms")),
            (HealthSpec { start_interval_ms: Some(0), ..shell("x") }, Some("start_interval_ms")),
            (HealthSpec { start_period_ms: Some(0), ..shell("x") }, None),
            (HealthSpec { start_period_ms: Some(86_400_001), ..shell("x") }, Some("start_period_ms")),
            (HealthSpec { retries: Some(0), ..shell("x") }, Some("retries")),
            (HealthSpec { retries: Some(1_001), ..shell("x") }, Some("retries")),
        ] {
            assert_eq!(spec.check().err().map(|e| e.name), name, "{spec:?}");
            assert_eq!(spec.moved_into_bounds().check(), Ok(()));
        }
    }
}
