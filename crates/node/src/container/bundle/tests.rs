//! The golden file of a pod, and plans that are refused.

use super::*;
use model::{
    address::Mac,
    id::{PortId, ProjectId, VolumeId},
    plan::{DiskFormat, DiskPlan, MountPlan, PodPlan},
};

fn container(name: &str) -> ContainerPlan {
    ContainerPlan {
        name: name.into(),
        layers: vec!["/layers/a".into(), "/layers/b".into()],
        argv: vec!["/bin/server".into(), "-v".into()],
        env: vec![("PATH".into(), "/bin".into()), ("COLOUR".into(), "blue".into())],
        secret_env: Default::default(),
        cwd: "/srv".into(),
        user: "web".into(),
        tty: false,
        terminal_size: None,
        stdin_open: false,
        restart: RestartPolicy::OnFailure { retries_max: 3 },
        stop_signal: 15,
        grace_s: 10,
        mounts: vec![MountPlan {
            target: "/tmp".into(),
            source: MountSource::Tmpfs { size_bytes: 1 << 20 },
            read_only: false,
        }],
        read_only_rootfs: true,
        cap_add: vec!["NET_ADMIN".into()],
        cap_drop: vec!["CAP_MKNOD".into()],
        memory_mib: Some(64),
        cpu_millis: Some(500),
        ulimits: Default::default(),
        log: LogLimits::default(),
        upper: "/state/upper".into(),
        labels: Default::default(),
        system: None,
        role: Default::default(),
        lifecycle: Default::default(),
        groups: vec![],
        init: false,
        shm_bytes: None,
    }
}

/// A pod of one container, for tests elsewhere.
pub(in crate::container) fn example() -> Pod {
    let places = Places {
        state: "/state".into(),
        run: "/run".into(),
        netns: "/run/netns/i-1".into(),
        cgroup_root: "holm".into(),
        cgroup: "i-1".into(),
    };
    bundle(&plan(vec![container("web")]), places).unwrap()
}

fn plan(containers: Vec<ContainerPlan>) -> InstancePlan {
    InstancePlan {
        id: InstanceId::from_random([1; 16]),
        project: ProjectId::from_random([2; 16]),
        boot: 7,
        name: "Web".into(),
        hostname: "web".into(),
        id_range: IdRange { base: 1_000_000, count: 65536 },
        vcpus: 2,
        memory_mib: 256,
        cpu_weight: 100,
        pids_max: 512,
        nics: vec![NicPlan {
            port: PortId::from_random([3; 16]),
            device: "p-1".into(),
            netns: "/run/netns/n-1".into(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            addresses: vec!["10.0.0.5/24".parse().unwrap(), "fd00::5/64".parse().unwrap()],
            ranges_v6: vec![],
            gateway_v4: Some("10.0.0.1".parse().unwrap()),
            gateway_v6: Some("fe80::1".parse().unwrap()),
            dns: vec!["10.0.0.2".parse().unwrap(), "10.0.0.2".parse().unwrap()],
            search: vec!["p1.internal".into()],
        }],
        disks: vec![DiskPlan {
            volume: VolumeId::from_random([4; 16]),
            path: "/volumes/data".into(),
            format: DiskFormat::Raw,
            backing: vec![],
            read_only: false,
            serial: "x".into(),
            boot_index: None,
            mount_path: Some("/var/lib/data".into()),
        }],
        body: Body::Pod(PodPlan {
            containers,
            extra_hosts: vec![("10.0.0.9".parse().unwrap(), "db".into())],
            root_disk: None,
            files: vec![],
            shared: Default::default(),
            isolation: Default::default(),
        }),
    }
}

fn places() -> Places {
    Places {
        state: "/state/pods/1".into(),
        run: "/run/pods/1".into(),
        netns: "/run/netns/i-1".into(),
        cgroup_root: "holm".into(),
        cgroup: "i-1".into(),
    }
}

#[test]
fn a_pod_with_all_its_defaults() {
    insta::assert_json_snapshot!(bundle(&plan(vec![container("web")]), places()).expect("a valid plan"));
}

#[test]
fn plans_that_are_refused() {
    let with = |change: fn(&mut ContainerPlan)| {
        let mut it = container("web");
        change(&mut it);
        bundle(&plan(vec![it]), places()).map(|_| ()).expect_err("refused").to_string()
    };
    for (text, part) in [
        (with(|it| it.name = "../x".into()), "cannot name a container"),
        (with(|it| it.name = String::new()), "cannot name a container"),
        (with(|it| it.argv.clear()), "has no program"),
        (with(|it| it.cwd = "srv".into()), "must be an absolute path"),
        (with(|it| it.mounts[0].target = "/a/../../b".into()), "must be an absolute path"),
        (with(|it| it.mounts[0].target = "/".into()), "must be an absolute path"),
        (with(|it| it.cap_add = vec!["FLY".into()]), "container \"web\""),
    ] {
        assert!(text.contains(part), "{text}");
    }
    let two = bundle(&plan(vec![container("a"), container("a")]), places());
    assert_eq!(two.map(|_| ()), Err(BundleError::SameName("a".into())));
    assert_eq!(bundle(&plan(vec![]), places()).map(|_| ()), Err(BundleError::Containers(0)));
}

#[test]
fn a_system_with_all_its_defaults() {
    let it = ContainerPlan {
        argv: vec![],
        env: vec![("COLOUR".into(), "blue".into())],
        cwd: "/".into(),
        user: String::new(),
        stop_signal: 0,
        mounts: vec![],
        read_only_rootfs: false,
        cap_add: vec![],
        cap_drop: vec![],
        system: Some(SystemPlan {
            keys: vec!["ssh-ed25519 AAAA me".into()],
            login: "root".into(),
            machine_id: "0123456789abcdef0123456789abcdef".into(),
        }),
        ..container("box")
    };
    let pod = bundle(&plan(vec![it]), places()).expect("a valid plan");
    assert!(pod.is_system() && !pod.confinement().contains("no new privileges"));
    insta::assert_json_snapshot!(pod);
}
