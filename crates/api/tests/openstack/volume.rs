//! Volumes and snapshots by Cinder's API, against what the recorded cloud answered, and seen by the native door.

mod transfers;
mod types;

use crate::cloud::{Cloud, Reply};
use api::v1::types::{
    instance::CreateInstance, snapshot::Snapshot as NativeSnapshot, volume::Volume as Native,
};
use axum::{body::Body, http::Method};
use jiff::Timestamp;
use model::{
    id::{ImageId, InstanceId, VolumeId},
    image::{ImageContent, ImageKind, ImageState, ImageStatus},
    instance::{Instance, Kind, State},
    plan::DiskFormat,
    volume::{Volume, VolumeStatus},
};
use serde_json::{Value, json};
use store::Tx;

const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

/// Plays the node: every volume is made and frozen as wished.
pub(crate) async fn supply(cloud: &Cloud) {
    let mut tx = Tx::new();
    for volume in cloud.house.control.store().list::<Volume>() {
        let v = &volume.record;
        tx.put(&VolumeStatus {
            id: v.meta.id,
            node: cloud.house.node,
            path: Some(format!("/nowhere/{}", v.meta.id)),
            format: DiskFormat::Qcow2,
            backing: vec![],
            layer: v.layer,
            layer_made: v.layer,
            size_gib: v.size_gib,
            used_bytes: 0,
            fault: None,
            at: Timestamp::now(),
        });
    }
    cloud.house.control.store().commit(tx).await.unwrap();
}

/// Plays the node: an image is here.
async fn image_ready(cloud: &Cloud, id: ImageId, virtual_bytes: u64) {
    let digest = format!("sha256:{}", "0".repeat(64));
    let format = Some(DiskFormat::Raw);
    let content = ImageContent { digest, size_bytes: 1, virtual_bytes, format, ..ImageContent::default() };
    let mut tx = Tx::new();
    tx.put(&ImageStatus {
        id,
        node: cloud.house.node,
        state: ImageState::Ready(content),
        asked: 0,
        stale: None,
        at: Timestamp::now(),
    });
    cloud.house.control.store().commit(tx).await.unwrap();
}

async fn at(cloud: &Cloud, token: &str, version: &str, path: &str) -> Reply {
    let headers = [("openstack-api-version", version)];
    cloud.call(Method::GET, path, token, &headers, Body::empty()).await
}

/// Makes a volume that is there.
async fn make(cloud: &Cloud, token: &str, volume: Value) -> String {
    let made = cloud.post(token, "/volume/v3/volumes", &json!({ "volume": volume })).await.expect(202);
    supply(cloud).await;
    made["volume"]["id"].as_str().unwrap().to_string()
}

async fn show(cloud: &Cloud, token: &str, id: &str) -> Value {
    cloud.get(token, &format!("/volume/v3/volumes/{id}")).await.expect(200)["volume"].clone()
}

async fn act(cloud: &Cloud, token: &str, id: &str, action: Value) -> Reply {
    cloud.post(token, &format!("/volume/v3/volumes/{id}/action"), &action).await
}

/// A recorded reply's body.
fn golden(name: &str) -> Value {
    let text = match name {
        "volumes" => include_str!("golden/volumes.http"),
        "volumes_371" => include_str!("golden/volumes_371.http"),
        "limits" => include_str!("golden/cinder_limits.http"),
        "quota" => include_str!("golden/cinder_quota.http"),
        "types" => include_str!("golden/volume_types.http"),
        _ => include_str!("golden/volume_404.http"),
    };
    let body = text.replace('\r', "");
    serde_json::from_str(body.split_once("\n\n").unwrap().1).unwrap()
}

fn keys(value: &Value) -> Vec<String> {
    let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn a_volume_looks_as_on_the_recorded_cloud() {
    let cloud = Cloud::open().await;
    let token = &cloud.admin;
    let id =
        make(&cloud, token, json!({ "size": 1, "name": "rvol", "metadata": null, "imageRef": null })).await;
    for (version, recorded) in [("volume 3.0", "volumes"), ("volume 3.71", "volumes_371")] {
        let list = at(&cloud, token, version, "/volume/v3/volumes/detail").await.expect(200);
        let (ours, theirs) = (&list["volumes"][0], &golden(recorded)["volumes"][1]);
        assert_eq!(keys(ours), keys(theirs), "{version}");
        for key in [
            "status",
            "size",
            "availability_zone",
            "name",
            "description",
            "metadata",
            "bootable",
            "encrypted",
            "multiattach",
            "attachments",
            "snapshot_id",
            "source_volid",
            "migration_status",
        ] {
            assert_eq!(ours[key], theirs[key], "{key}");
        }
        let self_link = ours["links"][0]["href"].as_str().unwrap();
        assert_eq!(self_link, format!("http://cloud:5000/volume/v3/volumes/{id}"));
        let host = ours["os-vol-host-attr:host"].as_str().unwrap();
        assert!(host.contains('@') && host.contains('#'), "{host}");
    }
    let missing = cloud.get(token, "/volume/v3/volumes/nope").await;
    assert_eq!(missing.expect(404), golden("404"));
    // Readers who run nothing see no host.
    let member = cloud.as_role("member").await;
    let own = make(&cloud, &member, json!({ "size": 1 })).await;
    let shown = show(&cloud, &member, &own).await;
    assert_eq!((&shown["name"], shown.get("os-vol-host-attr:host")), (&Value::Null, None));
    assert_eq!(cloud.get(&member, &format!("/volume/v3/volumes/{id}")).await.status, 404);
    let project = shown["os-vol-tenant-attr:tenant_id"].as_str().unwrap();
    let by_project = cloud.get(&member, &format!("/volume/v3/{project}/volumes/{own}")).await.expect(200);
    assert_eq!(by_project["volume"], shown);
}

#[tokio::test]
async fn volumes_are_made_changed_and_deleted_for_both_doors() {
    let cloud = Cloud::open().await;
    let token = cloud.as_role("member").await;
    let id = make(
        &cloud,
        &token,
        json!({ "size": "2", "name": "data", "metadata": { "Type": "Test" }, "volume_type": "thick" }),
    )
    .await;
    let native: Native = cloud.house.client.get("data").await.unwrap();
    assert_eq!((native.head.id.to_string(), native.size_gib, native.thick), (id.clone(), 2, true));
    let path = format!("/volume/v3/volumes/{id}");
    let body = json!({ "volume": { "name": "other", "description": "words" } });
    let changed = cloud.send(Method::PUT, &token, &path, &body).await.expect(200);
    assert_eq!(
        (&changed["volume"]["name"], &changed["volume"]["description"]),
        (&json!("other"), &json!("words"))
    );

    for (wrong, status) in [
        (json!({ "size": "#$%" }), 400),
        (json!({ "size": 0 }), 400),
        (json!({ "size": -1 }), 400),
        (json!({ "name": "x" }), 400),
        (json!({ "size": 1, "snapshot_id": NOBODY }), 404),
        (json!({ "size": 1, "source_volid": NOBODY }), 404),
        (json!({ "size": 1, "volume_type": NOBODY }), 404),
        (json!({ "size": 1, "imageRef": NOBODY }), 400),
        (json!({ "size": 1, "availability_zone": "moon" }), 400),
        (json!({ "size": 1, "source_volid": id }), 400),
        (json!({ "size": 5000 }), 413),
    ] {
        let reply = cloud.post(&token, "/volume/v3/volumes", &json!({ "volume": wrong })).await;
        assert_eq!(reply.status.as_u16(), status, "{wrong}: {}", reply.text());
    }
    for path in ["/volume/v3/volumes/", "/volume/v3/volumes/x", &format!("/volume/v3/volumes/{NOBODY}")] {
        for method in [Method::GET, Method::DELETE] {
            assert_eq!(cloud.call(method, path, &token, &[], Body::empty()).await.status, 404, "{path}");
        }
        let body = json!({ "volume": { "name": "x" } });
        assert_eq!(cloud.send(Method::PUT, &token, path, &body).await.status, 404, "{path}");
    }

    let reader = cloud.as_role("reader").await;
    assert_eq!(cloud.delete(&reader, &path).await.status, 403);
    assert_eq!(cloud.delete(&token, &path).await.status, 202);
    assert_eq!(cloud.get(&token, &path).await.status, 404);
    assert!(cloud.house.client.get::<Native>(&id).await.is_err());
}

#[tokio::test]
async fn lists_are_filtered_sorted_and_cut() {
    let cloud = Cloud::open().await;
    let token = &cloud.admin;
    let mut ids = vec![];
    for name in ["a", "b", "c"] {
        ids.push(make(&cloud, token, json!({ "size": 1, "name": name, "metadata": { "n": name } })).await);
    }
    let list = async |query: &str| {
        let reply = cloud.get(token, &format!("/volume/v3/volumes{query}")).await.expect(200);
        let names =
            reply["volumes"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap().to_string());
        names.collect::<Vec<_>>()
    };
    for (query, names) in [
        ("", vec!["c", "b", "a"]),
        ("?name=b", vec!["b"]),
        ("?name=x", vec![]),
        ("?status=available&availability_zone=nova&name=a", vec!["a"]),
        ("?status=null", vec![]),
        ("/detail?status=in-use", vec![]),
        ("/detail?metadata=%7B%27n%27%3A+%27b%27%7D", vec!["b"]),
        ("?sort_key=name&sort_dir=asc", vec!["a", "b", "c"]),
        ("?sort=name:asc&limit=2", vec!["a", "b"]),
        ("?sort=name:asc&limit=1&offset=1", vec!["b"]),
        ("?limit=0", vec![]),
        ("?bootable=true", vec![]),
        ("?bootable=False&limit=1", vec!["c"]),
    ] {
        assert_eq!(list(query).await, names, "{query}");
    }
    assert_eq!(list(&format!("?marker={}", ids[2])).await, ["b", "a"]);
    let page = cloud.get(token, "/volume/v3/volumes/detail?limit=2").await.expect(200);
    let next = page["volumes_links"][0]["href"].as_str().unwrap();
    assert!(next.starts_with("http://cloud:5000/volume/v3/volumes/detail?"), "{next}");
    let rest = cloud.get(token, next.strip_prefix("http://cloud:5000").unwrap()).await.expect(200);
    assert_eq!((rest["volumes"].as_array().unwrap().len(), rest.get("volumes_links")), (1, None));
    let full = cloud.get(token, "/volume/v3/volumes?limit=3").await.expect(200);
    let next = full["volumes_links"][0]["href"].as_str().expect("a full page has a next one");
    let after = cloud.get(token, next.strip_prefix("http://cloud:5000").unwrap()).await.expect(200);
    assert_eq!(after, json!({ "volumes": [] }));
    for (wrong, status) in
        [("?limit=x", 400), ("?sort_key=moon", 400), ("?metadata=x", 400), ("?marker=nope", 404)]
    {
        assert_eq!(cloud.get(token, &format!("/volume/v3/volumes{wrong}")).await.status, status, "{wrong}");
    }
    let counted =
        at(&cloud, token, "volume 3.45", "/volume/v3/volumes?with_count=True&limit=1").await.expect(200);
    assert_eq!(counted["count"], 3);
    let summary = at(&cloud, token, "volume 3.12", "/volume/v3/volumes/summary").await.expect(200);
    assert_eq!(summary, json!({ "volume-summary": { "total_size": 3, "total_count": 3 } }));
    assert_eq!(cloud.get(token, "/volume/v3/volumes/summary").await.status, 404, "not in 3.0");
}

#[tokio::test]
async fn metadata_flags_and_sizes_are_changed() {
    let cloud = Cloud::open().await;
    let token = &cloud.admin;
    let id = make(&cloud, token, json!({ "size": 1 })).await;
    let path = format!("/volume/v3/volumes/{id}/metadata");
    let body = |map: Value| json!({ "metadata": map });
    let added =
        cloud.post(token, &path, &body(json!({ "a": "1", "b": "<value&special_chars>" }))).await.expect(200);
    assert_eq!(added["metadata"]["b"], "<value&special_chars>");
    let put = cloud.send(Method::PUT, token, &path, &body(json!({ "a": "2", "c": "3" }))).await.expect(200);
    assert_eq!(put, body(json!({ "a": "2", "c": "3" })));
    let item = format!("{path}/c");
    let set = cloud.send(Method::PUT, token, &item, &json!({ "meta": { "c": "4" } })).await.expect(200);
    assert_eq!(set, json!({ "meta": { "c": "4" } }));
    assert_eq!(cloud.get(token, &item).await.expect(200), json!({ "meta": { "c": "4" } }));
    assert_eq!(cloud.send(Method::PUT, token, &item, &json!({ "meta": { "d": "4" } })).await.status, 400);
    assert_eq!(cloud.delete(token, &item).await.status, 200);
    assert_eq!(cloud.delete(token, &item).await.status, 404);
    assert_eq!(cloud.get(token, &path).await.expect(200), body(json!({ "a": "2" })));

    for (flag, word) in [(true, "true"), (false, "false")] {
        act(&cloud, token, &id, json!({ "os-set_bootable": { "bootable": flag } })).await.expect(200);
        assert_eq!(show(&cloud, token, &id).await["bootable"], word);
    }
    for (flag, word) in [(true, "True"), (false, "False")] {
        act(&cloud, token, &id, json!({ "os-update_readonly_flag": { "readonly": flag } })).await.expect(202);
        assert_eq!(show(&cloud, token, &id).await["metadata"]["readonly"], word);
    }
    act(&cloud, token, &id, json!({ "os-extend": { "new_size": 3 } })).await.expect(202);
    assert_eq!(show(&cloud, token, &id).await["status"], "extending");
    supply(&cloud).await;
    assert_eq!(show(&cloud, token, &id).await["size"], 3);
    for wrong in [
        json!({ "os-extend": { "new_size": 2 } }),
        json!({ "os-extend": { "new_size": "x" } }),
        json!({ "os-nonsense": {} }),
        json!({ "os-detach": {} }),
        json!({ "os-attach": { "instance_uuid": null } }),
    ] {
        assert_eq!(act(&cloud, token, &id, wrong.clone()).await.status, 400, "{wrong}");
    }
}

/// Takes a snapshot of a volume, which is there at once.
async fn take_snapshot(cloud: &Cloud, volume: &str, name: &str) -> String {
    let about = json!({ "volume_id": volume, "name": name, "description": null, "metadata": { "k": "v" } });
    let body = json!({ "snapshot": about });
    let made = cloud.post(&cloud.admin, "/volume/v3/snapshots", &body).await.expect(202)["snapshot"].clone();
    assert_eq!((&made["status"], &made["size"]), (&json!("creating"), &json!(1)));
    supply(cloud).await;
    made["id"].as_str().unwrap().to_string()
}

#[tokio::test]
async fn snapshots_are_taken_and_listed() {
    let cloud = Cloud::open().await;
    let token = &cloud.admin;
    let volume = make(&cloud, token, json!({ "size": 1, "name": "v" })).await;
    let first = take_snapshot(&cloud, &volume, "first").await;
    let second = take_snapshot(&cloud, &volume, "second").await;
    let shown =
        cloud.get(token, &format!("/volume/v3/snapshots/{first}")).await.expect(200)["snapshot"].clone();
    assert_eq!(
        (&shown["status"], &shown["os-extended-snapshot-attributes:progress"]),
        (&json!("available"), &json!("100%"))
    );
    let native: NativeSnapshot = cloud.house.client.clone().with_project("admin").get(&first).await.unwrap();
    assert_eq!(native.volume.id.to_string(), volume);
    let list = async |query: &str| {
        let reply = cloud.get(token, &format!("/volume/v3/snapshots{query}")).await.expect(200);
        reply["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["name"].as_str().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    for (query, names) in [
        ("", vec!["second", "first"]),
        ("/detail?name=first&status=available", vec!["first"]),
        ("?sort_key=created_at&sort_dir=asc", vec!["first", "second"]),
        (
            "?sort_key=id&sort_dir=asc",
            if first < second { vec!["first", "second"] } else { vec!["second", "first"] },
        ),
        ("?sort_key=display_name&sort_dir=desc", vec!["second", "first"]),
        ("?limit=1", vec!["second"]),
        ("?limit=0", vec![]),
        ("?offset=1&limit=5", vec!["first"]),
        ("?volume_id=00000000-0000-4000-8000-000000000000", vec![]),
    ] {
        assert_eq!(list(query).await, names, "{query}");
    }
    assert_eq!(list(&format!("?marker={second}")).await, ["first"]);
    for (without, status) in [(json!({ "volume_id": null }), 404), (json!({}), 400)] {
        let reply = cloud.post(token, "/volume/v3/snapshots", &json!({ "snapshot": without })).await;
        assert_eq!(reply.status, status, "{without}");
    }
    let renamed = json!({ "snapshot": { "name": "renamed", "description": "d" } });
    let renamed =
        cloud.send(Method::PUT, token, &format!("/volume/v3/snapshots/{first}"), &renamed).await.expect(200);
    assert_eq!(renamed["snapshot"]["name"], "renamed");
    let metadata = cloud.get(token, &format!("/volume/v3/snapshots/{first}/metadata")).await.expect(200);
    assert_eq!(metadata, json!({ "metadata": { "k": "v" } }));
}

#[tokio::test]
async fn snapshots_are_copied_and_hold_their_volume() {
    let cloud = Cloud::open().await;
    let token = &cloud.admin;
    let volume = make(&cloud, token, json!({ "size": 1, "name": "v" })).await;
    let first = take_snapshot(&cloud, &volume, "first").await;
    let second = take_snapshot(&cloud, &volume, "second").await;
    let copy = make(&cloud, token, json!({ "size": 2, "snapshot_id": first })).await;
    let clone = make(&cloud, token, json!({ "source_volid": volume })).await;
    assert_eq!(show(&cloud, token, &copy).await["snapshot_id"], first);
    let shown = show(&cloud, token, &clone).await;
    assert_eq!((&shown["source_volid"], &shown["size"]), (&json!(volume), &json!(1)));
    let smaller = json!({ "volume": { "size": 1, "source_volid": copy } });
    assert_eq!(cloud.post(token, "/volume/v3/volumes", &smaller).await.status, 400);

    assert_eq!(
        cloud.delete(token, &format!("/volume/v3/volumes/{volume}")).await.status,
        400,
        "it has snapshots"
    );
    for body in [json!({ "snapshot": { "volume_id": NOBODY } }), json!({ "snapshot": {} })] {
        let status = cloud.post(token, "/volume/v3/snapshots", &body).await.status.as_u16();
        assert_eq!(status, if body["snapshot"]["volume_id"].is_null() { 400 } else { 404 });
    }
    assert_eq!(cloud.delete(token, &format!("/volume/v3/snapshots/{first}")).await.status, 202);
    assert_eq!(cloud.get(token, &format!("/volume/v3/snapshots/{first}")).await.status, 404);
    assert_eq!(cloud.delete(token, &format!("/volume/v3/volumes/{volume}?cascade=True")).await.status, 202);
    assert_eq!(cloud.get(token, &format!("/volume/v3/snapshots/{second}")).await.status, 404);
}

#[tokio::test]
async fn an_attachment_is_done_when_the_guest_has_it_and_over_when_it_let_go() {
    let cloud = Cloud::open().await;
    let token = &cloud.admin;
    let client = cloud.house.client.clone().with_project("admin");
    let kernel = control::image::NewImage {
        name: "k".into(),
        kind: ImageKind::Kernel,
        reference: None,
        ..control::image::NewImage::from_registry("x")
    };
    let root = control::finalize::system_caller(model::id::ProjectId(uuid::Uuid::nil()));
    let project = cloud.house.control.find_project(&root, "admin").unwrap().record.meta.id;
    let caller = control::Caller { project, ..cloud.house.caller(control::Role::Admin) };
    let image = cloud.house.control.create_image(&caller, kernel).await.unwrap();
    image_ready(&cloud, image.meta.id, 1).await;
    let request = CreateInstance {
        name: "vm".into(),
        kind: Some(Kind::Vm),
        image: Some("k".into()),
        flavor: Some("g1.c1m512".into()),
        networks: Some(vec![]),
        ..CreateInstance::default()
    };
    let vm: api::v1::types::instance::Instance = client.create(&request, &Default::default()).await.unwrap();
    let server = vm.head.id.to_string();
    supply(&cloud).await;
    let running = State::Running { since: Timestamp::now() };
    cloud.house.seen(vm.head.id, running.clone()).await;
    assert_eq!(
        cloud.get(token, "/volume/v3/volumes").await.expect(200)["volumes"],
        json!([]),
        "a server's own disk is none"
    );

    let id = make(&cloud, token, json!({ "size": 1 })).await;
    act(&cloud, token, &id, json!({ "os-attach": { "instance_uuid": server, "mountpoint": "/dev/vdb" } }))
        .await
        .expect(202);
    let shown = show(&cloud, token, &id).await;
    assert_eq!(shown["status"], "attaching");
    let attachment = &shown["attachments"][0];
    assert_eq!((&attachment["server_id"], &attachment["device"]), (&json!(server), &json!("/dev/vdb")));
    cloud.house.seen(vm.head.id, running).await;
    assert_eq!(show(&cloud, token, &id).await["status"], "in-use");
    let listed = at(&cloud, token, "volume 3.27", &format!("/volume/v3/attachments?instance_id={server}"))
        .await
        .expect(200);
    assert_eq!(listed["attachments"][0]["status"], "attached");
    assert_eq!(cloud.delete(token, &format!("/volume/v3/volumes/{id}")).await.status, 400);
    let refused = json!({ "snapshot": { "volume_id": id } });
    assert_eq!(cloud.post(token, "/volume/v3/snapshots", &refused).await.status, 400, "needs force");
    let forced = json!({ "snapshot": { "volume_id": id, "force": true } });
    cloud.post(token, "/volume/v3/snapshots", &forced).await.expect(202);

    act(&cloud, token, &id, json!({ "os-detach": {} })).await.expect(202);
    assert_eq!(show(&cloud, token, &id).await["status"], "detaching", "the guest has it still");
    let instance = InstanceId(vm.head.id);
    assert!(cloud.house.control.get::<Instance>(instance).unwrap().record.volumes.len() == 1);
    cloud.house.seen(vm.head.id, State::Running { since: Timestamp::now() }).await;
    cloud.house.control.finalize_instance(instance).await.unwrap();
    supply(&cloud).await;
    assert_eq!(show(&cloud, token, &id).await["status"], "available");
    assert!(cloud.house.control.get::<Volume>(id.parse::<VolumeId>().unwrap()).is_some());
}

#[tokio::test]
async fn a_volume_becomes_an_image() {
    let cloud = Cloud::open().await;
    let token = &cloud.admin;
    let id = make(&cloud, token, json!({ "size": 1 })).await;
    let body = json!({ "os-volume_upload_image": { "image_name": "saved", "disk_format": "raw", "container_format": "bare", "force": false } });
    let reply = act(&cloud, token, &id, body).await.expect(202)["os-volume_upload_image"].clone();
    assert_eq!((&reply["disk_format"], &reply["image_name"]), (&json!("raw"), &json!("saved")));
    assert_eq!(show(&cloud, token, &id).await["status"], "uploading");
    let image = reply["image_id"].as_str().unwrap();
    image_ready(&cloud, image.parse().unwrap(), 1 << 30).await;
    assert_eq!(show(&cloud, token, &id).await["status"], "available");
    let native: api::v1::types::image::Image =
        cloud.house.client.clone().with_project("admin").get("saved").await.unwrap();
    assert_eq!(native.head.id.to_string(), image);
    for wrong in [json!({}), json!({ "image_name": "x", "disk_format": "vhd" })] {
        assert_eq!(act(&cloud, token, &id, json!({ "os-volume_upload_image": wrong })).await.status, 400);
    }
}

#[tokio::test]
async fn types_quotas_limits_and_what_is_not_here() {
    let cloud = Cloud::open().await;
    let (token, member) = (&cloud.admin, cloud.as_role("member").await);
    make(&cloud, token, json!({ "size": 3 })).await;
    let types = cloud.get(token, "/volume/v3/types").await.expect(200);
    assert_eq!(keys(&types["volume_types"][0]), keys(&golden("types")["volume_types"][0]));
    let default = cloud.get(&member, "/volume/v3/types/default").await.expect(200);
    assert_eq!(default["volume_type"]["name"], "thin");
    assert_eq!(cloud.get(token, &format!("/volume/v3/types/{NOBODY}")).await.status, 404);

    let project = show(
        &cloud,
        token,
        cloud.get(token, "/volume/v3/volumes").await.expect(200)["volumes"][0]["id"].as_str().unwrap(),
    )
    .await["os-vol-tenant-attr:tenant_id"]
        .as_str()
        .unwrap()
        .to_string();
    let limits = cloud.get(token, "/volume/v3/limits?project_id=None").await.expect(200);
    assert_eq!(keys(&limits["limits"]["absolute"]), keys(&golden("limits")["limits"]["absolute"]));
    assert_eq!(limits["limits"]["absolute"]["totalGigabytesUsed"], 3);
    let path = format!("/volume/v3/os-quota-sets/{project}");
    let set = cloud.get(token, &format!("{path}?usage=False")).await.expect(200)["quota_set"].clone();
    for key in keys(&golden("quota")["quota_set"])
        .iter()
        .filter(|key| !key.contains("fake") && !key.contains("DEFAULT"))
    {
        assert!(set.get(key).is_some(), "{key}");
    }
    let body = json!({ "quota_set": { "volumes": 1 } });
    assert_eq!(cloud.send(Method::PUT, token, &path, &body).await.expect(200)["quota_set"]["volumes"], 1);
    let full = cloud.post(token, "/volume/v3/volumes", &json!({ "volume": { "size": 1 } })).await;
    assert_eq!(full.status, 413, "{}", full.text());
    assert_eq!(keys(&full.json()), ["overLimit"]);
    let usage = cloud.get(token, &format!("{path}?usage=True")).await.expect(200);
    assert_eq!(usage["quota_set"]["volumes"], json!({ "limit": 1, "in_use": 1, "reserved": 0 }));
    assert_eq!(cloud.send(Method::PUT, &member, &path, &body).await.status, 403);
    assert_eq!(cloud.get(&member, &path).await.status, 403, "another project's");
    assert_eq!(cloud.delete(token, &path).await.status, 200);
    assert_ne!(cloud.get(token, &path).await.expect(200)["quota_set"]["volumes"], 1);

    assert_eq!(cloud.get(&member, "/volume/v3/os-services").await.status, 403);
    assert_eq!(
        cloud.get(token, "/volume/v3/os-services").await.expect(200)["services"][1]["binary"],
        "cinder-volume"
    );
    let zones = cloud.get(&member, "/volume/v3/os-availability-zone").await.expect(200);
    assert_eq!(zones["availabilityZoneInfo"][0]["zoneName"], "nova");
    assert!(
        !cloud.get(&member, "/volume/v3/extensions").await.expect(200)["extensions"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert_eq!(cloud.get(&member, "/volume/v3/backups/detail").await.expect(200), json!({ "backups": [] }));
    assert_eq!(cloud.post(&member, "/volume/v3/backups", &json!({ "backup": {} })).await.status, 400);
    assert_eq!(cloud.get(&member, "/volume/v3/groups").await.status, 404);
    assert_eq!(cloud.get("", "/volume/v3/volumes").await.status, 401);
}

#[tokio::test]
async fn backups_are_made_listed_and_restored() {
    let cloud = Cloud::open().await;
    let token = &cloud.admin;
    let volume = make(&cloud, token, json!({ "size": 1, "name": "v", "metadata": { "k": "v" } })).await;
    let snapshot = take_snapshot(&cloud, &volume, "s").await;
    let backups = "/volume/v3/backups";
    let order = async |backup: Value| cloud.post(token, backups, &json!({ "backup": backup })).await;
    for (wrong, status) in [
        (json!({}), 400),
        (json!({ "volume_id": NOBODY }), 404),
        (json!({ "volume_id": volume, "snapshot_id": NOBODY }), 404),
        (json!({ "volume_id": volume, "incremental": true }), 400),
        (json!({ "volume_id": volume, "container": "c" }), 400),
    ] {
        assert_eq!(order(wrong.clone()).await.status.as_u16(), status, "{wrong}");
    }
    let made = order(json!({ "volume_id": volume, "name": "rbak", "container": null })).await.expect(202);
    assert_eq!(keys(&made["backup"]), ["id", "links", "name"]);
    let id = made["backup"]["id"].as_str().unwrap().to_string();
    let path = format!("{backups}/{id}");
    assert_eq!(cloud.get(token, &path).await.expect(200)["backup"]["status"], "creating");
    assert_eq!(show(&cloud, token, &volume).await["status"], "backing-up");
    let restore = json!({ "restore": { "name": "back" } });
    assert_eq!(cloud.post(token, &format!("{path}/restore"), &restore).await.status, 400, "not ready");
    image_ready(&cloud, id.parse().unwrap(), 1 << 30).await;
    supply(&cloud).await;
    assert_eq!(show(&cloud, token, &volume).await["status"], "available");
    let shown = at(&cloud, token, "volume 3.64", &path).await.expect(200)["backup"].clone();
    for (key, value) in [
        ("status", json!("available")),
        ("name", json!("rbak")),
        ("volume_id", json!(volume)),
        ("snapshot_id", Value::Null),
        ("size", json!(1)),
        ("metadata", json!({ "k": "v" })),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }
    let of_snapshot = order(json!({ "volume_id": volume, "snapshot_id": snapshot })).await.expect(202);
    let other = of_snapshot["backup"]["id"].as_str().unwrap().to_string();
    assert_eq!(of_snapshot["backup"]["name"], Value::Null);
    let detail = cloud.get(token, &format!("{backups}/detail?status=creating")).await.expect(200);
    assert_eq!(
        (&detail["backups"][0]["id"], &detail["backups"][0]["snapshot_id"]),
        (&json!(other), &json!(snapshot))
    );
    let images = cloud.get(token, "/image/v2/images").await.expect(200);
    assert!(!images.to_string().contains(&id), "images are what Glance lists");
    let used = cloud
        .house
        .control
        .quota(cloud.house.control.get::<Volume>(volume.parse().unwrap()).unwrap().record.meta.project);
    assert_eq!(used.1.of(model::quota::Resource::Backups), 2);

    let restored =
        cloud.post(token, &format!("{path}/restore"), &restore).await.expect(202)["restore"].clone();
    assert_eq!((&restored["backup_id"], &restored["volume_name"]), (&json!(id), &json!("back")));
    let copy = restored["volume_id"].as_str().unwrap().to_string();
    supply(&cloud).await;
    let shown = show(&cloud, token, &copy).await;
    assert_eq!((&shown["bootable"], &shown["metadata"]), (&json!("false"), &json!({ "k": "v" })));
    let onto = json!({ "restore": { "volume_id": volume } });
    assert_eq!(cloud.post(token, &format!("{path}/restore"), &onto).await.status, 400, "it is being copied");
    image_ready(&cloud, other.parse().unwrap(), 1 << 30).await;
    cloud.post(token, &format!("{path}/restore"), &onto).await.expect(202);
    let record = cloud.house.control.get::<Volume>(volume.parse().unwrap()).unwrap();
    assert_eq!(record.record.ground().image, Some(id.parse().unwrap()), "what it held is back");

    renamed_and_deleted(&cloud, &path, &format!("{backups}/{other}")).await;
}

/// A backup gets another name, and both go.
async fn renamed_and_deleted(cloud: &Cloud, path: &str, other: &str) {
    let token = &cloud.admin;
    let renamed = json!({ "backup": { "name": "other" } });
    let headers = [("openstack-api-version", "volume 3.9"), ("content-type", "application/json")];
    let changed = cloud.call(Method::PUT, path, token, &headers, renamed.to_string()).await.expect(200);
    assert_eq!(changed["backup"]["name"], "other");
    cloud.delete(token, path).await.expect(202);
    assert_eq!(cloud.get(token, path).await.status, 404, "though volumes stand on it");
    cloud.delete(token, other).await.expect(202);
    assert_eq!(cloud.get(token, "/volume/v3/backups").await.expect(200), json!({ "backups": [] }));
}
