//! What the docker verbs have at hand: calls of the Docker door, queries, and fields of answers.

use crate::cli::{failure::Result, raw::escape, session::Session};
use api::client::DockerBody;
use hyper::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A path of names and words.
pub fn path(parts: &[&str]) -> String {
    parts.iter().map(|part| format!("/{}", escape(part))).collect()
}

/// A path of an image, whose name has slashes of its own.
pub fn image_path(name: &str, rest: &str) -> String {
    let name = name.split('/').map(escape).collect::<Vec<_>>().join("/");
    format!("/images/{name}{rest}")
}

/// The query of a call; what is empty is left out.
pub fn query(pairs: &[(&str, &str)]) -> String {
    let given = pairs.iter().filter(|(_, value)| !value.is_empty());
    let text: Vec<String> = given.map(|(name, value)| format!("{name}={}", escape(value))).collect();
    if text.is_empty() { String::new() } else { format!("?{}", text.join("&")) }
}

/// `1` or nothing.
pub fn flag(value: bool) -> &'static str {
    if value { "1" } else { "" }
}

/// Filters (`-f KEY=VALUE`) as the door takes them.
///
/// # Errors
/// One has no `=`.
pub fn filters(texts: &[String]) -> Result<String> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for text in texts {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            crate::cli::failure::Failure::usage(format!(
                "invalid argument {text:?} for --filter: bad format of filter"
            ))
            .hint("write KEY=VALUE")
        })?;
        all.entry(key.trim()).or_default().push(value.trim());
    }
    Ok(if all.is_empty() { String::new() } else { json!(all).to_string() })
}

/// GET of JSON.
///
/// # Errors
/// As the door refuses.
pub async fn get(session: &Session, path: &str) -> Result<Value> {
    Ok(session.client.docker(Method::GET, path, DockerBody::Empty).await?)
}

/// POST of nothing or of JSON.
///
/// # Errors
/// As the door refuses.
pub async fn post(session: &Session, path: &str, body: Option<Value>) -> Result<Value> {
    let body = body.map_or(DockerBody::Empty, DockerBody::Json);
    Ok(session.client.docker(Method::POST, path, body).await?)
}

/// A field that is a text.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// A field that is a number.
pub fn number(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap_or_default()
}

/// The elements of a field that is a list.
pub fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// Pairs as docker's lists write them: `a=b,c=d`.
pub fn pairs(value: &Value) -> String {
    let all = value.as_object().into_iter().flatten();
    all.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect::<Vec<_>>()
        .join(",")
}
