//! Containers as a whole: how they end, how they are confined, and what limits them.

use api::{
    client::Verb,
    frame::Frame,
    v1::types::{
        instance::{ContainerRequest, CreateInstance, Instance, VolumeRequest},
        stream::{ExecRequest, LogQuery},
    },
};
use lab::{Cloud, Lab, eventually};
use model::{instance::phase::Phase, plan::RestartPolicy};
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, Instant},
};

const LONG: Duration = Duration::from_secs(30);
const NAMESPACES: [&str; 7] = ["pid", "mnt", "net", "uts", "ipc", "user", "cgroup"];

fn script(cloud: &Cloud, name: &str, text: &str) -> CreateInstance {
    CreateInstance {
        args: Some(["sh", "-c", text].map(str::to_string).to_vec()),
        ..cloud.container(name, "busybox")
    }
}

#[test]
fn containers_are_confined() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    shop.launch(&shop.idle_container("box"));
    let host_kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(shop.exec("box", "uname -r").text(), host_kernel.trim(), "the host's kernel");
    assert_eq!(shop.exec("box", "hostname").text(), "box");
    for name in NAMESPACES {
        let own = fs::read_link(format!("/proc/self/ns/{name}")).unwrap().to_string_lossy().into_owned();
        let inside =
            shop.exec("box", &format!("readlink /proc/self/ns/{name}; readlink /proc/1/ns/{name}")).text();
        let (program, first) = inside.split_once('\n').unwrap();
        assert_eq!(program, first, "exec is where process 1 is: {name}");
        assert_ne!(first, own, "not where the host is: {name}");
    }
    let map = shop.exec("box", "cat /proc/1/uid_map").text();
    let numbers: Vec<u64> = map.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert!(numbers[0] == 0 && numbers[1] >= 65536, "root is nobody on the host: {map}");
    let status = |process: &str| {
        let wanted = "grep -E '^(Seccomp|NoNewPrivs|Cap[A-Z][a-z]+|Groups|Uid):' /proc/PROCESS/status";
        shop.exec("box", &wanted.replace("PROCESS", process)).text()
    };
    let first = status("1");
    assert_eq!(status("self"), first, "exec is confined as process 1 is");
    let told = shop.instance("box").facts["confinement"].as_str().unwrap_or_default().to_string();
    let root = format!("uid {} of the host", numbers[1]);
    for word in [root.as_str(), "CHOWN", "seccomp", "no new privileges"] {
        assert!(told.contains(word), "{word}: {told:?}");
    }
    assert!(first.contains("Seccomp:\t2") && first.contains("NoNewPrivs:\t1"), "{first}");
    let effective = first.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    let effective = u64::from_str_radix(effective, 16).unwrap();
    for (bit, name) in
        [(12, "NET_ADMIN"), (16, "SYS_MODULE"), (19, "SYS_PTRACE"), (21, "SYS_ADMIN"), (25, "SYS_TIME")]
    {
        assert_eq!(effective >> bit & 1, 0, "{name}");
    }
    assert!(
        shop.exec("box", "ls /proc | grep -c '^[0-9]'").text().parse::<u32>().unwrap() < 8,
        "its own processes"
    );
    assert_eq!(
        shop.exec("box", "ls /sys/class/net").text().split_whitespace().collect::<Vec<_>>(),
        ["eth0", "lo"]
    );
    assert!(
        !shop.exec("box", "cat /proc/mounts").text().contains(&*lab.directory().to_string_lossy()),
        "its own mounts"
    );
    for forbidden in [
        "echo 1 >/proc/sys/kernel/panic",
        "echo b >/proc/sysrq-trigger",
        "mount -t tmpfs none /tmp",
        "mknod /tmp/disk b 254 0",
        "cat /proc/kcore",
        "chroot /proc/1/root/../.. true && mount -o remount,rw /sys",
        "hostname other",
    ] {
        assert!(!shop.exec("box", forbidden).ok(), "{forbidden}");
    }
    fork_bomb(&lab, &shop);
    shop.empty();
    lab.finish();
}

/// Processes end at the limit, the container still answers, and others never notice.
fn fork_bomb(lab: &Lab, shop: &Cloud) {
    // A shell that cannot fork ends, so the bomb is a child of the first process, which stays.
    shop.launch(&script(
        shop,
        "bomb",
        "sh -c 'while :; do sleep 1000 & done' 2>/dev/null; exec sleep 1000000",
    ));
    let instance = shop.instance("bomb");
    let group = format!("i-{}", instance.head.id.simple());
    let tree = lab.remains().tree();
    let most = tree.directories(&group).unwrap().into_iter().map(|d| d.join("pids.max")).find(|p| p.exists());
    let most: u64 = fs::read_to_string(most.expect("pids.max")).unwrap().trim().parse().expect("a limit");
    let pids = || tree.stats(&group).map(|stats| stats.pids).unwrap_or(0);
    eventually("the bomb comes to its limit", LONG, || pids() + 2 >= most);
    assert!(pids() <= most, "{} of {most}", pids());
    let refused = shop.exec("bomb", "sleep 0 & wait");
    assert!(!refused.ok() && refused.stderr.contains("fork"), "no more processes: {refused:?}");
    assert!(shop.exec("box", "true").ok(), "another container answers");
    shop.delete::<Instance>("bomb");
}

#[test]
fn containers_end_and_tell() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    for (name, text, code) in [("good", "exit 0", 0), ("bad", "exit 7", 7)] {
        shop.create::<Instance>(&script(&shop, name, text));
        let ended = shop.wait_phase(name, Phase::Exited);
        let exit = ended.exit.expect("how it ended");
        assert_eq!((exit.code, exit.failed), (Some(code), code != 0), "{name}: {exit:?}");
    }
    // The whole of the program is ended by its limit, and the cause is told.
    let hog = CreateInstance { memory_mib: Some(64), ..script(&shop, "hog", "exec tail /dev/zero") };
    shop.create::<Instance>(&hog);
    let exit = shop.wait_phase("hog", Phase::Exited).exit.expect("how it ended");
    assert!(exit.code == Some(137) && exit.failed && exit.cause.contains("memory"), "{exit:?}");

    shop.create::<Instance>(&script(
        &shop,
        "talker",
        "echo one; echo two >&2; echo three; exec sleep 1000000",
    ));
    eventually("three lines", LONG, || shop.log("talker").lines().count() == 3);
    let last = shop.log_of("talker", &LogQuery { tail: Some(1), ..LogQuery::default() });
    assert_eq!(last, "three\n");
    let argv = ["sh", "-c", "tty; stty size; read word; echo got $word; exit 3"].map(str::to_string).to_vec();
    let request = ExecRequest {
        argv,
        tty: true,
        stdin: true,
        rows: Some(33),
        columns: Some(99),
        ..ExecRequest::default()
    };
    let ran = shop.exec_with("talker", &request, &[Frame::Stdin("hello\n".into())]);
    assert_eq!(ran.code, 3, "{ran:?}");
    for part in ["/dev/pts/", "33 99", "got hello"] {
        assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    }

    let again = CreateInstance {
        restart: Some(RestartPolicy::OnFailure { retries_max: 2 }),
        ..script(&shop, "again", "echo run; exit 1")
    };
    shop.create::<Instance>(&again);
    shop.wait_phase("again", Phase::Exited);
    assert_eq!(shop.log("again").lines().count(), 3, "the first run and two more");

    shop.create::<Instance>(&CreateInstance { remove_on_exit: true, ..script(&shop, "brief", "sleep 1") });
    eventually("brief is gone by itself", LONG, || {
        !shop.list::<Instance>().iter().any(|i| i.head.name == "brief")
    });
    shop.empty();
    lab.finish();
}

#[test]
fn containers_stop_as_they_are_asked() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    let waits = "while :; do sleep 0.1; done";
    shop.launch(&script(&shop, "polite", &format!("trap 'echo bye; exit 0' TERM; echo up; {waits}")));
    shop.launch(&CreateInstance {
        grace_s: Some(1),
        ..script(&shop, "deaf", &format!("trap '' TERM; echo kept >/file; echo up; {waits}"))
    });
    for name in ["polite", "deaf"] {
        eventually(&format!("{name} is up"), LONG, || shop.log(name) == "up\n");
        shop.act(name, Verb::Stop);
    }
    let exit = |name: &str| shop.wait_phase(name, Phase::Stopped).exit.expect("how it ended");
    let (polite, deaf) = (exit("polite"), exit("deaf"));
    assert_eq!((polite.code, polite.failed), (Some(0), false), "{polite:?}");
    assert_eq!(shop.log("polite"), "up\nbye\n", "it had its time");
    assert_eq!((deaf.code, deaf.failed), (Some(137), false), "asked for, so no failure: {deaf:?}");
    // What a container wrote is there when it starts again.
    shop.act("deaf", Verb::Start);
    assert_eq!(shop.exec("deaf", "cat /file").text(), "kept");
    shop.act("deaf", Verb::Kill);
    assert_eq!(shop.instance("deaf").phase, Phase::Stopped);
    shop.empty();
    lab.finish();
}

#[test]
fn containers_go_on_without_the_daemon() {
    let mut lab = Lab::new();
    let shop = lab.project("shop");
    // Each run waits for a word: the tests give it while nobody but its shim looks after the container.
    let text = "echo run $$ >>/runs; while [ ! -e /end ]; do sleep 0.05; done; rm /end; exit 5";
    let again = CreateInstance { restart: Some(RestartPolicy::Always), ..script(&shop, "again", text) };
    for request in [again, script(&shop, "once", text)] {
        shop.launch(&request);
    }
    let pid = |cloud: &Cloud, name: &str| {
        let container = cloud.instance(name).facts["containers"][0].clone();
        container["pid"].as_i64().expect("a pid")
    };
    let pids = ["again", "once"].map(|name| pid(&shop, name));
    assert!(lab.daemon().stop().success(), "it stops when it is asked");
    for pid in pids {
        fs::write(format!("/proc/{pid}/root/end"), "").expect("the container runs");
    }
    for pid in pids {
        eventually("both have ended", LONG, || {
            !std::path::Path::new(&format!("/proc/{pid}/root/runs")).exists()
        });
    }
    lab.start_daemon();
    let shop = lab.project("shop");
    let exit = shop.wait_phase("once", Phase::Exited).exit.expect("how it ended");
    assert_eq!((exit.code, exit.failed), (Some(5), true), "{exit:?}");
    eventually("again has run again", LONG, || shop.exec("again", "cat /runs").stdout.lines().count() == 2);
    assert_ne!(pid(&shop, "again"), pids[0]);
    shop.empty();
    lab.finish();
}

#[test]
fn a_container_gets_no_more_than_its_cpus() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    shop.launch(&CreateInstance {
        vcpus: Some(1),
        ..script(&shop, "busy", "while :; do :; done & while :; do :; done")
    });
    let group = format!("i-{}", shop.instance("busy").head.id.simple());
    let used = || lab.remains().tree().stats(&group).expect("stats");
    let quota = lab.remains().tree().directories(&group).expect("groups").into_iter().find_map(|directory| {
        let read = |file: &str| fs::read_to_string(directory.join(file)).ok();
        read("cpu.cfs_quota_us").or_else(|| read("cpu.max"))
    });
    assert!(quota.as_ref().is_some_and(|text| text.starts_with("100000")), "one CPU: {quota:?}");
    let (began, before) = (Instant::now(), used());
    eventually("some time has passed", LONG, || began.elapsed() > Duration::from_secs(3));
    // Two programs want two CPUs; read in this order, the time spent lies within the time passed.
    let spent = Duration::from_micros(used().cpu_usage_us - before.cpu_usage_us);
    let passed = began.elapsed();
    assert!(spent <= passed.mul_f64(1.1), "{spent:?} of CPU time in {passed:?}");
    shop.empty();
    lab.finish();
}

/// Two containers of a pod share the loopback and the volumes, and else nothing of their files.
#[test]
fn containers_of_a_pod_share_network_and_volumes() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    let part = |name: &str, text: &str| ContainerRequest {
        name: name.into(),
        image: "busybox".into(),
        args: Some(["sh", "-c", text].map(str::to_string).to_vec()),
        ..ContainerRequest::default()
    };
    let pod = CreateInstance {
        name: "pod".into(),
        containers: vec![
            part(
                "server",
                "mkdir /srv; echo from the server >/srv/index.html; echo shared >/data/file; \
                 exec httpd -f -p 127.0.0.1:8080 -h /srv",
            ),
            part("asker", "exec sleep 1000000"),
        ],
        volumes: vec![VolumeRequest {
            size_gib: Some(1),
            mount_path: Some("/data".into()),
            ..VolumeRequest::default()
        }],
        ..CreateInstance::default()
    };
    shop.launch(&pod);
    let ask = |text: &str| {
        let argv = ["sh", "-c", text].map(str::to_string).to_vec();
        shop.exec_with(
            "pod",
            &ExecRequest { container: Some("asker".into()), argv, ..ExecRequest::default() },
            &[],
        )
    };
    eventually("the server answers on loopback", LONG, || {
        ask("wget -q -O - http://127.0.0.1:8080/").stdout == "from the server\n"
    });
    assert!(!ask("ls /srv").ok(), "files are each one's own");
    assert_eq!(ask("cat /data/file; echo back >>/data/file").text(), "shared");
    assert_eq!(shop.exec("pod", "cat /data/file").text(), "shared\nback");
    assert_eq!(ask("hostname").text(), "pod");
    shop.empty();
    lab.finish();
}

/// Bytes that the files below a directory really take.
fn real_bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => real_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// An image's files are there once, however many run from it. How soon one more runs is measured by `make bench`.
#[test]
fn containers_of_one_image_share_it() {
    const MORE: u64 = 5;
    let lab = Lab::new();
    let shop = lab.project("shop");
    shop.launch(&shop.idle_container("first"));
    let taken = || -> u64 {
        let parts = ["images", "blobs", "layers", "instances", "pods", "volumes"];
        parts.iter().map(|part| real_bytes(&lab.state().join(part))).sum()
    };
    let before = taken();
    for number in 0..MORE {
        shop.launch(&shop.idle_container(&format!("more-{number}")));
    }
    let each = taken().saturating_sub(before) / MORE;
    eprintln!("a further container takes {each} bytes; the first and its image took {before}");
    assert!(each < 1 << 20, "a further container takes {each} bytes");

    // Those that are thrown away leave nothing, one after the other.
    for _ in 0..20 {
        let ran = lab.holm("shop", &["run", "--rm", "busybox", "true"]).output().expect("holm");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    let left = || shop.list::<Instance>().len() as u64;
    eventually("none of them is left", LONG, || left() == 1 + MORE);
    shop.empty();
    lab.finish();
}

/// What a talkative program says takes no more than three files of 10 MiB; the end of it is what is kept.
#[test]
fn containers_logs_take_a_bounded_room() {
    const MARKS: u32 = 45;
    let lab = Lab::new();
    let shop = lab.project("shop");
    let text = format!(
        "i=0; while [ $i -lt {MARKS} ]; do i=$((i+1)); \
         head -c 1000000 /dev/zero | tr '\\0' x | fold -w 999; echo; echo mark $i; done; exec sleep 1000000"
    );
    shop.launch(&script(&shop, "talker", &text));
    let last = || shop.log_of("talker", &LogQuery { tail: Some(1), ..LogQuery::default() });
    eventually("all is said", Duration::from_secs(60), || last() == format!("mark {MARKS}\n"));
    let id = shop.instance("talker").head.id;
    let logs = lab.state().join("pods").join(id.to_string()).join("logs");
    let sizes: Vec<u64> =
        fs::read_dir(&logs).expect("logs").map(|file| file.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|size| *size < 11 << 20), "{sizes:?}");
    let log = shop.log("talker");
    let marks: Vec<u32> =
        log.lines().filter_map(|line| line.strip_prefix("mark ")).map(|n| n.parse().unwrap()).collect();
    assert!((20..MARKS as usize).contains(&marks.len()), "the oldest are gone, most are kept: {marks:?}");
    assert!(marks.windows(2).all(|pair| pair[1] == pair[0] + 1), "and none between: {marks:?}");
    assert_eq!(marks.last(), Some(&MARKS));
    shop.empty();
    lab.finish();
}
