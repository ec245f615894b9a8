//! Network devices: veth pairs, bridges, and the attributes of any device.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use super::{Netlink, attributes_of, read_u32, text_of};
use crate::error::{Error, Result};
use crate::netns::NetNs;

/// An Ethernet address, in the order of the wire.
pub type Mac = [u8; 6];

/// `struct ifinfomsg`.
const HEADER_SIZE_BYTES: usize = 16;
const RTM_NEWLINK: u16 = 16;
/// The longest name of a device (`IFNAMSIZ` less the NUL).
const NAME_SIZE_BYTES_MAX: usize = 15;

/// A network device as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// The number of the device in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; tunnels and the like have none.
    pub mac: Option<Mac>,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Whether it was set up (`IFF_UP`).
    pub up: bool,
    /// Whether packets can pass (`IFF_LOWER_UP`): for a veth, that its peer is up; for a tap, that somebody holds it.
    pub carrier: bool,
    /// "veth", "bridge", "tun", "vxlan"; `None` for hardware and loopback.
    pub kind: Option<String>,
    /// The index of the bridge that it is a port of.
    pub controller: Option<u32>,
    /// For a veth: the index of its peer, in the peer's namespace.
    pub peer: Option<u32>,
}

impl Netlink {
    /// The device of this name, if there is one.
    pub fn link(&self, name: &str) -> Result<Option<Link>> {
        let message = RouteNetlinkMessage::GetLink(named(name)?);
        match self.ask("get link", name, message, 0, RTM_NEWLINK, parse) {
            Ok(links) => Ok(links.into_iter().next()),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All devices of the namespace.
    pub fn links(&self) -> Result<Vec<Link>> {
        self.dump("list links of", RouteNetlinkMessage::GetLink(LinkMessage::default()), RTM_NEWLINK, parse)
    }

    /// Makes a pair of veth devices: `name` here, and `peer_name` in `peer_namespace` (here if `None`). A veth called `name`
    /// that exists is left as it is: deleting one end always deletes both, so its peer exists as well.
    pub fn add_veth(&self, name: &str, peer_name: &str, peer_namespace: Option<&NetNs>) -> Result<()> {
        let mut peer = named(peer_name)?;
        peer.attributes
            .extend(peer_namespace.map(|namespace| LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd())));
        let data = InfoData::Veth(InfoVeth::Peer(peer));
        self.add_link("add veth", name, InfoKind::Veth, Some(data))
    }

    /// Makes a bridge; one that exists is left as it is.
    pub fn add_bridge(&self, name: &str) -> Result<()> {
        self.add_link("add bridge", name, InfoKind::Bridge, None)
    }

    fn add_link(
        &self,
        operation: &'static str,
        name: &str,
        kind: InfoKind,
        data: Option<InfoData>,
    ) -> Result<()> {
        let wanted = kind.to_string();
        let mut message = named(name)?;
        let info = [Some(LinkInfo::Kind(kind)), data.map(LinkInfo::Data)].into_iter().flatten().collect();
        message.attributes.push(LinkAttribute::LinkInfo(info));
        let result =
            self.change(operation, name, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL);
        match result {
            // The name that exists may be the peer's, or a device of another kind: then the error stands.
            Err(error) if error.errno() == Some(libc::EEXIST) => match self.link(name)? {
                Some(link) if link.kind.as_deref() == Some(wanted.as_str()) => Ok(()),
                _ => Err(error),
            },
            result => result,
        }
    }

    /// Deletes a device (and its peer, for a veth). No such device is fine.
    pub fn delete_link(&self, name: &str) -> Result<()> {
        match self.change("delete link", name, RouteNetlinkMessage::DelLink(named(name)?), 0) {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// Deletes the device that has this index, whatever it is called by now. No such device is fine.
    pub fn delete_link_at(&self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.change("delete link", index, RouteNetlinkMessage::DelLink(message), 0) {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// Sets a device up.
    pub fn set_up(&self, name: &str) -> Result<()> {
        self.set_flag("set up", name, LinkFlags::Up)
    }

    /// Sets a device down.
    pub fn set_down(&self, name: &str) -> Result<()> {
        self.set_flag("set down", name, LinkFlags::empty())
    }

    fn set_flag(&self, operation: &'static str, name: &str, flags: LinkFlags) -> Result<()> {
        let mut message = named(name)?;
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        self.change(operation, name, RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets the largest packet, in bytes.
    pub fn set_mtu(&self, name: &str, mtu_bytes: u32) -> Result<()> {
        self.set("set MTU of", name, LinkAttribute::Mtu(mtu_bytes))
    }

    /// Sets the Ethernet address.
    pub fn set_mac(&self, name: &str, mac: Mac) -> Result<()> {
        self.set("set MAC of", name, LinkAttribute::Address(mac.to_vec()))
    }

    /// Moves a device into another namespace, under the same name. Its addresses and routes are lost.
    pub fn set_ns(&self, name: &str, namespace: &NetNs) -> Result<()> {
        self.set("move to another namespace", name, LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd()))
    }

    /// Makes a device a port of a bridge, or of none.
    pub fn set_controller(&self, name: &str, bridge: Option<&str>) -> Result<()> {
        let index = bridge.map(|bridge| self.index("attach port to", bridge)).transpose()?;
        self.set("attach to bridge", name, LinkAttribute::Controller(index.unwrap_or(0)))
    }

    /// Renames a device. If only the new name is there the work was done before, and that is fine.
    pub fn rename(&self, name: &str, new_name: &str) -> Result<()> {
        let Some(index) = self.index_of(name)? else {
            return self.index("rename", new_name).map(drop);
        };
        let mut message = named(new_name)?;
        message.header.index = index;
        self.change("rename", name, RouteNetlinkMessage::SetLink(message), 0)
    }

    fn set(&self, operation: &'static str, name: &str, attribute: LinkAttribute) -> Result<()> {
        let mut message = named(name)?;
        message.attributes.push(attribute);
        self.change(operation, name, RouteNetlinkMessage::SetLink(message), 0)
    }
}

/// A message about the device of this name.
fn named(name: &str) -> Result<LinkMessage> {
    check_name(name)?;
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    Ok(message)
}

fn check_name(name: &str) -> Result<()> {
    let fits = (1..=NAME_SIZE_BYTES_MAX).contains(&name.len());
    let clean =
        name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':' && byte != b'%');
    if fits && clean && name != "." && name != ".." {
        Ok(())
    } else {
        Err(Error::invalid("name a network device", format!("{name:?}"), "1 to 15 printable characters"))
    }
}

fn parse(payload: &[u8]) -> Option<Link> {
    let flags = read_u32(payload.get(8..)?)?;
    let mut link = Link {
        index: read_u32(payload.get(4..)?)?,
        up: flags & libc::IFF_UP as u32 != 0,
        carrier: flags & libc::IFF_LOWER_UP as u32 != 0,
        ..Link::default()
    };
    for (kind, value) in attributes_of(payload.get(HEADER_SIZE_BYTES..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = text_of(&value),
            libc::IFLA_ADDRESS => link.mac = value.try_into().ok(),
            libc::IFLA_MTU => link.mtu = read_u32(&value)?,
            libc::IFLA_MASTER => link.controller = read_u32(&value),
            libc::IFLA_LINK => link.peer = read_u32(&value),
            libc::IFLA_LINKINFO => {
                let info = attributes_of(&value).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                link.kind = info.map(|(_, text)| text_of(&text));
            }
            _ => {}
        }
    }
    Some(link)
}

/// The cheapest way from a name to an index: an ioctl that any socket of the namespace answers (netdevice(7)).
pub(crate) fn index_by_name(socket: RawFd, name: &str) -> Result<Option<u32>> {
    check_name(name)?;
    // SAFETY: ifreq is plain data for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    // SAFETY: SIOCGIFINDEX reads the name (which ends in NUL: it is shorter than the field) and writes the index into
    // the same structure.
    let result = unsafe { libc::ioctl(socket, libc::SIOCGIFINDEX, &mut request) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENODEV) => Ok(None),
            _ => Err(Error::new("find device", name, error)),
        };
    }
    // SAFETY: the call succeeded, so the kernel has written this member of the union.
    let index = unsafe { request.ifr_ifru.ifru_ifindex };
    Ok(u32::try_from(index).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_mangle_are_refused() {
        for name in ["", "sixteen-letters-", "a b", "a/b", "..", ".", "eth%d", "a:1", "ü"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["lo", "fifteen-letters", "p-0a1b2c3d", "eth0.5"] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }
}
