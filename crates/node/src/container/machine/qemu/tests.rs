//! The golden command lines of pods' machines, and what their guests are told.

use super::*;
use crate::{
    container::{
        bundle::{Source, tests::example},
        machine::order::{DiskRole, order},
    },
    vm::argv::tests as plans,
};
use model::plan::{DiskFormat, DiskPlan};

fn disk(number: u32, serial: &str, role: DiskRole) -> MachineDisk {
    let disk = DiskPlan {
        path: format!("/disks/{serial}").into(),
        format: DiskFormat::Raw,
        backing: vec![],
        read_only: matches!(role, DiskRole::Base { .. }),
        serial: serial.into(),
        boot_index: None,
        ..plans::disk(number)
    };
    MachineDisk { disk, role }
}

pub(in crate::container) fn machine() -> Machine {
    Machine {
        program: "/usr/bin/qemu-system-x86_64".into(),
        machine_type: "pc-q35-7.2".into(),
        cpu_model: "max,la57=off".into(),
        accelerator: Accelerator::Tcg,
        acceleration: String::new(),
        kvm_group: Some(104),
        limits: Default::default(),
        vhost_net: false,
        vcpus: 2,
        memory_mib: 352,
        overhead_mib: 96,
        kernel: "/boot/vmlinuz".into(),
        initramfs: "/state/initramfs".into(),
        disks: vec![
            disk(1, "base-0", DiskRole::Base { containers: vec!["web".into()] }),
            disk(2, "root", DiskRole::Root),
            disk(3, "volume", DiskRole::Volume),
        ],
        nics: vec![plans::nic(10)],
        maintenance: false,
    }
}

fn text(machine: &Machine) -> String {
    let launch = compile(&example(), machine);
    let mut text = String::new();
    for argument in &launch.arguments {
        text.push_str(if argument.starts_with('-') { "\n" } else { " " });
        text.push_str(argument);
    }
    for (number, purpose) in launch.inherited.iter().enumerate() {
        text.push_str(&format!("\n{} {purpose:?}", FIRST_DESCRIPTOR + number as i32));
    }
    text
}

#[test]
fn command_line_emulated() {
    insta::assert_snapshot!(text(&machine()));
}

#[test]
fn kvm_has_its_own_processor_and_protections() {
    let text = text(&Machine {
        accelerator: Accelerator::Kvm,
        cpu_model: "host".into(),
        vhost_net: true,
        ..machine()
    });
    assert!(text.contains("-accel kvm\n-cpu host"));
    assert!(text.contains("vhost=on,vhostfd=") && !text.contains("mitigations"));
}

#[test]
fn the_largest_pod_has_a_place_for_every_device() {
    let mut machine = machine();
    let base =
        |number: usize| disk(number as u32, &format!("base-{number}"), DiskRole::Base { containers: vec![] });
    machine.disks = (0..CONTAINERS_MAX).map(base).collect();
    machine.disks.push(disk(100, "root", DiskRole::Root));
    let volume = |number: usize| disk(200 + number as u32, &format!("v{number}"), DiskRole::Volume);
    machine.disks.extend((0..VOLUMES_MAX).map(volume));
    machine.nics = (0..PORTS_MAX as u32).map(plans::nic).collect();
    let launch = compile(&example(), &machine);
    let devices = launch.arguments.iter().filter_map(|it| serde_json::from_str::<Value>(it).ok());
    let (cards, others): (Vec<Value>, Vec<Value>) = devices.partition(|it| it["driver"] == "virtio-net-pci");
    let at = |it: &Value| format!("{} {}", it["bus"], it["addr"]);
    let ports: std::collections::BTreeSet<String> = cards.iter().map(at).collect();
    assert_eq!(ports.len(), PORTS_MAX, "each card can be plugged out alone");
    let placed: Vec<Value> = others.into_iter().filter(|it| it["bus"] == ROOT_BUS).collect();
    assert_eq!(
        placed.len(),
        OWN_DEVICES + CONTAINERS_MAX + 1 + VOLUMES_MAX + device::nic_buses(NIC_SLOT).len()
    );
    let places: std::collections::BTreeSet<String> =
        placed.iter().map(|it| it["addr"].as_str().expect("it has one").to_string()).collect();
    assert_eq!(places.len(), placed.len());
    for device in &placed {
        let (slot, function) = device["addr"].as_str().unwrap().split_once('.').unwrap();
        let slot = usize::from_str_radix(slot.trim_start_matches("0x"), 16).unwrap();
        assert!((NIC_SLOT..FIRST_SLOT + SLOTS).contains(&slot), "{device}");
        let driver = device["driver"].as_str().unwrap();
        assert_eq!(slot == NIC_SLOT, matches!(driver, "pcie-root-port" | "pcie-pci-bridge"), "{device}");
        assert_eq!(device["multifunction"] == true, function == "0x0", "{device}");
    }
}

#[test]
fn a_guest_is_told_nothing_of_this_host() {
    let mut pod = example();
    let web = &mut pod.containers[0];
    web.upper = "/state/instances/1/web.2".into();
    for mount in &mut web.mounts {
        if let Source::Bind { path, .. } = &mut mount.source {
            *path = "/disks/volume".into();
        }
    }
    let shown = bind_of(&pod, "/run/files/config/app.conf");
    pod.containers[0].mounts.push(shown);
    pod.root_disk = Some("/state/root.ext4".into());
    let machine = machine();
    pod.machine = Some(machine.clone());
    let order = order(&pod, &machine, vec![], 5);
    let web = &order.pod.containers[0];
    assert_eq!(web.layers, [PathBuf::from("/run/holm/base/web")]);
    assert_eq!(web.upper, PathBuf::from("/run/holm/root/web.2"));
    let sources: Vec<_> = web
        .mounts
        .iter()
        .filter_map(|it| if let Source::Bind { path, .. } = &it.source { path.to_str() } else { None })
        .collect();
    assert_eq!(sources, ["/run/holm/volumes/volume", "/run/holm/pod/files/config/app.conf"]);
    assert_eq!(order.pod.limits.memory_max_bytes, pod.limits.memory_max_bytes);
    let told = serde_json::to_string(&order.pod).unwrap();
    assert!(order.pod.machine.is_none() && order.pod.root_disk.is_none());
    for word in ["/state", "/disks", "/layers", "/run/netns"] {
        assert!(!told.contains(&format!("\"{word}")), "{word} is told");
    }
}

fn bind_of(pod: &Pod, path: &str) -> crate::container::bundle::Mount {
    let mut mount = pod.containers[0].mounts[0].clone();
    mount.source = Source::Bind { path: path.into(), part: None, group: None };
    mount
}
