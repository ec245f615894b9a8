//! The fuse: ends a daemon at one chosen point, as a crash would.

use std::{
    future::pending,
    sync::atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Notify;

/// Points are counted from 0; this one is never reached.
const NEVER: usize = usize::MAX;

/// Counts the points at which a daemon may die. At the chosen one everything that passes stands still for ever, and
/// whoever waits in [`Fuse::blown`] drops the daemon.
#[derive(Debug)]
pub struct Fuse {
    next: AtomicUsize,
    blow_at: AtomicUsize,
    blown: Notify,
}

impl Default for Fuse {
    fn default() -> Self {
        Self { next: AtomicUsize::new(0), blow_at: AtomicUsize::new(NEVER), blown: Notify::new() }
    }
}

impl Fuse {
    /// A fuse that never blows, and counts.
    pub fn new() -> Self {
        Self::default()
    }

    /// A fuse that blows at the `n`th point.
    pub fn at(n: usize) -> Self {
        Self { blow_at: AtomicUsize::new(n), ..Self::default() }
    }

    /// How many points were passed.
    pub fn points(&self) -> usize {
        self.next.load(Ordering::SeqCst)
    }

    /// A point at which a daemon may die. Behind the chosen one nothing goes on: the dead do no more.
    pub async fn point(&self) {
        let n = self.next.fetch_add(1, Ordering::SeqCst);
        if n >= self.blow_at.load(Ordering::SeqCst) {
            self.blown.notify_one();
            pending::<()>().await;
        }
    }

    /// Returns when the fuse has blown.
    pub async fn blown(&self) {
        self.blown.notified().await;
    }
}
