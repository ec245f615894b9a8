//! Rebuilding: an instance begins anew from an image, and stays who it is.
//!
//! Its id, name, ports, addresses and volumes beside the root disk stay. A VM gets a new root disk beside the old one,
//! which goes when the guest has let go of it; a pod gets new writable layers. So a crash at any moment finds either
//! the old disk still in use or the new one made from its image, never half of one.

use super::{action::refuse_locked, check_user_data};
use crate::{
    Caller, Control, Error, Result,
    transact::Transaction,
    volume::{fresh_volume, parse_name},
};
use model::{
    error::Code,
    id::{UserId, VolumeId},
    image::{Image, ImageKind},
    instance::{Access, Instance, Kind, Power},
    meta::{Labels, Meta},
    quota::Resource,
    volume::{Ground, Volume, VolumeSource},
};
use std::collections::BTreeMap;
use store::Stored;

/// What an instance is rebuilt from, and what is said anew of it. `None` leaves things as they are.
#[derive(Debug, Clone, Default)]
pub struct Rebuild {
    /// Another image.
    pub image: Option<String>,
    /// Another name.
    pub name: Option<String>,
    /// Another description.
    pub description: Option<String>,
    /// Other labels, in place of all.
    pub labels: Option<Labels>,
    /// Other keys, in place of all.
    pub keypairs: Option<Vec<String>>,
    /// User whose own keys may be named beside the project's.
    pub user: Option<UserId>,
    /// Other user-data in base64, or none.
    pub user_data_base64: Option<Option<String>>,
    /// Other addresses that are told.
    pub access: Option<Access>,
    /// Variables of a container: set, or taken away with `None`. The others stay.
    pub env: BTreeMap<String, Option<String>>,
    /// Other arguments of a container's program.
    pub args: Option<Vec<String>>,
}

impl Control {
    /// Begins an instance anew from its image or another one. What was on its root disk is gone.
    ///
    /// # Errors
    /// `conflict` while a size is on trial or its disk is being frozen, `unsupported` where no image is known, `invalid`, `not_found`,
    /// `forbidden`.
    pub async fn rebuild_instance(
        &self,
        caller: &Caller,
        reference: &str,
        asked: &Rebuild,
    ) -> Result<Instance> {
        if let Some(Some(text)) = &asked.user_data_base64 {
            check_user_data(text)?;
        }
        if let Some(labels) = &asked.labels {
            crate::change::check_labels(labels)?;
        }
        let volume = VolumeId::from_random(rand::random());
        self.transact(|tx| {
            let found = self.find_own::<Instance>(caller, reference, "rebuilding an instance")?;
            let old = &found.record;
            refuse_locked(caller, old)?;
            refuse_unsettled(old)?;
            let owner = Caller { project: old.meta.project, ..caller.clone() };
            let mut next = old.clone();
            match old.kind {
                Kind::Vm => self.rebuild_vm(tx, &owner, &mut next, asked, volume)?,
                Kind::Container | Kind::System => self.rebuild_pod(tx, &owner, &mut next, asked)?,
            }
            self.say_anew(&owner, &mut next, asked)?;
            if next.power != Power::Off {
                next.power = Power::On;
                next.boots += 1;
                // What the guest would save now is thrown away with its disk.
                next.hard = true;
                next.rebuilt = next.boots;
            }
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }

    fn rebuild_vm(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        next: &mut Instance,
        asked: &Rebuild,
        fresh: VolumeId,
    ) -> Result<()> {
        let no_image = || {
            let message = format!("{} has no image to be rebuilt from", next.meta.name);
            Error::new(Code::Unsupported, message).field("image").hint("name an image")
        };
        if !asked.env.is_empty() || asked.args.is_some() {
            let message = format!("{} is a VM: variables and arguments are for containers", next.meta.name);
            return Err(Error::invalid("env", message).hint("a VM is told such things by its user-data"));
        }
        let root = next.root_volume().and_then(|id| self.get::<Volume>(id)).ok_or_else(no_image)?;
        // One that boots from a volume has no image of its own; its volume may have been made of one.
        let known = next.image.or(root.record.ground().image);
        let reference = asked.image.clone().or(known.map(|id| id.to_string())).ok_or_else(no_image)?;
        let image = self.vm_image(tx, caller, &reference, next.size)?;
        let needed_gib = self.root_needs_gib(&image);
        if next.image.is_none() || !root.record.delete_with_instance {
            return self.put_back_to_image(tx, &root, &image, needed_gib);
        }
        if next.size.disk_gib > 0 && next.size.disk_gib < needed_gib {
            let message = format!(
                "image {} has {needed_gib} GiB, the root disk of {} {} GiB",
                image.meta.name, next.meta.name, next.size.disk_gib
            );
            return Err(Error::invalid("image", message).hint("choose a smaller image or a larger flavor"));
        }
        let made = self.root_in_place_of(&root.record, &image, needed_gib, fresh)?;
        let more = made.size_gib.cast_signed() - root.record.size_gib.cast_signed();
        self.charge(tx, caller.project, &[(Resource::VolumeGib, more)]);
        tx.create(&made);
        let mut doomed = root.record.clone();
        doomed.meta.deleted_at = Some(self.now());
        doomed.meta.touch(self.now());
        tx.update(&root, &doomed);
        next.volumes[0] = fresh;
        next.image = Some(image.meta.id);
        Ok(())
    }

    /// A root disk that is a volume of its own stays that volume, and holds the image from now on. The layer that the guest
    /// writes to until it is ended belongs to nothing any more.
    fn put_back_to_image(
        &self,
        tx: &mut Transaction,
        root: &Stored<Volume>,
        image: &Image,
        needed_gib: u64,
    ) -> Result<()> {
        let (volume, name) = (&root.record, &root.record.meta.name);
        if image.kind != ImageKind::Disk {
            let message = format!("image {} is no disk, and {name} is to hold one", image.meta.name);
            return Err(Error::invalid("image", message).hint("name an image of kind disk"));
        }
        if volume.size_gib < needed_gib {
            let message = format!(
                "image {} has {needed_gib} GiB, volume {name} {} GiB",
                image.meta.name, volume.size_gib
            );
            return Err(Error::invalid("image", message)
                .hint(format!("choose a smaller image, or `holm volume grow {name} {needed_gib}g`")));
        }
        // Whoever waits for the present layer to be frozen gets what the guest has written, not what it is writing.
        if self.volume_status(volume.meta.id).is_none_or(|status| status.record.layer < volume.layer) {
            let message = format!("volume {name} is being made or frozen for a snapshot or a copy");
            return Err(Error::new(Code::Conflict, message).hint("try again in a moment"));
        }
        let mut next = volume.clone();
        next.put_back(Ground { stretches: vec![], image: Some(image.meta.id) });
        next.bootable = true;
        next.meta.touch(self.now());
        tx.update(root, &next);
        Ok(())
    }

    /// The new root disk. It is at least as large as the old one was.
    fn root_in_place_of(
        &self,
        old: &Volume,
        image: &Image,
        needed_gib: u64,
        fresh: VolumeId,
    ) -> Result<Volume> {
        let name = parse_name(&format!("root-{}", fresh.short()))?;
        let mut meta = Meta::new(fresh, old.meta.project, name, self.now());
        meta.description.clone_from(&old.meta.description);
        let source = match image.kind {
            ImageKind::Disk => VolumeSource::Image(image.meta.id),
            _ => VolumeSource::Empty,
        };
        let size_gib = old.size_gib.max(needed_gib);
        Ok(Volume {
            attached_to: old.attached_to,
            attached_at: Some(self.now()),
            delete_with_instance: old.delete_with_instance,
            bootable: true,
            node: old.node,
            ..fresh_volume(meta, size_gib, old.provisioning, source)
        })
    }

    fn rebuild_pod(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        next: &mut Instance,
        asked: &Rebuild,
    ) -> Result<()> {
        if let Some(reference) = &asked.image {
            let [container] = next.containers.as_mut_slice() else {
                let message = format!("{} has several containers, each with an image", next.meta.name);
                return Err(Error::invalid("image", message).hint("rebuild it from the images it has"));
            };
            let image = self.oci_image(tx, caller, reference)?;
            self.refuse_failed_oci(&image)?;
            container.image = Some(image.meta.id);
        }
        if !asked.env.is_empty() || asked.args.is_some() {
            let [container] = next.containers.as_mut_slice() else {
                let message = format!("{} has several containers, each with variables", next.meta.name);
                return Err(Error::invalid("env", message).hint("play its file again, or make it anew"));
            };
            for (name, value) in &asked.env {
                match value {
                    Some(value) => drop(container.env.insert(name.clone(), value.clone())),
                    None => drop(container.env.remove(name)),
                }
            }
            container.args = asked.args.clone().or(container.args.take());
            super::pod::check_environment(container)?;
        }
        next.build += 1;
        Ok(())
    }

    fn say_anew(&self, caller: &Caller, next: &mut Instance, asked: &Rebuild) -> Result<()> {
        if let Some(name) = &asked.name {
            next.meta.name = parse_name(name)?;
        }
        if let Some(description) = &asked.description {
            next.meta.description.clone_from(description);
        }
        if let Some(labels) = &asked.labels {
            next.meta.labels.clone_from(labels);
        }
        if let Some(names) = &asked.keypairs {
            next.keys = self.keys_asked(caller, asked.user, names)?;
        }
        if let Some(text) = &asked.user_data_base64 {
            next.user_data_base64.clone_from(text);
        }
        next.access = asked.access.unwrap_or(next.access);
        Ok(())
    }
}

/// Refuses what is going, and what waits for its user's word on another size.
pub(super) fn refuse_unsettled(instance: &Instance) -> Result<()> {
    let name = &instance.meta.name;
    if instance.meta.is_deleting() {
        return Err(Error::new(Code::Conflict, format!("{name} is being deleted")));
    }
    super::action::refuse_asleep(instance)?;
    super::rescue::refuse_rescued(instance)?;
    if instance.trial.is_some() {
        return Err(Error::new(Code::Conflict, format!("{name} has another size on trial"))
            .hint(format!("`holm resize {name} --confirm` or `holm resize {name} --revert` first")));
    }
    Ok(())
}
