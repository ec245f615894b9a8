//! Ranges of networks that the host routes for somebody else already: left as they are, and told of.
//!
//! A route to the same range in the place of the owner's would take the owner's network away, and the gateway's address
//! on the host would take a neighbour's.

use ipnet::IpNet;
use jiff::Timestamp;
use model::{
    dataplane::namespace::{NamespacePlan, RouteAction},
    id::EventId,
    network::Network,
    operation::{Event, Subject},
    subnet::Subnet,
};
use std::collections::BTreeSet;
use store::{Store, Tx};
use sys::netlink::{Route, RouteTarget};

/// Takes out of the host's plan what the host's owner has a route to, with the addresses in it. Gives those ranges.
/// `present` are the routes of the host, `is_ours` says which devices are.
pub(super) fn leave_out(
    plan: &mut NamespacePlan,
    present: &[Route],
    is_ours: impl Fn(&str) -> bool,
) -> BTreeSet<IpNet> {
    let over_ours = |route: &&Route| match &route.target {
        RouteTarget::Device(device) | RouteTarget::Via { device: Some(device), .. } => is_ours(device),
        RouteTarget::Via { device: None, .. } | RouteTarget::Blackhole | RouteTarget::Unreachable => false,
    };
    let owners: BTreeSet<IpNet> = present.iter().filter(|r| !over_ours(r)).map(|r| r.destination).collect();
    let planned = plan.routes.iter().filter(|r| !matches!(r.action, RouteAction::Unreachable));
    let taken: BTreeSet<IpNet> = planned.map(|r| r.destination).filter(|r| owners.contains(r)).collect();
    plan.routes.retain(|route| !taken.contains(&route.destination));
    plan.addresses.retain(|(_, address)| !taken.iter().any(|range| range.contains(&address.addr())));
    taken
}

/// Tells of each range once that was left out; `told` are those that were told of.
pub(super) async fn tell(store: &Store, told: &mut BTreeSet<IpNet>, taken: BTreeSet<IpNet>) {
    let news: Vec<IpNet> = taken.difference(told).copied().collect();
    *told = taken;
    for range in news {
        let subnets = store.list::<Subnet>();
        let networks = subnets.iter().filter(|s| s.record.cidr.contains(&range));
        let mut networks = networks.filter_map(|s| store.get::<Network>(&s.record.network.to_string()));
        let Some(network) = networks.find(|n| n.record.kind != model::network::NetworkKind::Private) else {
            continue;
        };
        let meta = &network.record.meta;
        let message = format!(
            "{range} of network {} is not reached: this host has a route to it that is not holm's. Choose another range, or \
             take that route away; holm looks again within ten minutes",
            meta.name
        );
        tracing::warn!(network = %meta.id, "{message}");
        let mut tx = Tx::new();
        tx.put(&Event {
            id: EventId::from_random(rand::random()),
            at: Timestamp::now(),
            project: Some(meta.project),
            subject: Subject { noun: "network".into(), id: meta.id.to_string() },
            reason: "range_in_use".into(),
            message,
            warning: true,
        });
        if let Err(error) = store.commit(tx).await {
            tracing::warn!(%error, "the event could not be noted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::dataplane::{host, namespace::RoutePlan};

    #[test]
    fn what_the_owner_routes_is_left_out_with_its_addresses() {
        let net = |text: &str| text.parse::<IpNet>().expect(text);
        let mut plan = host::compile(&host::HostSettings::default(), &[], &[]);
        for (device, range, gateway) in [
            ("holm-h1", "10.9.0.0/24", "10.9.0.1/32"),
            ("holm-h2", "192.168.1.0/24", "192.168.1.1/32"),
            ("holm-x3", "172.31.240.0/22", "172.31.240.1/32"),
            ("holm-h4", "10.1.2.0/24", "10.1.2.1/32"),
        ] {
            let action = RouteAction::Device(device.to_string());
            plan.routes.insert(RoutePlan { destination: net(range), action });
            plan.addresses.insert((device.to_string(), net(gateway)));
        }
        let by = |to: &str, target| Route { metric: 100, ..Route::new(net(to), target) };
        let device = |name: &str| RouteTarget::Device(name.to_string());
        let present = [
            by("192.168.1.0/24", device("eth0")),
            by("10.9.0.0/24", RouteTarget::Blackhole),
            // Our own from before, and one that ours is a part of.
            by("172.31.240.0/22", device("holm-x3")),
            by("10.0.0.0/8", device("eth0")),
        ];
        let taken = leave_out(&mut plan, &present, |name| name.starts_with("holm-"));
        assert_eq!(taken, BTreeSet::from([net("10.9.0.0/24"), net("192.168.1.0/24")]));
        let left: Vec<String> = plan.routes.iter().map(|r| r.destination.to_string()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left.contains(&"172.31.240.0/22".to_string()) && left.contains(&"10.1.2.0/24".to_string()));
        assert_eq!(plan.addresses.len(), 2);
    }
}
