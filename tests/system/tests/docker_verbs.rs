//! Docker's verbs of the `holm` command beside the real `docker` command: the same words, the same columns, the same files.

use crate::docker::{PROJECT, finish, lab};
use lab::{Docker, Lab, MACHINE, Options, Registry, eventually, http_get};
use serde_json::Value;
use std::{
    fs,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

const SHORT: Duration = Duration::from_millis(700);
const LONG: Duration = Duration::from_secs(30);
const CLOSED_PORT: u16 = 5001;
const PASSWORD: &str = "open sesame";

/// The command under test, in the project that docker's client works in.
struct Holm<'a> {
    lab: &'a Lab,
}

impl Holm<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.lab.holm(PROJECT, arguments);
        let home = self.lab.directory().join("home");
        fs::create_dir_all(&home).expect("a home");
        command.env("HOME", &home).env_remove("DOCKER_CONFIG").stdin(Stdio::null());
        command
    }

    fn says(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("holm")
    }

    /// What a command that must succeed prints, without the last line's end.
    fn does(&self, arguments: &[&str]) -> String {
        let output = self.says(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "holm {}: {out}{err}", arguments.join(" "));
        out.trim_end().to_string()
    }

    fn refuses(&self, words: &str, arguments: &[&str]) {
        let output = self.says(arguments);
        let err = text(&output.stderr);
        assert!(!output.status.success() && err.contains(words), "holm {}: {err}", arguments.join(" "));
    }

    /// Runs a command with this on its standard input.
    fn told(&self, input: &[u8], arguments: &[&str]) -> String {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("holm");
        child.stdin.take().expect("its input").write_all(input).expect("writes");
        let output = child.wait_with_output().expect("holm");
        assert!(output.status.success(), "holm {}: {}", arguments.join(" "), text(&output.stderr));
        text(&output.stdout).trim_end().to_string()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// How what both commands print differs, if it does. Ages go on between two looks, so there may be several.
fn difference(holm: &Holm<'_>, docker: &Docker, arguments: &[&str]) -> Option<String> {
    // Docker's own ends its lines with spaces here and there.
    let lines = |text: String| text.lines().map(|line| line.trim_end().to_string()).collect::<Vec<_>>();
    let looks = || (lines(holm.does(arguments)), lines(docker.does(arguments)));
    let mut last = looks();
    for _ in 0..5 {
        if last.0 == last.1 {
            return None;
        }
        last = looks();
    }
    Some(format!("{}:\n{}\n{}", arguments.join(" "), last.0.join("\n"), last.1.join("\n")))
}

#[test]
fn lists_and_looks_are_dockers() {
    let (lab, docker) = lab();
    let holm = Holm { lab: &lab };
    let layout = lab.images.file("httpd", "layout");
    let digest = lab.registry().push(&lab.world.machine, &layout, "library/httpd:latest");
    let pulled = holm.does(&["pull", "httpd"]);
    let lines: Vec<&str> = pulled.lines().collect();
    assert_eq!(lines[..2], ["Using default tag: latest", "latest: Pulling from library/httpd"], "{pulled}");
    let ending = [
        format!("Digest: {digest}"),
        "Status: Downloaded newer image for httpd:latest".into(),
        "docker.io/library/httpd:latest".into(),
    ];
    assert_eq!(lines[lines.len() - 3..], ending, "{pulled}");
    assert!(holm.does(&["pull", "httpd"]).contains("Status: Image is up to date for httpd:latest"));

    // Made by holm's own command, seen by both.
    holm.does(&["run", "-d", "--name", "myApache", "-p", "8088:80", "-e", "A=1", "httpd"]);
    docker.does(&["create", "--name", "idle", "--label", "tier=web", "-v", "data:/data", "busybox", "true"]);
    let asked: [&[&str]; 19] = [
        &["ps"],
        &["ps", "-a"],
        &["ps", "-aq", "--no-trunc"],
        &["ps", "-a", "--no-trunc", "--filter", "name=idle"],
        &["ps", "-n", "1"],
        &["ps", "-a", "--format", "{{.ID}} {{.Names}} {{.State}} {{.Label \"tier\"}}"],
        &["ps", "-a", "--format", "table {{.Names}}\t{{.Ports}}\t{{.Mounts}}"],
        &["images"],
        &["images", "--digests", "--no-trunc"],
        &["images", "-q", "httpd"],
        &["images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}}"],
        &["history", "httpd"],
        &["history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Size}}", "httpd"],
        &["port", "myApache"],
        &["port", "myApache", "80"],
        &["diff", "idle"],
        &[
            "inspect",
            "-f",
            "{{.State.Status}} {{range $k, $v := .NetworkSettings.Ports}}{{$k}}={{(index $v 0).HostPort}} {{end}}",
            "myApache",
        ],
        &["inspect", "-f", "{{json .Config.Env}}", "myApache"],
        &["inspect", "--type", "image", "-f", "{{.Architecture}} {{len .RootFS.Layers}}", "httpd"],
    ];
    let differ: Vec<String> = asked.iter().filter_map(|words| difference(&holm, &docker, words)).collect();
    assert!(differ.is_empty(), "{}", differ.join("\n\n"));
    let read = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(read(&holm.does(&["inspect", "idle"])), read(&docker.does(&["inspect", "idle"])));
    let steps = |command: &[&str]| holm.does(command).lines().count();
    assert_eq!(steps(&["image", "history", "httpd"]), steps(&["history", "httpd"]));
    assert!(holm.does(&["top", "myApache"]).contains("apache2"));
    let used = holm.does(&["stats", "--no-stream"]);
    assert!(used.starts_with("CONTAINER ID   NAME       CPU %") && used.contains("myApache"), "{used}");
    disk_is_told(&holm, &docker);
    what_is_an_image_is_said(&holm, &docker);
    finish(lab);
}

/// `holm df` says what docker's own says, and what the files take.
fn disk_is_told(holm: &Holm<'_>, docker: &Docker) {
    docker.does(&[
        "run",
        "--name",
        "writer",
        "busybox",
        "dd",
        "if=/dev/zero",
        "of=/big",
        "bs=1000000",
        "count=7",
    ]);
    let sizes = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_string()).collect() };
    let row = |table: String, name: &str| -> Vec<String> {
        let line = table.lines().find(|line| line.starts_with(name)).map(str::to_string);
        let line = line.unwrap_or_else(|| panic!("no {name} in {table}"));
        line.split_whitespace().map(str::to_string).collect()
    };
    let own = row(holm.does(&["df"]), "Containers");
    assert_eq!(own, row(docker.does(&["system", "df"]), "Containers"));
    assert_eq!(own[1..3], sizes(&["3", "1"]), "of three, one runs");
    let big = docker.does(&["ps", "-as", "--filter", "name=writer", "--format", "{{.Size}}"]);
    assert!(big.starts_with("7MB"), "what du says of seven million bytes: {big}");
    assert!(holm.does(&["df", "-v"]).contains("writer"));
    docker.does(&["rm", "writer"]);
    let images = |table: String| row(table, "Images");
    assert_eq!(images(holm.does(&["df"]))[..4], images(docker.does(&["system", "df"]))[..4]);
}

/// Who names an image where a container is meant hears so, at every door.
fn what_is_an_image_is_said(holm: &Holm<'_>, docker: &Docker) {
    let id = holm.does(&["images", "-q", "httpd"]);
    for image in ["httpd", &id] {
        holm.refuses(&format!("that is an image: `holm run {image}`"), &["start", image]);
        docker.refuses(1, &format!("that is an image: `docker run {image}`"), &["start", image]);
    }
    holm.refuses("no instance \"nosuch\"", &["start", "nosuch"]);
    holm.refuses("No such object: nosuch", &["inspect", "nosuch"]);
    holm.refuses("template parsing error", &["ps", "--format", "{{.Names"]);
    holm.refuses("No such container: nosuch", &["port", "nosuch"]);
}

/// A container that runs from it and an image that was made on it: the first holds the image, both hold its layer.
fn who_uses_an_image_is_told(holm: &Holm<'_>) {
    const BASE: &str = "docker.io/library/busybox:latest";
    let told = holm.does(&["image", "users", BASE]);
    let row = |word: &str| -> String {
        let line =
            told.lines().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("{word}: {told}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("instance"), "instance box runs from it yes");
    assert_eq!(row("image"), "image docker.io/shop/note:1 built on it (1 layer) -");
    let whole: Value =
        serde_json::from_str(&holm.does(&["image", "users", BASE, "-o", "json"])).expect("JSON");
    assert_eq!(whole["own_bytes"], 0, "all of it is below another image, too: {whole}");
    assert!(whole["shared_bytes"].as_u64().is_some_and(|bytes| bytes > 100_000), "{whole}");
    holm.refuses(&format!("image {BASE} is used by instance box"), &["image", "rm", BASE]);
    holm.refuses("docker rm box", &["rmi", "busybox"]);
}

#[test]
fn files_and_images_are_carried_as_docker_does() {
    let (lab, docker) = lab();
    let holm = Holm { lab: &lab };
    docker.does(&["run", "-d", "--name", "box", "busybox", "sleep", "3600"]);
    files_go_both_ways(&lab, &holm, &docker);

    // What was changed becomes an image, goes into a file, and comes back.
    assert_eq!(holm.does(&["commit", "-c", "CMD [\"cat\", \"/srv/note\"]", "box", "shop/note:1"]).len(), 71);
    who_uses_an_image_is_told(&holm);
    let archive = lab.directory().join("note.tar");
    holm.does(&["save", "-o", path(&archive), "shop/note:1"]);
    let listed = Command::new("tar").args(["-tf", path(&archive)]).output().expect("tar");
    assert!(text(&listed.stdout).contains("manifest.json"), "{}", text(&listed.stdout));
    holm.does(&["tag", "shop/note:1", "shop/note:2"]);
    assert!(holm.does(&["rmi", "shop/note:2"]).contains("Untagged: shop/note:2"));
    assert!(holm.does(&["rmi", "shop/note:1"]).contains("Deleted: sha256:"));
    assert_eq!(holm.does(&["load", "-i", path(&archive)]), "Loaded image: shop/note:1");
    assert_eq!(docker.does(&["run", "--rm", "shop/note:1"]), "a note");
    let piped = holm.says(&["save", "shop/note:1"]);
    assert_eq!(holm.told(&piped.stdout, &["load"]), "Loaded image: shop/note:1");
    let root = lab.directory().join("root.tar");
    holm.does(&["export", "box", "-o", path(&root)]);
    let made = holm.does(&["import", "-c", "CMD [\"cat\", \"/srv/note\"]", path(&root), "shop/root:1"]);
    assert!(made.starts_with("sha256:"), "{made}");
    assert_eq!(docker.does(&["run", "--rm", "shop/root:1"]), "a note");

    holm.does(&["rename", "box", "crate"]);
    assert_eq!(holm.does(&["update", "--memory", "64m", "--restart", "on-failure:3", "crate"]), "crate");
    let changed = "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}";
    assert_eq!(holm.does(&["inspect", "-f", changed, "crate"]), "67108864 on-failure");
    docker.does(&["pause", "crate"]);
    assert_eq!(holm.does(&["unpause", "crate"]), "crate");
    let waiting = holm.command(&["wait", "crate"]).stdout(Stdio::piped()).spawn().expect("holm");
    docker.does(&["kill", "crate"]);
    let ended = waiting.wait_with_output().expect("holm");
    assert_eq!(text(&ended.stdout), "137\n");
    assert!(holm.does(&["prune", "-f"]).contains("Total reclaimed space: "));
    assert_eq!(holm.does(&["ps", "-aq"]), "");
    finish(lab);
}

fn files_go_both_ways(lab: &Lab, holm: &Holm<'_>, docker: &Docker) {
    let tree = lab.directory().join("tree");
    fs::create_dir_all(tree.join("deep/empty")).expect("makes");
    fs::write(tree.join("deep/file"), "in the deep\n").expect("writes");
    symlink("deep/file", tree.join("link")).expect("links");
    fs::write(tree.join("note"), "a note\n").expect("writes");
    let shell = |script: &str| docker.does(&["exec", "box", "sh", "-c", script]);
    shell("mkdir -p /srv");
    holm.does(&["cp", path(&tree), "box:/srv"]);
    assert_eq!(shell("cat /srv/tree/link; stat -c %u:%g /srv/tree/note"), "in the deep\n0:0");
    holm.does(&["cp", &format!("{}/.", tree.display()), "box:/srv"]);
    assert_eq!(shell("cat /srv/note; ls /srv"), "a note\ndeep\nlink\nnote\ntree");
    holm.does(&["cp", path(&tree.join("note")), "box:/srv/renamed"]);
    assert_eq!(shell("cat /srv/renamed"), "a note");

    let back = lab.directory().join("back");
    holm.does(&["cp", "box:/srv/tree", path(&back)]);
    same(&tree, &back);
    holm.does(&["cp", "box:/srv/tree/.", path(&back)]);
    same(&tree, &back);
    holm.does(&["cp", "box:/srv/tree", path(&back)]);
    same(&tree, &back.join("tree"));
    let single = lab.directory().join("single");
    holm.does(&["cp", "-L", "box:/srv/tree/link", path(&single)]);
    assert_eq!(fs::read_to_string(&single).expect("reads"), "in the deep\n");
    let piped = holm.says(&["cp", "box:/srv/note", "-"]);
    assert!(piped.status.success());
    holm.told(&piped.stdout, &["cp", "-", "box:/tmp"]);
    assert_eq!(shell("cat /tmp/note"), "a note");

    holm.refuses("No such container", &["cp", "nosuch:/x", "."]);
    holm.refuses("nosuch", &["cp", "box:/nosuch", "."]);
    holm.refuses("no such directory", &["cp", path(&tree.join("note")), "box:/nowhere/"]);
    holm.refuses("at least one container", &["cp", "./a", "./b"]);
    holm.refuses("between containers", &["cp", "box:/a", "box:/b"]);
    assert!(holm.does(&["diff", "box"]).contains("A /srv/note"));
}

fn same(one: &Path, other: &Path) {
    let compared = Command::new("diff").args(["-r", "--no-dereference", path(one), path(other)]).output();
    let compared = compared.expect("diff");
    assert!(compared.status.success(), "{}", text(&compared.stdout));
}

#[test]
fn registries_know_who_logs_in() {
    let (lab, docker) = lab();
    let holm = Holm { lab: &lab };
    let closed = Registry::start_closed(&lab.world.machine, &lab.directory().join("closed"), CLOSED_PORT);
    let host = format!("127.0.0.1:{CLOSED_PORT}");
    let name = format!("{host}/shop/tools:1");
    holm.does(&["pull", "-q", "busybox"]);
    holm.does(&["tag", "busybox", &name]);
    holm.refuses("wants a login", &["push", &name]);
    let login = ["login", "-u", "demo", "--password-stdin", &host];
    assert_eq!(holm.told(PASSWORD.as_bytes(), &login), "Login Succeeded");
    let config = lab.directory().join("home/.docker/config.json");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&config).expect("is there").permissions());
    assert_eq!(mode & 0o777, 0o600, "nobody else reads it");

    // Built, pushed and pulled again by its digest: the same content.
    let context = lab.directory().join("context");
    fs::create_dir_all(&context).expect("makes");
    fs::write(context.join("Dockerfile"), "FROM busybox\nRUN echo built >/made\nCMD cat /made\n")
        .expect("writes");
    holm.does(&["build", "-t", &name, path(&context)]);
    assert_eq!(holm.does(&["run", "--rm", &name]), "built");
    let pushed = holm.does(&["push", &name]);
    let digest =
        pushed.split("1: digest: ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a digest");
    let id = holm.does(&["images", "-q", "--no-trunc", &name]);
    holm.does(&["rmi", &name]);
    let pinned = format!("{host}/shop/tools@{digest}");
    assert!(holm.does(&["pull", &pinned]).contains(&format!("Digest: {digest}")));
    assert_eq!(holm.does(&["inspect", "-f", "{{.Id}}", &pinned]), id);
    assert_eq!(docker.does(&["run", "--rm", &pinned]), "built");

    holm.does(&["logout", &host]);
    holm.does(&["rmi", &pinned]);
    holm.refuses("pull access denied", &["pull", &name]);
    assert!(!fs::read_to_string(&config).expect("reads").contains(&host));
    drop(closed);
    finish(lab);
}

#[test]
fn compose_is_dockers_own() {
    let (lab, docker) = lab();
    let holm = Holm { lab: &lab };
    let file = "services:\n  web:\n    image: busybox\n    command: sleep 3600\n";
    // Puts the plugin and the file in their places.
    let compose = docker.compose("byholm", file);
    let plugins = lab.directory().join("home/.docker/cli-plugins");
    fs::create_dir_all(&plugins).expect("makes");
    let plugin = lab.directory().join(format!("docker-{PROJECT}/cli-plugins/docker-compose"));
    symlink(fs::canonicalize(plugin).expect("the plugin"), plugins.join("docker-compose")).expect("links");
    let settings = serde_json::json!({ "HttpHeaders": { "X-Holm-Project": PROJECT } }).to_string();
    fs::write(lab.directory().join("home/.docker/config.json"), settings).expect("writes");
    let file = path(&compose.directory().join("compose.yaml")).to_string();
    let with = |rest: &[&str]| holm.does(&[&["compose", "-p", "byholm", "-f", &file], rest].concat());
    with(&["up", "-d"]);
    let runs = || holm.does(&["ps", "--format", "{{.Names}}"]) == "byholm-web-1";
    eventually("its service runs", LONG, runs);
    with(&["down"]);
    assert_eq!(holm.does(&["ps", "-aq"]), "");
    finish(lab);
}

#[test]
fn an_app_runs_by_one_command_and_goes_by_one() {
    let lab = Lab::new();
    let shop = lab.project(PROJECT);
    let holm = Holm { lab: &lab };
    lab.registry().push(&lab.world.machine, &lab.images.file("httpd", "layout"), "library/httpd:2.4");
    assert!(holm.does(&["app", "ls"]).contains("wordpress"));
    assert!(holm.does(&["app", "show", "httpd"]).contains("kind: Pod"));
    holm.refuses("did you mean \"httpd\"?", &["app", "run", "htpd"]);
    holm.does(&["app", "run", "httpd", "--name", "site", "--port", "8090"]);
    let at = SocketAddr::new(IpAddr::from(MACHINE), 8090);
    let page = || http_get(&lab.world.outside, at, SHORT).unwrap_or_default();
    eventually("its page is seen from outside", LONG, || page().contains("It works!"));
    let id = shop.instance("site").head.id;
    holm.does(&["app", "run", "httpd", "--name", "site", "--port", "8090"]);
    assert_eq!(shop.instance("site").head.id, id, "what runs is left alone");
    let exposed = holm.does(&["exposed", "-o", "json"]);
    assert!(exposed.contains("8090"), "{exposed}");
    holm.does(&["app", "rm", "site"]);
    assert_eq!(page(), "");
    assert!(!holm.does(&["security-group", "ls", "-o", "name"]).contains("app-site"));
    holm.refuses("no app runs as \"site\"", &["app", "rm", "site"]);
    finish(lab);
}

/// Options that `docker run` has, with `ENV` and `CID` for two files.
const OPTIONS: &str =
    "run -d --name box --hostname own.example --ip 10.0.0.77 --network-alias other --env-file ENV
    -e SIZE=3 --init --pids-limit 50 --ulimit nofile=123:456 --log-opt max-size=1m --stop-signal SIGINT
    --stop-timeout 3 --shm-size 8m --group-add 7 --dns 192.0.2.53 --mount type=volume,source=data,target=/data
    --mount type=tmpfs,target=/scratch,tmpfs-size=1m --security-opt no-new-privileges --cpus 0.5 -m 64m
    --cpu-shares 512 --label tier=web --restart on-failure:2 --cap-drop NET_RAW --read-only --tmpfs /run
    --add-host old.example=192.0.2.9 --cidfile CID busybox sleep 3600";

#[test]
fn run_takes_dockers_options() {
    let (lab, docker) = lab();
    let holm = Holm { lab: &lab };
    docker.does(&["pull", "busybox"]);
    docker.does(&["volume", "create", "data"]);
    let (env, id_file) = (lab.directory().join("variables"), lab.directory().join("id"));
    fs::write(&env, "# ours\nCOLOUR=blue\n").expect("writes");
    let words = OPTIONS.split_whitespace().map(|word| match word {
        "ENV" => path(&env),
        "CID" => path(&id_file),
        other => other,
    });
    let told = holm.does(&words.collect::<Vec<_>>());
    let id = docker.does(&["inspect", "-f", "{{.Id}}", "box"]);
    assert!(id.starts_with(&told) && told.len() == 32, "{told} {id}");
    assert_eq!(fs::read_to_string(&id_file).expect("reads"), told);
    let inside = |script: &str| holm.does(&["exec", "box", "sh", "-c", script]);
    assert_eq!(inside("hostname; echo $COLOUR $SIZE; cat /proc/1/comm"), "own.example\nblue 3\ninit");
    assert_eq!(inside("ulimit -Sn; ulimit -Hn"), "123\n456");
    assert!(inside("id -G").split(' ').any(|group| group == "7"));
    assert!(inside("cat /etc/resolv.conf").contains("nameserver 192.0.2.53"));
    assert!(inside("grep old.example /etc/hosts").contains("192.0.2.9"));
    assert_eq!(inside("touch /data/x && touch /scratch/y && touch /z 2>/dev/null; echo $?"), "1");
    for (field, wanted) in [
        ("{{.HostConfig.PidsLimit}}", "50"),
        ("{{.HostConfig.NanoCpus}}", "500000000"),
        ("{{.HostConfig.Memory}}", "67108864"),
        ("{{.Config.StopTimeout}}", "3"),
        ("{{.HostConfig.RestartPolicy.Name}}", "on-failure"),
        ("{{index .Config.Labels \"tier\"}}", "web"),
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "10.0.0.77"),
    ] {
        assert_eq!(holm.does(&["inspect", "-f", field, "box"]), wanted, "{field}");
    }
    holm.refuses("is there already", &["run", "-d", "--cidfile", path(&id_file), "busybox", "true"]);
    holm.refuses("holm's own profile holds", &["run", "--security-opt", "seccomp=unconfined", "busybox"]);
    holm.refuses("there is no such limit", &["run", "-d", "--ulimit", "nosuch=1", "busybox", "true"]);

    // Other variables, the same container: its name, its address and its volume stay.
    holm.does(&["rebuild", "-y", "box", "-e", "COLOUR=red", "--unset", "SIZE"]);
    assert_eq!(inside("echo $COLOUR$SIZE; ls /data"), "red\nx");
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    assert_eq!(holm.does(&["inspect", "-f", address, "box"]), "10.0.0.77");
    finish(lab);
}

#[test]
fn verbs_work_from_elsewhere_with_a_token() {
    let arguments = vec!["--listen".to_string(), "127.0.0.1:8443".to_string()];
    let lab = Lab::with(Options { registry: true, arguments, ..Options::default() });
    lab.project(PROJECT);
    let docker = Docker::find(&lab, PROJECT);
    let holm = Holm { lab: &lab };
    docker.does(&["run", "-d", "--name", "box", "busybox", "sleep", "3600"]);
    let certificate = lab.state().join("tls/cert.pem");
    let elsewhere = |token: &str, arguments: &[&str]| {
        let mut command = holm.command(arguments);
        command.env_remove("HOLM_SOCKET").env_remove("HOLM_PROJECT").env("HOLM_TOKEN", token);
        command.env("HOLM_HOST", "https://127.0.0.1:8443").env("HOLM_CA_FILE", &certificate);
        lab.world.machine.run(|| command.output()).expect("enter").expect("holm")
    };
    let member = holm.does(&["token", "create", "ours", "--role", "member"]);
    let reader = holm.does(&["token", "create", "theirs", "--role", "reader"]);
    let names = elsewhere(&member, &["ps", "--format", "{{.Names}}"]);
    assert_eq!((text(&names.stdout).as_str(), text(&names.stderr).as_str()), ("box\n", ""));
    let file = lab.directory().join("here");
    fs::write(&file, "from elsewhere\n").expect("writes");
    let copied = elsewhere(&member, &["cp", path(&file), "box:/tmp/there"]);
    assert!(copied.status.success(), "{}", text(&copied.stderr));
    assert_eq!(docker.does(&["exec", "box", "cat", "/tmp/there"]), "from elsewhere");

    // Readers look and change nothing, and nobody comes in without a token.
    assert_eq!(text(&elsewhere(&reader, &["ps", "-q", "--no-trunc"]).stdout).trim().len(), 64);
    let refused = elsewhere(&reader, &["rename", "box", "mine"]);
    assert!(
        !refused.status.success() && text(&refused.stderr).contains("member"),
        "{}",
        text(&refused.stderr)
    );
    let refused = elsewhere("holm_no_token_at_all", &["ps"]);
    assert!(!refused.status.success(), "{}", text(&refused.stdout));
    assert_eq!(docker.does(&["ps", "--format", "{{.Names}}"]), "box");
    finish(lab);
}

#[test]
fn what_docker_run_sets_is_set_and_shown() {
    let (lab, docker) = lab();
    let holm = Holm { lab: &lab };
    // The image is pulled first: it says what it listens on.
    holm.does(&["run", "-d", "-P", "-h", "inside", "--name", "all", "web"]);
    let host_port = |text: String| -> u16 {
        let port = text.lines().next().and_then(|line| line.rsplit(':').next()).expect("a port");
        port.parse().unwrap_or_else(|_| panic!("a number: {text}"))
    };
    assert!(host_port(holm.does(&["port", "all", "80"])) > 0);
    assert_eq!(holm.does(&["exec", "all", "--", "hostname"]), "inside");
    holm.does(&["run", "-d", "-P", "-p", "8077:80", "--name", "one", "web"]);
    assert_eq!(host_port(holm.does(&["port", "one", "80"])), 8077, "what is named is not published twice");
    assert_eq!(holm.does(&["port", "one"]).lines().filter(|line| line.starts_with("80/tcp")).count(), 2);
    holm.refuses("--hostname", &["run", "-h"]);
    assert!(holm.does(&["run", "--help"]).contains("--publish-all"));

    // What docker's own client asks for is shown at holm's door.
    docker.does(&[
        "run",
        "-d",
        "--name",
        "limited",
        "--pids-limit",
        "77",
        "--ulimit",
        "nofile=100:200",
        "--ulimit",
        "core=0",
        "--log-opt",
        "max-size=1m",
        "--stop-signal",
        "SIGINT",
        "--cpu-shares",
        "2048",
        "busybox",
        "sleep",
        "3600",
    ]);
    let shown: Value = serde_json::from_str(&holm.does(&["info", "limited", "-o", "json"])).expect("JSON");
    let container = &shown["containers"][0];
    assert_eq!(
        (&container["pids_max"], &container["ulimits"]["nofile"], &container["ulimits"]["core"]),
        (
            &Value::from(77),
            &serde_json::json!({"soft": 100, "hard": 200}),
            &serde_json::json!({"soft": 0, "hard": 0})
        )
    );
    assert_eq!(container["log"]["file_bytes_max"], 1 << 20, "{container}");
    assert!(container["stop_signal"].is_string() && shown["cpu_weight"] == 200, "{shown}");
    docker.does(&["rm", "-f", "all", "one", "limited"]);
    finish(lab);
}
