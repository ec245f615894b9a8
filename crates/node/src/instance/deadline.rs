//! A driver whose verbs end in time: a guest or monitor that hangs must hold up its own instance alone, and that only
//! for so long.

use crate::driver::{Driver, DriverError, Seen};
use model::{
    id::{InstanceId, PortId, VolumeId},
    instance::{Grant, keys::KeyChange},
    plan::{DiskPlan, IdRange, InstancePlan, NicPlan},
};
use std::{path::PathBuf, sync::Arc, time::Duration};

/// For a look, which asks a monitor at most.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// For a change of what runs.
const CHANGE_MAX: Duration = Duration::from_secs(60);
/// For memory on its way to a disk or back: a large guest and a slow disk.
const MEMORY_MAX: Duration = Duration::from_secs(3600);
/// For a start or a removal, which may make or remove many files.
const BUILD_MAX: Duration = Duration::from_secs(180);

/// The driver of one instance's kind, with a deadline for every verb. A verb that is cut off is like one that a crash
/// cut off: it is tried again.
#[derive(Clone)]
pub(super) struct Timed(pub(super) Arc<dyn Driver>);

async fn within<T>(
    what: &str,
    limit: Duration,
    verb: impl Future<Output = Result<T, DriverError>>,
) -> Result<T, DriverError> {
    let late = || DriverError::Timeout {
        what: what.to_string(),
        after_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
    };
    tokio::time::timeout(limit, verb).await.unwrap_or_else(|_| Err(late()))
}

impl Timed {
    pub async fn observe(&self, id: InstanceId) -> Result<Seen, DriverError> {
        within("looking at the instance", LOOK_MAX, self.0.observe(id)).await
    }

    pub async fn start(&self, plan: &InstancePlan) -> Result<(), DriverError> {
        within("the start", BUILD_MAX, self.0.start(plan)).await
    }

    /// A start that brings a guest's memory back.
    pub async fn wake(&self, plan: &InstancePlan) -> Result<(), DriverError> {
        within("waking the instance", MEMORY_MAX, self.0.start(plan)).await
    }

    pub async fn suspend(&self, id: InstanceId) -> Result<(), DriverError> {
        within("putting the instance to sleep", MEMORY_MAX, self.0.suspend(id)).await
    }

    pub async fn discard(&self, id: InstanceId) -> Result<(), DriverError> {
        within("throwing memory away", CHANGE_MAX, self.0.discard(id)).await
    }

    pub async fn shutdown(&self, id: InstanceId) -> Result<(), DriverError> {
        within("the request to stop", LOOK_MAX, self.0.shutdown(id)).await
    }

    pub async fn kill(&self, id: InstanceId) -> Result<(), DriverError> {
        within("ending the instance", CHANGE_MAX, self.0.kill(id)).await
    }

    pub async fn pause(&self, id: InstanceId) -> Result<(), DriverError> {
        within("pausing", CHANGE_MAX, self.0.pause(id)).await
    }

    pub async fn resume(&self, id: InstanceId) -> Result<(), DriverError> {
        within("resuming", CHANGE_MAX, self.0.resume(id)).await
    }

    pub async fn destroy(&self, id: InstanceId) -> Result<(), DriverError> {
        within("removing the instance", BUILD_MAX, self.0.destroy(id)).await
    }

    pub async fn attach_nic(&self, id: InstanceId, nic: &NicPlan) -> Result<(), DriverError> {
        within("plugging in an interface", CHANGE_MAX, self.0.attach_nic(id, nic)).await
    }

    pub async fn detach_nic(&self, id: InstanceId, port: PortId) -> Result<(), DriverError> {
        within("unplugging an interface", CHANGE_MAX, self.0.detach_nic(id, port)).await
    }

    pub async fn make_room(&self, id: InstanceId, ids: IdRange) -> Result<(), DriverError> {
        within("making room", CHANGE_MAX, self.0.make_room(id, ids)).await
    }

    pub async fn attach_disk(&self, id: InstanceId, disk: &DiskPlan) -> Result<(), DriverError> {
        within("plugging in a disk", CHANGE_MAX, self.0.attach_disk(id, disk)).await
    }

    pub async fn detach_disk(&self, id: InstanceId, volume: VolumeId) -> Result<(), DriverError> {
        within("unplugging a disk", CHANGE_MAX, self.0.detach_disk(id, volume)).await
    }

    pub async fn grow_disk(
        &self,
        id: InstanceId,
        disk: &DiskPlan,
        size_bytes: u64,
    ) -> Result<(), DriverError> {
        within("growing a disk", CHANGE_MAX, self.0.grow_disk(id, disk, size_bytes)).await
    }

    pub async fn resize(&self, plan: &InstancePlan, has: Grant) -> Result<Grant, DriverError> {
        within("changing the size", CHANGE_MAX, self.0.resize(plan, has)).await
    }

    pub async fn change_keys(
        &self,
        id: InstanceId,
        login: &str,
        change: &KeyChange,
    ) -> Result<bool, DriverError> {
        within("changing the keys", LOOK_MAX, self.0.change_keys(id, login, change)).await
    }

    pub async fn stack_disk(
        &self,
        id: InstanceId,
        disk: &DiskPlan,
        above: &[PathBuf],
    ) -> Result<(), DriverError> {
        within("freezing a disk", CHANGE_MAX, self.0.stack_disk(id, disk, above)).await
    }

    pub async fn lent(&self, id: InstanceId) -> Result<Vec<VolumeId>, DriverError> {
        within("looking at what is open", LOOK_MAX, self.0.lent(id)).await
    }

    pub async fn attached(&self, id: InstanceId) -> Result<(Vec<PortId>, Vec<VolumeId>), DriverError> {
        within("looking at what is plugged in", LOOK_MAX, self.0.attached(id)).await
    }
}
