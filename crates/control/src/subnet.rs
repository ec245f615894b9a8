//! Subnets of networks.

use crate::{
    Caller, Control, Error, Result, Role, network::Joined, subnet_pool::PoolAsked, transact::Transaction,
};
use ipnet::IpNet;
use model::{
    address::{AddressRange, nth},
    error::Code,
    id::SubnetId,
    meta::{Labels, Meta},
    network::{Network, NetworkKind},
    port::{Device, Port},
    quota::Resource,
    router::Router,
    security_group::SecurityGroup,
    subnet::{
        GROUPS_PER_SUBNET_MAX, HostRoute, Ipv6Mode, Ipv6Part, SUBNET_LIST_MAX, Subnet, SubnetError,
        check_cidr,
    },
};
use std::{net::IpAddr, sync::Arc};
use store::Stored;

/// A subnet to be made.
#[derive(Debug, Clone, Default)]
pub struct NewSubnet {
    /// Name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Labels.
    pub labels: Labels,
    /// Network.
    pub network: String,
    /// Range, like `10.0.1.0/24`; may be empty when a pool gives one.
    pub cidr: String,
    /// Pool that the range is cut from.
    pub pool: Option<PoolAsked>,
    /// Gateway: the first address when `None`; none at all with `no_gateway`.
    pub gateway: Option<IpAddr>,
    /// The subnet is not routed.
    pub no_gateway: bool,
    /// Addresses are told by DHCP.
    pub dhcp: bool,
    /// DNS servers instead of holm's own.
    pub dns_servers: Vec<IpAddr>,
    /// Where automatic addresses come from.
    pub pools: Vec<AddressRange>,
    /// Routes told to instances.
    pub host_routes: Vec<HostRoute>,
    /// IPv6 mode; stateful when `None`, and none at all with `no_ipv6_mode`.
    pub ipv6_mode: Option<Ipv6Mode>,
    /// IPv6 addresses are told by nobody.
    pub no_ipv6_mode: bool,
    /// Which part of telling them is ours.
    pub ipv6_part: Ipv6Part,
    /// Groups that are a second gate for all of the subnet.
    pub security_groups: Vec<String>,
    /// Router that joins it: the project's router `default` when `None` and there is one.
    pub router: Option<String>,
    /// Join no router.
    pub no_router: bool,
}

impl Control {
    /// Makes a subnet and, unless told otherwise, joins it to the project's default router.
    ///
    /// # Errors
    /// `invalid` with the rule that the range breaks, `not_found`, `taken`, `quota_exceeded`, `forbidden` for
    /// members in a host-only or external network, `conflict` for a range there that the host routes already.
    pub async fn create_subnet(&self, caller: &Caller, new: NewSubnet) -> Result<Subnet> {
        let mut made = self.create_subnets(caller, &[new]).await?;
        Ok(made.swap_remove(0))
    }

    /// Makes several subnets, or none.
    ///
    /// # Errors
    /// As [`Self::create_subnet`].
    pub async fn create_subnets(&self, caller: &Caller, new: &[NewSubnet]) -> Result<Vec<Subnet>> {
        caller.require(Role::Member, "creating a subnet")?;
        let ids: Vec<SubnetId> = new.iter().map(|_| SubnetId::from_random(rand::random())).collect();
        self.transact(|tx| {
            let mut made: Vec<Subnet> = vec![];
            for (new, id) in new.iter().zip(&ids) {
                let network = self.find_own::<Network>(caller, &new.network, "creating a subnet")?;
                require_host(caller, &network.record, "creating a subnet of a network that the host routes")?;
                let subnet = self.draft_subnet(tx, caller, *id, &network.record, new, &made)?;
                if made.iter().all(|other| other.network != subnet.network) {
                    // Two racing subnets of one network must see each other: both write the network's record.
                    let mut next = network.record.clone();
                    next.meta.touch(self.now());
                    tx.update(&network, &next);
                }
                self.add_subnet(tx, &subnet);
                made.push(subnet);
            }
            let joined = new.iter().zip(&made).filter(|(new, _)| !new.no_router);
            self.join_routers(tx, caller, &joined.collect::<Vec<_>>())?;
            Ok(made)
        })
        .await
    }

    /// Decides all of a subnet beside the ones `made` in the same transaction.
    fn draft_subnet(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        id: SubnetId,
        network: &Network,
        new: &NewSubnet,
        made: &[Subnet],
    ) -> Result<Subnet> {
        let name = self.name_asked(&new.name, "subnet", &id.short())?;
        let wanted = match new.cidr.as_str() {
            "" if new.pool.is_some() => None,
            text => Some(text.parse::<IpNet>().map_err(|_| {
                Error::invalid("cidr", format!("{text:?} is not an address range"))
                    .hint("write it like 10.0.1.0/24 or fd00:1::/64")
            })?),
        };
        let there = self.subnets_of(network.meta.id);
        let here = made.iter().filter(|s| s.network == network.meta.id);
        let others: Vec<IpNet> = there.iter().map(|s| s.record.cidr).chain(here.map(|s| s.cidr)).collect();
        if let Some(cidr) = wanted {
            check_cidr(cidr, &others).map_err(explain)?;
        }
        let (cidr, subnet_pool) = match (&new.pool, wanted) {
            (Some(asked), _) => {
                let (cidr, pool) = self.cut_subnet(tx, caller, asked, wanted, made)?;
                (cidr, Some(pool))
            }
            (None, Some(cidr)) => (cidr, None),
            (None, None) => return Err(Error::invalid("cidr", "a subnet needs a range or a pool")),
        };
        check_cidr(cidr, &others).map_err(explain)?;
        self.refuse_routed_twice(network, cidr)?;
        let mut meta = Meta::new(id, caller.project, name, self.now());
        meta.description.clone_from(&new.description);
        meta.labels.clone_from(&new.labels);
        let mode = if new.no_ipv6_mode { None } else { new.ipv6_mode.or(Some(Ipv6Mode::Stateful)) };
        let subnet = Subnet {
            meta,
            network: network.meta.id,
            cidr,
            gateway: if new.no_gateway { None } else { new.gateway.or_else(|| nth(&cidr, 1)) },
            dhcp: new.dhcp,
            dns_servers: new.dns_servers.clone(),
            pools: new.pools.clone(),
            host_routes: new.host_routes.clone(),
            ipv6_mode: if cidr.addr().is_ipv6() { mode } else { new.ipv6_mode },
            ipv6_part: new.ipv6_part,
            security_groups: self.groups_asked(caller, &new.security_groups)?,
            subnet_pool,
        };
        check_subnet(&subnet)?;
        subnet.security_groups.iter().for_each(|group| tx.stand_on::<SecurityGroup>(*group));
        Ok(subnet)
    }

    /// Joins new subnets to their routers: each router's record is written once.
    fn join_routers(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        subnets: &[(&NewSubnet, &Subnet)],
    ) -> Result<()> {
        let mut joined: Vec<(Arc<Stored<Router>>, Router)> = vec![];
        for (new, subnet) in subnets {
            let is_private = |n: &Network| n.kind == NetworkKind::Private;
            let network = self.get::<Network>(subnet.network);
            if subnet.gateway.is_none() || !network.is_some_and(|n| is_private(&n.record)) {
                continue;
            }
            let router = match &new.router {
                Some(reference) => Some(self.find_for::<Router>(caller, "router", reference)?),
                None => self.find::<Router>(caller, "default").ok(),
            };
            let Some(router) = router else { continue };
            let known = joined.iter().position(|(found, _)| found.record.meta.id == router.record.meta.id);
            let place = known.unwrap_or_else(|| {
                joined.push((Arc::clone(&router), router.record.clone()));
                joined.len() - 1
            });
            let next = &mut joined[place].1;
            self.refuse_overlap_on_router(next, subnet)?;
            let interface = self.add_interface(tx, next, subnet, None)?;
            next.interfaces.push(interface);
        }
        for (found, mut next) in joined {
            next.meta.touch(self.now());
            tx.update(&found, &next);
        }
        Ok(())
    }

    /// Changes a subnet: `groups` are its gate, all of them, and `edit` does the rest. Its range never changes.
    ///
    /// # Errors
    /// `invalid`, `in_use` for the gateway address that a router holds, `not_found`, `forbidden`, `taken`, and what
    /// `edit` refuses.
    pub async fn update_subnet(
        &self,
        caller: &Caller,
        reference: &str,
        groups: Option<&[String]>,
        edit: impl Fn(&mut Subnet) -> Result<()>,
    ) -> Result<Subnet> {
        self.transact(|tx| {
            let found = self.find_own::<Subnet>(caller, reference, "changing a subnet")?;
            let mut next = found.record.clone();
            if let Some(groups) = groups {
                let owner = Caller { project: next.meta.project, ..caller.clone() };
                next.security_groups = self.groups_asked(&owner, groups)?;
            }
            edit(&mut next)?;
            check_subnet(&next)?;
            if next.security_groups != found.record.security_groups {
                next.security_groups.iter().for_each(|group| tx.stand_on::<SecurityGroup>(*group));
            }
            if next.gateway != found.record.gateway {
                if let Some(network) = self.get::<Network>(next.network) {
                    require_host(caller, &network.record, "changing a gateway that is the host's own")?;
                }
                self.refuse_held_gateway(&found.record)?;
                self.refuse_used_gateway(&next)?;
            }
            if next != found.record {
                next.meta.touch(self.now());
                tx.update(&found, &next);
            }
            Ok(next)
        })
        .await
    }

    /// A router's port holds the gateway address: while one does, the address stays.
    fn refuse_held_gateway(&self, subnet: &Subnet) -> Result<()> {
        let Some(gateway) = subnet.gateway else { return Ok(()) };
        for port in self.ports_of_network(subnet.network) {
            let Device::RouterInterface(router) = port.record.device else { continue };
            if port.record.addresses.iter().any(|fixed| fixed.address == gateway) {
                let name = self.get::<Router>(router).map(|r| r.record.meta.name.to_string());
                let message = format!(
                    "router {} joins the subnet and holds its gateway address {gateway}",
                    name.unwrap_or_else(|| router.to_string())
                );
                return Err(Error::new(Code::InUse, message)
                    .field("gateway")
                    .hint("take the subnet off the router first"));
            }
        }
        Ok(())
    }

    fn refuse_used_gateway(&self, subnet: &Subnet) -> Result<()> {
        let has = |port: &Port| port.addresses.iter().any(|fixed| Some(fixed.address) == subnet.gateway);
        let ports = self.ports_of_network(subnet.network);
        match ports.iter().find(|p| has(&p.record) && p.record.instance().is_some()) {
            None => Ok(()),
            Some(port) => {
                let message = format!("port {} has that address", port.record.meta.name);
                Err(Error::new(Code::Taken, message).field("gateway").hint("choose a free address"))
            }
        }
    }

    pub(crate) fn add_subnet(&self, tx: &mut Transaction, subnet: &Subnet) {
        let project = subnet.meta.project;
        self.charge(tx, project, &[(Resource::Subnets, 1)]);
        tx.create(subnet);
    }

    /// Removes a subnet in which no instance has an address. Router interfaces go along or are in the way, as `joined`
    /// says.
    ///
    /// # Errors
    /// `in_use`, `not_found`, `forbidden`.
    pub async fn delete_subnet(&self, caller: &Caller, reference: &str, joined: Joined) -> Result<()> {
        self.transact(|tx| {
            let found = self.find_own::<Subnet>(caller, reference, "deleting a subnet")?;
            let meta = &found.record.meta;
            // Ports with an address of it count as their network's.
            let seen = self.arrivals::<Network>(found.record.network);
            tx.expect_no_arrival::<Network>(found.record.network, seen);
            for port in self.ports_of_network(found.record.network) {
                if !port.record.addresses.iter().any(|a| a.subnet == meta.id) {
                    continue;
                }
                let goes =
                    matches!(port.record.device, Device::RouterInterface(_)) && joined == Joined::Remove;
                if !goes {
                    let message = format!("subnet {} is used by port {}", meta.name, port.record.meta.name);
                    return Err(
                        Error::new(Code::InUse, message).hint("delete what has an address in it first")
                    );
                }
                self.drop_addresses_in(tx, &port, meta.id);
            }
            for router in self.store.mirror().list::<Router>() {
                if router.record.interfaces.iter().any(|i| i.subnet == meta.id) {
                    let mut next = router.record.clone();
                    next.interfaces.retain(|i| i.subnet != meta.id);
                    next.meta.touch(self.now());
                    tx.update(&router, &next);
                }
            }
            self.charge(tx, meta.project, &[(Resource::Subnets, -1)]);
            tx.delete(&found);
            Ok(())
        })
        .await
    }
}

/// The host itself routes the ranges of host-only and external networks and has their gateways' addresses: that is for
/// its admins, whose project the network may be.
fn require_host(caller: &Caller, network: &Network, action: &str) -> Result<()> {
    match network.kind {
        NetworkKind::HostOnly | NetworkKind::External(_) => caller.require(Role::Admin, action),
        NetworkKind::Private => Ok(()),
    }
}

fn check_subnet(subnet: &Subnet) -> Result<()> {
    let lists = [subnet.dns_servers.len(), subnet.pools.len(), subnet.host_routes.len()];
    if lists.iter().any(|len| *len > SUBNET_LIST_MAX) {
        let message = format!("a subnet has at most {SUBNET_LIST_MAX} DNS servers, pools or routes each");
        return Err(Error::new(Code::TooLarge, message));
    }
    if subnet.security_groups.len() > GROUPS_PER_SUBNET_MAX {
        let message = format!("a subnet has at most {GROUPS_PER_SUBNET_MAX} security groups");
        return Err(Error::new(Code::TooLarge, message).field("security_groups"));
    }
    subnet.check().map_err(|error| {
        let field = match &error {
            SubnetError::PoolOrder(..) | SubnetError::PoolOverlap(..) => "pools",
            SubnetError::Family(_) => "host_routes",
            SubnetError::ModeOfIpv4(_) | SubnetError::NotA64(_) => "ipv6_mode",
            _ => "gateway",
        };
        Error::invalid(field, error)
    })
}

fn explain(error: SubnetError) -> Error {
    let hint = match &error {
        SubnetError::HostBits { range, .. } => format!("write {range}"),
        SubnetError::Overlap { .. } => "choose a range that no other subnet of the network has".to_string(),
        _ => String::new(),
    };
    Error::invalid("cidr", &error).hint(hint)
}
