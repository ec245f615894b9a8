//! Volume types: thin and thick, which every cloud has, and which nobody makes or changes.

use crate::openstack::{Door, Fault, Result, Session};
use axum::{
    Json, Router,
    extract::Path,
    http::StatusCode,
    routing::{get, post},
};
use model::volume::Provisioning;
use serde_json::{Value, json};

/// A volume type.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its id, the same in every cloud.
    pub id: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub provisioning: Provisioning,
    description: &'static str,
}

const KINDS: [Kind; 2] = [
    Kind {
        id: "6f5c1f1c-6e6a-4f0f-8d6f-7468696e0000",
        name: "thin",
        provisioning: Provisioning::Thin,
        description: "Takes space as it is written, and gives back what is discarded",
    },
    Kind {
        id: "6f5c1f1c-6e6a-4f0f-8d6f-7468696b0000",
        name: "thick",
        provisioning: Provisioning::Thick,
        description: "Takes all its space when it is made",
    },
];

/// The type of volumes with this provisioning.
pub fn of(provisioning: Provisioning) -> Kind {
    match provisioning {
        Provisioning::Thin => KINDS[0],
        Provisioning::Thick => KINDS[1],
    }
}

/// The type with this name or id.
///
/// # Errors
/// 404.
pub fn find(reference: &str) -> Result<Kind> {
    let found = KINDS.iter().find(|kind| kind.id == reference || kind.name == reference);
    found.copied().ok_or_else(|| Fault::not_found("Volume type", reference))
}

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v3/types", get(list).post(refuse))
        .route("/v3/types/{id}", get(show).put(refuse_one).delete(refuse_one))
        .route("/v3/types/{id}/extra_specs", get(specs).post(refuse_one))
        .route("/v3/types/{id}/extra_specs/{key}", get(spec))
        .route("/v3/types/{id}/encryption", get(encryption))
        .route("/v3/types/{id}/action", post(refuse_one))
}

fn extra_specs(kind: Kind) -> Value {
    json!({ "provisioning:type": kind.name })
}

fn view(kind: Kind, session: &Session) -> Value {
    let mut view = json!({
        "id": kind.id,
        "name": kind.name,
        "is_public": true,
        "description": kind.description,
        "extra_specs": if session.is_admin() { extra_specs(kind) } else { json!({}) },
    });
    if session.is_admin() {
        view["qos_specs_id"] = Value::Null;
        view["os-volume-type-access:is_public"] = json!(true);
    }
    view
}

async fn list(session: Session) -> Json<Value> {
    let all: Vec<Value> = KINDS.iter().map(|kind| view(*kind, &session)).collect();
    Json(json!({ "volume_types": all }))
}

async fn show(session: Session, Path(id): Path<String>) -> Result<Json<Value>> {
    let kind = if id == "default" { KINDS[0] } else { by_id(&id)? };
    Ok(Json(json!({ "volume_type": view(kind, &session) })))
}

fn by_id(id: &str) -> Result<Kind> {
    let found = KINDS.iter().find(|kind| kind.id == id);
    found.copied().ok_or_else(|| Fault::not_found("Volume type", id))
}

async fn specs(session: Session, Path(id): Path<String>) -> Result<Json<Value>> {
    let kind = by_id(&id)?;
    let specs = if session.is_admin() { extra_specs(kind) } else { json!({}) };
    Ok(Json(json!({ "extra_specs": specs })))
}

async fn spec(session: Session, Path((id, key)): Path<(String, String)>) -> Result<Json<Value>> {
    let specs = extra_specs(by_id(&id)?);
    match specs.get(&key).filter(|_| session.is_admin()) {
        Some(value) => Ok(Json(json!({ key: value }))),
        None => Err(Fault::not_found("Volume type extra spec", key)),
    }
}

/// No type is encrypted.
async fn encryption(_session: Session, Path(id): Path<String>) -> Result<Json<Value>> {
    by_id(&id).map(|_| Json(json!({})))
}

async fn refuse(session: Session) -> Result<StatusCode> {
    session.require_admin("volume_extension:type_create")?;
    Err(Fault::forbidden("The types of volumes are thin and thick, and no others can be made."))
}

async fn refuse_one(session: Session, Path(id): Path<String>) -> Result<StatusCode> {
    session.require_admin("volume_extension:type_update")?;
    by_id(&id)?;
    Err(Fault::forbidden("The types of volumes are thin and thick, and cannot be changed."))
}
