//! Disks of a new instance: its root disk, made of an image or chosen, and its volumes.

use super::{NewInstance, RootAsked, RootDisk, VolumeAsked};
use crate::{
    Caller, Control, Error, Result,
    transact::Transaction,
    volume::{fresh_volume, parse_name},
};
use model::{
    error::Code,
    flavor::Size,
    id::{InstanceId, VolumeId},
    image::{Image, ImageKind},
    meta::Meta,
    volume::{Provisioning, Volume, VolumeSource},
};

impl Control {
    /// A root disk that is there, or one that is made of something else than the instance's own image.
    pub(super) fn add_asked_root(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        id: InstanceId,
        root: &RootAsked,
    ) -> Result<VolumeId> {
        let not_bootable = |name: &model::name::Name| {
            Error::new(Code::Conflict, format!("volume {name} is not bootable"))
                .field("root")
                .hint("make it of an image, or say that it is with `holm volume set --bootable yes`")
        };
        let (old, mut next) = match &root.disk {
            RootDisk::Volume(reference) => {
                let found = self
                    .find_own::<Volume>(caller, reference, "using a volume")
                    .map_err(|e| e.field("root"))?;
                if let Some(user) = found.record.attached_to {
                    let user = self.name_of_instance(user);
                    let message = format!("volume {} is attached to {user}", found.record.meta.name);
                    return Err(Error::new(Code::InUse, message).field("root"));
                }
                let next = found.record.clone();
                (Some(found), next)
            }
            RootDisk::New(new) => {
                (None, self.draft_volume(tx, caller, VolumeId::from_random(rand::random()), new)?)
            }
        };
        if !next.bootable {
            return Err(not_bootable(&next.meta.name));
        }
        next.attached_to = Some(id);
        next.attached_at = Some(self.now());
        next.delete_with_instance = root.delete_with_instance;
        next.attached_read_only = next.read_only;
        let volume = next.meta.id;
        match old {
            Some(found) => {
                next.meta.touch(self.now());
                tx.update(&found, &next);
            }
            None => self.add_volume(tx, &next)?,
        }
        Ok(volume)
    }

    #[allow(clippy::too_many_arguments, reason = "each is a decision already made for the instance")]
    pub(super) fn add_root_disk(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        id: InstanceId,
        new: &NewInstance,
        size: Size,
        image: &Image,
        node: model::id::NodeId,
    ) -> Result<VolumeId> {
        let volume = VolumeId::from_random(rand::random());
        let needed_gib = self.root_needs_gib(image);
        if size.disk_gib > 0 && size.disk_gib < needed_gib {
            let message = format!(
                "image {} has {needed_gib} GiB, the root disk asked for {} GiB",
                image.meta.name, size.disk_gib
            );
            return Err(Error::invalid("disk_gib", message).hint("choose a larger flavor or --disk"));
        }
        let source = match image.kind {
            ImageKind::Disk => VolumeSource::Image(image.meta.id),
            _ => VolumeSource::Empty,
        };
        let mut meta =
            Meta::new(volume, caller.project, parse_name(&format!("root-{}", id.short()))?, self.now());
        meta.description = format!("root disk of {}", new.name);
        let size_gib = if size.disk_gib > 0 { size.disk_gib } else { needed_gib.max(1) };
        let provisioning = if new.thick { Provisioning::Thick } else { Provisioning::Thin };
        let made = Volume {
            attached_to: Some(id),
            attached_at: Some(self.now()),
            delete_with_instance: true,
            bootable: true,
            node: Some(node),
            ..fresh_volume(meta, size_gib, provisioning, source)
        };
        self.add_volume(tx, &made)?;
        Ok(volume)
    }

    pub(super) fn add_data_volume(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        id: InstanceId,
        asked: &VolumeAsked,
        node: model::id::NodeId,
    ) -> Result<VolumeId> {
        if let Some(reference) = &asked.volume {
            let found = self
                .find_own::<Volume>(caller, reference, "using a volume")
                .map_err(|e| e.field("volume"))?;
            let taken = self.take_volume(tx, &found, id, asked.mount_path.clone(), asked.read_only)?;
            return Ok(taken.meta.id);
        }
        let volume = VolumeId::from_random(rand::random());
        let name = parse_name(&format!("volume-{}", volume.short()))?;
        let meta = Meta::new(volume, caller.project, name, self.now());
        let provisioning = if asked.thick { Provisioning::Thick } else { Provisioning::Thin };
        let made = Volume {
            attached_to: Some(id),
            attached_at: Some(self.now()),
            delete_with_instance: true,
            attached_read_only: asked.read_only,
            mount_path: asked.mount_path.clone(),
            node: Some(node),
            ..fresh_volume(meta, asked.size_gib, provisioning, VolumeSource::Empty)
        };
        self.add_volume(tx, &made)?;
        Ok(volume)
    }

    /// GiB that a root disk from this image has at least; 0 while that is not known.
    pub(super) fn root_needs_gib(&self, image: &Image) -> u64 {
        let content = self.image_status(image.meta.id);
        let virtual_bytes = content.as_ref().and_then(|s| s.record.content()).map_or(0, |c| c.virtual_bytes);
        if image.kind == ImageKind::Disk { virtual_bytes.div_ceil(1 << 30) } else { 1 }
    }
}
