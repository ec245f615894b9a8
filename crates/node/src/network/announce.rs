//! Telling a LAN that an address is here now: gratuitous ARP and unsolicited neighbour advertisements.
//!
//! Others on the LAN keep the old answer for a minute or more unless they are told. Nothing depends on it being heard.

use std::net::IpAddr;
use sys::{netlink::Netlink, netns::NetNs, packet};

/// Announces each address on its device. One that cannot be announced is logged: neighbours learn it later.
pub fn announce(namespace: &NetNs, addresses: &[(String, IpAddr)]) {
    for (device, address) in addresses {
        if let Err(error) = announce_one(namespace, device, *address) {
            tracing::warn!(device, %address, %error, "address was not announced");
        }
    }
}

fn announce_one(namespace: &NetNs, device: &str, address: IpAddr) -> sys::error::Result<()> {
    let link = Netlink::open(namespace)?.link(device)?;
    // A device without an Ethernet address (a tunnel) has neighbours of its own kind.
    let Some(mac) = link.and_then(|link| link.mac) else {
        return Ok(());
    };
    match address {
        IpAddr::V4(address) => packet::send_gratuitous_arp(namespace, device, mac, address),
        IpAddr::V6(address) => packet::send_unsolicited_na(namespace, device, mac, address, false),
    }
}
