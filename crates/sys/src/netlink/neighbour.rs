//! Neighbours: which Ethernet address an IP address has on a link, and for which addresses this host answers itself (proxy
//! ARP and proxy neighbour discovery).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use super::address::{family, parse_address};
use super::{Mac, Netlink, attributes_of, read_u32};
use crate::error::Result;

/// `struct ndmsg`.
const HEADER_SIZE_BYTES: usize = 12;
const RTM_NEWNEIGH: u16 = 28;

/// A neighbour on a device's link.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address; `None` while it is being asked for or when nobody answered.
    pub mac: Option<Mac>,
    /// Whether the entry was put there for good, rather than learned.
    pub permanent: bool,
}

impl Netlink {
    /// Says for good which Ethernet address `address` has on the device's link.
    pub fn replace_neighbour(&self, device: &str, address: IpAddr, mac: Mac) -> Result<()> {
        let mut message = self.neighbour("replace neighbour on", device, address)?;
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        let message = RouteNetlinkMessage::NewNeighbour(message);
        self.change("replace neighbour", on(device, address), message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Forgets a neighbour, permanent or learned; no such neighbour or device is fine.
    pub fn delete_neighbour(&self, device: &str, address: IpAddr) -> Result<()> {
        self.delete(device, address, NeighbourFlags::empty())
    }

    /// The neighbours on a device's link.
    pub fn neighbours(&self, device: &str) -> Result<Vec<Neighbour>> {
        let index = self.index("list neighbours of", device)?;
        let question = self.question(index, NeighbourFlags::empty());
        self.dump("list neighbours of", question, RTM_NEWNEIGH, |payload| parse(payload, index, false))
    }

    /// Answers for `address` on the device's link with the device's own Ethernet address.
    pub fn add_proxy_neighbour(&self, device: &str, address: IpAddr) -> Result<()> {
        let mut message = self.neighbour("add proxy neighbour on", device, address)?;
        message.header.flags = NeighbourFlags::Proxy;
        let message = RouteNetlinkMessage::NewNeighbour(message);
        self.change("add proxy neighbour", on(device, address), message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Ends answering for `address`; not answering already, or no such device, is fine.
    pub fn delete_proxy_neighbour(&self, device: &str, address: IpAddr) -> Result<()> {
        self.delete(device, address, NeighbourFlags::Proxy)
    }

    /// The addresses that are answered for on the device's link.
    pub fn proxy_neighbours(&self, device: &str) -> Result<Vec<IpAddr>> {
        let index = self.index("list proxy neighbours of", device)?;
        let question = self.question(index, NeighbourFlags::Proxy);
        self.dump("list proxy neighbours of", question, RTM_NEWNEIGH, |payload| {
            parse(payload, index, true).map(|neighbour| neighbour.address)
        })
    }

    fn delete(&self, device: &str, address: IpAddr, flags: NeighbourFlags) -> Result<()> {
        if self.index_of(device)?.is_none() {
            return Ok(());
        }
        let mut message = self.neighbour("delete neighbour on", device, address)?;
        message.header.flags = flags;
        match self.change(
            "delete neighbour",
            on(device, address),
            RouteNetlinkMessage::DelNeighbour(message),
            0,
        ) {
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
            result => result,
        }
    }

    fn neighbour(&self, operation: &'static str, device: &str, address: IpAddr) -> Result<NeighbourMessage> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = self.index(operation, device)?;
        message.attributes.push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        }));
        Ok(message)
    }

    /// A dump of one device. The kernel wants the index as an attribute here and refuses it in the header.
    fn question(&self, index: u32, flags: NeighbourFlags) -> RouteNetlinkMessage {
        let mut message = NeighbourMessage::default();
        message.header.flags = flags;
        message.attributes.push(NeighbourAttribute::IfIndex(index));
        RouteNetlinkMessage::GetNeighbour(message)
    }
}

fn on(device: &str, address: IpAddr) -> String {
    format!("{address} on {device}")
}

fn parse(payload: &[u8], wanted_index: u32, wanted_proxy: bool) -> Option<Neighbour> {
    let index = read_u32(payload.get(4..)?)?;
    let state = u16::from_ne_bytes(*payload.get(8..)?.first_chunk()?);
    let is_proxy = *payload.get(10)? & libc::NTF_PROXY != 0;
    if index != wanted_index || is_proxy != wanted_proxy {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for (kind, value) in attributes_of(payload.get(HEADER_SIZE_BYTES..)?) {
        match kind {
            libc::NDA_DST => address = parse_address(&value),
            libc::NDA_LLADDR => mac = value.try_into().ok(),
            _ => {}
        }
    }
    Some(Neighbour { address: address?, mac, permanent: state & libc::NUD_PERMANENT != 0 })
}
