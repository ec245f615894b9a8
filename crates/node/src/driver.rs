//! The line between holm and what runs an instance: one trait for virtual machines, pods and the fake.
//!
//! Every verb is idempotent and may be repeated after a crash on either side of its effect. A driver remembers
//! nothing that it cannot find again by looking: a new driver over the same directories sees the same guests.

mod dialed;

pub use dialed::Dialed;

use crate::{
    container::files::{FilesError, OpenFiles},
    room::Short,
};
use async_trait::async_trait;
use model::{
    id::{InstanceId, PortId, VolumeId},
    instance::{Grant, keys::KeyChange},
    plan::{DiskPlan, IdRange, InstancePlan, NicPlan},
};
use serde::{Deserialize, Serialize};
use std::{io, os::fd::OwnedFd, path::PathBuf, time::Duration};
use tokio::sync::broadcast;

/// What a driver sees of an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Seen {
    /// Nothing of it ran since the host was started; files of it may be left.
    Absent,
    /// It was started since the host was, and runs no more; files of it may be left.
    Stopped(Exit),
    /// It runs.
    Running(Running),
    /// It is here and frozen.
    Paused(Running),
    /// It is here and frozen, because the host has no room for what it writes. It loses nothing and goes on when it is
    /// resumed, if there is room by then.
    Stalled(Running),
    /// It does not run, and its memory is on disk.
    Asleep {
        /// `InstancePlan::boot` of the boot that goes on when it is started.
        boot: u64,
    },
}

/// A running instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Process id of QEMU or the shim on this host.
    pub pid: u32,
    /// Start of that process in milliseconds since 1970.
    pub since_ms: i64,
    /// `InstancePlan::boot` of the plan that started it.
    pub boot: u64,
    /// What users should know: accelerator, machine type, guest OS, containers and their restarts.
    #[serde(default)]
    pub facts: serde_json::Map<String, serde_json::Value>,
}

/// How an instance ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, where there is one; 128 and the signal's number after a signal.
    pub code: Option<i32>,
    /// What users are told: "powered off by the guest", "killed by the OOM killer", the tail of QEMU's errors.
    pub cause: String,
    /// The end was not asked for and was no clean power-off.
    pub failed: bool,
    /// `InstancePlan::boot` of the plan that had started it.
    pub boot: u64,
    /// Start of the run that ended, in milliseconds since 1970, where that is known.
    pub started_ms: Option<i64>,
    /// What users should know of how it was at the end: containers and their restarts.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub facts: serde_json::Map<String, serde_json::Value>,
}

/// Why a driver could not do something.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A program or feature of the host is missing.
    #[error("{what} is missing on this host")]
    Missing {
        /// What is missing.
        what: String,
        /// What to do.
        hint: String,
    },
    /// The plan asks for something that this host or kind cannot do.
    #[error("{what}")]
    Unsupported {
        /// What was asked, and why it cannot be.
        what: String,
        /// What to do.
        hint: String,
    },
    /// The instance is not running (or not here).
    #[error("the instance is not running")]
    NotRunning,
    /// The guest or its monitor did not answer in time.
    #[error("{what} did not answer within {after_ms} ms")]
    Timeout {
        /// Who did not answer.
        what: String,
        /// Deadline in milliseconds.
        after_ms: u64,
    },
    /// A program could not be run in a container.
    #[error("run the program (exit code {code}): {answer}")]
    NotRun {
        /// As shells number it: 127 where there is none, 126 where it cannot be run, 125 for all else.
        code: i32,
        /// Why.
        answer: String,
    },
    /// An operation on the host failed.
    #[error("{operation}")]
    Io {
        /// Operation and object.
        operation: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The disk of the host has too little room.
    #[error("{operation}")]
    NoRoom {
        /// Operation and object.
        operation: String,
        /// The numbers.
        #[source]
        source: Short,
    },
    /// Anything the hypervisor or runtime answered.
    #[error("{operation}: {answer}")]
    Refused {
        /// Operation and object.
        operation: String,
        /// The answer.
        answer: String,
    },
    /// A container's files cannot be had.
    #[error(transparent)]
    Files(#[from] FilesError),
}

/// A two-way byte stream to a console, an attached container or an exec.
pub type Stream = tokio::net::UnixStream;

/// A program to run beside a container's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Container of the pod; the first when `None`.
    pub container: Option<String>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment beside the container's.
    pub env: Vec<(String, String)>,
    /// Working directory; the container's when `None`.
    pub cwd: Option<String>,
    /// User; the container's when `None`.
    pub user: Option<String>,
    /// A terminal.
    pub tty: bool,
    /// Size of the terminal: rows and columns.
    pub size: Option<(u16, u16)>,
    /// It ends with its handle, and a SIGKILL ends what it started in its session along with it.
    #[serde(default)]
    pub tied: bool,
}

/// Standard streams of an exec or attach, handed over as file descriptors.
#[derive(Debug)]
pub struct Stdio {
    /// Standard input; with a terminal the one stream of all three.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// How the standard streams of a container's own program are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachRequest {
    /// Container of the pod; the first when `None`.
    pub container: Option<String>,
    /// Send input on.
    pub input: bool,
    /// The container's input stays open when this reader's ends.
    pub keeps_input: bool,
    /// Where it does not run now, wait for its next start and miss nothing of it.
    pub waits: bool,
}

/// A place among those that wait for a start; given back by dropping it. Nothing to give back once it runs.
pub type Place = Option<Box<dyn std::any::Any + Send + Sync>>;

/// What a running instance uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time since its start in microseconds.
    pub cpu_usage_us: u64,
    /// Time that it was held back by its quota, in microseconds.
    pub cpu_throttled_us: u64,
    /// Memory in bytes, page cache included.
    pub memory_bytes: u64,
    /// The part of it that is page cache which was not used lately.
    pub memory_inactive_file_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}

impl From<sys::cgroup::Stats> for Usage {
    fn from(stats: sys::cgroup::Stats) -> Self {
        Self {
            cpu_usage_us: stats.cpu_usage_us,
            cpu_throttled_us: stats.cpu_throttled_us,
            memory_bytes: stats.memory_bytes,
            memory_inactive_file_bytes: stats.memory_inactive_file_bytes,
            pids: stats.pids,
        }
    }
}

/// Bytes that passed between a running instance and its disks, since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskTraffic {
    /// What it read.
    pub read_bytes: u64,
    /// What it wrote.
    pub written_bytes: u64,
}

impl From<sys::cgroup::DiskTraffic> for DiskTraffic {
    fn from(seen: sys::cgroup::DiskTraffic) -> Self {
        Self { read_bytes: seen.read_bytes, written_bytes: seen.written_bytes }
    }
}

/// A process of an instance, as its host sees it (proc(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSeen {
    /// Number on the host.
    pub pid: i32,
    /// Number of its parent.
    pub parent: i32,
    /// User on the host.
    pub uid: u32,
    /// Start in seconds since 1970.
    pub started_s: i64,
    /// Processor time in seconds.
    pub cpu_s: u64,
    /// Number of its controlling terminal; 0 for none.
    pub terminal: i32,
    /// Program and arguments.
    pub argv: Vec<String>,
}

/// A running exec.
#[async_trait]
pub trait ExecHandle: Send + Sync {
    /// Waits for the exit code.
    async fn wait(&self) -> Result<i32, DriverError>;
    /// Changes the terminal's size (rows, columns).
    async fn resize(&self, rows: u16, columns: u16) -> Result<(), DriverError>;
    /// Sends a signal.
    async fn signal(&self, signal: i32) -> Result<(), DriverError>;
}

/// Which part of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogQuery {
    /// Container of the pod; the first when `None`.
    pub container: Option<String>,
    /// Only the last lines; all when `None`.
    pub tail_lines: Option<usize>,
    /// Only lines at or after this time, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Go on as new lines come.
    pub follow: bool,
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// Time in nanoseconds since 1970.
    pub time_ns: i64,
    /// 1 is standard output, 2 is standard error.
    pub stream: u8,
    /// Bytes with the line's end, if it had one.
    pub bytes: Vec<u8>,
}

/// Runs instances of one kind on this host.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// Looks at an instance. Never waits for a guest longer than a short deadline.
    async fn observe(&self, id: InstanceId) -> Result<Seen, DriverError>;
    /// Ids of all instances of which this driver finds anything on this host, to find strays.
    async fn list(&self) -> Result<Vec<InstanceId>, DriverError>;
    /// Makes the place that an instance's network is made for, before that is: what comes with it is quicker than what is
    /// brought later. Whether it was called changes nothing else.
    async fn make_room(&self, _id: InstanceId, _ids: IdRange) -> Result<(), DriverError> {
        Ok(())
    }
    /// Starts the instance, or finishes a start that a crash cut short.
    async fn start(&self, plan: &InstancePlan) -> Result<(), DriverError>;
    /// Asks the guest to stop and returns at once.
    async fn shutdown(&self, id: InstanceId) -> Result<(), DriverError>;
    /// Ends the instance at once.
    async fn kill(&self, id: InstanceId) -> Result<(), DriverError>;
    /// Ends the run of a container that began at `since_ms`, as a failed probe wants it: by its stop signal, and by force
    /// after `grace_ms`. Whether it is started again is its restart policy's. Another run is left alone.
    async fn renew(
        &self,
        _: InstanceId,
        _container: &str,
        _since_ms: i64,
        _grace_ms: u64,
    ) -> Result<(), DriverError> {
        Err(unserved("its containers"))
    }
    /// Connects to a port of the instance from within its own network.
    async fn dial(&self, _: InstanceId, _port: u16, _limit: Duration) -> Result<Dialed, DriverError> {
        Err(unserved("its ports"))
    }
    /// Freezes a running instance.
    async fn pause(&self, id: InstanceId) -> Result<(), DriverError>;
    /// Lets a frozen instance go on.
    async fn resume(&self, id: InstanceId) -> Result<(), DriverError>;
    /// Puts the memory of an instance on disk and ends it. [`Self::start`] of the same boot lets it go on from there, and
    /// one of a later boot throws the memory away.
    async fn suspend(&self, _id: InstanceId) -> Result<(), DriverError> {
        Err(DriverError::Unsupported {
            what: "its memory cannot be put on disk".into(),
            hint: "Freeze it in memory with `holm pause`.".into(),
        })
    }
    /// Throws away the memory that [`Self::suspend`] put on disk.
    async fn discard(&self, _id: InstanceId) -> Result<(), DriverError> {
        Ok(())
    }
    /// Ends the instance and removes all that this driver made for it.
    async fn destroy(&self, id: InstanceId) -> Result<(), DriverError>;

    /// Plugs an interface into a running instance.
    async fn attach_nic(&self, id: InstanceId, nic: &NicPlan) -> Result<(), DriverError>;
    /// Unplugs an interface; done when the guest let go.
    async fn detach_nic(&self, id: InstanceId, port: PortId) -> Result<(), DriverError>;
    /// Plugs a disk into a running instance.
    async fn attach_disk(&self, id: InstanceId, disk: &DiskPlan) -> Result<(), DriverError>;
    /// Unplugs a disk; done when the guest let go.
    async fn detach_disk(&self, id: InstanceId, volume: VolumeId) -> Result<(), DriverError>;
    /// Makes a plugged-in disk larger and tells the guest. As large already is fine. `size_bytes` is never less than
    /// the disk has.
    async fn grow_disk(&self, _: InstanceId, disk: &DiskPlan, _size_bytes: u64) -> Result<(), DriverError> {
        Err(DriverError::Unsupported {
            what: format!("volume {} cannot grow while the instance runs", disk.volume),
            hint: "stop the instance first".into(),
        })
    }
    /// Gives a running instance, which has `has`, the CPUs, memory and weight of its plan as far as that needs no other
    /// boot, and tells what it has then.
    async fn resize(&self, _plan: &InstancePlan, has: Grant) -> Result<Grant, DriverError> {
        Ok(has)
    }
    /// Lets the holders of these keys log in as `login`, or no more. Those that it knows already, or does not know, are
    /// fine. False when nobody in the guest can be told.
    async fn change_keys(
        &self,
        _: InstanceId,
        _login: &str,
        _change: &KeyChange,
    ) -> Result<bool, DriverError> {
        Ok(false)
    }
    /// Leads the guest's writes to the uppermost of the layers `above`, empty qcow2 files, lowest first. What is below
    /// never changes from then on. Layers that it has already are fine.
    async fn stack_disk(
        &self,
        _: InstanceId,
        disk: &DiskPlan,
        _above: &[PathBuf],
    ) -> Result<(), DriverError> {
        Err(DriverError::Unsupported {
            what: format!("volume {} cannot be frozen while the instance runs", disk.volume),
            hint: "stop the instance first".into(),
        })
    }
    /// Interfaces and disks that the running instance has now.
    async fn attached(&self, id: InstanceId) -> Result<(Vec<PortId>, Vec<VolumeId>), DriverError>;

    /// The last bytes of the serial console (VM) or of the first container's log (pod), at most `bytes_max`.
    async fn console_log(&self, id: InstanceId, bytes_max: usize) -> Result<Vec<u8>, DriverError>;
    /// A two-way stream to the serial console or the first container's terminal.
    async fn console(&self, id: InstanceId) -> Result<Stream, DriverError>;
    /// Lets root in at the serial console, with no password. Whoever was logged in there is logged out.
    async fn open_login(&self, _: InstanceId) -> Result<(), DriverError> {
        Err(DriverError::Unsupported {
            what: "only VMs have a log in at their console".into(),
            hint: "run a program in a container with `holm exec`".into(),
        })
    }
    /// Ends what was begun there; the console asks for a password again.
    async fn close_login(&self, _: InstanceId) -> Result<(), DriverError> {
        Ok(())
    }
    /// A two-way stream of the RFB protocol (VNC).
    async fn vnc(&self, id: InstanceId) -> Result<Stream, DriverError>;
    /// Lines of a container's log, oldest first, until the end or the receiver is dropped.
    async fn logs(
        &self,
        id: InstanceId,
        query: &LogQuery,
    ) -> Result<tokio::sync::mpsc::Receiver<LogLine>, DriverError>;
    /// Runs a program in a container.
    async fn exec(
        &self,
        id: InstanceId,
        request: &ExecRequest,
        stdio: Stdio,
    ) -> Result<Box<dyn ExecHandle>, DriverError>;

    /// Joins the standard streams of a container's own program. `stdio` are the far ends; with a terminal all three may be
    /// one.
    async fn attach(
        &self,
        _: InstanceId,
        _request: &AttachRequest,
        _stdio: [OwnedFd; 3],
    ) -> Result<Place, DriverError> {
        Err(unserved("the streams of its program"))
    }
    /// Changes the size of the first container's terminal (rows, columns).
    async fn resize_terminal(&self, _: InstanceId, _rows: u16, _columns: u16) -> Result<(), DriverError> {
        Err(unserved("the size of its terminal"))
    }
    /// Sends a signal to the first process of the first container.
    async fn signal(&self, _: InstanceId, _signal: i32) -> Result<(), DriverError> {
        Err(unserved("signals"))
    }
    /// What a running instance uses.
    async fn usage(&self, _: InstanceId) -> Result<Usage, DriverError> {
        Err(unserved("what it uses"))
    }
    /// What passed between a running instance and its disks; `None` where nobody counts it.
    async fn disk_traffic(&self, _: InstanceId) -> Result<Option<DiskTraffic>, DriverError> {
        Ok(None)
    }
    /// Its processes.
    async fn processes(&self, _: InstanceId) -> Result<Vec<ProcessSeen>, DriverError> {
        Err(unserved("its processes"))
    }

    /// The files of an instance's first container, whether it runs or not. `plan` is what its next start would run.
    async fn files(&self, _plan: &InstancePlan) -> Result<OpenFiles, DriverError> {
        Err(unserved("its files"))
    }

    /// Volumes that are open for work on the files of an instance which does not run.
    async fn lent(&self, _: InstanceId) -> Result<Vec<VolumeId>, DriverError> {
        Ok(vec![])
    }

    /// Tells which instances changed by themselves (exit, crash, guest reboot).
    fn changes(&self) -> broadcast::Receiver<InstanceId>;
}

/// What containers alone have.
fn unserved(what: &str) -> DriverError {
    DriverError::Unsupported {
        what: format!("{what}: only a container's are within holm's reach"),
        hint: "log in to the instance".into(),
    }
}
