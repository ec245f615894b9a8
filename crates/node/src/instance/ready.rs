//! What an instance stands on: whether images and volumes are there, and what to tell while they are not.

use super::{InstanceError, Instances, wanted};
use model::{
    id::{ImageId, InstanceId},
    image::{Image, ImageContent, ImageState, ImageStatus},
    instance::{
        Instance, Kind, State,
        order::waits_for,
        step::{Sight, Step, next_step},
    },
    volume::{Form, Volume, VolumeStatus},
};

/// What an instance is given.
fn form_for(instance: &Instance) -> Form {
    if instance.has_own_kernel() { Form::Disk } else { Form::Directory }
}

impl Instances {
    /// What a start waits for, in words; `None` when it can be. One that starts with its host waits for others, too.
    ///
    /// # Errors
    /// As of [`Self::not_ready`].
    pub(super) async fn waits_for(
        &self,
        instance: &Instance,
        with_host: bool,
    ) -> Result<Option<String>, InstanceError> {
        match self.awaits(instance).filter(|_| with_host) {
            Some(text) => Ok(Some(text)),
            None => self.not_ready(instance).await,
        }
    }

    /// What the instance still waits for, in words; `None` when it can start.
    ///
    /// # Errors
    /// [`InstanceError::Needs`] when something cannot be had.
    pub(super) async fn not_ready(&self, instance: &Instance) -> Result<Option<String>, InstanceError> {
        let images = instance.containers.iter().filter_map(|c| c.image).chain(self.boot_images(instance));
        for id in images {
            if let Some(waiting) = self.image_wait(id)? {
                return Ok(Some(waiting));
            }
        }
        for id in &instance.volumes {
            let status = self.store.get::<VolumeStatus>(&id.to_string());
            match status.as_ref().map(|s| &s.record) {
                // Files of containers are yet to become a disk, or a disk that was never written a directory.
                Some(status) if status.form().is_some_and(|form| form != form_for(instance)) => {
                    match &status.fault {
                        Some(fault) => return Err(InstanceError::Needs(fault.clone())),
                        None => return Ok(Some("preparing disks".into())),
                    }
                }
                // The last guest may have written to a layer that is not yet known to be the top.
                Some(status) if status.path.is_some() && self.is_behind(instance, status) => {
                    match (&status.fault, status.layer_made > status.layer) {
                        (Some(fault), true) => return Err(InstanceError::Needs(fault.clone())),
                        // It could not be frozen, and nothing came of that.
                        (Some(_), false) => {}
                        (None, _) => return Ok(Some("freezing disks".into())),
                    }
                }
                // One that could not become larger is as good as before.
                Some(status) if status.path.is_some() && self.is_small(status) => {
                    if status.fault.is_none() && self.may_grow(instance, status) {
                        return Ok(Some("growing disks".into()));
                    }
                }
                Some(VolumeStatus { fault: Some(fault), .. }) => {
                    return Err(InstanceError::Needs(fault.clone()));
                }
                // A disk that is a pod's for the first time is yet to get a file system.
                Some(status) if status.path.is_some() => {
                    if self.is_bare(instance, status).await {
                        return Ok(Some("preparing disks".into()));
                    }
                }
                _ => {
                    let waiting = match instance.image {
                        Some(image) => self.image_wait(image)?,
                        None => None,
                    };
                    return Ok(Some(waiting.unwrap_or_else(|| "preparing disks".into())));
                }
            }
        }
        Ok(None)
    }

    /// Whether the volumes of an instance are what it is given: one that was just made may be a disk yet for a moment.
    pub(super) fn are_formed(&self, instance: &Instance) -> bool {
        instance.volumes.iter().all(|id| {
            let status = self.store.get::<VolumeStatus>(&id.to_string());
            status.is_some_and(|status| status.record.form() == Some(form_for(instance)))
        })
    }

    /// Whether a disk has no file system that a pod with a kernel of its own could mount.
    async fn is_bare(&self, instance: &Instance, status: &VolumeStatus) -> bool {
        instance.kind != Kind::Vm
            && instance.has_own_kernel()
            && !self.status(instance).volumes.contains(&status.id)
            && crate::volume::is_bare(status).await
    }

    /// Whether a disk that no guest has is still to be frozen.
    fn is_behind(&self, instance: &Instance, status: &VolumeStatus) -> bool {
        let wanted = self.store.get::<Volume>(&status.id.to_string());
        instance.has_own_kernel()
            && wanted.is_some_and(|volume| volume.record.layer > status.layer)
            && !self.status(instance).volumes.contains(&status.id)
    }

    /// Whether any disk of an instance that has disks is still to be frozen.
    pub(super) fn is_any_behind(&self, instance: &Instance) -> bool {
        let is_behind = |id: &model::id::VolumeId| {
            let wish = self.store.get::<Volume>(&id.to_string());
            let status = self.store.get::<VolumeStatus>(&id.to_string());
            let layers = wish.map(|w| w.record.layer).zip(status.map(|s| s.record.layer));
            layers.is_some_and(|(wanted, now)| wanted > now)
        };
        instance.has_own_kernel() && instance.volumes.iter().any(is_behind)
    }

    /// Whom it still waits for when it starts with its host, in words. Those that do not start with the host by themselves,
    /// or cannot, are not waited for; nor are those that wait for it in their turn.
    pub(super) fn awaits(&self, instance: &Instance) -> Option<String> {
        let find = |id: InstanceId| self.store.get::<Instance>(&id.to_string());
        let after = |id| find(id).map_or(vec![], |other| other.record.start_after.clone());
        let others = instance.start_after.iter().filter_map(|id| find(*id));
        let mut coming = others.filter(|other| {
            self.is_coming(&other.record) && !waits_for(other.record.meta.id, instance.meta.id, after)
        });
        coming.next().map(|other| format!("waiting for {} to run", other.record.meta.name))
    }

    /// Whether an instance is to start since its host did, and has not yet, nor failed to.
    fn is_coming(&self, instance: &Instance) -> bool {
        let status = self.status(instance);
        let sight = Sight::Stopped {
            boot: status.boot,
            failed: !matches!(status.state, State::Stopped { failed: false, .. }),
            host_rebooted: true,
            retries: status.restarts,
            asleep: status.asleep,
        };
        instance.node == Some(self.node)
            && status.host_boot != self.host_boot
            && status.fault.is_none()
            && next_step(wanted(instance, &status), sight) == Step::Start
    }

    fn is_small(&self, status: &VolumeStatus) -> bool {
        let wanted = self.store.get::<Volume>(&status.id.to_string());
        wanted.is_some_and(|volume| volume.record.size_gib > status.size_gib)
    }

    /// Whether a disk is no guest's yet: it grows while nobody has it open.
    fn may_grow(&self, instance: &Instance, status: &VolumeStatus) -> bool {
        instance.has_own_kernel() && !self.status(instance).volumes.contains(&status.id)
    }

    /// Kernel and initrd of a VM that boots from these.
    fn boot_images(&self, instance: &Instance) -> Vec<ImageId> {
        let boot = self.boot_image(instance).and_then(|i| i.record.boot.clone());
        boot.map(|b| std::iter::once(b.kernel).chain(b.initrd).collect()).unwrap_or_default()
    }

    fn image_wait(&self, id: ImageId) -> Result<Option<String>, InstanceError> {
        let image = self.store.get::<Image>(&id.to_string());
        let status = self.store.get::<ImageStatus>(&id.to_string());
        let status = status.as_ref().map(|s| &s.record);
        let Some(image) = image.as_ref().map(|i| &i.record) else {
            return Ok(status
                .is_none_or(|s| s.content().is_none())
                .then(|| format!("waiting for image {id}")));
        };
        match image.state(status) {
            ImageState::Waiting | ImageState::Staged { .. } => {
                Ok(Some(format!("waiting for image {}", image.meta.name)))
            }
            ImageState::Fetching { done_bytes, total_bytes } => {
                let percent = (100 * done_bytes).checked_div(*total_bytes).unwrap_or(0);
                Ok(Some(format!("fetching image {} {percent} %", image.meta.name)))
            }
            ImageState::Ready(_) => Ok(None),
            ImageState::Failed(fault) => Err(InstanceError::Needs(fault.clone())),
        }
    }

    /// The content of an image that is ready.
    pub(super) fn image_content(&self, id: ImageId) -> Option<ImageContent> {
        let status = self.store.get::<ImageStatus>(&id.to_string())?;
        status.record.content().cloned()
    }
}
