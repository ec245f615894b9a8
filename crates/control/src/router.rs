//! Routers: join subnets with each other and with an external network.

use crate::{
    Caller, Control, Error, Result, Role,
    port::{FixedAsked, PortDraft, stand_in_network},
    transact::Transaction,
};
use model::{
    address::overlap,
    error::Code,
    id::{NetworkId, PortId, RouterId},
    meta::{Labels, Meta},
    name::Name,
    network::Network,
    port::{Device, Port},
    quota::Resource,
    router::{Gateway, Interface, ROUTER_LIST_MAX, Router},
    subnet::{HostRoute, Subnet},
};
use std::{net::IpAddr, sync::Arc};
use store::Stored;

/// A way out that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatewayAsked {
    /// External network; the default one when `None`.
    pub network: Option<String>,
    /// Hide instances without a floating IP; on when `None`, and as it was where only something else changes.
    pub snat: Option<bool>,
    /// Outer addresses; one of each family when `None`.
    pub fixed: Option<Vec<FixedAsked>>,
}

/// A router to be made.
#[derive(Debug, Clone)]
pub struct NewRouter {
    /// Name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Labels.
    pub labels: Labels,
    /// The way out.
    pub gateway: Option<GatewayAsked>,
    /// Subnets to join.
    pub interfaces: Vec<String>,
    /// Extra routes.
    pub routes: Vec<HostRoute>,
    /// Passes packets.
    pub admin_up: bool,
}

impl Default for NewRouter {
    fn default() -> Self {
        Self {
            name: String::new(),
            description: String::new(),
            labels: Labels::new(),
            gateway: None,
            interfaces: vec![],
            routes: vec![],
            admin_up: true,
        }
    }
}

/// What a change of a router may need others for.
#[derive(Debug, Clone, Default)]
pub struct RouterChange {
    /// The way out; `Some(None)` closes it.
    pub gateway: Option<Option<GatewayAsked>>,
    /// Extra routes, all of them.
    pub routes: Option<Vec<HostRoute>>,
}

/// An inner side of a router, by its subnet or by its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfaceAsked {
    /// A subnet: the router takes its gateway address.
    Subnet(String),
    /// A port that nothing uses: the router takes it with its addresses.
    Port(String),
}

impl Control {
    /// Makes a router with all that is asked for, or none.
    ///
    /// # Errors
    /// `invalid`, `taken`, `not_found`, `quota_exceeded`, `conflict` for overlapping subnets, `no_capacity` when the
    /// external network is full.
    pub async fn create_router(&self, caller: &Caller, new: &NewRouter) -> Result<Router> {
        caller.require(Role::Member, "creating a router")?;
        let id = RouterId::from_random(rand::random());
        let name = self.name_asked(&new.name, "router", &id.short())?;
        self.transact(|tx| {
            let mut meta = Meta::new(id, caller.project, name.clone(), self.now());
            meta.description.clone_from(&new.description);
            meta.labels.clone_from(&new.labels);
            let mut router =
                Router { meta, gateway: None, interfaces: vec![], routes: vec![], admin_up: new.admin_up };
            if let Some(asked) = &new.gateway {
                let network = self.external_asked(caller, asked)?;
                router.gateway = Some(self.add_gateway(tx, caller, &router, &network.record, asked)?);
            }
            for (number, subnet) in new.interfaces.iter().enumerate() {
                let within = |e: Error| e.field(&format!("interfaces[{number}]"));
                let subnet = self.find::<Subnet>(caller, subnet).map_err(within)?;
                self.refuse_foreign_network(caller, &router, subnet.record.network).map_err(within)?;
                self.refuse_overlap_on_router(&router, &subnet.record).map_err(within)?;
                let interface = self.add_interface(tx, &router, &subnet.record, None).map_err(within)?;
                router.interfaces.push(interface);
            }
            self.set_routes(&mut router, &new.routes)?;
            self.add_router(tx, &router);
            Ok(router)
        })
        .await
    }

    /// The external network that a way out leads to.
    fn external_asked(&self, caller: &Caller, asked: &GatewayAsked) -> Result<Arc<Stored<Network>>> {
        match &asked.network {
            Some(reference) => self.find_for::<Network>(caller, "external", reference),
            None => self.default_external().ok_or_else(|| {
                Error::new(Code::NotFound, "there is no default external network").field("external")
            }),
        }
    }

    pub(crate) fn add_router(&self, tx: &mut Transaction, router: &Router) {
        self.charge(tx, router.meta.project, &[(Resource::Routers, 1)]);
        tx.create(router);
    }

    /// Takes the router's outer port in an external network.
    pub(crate) fn add_gateway(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        router: &Router,
        external: &Network,
        asked: &GatewayAsked,
    ) -> Result<Gateway> {
        if external.external().is_none() {
            let message = format!("{} is not an external network", external.meta.name);
            return Err(
                Error::invalid("external", message).hint("`holm network list --external` shows those")
            );
        }
        let id = PortId::from_random(rand::random());
        let draft = PortDraft {
            fixed: asked.fixed.as_deref(),
            ..PortDraft::of_router(id, router, external, Device::RouterGateway(router.meta.id))
        };
        let port = self.add_port(tx, caller, draft, |_| {})?;
        if asked.fixed.is_some() {
            refuse_many_outer(&port)?;
        }
        Ok(Gateway { network: external.meta.id, port: id, snat: asked.snat.unwrap_or(true) })
    }

    /// Takes the router's inner port in a subnet: it holds the gateway address, or `address`.
    pub(crate) fn add_interface(
        &self,
        tx: &mut Transaction,
        router: &Router,
        subnet: &Subnet,
        address: Option<IpAddr>,
    ) -> Result<Interface> {
        let Some(address) = address.or(subnet.gateway) else {
            return Err(Error::invalid(
                "subnet",
                format!("subnet {} has no gateway address", subnet.meta.name),
            )
            .hint("give the subnet one, or make a port there and join that"));
        };
        if self.taken_addresses(subnet.network).contains(&address) {
            let message = format!("the gateway address {address} of {} is in use", subnet.meta.name);
            return Err(Error::new(Code::Taken, message)
                .field("subnet")
                .hint("another router may join the subnet by a port of its own"));
        }
        let id = PortId::from_random(rand::random());
        let owner = id.to_string();
        tx.claim_address(subnet.network, address, &owner);
        let mac = model::address::Mac::from_random(rand::random());
        tx.claim(&format!("mac/{}", subnet.network), &mac.to_string(), &owner);
        let port = Port {
            meta: Meta::new(id, router.meta.project, Name::made_up("port", &id.short()), self.now()),
            network: subnet.network,
            mac,
            addresses: vec![model::port::FixedIp { subnet: subnet.meta.id, address }],
            device: Device::RouterInterface(router.meta.id),
            security_groups: vec![],
            port_security: false,
            allowed_pairs: vec![],
            admin_up: true,
            rate_mbit: None,
            foreign_user: None,
            device_tag: None,
            aliases: vec![],
            spread: None,
            delete_with_instance: false,
        };
        stand_in_network(tx, &port);
        tx.create(&port);
        Ok(Interface { subnet: subnet.meta.id, network: subnet.network, port: id })
    }

    pub(crate) fn refuse_overlap_on_router(&self, router: &Router, subnet: &Subnet) -> Result<()> {
        for interface in &router.interfaces {
            let Some(other) = self.subnet(interface.subnet) else {
                continue;
            };
            if overlap(&other.record.cidr, &subnet.cidr) {
                let message = format!(
                    "router {} already joins {} ({}), which overlaps {}",
                    router.meta.name, other.record.meta.name, other.record.cidr, subnet.cidr
                );
                return Err(Error::new(Code::Conflict, message)
                    .field("cidr")
                    .hint("use another range, or keep the subnet off this router (--no-router)"));
            }
        }
        if router.interfaces.len() >= ROUTER_LIST_MAX {
            let message = format!("a router joins at most {ROUTER_LIST_MAX} subnets");
            return Err(Error::new(Code::TooLarge, message));
        }
        Ok(())
    }

    /// Joins a subnet to a router, by the subnet or by a port in it.
    ///
    /// # Errors
    /// `conflict` for overlapping subnets, `taken` if the gateway address is in use, `in_use` for a port that something
    /// has, `not_found`, `forbidden`, also for a port in a network of another project.
    pub async fn add_router_interface(
        &self,
        caller: &Caller,
        router: &str,
        asked: &InterfaceAsked,
    ) -> Result<Router> {
        self.transact(|tx| {
            let found = self.find_own::<Router>(caller, router, "changing a router")?;
            let mut next = found.record.clone();
            match asked {
                InterfaceAsked::Subnet(subnet) => {
                    let subnet = self.find_for::<Subnet>(caller, "subnet", subnet)?;
                    if next.interfaces.iter().any(|i| i.subnet == subnet.record.meta.id) {
                        // A private network's subnet joins the project's router when it is made: asked again, all
                        // is well.
                        return Ok(next);
                    }
                    self.refuse_foreign_network(caller, &next, subnet.record.network)
                        .map_err(|e| e.field("subnet"))?;
                    self.refuse_overlap_on_router(&next, &subnet.record)?;
                    next.interfaces.push(self.add_interface(tx, &found.record, &subnet.record, None)?);
                }
                InterfaceAsked::Port(port) => self.take_interface(tx, caller, &mut next, port)?,
            }
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }

    /// A router leads packets for everybody in the networks that it joins: only admins join it with another project's.
    fn refuse_foreign_network(&self, caller: &Caller, router: &Router, network: NetworkId) -> Result<()> {
        let network = self.get::<Network>(network).filter(|n| n.record.meta.project != router.meta.project);
        match network.filter(|_| caller.role < Role::Admin) {
            None => Ok(()),
            Some(network) => {
                let message = format!(
                    "network {} belongs to another project than router {}",
                    network.record.meta.name, router.meta.name
                );
                Err(Error::new(Code::Forbidden, message)
                    .hint("join a router of the project that the network belongs to, or ask an admin"))
            }
        }
    }

    /// Makes a port that nothing uses the inner side of a router.
    fn take_interface(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        router: &mut Router,
        reference: &str,
    ) -> Result<()> {
        let port = self.find_own::<Port>(caller, reference, "joining a port").map_err(|e| e.field("port"))?;
        let record = &port.record;
        if record.device != Device::None {
            return Err(Error::new(Code::InUse, format!("port {} is in use", record.meta.name)).field("port"));
        }
        crate::port::refuse_spread(record)?;
        self.refuse_foreign_network(caller, router, record.network).map_err(|e| e.field("port"))?;
        let v4 = record.addresses.iter().filter(|fixed| fixed.address.is_ipv4()).count();
        if record.addresses.is_empty() || v4 > 1 {
            let message = "a router's port has at least one address, and at most one of IPv4";
            return Err(Error::invalid("port", message));
        }
        for fixed in &record.addresses {
            if let Some(subnet) = self.subnet(fixed.subnet) {
                self.refuse_overlap_on_router(router, &subnet.record)?;
            }
            let interface = Interface { subnet: fixed.subnet, network: record.network, port: record.meta.id };
            router.interfaces.push(interface);
        }
        let mut next = record.clone();
        next.device = Device::RouterInterface(router.meta.id);
        next.security_groups.clear();
        next.allowed_pairs.clear();
        next.port_security = false;
        next.meta.touch(self.now());
        // Ports of routers count in no quota.
        self.charge(tx, next.meta.project, &[(Resource::Ports, -1)]);
        tx.update(&port, &next);
        Ok(())
    }

    /// Takes a subnet off a router, or a port with all its subnets. Gives the router and what was taken off.
    ///
    /// # Errors
    /// `in_use` while a floating IP or an extra route leads through it, `not_found`, `forbidden`.
    pub async fn remove_router_interface(
        &self,
        caller: &Caller,
        router: &str,
        asked: &InterfaceAsked,
    ) -> Result<(Router, Vec<Interface>)> {
        self.transact(|tx| {
            let found = self.find_own::<Router>(caller, router, "changing a router")?;
            let (field, gone) = self.interfaces_meant(caller, &found.record, asked)?;
            let Some(first) = gone.first() else {
                let message = format!("router {} does not join that {field}", found.record.meta.name);
                return Err(Error::new(Code::NotFound, message).field(field));
            };
            let mut next = found.record.clone();
            next.interfaces.retain(|i| !gone.contains(i));
            for subnet in gone.iter().filter_map(|i| self.subnet(i.subnet)) {
                self.refuse_floating_through(&found.record, Some(&subnet.record))?;
                let cidr = subnet.record.cidr;
                if let Some(route) = next.routes.iter().find(|route| cidr.contains(&route.next_hop)) {
                    let message = format!("the route to {} leads through {cidr}", route.destination);
                    return Err(Error::new(Code::InUse, message)
                        .field("subnet")
                        .hint("remove the route first"));
                }
            }
            if let Some(port) = self.get::<Port>(first.port) {
                match asked {
                    InterfaceAsked::Port(_) => self.drop_port(tx, &port),
                    InterfaceAsked::Subnet(_) => self.drop_addresses_in(tx, &port, first.subnet),
                }
            }
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok((next, gone))
        })
        .await
    }

    fn interfaces_meant(
        &self,
        caller: &Caller,
        router: &Router,
        asked: &InterfaceAsked,
    ) -> Result<(&'static str, Vec<Interface>)> {
        let own = |fits: &dyn Fn(&Interface) -> bool| -> Vec<Interface> {
            router.interfaces.iter().filter(|i| fits(i)).copied().collect()
        };
        Ok(match asked {
            InterfaceAsked::Subnet(subnet) => {
                let id = self.find_for::<Subnet>(caller, "subnet", subnet)?.record.meta.id;
                ("subnet", own(&|i| i.subnet == id))
            }
            InterfaceAsked::Port(port) => {
                let id = self.find_for::<Port>(caller, "port", port)?.record.meta.id;
                ("port", own(&|i| i.port == id))
            }
        })
    }

    /// Changes a router: way out, extra routes, and what `edit` changes, in one transaction.
    ///
    /// # Errors
    /// `in_use` while floating IPs lead through the way out that closes, `invalid`, `not_found`, `no_capacity`,
    /// `forbidden`, `taken`, and what `edit` refuses.
    pub async fn update_router(
        &self,
        caller: &Caller,
        reference: &str,
        change: &RouterChange,
        edit: impl Fn(&mut Router) -> Result<()>,
    ) -> Result<Router> {
        self.transact(|tx| {
            let found = self.find_own::<Router>(caller, reference, "changing a router")?;
            let mut next = found.record.clone();
            if let Some(gateway) = &change.gateway {
                self.set_gateway(tx, caller, &found.record, &mut next, gateway.as_ref())?;
            }
            if let Some(routes) = &change.routes {
                self.set_routes(&mut next, routes)?;
            }
            edit(&mut next)?;
            if next != found.record {
                next.meta.touch(self.now());
                tx.update(&found, &next);
            }
            Ok(next)
        })
        .await
    }

    fn set_gateway(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        before: &Router,
        next: &mut Router,
        asked: Option<&GatewayAsked>,
    ) -> Result<()> {
        let wanted = asked.map(|asked| Ok((asked, self.external_asked(caller, asked)?))).transpose()?;
        let port = before.gateway.and_then(|g| self.get::<Port>(g.port));
        match (before.gateway, wanted) {
            (Some(old), Some((asked, network))) if old.network == network.record.meta.id => {
                next.gateway = Some(Gateway { snat: asked.snat.unwrap_or(old.snat), ..old });
                if let (Some(fixed), Some(port)) = (&asked.fixed, port) {
                    let mut moved = port.record.clone();
                    self.readdress(tx, caller, &mut moved, fixed)?;
                    refuse_many_outer(&moved)?;
                    if moved != port.record {
                        moved.meta.touch(self.now());
                        tx.update(&port, &moved);
                    }
                }
            }
            (_, wanted) => {
                if let Some(port) = port {
                    self.refuse_floating_through(before, None)?;
                    self.drop_port(tx, &port);
                }
                next.gateway = match wanted {
                    Some((asked, network)) => {
                        Some(self.add_gateway(tx, caller, before, &network.record, asked)?)
                    }
                    None => None,
                };
            }
        }
        Ok(())
    }

    /// Sets the extra routes: each leads to a neighbour in a subnet that the router joins, or outside.
    fn set_routes(&self, router: &mut Router, routes: &[HostRoute]) -> Result<()> {
        if routes.len() > ROUTER_LIST_MAX {
            let message = format!("a router has at most {ROUTER_LIST_MAX} extra routes");
            return Err(Error::new(Code::TooLarge, message).field("routes"));
        }
        if let Some(bad) = routes.iter().find(|r| r.destination.addr().is_ipv4() != r.next_hop.is_ipv4()) {
            let message =
                format!("the route to {} leads through {}, another family", bad.destination, bad.next_hop);
            return Err(Error::invalid("routes", message));
        }
        let inside = router.interfaces.iter().filter_map(|i| self.subnet(i.subnet));
        let outside = router.gateway.iter().flat_map(|g| self.subnets_of(g.network));
        let near: Vec<_> = inside.chain(outside).map(|subnet| subnet.record.cidr).collect();
        for route in routes {
            if !near.iter().any(|cidr| cidr.contains(&route.next_hop)) {
                let message = format!(
                    "the route to {} leads through {}, which is in no subnet that router {} joins",
                    route.destination, route.next_hop, router.meta.name
                );
                return Err(Error::invalid("routes", message).hint("join its subnet first"));
            }
        }
        router.routes = routes.to_vec();
        Ok(())
    }

    fn refuse_floating_through(&self, router: &Router, subnet: Option<&Subnet>) -> Result<()> {
        for floating in self.store.list::<model::floating_ip::FloatingIp>() {
            let Some(target) = floating.record.target else {
                continue;
            };
            let inside = subnet.is_none_or(|s| s.cidr.contains(&target.address));
            if target.router == router.meta.id && inside {
                if floating.record.internal {
                    let ports = self.ports_of(&[target.port]);
                    let name = ports
                        .first()
                        .and_then(|p| self.get::<model::instance::Instance>(p.instance()?))
                        .map_or_else(|| target.port.to_string(), |i| i.record.meta.name.to_string());
                    let message = format!(
                        "published ports of instance {name} lead through router {}",
                        router.meta.name
                    );
                    return Err(Error::new(Code::InUse, message)
                        .hint(format!("`holm unpublish {name} --all` takes them back")));
                }
                let message = format!(
                    "floating IP {} leads through router {}",
                    floating.record.address, router.meta.name
                );
                return Err(Error::new(Code::InUse, message).hint("detach the floating IP first"));
            }
        }
        Ok(())
    }

    /// Removes a router. With `force` its interfaces go along; else it must have none.
    ///
    /// # Errors
    /// `in_use`, `not_found`, `forbidden`.
    pub async fn delete_router(&self, caller: &Caller, reference: &str, force: bool) -> Result<()> {
        self.transact(|tx| {
            let found = self.find_own::<Router>(caller, reference, "deleting a router")?;
            let router = &found.record;
            if !force && !router.interfaces.is_empty() {
                let message =
                    format!("router {} still joins {} subnets", router.meta.name, router.interfaces.len());
                return Err(Error::new(Code::InUse, message).hint("remove its interfaces first"));
            }
            self.refuse_floating_through(router, None)?;
            let ports = router.interfaces.iter().map(|i| i.port).chain(router.gateway.map(|g| g.port));
            for port in ports.filter_map(|id| self.get::<Port>(id)) {
                self.drop_port(tx, &port);
            }
            self.charge(tx, router.meta.project, &[(Resource::Routers, -1)]);
            tx.delete(&found);
            Ok(())
        })
        .await
    }
}

/// An outer side uses one address of each family: further ones would only be kept from others, beside every quota.
pub(crate) fn refuse_many_outer(port: &Port) -> Result<()> {
    for (v4, family) in [(true, "IPv4"), (false, "IPv6")] {
        let count = port.addresses.iter().filter(|fixed| fixed.address.is_ipv4() == v4).count();
        if count > 1 {
            let message = format!("{count} outer addresses of {family}: a router has one of each family");
            return Err(Error::invalid("addresses", message)
                .hint("name one; further ones are floating IPs (`holm floating-ip create`)"));
        }
    }
    Ok(())
}
