//! Who may do what: tokens, roles, projects.

use crate::house::{House, KEY};
use api::{
    client::Client,
    v1::types::{
        keypair::{CreateKeypair, Keypair},
        list::{ListQuery, WaitQuery},
        operation::Operation,
        project::{CreateProject, Project},
        token::{CreateToken, Role, Token},
    },
};
use control::network::NewNetwork;
use model::{error::Code, id::ProjectId, network::NetworkKind};
use store::Tx;

fn key(name: &str) -> CreateKeypair {
    CreateKeypair { name: name.into(), public_key: KEY.into(), ..CreateKeypair::default() }
}

#[tokio::test]
async fn root_on_the_socket_is_admin() {
    let house = House::open().await;
    let version = house.client.version().await.unwrap();
    assert_eq!((version.caller.actor.as_str(), version.caller.role.as_str()), ("root (uid 0)", "admin"));
    assert_eq!(version.caller.project.name, "default");
}

#[tokio::test]
async fn roles_are_obeyed_and_named() {
    let house = House::open().await;
    let wait = WaitQuery::default();
    let reader = house.as_role(Role::Reader).await;
    assert_eq!(reader.version().await.unwrap().caller.actor, "token for-reader");
    assert!(reader.list::<Keypair>(&ListQuery::default()).await.unwrap().items.is_empty());
    let error = reader.create::<Keypair>(&key("k"), &wait).await.unwrap_err();
    assert_eq!(error.code(), Code::Forbidden);
    assert!(
        error.to_string().contains("needs the role member") && error.to_string().contains("reader"),
        "{error}"
    );

    let member = house.as_role(Role::Member).await;
    member.create::<Keypair>(&key("k"), &wait).await.unwrap();
    let project = CreateProject { name: "other".into(), ..CreateProject::default() };
    let error = member.create::<Project>(&project, &wait).await.unwrap_err();
    assert_eq!(error.code(), Code::Forbidden);
    assert!(error.to_string().contains("needs the role admin"), "{error}");
    let everywhere = ListQuery { project: Some("*".into()), ..ListQuery::default() };
    assert_eq!(member.list::<Keypair>(&everywhere).await.unwrap_err().code(), Code::Forbidden);
    assert_eq!(house.client.list::<Keypair>(&everywhere).await.unwrap().items.len(), 1);

    // The refusals are in the record too, with who asked.
    let operations = house.client.list_all::<Operation>(&ListQuery::default()).await.unwrap();
    let refused = operations.iter().find(|o| o.noun == "project" && o.actor == "token for-member").unwrap();
    assert_eq!(refused.fault.as_ref().unwrap().code, Code::Forbidden);
    let tried = operations.iter().find(|o| o.actor == "token for-reader").unwrap();
    assert_eq!(
        (tried.action.as_str(), tried.noun.as_str(), tried.name.as_str()),
        ("post", "keypair", "/v1/keypairs")
    );
    let made = operations.iter().find(|o| o.noun == "keypair" && o.fault.is_none()).unwrap();
    assert_eq!((made.action.as_str(), made.name.as_str()), ("create", "k"));
}

#[tokio::test]
async fn tokens_are_bound_to_their_project() {
    let house = House::open().await;
    let wait = WaitQuery::default();
    let project = CreateProject { name: "shop äö".into(), ..CreateProject::default() };
    house.client.create::<Project>(&project, &wait).await.unwrap();
    let in_shop = house.client.clone().with_project("shop äö");
    in_shop.create::<Keypair>(&key("k"), &wait).await.unwrap();
    house.client.create::<Keypair>(&key("k"), &wait).await.unwrap();

    let member = house.as_role(Role::Member).await;
    let error =
        member.clone().with_project("shop äö").list::<Keypair>(&ListQuery::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error:?}");
    let mine = member.list::<Keypair>(&ListQuery::default()).await.unwrap();
    assert_eq!(mine.items.len(), 1);
    let foreign = in_shop.get::<Keypair>("k").await.unwrap().head.id.to_string();
    assert_eq!(member.get::<Keypair>(&foreign).await.unwrap_err().code(), Code::NotFound);
    let gone = member.delete::<Keypair>(&foreign, &wait).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn wrong_ended_and_deleted_tokens_are_refused() {
    let house = House::open().await;
    let request = CreateToken { name: "short".into(), role: Role::Member, lifetime_s: Some(3_600) };
    let made = house.client.create_token(&request).await.unwrap();
    assert!(made.secret.starts_with(&format!("holm_{}_", made.token.id)));
    let client = |token: &str| Client::unix(&house.socket).with_token(token);
    client(&made.secret).version().await.unwrap();

    let last = made.secret.chars().last().unwrap();
    let other = if last == '0' { '1' } else { '0' };
    let wrong = format!("{}{other}", &made.secret[..made.secret.len() - 1]);
    let unknown = format!("holm_{}_{}", "0".repeat(16), "0".repeat(64));
    for bad in [wrong.as_str(), unknown.as_str(), "holm_", "x", ""] {
        let error = client(bad).version().await.unwrap_err();
        assert_eq!(error.code(), Code::Unauthenticated, "{bad}: {error:?}");
    }

    // Only a hash is kept.
    let kept = house.control.token(&made.token.id).unwrap();
    let secret = made.secret.rsplit('_').next().unwrap();
    assert!(!serde_json::to_string(&kept.record).unwrap().contains(secret));

    let mut ended = kept.record.clone();
    ended.expires_at = Some(jiff::Timestamp::UNIX_EPOCH);
    let mut tx = Tx::new();
    tx.put(&ended);
    house.control.store().commit(tx).await.unwrap();
    assert_eq!(client(&made.secret).version().await.unwrap_err().code(), Code::Unauthenticated);

    let second = house.client.create_token(&request).await.unwrap();
    let both = house.client.delete::<Token>("short", &WaitQuery::default()).await.unwrap_err();
    assert_eq!(both.code(), Code::Conflict);
    house.client.delete::<Token>(&second.token.id, &WaitQuery::default()).await.unwrap();
    assert_eq!(client(&second.secret).version().await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_token_ends_with_its_project() {
    let house = House::open().await;
    let wait = WaitQuery::default();
    house
        .client
        .create::<Project>(&CreateProject { name: "shop".into(), ..Default::default() }, &wait)
        .await
        .unwrap();
    let request = CreateToken { name: "ci".into(), role: Role::Member, lifetime_s: None };
    let made = house.client.clone().with_project("shop").create_token(&request).await.unwrap();
    let holder = Client::unix(&house.socket).with_token(&made.secret);
    let enable = async |enabled: bool| {
        let body = serde_json::json!({ "enabled": enabled });
        let method = hyper::Method::PATCH;
        house.client.call::<serde_json::Value>(method, "/v1/projects/shop", Some(&body), None).await.unwrap();
    };
    holder.version().await.unwrap();
    enable(false).await;
    assert_eq!(holder.version().await.unwrap_err().code(), Code::Unauthenticated);
    enable(true).await;
    holder.version().await.unwrap();
    house.client.delete::<Project>("shop", &wait).await.unwrap();
    assert_eq!(holder.version().await.unwrap_err().code(), Code::Unauthenticated);
    assert!(house.control.token(&made.token.id).is_none(), "it is not kept");

    // A request that was let in before makes nothing for a project that is gone.
    let late =
        control::Caller { project: ProjectId(made.token.project.id), ..house.caller(control::Role::Member) };
    let new = NewNetwork::of_kind("late", NetworkKind::Private);
    let error = house.control.create_network(&late, new).await.unwrap_err();
    assert!(error.code == Code::NotFound && error.message.contains("is no more"), "{error}");
}

#[tokio::test]
async fn others_on_the_socket_have_the_groups_role_and_not_the_clouds_own_project() {
    use api::auth::{LocalAccess, PROJECT_HEADER, Peer, identify};
    let house = House::open().await;
    let local = LocalAccess { own_uid: 77, group_role: control::Role::Member };
    let who = |uid: u32, project: Option<&str>| {
        let mut headers = hyper::HeaderMap::new();
        if let Some(project) = project {
            headers.insert(PROJECT_HEADER, project.parse().unwrap());
        }
        identify(&house.control, local, &Peer::Unix { uid, pid: 1 }, &headers, "r")
    };
    for (uid, role, actor) in [
        (0, control::Role::Admin, "root (uid 0)"),
        (77, control::Role::Admin, "holm (uid 77)"),
        (1000, control::Role::Member, "uid 1000"),
    ] {
        let caller = who(uid, None).unwrap();
        assert_eq!((caller.role, caller.actor.as_str()), (role, actor));
    }
    assert_eq!(who(1000, Some("admin")).unwrap_err().error.code, Code::Forbidden);
    assert!(who(0, Some("admin")).is_ok() && who(1000, Some("default")).is_ok());
    assert_eq!(who(1000, Some("nowhere")).unwrap_err().error.code, Code::NotFound);
}

/// Every route against a reader and against nobody, and those that reach into guests or need an admin.
#[tokio::test]
async fn every_route_is_closed_to_those_below_its_role() {
    let house = House::open().await;
    let reader = house.as_role(Role::Reader).await;
    let member = house.as_role(Role::Member).await;
    let nobody = Client::unix(&house.socket).with_token("holm_x");
    let call = async |client: &Client, method: &hyper::Method, path: &str| {
        let path = path.replace("{ref}", "x").replace("{project}", "x");
        let path = path
            .replace("{subnet}", "x")
            .replace("{rule}", "x")
            .replace("{port}", "x")
            .replace("{volume}", "x");
        client.call::<serde_json::Value>(method.clone(), &path, None::<&()>, None).await
    };
    let code = |outcome: Result<serde_json::Value, api::client::Error>| outcome.err().map(|e| e.code());
    let into_guests = ["/console", "/vnc", "/attach"];
    for (method, path) in api::v1::all_routes().table() {
        let shown = format!("{method} {path}");
        assert_eq!(code(call(&nobody, method, path).await), Some(Code::Unauthenticated), "{shown}");
        let outcome = code(call(&reader, method, path).await);
        let is_closed = method != hyper::Method::GET || into_guests.iter().any(|end| path.ends_with(end));
        assert_eq!(outcome == Some(Code::Forbidden), is_closed, "{shown}: {outcome:?}");
    }
    let body = |json: serde_json::Value| json;
    for (method, path, body) in [
        (hyper::Method::POST, "/v1/projects", body(serde_json::json!({"name": "x"}))),
        (hyper::Method::PATCH, "/v1/projects/default", body(serde_json::json!({"enabled": false}))),
        (hyper::Method::DELETE, "/v1/projects/default", serde_json::Value::Null),
        (hyper::Method::PUT, "/v1/quotas/default", body(serde_json::json!({"limits": {"vcpus": null}}))),
        (hyper::Method::POST, "/v1/flavors", body(serde_json::json!({"name": "x.c1m64"}))),
        (hyper::Method::PATCH, "/v1/flavors/g1.c1m512", body(serde_json::json!({"public": false}))),
        (hyper::Method::DELETE, "/v1/flavors/g1.c1m512", serde_json::Value::Null),
        (hyper::Method::POST, "/v1/tokens", body(serde_json::json!({"name": "x", "role": "admin"}))),
        (hyper::Method::PATCH, "/v1/nodes/here", body(serde_json::json!({"schedulable": false}))),
        (hyper::Method::POST, "/v1/networks", body(serde_json::json!({"name": "x", "kind": "external"}))),
        (hyper::Method::POST, "/v1/networks", body(serde_json::json!({"name": "x", "shared": true}))),
        (hyper::Method::PATCH, "/v1/networks/default", body(serde_json::json!({"shared": true}))),
        (hyper::Method::POST, "/v1/images", body(serde_json::json!({"name": "x", "visibility": "public"}))),
        (hyper::Method::DELETE, "/v1/tokens/for-reader", serde_json::Value::Null),
    ] {
        let shown = format!("{method} {path} {body}");
        let outcome = member.call::<serde_json::Value>(method, path, Some(&body), None).await;
        let error = outcome.expect_err(&shown);
        assert_eq!(error.code(), Code::Forbidden, "{shown}: {error:?}");
        assert!(error.to_string().contains("needs the role admin"), "{shown}: {error}");
    }
}
