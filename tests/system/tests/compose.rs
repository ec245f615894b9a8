//! The Docker door, spoken to by the real `docker compose`: services that wait for each other's health, share names,
//! are scaled, changed and taken away.

use api::v1::types::{
    instance::Instance, network::Network, port::Port, security_group::SecurityGroup, volume::Volume,
};
use lab::{Cloud, Compose, Docker, Lab, MACHINE, eventually, http_get};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

const SHORT: Duration = Duration::from_millis(700);
const LONG: Duration = Duration::from_secs(30);

/// A web server that waits for what looks like a database, which counts its starts on a volume.
const SHOP: &str = r#"
services:
  db:
    image: busybox
    command:
      - sh
      - -c
      - |
        n=$$(cat /data/starts 2>/dev/null || echo 0); echo $$((n+1)) >/data/starts
        cp /data/starts /data/index.html
        rm -f /tmp/ready; sleep 1; touch /tmp/ready; echo db is up
        exec httpd -f -p 5432 -h /data
    healthcheck:
      test: ["CMD", "test", "-e", "/tmp/ready"]
      interval: 500ms
      timeout: 10s
      retries: 60
    volumes: ["data:/data"]
    networks:
      back: {aliases: [database, db.internal]}
    ports: ["15432:5432"]
    labels:
      note: "  two spaces, a \"quote\", = and 日本  "
  web:
    image: httpd
    depends_on:
      db: {condition: service_healthy}
    networks: [front, back]
    ports: ["80"]
    extra_hosts: ["old.example:192.0.2.9"]
    ulimits:
      nofile: {soft: 123, hard: 456}
  debug:
    image: busybox
    profiles: [debug]
    command: ["sleep", "1000000"]
    networks: [front]
networks:
  front: {}
  back: {}
volumes:
  data: {}
"#;

/// A lab with an image `httpd`, and the client of its project.
pub fn lab() -> (Lab, Docker) {
    let lab = Lab::new();
    lab.project("shop");
    lab.registry().push(&lab.world.machine, &lab.images.file("web", "layout"), "library/httpd:latest");
    let docker = Docker::find(&lab, "shop");
    (lab, docker)
}

/// What there is in the project beside what every project has.
pub fn nothing_is_left(shop: &Cloud) {
    assert_eq!(shop.list::<Instance>(), vec![]);
    assert_eq!(shop.list::<Volume>(), vec![]);
    let networks: Vec<Network> = shop.list();
    assert!(
        networks.iter().all(|n| n.head.name == "default" || n.head.project.name != "shop"),
        "{networks:?}"
    );
    let groups: Vec<SecurityGroup> = shop.list();
    assert!(groups.iter().all(|group| group.head.name == "default"), "{groups:?}");
    let ports: Vec<Port> = shop.list();
    assert!(ports.iter().all(|port| port.device.as_ref().is_none_or(|d| d.kind != "instance")), "{ports:?}");
}

/// Addresses that a container's own resolver gives for a name.
fn resolves(compose: &Compose<'_>, service: &str, name: &str) -> BTreeSet<String> {
    let said = compose.says(&["exec", "-T", service, "nslookup", "-type=a", name]);
    let answers = said.out.split_once("\n\n").map_or("", |(_, answers)| answers);
    let address = |line: &str| line.strip_prefix("Address: ").map(|rest| rest.trim().to_string());
    answers.lines().filter_map(address).collect()
}

fn address(docker: &Docker, container: &str, network: &str) -> String {
    let form = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    docker.does(&["inspect", "-f", &form, container])
}

#[test]
fn compose_brings_a_shop_up_and_takes_it_away() {
    let (mut lab, docker) = lab();
    let compose = docker.compose("shop", SHOP);
    compose.does(&["up", "-d"]);
    let health = |name: &str| docker.does(&["inspect", "-f", "{{.State.Health.Status}}", name]);
    assert_eq!(health("shop-db-1"), "healthy", "web was started, so that db is healthy");
    let listed = compose.does(&["ps", "--format", "{{.Name}} {{.State}} {{.Health}}"]);
    assert_eq!(listed, "shop-db-1 running healthy\nshop-web-1 running", "{listed}");
    assert!(docker.does(&["ps"]).contains("(healthy)"));
    let order = |field: &str, name: &str| docker.does(&["inspect", "-f", field, name]);
    let web_at = order("{{.State.StartedAt}}", "shop-web-1");
    let probes = order("{{range .State.Health.Log}}{{.ExitCode}} {{end}}", "shop-db-1");
    assert!(probes.contains('0'), "{probes} {web_at}");
    assert_eq!(
        order("{{index .Config.Labels \"note\"}}", "shop-db-1"),
        "  two spaces, a \"quote\", = and 日本",
        "labels are kept byte by byte, but for the end that the shell cuts off"
    );

    // Names, from both sides.
    for name in ["db", "database", "db.internal", "shop-db-1"] {
        let page = compose.does(&["exec", "-T", "web", "curl", "-sS", &format!("http://{name}:5432/starts")]);
        assert_eq!(page, "1", "{name}");
    }
    let hosts = compose.does(&["exec", "-T", "web", "cat", "/etc/hosts"]);
    assert!(hosts.contains("192.0.2.9\told.example"), "{hosts}");
    let limit = compose.does(&["exec", "-T", "web", "bash", "-c", "ulimit -Sn; ulimit -Hn"]);
    assert_eq!(limit, "123\n456");
    assert_eq!(compose.does(&["ps", "-a", "-q", "debug"]), "", "its profile is not asked for");
    compose.does(&["--profile", "debug", "up", "-d", "debug"]);
    assert_eq!(resolves(&compose, "debug", "database"), BTreeSet::new(), "another network's alias");
    assert_eq!(resolves(&compose, "debug", "web").len(), 1);

    scale(&docker, &compose);
    let from_outside = SocketAddr::new(IpAddr::from(MACHINE), 15432);
    let starts = || http_get(&lab.world.outside, from_outside, SHORT).unwrap_or_default();
    eventually("its published port answers", LONG, || starts() == "1\n");
    // Compose clears the line first, wherever it writes to.
    assert!(compose.does(&["logs", "--no-log-prefix", "db"]).ends_with("db is up"));

    // Started again by compose, and seen again by another daemon.
    compose.does(&["restart", "db"]);
    eventually("it is healthy again", LONG, || health("shop-db-1") == "healthy");
    assert_eq!(compose.does(&["exec", "-T", "db", "cat", "/data/starts"]), "2");
    lab.kill_daemon();
    lab.start_daemon();
    assert_eq!(health("shop-db-1"), "healthy", "what is known outlives the daemon");
    let last = || docker.does(&["inspect", "-f", "{{(index .State.Health.Log 0).Start}}", "shop-db-1"]);
    let before = last();
    eventually("probes go on", LONG, || last() != before);

    compose.does(&["--profile", "debug", "down", "-v"]);
    nothing_is_left(&lab.project("shop"));
    lab.project("shop").empty();
    lab.finish();
}

/// Two copies share a name, and one that stops is told of no more.
fn scale(docker: &Docker, compose: &Compose<'_>) {
    compose.does(&["scale", "web=2"]);
    let both: BTreeSet<String> =
        ["shop-web-1", "shop-web-2"].iter().map(|name| address(docker, name, "shop_front")).collect();
    assert_eq!(both.len(), 2);
    assert_eq!(resolves(compose, "debug", "web"), both);
    for name in ["shop-web-1", "shop-web-2"] {
        let page =
            compose.does(&["exec", "-T", "debug", "wget", "-q", "-O", "-", &format!("http://{name}/")]);
        assert!(page.contains("It works!"), "{name}: {page}");
    }
    docker.does(&["stop", "-t", "1", "shop-web-2"]);
    let first = BTreeSet::from([address(docker, "shop-web-1", "shop_front")]);
    assert_eq!(resolves(compose, "debug", "web"), first);
    compose.does(&["scale", "web=1"]);
    assert!(!docker.does(&["ps", "-a"]).contains("shop-web-2"));
}

#[test]
fn compose_changes_a_service_that_has_a_port_and_a_volume() {
    let (lab, docker) = lab();
    let compose = docker.compose("shop", SHOP);
    compose.does(&["up", "-d", "db"]);
    let id = || docker.does(&["inspect", "-f", "{{.Id}}", "shop-db-1"]);
    let first = id();
    compose.does(&["up", "-d", "db"]);
    assert_eq!(id(), first, "what did not change is left alone");

    compose.write(&SHOP.replace("labels:\n", "environment: {COLOUR: blue}\n    labels:\n"));
    compose.does(&["up", "-d", "db", "--wait"]);
    assert_ne!(id(), first, "it is another container");
    assert_eq!(compose.does(&["exec", "-T", "db", "sh", "-c", "echo $COLOUR; cat /data/starts"]), "blue\n2");
    let from_outside = SocketAddr::new(IpAddr::from(MACHINE), 15432);
    let answers = || http_get(&lab.world.outside, from_outside, SHORT).is_ok_and(|page| page == "2\n");
    eventually("the port came along", LONG, answers);

    // A program of its own beside the services, and the end of the one without the other.
    let once = compose.does(&["run", "--rm", "-T", "--no-deps", "debug", "sh", "-c", "echo once"]);
    assert_eq!(once, "once");
    compose.does(&["down"]);
    assert_eq!(docker.does(&["volume", "ls", "-q"]), "shop_data", "volumes are kept without -v");
    compose.does(&["up", "-d", "db", "--wait"]);
    assert_eq!(compose.does(&["exec", "-T", "db", "cat", "/data/starts"]), "3");
    compose.does(&["down", "-v"]);
    nothing_is_left(&lab.project("shop"));
    lab.project("shop").empty();
    lab.finish();
}

#[test]
fn compose_is_told_that_a_dependency_is_ill() {
    let (lab, docker) = lab();
    let ill = SHOP.replace("touch /tmp/ready; ", "").replace("retries: 60", "retries: 2");
    let compose = docker.compose("shop", &ill);
    let said = compose.says(&["up", "-d"]);
    assert!(said.code != 0 && said.err.contains("container shop-db-1 is unhealthy"), "{said:?}");
    assert!(docker.does(&["ps", "-a", "--filter", "name=web"]).contains("Created"), "web was not started");
    compose.does(&["down", "-v"]);
    nothing_is_left(&lab.project("shop"));
    lab.project("shop").empty();
    lab.finish();
}

/// One service prepares, the next one runs to its end, and compose ends as that did.
const ERRAND: &str = r#"
services:
  prepare:
    image: busybox
    command: ["sh", "-c", "sleep 1; echo prepared"]
  errand:
    image: busybox
    command: ["sh", "-c", "echo begun; sleep 1; echo done; exit 3"]
    depends_on:
      prepare: {condition: service_completed_successfully}
  idle:
    image: busybox
    command: ["sleep", "1000000"]
    init: false
    stop_grace_period: 1s
    links: ["errand:other"]
"#;

#[test]
fn compose_ends_as_the_errand_did() {
    let (lab, docker) = lab();
    let compose = docker.compose("errands", ERRAND);
    let said =
        compose.says(&["up", "--abort-on-container-exit", "--exit-code-from", "errand", "errand", "idle"]);
    assert_eq!(said.code, 3, "{said:?}");
    for line in ["begun", "done", "exited with code 3"] {
        assert!(said.out.contains(line), "{line}: {said:?}");
    }
    assert!(compose.does(&["logs", "prepare"]).ends_with("prepared"));
    let listed = compose.does(&["ps", "-a", "--format", "{{.Service}} {{.State}} {{.ExitCode}}"]);
    assert!(listed.contains("prepare exited 0") && listed.contains("errand exited 3"), "{listed}");
    assert!(listed.contains("idle exited"), "{listed}");

    // What is said later is followed, as long as anybody speaks.
    compose.does(&["start", "errand"]);
    let followed = compose.does(&["logs", "-f", "--no-log-prefix", "errand"]);
    assert_eq!(followed.matches("done").count(), 2, "{followed}");
    compose.does(&["down", "-v"]);
    nothing_is_left(&lab.project("shop"));
    lab.project("shop").empty();
    lab.finish();
}

/// A service with an address and a port of its own.
const FIXED: &str = r#"
services:
  web:
    image: busybox
    command: ["sh", "-c", "mkdir /www; echo $$COLOUR >/www/index.html; exec httpd -f -h /www"]
    environment: {COLOUR: red}
    ports: ["18088:80"]
    networks:
      front: {ipv4_address: 10.77.0.7}
networks:
  front:
    ipam: {config: [{subnet: 10.77.0.0/24}]}
"#;

#[test]
fn compose_changes_a_service_that_has_an_address() {
    let (lab, docker) = lab();
    let compose = docker.compose("fixed", FIXED);
    let at = || address(&docker, "fixed-web-1", "fixed_front");
    let from_outside = SocketAddr::new(IpAddr::from(MACHINE), 18088);
    let says = |colour: &str| {
        let page = || http_get(&lab.world.outside, from_outside, SHORT).unwrap_or_default();
        eventually(&format!("it says {colour}"), LONG, || page().trim_end() == colour);
    };
    compose.does(&["up", "-d"]);
    assert_eq!(at(), "10.77.0.7");
    says("red");
    let first = docker.does(&["inspect", "-f", "{{.Id}}", "fixed-web-1"]);
    compose.write(&FIXED.replace("red", "blue"));
    compose.does(&["up", "-d"]);
    assert_ne!(docker.does(&["inspect", "-f", "{{.Id}}", "fixed-web-1"]), first, "it is another container");
    assert_eq!(at(), "10.77.0.7");
    says("blue");
    compose.does(&["down"]);
    nothing_is_left(&lab.project("shop"));
    lab.project("shop").empty();
    lab.finish();
}
