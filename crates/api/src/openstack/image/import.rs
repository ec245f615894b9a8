//! Imports: the ways there are, asking for one, and how far it is.

use super::{
    data::refuse_without_formats,
    record::{find, find_own},
    view::{status_word, time},
};
use crate::openstack::{Door, Fault, Result, Session, audit::Deed, body::Body};
use crate::routing::{Router, get, post};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::{Control, image::Import};
use model::{
    image::{Asked, Image, ImageSource, ImageState},
    node::{IMAGE_HOSTS_FACT, NodeStatus},
    quota::Resource,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2/info/import", get(ways))
        .route("/v2/info/stores", get(stores))
        .route("/v2/info/usage", get(usage))
        .route("/v2/images/{id}/import", post(import))
        .route("/v2/images/{id}/tasks", get(tasks_of))
        .route("/v2/tasks", get(tasks))
        .route("/v2/tasks/{id}", get(task))
}

/// The ways of import that the operator allows.
pub fn methods(control: &Control) -> Vec<&'static str> {
    let nodes = control.store().list::<NodeStatus>();
    let fetches = nodes.iter().any(|node| node.record.facts.contains_key(IMAGE_HOSTS_FACT));
    if fetches { vec!["glance-direct", "web-download"] } else { vec!["glance-direct"] }
}

async fn ways(State(door): State<Door>, _session: Session) -> Json<Value> {
    Json(json!({ "import-methods": {
        "description": "Import methods available.",
        "type": "array",
        "value": methods(door.control()),
    } }))
}

/// There is one place where images are; a cloud without several says so.
async fn stores(_session: Session) -> Fault {
    Fault::status(StatusCode::NOT_FOUND, "Multi backend is not supported at this site.")
}

async fn usage(State(door): State<Door>, session: Session) -> Json<Value> {
    let (limits, used) = door.control().quota(session.caller.project);
    let limit = limits.of(Resource::Images).map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
    Json(json!({ "usage": { "image_count_total": { "usage": used.of(Resource::Images), "limit": limit } } }))
}

#[derive(Debug, Deserialize)]
struct Wanted {
    method: Method,
}

#[derive(Debug, Deserialize)]
struct Method {
    name: String,
    #[serde(default)]
    uri: Option<String>,
}

async fn import(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(Wanted { method }): Body<Wanted>,
) -> Result<Response> {
    let control = door.control();
    let found = find_own(control, &session.caller, &id)?;
    let image = &found.record;
    if !methods(control).contains(&method.name.as_str()) {
        return Err(Fault::invalid(format!("Unknown import method name '{}'.", method.name)));
    }
    refuse_without_formats(&door, image)?;
    let status = control.image_status(image.meta.id);
    let word = status_word(image, status.as_ref().map(|s| &s.record));
    let (from, needed) = match (method.name.as_str(), method.uri) {
        ("web-download", Some(url)) => (Import::Web { url }, "queued"),
        ("web-download", None) => {
            return Err(Fault::invalid("URI is required if the method is 'web-download'."));
        }
        _ => (Import::Staged, "uploading"),
    };
    if word != needed {
        return Err(Fault::conflict(format!(
            "Image needs to be in '{needed}' state to use '{}' method; it is {word}.",
            method.name
        )));
    }
    let asked = control.import_image(&session.caller, &image.meta.id.to_string(), from).await?;
    Ok(Deed::new("import", "image", asked.meta.id, &asked.meta.name).on(StatusCode::ACCEPTED))
}

/// The import of an image as Glance's task. An image knows of its last one alone, so the task has the image's id.
fn task_view(control: &Control, image: &Image) -> Option<Value> {
    let (asked, method) = match &image.source {
        ImageSource::Staged { asked } => (asked, json!({ "name": "glance-direct" })),
        ImageSource::Web { asked, url } => (asked, json!({ "name": "web-download", "uri": url })),
        _ => return None,
    };
    let Asked { at, request_id } = asked;
    let status = control.image_status(image.meta.id);
    let status = status.as_ref().map(|s| &s.record);
    let (word, message, until) = match image.state(status) {
        ImageState::Ready(_) => ("success", String::new(), status.map(|s| s.at)),
        ImageState::Failed(fault) => ("failure", fault.message.clone(), Some(fault.since)),
        ImageState::Fetching { .. } => ("processing", String::new(), status.map(|s| s.at)),
        ImageState::Waiting | ImageState::Staged { .. } => ("pending", String::new(), None),
    };
    let id = image.meta.id.to_string();
    Some(json!({
        "id": id,
        "type": "api_image_import",
        "status": word,
        "message": message,
        "owner": image.meta.project.hex(),
        "image_id": id,
        "request_id": request_id,
        "user_id": null,
        "input": { "image_id": id, "import_req": { "method": method } },
        "result": null,
        "created_at": time(*at),
        "updated_at": time(until.unwrap_or(*at)),
        "expires_at": null,
        "self": format!("/v2/tasks/{id}"),
        "schema": "/v2/schemas/task",
    }))
}

async fn tasks_of(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Json<Value>> {
    let found = find(door.control(), &session.caller, &id)?;
    let tasks: Vec<Value> = task_view(door.control(), &found.record).into_iter().collect();
    Ok(Json(json!({ "tasks": tasks })))
}

async fn tasks(State(door): State<Door>, session: Session) -> Result<Json<Value>> {
    session.require_admin("tasks_api_access")?;
    let control = door.control();
    let images = control.list_everywhere::<Image>(&session.caller)?;
    let tasks: Vec<Value> = images.iter().filter_map(|image| task_view(control, &image.record)).collect();
    Ok(Json(json!({ "tasks": tasks, "first": "/v2/tasks", "schema": "/v2/schemas/tasks" })))
}

async fn task(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Json<Value>> {
    session.require_admin("tasks_api_access")?;
    let missing = || Fault::status(StatusCode::NOT_FOUND, format!("No task found with ID {id}"));
    let found = find(door.control(), &session.caller, &id).map_err(|_| missing())?;
    task_view(door.control(), &found.record).map(Json).ok_or_else(missing)
}
