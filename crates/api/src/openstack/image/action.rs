//! Tags, and withdrawing images.

use super::{record::find_own, view::status_word};
use crate::openstack::{Door, Fault, Result, Session, audit::Deed};
use crate::routing::{Router, post, put};
use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use model::image::Image;

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2/images/{id}/tags/{tag}", put(tag).delete(untag))
        .route("/v2/images/{id}/actions/deactivate", post(deactivate))
        .route("/v2/images/{id}/actions/reactivate", post(reactivate))
}

async fn tag(
    State(door): State<Door>,
    session: Session,
    Path((id, tag)): Path<(String, String)>,
) -> Result<Response> {
    change_tags(&door, &session, &id, |image| {
        image.tags.insert(tag.clone());
    })
    .await
}

async fn untag(
    State(door): State<Door>,
    session: Session,
    Path((id, tag)): Path<(String, String)>,
) -> Result<Response> {
    let found = find_own(door.control(), &session.caller, &id)?;
    if !found.record.tags.contains(&tag) {
        return Err(Fault::status(StatusCode::NOT_FOUND, format!("Image {id} has no tag {tag}.")));
    }
    change_tags(&door, &session, &id, |image| {
        image.tags.remove(&tag);
    })
    .await
}

async fn change_tags(
    door: &Door,
    session: &Session,
    id: &str,
    change: impl Fn(&mut Image) + Send + Sync,
) -> Result<Response> {
    let found = find_own(door.control(), &session.caller, id)?;
    let id = found.record.meta.id.to_string();
    let change = |image: &mut Image| {
        change(image);
        Ok(())
    };
    let image = door.control().update_image(&session.caller, &id, change).await?;
    Ok(Deed::new("update", "image", id, &image.meta.name).on(StatusCode::NO_CONTENT))
}

async fn deactivate(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    withdraw(&door, &session, &id, true).await
}

async fn reactivate(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    withdraw(&door, &session, &id, false).await
}

async fn withdraw(door: &Door, session: &Session, id: &str, deactivated: bool) -> Result<Response> {
    let control = door.control();
    let found = find_own(control, &session.caller, id)?;
    let status = control.image_status(found.record.meta.id);
    let word = status_word(&found.record, status.as_ref().map(|s| &s.record));
    if !matches!(word, "active" | "deactivated") {
        let verb = if deactivated { "deactivating" } else { "reactivating" };
        return Err(Fault::forbidden(format!("Not allowed {verb} image in status '{word}'")));
    }
    let id = found.record.meta.id.to_string();
    let image = control.set_image_deactivated(&session.caller, &id, deactivated).await?;
    let verb = if deactivated { "deactivate" } else { "reactivate" };
    Ok(Deed::new(verb, "image", id, &image.meta.name).on(StatusCode::NO_CONTENT))
}
