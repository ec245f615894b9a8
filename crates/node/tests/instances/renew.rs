//! Beginning anew: other disks under the same instance, and another size on trial.

use crate::lab::{Lab, pod, vm};
use control::{Caller, Role, instance::rebuild::Rebuild};
use model::{
    error::Code,
    id::{InstanceId, VolumeId},
    instance::phase::Phase,
    quota::Resource,
    volume::Volume,
};
use node::fake::Verb;

fn root(lab: &Lab, id: InstanceId) -> VolumeId {
    lab.instance(id).unwrap().volumes[0]
}

fn used(lab: &Lab, resource: Resource) -> u64 {
    lab.control.quota(lab.caller.project).1.used.get(&resource).copied().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn a_rebuilt_vm_keeps_all_but_its_root_disk() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    lab.rest(id).await;
    let (before, old) = (lab.instance(id).unwrap(), root(&lab, id));
    let charged = used(&lab, Resource::VolumeGib);
    lab.control.rebuild_instance(&lab.caller, "db", &Rebuild::default()).await.unwrap();
    assert_eq!(lab.phase(id), Phase::Rebuilding);
    let daemon = lab.healthy().await;
    lab.run_once(&daemon, id).await.unwrap();
    assert_eq!(lab.host.boots(id), [1], "the new disk is not there yet");
    lab.supply().await;
    lab.rest(id).await;
    let after = lab.instance(id).unwrap();
    assert_eq!((lab.phase(id), lab.host.boots(id)), (Phase::Running, vec![1, 2]));
    assert_eq!((after.ports.clone(), after.id_slot), (before.ports, before.id_slot));
    assert_ne!(root(&lab, id), old);
    assert!(lab.control.get::<Volume>(old).is_none(), "nobody needs the old disk");
    assert!(lab.host.guest(id).unwrap().volumes.contains(&root(&lab, id)));
    assert_eq!(used(&lab, Resource::VolumeGib), charged);
    assert_eq!(used(&lab, Resource::Volumes), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_vm_is_rebuilt_without_being_started() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    lab.rest(id).await;
    lab.control.stop_instance(&lab.caller, "db", true, None).await.unwrap();
    lab.rest(id).await;
    let old = root(&lab, id);
    lab.control.rebuild_instance(&lab.caller, "db", &Rebuild::default()).await.unwrap();
    lab.supply().await;
    lab.rest(id).await;
    assert_eq!((lab.phase(id), lab.host.boots(id)), (Phase::Stopped, vec![1]));
    assert!(lab.control.get::<Volume>(old).is_none());
    lab.control.start_instance(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    assert_eq!(lab.host.boots(id), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn each_build_of_a_pod_writes_to_layers_of_its_own() {
    let lab = Lab::new().await;
    let id = lab.create(pod("web")).await;
    lab.rest(id).await;
    let state = lab.dir.path().join("instances").join(id.to_string());
    std::fs::create_dir_all(state.join("web/fs")).unwrap();
    for build in [1, 2] {
        lab.control.rebuild_instance(&lab.caller, "web", &Rebuild::default()).await.unwrap();
        lab.rest(id).await;
        let plan = lab.host.guest(id).unwrap().plan.unwrap();
        let model::plan::Body::Pod(pod) = plan.body else { panic!("a pod") };
        assert_eq!(pod.containers[0].upper, state.join(format!("web.{build}")));
        assert!(!state.join("web").exists(), "what the first build wrote is gone");
        std::fs::create_dir_all(state.join(format!("web.{build}"))).unwrap();
    }
    assert!(!state.join("web.1").exists() && state.join("web.2").exists());
}

#[tokio::test(start_paused = true)]
async fn a_pod_gets_other_variables_and_stays_who_it_is() {
    let lab = Lab::new().await;
    let mut new = pod("web");
    new.containers[0].spec.env = [("COLOUR", "red"), ("SIZE", "3")].map(|(k, v)| (k.into(), v.into())).into();
    let id = lab.create(new).await;
    lab.rest(id).await;
    let ports = lab.instance(id).unwrap().ports;
    let asked = |env: &[(&str, Option<&str>)]| Rebuild {
        env: env.iter().map(|(key, value)| ((*key).to_string(), value.map(str::to_string))).collect(),
        args: Some(vec!["serve".into()]),
        ..Rebuild::default()
    };
    let change = asked(&[("COLOUR", Some("blue")), ("SIZE", None)]);
    lab.control.rebuild_instance(&lab.caller, "web", &change).await.unwrap();
    lab.rest(id).await;
    let plan = lab.host.guest(id).unwrap().plan.unwrap();
    let model::plan::Body::Pod(pod_plan) = plan.body else { panic!("a pod") };
    let container = &pod_plan.containers[0];
    let variable =
        |name: &str| container.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!((variable("COLOUR"), variable("SIZE")), (Some("blue"), None), "{:?}", container.env);
    assert_eq!(container.argv.last().map(String::as_str), Some("serve"));
    assert_eq!(lab.instance(id).unwrap().ports, ports);

    for wrong in ["", "A=B", "A\0"] {
        let refused = lab.control.rebuild_instance(&lab.caller, "web", &asked(&[(wrong, Some("x"))])).await;
        assert_eq!(refused.unwrap_err().field.as_deref(), Some("env"), "{wrong:?}");
    }
    let vm_id = lab.create(vm("db")).await;
    lab.rest(vm_id).await;
    let refused = lab.control.rebuild_instance(&lab.caller, "db", &change).await.unwrap_err();
    assert!(refused.message.contains("is a VM"), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_size_on_trial_is_kept_or_taken_back() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    lab.rest(id).await;
    let size = |lab: &Lab| {
        let plan = lab.host.guest(id).unwrap().plan.unwrap();
        (plan.vcpus, plan.memory_mib)
    };
    let disk = |lab: &Lab| lab.control.get::<Volume>(root(lab, id)).unwrap().record.size_gib;
    let charged = |lab: &Lab| {
        (used(lab, Resource::Vcpus), used(lab, Resource::MemoryMib), used(lab, Resource::VolumeGib))
    };
    lab.control.try_size(&lab.caller, "db", "g2.c2m4g").await.unwrap();
    assert_eq!(lab.phase(id), Phase::Resizing);
    lab.rest(id).await;
    assert_eq!((lab.phase(id), size(&lab), disk(&lab)), (Phase::Running, (2, 4096), 8));
    assert_eq!(charged(&lab), (2, 4096, 40));
    for refused in [
        lab.control.try_size(&lab.caller, "db", "g2.c1m1g").await,
        lab.control.rebuild_instance(&lab.caller, "db", &Rebuild::default()).await,
    ] {
        assert_eq!(refused.unwrap_err().code, Code::Conflict);
    }
    lab.control.revert_size(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    assert_eq!((lab.phase(id), size(&lab), disk(&lab)), (Phase::Running, (1, 512), 8));
    assert_eq!(charged(&lab), (1, 512, 8));
    assert_eq!(lab.control.revert_size(&lab.caller, "db").await.unwrap_err().code, Code::Conflict);

    lab.control.try_size(&lab.caller, "db", "g2.c2m4g").await.unwrap();
    lab.rest(id).await;
    lab.control.confirm_size(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    assert_eq!((lab.host.boots(id), disk(&lab)), (vec![1, 2, 3, 4], 40));
    assert_eq!(lab.host.count(Verb::GrowDisk, id), 1, "the disk grows under the running guest");
    assert_eq!(charged(&lab), (2, 4096, 40));
    let smaller = lab.control.try_size(&lab.caller, "db", "g2.c1m1g").await.unwrap_err();
    assert_eq!((smaller.code, smaller.field.as_deref()), (Code::Invalid, Some("flavor")));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_goes_during_a_trial_gives_back_all_that_it_was_charged() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    lab.rest(id).await;
    lab.control.try_size(&lab.caller, "db", "g2.c2m4g").await.unwrap();
    lab.rest(id).await;
    lab.control.delete_instance(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    for resource in [Resource::Vcpus, Resource::MemoryMib, Resource::VolumeGib, Resource::Volumes] {
        assert_eq!(used(&lab, resource), 0, "{resource}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_holds_off_members_and_tells_why() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    lab.rest(id).await;
    let member = Caller { role: Role::Member, ..lab.caller.clone() };
    lab.control.lock_instance(&member, "db", Some("payroll runs")).await.unwrap();
    let refused = [
        lab.control.stop_instance(&member, "db", false, None).await,
        lab.control.rebuild_instance(&member, "db", &Rebuild::default()).await,
        lab.control.try_size(&member, "db", "g2.c2m4g").await,
        lab.control.delete_instance(&member, "db").await,
    ];
    for refusal in refused {
        let error = refusal.unwrap_err();
        assert!(error.code == Code::Conflict && error.message.contains("payroll runs"), "{error}");
    }
    lab.control.unlock_instance(&member, "db").await.unwrap();
    lab.control.lock_instance(&lab.caller, "db", None).await.unwrap();
    assert_eq!(lab.control.unlock_instance(&member, "db").await.unwrap_err().code, Code::Forbidden);
    lab.control.stop_instance(&lab.caller, "db", false, None).await.unwrap();
}
