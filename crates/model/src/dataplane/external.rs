//! The plan of an external network's namespace: where routers and the host meet.
//!
//! It holds one route per outside address, to the router that has it now, so moving a floating IP is one route here
//! and one map entry in a router. A router may send only under addresses that lead back to it.

use crate::{
    dataplane::{
        namespace::{NamespacePlan, Place, RouteAction, Uplink, everything, single},
        network::{TABLE, router_device},
        nft::Table,
        router::outside_device,
        view::ExternalView,
    },
    id::RouterId,
};
use ipnet::IpNet;
use std::net::IpAddr;

/// Link to the host.
pub(super) const HOST_DEVICE: &str = "host";

const RAW: &str = "type filter hook prerouting priority raw; policy accept;";
const FORWARD: &str = "type filter hook forward priority filter; policy accept;";
const INPUT: &str = "type filter hook input priority filter; policy drop;";

/// Compiles the namespace of an external network. `host_device` names the host's end of its link.
pub fn compile(view: &ExternalView, host_device: &str) -> NamespacePlan {
    let id = view.network.meta.id;
    let mut plan = NamespacePlan::new(Place::External(id), Table::new(TABLE));
    plan.uplink(Uplink {
        device: HOST_DEVICE.to_string(),
        peer: host_device.to_string(),
        peer_place: Place::Host,
        mtu: view.network.mtu,
        ranges: &[everything(true), everything(false)],
    });
    for (router, _) in &view.routers {
        let ranges: Vec<IpNet> = addresses_of(view, router.meta.id).map(single).collect();
        plan.downlink(Uplink {
            device: router_device(router.meta.id),
            peer: outside_device(id),
            peer_place: Place::Router(router.meta.id),
            mtu: view.network.mtu,
            ranges: &ranges,
        });
    }
    let is_pool = view.network.external().is_some_and(|external| external.interface.is_none());
    for subnet in view.subnets.iter().filter(|_| is_pool) {
        // An address of the pool that nobody has must not go back to the host it came from. Of a LAN others have
        // the rest, and the host leads to them.
        plan.route(subnet.cidr, RouteAction::Unreachable);
        if let Some(gateway) = subnet.gateway {
            plan.route(single(gateway), towards_host(gateway));
        }
    }
    let table = &mut plan.table;
    let spoof = ["ip6 saddr fe80::/10 accept", "fib saddr . iif oif missing drop"];
    table.base("spoof", RAW, spoof.map(str::to_string).to_vec());
    table.base("forward", FORWARD, if view.network.admin_up { vec![] } else { vec!["drop".into()] });
    table.base("input", INPUT, vec!["ct state established,related accept".into()]);
    plan
}

fn towards_host(address: IpAddr) -> RouteAction {
    let gateway =
        if address.is_ipv4() { super::namespace::UPSTREAM_V4 } else { super::namespace::UPSTREAM_V6 };
    RouteAction::Via { device: HOST_DEVICE.to_string(), gateway }
}

/// Outside addresses that lead to a router: its own and those of its floating IPs.
fn addresses_of(view: &ExternalView, router: RouterId) -> impl Iterator<Item = IpAddr> {
    let own =
        view.routers.iter().filter(move |(r, _)| r.meta.id == router).flat_map(|(_, a)| a.iter().copied());
    let leads_here = move |f: &&crate::floating_ip::FloatingIp| f.target.is_some_and(|t| t.router == router);
    own.chain(view.floating_ips.iter().filter(leads_here).map(|f| f.address))
}

/// All outside addresses in use: those that a LAN must be answered for.
pub fn addresses(view: &ExternalView) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = view.routers.iter().flat_map(|(r, _)| addresses_of(view, r.meta.id)).collect();
    all.sort();
    all.dedup();
    all
}
