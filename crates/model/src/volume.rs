//! Volumes: disks of VMs and directories of containers.
//!
//! A disk is a stack of layers, numbered from 0. Guests write to the top one alone; taking a snapshot puts an empty layer
//! on top, and what lies below never changes again. So a snapshot takes no time and no space, a running guest does not
//! notice it, and a copy of a disk is a new layer on layers that are there.
//!
//! ```text
//!   volume a   layer 2   guest writes here            volume b   layer 0   guest of b writes here
//!              layer 1 ◄── snapshot "evening"                       │ stands on (a, 1)
//!              layer 0 ◄── snapshot "morning"         ◄─────────────┘
//!              image
//! ```

pub mod transfer;

use crate::{
    error::Fault,
    id::{ImageId, InstanceId, NodeId, SnapshotId, VolumeId, VolumeTypeId},
    instance::tag::Tag,
    meta::Meta,
    plan::{BackingFile, DiskFormat},
    record::Record,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A volume, as the user wants it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Head.
    pub meta: Meta<VolumeId>,
    /// Size in GiB.
    pub size_gib: u64,
    /// When its space is taken.
    pub provisioning: Provisioning,
    /// Its type, where that is one that an admin made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<VolumeTypeId>,
    /// What it starts as.
    pub source: VolumeSource,
    /// Instance that has it.
    #[serde(default)]
    pub attached_to: Option<InstanceId>,
    /// Since when.
    #[serde(default)]
    pub attached_at: Option<Timestamp>,
    /// It goes when its instance goes.
    #[serde(default)]
    pub delete_with_instance: bool,
    /// Writes are refused to whoever gets it next.
    #[serde(default)]
    pub read_only: bool,
    /// Writes are refused as long as it is attached as it is now.
    #[serde(default)]
    pub attached_read_only: bool,
    /// An instance can boot from it.
    #[serde(default)]
    pub bootable: bool,
    /// Number of the layer that takes writes: how often the disk was frozen, by a snapshot, a copy or an upload.
    #[serde(default)]
    pub layer: u32,
    /// Lowest of its own layers that counts: above 0 once it was put back to a snapshot.
    #[serde(default)]
    pub floor: u32,
    /// What that layer stands on then, instead of the source.
    #[serde(default)]
    pub put_back_to: Option<Ground>,
    /// Where a container sees it.
    #[serde(default)]
    pub mount_path: Option<String>,
    /// A word by which its user tells it from the instance's other disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_tag: Option<Tag>,
    /// Host that keeps it.
    #[serde(default)]
    pub node: Option<NodeId>,
}

/// When space is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provisioning {
    /// As it is written.
    Thin,
    /// At once.
    Thick,
}

/// What a volume starts as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", content = "id")]
pub enum VolumeSource {
    /// Zeros.
    Empty,
    /// An image.
    Image(ImageId),
    /// Another volume, as it was once.
    Copy(Origin),
}

/// Most layers that a disk stands on, its own included. Each is an open file of QEMU, and a read of what was written
/// long ago looks through all of them.
pub const LAYERS_MAX: usize = 64;

/// A stretch of a volume's layers, which never change again: from `floor` up to `layer`, each standing on the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stretch {
    /// The volume, whose record may be gone: its layers stay as long as anything stands on them.
    pub volume: VolumeId,
    /// Lowest layer of it.
    pub floor: u32,
    /// Uppermost layer of it.
    pub layer: u32,
}

/// What stands below a disk, whole: no other record is needed to find its files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ground {
    /// Layers of volumes, nearest first.
    #[serde(default)]
    pub stretches: Vec<Stretch>,
    /// The image at the bottom.
    #[serde(default)]
    pub image: Option<ImageId>,
}

/// Where a copy comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The volume.
    pub volume: VolumeId,
    /// The snapshot, if it was named.
    #[serde(default)]
    pub snapshot: Option<SnapshotId>,
    /// What the copy stands on.
    pub ground: Ground,
}

impl Volume {
    /// What its own layers, from `floor` on, stand on.
    pub fn ground(&self) -> Ground {
        match (&self.put_back_to, &self.source) {
            (Some(ground), _) => ground.clone(),
            (None, VolumeSource::Empty) => Ground::default(),
            (None, VolumeSource::Image(image)) => Ground { stretches: vec![], image: Some(*image) },
            (None, VolumeSource::Copy(origin)) => origin.ground.clone(),
        }
    }

    /// The ground of whatever will stand on this volume as it is now.
    pub fn ground_above(&self) -> Ground {
        let below = self.ground();
        let own = Stretch { volume: self.meta.id, floor: self.floor, layer: self.layer };
        Ground { stretches: std::iter::once(own).chain(below.stretches).collect(), image: below.image }
    }

    /// Puts a layer on top, so that nothing below changes any more. Returns what is frozen by it.
    pub fn freeze(&mut self) -> Ground {
        let frozen = self.ground_above();
        self.layer += 1;
        frozen
    }

    /// Makes the disk what `ground` holds: a new layer on that, in place of all that was written since.
    pub fn put_back(&mut self, ground: Ground) {
        self.layer += 1;
        self.floor = self.layer;
        self.put_back_to = Some(ground);
    }

    /// Nobody has it any more.
    pub fn set_free(&mut self) {
        self.attached_to = None;
        self.attached_at = None;
        self.attached_read_only = false;
        self.mount_path = None;
        self.device_tag = None;
        self.delete_with_instance = false;
    }

    /// Whether this layer is part of the disk as it is now.
    pub fn has_layer(&self, layer: u32) -> bool {
        (self.floor..=self.layer).contains(&layer)
    }

    /// Whether whoever has it may only read it; whoever gets it next, if nobody has it.
    pub fn refuses_writes(&self) -> bool {
        match self.attached_to {
            // What it was when it was plugged in is what the guest has, whatever is wished since.
            Some(_) => self.attached_read_only,
            None => self.read_only,
        }
    }

    /// Serial number by which a guest finds the disk: the first 20 characters of the id (virtio's limit).
    pub fn serial(&self) -> String {
        self.meta.id.to_string()[..20].to_string()
    }
}

impl Ground {
    /// Most files that this can be, each layer counted.
    pub fn depth(&self) -> usize {
        let layers = |stretch: &Stretch| (stretch.layer - stretch.floor) as usize + 1;
        self.stretches.iter().map(layers).sum::<usize>() + usize::from(self.image.is_some())
    }

    /// Whether this needs a volume's layer.
    pub fn has(&self, volume: VolumeId, layer: u32) -> bool {
        let is_in = |s: &Stretch| s.volume == volume && (s.floor..=s.layer).contains(&layer);
        self.stretches.iter().any(is_in)
    }
}

impl Record for Volume {
    const TABLE: &'static str = "volume";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}

/// A volume, as its node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// The volume.
    pub id: VolumeId,
    /// Node that writes this.
    pub node: NodeId,
    /// File or directory, once it is there.
    #[serde(default)]
    pub path: Option<String>,
    /// Format of the file.
    pub format: DiskFormat,
    /// Files that it stands on, nearest first.
    #[serde(default)]
    pub backing: Vec<BackingFile>,
    /// Layer that takes writes now: all below are frozen.
    #[serde(default)]
    pub layer: u32,
    /// Highest layer that is made. Above `layer`, a running guest has yet to be led to it.
    #[serde(default)]
    pub layer_made: u32,
    /// Size that guests see in GiB, once it is there.
    pub size_gib: u64,
    /// Space that it takes in bytes.
    pub used_bytes: u64,
    /// What is wrong.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// When this was written.
    pub at: Timestamp,
}

/// How a volume lies on its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A file that is a disk to VMs.
    Disk,
    /// A directory of files for containers.
    Directory,
}

impl VolumeStatus {
    /// How it lies on its host, as its path tells; `None` while nothing is there.
    pub fn form(&self) -> Option<Form> {
        let path = self.path.as_deref()?;
        if path.contains(".dir/") || path.ends_with(".dir") {
            return Some(Form::Directory);
        }
        (path.ends_with(".qcow2") || path.ends_with(".raw")).then_some(Form::Disk)
    }
}

impl Record for VolumeStatus {
    const TABLE: &'static str = "volume_status";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(number: u8, source: VolumeSource) -> Volume {
        let (id, project) = (VolumeId::from_random([number; 16]), crate::id::ProjectId::from_random([9; 16]));
        Volume {
            meta: Meta::new(id, project, "v".parse().unwrap(), Timestamp::UNIX_EPOCH),
            size_gib: 1,
            provisioning: Provisioning::Thin,
            kind: None,
            source,
            attached_to: None,
            attached_at: None,
            delete_with_instance: false,
            read_only: false,
            attached_read_only: false,
            bootable: false,
            layer: 0,
            floor: 0,
            put_back_to: None,
            mount_path: None,
            device_tag: None,
            node: None,
        }
    }

    #[test]
    fn what_was_frozen_never_names_what_is_written_later() {
        let image = ImageId::from_random([5; 16]);
        let mut a = volume(1, VolumeSource::Image(image));
        let morning = a.freeze();
        let evening = a.freeze();
        assert_eq!((morning.depth(), evening.depth()), (2, 3));
        assert!(morning.has(a.meta.id, 0) && !morning.has(a.meta.id, 1));
        assert!(evening.has(a.meta.id, 1) && !evening.has(a.meta.id, 2) && a.has_layer(2));

        // A copy of the copy still knows all its files when both records are gone.
        let origin = |ground: &Ground| Origin { volume: a.meta.id, snapshot: None, ground: ground.clone() };
        let mut b = volume(2, VolumeSource::Copy(origin(&evening)));
        let of_b = b.freeze();
        assert_eq!(of_b.image, Some(image));
        assert!(of_b.has(b.meta.id, 0) && of_b.has(a.meta.id, 1) && !of_b.has(a.meta.id, 2));
    }

    #[test]
    fn a_disk_put_back_leaves_out_what_came_after_and_can_go_forth_again() {
        let mut a = volume(1, VolumeSource::Empty);
        let morning = a.freeze();
        let evening = a.freeze();
        a.put_back(morning.clone());
        let later = a.freeze();
        assert!(later.has(a.meta.id, 0) && !later.has(a.meta.id, 1) && later.has(a.meta.id, 3));
        assert!(!a.has_layer(2) && a.has_layer(3) && a.has_layer(4));
        a.put_back(evening);
        assert!(a.ground().has(a.meta.id, 1) && !a.ground().has(a.meta.id, 3));
        assert_eq!(a.ground_above().depth(), 3);
    }
}
