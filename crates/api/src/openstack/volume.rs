//! Volume: Cinder's API, version 3 with microversions, over holm's volumes and snapshots.
//!
//! A path may name the project first (`/v3/<project>/volumes`), as clients of old do; it must be the session's own.

mod action;
mod asked;
mod attachment;
mod backup;
mod collection;
mod find;
mod form;
mod inventory;
pub(super) mod kind;
mod list;
mod metadata;
mod quota;
mod snapshot;
mod transfer;

use super::{
    base::Base,
    door::Door,
    fault::{Fault, Result},
    microversion::Microversion,
    session::{Bearer, Session},
};
use crate::routing::{Router, any, get};
use axum::{
    Json,
    extract::{Path, Request, State},
    http::{StatusCode, Uri},
    response::Response,
};
use model::id::ProjectId;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use tower::ServiceExt;

/// The oldest microversion.
pub const MIN: Microversion = Microversion::new(3, 0);
/// The newest one.
pub const MAX: Microversion = Microversion::new(3, 71);

/// The routes of the service.
pub fn router() -> Router<Door> {
    let inner = Arc::new(OnceLock::new());
    let of_project =
        move |State(door): State<Door>, session: Session, path: Path<(String, String)>, request: Request| {
            let inner: &axum::Router = inner.get_or_init(|| without_project(door));
            of_project(inner.clone(), session, path, request)
        };
    Router::new()
        .route("/", get(choices))
        .route("/v3", get(version))
        .route("/v3/", get(version))
        .route("/v3/{project}/{*rest}", any(of_project))
        .merge(resources())
}

fn resources() -> Router<Door> {
    Router::new()
        .merge(collection::router())
        .merge(action::router())
        .merge(metadata::router())
        .merge(snapshot::router())
        .merge(backup::router())
        .merge(kind::router())
        .merge(transfer::router())
        .merge(quota::router())
        .merge(attachment::router())
        .merge(inventory::router())
}

fn without_project(door: Door) -> axum::Router {
    let unknown = async || Fault::status(StatusCode::NOT_FOUND, "The resource could not be found.");
    resources().axum().fallback(unknown).with_state(door)
}

/// The same call without the project in its path.
async fn of_project(
    inner: axum::Router,
    session: Session,
    Path((project, rest)): Path<(String, String)>,
    mut request: Request,
) -> Result<Response> {
    let unknown = || Fault::status(StatusCode::NOT_FOUND, "The resource could not be found.");
    let named: ProjectId = project.parse().map_err(|_| unknown())?;
    if named != session.caller.project && !session.is_admin() {
        return Err(Fault::invalid("Malformed request url: the project is not the token's."));
    }
    let query = request.uri().query().map_or(String::new(), |query| format!("?{query}"));
    *request.uri_mut() = format!("/v3/{rest}{query}").parse::<Uri>().map_err(|_| unknown())?;
    // What the outer path was matched with would count as the inner one's parts.
    let outer = std::mem::take(request.extensions_mut());
    let kept = request.extensions_mut();
    if let Some(bearer) = outer.get::<Bearer>() {
        kept.insert(bearer.clone());
    }
    if let Some(version) = outer.get::<Microversion>() {
        kept.insert(*version);
    }
    if let Some(base) = outer.get::<Base>() {
        kept.insert(base.clone());
    }
    Ok(inner.oneshot(request).await.unwrap_or_else(|never| match never {}))
}

fn document(base: &Base) -> Value {
    json!({ "versions": [{
        "id": "v3.0",
        "status": "CURRENT",
        "version": MAX.to_string(),
        "min_version": MIN.to_string(),
        "updated": "2023-08-31T00:00:00Z",
        "links": [
            { "rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/" },
            { "rel": "self", "href": base.link("/v3/") },
        ],
        "media-types": [{
            "base": "application/json",
            "type": "application/vnd.openstack.volume+json;version=3",
        }],
    }] })
}

async fn choices(base: Base) -> (StatusCode, Json<Value>) {
    (StatusCode::MULTIPLE_CHOICES, Json(document(&base)))
}

/// Unlike the root, Cinder shows this to those alone who proved who they are.
async fn version(base: Base, _asker: Bearer) -> Json<Value> {
    Json(document(&base))
}
