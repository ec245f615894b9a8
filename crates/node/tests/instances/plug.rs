//! Interfaces and disks, plugged and unplugged, and never given to others while a guest has them.

use crate::lab::{Lab, pod, vm};
use control::{
    Caller, Role,
    instance::{NewInstance, NicAsked, resize::NewSize},
    keypair::NewKeypair,
    port::NewPort,
    snapshot::NewSnapshot,
    volume::NewVolume,
};
use model::{
    error::Code,
    id::{InstanceId, ProjectId, UserId, VolumeId},
    instance::{
        Grant,
        keys::{KeyChange, NamedKey},
        phase::Phase,
    },
    keypair::{KeyKind, Keypair},
    port::Port,
    volume::Volume,
};
use node::fake::{Behaviour, Fault, Verb};
use store::Tx;

async fn add_volume(lab: &Lab) -> VolumeId {
    let new = NewVolume { name: "data".into(), size_gib: Some(1), ..NewVolume::default() };
    let volume = lab.control.create_volume(&lab.caller, new).await.unwrap();
    lab.supply().await;
    volume.meta.id
}

fn has(lab: &Lab, id: InstanceId) -> (usize, usize) {
    lab.host.guest(id).map_or((0, 0), |g| (g.ports.len(), g.volumes.len()))
}

#[tokio::test(start_paused = true)]
async fn ports_and_volumes_come_and_go_while_it_runs() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    lab.rest(id).await;
    let volume = add_volume(&lab).await;
    lab.control.attach_volume(&lab.caller, "db", "data", None, false).await.unwrap();
    let port = lab.control.attach_port(&lab.caller, "db", &NicAsked::New(NewPort::default())).await.unwrap();
    lab.rest(id).await;
    assert_eq!(has(&lab, id), (2, 2));
    lab.control.detach_volume(&lab.caller, "data").await.unwrap();
    lab.control.detach_port(&lab.caller, "db", &port.meta.id.to_string()).await.unwrap();
    lab.rest(id).await;
    assert_eq!(has(&lab, id), (1, 1));
    assert_eq!(lab.control.get::<Volume>(volume).unwrap().record.attached_to, None);
    assert!(lab.control.get::<Port>(port.meta.id).is_none(), "it was made for the instance");
    assert_eq!(lab.host.boots(id), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_card_that_may_be_half_plugged_in_is_taken_out_with_its_port() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    lab.rest(id).await;
    let port = lab.control.attach_port(&lab.caller, "db", &NicAsked::New(NewPort::default())).await.unwrap();
    lab.host.script(Verb::AttachNic, Fault::FailBefore);
    lab.run_once(&lab.healthy().await, id).await.unwrap_err();
    lab.control.detach_port(&lab.caller, "db", &port.meta.id.to_string()).await.unwrap();
    lab.rest(id).await;
    // The driver lists it nowhere, and is asked all the same.
    assert_eq!((lab.host.count(Verb::DetachNic, id), has(&lab, id)), (1, (1, 1)));
    assert!(lab.control.get::<Port>(port.meta.id).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_the_guest_holds_is_kept_for_it() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    lab.host.behave(id, Behaviour { releases_devices: false, ..Behaviour::default() });
    let volume = add_volume(&lab).await;
    lab.control.attach_volume(&lab.caller, "db", "data", None, false).await.unwrap();
    lab.rest(id).await;
    lab.control.detach_volume(&lab.caller, "data").await.unwrap();
    let daemon = lab.healthy().await;
    for _ in 0..3 {
        lab.run_once(&daemon, id).await.unwrap_err();
    }
    assert!(lab.control.get::<Volume>(volume).unwrap().record.attached_to.is_some());
    assert!(lab.status(id).unwrap().fault.is_some());
    lab.control.stop_instance(&lab.caller, "db", false, None).await.unwrap();
    lab.rest(id).await;
    assert_eq!(lab.control.get::<Volume>(volume).unwrap().record.attached_to, None);
    assert_eq!(lab.status(id).unwrap().fault, None);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_guest_lets_go_when_it_thaws() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    let volume = add_volume(&lab).await;
    lab.control.attach_volume(&lab.caller, "db", "data", None, false).await.unwrap();
    lab.rest(id).await;
    lab.control.pause_instance(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    lab.control.detach_volume(&lab.caller, "data").await.unwrap();
    lab.rest(id).await;
    assert!(lab.control.get::<Volume>(volume).unwrap().record.attached_to.is_some());
    lab.control.resume_instance(&lab.caller, "db").await.unwrap();
    lab.rest(id).await;
    assert_eq!(lab.control.get::<Volume>(volume).unwrap().record.attached_to, None);
    assert_eq!((has(&lab, id), lab.phase(id)), ((1, 1), Phase::Running));
}

#[tokio::test(start_paused = true)]
async fn what_is_unplugged_while_it_starts_is_not_freed_before_the_guest_let_go() {
    for point in 0.. {
        let lab = Lab::new().await;
        let id = lab.create(vm("db")).await;
        let volume = add_volume(&lab).await;
        lab.control.attach_volume(&lab.caller, "db", "data", None, false).await.unwrap();
        let daemon = lab.daemon(node::fake::Fuse::at(point)).await;
        let died = lab.drive_to_death(&daemon, id).await;
        drop(daemon);
        lab.control.detach_volume(&lab.caller, "data").await.unwrap();
        lab.control.finalize_instance(id).await.unwrap();
        let holds = lab.host.guest(id).is_some_and(|g| g.volumes.contains(&volume));
        let kept = lab.control.get::<Volume>(volume).unwrap().record.attached_to.is_some();
        assert!(kept || !holds, "point {point}: the guest has what others may take");
        lab.rest(id).await;
        assert_eq!(has(&lab, id), (1, 1), "point {point}");
        assert_eq!(lab.control.get::<Volume>(volume).unwrap().record.attached_to, None, "point {point}");
        if !died {
            assert!(point > 10, "{point} points are too few");
            return;
        }
    }
}

/// Two keys of the project, `mine` and `old`, as an instance has them.
async fn add_keys(lab: &Lab) -> Vec<NamedKey> {
    let mut keys = vec![];
    for (name, line) in [
        ("mine", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me"),
        ("old", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICAhIiMkJSYnKCkqKywtLi8wMTIzNDU2Nzg5Ojs8PT4/ old"),
    ] {
        let new = NewKeypair { name: name.into(), kind: KeyKind::Ssh, public_key: line.into(), user: None };
        let made = lab.control.add_keypair(&lab.caller, new).await.unwrap();
        keys.push((name.to_string(), made.public_key));
    }
    keys
}

#[tokio::test(start_paused = true)]
async fn keys_are_given_to_a_running_guest_and_taken_from_it() {
    let lab = Lab::new().await;
    let keys = add_keys(&lab).await;
    let id = lab.create(NewInstance { keypairs: vec!["old".into()], ..vm("db") }).await;
    lab.rest(id).await;
    assert_eq!(lab.host.count(Verb::ChangeKeys, id), 0, "it took them at its first boot");
    lab.control.set_keys(&lab.caller, "db", &["old".into(), "mine".into()]).await.unwrap();
    lab.rest(id).await;
    let revoked = lab.control.revoke_keypair(&lab.caller, "old").await.unwrap();
    assert_eq!(revoked.instances.len(), 1);
    lab.rest(id).await;
    let [mine, old] = keys.try_into().unwrap();
    let told = lab.host.guest(id).unwrap().keys_told;
    let expected =
        [KeyChange { add: vec![mine.clone()], remove: vec![] }, KeyChange { add: vec![], remove: vec![old] }];
    assert_eq!(told, expected);
    assert_eq!(lab.status(id).unwrap().keys, Some(vec![mine]));
    assert_eq!(lab.host.boots(id), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_guest_without_an_agent_keeps_its_keys_until_one_answers() {
    let lab = Lab::new().await;
    let keys = add_keys(&lab).await;
    let id = lab.create(NewInstance { keypairs: vec!["old".into()], ..vm("db") }).await;
    lab.host.behave(id, Behaviour { has_agent: false, ..Behaviour::default() });
    lab.rest(id).await;
    lab.control.set_keys(&lab.caller, "db", &["mine".into()]).await.unwrap();
    lab.rest(id).await;
    let status = lab.status(id).unwrap();
    assert_eq!((status.keys, status.fault), (Some(vec![keys[1].clone()]), None));
    assert!(status.keys_refused.contains("no guest agent"), "{}", status.keys_refused);
    // Another boot changes nothing: a guest takes its keys once.
    lab.control.reboot_instance(&lab.caller, "db", true).await.unwrap();
    lab.rest(id).await;
    assert_eq!(lab.status(id).unwrap().keys, Some(vec![keys[1].clone()]));
    lab.host.behave(id, Behaviour::default());
    lab.rest(id).await;
    let status = lab.status(id).unwrap();
    assert_eq!((status.keys, status.keys_refused.as_str()), (Some(vec![keys[0].clone()]), ""));
}

#[tokio::test(start_paused = true)]
async fn keys_are_refused_where_nobody_logs_in_and_where_nobody_knows_them() {
    let lab = Lab::new().await;
    let keys = add_keys(&lab).await;
    lab.create(pod("web")).await;
    lab.create(NewInstance { keypairs: vec!["old".into()], ..vm("db") }).await;
    let set = async |name: &str, key: &str| lab.control.set_keys(&lab.caller, name, &[key.to_string()]).await;
    assert_eq!(set("web", "mine").await.unwrap_err().field.as_deref(), Some("keypairs"));
    assert_eq!(set("db", "nobody's").await.unwrap_err().code, Code::NotFound);
    // What the project has forgotten, or calls another key by now, is in the instance what it was.
    let had = keys[1].clone();
    lab.control.delete_keypair(&lab.caller, None, "old").await.unwrap();
    assert_eq!(set("db", "old").await.unwrap().keys, std::slice::from_ref(&had));
    let another = keys[0].1.replace(" me", " another");
    let new = NewKeypair { name: "old".into(), kind: KeyKind::Ssh, public_key: another, user: None };
    lab.control.add_keypair(&lab.caller, new).await.unwrap();
    assert_eq!(set("db", "old").await.unwrap().keys, [had]);
}

#[tokio::test(start_paused = true)]
async fn a_users_own_key_is_revoked_in_every_project_by_an_admin_alone() {
    let lab = Lab::new().await;
    let keys = add_keys(&lab).await;
    let id = lab.create(NewInstance { keypairs: vec!["mine".into()], ..vm("db") }).await;
    let mut own = lab.control.find::<Keypair>(&lab.caller, "mine").unwrap().record.clone();
    let mut far = lab.instance(id).unwrap();
    (far.meta.id, far.meta.project) = (InstanceId::from_random([7; 16]), ProjectId::from_random([7; 16]));
    let mut tx = Tx::new();
    tx.put(&far);
    lab.control.store().commit(tx).await.unwrap();
    let keeps = || lab.instance(far.meta.id).unwrap().keys == keys[..1];
    // The project's own key: what another project made of the same one is not its business.
    lab.control.revoke_keypair(&lab.caller, "mine").await.unwrap();
    assert!(lab.instance(id).unwrap().keys.is_empty() && keeps());
    own.user = Some(UserId::from_random([8; 16]));
    let mut tx = Tx::new();
    tx.put(&own);
    lab.control.store().commit(tx).await.unwrap();
    let member = Caller { role: Role::Member, ..lab.caller.clone() };
    assert!(lab.control.revoke_keypair(&member, "mine").await.unwrap().instances.is_empty() && keeps());
    lab.control.revoke_keypair(&lab.caller, "mine").await.unwrap();
    assert!(lab.instance(far.meta.id).unwrap().keys.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_takes_interfaces_while_it_runs_and_volumes_at_its_next_start() {
    let lab = Lab::new().await;
    let id = lab.create(pod("web")).await;
    lab.rest(id).await;
    lab.control.attach_port(&lab.caller, "web", &NicAsked::New(NewPort::default())).await.unwrap();
    add_volume(&lab).await;
    lab.control.attach_volume(&lab.caller, "web", "data", Some("/data".into()), false).await.unwrap();
    lab.supply().await;
    lab.rest(id).await;
    assert_eq!(has(&lab, id), (2, 0));
    assert_eq!(lab.host.count(Verb::AttachDisk, id), 0);
    lab.control.reboot_instance(&lab.caller, "web", false).await.unwrap();
    lab.rest(id).await;
    assert_eq!(has(&lab, id), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn another_size_comes_at_once_or_with_the_next_boot() {
    let lab = Lab::new().await;
    let size = NewSize { vcpus: Some(2), memory_mib: Some(768), cpu_weight: Some(300), ..NewSize::default() };
    for (new, name, at_once) in [(pod("web"), "web", true), (vm("db"), "db", false)] {
        let id = lab.create(new).await;
        lab.rest(id).await;
        let before = lab.status(id).unwrap().grant.expect("what it was started with");
        let wish = lab.control.resize_instance(&lab.caller, name, &size).await.unwrap().grant();
        lab.rest(id).await;
        let has = Grant { cpu_weight: 300, ..before };
        assert_eq!(lab.status(id).unwrap().grant, Some(if at_once { wish } else { has }), "{name}");
        assert_eq!(lab.host.boots(id), [1], "{name} runs on");
        let plan = lab.host.guest(id).unwrap().plan.unwrap();
        assert_eq!(Some(plan.grant()), lab.status(id).unwrap().grant, "{name}");

        lab.control.reboot_instance(&lab.caller, name, false).await.unwrap();
        lab.rest(id).await;
        assert_eq!(lab.status(id).unwrap().grant, Some(wish), "{name}");
        assert_eq!(lab.host.guest(id).unwrap().plan.unwrap().grant(), wish, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_grows_under_its_guest_and_before_a_start() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    let volume = add_volume(&lab).await;
    lab.control.attach_volume(&lab.caller, "db", "data", None, false).await.unwrap();
    lab.rest(id).await;
    lab.control.resize_volume(&lab.caller, "data", 3).await.unwrap();
    lab.rest(id).await;
    assert_eq!(lab.host.guest(id).unwrap().grown.get(&volume), Some(&(3 << 30)));
    assert_eq!(lab.host.guest(id).unwrap().grown.len(), 1, "and no other disk");
    lab.supply().await;
    let calls = lab.host.calls().len();
    lab.rest(id).await;
    let asked = lab.host.calls()[calls..].iter().filter(|call| call.verb == Verb::GrowDisk).count();
    assert_eq!(asked, 0, "it has its size");

    // While nobody has it open, it grows by its own loop; the guest waits for that.
    lab.control.stop_instance(&lab.caller, "db", false, None).await.unwrap();
    lab.rest(id).await;
    lab.control.resize_volume(&lab.caller, "data", 4).await.unwrap();
    lab.control.start_instance(&lab.caller, "db").await.unwrap();
    let daemon = lab.healthy().await;
    lab.run_once(&daemon, id).await.unwrap();
    assert_eq!(lab.status(id).unwrap().progress, "growing disks");
    assert_eq!(lab.host.boots(id), [1]);
    lab.supply().await;
    lab.rest(id).await;
    assert_eq!(lab.host.boots(id).len(), 2);
}

async fn freeze(lab: &Lab, name: &str) {
    let new = NewSnapshot { name: name.into(), volume: "data".into(), ..NewSnapshot::default() };
    lab.control.create_snapshot(&lab.caller, new).await.unwrap();
}

/// Where the guest writes what it puts on the volume.
fn top(lab: &Lab, id: InstanceId, volume: VolumeId) -> String {
    let guest = lab.host.guest(id).unwrap();
    let stacked = guest.stacked.get(&volume).cloned();
    let disk = guest.plan.unwrap().disks.into_iter().find(|disk| disk.volume == volume);
    let path = stacked.or(disk.map(|disk| disk.path)).unwrap_or_default();
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_disk_is_frozen_under_its_guest_wherever_the_daemon_dies() {
    for (point, guest_dies) in (0..).flat_map(|point| [(point, false), (point, true)]) {
        let lab = Lab::new().await;
        let id = lab.create(vm("db")).await;
        let volume = add_volume(&lab).await;
        lab.control.attach_volume(&lab.caller, "db", "data", None, false).await.unwrap();
        lab.rest(id).await;
        freeze(&lab, "first").await;
        lab.supply().await;
        assert_eq!(lab.control.volume_status(volume).unwrap().record.layer, 0, "the guest writes to 0");
        let daemon = lab.daemon(node::fake::Fuse::at(point)).await;
        let died = lab.drive_to_death(&daemon, id).await;
        drop(daemon);
        if guest_dies {
            lab.host.exit(id, 1);
        }
        lab.supply().await;
        let status = lab.control.volume_status(volume).unwrap().record.clone();
        if status.layer > 0 && !guest_dies {
            assert_eq!(
                top(&lab, id, volume),
                format!("{volume}.1.qcow2"),
                "point {point}: it is said to be frozen"
            );
        }
        if guest_dies {
            lab.rest(id).await;
            lab.control.start_instance(&lab.caller, "db").await.unwrap();
        }
        let daemon = lab.healthy().await;
        for _ in 0..3 {
            lab.run_once(&daemon, id).await.unwrap();
            lab.supply().await;
        }
        drop(daemon);
        lab.rest(id).await;
        assert_eq!(lab.phase(id), Phase::Running, "point {point}");
        assert_eq!(lab.control.volume_status(volume).unwrap().record.layer, 1, "point {point}");
        assert!(top(&lab, id, volume).ends_with(".1.qcow2"), "point {point}: {}", top(&lab, id, volume));
        if !died {
            assert!(point > 4, "{point} points are too few");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_freeze_that_fails_is_tried_again_and_one_before_a_start_needs_no_guest() {
    let lab = Lab::new().await;
    let id = lab.create(vm("db")).await;
    let volume = add_volume(&lab).await;
    lab.control.attach_volume(&lab.caller, "db", "data", None, false).await.unwrap();
    lab.rest(id).await;
    for (number, fault) in [Fault::FailBefore, Fault::FailAfter].into_iter().enumerate() {
        freeze(&lab, &format!("s{number}")).await;
        lab.supply().await;
        lab.host.script(Verb::StackDisk, fault);
        let daemon = lab.healthy().await;
        lab.run_once(&daemon, id).await.unwrap_err();
        assert_eq!(lab.status(id).unwrap().layers.get(&volume).copied().unwrap_or(0) as usize, number);
        lab.rest(id).await;
        lab.supply().await;
        assert_eq!(lab.control.volume_status(volume).unwrap().record.layer as usize, number + 1);
    }
    lab.control.stop_instance(&lab.caller, "db", true, None).await.unwrap();
    lab.rest(id).await;
    freeze(&lab, "stopped").await;
    lab.control.start_instance(&lab.caller, "db").await.unwrap();
    let daemon = lab.healthy().await;
    lab.run_once(&daemon, id).await.unwrap();
    assert_eq!(lab.status(id).unwrap().progress, "freezing disks");
    lab.supply().await;
    lab.rest(id).await;
    assert_eq!(top(&lab, id, volume), format!("{volume}.3.qcow2"));
}
