//! Servers that are put away and taken out again, or sleep and go on.

use super::Lab;
use axum::http::Method;
use jiff::Timestamp;
use model::{
    id::InstanceId,
    instance::{InstanceStatus, State},
};
use serde_json::{Value, json};
use store::Tx;

#[tokio::test]
async fn a_server_is_put_away_and_taken_out_again() {
    let lab = Lab::open().await;
    let id = lab.running("one").await;
    for action in [json!({ "unshelve": null }), json!({ "resume": null })] {
        assert_eq!(lab.act(&id, action.clone()).await.status, 409, "{action}");
    }
    lab.act(&id, json!({ "shelve": null })).await.expect(202);
    let path = format!("/servers/{id}");
    let shown = lab.get("2.1", &path).await["server"].clone();
    assert_eq!(shown["OS-EXT-STS:task_state"], "shelving");
    let ended = State::Stopped { code: None, cause: "asked".into(), failed: false, at: Timestamp::now() };
    lab.cloud.house.seen(id.parse().unwrap(), ended).await;
    let shown = lab.get("2.1", &path).await["server"].clone();
    assert_eq!(
        (&shown["status"], &shown["OS-EXT-STS:vm_state"]),
        (&json!("SHELVED_OFFLOADED"), &json!("shelved_offloaded"))
    );
    assert_eq!(lab.listed("?status=SHELVED_OFFLOADED").await, ["one"]);
    let native: api::v1::types::instance::Instance = lab.cloud.house.client.get(&id).await.unwrap();
    assert!(native.shelved && native.phase == model::instance::phase::Phase::Stopped);
    for (version, action, status) in [
        ("2.1", json!({ "os-start": null }), 409),
        ("2.1", json!({ "shelve": null }), 409),
        ("2.1", json!({ "shelveOffload": null }), 403),
        ("2.77", json!({ "unshelve": { "availability_zone": "moon" } }), 400),
        ("2.77", json!({ "unshelve": { "host": "here" } }), 400),
        ("2.91", json!({ "unshelve": { "host": "here" } }), 403),
        ("2.77", json!({ "unshelve": { "availability_zone": "nova" } }), 202),
    ] {
        let reply = lab.post(version, &format!("{path}/action"), action.clone()).await;
        assert_eq!(reply.status.as_u16(), status, "{version} {action}: {}", reply.text());
    }
    lab.run(&id).await;
    assert_eq!(lab.status(&id).await, "ACTIVE");
    let offload = json!({ "shelveOffload": null });
    let admin = &lab.cloud.admin;
    let refused = lab.at(Method::POST, admin, "2.1", &format!("{path}/action"), &offload).await;
    assert_eq!(refused.status, 409, "it is not put away");
    let words = lab.get("2.1", &format!("{path}/os-instance-actions")).await;
    let words: Vec<&Value> =
        words["instanceActions"].as_array().unwrap().iter().map(|a| &a["action"]).collect();
    assert!(words.contains(&&json!("shelve")) && words.contains(&&json!("unshelve")), "{words:?}");
}

#[tokio::test]
async fn a_server_is_suspended_and_resumed() {
    let lab = Lab::open().await;
    let id = lab.running("one").await;
    lab.act(&id, json!({ "suspend": null })).await.expect(202);
    let path = format!("/servers/{id}");
    let shown = lab.get("2.1", &path).await["server"].clone();
    assert_eq!((&shown["status"], &shown["OS-EXT-STS:task_state"]), (&json!("ACTIVE"), &json!("suspending")));
    let ended = State::Stopped { code: None, cause: "asked".into(), failed: false, at: Timestamp::now() };
    let control = &lab.cloud.house.control;
    lab.cloud.house.seen(id.parse().unwrap(), ended).await;
    let instance = InstanceId(id.parse().unwrap());
    let mut tx = Tx::new();
    tx.put(&InstanceStatus { asleep: true, ..control.instance_status(instance).unwrap().record.clone() });
    control.store().commit(tx).await.unwrap();
    let shown = lab.get("2.1", &path).await["server"].clone();
    for (key, value) in [
        ("status", json!("SUSPENDED")),
        ("OS-EXT-STS:vm_state", json!("suspended")),
        ("OS-EXT-STS:task_state", Value::Null),
        ("OS-EXT-STS:power_state", json!(4)),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }
    for action in [json!({ "suspend": null }), json!({ "os-start": null }), json!({ "unpause": null })] {
        assert_eq!(lab.act(&id, action.clone()).await.status, 409, "{action}");
    }
    lab.act(&id, json!({ "resume": null })).await.expect(202);
    let shown = lab.get("2.1", &path).await["server"].clone();
    assert_eq!(
        (&shown["status"], &shown["OS-EXT-STS:task_state"]),
        (&json!("SUSPENDED"), &json!("resuming"))
    );
    lab.run(&id).await;
    assert_eq!(lab.status(&id).await, "ACTIVE");
    let words = lab.get("2.1", &format!("{path}/os-instance-actions")).await;
    let words: Vec<&Value> =
        words["instanceActions"].as_array().unwrap().iter().map(|a| &a["action"]).collect();
    assert!(words.contains(&&json!("suspend")) && words.contains(&&json!("resume")), "{words:?}");
}
