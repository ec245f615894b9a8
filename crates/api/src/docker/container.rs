//! Containers: instances of one container each.

mod action;
mod attach;
mod create;
pub(super) mod environment;
pub(super) mod found;
pub(super) mod host_config;
mod list;
mod logs;
mod publish;
mod remove;
mod state;
mod update;
mod usage;
mod view;
mod wait;

pub(super) use logs::time_ns;
pub(super) use state::word as state_word;
pub(super) use view::image_name;

use super::door::Door;
use axum::{
    Router,
    routing::{delete, get, post},
};

/// Adds the routes.
pub fn routes(routes: Router<Door>) -> Router<Door> {
    routes
        .route("/containers/create", post(create::create))
        .route("/containers/json", get(list::list))
        .route("/containers/{name}/json", get(view::inspect))
        .route("/containers/{name}/start", post(action::start))
        .route("/containers/{name}/stop", post(action::stop))
        .route("/containers/{name}/restart", post(action::restart))
        .route("/containers/{name}/kill", post(action::kill))
        .route("/containers/{name}/pause", post(action::pause))
        .route("/containers/{name}/unpause", post(action::unpause))
        .route("/containers/{name}/rename", post(update::rename))
        .route("/containers/{name}/update", post(update::update))
        .route("/containers/{name}/wait", post(wait::wait))
        .route("/containers/{name}/attach", post(attach::attach))
        .route("/containers/{name}/resize", post(attach::resize))
        .route("/containers/{name}/logs", get(logs::logs))
        .route("/containers/{name}/top", get(usage::top))
        .route("/containers/{name}/stats", get(usage::stats))
        .route("/containers/{name}", delete(remove::remove))
}
