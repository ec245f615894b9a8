//! What every call of this door shares, and the frame around each call: request id, limits, time, panics, who asks.

use crate::{
    auth::{self, LocalAccess, Peer},
    error::{Failure, Result, finish},
    limits::{
        BUILDS_MAX, BUILDS_OF_PROJECT, CALL_TIMEOUT, REQUEST_ID_BYTES_MAX, SAVE_TIMEOUT, STREAMS_MAX,
        STREAMS_OF_PROJECT, URI_BYTES_MAX,
    },
    pool::{Place, Pool, StreamPlace},
    streams::Streams,
    v1::{
        audit::{deed, known, note_as, note_refused},
        types::{list::WAIT_S_MAX, version::OpenStackView},
    },
};
use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use control::{Caller, Control, Role, resolve::closest};
use futures::FutureExt;
use model::error::Code;
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Header with the request's id, in and out.
pub const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// What every call shares. Cheap to clone.
#[derive(Clone)]
pub struct App {
    shared: Arc<Shared>,
}

/// Other doors of the same daemon, to be told of.
#[derive(Debug, Clone, Default)]
pub struct Doors {
    /// How OpenStack's clients get in.
    pub openstack: Option<OpenStackView>,
    /// Address of the image server.
    pub image_server: Option<String>,
}

struct Shared {
    control: Control,
    streams: Arc<dyn Streams>,
    local: LocalAccess,
    doors: Doors,
    slots: Pool,
    builds: Pool,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl App {
    /// A door to `control`, and through `streams` into guests. It ends its streams when `stopping` is cancelled.
    pub fn new(
        control: Control,
        streams: Arc<dyn Streams>,
        local: LocalAccess,
        stopping: CancellationToken,
    ) -> Self {
        Self::with_doors(control, streams, local, stopping, Doors::default())
    }

    /// The same, which tells of other doors.
    pub fn with_doors(
        control: Control,
        streams: Arc<dyn Streams>,
        local: LocalAccess,
        stopping: CancellationToken,
        doors: Doors,
    ) -> Self {
        let shared = Shared {
            control,
            streams,
            local,
            doors,
            slots: Pool::new("streams", STREAMS_MAX, STREAMS_OF_PROJECT),
            builds: Pool::new("builds of images", BUILDS_MAX, BUILDS_OF_PROJECT),
            tasks: TaskTracker::new(),
            stopping,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The cloud.
    pub fn control(&self) -> &Control {
        &self.shared.control
    }

    /// What peers of the local sockets may do.
    pub(crate) fn local(&self) -> LocalAccess {
        self.shared.local
    }

    /// How OpenStack's clients get in, if they do.
    pub fn openstack(&self) -> Option<&OpenStackView> {
        self.shared.doors.openstack.as_ref()
    }

    /// Where everybody may fetch public images, if that is served.
    pub fn image_server(&self) -> Option<&str> {
        self.shared.doors.image_server.as_deref()
    }

    /// What reaches into guests.
    pub fn streams(&self) -> &Arc<dyn Streams> {
        &self.shared.streams
    }

    /// Tasks that outlive their call: streams after an upgrade.
    pub fn tasks(&self) -> &TaskTracker {
        &self.shared.tasks
    }

    /// Cancelled when the server stops.
    pub fn stopping(&self) -> &CancellationToken {
        &self.shared.stopping
    }

    /// A place for one more stream of the caller's.
    ///
    /// # Errors
    /// `too_many`.
    pub fn stream_slot(&self, caller: &Caller) -> Result<StreamPlace> {
        let place = self.shared.slots.take(caller)?;
        Ok(StreamPlace::new(place, self.control(), caller, self.stopping()))
    }

    /// A place for one more build of an image.
    ///
    /// # Errors
    /// `too_many`.
    pub fn build_place(&self, caller: &Caller) -> Result<Place> {
        self.shared.builds.take(caller)
    }
}

/// Id of the request.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// The one who asks, as every handler gets it.
#[derive(Debug, Clone)]
pub struct Asker(pub Caller);

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.map(Self).ok_or_else(|| Failure::new(Code::Unauthenticated, "nobody is known to ask"))
    }
}

/// The outermost layer of every call.
pub async fn frame(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id = request_id(&request);
    let (method, path) = (request.method().clone(), request.uri().path().to_string());
    request.extensions_mut().insert(RequestId(request_id.clone()));
    let deadline = deadline(&request);
    let work = AssertUnwindSafe(checked(&app, &request_id, request, next)).catch_unwind();
    let response = match tokio::time::timeout(deadline, work).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => {
            Failure::new(Code::Internal, "holm made a mistake; it goes on, but this call was lost")
                .hint(format!("look for {request_id} in holm's log and report it"))
                .into_response()
        }
        Err(_) => Failure::new(Code::Timeout, format!("no answer within {} s", deadline.as_secs()))
            .hint("what was asked for may still happen")
            .into_response(),
    };
    let mut response = finish(response, &request_id);
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID_HEADER, value);
    }
    let (status, took_ms) = (response.status().as_u16(), started.elapsed().as_millis());
    tracing::debug!(%request_id, %method, %path, status, took_ms, "call");
    response
}

async fn checked(app: &App, request_id: &str, mut request: Request, next: Next) -> Response {
    let length = request.uri().path_and_query().map_or(0, |p| p.as_str().len());
    if length > URI_BYTES_MAX {
        return Failure::new(
            Code::TooLarge,
            format!("the path and query have more than {URI_BYTES_MAX} bytes"),
        )
        .with_status(StatusCode::URI_TOO_LONG)
        .into_response();
    }
    if request.uri().path().starts_with("/v1/") {
        let peer = request.extensions().get::<Peer>().cloned();
        let caller = match peer {
            Some(peer) => {
                auth::identify(app.control(), app.shared.local, &peer, request.headers(), request_id)
            }
            None => Err(Failure::new(Code::Internal, "the listener does not say who is connected")),
        };
        let caller = match caller {
            Ok(caller) => {
                let (method, path) = (request.method().clone(), request.uri().path().to_string());
                refuse_reader(app, caller, &method, &path).await
            }
            Err(failure) => Err(failure),
        };
        let caller = match caller {
            Ok(caller) => caller,
            Err(failure) => return failure.into_response(),
        };
        let (method, path) = (request.method().clone(), request.uri().path().to_string());
        request.extensions_mut().insert(caller.clone());
        let response = next.run(request).await;
        note_refused(app, &caller, &method, &path, response.extensions()).await;
        return response;
    }
    next.run(request).await
}

/// Readers change nothing, whatever a handler thinks of it; that they tried is kept.
async fn refuse_reader(app: &App, caller: Caller, method: &Method, path: &str) -> Result<Caller> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(caller);
    }
    let allowed = caller.require(Role::Member, &format!("{method} {path}"));
    if allowed.is_err() {
        let collection = path.trim_start_matches("/v1/").split('/').next().unwrap_or("");
        let action = method.as_str().to_lowercase();
        let about = deed(&action, collection.trim_end_matches('s'), path);
        note_as(app, &caller, about, allowed, known("", "")).await?;
    }
    Ok(caller)
}

/// The client's id if it is harmless, else a new one.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID_HEADER).and_then(|value| value.to_str().ok());
    match given {
        Some(text)
            if !text.is_empty()
                && text.len() <= REQUEST_ID_BYTES_MAX
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b)) =>
        {
            text.to_string()
        }
        _ => format!("req-{}", uuid::Uuid::new_v4()),
    }
}

/// How long a call may take: what it asks to wait for, and a minute. Uploads have a limit on standing still instead.
fn deadline(request: &Request) -> Duration {
    let path = request.uri().path();
    if path.starts_with("/v1/images/") && (path.ends_with("/content") || path.ends_with("/stage")) {
        return Duration::from_secs(7 * 24 * 3600);
    }
    // An image is made of as many files as an instance has.
    if path.starts_with("/v1/instances/") && path.ends_with("/image") {
        return SAVE_TIMEOUT;
    }
    let query = request.uri().query().unwrap_or("");
    let wait = query.split('&').find_map(|pair| pair.strip_prefix("wait="));
    let wait_s = wait.and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    CALL_TIMEOUT + Duration::from_secs(u64::from(wait_s.min(WAIT_S_MAX)))
}

/// Answers a path that does not exist.
pub fn unknown_path(path: &str, known: &[String]) -> Failure {
    let failure = Failure::new(Code::NotFound, format!("there is no {path}"));
    let first: Vec<&str> = path.split('/').skip(1).take(2).collect();
    let names: Vec<&str> =
        known.iter().filter_map(|k| k.strip_prefix("/v1/")).filter(|k| !k.contains('/')).collect();
    let meant = match first.as_slice() {
        ["v1", noun, ..] => closest(noun, &names).filter(|meant| meant != noun),
        [noun, ..] => closest(noun, &names),
        [] => None,
    };
    match meant {
        Some(noun) => failure.hint(format!("did you mean /v1/{noun}?")),
        None => failure.hint("/openapi.json describes every path"),
    }
}
