//! Waiting for what must come true, with a deadline. No test sleeps for a time that it guesses.

use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until there is a value; `None` when the time is over.
pub fn until<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = look() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Looks until it holds.
///
/// # Panics
/// With `what`, when the time is over.
pub fn eventually(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let came = until(patience, || holds().then_some(()));
    assert!(came.is_some(), "not within {} s: {what}", patience.as_secs());
}
