//! The Docker door, spoken to by the real `docker` command: the session that every tutorial shows, and what programs do.

use api::v1::types::{instance::Instance, security_group::SecurityGroup};
use lab::{Docker, Lab, MACHINE, eventually, http_get};
use std::{
    io::Read as _,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

const SHORT: Duration = Duration::from_millis(700);
const LONG: Duration = Duration::from_secs(30);
/// The project that its client works in.
pub const PROJECT: &str = "shop";
const MACHINE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 1);

/// A lab, and docker's client in its project.
pub fn lab() -> (Lab, Docker) {
    let lab = Lab::new();
    lab.project(PROJECT);
    let docker = Docker::find(&lab, PROJECT);
    (lab, docker)
}

/// Removes all that was made, and looks for what is left.
pub fn finish(lab: Lab) {
    lab.project(PROJECT).empty();
    lab.finish();
}

#[test]
fn docker_serves_the_tutorials_session() {
    let (lab, docker) = lab();
    let digest =
        lab.registry().push(&lab.world.machine, &lab.images.file("web", "layout"), "library/httpd:latest");
    let versions = docker.does(&["version", "--format", "{{.Server.APIVersion}} {{.Server.Platform.Name}}"]);
    assert!(versions.starts_with("1.47 holm"), "{versions}");
    assert!(docker.does(&["info"]).contains("Server Version: holm-"));

    let pulled = docker.does(&["pull", "httpd"]);
    assert!(pulled.contains(&format!("Digest: {digest}")), "{pulled}");
    assert!(pulled.contains("Status: Downloaded newer image for httpd:latest"), "{pulled}");
    assert!(docker.does(&["pull", "httpd"]).contains("Status: Image is up to date for httpd:latest"));
    assert!(docker.does(&["images"]).contains("httpd"));
    let image = docker.does(&["images", "-q", "--no-trunc", "httpd"]);
    assert_eq!(docker.does(&["inspect", "--format", "{{.Id}}", "httpd:latest"]), image);

    let id = docker.does(&["run", "-d", "-t", "-p", "8088:80", "--name", "myApache", "httpd"]);
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    let listed = docker.does(&["ps"]);
    // Clients before 28 leave the brackets out.
    let both = ["0.0.0.0:8088->80/tcp, [::]:8088->80/tcp", "0.0.0.0:8088->80/tcp, :::8088->80/tcp"];
    assert!(both.iter().any(|ports| listed.contains(ports)), "{listed}");
    assert!(listed.contains(&id[..12]) && listed.contains("myApache") && listed.contains("Up "), "{listed}");
    for host in [IpAddr::from(MACHINE), IpAddr::from(MACHINE_V6)] {
        let at = SocketAddr::new(host, 8088);
        let answers = || http_get(&lab.world.outside, at, SHORT).is_ok_and(|page| page.contains("It works!"));
        eventually(&format!("{at} answers from outside"), LONG, answers);
    }
    assert!(docker.does(&["port", "myApache"]).contains("80/tcp -> 0.0.0.0:8088"));
    let shop = lab.project("shop");
    assert_eq!(shop.instance("myApache").head.id.simple().to_string(), id[..32], "one thing under two names");
    assert_eq!(shop.instance(&id[..12]).head.name, "myApache", "docker's ids lead there on every door");

    let typed = docker.typed(
        "ls /var/www/html; cat /var/www/html/index.html; exit 3\n",
        &["exec", "-i", "-t", "myApache", "bash"],
    );
    assert_eq!(typed.code, 3, "{typed:?}");
    assert!(typed.out.contains("index.html") && typed.out.contains("It works!"), "{typed:?}");
    run_beside(&docker);

    assert_eq!(docker.does(&["stop", "myApache"]), "myApache");
    assert!(!docker.does(&["ps"]).contains("myApache"));
    assert!(docker.does(&["ps", "-a"]).contains("Exited ("));
    docker.refuses(1, "is using its referenced image", &["rmi", "httpd"]);
    assert_eq!(docker.does(&["start", "myApache"]), "myApache");
    docker.refuses(1, "container is running: stop the container before removing", &["rm", "myApache"]);
    assert_eq!(docker.does(&["rm", "-f", "myApache"]), "myApache");
    let removed = docker.does(&["rmi", "httpd"]);
    for line in ["Untagged: httpd:latest", &format!("Untagged: httpd@{digest}"), &format!("Deleted: {image}")]
    {
        assert!(removed.contains(line), "{line}: {removed}");
    }
    assert!(!docker.does(&["images"]).contains("httpd"));
    let groups = shop.list::<SecurityGroup>();
    assert!(groups.iter().all(|group| group.head.name == "default"), "{groups:?}");
    finish(lab);
}

/// Programs beside the container's own.
fn run_beside(docker: &Docker) {
    assert!(docker.does(&["exec", "myApache", "cat", "/var/www/html/index.html"]).contains("It works!"));
    let told = docker.told("one\ntwo\n", &["exec", "-i", "myApache", "cat"]);
    assert_eq!((told.code, told.out.as_str()), (0, "one\ntwo\n"), "{told:?}");
    let split = docker.says(&["exec", "myApache", "sh", "-c", "echo out; echo err >&2; exit 4"]);
    assert_eq!((split.code, split.out.as_str(), split.err.as_str()), (4, "out\n", "err\n"));
    let placed = docker.does(&[
        "exec",
        "-e",
        "WORD=x y",
        "-w",
        "/tmp",
        "-u",
        "www-data",
        "myApache",
        "sh",
        "-c",
        "id -un; pwd; echo $WORD",
    ]);
    assert_eq!(placed, "www-data\n/tmp\nx y");
    let sized = docker.typed("stty size; exit\n", &["exec", "-it", "myApache", "sh"]);
    assert!(sized.out.contains("33 99"), "{sized:?}");
    let missing = docker.says(&["exec", "myApache", "nosuch"]);
    assert_eq!(missing.code, 127, "{missing:?}");
    assert!(
        format!("{}{}", missing.out, missing.err).contains("executable file not found in $PATH"),
        "{missing:?}"
    );
    assert_eq!(docker.says(&["exec", "myApache", "/etc"]).code, 126);
    docker.does(&["exec", "-d", "myApache", "sh", "-c", "echo done >/tmp/detached"]);
    eventually("a detached program has run", LONG, || {
        docker.says(&["exec", "myApache", "cat", "/tmp/detached"]).out == "done\n"
    });
    assert!(docker.does(&["top", "myApache"]).contains("lighttpd"));
}

#[test]
fn docker_run_tells_how_programs_end() {
    let (lab, docker) = lab();
    let ran = docker.says(&["run", "--rm", "busybox", "true"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran:?}");
    assert!(ran.err.contains("Unable to find image 'busybox:latest' locally"), "{ran:?}");
    assert!(ran.err.contains("Status: Downloaded newer image for busybox:latest"), "{ran:?}");
    for (program, code) in [(&["true"][..], 0), (&["false"], 1), (&["sh", "-c", "exit 3"], 3)] {
        let arguments = [&["run", "--rm", "busybox"], program].concat();
        assert_eq!(docker.says(&arguments).code, code, "{program:?}");
    }
    docker.refuses(127, "executable file not found in $PATH", &["run", "--rm", "busybox", "nosuch"]);
    docker.refuses(126, "permission denied", &["run", "--rm", "busybox", "/etc"]);
    docker.refuses(
        125,
        "Privileged is not honoured by holm",
        &["run", "--rm", "--privileged", "busybox", "true"],
    );
    docker.refuses(125, "has no library/busybox:nosuch", &["run", "--rm", "busybox:nosuch", "true"]);
    docker.refuses(125, "manifest unknown", &["run", "--rm", "127.0.0.1:5000/nosuch", "true"]);
    docker.refuses(125, "PidMode is not honoured", &["run", "--rm", "--pid", "host", "busybox", "true"]);

    pass_input_and_output(&docker);
    take_what_is_asked(&docker);
    assert_eq!(docker.does(&["ps", "-a", "-q"]), "", "--rm leaves nothing");
    finish(lab);
}

/// Bytes in and out, on pipes and on a terminal.
fn pass_input_and_output(docker: &Docker) {
    let split = docker.says(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; printf rest"]);
    assert_eq!((split.out.as_str(), split.err.as_str()), ("out\nrest", "err\n"), "{split:?}");
    let told = docker.told("hello\nworld\n", &["run", "-i", "--rm", "busybox", "sh", "-c", "cat; exit 7"]);
    assert_eq!((told.code, told.out.as_str()), (7, "hello\nworld\n"), "{told:?}");
    let much = docker.says(&["run", "--rm", "busybox", "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"]);
    assert_eq!((much.code, much.out.len()), (0, 3_000_000));
    let typed =
        docker.typed("echo got-$((6*7)); stty size; exit 5\n", &["run", "-it", "--rm", "busybox", "sh"]);
    assert!(typed.code == 5 && typed.out.contains("got-42") && typed.out.contains("33 99"), "{typed:?}");
}

/// Options of `docker run`, as the program finds them.
fn take_what_is_asked(docker: &Docker) {
    let asked = [
        "run",
        "--rm",
        "-e",
        "WORD=x y",
        "-w",
        "/tmp",
        "-u",
        "7:8",
        "--hostname",
        "inside",
        "--label",
        "tier=web",
        "--memory",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "20",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--cap-drop",
        "ALL",
        "--entrypoint",
        "sh",
        "busybox",
        "-c",
        "hostname; pwd; id -u; id -g; echo $WORD; touch /no 2>&1; touch /tmp/yes && grep CapEff /proc/self/status",
    ];
    let placed = docker.does(&asked);
    let lines: Vec<&str> = placed.lines().collect();
    assert_eq!(lines[..5], ["inside", "/tmp", "7", "8", "x y"], "{placed}");
    assert!(lines[5].contains("Read-only file system") && lines[6].ends_with("0000000000000000"), "{placed}");
}

#[test]
fn docker_follows_joins_and_waits() {
    let (lab, docker) = lab();
    docker.does(&["pull", "busybox"]);
    let words =
        "echo one; echo two >&2; echo three; while [ ! -e /go ]; do sleep 0.1; done; echo last; exit 6";
    docker.does(&["run", "-d", "--name", "talker", "busybox", "sh", "-c", words]);
    eventually("three lines", LONG, || docker.does(&["logs", "talker"]).lines().count() == 2);
    let split = docker.says(&["logs", "talker"]);
    assert_eq!((split.out.as_str(), split.err.as_str()), ("one\nthree\n", "two\n"));
    assert_eq!(docker.does(&["logs", "--tail", "1", "talker"]), "three");
    assert!(docker.does(&["logs", "-t", "--tail", "1", "talker"]).ends_with("Z three"));
    assert_eq!(docker.does(&["logs", "--since", "2099-01-01T00:00:00Z", "talker"]), "");
    let following = docker.start(&["logs", "-f", "talker"]);
    let waiting = docker.start(&["wait", "talker"]);
    docker.does(&["exec", "talker", "touch", "/go"]);
    let followed = following.wait_with_output().expect("logs -f");
    assert!(String::from_utf8_lossy(&followed.stdout).ends_with("three\nlast\n"), "{followed:?}");
    let waited = waiting.wait_with_output().expect("wait");
    assert_eq!(String::from_utf8_lossy(&waited.stdout).trim(), "6");
    let state =
        docker.does(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.Running}}", "talker"]);
    assert_eq!(state, "exited 6 false");

    // Started again, with its output here from the first byte on.
    let again = docker.says(&["start", "-a", "talker"]);
    assert!(again.code == 6 && again.out == "one\nthree\nlast\n" && again.err == "two\n", "{again:?}");
    join_one(&docker);
    change_one(&docker);
    finish(lab);
}

/// A client that joins a running program sees what it says from then on, and ends as it ends.
fn join_one(docker: &Docker) {
    let words = "while [ ! -e /go ]; do echo tick; sleep 0.1; done; echo last; exit 6";
    docker.does(&["run", "-d", "--name", "ticker", "busybox", "sh", "-c", words]);
    let mut joined = docker.start(&["attach", "--no-stdin", "ticker"]);
    let mut first = [0; 5];
    joined.stdout.as_mut().expect("its output").read_exact(&mut first).expect("a tick");
    assert_eq!(&first, b"tick\n");
    docker.does(&["exec", "ticker", "touch", "/go"]);
    let rest = joined.wait_with_output().expect("attach");
    assert!(rest.status.code() == Some(6) && rest.stdout.ends_with(b"last\n"), "{rest:?}");
    docker.does(&["rm", "ticker"]);
}

/// Pause, signals, names, filters, sizes.
fn change_one(docker: &Docker) {
    let trap = "trap 'echo usr1' USR1; trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done";
    docker.does(&[
        "run",
        "-d",
        "--name",
        "box",
        "--label",
        "tier=web",
        "--restart",
        "on-failure:3",
        "busybox",
        "sh",
        "-c",
        trap,
    ]);
    eventually("it is up", LONG, || docker.does(&["logs", "box"]) == "up");
    docker.does(&["kill", "-s", "USR1", "box"]);
    eventually("the signal came", LONG, || docker.does(&["logs", "box"]) == "up\nusr1");
    docker.does(&["pause", "box"]);
    assert!(docker.does(&["ps"]).contains("(Paused)"));
    docker.refuses(1, "is already paused", &["pause", "box"]);
    docker.refuses(1, "is paused, unpause the container first", &["exec", "box", "true"]);
    docker.does(&["unpause", "box"]);
    docker.does(&["rename", "box", "crate"]);
    docker.refuses(1, "No such container: box", &["inspect", "--type", "container", "box"]);
    let named = |filter: &str| docker.does(&["ps", "-a", "--format", "{{.Names}}", "--filter", filter]);
    for (filter, names) in [
        ("name=cra", "crate"),
        ("label=tier=web", "crate"),
        ("status=exited", "talker"),
        ("exited=6", "talker"),
        ("ancestor=busybox", "crate\ntalker"),
        ("since=talker", "crate"),
        ("network=bridge", "crate\ntalker"),
        ("label=tier=db", ""),
    ] {
        assert_eq!(named(filter), names, "{filter}");
    }
    let told = "{{.Name}} {{.HostConfig.RestartPolicy.Name}} {{index .Config.Labels \"tier\"}} {{.NetworkSettings.Networks.bridge.IPAddress}}";
    let told = docker.does(&["inspect", "-f", told, "crate"]);
    assert!(told.starts_with("/crate on-failure web 10."), "{told}");
    docker.does(&["update", "--memory", "128m", "crate"]);
    assert_eq!(docker.does(&["inspect", "-f", "{{.HostConfig.Memory}}", "crate"]), (128 << 20).to_string());
    let usage =
        docker.does(&["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}", "crate"]);
    assert!(usage.starts_with("crate ") && usage.contains("128MiB"), "{usage}");
    let gateway = docker.does(&["inspect", "-f", "{{.NetworkSettings.Networks.bridge.Gateway}}", "crate"]);
    docker.does(&["exec", "crate", "ping", "-c", "3", "-s", "1000", &gateway]);
    let passed = docker.does(&["stats", "--no-stream", "--format", "{{.NetIO}}", "crate"]);
    assert!(passed.matches("kB").count() == 2, "three questions and answers of 1,000 bytes: {passed}");
    docker.does(&["restart", "-t", "5", "crate"]);
    assert!(docker.does(&["logs", "crate"]).contains("bye"), "it had its time");
    docker.does(&["stop", "-t", "5", "crate"]);
    assert_eq!(docker.does(&["inspect", "-f", "{{.State.ExitCode}}", "crate"]), "0");
    docker.does(&["rm", "crate", "talker"]);
}

#[test]
fn docker_refuses_in_dockers_words() {
    let (lab, docker) = lab();
    docker.does(&["pull", "busybox"]);
    docker.refuses(1, "No such container: nosuch", &["start", "nosuch"]);
    docker.refuses(1, "No such image: nosuch", &["rmi", "nosuch"]);
    docker.refuses(1, "No such object: nosuch", &["inspect", "nosuch"]);
    assert_eq!(docker.does(&["plugin", "ls", "-q"]), "");
    docker.refuses(1, "has no library/nosuch", &["pull", "nosuch"]);
    docker.refuses(1, "not found: manifest unknown", &["pull", "127.0.0.1:5000/nosuch"]);
    docker.refuses(1, "network nosuch not found", &["network", "inspect", "nosuch"]);
    let sleeps = ["busybox", "sleep", "1000000"];
    let id = docker.does(&[&["run", "-d", "--name", "one", "-p", "8088:80"], &sleeps[..]].concat());
    docker.refuses(
        125,
        &format!("Conflict. The container name \"/one\" is already in use by container \"{id}\""),
        &[&["run", "-d", "--name", "one"], &sleeps[..]].concat(),
    );
    docker.refuses(
        125,
        "Bind for 0.0.0.0:8088 failed: port is already allocated",
        &[&["run", "-d", "--name", "two", "-p", "8088:80"], &sleeps[..]].concat(),
    );
    for (what, words) in [
        (
            &["-v", "/etc:/host"][..],
            "directories of the host are shown to containers only where its operator lends them; none is",
        ),
        (&["--network", "host"], "NetworkMode is not honoured"),
        (&["--pid", "host"], "PidMode is not honoured"),
        (&["--add-host", "a b:192.0.2.1"], "bad format for add-host"),
        (&["--security-opt", "seccomp=unconfined"], "SecurityOpt is not honoured"),
        (&["--health-cmd", "true", "--health-interval", "2ms"], "interval_ms of a health check is 100 to"),
        (&["--ulimit", "locks=10:5"], "ulimit"),
        (&["--network", "nosuch"], "network nosuch not found"),
    ] {
        docker.refuses(125, words, &[&["run", "-d"], what, &sleeps[..]].concat());
    }
    docker.does(&["rm", "-f", "one"]);
    finish(lab);
}

#[test]
fn docker_makes_networks_and_volumes() {
    let (lab, docker) = lab();
    docker.does(&["pull", "busybox"]);
    docker.does(&["network", "create", "--subnet", "10.77.0.0/24", "--label", "tier=back", "back"]);
    let listed = docker.does(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"]);
    assert_eq!(listed, "back bridge\nbridge bridge", "{listed}");
    docker.refuses(1, "already exists", &["network", "create", "back"]);
    docker.does(&[
        "run",
        "-d",
        "--name",
        "db",
        "--network",
        "back",
        "--ip",
        "10.77.0.9",
        "-v",
        "data:/data",
        "busybox",
        "sleep",
        "1000000",
    ]);
    assert_eq!(
        docker.does(&["inspect", "-f", "{{.NetworkSettings.Networks.back.IPAddress}}", "db"]),
        "10.77.0.9"
    );
    let found =
        docker.does(&["run", "--rm", "--network", "back", "busybox", "ping", "-c", "1", "-W", "5", "db"]);
    assert!(found.contains("10.77.0.9"), "{found}");
    docker.does(&["exec", "db", "sh", "-c", "echo kept >/data/file"]);
    docker.refuses(1, "has active endpoints", &["network", "rm", "back"]);
    docker.refuses(1, "volume is in use", &["volume", "rm", "data"]);
    docker.does(&["network", "connect", "bridge", "db"]);
    let two = || docker.does(&["exec", "db", "ls", "/sys/class/net"]).split_whitespace().count();
    assert_eq!(two(), 3, "lo and two more");
    docker.does(&["network", "disconnect", "bridge", "db"]);
    assert_eq!(two(), 2);
    docker.does(&["rm", "-f", "db"]);
    let kept = docker.does(&[
        "run",
        "--rm",
        "-v",
        "data:/data:ro",
        "busybox",
        "sh",
        "-c",
        "cat /data/file; touch /data/no 2>&1; true",
    ]);
    assert!(kept.starts_with("kept\n") && kept.contains("Read-only"), "{kept}");
    assert!(docker.does(&["system", "df"]).contains("Local Volumes"));
    docker.does(&["volume", "rm", "data"]);
    docker.does(&["network", "rm", "back"]);
    docker.refuses(1, "no such volume", &["volume", "inspect", "data"]);
    finish(lab);
}

#[test]
fn docker_gives_containers_names_and_limits_and_prunes() {
    let (lab, docker) = lab();
    docker.does(&["pull", "busybox"]);
    docker.does(&["network", "create", "back"]);
    let sleeps = ["busybox", "sleep", "1000000"];
    let run = |options: &[&str]| docker.does(&[&["run", "-d"], options, &sleeps[..]].concat());
    run(&[
        "--name",
        "main_db",
        "--network",
        "back",
        "--network-alias",
        "db",
        "--network-alias",
        "db.internal",
    ]);
    run(&["--name", "asker"]);
    let finds = |name: &str| docker.says(&["exec", "asker", "ping", "-c", "1", "-W", "5", name]).code == 0;
    assert!(!finds("db"), "an alias means nothing in another network");
    docker.does(&["network", "connect", "--alias", "client", "back", "asker"]);
    for name in ["db", "DB", "db.internal", "main_db", "main-db"] {
        assert!(finds(name), "{name}");
    }
    let aliases = "{{json .NetworkSettings.Networks.back.Aliases}}";
    assert_eq!(docker.does(&["inspect", "-f", aliases, "main_db"]), r#"["db","db.internal"]"#);
    let back = docker.does(&["exec", "main_db", "ping", "-c", "1", "-W", "5", "client"]);
    assert!(back.contains("1 packets received"), "{back}");

    // Names of the machine itself, of others, and limits.
    let hosts = docker.does(&[
        "run",
        "--rm",
        "--network",
        "back",
        "--add-host",
        "old.example:192.0.2.9",
        "--add-host",
        "machine:host-gateway",
        "--link",
        "main_db:store",
        "--ulimit",
        "nofile=123:456",
        "busybox",
        "sh",
        "-c",
        "cat /etc/hosts; ping -c 1 -W 5 machine; ping -c 1 -W 5 store; ulimit -Sn; ulimit -Hn",
    ]);
    assert!(hosts.contains("192.0.2.9\told.example"), "{hosts}");
    assert_eq!(hosts.matches("1 packets received").count(), 2, "{hosts}");
    assert!(hosts.ends_with("123\n456"), "{hosts}");

    docker.does(&["volume", "create", "kept"]);
    docker.does(&["network", "create", "--label", "tier=old", "idle"]);
    docker.does(&["network", "create", "other"]);
    docker.does(&["create", "--name", "never", "busybox"]);
    let pruned = docker.does(&["network", "prune", "-f", "--filter", "label=tier=old"]);
    assert!(pruned.contains("idle") && !pruned.contains("other"), "{pruned}");
    let pruned = docker.does(&["container", "prune", "-f"]);
    assert_eq!(pruned.matches('\n').count(), 3, "{pruned}");
    assert_eq!(docker.does(&["ps", "-a", "--format", "{{.Names}}"]), "asker\nmain_db");
    assert!(!docker.does(&["volume", "prune", "-f"]).contains("kept"), "it has a name");
    docker.does(&["network", "prune", "-f"]);
    assert_eq!(docker.does(&["network", "ls", "--format", "{{.Name}}"]), "back\nbridge");
    assert!(docker.does(&["volume", "prune", "-a", "-f"]).contains("kept"));
    docker.does(&["rm", "-f", "asker", "main_db"]);
    docker.does(&["network", "rm", "back"]);
    finish(lab);
}

/// What docker made lives on without the daemon, and is found again; what another door made is docker's too.
#[test]
fn docker_sees_what_other_doors_made_and_outlives_the_daemon() {
    let (mut lab, docker) = lab();
    let shop = lab.project("shop");
    shop.launch(&shop.idle_container("native"));
    let id =
        docker.does(&["run", "-d", "--name", "made", "busybox", "sh", "-c", "echo said; exec sleep 1000000"]);
    let names = docker.does(&["ps", "--format", "{{.Names}}"]);
    assert_eq!(names, "made\nnative");
    assert_eq!(shop.instance("made").head.id.simple().to_string(), id[..32]);
    let mut joined = docker.start(&["attach", "--no-stdin", "made"]);
    lab.kill_daemon();
    let _ = joined.wait();
    lab.start_daemon();
    assert_eq!(docker.does(&["logs", "made"]), "said");
    assert_eq!(docker.does(&["exec", "native", "echo", "here"]), "here");
    let mut said = String::new();
    if let Some(mut err) = joined.stderr.take() {
        let _ = err.read_to_string(&mut said);
    }
    docker.does(&["rm", "-f", "made", "native"]);
    let shop = lab.project("shop");
    assert!(shop.list::<Instance>().is_empty());
    finish(lab);
}
