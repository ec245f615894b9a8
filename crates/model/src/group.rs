//! Groups: users that are given roles together.

use crate::{
    id::{DomainId, GroupId, UserId},
    name::Name,
    record::Record,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Users that are given roles together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Identity.
    pub id: GroupId,
    /// Domain in which the name is unique.
    pub domain: DomainId,
    /// Name.
    pub name: Name,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Record for Group {
    const TABLE: &'static str = "group";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

/// One user in one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Who.
    pub user: UserId,
    /// Where.
    pub group: GroupId,
}

impl Record for Membership {
    const TABLE: &'static str = "membership";
    fn key(&self) -> String {
        format!("{}/{}", self.user, self.group)
    }
}
