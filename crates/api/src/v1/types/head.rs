//! What every view begins with, and how a view refers to another thing.

use jiff::Timestamp;
use model::meta::{Labels, Meta};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Another thing, by id and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reference {
    /// Id.
    pub id: Uuid,
    /// Name at this moment; empty if the thing is gone.
    pub name: String,
}

impl Reference {
    /// A reference to a record.
    pub fn to<Id: Copy + Into<Uuid>>(meta: &Meta<Id>) -> Self {
        Self { id: meta.id.into(), name: meta.name.to_string() }
    }
}

/// Id, owner, name, labels and times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Head {
    /// Id.
    pub id: Uuid,
    /// Owner.
    pub project: Reference,
    /// Name.
    pub name: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Labels of the user.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When the wish of the user last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// Since when it is going; missing while it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deleted_at: Option<Timestamp>,
}

impl Head {
    /// The head of a record whose owner has this name.
    pub fn of<Id: Copy + Into<Uuid>>(meta: &Meta<Id>, project_name: &str) -> Self {
        Self {
            id: meta.id.into(),
            project: Reference { id: meta.project.0, name: project_name.to_string() },
            name: meta.name.to_string(),
            description: meta.description.clone(),
            labels: meta.labels.clone(),
            created_at: meta.created_at,
            updated_at: meta.updated_at,
            deleted_at: meta.deleted_at,
        }
    }
}
