//! Contexts with names of their own: directories and images in the place of what the Dockerfile names.

use super::{builds, context, finish, id, lab, runs};
use std::fs;

const TEXT: &str = "FROM base AS made\n\
    COPY --from=assets deep/page /page\n\
    COPY --from=assets . /all/\n\
    RUN --mount=from=assets,source=/deep,target=/mnt cat /mnt/page >/mounted\n\
    FROM nosuch/image AS replaced\n\
    RUN false\n\
    FROM made\n\
    COPY --from=replaced /deep/page /of-a-stage\n\
    COPY --from=other.example/tools:1 /bin/busybox /busybox\n";

#[test]
fn named_contexts_stand_for_what_the_dockerfile_names() {
    let (lab, docker) = lab();
    docker.does(&["pull", "busybox"]);
    docker.does(&["tag", "busybox", "shop/own:7"]);
    let given = context(&lab, "given", &[("Dockerfile", TEXT)]);
    let files = [("deep/page", "page\n"), ("left-out", "x"), (".dockerignore", "left-out\n")];
    let assets = context(&lab, "assets", &files);
    let assets_given = format!("assets={}", assets.display());
    let replaced = format!("replaced={}", assets.display());
    let arguments = [
        "-t",
        "given",
        "--build-context",
        "base=docker-image://shop/own:7",
        "--build-context",
        &assets_given,
        "--build-context",
        &replaced,
        "--build-context",
        "other.example/tools:1=docker-image://busybox",
    ];
    let told = builds(&docker, &given, &arguments);
    assert!(told.contains("[context assets] load from client"), "{told}");
    assert_eq!(runs(&docker, "given", "cat /page /mounted /of-a-stage"), "page\npage\npage");
    assert_eq!(runs(&docker, "given", "cd /all; find . -type f | sort"), "./.dockerignore\n./deep/page");
    assert_eq!(runs(&docker, "given", "cmp /busybox /bin/busybox && echo same"), "same");
    let first = id(&docker, "given");
    let told = builds(&docker, &given, &arguments);
    assert!(told.matches("CACHED").count() >= 5, "{told}");
    assert_eq!(id(&docker, "given"), first);
    fs::write(assets.join("deep/page"), "another\n").expect("writes");
    builds(&docker, &given, &arguments);
    assert_eq!(runs(&docker, "given", "cat /page /mounted /of-a-stage"), "another\nanother\nanother");

    // A stage that begins with the client's directory alone.
    fs::write(given.join("Dockerfile"), "FROM assets\nCOPY --from=busybox /bin /bin\n").expect("writes");
    builds(&docker, &given, &["-t", "alone", "--build-context", &assets_given]);
    let seen = runs(&docker, "alone", "cat /deep/page; ls /");
    assert!(seen.starts_with("another\nbin\ndeep\n") && !seen.contains("left-out"), "{seen}");
    let said = super::build(&docker, &given, &["--build-context", "assets=https://example.org/x.git"]);
    assert!(said.code != 0 && said.err.contains("docker-image://NAME"), "{said:?}");
    docker.does(&["rmi", "-f", "given", "alone", "shop/own:7"]);
    finish(lab, &docker);
}
