//! Published ports: ports of a host that lead to ports of an instance.
//!
//! Publishing says where packets go, never that they may pass: the security groups of the instance decide, and they
//! see the client's own address. Packets take the way of a floating IP; an instance that has none gets an outside
//! address of the cloud's own for the purpose (`FloatingIp::internal`), which passes the published ports alone.
//!
//! ```text
//!  client ──► host:8080 ──DNAT──► outside address:80 ──router's DNAT──► instance:80
//! ```

use crate::{
    dataplane::publish::Publication,
    floating_ip::FloatingIp,
    id::{InstanceId, NodeId},
    instance::Instance,
    record::Record,
    security_group::Protocol,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Most published ports of one instance.
pub const PUBLISH_MAX: usize = 128;
/// Most holders of one port number of a host, each on an address of its own.
pub const HOLDERS_MAX: usize = 64;
/// Host ports that are given out where none was asked for.
pub const CHOSEN_PORTS: std::ops::RangeInclusive<u16> = 32768..=60999;
/// Ports of the host that admins alone publish: what a host serves itself has its place there (SSH, DNS, web), and a
/// publication would be asked before it.
pub const PORTS_OF_ADMINS: std::ops::RangeInclusive<u16> = 1..=1023;

/// A port of the host that leads to a port of the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Publish {
    /// The host's address. `None` is every address of both families, `0.0.0.0` every IPv4 and `::` every IPv6 one.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// The host's port; 0 asks for a free one of [`CHOSEN_PORTS`] and is never stored.
    pub host_port: u16,
    /// The instance's port.
    pub port: u16,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
}

/// Why something cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The instance's port is 0.
    #[error("a published port is a number from 1 to 65535")]
    NoPort,
    /// Another protocol.
    #[error("{0} has no ports that could be published: tcp, udp and sctp have")]
    Protocol(Protocol),
    /// An address that no host has.
    #[error("{0} is no address of a host")]
    Address(IpAddr),
    /// Two entries of one instance want the same.
    #[error("{0} is published twice")]
    Twice(Publish),
    /// Too many.
    #[error("{0} published ports: an instance has at most {PUBLISH_MAX}")]
    TooMany(usize),
}

impl Publish {
    /// Checks one entry.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn check(&self) -> Result<(), PublishError> {
        if self.port == 0 {
            return Err(PublishError::NoPort);
        }
        if ![Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&self.protocol) {
            return Err(PublishError::Protocol(self.protocol));
        }
        match self.address {
            Some(IpAddr::V4(a)) if a.is_multicast() || a.is_broadcast() => {
                Err(PublishError::Address(a.into()))
            }
            // A link-local address means nothing without its link.
            Some(IpAddr::V6(a))
                if a.is_multicast() || a.is_unicast_link_local() || a.to_ipv4_mapped().is_some() =>
            {
                Err(PublishError::Address(a.into()))
            }
            _ => Ok(()),
        }
    }

    /// Whether packets of a family are meant.
    pub fn is_for(&self, v4: bool) -> bool {
        self.address.is_none_or(|address| address.is_ipv4() == v4)
    }

    /// Whether both want the same port of one host: the same address, or one of them all addresses of the other's
    /// family. Ports of different protocols or numbers never meet.
    pub fn meets(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.host_port == other.host_port
            && addresses_meet(self.address, other.address)
    }
}

/// Whether an address is in both; `None` and unspecified addresses stand for many.
pub fn addresses_meet(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    match (one, other) {
        (None, _) | (_, None) => true,
        (Some(a), Some(b)) => {
            a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
        }
    }
}

impl fmt::Display for Publish {
    /// As the command line takes it: `127.0.0.1:8080:80/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => {}
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
        }
        write!(f, "{}:{}/{}", self.host_port, self.port, self.protocol)
    }
}

/// Checks the entries of one instance, alone and against each other.
///
/// # Errors
/// The first that is wrong.
pub fn check(all: &[Publish]) -> Result<(), PublishError> {
    if all.len() > PUBLISH_MAX {
        return Err(PublishError::TooMany(all.len()));
    }
    for (number, one) in all.iter().enumerate() {
        one.check()?;
        if one.host_port != 0 && all[..number].iter().any(|other| other.meets(one)) {
            return Err(PublishError::Twice(*one));
        }
    }
    Ok(())
}

/// A port number of a host, and who holds it on which address: the key that makes racing requests meet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostPort {
    /// The host.
    pub node: NodeId,
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
    /// Holders, no two of which meet.
    pub holders: Vec<Holder>,
}

/// Who holds a host's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// On this address (as in [`Publish::address`]).
    pub address: Option<IpAddr>,
    /// The instance.
    pub instance: InstanceId,
}

impl HostPort {
    /// Key of a port.
    pub fn key_of(node: NodeId, protocol: Protocol, port: u16) -> String {
        format!("{node}.{}.{port}", protocol.0)
    }
}

impl Record for HostPort {
    const TABLE: &'static str = "host_port";
    fn key(&self) -> String {
        Self::key_of(self.node, self.protocol, self.port)
    }
}

/// The outside address of a family that an instance's published ports lead over: a floating IP before one of the
/// cloud's own, then in the order of the instance's ports.
pub fn outside_of<'a>(instance: &Instance, floating: &'a [FloatingIp], v4: bool) -> Option<&'a FloatingIp> {
    let place = |f: &FloatingIp| {
        let target = f.target?;
        instance.ports.iter().position(|port| *port == target.port)
    };
    floating
        .iter()
        .filter(|f| f.address.is_ipv4() == v4)
        .filter_map(|f| Some((f, place(f)?)))
        .min_by_key(|(f, place)| (f.internal, *place, f.meta.created_at, f.meta.id))
        .map(|(f, _)| f)
}

/// What the host must translate for an instance. `floating` are the floating IPs of its ports, others do no harm.
pub fn publications(instance: &Instance, floating: &[FloatingIp]) -> Vec<Publication> {
    led(instance, floating).into_iter().map(|(_, to)| to).collect()
}

/// As [`publications`], each with the entry that it comes from.
pub fn led(instance: &Instance, floating: &[FloatingIp]) -> Vec<(Publish, Publication)> {
    if instance.meta.is_deleting() {
        return vec![];
    }
    let mut all = Vec::new();
    for v4 in [true, false] {
        let Some(outside) = outside_of(instance, floating, v4) else {
            continue;
        };
        for publish in instance.publish.iter().filter(|p| p.is_for(v4)) {
            let publication = Publication {
                protocol: publish.protocol,
                address: publish.address.filter(|a| !a.is_unspecified()),
                port: publish.host_port,
                to: SocketAddr::new(outside.address, publish.port),
            };
            all.push((*publish, publication));
        }
    }
    all
}

/// What an outside address of the cloud's own lets in: nothing but the published ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Passage {
    /// The outside address.
    pub outside: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// The instance's port.
    pub port: u16,
}

/// The passages of an instance. `floating` are the floating IPs of its ports, others do no harm.
pub fn passages(instance: &Instance, floating: &[FloatingIp]) -> BTreeSet<Passage> {
    publications(instance, floating)
        .into_iter()
        .filter(|p| floating.iter().any(|f| f.internal && f.address == p.to.ip()))
        .map(|p| Passage { outside: p.to.ip(), protocol: p.protocol, port: p.to.port() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(text: &str) -> Publish {
        let (address, port) = match text.rsplit_once(' ') {
            Some((address, port)) => (Some(address.parse().unwrap()), port),
            None => (None, text),
        };
        Publish { address, host_port: port.parse().unwrap(), port: 80, protocol: Protocol::TCP }
    }

    #[test]
    fn ports_meet_where_an_address_is_in_both() {
        for (one, other, meet) in [
            ("8080", "8080", true),
            ("8080", "8081", false),
            ("8080", "192.0.2.1 8080", true),
            ("8080", ":: 8080", true),
            ("0.0.0.0 8080", "192.0.2.1 8080", true),
            ("0.0.0.0 8080", ":: 8080", false),
            ("0.0.0.0 8080", "2001:db8::1 8080", false),
            ("192.0.2.1 8080", "192.0.2.1 8080", true),
            ("192.0.2.1 8080", "192.0.2.2 8080", false),
        ] {
            let (a, b) = (publish(one), publish(other));
            assert_eq!((a.meets(&b), b.meets(&a)), (meet, meet), "{one} and {other}");
        }
        let udp = Publish { protocol: Protocol::UDP, ..publish("8080") };
        assert!(!udp.meets(&publish("8080")));
    }

    #[test]
    fn what_cannot_be_published_is_refused() {
        assert_eq!(check(&[publish("8080"), publish("192.0.2.1 8081")]), Ok(()));
        assert_eq!(check(&[publish("0"), publish("0")]), Ok(()), "two free ones");
        let icmp = Publish { protocol: Protocol::ICMP, ..publish("1") };
        let zero = Publish { port: 0, ..publish("1") };
        for (bad, words) in [
            (vec![publish("8080"), publish("8080")], "8080:80/tcp is published twice"),
            (vec![icmp], "icmp has no ports"),
            (vec![zero], "from 1 to 65535"),
            (vec![publish("ff02::1 80")], "no address of a host"),
            (vec![publish("224.0.0.1 80")], "no address of a host"),
            (vec![publish("0"); PUBLISH_MAX + 1], "at most 128"),
        ] {
            let error = check(&bad).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        assert_eq!(publish("8080").to_string(), "8080:80/tcp");
        assert_eq!(publish("::1 8080").to_string(), "[::1]:8080:80/tcp");
    }
}
