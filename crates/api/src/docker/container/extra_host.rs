//! Names for /etc/hosts (`--add-host`): read, and `host-gateway` turned into the address by which the host is reached.

use super::{found, host_config::HostConfig};
use crate::{
    docker::{door::Door, network, refusal::not_honoured},
    error::{Failure, Result},
};
use control::{Caller, instance::NicAsked};
use model::{
    error::Code,
    id::NetworkId,
    instance::extra_host::ExtraHost,
    port::alias::{Alias, AliasError},
};
use std::{collections::BTreeSet, net::IpAddr};

/// What docker's users write for the host itself.
const HOST: &str = "host-gateway";

/// The names that are asked for.
///
/// # Errors
/// `invalid`, also for `host-gateway` in a network from which no way leads to the host.
pub fn asked(door: &Door, caller: &Caller, host: &HostConfig) -> Result<Vec<ExtraHost>> {
    let mut all = vec![];
    for text in host.extra_hosts.iter().flatten() {
        let wrong =
            |why: &str| Failure::new(Code::Invalid, format!("bad format for add-host: {text:.300?}: {why}"));
        let (name, address) = split(text).ok_or_else(|| wrong("write NAME:ADDRESS"))?;
        let name = name.parse::<Alias>().map_err(|error: AliasError| wrong(&error.to_string()))?;
        let address = match address {
            HOST => host_address(door, caller, &host.network_mode)?,
            text => text.parse().map_err(|_| wrong("this is no address"))?,
        };
        all.push(ExtraHost { name, address });
    }
    Ok(all)
}

/// The names of links. A container's addresses are its own for life, so that they can be written down.
///
/// # Errors
/// `not_found`, and `invalid` for a container that is in none of the networks.
pub fn linked(
    door: &Door,
    caller: &Caller,
    links: &BTreeSet<&String>,
    nics: &[NicAsked],
) -> Result<Vec<ExtraHost>> {
    let joins = |network: NetworkId| {
        let is_meant = |nic: &NicAsked| match nic {
            NicAsked::New(port) => port.network.as_ref().is_some_and(|id| *id == network.to_string()),
            NicAsked::Port { .. } => false,
        };
        nics.iter().any(is_meant)
    };
    let mut all: Vec<ExtraHost> = vec![];
    for text in links {
        let (container, name) = text.split_once(':').unwrap_or((text, text));
        let name = name.trim_start_matches('/').parse::<Alias>().map_err(|error: AliasError| {
            Failure::new(Code::Invalid, format!("invalid link {text:.300?}: {error}"))
        })?;
        let found = found::find(door, caller, container)?;
        let ports = door.control().ports_of(&found.instance().ports);
        let shared = ports.iter().find(|port| joins(port.network)).ok_or_else(|| {
            not_honoured("Links", format!("{container} is in none of the container's networks"))
        })?;
        let addresses = shared.addresses.iter().map(|fixed| fixed.address);
        all.extend(addresses.map(|address| ExtraHost { name: name.clone(), address }));
    }
    Ok(all)
}

/// Name and address of `NAME:ADDRESS`, `NAME=ADDRESS` or `NAME:[ADDRESS]`. No name has one of these signs.
fn split(text: &str) -> Option<(&str, &str)> {
    let (name, address) = text.split_once(['=', ':'])?;
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    Some((name, bare))
}

fn host_address(door: &Door, caller: &Caller, mode: &str) -> Result<IpAddr> {
    let none = || {
        not_honoured("ExtraHosts", "host-gateway: no way leads from this network to the host")
            .hint("name an address of the host, or join a network with a way out")
    };
    if mode == "none" {
        return Err(none());
    }
    let network = network::find(door, caller, if mode.is_empty() { "default" } else { mode })?;
    door.control().host_address(network.record.meta.id).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_all_forms() {
        for (text, wanted) in [
            ("db:10.0.0.1", Some(("db", "10.0.0.1"))),
            ("db=10.0.0.1", Some(("db", "10.0.0.1"))),
            ("db:fd00::1", Some(("db", "fd00::1"))),
            ("db=[fd00::1]", Some(("db", "fd00::1"))),
            ("host.docker.internal:host-gateway", Some(("host.docker.internal", HOST))),
            ("db", None),
        ] {
            assert_eq!(split(text), wanted, "{text}");
        }
    }
}
