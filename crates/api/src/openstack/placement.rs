//! Placement: what hosts have and what is taken of it, as far as clients ask for it.

mod allocation;
mod candidate;
mod provider;

use super::{door::Door, microversion::Microversion};
use crate::routing::{Router, get};
use axum::Json;
use serde_json::{Value, json};

/// The oldest microversion.
pub const MIN: Microversion = Microversion::new(1, 0);
/// The newest one.
pub const MAX: Microversion = Microversion::new(1, 39);

/// The routes of the service.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/", get(versions))
        .merge(provider::router())
        .merge(allocation::router())
        .merge(candidate::router())
}

async fn versions() -> Json<Value> {
    Json(json!({ "versions": [{
        "id": "v1.0",
        "max_version": MAX.to_string(),
        "min_version": MIN.to_string(),
        "status": "CURRENT",
        "links": [{ "rel": "self", "href": "" }],
    }] }))
}
