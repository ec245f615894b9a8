//! Building images by the real `docker` command, with its classic builder: stages, the cache, what fails, what is hostile,
//! and what is left when a build is cut off.

use crate::docker::{PROJECT, finish, lab};
use api::v1::types::image::Image;
use lab::{Docker, Lab, Said, eventually, until};
use std::{
    fs,
    io::{BufRead, BufReader, Read as _, Write as _},
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

const LONG: Duration = Duration::from_secs(60);

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
    said.out
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
fn finish_builds(lab: Lab, docker: &Docker) {
    clean(docker);
    let listed = lab.project(PROJECT).list::<Image>();
    assert!(listed.iter().all(|image| !image.head.name.starts_with("step-")), "no list shows the cache");
    docker.does(&["image", "prune", "-a", "-f"]);
    docker.does(&["builder", "prune", "-a", "-f"]);
    let left = counted(docker);
    assert!(left.contains("Images 0") && left.contains("Build Cache 0"), "{left}");
    finish(lab);
}

const STAGES: &str = r#"
ARG BASE=busybox
FROM $BASE AS tools
ARG GREETING=hello
ENV WHO="the world"
WORKDIR /make
COPY src/ ./src/
RUN echo "$GREETING, $WHO" >greeting && cat src/deep/name >>greeting && id -u >>greeting
RUN mkdir -p out && cp greeting out/ && ln -s greeting out/link && chown -R 7:8 out

FROM busybox
LABEL tier=web
COPY --from=tools /make/out /srv/
COPY --chown=nobody --chmod=0640 src/*.txt /texts/
ADD files.tar.gz /added/
COPY <<TEXT /etc/made
made of $PATH
TEXT
USER nobody
WORKDIR /srv
EXPOSE 8080
HEALTHCHECK --interval=1h CMD true
ENTRYPOINT ["cat"]
CMD ["greeting"]
"#;

#[test]
fn an_image_is_built_in_stages() {
    let (lab, docker) = lab();
    let files = [
        ("Dockerfile", STAGES),
        ("src/deep/name", "Ada\n"),
        ("src/a.txt", "a\n"),
        ("src/b.txt", "b\n"),
        ("secret", "s"),
        (".dockerignore", "secret\n**/*.tmp\n"),
    ];
    let context = context(&lab, "stages", &files);
    let packed = std::process::Command::new("tar")
        .args(["--owner=5", "--group=6", "-czf", "files.tar.gz", "src"])
        .current_dir(&context)
        .status()
        .expect("tar");
    assert!(packed.success());
    let wanted =
        ["-t", "shop/app:1", "-t", "app", "--build-arg", "GREETING=good day", "--label", "who=me"].as_slice();
    let told = builds(&docker, &context, wanted);
    for line in [
        "Step 1/20 : ARG BASE=busybox",
        "Step 2/20 : FROM $BASE AS tools",
        " ---> Running in ",
        "Successfully built ",
        "Successfully tagged shop/app:1",
        "Successfully tagged app:latest",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert!(!told.contains("Using cache"), "{told}");
    let image = id(&docker, "app");
    assert!(told.contains(&format!("Successfully built {}", &image[7..19])), "{told}");
    assert_eq!(id(&docker, "shop/app:1"), image);
    holds_what_was_built(&docker);
    assert_eq!(docker.does(&["ps", "-a", "-q"]), "", "no container is left");

    // A stage alone, and one that is not there.
    let told = builds(&docker, &context, &["-q", "-t", "tools", "--target", "tools"]);
    assert_eq!(told.trim(), id(&docker, "tools"));
    let seen = runs(&docker, "tools", "head -n 1 greeting; ls /make/src");
    assert_eq!(seen, "hello, the world\na.txt\nb.txt\ndeep");
    let said = build(&docker, &context, &["--target", "nosuch"]);
    assert!(said.code == 1 && said.err.contains("failed to reach build target nosuch"), "{said:?}");
    docker.does(&["rmi", "-f", "app", "shop/app:1", "tools"]);
    finish_builds(lab, &docker);
}

/// What the image has, whose it is, and what it runs.
fn holds_what_was_built(docker: &Docker) {
    assert_eq!(docker.does(&["run", "--rm", "app"]), "good day, the world\nAda\n0");
    let look = "stat -c %u:%g:%a /srv/greeting /texts/a.txt /added/src/a.txt /etc/made; \
                readlink link; cat /etc/made; pwd; id -u";
    let seen = runs(docker, "app", look);
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[0], "7:8:644", "what is copied from a stage keeps its owner: {seen}");
    let wanted =
        ["65534:65534:640", "5:6:644", "0:0:644", "greeting", "made of /bin:/usr/bin", "/srv", "65534"];
    assert_eq!(lines[1..], wanted, "{seen}");
    let format = "{{json .Config.ExposedPorts}} {{json .Config.Labels}} {{.Config.User}} {{json .Config.Cmd}} \
                  {{json .Config.Healthcheck.Test}}";
    let told = docker.does(&["inspect", "--type", "image", "--format", format, "app"]);
    let wanted = r#"{"8080/tcp":{}} {"tier":"web","who":"me"} nobody ["greeting"] ["CMD-SHELL","true"]"#;
    assert_eq!(told, wanted);
    let history = docker.does(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "app"]);
    for line in [
        "/bin/sh -c #(nop)  CMD [\"greeting\"]",
        "/bin/sh -c #(nop)  EXPOSE 8080",
        "/bin/sh -c #(nop) COPY multi:",
        "/bin/sh -c #(nop) ADD file:",
    ] {
        assert!(history.contains(line), "{line}: {history}");
    }
}

const CACHED: &str = "FROM busybox\n\
    RUN echo first >/first && cat /proc/sys/kernel/random/uuid >/when\n\
    COPY data /data\n\
    RUN cp /data /copied\n\
    CMD [\"cat\", \"/copied\"]\n";

fn touch(path: &Path, time: SystemTime) {
    fs::File::options().append(true).open(path).and_then(|file| file.set_modified(time)).expect("sets");
}

#[test]
fn what_was_built_before_is_used() {
    let (lab, docker) = lab();
    let context = context(&lab, "cached", &[("Dockerfile", CACHED), ("data", "one\n"), ("other", "x")]);
    builds(&docker, &context, &["-t", "cached"]);
    let (first, when) = (id(&docker, "cached"), runs(&docker, "cached", "cat /when"));
    let told = builds(&docker, &context, &["-t", "cached"]);
    assert_eq!(told.matches("Using cache").count(), 4, "{told}");
    assert!(!told.contains("Running in"), "nothing is run again: {told}");
    assert_eq!(id(&docker, "cached"), first, "the same image");

    // A file that is not copied changes nothing, nor does a time; content does, from there on.
    fs::write(context.join("other"), "y").expect("writes");
    touch(&context.join("data"), SystemTime::UNIX_EPOCH);
    assert_eq!(builds(&docker, &context, &["-t", "cached"]).matches("Using cache").count(), 4);
    assert_eq!(id(&docker, "cached"), first);
    fs::write(context.join("data"), "two\n").expect("writes");
    let told = builds(&docker, &context, &["-t", "cached"]);
    let counts = (told.matches("Using cache").count(), told.matches("Running in").count());
    assert_eq!(counts, (1, 1), "{told}");
    assert_eq!(docker.does(&["run", "--rm", "cached"]), "two");
    assert_eq!(runs(&docker, "cached", "cat /when"), when, "the first step is the one of the first build");
    fs::set_permissions(context.join("data"), fs::Permissions::from_mode(0o600)).expect("sets");
    let told = builds(&docker, &context, &["-t", "cached"]);
    assert_eq!(told.matches("Using cache").count(), 1, "a mode counts: {told}");

    let told = builds(&docker, &context, &["--no-cache", "-t", "cached"]);
    assert!(!told.contains("Using cache"), "{told}");
    assert_ne!(runs(&docker, "cached", "cat /when"), when);
    let shown = docker.does(&["system", "df", "-v", "--format", "{{json .BuildCache}}"]);
    assert!(shown.contains("CacheType") || shown.contains("regular"), "{shown}");
    // Pruned, it is built anew.
    docker.does(&["builder", "prune", "-a", "-f"]);
    assert!(!builds(&docker, &context, &["-t", "cached"]).contains("Using cache"));
    docker.does(&["rmi", "-f", "cached"]);
    finish_builds(lab, &docker);
}

#[test]
fn a_step_that_fails_is_told() {
    let (lab, docker) = lab();
    let text = "FROM busybox\nRUN echo before\nRUN echo told; echo why >&2; \\\n  exit 3\n";
    let fails = context(&lab, "fails", &[("Dockerfile", text)]);
    let said = build(&docker, &fails, &["-t", "never"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.out.contains("told\n") && said.out.contains("why\n"), "{said:?}");
    assert!(said.err.contains("returned a non-zero code: 3 (line 3 of Dockerfile)"), "{said:?}");
    clean(&docker);
    assert_eq!(docker.does(&["images", "-q", "-a"]), docker.does(&["images", "-q", "busybox"]));
    // What went well before it is there for the next try.
    fs::write(fails.join("Dockerfile"), "FROM busybox\nRUN echo before\nRUN true\n").expect("writes");
    let told = builds(&docker, &fails, &["-t", "never"]);
    assert_eq!(told.matches("Using cache").count(), 1, "{told}");
    docker.does(&["rmi", "-f", "never"]);
    finish_builds(lab, &docker);
}

#[test]
fn what_cannot_be_built_is_refused() {
    let (lab, docker) = lab();
    let fails = context(&lab, "refused", &[("Dockerfile", "")]);
    for (text, words) in [
        ("FROM busybox\nFRM x", "dockerfile parse error on line 2: unknown instruction: FRM"),
        ("FROM busybox\nCOPY nosuch /", "file not found in build context"),
        ("FROM busybox\nCOPY --from=nosuch:1 /x /", "nosuch"),
        ("FROM nosuch/image\nRUN true", "nosuch/image"),
        ("FROM busybox\nRUN --mount=type=secret,id=x,required true", "secret x: not found"),
        ("FROM busybox\nUSER nosuch\nRUN true", "nosuch"),
        ("FROM scratch\nRUN true", "nothing to run in"),
        ("FROM scratch\nCMD [\"x\"]", "No image was generated"),
        ("FROM busybox\nADD http://198.51.100.9/x /x", "--image-host"),
        ("FROM busybox\nRUN [\"/nosuch\"]", "executable file not found"),
    ] {
        fs::write(fails.join("Dockerfile"), text).expect("writes");
        let said = build(&docker, &fails, &[]);
        assert!(said.code != 0 && format!("{}{}", said.out, said.err).contains(words), "{text}: {said:?}");
    }
    fs::write(fails.join("Dockerfile"), "FROM busybox\nRUN true\n").expect("writes");
    for (arguments, words) in [
        (&["-f", "Nosuch"][..], "Nosuch"),
        (&["--memory", "1"], "6MB"),
        (&["-t", "Not:Good:Name"], "invalid"),
        (&["--network", "host"], "NetworkMode"),
        (&["--shm-size", "1g"], "shmsize"),
    ] {
        let said = build(&docker, &fails, &[arguments, &["--no-cache"]].concat());
        assert!(
            said.code != 0 && format!("{}{}", said.out, said.err).contains(words),
            "{arguments:?}: {said:?}"
        );
    }
    // A client is told why even if it has much to send yet.
    let said = posted(&lab, "memory=1", &vec![0; 8 << 20]);
    assert!(said.contains("6MB"), "{said}");
    finish_builds(lab, &docker);
}

/// Sends an archive as a context, and gives all that the door says.
fn posted(lab: &Lab, query: &str, archive: &[u8]) -> String {
    let mut door = UnixStream::connect(lab.run().join("docker.sock")).expect("the door");
    let head = format!(
        "POST /v1.43/build?{query} HTTP/1.1\r\nHost: docker\r\nX-Holm-Project: shop\r\nConnection: close\r\n\
         Content-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        archive.len()
    );
    door.write_all(head.as_bytes()).and_then(|()| door.write_all(archive)).expect("sends");
    let mut said = String::new();
    door.read_to_string(&mut said).expect("an answer");
    said
}

/// An entry of an archive: a name, a kind, and what a link leads to or a file holds.
type Entry<'a> = (&'a str, tar::EntryType, &'a str);

fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    for (name, kind, text) in entries {
        let mut header = tar::Header::new_gnu();
        // Names are written as they are: the builder would refuse these.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        let content = if kind.is_file() { text.as_bytes() } else { b"" };
        if !kind.is_file() {
            header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).expect("appends");
    }
    builder.into_inner().expect("an archive")
}

fn dockerfile(text: &str) -> Entry<'_> {
    ("Dockerfile", tar::EntryType::Regular, text)
}

#[test]
fn a_hostile_context_leads_nowhere() {
    use tar::EntryType::{Block, Link, Regular, Symlink};
    let (lab, docker) = lab();
    docker.does(&["pull", "busybox"]);
    let outside = context(&lab, "outside", &[("secret", "the host's\n")]).join("secret");
    let secret = outside.to_str().expect("a path of text");
    for (entries, words) in [
        (
            vec![dockerfile("FROM busybox\nCOPY link /x\n"), ("link", Symlink, secret)],
            "file not found in build context",
        ),
        (
            vec![
                dockerfile("FROM busybox\nCOPY d/x /x\n"),
                ("d", Symlink, "../../../../../../../../etc"),
                ("d/x", Regular, "y"),
            ],
            "no directory",
        ),
        (
            vec![dockerfile("FROM busybox\nCOPY ../outside/secret /x\n")],
            "forbidden path outside the build context",
        ),
        (vec![dockerfile("FROM busybox\nCOPY x /x\n"), ("../x", Regular, "y")], "leads out of the directory"),
        (
            vec![dockerfile("FROM busybox\nCOPY x /x\n"), ("x", Link, "../outside/secret")],
            "leads out of the directory",
        ),
        (vec![dockerfile("FROM busybox\nCOPY x /x\n"), ("x", Block, "")], "is a device"),
        (
            vec![dockerfile("FROM busybox\nCOPY a /x\n"), ("a", Symlink, "b"), ("b", Symlink, "a")],
            "symbolic links",
        ),
        (vec![("Dockerfile", Symlink, secret)], "Cannot locate specified Dockerfile"),
    ] {
        let said = posted(&lab, "t=hostile", &archive(&entries));
        assert!(said.contains(words) && !said.contains("Successfully built"), "{words}: {said}");
    }
    let plain = archive(&[dockerfile("FROM busybox\nCOPY Dockerfile /x\n")]);
    let said = posted(&lab, "t=hostile&dockerfile=..%2F..%2Fetc%2Fpasswd", &plain);
    assert!(said.contains("Cannot locate specified Dockerfile"), "{said}");
    let said = posted(&lab, "remote=https://example.org/x.git", &[]);
    assert!(said.contains("HTTP/1.1 400") && said.contains("no context is fetched"), "{said}");
    let said = posted(&lab, "t=hostile", &plain[..530]);
    assert!(!said.contains("Successfully") && said.contains("archive"), "{said}");
    links_stay_inside(&lab, &docker);
    finish_builds(lab, &docker);
}

/// Links of an image lead no file out of it, and links of a context are followed in it.
fn links_stay_inside(lab: &Lab, docker: &Docker) {
    let text = "FROM busybox\n\
        RUN ln -s /../../../../../../../../tmp /out && ln -s / /root/top\n\
        COPY x /out/holm-x\n\
        COPY x /root/top/holm-y\n\
        RUN cat /tmp/holm-x /holm-y\n";
    let entries = [dockerfile(text), ("x", tar::EntryType::Regular, "inside\n")];
    let said = posted(lab, "t=hostile", &archive(&entries));
    assert!(said.contains("Successfully built"), "{said}");
    assert_eq!(runs(docker, "hostile", "cat /tmp/holm-x /holm-y"), "inside\ninside");
    assert!(!Path::new("/tmp/holm-x").exists() && !Path::new("/holm-y").exists());
    let text = "FROM busybox\nCOPY link /x\nCOPY dir /d\n";
    let linked = context(lab, "linked", &[("Dockerfile", text), ("real/file", "real\n")]);
    symlink("real/file", linked.join("link")).expect("links");
    symlink("real", linked.join("dir")).expect("links");
    builds(docker, &linked, &["-t", "linked"]);
    assert_eq!(runs(docker, "linked", "cat /x /d/file"), "real\nreal");
    docker.does(&["rmi", "-f", "hostile", "linked"]);
}

const REPRODUCED: &str = "FROM busybox\n\
    ARG SOURCE_DATE_EPOCH\n\
    WORKDIR /made/deep\n\
    RUN echo $SOURCE_DATE_EPOCH >file; mkdir d; touch d/z d/a d/m\n\
    COPY . .\n\
    CMD [\"true\"]\n";

#[test]
fn the_same_input_makes_the_same_image() {
    let (lab, docker) = lab();
    let files = [("Dockerfile", REPRODUCED), ("x/y", "y"), ("x/a", "a")];
    let context = context(&lab, "reproduced", &files);
    let epoch = ["--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-t"];
    builds(&docker, &context, &[&epoch[..], &["one"]].concat());
    // Times of files, and the time of the build, are others from now on.
    for name in ["x/y", "x/a", "x"] {
        let path = context.join(name);
        let file = fs::File::open(path).expect("opens");
        file.set_modified(SystemTime::now() + Duration::from_secs(60)).expect("sets");
    }
    builds(&docker, &context, &[&epoch[..], &["two"]].concat());
    assert_eq!(id(&docker, "one"), id(&docker, "two"));
    let created = docker.does(&["inspect", "--type", "image", "--format", "{{.Created}}", "two"]);
    assert_eq!(created, "2023-11-14T22:13:20Z");
    builds(&docker, &context, &["--no-cache", "-t", "three"]);
    assert_ne!(id(&docker, "three"), id(&docker, "two"), "without it an image tells when it was made");
    docker.does(&["rmi", "-f", "one", "two", "three"]);
    finish_builds(lab, &docker);
}

/// How many files lie in a directory and below.
fn count(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
}

/// Starts a build that sleeps in its second step.
fn sleeping(docker: &Docker, context: &Path) -> std::process::Child {
    let mut child = docker.start(&["build", "-t", "never", context.to_str().expect("a path of text")]);
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let begun = lines.by_ref().map_while(Result::ok).any(|line| line == "it sleeps now");
    assert!(begun, "the step runs");
    child
}

#[test]
fn a_build_that_is_cut_off_leaves_nothing() {
    let (mut lab, docker) = lab();
    docker.does(&["pull", "busybox"]);
    let text = "FROM busybox\nRUN echo made >/made\nRUN echo it sleeps now; sleep 100000\n";
    let large = "x".repeat(3_000_000);
    let context = context(&lab, "cut", &[("Dockerfile", text), ("large", &large)]);
    let images = lab.state().join("images");
    assert!(images.is_dir(), "{}", images.display());
    let files = count(&images);

    // The client goes.
    let mut child = sleeping(&docker, &context);
    assert_eq!(docker.does(&["ps", "-q"]).lines().count(), 1, "the step is a container");
    child.kill().and_then(|()| child.wait()).expect("the client goes");
    clean(&docker);
    eventually("no step is left", LONG, || counted(&docker).contains("Build Cache 0"));
    assert_eq!(count(&images), files);

    // The daemon is killed.
    let mut child = sleeping(&docker, &context);
    lab.kill_daemon();
    let _ = child.wait();
    lab.start_daemon();
    clean(&docker);
    let left = until(LONG, || Some(counted(&docker)).filter(|left| left.contains("Build Cache 0")));
    assert!(left.is_some_and(|left| left.contains("Images 1")), "the base image alone is left");
    assert_eq!(docker.does(&["images", "-q", "never"]), "");
    assert_eq!(count(&images), files);
    // It can be built all the same.
    fs::write(context.join("Dockerfile"), "FROM busybox\nRUN echo made >/made\n").expect("writes");
    builds(&docker, &context, &["-t", "now"]);
    assert_eq!(runs(&docker, "now", "cat /made"), "made");
    docker.does(&["rmi", "-f", "now"]);
    finish_builds(lab, &docker);
}
