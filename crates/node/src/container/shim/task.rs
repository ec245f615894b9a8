//! One container in the shim: started, running, waiting to be started again, ended.

use super::{
    hook::{Child, Hook, Scene, When},
    log::TaskLog,
    stream::{Attachment, Pumped, Streams, pump},
};
use crate::container::{
    bundle::{Container, Pod},
    cgroup::PodGroup,
    first_boot, network,
    process::{self, Launch, Place, PodNamespaces, StartError, Started},
    protocol::{ContainerExit, ContainerState, Exec, ProcessId, Status},
    restart::{self, Run},
    root::{self, Root},
    seccomp,
    system::{INITS, has_run_levels, stop_signal},
    sysvinit, user,
};
use jiff::Timestamp;
use model::{
    instance::{content::Role, lifecycle::EXTENSION_S},
    plan::RestartPolicy,
};
use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
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
    /// Its init is asked for a run level before it gets that signal.
    has_run_levels: bool,
    phase: Phase,
    log: TaskLog,
    restarts: u32,
    failures: u32,
    stop_requested: bool,
    /// It was asked to end by itself since it is of no use.
    renewed: bool,
    /// Its postStart hook has ended well in this run, or it has none and runs.
    has_started: bool,
    /// The hook that runs.
    hook: Option<Hook>,
    /// Its preStop hook was begun in this run.
    is_parting: bool,
    /// What hooks that were given up left behind.
    left: Vec<Child>,
    /// What went wrong with a hook in this run.
    complaint: String,
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

/// What containers are started in.
#[derive(Debug, Clone, Copy)]
pub struct Yard<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What its containers share.
    pub shared: &'a PodNamespaces,
    /// Its control groups.
    pub group: &'a PodGroup,
}

impl Yard<'_> {
    fn scene(&self) -> Scene<'_> {
        let address = self.pod.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Scene { shared: self.shared, address }
    }
}

impl Task {
    /// A container that was not started yet.
    pub fn new(container: Container) -> Self {
        let rules = if container.system.is_some() { seccomp::system_rules } else { seccomp::default_rules };
        let filter = seccomp::compile(&rules(container.process.capabilities));
        let log = TaskLog::new(&container);
        Self {
            stop_signal: container.stop_signal,
            has_run_levels: false,
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
            renewed: false,
            has_started: false,
            hook: None,
            is_parting: false,
            left: Vec::new(),
            complaint: String::new(),
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
            starting: self.is_starting(),
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
    pub fn start(&mut self, yard: &Yard<'_>) {
        if matches!(self.phase, Phase::Running(_)) {
            return;
        }
        self.stop_requested = false;
        self.failures = 0;
        self.restarts = 0;
        self.launch(yard);
    }

    /// Starts it again by its policy.
    pub fn restart(&mut self, yard: &Yard<'_>) {
        self.restarts = self.restarts.saturating_add(1);
        if self.container.system.is_some()
            && let Err(error) = network::begin_anew(&yard.pod.places.run)
        {
            // Its init may do better by itself, and the daemon tries as well.
            eprintln!("container {}: its interfaces could not be set again: {error}", self.container.name);
        }
        self.launch(yard);
    }

    fn launch(&mut self, yard: &Yard<'_>) {
        let since = Instant::now();
        let group = yard.group;
        (self.is_parting, self.renewed) = (false, false);
        self.complaint.clear();
        // The group of a system is made anew with each of its boots, and counts from nothing.
        let oom_kills_before =
            if self.container.system.is_some() { 0 } else { group.oom_kills(&self.container.name) };
        match self.try_launch(yard) {
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
                let hook = self.container.lifecycle.post_start.clone();
                self.has_started = hook.is_none();
                if let Some(hook) = hook {
                    self.begin(When::PostStart, &hook, Duration::MAX, yard);
                }
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

    fn try_launch(&mut self, yard: &Yard<'_>) -> Result<Started, StartError> {
        let Yard { pod, shared, group } = *yard;
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
        let own = &self.container.process;
        let identity = identify(&root, &own.user, &own.groups, pod.ids.count)?;
        let process = &self.container.process;
        let (streams, far) = Streams::pipes(process.stdin_open).map_err(io("make pipes"))?;
        process::give_pipes(far.descriptors(), pod.ids.base + identity.uid).map_err(io("give pipes away"))?;
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
            let program = program.as_deref().unwrap_or(Path::new(&argv[0]));
            (self.stop_signal, self.has_run_levels) = (stop_signal(program), has_run_levels(program));
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
        let user = request.user.as_ref().unwrap_or(&own.user);
        let identity = identify(root, user, &own.groups, pod.ids.count)?;
        let mut env = own.env.clone();
        if request.tty && !env.iter().any(|(key, _)| key == "TERM") {
            env.push(("TERM".into(), "xterm".into()));
        }
        for (key, value) in &request.env {
            env.retain(|(known, _)| known != key);
            env.push((key.clone(), value.clone()));
        }
        let io = |source| StartError::Io { operation: "give pipes away", source };
        process::give_pipes(stdio, pod.ids.base + identity.uid).map_err(io)?;
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
    pub fn stop(&mut self, yard: &Yard<'_>, grace: Option<Duration>) {
        self.stop_requested = true;
        if !matches!(self.phase, Phase::Running(_)) {
            return self.signal(self.stop_signal);
        }
        self.kill_at = grace.map(|grace| Instant::now() + grace).or(self.kill_at);
        self.part(yard, grace.unwrap_or(self.grace()));
    }

    /// Runs the preStop hook of this run, and then sends the stop signal.
    fn part(&mut self, yard: &Yard<'_>, limit: Duration) {
        if self.hook.as_ref().is_some_and(|hook| hook.when == When::PreStop) {
            return;
        }
        // A hook after the start is waited for no more.
        self.leave_hook();
        let wanted =
            self.container.lifecycle.pre_stop.clone().filter(|_| !self.is_parting && !limit.is_zero());
        self.is_parting = true;
        match wanted {
            Some(wanted) => self.begin(When::PreStop, &wanted, limit, yard),
            None => self.send_stop_signal(),
        }
    }

    fn send_stop_signal(&self) {
        let Phase::Running(running) = &self.phase else { return };
        let asked = self.root.as_ref().filter(|_| self.has_run_levels).map(sysvinit::power_off);
        if !matches!(asked, Some(Ok(()))) {
            let _ = signal_pidfd(running.pidfd.as_fd(), self.stop_signal);
        }
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(u64::from(self.container.grace_s))
    }

    fn begin(
        &mut self,
        when: When,
        wanted: &model::instance::lifecycle::Hook,
        limit: Duration,
        yard: &Yard<'_>,
    ) {
        let begun = Hook::begin(when, wanted, limit, &yard.scene(), |argv| {
            let null = std::fs::File::options().read(true).write(true).open("/dev/null");
            let null = null.map_err(|source| StartError::Io { operation: "open /dev/null", source })?;
            let request = Exec { argv: argv.to_vec(), tied: true, ..Exec::default() };
            self.exec(yard.pod, yard.group, &request, [null.as_raw_fd(); 3])
        });
        match begun {
            Ok(hook) => self.hook = Some(hook),
            Err(complaint) => self.hook_ended(when, Err(complaint), yard),
        }
    }

    /// Looks whether the hook has ended, and goes on then. Tells whether it had.
    pub fn settle_hook(&mut self, yard: &Yard<'_>) -> bool {
        self.left.retain(Child::runs);
        let Some(outcome) = self.hook.as_mut().and_then(Hook::outcome) else { return false };
        let when = self.hook.as_ref().map_or(When::PreStop, |hook| hook.when);
        self.leave_hook();
        self.hook_ended(when, outcome, yard);
        true
    }

    fn hook_ended(&mut self, when: When, outcome: Result<(), String>, yard: &Yard<'_>) {
        if let Err(complaint) = outcome {
            let complaint = format!("its {} hook failed: {complaint}", when.as_str());
            eprintln!("container {}: {complaint}", self.container.name);
            // What went wrong first is told.
            if self.complaint.is_empty() {
                self.complaint = complaint;
            }
        }
        match when {
            When::PostStart if self.complaint.is_empty() => self.has_started = true,
            When::PostStart => {
                let grace = self.grace();
                self.kill_at = Some(Instant::now() + grace);
                self.part(yard, grace);
            }
            When::PreStop => {
                // A moment is left to a program whose hook took all of its time.
                let moment = Instant::now() + Duration::from_secs(u64::from(EXTENSION_S));
                self.kill_at = self.kill_at.map(|at| at.max(moment));
                self.send_stop_signal();
            }
        }
    }

    fn leave_hook(&mut self) {
        self.left.extend(self.hook.take().and_then(Hook::leave));
    }

    /// Whether it runs and its postStart hook has not ended well yet.
    fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Running(_)) && !self.has_started
    }

    /// Whether what comes after it in the pod waits for it: until its hook has ended, and for one that serves the others
    /// until it has ended well.
    pub fn holds_up(&self) -> bool {
        match self.container.role {
            Role::Sidecar => {
                self.container.lifecycle.post_start.is_some() && !self.has_started && !self.is_over()
            }
            Role::Main | Role::Init => self.is_starting(),
        }
    }

    /// The hook that runs.
    pub fn hook(&self) -> Option<&Hook> {
        self.hook.as_ref()
    }

    /// Asks the run that began at `since_ms` to end, and kills it after `grace`. Its policy decides what follows.
    pub fn renew(&mut self, yard: &Yard<'_>, since_ms: i64, grace: Duration) {
        if let Phase::Running(running) = &self.phase
            && running.since_ms == since_ms
            && self.kill_at.is_none()
        {
            self.renewed = true;
            self.kill_at = Some(Instant::now() + grace);
            self.part(yard, grace);
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
    pub fn collect(&mut self, group: &PodGroup, is_shared: bool) -> bool {
        let Phase::Running(running) = &self.phase else {
            return false;
        };
        let ended = match wait(running.process.pid, false) {
            Ok(None) => return false,
            Ok(Some(ended)) => ended,
            // Not our child any more: cannot happen, and must not spin.
            Err(_) => Ended::Signal(libc::SIGKILL),
        };
        let (since, since_ms) = (running.since, running.since_ms);
        let oom_killed = group.oom_kills(&self.container.name) > running.oom_kills_before;
        if is_shared {
            // The kernel ends the others with the first process of a namespace alone.
            let _ = group.kill_container(&self.container.name);
        }
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
        self.leave_hook();
        self.has_started = false;
        let signal = match ended {
            Ended::Signal(signal) => Some(signal),
            Ended::Code(_) => None,
        };
        let started_ms = Some(since_ms);
        let exit = ContainerExit {
            code: ended.shell_code(),
            signal,
            oom_killed,
            started_ms,
            requested: self.stop_requested,
            ..ContainerExit::default()
        };
        let exit = match std::mem::take(&mut self.complaint) {
            none if none.is_empty() => exit,
            complaint => ContainerExit { message: format!("{complaint}; {}", exit.cause()), ..exit },
        };
        match (self.container.system.is_some(), signal) {
            (true, Some(REBOOTED)) => self.rebooted(since, started_ms),
            (true, Some(POWERED_OFF)) => {
                let message = "it powered off".to_string();
                self.ended(ContainerExit { code: 0, signal: None, message, ..exit }, since);
            }
            _ => self.ended(exit, since),
        }
        true
    }

    /// A system that rebooted starts again whatever its policy says, at once unless it does nothing else.
    fn rebooted(&mut self, since: Instant, started_ms: Option<i64>) {
        let policy = std::mem::replace(&mut self.container.restart, RestartPolicy::Always);
        let message = "it rebooted".to_string();
        self.ended(ContainerExit { message, started_ms, ..ContainerExit::default() }, since);
        self.container.restart = policy;
    }

    fn ended(&mut self, exit: ContainerExit, since: Instant) {
        self.kill_at = None;
        let run = Run {
            succeeded: exit.code == 0,
            lasted: since.elapsed(),
            stop_requested: self.stop_requested,
            renewed: std::mem::take(&mut self.renewed),
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

fn identify(root: &Root, wanted: &str, groups: &[u32], ids: u32) -> Result<user::Identity, StartError> {
    let text = |path: &'static str| {
        root.text(path).map_err(|source| StartError::Io { operation: "read the image's accounts", source })
    };
    let found = user::resolve(wanted, &text("/etc/passwd")?, &text("/etc/group")?, ids);
    let mut identity =
        found.map_err(|error| StartError::Program { code: 125, message: error.to_string() })?;
    for gid in groups {
        if *gid != identity.gid && !identity.groups.contains(gid) {
            identity.groups.push(*gid);
        }
    }
    Ok(identity)
}

/// An error with its causes.
pub fn describe(error: &StartError) -> String {
    match error {
        StartError::Io { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}
