//! Health checks on a fake host: what probes make of a container, across pauses, restarts of its program and of the
//! daemon, and what is left of them.

use crate::lab::{Daemon, Lab, NODE, pod};
use control::instance::NewInstance;
use model::{
    error::Code,
    health::{
        HealthSpec,
        probe::Purpose,
        status::{ContainerHealth, NO_EXIT, PROBES_MAX, Word},
    },
    id::{InstanceId, NodeId},
    instance::Kind,
    operation::Event,
};
use node::{driver::Driver, fake::Fuse, health::Health};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{task::JoinHandle, time::Instant};

/// Simulated time for what must come.
const PATIENCE: Duration = Duration::from_secs(600);

fn checked(name: &str, argv: &[&str], more: HealthSpec) -> NewInstance {
    let test: Vec<String> = ["CMD"].iter().chain(argv).map(ToString::to_string).collect();
    let mut new = pod(name);
    new.containers[0].spec.name = "main".into();
    new.containers[0].spec.health = Some(HealthSpec { test: Some(test.try_into().unwrap()), ..more });
    new
}

fn every(interval_ms: u64) -> HealthSpec {
    HealthSpec {
        interval_ms: Some(interval_ms),
        timeout_ms: Some(1_000),
        retries: Some(2),
        ..Default::default()
    }
}

/// Starts to check, as a daemon does.
fn keep(lab: &Lab, daemon: &Daemon) -> JoinHandle<()> {
    let driver: Arc<dyn Driver> = Arc::new(lab.host.driver(Arc::new(Fuse::new())));
    let health = Health::new(
        daemon.store.clone(),
        NodeId::from_random(NODE),
        HashMap::from([(Kind::Container, driver)]),
    );
    tokio::spawn(Arc::new(health.with_clock(lab.clock())).keep())
}

fn record(daemon: &Daemon, id: InstanceId) -> Option<ContainerHealth> {
    let key = ContainerHealth::key_of(id, "main", Purpose::Health);
    daemon.store.get::<ContainerHealth>(&key).map(|stored| stored.record.clone())
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn probes_say_how_a_container_is() {
    let lab = Lab::new().await;
    let daemon = lab.healthy().await;
    let well = lab.create(checked("well", &["echo", "all", "is", "well"], every(2_000))).await;
    let ill = lab.create(checked("ill", &["exit", "7"], every(1_000))).await;
    let hung = lab.create(checked("hung", &["sleep"], every(1_000))).await;
    let early = HealthSpec { start_period_ms: Some(300_000), start_interval_ms: Some(500), ..every(60_000) };
    let starting = lab.create(checked("starting", &["false"], early)).await;
    for id in [well, ill, hung, starting] {
        lab.rest(id).await;
    }
    let keeper = keep(&lab, &daemon);
    let word = |id| record(&daemon, id).map(|record| record.health.word);
    until("health", || word(well) == Some(Word::Healthy)).await;
    let seen = record(&daemon, well).unwrap().health;
    assert_eq!((seen.probes[0].exit_code, seen.probes[0].output.as_str()), (0, "all is well\n"));
    until("illness", || word(ill) == Some(Word::Unhealthy)).await;
    until("two timeouts", || word(hung) == Some(Word::Unhealthy)).await;
    let probe = record(&daemon, hung).unwrap().health.probes.pop().unwrap();
    assert_eq!((probe.exit_code, probe.output.as_str()), (NO_EXIT, "Health check exceeded timeout (1s): "));
    let took = probe.ended_at.as_millisecond() - probe.started_at.as_millisecond();
    assert!((1_000..2_000).contains(&took), "killed at its timeout: {took} ms");
    until("many probes", || record(&daemon, well).unwrap().health.probes.len() == PROBES_MAX).await;
    until("probes in the start period", || record(&daemon, starting).is_some()).await;
    let seen = record(&daemon, starting).unwrap().health;
    assert_eq!((seen.word, seen.failing_streak), (Word::Starting, 0), "failures do not count yet");

    let events = daemon.store.list::<Event>();
    let reasons = |id: InstanceId| -> Vec<String> {
        let of = |event: &&Event| event.subject.id == id.to_string() && event.reason.ends_with("healthy");
        events.iter().map(|e| &e.record).filter(of).map(|e| e.message.clone()).collect()
    };
    assert_eq!(reasons(well), ["well is healthy"]);
    assert_eq!(reasons(ill), ["ill is unhealthy: 2 probes failed, the last with 7"]);
    keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn checks_follow_the_container_and_outlive_the_daemon() {
    let lab = Lab::new().await;
    let daemon = lab.healthy().await;
    let id = lab.create(checked("web", &["true"], every(5_000))).await;
    lab.rest(id).await;
    let keeper = keep(&lab, &daemon);
    let probes = |daemon: &Daemon| record(daemon, id).map_or(0, |record| record.health.probes.len());
    until("two probes", || probes(&daemon) == 2).await;
    keeper.abort();

    // Another daemon goes on with what is known, and at the time that was due.
    let daemon = lab.healthy().await;
    let last = record(&daemon, id).unwrap().health.probes.pop().unwrap().ended_at;
    let keeper = keep(&lab, &daemon);
    until("a third probe", || probes(&daemon) == 3).await;
    let third = record(&daemon, id).unwrap().health.probes.pop().unwrap().started_at;
    let pause = third.as_millisecond() - last.as_millisecond();
    assert!((5_000..5_200).contains(&pause), "{pause} ms");

    // What is frozen is not asked.
    lab.control.pause_instance(&lab.caller, "web").await.unwrap();
    lab.rest(id).await;
    daemon.store.wait_for(lab.control.store().mirror().revision()).await.unwrap();
    let before = record(&daemon, id);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(record(&daemon, id), before);
    lab.control.resume_instance(&lab.caller, "web").await.unwrap();
    lab.rest(id).await;
    until("probes again", || record(&daemon, id) != before).await;

    // A new run begins anew.
    let run = record(&daemon, id).unwrap().run_ms;
    lab.control.stop_instance(&lab.caller, "web", true, None).await.unwrap();
    lab.rest(id).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    lab.control.start_instance(&lab.caller, "web").await.unwrap();
    lab.rest(id).await;
    let instance = lab.instance(id).unwrap();
    assert_eq!(lab.control.health(&instance, &instance.containers[0]).unwrap().word, Word::Starting);
    until("a probe of the new run", || record(&daemon, id).unwrap().run_ms > run).await;
    assert_eq!(record(&daemon, id).unwrap().health.probes.len(), 1);
    lab.control.store().wait_for(daemon.store.mirror().revision()).await.unwrap();
    assert_eq!(lab.control.health_word(&instance), Some(Word::Healthy));

    lab.control.delete_instance(&lab.caller, "web").await.unwrap();
    lab.rest(id).await;
    daemon.store.wait_for(lab.control.store().mirror().revision()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(record(&daemon, id), None, "it goes with its instance");
    keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn what_is_out_of_bounds_is_refused() {
    let lab = Lab::new().await;
    let new = checked("web", &["true"], HealthSpec { interval_ms: Some(99), ..HealthSpec::default() });
    let refused = lab.control.create_instance(&lab.caller, new).await.unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (Code::Invalid, Some("health.interval_ms")));
}
