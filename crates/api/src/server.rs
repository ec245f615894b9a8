//! Listeners: the local socket and TLS, HTTP/1.1 on both, with limits and an orderly end.

mod guard;
mod places;
pub mod tcp;
pub mod tls;
pub mod unix;
mod unread;

use crate::{
    auth::Peer,
    limits::{
        CONNECTIONS_MAX, CONNECTIONS_OF_ADDRESS, DRAIN_TIMEOUT, HEADER_BYTES_MAX, HEADER_TIMEOUT,
        HEADERS_MAX, WRITE_STALL_TIMEOUT,
    },
};
use axum::Router;
use guard::Guarded;
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use places::Places;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The routes of a door, ready to be served.
pub type DoorRouter = Router;

/// Why a listener cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An operation on the host failed.
    #[error("{operation}")]
    Io {
        /// Operation and object.
        operation: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Another process answers there.
    #[error("another process answers on {0}")]
    InUse(String),
    /// A certificate or key cannot be used.
    #[error("{path}: {reason}")]
    Certificate {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
}

impl ServerError {
    fn io(operation: String) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io { operation, source }
    }
}

/// What a listener bears of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections of one remote address at a time; `None` is no limit. Of IPv6 a /64 counts as one; programs of this host,
    /// which share an address, are not counted.
    pub of_address: Option<usize>,
    /// Time for a client to send all headers, also of the next request on a kept connection.
    pub header_timeout: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub stall_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            of_address: Some(CONNECTIONS_OF_ADDRESS),
            header_timeout: HEADER_TIMEOUT,
            stall_timeout: WRITE_STALL_TIMEOUT,
        }
    }
}

/// Pause after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound listener.
trait Accept: Send + Sync {
    /// A connection as it is accepted, before any handshake.
    type Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Accepts one.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Connection, Peer)>> + Send;
}

/// Connections of one listener.
struct Connections {
    router: Router,
    bounds: Bounds,
    places: Places,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Connections {
    fn new(router: Router, bounds: Bounds, stopping: CancellationToken) -> Self {
        let places = Places::new(CONNECTIONS_MAX, bounds.of_address);
        Self { router, bounds, places, tasks: TaskTracker::new(), stopping }
    }

    /// Accepts until told to stop, then waits for what is on its way.
    ///
    /// `open` makes a stream of an accepted connection (a TLS handshake); it runs in the connection's own task.
    async fn run<A, O, F, S>(self, listener: &A, open: O)
    where
        A: Accept,
        O: Fn(Guarded<A::Connection>) -> F + Clone + Send + 'static,
        F: Future<Output = io::Result<S>> + Send,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        loop {
            let place = tokio::select! {
                () = self.stopping.cancelled() => break,
                place = self.places.wait() => place,
            };
            let (connection, peer) = tokio::select! {
                () = self.stopping.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            // A handshake to say why would cost more than the connection.
            let Some(place) = self.places.take(place, &peer) else { continue };
            let (router, stopping, open) = (self.router.clone(), self.stopping.clone(), open.clone());
            let Bounds { header_timeout, stall_timeout, .. } = self.bounds;
            let connection = Guarded::new(connection, stall_timeout, place);
            self.tasks.spawn(async move {
                match open(connection).await {
                    Ok(stream) => serve_connection(stream, router, peer, header_timeout, stopping).await,
                    Err(error) => tracing::debug!(%error, ?peer, "a connection could not be opened"),
                }
            });
        }
        self.tasks.close();
        if timeout(DRAIN_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "connections were cut off");
        }
    }
}

async fn serve_connection<S>(
    stream: S,
    router: Router,
    peer: Peer,
    header_timeout: Duration,
    stopping: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let request = unread::discarding(request);
        hyper::service::Service::call(&TowerToHyperService::new(router.clone()), request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, ?peer, "a connection ended badly");
    }
}
