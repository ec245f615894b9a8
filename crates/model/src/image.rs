//! Images: what instances start from. Disks of VMs, kernels and OCI images are one noun.

use crate::{
    error::Fault,
    health::HealthSpec,
    id::{ImageId, NodeId, ProjectId, SnapshotId, VolumeId},
    image_format::{ContainerFormat, FileFormat},
    image_reference::Reference,
    meta::Meta,
    plan::DiskFormat,
    quota::Resource,
    record::Record,
    volume::Ground,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most tags of one image.
pub const TAGS_MAX: usize = 128;
/// Longest tag in characters.
pub const TAG_CHARS_MAX: usize = 255;
/// Most projects that one image is shared with.
pub const MEMBERS_MAX: usize = 128;
/// Most bytes of a URL that an image is fetched from.
pub const URL_BYTES_MAX: usize = 2048;

/// An image, as the user wants it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Head.
    pub meta: Meta<ImageId>,
    /// What it is.
    pub kind: ImageKind,
    /// Who may use it.
    pub visibility: Visibility,
    /// Where its bytes come from.
    pub source: ImageSource,
    /// Architecture as Linux names it, like `x86_64`.
    pub arch: String,
    /// A kernel to boot instead of the disk's own boot loader.
    #[serde(default)]
    pub boot: Option<KernelBoot>,
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
    #[serde(default)]
    pub login: Option<String>,
    /// Further properties as OpenStack knows them.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// How often it was asked for anew: raised by users who want a pull that failed, or one that is old, done again now.
    #[serde(default)]
    pub asked: u64,
    /// Words that it can be found by.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// Left out of lists unless they ask for it; it can be used all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
    /// Withdrawn: nobody starts from it or gets its bytes until that is taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deactivated: bool,
    /// What its sender says the file is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_format: Option<FileFormat>,
    /// What its sender says the file is wrapped in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_format: Option<ContainerFormat>,
    /// Projects that it is shared with, while it is [`Visibility::Shared`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub members: BTreeMap<ProjectId, Member>,
    /// Its name need not be its own: others of its project may have the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub name_repeats: bool,
    /// Its reference is another image's now, or nobody's: docker shows it as `<none>`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untagged: bool,
    /// It is kept as a backup of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupOf>,
    /// It is a step of a build, for the next build that has the same: the cloud's own, which no list shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<BuildStep>,
    /// Where its registry may be.
    #[serde(default, skip_serializing_if = "Reach::is_public")]
    pub reach: Reach,
}

/// Where a registry may be that this cloud asks on somebody's behalf. Users choose the name of the registry and the host
/// asks: for users it must not knock at doors that only the host sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// At public addresses, and where the operator says.
    #[default]
    Public,
    /// Anywhere, this host included: an admin asked.
    Anywhere,
}

impl Reach {
    fn is_public(&self) -> bool {
        *self == Self::Public
    }
}

/// Most steps of builds that are kept in one project; the one that was used longest ago goes first.
pub const STEPS_MAX: usize = 512;
/// Most characters of what is told of a step.
pub const STEP_CHARS_MAX: usize = 200;

/// A step of a build: what an image was after one instruction of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildStep {
    /// SHA-256 in hex of all that it depends on: the step before, the instruction, what it copies.
    pub key: String,
    /// The build that is making it: it is nobody else's until that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// What it did, for people.
    pub what: String,
    /// When a build last had it.
    pub used_at: Timestamp,
    /// How many builds had it beside the one that made it.
    #[serde(default)]
    pub uses: u64,
}

/// The disk that an image is a backup of, as it was when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupOf {
    /// The volume, whose record may be gone.
    pub volume: VolumeId,
    /// The snapshot, if it was made of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// An instance could boot from the volume.
    pub bootable: bool,
}

impl Image {
    /// What it takes of its project's quota.
    pub fn resource(&self) -> Resource {
        if self.backup.is_some() { Resource::Backups } else { Resource::Images }
    }
}

/// A project that an image is shared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What that project thinks of it.
    pub answer: Answer,
    /// When it was shared.
    pub created_at: Timestamp,
    /// When the answer last changed.
    pub updated_at: Timestamp,
}

/// What a project says of an image that is shared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nothing yet.
    Pending,
    /// The image is in its lists.
    Accepted,
    /// It does not want to see it.
    Rejected,
}

impl Answer {
    /// Name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }
}

impl Image {
    /// Whether `project`, which does not own it, may use it: it need not be in that project's lists for that.
    pub fn is_open_to(&self, project: ProjectId) -> bool {
        match self.visibility {
            Visibility::Public | Visibility::Community => true,
            Visibility::Shared => self.members.contains_key(&project),
            Visibility::Private => false,
        }
    }

    /// Whether the lists of `project`, which does not own it, show it.
    pub fn is_listed_for(&self, project: ProjectId) -> bool {
        match self.visibility {
            Visibility::Public => true,
            Visibility::Shared => self.members.get(&project).is_some_and(|m| m.answer == Answer::Accepted),
            Visibility::Community | Visibility::Private => false,
        }
    }
}

/// What an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageKind {
    /// A disk of a VM.
    Disk,
    /// A Linux kernel. With `boot` set, a VM starts from it without a disk image.
    Kernel,
    /// An initial RAM disk.
    Initrd,
    /// An OCI image of a container.
    Oci,
    /// A root file system with an init, which system containers boot.
    System,
}

/// Who may use an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Its project.
    Private,
    /// Its project, and those it is shared with.
    Shared,
    /// Everyone who knows its id; it is in nobody's list.
    Community,
    /// Everyone.
    Public,
}

impl Visibility {
    /// Name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Shared => "shared",
            Self::Community => "community",
            Self::Public => "public",
        }
    }
}

/// Where an image's bytes come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ImageSource {
    /// Sent by the user; the node that took them holds them.
    Upload,
    /// Laid ready by the user before ([`ImageState::Staged`]): the node is to make an image of them now.
    Staged {
        /// The call that asked for it.
        asked: Asked,
    },
    /// A web server that the operator allows.
    Web {
        /// Address, `https://` or `http://`.
        url: String,
        /// The call that asked for it.
        asked: Asked,
    },
    /// A registry.
    Registry {
        /// Reference as docker spells it, with registry and tag or digest.
        reference: String,
    },
    /// A volume, as it was once.
    Volume {
        /// The volume.
        volume: VolumeId,
        /// What it held.
        ground: Ground,
        /// Size of the volume then, in GiB.
        size_gib: u64,
        /// Format that the image gets.
        format: DiskFormat,
    },
    /// What an OCI image's node has already: under another name, out of an archive, or what a container was.
    Content {
        /// Digest of the manifest.
        digest: String,
    },
}

/// The call that asked for an import. A fault that is older is not of this import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// When.
    pub at: Timestamp,
    /// Id of the request.
    pub request_id: String,
}

/// A kernel boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelBoot {
    /// Image of kind kernel.
    pub kernel: ImageId,
    /// Image of kind initrd.
    #[serde(default)]
    pub initrd: Option<ImageId>,
    /// Kernel command line.
    #[serde(default)]
    pub cmdline: String,
}

impl Record for Image {
    const TABLE: &'static str = "image";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}

/// An image, as the node that holds it sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageStatus {
    /// The image.
    pub id: ImageId,
    /// Node that writes this.
    pub node: NodeId,
    /// How far it is.
    pub state: ImageState,
    /// The last `Image::asked` that was tried.
    #[serde(default)]
    pub asked: u64,
    /// Why the last pull of an image that is here brought nothing new.
    #[serde(default)]
    pub stale: Option<Fault>,
    /// When this was written.
    pub at: Timestamp,
}

/// How far an image is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ImageState {
    /// Waits for its bytes.
    Waiting,
    /// The bytes lie ready, unlooked at, until the user asks for an image of them.
    Staged {
        /// How many.
        size_bytes: u64,
    },
    /// Bytes come in.
    Fetching {
        /// Bytes here.
        done_bytes: u64,
        /// Bytes in all; 0 while unknown.
        total_bytes: u64,
    },
    /// Can be used.
    Ready(ImageContent),
    /// Cannot be had.
    Failed(Fault),
}

/// What was found in an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageContent {
    /// `sha256:` and 64 hex digits: of the file, or of an OCI image's manifest.
    pub digest: String,
    /// Bytes as they were sent (OCI: compressed layers).
    pub size_bytes: u64,
    /// Bytes as guests see them (OCI: unpacked layers).
    pub virtual_bytes: u64,
    /// Format of the file that VMs stand on.
    #[serde(default)]
    pub format: Option<DiskFormat>,
    /// What an OCI image says of itself.
    #[serde(default)]
    pub oci: Option<OciContent>,
    /// What the file that was sent is, told by its content.
    #[serde(default)]
    pub sent_format: Option<FileFormat>,
    /// Further hashes of the file as it was sent; missing for what came from a registry.
    #[serde(default)]
    pub hashes: Option<Hashes>,
}

/// Hashes of a file in lower-case hex. The one to trust is SHA-512 (or the digest, SHA-256); MD5 is what older clients
/// compare a transfer by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    /// MD5, 32 digits.
    pub md5: String,
    /// SHA-512, 128 digits.
    pub sha512: String,
}

/// What an OCI image says of itself (OCI image specification, config.md).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OciContent {
    /// Digest of the config, docker's image id.
    pub config_digest: String,
    /// Digests of the unpacked layers, lowest first.
    pub diff_ids: Vec<String>,
    /// Program that arguments are given to.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// Arguments, or program and arguments.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// Environment as `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Working directory.
    #[serde(default)]
    pub working_dir: String,
    /// User.
    #[serde(default)]
    pub user: String,
    /// Ports that it listens on, like `80/tcp`.
    #[serde(default)]
    pub exposed_ports: Vec<String>,
    /// Directories that hold data.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// Signal that asks it to stop, like `SIGTERM`.
    #[serde(default)]
    pub stop_signal: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Architecture as OCI names it, like `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Operating system, like `linux`.
    #[serde(default)]
    pub os: String,
    /// When it was made, RFC 3339.
    #[serde(default)]
    pub created: String,
    /// How the health of its containers is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSpec>,
}

/// What an image is to one of its users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// An instance was started from it.
    StandsOn,
    /// A disk stands on its file, or a snapshot of such a disk.
    DiskOf,
    /// An image boots with it as its kernel or initrd.
    Boots,
    /// An image is being made of a disk that stands on it.
    Reads,
    /// It is another name of the same content.
    SameContent,
    /// It has all of its layers and more on top.
    BuiltOn,
    /// It has some of its layers.
    SharesLayers,
}

impl Hold {
    /// Whether the image cannot go because of it. Else it keeps files on the disk alone.
    pub fn is_firm(self) -> bool {
        match self {
            Self::StandsOn | Self::DiskOf | Self::Boots | Self::Reads => true,
            Self::SameContent | Self::BuiltOn | Self::SharesLayers => false,
        }
    }
}

/// What a status says that is out of date.
static WAITING: ImageState = ImageState::Waiting;

impl Image {
    /// What docker calls an OCI image, if it can.
    pub fn reference(&self) -> Option<Reference> {
        match &self.source {
            _ if self.untagged => None,
            ImageSource::Registry { reference } => reference.parse().ok(),
            _ => self.meta.name.as_str().parse().ok(),
        }
    }

    /// How far the image is. A failure that somebody asked to try again since is none any more.
    pub fn state<'a>(&self, status: Option<&'a ImageStatus>) -> &'a ImageState {
        let Some(status) = status else { return &WAITING };
        let ImageState::Failed(fault) = &status.state else { return &status.state };
        let is_told = match &self.source {
            ImageSource::Staged { asked } | ImageSource::Web { asked, .. } => fault.since >= asked.at,
            ImageSource::Upload
            | ImageSource::Registry { .. }
            | ImageSource::Volume { .. }
            | ImageSource::Content { .. } => status.asked >= self.asked,
        };
        if is_told { &status.state } else { &WAITING }
    }
}

impl ImageStatus {
    /// The content, once it is ready.
    pub fn content(&self) -> Option<&ImageContent> {
        match &self.state {
            ImageState::Ready(content) => Some(content),
            _ => None,
        }
    }
}

impl Record for ImageStatus {
    const TABLE: &'static str = "image_status";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn a_failure_counts_until_somebody_asks_anew() {
        let image = |asked: u64| -> Image {
            let uuid = "00000000-0000-0000-0000-000000000001";
            let meta = serde_json::json!({
                "id": uuid, "project": uuid, "name": "web", "created_at": "2026-01-01T00:00:00Z",
                "updated_at": "2026-01-01T00:00:00Z", "generation": 1,
            });
            let source = serde_json::json!({"type": "registry", "reference": "docker.io/library/web:latest"});
            serde_json::from_value(serde_json::json!({
                "meta": meta, "kind": "oci", "visibility": "private", "source": source, "arch": "x86_64",
                "asked": asked,
            }))
            .expect("an image")
        };
        let at = Timestamp::UNIX_EPOCH;
        let fault =
            Fault { code: Code::NotFound, message: "no such image".into(), hint: String::new(), since: at };
        let (id, node) = (ImageId::from_random([1; 16]), NodeId::from_random([1; 16]));
        let status = |state| ImageStatus { id, node, state, asked: 1, stale: None, at };
        let failed = status(ImageState::Failed(fault));
        assert_eq!(image(0).state(Some(&failed)), &failed.state);
        assert_eq!(image(1).state(Some(&failed)), &failed.state);
        assert_eq!(image(2).state(Some(&failed)), &ImageState::Waiting);
        assert_eq!(image(0).state(None), &ImageState::Waiting);
        // One that is here stays so while a newer one is looked for.
        let ready = status(ImageState::Ready(ImageContent::default()));
        assert_eq!(image(2).state(Some(&ready)), &ready.state);
    }
}
