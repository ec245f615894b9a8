//! JSON patches of images: the form of version 2.1 (RFC 6902) and the older one of version 2.0.
//!
//! ```text
//!   application/openstack-images-v2.1-json-patch   [{"op": "replace", "path": "/name", "value": "x"}]
//!   application/openstack-images-v2.0-json-patch   [{"replace": "/name", "value": "x"}]
//! ```

use crate::openstack::{Fault, Result};
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value};

/// Most operations of one patch.
pub const OPERATIONS_MAX: usize = 256;

/// One change of one attribute.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// The attribute.
    pub key: String,
    /// What it becomes; `None` takes it away.
    pub value: Option<Value>,
    /// It must be there already.
    pub must_exist: bool,
}

/// Reads a patch.
///
/// # Errors
/// 415 for another content type, 400 for what is no patch.
pub fn read(headers: &HeaderMap, body: Value) -> Result<Vec<Operation>> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let is_old = match kind.split(';').next().unwrap_or("").trim() {
        "application/openstack-images-v2.1-json-patch" => false,
        "application/openstack-images-v2.0-json-patch" => true,
        _ => {
            let message = "A patch is of the type application/openstack-images-v2.1-json-patch.";
            return Err(Fault::status(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
    };
    let Value::Array(changes) = body else {
        return Err(Fault::invalid("Request body must be a JSON array of operation objects."));
    };
    if changes.len() > OPERATIONS_MAX {
        return Err(Fault::status(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("A patch has at most {OPERATIONS_MAX} operations."),
        ));
    }
    changes.into_iter().map(|change| one(change, is_old)).collect()
}

fn one(change: Value, is_old: bool) -> Result<Operation> {
    let Value::Object(mut change) = change else {
        return Err(Fault::invalid("Operations must be JSON objects."));
    };
    let (verb, path) = if is_old { old_form(&change)? } else { new_form(&change)? };
    let key = key_of(&path)?;
    let value = change.remove("value");
    match (verb.as_str(), value) {
        ("remove", _) => Ok(Operation { key, value: None, must_exist: true }),
        ("add" | "replace", None) => {
            Err(Fault::invalid(format!("Operation \"{verb}\" requires a member named \"value\".")))
        }
        ("add" | "replace", value) => Ok(Operation { key, value, must_exist: verb == "replace" }),
        _ => Err(Fault::invalid(format!("Operation {verb:?} is none of add, remove and replace."))),
    }
}

fn new_form(change: &Map<String, Value>) -> Result<(String, String)> {
    let text = |key: &str| {
        let found = change.get(key).and_then(Value::as_str);
        found
            .map(str::to_string)
            .ok_or_else(|| Fault::invalid(format!("Unable to find '{key}' in JSON Schema change")))
    };
    Ok((text("op")?, text("path")?))
}

fn old_form(change: &Map<String, Value>) -> Result<(String, String)> {
    let mut found =
        ["add", "remove", "replace"].into_iter().filter_map(|verb| Some((verb, change.get(verb)?.as_str()?)));
    match (found.next(), found.next()) {
        (Some((verb, path)), None) => Ok((verb.to_string(), path.to_string())),
        _ => Err(Fault::invalid(
            "Operation objects must contain exactly one of \"add\", \"remove\" or \"replace\".",
        )),
    }
}

/// The attribute that a JSON pointer (RFC 6901) names: one step, and no place inside it.
fn key_of(path: &str) -> Result<String> {
    let wrong = || Fault::invalid(format!("Invalid JSON pointer for this resource: '{path}'"));
    let token = path.strip_prefix('/').ok_or_else(wrong)?;
    if token.is_empty() || token.contains('/') {
        // The one deeper place that clients try is refused by its attribute.
        return if token.starts_with("locations/") { Ok("locations".into()) } else { Err(wrong()) };
    }
    let bytes = token.as_bytes();
    let is_escape = |at: usize| matches!(bytes.get(at + 1), Some(b'0' | b'1'));
    if bytes.iter().enumerate().any(|(at, byte)| *byte == b'~' && !is_escape(at)) {
        return Err(Fault::invalid(format!(
            "Pointer {path} contains \"~\" not part of a recognized escape sequence."
        )));
    }
    Ok(token.replace("~1", "/").replace("~0", "~"))
}

/// Attributes that every image has cannot be taken away.
///
/// # Errors
/// 403.
pub fn refuse_removal_of_own(key: &str) -> Result<()> {
    const OWN: [&str; 11] = [
        "id",
        "name",
        "visibility",
        "protected",
        "os_hidden",
        "tags",
        "min_disk",
        "min_ram",
        "disk_format",
        "container_format",
        "owner",
    ];
    if OWN.contains(&key) {
        return Err(Fault::forbidden(format!("Property {key} may not be removed.")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patch(kind: &str, body: Value) -> Result<Vec<Operation>> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        read(&headers, body)
    }

    const NEW: &str = "application/openstack-images-v2.1-json-patch";

    #[test]
    fn both_forms_are_read() {
        let wanted = vec![
            Operation { key: "name".into(), value: Some(json!("x")), must_exist: true },
            Operation { key: "a/b~c".into(), value: Some(json!("y")), must_exist: false },
            Operation { key: "z".into(), value: None, must_exist: true },
        ];
        let new = json!([
            {"op": "replace", "path": "/name", "value": "x"},
            {"op": "add", "path": "/a~1b~0c", "value": "y"},
            {"op": "remove", "path": "/z"},
        ]);
        assert_eq!(patch(NEW, new).unwrap(), wanted);
        let old = json!([
            {"replace": "/name", "value": "x"}, {"add": "/a~1b~0c", "value": "y"}, {"remove": "/z"},
        ]);
        assert_eq!(patch("application/openstack-images-v2.0-json-patch", old).unwrap(), wanted);
    }

    #[test]
    fn what_is_no_patch_is_refused() {
        for (kind, body, status) in [
            ("application/json", json!([]), 415),
            (NEW, json!({}), 400),
            (NEW, json!(["x"]), 400),
            (NEW, json!([{"op": "move", "path": "/a", "value": 1}]), 400),
            (NEW, json!([{"op": "add", "path": "/a"}]), 400),
            (NEW, json!([{"op": "add", "path": "a", "value": 1}]), 400),
            (NEW, json!([{"op": "add", "path": "/a/b", "value": 1}]), 400),
            (NEW, json!([{"op": "add", "path": "/a~2", "value": 1}]), 400),
            ("application/openstack-images-v2.0-json-patch", json!([{"add": "/a", "remove": "/b"}]), 400),
            (NEW, Value::Array(vec![json!({"op": "remove", "path": "/a"}); OPERATIONS_MAX + 1]), 413),
        ] {
            let fault = patch(kind, body.clone()).unwrap_err();
            assert_eq!(fault.status_in(crate::openstack::Service::Image).as_u16(), status, "{body}");
        }
    }
}
