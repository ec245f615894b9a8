//! Images as Nova passed them on up to 2.35, which old clients still look at, and images made of servers.

use super::server::view::seconds;
use crate::openstack::{
    Base, Door, Fault, Microversion, Result, Service, Session,
    audit::Deed,
    paging::{LIMIT_MAX, Page},
    query::Query,
};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::{Caller, volume::NewImageOfVolume};
use jiff::Timestamp;
use model::{
    id::{ImageId, InstanceId},
    image::{Image, ImageState, ImageStatus},
    instance::Instance,
    meta::Labels,
    plan::DiskFormat,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use store::Stored;

/// Property of an image that names the server it was made of.
const SERVER: &str = "instance_uuid";
/// Property of an image that says what it was made as: `snapshot` for those that were made of servers.
const KIND: &str = "image_type";

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
    let found = door.control().find::<Image>(&session.caller, &parsed.to_string()).map_err(|_| missing())?;
    // What is deleted is gone here, even while something stands on it.
    if found.record.meta.is_deleting() { Err(missing()) } else { Ok(found) }
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
    if let Some(server) = server_of(image) {
        let id = server.to_string();
        shown["server"] = json!({
            "id": id,
            "links": [
                { "rel": "self", "href": base.link(&format!("/v2.1/servers/{id}")) },
                { "rel": "bookmark", "href": base.link(&format!("/servers/{id}")) },
            ],
        });
    }
    shown
}

/// The server that an image was made of, which may be gone.
fn server_of(image: &Image) -> Option<InstanceId> {
    image.properties.get(SERVER)?.parse().ok()
}

fn all(door: &Door, session: &Session, query: &Query) -> Result<Vec<Arc<Stored<Image>>>> {
    let mut all = door.control().list::<Image>(&session.caller);
    all.retain(|image| !image.record.meta.is_deleting());
    if let Some(name) = query.get("name") {
        all.retain(|image| image.record.meta.name.as_str() == name);
    }
    if let Some(status) = query.get("status") {
        all.retain(|image| {
            let known = door.control().image_status(image.record.meta.id);
            state(known.as_ref().map(|s| &s.record)).0.eq_ignore_ascii_case(status)
        });
    }
    if let Some(server) = query.get("server") {
        // By its id or its address.
        let wanted = server.rsplit('/').next().and_then(|id| id.parse::<InstanceId>().ok());
        all.retain(|image| wanted.is_some() && server_of(&image.record) == wanted);
    }
    if let Some(kind) = query.get("type") {
        // What was made of no server is a base image in Nova's words.
        let of = |image: &Image| image.properties.get(KIND).map_or("base", String::as_str) == kind;
        all.retain(|image| of(&image.record));
    }
    let (disk, memory) = (query.number("minDisk")?, query.number("minRam")?);
    all.retain(|image| {
        disk.is_none_or(|least| image.record.min_disk_gib >= least)
            && memory.is_none_or(|least| image.record.min_memory_mib >= least)
    });
    if let Some(text) = query.get("changes-since") {
        let wrong = |_| Fault::invalid(format!("Invalid changes-since {text}: it is no time."));
        let since: Timestamp = text.parse().map_err(wrong)?;
        all.retain(|image| image.record.meta.updated_at >= since);
    }
    Ok(all)
}

/// The page of the list that a call asks for.
fn list(
    door: &Door,
    session: &Session,
    version: Microversion,
    base: &Base,
    query: &Query,
    view: impl Fn(&Image) -> Value,
) -> Result<Json<Value>> {
    refuse_new(version)?;
    let all = all(door, session, query)?;
    let page = Page::cut(all, query, LIMIT_MAX, |image| image.record.meta.id.to_string())?;
    let shown: Vec<Value> = page.items.iter().map(|image| view(&image.record)).collect();
    let mut reply = json!({ "images": shown });
    let links = page.links(base, query);
    if !links.is_empty() {
        reply["images_links"] = links.into();
    }
    Ok(Json(reply))
}

async fn brief(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    query: Query,
) -> Result<Json<Value>> {
    list(&door, &session, version, &base, &query, |image| brief_view(image, &base))
}

async fn detail(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    query: Query,
) -> Result<Json<Value>> {
    list(&door, &session, version, &base, &query, |image| view(&door, image, &base))
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

/// Makes an image of a server's root disk as it is now, and gives its id. The image belongs to the server's project. What
/// `labels` say goes before what is said of every such image.
///
/// # Errors
/// 400 for a container, which has no disk, and what making an image may refuse.
pub async fn of_server(
    door: &Door,
    session: &Session,
    instance: &Instance,
    name: &str,
    labels: Labels,
) -> Result<ImageId> {
    let id = instance.meta.id;
    let root = instance.root_volume().ok_or_else(|| {
        Fault::invalid(format!(
            "Cannot 'createImage' instance {id}: a container has no disk to make an image of; build an image of \
             its files and push it to a registry"
        ))
    })?;
    let mut properties = BTreeMap::from([
        (KIND.to_string(), "snapshot".to_string()),
        (SERVER.to_string(), id.to_string()),
        ("user_id".to_string(), session.user_id()),
        ("base_image_ref".to_string(), instance.image.map_or(String::new(), |image| image.to_string())),
    ]);
    properties.extend(labels);
    let new = NewImageOfVolume {
        name: name.to_string(),
        description: String::new(),
        volume: root.to_string(),
        snapshot: None,
        is_backup: false,
        format: DiskFormat::Qcow2,
        public: false,
        protected: false,
        properties,
        labels: Labels::new(),
    };
    let owner = Caller { project: instance.meta.project, ..session.caller.clone() };
    Ok(door.control().image_of_volume(&owner, new).await?.meta.id)
}
