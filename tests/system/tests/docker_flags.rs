//! Flags of `docker run` that change what a container finds around it, given by docker's own client.

use crate::docker::{finish, lab};
use lab::{Docker, eventually};
use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, time::Duration};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn an_init_collects_hands_signals_on_and_ends_with_the_program() {
    let (lab, docker) = lab();
    docker.does(&["pull", "busybox"]);
    let words = "trap 'exit 5' TERM; (sleep 0.2 &); while :; do sleep 0.1; done";
    docker.does(&["run", "-d", "--init", "--name", "kept", "busybox", "sh", "-c", words]);
    let see = |text: &str| docker.does(&["exec", "kept", "sh", "-c", text]);
    assert_eq!(see("cat /proc/1/comm; tr -d '\\0' </proc/1/cmdline"), "init\ninit");
    assert_eq!(see("readlink /proc/1/exe || ls /proc/1/root/ 2>/dev/null || echo closed"), "closed");
    assert_eq!(see("grep NoNewPrivs /proc/1/status | tr -d '\\t'"), "NoNewPrivs:1");
    eventually("what nobody waits for is collected", LONG, || !see("ps -o stat,args").contains('Z'));
    assert_eq!(docker.does(&["inspect", "--format", "{{.HostConfig.Init}}", "kept"]), "true");
    docker.does(&["stop", "kept"]);
    assert_eq!(docker.does(&["inspect", "--format", "{{.State.ExitCode}}", "kept"]), "5");
    for (words, code) in [("exit 7", 7), ("kill -9 $$", 137)] {
        assert_eq!(
            docker.says(&["run", "--rm", "--init", "busybox", "sh", "-c", words]).code,
            code,
            "{words}"
        );
    }
    docker.refuses(
        127,
        "executable file not found",
        &["run", "--rm", "--init", "busybox", "no-such-program"],
    );
    let said = docker.says(&[
        "run",
        "--rm",
        "--init",
        "-u",
        "7:8",
        "-w",
        "/tmp",
        "busybox",
        "sh",
        "-c",
        "id -u; pwd; echo $$",
    ]);
    assert_eq!(said.out.trim(), "7\n/tmp\n2");
    let typed = docker.typed("tty; exit 4\n", &["run", "--rm", "-it", "--init", "busybox", "sh"]);
    assert!(
        typed.code == 4 && typed.out.contains("/dev/pts/0") && !typed.out.contains("job control"),
        "{typed:?}"
    );
    finish(lab);
}

#[test]
fn what_is_unhealthy_is_started_again_if_it_says_so() {
    let (lab, docker) = lab();
    docker.does(&["pull", "busybox"]);
    let run = |name: &str, policy: &str| {
        let words = "rm -f /ill; trap 'exit 0' TERM; while :; do sleep 0.1; done";
        let health =
            ["--health-cmd", "test ! -e /ill", "--health-interval", "200ms", "--health-retries", "2"];
        let begin = ["run", "-d", "--name", name, "--restart", policy];
        let end = ["busybox", "sh", "-c", words];
        docker.does(&[&begin[..], &health, &end].concat());
    };
    run("again", "on-unhealthy");
    run("left", "on-failure");
    let told = |name: &str, what: &str| docker.does(&["inspect", "--format", what, name]);
    let health = |name: &str| told(name, "{{.State.Health.Status}}");
    for name in ["again", "left"] {
        eventually("health", LONG, || health(name) == "healthy");
        docker.does(&["exec", name, "touch", "/ill"]);
    }
    assert_eq!(told("again", "{{.HostConfig.RestartPolicy.Name}}"), "on-unhealthy");
    // It ends well when it is asked to, and is started again for what it was found to be.
    eventually("a restart", LONG, || told("again", "{{.RestartCount}}") != "0");
    eventually("health again", LONG, || health("again") == "healthy");
    eventually("the other is told", LONG, || health("left") == "unhealthy");
    assert_eq!(told("left", "{{.RestartCount}} {{.State.Running}}"), "0 true");
    docker.does(&["stop", "again"]);
    assert_eq!(told("again", "{{.State.Status}} {{.State.ExitCode}}"), "exited 0");
    finish(lab);
}

#[test]
fn a_container_finds_the_memory_names_and_groups_that_were_asked_for() {
    let (lab, docker) = lab();
    docker.does(&["pull", "busybox"]);
    let flags = "run --rm --shm-size 1m --dns 192.0.2.53 --dns-search shop.example --dns-option ndots:3 --group-add 11 -u 7 \
                 --tmpfs /t:size=1m,mode=0750,uid=7,gid=8,noexec --tmpfs /r:ro \
                 --mount type=tmpfs,dst=/m,tmpfs-size=8192,tmpfs-mode=0700 busybox sh -c";
    let script = "df -k /dev/shm /t /m | awk 'NR>1 {print $2}'; grep -v options /etc/resolv.conf; \
                  grep -o ndots:3 /etc/resolv.conf; id -G; stat -c '%a %u %g' /t /m; printf '#!/bin/sh\n' >/t/x; \
                  chmod +x /t/x; /t/x 2>&1 | grep -o 'Permission denied'; touch /r/x 2>&1 | grep -o Read-only";
    let asked: Vec<&str> = flags.split_whitespace().chain([script]).collect();
    let said = docker.does(&asked);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..3], ["1024", "1024", "8"], "{said}");
    assert_eq!(lines[3..6], ["search shop.example", "nameserver 192.0.2.53", "ndots:3"], "{said}");
    assert_eq!(lines[6..], ["0 11", "750 7 8", "700 0 0", "Permission denied", "Read-only"], "{said}");
    docker.does(&[
        "create",
        "--name",
        "told",
        "--tmpfs",
        "/t:size=1m",
        "--shm-size",
        "2m",
        "--dns",
        "192.0.2.53",
        "busybox",
    ]);
    let told = docker.does(&[
        "inspect",
        "--format",
        "{{.HostConfig.Tmpfs}} {{.HostConfig.ShmSize}} {{.HostConfig.Dns}}",
        "told",
    ]);
    assert_eq!(told, "map[/t:size=1048576] 2097152 [192.0.2.53]");
    docker.refuses(
        125,
        "invalid tmpfs option",
        &["run", "--rm", "--tmpfs", "/t:huge=always", "busybox", "true"],
    );
    let four = "run --rm --dns 192.0.2.1 --dns 192.0.2.2 --dns 192.0.2.3 --dns 192.0.2.4 busybox true";
    docker.refuses(125, "4 name servers", &four.split(' ').collect::<Vec<_>>());
    finish(lab);
}

#[test]
fn of_a_range_of_ports_each_container_has_the_next_that_is_free() {
    let (lab, docker) = lab();
    docker.does(&["pull", "busybox"]);
    let run = |name: &str| {
        ["run", "-d", "-p", "47100-47102:80", "--name", name, "busybox", "sleep", "1000000"].map(String::from)
    };
    let publish = |name: &str| docker.does(&run(name).iter().map(String::as_str).collect::<Vec<_>>());
    let ports = || -> BTreeSet<String> {
        let told = docker.does(&["ps", "--format", "{{.Names}} {{.Ports}}"]);
        told.lines()
            .filter_map(|line| Some(line.split(':').nth(1)?.split("->").next()?.to_string()))
            .collect()
    };
    // Two at the same moment do not meet.
    std::thread::scope(|scope| {
        let both = ["one", "two"].map(|name| scope.spawn(move || publish(name)));
        for one in both {
            one.join().expect("it is published");
        }
    });
    publish("three");
    assert_eq!(ports(), BTreeSet::from(["47100", "47101", "47102"].map(String::from)));
    let arguments = run("four");
    docker.refuses(
        125,
        "no tcp port of the host from 47100 to 47102 is free",
        &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    docker.does(&["rm", "-f", "two"]);
    publish("five");
    assert_eq!(ports().len(), 3);
    finish(lab);
}

fn time(docker: &Docker, name: &str, what: &str) -> String {
    docker.does(&["inspect", "--format", &format!("{{{{.State.{what}}}}}"), name])
}

#[test]
fn what_has_ended_is_told_with_its_start_and_its_size() {
    let (lab, docker) = lab();
    docker.does(&["pull", "busybox"]);
    docker.does(&["run", "--name", "brief", "busybox", "sh", "-c", "head -c 300000 /dev/zero >/file"]);
    let told = |what: &str| time(&docker, "brief", what).parse::<jiff::Timestamp>().expect("a time");
    let (started, finished) = (told("StartedAt"), told("FinishedAt"));
    assert!(started.as_second() > 0 && started <= finished, "{started} {finished}");
    docker.does(&["create", "--name", "never", "busybox"]);
    assert!(time(&docker, "never", "StartedAt").starts_with("0001"));
    assert_eq!(docker.does(&["inspect", "-s", "--format", "{{.SizeRw}}", "brief"]), "300000");
    let listed = docker.does(&["ps", "-as", "--format", "{{.Names}} {{.Size}}"]);
    assert!(listed.contains("brief 300kB (virtual ") && listed.contains("never 0B (virtual "), "{listed}");
    docker.does(&["run", "-d", "--name", "long", "busybox", "sleep", "1000000"]);
    let before = time(&docker, "long", "StartedAt");
    docker.does(&["kill", "long"]);
    docker.does(&["wait", "long"]);
    assert_eq!(time(&docker, "long", "StartedAt"), before, "it is told as it was");
    finish(lab);
}

#[test]
fn directories_of_the_host_are_shown_where_they_are_lent_and_no_others() {
    let (mut lab, docker) = lab();
    docker.does(&["pull", "busybox"]);
    let lent = lab.directory().join("lent");
    fs::create_dir_all(lent.join("in")).expect("a directory to lend");
    fs::write(lent.join("in/file"), "mine").expect("a file in it");
    std::os::unix::fs::symlink("/etc", lent.join("out")).expect("a link in it");
    let at = |inner: &str, more: &str| format!("{}/{inner}:/at{more}", lent.display());
    let run =
        |volume: &str, words: &str| docker.says(&["run", "--rm", "-v", volume, "busybox", "sh", "-c", words]);
    assert!(run(&at("in", ""), "true").err.contains("only where its operator lends them; none is"));

    lab.kill_daemon();
    lab.set_argument("--host-directory", lent.to_str().expect("text"));
    lab.start_daemon();
    let said = run(&at("in", ""), "cat /at/file; echo new >/at/new; chmod 4755 /at/new");
    assert_eq!((said.code, said.out.as_str()), (0, "mine"), "{said:?}");
    let made = fs::metadata(lent.join("in/new")).expect("what it made");
    assert_eq!((fs::read_to_string(lent.join("in/new")).unwrap().as_str(), made.uid()), ("new\n", 0));
    assert!(
        run(&at("in/file", ":ro"), "cat /at; echo x >/at").err.contains("Read-only"),
        "one file, to be read"
    );
    assert_eq!(run(&at("made/here", ""), "touch /at/x").code, 0);
    assert!(lent.join("made/here/x").exists());
    let mount = |inner: &str| format!("type=bind,src={}/{inner},dst=/at", lent.display());
    let missing = docker.says(&["run", "--rm", "--mount", &mount("missing"), "busybox", "true"]);
    assert!(missing.code == 125 && !lent.join("missing").exists(), "{missing:?}");
    assert_eq!(docker.does(&["run", "--rm", "--mount", &mount("in"), "busybox", "cat", "/at/file"]), "mine");
    // A link leads nowhere but within what is lent.
    assert_eq!(run(&at("out", ""), "cat /at/hostname").code, 125);
    fs::create_dir(lent.join("etc")).expect("a directory for the link");
    fs::write(lent.join("etc/hostname"), "own").expect("a file in it");
    assert_eq!(run(&at("out", ""), "cat /at/hostname").out, "own");
    let refused = run("/etc:/at", "true");
    assert!(
        refused.code == 125 && refused.err.contains(&format!("these are: {}", lent.display())),
        "{refused:?}"
    );
    docker.does(&["create", "--name", "told", "-v", &at("in", ":ro"), "busybox"]);
    let told = docker.does(&[
        "inspect",
        "--format",
        "{{range .Mounts}}{{.Type}} {{.Source}} {{.RW}}{{end}}",
        "told",
    ]);
    assert_eq!(told, format!("bind {}/in false", lent.display()));

    // What is lent no more is not shown at the next start.
    lab.kill_daemon();
    lab.set_argument("--host-directory", "/srv/other");
    lab.start_daemon();
    let told = docker.says(&["start", "told"]);
    assert!(told.code != 0 && told.err.contains("in no directory that this host lends"), "{told:?}");
    finish(lab);
}
