//! Images of containers: OCI images.

mod archive;
mod changes;
pub(super) mod found;
mod login;
mod named;
pub(super) mod prune;
mod pull;
mod push;
mod remove;
mod view;

pub(super) use changes::apply as apply_changes;
pub(super) use login::{Logins, given as given_login, log_in, logins_of};
pub(super) use named::{adopt, ready, wanted as wanted_name, wanted_tag};
pub(super) use prune::{by_id, layers as sizes};
pub(super) use pull::{check_platform, fetch};

use super::{door::Door, query::Query, refusal};
use crate::routing::{Router, get, post};
use crate::{app::Asker, error::Result};
use axum::{
    Json,
    extract::{Path, Request, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};

/// Adds the routes. Names of images have slashes, so that the last word of a path tells what is asked.
pub fn routes(routes: Router<Door>) -> Router<Door> {
    routes
        .route("/images/json", get(view::list))
        .route("/images/create", post(create))
        .route("/images/get", get(archive::get_all))
        .route("/images/load", post(archive::load))
        .route("/images/prune", post(prune::prune))
        .route("/images/{*rest}", get(show).post(change).delete(remove::remove))
}

/// A pull, or a root file system that is sent.
async fn create(
    State(door): State<Door>,
    Asker(caller): Asker,
    query: Query,
    request: Request,
) -> Result<Response> {
    if query.text("fromSrc").is_some() {
        return archive::import(&door, &caller, &query, request).await;
    }
    pull::create(door, caller, &query, request.headers()).await
}

async fn show(State(door): State<Door>, Asker(caller): Asker, Path(rest): Path<String>) -> Result<Response> {
    if let Some(name) = rest.strip_suffix("/json") {
        let local = found::find(&door, &caller, name)?;
        return Ok(Json(view::inspect(&door, &local).await).into_response());
    }
    if let Some(name) = rest.strip_suffix("/history") {
        let local = found::find(&door, &caller, name)?;
        return Ok(Json(view::history(&door, &local).await).into_response());
    }
    if let Some(name) = rest.strip_suffix("/get") {
        return archive::save(&door, &caller, &[name]).await;
    }
    Err(refusal::unknown(&format!("/images/{}", rest.rsplit('/').next().unwrap_or(&rest))))
}

async fn change(
    State(door): State<Door>,
    asker: Asker,
    Path(rest): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response> {
    if let Some(name) = rest.strip_suffix("/tag") {
        return Ok(named::tag(&door, asker, name, &query).await?.into_response());
    }
    if let Some(name) = rest.strip_suffix("/push") {
        return push::push(&door, &asker.0, name, &query, &headers).await;
    }
    Err(refusal::unknown(&format!("/images/{}", rest.rsplit('/').next().unwrap_or(&rest))))
}
