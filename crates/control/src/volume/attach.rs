//! Volumes into instances and out again, while these run too.

use crate::{
    Caller, Control, Error, Result,
    instance::{action::refuse_asleep, rescue::refuse_rescued},
    transact::Transaction,
};
use model::{
    error::Code,
    id::{InstanceId, NodeId, VolumeId},
    instance::{Instance, VOLUMES_MAX, tag::Tag},
    volume::{Form, Provisioning, Volume, VolumeSource},
};
use store::Stored;

/// A thin disk that takes more than this was written to. Of smaller ones its host knows.
const BLANK_BYTES_MAX: u64 = 1 << 20;

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

/// Refuses a volume whose files lie on another host than the instance.
pub(crate) fn refuse_elsewhere(volume: &Volume, node: Option<NodeId>, field: &str) -> Result<()> {
    if volume.node.is_none() || node.is_none() || volume.node == node {
        return Ok(());
    }
    let message = format!("volume {} lies on another host than the instance", volume.meta.name);
    Err(Error::new(Code::Conflict, message)
        .field(field)
        .hint("volumes are files of one host: make a new one, or the instance where this one lies"))
}

/// Refuses more volumes than an instance may have.
pub(crate) fn refuse_too_many(volumes: &[VolumeId]) -> Result<()> {
    if volumes.len() <= VOLUMES_MAX {
        return Ok(());
    }
    Err(Error::new(Code::TooLarge, format!("an instance has at most {VOLUMES_MAX} volumes")).field("volumes"))
}

/// The refusal of a volume that one request names twice.
pub(crate) fn named_twice(volume: &Volume) -> Error {
    Error::invalid("volume", format!("volume {} is named twice", volume.meta.name))
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
            refuse_asleep(&instance.record)?;
            refuse_rescued(&instance.record)?;
            let mut next_instance = instance.record.clone();
            refuse_elsewhere(&found.record, instance.record.node, "volume")?;
            next_instance.volumes.push(found.record.meta.id);
            refuse_too_many(&next_instance.volumes)?;
            next_instance.meta.touch(self.now());
            tx.update(&instance, &next_instance);
            self.refuse_written_disk(&found.record, instance.record.has_own_kernel(), "volume")?;
            self.take_volume(tx, &found, instance.record.meta.id, attach)
        })
        .await
    }

    /// Gives a free volume to an instance.
    pub(crate) fn take_volume(
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

    /// Refuses to give a container a disk that holds something: the file system on it is whatever a guest made of it, and
    /// the host's kernel is not to read that. A disk that was never written becomes a directory. Who has a kernel of its own
    /// may have any.
    pub(crate) fn refuse_written_disk(&self, volume: &Volume, own_kernel: bool, field: &str) -> Result<()> {
        let status = self.volume_status(volume.meta.id);
        let is_disk = status.as_ref().is_some_and(|status| status.record.form() == Some(Form::Disk));
        let is_thin = volume.provisioning == Provisioning::Thin;
        let is_written = volume.source != VolumeSource::Empty
            || volume.layer > 0
            || is_thin && status.is_some_and(|status| status.record.used_bytes > BLANK_BYTES_MAX);
        if own_kernel || !is_disk || !is_written {
            return Ok(());
        }
        let message = format!(
            "volume {} is a disk with something on it: a container on the host's kernel is given directories",
            volume.meta.name
        );
        Err(Error::new(Code::Unsupported, message).field(field).hint(
            "run the container with a kernel of its own (`--isolate vm`), copy the files from inside a virtual machine, or give the container a new volume",
        ))
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
            if instance.record.root_volume() == Some(id) {
                return Err(Error::new(
                    Code::Conflict,
                    format!("volume {name} is the root disk of {}", instance.record.meta.name),
                ));
            }
            refuse_asleep(&instance.record)?;
            refuse_rescued(&instance.record)?;
            let mut next = instance.record.clone();
            next.volumes.retain(|v| *v != id);
            next.meta.touch(self.now());
            tx.update(&instance, &next);
            Ok(found.record.clone())
        })
        .await
    }
}
