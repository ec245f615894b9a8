//! Router advertisements (RFC 4861, RFC 8106): what an IPv6 guest must know before it can ask for more.
//!
//! The gateway is `fe80::1` on each port's device. No prefix is ever on the link: packets between two instances
//! of one subnet go through the router too, where the security groups are. The managed flag sends guests to
//! DHCPv6; on subnets where guests make their own address, the prefix is for that and nothing else.

use crate::network::{
    directory::Directory,
    limit::{Rate, RateLimit},
    sockets::{DatagramSocket, Devices, Reply},
};
use model::{
    address::GATEWAY_MAC, dataplane::service::PortFacts, dataplane::view::GATEWAY_LINK_LOCAL, id::NetworkId,
    subnet::Ipv6Mode,
};
use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::Arc,
    time::{Duration, Instant},
};

/// Group of all nodes on a link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Group of all routers on a link.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// How long the default route, DNS servers and prefixes are good for, in seconds.
pub const LIFETIME_S: u16 = 1800;
/// Time between unsolicited advertisements.
pub const PERIOD: Duration = Duration::from_secs(300);
/// Solicitations that a port may send: bursts of 10, then 1 a second.
const RATE: Rate = Rate { burst: 10.0, per_second: 1.0 };

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const FLAG_MANAGED: u8 = 0x80;
const FLAG_OTHER: u8 = 0x40;
const PREFERENCE_LOW: u8 = 0x18;
const PREFIX_AUTONOMOUS: u8 = 0x40;

/// The advertisement for the port that `facts` describe, without checksum (the kernel's raw socket adds it); `None`
/// for a port without IPv6, or where somebody else advertises.
///
/// ```text
///  type 134 | code 0 | checksum | hop limit 64 | M O preference | router lifetime | reachable 0 | retransmit 0
///  source link-layer address | MTU | prefix information (L clear) ... | RDNSS | DNSSL
/// ```
pub fn advertisement(facts: &PortFacts) -> Option<Vec<u8>> {
    let advertised = || facts.v6.iter().filter(|v6| v6.part.advertises());
    advertised().next()?;
    let mut flags = 0;
    for v6 in advertised() {
        flags |= match v6.mode {
            Ipv6Mode::Stateful => FLAG_MANAGED | FLAG_OTHER,
            Ipv6Mode::Stateless => FLAG_OTHER,
            Ipv6Mode::Slaac => 0,
        };
    }
    if !facts.routed {
        // A guest with a second interface should rather leave by that one.
        flags |= PREFERENCE_LOW;
    }
    let mut out = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, 64, flags];
    out.extend(LIFETIME_S.to_be_bytes());
    out.extend([0; 8]);
    out.extend([1, 1]);
    out.extend(GATEWAY_MAC.0);
    out.extend([5, 1, 0, 0]);
    out.extend(facts.mtu.to_be_bytes());
    for v6 in advertised() {
        let autonomous = if v6.mode == Ipv6Mode::Stateful { 0 } else { PREFIX_AUTONOMOUS };
        out.extend([3, 4, v6.prefix.prefix_len(), autonomous]);
        out.extend(86_400u32.to_be_bytes());
        out.extend(14_400u32.to_be_bytes());
        out.extend([0; 4]);
        out.extend(v6.prefix.network().octets());
    }
    put_dns(&mut out, facts);
    Some(out)
}

fn put_dns(out: &mut Vec<u8>, facts: &PortFacts) {
    let mut dns: Vec<Ipv6Addr> = facts.v6.iter().flat_map(|v6| v6.dns.iter().copied()).collect();
    dns.dedup();
    dns.truncate(8);
    if !dns.is_empty() {
        out.extend([25, 1 + 2 * dns.len() as u8, 0, 0]);
        out.extend(u32::from(LIFETIME_S).to_be_bytes());
        for server in dns {
            out.extend(server.octets());
        }
    }
    let mut name = Vec::new();
    for label in facts.domain.split('.').filter(|label| !label.is_empty() && label.len() < 64) {
        name.push(label.len() as u8);
        name.extend(label.bytes());
    }
    name.push(0);
    name.resize(name.len().next_multiple_of(8), 0);
    if name.len() <= 256 {
        out.extend([31, 1 + (name.len() / 8) as u8, 0, 0]);
        out.extend(u32::from(LIFETIME_S).to_be_bytes());
        out.extend(name);
    }
}

/// Whether `bytes` are a router solicitation (RFC 4861, section 6.1.1; the kernel has checked the checksum).
pub fn is_solicitation(bytes: &[u8]) -> bool {
    bytes.len() >= 8 && bytes[0] == ROUTER_SOLICITATION && bytes[1] == 0
}

/// Serves a network until the task is dropped: answers solicitations, and advertises on all devices now and then.
pub async fn serve(
    socket: DatagramSocket,
    network: NetworkId,
    directory: Arc<dyn Directory>,
    devices: Devices,
) -> std::io::Result<()> {
    let mut limit = RateLimit::new(RATE);
    let mut timer = tokio::time::interval(PERIOD);
    loop {
        tokio::select! {
            datagram = socket.receive() => {
                let datagram = datagram?;
                if is_solicitation(&datagram.bytes) && limit.take(datagram.device_index, Instant::now()) {
                    advertise(&socket, network, &*directory, &devices, datagram.device_index).await;
                }
            }
            _ = timer.tick() => {
                for index in devices.indices() {
                    advertise(&socket, network, &*directory, &devices, index).await;
                }
            }
        }
    }
}

/// Advertises on one device, to all nodes: only the port's guest is there to hear it.
async fn advertise(
    socket: &DatagramSocket,
    network: NetworkId,
    directory: &dyn Directory,
    devices: &Devices,
    index: u32,
) {
    let facts = devices.name(index).and_then(|name| directory.port_of_device(network, &name));
    let Some(bytes) = facts.as_ref().and_then(advertisement) else {
        return;
    };
    let reply = Reply {
        bytes: &bytes,
        to: SocketAddr::V6(SocketAddrV6::new(ALL_NODES, 0, 0, index)),
        from: Some(IpAddr::V6(GATEWAY_LINK_LOCAL)),
        device_index: index,
    };
    // A guest that is off has no carrier; it will solicit when it boots.
    if let Err(error) = socket.send(reply).await {
        tracing::trace!(%network, index, %error, "router advertisement was not sent");
    }
}
