//! Listeners: TLS with a certificate that is made once, pinned and CA trust, sockets and their modes, an orderly end.

use crate::house::{House, KEY};
use api::{
    client::{Client, Error, Trust},
    server::{
        ServerError,
        tls::{CertificateFiles, TlsServer},
        unix::{SocketAccess, UnixServer},
    },
    v1::types::{
        keypair::{CreateKeypair, Keypair},
        list::WaitQuery,
        token::{CreateToken, Role},
    },
};
use model::error::Code;
use std::{os::unix::fs::PermissionsExt, time::Duration};
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
    let server = TlsServer::bind("127.0.0.1:0".parse().unwrap(), certificate).await.unwrap();
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
