//! Published ports: from docker's words to holm's, the group that lets clients in, and back.
//!
//! On every other door publishing opens nothing: the security groups decide who gets in. Docker's users expect a port
//! that they publish to answer. So this door gives the container a group beside the project's default one, with a rule
//! for each of its published ports; `holm exposed` shows it, and changing the group's rules changes who gets in.

use super::host_config::{HostConfig, PortBinding};
use crate::{
    docker::door::Door,
    error::{Failure, Result},
};
use control::{
    Caller, Error,
    security_group::{NewRule, NewSecurityGroup},
};
use model::{
    error::Code,
    meta::Labels,
    publish::Publish,
    security_group::{Direction, Protocol, SecurityGroup},
};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
    time::Duration,
};

/// Label of the groups that this door makes.
const GROUP_LABEL: &str = "holm.docker.published";
/// Longest list of ports that is a group's name; a longer one is shortened to its hash.
const NAME_PORTS_BYTES_MAX: usize = 120;

/// How often, and after which pauses, a group is looked for that another call has just made.
const SEEN_LOOKS_MAX: usize = 100;
const SEEN_PAUSE: Duration = Duration::from_millis(20);

/// A port with its protocol, as docker writes it: `80/tcp`.
pub type PortKey = (Protocol, u16);

/// Reads `80`, `80/tcp`, `53/udp`.
///
/// # Errors
/// `invalid`, in docker's words.
pub fn read_key(text: &str) -> Result<PortKey> {
    let wrong = || Failure::new(Code::Invalid, format!("invalid port specification: {text:?}"));
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol: Protocol = protocol.parse().map_err(|_| wrong())?;
    if ![Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&protocol) {
        return Err(wrong());
    }
    let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    Ok((protocol, port))
}

/// Writes a port as docker does.
pub fn write_key((protocol, port): PortKey) -> String {
    format!("{port}/{protocol}")
}

/// Ports to be published, and where some of them have the host's port from.
pub type Asked = (Vec<Publish>, Vec<(Publish, RangeInclusive<u16>)>);

/// The ports that are to be published. `exposed` are those that the image and the request name.
///
/// # Errors
/// `invalid`.
pub fn asked(config: &HostConfig, exposed: &BTreeSet<PortKey>) -> Result<Asked> {
    let (mut all, mut within) = (vec![], vec![]);
    for (key, bindings) in config.port_bindings.iter().flatten() {
        let (protocol, port) = read_key(key)?;
        let any = [PortBinding::default()];
        let bindings = bindings.as_deref().filter(|b| !b.is_empty()).unwrap_or(&any);
        for binding in bindings {
            let address = address(binding)?;
            let (host_port, range) = host_port(binding)?;
            let publish = Publish { address, host_port, port, protocol };
            within.extend(range.map(|range| (publish, range)));
            all.push(publish);
        }
    }
    if config.publish_all_ports {
        for &(protocol, port) in exposed {
            if !all.iter().any(|p| (p.protocol, p.port) == (protocol, port)) {
                all.push(Publish { address: None, host_port: 0, port, protocol });
            }
        }
    }
    Ok((all, within))
}

fn address(binding: &PortBinding) -> Result<Option<IpAddr>> {
    let text = binding.host_ip.trim_start_matches('[').trim_end_matches(']');
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| Failure::new(Code::Invalid, format!("invalid IP address in publish: {text:?}")))
}

/// A port, 0 for any, or a range of which the first that is free is taken.
fn host_port(binding: &PortBinding) -> Result<(u16, Option<RangeInclusive<u16>>)> {
    let wrong = || Failure::new(Code::Invalid, format!("invalid hostPort: {:?}", binding.host_port));
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    match (binding.host_port.as_str(), binding.host_port.split_once('-')) {
        ("", _) => Ok((0, None)),
        (text, None) => Ok((number(text)?, None)),
        (_, Some((first, last))) => match (number(first)?, number(last)?) {
            (0, _) => Err(wrong()),
            (first, last) if first > last => Err(wrong()),
            (first, last) if first == last => Ok((first, None)),
            (first, last) => Ok((0, Some(first..=last))),
        },
    }
}

/// The security groups of a container that publishes these ports: the project's default one, and one that lets clients in.
///
/// # Errors
/// `quota_exceeded`, `forbidden`.
pub async fn groups(
    door: &Door,
    caller: &Caller,
    publish: &[Publish],
) -> control::Result<Option<Vec<String>>> {
    let ports: BTreeSet<PortKey> = publish.iter().map(|p| (p.protocol, p.port)).collect();
    if ports.is_empty() {
        return Ok(None);
    }
    let default = door.control().default_group(caller.project)?.record.meta.id;
    let group = group_of(door, caller, &ports).await?;
    Ok(Some(vec![default.to_string(), group.meta.id.to_string()]))
}

/// The group of a set of ports: containers with the same ports share it.
async fn group_of(door: &Door, caller: &Caller, ports: &BTreeSet<PortKey>) -> control::Result<SecurityGroup> {
    let name = group_name(ports);
    let known = || {
        let all = door.control().list::<SecurityGroup>(caller);
        let found = all.into_iter().find(|g| {
            g.record.meta.project == caller.project
                && g.record.meta.name.as_str() == name
                && g.record.meta.labels.contains_key(GROUP_LABEL)
        });
        found.map(|found| found.record.clone())
    };
    if let Some(group) = known() {
        return Ok(group);
    }
    let rule = |&(protocol, port): &PortKey| NewRule {
        direction: Direction::Ingress,
        family: None,
        protocol: Some(protocol.to_string()),
        ports: Some(port.to_string()),
        icmp: None,
        net: None,
        group: None,
        description: String::new(),
    };
    let list: Vec<String> = ports.iter().copied().map(write_key).collect();
    let new = NewSecurityGroup {
        name: name.clone(),
        description: "Lets everyone in on ports that containers publish (docker -p)".into(),
        labels: Labels::from([(GROUP_LABEL.to_string(), list.join(","))]),
        closed: true,
        rules: ports.iter().map(rule).collect(),
    };
    match door.control().create_security_group(caller, &new).await {
        // Another call made it at this moment, and it will be seen in another.
        Err(error) if error.code == Code::Taken => {
            for _ in 0..SEEN_LOOKS_MAX {
                if let Some(group) = known() {
                    return Ok(group);
                }
                tokio::time::sleep(SEEN_PAUSE).await;
            }
            known().ok_or(error)
        }
        made => made,
    }
}

fn group_name(ports: &BTreeSet<PortKey>) -> String {
    let list: Vec<String> = ports.iter().map(|(protocol, port)| format!("{port}-{protocol}")).collect();
    let list = list.join("-");
    if list.len() <= NAME_PORTS_BYTES_MAX {
        return format!("published-{list}");
    }
    use sha2::{Digest, Sha256};
    format!("published-{}-ports-{}", ports.len(), hex::encode(&Sha256::digest(list)[..8]))
}

/// Removes the groups that this door made and nobody has any more.
pub async fn sweep(door: &Door, caller: &Caller) {
    for group in door.control().list::<SecurityGroup>(caller) {
        let meta = &group.record.meta;
        if meta.project != caller.project || !meta.labels.contains_key(GROUP_LABEL) {
            continue;
        }
        match door.control().delete_security_group(caller, &meta.id.to_string()).await {
            Ok(()) => {}
            Err(error) if matches!(error.code, Code::InUse | Code::NotFound | Code::Forbidden) => {}
            Err(error) => tracing::debug!(%error, group = %meta.name, "an idle group is left"),
        }
    }
}

/// A port that is held by another container, in docker's words.
pub fn allocated(name: &str, publish: &[Publish], error: &Error) -> Failure {
    let taken = publish.iter().find(|p| {
        p.host_port != 0 && error.message.contains(&format!("port {}/{}", p.host_port, p.protocol))
    });
    let place = match taken {
        Some(p) => {
            let address = p.address.map_or_else(|| "0.0.0.0".to_string(), |a| a.to_string());
            format!("Bind for {address}:{} failed: port is already allocated", p.host_port)
        }
        None => "port is already allocated".to_string(),
    };
    let message = format!(
        "driver failed programming external connectivity on endpoint {name}: {place}: {}",
        error.message
    );
    crate::docker::refusal::failed(message)
}

/// Addresses that a published port is told with: docker names both families.
fn addresses(publish: &Publish) -> Vec<String> {
    match publish.address {
        None => vec!["0.0.0.0".into(), "::".into()],
        Some(address) => vec![address.to_string()],
    }
}

/// As `docker ps` reads it.
pub fn listed(publish: &[Publish], exposed: &BTreeSet<PortKey>) -> Vec<Value> {
    let mut all = vec![];
    for p in publish {
        for address in addresses(p) {
            all.push(json!({"IP": address, "PrivatePort": p.port, "PublicPort": p.host_port, "Type": p.protocol.to_string()}));
        }
    }
    for &(protocol, port) in exposed {
        if !publish.iter().any(|p| (p.protocol, p.port) == (protocol, port)) {
            all.push(json!({"PrivatePort": port, "Type": protocol.to_string()}));
        }
    }
    all
}

/// As `docker inspect` and `docker port` read it. `in_use`: with both families, and ports that lead nowhere as `null`.
pub fn mapped(publish: &[Publish], exposed: &BTreeSet<PortKey>, in_use: bool) -> Value {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for p in publish {
        let addresses = match (in_use, p.address) {
            (true, _) => addresses(p),
            (false, address) => vec![address.map_or_else(String::new, |a| a.to_string())],
        };
        for address in addresses {
            let binding = json!({"HostIp": address, "HostPort": p.host_port.to_string()});
            all.entry(write_key((p.protocol, p.port))).or_default().push(binding);
        }
    }
    let mut map: Map<String, Value> = all.into_iter().map(|(key, bindings)| (key, bindings.into())).collect();
    if in_use {
        for key in exposed {
            map.entry(write_key(*key)).or_insert(Value::Null);
        }
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(value: Value) -> HostConfig {
        serde_json::from_value(value).expect("a host config")
    }

    #[test]
    fn bindings_are_read() {
        let exposed = BTreeSet::from([(Protocol::TCP, 80), (Protocol::UDP, 53)]);
        let (all, within) = asked(
            &config(json!({
                "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8088"}, {"HostIp": "127.0.0.1", "HostPort": ""}]},
                "PublishAllPorts": true,
            })),
            &exposed,
        )
        .unwrap();
        let told: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(
            (told, within),
            (["8088:80/tcp", "127.0.0.1:0:80/tcp", "0:53/udp"].map(String::from).to_vec(), vec![])
        );
        let range = |text: &str| {
            let bindings = json!({"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": text}]}});
            asked(&config(bindings), &BTreeSet::new())
        };
        let (all, within) = range("8000-8005").unwrap();
        assert_eq!((all[0].host_port, within), (0, vec![(all[0], 8000..=8005)]));
        let (all, within) = range("8000-8000").unwrap();
        assert_eq!((all[0].host_port, within), (8000, vec![]));
        for bad in [
            json!({"PortBindings": {"0/tcp": null}}),
            json!({"PortBindings": {"80/icmp": null}}),
            json!({"PortBindings": {"80": [{"HostIp": "", "HostPort": "8010-8000"}]}}),
            json!({"PortBindings": {"80": [{"HostIp": "", "HostPort": "0-8000"}]}}),
            json!({"PortBindings": {"80": [{"HostIp": "", "HostPort": "8000-"}]}}),
            json!({"PortBindings": {"80": [{"HostIp": "x", "HostPort": "80"}]}}),
            json!({"PortBindings": {"80": [{"HostIp": "", "HostPort": "80000"}]}}),
        ] {
            assert!(asked(&config(bad.clone()), &BTreeSet::new()).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_told_with_both_families() {
        let publish = [Publish { address: None, host_port: 8088, port: 80, protocol: Protocol::TCP }];
        let exposed = BTreeSet::from([(Protocol::TCP, 80), (Protocol::TCP, 443)]);
        let listed = listed(&publish, &exposed);
        assert_eq!(listed.len(), 3);
        assert_eq!(listed[1], json!({"IP": "::", "PrivatePort": 80, "PublicPort": 8088, "Type": "tcp"}));
        assert_eq!(listed[2], json!({"PrivatePort": 443, "Type": "tcp"}));
        let mapped = mapped(&publish, &exposed, true);
        assert_eq!(mapped["80/tcp"][0], json!({"HostIp": "0.0.0.0", "HostPort": "8088"}));
        assert_eq!(mapped["443/tcp"], Value::Null);
    }

    #[test]
    fn groups_are_named_by_their_ports() {
        assert_eq!(
            group_name(&BTreeSet::from([(Protocol::TCP, 443), (Protocol::TCP, 80)])),
            "published-80-tcp-443-tcp"
        );
        let many: BTreeSet<PortKey> = (1..100).map(|port| (Protocol::TCP, port)).collect();
        assert!(group_name(&many).len() < 64);
    }
}
