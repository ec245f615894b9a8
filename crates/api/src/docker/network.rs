//! Networks: holm's own, of which the project's first one is docker's `bridge`.

mod change;
mod view;

use super::{
    container::host_config::refuse_rest,
    door::Door,
    id,
    refusal::{no_network, not_honoured},
};
use crate::error::{Failure, Result};
use crate::routing::{Router, get, post};
use control::{
    Caller,
    instance::NicAsked,
    port::{FixedAsked, NewPort},
};
use model::{address::Mac, error::Code, id::NetworkId, network::Network, port::alias::Alias};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
use store::Stored;

/// Docker's name of the network that containers have who ask for none.
pub const BRIDGE: &str = "bridge";

/// Adds the routes.
pub fn routes(routes: Router<Door>) -> Router<Door> {
    routes
        .route("/networks", get(view::list))
        .route("/networks/create", post(change::create))
        .route("/networks/{name}", get(view::inspect).delete(change::remove))
        .route("/networks/{name}/connect", post(change::connect))
        .route("/networks/{name}/disconnect", post(change::disconnect))
}

/// The networks that a new container joins.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkingConfig {
    endpoints_config: Option<BTreeMap<String, Option<EndpointConfig>>>,
}

/// What is asked of a place in a network.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointConfig {
    #[serde(rename = "IPAMConfig")]
    ipam_config: Option<EndpointAddresses>,
    #[serde(rename = "NetworkID")]
    _network_id: Option<String>,
    aliases: Option<Vec<String>>,
    links: Option<Vec<String>>,
    mac_address: String,
    // What docker tells of a place and never takes; clients send it back, or fill it in by mistake.
    #[serde(rename = "EndpointID")]
    _endpoint_id: Option<String>,
    #[serde(rename = "Gateway")]
    _gateway: Option<String>,
    #[serde(rename = "IPAddress")]
    _address: Option<String>,
    #[serde(rename = "IPPrefixLen")]
    _prefix_length: Option<i64>,
    #[serde(rename = "IPv6Gateway")]
    _gateway_v6: Option<String>,
    #[serde(rename = "GlobalIPv6Address")]
    _address_v6: Option<String>,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    _prefix_length_v6: Option<i64>,
    #[serde(rename = "DNSNames")]
    _dns_names: Option<Vec<String>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl NetworkingConfig {
    /// Containers that are to be known by further names: `CONTAINER[:NAME]`.
    pub fn links(&self) -> impl Iterator<Item = &String> {
        self.endpoints_config.iter().flat_map(BTreeMap::values).flatten().flat_map(|e| &e.links).flatten()
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct EndpointAddresses {
    #[serde(rename = "IPv4Address")]
    v4: Option<String>,
    #[serde(rename = "IPv6Address")]
    v6: Option<String>,
    #[serde(rename = "LinkLocalIPs")]
    link_local: Option<Vec<String>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The network that a name, an id or the unique beginning of an id means.
///
/// # Errors
/// `not_found`.
pub fn find(door: &Door, caller: &Caller, reference: &str) -> Result<Arc<Stored<Network>>> {
    let missing = || no_network(reference);
    if matches!(reference, BRIDGE | "default") {
        return Ok(door.control().own_network(caller)?);
    }
    let inner = |network: &Arc<Stored<Network>>| network.record.external().is_none();
    if let Some(uuid) = id::parse(reference) {
        let all = door.control().starting::<Network>(caller, &uuid.to_string());
        return all.into_iter().find(inner).ok_or_else(missing);
    }
    if let Some(found) = door.control().named::<Network>(caller, reference).into_iter().find(inner) {
        return Ok(found);
    }
    if !id::is_prefix(reference) {
        return Err(missing());
    }
    let all = door.control().starting::<Network>(caller, id::own_digits(reference));
    let mut fitting =
        all.into_iter().filter(inner).filter(|n| id::of(n.record.meta.id).starts_with(reference));
    match (fitting.next(), fitting.next()) {
        (Some(found), None) => Ok(found),
        (Some(_), Some(_)) => Err(Failure::new(
            Code::Invalid,
            format!("network {reference} is ambiguous: several ids begin so"),
        )),
        (None, _) => Err(missing()),
    }
}

/// Networks that containers may join: those of the project and those that are shared with it, but for the outside.
pub(super) fn shown(door: &Door, caller: &Caller) -> Vec<Arc<Stored<Network>>> {
    let mut all = door.control().list::<Network>(caller);
    all.retain(|network| network.record.external().is_none());
    all
}

/// Docker's name of a network: the project's own is the bridge.
pub fn name_of(door: &Door, id: NetworkId) -> String {
    let Some(stored) = door.control().get::<Network>(id) else { return String::new() };
    let owner = control::finalize::system_caller(stored.record.meta.project);
    let own = door.control().own_network(&owner);
    if own.is_ok_and(|own| own.record.meta.id == id) {
        return BRIDGE.to_string();
    }
    stored.record.meta.name.to_string()
}

/// The interfaces of a new container: `None` for one in the project's own network.
///
/// # Errors
/// `invalid` for modes that holm has not, `not_found`.
pub fn nics(
    door: &Door,
    caller: &Caller,
    mode: &str,
    networking: &NetworkingConfig,
    is_disabled: bool,
) -> Result<Option<Vec<NicAsked>>> {
    if mode == "host" {
        return Err(not_honoured(
            "NetworkMode",
            "host: a container has a network of its own; publish its ports (-p)",
        ));
    }
    if mode.starts_with("container:") {
        return Err(not_honoured("NetworkMode", format!("{mode}: containers do not share their networks")));
    }
    if mode == "none" || is_disabled {
        return Ok(Some(vec![]));
    }
    let first = if mode.is_empty() { "default" } else { mode };
    let endpoints: Vec<(&str, EndpointConfig)> = networking
        .endpoints_config
        .iter()
        .flatten()
        .map(|(name, config)| (name.as_str(), config.clone().unwrap_or_default()))
        .collect();
    let meant = find(door, caller, first)?.record.meta.id;
    let mut asked = vec![(meant, EndpointConfig::default())];
    for (name, config) in endpoints {
        let id = find(door, caller, name)?.record.meta.id;
        match asked.iter_mut().find(|(known, _)| *known == id) {
            Some((_, known)) => *known = config,
            None => asked.push((id, config)),
        }
    }
    let nics = asked.into_iter().map(|(id, config)| Ok(NicAsked::New(new_port(id, &config)?)));
    nics.collect::<Result<Vec<_>>>().map(Some)
}

/// A port as it is asked for.
fn new_port(network: NetworkId, config: &EndpointConfig) -> Result<NewPort> {
    let read = |alias: &String| {
        let wrong =
            |error| Failure::new(Code::Invalid, format!("invalid network alias {alias:.64?}: {error}"));
        alias.parse::<Alias>().map_err(wrong)
    };
    let aliases = config.aliases.iter().flatten().map(read).collect::<Result<Vec<_>>>()?;
    refuse_rest(&config.rest, "EndpointsConfig.")?;
    let addresses = config.ipam_config.clone().unwrap_or_default();
    refuse_rest(&addresses.rest, "IPAMConfig.")?;
    if addresses.link_local.as_ref().is_some_and(|all| !all.is_empty()) {
        return Err(not_honoured("IPAMConfig.LinkLocalIPs", "addresses of a link are made by the container"));
    }
    let mac = Some(config.mac_address.as_str()).filter(|text| !text.is_empty()).map(|text| {
        let wrong = |_| Failure::new(Code::Invalid, format!("invalid MAC address: {text:.64?}"));
        text.parse::<Mac>().map_err(wrong)
    });
    let mut fixed = vec![];
    for text in [addresses.v4, addresses.v6].into_iter().flatten().filter(|text| !text.is_empty()) {
        let address: IpAddr = text.parse().map_err(|_| {
            Failure::new(Code::Invalid, format!("invalid endpoint settings: invalid IP address: {text}"))
        })?;
        fixed.push(FixedAsked { subnet: None, address: Some(address) });
    }
    Ok(NewPort {
        network: Some(network.to_string()),
        fixed: (!fixed.is_empty()).then_some(fixed),
        mac: mac.transpose()?,
        aliases,
        ..NewPort::default()
    })
}
