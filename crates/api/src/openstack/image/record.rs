//! Images: made, shown, changed and deleted.

use super::{
    patch::{self, Operation},
    view::{kind, properties, set_properties, view},
};
use crate::openstack::{
    Base, Door, Fault, Result, Session,
    audit::Deed,
    body::{self, Body},
};
use crate::routing::{Router, get, post};
use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use control::{Caller, Control, image::NewImage};
use model::{
    id::ImageId,
    image::{Image, Visibility},
    name::NAME_CHARS_MAX,
};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::Stored;

/// Header that tells which ways of import there are.
const METHODS_HEADER: HeaderName = HeaderName::from_static("openstack-image-import-methods");
/// What Glance itself says of an image: nobody else does.
const READ_ONLY: [&str; 13] = [
    "status",
    "checksum",
    "os_hash_algo",
    "os_hash_value",
    "size",
    "virtual_size",
    "created_at",
    "updated_at",
    "self",
    "file",
    "schema",
    "direct_url",
    "stores",
];

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2/images", post(create).get(super::list::list))
        .route("/v2/images/{id}", get(show).patch(update).delete(delete))
}

/// The image of this id, if the caller may see it.
///
/// # Errors
/// 404.
pub fn find(control: &Control, caller: &Caller, id: &str) -> Result<Arc<Stored<Image>>> {
    let missing = || Fault::status(StatusCode::NOT_FOUND, format!("No image found with ID {id}"));
    let parsed: ImageId = id.parse().map_err(|_| missing())?;
    let found = control.find::<Image>(caller, &parsed.to_string()).map_err(|_| missing())?;
    // What is deleted is gone here, even while something stands on it.
    if found.record.meta.is_deleting() { Err(missing()) } else { Ok(found) }
}

/// The same, for the owner and for admins.
///
/// # Errors
/// 404, and 403 for those who only may use it.
pub fn find_own(control: &Control, caller: &Caller, id: &str) -> Result<Arc<Stored<Image>>> {
    let found = find(control, caller, id)?;
    if caller.sees(found.record.meta.project) {
        return Ok(found);
    }
    Err(Fault::forbidden(format!("You are not permitted to modify image {id}.")))
}

async fn show(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Json<Value>> {
    let found = find(door.control(), &session.caller, &id)?;
    Ok(Json(view(door.control(), &found.record)))
}

async fn create(
    State(door): State<Door>,
    session: Session,
    base: Base,
    Body(input): Body<Map<String, Value>>,
) -> Result<Response> {
    let control = door.control();
    let (new, properties) = read_new(&session, input)?;
    let made = control.create_image(&session.caller, new).await?;
    let id = made.meta.id.to_string();
    let made = if properties.is_empty() {
        made
    } else {
        let dress = |image: &mut Image| {
            set_properties(control, &session.caller, image, properties.clone());
            Ok(())
        };
        match control.update_image(&session.caller, &id, dress).await {
            Ok(dressed) => dressed,
            Err(error) => {
                // Half of what was asked for is not what was asked for.
                control.delete_image(&session.caller, &id).await?;
                return Err(error.into());
            }
        }
    };
    let mut reply = (StatusCode::CREATED, Json(view(control, &made))).into_response();
    let headers = reply.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&base.link(&format!("/v2/images/{id}"))) {
        headers.insert(header::LOCATION, location);
    }
    if let Ok(methods) = HeaderValue::from_str(&super::import::methods(control).join(",")) {
        headers.insert(METHODS_HEADER, methods);
    }
    Ok(Deed::new("create", "image", &id, &made.meta.name).on(reply))
}

/// Reads what a new image is to be, and its properties.
fn read_new(session: &Session, input: Map<String, Value>) -> Result<(NewImage, BTreeMap<String, String>)> {
    let id = ImageId::from_random(rand::random());
    let mut new = NewImage::to_be_sent(&id.to_string(), model::image::ImageKind::Disk);
    new.id = Some(id);
    new.name_repeats = true;
    new.visibility = Visibility::Shared;
    let mut properties = BTreeMap::new();
    let mut named = false;
    for (key, value) in input {
        match key.as_str() {
            "id" => {
                let text: String = read(&key, &value)?;
                let given = text.parse::<ImageId>().ok().filter(|_| text.len() == 36);
                new.id =
                    Some(given.ok_or_else(|| Fault::invalid(format!("Invalid image id format: {text}")))?);
            }
            "name" => {
                let text: Option<String> = read(&key, &value)?;
                if let Some(text) = text.filter(|text| !text.is_empty()) {
                    new.name = check_name(text)?;
                    named = true;
                }
            }
            "visibility" => new.visibility = read(&key, &value)?,
            "protected" => new.protected = read(&key, &value)?,
            "os_hidden" => new.hidden = read(&key, &value)?,
            "tags" => new.tags = read_tags(&value)?,
            "min_disk" => new.min_disk_gib = read(&key, &value)?,
            "min_ram" => new.min_memory_mib = read(&key, &value)?,
            "disk_format" => new.disk_format = read(&key, &value)?,
            "container_format" => new.container_format = read(&key, &value)?,
            "owner" => check_owner(session, &value)?,
            "locations" => return Err(Fault::forbidden("It's not allowed to set locations.")),
            _ => {
                check_key(&key)?;
                properties.insert(key.clone(), read(&key, &value)?);
            }
        }
    }
    if let (false, Some(id)) = (named, new.id) {
        new.name = id.to_string();
    }
    new.kind = kind(new.disk_format, new.container_format, &properties);
    Ok((new, properties))
}

fn read<T: serde::de::DeserializeOwned>(key: &str, value: &Value) -> Result<T> {
    serde_json::from_value(value.clone())
        .map_err(|error| Fault::invalid(format!("Invalid value '{value}' for parameter {key}: {error}")))
}

fn read_tags(value: &Value) -> Result<BTreeSet<String>> {
    let tags: Vec<String> = read("tags", value)?;
    Ok(tags.into_iter().collect())
}

fn check_name(text: String) -> Result<String> {
    if text.chars().count() > NAME_CHARS_MAX {
        let message =
            format!("Invalid value for parameter name: it has more than {NAME_CHARS_MAX} characters");
        return Err(Fault::invalid(message));
    }
    Ok(text)
}

fn check_owner(session: &Session, value: &Value) -> Result<()> {
    let owner: Option<String> = read("owner", value)?;
    let own = session.caller.project;
    match owner {
        Some(text) if text.parse() != Ok(own) => {
            Err(Fault::forbidden("You are not permitted to set the owner."))
        }
        _ => Ok(()),
    }
}

/// Refuses what may not be a property's key.
fn check_key(key: &str) -> Result<()> {
    if READ_ONLY.contains(&key) {
        return Err(Fault::forbidden(format!("Attribute '{key}' is read-only.")));
    }
    if key.starts_with("os_glance") {
        return Err(Fault::forbidden(format!("Attribute '{key}' is reserved.")));
    }
    if key.is_empty() || key.chars().count() > NAME_CHARS_MAX {
        let message = format!("A property's key has 1 to {NAME_CHARS_MAX} characters.");
        return Err(Fault::invalid(message));
    }
    Ok(())
}

async fn update(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    headers: HeaderMap,
    request: axum::extract::Request,
) -> Result<Response> {
    let control = door.control();
    let caller = &session.caller;
    find_own(control, caller, &id)?;
    let bytes = crate::request::read_body(request.into_body())
        .await
        .map_err(|failure| Fault { status: failure.status, ..Fault::from(failure.error) })?;
    let operations = patch::read(&headers, body::read(&bytes)?)?;
    // What is refused is refused in Glance's words; the transaction below decides it again on what is there then.
    let refusal = std::sync::Mutex::new(None);
    let change = |image: &mut Image| {
        apply(control, caller, image, &operations).map_err(|fault| {
            let error = control::Error::new(fault.code, &fault.message);
            *refusal.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(fault);
            error
        })
    };
    let outcome = control.update_image(caller, &id, change).await;
    let refusal = refusal.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    match (outcome, refusal) {
        (Ok(image), _) => {
            let deed = Deed::new("update", "image", image.meta.id, &image.meta.name);
            Ok(deed.on(Json(view(control, &image))))
        }
        (Err(_), Some(fault)) => Err(fault),
        (Err(error), None) => Err(error.into()),
    }
}

/// Applies a patch to an image.
fn apply(control: &Control, caller: &Caller, image: &mut Image, operations: &[Operation]) -> Result<()> {
    let mut all = properties(image);
    let status = control.image_status(image.meta.id);
    let has_content = status.is_some_and(|s| s.record.content().is_some());
    for operation in operations {
        let (key, value) = (operation.key.as_str(), operation.value.as_ref());
        if READ_ONLY.contains(&key) || matches!(key, "id") {
            return Err(Fault::forbidden(format!("Attribute '{key}' is read-only.")));
        }
        if key == "locations" {
            return Err(Fault::forbidden("It's not allowed to change locations."));
        }
        let Some(value) = value else {
            patch::refuse_removal_of_own(key)?;
            if all.remove(key).is_none() {
                return Err(Fault::conflict(format!("Property {key} does not exist.")));
            }
            continue;
        };
        if matches!(key, "disk_format" | "container_format") && has_content {
            return Err(Fault::forbidden(format!(
                "Attribute {key} can be only replaced for a queued image."
            )));
        }
        match key {
            "name" => {
                let text: Option<String> = read(key, value)?;
                let text = text.filter(|text| !text.is_empty()).unwrap_or_else(|| image.meta.id.to_string());
                image.meta.name = check_name(text)?.parse().map_err(Fault::invalid)?;
                // Clients of this door expect that a name may come twice.
                image.name_repeats = true;
            }
            "visibility" => image.visibility = read(key, value)?,
            "protected" => image.protected = read(key, value)?,
            "os_hidden" => image.hidden = read(key, value)?,
            "tags" => image.tags = read_tags(value)?,
            "min_disk" => image.min_disk_gib = read(key, value)?,
            "min_ram" => image.min_memory_mib = read(key, value)?,
            "disk_format" => image.disk_format = read(key, value)?,
            "container_format" => image.container_format = read(key, value)?,
            "owner" => {
                let owner: Option<String> = read(key, value)?;
                if owner.and_then(|text| text.parse().ok()) != Some(image.meta.project) {
                    return Err(Fault::forbidden("You are not permitted to change the owner."));
                }
            }
            _ => {
                check_key(key)?;
                if operation.must_exist && !all.contains_key(key) {
                    return Err(Fault::conflict(format!("Property {key} does not exist.")));
                }
                all.insert(key.to_string(), read(key, value)?);
            }
        }
    }
    if !has_content && image.source == model::image::ImageSource::Upload {
        image.kind = kind(image.disk_format, image.container_format, &all);
    }
    if all != properties(image) {
        set_properties(control, caller, image, all);
    }
    Ok(())
}

async fn delete(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    let control = door.control();
    let found = find_own(control, &session.caller, &id)?;
    if found.record.protected {
        return Err(Fault::forbidden(format!("Image {id} is protected and cannot be deleted.")));
    }
    let gone = control.delete_image_when_unused(&session.caller, &found.record.meta.id.to_string()).await?;
    Ok(Deed::new("delete", "image", gone.meta.id, &gone.meta.name).on(StatusCode::NO_CONTENT))
}
