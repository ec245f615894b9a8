//! The OpenStack door: the API of Keystone, Nova, Glance, Neutron, Cinder and Placement over holm's own nouns.
//!
//! Clients that know OpenStack (the `openstack` command, openstacksdk, Terraform, Ansible) need no other. The door adds
//! no state: a server made here is an instance there. Ids are holm's ids: projects, users and what else Keystone owns
//! are written as 32 hex digits, all else as UUIDs with dashes, and both forms are understood everywhere.
//!
//! ```text
//!   one listener ─┬─ /identity   v3                  each service is a router of its own that believes it has the
//!                 ├─ /compute    v2.1, microversions  port to itself: it sees /v2.1/servers. Around it is the frame:
//!                 ├─ /image      v2
//!                 ├─ /network    v2.0                  id, limits, time, panics ─► microversion ─► who asks
//!                 ├─ /volume     v3, microversions         ─► handler ─► refusal in the service's form, headers, audit
//!                 ├─ /placement  microversions
//!                 └─ /console    no service: websockets of guests, by tickets
//! ```
//!
//! What a handler uses, one file each: [`session::Session`] (who asks), [`fault::Fault`] (refusals),
//! [`base::Base`] (links), [`body::Body`] (JSON in), [`query::Query`] (filters), [`paging`], [`shape`] (sort, fields),
//! [`microversion::Microversion`], [`audit::Deed`] (what was done). Each service's folder has one file per resource.

pub mod audit;
pub mod base;
pub mod body;
pub mod compute;
pub mod console;
pub mod door;
pub mod fault;
mod frame;
pub mod identity;
pub mod image;
pub mod microversion;
pub mod network;
pub mod paging;
pub mod placement;
pub mod query;
pub mod session;
pub mod shape;
pub mod volume;

pub use base::Base;
pub use door::{Door, Service, Settings};
pub use fault::{Fault, Result};
pub use microversion::Microversion;
pub use session::Session;

use crate::routing::{Router, get};
use axum::{
    Json,
    http::{StatusCode, header},
    middleware::from_fn_with_state,
    response::IntoResponse,
};
use serde_json::json;

/// The door: every service at its path.
pub fn router(door: Door) -> axum::Router {
    let routers = [
        (Service::Identity, identity::router()),
        (Service::Compute, compute::router()),
        (Service::Image, image::router()),
        (Service::Network, network::router()),
        (Service::Volume, volume::router()),
        (Service::Placement, placement::router()),
    ];
    let services = routers.into_iter().fold(axum::Router::new(), |all, (service, routes)| {
        all.nest_service(service.path(), framed(door.clone(), service, routes))
    });
    services
        .merge(Router::new().route("/", get(index)).axum())
        .merge(console::router().axum().with_state(door))
        .fallback(async || StatusCode::NOT_FOUND)
}

/// A service with its frame.
fn framed(door: Door, service: Service, routes: Router<Door>) -> axum::Router {
    routes
        .axum()
        .fallback(async || Fault::status(StatusCode::NOT_FOUND, "The resource could not be found."))
        .method_not_allowed_fallback(async || {
            Fault::status(StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed for this resource.")
        })
        .layer(from_fn_with_state((door.clone(), service), frame::frame))
        .with_state(door)
}

/// The root of the port: where each service is.
async fn index() -> impl IntoResponse {
    let services = Service::ALL.map(|s| json!({ "type": s.kind(), "path": s.path() }));
    ([(header::CACHE_CONTROL, "no-store")], Json(json!({ "services": services })))
}
