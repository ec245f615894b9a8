//! What is refused when an instance or something beside it is made: with the limit, the number asked for, and the way out.

use crate::{cloud, container};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use control::{
    Caller,
    address_scope::NewAddressScope,
    floating_ip::NewFloatingIp,
    image::NewImage,
    instance::NewInstance,
    snapshot::NewSnapshot,
    volume::{NewVolume, SourceAsked},
};
use model::{
    address_scope::AddressScope,
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

#[tokio::test]
async fn what_is_said_freely_of_a_record_has_its_limits_together() {
    use model::meta::{ALL_LABELS_BYTES_MAX, DESCRIPTION_BYTES_MAX, LABEL_BYTES_MAX};
    let (control, caller) = cloud().await;
    let scope = |name: &str, description: String, labels: Labels| NewAddressScope {
        name: name.into(),
        description,
        labels,
        ipv4: true,
        shared: false,
    };
    let labels = |number: usize| -> Labels {
        (0..number).map(|n| (format!("{n:02}"), "v".repeat(LABEL_BYTES_MAX - 2))).collect()
    };
    let fitting = ALL_LABELS_BYTES_MAX / LABEL_BYTES_MAX;
    let full = scope("full", "d".repeat(DESCRIPTION_BYTES_MAX), labels(fitting));
    let made = control.create_address_scope(&caller, full).await.unwrap();
    for (new, field) in [
        (scope("a", "d".repeat(DESCRIPTION_BYTES_MAX + 1), Labels::new()), "description"),
        (scope("b", String::new(), labels(fitting + 1)), "labels"),
    ] {
        let refused = control.create_address_scope(&caller, new).await.unwrap_err();
        assert_eq!((refused.code, refused.field.as_deref()), (Code::TooLarge, Some(field)), "{refused}");
    }
    // So for changes; and what an older version let in does not keep the rest from being changed.
    let widen = |scope: &mut AddressScope| {
        scope.meta.labels.insert("one".into(), "more".into());
        Ok(())
    };
    let refused = control.change::<AddressScope>(&caller, "full", widen).await.unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("labels"), "{refused}");
    let mut older = made.clone();
    older.meta.description = "d".repeat(DESCRIPTION_BYTES_MAX * 2);
    let mut tx = store::Tx::new();
    tx.put(&older);
    control.store().commit(tx).await.unwrap();
    let rename = |scope: &mut AddressScope| {
        scope.meta.name = "other".parse().unwrap();
        Ok(())
    };
    control.change::<AddressScope>(&caller, "full", rename).await.unwrap();
}

#[tokio::test]
async fn a_project_has_few_scopes_and_pools() {
    use model::address_scope::SCOPES_MAX;
    let (control, caller) = cloud().await;
    let scope = |n: u64| NewAddressScope { name: format!("s{n}"), ipv4: true, ..NewAddressScope::default() };
    for n in 0..SCOPES_MAX {
        control.create_address_scope(&caller, scope(n)).await.unwrap();
    }
    let refused = control.create_address_scope(&caller, scope(SCOPES_MAX)).await.unwrap_err();
    assert_eq!(refused.code, Code::QuotaExceeded);
    assert!(refused.message.contains(&SCOPES_MAX.to_string()), "{refused}");
    control.delete_address_scope(&caller, "s0").await.unwrap();
    control.create_address_scope(&caller, scope(SCOPES_MAX)).await.unwrap();
}

/// Whoever asks in vain, and how often and wordily: the history of others stays.
#[tokio::test]
async fn one_project_does_not_fill_the_history_of_others() {
    use control::event::OPERATIONS_MAX;
    use model::{error::Fault, operation::Operation};
    let (control, admin) = cloud().await;
    control.create_project(&admin, "loud", "", Labels::new()).await.unwrap();
    let loud =
        Caller { project: control.find_project(&admin, "loud").unwrap().record.meta.id, ..admin.clone() };
    control.note_operation(&admin, "create", "volume", "x", "quiet", None).await;
    let words = "w".repeat(100_000);
    let fault = Fault {
        code: Code::Invalid,
        message: words.clone(),
        hint: words.clone(),
        since: jiff::Timestamp::now(),
    };
    for _ in 0..2 * OPERATIONS_MAX + 10 {
        control.note_operation(&loud, "create", "volume", "", &words, Some(fault.clone())).await;
    }
    let kept = control.operations(&loud);
    assert!(kept.len() < OPERATIONS_MAX + 20, "{} are kept", kept.len());
    let bytes = serde_json::to_string(&kept[0].record).unwrap().len();
    assert!(bytes < 4_096, "{bytes} bytes of one");
    control.trim_history().await.unwrap();
    assert_eq!(control.store().mirror().count::<Operation>(), OPERATIONS_MAX);
    assert!(control.operations(&admin).iter().any(|o| o.record.name == "quiet"));
}
