//! Volumes: disks of VMs and directories of containers.

pub(crate) mod attach;
mod copy;
mod retype;
mod transfer;

pub use attach::Attach;
pub use copy::NewImageOfVolume;
pub use retype::TypeAsked;

use crate::{Caller, Control, Error, Result, Role, schema::VOLUME_BY_INSTANCE, transact::Transaction};
use model::{
    error::Code,
    flavor::DISK_GIB_MAX,
    id::{InstanceId, NodeId, VolumeId, VolumeTypeId},
    image::{Image, ImageKind},
    instance::Instance,
    meta::{Labels, Meta},
    name::Name,
    quota::Resource,
    snapshot::Snapshot,
    volume::{Provisioning, Volume, VolumeSource, VolumeStatus},
};
use std::sync::Arc;
use store::Stored;

/// A volume to be made.
#[derive(Debug, Clone, Default)]
pub struct NewVolume {
    /// Name; made from the id when empty.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Size in GiB; its source's when `None`.
    pub size_gib: Option<u64>,
    /// Take the space at once.
    pub thick: bool,
    /// Instead of that, a type that an admin made.
    pub kind: Option<VolumeTypeId>,
    /// What it starts as.
    pub source: SourceAsked,
    /// Labels.
    pub labels: Labels,
}

/// What a volume shall start as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SourceAsked {
    /// Zeros.
    #[default]
    Empty,
    /// An image, by name or id.
    Image(String),
    /// A snapshot.
    Snapshot(String),
    /// Another volume, as it is now.
    Volume(String),
}

/// What was found of a source.
struct SourceFound {
    source: VolumeSource,
    /// Least size in GiB; 0 while it is not known.
    least_gib: u64,
    bootable: bool,
    /// Host that has it.
    node: Option<NodeId>,
}

impl Control {
    /// Makes a volume.
    ///
    /// # Errors
    /// `invalid`, `taken`, `not_found`, `quota_exceeded`, `no_capacity`.
    pub async fn create_volume(&self, caller: &Caller, new: NewVolume) -> Result<Volume> {
        caller.require(Role::Member, "creating a volume")?;
        let id = VolumeId::from_random(rand::random());
        self.transact(|tx| {
            let volume = self.draft_volume(tx, caller, id, &new)?;
            self.add_volume(tx, &volume)?;
            Ok(volume)
        })
        .await
    }

    /// A volume as asked, not yet part of the transaction.
    pub(crate) fn draft_volume(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        id: VolumeId,
        new: &NewVolume,
    ) -> Result<Volume> {
        let found = self.source_asked(tx, caller, &new.source)?;
        let size_gib = match new.size_gib {
            Some(size_gib) => size_gib,
            None if found.least_gib > 0 => found.least_gib,
            None => return Err(missing_size(&new.source)),
        };
        if size_gib < found.least_gib {
            let least_gib = found.least_gib;
            let message = format!("{size_gib} GiB: what it shall start as has {least_gib} GiB");
            return Err(Error::invalid("size_gib", message).hint("choose a size that is at least as large"));
        }
        let name = match new.name.as_str() {
            "" => format!("volume-{}", id.short()),
            text => text.to_string(),
        };
        let mut meta = Meta::new(id, caller.project, parse_name(&name)?, self.now());
        meta.description.clone_from(&new.description);
        meta.labels.clone_from(&new.labels);
        let node = match found.node {
            Some(node) => node,
            None => self.any_node()?,
        };
        let provisioning = match new.kind {
            Some(kind) => self.take_volume_type(tx, kind, caller.project)?,
            None if new.thick => Provisioning::Thick,
            None => Provisioning::Thin,
        };
        Ok(Volume {
            kind: new.kind,
            bootable: found.bootable,
            node: Some(node),
            ..fresh_volume(meta, size_gib, provisioning, found.source)
        })
    }

    fn source_asked(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        asked: &SourceAsked,
    ) -> Result<SourceFound> {
        match asked {
            SourceAsked::Empty => {
                Ok(SourceFound { source: VolumeSource::Empty, least_gib: 0, bootable: false, node: None })
            }
            SourceAsked::Image(reference) => self.image_as_source(tx, caller, reference),
            SourceAsked::Snapshot(reference) => {
                let found = self.find_for::<Snapshot>(caller, "snapshot", reference)?;
                // A copy that is asked for while the snapshot goes either comes before that or is refused.
                tx.expect(&found);
                self.copy_of_snapshot(&found.record)
            }
            SourceAsked::Volume(reference) => {
                let found = self
                    .find_own::<Volume>(caller, reference, "copying a volume")
                    .map_err(|e| e.field("volume"))?;
                self.copy_of_volume(tx, &found)
            }
        }
    }

    fn image_as_source(&self, tx: &mut Transaction, caller: &Caller, reference: &str) -> Result<SourceFound> {
        let image = self.find_for::<Image>(caller, "image", reference)?;
        tx.stand_on::<Image>(image.record.meta.id);
        if image.record.kind != ImageKind::Disk {
            let message = format!("image {} is no disk", image.record.meta.name);
            return Err(Error::invalid("image", message));
        }
        self.refuse_failed_image(&image.record)?;
        let status = self.image_status(image.record.meta.id);
        let content = status.as_ref().and_then(|s| s.record.content());
        let least_gib = content.map_or(0, |c| c.virtual_bytes.div_ceil(1 << 30).max(1));
        Ok(SourceFound {
            source: VolumeSource::Image(image.record.meta.id),
            least_gib: least_gib.max(image.record.min_disk_gib),
            bootable: true,
            node: None,
        })
    }

    pub(crate) fn add_volume(&self, tx: &mut Transaction, volume: &Volume) -> Result<()> {
        if !(1..=DISK_GIB_MAX).contains(&volume.size_gib) {
            let message =
                format!("a volume of {} GiB: 1 to {DISK_GIB_MAX} GiB are possible", volume.size_gib);
            return Err(Error::invalid("size_gib", message));
        }
        let size = i64::try_from(volume.size_gib).unwrap_or(i64::MAX);
        self.charge(tx, volume.meta.project, &[(Resource::Volumes, 1), (Resource::VolumeGib, size)]);
        tx.create(volume);
        Ok(())
    }

    pub(crate) fn drop_volume(&self, tx: &mut Transaction, stored: &Stored<Volume>) {
        let volume = &stored.record;
        let size = i64::try_from(volume.size_gib).unwrap_or(i64::MAX);
        // One that was marked to go has given its share back to the one in its place.
        if !volume.meta.is_deleting() {
            self.charge(tx, volume.meta.project, &[(Resource::Volumes, -1), (Resource::VolumeGib, -size)]);
        }
        self.drop_transfer(tx, volume.meta.id);
        tx.raw().remove::<VolumeStatus>(&volume.meta.id.to_string());
        tx.delete(stored);
    }

    /// Removes a volume that no instance has; its bytes are gone for good.
    ///
    /// # Errors
    /// `in_use`, `not_found`, `forbidden`.
    pub async fn delete_volume(&self, caller: &Caller, reference: &str) -> Result<()> {
        self.transact(|tx| {
            let found = self.find_own::<Volume>(caller, reference, "deleting a volume")?;
            let name = &found.record.meta.name;
            if let Some(id) = found.record.attached_to {
                let message = format!("volume {name} is attached to {}", self.name_of_instance(id));
                return Err(
                    Error::new(Code::InUse, message).hint(format!("`holm volume detach {name}` first"))
                );
            }
            let snapshots = self.snapshots_of(found.record.meta.id);
            if let Some(snapshot) = snapshots.first() {
                let message = match snapshots.len() {
                    1 => format!("volume {name} has the snapshot {}", snapshot.record.meta.name),
                    more => format!("volume {name} has {more} snapshots"),
                };
                return Err(Error::new(Code::InUse, message)
                    .hint(format!("delete them first (`holm snapshot list --volume {name}`)")));
            }
            self.drop_volume(tx, &found);
            Ok(())
        })
        .await
    }

    pub(crate) fn name_of_instance(&self, id: InstanceId) -> String {
        self.get::<Instance>(id).map_or(id.to_string(), |i| i.record.meta.name.to_string())
    }

    /// Makes a volume larger, while it is in use too.
    ///
    /// # Errors
    /// `invalid` for a smaller size, `quota_exceeded`, `not_found`, `forbidden`.
    pub async fn resize_volume(&self, caller: &Caller, reference: &str, size_gib: u64) -> Result<Volume> {
        self.transact(|tx| {
            let found = self.find_own::<Volume>(caller, reference, "growing a volume")?;
            let mut next = found.record.clone();
            if size_gib < next.size_gib || size_gib > DISK_GIB_MAX {
                let message = format!(
                    "{} GiB to {size_gib} GiB: a volume only grows, to {DISK_GIB_MAX} GiB at most",
                    next.size_gib
                );
                return Err(Error::invalid("size_gib", message));
            }
            let more = i64::try_from(size_gib - next.size_gib).unwrap_or(i64::MAX);
            self.charge(tx, next.meta.project, &[(Resource::VolumeGib, more)]);
            next.size_gib = size_gib;
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }

    /// Volumes that say they belong to an instance, those being unplugged included.
    pub fn volumes_of_instance(&self, instance: InstanceId) -> Vec<Arc<Stored<Volume>>> {
        self.store.by_index(&VOLUME_BY_INSTANCE, &instance.to_string())
    }

    /// What the node that keeps a volume says of it.
    pub fn volume_status(&self, id: VolumeId) -> Option<Arc<Stored<VolumeStatus>>> {
        self.store.get::<VolumeStatus>(&id.to_string())
    }

    /// A node that may take new things.
    pub(crate) fn any_node(&self) -> Result<NodeId> {
        let nodes = self.store.list::<model::node::Node>();
        nodes.iter().find(|n| n.record.schedulable).map(|n| n.record.id).ok_or_else(|| {
            Error::new(Code::NoCapacity, "no host takes new instances or volumes")
                .hint("`holm node list` shows why")
        })
    }
}

pub(crate) fn parse_name(text: &str) -> Result<Name> {
    text.parse().map_err(|e| Error::invalid("name", e))
}

/// A volume that nobody has, before its host and flags are known.
pub(crate) fn fresh_volume(
    meta: Meta<VolumeId>,
    size_gib: u64,
    provisioning: Provisioning,
    source: VolumeSource,
) -> Volume {
    Volume {
        meta,
        size_gib,
        provisioning,
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

fn missing_size(source: &SourceAsked) -> Error {
    let error = Error::invalid("size_gib", "the size is missing");
    match source {
        SourceAsked::Image(_) => error.hint("the image is not here yet, so its size is not known"),
        _ => error,
    }
}
