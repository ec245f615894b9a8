//! Floating IPs: taken from an external network, led to a port, moved while everything runs.

use crate::{
    Caller, Control, Error, Result, Role,
    schema::{FLOATING_BY_NETWORK, FLOATING_BY_PORT, ROUTER_BY_SUBNET},
    transact::Transaction,
};
use model::{
    error::Code,
    floating_ip::{FloatingIp, Target},
    id::{FloatingIpId, PortId},
    instance::Instance,
    meta::{Labels, Meta},
    name::Name,
    network::Network,
    port::Port,
    quota::Resource,
    router::Router,
    security_group::Family,
    subnet::Subnet,
};
use std::{net::IpAddr, sync::Arc};
use store::Stored;

/// A floating IP to be taken.
#[derive(Debug, Clone, Default)]
pub struct NewFloatingIp {
    /// External network; the default one when `None`.
    pub network: Option<String>,
    /// This very address.
    pub address: Option<IpAddr>,
    /// Address family; that of `address`, else IPv4 where the network has it, when `None`.
    pub family: Option<Family>,
    /// Name; the address when `None`.
    pub name: Option<String>,
    /// Free text.
    pub description: String,
    /// Labels.
    pub labels: Labels,
    /// Where it leads.
    pub target: Option<TargetAsked>,
}

/// Where a floating IP shall lead.
#[derive(Debug, Clone)]
pub enum TargetAsked {
    /// An instance's first address that a router can translate.
    Instance(String),
    /// A port, and which of its addresses.
    Port(String, Option<IpAddr>),
}

impl Control {
    /// Takes a floating IP and, if asked, leads it somewhere.
    ///
    /// # Errors
    /// `no_capacity` when the external network is full, `taken`, `not_found`, `quota_exceeded`, `conflict` if no router
    /// joins the target with the external network.
    pub async fn create_floating_ip(&self, caller: &Caller, new: NewFloatingIp) -> Result<FloatingIp> {
        caller.require(Role::Member, "taking a floating IP")?;
        let id = FloatingIpId::from_random(rand::random());
        self.transact(|tx| self.add_floating_ip(tx, caller, id, &new)).await
    }

    pub(crate) fn add_floating_ip(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        id: FloatingIpId,
        new: &NewFloatingIp,
    ) -> Result<FloatingIp> {
        let mut floating = self.draft_floating(tx, caller, id, new)?;
        if let Some(asked) = &new.target {
            let target = self.target_asked(caller, &floating, asked)?;
            self.refuse_second_floating(&floating, target)?;
            floating.target = Some(target);
            self.settle_floating(tx, &floating, Some(&floating))?;
        }
        tx.create(&floating);
        Ok(floating)
    }

    /// Takes address and quota of a floating IP that leads nowhere yet, without adding its record.
    pub(crate) fn draft_floating(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        id: FloatingIpId,
        new: &NewFloatingIp,
    ) -> Result<FloatingIp> {
        let network = match &new.network {
            Some(reference) => self.find_for::<Network>(caller, "network", reference)?,
            None => self.default_external().ok_or_else(|| {
                Error::new(Code::NotFound, "there is no default external network")
                    .field("network")
                    .hint("an admin makes one with `holm network create NAME --external --default`")
            })?,
        };
        if network.record.external().is_none() {
            let message = format!("{} is not an external network", network.record.meta.name);
            return Err(Error::invalid("network", message).hint("`holm network list --external` shows those"));
        }
        let address = self.floating_address(tx, &network.record, new.address, new.family)?;
        tx.claim_address(network.record.meta.id, address, &id.to_string());
        self.charge(tx, caller.project, &[(Resource::FloatingIps, 1)]);
        let name = new.name.clone().unwrap_or_else(|| address.to_string());
        let name: Name = name.parse().map_err(|e| Error::invalid("name", e))?;
        let mut meta = Meta::new(id, caller.project, name, self.now());
        meta.description.clone_from(&new.description);
        meta.labels.clone_from(&new.labels);
        Ok(FloatingIp { meta, network: network.record.meta.id, address, target: None, internal: false })
    }

    pub(crate) fn floating_address(
        &self,
        tx: &Transaction,
        network: &Network,
        asked: Option<IpAddr>,
        family: Option<Family>,
    ) -> Result<IpAddr> {
        let subnets = self.subnets_of(network.meta.id);
        if let Some(address) = asked {
            if family.is_some_and(|family| family != Family::of(address)) {
                let message = format!("{address} is not an address of the family asked for");
                return Err(Error::invalid("family", message).hint("name the address or the family"));
            }
            let inside = subnets.iter().any(|s| s.record.is_usable(address));
            if !inside {
                let message = format!("{address} is in no subnet of {}", network.meta.name);
                return Err(Error::invalid("address", message));
            }
            if self.taken_addresses(network.meta.id).contains(&address) {
                return Err(Error::new(Code::Taken, format!("{address} is in use")).field("address"));
            }
            return Ok(address);
        }
        // IPv4 comes first, as subnets are in that order.
        let fits = |s: &Arc<Stored<Subnet>>| family.is_none_or(|f| f == Family::of(s.record.cidr.addr()));
        let Some(subnet) = subnets.into_iter().find(fits) else {
            let word = match family {
                Some(Family::Ipv4) => "IPv4 ",
                Some(Family::Ipv6) => "IPv6 ",
                None => "",
            };
            let message = format!("external network {} has no {word}subnet", network.meta.name);
            return Err(Error::new(Code::NoCapacity, message).field("family").hint(format!(
                "an admin adds one with `holm subnet create NAME --network {} --cidr CIDR`",
                network.meta.name
            )));
        };
        self.free_address(tx, &subnet.record).map_err(|_| {
            let all = self.store.by_index(&FLOATING_BY_NETWORK, &network.meta.id.to_string());
            let taken = all.iter().filter(|f| subnet.record.cidr.contains(&f.record.address)).count();
            let (name, cidr) = (&network.meta.name, subnet.record.cidr);
            let message = format!("all {taken} floating IPs of {name} ({cidr}) are taken");
            Error::new(Code::NoCapacity, message)
                .field("network")
                .hint("release one (`holm floating-ip list`), or ask an admin for a larger external network")
        })
    }

    /// The target that a request describes, with the router that translates.
    pub(crate) fn target_asked(
        &self,
        caller: &Caller,
        floating: &FloatingIp,
        asked: &TargetAsked,
    ) -> Result<Target> {
        let (ports, wanted) = match asked {
            TargetAsked::Instance(reference) => {
                let instance = self.find_for::<Instance>(caller, "instance", reference)?;
                (self.ports_of(&instance.record.ports), None)
            }
            TargetAsked::Port(reference, address) => {
                (vec![self.find_for::<Port>(caller, "port", reference)?.record.clone()], *address)
            }
        };
        self.target_among(floating, &ports, wanted)
    }

    /// The first address of the ports that a router joins with the floating IP's network.
    pub(crate) fn target_among(
        &self,
        floating: &FloatingIp,
        ports: &[Port],
        wanted: Option<IpAddr>,
    ) -> Result<Target> {
        for port in ports {
            for fixed in &port.addresses {
                if fixed.address.is_ipv4() != floating.address.is_ipv4()
                    || wanted.is_some_and(|w| w != fixed.address)
                {
                    continue;
                }
                let routers = self.store.by_index(&ROUTER_BY_SUBNET, &fixed.subnet.to_string());
                let joins = |r: &Router| r.gateway.is_some_and(|g| g.network == floating.network);
                if let Some(router) = routers.iter().find(|r| joins(&r.record)) {
                    let router = router.record.meta.id;
                    return Ok(Target { port: port.meta.id, address: fixed.address, router });
                }
            }
        }
        Err(Error::new(
            Code::Conflict,
            "no router joins the target's subnet with the floating IP's external network",
        )
        .field("target")
        .hint("`holm router show` tells what a router joins; `holm router add-subnet` joins one"))
    }

    /// Leads a floating IP somewhere else, or nowhere. Moving takes it from where it leads now.
    ///
    /// # Errors
    /// `not_found`, `conflict` if no router can translate or the target has another floating IP, `forbidden`.
    pub async fn set_floating_ip_target(
        &self,
        caller: &Caller,
        reference: &str,
        asked: Option<&TargetAsked>,
    ) -> Result<FloatingIp> {
        self.update_floating_ip(caller, reference, Some(asked), |_| Ok(())).await
    }

    /// Changes a floating IP: where it leads (`Some(None)`: nowhere), and what `edit` changes, in one transaction.
    ///
    /// # Errors
    /// As [`Self::set_floating_ip_target`], `taken`, and what `edit` refuses.
    pub async fn update_floating_ip(
        &self,
        caller: &Caller,
        reference: &str,
        target: Option<Option<&TargetAsked>>,
        edit: impl Fn(&mut FloatingIp) -> Result<()>,
    ) -> Result<FloatingIp> {
        self.transact(|tx| {
            let found = self.find_floating(caller, reference)?;
            let mut next = found.record.clone();
            if let Some(asked) = target {
                next.target = asked.map(|asked| self.target_asked(caller, &next, asked)).transpose()?;
                if let Some(target) = next.target {
                    self.refuse_second_floating(&next, target)?;
                }
                self.settle_floating(tx, &found.record, Some(&next))?;
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

    /// Floating IPs that lead to a port, internal ones too.
    pub fn floating_of(&self, port: PortId) -> Vec<Arc<Stored<FloatingIp>>> {
        self.store.by_index(&FLOATING_BY_PORT, &port.to_string())
    }

    fn refuse_second_floating(&self, floating: &FloatingIp, target: Target) -> Result<()> {
        let all = self.floating_of(target.port);
        let same = |f: &FloatingIp| {
            f.meta.id != floating.meta.id
                && !f.internal
                && f.network == floating.network
                && f.target.is_some_and(|t| t.address == target.address)
        };
        match all.iter().find(|f| same(&f.record)) {
            None => Ok(()),
            Some(other) => {
                let message = format!("{} has floating IP {} already", target.address, other.record.address);
                Err(Error::new(Code::Conflict, message).field("target").hint("detach that one first"))
            }
        }
    }

    /// Finds a floating IP by address, name or id, to change it.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub fn find_floating(&self, caller: &Caller, reference: &str) -> Result<Arc<Stored<FloatingIp>>> {
        if let Ok(address) = reference.parse::<IpAddr>() {
            let all = self.list::<FloatingIp>(caller);
            if let Some(found) = all.into_iter().find(|f| f.record.address == address) {
                caller.require(Role::Member, "changing a floating IP")?;
                return Ok(found);
            }
        }
        self.find_own::<FloatingIp>(caller, reference, "changing a floating IP")
    }

    /// Gives a floating IP back; it leads nowhere at once.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn delete_floating_ip(&self, caller: &Caller, reference: &str) -> Result<()> {
        self.transact(|tx| {
            let found = self.find_floating(caller, reference)?;
            let record = &found.record;
            tx.release_address(record.network, record.address, &record.meta.id.to_string());
            self.charge(tx, record.meta.project, &[(Resource::FloatingIps, -1)]);
            self.settle_floating(tx, record, None)?;
            tx.delete(&found);
            Ok(())
        })
        .await
    }
}
