//! The machine's network cards, as the interfaces of the pod.
//!
//! The pod has a network namespace of its own here, too, that belongs to its user namespace: root in a container has there
//! what its capabilities say, and nothing in the machine's own. A card is moved in under the name that a pod's end of a
//! port has on a host, and all else is done by the same hands ([`plug`]).

use super::{super::GUEST_NETNS, Outcome, Step, early::wait_for};
use crate::container::network::{create, peer_name, plug};
use model::plan::{IdRange, NicPlan};
use std::{io, path::Path};
use sys::{
    netlink::{Link, Netlink},
    netns::NetNs,
};

/// Makes the pod's namespace, and its interfaces in their order.
pub(super) fn set_up(ids: IdRange, nics: &[NicPlan]) -> Outcome {
    let namespace = create(Path::new(GUEST_NETNS), ids).step(|| "make the pod's network namespace".into())?;
    for (number, nic) in nics.iter().enumerate() {
        move_in(&namespace, nic)?;
        plug(&namespace, nic, number).step(|| format!("set up eth{number}, port {}", nic.port))?;
    }
    Ok(())
}

/// Brings the card of a port into the pod's namespace.
fn move_in(namespace: &NetNs, nic: &NicPlan) -> Outcome {
    let own = NetNs::current().and_then(|own| Netlink::open(&own));
    let own = own.step(|| "open the machine's network".into())?;
    let inside = Netlink::open(namespace).step(|| "open the pod's network".into())?;
    let is_it = |link: &Link| link.mac == Some(nic.mac.0);
    let name = peer_name(nic);
    let moved = || -> io::Result<bool> {
        if inside.links()?.iter().any(is_it) {
            return Ok(true);
        }
        let Some(card) = own.links()?.into_iter().find(is_it) else { return Ok(false) };
        own.set_down(&card.name)?;
        own.rename(&card.name, &name)?;
        own.set_ns(&name, namespace)?;
        Ok(true)
    };
    let found = wait_for(|| moved().map(|moved| moved.then_some(())).transpose());
    found
        .ok_or_else(|| {
            format!("the machine has no network card with the address {} of port {}", nic.mac, nic.port)
        })?
        .step(|| format!("take the network card of port {}", nic.port))
}
