//! Copies of volumes: as volumes and as images. Each freezes what is there and takes no time, whatever the size.

use super::SourceFound;
use crate::{Caller, Control, Error, Result, Role, schema::VOLUME_BY_GROUND, transact::Transaction};
use model::{
    error::Code,
    id::{ImageId, SnapshotId, VolumeId},
    image::{BackupOf, Image, ImageKind, ImageSource, ImageStatus, Visibility},
    instance::{Instance, InstanceStatus, Kind, Power, State},
    meta::{Labels, Meta},
    plan::DiskFormat,
    snapshot::{Snapshot, SnapshotState},
    volume::{Form, Ground, LAYERS_MAX, Origin, Volume, VolumeSource},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::Stored;

/// An image to be made of a volume.
#[derive(Debug, Clone)]
pub struct NewImageOfVolume {
    /// Name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// The volume.
    pub volume: String,
    /// Instead of what it holds now, what it held at this snapshot of it.
    pub snapshot: Option<String>,
    /// Keep the image as a backup of it, which counts as one.
    pub is_backup: bool,
    /// Format of the image.
    pub format: DiskFormat,
    /// Everyone may use it (admins).
    pub public: bool,
    /// It cannot be deleted.
    pub protected: bool,
    /// Properties beside those of the image that the volume once was.
    pub properties: BTreeMap<String, String>,
    /// Labels.
    pub labels: Labels,
}

impl Control {
    /// Freezes a volume in this transaction. Returns the layer that is frozen, and all that it stands on with it.
    pub(crate) fn freeze_volume(
        &self,
        tx: &mut Transaction,
        found: &Stored<Volume>,
    ) -> Result<(u32, Ground)> {
        let volume = &found.record;
        self.refuse_unfreezable(volume)?;
        let mut next = volume.clone();
        let ground = next.freeze();
        next.meta.generation += 1;
        tx.update(found, &next);
        Ok((volume.layer, ground))
    }

    /// Refuses a volume that is a directory, and one that stands on as many layers as can be.
    pub(super) fn refuse_unfreezable(&self, volume: &Volume) -> Result<()> {
        let name = &volume.meta.name;
        let user = volume.attached_to.and_then(|id| self.get::<Instance>(id));
        if let Some(user) = user.as_ref().filter(|user| !user.record.has_own_kernel()) {
            let message = format!(
                "volume {name} is a directory of {}: only disks can be frozen",
                user.record.meta.name
            );
            return Err(
                Error::new(Code::Unsupported, message).hint("copy its files from inside the container")
            );
        }
        self.refuse_directory(volume)?;
        if let Some(user) = user.filter(|user| user.record.kind != Kind::Vm) {
            self.refuse_frozen_under(volume, &user.record)?;
        }
        if volume.ground_above().depth() >= LAYERS_MAX {
            let message = format!("volume {name} stands on {LAYERS_MAX} layers, no more are possible");
            return Err(Error::new(Code::TooLarge, message).hint(
                "detach it after deleting old snapshots, which joins their layers, or copy it with --thick",
            ));
        }
        Ok(())
    }

    /// Refuses a volume that a pod with a machine of its own has at this moment: its guest is led to no other layer.
    fn refuse_frozen_under(&self, volume: &Volume, user: &Instance) -> Result<()> {
        let status = self.instance_status(user.meta.id);
        let is_open = |status: &Arc<Stored<InstanceStatus>>| status.record.volumes.contains(&volume.meta.id);
        if !status.as_ref().is_some_and(is_open) {
            return Ok(());
        }
        let (volume, name) = (&volume.meta.name, &user.meta.name);
        if status.is_some_and(|status| matches!(status.record.state, State::Stopped { .. } | State::Absent)) {
            let message = format!("volume {volume} is open: somebody works on the files of {name}");
            return Err(Error::new(Code::Conflict, message).field("volume").hint("try again in a moment"));
        }
        let message = format!("volume {volume} is in use by {name}, which keeps it as it is until it stops");
        Err(Error::new(Code::Conflict, message).field("volume").hint(format!("`holm stop {name}` first")))
    }

    /// Refuses a volume that a container had: it is a directory, of which no layers are made.
    fn refuse_directory(&self, volume: &Volume) -> Result<()> {
        let form = self.volume_status(volume.meta.id).and_then(|status| status.record.form());
        if form != Some(Form::Directory) {
            return Ok(());
        }
        let message =
            format!("volume {} is a directory of containers: only disks can be frozen", volume.meta.name);
        Err(Error::new(Code::Unsupported, message)
            .field("volume")
            .hint("copy its files from inside a container"))
    }

    pub(super) fn copy_of_volume(&self, tx: &mut Transaction, found: &Stored<Volume>) -> Result<SourceFound> {
        let (_, ground) = self.freeze_volume(tx, found)?;
        let volume = &found.record;
        let origin = Origin { volume: volume.meta.id, snapshot: None, ground };
        Ok(SourceFound {
            source: VolumeSource::Copy(origin),
            least_gib: volume.size_gib,
            bootable: volume.bootable,
            node: volume.node,
        })
    }

    pub(super) fn copy_of_snapshot(&self, snapshot: &Snapshot) -> Result<SourceFound> {
        let name = &snapshot.meta.name;
        let gone = || Error::new(Code::Conflict, format!("snapshot {name} has lost its volume"));
        let volume = self.get::<Volume>(snapshot.volume).ok_or_else(gone)?;
        if self.snapshot_state(snapshot) == SnapshotState::Failed {
            return Err(Error::new(Code::Conflict, format!("snapshot {name} could not be taken")));
        }
        let (volume_id, ground) = (snapshot.volume, snapshot.ground.clone());
        let origin = Origin { volume: volume_id, snapshot: Some(snapshot.meta.id), ground };
        Ok(SourceFound {
            source: VolumeSource::Copy(origin),
            least_gib: snapshot.size_gib,
            bootable: volume.record.bootable,
            node: volume.record.node,
        })
    }

    /// Makes a volume what it was at a snapshot. What was written since is gone, unless another snapshot has it.
    ///
    /// # Errors
    /// `conflict` for a snapshot of another volume and while an instance that may run has it, `not_found`, `forbidden`.
    pub async fn restore_volume(&self, caller: &Caller, volume: &str, snapshot: &str) -> Result<Volume> {
        self.transact(|tx| {
            let found = self.find_own::<Volume>(caller, volume, "putting a volume back")?;
            let snapshot = self.find_for::<Snapshot>(caller, "snapshot", snapshot)?;
            let name = &found.record.meta.name;
            if snapshot.record.volume != found.record.meta.id {
                let message = format!("snapshot {} is not of volume {name}", snapshot.record.meta.name);
                return Err(Error::new(Code::Conflict, message).field("snapshot"));
            }
            self.refuse_untaken(&snapshot.record)?;
            if let Some(user) = found.record.attached_to.and_then(|id| self.get::<Instance>(id)) {
                crate::instance::action::refuse_asleep(&user.record)?;
                let user_name = &user.record.meta.name;
                let phase = self.phase(&user.record);
                if user.record.power != Power::Off || !phase.is_settled() {
                    let message = format!("volume {name} is in {user_name}, which is {phase}");
                    return Err(Error::new(Code::Conflict, message)
                        .hint(format!("`holm stop {user_name}`, or `holm volume detach {name}`")));
                }
                if user.record.kind != Kind::Vm {
                    self.refuse_frozen_under(&found.record, &user.record)?;
                }
                tx.expect(&user);
            }
            tx.expect(&snapshot);
            let mut next = found.record.clone();
            next.put_back(snapshot.record.ground.clone());
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }

    /// Refuses a snapshot that does not hold anything yet: the layer that is to be frozen for it may still be written to, and
    /// would be nobody's once the volume is put back.
    fn refuse_untaken(&self, snapshot: &Snapshot) -> Result<()> {
        let name = &snapshot.meta.name;
        let refuse = |message| Error::new(Code::Conflict, message).field("snapshot");
        match self.snapshot_state(snapshot) {
            SnapshotState::Available => Ok(()),
            SnapshotState::Failed => Err(refuse(format!("snapshot {name} could not be taken"))),
            SnapshotState::Creating => {
                Err(refuse(format!("snapshot {name} is being taken")).hint("try again in a moment"))
            }
        }
    }

    /// Makes an image of a volume as it is now, while it is written to as well.
    ///
    /// # Errors
    /// `invalid`, `taken`, `not_found`, `quota_exceeded`, `forbidden` for public ones, `unsupported` for directories.
    pub async fn image_of_volume(&self, caller: &Caller, new: NewImageOfVolume) -> Result<Image> {
        if new.public {
            caller.require(Role::Admin, "making an image public")?;
        }
        let id = ImageId::from_random(rand::random());
        self.transact(|tx| {
            let found = self
                .find_own::<Volume>(caller, &new.volume, "making an image of a volume")
                .map_err(|e| e.field("volume"))?;
            let volume = &found.record;
            let (ground, size_gib, snapshot) = self.held(tx, caller, &found, new.snapshot.as_deref())?;
            let backup = BackupOf { volume: volume.meta.id, snapshot, bootable: volume.bootable };
            let base = self.image_below(volume, &ground);
            self.stand_on_boot(tx, base.as_ref().and_then(|base| base.record.boot.as_ref()), id);
            let name = match new.name.as_str() {
                "" => format!("image-{}", id.short()),
                name => name.to_string(),
            };
            let mut meta = Meta::new(id, caller.project, super::parse_name(&name)?, self.now());
            meta.description.clone_from(&new.description);
            meta.labels.clone_from(&new.labels);
            let mut properties = base.as_ref().map(|b| b.record.properties.clone()).unwrap_or_default();
            properties.extend(new.properties.clone());
            let image = Image {
                meta,
                kind: ImageKind::Disk,
                visibility: if new.public { Visibility::Public } else { Visibility::Private },
                source: ImageSource::Volume { volume: volume.meta.id, ground, size_gib, format: new.format },
                arch: base.as_ref().map_or(std::env::consts::ARCH.to_string(), |b| b.record.arch.clone()),
                boot: base.as_ref().and_then(|b| b.record.boot.clone()),
                uefi: base.as_ref().is_some_and(|b| b.record.uefi),
                min_disk_gib: size_gib,
                min_memory_mib: base.as_ref().map_or(0, |b| b.record.min_memory_mib),
                protected: new.protected,
                login: base.as_ref().and_then(|b| b.record.login.clone()),
                properties,
                asked: 0,
                tags: BTreeSet::new(),
                hidden: false,
                deactivated: false,
                disk_format: None,
                container_format: None,
                members: BTreeMap::new(),
                name_repeats: false,
                untagged: false,
                step: None,
                reach: caller.reach(),
                backup: new.is_backup.then_some(backup),
            };
            self.charge(tx, caller.project, &[(image.resource(), 1)]);
            tx.create(&image);
            Ok(image)
        })
        .await
    }

    /// What a volume holds now, which is frozen by that, or held at a snapshot: the layers, and the size in GiB.
    fn held(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        found: &Stored<Volume>,
        snapshot: Option<&str>,
    ) -> Result<(Ground, u64, Option<SnapshotId>)> {
        let Some(reference) = snapshot else {
            return Ok((self.freeze_volume(tx, found)?.1, found.record.size_gib, None));
        };
        let snapshot = self.find_for::<Snapshot>(caller, "snapshot", reference)?;
        let name = &snapshot.record.meta.name;
        let refuse = |message| Err(Error::new(Code::Conflict, message).field("snapshot"));
        if snapshot.record.volume != found.record.meta.id {
            return refuse(format!("snapshot {name} is not of volume {}", found.record.meta.name));
        }
        if self.snapshot_state(&snapshot.record) == SnapshotState::Failed {
            return refuse(format!("snapshot {name} could not be taken"));
        }
        tx.expect(&snapshot);
        let Snapshot { meta, ground, size_gib, .. } = &snapshot.record;
        Ok((ground.clone(), *size_gib, Some(meta.id)))
    }

    /// Makes a volume what a backup holds. What was written since is gone, unless a snapshot has it.
    ///
    /// # Errors
    /// `invalid` for an image that is no backup or is larger than the volume, `conflict` while it is not ready and while
    /// an instance has the volume, `not_found`, `forbidden`.
    pub async fn restore_backup(&self, caller: &Caller, volume: &str, backup: &str) -> Result<Volume> {
        self.transact(|tx| {
            let found = self.find_own::<Volume>(caller, volume, "putting a volume back")?;
            let image = self.find_for::<Image>(caller, "backup", backup)?;
            let (name, image_name) = (&found.record.meta.name, &image.record.meta.name);
            if image.record.backup.is_none() {
                return Err(Error::invalid("backup", format!("image {image_name} is no backup")));
            }
            if image.record.min_disk_gib > found.record.size_gib {
                let (least, has) = (image.record.min_disk_gib, found.record.size_gib);
                let message = format!("volume {name} has {has} GiB, the backup {least} GiB");
                return Err(Error::invalid("volume", message).hint("restore it as a new volume"));
            }
            let is_ready = |s: Arc<Stored<ImageStatus>>| s.record.content().is_some();
            if !self.image_status(image.record.meta.id).is_some_and(is_ready) {
                let message = format!("backup {image_name} is not ready");
                return Err(Error::new(Code::Conflict, message).field("backup"));
            }
            if let Some(user) = found.record.attached_to {
                let message = format!("volume {name} is in {}", self.name_of_instance(user));
                return Err(Error::new(Code::Conflict, message).hint(format!("`holm volume detach {name}`")));
            }
            self.refuse_directory(&found.record)?;
            tx.stand_on::<Image>(image.record.meta.id);
            let mut next = found.record.clone();
            next.put_back(Ground { stretches: vec![], image: Some(image.record.meta.id) });
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }

    /// The image that says how a disk boots: the one that it once was, or the one that its instance boots with.
    fn image_below(&self, volume: &Volume, ground: &Ground) -> Option<Arc<Stored<Image>>> {
        let of_instance = || {
            let user = self.get::<Instance>(volume.attached_to?)?;
            let is_root = user.record.root_volume() == Some(volume.meta.id);
            user.record.image.filter(|_| is_root)
        };
        self.get::<Image>(ground.image.or_else(of_instance)?)
    }

    /// Volumes that stand on layers of this one.
    pub fn copies_of_volume(&self, id: VolumeId) -> Vec<VolumeId> {
        let all = self.store.by_index(&VOLUME_BY_GROUND, &id.to_string());
        all.iter().map(|v| v.record.meta.id).filter(|other| *other != id).collect()
    }
}
