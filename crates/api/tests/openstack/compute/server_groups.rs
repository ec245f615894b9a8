//! Server groups: made, shown in the form of each microversion, and kept at placement.

use super::{Lab, keys};
use axum::http::Method;
use serde_json::{Value, json};

const PATH: &str = "/os-server-groups";

impl Lab {
    async fn group(&self, version: &str, group: Value) -> crate::cloud::Reply {
        self.post(version, PATH, json!({ "server_group": group })).await
    }

    async fn in_group(&self, name: &str, group: &str) -> crate::cloud::Reply {
        let mut order = self.order(name);
        order["os:scheduler_hints"] = json!({ "group": group });
        self.post("2.1", "/servers", order).await
    }
}

fn words(text: &str) -> std::collections::BTreeSet<String> {
    text.split_whitespace().map(String::from).collect()
}

#[tokio::test]
async fn a_group_has_the_form_of_its_microversion() {
    let lab = Lab::open().await;
    let made = lab.group("2.1", json!({ "name": "apart", "policies": ["anti-affinity"] })).await.expect(200);
    let group = &made["server_group"];
    assert_eq!(keys(group), words("id name policies metadata members"));
    assert_eq!((&group["policies"], &group["members"]), (&json!(["anti-affinity"]), &json!([])));
    let path = format!("{PATH}/{}", group["id"].as_str().unwrap());
    for (version, fields) in [
        ("2.13", "id name policies metadata members project_id user_id"),
        ("2.64", "id name policy rules members project_id user_id"),
    ] {
        let shown = lab.get(version, &path).await["server_group"].clone();
        assert_eq!(keys(&shown), words(fields), "{version}");
        assert_eq!(lab.get(version, PATH).await["server_groups"], json!([shown]));
    }
    let two = json!({ "name": "two", "policy": "anti-affinity", "rules": { "max_server_per_host": 2 } });
    let made = lab.group("2.64", two).await.expect(200);
    assert_eq!(made["server_group"]["rules"], json!({ "max_server_per_host": 2 }));
    for (version, group) in [
        ("2.1", json!({ "name": "x" })),
        ("2.1", json!({ "name": "x", "policies": [] })),
        ("2.1", json!({ "name": "x", "policies": ["affinity", "anti-affinity"] })),
        ("2.1", json!({ "name": "x", "policies": ["soft-affinity"] })),
        ("2.15", json!({ "name": "x", "policies": ["sharding"] })),
        ("2.15", json!({ "name": "", "policies": ["affinity"] })),
        ("2.64", json!({ "name": "x", "policies": ["affinity"] })),
        ("2.64", json!({ "name": "x", "policy": "affinity", "rules": { "max_server_per_host": 2 } })),
        ("2.64", json!({ "name": "x", "policy": "anti-affinity", "rules": { "max_server_per_host": 0 } })),
        ("2.64", json!({ "name": "x", "policy": "anti-affinity", "rules": { "most": 2 } })),
    ] {
        let refused = lab.group(version, group.clone()).await;
        assert_eq!(refused.status, 400, "{version} {group}: {}", refused.text());
    }
    // The native door has the same group.
    let native: api::v1::types::server_group::ServerGroup = lab.cloud.house.client.get("two").await.unwrap();
    assert_eq!((native.policy.as_str(), native.per_host_max), ("anti-affinity", Some(2)));
    assert_eq!(lab.at(Method::DELETE, &lab.member, "2.1", &path, &Value::Null).await.status, 204);
    assert_eq!(lab.at(Method::DELETE, &lab.member, "2.1", &path, &Value::Null).await.status, 404);
    assert_eq!(lab.at(Method::GET, &lab.member, "2.1", &format!("{PATH}/x"), &Value::Null).await.status, 404);
}

#[tokio::test]
async fn a_policy_is_kept_when_servers_are_placed() {
    let lab = Lab::open().await;
    let id = |made: Value| made["server_group"]["id"].as_str().unwrap().to_string();
    let apart =
        id(lab.group("2.1", json!({ "name": "apart", "policies": ["anti-affinity"] })).await.expect(200));
    let soft = id(lab
        .group("2.15", json!({ "name": "soft", "policies": ["soft-anti-affinity"] }))
        .await
        .expect(200));
    let first = lab.in_group("first", &apart).await.expect(202);
    let first = first["server"]["id"].as_str().unwrap().to_string();
    let shown = lab.get("2.71", &format!("/servers/{first}")).await;
    assert_eq!(shown["server"]["server_groups"], json!([apart]));
    assert_eq!(lab.get("2.1", &format!("{PATH}/{apart}")).await["server_group"]["members"], json!([first]));
    // There is one host, and the first is on it.
    let refused = lab.in_group("second", &apart).await.expect(400);
    assert!(refused["badRequest"]["message"].as_str().unwrap().contains("anti-affinity"), "{refused}");
    lab.in_group("third", &soft).await.expect(202);
    lab.in_group("fourth", &soft).await.expect(202);
    for wrong in ["x", "00000000-0000-4000-8000-000000000000"] {
        assert_eq!(lab.in_group("fifth", wrong).await.status, 400, "{wrong}");
    }
    // A group that goes leaves its servers alone.
    let path = format!("{PATH}/{apart}");
    assert_eq!(lab.at(Method::DELETE, &lab.member, "2.1", &path, &Value::Null).await.status, 204);
    let shown = lab.get("2.71", &format!("/servers/{first}")).await;
    assert_eq!(shown["server"]["server_groups"], json!([]));
    let limits = lab.get("2.1", "/limits").await;
    assert_eq!(limits["limits"]["absolute"]["totalServerGroupsUsed"], 1);
}

#[tokio::test]
async fn a_project_has_so_many_groups_and_a_group_so_many_servers() {
    use model::server_group::{GROUPS_MAX, MEMBERS_MAX};
    let lab = Lab::open().await;
    let mut last = String::new();
    for number in 0..GROUPS_MAX {
        let made =
            lab.group("2.15", json!({ "name": format!("g{number}"), "policies": ["soft-affinity"] })).await;
        last = made.expect(200)["server_group"]["id"].as_str().unwrap().to_string();
    }
    let full = lab.group("2.1", json!({ "name": "more", "policies": ["affinity"] })).await;
    assert_eq!(full.status, 403, "{}", full.text());
    for number in 0..MEMBERS_MAX {
        lab.in_group(&format!("s{number}"), &last).await.expect(202);
    }
    assert_eq!(lab.in_group("more", &last).await.status, 403);
    let gone = format!("{PATH}/{last}");
    assert_eq!(lab.at(Method::DELETE, &lab.member, "2.1", &gone, &Value::Null).await.status, 204);
    lab.group("2.1", json!({ "name": "more", "policies": ["affinity"] })).await.expect(200);
}
