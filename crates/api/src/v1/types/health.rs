//! Health of containers on the wire.

use jiff::Timestamp;
use model::health::{HealthSpec, status, test::Test};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a container's health is checked: a program that runs in it again and again and whose exit code 0 is success. What
/// is missing is as its image says, else as usual.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthRequest {
    /// `["CMD", program, argument…]`, `["CMD-SHELL", text]`, or `["NONE"]` for no check whatever the image says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub test: Option<Test>,
    /// Milliseconds from the end of a probe to the next, 100 to 86400000; 30000 is usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// Milliseconds after which a probe is killed and has failed, 100 to 86400000; 30000 is usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Failures in a row until it is unhealthy, 1 to 1000; 3 is usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Milliseconds after its start in which failures do not count, at most 86400000; 0 is usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period_ms: Option<u64>,
    /// Instead of the interval in that time, until a probe succeeds; 5000 is usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval_ms: Option<u64>,
}

impl HealthRequest {
    /// The same for the cloud.
    pub fn spec(&self) -> HealthSpec {
        HealthSpec {
            test: self.test.clone(),
            interval_ms: self.interval_ms,
            timeout_ms: self.timeout_ms,
            retries: self.retries,
            start_period_ms: self.start_period_ms,
            start_interval_ms: self.start_interval_ms,
        }
    }
}

impl From<HealthSpec> for HealthRequest {
    fn from(spec: HealthSpec) -> Self {
        Self {
            test: spec.test,
            interval_ms: spec.interval_ms,
            timeout_ms: spec.timeout_ms,
            retries: spec.retries,
            start_period_ms: spec.start_period_ms,
            start_interval_ms: spec.start_interval_ms,
        }
    }
}

/// How healthy a container is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failed probes in a row that count.
    pub failing_streak: u32,
    /// The last probes, at most five, oldest first.
    pub probes: Vec<Probe>,
}

/// One run of a check's program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Probe {
    /// Its start.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// Its end.
    #[schema(value_type = String, format = DateTime)]
    pub ended_at: Timestamp,
    /// 0 for success; -1 when it was killed or could not be run.
    pub exit_code: i32,
    /// What it said, at most 4096 bytes.
    pub output: String,
}

impl From<status::Health> for Health {
    fn from(health: status::Health) -> Self {
        let probe = |probe: status::Probe| Probe {
            started_at: probe.started_at,
            ended_at: probe.ended_at,
            exit_code: probe.exit_code,
            output: probe.output,
        };
        Self {
            status: health.word.as_str().to_string(),
            failing_streak: health.failing_streak,
            probes: health.probes.into_iter().map(probe).collect(),
        }
    }
}
