//! Volumes that are opened while their pod does not run: taken, as by a guest, before they can be.

use crate::lab::{Lab, pod};
use control::{instance::NewInstance, snapshot::NewSnapshot, volume::NewVolume};
use model::{
    error::Code,
    instance::isolation::Isolation,
    plan::{BackingFile, DiskFormat},
    volume::VolumeStatus,
};
use reconcile::Outcome;

async fn stopped(lab: &Lab, isolation: Isolation) -> model::id::InstanceId {
    let id = lab.create(NewInstance { isolation, ..pod("box") }).await;
    let new = NewVolume { name: "data".into(), size_gib: Some(1), ..NewVolume::default() };
    lab.control.create_volume(&lab.caller, new).await.unwrap();
    let mount = Some("/data".into());
    lab.control.attach_volume(&lab.caller, "box", "data", mount, false).await.unwrap();
    lab.supply().await;
    let disk = lab.control.store().list::<VolumeStatus>()[0].record.clone();
    // Something is on it.
    let below = BackingFile { path: "/nowhere/base".into(), format: DiskFormat::Raw };
    lab.put(&VolumeStatus { backing: vec![below], ..disk }).await;
    lab.rest(id).await;
    lab.control.stop_instance(&lab.caller, "box", false, None).await.unwrap();
    lab.rest(id).await;
    id
}

fn snapshot() -> NewSnapshot {
    NewSnapshot { name: "s".into(), volume: "data".into(), ..NewSnapshot::default() }
}

#[tokio::test(start_paused = true)]
async fn what_is_worked_on_is_taken_until_that_is_over() {
    let lab = Lab::new().await;
    let id = stopped(&lab, Isolation::Vm).await;
    let instance = lab.instance(id).unwrap();
    let before = lab.status(id).unwrap();
    assert_eq!(before.volumes, []);
    let daemon = lab.healthy().await;
    let mut woken = daemon.instances.borrowed();
    let run = async {
        woken.recv().await.unwrap();
        lab.run_once(&daemon, id).await
    };
    let (loan, outcome) = tokio::join!(daemon.instances.lend(&instance), run);
    let loan = loan.unwrap().expect("there is something to be opened");
    assert!(matches!(outcome, Ok(Outcome::After(_))), "nobody tells when it is over: {outcome:?}");
    let status = lab.status(id).unwrap();
    assert_eq!((&status.volumes, &status.state), (&instance.volumes, &before.state));
    let refused = lab.control.create_snapshot(&lab.caller, snapshot()).await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict);
    assert!(refused.message.contains("works on the files of box"), "{}", refused.message);
    // Detached, it is open all the same.
    lab.control.detach_volume(&lab.caller, "data").await.unwrap();
    lab.run_once(&daemon, id).await.unwrap();
    assert_eq!(lab.status(id).unwrap().volumes, instance.volumes);
    drop(loan);
    assert_eq!(woken.recv().await.unwrap(), id);
    assert_eq!(lab.run_once(&daemon, id).await, Ok(Outcome::Done));
    assert_eq!(lab.status(id).unwrap().volumes, []);
    lab.control.create_snapshot(&lab.caller, snapshot()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_loan_that_nobody_notes_is_none() {
    let lab = Lab::new().await;
    let id = stopped(&lab, Isolation::Vm).await;
    let daemon = lab.healthy().await;
    let refused = daemon.instances.lend(&lab.instance(id).unwrap()).await.unwrap_err();
    assert!(refused.to_string().contains("cannot be opened at this moment"), "{refused}");
    // It is no matter for who has directories.
    let lab = Lab::new().await;
    let id = stopped(&lab, Isolation::Shared).await;
    let loan = lab.healthy().await.instances.lend(&lab.instance(id).unwrap()).await.unwrap();
    assert!(loan.is_none());
}
