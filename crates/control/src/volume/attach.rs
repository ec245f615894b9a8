//! Volumes into instances and out again, while these run too.

use crate::{Caller, Control, Error, Result, transact::Transaction};
use model::{
    error::Code,
    id::InstanceId,
    instance::{Instance, VOLUMES_MAX, tag::Tag},
    volume::Volume,
};
use store::Stored;

/// How a volume is given to an instance.
#[derive(Debug, Clone, Default)]
pub struct Attach {
    /// Where a container sees it.
    pub mount_path: Option<String>,
    /// Writes are refused.
    pub read_only: bool,
    /// Whether it goes when the instance goes; as its record says when `None`.
    pub delete_with_instance: Option<bool>,
    /// A word that tells it from the instance's other disks.
    pub tag: Option<Tag>,
}

impl Control {
    /// Gives a volume to an instance, while it runs too.
    ///
    /// # Errors
    /// As [`Self::attach_volume_as`].
    pub async fn attach_volume(
        &self,
        caller: &Caller,
        instance: &str,
        volume: &str,
        mount_path: Option<String>,
        read_only: bool,
    ) -> Result<Volume> {
        let attach = Attach { mount_path, read_only, ..Attach::default() };
        self.attach_volume_as(caller, instance, volume, &attach).await
    }

    /// The same with all that can be said of it.
    ///
    /// # Errors
    /// `in_use` if another instance has it, `too_large`, `not_found`, `forbidden`.
    pub async fn attach_volume_as(
        &self,
        caller: &Caller,
        instance: &str,
        volume: &str,
        attach: &Attach,
    ) -> Result<Volume> {
        self.transact(|tx| {
            let instance = self.find_own::<Instance>(caller, instance, "attaching a volume")?;
            let found = self
                .find_own::<Volume>(caller, volume, "attaching a volume")
                .map_err(|e| e.field("volume"))?;
            let mut next_instance = instance.record.clone();
            if next_instance.volumes.len() >= VOLUMES_MAX {
                return Err(Error::new(
                    Code::TooLarge,
                    format!("an instance has at most {VOLUMES_MAX} volumes"),
                ));
            }
            next_instance.volumes.push(found.record.meta.id);
            next_instance.meta.touch(self.now());
            tx.update(&instance, &next_instance);
            self.take_volume(tx, &found, instance.record.meta.id, attach)
        })
        .await
    }

    /// Gives a free volume to an instance.
    fn take_volume(
        &self,
        tx: &mut Transaction,
        found: &Stored<Volume>,
        instance: InstanceId,
        attach: &Attach,
    ) -> Result<Volume> {
        self.refuse_attached(&found.record, "volume")?;
        let mut next = found.record.clone();
        self.hand_over(&mut next, instance, attach);
        next.meta.touch(self.now());
        tx.update(found, &next);
        Ok(next)
    }

    /// Refuses a volume that an instance has; `field` is the input that named it.
    pub(crate) fn refuse_attached(&self, volume: &Volume, field: &str) -> Result<()> {
        let Some(user) = volume.attached_to else {
            return Ok(());
        };
        let message = format!("volume {} is attached to {}", volume.meta.name, self.name_of_instance(user));
        Err(Error::new(Code::InUse, message).field(field))
    }

    /// Writes into a volume's record that an instance has it.
    pub(crate) fn hand_over(&self, volume: &mut Volume, instance: InstanceId, attach: &Attach) {
        volume.attached_to = Some(instance);
        volume.attached_at = Some(self.now());
        volume.mount_path.clone_from(&attach.mount_path);
        volume.attached_read_only = attach.read_only || volume.read_only;
        volume.delete_with_instance = attach.delete_with_instance.unwrap_or(volume.delete_with_instance);
        volume.device_tag.clone_from(&attach.tag);
    }

    /// Takes a volume from its instance; done when the guest let go of it, and visible while it has not.
    ///
    /// # Errors
    /// `conflict` for a root disk or a volume that nobody has, `not_found`, `forbidden`.
    pub async fn detach_volume(&self, caller: &Caller, volume: &str) -> Result<Volume> {
        self.transact(|tx| {
            let found = self.find_own::<Volume>(caller, volume, "detaching a volume")?;
            let name = &found.record.meta.name;
            let Some(instance) = found.record.attached_to.and_then(|id| self.get::<Instance>(id)) else {
                return Err(Error::new(Code::Conflict, format!("volume {name} is not attached")));
            };
            let id = found.record.meta.id;
            let is_root = instance.record.kind == model::instance::Kind::Vm
                && instance.record.volumes.first() == Some(&id);
            if is_root {
                return Err(Error::new(
                    Code::Conflict,
                    format!("volume {name} is the root disk of {}", instance.record.meta.name),
                ));
            }
            let mut next = instance.record.clone();
            next.volumes.retain(|v| *v != id);
            next.meta.touch(self.now());
            tx.update(&instance, &next);
            Ok(found.record.clone())
        })
        .await
    }
}
