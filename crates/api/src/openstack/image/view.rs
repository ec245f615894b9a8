//! Images as Glance shows them, and the properties that mean something to holm.
//!
//! ```text
//!   holm's field           property on the wire
//!   login                  os_admin_user
//!   uefi                   hw_firmware_type=uefi
//!   boot.kernel, .initrd   kernel_id, ramdisk_id         (where they name images of these kinds)
//!   boot.cmdline           os_command_line               (beside a kernel)
//!   arch                   architecture
//!   kind system            hypervisor_type=lxc or lxd    (a root file system in a tar, which a system container boots)
//! ```
//! So an image made on either door boots alike on both; all other properties are kept and shown as they were given.

use control::{Caller, Control};
use jiff::Timestamp;
use model::{
    id::ImageId,
    image::{Image, ImageContent, ImageKind, ImageSource, ImageState, ImageStatus, KernelBoot},
    image_format::{ContainerFormat, FileFormat},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const LOGIN: &str = "os_admin_user";
const FIRMWARE: &str = "hw_firmware_type";
const KERNEL: &str = "kernel_id";
const INITRD: &str = "ramdisk_id";
const CMDLINE: &str = "os_command_line";
const ARCH: &str = "architecture";
/// What Glance's property means by these words is a root file system and no disk.
const HYPERVISOR: &str = "hypervisor_type";
const CONTAINERS: [&str; 2] = ["lxc", "lxd"];

/// A time as Glance writes it: whole seconds, UTC.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// An image as Glance shows it.
pub fn view(control: &Control, image: &Image) -> Value {
    let status = control.image_status(image.meta.id);
    let status = status.as_ref().map(|s| &s.record);
    let content = status.and_then(ImageStatus::content);
    let id = image.meta.id.to_string();
    let path = format!("/v2/images/{id}");
    let mut all: Map<String, Value> =
        properties(image).into_iter().map(|(key, value)| (key, Value::from(value))).collect();
    let hashes = content.and_then(|c| c.hashes.as_ref());
    let own = json!({
        "id": id,
        "name": name(image),
        "status": status_word(image, status),
        "visibility": image.visibility.as_str(),
        "protected": image.protected,
        "os_hidden": image.hidden,
        "owner": image.meta.project.hex(),
        "disk_format": disk_format(image, content).map(FileFormat::as_str),
        "container_format": container_format(image, content).map(ContainerFormat::as_str),
        "min_disk": image.min_disk_gib,
        "min_ram": image.min_memory_mib,
        "size": content.map(|c| c.size_bytes),
        "virtual_size": content.map(|c| c.virtual_bytes),
        "checksum": hashes.map(|h| h.md5.as_str()),
        "os_hash_algo": hashes.map(|_| "sha512"),
        "os_hash_value": hashes.map(|h| h.sha512.as_str()),
        "created_at": time(image.meta.created_at),
        "updated_at": time(image.meta.updated_at),
        "tags": image.tags,
        "self": path,
        "file": format!("{path}/file"),
        "schema": "/v2/schemas/image",
    });
    if let Value::Object(own) = own {
        all.extend(own);
    }
    Value::Object(all)
}

/// Its name; an image that was made without one is called by its id here.
pub fn name(image: &Image) -> Option<&str> {
    let name = image.meta.name.as_str();
    (!image.name_repeats || name != image.meta.id.to_string()).then_some(name)
}

/// Glance's word for how far an image is. A failed upload waits for the next one.
pub fn status_word(image: &Image, status: Option<&ImageStatus>) -> &'static str {
    let imports = matches!(image.source, ImageSource::Staged { .. } | ImageSource::Web { .. });
    match image.state(status) {
        _ if image.meta.is_deleting() => "pending_delete",
        ImageState::Ready(_) if image.deactivated => "deactivated",
        ImageState::Ready(_) => "active",
        ImageState::Failed(_)
            if matches!(
                image.source,
                ImageSource::Registry { .. } | ImageSource::Volume { .. } | ImageSource::Content { .. }
            ) =>
        {
            "killed"
        }
        ImageState::Failed(_) => "queued",
        _ if imports => "importing",
        ImageState::Staged { .. } => "uploading",
        ImageState::Fetching { .. } => "saving",
        ImageState::Waiting => "queued",
    }
}

/// What its sender said, else what it is.
pub fn disk_format(image: &Image, content: Option<&ImageContent>) -> Option<FileFormat> {
    let found = || match image.kind {
        ImageKind::Kernel => Some(FileFormat::Aki),
        ImageKind::Initrd => Some(FileFormat::Ari),
        ImageKind::Oci | ImageKind::System => content.map(|_| FileFormat::Raw),
        ImageKind::Disk => content.and_then(|c| c.sent_format),
    };
    image.disk_format.or_else(found)
}

/// What its sender said, else what it is.
pub fn container_format(image: &Image, content: Option<&ImageContent>) -> Option<ContainerFormat> {
    let found = || match image.kind {
        ImageKind::Kernel => Some(ContainerFormat::Aki),
        ImageKind::Initrd => Some(ContainerFormat::Ari),
        ImageKind::Oci => Some(ContainerFormat::Docker),
        ImageKind::Disk | ImageKind::System => content.map(|_| ContainerFormat::Bare),
    };
    image.container_format.or_else(found)
}

/// What kind of image these formats and properties stand for.
pub fn kind(
    disk: Option<FileFormat>,
    container: Option<ContainerFormat>,
    properties: &BTreeMap<String, String>,
) -> ImageKind {
    let is_root = properties.get(HYPERVISOR).is_some_and(|word| CONTAINERS.contains(&word.as_str()));
    match (container, disk) {
        (Some(ContainerFormat::Docker), _) => ImageKind::Oci,
        (Some(ContainerFormat::Aki), _) | (_, Some(FileFormat::Aki)) => ImageKind::Kernel,
        (Some(ContainerFormat::Ari), _) | (_, Some(FileFormat::Ari)) => ImageKind::Initrd,
        _ if is_root => ImageKind::System,
        _ => ImageKind::Disk,
    }
}

/// All properties, those that are fields of holm's included.
pub fn properties(image: &Image) -> BTreeMap<String, String> {
    let mut all = image.properties.clone();
    if let Some(login) = &image.login {
        all.insert(LOGIN.into(), login.clone());
    }
    if image.uefi {
        all.insert(FIRMWARE.into(), "uefi".into());
    }
    if image.kind == ImageKind::System {
        all.entry(HYPERVISOR.into()).or_insert_with(|| CONTAINERS[0].into());
    }
    if let Some(boot) = image.boot.as_ref().filter(|boot| boot.kernel != image.meta.id) {
        all.insert(KERNEL.into(), boot.kernel.to_string());
        if let Some(initrd) = boot.initrd {
            all.insert(INITRD.into(), initrd.to_string());
        }
        if !boot.cmdline.is_empty() {
            all.insert(CMDLINE.into(), boot.cmdline.clone());
        }
    }
    all
}

/// Gives an image these properties, and its fields what they mean.
pub fn set_properties(control: &Control, caller: &Caller, image: &mut Image, all: BTreeMap<String, String>) {
    let mut rest = all;
    image.login = rest.remove(LOGIN);
    image.uefi = rest.get(FIRMWARE).is_some_and(|word| word == "uefi");
    if image.uefi {
        rest.remove(FIRMWARE);
    }
    if image.kind == ImageKind::System && rest.get(HYPERVISOR).is_some_and(|word| word == CONTAINERS[0]) {
        rest.remove(HYPERVISOR);
    }
    image.arch = rest.get(ARCH).cloned().unwrap_or_else(|| std::env::consts::ARCH.to_string());
    let of_kind = |key: &str, kind: ImageKind| -> Option<ImageId> {
        let id: ImageId = rest.get(key)?.parse().ok()?;
        let found = control.find::<Image>(caller, &id.to_string()).ok()?;
        (found.record.kind == kind).then_some(id)
    };
    let (kernel, initrd) = (of_kind(KERNEL, ImageKind::Kernel), of_kind(INITRD, ImageKind::Initrd));
    match (kernel, image.kind) {
        (Some(kernel), _) => {
            rest.remove(KERNEL);
            if initrd.is_some() {
                rest.remove(INITRD);
            }
            image.boot =
                Some(KernelBoot { kernel, initrd, cmdline: rest.remove(CMDLINE).unwrap_or_default() });
        }
        (None, ImageKind::Kernel) => {
            let kernel = image.meta.id;
            image.boot = Some(KernelBoot { kernel, initrd: None, cmdline: String::new() });
        }
        (None, _) => image.boot = None,
    }
    image.properties = rest;
}
