//! From the mirror to views: the records of one network, router or external network, gathered for the compilers.
//!
//! Nothing is decided here. Whatever is missing (a record that goes at this moment) is left out, and the change that
//! removed it brings the next run.

use super::published::PublishedPort;
use model::{
    dataplane::view::{
        AttachedRouter, Attachment, ExternalView, NetworkView, Outside, RouterView, SpreadView,
    },
    floating_ip::FloatingIp,
    health::status::{ContainerHealth, is_ready},
    id::{InstanceId, NetworkId, NodeId, PortId, ProjectId, RouterId, SecurityGroupId, VolumeId},
    instance::{Instance, InstanceStatus, State},
    network::{Network, NetworkKind},
    port::{Device, Port},
    publish::{self, Passage},
    record::Record,
    router::Router,
    security_group::{Peer, SecurityGroup},
    subnet::Subnet,
    volume::Volume,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use store::Store;

/// Reads views for one node.
#[derive(Clone)]
pub struct Gather {
    store: Store,
    node: NodeId,
}

impl Gather {
    /// Views of what `node` holds.
    pub fn new(store: Store, node: NodeId) -> Self {
        Self { store, node }
    }

    fn one<R: Record>(&self, key: impl ToString) -> Option<R> {
        self.store.get::<R>(&key.to_string()).map(|s| s.record.clone())
    }

    fn all<R: Record>(&self, keep: impl Fn(&R) -> bool) -> Vec<R> {
        self.store.list::<R>().iter().filter(|s| keep(&s.record)).map(|s| s.record.clone()).collect()
    }

    /// The view of a private or host-only network; `None` once it is gone.
    pub fn network(&self, id: NetworkId) -> Option<NetworkView> {
        let network: Network = self.one(id)?;
        if network.external().is_some() {
            return None;
        }
        let ports = self.all::<Port>(|p| p.network == id);
        let subnets = self.all(|s: &Subnet| s.network == id);
        let of_ports = ports.iter().flat_map(|p| p.security_groups.iter());
        let of_subnets = subnets.iter().flat_map(|s| s.security_groups.iter());
        // The group that most ports have is there before the first of them: then each comes and goes as elements alone.
        let default = self.all::<SecurityGroup>(|g| g.is_default && g.meta.project == network.meta.project);
        let group_ids: BTreeSet<SecurityGroupId> =
            of_ports.chain(of_subnets).copied().chain(default.iter().map(|group| group.meta.id)).collect();
        let groups: Vec<SecurityGroup> = group_ids.iter().filter_map(|g| self.one(g)).collect();
        let routers = self.all::<Router>(|r| r.interfaces.iter().any(|i| i.network == id));
        Some(NetworkView {
            members: self.group_members(&groups),
            routers: routers.into_iter().map(|router| self.attached_router(router, id)).collect(),
            attachments: ports.iter().filter_map(|p| Some((p.meta.id, self.attachment(p)?))).collect(),
            spreads: ports.iter().filter_map(|port| self.spread(port, &ports)).collect(),
            subnets,
            network,
            ports,
            groups,
        })
    }

    /// Whom the addresses of a port lead to just now, of those of its own project.
    fn spread(&self, port: &Port, all: &[Port]) -> Option<SpreadView> {
        let spread = port.spread.as_ref().filter(|_| port.admin_up)?;
        let is_meant = |other: &&Port| {
            other.meta.project == port.meta.project
                && other.aliases.iter().any(|alias| alias.is_meant(spread.over.as_str()))
        };
        let can_answer = |other: &&Port| {
            let instance = other.instance().and_then(|id| self.instance(id));
            instance.is_some_and(|instance| self.runs(&instance) && self.is_ready(&instance))
        };
        let targets = all.iter().filter(is_meant).filter(can_answer);
        Some(SpreadView {
            addresses: port.addresses.iter().map(|fixed| fixed.address).collect(),
            ports: spread.ports.clone(),
            targets: targets.flat_map(|other| other.addresses.iter().map(|fixed| fixed.address)).collect(),
        })
    }

    /// Whether an instance's probes say that it can be given work; where nothing is asked, it can.
    pub fn is_ready(&self, instance: &Instance) -> bool {
        let status = self.store.get::<InstanceStatus>(&instance.meta.id.to_string());
        let record = |key: &str| Some(self.store.get::<ContainerHealth>(key)?.record.clone());
        is_ready(instance, status.as_deref().map(|status| &status.record), record)
    }

    /// Whether an instance is up, and is to stay so.
    pub fn runs(&self, instance: &Instance) -> bool {
        let status = self.store.get::<InstanceStatus>(&instance.meta.id.to_string());
        let is_up = |state: &State| matches!(state, State::Running { .. } | State::Paused { .. });
        !instance.meta.is_deleting() && status.is_some_and(|status| is_up(&status.record.state))
    }

    /// Addresses of the port that spreads what comes under this alias in a network.
    pub fn spreading(
        &self,
        network: NetworkId,
        name: &str,
        project: Option<ProjectId>,
    ) -> Option<Vec<IpAddr>> {
        let is_meant = |port: &Port| {
            port.network == network
                && port.spread.is_some()
                && project.is_none_or(|project| port.meta.project == project)
                && port.aliases.iter().any(|alias| alias.is_meant(name))
        };
        let all = self.store.list::<Port>();
        let found = all.iter().find(|stored| is_meant(&stored.record))?;
        Some(found.record.addresses.iter().map(|fixed| fixed.address).collect())
    }

    fn group_members(&self, groups: &[SecurityGroup]) -> BTreeMap<SecurityGroupId, BTreeSet<IpAddr>> {
        let named: BTreeSet<SecurityGroupId> = groups
            .iter()
            .flat_map(|g| g.rules.iter())
            .filter_map(|rule| match rule.peer {
                Peer::Group(id) => Some(id),
                _ => None,
            })
            .collect();
        let mut members: BTreeMap<_, BTreeSet<IpAddr>> =
            named.iter().map(|id| (*id, BTreeSet::new())).collect();
        if members.is_empty() {
            return members;
        }
        for port in self.store.list::<Port>() {
            for group in &port.record.security_groups {
                if let Some(set) = members.get_mut(group) {
                    set.extend(port.record.addresses.iter().map(|a| a.address));
                }
            }
        }
        members
    }

    fn attached_router(&self, router: Router, network: NetworkId) -> AttachedRouter {
        let mut addresses = vec![];
        let mut far_ranges = vec![];
        for interface in &router.interfaces {
            if interface.network == network {
                let port: Option<Port> = self.one(interface.port);
                addresses.extend(port.iter().flat_map(|p| p.addresses.iter().map(|a| a.address)));
            } else if let Some(subnet) = self.one::<Subnet>(interface.subnet) {
                far_ranges.push(subnet.cidr);
            }
        }
        AttachedRouter { router, addresses, far_ranges }
    }

    /// What device a port has on this node: one for each port of an instance placed here.
    fn attachment(&self, port: &Port) -> Option<Attachment> {
        let instance: Instance = self.one(port.instance()?)?;
        if instance.node != Some(self.node) {
            return None;
        }
        Some(match instance.has_own_kernel() {
            true => Attachment::Tap { owner_uid: crate::instance::id_range(&instance).base },
            false => Attachment::Veth,
        })
    }

    /// The view of a router; `None` once it is gone.
    pub fn router(&self, id: RouterId) -> Option<RouterView> {
        let router: Router = self.one(id)?;
        let subnets = router
            .interfaces
            .iter()
            .filter_map(|i| Some((self.one::<Subnet>(i.subnet)?, self.one::<Network>(i.network)?.mtu)))
            .collect();
        let outside = router.gateway.and_then(|gateway| {
            let port: Port = self.one(gateway.port)?;
            let network: Network = self.one(gateway.network)?;
            let addresses = port.addresses.iter().map(|a| a.address).collect();
            Some(Outside { network: gateway.network, addresses, mtu: network.mtu })
        });
        let floating_ips = self.all(|f: &FloatingIp| f.target.is_some_and(|t| t.router == id));
        Some(RouterView { passages: self.passages(&floating_ips), router, subnets, outside, floating_ips })
    }

    /// What outside addresses of the cloud's own let in.
    fn passages(&self, floating_ips: &[FloatingIp]) -> BTreeSet<Passage> {
        let internal = floating_ips.iter().filter(|f| f.internal);
        let instances: BTreeSet<InstanceId> =
            internal.filter_map(|f| self.one::<Port>(f.target?.port)?.instance()).collect();
        instances
            .into_iter()
            .filter_map(|id| self.instance(id))
            .flat_map(|instance| publish::passages(&instance, &self.floating_ips_of(&instance)))
            .filter(|passage| floating_ips.iter().any(|f| f.address == passage.outside))
            .collect()
    }

    /// Floating IPs that lead to an instance, those of the cloud's own included.
    pub fn floating_ips_of(&self, instance: &Instance) -> Vec<FloatingIp> {
        self.all(|f: &FloatingIp| f.target.is_some_and(|t| instance.ports.contains(&t.port)))
    }

    /// Published ports of the instances that are placed here.
    pub fn published(&self) -> Vec<PublishedPort> {
        let instances = self.all(|i: &Instance| i.node == Some(self.node) && !i.publish.is_empty());
        let mut all = Vec::new();
        for instance in &instances {
            let floating = self.floating_ips_of(instance);
            all.extend(publish::led(instance, &floating).into_iter().map(|(publish, publication)| {
                PublishedPort {
                    instance: instance.meta.id,
                    project: instance.meta.project,
                    name: instance.meta.name.clone(),
                    publish,
                    publication,
                }
            }));
        }
        all
    }

    /// The view of an external network; `None` once it is gone.
    pub fn external(&self, id: NetworkId) -> Option<ExternalView> {
        let network: Network = self.one(id)?;
        network.external()?;
        let routers = self
            .all(|r: &Router| r.gateway.is_some_and(|g| g.network == id))
            .into_iter()
            .map(|router| {
                let port = router.gateway.and_then(|g| self.one::<Port>(g.port));
                let addresses = port.iter().flat_map(|p| p.addresses.iter().map(|a| a.address)).collect();
                (router, addresses)
            })
            .collect();
        Some(ExternalView {
            subnets: self.all(|s: &Subnet| s.network == id),
            floating_ips: self.all(|f: &FloatingIp| f.network == id),
            network,
            routers,
        })
    }

    /// Every private network that this node has a hand in.
    pub fn network_ids(&self) -> Vec<NetworkId> {
        self.all(|n: &Network| n.external().is_none()).iter().map(|n| n.meta.id).collect()
    }

    /// Every host-only network.
    pub fn host_only_ids(&self) -> Vec<NetworkId> {
        self.all(|n: &Network| n.kind == NetworkKind::HostOnly).iter().map(|n| n.meta.id).collect()
    }

    /// The store that is read.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Every external network.
    pub fn external_ids(&self) -> Vec<NetworkId> {
        self.all(|n: &Network| n.external().is_some()).iter().map(|n| n.meta.id).collect()
    }

    /// Every router.
    pub fn router_ids(&self) -> Vec<RouterId> {
        self.store.list::<Router>().iter().map(|r| r.record.meta.id).collect()
    }

    /// The port of a network with this address, and the instance that uses it.
    pub fn port_at(&self, network: NetworkId, address: IpAddr) -> Option<Port> {
        let ports = self.store.list::<Port>();
        let fits = |p: &Port| p.network == network && p.addresses.iter().any(|a| a.address == address);
        ports.iter().find(|p| fits(&p.record)).map(|p| p.record.clone())
    }

    /// The floating IPv4 address of a port.
    pub fn floating_of(&self, port: PortId) -> Option<IpAddr> {
        let all = self.store.list::<FloatingIp>();
        all.iter()
            .filter(|f| !f.record.internal && f.record.address.is_ipv4())
            .find(|f| f.record.target.is_some_and(|t| t.port == port))
            .map(|f| f.record.address)
    }

    /// Ports by id, in this order.
    pub fn ports(&self, ids: &[PortId]) -> Vec<Port> {
        ids.iter().filter_map(|id| self.one(id)).collect()
    }

    /// Volumes by id, in this order.
    pub fn volumes(&self, ids: &[VolumeId]) -> Vec<Volume> {
        ids.iter().filter_map(|id| self.one(id)).collect()
    }

    /// The instance with this id.
    pub fn instance(&self, id: InstanceId) -> Option<Instance> {
        self.one(id)
    }

    /// Instances with a port in a network, and the addresses of their ports there.
    pub fn members(&self, network: NetworkId) -> Vec<(Instance, Vec<IpAddr>)> {
        self.with_port(network, |_| true)
    }

    /// Instances with a port that goes by this alias in a network, and the addresses of these ports.
    pub fn aliased(&self, network: NetworkId, name: &str) -> Vec<(Instance, Vec<IpAddr>)> {
        self.with_port(network, |port| port.aliases.iter().any(|alias| alias.is_meant(name)))
    }

    fn with_port(&self, network: NetworkId, keep: impl Fn(&Port) -> bool) -> Vec<(Instance, Vec<IpAddr>)> {
        let mut found: BTreeMap<InstanceId, Vec<IpAddr>> = BTreeMap::new();
        for port in self.store.list::<Port>() {
            let port = &port.record;
            if let (true, Some(id)) = (port.network == network && keep(port), port.instance()) {
                found.entry(id).or_default().extend(port.addresses.iter().map(|fixed| fixed.address));
            }
        }
        found.into_iter().filter_map(|(id, addresses)| Some((self.instance(id)?, addresses))).collect()
    }

    /// Instances that a network may see by name: those with a port in a network that shares a router with it, or in
    /// the network itself; with the addresses that can be reached.
    pub fn neighbours(&self, network: NetworkId) -> Vec<(Instance, Vec<IpAddr>)> {
        let mut reach = BTreeSet::from([network]);
        for router in self.store.list::<Router>() {
            let joined: Vec<NetworkId> = router.record.interfaces.iter().map(|i| i.network).collect();
            if joined.contains(&network) {
                reach.extend(joined);
            }
        }
        let mut found: BTreeMap<InstanceId, Vec<IpAddr>> = BTreeMap::new();
        for port in self.store.list::<Port>() {
            let port = &port.record;
            if let (true, Device::Instance(id)) = (reach.contains(&port.network), port.device) {
                let addresses = found.entry(id).or_default();
                // The nearest address first: the one in the network that asks.
                let place = if port.network == network { 0 } else { addresses.len() };
                for (n, fixed) in port.addresses.iter().enumerate() {
                    addresses.insert((place + n).min(addresses.len()), fixed.address);
                }
            }
        }
        found.into_iter().filter_map(|(id, addresses)| Some((self.instance(id)?, addresses))).collect()
    }
}

/// The range of a network that an address lies in, for callers that print it.
pub fn prefix_of(subnets: &[Subnet], address: IpAddr) -> Option<ipnet::IpNet> {
    let subnet = subnets.iter().find(|s| s.cidr.contains(&address))?;
    ipnet::IpNet::new(address, subnet.cidr.prefix_len()).ok()
}
