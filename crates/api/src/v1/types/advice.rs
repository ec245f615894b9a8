//! What instances use and which size would do, on the wire.

use super::Reference;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What an instance was seen to use, and whether less would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Advice {
    /// The instance.
    pub instance: Reference,
    /// Virtual CPUs that it has.
    pub vcpus: u32,
    /// Memory that it has in MiB.
    pub memory_mib: u64,
    /// Time in seconds of which anything is known, at most a week; nothing from before holm was started last.
    pub measured_s: u64,
    /// Most memory that it used in MiB. Of a VM it is what its guest ever touched and did not give back.
    pub memory_peak_mib: u64,
    /// Most that it used of CPUs over a minute, in thousandths of one.
    pub cpu_peak_millis: u64,
    /// A smaller flavor that would do; missing if none would, or too little is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<Reference>,
}

/// Which advice is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct AdviceQuery {
    /// Of this project, by name or id; `*` for all projects (admin only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Of this instance alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}
