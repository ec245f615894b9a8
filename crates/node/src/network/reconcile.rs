//! Networks made true: one key per namespace. A run gathers the view, compiles it, applies the plan, flushes flows
//! that may no longer be, and keeps the servers of a network running.

use super::{
    announce::announce,
    apply::{ApplyError, Dataplane, Outcome},
    conntrack,
    directory::Directory,
    gather::Gather,
    published::{Admission, Published},
    ranges,
    servers::NetworkServers,
};
use crate::instance::sentence;
use ipnet::IpNet;
use model::{
    dataplane::{
        self,
        namespace::Place,
        publish::Publication,
        view::{Attachment, NetworkView, RouterView},
    },
    floating_ip::Target,
    id::{NetworkId, PortId, RouterId},
    network::Network,
    port::Port,
    router::Router,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Mutex;

/// Why a namespace is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel's side.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Flows that may no longer be could not be ended.
    #[error(transparent)]
    Flows(#[from] conntrack::FlowError),
    /// A server could not be started.
    #[error("servers of network {network} could not be opened")]
    Servers {
        /// The network.
        network: NetworkId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host's own listeners could not be read.
    #[error("the host's listening sockets could not be read")]
    Listeners(#[source] io::Error),
    /// The work was cut off by a shutdown.
    #[error("holm is stopping")]
    Stopping,
}

/// All namespaces of this node.
pub struct Networks {
    dataplane: Arc<Dataplane>,
    gather: Gather,
    directory: Arc<dyn Directory>,
    upstream: super::dns_server::Upstream,
    servers: Mutex<HashMap<NetworkId, NetworkServers>>,
    published: Mutex<Published>,
    /// Ranges that are left to the host's owner, which was told.
    left_out: Mutex<BTreeSet<IpNet>>,
    /// What the flows of each network were last judged by.
    judged: std::sync::Mutex<HashMap<NetworkId, Judged>>,
    /// Namespaces whose devices without a plan are about to be taken away.
    sweeping: std::sync::Mutex<HashSet<Place>>,
    /// Routers that were written, or begun to be, and whose flows have not been brought in line with that.
    unjudged: Unjudged,
    /// Networks of which the flows of departed addresses are about to end.
    parting: std::sync::Mutex<HashSet<NetworkId>>,
    /// Where the floating IPs of each router led when it was last written.
    leads: std::sync::Mutex<HashMap<RouterId, BTreeMap<IpAddr, Target>>>,
    // One application at a time: instances ask for their network beside the loop.
    turn: Mutex<Turns>,
    /// Counts what is asked for and what begins.
    clock: AtomicU64,
}

/// When the last application of each namespace began, if it went well. Who asked before that need not have it done again:
/// it has seen all that was in the store then.
type Turns = HashMap<Place, u64>;

/// How long devices without a plan are left to go by themselves: with the namespace that their other end was in.
const LEAVE: Duration = Duration::from_millis(250);
/// How long flows wait whose address nobody has: to look for them takes the kernel several milliseconds, however few there are.
const PART: Duration = Duration::from_secs(10);
/// Most addresses whose flows are remembered without anybody having the address.
const DEPARTED_MAX: usize = 256;

/// What the flows of a network were last judged by.
#[derive(Default)]
struct Judged {
    /// The view; `None` while a run is at work, and after one that failed: flows may have begun that nobody judged.
    view: Option<NetworkView>,
    /// Addresses that went since: their flows must end before somebody else has one of them.
    departed: BTreeSet<IpAddr>,
}

/// Routers whose flows may have a translation of before.
#[derive(Default)]
struct Unjudged(std::sync::Mutex<HashSet<RouterId>>);

impl Unjudged {
    /// Writes a router and then ends the flows that it would not translate so any more, if that changed it or an earlier time
    /// came to no end: what was written then is no change to the next run.
    fn write<T, E>(
        &self,
        id: RouterId,
        write: impl FnOnce() -> Result<(T, bool), E>,
        judge: impl FnOnce() -> Result<(), E>,
    ) -> Result<T, E> {
        let was_left = !self.all().insert(id);
        let (outcome, is_changed) = write()?;
        if is_changed || was_left {
            judge()?;
        }
        self.forget(id);
        Ok(outcome)
    }

    fn forget(&self, id: RouterId) {
        self.all().remove(&id);
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashSet<RouterId>> {
        // A set of ids is never half changed.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// How long a run is put off while another namespace must come first.
pub const AGAIN: Duration = Duration::from_millis(50);

impl Networks {
    /// The namespaces that `dataplane` writes.
    pub fn new(
        dataplane: Arc<Dataplane>,
        gather: Gather,
        directory: Arc<dyn Directory>,
        upstream: super::dns_server::Upstream,
    ) -> Self {
        Self {
            dataplane,
            gather,
            directory,
            upstream,
            servers: Mutex::default(),
            published: Mutex::default(),
            left_out: Mutex::default(),
            judged: std::sync::Mutex::default(),
            sweeping: std::sync::Mutex::default(),
            unjudged: Unjudged::default(),
            parting: std::sync::Mutex::default(),
            leads: std::sync::Mutex::default(),
            turn: Mutex::default(),
            clock: AtomicU64::default(),
        }
    }

    /// Every namespace that should be.
    pub fn places(&self) -> Vec<Place> {
        let networks = self.gather.network_ids().into_iter().map(Place::Network);
        let routers = self.gather.router_ids().into_iter().map(Place::Router);
        let externals = self.gather.external_ids().into_iter().map(Place::External);
        networks.chain(routers).chain(externals).chain([Place::Host]).collect()
    }

    /// Namespaces that are here and that no record asks for: what was deleted while nobody was there to see it, or had no
    /// time to. A record that cannot be read is no reason to take a network from its guests.
    pub fn strays(&self) -> Vec<Place> {
        let wished: HashSet<Place> = self.places().into_iter().collect();
        let names = self.dataplane.handle_names().unwrap_or_else(|error| {
            tracing::warn!(error = sentence(&error), "namespaces could not be listed");
            BTreeSet::new()
        });
        let found = names.iter().filter_map(|name| Place::of_handle_name(name));
        found.filter(|place| !wished.contains(place) && !self.is_unreadable(*place)).collect()
    }

    fn is_unreadable(&self, place: Place) -> bool {
        let store = self.gather.store();
        match place {
            Place::Network(id) | Place::External(id) => store.is_unreadable::<Network>(&id.to_string()),
            Place::Router(id) => store.is_unreadable::<Router>(&id.to_string()),
            Place::Host => false,
        }
    }

    /// Path of a network's namespace handle.
    pub fn handle(&self, network: NetworkId) -> std::path::PathBuf {
        self.dataplane.handle(Place::Network(network)).unwrap_or_default()
    }

    /// Makes one namespace true.
    ///
    /// # Errors
    /// The first thing that was refused; running again goes on from there.
    pub async fn run(self: &Arc<Self>, place: Place) -> Result<(), NetworkError> {
        let asked = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut turn = self.turn.lock().await;
        if turn.get(&place).is_some_and(|begun| *begun > asked) {
            return Ok(());
        }
        let begun = self.clock.fetch_add(1, Ordering::Relaxed);
        turn.remove(&place);
        if self.run_alone(place).await? {
            turn.insert(place, begun);
        }
        Ok(())
    }

    /// Gives whether the namespace is there.
    async fn run_alone(self: &Arc<Self>, place: Place) -> Result<bool, NetworkError> {
        if place == Place::Host {
            return self.run_host().await.map(|()| true);
        }
        let this = Arc::clone(self);
        let outcome = tokio::task::spawn_blocking(move || this.write(place)).await;
        let outcome = outcome.map_err(|_| NetworkError::Stopping)??;
        let is_there = outcome.is_some();
        if outcome.as_ref().is_some_and(|outcome| outcome.leaves) {
            self.sweep_later(place);
        }
        if let Place::Network(id) = place {
            self.part_later(id);
            match outcome {
                Some(outcome) => self.serve(id, outcome).await?,
                None => self.end_servers(id).await,
            }
        }
        Ok(is_there)
    }

    /// Takes devices away that are in no plan, once those that go by themselves are gone. What is left when holm ends is found
    /// by its next start.
    fn sweep_later(self: &Arc<Self>, place: Place) {
        if !self.sweeping().insert(place) {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(LEAVE).await;
            this.sweeping().remove(&place);
            let swept = tokio::task::spawn_blocking(move || this.dataplane.sweep(place)).await;
            if let Ok(Err(error)) = swept {
                tracing::warn!(
                    error = sentence(&error),
                    "devices that nothing needs are left until the next change"
                );
            }
        });
    }

    /// Ends the flows of addresses that nobody has any more, beside all else: who gets such an address before that waits until
    /// it is done. What is left when holm ends is judged by its next start.
    fn part_later(self: &Arc<Self>, id: NetworkId) {
        let is_any = self.judged().get(&id).is_some_and(|judged| !judged.departed.is_empty());
        if !is_any || !self.parting().insert(id) {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(PART).await;
            this.parting().remove(&id);
            // Nobody is given one of these addresses meanwhile.
            let _turn = this.turn.lock().await;
            let here = Arc::clone(&this);
            let ended = tokio::task::spawn_blocking(move || here.end_departed(id)).await;
            if let Ok(Err(error)) = ended {
                tracing::warn!(network = %id, error = sentence(&error), "flows of departed addresses end later");
            }
        });
    }

    fn end_departed(&self, id: NetworkId) -> Result<(), NetworkError> {
        // After a run that failed it is not known what the namespace lets pass.
        let departed = match self.judged().get(&id) {
            Some(Judged { view: Some(_), departed }) if !departed.is_empty() => departed.clone(),
            _ => return Ok(()),
        };
        let ended = conntrack::forget(&*self.dataplane.namespace(Place::Network(id))?, &departed)?;
        tracing::debug!(network = %id, ended, "flows of addresses that nobody has any more");
        if let Some(judged) = self.judged().get_mut(&id) {
            judged.departed.clear();
        }
        Ok(())
    }

    /// Applies the plan of a namespace and ends the flows that may no longer be, or removes the namespace. Gives what
    /// was applied.
    fn write(&self, place: Place) -> Result<Option<Outcome>, NetworkError> {
        let outcome = match place {
            Place::Network(id) => self.write_network(id)?,
            Place::Router(id) => self.write_router(id)?,
            Place::External(id) => self.write_external(id)?,
            // Has more to it than its plan; see `run_host`.
            Place::Host => return Ok(None),
        };
        if outcome.is_none() {
            self.dataplane.remove(place)?;
        }
        Ok(outcome)
    }

    fn write_network(&self, id: NetworkId) -> Result<Option<Outcome>, NetworkError> {
        let Some(mut view) = self.gather.network(id) else {
            self.judged().remove(&id);
            return Ok(None);
        };
        self.leave_out_early(&mut view);
        let host_device = self.dataplane.settings().host_only_device(id);
        let place = Place::Network(id);
        let Judged { view: before, mut departed } = self.judged().remove(&id).unwrap_or_default();
        departed.extend(before.iter().flat_map(|before| view.departed_since(before)));
        // What is written in part and fails may let flows begin: they are judged then, whatever comes next.
        self.judged().insert(id, Judged { view: None, departed: departed.clone() });
        // Nobody has these addresses at this moment, so nobody's flows end that should not.
        let again: BTreeSet<IpAddr> =
            view.ports.iter().flat_map(Port::ips).filter(|ip| departed.contains(ip)).collect();
        if !again.is_empty() {
            let ended = conntrack::forget(&*self.dataplane.namespace(place)?, &again)?;
            tracing::debug!(network = %id, ended, "flows of addresses that are another's now");
        }
        let outcome = self.dataplane.apply(&dataplane::network::compile(&view, &host_device))?;
        // Looking through the kernel's table takes longer than all the rest of a run. A port that comes in ends no flow, and
        // those of one that went harm nobody until its address is another's.
        let holds = before.is_some_and(|before| view.allows_all_of(&before, &departed));
        if holds && departed.len() <= DEPARTED_MAX {
            departed.retain(|ip| !again.contains(ip));
        } else {
            let ended = conntrack::revoke(&*self.dataplane.namespace(place)?, &view)?;
            tracing::debug!(network = %id, ended, "flows that no rule allows");
            departed.clear();
        }
        self.judged().insert(id, Judged { view: Some(view), departed });
        Ok(Some(outcome))
    }

    /// Takes the devices out of a view whose container has no namespace yet: the run that its start asks for makes them in
    /// there. Made here, they would have to be moved, for which the kernel takes tens of milliseconds.
    fn leave_out_early(&self, view: &mut NetworkView) {
        let holders = view.attached().filter(|(_, attachment)| *attachment == Attachment::Veth);
        let holders = holders.filter_map(|(port, _)| Some((port.meta.id, port.instance()?)));
        let early = holders.filter(|(_, holder)| !self.dataplane.has_room(*holder));
        let early: BTreeSet<PortId> = early.map(|(port, _)| port).collect();
        view.attachments.retain(|port, _| !early.contains(port));
    }

    fn sweeping(&self) -> std::sync::MutexGuard<'_, HashSet<Place>> {
        // A set of names is never half changed.
        self.sweeping.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn parting(&self) -> std::sync::MutexGuard<'_, HashSet<NetworkId>> {
        // A set of ids is never half changed.
        self.parting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn judged(&self) -> std::sync::MutexGuard<'_, HashMap<NetworkId, Judged>> {
        // Views are put in whole, so a panic elsewhere leaves none half done.
        self.judged.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write_router(&self, id: RouterId) -> Result<Option<Outcome>, NetworkError> {
        let Some(view) = self.gather.router(id) else {
            self.leads().remove(&id);
            self.unjudged.forget(id);
            return Ok(None);
        };
        let write = || -> Result<(Outcome, bool), NetworkError> {
            let outcome = self.dataplane.apply(&dataplane::router::compile(&view))?;
            let moved = self.led_elsewhere(&view);
            let outside = view.outside.as_ref().and_then(|outside| self.gather.external(outside.network));
            if let Some(outside) = outside {
                self.tell_again(&outside.network, &moved);
            }
            let is_changed = outcome.changed;
            Ok((outcome, is_changed))
        };
        let judge = || -> Result<(), NetworkError> {
            let ended = conntrack::retranslate(&*self.dataplane.namespace(Place::Router(id))?, &view)?;
            tracing::debug!(router = %id, ended, "flows with an old translation");
            Ok(())
        };
        self.unjudged.write(id, write, judge).map(Some)
    }

    fn write_external(&self, id: NetworkId) -> Result<Option<Outcome>, NetworkError> {
        let Some(view) = self.gather.external(id) else {
            return Ok(None);
        };
        let host_device = self.dataplane.settings().external_device(id);
        let outcome = self.dataplane.apply(&dataplane::external::compile(&view, &host_device))?;
        self.tell_again(&view.network, &outcome.moved);
        Ok(Some(outcome))
    }

    /// Floating IPs that lead to another port than when their router was last written.
    fn led_elsewhere(&self, view: &RouterView) -> Vec<IpAddr> {
        let now = view.floating_ips.iter().filter_map(|floating| Some((floating.address, floating.target?)));
        let now: BTreeMap<IpAddr, Target> = now.collect();
        let old = self.leads().insert(view.router.meta.id, now.clone()).unwrap_or_default();
        let is_moved =
            |(address, target): &(IpAddr, Target)| old.get(address).is_some_and(|old| old != target);
        now.into_iter().filter(is_moved).map(|(address, _)| address).collect()
    }

    /// Tells the LAN of an external network, where it is one's, that addresses have moved: those that keep state by
    /// address begin anew.
    fn tell_again(&self, network: &Network, moved: &[IpAddr]) {
        let interface = network.external().and_then(|external| external.interface.clone());
        if let (Some(interface), false) = (interface, moved.is_empty()) {
            let again: Vec<_> = moved.iter().map(|address| (interface.clone(), *address)).collect();
            announce(&self.dataplane.host(), &again);
        }
    }

    fn leads(&self) -> std::sync::MutexGuard<'_, HashMap<RouterId, BTreeMap<IpAddr, Target>>> {
        // What is in it is put in whole, so a panic elsewhere leaves none half done.
        self.leads.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn run_host(self: &Arc<Self>) -> Result<(), NetworkError> {
        let mut published = self.published.lock().await;
        let host = self.dataplane.host();
        let wanted = self.gather.published();
        let admission = published.admit(&host, wanted).map_err(NetworkError::Listeners)?;
        let (this, before) = (Arc::clone(self), published.in_force().clone());
        let written = tokio::task::spawn_blocking(move || {
            this.write_host(&admission, &before).map(|left_out| (admission, left_out))
        });
        let (admission, left_out) = written.await.map_err(|_| NetworkError::Stopping)??;
        published.note(self.gather.store(), &host, admission).await;
        ranges::tell(self.gather.store(), &mut *self.left_out.lock().await, left_out).await;
        Ok(())
    }

    /// Whether a program of the host has come to a published port: no record tells of that.
    ///
    /// # Errors
    /// When the host's sockets cannot be read.
    pub async fn is_published_stale(self: &Arc<Self>) -> Result<bool, NetworkError> {
        let wanted = self.gather.published();
        if wanted.is_empty() {
            return Ok(false);
        }
        let this = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || {
            this.published.blocking_lock().is_stale(&this.dataplane.host(), wanted)
        });
        looked.await.map_err(|_| NetworkError::Stopping)?.map_err(NetworkError::Listeners)
    }

    /// Gives the ranges that were left to the host's owner.
    fn write_host(
        &self,
        admission: &Admission,
        before: &BTreeSet<Publication>,
    ) -> Result<BTreeSet<IpNet>, NetworkError> {
        let externals: Vec<_> =
            self.gather.external_ids().into_iter().filter_map(|id| self.gather.external(id)).collect();
        let networks = self.gather.host_only_ids().into_iter().filter_map(|id| self.gather.network(id));
        let host_only: Vec<_> = networks.collect();
        let settings = self.dataplane.settings();
        let mut plan = dataplane::host::compile(settings, &externals, &host_only);
        let publications = admission.publications();
        dataplane::publish::publish(settings, &publications, &mut plan);
        let outcome = self.dataplane.apply(&plan)?;
        announce(&self.dataplane.host(), &outcome.announcements);
        let now: BTreeSet<Publication> = publications.into_iter().collect();
        if now != *before {
            let ended = conntrack::unpublish(&self.dataplane.host(), &externals, before, &now)?;
            tracing::debug!(ended, "flows to ports that are not published any more");
        }
        Ok(outcome.left_out)
    }

    async fn serve(&self, id: NetworkId, outcome: Outcome) -> Result<(), NetworkError> {
        let mut servers = self.servers.lock().await;
        let running = servers.get_mut(&id).is_some_and(NetworkServers::is_running);
        if !running {
            if let Some(old) = servers.remove(&id) {
                old.stop().await;
            }
            let ns = self.dataplane.namespace(Place::Network(id))?;
            let started = NetworkServers::start(&ns, id, Arc::clone(&self.directory), self.upstream.clone())
                .map_err(|source| NetworkError::Servers { network: id, source })?;
            servers.insert(id, started);
        }
        if let Some(servers) = servers.get(&id) {
            servers.set_devices(outcome.devices);
        }
        Ok(())
    }

    async fn end_servers(&self, id: NetworkId) {
        let old = self.servers.lock().await.remove(&id);
        if let Some(old) = old {
            old.stop().await;
        }
    }

    /// Stops every server, for the end of the daemon. Namespaces and guests stay.
    pub async fn stop(&self) {
        self.published.lock().await.stop();
        for (_, servers) in self.servers.lock().await.drain() {
            servers.stop().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_judged_until_that_has_come_to_its_end() {
        let (unjudged, id) = (Unjudged::default(), RouterId::from_random([1; 16]));
        for (write, judge, is_judged) in [
            (Ok(true), Err("the table could not be read"), true),
            // What was written is no change any more.
            (Ok(false), Err("once more"), true),
            (Ok(false), Ok(()), true),
            (Ok(false), Ok(()), false),
            // Written in part, or not at all: nobody knows.
            (Err("refused"), Ok(()), false),
            (Ok(false), Ok(()), true),
            (Ok(false), Ok(()), false),
            (Ok(true), Ok(()), true),
        ] {
            let mut was_judged = false;
            let outcome = unjudged.write(
                id,
                || write.map(|is_changed| ((), is_changed)),
                || {
                    was_judged = true;
                    judge
                },
            );
            assert_eq!(was_judged, is_judged, "{write:?} {judge:?}");
            assert_eq!(outcome.is_ok(), write.is_ok() && (judge.is_ok() || !is_judged));
        }
    }
}
