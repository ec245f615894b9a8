//! Images on the wire.

use super::{
    Fault, Head, Reference,
    patch::{LabelChanges, nullable},
    schema,
};
use model::{
    image::{Answer, Hold, ImageKind, Visibility},
    image_format::{ContainerFormat, FileFormat},
    meta::Labels,
    plan::DiskFormat,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// What instances start from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// Head.
    #[serde(flatten)]
    pub head: Head,
    /// What it is.
    #[schema(value_type = schema::ImageKind)]
    pub kind: ImageKind,
    /// Who may use it.
    #[schema(value_type = schema::Visibility)]
    pub visibility: Visibility,
    /// Where in a registry it comes from; missing when its bytes are uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Architecture as Linux names it, like `x86_64`.
    pub arch: String,
    /// A kernel to boot instead of the disk's own boot loader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<KernelBoot>,
    /// UEFI rather than BIOS.
    pub uefi: bool,
    /// Least root disk in GiB.
    pub min_disk_gib: u64,
    /// Least memory in MiB.
    pub min_memory_mib: u64,
    /// Cannot be deleted while set.
    pub protected: bool,
    /// User that the image lets in by SSH, like `debian`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Further properties.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// Words that it can be found by.
    #[serde(default)]
    pub tags: BTreeSet<String>,
    /// Left out of lists unless they ask for it.
    #[serde(default)]
    pub hidden: bool,
    /// Withdrawn: nobody starts from it or gets its bytes.
    #[serde(default)]
    pub deactivated: bool,
    /// What its sender says the file is: `raw`, `qcow2`, `vmdk`, `vdi`, `vhdx`, `vhd`, `iso`, `ploop`, `ami`, `ari`, `aki`.
    /// What it is, is told by its content alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub disk_format: Option<FileFormat>,
    /// What its sender says the file is wrapped in: `bare`, `ovf`, `ova`, `docker`, `ami`, `ari`, `aki`, `compressed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub container_format: Option<ContainerFormat>,
    /// Address on the web that it is fetched from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// How far it is.
    pub state: ImageState,
    /// How many bytes came, while they come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What was found in it, once it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ImageContent>,
    /// Why it cannot be had; of one that is ready, why the last look for a newer one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// How far an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    /// Waits for its bytes.
    Waiting,
    /// Its bytes lie ready for an import.
    Staged,
    /// Bytes come in.
    Fetching,
    /// Can be used.
    Ready,
    /// Cannot be had.
    Failed,
    /// It is going.
    Deleting,
}

impl ImageState {
    /// Name on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Staged => "staged",
            Self::Fetching => "fetching",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        }
    }
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Bytes here.
    pub done_bytes: u64,
    /// Bytes in all; 0 while unknown.
    pub total_bytes: u64,
}

/// A kernel boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KernelBoot {
    /// Image of kind kernel.
    pub kernel: Reference,
    /// Image of kind initrd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<Reference>,
    /// Kernel command line.
    pub cmdline: String,
}

/// What was found in an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ImageContent {
    /// `sha256:` and 64 hex digits: of the file, or of an OCI image's manifest.
    pub digest: String,
    /// Bytes as they were sent.
    pub size_bytes: u64,
    /// Bytes as guests see them.
    pub virtual_bytes: u64,
    /// Format of the file that VMs stand on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::DiskFormat>)]
    pub format: Option<DiskFormat>,
    /// What an OCI image says of itself (OCI image specification, config.md): `entrypoint`, `cmd`, `env`,
    /// `working_dir`, `user`, `exposed_ports`, `volumes`, `config_digest`, `diff_ids` and more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub oci: Option<model::image::OciContent>,
    /// What the file that was sent is, told by its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub sent_format: Option<FileFormat>,
    /// MD5 of the file as it was sent, in hex; only to compare transfers by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<String>,
    /// SHA-512 of the file as it was sent, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha512: Option<String>,
}

/// A project that an image is shared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageMember {
    /// The project. Its name is told to those who may see it.
    pub project: Reference,
    /// What it says of the image.
    #[schema(value_type = schema::Answer)]
    pub answer: Answer,
    /// When the image was shared.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
    /// When the answer last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: jiff::Timestamp,
}

/// What a project says of an image that is shared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerShare {
    /// `accepted` puts it into the project's lists.
    #[schema(value_type = schema::Answer)]
    pub answer: Answer,
}

/// Who uses an image, and what its end would free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageUsers {
    /// What stands on it, and what has layers of it.
    pub users: Vec<ImageUser>,
    /// Bytes on the disk that nothing else in `users` needs: they come free when the image goes. Of images of containers and
    /// systems the unpacked layers; of others the file.
    pub own_bytes: u64,
    /// Bytes that stay when it goes, since others in `users` have them.
    pub shared_bytes: u64,
}

/// One that uses an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageUser {
    /// `instance`, `volume`, `snapshot`, `image`, or `build step` for what the build cache keeps.
    pub noun: String,
    /// How it uses the image.
    #[schema(value_type = schema::Hold)]
    pub hold: Hold,
    /// The image cannot be deleted because of it.
    pub firm: bool,
    /// Its id; missing for what belongs to another project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<uuid::Uuid>,
    /// Its name, or what a build step did; empty for what belongs to another project.
    pub name: String,
    /// Its project, if that is the caller's to see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Reference>,
    /// How many layers it has in common with the image.
    pub layers: u64,
}

/// A further name for the content of an OCI image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TagImage {
    /// The name, as docker spells it; another image that has it loses it.
    pub name: String,
}

/// An import of an image's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "from")]
pub enum ImportImage {
    /// From where they lie ready, after a PUT to `/v1/images/{ref}/stage`.
    Staged,
    /// From a web server, if the operator allows its host.
    Web {
        /// Its address, `https://` or `http://`.
        url: String,
    },
}

/// A new image: with `reference` it is pulled from a registry, without one its bytes are sent to
/// `/v1/images/{id}/content`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateImage {
    /// Name. May be missing when `reference` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Labels.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// What it is. `oci` when `reference` is given, else `disk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::ImageKind>)]
    pub kind: Option<ImageKind>,
    /// Where in a registry it comes from, as docker spells it: `debian:12`, `localhost:5000/web@sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Who may use it; `public` needs the role admin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Visibility>)]
    pub visibility: Option<Visibility>,
    /// Architecture as Linux names it; this host's when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// A kernel to boot instead of the disk's own boot loader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<KernelBootRequest>,
    /// UEFI rather than BIOS.
    #[serde(default)]
    pub uefi: bool,
    /// Least root disk in GiB.
    #[serde(default)]
    pub min_disk_gib: u64,
    /// Least memory in MiB.
    #[serde(default)]
    pub min_memory_mib: u64,
    /// Cannot be deleted while set.
    #[serde(default)]
    pub protected: bool,
    /// User that the image lets in by SSH, like `debian`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Further properties.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// Words that it can be found by.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// Left out of lists unless they ask for it.
    #[serde(default)]
    pub hidden: bool,
    /// What the file will be, as its sender says. Nothing follows from it but what is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub disk_format: Option<FileFormat>,
    /// What the file will be wrapped in, as its sender says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub container_format: Option<ContainerFormat>,
}

impl CreateImage {
    /// An image of a registry, by its reference.
    pub fn of_registry(reference: &str) -> Self {
        Self {
            name: None,
            description: String::new(),
            labels: Labels::new(),
            kind: None,
            reference: Some(reference.to_string()),
            visibility: None,
            arch: None,
            boot: None,
            uefi: false,
            min_disk_gib: 0,
            min_memory_mib: 0,
            protected: false,
            login: None,
            properties: BTreeMap::new(),
            tags: BTreeSet::new(),
            hidden: false,
            disk_format: None,
            container_format: None,
        }
    }
}

/// A kernel boot that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelBootRequest {
    /// Image of kind kernel; an image that is a kernel itself needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Image of kind initrd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<String>,
    /// Kernel command line.
    #[serde(default)]
    pub cmdline: String,
}

/// Changes to an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateImage {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Labels to set; `null` removes one.
    #[serde(skip_serializing_if = "LabelChanges::is_empty")]
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    pub labels: LabelChanges,
    /// Who may use it; `public` needs the role admin.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Visibility>)]
    pub visibility: Option<Visibility>,
    /// Least root disk in GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_disk_gib: Option<u64>,
    /// Least memory in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_memory_mib: Option<u64>,
    /// Cannot be deleted while set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protected: Option<bool>,
    /// User that the image lets in by SSH; `null` for none.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub login: Option<Option<String>>,
    /// Properties to set; `null` removes one.
    #[serde(skip_serializing_if = "LabelChanges::is_empty")]
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    pub properties: LabelChanges,
    /// Tags to add.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub add_tags: BTreeSet<String>,
    /// Tags to take away.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub remove_tags: BTreeSet<String>,
    /// Left out of lists unless they ask for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<bool>,
}
