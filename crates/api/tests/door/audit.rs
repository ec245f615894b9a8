//! Every call that changes something leaves one row behind: who asked for what, and what came of it.

use crate::house::{House, KEY};
use axum::http::Method;
use model::operation::Operation;
use serde_json::{Value, json};

fn rows(house: &House) -> Vec<Operation> {
    house.control.store().list::<Operation>().iter().map(|stored| stored.record.clone()).collect()
}

/// A call by root, and the rows that it left.
async fn call(house: &House, method: &str, path: &str, body: Value) -> (bool, Vec<Operation>) {
    let before = rows(house);
    let body = (!body.is_null()).then_some(body);
    let method: Method = method.parse().unwrap();
    let outcome = house.client.call::<Value>(method, path, body.as_ref(), None).await;
    let fresh = rows(house).into_iter().filter(|row| before.iter().all(|old| old.id != row.id)).collect();
    // A success may have nothing to say.
    let is_fine = outcome.as_ref().map_or_else(|e| matches!(e, api::client::Error::Protocol(_)), |_| true);
    assert!(
        is_fine || outcome.as_ref().err().is_some_and(|e| e.code() != model::error::Code::Internal),
        "{outcome:?}"
    );
    (is_fine, fresh)
}

#[tokio::test]
async fn every_change_leaves_one_row() {
    let key = model::seal::SealKey::new([7; model::seal::KEY_BYTES]);
    let house = House::open_with(|store| control::Control::new(store).with_seal_key(key)).await;
    let deployment = json!({
        "name": "copies", "kind": "deployment", "replicas": 2,
        "template": { "instance": { "kind": "container", "image": "busybox" }, "revision": "abc12" },
    });
    let rule = json!({ "direction": "ingress", "protocol": "tcp", "ports": "22" });
    for (method, path, body, noun, action) in [
        ("POST", "/v1/projects", json!({ "name": "shop" }), "project", "create"),
        ("PATCH", "/v1/projects/shop", json!({ "description": "sells" }), "project", "update"),
        ("PUT", "/v1/quotas/shop", json!({ "limits": { "vcpus": 9 } }), "project", "set_quota"),
        ("DELETE", "/v1/projects/shop", Value::Null, "project", "delete"),
        ("POST", "/v1/flavors", json!({ "name": "x1.c1m64" }), "flavor", "create"),
        ("DELETE", "/v1/flavors/x1.c1m64", Value::Null, "flavor", "delete"),
        ("POST", "/v1/keypairs", json!({ "name": "k", "public_key": KEY }), "keypair", "create"),
        ("DELETE", "/v1/keypairs/k", Value::Null, "keypair", "delete"),
        ("POST", "/v1/networks", json!({ "name": "lan" }), "network", "create"),
        (
            "POST",
            "/v1/subnets",
            json!({ "name": "s", "network": "lan", "cidr": "10.9.0.0/24" }),
            "subnet",
            "create",
        ),
        ("POST", "/v1/routers", json!({ "name": "r" }), "router", "create"),
        ("DELETE", "/v1/routers/r", Value::Null, "router", "delete"),
        ("DELETE", "/v1/subnets/s", Value::Null, "subnet", "delete"),
        ("DELETE", "/v1/networks/lan", Value::Null, "network", "delete"),
        ("POST", "/v1/security_groups", json!({ "name": "g" }), "security_group", "create"),
        ("POST", "/v1/security_groups/g/rules", rule, "security_group", "add_rule"),
        ("DELETE", "/v1/security_groups/g", Value::Null, "security_group", "delete"),
        ("POST", "/v1/floating_ips", json!({}), "floating_ip", "create"),
        ("POST", "/v1/volumes", json!({ "name": "v", "size_gib": 1 }), "volume", "create"),
        ("POST", "/v1/snapshots", json!({ "name": "s", "volume": "v" }), "snapshot", "create"),
        ("DELETE", "/v1/snapshots/s", Value::Null, "snapshot", "delete"),
        ("DELETE", "/v1/volumes/v", Value::Null, "volume", "delete"),
        (
            "POST",
            "/v1/server_groups",
            json!({ "name": "sg", "policy": "affinity" }),
            "server_group",
            "create",
        ),
        ("DELETE", "/v1/server_groups/sg", Value::Null, "server_group", "delete"),
        ("POST", "/v1/deployments", deployment, "deployment", "create"),
        ("PATCH", "/v1/deployments/copies", json!({ "replicas": 3 }), "deployment", "update"),
        ("DELETE", "/v1/deployments/copies", Value::Null, "deployment", "delete"),
        (
            "POST",
            "/v1/instances",
            json!({ "name": "web", "kind": "container", "image": "busybox" }),
            "instance",
            "create",
        ),
        ("POST", "/v1/instances/web/lock", json!({ "reason": "mine" }), "instance", "lock"),
        ("POST", "/v1/instances/web/unlock", Value::Null, "instance", "unlock"),
        ("PATCH", "/v1/instances/web", json!({ "description": "d" }), "instance", "update"),
        ("POST", "/v1/instances/web/stop", Value::Null, "instance", "stop"),
        ("DELETE", "/v1/instances/web", Value::Null, "instance", "delete"),
    ] {
        let (is_fine, fresh) = call(&house, method, path, body).await;
        let shown = format!("{method} {path}: {fresh:?}");
        assert!(is_fine && fresh.len() == 1, "{shown}");
        assert_eq!((fresh[0].subject.noun.as_str(), fresh[0].fault.is_none()), (noun, true), "{shown}");
        assert_eq!(fresh[0].action, action, "{shown}");
        assert_eq!(fresh[0].actor, "root (uid 0)", "{shown}");
    }
}

#[tokio::test]
async fn a_refused_change_leaves_one_row_and_a_look_none() {
    let house = House::open().await;
    for (method, path, body) in [
        ("POST", "/v1/instances/none/start", Value::Null),
        ("POST", "/v1/instances/none/rescue", Value::Null),
        ("POST", "/v1/snapshots", json!({ "name": "s", "volume": "none" })),
        ("PATCH", "/v1/networks/none", json!({ "description": "d" })),
    ] {
        let (is_fine, fresh) = call(&house, method, path, body).await;
        assert!(!is_fine && fresh.len() == 1 && fresh[0].fault.is_some(), "{method} {path}: {fresh:?}");
    }
    // Of what is not there, whatever is to be done to it.
    for (method, path) in api::v1::all_routes().table().iter().filter(|(method, _)| *method != Method::GET) {
        if path.contains('{') {
            let path = path.split('/').map(|part| if part.starts_with('{') { "none" } else { part });
            let path = path.collect::<Vec<_>>().join("/");
            let (is_fine, fresh) = call(&house, method.as_str(), &path, json!({})).await;
            assert!(!is_fine && fresh.len() == 1 && fresh[0].fault.is_some(), "{method} {path}: {fresh:?}");
        }
    }
    let (_, fresh) = call(&house, "DELETE", "/v1/networks/none", Value::Null).await;
    let row = &fresh[0];
    assert_eq!(
        (row.action.as_str(), row.subject.noun.as_str(), row.name.as_str()),
        ("delete", "network", "none")
    );
    assert_eq!(row.fault.as_ref().unwrap().code, model::error::Code::NotFound);
    for (method, path) in api::v1::all_routes().table().iter().filter(|(method, _)| *method == Method::GET) {
        let is_plain = !path.contains('{') && !path.contains("follow") && !path.ends_with("events");
        if is_plain {
            let (_, fresh) = call(&house, method.as_str(), path, Value::Null).await;
            assert!(fresh.is_empty(), "{method} {path}: {fresh:?}");
        }
    }
}
