//! The frame around every call of a service: id, limits, time, panics, the version, who asks, the form of refusals.

use super::{
    audit,
    base::Base,
    door::{Door, Service},
    fault::{self, Fault, Result},
    microversion::{self, Microversion},
    session::{Bearer, TOKEN_HEADER},
};
use crate::limits::{CALL_TIMEOUT, URI_BYTES_MAX};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use control::Role;
use futures::FutureExt;
use model::error::Code;
use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");
const COMPUTE_REQUEST_ID: HeaderName = HeaderName::from_static("x-compute-request-id");
/// Time for an upload; standing still has a limit of its own.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The outermost layer of every call.
pub(super) async fn frame(
    State((door, service)): State<(Door, Service)>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let request_id = format!("req-{}", uuid::Uuid::new_v4());
    let (method, path) = (request.method().clone(), request.uri().path().to_string());
    let asked = request.headers().clone();
    let base = Base::of(&door, service, &asked);
    request.extensions_mut().insert(base.clone());
    let mut seen = Seen::default();
    let mut response = match prepare(&door, service, &request_id, &mut request, &mut seen) {
        Ok(()) => run(request, next, &request_id).await,
        Err(fault) => fault.into_response(),
    };
    let fault = response.extensions_mut().remove::<Fault>();
    let caller = seen.bearer.as_ref().and_then(|bearer| bearer.session.caller(&request_id));
    if let Some(caller) = caller {
        audit::note(&door, service, &caller, (&method, &path), response.extensions(), fault.as_ref()).await;
    }
    if let Some(fault) = &fault {
        response = fault::write(fault, service, &request_id);
    }
    finish(&mut response, service, &base, &request_id);
    if let Some(range) = microversion::range(service) {
        range.answer(&asked, seen.version, response.headers_mut());
    }
    let (status, took_ms) = (response.status().as_u16(), started.elapsed().as_millis());
    tracing::debug!(request_id, service = service.kind(), %method, path, status, took_ms, "call");
    response
}

/// What was found out about a call before its handler ran.
#[derive(Default)]
struct Seen {
    version: Option<Microversion>,
    bearer: Option<Bearer>,
}

fn prepare(
    door: &Door,
    service: Service,
    request_id: &str,
    request: &mut Request,
    seen: &mut Seen,
) -> Result<()> {
    let length = request.uri().path_and_query().map_or(0, |p| p.as_str().len());
    if length > URI_BYTES_MAX {
        let message = format!("The path and query have more than {URI_BYTES_MAX} bytes.");
        return Err(Fault::status(StatusCode::URI_TOO_LONG, message));
    }
    if let Some(range) = microversion::range(service) {
        let version = range.negotiate(request.headers())?;
        seen.version = Some(version);
        request.extensions_mut().insert(version);
    }
    seen.bearer = known(door, request.headers(), request_id);
    let Some(bearer) = &seen.bearer else {
        return Ok(());
    };
    let (method, path) = (request.method(), request.uri().path());
    check_rules(bearer, service, method, path)?;
    check_level(bearer, service, method, path, request_id)?;
    request.extensions_mut().insert(bearer.clone());
    Ok(())
}

/// The session of a call, if its token stands for one. Calls that need one refuse those without.
fn known(door: &Door, headers: &HeaderMap, request_id: &str) -> Option<Bearer> {
    let text = headers.get(TOKEN_HEADER)?.to_str().ok()?;
    let session = door.control().session(text.trim()).ok()?;
    Some(Bearer { session: Arc::new(session), request_id: request_id.to_string() })
}

/// An application credential with access rules makes no other calls. Looking at one's own session is not one.
fn check_rules(bearer: &Bearer, service: Service, method: &Method, path: &str) -> Result<()> {
    let Some(credential) = &bearer.session.credential else {
        return Ok(());
    };
    let own = service == Service::Identity && (path == "/" || path.starts_with("/v3/auth/") || path == "/v3");
    if own || credential.record.allows(service.kind(), method.as_str(), path) {
        return Ok(());
    }
    Err(Fault::forbidden("The application credential's access rules do not allow this call."))
}

/// Readers change nothing, whatever a handler thinks of it. Identity decides for itself: all change their password.
fn check_level(
    bearer: &Bearer,
    service: Service,
    method: &Method,
    path: &str,
    request_id: &str,
) -> Result<()> {
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if reads || service == Service::Identity {
        return Ok(());
    }
    match bearer.session.caller(request_id) {
        Some(caller) => Ok(caller.require(Role::Member, &format!("{method} {path}"))?),
        // The handler's own extractor says what is wrong.
        None => Ok(()),
    }
}

async fn run(request: Request, next: Next, request_id: &str) -> Response {
    let path = request.uri().path();
    let is_upload = path.ends_with("/file") || path.ends_with("/stage");
    let deadline = if is_upload { UPLOAD_TIMEOUT } else { CALL_TIMEOUT };
    let work = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(deadline, work).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => {
            Fault::new(Code::Internal, format!("a mistake in holm lost call {request_id}")).into_response()
        }
        Err(_) => {
            Fault::new(Code::Timeout, format!("no answer within {} s", deadline.as_secs())).into_response()
        }
    }
}

/// The headers that every reply of a service has.
fn finish(response: &mut Response, service: Service, base: &Base, request_id: &str) {
    let unauthorized = response.status() == StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    let id = HeaderValue::from_str(request_id).expect("letters, digits and dashes");
    if matches!(service, Service::Compute | Service::Volume) {
        headers.insert(COMPUTE_REQUEST_ID, id.clone());
    }
    headers.insert(REQUEST_ID, id);
    if service == Service::Identity {
        headers.append(header::VARY, HeaderValue::from_static("X-Auth-Token"));
    }
    if unauthorized {
        let path = if service == Service::Identity { "/v3" } else { "" };
        let uri = base.link_to(Service::Identity, path);
        if let Ok(value) = HeaderValue::from_str(&format!("Keystone uri=\"{uri}\"")) {
            headers.insert(header::WWW_AUTHENTICATE, value);
        }
    }
}
