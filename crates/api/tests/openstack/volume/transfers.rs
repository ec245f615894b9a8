//! Volumes that one project offers and another one takes.

use super::{make, show};
use crate::cloud::Cloud;
use axum::{body::Body, http::Method};
use model::{quota::Resource, volume::transfer::Transfer};
use serde_json::{Value, json};

const PATH: &str = "/volume/v3/os-volume-transfer";

/// A member of the project `admin`, who is another one's than the members of `default`.
async fn other(cloud: &Cloud) -> (String, model::id::ProjectId) {
    let root = control::finalize::system_caller(model::id::ProjectId(uuid::Uuid::nil()));
    let project = cloud.house.control.find_project(&root, "admin").unwrap().record.meta.id;
    (cloud.as_role_in("member", project).await, project)
}

async fn offer(cloud: &Cloud, token: &str, volume: &str) -> Value {
    let order = json!({ "transfer": { "volume_id": volume, "name": "gift" } });
    cloud.post(token, PATH, &order).await.expect(202)["transfer"].clone()
}

fn used(cloud: &Cloud, project: model::id::ProjectId) -> [u64; 3] {
    let used = cloud.house.control.quota(project).1.used;
    [Resource::Volumes, Resource::VolumeGib, Resource::Snapshots].map(|r| used.get(&r).copied().unwrap_or(0))
}

#[tokio::test]
async fn a_volume_goes_to_who_has_the_key() {
    let cloud = Cloud::open().await;
    let (giver, (taker, target)) = (cloud.as_role("member").await, other(&cloud).await);
    let own = cloud.house.caller(control::Role::Member).project;
    let volume = make(&cloud, &giver, json!({ "size": 2, "name": "data" })).await;
    let snapshot = json!({ "snapshot": { "volume_id": volume } });
    cloud.post(&giver, "/volume/v3/snapshots", &snapshot).await.expect(202);
    super::supply(&cloud).await;
    let offered = offer(&cloud, &giver, &volume).await;
    let (id, key) = (offered["id"].as_str().unwrap(), offered["auth_key"].as_str().unwrap());
    assert_eq!(show(&cloud, &giver, &volume).await["status"], "awaiting-transfer");
    let kept = cloud.house.control.store().list::<Transfer>();
    assert!(!serde_json::to_string(&kept[0].record).unwrap().contains(key), "only a hash is kept");
    let shown = cloud.get(&giver, &format!("{PATH}/{id}")).await.expect(200)["transfer"].clone();
    assert_eq!((&shown["name"], &shown["auth_key"]), (&json!("gift"), &Value::Null));
    assert_eq!(cloud.get(&giver, &format!("{PATH}/detail")).await.expect(200)["transfers"][0], shown);
    assert_eq!(cloud.get(&taker, PATH).await.expect(200), json!({ "transfers": [] }));
    // It waits where it is: nobody offers it twice, takes it away or gives it to a server.
    let again = cloud.post(&giver, PATH, &json!({ "transfer": { "volume_id": volume } })).await;
    assert_eq!(again.status, 400, "{}", again.text());

    let accept = |key: &str| json!({ "accept": { "auth_key": key } });
    let path = format!("{PATH}/{id}/accept");
    assert_eq!(cloud.post(&taker, &path, &accept("wrong")).await.status, 400);
    assert_eq!(cloud.post(&taker, &path, &json!({ "accept": {} })).await.status, 400);
    let taken = cloud.post(&taker, &path, &accept(key)).await.expect(202)["transfer"].clone();
    assert_eq!(taken["volume_id"], volume.as_str());
    assert_eq!(show(&cloud, &taker, &volume).await["status"], "available");
    assert_eq!(cloud.get(&giver, &format!("/volume/v3/volumes/{volume}")).await.status, 404);
    assert_eq!((used(&cloud, own), used(&cloud, target)), ([0, 0, 0], [1, 2, 1]), "its snapshot went along");
    let snapshots = cloud.get(&taker, "/volume/v3/snapshots").await.expect(200);
    assert_eq!(snapshots["snapshots"].as_array().unwrap().len(), 1);
    assert_eq!(cloud.post(&taker, &path, &accept(key)).await.status, 404, "it is taken once");
    // Its name is free in the one project and taken in the other.
    make(&cloud, &giver, json!({ "size": 1, "name": "data" })).await;
}

#[tokio::test]
async fn an_offer_is_taken_back_and_ends_with_its_volume() {
    let cloud = Cloud::open().await;
    let (giver, (taker, target)) = (cloud.as_role("member").await, other(&cloud).await);
    let volume = make(&cloud, &giver, json!({ "size": 1 })).await;
    let offered = offer(&cloud, &giver, &volume).await;
    let id = offered["id"].as_str().unwrap();
    assert_eq!(cloud.delete(&taker, &format!("{PATH}/{id}")).await.status, 404);
    cloud.delete(&giver, &format!("{PATH}/{id}")).await.expect(202);
    assert_eq!(show(&cloud, &giver, &volume).await["status"], "available");
    let accept = json!({ "accept": { "auth_key": offered["auth_key"] } });
    assert_eq!(cloud.post(&taker, &format!("{PATH}/{id}/accept"), &accept).await.status, 404);

    // Who takes needs room for it, and a refusal leaves all as it was.
    let again = offer(&cloud, &giver, &volume).await;
    let root = control::finalize::system_caller(target);
    let none = [(Resource::Volumes, Some(0))];
    cloud.house.control.set_quota(&root, "admin", &none).await.unwrap();
    let path = format!("{PATH}/{}/accept", again["id"].as_str().unwrap());
    let accept = json!({ "accept": { "auth_key": again["auth_key"] } });
    assert_eq!(cloud.post(&taker, &path, &accept).await.status, 413);
    assert_eq!(show(&cloud, &giver, &volume).await["status"], "awaiting-transfer");
    let newer = [("openstack-api-version", "volume 3.57")];
    let path = format!("/volume/v3/volume-transfers/{}", again["id"].as_str().unwrap());
    let shown = cloud.call(Method::GET, &path, &giver, &newer, Body::empty()).await.expect(200);
    assert_eq!(shown["transfer"]["accepted"], false);
    // By another door a volume may go at any time, and its offer goes with it.
    let wait = api::v1::types::list::WaitQuery::default();
    cloud.house.client.delete::<api::v1::types::volume::Volume>(&volume, &wait).await.unwrap();
    assert_eq!(cloud.get(&giver, PATH).await.expect(200), json!({ "transfers": [] }));
    assert!(cloud.house.control.store().list::<Transfer>().is_empty());
}
