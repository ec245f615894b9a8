//! The golden command lines of pods' machines, and what their guests are told.

use super::*;
use crate::container::{
    bundle::{Source, tests::example},
    machine::order::{DiskRole, order},
};
use model::plan::{DiskFormat, DiskPlan, NicPlan};

fn disk(number: u32, serial: &str, role: DiskRole) -> MachineDisk {
    let read_only = matches!(role, DiskRole::Base { .. });
    let disk = DiskPlan {
        volume: format!("00000000-0000-4000-8000-{number:012x}").parse().unwrap(),
        path: format!("/disks/{serial}").into(),
        format: DiskFormat::Raw,
        backing: vec![],
        read_only,
        serial: serial.into(),
        boot_index: None,
        mount_path: None,
    };
    MachineDisk { disk, role }
}

fn machine() -> Machine {
    let nic = NicPlan {
        port: "00000000-0000-4000-8000-00000000000a".parse().unwrap(),
        device: "t1".into(),
        netns: "/run/netns/n".into(),
        mac: "fa:16:3e:00:00:01".parse().unwrap(),
        mtu: 1450,
        addresses: vec![],
        ranges_v6: vec![],
        gateway_v4: None,
        gateway_v6: None,
        dns: vec![],
        search: vec![],
    };
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
        nics: vec![nic],
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
