//! One container in the shim: started, running, waiting to be started again, ended.

use super::stream::{Attachment, Pumped, Streams, pump};
use crate::container::{
    bundle::{Container, Pod},
    cgroup::PodGroup,
    first_boot,
    log::LogWriter,
    process::{self, Launch, Place, PodNamespaces, StartError, Started},
    protocol::{ContainerExit, ContainerState, Exec, ProcessId, Status},
    restart::{self, Run},
    root::{self, Root},
    seccomp,
    system::{INITS, stop_signal},
    user,
};
use jiff::Timestamp;
use model::plan::RestartPolicy;
use std::{
    os::fd::{AsFd, OwnedFd, RawFd},
    path::Path,
    time::{Duration, Instant},
};
use sys::jail::{
    filter::Instruction,
    privilege,
    process::{Ended, signal_pidfd, wait},
};

/// Most reads of one stream when its program has ended: a pipe holds no more, whoever else has its far end.
const LAST_READS_MAX: usize = 64;
/// How the kernel ends the first process of a namespace in which somebody calls reboot(2), by what was asked for.
const REBOOTED: i32 = libc::SIGHUP;
const POWERED_OFF: i32 = libc::SIGINT;

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
    /// Signal that asks it to end: the container's, or that of the init that was found in it.
    stop_signal: i32,
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
        let rules = if container.system.is_some() { seccomp::system_rules } else { seccomp::default_rules };
        let filter = seccomp::compile(&rules(container.process.capabilities));
        let log = LogWriter::new(&container.log, container.log_limits);
        Self {
            stop_signal: container.stop_signal,
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
            role: self.container.role,
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

    /// Whether it has run to a good end.
    pub fn has_succeeded(&self) -> bool {
        self.is_over() && self.exit.as_ref().is_some_and(|exit| exit.code == 0)
    }

    /// It will never be started.
    pub fn give_up(&mut self) {
        if self.is_new() {
            self.phase = Phase::Exited;
        }
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
        // The group of a system is made anew with each of its boots, and counts from nothing.
        let oom_kills_before =
            if self.container.system.is_some() { 0 } else { group.oom_kills(&self.container.name) };
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
        let setup = |error: root::RootError| StartError::Setup(root::told(&error));
        let (name, is_system) = (&self.container.name, self.container.system.is_some());
        let made = match is_system {
            true => group.add_system(name, &self.container.limits, pod.ids.base),
            false => group.add_container(name, &self.container.limits),
        };
        made.map_err(io("make the cgroup"))?;
        self.root = None;
        let root = root::prepare(pod, &self.container, shared.user.as_fd()).map_err(setup)?;
        first_boot::write(pod, &self.container, &root).map_err(setup)?;
        self.find_init(&root)?;
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
            terminal_size: process.terminal_size,
            stdio: far.descriptors(),
            filter: &self.filter,
        };
        let place = Place::New { pod, container: &self.container, shared };
        let name = &self.container.name;
        let mut started = process::start(place, &launch, |pid| match is_system {
            true => group.admit_init(name, pid),
            false => group.admit(name, pid),
        })?;
        self.streams = match started.terminal.take() {
            Some(terminal) if is_system => Streams::console(terminal).map_err(io("hold the console"))?,
            Some(terminal) => Streams::terminal(terminal).map_err(io("hold the terminal"))?,
            None => streams,
        };
        self.root = Some(root);
        Ok(started)
    }

    /// Looks for the init of a system, where none is named, and for the signal that it powers off by.
    fn find_init(&mut self, root: &Root) -> Result<(), StartError> {
        if self.container.system.is_none() {
            return Ok(());
        }
        let argv = &mut self.container.process.argv;
        if argv.is_empty() {
            let found = INITS.into_iter().find(|path| root.program(path).is_some());
            let missing = || StartError::Program {
                code: 127,
                message: format!("the image has no init: none of {} is in it", INITS.join(", ")),
            };
            argv.push(found.ok_or_else(missing)?.to_string());
        }
        if self.container.stop_signal == 0 {
            let program = root.program(&argv[0]);
            self.stop_signal = stop_signal(program.as_deref().unwrap_or(Path::new(&argv[0])));
        }
        Ok(())
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
            terminal_size: request.size,
            stdio,
            filter: &self.filter,
        };
        let place = Place::Beside(running.pidfd.as_fd());
        let name = &self.container.name;
        process::start(place, &launch, |pid| match self.container.system {
            Some(_) => group.admit_beside(name, running.process.pid, pid),
            None => group.admit(name, pid),
        })
    }

    /// Sends a signal to the first process. Told to stop, it is not started again.
    pub fn signal(&mut self, signal: i32) {
        if signal == libc::SIGKILL || signal == self.stop_signal {
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
        self.signal(self.stop_signal);
        if matches!(self.phase, Phase::Running(_)) {
            self.kill_at = grace.map(|grace| Instant::now() + grace).or(self.kill_at);
        }
    }

    /// Asks the run that began at `since_ms` to end, and kills it after `grace`. Its policy decides what follows.
    pub fn renew(&mut self, since_ms: i64, grace: Duration) {
        if let Phase::Running(running) = &self.phase
            && running.since_ms == since_ms
            && self.kill_at.is_none()
        {
            let _ = signal_pidfd(running.pidfd.as_fd(), self.container.stop_signal);
            self.kill_at = Some(Instant::now() + grace);
        }
    }

    /// Kills it, since it was asked to end and its time is over.
    pub fn kill(&mut self) {
        self.kill_at = None;
        if let Phase::Running(running) = &self.phase {
            let _ = signal_pidfd(running.pidfd.as_fd(), libc::SIGKILL);
        }
    }

    /// Whether it runs and was not asked to end.
    pub fn is_wanted(&self) -> bool {
        !self.stop_requested && !self.is_over()
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
        let exit = ContainerExit { code: ended.shell_code(), signal, oom_killed, ..ContainerExit::default() };
        match (self.container.system.is_some(), signal) {
            (true, Some(REBOOTED)) => self.rebooted(since),
            (true, Some(POWERED_OFF)) => {
                let message = "it powered off".to_string();
                self.ended(ContainerExit { code: 0, signal: None, message, ..exit }, since);
            }
            _ => self.ended(exit, since),
        }
        true
    }

    /// A system that rebooted starts again whatever its policy says, at once unless it does nothing else.
    fn rebooted(&mut self, since: Instant) {
        let policy = std::mem::replace(&mut self.container.restart, RestartPolicy::Always);
        let message = "it rebooted".to_string();
        self.ended(ContainerExit { message, ..ContainerExit::default() }, since);
        self.container.restart = policy;
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
