//! Rescue: a VM that does not come up any more is started from another image, with its own disks beside that.
//!
//! The disk to be rescued from is made and goes like any other: the wish has it in front of the instance's volumes, so the
//! guest boots from it, finds its old root disk second, and all others one place later. Its end takes it away again.

use super::{action::refuse_locked, rebuild::refuse_unsettled};
use crate::{
    Caller, Control, Error, Result,
    volume::{fresh_volume, parse_name},
};
use model::{
    error::Code,
    id::VolumeId,
    image::ImageKind,
    instance::{Instance, Kind, Power, VOLUMES_MAX, phase::Phase, rescue::Rescue},
    meta::Meta,
    quota::Resource,
    volume::{Provisioning, Volume, VolumeSource},
};

impl Control {
    /// Starts a VM from another image (its own when `None`), with its root disk as the second one.
    ///
    /// # Errors
    /// `conflict` in rescue already, on its way somewhere, asleep or with a size on trial; `unsupported` for containers and
    /// where no image is known; `too_large`, `quota_exceeded`, `invalid`, `not_found`, `forbidden`.
    pub async fn rescue_instance(
        &self,
        caller: &Caller,
        reference: &str,
        image: Option<&str>,
    ) -> Result<Instance> {
        let volume = VolumeId::from_random(rand::random());
        self.transact(|tx| {
            let found = self.find_own::<Instance>(caller, reference, "rescuing an instance")?;
            let old = &found.record;
            refuse_locked(caller, old)?;
            refuse_unsettled(old)?;
            self.refuse_rescue(old)?;
            let owner = Caller { project: old.meta.project, ..caller.clone() };
            let named = image.map(str::to_string).or(old.image.map(|id| id.to_string()));
            let named = named.ok_or_else(|| {
                let message =
                    format!("{} was made of no image: which one is it to boot from?", old.meta.name);
                Error::new(Code::Unsupported, message).field("image").hint("name an image")
            })?;
            let image = self.vm_image(tx, &owner, &named, old.size)?;
            let mut meta = Meta::new(
                volume,
                old.meta.project,
                parse_name(&format!("rescue-{}", volume.short()))?,
                self.now(),
            );
            meta.description = format!("disk from which {} is rescued", old.meta.name);
            let source = match image.kind {
                ImageKind::Disk => VolumeSource::Image(image.meta.id),
                _ => VolumeSource::Empty,
            };
            let size_gib = self.root_needs_gib(&image).max(1);
            let made = Volume {
                attached_to: Some(old.meta.id),
                attached_at: Some(self.now()),
                delete_with_instance: true,
                bootable: true,
                node: old.node,
                ..fresh_volume(meta, size_gib, Provisioning::Thin, source)
            };
            self.add_volume(tx, &made)?;
            let mut next = old.clone();
            if next.power == Power::Off {
                self.refuse_without_room(&next, next.size)?;
            }
            begin(&mut next);
            next.volumes.insert(0, volume);
            next.rescue = Some(Rescue { image: image.meta.id, volume, boot: next.boots });
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }

    /// Ends a rescue: the VM starts from its own root disk again, and the one that it was rescued from goes.
    ///
    /// # Errors
    /// `conflict` for one that is not in rescue, `not_found`, `forbidden`.
    pub async fn unrescue_instance(&self, caller: &Caller, reference: &str) -> Result<Instance> {
        self.transact(|tx| {
            let found = self.find_own::<Instance>(caller, reference, "ending a rescue")?;
            let old = &found.record;
            refuse_locked(caller, old)?;
            let mut next = old.clone();
            let Some(rescue) = next.rescue.take() else {
                return Err(Error::new(Code::Conflict, format!("{} is not in rescue", old.meta.name)));
            };
            if old.meta.is_deleting() {
                return Err(Error::new(Code::Conflict, format!("{} is being deleted", old.meta.name)));
            }
            if next.power == Power::Off {
                self.refuse_without_room(&next, next.size)?;
            }
            begin(&mut next);
            next.unrescued = Some(next.boots);
            next.volumes.retain(|id| *id != rescue.volume);
            if let Some(volume) = self.get::<Volume>(rescue.volume) {
                let mut doomed = volume.record.clone();
                let size = doomed.size_gib.cast_signed();
                let share = [(Resource::Volumes, -1), (Resource::VolumeGib, -size)];
                self.charge(tx, doomed.meta.project, &share);
                doomed.meta.deleted_at = Some(self.now());
                doomed.meta.touch(self.now());
                tx.update(&volume, &doomed);
            }
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }

    fn refuse_rescue(&self, instance: &Instance) -> Result<()> {
        let name = &instance.meta.name;
        if instance.kind != Kind::Vm {
            let message = format!("{name} is a container: only VMs are rescued");
            return Err(Error::new(Code::Unsupported, message)
                .hint("`holm exec` gets into it, and its volumes can be given to another container"));
        }
        if instance.volumes.len() >= VOLUMES_MAX {
            let message = format!("an instance has at most {VOLUMES_MAX} volumes, and a rescue takes one");
            return Err(Error::new(Code::TooLarge, message).hint("detach a volume first"));
        }
        let phase = self.phase(instance);
        if matches!(phase, Phase::Running | Phase::Stopped | Phase::Exited | Phase::Failed) {
            return Ok(());
        }
        Err(Error::new(Code::Conflict, format!("{name} is {phase}: it cannot be rescued now"))
            .hint("wait, or stop it first"))
    }
}

/// The guest that is there, if any, is ended at once: its disks are not to be trusted, or nobody needs them any more.
fn begin(instance: &mut Instance) {
    instance.power = Power::On;
    instance.boots += 1;
    instance.hard = true;
    instance.shelved = false;
}

/// Refuses what is not done to a VM in rescue, whose disks are not in their usual places.
pub(crate) fn refuse_rescued(instance: &Instance) -> Result<()> {
    if instance.rescue.is_none() {
        return Ok(());
    }
    let name = &instance.meta.name;
    Err(Error::new(Code::Conflict, format!("{name} is in rescue"))
        .hint(format!("`holm unrescue {name}` first")))
}
