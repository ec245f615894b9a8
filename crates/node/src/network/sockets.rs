//! Sockets opened inside a network's namespace and served by the daemon's runtime.
//!
//! A socket belongs for life to the namespace that the thread was in that made it. So a short-lived thread enters
//! the namespace, opens and binds, and hands the descriptor over; the accepting socket then tells the network.
//! Datagram sockets carry packet information both ways: the device a datagram came in by (which tells the port)
//! and the address it was sent to (which the answer must come from).

use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol,
        SockType, SockaddrIn, SockaddrIn6, SockaddrStorage, bind, listen, recvmsg, sendmsg, setsockopt,
        socket, sockopt,
    },
};
use std::{
    collections::HashMap,
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{Arc, RwLock},
};
use sys::netns::NetNs;
use tokio::{io::Interest, net::UdpSocket};

/// Largest datagram that a service reads; longer ones are cut and then fail to parse.
const DATAGRAM_BYTES_MAX: usize = 4096;
/// Connections waiting to be accepted.
const BACKLOG: i32 = 64;

/// Names of a network's port devices by index: what tells a service which port a datagram came from.
#[derive(Debug, Clone, Default)]
pub struct Devices(Arc<RwLock<HashMap<u32, String>>>);

impl Devices {
    /// The name of the device with this index.
    pub fn name(&self, index: u32) -> Option<String> {
        self.0.read().unwrap_or_else(|e| e.into_inner()).get(&index).cloned()
    }
    /// All indices.
    pub fn indices(&self) -> Vec<u32> {
        self.0.read().unwrap_or_else(|e| e.into_inner()).keys().copied().collect()
    }
    /// Replaces what is known.
    pub fn set(&self, devices: HashMap<u32, String>) {
        *self.0.write().unwrap_or_else(|e| e.into_inner()) = devices;
    }
}

/// A datagram that came in.
#[derive(Debug)]
pub struct Datagram {
    /// Payload.
    pub bytes: Vec<u8>,
    /// Sender.
    pub peer: SocketAddr,
    /// Address it was sent to.
    pub local: IpAddr,
    /// Index of the device it came in by.
    pub device_index: u32,
}

/// A datagram to send.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// Payload.
    pub bytes: &'a [u8],
    /// Receiver.
    pub to: SocketAddr,
    /// Source address; `None` lets the kernel choose.
    pub from: Option<IpAddr>,
    /// Device it must leave by; 0 lets the kernel route.
    pub device_index: u32,
}

/// A UDP or raw socket with packet information.
#[derive(Debug)]
pub struct DatagramSocket {
    // The runtime's type for datagrams; it only watches the descriptor, so a raw socket may stand in it as well.
    socket: UdpSocket,
    v6: bool,
}

fn entered<T: Send>(ns: &NetNs, open: impl FnOnce() -> nix::Result<T> + Send) -> io::Result<T> {
    ns.run(open)?.map_err(io::Error::from)
}

fn stream_flags() -> SockFlag {
    SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC
}

impl DatagramSocket {
    /// A UDP socket on `port` of every IPv4 address of the namespace.
    ///
    /// # Errors
    /// The kernel's, EADDRINUSE among them.
    pub fn udp_v4(ns: &NetNs, port: u16) -> io::Result<Self> {
        let fd = entered(ns, || {
            let fd = socket(AddressFamily::Inet, SockType::Datagram, stream_flags(), None)?;
            setsockopt(&fd, sockopt::Broadcast, &true)?;
            setsockopt(&fd, sockopt::Ipv4PacketInfo, &true)?;
            bind(
                fd.as_raw_fd(),
                &SockaddrIn::from(std::net::SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)),
            )?;
            Ok(fd)
        })?;
        Ok(Self { socket: watched(fd)?, v6: false })
    }

    /// A UDP socket on `port` of every IPv6 address of the namespace.
    ///
    /// # Errors
    /// The kernel's, EADDRINUSE among them.
    pub fn udp_v6(ns: &NetNs, port: u16) -> io::Result<Self> {
        let fd = entered(ns, || {
            let fd = socket(AddressFamily::Inet6, SockType::Datagram, stream_flags(), None)?;
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
            setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true)?;
            bind(fd.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0)))?;
            Ok(fd)
        })?;
        Ok(Self { socket: watched(fd)?, v6: true })
    }

    /// A raw ICMPv6 socket that sends with hop limit 255, as neighbour discovery demands (RFC 4861). The kernel
    /// fills in the checksum.
    ///
    /// # Errors
    /// The kernel's.
    pub fn icmp_v6(ns: &NetNs) -> io::Result<Self> {
        let fd = entered(ns, || {
            let fd = socket(AddressFamily::Inet6, SockType::Raw, stream_flags(), SockProtocol::IcmpV6)?;
            setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true)?;
            setsockopt(&fd, sockopt::Ipv6MulticastHops, &255)?;
            setsockopt(&fd, sockopt::Ipv6Ttl, &255)?;
            Ok(fd)
        })?;
        Ok(Self { socket: watched(fd)?, v6: true })
    }

    /// Joins a multicast group on a device; joining twice is fine.
    ///
    /// # Errors
    /// The kernel's, ENODEV when the device is gone.
    pub fn join(&self, group: Ipv6Addr, device_index: u32) -> io::Result<()> {
        match rustix::net::sockopt::set_ipv6_add_membership(&self.socket, &group, device_index) {
            Ok(()) | Err(rustix::io::Errno::ADDRINUSE) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next datagram.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn receive(&self) -> io::Result<Datagram> {
        loop {
            match self.socket.async_io(Interest::READABLE, || receive_now(self.socket.as_fd())).await {
                Ok(Some(datagram)) => return Ok(datagram),
                Ok(None) => {}
                // An ICMP error about an earlier answer is news about a guest, not about the socket.
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends one datagram, waiting while the socket's buffer is full.
    ///
    /// # Errors
    /// The kernel's; none of them ends the socket.
    pub async fn send(&self, reply: Reply<'_>) -> io::Result<()> {
        self.socket.async_io(Interest::WRITABLE, || send_now(self.socket.as_fd(), self.v6, reply)).await
    }
}

fn watched(fd: OwnedFd) -> io::Result<UdpSocket> {
    UdpSocket::from_std(fd.into())
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(
            Errno::ECONNREFUSED
                | Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::EMSGSIZE
                | Errno::EINTR
                | Errno::ENETDOWN
        )
    )
}

fn receive_now(fd: BorrowedFd<'_>) -> io::Result<Option<Datagram>> {
    let mut buffer = [0u8; DATAGRAM_BYTES_MAX];
    let mut control = cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let message =
        recvmsg::<SockaddrStorage>(fd.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
    let (length, address) = (message.bytes, message.address);
    let mut arrival = None;
    for part in message.cmsgs()? {
        match part {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let local = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                arrival = Some((IpAddr::V4(local), info.ipi_ifindex as u32));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                arrival = Some((IpAddr::V6(info.ipi6_addr.s6_addr.into()), info.ipi6_ifindex));
            }
            _ => {}
        }
    }
    let peer = address.and_then(|address| socket_address(&address));
    Ok(match (peer, arrival) {
        (Some(peer), Some((local, device_index))) => {
            Some(Datagram { bytes: buffer[..length].to_vec(), peer, local, device_index })
        }
        _ => None,
    })
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    let v6 = address.as_sockaddr_in6()?;
    Some(SocketAddrV6::new(v6.ip(), v6.port(), v6.flowinfo(), v6.scope_id()).into())
}

fn send_now(fd: BorrowedFd<'_>, v6: bool, reply: Reply<'_>) -> io::Result<()> {
    let data = [IoSlice::new(reply.bytes)];
    let to = SockaddrStorage::from(reply.to);
    if v6 {
        let source = match reply.from {
            Some(IpAddr::V6(address)) => address,
            _ => Ipv6Addr::UNSPECIFIED,
        };
        let info = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
            ipi6_ifindex: reply.device_index as _,
        };
        sendmsg(
            fd.as_raw_fd(),
            &data,
            &[ControlMessage::Ipv6PacketInfo(&info)],
            MsgFlags::MSG_DONTWAIT,
            Some(&to),
        )?;
    } else {
        let source = match reply.from {
            Some(IpAddr::V4(address)) => address,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        let info = libc::in_pktinfo {
            ipi_ifindex: reply.device_index as _,
            ipi_spec_dst: libc::in_addr { s_addr: u32::from(source).to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        sendmsg(
            fd.as_raw_fd(),
            &data,
            &[ControlMessage::Ipv4PacketInfo(&info)],
            MsgFlags::MSG_DONTWAIT,
            Some(&to),
        )?;
    }
    Ok(())
}

/// A TCP listener on `address` inside the namespace. The address need not be there yet; an IPv6 one never takes
/// IPv4 connections.
///
/// # Errors
/// The kernel's, EADDRINUSE among them.
pub fn listen_tcp(ns: &NetNs, address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let fd = entered(ns, || {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, stream_flags(), SockProtocol::Tcp)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        if address.is_ipv4() {
            setsockopt(&fd, sockopt::IpFreebind, &true)?;
        } else {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        listen(&fd, Backlog::new(BACKLOG)?)?;
        Ok(fd)
    })?;
    tokio::net::TcpListener::from_std(fd.into())
}

/// A UDP socket connected to `peer` inside the namespace, on a port that the kernel picks at random.
///
/// # Errors
/// The kernel's.
pub fn connect_udp(ns: &NetNs, peer: SocketAddr) -> io::Result<UdpSocket> {
    let socket = ns.run(move || {
        let any: SocketAddr = if peer.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = std::net::UdpSocket::bind(any)?;
        socket.connect(peer)?;
        socket.set_nonblocking(true)?;
        io::Result::Ok(socket)
    })??;
    UdpSocket::from_std(socket)
}

/// A TCP socket inside the namespace, not connected yet.
///
/// # Errors
/// The kernel's.
pub fn tcp_socket(ns: &NetNs, peer: SocketAddr) -> io::Result<tokio::net::TcpSocket> {
    ns.run(
        move || {
            if peer.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }
        },
    )?
}
