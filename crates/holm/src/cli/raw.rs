//! `holm api`: a call of the API as it is, for what has no command and for trying things out.

use super::{
    failure::{Failure, Result},
    output::{self, Format},
    session::Session,
};
use hyper::Method;
use serde_json::Value;
use std::io::Read;

/// Most bytes of a body that is read from a file or standard input.
const BODY_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A call.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  holm api GET /v1/instances
  holm api POST /v1/networks '{\"name\": \"lan\"}'
  holm api PATCH /v1/instances/db --file change.json
The calls are described at /openapi.json.")]
pub struct ApiArgs {
    /// GET, POST, PUT, PATCH or DELETE
    #[arg(value_name = "METHOD", ignore_case = true, value_parser = ["GET", "POST", "PUT", "PATCH", "DELETE"])]
    pub method: String,
    /// Path, like /v1/instances
    #[arg(value_name = "PATH")]
    pub path: String,
    /// JSON to send
    #[arg(value_name = "JSON", conflicts_with = "file")]
    pub body: Option<String>,
    /// File with the JSON to send; - for standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// As the server refuses, or the body is no JSON.
pub async fn run(session: &Session, args: &ApiArgs) -> Result {
    let method = Method::from_bytes(args.method.to_uppercase().as_bytes()).map_err(Failure::usage)?;
    let path = if args.path.starts_with('/') { args.path.clone() } else { format!("/{}", args.path) };
    let text = match (&args.body, args.file.as_deref()) {
        (Some(text), _) => Some(text.clone()),
        (None, Some(file)) => Some(read(file)?),
        (None, None) => None,
    };
    let body: Option<Value> = text
        .map(|text| {
            serde_json::from_str(&text).map_err(|e| Failure::usage(format!("the body is no JSON: {e}")))
        })
        .transpose()?;
    let is_delete = method == Method::DELETE;
    let answer: Value =
        match session.client.call(method, &path, body.as_ref(), Some(super::wait_s_max())).await {
            // An answer without a body is a success that has nothing to say.
            Err(api::client::Error::Protocol(text))
                if text.ends_with("answered nothing") || is_delete && text.contains("EOF") =>
            {
                return Ok(());
            }
            other => other?,
        };
    match session.printer.format {
        Some(Format::Yaml) => output::write(output::yaml(&answer)?.as_bytes()),
        _ => output::write(output::json(&answer)?.as_bytes()),
    }
}

fn read(file: &str) -> Result<String> {
    let mut text = String::new();
    let done = if file == "-" {
        std::io::stdin().lock().take(BODY_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(BODY_BYTES_MAX).read_to_string(&mut text))
    };
    done.map(|_| text).map_err(|e| Failure::local(format!("cannot read {file}"), &e))
}

/// Percent-encodes everything but unreserved characters (RFC 3986, section 2.3), for a part of a path.
pub fn escape(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => (byte as char).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
