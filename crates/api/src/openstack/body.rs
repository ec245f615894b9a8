//! JSON bodies.

use super::fault::{Fault, Result};
use crate::request::read_body;
use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;

/// A JSON body, whatever its content type says: clients of these APIs differ in what they call it.
///
/// Read it as `Body<Wrapped>` with a struct, or as `Body<serde_json::Value>`. Fields that a service would refuse are
/// refused with `#[serde(deny_unknown_fields)]`.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, _state: &S) -> Result<Self> {
        let bytes = read_body(request.into_body())
            .await
            .map_err(|failure| Fault { status: failure.status, ..Fault::from(failure.error) })?;
        read(&bytes).map(Self)
    }
}

/// Reads a JSON body that was collected already.
///
/// # Errors
/// 400, with the path of the field.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if !inner.is_data() {
            return Fault::invalid("Malformed request body: it is no JSON.");
        }
        let message = inner.to_string();
        let plain = message.rsplit_once(" at line ").map_or(message.as_str(), |(text, _)| text);
        Fault::invalid(format!("Invalid input for field/attribute {path}. {plain}."))
    })?;
    reader.end().map_err(|_| Fault::invalid("Malformed request body: something follows the JSON."))?;
    Ok(value)
}
