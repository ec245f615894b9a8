//! Tags of servers (from 2.26).

use super::{
    form::{Form, wrong},
    server::{deed, find},
};
use crate::openstack::{Base, Door, Fault, Microversion, Result, Session, body::Body};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use model::{instance::Instance, instance::tag::Tag};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.1/servers/{id}/tags", get(list).put(replace).delete(clear))
        .route("/v2.1/servers/{id}/tags/{tag}", get(check).put(add).delete(remove))
}

/// A tag out of a body.
///
/// # Errors
/// 400 for what is none.
pub fn read(key: &str, value: &Value) -> Result<Tag> {
    let text = value.as_str().ok_or_else(|| wrong(key, value, "it is no string"))?;
    text.parse().map_err(|error| wrong(key, value, &format!("{error}")))
}

fn of_path(text: &str) -> Result<Tag> {
    text.parse().map_err(|error| Fault::invalid(format!("Invalid input for field/attribute tag. {error}")))
}

fn no_tag(id: &str, tag: &Tag) -> Fault {
    Fault::status(StatusCode::NOT_FOUND, format!("Server {id} has no tag '{tag}'"))
}

async fn change(
    door: &Door,
    session: &Session,
    id: &str,
    change: impl Fn(&mut BTreeSet<Tag>) + Send + Sync,
) -> Result<Instance> {
    let found = find(door, session, id)?;
    let id = found.record.meta.id.to_string();
    let changed = door.control().update_instance(&session.caller, &id, |instance| {
        change(&mut instance.tags);
        control::instance::check_tags(&instance.tags)
    });
    changed.await.map_err(|error| match error.code {
        model::error::Code::TooLarge => Fault::invalid(error.message),
        _ => error.into(),
    })
}

async fn list(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    version.require(2, 26)?;
    Ok(Json(json!({ "tags": find(&door, &session, &id)?.record.tags })))
}

async fn replace(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    version.require(2, 26)?;
    let form = Form::of(&body, "body")?;
    form.refuse_others(&["tags"])?;
    let list = form.list("tags")?.ok_or_else(|| Fault::invalid("'tags' is a required property"))?;
    let tags = list.iter().map(|value| read("tags", value)).collect::<Result<BTreeSet<Tag>>>()?;
    let changed = change(&door, &session, &id, |own| own.clone_from(&tags)).await?;
    Ok(deed("update", &changed).on(Json(json!({ "tags": changed.tags }))))
}

async fn clear(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Response> {
    version.require(2, 26)?;
    let changed = change(&door, &session, &id, BTreeSet::clear).await?;
    Ok(deed("update", &changed).on(StatusCode::NO_CONTENT))
}

async fn check(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path((id, tag)): Path<(String, String)>,
) -> Result<StatusCode> {
    version.require(2, 26)?;
    let tag = of_path(&tag)?;
    let found = find(&door, &session, &id)?;
    if found.record.tags.contains(&tag) { Ok(StatusCode::NO_CONTENT) } else { Err(no_tag(&id, &tag)) }
}

async fn add(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Path((id, tag)): Path<(String, String)>,
) -> Result<Response> {
    version.require(2, 26)?;
    let tag = of_path(&tag)?;
    if find(&door, &session, &id)?.record.tags.contains(&tag) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let insert = |own: &mut BTreeSet<Tag>| {
        own.insert(tag.clone());
    };
    let changed = change(&door, &session, &id, insert).await?;
    let mut reply = StatusCode::CREATED.into_response();
    let link = base.link(&format!("/v2.1/servers/{}/tags/{tag}", changed.meta.id));
    if let Ok(value) = HeaderValue::from_str(&link) {
        reply.headers_mut().insert(header::LOCATION, value);
    }
    Ok(deed("update", &changed).on(reply))
}

async fn remove(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path((id, tag)): Path<(String, String)>,
) -> Result<Response> {
    version.require(2, 26)?;
    let tag = of_path(&tag)?;
    if !find(&door, &session, &id)?.record.tags.contains(&tag) {
        return Err(no_tag(&id, &tag));
    }
    let take = |own: &mut BTreeSet<Tag>| {
        own.remove(&tag);
    };
    let changed = change(&door, &session, &id, take).await?;
    Ok(deed("update", &changed).on(StatusCode::NO_CONTENT))
}
