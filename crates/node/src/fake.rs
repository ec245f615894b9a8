//! A host without guests' weight: the driver line with instances that live in memory.
//!
//! It exists for speed (a thousand instances cost nothing) and for faults that no real hypervisor gives on demand:
//! verbs that fail before or after their effect or never return, guests that ignore a shutdown, end by themselves or
//! vanish with their host, and a daemon that dies at any point. It keeps the promises of [`crate::driver::Driver`] and
//! nothing more, so what runs well on it relies on nothing else. It must never touch the real host.
//!
//! ```text
//!   FakeHost  what a real host would keep: guests, and the script of faults. Clones are the same host.
//!   FakeDriver  one daemon's driver over it. A "restarted" daemon takes a new one.
//!   Fuse      counts the points at which a daemon may die, and ends it at the one that is asked for
//! ```

mod driver;
mod fuse;
mod streams;

pub use driver::FakeDriver;
pub use fuse::Fuse;

use crate::driver::{DriverError, Exit, LogLine, Running, Seen};
use jiff::Timestamp;
use model::{
    id::{InstanceId, PortId, VolumeId},
    instance::keys::KeyChange,
    plan::InstancePlan,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::broadcast, time::Instant};

/// Changes that a slow listener may fall behind by.
const CHANGES_MAX: usize = 1024;

/// The verbs of a driver that change something or look, for scripts and records of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // The names are those of the driver's methods.
pub enum Verb {
    Observe,
    List,
    Start,
    Shutdown,
    Kill,
    Pause,
    Resume,
    Suspend,
    Discard,
    Destroy,
    AttachNic,
    DetachNic,
    AttachDisk,
    DetachDisk,
    GrowDisk,
    Resize,
    ChangeKeys,
    StackDisk,
    Attached,
    Usage,
}

impl Verb {
    /// Name as in the driver's methods.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::List => "list",
            Self::Start => "start",
            Self::Shutdown => "shutdown",
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Suspend => "suspend",
            Self::Discard => "discard",
            Self::Destroy => "destroy",
            Self::AttachNic => "attach_nic",
            Self::DetachNic => "detach_nic",
            Self::AttachDisk => "attach_disk",
            Self::DetachDisk => "detach_disk",
            Self::GrowDisk => "grow_disk",
            Self::Resize => "resize",
            Self::ChangeKeys => "change_keys",
            Self::StackDisk => "stack_disk",
            Self::Attached => "attached",
            Self::Usage => "usage",
        }
    }
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is refused and did nothing.
    FailBefore,
    /// It did all it should and is answered with an error.
    FailAfter,
    /// It does nothing and never returns.
    HangBefore,
    /// It does all it should and never returns.
    HangAfter,
}

/// How a guest behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behaviour {
    /// How long it takes to stop when asked; `None`: it never does.
    pub stops_after: Option<Duration>,
    /// It ends with this code as soon as it was started.
    pub exits_at_once: Option<i32>,
    /// It lets go of devices that are unplugged; else unplugging times out.
    pub releases_devices: bool,
    /// Its agent answers.
    pub has_agent: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            stops_after: Some(Duration::ZERO),
            exits_at_once: None,
            releases_devices: true,
            has_agent: true,
        }
    }
}

/// What the host has of an instance.
#[derive(Debug, Clone, Default)]
pub struct Guest {
    /// The plan of the last start.
    pub plan: Option<InstancePlan>,
    /// Ports plugged in.
    pub ports: BTreeSet<PortId>,
    /// Volumes plugged in.
    pub volumes: BTreeSet<VolumeId>,
    /// Volumes that grew while it ran, and their sizes in bytes.
    pub grown: BTreeMap<VolumeId, u64>,
    /// Volumes that were frozen while it ran, and the files to which it writes since.
    pub stacked: BTreeMap<VolumeId, PathBuf>,
    /// Changes of keys that its agent was told of, oldest first.
    pub keys_told: Vec<KeyChange>,
    life: Life,
    stops_at: Option<Instant>,
}

#[derive(Debug, Clone, Default)]
enum Life {
    /// Files were made, nothing ran yet.
    #[default]
    Made,
    Running(Running),
    Paused(Running),
    Stopped(Exit),
    Asleep(u64),
}

/// A call as it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The verb.
    pub verb: Verb,
    /// The instance; `None` for [`Verb::List`].
    pub id: Option<InstanceId>,
}

#[derive(Default)]
struct State {
    guests: BTreeMap<InstanceId, Guest>,
    behaviours: BTreeMap<InstanceId, Behaviour>,
    script: BTreeMap<Verb, VecDeque<Fault>>,
    calls: Vec<Call>,
    boots: Vec<(InstanceId, u64)>,
    logs: BTreeMap<InstanceId, Vec<LogLine>>,
    pids: u32,
}

/// A host that outlives the daemons on it. Clones are the same host.
#[derive(Clone)]
pub struct FakeHost {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<InstanceId>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Default for FakeHost {
    fn default() -> Self {
        Self::new(Arc::new(Timestamp::now))
    }
}

impl FakeHost {
    /// An empty host whose clock is `clock`.
    pub fn new(clock: Arc<dyn Fn() -> Timestamp + Send + Sync>) -> Self {
        Self { state: Arc::default(), changes: broadcast::channel(CHANGES_MAX).0, clock }
    }

    /// A driver over this host that can be ended by `fuse`.
    pub fn driver(&self, fuse: Arc<Fuse>) -> FakeDriver {
        FakeDriver { host: self.clone(), fuse }
    }

    /// Lets the next call of `verb` go wrong. Several wait for one call each, in this order.
    pub fn script(&self, verb: Verb, fault: Fault) {
        self.lock().script.entry(verb).or_default().push_back(fault);
    }

    /// Takes back all faults that did not happen yet.
    pub fn clear_script(&self) {
        self.lock().script.clear();
    }

    /// Sets how a guest behaves from now on, before it is started too.
    pub fn behave(&self, id: InstanceId, behaviour: Behaviour) {
        self.lock().behaviours.insert(id, behaviour);
    }

    /// The guest ends by itself. Nothing happens to one that does not run.
    pub fn exit(&self, id: InstanceId, code: i32) {
        let exit = |boot| Exit {
            code: Some(code),
            cause: format!("exited with {code}"),
            failed: code != 0,
            boot,
            started_ms: None,
            facts: Default::default(),
        };
        self.lock().end(id, exit);
        self.tell(id);
    }

    /// The host is restarted: all that ran is gone without a trace, and its plugs with it. What sleeps goes on sleeping.
    pub fn reboot(&self) {
        self.lock().guests.retain(|_, guest| matches!(guest.life, Life::Asleep(_)));
    }

    /// What the host has of an instance; `None` when nothing.
    pub fn guest(&self, id: InstanceId) -> Option<Guest> {
        self.lock().guests.get(&id).cloned()
    }

    /// Instances of which the host has anything.
    pub fn ids(&self) -> Vec<InstanceId> {
        self.lock().guests.keys().copied().collect()
    }

    /// What a driver would see, without a call.
    pub fn seen(&self, id: InstanceId) -> Seen {
        self.lock().seen(id)
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// How often a verb was called for an instance.
    pub fn count(&self, verb: Verb, id: InstanceId) -> usize {
        self.lock().calls.iter().filter(|c| **c == Call { verb, id: Some(id) }).count()
    }

    /// Boots that truly ran, oldest first: `InstancePlan::boot` of each start that had an effect.
    pub fn boots(&self, id: InstanceId) -> Vec<u64> {
        self.lock().boots.iter().filter(|(i, _)| *i == id).map(|(_, boot)| *boot).collect()
    }

    /// Puts something on the host that no record asks for.
    pub fn litter(&self, plan: &InstancePlan) {
        let now = (self.clock)();
        self.lock().run(plan, now);
    }

    /// Adds a line to a guest's log.
    pub fn log(&self, id: InstanceId, line: LogLine) {
        self.lock().logs.entry(id).or_default().push(line);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if a test's assertion did, the state is still what it was.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.pass_time(Instant::now());
        state
    }

    fn tell(&self, id: InstanceId) {
        // Nobody listens before the daemon has started, and nobody has to.
        let _ = self.changes.send(id);
    }
}

impl State {
    /// Guests that were asked to stop do so when their time has come.
    fn pass_time(&mut self, now: Instant) {
        for guest in self.guests.values_mut() {
            if let (Some(at), Life::Running(running)) = (guest.stops_at, &guest.life)
                && at <= now
            {
                let exit = Exit {
                    code: Some(0),
                    cause: "powered off".into(),
                    failed: false,
                    boot: running.boot,
                    started_ms: None,
                    facts: Default::default(),
                };
                guest.stop(exit);
            }
        }
    }

    fn seen(&self, id: InstanceId) -> Seen {
        match self.guests.get(&id).map(|g| &g.life) {
            None | Some(Life::Made) => Seen::Absent,
            Some(Life::Running(running)) => Seen::Running(running.clone()),
            Some(Life::Paused(running)) => Seen::Paused(running.clone()),
            Some(Life::Stopped(exit)) => Seen::Stopped(exit.clone()),
            Some(Life::Asleep(boot)) => Seen::Asleep { boot: *boot },
        }
    }

    /// Files of an instance, before it runs.
    fn make(&mut self, plan: &InstancePlan) {
        self.guests.entry(plan.id).or_default();
    }

    fn run(&mut self, plan: &InstancePlan, now: Timestamp) {
        let guest = self.guests.entry(plan.id).or_default();
        if matches!(guest.life, Life::Running(_) | Life::Paused(_)) {
            return;
        }
        self.pids += 1;
        let running = Running {
            pid: 1000 + self.pids,
            since_ms: now.as_millisecond(),
            boot: plan.boot,
            facts: serde_json::Map::from_iter([("accelerator".to_string(), "fake".into())]),
        };
        guest.ports = plan.nics.iter().map(|n| n.port).collect();
        guest.volumes = plan.disks.iter().map(|d| d.volume).collect();
        guest.stacked.clear();
        let is_new = !matches!(guest.life, Life::Asleep(boot) if boot == plan.boot);
        guest.life = Life::Running(running);
        guest.stops_at = None;
        guest.plan = Some(plan.clone());
        if is_new {
            self.boots.push((plan.id, plan.boot));
        }
        if let Some(code) = self.behaviour(plan.id).exits_at_once {
            let exit = |boot| Exit {
                code: Some(code),
                cause: format!("exited with {code}"),
                failed: code != 0,
                boot,
                started_ms: None,
                facts: Default::default(),
            };
            self.end(plan.id, exit);
        }
    }

    fn behaviour(&self, id: InstanceId) -> Behaviour {
        self.behaviours.get(&id).cloned().unwrap_or_default()
    }

    fn end(&mut self, id: InstanceId, exit: impl FnOnce(u64) -> Exit) {
        if let Some(guest) = self.guests.get_mut(&id)
            && let Life::Running(running) | Life::Paused(running) = &guest.life
        {
            let boot = running.boot;
            guest.stop(exit(boot));
        }
    }

    fn fall_asleep(&mut self, id: InstanceId) -> Result<(), DriverError> {
        if matches!(self.guests.get(&id).map(|guest| &guest.life), Some(Life::Asleep(_))) {
            return Ok(());
        }
        let guest = self.running(id)?;
        if let Life::Running(running) | Life::Paused(running) = guest.life.clone() {
            guest.stop(Exit::default());
            guest.life = Life::Asleep(running.boot);
        }
        Ok(())
    }

    fn forget_memory(&mut self, id: InstanceId) {
        if let Some(guest) = self.guests.get_mut(&id)
            && let Life::Asleep(boot) = guest.life
        {
            guest.stop(Exit {
                code: None,
                cause: "its memory was thrown away".into(),
                failed: false,
                boot,
                started_ms: None,
                facts: Default::default(),
            });
        }
    }

    fn ask_to_stop(&mut self, id: InstanceId) {
        let after = self.behaviour(id).stops_after;
        let Some(guest) = self.guests.get_mut(&id) else {
            return;
        };
        if let (Life::Running(_), None, Some(after)) = (&guest.life, guest.stops_at, after) {
            guest.stops_at = Some(Instant::now() + after);
        }
    }

    fn running(&mut self, id: InstanceId) -> Result<&mut Guest, DriverError> {
        let guest = self.guests.get_mut(&id).filter(|g| matches!(g.life, Life::Running(_) | Life::Paused(_)));
        guest.ok_or(DriverError::NotRunning)
    }

    fn unplug(&mut self, id: InstanceId, from: impl FnOnce(&mut Guest)) -> Result<(), DriverError> {
        let releases = self.behaviour(id).releases_devices;
        let guest = self.running(id)?;
        // A frozen guest lets go of nothing.
        if !releases || matches!(guest.life, Life::Paused(_)) {
            return Err(DriverError::Timeout { what: "the guest".into(), after_ms: 5000 });
        }
        from(guest);
        Ok(())
    }
}

impl Guest {
    fn stop(&mut self, exit: Exit) {
        self.life = Life::Stopped(exit);
        self.stops_at = None;
        self.ports.clear();
        self.volumes.clear();
    }

    /// Whether it was asked to stop and has not yet.
    pub fn is_stopping(&self) -> bool {
        self.stops_at.is_some()
    }
}
