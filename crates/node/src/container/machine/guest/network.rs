//! The machine's network cards, as the interfaces of the pod.
//!
//! The pod has a network namespace of its own here, too, that belongs to its user namespace: root in a container has there
//! what its capabilities say, and nothing in the machine's own. A card is moved in under the name that a pod's end of a
//! port has on a host, and all else is done by the same hands ([`plug`]). Cards come and go while the pod runs ([`Cards`]): one
//! that was plugged in is looked for again and again until the kernel has it, and nobody waits meanwhile.

use super::{super::GUEST_NETNS, Outcome, Step, early::wait_for};
use crate::container::{
    machine::talk::ConnectionId,
    network::{create, free_number, peer_name, plug, plugged, take_down},
};
use model::{
    id::PortId,
    plan::{IdRange, NicPlan},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::{Duration, Instant},
};
use sys::{
    netlink::{Link, Netlink},
    netns::NetNs,
};

/// How long the kernel may take to have a card that was plugged in.
const PLUG_TIMEOUT: Duration = Duration::from_secs(20);

/// Makes the pod's namespace, and its interfaces in their order.
pub(super) fn set_up(ids: IdRange, nics: &[NicPlan]) -> Outcome {
    let namespace = create(Path::new(GUEST_NETNS), ids).step(|| "make the pod's network namespace".into())?;
    for (number, nic) in nics.iter().enumerate() {
        let found = wait_for(|| move_in(&namespace, nic).map(|moved| moved.then_some(())).transpose());
        found.ok_or_else(|| missing(nic))?.step(|| format!("take the network card of port {}", nic.port))?;
        plug(&namespace, nic, number).step(|| format!("set up eth{number}, port {}", nic.port))?;
    }
    Ok(())
}

/// Brings the card of a port into the pod's namespace. Tells whether the machine has it.
fn move_in(namespace: &NetNs, nic: &NicPlan) -> io::Result<bool> {
    let own = Netlink::open(&NetNs::current()?)?;
    let inside = Netlink::open(namespace)?;
    let is_it = |link: &Link| link.mac == Some(nic.mac.0);
    if inside.links()?.iter().any(is_it) {
        return Ok(true);
    }
    let Some(card) = own.links()?.into_iter().find(is_it) else { return Ok(false) };
    let name = peer_name(nic);
    own.set_down(&card.name)?;
    own.rename(&card.name, &name)?;
    own.set_ns(&name, namespace)?;
    Ok(true)
}

fn missing(nic: &NicPlan) -> String {
    format!("the machine has no network card with the address {} of port {}", nic.mac, nic.port)
}

/// Sets up a card that came while the pod runs, as the next interface. `None` while the kernel has none.
fn plug_late(nic: &NicPlan) -> Option<Outcome> {
    let work = || -> io::Result<bool> {
        let namespace = NetNs::open(Path::new(GUEST_NETNS))?;
        if !move_in(&namespace, nic)? {
            return Ok(false);
        }
        let number = match plugged(&namespace, nic)? {
            Some(number) => number,
            None => free_number(&namespace)?,
        };
        plug(&namespace, nic, number).map(|()| true)
    };
    match work() {
        Ok(false) => None,
        Ok(true) => Some(Ok(())),
        Err(error) => Some(Err(error).step(|| format!("set up the card of port {}", nic.port))),
    }
}

/// The cards of the pod, in the order in which they came.
#[derive(Default)]
pub(super) struct Cards {
    known: Vec<NicPlan>,
    coming: Vec<Coming>,
}

/// A card that was plugged in and is not there yet.
struct Coming {
    connection: ConnectionId,
    nic: NicPlan,
    until: Instant,
}

impl Cards {
    /// Those that the pod starts with.
    pub(super) fn new(nics: &[NicPlan]) -> Self {
        Self { known: nics.to_vec(), coming: Vec::new() }
    }

    /// The pod's first address, of version 4 if it has one; its own loopback where it has no network.
    pub(super) fn address(&self) -> IpAddr {
        let addresses = || self.known.iter().flat_map(|nic| &nic.addresses).map(ipnet::IpNet::addr);
        addresses().find(IpAddr::is_ipv4).or_else(|| addresses().next()).unwrap_or(Ipv4Addr::LOCALHOST.into())
    }

    /// Whether any is waited for.
    pub(super) fn are_coming(&self) -> bool {
        !self.coming.is_empty()
    }

    /// One was plugged in. Who asked is told by [`Cards::look`].
    pub(super) fn expect(&mut self, connection: ConnectionId, nic: NicPlan) {
        self.coming.retain(|one| one.nic.port != nic.port);
        self.coming.push(Coming { connection, nic, until: Instant::now() + PLUG_TIMEOUT });
    }

    /// Sets up those that are there by now, and gives up on those that took too long.
    pub(super) fn look(&mut self) -> Vec<(ConnectionId, Outcome)> {
        let mut told = Vec::new();
        for one in std::mem::take(&mut self.coming) {
            let outcome = match plug_late(&one.nic) {
                None if Instant::now() < one.until => {
                    self.coming.push(one);
                    continue;
                }
                None => Err(missing(&one.nic)),
                Some(outcome) => outcome,
            };
            if outcome.is_ok() && !self.known.iter().any(|nic| nic.port == one.nic.port) {
                self.known.push(one.nic);
            }
            told.push((one.connection, outcome));
        }
        told
    }

    /// Takes one down that is about to be plugged out. One that the pod has not is down.
    pub(super) fn take_down(&mut self, port: PortId) -> Outcome {
        let late = self.coming.iter().position(|one| one.nic.port == port);
        let late = late.map(|at| self.coming.remove(at).nic);
        let Some(nic) = late.or_else(|| self.known.iter().find(|nic| nic.port == port).cloned()) else {
            return Ok(());
        };
        let namespace = NetNs::open(Path::new(GUEST_NETNS)).step(|| "open the pod's network".into())?;
        take_down(&namespace, &nic).step(|| format!("take down the card of port {port}"))?;
        self.known.retain(|known| known.port != port);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(number: u8, address: &str) -> NicPlan {
        NicPlan {
            addresses: vec![address.parse().expect("an address")],
            ..crate::vm::argv::tests::nic(number.into())
        }
    }

    #[test]
    fn the_pods_address_is_that_of_the_first_card_it_has() {
        let (one, other) = (nic(1, "10.0.0.2/24"), nic(2, "fd00::2/64"));
        assert_eq!(Cards::default().address(), IpAddr::from(Ipv4Addr::LOCALHOST));
        let mut cards = Cards::new(&[other.clone(), one.clone()]);
        assert_eq!(cards.address(), one.addresses[0].addr());
        cards.known.retain(|known| known.port != one.port);
        assert_eq!(cards.address(), other.addresses[0].addr());
    }

    #[test]
    fn a_card_that_does_not_come_is_told_in_the_end() {
        let mut cards = Cards::default();
        let one = nic(1, "10.0.0.2/24");
        cards.expect(7, one.clone());
        cards.expect(8, one.clone());
        assert_eq!(cards.coming.len(), 1, "who asks again is answered once");
        // Nobody has unplugged what never was there.
        assert_eq!(cards.take_down(PortId::from_random([9; 16])), Ok(()));
        assert!(cards.are_coming());
    }
}
