//! Server groups: instances that are to be kept on one host, or on different ones.
//!
//! A hard policy refuses a host; a soft one only prefers another. What decides is where the members are, so the group
//! itself names none: an instance names its group.

use crate::{
    id::{NodeId, ServerGroupId, UserId},
    meta::Meta,
    record::Record,
};
use serde::{Deserialize, Serialize};

/// Most groups of one project.
pub const GROUPS_MAX: u64 = 10;
/// Most instances of one group.
pub const MEMBERS_MAX: usize = 10;

/// A server group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerGroup {
    /// Head.
    pub meta: Meta<ServerGroupId>,
    /// User who made it, where one is known.
    #[serde(default)]
    pub user: Option<UserId>,
    /// How its members are placed.
    pub policy: Policy,
    /// Most members on one host; more than 1 is for [`Policy::AntiAffinity`] alone.
    #[serde(default)]
    pub per_host_max: Option<u32>,
}

/// How members are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// All on one host.
    Affinity,
    /// Each on a host of its own.
    AntiAffinity,
    /// On one host as far as there is room.
    SoftAffinity,
    /// On different hosts as far as there are some.
    SoftAntiAffinity,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Affinity, Self::AntiAffinity, Self::SoftAffinity, Self::SoftAntiAffinity];

    /// Name on every door.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Affinity => "affinity",
            Self::AntiAffinity => "anti-affinity",
            Self::SoftAffinity => "soft-affinity",
            Self::SoftAntiAffinity => "soft-anti-affinity",
        }
    }

    /// Whether only a preference: a host that is not preferred is taken all the same.
    pub fn is_soft(self) -> bool {
        matches!(self, Self::SoftAffinity | Self::SoftAntiAffinity)
    }
}

impl ServerGroup {
    /// Whether `node` may take one more member, while the others are on `hosts`.
    pub fn allows(&self, hosts: &[NodeId], node: NodeId) -> bool {
        let here = hosts.iter().filter(|host| **host == node).count();
        match self.policy {
            Policy::Affinity => here == hosts.len(),
            Policy::AntiAffinity => here < self.per_host_max.unwrap_or(1) as usize,
            Policy::SoftAffinity | Policy::SoftAntiAffinity => true,
        }
    }

    /// How far from what the policy prefers `node` is: the least is tried first.
    pub fn distance(&self, hosts: &[NodeId], node: NodeId) -> usize {
        let here = hosts.iter().filter(|host| **host == node).count();
        match self.policy {
            Policy::Affinity | Policy::SoftAffinity => hosts.len() - here,
            Policy::AntiAffinity | Policy::SoftAntiAffinity => here,
        }
    }
}

impl Record for ServerGroup {
    const TABLE: &'static str = "server_group";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn policies_say_which_hosts_may_take_a_member() {
        let (a, b) = (NodeId::from_random([1; 16]), NodeId::from_random([2; 16]));
        let (id, project) = (ServerGroupId::from_random([3; 16]), crate::id::ProjectId::from_random([4; 16]));
        for (policy, most, hosts, allowed, first) in [
            (Policy::Affinity, None, vec![], (true, true), None),
            (Policy::Affinity, None, vec![a, a], (true, false), Some(a)),
            (Policy::AntiAffinity, None, vec![a], (false, true), Some(b)),
            (Policy::AntiAffinity, Some(2), vec![a], (true, true), Some(b)),
            (Policy::AntiAffinity, Some(2), vec![a, a, b], (false, true), Some(b)),
            (Policy::SoftAffinity, None, vec![a, a, b], (true, true), Some(a)),
            (Policy::SoftAntiAffinity, None, vec![a, a, b], (true, true), Some(b)),
        ] {
            let meta = Meta::new(id, project, "g".parse().unwrap(), Timestamp::UNIX_EPOCH);
            let group = ServerGroup { meta, user: None, policy, per_host_max: most };
            let context = format!("{policy:?} {most:?} {hosts:?}");
            assert_eq!((group.allows(&hosts, a), group.allows(&hosts, b)), allowed, "{context}");
            let nearer = group.distance(&hosts, a).cmp(&group.distance(&hosts, b));
            let wanted = first.map_or(std::cmp::Ordering::Equal, |first| {
                if first == a { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater }
            });
            assert_eq!(nearer, wanted, "{context}");
        }
    }
}
