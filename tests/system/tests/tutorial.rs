//! The first session with docker, as every tutorial shows it, typed to the real client word by word.

use crate::docker::{PROJECT, finish, lab};
use lab::{Docker, Lab, MACHINE, eventually};
use std::{net::Ipv6Addr, process::Command, time::Duration};

const LONG: Duration = Duration::from_secs(30);
const MACHINE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 1);
const PAGE: &str = "<html><body><h1>It works!</h1></body></html>";

/// What `curl` gets, asked on the machine itself or from outside.
fn curl(lab: &Lab, is_outside: bool, url: &str) -> Option<String> {
    let from = if is_outside { &lab.world.outside } else { &lab.world.machine };
    let mut command = Command::new("curl");
    command.args(["-sS", "--noproxy", "*", "--max-time", "3", url]);
    let output = from.run(|| command.output()).expect("enter").expect("curl");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_string())
}

/// The lines of `docker ps`, each cut at its columns.
fn listed(docker: &Docker) -> Vec<Vec<String>> {
    let columns = |line: &str| {
        line.split("   ").map(str::trim).filter(|word| !word.is_empty()).map(str::to_string).collect()
    };
    docker.does(&["ps"]).lines().map(columns).collect()
}

#[test]
fn the_first_session_goes_as_everybody_knows_it() {
    let (lab, docker) = lab();
    let digest =
        lab.registry().push(&lab.world.machine, &lab.images.file("httpd", "layout"), "library/httpd:latest");
    let pulled = docker.does(&["pull", "httpd"]);
    let lines: Vec<&str> = pulled.lines().collect();
    assert_eq!(lines[..2], ["Using default tag: latest", "latest: Pulling from library/httpd"], "{pulled}");
    assert!(lines[2].ends_with(": Pull complete"), "{pulled}");
    let ending = [
        format!("Digest: {digest}"),
        "Status: Downloaded newer image for httpd:latest".into(),
        "docker.io/library/httpd:latest".into(),
    ];
    assert_eq!(lines[lines.len() - 3..], ending, "{pulled}");

    let id = docker.does(&["run", "-d", "-t", "-p", "8088:80", "--name", "myApache", "httpd"]);
    assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    let table = listed(&docker);
    assert_eq!(table[0], ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    let [short, image, command, created, status, ports, name] = table[1].as_slice() else {
        panic!("{table:?}")
    };
    assert_eq!([short, image, command, name], [&id[..12], "httpd", "\"httpd-foreground\"", "myApache"]);
    assert!(created.ends_with(" ago") && status.starts_with("Up "), "{table:?}");
    // Clients before 28 leave the brackets out.
    let both = ["0.0.0.0:8088->80/tcp, [::]:8088->80/tcp", "0.0.0.0:8088->80/tcp, :::8088->80/tcp"];
    assert!(both.contains(&ports.as_str()), "{table:?}");

    let is_served = |is_outside, host: &str| {
        let url = format!("http://{host}:8088/");
        eventually(&url, LONG, || curl(&lab, is_outside, &url).is_some_and(|page| page == PAGE));
    };
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        is_served(false, host);
    }
    for host in [MACHINE.to_string(), format!("[{MACHINE_V6}]")] {
        is_served(true, &host);
    }
    look_inside(&docker);
    end(&docker, &digest);
    assert_eq!(curl(&lab, false, "http://localhost:8088/"), None);
    assert_eq!(lab.project(PROJECT).list::<api::v1::types::instance::Instance>(), vec![]);
    finish(lab);
}

fn look_inside(docker: &Docker) {
    let typed = docker.typed(
        "pwd\nls\nls htdocs\ncat htdocs/index.html\nexit\n",
        &["exec", "-i", "-t", "myApache", "bash"],
    );
    assert_eq!(typed.code, 0, "{typed:?}");
    for words in [":/usr/local/apache2# ", "htdocs", "index.html", PAGE] {
        assert!(typed.out.contains(words), "{words}: {typed:?}");
    }
    let logs = docker.does(&["logs", "myApache"]);
    assert!(logs.contains("\"GET / HTTP/1.1\" 200"), "{logs}");
    assert!(docker.does(&["top", "myApache"]).contains("apache2"));
}

fn end(docker: &Docker, digest: &str) {
    assert_eq!(docker.does(&["stop", "myApache"]), "myApache");
    assert_eq!(listed(docker).len(), 1, "nothing runs");
    let all = docker.does(&["ps", "-a"]);
    assert!(all.contains("Exited (0) "), "it ends itself when it is asked to: {all}");
    docker.refuses(1, "is using its referenced image", &["rmi", "httpd"]);
    assert_eq!(docker.does(&["rm", "myApache"]), "myApache");
    let image = docker.does(&["images", "-q", "--no-trunc", "httpd"]);
    let removed = docker.does(&["rmi", "httpd"]);
    let lines: Vec<&str> = removed.lines().collect();
    let wanted = [
        "Untagged: httpd:latest".to_string(),
        format!("Untagged: httpd@{digest}"),
        format!("Deleted: {image}"),
    ];
    assert_eq!(lines[..3], wanted, "{removed}");
    assert!(lines[3..].iter().all(|line| line.starts_with("Deleted: sha256:")), "{removed}");
    assert_eq!(docker.does(&["images", "-q"]), "");
}
