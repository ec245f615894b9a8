//! Addresses: MAC addresses and arithmetic on IP ranges.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, net::Ipv6Addr, str::FromStr};

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// The address that every gateway shows to its instances: locally administered, `02` and then `holm` and 1.
pub const GATEWAY_MAC: Mac = Mac([0x02, 0x68, 0x6f, 0x6c, 0x6d, 0x01]);

/// A text that is not a MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address (six hex pairs like fa:16:3e:01:02:03 were expected, not multicast)")]
pub struct MacError(pub String);

impl Mac {
    /// A unicast address with the prefix that clouds use for virtual ports (fa:16:3e) and three random bytes.
    pub fn from_random(bytes: [u8; 3]) -> Self {
        Self([0xfa, 0x16, 0x3e, bytes[0], bytes[1], bytes[2]])
    }

    /// The interface identifier of modified EUI-64 (RFC 4291, appendix A) under a /64 prefix.
    pub fn slaac_address(&self, prefix: Ipv6Addr) -> Ipv6Addr {
        let m = self.0;
        let low = [m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]];
        let mut octets = prefix.octets();
        octets[8..].copy_from_slice(&low);
        Ipv6Addr::from(octets)
    }

    /// The link-local address that a guest gives itself by EUI-64.
    pub fn link_local(&self) -> Ipv6Addr {
        self.slaac_address(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = self.0;
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", m[0], m[1], m[2], m[3], m[4], m[5])
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Mac {
    type Err = MacError;
    fn from_str(text: &str) -> Result<Self, MacError> {
        let wrong = || MacError(text.to_string());
        let mut bytes = [0u8; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() || bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(wrong());
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;
    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

/// An inclusive range of addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRange {
    /// First address.
    pub start: IpAddr,
    /// Last address.
    pub end: IpAddr,
}

impl AddressRange {
    /// Whether the range holds `address`.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.start.is_ipv4() == address.is_ipv4() && self.start <= address && address <= self.end
    }
}

/// The address `offset` places after the network address of `net`, or `None` past its end.
pub fn nth(net: &IpNet, offset: u128) -> Option<IpAddr> {
    match net {
        IpNet::V4(n) => {
            let offset = u32::try_from(offset).ok()?;
            let address = u32::from(n.network()).checked_add(offset)?;
            (address <= u32::from(n.broadcast())).then(|| IpAddr::V4(address.into()))
        }
        IpNet::V6(n) => {
            let address = u128::from(n.network()).checked_add(offset)?;
            (address <= u128::from(n.broadcast())).then(|| IpAddr::V6(address.into()))
        }
    }
}

/// The address as a number, for walking a range.
pub fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}

/// The number as an address of the family of `like`.
pub fn from_number(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4((number as u32).into()),
        IpAddr::V6(_) => IpAddr::V6(number.into()),
    }
}

/// Whether two ranges share an address.
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_reads_back_and_multicast_is_refused() {
        assert_eq!("fa:16:3e:00:01:02".parse::<Mac>().unwrap().to_string(), "fa:16:3e:00:01:02");
        for bad in ["01:00:5e:00:00:01", "fa:16:3e:00:01", "fa:16:3e:00:01:02:03", "zz:16:3e:00:01:02", ""] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn eui64_flips_the_universal_bit() {
        let mac: Mac = "fa:16:3e:11:22:33".parse().unwrap();
        assert_eq!(mac.link_local().to_string(), "fe80::f816:3eff:fe11:2233");
    }

    #[test]
    fn nth_stays_inside() {
        let net: IpNet = "10.0.0.0/30".parse().unwrap();
        assert_eq!(nth(&net, 3), Some("10.0.0.3".parse().unwrap()));
        assert_eq!(nth(&net, 4), None);
    }
}
