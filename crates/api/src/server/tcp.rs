//! Plain HTTP on loopback: for clients on the same machine. Nothing secret may leave the machine in the clear, so other
//! addresses are refused.

use super::{Connections, ServerError};
use axum::Router;
use std::{io, net::SocketAddr};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A bound listener on loopback.
#[derive(Debug)]
pub struct LoopbackServer {
    listener: TcpListener,
}

impl LoopbackServer {
    /// Binds the address.
    ///
    /// # Errors
    /// The address is taken, or not of this host alone.
    pub async fn bind(address: SocketAddr) -> Result<Self, ServerError> {
        if !address.ip().is_loopback() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "plain HTTP is for loopback alone");
            return Err(ServerError::io(format!("listening on {address}"))(source));
        }
        let listener = TcpListener::bind(address).await.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => ServerError::InUse(address.to_string()),
            _ => ServerError::io(format!("listening on {address}"))(error),
        })?;
        Ok(Self { listener })
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
        let open = |stream: TcpStream| async move {
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        Connections::new(router, stopping).run(&self.listener, open).await;
    }
}
