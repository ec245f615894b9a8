//! The frame around every call: the version in the path, who asks, limits, panics, and the form of refusals.

use super::door::Door;
use crate::{
    app::RequestId,
    auth::{self, PROJECT_HEADER, Peer},
    error::{Failure, Result},
    limits::URI_BYTES_MAX,
    v1::audit::{deed, known, note_as},
};
use axum::Router;
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use control::{Caller, Role};
use futures::FutureExt;
use model::{error::Code, instance::GRACE_S_MAX};
use serde_json::json;
use std::{fmt, panic::AssertUnwindSafe, str::FromStr, time::Duration};
use tower::ServiceExt;

/// Newest version of the Engine API that is spoken.
pub const API_VERSION_MAX: &str = "1.47";
/// Oldest version of the Engine API that is spoken.
pub const API_VERSION_MIN: &str = "1.24";
const MAX: Version = Version(1, 47);
const MIN: Version = Version(1, 24);

/// The longest that a call may take before its answer begins: a stop with the longest grace period, and two minutes.
const CALL_TIMEOUT: Duration = Duration::from_secs(GRACE_S_MAX as u64 + 120);

const API_VERSION: HeaderName = HeaderName::from_static("api-version");
const EXPERIMENTAL: HeaderName = HeaderName::from_static("docker-experimental");
const OS_TYPE: HeaderName = HeaderName::from_static("ostype");

/// A version of the Engine API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u16, u16);

impl Version {
    /// Whether it is this one or newer.
    pub fn has(self, major: u16, minor: u16) -> bool {
        self >= Self(major, minor)
    }
}

impl FromStr for Version {
    type Err = ();
    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let (major, minor) = text.split_once('.').ok_or(())?;
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if !digits(major) || !digits(minor) {
            return Err(());
        }
        Ok(Self(major.parse().map_err(|_| ())?, minor.parse().map_err(|_| ())?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The routes with the frame around them.
#[derive(Clone)]
pub(super) struct Framed {
    /// What calls share.
    pub door: Door,
    /// The routes, which see paths without a version.
    pub inner: Router,
}

/// The outermost layer of every call.
pub(super) async fn frame(State(framed): State<Framed>, mut request: Request) -> Response {
    let request_id = format!("req-{}", uuid::Uuid::new_v4());
    let (method, path) = (request.method().clone(), request.uri().path().to_string());
    let is_head = method == Method::HEAD;
    request.extensions_mut().insert(RequestId(request_id.clone()));
    let work = AssertUnwindSafe(checked(framed, &request_id, request)).catch_unwind();
    let response = match tokio::time::timeout(CALL_TIMEOUT, work).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => Failure::new(
            Code::Internal,
            format!("holm made a mistake and lost this call: look for {request_id} in its log"),
        )
        .into_response(),
        Err(_) => Failure::new(Code::Timeout, format!("no answer within {} s", CALL_TIMEOUT.as_secs()))
            .into_response(),
    };
    let response = finish(response, &request_id, is_head);
    tracing::debug!(request_id, %method, path, status = response.status().as_u16(), "call");
    response
}

async fn checked(framed: Framed, request_id: &str, mut request: Request) -> Response {
    let caller = match prepare(&framed.door, request_id, &mut request) {
        Ok(caller) => refuse_reader(&framed.door, caller, request.method(), request.uri().path()).await,
        Err(failure) => Err(failure),
    };
    match caller {
        Ok(caller) => request.extensions_mut().insert(caller),
        Err(failure) => return failure.into_response(),
    };
    match framed.inner.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn prepare(door: &Door, request_id: &str, request: &mut Request) -> Result<Caller> {
    let length = request.uri().path_and_query().map_or(0, |p| p.as_str().len());
    if length > URI_BYTES_MAX {
        let message = format!("the path and query have more than {URI_BYTES_MAX} bytes");
        return Err(Failure::new(Code::TooLarge, message).with_status(StatusCode::URI_TOO_LONG));
    }
    let (version, uri) = split_version(request.uri())?;
    *request.uri_mut() = uri;
    request.extensions_mut().insert(version);
    let peer = request.extensions().get::<Peer>().cloned();
    let peer =
        peer.ok_or_else(|| Failure::new(Code::Internal, "the listener does not say who is connected"))?;
    if let Peer::Unix { pid, .. } = peer {
        name_project(door, pid, request);
    }
    auth::identify(door.control(), door.app().local(), &peer, request.headers(), request_id)
}

/// Gives a call of BuildKit's client the project that its process named before: it does not say it itself.
fn name_project(door: &Door, pid: i32, request: &mut Request) {
    if let Some(project) = request.headers().get(PROJECT_HEADER) {
        door.named().note(pid, project);
    } else if is_builders(request.uri().path())
        && let Some(project) = door.named().of(pid)
    {
        request.headers_mut().insert(PROJECT_HEADER, project);
    }
}

/// Whether BuildKit's client calls a path: to build, and to push what it has built.
fn is_builders(path: &str) -> bool {
    let is_image = || path.starts_with("/images/") && (path.ends_with("/push") || path.ends_with("/json"));
    matches!(path, "/grpc" | "/session") || is_image()
}

/// Takes the version off a path; a path without one is meant in the newest.
fn split_version(uri: &Uri) -> Result<(Version, Uri)> {
    let path = uri.path();
    let first = path.trim_start_matches('/').split('/').next().unwrap_or("");
    let Some(version) = first.strip_prefix('v').and_then(|text| text.parse::<Version>().ok()) else {
        return Ok((MAX, uri.clone()));
    };
    if version < MIN {
        let message = format!(
            "client version {version} is too old. Minimum supported API version is {MIN}, please upgrade your client to a newer version"
        );
        return Err(Failure::new(Code::Invalid, message));
    }
    if version > MAX {
        let message = format!("client version {version} is too new. Maximum supported API version is {MAX}");
        return Err(Failure::new(Code::Invalid, message));
    }
    let rest = &path.trim_start_matches('/')[first.len()..];
    let rest = if rest.is_empty() { "/" } else { rest };
    let text = match uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_string(),
    };
    let uri = text.parse().map_err(|_| Failure::new(Code::Invalid, format!("{path} is no path")))?;
    Ok((version, uri))
}

/// Readers change nothing, whatever a handler thinks of it, and send this host nowhere (`/auth`); that they tried is kept.
async fn refuse_reader(door: &Door, caller: Caller, method: &Method, path: &str) -> Result<Caller> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(caller);
    }
    let allowed = caller.require(Role::Member, &format!("{method} {path}"));
    if allowed.is_err() {
        let action = method.as_str().to_lowercase();
        note_as(door.app(), &caller, deed(&action, "docker", path), allowed, known("", "")).await?;
    }
    Ok(caller)
}

/// Writes the body of a refusal, and the headers that every answer has.
fn finish(mut response: Response, request_id: &str, is_head: bool) -> Response {
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        if failure.error.code == Code::Internal {
            tracing::error!(request_id, error = %failure.error.message, "a call failed");
        }
        let body = json!({ "message": told(&failure) }).to_string();
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *response.body_mut() = if is_head { Body::empty() } else { Body::from(body) };
    }
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static(API_VERSION_MAX));
    headers.insert(EXPERIMENTAL, HeaderValue::from_static("false"));
    headers.insert(OS_TYPE, HeaderValue::from_static("linux"));
    let server = concat!("holm/", env!("CARGO_PKG_VERSION"), " (linux)");
    headers.insert(header::SERVER, HeaderValue::from_static(server));
    response
}

/// Clients show one text: what is wrong, and what to do about it.
pub(super) fn told(failure: &Failure) -> String {
    let error = &failure.error;
    if error.hint.is_empty() { error.message.clone() } else { format!("{} ({})", error.message, error.hint) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_taken_off_the_path() {
        for (path, version, rest) in [
            ("/v1.47/containers/json?all=1", MAX, "/containers/json?all=1"),
            ("/v1.24/_ping", MIN, "/_ping"),
            ("/_ping", MAX, "/_ping"),
            ("/version", MAX, "/version"),
            ("/v1.30", Version(1, 30), "/"),
            ("/volumes", MAX, "/volumes"),
        ] {
            let split = split_version(&path.parse().unwrap()).unwrap_or_else(|_| panic!("{path}"));
            assert_eq!((split.0, split.1.to_string().as_str()), (version, rest), "{path}");
        }
        for (path, words) in
            [("/v1.23/info", "too old. Minimum supported API version is 1.24"), ("/v1.48/info", "is too new")]
        {
            let failure = split_version(&path.parse().unwrap()).unwrap_err();
            assert!(failure.error.message.contains(words), "{path}: {failure:?}");
        }
    }
}
