//! The command line as a user meets it: the real program, a real guest, a real terminal.

use lab::{Lab, Options, eventually, until};
use model::image::ImageKind;
use nix::sys::termios::{LocalFlags, tcgetattr};
use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use sys::terminal::{Pair, Size, open_pair};

const LONG: Duration = Duration::from_secs(60);
/// A command that takes longer hangs.
const HANGS_AFTER: Duration = Duration::from_secs(150);

/// A project, by the command line alone.
struct User<'a> {
    lab: &'a Lab,
}

impl User<'_> {
    fn tries(&self, arguments: &[&str]) -> Output {
        let mut command = self.lab.holm("shop", arguments);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("holm");
        if until(HANGS_AFTER, || child.try_wait().expect("its state")).is_none() {
            let _ = child.kill();
            panic!("holm {} hangs\n{}", arguments.join(" "), self.seen_from_outside());
        }
        child.wait_with_output().expect("what it says")
    }

    /// What can be told of a guest that does not answer: its console, and the flows of its network.
    fn seen_from_outside(&self) -> String {
        let console = self.lab.holm("shop", &["console", "db", "--log"]).output().expect("holm");
        let info = self.lab.holm("shop", &["info", "db"]).output().expect("holm");
        let namespace = self.lab.project("shop").namespace_of("default");
        let flows = sys::conntrack::Conntrack::open(&namespace).and_then(|mut table| table.list());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        format!("{}\n{}\n{flows:#?}", text(&info.stdout), text(&console.stdout))
    }

    /// What a command that must succeed prints, and what it says.
    fn does(&self, arguments: &[&str]) -> (String, String) {
        let output = self.tries(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "holm {}: {out}{err}", arguments.join(" "));
        (out, err)
    }

    fn reads(&self, arguments: &[&str]) -> String {
        self.does(arguments).0
    }
}

/// A program whose screen and keyboard are ours.
struct Screen {
    pair: Pair,
    child: Child,
    shown: Arc<Mutex<String>>,
}

impl Screen {
    fn start(lab: &Lab, arguments: &[&str]) -> Self {
        let pair = open_pair(Size { rows: 40, columns: 120 }).expect("a terminal");
        let end = || Stdio::from(pair.terminal.try_clone().expect("its end"));
        let mut command = lab.holm("shop", arguments);
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("holm");
        let shown: Arc<Mutex<String>> = Arc::default();
        let (mut screen, notes) =
            (File::from(pair.controller.try_clone().expect("its end")), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]);
                notes.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Self { pair, child, shown }
    }

    fn types(&self, keys: &str) {
        let mut keyboard = File::from(self.pair.controller.try_clone().expect("its end"));
        keyboard.write_all(keys.as_bytes()).expect("type");
    }

    fn shows(&self, text: &str) {
        let shown = || self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let came = until(LONG, || shown().contains(text).then_some(()));
        assert!(came.is_some(), "{text:?} is not shown but {:?}", shown());
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.pair.terminal).expect("its mode").local_flags.contains(LocalFlags::ICANON)
    }
}

#[test]
fn guest_by_the_command_line() {
    let lab = Lab::with(Options::default());
    let shop = lab.project("shop");
    // From a disk, on which the guest's host keys stay.
    shop.add_key();
    shop.upload("micro", ImageKind::Disk, None, &lab.images.micro("disk.qcow2"));
    let (user, key) = (User { lab: &lab }, lab.key());
    let key = key.to_str().unwrap();
    user.does(&["flavor", "create", "t1.c2m160"]);
    let (_, said) = user.does(&["run", "--name", "db", "--flavor", "t1.c2m160", "--key", "lab", "micro"]);
    assert!(said.contains("vm db is running at 10."), "{said}");
    assert_eq!(user.reads(&["ssh", "-i", key, "db", "--", "hostname; nproc"]), "db\n2\n");
    assert!(user.reads(&["ls"]).lines().any(|line| line.starts_with("db ") && line.contains("running")));
    shown_in_full(&lab, &user);
    keys_and_hosts(&user);
    by_the_console(&lab);
    plugs(&user, key);
    another_size(&user, key);
    verbs_twice(&user);
    thrown_away(&user, key);
    user.does(&["rm", "--force", "db"]);
    shop.empty();
    lab.finish();
}

/// `holm info` leads from the cloud's words to the things of the host.
fn shown_in_full(lab: &Lab, user: &User<'_>) {
    let page = user.reads(&["info", "db"]);
    let row = |label: &str| {
        let line = page.lines().find(|line| line.starts_with(label));
        line.unwrap_or_else(|| panic!("no {label} in\n{page}")).split_whitespace().last().unwrap().to_string()
    };
    let pid = row("Process");
    assert!(Path::new("/proc").join(&pid).exists(), "{page}");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    assert_eq!(row("CPUs of host"), allowed.trim(), "the CPUs that its QEMU may use: {page}");
    assert!(page.contains("2 CPUs, 160 MiB memory") && page.contains("t1.c2m160"), "{page}");
    let disk = page.split_whitespace().find(|word| word.contains("/volumes/")).expect("a disk's path");
    assert!(Path::new(disk).exists(), "{disk}");
    let links = sys::netlink::Netlink::open(&lab.project("shop").namespace_of("default")).expect("netlink");
    let names: Vec<String> = links.links().expect("links").into_iter().map(|link| link.name).collect();
    assert!(names.iter().any(|name| name.starts_with('p') && page.contains(name)), "{names:?}\n{page}");
    assert!(page.contains("SSH keys") && page.contains("lab"), "{page}");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(row("Host"), host.trim(), "{page}");
    let (_, said) = user.does(&["floating-ip", "create", "--name", "front", "--to", "db"]);
    let address = said.split_whitespace().find(|word| word.parse::<std::net::Ipv4Addr>().is_ok());
    let address = address.unwrap_or_else(|| panic!("no address in {said}"));
    let page = user.reads(&["info", "db"]);
    assert!(page.contains("FLOATING IP") && page.contains(address), "{page}");
    user.does(&["floating-ip", "release", "front", "-y"]);
}

/// Which key opens what, and what the host gives and has left.
fn keys_and_hosts(user: &User<'_>) {
    let page = user.reads(&["keypair", "show", "lab"]);
    assert!(page.contains("db"), "the key's page names those who hold it:\n{page}");
    let page = user.reads(&["node", "show"]);
    assert!(page.contains("of which instances have 160 MiB"), "{page}");
    let on = page.lines().find(|line| line.starts_with("VMs run on")).expect("what VMs run on");
    assert!(on.contains("kvm") || on.contains("tcg"), "{on}");
    assert!(on.contains("kvm") || on.contains("slow") || on.contains("emulated"), "why not faster: {on}");
    let doctor = user.tries(&["doctor"]);
    let told =
        String::from_utf8_lossy(&doctor.stdout).into_owned() + &String::from_utf8_lossy(&doctor.stderr);
    assert!(told.contains("KVM") && told.contains("QEMU"), "{told}");
}

/// Somebody sits before the guest: sees what it shows, types, and leaves it running.
fn by_the_console(lab: &Lab) {
    let mut screen = Screen::start(lab, &["console", "db"]);
    screen.shows("Ctrl-] leaves it");
    assert!(screen.is_raw());
    screen.types("\r");
    screen.shows("login:");
    screen.types("root\r");
    screen.shows("# ");
    screen.types("echo $((6*7))-was-typed\r");
    screen.shows("42-was-typed");
    screen.types("exit\r");
    screen.types("\x1d");
    assert!(screen.child.wait().expect("its end").success());
    assert!(!screen.is_raw(), "the terminal is as it was");
}

/// A disk and an interface come and go while it runs.
fn plugs(user: &User<'_>, key: &str) {
    let seen = || user.reads(&["ssh", "-i", key, "db", "--", "cat /sys/block/vd*/size; ls /sys/class/net"]);
    let before = seen();
    user.does(&["volume", "create", "data", "--size", "1g"]);
    user.does(&["volume", "attach", "data", "db"]);
    let (_, said) = user.does(&["instance", "attach-port", "db", "--network", "default"]);
    assert!(said.contains("has a further interface"), "{said}");
    eventually("both are seen", LONG, || seen().contains("2097152") && seen().contains("eth1"));
    let port = user.reads(&["info", "db"]);
    let port = port.lines().rfind(|line| line.contains("fa:16:3e")).expect("the interface").to_string();
    user.does(&["instance", "detach-port", "db", port.split_whitespace().last().unwrap()]);
    user.does(&["volume", "detach", "data"]);
    eventually("both are gone", LONG, || seen() == before);
    user.does(&["volume", "delete", "data"]);
}

/// A running VM says what it waits for.
fn another_size(user: &User<'_>, key: &str) {
    let (_, said) = user.does(&["set", "db", "--cpus", "1"]);
    assert!(said.contains("2 CPUs and 160 MiB memory until it restarts"), "{said}");
    assert!(user.reads(&["info", "db"]).contains("until it restarts"));
    user.does(&["restart", "db"]);
    assert_eq!(user.reads(&["ssh", "-i", key, "db", "--", "nproc"]), "1\n");
    assert!(!user.reads(&["info", "db"]).contains("until it restarts"));
}

/// What is so already is no error, and what cannot be says why and what to do.
fn verbs_twice(user: &User<'_>) {
    for verb in [
        "pause", "pause", "resume", "suspend", "suspend", "resume", "stop", "stop", "start", "start", "kill",
        "kill",
    ] {
        user.does(&[verb, "db"]);
    }
    for (arguments, code, words) in [
        (vec!["resume", "db"], 4, "neither paused nor suspended"),
        (vec!["restart", "db"], 4, "holm start db"),
        (vec!["start", "nobody"], 3, "nobody"),
        (vec!["run", "--name", "db", "--flavor", "t1.c2m160", "micro"], 4, "db"),
        (vec!["run", "--name", "large", "--cpus", "1", "--memory", "9999g", "micro"], 5, "memory"),
    ] {
        let output = user.tries(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

/// A VM that is thrown away at its end leaves nothing.
fn thrown_away(user: &User<'_>, key: &str) {
    let mut child = user
        .lab
        .holm(
            "shop",
            &["run", "--rm", "--name", "once", "--memory", "128m", "--cpus", "1", "--key", "lab", "micro"],
        )
        .stderr(Stdio::piped())
        .spawn()
        .expect("holm");
    eventually("it runs", LONG, || {
        user.reads(&["ls"]).lines().any(|l| l.starts_with("once ") && l.contains("running"))
    });
    user.tries(&["ssh", "-i", key, "once", "--", "poweroff"]);
    eventually("it is gone", LONG, || !user.reads(&["ls"]).contains("once"));
    child.wait().expect("its end");
    assert!(!user.reads(&["volume", "list"]).contains("root of once"));
    let _ = fs::metadata(key).expect("the key stays");
}

/// The verbs that rule virtual machines rule containers, and what a program says and how it ends come through.
#[test]
fn containers_by_the_command_line() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    let user = User { lab: &lab };
    user.does(&["flavor", "create", "t1.c1m64"]);
    let (_, said) = user.does(&["run", "--name", "web", "-d", "--flavor", "t1.c1m64", "web"]);
    assert!(said.contains("container web is running at 10."), "{said}");
    assert!(user.reads(&["ls"]).lines().any(|line| line.starts_with("web ") && line.contains("running")));
    let page = user.reads(&["info", "web"]);
    for word in ["1 CPU, 64 MiB memory", "t1.c1m64", "no new privileges", "seccomp", "CHOWN", "Process"] {
        assert!(page.contains(word), "{word}:\n{page}");
    }
    assert_eq!(user.reads(&["exec", "web", "--", "hostname"]), "web\n");
    user.does(&["set", "web", "--cpus", "2", "--memory", "96m"]);
    eventually("the size that was set", LONG, || {
        let page = user.reads(&["info", "web"]);
        page.contains("2 CPUs, 96 MiB memory") && !page.contains("for a moment yet")
    });
    for verb in ["pause", "pause", "resume", "stop", "stop", "start", "start", "restart", "kill", "kill"] {
        user.does(&[verb, "web"]);
    }
    let output = user.tries(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((output.status.code(), output.stdout), (Some(7), b"out\n".to_vec()));
    assert!(String::from_utf8_lossy(&output.stderr).lines().any(|line| line == "err"));
    user.does(&["run", "--name", "talker", "-d", "busybox", "sh", "-c", "echo said; exec sleep 1000000"]);
    eventually("what it said", LONG, || user.reads(&["logs", "talker"]) == "said\n");
    let page = user.reads(&["node", "show"]);
    assert!(page.lines().any(|line| line.starts_with("Instances") && line.contains('2')), "{page}");
    keys_of_the_web(&lab, &user);
    key_of_an_agent(&lab, &user);
    user.does(&["rm", "--force", "web", "talker"]);
    let gone = user.tries(&["rm", "-y", "web"]);
    assert_eq!(gone.status.code(), Some(3), "{}", String::from_utf8_lossy(&gone.stderr));
    user.does(&["rm", "--force", "web"]);
    assert_eq!(user.reads(&["ls", "-o", "name"]), "");
    shop.empty();
    lab.finish();
}

/// A key comes from a page on the web, the first of those that stand there.
fn keys_of_the_web(lab: &Lab, user: &User<'_>) {
    let public = fs::read_to_string(lab.key().with_extension("pub")).expect("public key");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a page of keys");
    let url = format!("http://{}/me.keys", listener.local_addr().unwrap());
    let page = format!("{public}ssh-ed25519 AAAA another\n");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a reader");
        let _ = stream.read(&mut [0; 1024]).expect("a request");
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{page}", page.len()).expect("an answer");
    });
    user.does(&["keypair", "import", "me", "--url", &url]);
    server.join().expect("the page was read");
    let shown = user.reads(&["keypair", "show", "me", "-o", "json"]);
    assert!(shown.contains(public.split_whitespace().nth(1).unwrap()), "{shown}");
    let refused = user.tries(&["keypair", "import", "again", "--url", "http://keys.example/me.keys"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("https://"), "{said}");
}

/// A key comes from the user's ssh-agent, found by its comment; the agent never gives its other half.
fn key_of_an_agent(lab: &Lab, user: &User<'_>) {
    let (socket, key) = (lab.directory().join("agent.sock"), lab.directory().join("agent-key"));
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "of my agent", "-f"])
        .arg(&key)
        .status();
    assert!(made.expect("ssh-keygen").success());
    let mut agent = Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn()
        .expect("agent");
    eventually("the agent listens", LONG, || socket.exists());
    let added =
        Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket).status().expect("ssh-add");
    let import = |name: &str, option: &str| {
        let mut command = lab.holm("shop", &["keypair", "import", name, option]);
        command.env("SSH_AUTH_SOCK", &socket).output().expect("holm")
    };
    let (found, missed) = (import("agents", "--agent=of my"), import("none", "--agent=of yours"));
    agent.kill().expect("the agent ends");
    agent.wait().expect("the agent's end");
    assert!(added.success() && found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let public = fs::read_to_string(key.with_extension("pub")).expect("public key");
    let shown = user.reads(&["keypair", "show", "agents", "-o", "json"]);
    assert!(shown.contains(public.split_whitespace().nth(1).unwrap()), "{shown}");
    let said = String::from_utf8_lossy(&missed.stderr).into_owned();
    assert!(missed.status.code() == Some(2) && said.contains("of yours"), "{said}");
}
