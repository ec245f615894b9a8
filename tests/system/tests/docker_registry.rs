//! Registries that want a login, by the real `docker` command: logging in, pushing and pulling, and what becomes of the
//! password.

use lab::{Docker, Lab, Registry};
use std::{fs, path::Path};

const PORT: u16 = 5001;
const PASSWORD: &str = "open sesame";

fn lab() -> (Lab, Docker, Registry) {
    let lab = Lab::new();
    lab.project("shop");
    let docker = Docker::find(&lab, "shop");
    let closed = Registry::start_closed(&lab.world.machine, &lab.directory().join("closed"), PORT);
    (lab, docker, closed)
}

#[test]
fn images_go_to_a_registry_that_wants_a_login_and_come_back() {
    let (lab, docker, closed) = lab();
    let host = format!("127.0.0.1:{PORT}");
    let name = format!("{host}/shop/tools:1");
    docker.does(&["pull", "busybox"]);
    docker.does(&["tag", "busybox", &name]);
    docker.does(&["tag", "busybox", &format!("{host}/shop/tools:2")]);
    docker.refuses(1, "wants a login", &["push", &name]);
    docker.refuses(1, "does not exist locally", &["push", &format!("{host}/shop/nosuch")]);

    let login = ["login", "-u", "demo", "--password-stdin", &host];
    let wrong = docker.told("open barley", &login);
    assert!(wrong.code == 1 && wrong.err.contains("incorrect username or password"), "{wrong:?}");
    let right = docker.told(PASSWORD, &login);
    assert!(right.code == 0 && right.out.contains("Login Succeeded"), "{right:?}");

    let pushed = docker.does(&["push", &name]);
    assert!(pushed.contains(&format!("The push refers to repository [{host}/shop/tools]")), "{pushed}");
    let digest =
        pushed.split("1: digest: ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a digest");
    let all = docker.does(&["push", "-a", &format!("{host}/shop/tools")]);
    assert!(all.contains(&format!("2: digest: {digest}")), "{all}");

    // Gone here, and back from there: the same content.
    let id = docker.does(&["inspect", "--format", "{{.Id}}", &name]);
    docker.does(&["rmi", "-f", "busybox", &name, &format!("{host}/shop/tools:2")]);
    let pulled = docker.does(&["pull", &name]);
    assert!(pulled.contains(&format!("Digest: {digest}")), "{pulled}");
    assert_eq!(docker.does(&["inspect", "--format", "{{.Id}}", &name]), id);
    assert_eq!(docker.does(&["run", "--rm", &name, "echo", "back"]), "back");

    // Nobody else comes in by that, here or later.
    docker.does(&["logout", &host]);
    docker.refuses(1, "pull access denied", &["pull", &format!("{host}/shop/tools:2")]);
    lab.project("other");
    let other = Docker::find(&lab, "other");
    let refused = other.told("open barley", &login);
    assert_eq!(refused.code, 1, "a name without its password: {refused:?}");
    docker.does(&["rmi", &name]);

    assert_unwritten(lab.state());
    assert_unwritten(&lab.directory().join("daemon.log"));
    drop(closed);
    let shop = lab.project("shop");
    shop.empty();
    lab.finish();
}

/// Neither the password nor what is sent of it is in any file.
fn assert_unwritten(path: &Path) {
    let kind = fs::symlink_metadata(path).expect("is there").file_type();
    if kind.is_dir() {
        for entry in fs::read_dir(path).expect("lists") {
            assert_unwritten(&entry.expect("an entry").path());
        }
    } else if kind.is_file() {
        let bytes = fs::read(path).expect("reads");
        // Base64 of `demo:open sesame`.
        for secret in [PASSWORD, "ZGVtbzpvcGVuIHNlc2FtZQ"] {
            let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_there, "{} holds the password", path.display());
        }
    }
}
