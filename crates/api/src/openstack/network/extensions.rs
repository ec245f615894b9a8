//! `/v2.0/extensions`: what beyond Neutron's core is served here. What is not in this list is refused or ignored as a
//! cloud without it would.

use crate::openstack::{Door, Fault, Result, Session};
use crate::routing::{Router, get};
use axum::{Json, extract::Path};
use serde_json::{Value, json};

/// Alias, name and what it brings.
const EXTENSIONS: &[(&str, &str, &str)] = &[
    ("address-scope", "Address scope", "Spaces in which addresses of subnet pools are unique"),
    ("agent", "agent", "Agents; this cloud has none"),
    ("allowed-address-pairs", "Allowed Address Pairs", "Further senders behind a port"),
    ("availability_zone", "Availability Zone", "Availability zones"),
    ("default-subnetpools", "Default Subnetpools", "A pool that is used where none is named"),
    ("empty-string-filtering", "Empty String Filtering Extension", "Filters by nothing"),
    ("external-net", "Neutron external network", "Networks that lead outside"),
    ("ext-gw-mode", "Neutron L3 Configurable external gateway mode", "Gateways with and without SNAT"),
    ("extraroute", "Neutron Extra Route", "Extra routes of routers"),
    ("extraroute-atomic", "Atomically add/remove extra routes", "Extra routes that come and go one by one"),
    ("filter-validation", "Filter parameters validation", "Unknown filters are refused"),
    ("fip-port-details", "Floating IP Port Details Extension", "The port of a floating IP in its view"),
    ("ip-substring-filtering", "IP address substring filtering", "Ports by a part of an address"),
    ("net-mtu", "Network MTU", "MTU of networks"),
    ("net-mtu-writable", "Network MTU (writable)", "MTU of networks that can be changed"),
    ("network_availability_zone", "Network Availability Zone", "Availability zones of networks"),
    ("network-ip-availability", "Network IP Availability", "How many addresses are left"),
    ("pagination", "Pagination support", "Lists in pages"),
    ("port-security", "Port Security", "Filtering on and off"),
    ("port-security-groups-filtering", "Port filtering on security groups", "Ports by security group"),
    ("project-id", "project_id field enabled", "project_id beside tenant_id"),
    ("quotas", "Quota management support", "Quotas"),
    ("quota-check-limit", "Quota engine limit check", "New limits are compared with what is used"),
    ("quota_details", "Quota details management support", "What is used of a quota"),
    ("router", "Neutron L3 Router", "Routers and floating IPs"),
    ("router_availability_zone", "Router Availability Zone", "Availability zones of routers"),
    ("security-group", "security-group", "Security groups and rules"),
    ("security-groups-normalized-cidr", "Normalized CIDR field for security group rules", "normalized_cidr"),
    ("service-type", "Neutron Service Type Management", "Service providers; this cloud has none"),
    ("sorting", "Sorting support", "Lists in order"),
    ("standard-attr-description", "standard-attr-description", "Descriptions"),
    ("standard-attr-revisions", "Resource revision numbers", "revision_number"),
    ("standard-attr-tag", "Tag support for resources with standard attribute", "Tags, and filters by tags"),
    ("standard-attr-timestamp", "Resource timestamps", "created_at and updated_at"),
    ("subnet-external-network", "Subnet belongs to an external network", "router:external of subnets"),
    ("subnet-service-types", "Subnet service types", "service_types; always empty here"),
    ("subnet_allocation", "Subnet Allocation", "Subnets from pools"),
    ("subnetpool-prefix-ops", "Subnet Pool Prefix Operations", "Pools that grow"),
    ("tag-creation", "Tag creation extension", "Several tags at once"),
    (
        "aap-reject-multicast",
        "Allowed address pairs reject multicast extension",
        "No multicast address pairs",
    ),
    ("availability_zone_filter", "Availability Zone Filter Extension", "Filters for availability zones"),
    ("binding", "Port Binding", "Where a port is plugged"),
    ("security-groups-shared-filtering", "Security group filtering on the shared field", "shared of groups"),
];
/// When the list was last looked over.
const UPDATED: &str = "2026-11-29T00:00:00-00:00";

/// The routes of extensions.
pub fn router() -> Router<Door> {
    Router::new().route("/v2.0/extensions", get(list)).route("/v2.0/extensions/{alias}", get(show))
}

fn view((alias, name, description): &(&str, &str, &str)) -> Value {
    json!({ "alias": alias, "name": name, "description": description, "updated": UPDATED, "links": [] })
}

async fn list(_session: Session) -> Json<Value> {
    Json(json!({ "extensions": EXTENSIONS.iter().map(view).collect::<Vec<_>>() }))
}

async fn show(_session: Session, Path(alias): Path<String>) -> Result<Json<Value>> {
    let found = EXTENSIONS.iter().find(|(known, _, _)| *known == alias);
    let missing = || Fault::not_found("Extension", &alias).kind("ExtensionNotFound");
    found.map(|extension| Json(json!({ "extension": view(extension) }))).ok_or_else(missing)
}
