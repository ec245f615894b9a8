//! TLS: a certificate of one's own or one that holm signs for itself at its first start and keeps.

use super::{Accept, Bounds, Connections, ServerError, guard::Guarded, tcp};
use crate::{auth::Peer, client::fingerprint, limits::HANDSHAKE_TIMEOUT};
use axum::Router;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    fs::OpenOptions,
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Files with certificate chain and key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Certificate and those between it and its CA.
    pub certificate: PathBuf,
    /// Private key; readable by its owner alone.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// The files in a directory where holm keeps its own.
    pub fn in_directory(directory: &Path) -> Self {
        Self { certificate: directory.join("cert.pem"), key: directory.join("key.pem") }
    }

    /// Makes a key and a certificate signed by itself for these host names and addresses, unless both files are
    /// there. One without the other is an error: nothing is overwritten.
    ///
    /// # Errors
    /// A file cannot be written, or only one is there.
    pub fn ensure(&self, names: &[String]) -> Result<(), ServerError> {
        match (self.certificate.exists(), self.key.exists()) {
            (true, true) => Ok(()),
            (false, false) => self.make(names),
            (true, false) => Err(self.alone(&self.certificate, &self.key)),
            (false, true) => Err(self.alone(&self.key, &self.certificate)),
        }
    }

    fn alone(&self, there: &Path, missing: &Path) -> ServerError {
        ServerError::Certificate {
            path: there.display().to_string(),
            reason: format!("it is there but {} is not; put both or none", missing.display()),
        }
    }

    fn make(&self, names: &[String]) -> Result<(), ServerError> {
        let wrong = |error: rcgen::Error| ServerError::Certificate {
            path: self.certificate.display().to_string(),
            reason: error.to_string(),
        };
        let key = KeyPair::generate().map_err(wrong)?;
        let mut params = CertificateParams::new(names.to_vec()).map_err(wrong)?;
        params.distinguished_name.push(DnType::CommonName, "holm");
        let certificate = params.self_signed(&key).map_err(wrong)?;
        for file in [&self.certificate, &self.key] {
            if let Some(directory) = file.parent() {
                std::fs::create_dir_all(directory)
                    .map_err(ServerError::io(format!("making {}", directory.display())))?;
            }
        }
        // The key first: a crash between the two leaves a key without certificate, which `ensure` tells.
        write_new(&self.key, 0o600, key.serialize_pem().as_bytes())?;
        write_new(&self.certificate, 0o644, certificate.pem().as_bytes())
    }

    /// Reads both files.
    ///
    /// # Errors
    /// A file is missing, broken, or they do not belong together.
    pub fn load(&self) -> Result<Certificate, ServerError> {
        let wrong = |path: &Path, reason: String| ServerError::Certificate {
            path: path.display().to_string(),
            reason,
        };
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| wrong(&self.certificate, e.to_string()))?;
        let Some(first) = chain.first() else {
            return Err(wrong(&self.certificate, "no certificate in it".to_string()));
        };
        let shown = fingerprint(first);
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| wrong(&self.key, e.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong(&self.certificate, e.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|e| wrong(&self.key, e.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Certificate { config: Arc::new(config), fingerprint: shown })
    }
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), ServerError> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(ServerError::io(format!("writing {}", path.display())))
}

/// A certificate ready for use.
#[derive(Clone)]
pub struct Certificate {
    config: Arc<ServerConfig>,
    /// SHA-256 fingerprint, by which clients know this server.
    pub fingerprint: String,
}

/// A bound TLS listener.
pub struct TlsServer {
    listener: TcpListener,
    certificate: Certificate,
    bounds: Bounds,
}

impl TlsServer {
    /// Binds the address.
    ///
    /// # Errors
    /// The address is taken or not this host's.
    pub fn bind(address: SocketAddr, certificate: Certificate) -> Result<Self, ServerError> {
        Ok(Self { listener: tcp::bind(address)?, certificate, bounds: Bounds::default() })
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
        let connections = Connections::new(router, self.bounds, stopping);
        let acceptor = TlsAcceptor::from(Arc::clone(&self.certificate.config));
        let open = move |stream: Guarded<TcpStream>| {
            let acceptor = acceptor.clone();
            async move {
                stream.get_ref().set_nodelay(true)?;
                match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(result) => result,
                    Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
                }
            }
        };
        connections.run(&self.listener, open).await;
    }
}

impl Accept for TcpListener {
    type Connection = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, address) = TcpListener::accept(self).await?;
        Ok((stream, Peer::Tcp(address)))
    }
}
