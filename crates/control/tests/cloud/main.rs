//! What callers may ask, on a store in memory: races, refusals and that nothing half done stays.

mod deployment;
mod foreign;
mod golden;
mod image;
mod isolation;
mod networking;
mod publish;
mod races;
mod refused;
mod schedule;
mod server_group;
mod size;

use control::{
    Caller, Control, Role,
    bootstrap::Beginning,
    floating_ip::{NewFloatingIp, TargetAsked},
    instance::{ContainerAsked, NewInstance},
    security_group::{NewRule, NewSecurityGroup},
    subnet::NewSubnet,
};
use model::{
    error::Code,
    id::NodeId,
    instance::{ContainerSpec, Instance, InstanceStatus, Kind, State, phase::Phase},
    meta::Labels,
    node::NodeStatus,
    plan::{Accelerator, RestartPolicy},
    quota::Resource,
    security_group::Direction,
};
use std::sync::Arc;
use store::{Memory, Store, Tx};

async fn cloud() -> (Control, Caller) {
    let store = Store::open(Arc::new(Memory::new()), control::schema::schema()).await.unwrap();
    let control = Control::new(store);
    let beginning = Beginning { external_v4: "203.0.113.0/28".parse().unwrap(), external_v6: None };
    control.bootstrap(&beginning).await.unwrap();
    control.bootstrap(&beginning).await.unwrap();
    let node = NodeId::from_random([9; 16]);
    control.join_node(node, "here").await.unwrap();
    let mut tx = Tx::new();
    tx.put(&node_status(node));
    control.store().commit(tx).await.unwrap();
    let root = control::finalize::system_caller(model::id::ProjectId::from_random([0; 16]));
    let project = control.find_project(&root, "default").unwrap().record.meta.id;
    (
        control,
        Caller {
            project,
            role: Role::Admin,
            actor: "test".into(),
            request_id: "r".into(),
            proof: Default::default(),
        },
    )
}

/// What the node says of an instance of which it has nothing.
fn said_of(instance: &Instance) -> InstanceStatus {
    InstanceStatus {
        id: instance.meta.id,
        node: instance.node.unwrap(),
        state: State::Absent,
        boot: 0,
        progress: String::new(),
        fault: None,
        fault_generation: 0,
        failures: 0,
        restarts: 0,
        restarted_at: None,
        stop_asked_at: None,
        ports: vec![],
        volumes: vec![],
        layers: Default::default(),
        keys: None,
        keys_refused: String::new(),
        grant: None,
        disk_waits: false,
        asleep: false,
        gone: false,
        host_boot: String::new(),
        facts: Default::default(),
        at: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn node_status(id: NodeId) -> NodeStatus {
    NodeStatus {
        id,
        arch: "x86_64".into(),
        kernel: "6".into(),
        os: "test".into(),
        version: "0".into(),
        boot_id: "b".into(),
        cpus: 64,
        memory_mib: 1 << 20,
        disk_gib: 1000,
        disk_free_gib: 900,
        accelerator: "tcg".into(),
        accelerator_reason: String::new(),
        qemu: "7.2".into(),
        facts: Default::default(),
        at: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn container(name: &str) -> NewInstance {
    NewInstance {
        name: name.into(),
        description: String::new(),
        labels: Labels::new(),
        tags: Default::default(),
        access: Default::default(),
        user: None,
        kind: Kind::Container,
        image: None,
        root: None,
        flavor: None,
        vcpus: None,
        memory_mib: None,
        cpu_weight: None,
        disk_gib: None,
        thick: false,
        nics: None,
        security_groups: None,
        keypairs: vec![],
        user_data_base64: None,
        config_drive: false,
        accelerator: Accelerator::Auto,
        containers: vec![ContainerAsked {
            image: "busybox".into(),
            spec: ContainerSpec::default(),
            ..Default::default()
        }],
        volumes: vec![],
        server_group: None,
        floating_ip: None,
        publish: vec![],
        autostart: false,
        start_after: vec![],
        extra_hosts: vec![],
        files: vec![],
        schedule: None,
        shared: Default::default(),
        isolation: Default::default(),
        publish_within: vec![],
        succeeds: None,
        restart: RestartPolicy::No,
        grace_s: None,
        remove_on_exit: false,
        start: true,
    }
}

#[tokio::test]
async fn a_new_project_has_its_network_at_once_and_ranges_may_repeat() {
    let (control, caller) = cloud().await;
    control.create_project(&caller, "other", "", Labels::new()).await.unwrap();
    let other = control.find_project(&caller, "other").unwrap().record.meta.id;
    let inside = Caller { project: other, ..caller.clone() };
    let network = control.own_network(&inside).unwrap();
    let ranges: Vec<_> =
        control.subnets_of(network.record.meta.id).iter().map(|s| s.record.cidr.to_string()).collect();
    assert_eq!(ranges[0], "10.0.0.0/24");
    assert_eq!(ranges.len(), 2);
    let taken = control.create_project(&caller, "other", "", Labels::new()).await.unwrap_err();
    assert_eq!(taken.code, Code::Taken);
    control.delete_project(&caller, "other").await.unwrap();
    assert!(control.store().list::<model::network::Network>().iter().all(|n| n.record.meta.project != other));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_racing_creates_never_exceed_the_quota() {
    let (control, caller) = cloud().await;
    control.set_quota(&caller, "default", &[(Resource::Instances, Some(7))]).await.unwrap();
    let racers: Vec<_> = (0..50)
        .map(|n| {
            let (control, caller) = (control.clone(), caller.clone());
            tokio::spawn(async move { control.create_instance(&caller, container(&format!("c{n}"))).await })
        })
        .collect();
    let mut made = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(_) => made += 1,
            Err(error) => {
                assert_eq!(error.code, Code::QuotaExceeded, "{error}");
                assert!(!error.hint.is_empty());
            }
        }
    }
    assert_eq!(made, 7);
    assert_eq!(control.quota(caller.project).1.of(Resource::Instances), 7);
    let ports = control.store().list::<model::port::Port>();
    let mut addresses: Vec<_> =
        ports.iter().flat_map(|p| p.record.addresses.iter().map(|a| (p.record.network, a.address))).collect();
    let all = addresses.len();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), all, "no address is given twice");
}

#[tokio::test]
async fn refusals_name_the_field_and_the_way_out_and_leave_nothing() {
    let (control, caller) = cloud().await;
    let before = control.store().mirror().revision();
    let mut vm = container("db");
    vm.kind = Kind::Vm;
    vm.image = Some("debain".into());
    vm.flavor = Some("g1.c1m512".into());
    let error = control.create_instance(&caller, vm.clone()).await.unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (Code::NotFound, Some("image")));
    vm.flavor = Some("g1.c1m51".into());
    let error = control.create_instance(&caller, vm).await.unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (Code::NotFound, Some("flavor")));
    assert!(error.hint.contains("g1.c1m512"), "{}", error.hint);
    let subnet = |cidr: &str| NewSubnet {
        name: "s".into(),
        network: "default".into(),
        cidr: cidr.into(),
        ..NewSubnet::default()
    };
    let error = control.create_subnet(&caller, subnet("10.0.0.128/25")).await.unwrap_err();
    assert!(error.message.contains("overlaps 10.0.0.0/24"), "{error}");
    let error = control.create_subnet(&caller, subnet("10.0.0/33")).await.unwrap_err();
    assert_eq!(error.field.as_deref(), Some("cidr"));
    assert_eq!(control.store().mirror().revision(), before, "a refusal writes nothing");
}

#[tokio::test]
async fn a_floating_ip_moves_and_its_pool_ends() {
    let (control, caller) = cloud().await;
    control.create_instance(&caller, container("web")).await.unwrap();
    control.create_instance(&caller, container("db")).await.unwrap();
    let to = |name: &str| TargetAsked::Instance(name.into());
    let new = NewFloatingIp { target: Some(to("web")), ..NewFloatingIp::default() };
    let floating = control.create_floating_ip(&caller, new).await.unwrap();
    let moved = control
        .set_floating_ip_target(&caller, &floating.address.to_string(), Some(&to("db")))
        .await
        .unwrap();
    assert_ne!(moved.target, floating.target);
    let mut taken = 1;
    let error = loop {
        match control.create_floating_ip(&caller, NewFloatingIp::default()).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.code, Code::NoCapacity);
    assert!(error.message.contains("all 12 ") && error.message.contains("203.0.113.0/28"), "{error}");
    assert_eq!(taken, 12, "16 less network, broadcast, gateway and one router");
}

#[tokio::test]
async fn rules_are_checked_and_not_doubled() {
    let (control, caller) = cloud().await;
    control.create_security_group(&caller, &NewSecurityGroup::named("web")).await.unwrap();
    let rule = |protocol: &str, ports: Option<&str>, net: Option<&str>| NewRule {
        direction: Direction::Ingress,
        family: None,
        protocol: Some(protocol.into()),
        ports: ports.map(Into::into),
        icmp: None,
        net: net.map(Into::into),
        group: None,
        description: String::new(),
    };
    assert_eq!(control.add_rule(&caller, "web", rule("tcp", Some("80"), None)).await.unwrap().len(), 2);
    let one = control.add_rule(&caller, "web", rule("tcp", Some("22"), Some("203.0.113.7"))).await.unwrap();
    assert_eq!(one.len(), 1);
    let again =
        control.add_rule(&caller, "web", rule("tcp", Some("22"), Some("203.0.113.7/32"))).await.unwrap_err();
    assert_eq!(again.code, Code::Taken);
    for (bad, field) in [
        (rule("tpc", None, None), "protocol"),
        (rule("tcp", Some("0"), None), "ports"),
        (rule("tcp", Some("22"), Some("203.0.113.300")), "peer"),
        (rule("icmp", Some("22"), None), "rule"),
    ] {
        let error = control.add_rule(&caller, "web", bad).await.unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (Code::Invalid, Some(field)));
    }
    control.remove_rules(&caller, "web", &[one[0].id]).await.unwrap();
}

#[tokio::test]
async fn a_deleted_instance_goes_when_its_node_says_so_and_frees_all() {
    let (control, caller) = cloud().await;
    let used = |control: &Control| control.quota(caller.project).1;
    let start = used(&control);
    let instance = control.create_instance(&caller, container("web")).await.unwrap();
    assert_eq!(control.phase(&instance), Phase::Creating);
    let going = control.delete_instance(&caller, "web").await.unwrap();
    assert_eq!(control.phase(&going), Phase::Deleting);
    control.finalize_instance(instance.meta.id).await.unwrap();
    assert!(control.get::<Instance>(instance.meta.id).is_some(), "the node has not said that it is gone");
    let mut tx = Tx::new();
    tx.put(&InstanceStatus { gone: true, ..said_of(&instance) });
    control.store().commit(tx).await.unwrap();
    control.finalize_instance(instance.meta.id).await.unwrap();
    control.finalize_instance(instance.meta.id).await.unwrap();
    assert!(control.get::<Instance>(instance.meta.id).is_none());
    let mut end = used(&control);
    end.used.remove(&Resource::Images);
    end.used.retain(|_, n| *n > 0);
    assert_eq!(end, start);
    control.create_instance(&caller, container("web")).await.unwrap();
}

#[tokio::test]
async fn a_reader_is_told_which_role_is_missing() {
    let (control, caller) = cloud().await;
    let reader = Caller { role: Role::Reader, ..caller };
    let error = control.delete_instance(&reader, "web").await.unwrap_err();
    assert_eq!(error.code, Code::Forbidden);
    assert!(error.message.contains("member"), "{error}");
}
