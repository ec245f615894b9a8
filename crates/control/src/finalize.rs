//! The end of an instance: when its node says that nothing is left, its records go in one transaction.

use crate::{Caller, Control, Proof, Result, Role, instance::charges, transact::Transaction};
use model::{
    health::{probe::Purpose, status::ContainerHealth},
    id::{InstanceId, PortId, VolumeId},
    instance::{Instance, InstanceStatus, State},
    port::{Device, Port},
    quota::Resource,
    volume::Volume,
};
use store::Stored;

impl Control {
    /// Brings the records around an instance to their end, as far as its node is: frees what was unplugged, removes
    /// what was deleted, asks for the deletion of what was to go at its end. Doing it twice is doing it once.
    ///
    /// # Errors
    /// What the store refuses; try again.
    pub async fn finalize_instance(&self, id: InstanceId) -> Result<()> {
        let Some(instance) = self.get::<Instance>(id) else {
            return Ok(());
        };
        let Some(status) = self.instance_status(id) else {
            return Ok(());
        };
        if instance.record.meta.is_deleting() {
            if status.record.gone {
                self.transact(|tx| self.drop_instance(tx, id)).await?;
            }
            return Ok(());
        }
        // One that sleeps goes on.
        let ended = matches!(status.record.state, State::Stopped { .. })
            && !status.record.asleep
            && status.record.boot >= instance.record.boots;
        if instance.record.remove_on_exit && ended {
            let caller = system_caller(instance.record.meta.project);
            self.delete_instance(&caller, &id.to_string()).await?;
        }
        self.free_unplugged(id).await
    }

    /// Ports and volumes that the wish no longer has and the guest let go of. Each is judged in its own transaction: what is
    /// plugged in meanwhile stays.
    async fn free_unplugged(&self, id: InstanceId) -> Result<()> {
        for port in self.ports_of_instance(id) {
            self.transact(|tx| self.free_unplugged_port(tx, id, port.record.meta.id)).await?;
        }
        for volume in self.volumes_of_instance(id) {
            self.transact(|tx| self.free_unplugged_volume(tx, id, volume.record.meta.id)).await?;
        }
        Ok(())
    }

    fn free_unplugged_port(&self, tx: &mut Transaction, id: InstanceId, port: PortId) -> Result<()> {
        let Some(found) = self.get::<Port>(port).filter(|found| found.record.instance() == Some(id)) else {
            return Ok(());
        };
        if self.is_let_go(tx, id, |wish, seen| wish.ports.contains(&port) || seen.ports.contains(&port)) {
            self.free_port(tx, &found);
        }
        Ok(())
    }

    fn free_unplugged_volume(&self, tx: &mut Transaction, id: InstanceId, volume: VolumeId) -> Result<()> {
        let found = self.get::<Volume>(volume).filter(|found| found.record.attached_to == Some(id));
        let Some(found) = found else {
            return Ok(());
        };
        let has = |wish: &Instance, seen: &InstanceStatus| {
            wish.volumes.contains(&volume) || seen.volumes.contains(&volume)
        };
        if !self.is_let_go(tx, id, has) {
            return Ok(());
        }
        let is_kept = !self.snapshots_of(volume).is_empty();
        if found.record.meta.is_deleting() && !is_kept {
            self.drop_volume(tx, &found);
            return Ok(());
        }
        let mut next = found.record.clone();
        next.meta.deleted_at = None;
        next.set_free();
        tx.update(&found, &next);
        Ok(())
    }

    /// Whether neither the wish nor the guest `has` something of an instance. Then that must still be so in the commit.
    fn is_let_go(
        &self,
        tx: &mut Transaction,
        id: InstanceId,
        has: impl Fn(&Instance, &InstanceStatus) -> bool,
    ) -> bool {
        let (Some(wish), Some(seen)) = (self.get::<Instance>(id), self.instance_status(id)) else {
            return false;
        };
        if has(&wish.record, &seen.record) {
            return false;
        }
        tx.expect(&wish);
        tx.raw().expect_unchanged::<InstanceStatus>(&id.to_string(), seen.mod_revision);
        true
    }

    fn free_port(&self, tx: &mut Transaction, port: &Stored<Port>) {
        if port.record.delete_with_instance {
            self.drop_port(tx, port);
            return;
        }
        self.release_internal_of(tx, port.record.meta.id);
        let mut next = port.record.clone();
        next.device = Device::None;
        next.device_tag = None;
        next.meta.touch(self.now());
        tx.update(port, &next);
    }

    fn drop_instance(&self, tx: &mut Transaction, id: InstanceId) -> Result<()> {
        let Some(instance) = self.get::<Instance>(id) else {
            return Ok(());
        };
        let mut bare = instance.record.clone();
        bare.publish.clear();
        let caller = system_caller(bare.meta.project);
        self.take_host_ports(tx, &caller, &instance.record.publish, &mut bare)?;
        for port in self.ports_of_instance(id) {
            self.free_port(tx, &port);
        }
        for volume in self.volumes_of_instance(id) {
            // Snapshots are what somebody wanted to keep: their volume stays with them.
            let is_kept = !self.snapshots_of(volume.record.meta.id).is_empty();
            if volume.record.delete_with_instance && !is_kept {
                self.drop_volume(tx, &volume);
            } else {
                let mut next = volume.record.clone();
                next.set_free();
                tx.update(&volume, &next);
            }
        }
        let record = &instance.record;
        if let (Some(node), Some(slot)) = (record.node, record.id_slot) {
            tx.release(&format!("slot/{node}"), &slot.to_string(), "instance");
        }
        let size = record.charged();
        let disk_more = record.trial.as_ref().map_or(0, |trial| trial.disk_more_gib.cast_signed());
        let change = [(Resource::Instances, -1), (Resource::VolumeGib, -disk_more)];
        self.charge(tx, record.meta.project, &change);
        self.charge(tx, record.meta.project, &charges(record.kind, size, -1));
        tx.raw().remove::<InstanceStatus>(&id.to_string());
        for container in &record.containers {
            let of_probes = container.probes.all().into_iter().map(|(purpose, _)| purpose);
            for purpose in of_probes.chain([Purpose::Health]) {
                tx.raw().remove::<ContainerHealth>(&ContainerHealth::key_of(id, &container.name, purpose));
            }
        }
        tx.delete(&instance);
        Ok(())
    }
}

/// The cloud itself, acting for a project.
pub fn system_caller(project: model::id::ProjectId) -> Caller {
    Caller { project, role: Role::Admin, actor: "holm".into(), request_id: String::new(), proof: Proof::Peer }
}
