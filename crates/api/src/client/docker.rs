//! Calls of the Docker door, which the native door has under `/docker`: what the command line's docker verbs speak.
//!
//! Answers are taken as the Engine API has them, as JSON. Nothing has a deadline but the connection: how long a pull, a
//! copy or a wait takes is the user's matter.

use super::{Client, Error, build, full, read_all, stream::Lines, upload};
use crate::v1::types::error::ErrorDetail;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body_util::BodyStream;
use hyper::{HeaderMap, Method, Response, StatusCode, body::Incoming, header};
use model::error::Code;
use serde_json::Value;
use std::io;
use tokio::io::AsyncRead;

/// Where the native door has it, and the version of the Engine API that is spoken.
const PREFIX: &str = "/docker/v1.47";
/// Credentials for a registry, for one call.
const REGISTRY_AUTH: &str = "x-registry-auth";

/// What is sent with a call.
pub enum DockerBody {
    /// Nothing.
    Empty,
    /// JSON.
    Json(Value),
    /// A tar, as it is read.
    Archive(Box<dyn AsyncRead + Send + Unpin>),
}

/// What a call answers line by line.
pub type DockerLines = Lines<Value>;

impl Client {
    /// A call that is answered with JSON, or with nothing (`null`). `path` has its query.
    ///
    /// # Errors
    /// What the door refuses, in its words.
    pub async fn docker(&self, method: Method, path: &str, body: DockerBody) -> Result<Value, Error> {
        let (answer, _) = self.docker_open(method, path, body, None).await?;
        let bytes = read_all(answer.into_body()).await?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|e| Error::Protocol(format!("the answer cannot be read: {e}")))
    }

    /// A call that is answered with lines of JSON as it goes on; `login` is for the registry that it speaks to.
    ///
    /// # Errors
    /// What the door refuses, in its words.
    pub async fn docker_lines(
        &self,
        method: Method,
        path: &str,
        body: DockerBody,
        login: Option<&str>,
    ) -> Result<DockerLines, Error> {
        let (answer, _) = self.docker_open(method, path, body, login).await?;
        Ok(Lines::new(answer.into_body()))
    }

    /// A call that is answered with bytes, with the headers of the answer.
    ///
    /// # Errors
    /// What the door refuses, in its words.
    pub async fn docker_bytes(
        &self,
        path: &str,
    ) -> Result<(HeaderMap, impl Stream<Item = io::Result<Bytes>> + Send + use<>), Error> {
        let (answer, headers) = self.docker_open(Method::GET, path, DockerBody::Empty, None).await?;
        let frames = BodyStream::new(answer.into_body());
        let bytes = frames.filter_map(async |frame| match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(io::Error::other(error))),
        });
        Ok((headers, bytes))
    }

    /// The headers that answer a question without a body.
    ///
    /// # Errors
    /// What the door refuses; a question that is answered without words is `not_found`.
    pub async fn docker_head(&self, path: &str) -> Result<HeaderMap, Error> {
        self.docker_open(Method::HEAD, path, DockerBody::Empty, None).await.map(|(_, headers)| headers)
    }

    async fn docker_open(
        &self,
        method: Method,
        path: &str,
        body: DockerBody,
        login: Option<&str>,
    ) -> Result<(Response<Incoming>, HeaderMap), Error> {
        let mut builder = self.request(method, &format!("{PREFIX}{path}"));
        if let Some(login) = login {
            builder = builder.header(REGISTRY_AUTH, login);
        }
        let body = match body {
            DockerBody::Empty => full(vec![]),
            DockerBody::Json(value) => {
                builder = builder.header(header::CONTENT_TYPE, "application/json");
                full(value.to_string().into_bytes())
            }
            DockerBody::Archive(reader) => {
                builder = builder.header(header::CONTENT_TYPE, "application/x-tar");
                upload::body_of(reader, |_| ())
            }
        };
        let answer = self.transport.send_alone(build(builder, body)?).await?;
        let status = answer.status();
        if status.is_success() {
            let headers = answer.headers().clone();
            return Ok((answer, headers));
        }
        let is_door = answer.headers().contains_key("api-version");
        let bytes = read_all(answer.into_body()).await?;
        Err(refused(status, is_door, &bytes))
    }
}

/// A refusal in the form of the Engine API.
fn refused(status: StatusCode, is_door: bool, bytes: &[u8]) -> Error {
    let told: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let (message, hint) = match told["message"].as_str() {
        Some(message) => (message.to_string(), String::new()),
        None if is_door => (status.canonical_reason().unwrap_or("refused").to_string(), String::new()),
        None if status == StatusCode::NOT_FOUND => {
            let hint = "start it without `--docker none`, or use holm's own commands";
            ("this holm does not serve docker's commands".to_string(), hint.to_string())
        }
        None => return Error::from_answer(status, bytes),
    };
    let code = match status {
        StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED | StatusCode::URI_TOO_LONG => Code::Invalid,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::Forbidden,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::CONFLICT => Code::Conflict,
        StatusCode::NOT_IMPLEMENTED => Code::Unsupported,
        _ => Code::Internal,
    };
    Error::Refused(Box::new(ErrorDetail { code, message, hint, field: None, request_id: String::new() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_in_the_doors_words() {
        let said = refused(StatusCode::NOT_FOUND, true, br#"{"message":"No such container: x"}"#);
        assert_eq!((said.code(), said.to_string().as_str()), (Code::NotFound, "No such container: x"));
        let closed =
            refused(StatusCode::NOT_FOUND, false, br#"{"error":{"code":"not_found","message":"x"}}"#);
        assert!(closed.hint().contains("--docker none"), "{closed}");
    }
}
