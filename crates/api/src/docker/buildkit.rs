//! BuildKit, for `docker build` and `docker buildx` as they are installed: its protocol in front of the builder that reads
//! Dockerfiles here.
//!
//! ```text
//!   docker ── POST /grpc ────▶ Control, LLBBridge ──▶ docker::build ──▶ steps, images
//!          ── POST /session ─▶ Session ◀──────────────────┘ files, credentials, secrets, agents, when a step needs them
//! ```
//!
//! Both connections leave HTTP/1 and are gRPC from there; on the second one the daemon calls the client. What a client
//! compiled itself (LLB) is not read.

mod agent;
mod asked;
mod connection;
mod fault;
mod files;
mod grpc;
mod lent;
mod older;
mod progress;
mod run;
mod send;
mod service;
mod session;
mod solve;
mod upload;
mod wire;

pub(super) use files::{Wanted, take};
pub(super) use older::{is_asked, lines as older_lines};
pub(super) use progress::Progress;
pub(super) use session::Session;

use super::door::Door;
use crate::routing::{Router, post};
use session::Sessions;
use solve::Solves;

/// What its calls share.
#[derive(Default)]
pub struct Buildkit {
    sessions: Sessions,
    solves: Solves,
}

/// Adds the routes.
pub fn routes(routes: Router<Door>) -> Router<Door> {
    routes.route("/grpc", post(service::open)).route("/session", post(session::open))
}
