//! A blog, as people run one with docker: WordPress and MariaDB, built from Dockerfiles and brought up by the real `docker
//! compose`, used through the web, and not disturbed by holm's end.

use crate::compose::{lab, nothing_is_left};
use lab::{Compose, Docker, Lab, MACHINE, World, connect, eventually};
use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};

/// An installation makes tables and accounts, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
const PORT: u16 = 8080;

/// What the web server said.
#[derive(Debug)]
struct Page {
    status: u16,
    text: String,
}

/// Asks the blog from outside: a form is sent, or a document, or nothing.
fn ask(world: &World, method: &str, path: &str, kind: &str, body: &str) -> io::Result<Page> {
    let at = SocketAddr::new(IpAddr::from(MACHINE), PORT);
    let mut stream = connect(&world.outside, None, at, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {at}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    let mut all = vec![];
    stream.read_to_end(&mut all)?;
    let all = String::from_utf8_lossy(&all).into_owned();
    let (head, text) = all.split_once("\r\n\r\n").ok_or_else(|| io::Error::other(all.clone()))?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok(Page { status: status.ok_or_else(|| io::Error::other(head))?, text: text.into() })
}

fn page(world: &World, path: &str) -> Page {
    ask(world, "GET", path, "text/plain", "").unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn form(world: &World, path: &str, fields: &[(&str, &str)]) -> Page {
    let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let body: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    let page = ask(world, "POST", path, "application/x-www-form-urlencoded", &body.join("&"));
    page.unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Publishes a text through the blog's own interface, as a writer's program does.
fn publish(world: &World, title: &str, text: &str) {
    let member = |name: &str, value: &str| {
        format!("<member><name>{name}</name><value><string>{value}</string></value></member>")
    };
    let post = [member("post_title", title), member("post_content", text), member("post_status", "publish")];
    let value = |value: &str| format!("<param><value>{value}</value></param>");
    let call = format!(
        "<?xml version=\"1.0\"?><methodCall><methodName>wp.newPost</methodName><params>{}{}{}{}</params></methodCall>",
        value("<int>1</int>"),
        value("<string>ada</string>"),
        value("<string>correct horse</string>"),
        value(&format!("<struct>{}</struct>", post.concat())),
    );
    let said = ask(world, "POST", "/xmlrpc.php", "text/xml", &call).expect("an answer");
    assert!(said.status == 200 && said.text.contains("<string>") && !said.text.contains("fault"), "{said:?}");
}

fn shows(world: &World, text: &str) -> bool {
    ask(world, "GET", "/", "text/plain", "").is_ok_and(|page| page.status == 200 && page.text.contains(text))
}

/// The compose file with its Dockerfiles, where the client works.
fn files(compose: &Compose<'_>) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("wordpress");
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(compose.directory()).status();
    assert!(status.expect("cp").success(), "the files of the blog");
}

/// Builds both images, and brings the blog up behind its database.
fn bring_up(lab: &Lab, docker: &Docker, compose: &Compose<'_>) {
    lab.registry().push(&lab.world.machine, &lab.images.file("lamp", "layout"), "library/lamp:latest");
    let built = compose.says(&["build"]);
    assert_eq!(built.code, 0, "{built:?}");
    assert!(docker.does(&["images"]).contains("blog-web"), "{built:?}");
    let told = compose.says(&["up", "-d"]);
    let place = |words: &str| told.err.find(words).unwrap_or_else(|| panic!("{words}: {told:?}"));
    assert!(place("blog-db-1  Healthy") < place("blog-web-1  Starting"), "{told:?}");
    let state = |field: &str, name: &str| docker.does(&["inspect", "-f", field, name]);
    assert_eq!(state("{{.State.Health.Status}}", "blog-db-1"), "healthy", "the web waited for it");
    let healthy = || state("{{.State.Health.Status}}", "blog-web-1") == "healthy";
    eventually("the web server is healthy, too", PATIENCE, healthy);
}

#[test]
fn compose_runs_a_blog_with_its_database() {
    let (mut lab, docker) = lab();
    let compose = docker.compose("blog", "");
    files(&compose);
    bring_up(&lab, &docker, &compose);
    install(&lab);
    publish(&lab.world, "Of engines", "The engine weaves algebraical patterns.");
    assert!(shows(&lab.world, "Of engines"), "{:?}", page(&lab.world, "/"));
    let post = page(&lab.world, "/?s=algebraical");
    assert!(post.text.contains("Of engines"), "{post:?}");

    // Nobody outside reaches the database, which has no way out either.
    let database = docker.does(&["inspect", "-f", "{{json .NetworkSettings.Ports}}", "blog-db-1"]);
    assert!(!database.contains("HostPort"), "{database}");

    // holm goes without a word: the blog is written in and read from meanwhile, and afterwards.
    lab.kill_daemon();
    assert!(shows(&lab.world, "Of engines"));
    publish(&lab.world, "Of looms", "Just as the Jacquard loom weaves flowers and leaves.");
    assert!(shows(&lab.world, "Of looms"));
    lab.start_daemon();
    assert!(shows(&lab.world, "Of looms"));
    assert_eq!(docker.does(&["inspect", "-f", "{{.State.Health.Status}}", "blog-db-1"]), "healthy");

    // What was written is on the volume, and not in the container.
    compose.does(&["up", "-d", "--force-recreate", "--wait"]);
    eventually("it is there again", PATIENCE, || shows(&lab.world, "Of engines"));
    assert!(shows(&lab.world, "Of looms"));

    let told = compose.says(&["down", "-v", "--rmi", "local"]);
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(docker.does(&["ps", "-a", "-q"]), "");
    assert_eq!(docker.does(&["volume", "ls", "-q"]), "");
    assert_eq!(docker.does(&["network", "ls", "--format", "{{.Name}}"]), "bridge");
    assert!(!docker.does(&["images"]).contains("blog-"));
    assert!(ask(&lab.world, "GET", "/", "text/plain", "").is_err(), "nobody listens any more");
    nothing_is_left(&lab.project("shop"));
    lab.project("shop").empty();
    lab.finish();
}

/// What everybody sees who installs WordPress.
fn install(lab: &Lab) {
    let asked = page(&lab.world, "/");
    assert!(asked.status == 302, "it leads to its installation: {asked:?}");
    let asked = page(&lab.world, "/wp-admin/install.php?step=1");
    assert!(asked.text.contains("Welcome") && asked.text.contains("weblog_title"), "{asked:?}");
    let fields = [
        ("weblog_title", "Notes by the translator"),
        ("user_name", "ada"),
        ("admin_password", "correct horse"),
        ("admin_password2", "correct horse"),
        ("pw_weak", "1"),
        ("admin_email", "ada@example.org"),
        ("blog_public", "0"),
        ("language", ""),
    ];
    let done = form(&lab.world, "/wp-admin/install.php?step=2", &fields);
    assert!(done.status == 200 && done.text.contains("WordPress has been installed"), "{done:?}");
    let front = page(&lab.world, "/");
    for words in ["Notes by the translator", "Hello world!"] {
        assert!(front.text.contains(words), "{words}: {front:?}");
    }
    let first = page(&lab.world, "/?p=1");
    assert!(first.text.contains("Welcome to WordPress. This is your first post."), "{first:?}");
}
