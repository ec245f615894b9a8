//! One instance as the driver knows it in memory: its files, whose turn it is, and the link to its QEMU.
//!
//! Nothing here needs to survive: a link is made again from the files whenever somebody needs it, also after a restart of
//! the daemon. Dropping a link closes the monitor and the console, and harms no guest.

use model::id::InstanceId;
use serde_json::{Value, json};
use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::Duration,
};
use sys::pidfd::{self, PidFd};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
    time::timeout,
};

use super::{
    agent::{self, Agent, AgentError, GuestOs},
    console::Console,
    files::{Files, ProcessRecord},
    machine::BootRecord,
    qmp::{Event, Qmp, QmpError},
};
use crate::driver::{DriverError, Exit};

/// QEMU greets and answers within this time when it is looked at; a list must not hang on one that does not.
pub const LOOK_DEADLINE: Duration = Duration::from_secs(2);
/// QEMU ends within this time after it was told to, then it is killed.
const QUIT_DEADLINE: Duration = Duration::from_secs(3);
/// The kernel ends a killed process within this time, or it hangs in a disk that does not answer.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// What the driver keeps of an instance.
#[derive(Debug)]
pub struct Guest {
    /// The instance.
    pub id: InstanceId,
    /// Where its files stand.
    pub files: Files,
    /// Verbs that change something hold this, one after another.
    pub turn: tokio::sync::Mutex<()>,
    /// Whoever makes a link holds this: QEMU's monitor serves one client.
    pub linking: tokio::sync::Mutex<()>,
    /// Plugging holds this and not the turn: a guest that does not let go must not hold up a stop.
    pub plugging: tokio::sync::Mutex<()>,
    /// Whoever collects how QEMU ended and records it holds this: the kernel tells it once.
    ending: Mutex<()>,
    link: Mutex<Option<Arc<Link>>>,
}

/// A live connection to a running QEMU.
#[derive(Debug)]
pub struct Link {
    /// Which process it is.
    pub record: ProcessRecord,
    /// The process.
    pub process: PidFd,
    /// Its monitor.
    pub qmp: Qmp,
    /// Its serial console.
    pub console: Console,
    /// What runs in the guest, once its agent has told.
    os: Mutex<Option<GuestOs>>,
    /// The agent's channel knows one client.
    agent_turn: tokio::sync::Mutex<()>,
    watcher: Mutex<Option<JoinHandle<()>>>,
}

impl Guest {
    /// An instance that nothing is known of yet.
    pub fn new(id: InstanceId, files: Files) -> Guest {
        Guest {
            id,
            files,
            turn: Default::default(),
            linking: Default::default(),
            plugging: Default::default(),
            ending: Mutex::new(()),
            link: Mutex::new(None),
        }
    }

    /// The boot that goes on when it is started: of a guest that sleeps.
    ///
    /// # Errors
    /// Its memory is there, and nothing tells of which boot: it is kept until somebody throws it away on purpose.
    pub fn sleeping_boot(&self) -> Result<Option<u64>, DriverError> {
        if !self.files.memory().exists() {
            return Ok(None);
        }
        let record = BootRecord::read(&self.files.boot_record());
        let record = record.map_err(super::launch::failed("reading the VM's record"))?;
        let lost = || {
            let what = "its memory is on disk, and the record of its machine is lost or damaged".to_owned();
            super::sleep::unsupported(what)
        };
        record.map(|record| Some(record.boot)).ok_or_else(lost)
    }

    /// The link, if there is one that still holds.
    pub fn live_link(&self) -> Option<Arc<Link>> {
        let link = self.link.lock().expect("no holder panics").clone()?;
        (!link.qmp.is_closed()).then_some(link)
    }

    /// Puts a link in place, or takes it away.
    pub fn set_link(&self, link: Option<Arc<Link>>) {
        *self.link.lock().expect("no holder panics") = link;
    }

    /// Takes this link away, unless another has taken its place.
    pub fn drop_link(&self, old: &Arc<Link>) {
        let mut link = self.link.lock().expect("no holder panics");
        if link.as_ref().is_some_and(|link| Arc::ptr_eq(link, old)) {
            *link = None;
        }
    }

    /// Collects how a process ended that is gone, and records it in the words of `describe`, unless its end is recorded
    /// already or another process has taken its place.
    pub fn record_end(
        &self,
        record: &ProcessRecord,
        process: Option<&PidFd>,
        describe: impl FnOnce(pidfd::Exit) -> Exit,
    ) -> io::Result<Exit> {
        let _ending = self.ending.lock().expect("no holder panics");
        let status = process.and_then(|process| process.reap().ok()).unwrap_or(pidfd::Exit::Unknown);
        if let Some(known) = self.files.read_exit(record.boot) {
            return Ok(known);
        }
        let exit = describe(status);
        if self.files.read_process().as_ref() == Some(record) {
            return self.files.record_exit(exit);
        }
        Ok(exit)
    }

    /// QEMU's process, if it is there: by pid, start time and the host's boot.
    pub fn process(&self) -> Result<Option<(ProcessRecord, PidFd)>, DriverError> {
        let Some(record) = self.files.read_process() else {
            return Ok(None);
        };
        let operation = || format!("looking for the process {} of QEMU", record.pid);
        let failed = |error: sys::Error| DriverError::Io { operation: operation(), source: error.into() };
        if sys::pidfd::boot_id().map_err(failed)? != record.boot_id {
            return Ok(None);
        }
        let process = PidFd::open_started_at(record.pid, record.start_time).map_err(failed)?;
        Ok(process.map(|process| (record, process)))
    }

    /// Connects to the monitor and the console of a living process. The caller holds [`Guest::linking`].
    pub async fn connect(
        &self,
        record: ProcessRecord,
        process: PidFd,
        deadline: Duration,
    ) -> Result<Link, DriverError> {
        let connecting = Qmp::connect(&self.files.monitor(), deadline).await;
        let qmp = connecting.map_err(|error| match error {
            QmpError::Connect { source, .. } if source.kind() == io::ErrorKind::TimedOut => {
                DriverError::Timeout {
                    what: "QEMU's monitor".to_owned(),
                    after_ms: deadline.as_millis() as u64,
                }
            }
            error => error.into(),
        })?;
        let uuid = qmp.execute("query-uuid", json!({})).await?;
        if uuid["UUID"] != self.id.to_string() {
            let answer = format!("it runs {} instead of {}", uuid["UUID"], self.id);
            return Err(DriverError::Refused {
                operation: "asking QEMU which VM it runs".to_owned(),
                answer,
            });
        }
        let console = Console::connect(&self.files.console(), &self.files.console_log()).await;
        let console = console.map_err(super::launch::failed("connecting to the serial console"))?;
        Ok(Link {
            record,
            process,
            qmp,
            console,
            os: Mutex::new(None),
            agent_turn: Default::default(),
            watcher: Mutex::new(None),
        })
    }

    /// Asks the agent one thing, if the guest has opened its port: what is written before that would be carried out at
    /// some later boot.
    pub async fn ask_agent<T>(
        &self,
        link: &Link,
        question: impl AsyncFnOnce(Agent<'_>) -> Result<T, AgentError>,
    ) -> Result<Option<T>, DriverError> {
        if !link.agent_is_open().await? {
            return Ok(None);
        }
        let _turn = link.agent_turn.lock().await;
        let socket = self.files.agent();
        Ok(Some(question(Agent::new(&socket, agent::DEADLINE)).await?))
    }

    /// Learns what runs in the guest, if its agent tells.
    pub async fn learn_os(&self, link: &Link) -> Result<(), DriverError> {
        if let Some(os) = self.ask_agent(link, async |agent| agent.os_info().await).await? {
            *link.os.lock().expect("no holder panics") = Some(os);
        }
        Ok(())
    }
}

impl Link {
    /// QEMU's state, `running`, `paused`, `shutdown` and so on (`RunState` of qapi/run-state.json).
    pub async fn status(&self) -> Result<String, QmpError> {
        let reply = self.qmp.execute_with("query-status", json!({}), &[], LOOK_DEADLINE).await?;
        Ok(reply["status"].as_str().unwrap_or("unknown").to_owned())
    }

    /// What runs in the guest, if it is known.
    pub fn os(&self) -> Option<GuestOs> {
        self.os.lock().expect("no holder panics").clone()
    }

    /// Lets `task` live as long as this link.
    pub fn keep(&self, task: JoinHandle<()>) {
        *self.watcher.lock().expect("no holder panics") = Some(task);
    }

    /// Whether the guest has opened the agent's port.
    pub async fn agent_is_open(&self) -> Result<bool, QmpError> {
        let list = self.qmp.execute("query-chardev", json!({})).await?;
        let mut open = list.as_array().into_iter().flatten().filter(|chardev| chardev["label"] == "agent");
        Ok(open.any(|chardev| chardev["frontend-open"] == Value::Bool(true)))
    }

    /// Ends QEMU: asks it, which writes out what it holds of disks, then kills it.
    pub async fn end(&self) -> Result<(), DriverError> {
        let asked = self.qmp.execute_with("quit", json!({}), &[], QUIT_DEADLINE).await;
        // Closing without an answer is an answer.
        let heard = !matches!(asked, Err(QmpError::Timeout { .. } | QmpError::Refused { .. }));
        if heard && wait_exit(&self.process, QUIT_DEADLINE).await? {
            reap(&self.process);
            return Ok(());
        }
        kill(&self.process).await
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.get_mut().expect("no holder panics").take() {
            watcher.abort();
        }
    }
}

/// Kills a process and waits until it is gone.
pub async fn kill(process: &PidFd) -> Result<(), DriverError> {
    let failed =
        |error: sys::Error| DriverError::Io { operation: "killing QEMU".to_owned(), source: error.into() };
    process.send_signal(nix::sys::signal::Signal::SIGKILL).map_err(failed)?;
    if wait_exit(process, KILL_DEADLINE).await? {
        reap(process);
        return Ok(());
    }
    let what = format!("the killed process {} of QEMU", process.pid());
    Err(DriverError::Timeout { what, after_ms: KILL_DEADLINE.as_millis() as u64 })
}

/// Leaves no zombie of a process that was ended on purpose. It may be no child of ours, and then needs no reaping.
fn reap(process: &PidFd) {
    if let Err(error) = process.reap() {
        tracing::debug!(%error, "an ended QEMU is not reaped");
    }
}

/// Waits until a process has ended; false when the deadline passes first.
pub async fn wait_exit(process: &PidFd, deadline: Duration) -> Result<bool, DriverError> {
    let watch = exit_watch(process)?;
    Ok(timeout(deadline, watch.readable()).await.is_ok())
}

/// A descriptor that becomes readable when the process has ended.
pub fn exit_watch(process: &PidFd) -> Result<AsyncFd<OwnedFd>, DriverError> {
    use std::os::fd::AsFd as _;
    let descriptor = process.as_fd().try_clone_to_owned();
    #[expect(
        deprecated,
        reason = "an OwnedFd keeps the promises that the successor, which is unsafe, asks for"
    )]
    let watch = descriptor.and_then(|descriptor| AsyncFd::with_interest(descriptor, Interest::READABLE));
    watch.map_err(super::launch::failed("watching QEMU's process"))
}

/// What an event of QEMU means to whoever keeps the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// The guest ended: why, and whether that is a failure.
    Ended {
        /// For users.
        cause: &'static str,
        /// It was no clean power-off.
        failed: bool,
    },
    /// The guest opened the agent's port.
    AgentCame,
    /// Something that an observer may see changed.
    Changed,
    /// Nothing of interest.
    Nothing,
}

/// Reads an event (qapi/run-state.json, qapi/char.json).
pub fn meaning(event: &Event) -> Meaning {
    match (event.name.as_str(), event.data["reason"].as_str(), event.data["id"].as_str()) {
        ("SHUTDOWN", Some("guest-panic"), _) | ("GUEST_PANICKED", _, _) => {
            Meaning::Ended { cause: "the guest's kernel panicked", failed: true }
        }
        ("SHUTDOWN", Some("host-qmp-quit" | "host-signal"), _) => Meaning::Changed,
        ("SHUTDOWN", _, _) => Meaning::Ended { cause: "powered off by the guest", failed: false },
        ("VSERPORT_CHANGE", _, Some("agent-port")) if event.data["open"] == true => Meaning::AgentCame,
        ("STOP" | "RESUME" | "RESET" | "SUSPEND" | "WAKEUP" | "DEVICE_DELETED" | "BLOCK_IO_ERROR", _, _) => {
            Meaning::Changed
        }
        _ => Meaning::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_mean_what_qemu_says() {
        let event = |name: &str, data: Value| meaning(&Event { name: name.to_owned(), data });
        let off = event("SHUTDOWN", json!({"guest": true, "reason": "guest-shutdown"}));
        assert_eq!(off, Meaning::Ended { cause: "powered off by the guest", failed: false });
        let panic = event("GUEST_PANICKED", json!({"action": "pause"}));
        assert!(matches!(panic, Meaning::Ended { failed: true, .. }));
        assert_eq!(event("SHUTDOWN", json!({"guest": false, "reason": "host-qmp-quit"})), Meaning::Changed);
        assert_eq!(event("VSERPORT_CHANGE", json!({"id": "agent-port", "open": true})), Meaning::AgentCame);
        assert_eq!(event("VSERPORT_CHANGE", json!({"id": "agent-port", "open": false})), Meaning::Nothing);
        assert_eq!(event("BALLOON_CHANGE", json!({})), Meaning::Nothing);
    }
}
