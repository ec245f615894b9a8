//! Outside addresses for published ports: an instance that publishes and has no floating IP of a family is given an
//! address of the cloud's own, and it goes back when it is needed no more.
//!
//! Whatever changes what leads to an instance (publishing, attaching, moving and releasing floating IPs, ports that
//! come and go) settles this in its own transaction, on records that the commit expects unchanged.

use crate::{Control, Error, Result, schema::ROUTER_BY_SUBNET, transact::Transaction};
use model::{
    error::Code,
    floating_ip::{FloatingIp, Target},
    id::{FloatingIpId, InstanceId, PortId},
    instance::Instance,
    meta::Meta,
    network::Network,
    port::Port,
    record::Record,
    security_group::Family,
};
use std::{collections::BTreeSet, sync::Arc};
use store::Stored;

impl Control {
    /// Sees to it that an instance has the outside addresses that its published ports need, and no other internal
    /// ones. `ports` are the instance's after this transaction, `coming` and `leaving` the floating IPs that this
    /// transaction leads to it or takes away. The caller's transaction must update or expect the instance.
    ///
    /// # Errors
    /// With `must`: `conflict` when nothing leads to an instance that publishes, `no_capacity`.
    pub(crate) fn settle_outside(
        &self,
        tx: &mut Transaction,
        instance: &Instance,
        ports: &[Port],
        coming: &[FloatingIp],
        leaving: &[FloatingIpId],
        must: bool,
    ) -> Result<()> {
        let id = instance.meta.id;
        let mut own: BTreeSet<PortId> = ports.iter().map(|p| p.meta.id).collect();
        let leads = |f: &FloatingIp, to: &BTreeSet<PortId>| f.target.is_some_and(|t| to.contains(&t.port));
        let before: Vec<PortId> = self.ports_of_instance(id).iter().map(|p| p.record.meta.id).collect();
        let leading = own
            .union(&before.iter().copied().collect())
            .flat_map(|port| self.floating_of(*port))
            .collect::<Vec<_>>();
        let given: Vec<_> = leading
            .iter()
            .filter(|f| !f.record.internal && leads(&f.record, &own))
            .filter(|f| !leaving.contains(&f.record.meta.id))
            .filter(|f| coming.iter().all(|c| c.meta.id != f.record.meta.id))
            .collect();
        if !instance.publish.is_empty() {
            given.iter().for_each(|f| tx.expect(f));
        }
        let current = own.clone();
        own.extend(before);
        let mut reached = [false, false];
        for (slot, v4) in [(0, true), (1, false)] {
            let mut internal: Vec<_> = leading
                .iter()
                .filter(|f| f.record.internal && f.record.address.is_ipv4() == v4 && leads(&f.record, &own))
                .collect();
            let is_given = given.iter().map(|f| &f.record).chain(coming).any(|f| f.address.is_ipv4() == v4);
            let needed = instance.publish.iter().any(|p| p.is_for(v4)) && !instance.meta.is_deleting();
            reached[slot] = is_given;
            if needed && !is_given {
                let kept = internal.iter().position(|f| leads(&f.record, &current));
                reached[slot] = match kept {
                    Some(kept) => {
                        internal.remove(kept);
                        true
                    }
                    None => match self.add_internal(tx, instance, ports, v4) {
                        Err(error) if must => return Err(error),
                        outcome => outcome.unwrap_or(false),
                    },
                };
            }
            internal.iter().for_each(|f| release_internal(tx, f));
        }
        if must {
            self.refuse_unreachable(instance, reached)?;
        }
        Ok(())
    }

    fn refuse_unreachable(&self, instance: &Instance, reached: [bool; 2]) -> Result<()> {
        let cut_off = |p: &&model::publish::Publish| {
            !((reached[0] && p.is_for(true)) || (reached[1] && p.is_for(false)))
        };
        let Some(publish) = instance.publish.iter().find(cut_off) else {
            return Ok(());
        };
        let family = match publish.address {
            Some(address) if address.is_ipv6() => "IPv6",
            _ => "IPv4",
        };
        let message = format!(
            "{publish} cannot be published: no router joins an {family} address of {} with an external network",
            instance.meta.name
        );
        Err(Error::new(Code::Conflict, message).field("publish").hint(
            "give its network a way out (`holm router set ROUTER --external`), or publish on an address of the other family",
        ))
    }

    /// Takes an outside address of a family for an instance; `false` if no router leads there.
    fn add_internal(
        &self,
        tx: &mut Transaction,
        instance: &Instance,
        ports: &[Port],
        v4: bool,
    ) -> Result<bool> {
        let Some((target, network)) = self.way_in(ports, v4) else {
            return Ok(false);
        };
        let network = &network.record;
        let family = if v4 { Family::Ipv4 } else { Family::Ipv6 };
        let address = self.floating_address(tx, network, None, Some(family))?;
        let id = FloatingIpId::from_random(rand::random());
        tx.claim_address(network.meta.id, address, &id.to_string());
        let name = format!("published-{}", id.short());
        let name = name.parse().map_err(|e| Error::new(Code::Internal, e))?;
        let mut meta = Meta::new(id, instance.meta.project, name, self.now());
        meta.description = format!("for the published ports of {}", instance.meta.name);
        tx.create_unnamed(&FloatingIp {
            meta,
            network: network.meta.id,
            address,
            target: Some(target),
            internal: true,
        });
        Ok(true)
    }

    /// The first address of the ports that a router joins with an external network of the same family.
    fn way_in(&self, ports: &[Port], v4: bool) -> Option<(Target, Arc<Stored<Network>>)> {
        let has_family = |network| {
            let subnets = self.subnets_of(network);
            subnets.iter().any(|s| s.record.cidr.addr().is_ipv4() == v4)
        };
        for port in ports {
            for fixed in port.addresses.iter().filter(|f| f.address.is_ipv4() == v4) {
                for router in self.store.by_index(&ROUTER_BY_SUBNET, &fixed.subnet.to_string()) {
                    let Some(gateway) = router.record.gateway else {
                        continue;
                    };
                    if let Some(network) = self.get::<Network>(gateway.network)
                        && has_family(gateway.network)
                    {
                        let target = Target {
                            port: port.meta.id,
                            address: fixed.address,
                            router: router.record.meta.id,
                        };
                        return Some((target, network));
                    }
                }
            }
        }
        None
    }

    /// Settles the instances that a floating IP led to before this transaction and leads to after it.
    pub(crate) fn settle_floating(
        &self,
        tx: &mut Transaction,
        before: &FloatingIp,
        after: Option<&FloatingIp>,
    ) -> Result<()> {
        let instance_of = |f: &FloatingIp| self.get::<Port>(f.target?.port)?.record.instance();
        let instances: BTreeSet<InstanceId> =
            [Some(before), after].into_iter().flatten().filter_map(instance_of).collect();
        for id in instances {
            let Some(instance) = self.get::<Instance>(id) else {
                continue;
            };
            // Also without anything published: that must still be so at the commit.
            tx.expect(&instance);
            if instance.record.publish.is_empty() {
                continue;
            }
            let ports = self.ports_of(&instance.record.ports);
            let leads = |f: &&FloatingIp| f.target.is_some_and(|t| ports.iter().any(|p| p.meta.id == t.port));
            let coming: Vec<FloatingIp> = after.into_iter().filter(leads).cloned().collect();
            self.settle_outside(tx, &instance.record, &ports, &coming, &[before.meta.id], false)?;
        }
        Ok(())
    }

    /// Gives the internal addresses of a port back.
    pub(crate) fn release_internal_of(&self, tx: &mut Transaction, port: PortId) {
        for floating in self.floating_of(port) {
            if floating.record.internal {
                release_internal(tx, &floating);
            }
        }
    }
}

fn release_internal(tx: &mut Transaction, floating: &Stored<FloatingIp>) {
    let record = &floating.record;
    tx.release_address(record.network, record.address, &record.meta.id.to_string());
    tx.raw().delete::<FloatingIp>(&record.key(), floating.mod_revision);
}
