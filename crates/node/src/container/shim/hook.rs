//! A hook that runs: a program beside a container's own, a question asked by a child of the shim, or a pause. The loop
//! never waits for one.
//!
//! A question is asked by a process of its own that gave up the host's powers first: what answers is the container's, and
//! whatever it says is read by nobody who could do more than the container.

use crate::{
    container::process::{PodNamespaces, StartError, Started},
    health::probe::ask,
};
use model::{
    health::probe::Action,
    instance::lifecycle::{HOOK_S_MAX, Hook as Wanted},
};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    io::{self, PipeReader, Read, Write},
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};
use sys::jail::{
    privilege,
    process::{self, Ended, Fork, namespace, signal_pidfd, wait},
};

/// Most bytes of a complaint that are told; a pipe holds them at once.
const COMPLAINT_BYTES_MAX: usize = 512;

/// Which of a container's hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// After its start.
    PostStart,
    /// Before its end.
    PreStop,
}

impl When {
    /// As people know it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PostStart => "postStart",
            Self::PreStop => "preStop",
        }
    }
}

/// One that runs.
#[derive(Debug)]
pub struct Hook {
    /// Which.
    pub when: When,
    gives_up: Instant,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Pause { until: Instant },
    Process(Child),
}

/// A child of the shim.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    pidfd: OwnedFd,
    said: Option<PipeReader>,
}

/// Where a hook is run.
pub struct Scene<'a> {
    /// What the pod's containers share.
    pub shared: &'a PodNamespaces,
    /// The pod's own address.
    pub address: IpAddr,
}

impl Hook {
    /// Begins one, which has until `limit` from now. `exec` starts a program in the container.
    ///
    /// # Errors
    /// It cannot be begun, in words.
    pub fn begin(
        when: When,
        wanted: &Wanted,
        limit: Duration,
        scene: &Scene<'_>,
        exec: impl FnOnce(&[String]) -> Result<Started, StartError>,
    ) -> Result<Self, String> {
        let now = Instant::now();
        let limit = limit.min(Duration::from_secs(u64::from(HOOK_S_MAX)));
        let work = match wanted {
            Wanted::Sleep { seconds } => {
                Work::Pause { until: now + Duration::from_secs(u64::from(*seconds)) }
            }
            Wanted::Ask { action: Action::Exec { argv } } => match exec(argv) {
                Ok(started) => Work::Process(Child { pid: started.pid, pidfd: started.pidfd, said: None }),
                Err(error) => return Err(super::task::describe(&error)),
            },
            Wanted::Ask { action } => Work::Process(
                question(action, limit, scene).map_err(|error| format!("it cannot be asked: {error}"))?,
            ),
        };
        Ok(Self { when, gives_up: now + limit, work })
    }

    /// When something is to be done about it.
    pub fn next_time(&self) -> Instant {
        match &self.work {
            Work::Pause { until } => (*until).min(self.gives_up),
            Work::Process(_) => self.gives_up,
        }
    }

    /// The handle of its process.
    pub fn pidfd(&self) -> Option<&OwnedFd> {
        match &self.work {
            Work::Pause { .. } => None,
            Work::Process(child) => Some(&child.pidfd),
        }
    }

    /// How it ended; `None` while it runs. One whose time is over has failed, and is left to [`Hook::leave`].
    pub fn outcome(&mut self) -> Option<Result<(), String>> {
        let is_late = Instant::now() >= self.gives_up;
        match &mut self.work {
            Work::Pause { until } if Instant::now() >= *until => Some(Ok(())),
            Work::Pause { .. } if is_late => Some(Err("it took all of its time".into())),
            Work::Pause { .. } => None,
            Work::Process(child) => match wait(child.pid, false) {
                Ok(None) if is_late => Some(Err("it took all of its time".into())),
                Ok(None) => None,
                ended => {
                    child.pid = 0;
                    Some(judged(ended, child.said.take()))
                }
            },
        }
    }

    /// Ends it where it runs still. What is left of it is to be collected.
    pub fn leave(self) -> Option<Child> {
        match self.work {
            Work::Process(child) if child.pid != 0 => {
                // A program leads a session, and was not collected yet: its number is its group's and nobody else's.
                let _ = killpg(Pid::from_raw(child.pid), Signal::SIGKILL);
                let _ = signal_pidfd(child.pidfd.as_fd(), libc::SIGKILL);
                Some(child)
            }
            _ => None,
        }
    }
}

impl Child {
    /// Collects it. Tells whether it still runs.
    pub fn runs(&self) -> bool {
        matches!(wait(self.pid, false), Ok(None))
    }
}

fn judged(ended: io::Result<Option<Ended>>, said: Option<PipeReader>) -> Result<(), String> {
    let mut text = String::new();
    if let Some(said) = said {
        // Its writer has ended, and it holds no more than that.
        let _ = said.take(COMPLAINT_BYTES_MAX as u64).read_to_string(&mut text);
    }
    match ended {
        Ok(Some(Ended::Code(0))) => Ok(()),
        _ if !text.is_empty() => Err(text),
        Ok(Some(Ended::Code(code))) => Err(format!("exit code {code}")),
        Ok(Some(Ended::Signal(signal))) => Err(format!("ended by signal {signal}")),
        Ok(None) | Err(_) => Err("it was lost".into()),
    }
}

/// Asks by the network, in a child.
fn question(action: &Action, limit: Duration, scene: &Scene<'_>) -> io::Result<Child> {
    let (said, told) = io::pipe()?;
    let told = OwnedFd::from(told);
    let user = scene.shared.user.as_fd();
    let pid = Fork::default().spawn(|| {
        let ready = privilege::close_others(3, &[told.as_raw_fd(), user.as_raw_fd()])
            .and_then(|()| nix::unistd::setsid().map(drop).map_err(io::Error::from))
            .and_then(|()| process::join(user, namespace::USER))
            .and_then(|()| privilege::set_dumpable(false))
            .and_then(|()| privilege::set_ids(0, 0, &[]))
            .and_then(|()| privilege::set_capabilities(0));
        let asked = match ready {
            Ok(()) => ask::asked(action, scene.address, limit),
            Err(error) => Err(format!("give up the host's powers: {error}")),
        };
        let Err(complaint) = asked else { return 0 };
        let short: String = complaint.chars().take(COMPLAINT_BYTES_MAX / 4).collect();
        let _ = std::fs::File::from(told).write_all(short.as_bytes());
        1
    })?;
    Ok(Child { pid, pidfd: process::open_pidfd(pid)?, said: Some(said) })
}
