//! Assignments: who has which role where.

use crate::{
    id::{DomainId, GroupId, ProjectId, RoleId, UserId},
    record::Record,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who has the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// One user.
    User(UserId),
    /// All users of a group.
    Group(GroupId),
}

/// Where the role holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// In one project.
    Project(ProjectId),
    /// In a domain: its users, groups and projects themselves.
    Domain(DomainId),
    /// In all projects of a domain, and not in the domain itself.
    ProjectsOf(DomainId),
    /// In the whole cloud.
    System,
}

/// One role of one actor in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Assignment {
    /// Who.
    pub actor: Actor,
    /// Where.
    pub target: Target,
    /// What.
    pub role: RoleId,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user/{id}"),
            Self::Group(id) => write!(f, "group/{id}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Project(id) => write!(f, "project/{id}"),
            Self::Domain(id) => write!(f, "domain/{id}"),
            Self::ProjectsOf(id) => write!(f, "projects-of/{id}"),
            Self::System => f.write_str("system"),
        }
    }
}

impl Record for Assignment {
    const TABLE: &'static str = "assignment";
    fn key(&self) -> String {
        format!("{}/{}/{}", self.actor, self.target, self.role)
    }
}
