//! Ports: places in networks, with MAC and addresses that stay for life.

use crate::{
    Caller, Control, Error, Result, Role,
    schema::{FLOATING_BY_NETWORK, PORT_BY_DEVICE, device_key},
    transact::Transaction,
};
use model::{
    address::Mac,
    error::Code,
    floating_ip::FloatingIp,
    id::{InstanceId, NetworkId, PortId, ProjectId, SecurityGroupId, SubnetId},
    instance::tag::Tag,
    meta::{Labels, Meta},
    name::Name,
    network::Network,
    port::{
        ADDRESS_PAIRS_MAX, AddressPair, Device, FOREIGN_USER_CHARS_MAX, FixedIp, ForeignUser,
        PORT_ADDRESSES_MAX, Port, RATE_MBIT,
        alias::{ALIASES_MAX, Alias, distinct},
        spread::Spread,
    },
    quota::Resource,
    router::{Interface, Router},
    security_group::{GROUPS_PER_PORT_MAX, SecurityGroup},
    subnet::Subnet,
};
use std::{collections::HashSet, net::IpAddr, sync::Arc};
use store::Stored;

/// An address that is asked for: a subnet to take it from, or the very address, or both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FixedAsked {
    /// Subnet.
    pub subnet: Option<String>,
    /// Address; a free one of the subnet when `None`.
    pub address: Option<IpAddr>,
}

impl FixedAsked {
    /// The list that a caller means who may name one subnet or address: nothing named is left to the network.
    pub fn one(subnet: Option<String>, address: Option<IpAddr>) -> Option<Vec<Self>> {
        (subnet.is_some() || address.is_some()).then(|| vec![Self { subnet, address }])
    }
}

/// A port to be made.
#[derive(Debug, Clone)]
pub struct NewPort {
    /// Name; made from the id when empty.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Labels.
    pub labels: Labels,
    /// Network; the project's own when `None`.
    pub network: Option<String>,
    /// Addresses; when `None` one of each family, and one of every subnet whose addresses follow from the MAC.
    pub fixed: Option<Vec<FixedAsked>>,
    /// MAC address; chosen when `None`.
    pub mac: Option<Mac>,
    /// Groups; the project's default group when `None`.
    pub security_groups: Option<Vec<String>>,
    /// Whether groups and anti-spoof apply; the network says when `None`.
    pub port_security: Option<bool>,
    /// Further senders behind the port.
    pub allowed_pairs: Vec<AddressPair>,
    /// Passes packets.
    pub admin_up: bool,
    /// Most Mbit/s in each direction.
    pub rate_mbit: Option<u32>,
    /// Who uses it by the client's word.
    pub foreign_user: Option<ForeignUser>,
    /// A word that tells it from its instance's other interfaces.
    pub device_tag: Option<Tag>,
    /// Further names by which it is found in its network; those that are there twice are had once.
    pub aliases: Vec<Alias>,
    /// What comes to its addresses goes on to others.
    pub spread: Option<Spread>,
}

impl Default for NewPort {
    fn default() -> Self {
        Self {
            name: String::new(),
            description: String::new(),
            labels: Labels::new(),
            network: None,
            fixed: None,
            mac: None,
            security_groups: None,
            port_security: None,
            allowed_pairs: vec![],
            admin_up: true,
            rate_mbit: None,
            foreign_user: None,
            device_tag: None,
            aliases: vec![],
            spread: None,
        }
    }
}

/// What a change of a port may need others for.
#[derive(Debug, Clone, Default)]
pub struct PortChange {
    /// Addresses, all of them. Those that stay are kept.
    pub fixed: Option<Vec<FixedAsked>>,
    /// Groups, all of them.
    pub security_groups: Option<Vec<String>>,
    /// Ethernet address; not while an instance has the port.
    pub mac: Option<Mac>,
}

/// A port inside a transaction, fully decided but for its addresses.
pub(crate) struct PortDraft<'a> {
    /// Identity.
    pub id: PortId,
    /// Name; made from the id when `None`.
    pub name: Option<Name>,
    /// Owner.
    pub project: ProjectId,
    /// Network.
    pub network: &'a Network,
    /// Addresses that it shall have; the network's choice when `None`.
    pub fixed: Option<&'a [FixedAsked]>,
    /// MAC, chosen when `None`.
    pub mac: Option<Mac>,
    /// Groups.
    pub security_groups: Vec<SecurityGroupId>,
    /// Whether they apply.
    pub port_security: bool,
    /// Further senders.
    pub allowed_pairs: Vec<AddressPair>,
    /// Who uses it.
    pub device: Device,
    /// It goes with its instance.
    pub delete_with_instance: bool,
}

impl<'a> PortDraft<'a> {
    /// A router's port: it filters nothing, the router does.
    pub(crate) fn of_router(id: PortId, router: &Router, network: &'a Network, device: Device) -> Self {
        Self {
            id,
            name: None,
            project: router.meta.project,
            network,
            fixed: None,
            mac: None,
            security_groups: vec![],
            port_security: false,
            allowed_pairs: vec![],
            device,
            delete_with_instance: false,
        }
    }
}

impl Control {
    /// Makes a port that no instance uses yet.
    ///
    /// # Errors
    /// `invalid`, `taken` for an address or MAC in use, `not_found`, `quota_exceeded`, `no_capacity` when the subnet
    /// is full.
    pub async fn create_port(&self, caller: &Caller, new: NewPort) -> Result<Port> {
        let mut made = self.create_ports(caller, &[new]).await?;
        Ok(made.swap_remove(0))
    }

    /// Makes several ports, or none.
    ///
    /// # Errors
    /// As [`Self::create_port`].
    pub async fn create_ports(&self, caller: &Caller, new: &[NewPort]) -> Result<Vec<Port>> {
        caller.require(Role::Member, "creating a port")?;
        let ids: Vec<PortId> = new.iter().map(|_| PortId::from_random(rand::random())).collect();
        self.transact(|tx| {
            let each = new.iter().zip(&ids);
            each.map(|(new, id)| self.add_asked_port(tx, caller, *id, new, Device::None, false)).collect()
        })
        .await
    }

    /// Adds the port that a request describes to a transaction.
    pub(crate) fn add_asked_port(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        id: PortId,
        new: &NewPort,
        device: Device,
        delete_with_instance: bool,
    ) -> Result<Port> {
        let network = match &new.network {
            Some(reference) => self.find_for::<Network>(caller, "network", reference)?,
            None => self.own_network(caller)?,
        };
        if network.record.external().is_some() {
            return Err(Error::invalid(
                "network",
                format!("{} is an external network: instances join private ones", network.record.meta.name),
            )
            .hint("give the instance a floating IP of it instead"));
        }
        let port_security = new.port_security.unwrap_or(network.record.port_security);
        refuse_owners_wishes(
            caller,
            &network.record,
            [
                ("mac", "choosing a MAC", new.mac.is_some()),
                ("addresses", "choosing an address", names_address(new.fixed.as_deref(), &[])),
                ("port_security", OFF, !port_security && network.record.port_security),
                ("allowed_pairs", PAIRS, !new.allowed_pairs.is_empty()),
            ],
        )?;
        let security_groups = match (&new.security_groups, port_security) {
            (None, false) => vec![],
            (None, true) => vec![self.default_group_of(tx, caller.project)],
            (Some(names), _) => self.groups_asked(caller, names)?,
        };
        let name = match new.name.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|e| Error::invalid("name", e))?),
        };
        let draft = PortDraft {
            id,
            name,
            project: caller.project,
            network: &network.record,
            fixed: new.fixed.as_deref(),
            mac: new.mac,
            security_groups,
            port_security,
            allowed_pairs: new.allowed_pairs.clone(),
            device,
            delete_with_instance,
        };
        self.add_port(tx, caller, draft, |port| {
            port.meta.description.clone_from(&new.description);
            port.meta.labels.clone_from(&new.labels);
            port.admin_up = new.admin_up;
            port.rate_mbit = new.rate_mbit;
            port.foreign_user.clone_from(&new.foreign_user);
            port.device_tag.clone_from(&new.device_tag);
            port.aliases.clone_from(&new.aliases);
            port.spread.clone_from(&new.spread);
        })
    }

    /// Adds a port to a transaction: takes its addresses, its MAC and its place in the quota. `dress` says what is
    /// decided by nobody else.
    pub(crate) fn add_port(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        draft: PortDraft<'_>,
        dress: impl Fn(&mut Port),
    ) -> Result<Port> {
        let name = draft.name.unwrap_or_else(|| Name::made_up("port", &draft.id.short()));
        let network = draft.network.meta.id;
        let mut port = Port {
            meta: Meta::new(draft.id, draft.project, name, self.now()),
            network,
            mac: draft.mac.unwrap_or_else(|| Mac::from_random(rand::random())),
            addresses: vec![],
            device: draft.device,
            security_groups: draft.security_groups,
            port_security: draft.port_security,
            allowed_pairs: draft.allowed_pairs,
            admin_up: true,
            rate_mbit: None,
            foreign_user: None,
            delete_with_instance: draft.delete_with_instance,
            device_tag: None,
            aliases: vec![],
            spread: None,
        };
        port.addresses = match draft.fixed {
            Some(asked) => self.addresses_asked(tx, caller, &port, asked)?,
            None => self.addresses_by_network(tx, &port)?,
        };
        let owner = draft.id.to_string();
        for fixed in &port.addresses {
            tx.claim_address(network, fixed.address, &owner);
        }
        tx.claim(&format!("mac/{network}"), &port.mac.to_string(), &owner);
        if !is_routers(port.device) {
            self.charge(tx, draft.project, &[(Resource::Ports, 1)]);
        }
        dress(&mut port);
        port.aliases = distinct(port.aliases);
        check_port(&port)?;
        stand_in_network(tx, &port);
        stand_on_groups(tx, &port);
        tx.create(&port);
        Ok(port)
    }

    /// Addresses of a network that ports or floating IPs have.
    pub fn taken_addresses(&self, network: NetworkId) -> HashSet<IpAddr> {
        let ports = self.ports_of_network(network);
        let floating = self.store.by_index(&FLOATING_BY_NETWORK, &network.to_string());
        ports
            .iter()
            .flat_map(|p| p.record.addresses.iter().map(|a| a.address))
            .chain(floating.iter().map(|f| f.record.address))
            .collect()
    }

    /// What a network gives a port that names nothing: an address of one subnet of each family, and of each subnet whose
    /// addresses follow from the MAC. A full subnet leaves its place to the next one of its family.
    fn addresses_by_network(&self, tx: &Transaction, port: &Port) -> Result<Vec<FixedIp>> {
        let subnets = self.subnets_of(port.network);
        let mut chosen = vec![];
        for v6 in [false, true] {
            let of_family = || subnets.iter().filter(|s| s.record.cidr.addr().is_ipv6() == v6);
            let mut refusal = None;
            for subnet in of_family().filter(|s| !s.record.is_automatic()) {
                match self.choose_address(tx, port, &subnet.record, &[]) {
                    Ok(fixed) => {
                        chosen.push(fixed);
                        refusal = None;
                        break;
                    }
                    Err(error) => refusal = refusal.or(Some(error)),
                }
            }
            if let Some(error) = refusal {
                return Err(error);
            }
            for subnet in of_family().filter(|s| s.record.is_automatic()) {
                chosen.push(self.choose_address(tx, port, &subnet.record, &[])?);
            }
        }
        Ok(chosen)
    }

    /// A free address of a subnet, or one that the port has already and that is not among `used`.
    fn choose_address(
        &self,
        tx: &Transaction,
        port: &Port,
        subnet: &Subnet,
        used: &[FixedIp],
    ) -> Result<FixedIp> {
        let id = subnet.meta.id;
        let is_used = |address: IpAddr| used.iter().any(|fixed| fixed.address == address);
        if let Some(kept) = port.addresses.iter().find(|f| f.subnet == id && !is_used(f.address)) {
            return Ok(*kept);
        }
        let taken = self.taken_addresses(subnet.network);
        let random = rand::random::<u32>();
        let in_use = |a: IpAddr| taken.contains(&a) || tx.takes_address(subnet.network, a) || is_used(a);
        match subnet.free_address(port.mac, u64::from(random), in_use) {
            Some(address) => Ok(FixedIp { subnet: id, address }),
            None => Err(full(subnet)),
        }
    }

    /// One free address of a subnet, for what is no port.
    pub(crate) fn free_address(&self, tx: &Transaction, subnet: &Subnet) -> Result<IpAddr> {
        let taken = self.taken_addresses(subnet.network);
        let in_use = |a: IpAddr| taken.contains(&a) || tx.takes_address(subnet.network, a);
        let mac = Mac::from_random(rand::random());
        let random = rand::random::<u32>();
        subnet.free_address(mac, u64::from(random), in_use).ok_or_else(|| full(subnet))
    }

    /// The addresses that a request names, for a new port or one that changes.
    pub(crate) fn addresses_asked(
        &self,
        tx: &Transaction,
        caller: &Caller,
        port: &Port,
        asked: &[FixedAsked],
    ) -> Result<Vec<FixedIp>> {
        if asked.len() > PORT_ADDRESSES_MAX {
            let message = format!("a port has at most {PORT_ADDRESSES_MAX} addresses");
            return Err(Error::new(Code::TooLarge, message).field("addresses"));
        }
        let subnets = self.subnets_of(port.network);
        let mut chosen: Vec<FixedIp> = vec![];
        // Addresses that are named come first, so that none of them is chosen for a subnet that is named.
        let (named, free): (Vec<&FixedAsked>, Vec<_>) = asked.iter().partition(|f| f.address.is_some());
        for fixed in named.into_iter().chain(free) {
            let subnet = match &fixed.subnet {
                Some(reference) => Some(self.subnet_of_port(caller, port, &subnets, reference)?),
                None => None,
            };
            let next = match (subnet, fixed.address) {
                (subnet, Some(address)) => self.check_address(tx, port, &subnets, subnet, address)?,
                (Some(subnet), None) => self.choose_address(tx, port, &subnet.record, &chosen)?,
                (None, None) => {
                    return Err(Error::invalid("addresses", "an address is a subnet, an address or both"));
                }
            };
            if chosen.contains(&next) {
                let message = format!("{} is named twice", next.address);
                return Err(Error::invalid("addresses", message));
            }
            chosen.push(next);
        }
        // In the order of the request, as far as that can be told.
        let place = |fixed: &FixedIp| {
            asked.iter().position(|a| a.address == Some(fixed.address)).unwrap_or(asked.len())
        };
        chosen.sort_by_key(place);
        Ok(chosen)
    }

    fn subnet_of_port(
        &self,
        caller: &Caller,
        port: &Port,
        subnets: &[Arc<Stored<Subnet>>],
        reference: &str,
    ) -> Result<Arc<Stored<Subnet>>> {
        // Subnets of a shared network belong to somebody else.
        if let Some(found) = subnets.iter().find(|s| s.record.meta.id.to_string() == reference) {
            return Ok(Arc::clone(found));
        }
        let subnet = self.find_for::<Subnet>(caller, "subnet", reference)?;
        if subnet.record.network != port.network {
            let network = self.get::<Network>(port.network).map(|n| n.record.meta.name.to_string());
            let message = format!(
                "subnet {} is not in network {}",
                subnet.record.meta.name,
                network.unwrap_or_else(|| port.network.to_string())
            );
            return Err(Error::invalid("subnet", message));
        }
        Ok(subnet)
    }

    fn check_address(
        &self,
        tx: &Transaction,
        port: &Port,
        subnets: &[Arc<Stored<Subnet>>],
        subnet: Option<Arc<Stored<Subnet>>>,
        address: IpAddr,
    ) -> Result<FixedIp> {
        let fits = |s: &&Arc<Stored<Subnet>>| s.record.cidr.contains(&address);
        let Some(subnet) =
            subnet.as_ref().map_or_else(|| subnets.iter().find(fits), |s| Some(s).filter(fits))
        else {
            let ranges: Vec<String> = subnets.iter().map(|s| s.record.cidr.to_string()).collect();
            let message = format!("{address} is in no subnet of the network, or not in the one named");
            return Err(
                Error::invalid("address", message).hint(format!("its subnets are {}", ranges.join(", ")))
            );
        };
        let record = &subnet.record;
        let fixed = FixedIp { subnet: record.meta.id, address };
        if port.addresses.contains(&fixed) {
            return Ok(fixed);
        }
        // A router that is not there yet may be given the gateway's address by a port; an instance never has it.
        let is_gateway = record.gateway == Some(address) && port.instance().is_none();
        if !record.is_usable(address) && !is_gateway {
            let message =
                format!("{address} is the network, broadcast or gateway address of {}", record.cidr);
            return Err(Error::invalid("address", message));
        }
        let automatic = record.free_address(port.mac, 0, |_| false);
        if record.is_automatic() && automatic != Some(address) && !is_routers(port.device) {
            let message = format!("addresses of {} follow from the MAC: {address} does not", record.cidr);
            return Err(Error::invalid("address", message).hint("name the subnet alone"));
        }
        if self.taken_addresses(port.network).contains(&address) || tx.takes_address(port.network, address) {
            return Err(Error::new(Code::Taken, format!("{address} is in use")).field("address"));
        }
        Ok(fixed)
    }

    /// Gives a port other addresses in a transaction that updates its record: those that stay are kept.
    pub(crate) fn readdress(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        port: &mut Port,
        asked: &[FixedAsked],
    ) -> Result<()> {
        let next = self.addresses_asked(tx, caller, port, asked)?;
        let owner = port.meta.id.to_string();
        for fixed in port.addresses.iter().filter(|fixed| !next.contains(fixed)) {
            self.refuse_led_to(port, fixed.address)?;
            tx.release_address(port.network, fixed.address, &owner);
        }
        for fixed in next.iter().filter(|fixed| !port.addresses.contains(fixed)) {
            tx.claim_address(port.network, fixed.address, &owner);
        }
        port.addresses = next;
        Ok(())
    }

    fn refuse_led_to(&self, port: &Port, address: IpAddr) -> Result<()> {
        let all = self.floating_of(port.meta.id);
        let leads = |f: &FloatingIp| f.target.is_some_and(|t| t.address == address);
        match all.iter().find(|f| leads(&f.record)) {
            None => Ok(()),
            Some(floating) => {
                let message = format!("floating IP {} leads to {address}", floating.record.address);
                Err(Error::new(Code::InUse, message).field("addresses").hint("detach it first"))
            }
        }
    }

    /// Takes the addresses of a subnet that goes from a router's port, and the port with its last one.
    pub(crate) fn drop_addresses_in(&self, tx: &mut Transaction, port: &Stored<Port>, subnet: SubnetId) {
        let mut next = port.record.clone();
        next.addresses.retain(|fixed| fixed.subnet != subnet);
        if next.addresses.is_empty() {
            return self.drop_port(tx, port);
        }
        let owner = next.meta.id.to_string();
        for fixed in port.record.addresses.iter().filter(|fixed| fixed.subnet == subnet) {
            tx.release_address(next.network, fixed.address, &owner);
        }
        next.meta.touch(self.now());
        tx.update(port, &next);
    }

    /// Refuses changes of a port that only the owner of its network may make.
    fn refuse_owners_changes(
        &self,
        caller: &Caller,
        before: &Port,
        next: &Port,
        change: &PortChange,
    ) -> Result<()> {
        let Some(network) = self.get::<Network>(before.network) else { return Ok(()) };
        let is_new = |pair: &AddressPair| !before.allowed_pairs.contains(pair);
        let off = before.port_security && !next.port_security && network.record.port_security;
        refuse_owners_wishes(
            caller,
            &network.record,
            [
                ("mac", "choosing a MAC", next.mac != before.mac),
                (
                    "addresses",
                    "choosing an address",
                    names_address(change.fixed.as_deref(), &before.addresses),
                ),
                ("port_security", OFF, off),
                ("allowed_pairs", PAIRS, next.allowed_pairs.iter().any(is_new)),
            ],
        )
    }

    /// Changes a port; what runs feels it at once, but for addresses, which its guest is told when it asks again.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `invalid`, `taken`, `too_large`, `in_use` for what something holds on to, and what
    /// `edit` refuses.
    pub async fn update_port(
        &self,
        caller: &Caller,
        reference: &str,
        change: &PortChange,
        edit: impl Fn(&mut Port) -> Result<()>,
    ) -> Result<Port> {
        self.transact(|tx| {
            let found = self.find_own::<Port>(caller, reference, "changing a port")?;
            let mut next = found.record.clone();
            if let Some(names) = &change.security_groups {
                let owner = Caller { project: next.meta.project, ..caller.clone() };
                next.security_groups = self.groups_asked(&owner, names)?;
            }
            if let Some(mac) = change.mac.filter(|mac| *mac != next.mac) {
                self.change_mac(tx, &mut next, mac)?;
            }
            if let Some(asked) = &change.fixed {
                self.readdress(tx, caller, &mut next, asked)?;
                self.follow_interface(tx, &next)?;
            }
            edit(&mut next)?;
            if next.addresses != found.record.addresses {
                stand_in_network(tx, &next);
            }
            if next.security_groups != found.record.security_groups {
                stand_on_groups(tx, &next);
            }
            next.aliases = distinct(next.aliases);
            self.refuse_owners_changes(caller, &found.record, &next, change)?;
            if matches!(next.device, Device::RouterGateway(_)) && change.fixed.is_some() {
                crate::router::refuse_many_outer(&next)?;
            }
            check_port(&next)?;
            if next != found.record {
                next.meta.touch(self.now());
                tx.update(&found, &next);
            }
            Ok(next)
        })
        .await
    }

    fn change_mac(&self, tx: &mut Transaction, port: &mut Port, mac: Mac) -> Result<()> {
        if port.device != Device::None {
            let message = format!("port {} is in use: its MAC stays", port.meta.name);
            return Err(Error::new(Code::InUse, message).field("mac").hint("detach it first"));
        }
        let (scope, owner) = (format!("mac/{}", port.network), port.meta.id.to_string());
        tx.release(&scope, &port.mac.to_string(), &owner);
        tx.claim(&scope, &mac.to_string(), &owner);
        port.mac = mac;
        Ok(())
    }

    /// A router joins the subnets in which its port has addresses.
    fn follow_interface(&self, tx: &mut Transaction, port: &Port) -> Result<()> {
        let Device::RouterInterface(id) = port.device else { return Ok(()) };
        let Some(router) = self.get::<Router>(id) else { return Ok(()) };
        let mut next = router.record.clone();
        next.interfaces.retain(|i| i.port != port.meta.id);
        for fixed in &port.addresses {
            if let Some(subnet) = self.subnet(fixed.subnet) {
                self.refuse_overlap_on_router(&next, &subnet.record)?;
            }
            next.interfaces.push(Interface {
                subnet: fixed.subnet,
                network: port.network,
                port: port.meta.id,
            });
        }
        next.meta.touch(self.now());
        tx.update(&router, &next);
        Ok(())
    }

    /// Removes a port that no instance and no router uses.
    ///
    /// # Errors
    /// `in_use`, `not_found`, `forbidden`.
    pub async fn delete_port(&self, caller: &Caller, reference: &str) -> Result<()> {
        self.transact(|tx| {
            let found = self.find_own::<Port>(caller, reference, "deleting a port")?;
            match found.record.device {
                Device::None => {
                    self.drop_port(tx, &found);
                    Ok(())
                }
                _ => Err(Error::new(Code::InUse, format!("port {} is in use", found.record.meta.name))
                    .hint("detach it from its instance or router first")),
            }
        })
        .await
    }

    /// Takes a port out in a transaction: record, addresses, MAC, count, and floating IPs that lead to it.
    pub(crate) fn drop_port(&self, tx: &mut Transaction, port: &Stored<Port>) {
        let record = &port.record;
        let owner = record.meta.id.to_string();
        for fixed in &record.addresses {
            tx.release_address(record.network, fixed.address, &owner);
        }
        tx.release(&format!("mac/{}", record.network), &record.mac.to_string(), &owner);
        if matches!(record.device, Device::None | Device::Instance(_)) {
            self.charge(tx, record.meta.project, &[(Resource::Ports, -1)]);
        }
        for floating in self.floating_of(record.meta.id) {
            if !floating.record.internal {
                let mut next = floating.record.clone();
                next.target = None;
                next.meta.touch(self.now());
                tx.update(&floating, &next);
            }
        }
        self.release_internal_of(tx, record.meta.id);
        tx.delete(port);
    }

    /// Ports of an instance in the order of its interfaces.
    pub fn ports_of(&self, ids: &[PortId]) -> Vec<Port> {
        ids.iter().filter_map(|id| self.get::<Port>(*id)).map(|p| p.record.clone()).collect()
    }

    /// Ports that say they belong to an instance, those being unplugged included.
    pub fn ports_of_instance(&self, instance: InstanceId) -> Vec<Arc<Stored<Port>>> {
        let mut all = self.ports_of_device(&instance.to_string());
        all.retain(|p| p.record.instance() == Some(instance));
        all
    }

    /// Ports that the thing with this id has, or says to use.
    pub fn ports_of_device(&self, id: &str) -> Vec<Arc<Stored<Port>>> {
        self.store.by_index(&PORT_BY_DEVICE, &device_key(id))
    }

    /// A subnet by id.
    pub fn subnet(&self, id: SubnetId) -> Option<Arc<Stored<Subnet>>> {
        self.get::<Subnet>(id)
    }
}

/// A port stands on its network. Its subnets are there as well, of which none goes while ports come to their network.
pub(crate) fn stand_in_network(tx: &mut Transaction, port: &Port) {
    tx.stand_on::<Network>(port.network);
    for fixed in &port.addresses {
        tx.expect_there::<Subnet>(fixed.subnet);
    }
}

fn stand_on_groups(tx: &mut Transaction, port: &Port) {
    for group in &port.security_groups {
        tx.stand_on::<SecurityGroup>(*group);
    }
}

/// Whether a router or floating IP has the port: such ports count in no quota.
fn is_routers(device: Device) -> bool {
    matches!(device, Device::RouterInterface(_) | Device::RouterGateway(_) | Device::FloatingIp)
}

const OFF: &str = "switching port security off";
const PAIRS: &str = "allowing further addresses";

/// Whether an address is named that is not among those that are `had`.
fn names_address(fixed: Option<&[FixedAsked]>, had: &[FixedIp]) -> bool {
    let mut named = fixed.into_iter().flatten().filter_map(|asked| asked.address);
    named.any(|address| had.iter().all(|fixed| fixed.address != address))
}

/// In a network that is shared, what a port says of itself concerns everybody there: who it speaks as, and whether
/// that is checked, is up to the network's own project and admins. Neutron's default policy (`network_owner`) says the
/// same of `mac_address`, `fixed_ips:ip_address`, `port_security_enabled` and `allowed_address_pairs`.
fn refuse_owners_wishes(caller: &Caller, network: &Network, wishes: [(&str, &str, bool); 4]) -> Result<()> {
    if caller.role >= Role::Admin || network.meta.project == caller.project {
        return Ok(());
    }
    match wishes.into_iter().find(|(_, _, is_wished)| *is_wished) {
        None => Ok(()),
        Some((field, what, _)) => {
            let name = &network.meta.name;
            let message = format!("{what} in network {name} is up to the project that shares it");
            Err(Error::new(Code::Forbidden, message)
                .field(field)
                .hint("leave that to the network, or ask its owner or an admin"))
        }
    }
}

fn check_port(port: &Port) -> Result<()> {
    let too_large = |what: &str, max: usize, field: &str| {
        Err(Error::new(Code::TooLarge, format!("a port has at most {max} {what}")).field(field))
    };
    if port.allowed_pairs.len() > ADDRESS_PAIRS_MAX {
        return too_large("allowed address pairs", ADDRESS_PAIRS_MAX, "allowed_pairs");
    }
    if port.security_groups.len() > GROUPS_PER_PORT_MAX {
        return too_large("security groups", GROUPS_PER_PORT_MAX, "security_groups");
    }
    if port.aliases.len() > ALIASES_MAX {
        return too_large("aliases", ALIASES_MAX, "aliases");
    }
    let texts = port.foreign_user.iter().flat_map(|user| [&user.kind, &user.id]);
    if texts.into_iter().any(|text| text.chars().count() > FOREIGN_USER_CHARS_MAX) {
        return too_large("characters in what uses it", FOREIGN_USER_CHARS_MAX, "foreign_user");
    }
    if let Some(rate) = port.rate_mbit.filter(|rate| !RATE_MBIT.contains(rate)) {
        let (least, most) = (RATE_MBIT.start(), RATE_MBIT.end());
        return Err(Error::invalid(
            "rate_mbit",
            format!("{rate} Mbit/s: a rate is {least} to {most} Mbit/s"),
        ));
    }
    let Some(spread) = &port.spread else { return Ok(()) };
    spread.check().map_err(|wrong| Error::invalid("spread", wrong))?;
    match port.device {
        Device::None => Ok(()),
        _ => {
            let message = format!("port {} is in use: what comes to it is its user's", port.meta.name);
            Err(Error::new(Code::InUse, message).field("spread").hint("make a port for it that nobody uses"))
        }
    }
}

/// Refuses a port for whoever wants to use it whose traffic goes on to others.
pub(crate) fn refuse_spread(port: &Port) -> Result<()> {
    match &port.spread {
        None => Ok(()),
        Some(spread) => {
            let message = format!("what comes to port {} goes on to {}", port.meta.name, spread.over);
            Err(Error::new(Code::InUse, message).field("port").hint("use another port"))
        }
    }
}

fn full(subnet: &Subnet) -> Error {
    let message = format!("subnet {} ({}) has no free address", subnet.meta.name, subnet.cidr);
    Error::new(Code::NoCapacity, message)
        .field("subnet")
        .hint("delete unused ports (`holm port list`), or make another subnet (`holm subnet create`)")
}
