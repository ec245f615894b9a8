//! What goes wrong: images that are not there, drivers that refuse, hang or cannot see, networks that fail.

use crate::lab::{Daemon, Lab, pod, vm};
use model::{
    error::{Code, Fault as Shown},
    image::{Image, ImageState},
    instance::phase::Phase,
};
use node::{
    fake::{Behaviour, Fault, Fuse, Verb},
    instance::measure::Meter,
};
use reconcile::Outcome;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;

fn busybox(lab: &Lab) -> model::id::ImageId {
    let images = lab.control.store().list::<Image>();
    images.iter().find(|i| i.record.meta.name.to_string().contains("busybox")).unwrap().record.meta.id
}

#[tokio::test(start_paused = true)]
async fn an_image_on_its_way_is_shown_and_waited_for() {
    let lab = Lab::new().await;
    let instance = lab.control.create_instance(&lab.caller, pod("web")).await.unwrap();
    let (id, image) = (instance.meta.id, busybox(&lab));
    let daemon = lab.healthy().await;
    for (state, progress) in [
        (ImageState::Waiting, "waiting for image"),
        (ImageState::Fetching { done_bytes: 0, total_bytes: 0 }, "0 %"),
        (ImageState::Fetching { done_bytes: 40, total_bytes: 100 }, "40 %"),
    ] {
        lab.put(&lab.image_status(image, state)).await;
        assert!(matches!(lab.run_once(&daemon, id).await, Ok(Outcome::After(_))));
        let status = lab.status(id).unwrap();
        assert!(status.progress.contains(progress), "{status:?}");
        assert_eq!(lab.phase(id), Phase::Creating);
    }
    lab.supply().await;
    lab.rest(id).await;
    assert_eq!((lab.phase(id), lab.status(id).unwrap().progress.as_str()), (Phase::Running, ""));
}

#[tokio::test(start_paused = true)]
async fn an_image_that_failed_is_told_and_mended_or_given_up() {
    let lab = Lab::new().await;
    let fault = Shown {
        code: Code::NotFound,
        message: "the registry has no busybox".into(),
        hint: "check the name".into(),
        since: lab.control.now(),
    };
    for mended in [true, false] {
        let name = if mended { "web" } else { "job" };
        let image = busybox(&lab);
        let id = lab.control.create_instance(&lab.caller, pod(name)).await.unwrap().meta.id;
        lab.put(&lab.image_status(image, ImageState::Failed(fault.clone()))).await;
        let daemon = lab.healthy().await;
        lab.run_once(&daemon, id).await.unwrap_err();
        let since = lab.status(id).unwrap().fault.unwrap().since;
        tokio::time::sleep(Duration::from_secs(60)).await;
        lab.run_once(&daemon, id).await.unwrap_err();
        let status = lab.status(id).unwrap();
        let shown = status.fault.unwrap();
        assert_eq!((shown.code, &shown.message, &shown.hint), (fault.code, &fault.message, &fault.hint));
        assert_eq!((shown.since, status.failures), (since, 2), "the time is when it was first seen");
        assert_eq!(lab.phase(id), Phase::Failed);
        if mended {
            lab.supply().await;
        } else {
            lab.control.stop_instance(&lab.caller, name, false, None).await.unwrap();
        }
        lab.rest(id).await;
        let phase = if mended { Phase::Running } else { Phase::Stopped };
        let status = lab.status(id).unwrap();
        assert_eq!((lab.phase(id), status.fault, status.failures), (phase, None, 0));
        assert_eq!(status.progress, "");
    }
}

#[tokio::test(start_paused = true)]
async fn every_verb_may_fail_before_or_after_its_effect_or_hang() {
    let verbs = [Verb::Observe, Verb::Start, Verb::Shutdown, Verb::Kill, Verb::Pause, Verb::Resume];
    for verb in verbs.into_iter().chain([Verb::Destroy, Verb::Attached]) {
        for fault in [Fault::FailBefore, Fault::FailAfter, Fault::HangBefore, Fault::HangAfter] {
            let lab = Lab::new().await;
            let before = lab.footprint().await;
            let id = lab.create(vm("db")).await;
            let context = format!("{verb:?} {fault:?}");
            let daemon = lab.healthy().await;
            // One fault of the verb on each leg of the way.
            let leg = async || {
                lab.host.script(verb, fault);
                lab.drive(&daemon, id).await;
                lab.host.clear_script();
            };
            leg().await;
            assert_eq!((lab.phase(id), lab.host.boots(id)), (Phase::Running, vec![1]), "{context}");
            lab.control.pause_instance(&lab.caller, "db").await.unwrap();
            leg().await;
            assert_eq!(lab.phase(id), Phase::Paused, "{context}");
            lab.control.resume_instance(&lab.caller, "db").await.unwrap();
            leg().await;
            lab.control.reboot_instance(&lab.caller, "db", verb == Verb::Kill).await.unwrap();
            leg().await;
            assert_eq!((lab.phase(id), lab.host.boots(id)), (Phase::Running, vec![1, 2]), "{context}");
            assert_eq!(lab.status(id).unwrap().fault, None, "{context}");
            lab.control.delete_instance(&lab.caller, "db").await.unwrap();
            leg().await;
            assert!(lab.host.ids().is_empty() && lab.instance(id).is_none(), "{context}");
            let after = lab.footprint().await;
            assert_eq!(after, before, "{context}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_to_stop_that_was_refused_is_made_again() {
    for fault in [Fault::FailBefore, Fault::HangBefore] {
        let lab = Lab::new().await;
        let mut new = vm("db");
        new.grace_s = Some(300);
        let id = lab.create(new).await;
        lab.rest(id).await;
        lab.host.script(Verb::Shutdown, fault);
        lab.control.stop_instance(&lab.caller, "db", false, None).await.unwrap();
        lab.rest(id).await;
        assert_eq!((lab.phase(id), lab.host.count(Verb::Kill, id)), (Phase::Stopped, 0), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_cannot_be_seen_is_still_stopped_and_deleted() {
    for fault in [Fault::FailBefore, Fault::HangBefore] {
        let lab = Lab::new().await;
        let id = lab.create(vm("db")).await;
        lab.host.behave(id, Behaviour { stops_after: None, ..Behaviour::default() });
        lab.rest(id).await;
        for _ in 0..100 {
            lab.host.script(Verb::Observe, fault);
        }
        let daemon = lab.healthy().await;
        lab.run_once(&daemon, id).await.unwrap_err();
        assert_eq!(lab.host.count(Verb::Kill, id), 0, "nobody asked for a stop");
        lab.control.stop_instance(&lab.caller, "db", false, Some(20)).await.unwrap();
        let began = Instant::now();
        while lab.host.count(Verb::Kill, id) == 0 {
            if let Ok(Outcome::After(pause)) = lab.run_once(&daemon, id).await {
                tokio::time::sleep(pause).await;
            }
            assert!(began.elapsed() < Duration::from_secs(120), "{fault:?}: its time is over");
        }
        assert!(began.elapsed() >= Duration::from_secs(20), "{fault:?}: {:?}", began.elapsed());
        lab.control.delete_instance(&lab.caller, "db").await.unwrap();
        lab.drive(&daemon, id).await;
        assert!(lab.host.ids().is_empty() && lab.instance(id).is_none(), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_fails_is_told_and_tried_again() {
    let lab = Lab::new().await;
    let id = lab.create(pod("web")).await;
    lab.network_failures.store(2, Ordering::SeqCst);
    let daemon = lab.healthy().await;
    let failures = lab.drive(&daemon, id).await;
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(failures[0].contains("network"), "{failures:?}");
    assert_eq!((lab.phase(id), lab.status(id).unwrap().fault), (Phase::Running, None));
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_nobody_runs_can_still_be_deleted() {
    let lab = Lab::new().await;
    let id = lab.create(pod("box")).await;
    let mut instance = lab.instance(id).unwrap();
    instance.kind = model::instance::Kind::System;
    lab.put(&instance).await;
    let daemon = lab.daemon(Fuse::new()).await;
    let error = lab.run_once(&daemon, id).await.unwrap_err();
    assert!(error.contains("system"), "{error}");
    lab.control.delete_instance(&lab.caller, "box").await.unwrap();
    lab.rest(id).await;
    assert!(lab.instance(id).is_none());
}

#[tokio::test(start_paused = true)]
async fn who_does_not_tell_its_use_holds_up_nobody_elses() {
    let lab = Lab::new().await;
    let mut ids = vec![];
    for name in ["one", "two", "three"] {
        let id = lab.create(pod(name)).await;
        lab.rest(id).await;
        ids.push(id);
    }
    // Two of them are asked and never answer.
    lab.host.script(Verb::Usage, Fault::HangBefore);
    lab.host.script(Verb::Usage, Fault::HangBefore);
    let Daemon { instances, store, .. } = lab.healthy().await;
    let meter = Meter::new(store, Arc::new(instances));
    tokio::time::timeout(Duration::from_secs(20), meter.look()).await.expect("the look ends");
    let asked: Vec<_> =
        lab.host.calls().iter().filter(|call| call.verb == Verb::Usage).map(|it| it.id).collect();
    assert_eq!(asked.len(), 3, "{asked:?}");
    // They are asked anew by who wants to know, and by then they answer.
    for id in ids {
        let peaks = meter.peaks(&lab.instance(id).unwrap()).await.expect("it was seen");
        assert_eq!(peaks.memory_mib, 1);
    }
    lab.host.script(Verb::Usage, Fault::HangBefore);
    let first = lab.instance(asked[0].unwrap()).unwrap();
    let known = meter.peaks(&first);
    let known = tokio::time::timeout(Duration::from_secs(20), known).await.expect("it ends");
    assert!(known.is_some(), "what was seen before");
}
