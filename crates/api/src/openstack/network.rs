//! Network: Neutron's API, version 2.0.
//!
//! ```text
//!   body ─► attributes ─► control (one transaction, names may be shared) ─► view ─► reply
//!                            └─► refusal: control's errors under Neutron's names
//!   list ─► listing: what the caller may see, filters by every attribute, order, pages, fields
//! ```
//!
//! A resource is a noun of the native door and nothing beside: tags are labels, an empty name is one that was made up,
//! rules live in their group.

mod address_scopes;
mod attributes;
mod extensions;
mod floating_ips;
mod head;
mod inventory;
mod listing;
mod networks;
mod ports;
mod quotas;
mod refusal;
mod routers;
mod security_group_rules;
mod security_groups;
mod subnet_pools;
mod subnets;
mod tags;

use super::{base::Base, door::Door, session::Session};
use crate::routing::{Router, get};
use axum::Json;
use serde_json::{Value, json};

/// Resources that the version document names, with their collections.
const RESOURCES: [(&str, &str); 4] =
    [("network", "networks"), ("subnet", "subnets"), ("subnetpool", "subnetpools"), ("port", "ports")];

/// The routes of the service.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/", get(versions))
        .route("/v2.0", get(resources))
        .route("/v2.0/", get(resources))
        .merge(networks::router())
        .merge(subnets::router())
        .merge(ports::router())
        .merge(routers::router())
        .merge(floating_ips::router())
        .merge(security_groups::router())
        .merge(security_group_rules::router())
        .merge(subnet_pools::router())
        .merge(address_scopes::router())
        .merge(quotas::router())
        .merge(tags::router())
        .merge(extensions::router())
        .merge(inventory::router())
}

async fn versions(base: Base) -> Json<Value> {
    let links = json!([{ "rel": "self", "href": base.link("/v2.0/") }]);
    Json(json!({ "versions": [{ "id": "v2.0", "status": "CURRENT", "links": links }] }))
}

async fn resources(base: Base, _session: Session) -> Json<Value> {
    let resources = RESOURCES.map(|(name, collection)| {
        let links = json!([{ "rel": "self", "href": base.link(&format!("/v2.0/{collection}")) }]);
        json!({ "name": name, "collection": collection, "links": links })
    });
    Json(json!({ "resources": resources }))
}
