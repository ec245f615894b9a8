//! What a namespace must hold: the plan that the network, router, external network and host compilers fill in and
//! that one applier writes to the kernel.

use crate::{
    address::Mac,
    dataplane::nft::Table,
    id::{InstanceId, NetworkId, RouterId},
};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// The far end's address of a link towards the outside: network → router → external → host.
pub const UPSTREAM_MAC: Mac = Mac([0x02, 0x68, 0x6f, 0x6c, 0x6d, 0x02]);
/// The near end's address of such a link.
pub const DOWNSTREAM_MAC: Mac = Mac([0x02, 0x68, 0x6f, 0x6c, 0x6d, 0x03]);

/// A namespace by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Where holm itself runs.
    Host,
    /// A network's, with its ports and services.
    Network(NetworkId),
    /// A router's.
    Router(RouterId),
    /// An external network's.
    External(NetworkId),
}

impl Place {
    /// Name of the namespace's handle in the directory of handles; `None` for the host's, which is not ours.
    pub fn handle_name(&self) -> Option<String> {
        match self {
            Self::Host => None,
            Self::Network(id) => Some(format!("n-{}", id.hex())),
            Self::Router(id) => Some(format!("r-{}", id.hex())),
            Self::External(id) => Some(format!("x-{}", id.hex())),
        }
    }

    /// The place whose handle has this name.
    pub fn of_handle_name(name: &str) -> Option<Self> {
        let (kind, id) = name.split_once('-')?;
        let place = match kind {
            "n" => Self::Network(id.parse().ok()?),
            "r" => Self::Router(id.parse().ok()?),
            "x" => Self::External(id.parse().ok()?),
            _ => return None,
        };
        (place.handle_name().as_deref() == Some(name)).then_some(place)
    }
}

/// What a namespace must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespacePlan {
    /// Which namespace.
    pub place: Place,
    /// Settings below `/proc/sys`, written before the devices are made.
    pub sysctls: Vec<(String, String)>,
    /// Devices by name.
    pub devices: BTreeMap<String, DevicePlan>,
    /// Addresses by device.
    pub addresses: BTreeSet<(String, IpNet)>,
    /// Routes.
    pub routes: BTreeSet<RoutePlan>,
    /// Permanent neighbours.
    pub neighbours: BTreeSet<NeighbourPlan>,
    /// Addresses answered for on a device on behalf of others.
    pub proxies: BTreeSet<(String, IpAddr)>,
    /// Ranges in which all such answers on a device are ours: those that the plan does not name are taken away.
    pub proxy_ranges: BTreeSet<(String, IpNet)>,
    /// The firewall.
    pub table: Table,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePlan {
    /// What it is.
    pub kind: DeviceKind,
    /// Ethernet address of our end.
    pub mac: Mac,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Settings below `/proc/sys`, written once the device is there.
    pub sysctls: Vec<(String, String)>,
}

/// Kinds of device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceKind {
    /// A tap for a VM.
    Tap {
        /// User that may open it.
        owner_uid: u32,
    },
    /// A veth for a container; whoever starts the container takes the peer.
    Veth {
        /// Name of the other end until then.
        peer: String,
        /// Whose namespace the other end is made in, where that is there already; else it waits beside this end.
        holder: Option<InstanceId>,
    },
    /// A veth to another namespace of ours. Both sides plan it, and whoever comes first makes it.
    Link {
        /// Where the other end is.
        peer_place: Place,
        /// Its name there.
        peer: String,
        /// Its Ethernet address.
        peer_mac: Mac,
    },
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoutePlan {
    /// Where to.
    pub destination: IpNet,
    /// How.
    pub action: RouteAction,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteAction {
    /// The receiver is on the device's link.
    Device(String),
    /// Over a neighbour on the device's link, whose address need not be in any range of it.
    Via {
        /// Device.
        device: String,
        /// Neighbour.
        gateway: IpAddr,
    },
    /// Nobody is there; the sender is told.
    Unreachable,
}

/// A neighbour that is never asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NeighbourPlan {
    /// Device.
    pub device: String,
    /// Address.
    pub address: IpAddr,
    /// Ethernet address.
    pub mac: Mac,
}

/// One end of a link as seen from the namespace that is nearer to the guests.
pub(super) struct Uplink<'a> {
    /// Device here.
    pub device: String,
    /// Device there.
    pub peer: String,
    /// Namespace there.
    pub peer_place: Place,
    /// MTU in bytes.
    pub mtu: u32,
    /// Ranges reached over it.
    pub ranges: &'a [IpNet],
}

/// IPv4 next hop towards the outside: never an address of anything, the neighbour entry alone gives it sense.
pub(super) const UPSTREAM_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 0, 1));
/// IPv4 next hop towards the guests.
pub(super) const DOWNSTREAM_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 0, 2));
/// IPv6 next hop towards the outside.
pub(super) const UPSTREAM_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
/// IPv6 next hop towards the guests.
pub(super) const DOWNSTREAM_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2));

impl NamespacePlan {
    /// A plan for a namespace of ours with the settings that all of them have.
    pub(super) fn new(place: Place, table: Table) -> Self {
        let on = |key: &str| (key.to_string(), "1".to_string());
        let off = |key: &str| (key.to_string(), "0".to_string());
        let sysctls = vec![
            on("net/ipv4/ip_forward"),
            on("net/ipv6/conf/all/forwarding"),
            // No address that the plan does not name: neither by EUI-64 nor by advertisements, and no waiting for DAD.
            on("net/ipv6/conf/default/addr_gen_mode"),
            off("net/ipv6/conf/default/accept_ra"),
            off("net/ipv6/conf/default/accept_dad"),
            off("net/ipv6/conf/default/dad_transmits"),
            off("net/ipv4/conf/all/send_redirects"),
            off("net/ipv4/conf/default/send_redirects"),
            off("net/ipv4/conf/all/accept_redirects"),
            off("net/ipv4/conf/default/accept_redirects"),
            off("net/ipv6/conf/all/accept_redirects"),
            off("net/ipv6/conf/default/accept_redirects"),
            off("net/ipv4/conf/all/rp_filter"),
            off("net/ipv4/conf/default/rp_filter"),
            // A TCP flow whose entry was removed must not come back from its middle.
            off("net/netfilter/nf_conntrack_tcp_loose"),
        ];
        Self::empty(place, sysctls, table)
    }

    /// A plan with nothing in it.
    pub(super) fn empty(place: Place, sysctls: Vec<(String, String)>, table: Table) -> Self {
        Self {
            place,
            sysctls,
            devices: BTreeMap::new(),
            addresses: BTreeSet::new(),
            routes: BTreeSet::new(),
            neighbours: BTreeSet::new(),
            proxies: BTreeSet::new(),
            proxy_ranges: BTreeSet::new(),
            table,
        }
    }

    pub(super) fn route(&mut self, destination: IpNet, action: RouteAction) {
        self.routes.insert(RoutePlan { destination, action });
    }

    pub(super) fn address(&mut self, device: &str, address: IpNet) {
        self.addresses.insert((device.to_string(), address));
    }

    pub(super) fn neighbour(&mut self, device: &str, address: IpAddr, mac: Mac) {
        self.neighbours.insert(NeighbourPlan { device: device.to_string(), address, mac });
    }

    /// Adds our end of a link towards the outside and the routes of `ranges` over it.
    pub(super) fn uplink(&mut self, link: Uplink<'_>) {
        self.link(link, DOWNSTREAM_MAC, UPSTREAM_MAC, [UPSTREAM_V4, UPSTREAM_V6], DOWNSTREAM_V6);
    }

    /// Adds our end of a link towards the guests and the routes of `ranges` over it.
    pub(super) fn downlink(&mut self, link: Uplink<'_>) {
        self.link(link, UPSTREAM_MAC, DOWNSTREAM_MAC, [DOWNSTREAM_V4, DOWNSTREAM_V6], UPSTREAM_V6);
    }

    fn link(&mut self, link: Uplink<'_>, near: Mac, far: Mac, gateways: [IpAddr; 2], own_v6: IpAddr) {
        let device = link.device;
        let kind = DeviceKind::Link { peer_place: link.peer_place, peer: link.peer, peer_mac: far };
        self.devices
            .insert(device.clone(), DevicePlan { kind, mac: near, mtu: link.mtu, sysctls: Vec::new() });
        self.address(&device, link_local(own_v6));
        for gateway in gateways {
            self.neighbour(&device, gateway, far);
        }
        for range in link.ranges {
            let gateway = if range.addr().is_ipv4() { gateways[0] } else { gateways[1] };
            self.route(*range, RouteAction::Via { device: device.clone(), gateway });
        }
    }
}

/// A link-local address with the prefix that makes its link's route.
pub(super) fn link_local(address: IpAddr) -> IpNet {
    IpNet::new(address, 64).expect("64 is a prefix length of IPv6")
}

/// The range that holds `address` alone.
pub(super) fn single(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

/// Every address of the family.
pub(super) fn everything(v4: bool) -> IpNet {
    let text = if v4 { "0.0.0.0/0" } else { "::/0" };
    text.parse().expect("constant ranges parse")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_lead_back_to_their_places() {
        let (network, router) = (NetworkId::from_random([1; 16]), RouterId::from_random([2; 16]));
        for place in [Place::Network(network), Place::External(network), Place::Router(router)] {
            let name = place.handle_name().unwrap();
            assert_eq!(Place::of_handle_name(&name), Some(place), "{name}");
        }
        let dashed = format!("n-{network}");
        for name in ["i-0011", "else", "n-", "n-0011", &dashed] {
            assert_eq!(Place::of_handle_name(name), None, "{name}");
        }
    }
}
