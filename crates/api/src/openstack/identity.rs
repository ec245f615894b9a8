//! Identity: Keystone's API, version 3.
//!
//! holm's projects are Keystone's projects. The door speaks for `control`, which decides who may do what
//! (`control::access`); here is only what Keystone calls things.

mod application_credential;
mod assignment;
mod auth;
mod catalog;
mod domain;
mod group;
mod listing;
mod noun;
mod project;
mod role;
mod token;
mod user;

use super::{base::Base, door::Door};
use crate::routing::{Router, get};
use axum::{
    Json,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde_json::{Value, json};

/// The routes of the service.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/", get(versions))
        .route("/v3", get(version))
        .route("/v3/", get(version))
        .merge(auth::router())
        .merge(catalog::router())
        .merge(domain::router())
        .merge(project::router())
        .merge(user::router())
        .merge(application_credential::router())
        .merge(group::router())
        .merge(role::router())
        .merge(assignment::router())
}

fn document(base: &Base) -> Value {
    json!({
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{ "rel": "self", "href": base.link("/v3/") }],
        "media-types": [{
            "base": "application/json",
            "type": "application/vnd.openstack.identity-v3+json",
        }],
    })
}

async fn versions(base: Base) -> impl IntoResponse {
    let location = [(header::LOCATION, base.link("/v3/"))];
    (StatusCode::MULTIPLE_CHOICES, location, Json(json!({ "versions": { "values": [document(&base)] } })))
}

async fn version(base: Base) -> Json<Value> {
    Json(json!({ "version": document(&base) }))
}
