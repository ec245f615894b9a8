//! Images as Glance's clients meet them.

use crate::cloud::{Cloud, Reply};
use axum::{body::Body, http::Method};
use model::{
    error::{Code, Fault},
    id::ImageId,
    image::{Image, ImageContent, ImageKind, ImageState},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const IMAGES: &str = "/image/v2/images";
const PATCH: &str = "application/openstack-images-v2.1-json-patch";

async fn made(cloud: &Cloud, token: &str, body: Value) -> Value {
    cloud.post(token, IMAGES, &body).await.expect(201)
}

fn path(image: &Value, rest: &str) -> String {
    format!("{IMAGES}/{}{rest}", image["id"].as_str().unwrap())
}

async fn put_bytes(cloud: &Cloud, token: &str, path: &str, bytes: &[u8]) -> Reply {
    let kind = [("content-type", "application/octet-stream")];
    cloud.call(Method::PUT, path, token, &kind, bytes.to_vec()).await
}

async fn patch(cloud: &Cloud, token: &str, image: &Value, changes: Value) -> Reply {
    let kind = [("content-type", PATCH)];
    cloud.call(Method::PATCH, &path(image, ""), token, &kind, changes.to_string()).await
}

async fn seen(cloud: &Cloud, image: &Value, state: ImageState) {
    let id: ImageId = image["id"].as_str().unwrap().parse().unwrap();
    let stored = cloud.house.control.get::<Image>(id).unwrap();
    cloud.house.guests.write(&stored.record, state).await.unwrap();
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn an_image_is_made_sent_shown_and_given_back() {
    let cloud = Cloud::open().await;
    let member = cloud.as_role("member").await;
    let reply = cloud
        .post(
            &member,
            IMAGES,
            &json!({"name": "rimg", "disk_format": "raw", "container_format": "bare",
                "owner_specified.openstack.md5": "", "os_admin_user": "debian", "tags": ["a"]}),
        )
        .await;
    let image = reply.expect(201);
    assert_eq!(reply.headers["openstack-image-import-methods"], "glance-direct");
    assert!(reply.headers["location"].to_str().unwrap().starts_with("http://cloud:5000/image/v2/images/"));
    // The same attributes as a real cloud has, beside the two properties.
    let recorded = [
        "name",
        "disk_format",
        "container_format",
        "visibility",
        "size",
        "virtual_size",
        "status",
        "checksum",
        "protected",
        "min_ram",
        "min_disk",
        "owner",
        "os_hidden",
        "os_hash_algo",
        "os_hash_value",
        "id",
        "created_at",
        "updated_at",
        "tags",
        "self",
        "file",
        "schema",
        "owner_specified.openstack.md5",
        "os_admin_user",
    ];
    assert_eq!(keys(&image), BTreeSet::from(recorded));
    for (key, value) in [
        ("status", json!("queued")),
        ("visibility", json!("shared")),
        ("size", Value::Null),
        ("checksum", Value::Null),
        ("tags", json!(["a"])),
        ("schema", json!("/v2/schemas/image")),
        ("file", json!(format!("/v2/images/{}/file", image["id"].as_str().unwrap()))),
    ] {
        assert_eq!(image[key], value, "{key}");
    }
    assert_eq!(image["owner"].as_str().unwrap().len(), 32);
    assert!(
        image["created_at"].as_str().unwrap().ends_with('Z')
            && image["created_at"].as_str().unwrap().len() == 20
    );
    assert_eq!(cloud.get(&member, &path(&image, "/file")).await.status.as_u16(), 204);
}

#[tokio::test]
async fn bytes_are_sent_once_and_given_back() {
    let cloud = Cloud::open().await;
    let member = cloud.as_role("member").await;
    let asked =
        json!({"name": "rimg", "disk_format": "raw", "container_format": "bare", "os_admin_user": "debian"});
    let image = made(&cloud, &member, asked).await;
    let wrong = cloud.send(Method::PUT, &member, &path(&image, "/file"), &json!({})).await;
    assert_eq!(wrong.status.as_u16(), 415);
    put_bytes(&cloud, &member, &path(&image, "/file"), b"0123456789").await.expect(204);
    let again = put_bytes(&cloud, &member, &path(&image, "/file"), b"x").await;
    assert_eq!(again.status.as_u16(), 409);
    assert!(again.text().contains("Image status transition from active to saving is not allowed"));
    let shown = cloud.get(&member, &path(&image, "")).await.expect(200);
    assert_eq!((&shown["status"], &shown["size"]), (&json!("active"), &json!(10)));
    let got = cloud.get(&member, &path(&image, "/file")).await;
    assert_eq!((got.status.as_u16(), got.body.as_slice()), (200, b"0123456789".as_slice()));
    assert_eq!(got.headers["content-type"], "application/octet-stream");
    assert_eq!(got.headers["content-length"], "10");
    let part = cloud
        .call(Method::GET, &path(&image, "/file"), &member, &[("range", "bytes=2-4")], Body::empty())
        .await;
    assert_eq!((part.status.as_u16(), part.body.as_slice()), (206, b"234".as_slice()));
    assert_eq!(part.headers["content-range"], "bytes 2-4/10");

    // It is an image on the native door, too: with its login.
    let client = cloud.house.client.clone().with_project("default");
    let native = client.get::<api::v1::types::image::Image>(image["id"].as_str().unwrap()).await.unwrap();
    assert_eq!((native.head.name.as_str(), native.login.as_deref()), ("rimg", Some("debian")));

    cloud.delete(&member, &path(&image, "")).await.expect(204);
    let gone = cloud.get(&member, &path(&image, "")).await;
    assert_eq!(gone.status.as_u16(), 404);
    assert!(gone.text().contains(&format!("No image found with ID {}", image["id"].as_str().unwrap())));
    assert_eq!(cloud.delete(&member, &path(&image, "")).await.status.as_u16(), 404);
    assert_eq!(cloud.get(&member, &format!("{IMAGES}/")).await.status.as_u16(), 404);
    assert_eq!(cloud.delete(&member, &format!("{IMAGES}/")).await.status.as_u16(), 404);
    assert_eq!(cloud.get(&member, &format!("{IMAGES}/nope")).await.status.as_u16(), 404);
}

#[tokio::test]
async fn what_cannot_be_an_image_is_refused() {
    let cloud = Cloud::open().await;
    let member = cloud.as_role("member").await;
    for (body, status) in [
        (json!({"name": "x", "container_format": "wrong", "disk_format": "raw"}), 400),
        (json!({"name": "x", "container_format": "bare", "disk_format": "wrong"}), 400),
        (json!({"name": "x".repeat(256)}), 400),
        (json!({"visibility": "everyone"}), 400),
        (json!({"visibility": "public"}), 403),
        (json!({"min_ram": -1}), 400),
        (json!({"speed": 88}), 400),
        (json!({"status": "active"}), 403),
        (json!({"os_glance_x": "y"}), 403),
        (json!({"owner": "0123456789abcdef0123456789abcdef"}), 403),
        (json!({"id": "x"}), 400),
        (json!({"tags": ["x".repeat(256)]}), 400),
        (json!([]), 400),
    ] {
        let reply = cloud.post(&member, IMAGES, &body).await;
        assert_eq!(reply.status.as_u16(), status, "{body}: {}", reply.text());
    }
    let id = "00eab414-c603-45f2-88a5-f9ee19f393ef";
    let image = made(&cloud, &member, json!({"id": id})).await;
    assert_eq!((image["id"].as_str(), &image["name"]), (Some(id), &Value::Null));
    assert_eq!(cloud.post(&member, IMAGES, &json!({"id": id})).await.status.as_u16(), 409);
    let early = put_bytes(&cloud, &member, &path(&image, "/file"), b"x").await;
    assert_eq!(early.status.as_u16(), 400);
    assert!(early.text().contains("disk_format must be set"), "{}", early.text());
    let reader = cloud.as_role("reader").await;
    assert_eq!(cloud.post(&reader, IMAGES, &json!({})).await.status.as_u16(), 403);
    assert_eq!(cloud.get("", IMAGES).await.status.as_u16(), 401);
    // Names repeat here.
    made(&cloud, &member, json!({"name": "twice"})).await;
    made(&cloud, &member, json!({"name": "twice"})).await;
}

#[tokio::test]
async fn patches_change_attributes_and_properties() {
    let cloud = Cloud::open().await;
    let member = cloud.as_role("member").await;
    let image = made(&cloud, &member, json!({"name": "a", "speed": "1"})).await;
    let changed = patch(
        &cloud,
        &member,
        &image,
        json!([
            {"op": "replace", "path": "/name", "value": "b"},
            {"op": "replace", "path": "/os_hidden", "value": true},
            {"op": "replace", "path": "/tags", "value": ["x", "y", "x"]},
            {"op": "add", "path": "/hw_firmware_type", "value": "uefi"},
            {"op": "replace", "path": "/disk_format", "value": "qcow2"},
            {"op": "replace", "path": "/container_format", "value": "bare"},
            {"op": "remove", "path": "/speed"},
        ]),
    )
    .await
    .expect(200);
    assert_eq!((&changed["name"], &changed["os_hidden"]), (&json!("b"), &json!(true)));
    assert_eq!((&changed["tags"], &changed["hw_firmware_type"]), (&json!(["x", "y"]), &json!("uefi")));
    assert!(changed.get("speed").is_none());
    let id: ImageId = image["id"].as_str().unwrap().parse().unwrap();
    assert!(cloud.house.control.get::<Image>(id).unwrap().record.uefi);
    for (change, status) in [
        (json!({"op": "replace", "path": "/nothing", "value": "x"}), 409),
        (json!({"op": "remove", "path": "/nothing"}), 409),
        (json!({"op": "remove", "path": "/name"}), 403),
        (json!({"op": "replace", "path": "/status", "value": "active"}), 403),
        (json!({"op": "replace", "path": "/id", "value": "x"}), 403),
        (json!({"op": "add", "path": "/locations/-", "value": {}}), 403),
        (json!({"op": "add", "path": "/os_glance_x", "value": "y"}), 403),
        (json!({"op": "replace", "path": "/visibility", "value": "public"}), 403),
        (json!({"op": "replace", "path": "/min_disk", "value": "x"}), 400),
        (json!({"op": "add", "path": "/n", "value": 5}), 400),
    ] {
        let reply = patch(&cloud, &member, &image, json!([change])).await;
        assert_eq!(reply.status.as_u16(), status, "{change}: {}", reply.text());
    }
    // Half a patch changes nothing.
    let half =
        json!([{"op": "replace", "path": "/name", "value": "c"}, {"op": "remove", "path": "/nothing"}]);
    assert_eq!(patch(&cloud, &member, &image, half).await.status.as_u16(), 409);
    assert_eq!(cloud.get(&member, &path(&image, "")).await.expect(200)["name"], "b");
    let old = [("content-type", "application/openstack-images-v2.0-json-patch")];
    let body = json!([{"replace": "/name", "value": "d"}]).to_string();
    let reply = cloud.call(Method::PATCH, &path(&image, ""), &member, &old, body).await;
    assert_eq!(reply.expect(200)["name"], "d");
    let json = cloud.send(Method::PATCH, &member, &path(&image, ""), &json!([])).await;
    assert_eq!(json.status.as_u16(), 415);
    put_bytes(&cloud, &member, &path(&image, "/file"), b"x").await.expect(204);
    let late = json!([{"op": "replace", "path": "/disk_format", "value": "raw"}]);
    assert_eq!(patch(&cloud, &member, &image, late).await.status.as_u16(), 403);
}

async fn ids(cloud: &Cloud, token: &str, query: &str) -> Vec<String> {
    let list = cloud.get(token, &format!("{IMAGES}{query}")).await.expect(200);
    list["images"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap().to_string()).collect()
}

#[tokio::test]
async fn lists_are_filtered_sorted_and_paged() {
    let cloud = Cloud::open().await;
    let member = cloud.as_role("member").await;
    let mut all = vec![];
    for (n, (format, bytes)) in [("raw", 10), ("qcow2", 30), ("vmdk", 20)].into_iter().enumerate() {
        let image = made(
            &cloud,
            &member,
            json!({"name": format!("n{n}"), "disk_format": format, "container_format": "bare",
                "visibility": "private", "tags": [format!("t{n}"), "all"], "speed": format!("{n}")}),
        )
        .await;
        put_bytes(&cloud, &member, &path(&image, "/file"), &vec![1; bytes]).await.expect(204);
        all.push(image["id"].as_str().unwrap().to_string());
    }
    let queued = made(&cloud, &member, json!({"name": "q"})).await;
    let (a, b, c) = (all[0].clone(), all[1].clone(), all[2].clone());
    let q = queued["id"].as_str().unwrap().to_string();
    for (query, wanted) in [
        ("?disk_format=raw".to_string(), vec![&a]),
        ("?container_format=bare&sort=size:asc".into(), vec![&a, &c, &b]),
        ("?status=active&sort_key=size&sort_dir=desc".into(), vec![&b, &c, &a]),
        ("?size=20".into(), vec![&c]),
        ("?size_min=15&size_max=25".into(), vec![&c]),
        ("?visibility=private&sort=name:asc".into(), vec![&a, &b, &c]),
        ("?visibility=shared".into(), vec![&q]),
        ("?status=queued".into(), vec![&q]),
        ("?tag=all&tag=t1".into(), vec![&b]),
        ("?speed=2".into(), vec![&c]),
        ("?name=in:n0,n2&sort=name".into(), vec![&c, &a]),
        (format!("?id=in%3A{a}"), vec![&a]),
        ("?name=n".into(), vec![]),
        ("?os_hidden=true".into(), vec![]),
        ("?protected=false&name=n0".into(), vec![&a]),
        ("?created_at=gte:2001-01-01T00:00:00Z&name=n0".into(), vec![&a]),
        ("?created_at=lt:2001-01-01T00:00:00Z".into(), vec![]),
        ("?limit=0".into(), vec![]),
    ] {
        let found = ids(&cloud, &member, &query).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), wanted, "{query}");
    }
    for wrong in [
        "?limit=-1",
        "?limit=x",
        "?marker=00eab414-c603-45f2-88a5-f9ee19f393ef",
        "?sort_key=x",
        "?sort_dir=up",
        "?visibility=x",
        "?member_status=x",
        "?size_min=x",
        "?sort=name&sort_key=id",
        "?created_at=x",
    ] {
        assert_eq!(cloud.get(&member, &format!("{IMAGES}{wrong}")).await.status.as_u16(), 400, "{wrong}");
    }
}

#[tokio::test]
async fn lists_come_in_pages() {
    let cloud = Cloud::open().await;
    let member = cloud.as_role("member").await;
    for name in ["n0", "n1", "n2", "q"] {
        made(&cloud, &member, json!({"name": name})).await;
    }
    let first = cloud.get(&member, &format!("{IMAGES}?limit=3&sort=name:asc")).await.expect(200);
    assert_eq!(first["first"], "/v2/images?limit=3&sort=name%3Aasc");
    assert_eq!(first["schema"], "/v2/schemas/images");
    let next = first["next"].as_str().unwrap();
    assert!(next.starts_with("/v2/images?limit=3&"), "{next}");
    let last = cloud.get(&member, &format!("/image{next}")).await.expect(200);
    assert_eq!(last["images"][0]["name"], "q");
    assert!(last.get("next").is_none());
    // A page has 25 when nobody asks for more.
    for n in 0..25 {
        made(&cloud, &member, json!({"name": format!("more{n}")})).await;
    }
    assert_eq!(ids(&cloud, &member, "").await.len(), 25);
    assert_eq!(ids(&cloud, &member, "?limit=100").await.len(), 29);
}

#[tokio::test]
async fn members_answer_and_see() {
    let cloud = Cloud::open().await;
    let owner = cloud.as_role("member").await;
    let control = &cloud.house.control;
    let root = cloud.house.caller(control::Role::Admin);
    control.create_project(&root, "other", "", Default::default()).await.unwrap();
    let project = control.find_project(&root, "other").unwrap().record.meta.id;
    let other = cloud.as_role_in("member", project).await;
    let image = made(&cloud, &owner, json!({"name": "s"})).await;
    let id = image["id"].as_str().unwrap().to_string();
    assert_eq!(cloud.get(&other, &path(&image, "")).await.status.as_u16(), 404);
    let body = json!({"member": project.hex()});
    let shared = cloud.post(&owner, &path(&image, "/members"), &body).await.expect(200);
    assert_eq!(
        keys(&shared),
        BTreeSet::from(["image_id", "member_id", "status", "created_at", "updated_at", "schema"])
    );
    assert_eq!((&shared["status"], &shared["member_id"]), (&json!("pending"), &json!(project.hex())));
    assert_eq!(cloud.post(&owner, &path(&image, "/members"), &body).await.status.as_u16(), 409);
    assert_eq!(ids(&cloud, &other, "").await, Vec::<String>::new());
    assert_eq!(ids(&cloud, &other, "?member_status=pending&visibility=shared").await, [id.as_str()]);
    let member = path(&image, &format!("/members/{}", project.hex()));
    let set = async |token: &str, status: &str| {
        cloud.send(Method::PUT, token, &member, &json!({"status": status})).await
    };
    assert_eq!(set(&owner, "accepted").await.status.as_u16(), 403);
    assert_eq!(set(&other, "maybe").await.status.as_u16(), 400);
    assert_eq!(set(&other, "accepted").await.expect(200)["status"], "accepted");
    assert_eq!(ids(&cloud, &other, "").await, [id.as_str()]);
    assert_eq!(cloud.get(&other, &member).await.expect(200)["status"], "accepted");
    let list = cloud.get(&owner, &path(&image, "/members")).await.expect(200);
    assert_eq!(
        (list["members"].as_array().unwrap().len(), &list["schema"]),
        (1, &json!("/v2/schemas/members"))
    );
    // Members look and use; they change nothing.
    assert_eq!(cloud.delete(&other, &path(&image, "")).await.status.as_u16(), 403);
    assert_eq!(cloud.delete(&other, &member).await.status.as_u16(), 403);
    assert_eq!(set(&other, "rejected").await.expect(200)["status"], "rejected");
    assert_eq!(ids(&cloud, &other, "").await, Vec::<String>::new());
    cloud.delete(&owner, &member).await.expect(204);
    assert_eq!(cloud.delete(&owner, &member).await.status.as_u16(), 404);
    assert_eq!(cloud.get(&other, &path(&image, "")).await.status.as_u16(), 404);
    let private = made(&cloud, &owner, json!({"visibility": "private"})).await;
    assert_eq!(cloud.post(&owner, &path(&private, "/members"), &body).await.status.as_u16(), 403);
    // The community's images are found by their id, and listed where asked for.
    let community = made(&cloud, &owner, json!({"visibility": "community"})).await;
    cloud.get(&other, &path(&community, "")).await.expect(200);
    assert_eq!(ids(&cloud, &other, "").await, Vec::<String>::new());
    assert_eq!(ids(&cloud, &other, "?visibility=community").await, [community["id"].as_str().unwrap()]);
}

#[tokio::test]
async fn tags_protection_and_withdrawal() {
    let cloud = Cloud::open().await;
    let member = cloud.as_role("member").await;
    let image =
        made(&cloud, &member, json!({"disk_format": "raw", "container_format": "bare", "protected": true}))
            .await;
    let call = async |method: Method, rest: &str| {
        cloud.call(method, &path(&image, rest), &member, &[], Body::empty()).await.status.as_u16()
    };
    assert_eq!(call(Method::PUT, "/tags/x").await, 204);
    assert_eq!(cloud.get(&member, &path(&image, "")).await.expect(200)["tags"], json!(["x"]));
    assert_eq!(call(Method::DELETE, "/tags/x").await, 204);
    assert_eq!(call(Method::DELETE, "/tags/x").await, 404);
    let none = json!({"id": "00eab414-c603-45f2-88a5-f9ee19f393ef"});
    assert_eq!(
        cloud.call(Method::PUT, &path(&none, "/tags/x"), &member, &[], Body::empty()).await.status.as_u16(),
        404
    );
    assert_eq!(call(Method::POST, "/actions/deactivate").await, 403);
    put_bytes(&cloud, &member, &path(&image, "/file"), b"x").await.expect(204);
    assert_eq!(call(Method::POST, "/actions/deactivate").await, 204);
    assert_eq!(cloud.get(&member, &path(&image, "")).await.expect(200)["status"], "deactivated");
    assert_eq!(call(Method::GET, "/file").await, 403);
    assert_eq!(cloud.get(&cloud.admin, &path(&image, "/file")).await.status.as_u16(), 200);
    assert_eq!(call(Method::POST, "/actions/reactivate").await, 204);
    assert_eq!(call(Method::GET, "/file").await, 200);
    assert_eq!(call(Method::DELETE, "").await, 403);
    patch(&cloud, &member, &image, json!([{"op": "replace", "path": "/protected", "value": false}]))
        .await
        .expect(200);
    assert_eq!(call(Method::DELETE, "").await, 204);
}

#[tokio::test]
async fn imports_are_asked_for_and_told_of() {
    let cloud = Cloud::open().await;
    let member = cloud.as_role("member").await;
    let ways = cloud.get(&member, "/image/v2/info/import").await.expect(200);
    assert_eq!(ways["import-methods"]["value"], json!(["glance-direct"]));
    assert_eq!(cloud.get(&member, "/image/v2/info/stores").await.status.as_u16(), 404);
    let image = made(&cloud, &member, json!({"disk_format": "raw", "container_format": "bare"})).await;
    let import = async |name: &str| {
        let body = json!({"method": {"name": name}});
        cloud.post(&member, &path(&image, "/import"), &body).await
    };
    assert_eq!(import("glance-direct").await.status.as_u16(), 409);
    assert_eq!(import("web-download").await.status.as_u16(), 400);
    put_bytes(&cloud, &member, &path(&image, "/stage"), b"12345").await.expect(204);
    let status = async || cloud.get(&member, &path(&image, "")).await.expect(200)["status"].clone();
    assert_eq!(status().await, "uploading");
    assert_eq!(put_bytes(&cloud, &member, &path(&image, "/file"), b"x").await.status.as_u16(), 409);
    let asked = import("glance-direct").await;
    assert_eq!(asked.status.as_u16(), 202);
    assert_eq!(status().await, "importing");
    let task = async || cloud.get(&member, &path(&image, "/tasks")).await.expect(200)["tasks"][0].clone();
    let pending = task().await;
    assert_eq!(pending["status"], "pending");
    assert_eq!(pending["request_id"], asked.headers["x-openstack-request-id"].to_str().unwrap());
    assert_eq!(pending["input"]["import_req"]["method"]["name"], "glance-direct");
    let fault = Fault {
        code: Code::Invalid,
        message: "no disk".into(),
        hint: String::new(),
        since: jiff::Timestamp::now(),
    };
    seen(&cloud, &image, ImageState::Failed(fault)).await;
    assert_eq!((status().await, task().await["status"].clone()), (json!("queued"), json!("failure")));
    seen(&cloud, &image, ImageState::Ready(ImageContent::default())).await;
    assert_eq!((status().await, task().await["status"].clone()), (json!("active"), json!("success")));
    let id = image["id"].as_str().unwrap();
    cloud.get(&cloud.admin, &format!("/image/v2/tasks/{id}")).await.expect(200);
    assert_eq!(cloud.get(&member, "/image/v2/tasks").await.status.as_u16(), 403);
}

#[tokio::test]
async fn schemas_and_further_documents() {
    let cloud = Cloud::open().await;
    let member = cloud.as_role("member").await;
    for name in ["image", "images", "member", "members", "task", "tasks"] {
        let schema = cloud.get(&member, &format!("/image/v2/schemas/{name}")).await.expect(200);
        assert_eq!(schema["name"], name);
    }
    let images = cloud.get(&member, "/image/v2/schemas/images").await.expect(200);
    let image = cloud.get(&member, "/image/v2/schemas/image").await.expect(200);
    assert_eq!(images["properties"]["images"]["items"], image);
    // Whatever an image shows is in the schema.
    let shown = made(&cloud, &member, json!({})).await;
    for key in keys(&shown) {
        assert!(image["properties"].get(key).is_some(), "{key}");
    }
    assert_eq!(cloud.get(&member, "/image/v2/schemas/nothing").await.status.as_u16(), 404);
    cloud.get(&member, "/image/v2/metadefs/namespaces").await.expect(200);
    let usage = cloud.get(&member, "/image/v2/info/usage").await.expect(200);
    assert_eq!(usage["usage"]["image_count_total"]["usage"], 1);
}

#[tokio::test]
async fn a_root_of_system_containers_is_told_by_its_property() {
    let cloud = Cloud::open().await;
    let member = cloud.as_role("member").await;
    let kind = |image: &Value| {
        let id: ImageId = image["id"].as_str().unwrap().parse().unwrap();
        cloud.house.control.get::<Image>(id).unwrap().record.kind
    };
    let formats = |word: &str| json!({"name": "root", "disk_format": "raw", "container_format": "bare", "hypervisor_type": word});
    for (word, wanted) in [("lxc", ImageKind::System), ("lxd", ImageKind::System), ("qemu", ImageKind::Disk)]
    {
        let image = made(&cloud, &member, formats(word)).await;
        assert_eq!((kind(&image), &image["hypervisor_type"]), (wanted, &json!(word)));
    }
    let image = made(&cloud, &member, formats("lxc")).await;
    let remove = json!([{"op": "remove", "path": "/hypervisor_type"}]);
    let disk = patch(&cloud, &member, &image, remove.clone()).await.expect(200);
    assert_eq!((kind(&image), &disk["hypervisor_type"]), (ImageKind::Disk, &Value::Null));
    let add = json!([{"op": "add", "path": "/hypervisor_type", "value": "lxc"}]);
    patch(&cloud, &member, &image, add).await.expect(200);
    assert_eq!(kind(&image), ImageKind::System);
    // What it is stays so once its bytes are there.
    put_bytes(&cloud, &member, &path(&image, "/file"), b"0123456789").await.expect(204);
    patch(&cloud, &member, &image, remove).await.expect(200);
    let shown = cloud.get(&member, &path(&image, "")).await.expect(200);
    assert_eq!((kind(&image), &shown["hypervisor_type"]), (ImageKind::System, &json!("lxc")));
    // A container image is none, whatever else is said of it.
    let docker =
        json!({"name": "oci", "disk_format": "raw", "container_format": "docker", "hypervisor_type": "lxc"});
    assert_eq!(kind(&made(&cloud, &member, docker).await), ImageKind::Oci);
}
