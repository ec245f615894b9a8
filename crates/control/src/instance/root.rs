//! Disks of a new instance: its root disk, made of an image or chosen, and its volumes.

use super::{DiskAsked, NewInstance, VolumeAsked};
use crate::{
    Caller, Control, Error, Result,
    transact::Transaction,
    volume::{
        attach::{named_twice, refuse_elsewhere},
        fresh_volume, parse_name,
    },
};
use model::{
    error::Code,
    flavor::Size,
    id::{InstanceId, NodeId, VolumeId},
    image::{Image, ImageKind},
    instance::Kind,
    meta::Meta,
    volume::{Provisioning, Volume, VolumeSource},
};

impl Control {
    /// All disks of a new instance, a VM's root disk first.
    pub(super) fn add_disks(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        home: (InstanceId, NodeId),
        new: &NewInstance,
        size: Size,
        image: Option<&Image>,
    ) -> Result<Vec<VolumeId>> {
        let mut all = vec![];
        match (&new.root, image) {
            (Some(root), _) if new.kind == Kind::Vm => {
                all.push(self.add_asked_root(tx, caller, home, root)?);
            }
            (_, Some(image)) => all.push(self.add_root_disk(tx, caller, home, new, size, image)?),
            _ => {}
        }
        for asked in &new.volumes {
            let volume = self.add_asked_volume(tx, caller, home, asked, "volume")?;
            if let DiskAsked::Volume(_) = asked.disk {
                self.refuse_written_disk(&volume, new.has_own_kernel(), "volume")?;
            }
            if all.contains(&volume.meta.id) {
                return Err(named_twice(&volume));
            }
            all.push(volume.meta.id);
        }
        Ok(all)
    }

    /// A root disk that is there, or one that is made of something else than the instance's own image.
    fn add_asked_root(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        home: (InstanceId, NodeId),
        root: &VolumeAsked,
    ) -> Result<VolumeId> {
        let volume = self.add_asked_volume(tx, caller, home, root, "root")?;
        if volume.bootable {
            return Ok(volume.meta.id);
        }
        Err(Error::new(Code::Conflict, format!("volume {} is not bootable", volume.meta.name))
            .field("root")
            .hint("make it of an image, or say that it is with `holm volume set --bootable yes`"))
    }

    /// A volume that nobody has, or a new one, for the instance and the host of `home`. `field` is the input that
    /// asks for it.
    fn add_asked_volume(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        home: (InstanceId, NodeId),
        asked: &VolumeAsked,
        field: &str,
    ) -> Result<Volume> {
        let (id, node) = home;
        match &asked.disk {
            DiskAsked::Volume(reference) => {
                let found = self
                    .find_own::<Volume>(caller, reference, "using a volume")
                    .map_err(|e| e.field(field))?;
                self.refuse_attached(&found.record, field)?;
                refuse_elsewhere(&found.record, Some(node), field)?;
                let mut next = found.record.clone();
                self.hand_over(&mut next, id, &asked.attach);
                next.meta.touch(self.now());
                tx.update(&found, &next);
                Ok(next)
            }
            DiskAsked::New(new) => {
                let mut made = self.draft_volume(tx, caller, VolumeId::from_random(rand::random()), new)?;
                // A copy lies where its source does.
                if !matches!(made.source, VolumeSource::Copy(_)) {
                    made.node = Some(node);
                }
                self.hand_over(&mut made, id, &asked.attach);
                self.add_volume(tx, &made)?;
                Ok(made)
            }
        }
    }

    fn add_root_disk(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        home: (InstanceId, NodeId),
        new: &NewInstance,
        size: Size,
        image: &Image,
    ) -> Result<VolumeId> {
        let (id, node) = home;
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

    /// GiB that a root disk from this image has at least; 0 while that is not known.
    pub(super) fn root_needs_gib(&self, image: &Image) -> u64 {
        let content = self.image_status(image.meta.id);
        let virtual_bytes = content.as_ref().and_then(|s| s.record.content()).map_or(0, |c| c.virtual_bytes);
        if image.kind == ImageKind::Disk { virtual_bytes.div_ceil(1 << 30) } else { 1 }
    }
}
