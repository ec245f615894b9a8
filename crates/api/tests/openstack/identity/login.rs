//! Logging in: proofs, scopes, the token's body, locks, the end of sessions.

use super::{by_password, with_scope};
use crate::cloud::Cloud;
use axum::http::Method;
use control::Control;
use jiff::{SignedDuration, Timestamp};
use model::user::Rules;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

const TOKENS: &str = "/identity/v3/auth/tokens";

/// A user with a password and the role member in a project of its own: ids of both.
async fn ann(cloud: &Cloud) -> (String, String) {
    let project = cloud.make("projects", "project", json!({ "name": "shop" })).await;
    let user = cloud.make("users", "user", json!({ "name": "ann", "password": "first" })).await;
    cloud.give(&format!("projects/{project}"), &user, "member").await;
    (user, project)
}

fn shop() -> Option<Value> {
    Some(json!({ "project": { "name": "shop", "domain": { "name": "Default" } } }))
}

#[tokio::test]
async fn a_token_tells_who_where_and_what_there_is() {
    let cloud = Cloud::open().await;
    let (user, project) = ann(&cloud).await;
    let reply = cloud.log_in(&by_password("ann", "first", shop())).await;
    let body = reply.expect(201);
    let token = &body["token"];
    assert_eq!(token["methods"], json!(["password"]));
    assert_eq!((&token["user"]["id"], &token["user"]["domain"]["id"]), (&json!(user), &json!("default")));
    assert_eq!((&token["project"]["id"], &token["is_domain"]), (&json!(project), &json!(false)));
    let roles: Vec<&str> =
        token["roles"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(roles, ["member", "reader"]);
    let catalog = token["catalog"].as_array().unwrap();
    for (kind, url) in [
        ("identity", "http://cloud:5000/identity/v3"),
        ("compute", "http://cloud:5000/compute/v2.1"),
        ("image", "http://cloud:5000/image"),
        ("network", "http://cloud:5000/network"),
        ("block-storage", "http://cloud:5000/volume/v3"),
        ("placement", "http://cloud:5000/placement"),
    ] {
        let service = catalog.iter().find(|s| s["type"] == kind).unwrap();
        let public = service["endpoints"].as_array().unwrap().iter().find(|e| e["interface"] == "public");
        let public = public.unwrap();
        assert_eq!(
            (&public["url"], &public["region"], &public["region_id"]),
            (&json!(url), &json!("RegionOne"), &json!("RegionOne"))
        );
        assert_eq!(public["id"].as_str().unwrap().len(), 32);
    }
    // The same is shown to whoever asks for it with the token.
    let text = reply.headers["x-subject-token"].to_str().unwrap();
    let shown = cloud.call(Method::GET, TOKENS, text, &[("x-subject-token", text)], "").await;
    assert_eq!(shown.expect(200), body);
    assert_eq!(shown.headers["x-subject-token"], text);
    cloud.call(Method::HEAD, TOKENS, text, &[("x-subject-token", text)], "").await.expect(200);
    let bare = cloud.post("", &format!("{TOKENS}?nocatalog"), &by_password("ann", "first", shop())).await;
    assert!(bare.expect(201)["token"].get("catalog").is_none());
    // Services take it at once, the native door too.
    cloud.get(text, "/network/v2.0/").await.expect(200);
    let native = api::client::Client::unix(&cloud.house.socket).with_token(text);
    let caller = native.version().await.unwrap().caller;
    assert_eq!(
        (caller.actor.as_str(), caller.role.as_str(), caller.project.name.as_str()),
        ("user ann", "member", "shop")
    );
}

#[tokio::test]
async fn scopes_are_what_the_user_has_roles_for() {
    let cloud = Cloud::open().await;
    let (user, project) = ann(&cloud).await;
    let other = cloud.make("projects", "project", json!({ "name": "other" })).await;
    let status =
        async |scope: Value| cloud.log_in(&by_password("ann", "first", Some(scope))).await.status.as_u16();
    let dashed = uuid::Uuid::parse_str(&project).unwrap().hyphenated().to_string();
    for (scope, wanted) in [
        (json!({ "project": { "id": project } }), 201),
        (json!({ "project": { "id": dashed } }), 201),
        (json!({ "project": { "id": other } }), 401),
        (json!({ "project": { "name": "nowhere", "domain": { "id": "default" } } }), 401),
        (json!({ "domain": { "id": "default" } }), 401),
        (json!({ "system": { "all": true } }), 401),
        (json!("unscoped"), 201),
        (json!({ "unscoped": {} }), 201),
        (json!({ "project": { "name": "shop" } }), 400),
        (json!({ "project": { "id": project }, "domain": { "id": "default" } }), 400),
    ] {
        assert_eq!(status(scope.clone()).await, wanted, "{scope}");
    }
    // Without a word about it: unscoped, or the default project if there is one.
    let unscoped = cloud.log_in(&by_password("ann", "first", None)).await.expect(201);
    assert!(unscoped["token"].get("project").is_none() && unscoped["token"].get("catalog").is_none());
    let wish = json!({ "user": { "default_project_id": project } });
    cloud.send(Method::PATCH, &cloud.admin, &format!("/identity/v3/users/{user}"), &wish).await.expect(200);
    let body = cloud.log_in(&by_password("ann", "first", None)).await.expect(201);
    assert_eq!(body["token"]["project"]["id"], json!(project));
    // Domain and system once there is a role.
    cloud.give("domains/default", &user, "manager").await;
    cloud.give("system", &user, "reader").await;
    let body =
        cloud.log_in(&by_password("ann", "first", Some(json!({ "domain": { "name": "Default" } })))).await;
    assert_eq!(body.expect(201)["token"]["domain"], json!({ "id": "default", "name": "Default" }));
    let system = cloud.log_in(&by_password("ann", "first", Some(json!({ "system": { "all": true } })))).await;
    assert_eq!(system.expect(201)["token"]["system"], json!({ "all": true }));
    // Such a token says nothing to services that work in projects.
    let text = system.headers["x-subject-token"].to_str().unwrap();
    assert_eq!(
        cloud.get(text, "/network/v2.0/").await.expect(403)["NeutronError"]["type"],
        "PolicyNotAuthorized"
    );
}

#[tokio::test]
async fn a_token_is_exchanged_for_another_and_never_outlives_it() {
    let cloud = Cloud::open().await;
    let (_, project) = ann(&cloud).await;
    let first = cloud.log_in(&by_password("ann", "first", None)).await;
    let text = first.headers["x-subject-token"].to_str().unwrap().to_string();
    let identity = json!({ "methods": ["token"], "token": { "id": text } });
    let scope = json!({ "project": { "id": project } });
    let second = cloud.log_in(&with_scope(identity.clone(), Some(scope))).await.expect(201);
    let token = &second["token"];
    assert_eq!(token["methods"], json!(["password", "token"]));
    assert_eq!(token["expires_at"], first.json()["token"]["expires_at"]);
    assert_eq!(token["audit_ids"][1], first.json()["token"]["audit_ids"][0]);
    let again = cloud.log_in(&with_scope(identity.clone(), None)).await.expect(201);
    assert!(again["token"].get("project").is_none(), "no default project, no scope");
    cloud.call(Method::DELETE, TOKENS, &text, &[("x-subject-token", &text)], "").await.expect(204);
    cloud.log_in(&with_scope(identity, None)).await.expect(404);
}

#[tokio::test]
async fn refusals_of_logins_are_all_alike() {
    let cloud = Cloud::open().await;
    ann(&cloud).await;
    cloud.make("users", "user", json!({ "name": "off", "password": "p", "enabled": false })).await;
    cloud.make("users", "user", json!({ "name": "bare" })).await;
    let mut seen = vec![];
    for (name, password) in [("ann", "wrong"), ("nobody", "first"), ("off", "p"), ("bare", ""), ("bare", "x")]
    {
        let reply = cloud.log_in(&by_password(name, password, None)).await;
        assert_eq!(reply.headers["www-authenticate"], "Keystone uri=\"http://cloud:5000/identity/v3\"");
        seen.push(reply.expect(401));
    }
    assert!(seen.iter().all(|body| *body == seen[0]), "{seen:?}");
    assert_eq!(seen[0]["error"]["message"], "The request you have made requires authentication.");
    for body in
        [json!({}), json!({ "auth": {} }), json!({ "auth": { "identity": { "methods": ["password"] } } })]
    {
        cloud.log_in(&body).await.expect(400);
    }
    cloud.log_in(&with_scope(json!({ "methods": ["totp"] }), None)).await.expect(401);
    cloud.log_in(&with_scope(json!({ "methods": [] }), None)).await.expect(401);
}

#[tokio::test]
async fn what_goes_is_gone_from_every_session_at_once() {
    let cloud = Cloud::open().await;
    let (user, project) = ann(&cloud).await;
    let members =
        format!("/identity/v3/projects/{project}/users/{user}/roles/{}", cloud.role_id("member").await);
    let works = async |text: &str| cloud.get(text, "/network/v2.0/").await.status.as_u16();
    let log_in = async || cloud.token(&by_password("ann", "first", shop())).await;
    let patch = async |path: String, body: Value| {
        cloud.send(Method::PATCH, &cloud.admin, &path, &body).await.expect(200);
    };

    let text = log_in().await;
    assert_eq!(works(&text).await, 200);
    cloud.delete(&cloud.admin, &members).await.expect(204);
    assert_eq!(works(&text).await, 401, "the role is gone");
    cloud.send(Method::PUT, &cloud.admin, &members, &Value::Null).await.expect(204);
    assert_eq!(works(&text).await, 200, "the role is back");

    patch(format!("/identity/v3/projects/{project}"), json!({ "project": { "enabled": false } })).await;
    assert_eq!(works(&text).await, 401, "the project is disabled");
    patch(format!("/identity/v3/projects/{project}"), json!({ "project": { "enabled": true } })).await;
    assert_eq!(works(&text).await, 200);

    patch(format!("/identity/v3/users/{user}"), json!({ "user": { "enabled": false } })).await;
    patch(format!("/identity/v3/users/{user}"), json!({ "user": { "enabled": true } })).await;
    assert_eq!(works(&text).await, 401, "the user was disabled");

    let text = log_in().await;
    patch(format!("/identity/v3/users/{user}"), json!({ "user": { "password": "first" } })).await;
    assert_eq!(works(&text).await, 401, "an admin set the password");

    let (one, other) = (log_in().await, log_in().await);
    cloud.call(Method::DELETE, TOKENS, &one, &[("x-subject-token", &one)], "").await.expect(204);
    assert_eq!((works(&one).await, works(&other).await), (401, 200), "one session was ended");

    cloud.delete(&cloud.admin, &format!("/identity/v3/users/{user}")).await.expect(204);
    assert_eq!(works(&other).await, 401, "the user is deleted");
}

/// A clock that a test moves.
fn clock() -> (Arc<Mutex<Timestamp>>, Arc<dyn Fn() -> Timestamp + Send + Sync>) {
    let now = Arc::new(Mutex::new(Timestamp::now()));
    let read = Arc::clone(&now);
    (now, Arc::new(move || *read.lock().unwrap()))
}

async fn open_with(rules: Rules) -> (Cloud, Arc<Mutex<Timestamp>>) {
    let (now, read) = clock();
    let cloud = Cloud::open_with(|store| Control::with_clock(store, read).with_rules(rules)).await;
    (cloud, now)
}

fn pass(now: &Mutex<Timestamp>, seconds: i64) {
    let mut now = now.lock().unwrap();
    *now = now.saturating_add(SignedDuration::from_secs(seconds)).unwrap();
}

#[tokio::test]
async fn failed_logins_lock_a_user_for_a_while() {
    let rules =
        Rules { lockout_attempts: 2, lockout_duration: SignedDuration::from_secs(5), ..Rules::default() };
    let (cloud, now) = open_with(rules).await;
    ann(&cloud).await;
    let (good, bad) = (by_password("ann", "first", None), by_password("ann", "bad", None));
    cloud.log_in(&good).await.expect(201);
    cloud.log_in(&bad).await.expect(401);
    cloud.log_in(&good).await.expect(201);
    cloud.log_in(&bad).await.expect(401);
    cloud.log_in(&bad).await.expect(401);
    cloud.log_in(&good).await.expect(401);
    pass(&now, 6);
    cloud.log_in(&good).await.expect(201);
    // Many at the same time get no more attempts than one after the other.
    let all: Vec<_> = (0..8).map(|_| cloud.log_in(&bad)).collect();
    futures::future::join_all(all).await;
    cloud.log_in(&good).await.expect(401);
}

#[tokio::test]
async fn one_changes_the_own_password_and_older_ones_do_not_come_back() {
    let rules = Rules { unique_passwords: 2, ..Rules::default() };
    let (cloud, now) = open_with(rules).await;
    let (user, _) = ann(&cloud).await;
    let path = format!("/identity/v3/users/{user}/password");
    let change = async |old: &str, new: &str| {
        pass(&now, 1);
        let body = json!({ "user": { "original_password": old, "password": new } });
        cloud.post("", &path, &body).await.status.as_u16()
    };
    let text = cloud.token(&by_password("ann", "first", shop())).await;
    assert_eq!(change("wrong", "second").await, 401);
    assert_eq!(change("first", "second").await, 204);
    cloud.get(&text, "/network/v2.0/").await.expect(401);
    cloud.log_in(&by_password("ann", "first", None)).await.expect(401);
    assert_eq!(change("second", "second").await, 400);
    assert_eq!(change("second", "first").await, 400);
    assert_eq!(change("second", "").await, 400);
    assert_eq!(change("second", &"x".repeat(2_000)).await, 400);
    assert_eq!(change("second", "third").await, 204);
    assert_eq!(change("third", "first").await, 204);
    pass(&now, 1);
    cloud.log_in(&by_password("ann", "first", None)).await.expect(201);
}

#[tokio::test]
async fn sessions_end_in_time_and_only_their_hashes_of_passwords_are_kept() {
    let rules = Rules { session_lifetime: SignedDuration::from_secs(60), ..Rules::default() };
    let (cloud, now) = open_with(rules).await;
    ann(&cloud).await;
    let text = cloud.token(&by_password("ann", "first", shop())).await;
    pass(&now, 59);
    cloud.get(&text, "/network/v2.0/").await.expect(200);
    pass(&now, 1);
    cloud.get(&text, "/network/v2.0/").await.expect(401);
    let users = cloud.house.control.store().list::<model::user::User>();
    let kept = serde_json::to_string(&users.iter().map(|u| &u.record).collect::<Vec<_>>()).unwrap();
    assert!(kept.contains("$argon2id$") && !kept.contains("\"first\""), "{kept}");
}
