//! All servers of one network: opened together in its namespace, stopped together when it goes.
//!
//! Servers keep nothing that a restart would lose, so a restarted daemon just opens them again. Dropping the value
//! stops them and frees their ports.

use crate::network::{
    dhcp, dhcpv6,
    directory::Directory,
    dns_server::{self, DnsServer, Upstream},
    metadata::{self, MetadataServer},
    ra,
    sockets::{DatagramSocket, Devices, listen_tcp},
};
use model::{dataplane::view::METADATA_V4, id::NetworkId};
use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use sys::netns::NetNs;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// The servers of one network.
pub struct NetworkServers {
    network: NetworkId,
    devices: Devices,
    dhcpv6: Arc<DatagramSocket>,
    tasks: JoinSet<()>,
}

impl NetworkServers {
    /// Opens all servers of `network` in its namespace `ns`. Must be called on the daemon's runtime.
    ///
    /// # Errors
    /// When a socket cannot be opened: then none stays open.
    pub fn start(
        ns: &NetNs,
        network: NetworkId,
        directory: Arc<dyn Directory>,
        upstream: Upstream,
    ) -> io::Result<Self> {
        let devices = Devices::default();
        let any_v6 = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let dhcp = DatagramSocket::udp_v4(ns, dhcp::SERVER_PORT)?;
        let dhcpv6 = Arc::new(DatagramSocket::udp_v6(ns, dhcpv6::SERVER_PORT)?);
        let ra = DatagramSocket::icmp_v6(ns)?;
        let dns_udp_v4 = Arc::new(DatagramSocket::udp_v4(ns, dns_server::PORT)?);
        let dns_udp_v6 = Arc::new(DatagramSocket::udp_v6(ns, dns_server::PORT)?);
        let dns_tcp_v4 = listen_tcp(ns, (Ipv4Addr::UNSPECIFIED, dns_server::PORT).into())?;
        let dns_tcp_v6 = listen_tcp(ns, any_v6(dns_server::PORT))?;
        let metadata_v4 = listen_tcp(ns, (METADATA_V4, metadata::PORT).into())?;
        let metadata_v6 = listen_tcp(ns, any_v6(metadata::PORT))?;

        let mut tasks = JoinSet::new();
        let dns = DnsServer::new(network, directory.clone(), upstream);
        let documents = MetadataServer::new(network, directory.clone(), devices.clone());
        let mut run = |name, server| spawn(&mut tasks, network, name, server);
        run("dhcp", boxed(dhcp::serve(dhcp, network, directory.clone(), devices.clone())));
        run("dhcpv6", boxed(dhcpv6::serve(dhcpv6.clone(), network, directory.clone(), devices.clone())));
        run("ra", boxed(ra::serve(ra, network, directory, devices.clone())));
        run("dns", boxed(dns.clone().serve_udp(dns_udp_v4)));
        run("dns", boxed(dns.clone().serve_udp(dns_udp_v6)));
        run("dns", boxed(dns.clone().serve_tcp(dns_tcp_v4)));
        run("dns", boxed(dns.serve_tcp(dns_tcp_v6)));
        run("metadata", boxed(documents.clone().serve(metadata_v4)));
        run("metadata", boxed(documents.serve(metadata_v6)));
        Ok(Self { network, devices, dhcpv6, tasks })
    }

    /// Tells the servers which devices the network's ports have now, by index.
    pub fn set_devices(&self, devices: HashMap<u32, String>) {
        for index in devices.keys() {
            if let Err(error) = self.dhcpv6.join(dhcpv6::SERVERS_GROUP, *index) {
                tracing::debug!(network = %self.network, index, %error, "device left before DHCPv6 could listen on it");
            }
        }
        self.devices.set(devices);
    }

    /// Whether every server still runs. One that failed says why in the log; opening all again mends it.
    pub fn is_running(&mut self) -> bool {
        self.tasks.try_join_next().is_none()
    }

    /// Stops all servers and waits until their sockets are closed.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

type Server = std::pin::Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

fn boxed(server: impl Future<Output = io::Result<()>> + Send + 'static) -> Server {
    Box::pin(server)
}

fn spawn(tasks: &mut JoinSet<()>, network: NetworkId, name: &'static str, server: Server) {
    tasks.spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%network, server = name, %error, "server of a network ended");
        }
    });
}

/// The next connection. Errors of single connections pass; when descriptors run out it waits for some to return.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(connection) => return connection,
            Err(error) => {
                tracing::debug!(%error, "connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
