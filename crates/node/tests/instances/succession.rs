//! An instance that takes the place of another gets its ports, volumes and addresses with its start, and not before.

use crate::lab::{Lab, pod};
use control::{
    instance::{DiskAsked, NewInstance, NicAsked, VolumeAsked},
    port::{FixedAsked, NewPort},
    volume::{Attach, NewVolume},
};
use model::{
    error::Code,
    id::{InstanceId, NodeId, VolumeId},
    instance::VOLUMES_MAX,
    publish::Publish,
    security_group::Protocol,
    volume::Volume,
};
use std::net::IpAddr;
use store::Tx;

fn publish(host_port: u16) -> Publish {
    Publish { address: None, host_port, port: 80, protocol: Protocol::TCP }
}

fn with_data(name: &str, ports: &[u16]) -> NewInstance {
    let attach = Attach { mount_path: Some("/data".into()), ..Attach::default() };
    NewInstance {
        publish: ports.iter().copied().map(publish).collect(),
        volumes: vec![VolumeAsked { disk: DiskAsked::Volume("data".into()), attach }],
        ..pod(name)
    }
}

async fn lab() -> (Lab, VolumeId, InstanceId) {
    let lab = Lab::new().await;
    let data = NewVolume { name: "data".into(), size_gib: Some(1), ..NewVolume::default() };
    let data = lab.control.create_volume(&lab.caller, data).await.unwrap().meta.id;
    let old = lab.create(with_data("old", &[8080])).await;
    lab.rest(old).await;
    (lab, data, old)
}

#[tokio::test(start_paused = true)]
async fn ports_and_volumes_go_over_with_the_start() {
    let (lab, data, old) = lab().await;
    let at_once = NewInstance { succeeds: Some(old), ..with_data("eager", &[8080]) };
    let refused = lab.control.create_instance(&lab.caller, at_once).await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict, "{refused:?}");
    let next = NewInstance { succeeds: Some(old), start: false, ..with_data("next", &[8080, 9090]) };
    let next = lab.create(next).await;
    assert_eq!(lab.instance(next).unwrap().publish, [publish(9090)], "what nobody has it gets at once");
    let user = || lab.control.get::<Volume>(data).unwrap().record.attached_to;
    assert_eq!(user(), Some(old));
    let refused = lab.control.start_instance(&lab.caller, "next").await.unwrap_err();
    assert!(refused.code == Code::Conflict && refused.message.contains("takes over from old"), "{refused:?}");

    lab.control.delete_instance(&lab.caller, "old").await.unwrap();
    lab.rest(old).await;
    lab.control.start_instance(&lab.caller, "next").await.unwrap();
    lab.rest(next).await;
    let mut has = lab.instance(next).unwrap().publish;
    has.sort();
    assert_eq!(has, [publish(8080), publish(9090)]);
    assert_eq!((user(), lab.instance(next).unwrap().succession), (Some(next), None));
    assert_eq!(lab.host.guest(next).unwrap().volumes.len(), 1);
    lab.control.delete_instance(&lab.caller, "next").await.unwrap();
    lab.rest(next).await;
    assert_eq!(user(), None, "the volume stays, and is free");
}

#[tokio::test(start_paused = true)]
async fn who_is_quicker_has_it() {
    let (lab, _, old) = lab().await;
    let next =
        lab.create(NewInstance { succeeds: Some(old), start: false, ..with_data("next", &[8080]) }).await;
    lab.control.delete_instance(&lab.caller, "old").await.unwrap();
    lab.rest(old).await;
    lab.create(NewInstance { publish: vec![publish(8080)], ..pod("quick") }).await;
    let refused = lab.control.start_instance(&lab.caller, "next").await.unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (Code::Taken, Some("publish")));
    // It goes as if it had never been meant to follow anybody.
    lab.control.delete_instance(&lab.caller, "next").await.unwrap();
    lab.rest(next).await;
    let late = NewInstance { succeeds: Some(old), ..with_data("late", &[9090]) };
    let late = lab.create(late).await;
    assert_eq!(lab.instance(late).unwrap().volumes.len(), 1, "of one that is gone nothing is waited for");
}

/// Lets a volume's record say that its files lie on some other host.
async fn move_away(lab: &Lab, volume: VolumeId) {
    let found = lab.control.get::<Volume>(volume).unwrap().record.clone();
    let mut tx = Tx::new();
    tx.put(&Volume { node: Some(NodeId::from_random([7; 16])), ..found });
    lab.control.store().commit(tx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_goes_over_is_checked_as_what_is_attached() {
    let (lab, data, old) = lab().await;
    let next = |name: &str| NewInstance { succeeds: Some(old), start: false, ..with_data(name, &[8080]) };
    let mut twice = next("twice");
    twice.volumes.push(twice.volumes[0].clone());
    let refused = lab.control.create_instance(&lab.caller, twice).await.unwrap_err();
    assert!(refused.code == Code::Invalid && refused.message.contains("named twice"), "{refused:?}");

    let made = lab.create(next("next")).await;
    for n in 0..VOLUMES_MAX {
        let more = NewVolume { name: format!("more-{n}"), size_gib: Some(1), ..NewVolume::default() };
        let more = lab.control.create_volume(&lab.caller, more).await.unwrap().meta.id.to_string();
        lab.control.attach_volume(&lab.caller, "next", &more, Some(format!("/{n}")), false).await.unwrap();
    }
    lab.control.delete_instance(&lab.caller, "old").await.unwrap();
    lab.rest(old).await;
    let refused = lab.control.start_instance(&lab.caller, "next").await.unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (Code::TooLarge, Some("volumes")));
    assert_eq!(lab.control.get::<Volume>(data).unwrap().record.attached_to, None, "nothing is half done");

    lab.control.detach_volume(&lab.caller, "more-0").await.unwrap();
    move_away(&lab, data).await;
    let refused = lab.control.start_instance(&lab.caller, "next").await.unwrap_err();
    assert!(refused.code == Code::Conflict && refused.message.contains("another host"), "{refused:?}");
    let refused = lab.control.attach_volume(&lab.caller, "next", "data", None, false).await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict);
    let refused = lab.control.create_instance(&lab.caller, with_data("new", &[])).await.unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (Code::Conflict, Some("volume")));
    assert_eq!(lab.instance(made).unwrap().volumes.len(), VOLUMES_MAX - 1);
}

#[tokio::test(start_paused = true)]
async fn addresses_go_over_with_the_start() {
    let lab = Lab::new().await;
    let address: IpAddr = "10.0.0.77".parse().unwrap();
    let fixed = |name: &str| NewInstance {
        nics: Some(vec![NicAsked::New(NewPort {
            fixed: FixedAsked::one(None, Some(address)),
            ..NewPort::default()
        })]),
        ..pod(name)
    };
    let has = |id: InstanceId| -> Vec<IpAddr> {
        let ports = lab.control.ports_of(&lab.instance(id).unwrap().ports);
        ports[0].addresses.iter().map(|fixed| fixed.address).collect()
    };
    let old = lab.create(fixed("old")).await;
    lab.rest(old).await;
    assert_eq!(has(old), [address]);
    let refused = lab.control.create_instance(&lab.caller, fixed("other")).await.unwrap_err();
    assert_eq!(refused.code, Code::Taken, "it is nobody else's: {refused:?}");
    let asked =
        NewInstance { succeeds: Some(old), start: false, publish: vec![publish(8080)], ..fixed("next") };
    let next = lab.create(asked).await;
    assert!(has(next).len() == 1 && has(next)[0] != address, "another one in between: {:?}", has(next));
    assert_eq!(lab.instance(next).unwrap().publish, [], "nothing leads to that");
    let refused = lab.control.start_instance(&lab.caller, "next").await.unwrap_err();
    assert!(refused.code == Code::Conflict && refused.message.contains("takes over from old"), "{refused:?}");

    lab.control.delete_instance(&lab.caller, "old").await.unwrap();
    lab.rest(old).await;
    let between = has(next)[0];
    lab.control.start_instance(&lab.caller, "next").await.unwrap();
    lab.rest(next).await;
    assert_eq!((has(next), lab.instance(next).unwrap().publish), (vec![address], vec![publish(8080)]));
    // The one that it had in between is free again.
    let free = NewPort { fixed: FixedAsked::one(None, Some(between)), ..NewPort::default() };
    lab.control.create_port(&lab.caller, free).await.unwrap();
}
