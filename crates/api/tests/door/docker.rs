//! The Docker door's frame and its refusals; what its containers do is proven with docker's own client.

use super::house::House;
use api::{
    auth::Peer,
    v1::types::{
        quota::UpdateQuota,
        token::{CreateToken, Role},
    },
};
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, request::Builder},
};
use base64::{Engine, engine::general_purpose::URL_SAFE};
use http_body_util::BodyExt;
use model::{
    id::ImageId,
    image::{Image, ImageContent, ImageKind, ImageState, OciContent},
};
use serde_json::{Value, json};
use std::time::Duration;
use tower::ServiceExt;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn message(&self) -> String {
        self.json()["message"].as_str().expect("docker's form of an error").to_string()
    }
}

fn door(house: &House) -> Router {
    api::docker::router(api::docker::Door::new(house.app.clone()))
}

async fn ask(door: &Router, method: Method, path: &str, body: Option<Value>) -> Answer {
    ask_as(door, method, path, body, 0).await
}

async fn ask_as(door: &Router, method: Method, path: &str, body: Option<Value>, uid: u32) -> Answer {
    let request = Request::builder().method(method).uri(path);
    send(door, request, body, uid).await
}

async fn send(door: &Router, mut request: Builder, body: Option<Value>, uid: u32) -> Answer {
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let body = body.map_or_else(Body::empty, |value| Body::from(value.to_string()));
    let mut request = request.body(body).unwrap();
    request.extensions_mut().insert(Peer::Unix { uid, pid: 1 });
    let response = door.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        text: String::from_utf8_lossy(&bytes).into_owned(),
    }
}

/// Makes an image of containers that is here.
async fn add_image(house: &House, name: &str) -> ImageId {
    let caller = house.caller(control::Role::Admin);
    let new = control::image::NewImage::to_be_sent(name, ImageKind::Oci);
    let image = house.control.create_image(&caller, new).await.unwrap();
    let oci = OciContent {
        config_digest: format!("sha256:{}", "c".repeat(64)),
        cmd: vec!["serve".into()],
        env: vec!["PATH=/bin".into()],
        exposed_ports: vec!["80/tcp".into()],
        ..OciContent::default()
    };
    let content = ImageContent {
        digest: format!("sha256:{}", "d".repeat(64)),
        oci: Some(oci),
        ..ImageContent::default()
    };
    house.guests.write(&image, ImageState::Ready(content)).await.unwrap();
    image.meta.id
}

#[tokio::test]
async fn the_frame_speaks_as_docker_does() {
    let house = House::open().await;
    let door = door(&house);
    for (method, body) in [(Method::GET, "OK"), (Method::HEAD, "")] {
        let ping = ask(&door, method, "/_ping", None).await;
        assert_eq!((ping.status, ping.text.as_str()), (StatusCode::OK, body));
        for (header, value) in
            [("api-version", "1.47"), ("docker-experimental", "false"), ("ostype", "linux")]
        {
            assert_eq!(ping.headers[header], value);
        }
    }
    let version = ask(&door, Method::GET, "/v1.30/version", None).await.json();
    assert_eq!((&version["ApiVersion"], &version["MinAPIVersion"]), (&json!("1.47"), &json!("1.24")));
    for (path, status, words) in [
        ("/v1.23/info", StatusCode::BAD_REQUEST, "client version 1.23 is too old"),
        ("/v1.99/info", StatusCode::BAD_REQUEST, "client version 1.99 is too new"),
        ("/nosuch", StatusCode::NOT_FOUND, "page not found"),
        ("/v1.47/swarm", StatusCode::NOT_IMPLEMENTED, "swarm mode: not served by holm's Docker door"),
        ("/containers/web/json", StatusCode::NOT_FOUND, "No such container: web"),
        ("/images/web/json", StatusCode::NOT_FOUND, "No such image: web"),
        (
            "/containers/json?filters={\"colour\":[\"red\"]}",
            StatusCode::BAD_REQUEST,
            "invalid filter 'colour'",
        ),
        ("/containers/json?limit=x", StatusCode::BAD_REQUEST, "invalid value of limit"),
    ] {
        let path = path.replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
        let answer = ask(&door, Method::GET, &path, None).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        assert!(answer.message().contains(words), "{path}: {}", answer.text);
    }
    let long = format!("/containers/json?x={}", "x".repeat(9_000));
    assert_eq!(ask(&door, Method::GET, &long, None).await.status, StatusCode::URI_TOO_LONG);
    let huge = json!({ "Image": "x".repeat(2 * 1024 * 1024) });
    let refused = ask(&door, Method::POST, "/containers/create", Some(huge)).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", refused.text);
    let wrong = ask(&door, Method::DELETE, "/containers/json", None).await;
    assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED, "{}", wrong.text);
}

#[tokio::test]
async fn a_container_is_an_instance() {
    let house = House::open().await;
    let door = door(&house);
    let image = add_image(&house, "web").await;
    let asked = json!({
        "Image": "web", "Env": ["A=1"], "Labels": {"tier": "web"}, "Tty": true,
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8088"}]}, "Memory": 64 << 20, "NetworkMode": "default"},
    });
    let made = ask(&door, Method::POST, "/v1.47/containers/create?name=my_Apache", Some(asked.clone())).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let id = made.json()["Id"].as_str().unwrap().to_string();
    let native = house.client.get::<api::v1::types::instance::Instance>("my_Apache").await.unwrap();
    assert_eq!(native.head.id.simple().to_string(), id[..32]);
    assert_eq!((native.size.memory_mib, native.publish[0].host_port), (64, 8088));
    let groups: Vec<&str> = native.ports[0].security_groups.iter().map(|g| g.name.as_str()).collect();
    assert_eq!(groups, ["default", "published-80-tcp"], "a published port is let in");

    for reference in ["my_Apache", "/my_Apache", id.as_str(), &id[..12]] {
        let path = format!("/containers/{}/json", reference.replace('/', "%2F"));
        let shown = ask(&door, Method::GET, &path, None).await;
        assert_eq!(shown.status, StatusCode::OK, "{reference}: {}", shown.text);
        let shown = shown.json();
        assert_eq!((&shown["Name"], &shown["Id"]), (&json!("/my_Apache"), &json!(id)));
        assert_eq!((&shown["State"]["Status"], &shown["Path"]), (&json!("created"), &json!("serve")));
        assert_eq!(shown["Config"]["Env"], json!(["A=1", "PATH=/bin"]));
        assert_eq!(shown["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"], "8088");
    }
    assert_eq!(ask(&door, Method::GET, "/containers/json", None).await.json(), json!([]), "it does not run");
    let listed = ask(&door, Method::GET, "/containers/json?all=1", None).await.json();
    assert_eq!((&listed[0]["Names"], &listed[0]["Image"]), (&json!(["/my_Apache"]), &json!("web")));
    assert_eq!(listed[0]["Ports"].as_array().unwrap().len(), 2, "both families");

    let again = ask(&door, Method::POST, "/containers/create?name=my_Apache", Some(asked.clone())).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert!(again.message().contains(&format!("is already in use by container \"{id}\"")), "{}", again.text);
    let other = ask(&door, Method::POST, "/containers/create?name=other", Some(asked)).await;
    assert_eq!(other.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        other.message().contains("Bind for 0.0.0.0:8088 failed: port is already allocated"),
        "{}",
        other.text
    );
    let used = ask(&door, Method::DELETE, "/images/web", None).await;
    assert!(used.status == StatusCode::CONFLICT && used.message().contains("is using its referenced image"));
    assert!(house.control.get::<model::image::Image>(image).is_some());
    for (action, status) in
        [("kill", StatusCode::CONFLICT), ("pause", StatusCode::CONFLICT), ("stop", StatusCode::NOT_MODIFIED)]
    {
        let answer = ask(&door, Method::POST, &format!("/containers/my_Apache/{action}"), None).await;
        assert_eq!(answer.status, status, "{action}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_kernel_of_its_own_is_asked_for_and_shown() {
    let house = House::open().await;
    let door = door(&house);
    add_image(&house, "web").await;
    for (name, host, shown) in [
        ("by-isolation", json!({"Isolation": "vm"}), ("vm", "vm", json!({"size": "10G"}))),
        (
            "by-runtime",
            json!({"Runtime": "vm", "StorageOpt": {"size": "3G"}}),
            ("vm", "vm", json!({"size": "3G"})),
        ),
        ("usual", json!({"Isolation": "default", "Runtime": "runc"}), ("", "holm", Value::Null)),
    ] {
        let asked = json!({"Image": "web", "HostConfig": host});
        let made =
            ask(&door, Method::POST, &format!("/containers/create?name={name}"), Some(asked.clone())).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let seen = ask(&door, Method::GET, &format!("/containers/{name}/json"), None).await.json();
        let seen = &seen["HostConfig"];
        assert_eq!((&seen["Isolation"], &seen["Runtime"]), (&json!(shown.0), &json!(shown.1)), "{name}");
        assert_eq!(seen["StorageOpt"], shown.2, "{name}");
        let native = house.client.get::<api::v1::types::instance::Instance>(name).await.unwrap();
        assert_eq!(native.isolation.is_shared(), name == "usual");
        // What is shown makes the same again.
        let again = json!({"Image": "web", "HostConfig": {"Isolation": seen["Isolation"], "Runtime": seen["Runtime"]}});
        let made = ask(&door, Method::POST, &format!("/containers/create?name={name}-2"), Some(again)).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let twin =
            house.client.get::<api::v1::types::instance::Instance>(&format!("{name}-2")).await.unwrap();
        assert_eq!(twin.isolation, native.isolation);
    }
    for (host, words) in [
        (json!({"Isolation": "hyperv"}), "Isolation is not honoured by holm"),
        (json!({"Runtime": "runsc"}), "unknown or invalid runtime name: runsc"),
    ] {
        let asked = json!({"Image": "web", "HostConfig": host});
        let refused = ask(&door, Method::POST, "/containers/create", Some(asked)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
        assert!(
            refused.message().contains(words) && refused.message().contains("vm (a kernel"),
            "{}",
            refused.text
        );
    }
    let runtimes = ask(&door, Method::GET, "/info", None).await.json()["Runtimes"].clone();
    assert!(runtimes.get("vm").is_some() && runtimes.get("holm").is_some(), "{runtimes}");
}

#[tokio::test]
async fn what_is_not_honoured_is_refused_and_readers_change_nothing() {
    let house = House::open().await;
    let door = door(&house);
    add_image(&house, "web").await;
    for (field, value) in [
        ("Privileged", json!(true)),
        ("PidMode", json!("host")),
        ("Binds", json!(["./etc:/etc"])),
        ("NetworkMode", json!("host")),
        ("SecurityOpt", json!(["seccomp=unconfined"])),
        ("SomethingNew", json!(1)),
    ] {
        let asked = json!({ "Image": "web", "HostConfig": { field: value } });
        let refused = ask(&door, Method::POST, "/containers/create", Some(asked)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{field}: {}", refused.text);
        assert!(refused.message().contains(field), "{field}: {}", refused.text);
    }
    let host = json!({ "Image": "web", "HostConfig": { "Binds": ["/etc:/etc"] } });
    let refused = ask(&door, Method::POST, "/containers/create", Some(host)).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text);
    assert!(refused.message().contains("only where its operator lends them"), "{}", refused.text);
    let missing = ask(&door, Method::POST, "/containers/create", Some(json!({ "Image": "nosuch" }))).await;
    assert_eq!(
        (missing.status, missing.message().as_str()),
        (StatusCode::NOT_FOUND, "No such image: nosuch")
    );
    assert_eq!(ask(&door, Method::GET, "/containers/json?all=1", None).await.json(), json!([]));
    let network = json!({ "Name": "back", "IPAM": {"Config": [{"Subnet": "10.77.0.0/24"}]} });
    let made = ask_as(&door, Method::POST, "/networks/create", Some(network.clone()), 1000).await;
    assert_eq!(made.status, StatusCode::CREATED, "the socket's group are members: {}", made.text);
    assert_eq!(
        ask(&door, Method::POST, "/networks/create", Some(network)).await.status,
        StatusCode::CONFLICT
    );
    let names: Vec<Value> = {
        let all = ask(&door, Method::GET, "/networks", None).await.json();
        all.as_array().unwrap().iter().map(|n| n["Name"].clone()).collect()
    };
    assert_eq!(names, [json!("back"), json!("bridge")]);
    assert_eq!(ask(&door, Method::DELETE, "/networks/bridge", None).await.status, StatusCode::FORBIDDEN);
    assert_eq!(ask(&door, Method::DELETE, "/networks/back", None).await.status, StatusCode::NO_CONTENT);
    let volume = ask(&door, Method::POST, "/volumes/create", Some(json!({ "Name": "data" }))).await;
    assert_eq!(volume.json()["Options"]["size"], "10g", "{}", volume.text);
    assert_eq!(ask(&door, Method::DELETE, "/volumes/data", None).await.status, StatusCode::NO_CONTENT);
    // A login makes the host call somebody: readers do not.
    let new = CreateToken { name: "looks".into(), role: Role::Reader, lifetime_s: None };
    let token = house.client.create_token(&new).await.unwrap().secret;
    let login = json!({ "username": "me", "password": "x", "serveraddress": "127.0.0.1:22" });
    let request = Request::builder().method(Method::POST).uri("/auth");
    let request = request.header("authorization", format!("Bearer {token}"));
    let refused = send(&door, request, Some(login.clone()), 1000).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text);
    let asked = ask_as(&door, Method::POST, "/auth", Some(login), 1000).await;
    assert_ne!(asked.status, StatusCode::FORBIDDEN, "{}", asked.text);
}

#[tokio::test]
async fn credentials_of_a_refused_pull_are_taken_back_at_once() {
    let house = House::open().await;
    let door = door(&house);
    let login = URL_SAFE.encode(json!({"username": "me", "password": "open sesame"}).to_string());
    let pull = || {
        let request = Request::builder().method(Method::POST).uri("/images/create?fromImage=web&tag=1");
        let (door, request) = (door.clone(), request.header("x-registry-auth", &login));
        async move { send(&door, request, None, 0).await }
    };
    let told = || std::mem::take(&mut *house.guests.told.lock().unwrap());
    let quota = UpdateQuota { limits: [("images".to_string(), Some(0))].into(), reset: vec![] };
    house.client.set_quota("default", &quota).await.unwrap();
    let refused = pull().await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text);
    assert_eq!(told(), ["lend me", "take back"]);

    let quota = UpdateQuota { limits: [("images".to_string(), None)].into(), reset: vec![] };
    house.client.set_quota("default", &quota).await.unwrap();
    // What is accepted keeps them until the pull has ended, whoever waits for it.
    let waiting = tokio::spawn(pull());
    let caller = house.caller(control::Role::Admin);
    while house.control.list::<Image>(&caller).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The answer waits for a registry's first word, long after.
    tokio::time::sleep(Duration::from_millis(50)).await;
    waiting.abort();
    assert!(waiting.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!(told(), ["lend me"]);
}
