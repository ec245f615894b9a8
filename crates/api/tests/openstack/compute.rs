//! Compute: what Nova's clients send, and replies in the form that they check.

mod consoles;
mod disks;
mod flavors;
mod keypairs;
mod rescue;
mod server_groups;
mod shelve;

use crate::cloud::{Cloud, Reply};
use axum::{body::Body, http::Method};
use jiff::Timestamp;
use model::{
    image::{ImageContent, ImageState, ImageStatus},
    instance::State,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use store::Tx;

/// A cloud with an image, and a member of its project.
struct Lab {
    cloud: Cloud,
    member: String,
    image: String,
    flavor: String,
    network: String,
}

impl Lab {
    async fn open() -> Self {
        let cloud = Cloud::open().await;
        let member = cloud.as_role("member").await;
        let image = ready_image(&cloud).await;
        let flavors = cloud.get(&member, "/compute/v2.1/flavors").await.expect(200);
        let named = |name: &str| {
            let all = flavors["flavors"].as_array().unwrap();
            let found = all.iter().find(|f| f["name"] == name).unwrap();
            found["id"].as_str().unwrap().to_string()
        };
        let flavor = named("g1.c1m512");
        let caller = cloud.house.caller(control::Role::Member);
        let network = cloud.house.control.own_network(&caller).unwrap().record.meta.id.to_string();
        Self { cloud, member, image, flavor, network }
    }

    async fn at(&self, method: Method, token: &str, version: &str, path: &str, body: &Value) -> Reply {
        let versions = [
            ("content-type", "application/json"),
            ("openstack-api-version", &format!("compute {version}")),
            ("x-openstack-nova-api-version", version),
        ];
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.cloud.call(method, &format!("/compute/v2.1{path}"), token, &versions, body).await
    }

    async fn get(&self, version: &str, path: &str) -> Value {
        self.at(Method::GET, &self.member, version, path, &Value::Null).await.expect(200)
    }

    async fn post(&self, version: &str, path: &str, body: Value) -> Reply {
        self.at(Method::POST, &self.member, version, path, &body).await
    }

    fn order(&self, name: &str) -> Value {
        json!({ "server": {
            "name": name, "imageRef": self.image, "flavorRef": self.flavor,
            "networks": [{ "uuid": self.network }],
        } })
    }

    async fn boot(&self, name: &str) -> String {
        let made = self.post("2.1", "/servers", self.order(name)).await.expect(202);
        made["server"]["id"].as_str().unwrap().to_string()
    }

    async fn run(&self, id: &str) {
        self.cloud.house.seen(id.parse().unwrap(), State::Running { since: Timestamp::now() }).await;
    }

    async fn running(&self, name: &str) -> String {
        let id = self.boot(name).await;
        self.run(&id).await;
        id
    }

    async fn status(&self, id: &str) -> String {
        let shown = self.get("2.1", &format!("/servers/{id}")).await;
        shown["server"]["status"].as_str().unwrap().to_string()
    }

    async fn act(&self, id: &str, action: Value) -> Reply {
        self.post("2.1", &format!("/servers/{id}/action"), action).await
    }

    async fn listed(&self, query: &str) -> Vec<String> {
        let shown = self.get("2.96", &format!("/servers{query}")).await;
        let names = shown["servers"].as_array().unwrap().iter();
        names.map(|s| s["name"].as_str().unwrap().to_string()).collect()
    }
}

async fn ready_image(cloud: &Cloud) -> String {
    let control = &cloud.house.control;
    let caller = cloud.house.caller(control::Role::Member);
    let new = control::image::NewImage {
        name: "debian".into(),
        kind: model::image::ImageKind::Disk,
        reference: None,
        ..control::image::NewImage::from_registry("x")
    };
    let image = control.create_image(&caller, new).await.unwrap();
    let content = ImageContent {
        digest: format!("sha256:{}", "0".repeat(64)),
        size_bytes: 1,
        virtual_bytes: 1 << 30,
        format: Some(model::plan::DiskFormat::Qcow2),
        ..ImageContent::default()
    };
    let mut tx = Tx::new();
    tx.put(&ImageStatus {
        id: image.meta.id,
        node: cloud.house.node,
        state: ImageState::Ready(content),
        asked: 0,
        stale: None,
        at: Timestamp::now(),
    });
    control.store().commit(tx).await.unwrap();
    image.meta.id.to_string()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

/// Keys of the recorded reply of a real cloud.
fn recorded(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_server_has_the_fields_of_its_microversion_and_no_others() {
    let lab = Lab::open().await;
    let id = lab.running("one").await;
    let admin = |version: &'static str| {
        let path = format!("/servers/{id}");
        let lab = &lab;
        async move { lab.at(Method::GET, &lab.cloud.admin, version, &path, &Value::Null).await.expect(200) }
    };
    // The fields of a server as a real cloud of the year 2026 shows them to an admin.
    let old = recorded(include_str!("golden/server_21.json"));
    assert_eq!(keys(&admin("2.1").await["server"]), keys(&old["server"]));
    let new = recorded(include_str!("golden/server_2100.json"));
    let mut wanted = keys(&new["server"]);
    // What came after 2.96.
    wanted.remove("scheduler_hints");
    let shown = admin("2.96").await;
    assert_eq!(keys(&shown["server"]), wanted);
    assert_eq!(keys(&shown["server"]["flavor"]), keys(&new["server"]["flavor"]));
    assert_eq!(shown["server"]["flavor"]["ram"], 512);
    assert_eq!(
        (&shown["server"]["status"], &shown["server"]["OS-EXT-STS:power_state"]),
        (&json!("ACTIVE"), &json!(1))
    );
    let addresses = shown["server"]["addresses"].as_object().unwrap();
    let first = &addresses.values().next().unwrap()[0];
    assert_eq!(keys(first), keys(&old["server"]["addresses"]["public"][0]));
    // Others see no hosts.
    let plain = lab.get("2.96", &format!("/servers/{id}")).await;
    let hidden: Vec<_> = keys(&shown["server"]).difference(&keys(&plain["server"])).cloned().collect();
    assert!(hidden.contains(&"OS-EXT-SRV-ATTR:host".to_string()) && hidden.contains(&"host_status".into()));
    // The native door has the same instance.
    let native: api::v1::types::instance::Instance = lab.cloud.house.client.get(&id).await.unwrap();
    assert_eq!(native.head.name, "one");
}

#[tokio::test]
async fn replies_name_their_version_and_unknown_ones_are_not_acceptable() {
    let lab = Lab::open().await;
    let reply = lab.at(Method::GET, &lab.member, "2.26", "/servers", &Value::Null).await;
    assert_eq!(reply.headers["openstack-api-version"], "compute 2.26");
    assert_eq!(reply.headers["x-openstack-nova-api-version"], "2.26");
    assert_eq!(reply.headers.get_all("vary").iter().count(), 2);
    let wrong = lab.at(Method::GET, &lab.member, "2.999", "/servers", &Value::Null).await.expect(406);
    assert_eq!(wrong["computeFault"]["code"], 406);
    let missing = lab.at(Method::GET, &lab.member, "2.1", "/servers/nope", &Value::Null).await.expect(404);
    assert_eq!(missing["itemNotFound"]["message"], "Instance nope could not be found.");
}

#[tokio::test]
async fn wrong_orders_are_refused_before_anything_is_made() {
    let lab = Lab::open().await;
    for (field, value) in [
        ("name", json!("")),
        ("name", json!(12345)),
        ("name", json!("x".repeat(256))),
        ("flavorRef", json!("-1")),
        ("imageRef", json!("-1")),
        ("networks", json!([{ "uuid": "a-b-c" }])),
        ("networks", json!("auto")),
        ("key_name", json!("nokey")),
        ("accessIPv6", json!("notvalid")),
        ("metadata", json!({ "a": "b".repeat(260) })),
        ("security_groups", json!([{ "name": "none" }])),
        ("min_count", json!(0)),
        ("user_data", json!("!")),
        ("unheard_of", json!(1)),
        ("tags", json!(["a"])),
    ] {
        let mut order = lab.order("x");
        order["server"][field] = value.clone();
        let refused = lab.post("2.1", "/servers", order).await;
        assert_eq!(refused.status, 400, "{field} {value}: {}", refused.text());
    }
    assert!(lab.listed("").await.is_empty());
}

#[tokio::test]
async fn several_are_made_by_one_call_or_none() {
    let lab = Lab::open().await;
    let mut order = lab.order("web");
    order["server"]["min_count"] = json!(2);
    let made = lab.post("2.1", "/servers", order.clone()).await.expect(202);
    assert_eq!(
        keys(&made["server"]),
        ["OS-DCF:diskConfig", "adminPass", "id", "links", "security_groups"].map(String::from).into()
    );
    assert_eq!(lab.listed("?sort_key=display_name&sort_dir=asc").await, ["web-1", "web-2"]);
    order["server"]["name"] = json!("more");
    order["server"]["min_count"] = json!(100);
    let refused = lab.post("2.1", "/servers", order).await.expect(403);
    assert_eq!(refused["forbidden"]["code"], 403);
    let left = lab.listed("?name=more").await;
    for name in &left {
        // What had been made is on its way out.
        let shown = lab.get("2.1", &format!("/servers/detail?name={name}$")).await;
        assert_eq!(shown["servers"][0]["OS-EXT-STS:task_state"], "deleting");
    }
}

#[tokio::test]
async fn lists_are_filtered_sorted_and_paged() {
    let lab = Lab::open().await;
    for name in ["alpha", "beta", "gamma"] {
        lab.boot(name).await;
    }
    let beta = lab.get("2.1", "/servers?name=beta").await["servers"][0]["id"].as_str().unwrap().to_string();
    lab.run(&beta).await;
    let later = "2051-01-01T12:34:00Z";
    for (query, names) in [
        ("", vec!["gamma", "beta", "alpha"]),
        ("?name=a$", vec!["gamma", "beta", "alpha"]),
        ("?name=^ALPHA", vec!["alpha"]),
        ("?name=none", vec![]),
        ("?status=ACTIVE", vec!["beta"]),
        ("?status=active&status=BUILD", vec!["gamma", "beta", "alpha"]),
        ("?status=NOSUCH", vec![]),
        (&format!("?flavor={}", lab.flavor), vec!["gamma", "beta", "alpha"]),
        ("?flavor=1234", vec![]),
        (&format!("?image={}", lab.image), vec!["gamma", "beta", "alpha"]),
        ("?image=1234", vec![]),
        ("?ip=10", vec!["gamma", "beta", "alpha"]),
        ("?ip=192.0.2", vec![]),
        ("?limit=1", vec!["gamma"]),
        (&format!("?limit=1&marker={beta}"), vec!["alpha"]),
        ("?limit=100000", vec!["gamma", "beta", "alpha"]),
        ("?sort_key=display_name&sort_dir=asc", vec!["alpha", "beta", "gamma"]),
        (&format!("?changes-since={later}"), vec![]),
        ("?vm_state=building", vec!["gamma", "alpha"]),
        ("?unheard_of=1", vec!["gamma", "beta", "alpha"]),
    ] {
        assert_eq!(lab.listed(query).await, names, "{query}");
    }
    for query in
        ["?limit=-1", "?limit=a", "?changes-since=2011/01/01", "?name=(", "?sort_key=nope", "?marker=x"]
    {
        let refused =
            lab.at(Method::GET, &lab.member, "2.1", &format!("/servers{query}"), &Value::Null).await;
        assert_eq!(refused.status, 400, "{query}: {}", refused.text());
    }
    let page = lab.get("2.1", "/servers/detail?limit=2").await;
    let next = page["servers_links"][0]["href"].as_str().unwrap();
    assert!(next.starts_with("http://cloud:5000/compute/v2.1/servers/detail?limit=2&marker="), "{next}");
    let all = lab.at(Method::GET, &lab.member, "2.1", "/servers?all_tenants=1", &Value::Null).await;
    assert_eq!(all.status, 403);
    let seen = lab
        .at(Method::GET, &lab.cloud.admin, "2.1", "/servers?all_tenants=1", &Value::Null)
        .await
        .expect(200);
    assert_eq!(seen["servers"].as_array().unwrap().len(), 3);
    lab.at(Method::GET, &lab.cloud.admin, "2.1", "/servers", &Value::Null).await.expect(200);
}

#[tokio::test]
async fn actions_are_allowed_in_the_states_that_nova_allows() {
    let lab = Lab::open().await;
    let id = lab.running("one").await;
    let cases = [
        (json!({ "os-start": null }), 409, "ACTIVE"),
        (json!({ "unpause": null }), 409, "ACTIVE"),
        (json!({ "confirmResize": null }), 409, "ACTIVE"),
        (json!({ "reboot": { "type": "WARM" } }), 400, "ACTIVE"),
        (json!({ "resize": { "flavorRef": null } }), 400, "ACTIVE"),
        (json!({ "resize": { "flavorRef": "nope" } }), 400, "ACTIVE"),
        (json!({ "dance": null }), 400, "ACTIVE"),
        (json!({ "os-migrateLive": {} }), 403, "ACTIVE"),
        (json!({}), 400, "ACTIVE"),
        (json!({ "lock": null }), 202, "ACTIVE"),
        (json!({ "os-stop": null }), 409, "ACTIVE"),
        (json!({ "unlock": null }), 202, "ACTIVE"),
        (json!({ "reboot": { "type": "HARD" } }), 202, "HARD_REBOOT"),
    ];
    for (action, status, after) in cases {
        let reply = lab.act(&id, action.clone()).await;
        assert_eq!(reply.status, status, "{action}: {}", reply.text());
        assert_eq!(lab.status(&id).await, after, "{action}");
    }
    lab.run(&id).await;
    lab.act(&id, json!({ "pause": null })).await.expect(202);
    lab.cloud.house.seen(id.parse().unwrap(), State::Paused { since: Timestamp::now() }).await;
    assert_eq!(lab.status(&id).await, "PAUSED");
    let log = lab.act(&id, json!({ "os-getConsoleOutput": { "length": 1 } })).await.expect(200);
    assert_eq!(log["output"], "login:\n");
    let missing = lab.act("0b2a7a80-30b5-4b5c-a2a5-5f1b3f4a4b5c", json!({ "os-stop": null })).await;
    assert_eq!(missing.status, 404);
}

#[tokio::test]
async fn a_resize_is_verified_before_it_counts() {
    let lab = Lab::open().await;
    let id = lab.running("one").await;
    let flavors = lab.get("2.1", "/flavors/detail").await;
    let all = flavors["flavors"].as_array().unwrap();
    let larger = all.iter().find(|f| f["name"] == "g2.c1m2g").unwrap()["id"].clone();
    for (end, flavor, status) in
        [("revertResize", json!(lab.flavor), 202), ("confirmResize", larger.clone(), 204)]
    {
        lab.act(&id, json!({ "resize": { "flavorRef": larger } })).await.expect(202);
        assert_eq!(lab.status(&id).await, "RESIZE");
        lab.run(&id).await;
        assert_eq!(lab.status(&id).await, "VERIFY_RESIZE");
        assert_eq!(lab.act(&id, json!({ "os-stop": null })).await.status, 409);
        lab.act(&id, json!({ end: null })).await.expect(status);
        lab.run(&id).await;
        let shown = lab.get("2.1", &format!("/servers/{id}")).await;
        assert_eq!(
            (&shown["server"]["status"], &shown["server"]["flavor"]["id"]),
            (&json!("ACTIVE"), &flavor)
        );
    }
}

#[tokio::test]
async fn a_rebuilt_server_keeps_its_addresses() {
    let lab = Lab::open().await;
    let id = lab.running("one").await;
    let before = lab.get("2.1", &format!("/servers/{id}")).await;
    let order = json!({ "rebuild": {
        "imageRef": lab.image, "name": "two", "metadata": { "rebuild": "server" }, "adminPass": "rebuildPassword",
    } });
    let reply = lab.act(&id, order).await;
    let shown = reply.expect(202);
    assert_eq!(
        (&shown["server"]["name"], &shown["server"]["adminPass"]),
        (&json!("two"), &json!("rebuildPassword"))
    );
    assert_eq!(
        (&shown["server"]["status"], &shown["server"]["image"]["id"]),
        (&json!("REBUILD"), &json!(lab.image))
    );
    assert!(shown["server"].get("OS-EXT-STS:vm_state").is_none(), "before 2.75 a rebuild tells less");
    lab.run(&id).await;
    let after = lab.get("2.1", &format!("/servers/{id}")).await;
    assert_eq!(after["server"]["addresses"], before["server"]["addresses"]);
    assert_eq!(
        (&after["server"]["metadata"], &after["server"]["status"]),
        (&json!({ "rebuild": "server" }), &json!("ACTIVE"))
    );
}

#[tokio::test]
async fn words_on_a_server_are_set_and_taken_away() {
    let lab = Lab::open().await;
    let id = lab.running("one").await;
    let call = |method: Method, version: &'static str, path: String, body: Value| {
        let lab = &lab;
        async move { lab.at(method, &lab.member, version, &path, &body).await }
    };
    let tags = format!("/servers/{id}/tags");
    assert_eq!(call(Method::GET, "2.1", tags.clone(), Value::Null).await.status, 404, "tags came with 2.26");
    let added = call(Method::PUT, "2.26", format!("{tags}/blue"), Value::Null).await;
    assert_eq!(added.status, 201);
    assert!(added.headers["location"].to_str().unwrap().ends_with("/tags/blue"));
    assert_eq!(call(Method::PUT, "2.26", format!("{tags}/blue"), Value::Null).await.status, 204);
    assert_eq!(call(Method::GET, "2.26", format!("{tags}/blue"), Value::Null).await.status, 204);
    assert_eq!(call(Method::GET, "2.26", format!("{tags}/red"), Value::Null).await.status, 404);
    let all = call(Method::PUT, "2.26", tags.clone(), json!({ "tags": ["a", "b"] })).await.expect(200);
    assert_eq!(all, json!({ "tags": ["a", "b"] }));
    for (query, found) in
        [("?tags=a,b", true), ("?tags=a,c", false), ("?tags-any=a,c", true), ("?not-tags-any=b", false)]
    {
        assert_eq!(!lab.listed(query).await.is_empty(), found, "{query}");
    }
    assert_eq!(call(Method::DELETE, "2.26", tags.clone(), Value::Null).await.status, 204);
    assert_eq!(call(Method::GET, "2.26", tags, Value::Null).await.expect(200), json!({ "tags": [] }));

    let labels = format!("/servers/{id}/metadata");
    call(Method::POST, "2.1", labels.clone(), json!({ "metadata": { "a": "1", "b": "2" } }))
        .await
        .expect(200);
    call(Method::PUT, "2.1", format!("{labels}/a"), json!({ "meta": { "a": "3" } })).await.expect(200);
    assert_eq!(
        call(Method::PUT, "2.1", format!("{labels}/a"), json!({ "meta": { "b": "3" } })).await.status,
        400
    );
    assert_eq!(call(Method::DELETE, "2.1", format!("{labels}/b"), Value::Null).await.status, 204);
    assert_eq!(call(Method::GET, "2.1", format!("{labels}/b"), Value::Null).await.status, 404);
    let left = call(Method::GET, "2.1", labels, Value::Null).await.expect(200);
    assert_eq!(left, json!({ "metadata": { "a": "3" } }));
    let path = format!("/servers/{id}");
    let changed = call(
        Method::PUT,
        "2.1",
        path.clone(),
        json!({ "server": { "name": "new", "accessIPv4": "192.0.2.7" } }),
    )
    .await;
    assert_eq!(changed.expect(200)["server"]["accessIPv4"], "192.0.2.7");
    for name in ["".to_string(), "x".repeat(256)] {
        assert_eq!(
            call(Method::PUT, "2.1", path.clone(), json!({ "server": { "name": name } })).await.status,
            400
        );
    }
}

#[tokio::test]
async fn keys_are_imported_or_made_and_told_once() {
    let lab = Lab::open().await;
    let path = "/os-keypairs";
    let made = lab.post("2.1", path, json!({ "keypair": { "name": "k" } })).await.expect(200);
    assert!(
        made["keypair"]["private_key"].as_str().unwrap().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----")
    );
    let x509 = lab.post("2.2", path, json!({ "keypair": { "name": "w", "type": "x509" } })).await.expect(201);
    assert!(x509["keypair"]["public_key"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(x509["keypair"]["type"], "x509");
    let shown = lab.get("2.2", "/os-keypairs/w").await;
    assert_eq!(
        keys(&shown["keypair"]),
        [
            "created_at",
            "deleted",
            "deleted_at",
            "fingerprint",
            "id",
            "name",
            "public_key",
            "type",
            "updated_at",
            "user_id"
        ]
        .map(String::from)
        .into()
    );
    let listed = lab.get("2.1", path).await;
    assert_eq!(
        keys(&listed["keypairs"][0]["keypair"]),
        ["fingerprint", "name", "public_key"].map(String::from).into()
    );
    assert_eq!(lab.post("2.92", path, json!({ "keypair": { "name": "n" } })).await.status, 400);
    assert_eq!(
        lab.post("2.1", path, json!({ "keypair": { "name": "k", "public_key": crate::house::KEY } }))
            .await
            .status,
        409
    );
    let mut order = lab.order("one");
    order["server"]["key_name"] = json!("k");
    let id = lab.post("2.1", "/servers", order).await.expect(202)["server"]["id"].clone();
    let shown = lab.get("2.1", &format!("/servers/{}", id.as_str().unwrap())).await;
    assert_eq!(shown["server"]["key_name"], "k");
    assert_eq!(lab.at(Method::DELETE, &lab.member, "2.1", "/os-keypairs/k", &Value::Null).await.status, 202);
    assert_eq!(lab.at(Method::DELETE, &lab.member, "2.2", "/os-keypairs/w", &Value::Null).await.status, 204);
    assert_eq!(lab.at(Method::GET, &lab.member, "2.2", "/os-keypairs/w", &Value::Null).await.status, 404);
}

#[tokio::test]
async fn figures_have_the_names_of_their_microversion() {
    let lab = Lab::open().await;
    lab.running("one").await;
    let project = lab.cloud.house.caller(control::Role::Member).project.hex();
    for (version, count) in [("2.1", 15), ("2.36", 11), ("2.57", 8)] {
        let shown = lab.get(version, &format!("/os-quota-sets/{project}")).await;
        assert_eq!(shown["quota_set"].as_object().unwrap().len(), count, "{version}");
        assert_eq!(shown["quota_set"]["cores"], 100);
        let detail = lab.get(version, &format!("/os-quota-sets/{project}/detail")).await;
        assert_eq!(detail["quota_set"]["instances"], json!({ "limit": 50, "in_use": 1, "reserved": 0 }));
        lab.get(version, &format!("/os-quota-sets/{project}/defaults")).await;
    }
    let recorded_set = recorded(include_str!("golden/nova_quota.json"));
    let shown = lab.get("2.1", &format!("/os-quota-sets/{project}")).await;
    assert_eq!(keys(&shown["quota_set"]), keys(&recorded_set["quota_set"]));
    let limits = lab.get("2.1", "/limits").await;
    let recorded_limits = recorded(include_str!("golden/nova_limits.json"));
    assert_eq!(keys(&limits["limits"]["absolute"]), keys(&recorded_limits["limits"]["absolute"]));
    let change = json!({ "quota_set": { "cores": 7 } });
    let path = format!("/os-quota-sets/{project}");
    assert_eq!(lab.at(Method::PUT, &lab.member, "2.1", &path, &change).await.status, 403);
    let changed = lab.at(Method::PUT, &lab.cloud.admin, "2.1", &path, &change).await.expect(200);
    assert_eq!((&changed["quota_set"]["cores"], changed["quota_set"].get("id")), (&json!(7), None));
    let flavors = lab.get("2.1", "/flavors/detail").await;
    let recorded_flavors = recorded(include_str!("golden/flavors_21.json"));
    assert_eq!(keys(&flavors["flavors"][0]), keys(&recorded_flavors["flavors"][0]));
    let flavors = lab.get("2.61", "/flavors/detail").await;
    let recorded_flavors = recorded(include_str!("golden/flavors_261.json"));
    assert_eq!(keys(&flavors["flavors"][0]), keys(&recorded_flavors["flavors"][0]));
    let zones = lab.get("2.1", "/os-availability-zone").await;
    assert_eq!(zones, recorded(include_str!("golden/nova_az.json")));
}

#[tokio::test]
async fn what_was_asked_of_a_server_is_told_with_its_request() {
    let lab = Lab::open().await;
    let order = lab.post("2.1", "/servers", lab.order("one")).await;
    let request = order.headers["x-compute-request-id"].to_str().unwrap().to_string();
    let id = order.expect(202)["server"]["id"].as_str().unwrap().to_string();
    let first = format!("/servers/{id}/os-instance-actions/{request}");
    let begun = lab.get("2.1", &first).await["instanceAction"]["events"][0].clone();
    assert_eq!((&begun["finish_time"], &begun["result"]), (&Value::Null, &Value::Null), "it is under way");
    lab.run(&id).await;
    let done = lab.get("2.1", &first).await["instanceAction"]["events"][0].clone();
    assert!(done["finish_time"].is_string(), "{done}");
    lab.act(&id, json!({ "reboot": { "type": "HARD" } })).await.expect(202);
    let all = lab.get("2.1", &format!("/servers/{id}/os-instance-actions")).await;
    let words: BTreeSet<&str> =
        all["instanceActions"].as_array().unwrap().iter().map(|a| a["action"].as_str().unwrap()).collect();
    assert_eq!(words, ["create", "reboot"].into());
    let one = lab.get("2.1", &format!("/servers/{id}/os-instance-actions/{request}")).await;
    assert_eq!(
        (&one["instanceAction"]["action"], &one["instanceAction"]["instance_uuid"]),
        (&json!("create"), &json!(id))
    );
    assert_eq!(one["instanceAction"]["events"][0]["result"], "Success");
}

#[tokio::test]
async fn volumes_and_interfaces_come_and_go() {
    let lab = Lab::open().await;
    let id = lab.running("one").await;
    let client = &lab.cloud.house.client;
    let request =
        api::v1::types::volume::CreateVolume { name: "data".into(), size_gib: Some(1), ..Default::default() };
    let volume: api::v1::types::volume::Volume = client.create(&request, &Default::default()).await.unwrap();
    let volume = volume.head.id.to_string();
    let path = format!("/servers/{id}/os-volume_attachments");
    let order = json!({ "volumeAttachment": { "volumeId": volume } });
    let attached = lab.post("2.1", &path, order.clone()).await.expect(200);
    assert_eq!(
        keys(&attached["volumeAttachment"]),
        ["device", "id", "serverId", "volumeId"].map(String::from).into()
    );
    assert_eq!(attached["volumeAttachment"]["device"], "/dev/vdb");
    assert_eq!(lab.post("2.1", &path, order).await.status, 400, "it is in use");
    lab.run(&id).await;
    assert_eq!(lab.get("2.1", &path).await["volumeAttachments"].as_array().unwrap().len(), 1);
    let detach = lab.at(Method::DELETE, &lab.member, "2.1", &format!("{path}/{volume}"), &Value::Null).await;
    assert_eq!(detach.status, 202);
    lab.get("2.1", &format!("{path}/{volume}")).await;
    lab.run(&id).await;
    lab.cloud.house.control.finalize_instance(id.parse().unwrap()).await.unwrap();
    let gone = lab.at(Method::GET, &lab.member, "2.1", &format!("{path}/{volume}"), &Value::Null).await;
    assert_eq!(gone.status, 404, "the guest has let go");

    let path = format!("/servers/{id}/os-interface");
    let order = json!({ "interfaceAttachment": { "net_id": lab.network } });
    let port = lab.post("2.1", &path, order).await.expect(200)["interfaceAttachment"].clone();
    let tagged = json!({ "interfaceAttachment": { "net_id": lab.network, "tag": "inside" } });
    assert_eq!(lab.post("2.48", &path, tagged.clone()).await.status, 400, "tags came with 2.49");
    let tagged = lab.post("2.70", &path, tagged).await.expect(200)["interfaceAttachment"].clone();
    assert_eq!(tagged["tag"], "inside");
    let path_of_tagged = format!("{path}/{}", tagged["port_id"].as_str().unwrap());
    assert_eq!(lab.at(Method::DELETE, &lab.member, "2.1", &path_of_tagged, &Value::Null).await.status, 202);
    lab.run(&id).await;
    lab.cloud.house.control.finalize_instance(id.parse().unwrap()).await.unwrap();
    assert_eq!(
        keys(&port),
        ["fixed_ips", "mac_addr", "net_id", "port_id", "port_state"].map(String::from).into()
    );
    assert_eq!(lab.get("2.1", &path).await["interfaceAttachments"].as_array().unwrap().len(), 2);
    let port = port["port_id"].as_str().unwrap();
    let detach = lab.at(Method::DELETE, &lab.member, "2.1", &format!("{path}/{port}"), &Value::Null).await;
    assert_eq!(detach.status, 202);
}

#[tokio::test]
async fn groups_are_passed_on_to_old_clients() {
    let lab = Lab::open().await;
    let id = lab.running("one").await;
    let path = "/os-security-groups";
    let order = json!({ "security_group": { "name": "web", "description": "d" } });
    let made = lab.post("2.1", path, order.clone()).await.expect(200)["security_group"].clone();
    assert_eq!(keys(&made), ["description", "id", "name", "rules", "tenant_id"].map(String::from).into());
    assert_eq!(lab.post("2.36", path, order).await.status, 404);
    let group = made["id"].as_str().unwrap();
    lab.act(&id, json!({ "addSecurityGroup": { "name": "web" } })).await.expect(202);
    let of_server = lab.get("2.1", &format!("/servers/{id}/os-security-groups")).await;
    assert_eq!(of_server["security_groups"].as_array().unwrap().len(), 2);
    let busy = lab.at(Method::DELETE, &lab.member, "2.1", &format!("{path}/{group}"), &Value::Null).await;
    assert_eq!(busy.status, 400);
    lab.act(&id, json!({ "removeSecurityGroup": { "name": "web" } })).await.expect(202);
    let gone = lab.at(Method::DELETE, &lab.member, "2.1", &format!("{path}/{group}"), &Value::Null).await;
    assert_eq!(gone.status, 202);
    let all = lab.get("2.1", path).await;
    let default = all["security_groups"][0]["id"].as_str().unwrap();
    let kept = lab.at(Method::DELETE, &lab.member, "2.1", &format!("{path}/{default}"), &Value::Null).await;
    assert_eq!(kept.status, 400);
    assert_eq!(
        lab.at(Method::DELETE, &lab.member, "2.1", &format!("{path}/"), &Value::Null).await.status,
        404
    );
}

#[tokio::test]
async fn names_are_kept_as_they_were_written_and_may_come_twice() {
    let lab = Lab::open().await;
    let ids = [lab.boot("twin").await, lab.boot("twin").await];
    assert_ne!(ids[0], ids[1]);
    assert_eq!(lab.listed("?name=twin").await, ["twin", "twin"]);
    let other = lab.boot("other").await;
    let rename = json!({ "server": { "name": "twin" } });
    lab.at(Method::PUT, &lab.member, "2.1", &format!("/servers/{other}"), &rename).await.expect(200);
    let order = json!({ "security_group": { "name": " web ", "description": " of the shop " } });
    let made = lab.post("2.1", "/os-security-groups", order.clone()).await.expect(200);
    let group = &made["security_group"];
    assert_eq!((&group["name"], &group["description"]), (&json!(" web "), &json!(" of the shop ")));
    let renamed = json!({ "security_group": { "name": " shop", "description": "" } });
    let path = format!("/os-security-groups/{}", group["id"].as_str().unwrap());
    let put = lab.at(Method::PUT, &lab.member, "2.1", &path, &renamed).await.expect(200);
    assert_eq!(put["security_group"]["name"], " shop");
    let empty = json!({ "security_group": { "name": "  ", "description": "" } });
    assert_eq!(lab.post("2.1", "/os-security-groups", empty).await.status, 400);
}

#[tokio::test]
async fn hosts_are_for_those_who_run_the_cloud() {
    let lab = Lab::open().await;
    lab.running("one").await;
    for path in [
        "/os-hypervisors",
        "/os-hypervisors/detail",
        "/os-hypervisors/statistics",
        "/os-services",
        "/os-migrations",
        "/os-aggregates",
        "/os-availability-zone/detail",
        "/os-simple-tenant-usage",
    ] {
        assert_eq!(lab.at(Method::GET, &lab.member, "2.1", path, &Value::Null).await.status, 403, "{path}");
        lab.at(Method::GET, &lab.cloud.admin, "2.1", path, &Value::Null).await.expect(200);
    }
    let detail = lab
        .at(Method::GET, &lab.cloud.admin, "2.1", "/os-hypervisors/detail", &Value::Null)
        .await
        .expect(200);
    let first = &detail["hypervisors"][0];
    assert_eq!((&first["running_vms"], &first["memory_mb_used"]), (&json!(1), &json!(512)));
    let newer = lab
        .at(Method::GET, &lab.cloud.admin, "2.96", "/os-hypervisors/detail", &Value::Null)
        .await
        .expect(200);
    assert!(newer["hypervisors"][0].get("vcpus").is_none(), "figures moved to Placement with 2.88");
}

#[tokio::test]
async fn a_flavor_is_made_described_and_taken_away() {
    let lab = Lab::open().await;
    let admin = &lab.cloud.admin;
    let order = json!({ "flavor": { "name": "f", "ram": 64, "vcpus": 1, "disk": 1, "id": null, "swap": 0 } });
    assert_eq!(lab.post("2.61", "/flavors", order.clone()).await.status, 403);
    let made = lab.at(Method::POST, admin, "2.61", "/flavors", &order).await.expect(200)["flavor"].clone();
    let path = format!("/flavors/{}", made["id"].as_str().unwrap());
    let specs = json!({ "extra_specs": { "hw:cpu_policy": "shared" } });
    lab.at(Method::POST, admin, "2.1", &format!("{path}/os-extra_specs"), &specs).await.expect(200);
    assert_eq!(lab.get("2.61", &path).await["flavor"]["extra_specs"], specs["extra_specs"]);
    let described = json!({ "flavor": { "description": "small" } });
    lab.at(Method::PUT, admin, "2.55", &path, &described).await.expect(200);
    assert_eq!(lab.get("2.55", &path).await["flavor"]["description"], "small");
    assert_eq!(lab.at(Method::DELETE, admin, "2.1", &path, &Value::Null).await.status, 202);
    assert_eq!(lab.at(Method::GET, admin, "2.1", &path, &Value::Null).await.status, 404);
}

#[tokio::test]
async fn a_thousand_servers_with_details_are_one_page() {
    let lab = Lab::open().await;
    let control = &lab.cloud.house.control;
    let admin = lab.cloud.house.caller(control::Role::Admin);
    let project = admin.project.to_string();
    let all = model::quota::Resource::ALL.map(|resource| (resource, None));
    control.set_quota(&admin, &project, &all).await.unwrap();
    let flavors = lab.get("2.1", "/flavors").await;
    let found = flavors["flavors"].as_array().unwrap().iter().find(|f| f["name"] == "g1.c1m128").unwrap();
    let mut order = lab.order("many");
    order["server"]["flavorRef"] = found["id"].clone();
    order["server"]["networks"] = json!("none");
    order["server"]["min_count"] = json!(100);
    for batch in 0..10 {
        order["server"]["name"] = json!(format!("many-{batch}"));
        lab.post("2.37", "/servers", order.clone()).await.expect(202);
    }
    let began = std::time::Instant::now();
    let shown = lab.get("2.96", "/servers/detail").await;
    println!("1000 servers with details in {} ms", began.elapsed().as_millis());
    assert_eq!(shown["servers"].as_array().unwrap().len(), 1000);
    assert!(shown.get("servers_links").is_none());
}
