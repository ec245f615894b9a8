//! One connection: name, TCP, TLS, HTTP/1.1, each with its own deadline.

use super::{RegistryError, Settings, web::is_public};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Registries whose way (TLS or plain) is remembered.
const KNOWN_MAX: usize = 256;

/// Whom to call, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Authority {
    /// Host name or address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) scheme: Scheme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Https,
    Http,
    /// TLS first; plain if the other side speaks no TLS. Only for loopback and listed registries.
    Either,
}

impl Authority {
    /// As in a `Host` header and in messages.
    pub(super) fn host_port(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.scheme, self.port) {
            (Scheme::Https, 443) | (Scheme::Http, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// Where a request may lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Guard {
    /// Anywhere.
    Free,
    /// Not to this machine and its link: a registry elsewhere named it.
    NotHere {
        /// The registry.
        from: String,
    },
    /// To public addresses alone.
    Public {
        /// The registry that named it; `None` for the registry itself.
        from: Option<String>,
    },
}

impl Guard {
    fn judge(&self, host: &str, addresses: &[SocketAddr]) -> Result<(), RegistryError> {
        let any = |is: fn(IpAddr) -> bool| addresses.iter().any(|address| is(address.ip()));
        let host = || host.to_string();
        match self {
            Self::NotHere { from } if any(is_local) => {
                Err(RegistryError::LocalRedirect { from: from.clone(), host: host() })
            }
            Self::Public { from } if any(|address| !is_public(address)) => {
                Err(RegistryError::Private { from: from.clone(), host: host() })
            }
            _ => Ok(()),
        }
    }
}

/// What a request carries.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Nothing.
pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Makes connections.
#[derive(Debug)]
pub(super) struct Dialer {
    tls: Arc<ClientConfig>,
    resolve_timeout: Duration,
    connect_timeout: Duration,
    tls_timeout: Duration,
    answer_timeout: Duration,
    /// What [`Scheme::Either`] turned out to be.
    known: Mutex<HashMap<(String, u16), Scheme>>,
}

/// An answer whose body still comes. The connection ends with it.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    _driver: AbortOnDrop,
}

impl Answer {
    /// The answer, and what keeps its connection going as long as it lives.
    pub(super) fn into_parts(self) -> (Response<Incoming>, impl Send + use<>) {
        (self.response, self._driver)
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Dialer {
    pub(super) fn new(settings: &Settings) -> Result<Self, RegistryError> {
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| RegistryError::Setting { setting: "tls".into(), reason: error.to_string() })?
            .with_root_certificates(trusted_roots(settings)?)
            .with_no_client_auth();
        Ok(Self {
            tls: Arc::new(tls),
            resolve_timeout: settings.resolve_timeout,
            connect_timeout: settings.connect_timeout,
            tls_timeout: settings.tls_timeout,
            answer_timeout: settings.answer_timeout,
            known: Mutex::default(),
        })
    }

    /// Sends one request and waits for the head of its answer. `sending` is the time that the request's own body may
    /// take.
    pub(super) async fn send(
        &self,
        to: &Authority,
        request: Request<Body>,
        guard: &Guard,
        sending: Duration,
    ) -> Result<Answer, RegistryError> {
        let stream = self.dial(to, guard).await?;
        self.exchange(to, stream, request, sending).await
    }

    /// As [`Self::send`], to one of `addresses`, which the caller has looked up and judged.
    pub(super) async fn send_to(
        &self,
        to: &Authority,
        addresses: &[SocketAddr],
        request: Request<Body>,
    ) -> Result<Answer, RegistryError> {
        let host = to.host_port();
        let tcp = self.connect_to_one(&host, addresses).await?;
        let stream: Box<dyn Stream> = match to.scheme {
            Scheme::Http => Box::new(tcp),
            Scheme::Https | Scheme::Either => match self.shake_hands(to, tcp).await? {
                Ok(stream) => Box::new(stream),
                Err(source) => return Err(RegistryError::Connect { host, source }),
            },
        };
        self.exchange(to, stream, request, Duration::ZERO).await
    }

    /// The addresses of a name.
    pub(super) async fn resolve(&self, to: &Authority) -> Result<Vec<SocketAddr>, RegistryError> {
        let host = to.host_port();
        let failed = |source| RegistryError::Connect { host: host.clone(), source };
        let lookup = async { tokio::net::lookup_host((to.host.as_str(), to.port)).await.map_err(failed) };
        let found = within(&host, "resolve", self.resolve_timeout, lookup).await?;
        Ok(found.take(ADDRESSES_MAX).collect())
    }

    async fn exchange(
        &self,
        to: &Authority,
        stream: Box<dyn Stream>,
        request: Request<Body>,
        sending: Duration,
    ) -> Result<Answer, RegistryError> {
        let host = to.host_port();
        let broken = |source| RegistryError::Http { host: host.clone(), source };
        let answer = async {
            let (mut sender, connection) = http1::Builder::new()
                .max_buf_size(HEAD_BYTES_MAX)
                .handshake::<_, Body>(TokioIo::new(stream))
                .await
                .map_err(broken)?;
            // What goes wrong with the connection is seen by whoever reads the answer.
            let driver = AbortOnDrop(tokio::spawn(async move {
                let _ = connection.await;
            }));
            let response = sender.send_request(request).await.map_err(broken)?;
            Ok(Answer { response, _driver: driver })
        };
        within(&host, "answer", self.answer_timeout + sending, answer).await
    }

    async fn dial(&self, to: &Authority, guard: &Guard) -> Result<Box<dyn Stream>, RegistryError> {
        let scheme = match to.scheme {
            Scheme::Either => {
                self.known().get(&(to.host.clone(), to.port)).copied().unwrap_or(Scheme::Either)
            }
            scheme => scheme,
        };
        let tcp = self.connect(to, guard).await?;
        if scheme == Scheme::Http {
            return Ok(Box::new(tcp));
        }
        match self.shake_hands(to, tcp).await? {
            Ok(stream) => {
                self.remember(to, Scheme::Https);
                Ok(Box::new(stream))
            }
            Err(error) if scheme == Scheme::Either && speaks_no_tls(&error) => {
                self.remember(to, Scheme::Http);
                Ok(Box::new(self.connect(to, guard).await?))
            }
            Err(source) => Err(RegistryError::Connect { host: to.host_port(), source }),
        }
    }

    /// TLS on a connection; the inner error is the handshake's own.
    async fn shake_hands(
        &self,
        to: &Authority,
        tcp: TcpStream,
    ) -> Result<io::Result<TlsStream<TcpStream>>, RegistryError> {
        let host = to.host_port();
        let name = ServerName::try_from(to.host.clone()).map_err(|error| RegistryError::Connect {
            host: host.clone(),
            source: io::Error::other(error),
        })?;
        let handshake = TlsConnector::from(self.tls.clone()).connect(name, tcp);
        within(&host, "finish the TLS handshake", self.tls_timeout, async { Ok(handshake.await) }).await
    }

    async fn connect(&self, to: &Authority, guard: &Guard) -> Result<TcpStream, RegistryError> {
        let host = to.host_port();
        // What was judged is what is called.
        let addresses = self.resolve(to).await?;
        guard.judge(&host, &addresses)?;
        self.connect_to_one(&host, &addresses).await
    }

    async fn connect_to_one(&self, host: &str, addresses: &[SocketAddr]) -> Result<TcpStream, RegistryError> {
        let failed = |source| RegistryError::Connect { host: host.to_string(), source };
        let mut last = failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        for address in addresses {
            let attempt = async { TcpStream::connect(address).await.map_err(failed) };
            match within(host, "take the connection", self.connect_timeout, attempt).await {
                Ok(stream) => {
                    // Requests are one small write each; a delay would only cost.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<(String, u16), Scheme>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, to: &Authority, scheme: Scheme) {
        if to.scheme == Scheme::Either {
            let mut known = self.known();
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            known.insert((to.host.clone(), to.port), scheme);
        }
    }
}

/// Runs a phase with its deadline.
pub(super) async fn within<T>(
    host: &str,
    phase: &'static str,
    after: Duration,
    work: impl Future<Output = Result<T, RegistryError>>,
) -> Result<T, RegistryError> {
    match tokio::time::timeout(after, work).await {
        Ok(result) => result,
        Err(_) => Err(RegistryError::Timeout { host: host.to_string(), phase, after }),
    }
}

/// Whether the failed handshake looks like a server of plain HTTP. A bad certificate does not.
fn speaks_no_tls(error: &io::Error) -> bool {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => true,
        Some(_) => false,
        None => matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset),
    }
}

/// Loopback, link-local (where metadata services live) and unspecified addresses.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => {
            v6.to_ipv4_mapped().is_some_and(|v4| is_local(IpAddr::V4(v4)))
                || v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unicast_link_local()
        }
    }
}

/// The machine's trusted roots, Mozilla's where it has none, and the operator's own.
fn trusted_roots(settings: &Settings) -> Result<RootCertStore, RegistryError> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for path in &settings.certificate_authorities {
        let wrong = |reason: String| RegistryError::Setting { setting: path.display().to_string(), reason };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
    }
    Ok(roots)
}
