//! The catalog: which services there are and where. It is made of the door itself, so it cannot be changed here.

use super::listing::list;
use crate::openstack::{
    base::Base,
    door::{Door, Service},
    fault::{Fault, Result},
    query::Query,
    session::Bearer,
};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
};
use control::access::Realm;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const INTERFACES: [&str; 3] = ["public", "internal", "admin"];

/// Services of the catalog: type and name. Block storage is there under its old type too, for older clients.
fn services() -> impl Iterator<Item = (Service, &'static str, &'static str)> {
    let own = Service::ALL.into_iter().map(|s| (s, s.kind(), s.name()));
    own.chain([(Service::Volume, "volumev3", "cinderv3")])
}

/// The routes: looking at what the catalog is made of.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v3/services", get(list_services))
        .route("/v3/services/{id}", get(show_service))
        .route("/v3/endpoints", get(list_endpoints))
        .route("/v3/endpoints/{id}", get(show_endpoint))
        .route("/v3/regions", get(list_regions))
        .route("/v3/regions/{id}", get(show_region))
}

/// An id that is the same at every start: 32 hex digits.
fn id(words: &[&str]) -> String {
    hex::encode(&Sha256::digest(words.join("/").as_bytes())[..16])
}

/// The catalog of a token.
pub fn view(door: &Door, base: &Base) -> Value {
    let region = &door.settings().region;
    services()
        .map(|(service, kind, name)| {
            let endpoints = INTERFACES.map(|interface| {
                json!({
                    "id": id(&["endpoint", kind, interface]),
                    "interface": interface,
                    "region_id": region,
                    "region": region,
                    "url": base.link_to(service, service.endpoint()),
                })
            });
            json!({ "id": id(&["service", kind]), "type": kind, "name": name, "endpoints": endpoints })
        })
        .collect()
}

fn service_views(base: &Base) -> Vec<Value> {
    let view = |(_, kind, name): (Service, &str, &str)| {
        let id = id(&["service", kind]);
        let own = base.link(&format!("/v3/services/{id}"));
        json!({
            "id": id, "type": kind, "name": name, "enabled": true, "description": "", "links": { "self": own },
        })
    };
    services().map(view).collect()
}

fn endpoint_views(door: &Door, base: &Base) -> Vec<Value> {
    let region = &door.settings().region;
    let all = services().flat_map(|(service, kind, _)| INTERFACES.map(|i| (service, kind, i)));
    all.map(|(service, kind, interface)| {
        let id = id(&["endpoint", kind, interface]);
        json!({
            "id": id,
            "interface": interface,
            "service_id": self::id(&["service", kind]),
            "region_id": region,
            "region": region,
            "enabled": true,
            "url": base.link_to(service, service.endpoint()),
            "links": { "self": base.link(&format!("/v3/endpoints/{id}")) },
        })
    })
    .collect()
}

fn region_views(door: &Door, base: &Base) -> Vec<Value> {
    let id = &door.settings().region;
    let own = base.link(&format!("/v3/regions/{id}"));
    vec![json!({ "id": id, "description": "", "parent_region_id": null, "links": { "self": own } })]
}

fn one(word: &str, all: Vec<Value>, id: &str) -> Result<Json<Value>> {
    let found = all.into_iter().find(|item| item["id"] == id);
    let found = found.ok_or_else(|| Fault::from(control::access::missing(word, id)))?;
    Ok(Json(json!({ word: found })))
}

fn check(asker: &Bearer, rule: &str) -> Result<()> {
    Ok(asker.session.allow(asker.session.looks(Realm::Cloud), rule)?)
}

async fn list_services(base: Base, query: Query, asker: Bearer) -> Result<Json<Value>> {
    check(&asker, "identity:list_services")?;
    Ok(Json(list("services", service_views(&base), &base, &query)?))
}

async fn show_service(base: Base, Path(id): Path<String>, asker: Bearer) -> Result<Json<Value>> {
    check(&asker, "identity:get_service")?;
    one("service", service_views(&base), &id)
}

async fn list_endpoints(
    State(door): State<Door>,
    base: Base,
    query: Query,
    asker: Bearer,
) -> Result<Json<Value>> {
    check(&asker, "identity:list_endpoints")?;
    Ok(Json(list("endpoints", endpoint_views(&door, &base), &base, &query)?))
}

async fn show_endpoint(
    State(door): State<Door>,
    base: Base,
    Path(id): Path<String>,
    asker: Bearer,
) -> Result<Json<Value>> {
    check(&asker, "identity:get_endpoint")?;
    one("endpoint", endpoint_views(&door, &base), &id)
}

/// Everyone may know the regions.
async fn list_regions(State(door): State<Door>, base: Base, query: Query, _: Bearer) -> Result<Json<Value>> {
    Ok(Json(list("regions", region_views(&door, &base), &base, &query)?))
}

async fn show_region(
    State(door): State<Door>,
    base: Base,
    Path(id): Path<String>,
    _: Bearer,
) -> Result<Json<Value>> {
    one("region", region_views(&door, &base), &id)
}
