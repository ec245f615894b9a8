//! The pod in its shim: the loop that waits for processes, streams, clients and times, and the requests.

use super::{
    ShimError,
    connection::Connection,
    hook::Hook,
    step,
    stream::{ATTACHMENTS_MAX, Attachment},
    task::{Task, Yard, describe},
    told::tell,
};
use crate::container::{
    bundle::Pod,
    cgroup::PodGroup,
    listener::Listener,
    process::PodNamespaces,
    protocol::{Exec, PodState, ProcessId, Reply, Request},
    root, root_disk, volume_group,
};
use jiff::Timestamp;
use model::instance::content::Role;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    fs,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    time::{Duration, Instant},
};
use sys::{
    file::Lock,
    jail::{
        privilege,
        process::{borrowed, signal_pidfd, wait},
    },
};

/// Most clients at a time.
const CONNECTIONS_MAX: usize = 256;
/// Most programs beside the containers' own at a time.
const EXECS_MAX: usize = 128;
/// How long the shim stays for its clients after everything has ended.
const FAREWELL: Duration = Duration::from_secs(5);

/// A running pod.
#[derive(Debug)]
pub struct ShimPod {
    pod: Pod,
    shared: PodNamespaces,
    group: PodGroup,
    listener: Listener,
    tasks: Vec<Task>,
    execs: Vec<Running>,
    connections: Vec<Connection>,
    connections_made: u64,
    process: ProcessId,
    since_ms: i64,
    confinement: String,
    paused: bool,
    told: Option<PodState>,
    _lock: Lock,
}

/// A program beside the containers' own.
#[derive(Debug)]
struct Running {
    pid: i32,
    pidfd: OwnedFd,
    connection: u64,
    terminal: Option<OwnedFd>,
    /// It ends with its connection.
    tied: bool,
}

impl Running {
    fn signal(&self, signal: i32) -> std::io::Result<()> {
        if self.tied && signal == libc::SIGKILL {
            // It leads a session, and was not collected yet: its number is its group's and nobody else's.
            let _ = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
        signal_pidfd(self.pidfd.as_fd(), signal)
    }
}

/// What a descriptor in the poll set belongs to.
#[derive(Debug, Clone, Copy)]
enum Source {
    Listener,
    Connection(u64),
    Task,
    Output(usize),
    Input(usize),
    ReaderInput(usize),
    ReaderOutput(usize),
    Exec,
    Hook,
}

impl ShimPod {
    /// Starts the containers. Those that cannot be started are told in the state.
    pub(super) fn start(
        pod: Pod,
        network: BorrowedFd<'_>,
        listener: UnixListener,
        lock: Lock,
        first: Option<UnixStream>,
    ) -> Result<Self, ShimError> {
        let group = PodGroup::create(&pod.places, &pod.limits).map_err(step("make the pod's cgroup"))?;
        let shared = PodNamespaces::create(&pod, network, &group)
            .map_err(|error| step("make the pod's namespaces")(std::io::Error::other(describe(&error))))?;
        volume_group::settle(&pod, shared.user.as_fd())
            .map_err(|error| ShimError::Step { step: error.step, source: error.source })?;
        let pid = std::process::id() as i32;
        let start_time = sys::pidfd::process_start_time(pid).ok().flatten().unwrap_or_default();
        let tasks = pod.containers.iter().cloned().map(Task::new).collect();
        let mut shim = Self {
            shared,
            group,
            listener: Listener::new(listener),
            tasks,
            execs: Vec::new(),
            connections: Vec::new(),
            connections_made: 0,
            process: ProcessId { pid, start_time },
            since_ms: Timestamp::now().as_millisecond(),
            confinement: pod.confinement(),
            paused: false,
            told: None,
            _lock: lock,
            pod,
        };
        shim.serve_first(first);
        shim.advance();
        shim.tell();
        Ok(shim)
    }

    /// Serves what was asked before the containers run, so that who attached early misses nothing.
    fn serve_first(&mut self, first: Option<UnixStream>) {
        let Some(Ok(connection)) = first.map(|stream| Connection::new(0, stream)) else {
            return;
        };
        self.connections.push(connection);
        // One message at a time is read, and each brings descriptors of its own.
        for _ in 0..ATTACHMENTS_MAX {
            self.serve(0);
        }
    }

    /// The loop. Ends when every container has ended for good.
    pub fn run_until_ended(mut self) {
        let mut leaves_at = None;
        loop {
            self.tell();
            if self.tasks.iter().all(Task::is_over) && self.execs.is_empty() {
                let now = Instant::now();
                let leave_at = *leaves_at.get_or_insert(now + FAREWELL);
                let flushed = self.tasks.iter().all(|task| task.attachments.is_empty())
                    && !self.connections.iter().any(Connection::has_unsent);
                if flushed || now >= leave_at {
                    break;
                }
            } else {
                leaves_at = None;
            }
            self.wait_and_handle(leaves_at);
        }
        // All is told. Who asks from here on reads that, and is not kept waiting by what the kernel takes down.
        let _ = fs::remove_file(self.pod.places.run.join(super::SOCKET));
        drop((self.listener, self.connections));
        self.shared.end();
        if let Err(error) = self.group.delete() {
            eprintln!("cannot remove the pod's cgroup: {error}");
        }
    }

    fn state(&self) -> PodState {
        PodState {
            boot: self.pod.boot,
            shim: self.process,
            since_ms: self.since_ms,
            paused: self.paused,
            containers: self.tasks.iter().map(Task::state).collect(),
            confinement: self.confinement.clone(),
        }
    }

    /// Writes a change down, whole or not at all, and tells those who watch.
    fn tell(&mut self) {
        let state = self.state();
        if self.told.as_ref() == Some(&state) {
            return;
        }
        tell(&self.pod.places.run, &state, &mut self.connections);
        self.told = Some(state);
    }

    fn wait_and_handle(&mut self, leaves_at: Option<Instant>) {
        let ready = {
            let (sources, mut polled) = self.poll_set();
            let timeout = self.next_time(leaves_at).map(|at| at.saturating_duration_since(Instant::now()));
            // Rounded up, so that the time has come when poll returns.
            let timeout = timeout.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut polled, timeout) {
                Ok(_) => {}
                Err(nix::Error::EINTR) => return,
                Err(error) => {
                    eprintln!("cannot wait: {error}");
                    std::thread::sleep(Duration::from_millis(100));
                    return;
                }
            }
            let hit = |polled: &PollFd<'_>| polled.any().unwrap_or(true);
            sources
                .into_iter()
                .zip(&polled)
                .filter(|(_, polled)| hit(polled))
                .map(|(source, _)| source)
                .collect()
        };
        self.handle(ready);
        self.handle_times();
        self.forget_the_gone();
    }

    fn poll_set(&self) -> (Vec<Source>, Vec<PollFd<'_>>) {
        let mut sources = Vec::new();
        let mut polled = Vec::new();
        let mut add = |source, fd: BorrowedFd<'_>, flags| {
            sources.push(source);
            // The descriptors live in self, which outlives the set.
            polled.push(PollFd::new(borrowed(fd.as_raw_fd()), flags));
        };
        let is_resting = self.listener.rests_until(Instant::now()).is_some();
        if self.connections.len() < CONNECTIONS_MAX && !is_resting {
            add(Source::Listener, self.listener.as_fd(), PollFlags::POLLIN);
        }
        for connection in &self.connections {
            let out = if connection.has_unsent() { PollFlags::POLLOUT } else { PollFlags::empty() };
            add(Source::Connection(connection.id), connection.as_fd(), PollFlags::POLLIN | out);
        }
        for exec in &self.execs {
            add(Source::Exec, exec.pidfd.as_fd(), PollFlags::POLLIN);
        }
        for (number, task) in self.tasks.iter().enumerate() {
            if let Some(pidfd) = task.pidfd() {
                add(Source::Task, pidfd.as_fd(), PollFlags::POLLIN);
            }
            if let Some(pidfd) = task.hook().and_then(Hook::pidfd) {
                add(Source::Hook, pidfd.as_fd(), PollFlags::POLLIN);
            }
            if !task.attachments.iter().any(Attachment::is_full) {
                for (_, output) in &task.streams.outputs {
                    add(Source::Output(number), output.as_fd(), PollFlags::POLLIN);
                }
            }
            if task.streams.input_waits()
                && let Some(input) = &task.streams.input
            {
                add(Source::Input(number), input.as_fd(), PollFlags::POLLOUT);
            }
            for attachment in &task.attachments {
                if task.streams.takes_input()
                    && let Some(input) = attachment.input()
                {
                    add(Source::ReaderInput(number), input, PollFlags::POLLIN);
                }
                for output in attachment.waiting() {
                    add(Source::ReaderOutput(number), output, PollFlags::POLLOUT);
                }
            }
        }
        (sources, polled)
    }

    /// The next time at which something is to be done.
    fn next_time(&self, leaves_at: Option<Instant>) -> Option<Instant> {
        let times = self.tasks.iter().flat_map(|task| {
            let readers = task.attachments.iter().filter(|it| !it.is_empty()).map(Attachment::gives_up);
            let restart = if self.paused { None } else { task.restart_at() };
            let hook = task.hook().map(Hook::next_time);
            [task.kill_at, restart, hook].into_iter().flatten().chain(readers)
        });
        times.chain(leaves_at).chain(self.listener.rests_until(Instant::now())).min()
    }

    fn handle(&mut self, ready: Vec<Source>) {
        for source in ready {
            match source {
                Source::Listener => self.accept(),
                Source::Connection(id) => self.serve(id),
                // All of them are looked at below.
                Source::Exec | Source::Task | Source::Hook => {}
                Source::Output(number) => {
                    let task = &mut self.tasks[number];
                    for output in (0..task.streams.outputs.len()).rev() {
                        task.pump(output);
                    }
                }
                Source::Input(number) => self.tasks[number].streams.feed(),
                Source::ReaderInput(number) => self.read_inputs(number),
                Source::ReaderOutput(number) => {
                    self.tasks[number].attachments.iter_mut().for_each(Attachment::flush);
                }
            }
        }
        for exec in 0..self.execs.len() {
            self.collect_exec(exec);
        }
        self.execs.retain(|exec| exec.pid != 0);
        let yard = Yard { pod: &self.pod, shared: &self.shared, group: &self.group };
        for task in &mut self.tasks {
            task.collect(&self.group, self.pod.share_processes);
            task.settle_hook(&yard);
        }
        self.advance();
    }

    /// Starts what nothing is waited for any more, and ends what has no others to serve.
    fn advance(&mut self) {
        if self.paused {
            return;
        }
        let (before, after): (Vec<usize>, Vec<usize>) =
            (0..self.tasks.len()).partition(|number| !self.tasks[*number].container.role.is_main());
        for number in before.into_iter().chain(after) {
            let yard = Yard { pod: &self.pod, shared: &self.shared, group: &self.group };
            let task = &mut self.tasks[number];
            if task.is_new() {
                task.start(&yard);
            }
            if task.holds_up() {
                break;
            }
            if task.container.role == Role::Init && !task.has_succeeded() {
                if task.is_over() {
                    self.tasks.iter_mut().for_each(Task::give_up);
                }
                break;
            }
        }
        let yard = Yard { pod: &self.pod, shared: &self.shared, group: &self.group };
        if self.tasks.iter().filter(|task| task.container.role.is_main()).all(Task::is_over) {
            for task in
                self.tasks.iter_mut().filter(|it| it.container.role == Role::Sidecar && it.is_wanted())
            {
                let grace = Duration::from_secs(u64::from(task.container.grace_s));
                task.stop(&yard, Some(grace));
            }
        }
    }

    fn read_inputs(&mut self, number: usize) {
        let task = &mut self.tasks[number];
        for attachment in &mut task.attachments {
            if attachment.input().is_none() {
                continue;
            }
            match attachment.read_input() {
                Some(bytes) => task.streams.put_input(&bytes),
                None if attachment.keeps_input => {}
                None => task.streams.end_input(),
            }
        }
    }

    /// Tells the client of a program that has ended. Marks it with pid 0.
    fn collect_exec(&mut self, number: usize) {
        let exec = &mut self.execs[number];
        let code = match wait(exec.pid, false) {
            Ok(None) => return,
            Ok(Some(ended)) => ended.shell_code(),
            Err(_) => 125,
        };
        exec.pid = 0;
        let id = exec.connection;
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) {
            connection.send(&Reply::Exited { code }, None);
        }
    }

    fn handle_times(&mut self) {
        let now = Instant::now();
        let yard = Yard { pod: &self.pod, shared: &self.shared, group: &self.group };
        let mut is_any = false;
        for task in &mut self.tasks {
            is_any |= task.settle_hook(&yard);
            if task.kill_at.is_some_and(|at| at <= now) {
                task.kill();
            }
            if !self.paused && task.restart_at().is_some_and(|at| at <= now) {
                task.restart(&yard);
            }
        }
        // Others may have waited for what a hook has done.
        if is_any {
            self.advance();
        }
    }

    fn forget_the_gone(&mut self) {
        let now = Instant::now();
        for task in &mut self.tasks {
            let running = task.pidfd().is_some();
            task.attachments.retain(|it| !it.is_over(now) && (running || !it.is_empty()));
        }
        for exec in self.execs.iter().filter(|exec| exec.tied && exec.pid != 0) {
            if self.connections.iter().any(|it| it.id == exec.connection && it.is_over()) {
                let _ = exec.signal(libc::SIGKILL);
            }
        }
        self.connections.retain(|connection| !connection.is_over());
    }

    fn accept(&mut self) {
        while let Some(stream) = self.listener.accept() {
            self.connections_made += 1;
            self.connections.extend(Connection::new(self.connections_made, stream));
            if self.connections.len() >= CONNECTIONS_MAX {
                return;
            }
        }
    }

    fn serve(&mut self, id: u64) {
        let Some(number) = self.connections.iter().position(|connection| connection.id == id) else {
            return;
        };
        self.connections[number].flush();
        for request in self.connections[number].read() {
            let (reply, descriptor) = match request {
                Ok(request) => self.answer(number, request),
                Err(message) => (Reply::Failed { code: 125, message }, None),
            };
            self.connections[number].send(&reply, descriptor.as_ref().map(AsFd::as_fd));
        }
    }

    fn answer(&mut self, connection: usize, request: Request) -> (Reply, Option<OwnedFd>) {
        let done = match request {
            Request::State => return (Reply::State(self.state()), None),
            Request::Watch => {
                self.connections[connection].watches = true;
                return (Reply::State(self.state()), None);
            }
            Request::Exec(exec) => return self.exec(connection, &exec),
            Request::Start { container } => self.start_tasks(container.as_deref()),
            Request::Kill { container, signal } => self.kill_tasks(container.as_deref(), signal),
            Request::Stop { container, grace_ms } => {
                let grace = grace_ms.map(Duration::from_millis);
                self.unpause().and_then(|()| self.chosen(container.as_deref())).map(|chosen| {
                    let yard = Yard { pod: &self.pod, shared: &self.shared, group: &self.group };
                    chosen.into_iter().for_each(|number| self.tasks[number].stop(&yard, grace));
                })
            }
            Request::Renew { container, since_ms, grace_ms } => self.named(Some(&container)).map(|number| {
                let yard = Yard { pod: &self.pod, shared: &self.shared, group: &self.group };
                self.tasks[number].renew(&yard, since_ms, Duration::from_millis(grace_ms));
            }),
            Request::Pause => self.pause(),
            Request::Resume => self.unpause(),
            Request::Limits { limits } => {
                self.pod.limits = limits;
                let set = self.group.set(&limits).map_err(|error| format!("cannot set the limits: {error}"));
                set.and_then(|()| root_disk::grow(&self.pod).map_err(|error| root::told(&error)))
            }
            Request::Attach { container, input, keeps_input } => {
                self.attach(connection, container.as_deref(), input, keeps_input)
            }
            Request::Resize { container, rows, columns } => {
                self.resize(connection, container.as_deref(), rows, columns)
            }
            Request::Signal { signal } => self.signal_exec(connection, signal),
            Request::Dial { .. }
            | Request::Processes
            | Request::Usage
            | Request::Files { .. }
            | Request::Plug { .. }
            | Request::Unplug { .. } => Err("the daemon looks for itself under the host's kernel".into()),
            Request::Shutdown => {
                for task in &mut self.tasks {
                    task.signal(libc::SIGKILL);
                }
                self.unpause()
                    .and_then(|()| self.group.kill().map_err(|error| format!("cannot kill the pod: {error}")))
            }
        };
        match done {
            Ok(()) => (Reply::Done, None),
            Err(message) => (Reply::Failed { code: 125, message }, None),
        }
    }

    /// Numbers of the container that is named, or of all.
    fn chosen(&self, container: Option<&str>) -> Result<Vec<usize>, String> {
        match container {
            None => Ok((0..self.tasks.len()).collect()),
            Some(name) => self.named(Some(name)).map(|number| vec![number]),
        }
    }

    /// Number of the container that is named, or of the first.
    fn named(&self, container: Option<&str>) -> Result<usize, String> {
        let Some(name) = container else { return Ok(0) };
        let found = self.tasks.iter().position(|task| task.container.name == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.tasks.iter().map(|task| task.container.name.as_str()).collect();
            format!("the pod has no container {name:?}; it has {}", names.join(", "))
        })
    }

    fn start_tasks(&mut self, container: Option<&str>) -> Result<(), String> {
        if self.paused {
            return Err("the pod is paused".into());
        }
        for number in self.chosen(container)? {
            let yard = Yard { pod: &self.pod, shared: &self.shared, group: &self.group };
            self.tasks[number].start(&yard);
        }
        Ok(())
    }

    fn kill_tasks(&mut self, container: Option<&str>, signal: i32) -> Result<(), String> {
        if !(1..=64).contains(&signal) {
            return Err(format!("{signal} is not a signal"));
        }
        for number in self.chosen(container)? {
            self.tasks[number].signal(signal);
        }
        // A frozen process of a version 1 cgroup does not even die.
        if signal == libc::SIGKILL { self.unpause() } else { Ok(()) }
    }

    fn pause(&mut self) -> Result<(), String> {
        if !self.tasks.iter().any(|task| task.pidfd().is_some()) {
            return Err("no container of the pod is running".into());
        }
        self.group.freeze().map_err(|error| format!("cannot freeze the pod: {error}"))?;
        self.paused = true;
        Ok(())
    }

    fn unpause(&mut self) -> Result<(), String> {
        if self.paused {
            self.group.thaw().map_err(|error| format!("cannot thaw the pod: {error}"))?;
            self.paused = false;
        }
        Ok(())
    }

    fn exec(&mut self, connection: usize, request: &Exec) -> (Reply, Option<OwnedFd>) {
        let failed = |code, message: String| (Reply::Failed { code, message }, None);
        let id = self.connections[connection].id;
        let number = match self.named(request.container.as_deref()) {
            _ if self.paused => return failed(125, "the pod is paused".into()),
            _ if self.execs.len() >= EXECS_MAX => {
                return failed(
                    125,
                    format!("{EXECS_MAX} programs run beside the containers' own; no more can be"),
                );
            }
            _ if self.execs.iter().any(|exec| exec.connection == id) => {
                return failed(125, "this connection has a program already".into());
            }
            Ok(number) => number,
            Err(message) => return failed(125, message),
        };
        let streams = if request.tty { None } else { self.connections[connection].take::<3>() };
        let stdio = match &streams {
            Some(streams) => [0, 1, 2].map(|number| streams[number].as_raw_fd()),
            None if request.tty => [0, 1, 2],
            None => return failed(125, "three descriptors must come with exec".into()),
        };
        match self.tasks[number].exec(&self.pod, &self.group, request, stdio) {
            Ok(started) => {
                let copy = started.terminal.as_ref().and_then(|terminal| terminal.try_clone().ok());
                let (pid, pidfd, terminal) = (started.pid, started.pidfd, started.terminal);
                self.execs.push(Running { pid, pidfd, connection: id, terminal, tied: request.tied });
                (Reply::Executing { pid }, copy)
            }
            Err(error) => failed(error.exit_code(), describe(&error)),
        }
    }

    fn attach(
        &mut self,
        connection: usize,
        container: Option<&str>,
        input: bool,
        keeps_input: bool,
    ) -> Result<(), String> {
        let number = self.named(container)?;
        let three =
            self.connections[connection].take::<3>().ok_or("three descriptors must come with attach")?;
        let task = &mut self.tasks[number];
        if task.pidfd().is_none() && !task.is_new() {
            return Err(format!("container {} is not running", task.container.name));
        }
        if task.attachments.len() >= ATTACHMENTS_MAX {
            return Err(format!("{ATTACHMENTS_MAX} readers are attached; no more can be"));
        }
        let mut attachment =
            Attachment::new(three, input).map_err(|error| format!("cannot attach: {error}"))?;
        attachment.keeps_input = keeps_input;
        task.attachments.push(attachment);
        Ok(())
    }

    fn resize(
        &mut self,
        connection: usize,
        container: Option<&str>,
        rows: u16,
        columns: u16,
    ) -> Result<(), String> {
        let id = self.connections[connection].id;
        if let Some(exec) = self.execs.iter().find(|exec| exec.connection == id) {
            let Some(terminal) = &exec.terminal else {
                return Err("the program has no terminal".into());
            };
            return privilege::set_terminal_size(terminal.as_raw_fd(), rows, columns)
                .map_err(|error| format!("cannot resize the terminal: {error}"));
        }
        let number = self.named(container)?;
        self.tasks[number].resize(rows, columns);
        Ok(())
    }

    fn signal_exec(&mut self, connection: usize, signal: i32) -> Result<(), String> {
        let id = self.connections[connection].id;
        let exec = self
            .execs
            .iter()
            .find(|exec| exec.connection == id)
            .ok_or("no program runs on this connection")?;
        exec.signal(signal).map_err(|error| format!("cannot send signal {signal}: {error}"))
    }
}
