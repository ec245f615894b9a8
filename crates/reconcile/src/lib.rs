//! The loop: a queue per key, one run per key at a time, backoff, resync and drain. Knows no noun.
//!
//! ```text
//!             add ──────────┐                    ┌── Done ───────► forgotten until the next add
//!  changes ──► Queue ─► Ready ─► Running ─► run ─┼── Again ──────► Ready
//!  resync  ──►   ▲                 │             ├── After(time) ► Delayed ─► Ready
//!                └── add while ────┘             └── error, panic► Delayed (longer each time) ─► Ready
//!                    running: one more run after
//! ```
//!
//! A run gets a key and nothing else: it looks at what is wanted and what is there, does one step, and says
//! whether it is done. So a run too many does no harm, and that is the only promise the loop asks for. What
//! the loop promises: after an add there is a run that starts after it; two runs of one key never overlap;
//! a key that fails is tried again, ever more seldom, and can be asked about; nothing grows without limit.
//!
//! A failing key that is added again does not wait for its backoff to pass, only for
//! [`Backoff::first`] since it failed: a user who mends the cause is served at once, and a run that writes
//! its own failure into what it watches cannot spin.

mod agenda;
mod backoff;
mod queue;
mod runner;

use std::time::Duration;

pub use backoff::Backoff;
pub use queue::{Counts, Failing, KeyStatus, Phase, Queue};
pub use runner::{Builder, Drained, Runner, RunnerHandle};

/// What a run says about its key when nothing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left to do until something changes.
    Done,
    /// A step was done and the next one can follow at once (behind all keys that wait).
    Again,
    /// Nothing can be done now; look again after this time, or earlier if the key is added.
    After(Duration),
}
