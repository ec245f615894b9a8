//! Subnets: ranges of addresses of a network, and which address is free in them.

use crate::{
    address::{AddressRange, Mac, from_number, nth, overlap, to_number},
    id::{NetworkId, SecurityGroupId, SubnetId, SubnetPoolId},
    meta::Meta,
    record::Record,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Most allocation pools, DNS servers or host routes of one subnet.
pub const SUBNET_LIST_MAX: usize = 20;

/// A range of addresses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subnet {
    /// Head.
    pub meta: Meta<SubnetId>,
    /// Network it belongs to.
    pub network: NetworkId,
    /// The range; host bits are zero.
    pub cidr: IpNet,
    /// Address of the gateway; `None` for a subnet that is not routed.
    pub gateway: Option<IpAddr>,
    /// Addresses are told by DHCP (v4) or DHCPv6 and RA (v6).
    pub dhcp: bool,
    /// DNS servers told to instances; empty means holm's own.
    #[serde(default)]
    pub dns_servers: Vec<IpAddr>,
    /// Where automatic addresses come from; empty means all that is usable.
    #[serde(default)]
    pub pools: Vec<AddressRange>,
    /// Routes told to instances beside the default one.
    #[serde(default)]
    pub host_routes: Vec<HostRoute>,
    /// How IPv6 instances get their address; `None` for IPv4.
    #[serde(default)]
    pub ipv6_mode: Option<Ipv6Mode>,
    /// Which part of that is ours.
    #[serde(default)]
    pub ipv6_part: Ipv6Part,
    /// A second gate: what passes a filtered port under an address of the subnet must pass one of these groups as
    /// well as one of the port's. Empty for no such gate.
    #[serde(default)]
    pub security_groups: Vec<SecurityGroupId>,
    /// Pool that the range was cut from.
    #[serde(default)]
    pub subnet_pool: Option<SubnetPoolId>,
}

/// A route that instances are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoute {
    /// Where to.
    pub destination: IpNet,
    /// Through which neighbour.
    pub next_hop: IpAddr,
}

/// How an instance gets its IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ipv6Mode {
    /// By DHCPv6, announced with the M flag.
    Stateful,
    /// By itself from the prefix (EUI-64), nothing else.
    Slaac,
    /// By itself from the prefix; DNS by DHCPv6 (O flag).
    Stateless,
}

/// Which part of telling IPv6 addresses is the network's own; somebody else in the network may do the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ipv6Part {
    /// Router advertisements and DHCPv6.
    #[default]
    Both,
    /// Router advertisements alone.
    Advertise,
    /// DHCPv6 alone: no advertisements.
    Serve,
}

impl Ipv6Part {
    /// Whether the gateway advertises the prefix and itself.
    pub fn advertises(self) -> bool {
        self != Self::Serve
    }
    /// Whether DHCPv6 is answered.
    pub fn serves(self) -> bool {
        self != Self::Advertise
    }
}

/// Most groups of one subnet.
pub const GROUPS_PER_SUBNET_MAX: usize = 16;

/// Why a subnet cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Host bits are set.
    #[error("{given} has host bits set; the range is {range}")]
    HostBits {
        /// As given.
        given: IpNet,
        /// With host bits cleared.
        range: IpNet,
    },
    /// Too few addresses for a gateway and an instance.
    #[error("{0} is too small: a subnet needs a gateway and at least one more address (/30 or /126 at most)")]
    TooSmall(IpNet),
    /// Reserved for other purposes (loopback, link local, multicast, unspecified).
    #[error("{0} lies in a reserved range (loopback, link-local, multicast or 0.0.0.0/8)")]
    Reserved(IpNet),
    /// Another subnet of the network has some of the addresses.
    #[error("{given} overlaps {other}")]
    Overlap {
        /// As given.
        given: IpNet,
        /// The one that is there.
        other: IpNet,
    },
    /// The gateway or a pool lies outside.
    #[error("{address} lies outside {cidr} or is its first or last address")]
    Outside {
        /// The address.
        address: IpAddr,
        /// The subnet's range.
        cidr: IpNet,
    },
    /// A pool ends before it starts or mixes families.
    #[error("the pool {0}-{1} ends before it starts")]
    PoolOrder(IpAddr, IpAddr),
    /// The gateway lies in a pool.
    #[error("the gateway {0} lies inside an allocation pool")]
    GatewayInPool(IpAddr),
    /// Two pools have an address in common.
    #[error("the pools that start at {0} and {1} overlap")]
    PoolOverlap(IpAddr, IpAddr),
    /// A route or DNS server of the other family.
    #[error("{0} is not of the subnet's address family")]
    Family(IpAddr),
    /// An IPv6 mode on an IPv4 subnet.
    #[error("{0} is no IPv6 subnet: it has no IPv6 mode")]
    ModeOfIpv4(IpNet),
    /// EUI-64 needs 64 bits.
    #[error("addresses by slaac or stateless need a /64, not {0}")]
    NotA64(IpNet),
}

/// Checks a range for a new subnet beside the `others` of its network.
///
/// # Errors
/// Says which of the rules the range breaks.
pub fn check_cidr(cidr: IpNet, others: &[IpNet]) -> Result<(), SubnetError> {
    if cidr.trunc() != cidr {
        return Err(SubnetError::HostBits { given: cidr, range: cidr.trunc() });
    }
    if cidr.max_prefix_len() - cidr.prefix_len() < 2 {
        return Err(SubnetError::TooSmall(cidr));
    }
    if reserved().iter().any(|r| overlap(r, &cidr)) {
        return Err(SubnetError::Reserved(cidr));
    }
    match others.iter().find(|other| overlap(other, &cidr)) {
        Some(other) => Err(SubnetError::Overlap { given: cidr, other: *other }),
        None => Ok(()),
    }
}

fn reserved() -> [IpNet; 8] {
    [
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/3",
        "::/8",
        "fe80::/10",
        "ff00::/8",
        "fec0::/10",
    ]
    .map(|text| text.parse().expect("constant ranges parse"))
}

impl Subnet {
    /// Whether `address` may be given to a port: inside, not the network or broadcast address, not the gateway.
    pub fn is_usable(&self, address: IpAddr) -> bool {
        if !self.cidr.contains(&address) || Some(address) == self.gateway || address == self.cidr.network() {
            return false;
        }
        self.cidr.addr().is_ipv6() || address != self.cidr.broadcast()
    }

    /// Checks gateway and pools against the range.
    ///
    /// # Errors
    /// Says which address is wrong.
    pub fn check(&self) -> Result<(), SubnetError> {
        let inside = |address: IpAddr| {
            let edge =
                address == self.cidr.network() || (address.is_ipv4() && address == self.cidr.broadcast());
            if self.cidr.contains(&address) && !edge {
                Ok(())
            } else {
                Err(SubnetError::Outside { address, cidr: self.cidr })
            }
        };
        // A link-local gateway is on every link.
        let on_link = |a: &IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
        if let Some(gateway) = self.gateway.filter(|gateway| !on_link(gateway) || !self.cidr.addr().is_ipv6())
        {
            inside(gateway)?;
        }
        for pool in &self.pools {
            if pool.start > pool.end || pool.start.is_ipv4() != pool.end.is_ipv4() {
                return Err(SubnetError::PoolOrder(pool.start, pool.end));
            }
            inside(pool.start)?;
            inside(pool.end)?;
            if let Some(gateway) = self.gateway.filter(|g| pool.contains(*g)) {
                return Err(SubnetError::GatewayInPool(gateway));
            }
        }
        let mut sorted = self.pools.clone();
        sorted.sort_by_key(|pool| pool.start);
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].end >= pair[1].start) {
            return Err(SubnetError::PoolOverlap(pair[0].start, pair[1].start));
        }
        self.check_family()
    }

    fn check_family(&self) -> Result<(), SubnetError> {
        let v4 = self.cidr.addr().is_ipv4();
        for route in &self.host_routes {
            if let Some(other) =
                [route.destination.addr(), route.next_hop].into_iter().find(|a| a.is_ipv4() != v4)
            {
                return Err(SubnetError::Family(other));
            }
        }
        if self.ipv6_mode.is_some() && v4 {
            return Err(SubnetError::ModeOfIpv4(self.cidr));
        }
        if self.is_automatic() && self.cidr.prefix_len() != 64 {
            return Err(SubnetError::NotA64(self.cidr));
        }
        Ok(())
    }

    /// Whether addresses follow from the MAC (EUI-64) and none is chosen.
    pub fn is_automatic(&self) -> bool {
        matches!(self.ipv6_mode, Some(Ipv6Mode::Slaac | Ipv6Mode::Stateless)) && self.cidr.addr().is_ipv6()
    }

    /// The ranges that automatic addresses come from.
    pub fn effective_pools(&self) -> Vec<AddressRange> {
        if !self.pools.is_empty() {
            return self.pools.clone();
        }
        let start = nth(&self.cidr, 1).unwrap_or(self.cidr.network());
        let last = to_number(self.cidr.broadcast());
        let end = if self.cidr.addr().is_ipv4() { last - 1 } else { last };
        vec![AddressRange { start, end: from_number(end, start) }]
    }

    /// A free address: the one that EUI-64 gives where the mode says so, else the first at or after a place chosen by
    /// `random`, walking round each pool. `taken` says which are in use. At most 65,536 places are tried.
    pub fn free_address(&self, mac: Mac, random: u64, taken: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        if let (Some(Ipv6Mode::Slaac | Ipv6Mode::Stateless), IpNet::V6(net)) = (self.ipv6_mode, self.cidr) {
            let address = IpAddr::V6(mac.slaac_address(net.network()));
            return (!taken(address)).then_some(address);
        }
        const TRIES_MAX: u128 = 65_536;
        for pool in self.effective_pools() {
            let (start, end) = (to_number(pool.start), to_number(pool.end));
            let size = end - start + 1;
            let first = u128::from(random) % size.min(TRIES_MAX);
            let free = (0..size.min(TRIES_MAX))
                .map(|step| from_number(start + (first + step) % size.min(TRIES_MAX), pool.start))
                .find(|address| self.is_usable(*address) && !taken(*address));
            if free.is_some() {
                return free;
            }
        }
        None
    }
}

impl Record for Subnet {
    const TABLE: &'static str = "subnet";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ProjectId;
    use std::collections::HashSet;

    fn subnet(cidr: &str) -> Subnet {
        let cidr: IpNet = cidr.parse().unwrap();
        Subnet {
            meta: Meta::new(
                SubnetId::from_random([1; 16]),
                ProjectId::from_random([2; 16]),
                "s".parse().unwrap(),
                jiff::Timestamp::UNIX_EPOCH,
            ),
            network: NetworkId::from_random([3; 16]),
            cidr,
            gateway: nth(&cidr, 1),
            dhcp: true,
            dns_servers: vec![],
            pools: vec![],
            host_routes: vec![],
            ipv6_mode: None,
            ipv6_part: Ipv6Part::Both,
            security_groups: vec![],
            subnet_pool: None,
        }
    }

    #[test]
    fn every_usable_address_is_given_once_and_no_other() {
        let subnet = subnet("10.0.0.0/28");
        let mut given = HashSet::new();
        while let Some(address) =
            subnet.free_address(Mac([2, 0, 0, 0, 0, 1]), 5 * given.len() as u64, |a| given.contains(&a))
        {
            assert!(subnet.is_usable(address));
            assert!(given.insert(address));
        }
        assert_eq!(given.len(), 13, "16 less network, broadcast and gateway");
    }

    #[test]
    fn ranges_are_checked() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let there = [net("10.1.0.0/16")];
        assert_eq!(check_cidr(net("10.0.0.0/24"), &there), Ok(()));
        for (bad, words) in [
            ("10.1.2.0/24", "overlaps 10.1.0.0/16"),
            ("10.0.0.1/24", "host bits"),
            ("10.0.0.0/31", "too small"),
            ("169.254.0.0/24", "reserved"),
            ("fe80::/64", "reserved"),
        ] {
            let error = check_cidr(net(bad), &there).unwrap_err().to_string();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }

    #[test]
    fn slaac_subnets_follow_the_mac() {
        let mut subnet = subnet("fd00::/64");
        subnet.ipv6_mode = Some(Ipv6Mode::Slaac);
        let mac: Mac = "fa:16:3e:11:22:33".parse().unwrap();
        let address = subnet.free_address(mac, 9, |_| false).unwrap();
        assert_eq!(address.to_string(), "fd00::f816:3eff:fe11:2233");
    }
}
