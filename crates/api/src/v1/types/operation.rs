//! Operations on the wire.

use super::{Fault, Reference};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Something that a user asked for: the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Id.
    pub id: Uuid,
    /// Project.
    pub project: Reference,
    /// The verb, like `create`, `start` or `delete`.
    pub action: String,
    /// The noun, like `instance`.
    pub noun: String,
    /// Id of the thing.
    pub subject: String,
    /// Name of the thing at that time.
    pub name: String,
    /// Who asked.
    pub actor: String,
    /// Id of the request that asked.
    pub request_id: String,
    /// When it was asked.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it ended; missing while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// How it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}
