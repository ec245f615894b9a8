//! Flows that may not go on: those of a floating IP that moved, and those that no rule allows any more.
//!
//! The kernel asks the firewall about the first packet of a flow and remembers it; so a rule that is taken away and
//! a translation that changes must be followed by forgetting exactly the flows that lived by them. A forgotten TCP
//! flow cannot come back from its middle (`nf_conntrack_tcp_loose` is off in our namespaces).

use ipnet::IpNet;
use model::{
    dataplane::{
        allow::{self, Transport, allows},
        publish::Publication,
        router,
        view::{ExternalView, NetworkView, RouterView},
    },
    security_group::Protocol,
};
use std::{collections::BTreeSet, net::IpAddr};
use sys::{
    conntrack::{Conntrack, Flow, Tuple},
    netns::NetNs,
};

/// Why flows could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// The kernel's table could not be read or changed.
    #[error("established flows could not be checked")]
    Kernel(#[from] sys::error::Error),
}

/// Ends the flows of a network that its view does not allow (any more). Gives how many.
///
/// Flows to and from the namespace itself are left alone: no group's rules stand in their way.
///
/// # Errors
/// The kernel's; running again goes on.
pub fn revoke(namespace: &NetNs, view: &NetworkView) -> Result<usize, FlowError> {
    let mut table = Conntrack::open(namespace)?;
    let is_revoked = |flow: &Flow| {
        let seen = led(flow);
        !is_service(view, seen.destination)
            && !is_gateway(view, seen.source)
            && !allows(view, &first_packet(&seen)).is_allowed()
    };
    Ok(table.delete_matching(is_revoked)?)
}

/// Ends all flows that one of these addresses has a part in, translated or not. Gives how many.
///
/// # Errors
/// The kernel's; running again goes on.
pub fn forget(namespace: &NetNs, addresses: &BTreeSet<IpAddr>) -> Result<usize, FlowError> {
    let mut table = Conntrack::open(namespace)?;
    let parts = |flow: &Flow| {
        [flow.original.source, flow.original.destination, flow.reply.source, flow.reply.destination]
    };
    Ok(table.delete_matching(|flow| parts(flow).iter().any(|part| addresses.contains(part)))?)
}

/// A flow as the groups saw its first packet: of one to an address that is spread they see where it was led to.
fn led(flow: &Flow) -> Tuple {
    match flow.has_destination_nat() {
        true => Tuple {
            destination: flow.reply.source,
            destination_port: flow.reply.source_port,
            ..flow.original
        },
        false => flow.original,
    }
}

/// Whether an address is one of the namespace's own, where only services answer.
fn is_service(view: &NetworkView, address: IpAddr) -> bool {
    is_gateway(view, address)
        || view.spreads.iter().any(|spread| spread.addresses.contains(&address))
        || match address {
            IpAddr::V4(a) => a.is_link_local() || a.is_broadcast() || a.is_multicast(),
            IpAddr::V6(a) => a.is_unicast_link_local() || a.is_multicast(),
        }
}

/// Whether an address is a gateway's, which only the namespace itself sends from.
fn is_gateway(view: &NetworkView, address: IpAddr) -> bool {
    let is_router = || view.routers.iter().any(|attached| attached.addresses.contains(&address));
    !view.is_host_only() && (view.subnets.iter().any(|subnet| subnet.gateway == Some(address)) || is_router())
}

/// The first packet of a flow, as the evaluator wants it.
fn first_packet(tuple: &Tuple) -> allow::Flow {
    let protocol = Protocol(tuple.protocol);
    let transport = match tuple.icmp {
        Some(icmp) => Transport::Icmp { kind: icmp.kind, code: icmp.code },
        None if protocol.has_ports() => {
            Transport::Ports { source: tuple.source_port, destination: tuple.destination_port }
        }
        None => Transport::Bare,
    };
    allow::Flow { source: tuple.source, destination: tuple.destination, protocol, transport }
}

/// Ends the flows of a router whose translation is not (any more) what its view says: of floating IPs that moved or
/// were released, of guests that got one, and of a router that changed its own address. Gives how many.
///
/// # Errors
/// The kernel's; running again goes on.
pub fn retranslate(namespace: &NetNs, view: &RouterView) -> Result<usize, FlowError> {
    let mut table = Conntrack::open(namespace)?;
    Ok(table.delete_matching(|flow| !is_as_planned(flow, view))?)
}

/// Ends the flows of the host that lead over a publication which is not in force any more. Gives how many. Flows that
/// others translate are left alone: only those to outside addresses of ours are looked at.
///
/// # Errors
/// The kernel's; running again goes on.
pub fn unpublish(
    host: &NetNs,
    externals: &[ExternalView],
    before: &BTreeSet<Publication>,
    now: &BTreeSet<Publication>,
) -> Result<usize, FlowError> {
    let pools: Vec<IpNet> = externals
        .iter()
        .filter(|e| e.network.external().is_some_and(|x| x.interface.is_none()))
        .flat_map(|e| e.subnets.iter().map(|s| s.cidr))
        .collect();
    let is_ours =
        |to: IpAddr| pools.iter().any(|pool| pool.contains(&to)) || before.iter().any(|p| p.to.ip() == to);
    let is_planned = |flow: &Flow| {
        now.iter().any(|p| {
            p.protocol.0 == flow.original.protocol
                && p.port == flow.original.destination_port
                && p.address.is_none_or(|a| a == flow.original.destination)
                && (p.to.ip(), p.to.port()) == (flow.reply.source, flow.reply.source_port)
        })
    };
    let mut table = Conntrack::open(host)?;
    let gone = |flow: &Flow| flow.has_destination_nat() && is_ours(flow.reply.source) && !is_planned(flow);
    Ok(table.delete_matching(gone)?)
}

/// Whether both translations of a flow are those that it would get if it started now.
fn is_as_planned(flow: &Flow, view: &RouterView) -> bool {
    // The answers' source is where packets really go, their destination as whom the sender is seen.
    let (receiver, seen) = (flow.reply.source, flow.reply.destination);
    let original = &flow.original;
    let protocol = Protocol(original.protocol);
    let destination = router::leads_to(view, original.destination, protocol, original.destination_port)
        .unwrap_or(original.destination);
    if receiver != destination {
        return false;
    }
    let is_inside = |address: IpAddr| view.subnets.iter().any(|(subnet, _)| subnet.cidr.contains(&address));
    let leaves = is_inside(flow.original.source) && (!is_inside(receiver) || flow.has_destination_nat());
    let planned = if leaves { router::seen_as(view, flow.original.source) } else { None };
    seen == planned.unwrap_or(flow.original.source)
}
