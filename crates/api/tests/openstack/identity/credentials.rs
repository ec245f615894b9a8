//! Application credentials: for one's own programs, with no more than one has.

use super::{by_password, with_scope};
use crate::cloud::Cloud;
use axum::http::Method;
use serde_json::{Value, json};

/// A member's token, user and project.
async fn member(cloud: &Cloud) -> (String, String, String) {
    let project = cloud.make("projects", "project", json!({ "name": "shop" })).await;
    let user = cloud.make("users", "user", json!({ "name": "ann", "password": "first" })).await;
    cloud.give(&format!("projects/{project}"), &user, "member").await;
    let scope = json!({ "project": { "id": project } });
    let token = cloud.token(&by_password("ann", "first", Some(scope))).await;
    (token, user, project)
}

fn by_credential(id: &str, secret: &str) -> Value {
    let credential = json!({ "id": id, "secret": secret });
    with_scope(json!({ "methods": ["application_credential"], "application_credential": credential }), None)
}

async fn create(cloud: &Cloud, token: &str, user: &str, fields: Value) -> Value {
    let path = format!("/identity/v3/users/{user}/application_credentials");
    let body = json!({ "application_credential": fields });
    cloud.post(token, &path, &body).await.expect(201)["application_credential"].clone()
}

#[tokio::test]
async fn a_credential_logs_in_where_it_was_made() {
    let cloud = Cloud::open().await;
    let (token, user, project) = member(&cloud).await;
    let made = create(&cloud, &token, &user, json!({ "name": "ci", "roles": [{ "name": "reader" }] })).await;
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    assert_eq!((&made["project_id"], &made["unrestricted"]), (&json!(project), &json!(false)));
    assert_eq!(made["roles"][0]["name"], "reader");
    assert_eq!(made["expires_at"], Value::Null);

    let reply = cloud.log_in(&by_credential(id, secret)).await.expect(201);
    let body = &reply["token"];
    assert_eq!((&body["project"]["id"], &body["roles"][0]["name"]), (&json!(project), &json!("reader")));
    assert_eq!(body["application_credential"], json!({ "id": id, "name": "ci", "restricted": true }));
    cloud.log_in(&by_credential(id, "wrong")).await.expect(401);
    let by_name =
        json!({ "name": "ci", "user": { "name": "ann", "domain": { "id": "default" } }, "secret": secret });
    let by_name = json!({ "methods": ["application_credential"], "application_credential": by_name });
    cloud.log_in(&with_scope(by_name, None)).await.expect(201);

    // Nobody sees the secret again, and the list names it.
    let path = format!("/identity/v3/users/{user}/application_credentials");
    let shown = cloud.get(&token, &format!("{path}/{id}")).await.expect(200);
    assert!(shown["application_credential"].get("secret").is_none());
    let found = cloud.get(&token, &format!("{path}?name=ci")).await.expect(200);
    assert_eq!(found["application_credentials"].as_array().unwrap().len(), 1);
    let none = cloud.get(&token, &format!("{path}?name=other")).await.expect(200);
    assert!(none["application_credentials"].as_array().unwrap().is_empty());

    // Its sessions end with it.
    let text = cloud.token(&by_credential(id, secret)).await;
    cloud.get(&text, "/network/v2.0/").await.expect(200);
    cloud.delete(&token, &format!("{path}/{id}")).await.expect(204);
    cloud.get(&text, "/network/v2.0/").await.expect(401);
    cloud.log_in(&by_credential(id, secret)).await.expect(401);
    cloud.get(&token, &format!("{path}/{id}")).await.expect(404);
}

#[tokio::test]
async fn a_credential_has_no_more_than_its_user() {
    let cloud = Cloud::open().await;
    let (token, user, project) = member(&cloud).await;
    let path = format!("/identity/v3/users/{user}/application_credentials");
    let refused = async |fields: Value, status: u16| {
        cloud.post(&token, &path, &json!({ "application_credential": fields })).await.expect(status);
    };
    refused(json!({ "name": "x", "roles": [{ "name": "admin" }] }), 400).await;
    refused(json!({ "name": "x", "expires_at": "2001-01-01T00:00:00" }), 400).await;
    refused(json!({ "name": "x", "expires_at": "soon" }), 400).await;
    refused(
        json!({ "name": "x", "access_rules": [{ "service": "compute", "method": "STEAL", "path": "/" }] }),
        400,
    )
    .await;
    refused(json!({}), 400).await;
    let made = create(&cloud, &token, &user, json!({ "name": "ci", "secret": "chosen by ann" })).await;
    refused(json!({ "name": "ci" }), 409).await;
    let text = cloud.token(&by_credential(made["id"].as_str().unwrap(), "chosen by ann")).await;
    // It cannot make others, nor be exchanged, nor work elsewhere.
    cloud.post(&text, &path, &json!({ "application_credential": { "name": "y" } })).await.expect(403);
    let exchange = with_scope(json!({ "methods": ["token"], "token": { "id": text } }), None);
    cloud.log_in(&exchange).await.expect(403);
    let other = cloud.make("projects", "project", json!({ "name": "other" })).await;
    let mut elsewhere = by_credential(made["id"].as_str().unwrap(), "chosen by ann");
    elsewhere["auth"]["scope"] = json!({ "project": { "id": other } });
    cloud.log_in(&elsewhere).await.expect(401);
    // What the user loses, it loses.
    let role = cloud.role_id("member").await;
    cloud
        .delete(&cloud.admin, &format!("/identity/v3/projects/{project}/users/{user}/roles/{role}"))
        .await
        .expect(204);
    cloud.get(&text, "/network/v2.0/").await.expect(401);
}

#[tokio::test]
async fn access_rules_let_through_what_they_name() {
    let cloud = Cloud::open().await;
    let (token, user, _) = member(&cloud).await;
    let rules = json!([{ "service": "network", "method": "GET", "path": "/v2.0/" }]);
    let made = create(&cloud, &token, &user, json!({ "name": "ci", "access_rules": rules })).await;
    assert_eq!(made["access_rules"][0]["path"], "/v2.0/");
    let reply =
        cloud.log_in(&by_credential(made["id"].as_str().unwrap(), made["secret"].as_str().unwrap())).await;
    assert_eq!(reply.expect(201)["token"]["application_credential"]["access_rules"][0]["method"], "GET");
    let text = reply.headers["x-subject-token"].to_str().unwrap();
    cloud.get(text, "/network/v2.0/").await.expect(200);
    cloud.get(text, "/volume/v3/").await.expect(403);
    cloud.call(Method::POST, "/network/v2.0/", text, &[], "{}").await.expect(403);
    cloud.get(text, "/identity/v3/auth/catalog").await.expect(200);

    let path = format!("/identity/v3/users/{user}/access_rules");
    let all = cloud.get(&token, &path).await.expect(200);
    let id = all["access_rules"][0]["id"].as_str().unwrap();
    assert_eq!(
        cloud.get(&token, &format!("{path}/{id}")).await.expect(200)["access_rule"]["service"],
        "network"
    );
    cloud.delete(&token, &format!("{path}/{id}")).await.expect(403);
    cloud.delete(&token, &format!("{path}/none")).await.expect(404);
    // Another credential takes the same rule by its id.
    let again = create(&cloud, &token, &user, json!({ "name": "cd", "access_rules": [{ "id": id }] })).await;
    assert_eq!(again["access_rules"][0]["service"], "network");
}

/// The native door takes sessions too: a credential can do no more there than at this one.
#[tokio::test]
async fn a_credential_is_bound_at_the_native_door_as_well() {
    use api::{
        client::Client,
        v1::types::token::{CreateToken, Role},
    };
    use model::error::Code;
    let cloud = Cloud::open().await;
    let native = |text: &str| Client::unix(&cloud.house.socket).with_token(text);
    let own = cloud.get(&cloud.admin, "/identity/v3/users?name=admin").await.expect(200);
    let user = own["users"][0]["id"].as_str().unwrap().to_string();
    let token = CreateToken { name: "lasting".into(), role: Role::Admin, lifetime_s: None };
    let session = async |fields: Value| {
        let made = create(&cloud, &cloud.admin, &user, fields).await;
        cloud.token(&by_credential(made["id"].as_str().unwrap(), made["secret"].as_str().unwrap())).await
    };

    // What a restricted credential would make must not outlast it.
    let restricted = session(json!({ "name": "restricted" })).await;
    native(&restricted).version().await.unwrap();
    let error = native(&restricted).create_token(&token).await.unwrap_err();
    assert!(error.code() == Code::Forbidden && error.to_string().contains("makes no tokens"), "{error}");
    let unrestricted = session(json!({ "name": "unrestricted", "unrestricted": true })).await;
    native(&unrestricted).create_token(&token).await.unwrap();

    let rules = json!([{ "service": "network", "method": "GET", "path": "/v2.0/" }]);
    let ruled = session(json!({ "name": "ruled", "access_rules": rules })).await;
    let error = native(&ruled).version().await.unwrap_err();
    assert!(error.code() == Code::Forbidden && error.to_string().contains("OpenStack API"), "{error}");
}
