//! Placement as admins' clients read it.

use crate::cloud::Cloud;
use axum::{body::Body, http::Method};
use serde_json::json;

#[tokio::test]
async fn hosts_tell_what_they_have_and_what_is_taken() {
    let cloud = Cloud::open().await;
    let ask = async |path: &str, version: &str| {
        let header = [("openstack-api-version", version)];
        let path = format!("/placement{path}");
        cloud.call(Method::GET, &path, &cloud.admin, &header, Body::empty()).await
    };
    let latest = "placement 1.39";
    let list = ask("/resource_providers", latest).await.expect(200);
    let host = &list["resource_providers"][0];
    let id = host["uuid"].as_str().unwrap();
    assert_eq!((&host["name"], &host["root_provider_uuid"]), (&json!("here"), &json!(id)));
    assert!(host["generation"].as_u64().is_some() && host["parent_provider_uuid"].is_null());
    assert_eq!(host["links"].as_array().unwrap().len(), 6);
    let old = ask(&format!("/resource_providers/{id}"), "placement 1.0").await.expect(200);
    assert!(old.get("root_provider_uuid").is_none());
    assert_eq!(old["links"].as_array().unwrap().len(), 3);

    let has = ask(&format!("/resource_providers/{id}/inventories"), latest).await.expect(200);
    assert_eq!(has["inventories"]["VCPU"]["total"], 64);
    assert_eq!(has["inventories"]["VCPU"]["allocation_ratio"], 16.0);
    assert_eq!(has["inventories"]["MEMORY_MB"]["total"], 262_144);
    assert_eq!(has["inventories"]["DISK_GB"]["total"], 10_000);
    let one = ask(&format!("/resource_providers/{id}/inventories/VCPU"), latest).await.expect(200);
    assert_eq!(one["total"], 64);
    assert_eq!(ask(&format!("/resource_providers/{id}/inventories/FPGA"), latest).await.status.as_u16(), 404);

    let run =
        json!({"name": "web", "kind": "container", "flavor": "g1.c1m512", "image": "localhost:5000/web:1"});
    let request = serde_json::from_value(run).unwrap();
    let made = cloud
        .house
        .client
        .create::<api::v1::types::instance::Instance>(&request, &Default::default())
        .await
        .unwrap();
    let used = ask(&format!("/resource_providers/{id}/usages"), latest).await.expect(200);
    assert_eq!(used["usages"]["VCPU"], 1);
    let consumer = made.head.id.to_string();
    let held = ask(&format!("/allocations/{consumer}"), latest).await.expect(200);
    assert_eq!(held["allocations"][id]["resources"]["VCPU"], 1);
    assert_eq!(held["project_id"], made.head.project.id.simple().to_string());
    let all = ask(&format!("/resource_providers/{id}/allocations"), latest).await.expect(200);
    assert_eq!(all["allocations"][consumer.as_str()]["resources"]["VCPU"], 1);
    let project = made.head.project.id.simple().to_string();
    let usages = ask(&format!("/usages?project_id={project}"), latest).await.expect(200);
    assert_eq!(usages["usages"]["INSTANCE"]["consumer_count"], 1);
    let nothing = ask(&format!("/allocations/{id}"), latest).await.expect(200);
    assert_eq!(nothing, json!({"allocations": {}}));
}

#[tokio::test]
async fn candidates_are_hosts_with_room() {
    let cloud = Cloud::open().await;
    let ask = async |query: &str, version: &str| {
        let header = [("openstack-api-version", version)];
        let path = format!("/placement/allocation_candidates?{query}");
        cloud.call(Method::GET, &path, &cloud.admin, &header, Body::empty()).await
    };
    let found = ask("resources=VCPU:2,MEMORY_MB:512,DISK_GB:1&limit=5", "placement 1.39").await.expect(200);
    let (id, summary) = found["provider_summaries"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(summary["resources"]["VCPU"], json!({"capacity": 1024, "used": 0}));
    let request = &found["allocation_requests"][0];
    assert_eq!(request["allocations"][id]["resources"], json!({"VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 1}));
    assert_eq!(request["mappings"], json!({"": [id]}));
    let none = ask("resources=MEMORY_MB:999999999", "placement 1.39").await.expect(200);
    assert_eq!(none["allocation_requests"], json!([]));
    for wrong in [
        "",
        "resources=",
        "resources=VCPU",
        "resources=VCPU:x",
        "resources=VCPU:0",
        "resources=FPGA:1",
        "resources=VCPU:1&x=1",
    ] {
        assert_eq!(ask(wrong, "placement 1.39").await.status.as_u16(), 400, "{wrong}");
    }
    assert_eq!(ask("resources=VCPU:1", "placement 1.0").await.status.as_u16(), 404);
    let member = cloud.as_role("member").await;
    let refused = cloud.get(&member, "/placement/resource_providers").await.expect(403);
    assert_eq!(refused["errors"][0]["status"], 403);
    assert_eq!(cloud.get("", "/placement/resource_providers").await.status.as_u16(), 401);
}
