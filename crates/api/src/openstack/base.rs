//! Where the client reaches us: the beginning of every link.

use super::{
    door::{Door, Service},
    fault::Fault,
};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts, uri::Authority},
};

/// The address under which the client reached the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    origin: String,
    service: Service,
}

impl Base {
    /// The base of a call: the operator's address if there is one, else the one that the client named.
    pub(super) fn of(door: &Door, service: Service, headers: &HeaderMap) -> Self {
        let named = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = named.filter(|host| host.parse::<Authority>().is_ok()).unwrap_or("localhost");
        let settings = door.settings();
        let scheme = if settings.is_tls { "https" } else { "http" };
        let origin = match &settings.public_url {
            Some(url) => url.trim_end_matches('/').to_string(),
            None => format!("{scheme}://{host}"),
        };
        Self { origin, service }
    }

    /// A link inside this service: `path` begins with a slash, like `/v2.1/servers/1`.
    pub fn link(&self, path: &str) -> String {
        self.link_to(self.service, path)
    }

    /// A link to what belongs to no service: `path` begins with a slash, like `/console/vnc`.
    pub fn link_to_root(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// A link into another service.
    pub fn link_to(&self, service: Service, path: &str) -> String {
        format!("{}{}{path}", self.origin, service.path())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Base {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Fault> {
        let base = parts.extensions.get::<Self>().cloned();
        Ok(base.expect("the frame of every service puts it there"))
    }
}
