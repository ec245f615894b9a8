//! What is the same for all calls of a service: forms of refusals, versions, headers.

use crate::cloud::Cloud;
use axum::http::Method;

#[tokio::test]
async fn each_service_refuses_in_its_own_form() {
    let cloud = Cloud::open().await;
    for (path, pointer) in [
        ("/identity/v3/nothing", "/error/message"),
        ("/compute/v2.1/nothing", "/itemNotFound/message"),
        ("/volume/v3/nothing", "/itemNotFound/message"),
        ("/network/v2.0/nothing", "/NeutronError/message"),
        ("/placement/nothing", "/errors/0/detail"),
    ] {
        let json = cloud.get(&cloud.admin, path).await.expect(404);
        assert_eq!(
            json.pointer(pointer).and_then(|v| v.as_str()),
            Some("The resource could not be found."),
            "{path}: {json}"
        );
    }
    let page = cloud.get(&cloud.admin, "/image/v2/nothing").await;
    assert_eq!(page.status.as_u16(), 404);
    assert!(page.text().contains("<h1>404 Not Found</h1>"), "{}", page.text());
    let json = cloud.delete(&cloud.admin, "/compute/v2.1").await.expect(405);
    assert_eq!(json["badMethod"]["code"], 405);
}

#[tokio::test]
async fn versions_are_agreed_on_and_said() {
    let cloud = Cloud::open().await;
    let ask = async |path: &str, header: &str, value: &str| {
        cloud.call(Method::GET, path, "", &[(header, value)], "").await
    };
    let reply = ask("/compute/v2.1/", "OpenStack-API-Version", "compute 2.61").await;
    assert_eq!(reply.headers["openstack-api-version"], "compute 2.61");
    assert_eq!(reply.headers["x-openstack-nova-api-version"], "2.61");
    assert_eq!(reply.headers["x-compute-request-id"], reply.headers["x-openstack-request-id"]);
    let reply = ask("/compute/v2.1/", "X-OpenStack-Nova-API-Version", "2.999").await;
    assert_eq!(
        reply.expect(406)["computeFault"]["message"],
        "Version 2.999 is not supported by the API. Minimum is 2.1 and maximum is 2.96."
    );
    assert_eq!(reply.headers["openstack-api-version"], "compute 2.999");
    let reply = ask("/volume/", "OpenStack-API-Version", "volume latest").await;
    assert_eq!(reply.headers["openstack-api-version"], "volume 3.71");
    assert_eq!(reply.headers["vary"], "openstack-api-version");
    assert_eq!(cloud.get("", "/placement").await.headers["openstack-api-version"], "placement 1.0");
}

#[tokio::test]
async fn bodies_are_limited_and_must_be_json() {
    let cloud = Cloud::open().await;
    let path = "/identity/v3/users";
    let large = format!("{{\"user\": \"{}\"}}", "x".repeat(api::limits::JSON_BYTES_MAX));
    for (body, status, words) in [
        (large.as_str(), 413, "more than 1048576 bytes"),
        ("{\"user\": ", 400, "no JSON"),
        ("{} {}", 400, "user"),
        ("{\"user\": {\"enabled\": \"perhaps\"}}", 400, "user.enabled"),
        ("", 400, "no JSON"),
    ] {
        let json = cloud.call(Method::POST, path, &cloud.admin, &[], body.to_string()).await.expect(status);
        assert!(json["error"]["message"].as_str().unwrap().contains(words), "{json}");
    }
}

#[tokio::test]
async fn readers_change_nothing_and_long_paths_are_refused() {
    let cloud = Cloud::open().await;
    let reader = cloud.as_role("reader").await;
    let body = serde_json::json!({});
    let json = cloud.post(&reader, "/network/v2.0/networks", &body).await.expect(403);
    assert_eq!(json["NeutronError"]["type"], "PolicyNotAuthorized");
    cloud.get(&reader, "/network/v2.0/").await.expect(200);
    let long = format!("/compute/v2.1/{}", "x".repeat(9_000));
    cloud.get(&reader, &long).await.expect(414);
}
