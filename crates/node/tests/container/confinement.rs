//! What a container can and cannot do.

use crate::lab::{Lab, make_image};
use model::{
    id::VolumeId,
    plan::{DiskFormat, DiskPlan, MountPlan, MountSource},
};
use node::driver::{Driver, ExecRequest, Stdio};
use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
};

/// What every container shows about its first process.
const ABOUT_SELF: &str = "grep -E '^(Cap|Seccomp|NoNewPrivs|Uid|Gid|Groups)' /proc/self/status; \
    cat /proc/self/uid_map /proc/self/gid_map /proc/self/cgroup; \
    for kind in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$kind; done";

#[tokio::test]
async fn ids_namespaces_and_capabilities() {
    let mut lab = Lab::new();
    let (exit, output) = lab.run(&format!("{ABOUT_SELF}; echo pids $(ls /proc | grep -c '^[0-9]')")).await;
    assert_eq!(exit.code, Some(0), "{output}");
    for line in [
        "Uid:\t0\t0\t0\t0",
        "CapEff:\t00000000a80425fb",
        "CapPrm:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "CapInh:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "Seccomp_filters:\t1",
    ] {
        assert!(output.contains(line), "{line}: {output}");
    }
    let map: Vec<&str> =
        output.lines().find(|line| line.contains("65536")).unwrap().split_whitespace().collect();
    assert_eq!((map[0], map[2]), ("0", "65536"), "{output}");
    assert!(map[1].parse::<u32>().unwrap() >= 10_000_000, "{output}");
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert!(!output.contains(host.to_str().unwrap()), "the host's {kind} namespace: {output}");
    }
    let pids: u32 = output.rsplit("pids ").next().unwrap().trim().parse().unwrap();
    assert!(pids < 6, "sees {pids} processes");
    lab.close().await;
}

#[tokio::test]
async fn a_program_beside_is_confined_as_the_first_one() {
    let mut lab = Lab::new();
    for user in ["", "web"] {
        let mut container = lab.container("main", &format!("{ABOUT_SELF}; echo end; exec sleep 1000"));
        container.user = user.into();
        container.cap_drop = vec!["CAP_CHOWN".into()];
        let plan = lab.pod(vec![container]);
        lab.driver.start(&plan).await.unwrap();
        let first = lab.output_with(plan.id, "end").await.replace("end\n", "");
        let (code, beside) = exec(&lab, &plan, &["sh", "-c", ABOUT_SELF], None).await;
        assert_eq!(code, 0, "{beside}");
        assert_eq!(beside, first);
        assert!(beside.contains("Seccomp_filters:\t1"), "{beside}");
        // As seen from outside, where nothing can be hidden.
        let pid = lab.pid(plan.id).await;
        let outside = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        for line in outside.lines().filter(|line| line.starts_with("Cap") || line.starts_with("Seccomp")) {
            assert!(beside.contains(line), "{line}: {beside}");
        }
        // Another user may be asked for, and gets no more.
        let (_, other) =
            exec(&lab, &plan, &["sh", "-c", "id; grep CapBnd /proc/self/status"], Some("web")).await;
        assert!(other.starts_with("uid=33(web) gid=34(www) groups=5(log)\n"), "{other}");
        assert!(other.contains("CapBnd:\t00000000a80425fa"), "{other}");
    }
    lab.close().await;
}

#[tokio::test]
async fn what_root_inside_cannot_do() {
    let mut lab = Lab::new();
    let image = lab.directory.path().join("image");
    let block = nix::sys::stat::SFlag::S_IFBLK;
    let all = nix::sys::stat::Mode::from_bits_truncate(0o666);
    nix::sys::stat::mknod(&image.join("disk"), block, all, nix::sys::stat::makedev(7, 0)).unwrap();
    let secret = lab.directory.path().join("secret");
    fs::write(&secret, "x").unwrap();
    let mut script = String::from("try() { \"$@\" >/dev/null 2>&1 && echo \"DID: $*\"; }\n");
    for attempt in [
        "mount -t tmpfs none /tmp",
        "umount /proc/kcore",
        "umount /sys",
        "mount -o remount,rw /sys",
        "unshare -m true",
        "unshare -U true",
        "chroot /proc/1/root/../../.. ls /work",
        "mknod /tmp/disk b 7 0",
        "mknod /tmp/mem c 1 1",
        "head -c 1 /disk",
        "hostname other",
        "sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'",
        "sh -c 'echo x > /proc/sys/kernel/hostname'",
        "sh -c 'echo b > /proc/sysrq-trigger'",
        "sh -c 'echo x > /proc/1/oom_score_adj; echo -1000 > /proc/1/oom_score_adj'",
        "touch /sys/x",
        "sh -c 'echo 1 > /sys/kernel/uevent_seqnum'",
        "dmesg",
        "sh -c 'date -s 2020.01.01-00:00; test $(date +%Y) = 2020'",
        "ip link set lo down",
        "ip link add x type veth",
        "ip addr add 10.9.9.9/24 dev lo",
        "chown 70000 /tmp",
        "nice -n -5 true",
        "test -s /proc/kcore",
        "test -s /proc/keys",
        "test -s /proc/timer_list",
        "ls /sys/firmware/*",
        "reboot -f",
        "swapon /disk",
        "insmod /disk",
        "test -e /work",
        "touch /etc/hosts",
    ] {
        script.push_str(&format!("try {attempt}\n"));
    }
    script.push_str("echo end\n");
    let (exit, output) = lab.run(&script).await;
    assert_eq!((exit.code, output.as_str()), (Some(0), "end\n"));
    lab.close().await;
}

#[tokio::test]
async fn what_root_inside_can_do() {
    let mut lab = Lab::new();
    let mut script =
        String::from("must() { \"$@\" >/tmp/out 2>&1 || { echo \"FAILED: $*\"; cat /tmp/out; }; }\n");
    for attempt in [
        "touch /new /etc/new",
        "chown 33:34 /new",
        "chown 65535 /new",
        "chmod 4755 /new",
        "sh -c 'echo x > /etc/from-image'",
        "sh -c 'echo x > /dev/null'",
        "head -c 8 /dev/zero",
        "head -c 8 /dev/urandom",
        "test -c /dev/tty",
        "test -L /dev/stdout",
        "sh -c 'echo x > /dev/shm/x'",
        "sh -c 'echo x > /dev/fd/1'",
        "test -d /dev/mqueue",
        "test -d /dev/pts",
        "test -w /tmp",
        "ping -c 1 -w 5 127.0.0.1",
        "ping6 -c 1 -w 5 ::1",
        "sh -c 'nc -l -p 25 & sleep 0.2; kill $!'",
        "su web -c id",
        "rm /etc/passwd",
        "grep -q pod-host /etc/hostname",
        "grep -q 'localhost' /etc/hosts",
        "grep -q '^options' /etc/resolv.conf",
        "test \"$(hostname)\" = pod-host",
        "test \"$(umask)\" = 0022",
        "test \"$HOME\" = /root",
        "test \"$(ulimit -c)\" = 0",
        "test $(ls /sys/class/net | wc -l) = 1",
    ] {
        script.push_str(&format!("must {attempt}\n"));
    }
    script.push_str("echo end\n");
    let (exit, output) = lab.run(&script).await;
    assert_eq!((exit.code, output.as_str()), (Some(0), "end\n"));
    lab.close().await;
}

#[tokio::test]
async fn links_in_an_image_lead_nowhere_else() {
    let mut lab = Lab::new();
    let image = lab.directory.path().join("image");
    let outside = lab.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let link = |name: &str, target: &str| std::os::unix::fs::symlink(target, image.join(name)).unwrap();
    link("etc/hosts", &format!("{}/hosts", outside.display()));
    link("dev", &format!("{}/dev", outside.display()));
    link("srv", outside.to_str().unwrap());
    link("proc", "../../../../../../..");
    let mut container =
        lab.container("main", "cat /etc/hosts | grep -c localhost; echo x > /dev/null; pwd -P");
    container.cwd = "/srv/deep".into();
    let plan = lab.pod(vec![container]);
    lab.driver.start(&plan).await.unwrap();
    let exit = lab.ended(plan.id).await;
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was made outside the image");
    // A /proc that is a link to the root cannot be had; what counts is that nothing outside was touched.
    assert!(exit.code.is_some(), "{exit:?}");
    lab.close().await;
}

#[tokio::test]
async fn layers_on_a_file_system_that_cannot_shift_ids_are_copied() {
    let mut lab = Lab::new();
    let plain = lab.directory.path().join("plain");
    fs::create_dir(&plain).unwrap();
    // A plain file system in memory is one of the few left whose mounts cannot shift ids.
    nix::mount::mount(Some("ramfs"), &plain, Some("ramfs"), nix::mount::MsFlags::empty(), None::<&str>)
        .unwrap();
    make_image(&plain.join("image"));
    let script =
        "stat -c '%u:%g %a' /etc/passwd /bin/busybox; echo own >/etc/from-image; cat /etc/from-image";
    let mut container = lab.container("main", script);
    container.layers = vec![plain.join("image")];
    let upper = container.upper.clone();
    let plan = lab.pod(vec![container]);
    for boot in 1..3 {
        lab.driver.start(&model::plan::InstancePlan { boot, ..plan.clone() }).await.unwrap();
        let exit = lab.ended(plan.id).await;
        assert_eq!((exit.code, exit.boot), (Some(0), boot), "{exit:?}");
    }
    assert_eq!(lab.output(plan.id).await, "0:0 644\n0:0 755\nown\n".repeat(2));
    assert_eq!(fs::metadata(upper.join("shifted/0/etc/passwd")).unwrap().uid(), plan.id_range.base);
    assert_eq!(fs::read_to_string(plain.join("image/etc/from-image")).unwrap(), "image", "the layer stays");
    sys::mount::unmount(&plain).unwrap();
    lab.close().await;
}

#[tokio::test]
async fn limits_on_processes_and_memory() {
    let mut lab = Lab::new();
    let bomb = lab.start("sh -c 'while :; do sleep 1000 & done'; echo it ended; sleep 1000").await;
    lab.output_with(bomb.id, "it ended").await;
    crate::lab::until("the limit", async || {
        lab.driver.stats(bomb.id).await.is_ok_and(|stats| stats.pids >= 60)
    })
    .await;
    for _ in 0..20 {
        let pids = lab.driver.stats(bomb.id).await.unwrap().pids;
        assert!(pids <= 64, "{pids}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    lab.driver.kill(bomb.id).await.unwrap();
    lab.ended(bomb.id).await;

    let (exit, _) = lab.run("exec dd if=/dev/zero of=/dev/null bs=200M count=1").await;
    assert_eq!(exit.code, Some(137), "{exit:?}");
    assert!(exit.failed && exit.cause.contains("memory"), "{exit:?}");
    lab.close().await;
}

#[tokio::test]
async fn limits_change_while_it_runs() {
    let mut lab = Lab::new();
    let plan = lab.start("echo up; read x < /dev/zero; sleep 1000").await;
    let name = lab.driver.places(plan.id).cgroup;
    let limits = node::container::bundle::Limits { pids_max: Some(3), ..Default::default() };
    lab.driver.set_limits(plan.id, limits).await.unwrap();
    let tree = sys::cgroup::Tree::probe(&lab.config.cgroup_root).unwrap();
    let told: Vec<String> = tree
        .directories(&name)
        .unwrap()
        .iter()
        .filter_map(|directory| fs::read_to_string(directory.join("pids.max")).ok())
        .collect();
    assert_eq!(told, ["3\n"]);
    lab.close().await;
}

#[tokio::test]
async fn read_only_root_volumes_and_memory() {
    let mut lab = Lab::new();
    let volume = lab.directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("mine"), "host root's").unwrap();
    let script = "touch /x 2>/dev/null && echo wrote the root; touch /ro/x 2>/dev/null && echo wrote ro; \
        stat -c %u /data/mine /ro/mine; echo data > /data/new; echo x > /scratch/x && stat -c %a /scratch; \
        head -c 2000000 /dev/zero > /scratch/big 2>/dev/null; stat -c %s /scratch/big; echo end";
    let mut container = lab.container("main", script);
    container.read_only_rootfs = true;
    container.mounts = vec![
        MountPlan {
            target: "/ro".into(),
            source: MountSource::Bind { path: volume.clone() },
            read_only: true,
        },
        MountPlan {
            target: "/scratch".into(),
            source: MountSource::Tmpfs { size_bytes: 1 << 20 },
            read_only: false,
        },
    ];
    let mut plan = lab.pod(vec![container]);
    plan.disks.push(DiskPlan {
        volume: VolumeId::from_random([9; 16]),
        path: volume.clone(),
        format: DiskFormat::Raw,
        backing: vec![],
        read_only: false,
        serial: String::new(),
        boot_index: None,
        mount_path: Some("/data".into()),
    });
    lab.driver.start(&plan).await.unwrap();
    let exit = lab.ended(plan.id).await;
    let output = lab.output(plan.id).await;
    assert_eq!(exit.code, Some(0), "{output}");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..3], ["0", "0", "1777"], "{output}");
    let size: u64 = lines[3].parse().unwrap();
    assert!(size <= 1 << 20 && lines[4] == "end", "{output}");
    assert_eq!(fs::metadata(volume.join("new")).unwrap().uid(), 0, "ids are shifted on the way");
    assert_eq!(lab.driver.attached(plan.id).await.unwrap().1, [VolumeId::from_random([9; 16])]);
    lab.close().await;
}

/// Runs a program beside the first one, and gives its exit code and output.
pub async fn exec(
    lab: &Lab,
    plan: &model::plan::InstancePlan,
    argv: &[&str],
    user: Option<&str>,
) -> (i32, String) {
    let (mut reading, writing) = std::io::pipe().unwrap();
    let writing = OwnedFd::from(writing);
    let request = ExecRequest {
        container: None,
        argv: argv.iter().map(ToString::to_string).collect(),
        env: vec![],
        cwd: None,
        user: user.map(String::from),
        tty: false,
        size: None,
        tied: false,
    };
    let stdio = Stdio { stdin: None, stdout: Some(writing.try_clone().unwrap()), stderr: Some(writing) };
    let handle = lab.driver.exec(plan.id, &request, stdio).await.unwrap();
    let output =
        tokio::task::spawn_blocking(move || std::io::read_to_string(&mut reading).unwrap()).await.unwrap();
    (handle.wait().await.unwrap(), output)
}
