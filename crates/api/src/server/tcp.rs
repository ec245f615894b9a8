//! Plain HTTP on loopback: for clients on the same machine. Nothing secret may leave the machine in the clear, so other
//! addresses are refused.

use super::{Bounds, Connections, ServerError, guard::Guarded};
use axum::Router;
use std::{io, net::SocketAddr};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

/// Most connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Binds an address. Clients that have vanished are found out in the kernel's time (tcp(7), two hours), though nothing be sent to
/// them: accepted sockets have SO_KEEPALIVE from the listening one.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.set_keepalive(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => ServerError::InUse(address.to_string()),
        _ => ServerError::io(format!("listening on {address}"))(error),
    })
}

/// A bound listener on loopback.
#[derive(Debug)]
pub struct LoopbackServer {
    listener: TcpListener,
    bounds: Bounds,
}

impl LoopbackServer {
    /// Binds the address.
    ///
    /// # Errors
    /// The address is taken, or not of this host alone.
    pub fn bind(address: SocketAddr) -> Result<Self, ServerError> {
        if !address.ip().is_loopback() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "plain HTTP is for loopback alone");
            return Err(ServerError::io(format!("listening on {address}"))(source));
        }
        Ok(Self { listener: bind(address)?, bounds: Bounds::default() })
    }

    /// The same with other bounds.
    pub fn with_bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stopping` is cancelled and what is on its way has ended.
    pub async fn serve(self, router: Router, stopping: CancellationToken) {
        let open = |stream: Guarded<TcpStream>| async move {
            stream.get_ref().set_nodelay(true)?;
            Ok(stream)
        };
        Connections::new(router, self.bounds, stopping).run(&self.listener, open).await;
    }
}
