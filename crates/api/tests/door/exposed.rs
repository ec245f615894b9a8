//! Published ports and what can be reached from outside, through the door.

use crate::house::House;
use api::v1::types::{
    floating_ip::{CreateFloatingIp, FloatingIp},
    instance::{CreateInstance, Instance, UpdateInstance},
    list::{ListQuery, WaitQuery},
    publish::{PublishedPort, UnpublishPort},
};
use model::error::Code;

fn port(host_port: u16, port: u16) -> PublishedPort {
    PublishedPort { address: None, host_port, port, protocol: "tcp".into() }
}

#[tokio::test]
async fn ports_are_published_listed_and_taken_back() {
    let house = House::open().await;
    let client = &house.client;
    let now = WaitQuery::default();
    let request = CreateInstance {
        name: "web".into(),
        image: Some("busybox".into()),
        publish: vec![port(0, 80)],
        ..CreateInstance::default()
    };
    let web = client.create::<Instance>(&request, &now).await.unwrap();
    let chosen = web.publish[0].host_port;
    assert!(chosen >= 32768);
    assert!(web.floating_ips.is_empty() && web.ports[0].floating_ips.is_empty());
    let listed: Vec<FloatingIp> = client.list_all(&ListQuery::default()).await.unwrap();
    assert!(listed.is_empty(), "the cloud's own addresses are not listed");

    let change = UpdateInstance { publish_add: vec![port(8080, 81)], ..UpdateInstance::default() };
    let web = client.update::<Instance>("web", &change, &now).await.unwrap();
    assert_eq!(web.publish, [port(chosen, 80), port(8080, 81)]);
    let exposed = client.exposed(None, None).await.unwrap();
    let ports: Vec<_> = exposed.iter().map(|e| (e.ports.clone().unwrap(), e.inner_port, e.open)).collect();
    assert_eq!(
        ports,
        [("8080".into(), Some(81), false), (chosen.to_string(), Some(80), false)],
        "the default group lets nobody in"
    );
    assert!(client.exposed(Some("nobody"), None).await.is_err());

    let again = CreateInstance { name: "other".into(), publish: vec![port(8080, 80)], ..request };
    let error = client.create::<Instance>(&again, &now).await.unwrap_err();
    assert_eq!(error.code(), Code::Taken, "{error}");
    let change = UpdateInstance {
        publish_remove: vec![UnpublishPort { address: None, host_port: chosen, protocol: "tcp".into() }],
        ..UpdateInstance::default()
    };
    let web = client.update::<Instance>("web", &change, &now).await.unwrap();
    assert_eq!(web.publish, [port(8080, 81)]);
    let change = UpdateInstance {
        publish: Some(vec![PublishedPort { protocol: "tpc".into(), ..port(1, 1) }]),
        ..UpdateInstance::default()
    };
    let error = client.update::<Instance>("web", &change, &now).await.unwrap_err();
    assert_eq!(error.code(), Code::Invalid, "{error}");
    let six = CreateFloatingIp { family: Some(6), ..CreateFloatingIp::default() };
    let error = client.create::<FloatingIp>(&six, &now).await.unwrap_err();
    assert_eq!(error.code(), Code::NoCapacity, "this cloud has no IPv6 outside: {error}");
}
