//! Networks, and the set of network, subnets and router that a project starts with.

use crate::{
    Caller, Control, Error, Result, Role,
    project::DEFAULT_CIDR_V4,
    router::GatewayAsked,
    schema::{PORT_BY_NETWORK, SUBNET_BY_NETWORK},
    transact::Transaction,
};
use ipnet::IpNet;
use jiff::Timestamp;
use model::{
    address::overlap,
    address_scope::AddressScope,
    error::Code,
    id::{NetworkId, ProjectId, RouterId, SubnetId},
    meta::{Labels, Meta},
    name::Name,
    network::{External, MTU_BYTES, MTU_BYTES_DEFAULT, Network, NetworkKind},
    port::{Device, Port},
    quota::Resource,
    router::Router,
    subnet::{Ipv6Mode, Ipv6Part, Subnet},
    subnet_pool::SubnetPool,
};
use std::{net::IpAddr, sync::Arc};
use store::Stored;

/// A network to be made.
#[derive(Debug, Clone)]
pub struct NewNetwork {
    /// Name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Kind.
    pub kind: NetworkKind,
    /// Largest packet in bytes; 1500 when `None`.
    pub mtu: Option<u32>,
    /// Other projects may use it (admins).
    pub shared: bool,
    /// New ports filter.
    pub port_security: bool,
    /// Domain of its instances' names; the cloud's default when empty.
    pub dns_domain: String,
    /// Labels.
    pub labels: Labels,
    /// Passes packets.
    pub admin_up: bool,
}

impl NewNetwork {
    /// A network of this kind with nothing else said.
    pub fn of_kind(name: &str, kind: NetworkKind) -> Self {
        Self {
            name: name.to_string(),
            description: String::new(),
            kind,
            mtu: None,
            shared: false,
            port_security: true,
            dns_domain: String::new(),
            labels: Labels::new(),
            admin_up: true,
        }
    }
}

impl Control {
    /// The address by which instances of a network reach the host itself: the gateway of the outside behind its router,
    /// where that outside is a range of the host's own. IPv4 before IPv6. `None` where no such way is.
    pub fn host_address(&self, network: NetworkId) -> Option<IpAddr> {
        let routers = self.store.list::<Router>();
        let joins = |r: &Router| r.interfaces.iter().any(|i| i.network == network);
        let outsides = routers.iter().filter(|r| joins(&r.record)).filter_map(|r| r.record.gateway);
        let is_hosts = |id: &NetworkId| {
            let outside = self.get::<Network>(*id);
            outside.is_some_and(|n| n.record.external().is_some_and(|e| e.interface.is_none()))
        };
        let subnets = outsides.map(|gateway| gateway.network).filter(is_hosts);
        let mut gateways: Vec<IpAddr> =
            subnets.flat_map(|id| self.subnets_of(id)).filter_map(|subnet| subnet.record.gateway).collect();
        gateways.sort_by_key(|address| !address.is_ipv4());
        gateways.first().copied()
    }
}

/// What becomes of router interfaces in what is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// They go along.
    Remove,
    /// They are in the way.
    Refuse,
}

/// What a project starts with, as records.
pub(crate) struct Draft {
    network: Network,
    subnets: Vec<Subnet>,
    router: Router,
}

impl Draft {
    /// Network `default` with an IPv4 and an IPv6 subnet and router `default`.
    pub(crate) fn default_of(project: ProjectId, now: Timestamp) -> Self {
        let name = || "default".parse::<Name>().expect("a constant name parses");
        let network = Network {
            meta: Meta::new(NetworkId::from_random(rand::random()), project, name(), now),
            kind: NetworkKind::Private,
            mtu: MTU_BYTES_DEFAULT,
            shared: false,
            port_security: true,
            dns_domain: String::new(),
            admin_up: true,
        };
        let random: [u8; 5] = rand::random();
        let subnet = |name: &str, cidr: IpNet, mode: Option<Ipv6Mode>| Subnet {
            meta: Meta::new(
                SubnetId::from_random(rand::random()),
                project,
                name.parse().expect("a constant name parses"),
                now,
            ),
            network: network.meta.id,
            cidr,
            gateway: model::address::nth(&cidr, 1),
            dhcp: true,
            dns_servers: vec![],
            pools: vec![],
            host_routes: vec![],
            ipv6_mode: mode,
            ipv6_part: Ipv6Part::Both,
            security_groups: vec![],
            subnet_pool: None,
        };
        let v4 = DEFAULT_CIDR_V4.parse().expect("a constant range parses");
        let subnets = vec![
            subnet("default", v4, None),
            subnet("default-v6", unique_local(random), Some(Ipv6Mode::Stateful)),
        ];
        let router = Router {
            meta: Meta::new(RouterId::from_random(rand::random()), project, name(), now),
            gateway: None,
            interfaces: vec![],
            routes: vec![],
            admin_up: true,
        };
        Self { network, subnets, router }
    }
}

/// A /64 of the unique local range with a random global id (RFC 4193).
pub fn unique_local(random: [u8; 5]) -> IpNet {
    let mut octets = [0u8; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&random);
    IpNet::new(std::net::Ipv6Addr::from(octets).into(), 64).expect("64 is a prefix length")
}

impl Control {
    pub(crate) fn add_draft(&self, tx: &mut Transaction, draft: &Draft) -> Result<()> {
        self.add_network(tx, &draft.network);
        let mut router = draft.router.clone();
        for subnet in &draft.subnets {
            self.add_subnet(tx, subnet);
            router.interfaces.push(self.add_interface(tx, &router, subnet, None)?);
        }
        if let Some(external) = self.default_external() {
            let asked = GatewayAsked::default();
            let caller = crate::finalize::system_caller(router.meta.project);
            router.gateway = Some(self.add_gateway(tx, &caller, &router, &external.record, &asked)?);
        }
        self.add_router(tx, &router);
        Ok(())
    }

    /// The external network that new routers use.
    pub fn default_external(&self) -> Option<Arc<Stored<Network>>> {
        let all = self.store.mirror().list::<Network>();
        all.into_iter().find(|n| n.record.external().is_some_and(|e| e.is_default))
    }

    /// Makes a network without subnets.
    ///
    /// # Errors
    /// `invalid`, `taken`, `quota_exceeded`, `forbidden` for shared, external and host-only ones.
    pub async fn create_network(&self, caller: &Caller, new: NewNetwork) -> Result<Network> {
        let mut made = self.create_networks(caller, &[new]).await?;
        Ok(made.swap_remove(0))
    }

    /// Makes several networks, or none.
    ///
    /// # Errors
    /// As [`Self::create_network`].
    pub async fn create_networks(&self, caller: &Caller, new: &[NewNetwork]) -> Result<Vec<Network>> {
        let drafts: Vec<Network> =
            new.iter().map(|new| self.draft_network(caller, new)).collect::<Result<_>>()?;
        self.transact(|tx| {
            drafts.iter().for_each(|network| self.add_network(tx, network));
            Ok(drafts.clone())
        })
        .await
    }

    fn draft_network(&self, caller: &Caller, new: &NewNetwork) -> Result<Network> {
        caller.require(Role::Member, "creating a network")?;
        // The host itself routes the ranges of external and host-only networks.
        if new.shared || new.kind != NetworkKind::Private {
            caller.require(Role::Admin, "creating a shared, external or host-only network")?;
        }
        if let NetworkKind::External(External { interface: Some(interface), .. }) = &new.kind {
            check_interface(interface)?;
        }
        let id = NetworkId::from_random(rand::random());
        let name = self.name_asked(&new.name, "network", &id.short())?;
        let mut meta = Meta::new(id, caller.project, name, self.now());
        meta.description.clone_from(&new.description);
        meta.labels.clone_from(&new.labels);
        let network = Network {
            meta,
            kind: new.kind.clone(),
            mtu: new.mtu.unwrap_or(MTU_BYTES_DEFAULT),
            shared: new.shared,
            port_security: new.port_security,
            dns_domain: new.dns_domain.clone(),
            admin_up: new.admin_up,
        };
        check_network(&network)?;
        Ok(network)
    }

    /// Changes a network. What others use it for stays possible: it cannot become private to its project, or of
    /// another kind, while ports stand in the way.
    ///
    /// # Errors
    /// `in_use`, `not_found`, `forbidden`, `taken`, `invalid`, `conflict` for ranges that the host would route twice, and
    /// what `edit` refuses.
    pub async fn update_network(
        &self,
        caller: &Caller,
        reference: &str,
        edit: impl Fn(&mut Network) -> Result<()>,
    ) -> Result<Network> {
        self.transact(|tx| {
            let found = self.find_own::<Network>(caller, reference, "changing a network")?;
            let (before, mut next) = (&found.record, found.record.clone());
            edit(&mut next)?;
            if next == *before {
                return Ok(next);
            }
            check_network(&next)?;
            if next.shared != before.shared || next.kind != before.kind {
                caller.require(Role::Admin, "sharing a network or changing its kind")?;
            }
            let ports = self.ports_of_network(next.meta.id);
            if next.kind != before.kind && !ports.is_empty() {
                let message = format!("network {} has {} ports", before.meta.name, ports.len());
                return Err(Error::new(Code::InUse, message).hint("its kind changes only while it has none"));
            }
            if next.kind != before.kind {
                for subnet in self.subnets_of(next.meta.id) {
                    self.refuse_routed_twice(&next, subnet.record.cidr).map_err(|e| e.field("kind"))?;
                }
            }
            let is_foreign = |port: &Port| port.meta.project != next.meta.project;
            if before.shared && !next.shared && ports.iter().any(|port| is_foreign(&port.record)) {
                let message = format!("other projects have ports in network {}", before.meta.name);
                return Err(Error::new(Code::InUse, message).field("shared").hint("they go first"));
            }
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }

    /// The host routes the ranges of its host-only networks itself: none of them may be one that it routes already, or
    /// what is meant for the one would go to the other.
    pub(crate) fn refuse_routed_twice(&self, network: &Network, cidr: IpNet) -> Result<()> {
        let meets = |other: &NetworkKind| match network.kind {
            NetworkKind::Private => false,
            NetworkKind::HostOnly => *other != NetworkKind::Private,
            NetworkKind::External(_) => *other == NetworkKind::HostOnly,
        };
        for other in self.store.list::<Network>() {
            if other.record.meta.id == network.meta.id || !meets(&other.record.kind) {
                continue;
            }
            let subnets = self.subnets_of(other.record.meta.id);
            if let Some(taken) = subnets.iter().find(|s| overlap(&s.record.cidr, &cidr)) {
                let message = format!(
                    "{cidr} overlaps {} of network {}, which this host routes already",
                    taken.record.cidr, other.record.meta.name
                );
                return Err(Error::new(Code::Conflict, message)
                    .field("cidr")
                    .hint("choose a range that no external and no host-only network has"));
            }
        }
        Ok(())
    }

    pub(crate) fn add_network(&self, tx: &mut Transaction, network: &Network) {
        let project = network.meta.project;
        self.charge(tx, project, &[(Resource::Networks, 1)]);
        tx.create(network);
    }

    /// Removes a network and its subnets. Ports of instances are in the way, and router interfaces if `joined` says so.
    ///
    /// # Errors
    /// `in_use` with who uses it, `not_found`, `forbidden`.
    pub async fn delete_network(&self, caller: &Caller, reference: &str, joined: Joined) -> Result<()> {
        self.transact(|tx| {
            let found = self.find_own::<Network>(caller, reference, "deleting a network")?;
            let meta = &found.record.meta;
            let seen = self.arrivals::<Network>(meta.id);
            if let Some(user) = self.user_of_network(meta.id, joined) {
                return Err(Error::new(Code::InUse, format!("network {} is used by {user}", meta.name))
                    .hint("detach or delete that first"));
            }
            self.drop_network_parts(tx, meta.id);
            self.charge(tx, meta.project, &[(Resource::Networks, -1)]);
            tx.delete_unused(&found, seen);
            Ok(())
        })
        .await
    }

    fn drop_network_parts(&self, tx: &mut Transaction, network: NetworkId) {
        for router in self.store.mirror().list::<Router>() {
            if router.record.interfaces.iter().any(|i| i.network == network) {
                let mut next = router.record.clone();
                next.interfaces.retain(|i| i.network != network);
                next.meta.touch(self.now());
                tx.update(&router, &next);
            }
        }
        for port in self.ports_of_network(network) {
            self.drop_port(tx, &port);
        }
        for subnet in self.subnets_of(network) {
            let meta = &subnet.record.meta;
            self.charge(tx, meta.project, &[(Resource::Subnets, -1)]);
            tx.delete(&subnet);
        }
    }

    /// Ports in a network.
    pub fn ports_of_network(&self, network: NetworkId) -> Vec<Arc<Stored<Port>>> {
        self.store.by_index(&PORT_BY_NETWORK, &network.to_string())
    }

    /// Subnets of a network, IPv4 first.
    pub fn subnets_of(&self, network: NetworkId) -> Vec<Arc<Stored<Subnet>>> {
        let mut all = self.store.by_index(&SUBNET_BY_NETWORK, &network.to_string());
        all.sort_by_key(|s| (s.record.cidr.addr().is_ipv6(), s.record.meta.created_at));
        all
    }

    fn user_of_network(&self, network: NetworkId, joined: Joined) -> Option<String> {
        let router = |id: RouterId| {
            let name = self.get::<Router>(id).map(|r| r.record.meta.name.to_string());
            Some(format!("router {}", name.unwrap_or_else(|| id.to_string())))
        };
        self.ports_of_network(network).iter().find_map(|port| match port.record.device {
            Device::RouterInterface(_) if joined == Joined::Remove => None,
            Device::RouterInterface(id) => router(id),
            Device::None => Some(format!("port {}", port.record.meta.name)),
            Device::Instance(id) => {
                let name = self.get::<model::instance::Instance>(id).map(|i| i.record.meta.name.to_string());
                Some(format!("instance {}", name.unwrap_or_else(|| id.to_string())))
            }
            Device::RouterGateway(id) => router(id),
            Device::FloatingIp => Some(format!("floating IP {}", port.record.meta.name)),
        })
    }

    /// Removes routers, networks, keys and free ports of a project that is going.
    pub(crate) async fn remove_all_networking(&self, caller: &Caller) -> Result<()> {
        let own = |project: ProjectId| project == caller.project;
        for router in self.store.mirror().list::<Router>() {
            if own(router.record.meta.project) {
                self.delete_router(caller, &router.record.meta.id.to_string(), true).await?;
            }
        }
        for port in self.store.mirror().list::<Port>() {
            if own(port.record.meta.project) && port.record.device == Device::None {
                self.delete_port(caller, &port.record.meta.id.to_string()).await?;
            }
        }
        for network in self.store.mirror().list::<Network>() {
            if own(network.record.meta.project) {
                self.delete_network(caller, &network.record.meta.id.to_string(), Joined::Remove).await?;
            }
        }
        for pool in self.store.mirror().list::<SubnetPool>() {
            if own(pool.record.meta.project) {
                self.delete_subnet_pool(caller, &pool.record.meta.id.to_string()).await?;
            }
        }
        for scope in self.store.mirror().list::<AddressScope>() {
            if own(scope.record.meta.project) {
                self.delete_address_scope(caller, &scope.record.meta.id.to_string()).await?;
            }
        }
        for group in self.store.mirror().list::<model::server_group::ServerGroup>() {
            if own(group.record.meta.project) {
                self.delete_server_group(caller, &group.record.meta.id.to_string()).await?;
            }
        }
        for key in self.store.mirror().list::<model::keypair::Keypair>() {
            if own(key.record.meta.project) {
                self.delete_keypair(caller, None, &key.record.meta.id.to_string()).await?;
            }
        }
        Ok(())
    }
}

fn check_network(network: &Network) -> Result<()> {
    if !MTU_BYTES.contains(&network.mtu) {
        let (least, most) = (MTU_BYTES.start(), MTU_BYTES.end());
        let message = format!("an MTU of {}: {least} to {most} bytes are possible", network.mtu);
        return Err(Error::invalid("mtu", message));
    }
    check_domain(&network.dns_domain)
}

fn check_interface(name: &str) -> Result<()> {
    let fits = (1..=15).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@'));
    if fits && name != "." && name != ".." {
        return Ok(());
    }
    Err(Error::invalid("interface", format!("{name:?} is not a name of a network interface")))
}

fn check_domain(domain: &str) -> Result<()> {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if domain.is_empty() || (domain.len() <= 200 && domain.trim_end_matches('.').split('.').all(label)) {
        return Ok(());
    }
    Err(Error::invalid("dns_domain", format!("{domain:?} is not a domain name like lab.example.org")))
}
