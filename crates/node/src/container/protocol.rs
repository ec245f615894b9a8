//! What is said over a shim's socket, and what a shim writes down about its pod.
//!
//! Requests and replies are JSON, one per line; descriptors travel with the line that speaks of them (SCM_RIGHTS).
//! A connection may ask many times; each request gets one reply, and `watch`, `exec` and `attach` are followed by
//! events on the same connection. A newer daemon speaks to older shims, so fields are only ever added.

use super::{bundle::Limits, files::work::Work};
use crate::driver::{ProcessSeen, Usage};
use model::{id::PortId, instance::content::Role, plan::NicPlan};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The first argument of a shim.
pub const SHIM: &str = "shim";
/// The first argument of a nursery of shims.
pub const NURSERY: &str = "nursery";
/// Name of a shim's socket below the pod's run directory.
pub const SOCKET: &str = "shim.sock";
/// Name of the file in which a shim keeps its pod's state, below the run directory.
pub const STATE: &str = "state.json";
/// Name of the file that a shim holds locked for as long as it lives, below the pod's run directory.
pub const LOCK: &str = "shim.lock";
/// Name of the pod's file below its state directory.
pub const POD: &str = "pod.json";
/// Longest line.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// What a shim is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum Request {
    /// The pod's state.
    State,
    /// The state now and after every change.
    Watch,
    /// Starts containers that have ended: one, or all.
    Start {
        /// The container.
        container: Option<String>,
    },
    /// Sends a signal to the first process of one container, or of all.
    Kill {
        /// The container.
        container: Option<String>,
        /// Number of the signal.
        signal: i32,
    },
    /// Sends the stop signal; after the grace period, if one is given, kills. No restart follows.
    Stop {
        /// The container.
        container: Option<String>,
        /// Milliseconds before killing.
        grace_ms: Option<u64>,
    },
    /// Ends one run of a container, which its policy may then start again: sends the stop signal, kills after a time.
    Renew {
        /// The container.
        container: String,
        /// Start of the run, in milliseconds since 1970; another run is left alone.
        since_ms: i64,
        /// Milliseconds before killing.
        grace_ms: u64,
    },
    /// Freezes every process of the pod.
    Pause,
    /// Lets them go on.
    Resume,
    /// Changes the limits of the pod.
    Limits {
        /// All of them.
        limits: Limits,
    },
    /// Runs a program in a container. Without a terminal, three descriptors come along: its standard streams.
    Exec(Exec),
    /// Connects to a container's standard streams. Three descriptors come along: one to read input from, and two to
    /// write output and errors to. Output is not lost while the reader makes progress.
    Attach {
        /// The container; the first when `None`.
        container: Option<String>,
        /// Send input on.
        input: bool,
        /// The container's input stays open when this reader's ends.
        #[serde(default)]
        keeps_input: bool,
    },
    /// New size of the terminal: of this connection's exec, else of the container.
    Resize {
        /// The container; the first when `None`.
        container: Option<String>,
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// Sends a signal to this connection's exec.
    Signal {
        /// Number of the signal.
        signal: i32,
    },
    /// Connects to a port of a pod that has a kernel of its own. One descriptor comes back: the stream.
    Dial {
        /// The port, at the pod's first address.
        port: u16,
        /// Milliseconds that it may take.
        limit_ms: u64,
    },
    /// The processes of a pod that has a kernel of its own.
    Processes,
    /// What such a pod uses of its machine.
    Usage,
    /// Works on the files of such a pod. Two descriptors come along: what goes in is read from the first, and the answer is
    /// written to the second.
    Files {
        /// What is to be done.
        work: Work,
    },
    /// Sets up a network card that such a pod's machine was given while it runs.
    Plug {
        /// What it is to become.
        nic: Box<NicPlan>,
    },
    /// Takes down the network card of a port, which the machine is about to lose.
    Unplug {
        /// The port.
        port: PortId,
    },
    /// Kills everything and ends the shim.
    Shutdown,
}

/// A program to run beside a container's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// The container; the first when `None`.
    pub container: Option<String>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment beside the container's.
    pub env: Vec<(String, String)>,
    /// Working directory; the container's when `None`.
    pub cwd: Option<PathBuf>,
    /// User; the container's when `None`.
    pub user: Option<String>,
    /// A terminal: its near end comes back with the reply.
    pub tty: bool,
    /// Rows and columns of the terminal.
    pub size: Option<(u16, u16)>,
    /// It is killed when its connection ends, and whatever kills it kills its whole process group.
    #[serde(default)]
    pub tied: bool,
}

/// What a shim answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reply")]
pub enum Reply {
    /// It is done.
    Done,
    /// The state.
    State(PodState),
    /// The program runs; the near end of its terminal comes along if it has one.
    Executing {
        /// Its process on the host.
        pid: i32,
    },
    /// The program ended.
    Exited {
        /// Exit code; 128 and the signal's number after a signal.
        code: i32,
    },
    /// The processes, with the numbers that they have under their kernel.
    Processes {
        /// They.
        processes: Vec<ProcessSeen>,
    },
    /// What is used.
    Usage {
        /// It.
        usage: Usage,
    },
    /// It could not be done.
    Failed {
        /// Exit code that stands for the failure (125, 126, 127), where a program was to run.
        code: i32,
        /// Why.
        message: String,
    },
}

/// A pod, as its shim sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PodState {
    /// `InstancePlan::boot` of the plan that started it.
    pub boot: u64,
    /// The shim.
    pub shim: ProcessId,
    /// The shim's start, in milliseconds since 1970.
    pub since_ms: i64,
    /// All processes are frozen.
    pub paused: bool,
    /// The containers in their order.
    pub containers: Vec<ContainerState>,
    /// What keeps them in, for people.
    #[serde(default)]
    pub confinement: String,
}

/// A process that can be told from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Number on the host.
    pub pid: i32,
    /// Start in clock ticks since the host booted.
    pub start_time: u64,
}

/// A container, as its shim sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Its name.
    pub name: String,
    /// What it does.
    pub status: Status,
    /// How often it was started again by its policy.
    pub restarts: u32,
    /// How its last run ended.
    pub exit: Option<ContainerExit>,
    /// When it runs, of the pod's containers.
    #[serde(default, skip_serializing_if = "Role::is_main")]
    pub role: Role,
    /// It runs, and does not count as running yet: its postStart hook has not ended well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub starting: bool,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum Status {
    /// It was not started yet.
    Created,
    /// Its first process runs.
    Running {
        /// That process.
        process: ProcessId,
        /// Its start in milliseconds since 1970.
        since_ms: i64,
    },
    /// It ended and is to be started again.
    Waiting {
        /// When, in milliseconds since 1970.
        until_ms: i64,
    },
    /// It ended for good.
    Exited,
}

/// How a run of a container ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerExit {
    /// Exit code; 128 and the signal's number after a signal.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The kernel killed a process of it for lack of memory.
    pub oom_killed: bool,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Why it could not be started, or what else there is to tell.
    pub message: String,
    /// The user asked for the end.
    pub requested: bool,
    /// Its start, in milliseconds since 1970; `None` where nothing was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<i64>,
}

impl PodState {
    /// Whether any container runs or will run again.
    pub fn alive(&self) -> bool {
        self.containers.iter().any(|it| matches!(it.status, Status::Running { .. } | Status::Waiting { .. }))
    }
}

impl ContainerExit {
    /// What users are told.
    pub fn cause(&self) -> String {
        match self {
            Self { message, .. } if !message.is_empty() => message.clone(),
            Self { oom_killed: true, .. } => {
                "killed by the OOM killer: it used more memory than its limit".into()
            }
            Self { signal: Some(signal), requested: true, .. } => format!("stopped by signal {signal}"),
            Self { signal: Some(signal), .. } => format!("ended by signal {signal}"),
            Self { code, .. } => format!("exited with code {code}"),
        }
    }
}
