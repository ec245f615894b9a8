//! Disks of servers: images made of them, volumes put in and taken out, and booting from volumes.

use super::{Lab, keys};
use crate::cloud::Reply;
use axum::http::Method;
use control::snapshot::NewSnapshot;
use model::{id::VolumeId, instance::Instance, volume::Volume};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

fn set<const N: usize>(words: [&str; N]) -> BTreeSet<String> {
    words.map(String::from).into()
}

impl Lab {
    async fn volume(&self, name: &str) -> String {
        let request = api::v1::types::volume::CreateVolume {
            name: name.into(),
            size_gib: Some(1),
            ..Default::default()
        };
        let client = &self.cloud.house.client;
        let made: api::v1::types::volume::Volume =
            client.create(&request, &Default::default()).await.unwrap();
        made.head.id.to_string()
    }

    async fn put(&self, token: &str, version: &str, path: &str, body: Value) -> Reply {
        self.at(Method::PUT, token, version, path, &body).await
    }

    async fn delete(&self, path: &str) -> Reply {
        self.at(Method::DELETE, &self.member, "2.1", path, &Value::Null).await
    }

    fn volumes_of(&self, server: &str) -> Vec<Volume> {
        let control = &self.cloud.house.control;
        let instance = control.get::<Instance>(server.parse().unwrap()).unwrap();
        let found = |id: &VolumeId| control.get::<Volume>(*id).unwrap().record.clone();
        instance.record.volumes.iter().map(found).collect()
    }

    /// An order of a server with these disks and no image.
    fn order_of_disks(&self, name: &str, disks: Value) -> Value {
        let mut order = self.order(name);
        order["server"]["imageRef"] = json!("");
        order["server"]["block_device_mapping_v2"] = disks;
        order
    }
}

#[tokio::test]
async fn an_image_is_made_of_a_server_and_says_of_which() {
    let lab = Lab::open().await;
    let id = lab.boot("one").await;
    let order = json!({ "createImage": { "name": "saved", "metadata": { "image_type": "test", "k": "v" } } });
    assert_eq!(lab.act(&id, order.clone()).await.status, 409, "it is being built");
    lab.run(&id).await;
    let made = lab.act(&id, order).await;
    assert_eq!(made.status, 202);
    let place = made.headers["location"].to_str().unwrap();
    let (door, image) = place.rsplit_once('/').unwrap();
    assert_eq!(door, "http://cloud:5000/image/v2/images");
    let shown = lab.cloud.get(&lab.member, &format!("/image/v2/images/{image}")).await.expect(200);
    for (key, value) in [
        ("name", json!("saved")),
        // What the request says goes before what is said of every image of a server.
        ("image_type", json!("test")),
        ("k", json!("v")),
        ("instance_uuid", json!(id)),
        ("base_image_ref", json!(lab.image)),
        ("min_disk", json!(8)),
        ("visibility", json!("private")),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }
    let old = lab.get("2.1", &format!("/images/{image}")).await["image"].clone();
    assert_eq!((&old["server"]["id"], &old["metadata"]["image_type"]), (&json!(id), &json!("test")));
    for (query, count) in [
        (format!("?server={id}"), 1),
        (format!("?server={NOBODY}"), 0),
        ("?type=test".into(), 1),
        ("?type=base".into(), 1),
        ("?limit=1".into(), 1),
        ("?minDisk=9".into(), 0),
        ("?changes-since=2051-01-01T00:00:00Z".into(), 0),
    ] {
        let listed = lab.get("2.1", &format!("/images{query}")).await;
        assert_eq!(listed["images"].as_array().unwrap().len(), count, "{query}");
    }
    // From 2.45 on the id is in the body and nowhere else.
    let path = format!("/servers/{id}/action");
    let order = json!({ "createImage": { "name": "again" } });
    let made = lab.post("2.45", &path, order.clone()).await;
    assert!(made.headers.get("location").is_none());
    assert!(made.expect(202)["image_id"].as_str().unwrap().parse::<model::id::ImageId>().is_ok());
    // Names may come twice, and a server can go while its images stay.
    lab.post("2.45", &path, order).await.expect(202);
    for wrong in [json!({}), json!({ "name": "" }), json!({ "name": "x", "metadata": { "a": 1 } })] {
        assert_eq!(lab.act(&id, json!({ "createImage": wrong })).await.status, 400, "{wrong}");
    }
    assert_eq!(lab.act(NOBODY, json!({ "createImage": { "name": "x" } })).await.status, 404);
}

#[tokio::test]
async fn an_attachment_has_the_fields_of_its_microversion() {
    let lab = Lab::open().await;
    let id = lab.running("one").await;
    let volume = lab.volume("data").await;
    let path = format!("/servers/{id}/os-volume_attachments");
    let order =
        json!({ "volumeAttachment": { "volumeId": volume, "tag": "logs", "delete_on_termination": true } });
    assert_eq!(lab.post("2.1", &path, order.clone()).await.status, 400, "tags came with 2.49");
    let made = lab.post("2.79", &path, order).await.expect(200);
    lab.run(&id).await;
    let own = format!("{path}/{volume}");
    assert_eq!(lab.get("2.79", &own).await, made);
    for (version, fields) in [
        ("2.1", set(["device", "id", "serverId", "volumeId"])),
        ("2.70", set(["device", "id", "serverId", "volumeId", "tag"])),
        ("2.79", set(["device", "id", "serverId", "volumeId", "tag", "delete_on_termination"])),
        (
            "2.89",
            set([
                "attachment_id",
                "bdm_uuid",
                "device",
                "serverId",
                "volumeId",
                "tag",
                "delete_on_termination",
            ]),
        ),
    ] {
        let shown = lab.get(version, &own).await["volumeAttachment"].clone();
        assert_eq!(keys(&shown), fields, "{version}");
        let listed = lab.get(version, &path).await;
        assert_eq!(listed["volumeAttachments"], json!([shown]), "{version}");
    }
    let shown = lab.get("2.89", &own).await["volumeAttachment"].clone();
    assert_eq!((&shown["tag"], &shown["delete_on_termination"]), (&json!("logs"), &json!(true)));
    let server = lab.get("2.3", &format!("/servers/{id}")).await["server"].clone();
    let attached = &server["os-extended-volumes:volumes_attached"];
    assert_eq!(*attached, json!([{ "id": volume, "delete_on_termination": true }]));
    // The native door says the same.
    let native: api::v1::types::instance::Instance = lab.cloud.house.client.get(&id).await.unwrap();
    let native = native.volumes.last().unwrap();
    assert_eq!(native.tag.as_ref().map(|tag| tag.as_str()), Some("logs"));
    assert!(native.delete_with_instance);
}

#[tokio::test]
async fn whether_a_volume_goes_along_is_all_that_changes_of_an_attachment() {
    let lab = Lab::open().await;
    let id = lab.running("one").await;
    let volume = lab.volume("data").await;
    let path = format!("/servers/{id}/os-volume_attachments");
    let order =
        json!({ "volumeAttachment": { "volumeId": volume, "tag": "logs", "delete_on_termination": true } });
    lab.post("2.79", &path, order).await.expect(200);
    lab.run(&id).await;
    let own = format!("{path}/{volume}");
    let wish = |fields: Value| {
        let mut all = json!({ "volumeId": volume });
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({ "volumeAttachment": all })
    };
    for (version, body, status) in [
        ("2.84", wish(json!({ "delete_on_termination": false })), 400),
        ("2.84", wish(json!({})), 403),
        ("2.85", wish(json!({ "tag": "other" })), 400),
        ("2.85", wish(json!({ "serverId": NOBODY })), 400),
        ("2.85", wish(json!({ "device": "/dev/vdz" })), 400),
        ("2.85", wish(json!({ "delete_on_termination": "maybe" })), 400),
        ("2.85", wish(json!({ "volumeId": NOBODY })), 403),
        ("2.85", wish(json!({ "delete_on_termination": false, "tag": "logs", "id": volume })), 202),
    ] {
        let reply = lab.put(&lab.member, version, &own, body.clone()).await;
        assert_eq!(reply.status.as_u16(), status, "{version} {body}: {}", reply.text());
    }
    assert_eq!(lab.get("2.85", &own).await["volumeAttachment"]["delete_on_termination"], false);
    // Swapping is for admins, and refused to them in words of its own.
    let free = lab.volume("free").await;
    for (body, status) in [
        (wish(json!({ "volumeId": NOBODY })), 400),
        (wish(json!({})), 400),
        (wish(json!({ "volumeId": free })), 409),
    ] {
        let reply = lab.put(&lab.cloud.admin, "2.1", &own, body.clone()).await;
        assert_eq!(reply.status.as_u16(), status, "{body}: {}", reply.text());
    }
    let elsewhere = format!("{path}/{NOBODY}");
    assert_eq!(lab.put(&lab.cloud.admin, "2.1", &elsewhere, wish(json!({}))).await.status, 404);
}

#[tokio::test]
async fn a_volume_is_attached_where_that_can_be() {
    let lab = Lab::open().await;
    let id = lab.running("one").await;
    let volume = lab.volume("data").await;
    let path = format!("/servers/{id}/os-volume_attachments");
    for (order, status) in [
        (json!({}), 400),
        (json!({ "volumeId": "x" }), 400),
        (json!({ "volumeId": NOBODY }), 404),
        (json!({ "volumeId": volume, "device": "vdb" }), 400),
        (json!({ "volumeId": volume, "device": "/dev/" }), 400),
        (json!({ "volumeId": volume, "unheard_of": 1 }), 400),
    ] {
        let reply = lab.post("2.1", &path, json!({ "volumeAttachment": order })).await;
        assert_eq!(reply.status.as_u16(), status, "{order}: {}", reply.text());
    }
    let order = json!({ "volumeAttachment": { "volumeId": volume, "device": "/dev/vdb" } });
    lab.act(&id, json!({ "lock": null })).await.expect(202);
    assert_eq!(lab.post("2.1", &path, order.clone()).await.status, 409, "it is locked");
    lab.act(&id, json!({ "unlock": null })).await.expect(202);
    let building = lab.boot("two").await;
    let other = format!("/servers/{building}/os-volume_attachments");
    assert_eq!(lab.post("2.1", &other, order.clone()).await.status, 409, "it is being built");
    lab.post("2.1", &path, order.clone()).await.expect(200);
    lab.run(&building).await;
    assert_eq!(lab.post("2.1", &other, order).await.status, 400, "another server has it");
    lab.run(&id).await;
    assert_eq!(lab.delete(&format!("{other}/{volume}")).await.status, 404);
    assert_eq!(lab.delete(&format!("{path}/{NOBODY}")).await.status, 404);
    lab.act(&id, json!({ "lock": null })).await.expect(202);
    assert_eq!(lab.delete(&format!("{path}/{volume}")).await.status, 409, "it is locked");
    lab.act(&id, json!({ "unlock": null })).await.expect(202);
    assert_eq!(lab.delete(&format!("{path}/{volume}")).await.status, 202);
}

#[tokio::test]
async fn disks_are_also_named_in_the_first_form() {
    let lab = Lab::open().await;
    let (root, data) = (lab.volume("root").await, lab.volume("data").await);
    let order = |name: &str, image: &str, disks: Value| {
        let mut order = lab.order_of_disks(name, Value::Null);
        order["server"]["imageRef"] = json!(image);
        order["server"]["block_device_mapping"] = disks;
        order
    };
    let disk =
        |name: &str, volume: &str| json!({ "device_name": name, "volume_id": volume, "no_device": "" });
    let client = &lab.cloud.house.client;
    let bootable = json!({ "os-set_bootable": { "bootable": true } });
    let path = format!("/volume/v3/volumes/{root}/action");
    assert_eq!(lab.cloud.post(&lab.member, &path, &bootable).await.status, 200);
    let several = json!([disk("/dev/vdb", &data), disk("/dev/vda", &root)]);
    for wrong in [
        order("x", "", json!([disk("/dev/vdb", &data), disk("/dev/vdc", &root)])),
        order("x", "", json!([disk("vda", NOBODY)])),
        order("x", "", json!([{ "device_name": "vda", "virtual_name": "ephemeral0" }])),
        order("x", "", json!([{ "device_name": "vda", "volume_id": root, "colour": "red" }])),
        {
            let mut both = order("x", "", several.clone());
            both["server"]["block_device_mapping_v2"] = json!([{ "source_type": "volume", "uuid": root }]);
            both
        },
    ] {
        assert_eq!(lab.post("2.1", "/servers", wrong.clone()).await.status, 400, "{wrong}");
    }
    let made = lab.post("2.1", "/servers", order("one", "", several)).await.expect(202);
    let disks = lab.volumes_of(made["server"]["id"].as_str().unwrap());
    let ids: Vec<String> = disks.iter().map(|disk| disk.meta.id.to_string()).collect();
    assert_eq!(ids, [root.as_str(), &data], "it boots from vda");
    assert!(disks.iter().all(|disk| !disk.delete_with_instance), "as Nova has it");
    let more = lab.volume("more").await;
    let made = lab.post("2.1", "/servers", order("two", &lab.image, json!([disk("vdb", &more)]))).await;
    let id = made.expect(202)["server"]["id"].as_str().unwrap().to_string();
    let native: api::v1::types::instance::Instance = client.get(&id).await.unwrap();
    assert_eq!(native.volumes.len(), 2, "the image's disk and the one that is named");
}

#[tokio::test]
async fn a_container_sees_volumes_at_paths_and_has_no_disk() {
    let lab = Lab::open().await;
    let caller = lab.cloud.house.caller(control::Role::Member);
    let new = control::image::NewImage::from_registry("registry.example/web:1");
    let image = lab.cloud.house.control.create_image(&caller, new).await.unwrap();
    let mut order = lab.order("web");
    order["server"]["imageRef"] = json!(image.meta.id);
    let kept = lab.volume("kept").await;
    let disk = |name: Value| json!([{ "source_type": "volume", "uuid": kept, "device_name": name }]);
    order["server"]["block_device_mapping_v2"] = disk(Value::Null);
    assert_eq!(lab.post("2.1", "/servers", order.clone()).await.status, 400, "where would it see it?");
    order["server"]["block_device_mapping_v2"] = disk(json!("/srv/kept"));
    let made = lab.post("2.1", "/servers", order).await.expect(202);
    let id = made["server"]["id"].as_str().unwrap().to_string();
    lab.run(&id).await;
    let volume = lab.volume("data").await;
    let path = format!("/servers/{id}/os-volume_attachments");
    for (device, status) in [(Value::Null, 400), (json!("/dev/vdb"), 400), (json!("/data"), 200)] {
        let order = json!({ "volumeAttachment": { "volumeId": volume, "device": device } });
        let reply = lab.post("2.1", &path, order).await;
        assert_eq!(reply.status.as_u16(), status, "{device}: {}", reply.text());
    }
    let listed = lab.get("2.1", &path).await;
    let paths = listed["volumeAttachments"].as_array().unwrap().iter().map(|a| a["device"].clone());
    assert_eq!(paths.collect::<Vec<_>>(), ["/srv/kept", "/data"]);
    lab.run(&id).await;
    let refused = lab.act(&id, json!({ "createImage": { "name": "x" } })).await.expect(400);
    assert!(refused["badRequest"]["message"].as_str().unwrap().contains("container"), "{refused}");
}

#[tokio::test]
async fn a_server_boots_from_a_volume() {
    let lab = Lab::open().await;
    let disks = json!([
        {
            "source_type": "image", "destination_type": "volume", "uuid": lab.image, "boot_index": 0,
            "volume_size": 2, "delete_on_termination": true,
        },
        { "source_type": "blank", "destination_type": "volume", "boot_index": "-1", "volume_size": "3", "tag": "d" },
    ]);
    let made = lab.post("2.67", "/servers", lab.order_of_disks("one", disks)).await.expect(202);
    let id = made["server"]["id"].as_str().unwrap().to_string();
    lab.run(&id).await;
    let volumes = lab.volumes_of(&id);
    let of = |volume: &Volume| (volume.size_gib, volume.bootable, volume.delete_with_instance);
    assert_eq!(volumes.iter().map(of).collect::<Vec<_>>(), [(2, true, true), (3, false, false)]);
    assert_eq!(volumes[1].device_tag.as_ref().map(|tag| tag.as_str()), Some("d"));
    let shown = lab.get("2.3", &format!("/servers/{id}")).await["server"].clone();
    assert_eq!(shown["image"], "");
    let (root, data) = (volumes[0].meta.id.to_string(), volumes[1].meta.id.to_string());
    let attached = json!([
        { "id": root, "delete_on_termination": true }, { "id": data, "delete_on_termination": false },
    ]);
    assert_eq!(shown["os-extended-volumes:volumes_attached"], attached);
    let path = format!("/servers/{id}/os-volume_attachments");
    assert_eq!(lab.get("2.1", &path).await["volumeAttachments"][0]["device"], "/dev/vda");
    assert_eq!(lab.delete(&format!("{path}/{root}")).await.status, 403, "it is the root disk");
    let rebuild = json!({ "rebuild": { "imageRef": lab.image } });
    assert_eq!(lab.act(&id, rebuild).await.status, 400);
    let saved =
        lab.post("2.45", &format!("/servers/{id}/action"), json!({ "createImage": { "name": "s" } })).await;
    let saved = saved.expect(202)["image_id"].as_str().unwrap().to_string();
    let saved = lab.cloud.get(&lab.member, &format!("/image/v2/images/{saved}")).await.expect(200);
    assert_eq!((&saved["base_image_ref"], &saved["min_disk"]), (&json!(""), &json!(2)));
    // The native door shows the same root disk.
    let native: api::v1::types::instance::Instance = lab.cloud.house.client.get(&id).await.unwrap();
    assert_eq!((native.image, native.volumes[0].id.to_string()), (None, root));
}

#[tokio::test]
async fn a_server_boots_from_a_volume_or_snapshot_that_is_there() {
    let lab = Lab::open().await;
    let request = api::v1::types::volume::CreateVolume {
        name: "system".into(),
        image: Some(lab.image.clone()),
        ..Default::default()
    };
    let client = &lab.cloud.house.client;
    let system: api::v1::types::volume::Volume = client.create(&request, &Default::default()).await.unwrap();
    let system = system.head.id.to_string();
    let caller = lab.cloud.house.caller(control::Role::Member);
    let control = &lab.cloud.house.control;
    let evening = NewSnapshot { name: "evening".into(), volume: system.clone(), ..NewSnapshot::default() };
    let snapshot = control.create_snapshot(&caller, evening).await.unwrap();
    let copy = json!([{
        "source_type": "snapshot", "destination_type": "volume", "uuid": snapshot.meta.id, "boot_index": 0,
    }]);
    let made = lab.post("2.1", "/servers", lab.order_of_disks("copy", copy)).await.expect(202);
    let first = &lab.volumes_of(made["server"]["id"].as_str().unwrap())[0];
    assert!(first.meta.id.to_string() != system && first.size_gib == 1 && !first.delete_with_instance);
    // Clients name the image beside it, which changes nothing.
    let mut order = lab.order_of_disks(
        "own",
        json!([{ "source_type": "volume", "destination_type": "volume", "uuid": system, "boot_index": 0 }]),
    );
    order["server"]["imageRef"] = json!(lab.image);
    let made = lab.post("2.1", "/servers", order.clone()).await.expect(202);
    let id = made["server"]["id"].as_str().unwrap();
    assert_eq!(lab.volumes_of(id)[0].meta.id.to_string(), system);
    assert_eq!(lab.get("2.1", &format!("/servers/{id}")).await["server"]["image"], "");
    let busy = lab.post("2.1", "/servers", order).await.expect(400);
    assert!(busy["badRequest"]["message"].as_str().unwrap().contains("attached"), "{busy}");
}

#[tokio::test]
async fn disks_that_cannot_be_are_refused() {
    let lab = Lab::open().await;
    let data = lab.volume("data").await;
    let volume = |uuid: &str, index: i64| json!({ "source_type": "volume", "destination_type": "volume", "uuid": uuid, "boot_index": index });
    let image = |size: Value| {
        json!({
            "source_type": "image", "destination_type": "volume", "uuid": lab.image, "boot_index": 0,
            "volume_size": size,
        })
    };
    let root = image(json!(1));
    for disks in [
        json!([]),
        json!([volume(&data, 0)]),
        json!([volume(NOBODY, 0)]),
        json!([volume("x", 0)]),
        json!([root, volume(&data, 0)]),
        json!([root, volume(&data, 2)]),
        json!([root, volume(&data, -1), volume(&data, -1)]),
        json!([volume(&data, -1)]),
        json!([image(json!(0))]),
        json!([image(json!("two"))]),
        json!([{ "source_type": "image", "destination_type": "local", "uuid": lab.image, "boot_index": 0 }]),
        json!([{ "source_type": "volume", "destination_type": "volume", "boot_index": 0 }]),
        json!([root, { "source_type": "blank", "destination_type": "volume" }]),
        json!([root, { "source_type": "blank", "destination_type": "local", "volume_size": 1 }]),
        json!([root, { "source_type": "blank", "destination_type": "volume", "volume_size": 1, "uuid": data }]),
        json!([root, { "source_type": "dvd", "destination_type": "volume", "uuid": data }]),
        json!([root, { "source_type": "volume", "destination_type": "cloud", "uuid": data }]),
        json!([root, { "source_type": "volume", "destination_type": "local", "uuid": data }]),
        json!([root, { "source_type": "volume", "uuid": data, "device_type": "cdrom" }]),
        json!([root, { "source_type": "volume", "uuid": data, "volume_type": "x" }]),
        json!([root, "x"]),
        json!({}),
    ] {
        let refused = lab.post("2.1", "/servers", lab.order_of_disks("x", disks.clone())).await;
        assert_eq!(refused.status, 400, "{disks}: {}", refused.text());
    }
    let mut several = lab.order("x");
    several["server"]["block_device_mapping_v2"] = json!([
        { "source_type": "image", "destination_type": "local", "uuid": lab.image, "boot_index": 0 },
        volume(&data, -1),
    ]);
    several["server"]["min_count"] = json!(2);
    assert_eq!(lab.post("2.1", "/servers", several.clone()).await.status, 400, "they would share a volume");
    several["server"]["min_count"] = json!(1);
    let made = lab.post("2.1", "/servers", several).await.expect(202);
    assert_eq!(lab.volumes_of(made["server"]["id"].as_str().unwrap())[1].meta.id.to_string(), data);
    assert_eq!(lab.listed("").await, ["x"]);
}
