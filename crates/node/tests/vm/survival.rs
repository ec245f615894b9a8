//! What a restart of the daemon, a start cut short and the death of QEMU leave, and how it is found.

use crate::lab::{BOOT_DEADLINE, Lab, Terminal, wait_seen};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use node::driver::{Driver, Seen};
use std::fs;

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
