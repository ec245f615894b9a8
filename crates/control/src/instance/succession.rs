//! Instances that take the place of others: what these have is noted when they are made, and taken when they start.

use super::{DiskAsked, NewInstance, NicAsked, publish::refuse_ports_of_admins};
use crate::{
    Caller, Control, Error, Result,
    port::{FixedAsked, NewPort},
    transact::Transaction,
    volume::attach::{Attach, named_twice, refuse_elsewhere, refuse_too_many},
};
use model::{
    error::Code,
    id::NodeId,
    instance::{
        Instance,
        succession::{Inherited, InheritedAddress, Succession},
    },
    network::Network,
    port::Port,
    publish::Publish,
    volume::Volume,
};
use std::borrow::Cow;

impl Control {
    /// Parts what is asked for into what the new instance gets now and what it takes over from the one that it follows.
    pub(super) fn part_succession<'a>(
        &self,
        caller: &Caller,
        new: &'a NewInstance,
    ) -> Result<(Cow<'a, NewInstance>, Option<Succession>)> {
        let old = new.succeeds.and_then(|id| self.get::<Instance>(id));
        // Of one that is gone nothing is left to wait for.
        let Some(old) = old.filter(|old| old.record.meta.project == caller.project) else {
            return Ok((Cow::Borrowed(new), None));
        };
        let old = &old.record;
        let mut now = new.clone();
        let is_olds = |p: &Publish| p.host_port != 0 && old.publish.iter().any(|held| held.meets(p));
        // What the last one has been given may be had by the next one, whoever makes that.
        refuse_ports_of_admins(caller, &old.publish, &now.publish)?;
        let publish: Vec<Publish> = now.publish.extract_if(.., |p| is_olds(p)).collect();
        let mut volumes: Vec<Inherited> = vec![];
        let mut kept = vec![];
        for asked in now.volumes.drain(..) {
            let volume = match &asked.disk {
                DiskAsked::Volume(reference) => {
                    Some(self.find_own::<Volume>(caller, reference, "attaching a volume")?)
                }
                DiskAsked::New(_) => None,
            };
            let Some(volume) = volume.filter(|volume| volume.record.attached_to == Some(old.meta.id)) else {
                kept.push(asked);
                continue;
            };
            if volumes.iter().any(|inherited| inherited.volume == volume.record.meta.id) {
                return Err(named_twice(&volume.record));
            }
            volumes.push(Inherited {
                volume: volume.record.meta.id,
                mount_path: asked.attach.mount_path.clone(),
                read_only: asked.attach.read_only,
            });
        }
        now.volumes = kept;
        let addresses = self.part_addresses(caller, &mut now, old)?;
        let mut publish = publish;
        if !addresses.is_empty() {
            // What leads to it is not to lead to the address that it has in between.
            publish.append(&mut now.publish);
        }
        if publish.is_empty() && volumes.is_empty() && addresses.is_empty() {
            return Ok((Cow::Owned(now), None));
        }
        if new.start {
            return Err(still_there(&new.name, old));
        }
        Ok((Cow::Owned(now), Some(Succession { of: old.meta.id, publish, volumes, addresses })))
    }

    /// Asks for any address of the same subnet instead of those that the last one has; gives these.
    fn part_addresses(
        &self,
        caller: &Caller,
        now: &mut NewInstance,
        old: &Instance,
    ) -> Result<Vec<InheritedAddress>> {
        let olds = self.ports_of(&old.ports);
        let mut inherited = vec![];
        for (interface, nic) in now.nics.iter_mut().flatten().enumerate() {
            let NicAsked::New(NewPort { network, fixed: Some(fixed), .. }) = nic else { continue };
            let network = match network {
                Some(reference) => self.find_for::<Network>(caller, "network", reference)?.record.meta.id,
                None => self.own_network(caller)?.record.meta.id,
            };
            for asked in fixed {
                let of_network = olds.iter().filter(|port| port.network == network);
                let held = of_network
                    .flat_map(|port| &port.addresses)
                    .find(|has| asked.address == Some(has.address));
                if let Some(held) = held {
                    inherited.push(InheritedAddress { interface, fixed: *held });
                    *asked = FixedAsked { subnet: Some(held.subnet.to_string()), address: None };
                }
            }
        }
        Ok(inherited)
    }

    /// Gives its interfaces the addresses that they take over; gives all of its ports as they are then.
    fn take_addresses(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        next: &Instance,
        inherited: &[InheritedAddress],
    ) -> Result<Vec<Port>> {
        let mut ports = self.ports_of(&next.ports);
        for (interface, id) in next.ports.iter().enumerate() {
            let own: Vec<_> = inherited.iter().filter(|one| one.interface == interface).collect();
            let (Some(stored), false) = (self.get::<Port>(*id), own.is_empty()) else { continue };
            let mut port = stored.record.clone();
            let asked: Vec<FixedAsked> = port
                .addresses
                .iter()
                .map(|has| {
                    let taken = own.iter().find(|one| one.fixed.subnet == has.subnet);
                    let fixed = taken.map_or(*has, |one| one.fixed);
                    FixedAsked { subnet: Some(fixed.subnet.to_string()), address: Some(fixed.address) }
                })
                .collect();
            self.readdress(tx, caller, &mut port, &asked)?;
            port.meta.touch(self.now());
            tx.update(&stored, &port);
            ports.iter_mut().filter(|old| old.meta.id == *id).for_each(|old| old.clone_from(&port));
        }
        Ok(ports)
    }

    /// Refuses to make an instance on another host than what it is to take over.
    pub(super) fn refuse_inheriting_elsewhere(
        &self,
        succession: Option<&Succession>,
        node: NodeId,
    ) -> Result<()> {
        let inherited = succession.into_iter().flat_map(|succession| &succession.volumes);
        let volumes = inherited.filter_map(|inherited| self.get::<Volume>(inherited.volume));
        for volume in volumes {
            refuse_elsewhere(&volume.record, Some(node), "volumes")?;
        }
        Ok(())
    }

    /// Takes over, in the transaction that starts an instance, what it was made to.
    pub(super) fn take_over(&self, tx: &mut Transaction, caller: &Caller, next: &mut Instance) -> Result<()> {
        let Some(succession) = next.succession.take() else {
            return Ok(());
        };
        if let Some(old) = self.get::<Instance>(succession.of) {
            return Err(still_there(next.meta.name.as_str(), &old.record));
        }
        for inherited in &succession.volumes {
            // It was free for a moment, and was given to the next one by hand.
            if next.volumes.contains(&inherited.volume) {
                continue;
            }
            let volume = self.get::<Volume>(inherited.volume).ok_or_else(|| {
                let message = format!("a volume that {} was to take over is gone", next.meta.name);
                Error::new(Code::NotFound, message)
                    .field("volumes")
                    .hint("delete the instance and make it anew")
            })?;
            let attach = Attach {
                mount_path: inherited.mount_path.clone(),
                read_only: inherited.read_only,
                ..Attach::default()
            };
            refuse_elsewhere(&volume.record, next.node, "volumes")?;
            self.take_volume(tx, &volume, next.meta.id, &attach)?;
            next.volumes.push(inherited.volume);
        }
        refuse_too_many(&next.volumes)?;
        let ports = self.take_addresses(tx, caller, next, &succession.addresses)?;
        let had = next.publish.clone();
        next.publish.extend(succession.publish);
        self.take_host_ports(tx, caller, &had, next)?;
        self.settle_outside(tx, next, &ports, &[], &[], true)
    }
}

fn still_there(name: &str, old: &Instance) -> Error {
    let old = &old.meta.name;
    let message = format!("{name} takes over from {old}, which still has its ports, volumes and addresses");
    Error::new(Code::Conflict, message).hint(format!("delete {old} first: `holm rm {old}`"))
}
