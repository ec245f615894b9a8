//! Containers: instances of one container each.

mod action;
mod archive;
mod attach;
mod commit;
mod create;
pub(super) mod environment;
mod extra_host;
pub(super) mod found;
mod health;
pub(super) mod host_config;
mod list;
mod logs;
mod memory;
mod publish;
pub(super) mod remove;
mod state;
mod update;
mod usage;
mod view;
mod wait;

pub(crate) use action::signal_number;
pub(super) use action::up;
pub(super) use extra_host::asked as extra_hosts;
pub(super) use health::{check_view as health_check_view, event as health_event};
pub(super) use logs::time_ns;
pub(super) use publish::groups as published_groups;
pub(super) use state::word as state_word;
pub(super) use usage::sizes;
pub(super) use view::image_name;

use super::door::Door;
use crate::routing::{Router, delete, get, post};

/// Adds the routes.
pub fn routes(routes: Router<Door>) -> Router<Door> {
    routes
        .route("/containers/create", post(create::create))
        .route("/containers/json", get(list::list))
        .route("/commit", post(commit::commit))
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
        .route("/containers/{name}/archive", get(archive::get).head(archive::stat).put(archive::put))
        .route("/containers/{name}/changes", get(archive::changes))
        .route("/containers/{name}/export", get(archive::export))
        .route("/containers/{name}", delete(remove::remove))
}
