//! Building images by the real `docker` command as it is installed, with its buildx plugin: BuildKit's protocol, its progress,
//! its mounts and secrets, what fails, what is hostile, and what is left when a build is cut off.

mod agent;
mod given;
mod hostile;
mod output;
mod side;

use lab::{Docker, Lab, Registry, Said, eventually};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

const LONG: Duration = Duration::from_secs(60);
/// The project that its client works in. The plugin does not say so: the command that starts it does.
const PROJECT: &str = "shop";

fn lab() -> (Lab, Docker) {
    let lab = Lab::new();
    lab.project(PROJECT);
    let docker = Docker::with_buildx(&lab, PROJECT);
    (lab, docker)
}

/// A context with these files.
fn context(lab: &Lab, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let context = lab.directory().join(name);
    for (path, content) in files {
        let path = context.join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("makes");
        fs::write(path, content).expect("writes");
    }
    context
}

fn build(docker: &Docker, context: &Path, arguments: &[&str]) -> Said {
    let context = context.to_str().expect("a path of text");
    docker.says(&[&["build"], arguments, &[context]].concat())
}

/// Builds what must become an image, and gives what was told.
fn builds(docker: &Docker, context: &Path, arguments: &[&str]) -> String {
    let said = build(docker, context, arguments);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    format!("{}{}", said.out, said.err)
}

fn id(docker: &Docker, name: &str) -> String {
    docker.does(&["inspect", "--type", "image", "--format", "{{.Id}}", name])
}

fn runs(docker: &Docker, image: &str, script: &str) -> String {
    docker.does(&["run", "--rm", "--entrypoint", "sh", image, "-c", script])
}

/// No container of a build is left.
fn clean(docker: &Docker) {
    eventually("no container of a build is left", LONG, || docker.does(&["ps", "-a", "-q"]).is_empty());
}

/// What `docker system df` counts.
fn counted(docker: &Docker) -> String {
    docker.does(&["system", "df", "--format", "{{.Type}} {{.TotalCount}}"])
}

/// Removes the images and the cache, and looks for what is left.
fn finish(lab: Lab, docker: &Docker) {
    clean(docker);
    docker.does(&["image", "prune", "-a", "-f"]);
    docker.does(&["builder", "prune", "-a", "-f"]);
    let left = counted(docker);
    assert!(left.contains("Images 0") && left.contains("Build Cache 0"), "{left}");
    lab.project(PROJECT).empty();
    lab.finish();
}

const STAGES: &str = r#"
ARG BASE=busybox
FROM $BASE AS tools
ARG GREETING=hello
ENV WHO="the world"
WORKDIR /make
COPY src/ ./src/
RUN echo "$GREETING, $WHO" >greeting && cat src/deep/name >>greeting && echo told && echo why >&2

FROM busybox
LABEL tier=web
COPY --from=tools /make/greeting /srv/
COPY . /all/
CMD ["cat", "/srv/greeting"]
"#;

#[test]
fn docker_build_works_as_it_is_installed() {
    let (lab, docker) = lab();
    let large = "0123456789abcdef".repeat(40_000);
    let files = [
        ("Dockerfile", STAGES),
        ("src/deep/name", "Ada\n"),
        ("src/ä b", "x"),
        ("large", &large),
        ("secret", "s"),
        ("deep/down/below.tmp", "t"),
        (".dockerignore", "secret\n**/*.tmp\n"),
    ];
    let context = context(&lab, "stages", &files);
    let wanted =
        ["-t", "shop/app:1", "-t", "app", "--build-arg", "GREETING=good day", "--label", "who=me"].as_slice();
    let told = builds(&docker, &context, wanted);
    for line in [
        "[internal] load build definition from Dockerfile",
        "[internal] load metadata for docker.io/library/busybox:latest",
        "[internal] load .dockerignore",
        "[internal] load build context",
        "[tools 1/4] FROM docker.io/library/busybox:latest",
        "[tools 2/4] WORKDIR /make",
        "[tools 4/4] RUN echo",
        " told\n",
        " why\n",
        "[stage-1 3/3] COPY . /all/",
        "exporting to image",
        "naming to docker.io/shop/app:1",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert!(!told.contains("CACHED"), "{told}");
    assert_eq!(id(&docker, "shop/app:1"), id(&docker, "app"));
    assert_eq!(docker.does(&["run", "--rm", "app"]), "good day, the world\nAda");
    let seen =
        runs(&docker, "app", "cd /all; find . -type f | sort; wc -c <large; stat -c %u:%g:%a src/deep/name");
    let wanted_files = "./.dockerignore\n./Dockerfile\n./large\n./src/deep/name\n./src/ä b\n640000\n0:0:644";
    assert_eq!(seen, wanted_files, "what is left out by .dockerignore does not come");
    let labels = docker.does(&["inspect", "--type", "image", "--format", "{{json .Config.Labels}}", "app"]);
    assert_eq!(labels, r#"{"tier":"web","who":"me"}"#);

    // The second time nothing is run, whoever builds.
    let first = id(&docker, "app");
    let told = builds(&docker, &context, wanted);
    assert_eq!(told.matches("CACHED").count(), 5, "{told}");
    assert_eq!(id(&docker, "app"), first);
    let classic = Docker::find(&lab, PROJECT);
    let told = builds(&classic, &context, wanted);
    assert!(!told.contains("Running in"), "{told}");
    assert_eq!(id(&docker, "app"), first, "the same image by the classic builder");
    let told = builds(&docker, &context, &["--no-cache", "-t", "app"]);
    assert!(!told.contains("CACHED"), "{told}");

    builds_in_other_ways(&docker, &context);
    docker.does(&["rmi", "-f", "app", "shop/app:1", "tools", "alone"]);
    finish(lab, &docker);
}

/// Its id alone, a stage alone, a Dockerfile without a context, and a context that is an archive.
fn builds_in_other_ways(docker: &Docker, context: &Path) {
    let said = build(docker, context, &["-q", "-t", "tools", "--target", "tools"]);
    assert_eq!((said.code, said.out.trim()), (0, id(docker, "tools").as_str()), "{said:?}");
    assert_eq!(runs(docker, "tools", "head -n 1 greeting"), "hello, the world");
    let said = docker.told("FROM busybox\nRUN echo alone >/alone\n", &["build", "-t", "alone", "-"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(runs(docker, "alone", "cat /alone"), "alone");
    let packed = context.with_extension("tar");
    let tar =
        std::process::Command::new("tar").arg("-cf").arg(&packed).arg("-C").arg(context).arg(".").status();
    assert!(tar.expect("tar").success());
    let mut command = docker.command(&["build", "-t", "alone", "-"]);
    let output = command.stdin(fs::File::open(&packed).expect("opens")).output().expect("docker");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(runs(docker, "alone", "head -n 1 /srv/greeting"), "hello, the world");
    let said = docker.says(&["buildx", "inspect"]);
    assert!(said.code == 0 && said.out.contains("linux/amd64"), "{said:?}");
}

#[test]
fn a_step_that_fails_is_shown_with_its_line() {
    let (lab, docker) = lab();
    let text = "FROM busybox\nRUN echo before\nRUN echo told; echo why >&2; \\\n  exit 3\n";
    let fails = context(&lab, "fails", &[("Dockerfile", text)]);
    let said = build(&docker, &fails, &["-t", "never"]);
    assert_eq!(said.code, 1, "{said:?}");
    for words in [
        "[3/3] RUN echo told; echo why >&2;",
        " told\n",
        " why\n",
        "Dockerfile:3",
        "   3 | >>> RUN echo told; echo why >&2; \\",
        "   4 | >>>   exit 3",
        "did not complete successfully: exit code: 3",
    ] {
        assert!(said.err.contains(words), "{words}: {}", said.err);
    }
    clean(&docker);
    // What went well before it is there for the next try.
    fs::write(fails.join("Dockerfile"), "FROM busybox\nRUN echo before\nRUN true\n").expect("writes");
    assert_eq!(builds(&docker, &fails, &["-t", "never"]).matches("CACHED").count(), 1);
    for (text, words) in [
        ("FROM busybox\nFRM x", "dockerfile parse error on line 2: unknown instruction: FRM"),
        ("FROM busybox\nCOPY nosuch /", "file not found in build context"),
        ("FROM nosuch/image\nRUN true", "nosuch/image"),
        (
            "FROM busybox\nRUN --mount=type=ssh,required true",
            "no SSH key \"default\" forwarded from the client",
        ),
        ("FROM busybox\nRUN --mount=type=secret,id=x,required true", "secret x: not found"),
    ] {
        fs::write(fails.join("Dockerfile"), text).expect("writes");
        let said = build(&docker, &fails, &[]);
        assert!(said.code != 0 && said.err.contains(words), "{words}: {said:?}");
    }
    fs::write(fails.join("Dockerfile"), "FROM busybox\nRUN true\n").expect("writes");
    for (arguments, words) in [
        (&["-f", "Nosuch"][..], "Nosuch"),
        (&["--output", "type=nosuch,dest=x"], "type=nosuch"),
        (&["--cache-to", "type=registry,ref=shop/cache"], "--cache-to"),
        (&["--attest", "type=sbom"], "Attestations are not supported"),
        (&["--platform", "linux/amd64,linux/arm64"], "platform"),
        (&["--network", "host"], "NetworkMode"),
        (&["--target", "nosuch"], "nosuch"),
    ] {
        let said = build(&docker, &fails, &[arguments, &["--no-cache"]].concat());
        assert!(said.code != 0 && said.err.contains(words), "{words}: {said:?}");
    }
    docker.does(&["rmi", "-f", "never"]);
    finish(lab, &docker);
}

const MOUNTS: &str = "# syntax=docker/dockerfile:1\n\
    FROM busybox AS tools\n\
    RUN mkdir -p /lib/deep && echo tool >/lib/deep/tool\n\
    FROM busybox\n\
    RUN --mount=type=cache,target=/cache,uid=7,mode=0750 \
        stat -c %u:%a /cache; echo run >>/cache/runs; wc -l </cache/runs >/runs; chown 0 /cache\n\
    RUN --mount=type=tmpfs,target=/memory grep ' /memory tmpfs' /proc/mounts && echo x >/memory/x\n\
    RUN --mount=type=bind,from=tools,source=/lib,target=/mnt/lib --mount=type=bind,target=/mnt/context \
        cat /mnt/lib/deep/tool /mnt/context/data >/bound\n\
    RUN --mount=type=bind,source=data,target=/mnt/data cat /mnt/data >>/bound\n\
    RUN --mount=type=secret,id=token --mount=type=secret,id=other,env=OTHER \
        stat -c %a /run/secrets/token && sha256sum </run/secrets/token >/sum && echo ${#OTHER} >>/sum\n";

#[test]
fn mounts_and_secrets_are_no_part_of_the_image() {
    const SECRET: &str = "a secret that nobody else may see";
    let (lab, docker) = lab();
    let mounted = context(&lab, "mounts", &[("Dockerfile", MOUNTS), ("data", "data\n")]);
    let token = lab.directory().join("token");
    fs::write(&token, SECRET).expect("writes");
    let secret = format!("id=token,src={}", token.display());
    let with_secrets = ["-t", "mounted", "--secret", &secret, "--secret", "id=other,env=HOME"];
    let told = builds(&docker, &mounted, &with_secrets);
    assert!(told.contains("7:750") && told.contains(" 400\n"), "{told}");
    assert!(!told.contains(SECRET), "{told}");
    assert_eq!(runs(&docker, "mounted", "cat /runs /bound"), "1\ntool\ndata\ndata");
    let sum = runs(&docker, "mounted", "cat /sum");
    assert!(sum.ends_with(|c: char| c.is_ascii_digit()) && sum.contains("  -\n"), "{sum}");
    // A directory that something was mounted on stays, and nothing that was in it.
    let left = "find /cache /memory /mnt /run/secrets -type f 2>/dev/null; ls /cache";
    assert_eq!(runs(&docker, "mounted", left), "", "nothing of a mount is left");

    // All of it is cached; the cache goes on when the step runs again.
    let told = builds(&docker, &mounted, &with_secrets);
    assert_eq!(told.matches("CACHED").count(), 6, "{told}");
    builds(&docker, &mounted, &[&["--no-cache"][..], &with_secrets].concat());
    assert_eq!(runs(&docker, "mounted", "cat /runs"), "2");
    let shown = docker.does(&["builder", "du", "--verbose"]);
    assert!(shown.contains("exec.cachemount"), "{shown}");
    // Other content of what is bound is another step.
    fs::write(mounted.join("data"), "other\n").expect("writes");
    builds(&docker, &mounted, &with_secrets);
    assert_eq!(runs(&docker, "mounted", "cat /bound"), "tool\nother\nother");
    docker.does(&["rmi", "-f", "mounted"]);
    docker.does(&["builder", "prune", "-a", "-f"]);
    assert_eq!(docker.does(&["volume", "ls", "-q"]), "", "the caches are pruned");
    assert_unwritten(lab.state(), SECRET);
    assert_unwritten(&lab.directory().join("daemon.log"), SECRET);
    finish(lab, &docker);
}

/// A secret is in no file.
fn assert_unwritten(path: &Path, secret: &str) {
    let kind = fs::symlink_metadata(path).expect("is there").file_type();
    if kind.is_dir() {
        for entry in fs::read_dir(path).expect("lists") {
            assert_unwritten(&entry.expect("an entry").path(), secret);
        }
    } else if kind.is_file() {
        let bytes = fs::read(path).expect("reads");
        let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!is_there, "{} holds the secret", path.display());
    }
}

#[test]
fn an_older_client_builds_without_a_plugin() {
    let lab = Lab::new();
    lab.project(PROJECT);
    let docker = Docker::older(&lab, PROJECT);
    let text = "FROM busybox AS tools\nARG WHO\nCOPY name /name\nRUN --mount=type=secret,id=token \\\n  \
        echo \"$WHO $(cat /name) $(wc -c </run/secrets/token)\" >/who\nFROM busybox\nCOPY --from=tools /who /\n";
    let files = [("Dockerfile", text), ("name", "ada"), ("token", "12345"), (".dockerignore", "token\n")];
    let older = context(&lab, "older", &files);
    let secret = format!("id=token,src={}", older.join("token").display());
    let wanted = &["-t", "older", "--build-arg", "WHO=older", "--secret", &secret];
    let told = builds(&docker, &older, wanted);
    for line in
        ["[internal] load build context", "[tools 3/3] RUN", "exporting to image", "naming to docker.io"]
    {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert_eq!(runs(&docker, "older", "cat /who"), "older ada 5");
    let first = id(&docker, "older");
    assert_eq!(builds(&docker, &older, wanted).matches("CACHED").count(), 3);
    let said = build(&docker, &older, &[&["-q"][..], wanted].concat());
    assert_eq!((said.code, said.out.trim()), (0, first.as_str()), "{said:?}");
    fs::write(older.join("Dockerfile"), "FROM busybox\nRUN exit 3\n").expect("writes");
    let said = build(&docker, &older, &[]);
    assert!(said.code != 0 && said.err.contains("exit code: 3"), "{said:?}");
    docker.does(&["rmi", "-f", "older"]);
    clean(&docker);
    docker.does(&["builder", "prune", "-a", "-f"]);
    lab.project(PROJECT).empty();
    lab.finish();
}

#[test]
fn a_build_is_lent_its_clients_login() {
    const PORT: u16 = 5001;
    let (lab, docker) = lab();
    let closed = Registry::start_closed(&lab.world.machine, &lab.directory().join("closed"), PORT);
    let host = format!("127.0.0.1:{PORT}");
    let name = format!("{host}/shop/tools:1");
    docker.does(&["pull", "busybox"]);
    docker.does(&["tag", "busybox", &name]);
    let login = ["login", "-u", "demo", "--password-stdin", &host];
    assert_eq!(docker.told("open sesame", &login).code, 0);
    docker.does(&["push", &name]);
    docker.does(&["rmi", "-f", "busybox", &name]);
    let text = format!("FROM {name}\nRUN echo lent >/lent\n");
    let lent = context(&lab, "lent", &[("Dockerfile", &text)]);
    builds(&docker, &lent, &["-t", "lent"]);
    assert_eq!(runs(&docker, "lent", "cat /lent"), "lent");
    docker.does(&["rmi", "-f", "lent", &name]);
    docker.does(&["logout", &host]);
    let said = build(&docker, &lent, &["--no-cache", "--pull", "-t", "lent"]);
    assert!(said.code != 0 && said.err.contains("pull access denied"), "{said:?}");
    drop(closed);
    finish(lab, &docker);
}

#[test]
fn compose_builds_and_starts_its_services() {
    let (lab, docker) = lab();
    let file = "services:\n  web:\n    build:\n      context: app\n      args: {WHO: compose}\n    \
        command: [\"sh\", \"-c\", \"cat /who; sleep 1000000\"]\n";
    let compose = docker.compose("made", file);
    let text = "FROM busybox\nARG WHO\nCOPY name /name\nRUN echo \"$WHO $(cat /name)\" >/who\n";
    let app = compose.directory().join("app");
    fs::create_dir_all(&app).expect("makes");
    fs::write(app.join("Dockerfile"), text).expect("writes");
    fs::write(app.join("name"), "ada").expect("writes");
    let said = compose.says(&["build"]);
    let told = format!("{}{}", said.out, said.err);
    assert!(said.code == 0 && told.contains("RUN echo"), "{told}");
    compose.does(&["up", "-d"]);
    eventually("the service runs what was built", LONG, || {
        compose.does(&["logs", "--no-log-prefix", "web"]).contains("compose ada")
    });
    compose.does(&["down", "--rmi", "all"]);
    finish(lab, &docker);
}

/// Starts a build that sleeps in its second step.
fn sleeping(docker: &Docker, context: &Path) -> std::process::Child {
    let mut child = docker.start(&["build", "-t", "never", context.to_str().expect("a path of text")]);
    let mut lines = BufReader::new(child.stderr.take().expect("its errors")).lines();
    let begun = lines.by_ref().map_while(Result::ok).any(|line| line.ends_with("it sleeps now"));
    assert!(begun, "the step runs");
    child
}

/// How many files lie in a directory and below.
fn count(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
}

#[test]
fn a_build_whose_client_goes_leaves_nothing() {
    let (mut lab, docker) = lab();
    docker.does(&["pull", "busybox"]);
    let text = "FROM busybox\nCOPY large /\nRUN echo made >/made\n\
        RUN --mount=type=secret,id=token echo it sleeps now; sleep 100000\n";
    let large = "x".repeat(3_000_000);
    let cut = context(&lab, "cut", &[("Dockerfile", text), ("large", &large)]);
    let images = lab.state().join("images");
    let files = count(&images);
    let mut child = sleeping(&docker, &cut);
    assert_eq!(docker.does(&["ps", "-q"]).lines().count(), 1, "the step is a container");
    // The plugin is a program of its own: with its parent it goes too.
    kill_all(&mut child);
    clean(&docker);
    eventually("no step is left", LONG, || counted(&docker).contains("Build Cache 0"));
    assert_eq!(count(&images), files);

    // The daemon is killed.
    let mut child = sleeping(&docker, &cut);
    lab.kill_daemon();
    let _ = child.wait();
    lab.start_daemon();
    clean(&docker);
    eventually("no step is left", LONG, || counted(&docker).contains("Build Cache 0"));
    assert_eq!(count(&images), files);
    fs::write(cut.join("Dockerfile"), "FROM busybox\nRUN echo made >/made\n").expect("writes");
    builds(&docker, &cut, &["-t", "now"]);
    assert_eq!(runs(&docker, "now", "cat /made"), "made");
    docker.does(&["rmi", "-f", "now"]);
    finish(lab, &docker);
}

/// Kills a client and the programs that it has started.
fn kill_all(child: &mut std::process::Child) {
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let programs = fs::read_to_string(children).unwrap_or_default();
    child.kill().and_then(|()| child.wait()).expect("the client goes");
    for pid in programs.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}
