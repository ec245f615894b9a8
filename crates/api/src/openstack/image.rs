//! Image: Glance's API, version 2.
//!
//! ```text
//!   record   images themselves          data    their bytes        import   stages, imports, tasks, what the cloud offers
//!   list     filters, order, pages      member  sharing            action   tags, withdrawal
//!   patch    how changes are written    schema  what may be sent   view     how an image looks, and what properties mean
//! ```

mod action;
mod data;
mod import;
mod list;
mod member;
mod metadef;
mod patch;
mod record;
mod schema;
mod view;

use super::{base::Base, door::Door};
use crate::routing::{Router, get};
use axum::{Json, http::StatusCode};
use serde_json::{Value, json};

/// The newest minor version; all before it are there too. What Glance added after it is about several stores.
const MINOR_MAX: u16 = 15;
/// Minor versions that Glance never had, or that only a cache of images has.
const MINORS_MISSING: [u16; 1] = [14];

/// The routes of the service.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/", get(choices))
        .route("/versions", get(versions))
        .route("/v2", get(choices))
        .route("/v2/", get(choices))
        .merge(record::router())
        .merge(data::router())
        .merge(import::router())
        .merge(member::router())
        .merge(action::router())
        .merge(schema::router())
        .merge(metadef::router())
}

fn document(base: &Base) -> Value {
    let link = base.link("/v2/");
    let minors = (0..=MINOR_MAX).rev().filter(|minor| !MINORS_MISSING.contains(minor));
    let versions = minors.map(|minor| {
        let status = if minor == MINOR_MAX { "CURRENT" } else { "SUPPORTED" };
        json!({ "id": format!("v2.{minor}"), "status": status, "links": [{ "rel": "self", "href": link }] })
    });
    json!({ "versions": versions.collect::<Vec<_>>() })
}

async fn choices(base: Base) -> (StatusCode, Json<Value>) {
    (StatusCode::MULTIPLE_CHOICES, Json(document(&base)))
}

async fn versions(base: Base) -> Json<Value> {
    Json(document(&base))
}
