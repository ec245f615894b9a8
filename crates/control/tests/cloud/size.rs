//! Sizes of containers: what their disk costs, and what it can become.

use crate::{cloud, container};
use control::instance::resize::NewSize;
use model::{error::Code, instance::Instance, quota::Resource};

#[tokio::test]
async fn the_disk_of_a_container_is_charged_grows_and_never_shrinks() {
    let (control, caller) = cloud().await;
    let used = || control.quota(caller.project).1.of(Resource::VolumeGib);
    let mut new = container("web");
    new.disk_gib = Some(3);
    let made: Instance = control.create_instance(&caller, new).await.unwrap();
    assert_eq!((made.size.disk_gib, made.grant().disk_gib, used()), (3, 3, 3));
    let disk = |gib| NewSize { disk_gib: Some(gib), ..NewSize::default() };
    let grown = control.resize_instance(&caller, "web", &disk(5)).await.unwrap();
    assert_eq!((grown.size.disk_gib, grown.size.memory_mib, used()), (5, made.size.memory_mib, 5));
    let refused = control.resize_instance(&caller, "web", &disk(4)).await.unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (Code::Invalid, Some("disk_gib")), "{refused}");
    assert!(refused.message.contains("5 GiB"), "{refused}");
    // More than the project may have is refused, and changes nothing.
    control.set_quota(&caller, "default", &[(Resource::VolumeGib, Some(6))]).await.unwrap();
    let refused = control.resize_instance(&caller, "web", &disk(7)).await.unwrap_err();
    assert_eq!((refused.code, used()), (Code::QuotaExceeded, 5), "{refused}");

    control.create_instance(&caller, container("free")).await.unwrap();
    assert_eq!(used(), 5, "without a limit nothing is charged");
    let refused = control.resize_instance(&caller, "free", &disk(1)).await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict, "{refused}");
    assert!(refused.hint.contains("--disk"), "{}", refused.hint);
}
