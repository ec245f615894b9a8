//! What clients see of networks.

use super::{BRIDGE, find, name_of, shown};
use crate::{
    app::Asker,
    docker::{door::Door, filter::Filters, id, query::Query},
    error::Result,
};
use axum::{
    Json,
    extract::{Path, State},
};
use control::{Caller, schema::ROUTER_BY_SUBNET};
use model::{instance::Instance, network::Network, subnet::Subnet};
use serde_json::{Map, Value, json};

const FILTERS: [&str; 7] = ["id", "name", "label", "driver", "scope", "type", "dangling"];

/// GET of all.
pub async fn list(State(door): State<Door>, Asker(caller): Asker, query: Query) -> Result<Json<Value>> {
    let filters = Filters::of(&query, &FILTERS)?;
    let dangling = filters.switch("dangling")?;
    let mut all = vec![];
    for network in shown(&door, &caller) {
        let network = &network.record;
        let (name, id) = (name_of(&door, network.meta.id), id::of(network.meta.id));
        let is_builtin = name == BRIDGE;
        let fits = filters.any("id", |text| id.starts_with(text))
            && filters.any("name", |text| name.contains(text))
            && filters.any("driver", |text| text == "bridge")
            && filters.any("scope", |text| text == "local")
            && filters.any("type", |text| (text == "builtin") == is_builtin)
            && filters.fit_labels(&network.meta.labels)
            && dangling.is_none_or(|wanted| {
                wanted == (!is_builtin && containers(&door, &caller, network).is_empty())
            });
        if fits {
            all.push(view(&door, network, Map::new()));
        }
    }
    Ok(Json(all.into()))
}

/// GET of one.
pub async fn inspect(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
) -> Result<Json<Value>> {
    let found = find(&door, &caller, &name)?;
    let containers = containers(&door, &caller, &found.record);
    Ok(Json(view(&door, &found.record, containers)))
}

fn view(door: &Door, network: &Network, containers: Map<String, Value>) -> Value {
    let subnets = door.control().subnets_of(network.meta.id);
    let joined = |subnet: &Subnet| {
        !door.control().store().by_index(&ROUTER_BY_SUBNET, &subnet.meta.id.to_string()).is_empty()
    };
    let ranges: Vec<Value> = subnets
        .iter()
        .map(|subnet| {
            let mut range = json!({ "Subnet": subnet.record.cidr.to_string() });
            if let Some(gateway) = subnet.record.gateway {
                range["Gateway"] = gateway.to_string().into();
            }
            range
        })
        .collect();
    json!({
        "Name": name_of(door, network.meta.id),
        "Id": id::of(network.meta.id),
        "Created": network.meta.created_at.to_string(),
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv4": true,
        "EnableIPv6": subnets.iter().any(|subnet| subnet.record.cidr.addr().is_ipv6()),
        "IPAM": {"Driver": "default", "Options": {}, "Config": ranges},
        "Internal": !subnets.is_empty() && !subnets.iter().any(|subnet| joined(&subnet.record)),
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": containers,
        "Options": {"com.docker.network.driver.mtu": network.mtu.to_string()},
        "Labels": network.meta.labels,
    })
}

/// The instances of a network that the caller may see, VMs among them: they are its members too.
pub(super) fn containers(door: &Door, caller: &Caller, network: &Network) -> Map<String, Value> {
    let mut all = Map::new();
    for port in door.control().ports_of_network(network.meta.id) {
        let port = &port.record;
        let Some(instance) = port.instance().and_then(|id| door.control().get::<Instance>(id)) else {
            continue;
        };
        let instance = &instance.record;
        if !caller.sees(instance.meta.project) {
            continue;
        }
        let of = |v4: bool| {
            let fixed = port.addresses.iter().find(|fixed| fixed.address.is_ipv4() == v4)?;
            let subnet = door.control().subnet(fixed.subnet)?;
            Some(format!("{}/{}", fixed.address, subnet.record.cidr.prefix_len()))
        };
        let value = json!({
            "Name": instance.meta.name,
            "EndpointID": id::of(port.meta.id),
            "MacAddress": port.mac.to_string(),
            "IPv4Address": of(true).unwrap_or_default(),
            "IPv6Address": of(false).unwrap_or_default(),
        });
        all.insert(id::of(instance.meta.id), value);
    }
    all
}
