//! Keys: a user's own in every project, and the project's, which the native door makes.

use super::Lab;
use axum::http::Method;
use serde_json::{Value, json};

const PATH: &str = "/os-keypairs";

impl Lab {
    async fn key_names(&self, token: &str, query: &str) -> Vec<String> {
        let listed = self.at(Method::GET, token, "2.10", &format!("{PATH}{query}"), &Value::Null).await;
        let listed = listed.expect(200);
        let keys = listed["keypairs"].as_array().unwrap().iter();
        keys.map(|k| k["keypair"]["name"].as_str().unwrap().to_string()).collect()
    }
}

#[tokio::test]
async fn a_key_is_its_users_own_and_native_ones_are_the_projects() {
    let lab = Lab::open().await;
    let other = lab.cloud.as_role("member").await;
    let key = |name: &str| json!({ "keypair": { "name": name, "public_key": crate::house::KEY } });
    let made = lab.post("2.2", PATH, key("mine")).await.expect(201)["keypair"].clone();
    // As `ssh-keygen -l -E md5` prints it.
    assert_eq!(made["fingerprint"], "65:96:2d:fc:e8:d5:a9:11:64:0c:0f:ea:00:6e:5b:bd");
    let user = made["user_id"].as_str().unwrap().to_string();
    // Two users have a key of one name; each sees its own, and what the project has.
    lab.at(Method::POST, &other, "2.2", PATH, &key("mine")).await.expect(201);
    assert_eq!(lab.post("2.2", PATH, key("mine")).await.status, 409);
    let shared = api::v1::types::keypair::CreateKeypair {
        name: "shared".into(),
        public_key: crate::house::KEY.into(),
        ..Default::default()
    };
    let client = &lab.cloud.house.client;
    let shared: api::v1::types::keypair::Keypair = client.create(&shared, &Default::default()).await.unwrap();
    assert_eq!(shared.user, None);
    for token in [&lab.member, &other] {
        assert_eq!(lab.key_names(token, "").await, ["mine", "shared"]);
    }
    let native = client.list::<api::v1::types::keypair::Keypair>(&Default::default()).await.unwrap();
    let own = native.items.iter().filter(|key| key.user.is_some()).count();
    assert_eq!((native.items.len(), own), (3, 2), "the native door has all of the project");

    // In another project the user's own is there, and that project's are.
    let caller = lab.cloud.house.caller(control::Role::Admin);
    let control = &lab.cloud.house.control;
    let elsewhere = control.create_project(&caller, "elsewhere", "", Default::default()).await.unwrap();
    let id = user.parse().unwrap();
    let (role, mut tx) = (control.role_named("member").unwrap().record.id, store::Tx::new());
    let (actor, target) =
        (model::assignment::Actor::User(id), model::assignment::Target::Project(elsewhere.meta.id));
    tx.create(&model::assignment::Assignment { actor, target, role });
    control.store().commit(tx).await.unwrap();
    let scope = control::session::Scope::Project(elsewhere.meta.id);
    let (token, _) =
        control.open_session(id, scope, control::session::Methods::PASSWORD, None, None).unwrap();
    assert_eq!(lab.key_names(&token, "").await, ["mine"]);

    // Admins look at others' keys and make some for them, from 2.10 on.
    let admin = &lab.cloud.admin;
    assert_eq!(lab.key_names(admin, &format!("?user_id={user}")).await, ["mine"]);
    let refused = lab.at(Method::GET, &other, "2.10", &format!("{PATH}?user_id={user}"), &Value::Null).await;
    assert_eq!(refused.status, 403);
    let mut given = key("given");
    given["keypair"]["user_id"] = json!(user);
    assert_eq!(lab.at(Method::POST, &other, "2.10", PATH, &given).await.status, 403);
    assert_eq!(lab.at(Method::POST, admin, "2.9", PATH, &given).await.status, 400, "it came with 2.10");
    let made = lab.at(Method::POST, admin, "2.10", PATH, &given).await.expect(201);
    assert_eq!(made["keypair"]["user_id"], json!(user));
    assert_eq!(lab.key_names(&lab.member, "").await, ["given", "mine", "shared"]);
    let gone = format!("{PATH}/given?user_id={user}");
    assert_eq!(lab.at(Method::DELETE, &other, "2.10", &gone, &Value::Null).await.status, 403);
    assert_eq!(lab.at(Method::DELETE, admin, "2.10", &gone, &Value::Null).await.status, 204);
    // A server gets the key that its maker means.
    let mut order = lab.order("one");
    order["server"]["key_name"] = json!("shared");
    lab.post("2.1", "/servers", order.clone()).await.expect(202);
    order["server"]["key_name"] = json!("given");
    assert_eq!(lab.post("2.1", "/servers", order).await.status, 400);
    // Keys go with their user.
    let gone = lab.cloud.delete(admin, &format!("/identity/v3/users/{user}")).await;
    assert_eq!(gone.status, 204, "{}", gone.text());
    assert!(control.keypairs_of(id).is_empty());
}

#[tokio::test]
async fn names_of_keys_have_the_letters_of_their_microversion() {
    let lab = Lab::open().await;
    for (version, name, status) in [
        ("2.1", "a b-c_d", 200),
        ("2.2", "user@host", 400),
        ("2.91", "a.b", 400),
        ("2.92", "user@host.example", 201),
        ("2.92", "schlüssel", 400),
        ("2.92", "a/b", 400),
    ] {
        let body = json!({ "keypair": { "name": name, "public_key": crate::house::KEY } });
        let reply = lab.post(version, PATH, body).await;
        assert_eq!(reply.status.as_u16(), status, "{version} {name}: {}", reply.text());
    }
    let page = lab.get("2.35", "/os-keypairs?limit=1").await;
    assert_eq!(page["keypairs"].as_array().unwrap().len(), 1);
    assert!(page["keypairs_links"][0]["href"].as_str().unwrap().contains("marker=a"), "{page}");
    let past = lab.at(Method::GET, &lab.member, "2.35", "/os-keypairs?marker=none", &Value::Null).await;
    assert_eq!(past.status, 400);
}
