//! One container in the shim: started, running, waiting to be started again, ended.

use super::stream::{Attachment, Pumped, Streams, pump};
use crate::container::{
    bundle::{Container, Pod},
    cgroup::PodGroup,
    log::LogWriter,
    process::{self, Launch, Place, PodNamespaces, StartError, Started},
    protocol::{ContainerExit, ContainerState, Exec, ProcessId, Status},
    restart::{self, Run},
    root::{self, Root},
    seccomp, user,
};
use jiff::Timestamp;
use std::{
    os::fd::{AsFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};
use sys::jail::{
    filter::Instruction,
    privilege,
    process::{Ended, signal_pidfd, wait},
};

/// Most reads of one stream when its program has ended: a pipe holds no more, whoever else has its far end.
const LAST_READS_MAX: usize = 64;

/// One container.
#[derive(Debug)]
pub struct Task {
    /// What it is.
    pub container: Container,
    /// Its standard streams while it runs.
    pub streams: Streams,
    /// Who reads along.
    pub attachments: Vec<Attachment>,
    /// When it is killed, if it does not end before.
    pub kill_at: Option<Instant>,
    filter: Vec<Instruction>,
    phase: Phase,
    log: LogWriter,
    restarts: u32,
    failures: u32,
    stop_requested: bool,
    exit: Option<ContainerExit>,
    root: Option<Root>,
}

#[derive(Debug)]
enum Phase {
    Created,
    Running(Running),
    Waiting { until: Instant, until_ms: i64 },
    Exited,
}

#[derive(Debug)]
struct Running {
    process: ProcessId,
    pidfd: OwnedFd,
    since: Instant,
    since_ms: i64,
    oom_kills_before: u64,
}

impl Task {
    /// A container that was not started yet.
    pub fn new(container: Container) -> Self {
        let filter = seccomp::compile(&seccomp::default_rules(container.process.capabilities));
        let log = LogWriter::new(&container.log, container.log_limits);
        Self {
            container,
            streams: Streams::default(),
            attachments: Vec::new(),
            kill_at: None,
            filter,
            phase: Phase::Created,
            log,
            restarts: 0,
            failures: 0,
            stop_requested: false,
            exit: None,
            root: None,
        }
    }

    /// What is told about it.
    pub fn state(&self) -> ContainerState {
        let status = match &self.phase {
            Phase::Created => Status::Created,
            Phase::Running(it) => Status::Running { process: it.process, since_ms: it.since_ms },
            Phase::Waiting { until_ms, .. } => Status::Waiting { until_ms: *until_ms },
            Phase::Exited => Status::Exited,
        };
        ContainerState {
            name: self.container.name.clone(),
            status,
            restarts: self.restarts,
            exit: self.exit.clone(),
        }
    }

    /// The handle of its first process while it runs.
    pub fn pidfd(&self) -> Option<&OwnedFd> {
        match &self.phase {
            Phase::Running(running) => Some(&running.pidfd),
            _ => None,
        }
    }

    /// Whether it was not started yet.
    pub fn is_new(&self) -> bool {
        matches!(self.phase, Phase::Created)
    }

    /// Whether it will do nothing more by itself.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Exited)
    }

    /// When it is started again.
    pub fn restart_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Starts it for the first time, or because the user said so.
    pub fn start(&mut self, pod: &Pod, shared: &PodNamespaces, group: &PodGroup) {
        if matches!(self.phase, Phase::Running(_)) {
            return;
        }
        self.stop_requested = false;
        self.failures = 0;
        self.restarts = 0;
        self.launch(pod, shared, group);
    }

    /// Starts it again by its policy.
    pub fn restart(&mut self, pod: &Pod, shared: &PodNamespaces, group: &PodGroup) {
        self.restarts = self.restarts.saturating_add(1);
        self.launch(pod, shared, group);
    }

    fn launch(&mut self, pod: &Pod, shared: &PodNamespaces, group: &PodGroup) {
        let since = Instant::now();
        let oom_kills_before = group.oom_kills(&self.container.name);
        match self.try_launch(pod, shared, group) {
            Ok(started) => {
                let start_time =
                    sys::pidfd::process_start_time(started.pid).ok().flatten().unwrap_or_default();
                self.phase = Phase::Running(Running {
                    process: ProcessId { pid: started.pid, start_time },
                    pidfd: started.pidfd,
                    since,
                    since_ms: Timestamp::now().as_millisecond(),
                    oom_kills_before,
                });
            }
            Err(error) => {
                let message = describe(&error);
                eprintln!("container {}: {message}", self.container.name);
                self.streams = Streams::default();
                self.root = None;
                let exit = ContainerExit { code: error.exit_code(), message, ..ContainerExit::default() };
                self.ended(exit, since);
            }
        }
    }

    fn try_launch(
        &mut self,
        pod: &Pod,
        shared: &PodNamespaces,
        group: &PodGroup,
    ) -> Result<Started, StartError> {
        let io = |operation| move |source| StartError::Io { operation, source };
        group.add_container(&self.container.name, &self.container.limits).map_err(io("make the cgroup"))?;
        self.root = None;
        let root = root::prepare(pod, &self.container, shared.user.as_fd())
            .map_err(|error| StartError::Setup(format!("{error}: {}", error.source)))?;
        let identity = identify(&root, &self.container.process.user, pod.ids.count)?;
        let process = &self.container.process;
        let (streams, far) = Streams::pipes(process.stdin_open).map_err(io("make pipes"))?;
        let launch = Launch {
            process,
            argv: &process.argv,
            env: &process.env,
            cwd: &process.cwd,
            identity: &identity,
            tty: process.tty,
            stdio: far.descriptors(),
            filter: &self.filter,
        };
        let place = Place::New { pod, container: &self.container, shared };
        let mut started = process::start(place, &launch, |pid| group.admit(&self.container.name, pid))?;
        self.streams = match started.terminal.take() {
            Some(terminal) => Streams::terminal(terminal).map_err(io("hold the terminal"))?,
            None => streams,
        };
        if let Some((rows, columns)) = process.terminal_size {
            self.resize(rows, columns);
        }
        self.root = Some(root);
        Ok(started)
    }

    /// Runs a program beside the first process.
    pub fn exec(
        &self,
        pod: &Pod,
        group: &PodGroup,
        request: &Exec,
        stdio: [RawFd; 3],
    ) -> Result<Started, StartError> {
        let (Phase::Running(running), Some(root)) = (&self.phase, &self.root) else {
            return Err(StartError::Setup(format!("container {} is not running", self.container.name)));
        };
        let own = &self.container.process;
        let identity = identify(root, request.user.as_ref().unwrap_or(&own.user), pod.ids.count)?;
        let mut env = own.env.clone();
        if request.tty && !env.iter().any(|(key, _)| key == "TERM") {
            env.push(("TERM".into(), "xterm".into()));
        }
        for (key, value) in &request.env {
            env.retain(|(known, _)| known != key);
            env.push((key.clone(), value.clone()));
        }
        let launch = Launch {
            process: own,
            argv: &request.argv,
            env: &env,
            cwd: request.cwd.as_ref().unwrap_or(&own.cwd),
            identity: &identity,
            tty: request.tty,
            stdio,
            filter: &self.filter,
        };
        let place = Place::Beside(running.pidfd.as_fd());
        process::start(place, &launch, |pid| group.admit(&self.container.name, pid))
    }

    /// Sends a signal to the first process. Told to stop, it is not started again.
    pub fn signal(&mut self, signal: i32) {
        if signal == libc::SIGKILL || signal == self.container.stop_signal {
            self.stop_requested = true;
        }
        match &self.phase {
            Phase::Running(running) => {
                let _ = signal_pidfd(running.pidfd.as_fd(), signal);
            }
            Phase::Waiting { .. } | Phase::Created if self.stop_requested => self.phase = Phase::Exited,
            _ => {}
        }
    }

    /// Asks it to end, and kills it after `grace`.
    pub fn stop(&mut self, grace: Option<Duration>) {
        self.stop_requested = true;
        self.signal(self.container.stop_signal);
        if matches!(self.phase, Phase::Running(_)) {
            self.kill_at = grace.map(|grace| Instant::now() + grace).or(self.kill_at);
        }
    }

    /// New size of its terminal.
    pub fn resize(&self, rows: u16, columns: u16) {
        use std::os::fd::AsRawFd;
        if let Some(terminal) = &self.streams.terminal {
            let _ = privilege::set_terminal_size(terminal.as_raw_fd(), rows, columns);
        }
    }

    /// Reads one output. Tells whether there may be more.
    pub fn pump(&mut self, number: usize) -> bool {
        let Some((stream, file)) = self.streams.outputs.get_mut(number) else {
            return false;
        };
        match pump(*stream, file, &mut self.log, &mut self.attachments) {
            Pumped::Some => true,
            Pumped::Nothing => false,
            Pumped::Closed => {
                self.streams.outputs.remove(number);
                false
            }
        }
    }

    /// Collects its first process, if it has ended. Tells whether it had.
    pub fn collect(&mut self, group: &PodGroup) -> bool {
        let Phase::Running(running) = &self.phase else {
            return false;
        };
        let ended = match wait(running.process.pid, false) {
            Ok(None) => return false,
            Ok(Some(ended)) => ended,
            // Not our child any more: cannot happen, and must not spin.
            Err(_) => Ended::Signal(libc::SIGKILL),
        };
        let since = running.since;
        let oom_killed = group.oom_kills(&self.container.name) > running.oom_kills_before;
        for number in (0..self.streams.outputs.len()).rev() {
            for _ in 0..LAST_READS_MAX {
                if !self.pump(number) {
                    break;
                }
            }
        }
        self.log.flush(Timestamp::now());
        self.streams = Streams::default();
        self.root = None;
        let signal = match ended {
            Ended::Signal(signal) => Some(signal),
            Ended::Code(_) => None,
        };
        self.ended(
            ContainerExit { code: ended.shell_code(), signal, oom_killed, ..ContainerExit::default() },
            since,
        );
        true
    }

    fn ended(&mut self, exit: ContainerExit, since: Instant) {
        self.kill_at = None;
        let run = Run {
            succeeded: exit.code == 0,
            lasted: since.elapsed(),
            stop_requested: self.stop_requested,
            failures: self.failures,
            restarts: self.restarts,
        };
        let now_ms = Timestamp::now().as_millisecond();
        self.exit = Some(ContainerExit { at_ms: now_ms, requested: self.stop_requested, ..exit });
        self.failures = restart::failures_after(run);
        self.phase = match restart::delay(self.container.restart, run) {
            Some(delay) => {
                let until_ms = now_ms + i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
                Phase::Waiting { until: Instant::now() + delay, until_ms }
            }
            None => Phase::Exited,
        };
    }
}

fn identify(root: &Root, wanted: &str, ids: u32) -> Result<user::Identity, StartError> {
    let text = |path: &'static str| {
        root.text(path).map_err(|source| StartError::Io { operation: "read the image's accounts", source })
    };
    user::resolve(wanted, &text("/etc/passwd")?, &text("/etc/group")?, ids)
        .map_err(|error| StartError::Program { code: 125, message: error.to_string() })
}

/// An error with its causes.
pub fn describe(error: &StartError) -> String {
    match error {
        StartError::Io { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}
