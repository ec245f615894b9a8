//! `/v2.0/subnets`.

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
use control::{Caller, Control, network::Joined, subnet::NewSubnet, subnet_pool::PoolAsked};
use ipnet::IpNet;
use model::{
    address::{AddressRange, from_number, to_number},
    error::Code,
    network::Network,
    subnet::{HostRoute, Ipv6Mode, Ipv6Part, Subnet},
};
use serde_json::{Value, json};
use std::{net::IpAddr, sync::Arc};
use store::Stored;

const ABOUT: About = About::Subnet;

/// The routes of subnets.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.0/subnets", get(list).post(create))
        .route("/v2.0/subnets/{id}", get(show).put(update).delete(delete))
}

/// Neutron's words for a mode.
fn mode_text(mode: Ipv6Mode) -> &'static str {
    match mode {
        Ipv6Mode::Stateful => "dhcpv6-stateful",
        Ipv6Mode::Stateless => "dhcpv6-stateless",
        Ipv6Mode::Slaac => "slaac",
    }
}

fn read_mode(key: &str, text: &str) -> Result<Ipv6Mode> {
    let known = [Ipv6Mode::Stateful, Ipv6Mode::Stateless, Ipv6Mode::Slaac];
    known.into_iter().find(|mode| mode_text(*mode) == text).ok_or_else(|| {
        wrong(key, format!("'{text}' is not in ['dhcpv6-stateful', 'dhcpv6-stateless', 'slaac']"))
    })
}

/// A route as clients see it.
pub fn route_view(route: &HostRoute) -> Value {
    json!({ "destination": route.destination.to_string(), "nexthop": route.next_hop.to_string() })
}

/// Reads routes.
///
/// # Errors
/// 400 for what is none.
pub fn read_routes(key: &str, all: Vec<Value>) -> Result<Vec<HostRoute>> {
    let route = |value: Value| {
        let mut body = Attributes::of(value)?;
        let destination = attributes::range(key, &body.required("destination")?)?;
        let next_hop = attributes::address(key, &body.required("nexthop")?)?;
        body.finish()?;
        Ok(HostRoute { destination, next_hop })
    };
    all.into_iter().map(route).collect()
}

/// The pools that addresses come from: all that is usable but the gateway, where none is named.
fn shown_pools(subnet: &Subnet) -> Vec<AddressRange> {
    let all = subnet.effective_pools();
    let Some(gateway) = subnet.gateway.filter(|_| subnet.pools.is_empty()) else {
        return all;
    };
    let at = to_number(gateway);
    all.into_iter()
        .flat_map(|pool| {
            let (start, end) = (to_number(pool.start), to_number(pool.end));
            if !pool.contains(gateway) {
                return vec![pool];
            }
            let part = |from: u128, to: u128| AddressRange {
                start: from_number(from, pool.start),
                end: from_number(to, pool.start),
            };
            let mut parts = vec![];
            if at > start {
                parts.push(part(start, at - 1));
            }
            if at < end {
                parts.push(part(at + 1, end));
            }
            parts
        })
        .collect()
}

/// A subnet as clients see it.
pub fn view(control: &Control, subnet: &Subnet) -> Value {
    let mode = subnet.ipv6_mode.filter(|_| subnet.dhcp).map(mode_text);
    let network = control.get::<Network>(subnet.network);
    let pools: Vec<Value> = shown_pools(subnet)
        .iter()
        .map(|pool| json!({ "start": pool.start.to_string(), "end": pool.end.to_string() }))
        .collect();
    let view = json!({
        "network_id": subnet.network.to_string(),
        "ip_version": if subnet.cidr.addr().is_ipv4() { 4 } else { 6 },
        "cidr": subnet.cidr.to_string(),
        "gateway_ip": subnet.gateway.map(|gateway| gateway.to_string()),
        "enable_dhcp": subnet.dhcp,
        "allocation_pools": pools,
        "dns_nameservers": subnet.dns_servers.iter().map(IpAddr::to_string).collect::<Vec<_>>(),
        "host_routes": subnet.host_routes.iter().map(route_view).collect::<Vec<_>>(),
        "ipv6_ra_mode": mode.filter(|_| subnet.ipv6_part.advertises()),
        "ipv6_address_mode": mode.filter(|_| subnet.ipv6_part.serves()),
        "subnetpool_id": subnet.subnet_pool.map(|pool| pool.to_string()),
        "router:external": network.is_some_and(|n| n.record.external().is_some()),
        "service_types": [],
    });
    with_head(subnet, "subnet", &subnet.meta.id.short(), view)
}

/// Subnets that a caller may see: its own, those of networks that are shared with it, and where floating IPs come from.
pub fn visible(control: &Control, session: &Session) -> Vec<Arc<Stored<Subnet>>> {
    let mut all = control.store().list::<Subnet>();
    all.retain(|subnet| is_visible(control, session, &subnet.record));
    all
}

fn is_visible(control: &Control, session: &Session, subnet: &Subnet) -> bool {
    let open = |network: &Network| network.shared || network.external().is_some();
    let shared = || control.get::<Network>(subnet.network).is_some_and(|network| open(&network.record));
    session.caller.sees(subnet.meta.project) || shared()
}

/// The subnet with an id that a caller may see.
///
/// # Errors
/// 404.
pub fn find(control: &Control, session: &Session, id: &str) -> Result<Arc<Stored<Subnet>>> {
    let parsed = id.parse().map_err(|_| ABOUT.missing(id))?;
    let found = control.get::<Subnet>(parsed).filter(|subnet| is_visible(control, session, &subnet.record));
    found.ok_or_else(|| ABOUT.missing(id))
}

/// The same, if the caller may change it.
fn find_own(control: &Control, session: &Session, id: &str, rule: &str) -> Result<Arc<Stored<Subnet>>> {
    let found = find(control, session, id)?;
    if session.caller.sees(found.record.meta.project) {
        return Ok(found);
    }
    Err(Fault::forbidden(format!("(rule:{rule}) is disallowed by policy")))
}

async fn list(State(door): State<Door>, session: Session, base: Base, query: Query) -> Result<Json<Value>> {
    let control = door.control();
    let views = visible(control, &session).iter().map(|s| view(control, &s.record)).collect();
    listing::reply(views, "subnets", &base, &query).map(Json)
}

async fn show(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<Value>> {
    let found = find(door.control(), &session, &id)?;
    Ok(Json(json!({ "subnet": shape::fields(view(door.control(), &found.record), &query) })))
}

/// What a new subnet and a changed one may say alike.
struct Settings {
    /// `Some(None)` for none.
    gateway: Option<Option<IpAddr>>,
    dhcp: Option<bool>,
    dns_servers: Option<Vec<IpAddr>>,
    pools: Option<Vec<AddressRange>>,
    host_routes: Option<Vec<HostRoute>>,
}

impl Settings {
    fn take(body: &mut Attributes) -> Result<Self> {
        body.only("service_types", &[])?;
        body.only("segment_id", &[])?;
        let gateway = match body.nullable("gateway_ip")? {
            Some(Some(text)) if text.is_empty() => Some(None),
            Some(Some(text)) => Some(Some(attributes::address("gateway_ip", &text)?)),
            other => other.map(|_| None),
        };
        let servers = body.texts("dns_nameservers")?;
        let pools = body.list("allocation_pools")?;
        let routes = body.list("host_routes")?;
        Ok(Self {
            gateway,
            dhcp: body.flag("enable_dhcp")?,
            dns_servers: servers
                .map(|all| all.iter().map(|text| attributes::address("dns_nameservers", text)).collect())
                .transpose()?,
            pools: pools.map(|all| all.into_iter().map(read_pool).collect()).transpose()?,
            host_routes: routes.map(|all| read_routes("host_routes", all)).transpose()?,
        })
    }
}

fn read_pool(value: Value) -> Result<AddressRange> {
    let mut body = Attributes::of(value)?;
    let start = attributes::address("allocation_pools", &body.required("start")?)?;
    let end = attributes::address("allocation_pools", &body.required("end")?)?;
    body.finish()?;
    Ok(AddressRange { start, end })
}

/// The mode that the two attributes of Neutron say together, and which part of it is ours.
fn modes(body: &mut Attributes) -> Result<Option<(Ipv6Mode, Ipv6Part)>> {
    let mut read = |key: &str| -> Result<Option<Ipv6Mode>> {
        body.nullable(key)?.flatten().map(|text| read_mode(key, &text)).transpose()
    };
    match (read("ipv6_ra_mode")?, read("ipv6_address_mode")?) {
        (Some(ra), Some(address)) if ra != address => {
            let (ra, address) = (mode_text(ra), mode_text(address));
            let reason = format!(
                "ipv6_ra_mode set to '{ra}' with ipv6_address_mode set to '{address}' is not valid. If both attributes are set, they must be the same value"
            );
            Err(unfit(reason))
        }
        (Some(mode), Some(_)) => Ok(Some((mode, Ipv6Part::Both))),
        (Some(mode), None) => Ok(Some((mode, Ipv6Part::Advertise))),
        (None, Some(mode)) => Ok(Some((mode, Ipv6Part::Serve))),
        (None, None) => Ok(None),
    }
}

fn new_subnet(control: &Control, session: &Session, mut body: Attributes) -> Result<(Caller, NewSubnet)> {
    let owner = body.owner(control, &session.caller)?;
    let network = body.required("network_id")?;
    listing::one::<Network>(control, session, About::Network, &network)?;
    let version = body.number("ip_version")?;
    if !matches!(version, None | Some(4 | 6)) {
        return Err(wrong("ip_version", format!("'{}' is not in [4, 6]", version.unwrap_or_default())));
    }
    let cidr = body.nullable("cidr")?.flatten().map(|text| attributes::range("cidr", &text)).transpose()?;
    let pool = pool_asked(&mut body, version)?;
    if cidr.is_none() && pool.is_none() {
        let reason = "a subnetpool must be specified in the absence of a cidr";
        return Err(Fault::invalid(format!("Bad subnet request: {reason}.")).kind("BadRequest"));
    }
    let v4 = cidr.map(|cidr| cidr.addr().is_ipv4());
    if let (Some(version), Some(v4)) = (version, v4)
        && (version == 4) != v4
    {
        return Err(unfit("the IP version of cidr does not match the ip_version"));
    }
    let name = body.text("name")?.unwrap_or_default();
    let description = body.text("description")?.unwrap_or_default();
    let modes = modes(&mut body)?;
    let settings = Settings::take(&mut body)?;
    body.finish()?;
    let dhcp = settings.dhcp.unwrap_or(true);
    if modes.is_some() && !dhcp {
        return Err(unfit(
            "ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False",
        ));
    }
    if modes.is_some() && (v4 == Some(true) || version == Some(4)) {
        return Err(unfit("ipv6_ra_mode or ipv6_address_mode cannot be set when ip_version is 4"));
    }
    let new = NewSubnet {
        name,
        description,
        network,
        cidr: cidr.map(|cidr| cidr.trunc().to_string()).unwrap_or_default(),
        pool,
        gateway: settings.gateway.flatten(),
        no_gateway: settings.gateway == Some(None),
        dhcp,
        dns_servers: settings.dns_servers.unwrap_or_default(),
        pools: settings.pools.unwrap_or_default(),
        host_routes: settings.host_routes.unwrap_or_default(),
        ipv6_mode: modes.map(|(mode, _)| mode),
        no_ipv6_mode: modes.is_none(),
        ipv6_part: modes.map(|(_, part)| part).unwrap_or_default(),
        no_router: true,
        ..NewSubnet::default()
    };
    check_outside(&new, cidr)?;
    Ok((owner, new))
}

/// Neutron takes a gateway outside of the range; here it would lead nowhere, and is refused in Neutron's words for it.
fn check_outside(new: &NewSubnet, cidr: Option<IpNet>) -> Result<()> {
    let (Some(gateway), Some(cidr)) = (new.gateway, cidr) else { return Ok(()) };
    if gateway.is_ipv4() != cidr.addr().is_ipv4() {
        return Err(unfit(format!("gateway_ip {gateway} is not of the subnet's IP version")));
    }
    Ok(())
}

fn pool_asked(body: &mut Attributes, version: Option<i64>) -> Result<Option<PoolAsked>> {
    let named = body.nullable("subnetpool_id")?.flatten();
    let default = body.flag("use_default_subnetpool")?.unwrap_or(false);
    let length = body.number("prefixlen")?;
    let prefix_len = length
        .map(|length| {
            u8::try_from(length).map_err(|_| wrong("prefixlen", format!("'{length}' is out of range")))
        })
        .transpose()?;
    if named.is_none() && !default {
        return Ok(None);
    }
    Ok(Some(PoolAsked { pool: named, ipv6: version == Some(6), prefix_len }))
}

/// Refusals of new and changed subnets.
fn refuse(error: control::Error) -> Fault {
    let in_pool = error.code == Code::Invalid && error.message.contains("inside an allocation pool");
    let pools_overlap = error.message.contains("pools that start at");
    let is_cidr = error.field.as_deref() == Some("cidr") && error.message.contains(" overlaps ");
    let mut fault = ABOUT.refuse()(error);
    if is_cidr {
        // Clients look for these words to try another range.
        let message = &fault.message;
        fault.message =
            format!("Invalid input for operation: Requested subnet overlaps with another subnet: {message}.");
    }
    if in_pool {
        return fault.kind("GatewayConflictWithAllocationPools").with_status(StatusCode::CONFLICT);
    }
    if pools_overlap {
        return fault.kind("OverlappingAllocationPools").with_status(StatusCode::CONFLICT);
    }
    fault
}

async fn create(State(door): State<Door>, session: Session, Body(body): Body<Value>) -> Result<Response> {
    let bodies = Bodies::read(body, "subnet", "subnets")?;
    let is_many = bodies.is_many();
    let control = door.control();
    let mut owner = session.caller.clone();
    let mut all = vec![];
    for body in bodies.into_all() {
        let (caller, new) = new_subnet(control, &session, body)?;
        owner = caller;
        all.push(new);
    }
    let made = control.create_subnets(&owner, &all).await.map_err(refuse)?;
    let views: Vec<Value> = made.iter().map(|subnet| view(control, subnet)).collect();
    let reply = if is_many { json!({ "subnets": views }) } else { json!({ "subnet": views[0] }) };
    let first = &made[0].meta;
    Ok(Deed::new("create", "subnet", first.id, &first.name).on((StatusCode::CREATED, Json(reply))))
}

async fn update(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let mut body = Attributes::read(body, "subnet")?;
    let control = door.control();
    find_own(control, &session, &id, "update_subnet")?;
    let described = Described::take(&mut body)?;
    let settings = Settings::take(&mut body)?;
    body.finish()?;
    let edit = |subnet: &mut Subnet| {
        let short = subnet.meta.id.short();
        described.apply(&mut subnet.meta, "subnet", &short)?;
        subnet.gateway = settings.gateway.unwrap_or(subnet.gateway);
        subnet.dhcp = settings.dhcp.unwrap_or(subnet.dhcp);
        if let Some(servers) = &settings.dns_servers {
            subnet.dns_servers.clone_from(servers);
        }
        if let Some(pools) = &settings.pools {
            subnet.pools.clone_from(pools);
        }
        if let Some(routes) = &settings.host_routes {
            subnet.host_routes.clone_from(routes);
        }
        Ok(())
    };
    let changed = control.update_subnet(&session.caller, &id, None, edit).await.map_err(refuse)?;
    let reply = json!({ "subnet": view(control, &changed) });
    Ok(Deed::new("update", "subnet", changed.meta.id, &changed.meta.name).on(Json(reply)))
}

async fn delete(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    let control = door.control();
    let found = find_own(control, &session, &id, "delete_subnet")?;
    let meta = &found.record.meta;
    control.delete_subnet(&session.caller, &id, Joined::Refuse).await.map_err(refuse)?;
    Ok(Deed::new("delete", "subnet", meta.id, &meta.name).on(StatusCode::NO_CONTENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{
        id::{NetworkId, ProjectId, SubnetId},
        meta::Meta,
    };

    #[test]
    fn the_gateway_cuts_the_pools_that_are_shown() {
        for (cidr, gateway, expected) in [
            ("10.9.0.0/24", Some("10.9.0.1"), "10.9.0.2-10.9.0.254"),
            ("10.9.0.0/24", None, "10.9.0.1-10.9.0.254"),
            ("10.9.0.0/29", Some("10.9.0.3"), "10.9.0.1-10.9.0.2 10.9.0.4-10.9.0.6"),
            ("10.9.0.0/24", Some("10.9.0.254"), "10.9.0.1-10.9.0.253"),
            ("fd00::/64", Some("fd00::1"), "fd00::2-fd00::ffff:ffff:ffff:ffff"),
        ] {
            let cidr: IpNet = cidr.parse().unwrap();
            let meta = Meta::new(
                SubnetId::from_random([1; 16]),
                ProjectId::from_random([2; 16]),
                "s".parse().unwrap(),
                jiff::Timestamp::UNIX_EPOCH,
            );
            let subnet = Subnet {
                meta,
                network: NetworkId::from_random([3; 16]),
                cidr,
                gateway: gateway.map(|g| g.parse().unwrap()),
                dhcp: true,
                dns_servers: vec![],
                pools: vec![],
                host_routes: vec![],
                ipv6_mode: None,
                ipv6_part: Ipv6Part::Both,
                security_groups: vec![],
                subnet_pool: None,
            };
            let shown: Vec<String> =
                shown_pools(&subnet).iter().map(|pool| format!("{}-{}", pool.start, pool.end)).collect();
            assert_eq!(shown.join(" "), expected, "{cidr} {gateway:?}");
        }
    }
}
