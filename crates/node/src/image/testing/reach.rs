//! Where registries may be, and where they may lead to: users choose them, and this host asks.

use super::{
    faulty::{FaultyServer, Reply, Seen},
    fixture::TestImage,
    registries::{admins, ground, honest, image, name_at, pull_by, quick},
};
use crate::image::registry::{Credentials, Registry, RegistryError, Settings};
use model::error::Code;
use std::net::SocketAddr;

async fn serve(image: &TestImage) -> FaultyServer {
    let image = image.clone();
    FaultyServer::start(move |seen, _| honest(&image, seen)).await
}

fn someone() -> Credentials {
    Credentials { user: "me".into(), password: "secret".into() }
}

#[tokio::test]
async fn a_registry_at_a_private_address_is_for_admins_unless_it_is_listed() {
    let image = image();
    let server = serve(&image).await;
    let (address, host) = (server.address.to_string(), server.address.ip().to_string());
    let members = |settings| Registry::new(settings).expect("settings");
    let error = pull_by(&members(quick()), &ground(), &name_at(&server), None).await.expect_err("private");
    assert!(matches!(&error, RegistryError::Private { from: None, host } if *host == address), "{error:?}");
    assert_eq!(error.code(), Code::Invalid, "another try is no help");
    assert!(error.hint().contains(&format!("--private-registry {address}")), "{}", error.hint());
    // By whatever name it goes.
    for name in [format!("localhost:{}", server.address.port()), format!("0.0.0.0:{}", server.address.port())]
    {
        let error = members(quick()).check_login(&name, &someone()).await.expect_err("private");
        assert!(matches!(error, RegistryError::Private { .. }), "{name}: {error:?}");
    }
    let stored = image.store(&ground().blobs).await;
    let pushed = members(quick()).push(&ground().blobs, &stored, &name_at(&server), None, |_| {}).await;
    assert!(matches!(pushed, Err(RegistryError::Private { .. })), "{pushed:?}");
    assert!(server.requests("").is_empty(), "nobody knocked");

    let lists = [
        Settings { private: vec![address.clone()], ..quick() },
        Settings { private: vec![host], ..quick() },
        Settings { insecure: vec![address], ..quick() },
    ];
    for settings in lists {
        pull_by(&members(settings), &ground(), &name_at(&server), None).await.expect("listed");
    }
    pull_by(&admins(quick()), &ground(), &name_at(&server), None).await.expect("an admin's");
    // A mirror is the operator's own choice.
    let mut settings = quick();
    settings.mirrors.insert("docker.io".into(), vec![format!("http://{}", server.address)]);
    let name = "library/app:1".parse().expect("valid");
    pull_by(&members(settings), &ground(), &name, None).await.expect("a mirror's");
}

/// A registry that sends everybody on to `to` in one of three ways.
async fn sly(image: &TestImage, way: &'static str, to: SocketAddr) -> FaultyServer {
    let image = image.clone();
    FaultyServer::start(move |seen: &Seen, _| match (way, seen.method.as_str()) {
        ("redirect", _) => {
            Reply::new(307, "").header("location", format!("http://{to}/v1.0/admin?x={}", seen.path))
        }
        ("realm", _) => {
            Reply::new(401, "").header("www-authenticate", format!("Bearer realm=\"http://{to}/token\""))
        }
        (_, "POST") => Reply::new(202, "").header("location", format!("http://{to}/v1.0/admin")),
        (_, "HEAD") => Reply::new(404, ""),
        _ => honest(&image, seen),
    })
    .await
}

#[tokio::test]
async fn a_registry_on_loopback_leads_to_no_neighbour() {
    let image = image();
    let neighbour = FaultyServer::start(|_, _| Reply::new(200, r#"{"token":"t"}"#)).await;
    let source = ground();
    let stored = image.store(&source.blobs).await;
    let refused = |error: RegistryError, from: &FaultyServer| {
        let names = matches!(&error, RegistryError::Private { from: Some(f), host }
            if *f == from.address.to_string() && *host == neighbour.address.to_string());
        assert!(names, "{error:?}");
        assert!(error.to_string().contains("leads to"), "{error}");
    };
    for way in ["redirect", "realm"] {
        let server = sly(&image, way, neighbour.address).await;
        let pulled = pull_by(&admins(quick()), &ground(), &name_at(&server), None).await;
        refused(pulled.expect_err(way), &server);
    }
    let server = sly(&image, "realm", neighbour.address).await;
    let asked = admins(quick()).check_login(&server.address.to_string(), &someone()).await;
    refused(asked.expect_err("realm"), &server);
    let server = sly(&image, "upload", neighbour.address).await;
    let pushed = admins(quick()).push(&source.blobs, &stored, &name_at(&server), None, |_| {}).await;
    refused(pushed.expect_err("upload"), &server);
    assert!(neighbour.requests("").is_empty(), "nobody knocked");
    // The operator knows that they belong together.
    let settings = Settings { private: vec![neighbour.address.to_string()], ..quick() };
    let server = sly(&image, "realm", neighbour.address).await;
    let error = pull_by(&admins(settings), &ground(), &name_at(&server), None).await.expect_err("a refusal");
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error:?}");
    assert_eq!(neighbour.requests("/token").len(), 1);
}
