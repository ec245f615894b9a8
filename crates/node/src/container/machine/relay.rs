//! The relay: what stands on the host for the shim of a pod that has a machine of its own.
//!
//! It holds the pod's lock, listens on its socket, writes its state file and its logs, as the shim does under the host's
//! kernel; QEMU is its child and ends with it. Requests go to the shim inside and replies come back, with the streams that
//! travel along ([`super::link`]). One thread, one loop. What comes from the guest is checked: it may be any program that
//! broke out of its container, and gets no further than to lie about its own pod.
//!
//! ```text
//!  booting ── Hello, Order, Prepared ──▶ starting ── first state ──▶ up ── Ended ──▶ QEMU ends ──▶ over
//! ```

mod clients;
mod coming;
mod files;
mod maintenance;
mod pace;
mod words;

use super::{
    link::{ChannelId, Link, Side},
    order::{Machine, order},
    qemu,
    talk::{ToGuest, ToHost},
};
use crate::container::{
    bundle::Pod,
    listener::Listener,
    log::LogWriter,
    protocol::{ContainerExit, PodState, ProcessId, Reply, SOCKET, Status},
    shim::{self, connection::Connection, told},
};
use clients::Client;
use coming::Coming;
use files::shown_files;
use jiff::Timestamp;
use model::plan::FileSetPlan;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
};
use pace::Pace;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};
use sys::{cgroup::Tree, file::Lock, jail::process::borrowed, spawn::Child};
use words::{describe, readable, tail};

/// Longest time from QEMU's start to the pod's.
pub const BOOT_TIMEOUT: Duration = Duration::from_secs(150);
/// How long a guest may take for its end when it is told to, or is of no use any more.
const POWER_OFF_TIMEOUT: Duration = Duration::from_secs(8);
/// How long it may take to bring to its disks what is in its memory, once everything in it has ended.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(40);
/// How often logs are looked at that the guest can make longer, and to what they are cut.
const CUT_EVERY: Duration = Duration::from_secs(10);
const CUT_TO: [(&str, u64); 3] =
    [(qemu::CONSOLE_LOG, 4 << 20), (qemu::QEMU_LOG, 1 << 20), ("shim.log", 1 << 20)];
/// Most replies to one client that wait for his streams.
const HELD_MAX: usize = 64;
/// Most breaches of the rules that are told of; then the guest is hung up on.
const COMPLAINTS_MAX: u32 = 20;
/// How long clients may take to read the last words.
const FAREWELL: Duration = Duration::from_secs(5);
/// Most clients at a time.
const CONNECTIONS_MAX: usize = 256;
/// The connection by which the guest watches its shim.
const WATCH: u64 = 0;

/// Why a pod's machine cannot be run.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}: {source}")]
pub struct RelayError {
    step: &'static str,
    source: io::Error,
}

fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> RelayError {
    move |source| RelayError { step, source: source.into() }
}

/// How far the guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Booting,
    Starting,
    Up,
    Ended,
}

/// A running relay.
pub struct Relay {
    pod: Pod,
    link: Link,
    qemu: Child,
    cgroups: Tree,
    listener: Option<Listener>,
    connections: Vec<Connection>,
    connections_made: u64,
    clients: BTreeMap<u64, Client>,
    logs: BTreeMap<ChannelId, Coming>,
    /// One of each container, whatever the guest says.
    writers: BTreeMap<String, LogWriter>,
    phase: Phase,
    greeted: bool,
    hung_up: bool,
    complaints: u32,
    cut_at: Instant,
    /// Told when the pod is up, or why it is not.
    told: Option<File>,
    kernel: String,
    process: ProcessId,
    since_ms: i64,
    state: Option<PodState>,
    written: Option<PodState>,
    pace: Pace,
    /// QEMU is killed then.
    kill_at: Option<Instant>,
    /// Somebody asked for the end.
    is_asked_to_end: bool,
    /// Since when nobody uses a machine for maintenance.
    idle_since: Option<Instant>,
    failure: Option<String>,
    lock: Option<Lock>,
}

impl Relay {
    /// Starts the pod's machine. `first` is a client that asked before; `told` hears when the pod is up.
    ///
    /// # Errors
    /// QEMU cannot be started.
    pub fn start(
        pod: Pod,
        machine: &Machine,
        lock: Lock,
        told: File,
        first: Option<UnixStream>,
    ) -> Result<Self, RelayError> {
        let cgroups = Tree::probe(&pod.places.cgroup_root).map_err(step("look at the control groups"))?;
        let (near, far) = UnixStream::pair().map_err(step("make the guest's port"))?;
        let qemu = qemu::start(&pod, machine, &cgroups, &far)
            .map_err(|error| io::Error::other(describe(&error)))
            .map_err(step("start the virtual machine"))?;
        drop(far);
        let mut relay = Self::over(pod, near, qemu, cgroups, (lock, told))?;
        if let Some(stream) = first {
            relay.add(stream);
        }
        Ok(relay)
    }

    /// Over the port of a machine that was just started.
    fn over(
        pod: Pod,
        port: UnixStream,
        qemu: Child,
        cgroups: Tree,
        (lock, told): (Lock, File),
    ) -> Result<Self, RelayError> {
        let link =
            Link::new(File::from(OwnedFd::from(port)), Side::Host).map_err(step("use the guest's port"))?;
        let pid = std::process::id() as i32;
        let start_time = sys::pidfd::process_start_time(pid).ok().flatten().unwrap_or_default();
        Ok(Self {
            pod,
            link,
            qemu,
            cgroups,
            listener: None,
            connections: Vec::new(),
            connections_made: WATCH,
            clients: BTreeMap::new(),
            logs: BTreeMap::new(),
            writers: BTreeMap::new(),
            phase: Phase::Booting,
            greeted: false,
            hung_up: false,
            complaints: 0,
            cut_at: Instant::now() + CUT_EVERY,
            told: Some(told),
            kernel: String::new(),
            process: ProcessId { pid, start_time },
            since_ms: Timestamp::now().as_millisecond(),
            state: None,
            written: None,
            pace: Pace::new(Instant::now()),
            kill_at: Some(Instant::now() + BOOT_TIMEOUT),
            is_asked_to_end: false,
            idle_since: None,
            failure: None,
            lock: Some(lock),
        })
    }

    /// The loop. Ends when the machine has ended and everybody has heard it.
    pub fn run_until_ended(&mut self) {
        loop {
            let has_ended = self.qemu.process.has_exited().unwrap_or(true);
            self.turn(has_ended);
            if has_ended {
                break;
            }
        }
        let _ = self.qemu.process.reap();
        // What it said last lies in the port still.
        let deadline = Instant::now() + FAREWELL;
        while !self.link.is_over() && Instant::now() < deadline {
            self.turn(true);
        }
        self.write_logs();
        self.writers.values_mut().for_each(|log| log.flush(Timestamp::now()));
        self.conclude();
        self.flush_clients();
        if let Err(error) = self.cgroups.delete(&self.pod.places.cgroup) {
            eprintln!("cannot remove the pod's cgroup: {error}");
        }
        if self.listener.is_some() {
            let _ = fs::remove_file(self.pod.places.run.join(SOCKET));
        }
        // Before those who watch see their connections end, and look.
        self.lock = None;
    }

    /// Waits for something and does it. Waits for nothing where the machine has ended: what it said last is still read.
    fn turn(&mut self, has_ended: bool) {
        self.wait(if has_ended { Some(Duration::ZERO) } else { self.next_time() });
        while let Some(message) = self.link.next::<ToHost>() {
            self.on_message(message);
        }
        self.write_logs();
        self.handle_times();
        for id in self.clients.keys().copied().collect::<Vec<_>>() {
            self.forward(id);
        }
        self.forget_the_gone();
        if self.link.is_over() && !has_ended && !std::mem::replace(&mut self.hung_up, true) {
            // A guest that hangs up, or was hung up on, is of no use any more; one that has said good bye powers off.
            self.kill_by(if self.phase == Phase::Ended { FLUSH_TIMEOUT } else { POWER_OFF_TIMEOUT });
        }
        self.tell();
    }

    fn next_time(&self) -> Option<Duration> {
        let asked = self.clients.values().filter_map(|client| client.state_until.front().copied());
        let now = Instant::now();
        let rests = self.listener.as_ref().and_then(|listener| listener.rests_until(now));
        let untold = if self.state == self.written { None } else { self.pace.waits_until(now) };
        let others = [self.kill_at, rests, untold, self.idle_until()].into_iter().flatten();
        let next = others.chain(asked).fold(self.cut_at, Instant::min);
        Some(next.saturating_duration_since(now) + Duration::from_millis(1))
    }

    fn wait(&mut self, limit: Option<Duration>) {
        enum Source {
            Link(ChannelId),
            Connection(u64),
            Listener,
            Machine,
        }
        let mut sources = vec![Source::Machine];
        // The descriptors live in self, which outlives the set.
        let mut polled = vec![PollFd::new(borrowed(self.qemu.process.as_raw_fd()), PollFlags::POLLIN)];
        if !self.link.is_over() {
            for (id, fd, flags) in self.link.wanted() {
                sources.push(Source::Link(id));
                polled.push(PollFd::new(borrowed(fd.as_raw_fd()), flags));
            }
        }
        // Before the shim inside is started, requests wait where they are: but those of who was there first.
        for connection in self.connections.iter().filter(|_| self.phase != Phase::Booting) {
            let out = if connection.has_unsent() { PollFlags::POLLOUT } else { PollFlags::empty() };
            sources.push(Source::Connection(connection.id));
            polled.push(PollFd::new(borrowed(connection.as_fd().as_raw_fd()), PollFlags::POLLIN | out));
        }
        let has_room = self.connections.len() < CONNECTIONS_MAX;
        let awake = |listener: &&Listener| has_room && listener.rests_until(Instant::now()).is_none();
        if let Some(listener) = self.listener.as_ref().filter(awake) {
            sources.push(Source::Listener);
            polled.push(PollFd::new(borrowed(listener.as_fd().as_raw_fd()), PollFlags::POLLIN));
        }
        let timeout =
            limit.map_or(PollTimeout::NONE, |limit| PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
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
        let ready: Vec<Source> =
            sources.into_iter().zip(&polled).filter(|(_, polled)| hit(polled)).map(|it| it.0).collect();
        for source in ready {
            match source {
                Source::Machine => {}
                Source::Link(id) => self.link.serve(id),
                Source::Connection(id) => self.serve(id, false),
                Source::Listener => self.accept(),
            }
        }
    }

    fn say(&mut self, message: &ToGuest) {
        if let Err(error) = self.link.tell(message) {
            eprintln!("cannot tell the guest: {error}");
        }
    }

    fn on_message(&mut self, message: ToHost) {
        if message.connection().is_some_and(|id| self.is_watching(id)) {
            // Each line to it wakes the daemon.
            return self.complain("the guest answers who asked it nothing");
        }
        match message {
            ToHost::Hello { kernel } if !std::mem::replace(&mut self.greeted, true) => {
                self.kernel = kernel.chars().filter(|it| it.is_ascii_graphic()).take(64).collect();
                match shown_files(&self.pod.places.files()) {
                    Ok(files) => self.give_order(files),
                    Err(error) => self.fail(format!("cannot read the files that came with the pod: {error}")),
                }
            }
            ToHost::Prepared if self.phase == Phase::Booting && self.is_for_maintenance() => self.come_up(),
            ToHost::Prepared if self.phase == Phase::Booting => self.start_shim(),
            ToHost::Failed { message } => self.fail(readable(&message)),
            ToHost::Line { connection, line, stream } => self.on_line(connection, &line, stream),
            ToHost::Closed { connection } => self.let_go(connection),
            // Each container has one, and one that just ended may be read still.
            ToHost::Log { .. } if self.logs.len() > 2 * self.pod.containers.len() => self.link.hang_up(),
            ToHost::Log { channel } => {
                if self.link.accept_kept(channel) {
                    self.logs.insert(channel, Coming::default());
                }
            }
            ToHost::Dialled { connection, channel, error } => self.dialled(connection, channel, error),
            ToHost::Processes { connection, processes } => {
                self.reply(connection, Reply::Processes { processes }, None);
            }
            ToHost::Usage { connection, usage } => self.reply(connection, Reply::Usage { usage }, None),
            ToHost::Ended if self.phase == Phase::Ended => {}
            ToHost::Ended => {
                self.write_logs();
                self.phase = Phase::Ended;
                self.say(&ToGuest::Bye);
                // Whatever was asked for before: now it brings to its disks what is in its memory.
                self.kill_at = Some(Instant::now() + FLUSH_TIMEOUT);
            }
            ToHost::Hello { .. } | ToHost::Prepared => self.complain("the guest begins anew"),
        }
    }

    /// The guest broke the rules, which is told, but not for ever.
    fn complain(&mut self, what: &str) {
        self.complaints += 1;
        if self.complaints > COMPLAINTS_MAX {
            return self.link.hang_up();
        }
        eprintln!("{what}, which is not heard");
    }

    fn kill_by(&mut self, patience: Duration) {
        let at = Instant::now() + patience;
        self.kill_at = Some(self.kill_at.map_or(at, |known| known.min(at)));
    }

    fn give_order(&mut self, files: Vec<FileSetPlan>) {
        let Some(machine) = self.pod.machine.clone() else { return };
        let now_ns = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        let order = order(&self.pod, &machine, files, now_ns);
        if let Err(error) = self.link.tell(&ToGuest::Order(Box::new(order))) {
            self.fail(format!("cannot tell the guest what to run: {error}"));
        }
    }

    /// The pod cannot run, or not go on.
    fn fail(&mut self, message: String) {
        if self.failure.is_some() {
            return;
        }
        eprintln!("{message}");
        self.failure = Some(message);
        self.say(&ToGuest::Bye);
        self.kill_by(POWER_OFF_TIMEOUT);
    }

    /// Everything is there: who attached early is told to the shim before it starts.
    fn start_shim(&mut self) {
        self.phase = Phase::Starting;
        if let Some(first) = self.connections.first().map(|connection| connection.id) {
            for _ in 0..shim::ATTACHMENTS_MAX {
                self.serve(first, true);
            }
        }
        self.say(&ToGuest::Run);
    }

    /// A state in terms of this host: processes inside have no number here, their machine has.
    fn as_seen_here(&self, mut state: PodState) -> PodState {
        state.boot = self.pod.boot;
        state.shim = self.process;
        state.since_ms = self.since_ms;
        let machine = ProcessId { pid: self.qemu.pid(), start_time: self.qemu.start_time };
        let mut told = std::mem::take(&mut state.containers);
        let one = |name: &str| Some(told.swap_remove(told.iter().position(|it| it.name == name)?));
        state.containers =
            self.pod.containers.iter().map(|known| known.name.as_str()).filter_map(one).collect();
        for container in &mut state.containers {
            if let Status::Running { process, .. } = &mut container.status {
                *process = machine;
            }
            if let Some(exit) = &mut container.exit {
                exit.message = readable(&exit.message);
            }
        }
        state.confinement =
            format!("a kernel of its own ({}); inside: {}", self.kernel, self.pod.confinement());
        state
    }

    fn changed(&mut self, state: PodState) {
        self.state = Some(state);
        if self.phase == Phase::Starting {
            self.come_up();
        }
    }

    /// All is there: clients are served from now on.
    fn come_up(&mut self) {
        if self.failure.is_some() {
            return;
        }
        self.phase = Phase::Up;
        self.kill_at = None;
        match shim::listen(&self.pod.places.run.join(SOCKET)) {
            Ok(listener) => self.listener = Some(Listener::new(listener)),
            Err(error) => return self.fail(format!("cannot listen: {error}")),
        }
        self.tell_now();
        if let Some(mut told) = self.told.take() {
            // Nobody listens any more when the daemon was killed meanwhile; the pod runs all the same.
            let _ = told.write_all(b"up");
        }
    }

    fn write_logs(&mut self) {
        let channels: Vec<ChannelId> = self.logs.keys().copied().collect();
        for channel in channels {
            let Some(bytes) = self.link.take(channel) else {
                self.logs.remove(&channel);
                continue;
            };
            let Some(coming) = self.logs.get_mut(&channel).filter(|_| !bytes.is_empty()) else { continue };
            coming.bytes.extend(bytes);
            if let Err(what) = coming.write(&self.pod, &mut self.writers) {
                self.link.close(channel);
                self.logs.remove(&channel);
                self.complain(what);
            }
        }
    }

    fn handle_times(&mut self) {
        let now = Instant::now();
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            if self.phase == Phase::Booting || self.phase == Phase::Starting {
                let waited = BOOT_TIMEOUT.as_secs();
                self.failure.get_or_insert(format!("the guest did not come up within {waited} s"));
            }
            if self.phase == Phase::Ended {
                eprintln!("the guest does not power off: its plug is pulled");
            }
            let _ = self.qemu.process.send_signal(Signal::SIGKILL);
        }
        if self.cut_at <= now {
            self.cut_at = now + CUT_EVERY;
            for (name, bytes_max) in CUT_TO {
                // All of them are appended to.
                let _ = crate::vm::console::rotate(&self.pod.places.state.join(name), bytes_max);
            }
        }
        self.look_whether_idle(now);
        let Some(state) = self.state.clone() else { return };
        let mut late = Vec::new();
        for (id, client) in &mut self.clients {
            while client.state_until.front().is_some_and(|at| *at <= now) {
                client.state_until.pop_front();
                client.late += 1;
                late.push(*id);
            }
        }
        for id in late {
            self.reply(id, Reply::State(state.clone()), None);
        }
    }

    fn forget_the_gone(&mut self) {
        let gone: Vec<u64> =
            self.connections.iter().filter(|connection| connection.is_over()).map(|it| it.id).collect();
        for id in gone {
            self.connections.retain(|connection| connection.id != id);
            self.forget_client(id);
            self.say(&ToGuest::Closed { connection: id });
        }
    }

    /// Tells a change, unless there were too many of late: then the last of them is told when the time has come.
    fn tell(&mut self) {
        let now = Instant::now();
        if self.state == self.written || self.pace.waits_until(now).is_some() {
            return;
        }
        self.pace.step(now);
        self.tell_now();
    }

    fn tell_now(&mut self) {
        let Some(state) = self.state.clone().filter(|state| self.written.as_ref() != Some(state)) else {
            return;
        };
        told::tell(&self.pod.places.run, &state, &mut self.connections);
        self.written = Some(state);
    }

    /// The machine has ended: with its pod, or before it.
    fn conclude(&mut self) {
        if self.phase != Phase::Ended && self.failure.is_none() && !self.is_asked_to_end {
            self.failure = Some(format!("its virtual machine ended{}", self.last_words()));
        }
        match self.told.take() {
            // It never was up: who waits for it tells why.
            Some(mut told) => {
                let why = self.failure.take().unwrap_or_else(|| "it was ended while it started".into());
                let _ = told.write_all(why.as_bytes());
            }
            None => {
                if let Some(state) = self.state.take() {
                    self.state = Some(ended(state, self.failure.as_deref()));
                }
                self.tell_now();
            }
        }
    }

    /// Why the guest's kernel gave up, or the end of what QEMU or it said.
    fn last_words(&self) -> String {
        [qemu::QEMU_LOG, qemu::CONSOLE_LOG]
            .into_iter()
            .find_map(|name| tail(&self.pod.places.state.join(name)))
            .map_or(String::new(), |words| {
                let panic =
                    words.lines().find(|line| line.contains("Kernel panic") || line.contains("holm: "));
                format!(": {}", readable(panic.unwrap_or(&words)))
            })
    }

    fn flush_clients(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        loop {
            for id in self.clients.keys().copied().collect::<Vec<_>>() {
                self.forward(id);
            }
            self.connections.iter_mut().for_each(Connection::flush);
            let waits = self.connections.iter().any(Connection::has_unsent) || !self.link.is_all_sunk();
            if !waits || Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A state in which nothing runs any more.
fn ended(mut state: PodState, failure: Option<&str>) -> PodState {
    for container in state.containers.iter_mut().filter(|it| it.status != Status::Exited) {
        container.status = Status::Exited;
        container.starting = false;
        container.exit = Some(ContainerExit {
            code: 128 + libc::SIGKILL,
            signal: Some(libc::SIGKILL),
            at_ms: Timestamp::now().as_millisecond(),
            message: failure.unwrap_or_default().to_string(),
            requested: failure.is_none(),
            ..ContainerExit::default()
        });
    }
    state.paused = false;
    state
}

#[cfg(test)]
mod tests;
