//! What is promised, and what there is: every door counts alike.

use crate::cloud::Cloud;
use api::{
    client::Client,
    v1::types::{
        list::{ListQuery, WaitQuery},
        node::Node,
        project::{CreateProject, Project},
        quota::UpdateQuota,
    },
};
use axum::http::Method;
use serde_json::{Value, json};

async fn post(client: &Client, path: &str, body: Value) {
    let made = client.call::<Value>(Method::POST, path, Some(&body), None).await;
    made.unwrap_or_else(|e| panic!("{path}: {e:?}"));
}

/// Two projects with things in them.
async fn filled() -> Cloud {
    let cloud = Cloud::open().await;
    let client = &cloud.house.client;
    let request = CreateProject { name: "shop".into(), ..CreateProject::default() };
    client.create::<Project>(&request, &WaitQuery::default()).await.unwrap();
    let shop = Client::unix(&cloud.house.socket).with_project("shop");
    let room = UpdateQuota { limits: [("volume_gib".to_string(), Some(20_000))].into(), reset: vec![] };
    client.set_quota("shop", &room).await.unwrap();
    let container = |name: &str| json!({ "name": name, "kind": "container", "image": "busybox" });
    post(client, "/v1/instances", container("web")).await;
    let mut limited = container("db");
    limited["vcpus"] = 3.into();
    limited["memory_mib"] = 2_048.into();
    limited["disk_gib"] = 7.into();
    post(&shop, "/v1/instances", limited).await;
    post(client, "/v1/volumes", json!({ "name": "a", "size_gib": 12 })).await;
    post(&shop, "/v1/volumes", json!({ "name": "b", "size_gib": 9_990 })).await;
    cloud
}

#[tokio::test]
async fn sums_of_projects_agree_with_what_each_door_says_of_the_hosts() {
    let cloud = filled().await;
    let client = &cloud.house.client;
    let limits = |names: &[(&str, Option<u64>)]| UpdateQuota {
        limits: names.iter().map(|(name, limit)| (name.to_string(), *limit)).collect(),
        reset: vec![],
    };
    for project in ["default", "shop", "admin"] {
        let set = limits(&[("vcpus", Some(50)), ("memory_mib", Some(300_000)), ("volume_gib", Some(20_000))]);
        client.set_quota(project, &set).await.unwrap_or_else(|e| panic!("{project}: {e:?}"));
    }
    let quotas = client.quotas().await.unwrap();
    assert_eq!(quotas.items.len(), 3, "{quotas:?}");
    let sum = |name: &str| quotas.items.iter().map(|quota| quota.resources[name].used).sum::<u64>();
    for (name, limit, capacity) in
        [("vcpus", 150, 64), ("memory_mib", 900_000, 262_144), ("volume_gib", 60_000, 10_000)]
    {
        let total = quotas.total[name];
        assert_eq!((total.limit, total.used), (Some(limit), sum(name)), "{name}");
        assert_eq!(quotas.capacity[name], capacity, "{name}");
    }
    let used = |name: &str| quotas.total[name].used;
    assert_eq!((used("vcpus"), used("memory_mib"), used("volume_gib")), (4, 2_560, 10_009));

    let node = client.list_all::<Node>(&ListQuery::default()).await.unwrap().remove(0);
    assert_eq!(
        (node.used.vcpus, node.used.memory_mib, node.used.disk_gib),
        (used("vcpus"), used("memory_mib"), used("volume_gib"))
    );
    let path = "/compute/v2.1/os-hypervisors/statistics";
    let nova = cloud.get(&cloud.admin, path).await.expect(200)["hypervisor_statistics"].clone();
    for (key, value) in [
        ("vcpus", quotas.capacity["vcpus"]),
        ("vcpus_used", used("vcpus")),
        ("memory_mb", quotas.capacity["memory_mib"]),
        ("memory_mb_used", used("memory_mib")),
        ("local_gb", quotas.capacity["volume_gib"]),
        ("local_gb_used", used("volume_gib")),
    ] {
        assert_eq!(nova[key], value, "{key}");
    }
    let pools = cloud.get(&cloud.admin, "/volume/v3/scheduler-stats/get_pools?detail=True").await.expect(200);
    let pool = &pools["pools"][0]["capabilities"];
    assert_eq!(pool["total_capacity_gb"], quotas.capacity["volume_gib"]);
    assert_eq!(pool["provisioned_capacity_gb"], used("volume_gib"), "more is promised than there is");
    assert_eq!(pool["max_over_subscription_ratio"], "infinite");

    // One without a limit leaves the sum without one.
    client.set_quota("shop", &limits(&[("vcpus", None)])).await.unwrap();
    assert_eq!(client.quotas().await.unwrap().total["vcpus"].limit, None);
}

#[tokio::test]
async fn a_member_sees_the_limits_of_its_own_project_alone() {
    let cloud = filled().await;
    let member = cloud.house.as_role(api::v1::types::token::Role::Member).await;
    let quotas = member.quotas().await.unwrap();
    let names: Vec<&str> = quotas.items.iter().map(|quota| quota.project.name.as_str()).collect();
    assert_eq!(names, ["default"]);
    assert_eq!(quotas.total["volume_gib"].used, 12);
    let default = cloud.house.caller(control::Role::Member).project;
    let token = cloud.as_role_in("member", default).await;
    let limits = cloud.get(&token, "/compute/v2.1/limits").await.expect(200);
    let absolute = &limits["limits"]["absolute"];
    for (key, name) in
        [("totalCoresUsed", "vcpus"), ("totalRAMUsed", "memory_mib"), ("totalInstancesUsed", "instances")]
    {
        assert_eq!(absolute[key], quotas.total[name].used, "{key}");
    }
    for (key, name) in [("maxTotalCores", "vcpus"), ("maxTotalRAMSize", "memory_mib")] {
        assert_eq!(absolute[key], json!(quotas.total[name].limit), "{key}");
    }
}
