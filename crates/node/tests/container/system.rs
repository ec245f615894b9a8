//! Containers whose first process is an init: what is written into their files before it runs, and how they end.

use crate::lab::{Lab, until};
use model::plan::{Body, ContainerPlan, InstancePlan, SystemPlan};
use node::driver::{Driver, Seen};
use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me";

/// Makes the lab's image one that boots, with the traces of another machine in it.
fn make_bootable(image: &Path) {
    fs::create_dir_all(image.join("sbin")).unwrap();
    symlink("../bin/busybox", image.join("sbin/init")).unwrap();
    let table = "::sysinit:/bin/sh -c 'echo up; cat /proc/sys/kernel/hostname'\n::respawn:/bin/sleep 1000\n";
    fs::write(image.join("etc/inittab"), table).unwrap();
    for directory in ["etc/ssh", "var/lib/dbus", "home/web"] {
        fs::create_dir_all(image.join(directory)).unwrap();
    }
    for (file, text) in [
        ("etc/machine-id", "00000000000000000000000000000000\n"),
        ("var/lib/dbus/machine-id", "00000000000000000000000000000000\n"),
        ("etc/ssh/ssh_host_rsa_key", "somebody else's"),
        ("etc/ssh/ssh_host_rsa_key.pub", "somebody else's"),
        ("etc/ssh/sshd_config", "PermitRootLogin yes\n"),
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/home/web:/bin/sh\n"),
    ] {
        fs::write(image.join(file), text).unwrap();
    }
    symlink("/run/nowhere", image.join("etc/resolv.conf")).unwrap();
}

fn system(lab: &mut Lab, login: &str) -> InstancePlan {
    let plain = lab.container("main", "");
    let system = SystemPlan {
        keys: vec![KEY.into()],
        login: login.into(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
    };
    lab.pod(vec![ContainerPlan { argv: vec![], stop_signal: 0, system: Some(system), ..plain }])
}

fn upper(plan: &InstancePlan) -> PathBuf {
    let Body::Pod(pod) = &plan.body else { panic!("a pod") };
    pod.containers[0].upper.join("fs")
}

fn text(plan: &InstancePlan, file: &str) -> String {
    fs::read_to_string(upper(plan).join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[tokio::test]
async fn an_instance_is_told_from_others_of_its_image_before_it_boots() {
    let mut lab = Lab::new();
    make_bootable(&lab.directory.path().join("image"));
    let plan = system(&mut lab, "web");
    lab.driver.start(&plan).await.unwrap();
    lab.output_with(plan.id, "pod-host").await;
    assert_eq!(text(&plan, "etc/hostname"), "pod-host\n");
    for file in ["etc/machine-id", "var/lib/dbus/machine-id"] {
        assert_eq!(text(&plan, file), "0123456789abcdef0123456789abcdef\n", "{file}");
    }
    assert!(text(&plan, "etc/ssh/ssh_host_ed25519_key").contains("OPENSSH PRIVATE KEY"));
    assert!(text(&plan, "etc/ssh/ssh_host_ed25519_key.pub").starts_with("ssh-ed25519 "));
    let private = upper(&plan).join("etc/ssh/ssh_host_ed25519_key");
    let copy = lab.directory.path().join("key");
    fs::copy(private, &copy).unwrap();
    std::os::unix::fs::chown(&copy, Some(0), Some(0)).unwrap();
    let told = Command::new("ssh-keygen").arg("-y").arg("-f").arg(&copy).output().expect("ssh-keygen");
    assert!(told.status.success(), "{told:?}");
    let public = text(&plan, "etc/ssh/ssh_host_ed25519_key.pub");
    assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), public.trim(), "OpenSSH reads the key");
    let whiteout = fs::symlink_metadata(upper(&plan).join("etc/ssh/ssh_host_rsa_key")).unwrap();
    assert_eq!(whiteout.rdev(), 0, "the image's key is hidden");
    assert_eq!(whiteout.mode() & libc::S_IFMT, libc::S_IFCHR);
    assert!(
        text(&plan, "etc/resolv.conf").contains("nameserver")
            || text(&plan, "etc/resolv.conf").contains("options")
    );
    assert_eq!(text(&plan, "home/web/.ssh/authorized_keys"), format!("{KEY}\n"));
    let base = plan.id_range.base;
    for (file, uid, gid, mode) in [
        ("etc/hostname", 0, 0, 0o644),
        ("etc/ssh/ssh_host_ed25519_key", 0, 0, 0o600),
        ("home/web/.ssh", 33, 34, 0o700),
        ("home/web/.ssh/authorized_keys", 33, 34, 0o600),
    ] {
        let seen = fs::metadata(upper(&plan).join(file)).unwrap();
        let owner = (seen.uid() - base, seen.gid() - base, seen.mode() & 0o7777);
        assert_eq!(owner, (uid, gid, mode), "{file}");
    }
    lab.close().await;
}

#[tokio::test]
async fn what_was_written_once_is_the_instances_own() {
    let mut lab = Lab::new();
    make_bootable(&lab.directory.path().join("image"));
    let mut plan = system(&mut lab, "root");
    lab.driver.start(&plan).await.unwrap();
    lab.output_with(plan.id, "up").await;
    let key = text(&plan, "etc/ssh/ssh_host_ed25519_key");
    lab.driver.shutdown(plan.id).await.unwrap();
    let exit = lab.ended(plan.id).await;
    assert_eq!((exit.code, exit.failed, exit.cause.as_str()), (Some(0), false, "it powered off"));
    fs::write(upper(&plan).join("etc/hostname"), "mine\n").unwrap();
    fs::write(upper(&plan).join("etc/hosts"), "127.0.0.1 mine\n").unwrap();
    fs::write(upper(&plan).join("root/.ssh/authorized_keys"), "").unwrap();
    plan.boot += 1;
    plan.hostname = "renamed".into();
    lab.driver.start(&plan).await.unwrap();
    lab.output_with(plan.id, "renamed").await;
    assert_eq!(text(&plan, "etc/hostname"), "mine\n");
    assert_eq!(text(&plan, "etc/hosts"), "127.0.0.1 mine\n", "its own, without holm's line");
    assert_eq!(text(&plan, "root/.ssh/authorized_keys"), "");
    assert_eq!(text(&plan, "etc/ssh/ssh_host_ed25519_key"), key);
    assert!(text(&plan, "etc/resolv.conf").starts_with("# Written by holm"));
    lab.close().await;
}

#[tokio::test]
async fn a_reboot_is_another_run_and_a_killed_shim_leaves_nothing() {
    let mut lab = Lab::new();
    make_bootable(&lab.directory.path().join("image"));
    let plan = system(&mut lab, "root");
    lab.driver.start(&plan).await.unwrap();
    lab.output_with(plan.id, "up").await;
    let first = lab.pid(plan.id).await;
    // SIGTERM tells busybox to reboot.
    lab.driver.signal(plan.id, libc::SIGTERM).await.unwrap();
    until("another init", async || {
        let running = lab.running(plan.id).await;
        running.facts["containers"][0]["restarts"] == 1 && running.facts["containers"][0]["pid"] != first
    })
    .await;
    until("its words", async || lab.output(plan.id).await.matches("up\r\n").count() == 2).await;
    let shim = lab.running(plan.id).await.pid;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    until("the end", async || matches!(lab.driver.observe(plan.id).await.unwrap(), Seen::Stopped(_))).await;
    lab.close().await;
}

#[tokio::test]
async fn an_image_without_an_init_says_so() {
    let mut lab = Lab::new();
    fs::remove_file(lab.directory.path().join("image/bin/init")).unwrap();
    let plan = system(&mut lab, "root");
    lab.driver.start(&plan).await.unwrap();
    let exit = lab.ended(plan.id).await;
    assert!(exit.failed && exit.cause.contains("the image has no init"), "{exit:?}");
    lab.close().await;
}
