//! A run of nft that is loaded already and waits for its script.
//!
//! Of the ten milliseconds that a small change takes, most go into loading nft. Changes come in bursts (an instance starts,
//! is published, ends), so after one there is a thread that holds the next run ready, and ends when none was needed for
//! a while. A run without a script does nothing, so one that is left over, of a daemon that was killed too, ends by itself.

use super::{NftError, judge, program};
use crate::{
    error::{Context, Result},
    netns::NetNs,
};
use std::{
    io::Write,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// How long a run is held ready after a change.
const IDLE: Duration = Duration::from_secs(20);

/// Most runs that are held ready at a time, in all namespaces.
const HELD_MAX: usize = 16;
/// Longest script that goes to a run that waits: it passes its pipe as a whole or not at all, so that a daemon that is killed
/// while it writes leaves no part of it to be applied. Longer ones take longer than nft to be loaded.
const SCRIPT_BYTES_MAX: usize = 32 << 10;

/// How many runs are held ready.
#[derive(Debug, Default)]
pub struct HeldRuns(AtomicUsize);

/// Applies scripts inside one namespace.
#[derive(Debug)]
pub struct Standby {
    namespace: Arc<NetNs>,
    all: Arc<HeldRuns>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    held: Mutex<Held>,
    wanted: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    ready: Option<Ready>,
    /// A thread sees to it that there is one.
    is_kept: bool,
    is_closed: bool,
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing in it is ever half changed.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A child that waits at its standard input.
#[derive(Debug)]
struct Ready(Option<Child>);

impl Ready {
    fn start(namespace: &NetNs) -> Result<Self> {
        let spawned = namespace.run(|| {
            let mut nft = Command::new(program());
            nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
        });
        let child = spawned.context("run nft in", namespace.name().display())?;
        Ok(Self(Some(child.context("run nft in", namespace.name().display())?)))
    }

    fn apply(mut self, namespace: &NetNs, script: &str) -> std::result::Result<(), NftError> {
        let mut child = self.0.take().expect("it is taken once");
        let mut input = child.stdin.take().expect("it was piped");
        // nft reads all of it before it says anything.
        let written = input.write_all(script.as_bytes());
        drop(input);
        let output = child.wait_with_output();
        judge(written.and(output), namespace, script).map(drop)
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // The end of its input, and so its own: `wait` closes it.
            let _ = child.wait();
        }
    }
}

impl Standby {
    /// For a namespace; `all` counts what is held for others too. Nothing runs before the first script.
    pub fn new(namespace: Arc<NetNs>, all: Arc<HeldRuns>) -> Self {
        Self { namespace, all, shared: Arc::default() }
    }

    /// Applies a script as [`super::apply`] does.
    ///
    /// # Errors
    /// As [`super::apply`].
    pub fn apply(&self, script: &str) -> std::result::Result<(), NftError> {
        let ready = match script.len() <= SCRIPT_BYTES_MAX {
            true => self.shared.held().ready.take(),
            false => None,
        };
        // A run that was held may have been killed meanwhile; one that refused does so again, and has its words told.
        let applied = match ready.map(|ready| ready.apply(&self.namespace, script)) {
            Some(Ok(())) => Ok(()),
            _ => super::apply(&self.namespace, script),
        };
        // Only now, so that it takes no time from the change itself.
        self.hold_next();
        applied
    }

    fn hold_next(&self) {
        let mut held = self.shared.held();
        if held.is_kept {
            self.shared.wanted.notify_one();
            return;
        }
        let (namespace, shared, all) =
            (Arc::clone(&self.namespace), Arc::clone(&self.shared), Arc::clone(&self.all));
        if all.0.fetch_add(1, Ordering::Relaxed) >= HELD_MAX {
            all.0.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let thread = std::thread::Builder::new().name("nft-standby".into());
        let kept = thread.spawn(move || {
            keep(&namespace, &shared);
            all.0.fetch_sub(1, Ordering::Relaxed);
        });
        held.is_kept = kept.is_ok();
        if kept.is_err() {
            // Without a thread each run is loaded when it is needed.
            self.all.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        let mut held = self.shared.held();
        held.is_closed = true;
        let left = held.ready.take();
        self.shared.wanted.notify_one();
        drop(held);
        // Waited for here: it keeps the namespace from ending.
        drop(left);
    }
}

/// Holds a run ready until none is needed any more.
fn keep(namespace: &NetNs, shared: &Shared) {
    let mut held = shared.held();
    loop {
        if held.ready.is_none() && !held.is_closed {
            drop(held);
            let started = Ready::start(namespace);
            held = shared.held();
            match started {
                Ok(ready) if !held.is_closed => held.ready = Some(ready),
                Ok(_) => held.is_closed = true,
                // The next script finds the same, and tells it.
                Err(_) => break,
            }
        }
        if held.is_closed {
            break;
        }
        let waited =
            shared.wanted.wait_timeout_while(held, IDLE, |held| held.ready.is_some() && !held.is_closed);
        let (now, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        held = now;
        if timeout.timed_out() {
            break;
        }
    }
    held.is_kept = false;
    let left = held.ready.take();
    drop(held);
    drop(left);
}
