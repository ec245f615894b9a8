//! Health checks of real containers: what programs say, what becomes of those that hang, and who is told.

use api::v1::types::{event::Event, health::HealthRequest, instance::CreateInstance};
use lab::{Docker, Lab, eventually};
use std::{io::BufRead as _, time::Duration};

const LONG: Duration = Duration::from_secs(30);

#[test]
fn a_containers_health_is_told_on_every_door() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    let docker = Docker::find(&lab, "shop");
    docker.does(&["pull", "busybox"]);
    let mut told = docker.start(&["events", "--filter", "container=box", "--format", "{{.Action}}"]);
    let words = "touch /tmp/well; exec sleep 1000000";
    let check = "echo said by $(id -un) in $(pwd); test -e /tmp/well";
    docker.does(&[
        "run",
        "-d",
        "--name",
        "box",
        "-u",
        "nobody",
        "-w",
        "/tmp",
        "--health-cmd",
        check,
        "--health-interval",
        "300ms",
        "--health-retries",
        "2",
        "--health-start-period",
        "60s",
        "--health-start-interval",
        "200ms",
        "busybox",
        "sh",
        "-c",
        words,
    ]);
    assert!(
        docker.does(&["ps"]).contains("(healthy)") || docker.does(&["ps"]).contains("(health: starting)")
    );
    let lists = |word: &str| !docker.does(&["ps", "-q", "--filter", &format!("health={word}")]).is_empty();
    eventually("health", LONG, || docker.does(&["ps"]).contains("(healthy)"));
    assert!(lists("healthy") && !lists("unhealthy") && !lists("none"));
    let log = "{{range .State.Health.Log}}{{.ExitCode}} {{.Output}}{{end}}";
    let log = docker.does(&["inspect", "-f", log, "box"]);
    assert!(log.contains("0 said by nobody in /tmp"), "{log}");
    let native = shop.instance("box");
    let seen = native.containers[0].health.clone().expect("it is checked");
    assert_eq!((native.health.as_deref(), seen.status.as_str()), (Some("healthy"), "healthy"));
    assert!(seen.probes.len() <= 5);

    docker.does(&["exec", "box", "rm", "/tmp/well"]);
    eventually("illness", LONG, || docker.does(&["ps"]).contains("(unhealthy)"));
    assert!(lists("unhealthy"));
    let table = lab.holm("shop", &["ls"]).output().expect("holm ls");
    assert!(String::from_utf8_lossy(&table.stdout).contains("running (unhealthy)"), "{table:?}");
    let page = lab.holm("shop", &["show", "box"]).output().expect("holm show");
    assert!(String::from_utf8_lossy(&page.stdout).contains("probes failed in a row"), "{page:?}");
    let events: Vec<Event> = shop.list();
    let reasons: Vec<&str> = events.iter().map(|e| e.reason.as_str()).collect();
    assert!(reasons.contains(&"healthy") && reasons.contains(&"unhealthy"), "{reasons:?}");
    docker.does(&["exec", "box", "touch", "/tmp/well"]);
    eventually("health again", LONG, || lists("healthy"));
    docker.does(&["rm", "-f", "box"]);
    let mut lines = std::io::BufReader::new(told.stdout.take().expect("its output")).lines();
    let mut actions = vec![];
    while !actions.iter().any(|action| action == "destroy") {
        actions.push(lines.next().expect("an event").expect("a line"));
    }
    actions.retain(|action| action.starts_with("health_status"));
    assert_eq!(actions, ["health_status: healthy", "health_status: unhealthy", "health_status: healthy"]);
    told.kill().and_then(|()| told.wait()).expect("docker events ends");
    shop.empty();
    lab.finish();
}

#[test]
fn a_probe_that_hangs_is_ended_with_all_that_it_started() {
    let mut lab = Lab::new();
    let shop = lab.project("shop");
    // It leaves a child behind, and hangs itself.
    let test = vec!["CMD-SHELL".to_string(), "echo begun; sleep 4242 & sleep 4242".to_string()];
    let check = HealthRequest {
        test: Some(test.try_into().unwrap()),
        interval_ms: Some(100),
        timeout_ms: Some(400),
        retries: Some(1),
        ..HealthRequest::default()
    };
    let request = CreateInstance { health: Some(check), ..shop.idle_container("hung") };
    shop.launch(&request);
    let health =
        |lab: &Lab| lab.project("shop").instance("hung").containers[0].health.clone().expect("checked");
    eventually("several probes", LONG, || health(&lab).failing_streak >= 4);
    let seen = health(&lab);
    assert_eq!(seen.status, "unhealthy");
    let probe = seen.probes.last().expect("a probe");
    assert_eq!(
        (probe.exit_code, probe.output.as_str()),
        (-1, "Health check exceeded timeout (400ms): begun\n")
    );
    let sleepers = |lab: &Lab| {
        let ran = lab.project("shop").exec("hung", "ps | grep -c '[s]leep 4242'");
        ran.stdout.trim().parse::<usize>().expect("a number")
    };
    assert!(sleepers(&lab) <= 3, "those of one probe and its shell at most");

    // One that is under way ends with the daemon, and the next daemon goes on.
    lab.kill_daemon();
    let streak = {
        lab.start_daemon();
        health(&lab).failing_streak
    };
    eventually("probes go on", LONG, || health(&lab).failing_streak > streak + 1);
    assert!(sleepers(&lab) <= 3);
    let shop = lab.project("shop");
    shop.empty();
    lab.finish();
}

#[test]
fn an_images_check_holds_for_its_containers() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    let docker = Docker::find(&lab, "shop");
    docker.does(&["pull", "busybox"]);
    let made =
        ["create", "--name", "model", "--health-cmd", "test -e /tmp/well", "--health-interval", "200ms"];
    docker.does(&[&made, &["--health-retries", "2", "busybox", "sleep", "1000000"][..]].concat());
    docker.does(&["commit", "model", "checked:1"]);
    let check = r#"{"Test":["CMD-SHELL","test -e /tmp/well"],"Interval":200000000,"Retries":2}"#;
    let form = "{{json .Config.Healthcheck}}";
    assert_eq!(docker.does(&["inspect", "-f", form, "checked:1"]), check);
    let sleeps = ["checked:1", "sleep", "1000000"];
    docker.does(&[&["run", "-d", "--name", "own"], &sleeps[..]].concat());
    docker.does(&[&["run", "-d", "--name", "patient", "--health-retries", "1000"], &sleeps[..]].concat());
    docker.does(&[&["run", "-d", "--name", "none", "--no-healthcheck"], &sleeps[..]].concat());
    let word = |name: &str| shop.instance(name).health;
    eventually("illness", LONG, || word("own").as_deref() == Some("unhealthy"));
    assert_eq!((word("patient").as_deref(), word("none")), (Some("starting"), None));
    docker.does(&["exec", "own", "touch", "/tmp/well"]);
    eventually("health", LONG, || word("own").as_deref() == Some("healthy"));
    // Another run begins anew, and finds the file of the last one.
    docker.does(&["restart", "-t", "0", "own"]);
    eventually("health of another run", LONG, || word("own").as_deref() == Some("healthy"));
    shop.empty();
    lab.finish();
}

#[test]
fn no_check_is_made_where_none_is_wanted() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    let docker = Docker::find(&lab, "shop");
    docker.does(&["pull", "busybox"]);
    docker.does(&["run", "-d", "--name", "box", "--no-healthcheck", "busybox", "sleep", "1000000"]);
    assert_eq!(docker.does(&["inspect", "-f", "{{json .State.Health}}", "box"]), "null");
    assert_eq!(
        docker.does(&["inspect", "-f", "{{json .Config.Healthcheck}}", "box"]),
        r#"{"Test":["NONE"]}"#
    );
    assert_eq!(shop.instance("box").health, None);
    let out = lab
        .holm("shop", &["run", "-d", "--name", "own", "--health-cmd", "exit 3", "--health-retries", "1"])
        .args(["--health-interval", "200ms", "busybox", "sleep", "1000000"])
        .output()
        .expect("holm run");
    assert!(out.status.success(), "{out:?}");
    eventually("illness", LONG, || shop.instance("own").health.as_deref() == Some("unhealthy"));
    shop.empty();
    lab.finish();
}
