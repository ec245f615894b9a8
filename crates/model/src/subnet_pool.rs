//! Subnet pools: ranges that subnets are cut from, so that no two of them overlap and nobody has to choose.

use crate::{
    address::{from_number, overlap, to_number},
    id::{AddressScopeId, SubnetPoolId},
    meta::Meta,
    record::Record,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Most ranges of one pool.
pub const POOL_RANGES_MAX: usize = 64;

/// Most pools of one project.
pub const POOLS_MAX: u64 = 100;

/// Ranges that subnets are cut from, all of one address family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubnetPool {
    /// Head.
    pub meta: Meta<SubnetPoolId>,
    /// The ranges, joined where they touch.
    pub ranges: Vec<IpNet>,
    /// Prefix length of a subnet that says nothing.
    pub default_prefix_len: u8,
    /// Shortest prefix (largest subnet) that may be cut.
    pub min_prefix_len: u8,
    /// Longest prefix (smallest subnet) that may be cut.
    pub max_prefix_len: u8,
    /// Most that each project may have of it: addresses of IPv4, /64 networks of IPv6; `None` for no limit.
    #[serde(default)]
    pub quota: Option<u64>,
    /// Space in which its addresses are unique.
    #[serde(default)]
    pub scope: Option<AddressScopeId>,
    /// Other projects may use it.
    #[serde(default)]
    pub shared: bool,
    /// The pool of its family that is used where none is named.
    #[serde(default)]
    pub is_default: bool,
}

/// Why a pool cannot be, or cannot give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// A pool without ranges.
    #[error("a subnet pool needs at least one range")]
    Empty,
    /// Both families.
    #[error("the ranges of a subnet pool are of one address family")]
    MixedFamilies,
    /// More than fit.
    #[error("a subnet pool has at most {POOL_RANGES_MAX} ranges")]
    TooMany,
    /// Lengths in the wrong order or out of the family's bounds.
    #[error(
        "prefix lengths {min} to {max} with {default} by default: each must be at least the one before it"
    )]
    Lengths {
        /// Shortest.
        min: u8,
        /// Usual.
        default: u8,
        /// Longest.
        max: u8,
    },
    /// A subnet of another size.
    #[error("the pool gives prefixes of /{min} to /{max}, not /{asked}")]
    Length {
        /// Asked for.
        asked: u8,
        /// Shortest.
        min: u8,
        /// Longest.
        max: u8,
    },
    /// Not in the pool.
    #[error("{0} lies outside the pool")]
    Outside(IpNet),
    /// Cut already.
    #[error("{0} overlaps {1}, which was cut from the pool already")]
    Overlap(IpNet, IpNet),
    /// Nothing left.
    #[error("the pool has no free /{0}")]
    Exhausted(u8),
}

impl SubnetPool {
    /// Whether it holds IPv4 ranges.
    pub fn is_ipv4(&self) -> bool {
        self.ranges.first().is_some_and(|range| range.addr().is_ipv4())
    }

    /// Checks ranges and lengths, and joins ranges that touch.
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn settle(&mut self) -> Result<(), PoolError> {
        let first = *self.ranges.first().ok_or(PoolError::Empty)?;
        if self.ranges.iter().any(|range| range.addr().is_ipv4() != first.addr().is_ipv4()) {
            return Err(PoolError::MixedFamilies);
        }
        self.ranges = IpNet::aggregate(&self.ranges);
        if self.ranges.len() > POOL_RANGES_MAX {
            return Err(PoolError::TooMany);
        }
        let (min, default, max) = (self.min_prefix_len, self.default_prefix_len, self.max_prefix_len);
        if min > default || default > max || max > first.max_prefix_len() {
            return Err(PoolError::Lengths { min, default, max });
        }
        Ok(())
    }

    /// The first free subnet with this prefix length beside those that were cut already.
    ///
    /// # Errors
    /// `Length`, `Exhausted`.
    pub fn cut(&self, prefix_len: Option<u8>, taken: &[IpNet]) -> Result<IpNet, PoolError> {
        let length = prefix_len.unwrap_or(self.default_prefix_len);
        self.check_length(length)?;
        for range in self.ranges.iter().filter(|range| range.prefix_len() <= length) {
            let size = 1u128.checked_shl(u32::from(range.max_prefix_len() - length)).unwrap_or(0);
            let end = to_number(range.broadcast());
            let mut start = to_number(range.network());
            loop {
                let candidate = IpNet::new(from_number(start, range.addr()), length)
                    .map_err(|_| PoolError::Exhausted(length))?;
                let Some(other) = taken.iter().find(|other| overlap(other, &candidate)) else {
                    return Ok(candidate);
                };
                // On to the first place after what is in the way, on a border of this size.
                let after = to_number(other.broadcast()).max(to_number(candidate.broadcast()));
                match after.checked_add(1) {
                    Some(next) if next <= end && size > 0 => start = next.div_ceil(size) * size,
                    _ => break,
                }
                if start > end {
                    break;
                }
            }
        }
        Err(PoolError::Exhausted(length))
    }

    /// Checks that a subnet chosen by somebody can be cut.
    ///
    /// # Errors
    /// `Length`, `Outside`, `Overlap`.
    pub fn check_cut(&self, cidr: IpNet, taken: &[IpNet]) -> Result<(), PoolError> {
        self.check_length(cidr.prefix_len())?;
        if !self.ranges.iter().any(|range| range.contains(&cidr)) {
            return Err(PoolError::Outside(cidr));
        }
        match taken.iter().find(|other| overlap(other, &cidr)) {
            Some(other) => Err(PoolError::Overlap(cidr, *other)),
            None => Ok(()),
        }
    }

    fn check_length(&self, asked: u8) -> Result<(), PoolError> {
        let (min, max) = (self.min_prefix_len, self.max_prefix_len);
        if (min..=max).contains(&asked) { Ok(()) } else { Err(PoolError::Length { asked, min, max }) }
    }

    /// What a subnet counts against the pool's quota: addresses of IPv4, /64 networks of IPv6.
    pub fn weight(cidr: &IpNet) -> u64 {
        let whole = if cidr.addr().is_ipv4() { 32 } else { 64 };
        1u64.checked_shl(u32::from(whole - cidr.prefix_len().min(whole))).unwrap_or(u64::MAX)
    }
}

impl Record for SubnetPool {
    const TABLE: &'static str = "subnet_pool";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ProjectId;

    fn pool(ranges: &[&str], lengths: [u8; 3]) -> SubnetPool {
        SubnetPool {
            meta: Meta::new(
                SubnetPoolId::from_random([1; 16]),
                ProjectId::from_random([2; 16]),
                "p".parse().unwrap(),
                jiff::Timestamp::UNIX_EPOCH,
            ),
            ranges: ranges.iter().map(|r| r.parse().unwrap()).collect(),
            min_prefix_len: lengths[0],
            default_prefix_len: lengths[1],
            max_prefix_len: lengths[2],
            quota: None,
            scope: None,
            shared: false,
            is_default: false,
        }
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn every_place_is_cut_once_whatever_the_sizes() {
        let mut pool = pool(&["10.0.0.0/24", "10.0.1.0/25"], [24, 26, 28]);
        pool.settle().unwrap();
        let mut taken = nets(&["10.0.0.16/28"]);
        for expected in ["10.0.0.64/26", "10.0.0.128/26", "10.0.0.192/26", "10.0.1.0/26", "10.0.1.64/26"] {
            let cut = pool.cut(None, &taken).unwrap();
            assert_eq!(cut.to_string(), expected);
            taken.push(cut);
        }
        assert_eq!(pool.cut(None, &taken), Err(PoolError::Exhausted(26)));
        assert_eq!(pool.cut(Some(28), &taken).unwrap().to_string(), "10.0.0.0/28");
        assert_eq!(pool.cut(Some(29), &taken), Err(PoolError::Length { asked: 29, min: 24, max: 28 }));
        let six = self::pool(&["fd00::/48"], [56, 64, 64]);
        assert_eq!(six.cut(None, &nets(&["fd00::/64"])).unwrap().to_string(), "fd00:0:0:1::/64");
    }

    #[test]
    fn what_others_choose_is_checked() {
        let pool = pool(&["10.0.0.0/16"], [8, 24, 30]);
        let taken = nets(&["10.0.1.0/24"]);
        for (cidr, right) in [("10.0.2.0/24", true), ("10.1.0.0/24", false), ("10.0.1.128/25", false)] {
            assert_eq!(pool.check_cut(cidr.parse().unwrap(), &taken).is_ok(), right, "{cidr}");
        }
        assert_eq!(SubnetPool::weight(&"10.0.0.0/24".parse().unwrap()), 256);
        assert_eq!(SubnetPool::weight(&"fd00::/62".parse().unwrap()), 4);
        assert_eq!(SubnetPool::weight(&"fd00::/80".parse().unwrap()), 1);
    }

    #[test]
    fn pools_that_cannot_be_are_refused_and_ranges_are_joined() {
        let mut joined = pool(&["10.0.1.0/24", "10.0.0.0/24"], [8, 26, 28]);
        joined.settle().unwrap();
        assert_eq!(joined.ranges, nets(&["10.0.0.0/23"]));
        assert_eq!(pool(&[], [8, 26, 28]).settle(), Err(PoolError::Empty));
        assert_eq!(pool(&["10.0.0.0/8", "fd00::/48"], [8, 26, 28]).settle(), Err(PoolError::MixedFamilies));
        for lengths in [[26, 24, 28], [8, 29, 28], [8, 26, 33]] {
            assert!(matches!(pool(&["10.0.0.0/8"], lengths).settle(), Err(PoolError::Lengths { .. })));
        }
    }
}
