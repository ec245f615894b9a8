//! What is found of a VM: linking to its QEMU, reading its state, and telling how it ended.
//!
//! The truth is the process and its monitor. What cannot be asked any more is read from what the process left. Must never
//! wait long for a QEMU that does not answer, and never take another process for it.

use model::id::InstanceId;
use serde_json::{Map, Value, json};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use sys::pidfd::{self, PidFd};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::timeout,
};

use super::{
    driver::Inner,
    files::{Files, ProcessRecord},
    guest::{self, Guest, LOOK_DEADLINE, Link, Meaning},
    launch,
    machine::BootRecord,
    qmp::Event,
};
use crate::{
    driver::{DriverError, Exit, Running, Seen},
    host,
};

/// What is found of an instance's QEMU.
pub(super) enum Found {
    /// No process.
    Dead,
    /// A process that answers, in this state.
    Alive(Arc<Link>, String),
    /// A process that does not answer, and why.
    Mute(ProcessRecord, PidFd, DriverError),
}

impl Inner {
    /// The link to a living QEMU, made if there is none.
    pub(super) async fn link(
        self: &Arc<Self>,
        guest: &Arc<Guest>,
        deadline: Duration,
    ) -> Result<Option<Arc<Link>>, Mute> {
        let _linking = guest.linking.lock().await;
        let Some((record, process)) = guest.process().map_err(Mute::Unknown)? else {
            guest.set_link(None);
            return Ok(None);
        };
        if process.has_exited().unwrap_or(false) {
            return Ok(None);
        }
        if let Some(link) = guest.live_link()
            && link.record == record
        {
            return Ok(Some(link));
        }
        // The old link's monitor must be closed before a new one is served.
        guest.set_link(None);
        let kept = PidFd::open_started_at(record.pid, record.start_time).ok().flatten();
        match guest.connect(record.clone(), process, deadline).await {
            Ok(link) => {
                let link = Arc::new(link);
                link.keep(tokio::spawn(watch(
                    Arc::downgrade(self),
                    Arc::downgrade(guest),
                    Arc::downgrade(&link),
                    link.qmp.events(),
                )));
                guest.set_link(Some(link.clone()));
                Ok(Some(link))
            }
            Err(error) => match kept {
                Some(process) => Err(Mute::Process(record, process, error)),
                None => Ok(None),
            },
        }
    }

    pub(super) async fn find(self: &Arc<Self>, guest: &Arc<Guest>) -> Result<Found, DriverError> {
        let link = match self.link(guest, LOOK_DEADLINE).await {
            Ok(Some(link)) => link,
            Ok(None) => return Ok(Found::Dead),
            Err(Mute::Unknown(error)) => return Err(error),
            Err(Mute::Process(record, process, error)) => {
                let ended = guest::wait_exit(&process, Duration::ZERO).await?;
                return Ok(if ended { Found::Dead } else { Found::Mute(record, process, error) });
            }
        };
        match link.status().await {
            Ok(status) => Ok(Found::Alive(link, status)),
            Err(error) if error.is_gone() && guest::wait_exit(&link.process, LOOK_DEADLINE).await? => {
                Ok(Found::Dead)
            }
            Err(error) => match guest.process()? {
                Some((record, process)) => Ok(Found::Mute(record, process, error.into())),
                None => Ok(Found::Dead),
            },
        }
    }

    /// A guest that runs (or is frozen) and its link.
    pub(super) async fn running(
        self: &Arc<Self>,
        id: InstanceId,
    ) -> Result<(Arc<Guest>, Arc<Link>), DriverError> {
        let guest = self.guest(id);
        match self.link(&guest, LOOK_DEADLINE).await {
            Ok(Some(link)) => Ok((guest, link)),
            Ok(None) => Err(DriverError::NotRunning),
            Err(Mute::Process(_, _, error) | Mute::Unknown(error)) => Err(error),
        }
    }

    pub(super) async fn observe(self: &Arc<Self>, id: InstanceId) -> Result<Seen, DriverError> {
        let guest = self.guest(id);
        guest.files.trim_messages();
        if let Some(boot) = guest.sleeping_boot()? {
            return Ok(Seen::Asleep { boot });
        }
        match self.find(&guest).await? {
            Found::Dead if !ran_here(&guest.files) => Ok(Seen::Absent),
            Found::Dead => self.observe_dead(&guest).await,
            Found::Mute(record, process, error) => Ok(mute(&record, &process, &error)),
            Found::Alive(link, status) => self.alive(&guest, &link, &status).await,
        }
    }

    /// An instance without a process may be starting just now: what is seen then counts only in turn.
    pub(super) async fn observe_dead(self: &Arc<Self>, guest: &Arc<Guest>) -> Result<Seen, DriverError> {
        let late = |_| DriverError::Timeout {
            what: "the VM, which is being started or stopped,".to_owned(),
            after_ms: LOOK_DEADLINE.as_millis() as u64,
        };
        let _turn = timeout(LOOK_DEADLINE, guest.turn.lock()).await.map_err(late)?;
        match self.find(guest).await? {
            Found::Dead if !ran_here(&guest.files) => Ok(Seen::Absent),
            Found::Dead => self.dead(guest).map(Seen::Stopped),
            Found::Mute(record, process, error) => Ok(mute(&record, &process, &error)),
            Found::Alive(link, status) => self.alive(guest, &link, &status).await,
        }
    }

    pub(super) async fn alive(
        &self,
        guest: &Guest,
        link: &Arc<Link>,
        status: &str,
    ) -> Result<Seen, DriverError> {
        let ended = match status {
            "shutdown" => Some(("powered off by the guest", false)),
            "guest-panicked" => Some(("the guest's kernel panicked", true)),
            "internal-error" => Some(("QEMU could not go on running the guest (internal error)", true)),
            _ => None,
        };
        if let Some((cause, failed)) = ended {
            return self.finish(guest, link, cause, failed).await.map(Seen::Stopped);
        }
        // Frozen from its start and never let go: the start was cut short, so this boot has not happened.
        if status == "prelaunch" {
            let boot = link.record.boot.saturating_sub(1);
            return Ok(Seen::Stopped(Exit {
                code: None,
                cause: "its start was cut short".to_owned(),
                failed: true,
                boot,
                started_ms: None,
                facts: Default::default(),
            }));
        }
        let running = Running {
            pid: link.record.pid as u32,
            since_ms: link.record.since_ms,
            boot: link.record.boot,
            facts: self.facts(guest, link, status),
        };
        Ok(match status {
            "io-error" => Seen::Stalled(running),
            "paused" | "save-vm" | "restore-vm" | "finish-migrate" | "postmigrate" => Seen::Paused(running),
            _ => Seen::Running(running),
        })
    }

    pub(super) fn facts(&self, guest: &Guest, link: &Link, status: &str) -> Map<String, Value> {
        let mut facts = Map::from_iter([("status".to_owned(), json!(status))]);
        if let Ok(Some(record)) = BootRecord::read(&guest.files.boot_record()) {
            let machine = &record.machine;
            facts.insert("accelerator".to_owned(), json!(machine.accelerator));
            if let Some(judgement) = self.hardware.judged() {
                facts.insert("acceleration".to_owned(), json!(judgement.describe(machine.accelerator)));
            }
            facts.insert("machine_type".to_owned(), json!(machine.machine_type));
            facts.insert("cpu_model".to_owned(), json!(machine.cpu_model));
            facts.insert("qemu_version".to_owned(), json!(machine.qemu_version));
        }
        if let Some(cpus) = host::cpus_of(link.record.pid) {
            facts.insert("host_cpus".to_owned(), json!(cpus));
        }
        if let Some(os) = link.os() {
            facts.insert("guest_os".to_owned(), json!(os));
        }
        if status == "io-error" {
            let text = "a disk cannot be written, because its host has no room; the guest is frozen and loses nothing";
            facts.insert("problem".to_owned(), json!(text));
        }
        facts
    }

    /// Ends a QEMU whose guest has ended, and records why.
    pub(super) async fn finish(
        &self,
        guest: &Guest,
        link: &Arc<Link>,
        cause: &str,
        failed: bool,
    ) -> Result<Exit, DriverError> {
        let exit = Exit {
            code: None,
            cause: cause.to_owned(),
            failed,
            boot: link.record.boot,
            started_ms: None,
            facts: Default::default(),
        };
        let exit = guest.files.record_exit(exit).map_err(launch::failed("recording the VM's end"))?;
        link.end().await?;
        guest.drop_link(link);
        Ok(exit)
    }

    /// How a boot of [this host's boot](ran_here) ended whose process is gone. The caller holds the guest's turn: nobody is starting it.
    pub(super) fn dead(&self, guest: &Guest) -> Result<Exit, DriverError> {
        let cut_short = |boot| {
            let cause = "its start was cut short".to_owned();
            Exit { code: None, cause, failed: true, boot, started_ms: None, facts: Default::default() }
        };
        let Some(process) = guest.files.read_process() else {
            let recorded = BootRecord::read(&guest.files.boot_record());
            let recorded = recorded.map_err(launch::failed("reading the VM's record"))?;
            let Some(boot) = recorded.map(|record| record.boot) else {
                return Ok(cut_short(0));
            };
            // With its sockets but no process on record, QEMU never came to run.
            let known = guest.files.read_exit(boot);
            return Ok(known.unwrap_or_else(|| cut_short(boot.saturating_sub(1))));
        };
        let open = PidFd::open_started_at(process.pid, process.start_time).ok().flatten();
        let describe = |status| self.exit_of(guest, status, process.boot);
        guest.record_end(&process, open.as_ref(), describe).map_err(launch::failed("recording the VM's end"))
    }

    /// Words for a QEMU that ended by itself.
    pub(super) fn exit_of(&self, guest: &Guest, status: pidfd::Exit, boot: u64) -> Exit {
        let messages = guest.files.last_messages();
        let oom = self.settings.cgroups.stats(&guest.id.to_string()).is_ok_and(|stats| stats.oom_kills > 0);
        let (code, what) = match status {
            pidfd::Exit::Signal(9) if oom => {
                (Some(137), "QEMU was killed because the VM's memory limit was used up".to_owned())
            }
            pidfd::Exit::Signal(signal) => {
                (Some(128 + signal), format!("QEMU was killed by signal {signal}"))
            }
            pidfd::Exit::Code(code) => (Some(code), format!("QEMU ended with code {code}")),
            pidfd::Exit::Unknown => (None, "QEMU ended while nobody was watching".to_owned()),
        };
        let cause = if messages.is_empty() { what } else { format!("{what}: {messages}") };
        Exit { code, cause, failed: code != Some(0), boot, started_ms: None, facts: Default::default() }
    }

    /// Does what an event asks for.
    pub(super) async fn handle(self: &Arc<Self>, guest: &Arc<Guest>, link: &Arc<Link>, meaning: Meaning) {
        match meaning {
            Meaning::Ended { cause, failed } => {
                if let Err(error) = self.finish(guest, link, cause, failed).await {
                    tracing::warn!(id = %guest.id, %error, "the QEMU of an ended guest is still there");
                }
            }
            Meaning::AgentCame => {
                if let Err(error) = guest.learn_os(link).await {
                    tracing::debug!(id = %guest.id, %error, "the guest's agent does not tell what runs");
                }
            }
            Meaning::Changed => {}
            Meaning::Nothing => return,
        }
        // Nobody listening is fine.
        let _ = self.changes.send(guest.id);
    }
}

/// Why there is no link to a process that may live.
pub(super) enum Mute {
    /// It lives and does not answer.
    Process(ProcessRecord, PidFd, DriverError),
    /// It could not be looked for.
    Unknown(DriverError),
}

/// Watches one QEMU until it ends or the driver goes. Holds neither driver nor guest nor link while it waits, since they
/// own this task.
async fn watch(
    driver: Weak<Inner>,
    guest: Weak<Guest>,
    link: Weak<Link>,
    mut events: broadcast::Receiver<Event>,
) {
    let process = |guest: Arc<Guest>| guest.process().ok().flatten();
    let Some((record, process)) = guest.upgrade().and_then(process) else {
        return;
    };
    let Ok(exit) = guest::exit_watch(&process) else {
        return;
    };
    // The agent may have come before us.
    let mut meaning = Meaning::AgentCame;
    loop {
        match (driver.upgrade(), guest.upgrade(), link.upgrade()) {
            (Some(driver), Some(guest), Some(link)) => driver.handle(&guest, &link, meaning).await,
            _ => return,
        }
        meaning = tokio::select! {
            biased;
            event = events.recv() => match event {
                Ok(event) => guest::meaning(&event),
                Err(RecvError::Lagged(_)) => Meaning::Changed,
                // The monitor is closed: wait for the end of the process.
                Err(RecvError::Closed) => {
                    let _ = exit.readable().await;
                    break;
                }
            },
            _ = exit.readable() => break,
        };
    }
    let (Some(driver), Some(guest)) = (driver.upgrade(), guest.upgrade()) else {
        return;
    };
    let describe = |status| driver.exit_of(&guest, status, record.boot);
    if let Err(error) = guest.record_end(&record, Some(&process), describe) {
        tracing::warn!(id = %guest.id, %error, "the end of a VM is not recorded");
    }
    let _ = driver.changes.send(guest.id);
}

/// Whether files tell of a QEMU since the host was started. Its record and sockets go with the host's boot; where the run
/// directory outlives that, the record names the boot.
fn ran_here(files: &Files) -> bool {
    match files.read_process() {
        Some(process) => pidfd::boot_id().is_ok_and(|current| current == process.boot_id),
        None => files.monitor().exists(),
    }
}

/// How a QEMU is seen that lives and does not answer.
fn mute(record: &ProcessRecord, process: &PidFd, error: &DriverError) -> Seen {
    let facts = Map::from_iter([("monitor".to_owned(), json!(error.to_string()))]);
    Seen::Running(Running { pid: process.pid() as u32, since_ms: record.since_ms, boot: record.boot, facts })
}
