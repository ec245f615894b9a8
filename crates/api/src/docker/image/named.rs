//! Names for what came in, and further names for what is here.

use super::found::{self, Local, parse};
use crate::{
    app::Asker,
    docker::{door::Door, query::Query, watch::Touches},
    error::{Failure, Result},
    v1::audit::{deed, note},
};
use axum::http::StatusCode;
use control::Caller;
use model::{
    error::Code,
    id::ImageId,
    image::{Image, ImageState},
};
use std::time::Duration;
use tokio::time::Instant;

/// How long the node may take to say that it has what it has.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// POST of a name.
pub async fn tag(door: &Door, Asker(caller): Asker, name: &str, query: &Query) -> Result<StatusCode> {
    let local = found::find(door, &caller, name)?;
    let wanted = wanted(query)?.ok_or_else(|| Failure::new(Code::Invalid, "repo is missing"))?;
    let id = local.image().meta.id.to_string();
    let outcome = door.control().tag_image(&caller, &id, &wanted).await;
    let image = note(door.app(), &caller, deed("tag", "image", &wanted), outcome).await?;
    ready(door, image.meta.id).await?;
    Ok(StatusCode::CREATED)
}

/// The name that `repo` and `tag` mean, if one is given.
pub fn wanted(query: &Query) -> Result<Option<String>> {
    let Some(repo) = query.text("repo") else { return Ok(None) };
    let name = match query.text("tag") {
        Some(tag) => {
            // A tag in the name gives way to the one beside it.
            let named = parse(repo)?;
            format!("{}/{}:{tag}", named.registry(), named.repository())
        }
        None => repo.to_string(),
    };
    wanted_tag(&name).map(Some)
}

/// The name that a text means, with its tag.
///
/// # Errors
/// `invalid` for what is no name.
pub fn wanted_tag(name: &str) -> Result<String> {
    let read = parse(name)?;
    if read.digest().is_some() {
        return Err(Failure::new(Code::Invalid, "refusing to create a tag with a digest reference"));
    }
    Ok(read.to_string())
}

/// Makes an image of what the node has, and waits until it can be used.
pub async fn adopt(
    door: &Door,
    caller: &Caller,
    action: &'static str,
    digest: &str,
    name: Option<&str>,
) -> Result<Local> {
    let outcome = door.control().name_content(caller, digest, name).await;
    let image = note(door.app(), caller, deed(action, "image", name.unwrap_or(digest)), outcome).await?;
    ready(door, image.meta.id).await
}

/// Waits until an image can be used.
///
/// # Errors
/// Why it cannot.
pub async fn ready(door: &Door, id: ImageId) -> Result<Local> {
    let mut touches = Touches::of(door, id.to_string());
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let gone = || Failure::new(Code::NotFound, "the image was deleted meanwhile");
        let stored = door.control().get::<Image>(id).ok_or_else(gone)?;
        let status = door.control().image_status(id);
        if let ImageState::Failed(fault) = stored.record.state(status.as_deref().map(|s| &s.record)) {
            return Err(Failure::new(fault.code, fault.message.clone()).hint(&fault.hint));
        }
        if let Some(local) = found::of_record(door, stored) {
            return Ok(local);
        }
        if !touches.next(deadline).await {
            let message = format!("the image was not ready within {} s", READY_TIMEOUT.as_secs());
            return Err(Failure::new(Code::Timeout, message));
        }
    }
}
