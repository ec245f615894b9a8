//! Making and removing networks, and joining containers to them.

use super::{BRIDGE, EndpointConfig, find, name_of, new_port, view::containers};
use crate::{
    app::Asker,
    docker::{
        container::{self, host_config::refuse_rest},
        door::Door,
        id,
        query::Json as Body,
        refusal::{conflict, not_honoured},
        watch::{self, Sight},
    },
    error::{Failure, Result},
    v1::audit::{deed, known, note, note_as},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use control::{
    Caller,
    instance::NicAsked,
    network::{Joined, NewNetwork, unique_local},
    port::NewPort,
    subnet::NewSubnet,
};
use ipnet::IpNet;
use model::{
    error::Code,
    id::PortId,
    instance::{InstanceStatus, State as Seen},
    meta::Labels,
    network::{Network, NetworkKind},
    subnet::Subnet,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// Time for a running container to get or to lose an interface.
const PLUG_TIMEOUT: Duration = Duration::from_secs(30);
/// Ranges that are given to networks that ask for none: 10.89.0.0/24 and on.
const RANGES: std::ops::RangeInclusive<u8> = 0..=255;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NewDockerNetwork {
    name: String,
    driver: String,
    internal: bool,
    #[serde(rename = "EnableIPv4")]
    enable_v4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    enable_v6: Option<bool>,
    #[serde(rename = "IPAM")]
    ipam: Option<Ipam>,
    options: Option<BTreeMap<String, String>>,
    labels: Option<Labels>,
    #[serde(rename = "CheckDuplicate")]
    _check_duplicate: bool,
    #[serde(rename = "Attachable")]
    _attachable: bool,
    scope: String,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Ipam {
    driver: Option<String>,
    config: Option<Vec<Range>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Range {
    subnet: String,
    gateway: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// POST of a new one.
pub async fn create(
    State(door): State<Door>,
    Asker(caller): Asker,
    Body(asked): Body<NewDockerNetwork>,
) -> Result<Response> {
    if !matches!(asked.driver.as_str(), "" | "bridge" | "default") {
        return Err(not_honoured("Driver", format!("{:?}: networks are holm's own", asked.driver)));
    }
    if !matches!(asked.scope.as_str(), "" | "local") {
        return Err(not_honoured("Scope", format!("{:?}", asked.scope)));
    }
    if asked.enable_v4 == Some(false) {
        return Err(not_honoured("EnableIPv4", "a network of containers has IPv4"));
    }
    refuse_rest(&asked.rest, "")?;
    if matches!(asked.name.as_str(), "" | BRIDGE | "default" | "none" | "host") {
        let message = format!("operation is not permitted on predefined {} network ", asked.name);
        return Err(Failure::new(Code::Forbidden, message));
    }
    let mut new = NewNetwork::of_kind(&asked.name, NetworkKind::Private);
    new.labels = asked.labels.clone().unwrap_or_default();
    for (name, value) in asked.options.iter().flatten() {
        match name.as_str() {
            "com.docker.network.driver.mtu" => {
                let wrong = || Failure::new(Code::Invalid, format!("invalid MTU {value:?}"));
                new.mtu = Some(value.parse().map_err(|_| wrong())?);
            }
            _ => return Err(not_honoured(&format!("option {name}"), "networks are holm's own")),
        }
    }
    let ranges = ranges(&door, &caller, &asked)?;
    let outcome = make(&door, &caller, new, &ranges, asked.internal).await;
    let taken = outcome.as_ref().is_err_and(|e| e.code == Code::Taken);
    let made = note(door.app(), &caller, deed("create", "network", &asked.name), outcome).await;
    let made = made.map_err(|failure| match taken {
        true => conflict(format!("network with name {} already exists", asked.name)),
        false => failure,
    })?;
    let body = json!({ "Id": id::of(made.meta.id), "Warning": "" });
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// The network with its subnets, or none of it.
async fn make(
    door: &Door,
    caller: &Caller,
    new: NewNetwork,
    ranges: &[(IpNet, Option<IpAddr>)],
    internal: bool,
) -> control::Result<Network> {
    let control = door.control();
    control::change::check_labels(&new.labels)?;
    let name = new.name.clone();
    let made = control.create_network(caller, new).await?;
    let id = made.meta.id.to_string();
    let subnets: Vec<NewSubnet> = ranges
        .iter()
        .map(|(cidr, gateway)| NewSubnet {
            name: format!("{name}-{}", if cidr.addr().is_ipv4() { "v4" } else { "v6" }),
            network: id.clone(),
            cidr: cidr.to_string(),
            gateway: *gateway,
            dhcp: true,
            no_router: internal,
            ..NewSubnet::default()
        })
        .collect();
    if let Err(error) = control.create_subnets(caller, &subnets).await {
        if let Err(left) = control.delete_network(caller, &id, Joined::Remove).await {
            tracing::warn!(error = %left, network = name, "a network without its subnets is left");
        }
        return Err(error);
    }
    Ok(made)
}

/// The ranges that are asked for; one of each family that is free where none is.
fn ranges(door: &Door, caller: &Caller, asked: &NewDockerNetwork) -> Result<Vec<(IpNet, Option<IpAddr>)>> {
    let ipam = asked.ipam.as_ref();
    if let Some(ipam) = ipam {
        if !matches!(ipam.driver.as_deref(), None | Some("" | "default")) {
            return Err(not_honoured("IPAM.Driver", "addresses are given by holm"));
        }
        refuse_rest(&ipam.rest, "IPAM.")?;
    }
    let mut ranges = vec![];
    for range in ipam.and_then(|ipam| ipam.config.as_ref()).into_iter().flatten() {
        refuse_rest(&range.rest, "IPAM.Config.")?;
        let wrong = |text: &str| Failure::new(Code::Invalid, format!("invalid subnet or gateway: {text:?}"));
        let cidr: IpNet = range.subnet.parse().map_err(|_| wrong(&range.subnet))?;
        let gateway = match range.gateway.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => Some(text.parse::<IpAddr>().map_err(|_| wrong(text))?),
            None => None,
        };
        ranges.push((cidr.trunc(), gateway));
    }
    let is_bare = ranges.is_empty();
    if !ranges.iter().any(|(cidr, _)| cidr.addr().is_ipv4()) {
        ranges.push((free_range(door, caller)?, None));
    }
    if !ranges.iter().any(|(cidr, _)| cidr.addr().is_ipv6()) && (is_bare || asked.enable_v6 == Some(true)) {
        ranges.push((unique_local(rand::random()), None));
    }
    Ok(ranges)
}

fn free_range(door: &Door, caller: &Caller) -> Result<IpNet> {
    let taken: Vec<IpNet> = door.control().list::<Subnet>(caller).iter().map(|s| s.record.cidr).collect();
    let meets = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    RANGES
        .map(|third| IpNet::V4(ipnet::Ipv4Net::new_assert([10, 89, third, 0].into(), 24)))
        .find(|range| !taken.iter().any(|other| meets(range, other)))
        .ok_or_else(|| {
            Failure::new(Code::NoCapacity, "all ranges of 10.89.0.0/16 are taken")
                .hint("name one with --subnet")
        })
}

/// DELETE of one.
pub async fn remove(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
) -> Result<StatusCode> {
    let found = find(&door, &caller, &name)?;
    let shown = name_of(&door, found.record.meta.id);
    if shown == BRIDGE {
        return Err(Failure::new(Code::Forbidden, "bridge is a pre-defined network and cannot be removed"));
    }
    let users = containers(&door, &caller, &found.record);
    if !users.is_empty() {
        let list: Vec<String> = users
            .iter()
            .map(|(id, value)| format!("name:{} id:{}", value["Name"], &id[..id::SHORT_DIGITS]))
            .collect();
        let id = id::of(found.record.meta.id);
        let message = format!(
            "error while removing network: network {shown} id {id} has active endpoints ({})",
            list.join(", ")
        );
        return Err(Failure::new(Code::Forbidden, message));
    }
    let meta = &found.record.meta;
    let outcome = door.control().delete_network(&caller, &meta.id.to_string(), Joined::Remove).await;
    note_as(door.app(), &caller, deed("delete", "network", &name), outcome, known(meta.id, &meta.name))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Connect {
    container: String,
    endpoint_config: Option<EndpointConfig>,
}

/// POST of a container that joins.
pub async fn connect(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    Body(asked): Body<Connect>,
) -> Result<StatusCode> {
    let network = find(&door, &caller, &name)?;
    let found = container::found::find(&door, &caller, &asked.container)?;
    let id = network.record.meta.id;
    if door.control().ports_of(&found.instance().ports).iter().any(|port| port.network == id) {
        let message = format!("endpoint with name {} already exists in network {name}", found.name());
        return Err(Failure::new(Code::Forbidden, message));
    }
    let new = new_port(id, &asked.endpoint_config.unwrap_or_default())?;
    // What it publishes is let in by this one, too: it may be the one that leads to it in the end.
    let groups = container::published_groups(&door, &caller, &found.instance().publish).await?;
    let nic = NicAsked::New(NewPort { security_groups: groups, ..new });
    let outcome = door.control().attach_port(&caller, &found.id().to_string(), &nic).await;
    let subject = known(found.id(), found.name());
    let port =
        note_as(door.app(), &caller, deed("attach_port", "instance", found.name()), outcome, subject).await?;
    plugged(&door, &found, port.meta.id, true).await;
    Ok(StatusCode::OK)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Disconnect {
    container: String,
    #[serde(rename = "Force")]
    _force: bool,
}

/// POST of a container that leaves.
pub async fn disconnect(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    Body(asked): Body<Disconnect>,
) -> Result<StatusCode> {
    let network = find(&door, &caller, &name)?;
    let found = container::found::find(&door, &caller, &asked.container)?;
    let ports = door.control().ports_of(&found.instance().ports);
    let Some(port) = ports.iter().find(|port| port.network == network.record.meta.id) else {
        let id = id::of(found.id());
        let message = format!("container {id} is not connected to network {name}");
        return Err(Failure::new(Code::Forbidden, message));
    };
    let (id, port) = (found.id().to_string(), port.meta.id);
    let outcome = door.control().detach_port(&caller, &id, &port.to_string()).await;
    note(door.app(), &caller, deed("detach_port", "instance", found.name()), outcome).await?;
    plugged(&door, &found, port, false).await;
    Ok(StatusCode::OK)
}

/// Waits until a running container has an interface, or has it no more. One that does not run needs no wait.
async fn plugged(door: &Door, found: &container::found::Found, port: PortId, wanted: bool) {
    let is_done = |sight: &Sight| {
        let status = sight.status.as_ref().map(|stored| &stored.record);
        let running = status.filter(|status| matches!(status.state, Seen::Running { .. }));
        // One that is being plugged in is noted before the container has it, and the progress tells.
        let is_settled = |status: &InstanceStatus| {
            status.ports.contains(&port) == wanted && (!wanted || status.progress.is_empty())
        };
        running.is_none_or(is_settled).then_some(())
    };
    watch::until(door, found.id(), Some(PLUG_TIMEOUT), is_done).await;
}
