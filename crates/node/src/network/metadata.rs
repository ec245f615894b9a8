//! The metadata service: HTTP on 169.254.169.254 (and `fe80::a9fe:a9fe`), inside each network's namespace.
//!
//! The accepting socket tells the network and the sender's address the port; anti-spoof rules make sure that it is
//! the sender's own. Nothing in the request itself is believed: headers such as X-Forwarded-For are not read.

use crate::network::{
    directory::Directory,
    limit::{Rate, RateLimit},
    sockets::Devices,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::{
    id::{NetworkId, PortId},
    metadata::Document,
};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

/// Port of the service.
pub const PORT: u16 = 80;
/// Connections of one network at once.
const CONNECTIONS_MAX: usize = 128;
/// Longest request head in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Longest path in bytes.
const PATH_BYTES_MAX: usize = 1024;
/// How long a client may take over a request's head.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a connection may live.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// Requests of one guest: bursts of 200 (cloud-init walks the tree), then 20 a second.
const RATE: Rate = Rate { burst: 200.0, per_second: 20.0 };

/// What all requests of one network share.
#[derive(Clone)]
pub struct MetadataServer {
    network: NetworkId,
    directory: Arc<dyn Directory>,
    devices: Devices,
    connections: Arc<Semaphore>,
    limit: Arc<Mutex<RateLimit<PortId>>>,
}

impl MetadataServer {
    /// A server for `network`.
    pub fn new(network: NetworkId, directory: Arc<dyn Directory>, devices: Devices) -> Self {
        Self {
            network,
            directory,
            devices,
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            limit: Arc::new(Mutex::new(RateLimit::new(RATE))),
        }
    }

    /// Serves a listener until the task is dropped.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok(permit) = self.connections.clone().acquire_owned().await else {
                return Ok(());
            };
            let (stream, peer) = crate::network::servers::accept(&listener).await;
            let Some(port) = self.port_of(peer) else { continue };
            let server = self.clone();
            tasks.spawn(async move {
                let _permit = permit;
                let service = hyper::service::service_fn(|request| {
                    std::future::ready(Ok::<_, Infallible>(server.answer(port, &request)))
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIME)
                    .max_buf_size(HEAD_BYTES_MAX)
                    .serve_connection(TokioIo::new(stream), service);
                let _ = timeout(CONNECTION_TIME, connection).await;
            });
        }
    }

    /// Whose request this is: the address tells, and on link-local addresses the device.
    fn port_of(&self, peer: SocketAddr) -> Option<PortId> {
        match peer {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
                let device = self.devices.name(v6.scope_id())?;
                self.directory.port_of_device(self.network, &device)
            }
            _ => self.directory.port_of_address(self.network, peer.ip().to_canonical()),
        }
        .map(|facts| facts.port)
    }

    fn answer(&self, port: PortId, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !self.limit.lock().unwrap_or_else(|e| e.into_inner()).take(port, Instant::now()) {
            return plain(StatusCode::TOO_MANY_REQUESTS, "too many requests: wait a second\n");
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
        }
        let path = request.uri().path();
        if path.len() > PATH_BYTES_MAX {
            return plain(StatusCode::URI_TOO_LONG, "no document has so long a path\n");
        }
        match self.directory.document(port, path) {
            Some(document) => found(document),
            None => plain(StatusCode::NOT_FOUND, "no such document\n"),
        }
    }
}

fn found(document: Document) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(document.body)));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(document.content_type));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    response
}
