//! The runner: takes keys off the queue and runs them, a few at a time, until it is told to stop.
//!
//! All decisions are the agenda's; here are only the tasks, the clock, and what must never stop the loop:
//! a run that fails, panics or hangs.

use std::{
    any::Any, collections::HashMap, error::Error as StdError, panic::AssertUnwindSafe, sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use store::{Change, Changes};
use tokio::{
    sync::oneshot,
    task::{Id, JoinError, JoinHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use tracing::Instrument;

use crate::{
    Backoff, Outcome, Queue,
    agenda::{Agenda, Key, Verdict},
};

/// Why a run failed, in words.
type Failure = String;
type RunResult<K> = (K, Result<Outcome, Failure>);

/// How a runner is made: [`Runner::builder`].
pub struct Runner;

impl Runner {
    /// A runner with a name for logs, and a function that lists all keys there are: it is asked at the
    /// start, at every resync, and whenever changes may have been missed.
    pub fn builder<K: Key>(
        name: impl Into<String>,
        keys: impl Fn() -> Vec<K> + Send + Sync + 'static,
    ) -> Builder<K> {
        Builder {
            name: name.into(),
            keys: Box::new(keys),
            concurrency: 4,
            backoff: Backoff::default(),
            resync_every: Duration::from_secs(600),
            run_longest: None,
            keys_max: 100_000,
            rng: None,
            wakers: Vec::new(),
        }
    }
}

/// What can be chosen about a runner.
pub struct Builder<K> {
    name: String,
    keys: Box<dyn Fn() -> Vec<K> + Send + Sync>,
    concurrency: usize,
    backoff: Backoff,
    resync_every: Duration,
    run_longest: Option<Duration>,
    keys_max: usize,
    rng: Option<Box<dyn RngCore + Send>>,
    wakers: Vec<Waker<K>>,
}

/// Changes, and which keys a change of a record (table, key) concerns.
type Waker<K> = (Changes, KeysOf<K>);
type KeysOf<K> = Box<dyn Fn(&'static str, &str) -> Vec<K> + Send + Sync>;

impl<K: Key> Builder<K> {
    /// How many keys run at once; 4 unless said otherwise, at least 1.
    pub fn concurrency(mut self, runs: usize) -> Self {
        self.concurrency = runs.max(1);
        self
    }
    /// How long failing keys wait.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }
    /// How often every key is run even if nothing changed; every ten minutes unless said otherwise. The
    /// runs are spread over a tenth of that time.
    pub fn resync_every(mut self, every: Duration) -> Self {
        self.resync_every = every.max(Duration::from_millis(1));
        self
    }
    /// A run that takes longer is dropped where it waits and counts as failed. Not limited unless said.
    pub fn run_longest(mut self, longest: Duration) -> Self {
        self.run_longest = Some(longest);
        self
    }
    /// How many keys may wait at once, 100,000 unless said otherwise. Keys beyond that are turned away, and
    /// all keys are listed anew when half of the places are free again.
    pub fn keys_max(mut self, keys: usize) -> Self {
        self.keys_max = keys;
        self
    }
    /// Where jitter comes from; the system unless said otherwise.
    pub fn rng(mut self, rng: impl RngCore + Send + 'static) -> Self {
        self.rng = Some(Box::new(rng));
        self
    }

    /// Adds keys as records change: `keys_of` gets the table and key of each changed record and says which
    /// keys that concerns (often looked up in the mirror, which shows the change already). When changes
    /// were missed, all keys run. Subscribe before anything else is read, so that nothing falls between.
    pub fn wake_by(
        mut self,
        changes: Changes,
        keys_of: impl Fn(&'static str, &str) -> Vec<K> + Send + Sync + 'static,
    ) -> Self {
        self.wakers.push((changes, Box::new(keys_of)));
        self
    }

    /// Starts. `run` gets a key and nothing else; it must be safe to run once too often, and to be dropped
    /// at any await. It never runs twice at once for one key.
    pub fn spawn<F, Fut, E>(self, run: F) -> RunnerHandle<K>
    where
        F: Fn(K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Outcome, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        let queue = Queue::new(Agenda::new(self.keys_max, self.backoff.first));
        let (stop, stopped) = oneshot::channel();
        let dispatcher = Dispatcher {
            name: self.name.into(),
            queue: queue.clone(),
            keys: self.keys,
            run: Arc::new(run),
            concurrency: self.concurrency,
            backoff: self.backoff,
            resync_every: self.resync_every,
            run_longest: self.run_longest,
            rng: self.rng.unwrap_or_else(|| Box::new(StdRng::from_os_rng())),
            runs: JoinSet::new(),
            running: HashMap::new(),
            listed: None,
        };
        let mut wakers = JoinSet::new();
        for (changes, keys_of) in self.wakers {
            wakers.spawn(wake(queue.clone(), changes, keys_of));
        }
        let task = tokio::spawn(dispatcher.dispatch(stopped));
        RunnerHandle { queue, stop: Some(stop), task, _wakers: wakers }
    }
}

/// A running runner. Dropping it stops everything where it is; [`Self::drain`] lets runs finish.
pub struct RunnerHandle<K> {
    queue: Queue<K>,
    stop: Option<oneshot::Sender<Instant>>,
    task: JoinHandle<Vec<K>>,
    // Stopped when dropped.
    _wakers: JoinSet<()>,
}

/// How a drain ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drained<K> {
    /// The keys whose runs were dropped because the deadline came.
    pub abandoned: Vec<K>,
}

impl<K: Key> RunnerHandle<K> {
    /// Adds keys and answers questions.
    pub fn queue(&self) -> Queue<K> {
        self.queue.clone()
    }

    /// Starts no more runs, lets those that run finish, and drops those that take longer than `limit`.
    pub async fn drain(mut self, limit: Duration) -> Drained<K> {
        if let Some(stop) = self.stop.take() {
            // A dispatcher that is gone already has nothing left to finish.
            let _ = stop.send(Instant::now() + limit);
        }
        Drained { abandoned: (&mut self.task).await.unwrap_or_default() }
    }
}

impl<K> Drop for RunnerHandle<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Dispatcher<K, F> {
    name: Arc<str>,
    queue: Queue<K>,
    keys: Box<dyn Fn() -> Vec<K> + Send + Sync>,
    run: Arc<F>,
    concurrency: usize,
    backoff: Backoff,
    resync_every: Duration,
    run_longest: Option<Duration>,
    rng: Box<dyn RngCore + Send>,
    runs: JoinSet<RunResult<K>>,
    running: HashMap<Id, K>,
    /// How far the list of all keys was added when the places ran out.
    listed: Option<usize>,
}

impl<K, F, Fut, E> Dispatcher<K, F>
where
    K: Key,
    F: Fn(K) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, E>> + Send + 'static,
    E: Into<Box<dyn StdError + Send + Sync>> + 'static,
{
    /// Runs until told to stop; gives the keys whose runs had to be dropped.
    async fn dispatch(mut self, mut stopped: oneshot::Receiver<Instant>) -> Vec<K> {
        self.add_all(Duration::ZERO);
        let mut resync_at = Instant::now() + self.resync_every;
        let queue = self.queue.clone();
        loop {
            self.start_runs();
            // Without a free place nothing can start, so nothing needs to be waited for but an end.
            let due = match self.running.len() < self.concurrency {
                true => self.queue.agenda().next_due(),
                false => None,
            };
            tokio::select! {
                biased;
                deadline = &mut stopped => match deadline {
                    Ok(deadline) => return self.finish_runs(deadline).await,
                    Err(_) => return Vec::new(),
                },
                Some(ended) = self.runs.join_next_with_id() => self.end_run(ended),
                () = queue.shared().resync.notified() => self.add_all(Duration::ZERO),
                () = sleep_until(resync_at) => {
                    self.add_all(self.resync_every / 10);
                    resync_at = Instant::now() + self.resync_every;
                }
                () = queue.shared().news.notified() => {}
                () = sleep_until(due.unwrap_or(resync_at)), if due.is_some() => {}
            }
            self.catch_up();
        }
    }

    fn start_runs(&mut self) {
        while self.running.len() < self.concurrency {
            let Some(key) = self.queue.agenda().start(Instant::now()) else {
                return;
            };
            let span = tracing::info_span!("run", runner = &*self.name, ?key);
            let run = run_once(Arc::clone(&self.run), key.clone(), self.run_longest).instrument(span);
            let task = self.runs.spawn(run);
            self.running.insert(task.id(), key);
        }
    }

    fn end_run(&mut self, ended: Result<(Id, RunResult<K>), JoinError>) {
        let (id, result) = match ended {
            Ok((id, (_, result))) => (id, result),
            // Panics are caught inside the run, so this is a panic in dropping what it left behind.
            Err(error) => (error.id(), Err(format!("the run ended badly: {error}"))),
        };
        let Some(key) = self.running.remove(&id) else {
            return;
        };
        let mut agenda = self.queue.agenda();
        let verdict = match result {
            Ok(Outcome::Done) => Verdict::Done,
            Ok(Outcome::Again) => Verdict::Again,
            Ok(Outcome::After(wait)) => Verdict::After(wait),
            Err(error) => {
                let delay = self.backoff.delay(agenda.failures(&key).saturating_add(1), &mut *self.rng);
                Verdict::Failed { error, delay }
            }
        };
        let failure = match &verdict {
            Verdict::Failed { error, delay } => Some((error.clone(), *delay)),
            _ => None,
        };
        let failures = agenda.finish(&key, verdict, Instant::now());
        drop(agenda);
        if let Some((error, delay)) = failure {
            self.log_failure(&key, failures, &error, delay);
        }
    }

    /// Says what fails when it begins to, and then ever more seldom.
    fn log_failure(&self, key: &K, failures: u32, error: &str, delay: Duration) {
        let runner = &*self.name;
        if failures.is_power_of_two() {
            tracing::warn!(runner, ?key, failures, next_try_in = ?delay, error, "a run failed");
        } else {
            tracing::debug!(runner, ?key, failures, next_try_in = ?delay, error, "a run failed");
        }
    }

    /// Adds every key there is, spread over some time.
    fn add_all(&mut self, spread: Duration) {
        self.add_listed(0, spread);
    }

    /// Adds what had no place before, once there is place again.
    fn catch_up(&mut self) {
        let mut agenda = self.queue.agenda();
        if !agenda.has_room() {
            return;
        }
        let missed = agenda.take_missed();
        drop(agenda);
        // A single key that was turned away can be any of them.
        let from = if missed { Some(0) } else { self.listed };
        if let Some(from) = from {
            self.add_listed(from, Duration::ZERO);
        }
    }

    /// Adds the listed keys from a place in the list on, until all are added or the places run out.
    fn add_listed(&mut self, from: usize, spread: Duration) {
        self.listed = None;
        let runner = &*self.name;
        let keys = match std::panic::catch_unwind(AssertUnwindSafe(&self.keys)) {
            Ok(keys) => keys,
            Err(panic) => {
                let panic = panic_text(&*panic);
                tracing::error!(runner, panic, "listing all keys panicked; the next resync tries again");
                return;
            }
        };
        let now = Instant::now();
        let mut agenda = self.queue.agenda();
        for (place, key) in keys.into_iter().enumerate().skip(from) {
            let wait = spread.mul_f64(self.rng.random_range(0.0..=1.0));
            if !agenda.add(key, now + wait, now) {
                self.listed = Some(place);
                tracing::warn!(
                    runner,
                    place,
                    "more keys than places; the rest is added as places become free"
                );
                return;
            }
        }
    }

    /// Waits for all runs until the deadline, drops the rest and names their keys.
    async fn finish_runs(mut self, deadline: Instant) -> Vec<K> {
        while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, self.runs.join_next_with_id()).await {
            self.end_run(ended);
        }
        let abandoned: Vec<K> = self.running.drain().map(|(_, key)| key).collect();
        if !abandoned.is_empty() {
            tracing::warn!(runner = &*self.name, keys = ?abandoned, "runs did not finish in time and were dropped");
        }
        self.runs.shutdown().await;
        abandoned
    }
}

/// Turns changes of records into keys until the store is gone.
async fn wake<K: Key>(queue: Queue<K>, mut changes: Changes, keys_of: KeysOf<K>) {
    while let Some(change) = changes.next().await {
        let Change::Record { table, key, .. } = change else {
            queue.resync();
            continue;
        };
        match std::panic::catch_unwind(AssertUnwindSafe(|| keys_of(table, &key))) {
            Ok(keys) => keys.into_iter().for_each(|key| queue.add(key)),
            Err(panic) => {
                let panic = panic_text(&*panic);
                tracing::error!(table, %key, panic, "asking whom a change concerns panicked; all keys run");
                queue.resync();
            }
        }
    }
}

/// One run, with everything that can go wrong in it turned into a failure.
async fn run_once<K, F, Fut, E>(run: Arc<F>, key: K, longest: Option<Duration>) -> RunResult<K>
where
    K: Key,
    F: Fn(K) -> Fut,
    Fut: Future<Output = Result<Outcome, E>>,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    let argument = key.clone();
    let run = async move { run(argument).await.map_err(|error| error_text(&*error.into())) };
    let run = AssertUnwindSafe(run).catch_unwind();
    let caught = match longest {
        None => run.await,
        Some(longest) => match timeout(longest, run).await {
            Ok(caught) => caught,
            Err(_) => Ok(Err(format!("the run took longer than {longest:?} and was dropped"))),
        },
    };
    let result = caught.unwrap_or_else(|panic| Err(format!("the run panicked: {}", panic_text(&*panic))));
    (key, result)
}

/// An error with all its causes on one line.
fn error_text(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
