//! Starting, stopping and removing VMs.
//!
//! Each verb holds the guest's turn, looks first and does what is missing, so that a crash on either side of any step is
//! mended by doing it again.

use model::{
    id::InstanceId,
    plan::{Body, BootPlan, InstancePlan, VmPlan},
};
use serde_json::json;
use std::{io, sync::Arc, time::Duration};
use sys::pidfd::PidFd;
use tokio::task::spawn_blocking;

use super::{
    agent::ShutdownMode,
    argv, config_drive,
    device::{DISK_PORTS, NIC_PORTS},
    driver::Inner,
    files::ProcessRecord,
    guest::{self, Guest},
    launch::{self, Order},
    machine::{BootRecord, HostFacts, Machine},
    sight::{Found, Mute},
};
use crate::driver::{DriverError, Exit};

/// A started QEMU opens its monitor within this time.
const GREETING_DEADLINE: Duration = Duration::from_secs(15);
/// Entropy on the config drive, as much as nova gives.
const RANDOM_SEED_BYTES: usize = 512;

impl Inner {
    pub(super) async fn start(self: &Arc<Self>, plan: &InstancePlan) -> Result<(), DriverError> {
        let Body::Vm(vm) = &plan.body else {
            let hint = "Ask the driver of containers.".to_owned();
            return Err(DriverError::Unsupported { what: "this instance is no VM".to_owned(), hint });
        };
        let guest = self.guest(plan.id);
        let _turn = guest.turn.lock().await;
        let wakes = guest.sleeping_boot()? == Some(plan.boot);
        match self.find(&guest).await? {
            Found::Dead => {}
            // As long as memory is on disk no vCPU has run with it: what is there was cut short.
            Found::Alive(link, _) if wakes => link.end().await?,
            Found::Alive(link, status) if link.record.boot == plan.boot && is_under_way(&status) => {
                return Ok(());
            }
            Found::Alive(link, _) => link.end().await?,
            Found::Mute(record, _, error) if record.boot == plan.boot && !wakes => return Err(error),
            Found::Mute(_, process, _) => guest::kill(&process).await?,
        }
        guest.set_link(None);
        let order = match wakes {
            true => self.waking_order(plan, vm, &guest).await?,
            false => self.order(plan, vm, &guest).await?,
        };
        let starting = spawn_blocking(move || order.carry_out()).await;
        let (process, record) = starting.map_err(|error| DriverError::Io {
            operation: "starting QEMU".to_owned(),
            source: io::Error::other(error),
        })??;
        match self.let_go(&guest, record, &process).await {
            Ok(()) => Ok(()),
            // Its memory is in this QEMU alone by now. The next look finds it frozen, and lets it go on.
            Err(error) if wakes && !matches!(guest.files.memory().try_exists(), Ok(true)) => {
                tracing::warn!(id = %guest.id, %error, "a VM is awake and does not go on yet");
                guest.set_link(None);
                Err(error)
            }
            Err(error) => Err(self.give_up(&guest, &process, error).await),
        }
    }

    pub(super) async fn order(
        &self,
        plan: &InstancePlan,
        vm: &VmPlan,
        guest: &Guest,
    ) -> Result<Order, DriverError> {
        let facts = self.hardware.facts().await?;
        check(plan, vm, &facts)?;
        let judgement = self.hardware.judgement().await;
        let accelerator = judgement.choose(vm.accelerator)?;
        let failed = launch::failed("reading the VM's record");
        let recorded = BootRecord::read(&guest.files.boot_record()).map_err(failed)?;
        let machine =
            Machine::for_boot(plan, vm, &facts, accelerator, recorded.as_ref().map(|record| &record.machine));
        let launch = argv::compile(plan, vm, &machine, &facts);
        let seed: [u8; RANDOM_SEED_BYTES] = std::array::from_fn(|_| rand::random());
        let drive = vm.config_drive.then(|| config_drive::build(&vm.guest, &seed)).transpose();
        let config_drive = drive.map_err(|error| DriverError::Refused {
            operation: "making the config drive".to_owned(),
            answer: error.to_string(),
        })?;
        Ok(Order {
            record: BootRecord { instance: plan.id, boot: plan.boot, machine },
            plan: plan.clone(),
            launch,
            facts,
            kvm_group: judgement.device_group,
            files: guest.files.clone(),
            cgroups: self.settings.cgroups.clone(),
            config_drive,
            wakes: false,
        })
    }

    /// Waits for the monitor of a QEMU that was just started, checks it and lets the guest go.
    pub(super) async fn let_go(
        self: &Arc<Self>,
        guest: &Arc<Guest>,
        record: ProcessRecord,
        process: &PidFd,
    ) -> Result<(), DriverError> {
        let link = tokio::select! {
            link = self.link(guest, GREETING_DEADLINE) => link,
            ended = guest::wait_exit(process, GREETING_DEADLINE) => { ended?; Ok(None) }
        };
        let link = match link {
            Ok(Some(link)) if link.record == record => link,
            Ok(_) => return Err(DriverError::NotRunning),
            Err(Mute::Process(_, _, error) | Mute::Unknown(error)) => return Err(error),
        };
        let status = link.status().await?;
        match status.as_str() {
            "prelaunch" => {}
            "inmigrate" => self.bring_memory_back(guest, &link).await?,
            _ => {
                let operation = "starting the guest".to_owned();
                return Err(DriverError::Refused { operation, answer: format!("QEMU is in state {status}") });
            }
        }
        link.qmp.execute("cont", json!({})).await?;
        Ok(())
    }

    /// Removes a QEMU that did not come up, and says why with QEMU's own words.
    pub(super) async fn give_up(&self, guest: &Guest, process: &PidFd, error: DriverError) -> DriverError {
        guest.set_link(None);
        let killed = guest::kill(process).await;
        if let Err(error) = killed {
            return error;
        }
        let messages = guest.files.last_messages();
        tracing::warn!(id = %guest.id, %error, %messages, "QEMU did not come up");
        match error {
            DriverError::NotRunning => {
                DriverError::Refused { operation: "QEMU did not start".to_owned(), answer: messages }
            }
            error => error,
        }
    }

    pub(super) async fn kill(self: &Arc<Self>, id: InstanceId) -> Result<(), DriverError> {
        let guest = self.guest(id);
        let _turn = guest.turn.lock().await;
        self.kill_in_turn(&guest).await
    }

    pub(super) async fn kill_in_turn(self: &Arc<Self>, guest: &Arc<Guest>) -> Result<(), DriverError> {
        let exit = |boot| Exit {
            code: None,
            cause: "killed on request".to_owned(),
            failed: false,
            boot,
            started_ms: None,
            facts: Default::default(),
        };
        let record =
            |boot| guest.files.record_exit(exit(boot)).map_err(launch::failed("recording the VM's end"));
        match self.find(guest).await? {
            Found::Dead => {}
            Found::Alive(link, _) => {
                record(link.record.boot)?;
                link.end().await?;
            }
            Found::Mute(known, process, _) => {
                record(known.boot)?;
                guest::kill(&process).await?;
            }
        }
        guest.set_link(None);
        let (cgroups, name) = (self.settings.cgroups.clone(), guest.id.to_string());
        on_blocking_thread("ending the VM's processes", move || cgroups.kill(&name)).await
    }

    pub(super) async fn destroy(self: &Arc<Self>, id: InstanceId) -> Result<(), DriverError> {
        let guest = self.guest(id);
        let turn = guest.turn.lock().await;
        self.kill_in_turn(&guest).await?;
        let (cgroups, name) = (self.settings.cgroups.clone(), id.to_string());
        on_blocking_thread("removing the VM's control group", move || cgroups.delete(&name)).await?;
        guest.files.remove_all().map_err(launch::failed("removing the VM's files"))?;
        drop(turn);
        self.guests.lock().expect("no holder panics").remove(&id);
        Ok(())
    }

    pub(super) async fn shutdown(self: &Arc<Self>, id: InstanceId) -> Result<(), DriverError> {
        let guest = self.guest(id);
        let _turn = guest.turn.lock().await;
        let (_, link) = self.running(id).await?;
        if link.status().await? == "paused" {
            link.qmp.execute("cont", json!({})).await?;
        }
        let asked = guest.ask_agent(&link, async |agent| agent.shutdown(ShutdownMode::Powerdown).await).await;
        match asked {
            Ok(Some(())) => Ok(()),
            // Without an agent, or with one that does not answer, by the power button.
            _ => Ok(link.qmp.execute("system_powerdown", json!({})).await.map(drop)?),
        }
    }
}

/// Whether a QEMU in this state has a boot under way that a repeated start must leave alone.
fn is_under_way(status: &str) -> bool {
    !matches!(status, "prelaunch" | "shutdown" | "guest-panicked" | "internal-error")
}

pub(super) fn check(plan: &InstancePlan, vm: &VmPlan, facts: &HostFacts) -> Result<(), DriverError> {
    let unsupported =
        |what: String, hint: &str| Err(DriverError::Unsupported { what, hint: hint.to_owned() });
    if plan.nics.len() > NIC_PORTS {
        let what = format!("{} network cards were asked for, a VM has {NIC_PORTS} at most", plan.nics.len());
        return unsupported(what, "Detach some.");
    }
    if plan.disks.len() > DISK_PORTS {
        let what = format!("{} disks were asked for, a VM has {DISK_PORTS} at most", plan.disks.len());
        return unsupported(what, "Detach some.");
    }
    if matches!(vm.boot, BootPlan::Firmware { uefi: true }) && facts.uefi.is_none() {
        let hint = "Install it: `apt install ovmf`, `dnf install edk2-ovmf`.".to_owned();
        return Err(DriverError::Missing { what: "UEFI firmware (OVMF)".to_owned(), hint });
    }
    Ok(())
}

pub(super) async fn on_blocking_thread<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> sys::Result<T> + Send + 'static,
) -> Result<T, DriverError> {
    let failed = |source| DriverError::Io { operation: operation.to_owned(), source };
    match spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| failed(error.into())),
        Err(error) => Err(failed(io::Error::other(error))),
    }
}
