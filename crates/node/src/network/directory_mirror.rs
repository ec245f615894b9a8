//! What the services of a network tell guests, read from the mirror at the moment of the question.

use super::{
    directory::{Directory, Zone},
    gather::Gather,
};
use crate::instance::guest::guest_data;
use model::{
    dataplane::service::{PortFacts, port_facts},
    id::{NetworkId, PortId},
    instance::Instance,
    metadata::Document,
    name::dns_label,
    port::Port,
};
use std::net::IpAddr;
use store::Store;

/// The directory of one node.
pub struct MirrorDirectory {
    gather: Gather,
    store: Store,
}

impl MirrorDirectory {
    /// A directory over the mirror.
    pub fn new(store: Store, gather: Gather) -> Self {
        Self { gather, store }
    }

    fn facts(&self, port: &Port) -> Option<PortFacts> {
        let view = self.gather.network(port.network)?;
        let instance = port.instance().and_then(|id| self.gather.instance(id));
        Some(port_facts(&view, port, instance.as_ref().map(hostname).as_deref()))
    }
}

/// The first label of an instance's name.
pub fn hostname(instance: &Instance) -> String {
    dns_label(instance.meta.name.as_str(), &format!("i-{}", instance.meta.id.short()))
}

impl Directory for MirrorDirectory {
    fn port_of_device(&self, network: NetworkId, device: &str) -> Option<PortFacts> {
        let ports = self.store.list::<Port>();
        let port = ports.iter().find(|p| p.record.network == network && p.record.device_name() == device)?;
        self.facts(&port.record)
    }

    fn port_of_address(&self, network: NetworkId, address: IpAddr) -> Option<PortFacts> {
        self.facts(&self.gather.port_at(network, address)?)
    }

    fn zone(&self, network: NetworkId) -> Option<Zone> {
        let view = self.gather.network(network)?;
        let far = view.routers.iter().flat_map(|r| r.far_ranges.iter().copied());
        Some(Zone {
            domain: view.domain().to_ascii_lowercase(),
            ranges: view.subnets.iter().map(|s| s.cidr).chain(far).collect(),
            forward: view.has_way_out(),
        })
    }

    fn addresses_of(&self, network: NetworkId, name: &str) -> Option<Vec<IpAddr>> {
        let found = self.gather.neighbours(network);
        found.into_iter().find(|(i, _)| hostname(i) == name).map(|(_, addresses)| addresses)
    }

    fn name_of(&self, network: NetworkId, address: IpAddr) -> Option<String> {
        let found = self.gather.neighbours(network);
        found.iter().find(|(_, addresses)| addresses.contains(&address)).map(|(i, _)| hostname(i))
    }

    fn document(&self, port: PortId, path: &str) -> Option<Document> {
        let port = self.store.get::<Port>(&port.to_string())?;
        let instance = self.gather.instance(port.record.instance()?)?;
        let guest = guest_data(&self.gather, &instance);
        let seed: [u8; 32] = rand::random();
        let found = guest.get(path, &seed)?;
        Some(found)
    }
}
