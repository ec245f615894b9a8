//! One image under the host's kernel and under one of its own: the same suite, with docker's own client, and every word of
//! what comes out compared.

use crate::docker::{PROJECT, finish};
use api::v1::types::floating_ip::FloatingIp;
use lab::{Docker, Lab, MACHINE, Options, Said, eventually, http_get};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};
use sys::cgroup::Layout;

pub const LONG: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_millis(1500);
/// What docker calls the two.
const SHARED: &str = "default";
pub const VM: &str = "vm";

/// A lab whose guests have the kernel that was made for them.
pub fn lab() -> (Lab, Docker) {
    let kernel = lab::Images::find().file("kernel", "vmlinuz");
    let arguments = vec!["--guest-kernel".to_string(), kernel.to_string_lossy().into_owned()];
    let lab = Lab::with(Options { registry: true, arguments, ..Options::default() });
    lab.project(PROJECT);
    let docker = Docker::find(&lab, PROJECT);
    docker.does(&["pull", "busybox"]);
    (lab, docker)
}

/// What one side said: each line with what it was asked.
struct Side<'a> {
    lab: &'a Lab,
    docker: &'a Docker,
    isolation: &'static str,
    said: Vec<(String, String)>,
}

impl Side<'_> {
    fn note(&mut self, asked: &str, answer: impl Into<String>) {
        self.said.push((asked.to_string(), answer.into()));
    }

    /// Runs docker and notes all that it says.
    fn says(&mut self, arguments: &[&str]) {
        let said = self.docker.says(arguments);
        self.note(&arguments.join(" "), format!("{} out: {} err: {}", said.code, said.out, said.err));
    }

    /// `docker run` with this isolation.
    fn run<'b>(&self, arguments: &[&'b str]) -> Vec<&'b str> {
        [&["run", "--isolation", self.isolation, "-m", "128m"], arguments].concat()
    }

    fn runs(&mut self, arguments: &[&str]) {
        let said = self.docker.says(&self.run(arguments));
        self.note(&arguments.join(" "), format!("{} out: {} err: {}", said.code, said.out, said.err));
    }

    fn sees(&mut self, script: &str) {
        self.says(&["exec", "one", "sh", "-c", script]);
    }

    fn told(&mut self, what: &str) {
        self.says(&["inspect", "--format", what, "one"]);
    }

    fn page(&self, port: u16) -> Option<String> {
        let at = SocketAddr::new(IpAddr::from(MACHINE), port);
        http_get(&self.lab.world.outside, at, SHORT).ok()
    }
}

/// What was answered on a terminal. How often the typed line is echoed depends on when its shell begins to read.
fn answers(said: &Said) -> String {
    let lines = said.out.lines().map(str::trim).filter(|line| !line.contains("stty") && !line.is_empty());
    format!("{} {}", said.code, lines.collect::<Vec<_>>().join("|"))
}

/// Ids differ from run to run.
fn without_ids(text: &str) -> String {
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.split(' ').map(|word| if is_id(&word) { "ID" } else { word }).collect::<Vec<_>>().join(" ")
}

/// Programs that end: their output, streams, exit codes and what is said of those that cannot be run.
fn ends(side: &mut Side<'_>) {
    side.runs(&["--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    side.runs(&["--rm", "busybox", "no-such-program"]);
    side.runs(&["--rm", "busybox", "/etc/passwd"]);
    side.runs(&["--rm", "busybox", "sh", "-c", "kill -9 $$"]);
    let told = side.docker.told("a\nb\n", &side.run(&["--rm", "-i", "busybox", "wc", "-l"]));
    side.note("input", format!("{} {}{}", told.code, told.out, told.err));
    let typed = side.docker.typed("tty; stty size; exit 4\n", &side.run(&["--rm", "-it", "busybox", "sh"]));
    side.note("terminal", answers(&typed));
    // More than all buffers on the way hold, byte by byte the same.
    let many = "i=0; while [ $i -lt 1000 ]; do echo $i-$(printf '%01000d' $i); i=$((i+1)); done";
    side.runs(&["--rm", "busybox", "sh", "-c", many]);
}

const SERVER: &str = "trap 'echo bye; exit 5' TERM; trap 'echo hup' HUP; cp /var/www/index.html /data/ 2>/dev/null; \
                      httpd -p 80 -h /data; echo ready; echo warned >&2; while :; do sleep 0.1; done";

fn starts(side: &mut Side<'_>) {
    side.docker.does(&side.run(&[
        "-d",
        "--name",
        "one",
        "--hostname",
        "here",
        "-p",
        "8080:80",
        "-v",
        "data:/data",
        "--tmpfs",
        "/mem",
        "-e",
        "A=b c",
        "-w",
        "/tmp",
        "--cpus",
        "1",
        "--pids-limit",
        "40",
        "--ulimit",
        "nofile=500:600",
        "--label",
        "x=y",
        "--add-host",
        "friend:192.0.2.7",
        "--cap-drop",
        "CHOWN",
        "--user",
        "0:0",
        "busybox",
        "sh",
        "-c",
        SERVER,
    ]));
    eventually("it is ready", LONG, || side.docker.does(&["logs", "one"]).contains("ready"));
}

/// What a program finds around it.
fn surroundings(side: &mut Side<'_>) {
    for script in [
        "id; pwd; hostname; env | sort | grep -v ^HOSTNAME",
        "grep -v -e ^10 -e ^fd /etc/hosts; cut -d' ' -f1 /etc/resolv.conf | sort -u",
        "ls -l / | awk '{print $1,$3,$4,$9}'; ls /dev | sort",
        "ls -ld /tmp /data /mem /root | awk '{print $1,$3,$4,$9}'",
        "grep -E 'Cap|Seccomp:|NoNewPrivs|Groups' /proc/self/status",
        "cat /proc/self/uid_map | awk '{print $1,$3}'; cat /proc/1/comm",
        "touch /sys/x; touch /proc/sys/kernel/x; cat /proc/kcore 2>/dev/null | wc -c; mount -t tmpfs none /mnt; echo $?",
        "mknod /tmp/null c 1 3; cat </tmp/null; chown 7 /tmp; unshare -U true; echo $?",
        "awk '{print $2,$3}' /proc/self/mounts | sort | grep -v -e ' proc' -e ext4 -e overlay -e /etc/ -e kcore -e cgroup",
        "ulimit -n; ulimit -Hn; ulimit -c; umask; nice",
        "ip -o link | awk '{print $2}' | sed 's/@.*:/:/'; ip -o addr show dev eth0 scope global | wc -l; ip route | wc -l; cat /sys/class/net/eth0/mtu",
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /proc/sys/kernel/hostname",
        "ping -c1 -W5 $(ip route | awk '/default/{print $3}') >/dev/null; echo $?; wget -qO- http://here/; nslookup -type=a one | grep -c Address",
        "ln -s /etc /tmp/l; echo x >/tmp/f; chmod 640 /tmp/f; ls -l /tmp | awk '{print $1,$3,$9}'; rm /tmp/f /tmp/l",
    ] {
        side.sees(script);
    }
}

/// Programs beside the container's own.
fn beside(side: &mut Side<'_>) {
    side.says(&["exec", "one", "sh", "-c", "echo out; echo err >&2; exit 9"]);
    side.says(&["exec", "one", "no-such-program"]);
    side.says(&[
        "exec",
        "-u",
        "65534",
        "-w",
        "/data",
        "-e",
        "Z=1",
        "one",
        "sh",
        "-c",
        "id -u; pwd; echo $Z; cat /proc/1/environ",
    ]);
    side.says(&["exec", "-u", "nosuchuser", "one", "true"]);
    let told =
        side.docker.told(&"line\n".repeat(50_000), &["exec", "-i", "one", "sh", "-c", "wc -c; echo done"]);
    side.note("exec input", format!("{} {}{}", told.code, told.out, told.err));
    let typed = side.docker.typed("tty; stty size; exit 3\n", &["exec", "-it", "one", "sh"]);
    side.note("exec terminal", answers(&typed));
    side.says(&["exec", "one", "sh", "-c", "kill -TERM $$"]);
    side.says(&["exec", "-d", "one", "sh", "-c", "echo left >/mem/detached"]);
    eventually("the detached one", LONG, || {
        side.docker.says(&["exec", "one", "cat", "/mem/detached"]).code == 0
    });
    let top = side.docker.does(&["top", "one"]);
    // Its loop sleeps most of the time, and not always.
    let programs = top.lines().filter_map(|line| line.split("  ").last()).map(str::trim);
    let programs: Vec<&str> = programs.filter(|program| !program.starts_with("sleep")).collect();
    side.note("top", programs.join("|"));
}

/// What a script on the host says of a directory.
fn on_host(place: &Path, script: &str) -> String {
    let done = Command::new("sh").args(["-c", script]).current_dir(place).output().expect("a shell");
    format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

/// Everything of a tree but its times.
const SHAPE: &str =
    "find . -printf '%P %y %m %U:%G %n %l\n' | sort; find . -type f -exec sha256sum {} + | sort";

/// Files, copied both ways, compared with the image, exported and made an image of.
fn files(side: &mut Side<'_>) {
    let scratch = tempfile::tempdir().expect("a directory");
    let place = |name: &str| scratch.path().join(name);
    let text = |path: &Path| path.to_str().expect("text").to_string();
    side.sees(
        "mkdir -p /made/sub/empty; echo one >/made/a; ln -s ../etc /made/way; ln /made/a /made/again; \
         mkfifo /made/pipe; chmod 2750 /made/sub; chmod 4755 /made/again; \
         dd if=/dev/urandom of=/made/sub/big bs=1k count=3000 2>/dev/null; \
         echo inside >/data/volume; echo gone >/mem/lost; rm /var/www/index.html; echo more >>/etc/passwd",
    );
    side.says(&["diff", "one"]);
    for (from, to) in
        [("/made", "out"), ("/made/sub/.", "dot"), ("/made/way/passwd", "far"), ("/data", "vol")]
    {
        let target = place(to);
        let said = side.docker.says(&["cp", "-q", &format!("one:{from}"), &text(&target)]);
        side.note(from, format!("{} {}{}", said.code, said.out, said.err));
        // What was made at random is compared with itself alone.
        side.note(from, on_host(scratch.path(), &format!("cd {to} 2>/dev/null; {SHAPE} | grep -v big")));
    }
    let sums = |sum: String| sum.split_whitespace().next().unwrap_or_default().to_string();
    let inside = sums(side.docker.does(&["exec", "one", "sha256sum", "/made/sub/big"]));
    assert_eq!(sums(on_host(&place("out"), "sha256sum sub/big")), inside, "{}", side.isolation);
    on_host(
        scratch.path(),
        "mkdir -p in/deep; echo hello >in/deep/hello; ln -s deep in/link; chmod 600 in/deep/hello; touch -d @1000000000 in/deep/hello; \
         head -c 5000000 /dev/zero | tr '\\0' x >in/large",
    );
    for to in ["one:/tmp/new", "one:/data/copied", "one:/made/way"] {
        let said = side.docker.says(&["cp", "-q", &text(&place("in")), to]);
        side.note(to, format!("{} {}{}", said.code, said.out, said.err));
    }
    side.sees(
        "cd /tmp/new; find . | sort; stat -c '%n %a %u:%g %Y %s' deep/hello; sha256sum large; readlink link",
    );
    side.sees("ls /data/copied /etc/in; cat /etc/in/deep/hello; rm -r /etc/in /data/copied /tmp/new");
    for arguments in [
        ["cp", "one:/not/there", "/tmp"],
        ["cp", "one:/etc/passwd/x", "/tmp"],
        ["cp", "/etc/hostname", "one:/not/there/x"],
    ] {
        side.says(&arguments);
    }
    // The archive breaks off, and how far the client is then is chance.
    let kernels = side.docker.says(&["cp", "one:/sys/kernel/uevent_seqnum", "/tmp"]);
    side.note("a file of the kernel's", kernels.code.to_string());
    let archive = place("all.tar");
    side.docker.does(&["export", "-o", &text(&archive), "one"]);
    // Which of two names of a file comes first is its file system's matter, and sizes are those of who it is and where.
    side.note(
        "export",
        on_host(
            scratch.path(),
            "tar --numeric-owner -tvf all.tar | grep -v made/a | awk '{print $1,$2,$6,$7,$8}' | sort",
        ),
    );
}

/// A program that leaves files behind, and tells at its second start what was put there meanwhile.
const LEAVES: &str = "[ -e /made ] && { find /tmp/new /data | sort; cat /tmp/new/deep/hello /data/in/deep/hello; exit 4; }; \
                      mkdir -p /made/sub/empty; echo one >/made/a; ln -s ../etc /made/way; chmod 2750 /made/sub; \
                      dd if=/dev/zero of=/made/sub/big bs=1k count=3000 2>/dev/null; rm /var/www/index.html; \
                      echo kept >/data/kept; exit 3";

/// Files of containers that do not run: of one that ended, and of those that were never started. What is known of the end stays.
fn resting(side: &mut Side<'_>) {
    let scratch = tempfile::tempdir().expect("a directory");
    let text = |name: &str| scratch.path().join(name).to_str().expect("text").to_string();
    side.runs(&["--name", "rest", "-v", "rest:/data", "busybox", "sh", "-c", LEAVES]);
    let end = "{{.State.Status}} {{.State.ExitCode}} {{.State.StartedAt}} {{.State.FinishedAt}} {{.State.Pid}} {{.State.Running}}";
    let before = side.docker.does(&["inspect", "--format", end, "rest"]);
    side.says(&["diff", "rest"]);
    for (from, to) in
        [("/made", "out"), ("/made/sub/.", "dot"), ("/made/way/passwd", "far"), ("/data", "vol")]
    {
        let said = side.docker.says(&["cp", "-q", &format!("rest:{from}"), &text(to)]);
        side.note(from, format!("{} {}{}", said.code, said.out, said.err));
        side.note(from, on_host(scratch.path(), &format!("cd {to} 2>/dev/null; {SHAPE}")));
    }
    on_host(
        scratch.path(),
        "mkdir -p in/deep; echo hello >in/deep/hello; chmod 600 in/deep/hello; head -c 5000000 /dev/zero | tr '\\0' x >in/large",
    );
    for to in ["rest:/tmp/new", "rest:/data/in", "rest:/made/way", "rest:/not/there/x"] {
        let said = side.docker.says(&["cp", "-q", &text("in"), to]);
        side.note(to, format!("{} {}{}", said.code, said.out, said.err));
    }
    side.says(&["cp", "rest:/not/there", "/tmp"]);
    side.says(&["diff", "rest"]);
    side.docker.does(&["export", "-o", &text("all.tar"), "rest"]);
    side.note(
        "export",
        on_host(scratch.path(), "tar --numeric-owner -tvf all.tar | awk '{print $1,$2,$6,$7,$8}' | sort"),
    );
    side.docker.does(&["commit", "-c", "LABEL made=here", "rest", "shop:2"]);
    side.runs(&[
        "--rm",
        "shop:2",
        "sh",
        "-c",
        "find /made /tmp/new /data | sort; ls /var/www; stat -c %a /made/sub",
    ]);
    side.docker.does(&["rmi", "shop:2"]);
    assert_eq!(side.docker.does(&["inspect", "--format", end, "rest"]), before, "{}", side.isolation);
    side.says(&["ps", "-aq", "--filter", "status=running", "--filter", "name=rest"]);
    side.says(&["start", "-a", "rest"]);
    side.says(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "rest"]);
    side.says(&["rm", "rest"]);
    side.says(&["volume", "rm", "rest"]);

    let made = side.docker.says(
        &[
            &["create", "--isolation", side.isolation, "-m", "128m"][..],
            &["--name", "fresh", "-v", "fresh:/data", "busybox", "cat", "/tmp/hello", "/data/hello"],
        ]
        .concat(),
    );
    assert_eq!(made.code, 0, "{}", made.err);
    side.says(&["cp", "-q", "fresh:/etc/passwd", &text("passwd")]);
    side.note("passwd", on_host(scratch.path(), "cat passwd"));
    side.says(&["cp", "-q", &text("in/deep/hello"), "fresh:/tmp/hello"]);
    side.says(&["cp", "-q", &text("in/deep/hello"), "fresh:/data/hello"]);
    side.says(&["inspect", "--format", "{{.State.Status}}", "fresh"]);
    side.says(&["start", "-a", "fresh"]);
    side.says(&["rm", "fresh"]);
    side.says(&["volume", "rm", "fresh"]);
}

/// What a program sees of its network: interfaces, addresses, routes, and the tables of further interfaces.
const SEEN_NETWORK: &str = "ip -o link | awk '{print $2}' | sed 's/@.*:/:/' | sort; ip -o -4 addr show dev eth1 | awk '{print $4}'; \
                            ip route | grep eth1; ip rule | grep -v local; ip route show table 1001; cat /sys/class/net/eth1/mtu";

/// Another network, joined and left while its programs run: as one more, as the only one that leads outside, and as the one
/// that a published port and a floating IP lead to.
fn networks(side: &mut Side<'_>) {
    side.docker.does(&["network", "create", "--subnet", "10.77.0.0/24", "other"]);
    side.docker.does(&[
        "run",
        "-d",
        "--name",
        "far",
        "--network",
        "other",
        "--ip",
        "10.77.0.10",
        "busybox",
        "sh",
        "-c",
        SERVER,
    ]);
    side.says(&["network", "connect", "--ip", "10.77.0.9", "other", "one"]);
    side.says(&["network", "connect", "other", "one"]);
    side.sees(SEEN_NETWORK);
    side.sees("ping -c1 -W5 10.77.0.1 >/dev/null; echo $?; ping -I 10.77.0.9 -c1 -W5 10.77.0.10 >/dev/null; echo $?");
    side.sees("cut -d' ' -f1 /etc/resolv.conf | sort -u; grep -c 10.77 /etc/hosts; nslookup -type=a one | grep -c Address");
    let greets = || side.docker.says(&["exec", "far", "wget", "-qO-", "http://10.77.0.9/"]).out;
    eventually("a neighbour's visit", LONG, || greets().contains("It works!"));
    side.told("{{range $name, $it := .NetworkSettings.Networks}}{{$name}} {{end}}{{.NetworkSettings.Networks.other.IPAddress}}");

    // All that leads outside goes by the new one.
    side.says(&["network", "disconnect", "bridge", "one"]);
    side.sees("ip -o link | awk '{print $2}' | sed 's/@.*:/:/' | sort; ip route");
    eventually("its page by the other network", LONG, || {
        side.page(8080).is_some_and(|page| page.contains("It works!"))
    });
    let cloud = side.lab.project(PROJECT);
    let floating = cloud.add_floating_ip("public", "one").address;
    let page = || http_get(&side.lab.world.outside, SocketAddr::new(floating, 80), SHORT).ok();
    eventually("its page by a floating IP", LONG, || page().is_some_and(|page| page.contains("It works!")));
    cloud.delete::<FloatingIp>("public");

    // The number that came free is the next one's.
    side.says(&["network", "connect", "bridge", "one"]);
    side.sees("ip -o link | awk '{print $2}' | sed 's/@.*:/:/' | sort; ip route | wc -l");
    eventually("its page by the first network", LONG, || side.page(8080).is_some());
    side.says(&["network", "disconnect", "other", "one"]);
    side.sees(
        "ip -o link | awk '{print $2}' | sed 's/@.*:/:/' | sort; ip rule | grep -v local; ip route show table 1001",
    );
    side.says(&["network", "disconnect", "other", "one"]);
    side.docker.does(&["rm", "-f", "far"]);
    side.says(&["network", "rm", "other"]);
}

/// An image of what it changed, and what is left when that is taken back.
fn committed(side: &mut Side<'_>) {
    side.docker.does(&["commit", "-c", "LABEL made=here", "one", "shop:1"]);
    side.runs(&[
        "--rm",
        "shop:1",
        "sh",
        "-c",
        "cat /made/a; ls -l /made | awk '{print $1,$2,$3,$9}'; ls /var/www /data /mem",
    ]);
    side.told("{{.State.Status}}");
    side.docker.does(&["rmi", "shop:1"]);
    side.sees("rm -r /made; echo back >/var/www/index.html");
    side.says(&["diff", "one"]);
    let size = side.docker.does(&["ps", "-s", "--filter", "name=one", "--format", "{{.Size}}"]);
    side.note("size", size.split(' ').next().unwrap_or_default());
}

/// Has disks counted where a kernel with control groups of version 1 begins that only with the first limit of a disk. The limit, which
/// is none, goes at once.
fn have_disks_counted(lab: &Lab) {
    let Layout::V1 { hierarchies, .. } = lab.remains().tree().layout() else { return };
    let Some(mount) = hierarchies.get("blkio") else { return };
    let group = mount.join(format!("{}-counts", lab.prefix()));
    fs::create_dir(&group).expect("a control group");
    for disk in fs::read_dir("/sys/block").expect("the disks").flatten() {
        let numbers = fs::read_to_string(disk.path().join("dev")).expect("its numbers");
        for limit in [1_u64 << 50, 0] {
            let line = format!("{} {limit}", numbers.trim());
            fs::write(group.join("blkio.throttle.read_bps_device"), line).expect("a limit");
        }
    }
    fs::remove_dir(group).expect("removed");
}

/// Megabytes that its disks were given, as docker's client tells and as holm's does.
fn written(side: &Side<'_>) -> [f64; 2] {
    let asked = ["stats", "--no-stream", "--format", "{{.BlockIO}}", "one"];
    let own = side.lab.holm(PROJECT, &asked).output().expect("holm stats").stdout;
    [side.docker.does(&asked), String::from_utf8_lossy(&own).trim().to_string()].map(|passed| {
        let written = passed.split(" / ").nth(1).unwrap_or_default();
        let number = written.trim_end_matches(char::is_alphabetic);
        let unit = match &written[number.len()..] {
            "B" => 1e-6,
            "kB" => 1e-3,
            "MB" => 1.0,
            _ => panic!("{}: {passed}", side.isolation),
        };
        number.parse::<f64>().unwrap_or_else(|_| panic!("{}: {passed}", side.isolation)) * unit
    })
}

/// Limits: told inside, and kept.
fn limits(side: &mut Side<'_>) {
    side.sees("n=0; while [ $n -lt 60 ]; do sleep 2 & n=$((n+1)); done 2>&1 | head -1; wait");
    // The kernel ends the program that wants more than there is, and the container lives on.
    side.sees("tail /dev/zero; echo $?");
    let count = || side.docker.does(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "one"]);
    eventually("its programs are counted", LONG, || count() == "one 3");
    have_disks_counted(side.lab);
    let before = written(side);
    side.sees("dd if=/dev/zero of=/written bs=1M count=8 conv=fsync 2>/dev/null; rm /written");
    for (before, after) in before.into_iter().zip(written(side)) {
        assert!((7.0..80.0).contains(&(after - before)), "{}: {before} MB, {after} MB", side.isolation);
    }
    let limit = side.docker.does(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "one"]);
    side.note("memory limit", limit.split(" / ").last().unwrap_or_default());
    side.says(&["update", "--pids-limit", "20", "one"]);
    side.sees("n=0; while [ $n -lt 30 ]; do sleep 2 & n=$((n+1)); done 2>&1 | head -1; wait");
    side.runs(&["--name", "big", "busybox", "tail", "/dev/zero"]);
    side.says(&["inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", "big"]);
    side.says(&["rm", "big"]);
}

/// Ports, logs, and being stopped, started and signalled.
fn life(side: &mut Side<'_>) {
    eventually("its page from outside", LONG, || {
        side.page(8080).is_some_and(|page| page.contains("It works!"))
    });
    side.says(&["port", "one"]);
    side.sees("echo kept >/kept; echo kept >/data/kept");
    side.says(&["kill", "-s", "HUP", "one"]);
    eventually("the signal", LONG, || side.docker.does(&["logs", "one"]).contains("hup"));
    side.says(&["pause", "one"]);
    side.told("{{.State.Status}} {{.State.Paused}}");
    assert_eq!(side.page(8080), None, "a paused one answers nobody");
    side.says(&["exec", "one", "true"]);
    side.says(&["unpause", "one"]);
    eventually("its page again", LONG, || side.page(8080).is_some());
    side.says(&["stop", "one"]);
    side.told("{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Error}}");
    side.says(&["logs", "one"]);
    side.says(&["logs", "--tail", "1", "one"]);
    side.says(&["exec", "one", "true"]);
    side.says(&["start", "one"]);
    eventually("its page after a start", LONG, || side.page(8080).is_some());
    side.sees("cat /kept /data/kept; ls /mem; pwd");
    side.says(&["rename", "one", "other"]);
    side.says(&["rename", "other", "one"]);
    side.says(&["kill", "one"]);
    side.says(&["wait", "one"]);
    side.told("{{.State.Status}} {{.State.ExitCode}} {{.Config.Labels}} {{.HostConfig.NanoCpus}} {{.HostConfig.Memory}}");
    side.says(&["rm", "one"]);
    // The volume outlives it.
    side.runs(&["--rm", "-v", "data:/here:ro", "busybox", "sh", "-c", "cat /here/kept; touch /here/new"]);
    side.says(&["volume", "rm", "data"]);
}

/// Restarts by policy, counted and told.
fn restarts(side: &mut Side<'_>) {
    let failing = "echo run >>/runs; echo again; exit 3";
    side.docker.does(&side.run(&[
        "-d",
        "--name",
        "one",
        "--restart",
        "on-failure:2",
        "busybox",
        "sh",
        "-c",
        failing,
    ]));
    let status = || side.docker.does(&["inspect", "--format", "{{.State.Status}}", "one"]);
    let count = || side.docker.does(&["inspect", "--format", "{{.RestartCount}}", "one"]);
    eventually("it gave up", LONG, || status() == "exited" && count() == "2");
    side.told("{{.RestartCount}} {{.State.ExitCode}}");
    side.says(&["logs", "one"]);
    side.says(&["rm", "one"]);
}

fn whole_suite<'a>(lab: &'a Lab, docker: &'a Docker, isolation: &'static str) -> Side<'a> {
    let mut side = Side { lab, docker, isolation, said: Vec::new() };
    ends(&mut side);
    starts(&mut side);
    side.told("{{.State.Status}} {{.State.Running}} {{.HostConfig.Isolation}}");
    surroundings(&mut side);
    beside(&mut side);
    files(&mut side);
    committed(&mut side);
    resting(&mut side);
    networks(&mut side);
    limits(&mut side);
    life(&mut side);
    restarts(&mut side);
    side
}

#[test]
fn one_suite_passes_alike_under_the_hosts_kernel_and_a_guest_kernel() {
    let (lab, docker) = lab();
    let shared = whole_suite(&lab, &docker, SHARED);
    let inside = whole_suite(&lab, &docker, VM);
    let mut differences = Vec::new();
    for ((asked, under_host), (_, under_own)) in shared.said.iter().zip(&inside.said) {
        // What the two are called is the one thing that may differ.
        let under_own = without_ids(&under_own.replace("running true vm", "running true "));
        let under_host = without_ids(&under_host.replace("running true default", "running true "));
        if under_host != under_own {
            differences.push(format!("{asked}\n  host: {under_host}\n  own:  {under_own}"));
        }
    }
    assert_eq!(shared.said.len(), inside.said.len());
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        shared.said.len(),
        differences.join("\n")
    );
    let output = |words: &str| shared.said.iter().any(|(_, answer)| answer.contains(words));
    for words in [
        "7 out: out\n err: err\n",
        "137 out: ",
        "127 out: ",
        "|/dev/pts/0|33 99",
        "250000\ndone",
        "exited 5 ",
        "A /made/sub/big\n",
        "D /var/www/index.html\n",
        "deep/hello 600 0:0 1000000000 6\n",
    ] {
        assert!(output(words), "{words}");
    }
    finish(lab);
}

#[test]
fn it_has_a_guest_kernel_of_its_own_and_outlives_the_daemon() {
    let (mut lab, docker) = lab();
    let version = fs::read_to_string(lab.images.file("kernel", "version")).expect("its version");
    let mine = docker.does(&[
        "run",
        "-d",
        "--isolation",
        VM,
        "--name",
        "own",
        "-m",
        "64m",
        "busybox",
        "sleep",
        "3600",
    ]);
    let see = |script: &str| docker.does(&["exec", "own", "sh", "-c", script]);
    assert_eq!(see("uname -r"), version.trim());
    assert_ne!(see("uname -r"), nix::sys::utsname::uname().expect("uname").release().to_string_lossy());
    // What it frees is the host's again.
    let qemu = docker.does(&["inspect", "--format", "{{.State.Pid}}", "own"]);
    let resident_kib = || -> u64 {
        let status = fs::read_to_string(format!("/proc/{qemu}/status")).expect("QEMU");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    see("dd if=/dev/zero of=/dev/shm/much bs=1M count=40 2>/dev/null");
    let full_kib = resident_kib();
    see("rm /dev/shm/much");
    eventually("its memory comes back", LONG, || resident_kib() + (20 << 10) < full_kib);
    see("echo here >/dev/shm/mark");
    let before = see("cat /proc/sys/kernel/random/boot_id");
    lab.kill_daemon();
    lab.start_daemon();
    assert_eq!(see("cat /dev/shm/mark; cat /proc/sys/kernel/random/boot_id"), format!("here\n{before}"));
    assert_eq!(docker.does(&["ps", "-q", "--no-trunc"]), mine);
    // Who stands for it on the host ends, and its machine with it; it is told and started again.
    let pid = docker.does(&["inspect", "--format", "{{.State.Pid}}", "own"]);
    let relay = fs::read_to_string(format!("/proc/{pid}/stat")).expect("QEMU");
    let relay: i32 = relay.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(relay), nix::sys::signal::Signal::SIGKILL)
        .expect("killed");
    eventually("QEMU went with it", LONG, || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    eventually("it is told", LONG, || {
        docker.does(&["inspect", "--format", "{{.State.Status}}", "own"]) == "exited"
    });
    docker.does(&["start", "own"]);
    assert_ne!(see("cat /proc/sys/kernel/random/boot_id"), before);
    docker.does(&["rm", "-f", "own"]);
    // What only the host could give is refused in words that say so.
    docker.refuses(
        125,
        "kernel of its own",
        &["run", "--rm", "--isolation", VM, "-v", "/etc:/x", "busybox", "true"],
    );
    docker.refuses(125, "isolation", &["run", "--rm", "--isolation", "hyperv", "busybox", "true"]);
    finish(lab);
}
