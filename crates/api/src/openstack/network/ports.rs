//! `/v2.0/ports`.

use super::{
    attributes::{self, About as Described, Attributes, Bodies, unfit, wrong},
    head::with_head,
    listing,
    refusal::About,
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
    Caller, Control, Role,
    port::{FixedAsked, NewPort, PortChange},
};
use model::{
    address::Mac,
    id::NetworkId,
    instance::{Instance, phase::Phase},
    network::Network,
    node::Node,
    port::{AddressPair, Device, ForeignUser, Port},
    security_group::SecurityGroup,
};
use serde_json::{Value, json};
use std::{collections::HashSet, net::IpAddr, sync::Arc};
use store::Stored;

const ABOUT: About = About::Port;

/// The routes of ports.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.0/ports", get(list).post(create))
        .route("/v2.0/ports/{id}", get(show).put(update).delete(delete))
}

/// Who uses a port, as Neutron writes it: `device_owner` and `device_id`.
pub fn user(port: &Port) -> (String, String) {
    match port.device {
        Device::Instance(id) => ("compute:nova".into(), id.to_string()),
        Device::RouterInterface(id) => ("network:router_interface".into(), id.to_string()),
        Device::RouterGateway(id) => ("network:router_gateway".into(), id.to_string()),
        Device::FloatingIp => ("network:floatingip".into(), String::new()),
        Device::None => {
            let user = port.foreign_user.clone().unwrap_or_default();
            (user.kind, user.id)
        }
    }
}

/// Whether packets flow: the port and its network are up, and what uses it runs.
pub fn status(control: &Control, port: &Port) -> &'static str {
    let network_up = control.get::<Network>(port.network).is_some_and(|network| network.record.admin_up);
    let used = match port.device {
        Device::None => false,
        Device::Instance(id) => control.get::<Instance>(id).is_some_and(|i| {
            matches!(control.phase(&i.record), Phase::Running | Phase::Paused | Phase::Rebooting)
        }),
        Device::RouterInterface(_) | Device::RouterGateway(_) | Device::FloatingIp => true,
    };
    if used && port.admin_up && network_up { "ACTIVE" } else { "DOWN" }
}

/// A port as clients see it.
pub fn view(control: &Control, session: &Session, port: &Port) -> Value {
    let (owner, device) = user(port);
    let fixed = |fixed: &model::port::FixedIp| json!({ "subnet_id": fixed.subnet.to_string(), "ip_address": fixed.address.to_string() });
    let pair = |pair: &AddressPair| {
        let whole = pair.net.prefix_len() == pair.net.max_prefix_len();
        let net = if whole { pair.net.addr().to_string() } else { pair.net.to_string() };
        json!({ "ip_address": net, "mac_address": pair.mac.unwrap_or(port.mac).to_string() })
    };
    let mut view = json!({
        "network_id": port.network.to_string(),
        "mac_address": port.mac.to_string(),
        "admin_state_up": port.admin_up,
        "status": status(control, port),
        "device_id": device,
        "device_owner": owner,
        "fixed_ips": port.addresses.iter().map(fixed).collect::<Vec<_>>(),
        "allowed_address_pairs": port.allowed_pairs.iter().map(pair).collect::<Vec<_>>(),
        "security_groups": port.security_groups.iter().map(|g| g.to_string()).collect::<Vec<_>>(),
        "port_security_enabled": port.port_security,
        "binding:vnic_type": "normal",
    });
    if session.caller.role == Role::Admin {
        let host = port
            .instance()
            .and_then(|id| control.get::<Instance>(id)?.record.node)
            .and_then(|node| control.store().get::<Node>(&node.to_string()))
            .map(|node| node.record.name.to_string());
        view["binding:vif_type"] = json!(if host.is_some() { "tap" } else { "unbound" });
        view["binding:vif_details"] = json!({});
        view["binding:profile"] = json!({});
        view["binding:host_id"] = json!(host.unwrap_or_default());
    }
    with_head(port, "port", &port.meta.id.short(), view)
}

/// Ports that a caller may see: its own, and all in its own networks. A router's outer port is the cloud's business.
fn is_visible(control: &Control, session: &Session, port: &Port) -> bool {
    let caller = &session.caller;
    if caller.role == Role::Admin {
        return true;
    }
    let in_own =
        || control.get::<Network>(port.network).is_some_and(|n| n.record.meta.project == caller.project);
    let outer = matches!(port.device, Device::RouterGateway(_) | Device::FloatingIp);
    !outer && (port.meta.project == caller.project || in_own())
}

/// The port with an id that a caller may see.
///
/// # Errors
/// 404.
pub fn find(control: &Control, session: &Session, id: &str) -> Result<Arc<Stored<Port>>> {
    let parsed = id.parse().map_err(|_| ABOUT.missing(id))?;
    let found = control.get::<Port>(parsed).filter(|port| is_visible(control, session, &port.record));
    found.ok_or_else(|| ABOUT.missing(id))
}

/// All ports that a list can be about: what its filters name is looked up, not looked for.
fn candidates(control: &Control, session: &Session, query: &Query) -> Vec<Arc<Stored<Port>>> {
    let mut devices = query.all("device_id").peekable();
    if devices.peek().is_some() && query.all("device_id").all(|id| !id.is_empty()) {
        return distinct(devices.flat_map(|id| control.ports_of_device(id)));
    }
    let networks: Vec<NetworkId> = query.all("network_id").filter_map(|id| id.parse().ok()).collect();
    if !networks.is_empty() {
        return distinct(networks.into_iter().flat_map(|id| control.ports_of_network(id)));
    }
    if session.caller.role == Role::Admin {
        return control.store().list::<Port>();
    }
    let own = control.list::<Port>(&session.caller);
    let networks = control.list_own::<Network>(&session.caller);
    let inside = networks.into_iter().flat_map(|n| control.ports_of_network(n.record.meta.id));
    distinct(own.into_iter().chain(inside))
}

fn distinct(all: impl Iterator<Item = Arc<Stored<Port>>>) -> Vec<Arc<Stored<Port>>> {
    let mut seen = HashSet::new();
    all.filter(|port| seen.insert(port.record.meta.id)).collect()
}

async fn list(State(door): State<Door>, session: Session, base: Base, query: Query) -> Result<Json<Value>> {
    let control = door.control();
    let mut all = candidates(control, &session, &query);
    all.retain(|port| is_visible(control, &session, &port.record));
    let views = all.iter().map(|p| view(control, &session, &p.record)).collect();
    listing::reply(views, "ports", &base, &query).map(Json)
}

async fn show(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<Value>> {
    let found = find(door.control(), &session, &id)?;
    let view = view(door.control(), &session, &found.record);
    Ok(Json(json!({ "port": shape::fields(view, &query) })))
}

/// What a new port and a changed one may say alike.
struct Settings {
    admin_up: Option<bool>,
    fixed: Option<Vec<FixedAsked>>,
    mac: Option<Mac>,
    security_groups: Option<Vec<String>>,
    pairs: Option<Vec<AddressPair>>,
    port_security: Option<bool>,
    device_owner: Option<String>,
    device_id: Option<String>,
}

impl Settings {
    fn take(control: &Control, session: &Session, body: &mut Attributes) -> Result<Self> {
        body.only("binding:vnic_type", &[json!("normal")])?;
        body.only("binding:profile", &[])?;
        body.only("extra_dhcp_opts", &[])?;
        // Where a port is, its instance decides.
        let host = body.text("binding:host_id")?;
        if host.is_some_and(|host| !host.is_empty()) && session.caller.role < Role::Admin {
            return Err(Fault::forbidden("(rule:create_port:binding:host_id) is disallowed by policy"));
        }
        let fixed = match body.take("fixed_ips") {
            None | Some(Value::Null) => None,
            Some(Value::Array(all)) => Some(all.into_iter().map(read_fixed).collect::<Result<_>>()?),
            Some(other) => return Err(wrong("fixed_ips", format!("'{other}' is not a list"))),
        };
        let pairs = body.list("allowed_address_pairs")?;
        let mac = body.nullable("mac_address")?.flatten();
        let security_groups = body.texts("security_groups")?;
        for group in security_groups.iter().flatten() {
            listing::one::<SecurityGroup>(control, session, About::SecurityGroup, group)?;
        }
        Ok(Self {
            admin_up: body.flag("admin_state_up")?,
            fixed,
            mac: mac.map(|text| attributes::mac("mac_address", &text)).transpose()?,
            security_groups,
            pairs: pairs.map(|all| all.into_iter().map(read_pair).collect()).transpose()?,
            port_security: body.flag("port_security_enabled")?,
            device_owner: body.nullable("device_owner")?.map(Option::unwrap_or_default),
            device_id: body.nullable("device_id")?.map(Option::unwrap_or_default),
        })
    }

    /// The user that a client names beside what is known, `None` for no change.
    fn user(&self, known: &Port) -> Option<ForeignUser> {
        let (owner, id) = user(known);
        let next = ForeignUser {
            kind: self.device_owner.clone().unwrap_or(owner.clone()),
            id: self.device_id.clone().unwrap_or(id.clone()),
        };
        (next.kind != owner || next.id != id).then_some(next)
    }

    /// Filtering off and something to filter by do not go together.
    fn check(&self, filters: bool, has_groups: bool, has_pairs: bool) -> Result<()> {
        if filters || !(has_groups || has_pairs) {
            return Ok(());
        }
        if has_groups && self.port_security == Some(false) && self.security_groups.is_none() {
            return Err(Fault::conflict("Port has security group associated. Cannot disable port security or IP address until security group is removed.")
                .kind("PortSecurityPortHasSecurityGroup"));
        }
        if has_groups {
            return Err(Fault::invalid(
                "Port security must be enabled and port must have an IP address in order to use security groups.",
            )
            .kind("PortSecurityAndIPRequiredForSecurityGroups"));
        }
        Err(Fault::conflict(
            "Port Security must be enabled in order to have allowed address pairs on a port.",
        )
        .kind("AddressPairAndPortSecurityRequired"))
    }
}

fn read_fixed(value: Value) -> Result<FixedAsked> {
    let mut body = Attributes::of(value)?;
    let subnet = body.nullable("subnet_id")?.flatten();
    let text = body.nullable("ip_address")?.flatten();
    body.finish()?;
    let address = text.map(|text| attributes::address("fixed_ips", &text)).transpose()?;
    if subnet.is_none() && address.is_none() {
        return Err(unfit("IP allocation requires subnet_id or ip_address"));
    }
    Ok(FixedAsked { subnet, address })
}

fn read_pair(value: Value) -> Result<AddressPair> {
    let mut body = Attributes::of(value)?;
    let net = attributes::range("allowed_address_pairs", &body.required("ip_address")?)?;
    let mac = body.nullable("mac_address")?.flatten();
    body.finish()?;
    let mac = mac.map(|text| attributes::mac("allowed_address_pairs", &text)).transpose()?;
    let first: IpAddr = net.addr();
    if first.is_multicast() {
        return Err(wrong("allowed_address_pairs", format!("{first} is a multicast address")));
    }
    Ok(AddressPair { net, mac })
}

fn new_port(control: &Control, session: &Session, mut body: Attributes) -> Result<(Caller, NewPort)> {
    let owner = body.owner(control, &session.caller)?;
    let network = body.required("network_id")?;
    let found = listing::one::<Network>(control, session, About::Network, &network)?;
    let name = body.text("name")?.unwrap_or_default();
    let description = body.text("description")?.unwrap_or_default();
    let settings = Settings::take(control, session, &mut body)?;
    body.finish()?;
    let filters = settings.port_security.unwrap_or(found.record.port_security);
    let groups = settings.security_groups.as_ref().is_some_and(|groups| !groups.is_empty());
    settings.check(filters, groups, settings.pairs.as_ref().is_some_and(|pairs| !pairs.is_empty()))?;
    let user = ForeignUser {
        kind: settings.device_owner.clone().unwrap_or_default(),
        id: settings.device_id.clone().unwrap_or_default(),
    };
    let new = NewPort {
        name,
        description,
        network: Some(network),
        fixed: settings.fixed,
        mac: settings.mac,
        security_groups: settings.security_groups,
        port_security: settings.port_security,
        allowed_pairs: settings.pairs.unwrap_or_default(),
        admin_up: settings.admin_up.unwrap_or(true),
        foreign_user: (user != ForeignUser::default()).then_some(user),
        ..NewPort::default()
    };
    Ok((owner, new))
}

async fn create(State(door): State<Door>, session: Session, Body(body): Body<Value>) -> Result<Response> {
    let bodies = Bodies::read(body, "port", "ports")?;
    let is_many = bodies.is_many();
    let control = door.control();
    let mut owner = session.caller.clone();
    let mut all = vec![];
    for body in bodies.into_all() {
        let (caller, new) = new_port(control, &session, body)?;
        owner = caller;
        all.push(new);
    }
    let made = control.create_ports(&owner, &all).await.map_err(ABOUT.refuse())?;
    let views: Vec<Value> = made.iter().map(|port| view(control, &session, port)).collect();
    let reply = if is_many { json!({ "ports": views }) } else { json!({ "port": views[0] }) };
    let first = &made[0].meta;
    Ok(Deed::new("create", "port", first.id, &first.name).on((StatusCode::CREATED, Json(reply))))
}

async fn update(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let mut body = Attributes::read(body, "port")?;
    let control = door.control();
    let found = find(control, &session, &id)?;
    let described = Described::take(&mut body)?;
    let settings = Settings::take(control, &session, &mut body)?;
    body.finish()?;
    let known = &found.record;
    let filters = settings.port_security.unwrap_or(known.port_security);
    let groups =
        settings.security_groups.as_ref().map_or(!known.security_groups.is_empty(), |g| !g.is_empty());
    let pairs = settings.pairs.as_ref().map_or(!known.allowed_pairs.is_empty(), |p| !p.is_empty());
    settings.check(filters, groups, pairs)?;
    let user = settings.user(known);
    if user.is_some() && known.device != Device::None {
        let message = format!("Port {id} is used by a device of this cloud, which alone can release it.");
        return Err(Fault::conflict(message).kind("PortInUse"));
    }
    let change = PortChange {
        fixed: settings.fixed.clone(),
        security_groups: settings.security_groups.clone(),
        mac: settings.mac,
    };
    let edit = |port: &mut Port| {
        let short = port.meta.id.short();
        described.apply(&mut port.meta, "port", &short)?;
        port.admin_up = settings.admin_up.unwrap_or(port.admin_up);
        port.port_security = settings.port_security.unwrap_or(port.port_security);
        if let Some(pairs) = &settings.pairs {
            port.allowed_pairs.clone_from(pairs);
        }
        if let Some(user) = &user {
            port.foreign_user = Some(user.clone()).filter(|user| *user != ForeignUser::default());
        }
        Ok(())
    };
    let changed = control.update_port(&session.caller, &id, &change, edit).await.map_err(ABOUT.refuse())?;
    let reply = json!({ "port": view(control, &session, &changed) });
    Ok(Deed::new("update", "port", changed.meta.id, &changed.meta.name).on(Json(reply)))
}

async fn delete(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    let control = door.control();
    let found = find(control, &session, &id)?;
    let meta = &found.record.meta;
    match found.record.device {
        // As Nova and Neutron do it together: the port is unplugged first. It goes with its plug.
        Device::Instance(instance) => {
            let goes = |port: &mut Port| {
                port.delete_with_instance = true;
                Ok(())
            };
            let caller = &session.caller;
            control.update_port(caller, &id, &PortChange::default(), goes).await.map_err(ABOUT.refuse())?;
            control.detach_port(&session.caller, &instance.to_string(), &id).await.map_err(ABOUT.refuse())?;
        }
        Device::RouterInterface(_) | Device::RouterGateway(_) | Device::FloatingIp => {
            let owner = user(&found.record).0;
            let message =
                format!("Port {id} cannot be deleted directly via the port API: has device owner {owner}.");
            return Err(Fault::conflict(message).kind("ServicePortInUse"));
        }
        Device::None => control.delete_port(&session.caller, &id).await.map_err(ABOUT.refuse())?,
    }
    Ok(Deed::new("delete", "port", meta.id, &meta.name).on(StatusCode::NO_CONTENT))
}
