//! A power cut: what should come back with its host comes back, with its data and its addresses, and what should not
//! says why it ended.

use api::{
    client::Verb,
    v1::types::instance::{CreateInstance, Instance, UpdateInstance, VolumeRequest},
};
use lab::{Lab, eventually, http_get, v4_of};
use model::{image::ImageKind, instance::phase::Phase, plan::RestartPolicy};
use std::{net::SocketAddr, time::Duration};

const SHORT: Duration = Duration::from_millis(700);
const LONG: Duration = Duration::from_secs(60);

#[test]
fn guests_come_back_with_the_host() {
    let mut lab = Lab::new();
    let shop = lab.project("shop");
    shop.add_group("web", &["tcp 80"]);
    shop.add_key();
    shop.upload("disk", ImageKind::Disk, None, &lab.images.micro("disk.qcow2"));
    let from_disk =
        |name: &str| CreateInstance { image: Some("disk".into()), disk_gib: Some(1), ..shop.micro(name) };
    // Made first, and to start after what is made later.
    shop.launch(&CreateInstance { autostart: true, ..shop.idle_container("last") });
    let vm = shop.launch(&CreateInstance { autostart: true, ..from_disk("vm") });
    let after = UpdateInstance { start_after: Some(vec!["vm".into()]), ..UpdateInstance::default() };
    shop.update::<Instance>("last", &after);
    let web = shop.launch(&CreateInstance {
        restart: Some(RestartPolicy::Always),
        security_groups: Some(vec!["default".into(), "web".into()]),
        volumes: vec![VolumeRequest {
            size_gib: Some(1),
            mount_path: Some("/data".into()),
            ..VolumeRequest::default()
        }],
        ..shop.container("web", "web")
    });
    let floating = shop.add_floating_ip("front", "web").address;
    shop.launch(&CreateInstance { autostart: false, ..shop.idle_container("once") });
    shop.wait_ssh("vm");
    shop.ssh("vm", "echo kept >/root/kept && sync").text();
    shop.exec("web", "echo kept >/data/kept && sync").text();
    let boot = shop.ssh("vm", "cat /proc/sys/kernel/random/boot_id").text();

    lab.power_cut();

    let shop = lab.project("shop");
    let back = ["vm", "web"].map(|name| shop.wait_phase(name, Phase::Running));
    for (old, new) in [&vm, &web].into_iter().zip(&back) {
        assert_eq!((&new.addresses, new.ports[0].mac), (&old.addresses, old.ports[0].mac));
        assert_ne!(new.started_at, old.started_at);
    }
    let last = shop.wait_phase("last", Phase::Running);
    assert!(
        last.started_at > back[0].started_at,
        "vm runs, then last: {:?}",
        [last.started_at, back[0].started_at]
    );
    shop.wait_ssh("vm");
    assert_ne!(shop.ssh("vm", "cat /proc/sys/kernel/random/boot_id").text(), boot);
    assert_eq!(shop.ssh("vm", "cat /root/kept").text(), "kept");
    assert_eq!(shop.exec("web", "cat /data/kept").text(), "kept");
    eventually("web's page at its floating IP", LONG, || {
        http_get(&lab.world.outside, SocketAddr::new(floating, 80), SHORT).is_ok()
    });
    assert!(shop.exec("web", &format!("ping -c1 -W5 {}", v4_of(&vm))).ok(), "they reach each other");

    let once = shop.instance("once");
    assert_eq!(once.phase, Phase::Exited, "{once:#?}");
    let exit = once.exit.expect("how it ended");
    assert!(exit.cause.contains("host was restarted"), "{exit:?}");
    // Another wish, made now, counts from the next time on and starts nothing.
    shop.update::<Instance>("once", &UpdateInstance { autostart: Some(true), ..UpdateInstance::default() });
    assert_eq!(shop.instance("once").phase, Phase::Exited);
    shop.empty();
    lab.finish();
}

/// A VM that sleeps takes nothing of its host but its disk, outlives the daemon and the host, and goes on where it was.
#[test]
fn suspended_guest_goes_on_after_its_host_was_restarted() {
    let mut lab = Lab::new();
    let shop = lab.project("shop");
    shop.add_micro(&lab.images);
    let vm = shop.launch(&shop.micro("vm"));
    shop.wait_ssh("vm");
    shop.ssh(
        "vm",
        "echo in-memory >/tmp/kept; : >/tmp/ticks; (while sleep 1; do date >>/tmp/ticks; done) >/dev/null 2>&1 &",
    )
    .text();
    let boot = shop.ssh("vm", "cat /proc/sys/kernel/random/boot_id").text();
    let used = shop.used("memory_mib");
    shop.drop_ssh(&vm);
    let asleep = shop.act("vm", Verb::Suspend);
    assert_eq!(asleep.phase, Phase::Suspended, "{asleep:#?}");
    assert_eq!(shop.used("memory_mib"), used, "the project keeps its place");
    let memory = lab.state().join(format!("instances/{}/memory", vm.head.id));
    assert!(std::fs::metadata(&memory).unwrap().len() > 1 << 20, "its memory is on disk");
    let processes = lab.remains().processes();
    assert!(!processes.iter().any(|(_, line)| line.contains("qemu")), "{processes:?}");

    lab.power_cut();

    let shop = lab.project("shop");
    let asleep = shop.instance("vm");
    assert_eq!(asleep.phase, Phase::Suspended, "{asleep:#?}");
    let awake = shop.act("vm", Verb::Resume);
    assert_eq!((awake.phase, v4_of(&awake)), (Phase::Running, v4_of(&vm)));
    assert!(!memory.exists(), "disks change from now on");
    shop.wait_ssh("vm");
    assert_eq!(
        shop.ssh("vm", "cat /tmp/kept /proc/sys/kernel/random/boot_id").text(),
        format!("in-memory\n{boot}")
    );
    let ticks = || shop.ssh("vm", "wc -l </tmp/ticks").text().trim().parse::<u32>().unwrap();
    let before = ticks();
    eventually("what it was doing goes on", LONG, || ticks() > before);
    shop.empty();
    lab.finish();
}
