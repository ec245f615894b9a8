//! Volume types that admins make, and volumes that get another one.

use super::{act, make, show, supply};
use crate::cloud::Cloud;
use axum::http::Method;
use model::volume::{Provisioning, Volume};
use serde_json::{Value, json};

const TYPES: &str = "/volume/v3/types";

async fn made(cloud: &Cloud, kind: Value) -> String {
    let made = cloud.post(&cloud.admin, TYPES, &json!({ "volume_type": kind })).await.expect(200);
    made["volume_type"]["id"].as_str().unwrap().to_string()
}

async fn names(cloud: &Cloud, token: &str) -> Vec<String> {
    let all = cloud.get(token, TYPES).await.expect(200);
    all["volume_types"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap().to_string()).collect()
}

#[tokio::test]
async fn admins_make_change_and_remove_types() {
    let cloud = Cloud::open().await;
    let member = cloud.as_role("member").await;
    let id = made(&cloud, json!({ "name": "gold", "extra_specs": { "provisioning:type": "thick" } })).await;
    let path = format!("{TYPES}/{id}");
    assert_eq!(names(&cloud, &member).await, ["thin", "thick", "gold"]);
    let shown = cloud.get(&member, &path).await.expect(200)["volume_type"].clone();
    assert_eq!((&shown["extra_specs"], &shown["is_public"]), (&json!({}), &json!(true)));
    for (method, path, body, status) in [
        (Method::POST, TYPES.to_string(), json!({ "volume_type": { "name": "gold" } }), 409),
        (Method::POST, TYPES.to_string(), json!({ "volume_type": { "name": "thin" } }), 409),
        (Method::POST, TYPES.to_string(), json!({ "volume_type": { "name": "" } }), 400),
        (
            Method::POST,
            TYPES.to_string(),
            json!({ "volume_type": { "name": "x", "extra_specs": { "multiattach": "<is> True" } } }),
            400,
        ),
        (
            Method::POST,
            format!("{path}/extra_specs"),
            json!({ "extra_specs": { "provisioning:type": "fat" } }),
            400,
        ),
        (Method::PUT, format!("{path}/extra_specs/a"), json!({ "b": "c" }), 400),
        (Method::PUT, path.clone(), json!({ "volume_type": {} }), 400),
        (Method::DELETE, format!("{path}/extra_specs/none"), Value::Null, 404),
        (Method::DELETE, format!("{TYPES}/{}", uuid::Uuid::new_v4()), Value::Null, 404),
    ] {
        let reply = cloud.send(method, &cloud.admin, &path, &body).await;
        assert_eq!(reply.status.as_u16(), status, "{path} {body}: {}", reply.text());
    }
    let refused = cloud.post(&member, TYPES, &json!({ "volume_type": { "name": "mine" } })).await;
    assert_eq!(refused.status, 403);
    let specs = format!("{path}/extra_specs");
    cloud.post(&cloud.admin, &specs, &json!({ "extra_specs": { "shelf": "top" } })).await.expect(200);
    cloud
        .send(Method::PUT, &cloud.admin, &format!("{specs}/shelf"), &json!({ "shelf": "low" }))
        .await
        .expect(200);
    let all = cloud.get(&cloud.admin, &specs).await.expect(200);
    assert_eq!(all["extra_specs"], json!({ "provisioning:type": "thick", "shelf": "low" }));
    cloud.delete(&cloud.admin, &format!("{specs}/shelf")).await.expect(202);
    let words = json!({ "volume_type": { "name": "silver", "description": "d", "is_public": true } });
    let changed = cloud.send(Method::PUT, &cloud.admin, &path, &words).await.expect(200);
    assert_eq!(changed["volume_type"]["name"], "silver");

    // One that a volume has stays, and goes on taking space as it does.
    let volume = make(&cloud, &member, json!({ "size": 1, "volume_type": "silver" })).await;
    assert_eq!(show(&cloud, &member, &volume).await["volume_type"], "silver");
    let kept = cloud.house.control.get::<Volume>(volume.parse().unwrap()).unwrap();
    assert_eq!(kept.record.provisioning, Provisioning::Thick);
    assert_eq!(cloud.delete(&cloud.admin, &path).await.status, 400);
    let thin = json!({ "provisioning:type": "thin" });
    let turned = cloud.send(Method::PUT, &cloud.admin, &format!("{specs}/provisioning:type"), &thin).await;
    assert_eq!(turned.status, 400, "{}", turned.text());
    assert_eq!(cloud.delete(&member, &format!("/volume/v3/volumes/{volume}")).await.status, 202);
    cloud.delete(&cloud.admin, &path).await.expect(202);
    assert_eq!(names(&cloud, &member).await, ["thin", "thick"]);
}

#[tokio::test]
async fn a_private_type_is_for_projects_that_it_is_opened_to() {
    let cloud = Cloud::open().await;
    let member = cloud.as_role("member").await;
    let id = made(&cloud, json!({ "name": "secret", "os-volume-type-access:is_public": false })).await;
    let order = json!({ "volume": { "size": 1, "volume_type": "secret" } });
    assert_eq!(cloud.post(&member, "/volume/v3/volumes", &order).await.status, 404);
    assert_eq!(cloud.get(&member, &format!("{TYPES}/{id}")).await.status, 404);
    let project = cloud.house.caller(control::Role::Member).project.hex();
    let path = format!("{TYPES}/{id}");
    let open = json!({ "addProjectAccess": { "project": project } });
    assert_eq!(cloud.post(&member, &format!("{path}/action"), &open).await.status, 403);
    cloud.post(&cloud.admin, &format!("{path}/action"), &open).await.expect(202);
    assert_eq!(cloud.post(&cloud.admin, &format!("{path}/action"), &open).await.status, 409);
    let access = cloud.get(&cloud.admin, &format!("{path}/os-volume-type-access")).await.expect(200);
    assert_eq!(access["volume_type_access"], json!([{ "volume_type_id": id, "project_id": project }]));
    cloud.post(&member, "/volume/v3/volumes", &order).await.expect(202);
    let close = json!({ "removeProjectAccess": { "project": project } });
    cloud.post(&cloud.admin, &format!("{path}/action"), &close).await.expect(202);
    assert_eq!(cloud.post(&cloud.admin, &format!("{path}/action"), &close).await.status, 404);
    let thin = format!("{TYPES}/6f5c1f1c-6e6a-4f0f-8d6f-7468696e0000");
    assert_eq!(cloud.get(&cloud.admin, &format!("{thin}/os-volume-type-access")).await.status, 404);
    assert_eq!(cloud.delete(&cloud.admin, &thin).await.status, 403, "every cloud has it");
}

#[tokio::test]
async fn a_volume_gets_another_type() {
    let cloud = Cloud::open().await;
    let member = cloud.as_role("member").await;
    made(&cloud, json!({ "name": "gold", "extra_specs": { "provisioning:type": "thick" } })).await;
    let volume = make(&cloud, &member, json!({ "size": 1 })).await;
    let retype = |kind: &str| json!({ "os-retype": { "new_type": kind, "migration_policy": "on-demand" } });
    let kept = || cloud.house.control.get::<Volume>(volume.parse().unwrap()).unwrap().record.clone();
    act(&cloud, &member, &volume, retype("gold")).await.expect(202);
    supply(&cloud).await;
    assert_eq!(show(&cloud, &member, &volume).await["volume_type"], "gold");
    // What was thin has a layer on top that takes all its space; going on from there needs no other.
    assert_eq!((kept().provisioning, kept().layer), (Provisioning::Thick, 1));
    act(&cloud, &member, &volume, retype("thick")).await.expect(202);
    assert_eq!((kept().kind, kept().layer), (None, 1));
    act(&cloud, &member, &volume, retype("thin")).await.expect(202);
    assert_eq!((kept().provisioning, kept().layer), (Provisioning::Thin, 1));
    for (body, status) in [
        (retype("thin"), 400),
        (retype("nothing"), 400),
        (json!({ "os-retype": {} }), 400),
        (json!({ "os-retype": { "new_type": "gold", "migration_policy": "often" } }), 400),
    ] {
        assert_eq!(act(&cloud, &member, &volume, body.clone()).await.status.as_u16(), status, "{body}");
    }
}
