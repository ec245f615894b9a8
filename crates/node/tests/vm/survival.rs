//! What a restart of the daemon, a start cut short and the death of QEMU leave, and how it is found.

use crate::lab::{BOOT_DEADLINE, Lab, Terminal, wait_seen};
use model::{id::InstanceId, plan::InstancePlan};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use node::driver::{Driver, DriverError, Seen};
use std::{fs, path::Path, process::Command, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn vm_is_found_again_by_a_new_driver() {
    let lab = Lab::new();
    let plan = lab.plan();
    let first = lab.driver();
    first.start(&plan).await.unwrap();
    let before = first.observe(plan.id).await.unwrap();
    Terminal::open(&first, plan.id).await.expect("login:", BOOT_DEADLINE).await;
    drop(first);

    let second = lab.driver();
    assert_eq!(second.list().await.unwrap(), [plan.id]);
    let (Seen::Running(before), Seen::Running(after)) = (before, second.observe(plan.id).await.unwrap())
    else {
        panic!("it runs")
    };
    assert_eq!((before.pid, before.since_ms, before.boot), (after.pid, after.since_ms, after.boot));
    // The past of the console comes from the log, and the guest still listens.
    let mut terminal = Terminal::open(&second, plan.id).await;
    terminal.log_in().await;
    second.start(&plan).await.unwrap();
    let Seen::Running(again) = second.observe(plan.id).await.unwrap() else { panic!("it runs") };
    assert_eq!(again.pid, after.pid);
    drop(second);
    let third = lab.driver();
    third.destroy(plan.id).await.unwrap();
    assert_eq!(third.observe(plan.id).await.unwrap(), Seen::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_powered_off_while_nobody_looked_is_told_from_one_that_crashed() {
    let lab = Lab::new();
    let plan = lab.plan();
    let first = lab.driver();
    first.start(&plan).await.unwrap();
    let mut terminal = Terminal::open(&first, plan.id).await;
    terminal.log_in().await;
    terminal.send("sleep 5; poweroff -f\n").await;
    terminal.expect("poweroff", BOOT_DEADLINE).await;
    drop(first);

    let second = lab.driver();
    let seen = wait_seen(&second, plan.id, |seen| matches!(seen, Seen::Stopped(_))).await;
    let Seen::Stopped(exit) = seen else { panic!("it stopped") };
    assert_eq!((exit.cause.as_str(), exit.failed), ("powered off by the guest", false));
    second.destroy(plan.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_qemu_is_seen_at_once_with_its_cause() {
    let lab = Lab::new();
    let driver = lab.driver();
    let plan = lab.plan();
    driver.start(&plan).await.unwrap();
    let Seen::Running(running) = driver.observe(plan.id).await.unwrap() else { panic!("it runs") };
    let mut changes = driver.changes();
    kill(Pid::from_raw(running.pid as i32), Signal::SIGKILL).unwrap();
    // The driver tells by itself.
    while changes.recv().await.unwrap() != plan.id {}
    let seen = wait_seen(&driver, plan.id, |seen| matches!(seen, Seen::Stopped(_))).await;
    let Seen::Stopped(exit) = seen else { panic!("it stopped") };
    assert_eq!((exit.code, exit.failed, exit.boot), (Some(137), true, 1));
    assert!(exit.cause.starts_with("QEMU was killed by signal 9"), "{}", exit.cause);
    // And a driver that comes later is told the same.
    assert_eq!(lab.driver().observe(plan.id).await.unwrap(), Seen::Stopped(exit));
    driver.destroy(plan.id).await.unwrap();
}

/// The host's memory is gone: all that stands in the run directory, and every process.
fn restart_host(lab: &Lab, id: InstanceId) {
    lab.cgroups.kill(&id.to_string()).unwrap();
    fs::remove_dir_all(lab.settings().run).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_sleeps_through_a_restart_of_its_host_and_goes_on() {
    let lab = Lab::new();
    let mut plan = lab.plan();
    plan.disks = vec![lab.disk("root"), lab.disk("second")];
    let first = lab.driver();
    first.start(&plan).await.unwrap();
    let mut terminal = Terminal::open(&first, plan.id).await;
    terminal.log_in().await;
    terminal.run("echo in-memory >/tmp/kept").await;
    let boot = terminal.run("cat /proc/sys/kernel/random/boot_id").await;
    // What was plugged in while it ran stays where it is, though a cold start would put it elsewhere.
    let gone = plan.disks.remove(1);
    let late = lab.disk("late");
    first.attach_disk(plan.id, &late).await.unwrap();
    first.detach_disk(plan.id, gone.volume).await.unwrap();
    plan.disks.push(late.clone());
    for _ in 0..2 {
        first.suspend(plan.id).await.unwrap();
        assert_eq!(first.observe(plan.id).await.unwrap(), Seen::Asleep { boot: 1 });
    }
    assert!(lab.cgroups.processes(&plan.id.to_string()).unwrap().is_empty(), "its memory is given back");
    restart_host(&lab, plan.id);

    let second = lab.driver();
    assert_eq!(second.list().await.unwrap(), [plan.id]);
    assert_eq!(second.observe(plan.id).await.unwrap(), Seen::Asleep { boot: 1 });
    let other = InstancePlan { disks: vec![plan.disks[0].clone(), lab.disk("other")], ..plan.clone() };
    let refused = second.start(&other).await.unwrap_err();
    assert!(matches!(refused, DriverError::Unsupported { .. }), "{refused}");
    second.start(&plan).await.unwrap();
    let Seen::Running(running) = second.observe(plan.id).await.unwrap() else { panic!("it runs") };
    assert_eq!(running.boot, 1);
    let mut terminal = Terminal::open(&second, plan.id).await;
    let after = terminal.run("cat /tmp/kept /proc/sys/kernel/random/boot_id").await;
    assert!(after.contains("in-memory"), "{after}");
    let id = boot.lines().find(|line| line.trim().len() == 36).expect("a boot id").trim();
    assert!(after.contains(id), "{boot} and then {after}");
    let disk = terminal.run("cat /sys/block/vd*/serial; echo written >/dev/vdc; sync").await;
    assert!(disk.contains(&late.serial), "{disk}");

    // Another boot throws the memory away.
    second.suspend(plan.id).await.unwrap();
    second.start(&InstancePlan { boot: 2, ..plan.clone() }).await.unwrap();
    let Seen::Running(running) = second.observe(plan.id).await.unwrap() else { panic!("it runs") };
    assert_eq!(running.boot, 2);
    assert!(!lab.settings().state.join(plan.id.to_string()).join("memory").exists());
    second.suspend(plan.id).await.unwrap();
    second.discard(plan.id).await.unwrap();
    let Seen::Stopped(exit) = second.observe(plan.id).await.unwrap() else { panic!("it is off") };
    assert_eq!((exit.boot, exit.failed), (2, false));
    second.destroy(plan.id).await.unwrap();
    assert_eq!(second.observe(plan.id).await.unwrap(), Seen::Absent);
}

/// A sleep that was cut short and is not wanted any more leaves nothing, and the guest goes on.
async fn sleep_is_given_up(lab: &Lab, plan: &InstancePlan) {
    let state = lab.settings().state.join(plan.id.to_string());
    let driver = lab.driver();
    for pause_ms in [50, 100, 200, 400, 0] {
        // As if the daemon had been killed in the middle of the transfer.
        let cut = tokio::time::timeout(Duration::from_millis(pause_ms), driver.suspend(plan.id)).await;
        assert!(!matches!(cut, Ok(Err(_))), "{cut:?}");
        if state.join("memory.part").exists() || matches!(cut, Ok(Ok(()))) {
            break;
        }
    }
    drop(driver);
    let driver = lab.driver();
    match driver.observe(plan.id).await.unwrap() {
        Seen::Asleep { .. } => driver.start(plan).await.unwrap(),
        _ => {
            fs::write(state.join("memory.part"), "what another try left").unwrap();
            driver.resume(plan.id).await.unwrap();
        }
    }
    assert!(matches!(driver.observe(plan.id).await.unwrap(), Seen::Running(_)));
    for name in ["memory.part", "memory", "places.json"] {
        assert!(!state.join(name).exists(), "{name} is left");
    }
    let kept = Terminal::open(&driver, plan.id).await.run("cat /tmp/kept").await;
    assert!(kept.contains("in-memory"), "{kept}");
}

/// Where the memory of a guest does not fit it is told with numbers, and the guest is not even stopped.
async fn no_room_for_memory(lab: &Lab, plan: &InstancePlan) {
    let (driver, place) = (lab.driver(), lab.settings().state.join(plan.id.to_string()));
    let moved = lab.directory.path().join("moved");
    let copy = |from: &Path, to: &Path| {
        let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
        assert!(copied.success());
    };
    fs::create_dir(&moved).unwrap();
    copy(&place, &moved);
    sys::mount::tmpfs(&place, 70 << 20, 0o700).unwrap();
    copy(&moved, &place);
    let refused = driver.suspend(plan.id).await.unwrap_err();
    let seen = driver.observe(plan.id).await.unwrap();
    sys::mount::unmount(&place).unwrap();
    let DriverError::NoRoom { source, .. } = &refused else { panic!("{refused:?}") };
    assert!(source.wanted_bytes > 16 << 20 && source.free_bytes <= 70 << 20, "{source}");
    assert!(matches!(seen, Seen::Running(_)), "it runs on: {seen:?}");
}

/// What goes wrong after the memory was taken from the disk costs no guest its life: it goes on with the next try.
async fn wakes_at_the_second_try(lab: &Lab, plan: &InstancePlan) {
    let (driver, state) = (lab.driver(), lab.settings().state.join(plan.id.to_string()));
    driver.suspend(plan.id).await.unwrap();
    // What cannot be removed as a file stands in the way, behind the memory.
    fs::create_dir(state.join("memory.part")).unwrap();
    driver.start(plan).await.unwrap_err();
    assert!(!state.join("memory").exists());
    let Seen::Paused(frozen) = driver.observe(plan.id).await.unwrap() else {
        panic!("it is there, and frozen")
    };
    fs::remove_dir(state.join("memory.part")).unwrap();
    driver.resume(plan.id).await.unwrap();
    let Seen::Running(running) = driver.observe(plan.id).await.unwrap() else { panic!("it runs") };
    assert_eq!(running.pid, frozen.pid);
    assert!(!state.join("places.json").exists());
    let kept = Terminal::open(&driver, plan.id).await.run("cat /tmp/kept").await;
    assert!(kept.contains("in-memory"), "{kept}");
}

/// Memory whose record cannot be read is kept and told of, until somebody throws it away.
async fn memory_without_a_record(lab: &Lab, plan: &InstancePlan) {
    let (driver, state) = (lab.driver(), lab.settings().state.join(plan.id.to_string()));
    driver.suspend(plan.id).await.unwrap();
    let record = fs::read(state.join("vm.json")).unwrap();
    for damaged in [Some("{"), None] {
        match damaged {
            Some(text) => fs::write(state.join("vm.json"), text).unwrap(),
            None => fs::remove_file(state.join("vm.json")).unwrap(),
        }
        for boot in [1, 2] {
            let refused = driver.start(&InstancePlan { boot, ..plan.clone() }).await.unwrap_err();
            assert!(matches!(refused, DriverError::Unsupported { .. }), "{refused:?}");
        }
        let told = driver.observe(plan.id).await.unwrap_err().to_string();
        assert!(told.contains("record of its machine is lost"), "{told}");
        assert!(state.join("memory").exists(), "kept");
    }
    fs::write(state.join("vm.json"), record).unwrap();
    driver.start(plan).await.unwrap();
    let kept = Terminal::open(&driver, plan.id).await.run("cat /tmp/kept").await;
    assert!(kept.contains("in-memory"), "{kept}");
    driver.suspend(plan.id).await.unwrap();
    fs::write(state.join("vm.json"), "{").unwrap();
    driver.discard(plan.id).await.unwrap();
    assert!(!state.join("memory").exists());
    assert!(!matches!(driver.observe(plan.id).await.unwrap(), Seen::Asleep { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn sleep_that_was_cut_short_is_begun_again() {
    let lab = Lab::new();
    let plan = lab.plan();
    let driver = lab.driver();
    driver.start(&plan).await.unwrap();
    let mut terminal = Terminal::open(&driver, plan.id).await;
    terminal.log_in().await;
    terminal.run("echo in-memory >/tmp/kept").await;
    drop(driver);
    no_room_for_memory(&lab, &plan).await;
    sleep_is_given_up(&lab, &plan).await;
    wakes_at_the_second_try(&lab, &plan).await;
    let driver = lab.driver();
    // As if the daemon had died in the middle of the transfer.
    for pause_ms in [0, 20, 100, 400] {
        let cut = tokio::time::timeout(Duration::from_millis(pause_ms), driver.suspend(plan.id)).await;
        if matches!(cut, Ok(Ok(()))) {
            break;
        }
    }
    drop(driver);
    let driver = lab.driver();
    driver.suspend(plan.id).await.unwrap();
    assert_eq!(driver.observe(plan.id).await.unwrap(), Seen::Asleep { boot: 1 });
    for pause_ms in [0, 20, 100, 400] {
        let cut = tokio::time::timeout(Duration::from_millis(pause_ms), driver.start(&plan)).await;
        if matches!(cut, Ok(Ok(()))) {
            break;
        }
        match driver.observe(plan.id).await.unwrap() {
            Seen::Asleep { boot: 1 } | Seen::Paused(_) => {}
            Seen::Running(_) => break,
            seen => panic!("{seen:?}"),
        }
    }
    drop(driver);
    let driver = lab.driver();
    match driver.observe(plan.id).await.unwrap() {
        Seen::Paused(_) => driver.resume(plan.id).await.unwrap(),
        _ => driver.start(&plan).await.unwrap(),
    }
    let mut terminal = Terminal::open(&driver, plan.id).await;
    let kept = terminal.run("cat /tmp/kept").await;
    assert!(kept.contains("in-memory"), "{kept}");
    drop(driver);
    memory_without_a_record(&lab, &plan).await;
    lab.driver().destroy(plan.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_that_hangs_is_seen_in_time_and_can_be_killed() {
    let lab = Lab::new();
    let driver = lab.driver();
    let plan = lab.plan();
    driver.start(&plan).await.unwrap();
    let Seen::Running(running) = driver.observe(plan.id).await.unwrap() else { panic!("it runs") };
    kill(Pid::from_raw(running.pid as i32), Signal::SIGSTOP).unwrap();
    let begin = std::time::Instant::now();
    let Seen::Running(hung) = driver.observe(plan.id).await.unwrap() else { panic!("its process is there") };
    assert!(begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
    assert!(hung.facts["monitor"].as_str().unwrap().contains("did not answer"), "{:?}", hung.facts);
    driver.destroy(plan.id).await.unwrap();
    assert_eq!(driver.observe(plan.id).await.unwrap(), Seen::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn start_that_was_cut_short_is_finished_by_the_next() {
    let lab = Lab::new();
    let plan = lab.plan();
    let driver = lab.driver();
    driver.start(&plan).await.unwrap();
    let Seen::Running(running) = driver.observe(plan.id).await.unwrap() else { panic!("it runs") };
    drop(driver);
    // As if the daemon had died between starting QEMU and writing down which process it is.
    let record = lab.settings().run.join(plan.id.to_string()).join("process.json");
    fs::remove_file(&record).unwrap();
    let driver = lab.driver();
    let Seen::Stopped(exit) = driver.observe(plan.id).await.unwrap() else {
        panic!("its boot did not happen")
    };
    assert_eq!((exit.boot, exit.cause.as_str()), (0, "its start was cut short"));
    driver.start(&plan).await.unwrap();
    let Seen::Running(again) = driver.observe(plan.id).await.unwrap() else { panic!("it runs") };
    assert_ne!(again.pid, running.pid);
    assert_eq!(lab.cgroups.processes(&plan.id.to_string()).unwrap(), [again.pid as i32]);

    // A pid that another process has now is not taken for QEMU.
    let text = fs::read_to_string(&record).unwrap();
    let own = text.replace(&format!("\"pid\": {}", again.pid), &format!("\"pid\": {}", std::process::id()));
    assert_ne!(own, text);
    fs::write(&record, own).unwrap();
    let later = lab.driver();
    assert!(matches!(later.observe(plan.id).await.unwrap(), Seen::Stopped(_)));
    later.destroy(plan.id).await.unwrap();
    assert!(!lab.cgroups.exists(&plan.id.to_string()).unwrap());
}
