//! Rescue: a VM runs from another disk, with its own behind it, and goes back.

use crate::lab::{Lab, pod, vm};
use control::{instance::rebuild::Rebuild, volume::Attach};
use model::{
    error::Code,
    id::{InstanceId, VolumeId},
    instance::phase::Phase,
    quota::Resource,
    volume::Volume,
};

fn volumes(lab: &Lab, id: InstanceId) -> Vec<VolumeId> {
    lab.instance(id).unwrap().volumes
}

fn used(lab: &Lab) -> (u64, u64) {
    let used = lab.control.quota(lab.caller.project).1.used;
    let of = |resource: Resource| used.get(&resource).copied().unwrap_or(0);
    (of(Resource::Volumes), of(Resource::VolumeGib))
}

#[tokio::test(start_paused = true)]
async fn a_vm_in_rescue_runs_from_another_disk_and_goes_back() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    lab.rest(id).await;
    let (own, before) = (volumes(&lab, id), used(&lab));
    lab.control.rescue_instance(&lab.caller, "db", None).await.unwrap();
    assert_eq!(lab.phase(id), Phase::Rebooting);
    lab.supply().await;
    lab.rest(id).await;
    let rescued = lab.instance(id).unwrap();
    let disk = rescued.rescue.clone().unwrap().volume;
    assert_eq!(rescued.volumes, [&[disk], own.as_slice()].concat(), "its own root disk is the second one");
    assert_eq!(rescued.root_volume(), own.first().copied());
    assert_eq!((lab.phase(id), lab.host.boots(id)), (Phase::Running, vec![1, 2]));
    assert!(lab.host.guest(id).unwrap().volumes.contains(&disk));
    assert_eq!(used(&lab).0, before.0 + 1);

    // What would take the disks for those of a usual guest is refused until then.
    let twice = lab.control.rescue_instance(&lab.caller, "db", None).await.unwrap_err();
    let rebuilt = lab.control.rebuild_instance(&lab.caller, "db", &Rebuild::default()).await.unwrap_err();
    let asleep = lab.control.suspend_instance(&lab.caller, "db").await.unwrap_err();
    let root = own[0].to_string();
    let detached = lab.control.detach_volume(&lab.caller, &root).await.unwrap_err();
    let attached =
        lab.control.attach_volume_as(&lab.caller, "db", &root, &Attach::default()).await.unwrap_err();
    for error in [twice, rebuilt, asleep, detached, attached] {
        assert_eq!(error.code, Code::Conflict, "{error:?}");
    }

    lab.control.unrescue_instance(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    assert_eq!((volumes(&lab, id), lab.phase(id)), (own, Phase::Running));
    assert_eq!(lab.host.boots(id), [1, 2, 3]);
    assert!(lab.control.get::<Volume>(disk).is_none(), "nobody needs the disk that it was rescued from");
    assert_eq!(used(&lab), before);
    assert_eq!(lab.control.unrescue_instance(&lab.caller, "db").await.unwrap_err().code, Code::Conflict);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_vm_is_rescued_and_one_in_rescue_goes_as_a_whole() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    lab.rest(id).await;
    lab.control.stop_instance(&lab.caller, "db", true, None).await.unwrap();
    lab.rest(id).await;
    lab.control.rescue_instance(&lab.caller, "db", None).await.unwrap();
    lab.supply().await;
    lab.rest(id).await;
    assert_eq!((lab.phase(id), volumes(&lab, id).len()), (Phase::Running, 2));
    // It can be stopped and started meanwhile, and stays in rescue.
    lab.control.stop_instance(&lab.caller, "db", true, None).await.unwrap();
    lab.rest(id).await;
    lab.control.start_instance(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    assert!(lab.instance(id).unwrap().rescue.is_some());
    lab.control.delete_instance(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    lab.control.finalize_instance(id).await.unwrap();
    assert!(lab.instance(id).is_none());
    assert_eq!(used(&lab), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_container_is_not_rescued() {
    let lab = Lab::new().await;
    let id = lab.create(pod("web")).await;
    lab.rest(id).await;
    let refused = lab.control.rescue_instance(&lab.caller, "web", None).await.unwrap_err();
    assert_eq!(refused.code, Code::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_boots_from_a_volume_is_rebuilt_on_the_same_volume() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    lab.rest(id).await;
    let root = volumes(&lab, id)[0];
    let keep = |volume: &mut Volume| {
        volume.delete_with_instance = false;
        Ok(())
    };
    lab.control.change::<Volume>(&lab.caller, &root.to_string(), keep).await.unwrap();
    let (before, layer) = (used(&lab), lab.control.get::<Volume>(root).unwrap().record.layer);
    lab.control.rebuild_instance(&lab.caller, "db", &Rebuild::default()).await.unwrap();
    let volume = lab.control.get::<Volume>(root).unwrap().record.clone();
    assert_eq!((volume.layer, volume.floor), (layer + 1, layer + 1), "what was written is no part of it");
    assert_eq!(volume.ground().image, lab.instance(id).unwrap().image);
    // The guest is ended before the disk is made anew under it.
    let daemon = lab.healthy().await;
    lab.run_once(&daemon, id).await.unwrap();
    assert!(lab.host.guest(id).is_none_or(|guest| guest.volumes.is_empty()) && lab.host.boots(id) == [1]);
    lab.supply().await;
    lab.rest(id).await;
    assert_eq!((volumes(&lab, id), lab.phase(id)), (vec![root], Phase::Running));
    assert_eq!(lab.host.boots(id), [1, 2]);
    assert_eq!(used(&lab), before);
}
