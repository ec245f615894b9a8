//! Published ports of this host: which of them are put in force, the relays beside them, and what is told about those
//! that are not.

use super::{
    listeners::{Listener, listeners},
    relay::Relays,
};
use jiff::Timestamp;
use model::{
    dataplane::publish::Publication,
    id::{EventId, InstanceId, ProjectId},
    name::Name,
    operation::{Event, Subject},
    publish::{PORTS_OF_ADMINS, Publish},
    security_group::Protocol,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};
use store::{Store, Tx};
use sys::netns::NetNs;

/// A published port of an instance on this host.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedPort {
    /// The instance.
    pub instance: InstanceId,
    /// Its project.
    pub project: ProjectId,
    /// Its name.
    pub name: Name,
    /// As it is asked for.
    pub publish: Publish,
    /// As it is compiled.
    pub publication: Publication,
}

/// What is in force.
#[derive(Debug, Default)]
pub struct Published {
    relays: Relays,
    admitted: BTreeSet<Publication>,
    /// Not in force, and said so.
    told: HashSet<(InstanceId, Publish)>,
    /// Of these, the ones that no program had at the last look.
    freed: HashSet<(InstanceId, Publish)>,
}

/// A port that is not in force, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// Which.
    pub port: PublishedPort,
    /// A sentence.
    pub why: String,
}

/// What is wanted, sorted.
#[derive(Debug, Default)]
pub struct Admission {
    /// In force.
    pub admitted: Vec<PublishedPort>,
    /// Left alone.
    pub refused: Vec<Refused>,
}

impl Admission {
    /// What the kernel translates.
    pub fn publications(&self) -> Vec<Publication> {
        self.admitted.iter().map(|p| p.publication).collect()
    }

    /// What is relayed at `[::1]`: from port to outside address, IPv6 first.
    fn relays(&self) -> BTreeMap<u16, SocketAddr> {
        let mut wanted: BTreeMap<u16, SocketAddr> = BTreeMap::new();
        let loopback = |p: &&PublishedPort| match p.publish.address {
            None => true,
            Some(IpAddr::V6(address)) => address.is_unspecified() || address == Ipv6Addr::LOCALHOST,
            Some(IpAddr::V4(_)) => false,
        };
        for port in self.admitted.iter().filter(loopback) {
            let (publication, to) = (port.publication, port.publication.to);
            if publication.protocol == Protocol::TCP {
                let place = wanted.entry(publication.port).or_insert(to);
                if to.is_ipv6() {
                    *place = to;
                }
            }
        }
        wanted
    }
}

impl Published {
    /// Sorts what is wanted: what programs of the host listen on is theirs, also when they came later. A program that was
    /// only away for a restart has its port again.
    ///
    /// # Errors
    /// When the host's sockets cannot be read.
    pub fn admit(&self, host: &NetNs, wanted: Vec<PublishedPort>) -> std::io::Result<Admission> {
        let mut admission = Admission::default();
        if wanted.is_empty() {
            return Ok(admission);
        }
        let theirs = self.theirs(host)?;
        for port in wanted {
            match theirs.iter().find(|l| self.yields(&port, l)) {
                None => admission.admitted.push(port),
                Some(listener) => {
                    let why = format!(
                        "a program of the host listens on {} ({})",
                        SocketAddr::new(listener.address, listener.port),
                        listener.protocol
                    );
                    admission.refused.push(Refused { port, why });
                }
            }
        }
        Ok(admission)
    }

    /// Whether a program has come since the last call of [`Self::note`] to a port that is in force, or one that was refused
    /// its port was left in two looks in a row: a program that is started again is away for a moment only.
    ///
    /// # Errors
    /// When the host's sockets cannot be read.
    pub fn is_stale(&mut self, host: &NetNs, wanted: Vec<PublishedPort>) -> std::io::Result<bool> {
        let admission = self.admit(host, wanted)?;
        let key = |port: &PublishedPort| (port.instance, port.publish);
        let freed: HashSet<_> =
            admission.admitted.iter().map(key).filter(|port| self.told.contains(port)).collect();
        let is_left = !freed.is_disjoint(&self.freed);
        self.freed = freed;
        let is_taken =
            admission.refused.iter().any(|refused| self.admitted.contains(&refused.port.publication));
        Ok(is_taken || is_left)
    }

    /// Whether a port is left to a program. UDP sockets of clients look like those of servers, and come and go: above the
    /// ports that they take, one does not end what is in force. Nor does a program that listens on loopback alone, as
    /// anybody's tunnel does, end what others reach.
    fn yields(&self, port: &PublishedPort, listener: &Listener) -> bool {
        let is_clients = listener.protocol == Protocol::UDP && !PORTS_OF_ADMINS.contains(&listener.port);
        let is_inside = listener.address.is_loopback()
            && port.publish.address.is_none_or(|address| !address.is_loopback());
        let stays = (is_clients || is_inside) && self.admitted.contains(&port.publication);
        listener.meets(&port.publish) && !stays
    }

    /// Listeners of the host that are not this's own relays.
    fn theirs(&self, host: &NetNs) -> std::io::Result<Vec<Listener>> {
        let relayed: BTreeSet<u16> = self.relays.ports().collect();
        let is_ours = |l: &Listener| {
            l.protocol == Protocol::TCP
                && l.address == IpAddr::V6(Ipv6Addr::LOCALHOST)
                && relayed.contains(&l.port)
        };
        let mut theirs = listeners(host)?;
        theirs.retain(|l| !is_ours(l));
        Ok(theirs)
    }

    /// Publications that are in force since the last call of [`Self::note`].
    pub fn in_force(&self) -> &BTreeSet<Publication> {
        &self.admitted
    }

    /// Notes what is in force now, and tells of what is not: once for each.
    pub async fn note(&mut self, store: &Store, host: &Arc<NetNs>, admission: Admission) {
        let wanted = admission.relays();
        let mut refused = admission.refused;
        for (port, error) in self.relays.set(host, &wanted) {
            let why = format!("[::1]:{port} of the host cannot be listened on: {error}");
            let of_port = |p: &&PublishedPort| p.publication.port == port && p.publication.to.is_ipv6();
            if let Some(port) = admission.admitted.iter().find(of_port) {
                refused.push(Refused { port: port.clone(), why });
            }
        }
        self.admitted = admission.admitted.iter().map(|p| p.publication).collect();
        let key = |r: &Refused| (r.port.instance, r.port.publish);
        let now: HashSet<_> = refused.iter().map(key).collect();
        self.told.retain(|told| now.contains(told));
        for refused in refused {
            if self.told.insert(key(&refused)) {
                tell(store, &refused).await;
            }
        }
    }

    /// Ends the relays; what the kernel translates stays.
    pub fn stop(&mut self) {
        self.relays = Relays::default();
    }
}

async fn tell(store: &Store, refused: &Refused) {
    let (publish, name) = (refused.port.publish, &refused.port.name);
    let message = format!(
        "{publish} of {name} is not published: {}. Stop that program, or publish on another port: `holm unpublish {name} {}/{}`",
        refused.why, publish.host_port, publish.protocol
    );
    tracing::warn!(instance = %refused.port.instance, "{message}");
    let mut tx = Tx::new();
    tx.put(&Event {
        id: EventId::from_random(rand::random()),
        at: Timestamp::now(),
        project: Some(refused.port.project),
        subject: Subject { noun: "instance".into(), id: refused.port.instance.to_string() },
        reason: "port_in_use".into(),
        message,
        warning: true,
    });
    if let Err(error) = store.commit(tx).await {
        tracing::warn!(%error, "the event could not be noted");
    }
}
