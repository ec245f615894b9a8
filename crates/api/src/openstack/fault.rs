//! Refusals: handlers give one kind, and the frame writes it in the form of the service that was called.
//!
//! ```text
//!   compute, volume  {"itemNotFound": {"code": 404, "message": "…"}}
//!   network          {"NeutronError": {"type": "NetworkNotFound", "message": "…", "detail": ""}}
//!   identity         {"error": {"code": 404, "message": "…", "title": "Not Found"}}
//!   image            an HTML page, as Glance has it
//!   placement        {"errors": [{"status": 404, "title": "Not Found", "detail": "…", "request_id": "…"}]}
//! ```

use super::door::Service;
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use control::Error;
use model::error::Code;
use serde_json::{Value, json};
use std::fmt::Display;

/// What every handler gives.
pub type Result<T> = std::result::Result<T, Fault>;

/// A refusal on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Kind.
    pub code: Code,
    /// Status where it is not the one that the service has for the code.
    pub status: Option<StatusCode>,
    /// Neutron's type of the error where it is not the one for the code, like `NetworkNotFound`.
    pub kind: Option<String>,
    /// What was refused and why.
    pub message: String,
}

impl Fault {
    /// A refusal by code and message.
    pub fn new(code: Code, message: impl Display) -> Self {
        Self { code, status: None, kind: None, message: message.to_string() }
    }

    /// A wrong value: 400.
    pub fn invalid(message: impl Display) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// `<Noun> <id> could not be found.`, and in Neutron's form the type `<Noun>NotFound`.
    pub fn not_found(noun: &str, id: impl Display) -> Self {
        let kind: String = noun.split_whitespace().map(capital).collect();
        Self::new(Code::NotFound, format!("{noun} {id} could not be found.")).kind(&format!("{kind}NotFound"))
    }

    /// The thing's state does not allow it: 409.
    pub fn conflict(message: impl Display) -> Self {
        Self::new(Code::Conflict, message)
    }

    /// Not for this caller: 403.
    pub fn forbidden(message: impl Display) -> Self {
        Self::new(Code::Forbidden, message)
    }

    /// Nobody proved who asks: 401, which all services write in Keystone's form.
    pub fn unauthorized() -> Self {
        control::session::refused().into()
    }

    /// A refusal by status.
    pub fn status(status: StatusCode, message: impl Display) -> Self {
        let code = match status.as_u16() {
            401 => Code::Unauthenticated,
            403 => Code::Forbidden,
            404 => Code::NotFound,
            409 => Code::Conflict,
            413 => Code::TooLarge,
            429 => Code::TooMany,
            503 => Code::Unavailable,
            504 => Code::Timeout,
            500 => Code::Internal,
            _ => Code::Invalid,
        };
        Self { status: Some(status), ..Self::new(code, message) }
    }

    /// The same with Neutron's type of the error.
    #[must_use]
    pub fn kind(mut self, kind: &str) -> Self {
        self.kind = Some(kind.to_string());
        self
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// The status that a service gives it.
    pub fn status_in(&self, service: Service) -> StatusCode {
        use Service::{Compute, Image, Network, Placement, Volume};
        let number = match (self.code, service) {
            (Code::QuotaExceeded, Network | Placement) => 409,
            (Code::QuotaExceeded, Image | Volume) => 413,
            // A real cloud without the extension refuses the value or does not know the path.
            (Code::Unsupported, _) => 400,
            (Code::NoCapacity, Compute) => 400,
            (code, _) => code.http_status(),
        };
        self.status.or(StatusCode::from_u16(number).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::new(error.code, error.message)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes a refusal in the form of a service.
pub(super) fn write(fault: &Fault, service: Service, request_id: &str) -> Response {
    let status = fault.status_in(service);
    let message = if status.is_server_error() && fault.code == Code::Internal {
        tracing::error!(request_id, error = %fault.message, "a call failed");
        "The server has either erred or is incapable of performing the requested operation."
    } else {
        fault.message.as_str()
    };
    if service == Service::Image && status != StatusCode::UNAUTHORIZED {
        return page(status, message);
    }
    let number = status.as_u16();
    let title = status.canonical_reason().unwrap_or("Error");
    let body = match service {
        _ if status == StatusCode::UNAUTHORIZED => keystone(number, title, message),
        Service::Identity | Service::Image => keystone(number, title, message),
        Service::Compute | Service::Volume => {
            json!({ element(number): { "code": number, "message": message } })
        }
        Service::Network => {
            let kind = fault.kind.as_deref().unwrap_or_else(|| neutron_type(fault.code));
            json!({ "NeutronError": { "type": kind, "message": message, "detail": "" } })
        }
        Service::Placement => json!({ "errors": [{
            "status": number, "title": title, "detail": message, "request_id": request_id,
        }] }),
    };
    let mut response = (status, body.to_string()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn keystone(number: u16, title: &str, message: &str) -> Value {
    json!({ "error": { "code": number, "message": message, "title": title } })
}

/// The element that Nova and Cinder wrap a refusal in.
fn element(status: u16) -> &'static str {
    match status {
        400 => "badRequest",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "itemNotFound",
        405 => "badMethod",
        409 => "conflictingRequest",
        413 | 429 => "overLimit",
        415 => "badMediaType",
        501 => "notImplemented",
        503 => "serviceUnavailable",
        _ => "computeFault",
    }
}

fn neutron_type(code: Code) -> &'static str {
    match code {
        Code::Invalid | Code::Unsupported | Code::TooLarge => "HTTPBadRequest",
        Code::Forbidden => "PolicyNotAuthorized",
        Code::NotFound => "HTTPNotFound",
        Code::Taken | Code::Conflict | Code::InUse | Code::NoCapacity => "Conflict",
        Code::QuotaExceeded => "OverQuota",
        Code::Unauthenticated => "Unauthorized",
        Code::TooMany => "HTTPTooManyRequests",
        Code::Unavailable | Code::Timeout => "HTTPServiceUnavailable",
        Code::Internal => "HTTPInternalServerError",
    }
}

fn page(status: StatusCode, message: &str) -> Response {
    let title = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or("Error"));
    let message = message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let text = format!(
        "<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n  {message}<br /><br />\n\n\n\n </body>\n</html>"
    );
    let kind = HeaderValue::from_static("text/html; charset=UTF-8");
    (status, [(header::CONTENT_TYPE, kind)], Body::from(text)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_and_nouns_are_refused_as_each_service_does() {
        let full = Fault::new(Code::QuotaExceeded, "full");
        for (service, status) in
            [(Service::Compute, 403), (Service::Network, 409), (Service::Volume, 413), (Service::Image, 413)]
        {
            assert_eq!(full.status_in(service).as_u16(), status, "{service:?}");
        }
        let missing = Fault::not_found("Security group", "x");
        assert_eq!(missing.kind.as_deref(), Some("SecurityGroupNotFound"));
        assert_eq!(missing.message, "Security group x could not be found.");
        assert_eq!(Fault::new(Code::Unsupported, "x").status_in(Service::Compute).as_u16(), 400);
    }
}
