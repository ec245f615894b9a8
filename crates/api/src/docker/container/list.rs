//! The list of containers, and its filters.

use super::{
    found::{self, Found},
    publish::{self, PortKey},
    state, usage, view,
};
use crate::{
    app::Asker,
    docker::{door::Door, filter::Filters, id, image, query::Query},
    error::{Failure, Result},
};
use axum::{Json, extract::State};
use control::Caller;
use jiff::Timestamp;
use model::{error::Code, id::ImageId, security_group::Protocol};
use regex::Regex;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const FILTERS: [&str; 15] = [
    "id", "name", "label", "label!", "exited", "status", "ancestor", "before", "since", "volume", "network",
    "publish", "expose", "health", "is-task",
];
/// Longest pattern of a name.
const PATTERN_BYTES_MAX: usize = 256;

/// GET of all.
pub async fn list(State(door): State<Door>, Asker(caller): Asker, query: Query) -> Result<Json<Value>> {
    let filters = Filters::of(&query, &FILTERS)?;
    let limit =
        query.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let edges = filters.has("before") || filters.has("since");
    let everyone = query.flag("all") || limit.is_some() || edges || filters.has("status");
    let choice = Choice::new(&door, &caller, filters)?;
    let mut shown = vec![];
    for found in found::all(&door, &caller) {
        let is_up = matches!(state::word(&found), "running" | "paused" | "restarting");
        if (everyone || is_up) && choice.fits(&door, &found) {
            let mut told = summary(&door, &found);
            if query.flag("size") {
                let (written, all) = usage::sizes(&door, &found).await;
                (told["SizeRw"], told["SizeRootFs"]) = (written.into(), all.into());
            }
            shown.push(told);
        }
        if limit.is_some_and(|limit| shown.len() >= limit) {
            break;
        }
    }
    Ok(Json(shown.into()))
}

/// Filters, read once.
struct Choice {
    filters: Filters,
    names: Vec<Regex>,
    exited: Vec<i32>,
    ancestors: Vec<ImageId>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    ports: [Vec<(Protocol, u16, u16)>; 2],
}

impl Choice {
    fn new(door: &Door, caller: &Caller, filters: Filters) -> Result<Self> {
        let wrong =
            |name: &str, value: &str| Failure::new(Code::Invalid, format!("invalid filter '{name}={value}'"));
        let name = |text: &String| {
            let pattern = Regex::new(text).ok().filter(|_| text.len() <= PATTERN_BYTES_MAX);
            pattern.ok_or_else(|| wrong("name", text))
        };
        let names = filters.values("name").iter().map(name).collect::<Result<_>>()?;
        let code = |text: &String| text.parse().map_err(|_| wrong("exited", text));
        let exited = filters.values("exited").iter().map(code).collect::<Result<_>>()?;
        if let Some(unknown) = filters.values("status").iter().find(|s| !state::STATES.contains(&s.as_str()))
        {
            return Err(wrong("status", unknown).hint(format!("the states are {}", state::STATES.join(", "))));
        }
        // An image that is not here is nobody's ancestor.
        let images = filters
            .values("ancestor")
            .iter()
            .filter_map(|text| image::found::find_all(door, caller, text).ok());
        let ancestors = images.flatten().map(|local| local.image().meta.id).collect();
        let edge = |name: &str| match filters.values(name).first() {
            Some(text) => found::find(door, caller, text).map(|f| Some(f.instance().meta.created_at)),
            None => Ok(None),
        };
        let ports = |name: &str| {
            let read = |text: &String| read_range(text).ok_or_else(|| wrong(name, text));
            filters.values(name).iter().map(read).collect::<Result<Vec<_>>>()
        };
        let (before, since, ports) = (edge("before")?, edge("since")?, [ports("publish")?, ports("expose")?]);
        Ok(Self { names, exited, ancestors, before, since, ports, filters })
    }

    fn fits(&self, door: &Door, found: &Found) -> bool {
        let filters = &self.filters;
        let (id, meta) = (id::of(found.id()), &found.instance().meta);
        let word = state::word(found);
        let slashed = format!("/{}", found.name());
        let named = |regex: &Regex| regex.is_match(found.name()) || regex.is_match(&slashed);
        let has_image = found.spec().image.is_some_and(|image| self.ancestors.contains(&image));
        let mounts = view::mounts(door, found);
        let mounted =
            |text: &str| mounts.iter().any(|mount| mount["Name"] == text || mount["Destination"] == text);
        let networks = view::networks(door, found);
        let on_network = |text: &str| {
            networks.iter().any(|(name, net)| {
                name == text || net["NetworkID"].as_str().is_some_and(|id| id.starts_with(text))
            })
        };
        filters.any("id", |text| id.starts_with(text))
            && (self.names.is_empty() || self.names.iter().any(named))
            && filters.fit_labels(&meta.labels)
            && filters.any("status", |text| text == word)
            && (self.exited.is_empty() || word == "exited" && self.exited.contains(&state::exit_code(found)))
            && (!filters.has("ancestor") || has_image)
            && self.before.is_none_or(|edge| meta.created_at < edge)
            && self.since.is_none_or(|edge| meta.created_at > edge)
            && filters.any("volume", mounted)
            && filters.any("network", on_network)
            && filters
                .any("health", |text| text == found.health().map_or("none", |health| health.word.as_str()))
            && filters.any("is-task", |text| text == "false")
            && self.fit_ports(door, found)
    }

    fn fit_ports(&self, door: &Door, found: &Found) -> bool {
        let publish = &found.instance().publish;
        let published = |&(protocol, first, last): &(Protocol, u16, u16)| {
            publish.iter().any(|p| p.protocol == protocol && (first..=last).contains(&p.host_port))
        };
        let exposed: BTreeSet<PortKey> = view::exposed(door, found);
        let is_exposed = |&(protocol, first, last): &(Protocol, u16, u16)| {
            let inner = publish.iter().map(|p| (p.protocol, p.port)).chain(exposed.iter().copied());
            inner.into_iter().any(|(has, port)| has == protocol && (first..=last).contains(&port))
        };
        let [by_host, by_own] = &self.ports;
        (by_host.is_empty() || by_host.iter().any(published))
            && (by_own.is_empty() || by_own.iter().any(is_exposed))
    }
}

/// Reads `80`, `80/udp`, `8000-8080/tcp`.
fn read_range(text: &str) -> Option<(Protocol, u16, u16)> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    Some((protocol.parse().ok()?, first.parse().ok()?, last.parse().ok()?))
}

fn summary(door: &Door, found: &Found) -> Value {
    let instance = found.instance();
    let network_mode = view::network_mode(door, found);
    json!({
        "Id": id::of(found.id()),
        "Names": [format!("/{}", found.name())],
        "Image": view::image_name(door, found),
        "ImageID": view::image_id(door, found),
        "Command": view::argv(door, found).join(" "),
        "Created": instance.meta.created_at.as_second(),
        "Ports": publish::listed(&instance.publish, &view::exposed(door, found)),
        "Labels": instance.meta.labels,
        "State": state::word(found),
        "Status": state::sentence(found, door.control().now()),
        "HostConfig": {"NetworkMode": network_mode},
        "NetworkSettings": {"Networks": view::networks(door, found)},
        "Mounts": view::mounts(door, found),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ports_are_read() {
        assert_eq!(read_range("80"), Some((Protocol::TCP, 80, 80)));
        assert_eq!(read_range("8000-8080/udp"), Some((Protocol::UDP, 8000, 8080)));
        for bad in ["", "x", "80/what", "80-"] {
            assert_eq!(read_range(bad), None, "{bad}");
        }
    }
}
