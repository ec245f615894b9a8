//! Files of web servers, for images that users ask to be fetched by address.
//!
//! Users choose the address, and this host asks: without limits that would let them knock at every door that only this
//! host sees. So a host must be one that the operator listed, at every step of a redirect as well; what its name leads
//! to must be a public address, and it is that very address that is then called. Only a host that the operator listed
//! by its private address is called there, and never because another one redirected to it.

use super::{
    RegistryError, Settings,
    connection::{Answer, Authority, Dialer, Scheme, empty},
    request::authority_of,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http_body_util::BodyStream;
use hyper::{
    Method, Request, Uri,
    header::{self, HeaderValue},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    time::Duration,
};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

/// Redirects that are followed.
const REDIRECTS_MAX: u32 = 5;

/// Why a file was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The operator lists no such host.
    #[error("{host} is not among the hosts that images may be fetched from")]
    NotAllowed {
        /// Host and port.
        host: String,
    },
    /// The name leads where only this host gets.
    #[error("{host} leads to {address}, which is not a public address")]
    Private {
        /// Host and port.
        host: String,
        /// Where it leads.
        address: IpAddr,
    },
    /// No address of a web server.
    #[error("'{0}' is no address of a file on the web")]
    Url(String),
    /// From TLS to plain text.
    #[error("{host} redirects from https to http")]
    Downgrade {
        /// Host and port.
        host: String,
    },
    /// It goes on and on.
    #[error("more than {REDIRECTS_MAX} redirects")]
    Redirects,
    /// It has no such file, or does not give it.
    #[error("{host} answers {status}")]
    Status {
        /// Host and port.
        host: String,
        /// Its answer.
        status: u16,
    },
    /// The way there.
    #[error(transparent)]
    Connection(#[from] RegistryError),
}

impl WebError {
    /// Whether the answer is this host's own: it did not ask.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::NotAllowed { .. } | Self::Private { .. } | Self::Url(_) | Self::Downgrade { .. })
    }

    /// What to do about it, for people.
    pub fn hint(&self) -> String {
        match self {
            Self::NotAllowed { host } => {
                format!(
                    "download it yourself and send it, or have the operator allow it: --image-host {host}"
                )
            }
            Self::Private { .. } => "the operator allows a private host by listing its address".into(),
            Self::Connection(error) => error.hint(),
            Self::Status { .. } => "check the address in a browser".into(),
            _ => String::new(),
        }
    }
}

/// A host that the operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Allowed {
    /// Lower case; without its star for a domain.
    host: String,
    is_domain: bool,
    /// The scheme's own when `None`.
    port: Option<u16>,
}

impl Allowed {
    fn parse(text: &str) -> Result<Self, RegistryError> {
        let wrong = || RegistryError::Setting {
            setting: text.to_string(),
            reason: "a host is written HOST, HOST:PORT or *.DOMAIN".to_string(),
        };
        let lower = text.trim().to_ascii_lowercase();
        let bare_v6 = lower.parse::<Ipv6Addr>().is_ok();
        let (host, port) = match lower.rsplit_once(':') {
            Some((host, port)) if !bare_v6 && !lower.ends_with(']') => {
                (host.to_string(), Some(port.parse().map_err(|_| wrong())?))
            }
            _ => (lower.clone(), None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
        let is_domain = host.starts_with("*.");
        let host = host.trim_start_matches('*').to_string();
        if host.trim_start_matches('.').is_empty() || host.contains(['/', '*', '@']) {
            return Err(wrong());
        }
        Ok(Self { host, is_domain, port })
    }

    fn fits(&self, to: &Authority) -> bool {
        let usual = if to.scheme == Scheme::Https { 443 } else { 80 };
        let host = if self.is_domain { to.host.ends_with(&self.host) } else { to.host == self.host };
        host && self.port.unwrap_or(usual) == to.port
    }
}

/// Fetches files of the hosts that the operator allows.
#[derive(Debug)]
pub struct Web {
    dialer: Dialer,
    allowed: Vec<Allowed>,
    idle_timeout: Duration,
}

/// Bytes of a file as they come.
pub type WebBody = Pin<Box<dyn AsyncRead + Send>>;

impl Web {
    /// A client for these hosts alone.
    ///
    /// # Errors
    /// A host is written in a way that is not understood.
    pub fn new(settings: &Settings, hosts: &[String]) -> Result<Self, RegistryError> {
        let allowed = hosts.iter().map(|text| Allowed::parse(text)).collect::<Result<_, _>>()?;
        Ok(Self { dialer: Dialer::new(settings)?, allowed, idle_timeout: settings.idle_timeout })
    }

    /// Asks for a file: its bytes, and how many they are where the server says so. Reading fails when the server stalls
    /// or breaks off.
    ///
    /// # Errors
    /// The host or what it leads to is not allowed, cannot be reached, or does not have the file.
    pub async fn get(&self, url: &str) -> Result<(WebBody, Option<u64>), WebError> {
        let mut at: Uri = url.parse().map_err(|_| WebError::Url(url.to_string()))?;
        let mut is_redirect = false;
        for _ in 0..=REDIRECTS_MAX {
            let to = authority_of(&at).ok_or_else(|| WebError::Url(at.to_string()))?;
            let addresses = self.judge(&to, is_redirect).await?;
            let answer = self.dialer.send_to(&to, &addresses, request(&to, &at)?).await?;
            let status = answer.response.status();
            if status.is_redirection() {
                at = redirect(&to, &at, &answer)?;
                is_redirect = true;
                continue;
            }
            if !status.is_success() {
                return Err(WebError::Status { host: to.host_port(), status: status.as_u16() });
            }
            let length = answer.response.headers().get(header::CONTENT_LENGTH);
            let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
            return Ok((Box::pin(StreamReader::new(Box::pin(bytes_of(answer, self.idle_timeout)))), length));
        }
        Err(WebError::Redirects)
    }

    /// The addresses of a host that may be called.
    async fn judge(&self, to: &Authority, is_redirect: bool) -> Result<Vec<SocketAddr>, WebError> {
        let host = to.host_port();
        let Some(allowed) = self.allowed.iter().find(|allowed| allowed.fits(to)) else {
            return Err(WebError::NotAllowed { host });
        };
        let addresses = self.dialer.resolve(to).await?;
        // Listed by its very address, and asked for by the user, not by another server.
        let is_meant = !is_redirect && allowed.host.parse::<IpAddr>().is_ok();
        match addresses.iter().find(|address| !is_public(address.ip())) {
            Some(address) if !is_meant => Err(WebError::Private { host, address: address.ip() }),
            _ => Ok(addresses),
        }
    }
}

fn request(to: &Authority, at: &Uri) -> Result<Request<super::connection::Body>, WebError> {
    let wrong = || WebError::Url(at.to_string());
    let mut request = Request::new(empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = at.path_and_query().map_or("/", |p| p.as_str()).parse().map_err(|_| wrong())?;
    let host = HeaderValue::from_str(&to.host_port()).map_err(|_| wrong())?;
    request.headers_mut().insert(header::HOST, host);
    let agent = HeaderValue::from_static(concat!("holm/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(header::USER_AGENT, agent);
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    Ok(request)
}

fn redirect(from: &Authority, at: &Uri, answer: &Answer) -> Result<Uri, WebError> {
    let location = answer.response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let location = location.unwrap_or_default();
    let scheme = at.scheme_str().unwrap_or("https");
    let absolute = if location.contains("://") {
        location.to_string()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{}{location}", from.host_port())
    } else {
        let directory = at.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{}{directory}/{location}", from.host_port())
    };
    let to: Uri = absolute.parse().map_err(|_| WebError::Url(absolute.clone()))?;
    if scheme == "https" && to.scheme_str() != Some("https") {
        return Err(WebError::Downgrade { host: from.host_port() });
    }
    Ok(to)
}

/// The body of an answer, which ends in an error when nothing comes for too long.
fn bytes_of(answer: Answer, idle: Duration) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let (response, driver) = answer.into_parts();
    let body = Box::pin(BodyStream::new(response.into_body()));
    stream::try_unfold((body, driver), move |(mut body, driver)| async move {
        loop {
            let frame = tokio::time::timeout(idle, body.next()).await;
            match frame.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the server stalls"))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(io::Error::other(error)),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some((bytes, (body, driver))));
                    }
                }
            }
        }
    })
}

/// Whether an address is one of the public internet (IANA special-purpose address registries).
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    !(a == 0
        || a >= 240
        || v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_multicast()
        || v4.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19)))
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    let parts = v6.segments();
    let inner = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match parts {
        // IPv4 in other clothes: mapped, compatible, NAT64 (RFC 6052) and 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => is_public_v4(inner(high, low)),
        // Only this range is given out (RFC 4291); of it, Teredo and documentation are not.
        [first, second, ..] => {
            (0x2000..0x4000).contains(&first)
                && !(first == 0x2001 && (second == 0 || second == 0xdb8))
                && first != 0x3fff
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(url: &str) -> Authority {
        authority_of(&url.parse().expect("a URL")).expect("an authority")
    }

    #[test]
    fn hosts_are_allowed_by_name_port_and_domain() {
        for (listed, url, fits) in [
            ("example.org", "https://example.org/x", true),
            ("Example.org", "http://EXAMPLE.org/x", true),
            ("example.org", "https://example.org:8443/x", false),
            ("example.org:8443", "https://example.org:8443/x", true),
            ("example.org", "https://www.example.org/", false),
            ("example.org", "https://example.org.evil/", false),
            ("*.example.org", "https://cloud.example.org/", true),
            ("*.example.org", "https://example.org/", false),
            ("*.example.org", "https://evilexample.org/", false),
            ("example.org", "https://example.org@evil.org/", false),
            ("127.0.0.1:80", "http://127.0.0.1/", true),
            ("[::1]:81", "http://[::1]:81/", true),
            ("::1", "http://[::1]/", true),
        ] {
            let allowed = Allowed::parse(listed).expect(listed);
            assert_eq!(allowed.fits(&authority(url)), fits, "{listed} {url}");
        }
        for wrong in ["", "*", "*.", "a/b", "a:b", "u@h"] {
            assert!(Allowed::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for (address, public) in [
            ("1.1.1.1", true),
            ("10.0.0.1", false),
            ("172.31.0.1", false),
            ("192.168.1.1", false),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("0.0.0.0", false),
            ("198.18.0.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("fd00::1", false),
            ("ff02::1", false),
            ("::ffff:169.254.169.254", false),
            ("::ffff:1.1.1.1", true),
            ("64:ff9b::a00:1", false),
            ("2002:a00:1::1", false),
            ("2001:db8::1", false),
            ("2606:4700::1111", true),
        ] {
            assert_eq!(is_public(address.parse().expect("an address")), public, "{address}");
        }
    }
}
