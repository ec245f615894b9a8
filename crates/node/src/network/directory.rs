//! What the services of a network may look up, as one trait, so that they know neither the store nor its mirror.
//!
//! A lookup is always scoped by the network whose namespace the question came out of: no answer can cross into
//! another network, even where address ranges are the same.

use ipnet::IpNet;
use model::{
    dataplane::service::PortFacts,
    id::{NetworkId, PortId},
    metadata::Document,
};
use std::net::IpAddr;

/// The source of all that services tell guests. Lookups are answered from memory and never wait.
pub trait Directory: Send + Sync + 'static {
    /// The port whose device in the network's namespace has this name.
    fn port_of_device(&self, network: NetworkId, device: &str) -> Option<PortFacts>;

    /// The port that has this address.
    fn port_of_address(&self, network: NetworkId, address: IpAddr) -> Option<PortFacts>;

    /// The part of the name space that the network's DNS server answers for; `None` once the network is gone.
    fn zone(&self, network: NetworkId) -> Option<Zone>;

    /// Addresses behind a name relative to the zone's domain (lower case, no dot at the end), of instances that
    /// `asker`, an address in the network, may see; `None` when there is no such name. An alias may have dots.
    fn addresses_of(&self, network: NetworkId, asker: IpAddr, name: &str) -> Option<Vec<IpAddr>>;

    /// The name (relative to the zone's domain) of the instance that has this address.
    fn name_of(&self, network: NetworkId, address: IpAddr) -> Option<String>;

    /// A document of the metadata service for the instance behind `port`, by the path of the request.
    fn document(&self, port: PortId, path: &str) -> Option<Document>;
}

/// The part of the name space that a network's DNS server answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Domain of the instances, lower case, no dots at the ends.
    pub domain: String,
    /// Ranges whose reverse names are answered here and never asked outside.
    pub ranges: Vec<IpNet>,
    /// Whether other names are asked for outside. False for a network without a way out: DNS is one too.
    pub forward: bool,
}
