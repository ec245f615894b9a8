//! What the services of a network (DHCP, router advertisements, DNS, metadata) may tell one port.
//!
//! The services know neither the store nor records: they get these facts, computed here from the nouns, and
//! put them on the wire. Nothing in here depends on the answerer, so the same facts fill a config drive.

use crate::{
    address::Mac,
    dataplane::view::{METADATA_V4, NetworkView},
    id::PortId,
    port::Port,
    subnet::{Ipv6Mode, Ipv6Part, Subnet},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Domain of instances whose network names no other.
pub const DOMAIN_DEFAULT: &str = "holm.internal";

/// What a port is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFacts {
    /// The port.
    pub port: PortId,
    /// Its device in the network's namespace.
    pub device: String,
    /// Ethernet address of the guest.
    pub mac: Mac,
    /// First label of the guest's name; `None` when nothing uses the port yet.
    pub hostname: Option<String>,
    /// Domain of the network.
    pub domain: String,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether any router joins the network: without one the guest is told no strong default route.
    pub routed: bool,
    /// What DHCP says: the first IPv4 address that DHCP is to tell.
    pub v4: Option<V4Facts>,
    /// What router advertisements and DHCPv6 say, one entry per IPv6 address.
    pub v6: Vec<V6Facts>,
}

/// An IPv4 address and all that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V4Facts {
    /// The address.
    pub address: Ipv4Addr,
    /// Prefix length of its subnet.
    pub prefix_len: u8,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Address by which the guest reaches this network's services.
    pub server: Ipv4Addr,
    /// DNS servers.
    pub dns: Vec<Ipv4Addr>,
    /// Routes beside the default one; a next hop of `0.0.0.0` is on the link (RFC 3442).
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
}

/// An IPv6 address and all that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V6Facts {
    /// The address.
    pub address: Ipv6Addr,
    /// Range of its subnet; never on the link, since every packet goes through the router.
    pub prefix: Ipv6Net,
    /// How the guest gets the address.
    pub mode: Ipv6Mode,
    /// Which part of that is ours.
    pub part: Ipv6Part,
    /// DNS servers.
    pub dns: Vec<Ipv6Addr>,
}

/// What `port` of the network in `view` is told. `hostname` is the first label of the name of its instance.
pub fn port_facts(view: &NetworkView, port: &Port, hostname: Option<&str>) -> PortFacts {
    let pairs = || {
        port.addresses.iter().filter_map(|fixed| {
            let subnet = view.subnets.iter().find(|s| s.meta.id == fixed.subnet)?;
            subnet.dhcp.then_some((fixed.address, subnet))
        })
    };
    PortFacts {
        port: port.meta.id,
        device: port.device_name(),
        mac: port.mac,
        hostname: hostname.map(str::to_string),
        domain: view.domain().to_string(),
        mtu: view.network.mtu,
        routed: !view.routers.is_empty(),
        v4: pairs().find_map(|(address, subnet)| v4_facts(view, address, subnet)),
        v6: pairs().filter_map(|(address, subnet)| v6_facts(view, address, subnet)).collect(),
    }
}

fn v4_facts(view: &NetworkView, address: IpAddr, subnet: &Subnet) -> Option<V4Facts> {
    let (IpAddr::V4(address), IpNet::V4(cidr)) = (address, subnet.cidr) else {
        return None;
    };
    let gateway = subnet.gateway.and_then(v4);
    let server = view.service_address_v4(subnet);
    let given: Vec<Ipv4Addr> = subnet.dns_servers.iter().copied().filter_map(v4).collect();
    let own: Ipv4Net = Ipv4Net::new(METADATA_V4, 32).expect("32 is a prefix length");
    let mut routes = vec![(own, gateway.unwrap_or(Ipv4Addr::UNSPECIFIED))];
    for route in &subnet.host_routes {
        if let (IpNet::V4(destination), IpAddr::V4(next_hop)) = (route.destination, route.next_hop)
            && destination != own
        {
            routes.push((destination, next_hop));
        }
    }
    Some(V4Facts {
        address,
        prefix_len: cidr.prefix_len(),
        gateway,
        server,
        dns: if given.is_empty() { vec![server] } else { given },
        routes,
    })
}

fn v6_facts(view: &NetworkView, address: IpAddr, subnet: &Subnet) -> Option<V6Facts> {
    let (IpAddr::V6(address), IpNet::V6(prefix)) = (address, subnet.cidr) else {
        return None;
    };
    let given: Vec<Ipv6Addr> = subnet.dns_servers.iter().copied().filter_map(v6).collect();
    let own = view.service_address_v6(subnet);
    Some(V6Facts {
        address,
        prefix,
        mode: subnet.ipv6_mode?,
        part: subnet.ipv6_part,
        dns: if given.is_empty() { own.into_iter().collect() } else { given },
    })
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}
