//! Probes by the network: a connection, a question by HTTP/1.1 (RFC 9112) of whose answer the first line counts, also by TLS,
//! and a call by gRPC.

use super::{Answer, cut, grpc, seconds, tls};
use crate::driver::{Dialed, Driver, DriverError};
use model::{health::HealthCheck, health::status::NO_EXIT, id::InstanceId};
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Most bytes of the answer's first line.
const LINE_BYTES_MAX: usize = 1024;

/// Connects, and that is all.
pub(super) async fn tcp(
    driver: &dyn Driver,
    id: InstanceId,
    port: u16,
    check: &HealthCheck,
) -> Result<Answer, DriverError> {
    Ok(match dialled(driver, id, port, check).await? {
        Ok(_) => Answer { exit_code: 0, output: String::new() },
        Err(answer) => answer,
    })
}

/// Asks, and reads the status.
pub(super) async fn http(
    driver: &dyn Driver,
    id: InstanceId,
    (port, is_tls): (u16, bool),
    request: &str,
    check: &HealthCheck,
) -> Result<Answer, DriverError> {
    let asked = async {
        let stream = match dialled(driver, id, port, check).await? {
            Ok(stream) => stream,
            Err(answer) => return Ok(answer),
        };
        Ok(match asks(stream, is_tls, request).await {
            Ok(line) => judged(&line),
            Err(error) => failure(format!("no answer: {error}")),
        })
    };
    in_time(check, asked).await
}

/// Calls, and reads what is told of a service's health.
pub(super) async fn grpc(
    driver: &dyn Driver,
    id: InstanceId,
    (port, service): (u16, &str),
    check: &HealthCheck,
) -> Result<Answer, DriverError> {
    let asked = async {
        let stream = match dialled(driver, id, port, check).await? {
            Ok(stream) => stream,
            Err(answer) => return Ok(answer),
        };
        Ok(match grpc::check(stream, &format!("localhost:{port}"), service).await {
            Ok(()) => Answer { exit_code: 0, output: "SERVING".into() },
            Err(told) => failure(told),
        })
    };
    in_time(check, asked).await
}

async fn in_time(
    check: &HealthCheck,
    asked: impl Future<Output = Result<Answer, DriverError>>,
) -> Result<Answer, DriverError> {
    match timeout(Duration::from_millis(check.timeout_ms), asked).await {
        Ok(answer) => answer,
        Err(_) => Ok(failure(format!("no answer within {}", seconds(check.timeout_ms)))),
    }
}

/// The first line of the answer.
async fn asks(stream: Dialed, is_tls: bool, request: &str) -> std::io::Result<String> {
    if !is_tls {
        return first_line(stream, request).await;
    }
    let name = tls::name(stream.peer());
    let session = TlsConnector::from(tls::unverified()).connect(name, stream).await?;
    first_line(session, request).await
}

/// The text of a question.
pub(super) fn request(path: &str, headers: &[(String, String)]) -> String {
    let mut text = format!("GET {path} HTTP/1.1\r\n");
    let has = |wanted: &str| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    for (name, value) in [("Host", "localhost"), ("User-Agent", "holm-probe"), ("Accept", "*/*")] {
        if !has(name) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    for (name, value) in headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("connection")) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("Connection: close\r\n\r\n");
    text
}

/// A connection, or how the pod refused it.
async fn dialled(
    driver: &dyn Driver,
    id: InstanceId,
    port: u16,
    check: &HealthCheck,
) -> Result<Result<Dialed, Answer>, DriverError> {
    match driver.dial(id, port, Duration::from_millis(check.timeout_ms)).await {
        Ok(stream) => Ok(Ok(stream)),
        Err(error @ DriverError::Io { .. }) => Ok(Err(failure(crate::instance::sentence(&error)))),
        Err(error) => Err(error),
    }
}

async fn first_line<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    request: &str,
) -> std::io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut line = Vec::new();
    let mut buffer = [0; LINE_BYTES_MAX];
    while line.len() < LINE_BYTES_MAX && !line.contains(&b'\n') {
        match stream.read(&mut buffer).await? {
            0 => break,
            length => line.extend_from_slice(&buffer[..length]),
        }
    }
    let end = line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len()).min(LINE_BYTES_MAX);
    Ok(String::from_utf8_lossy(&line[..end]).trim().to_string())
}

/// Statuses from 200 to 399 are good.
fn judged(line: &str) -> Answer {
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse::<u16>().ok());
    match status {
        Some(200..=399) => Answer { exit_code: 0, output: cut(line.to_string()) },
        Some(_) => Answer { exit_code: 1, output: cut(line.to_string()) },
        None => failure(format!("no answer by HTTP/1: {line}")),
    }
}

fn failure(output: String) -> Answer {
    Answer { exit_code: NO_EXIT, output: cut(output) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::net::{TcpListener, TcpStream};

    /// A certificate that nobody vouches for, of another name.
    #[tokio::test]
    async fn a_page_is_asked_for_by_tls_whoever_the_certificate_is_of() {
        let made = rcgen::generate_simple_self_signed(["shop.example".to_string()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut session = acceptor.accept(stream).await.unwrap();
            let mut asked = vec![0; 1024];
            let length = session.read(&mut asked).await.unwrap();
            session.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            session.shutdown().await.unwrap();
            // What has no TLS is no answer.
            let (mut plain, _) = listener.accept().await.unwrap();
            plain.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        let ask = async || {
            let stream = TcpStream::connect(at).await.unwrap();
            asks(Dialed::Tcp(stream), true, &request("/ok", &[])).await
        };
        let line = ask().await.unwrap();
        assert_eq!((line.as_str(), judged(&line).exit_code), ("HTTP/1.1 204 No Content", 0));
        assert!(ask().await.is_err());
        assert!(served.await.unwrap().starts_with("GET /ok HTTP/1.1\r\n"));
    }

    #[test]
    fn answers_are_judged_by_their_status() {
        for (line, code) in [
            ("HTTP/1.1 200 OK", 0),
            ("HTTP/1.0 399 x", 0),
            ("HTTP/1.1 302", 0),
            ("HTTP/1.1 400 Bad Request", 1),
            ("HTTP/1.1 199 x", 1),
            ("HTTP/1.1 503 Service Unavailable", 1),
            ("SSH-2.0-x", NO_EXIT),
            ("HTTP/1.1", NO_EXIT),
            ("", NO_EXIT),
        ] {
            assert_eq!(judged(line).exit_code, code, "{line:?}");
        }
    }

    #[test]
    fn headers_that_are_asked_for_stand_instead_of_the_usual() {
        let asked = [("host", "shop.example"), ("Connection", "keep-alive"), ("X-A", "b")];
        let text = request("/ok?a=b", &asked.map(|(name, value)| (name.to_string(), value.to_string())));
        assert_eq!(
            text,
            "GET /ok?a=b HTTP/1.1\r\nUser-Agent: holm-probe\r\nAccept: */*\r\nhost: shop.example\r\nX-A: b\r\n\
             Connection: close\r\n\r\n"
        );
    }
}
