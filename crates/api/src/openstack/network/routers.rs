//! `/v2.0/routers`, with interfaces and extra routes.

use super::{
    attributes::{self, About as Described, Attributes, wrong},
    head::with_head,
    listing, ports,
    refusal::About,
    subnets::{self, read_routes, route_view},
};
use crate::openstack::{Base, Door, Fault, Result, Session, audit::Deed, body::Body, query::Query, shape};
use crate::routing::{Router as Routes, get, put};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::{
    Control,
    port::FixedAsked,
    router::{GatewayAsked, InterfaceAsked, NewRouter, RouterChange},
};
use model::{
    network::Network,
    port::Port,
    router::{Interface, Router},
    subnet::HostRoute,
};
use serde_json::{Value, json};

const ABOUT: About = About::Router;

/// The routes of routers.
pub fn router() -> Routes<Door> {
    Routes::new()
        .route("/v2.0/routers", get(list).post(create))
        .route("/v2.0/routers/{id}", get(show).put(update).delete(delete))
        .route("/v2.0/routers/{id}/add_router_interface", put(add_interface))
        .route("/v2.0/routers/{id}/remove_router_interface", put(remove_interface))
        .route("/v2.0/routers/{id}/add_extraroutes", put(add_routes))
        .route("/v2.0/routers/{id}/remove_extraroutes", put(remove_routes))
}

fn view(control: &Control, router: &Router) -> Value {
    let gateway = router.gateway.map(|gateway| {
        let port = control.get::<Port>(gateway.port);
        let addresses = port.iter().flat_map(|port| port.record.addresses.iter());
        let fixed: Vec<Value> = addresses
            .map(|f| json!({ "subnet_id": f.subnet.to_string(), "ip_address": f.address.to_string() }))
            .collect();
        json!({
            "network_id": gateway.network.to_string(),
            "external_fixed_ips": fixed,
            "enable_snat": gateway.snat,
        })
    });
    let view = json!({
        "admin_state_up": router.admin_up,
        "status": "ACTIVE",
        "external_gateway_info": gateway,
        "routes": router.routes.iter().map(route_view).collect::<Vec<_>>(),
        "availability_zones": ["nova"],
        "availability_zone_hints": [],
    });
    with_head(router, "router", &router.meta.id.short(), view)
}

async fn list(State(door): State<Door>, session: Session, base: Base, query: Query) -> Result<Json<Value>> {
    let all = listing::all::<Router>(door.control(), &session);
    let views = all.iter().map(|router| view(door.control(), &router.record)).collect();
    listing::reply(views, "routers", &base, &query).map(Json)
}

async fn show(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<Value>> {
    let found = listing::one::<Router>(door.control(), &session, ABOUT, &id)?;
    Ok(Json(json!({ "router": shape::fields(view(door.control(), &found.record), &query) })))
}

/// What a new router and a changed one may say alike.
struct Settings {
    admin_up: Option<bool>,
    /// `Some(None)` closes the way out.
    gateway: Option<Option<GatewayAsked>>,
    routes: Option<Vec<HostRoute>>,
}

impl Settings {
    fn take(control: &Control, session: &Session, body: &mut Attributes) -> Result<Self> {
        body.only("distributed", &[])?;
        body.only("ha", &[])?;
        body.only("availability_zone_hints", &[json!(["nova"])])?;
        let gateway = match body.take("external_gateway_info") {
            None => None,
            Some(Value::Null) => Some(None),
            Some(Value::Object(map)) if map.is_empty() => Some(None),
            Some(info) => Some(Some(read_gateway(control, session, info)?)),
        };
        Ok(Self {
            admin_up: body.flag("admin_state_up")?,
            gateway,
            routes: body.list("routes")?.map(|all| read_routes("routes", all)).transpose()?,
        })
    }
}

fn read_gateway(control: &Control, session: &Session, info: Value) -> Result<GatewayAsked> {
    let mut body = Attributes::of(info)?;
    let network = body.required("network_id")?;
    let snat = body.flag("enable_snat")?;
    let fixed = body.list("external_fixed_ips")?;
    body.finish()?;
    let found = listing::one::<Network>(control, session, About::Network, &network)?;
    if found.record.external().is_none() {
        let message = format!("Bad router request: Network {network} is not an external network.");
        return Err(Fault::invalid(message).kind("BadRequest"));
    }
    let read = |value: Value| {
        let mut body = Attributes::of(value)?;
        let subnet = body.nullable("subnet_id")?.flatten();
        let address = body.nullable("ip_address")?.flatten();
        body.finish()?;
        let address = address.map(|text| attributes::address("external_fixed_ips", &text)).transpose()?;
        Ok(FixedAsked { subnet, address })
    };
    let fixed: Option<Vec<FixedAsked>> = fixed
        .filter(|all| !all.is_empty())
        .map(|all| all.into_iter().map(read).collect::<Result<_>>())
        .transpose()?;
    Ok(GatewayAsked { network: Some(network), snat, fixed })
}

async fn create(State(door): State<Door>, session: Session, Body(body): Body<Value>) -> Result<Response> {
    let mut body = Attributes::read(body, "router")?;
    let control = door.control();
    let owner = body.owner(control, &session.caller)?;
    let name = body.text("name")?.unwrap_or_default();
    let description = body.text("description")?.unwrap_or_default();
    let settings = Settings::take(control, &session, &mut body)?;
    body.finish()?;
    let new = NewRouter {
        name,
        description,
        gateway: settings.gateway.flatten(),
        routes: settings.routes.unwrap_or_default(),
        admin_up: settings.admin_up.unwrap_or(true),
        ..NewRouter::default()
    };
    let made = control.create_router(&owner, &new).await.map_err(ABOUT.refuse())?;
    let reply = json!({ "router": view(control, &made) });
    Ok(Deed::new("create", "router", made.meta.id, &made.meta.name).on((StatusCode::CREATED, Json(reply))))
}

async fn update(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let control = door.control();
    listing::one::<Router>(control, &session, ABOUT, &id)?;
    let mut body = Attributes::read(body, "router")?;
    let described = Described::take(&mut body)?;
    let settings = Settings::take(control, &session, &mut body)?;
    body.finish()?;
    let change = RouterChange { gateway: settings.gateway, routes: settings.routes };
    let edit = |router: &mut Router| {
        let short = router.meta.id.short();
        described.apply(&mut router.meta, "router", &short)?;
        router.admin_up = settings.admin_up.unwrap_or(router.admin_up);
        Ok(())
    };
    let changed = control.update_router(&session.caller, &id, &change, edit).await.map_err(|error| {
        let leads = error.code == model::error::Code::InUse;
        let fault = ABOUT.refuse()(error);
        if leads { fault.kind("RouterExternalGatewayInUseByFloatingIp") } else { fault }
    })?;
    let reply = json!({ "router": view(control, &changed) });
    Ok(Deed::new("update", "router", changed.meta.id, &changed.meta.name).on(Json(reply)))
}

async fn delete(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    let control = door.control();
    let found = listing::one::<Router>(control, &session, ABOUT, &id)?;
    let meta = &found.record.meta;
    control.delete_router(&session.caller, &id, false).await.map_err(ABOUT.refuse())?;
    Ok(Deed::new("delete", "router", meta.id, &meta.name).on(StatusCode::NO_CONTENT))
}

/// The subnet or port that a body names, as `control` wants it.
fn interface_asked(
    control: &Control,
    session: &Session,
    body: Value,
) -> Result<(Option<String>, InterfaceAsked)> {
    let mut body = Attributes::of(body)?;
    let subnet = body.nullable("subnet_id")?.flatten();
    let port = body.nullable("port_id")?.flatten();
    match (subnet, port) {
        (Some(subnet), None) => {
            subnets::find(control, session, &subnet)?;
            Ok((Some(subnet.clone()), InterfaceAsked::Subnet(subnet)))
        }
        (subnet, Some(port)) => {
            ports::find(control, session, &port)?;
            Ok((subnet, InterfaceAsked::Port(port)))
        }
        (None, None) => {
            let message = "Either subnet_id or port_id must be specified";
            Err(Fault::invalid(format!("Bad router request: {message}.")).kind("BadRequest"))
        }
    }
}

/// The reply to interfaces that come or go.
fn interface_reply(router: &Router, interfaces: &[Interface]) -> Value {
    let project = router.meta.project.hex();
    let first = interfaces.first();
    let subnets: Vec<String> = interfaces.iter().map(|i| i.subnet.to_string()).collect();
    json!({
        "id": router.meta.id.to_string(),
        "tenant_id": project,
        "project_id": project,
        "network_id": first.map(|i| i.network.to_string()),
        "port_id": first.map(|i| i.port.to_string()),
        "subnet_id": subnets.first(),
        "subnet_ids": subnets,
    })
}

async fn add_interface(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let control = door.control();
    let found = listing::one::<Router>(control, &session, ABOUT, &id)?;
    let (subnet, asked) = interface_asked(control, &session, body)?;
    if subnet.is_some() && matches!(asked, InterfaceAsked::Port(_)) {
        let message = "Bad router request: Cannot specify both subnet-id and port-id.";
        return Err(Fault::invalid(message).kind("BadRequest"));
    }
    let joined = |i: &&Interface| subnet.as_ref().is_some_and(|subnet| i.subnet.to_string() == *subnet);
    if found.record.interfaces.iter().any(|i| joined(&i)) {
        let message = format!(
            "Bad router request: Router already has a port on subnet {}.",
            subnet.unwrap_or_default()
        );
        return Err(Fault::invalid(message).kind("BadRequest"));
    }
    let router = control.add_router_interface(&session.caller, &id, &asked).await.map_err(|error| {
        let bare = error.message.contains("has no gateway address");
        let fault = ABOUT.refuse()(error);
        if bare { fault.kind("BadRequest") } else { fault }
    })?;
    let is_new = |i: &&Interface| match &asked {
        InterfaceAsked::Subnet(subnet) => i.subnet.to_string() == *subnet,
        InterfaceAsked::Port(port) => i.port.to_string() == *port,
    };
    let new: Vec<Interface> = router.interfaces.iter().filter(is_new).copied().collect();
    let reply = Json(interface_reply(&router, &new));
    Ok(Deed::new("add_interface", "router", router.meta.id, &router.meta.name).on(reply))
}

async fn remove_interface(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let control = door.control();
    let found = listing::one::<Router>(control, &session, ABOUT, &id)?;
    let (subnet, asked) = interface_asked(control, &session, body)?;
    if let (Some(subnet), InterfaceAsked::Port(port)) = (&subnet, &asked) {
        let fits = |i: &Interface| i.port.to_string() == *port && i.subnet.to_string() == *subnet;
        if !found.record.interfaces.iter().any(fits) {
            let message = format!("Subnet ID {subnet} does not belong to port {port}");
            return Err(Fault::conflict(message).kind("SubnetMismatchForPort"));
        }
    }
    let (router, gone) =
        control.remove_router_interface(&session.caller, &id, &asked).await.map_err(|error| {
            match (error.code, error.message.contains("floating IP")) {
                (model::error::Code::NotFound, _) => ABOUT.refuse()(error).kind("RouterInterfaceNotFound"),
                (model::error::Code::InUse, true) => {
                    ABOUT.refuse()(error).kind("RouterInterfaceInUseByFloatingIP")
                }
                _ => ABOUT.refuse()(error),
            }
        })?;
    let reply = Json(interface_reply(&router, &gone));
    Ok(Deed::new("remove_interface", "router", router.meta.id, &router.meta.name).on(reply))
}

/// Routes that a body adds or removes.
fn routes_asked(body: Value) -> Result<Vec<HostRoute>> {
    let mut body = Attributes::read(body, "router")?;
    let routes = body.list("routes")?.ok_or_else(|| wrong("routes", "it is missing"))?;
    body.finish()?;
    read_routes("routes", routes)
}

async fn change_routes(
    door: &Door,
    session: &Session,
    id: &str,
    action: &str,
    change: impl Fn(&mut Vec<HostRoute>),
) -> Result<Response> {
    let control = door.control();
    // Two changes at the same moment must not lose one another: tried again on what is there then.
    for _ in 0..16 {
        let found = listing::one::<Router>(control, session, ABOUT, id)?;
        let mut routes = found.record.routes.clone();
        change(&mut routes);
        let generation = found.record.meta.generation;
        let wanted = RouterChange { gateway: None, routes: Some(routes) };
        let edit = |router: &mut Router| {
            if router.meta.generation == generation {
                return Ok(());
            }
            Err(control::Error::new(model::error::Code::Unavailable, "the router changed meanwhile"))
        };
        match control.update_router(&session.caller, id, &wanted, edit).await {
            Ok(router) => {
                let reply = Json(json!({ "router": view(control, &router) }));
                return Ok(Deed::new(action, "router", router.meta.id, &router.meta.name).on(reply));
            }
            Err(error) if error.code == model::error::Code::Unavailable => {}
            Err(error) => return Err(ABOUT.refuse()(error)),
        }
    }
    Err(Fault::conflict("The router is changed by many at this moment.").kind("RouterInUse"))
}

async fn add_routes(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let asked = routes_asked(body)?;
    let add = |routes: &mut Vec<HostRoute>| {
        for route in &asked {
            if !routes.contains(route) {
                routes.push(*route);
            }
        }
    };
    change_routes(&door, &session, &id, "add_extraroutes", add).await
}

async fn remove_routes(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let asked = routes_asked(body)?;
    let remove = |routes: &mut Vec<HostRoute>| routes.retain(|route| !asked.contains(route));
    change_routes(&door, &session, &id, "remove_extraroutes", remove).await
}
