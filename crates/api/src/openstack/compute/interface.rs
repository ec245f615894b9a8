//! Network interfaces of servers.

use super::{
    form::Form,
    server::{deed, find, refuse_locked, state_of},
    tag,
};
use crate::openstack::{Door, Fault, Microversion, Result, Session, body::Body};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::{
    instance::NicAsked,
    port::{FixedAsked, NewPort},
};
use model::{
    id::{NetworkId, PortId},
    instance::Instance,
    port::Port,
};
use serde_json::{Value, json};

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.1/servers/{id}/os-interface", get(list).post(attach))
        .route("/v2.1/servers/{id}/os-interface/{port}", get(show).delete(detach))
}

/// States in which the interfaces of a server may change.
const CHANGEABLE: [&str; 3] = ["active", "paused", "stopped"];

fn view(door: &Door, instance: &Instance, port: &Port, version: Microversion) -> Value {
    let status = door.control().instance_status(instance.meta.id);
    let has = status.is_some_and(|status| status.record.ports.contains(&port.meta.id));
    let addresses = port.addresses.iter();
    let fixed: Vec<Value> =
        addresses.map(|f| json!({ "subnet_id": f.subnet, "ip_address": f.address })).collect();
    let mut shown = json!({
        "port_id": port.meta.id,
        "net_id": port.network,
        "mac_addr": port.mac.to_string(),
        "port_state": if has { "ACTIVE" } else { "DOWN" },
        "fixed_ips": fixed,
    });
    if version.has(2, 70) {
        shown["tag"] = json!(port.device_tag);
    }
    shown
}

fn one(door: &Door, instance: &Instance, port: &str) -> Result<Port> {
    let missing = || Fault::not_found("Port", port);
    let id = port.parse::<PortId>().map_err(|_| missing())?;
    let all = door.control().ports_of_instance(instance.meta.id);
    all.iter().find(|p| p.record.meta.id == id).map(|p| p.record.clone()).ok_or_else(missing)
}

async fn list(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let found = find(&door, &session, &id)?;
    // What the guest has yet to let go of is still its own.
    let mut ports = door.control().ports_of_instance(found.record.meta.id);
    ports.sort_by_key(|p| found.record.ports.iter().position(|id| *id == p.record.meta.id));
    let shown: Vec<Value> = ports.iter().map(|p| view(&door, &found.record, &p.record, version)).collect();
    Ok(Json(json!({ "interfaceAttachments": shown })))
}

async fn show(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path((id, port)): Path<(String, String)>,
) -> Result<Json<Value>> {
    let found = find(&door, &session, &id)?;
    let port = one(&door, &found.record, &port)?;
    Ok(Json(json!({ "interfaceAttachment": view(&door, &found.record, &port, version) })))
}

async fn attach(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let nic = asked(&body, version)?;
    let found = find(&door, &session, &id)?;
    refuse_locked(&session, &found.record)?;
    state_of(&door, &found.record).require(&id, "attach_interface", &CHANGEABLE)?;
    let server = found.record.meta.id.to_string();
    let port = door.control().attach_port(&session.caller, &server, &nic).await?;
    let now = find(&door, &session, &id)?;
    let shown = json!({ "interfaceAttachment": view(&door, &now.record, &port, version) });
    Ok(deed("attach_port", &now.record).on(Json(shown)))
}

fn asked(body: &Value, version: Microversion) -> Result<NicAsked> {
    let form = Form::under(body, "interfaceAttachment")?;
    let mut known = vec!["net_id", "port_id", "fixed_ips"];
    if version.has(2, 49) {
        known.push("tag");
    }
    form.refuse_others(&known)?;
    let tag = form.get("tag").map(|value| tag::read("tag", value)).transpose()?;
    let (network, port) = (form.text("net_id")?, form.text("port_id")?);
    if network.is_some() && port.is_some() {
        return Err(Fault::invalid("Must not input both network_id and port_id"));
    }
    if let Some(port) = port {
        port.parse::<PortId>().map_err(|_| Fault::invalid(format!("Invalid port_id {port}.")))?;
        return Ok(NicAsked::Port { port: port.to_string(), tag });
    }
    if let Some(id) = network {
        id.parse::<NetworkId>().map_err(|_| Fault::invalid(format!("Invalid net_id {id}.")))?;
    }
    let mut addresses = vec![];
    for value in form.list("fixed_ips")?.unwrap_or_default() {
        let text = Form::of(value, "fixed_ips")?.needed("ip_address")?;
        let address = text.parse().map_err(|_| Fault::invalid(format!("Fixed IP {text} is not valid.")))?;
        addresses.push(FixedAsked { subnet: None, address: Some(address) });
    }
    if !addresses.is_empty() && network.is_none() {
        return Err(Fault::invalid("Must input network_id when request IP address"));
    }
    let fixed = (!addresses.is_empty()).then_some(addresses);
    let network = network.map(str::to_string);
    Ok(NicAsked::New(NewPort { network, fixed, device_tag: tag, ..NewPort::default() }))
}

async fn detach(
    State(door): State<Door>,
    session: Session,
    Path((id, port)): Path<(String, String)>,
) -> Result<Response> {
    let found = find(&door, &session, &id)?;
    let port = one(&door, &found.record, &port)?;
    refuse_locked(&session, &found.record)?;
    state_of(&door, &found.record).require(&id, "detach_interface", &CHANGEABLE)?;
    let (server, id) = (found.record.meta.id.to_string(), port.meta.id);
    if found.record.ports.contains(&id) {
        door.control().detach_port(&session.caller, &server, &id.to_string()).await?;
    }
    Ok(deed("detach_port", &found.record).on(StatusCode::ACCEPTED))
}
