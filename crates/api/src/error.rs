//! Refusals on the wire: one form for every error of this door.
//!
//! Handlers give a [`Failure`]; it travels as an extension of an empty answer, and the outermost layer, which knows
//! the request's id, writes the body. So nothing between can answer an error in another form.

use crate::v1::types::error::{ErrorBody, ErrorDetail};
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use control::Error;
use model::error::Code;

/// What every handler gives.
pub type Result<T> = std::result::Result<T, Failure>;

/// A refusal on its way out.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What and why.
    pub error: Error,
    /// Status where it is not the code's own.
    pub status: Option<StatusCode>,
    /// An operation tells of it already.
    pub is_noted: bool,
}

impl Failure {
    /// A failure by code and message.
    pub fn new(code: Code, message: impl std::fmt::Display) -> Self {
        Error::new(code, message).into()
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl std::fmt::Display) -> Self {
        self.error = self.error.hint(hint);
        self
    }

    /// The same with the field that was wrong.
    #[must_use]
    pub fn field(mut self, field: &str) -> Self {
        self.error = self.error.field(field);
        self
    }

    fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| {
            StatusCode::from_u16(self.error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, status: None, is_noted: false }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the body of an answer that carries a failure; gives others back as they are.
pub fn finish(mut response: Response, request_id: &str) -> Response {
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        let code = failure.error.code;
        if code == Code::Internal {
            tracing::error!(request_id, error = %failure.error.message, "a call failed");
        }
        let body = ErrorBody {
            error: ErrorDetail {
                code,
                message: failure.error.message,
                hint: failure.error.hint,
                field: failure.error.field,
                request_id: request_id.to_string(),
            },
        };
        let bytes = serde_json::to_vec(&body).expect("strings and a code become JSON");
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if code == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        *response.body_mut() = Body::from(bytes);
    }
    response
}
