//! Joining the standard streams of a pod's first container, before its start too.
//!
//! Who joins a pod that does not run waits here, with the far ends of its streams. The start hands them to the shim as
//! requests that lie ready in its standard input, and the shim serves them before the container's first instruction. A
//! daemon that ends forgets those who wait: their own connections end with it.
//!
//! ```text
//!   attach ──▶ Early ──hand_over──▶ socket = stdin of the shim ──▶ Attachment ──▶ container starts
//! ```

use super::{PodDriver, answer, blocking, connect, io_error};
use crate::{
    container::{
        protocol::{Reply, Request},
        shim::ATTACHMENTS_MAX,
    },
    driver::{AttachRequest, DriverError, Place},
};
use model::id::InstanceId;
use std::{
    collections::HashMap,
    io::Write,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use sys::fdpass;

/// One who waits for a pod to start.
#[derive(Debug)]
struct Waiting {
    number: u64,
    request: Request,
    ends: [OwnedFd; 3],
}

/// All who wait for pods to start.
#[derive(Debug, Default)]
pub(super) struct Early {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    numbers: u64,
    waiting: HashMap<InstanceId, Vec<Waiting>>,
}

/// A place among those who wait, given back by dropping it.
struct Held {
    early: Arc<Early>,
    id: InstanceId,
    number: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.early.lock();
        if let Some(waiting) = state.waiting.get_mut(&self.id) {
            waiting.retain(|one| one.number != self.number);
            if waiting.is_empty() {
                state.waiting.remove(&self.id);
            }
        }
    }
}

impl Early {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing can panic while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(
        self: &Arc<Self>,
        id: InstanceId,
        request: Request,
        ends: [OwnedFd; 3],
    ) -> Result<Place, DriverError> {
        let mut state = self.lock();
        state.numbers += 1;
        let number = state.numbers;
        let waiting = state.waiting.entry(id).or_default();
        if waiting.len() >= ATTACHMENTS_MAX {
            return Err(DriverError::Refused {
                operation: "attach".into(),
                answer: format!("{ATTACHMENTS_MAX} readers wait for its start; no more can"),
            });
        }
        waiting.push(Waiting { number, request, ends });
        Ok(Some(Box::new(Held { early: Arc::clone(self), id, number })))
    }

    fn take(&self, id: InstanceId) -> Vec<Waiting> {
        self.lock().waiting.remove(&id).unwrap_or_default()
    }

    /// Lets go of all who wait for a pod that will not start any more: their streams end.
    pub(super) fn forget(&self, id: InstanceId) {
        drop(self.take(id));
    }

    /// A socket in which the requests of all who wait for a pod lie ready; `None` if nobody does.
    pub(super) fn hand_over(&self, id: InstanceId) -> Result<Option<OwnedFd>, DriverError> {
        let waiting = self.take(id);
        if waiting.is_empty() {
            return Ok(None);
        }
        let failed = || io_error("hand streams over to the shim");
        let (mut near, far) = UnixStream::pair().map_err(failed())?;
        for one in &waiting {
            let mut line = serde_json::to_vec(&one.request).map_err(|error| failed()(error.into()))?;
            line.push(b'\n');
            let ends = [0, 1, 2].map(|number: usize| one.ends[number].as_fd());
            // So few and short that the socket holds them all.
            let sent = fdpass::send(&near, &line, &ends).map_err(|error| failed()(error.into()))?;
            near.write_all(&line[sent..]).map_err(failed())?;
        }
        Ok(Some(far.into()))
    }
}

impl PodDriver {
    pub(super) async fn attach_streams(
        &self,
        id: InstanceId,
        wanted: &AttachRequest,
        ends: [OwnedFd; 3],
    ) -> Result<Place, DriverError> {
        let (run, early, waits) = (self.places(id).run, Arc::clone(&self.early), wanted.waits);
        let request = Request::Attach {
            container: wanted.container.clone(),
            input: wanted.input,
            keeps_input: wanted.keeps_input,
        };
        blocking(move || match join(&run, &request, &ends)? {
            true => Ok(None),
            false if waits => early.add(id, request, ends),
            false => Err(DriverError::NotRunning),
        })
        .await
    }

    /// Joins those who came while the pod was being started.
    pub(super) async fn join_late(&self, id: InstanceId) {
        let (run, late) = (self.places(id).run, self.early.take(id));
        if late.is_empty() {
            return;
        }
        let joined =
            blocking(move || late.iter().try_for_each(|one| join(&run, &one.request, &one.ends).map(|_| ())));
        if let Err(error) = joined.await {
            tracing::debug!(%id, %error, "a reader could not be joined with its pod");
        }
    }
}

/// Joins a pod that runs; tells whether it does.
fn join(run: &Path, request: &Request, ends: &[OwnedFd; 3]) -> Result<bool, DriverError> {
    let mut client = match connect(run) {
        Ok(client) => client,
        Err(DriverError::NotRunning) => return Ok(false),
        Err(error) => return Err(error),
    };
    match answer(client.ask(&Request::State, &[])) {
        Ok(Reply::State(state)) if state.alive() => {}
        Ok(_) | Err(DriverError::NotRunning) => return Ok(false),
        Err(error) => return Err(error),
    }
    let ends = [0, 1, 2].map(|number: usize| ends[number].as_fd());
    answer(client.ask(request, &ends)).map(|_| true)
}
