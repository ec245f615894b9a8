//! Events and changes on the wire.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Id.
    pub id: Uuid,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Project, if it happened to something of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Uuid>,
    /// The noun, like `instance`.
    pub noun: String,
    /// Id of the thing.
    pub subject: String,
    /// One word for programs, like `started`, `crashed`, `image_failed`.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Something is wrong.
    #[serde(default)]
    pub warning: bool,
}

/// One line of the stream of changes: a thing changed, or something happened. The stream tells what changed, not
/// how: ask for the thing itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Change {
    /// A record was made, changed or removed.
    Changed {
        /// The noun, like `instance`.
        noun: String,
        /// Id of the thing.
        id: String,
        /// It is gone.
        gone: bool,
    },
    /// Something happened.
    Event(Event),
    /// Changes were lost (the client was too slow): ask for everything anew.
    Lost,
    /// Nothing happened for a while; the stream is alive.
    Alive,
}

/// What of the events is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Go on as changes come: one [`Change`] per line, or server-sent events with `Accept: text/event-stream`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<u8>,
    /// Only of this noun, like `instance`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noun: Option<String>,
    /// Only of the thing with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Of this project; `*` for all (admin only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Most entries of a page, 1 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where the page starts: `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
}
