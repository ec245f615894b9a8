//! Networks made true: one key per namespace. A run gathers the view, compiles it, applies the plan, flushes flows
//! that may no longer be, and keeps the servers of a network running.

use super::{
    announce::announce,
    apply::{ApplyError, Dataplane, Outcome},
    conntrack,
    directory::Directory,
    gather::Gather,
    published::{Admission, Published},
    servers::NetworkServers,
};
use model::{
    dataplane::{self, namespace::Place, publish::Publication},
    id::{NetworkId, RouterId},
};
use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::Arc,
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
    // One application at a time: instances ask for their network beside the loop.
    turn: Mutex<()>,
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
            turn: Mutex::default(),
        }
    }

    /// Every namespace that should be, and those that are and should not be any more.
    pub fn places(&self) -> Vec<Place> {
        let networks = self.gather.network_ids().into_iter().map(Place::Network);
        let routers = self.gather.router_ids().into_iter().map(Place::Router);
        let externals = self.gather.external_ids().into_iter().map(Place::External);
        networks.chain(routers).chain(externals).chain([Place::Host]).collect()
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
        let _turn = self.turn.lock().await;
        if place == Place::Host {
            return self.run_host().await;
        }
        let this = Arc::clone(self);
        let outcome = tokio::task::spawn_blocking(move || this.write(place)).await;
        let outcome = outcome.map_err(|_| NetworkError::Stopping)??;
        if let Place::Network(id) = place {
            match outcome {
                Some(outcome) => self.serve(id, outcome).await?,
                None => self.end_servers(id).await,
            }
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
        let Some(view) = self.gather.network(id) else {
            return Ok(None);
        };
        let host_device = self.dataplane.settings().host_only_device(id);
        let outcome = self.dataplane.apply(&dataplane::network::compile(&view, &host_device))?;
        if outcome.changed {
            let ended = conntrack::revoke(&*self.dataplane.namespace(Place::Network(id))?, &view)?;
            tracing::debug!(network = %id, ended, "flows that no rule allows");
        }
        Ok(Some(outcome))
    }

    fn write_router(&self, id: RouterId) -> Result<Option<Outcome>, NetworkError> {
        let Some(view) = self.gather.router(id) else {
            return Ok(None);
        };
        let outcome = self.dataplane.apply(&dataplane::router::compile(&view))?;
        if outcome.changed {
            let ended = conntrack::retranslate(&*self.dataplane.namespace(Place::Router(id))?, &view)?;
            tracing::debug!(router = %id, ended, "flows with an old translation");
        }
        Ok(Some(outcome))
    }

    fn write_external(&self, id: NetworkId) -> Result<Option<Outcome>, NetworkError> {
        let Some(view) = self.gather.external(id) else {
            return Ok(None);
        };
        let host_device = self.dataplane.settings().external_device(id);
        let outcome = self.dataplane.apply(&dataplane::external::compile(&view, &host_device))?;
        let interface = view.network.external().and_then(|e| e.interface.clone());
        if let (Some(interface), false) = (interface, outcome.moved.is_empty()) {
            let again: Vec<_> = outcome.moved.iter().map(|address| (interface.clone(), *address)).collect();
            announce(&self.dataplane.host(), &again);
        }
        Ok(Some(outcome))
    }

    async fn run_host(self: &Arc<Self>) -> Result<(), NetworkError> {
        let mut published = self.published.lock().await;
        let host = self.dataplane.host();
        let wanted = self.gather.published();
        let admission = published.admit(&host, wanted).map_err(NetworkError::Listeners)?;
        let (this, before) = (Arc::clone(self), published.in_force().clone());
        let written =
            tokio::task::spawn_blocking(move || this.write_host(&admission, &before).map(|()| admission));
        let admission = written.await.map_err(|_| NetworkError::Stopping)??;
        published.note(self.gather.store(), &host, admission).await;
        Ok(())
    }

    fn write_host(&self, admission: &Admission, before: &BTreeSet<Publication>) -> Result<(), NetworkError> {
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
        Ok(())
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
