//! Listeners of doors that have an address of their own: plain HTTP on loopback, TLS elsewhere.

use super::{Dirs, ServeError, identity};
use api::server::{
    Bounds, DoorRouter,
    tcp::LoopbackServer,
    tls::{CertificateFiles, TlsServer},
};
use std::{net::SocketAddr, str::FromStr};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Where a door listens, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    pub(super) address: SocketAddr,
    pub(super) is_tls: bool,
}

impl FromStr for Listen {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) =
            text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
        let address: SocketAddr = rest
            .trim_end_matches('/')
            .parse()
            .map_err(|_| "write an address and a port like 127.0.0.1:5000")?;
        match scheme {
            None => Ok(Self { address, is_tls: !address.ip().is_loopback() }),
            Some("https") => Ok(Self { address, is_tls: true }),
            Some("http") if address.ip().is_loopback() => Ok(Self { address, is_tls: false }),
            Some("http") => {
                Err("what goes by plain HTTP is read and changed on the way: it is for loopback alone".into())
            }
            Some(other) => Err(format!("{other} is neither http nor https")),
        }
    }
}

impl Listen {
    /// The address that clients are told: the host's name where it listens on all addresses.
    pub(super) fn origin(self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        let host = if self.address.ip().is_unspecified() {
            format!("{}:{}", identity::host_name(), self.address.port())
        } else {
            self.address.to_string()
        };
        format!("{scheme}://{host}")
    }

    /// Opens a door there. `what` is what the log calls it.
    pub(super) fn open(
        self,
        what: &str,
        router: DoorRouter,
        dirs: &Dirs,
        bounds: Bounds,
        stopping: &CancellationToken,
    ) -> Result<JoinHandle<()>, ServeError> {
        let Self { address, is_tls } = self;
        if !is_tls {
            let server = LoopbackServer::bind(address)?.with_bounds(bounds);
            tracing::info!(%address, "{what} by plain HTTP on loopback");
            return Ok(tokio::spawn(server.serve(router, stopping.clone())));
        }
        let files = CertificateFiles::in_directory(&dirs.state.join("tls"));
        files.ensure(&[identity::host_name(), "localhost".into(), address.ip().to_string()])?;
        let certificate = files.load()?;
        tracing::info!(%address, fingerprint = certificate.fingerprint, "{what} by TLS");
        let server = TlsServer::bind(address, certificate)?.with_bounds(bounds);
        Ok(tokio::spawn(server.serve(router, stopping.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_alone() {
        for (text, is_tls) in [
            ("127.0.0.1:5000", Some(false)),
            ("http://[::1]:5000/", Some(false)),
            ("https://127.0.0.1:5000", Some(true)),
            ("0.0.0.0:5000", Some(true)),
            ("http://192.0.2.1:5000", None),
            ("ftp://127.0.0.1:5000", None),
            ("5000", None),
        ] {
            assert_eq!(text.parse::<Listen>().ok().map(|l| l.is_tls), is_tls, "{text}");
        }
    }
}
