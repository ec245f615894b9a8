//! Who asks: the session that a client shows as `X-Auth-Token`.

use super::fault::{Fault, Result};
use axum::{
    extract::FromRequestParts,
    http::{HeaderName, request::Parts},
};
use control::Caller;
use model::{domain::domain_text, error::Code};
use std::{ops::Deref, sync::Arc};

/// Header with the client's session.
pub const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-auth-token");

/// A session in a project, with a role that means something there: what every service but Identity asks for.
///
/// It derefs to [`control::session::Session`]: the user's record, the project's, roles, the credential, times.
#[derive(Debug, Clone)]
pub struct Session {
    /// Who asks, for `control`: project, level, name for the record, id of the request.
    pub caller: Caller,
    known: Arc<control::session::Session>,
}

impl Session {
    /// The user's id, as clients see it: 32 hex digits.
    pub fn user_id(&self) -> String {
        self.known.user.record.id.hex()
    }

    /// The user's name.
    pub fn user_name(&self) -> &str {
        self.known.user.record.name.as_str()
    }

    /// The id of the user's domain, as clients see it.
    pub fn user_domain_id(&self) -> String {
        domain_text(self.known.user.record.domain)
    }

    /// The id of the project, as clients see it: 32 hex digits.
    pub fn project_id(&self) -> String {
        self.caller.project.hex()
    }

    /// Names of all roles, implied ones included.
    pub fn role_names(&self) -> Vec<&str> {
        self.known.roles.iter().map(|r| r.record.name.as_str()).collect()
    }

    /// Refuses all but those who run the cloud.
    ///
    /// # Errors
    /// 403, with the rule as OpenStack names it, like `os_compute_api:os-hypervisors:list`.
    pub fn require_admin(&self, rule: &str) -> Result<()> {
        if self.known.is_admin() {
            return Ok(());
        }
        Err(Fault::forbidden(format!("Policy doesn't allow {rule} to be performed.")))
    }
}

impl Deref for Session {
    type Target = control::session::Session;
    fn deref(&self) -> &Self::Target {
        &self.known
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        let Bearer { session, request_id } = bearer(parts)?;
        match session.caller(&request_id) {
            Some(caller) => Ok(Self { caller, known: session }),
            None if session.project().is_none() => Err(Fault::new(
                Code::Forbidden,
                "This call works in a project: the token must be scoped to one.",
            )),
            None => Err(Fault::forbidden("None of the token's roles means something in this service.")),
        }
    }
}

/// Any session, scoped or not: what Identity asks for.
#[derive(Debug, Clone)]
pub struct Bearer {
    /// The session.
    pub session: Arc<control::session::Session>,
    /// Id of the request.
    pub request_id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Bearer {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        bearer(parts)
    }
}

/// The frame has looked at the token already.
fn bearer(parts: &Parts) -> Result<Bearer> {
    parts.extensions.get::<Bearer>().cloned().ok_or_else(Fault::unauthorized)
}
