//! The runner with real tasks on a paused clock: what it promises to who adds keys, to who asks why
//! something fails, and to who stops it. Seeds are fixed and named in every failure.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use reconcile::{Backoff, Counts, Outcome, Phase, Queue, Runner, RunnerHandle};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

const LONG: Duration = Duration::from_secs(1_000_000);
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(10) };

/// Waits, in the paused clock's time, until nothing is ready or running.
async fn settled(queue: &Queue<u32>) {
    for _ in 0..100_000 {
        let Counts { ready, running, .. } = queue.counts();
        if ready == 0 && running == 0 {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
    panic!("never settled: {:?}", queue.counts());
}

fn none() -> Vec<u32> {
    Vec::new()
}

#[tokio::test(start_paused = true)]
async fn runs_of_one_key_never_overlap_and_no_add_is_lost() {
    for seed in 0..40_u64 {
        let wanted: Arc<Mutex<HashMap<u32, u64>>> = Arc::default();
        let seen: Arc<Mutex<HashMap<u32, u64>>> = Arc::default();
        let busy: Arc<Mutex<HashMap<u32, bool>>> = Arc::default();
        let overlaps = Arc::new(AtomicUsize::new(0));
        let rng = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
        let run = {
            let (wanted, seen, busy, rng) = (wanted.clone(), seen.clone(), busy.clone(), rng.clone());
            let overlaps = overlaps.clone();
            move |key: u32| {
                let (wanted, seen, busy, rng) = (wanted.clone(), seen.clone(), busy.clone(), rng.clone());
                let overlaps = overlaps.clone();
                async move {
                    let was_busy = busy.lock().unwrap().insert(key, true) == Some(true);
                    // A panic in here would be caught by the runner, so it is only noted.
                    overlaps.fetch_add(usize::from(was_busy), Ordering::SeqCst);
                    let (time, verdict) = {
                        let mut rng = rng.lock().unwrap();
                        (rng.random_range(0..20), rng.random_range(0..6))
                    };
                    let version = wanted.lock().unwrap().get(&key).copied().unwrap_or(0);
                    sleep(Duration::from_millis(time)).await;
                    busy.lock().unwrap().insert(key, false);
                    match verdict {
                        0 => Err("broken".to_owned()),
                        1 => Ok(Outcome::Again),
                        2 => Ok(Outcome::After(Duration::from_millis(30))),
                        _ => {
                            seen.lock().unwrap().insert(key, version);
                            Ok(Outcome::Done)
                        }
                    }
                }
            }
        };
        let runner = Runner::builder("test", none)
            .concurrency(3)
            .backoff(BACKOFF)
            .resync_every(LONG)
            .rng(StdRng::seed_from_u64(seed))
            .spawn(run);
        let queue = runner.queue();
        for _ in 0..300 {
            let (key, wait) = {
                let mut rng = rng.lock().unwrap();
                (rng.random_range(0..8), rng.random_range(0..6))
            };
            *wanted.lock().unwrap().entry(key).or_default() += 1;
            queue.add(key);
            sleep(Duration::from_millis(wait)).await;
        }
        let deadline = Instant::now() + Duration::from_secs(3600);
        while queue.counts() != Counts::default() {
            assert!(Instant::now() < deadline, "seed {seed}: never done: {:?}", queue.counts());
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(*wanted.lock().unwrap(), *seen.lock().unwrap(), "seed {seed}: a wake-up was lost");
        assert_eq!(runner.drain(Duration::ZERO).await.abandoned, [0; 0]);
    }
}

/// A runner whose runs wait for permits, and how many have started.
fn gated(concurrency: usize) -> (RunnerHandle<u32>, Arc<Semaphore>, Arc<AtomicUsize>) {
    let gate = Arc::new(Semaphore::new(0));
    let started = Arc::new(AtomicUsize::new(0));
    let run = {
        let (gate, started) = (gate.clone(), started.clone());
        move |_| {
            let (gate, started) = (gate.clone(), started.clone());
            async move {
                started.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                Ok::<_, String>(Outcome::Done)
            }
        }
    };
    let runner = Runner::builder("test", none).concurrency(concurrency).resync_every(LONG).spawn(run);
    (runner, gate, started)
}

#[tokio::test(start_paused = true)]
async fn many_adds_while_running_are_one_more_run() {
    let (runner, gate, started) = gated(2);
    let queue = runner.queue();
    queue.add(1);
    sleep(Duration::from_millis(1)).await;
    for _ in 0..10 {
        queue.add(1);
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(started.load(Ordering::SeqCst), 1);
    let status = queue.status(&1).unwrap();
    assert!(matches!(status.phase, Phase::Running { again: true, .. }), "{status:?}");
    gate.add_permits(5);
    settled(&queue).await;
    assert_eq!((started.load(Ordering::SeqCst), queue.status(&1)), (2, None));
}

#[tokio::test(start_paused = true)]
async fn no_more_run_at_once_than_allowed() {
    let (runner, gate, started) = gated(3);
    let queue = runner.queue();
    for key in 0..10 {
        queue.add(key);
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(started.load(Ordering::SeqCst), 3);
    assert_eq!(queue.counts(), Counts { ready: 7, delayed: 0, running: 3, failing: 0 });
    gate.add_permits(1);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(started.load(Ordering::SeqCst), 4);
    gate.add_permits(9);
    settled(&queue).await;
    assert_eq!(started.load(Ordering::SeqCst), 10);
}

#[tokio::test(start_paused = true)]
async fn failures_and_panics_are_told_and_tried_again_ever_more_seldom() {
    let starts: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let mended = Arc::new(AtomicBool::new(false));
    let run = {
        let (starts, mended) = (starts.clone(), mended.clone());
        move |key: u32| {
            let (starts, mended) = (starts.clone(), mended.clone());
            async move {
                starts.lock().unwrap().push(Instant::now());
                match (mended.load(Ordering::SeqCst), key) {
                    (true, _) => Ok(Outcome::Done),
                    (false, 1) => Err(std::io::Error::other("no such bridge")),
                    (false, _) => panic!("index out of {}", "range"),
                }
            }
        }
    };
    for (key, wanted) in [(1, "no such bridge"), (2, "the run panicked: index out of range")] {
        starts.lock().unwrap().clear();
        mended.store(false, Ordering::SeqCst);
        let rng = StdRng::seed_from_u64(3);
        let runner =
            Runner::builder("test", none).backoff(BACKOFF).resync_every(LONG).rng(rng).spawn(run.clone());
        let queue = runner.queue();
        queue.add(key);
        sleep(Duration::from_secs(60)).await;
        let failing = queue.failing();
        let [failing] = failing.as_slice() else { panic!("{failing:?}") };
        assert_eq!((failing.key, failing.last_error.as_str()), (key, wanted));
        assert_eq!(failing.failures as usize, starts.lock().unwrap().len());
        assert!(failing.failing_for > Duration::from_secs(59), "{failing:?}");
        assert!(
            failing.next_try_in <= BACKOFF.longest && failing.next_try_in > Duration::ZERO,
            "{failing:?}"
        );
        let gaps: Vec<Duration> = starts.lock().unwrap().windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (number, gap) in gaps.iter().enumerate() {
            let full = (BACKOFF.first * (1 << number.min(20))).min(BACKOFF.longest);
            let bounds = full / 2..=full + Duration::from_millis(2);
            assert!(bounds.contains(gap), "gap {number} is {gap:?}, not within {bounds:?} (seed 3)");
        }

        mended.store(true, Ordering::SeqCst);
        queue.add(key);
        sleep(BACKOFF.first * 2).await;
        assert_eq!(queue.status(&key), None, "who mends the cause and adds the key is served at once");
    }
}

#[tokio::test(start_paused = true)]
async fn outcomes_decide_when_a_key_runs_again() {
    let starts: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let begin = Instant::now();
    let run = {
        let starts = starts.clone();
        move |_: u32| {
            let starts = starts.clone();
            async move {
                let mut starts = starts.lock().unwrap();
                starts.push(begin.elapsed());
                Ok::<_, String>(match starts.len() {
                    1 | 2 => Outcome::Again,
                    3 => Outcome::After(Duration::from_secs(5)),
                    4 => Outcome::After(Duration::from_secs(500)),
                    _ => Outcome::Done,
                })
            }
        }
    };
    let runner = Runner::builder("test", none).resync_every(LONG).spawn(run);
    let queue = runner.queue();
    queue.add(1);
    sleep(Duration::from_secs(20)).await;
    queue.add(1);
    settled(&queue).await;
    sleep(Duration::from_secs(1000)).await;
    let seconds: Vec<u64> = starts.lock().unwrap().iter().map(Duration::as_secs).collect();
    assert_eq!(seconds, [0, 0, 0, 5, 20], "an add does not wait for the time that was named");
}

#[tokio::test(start_paused = true)]
async fn all_keys_run_at_the_start_at_every_resync_and_when_asked() {
    let runs = Arc::new(AtomicUsize::new(0));
    let run = {
        let runs = runs.clone();
        move |_| {
            runs.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, String>(Outcome::Done) }
        }
    };
    let runner =
        Runner::builder("test", || (0..50).collect()).resync_every(Duration::from_secs(100)).spawn(run);
    let queue = runner.queue();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 50, "at the start");
    sleep(Duration::from_secs(101)).await;
    let part = runs.load(Ordering::SeqCst);
    assert!((51..100).contains(&part), "a resync is spread, but {part} ran in its first seconds");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 100, "after a resync");
    queue.resync();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 150, "when asked");
}

#[tokio::test(start_paused = true)]
async fn more_keys_than_places_are_served_in_turns() {
    let seen: Arc<Mutex<HashMap<u32, u32>>> = Arc::default();
    let run = {
        let seen = seen.clone();
        move |key| {
            let seen = seen.clone();
            async move {
                *seen.lock().unwrap().entry(key).or_default() += 1;
                sleep(Duration::from_millis(1)).await;
                Ok::<_, String>(Outcome::Done)
            }
        }
    };
    let runner = Runner::builder("test", || (0..100).collect()).keys_max(8).resync_every(LONG).spawn(run);
    let queue = runner.queue();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(seen.lock().unwrap().len(), 100);
    assert_eq!(queue.counts(), Counts::default());
    seen.lock().unwrap().clear();
    for key in 0..100 {
        queue.add(key);
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(seen.lock().unwrap().len(), 100, "adds that were turned away are made up for");
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_runs_until_its_deadline() {
    let (runner, gate, started) = gated(2);
    let queue = runner.queue();
    for key in 0..5 {
        queue.add(key);
    }
    sleep(Duration::from_millis(1)).await;
    gate.add_permits(2);
    let drained = runner.drain(Duration::from_secs(5)).await;
    let count = started.load(Ordering::SeqCst);
    assert!(drained.abandoned.is_empty() && (2..=4).contains(&count), "{drained:?} after {count} starts");

    let (runner, _gate, started) = gated(2);
    let queue = runner.queue();
    for key in 0..5 {
        queue.add(key);
    }
    sleep(Duration::from_millis(1)).await;
    let begin = Instant::now();
    let mut abandoned = runner.drain(Duration::from_secs(5)).await.abandoned;
    abandoned.sort_unstable();
    assert_eq!((abandoned, started.load(Ordering::SeqCst)), (vec![0, 1], 2));
    assert_eq!(begin.elapsed().as_secs(), 5);
    queue.add(9);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(started.load(Ordering::SeqCst), 2, "nothing starts after a drain");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_hangs_fails_when_it_may_not_take_longer() {
    let run = |_: u32| async {
        std::future::pending::<()>().await;
        Ok::<_, String>(Outcome::Done)
    };
    let runner = Runner::builder("test", none)
        .run_longest(Duration::from_secs(30))
        .resync_every(LONG)
        .concurrency(1)
        .spawn(run);
    let queue = runner.queue();
    queue.add(1);
    sleep(Duration::from_secs(29)).await;
    assert!(
        matches!(queue.status(&1).unwrap().phase, Phase::Running { running_for, .. } if running_for.as_secs() >= 28)
    );
    sleep(Duration::from_secs(2)).await;
    assert_eq!(queue.failing()[0].last_error, "the run took longer than 30s and was dropped");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_runner_stops() {
    let (runner, gate, started) = gated(2);
    let queue = runner.queue();
    queue.add(1);
    sleep(Duration::from_millis(1)).await;
    drop(runner);
    gate.add_permits(10);
    queue.add(2);
    sleep(Duration::from_secs(1)).await;
    assert_eq!((started.load(Ordering::SeqCst), gate.available_permits()), (1, 10));
}
