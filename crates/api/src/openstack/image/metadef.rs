//! Metadata definitions: the catalog of well-known properties. This cloud has none, and says so in Glance's form.

use crate::openstack::{Door, Fault, Session};
use crate::routing::{Router, get};
use axum::{Json, extract::Path, http::StatusCode};
use serde_json::{Value, json};

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2/metadefs/namespaces", get(namespaces))
        .route("/v2/metadefs/namespaces/{name}", get(namespace))
        .route("/v2/metadefs/resource_types", get(resource_types))
}

async fn namespaces(_session: Session) -> Json<Value> {
    Json(json!({
        "namespaces": [],
        "first": "/v2/metadefs/namespaces",
        "schema": "/v2/schemas/metadefs/namespaces",
    }))
}

async fn namespace(_session: Session, Path(name): Path<String>) -> Fault {
    Fault::status(StatusCode::NOT_FOUND, format!("Metadata definition namespace={name} was not found."))
}

async fn resource_types(_session: Session) -> Json<Value> {
    Json(json!({ "resource_types": [] }))
}
