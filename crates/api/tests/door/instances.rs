//! Instances: making, verbs, plugging, and waiting for what was begun.

use crate::house::House;
use api::{
    client::Verb,
    v1::types::{
        instance::{AttachPort, CreateInstance, Instance, UpdateInstance, VolumeRequest},
        list::{ListQuery, WaitQuery},
        volume::Volume,
    },
};
use jiff::Timestamp;
use model::{
    error::Code,
    instance::{Kind, State, phase::Phase},
};
use std::time::{Duration, Instant};

fn container(name: &str) -> CreateInstance {
    CreateInstance { name: name.into(), image: Some("busybox".into()), ..CreateInstance::default() }
}

fn no_wait() -> WaitQuery {
    WaitQuery::default()
}

fn running() -> State {
    State::Running { since: Timestamp::now() }
}

#[tokio::test]
async fn a_container_is_made_and_shown() {
    let house = House::open().await;
    let client = &house.client;
    let mut request = container("web");
    request.args = Some(vec!["httpd".into()]);
    request.volumes = vec![
        VolumeRequest { size_gib: Some(1), mount_path: Some("/a".into()), ..VolumeRequest::default() },
        VolumeRequest {
            size_gib: Some(1),
            mount_path: Some("/b".into()),
            keep: true,
            ..VolumeRequest::default()
        },
    ];
    request.floating_ip = Some("auto".into());
    let made = client.create::<Instance>(&request, &no_wait()).await.unwrap();
    assert_eq!((made.kind, made.phase), (Kind::Container, Phase::Creating));
    assert_eq!(made.containers[0].args.as_deref(), Some(&["httpd".to_string()][..]));
    assert_eq!((made.ports.len(), made.addresses.len(), made.floating_ips.len()), (1, 2, 1));
    assert_eq!(made.ports[0].security_groups[0].name, "default");
    assert_eq!(made.node.as_ref().unwrap().name, "here");
    let kept = client.get::<Volume>(&made.volumes[1].id.to_string()).await.unwrap();
    assert!(!kept.delete_with_instance && kept.mount_path.as_deref() == Some("/b"));
    let goes = client.get::<Volume>(&made.volumes[0].id.to_string()).await.unwrap();
    assert!(goes.delete_with_instance);
    let creating =
        ListQuery { phase: Some("creating".into()), kind: Some("container".into()), ..ListQuery::default() };
    assert_eq!(client.list::<Instance>(&creating).await.unwrap().items.len(), 1);
    let change = UpdateInstance { autostart: Some(true), grace_s: Some(3), ..UpdateInstance::default() };
    let changed = client.update::<Instance>("web", &change, &no_wait()).await.unwrap();
    assert!(changed.autostart && changed.grace_s == 3);
}

#[tokio::test]
async fn fields_that_do_not_fit_are_refused_by_name() {
    let house = House::open().await;
    let check = async |change: fn(&mut CreateInstance), field: &str| {
        let mut request = container("x");
        change(&mut request);
        let error = house.client.create::<Instance>(&request, &no_wait()).await.unwrap_err();
        assert_eq!((error.code(), error.field()), (Code::Invalid, Some(field)), "{error:?}");
    };
    check(|r| r.user_data = Some("eA==".into()), "user_data").await;
    check(|r| r.image = None, "image").await;
    check(|r| (r.kind, r.tty) = (Some(Kind::Vm), true), "tty").await;
    check(|r| r.volumes = vec![VolumeRequest::default()], "volumes[0].volume").await;
    check(
        |r| {
            r.volumes = vec![VolumeRequest {
                size_gib: Some(1),
                mount_path: Some("x".into()),
                ..VolumeRequest::default()
            }]
        },
        "volumes[0].mount_path",
    )
    .await;
    check(|r| r.containers = vec![api::v1::types::instance::ContainerRequest::default()], "image").await;
    assert!(house.client.list::<Instance>(&ListQuery::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn calls_wait_for_what_they_began() {
    let house = House::open().await;
    let client = house.client.clone();
    let made = client.create::<Instance>(&container("web"), &no_wait()).await.unwrap();
    let id = made.head.id;

    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.get_waiting::<Instance>("web", &WaitQuery { wait: Some(30), phase: None }).await }
    });
    house.seen(id, running()).await;
    assert_eq!(waiting.await.unwrap().unwrap().phase, Phase::Running);

    // A stop is answered when the guest has stopped, not before.
    let stopping = tokio::spawn({
        let client = client.clone();
        async move { client.act("web", Verb::Stop, &WaitQuery { wait: Some(30), phase: None }).await }
    });
    let stops = WaitQuery { wait: Some(30), phase: Some("stopping".into()) };
    assert_eq!(client.get_waiting::<Instance>("web", &stops).await.unwrap().phase, Phase::Stopping);
    let ended = State::Stopped { code: Some(0), cause: "asked".into(), failed: false, at: Timestamp::now() };
    house.seen(id, ended).await;
    let stopped = stopping.await.unwrap().unwrap();
    assert_eq!((stopped.phase, stopped.exit.unwrap().code), (Phase::Stopped, Some(0)));

    // Time over: the answer is how it is then.
    let started = Instant::now();
    let late = client.act("web", Verb::Start, &WaitQuery { wait: Some(1), phase: None }).await.unwrap();
    assert_eq!(late.phase, Phase::Starting);
    assert!(started.elapsed() >= Duration::from_secs(1));

    // A delete is answered when the thing is gone.
    assert_eq!(client.delete::<Instance>("web", &no_wait()).await.unwrap().unwrap().phase, Phase::Deleting);
    let deleting = tokio::spawn({
        let client = client.clone();
        async move { client.delete::<Instance>("web", &WaitQuery { wait: Some(30), phase: None }).await }
    });
    house.seen(id, State::Absent).await;
    let mut status = house.control.instance_status(model::id::InstanceId(id)).unwrap().record.clone();
    status.gone = true;
    let mut tx = store::Tx::new();
    tx.put(&status);
    house.control.store().commit(tx).await.unwrap();
    house.control.finalize_instance(status.id).await.unwrap();
    // Either the wait saw it go, or it was gone before the call came.
    match deleting.await.unwrap() {
        Ok(left) => assert!(left.is_none()),
        Err(error) => assert_eq!(error.code(), Code::NotFound),
    }
}

#[tokio::test]
async fn an_instance_takes_another_size_within_its_quota() {
    let house = House::open().await;
    let client = &house.client;
    let made = client.create::<Instance>(&container("web"), &no_wait()).await.unwrap();
    house.seen(made.head.id, running()).await;
    let grow = |vcpus: u32| UpdateInstance { vcpus: Some(vcpus), ..UpdateInstance::default() };
    let resized = client.update::<Instance>("web", &grow(3), &no_wait()).await.unwrap();
    assert_eq!((resized.size.vcpus, resized.size.memory_mib), (3, made.size.memory_mib));
    assert_eq!(client.quota("default").await.unwrap().resources["vcpus"].used, 3);
    let error = client.update::<Instance>("web", &grow(101), &no_wait()).await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::QuotaExceeded, Some("vcpus")), "{error:?}");
    let flavor = UpdateInstance { flavor: Some("g1.c1m512".into()), ..UpdateInstance::default() };
    assert_eq!(client.update::<Instance>("web", &flavor, &no_wait()).await.unwrap().size.memory_mib, 512);
    assert_eq!(client.quota("default").await.unwrap().resources["vcpus"].used, 1);
}

#[tokio::test]
async fn parts_are_plugged_in_and_out() {
    let house = House::open().await;
    let client = house.client.clone();
    let id = client.create::<Instance>(&container("web"), &no_wait()).await.unwrap().head.id;
    house.seen(id, running()).await;

    // The answer waits until the guest has the port.
    let plugging = tokio::spawn({
        let client = client.clone();
        async move {
            let wait = WaitQuery { wait: Some(30), phase: None };
            client.attach_port("web", &AttachPort::default(), &wait).await
        }
    });
    let two_ports = async {
        while client.get::<Instance>("web").await.unwrap().ports.len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), two_ports).await.unwrap();
    assert!(!plugging.is_finished());
    house.seen(id, running()).await;
    let plugged = plugging.await.unwrap().unwrap();
    assert_eq!(plugged.ports.len(), 2);
    let port = plugged.ports[1].id.to_string();
    assert_eq!(client.detach_port("web", &port, &no_wait()).await.unwrap().ports.len(), 1);

    let new =
        VolumeRequest { size_gib: Some(1), mount_path: Some("/data".into()), ..VolumeRequest::default() };
    let plugged = client.attach_volume("web", &new, &no_wait()).await.unwrap();
    assert_eq!(plugged.volumes[0].mount_path.as_deref(), Some("/data"));
    let volume = plugged.volumes[0].id.to_string();
    assert!(client.get::<Volume>(&volume).await.unwrap().delete_with_instance);
    assert!(client.detach_volume("web", &volume, &no_wait()).await.unwrap().volumes.is_empty());
    let both = VolumeRequest { volume: Some(volume), size_gib: Some(1), ..VolumeRequest::default() };
    assert_eq!(client.attach_volume("web", &both, &no_wait()).await.unwrap_err().field(), Some("size_gib"));
}

#[tokio::test]
async fn many_instances_are_listed_in_pages() {
    let house = House::open().await;
    let quota = api::v1::types::quota::UpdateQuota {
        limits: ["instances", "vcpus", "memory_mib", "ports"].map(|name| (name.to_string(), None)).into(),
        reset: vec![],
    };
    house.client.set_quota("default", &quota).await.unwrap();
    for number in 0..60 {
        let mut request = container(&format!("i-{number:04}"));
        request.networks = Some(vec![]);
        house.client.create::<Instance>(&request, &no_wait()).await.unwrap();
    }
    let page = ListQuery { limit: Some(25), ..ListQuery::default() };
    let all = house.client.list_all::<Instance>(&page).await.unwrap();
    assert_eq!(all.len(), 60);
    assert!(all.windows(2).all(|pair| pair[0].head.name < pair[1].head.name));
}
