//! Published ports: taken on the instance's host and given back, changed while it runs.
//!
//! Each port number of a host is a record that names its holders, written in the transaction that publishes; so of
//! two requests for one port one wins, and the other is told who has it.

use crate::{Caller, Control, Error, Result, Role, instance::action::refuse_locked, transact::Transaction};
use model::{
    error::Code,
    id::NodeId,
    instance::Instance,
    publish::{
        CHOSEN_PORTS, HOLDERS_MAX, Holder, HostPort, PORTS_OF_ADMINS, Publish, PublishError, addresses_meet,
        check,
    },
    security_group::Protocol,
};
use std::{collections::BTreeSet, net::IpAddr, ops::RangeInclusive};

/// A change of what an instance publishes: first `set`, then `remove`, then `add`.
#[derive(Debug, Clone, Default)]
pub struct PublishChange {
    /// Instead of all that is published.
    pub set: Option<Vec<Publish>>,
    /// No longer.
    pub remove: Vec<Unpublish>,
    /// Beside the rest. What is there already stays as it is.
    pub add: Vec<Publish>,
}

/// Published ports that shall go.
#[derive(Debug, Clone, Copy)]
pub struct Unpublish {
    /// On this address alone; on every one when `None`.
    pub address: Option<IpAddr>,
    /// The host's port.
    pub host_port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl PublishChange {
    fn apply(&self, instance: &Instance) -> Result<Vec<Publish>> {
        let mut all = self.set.clone().unwrap_or_else(|| instance.publish.clone());
        for gone in &self.remove {
            let before = all.len();
            all.retain(|p| {
                p.host_port != gone.host_port
                    || p.protocol != gone.protocol
                    || gone.address.is_some_and(|a| p.address != Some(a))
            });
            if all.len() == before {
                let (name, port) = (&instance.meta.name, gone.host_port);
                let message = format!("{name} publishes no port {port}/{} of its host", gone.protocol);
                return Err(Error::new(Code::NotFound, message)
                    .field("publish")
                    .hint(format!("`holm show {name}` lists what it publishes")));
            }
        }
        for new in &self.add {
            let same = |p: &Publish| {
                (p.address, p.port, p.protocol) == (new.address, new.port, new.protocol)
                    && (new.host_port == 0 || p.host_port == new.host_port)
            };
            if !all.iter().any(same) {
                all.push(*new);
            }
        }
        Ok(all)
    }
}

impl Control {
    /// Changes what an instance publishes; what runs notices nothing. Gives the instance with the ports that were
    /// chosen.
    ///
    /// # Errors
    /// `taken` with the owner of the port, `invalid`, `not_found`, `conflict` when nothing leads from outside to the
    /// instance, `too_large`, `no_capacity`, `forbidden`.
    pub async fn update_instance_publish(
        &self,
        caller: &Caller,
        reference: &str,
        change: &PublishChange,
    ) -> Result<Instance> {
        self.transact(|tx| {
            let found = self.find_own::<Instance>(caller, reference, "publishing ports")?;
            let mut next = found.record.clone();
            if next.meta.is_deleting() {
                let message = format!("{} is being deleted", next.meta.name);
                return Err(Error::new(Code::Conflict, message));
            }
            refuse_locked(caller, &next)?;
            next.publish = change.apply(&found.record)?;
            self.take_host_ports(tx, caller, &found.record.publish, &mut next)?;
            refuse_ports_of_admins(caller, &found.record.publish, &next.publish)?;
            let ports = self.ports_of(&next.ports);
            self.settle_outside(tx, &next, &ports, &[], &[], true)?;
            if next != found.record {
                next.meta.touch(self.now());
                tx.update(&found, &next);
            } else {
                tx.expect(&found);
            }
            Ok(next)
        })
        .await
    }

    /// Takes the ports of the host that an instance publishes and `old` did not, and gives the rest of `old` back.
    /// Fills in the ports that were left to choose.
    pub(crate) fn take_host_ports(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        old: &[Publish],
        next: &mut Instance,
    ) -> Result<()> {
        self.take_host_ports_within(tx, caller, old, next, &[])
    }

    /// The same for a new instance, with ports that are chosen from ranges.
    pub(super) fn take_host_ports_of_new(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        new: &mut Instance,
        within: &[(Publish, RangeInclusive<u16>)],
    ) -> Result<()> {
        self.take_host_ports_within(tx, caller, &[], new, within)?;
        refuse_ports_of_admins(caller, &[], &new.publish)
    }

    fn take_host_ports_within(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        old: &[Publish],
        next: &mut Instance,
        within: &[(Publish, RangeInclusive<u16>)],
    ) -> Result<()> {
        check(&next.publish).map_err(refused)?;
        let Some(node) = next.node else {
            return Ok(());
        };
        self.choose_host_ports(node, old, next, within)?;
        check(&next.publish).map_err(refused)?;
        let key = |p: &Publish| (p.protocol, p.host_port);
        let keys: BTreeSet<(Protocol, u16)> = old.iter().chain(&next.publish).map(key).collect();
        for (protocol, port) in keys {
            let of = |all: &[Publish]| -> BTreeSet<Option<IpAddr>> {
                let mine = all.iter().filter(|p| key(p) == (protocol, port));
                mine.map(|p| p.address).collect()
            };
            let (had, has) = (of(old), of(&next.publish));
            if had != has {
                self.change_holders(tx, caller, (node, protocol, port), next, &has)?;
            }
        }
        Ok(())
    }

    fn change_holders(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        (node, protocol, port): (NodeId, Protocol, u16),
        instance: &Instance,
        addresses: &BTreeSet<Option<IpAddr>>,
    ) -> Result<()> {
        let id = instance.meta.id;
        let stored = self.store.get::<HostPort>(&HostPort::key_of(node, protocol, port));
        let mut next = stored
            .as_ref()
            .map_or_else(|| HostPort { node, protocol, port, holders: vec![] }, |s| s.record.clone());
        next.holders.retain(|h| h.instance != id);
        for &address in addresses {
            let other = next.holders.iter().find(|h| h.instance != id && addresses_meet(h.address, address));
            if let Some(other) = other {
                return Err(self.taken_port(caller, protocol, port, *other));
            }
            next.holders.push(Holder { address, instance: id });
        }
        if next.holders.len() > HOLDERS_MAX {
            let message =
                format!("port {port}/{protocol} of the host is published on {HOLDERS_MAX} addresses");
            return Err(Error::new(Code::TooLarge, message).field("publish"));
        }
        match (stored, next.holders.is_empty()) {
            (None, true) => {}
            (None, false) => {
                tx.raw().create(&next);
            }
            (Some(stored), true) => {
                use model::record::Record;
                tx.raw().delete::<HostPort>(&next.key(), stored.mod_revision);
            }
            (Some(stored), false) => {
                tx.raw().update(&next, stored.mod_revision);
            }
        }
        Ok(())
    }

    /// The refusal of a port that somebody has. Names of other projects' instances are theirs alone.
    fn taken_port(&self, caller: &Caller, protocol: Protocol, port: u16, holder: Holder) -> Error {
        let owner = self
            .get::<Instance>(holder.instance)
            .filter(|i| caller.sees(i.record.meta.project))
            .map(|i| i.record.meta.name.to_string());
        let place = match holder.address {
            None => String::new(),
            Some(address) => format!(" on {address}"),
        };
        let (who, way_out) = match owner {
            Some(name) => (
                format!("instance {name}"),
                format!(", or free it with `holm unpublish {name} {port}/{protocol}`"),
            ),
            None => ("an instance of another project".to_string(), String::new()),
        };
        let message = format!("port {port}/{protocol} of the host is published by {who}{place} already");
        Error::new(Code::Taken, message)
            .field("publish")
            .hint(format!("choose another port of the host (0 takes a free one){way_out}"))
    }

    fn choose_host_ports(
        &self,
        node: NodeId,
        old: &[Publish],
        next: &mut Instance,
        within: &[(Publish, RangeInclusive<u16>)],
    ) -> Result<()> {
        for number in 0..next.publish.len() {
            let asked = next.publish[number];
            if asked.host_port != 0 {
                continue;
            }
            let free = |port: u16| {
                let chosen = Publish { host_port: port, ..asked };
                let own = next.publish.iter().any(|p| p.meets(&chosen));
                let key = HostPort::key_of(node, asked.protocol, port);
                let held = self.store.get::<HostPort>(&key).is_some_and(|held| {
                    let mut others = held.record.holders.iter();
                    others.any(|h| h.instance != next.meta.id)
                });
                !own && !held
            };
            let same =
                |p: &&Publish| (p.address, p.port, p.protocol) == (asked.address, asked.port, asked.protocol);
            // Asked for the same again, it keeps the port that it has.
            let kept = old.iter().filter(same).map(|p| p.host_port).find(|p| free(*p));
            // Of a range that was asked for the first that is free, else any.
            let range = within.iter().find(|(of, _)| *of == asked).map(|(_, range)| range.clone());
            let is_asked = range.is_some();
            let range = range.unwrap_or(CHOSEN_PORTS);
            let (first, count) = (*range.start(), range.len() as u32);
            let start = if is_asked { 0 } else { rand::random::<u32>() % count };
            let kept = kept.filter(|port| range.contains(port));
            let port = kept
                .or_else(|| {
                    let at = |step: u32| first + u16::try_from((start + step) % count).unwrap_or(0);
                    (0..count).map(at).find(|port| free(*port))
                })
                .ok_or_else(|| {
                    let message = match is_asked {
                        true => format!(
                            "no {} port of the host from {} to {} is free",
                            asked.protocol,
                            range.start(),
                            range.end()
                        ),
                        false => format!("no {} port of the host is free", asked.protocol),
                    };
                    Error::new(Code::NoCapacity, message)
                        .field("publish")
                        .hint("unpublish some (`holm exposed` lists them)")
                })?;
            next.publish[number].host_port = port;
        }
        Ok(())
    }
}

/// Refuses what of `now` only admins may publish, but for what is in `old` already.
pub(super) fn refuse_ports_of_admins(caller: &Caller, old: &[Publish], now: &[Publish]) -> Result<()> {
    if caller.role >= Role::Admin {
        return Ok(());
    }
    let key = |p: &Publish| (p.address, p.host_port, p.protocol);
    let had: BTreeSet<_> = old.iter().map(key).collect();
    let is_theirs = |p: &&Publish| PORTS_OF_ADMINS.contains(&p.host_port) && !had.contains(&key(p));
    match now.iter().find(is_theirs) {
        None => Ok(()),
        Some(publish) => {
            let (first, last) = (PORTS_OF_ADMINS.start(), PORTS_OF_ADMINS.end());
            let message = format!(
                "port {}/{} of the host is one of {first} to {last}, which admins alone publish",
                publish.host_port, publish.protocol
            );
            let hint =
                format!("choose a port of the host above {last} (0 takes a free one), or ask an admin");
            Err(Error::new(Code::Forbidden, message).field("publish").hint(hint))
        }
    }
}

fn refused(error: PublishError) -> Error {
    let code = match error {
        PublishError::TooMany(_) => Code::TooLarge,
        _ => Code::Invalid,
    };
    Error::new(code, error)
        .field("publish")
        .hint("a published port is [ADDRESS:]HOST_PORT:PORT[/tcp|udp|sctp]")
}
