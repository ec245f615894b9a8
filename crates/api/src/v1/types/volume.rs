//! Volumes on the wire.

use super::{Fault, Head, Reference, patch::LabelChanges, schema};
use model::{meta::Labels, plan::DiskFormat};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A disk of a VM or a directory of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volume {
    /// Head.
    #[serde(flatten)]
    pub head: Head,
    /// Size in GiB.
    pub size_gib: u64,
    /// All its space was taken at creation.
    pub thick: bool,
    /// Image it starts as; zeros when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Reference>,
    /// Snapshot that it was made of, if that is still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Reference>,
    /// Volume that it is a copy of, if that is still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<Reference>,
    /// An instance can boot from it.
    pub bootable: bool,
    /// Its snapshots.
    #[serde(default)]
    pub snapshots: u64,
    /// Instance that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_to: Option<Reference>,
    /// It goes when its instance goes.
    pub delete_with_instance: bool,
    /// Writes are refused.
    pub read_only: bool,
    /// Where a container sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_path: Option<String>,
    /// Host that keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// Serial number by which a guest finds the disk.
    pub serial: String,
    /// How far it is.
    pub state: VolumeState,
    /// File or directory on its host, once it is there (admin only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Format of the file, once it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::DiskFormat>)]
    pub format: Option<DiskFormat>,
    /// Space that it takes in bytes.
    pub used_bytes: u64,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// How far a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// It is made when an instance first needs it, or is being made.
    Creating,
    /// Free to be attached.
    Available,
    /// An instance has it.
    InUse,
    /// It cannot be had; the fault says why.
    Failed,
    /// It is going.
    Deleting,
}

impl VolumeState {
    /// Name on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Available => "available",
            Self::InUse => "in_use",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        }
    }
}

/// A new volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// Name.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Labels.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// Size in GiB; may be missing when it starts as something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_gib: Option<u64>,
    /// Take all its space at once.
    #[serde(default)]
    pub thick: bool,
    /// Image it starts as; zeros when nothing is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Snapshot it starts as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Volume it starts as, as that is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<String>,
}

/// An image to be made of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SaveVolume {
    /// Name of the image.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Labels of the image.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// Format of its file: `qcow2` when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::DiskFormat>)]
    pub format: Option<DiskFormat>,
    /// Everyone may use it (admin only).
    #[serde(default)]
    pub public: bool,
}

/// What a volume is to be put back to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreVolume {
    /// One of its snapshots.
    pub snapshot: String,
}

/// Changes to a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateVolume {
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
    /// New size in GiB; it only grows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_gib: Option<u64>,
    /// It goes when its instance goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete_with_instance: Option<bool>,
    /// Writes are refused, from the next time on that it is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// An instance can boot from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootable: Option<bool>,
}
