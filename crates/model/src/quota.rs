//! Quotas: how much a project may have, and how much it has.

use crate::id::ProjectId;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Instances of every kind.
    Instances,
    /// Virtual CPUs of all instances.
    Vcpus,
    /// Memory of all instances in MiB.
    MemoryMib,
    /// Volumes, root disks included.
    Volumes,
    /// Size of all volumes in GiB.
    VolumeGib,
    /// Volume snapshots.
    Snapshots,
    /// Backups.
    Backups,
    /// Networks.
    Networks,
    /// Subnets.
    Subnets,
    /// Routers.
    Routers,
    /// Ports.
    Ports,
    /// Floating IPs.
    FloatingIps,
    /// Security groups.
    SecurityGroups,
    /// Rules of all security groups.
    SecurityGroupRules,
    /// SSH keys.
    Keypairs,
    /// Private images.
    Images,
    /// Size of what copies of deployments are made of, in KiB, files and secrets included.
    TemplateKib,
}

impl Resource {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 17] = [
        Self::Instances,
        Self::Vcpus,
        Self::MemoryMib,
        Self::Volumes,
        Self::VolumeGib,
        Self::Snapshots,
        Self::Backups,
        Self::Networks,
        Self::Subnets,
        Self::Routers,
        Self::Ports,
        Self::FloatingIps,
        Self::SecurityGroups,
        Self::SecurityGroupRules,
        Self::Keypairs,
        Self::Images,
        Self::TemplateKib,
    ];

    /// Name on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instances => "instances",
            Self::Vcpus => "vcpus",
            Self::MemoryMib => "memory_mib",
            Self::Volumes => "volumes",
            Self::VolumeGib => "volume_gib",
            Self::Snapshots => "snapshots",
            Self::Backups => "backups",
            Self::Networks => "networks",
            Self::Subnets => "subnets",
            Self::Routers => "routers",
            Self::Ports => "ports",
            Self::FloatingIps => "floating_ips",
            Self::SecurityGroups => "security_groups",
            Self::SecurityGroupRules => "security_group_rules",
            Self::Keypairs => "keypairs",
            Self::Images => "images",
            Self::TemplateKib => "template_kib",
        }
    }

    /// The limit of a project that has none of its own; `None` is no limit.
    pub fn default_limit(self) -> Option<u64> {
        Some(match self {
            Self::Instances => 50,
            Self::Vcpus => 100,
            Self::MemoryMib => 204_800,
            Self::Volumes => 100,
            Self::VolumeGib => 4_000,
            Self::Snapshots
            | Self::Backups
            | Self::Networks
            | Self::Subnets
            | Self::Keypairs
            | Self::Images => 100,
            Self::Routers => 10,
            Self::Ports => 500,
            Self::FloatingIps => 50,
            Self::SecurityGroups => 100,
            Self::SecurityGroupRules => 1_000,
            Self::TemplateKib => 32 * 1024,
        })
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names nothing that is counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a quota; the quotas are instances, vcpus, memory_mib, volumes, volume_gib, snapshots, backups, networks, subnets, routers, ports, floating_ips, security_groups, security_group_rules, keypairs, images and template_kib"
)]
pub struct ResourceError(pub String);

impl FromStr for Resource {
    type Err = ResourceError;
    fn from_str(text: &str) -> Result<Self, ResourceError> {
        let name = text.replace('-', "_");
        Self::ALL.into_iter().find(|r| r.as_str() == name).ok_or_else(|| ResourceError(text.to_string()))
    }
}

/// Limits that differ from the defaults. A value of `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Limits(pub BTreeMap<Resource, Option<u64>>);

impl Limits {
    /// The limit in force; `None` is no limit.
    pub fn of(&self, resource: Resource) -> Option<u64> {
        self.0.get(&resource).copied().unwrap_or_else(|| resource.default_limit())
    }
}

/// How much a project has, as its counters say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The project.
    pub project: ProjectId,
    /// Counts; what is missing is zero.
    #[serde(default)]
    pub used: BTreeMap<Resource, u64>,
}

/// A change of counts.
pub type Change = BTreeMap<Resource, i64>;

/// A limit that a request would exceed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quota of {resource} exceeded: {asked} asked for, {used} of {limit} in use")]
pub struct Exceeded {
    /// Which.
    pub resource: Resource,
    /// Most that is allowed.
    pub limit: u64,
    /// In use now.
    pub used: u64,
    /// More that was asked for.
    pub asked: u64,
}

impl Usage {
    /// Nothing in use.
    pub fn empty(project: ProjectId) -> Self {
        Self { project, used: BTreeMap::new() }
    }

    /// How much of `resource` is in use.
    pub fn of(&self, resource: Resource) -> u64 {
        self.used.get(&resource).copied().unwrap_or(0)
    }

    /// The counts after `change`. What shrinks or stays is always allowed.
    ///
    /// # Errors
    /// The first limit that would be exceeded.
    pub fn apply(&self, change: &Change, limits: &Limits) -> Result<Self, Exceeded> {
        let mut next = self.clone();
        for (&resource, &delta) in change {
            let used = self.of(resource);
            let wanted = used.saturating_add_signed(delta);
            if let (true, Some(limit)) = (delta > 0, limits.of(resource))
                && wanted > limit
            {
                return Err(Exceeded { resource, limit, used, asked: delta.unsigned_abs() });
            }
            next.used.insert(resource, wanted);
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_and_shrinking_is_free() {
        let usage = Usage::empty(ProjectId::from_random([1; 16]));
        let limits = Limits(BTreeMap::from([(Resource::Instances, Some(2)), (Resource::Vcpus, None)]));
        let two =
            usage.apply(&Change::from([(Resource::Instances, 2), (Resource::Vcpus, 9999)]), &limits).unwrap();
        let refused = two.apply(&Change::from([(Resource::Instances, 1)]), &limits).unwrap_err();
        assert_eq!((refused.limit, refused.used, refused.asked), (2, 2, 1));
        let none = two.apply(
            &Change::from([(Resource::Instances, -2)]),
            &Limits(BTreeMap::from([(Resource::Instances, Some(0))])),
        );
        assert_eq!(none.unwrap().of(Resource::Instances), 0);
    }
}
