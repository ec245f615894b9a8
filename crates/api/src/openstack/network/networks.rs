//! `/v2.0/networks`.

use super::{
    attributes::{About as Described, Attributes, Bodies},
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
    network::{Joined, NewNetwork},
};
use model::network::{External, Network, NetworkKind};
use serde_json::{Value, json};

const ABOUT: About = About::Network;

/// The routes of networks.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.0/networks", get(list).post(create))
        .route("/v2.0/networks/{id}", get(show).put(update).delete(delete))
}

/// A network as clients see it.
pub fn view(control: &Control, network: &Network) -> Value {
    let id = network.meta.id;
    let external = network.external();
    let subnets: Vec<String> = control.subnets_of(id).iter().map(|s| s.record.meta.id.to_string()).collect();
    let scope = |v4: bool| {
        let subnets = control.subnets_of(id);
        let of_family = subnets.iter().filter(|s| s.record.cidr.addr().is_ipv4() == v4);
        of_family
            .filter_map(|s| {
                control.get::<model::subnet_pool::SubnetPool>(s.record.subnet_pool?)?.record.scope
            })
            .next()
            .map(|scope| scope.to_string())
    };
    let mut view = json!({
        "admin_state_up": network.admin_up,
        "status": "ACTIVE",
        "mtu": network.mtu,
        "subnets": subnets,
        "shared": network.shared,
        "router:external": external.is_some(),
        "port_security_enabled": network.port_security,
        "availability_zone_hints": [],
        "availability_zones": ["nova"],
        "ipv4_address_scope": scope(true),
        "ipv6_address_scope": scope(false),
    });
    if let Some(external) = external {
        view["is_default"] = json!(external.is_default);
    }
    with_head(network, "network", &id.short(), view)
}

async fn list(State(door): State<Door>, session: Session, base: Base, query: Query) -> Result<Json<Value>> {
    let control = door.control();
    let all = listing::all::<Network>(control, &session);
    let views = all.iter().map(|n| view(control, &n.record)).collect();
    listing::reply(views, "networks", &base, &query).map(Json)
}

async fn show(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<Value>> {
    let found = listing::one::<Network>(door.control(), &session, ABOUT, &id)?;
    let view = view(door.control(), &found.record);
    Ok(Json(json!({ "network": shape::fields(view, &query) })))
}

/// What a new network and a changed one may say alike.
struct Settings {
    described: Described,
    admin_up: Option<bool>,
    shared: Option<bool>,
    external: Option<bool>,
    is_default: Option<bool>,
    port_security: Option<bool>,
    mtu: Option<u32>,
}

impl Settings {
    fn take(attributes: &mut Attributes) -> Result<Self> {
        let mtu = attributes.number("mtu")?;
        let zone = json!(["nova"]);
        attributes.only("availability_zone_hints", &[zone])?;
        Ok(Self {
            described: Described::take(attributes)?,
            admin_up: attributes.flag("admin_state_up")?,
            shared: attributes.flag("shared")?,
            external: attributes.flag("router:external")?,
            is_default: attributes.flag("is_default")?,
            port_security: attributes.flag("port_security_enabled")?,
            mtu: mtu
                .map(|mtu| u32::try_from(mtu).map_err(|_| super::attributes::wrong("mtu", "it is negative")))
                .transpose()?,
        })
    }

    fn kind(&self) -> NetworkKind {
        let is_default = self.is_default.unwrap_or(false);
        match self.external {
            Some(true) => NetworkKind::External(External { interface: None, masquerade: true, is_default }),
            _ => NetworkKind::Private,
        }
    }

    fn apply(&self, network: &mut Network) -> control::Result<()> {
        let short = network.meta.id.short();
        self.described.apply(&mut network.meta, "network", &short)?;
        network.admin_up = self.admin_up.unwrap_or(network.admin_up);
        network.shared = self.shared.unwrap_or(network.shared);
        network.port_security = self.port_security.unwrap_or(network.port_security);
        network.mtu = self.mtu.unwrap_or(network.mtu);
        if self.external.is_some_and(|external| external != network.external().is_some()) {
            network.kind = self.kind();
        }
        if let (NetworkKind::External(external), Some(is_default)) = (&mut network.kind, self.is_default) {
            external.is_default = is_default;
        }
        Ok(())
    }
}

fn new_network(control: &Control, caller: &Caller, mut body: Attributes) -> Result<(Caller, NewNetwork)> {
    let owner = body.owner(control, caller)?;
    let name = body.text("name")?.unwrap_or_default();
    let description = body.text("description")?.unwrap_or_default();
    let settings = Settings::take(&mut body)?;
    body.finish()?;
    require(caller, "create_network", settings.shared == Some(true) || settings.external == Some(true))?;
    let new = NewNetwork {
        description,
        mtu: settings.mtu.filter(|mtu| *mtu > 0),
        shared: settings.shared.unwrap_or(false),
        port_security: settings.port_security.unwrap_or(true),
        admin_up: settings.admin_up.unwrap_or(true),
        ..NewNetwork::of_kind(&name, settings.kind())
    };
    Ok((owner, new))
}

/// Sharing and being external are for those who run the cloud.
fn require(caller: &Caller, rule: &str, needed: bool) -> Result<()> {
    if needed && caller.role < Role::Admin {
        return Err(Fault::forbidden(format!("(rule:{rule}) is disallowed by policy")));
    }
    Ok(())
}

async fn create(State(door): State<Door>, session: Session, Body(body): Body<Value>) -> Result<Response> {
    let bodies = Bodies::read(body, "network", "networks")?;
    let is_many = bodies.is_many();
    let control = door.control();
    let mut owner = session.caller.clone();
    let mut all = vec![];
    for body in bodies.into_all() {
        let (caller, new) = new_network(control, &session.caller, body)?;
        owner = caller;
        all.push(new);
    }
    let made = control.create_networks(&owner, &all).await.map_err(ABOUT.refuse())?;
    let views: Vec<Value> = made.iter().map(|network| view(control, network)).collect();
    let reply = if is_many { json!({ "networks": views }) } else { json!({ "network": views[0] }) };
    let first = &made[0].meta;
    Ok(Deed::new("create", "network", first.id, &first.name).on((StatusCode::CREATED, Json(reply))))
}

async fn update(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let mut body = Attributes::read(body, "network")?;
    let control = door.control();
    listing::one::<Network>(control, &session, ABOUT, &id)?;
    let settings = Settings::take(&mut body)?;
    body.finish()?;
    require(&session.caller, "update_network", settings.shared.is_some() || settings.external.is_some())?;
    let changed = control
        .update_network(&session.caller, &id, |network| settings.apply(network))
        .await
        .map_err(|error| {
            let shared = error.field.as_deref() == Some("shared");
            let fault = ABOUT.refuse()(error);
            if shared { fault.kind("InvalidSharedSetting") } else { fault }
        })?;
    let reply = json!({ "network": view(control, &changed) });
    Ok(Deed::new("update", "network", changed.meta.id, &changed.meta.name).on(Json(reply)))
}

async fn delete(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    let control = door.control();
    let found = listing::one::<Network>(control, &session, ABOUT, &id)?;
    let meta = &found.record.meta;
    control.delete_network(&session.caller, &id, Joined::Refuse).await.map_err(ABOUT.refuse())?;
    Ok(Deed::new("delete", "network", meta.id, &meta.name).on(StatusCode::NO_CONTENT))
}
