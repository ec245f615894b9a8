//! Listeners: TLS with a certificate that is made once, pinned and CA trust, sockets and their modes, an orderly end.

use crate::house::{House, KEY};
use api::{
    client::{Client, Error, Trust},
    server::{
        Bounds, DoorRouter, ServerError,
        tcp::LoopbackServer,
        tls::{CertificateFiles, TlsServer},
        unix::{SocketAccess, UnixServer},
    },
    v1::types::{
        keypair::{CreateKeypair, Keypair},
        list::WaitQuery,
        token::{CreateToken, Role},
    },
};
use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{StatusCode, header},
    routing::get,
};
use futures::{StreamExt, stream};
use hyper_util::rt::TokioIo;
use model::error::Code;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{
    convert::Infallible,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UnixStream},
    sync::{Notify, oneshot},
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn tls_is_trusted_by_fingerprint_or_ca_and_needs_a_token() {
    let house = House::open().await;
    let directory = tempfile::tempdir().unwrap();
    let files = CertificateFiles::in_directory(&directory.path().join("tls"));
    let names = ["localhost".to_string(), "127.0.0.1".to_string()];
    files.ensure(&names).unwrap();
    let certificate = files.load().unwrap();
    files.ensure(&names).unwrap();
    assert_eq!(files.load().unwrap().fingerprint, certificate.fingerprint, "it is made once and kept");
    let mode = std::fs::metadata(&files.key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let fingerprint = certificate.fingerprint.clone();
    let server = TlsServer::bind("127.0.0.1:0".parse().unwrap(), certificate).unwrap();
    let port = server.address().unwrap().port();
    let stopping = CancellationToken::new();
    let task = tokio::spawn(server.serve(api::v1::router(house.app.clone()), stopping.clone()));

    let address = format!("https://127.0.0.1:{port}");
    let pinned = Client::tls(&address, &Trust::Fingerprint(fingerprint.clone())).unwrap();
    let error = pinned.version().await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    let request = CreateToken { name: "ci".into(), role: Role::Member, lifetime_s: None };
    let token = house.client.create_token(&request).await.unwrap().secret;
    let pinned = pinned.with_token(&token);
    assert_eq!(pinned.version().await.unwrap().caller.actor, "token ci");
    let key = CreateKeypair { name: "k".into(), public_key: KEY.into(), ..CreateKeypair::default() };
    pinned.create::<Keypair>(&key, &WaitQuery::default()).await.unwrap();

    let by_ca = Client::tls(&format!("localhost:{port}"), &Trust::Ca(files.certificate.clone())).unwrap();
    by_ca.with_token(&token).version().await.unwrap();

    let wrong = Client::tls(&address, &Trust::Fingerprint("00".repeat(32))).unwrap();
    let error = wrong.version().await.unwrap_err();
    assert!(matches!(&error, Error::Untrusted { reason, .. } if reason.contains(&fingerprint)), "{error:?}");
    assert!(Client::tls(&address, &Trust::Fingerprint("zz".into())).is_err());
    assert!(Client::tls(&address, &Trust::Ca("/nonexistent".into())).is_err());

    stopping.cancel();
    tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
    assert!(matches!(pinned.clone().version().await.unwrap_err(), Error::Unreachable { .. }));
}

#[tokio::test]
async fn a_key_without_its_certificate_is_told_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let files = CertificateFiles::in_directory(directory.path());
    std::fs::write(&files.key, "mine").unwrap();
    let error = files.ensure(&["x".to_string()]).unwrap_err();
    assert!(error.to_string().contains("put both or none"), "{error}");
    assert_eq!(std::fs::read_to_string(&files.key).unwrap(), "mine");
}

#[tokio::test]
async fn a_socket_is_private_or_its_groups_and_never_taken_twice() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    // A socket that nobody listens on is replaced.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let first = UnixServer::bind(&path, SocketAccess::default()).await.unwrap();
    assert_eq!(mode(&path), 0o600);
    let second = UnixServer::bind(&path, SocketAccess::default()).await;
    assert!(matches!(second.unwrap_err(), ServerError::InUse(_)));
    drop(first);
    let grouped = UnixServer::bind(&path, SocketAccess { gid: Some(4) }).await.unwrap();
    assert_eq!(mode(&path), 0o660);
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(&path).unwrap()), 4);
    drop(grouped);
}

#[tokio::test]
async fn a_call_on_its_way_is_answered_before_the_end() {
    let house = House::open().await;
    let request: api::v1::types::instance::CreateInstance =
        serde_json::from_value(serde_json::json!({"name": "web", "image": "busybox"})).unwrap();
    house.client.create::<api::v1::types::instance::Instance>(&request, &WaitQuery::default()).await.unwrap();
    let waiting = tokio::spawn({
        let client = house.client.clone();
        async move {
            let wait = WaitQuery { wait: Some(600), phase: None };
            client.get_waiting::<api::v1::types::instance::Instance>("web", &wait).await
        }
    });
    // Another call on another connection: by its answer the first one was most likely taken, and either way is right.
    Client::unix(&house.socket).version().await.unwrap();
    house.stopping.cancel();
    tokio::time::timeout(Duration::from_secs(5), house.server).await.unwrap().unwrap();
    let outcome = waiting.await.unwrap();
    assert!(outcome.is_ok() || matches!(outcome, Err(Error::Unreachable { .. })), "{outcome:?}");
}

/// Bounds that a test can wait for.
fn tight() -> Bounds {
    Bounds {
        of_address: Some(3),
        header_timeout: Duration::from_millis(400),
        stall_timeout: Duration::from_millis(400),
    }
}

/// Tells when it is dropped, which is when nobody sends any more.
struct Ends(Option<oneshot::Sender<()>>);

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(ended) = self.0.take() {
            let _ = ended.send(());
        }
    }
}

type Signal = Arc<Mutex<Option<oneshot::Sender<()>>>>;

/// A door that sends without an end, as an answer (`/flood`) and on a connection that left HTTP (`/left`), and one that is
/// silent until it is told (`/silent`).
fn endless(ended: Signal, speak: Arc<Notify>) -> DoorRouter {
    let other = Arc::clone(&ended);
    let flood = move || {
        let ends = Ends(other.lock().unwrap().take());
        let sent = async |ends| Some((Ok::<_, Infallible>(Bytes::from(vec![7; 64 * 1024])), ends));
        async move { Body::from_stream(stream::unfold(ends, sent)) }
    };
    let left = move |mut request: Request| {
        let upgrade = hyper::upgrade::on(&mut request);
        let ends = Ends(ended.lock().unwrap().take());
        tokio::spawn(async move {
            let mut wire = TokioIo::new(upgrade.await.unwrap());
            while wire.write_all(&[7; 64 * 1024]).await.is_ok() {}
            drop(ends);
        });
        let heads = [(header::CONNECTION, "Upgrade"), (header::UPGRADE, "tcp")];
        async move { (StatusCode::SWITCHING_PROTOCOLS, heads) }
    };
    let silent = move || {
        let words = stream::unfold((0, Arc::clone(&speak)), async |(count, speak)| {
            if count > 0 {
                speak.notified().await;
            }
            Some((Ok::<_, Infallible>(Bytes::from(format!("word {count};"))), (count + 1, speak)))
        });
        async move { Body::from_stream(words.take(2)) }
    };
    DoorRouter::new().route("/flood", get(flood)).route("/left", get(left)).route("/silent", get(silent))
}

async fn read_until(stream: &mut (impl AsyncRead + Unpin), enough: &str) -> String {
    let mut got = vec![];
    let reading = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            got.extend_from_slice(&buffer[..count]);
            if String::from_utf8_lossy(&got).contains(enough) {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("it is told or closed in time");
    String::from_utf8_lossy(&got).into_owned()
}

/// Nobody reads what `path` sends: its sender is let go of. Who is sent nothing lives on.
async fn who_takes_nothing_is_cut_off<S: AsyncRead + AsyncWrite + Unpin>(
    connect: impl AsyncFn() -> S,
    (ended, speak): (&Signal, &Notify),
) {
    let ask =
        |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n");
    let mut silent = connect().await;
    silent.write_all(ask("/silent").as_bytes()).await.unwrap();
    assert!(read_until(&mut silent, "word 0;").await.contains("word 0;"));
    for path in ["/flood", "/left"] {
        let (tell, told) = oneshot::channel();
        *ended.lock().unwrap() = Some(tell);
        let mut greedy = connect().await;
        greedy.write_all(ask(path).as_bytes()).await.unwrap();
        let cut_off = tokio::time::timeout(Duration::from_secs(20), told).await;
        cut_off.unwrap_or_else(|_| panic!("{path} is sent for ever")).unwrap();
    }
    // By now it was silent for longer than anybody may take nothing.
    speak.notify_one();
    assert!(read_until(&mut silent, "word 1;").await.contains("word 1;"));
}

#[tokio::test]
async fn who_takes_nothing_is_cut_off_at_every_door_and_who_is_sent_nothing_is_not() {
    let (ended, speak, stopping) = (Signal::default(), Arc::new(Notify::new()), CancellationToken::new());
    let router = || endless(Arc::clone(&ended), Arc::clone(&speak));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let server = UnixServer::bind(&path, SocketAccess::default()).await.unwrap().with_bounds(tight());
    tokio::spawn(server.serve(router(), stopping.clone()));
    let connect = async || UnixStream::connect(&path).await.unwrap();
    who_takes_nothing_is_cut_off(connect, (&ended, &speak)).await;

    let server = LoopbackServer::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_bounds(tight());
    let address = server.address().unwrap();
    tokio::spawn(server.serve(router(), stopping.clone()));
    let connect = async || TcpStream::connect(address).await.unwrap();
    who_takes_nothing_is_cut_off(connect, (&ended, &speak)).await;

    let files = CertificateFiles::in_directory(directory.path());
    files.ensure(&["localhost".to_string()]).unwrap();
    let certificate = files.load().unwrap();
    let server = TlsServer::bind("127.0.0.1:0".parse().unwrap(), certificate).unwrap().with_bounds(tight());
    let address = server.address().unwrap();
    tokio::spawn(server.serve(router(), stopping.clone()));
    let connector = trusting(&files.certificate);
    let connect = async || {
        let stream = TcpStream::connect(address).await.unwrap();
        connector.connect("localhost".try_into().unwrap(), stream).await.unwrap()
    };
    who_takes_nothing_is_cut_off(connect, (&ended, &speak)).await;
    stopping.cancel();
}

/// A client of TLS that trusts this certificate.
fn trusting(certificate: &std::path::Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn who_does_not_say_what_he_wants_is_closed() {
    let stopping = CancellationToken::new();
    let server = LoopbackServer::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_bounds(tight());
    let address = server.address().unwrap();
    let router = endless(Signal::default(), Arc::default());
    tokio::spawn(server.serve(router, stopping.clone()));
    for said in ["", "GET /flood HTTP/1.1\r\nhost: x\r\nwithout: an end"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "an answer that never comes").await;
        assert!(!answer.contains("200"), "{said}: {answer}");
    }
    stopping.cancel();
}

#[tokio::test]
async fn an_address_with_all_its_connections_gets_no_more_and_keeps_nobody_else_waiting() {
    let stopping = CancellationToken::new();
    let bounds = Bounds { header_timeout: Duration::from_secs(60), ..tight() };
    let server = LoopbackServer::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_bounds(bounds);
    let address = server.address().unwrap();
    let router = DoorRouter::new().route("/", get(async || "here"));
    tokio::spawn(server.serve(router, stopping.clone()));
    let from = async |source: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        socket.connect(address).await.unwrap()
    };
    let asks = async |stream: &mut TcpStream| {
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        read_until(stream, "here").await.contains("here")
    };
    let mut held = vec![];
    for _ in 0..3 {
        let mut stream = from("127.0.0.2").await;
        assert!(asks(&mut stream).await);
        held.push(stream);
    }
    assert!(!asks(&mut from("127.0.0.2").await).await, "a fourth is closed");
    assert!(asks(&mut from("127.0.0.3").await).await, "another address has its own");
    // Programs of the host have no limit.
    for _ in 0..5 {
        let mut stream = from("127.0.0.1").await;
        assert!(asks(&mut stream).await);
        held.push(stream);
    }
    assert!(asks(&mut held[0]).await, "who was there before goes on");
    drop(held.remove(0));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !asks(&mut from("127.0.0.2").await).await {
        assert!(tokio::time::Instant::now() < deadline, "a place that was given back is free");
    }
    stopping.cancel();
}
