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
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How long a run is held ready after a change.
const IDLE: Duration = Duration::from_secs(20);

/// Applies scripts inside one namespace.
#[derive(Debug)]
pub struct Standby {
    namespace: Arc<NetNs>,
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
    /// For a namespace. Nothing runs before the first script.
    pub fn new(namespace: Arc<NetNs>) -> Self {
        Self { namespace, shared: Arc::default() }
    }

    /// Applies a script as [`super::apply`] does.
    ///
    /// # Errors
    /// As [`super::apply`].
    pub fn apply(&self, script: &str) -> std::result::Result<(), NftError> {
        let ready = self.shared.held().ready.take();
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
        let (namespace, shared) = (Arc::clone(&self.namespace), Arc::clone(&self.shared));
        let thread = std::thread::Builder::new().name("nft-standby".into());
        // Without a thread each run is loaded when it is needed.
        held.is_kept = thread.spawn(move || keep(&namespace, &shared)).is_ok();
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
