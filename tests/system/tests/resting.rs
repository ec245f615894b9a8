//! Files of stopped containers with a kernel of their own: a machine is started for them alone, and whatever happens to it, another
//! one or the container has its turn.

use crate::{
    docker::{PROJECT, finish},
    isolation::{LONG, VM, lab},
};
use api::v1::types::instance::Instance;
use lab::{Docker, Lab, eventually};
use model::instance::phase::Phase;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{fs, io::Read as _, process::Child};

/// The processes of a lab whose arguments have all of these parts.
fn processes(lab: &Lab, parts: &[&str]) -> Vec<i32> {
    let all = lab.remains().processes().into_iter();
    let fits = |arguments: &str| parts.iter().all(|part| arguments.contains(part));
    all.filter(|(_, arguments)| fits(arguments)).map(|(pid, _)| pid).collect()
}

/// The processes of QEMU that a lab has.
fn machines(lab: &Lab) -> Vec<i32> {
    processes(lab, &["guest=pod-"])
}

/// A client that has begun to read what is in a container, and does not go on.
fn slow_reader(docker: &Docker, name: &str) -> Child {
    let mut reader = docker.start(&["export", name]);
    eventually("it has begun", LONG, || {
        let mut some = [0; 512];
        reader.stdout.as_mut().expect("its output").read_exact(&mut some).is_ok()
    });
    reader
}

/// Leaves a stopped container behind that has 24 MiB of its own.
fn leave(lab: &Lab, docker: &Docker, name: &str) {
    let made = "dd if=/dev/urandom of=/big bs=1M count=24 2>/dev/null; echo ready; exec sleep 3600";
    docker.does(&["run", "-d", "--isolation", VM, "--name", name, "-m", "64m", "busybox", "sh", "-c", made]);
    eventually("it is ready", LONG, || docker.does(&["logs", name]).contains("ready"));
    docker.does(&["stop", "-t", "1", name]);
    eventually("its machine is gone", LONG, || machines(lab).is_empty());
}

/// A machine that is there for files alone is nobody's container, and whatever happens, another one or the container has its turn.
#[test]
fn files_of_a_stopped_guest_are_served_by_its_machine_alone() {
    let (mut lab, docker) = lab();
    let scratch = tempfile::tempdir().expect("a directory");
    let at = |name: &str| scratch.path().join(name).to_str().expect("text").to_string();
    fs::write(at("file"), "put there\n").expect("writes");
    leave(&lab, &docker, "own");
    let status = || docker.does(&["inspect", "--format", "{{.State.Status}} {{.State.FinishedAt}}", "own"]);
    let before = status();

    // One start serves what comes close together.
    docker.does(&["cp", &at("file"), "own:/tmp/one"]);
    let first = machines(&lab);
    assert_eq!(first.len(), 1);
    assert!(docker.does(&["diff", "own"]).contains("A /tmp/one"));
    assert_eq!((machines(&lab), status()), (first.clone(), before.clone()));
    assert_eq!(docker.does(&["ps", "-q"]), "");
    assert_eq!(docker.does(&["ps", "-a", "--size", "--format", "{{.State}}"]), "exited");
    docker.refuses(1, "is not running", &["exec", "own", "true"]);
    // A daemon that was killed meanwhile finds it, or has another one.
    lab.kill_daemon();
    lab.start_daemon();
    docker.does(&["cp", "own:/tmp/one", &at("back")]);
    assert_eq!(fs::read_to_string(at("back")).expect("reads"), "put there\n");
    eventually("nobody uses it any more", LONG, || machines(&lab).is_empty());
    assert_eq!(status(), before);

    // One that was left alone while it boots is ended, and so is one that is killed.
    let booting = docker.start(&["cp", &at("file"), "own:/tmp/two"]);
    eventually("it boots", LONG, || !machines(&lab).is_empty());
    lab.kill_daemon();
    drop(booting.wait_with_output());
    lab.start_daemon();
    docker.does(&["start", "own"]);
    assert_eq!(docker.does(&["exec", "own", "cat", "/tmp/one"]), "put there");
    docker.does(&["stop", "-t", "1", "own"]);
    docker.does(&["cp", &at("file"), "own:/tmp/three"]);
    for pid in machines(&lab) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
    }
    docker.does(&["cp", &at("file"), "own:/tmp/four"]);

    // A start does not wait for a client that reads nothing: it is broken off, and what was written before is there.
    let stuck = slow_reader(&docker, "own");
    docker.does(&["start", "own"]);
    assert_eq!(docker.does(&["exec", "own", "cat", "/tmp/four"]), "put there");
    assert!(!stuck.wait_with_output().expect("docker").status.success());
    assert_eq!(machines(&lab).len(), 1);

    // What goes takes its machine with it.
    docker.does(&["stop", "-t", "1", "own"]);
    docker.does(&["cp", &at("file"), "own:/tmp/five"]);
    docker.does(&["rm", "own"]);
    assert_eq!(machines(&lab), Vec::<i32>::new());
    finish(lab);
}

/// One project's slow readers keep that project waiting, and no other.
#[test]
fn slow_readers_of_a_guest_take_no_place_of_another_project() {
    let (lab, docker) = lab();
    leave(&lab, &docker, "own");
    let mut readers = [slow_reader(&docker, "own"), slow_reader(&docker, "own")];
    let waiting = docker.start(&["cp", "own:/etc/passwd", "-"]);

    lab.project("other");
    let other = Docker::find(&lab, "other");
    other.does(&["pull", "busybox"]);
    other.does(&["create", "--isolation", VM, "--name", "theirs", "-m", "64m", "busybox", "true"]);
    for _ in 0..2 {
        assert!(other.does(&["diff", "theirs"]).is_empty(), "nothing is written, and it is told");
    }
    let refused = waiting.wait_with_output().expect("docker");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("your project's 2 places"), "{words}");
    assert!(words.contains("start the container"), "the way out is told: {words}");
    // A place that is given back is had.
    for reader in &mut readers {
        reader.kill().expect("killed");
        reader.wait().expect("ended");
    }
    assert!(docker.does(&["diff", "own"]).contains("A /big"));
    docker.does(&["rm", "own"]);
    other.does(&["rm", "theirs"]);
    lab.project("other").empty();
    finish(lab);
}

/// The relay of a machine for files stops answering, as one that hangs does. Gives its process.
fn hang(lab: &Lab) -> i32 {
    let relays = processes(lab, &[" shim ", "/maintenance"]);
    let [relay] = relays[..] else { panic!("there is one: {relays:?}") };
    kill(Pid::from_raw(relay), Signal::SIGSTOP).expect("stopped");
    relay
}

#[test]
fn a_guest_for_files_that_hangs_is_ended_whoever_began_it() {
    let (mut lab, docker) = lab();
    let scratch = tempfile::tempdir().expect("a directory");
    let at = |name: &str| scratch.path().join(name).to_str().expect("text").to_string();
    fs::write(at("file"), "put there\n").expect("writes");
    docker.does(&["create", "--isolation", VM, "--name", "own", "-m", "64m", "busybox", "sleep", "3600"]);
    docker.does(&["cp", &at("file"), "own:/tmp/one"]);

    // Who needs it has another one in its place.
    let hung = hang(&lab);
    docker.does(&["cp", "own:/etc/passwd", &at("passwd")]);
    docker.does(&["cp", &at("file"), "own:/tmp/two"]);
    assert!(!processes(&lab, &[" shim "]).contains(&hung));

    // Who needs it gone has that, though another daemon began it, and one was killed while it waited.
    let hung = hang(&lab);
    let starting = docker.start(&["start", "own"]);
    let is_asked = || lab.project(PROJECT).get::<Instance>("own").phase != Phase::Stopped;
    eventually("it is to start", LONG, is_asked);
    lab.kill_daemon();
    drop(starting.wait_with_output());
    assert!(processes(&lab, &[" shim "]).contains(&hung));
    lab.start_daemon();
    let is_up = || docker.does(&["inspect", "--format", "{{.State.Status}}", "own"]) == "running";
    eventually("it runs", LONG, is_up);
    assert!(!processes(&lab, &[" shim "]).contains(&hung));
    assert_eq!(docker.does(&["exec", "own", "cat", "/tmp/two"]), "put there");
    assert_eq!(machines(&lab).len(), 1);
    docker.does(&["rm", "-f", "own"]);
    finish(lab);
}
