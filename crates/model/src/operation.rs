//! Operations and events: what users asked for, how far it came, and what happened.

use crate::{
    error::Fault,
    id::{EventId, OperationId, ProjectId},
    record::Record,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a record is about: a noun and an id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// Table name of the noun, like `instance`.
    pub noun: String,
    /// Its id.
    pub id: String,
}

/// Something that a user asked for and that takes time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Identity.
    pub id: OperationId,
    /// Project.
    pub project: ProjectId,
    /// The verb, like `create`, `start` or `delete`.
    pub action: String,
    /// On what.
    pub subject: Subject,
    /// Name of the thing at that time.
    pub name: String,
    /// Who asked.
    pub actor: String,
    /// Id of the request that asked.
    pub request_id: String,
    /// When it was asked.
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// How it failed.
    #[serde(default)]
    pub fault: Option<Fault>,
}

impl Record for Operation {
    const TABLE: &'static str = "operation";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

/// Something that happened, kept for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Identity.
    pub id: EventId,
    /// When.
    pub at: Timestamp,
    /// Project, if it happened to something of one.
    pub project: Option<ProjectId>,
    /// About what.
    pub subject: Subject,
    /// One word for programs, like `started`, `crashed`, `image_failed`.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Something is wrong.
    #[serde(default)]
    pub warning: bool,
}

impl Record for Event {
    const TABLE: &'static str = "event";
    fn key(&self) -> String {
        self.id.to_string()
    }
}
