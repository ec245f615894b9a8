//! The verbs of the fake driver: script, effect, and the points at which its daemon may die.

use super::{Call, FakeHost, Fault, Fuse, Life, State, Verb, streams};
use crate::driver::{
    Driver, DriverError, ExecHandle, ExecRequest, Exit, LogLine, LogQuery, Seen, Stdio, Stream, Usage,
};
use async_trait::async_trait;
use model::{
    id::{InstanceId, PortId, VolumeId},
    instance::{Grant, keys::KeyChange},
    plan::{DiskPlan, InstancePlan, NicPlan},
};
use std::{future::pending, path::PathBuf, sync::Arc};
use tokio::sync::{broadcast, mpsc};

/// One daemon's driver over a [`FakeHost`].
pub struct FakeDriver {
    pub(super) host: FakeHost,
    pub(super) fuse: Arc<Fuse>,
}

fn scripted(verb: Verb) -> DriverError {
    DriverError::Refused { operation: verb.as_str().into(), answer: "a fault of the script".into() }
}

impl FakeDriver {
    /// Notes a call and takes its fault from the script.
    fn begin(&self, verb: Verb, id: Option<InstanceId>) -> Option<Fault> {
        let mut state = self.host.lock();
        state.calls.push(Call { verb, id });
        state.script.get_mut(&verb).and_then(std::collections::VecDeque::pop_front)
    }

    /// One call: may die before, may go wrong as scripted, has its effect, may die after.
    async fn call<T>(
        &self,
        verb: Verb,
        id: Option<InstanceId>,
        effect: impl FnOnce(&mut State) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        let fault = self.before(verb, id).await?;
        let outcome = effect(&mut self.host.lock());
        self.after(verb, fault).await?;
        outcome
    }

    async fn before(&self, verb: Verb, id: Option<InstanceId>) -> Result<Option<Fault>, DriverError> {
        self.fuse.point().await;
        let fault = self.begin(verb, id);
        match fault {
            Some(Fault::FailBefore) => Err(scripted(verb)),
            Some(Fault::HangBefore) => pending().await,
            other => Ok(other),
        }
    }

    async fn after(&self, verb: Verb, fault: Option<Fault>) -> Result<(), DriverError> {
        self.fuse.point().await;
        match fault {
            Some(Fault::FailAfter) => Err(scripted(verb)),
            Some(Fault::HangAfter) => pending().await,
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Driver for FakeDriver {
    async fn observe(&self, id: InstanceId) -> Result<Seen, DriverError> {
        self.call(Verb::Observe, Some(id), |state| Ok(state.seen(id))).await
    }

    async fn list(&self) -> Result<Vec<InstanceId>, DriverError> {
        self.call(Verb::List, None, |state| Ok(state.guests.keys().copied().collect())).await
    }

    async fn start(&self, plan: &InstancePlan) -> Result<(), DriverError> {
        let fault = self.before(Verb::Start, Some(plan.id)).await?;
        self.host.lock().make(plan);
        self.fuse.point().await;
        let now = (self.host.clock)();
        self.host.lock().run(plan, now);
        self.after(Verb::Start, fault).await
    }

    async fn shutdown(&self, id: InstanceId) -> Result<(), DriverError> {
        self.call(Verb::Shutdown, Some(id), |state| {
            state.ask_to_stop(id);
            Ok(())
        })
        .await
    }

    async fn kill(&self, id: InstanceId) -> Result<(), DriverError> {
        self.call(Verb::Kill, Some(id), |state| {
            state.end(id, |boot| Exit {
                code: Some(137),
                cause: "killed".into(),
                failed: false,
                boot,
                started_ms: None,
                facts: Default::default(),
            });
            Ok(())
        })
        .await
    }

    async fn pause(&self, id: InstanceId) -> Result<(), DriverError> {
        self.call(Verb::Pause, Some(id), |state| {
            let guest = state.running(id)?;
            if let Life::Running(running) = guest.life.clone() {
                guest.life = Life::Paused(running);
            }
            Ok(())
        })
        .await
    }

    async fn resume(&self, id: InstanceId) -> Result<(), DriverError> {
        self.call(Verb::Resume, Some(id), |state| {
            let guest = state.running(id)?;
            if let Life::Paused(running) = guest.life.clone() {
                guest.life = Life::Running(running);
            }
            Ok(())
        })
        .await
    }

    async fn suspend(&self, id: InstanceId) -> Result<(), DriverError> {
        self.call(Verb::Suspend, Some(id), |state| state.fall_asleep(id)).await
    }

    async fn discard(&self, id: InstanceId) -> Result<(), DriverError> {
        self.call(Verb::Discard, Some(id), |state| {
            state.forget_memory(id);
            Ok(())
        })
        .await
    }

    async fn destroy(&self, id: InstanceId) -> Result<(), DriverError> {
        let fault = self.before(Verb::Destroy, Some(id)).await?;
        self.host.lock().end(id, |boot| Exit {
            code: Some(137),
            cause: "killed".into(),
            failed: false,
            boot,
            started_ms: None,
            facts: Default::default(),
        });
        self.fuse.point().await;
        self.host.lock().guests.remove(&id);
        self.after(Verb::Destroy, fault).await
    }

    async fn attach_nic(&self, id: InstanceId, nic: &NicPlan) -> Result<(), DriverError> {
        self.call(Verb::AttachNic, Some(id), |state| {
            state.running(id)?.ports.insert(nic.port);
            Ok(())
        })
        .await
    }

    async fn detach_nic(&self, id: InstanceId, port: PortId) -> Result<(), DriverError> {
        self.call(Verb::DetachNic, Some(id), |state| {
            state.unplug(id, |guest| {
                guest.ports.remove(&port);
            })
        })
        .await
    }

    async fn attach_disk(&self, id: InstanceId, disk: &DiskPlan) -> Result<(), DriverError> {
        self.call(Verb::AttachDisk, Some(id), |state| {
            state.running(id)?.volumes.insert(disk.volume);
            Ok(())
        })
        .await
    }

    async fn detach_disk(&self, id: InstanceId, volume: VolumeId) -> Result<(), DriverError> {
        self.call(Verb::DetachDisk, Some(id), |state| {
            state.unplug(id, |guest| {
                guest.volumes.remove(&volume);
            })
        })
        .await
    }

    async fn grow_disk(&self, id: InstanceId, disk: &DiskPlan, size_bytes: u64) -> Result<(), DriverError> {
        self.call(Verb::GrowDisk, Some(id), |state| {
            let guest = state.running(id)?;
            if guest.volumes.contains(&disk.volume) {
                guest.grown.insert(disk.volume, size_bytes);
                return Ok(());
            }
            Err(DriverError::Refused { operation: "grow_disk".into(), answer: "it is not plugged in".into() })
        })
        .await
    }

    async fn resize(&self, plan: &InstancePlan, has: Grant) -> Result<Grant, DriverError> {
        self.call(Verb::Resize, Some(plan.id), |state| {
            let guest = state.running(plan.id)?;
            let is_vm = matches!(plan.body, model::plan::Body::Vm(_));
            let now = if is_vm { Grant { cpu_weight: plan.cpu_weight, ..has } } else { plan.grant() };
            if let Some(known) = &mut guest.plan {
                (known.vcpus, known.memory_mib, known.cpu_weight) =
                    (now.vcpus, now.memory_mib, now.cpu_weight);
            }
            Ok(now)
        })
        .await
    }

    async fn change_keys(
        &self,
        id: InstanceId,
        _login: &str,
        change: &KeyChange,
    ) -> Result<bool, DriverError> {
        self.call(Verb::ChangeKeys, Some(id), |state| {
            let has_agent = state.behaviour(id).has_agent;
            let guest = state.running(id)?;
            if has_agent {
                guest.keys_told.push(change.clone());
            }
            Ok(has_agent)
        })
        .await
    }

    async fn stack_disk(
        &self,
        id: InstanceId,
        disk: &DiskPlan,
        above: &[PathBuf],
    ) -> Result<(), DriverError> {
        self.call(Verb::StackDisk, Some(id), |state| {
            let guest = state.running(id)?;
            if guest.volumes.contains(&disk.volume) {
                guest.stacked.extend(above.last().map(|top| (disk.volume, top.clone())));
                return Ok(());
            }
            Err(DriverError::Refused {
                operation: "stack_disk".into(),
                answer: "it is not plugged in".into(),
            })
        })
        .await
    }

    async fn attached(&self, id: InstanceId) -> Result<(Vec<PortId>, Vec<VolumeId>), DriverError> {
        self.call(Verb::Attached, Some(id), |state| {
            let guest = state.running(id)?;
            Ok((guest.ports.iter().copied().collect(), guest.volumes.iter().copied().collect()))
        })
        .await
    }

    async fn usage(&self, id: InstanceId) -> Result<Usage, DriverError> {
        self.call(Verb::Usage, Some(id), |state| {
            state.running(id)?;
            Ok(Usage { cpu_usage_us: 1, memory_bytes: 1 << 20, pids: 1, ..Usage::default() })
        })
        .await
    }

    async fn console_log(&self, id: InstanceId, bytes_max: usize) -> Result<Vec<u8>, DriverError> {
        let state = self.host.lock();
        let lines = state.logs.get(&id).into_iter().flatten();
        let all: Vec<u8> = lines.flat_map(|line| line.bytes.iter().copied()).collect();
        Ok(all[all.len().saturating_sub(bytes_max)..].to_vec())
    }

    async fn console(&self, id: InstanceId) -> Result<Stream, DriverError> {
        self.host.lock().running(id)?;
        streams::echo()
    }

    async fn vnc(&self, _: InstanceId) -> Result<Stream, DriverError> {
        Err(DriverError::Unsupported {
            what: "a fake instance has no graphical console".into(),
            hint: "use the console".into(),
        })
    }

    async fn logs(&self, id: InstanceId, query: &LogQuery) -> Result<mpsc::Receiver<LogLine>, DriverError> {
        let lines = self.host.lock().logs.get(&id).cloned().unwrap_or_default();
        Ok(streams::send(streams::chosen(lines, query)))
    }

    async fn exec(
        &self,
        id: InstanceId,
        request: &ExecRequest,
        stdio: Stdio,
    ) -> Result<Box<dyn ExecHandle>, DriverError> {
        self.host.lock().running(id)?;
        streams::exec(request, stdio)
    }

    fn changes(&self) -> broadcast::Receiver<InstanceId> {
        self.host.changes.subscribe()
    }
}
