//! Addresses of devices, IPv4 and IPv6. An IPv6 address is added without duplicate address detection: its owner is known,
//! and a tentative address would refuse to be used for a second.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, attributes_of, read_u32};
use crate::error::{Error, Result};

/// `struct ifaddrmsg`.
const HEADER_SIZE_BYTES: usize = 8;
const RTM_NEWADDR: u16 = 20;

impl Netlink {
    /// Gives a device an address with its prefix (`10.0.0.1/24`); an address that is there is fine.
    pub fn add_address(&self, device: &str, address: IpNet) -> Result<()> {
        let index = self.index("add address to", device)?;
        let message = RouteNetlinkMessage::NewAddress(message(index, address));
        match self.change("add address", on(device, address), message, NLM_F_CREATE | NLM_F_REPLACE) {
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// Takes an address from a device; no such address or device is fine.
    pub fn delete_address(&self, device: &str, address: IpNet) -> Result<()> {
        let Some(index) = self.index_of(device)? else {
            return Ok(());
        };
        let message = RouteNetlinkMessage::DelAddress(message(index, address));
        match self.change("delete address", on(device, address), message, 0) {
            Err(Error { source, .. }) if source.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            result => result,
        }
    }

    /// The addresses of a device, link-local ones too.
    pub fn addresses(&self, device: &str) -> Result<Vec<IpNet>> {
        let mut message = AddressMessage::default();
        message.header.index = self.index("list addresses of", device)?;
        self.dump("list addresses of", RouteNetlinkMessage::GetAddress(message), RTM_NEWADDR, parse)
    }
}

fn on(device: &str, address: IpNet) -> String {
    format!("{address} on {device}")
}

fn message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.prefix_len();
    message.header.family = family(address.addr());
    message.header.scope = scope(address.addr());
    message.attributes.push(AddressAttribute::Local(address.addr()));
    match address {
        IpNet::V4(network) => {
            message.attributes.push(AddressAttribute::Address(address.addr()));
            // A /31 and a /32 have no broadcast address (RFC 3021).
            if network.prefix_len() < 31 {
                message.attributes.push(AddressAttribute::Broadcast(network.broadcast()));
            }
        }
        IpNet::V6(_) => message.header.flags = AddressHeaderFlags::Nodad,
    }
    message
}

fn scope(address: IpAddr) -> AddressScope {
    match address {
        IpAddr::V4(address) if address.is_loopback() => AddressScope::Host,
        IpAddr::V6(address) if address.is_loopback() => AddressScope::Host,
        IpAddr::V4(address) if address.is_link_local() => AddressScope::Link,
        IpAddr::V6(address) if address.is_unicast_link_local() => AddressScope::Link,
        _ => AddressScope::Universe,
    }
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// An address of 4 or 16 bytes in the order of the wire.
pub(crate) fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

fn parse(payload: &[u8]) -> Option<IpNet> {
    let prefix = *payload.get(1)?;
    read_u32(payload.get(4..)?)?;
    let mut address = None;
    for (kind, value) in attributes_of(payload.get(HEADER_SIZE_BYTES..)?) {
        match kind {
            // On a point-to-point device IFA_ADDRESS is the peer's address, so the local one wins.
            libc::IFA_LOCAL => address = parse_address(&value),
            libc::IFA_ADDRESS if address.is_none() => address = parse_address(&value),
            _ => {}
        }
    }
    IpNet::new(address?, prefix).ok()
}
