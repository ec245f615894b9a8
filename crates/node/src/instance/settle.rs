//! Rest: nothing is to be started or stopped, so what is plugged in is brought up to date with the wish.

use super::{InstanceError, Instances, LENT_PAUSE, deadline::Timed, sentence};
use crate::{driver::Seen, volume::files::DiskFiles};
use model::{
    id::{PortId, VolumeId},
    image::Image,
    instance::{Instance, InstanceStatus, Kind, Power, State, keys::KeyChange},
    plan::DiskFormat,
    volume::{Provisioning, Volume, VolumeStatus},
};
use reconcile::Outcome;
use std::{io, path::PathBuf};

/// What a running guest's progress says while it is given something.
const PLUGGING: &str = "plugging in";

impl Instances {
    /// Brings what is plugged in up to date with the wish, and says that nothing is wrong.
    pub(super) async fn settle(&self, instance: &Instance, driver: &Timed) -> Result<Outcome, InstanceError> {
        let id = instance.meta.id;
        let mut are_lent = false;
        let (ports, volumes) = match driver.observe(id).await? {
            Seen::Absent | Seen::Stopped(_) => {
                let lent = self.lent_of(instance, driver).await;
                are_lent = !lent.is_empty();
                (vec![], lent)
            }
            Seen::Asleep { .. } => {
                // Its memory is on disk; a process that was left when that was cut off gives back what it has.
                driver.suspend(id).await?;
                (vec![], vec![])
            }
            // A frozen guest neither finds what is plugged in nor lets go: it waits for its thaw.
            Seen::Paused(_) | Seen::Stalled(_) => driver.attached(id).await?,
            Seen::Running(_) => {
                self.resize(instance, driver).await?;
                self.hand_over_keys(instance, driver).await?;
                self.plug_and_unplug(instance, driver).await?
            }
        };
        let layers = self.layers_of(&volumes);
        self.note(instance, |status| {
            if matches!(status.state, State::Stopped { .. }) {
                // What does not start with the host now must not be started by a change of its switches later.
                status.host_boot.clone_from(&self.host_boot);
            }
            status.ports = ports;
            status.layers.retain(|id, _| volumes.contains(id));
            if are_lent && status.volumes != volumes {
                // Nobody had them open until now.
                status.layers = layers;
            }
            status.volumes = volumes;
            status.progress.clear();
            status.failures = 0;
            status.fault = None;
            if instance.power == Power::Off {
                status.restarts = 0;
            }
        })
        .await?;
        // Nobody tells when what was open is not any more.
        Ok(if are_lent { Outcome::After(LENT_PAUSE) } else { Outcome::Done })
    }

    /// Gives a running guest another size as far as it takes one; the rest comes with its next boot.
    async fn resize(&self, instance: &Instance, driver: &Timed) -> Result<(), InstanceError> {
        // One that was started before this was noted could not be given another size while it ran.
        let has = self.status(instance).grant.unwrap_or(instance.grant());
        if has == instance.grant() {
            return Ok(());
        }
        let now = driver.resize(&self.plan(instance)?, has).await?;
        let disk_waits = now.disk_gib != instance.grant().disk_gib;
        self.note(instance, |status| (status.grant, status.disk_waits) = (Some(now), disk_waits)).await
    }

    /// Tells a running guest which keys it lets in by now. One that cannot be told keeps those it has, which is shown
    /// and is no fault of the instance: it is told when its agent comes up, or by a later run.
    async fn hand_over_keys(&self, instance: &Instance, driver: &Timed) -> Result<(), InstanceError> {
        if instance.kind != Kind::Vm {
            return Ok(());
        }
        let status = self.status(instance);
        let change = status.keys.as_ref().map(|has| KeyChange::between(&instance.keys, has));
        let told = match change {
            // One that was started before this was noted has those that it was made with.
            None => Ok(true),
            Some(change) if change.is_empty() => Ok(true),
            Some(change) => driver.change_keys(instance.meta.id, &self.login(instance), &change).await,
        };
        let refused = match told {
            Ok(true) => None,
            Ok(false) => Some("no guest agent answers in it".to_string()),
            Err(error) => Some(sentence(&error)),
        };
        self.note(instance, |status| match refused {
            None => {
                status.keys = Some(instance.keys.clone());
                status.keys_refused.clear();
            }
            Some(why) => status.keys_refused = why,
        })
        .await
    }

    /// The user whom the image lets in.
    pub(super) fn login(&self, instance: &Instance) -> String {
        let id = instance.image.or_else(|| instance.containers.first()?.image);
        let image = id.and_then(|id| self.store.get::<Image>(&id.to_string()));
        image.and_then(|image| image.record.login.clone()).unwrap_or_else(|| "root".into())
    }

    async fn plug_and_unplug(
        &self,
        instance: &Instance,
        driver: &Timed,
    ) -> Result<(Vec<PortId>, Vec<VolumeId>), InstanceError> {
        let id = instance.meta.id;
        let (ports, volumes) = driver.attached(id).await?;
        let missing = instance.ports.iter().any(|p| !ports.contains(p))
            || (instance.kind == Kind::Vm && instance.volumes.iter().any(|v| !volumes.contains(v)));
        if missing && self.not_ready(instance).await?.is_none() {
            self.plug(instance, driver, &ports, &volumes).await?;
        }
        if instance.kind == Kind::Vm {
            self.stack(instance, driver, &volumes).await?;
            self.grow(instance, driver, &volumes).await?;
        }
        // One that was being plugged in when that was cut off may be half there, and is noted in the status alone.
        let noted = self.status(instance).ports;
        let others = noted.iter().filter(|port| !ports.contains(port));
        for port in ports.iter().chain(others).filter(|port| !instance.ports.contains(port)) {
            driver.detach_nic(id, *port).await?;
        }
        for volume in volumes.iter().filter(|v| !instance.volumes.contains(v)) {
            driver.detach_disk(id, *volume).await?;
        }
        Ok(driver.attached(id).await?)
    }

    async fn plug(
        &self,
        instance: &Instance,
        driver: &Timed,
        ports: &[PortId],
        volumes: &[VolumeId],
    ) -> Result<(), InstanceError> {
        for port in self.gather.ports(&instance.ports) {
            if !ports.contains(&port.meta.id) {
                self.wires.ensure(port.network).await?;
            }
        }
        let volumes_missing: Vec<VolumeId> = match instance.kind {
            Kind::Vm => instance.volumes.iter().filter(|v| !volumes.contains(v)).copied().collect(),
            _ => vec![],
        };
        let ports_wanted = self.ports_of(instance);
        let layers = self.layers_of(&volumes_missing);
        // Written before the guest can have it: what it may hold must not be given to others.
        self.note(instance, |status| {
            let more = ports_wanted.iter().filter(|p| !ports.contains(p));
            status.ports = ports.iter().chain(more).copied().collect();
            status.volumes = volumes.iter().chain(&volumes_missing).copied().collect();
            status.layers.extend(layers.clone());
            // Until all of it is there, which the end of this run says.
            status.progress = PLUGGING.into();
        })
        .await?;
        // One that was frozen a moment ago is plugged in by the next run, which that change brings.
        if self.layers_of(&volumes_missing) != layers {
            return Ok(());
        }
        let plan = self.plan(instance)?;
        let nics = plan.nics.iter().filter(|n| !ports.contains(&n.port));
        let disks = plan.disks.iter().filter(|d| volumes_missing.contains(&d.volume));
        for nic in nics {
            driver.attach_nic(instance.meta.id, nic).await?;
        }
        for disk in disks {
            driver.attach_disk(instance.meta.id, disk).await?;
        }
        Ok(())
    }

    /// Leads guests to layers that were made above those to which they write. That the ones below are frozen is said by
    /// the volumes' own loop, which sees it in the status.
    async fn stack(
        &self,
        instance: &Instance,
        driver: &Timed,
        plugged: &[VolumeId],
    ) -> Result<(), InstanceError> {
        for (place, id) in instance.volumes.iter().enumerate().filter(|(_, id)| plugged.contains(id)) {
            let wish = self.store.get::<Volume>(&id.to_string());
            let Some(volume) = self.store.get::<VolumeStatus>(&id.to_string()) else { continue };
            if wish.is_none_or(|wish| wish.record.attached_read_only) {
                continue;
            }
            let has = self.status(instance).layers.get(id).copied().unwrap_or(0);
            let made = volume.record.layer_made;
            // The status tells of another layer until the volumes' loop has seen the last move.
            if made <= has || volume.record.layer != has {
                continue;
            }
            let disk = self.disk(instance, place, *id)?;
            let files = DiskFiles::new(self.dirs.disks.clone(), self.dirs.images.clone());
            let above: Vec<PathBuf> =
                (has + 1..=made).map(|layer| files.path(*id, layer, DiskFormat::Qcow2)).collect();
            driver.stack_disk(instance.meta.id, &disk, &above).await?;
            self.note(instance, |status| {
                status.layers.insert(*id, made);
            })
            .await?;
        }
        Ok(())
    }

    /// Makes disks larger whose wish grew while the guest has them. What they became is read back by their own loop.
    async fn grow(
        &self,
        instance: &Instance,
        driver: &Timed,
        plugged: &[VolumeId],
    ) -> Result<(), InstanceError> {
        for (place, id) in instance.volumes.iter().enumerate().filter(|(_, id)| plugged.contains(id)) {
            let volume = self.store.get::<Volume>(&id.to_string());
            let status = self.store.get::<VolumeStatus>(&id.to_string());
            let (Some(volume), Some(status)) = (volume, status) else { continue };
            let volume = &volume.record;
            // Its new layer grows, once that is known to be the one that takes writes.
            let is_read = volume.attached_read_only;
            if !is_read && status.record.layer != self.status(instance).layers.get(id).copied().unwrap_or(0) {
                continue;
            }
            // A disk that the guest may only read is open for reading: it grows when the guest has let go of it.
            if status.record.size_gib >= volume.size_gib || volume.refuses_writes() {
                continue;
            }
            let disk = self.disk(instance, place, *id)?;
            let size_bytes = volume.size_gib << 30;
            if volume.provisioning == Provisioning::Thick && disk.format == DiskFormat::Raw {
                reserve(disk.path.clone(), size_bytes).await?;
            }
            driver.grow_disk(instance.meta.id, &disk, size_bytes).await?;
            // Nobody may be listening yet: then all volumes are looked at anyway.
            let _ = self.grown.send(*id);
        }
        Ok(())
    }
}

/// Whether the boot that comes is the first on the disks that the guest has then: the one at which it takes its keys.
pub(super) fn takes_keys(instance: &Instance, status: &InstanceStatus) -> bool {
    status.keys.is_none() || status.boot < instance.rebuilt
}

/// Takes the space that a thick disk will have. The guest does not see it before it is told.
async fn reserve(path: PathBuf, size_bytes: u64) -> Result<(), InstanceError> {
    let failed = |error: io::Error| InstanceError::Storage {
        what: format!("a disk cannot grow to {} GiB: {error}", size_bytes >> 30),
        hint: "free space on the host".into(),
    };
    let work = move || {
        let file = std::fs::OpenOptions::new().write(true).open(&path)?;
        sys::file::allocate(&file, size_bytes).map_err(io::Error::from)
    };
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other).and_then(|done| done).map_err(failed)
}
