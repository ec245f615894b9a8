//! Images of containers: OCI images.

pub(super) mod found;
mod pull;
mod remove;
mod view;

pub(super) use pull::check_platform;

use super::{door::Door, query::Query, refusal};
use crate::{
    app::Asker,
    error::{Failure, Result},
};
use axum::{
    Json, Router,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use model::error::Code;
use serde_json::Value;

/// Adds the routes. Names of images have slashes, so that the last word of a path tells what is asked.
pub fn routes(routes: Router<Door>) -> Router<Door> {
    routes
        .route("/images/json", get(view::list))
        .route("/images/create", post(pull::create))
        .route("/images/{*rest}", get(show).post(change).delete(remove::remove))
}

async fn show(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(rest): Path<String>,
) -> Result<Json<Value>> {
    if let Some(name) = rest.strip_suffix("/json") {
        return Ok(Json(view::inspect(&door, &found::find(&door, &caller, name)?)));
    }
    if let Some(name) = rest.strip_suffix("/history") {
        return Ok(Json(view::history(&found::find(&door, &caller, name)?)));
    }
    Err(refusal::unknown(&format!("/images/{}", rest.rsplit('/').next().unwrap_or(&rest))))
}

async fn change(Path(rest): Path<String>, _query: Query) -> Result<Response> {
    if rest.ends_with("/tag") {
        return Err(Failure::new(
            Code::Unsupported,
            "an image of holm has the one name that it was pulled by",
        )
        .hint("pull it by the other name, or `holm image import NAME --oci-layout FILE`"));
    }
    if rest.ends_with("/push") {
        return Err(refusal::not_served("pushing images"));
    }
    Err(refusal::unknown(&format!("/images/{}", rest.rsplit('/').next().unwrap_or(&rest))))
}
