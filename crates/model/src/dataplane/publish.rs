//! Ports of the host that lead to instances.
//!
//! A published port is translated to an outside address of the instance (a floating IP), so the packet takes the way
//! of every packet from outside: the security group decides, on IPv4 and IPv6 alike, and the client's address is
//! kept. A change is an element of a map; the instance notices nothing.

use crate::{
    dataplane::{
        host::HostSettings,
        namespace::{DeviceKind, NamespacePlan},
        nft::Set,
    },
    security_group::Protocol,
};
use std::net::{IpAddr, SocketAddr};

const FROM_OUTSIDE: &str = "type nat hook prerouting priority dstnat; policy accept;";
const FROM_HOST: &str = "type nat hook output priority -100; policy accept;";
const SNAT: &str = "type nat hook postrouting priority srcnat; policy accept;";

const LOOPBACK_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

/// A port of the host that leads to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Publication {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The host's address; `None` is every address that the host has.
    pub address: Option<IpAddr>,
    /// The host's port.
    pub port: u16,
    /// The instance's outside address and its port.
    pub to: SocketAddr,
}

/// Adds published ports to the host's plan.
pub fn publish(settings: &HostSettings, publications: &[Publication], plan: &mut NamespacePlan) {
    if publications.is_empty() {
        return;
    }
    let mut rules = Vec::new();
    for (v4, word, kind) in [(true, "ip", "ipv4_addr"), (false, "ip6", "ipv6_addr")] {
        let digit = if v4 { 4 } else { 6 };
        let mut anywhere = Set::new(&format!("inet_proto . inet_service : {kind} . inet_service"));
        let mut at = Set::new(&format!("{kind} . inet_proto . inet_service : {kind} . inet_service"));
        for publication in publications.iter().filter(|p| p.to.is_ipv4() == v4) {
            let key = format!("{} . {}", publication.protocol.0, publication.port);
            let value = format!("{} . {}", publication.to.ip(), publication.to.port());
            match publication.address {
                None => anywhere.map(key, value),
                Some(address) if address.is_ipv4() == v4 && address != LOOPBACK_V6 => {
                    at.map(format!("{address} . {key}"), value)
                }
                Some(_) => {}
            }
        }
        table_sets(plan, digit, anywhere, at);
        // One address before all: who asks for one means that one.
        rules.push(format!(
            "fib daddr type local dnat {word} to {word} daddr . meta l4proto . th dport map @published_at{digit}"
        ));
        rules.push(format!(
            "meta nfproto ipv{digit} fib daddr type local dnat {word} to meta l4proto . th dport map @published{digit}"
        ));
    }
    plan.table.base("published", FROM_OUTSIDE, rules.clone());
    // The kernel lets nothing leave ::1, whatever it is translated to: a relay of the daemon answers there.
    rules.insert(0, "ip6 daddr ::1 return".to_string());
    plan.table.base("published_here", FROM_HOST, rules);
    let ours = format!("\"{}-x*\"", settings.prefix);
    plan.table.base(
        "published_back",
        SNAT,
        vec![
            // Loopback addresses mean another host on the other side. (There is no such way from ::1: the kernel
            // lets nothing with that address leave.)
            format!("oifname {ours} ip saddr 127.0.0.0/8 masquerade"),
            // An instance that uses a published port is answered over the host, as it asked.
            format!("iifname {ours} oifname {ours} ct status dnat masquerade"),
        ],
    );
    let answers_loopback = |device: &str| (format!("net/ipv4/conf/{device}/route_localnet"), "1".to_string());
    for (name, device) in &mut plan.devices {
        if matches!(device.kind, DeviceKind::Link { .. })
            && name.starts_with(&format!("{}-x", settings.prefix))
        {
            device.sysctls.push(answers_loopback(name));
        }
    }
}

fn table_sets(plan: &mut NamespacePlan, digit: u8, anywhere: Set, at: Set) {
    plan.table.sets.insert(format!("published{digit}"), anywhere);
    plan.table.sets.insert(format!("published_at{digit}"), at);
}
