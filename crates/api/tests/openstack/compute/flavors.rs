//! Flavors: ids that are chosen, and private ones that are opened to projects.

use super::Lab;
use axum::http::Method;
use serde_json::{Value, json};

impl Lab {
    async fn admin(&self, method: Method, path: &str, body: Value) -> crate::cloud::Reply {
        self.at(method, &self.cloud.admin, "2.61", path, &body).await
    }

    async fn flavor_ids(&self, token: &str, query: &str) -> Vec<String> {
        let path = format!("/flavors{query}");
        let listed = self.at(Method::GET, token, "2.1", &path, &Value::Null).await.expect(200);
        let all = listed["flavors"].as_array().unwrap().iter();
        all.map(|flavor| flavor["id"].as_str().unwrap().to_string()).collect()
    }
}

fn flavor(id: Value, name: &str, public: bool) -> Value {
    json!({ "flavor": {
        "name": name, "ram": 128, "vcpus": 1, "disk": 1, "id": id, "os-flavor-access:is_public": public,
        "description": "made to measure",
    } })
}

#[tokio::test]
async fn a_flavor_has_the_id_that_was_chosen() {
    let lab = Lab::open().await;
    let uuid = "5f0a9f10-7f55-4fd9-8d4e-0f6c9c1f6a01";
    for (id, name) in [(json!("42"), "by-text"), (json!(7), "by-number"), (json!(uuid), "by-uuid")] {
        let wanted = id.as_str().map_or_else(|| id.to_string(), str::to_string);
        let made = lab.admin(Method::POST, "/flavors", flavor(id, name, true)).await.expect(200);
        let made = &made["flavor"];
        assert_eq!((&made["id"], &made["description"]), (&json!(wanted), &json!("made to measure")));
        let link = made["links"][0]["href"].as_str().unwrap();
        assert!(link.ends_with(&format!("/flavors/{wanted}")), "{link}");
        assert_eq!(lab.get("2.1", &format!("/flavors/{wanted}")).await["flavor"]["name"], name);
    }
    // On the native door a UUID is the id; another one stands beside it.
    let client = &lab.cloud.house.client;
    let native: api::v1::types::flavor::Flavor = client.get("by-uuid").await.unwrap();
    assert_eq!((native.head.id.to_string(), native.openstack_id.as_str()), (uuid.to_string(), uuid));
    let native: api::v1::types::flavor::Flavor = client.get("by-text").await.unwrap();
    assert_eq!(native.openstack_id, "42");

    let mut order = lab.order("one");
    order["server"]["flavorRef"] = json!("42");
    let made = lab.post("2.1", "/servers", order).await.expect(202);
    let path = format!("/servers/{}", made["server"]["id"].as_str().unwrap());
    assert_eq!(lab.get("2.1", &path).await["server"]["flavor"]["id"], "42");
    assert_eq!(lab.listed("?flavor=42").await, ["one"]);
    assert!(lab.listed("?flavor=7").await.is_empty());
    for (id, name, status) in [
        (json!("42"), "other", 409),
        (json!(uuid), "other", 409),
        (json!("43"), "by-text", 409),
        (json!(""), "other", 400),
        (json!(" 43"), "other", 400),
        (json!("a/b"), "other", 400),
        (json!("x".repeat(256)), "other", 400),
        (json!([]), "other", 400),
    ] {
        let reply = lab.admin(Method::POST, "/flavors", flavor(id.clone(), name, true)).await;
        assert_eq!(reply.status.as_u16(), status, "{id} {name}: {}", reply.text());
    }
    // An id is free again when its flavor is gone.
    assert_eq!(lab.admin(Method::DELETE, "/flavors/42", Value::Null).await.status, 202);
    lab.admin(Method::POST, "/flavors", flavor(json!("42"), "by-text", true)).await.expect(200);
}

#[tokio::test]
async fn a_private_flavor_is_for_those_it_is_opened_to() {
    let lab = Lab::open().await;
    let (admin, member) = (&lab.cloud.admin, &lab.member);
    lab.admin(Method::POST, "/flavors", flavor(json!("own"), "own", false)).await.expect(200);
    let project = lab.cloud.house.caller(control::Role::Member).project.hex();
    let has =
        async |token: &str, query: &str| lab.flavor_ids(token, query).await.contains(&"own".to_string());
    assert!(!has(member, "").await && !has(admin, "").await);
    assert!(has(admin, "?is_public=None").await && has(admin, "?is_public=False").await);
    assert_eq!(lab.at(Method::GET, member, "2.1", "/flavors/own", &Value::Null).await.status, 404);
    let mut order = lab.order("one");
    order["server"]["flavorRef"] = json!("own");
    assert_eq!(lab.post("2.1", "/servers", order.clone()).await.status, 400);

    let list = "/flavors/own/os-flavor-access";
    assert_eq!(lab.admin(Method::GET, list, Value::Null).await.expect(200), json!({ "flavor_access": [] }));
    assert_eq!(lab.at(Method::GET, member, "2.1", list, &Value::Null).await.status, 403);
    let path = "/flavors/own/action";
    let open = json!({ "addTenantAccess": { "tenant": project } });
    let close = json!({ "removeTenantAccess": { "tenant": project } });
    assert_eq!(lab.post("2.1", path, open.clone()).await.status, 403);
    let opened = lab.admin(Method::POST, path, open.clone()).await.expect(200);
    assert_eq!(opened, json!({ "flavor_access": [{ "flavor_id": "own", "tenant_id": project }] }));
    assert_eq!(lab.admin(Method::GET, list, Value::Null).await.expect(200), opened);
    assert!(has(member, "").await);
    lab.post("2.1", "/servers", order).await.expect(202);
    let native: api::v1::types::flavor::Flavor = lab.cloud.house.client.get("own").await.unwrap();
    assert_eq!(native.projects[0].name, "default");
    for (path, body, status) in [
        (path, open.clone(), 409),
        (path, json!({ "addTenantAccess": { "tenant": "00000000000040008000000000000000" } }), 400),
        (path, json!({ "addTenantAccess": { "tenant": "x" } }), 400),
        (path, json!({ "addTenantAccess": {} }), 400),
        (path, json!({ "dance": {} }), 400),
        ("/flavors/none/action", open.clone(), 404),
        (&format!("/flavors/{}/action", lab.flavor), open, 409),
    ] {
        let reply = lab.admin(Method::POST, path, body.clone()).await;
        assert_eq!(reply.status.as_u16(), status, "{path} {body}: {}", reply.text());
    }
    let public = format!("/flavors/{}/os-flavor-access", lab.flavor);
    assert_eq!(lab.admin(Method::GET, &public, Value::Null).await.status, 404);
    lab.admin(Method::POST, path, close.clone()).await.expect(200);
    assert!(!has(member, "").await);
    assert_eq!(lab.admin(Method::POST, path, close).await.status, 404);
    // What runs keeps its size.
    assert_eq!(lab.listed("").await, ["one"]);
}
