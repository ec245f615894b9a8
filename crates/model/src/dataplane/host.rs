//! The plan of what holm needs of the host's own namespace: links to external and host-only networks, the routes of
//! the pools, masquerade or proxy ARP and ND, and one table of our own.
//!
//! The host belongs to its owner. Everything here bears the prefix of this holm, nothing else is touched, and the
//! settings that must change are listed so that they can be put back.

use crate::{
    dataplane::{
        external,
        namespace::{NamespacePlan, Place, Uplink, single},
        network,
        nft::{Set, Table},
        view::{ExternalView, NetworkView},
    },
    id::NetworkId,
};
use ipnet::IpNet;
use std::net::IpAddr;

const SNAT: &str = "type nat hook postrouting priority srcnat; policy accept;";
const FORWARD: &str = "type filter hook forward priority filter; policy accept;";

/// Longest prefix, so that names of devices stay within the kernel's 15 characters.
pub const PREFIX_BYTES_MAX: usize = 5;

/// What the host is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSettings {
    /// Prefix of our devices and name of our table: `holm`, and another for a second holm on the same host.
    pub prefix: String,
    /// Interfaces to the world. Packets are never forwarded from one of these to another: turning forwarding on for
    /// instances must not make the host a router between its owner's networks. Empty when the owner had it on.
    pub guarded_interfaces: Vec<String>,
    /// Interfaces that take addresses from router advertisements: the kernel would stop that with forwarding on.
    pub advertised_interfaces: Vec<String>,
}

impl Default for HostSettings {
    fn default() -> Self {
        Self { prefix: "holm".into(), guarded_interfaces: Vec::new(), advertised_interfaces: Vec::new() }
    }
}

impl HostSettings {
    /// Name of the host's link to an external network.
    pub fn external_device(&self, network: NetworkId) -> String {
        format!("{}-x{}", self.prefix, network.short())
    }

    /// Name of the host's link to a host-only network.
    pub fn host_only_device(&self, network: NetworkId) -> String {
        format!("{}-h{}", self.prefix, network.short())
    }

    /// Whether a device is one of ours.
    pub fn is_ours(&self, device: &str) -> bool {
        device.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with("-x") || rest.starts_with("-h"))
    }
}

/// Compiles the host's part of all external and host-only networks.
pub fn compile(
    settings: &HostSettings,
    externals: &[ExternalView],
    host_only: &[NetworkView],
) -> NamespacePlan {
    let mut plan = NamespacePlan::empty(Place::Host, Vec::new(), Table::new(settings.prefix.clone()));
    let needs_forwarding = !externals.is_empty();
    if needs_forwarding {
        put_forwarding(settings, externals, &mut plan);
    }
    let mut pools = [Set::ranges("ipv4_addr"), Set::ranges("ipv6_addr")];
    for view in externals {
        put_external(settings, view, &mut plan);
        if view.network.external().is_some_and(|external| external.masquerade) {
            for subnet in &view.subnets {
                pools[usize::from(subnet.cidr.addr().is_ipv6())].insert(subnet.cidr.to_string());
            }
        }
    }
    for view in host_only {
        put_host_only(settings, view, &mut plan);
    }
    put_firewall(settings, pools, &mut plan);
    plan
}

fn put_forwarding(settings: &HostSettings, externals: &[ExternalView], plan: &mut NamespacePlan) {
    for interface in &settings.advertised_interfaces {
        plan.sysctls.push((format!("net/ipv6/conf/{interface}/accept_ra"), "2".into()));
    }
    plan.sysctls.push(("net/ipv4/ip_forward".into(), "1".into()));
    plan.sysctls.push(("net/ipv6/conf/all/forwarding".into(), "1".into()));
    for interface in externals.iter().filter_map(|view| view.network.external()?.interface.clone()) {
        plan.sysctls.push((format!("net/ipv6/conf/{interface}/proxy_ndp"), "1".into()));
        plan.sysctls.push((format!("net/ipv4/neigh/{interface}/proxy_delay"), "0".into()));
        plan.sysctls.push((format!("net/ipv6/neigh/{interface}/proxy_delay"), "0".into()));
    }
}

/// Settings of one of our own devices: the defaults of the host may be anything.
fn device_sysctls(device: &str) -> Vec<(String, String)> {
    [
        ("net/ipv4/conf", "rp_filter", "0"),
        ("net/ipv4/conf", "send_redirects", "0"),
        ("net/ipv6/conf", "accept_ra", "0"),
    ]
    .map(|(table, key, value)| (format!("{table}/{device}/{key}"), value.to_string()))
    .to_vec()
}

fn put_external(settings: &HostSettings, view: &ExternalView, plan: &mut NamespacePlan) {
    let id = view.network.meta.id;
    let device = settings.external_device(id);
    let interface = view.network.external().and_then(|external| external.interface.clone());
    let outside = external::addresses(view);
    let ranges: Vec<IpNet> = match interface {
        // Of a LAN only the addresses in use are ours.
        Some(_) => outside.iter().copied().map(single).collect(),
        None => view.subnets.iter().map(|subnet| subnet.cidr).collect(),
    };
    plan.downlink(Uplink {
        device: device.clone(),
        peer: external::HOST_DEVICE.to_string(),
        peer_place: Place::External(id),
        mtu: view.network.mtu,
        ranges: &ranges,
    });
    if let Some(planned) = plan.devices.get_mut(&device) {
        planned.sysctls = device_sysctls(&device);
    }
    match interface {
        Some(interface) => {
            plan.proxy_ranges.extend(view.subnets.iter().map(|subnet| (interface.clone(), subnet.cidr)));
            plan.proxies.extend(outside.into_iter().map(|address| (interface.clone(), address)));
        }
        None => {
            for gateway in view.subnets.iter().filter_map(|subnet| subnet.gateway) {
                plan.address(&device, single(gateway));
            }
        }
    }
}

fn put_host_only(settings: &HostSettings, view: &NetworkView, plan: &mut NamespacePlan) {
    let id = view.network.meta.id;
    let device = settings.host_only_device(id);
    let ranges: Vec<IpNet> = view.subnets.iter().map(|subnet| subnet.cidr).collect();
    plan.downlink(Uplink {
        device: device.clone(),
        peer: network::HOST_DEVICE.to_string(),
        peer_place: Place::Network(id),
        mtu: view.network.mtu,
        ranges: &ranges,
    });
    if let Some(planned) = plan.devices.get_mut(&device) {
        planned.sysctls = device_sysctls(&device);
    }
    for gateway in view.subnets.iter().filter_map(|subnet| subnet.gateway) {
        plan.address(&device, single(gateway));
    }
}

fn put_firewall(settings: &HostSettings, pools: [Set; 2], plan: &mut NamespacePlan) {
    let table = &mut plan.table;
    let [pool_v4, pool_v6] = pools;
    table.sets.insert("pool4".into(), pool_v4);
    table.sets.insert("pool6".into(), pool_v6);
    let outwards = format!("oifname != \"{}-*\"", settings.prefix);
    table.base(
        "to_outside",
        SNAT,
        vec![
            format!("{outwards} ip saddr @pool4 ip daddr != @pool4 masquerade"),
            format!("{outwards} ip6 saddr @pool6 ip6 daddr != @pool6 masquerade"),
        ],
    );
    let mut guarded = Set::new("ifname");
    for interface in &settings.guarded_interfaces {
        guarded.insert(network::quoted(interface));
    }
    table.sets.insert("guarded".into(), guarded);
    // The host never passes packets on for a host-only network, whatever its owner routes.
    let host_only = network::quoted(&format!("{}-h*", settings.prefix));
    table.base(
        "forward",
        FORWARD,
        vec![
            "iifname @guarded oifname @guarded drop".to_string(),
            format!("iifname {host_only} drop"),
            format!("oifname {host_only} drop"),
        ],
    );
}

/// Addresses that must be announced on a LAN (by gratuitous ARP or unsolicited neighbour advertisement) since `old`
/// did not answer for them or another namespace of ours did: by interface.
pub fn announcements(old: Option<&NamespacePlan>, new: &NamespacePlan) -> Vec<(String, IpAddr)> {
    let is_known = |proxy: &&(String, IpAddr)| !old.is_some_and(|old| old.proxies.contains(*proxy));
    new.proxies.iter().filter(is_known).cloned().collect()
}
