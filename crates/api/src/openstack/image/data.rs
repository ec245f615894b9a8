//! The bytes of images: sent, laid ready, and given back.

use super::{
    record::{find, find_own},
    view::{status_word, view},
};
use crate::routing::{Router, get, put};
use crate::{
    openstack::{Door, Fault, Result, Session, audit::Deed},
    v1::image::content::{Way, give, take},
};
use axum::{
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use model::image::{Image, ImageState};

const MD5_HEADER: HeaderName = HeaderName::from_static("content-md5");

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2/images/{id}/file", get(download).put(upload))
        .route("/v2/images/{id}/stage", put(stage))
}

async fn upload(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response> {
    send(&door, &session, &id, request, Way::Upload).await
}

async fn stage(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response> {
    send(&door, &session, &id, request, Way::Stage).await
}

async fn send(door: &Door, session: &Session, id: &str, request: Request, way: Way) -> Result<Response> {
    let control = door.control();
    let found = find_own(control, &session.caller, id)?;
    let image = &found.record;
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if kind.map(|kind| kind.split(';').next().unwrap_or("").trim()) != Some("application/octet-stream") {
        let message = "The bytes of an image are of the type application/octet-stream.";
        return Err(Fault::status(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    if way == Way::Upload {
        refuse_without_formats(door, image)?;
    }
    let status = control.image_status(image.meta.id);
    let word = status_word(image, status.as_ref().map(|s| &s.record));
    if word != "queued" {
        let next = if way == Way::Upload { "saving" } else { "uploading" };
        return Err(Fault::conflict(format!("Image status transition from {word} to {next} is not allowed")));
    }
    let taken = take(door.app(), &session.caller, &image.meta.id.to_string(), request, way).await?;
    let verb = if way == Way::Upload { "upload" } else { "stage" };
    Ok(Deed::new(verb, "image", taken.meta.id, &taken.meta.name).on(StatusCode::NO_CONTENT))
}

/// Bytes are taken only for an image that says what they are.
///
/// # Errors
/// 400.
pub fn refuse_without_formats(door: &Door, image: &Image) -> Result<()> {
    let seen = view(door.control(), image);
    for key in ["disk_format", "container_format"] {
        if seen[key].is_null() {
            return Err(Fault::invalid(format!("Property {key} must be set prior to saving data.")));
        }
    }
    Ok(())
}

async fn download(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let found = find(door.control(), &session.caller, &id)?;
    let status = door.control().image_status(found.record.meta.id);
    let Some(content) = status.as_ref().and_then(|s| match &s.record.state {
        ImageState::Ready(content) => Some(content),
        _ => None,
    }) else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let given = give(door.app(), &session.caller, &found.record, &headers).await;
    let mut reply =
        given.map_err(|failure| Fault { status: failure.status, ..Fault::from(failure.error) })?;
    if let Some(hashes) = content.hashes.as_ref().filter(|_| reply.status() == StatusCode::OK)
        && let Ok(value) = HeaderValue::from_str(&hashes.md5)
    {
        reply.headers_mut().insert(MD5_HEADER, value);
    }
    Ok(reply)
}
