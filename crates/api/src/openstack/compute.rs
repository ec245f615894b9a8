//! Compute: Nova's API, version 2.1 with microversions.

mod attachment;
mod extension;
mod flavor;
mod form;
mod host;
mod image;
mod instance_action;
mod interface;
mod keypair;
mod quota;
mod security_group;
mod server;
mod server_group;
mod tag;
mod usage;

use super::{base::Base, door::Door, microversion::Microversion};
use crate::routing::{Router, get};
use axum::Json;
use serde_json::{Value, json};

/// The oldest microversion.
pub const MIN: Microversion = Microversion::new(2, 1);
/// The newest one.
pub const MAX: Microversion = Microversion::new(2, 96);

/// The routes of the service.
pub fn router() -> Router<Door> {
    let parts = [
        attachment::router(),
        extension::router(),
        flavor::router(),
        host::router(),
        image::router(),
        instance_action::router(),
        interface::router(),
        keypair::router(),
        quota::router(),
        security_group::router(),
        server::router(),
        server_group::router(),
        tag::router(),
        usage::router(),
    ];
    let root =
        Router::new().route("/", get(versions)).route("/v2.1", get(version)).route("/v2.1/", get(version));
    parts.into_iter().fold(root, Router::merge)
}

fn head() -> Value {
    json!({
        "id": "v2.1",
        "status": "CURRENT",
        "version": MAX.to_string(),
        "min_version": MIN.to_string(),
        "updated": "2013-07-23T11:33:21Z",
    })
}

async fn versions(base: Base) -> Json<Value> {
    let mut version = head();
    version["links"] = json!([{ "rel": "self", "href": base.link("/v2.1/") }]);
    // Clients of old look at the first entry; what it names has long been the same as the second one.
    let old = json!({
        "id": "v2.0",
        "status": "DEPRECATED",
        "version": "",
        "min_version": "",
        "updated": "2011-01-21T11:33:21Z",
        "links": [{ "rel": "self", "href": base.link("/v2/") }],
    });
    Json(json!({ "versions": [old, version] }))
}

async fn version(base: Base) -> Json<Value> {
    let mut version = head();
    version["links"] = json!([
        { "rel": "self", "href": base.link("/v2.1/") },
        { "rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/" },
    ]);
    version["media-types"] = json!([{
        "base": "application/json",
        "type": "application/vnd.openstack.compute+json;version=2.1",
    }]);
    Json(json!({ "version": version }))
}
