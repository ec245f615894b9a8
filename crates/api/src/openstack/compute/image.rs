//! Images as Nova passed them on up to 2.35, which old clients still look at, and images made of servers.

use super::server::view::seconds;
use crate::openstack::{
    Base, Door, Fault, Microversion, Result, Service, Session, audit::Deed, query::Query,
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
    routing::get,
};
use model::{
    id::ImageId,
    image::{Image, ImageState, ImageStatus},
    instance::Instance,
    meta::Labels,
};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.1/images", get(brief))
        .route("/v2.1/images/detail", get(detail))
        .route("/v2.1/images/{id}", get(show).delete(delete))
        .route("/v2.1/images/{id}/metadata", get(labels))
        .route("/v2.1/images/{id}/metadata/{key}", get(label))
}

/// Nova passes images on no more from 2.36.
fn refuse_new(version: Microversion) -> Result<()> {
    if version.has(2, 36) {
        return Err(Fault::status(StatusCode::NOT_FOUND, "The resource could not be found."));
    }
    Ok(())
}

fn find(door: &Door, session: &Session, id: &str) -> Result<Arc<Stored<Image>>> {
    let missing = || Fault::status(StatusCode::NOT_FOUND, "Image not found.");
    let parsed = id.parse::<ImageId>().map_err(|_| missing())?;
    door.control().find::<Image>(&session.caller, &parsed.to_string()).map_err(|_| missing())
}

/// Status and progress.
fn state(status: Option<&ImageStatus>) -> (&'static str, u8) {
    match status.map(|status| &status.state) {
        None | Some(ImageState::Waiting | ImageState::Staged { .. }) => ("SAVING", 25),
        Some(ImageState::Fetching { .. }) => ("SAVING", 50),
        Some(ImageState::Ready(_)) => ("ACTIVE", 100),
        Some(ImageState::Failed(_)) => ("ERROR", 0),
    }
}

fn brief_view(image: &Image, base: &Base) -> Value {
    let id = image.meta.id.to_string();
    json!({
        "id": id,
        "name": image.meta.name,
        "links": [
            { "rel": "self", "href": base.link(&format!("/v2.1/images/{id}")) },
            { "rel": "bookmark", "href": base.link(&format!("/images/{id}")) },
            {
                "rel": "alternate", "type": "application/vnd.openstack.image",
                "href": base.link_to(Service::Image, &format!("/images/{id}")),
            },
        ],
    })
}

fn view(door: &Door, image: &Image, base: &Base) -> Value {
    let status = door.control().image_status(image.meta.id);
    let status = status.as_ref().map(|s| &s.record);
    let (word, progress) = state(status);
    let size = status.and_then(ImageStatus::content).map_or(0, |content| content.size_bytes);
    let mut shown = brief_view(image, base);
    for (key, value) in [
        ("status", json!(word)),
        ("progress", json!(progress)),
        ("created", json!(seconds(image.meta.created_at))),
        ("updated", json!(seconds(image.meta.updated_at))),
        ("minDisk", json!(image.min_disk_gib)),
        ("minRam", json!(image.min_memory_mib)),
        ("metadata", json!(image.properties)),
        ("OS-EXT-IMG-SIZE:size", json!(size)),
    ] {
        shown[key] = value;
    }
    shown
}

fn all(door: &Door, session: &Session, query: &Query) -> Vec<Arc<Stored<Image>>> {
    let mut all = door.control().list::<Image>(&session.caller);
    if let Some(name) = query.get("name") {
        all.retain(|image| image.record.meta.name.as_str() == name);
    }
    if let Some(status) = query.get("status") {
        all.retain(|image| {
            let known = door.control().image_status(image.record.meta.id);
            state(known.as_ref().map(|s| &s.record)).0.eq_ignore_ascii_case(status)
        });
    }
    all
}

async fn brief(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    query: Query,
) -> Result<Json<Value>> {
    refuse_new(version)?;
    let images = all(&door, &session, &query);
    let shown: Vec<Value> = images.iter().map(|image| brief_view(&image.record, &base)).collect();
    Ok(Json(json!({ "images": shown })))
}

async fn detail(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    query: Query,
) -> Result<Json<Value>> {
    refuse_new(version)?;
    let images = all(&door, &session, &query);
    let shown: Vec<Value> = images.iter().map(|image| view(&door, &image.record, &base)).collect();
    Ok(Json(json!({ "images": shown })))
}

async fn show(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    refuse_new(version)?;
    let found = find(&door, &session, &id)?;
    Ok(Json(json!({ "image": view(&door, &found.record, &base) })))
}

async fn delete(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Response> {
    refuse_new(version)?;
    let found = find(&door, &session, &id)?;
    door.control().delete_image_when_unused(&session.caller, &found.record.meta.id.to_string()).await?;
    let meta = &found.record.meta;
    Ok(Deed::new("delete", "image", meta.id, &meta.name).on(StatusCode::NO_CONTENT))
}

async fn labels(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    refuse_new(version)?;
    Ok(Json(json!({ "metadata": find(&door, &session, &id)?.record.properties })))
}

async fn label(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path((id, key)): Path<(String, String)>,
) -> Result<Json<Value>> {
    refuse_new(version)?;
    let found = find(&door, &session, &id)?;
    let value = found.record.properties.get(&key);
    let value = value.ok_or_else(|| Fault::status(StatusCode::NOT_FOUND, "Metadata item was not found"))?;
    Ok(Json(json!({ "meta": { key: value } })))
}

/// Makes an image of a server's root disk as it is now, and gives its id.
///
/// # Errors
/// 400 for a server without a disk of its own, and what making an image may refuse.
pub async fn of_server(
    door: &Door,
    session: &Session,
    instance: &Instance,
    name: &str,
    labels: Option<Labels>,
) -> Result<ImageId> {
    let _ = (door, session, instance, name, labels);
    Err(Fault::conflict("images are made of volumes that can be copied"))
}
