//! Published ports at the host's own `[::1]`.
//!
//! The kernel lets no packet leave with the loopback's IPv6 address, whatever it is translated to. So a program on
//! the host that connects to `[::1]:8080` is answered here, and its bytes are passed on to the outside address. (IPv4
//! loopback and every other address of the host are translated in the kernel.) TCP alone; a relay ends with its
//! publication, and its connections with it.

use super::sockets;
use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use sys::netns::NetNs;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};

/// Most connections of one relay at a time; further ones wait to be accepted.
pub const CONNECTIONS_MAX: usize = 256;
/// Longest wait for the instance to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The running relays of a host, by port.
#[derive(Debug, Default)]
pub struct Relays {
    running: HashMap<u16, Relay>,
}

#[derive(Debug)]
struct Relay {
    target: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relays {
    /// Ports that are relayed now.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.running.keys().copied()
    }

    /// Makes the running relays those that are wanted: from port to outside address. Gives what could not be opened.
    /// Must be called inside the runtime.
    pub fn set(&mut self, host: &Arc<NetNs>, wanted: &BTreeMap<u16, SocketAddr>) -> Vec<(u16, io::Error)> {
        self.running
            .retain(|port, relay| wanted.get(port) == Some(&relay.target) && !relay.task.is_finished());
        let mut refused = Vec::new();
        for (&port, &target) in wanted {
            if self.running.contains_key(&port) {
                continue;
            }
            match sockets::listen_tcp(host, (Ipv6Addr::LOCALHOST, port).into()) {
                Ok(listener) => {
                    let task = tokio::spawn(serve(listener, Arc::clone(host), target));
                    self.running.insert(port, Relay { target, task });
                }
                Err(error) => refused.push((port, error)),
            }
        }
        refused
    }
}

async fn serve(listener: TcpListener, host: Arc<NetNs>, target: SocketAddr) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Dropped with this task, so that no connection outlives its publication.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((client, _)) => {
                let host = Arc::clone(&host);
                connections.spawn(async move {
                    if let Err(error) = pass(client, &host, target).await {
                        tracing::debug!(%target, %error, "a relayed connection ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%target, %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn pass(mut client: TcpStream, host: &NetNs, target: SocketAddr) -> io::Result<()> {
    let socket = sockets::tcp_socket(host, target)?;
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(target)).await;
    let mut server = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
