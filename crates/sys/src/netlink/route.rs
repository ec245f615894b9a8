//! Routes: through a device, by way of a gateway, or refusals (blackhole, unreachable), IPv4 and IPv6, in any table.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::address::{family, parse_address};
use super::{Netlink, attributes_of, read_u32};
use crate::error::{Error, Result};

/// The routing table that is used when no rule says another.
pub const MAIN_TABLE: u32 = 254;
/// `struct rtmsg`.
const HEADER_SIZE_BYTES: usize = 12;
const RTM_NEWROUTE: u16 = 24;
/// IPv6 routes that say no metric get this one (`IP6_RT_PRIO_USER`).
const DEFAULT_METRIC_V6: u32 = 1024;

/// A route of a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Which way.
    pub target: RouteTarget,
    /// In which table; [`MAIN_TABLE`] is the usual one.
    pub table: u32,
    /// Lower wins among routes to the same destination. 0 means the kernel's default (0 for IPv4, 1024 for IPv6).
    pub metric: u32,
    /// The source address of packets that start here and take this route.
    pub source: Option<IpAddr>,
}

/// The way that a route goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteTarget {
    /// The destination is on this device's link.
    Device(String),
    /// By way of a gateway, which may be of the other address family (an IPv4 route via an IPv6 gateway).
    Via {
        /// The next hop.
        gateway: IpAddr,
        /// Through which device; `None` lets the kernel find it.
        device: Option<String>,
        /// The gateway is on the device's link although no route says so.
        onlink: bool,
    },
    /// Packets vanish.
    Blackhole,
    /// Packets are answered with "host unreachable".
    Unreachable,
}

impl Route {
    /// A route in the main table with the default metric.
    pub fn new(destination: IpNet, target: RouteTarget) -> Route {
        Route { destination: destination.trunc(), target, table: MAIN_TABLE, metric: 0, source: None }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        match &self.target {
            RouteTarget::Device(device) => write!(f, " dev {device}")?,
            RouteTarget::Via { gateway, device, onlink } => {
                write!(f, " via {gateway}")?;
                device.iter().try_for_each(|device| write!(f, " dev {device}"))?;
                if *onlink {
                    write!(f, " onlink")?;
                }
            }
            RouteTarget::Blackhole => write!(f, " blackhole")?,
            RouteTarget::Unreachable => write!(f, " unreachable")?,
        }
        if self.table != MAIN_TABLE {
            write!(f, " table {}", self.table)?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        Ok(())
    }
}

impl Netlink {
    /// Makes this the route to its destination for its table and metric, in place of another one.
    pub fn replace_route(&self, route: &Route) -> Result<()> {
        let message = RouteNetlinkMessage::NewRoute(self.route_message("replace route", route)?);
        if route.destination.addr().is_ipv4() {
            return self.change("replace route", route, message, NLM_F_CREATE | NLM_F_REPLACE);
        }
        match self.change("replace route", route, message.clone(), NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.errno() == Some(libc::EEXIST) => self.replace_rivals(route, message),
            result => result,
        }
    }

    /// Like [`Netlink::replace_route`] for many: the tables are read once, and what is there already is left alone. So
    /// applying the same routes again costs one reading and no change.
    pub fn replace_routes(&self, routes: &[Route]) -> Result<()> {
        let mut tables: Vec<u32> = routes.iter().map(|route| route.table).collect();
        tables.sort_unstable();
        tables.dedup();
        let mut present: HashMap<(IpNet, u32, u32), Vec<Route>> = HashMap::new();
        for table in tables {
            for route in self.list_routes(table)? {
                present.entry(place(&route)).or_default().push(route);
            }
        }
        for route in routes {
            let alone = |there: &Vec<Route>| there.len() == 1 && same(&there[0], route);
            if !present.get(&place(route)).is_some_and(alone) {
                self.replace_route(route)?;
            }
        }
        Ok(())
    }

    /// IPv6 replaces only what could share a multipath route; a refusal, for example, is put beside a route through a
    /// device. So what stands beside the new route is taken away, and the new one put back if it went along.
    fn replace_rivals(&self, route: &Route, message: RouteNetlinkMessage) -> Result<()> {
        let standing = || -> Result<Vec<Route>> {
            let mut routes = self.routes(route.table, AddressFamily::Inet6)?;
            routes.retain(|other| place(other) == place(route));
            Ok(routes)
        };
        if matches!(&standing()?[..], [only] if same(only, route)) {
            return Ok(());
        }
        self.change("replace route", route, message.clone(), NLM_F_CREATE | NLM_F_REPLACE)?;
        let mut lost = false;
        for rival in standing()?.iter().filter(|other| !same(other, route)) {
            self.delete_route(rival)?;
            lost = true;
        }
        if lost && !standing()?.iter().any(|other| same(other, route)) {
            self.change("replace route", route, message, NLM_F_CREATE | NLM_F_REPLACE)?;
        }
        Ok(())
    }

    /// Deletes exactly this route; none like it, or no such device, is fine.
    pub fn delete_route(&self, route: &Route) -> Result<()> {
        let message = match self.route_message("delete route", route) {
            Err(error) if error.errno() == Some(libc::ENODEV) => return Ok(()),
            message => message?,
        };
        match self.change("delete route", route, RouteNetlinkMessage::DelRoute(message), 0) {
            Err(error) if matches!(error.errno(), Some(libc::ESRCH | libc::ENODEV | libc::ENETUNREACH)) => {
                Ok(())
            }
            result => result,
        }
    }

    /// The unicast, blackhole and unreachable routes of a table, of both families.
    pub fn list_routes(&self, table: u32) -> Result<Vec<Route>> {
        let mut routes = self.routes(table, AddressFamily::Inet)?;
        routes.extend(self.routes(table, AddressFamily::Inet6)?);
        Ok(routes)
    }

    fn routes(&self, table: u32, family: AddressFamily) -> Result<Vec<Route>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.attributes.push(RouteAttribute::Table(table));
        let names = self.links()?.into_iter().map(|link| (link.index, link.name)).collect();
        let read = |payload: &[u8]| parse(payload, &names).filter(|route| route.table == table);
        match self.dump("list routes of", RouteNetlinkMessage::GetRoute(message), RTM_NEWROUTE, read) {
            // A table that nobody used yet.
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
            result => result,
        }
    }

    fn route_message(&self, operation: &'static str, route: &Route) -> Result<RouteMessage> {
        let destination = route.destination;
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: family(destination.addr()),
            destination_prefix_length: destination.prefix_len(),
            table: u8::try_from(route.table).unwrap_or(0),
            protocol: RouteProtocol::Static,
            scope: scope(route),
            kind: kind(&route.target),
            flags: flags(&route.target),
            ..RouteHeader::default()
        };
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Destination(destination.network().into()));
        attributes.push(RouteAttribute::Table(route.table));
        attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
        if route.metric != 0 {
            attributes.push(RouteAttribute::Priority(route.metric));
        }
        if let RouteTarget::Via { gateway, .. } = &route.target {
            attributes.push(via(destination, *gateway)?);
        }
        if let RouteTarget::Device(device) | RouteTarget::Via { device: Some(device), .. } = &route.target {
            attributes.push(RouteAttribute::Oif(self.index(operation, device)?));
        }
        Ok(message)
    }
}

fn via(destination: IpNet, gateway: IpAddr) -> Result<RouteAttribute> {
    match (destination, gateway) {
        (IpNet::V4(_), IpAddr::V6(gateway)) => Ok(RouteAttribute::Via(RouteVia::Inet6(gateway))),
        (IpNet::V6(_), IpAddr::V4(_)) => {
            Err(Error::invalid("route", destination, "IPv6 cannot go by way of an IPv4 gateway"))
        }
        _ => Ok(RouteAttribute::Gateway(gateway.into())),
    }
}

fn metric(route: &Route) -> u32 {
    if route.metric == 0 && route.destination.addr().is_ipv6() { DEFAULT_METRIC_V6 } else { route.metric }
}

/// What at most one route may stand at.
fn place(route: &Route) -> (IpNet, u32, u32) {
    (route.destination, route.table, metric(route))
}

/// Whether two routes at the same place are the same to the kernel.
fn same(one: &Route, other: &Route) -> bool {
    same_way(&one.target, &other.target) && one.source == other.source
}

/// Whether two targets are the same to the kernel, which does not tell the device that it was left to find.
fn same_way(one: &RouteTarget, other: &RouteTarget) -> bool {
    match (one, other) {
        (RouteTarget::Via { gateway: one, device: None, .. }, RouteTarget::Via { gateway: other, .. })
        | (RouteTarget::Via { gateway: one, .. }, RouteTarget::Via { gateway: other, device: None, .. }) => {
            one == other
        }
        (
            RouteTarget::Via { gateway: one, device: Some(one_device), .. },
            RouteTarget::Via { gateway: other, device: Some(other_device), .. },
        ) => one == other && one_device == other_device,
        _ => one == other,
    }
}

fn kind(target: &RouteTarget) -> RouteType {
    match target {
        RouteTarget::Device(_) | RouteTarget::Via { .. } => RouteType::Unicast,
        RouteTarget::Blackhole => RouteType::BlackHole,
        RouteTarget::Unreachable => RouteType::Unreachable,
    }
}

fn flags(target: &RouteTarget) -> RouteFlags {
    match target {
        RouteTarget::Via { onlink: true, .. } => RouteFlags::Onlink,
        _ => RouteFlags::empty(),
    }
}

fn scope(route: &Route) -> RouteScope {
    match (&route.target, route.destination) {
        (RouteTarget::Device(_), IpNet::V4(_)) => RouteScope::Link,
        _ => RouteScope::Universe,
    }
}

fn parse(payload: &[u8], names: &HashMap<u32, String>) -> Option<Route> {
    let (family, prefix, kind) = (*payload.first()?, *payload.get(1)?, *payload.get(7)?);
    let flags = read_u32(payload.get(8..)?)?;
    let is_v4 = i32::from(family) == libc::AF_INET;
    let (mut table, mut metric, mut source, mut device, mut gateway) =
        (u32::from(*payload.get(4)?), 0, None, None, None);
    let mut destination: IpAddr =
        if is_v4 { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    for (attribute, value) in attributes_of(payload.get(HEADER_SIZE_BYTES..)?) {
        match attribute {
            libc::RTA_DST => destination = parse_address(&value)?,
            libc::RTA_TABLE => table = read_u32(&value)?,
            libc::RTA_PRIORITY => metric = read_u32(&value)?,
            libc::RTA_PREFSRC => source = parse_address(&value),
            libc::RTA_OIF => device = names.get(&read_u32(&value)?).cloned(),
            libc::RTA_GATEWAY => gateway = parse_address(&value),
            // Two bytes of family, then the address.
            libc::RTA_VIA => gateway = parse_address(value.get(2..)?),
            _ => {}
        }
    }
    let target = match (kind, gateway) {
        (libc::RTN_BLACKHOLE, _) => RouteTarget::Blackhole,
        (libc::RTN_UNREACHABLE, _) => RouteTarget::Unreachable,
        (libc::RTN_UNICAST, Some(gateway)) => {
            RouteTarget::Via { gateway, device, onlink: flags & RouteFlags::Onlink.bits() != 0 }
        }
        (libc::RTN_UNICAST, None) => RouteTarget::Device(device?),
        _ => return None,
    };
    Some(Route { destination: IpNet::new(destination, prefix).ok()?, target, table, metric, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_read_like_the_ip_command_writes_them() {
        let route = |target| Route::new("10.1.2.3/24".parse().expect("a prefix"), target);
        assert_eq!(route(RouteTarget::Device("eth0".into())).to_string(), "10.1.2.0/24 dev eth0");
        let via = RouteTarget::Via {
            gateway: "fe80::1".parse().expect("an address"),
            device: Some("up0".into()),
            onlink: true,
        };
        let route = Route { table: 77, metric: 5, ..route(via) };
        assert_eq!(route.to_string(), "10.1.2.0/24 via fe80::1 dev up0 onlink table 77 metric 5");
    }
}
