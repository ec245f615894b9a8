//! How committed changes reach watchers: a small ring of recent revisions before the stored history.
//!
//! A watcher has no buffer of its own that could overflow. It remembers the next revision it needs, sleeps
//! until the head passes it, and takes what it needs from the ring, or from history when it fell behind.
//! So a slow watcher costs no memory and loses nothing until its history is compacted away.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures::stream;
use tokio::sync::watch;

use super::{Batch, Error, Event, Result, Revision, Watch};

/// The most revisions the ring holds.
const RECENT_REVISIONS_MAX: usize = 512;
/// The most events the ring holds, so that a few huge transactions do not fill the memory.
const RECENT_EVENTS_MAX: usize = 4096;
/// The most revisions that a watcher takes from stored history at once.
pub(crate) const HISTORY_REVISIONS_MAX: u64 = 256;

/// Where a watcher finds revisions that have left the ring.
#[async_trait]
pub(crate) trait History: Send + Sync + 'static {
    /// All revisions from `from` on, oldest first, at most [`HISTORY_REVISIONS_MAX`] of them.
    async fn history(&self, from: Revision) -> Result<Vec<Arc<Batch>>>;
    /// The feed that announces new revisions.
    fn feed(&self) -> &Feed;
}

#[derive(Debug, Clone, Copy)]
struct Head {
    revision: Revision,
    open: bool,
}

/// Announces revisions and keeps the most recent ones at hand.
pub(crate) struct Feed {
    recent: Mutex<Recent>,
    head: watch::Sender<Head>,
}

#[derive(Default)]
struct Recent {
    batches: VecDeque<Arc<Batch>>,
    events: usize,
}

impl Feed {
    pub(crate) fn new(head: Revision) -> Feed {
        Feed { recent: Mutex::default(), head: watch::Sender::new(Head { revision: head, open: true }) }
    }

    /// Announces one committed revision. Must be called in order of revisions.
    pub(crate) fn publish(&self, batch: Batch) {
        let revision = batch.revision;
        let mut recent = self.recent();
        recent.events += batch.events.len();
        recent.batches.push_back(Arc::new(batch));
        while recent.batches.len() > RECENT_REVISIONS_MAX || recent.events > RECENT_EVENTS_MAX {
            let Some(oldest) = recent.batches.pop_front() else {
                break;
            };
            recent.events -= oldest.events.len();
        }
        drop(recent);
        self.head.send_modify(|head| head.revision = revision);
    }

    /// Ends every watch with [`Error::Unavailable`].
    pub(crate) fn close(&self) {
        self.head.send_modify(|head| head.open = false);
    }

    /// All recent revisions from `from` on; `None` when the ring does not reach back so far.
    fn recent_from(&self, from: Revision) -> Option<Vec<Arc<Batch>>> {
        let recent = self.recent();
        let oldest = recent.batches.front()?.revision;
        if oldest > from {
            return None;
        }
        Some(recent.batches.iter().skip((from.0 - oldest.0) as usize).cloned().collect())
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        // Nothing panics while the ring is held half changed, so a poisoned ring is still whole.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Watcher<H> {
    source: Arc<H>,
    head: watch::Receiver<Head>,
    prefix: String,
    next: Revision,
    pending: VecDeque<Arc<Batch>>,
    failed: bool,
}

/// The stream of changes under `prefix` from `from` on.
pub(crate) fn watch_stream<H: History>(source: Arc<H>, prefix: &str, from: Revision) -> Watch {
    let watcher = Watcher {
        head: source.feed().head.subscribe(),
        source,
        prefix: prefix.to_owned(),
        next: from.max(Revision(1)),
        pending: VecDeque::new(),
        failed: false,
    };
    Box::pin(stream::unfold(watcher, |mut watcher| async move {
        if watcher.failed {
            return None;
        }
        let item = watcher.next_batch().await;
        watcher.failed = item.is_err();
        Some((item, watcher))
    }))
}

impl<H: History> Watcher<H> {
    async fn next_batch(&mut self) -> Result<Batch> {
        loop {
            while let Some(batch) = self.pending.pop_front() {
                self.next = batch.revision.next();
                if let Some(batch) = matching(&batch, &self.prefix) {
                    return Ok(batch);
                }
            }
            self.wait_for_news().await?;
            let recent = self.source.feed().recent_from(self.next);
            let batches = match recent {
                Some(batches) => batches,
                None => self.source.history(self.next).await?,
            };
            if batches.first().is_none_or(|first| first.revision != self.next) {
                let detail = format!("revision {} is missing from its history", self.next);
                return Err(Error::Corrupt { place: "the engine".into(), detail });
            }
            self.pending = batches.into();
        }
    }

    async fn wait_for_news(&mut self) -> Result<()> {
        let next = self.next;
        let head = self.head.wait_for(|head| !head.open || head.revision >= next).await;
        match head.map(|head| *head) {
            Ok(head) if head.revision >= next => Ok(()),
            Ok(_) | Err(_) => Err(Error::closed("watch")),
        }
    }
}

fn matching(batch: &Batch, prefix: &str) -> Option<Batch> {
    let events: Vec<Event> =
        batch.events.iter().filter(|event| event.key.starts_with(prefix)).cloned().collect();
    (!events.is_empty()).then_some(Batch { revision: batch.revision, events })
}
