//! Addresses whose traffic is spread over several ports, compiled into a network's namespace.
//!
//! ```text
//!   guest ──► 10.0.0.9:80 ──DNAT, in turn──► 10.0.0.3:8080 ──► the receiver's groups see the guest's own address
//! ```
//! The namespace itself has the address, so that it answers for it on every link; what is not led on is refused there. A
//! guest that is led to itself is seen as the address, since nobody answers a stranger who bears his own name.

use crate::{
    dataplane::{
        namespace::{NamespacePlan, single},
        nft::Set,
        view::{NetworkView, SpreadView},
    },
    security_group::Protocol,
};
use std::net::IpAddr;

const DNAT: &str = "type nat hook prerouting priority dstnat; policy accept;";
const SNAT: &str = "type nat hook postrouting priority srcnat; policy accept;";

/// Adds the addresses, and what leads on from them.
pub(super) fn put_spreads(view: &NetworkView, plan: &mut NamespacePlan) {
    let addresses = || view.spreads.iter().flat_map(|spread| spread.addresses.iter().copied());
    if !view.network.admin_up || addresses().next().is_none() {
        return;
    }
    for address in addresses() {
        plan.address("lo", single(address));
        if address.is_ipv6() {
            for (port, _) in view.attached() {
                plan.proxies.insert((port.device_name(), address));
            }
        }
    }
    let (mut there, mut back) = (vec![], vec![]);
    for spread in &view.spreads {
        for address in &spread.addresses {
            put_address(spread, *address, &mut there, &mut back);
        }
    }
    let table = &mut plan.table;
    for (v4, kind) in [(true, "ipv4_addr"), (false, "ipv6_addr")] {
        let digit = if v4 { 4 } else { 6 };
        let (mut own, mut themselves) = (Set::new(kind), Set::new(&format!("{kind} . {kind}")));
        addresses()
            .filter(|address| address.is_ipv4() == v4)
            .for_each(|address| own.insert(address.to_string()));
        for target in view.spreads.iter().flat_map(|spread| &spread.targets).filter(|it| it.is_ipv4() == v4) {
            themselves.insert(format!("{target} . {target}"));
        }
        table.sets.insert(format!("spread{digit}"), own);
        table.sets.insert(format!("themselves{digit}"), themselves);
    }
    table.base("spread", DNAT, there);
    table.base("spread_back", SNAT, back);
}

/// The rules of one address, towards those behind it and for those among them who ask it themselves.
fn put_address(spread: &SpreadView, address: IpAddr, there: &mut Vec<String>, back: &mut Vec<String>) {
    let (word, digit) = if address.is_ipv4() { ("ip", 4) } else { ("ip6", 6) };
    let targets: Vec<&IpAddr> =
        spread.targets.iter().filter(|target| target.is_ipv4() == address.is_ipv4()).collect();
    if targets.is_empty() {
        return;
    }
    for port in &spread.ports {
        let protocol = match port.protocol {
            Protocol::UDP => "udp",
            Protocol::SCTP => "sctp",
            _ => "tcp",
        };
        let each = targets.iter().enumerate().map(|(n, target)| format!("{n} : {target} . {}", port.to));
        there.push(format!(
            "{word} daddr {address} {protocol} dport {} dnat {word} to numgen inc mod {} map {{ {} }}",
            port.port,
            targets.len(),
            each.collect::<Vec<_>>().join(", ")
        ));
    }
    back.push(format!(
        "ct original {word} daddr {address} {word} saddr . {word} daddr @themselves{digit} snat {word} to {address}"
    ));
}

/// What the namespace says to what was not led on: that nobody is there.
pub(super) fn refusals(view: &NetworkView) -> Vec<String> {
    let has = |v4: bool| {
        let mut all = view.spreads.iter().flat_map(|spread| &spread.addresses);
        view.network.admin_up && all.any(|address| address.is_ipv4() == v4)
    };
    let mut rules = vec![];
    for (word, digit) in
        [(true, "ip", 4), (false, "ip6", 6)].into_iter().filter(|(v4, ..)| has(*v4)).map(|it| (it.1, it.2))
    {
        rules.push(format!("{word} daddr @spread{digit} meta l4proto tcp reject with tcp reset"));
        rules.push(format!("{word} daddr @spread{digit} reject"));
    }
    rules
}
