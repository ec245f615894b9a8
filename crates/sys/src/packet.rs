//! Packets that no ordinary socket sends: whole Ethernet frames, announcements of an address, router advertisements.
//!
//! A socket belongs to the namespace and device that it was opened for and can reach nothing else.

use std::ffi::c_int;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, SockaddrIn6, recv, recvfrom, sendto, setsockopt, sockopt};

use crate::error::{Context, Error, Result, check};
use crate::netlink::{Mac, index_by_name};
use crate::netns::NetNs;

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const BROADCAST: Mac = [0xff; 6];
/// All nodes of the link: ff02::1.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All routers of the link: ff02::2.
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const ROUTER_SOLICITATION: u8 = 133;
/// Neighbour discovery takes only packets that no router has passed on (RFC 4861, section 7.1).
const HOP_LIMIT: u8 = 255;

/// A socket for whole Ethernet frames of one device.
#[derive(Debug)]
pub struct FrameSocket {
    descriptor: OwnedFd,
    device: String,
}

impl FrameSocket {
    /// Opens a socket on `device` that receives frames of one type (`Some(0x0806)` is ARP), or all.
    pub fn open(namespace: &NetNs, device: &str, ethertype: Option<u16>) -> Result<FrameSocket> {
        let open = || open_frames(device, ethertype.unwrap_or(libc::ETH_P_ALL as u16));
        let descriptor = namespace.run(open).context("open frame socket on", device)??;
        Ok(FrameSocket { descriptor, device: device.to_owned() })
    }

    /// Sends a frame: destination, source, type, content.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        retry(|| nix::sys::socket::send(self.descriptor.as_raw_fd(), frame, MsgFlags::MSG_NOSIGNAL))
            .context("send frame on", &self.device)
            .map(drop)
    }

    /// Receives a frame; a longer one is cut to the buffer.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<usize> {
        retry(|| recv(self.descriptor.as_raw_fd(), buffer, MsgFlags::empty()))
            .context("receive frame on", &self.device)
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Sends one whole Ethernet frame on a device.
pub fn send_frame(namespace: &NetNs, device: &str, frame: &[u8]) -> Result<()> {
    // Type 0: nothing is received on it.
    FrameSocket::open(namespace, device, Some(0))?.send(frame)
}

/// Tells the device's link that `address` is at `mac` now (RFC 5227, section 3: an ARP request for one's own address).
pub fn send_gratuitous_arp(namespace: &NetNs, device: &str, mac: Mac, address: Ipv4Addr) -> Result<()> {
    send_frame(namespace, device, &gratuitous_arp(mac, address))
}

/// Tells the device's link that `address` is at `mac` now (RFC 4861, section 7.2.6: an unsolicited advertisement).
pub fn send_unsolicited_na(
    namespace: &NetNs,
    device: &str,
    mac: Mac,
    address: Ipv6Addr,
    router: bool,
) -> Result<()> {
    send_frame(namespace, device, &unsolicited_na(mac, address, router))
}

/// The frame of [`send_gratuitous_arp`].
pub fn gratuitous_arp(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ETHERTYPE_ARP);
    // Ethernet, IPv4, their address lengths, request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// The frame of [`send_unsolicited_na`].
pub fn unsolicited_na(mac: Mac, address: Ipv6Addr, router: bool) -> Vec<u8> {
    // Flags: router, override; then the target and its link-layer address as an option.
    let flags = 0x20 | if router { 0x80 } else { 0 };
    let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    message.extend(address.octets());
    message.extend([2, 1]);
    message.extend(mac);
    let sum = icmpv6_checksum(address, ALL_NODES, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet([0x33, 0x33, 0, 0, 0, 1], mac, ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([ICMPV6, HOP_LIMIT]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

fn ethernet(destination: Mac, source: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(96);
    frame.extend(destination);
    frame.extend(source);
    frame.extend(ethertype.to_be_bytes());
    frame
}

/// The one's complement sum over the pseudo header (RFC 8200, section 8.1) and the message, whose own checksum is zero.
pub fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = (message.len() as u32).to_be_bytes();
    let pseudo = [&source.octets()[..], &destination.octets(), &length, &[0, 0, 0, ICMPV6]].concat();
    let words = pseudo.chunks(2).chain(message.chunks(2));
    let sum: u64 = words.map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0))).sum();
    let mut folded = sum;
    while folded > 0xffff {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    !(folded as u16)
}

/// A raw ICMPv6 socket for router advertisements on one device: it receives router solicitations and nothing else, sends with
/// hop limit 255, and the kernel fills in checksums.
#[derive(Debug)]
pub struct RouterSocket {
    descriptor: OwnedFd,
    device: String,
    index: u32,
}

impl RouterSocket {
    /// Opens the socket and joins the group of all routers.
    pub fn open(namespace: &NetNs, device: &str) -> Result<RouterSocket> {
        let (descriptor, index) = namespace
            .run(|| open_router(device))
            .context("open router advertisement socket on", device)??;
        Ok(RouterSocket { descriptor, device: device.to_owned(), index })
    }

    /// Sends an ICMPv6 message (its checksum is filled in) to a host of the link, or to [`RouterSocket::all_nodes`].
    pub fn send(&self, message: &[u8], destination: Ipv6Addr) -> Result<()> {
        let address = SockaddrIn6::from(SocketAddrV6::new(destination, 0, 0, self.index));
        retry(|| sendto(self.descriptor.as_raw_fd(), message, &address, MsgFlags::MSG_NOSIGNAL))
            .context("send router advertisement on", &self.device)
            .map(drop)
    }

    /// Receives a router solicitation: its length and who asks (`::` for a host that has no address yet).
    pub fn receive(&self, buffer: &mut [u8]) -> Result<(usize, Ipv6Addr)> {
        let (length, address) = retry(|| recvfrom::<SockaddrIn6>(self.descriptor.as_raw_fd(), buffer))
            .context("receive router solicitation on", &self.device)?;
        Ok((length, address.map_or(Ipv6Addr::UNSPECIFIED, |address| address.ip())))
    }

    /// ff02::1.
    pub fn all_nodes() -> Ipv6Addr {
        ALL_NODES
    }

    /// Lets [`RouterSocket::receive`] fail with `WouldBlock` instead of waiting, for use in an event loop.
    pub fn set_nonblocking(&self) -> Result<()> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let flags =
            fcntl(&self.descriptor, FcntlArg::F_GETFL).context("get flags of socket on", &self.device)?;
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        fcntl(&self.descriptor, FcntlArg::F_SETFL(flags))
            .context("set flags of socket on", &self.device)
            .map(drop)
    }
}

impl AsFd for RouterSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for RouterSocket {
    fn as_raw_fd(&self) -> i32 {
        self.descriptor.as_raw_fd()
    }
}

impl AsRawFd for FrameSocket {
    fn as_raw_fd(&self) -> i32 {
        self.descriptor.as_raw_fd()
    }
}

fn socket(family: c_int, kind: c_int, protocol: c_int, device: &str) -> Result<OwnedFd> {
    // SAFETY: the arguments are numbers.
    let result = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    let number = check("open raw socket on", device, result.into())?;
    // SAFETY: the kernel has just returned this descriptor, so it is open and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number as i32) })
}

fn index_of(descriptor: &OwnedFd, device: &str) -> Result<u32> {
    index_by_name(descriptor.as_raw_fd(), device)?
        .ok_or_else(|| Error::new("open raw socket on", device, io::Error::from_raw_os_error(libc::ENODEV)))
}

/// In the namespace. Protocol 0 first, so that nothing of other devices is received before the socket is bound.
fn open_frames(device: &str, ethertype: u16) -> Result<OwnedFd> {
    let descriptor = socket(libc::AF_PACKET, libc::SOCK_RAW, 0, device)?;
    // SAFETY: sockaddr_ll is plain data for which all zeros is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index_of(&descriptor, device)? as c_int;
    // SAFETY: the address lives through the call and is given with its size.
    let result = unsafe {
        let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        libc::bind(descriptor.as_raw_fd(), (&raw const address).cast(), size)
    };
    check("bind frame socket to", device, result.into())?;
    Ok(descriptor)
}

/// In the namespace.
fn open_router(device: &str) -> Result<(OwnedFd, u32)> {
    let descriptor = socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6, device)?;
    let index = index_of(&descriptor, device)?;
    setsockopt(&descriptor, sockopt::BindToDevice, &device.into()).context("bind raw socket to", device)?;
    let hops = c_int::from(HOP_LIMIT);
    set_option(&descriptor, device, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, &hops)?;
    set_option(&descriptor, device, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, &hops)?;
    // A set bit blocks its type.
    let mut filter = [u32::MAX; 8];
    filter[usize::from(ROUTER_SOLICITATION) >> 5] &= !(1 << (ROUTER_SOLICITATION & 31));
    const ICMP6_FILTER: c_int = 1;
    set_option(&descriptor, device, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &filter)?;
    let group = libc::ipv6_mreq {
        ipv6mr_multiaddr: libc::in6_addr { s6_addr: ALL_ROUTERS.octets() },
        ipv6mr_interface: index,
    };
    set_option(&descriptor, device, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &group)?;
    Ok((descriptor, index))
}

fn set_option<T: Copy>(
    descriptor: &OwnedFd,
    device: &str,
    level: c_int,
    name: c_int,
    value: &T,
) -> Result<()> {
    // SAFETY: the value is plain data that lives through the call, given with its size.
    let result = unsafe {
        let size = size_of::<T>() as libc::socklen_t;
        libc::setsockopt(descriptor.as_raw_fd(), level, name, (&raw const *value).cast(), size)
    };
    check("configure raw socket on", device, result.into()).map(drop)
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(nix::Error::EINTR) => continue,
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_message_with_its_checksum_is_zero() {
        let address: Ipv6Addr = "fe80::1".parse().expect("an address");
        let frame = unsolicited_na([2, 0, 0, 0, 0, 1], address, true);
        let message = &frame[14 + 40..];
        assert_eq!(icmpv6_checksum(address, ALL_NODES, message), 0);
        assert_eq!(gratuitous_arp([2, 0, 0, 0, 0, 1], Ipv4Addr::LOCALHOST).len(), 42);
    }
}
