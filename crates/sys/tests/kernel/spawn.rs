//! Programs start exactly as described: user, capabilities, files, limits, namespaces, and errors instead of exit codes.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::resource::Resource;
use nix::sys::signal::Signal;
use sys::netns::NetNs;
use sys::pidfd::{Exit, PidFd, process_start_time};
use sys::spawn::{Command, PROCESS_IDS, SpawnError, Stage, Stdio};

const LONG: Duration = Duration::from_secs(20);

/// Runs a shell script and returns what it wrote and how it ended.
fn run(change: impl FnOnce(Command) -> Command, script: &str) -> (String, Exit) {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let copy = writer.try_clone().expect("a copy");
    let command = Command::new("/bin/sh").args(["-c", script]).env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    let command = command.stdout(Stdio::Fd(writer.into())).stderr(Stdio::Fd(copy.into()));
    let child = change(command).spawn().expect("spawned");
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("read");
    (text, child.wait(LONG).expect("waited").expect("ended"))
}

fn status_field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a field").trim()
}

#[test]
fn another_user_has_no_capability_and_can_gain_none() {
    let (text, exit) = run(
        |c| c.credentials(12345, 23456, [34567, 34568]).no_new_privs().setsid(),
        "cat /proc/self/status; id -G",
    );
    assert_eq!(exit, Exit::Code(0));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status_field(&text, set), "0000000000000000", "{set}");
    }
    assert_eq!(status_field(&text, "NoNewPrivs"), "1");
    assert_eq!(status_field(&text, "Uid"), "12345\t12345\t12345\t12345");
    assert_eq!(status_field(&text, "Gid"), "23456\t23456\t23456\t23456");
    assert_eq!(status_field(&text, "Groups"), "34567 34568");
    // A session of its own, and no signal blocked or ignored, whatever this test's runtime does.
    assert_eq!(
        (status_field(&text, "SigBlk"), status_field(&text, "SigIgn")),
        ("0000000000000000", "0000000000000000")
    );
    let (text, exit) = run(|c| c.credentials(12345, 23456, []), "cat /etc/shadow");
    assert_ne!(exit, Exit::Code(0), "{text}");
}

#[test]
fn a_user_of_its_own_is_that_of_no_other_process_and_stays_alone() {
    const BASE: u32 = (1 << 31) - PROCESS_IDS;
    let script = "while read -r line; do echo \"$line\"; done </proc/self/status";
    let mut seen = Vec::new();
    for _ in 0..2 {
        let (text, exit) = run(|c| c.user_of_its_own(BASE), script);
        assert_eq!(exit, Exit::Code(0), "{text}");
        let id = BASE + status_field(&text, "Pid").parse::<u32>().expect("a number");
        assert_eq!(
            status_field(&text, "Uid"),
            [id.to_string(), id.to_string(), id.to_string(), id.to_string()].join("\t")
        );
        assert_eq!(status_field(&text, "Gid"), status_field(&text, "Uid"));
        assert_eq!((status_field(&text, "Groups"), status_field(&text, "CapBnd")), ("", "0000000000000000"));
        seen.push(id);
    }
    assert_ne!(seen[0], seen[1]);
    let (text, exit) = run(|c| c.user_of_its_own(BASE), "true & wait; ulimit -u unlimited; true & wait");
    assert!(exit != Exit::Code(0) && text.contains("fork"), "{text}");
}

#[test]
fn root_stays_root_and_groups_are_those_given() {
    let (text, _) = run(|c| c.credentials(0, 0, []), "cat /proc/self/status");
    assert_eq!(status_field(&text, "Groups"), "");
    assert_ne!(status_field(&text, "CapEff"), "0000000000000000");
}

#[test]
fn only_the_files_given_reach_the_program() {
    // A leak: an open file that is not close-on-exec, as a careless library would make.
    let leak = tempfile::tempfile().expect("a file");
    sys::file::set_close_on_exec(&leak, false).expect("set");
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let (second, mut second_writer) = std::io::pipe().expect("a pipe");
    second_writer.write_all(b"swapped").expect("written");
    drop(second_writer);
    // The numbers asked for are those that the two files have here, the other way round.
    let (low, high) = (writer.as_raw_fd(), second.as_raw_fd());
    let script =
        format!("read text </proc/self/fd/{low}; echo $text >/proc/self/fd/{high}; ls /proc/self/fd");
    let (text, exit) = run(|c| c.fd(high, writer).fd(low, second), &script);
    assert_eq!(exit, Exit::Code(0), "{text}");
    let mut numbers: Vec<i32> =
        text.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    numbers.sort();
    // `ls` itself opens one more, under the lowest free number.
    let mut expected = vec![0, 1, 2, low.min(high), low.max(high)];
    let free = (3..).find(|number| !expected.contains(number)).expect("some number is free");
    expected.push(free);
    expected.sort();
    assert_eq!(numbers, expected, "leaked {}", leak.as_raw_fd());
    let mut swapped = String::new();
    reader.read_to_string(&mut swapped).expect("read");
    assert_eq!(swapped, "swapped\n");
}

#[test]
fn environment_directory_umask_and_limits_are_as_given() {
    let script = "env; pwd; umask; ulimit -Sn; ulimit -Hn; ulimit -Hc";
    let change = |c: Command| {
        let c = c.env("GREETING", "hello world").current_dir("/proc").umask(0o027);
        // No process may raise its hard limit: an impossible wish is brought down to it instead of failing.
        c.rlimit(Resource::RLIMIT_NOFILE, 64).rlimit(Resource::RLIMIT_CORE, 0)
    };
    let (text, _) = run(change, script);
    assert!(text.contains("GREETING=hello world\n"), "{text}");
    assert!(!text.contains("HOME="), "nothing is inherited: {text}");
    assert!(text.ends_with("/proc\n0027\n64\n64\n0\n"), "{text}");
    let (_, hard) = nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let (text, _) = run(|c| c.rlimit(Resource::RLIMIT_NOFILE, u64::MAX), "ulimit -Hn");
    assert_eq!(text.trim(), hard.to_string());
}

#[test]
fn it_runs_in_the_namespaces_asked_for() {
    let namespace = NetNs::anonymous().expect("we are root");
    let change = |c: Command| c.netns(&namespace).private_mounts().private_ipc();
    let (text, exit) =
        run(change, "for kind in net mnt ipc; do readlink /proc/self/ns/$kind; done; mount -t tmpfs x /mnt");
    assert_eq!(exit, Exit::Code(0), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("net:[{}]", namespace.inode().expect("an inode")));
    for (line, kind) in [(lines[1], "mnt"), (lines[2], "ipc")] {
        let ours = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a link");
        assert_ne!(line, ours.to_str().expect("text"));
    }
    assert!(!sys::mount::is_mountpoint("/mnt".as_ref()).expect("asked"), "the mount stayed in its namespace");
}

#[test]
fn failures_before_the_program_runs_are_errors_with_their_stage() {
    let stage = |command: Command| match command.spawn() {
        Err(SpawnError::Child { stage, source, .. }) => (stage, source.raw_os_error().expect("an errno")),
        other => panic!("{other:?}"),
    };
    assert_eq!(stage(Command::new("/no/such/program")), (Stage::Execute, libc::ENOENT));
    assert_eq!(stage(Command::new("/etc/passwd")), (Stage::Execute, libc::EACCES));
    assert_eq!(stage(Command::new("/bin/true").current_dir("/no/such")), (Stage::Directory, libc::ENOENT));
    assert!(matches!(Command::new("no-such-program").spawn(), Err(SpawnError::NotFound { .. })));
    assert!(matches!(Command::new("/bin/true").arg("a\0b").spawn(), Err(SpawnError::System(_))));
    let pipe = std::io::pipe().expect("a pipe").0;
    assert!(Command::new("/bin/true").fd(1, pipe).spawn().is_err(), "1 is standard output");
}

#[test]
fn a_child_is_signalled_waited_for_and_told_from_a_reused_number() {
    let child = Command::new("sleep").arg("1000").spawn().expect("spawned");
    let again = PidFd::open_started_at(child.pid(), child.start_time).expect("asked").expect("it runs");
    assert!(PidFd::open_started_at(child.pid(), child.start_time + 1).expect("asked").is_none());
    assert_eq!(child.wait(Duration::from_millis(10)).expect("waited"), None);
    assert!(!again.has_exited().expect("asked"));
    assert!(child.process.send_signal(Signal::SIGTERM).expect("sent"));
    assert_eq!(child.wait(LONG).expect("waited"), Some(Exit::Signal(libc::SIGTERM)));
    assert!(again.has_exited().expect("asked"));
    assert!(!again.send_signal(Signal::SIGTERM).expect("sent"), "nobody is there to get it");
    assert_eq!(again.wait_exit(LONG).expect("waited"), Some(Exit::Unknown), "reaped before");
    assert_eq!(
        process_start_time(child.pid()).expect("asked").filter(|time| *time == child.start_time),
        None
    );
    let child = Command::new("sh").args(["-c", "exit 7"]).spawn().expect("spawned");
    assert_eq!(child.wait(LONG).expect("waited"), Some(Exit::Code(7)));
}

#[test]
fn a_child_outlives_the_thread_that_made_it_unless_asked_not_to() {
    let (stays, dies) = std::thread::scope(|scope| {
        let make = || {
            let stays = Command::new("sleep").arg("1000").spawn().expect("spawned");
            let dies = Command::new("sleep").arg("1000").die_with_parent().spawn().expect("spawned");
            (stays, dies)
        };
        scope.spawn(make).join().expect("no panic")
    });
    assert_eq!(dies.wait(LONG).expect("waited"), Some(Exit::Signal(libc::SIGKILL)));
    assert_eq!(stays.wait(Duration::from_millis(50)).expect("waited"), None);
    stays.process.send_signal(Signal::SIGKILL).expect("sent");
    stays.wait(LONG).expect("waited").expect("ended");
}

/// Many threads spawn at once, while others allocate and lock: the child must not hang on any lock of theirs.
#[test]
fn spawning_from_many_threads_never_hangs() {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let child = Command::new("/bin/true")
                        .credentials(12345, 12345, [12345])
                        .spawn()
                        .expect("spawned");
                    assert_eq!(child.wait(LONG).expect("waited"), Some(Exit::Code(0)));
                }
            });
        }
    });
}
