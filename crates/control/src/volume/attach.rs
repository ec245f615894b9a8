//! Volumes into instances and out again, while these run too.

use crate::{Caller, Control, Error, Result, transact::Transaction};
use model::{
    error::Code,
    id::InstanceId,
    instance::{Instance, VOLUMES_MAX},
    volume::Volume,
};
use store::Stored;

impl Control {
    /// Gives a volume to an instance, while it runs too.
    ///
    /// # Errors
    /// `in_use` if another instance has it, `too_large`, `not_found`, `forbidden`.
    pub async fn attach_volume(
        &self,
        caller: &Caller,
        instance: &str,
        volume: &str,
        mount_path: Option<String>,
        read_only: bool,
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
            self.take_volume(tx, &found, instance.record.meta.id, mount_path.clone(), read_only)
        })
        .await
    }

    /// Gives a free volume to an instance.
    pub(crate) fn take_volume(
        &self,
        tx: &mut Transaction,
        found: &Stored<Volume>,
        instance: InstanceId,
        mount_path: Option<String>,
        read_only: bool,
    ) -> Result<Volume> {
        if let Some(user) = found.record.attached_to {
            let user = self.name_of_instance(user);
            let message = format!("volume {} is attached to {user}", found.record.meta.name);
            return Err(Error::new(Code::InUse, message).field("volume"));
        }
        let mut next = found.record.clone();
        next.attached_to = Some(instance);
        next.attached_at = Some(self.now());
        next.mount_path = mount_path;
        next.attached_read_only = read_only || next.read_only;
        next.meta.touch(self.now());
        tx.update(found, &next);
        Ok(next)
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
