//! Connections of the client: unix socket or TLS, with HTTP/1.1 on top.

use super::Error;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::{Request, Response, body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use sha2::{Digest, Sha256};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use subtle::ConstantTimeEq;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    sync::Mutex,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Body of a request.
pub(super) type Body = BoxBody<Bytes, io::Error>;
/// Time to connect, TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Port of a TLS address that names none.
pub const TLS_PORT_DEFAULT: u16 = 7788;

/// Which server is the right one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The one whose certificate has this SHA-256 fingerprint (hex digits, colons allowed).
    Fingerprint(String),
    /// One with a certificate by a CA in this PEM file, for the name that is connected to.
    Ca(PathBuf),
}

/// SHA-256 fingerprint of a certificate as people compare it: upper-case hex pairs with colons.
pub fn fingerprint(certificate_der: &[u8]) -> String {
    let digest = Sha256::digest(certificate_der);
    let pairs: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

/// Where to connect and the connection that is idle.
pub(super) struct Transport {
    target: Target,
    idle: Mutex<Option<SendRequest<Body>>>,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transport({})", self.address())
    }
}

enum Target {
    Unix(PathBuf),
    Tls { host: String, port: u16, name: ServerName<'static>, connector: TlsConnector },
}

/// A connection whose answer is being read.
pub(super) struct Connection(SendRequest<Body>);

impl Connection {
    /// Keeps the connection for the next call.
    pub(super) async fn keep(self, transport: &Transport) {
        *transport.idle.lock().await = Some(self.0);
    }
}

impl Transport {
    pub(super) fn unix(path: &Path) -> Self {
        Self { target: Target::Unix(path.to_path_buf()), idle: Mutex::new(None) }
    }

    pub(super) fn tls(address: &str, trust: &Trust) -> Result<Self, Error> {
        let (host, port) = split_address(address)?;
        let name = ServerName::try_from(host.clone())
            .map_err(|_| Error::Invalid(format!("{host:?} is no host name or address")))?;
        Ok(Self {
            target: Target::Tls {
                host,
                port,
                name,
                connector: TlsConnector::from(Arc::new(client_config(trust)?)),
            },
            idle: Mutex::new(None),
        })
    }

    pub(super) fn address(&self) -> String {
        match &self.target {
            Target::Unix(path) => path.display().to_string(),
            Target::Tls { host, port, .. } if host.contains(':') => format!("https://[{host}]:{port}"),
            Target::Tls { host, port, .. } => format!("https://{host}:{port}"),
        }
    }

    /// Value of the `Host` header.
    pub(super) fn host(&self) -> String {
        match &self.target {
            Target::Unix(_) => "holm".to_string(),
            Target::Tls { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Target::Tls { host, port, .. } => format!("{host}:{port}"),
        }
    }

    /// Sends on the idle connection, or on a new one if it is gone.
    pub(super) async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<(Response<Incoming>, Connection), Error> {
        let idle = self.idle.lock().await.take();
        let mut request = request;
        if let Some(mut sender) = idle
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok((answer, Connection(sender))),
                // The server closed the idle connection before it read anything: the request comes back unsent.
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broke(&failed.into_error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let answer = sender.send_request(request).await.map_err(|e| broke(&e))?;
        Ok((answer, Connection(sender)))
    }

    /// Sends on a connection of its own, for answers that last and for upgrades.
    pub(super) async fn send_alone(&self, request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let mut sender = self.connect().await?;
        sender.send_request(request).await.map_err(|e| broke(&e))
    }

    async fn connect(&self) -> Result<SendRequest<Body>, Error> {
        match timeout(CONNECT_TIMEOUT, self.open()).await {
            Ok(result) => result,
            Err(_) => Err(Error::Unreachable {
                address: self.address(),
                source: io::Error::from(io::ErrorKind::TimedOut),
            }),
        }
    }

    async fn open(&self) -> Result<SendRequest<Body>, Error> {
        let unreachable = |source| Error::Unreachable { address: self.address(), source };
        match &self.target {
            Target::Unix(path) => handshake(UnixStream::connect(path).await.map_err(unreachable)?).await,
            Target::Tls { host, port, name, connector } => {
                let tcp = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
                tcp.set_nodelay(true).map_err(unreachable)?;
                match connector.connect(name.clone(), tcp).await {
                    Ok(stream) => handshake(stream).await,
                    Err(e) if e.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                        Err(Error::Untrusted { address: self.address(), reason: e.to_string() })
                    }
                    Err(e) => Err(unreachable(e)),
                }
            }
        }
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Body>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broke(&e))?;
    // The task ends with the connection, which ends when the sender and all bodies and upgrades of it are dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection ended");
        }
    });
    Ok(sender)
}

fn broke(error: &hyper::Error) -> Error {
    let mut text = format!("the connection broke: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    Error::Protocol(text)
}

fn split_address(address: &str) -> Result<(String, u16), Error> {
    let wrong =
        || Error::Invalid(format!("{address:?} is no address like host:7788 or https://[fd00::1]:7788"));
    let text = address.strip_prefix("https://").unwrap_or(address).trim_end_matches('/');
    if text.is_empty() || text.contains('/') {
        return Err(wrong());
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| wrong())?,
            None if rest.is_empty() => TLS_PORT_DEFAULT,
            None => return Err(wrong()),
        };
        return Ok((host.to_string(), port));
    }
    match text.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => Ok((text.to_string(), TLS_PORT_DEFAULT)),
        Some((host, port)) if !host.is_empty() => Ok((host.to_string(), port.parse().map_err(|_| wrong())?)),
        Some(_) => Err(wrong()),
        None => Ok((text.to_string(), TLS_PORT_DEFAULT)),
    }
}

fn client_config(trust: &Trust) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Protocol(e.to_string()))?;
    match trust {
        Trust::Fingerprint(text) => Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned::new(text, provider)?))
            .with_no_client_auth()),
        Trust::Ca(path) => Ok(builder.with_root_certificates(read_roots(path)?).with_no_client_auth()),
    }
}

fn read_roots(path: &Path) -> Result<RootCertStore, Error> {
    let wrong = |reason: String| Error::Invalid(format!("CA file {}: {reason}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))? {
        roots.add(certificate.map_err(|e| wrong(e.to_string()))?).map_err(|e| wrong(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("no certificate in it".to_string()));
    }
    Ok(roots)
}

/// Trusts exactly one certificate, whatever it says of names and times: its key proves the rest.
#[derive(Debug)]
struct Pinned {
    digest: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn new(text: &str, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        let digits: String = text.chars().filter(|c| *c != ':' && !c.is_whitespace()).collect();
        let mut digest = [0; 32];
        hex::decode_to_slice(digits, &mut digest)
            .map_err(|_| Error::Invalid(format!("{text:?} is no SHA-256 fingerprint (64 hex digits)")))?;
        Ok(Self { digest, provider })
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown: [u8; 32] = Sha256::digest(end_entity).into();
        if bool::from(shown.ct_eq(&self.digest)) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General(format!("its fingerprint is {}", fingerprint(end_entity))))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, host, port) in [
            ("holm.example:1", "holm.example", 1),
            ("https://holm.example/", "holm.example", TLS_PORT_DEFAULT),
            ("[fd00::1]:99", "fd00::1", 99),
            ("[fd00::1]", "fd00::1", TLS_PORT_DEFAULT),
            ("fd00::1", "fd00::1", TLS_PORT_DEFAULT),
            ("10.0.0.1", "10.0.0.1", TLS_PORT_DEFAULT),
        ] {
            assert_eq!(split_address(text).unwrap(), (host.to_string(), port), "{text}");
        }
        for bad in ["", ":1", "a:b", "https://a/b", "[fd00::1", "[fd00::1]x"] {
            assert!(split_address(bad).is_err(), "{bad}");
        }
    }
}
