//! Builds that clients have asked for, by the id that each client chose: several calls are about one of them.
//!
//! ```text
//!   Control.Solve ─────────────────────────────────────────────────▶ answered when the client's build has ended
//!   Control.Status ─────────── steps as they go ──────────────────▶ ends with it
//!   LLBBridge.Ping, LLBBridge.Solve ── what is built ── LLBBridge.Return
//! ```

use super::{
    asked::Results,
    grpc::{Code, Result, Status},
    wire::StatusResponse,
};
use model::id::ProjectId;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc, oneshot};

/// Most builds that are known at a time, those counted that have ended and were not asked for their status.
const SOLVES_MAX: usize = 256;
/// Most of these of one project.
const SOLVES_OF_PROJECT: usize = SOLVES_MAX / 4;
/// How long a call waits for the build that it is about: clients send them at once.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a build that has ended waits for who asks how it went.
const STATUS_MEMORY: Duration = Duration::from_secs(30);
/// Events that wait for a slow client.
const EVENTS_MAX: usize = 256;
/// Longest id.
const REFERENCE_BYTES_MAX: usize = 128;
/// Most results of one build.
const RESULTS_MAX: usize = 64;

/// How the client's own build ended: with a result, or not.
pub type Returned = Result<Option<String>>;

/// A build.
pub struct Solve {
    /// Its id.
    pub reference: String,
    /// The client's session.
    pub session: String,
    /// What becomes of its result.
    pub results: Results,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None` once it has ended.
    events: Option<mpsc::Sender<StatusResponse>>,
    /// `None` once somebody hears them.
    status: Option<mpsc::Receiver<StatusResponse>>,
    returned: Option<oneshot::Sender<Returned>>,
    /// Images by the id of what was made.
    made: BTreeMap<String, String>,
    ended_at: Option<Instant>,
}

impl Solve {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where its steps are told; `None` once it has ended.
    pub fn events(&self) -> Option<mpsc::Sender<StatusResponse>> {
        self.state().events.clone()
    }

    /// Hears how it goes. Only one can.
    pub fn status(&self) -> Option<mpsc::Receiver<StatusResponse>> {
        self.state().status.take()
    }

    /// Keeps a result, and gives its id.
    ///
    /// # Errors
    /// There are too many.
    pub fn keep(&self, image: String) -> Result<String> {
        let mut state = self.state();
        if state.made.len() == RESULTS_MAX {
            let message = format!("a build has at most {RESULTS_MAX} results");
            return Err(Status::new(Code::Exhausted, message));
        }
        let id = format!("{}-{}", self.reference, state.made.len());
        state.made.insert(id.clone(), image);
        Ok(id)
    }

    /// The image of a result.
    pub fn result(&self, id: &str) -> Option<String> {
        self.state().made.get(id).cloned()
    }

    /// The client's own build has ended so. It is told once.
    pub fn give(&self, returned: Returned) -> bool {
        let waiting = self.state().returned.take();
        waiting.is_some_and(|waiting| waiting.send(returned).is_ok())
    }
}

/// All of them.
#[derive(Default)]
pub struct Solves {
    all: Mutex<HashMap<(ProjectId, String), Arc<Solve>>>,
    changed: Notify,
}

/// A build that goes on; it ends with this.
pub struct Going<'a> {
    solves: &'a Solves,
    project: ProjectId,
    /// The build.
    pub solve: Arc<Solve>,
    /// How the client's own build ends.
    pub returned: oneshot::Receiver<Returned>,
}

impl Solves {
    fn all(&self) -> MutexGuard<'_, HashMap<(ProjectId, String), Arc<Solve>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one.
    ///
    /// # Errors
    /// Its id is none, or another's; there are too many.
    pub fn begin(
        &self,
        project: ProjectId,
        reference: &str,
        session: &str,
        results: Results,
    ) -> Result<Going<'_>> {
        if reference.is_empty() || reference.len() > REFERENCE_BYTES_MAX {
            let message = format!("a build has an id of at most {REFERENCE_BYTES_MAX} bytes");
            return Err(Status::new(Code::Invalid, message));
        }
        let (events, status) = mpsc::channel(EVENTS_MAX);
        let (returning, returned) = oneshot::channel();
        let state = State {
            events: Some(events),
            status: Some(status),
            returned: Some(returning),
            ..State::default()
        };
        let solve = Arc::new(Solve {
            reference: reference.to_string(),
            session: session.to_string(),
            results,
            state: Mutex::new(state),
        });
        let mut all = self.all();
        all.retain(|_, solve| solve.state().ended_at.is_none_or(|at| at.elapsed() < STATUS_MEMORY));
        let key = (project, reference.to_string());
        if all.contains_key(&key) {
            return Err(Status::new(Code::Invalid, format!("there is a build {reference} already")));
        }
        let own = all.keys().filter(|(owner, _)| *owner == project).count();
        if all.len() >= SOLVES_MAX || own >= SOLVES_OF_PROJECT {
            let message = format!("{own} builds of this project are known, no more are possible");
            return Err(Status::new(Code::Exhausted, message));
        }
        all.insert(key, Arc::clone(&solve));
        drop(all);
        self.changed.notify_waiters();
        Ok(Going { solves: self, project, solve, returned })
    }

    /// The build that a call is about, waited for.
    ///
    /// # Errors
    /// It does not begin.
    pub async fn get(&self, project: ProjectId, reference: &str) -> Result<Arc<Solve>> {
        let key = (project, reference.to_string());
        let found = async {
            loop {
                let changed = self.changed.notified();
                if let Some(found) = self.all().get(&key) {
                    return Arc::clone(found);
                }
                changed.await;
            }
        };
        tokio::time::timeout(BEGIN_TIMEOUT, found)
            .await
            .map_err(|_| Status::new(Code::NotFound, format!("no such job {reference:.64}")))
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        let mut state = self.solve.state();
        state.events = None;
        state.returned = None;
        state.ended_at = Some(Instant::now());
        let is_heard = state.status.is_none();
        drop(state);
        if is_heard {
            self.solves.all().remove(&(self.project, self.solve.reference.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_find_their_build() {
        let (solves, project) = (Solves::default(), ProjectId::from_random([1; 16]));
        let going = solves.begin(project, "one", "session", Results::default()).unwrap();
        assert!(solves.begin(project, "one", "session", Results::default()).is_err(), "ids are not shared");
        let other = ProjectId::from_random([2; 16]);
        assert_eq!(solves.get(other, "one").await.err().map(|e| e.code), Some(Code::NotFound));
        let found = solves.get(project, "one").await.unwrap();
        let id = found.keep("sha256:x".into()).unwrap();
        assert_eq!(found.result(&id).as_deref(), Some("sha256:x"));
        let mut status = found.status().unwrap();
        assert!(found.status().is_none(), "one hears it");
        assert!(found.give(Ok(Some(id))) && !found.give(Ok(None)), "it ends once");
        drop(going);
        assert_eq!(status.recv().await, None, "the status ends with it");
        assert!(found.events().is_none());
        assert!(solves.get(project, "one").await.is_err(), "it is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_ended_can_be_asked_how_it_went() {
        let (solves, project) = (Solves::default(), ProjectId::from_random([1; 16]));
        drop(solves.begin(project, "one", "", Results::default()).unwrap());
        let mut status = solves.get(project, "one").await.unwrap().status().unwrap();
        assert_eq!(status.recv().await, None);
        for (reference, code) in [("", Code::Invalid), (&"x".repeat(129), Code::Invalid)] {
            assert_eq!(
                solves.begin(project, reference, "", Results::default()).err().map(|e| e.code),
                Some(code)
            );
        }
        let all: Vec<_> = (1..SOLVES_OF_PROJECT)
            .map(|n| solves.begin(project, &n.to_string(), "", Results::default()).unwrap())
            .collect();
        assert_eq!(
            solves.begin(project, "x", "", Results::default()).err().map(|e| e.code),
            Some(Code::Exhausted)
        );
        drop(all);
    }
}
