//! The Docker door: the Engine API, 1.24 to 1.47, over holm's own nouns, for the `docker` command as it is installed.
//!
//! A container is an instance of one container, a network a network, an image an OCI image. The door adds no state: what
//! is made here is seen by every other door, and the other way round. What programs were asked to run beside a container
//! (`exec`) is kept in memory until it was told how they ended, as docker does.
//!
//! ```text
//!   unix socket ── frame (version, who asks, limits, panics, refusals) ── routes ── control ── store
//!                                                                             └── streams::Streams ── containers
//! ```
//!
//! What this cloud cannot honour is refused with a reason; nothing that a client set is passed over in silence.

mod body;
pub(crate) mod build;
mod buildkit;
mod container;
mod door;
mod event;
mod exec;
mod filter;
mod frame;
mod hijack;
mod id;
mod image;
mod multiplex;
mod network;
mod process;
mod prune;
mod query;
mod refusal;
mod system;
mod volume;
mod watch;

pub(crate) use container::signal_number;
pub use door::Door;
pub use frame::{API_VERSION_MAX, API_VERSION_MIN};

use crate::routing::Router;
use axum::{extract::Request, http::Method, response::IntoResponse};

/// The door.
pub fn router(door: Door) -> axum::Router {
    let groups = [
        system::routes as fn(Router<Door>) -> Router<Door>,
        image::routes,
        container::routes,
        exec::routes,
        network::routes,
        volume::routes,
        build::routes,
        buildkit::routes,
        prune::routes,
    ];
    let inner = groups
        .into_iter()
        .fold(Router::new(), |routes, add| add(routes))
        .axum()
        .fallback(async |request: Request| refusal::unknown(request.uri().path()).into_response())
        .method_not_allowed_fallback(async |method: Method, request: Request| {
            refusal::wrong_method(&method, request.uri().path()).into_response()
        })
        .with_state(door.clone());
    // The version is a part of the path, so the frame stands before the routes and not behind them.
    axum::Router::new().fallback(frame::frame).with_state(frame::Framed { door, inner })
}
