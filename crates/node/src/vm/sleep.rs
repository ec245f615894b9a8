//! Putting guests to sleep: their memory goes to a file, QEMU ends, and a later QEMU goes on from there.
//!
//! ```text
//!   suspend: vCPUs stop ─▶ places.json ─▶ memory.part ─▶ memory ─▶ QEMU ends
//!   wake:    QEMU frozen, waiting ─▶ memory is read ─▶ the file goes ─▶ cont
//! ```
//!
//! The file `memory` decides: as long as it is there the guest sleeps and no vCPU of it has run since, so whatever
//! process is found beside it may be ended and all be done again. It goes before the guest goes on, because disks
//! change from then on and memory of before would not fit them any more.

use model::{
    id::InstanceId,
    plan::{InstancePlan, VmPlan},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{task::spawn_blocking, time::Instant};

use super::{
    accel::Accelerator,
    argv, device,
    driver::Inner,
    files::{self, Files},
    guest::{Guest, Link},
    hotplug,
    launch::{Order, failed},
    machine::BootRecord,
    power::{check, on_blocking_thread},
    qmp::{DEADLINE, QmpError},
    sight::Found,
};
use crate::{
    driver::{DriverError, Exit},
    instance::sentence,
    room::Space,
};

/// How often QEMU is asked how far it is.
const PAUSE: Duration = Duration::from_millis(50);
/// QEMU answers within this time: it reads memory without looking up.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1800);
/// A transfer that is called off ends within this time.
const CANCEL_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes a second: as fast as the disk takes them. QEMU's own limit is made for networks.
const BANDWIDTH: u64 = 1 << 40;
/// Under this name QEMU gets the file.
const FILE: &str = "memory";

/// Where the cards and disks of a guest are plugged in, by the ids of their devices: plugging while it ran may have put
/// them elsewhere than a cold start would.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places(BTreeMap<String, String>);

impl Places {
    /// The place of a device.
    pub fn of(&self, device: &str) -> Option<String> {
        self.0.get(device).cloned()
    }

    /// Whether these are the devices of a plan.
    fn fit(&self, plan: &InstancePlan) -> bool {
        let disks = plan.disks.iter().map(|disk| device::disk_id(disk.volume));
        let mut ids: Vec<String> =
            disks.chain(plan.nics.iter().map(|nic| device::nic_id(nic.port))).collect();
        ids.sort();
        ids.iter().eq(self.0.keys())
    }
}

pub(super) fn unsupported(what: String) -> DriverError {
    let hint = "Stop it, which throws its memory away, and start it anew.".to_owned();
    DriverError::Unsupported { what, hint }
}

impl Inner {
    pub(super) async fn suspend(self: &Arc<Self>, id: InstanceId) -> Result<(), DriverError> {
        let guest = self.guest(id);
        let _turn = guest.turn.lock().await;
        let _plugging = guest.plugging.lock().await;
        if !guest.files.memory().exists() {
            let (_, link) = self.running(id).await?;
            call_off(&link).await?;
            on_file(guest.files.clone(), Files::forget_memory)
                .await
                .map_err(failed("removing what was left of the VM's memory"))?;
            self.refuse_without_room(&guest)?;
            let runs = match link.status().await?.as_str() {
                // It has ended by itself, which the next look tells.
                "shutdown" | "guest-panicked" | "internal-error" => return Ok(()),
                status => status == "running",
            };
            if let Err(error) = self.put_away(&guest, &link).await {
                // One that cannot sleep is of more use awake, until the next try.
                if runs && let Err(stuck) = go_on(&guest.files, &link).await {
                    // What is on disk decides by the next look whether it sleeps: it stands still until then.
                    tracing::warn!(instance = %id, error = sentence(&stuck), "a guest that does not sleep stands still");
                }
                return Err(error);
            }
        }
        self.end_sleeper(&guest).await
    }

    /// Lets a frozen guest go on, and clears away what was left of putting it to sleep or of waking it.
    pub(super) async fn resume(self: &Arc<Self>, id: InstanceId) -> Result<(), DriverError> {
        let guest = self.guest(id);
        let _turn = guest.turn.lock().await;
        if guest.files.memory().exists() {
            // What runs beside its memory has not begun to.
            return Err(DriverError::NotRunning);
        }
        let (_, link) = self.running(id).await?;
        go_on(&guest.files, &link).await
    }

    /// Looks for room for a guest's memory before it stands still. It takes no more than QEMU has of the host's memory:
    /// what the guest never touched is not written.
    fn refuse_without_room(&self, guest: &Guest) -> Result<(), DriverError> {
        let operation = "putting the guest's memory on disk";
        let place = guest.files.memory();
        let place = place.parent().unwrap_or(&place);
        let record = BootRecord::read(&guest.files.boot_record()).map_err(failed(operation))?;
        let all_bytes = record.map_or(0, |record| record.machine.memory_mib << 20);
        let stats = self.settings.cgroups.stats(&guest.id.to_string()).ok();
        let held = stats.map(|stats| stats.memory_bytes.saturating_sub(stats.memory_inactive_file_bytes));
        let wanted_bytes = held.map_or(all_bytes, |held| held.min(all_bytes));
        let space = Space::at(place).map_err(failed(operation))?;
        space.holds(wanted_bytes).map_err(|source| {
            let operation = format!("{operation} at {}", place.display());
            DriverError::NoRoom { operation, source }
        })
    }

    /// Stops the guest and writes down where its devices are and what it has in memory.
    async fn put_away(&self, guest: &Guest, link: &Link) -> Result<(), DriverError> {
        freeze(link).await?;
        let places = Places(hotplug::places(&link.qmp).await?);
        files::write_json(&guest.files.places(), &places).map_err(failed("recording the VM's devices"))?;
        self.save(guest, link).await
    }

    /// Writes the guest's memory, whole or not at all.
    async fn save(&self, guest: &Guest, link: &Link) -> Result<(), DriverError> {
        let operation = || failed("writing the VM's memory");
        let path = guest.files.unfinished_memory();
        let file = open(path, true).await.map_err(operation())?;
        let parameters = json!({"max-bandwidth": BANDWIDTH});
        link.qmp.execute("migrate-set-parameters", parameters).await?;
        link.qmp.execute_with("getfd", json!({"fdname": FILE}), &[file.as_fd()], DEADLINE).await?;
        link.qmp.execute("migrate", json!({"uri": format!("fd:{FILE}")})).await?;
        if let Err(error) = transferred(link, "putting the guest's memory on disk").await {
            files::remove(&guest.files.unfinished_memory()).map_err(operation())?;
            return Err(error);
        }
        let files = guest.files.clone();
        on_file(files, Files::keep_memory).await.map_err(operation())
    }

    /// Ends what is left of a guest whose memory is on disk.
    async fn end_sleeper(self: &Arc<Self>, guest: &Arc<Guest>) -> Result<(), DriverError> {
        let record = |boot| {
            let cause = "its memory was thrown away".to_owned();
            let exit =
                Exit { code: None, cause, failed: false, boot, started_ms: None, facts: Default::default() };
            guest.files.record_exit(exit).map_err(failed("recording the VM's end"))
        };
        match self.find(guest).await? {
            Found::Dead => {}
            Found::Alive(link, _) => {
                record(link.record.boot)?;
                link.end().await?;
            }
            Found::Mute(known, process, _) => {
                record(known.boot)?;
                super::guest::kill(&process).await?;
            }
        }
        guest.set_link(None);
        let (cgroups, name) = (self.settings.cgroups.clone(), guest.id.to_string());
        on_blocking_thread("ending the VM's processes", move || cgroups.kill(&name)).await
    }

    pub(super) async fn discard(self: &Arc<Self>, id: InstanceId) -> Result<(), DriverError> {
        let guest = self.guest(id);
        let _turn = guest.turn.lock().await;
        if guest.files.memory().exists() {
            self.end_sleeper(&guest).await?;
        }
        let files = guest.files.clone();
        on_file(files, Files::forget_memory).await.map_err(failed("removing the VM's memory"))
    }

    /// A start on the very machine that the guest was put to sleep on.
    pub(super) async fn waking_order(
        &self,
        plan: &InstancePlan,
        vm: &VmPlan,
        guest: &Guest,
    ) -> Result<Order, DriverError> {
        let facts = self.hardware.facts().await?;
        check(plan, vm, &facts)?;
        let recorded =
            BootRecord::read(&guest.files.boot_record()).map_err(failed("reading the VM's record"))?;
        let record = recorded.ok_or_else(|| unsupported("the record of its machine is lost".to_owned()))?;
        let machine = &record.machine;
        if !facts.machine_types.contains(&machine.machine_type) {
            let what = format!("this QEMU has no machine type {} any more", machine.machine_type);
            return Err(unsupported(what));
        }
        let judgement = self.hardware.judgement().await;
        let has_kvm = || judgement.choose(model::plan::Accelerator::Kvm).is_ok();
        if machine.accelerator == Accelerator::Kvm && !has_kvm() {
            return Err(unsupported("it was put to sleep under KVM, which is not to be had now".to_owned()));
        }
        let places: Option<Places> = files::read_json(&guest.files.places());
        let places = places.filter(|places| places.fit(plan));
        let places = places.ok_or_else(|| {
            unsupported("its disks and cards are not those that it was put to sleep with".to_owned())
        })?;
        Ok(Order {
            launch: argv::compile_waking(plan, vm, machine, &facts, &places),
            plan: plan.clone(),
            record,
            facts,
            kvm_group: judgement.device_group,
            files: guest.files.clone(),
            cgroups: self.settings.cgroups.clone(),
            config_drive: None,
            wakes: true,
        })
    }

    /// Fills a waiting QEMU with the memory that is on disk. When this returns the file is gone, and the guest may run.
    pub(super) async fn bring_memory_back(&self, guest: &Guest, link: &Link) -> Result<(), DriverError> {
        let operation = || failed("reading the VM's memory");
        let file = open(guest.files.memory(), false).await.map_err(operation())?;
        link.qmp.execute_with("getfd", json!({"fdname": FILE}), &[file.as_fd()], DEADLINE).await?;
        link.qmp.execute("migrate-incoming", json!({"uri": format!("fd:{FILE}")})).await?;
        transferred(link, "bringing the guest's memory back").await?;
        let deadline = Instant::now() + DEADLINE;
        while link.status().await? == "inmigrate" {
            if Instant::now() > deadline {
                let what = "QEMU, which has read the guest's memory,".to_owned();
                return Err(DriverError::Timeout { what, after_ms: DEADLINE.as_millis() as u64 });
            }
            tokio::time::sleep(PAUSE).await;
        }
        let files = guest.files.clone();
        on_file(files, Files::forget_memory).await.map_err(operation())
    }
}

/// Lets a guest go on. Its memory on disk goes before: as long as that is there, no vCPU may run.
async fn go_on(files: &Files, link: &Link) -> Result<(), DriverError> {
    call_off(link).await?;
    on_file(files.clone(), Files::forget_memory).await.map_err(failed("removing the VM's memory"))?;
    link.qmp.execute("cont", json!({})).await?;
    Ok(())
}

/// Ends a transfer that was cut off with the daemon that had begun it.
async fn call_off(link: &Link) -> Result<(), DriverError> {
    let deadline = Instant::now() + CANCEL_DEADLINE;
    while is_transferring(link).await? {
        // Refused where it has just ended.
        let _: Result<Value, QmpError> = link.qmp.execute("migrate_cancel", json!({})).await;
        if Instant::now() > deadline {
            let what = "QEMU, told to call a transfer off,".to_owned();
            return Err(DriverError::Timeout { what, after_ms: CANCEL_DEADLINE.as_millis() as u64 });
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Stops the vCPUs.
async fn freeze(link: &Link) -> Result<(), DriverError> {
    if matches!(link.status().await?.as_str(), "postmigrate" | "finish-migrate") {
        // Its disks were let go of: QEMU takes them up again when the guest goes on.
        link.qmp.execute("cont", json!({})).await?;
    }
    link.qmp.execute("stop", json!({})).await?;
    Ok(())
}

/// How a transfer is: QEMU's word for it, and what went wrong.
async fn progress(link: &Link) -> Result<(String, String), DriverError> {
    let reply = link.qmp.execute_with("query-migrate", json!({}), &[], ANSWER_DEADLINE).await?;
    let text = |key: &str| reply[key].as_str().unwrap_or_default().to_owned();
    Ok((text("status"), text("error-desc")))
}

async fn is_transferring(link: &Link) -> Result<bool, DriverError> {
    let (status, _) = progress(link).await?;
    Ok(!matches!(status.as_str(), "" | "none" | "completed" | "failed" | "cancelled"))
}

/// Waits for the end of a transfer.
async fn transferred(link: &Link, operation: &str) -> Result<(), DriverError> {
    loop {
        let (status, error) = progress(link).await?;
        match status.as_str() {
            "completed" => return Ok(()),
            "failed" | "cancelled" | "cancelling" => {
                let answer = if error.is_empty() { status } else { error };
                return Err(DriverError::Refused { operation: operation.to_owned(), answer });
            }
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Opens the file of a memory, `anew` to write it.
async fn open(path: PathBuf, anew: bool) -> io::Result<OwnedFd> {
    let opening = move || {
        let mut options = OpenOptions::new();
        options.read(true).write(anew).create(anew).truncate(anew).mode(0o600);
        options.open(path).map(OwnedFd::from)
    };
    spawn_blocking(opening).await.map_err(io::Error::other)?
}

async fn on_file(files: Files, work: fn(&Files) -> io::Result<()>) -> io::Result<()> {
    spawn_blocking(move || work(&files)).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        driver::Driver as _,
        vm::{
            driver::{Settings, VmDriver},
            files::ProcessRecord,
        },
    };
    use std::{fs, process::Command, sync::Mutex};
    use tokio::{
        io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
        net::UnixListener,
    };

    /// A QEMU of a few lines, which writes no memory: when it is told to, `spoil` happens to the files instead. Gives the
    /// commands that it was given, and with `cont` whether there was memory on disk.
    fn serve(files: &Files, id: InstanceId, spoil: fn(&Files)) -> Arc<Mutex<Vec<(String, bool)>>> {
        let listener = UnixListener::bind(files.monitor()).unwrap();
        let told: Arc<Mutex<Vec<(String, bool)>>> = Arc::default();
        let (files, heard) = (files.clone(), Arc::clone(&told));
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (read, mut write) = stream.into_split();
            write.write_all(b"{\"QMP\": {\"version\": {}}}\r\n").await.unwrap();
            let mut lines = BufReader::new(read).lines();
            let mut transfer = "none";
            while let Ok(Some(line)) = lines.next_line().await {
                let message: Value = serde_json::from_str(&line).unwrap();
                let command = message["execute"].as_str().unwrap();
                let answer = match command {
                    "query-uuid" => json!({"UUID": id}),
                    "query-status" => json!({"status": "running"}),
                    "query-migrate" => json!({"status": transfer}),
                    "qom-list" => json!([]),
                    "migrate" => {
                        spoil(&files);
                        transfer = "completed";
                        json!({})
                    }
                    _ => json!({}),
                };
                heard.lock().unwrap().push((command.to_owned(), files.memory().exists()));
                let reply = json!({"return": answer, "id": message["id"]});
                write.write_all(format!("{reply}\r\n").as_bytes()).await.unwrap();
            }
        });
        told
    }

    #[tokio::test]
    async fn no_guest_goes_on_while_its_memory_is_on_disk() {
        let in_the_way: fn(&Files) = |files| fs::create_dir(files.memory()).unwrap();
        let lost: fn(&Files) = |files| fs::remove_file(files.unfinished_memory()).unwrap();
        for (spoil, goes_on) in [(in_the_way, false), (lost, true)] {
            let scratch = tempfile::tempdir().unwrap();
            let id = InstanceId::from_random([7; 16]);
            let (run, state) = (scratch.path().join("run"), scratch.path().join("state"));
            let files = Files::new(&run, &state, id);
            files.make_directories().unwrap();
            let mut qemu = Command::new("sleep").arg("60").spawn().unwrap();
            let pid = qemu.id().cast_signed();
            let record = ProcessRecord {
                pid,
                start_time: sys::pidfd::process_start_time(pid).unwrap().unwrap(),
                boot_id: sys::pidfd::boot_id().unwrap(),
                boot: 1,
                since_ms: 0,
            };
            files::write_json(&files.process_record(), &record).unwrap();
            let told = serve(&files, id, spoil);
            let _console = UnixListener::bind(files.console()).unwrap();
            let driver = VmDriver::new(Settings {
                run,
                state,
                accelerator_cache: scratch.path().join("accelerator"),
                cgroups: sys::cgroup::Tree::probe("holm-test-of-sleep").unwrap(),
                qemu: None,
            });
            driver.suspend(id).await.unwrap_err();
            qemu.kill().unwrap();
            qemu.wait().unwrap();
            let told = told.lock().unwrap();
            let conts: Vec<bool> =
                told.iter().filter(|(it, _)| it == "cont").map(|(_, there)| *there).collect();
            let wanted: &[bool] = if goes_on { &[false] } else { &[] };
            assert_eq!(conts, wanted, "{told:?}");
            assert!(told.iter().any(|(command, _)| command == "migrate"), "{told:?}");
        }
    }
}
