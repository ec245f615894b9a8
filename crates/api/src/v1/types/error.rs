//! The one form of every error, and of a fault behind a record.

use super::schema;
use jiff::Timestamp;
use model::error::Code;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// Kind, for programs.
    #[schema(value_type = schema::Code)]
    pub code: Code,
    /// What failed, for people.
    pub message: String,
    /// What to do; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// The field of the request that is wrong, like `networks[0].subnet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Id of the request, also in the header `x-request-id`.
    #[serde(default)]
    pub request_id: String,
}

/// Something that went wrong behind a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// Kind, for programs.
    #[schema(value_type = schema::Code)]
    pub code: Code,
    /// What failed, for people.
    pub message: String,
    /// What to do; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
}

impl From<&model::error::Fault> for Fault {
    fn from(fault: &model::error::Fault) -> Self {
        Self {
            code: fault.code,
            message: fault.message.clone(),
            hint: fault.hint.clone(),
            since: fault.since,
        }
    }
}
