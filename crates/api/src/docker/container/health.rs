//! Health checks and what came of them, as docker has them: durations are nanoseconds, and 0 leaves a value to the image.

use super::host_config::refuse_rest;
use crate::error::{Failure, Result};
use model::{
    error::Code,
    health::{
        HealthSpec,
        status::{Health, Word},
        test::Test,
    },
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

const NANOS_PER_MS: u64 = 1_000_000;

/// A check as a client asks for it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    test: Option<Vec<String>>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    start_interval: i64,
    retries: i64,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Healthcheck {
    /// The same for the cloud; `None` where nothing is asked for.
    ///
    /// # Errors
    /// `invalid`.
    pub fn spec(&self) -> Result<Option<HealthSpec>> {
        refuse_rest(&self.rest, "Healthcheck.")?;
        let wrong =
            |what: &str| Failure::new(Code::Invalid, format!("{what} in Healthcheck cannot be negative"));
        let ms = |what: &str, nanos: i64| match u64::try_from(nanos) {
            Err(_) => Err(wrong(what)),
            Ok(0) => Ok(None),
            // Less than a millisecond is not taken for nothing: the cloud says what is possible.
            Ok(nanos) => Ok(Some(nanos.div_ceil(NANOS_PER_MS))),
        };
        let test = match self.test.clone().filter(|words| !words.is_empty()) {
            Some(words) => {
                let test = Test::try_from(words);
                Some(test.map_err(|e| Failure::new(Code::Invalid, format!("invalid Healthcheck.Test: {e}")))?)
            }
            None => None,
        };
        let retries = u32::try_from(self.retries).map_err(|_| wrong("Retries"))?;
        let spec = HealthSpec {
            test,
            interval_ms: ms("Interval", self.interval)?,
            timeout_ms: ms("Timeout", self.timeout)?,
            retries: Some(retries).filter(|n| *n > 0),
            start_period_ms: ms("StartPeriod", self.start_period)?,
            start_interval_ms: ms("StartInterval", self.start_interval)?,
        };
        Ok(Some(spec).filter(|spec| *spec != HealthSpec::default()))
    }
}

/// A check as clients see it.
pub fn check_view(spec: &HealthSpec) -> Value {
    let mut view = Map::new();
    if let Some(test) = spec.test.clone() {
        view.insert("Test".into(), json!(Vec::<String>::from(test)));
    }
    for (name, ms) in [
        ("Interval", spec.interval_ms),
        ("Timeout", spec.timeout_ms),
        ("StartPeriod", spec.start_period_ms),
        ("StartInterval", spec.start_interval_ms),
    ] {
        if let Some(ms) = ms {
            view.insert(name.into(), json!(ms * NANOS_PER_MS));
        }
    }
    if let Some(retries) = spec.retries {
        view.insert("Retries".into(), json!(retries));
    }
    view.into()
}

/// `State.Health`.
pub fn view(health: &Health) -> Value {
    let log: Vec<Value> = health
        .probes
        .iter()
        .map(|probe| {
            json!({
                "Start": probe.started_at.to_string(),
                "End": probe.ended_at.to_string(),
                "ExitCode": probe.exit_code,
                "Output": probe.output,
            })
        })
        .collect();
    json!({ "Status": health.word.as_str(), "FailingStreak": health.failing_streak, "Log": log })
}

/// What stands behind `Up 5 minutes`.
pub fn in_brackets(word: Word) -> &'static str {
    match word {
        Word::Starting => "health: starting",
        Word::Healthy => "healthy",
        Word::Unhealthy => "unhealthy",
    }
}

/// The event that tells of it. A container that begins anew is told of by its start.
pub fn event(word: Word) -> Option<&'static str> {
    match word {
        Word::Starting => None,
        Word::Healthy => Some("health_status: healthy"),
        Word::Unhealthy => Some("health_status: unhealthy"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<Option<HealthSpec>> {
        serde_json::from_value::<Healthcheck>(value).expect("a check").spec()
    }

    #[test]
    fn checks_are_read_and_shown_in_nanoseconds() {
        assert_eq!(read(json!({})).unwrap(), None);
        assert_eq!(read(json!({"Test": [], "Interval": 0, "Retries": 0})).unwrap(), None);
        assert_eq!(read(json!({"Test": ["NONE"]})).unwrap(), Some(HealthSpec::none()));
        let asked = json!({
            "Test": ["CMD-SHELL", "true"], "Interval": 2_000_000_000_i64, "Timeout": 500_000_000,
            "StartPeriod": 1_000_000_000, "StartInterval": 250_000_000, "Retries": 4,
        });
        let spec = read(asked.clone()).unwrap().unwrap();
        assert_eq!((spec.interval_ms, spec.timeout_ms, spec.retries), (Some(2_000), Some(500), Some(4)));
        assert_eq!(check_view(&spec), asked);
        assert_eq!(read(json!({"Interval": 1})).unwrap().unwrap().interval_ms, Some(1));
        for bad in [
            json!({"Test": ["what", "is"]}),
            json!({"Test": ["CMD"]}),
            json!({"Interval": -1}),
            json!({"Retries": -1}),
            json!({"Other": 1}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
