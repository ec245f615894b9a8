//! What is refused when an instance or something beside it is made: with the limit, the number asked for, and the way out.

use crate::{cloud, container};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use control::{
    floating_ip::NewFloatingIp,
    image::NewImage,
    instance::NewInstance,
    snapshot::NewSnapshot,
    volume::{NewVolume, SourceAsked},
};
use model::{
    error::Code,
    image::ImageKind,
    instance::{Instance, Kind},
    meta::Labels,
    metadata::USER_DATA_BYTES_MAX,
    quota::Resource,
};

#[tokio::test]
async fn user_data_ends_at_its_limit() {
    let (control, caller) = cloud().await;
    let with = |name: &str, bytes: usize| NewInstance {
        user_data_base64: Some(STANDARD.encode(vec![b'#'; bytes])),
        ..container(name)
    };
    control.create_instance(&caller, with("fits", USER_DATA_BYTES_MAX)).await.unwrap();
    let refused = control.create_instance(&caller, with("no", USER_DATA_BYTES_MAX + 1)).await.unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (Code::TooLarge, Some("user_data")));
    for number in [USER_DATA_BYTES_MAX, USER_DATA_BYTES_MAX + 1] {
        assert!(refused.message.contains(&number.to_string()), "{refused}");
    }
    let garbled = NewInstance { user_data_base64: Some("%".into()), ..container("no") };
    let refused = control.create_instance(&caller, garbled).await.unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (Code::Invalid, Some("user_data")));
    assert_eq!(control.list::<Instance>(&caller).len(), 1);
}

#[tokio::test]
async fn a_disk_of_another_architecture_is_no_machine_here() {
    let (control, caller) = cloud().await;
    let image = NewImage { arch: Some("riscv64".into()), ..NewImage::to_be_sent("far", ImageKind::Disk) };
    control.create_image(&caller, image).await.unwrap();
    let mut vm = container("vm");
    (vm.kind, vm.image, vm.flavor) = (Kind::Vm, Some("far".into()), Some("g1.c1m512".into()));
    vm.containers.clear();
    let refused = control.create_instance(&caller, vm).await.unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (Code::Invalid, Some("image")), "{refused}");
    assert!(
        refused.message.contains("riscv64") && refused.message.contains(std::env::consts::ARCH),
        "{refused}"
    );
    assert!(!refused.hint.is_empty());
}

#[tokio::test]
async fn quotas_of_floating_ips_and_snapshots_refuse_with_all_numbers() {
    let (control, caller) = cloud().await;
    let limits = [(Resource::FloatingIps, Some(2)), (Resource::Snapshots, Some(1))];
    control.set_quota(&caller, "default", &limits).await.unwrap();
    let volume = NewVolume {
        name: "data".into(),
        description: String::new(),
        size_gib: Some(1),
        thick: false,
        kind: None,
        source: SourceAsked::default(),
        labels: Labels::new(),
    };
    control.create_volume(&caller, volume).await.unwrap();
    let floating = || control.create_floating_ip(&caller, NewFloatingIp::default());
    let snapshot = || {
        let new = NewSnapshot {
            name: String::new(),
            description: String::new(),
            volume: "data".into(),
            labels: Labels::new(),
        };
        control.create_snapshot(&caller, new)
    };
    for _ in 0..2 {
        floating().await.unwrap();
    }
    snapshot().await.unwrap();
    for (refused, limit, way_out) in
        [(floating().await.unwrap_err(), 2, "floating-ip"), (snapshot().await.unwrap_err(), 1, "snapshot")]
    {
        assert_eq!(refused.code, Code::QuotaExceeded, "{refused}");
        let words: Vec<&str> = refused.message.split(|c: char| !c.is_ascii_digit()).collect();
        assert!(words.contains(&limit.to_string().as_str()) && words.contains(&"1"), "{refused}");
        assert!(refused.hint.contains(way_out), "{}", refused.hint);
    }
    assert_eq!(control.quota(caller.project).1.of(Resource::FloatingIps), 2);
    assert_eq!(control.quota(caller.project).1.of(Resource::Snapshots), 1);
}
