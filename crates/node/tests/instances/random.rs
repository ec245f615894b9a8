//! Anything in any order: wishes, crashes, faults, guests that end, hosts that restart. Whatever happened, once it is
//! over the cloud comes to rest as the last wish says, and nothing is left of what was deleted.

use crate::lab::{Lab, pod, vm};
use model::{
    id::InstanceId,
    instance::{Power, phase::Phase},
    plan::RestartPolicy,
};
use node::fake::{Behaviour, Fault, Fuse, Verb};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::time::Duration;

const ROUNDS: u64 = 100;
const EVENTS: usize = 25;
const FAULTS: [Fault; 4] = [Fault::FailBefore, Fault::FailAfter, Fault::HangBefore, Fault::HangAfter];
const VERBS: [Verb; 9] = [
    Verb::Observe,
    Verb::Start,
    Verb::Shutdown,
    Verb::Kill,
    Verb::Pause,
    Verb::Resume,
    Verb::Suspend,
    Verb::Discard,
    Verb::Attached,
];

#[tokio::test(start_paused = true)]
async fn whatever_happens_the_last_wish_comes_true() {
    let first: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    let asked = std::env::var("ROUNDS").ok().and_then(|s| s.parse().ok());
    let rounds = asked.unwrap_or(if std::env::var("SEED").is_ok() { 1 } else { ROUNDS });
    for seed in (0..rounds).map(|n| first.wrapping_add(n)) {
        println!("SEED={seed}");
        live(&mut StdRng::seed_from_u64(seed)).await;
    }
}

async fn live(rng: &mut StdRng) {
    let lab = Lab::new().await;
    let before = lab.footprint().await;
    let mut new = if rng.random() { vm("it") } else { pod("it") };
    new.restart = match rng.random_range(0..4) {
        0 => RestartPolicy::Always,
        1 => RestartPolicy::OnFailure { retries_max: rng.random_range(0..3) },
        _ => RestartPolicy::No,
    };
    new.autostart = rng.random();
    let id = lab.create(new).await;
    let mut story = vec![];
    for _ in 0..EVENTS {
        story.push(happen(&lab, id, rng).await);
    }
    lab.host.clear_script();
    lab.host.behave(id, Behaviour::default());
    lab.drive(&lab.healthy().await, id).await;
    check(&lab, id, &story);
    lab.control.delete_instance(&lab.caller, "it").await.unwrap();
    lab.rest(id).await;
    assert!(lab.host.ids().is_empty() && lab.instance(id).is_none(), "{story:#?}");
    let after = lab.footprint().await;
    assert_eq!(after, before, "{story:#?}");
}

fn check(lab: &Lab, id: InstanceId, story: &[String]) {
    let (instance, status, phase) = (lab.instance(id).unwrap(), lab.status(id).unwrap(), lab.phase(id));
    let context = format!("{phase:?} {status:?} {story:#?}");
    match instance.power {
        // One that ended before it fell asleep has no memory to keep.
        Power::Off if instance.suspended && status.asleep => assert_eq!(phase, Phase::Suspended, "{context}"),
        Power::Off => assert!(phase == Phase::Stopped && !status.asleep, "{context}"),
        Power::On => assert!(matches!(phase, Phase::Running | Phase::Exited), "{context}"),
        Power::Paused => assert!(matches!(phase, Phase::Paused | Phase::Exited), "{context}"),
    }
    assert_eq!(status.fault, None, "{context}");
    assert_eq!(status.progress, "", "{context}");
    let boots = lab.host.boots(id);
    assert!(boots.is_sorted(), "no boot runs after a later one: {boots:?} {context}");
    if instance.power == Power::On && status.boot > 0 {
        assert_eq!(boots.last(), Some(&instance.boots), "the boot that was asked for last ran: {context}");
    }
    // A boot of which nobody knew when its host went down is made up for.
    let host_restarted = story.iter().any(|event| event == "host restarts");
    if instance.restart == RestartPolicy::No && !host_restarted {
        let mut once = boots.clone();
        once.dedup();
        assert_eq!(once, boots, "no boot runs twice: {context}");
    }
}

async fn happen(lab: &Lab, id: InstanceId, rng: &mut StdRng) -> String {
    match rng.random_range(0..12) {
        0..5 => wish(lab, rng).await,
        5 => {
            let code = rng.random_range(0..3);
            lab.host.exit(id, code);
            format!("exit {code}")
        }
        6 if rng.random_ratio(1, 4) => {
            lab.reboot_host();
            "host restarts".into()
        }
        7 => {
            let (verb, fault) = (pick(rng, &VERBS), pick(rng, &FAULTS));
            lab.host.script(verb, fault);
            format!("{verb:?} will {fault:?}")
        }
        8 => {
            let stops_after = pick(rng, &[Some(Duration::ZERO), Some(Duration::from_secs(5)), None]);
            let behaviour = Behaviour { stops_after, ..Behaviour::default() };
            lab.host.behave(id, behaviour);
            format!("stops after {stops_after:?}")
        }
        9 => {
            let pause = Duration::from_secs(rng.random_range(1..40));
            tokio::time::sleep(pause).await;
            format!("{pause:?} pass")
        }
        _ => {
            let point = rng.random_range(0..40);
            let daemon = lab.daemon(Fuse::at(point)).await;
            let died = lab.drive_to_death(&daemon, id).await;
            format!("daemon dies at {point}: {died}, {}", lab.end(id))
        }
    }
}

async fn wish(lab: &Lab, rng: &mut StdRng) -> String {
    let (control, caller, hard) = (&lab.control, &lab.caller, rng.random());
    let (name, answer) = match rng.random_range(0..6) {
        0 => ("start", control.start_instance(caller, "it").await),
        1 => ("stop", control.stop_instance(caller, "it", hard, None).await),
        2 => ("reboot", control.reboot_instance(caller, "it", hard).await),
        3 => ("pause", control.pause_instance(caller, "it").await),
        4 => ("suspend", control.suspend_instance(caller, "it").await),
        _ => ("resume", control.resume_instance(caller, "it").await),
    };
    format!("{name} hard={hard} {:?}", answer.map(|i| i.boots))
}

fn pick<T: Copy>(rng: &mut StdRng, among: &[T]) -> T {
    among[rng.random_range(0..among.len())]
}
