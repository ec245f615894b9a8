//! Pulling and pushing: from a real registry, and from servers that break in every way we know.

use super::{
    faulty::{FaultyServer, Reply, Seen},
    fixture::{INDEX_TYPE, MANIFEST_TYPE, Tar, TestImage, digest, host, noise, told},
};
use crate::image::{
    blobs::BlobStore,
    holder::Holder,
    layer_tree::LayerLimits,
    layers::{LayerError, LayerStore},
    registry::{Asked, Credentials, LayerState, Phase, Progress, Pulled, Registry, RegistryError, Settings},
    stored::StoredError,
};
use base64::Engine;
use model::{image::Reach, image_digest::Digest, image_manifest::Platform, image_reference::Reference};
use std::{
    collections::HashSet,
    path::Path,
    process::Command,
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::watch;

pub struct Ground {
    dir: tempfile::TempDir,
    pub blobs: BlobStore,
    holder: Holder,
    host: Platform,
}

impl Ground {
    fn asked<'a>(&'a self, reference: &'a Reference) -> Asked<'a> {
        let (host_platform, holder) = (&self.host, &self.holder);
        Asked { reference, credentials: None, host_platform, known: None, holder, layers: None }
    }
}

fn holder(blobs: &BlobStore, project: &str) -> Holder {
    blobs.holder(project.parse().expect("an id"), HashSet::new())
}

pub fn ground() -> Ground {
    let dir = tempfile::tempdir().expect("temp dir");
    let blobs = BlobStore::open(dir.path()).expect("opens");
    let holder = holder(&blobs, "11111111-1111-4111-8111-111111111111");
    Ground { dir, blobs, holder, host: host() }
}

pub fn quick() -> Settings {
    Settings {
        answer_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        idle_bytes_min: 1,
        tries_max: 3,
        backoff: Duration::from_millis(1),
        ..Settings::default()
    }
}

pub fn image() -> TestImage {
    TestImage::new(&[
        Tar::new().file("a", 0o644, &noise(1, 300_000)).bytes(),
        Tar::new().file("b", 0o644, &noise(2, 10_000)).bytes(),
        Tar::new().file("c", 0o644, &noise(3, 10_000)).bytes(),
    ])
}

pub fn name_at(server: &FaultyServer) -> Reference {
    format!("{}/app:1", server.address).parse().expect("valid")
}

/// The client for what admins ask for: registries of tests are on loopback.
pub fn admins(settings: Settings) -> Registry {
    Registry::new(settings).expect("settings are fine").reaching(Reach::Anywhere)
}

async fn pull_with(
    settings: Settings,
    ground: &Ground,
    reference: &Reference,
    credentials: Option<&Credentials>,
) -> Result<Pulled, RegistryError> {
    pull_by(&admins(settings), ground, reference, credentials).await
}

pub async fn pull_by(
    registry: &Registry,
    ground: &Ground,
    reference: &Reference,
    credentials: Option<&Credentials>,
) -> Result<Pulled, RegistryError> {
    let (progress, _) = watch::channel(Progress::default());
    let asked = Asked { credentials, ..ground.asked(reference) };
    registry.pull(&ground.blobs, asked, &progress).await
}

async fn pull(ground: &Ground, server: &FaultyServer) -> Result<Pulled, RegistryError> {
    pull_with(quick(), ground, &name_at(server), None).await
}

fn manifest_reply(content: &[u8], media_type: &str) -> Reply {
    Reply::new(200, content)
        .header("content-type", media_type)
        .header("docker-content-digest", digest(content).to_string())
}

/// What an honest registry answers, ranges included.
pub fn honest(image: &TestImage, seen: &Seen) -> Reply {
    if seen.path.contains("/manifests/") {
        return manifest_reply(&image.manifest, MANIFEST_TYPE);
    }
    let path = seen.path.split('?').next().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some(blob) = name.parse::<Digest>().ok().and_then(|digest| image.blob(digest)) else {
        return Reply::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}"#);
    };
    match seen
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok())
    {
        Some(start) => Reply::new(206, &blob[start..])
            .header("content-range", format!("bytes {start}-{}/{}", blob.len() - 1, blob.len())),
        None => Reply::new(200, blob),
    }
}

fn first_layer(image: &TestImage) -> String {
    digest(&image.archives[0]).to_string()
}

#[tokio::test]
async fn a_cut_layer_goes_on_where_it_stopped() {
    let image = image();
    let layer = first_layer(&image);
    let server = FaultyServer::start({
        let image = image.clone();
        move |seen, nth| {
            let reply = honest(&image, seen);
            match nth {
                0 if seen.path.contains(&layer) => reply.cut_at(100_000),
                1 if seen.path.contains(&layer) => reply.cut_at(50_000),
                _ => reply,
            }
        }
    })
    .await;
    let ground = ground();
    let pulled = pull(&ground, &server).await.expect("pulls");
    assert_eq!(pulled.digest, image.digest());
    assert!(!pulled.up_to_date);
    let ranges: Vec<_> = server
        .requests(&first_layer(&image))
        .iter()
        .map(|seen| seen.header("range").map(str::to_string))
        .collect();
    assert_eq!(ranges, [None, Some("bytes=100000-".to_string()), Some("bytes=150000-".to_string())]);
}

#[tokio::test]
async fn a_pull_that_was_dropped_goes_on_in_the_next_one() {
    let image = image();
    let layer = first_layer(&image);
    let server = FaultyServer::start({
        let image = image.clone();
        move |seen, nth| {
            let mut reply = honest(&image, seen);
            if seen.path.contains(&layer) && nth == 0 {
                // 280000 bytes at once, then silence until the client goes away.
                reply.headers.push(("x-half".into(), "1".into()));
                reply.cut_at = Some(280_000);
                return reply;
            }
            if seen.path.contains(&layer) && nth == 1 {
                reply.silence = Some(Duration::from_secs(60));
            }
            reply
        }
    })
    .await;
    let ground = ground();
    let registry = admins(quick());
    let (progress, mut watched) = watch::channel(Progress::default());
    let reference = name_at(&server);
    {
        let work = registry.pull(&ground.blobs, ground.asked(&reference), &progress);
        tokio::pin!(work);
        let retrying = async {
            let is_retrying = |p: &Progress| p.layers.iter().any(|layer| layer.state == LayerState::Retrying);
            watched.wait_for(is_retrying).await.expect("still told");
        };
        tokio::select! {
            _ = &mut work => panic!("it should hang"),
            () = retrying => {}
        }
    }
    let pulled = pull(&ground, &server).await.expect("pulls");
    assert_eq!(pulled.digest, image.digest());
    let last = server.requests(&first_layer(&image)).pop().expect("asked");
    assert_eq!(last.header("range"), Some("bytes=280000-"));
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_from_the_start() {
    let image = image();
    let layer = first_layer(&image);
    let server = FaultyServer::start({
        let image = image.clone();
        move |seen, nth| {
            let plain = Seen { headers: Vec::new(), ..seen.clone() };
            let reply = honest(&image, &plain);
            if nth == 0 && seen.path.contains(&layer) { reply.cut_at(100_000) } else { reply }
        }
    })
    .await;
    let ground = ground();
    assert_eq!(pull(&ground, &server).await.expect("pulls").digest, image.digest());
}

#[tokio::test]
async fn a_layer_that_is_always_cut_ends_in_an_error() {
    let image = image();
    let layer = first_layer(&image);
    let server = FaultyServer::start({
        let image = image.clone();
        move |seen, _| {
            let reply = honest(&image, seen);
            if seen.path.contains(&layer) { reply.cut_at(0) } else { reply }
        }
    })
    .await;
    let ground = ground();
    let error = pull(&ground, &server).await.expect_err("cut");
    assert!(matches!(error, RegistryError::Http { .. } | RegistryError::Cut { .. }), "{error:?}");
    assert_eq!(server.requests(&first_layer(&image)).len(), 3, "tries are bounded");
}

#[tokio::test]
async fn lies_are_named() {
    let image = image();
    let layer = first_layer(&image);
    let wrong = FaultyServer::start({
        let (image, layer) = (image.clone(), layer.clone());
        move |seen, _| {
            let mut reply = honest(&image, seen);
            if seen.path.contains(&layer) {
                reply.body[77] ^= 1;
            }
            reply
        }
    })
    .await;
    let ground_one = ground();
    let error = pull(&ground_one, &wrong).await.expect_err("lies");
    assert!(matches!(&error, RegistryError::BlobDigest { what, .. } if what == "layer 1 of 3"), "{error:?}");
    assert!(error.to_string().contains(&layer) && error.to_string().contains("lies"), "{error}");
    assert!(error.hint().contains("do not trust"));

    let longer = FaultyServer::start({
        let (image, layer) = (image.clone(), layer.clone());
        move |seen, _| {
            let mut reply = honest(&image, seen);
            if seen.path.contains(&layer) {
                reply.body.push(0);
            }
            reply
        }
    })
    .await;
    let error = pull(&ground(), &longer).await.expect_err("too long");
    assert!(matches!(&error, RegistryError::TooLarge { what, .. } if what == "layer 1 of 3"), "{error:?}");

    let manifest = FaultyServer::start({
        let image = image.clone();
        move |seen, _| {
            let mut reply = honest(&image, seen);
            if seen.path.contains("/manifests/") {
                reply.body.push(b' ');
            }
            reply
        }
    })
    .await;
    let error = pull(&ground(), &manifest).await.expect_err("lies");
    assert!(matches!(error, RegistryError::ManifestDigest { .. }), "{error:?}");

    let huge = FaultyServer::start(|_, _| Reply::new(200, vec![b' '; (4 << 20) + 1])).await;
    let error = pull(&ground(), &huge).await.expect_err("huge");
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn a_rate_limit_is_explained_or_waited_for() {
    let limited =
        FaultyServer::start(|_, _| Reply::new(429, "toomanyrequests").header("retry-after", "21600")).await;
    let error = pull(&ground(), &limited).await.expect_err("limited");
    assert!(matches!(error, RegistryError::RateLimited { retry_after_s: Some(21600), .. }));
    assert!(error.to_string().contains("429") && error.to_string().contains("21600 s"), "{error}");
    assert!(error.hint().contains("log in"), "{}", error.hint());
    let image = image();
    let short = FaultyServer::start({
        let image = image.clone();
        move |seen, nth| {
            if nth == 0 { Reply::new(429, "").header("retry-after", "0") } else { honest(&image, seen) }
        }
    })
    .await;
    assert_eq!(pull(&ground(), &short).await.expect("waits").digest, image.digest());
}

#[tokio::test]
async fn slow_registries_end_in_a_timeout() {
    let image = image();
    let layer = first_layer(&image);
    let settings = Settings {
        answer_timeout: Duration::from_millis(400),
        idle_timeout: Duration::from_millis(200),
        idle_bytes_min: 1000,
        tries_max: 2,
        ..quick()
    };
    let silent =
        FaultyServer::start(|_, _| Reply { silence: Some(Duration::from_secs(60)), ..Reply::new(200, "") })
            .await;
    let error = pull_with(settings.clone(), &ground(), &name_at(&silent), None).await.expect_err("silent");
    assert!(matches!(error, RegistryError::Timeout { phase: "answer", .. }), "{error:?}");
    let trickling = FaultyServer::start({
        let image = image.clone();
        move |seen, _| {
            let mut reply = honest(&image, seen);
            if seen.path.contains(&layer) {
                reply.delay = Some(Duration::from_millis(20));
            }
            reply
        }
    })
    .await;
    let (ground, reference) = (ground(), name_at(&trickling));
    let result = pull_with(settings, &ground, &reference, None);
    // A trickle makes progress each time, so only the total number of tries ends it; it must not hold on to one try.
    let asked = async {
        loop {
            if trickling.requests(&first_layer(&image)).len() >= 3 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        result = result => panic!("too early: {result:?}"),
        result = tokio::time::timeout(Duration::from_secs(30), asked) => result.expect("gives each try up"),
    }
}

#[tokio::test]
async fn redirects_are_followed_without_credentials() {
    let image = image();
    let storage = FaultyServer::start({
        let image = image.clone();
        move |seen, _| honest(&image, seen)
    })
    .await;
    let storage_address = storage.address;
    let registry = FaultyServer::start({
        let image = image.clone();
        move |seen, _| {
            if seen.header("authorization").is_none() {
                return Reply::new(401, "").header("www-authenticate", "Basic realm=\"x\"");
            }
            if seen.path.contains("/blobs/") {
                return Reply::new(307, "")
                    .header("location", format!("http://{storage_address}{}?sig=1", seen.path));
            }
            honest(&image, seen)
        }
    })
    .await;
    let ground_one = ground();
    let credentials = Credentials { user: "me".into(), password: "secret".into() };
    let settings = Settings { insecure: vec![storage_address.to_string()], ..quick() };
    let result = pull_with(settings, &ground_one, &name_at(&registry), Some(&credentials)).await;
    assert_eq!(result.expect("pulls").digest, image.digest());
    assert!(registry.requests("/blobs/").iter().all(|seen| seen.header("authorization").is_some()));
    assert_eq!(storage.requests("?sig=1").len(), 4);
    assert!(storage.requests("").iter().all(|seen| seen.header("authorization").is_none()));

    let circles =
        FaultyServer::start(|seen, _| Reply::new(302, "").header("location", seen.path.clone())).await;
    let error = pull(&ground(), &circles).await.expect_err("circles");
    assert!(error.to_string().contains("in circles"), "{error}");
    assert_eq!(circles.requests("").len(), 6);
    let downgrade =
        FaultyServer::start(|_, _| Reply::new(302, "").header("location", "http://registry.example/x")).await;
    let error = pull(&ground(), &downgrade).await.expect_err("plain");
    assert!(error.to_string().contains("plain HTTP"), "{error}");
    let elsewhere =
        FaultyServer::start(|_, _| Reply::new(302, "").header("location", "file:///etc/passwd")).await;
    assert!(pull(&ground(), &elsewhere).await.is_err());
}

#[tokio::test]
async fn tokens_are_fetched_and_renewed() {
    let image = image();
    let server = FaultyServer::start({
        let image = image.clone();
        move |seen, nth| {
            if seen.path.starts_with("/token") {
                let basic = base64::engine::general_purpose::STANDARD.encode("me:secret");
                if seen.header("authorization") != Some(&format!("Basic {basic}")) {
                    return Reply::new(401, "");
                }
                return Reply::new(200, format!(r#"{{"token":"t{nth}","expires_in":300}}"#));
            }
            let host = seen.header("host").unwrap_or_default().to_string();
            let challenge = format!(r#"Bearer realm="http://{host}/token",service="s",scope="ignored""#);
            let wanted = if seen.path.contains("/blobs/") { "Bearer t1" } else { "Bearer t0" };
            if seen.header("authorization") != Some(wanted) {
                return Reply::new(401, "").header("www-authenticate", challenge);
            }
            honest(&image, seen)
        }
    })
    .await;
    let credentials = Credentials { user: "me".into(), password: "secret".into() };
    assert!(!format!("{credentials:?}").contains("secret"));
    let pulled = pull_with(quick(), &ground(), &name_at(&server), Some(&credentials)).await.expect("pulls");
    assert_eq!(pulled.digest, image.digest());
    let asked = server.requests("/token");
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].path, "/token?service=s&scope=repository:app:pull");
    let error = pull(&ground(), &server).await.expect_err("no login");
    assert!(matches!(error, RegistryError::Unauthorized { logged_in: false, .. }));
    assert!(error.hint().contains("docker login"), "{}", error.hint());
}

#[tokio::test]
async fn images_for_other_machines_are_refused_before_their_layers_come() {
    let windows = TestImage::for_platform(&[Tar::new().bytes()], "windows", "amd64");
    let server = FaultyServer::start({
        let windows = windows.clone();
        move |seen, _| honest(&windows, seen)
    })
    .await;
    let error = pull(&ground(), &server).await.expect_err("windows");
    assert!(
        error.to_string().contains("windows/amd64") && error.hint().contains("VM"),
        "{error}: {}",
        error.hint()
    );
    assert_eq!(server.requests(&first_layer(&windows)).len(), 0);

    let image = image();
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [
        {"mediaType": MANIFEST_TYPE, "digest": windows.digest(), "size": windows.manifest.len(),
         "platform": {"os": "windows", "architecture": "amd64"}},
        {"mediaType": MANIFEST_TYPE, "digest": image.digest(), "size": image.manifest.len(),
         "platform": {"os": "linux", "architecture": host().architecture}},
    ]});
    let index = serde_json::to_vec(&index).expect("json");
    let index_digest = digest(&index);
    let server = FaultyServer::start({
        let image = image.clone();
        move |seen, _| {
            if seen.path.ends_with("/manifests/1") {
                manifest_reply(&index, INDEX_TYPE)
            } else {
                honest(&image, seen)
            }
        }
    })
    .await;
    let ground = ground();
    let pulled = pull(&ground, &server).await.expect("picks ours");
    assert_eq!((pulled.digest, pulled.image.manifest), (index_digest, image.digest()));
    assert_eq!(pulled.image.indexes, [index_digest]);
}

#[tokio::test]
async fn mirrors_are_tried_in_order_without_credentials() {
    let image = image();
    let empty = FaultyServer::start(|_, _| Reply::new(404, "")).await;
    let mirror = FaultyServer::start({
        let image = image.clone();
        move |seen, _| honest(&image, seen)
    })
    .await;
    let mut settings = quick();
    let urls = vec![format!("http://{}", empty.address), format!("http://{}/proxy/", mirror.address)];
    settings.mirrors.insert("docker.io".into(), urls);
    let credentials = Credentials { user: "me".into(), password: "secret".into() };
    let reference: Reference = "alpine".parse().expect("valid");
    let pulled = pull_with(settings, &ground(), &reference, Some(&credentials)).await.expect("pulls");
    assert_eq!(pulled.host, mirror.address.to_string());
    assert_eq!(empty.requests("").len(), 1);
    assert_eq!(mirror.requests("")[0].path, "/proxy/v2/library/alpine/manifests/latest");
    assert!(
        mirror
            .requests("")
            .iter()
            .chain(&empty.requests(""))
            .all(|seen| seen.header("authorization").is_none())
    );

    let mut plain = quick();
    plain.mirrors.insert("docker.io".into(), vec!["http://mirror.example".into()]);
    let error = pull_with(plain, &ground(), &reference, None).await.expect_err("plain");
    assert!(matches!(error, RegistryError::Setting { .. }), "{error:?}");
    let mut wrong = quick();
    wrong.mirrors.insert("docker.io".into(), vec!["mirror.example".into()]);
    assert!(matches!(Registry::new(wrong), Err(RegistryError::Setting { .. })));
}

#[tokio::test]
async fn certificates_are_checked_and_private_ones_can_be_trusted() {
    let image = image();
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).expect("makes a certificate");
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).expect("a key"),
        )
        .expect("fits");
    let server = FaultyServer::start_with(
        {
            let image = image.clone();
            move |seen, _| honest(&image, seen)
        },
        Some(tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config))),
    )
    .await;
    let ground = ground();
    let error = pull(&ground, &server).await.expect_err("nobody trusts it");
    assert!(
        matches!(error, RegistryError::Connect { .. }) && told(&error).contains("certificate"),
        "{}",
        told(&error)
    );
    assert!(server.requests("").is_empty(), "a bad certificate is no reason to speak plain HTTP");
    let authority = ground.dir.path().join("ca.pem");
    std::fs::write(&authority, key.cert.pem()).expect("writes");
    let settings = Settings { certificate_authorities: vec![authority], ..quick() };
    assert_eq!(
        pull_with(settings, &ground, &name_at(&server), None).await.expect("trusted").digest,
        image.digest()
    );
}

/// Debian's docker-registry on loopback, ended and removed with this value.
struct RealRegistry {
    dir: tempfile::TempDir,
    address: String,
}

fn script() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/images/registry")
}

impl RealRegistry {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let output = Command::new(script()).arg("start").arg(dir.path()).output().expect("the script runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let address = String::from_utf8_lossy(&output.stdout).trim().to_string();
        Self { dir, address }
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _ = Command::new(script()).arg("stop").arg(self.dir.path()).status();
    }
}

/// A name that pins the content needs no registry for who has that content, and one for everybody else.
#[tokio::test]
async fn what_is_here_for_one_project_is_shown_by_the_registry_to_the_next() {
    let image = image();
    let server = FaultyServer::start({
        let image = image.clone();
        move |seen, _| honest(&image, seen)
    })
    .await;
    // Knows the manifest as everybody may, and has none of the content.
    let thief = FaultyServer::start({
        let image = image.clone();
        move |seen, _| match seen.path.contains("/blobs/") {
            true => Reply::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}"#),
            false => honest(&image, seen),
        }
    })
    .await;
    let mut ground = ground();
    let pinned = |server| name_at(server).with_digest(image.digest());
    pull_with(quick(), &ground, &pinned(&server), None).await.expect("pulls");
    let asks = server.requests("").len();
    pull_with(quick(), &ground, &pinned(&server), None).await.expect("has it");
    assert_eq!(server.requests("").len(), asks, "nobody was asked");

    ground.holder = holder(&ground.blobs, "22222222-2222-4222-8222-222222222222");
    for name in [pinned(&thief), name_at(&thief)] {
        let error = pull_with(quick(), &ground, &name, None).await.expect_err("not shown");
        assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    }
    pull_with(quick(), &ground, &pinned(&server), None).await.expect("pulls");
    for layer in &image.archives {
        assert_eq!(server.requests(&digest(layer).to_string()).len(), 2, "each project was given it once");
    }
    pull_with(quick(), &ground, &pinned(&thief), None).await.expect("has it now");
    let (blobs, nothing) = (ground.blobs.clone(), HashSet::new());
    let later = SystemTime::now() + Duration::from_secs(60);
    let swept = tokio::task::spawn_blocking(move || blobs.collect(&nothing, Duration::ZERO, later));
    assert!(swept.await.expect("joins").expect("collects").count > 0);
    let held = std::fs::read_dir(ground.dir.path().join("blobs/held")).expect("lists");
    assert_eq!(held.count(), 0, "what is known of blobs goes with them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_layer_is_unpacked_while_another_comes() {
    let (ground, image) = (ground(), image());
    let layers = LayerStore::open(ground.dir.path(), LayerLimits::default()).expect("opens");
    let diff_ids = diff_ids(&image);
    let server = FaultyServer::start({
        let (image, layers, first) = (image.clone(), layers.clone(), diff_ids[0]);
        let last = digest(&image.archives[2]).to_string();
        move |seen, _| {
            let deadline = Instant::now() + Duration::from_secs(4);
            // The last one comes when the first is there.
            while seen.path.contains(&last) && !layers.contains(&first) {
                if Instant::now() > deadline {
                    return Reply::new(404, "the first layer is not unpacked");
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            honest(&image, seen)
        }
    })
    .await;
    let registry = admins(quick());
    let (progress, _) = watch::channel(Progress::default());
    let reference = name_at(&server);
    let asked = Asked { layers: Some(&layers), ..ground.asked(&reference) };
    registry.pull(&ground.blobs, asked, &progress).await.expect("pulls");
    assert!(diff_ids.iter().all(|diff_id| layers.contains(diff_id)), "all are there when it is done");
}

#[tokio::test]
async fn a_layer_that_is_another_ends_the_pull() {
    let (ground, mut image) = (ground(), image());
    let layers = LayerStore::open(ground.dir.path(), LayerLimits::default()).expect("opens");
    let (diff_ids, other) = (diff_ids(&image), digest(b"another"));
    let config = String::from_utf8(image.config.clone()).expect("text");
    let changed = config.replace(&diff_ids[1].to_string(), &other.to_string()).into_bytes();
    let manifest = String::from_utf8(image.manifest.clone()).expect("text");
    image.manifest =
        manifest.replace(&digest(&image.config).to_string(), &digest(&changed).to_string()).into_bytes();
    image.config = changed;
    let server = FaultyServer::start(move |seen, _| honest(&image, seen)).await;
    let registry = admins(quick());
    let (progress, _) = watch::channel(Progress::default());
    let reference = name_at(&server);
    let asked = Asked { layers: Some(&layers), ..ground.asked(&reference) };
    let error = registry.pull(&ground.blobs, asked, &progress).await.expect_err("another layer");
    let RegistryError::Image(StoredError::Layer(LayerError::DiffId { expected, actual })) = error else {
        panic!("{error:?}");
    };
    assert_eq!((expected, actual), (other, diff_ids[1]));
    assert!(!layers.contains(&other));
}

/// What the layers unpack to, as the config says.
fn diff_ids(image: &TestImage) -> Vec<Digest> {
    let config: serde_json::Value = serde_json::from_slice(&image.config).expect("a config");
    serde_json::from_value(config["rootfs"]["diff_ids"].clone()).expect("digests")
}

#[tokio::test]
async fn a_real_registry_takes_and_gives_images() {
    let real = tokio::task::spawn_blocking(RealRegistry::start).await.expect("starts");
    let (source, target) = (ground(), ground());
    let image = image();
    let stored = image.store(&source.blobs).await;
    let reference: Reference = format!("{}/team/app:2", real.address).parse().expect("valid");
    let registry = admins(quick());
    let pushed = registry.push(&source.blobs, &stored, &reference, None, |_| {}).await.expect("pushes");
    assert_eq!(pushed, image.digest());
    registry.push(&source.blobs, &stored, &reference, None, |_| {}).await.expect("again is fine");

    let (progress, watched) = watch::channel(Progress::default());
    let first = registry.pull(&target.blobs, target.asked(&reference), &progress).await.expect("pulls");
    assert_eq!((first.digest, first.up_to_date), (image.digest(), false));
    assert_eq!(first.image, stored);
    let seen = watched.borrow().clone();
    assert_eq!(seen.phase, Phase::Done);
    assert!(seen.layers.iter().all(|layer| layer.state == LayerState::Done));
    assert_eq!(seen.bytes().0, seen.bytes().1);

    let known = Asked { known: Some(first.digest), ..target.asked(&reference) };
    let again = registry.pull(&target.blobs, known, &progress).await.expect("pulls");
    assert!(again.up_to_date);
    let newer = TestImage::new(&[
        Tar::new().file("a", 0o644, &noise(1, 300_000)).bytes(),
        Tar::new().file("b", 0o644, b"newer").bytes(),
    ]);
    let newer_stored = newer.store(&source.blobs).await;
    registry.push(&source.blobs, &newer_stored, &reference, None, |_| {}).await.expect("pushes");
    let third = registry.pull(&target.blobs, known, &progress).await.expect("pulls");
    assert_eq!((third.digest, third.up_to_date), (newer.digest(), false));
    let states: Vec<_> = watched.borrow().layers.iter().map(|layer| layer.state).collect();
    assert_eq!(states, [LayerState::AlreadyExists, LayerState::Done]);

    let pinned = reference.with_digest(image.digest());
    assert_eq!(pull_with(quick(), &ground(), &pinned, None).await.expect("by digest").image.id, stored.id);
    let missing: Reference = format!("{}/team/none:1", real.address).parse().expect("valid");
    let error = pull_with(quick(), &ground(), &missing, None).await.expect_err("missing");
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    assert!(error.to_string().contains("team/none:1"), "{error}");
}
