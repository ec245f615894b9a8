//! Connections to a pod, made inside its own network namespace: no rule of a network stands between, and none is opened.

use super::{NICS, blocking, io_error, machine, read_json};
use crate::{
    container::bundle::Places,
    driver::{Dialed, DriverError},
    network::sockets::tcp_socket,
};
use model::plan::NicPlan;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use sys::netns::NetNs;
use tokio::{net::TcpSocket, time::timeout};

/// Connects to a port of the pod's first address; of itself, where it has no network. No thread waits for the answer: a pod
/// that never gives one takes as long as it likes.
pub(super) async fn dial(places: Places, port: u16, limit: Duration) -> Result<Dialed, DriverError> {
    let (socket, to) = match blocking(move || door(places, port)).await? {
        Door::Socket(socket, to) => (socket, to),
        Door::Inside(places) => return machine::dial(places, port, limit).await,
    };
    let connected =
        timeout(limit, socket.connect(to)).await.unwrap_or(Err(std::io::ErrorKind::TimedOut.into()));
    connected.map(Dialed::Tcp).map_err(io_error(format!("connect to {to}")))
}

/// Where a pod's ports are reached.
enum Door {
    /// By this socket of its network.
    Socket(TcpSocket, SocketAddr),
    /// Inside of its machine.
    Inside(Places),
}

fn door(places: Places, port: u16) -> Result<Door, DriverError> {
    if machine::of(&places).is_some() {
        return Ok(Door::Inside(places));
    }
    let nics: Vec<NicPlan> = read_json(&places.run.join(NICS)).unwrap_or_default();
    let addresses = || nics.iter().flat_map(|nic| &nic.addresses).map(ipnet::IpNet::addr);
    let first = addresses().find(IpAddr::is_ipv4).or_else(|| addresses().next());
    let to = SocketAddr::new(first.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port);
    let namespace = NetNs::open(&places.netns).map_err(|_| DriverError::NotRunning)?;
    let socket = tcp_socket(&namespace, to).map_err(io_error("make a socket in the pod's network"))?;
    Ok(Door::Socket(socket, to))
}
