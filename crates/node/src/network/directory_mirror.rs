//! What the services of a network tell guests, read from the mirror at the moment of the question.

use super::{
    directory::{Directory, Zone},
    gather::Gather,
};
use crate::instance::guest::guest_data;
use model::{
    dataplane::service::{PortFacts, port_facts},
    id::{InstanceId, NetworkId, PortId, ProjectId},
    instance::Instance,
    metadata::Document,
    name::dns_label,
    port::Port,
};
use rand::seq::SliceRandom;
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

/// Most instances that one answer tells of: with an address of either family an answer fits into the 512 bytes of
/// clients without EDNS.
const NAMESAKES_MAX: usize = 12;
/// Digits of an id that docker shows.
const SHORT_ID_DIGITS: usize = 12;

impl MirrorDirectory {
    /// Addresses behind a name in one network: of the port that spreads what comes under it, else of the ports that have it
    /// as an alias there and the instance whose own name it is, in turn, those left out whose probes say that they are not
    /// ready; where there is no such alias, of an instance near the network.
    /// With `project`, none of others are asked: in a shared network nobody takes a name of the outside for others.
    fn named(&self, network: NetworkId, name: &str, project: Option<ProjectId>) -> Option<Vec<IpAddr>> {
        if let Some(addresses) = self.gather.spreading(network, name, project) {
            return Some(addresses);
        }
        let is_own = |instance: &Instance| project.is_none_or(|project| instance.meta.project == project);
        let mut namesakes = self.gather.aliased(network, name);
        namesakes.retain(|(instance, _)| is_own(instance));
        if namesakes.is_empty() {
            // Most names that are asked for are outside's, and few instances are worth gathering for them.
            if !self.store.list::<Instance>().iter().any(|stored| goes_by(&stored.record, name)) {
                return None;
            }
            let found = self.gather.neighbours(network);
            let meant = |i: &Instance| goes_by(i, name) && is_own(i);
            return found.into_iter().find(|(i, _)| meant(i)).map(|(_, addresses)| addresses);
        }
        let known = |id| namesakes.iter().any(|(i, _): &(Instance, _)| i.meta.id == id);
        let by_own_name = self.gather.members(network).into_iter();
        let by_own_name: Vec<_> =
            by_own_name.filter(|(i, _)| goes_by(i, name) && is_own(i) && !known(i.meta.id)).collect();
        namesakes.extend(by_own_name);
        // Addresses are kept by what does not run, and are of use to nobody while another copy does.
        if namesakes.iter().any(|(i, _)| self.gather.runs(i)) {
            namesakes.retain(|(i, _)| self.gather.runs(i));
        }
        namesakes.retain(|(instance, _)| self.gather.is_ready(instance));
        namesakes.shuffle(&mut rand::rng());
        namesakes.truncate(NAMESAKES_MAX);
        Some(namesakes.into_iter().flat_map(|(_, addresses)| addresses).collect())
    }
}

/// Whether an instance is found by this name: the label made of its own name, that name as it is where it can be asked
/// for, or the beginning of its id by which docker's programs know their containers.
fn goes_by(instance: &Instance, name: &str) -> bool {
    instance.meta.name.as_str().eq_ignore_ascii_case(name)
        || !name.contains('.') && hostname(instance) == name
        || name.len() == SHORT_ID_DIGITS && instance.meta.id.hex().starts_with(name)
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

    fn addresses_of(&self, network: NetworkId, asker: IpAddr, name: &str) -> Option<Vec<IpAddr>> {
        // Who has a place in several networks asks the server of one of them, and means any.
        let own = |id: InstanceId| self.gather.instance(id);
        let project = match name.contains('.') {
            true => Some(self.gather.port_at(network, asker)?.meta.project),
            false => None,
        };
        let others = || {
            let asking = self.gather.port_at(network, asker)?.instance().and_then(own)?;
            let ports = self.gather.ports(&asking.ports);
            ports
                .iter()
                .filter(|port| port.network != network)
                .find_map(|port| self.named(port.network, name, project))
        };
        self.named(network, name, project).or_else(others)
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
