//! Blocking work that stops soon after nobody waits for it any more.
//!
//! A blocking thread cannot be cancelled from outside: it asks a [`StopFlag`] at every step instead.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Whether the one who asked for the work is gone.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

/// What a stopped read fails with, inside an [`io::Error`].
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the work was cancelled")]
pub struct Stopped;

impl StopFlag {
    /// Whether to stop.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Fails when it is time to stop.
    pub fn check(&self) -> io::Result<()> {
        if self.is_set() { Err(io::Error::other(Stopped)) } else { Ok(()) }
    }
}

struct SetOnDrop(StopFlag);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` beside the async threads. When the returned future is dropped, the flag is set. `None` if the work
/// panicked or the runtime is shutting down.
pub async fn run_blocking<T: Send + 'static>(work: impl FnOnce(StopFlag) -> T + Send + 'static) -> Option<T> {
    let guard = SetOnDrop(StopFlag::default());
    let flag = guard.0.clone();
    let result = tokio::task::spawn_blocking(move || work(flag)).await.ok();
    drop(guard);
    result
}

/// A reader that fails once the flag is set.
#[derive(Debug)]
pub struct StoppableReader<R> {
    input: R,
    flag: StopFlag,
}

impl<R: Read> StoppableReader<R> {
    /// Asks `flag` before every read.
    pub fn new(input: R, flag: StopFlag) -> Self {
        Self { input, flag }
    }
}

impl<R: Read> Read for StoppableReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.flag.check()?;
        self.input.read(buffer)
    }
}
