//! Instances that run at certain times, by a clock that the test sets.

use crate::{container, node_status, said_of};
use control::{Caller, Control, Role, bootstrap::Beginning, instance::NewInstance};
use jiff::Timestamp;
use model::{
    id::NodeId,
    instance::{Instance, InstanceStatus, Power, State, phase::Phase},
    operation::Event,
};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use store::{Memory, Store, Tx};

/// A cloud whose clock shows what the number says, in seconds.
async fn cloud_at(now_s: &Arc<AtomicI64>) -> (Control, Caller) {
    let store = Store::open(Arc::new(Memory::new()), control::schema::schema()).await.unwrap();
    let now_s = Arc::clone(now_s);
    let clock = move || Timestamp::from_second(now_s.load(Ordering::SeqCst)).unwrap();
    let control = Control::with_clock(store, Arc::new(clock));
    let beginning = Beginning { external_v4: "203.0.113.0/28".parse().unwrap(), external_v6: None };
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

/// Writes what the node would have seen.
async fn see(control: &Control, instance: &Instance, boot: u64, state: State) {
    let mut tx = Tx::new();
    tx.put(&InstanceStatus { state, boot, ..said_of(instance) });
    control.store().commit(tx).await.unwrap();
}

fn ended() -> State {
    State::Stopped { code: Some(3), cause: "it ended".into(), failed: true, at: Timestamp::UNIX_EPOCH }
}

fn reasons(control: &Control) -> Vec<String> {
    let mut all: Vec<Event> = control.store().list::<Event>().iter().map(|e| e.record.clone()).collect();
    all.retain(|event| ["scheduled", "skipped"].contains(&event.reason.as_str()));
    all.sort_by_key(|event| event.at);
    all.into_iter().map(|event| event.reason).collect()
}

#[tokio::test]
async fn an_instance_is_started_when_its_time_comes_and_once() {
    let now_s = Arc::new(AtomicI64::new(1_800_000_000));
    let set = |at: i64| now_s.store(1_800_000_000 + at, Ordering::SeqCst);
    let (control, caller) = cloud_at(&now_s).await;
    // 1,800,000,000 is 08:00 in UTC.
    let new =
        NewInstance { schedule: Some("*/10 * * * *".parse().unwrap()), start: false, ..container("report") };
    let made = control.create_instance(&caller, new).await.unwrap();
    let seen = || control.get::<Instance>(made.meta.id).unwrap().record.clone();
    assert_eq!(control.next_due().map(Timestamp::as_second), Some(1_800_000_600));
    control.start_due().await.unwrap();
    assert_eq!((seen().power, control.phase(&seen())), (Power::Off, Phase::Stopped), "not yet");
    set(600);
    control.start_due().await.unwrap();
    control.start_due().await.unwrap();
    assert_eq!((seen().power, seen().boots, reasons(&control).len()), (Power::On, 1, 1), "its first boot");

    // While it runs its time passes; afterwards it is started anew, and what was missed is one start.
    see(&control, &made, 1, State::Running { since: Timestamp::UNIX_EPOCH }).await;
    set(1_201);
    control.start_due().await.unwrap();
    assert_eq!((seen().boots, reasons(&control)), (1, vec!["scheduled".to_string(), "skipped".into()]));
    see(&control, &made, 1, ended()).await;
    control.start_due().await.unwrap();
    assert_eq!(control.phase(&seen()), Phase::Exited, "what was skipped stays so");
    set(7_300);
    control.start_due().await.unwrap();
    assert_eq!((seen().boots, control.phase(&seen())), (2, Phase::Starting));
    assert_eq!(control.next_due().map(Timestamp::as_second), Some(1_800_007_800));

    // One that nobody is to wake is not woken.
    see(&control, &made, 2, ended()).await;
    control.shelve_instance(&caller, "report").await.unwrap();
    set(10_000);
    assert_eq!(control.next_due(), None);
    control.start_due().await.unwrap();
    assert_eq!((seen().boots, reasons(&control).len()), (2, 3));
}
