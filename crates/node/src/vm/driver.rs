//! The driver of virtual machines: what the node's loop asks for, done with QEMU.
//!
//! The truth about a VM is its process and its monitor; the driver remembers nothing that it cannot find again from the
//! files of [`super::files`].
//!
//! ```text
//!   start: files, hardware on record ─▶ QEMU frozen ─▶ process on record ─▶ monitor, uuid checked ─▶ cont
//!   found: nothing since the host began Absent
//!          record, process not cont'ed Stopped at the boot before: its start was cut short, start does it again
//!          memory on disk              Asleep: whatever process is there is being woken, or was cut short
//!          process lives               Running, Paused; or powered off, panicked: ended here, then Stopped
//!          process gone                Stopped, by exit.json or by what the process left
//! ```

use async_trait::async_trait;
use model::{
    id::{InstanceId, PortId, VolumeId},
    instance::{Grant, keys::KeyChange},
    plan::{DiskPlan, InstancePlan, NicPlan},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use sys::cgroup::Tree;
use tokio::{
    sync::{broadcast, mpsc},
    task::spawn_blocking,
};

use super::{
    accel::Judgement,
    agent::GuestInterface,
    console, device, disk_traffic,
    files::Files,
    guest::Guest,
    hardware::Hardware,
    hotplug, launch, layer, login,
    machine::{BootRecord, HostFacts},
    qmp::QmpError,
};
use crate::driver::{
    DiskTraffic, Driver, DriverError, ExecHandle, ExecRequest, LogLine, LogQuery, Seen, Stdio, Stream, Usage,
};

/// Changes kept for a slow listener, who then looks at everything.
const CHANGES_MAX: usize = 1024;

/// Where the driver works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Directory of the instances' sockets, gone with the host's boot: `<run>/instances`.
    pub run: PathBuf,
    /// Directory of the instances' records and logs: `<state>/instances`.
    pub state: PathBuf,
    /// File in which the judgement on KVM is kept.
    pub accelerator_cache: PathBuf,
    /// Control groups of all instances.
    pub cgroups: Tree,
    /// QEMU, if it is not where distributions put it.
    pub qemu: Option<PathBuf>,
}

/// Runs virtual machines on this host.
#[derive(Debug)]
pub struct VmDriver {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) hardware: Arc<Hardware>,
    pub(super) guests: Mutex<HashMap<InstanceId, Arc<Guest>>>,
    pub(super) changes: broadcast::Sender<InstanceId>,
}

impl VmDriver {
    /// A driver over these directories. It starts nothing and finds what runs when it is asked.
    pub fn new(settings: Settings) -> VmDriver {
        let hardware = Hardware::new(settings.qemu.clone(), settings.accelerator_cache.clone());
        let inner = Inner {
            settings,
            hardware: Arc::new(hardware),
            guests: Default::default(),
            changes: broadcast::Sender::new(CHANGES_MAX),
        };
        VmDriver { inner: Arc::new(inner) }
    }

    /// The judgement on KVM, with the words for users.
    pub async fn judgement(&self) -> Judgement {
        self.inner.hardware.judgement().await.clone()
    }

    /// What this host gives to machines, for others who start some.
    pub fn hardware(&self) -> Arc<Hardware> {
        Arc::clone(&self.inner.hardware)
    }

    /// What this host offers to VMs.
    pub async fn host_facts(&self) -> Result<HostFacts, DriverError> {
        self.inner.hardware.facts().await
    }

    /// Restarts the guest's machine at once, as by its reset button; the process stays.
    pub async fn reset(&self, id: InstanceId) -> Result<(), DriverError> {
        self.command(id, "system_reset").await
    }

    /// The guest's own view of its interfaces; `None` without an agent.
    pub async fn guest_interfaces(&self, id: InstanceId) -> Result<Option<Vec<GuestInterface>>, DriverError> {
        let (guest, link) = self.inner.running(id).await?;
        guest.ask_agent(&link, async |agent| agent.interfaces().await).await
    }

    /// Sets a user's password inside the guest. False without an agent.
    pub async fn set_user_password(
        &self,
        id: InstanceId,
        user: &str,
        password: &str,
    ) -> Result<bool, DriverError> {
        let (guest, link) = self.inner.running(id).await?;
        let set = guest.ask_agent(&link, async |agent| agent.set_user_password(user, password).await).await?;
        Ok(set.is_some())
    }

    async fn command(&self, id: InstanceId, command: &str) -> Result<(), DriverError> {
        let guest = self.inner.guest(id);
        let _turn = guest.turn.lock().await;
        let (_, link) = self.inner.running(id).await?;
        link.qmp.execute(command, json!({})).await?;
        Ok(())
    }
}

impl Inner {
    pub(super) fn guest(&self, id: InstanceId) -> Arc<Guest> {
        let mut guests = self.guests.lock().expect("no holder panics");
        let make = || Arc::new(Guest::new(id, Files::new(&self.settings.run, &self.settings.state, id)));
        guests.entry(id).or_insert_with(make).clone()
    }
}

/// Names of directories that are ids.
fn ids_below(directory: &Path) -> io::Result<BTreeSet<InstanceId>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

#[async_trait]
impl Driver for VmDriver {
    async fn observe(&self, id: InstanceId) -> Result<Seen, DriverError> {
        self.inner.observe(id).await
    }

    async fn list(&self) -> Result<Vec<InstanceId>, DriverError> {
        let Settings { run, state, .. } = &self.inner.settings;
        let failed = || launch::failed("listing the instances' directories");
        let mut ids = ids_below(run).map_err(failed())?;
        ids.extend(ids_below(state).map_err(failed())?);
        ids.retain(|id| Files::new(run, state, *id).any());
        Ok(ids.into_iter().collect())
    }

    async fn start(&self, plan: &InstancePlan) -> Result<(), DriverError> {
        self.inner.start(plan).await
    }

    async fn shutdown(&self, id: InstanceId) -> Result<(), DriverError> {
        self.inner.shutdown(id).await
    }

    async fn kill(&self, id: InstanceId) -> Result<(), DriverError> {
        self.inner.kill(id).await
    }

    async fn pause(&self, id: InstanceId) -> Result<(), DriverError> {
        self.command(id, "stop").await
    }

    async fn resume(&self, id: InstanceId) -> Result<(), DriverError> {
        self.inner.resume(id).await
    }

    async fn suspend(&self, id: InstanceId) -> Result<(), DriverError> {
        self.inner.suspend(id).await
    }

    async fn discard(&self, id: InstanceId) -> Result<(), DriverError> {
        self.inner.discard(id).await
    }

    async fn destroy(&self, id: InstanceId) -> Result<(), DriverError> {
        self.inner.destroy(id).await
    }

    async fn attach_nic(&self, id: InstanceId, nic: &NicPlan) -> Result<(), DriverError> {
        let guest = self.inner.guest(id);
        let _plugging = guest.plugging.lock().await;
        let (_, link) = self.inner.running(id).await?;
        if hotplug::attached(&link.qmp).await?.0.contains(&nic.port) {
            return Ok(());
        }
        let (vhost, plan) = (self.inner.hardware.facts().await?.vhost_net, nic.clone());
        let opening = spawn_blocking(move || launch::open_card(&plan, vhost)).await;
        let files = opening.map_err(|error| launch::failed("opening the tap")(io::Error::other(error)))??;
        hotplug::attach_nic(&link.qmp, nic, files).await
    }

    async fn detach_nic(&self, id: InstanceId, port: PortId) -> Result<(), DriverError> {
        let guest = self.inner.guest(id);
        let _plugging = guest.plugging.lock().await;
        let (_, link) = self.inner.running(id).await?;
        hotplug::detach_nic(&link.qmp, port).await
    }

    async fn attach_disk(&self, id: InstanceId, disk: &DiskPlan) -> Result<(), DriverError> {
        let guest = self.inner.guest(id);
        let _plugging = guest.plugging.lock().await;
        let (_, link) = self.inner.running(id).await?;
        let files: Result<Vec<_>, _> = device::disk_files(disk).iter().map(launch::open_disk).collect();
        hotplug::attach_disk(&link.qmp, disk, files?).await
    }

    async fn detach_disk(&self, id: InstanceId, volume: VolumeId) -> Result<(), DriverError> {
        let guest = self.inner.guest(id);
        let _plugging = guest.plugging.lock().await;
        let (_, link) = self.inner.running(id).await?;
        hotplug::detach_disk(&link.qmp, volume).await
    }

    async fn grow_disk(&self, id: InstanceId, disk: &DiskPlan, size_bytes: u64) -> Result<(), DriverError> {
        let guest = self.inner.guest(id);
        let _plugging = guest.plugging.lock().await;
        let (_, link) = self.inner.running(id).await?;
        hotplug::grow_disk(&link.qmp, disk, size_bytes).await
    }

    async fn stack_disk(
        &self,
        id: InstanceId,
        disk: &DiskPlan,
        above: &[PathBuf],
    ) -> Result<(), DriverError> {
        let guest = self.inner.guest(id);
        let _plugging = guest.plugging.lock().await;
        let (_, link) = self.inner.running(id).await?;
        layer::stack_disk(&link.qmp, disk, above).await
    }

    async fn resize(&self, plan: &InstancePlan, has: Grant) -> Result<Grant, DriverError> {
        let guest = self.inner.guest(plan.id);
        let _turn = guest.turn.lock().await;
        self.inner.running(plan.id).await?;
        let failed = || launch::failed("changing the VM's share of the CPUs");
        let record = BootRecord::read(&guest.files.boot_record()).map_err(failed())?;
        let machine = record.ok_or(DriverError::NotRunning)?.machine;
        let (cgroups, group) = (self.inner.settings.cgroups.clone(), plan.id.to_string());
        let limits = launch::limits(&machine, plan);
        let setting = spawn_blocking(move || cgroups.set(&group, &limits)).await;
        setting.map_err(io::Error::other).map_err(failed())?.map_err(|error| failed()(error.into()))?;
        // CPUs and memory are what the guest's firmware found: it finds others when it boots.
        Ok(Grant { cpu_weight: plan.cpu_weight, ..has })
    }

    async fn usage(&self, id: InstanceId) -> Result<Usage, DriverError> {
        let (cgroups, group) = (self.inner.settings.cgroups.clone(), id.to_string());
        let failed = || launch::failed("looking at what the VM uses");
        let seen = spawn_blocking(move || cgroups.stats(&group)).await;
        let stats =
            seen.map_err(io::Error::other).map_err(failed())?.map_err(|error| failed()(error.into()))?;
        Ok(stats.into())
    }

    async fn disk_traffic(&self, id: InstanceId) -> Result<Option<DiskTraffic>, DriverError> {
        let (_, link) = self.inner.running(id).await?;
        Ok(Some(disk_traffic::of(&link.qmp).await?))
    }

    async fn change_keys(
        &self,
        id: InstanceId,
        login: &str,
        change: &KeyChange,
    ) -> Result<bool, DriverError> {
        let (guest, link) = self.inner.running(id).await?;
        let told = guest.ask_agent(&link, async |agent| agent.change_keys(login, change).await).await?;
        Ok(told.is_some())
    }

    async fn attached(&self, id: InstanceId) -> Result<(Vec<PortId>, Vec<VolumeId>), DriverError> {
        let (_, link) = self.inner.running(id).await?;
        Ok(hotplug::attached(&link.qmp).await?)
    }

    async fn console_log(&self, id: InstanceId, bytes_max: usize) -> Result<Vec<u8>, DriverError> {
        let log = self.inner.guest(id).files.console_log();
        console::log_tail(&log, bytes_max).map_err(launch::failed("reading the console's log"))
    }

    async fn open_login(&self, id: InstanceId) -> Result<(), DriverError> {
        let (guest, link) = self.inner.running(id).await?;
        login::judge(guest.ask_agent(&link, login::open).await?)
    }

    async fn close_login(&self, id: InstanceId) -> Result<(), DriverError> {
        let (guest, link) = self.inner.running(id).await?;
        login::judge(guest.ask_agent(&link, login::close).await?)
    }

    async fn console(&self, id: InstanceId) -> Result<Stream, DriverError> {
        let (_, link) = self.inner.running(id).await?;
        link.console.open().map_err(launch::failed("opening the console"))
    }

    async fn vnc(&self, id: InstanceId) -> Result<Stream, DriverError> {
        use std::os::fd::AsFd as _;
        let (_, link) = self.inner.running(id).await?;
        let failed = || launch::failed("making a stream for VNC");
        let (ours, theirs) = Stream::pair().map_err(failed())?;
        let name = format!("vnc-{:016x}", rand::random::<u64>());
        let (arguments, deadline) = (json!({"fdname": name}), super::qmp::DEADLINE);
        link.qmp.execute_with("getfd", arguments, &[theirs.as_fd()], deadline).await?;
        let arguments = json!({"protocol": "vnc", "fdname": name, "skipauth": true});
        match link.qmp.execute("add_client", arguments).await {
            Ok(_) => Ok(ours),
            Err(error) => {
                let _: Result<Value, QmpError> = link.qmp.execute("closefd", json!({"fdname": name})).await;
                Err(error.into())
            }
        }
    }

    async fn logs(&self, _id: InstanceId, _query: &LogQuery) -> Result<mpsc::Receiver<LogLine>, DriverError> {
        Err(DriverError::Unsupported {
            what: "a VM has no log of its programs outside of itself".to_owned(),
            hint: "Read its serial console with `holm console --log`, or its journal with `holm ssh`."
                .to_owned(),
        })
    }

    async fn exec(
        &self,
        _id: InstanceId,
        _request: &ExecRequest,
        _stdio: Stdio,
    ) -> Result<Box<dyn ExecHandle>, DriverError> {
        Err(DriverError::Unsupported {
            what: "programs cannot be started inside a VM from outside".to_owned(),
            hint: "Use `holm ssh` or `holm console`.".to_owned(),
        })
    }

    fn changes(&self) -> broadcast::Receiver<InstanceId> {
        self.inner.changes.subscribe()
    }
}
