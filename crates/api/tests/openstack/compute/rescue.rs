//! Servers that boot from another disk for a while, and servers on volumes that begin anew.

use super::Lab;
use axum::http::Method;
use jiff::Timestamp;
use model::{
    id::{InstanceId, VolumeId},
    instance::{InstanceStatus, State},
    plan::DiskFormat,
    volume::VolumeStatus,
};
use serde_json::{Value, json};
use store::Tx;

/// The host says that the boot that was asked for runs.
async fn boots(lab: &Lab, id: &str) {
    let control = &lab.cloud.house.control;
    let instance = control.get::<model::instance::Instance>(InstanceId(id.parse().unwrap())).unwrap();
    let status = control.instance_status(instance.record.meta.id).unwrap();
    let mut tx = Tx::new();
    tx.put(&InstanceStatus {
        boot: instance.record.boots,
        volumes: instance.record.volumes.clone(),
        state: State::Running { since: Timestamp::now() },
        ..status.record.clone()
    });
    control.store().commit(tx).await.unwrap();
}

async fn told(lab: &Lab, id: &str) -> (String, String, Value) {
    let shown = lab.get("2.1", &format!("/servers/{id}")).await["server"].clone();
    let word = |key: &str| shown[key].as_str().unwrap().to_string();
    (word("status"), word("OS-EXT-STS:vm_state"), shown["OS-EXT-STS:task_state"].clone())
}

#[tokio::test]
async fn a_server_is_rescued_and_goes_back() {
    let lab = Lab::open().await;
    let id = lab.running("one").await;
    boots(&lab, &id).await;
    for (body, status) in [
        (json!({ "unrescue": null }), 409),
        (json!({ "rescue": { "rescue_image_ref": "x" } }), 400),
        (json!({ "rescue": { "rescue_image_ref": uuid::Uuid::new_v4() } }), 400),
        (json!({ "rescue": { "image": "x" } }), 400),
    ] {
        assert_eq!(lab.act(&id, body.clone()).await.status.as_u16(), status, "{body}");
    }
    let body = json!({ "rescue": { "adminPass": "secret", "rescue_image_ref": lab.image } });
    assert_eq!(lab.act(&id, body).await.expect(200), json!({ "adminPass": "secret" }));
    assert_eq!(told(&lab, &id).await, ("ACTIVE".into(), "active".into(), json!("rescuing")));
    boots(&lab, &id).await;
    assert_eq!(told(&lab, &id).await, ("RESCUE".into(), "rescued".into(), Value::Null));
    assert_eq!(lab.listed("?status=RESCUE").await, ["one"]);
    let shown = lab.get("2.1", &format!("/servers/{id}")).await["server"].clone();
    assert_eq!(shown["os-extended-volumes:volumes_attached"], json!([]), "its disks are its own affair");
    let native: api::v1::types::instance::Instance = lab.cloud.house.client.get(&id).await.unwrap();
    assert_eq!((native.rescue.unwrap().name.as_str(), native.volumes.len()), ("debian", 2));
    for action in [
        json!({ "rescue": null }),
        json!({ "reboot": { "type": "SOFT" } }),
        json!({ "reboot": { "type": "HARD" } }),
        json!({ "rebuild": { "imageRef": lab.image } }),
        json!({ "resize": { "flavorRef": lab.flavor } }),
        json!({ "suspend": null }),
        json!({ "os-start": null }),
    ] {
        let reply = lab.act(&id, action.clone()).await;
        assert_eq!(reply.status, 409, "{action}: {}", reply.text());
    }
    lab.act(&id, json!({ "unrescue": null })).await.expect(202);
    assert_eq!(told(&lab, &id).await, ("RESCUE".into(), "rescued".into(), json!("unrescuing")));
    let early = lab.act(&id, json!({ "os-stop": null })).await;
    assert_eq!(early.status, 409, "{}", early.text());
    boots(&lab, &id).await;
    assert_eq!(told(&lab, &id).await, ("ACTIVE".into(), "active".into(), Value::Null));
    lab.act(&id, json!({ "reboot": { "type": "HARD" } })).await.expect(202);
    assert_eq!(told(&lab, &id).await.2, json!("rebooting_hard"), "a later reboot is one");
    boots(&lab, &id).await;
    let words = lab.get("2.1", &format!("/servers/{id}/os-instance-actions")).await;
    let words: Vec<&Value> =
        words["instanceActions"].as_array().unwrap().iter().map(|a| &a["action"]).collect();
    assert!(words.contains(&&json!("rescue")) && words.contains(&&json!("unrescue")), "{words:?}");
}

/// A server that boots from a volume of its own, which its host has made.
async fn on_volume(lab: &Lab) -> (String, VolumeId) {
    let mut order = lab.order("one");
    let server = order["server"].as_object_mut().unwrap();
    server.remove("imageRef");
    server.insert(
        "block_device_mapping_v2".into(),
        json!([{ "boot_index": 0, "source_type": "image", "destination_type": "volume", "uuid": lab.image, "volume_size": 1 }]),
    );
    let made = lab.post("2.1", "/servers", order).await.expect(202);
    let id = made["server"]["id"].as_str().unwrap().to_string();
    lab.run(&id).await;
    let house = &lab.cloud.house;
    let instance = house.control.get::<model::instance::Instance>(InstanceId(id.parse().unwrap())).unwrap();
    let root = instance.record.volumes[0];
    let mut tx = Tx::new();
    tx.put(&VolumeStatus {
        id: root,
        node: house.node,
        path: Some("/nowhere".into()),
        format: DiskFormat::Qcow2,
        backing: vec![],
        layer: 0,
        layer_made: 0,
        size_gib: 1,
        used_bytes: 0,
        fault: None,
        at: Timestamp::now(),
    });
    house.control.store().commit(tx).await.unwrap();
    boots(lab, &id).await;
    (id, root)
}

#[tokio::test]
async fn a_server_on_a_volume_begins_anew_on_the_same_volume() {
    let lab = Lab::open().await;
    let (id, root) = on_volume(&lab).await;
    let path = format!("/servers/{id}/action");
    let rebuild = json!({ "rebuild": { "imageRef": lab.image } });
    let early = lab.at(Method::POST, &lab.member, "2.92", &path, &rebuild).await;
    assert_eq!(early.status, 400, "it came with 2.93: {}", early.text());
    let rebuilt = lab.post("2.93", &path, rebuild).await.expect(202);
    assert_eq!(rebuilt["server"]["id"], id.as_str());
    assert_eq!(rebuilt["server"]["image"], "");
    let volume = lab.cloud.house.control.get::<model::volume::Volume>(root).unwrap();
    assert_eq!(volume.record.ground().image.unwrap().to_string(), lab.image);
    assert_eq!((volume.record.layer, volume.record.floor), (1, 1));
    assert_eq!(told(&lab, &id).await.0, "REBUILD");
}

#[tokio::test]
async fn a_server_on_a_volume_is_rescued_from_an_image_that_is_named() {
    let lab = Lab::open().await;
    let (id, root) = on_volume(&lab).await;
    let path = format!("/servers/{id}/action");
    let rescue = json!({ "rescue": { "rescue_image_ref": lab.image } });
    assert_eq!(lab.post("2.86", &path, rescue.clone()).await.status, 400);
    assert_eq!(
        lab.post("2.87", &path, json!({ "rescue": {} })).await.status,
        400,
        "it has no image of its own"
    );
    lab.post("2.87", &path, rescue).await.expect(200);
    boots(&lab, &id).await;
    assert_eq!(told(&lab, &id).await.0, "RESCUE");
    let shown = lab.get("2.1", &format!("/servers/{id}/os-volume_attachments")).await;
    let attached = shown["volumeAttachments"].as_array().unwrap();
    assert_eq!(attached.len(), 1, "{shown}");
    assert_eq!(attached[0]["volumeId"], root.to_string());
}
