//! How many connections a listener has at a time: all together, and of one remote address.
//!
//! Who comes when all places are taken waits to be accepted. Who comes from an address that has as many as it may is closed
//! at once, so that one address does not keep the others waiting.

use crate::auth::Peer;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How often it is told that connections are closed.
const TELL_PAUSE: Duration = Duration::from_secs(60);
/// Bits of an IPv6 address that tell one network from another: whoever has one has all addresses in it.
const V6_NETWORK_BITS: u32 = 64;

/// The places of a listener.
pub struct Places {
    all: Arc<Semaphore>,
    addresses: Arc<Addresses>,
}

/// The place of a connection. It is free when this is dropped.
pub struct Place {
    _permit: OwnedSemaphorePermit,
    address: Option<(IpAddr, Arc<Addresses>)>,
}

struct Addresses {
    /// `None` is no limit.
    most: Option<usize>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    counts: HashMap<IpAddr, usize>,
    /// When it was last told, and how many were closed since.
    told: Option<Instant>,
    untold: u64,
}

impl Places {
    /// So many, of which one address has at most `of_address`; `None` is no limit.
    pub fn new(all: usize, of_address: Option<usize>) -> Self {
        let addresses = Addresses { most: of_address, open: Mutex::default() };
        Self { all: Arc::new(Semaphore::new(all)), addresses: Arc::new(addresses) }
    }

    /// Waits for a place.
    pub async fn wait(&self) -> Place {
        let permit = Arc::clone(&self.all).acquire_owned().await.expect("the semaphore is never closed");
        Place { _permit: permit, address: None }
    }

    /// Gives a place to who has come, unless his address has as many as it may.
    pub fn take(&self, mut place: Place, peer: &Peer) -> Option<Place> {
        let Some(address) = counted(peer) else { return Some(place) };
        if !self.addresses.take(address) {
            return None;
        }
        place.address = Some((address, Arc::clone(&self.addresses)));
        Some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((address, addresses)) = self.address.take() {
            addresses.give_back(address);
        }
    }
}

impl Addresses {
    fn take(&self, address: IpAddr) -> bool {
        let Some(most) = self.most else { return true };
        let mut open = self.open();
        let count = open.counts.get(&address).copied().unwrap_or(0);
        if count < most {
            open.counts.insert(address, count + 1);
            return true;
        }
        open.untold += 1;
        if open.told.is_none_or(|told| told.elapsed() >= TELL_PAUSE) {
            open.told = Some(Instant::now());
            let closed = std::mem::take(&mut open.untold);
            tracing::warn!(
                %address,
                open = count,
                closed,
                "connections were closed: their address has as many as it may (--connections-per-address)"
            );
        }
        false
    }

    fn give_back(&self, address: IpAddr) {
        let mut open = self.open();
        match open.counts.get_mut(&address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.counts.remove(&address)),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Counts are changed whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address whose connections are counted: of IPv6 the network. `None` for programs of this host: all of them have one
/// address, and a proxy among them brings everybody's connections.
fn counted(peer: &Peer) -> Option<IpAddr> {
    let Peer::Tcp(address) = peer else { return None };
    match address.ip().to_canonical() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST) => None,
        IpAddr::V6(v6) => {
            let network = v6.to_bits() & (u128::MAX << (128 - V6_NETWORK_BITS));
            Some(Ipv6Addr::from_bits(network).into())
        }
        v4 => Some(v4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn come(places: &Places, address: &str) -> Option<Place> {
        let peer = Peer::Tcp(format!("{address}:4000").parse().expect("an address"));
        places.take(places.wait().await, &peer)
    }

    #[tokio::test]
    async fn an_address_has_so_many_and_others_have_theirs() {
        let places = Places::new(100, Some(2));
        let first = come(&places, "203.0.113.1").await.expect("the first");
        let _second = come(&places, "203.0.113.1").await.expect("the second");
        assert!(come(&places, "203.0.113.1").await.is_none());
        // The same address, as a socket for both families has it.
        assert!(come(&places, "[::ffff:203.0.113.1]").await.is_none());
        let _other = come(&places, "203.0.113.2").await.expect("another address");
        drop(first);
        let _again = come(&places, "203.0.113.1").await.expect("a place was given back");
        assert!(come(&places, "203.0.113.1").await.is_none());
        // One network has more addresses than anybody counts.
        let _v6 = [come(&places, "[2001:db8::1]").await, come(&places, "[2001:db8::2]").await];
        assert!(come(&places, "[2001:db8::3]").await.is_none());
        assert!(come(&places, "[2001:db8:0:1::3]").await.is_some());
        assert_eq!(places.addresses.open().untold, 3, "the first refusal alone was told");
    }

    #[tokio::test]
    async fn programs_of_this_host_and_its_sockets_are_not_counted_and_nothing_is_left() {
        let places = Places::new(8, Some(1));
        let mut held = vec![];
        for _ in 0..3 {
            held.extend(come(&places, "127.0.0.1").await);
            held.extend(places.take(places.wait().await, &Peer::Unix { uid: 1000, pid: 1 }));
        }
        held.extend(come(&places, "203.0.113.1").await);
        assert_eq!(held.len(), 7);
        drop(held);
        assert!(places.addresses.open().counts.is_empty());
        assert_eq!(places.all.available_permits(), 8);
        let unlimited = Places::new(8, None);
        assert!(come(&unlimited, "203.0.113.1").await.is_some());
    }
}
