//! Pods with a kernel of their own: what they are given, and what they cannot have.

use crate::{cloud, container, said_of};
use control::{
    instance::NewInstance,
    snapshot::NewSnapshot,
    volume::{NewVolume, SourceAsked},
};
use jiff::Timestamp;
use model::{
    error::Code,
    instance::{
        Instance, InstanceStatus, Kind, State,
        content::{Mount, Shows},
        isolation::{Isolation, OWN_DISK_GIB},
    },
    meta::Labels,
    node::{GUEST_OVERHEAD_FACT, NodeStatus, guest_overhead_fact},
    quota::Resource,
};
use store::Tx;

fn apart(name: &str) -> NewInstance {
    NewInstance { isolation: Isolation::Vm, ..container(name) }
}

#[tokio::test]
async fn it_has_a_disk_that_is_charged() {
    let (control, caller) = cloud().await;
    let used = || control.quota(caller.project).1.of(Resource::VolumeGib);
    let made: Instance = control.create_instance(&caller, apart("web")).await.unwrap();
    assert!(made.has_own_kernel() && made.isolation == Isolation::Vm && made.kind == Kind::Container);
    assert_eq!((made.own_disk_gib(), made.size.memory_mib, used()), (OWN_DISK_GIB, 512, OWN_DISK_GIB));
    let own = NewInstance { disk_gib: Some(3), ..apart("small") };
    assert_eq!(control.create_instance(&caller, own).await.unwrap().own_disk_gib(), 3);
    // What others have is as before, and so is what is written of them.
    let usual = control.create_instance(&caller, container("usual")).await.unwrap();
    assert_eq!((usual.has_own_kernel(), usual.own_disk_gib(), used()), (false, 0, OWN_DISK_GIB + 3));
    let written = serde_json::to_value(&usual).unwrap();
    assert!(written.get("isolation").is_none(), "{written}");
    let read: Instance = serde_json::from_value(serde_json::to_value(&made).unwrap()).unwrap();
    assert_eq!(read, made);
}

#[tokio::test]
async fn it_is_for_containers_and_sees_no_directory_of_the_host() {
    let (control, caller) = cloud().await;
    let control = control.with_host_directories(&["/srv".into()]);
    let refused = async |change: fn(&mut NewInstance)| {
        let mut new = apart("web");
        change(&mut new);
        control.create_instance(&caller, new).await.unwrap_err()
    };
    for (change, field, word) in [
        ((|new| new.kind = Kind::System) as fn(&mut NewInstance), "isolation", "a system container"),
        (
            |new| (new.kind, new.image) = (Kind::Vm, Some("x".into())),
            "isolation",
            "a VM has a kernel of its own",
        ),
        (
            |new| {
                new.containers[0].spec.mounts = vec![Mount {
                    shows: Shows::Host { path: "/srv/shop".into(), exists: false },
                    path: "/data".into(),
                    sub_path: None,
                    read_only: false,
                    group: None,
                }];
            },
            "containers[0].mounts[0].host",
            "/srv/shop",
        ),
    ] {
        let error = refused(change).await;
        assert_eq!((error.code, error.field.as_deref()), (Code::Invalid, Some(field)), "{error}");
        assert!(error.message.contains(word), "{error}");
    }
    assert!(control.list::<Instance>(&caller).is_empty());
}

#[tokio::test]
async fn its_memory_is_taken_and_a_host_without_qemu_has_none_for_it() {
    let (control, caller) = cloud().await;
    let told = control.nodes().into_iter().find_map(|(_, status)| status).unwrap().record.clone();
    let put = async |status: NodeStatus| {
        let mut tx = Tx::new();
        tx.put(&status);
        control.store().commit(tx).await.unwrap();
    };
    // Room for one with what its machine needs beside it, and not for two.
    put(NodeStatus { memory_mib: control::instance::RESERVED_MIB + 1_000, ..told.clone() }).await;
    control.create_instance(&caller, apart("one")).await.unwrap();
    let full = control.create_instance(&caller, apart("two")).await.unwrap_err();
    assert_eq!(full.code, Code::NoCapacity, "{full}");
    assert!(full.message.contains("608 of 1000 MiB given"), "{full}");
    control.create_instance(&caller, container("usual")).await.unwrap();
    // A host whose guests boot from more counts that, for those that are there as well.
    let fact = (GUEST_OVERHEAD_FACT.to_string(), guest_overhead_fact(250));
    let heavy = NodeStatus {
        memory_mib: control::instance::RESERVED_MIB + 1_400,
        facts: [fact].into(),
        ..told.clone()
    };
    put(heavy).await;
    let full = control.create_instance(&caller, apart("two")).await.unwrap_err();
    assert!(full.message.contains("762 MiB of memory asked, 762 of 1400 MiB given"), "{full}");
    put(NodeStatus { qemu: String::new(), ..told }).await;
    let bare = control.create_instance(&caller, apart("three")).await.unwrap_err();
    assert!(bare.code == Code::NoCapacity && bare.message.contains("QEMU is not installed"), "{bare}");
    control.create_instance(&caller, container("more")).await.unwrap();
}

#[tokio::test]
async fn its_volumes_are_disks_that_are_frozen_while_nobody_has_them() {
    let (control, caller) = cloud().await;
    let volume = NewVolume {
        name: "data".into(),
        description: String::new(),
        size_gib: Some(1),
        thick: false,
        kind: None,
        source: SourceAsked::default(),
        labels: Labels::new(),
    };
    let volume = control.create_volume(&caller, volume).await.unwrap();
    let pod = control.create_instance(&caller, apart("db")).await.unwrap();
    control.attach_volume(&caller, "db", "data", Some("/data".into()), false).await.unwrap();
    let snapshot = || {
        let new = NewSnapshot {
            name: String::new(),
            description: String::new(),
            volume: "data".into(),
            labels: Labels::new(),
        };
        control.create_snapshot(&caller, new)
    };
    let stopped = said_of(&pod).state;
    let running = State::Running { since: Timestamp::UNIX_EPOCH };
    for (state, hint) in [(running, "`holm stop db` first"), (stopped, "try again in a moment")] {
        let status = InstanceStatus { volumes: vec![volume.meta.id], state, ..said_of(&pod) };
        let mut tx = Tx::new();
        tx.put(&status);
        control.store().commit(tx).await.unwrap();
        let refused = snapshot().await.unwrap_err();
        assert_eq!((refused.code, refused.hint.as_str()), (Code::Conflict, hint), "{refused}");
    }
    let mut tx = Tx::new();
    tx.put(&said_of(&pod));
    control.store().commit(tx).await.unwrap();
    snapshot().await.unwrap();
}
