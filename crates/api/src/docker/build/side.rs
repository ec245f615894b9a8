//! Stages side by side: those that need nothing of each other are built at the same time.
//!
//! ```text
//!   FROM a AS one ── RUN ──┐                 each stage has a future of its own, which waits for the stages that it is built
//!   FROM b AS two ── RUN ──┤                 on, or copies from, when it comes to that step
//!   FROM one ── RUN ── COPY --from=two ──▶   STEPS_AT_ONCE of them work at a time
//! ```
//!
//! A stage depends on earlier ones alone, and none holds a place while it waits for another: so none waits for ever. The
//! first one that fails ends the others. Who is told lines gets one stage after the other, as from docker's classic builder.

use super::{
    builder::{Builder, Fault, Plan},
    stage::{Base, Built},
};
use crate::{
    error::{Failure, Result},
    streams::SourceFiles,
};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use model::{dockerfile::stage::Planned, error::Code, id::InstanceId, instance::Instance};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit, watch};

/// Most steps of a build that work at the same time.
const STEPS_AT_ONCE: usize = 8;
/// Longest wait for room that another step of the build has.
const ROOM_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long a step that finds no room leaves those that are about to have it alone.
const ENTERING_PAUSE: Duration = Duration::from_millis(20);

/// Stages of a build as they are built, by their number.
pub(super) struct Stages(BTreeMap<usize, watch::Sender<Option<Built>>>);

impl Stages {
    /// None of a plan is built yet.
    pub fn of(order: &[Planned]) -> Self {
        Self(order.iter().map(|planned| (planned.stage, watch::Sender::new(None))).collect())
    }

    fn set(&self, stage: usize, built: Built) {
        if let Some(place) = self.0.get(&stage) {
            place.send_replace(Some(built));
        }
    }

    /// One that the plan has, waited for; `None` for any other.
    pub async fn get(&self, stage: usize) -> Option<Built> {
        let mut place = self.0.get(&stage)?.subscribe();
        place.wait_for(Option::is_some).await.ok()?.clone()
    }
}

/// What was made or found once in a build, under a name.
pub(super) struct Once<T>(Mutex<HashMap<String, Arc<OnceCell<T>>>>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Once<T> {
    /// The place of a name.
    pub fn cell(&self, name: &str) -> Arc<OnceCell<T>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(name.to_string()).or_default())
    }
}

/// What a step made: what stands on it, and the config of its image.
pub(super) type Made = (Base, Value);

/// What the stages of a build share while they are built.
pub(super) struct Shared {
    places: Semaphore,
    /// Steps that are about to have a container.
    entering: AtomicUsize,
    /// Steps by their key, so that two stages with the same step do it once.
    pub steps: Once<Made>,
    /// Directories that were given, by their names.
    pub given: Once<Arc<dyn SourceFiles>>,
}

impl Default for Shared {
    fn default() -> Self {
        let (places, entering) = (Semaphore::new(STEPS_AT_ONCE), AtomicUsize::new(0));
        Self { places, entering, steps: Once::default(), given: Once::default() }
    }
}

impl Shared {
    /// A step is about to have a container, until this is dropped.
    pub fn entering(&self) -> Entering<'_> {
        self.entering.fetch_add(1, Ordering::Relaxed);
        Entering(self)
    }
}

/// A step that is about to have a container.
pub(super) struct Entering<'a>(&'a Shared);

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        self.0.entering.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Builder {
    /// Builds the stages of a plan, and gives the last one.
    pub(super) async fn stages(&self, plan: &Plan, order: &[Planned]) -> std::result::Result<Built, Fault> {
        let stages = Stages::of(order);
        let last = order.last().map_or(0, |planned| planned.stage);
        if self.tell.is_by_steps() {
            self.side_by_side(plan, order, &stages).await?;
        } else {
            for planned in order {
                stages.set(planned.stage, self.stage(plan, planned, &stages).boxed().await?);
            }
        }
        let built = stages.get(last).await;
        built.ok_or_else(|| Failure::new(Code::Internal, "no stage was built").into())
    }

    async fn side_by_side(
        &self,
        plan: &Plan,
        order: &[Planned],
        stages: &Stages,
    ) -> std::result::Result<(), Fault> {
        let halt = self.cut.child_token();
        let build = |planned| {
            let branch = self.branch(halt.clone());
            async move {
                let outcome = branch.stage(plan, planned, stages).boxed().await;
                (branch, planned.stage, outcome)
            }
            .boxed()
        };
        let mut going: FuturesUnordered<_> = order.iter().map(build).collect();
        let mut first = None;
        while let Some((branch, stage, outcome)) = going.next().await {
            match outcome {
                Ok(built) => stages.set(stage, built),
                Err(fault) if first.is_none() => {
                    self.at_line(branch.line());
                    branch.tell.fail(&self.words(&fault).0, None).await;
                    first = Some(fault);
                    halt.cancel();
                }
                // Clients know these words, and show that the step was not ended.
                Err(_) => branch.tell.fail("context canceled", None).await,
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// A stage before `before`, by its name or number, waited for; `None` if it is none.
    pub(super) async fn stage_named(
        &self,
        plan: &Plan,
        stages: &Stages,
        before: usize,
        name: &str,
    ) -> Result<Option<Built>> {
        let Some(at) = plan.file.stage_of(name, before) else { return Ok(None) };
        self.unless_cut(async { Ok(stages.get(at).await) }).await
    }

    /// A place among the steps that work. Who has one waits for no stage.
    pub(super) async fn place_to_work(&self) -> Result<SemaphorePermit<'_>> {
        let closed = |_| Failure::new(Code::Internal, "there are no places to work");
        self.unless_cut(async { self.shared.places.acquire().await.map_err(closed) }).await
    }

    /// Does a step once, whatever stages have it.
    pub(super) async fn once(
        &self,
        key: &str,
        work: impl Future<Output = std::result::Result<Made, Fault>>,
    ) -> std::result::Result<Made, Fault> {
        if !self.tell.is_by_steps() {
            return work.await;
        }
        let (cell, mut is_own) = (self.shared.steps.cell(key), false);
        let own = async {
            is_own = true;
            work.await
        };
        let made = cell.get_or_try_init(|| own).await?.clone();
        if !is_own {
            self.tell.cached();
        }
        Ok(made)
    }

    /// Waits until a container of another step of this build is gone, so that there is room for one more; false if there is none
    /// to wait for.
    pub(super) async fn until_room(&self) -> Result<bool> {
        let is_there = |id: &InstanceId| self.door.control().get::<Instance>(*id).is_some();
        let others: Vec<InstanceId> = self.rooms().into_iter().filter(is_there).collect();
        if others.is_empty() {
            let is_near = self.shared.entering.load(Ordering::Relaxed) > 0;
            if is_near {
                tokio::time::sleep(ENTERING_PAUSE).await;
                self.check()?;
            }
            return Ok(is_near);
        }
        let gone = |sight: &crate::docker::watch::Sight| sight.instance.is_none().then_some(());
        let waits =
            others.iter().map(|id| crate::docker::watch::until(&self.door, *id, Some(ROOM_TIMEOUT), gone));
        let mut waits: FuturesUnordered<_> = waits.collect();
        self.unless_cut(async { Ok(waits.next().await.flatten().is_some()) }).await
    }
}
