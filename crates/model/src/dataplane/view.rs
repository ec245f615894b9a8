//! What the compilers look at: the nouns of one network, router or external network, gathered by the caller.
//!
//! A view holds records as they are, so that every decision about them is made in this room and nowhere else.

use crate::{
    dataplane::service::DOMAIN_DEFAULT,
    floating_ip::FloatingIp,
    id::{NetworkId, PortId, SecurityGroupId},
    network::{Network, NetworkKind},
    port::{Port, spread::SpreadPort},
    publish::Passage,
    router::Router,
    security_group::SecurityGroup,
    subnet::Subnet,
};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Address of the metadata service, the same in every cloud.
pub const METADATA_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Address of the metadata service on each link, as EC2 and OpenStack have it.
pub const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe);
/// Address of the gateway on each port's link.
pub const GATEWAY_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A network, with all that its namespace on one host needs.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkView {
    /// The network.
    pub network: Network,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Every group that one of the ports has.
    pub groups: Vec<SecurityGroup>,
    /// Addresses of all ports (of any network) in each group that a rule of `groups` names as its peer.
    pub members: BTreeMap<SecurityGroupId, BTreeSet<IpAddr>>,
    /// Routers with an interface in the network.
    pub routers: Vec<AttachedRouter>,
    /// Ports that have a device on this host, and of which kind.
    pub attachments: BTreeMap<PortId, Attachment>,
    /// Addresses behind which others answer.
    pub spreads: Vec<SpreadView>,
}

/// Addresses whose traffic is spread, and over whom just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpreadView {
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// What is led on.
    pub ports: Vec<SpreadPort>,
    /// Addresses of those that are ready.
    pub targets: BTreeSet<IpAddr>,
}

impl NetworkView {
    /// Addresses that a port had in `old` and has no more: it went, lost its device, or has others.
    pub fn departed_since(&self, old: &Self) -> BTreeSet<IpAddr> {
        let ports = by_id(&self.ports);
        let lost_device =
            |id: &PortId| old.attachments.contains_key(id) && !self.attachments.contains_key(id);
        let still = |was: &Port, ip: &IpAddr| {
            ports.get(&was.meta.id).is_some_and(|is| is.ips().any(|now| now == *ip))
                && !lost_device(&was.meta.id)
        };
        let departed = old.ports.iter().flat_map(|port| port.ips().filter(move |ip| !still(port, ip)));
        departed.collect()
    }

    /// Whether this view allows all that `old` did but for what these departed addresses had, as can be told without asking
    /// about any flow: ports, groups and members came in, ports went or lost their device, and nothing else is different.
    pub fn allows_all_of(&self, old: &Self, departed: &BTreeSet<IpAddr>) -> bool {
        let (new_ports, old_ports) = (by_id(&self.ports), by_id(&old.ports));
        let members = |(group, old): (&SecurityGroupId, &BTreeSet<IpAddr>)| {
            // Nobody asks for the members of a group that no rule names any more.
            self.members.get(group).is_none_or(|new| old.difference(new).all(|one| departed.contains(one)))
        };
        let in_use = |group: &SecurityGroupId| {
            self.ports.iter().any(|port| port.security_groups.contains(group))
                || self.subnets.iter().any(|subnet| subnet.security_groups.contains(group))
        };
        let groups = |old: &SecurityGroup| match self.group(old.meta.id) {
            Some(new) => new == old,
            None => !in_use(&old.meta.id),
        };
        let attachments =
            |(id, old): (&PortId, &Attachment)| self.attachments.get(id).is_none_or(|new| new == old);
        // Which port an address of a pair belongs to depends on all ports.
        let has_pairs = self.ports.iter().chain(&old.ports).any(|port| !port.allowed_pairs.is_empty());
        self.network == old.network
            && self.subnets == old.subnets
            && self.routers == old.routers
            && !has_pairs
            && old_ports.iter().all(|(id, port)| new_ports.get(id).is_none_or(|new| new == port))
            && old.groups.iter().all(groups)
            && old.members.iter().all(members)
            && old.attachments.iter().all(attachments)
    }
}

fn by_id(ports: &[Port]) -> BTreeMap<PortId, &Port> {
    ports.iter().map(|port| (port.meta.id, port)).collect()
}

/// A router as one of its networks sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct AttachedRouter {
    /// The router.
    pub router: Router,
    /// Its addresses in this network.
    pub addresses: Vec<IpAddr>,
    /// Ranges of the subnets that it joins in other networks.
    pub far_ranges: Vec<IpNet>,
}

/// What kind of device a port has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// A tap that this user may open (a VM's).
    Tap {
        /// The user that the VMM runs as.
        owner_uid: u32,
    },
    /// One end of a veth; the other waits beside it under [`Port`]'s peer name until a container takes it.
    Veth,
}

/// A router, with all that its namespace needs.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterView {
    /// The router.
    pub router: Router,
    /// Subnets it joins, each with the MTU of its network.
    pub subnets: Vec<(Subnet, u32)>,
    /// Its place outside, if it has one.
    pub outside: Option<Outside>,
    /// Floating IPs that it translates.
    pub floating_ips: Vec<FloatingIp>,
    /// What those of the cloud's own let in.
    pub passages: BTreeSet<Passage>,
}

/// A router's place in an external network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// The external network.
    pub network: NetworkId,
    /// The router's addresses there, at most one of each family is used.
    pub addresses: Vec<IpAddr>,
    /// MTU of the external network.
    pub mtu: u32,
}

/// An external network, with all that its namespace and the host need.
#[derive(Debug, Clone, PartialEq)]
pub struct ExternalView {
    /// The network.
    pub network: Network,
    /// Its subnets: the pools.
    pub subnets: Vec<Subnet>,
    /// Routers whose gateway is here, with their addresses.
    pub routers: Vec<(Router, Vec<IpAddr>)>,
    /// Floating IPs of the network.
    pub floating_ips: Vec<FloatingIp>,
}

impl NetworkView {
    /// Domain under which instances are named.
    pub fn domain(&self) -> &str {
        if self.network.dns_domain.is_empty() { DOMAIN_DEFAULT } else { &self.network.dns_domain }
    }

    /// Whether the host has a part in the network.
    pub fn is_host_only(&self) -> bool {
        self.network.kind == NetworkKind::HostOnly
    }

    /// Whether packets of the network can leave it for the outside, and DNS questions with them.
    pub fn has_way_out(&self) -> bool {
        self.routers.iter().any(|attached| attached.router.gateway.is_some() && attached.router.admin_up)
    }

    /// Address by which guests of `subnet` reach services. The gateway's own, unless nobody or the host has that.
    pub fn service_address_v4(&self, subnet: &Subnet) -> Ipv4Addr {
        match subnet.gateway {
            Some(IpAddr::V4(gateway)) if !self.is_host_only() => gateway,
            _ => METADATA_V4,
        }
    }

    /// As [`Self::service_address_v4`]; a subnet without a gateway has no such address that a resolver could use.
    pub fn service_address_v6(&self, subnet: &Subnet) -> Option<Ipv6Addr> {
        match subnet.gateway {
            Some(IpAddr::V6(gateway)) if !self.is_host_only() && !gateway.is_unicast_link_local() => {
                Some(gateway)
            }
            _ => None,
        }
    }

    /// Ports that have a device here.
    pub fn attached(&self) -> impl Iterator<Item = (&Port, Attachment)> {
        self.ports.iter().filter_map(|port| Some((port, *self.attachments.get(&port.meta.id)?)))
    }

    /// The group with this id.
    pub fn group(&self, id: SecurityGroupId) -> Option<&SecurityGroup> {
        self.groups.iter().find(|group| group.meta.id == id)
    }

    /// The router that packets take to places that nothing else says how to reach: one of the network's own project
    /// before another's, which an admin joined, one with a way out before one without, then the oldest.
    pub fn default_router(&self) -> Option<&AttachedRouter> {
        self.routers.iter().min_by_key(|a| {
            (!self.owns(a), a.router.gateway.is_none(), a.router.meta.created_at, a.router.meta.id)
        })
    }

    /// Whether a router is of the network's own project.
    pub fn owns(&self, attached: &AttachedRouter) -> bool {
        attached.router.meta.project == self.network.meta.project
    }
}
