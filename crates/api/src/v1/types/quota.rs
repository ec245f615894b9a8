//! Quotas on the wire.

use super::Reference;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// How much a project may have, and how much it has. Keys are `instances`, `vcpus`, `memory_mib`, `volumes`,
/// `volume_gib`, `snapshots`, `backups`, `networks`, `subnets`, `routers`, `ports`, `floating_ips`, `security_groups`,
/// `security_group_rules`, `keypairs`, `images` and `template_kib`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Quota {
    /// The project.
    pub project: Reference,
    /// By resource.
    pub resources: BTreeMap<String, ResourceQuota>,
}

/// Limit and use of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResourceQuota {
    /// Most that the project may have; `null` is no limit.
    pub limit: Option<u64>,
    /// What it has.
    pub used: u64,
    /// The limit is the default one.
    pub is_default: bool,
}

/// Limits and use of all projects that the caller may see, and what the hosts have for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Quotas {
    /// Of each project.
    pub items: Vec<Quota>,
    /// Of all of these together, by resource.
    pub total: BTreeMap<String, TotalQuota>,
    /// What all hosts together have, by resource: `vcpus` are their CPUs, `memory_mib` and `volume_gib`. Limits may
    /// promise more.
    pub capacity: BTreeMap<String, u64>,
}

/// Limits and use of one resource, added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TotalQuota {
    /// Most that they may have together; `null` if one of them has no limit.
    pub limit: Option<u64>,
    /// What they have.
    pub used: u64,
}

/// Limits to set. Resources that are not named keep their limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateQuota {
    /// By resource: a number, `null` for no limit.
    #[serde(default)]
    pub limits: BTreeMap<String, Option<u64>>,
    /// Resources whose limits go back to the default.
    #[serde(default)]
    pub reset: Vec<String>,
}
