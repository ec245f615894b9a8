//! The ordinary life: start, stop, reboot, pause, ends, restarts, deletion.

use crate::lab::{Lab, pod, vm};
use control::instance::NewInstance;
use model::{
    error::Code,
    instance::{Instance, State, phase::Phase},
    plan::RestartPolicy,
};
use node::{
    driver::Seen,
    fake::{Behaviour, Fault, Verb},
};
use std::time::Duration;
use tokio::time::Instant;

fn deaf() -> Behaviour {
    Behaviour { stops_after: None, ..Behaviour::default() }
}

#[tokio::test(start_paused = true)]
async fn a_created_instance_runs_with_its_ports_and_disks() {
    let lab = Lab::new().await;
    for new in [vm("db"), pod("web")] {
        let disks = usize::from(new.image.is_some());
        let id = lab.create(new).await;
        lab.rest(id).await;
        assert_eq!(lab.phase(id), Phase::Running);
        assert_eq!(lab.host.boots(id), [1]);
        let (guest, status) = (lab.host.guest(id).unwrap(), lab.status(id).unwrap());
        assert_eq!((guest.ports.len(), guest.volumes.len()), (1, disks));
        assert_eq!((status.ports.len(), status.volumes.len()), (1, disks));
        let plan = guest.plan.unwrap();
        assert_eq!(plan.nics[0].addresses.len(), 2, "IPv4 and IPv6: {plan:?}");
        assert!(status.progress.is_empty() && status.fault.is_none(), "{status:?}");
    }
}

/// Each commit waits for the disk, and whoever asked for the instance waits for it.
#[tokio::test(start_paused = true)]
async fn a_start_takes_three_commits() {
    let lab = Lab::new().await;
    for new in [vm("db"), pod("web")] {
        let id = lab.create(new).await;
        let daemon = lab.healthy().await;
        let before = daemon.store.mirror().revision();
        daemon.instances.run(id).await.unwrap();
        assert_eq!(lab.phase(id), Phase::Running);
        // That it is being started, what it may hold from now on, and that it runs.
        assert_eq!(daemon.store.mirror().revision().0 - before.0, 3, "{:?}", lab.status(id));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_asks_and_pulls_the_plug_when_the_time_is_over() {
    let lab = Lab::new().await;
    let patient = Behaviour { stops_after: Some(Duration::from_secs(20)), ..Behaviour::default() };
    for (name, behaviour, hard, killed, took_s) in [
        ("willing", Behaviour::default(), false, 0, 0..=2),
        ("slow", patient.clone(), false, 0, 20..=22),
        ("deaf", deaf(), false, 1, 30..=32),
        ("hard", patient, true, 1, 0..=0),
    ] {
        let id = lab.create(vm(name)).await;
        lab.host.behave(id, behaviour);
        lab.rest(id).await;
        lab.control.stop_instance(&lab.caller, name, hard, None).await.unwrap();
        assert_eq!(lab.phase(id), Phase::Stopping);
        let began = Instant::now();
        lab.rest(id).await;
        assert!(took_s.contains(&began.elapsed().as_secs()), "{name}: {:?}", began.elapsed());
        assert_eq!(lab.phase(id), Phase::Stopped, "{name}");
        assert_eq!(lab.host.count(Verb::Kill, id), killed, "{name}");
        assert_eq!(lab.host.boots(id), [1], "{name}");
        let status = lab.status(id).unwrap();
        assert!(status.ports.is_empty() && status.volumes.is_empty(), "{status:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_did_not_hear_is_asked_again_and_a_pod_is_not() {
    let lab = Lab::new().await;
    for (new, asked) in [(vm("db"), 3), (pod("web"), 1)] {
        let name = new.name.clone();
        let id = lab.create(new).await;
        lab.host.behave(id, deaf());
        let daemon = lab.healthy().await;
        lab.drive(&daemon, id).await;
        lab.control.stop_instance(&lab.caller, &name, false, None).await.unwrap();
        lab.drive(&daemon, id).await;
        assert_eq!(lab.host.count(Verb::Shutdown, id), asked, "{name}");
        assert_eq!(lab.phase(id), Phase::Stopped);
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspended_vm_sleeps_through_the_end_of_its_host_and_goes_on() {
    let lab = Lab::new().await;
    let id = lab.create(NewInstance { remove_on_exit: true, ..vm("db") }).await;
    lab.rest(id).await;
    lab.control.suspend_instance(&lab.caller, "db").await.unwrap();
    assert_eq!(lab.phase(id), Phase::Suspending);
    lab.rest(id).await;
    lab.control.finalize_instance(id).await.unwrap();
    assert_eq!(lab.phase(id), Phase::Suspended, "it has not ended");
    let keep = |instance: &mut Instance| {
        instance.remove_on_exit = false;
        Ok(())
    };
    lab.control.update_instance(&lab.caller, "db", keep).await.unwrap();
    let status = lab.status(id).unwrap();
    assert!(status.asleep && status.ports.is_empty() && status.volumes.is_empty(), "{status:?}");
    lab.reboot_host();
    lab.rest(id).await;
    assert_eq!(lab.phase(id), Phase::Suspended, "nothing but a wish wakes it");
    // Its hardware stays as it is.
    for refused in [
        lab.control.attach_volume(&lab.caller, "db", "none", None, false).await.map(drop),
        lab.control.try_size(&lab.caller, "db", "g2.c1m1g").await.map(drop),
        lab.control.reboot_instance(&lab.caller, "db", false).await.map(drop),
    ] {
        assert!(matches!(refused, Err(e) if matches!(e.code, Code::Conflict | Code::NotFound)));
    }
    lab.control.resume_instance(&lab.caller, "db").await.unwrap();
    assert_eq!(lab.phase(id), Phase::Resuming);
    lab.rest(id).await;
    assert_eq!(lab.phase(id), Phase::Running);
    assert_eq!(lab.host.boots(id), [1], "the boot that it was");
    lab.control.suspend_instance(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    // One that is stopped forgets; its next start is another boot.
    lab.control.stop_instance(&lab.caller, "db", false, None).await.unwrap();
    lab.rest(id).await;
    assert_eq!((lab.phase(id), lab.status(id).unwrap().asleep), (Phase::Stopped, false));
    lab.control.start_instance(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    assert_eq!(lab.host.boots(id), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_cannot_be_woken_is_tried_again_with_its_memory() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    lab.rest(id).await;
    lab.control.suspend_instance(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    lab.host.script(Verb::Start, Fault::FailBefore);
    lab.control.start_instance(&lab.caller, "db").await.unwrap();
    let daemon = lab.healthy().await;
    daemon.instances.run(id).await.unwrap_err();
    assert_eq!(lab.phase(id), Phase::Failed);
    lab.control.start_instance(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    assert_eq!((lab.phase(id), lab.host.boots(id)), (Phase::Running, vec![1]));
    let pod_id = lab.create(pod("web")).await;
    lab.rest(pod_id).await;
    let refused = lab.control.suspend_instance(&lab.caller, "web").await.unwrap_err();
    assert_eq!(refused.code, Code::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn a_reboot_runs_the_new_boot_once() {
    let lab = Lab::new().await;
    for (name, behaviour, hard, killed) in
        [("soft", Behaviour::default(), false, 0), ("deaf", deaf(), false, 1), ("hard", deaf(), true, 1)]
    {
        let id = lab.create(vm(name)).await;
        lab.host.behave(id, behaviour);
        lab.rest(id).await;
        lab.control.reboot_instance(&lab.caller, name, hard).await.unwrap();
        assert_eq!(lab.phase(id), Phase::Rebooting);
        lab.rest(id).await;
        assert_eq!(lab.host.boots(id), [1, 2], "{name}");
        assert_eq!(lab.host.count(Verb::Kill, id), killed, "{name}");
        assert_eq!(lab.phase(id), Phase::Running);
        lab.rest(id).await;
        assert_eq!(lab.host.boots(id), [1, 2], "{name}: a run more changes nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_instance_starts_anew_and_has_all_its_time_to_stop() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    lab.host.behave(id, deaf());
    lab.rest(id).await;
    lab.control.stop_instance(&lab.caller, "db", false, None).await.unwrap();
    // The machine goes down while the guest is being stopped.
    let daemon = lab.healthy().await;
    lab.run_once(&daemon, id).await.unwrap();
    lab.reboot_host();
    lab.rest(id).await;
    assert_eq!(lab.phase(id), Phase::Stopped);
    tokio::time::sleep(Duration::from_secs(100)).await;
    lab.control.start_instance(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    assert_eq!(lab.phase(id), Phase::Running);
    lab.control.stop_instance(&lab.caller, "db", false, None).await.unwrap();
    let began = Instant::now();
    lab.rest(id).await;
    assert!(began.elapsed() >= Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_start_while_it_stops_is_a_reboot() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    lab.rest(id).await;
    lab.control.stop_instance(&lab.caller, "db", false, None).await.unwrap();
    lab.control.start_instance(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    assert_eq!((lab.phase(id), lab.host.boots(id)), (Phase::Running, vec![1, 2]));
}

#[tokio::test(start_paused = true)]
async fn a_frozen_instance_keeps_what_it_has_and_goes_on() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    lab.rest(id).await;
    lab.control.pause_instance(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    assert_eq!(lab.phase(id), Phase::Paused);
    let status = lab.status(id).unwrap();
    assert_eq!((status.ports.len(), status.volumes.len()), (1, 1));
    lab.control.resume_instance(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    assert_eq!((lab.phase(id), lab.host.boots(id)), (Phase::Running, vec![1]));
    for (name, wish) in [("stop", 0), ("reboot", 1), ("delete", 2)] {
        let id = lab.create(vm(name)).await;
        lab.rest(id).await;
        lab.control.pause_instance(&lab.caller, name).await.unwrap();
        lab.rest(id).await;
        match wish {
            0 => lab.control.stop_instance(&lab.caller, name, false, None).await.unwrap(),
            1 => lab.control.reboot_instance(&lab.caller, name, false).await.unwrap(),
            _ => lab.control.delete_instance(&lab.caller, name).await.unwrap(),
        };
        lab.rest(id).await;
        match wish {
            0 => assert_eq!(lab.phase(id), Phase::Stopped),
            1 => assert_eq!(lab.host.boots(id), [1, 2]),
            _ => assert!(lab.instance(id).is_none() && lab.host.guest(id).is_none()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_ends_by_itself_follows_its_policy() {
    let lab = Lab::new().await;
    let on_failure = |retries_max| RestartPolicy::OnFailure { retries_max };
    for (n, (policy, code, boots, phase)) in [
        (RestartPolicy::No, 0, 1, Phase::Exited),
        (RestartPolicy::No, 3, 1, Phase::Exited),
        (RestartPolicy::Always, 0, 2, Phase::Running),
        (RestartPolicy::UnlessStopped, 1, 2, Phase::Running),
        (on_failure(0), 3, 2, Phase::Running),
        (on_failure(2), 3, 2, Phase::Running),
        (on_failure(2), 0, 1, Phase::Exited),
    ]
    .into_iter()
    .enumerate()
    {
        let mut new = vm(&format!("vm{n}"));
        new.restart = policy;
        let id = lab.create(new).await;
        lab.rest(id).await;
        lab.host.exit(id, code);
        lab.rest(id).await;
        assert_eq!((lab.host.boots(id).len(), lab.phase(id)), (boots, phase), "{policy:?} {code}");
        if phase == Phase::Exited {
            let State::Stopped { code: seen, failed, .. } = lab.status(id).unwrap().state else { panic!() };
            assert_eq!((seen, failed), (Some(code), code != 0));
            lab.control.start_instance(&lab.caller, &format!("vm{n}")).await.unwrap();
            lab.rest(id).await;
            assert_eq!((lab.host.boots(id), lab.phase(id)), (vec![1, 2], Phase::Running));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_through_with_its_policy_stays_ended() {
    let lab = Lab::new().await;
    for (n, policy) in
        [RestartPolicy::OnFailure { retries_max: 2 }, RestartPolicy::No].into_iter().enumerate()
    {
        let name = format!("pod{n}");
        let mut new = pod(&name);
        new.restart = policy;
        new.containers[0].spec.restart = policy;
        let id = lab.create(new).await;
        lab.rest(id).await;
        // Its shim has started the container again as often as it may, and tells how the last run ended.
        lab.host.exit(id, 1);
        lab.rest(id).await;
        assert_eq!((lab.host.boots(id).len(), lab.phase(id)), (1, Phase::Exited), "{policy:?}");
        lab.control.start_instance(&lab.caller, &name).await.unwrap();
        lab.rest(id).await;
        assert_eq!((lab.host.boots(id).len(), lab.phase(id)), (2, Phase::Running), "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn quick_ends_are_restarted_ever_slower_and_at_most_so_often() {
    let lab = Lab::new().await;
    let mut new = vm("db");
    new.restart = RestartPolicy::OnFailure { retries_max: 5 };
    new.autostart = true;
    let id = lab.create(new).await;
    lab.host.behave(id, Behaviour { exits_at_once: Some(1), ..Behaviour::default() });
    let began = Instant::now();
    lab.rest(id).await;
    assert_eq!(lab.host.boots(id).len(), 6, "one start and five restarts");
    assert!(began.elapsed() >= Duration::from_millis(100 + 200 + 400 + 800), "{:?}", began.elapsed());
    assert_eq!(lab.phase(id), Phase::Exited);
    lab.rest(id).await;
    assert_eq!(lab.host.boots(id).len(), 6, "a daemon that starts again counts no less");
    // A boot that a user asks for begins the count anew.
    lab.control.start_instance(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    assert_eq!(lab.host.boots(id).len(), 12);
}

#[tokio::test(start_paused = true)]
async fn a_healthy_time_makes_restarts_count_anew() {
    let lab = Lab::new().await;
    let mut new = vm("db");
    new.restart = RestartPolicy::OnFailure { retries_max: 1 };
    let id = lab.create(new).await;
    for boots in 2..6 {
        lab.rest(id).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        lab.host.exit(id, 1);
        lab.rest(id).await;
        assert_eq!(lab.host.boots(id).len(), boots);
    }
    lab.host.exit(id, 1);
    lab.rest(id).await;
    assert_eq!(lab.host.boots(id).len(), 5, "the second quick end in a row is the last");
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_host_brings_back_what_should_come_back() {
    let lab = Lab::new().await;
    for (n, (autostart, policy, ended, boots)) in [
        (true, RestartPolicy::No, None, 2),
        (false, RestartPolicy::No, None, 1),
        (false, RestartPolicy::Always, None, 2),
        (false, RestartPolicy::OnFailure { retries_max: 0 }, None, 2),
        (false, RestartPolicy::OnFailure { retries_max: 0 }, Some(0), 1),
    ]
    .into_iter()
    .enumerate()
    {
        let mut new = vm(&format!("vm{n}"));
        (new.autostart, new.restart) = (autostart, policy);
        let id = lab.create(new).await;
        lab.rest(id).await;
        if let Some(code) = ended {
            lab.host.exit(id, code);
            lab.rest(id).await;
        }
        lab.reboot_host();
        lab.rest(id).await;
        assert_eq!(lab.host.boots(id).len(), boots, "autostart {autostart}, {policy:?}, ended {ended:?}");
        let phase = if boots == 2 { Phase::Running } else { Phase::Exited };
        assert_eq!(lab.phase(id), phase);
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_goes_down_lets_its_guests_end() {
    let lab = Lab::new().await;
    let patient = Behaviour { stops_after: Some(Duration::from_secs(20)), ..Behaviour::default() };
    let all = [
        ("willing", Behaviour::default(), [1, 0]),
        ("slow", patient, [2, 0]),
        ("deaf", deaf(), [3, 1]),
        ("frozen", Behaviour::default(), [0, 1]),
        ("stopped", Behaviour::default(), [1, 0]),
    ];
    let mut ids = vec![];
    for (name, behaviour, _) in &all {
        let mut new = vm(name);
        new.autostart = true;
        let id = lab.create(new).await;
        lab.host.behave(id, behaviour.clone());
        lab.rest(id).await;
        ids.push(id);
    }
    lab.control.pause_instance(&lab.caller, "frozen").await.unwrap();
    lab.control.stop_instance(&lab.caller, "stopped", false, None).await.unwrap();
    for id in &ids {
        lab.rest(*id).await;
    }
    let daemon = lab.healthy().await;
    let began = Instant::now();
    daemon.instances.part().await;
    assert!(
        (30..=32).contains(&began.elapsed().as_secs()),
        "the grace of all at once: {:?}",
        began.elapsed()
    );
    assert_eq!(daemon.instances.parting_max(), Duration::from_secs(30));
    for (id, (name, _, [asked, killed])) in ids.iter().zip(&all) {
        let counts = [Verb::Shutdown, Verb::Kill].map(|verb| lab.host.count(verb, *id));
        assert_eq!(counts, [*asked, *killed], "{name}");
        assert!(!matches!(lab.host.seen(*id), Seen::Running(_) | Seen::Paused(_)), "{name}");
    }
    lab.reboot_host();
    for (id, (name, ..)) in ids.iter().zip(&all) {
        lab.rest(*id).await;
        let wanted = match *name {
            "stopped" => Phase::Stopped,
            "frozen" => Phase::Paused,
            _ => Phase::Running,
        };
        assert_eq!(lab.phase(*id), wanted, "{name} is what it was to be");
    }
}

#[tokio::test(start_paused = true)]
async fn instances_come_back_after_those_that_they_wait_for() {
    let lab = Lab::new().await;
    let mut ids = vec![];
    for (name, after) in [("web", ""), ("app", "web"), ("db", ""), ("job", "never db"), ("never", "")] {
        let mut new = vm(name);
        new.autostart = name != "never";
        let id = lab.create(new).await;
        lab.rest(id).await;
        ids.push((id, after));
    }
    let (web, db) = (ids[0].0, ids[2].0);
    // The order is told afterwards: what is made first may wait for what is made later, but nobody for each other.
    for (id, after) in &ids {
        let after: Vec<String> = after.split_whitespace().map(String::from).collect();
        lab.control.set_start_order(&lab.caller, &id.to_string(), &after).await.unwrap();
    }
    lab.control.set_start_order(&lab.caller, "web", &["db".into()]).await.unwrap();
    for circle in [["app"], ["web"], ["db"]] {
        let circle = circle.map(String::from);
        let refused = lab.control.set_start_order(&lab.caller, "db", &circle).await.unwrap_err();
        assert_eq!(
            (refused.code, refused.field.as_deref()),
            (Code::Invalid, Some("start_after")),
            "{refused}"
        );
    }
    lab.reboot_host();
    let daemon = lab.healthy().await;
    for (name, boots) in [(0, 1), (1, 1), (3, 1), (4, 1)] {
        lab.run_once(&daemon, ids[name].0).await.unwrap();
        assert_eq!(lab.host.boots(ids[name].0).len(), boots, "{name} waits");
    }
    assert_eq!(lab.status(web).unwrap().progress, "waiting for db to run");
    // Who does not start with the host is not waited for, and who cannot is no reason to stay down.
    lab.host.script(Verb::Start, Fault::FailBefore);
    lab.run_once(&daemon, db).await.unwrap_err();
    for (name, boots) in [(1, 1), (3, 2), (0, 2), (1, 2), (4, 1)] {
        lab.run_once(&daemon, ids[name].0).await.unwrap();
        assert_eq!(lab.host.boots(ids[name].0).len(), boots, "{name}, since db failed");
    }
    lab.rest(db).await;
    assert_eq!(lab.phase(db), Phase::Running);
    // A stop and a start by hand wait for nobody.
    lab.control.stop_instance(&lab.caller, "db", false, None).await.unwrap();
    lab.control.reboot_instance(&lab.caller, "web", false).await.unwrap();
    lab.rest(db).await;
    lab.rest(web).await;
    assert_eq!((lab.phase(db), lab.host.boots(web).len()), (Phase::Stopped, 3));
}

#[tokio::test(start_paused = true)]
async fn pods_come_back_with_the_host_as_their_containers_ask() {
    let lab = Lab::new().await;
    let mut ids = vec![];
    for (n, (autostart, policy, boots)) in [
        (false, RestartPolicy::No, 1),
        (true, RestartPolicy::No, 2),
        (false, RestartPolicy::Always, 2),
        (false, RestartPolicy::UnlessStopped, 2),
    ]
    .into_iter()
    .enumerate()
    {
        let mut new = pod(&format!("pod{n}"));
        new.autostart = autostart;
        new.containers[0].spec.restart = policy;
        let id = lab.create(new).await;
        lab.rest(id).await;
        ids.push((id, boots));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // One that was stopped stays so, whatever its policy.
    let mut stopped = pod("stopped");
    stopped.autostart = true;
    stopped.containers[0].spec.restart = RestartPolicy::UnlessStopped;
    let stopped = lab.create(stopped).await;
    lab.rest(stopped).await;
    lab.control.stop_instance(&lab.caller, "stopped", false, None).await.unwrap();
    lab.rest(stopped).await;
    ids.push((stopped, 1));

    lab.reboot_host();
    let daemon = lab.healthy().await;
    let made: Vec<_> = ids.iter().map(|(id, _)| *id).collect();
    assert_eq!(daemon.instances.keys().await, made, "in the order in which they were made");
    for (id, boots) in &ids {
        lab.rest(*id).await;
        assert_eq!(lab.host.boots(*id).len(), *boots, "{}", lab.instance(*id).unwrap().meta.name);
    }
    let State::Stopped { cause, .. } = lab.status(made[0]).unwrap().state else {
        panic!("it does not run");
    };
    assert_eq!(cause, "the host was restarted");
    // Autostart is for the next start of the host.
    let autostart = |instance: &mut model::instance::Instance| {
        instance.autostart = true;
        Ok(())
    };
    lab.control.update_instance(&lab.caller, "pod0", autostart).await.unwrap();
    lab.rest(made[0]).await;
    assert_eq!(lab.host.boots(made[0]).len(), 1);
    lab.reboot_host();
    lab.rest(made[0]).await;
    assert_eq!(lab.host.boots(made[0]).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_daemon_touches_no_guest() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    lab.rest(id).await;
    let (seen, calls) = (lab.host.seen(id), lab.host.calls().len());
    for _ in 0..3 {
        lab.rest(id).await;
    }
    assert_eq!(lab.host.seen(id), seen);
    let changes = lab.host.calls().split_off(calls);
    assert!(changes.iter().all(|c| matches!(c.verb, Verb::Observe | Verb::Attached)), "{changes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_instance_leaves_nothing() {
    let lab = Lab::new().await;
    for (name, stopped) in [("running", false), ("stopped", true)] {
        let before = lab.footprint().await;
        for new in [vm(name), pod(&format!("{name}-pod"))] {
            let name = new.name.clone();
            let id = lab.create(new).await;
            lab.rest(id).await;
            if stopped {
                lab.control.stop_instance(&lab.caller, &name, true, None).await.unwrap();
                lab.rest(id).await;
            }
            let state = lab.dir.path().join("instances").join(id.to_string());
            std::fs::create_dir_all(state.join("upper")).unwrap();
            lab.control.delete_instance(&lab.caller, &name).await.unwrap();
            assert_eq!(lab.phase(id), Phase::Deleting);
            lab.rest(id).await;
            assert!(lab.host.guest(id).is_none() && !state.exists());
        }
        assert_eq!(lab.footprint().await, before);
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_goes_at_its_end_goes() {
    let lab = Lab::new().await;
    let mut new = pod("job");
    new.remove_on_exit = true;
    let id = lab.create(new).await;
    lab.rest(id).await;
    lab.host.exit(id, 0);
    lab.rest(id).await;
    assert!(lab.instance(id).is_none() && lab.status(id).is_none());
    assert!(lab.host.ids().is_empty());
}

#[tokio::test(start_paused = true)]
async fn strays_are_removed_and_others_stay() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    lab.rest(id).await;
    let mut stray = lab.host.guest(id).unwrap().plan.unwrap();
    stray.id = model::id::InstanceId::from_random([7; 16]);
    lab.host.litter(&stray);
    let daemon = lab.healthy().await;
    let keys = daemon.instances.keys().await;
    assert_eq!(keys.len(), 2);
    for key in keys {
        lab.drive(&daemon, key).await;
    }
    assert_eq!(lab.host.ids(), [id]);
    assert_eq!(lab.phase(id), Phase::Running);
}
