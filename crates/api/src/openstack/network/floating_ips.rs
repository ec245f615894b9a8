//! `/v2.0/floatingips`.

use super::{
    attributes::{self, Attributes, Bodies},
    head::with_head,
    listing, ports,
    refusal::About,
    subnets,
};
use crate::openstack::{Base, Door, Fault, Result, Session, audit::Deed, body::Body, query::Query, shape};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::{
    Control,
    floating_ip::{NewFloatingIp, TargetAsked},
};
use model::{
    error::Code, floating_ip::FloatingIp, id::PortId, network::Network, port::Port, security_group::Family,
};
use serde_json::{Value, json};
use std::{net::IpAddr, sync::Arc};
use store::Stored;

const ABOUT: About = About::FloatingIp;

/// The routes of floating IPs.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.0/floatingips", get(list).post(create))
        .route("/v2.0/floatingips/{id}", get(show).put(update).delete(delete))
}

/// A floating IP as clients see it.
pub fn view(control: &Control, floating: &FloatingIp) -> Value {
    let target = floating.target;
    let port = target.and_then(|target| control.get::<Port>(target.port));
    let details = port.map(|port| {
        let view = |port: &Port| {
            let (device_owner, device_id) = ports::user(port);
            json!({
                "name": super::head::name(&port.meta, "port", &port.meta.id.short()),
                "network_id": port.network.to_string(),
                "mac_address": port.mac.to_string(),
                "admin_state_up": port.admin_up,
                "status": ports::status(control, port),
                "device_id": device_id,
                "device_owner": device_owner,
            })
        };
        view(&port.record)
    });
    let rest = json!({
        "floating_ip_address": floating.address.to_string(),
        "floating_network_id": floating.network.to_string(),
        "router_id": target.map(|target| target.router.to_string()),
        "port_id": target.map(|target| target.port.to_string()),
        "fixed_ip_address": target.map(|target| target.address.to_string()),
        "status": if target.is_some() { "ACTIVE" } else { "DOWN" },
        "port_details": details,
    });
    let mut view = with_head(floating, "", "", rest);
    if let Value::Object(map) = &mut view {
        map.remove("name");
    }
    view
}

async fn list(State(door): State<Door>, session: Session, base: Base, query: Query) -> Result<Json<Value>> {
    let ports: Vec<PortId> = query.all("port_id").filter_map(|id| id.parse().ok()).collect();
    let all = match ports.is_empty() {
        true => listing::all::<FloatingIp>(door.control(), &session),
        false => {
            let shown = |f: &Arc<Stored<FloatingIp>>| {
                session.caller.sees(f.record.meta.project) && !f.record.internal
            };
            ports.iter().flat_map(|id| door.control().floating_of(*id)).filter(shown).collect()
        }
    };
    let views = all.iter().map(|floating| view(door.control(), &floating.record)).collect();
    listing::reply(views, "floatingips", &base, &query).map(Json)
}

async fn show(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<Value>> {
    let found = listing::one::<FloatingIp>(door.control(), &session, ABOUT, &id)?;
    Ok(Json(json!({ "floatingip": shape::fields(view(door.control(), &found.record), &query) })))
}

/// Where a body leads the floating IP: `None` where it says nothing, `Some(None)` for nowhere.
fn target_asked(
    control: &Control,
    session: &Session,
    known: Option<&FloatingIp>,
    body: &mut Attributes,
) -> Result<Option<Option<TargetAsked>>> {
    let named = body.nullable("port_id")?;
    let fixed = body.nullable("fixed_ip_address")?.flatten().filter(|text| !text.is_empty());
    let fixed = fixed.map(|text| attributes::address("fixed_ip_address", &text)).transpose()?;
    let port = match (named, fixed) {
        (Some(Some(port)), _) if !port.is_empty() => port,
        // Another address of the port that it leads to already.
        (None, Some(_)) => match known.and_then(|floating| floating.target) {
            Some(target) => target.port.to_string(),
            None => return Err(bad("fixed_ip_address cannot be specified without a port_id")),
        },
        (None, None) => return Ok(None),
        (Some(_), None) => return Ok(Some(None)),
        (Some(_), Some(_)) => return Err(bad("fixed_ip_address cannot be specified without a port_id")),
    };
    let found = ports::find(control, session, &port)?;
    let v4: Vec<IpAddr> = found.record.addresses.iter().map(|f| f.address).filter(IpAddr::is_ipv4).collect();
    match fixed {
        Some(address) if !found.record.addresses.iter().any(|f| f.address == address) => {
            return Err(bad(&format!("Port {port} does not have fixed ip {address}")));
        }
        None if v4.len() > 1 => {
            return Err(bad(&format!(
                "Port {port} has multiple fixed IPv4 addresses. Must provide a specific IPv4 address when assigning a floating IP"
            )));
        }
        None if v4.is_empty() => {
            return Err(bad(&format!(
                "Cannot add floating IP to port {port} that has no fixed IPv4 addresses"
            )));
        }
        _ => {}
    }
    Ok(Some(Some(TargetAsked::Port(port, fixed))))
}

fn bad(reason: &str) -> Fault {
    Fault::invalid(format!("Bad floatingip request: {reason}.")).kind("BadRequest")
}

/// Refusals of targets under Neutron's names.
fn refuse(error: control::Error) -> Fault {
    match (error.code, error.field.as_deref()) {
        (Code::Conflict, Some("target")) if error.message.contains("no router joins") => {
            ABOUT.refuse()(error)
                .kind("ExternalGatewayForFloatingIPNotFound")
                .with_status(StatusCode::NOT_FOUND)
        }
        (Code::Conflict, Some("target")) => ABOUT.refuse()(error).kind("FloatingIPPortAlreadyAssociated"),
        _ => ABOUT.refuse()(error),
    }
}

async fn create(State(door): State<Door>, session: Session, Body(body): Body<Value>) -> Result<Response> {
    let mut body = match Bodies::read(body, "floatingip", "floatingips")? {
        Bodies::One(body) => body,
        Bodies::Many(_) => return Err(bad("floating IPs are taken one at a time")),
    };
    let control = door.control();
    let owner = body.owner(control, &session.caller)?;
    let network = body.required("floating_network_id")?;
    let found = listing::one::<Network>(control, &session, About::Network, &network)?;
    if found.record.external().is_none() {
        return Err(bad(&format!("Network {network} is not a valid external network")));
    }
    let address = body.nullable("floating_ip_address")?.flatten().filter(|text| !text.is_empty());
    let mut address = address.map(|text| attributes::address("floating_ip_address", &text)).transpose()?;
    let subnet = body.nullable("subnet_id")?.flatten();
    let description = body.text("description")?.unwrap_or_default();
    let target = target_asked(control, &session, None, &mut body)?.flatten();
    body.finish()?;
    if let (Some(subnet), None) = (&subnet, address) {
        address = Some(address_in(control, &session, found.record.meta.id, subnet)?);
    }
    let new = NewFloatingIp {
        network: Some(network),
        address,
        family: address.is_none().then_some(Family::Ipv4),
        description,
        target,
        ..NewFloatingIp::default()
    };
    let made = control.create_floating_ip(&owner, new).await.map_err(refuse)?;
    let reply = json!({ "floatingip": view(control, &made) });
    Ok(Deed::new("create", "floating_ip", made.meta.id, &made.meta.name)
        .on((StatusCode::CREATED, Json(reply))))
}

/// A free address of one of the pool's subnets.
fn address_in(
    control: &Control,
    session: &Session,
    network: model::id::NetworkId,
    subnet: &str,
) -> Result<IpAddr> {
    let all = control.subnets_of(network);
    let found = all.iter().find(|s| s.record.meta.id.to_string() == *subnet);
    let found = match found {
        Some(found) => found,
        None => {
            subnets::find(control, session, subnet)?;
            return Err(bad(&format!("Subnet {subnet} is not in the floating network")));
        }
    };
    let taken = control.taken_addresses(network);
    let mac = model::address::Mac::from_random(rand::random());
    let free = found.record.free_address(mac, rand::random::<u32>().into(), |a| taken.contains(&a));
    free.ok_or_else(|| {
        Fault::conflict(format!("No more IP addresses available on network {network}."))
            .kind("IpAddressGenerationFailure")
    })
}

async fn update(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let control = door.control();
    let found = listing::one::<FloatingIp>(control, &session, ABOUT, &id)?;
    let mut body = Attributes::read(body, "floatingip")?;
    let description = body.text("description")?;
    let target = target_asked(control, &session, Some(&found.record), &mut body)?;
    body.finish()?;
    let target = target.as_ref().map(Option::as_ref);
    let edit = |floating: &mut FloatingIp| {
        if let Some(description) = &description {
            floating.meta.description.clone_from(description);
        }
        Ok(())
    };
    let changed = control.update_floating_ip(&session.caller, &id, target, edit).await.map_err(refuse)?;
    let reply = json!({ "floatingip": view(control, &changed) });
    Ok(Deed::new("update", "floating_ip", changed.meta.id, &changed.meta.name).on(Json(reply)))
}

async fn delete(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    let control = door.control();
    let found = listing::one::<FloatingIp>(control, &session, ABOUT, &id)?;
    let meta = &found.record.meta;
    control.delete_floating_ip(&session.caller, &id).await.map_err(refuse)?;
    Ok(Deed::new("delete", "floating_ip", meta.id, &meta.name).on(StatusCode::NO_CONTENT))
}
