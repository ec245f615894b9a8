//! What a read costs must not grow with what it is not about: records that it looks at are counted, on all three doors.

use crate::cloud::Cloud;
use api::{auth::Peer, client::Client, v1::types::project::Project};
use axum::{
    Router,
    body::Body,
    http::{Method, Request},
};
use model::instance::State;
use serde_json::{Value, json};
use tower::ServiceExt;

/// Makes an instance with all that hangs on one: a volume, a snapshot of it, a floating IP, a group of its own.
async fn add(client: &Client, name: &str) -> String {
    let post = async |path: &str, body: Value| {
        let made = client.call::<Value>(Method::POST, path, Some(&body), None).await;
        made.unwrap_or_else(|e| panic!("{path}: {e:?}"))
    };
    post("/v1/security_groups", json!({ "name": format!("{name}-group") })).await;
    post("/v1/volumes", json!({ "name": format!("{name}-data"), "size_gib": 1 })).await;
    let made = post(
        "/v1/instances",
        json!({
            "name": name, "kind": "container", "image": "busybox", "security_groups": [format!("{name}-group")],
            "volumes": [{ "volume": format!("{name}-data"), "mount_path": "/data" }],
        }),
    )
    .await;
    post("/v1/floating_ips", json!({ "target": { "instance": name } })).await;
    made["id"].as_str().unwrap().to_string()
}

/// One call of a local door by root; how many records it looked at.
async fn cost(cloud: &Cloud, door: &Router, path: &str) -> u64 {
    let before = cloud.house.control.store().mirror().handed_out();
    let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
    request.extensions_mut().insert(Peer::Unix { uid: 0, pid: 1 });
    let response = door.clone().oneshot(request).await.unwrap();
    assert!(response.status().is_success(), "{path}: {}", response.status());
    cloud.house.control.store().mirror().handed_out() - before
}

async fn openstack_cost(cloud: &Cloud, token: &str, path: &str) -> u64 {
    let before = cloud.house.control.store().mirror().handed_out();
    cloud.get(token, path).await.expect(200);
    cloud.house.control.store().mirror().handed_out() - before
}

struct Ids {
    server: String,
    port: String,
    network: String,
    volume: String,
}

async fn costs(cloud: &Cloud, token: &str, ids: &Ids) -> Vec<(String, u64)> {
    let native = api::v1::router(cloud.house.app.clone());
    let docker = api::docker::router(api::docker::Door::new(cloud.house.app.clone()));
    let Ids { server, port, network, volume } = ids;
    let mut all = vec![];
    for path in [
        format!("/compute/v2.1/servers/{server}"),
        format!("/compute/v2.1/servers/{server}/os-interface"),
        format!("/compute/v2.1/servers/{server}/os-volume_attachments"),
        format!("/compute/v2.1/servers/{server}/os-security-groups"),
        format!("/compute/v2.1/servers/{server}/os-instance-actions"),
        "/compute/v2.1/servers/detail".to_string(),
        "/compute/v2.1/limits".to_string(),
        format!("/network/v2.0/networks/{network}"),
        format!("/network/v2.0/ports/{port}"),
        format!("/network/v2.0/ports?device_id={server}"),
        "/network/v2.0/ports".to_string(),
        format!("/network/v2.0/floatingips?port_id={port}"),
        "/network/v2.0/security-groups".to_string(),
        format!("/volume/v3/volumes/{volume}"),
        "/volume/v3/volumes/detail".to_string(),
        "/volume/v3/limits".to_string(),
    ] {
        all.push((path.clone(), openstack_cost(cloud, token, &path).await));
    }
    for path in [
        "/v1/instances/web".to_string(),
        format!("/v1/instances/{}", &server[..8]),
        "/v1/instances".to_string(),
        format!("/v1/ports/{port}"),
        "/v1/ports?instance=web".to_string(),
        "/v1/volumes/web-data".to_string(),
        "/v1/volumes".to_string(),
        "/v1/security_groups/web-group".to_string(),
        "/v1/floating_ips".to_string(),
        "/v1/quotas/default".to_string(),
    ] {
        all.push((path.clone(), cost(cloud, &native, &path).await));
    }
    for path in [
        "/containers/web/json".to_string(),
        format!("/containers/{}/json", &server.replace('-', "")[..12]),
        "/containers/json".to_string(),
        "/networks/bridge".to_string(),
        "/volumes/web-data".to_string(),
        "/volumes".to_string(),
    ] {
        all.push((path.clone(), cost(cloud, &docker, &path).await));
    }
    all
}

#[tokio::test]
async fn reads_look_at_what_they_are_about_and_not_at_the_rest_of_the_cloud() {
    let cloud = Cloud::open().await;
    let token = cloud.as_role("member").await;
    let client = &cloud.house.client;
    let server = add(client, "web").await;
    cloud.house.seen(server.parse().unwrap(), State::Running { since: jiff::Timestamp::now() }).await;
    let shown = client.call::<Value>(Method::GET, "/v1/instances/web", None::<&()>, None).await.unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let ids = Ids {
        port: text(&shown["ports"][0]["id"]),
        network: text(&shown["ports"][0]["network"]["id"]),
        volume: text(&shown["volumes"][0]["id"]),
        server,
    };
    let before = costs(&cloud, &token, &ids).await;
    let request = api::v1::types::project::CreateProject { name: "other".into(), ..Default::default() };
    client.create::<Project>(&request, &Default::default()).await.unwrap();
    let other = Client::unix(&cloud.house.socket).with_project("other");
    for number in 0..6 {
        let id = add(&other, &format!("web-{number}")).await;
        cloud.house.seen(id.parse().unwrap(), State::Running { since: jiff::Timestamp::now() }).await;
    }
    let after = costs(&cloud, &token, &ids).await;
    for ((path, before), (_, after)) in before.iter().zip(&after) {
        assert!(*before > 0, "{path} looks at nothing, so nothing is proven");
        assert_eq!(before, after, "{path} looks at what others have: {before} records before, {after} now");
    }
}
