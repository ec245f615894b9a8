//! Roles: what one may do. Each cloud has four that imply one another, and may have others that mean something to its
//! users alone.
//!
//! ```text
//!   admin -> manager -> member -> reader
//! ```

use crate::{
    id::{DomainId, RoleId},
    name::Name,
    record::Record,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Runs the cloud, or all of a domain's business.
pub const ADMIN: &str = "admin";
/// Gives roles to others in its domain or project.
pub const MANAGER: &str = "manager";
/// Makes, changes and removes.
pub const MEMBER: &str = "member";
/// Looks.
pub const READER: &str = "reader";

/// The roles of every cloud, each with the one that it implies.
pub const DEFAULT_ROLES: [(&str, Option<&str>); 4] =
    [(READER, None), (MEMBER, Some(READER)), (MANAGER, Some(MEMBER)), (ADMIN, Some(MANAGER))];

/// What one may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Identity.
    pub id: RoleId,
    /// Unique in the cloud, or in the role's domain.
    pub name: Name,
    /// Domain in which alone it can be given; none for those of the whole cloud.
    #[serde(default)]
    pub domain: Option<DomainId>,
    /// Free text.
    #[serde(default)]
    pub description: Option<String>,
    /// Roles that come with it.
    #[serde(default)]
    pub implies: BTreeSet<RoleId>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Record for Role {
    const TABLE: &'static str = "role";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

/// All that `given` bring with them, themselves included. Circles do no harm.
pub fn with_implied(
    given: impl IntoIterator<Item = RoleId>,
    implies: &BTreeMap<RoleId, BTreeSet<RoleId>>,
) -> BTreeSet<RoleId> {
    let mut all = BTreeSet::new();
    let mut open: Vec<RoleId> = given.into_iter().collect();
    while let Some(role) = open.pop() {
        if all.insert(role) {
            open.extend(implies.get(&role).into_iter().flatten());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn implied_roles_are_followed_to_their_end() {
        let [a, b, c, d] = [1, 2, 3, 4].map(|n| RoleId::from_random([n; 16]));
        let implies =
            BTreeMap::from([(a, BTreeSet::from([b])), (b, BTreeSet::from([c])), (c, BTreeSet::from([a]))]);
        assert_eq!(with_implied([b], &implies), BTreeSet::from([a, b, c]));
        assert_eq!(with_implied([d], &implies), BTreeSet::from([d]));
        assert!(with_implied([], &implies).is_empty());
    }
}
