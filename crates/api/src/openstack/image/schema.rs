//! JSON schemas of images and members, which clients read to know what they may send.

use crate::openstack::{Door, Fault, Result, Session};
use crate::routing::{Router, get};
use axum::{Json, extract::Path, http::StatusCode};
use serde_json::{Value, json};

/// The schema of an image, as Glance gives it.
const IMAGE: &str = include_str!("image_schema.json");

/// The routes.
pub fn router() -> Router<Door> {
    Router::new().route("/v2/schemas/{name}", get(show))
}

async fn show(_session: Session, Path(name): Path<String>) -> Result<Json<Value>> {
    let missing = || Fault::status(StatusCode::NOT_FOUND, "The resource could not be found.");
    schema(&name).map(Json).ok_or_else(missing)
}

fn schema(name: &str) -> Option<Value> {
    Some(match name {
        "image" => image(),
        "images" => collection("images", image()),
        "member" => member(),
        "members" => json!({
            "name": "members",
            "properties": {
                "members": { "type": "array", "items": member() },
                "schema": { "type": "string" },
            },
            "links": [{ "rel": "describedby", "href": "{schema}" }],
        }),
        "task" => task(),
        "tasks" => collection("tasks", task()),
        _ => return None,
    })
}

fn image() -> Value {
    serde_json::from_str(IMAGE).expect("the schema in this crate is JSON")
}

/// A list in pages.
fn collection(name: &str, item: Value) -> Value {
    json!({
        "name": name,
        "properties": {
            name: { "type": "array", "items": item },
            "first": { "type": "string" },
            "next": { "type": "string" },
            "schema": { "type": "string" },
        },
        "links": [
            { "rel": "first", "href": "{first}" },
            { "rel": "next", "href": "{next}" },
            { "rel": "describedby", "href": "{schema}" },
        ],
    })
}

fn member() -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    json!({
        "name": "member",
        "properties": {
            "image_id": {
                "type": "string",
                "description": "An identifier for the image",
                "pattern": "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$",
            },
            "member_id": text("An identifier for the image member (tenantId)"),
            "status": {
                "type": "string",
                "description": "The status of this image member",
                "enum": ["pending", "accepted", "rejected"],
            },
            "created_at": text("Date and time of image member creation"),
            "updated_at": text("Date and time of last modification of image member"),
            "schema": { "type": "string", "readOnly": true },
        },
    })
}

fn task() -> Value {
    let text = || json!({ "type": "string", "readOnly": true });
    let maybe = |kind: &str| json!({ "type": ["null", kind] });
    json!({
        "name": "task",
        "properties": {
            "id": text(),
            "type": { "type": "string", "enum": ["api_image_import"] },
            "status": { "type": "string", "enum": ["pending", "processing", "success", "failure"] },
            "message": text(),
            "owner": text(),
            "image_id": text(),
            "request_id": text(),
            "user_id": maybe("string"),
            "input": maybe("object"),
            "result": maybe("object"),
            "created_at": text(),
            "updated_at": text(),
            "expires_at": maybe("string"),
            "self": text(),
            "schema": text(),
        },
    })
}
