//! What a process may do only while it has a single thread. So this test has no harness, which would start threads: each check
//! runs in turn, in this process or in a fork of it, and the first that fails ends the program with a panic.

use std::{io, os::fd::AsFd};

use sys::jail::{
    privilege,
    process::{self, Ended, Fork, namespace},
};

fn main() {
    // What test runners ask of a program that stands for one test.
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("alone: test");
        }
        return;
    }
    a_fork_is_waited_for_and_signalled();
    threads_forbid_forks();
    namespaces_are_new_and_can_be_joined();
    what_is_dropped_is_gone_for_good();
    println!("test result: ok. 1 passed; 0 failed");
}

/// Runs `work` in a fork, in these new namespaces.
fn in_child(namespaces: u64, work: impl FnOnce() -> i32) -> Ended {
    let pid = Fork { namespaces, ..Fork::default() }.spawn(work).expect("there is one thread");
    process::wait(pid, true).expect("waited").expect("ended")
}

fn a_fork_is_waited_for_and_signalled() {
    assert_eq!(in_child(0, || 7), Ended::Code(7));
    assert_eq!(in_child(0, || panic!("as it should")), Ended::Code(101));
    let pid = Fork::default()
        .spawn(|| {
            loop {
                std::thread::park()
            }
        })
        .expect("there is one thread");
    assert_eq!(process::wait(pid, false).expect("asked"), None, "it runs");
    let handle = process::open_pidfd(pid).expect("a handle");
    process::signal_pidfd(handle.as_fd(), libc::SIGKILL).expect("sent");
    let ended = process::wait(pid, true).expect("waited").expect("ended");
    assert_eq!((ended, ended.shell_code()), (Ended::Signal(libc::SIGKILL), 137));
    process::signal_pidfd(handle.as_fd(), libc::SIGKILL).expect("one that has ended is no error");
}

fn threads_forbid_forks() {
    let (wait, end) = io::pipe().expect("a pipe");
    let thread = std::thread::spawn(move || io::read_to_string(wait));
    assert_eq!(process::refuse_threads().expect_err("two").kind(), io::ErrorKind::InvalidInput);
    assert!(Fork::default().spawn(|| 0).is_err());
    drop(end);
    thread.join().expect("no panic").expect("the end");
    // A thread is counted until the kernel has let go of it, a moment after it was joined.
    while process::refuse_threads().is_err() {
        std::thread::yield_now();
    }
}

fn namespaces_are_new_and_can_be_joined() {
    let name = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace");
    let own = name("uts");
    let ended = in_child(namespace::UTS | namespace::IPC, || {
        if name("uts") == own || name("ipc").as_os_str().is_empty() {
            return 1;
        }
        let outside = std::fs::File::open(format!("/proc/{}/ns/uts", std::os::unix::process::parent_id()));
        process::join(outside.expect("opened").as_fd(), namespace::UTS).expect("joined");
        i32::from(name("uts") != own)
    });
    assert_eq!(ended, Ended::Code(0));
}

fn what_is_dropped_is_gone_for_good() {
    let status = |field: &str| {
        let text = std::fs::read_to_string("/proc/self/status").expect("status");
        let line = text.lines().find_map(|line| line.strip_prefix(field)).map(str::trim);
        line.expect("a field").to_string()
    };
    let ended = in_child(0, || {
        privilege::bound_capabilities(0).expect("bound");
        privilege::set_no_new_privileges().expect("set");
        privilege::set_ids(1, 1, &[]).expect("set");
        privilege::set_capabilities(0).expect("set");
        for field in ["CapEff:", "CapPrm:", "CapBnd:", "CapInh:", "CapAmb:"] {
            assert_eq!(u64::from_str_radix(&status(field), 16), Ok(0), "{field}");
        }
        assert_eq!((status("NoNewPrivs:"), status("Uid:")), ("1".into(), "1\t1\t1\t1".into()));
        assert!(privilege::set_ids(0, 0, &[]).is_err(), "and does not come back");
        0
    });
    assert_eq!(ended, Ended::Code(0));
}
