//! Starting, ending, restarting, losing the shim and losing the daemon.

use crate::lab::{Lab, leftovers, until};
use model::plan::{Body, RestartPolicy};
use node::{
    container::driver::PodDriver,
    driver::{Driver, DriverError, Seen},
};
use std::{
    fs,
    time::{Duration, Instant},
};

#[tokio::test]
async fn output_and_exit_code() {
    let mut lab = Lab::new();
    let (exit, output) = lab.run("echo hello; echo oops >&2; exit 3").await;
    assert_eq!((exit.code, exit.failed, exit.boot), (Some(3), true, 1), "{exit:?}");
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort();
    assert_eq!(lines, ["hello", "oops"]);
    let (exit, _) = lab.run("true").await;
    assert_eq!((exit.code, exit.failed), (Some(0), false), "{exit:?}");
    let (exit, _) = lab.run("kill -9 $$; echo a first process cannot kill itself").await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    lab.close().await;
}

#[tokio::test]
async fn programs_that_cannot_be_run() {
    let mut lab = Lab::new();
    for (argv, user, code, part) in [
        (vec!["nonsense"], "", 127, "not found in the container's PATH"),
        (vec!["/no/such"], "", 127, "no such file"),
        (vec!["/etc/passwd"], "", 126, "cannot be run"),
        (vec!["true"], "stranger", 125, "no user \"stranger\""),
    ] {
        let mut container = lab.container("main", "");
        container.argv = argv.iter().map(ToString::to_string).collect();
        container.user = user.into();
        let plan = lab.pod(vec![container]);
        lab.driver.start(&plan).await.unwrap();
        let exit = lab.ended(plan.id).await;
        assert_eq!(exit.code, Some(code), "{exit:?}");
        assert!(exit.failed && exit.cause.contains(part), "{exit:?}");
    }
    lab.close().await;
}

#[tokio::test]
async fn a_stop_is_asked_for_then_forced() {
    let mut lab = Lab::new();
    let polite = lab.start("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done").await;
    lab.output_with(polite.id, "up").await;
    lab.driver.shutdown(polite.id).await.unwrap();
    let exit = lab.ended(polite.id).await;
    assert_eq!((exit.code, exit.failed), (Some(7), false), "{exit:?}");
    assert!(lab.output(polite.id).await.contains("bye"));

    let deaf = lab.start("trap '' TERM; echo up; while :; do sleep 0.1; done").await;
    lab.output_with(deaf.id, "up").await;
    lab.driver.shutdown(deaf.id).await.unwrap();
    lab.running(deaf.id).await;
    lab.driver.kill(deaf.id).await.unwrap();
    let exit = lab.ended(deaf.id).await;
    assert_eq!((exit.code, exit.failed), (Some(137), false), "{exit:?}");

    // The shim itself kills after a grace period, if one is given.
    use node::container::protocol::Request;
    let deaf = lab.start("trap '' TERM; echo up; while :; do sleep 0.1; done").await;
    lab.output_with(deaf.id, "up").await;
    let since = Instant::now();
    lab.driver.ask_container(deaf.id, Request::Stop { container: None, grace_ms: Some(300) }).await.unwrap();
    assert_eq!(lab.ended(deaf.id).await.code, Some(137));
    assert!(since.elapsed().as_millis() >= 300);
    for verb in ["shutdown", "kill"] {
        let done = match verb {
            "shutdown" => lab.driver.shutdown(deaf.id).await,
            _ => lab.driver.kill(deaf.id).await,
        };
        done.unwrap_or_else(|error| panic!("{verb} of an ended pod: {error}"));
    }
    lab.close().await;
}

#[tokio::test]
async fn restart_policies() {
    let mut lab = Lab::new();
    let mut failing = lab.container("failing", "echo run; exit 1");
    failing.restart = RestartPolicy::OnFailure { retries_max: 2 };
    let plan = lab.pod(vec![failing]);
    lab.driver.start(&plan).await.unwrap();
    let exit = lab.ended(plan.id).await;
    assert_eq!(exit.code, Some(1));
    assert_eq!(lab.output(plan.id).await, "run\nrun\nrun\n");

    let mut always = lab.container("always", "echo run; sleep 0.05");
    always.restart = RestartPolicy::Always;
    let plan = lab.pod(vec![always]);
    lab.driver.start(&plan).await.unwrap();
    lab.output_with(plan.id, "run\nrun\nrun\n").await;
    let restarts = lab.running(plan.id).await.facts["containers"][0]["restarts"].as_u64().unwrap();
    assert!(restarts >= 2, "{restarts}");
    lab.driver.shutdown(plan.id).await.unwrap();
    lab.ended(plan.id).await;
    lab.close().await;
}

#[tokio::test]
async fn an_ended_pod_starts_again_with_its_files() {
    let mut lab = Lab::new();
    let mut plan = lab.start("cat /kept 2>/dev/null; cat /etc/from-image; echo again > /kept").await;
    lab.ended(plan.id).await;
    plan.boot = 2;
    lab.driver.start(&plan).await.unwrap();
    let exit = lab.ended(plan.id).await;
    assert_eq!(exit.boot, 2);
    assert_eq!(lab.output(plan.id).await, "imageagain\nimage");
    lab.close().await;
}

/// A shim that has told the end does not listen any more, and takes mounts and control groups away: nothing of the pod goes
/// under its hands.
#[tokio::test]
async fn a_shim_that_leaves_is_waited_for() {
    let mut lab = Lab::new();
    let plan = lab.start("true").await;
    lab.ended(plan.id).await;
    let run = lab.driver.places(plan.id).run;
    let mut lock = None;
    until("the shim's end", async || {
        lock = sys::file::Lock::try_create(&run.join("shim.lock")).unwrap();
        lock.is_some()
    })
    .await;
    assert!(!run.join("shim.sock").exists());
    // Stands for the shim from here on.
    let leaves = Duration::from_millis(300);
    let leaving = std::thread::spawn(move || {
        std::thread::sleep(leaves);
        drop(lock);
    });
    let began = Instant::now();
    let exit = lab.ended(plan.id).await;
    assert!(exit.code == Some(0) && began.elapsed() < leaves, "who looks is told at once: {exit:?}");
    lab.driver.destroy(plan.id).await.unwrap();
    assert!(leaving.is_finished() || began.elapsed() >= leaves);
    leaving.join().unwrap();
    lab.close().await;
}

#[tokio::test]
async fn pause_and_resume() {
    let mut lab = Lab::new();
    let plan = lab.start("i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done").await;
    lab.output_with(plan.id, "5\n").await;
    lab.driver.pause(plan.id).await.unwrap();
    lab.driver.pause(plan.id).await.unwrap();
    assert!(matches!(lab.driver.observe(plan.id).await.unwrap(), Seen::Paused(_)));
    let still = lab.output(plan.id).await.len();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(lab.output(plan.id).await.len(), still, "a paused pod does nothing");
    lab.driver.resume(plan.id).await.unwrap();
    until("more output", async || lab.output(plan.id).await.len() > still).await;
    lab.driver.pause(plan.id).await.unwrap();
    lab.driver.kill(plan.id).await.unwrap();
    lab.ended(plan.id).await;
    lab.close().await;
}

#[tokio::test]
async fn containers_of_a_pod_share_network_and_names() {
    let mut lab = Lab::new();
    let server = lab.container("server", "hostname; while :; do echo served | nc -l -p 80 127.0.0.1; done");
    let script = "hostname; until nc 127.0.0.1 80 </dev/null; do sleep 0.05; done; for kind in net ipc uts; do readlink /proc/self/ns/$kind; done";
    let client = lab.container("client", script);
    let plan = lab.pod(vec![server, client]);
    lab.driver.start(&plan).await.unwrap();
    let query =
        node::driver::LogQuery { container: Some("client".into()), follow: true, ..Default::default() };
    let lines = lab.lines(plan.id, query).await;
    let text: String = lines.iter().map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect();
    assert!(text.contains("pod-host") && text.contains("served"), "{text}");
    let pid = lab.pid(plan.id).await;
    for kind in ["net", "ipc", "uts"] {
        let server = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert!(text.contains(server.to_str().unwrap()), "{kind}: {text}");
    }
    lab.close().await;
}

#[tokio::test]
async fn a_new_daemon_finds_everything_again() {
    let mut lab = Lab::new();
    let plan = lab.start("echo up; trap 'exit 5' TERM; while :; do sleep 0.1; done").await;
    lab.output_with(plan.id, "up").await;
    let before = lab.running(plan.id).await;
    let pid = lab.pid(plan.id).await;
    // A driver remembers nothing, so a second one is what a restarted daemon has.
    lab.driver = PodDriver::new(lab.config.clone());
    assert_eq!(lab.driver.list().await.unwrap(), [plan.id]);
    assert_eq!(lab.running(plan.id).await, before);
    lab.driver.start(&plan).await.expect("starting what runs is fine");
    assert_eq!(lab.pid(plan.id).await, pid, "it was not started again");
    let mut changes = lab.driver.changes();
    lab.driver.shutdown(plan.id).await.unwrap();
    let told = tokio::time::timeout(crate::lab::PATIENCE, changes.recv()).await;
    assert_eq!(told.expect("told in time").unwrap(), plan.id);
    assert_eq!(lab.ended(plan.id).await.code, Some(5));
    lab.close().await;
}

#[tokio::test]
async fn a_killed_shim_is_found_and_cleaned_up() {
    let mut lab = Lab::new();
    let plan = lab.start("echo up; while :; do sleep 1; done").await;
    lab.output_with(plan.id, "up").await;
    let (shim, pid) = (lab.running(plan.id).await.pid, lab.pid(plan.id).await);
    kill(shim as i32);
    until("the shim's end", async || !alive(shim as i32)).await;
    assert!(alive(pid), "the container outlives its shim");
    let exit = lab.ended(plan.id).await;
    assert!(exit.failed && exit.cause.contains("shim ended unexpectedly"), "{exit:?}");
    until("the orphans' end", async || !alive(pid)).await;
    // And it can be started again.
    lab.driver.start(&plan).await.unwrap();
    lab.running(plan.id).await;
    lab.close().await;
}

#[tokio::test]
async fn shims_are_forks_of_one_process_that_nothing_depends_on() {
    let mut lab = Lab::new();
    let script = "echo up; while :; do sleep 1; done";
    let (one, two) = (lab.start(script).await, lab.start(script).await);
    let (first, second) = (lab.running(one.id).await.pid, lab.running(two.id).await.pid);
    let nursery = parent(first as i32);
    assert_eq!(nursery, parent(second as i32));
    for (shim, id) in [(first, one.id), (second, two.id)] {
        let shown = fs::read_to_string(format!("/proc/{shim}/cmdline")).unwrap();
        let directory = lab.driver.places(id).state;
        assert!(
            shown.trim_end_matches('\0').ends_with(&format!("\0shim\0{}", directory.display())),
            "{shown}"
        );
    }
    kill(nursery);
    until("the nursery's end", async || !alive(nursery)).await;
    lab.running(one.id).await;
    let three = lab.start(script).await;
    let third = lab.running(three.id).await.pid as i32;
    assert_ne!(parent(third), nursery);
    assert!(alive(first as i32) && alive(second as i32), "they outlive it");
    // What ended is not kept as a zombie.
    let nursery = parent(third);
    kill(third);
    until("nothing is left of a shim", async || !fs::exists(format!("/proc/{third}")).unwrap()).await;
    lab.close().await;
    until("the nursery's end, with its driver", async || !alive(nursery)).await;
}

/// The process that made another (proc_pid_stat(5), field 4).
fn parent(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest = stat.rsplit_once(") ").expect("a name in brackets").1;
    rest.split(' ').nth(1).expect("a parent").parse().unwrap()
}

#[tokio::test]
async fn a_start_that_fails_leaves_a_clear_error() {
    let mut lab = Lab::new();
    let mut container = lab.container("main", "true");
    container.layers = vec!["/no/such/layer".into()];
    let plan = lab.pod(vec![container]);
    lab.driver.start(&plan).await.unwrap();
    let exit = lab.ended(plan.id).await;
    assert!(exit.code == Some(125) && exit.cause.contains("/no/such/layer"), "{exit:?}");
    let mut empty = lab.pod(vec![]);
    empty.body = Body::Pod(model::plan::PodPlan {
        containers: vec![],
        extra_hosts: vec![],
        root_disk: None,
        files: vec![],
        shared: Default::default(),
        isolation: Default::default(),
    });
    assert!(matches!(lab.driver.start(&empty).await, Err(DriverError::Unsupported { .. })));
    lab.close().await;
}

#[tokio::test]
async fn destroy_ends_what_runs() {
    let mut lab = Lab::new();
    let plan = lab.start("while :; do sleep 1; done").await;
    let pid = lab.pid(plan.id).await;
    lab.driver.destroy(plan.id).await.unwrap();
    until("its end", async || !alive(pid)).await;
    let place = lab.directory.path().to_str().unwrap().to_string();
    until("nothing left", async || leftovers(&place, &lab.config.cgroup_root).is_empty()).await;
    assert!(!lab.directory.path().join("upper-0-main").exists());
    lab.close().await;
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Whether a process runs (a zombie that its new parent has not collected does not).
fn alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']))
}
