//! What runs the network, as far as this cloud has it: availability zones, agents, service providers, free addresses.

use super::{listing, refusal::About};
use crate::openstack::{Base, Door, Fault, Result, Session, query::Query};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
};
use control::Control;
use ipnet::IpNet;
use model::{network::Network, subnet::Subnet};
use serde_json::{Value, json};

/// The routes of all these.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.0/availability_zones", get(zones))
        .route("/v2.0/agents", get(agents))
        .route("/v2.0/agents/{id}", get(agent))
        .route("/v2.0/service-providers", get(providers))
        .route("/v2.0/network-ip-availabilities", get(availabilities))
        .route("/v2.0/network-ip-availabilities/{id}", get(availability))
}

async fn zones(_session: Session, base: Base, query: Query) -> Result<Json<Value>> {
    let zone = |resource: &str| json!({ "name": "nova", "resource": resource, "state": "available" });
    listing::reply(vec![zone("network"), zone("router")], "availability_zones", &base, &query).map(Json)
}

async fn agents(session: Session) -> Result<Json<Value>> {
    session.require_admin("get_agent")?;
    Ok(Json(json!({ "agents": [] })))
}

async fn agent(session: Session, Path(id): Path<String>) -> Result<Json<Value>> {
    session.require_admin("get_agent")?;
    Err(Fault::not_found("Agent", id))
}

async fn providers(_session: Session) -> Json<Value> {
    Json(json!({ "service_providers": [] }))
}

/// How many addresses a subnet has for ports.
fn size(subnet: &Subnet) -> u128 {
    let pools = subnet.effective_pools();
    let all: u128 = pools
        .iter()
        .map(|pool| model::address::to_number(pool.end) - model::address::to_number(pool.start))
        .fold(0, |sum, span| sum.saturating_add(span).saturating_add(1));
    let gateway = subnet.gateway.is_some_and(|gateway| pools.iter().any(|pool| pool.contains(gateway)));
    all.saturating_sub(u128::from(gateway))
}

/// JSON numbers have 64 bits here: beyond that the exact number matters to nobody.
fn number(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn view(control: &Control, network: &Network) -> Value {
    let taken = control.taken_addresses(network.meta.id);
    let subnets = control.subnets_of(network.meta.id);
    let used_in = |cidr: &IpNet| taken.iter().filter(|address| cidr.contains(*address)).count();
    let per_subnet: Vec<Value> = subnets
        .iter()
        .map(|subnet| {
            let record = &subnet.record;
            json!({
                "subnet_id": record.meta.id.to_string(),
                "subnet_name": record.meta.name.to_string(),
                "cidr": record.cidr.to_string(),
                "ip_version": if record.cidr.addr().is_ipv4() { 4 } else { 6 },
                "total_ips": number(size(record)),
                "used_ips": used_in(&record.cidr),
            })
        })
        .collect();
    let total = subnets.iter().fold(0u128, |sum, subnet| sum.saturating_add(size(&subnet.record)));
    let project = network.meta.project.hex();
    json!({
        "id": network.meta.id.to_string(),
        "network_id": network.meta.id.to_string(),
        "network_name": network.meta.name.to_string(),
        "tenant_id": project,
        "project_id": project,
        "total_ips": number(total),
        "used_ips": taken.len(),
        "subnet_ip_availability": per_subnet,
    })
}

async fn availabilities(
    State(door): State<Door>,
    session: Session,
    base: Base,
    query: Query,
) -> Result<Json<Value>> {
    session.require_admin("get_network_ip_availability")?;
    let all = listing::all::<Network>(door.control(), &session);
    let views = all.iter().map(|network| view(door.control(), &network.record)).collect();
    let mut reply = listing::reply(views, "network_ip_availabilities", &base, &query)?;
    for item in reply["network_ip_availabilities"].as_array_mut().into_iter().flatten() {
        without_id(item);
    }
    Ok(Json(reply))
}

/// Lists are paged by id; the resource itself has none of its own.
fn without_id(item: &mut Value) {
    if let Value::Object(map) = item {
        map.remove("id");
    }
}

async fn availability(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    session.require_admin("get_network_ip_availability")?;
    let found = listing::one::<Network>(door.control(), &session, About::Network, &id)?;
    let mut view = view(door.control(), &found.record);
    without_id(&mut view);
    Ok(Json(json!({ "network_ip_availability": view })))
}
