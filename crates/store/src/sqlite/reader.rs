//! Reads of the store file, on a connection of their own that never waits for the writer.
//!
//! Each read is one SQLite read transaction, so the revision it reports is the one it saw.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use rusqlite::{Connection, Transaction};

use super::{
    open::{Meta, is_damage, read_meta},
    rows,
    schema::{create_private, directory_of, remove_stale, with_suffix},
};
use crate::engine::{
    Batch, Error, Feed, HISTORY_REVISIONS_MAX, History, KeyValue, PAGE_KEYS_MAX, Page, Range, Result,
    Revision,
};

/// The reading side of a store file, and the feed its writer announces revisions on.
pub(super) struct Reader {
    inner: Arc<Inner>,
    feed: Feed,
}

struct Inner {
    path: PathBuf,
    connection: Mutex<Connection>,
    closed: AtomicBool,
}

impl Reader {
    pub(super) fn new(path: PathBuf, connection: Connection, meta: Meta) -> Reader {
        let inner = Inner { path, connection: Mutex::new(connection), closed: AtomicBool::new(false) };
        Reader { inner: Arc::new(inner), feed: Feed::new(meta.head) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.inner.path
    }

    pub(super) fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Ends all reads and watches.
    pub(super) fn close(&self) {
        self.inner.closed.store(true, Ordering::Release);
        self.feed.close();
    }

    pub(super) async fn head(&self) -> Result<Revision> {
        self.read(|transaction| Ok(Ok(read_meta(transaction)?.head))).await
    }

    pub(super) async fn get(&self, key: String, at: Option<Revision>) -> Result<Option<KeyValue>> {
        self.read(move |transaction| {
            let meta = read_meta(transaction)?;
            match check_revision(meta, at) {
                Ok(at) if at == meta.head => rows::get(transaction, &key).map(Ok),
                Ok(at) => rows::get_at(transaction, &key, at).map(Ok),
                Err(error) => Ok(Err(error)),
            }
        })
        .await
    }

    pub(super) async fn range(&self, range: Range) -> Result<Page> {
        self.read(move |transaction| {
            let meta = read_meta(transaction)?;
            match check_revision(meta, range.at) {
                Ok(at) => page(transaction, &range, at, meta.head).map(Ok),
                Err(error) => Ok(Err(error)),
            }
        })
        .await
    }

    /// Refuses to watch from where history is forgotten.
    pub(super) async fn check_history(&self, from: Revision) -> Result<()> {
        self.read(move |transaction| {
            let compacted = read_meta(transaction)?.compacted;
            Ok(check_watch(compacted, from))
        })
        .await
    }

    /// Copies the store by SQLite's own means into an unfinished file, which gets its name when it is whole
    /// and on disk.
    pub(super) async fn backup(&self, target: PathBuf) -> Result<()> {
        let path = self.inner.path.clone();
        spawn(move || {
            copy(&path, &target).map_err(|error| {
                let detail = format!("{}: {error}", target.display());
                Error::Unavailable { operation: "write a backup", detail }
            })
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Result<T>> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        spawn(move || {
            if inner.closed.load(Ordering::Acquire) {
                return Err(Error::closed("read"));
            }
            let mut connection = inner.connection.lock().unwrap_or_else(PoisonError::into_inner);
            let read = connection.transaction().and_then(|transaction| read(&transaction));
            read.unwrap_or_else(|error| Err(failure("read", &inner.path, &error)))
        })
        .await
    }
}

#[async_trait]
impl History for Reader {
    async fn history(&self, from: Revision) -> Result<Vec<Arc<Batch>>> {
        self.read(move |transaction| {
            if let Err(error) = check_watch(read_meta(transaction)?.compacted, from) {
                return Ok(Err(error));
            }
            let batches = rows::history(transaction, from, HISTORY_REVISIONS_MAX)?;
            Ok(Ok(batches.into_iter().map(Arc::new).collect()))
        })
        .await
    }

    fn feed(&self) -> &Feed {
        &self.feed
    }
}

/// What an SQLite error means to the caller of an engine.
pub(super) fn failure(operation: &'static str, path: &Path, error: &rusqlite::Error) -> Error {
    if is_damage(error) {
        return Error::Corrupt { place: path.display().to_string(), detail: error.to_string() };
    }
    let detail = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => {
            format!("no space is left for {}; free some and try again", path.display())
        }
        _ => format!("{}: {error}", path.display()),
    };
    Error::Unavailable { operation, detail }
}

/// Refuses revisions that are gone or not there yet.
pub(super) fn check_revision(meta: Meta, at: Option<Revision>) -> Result<Revision> {
    let at = at.unwrap_or(meta.head);
    if at < meta.compacted {
        return Err(Error::Compacted { requested: at, compacted: meta.compacted });
    }
    if at > meta.head {
        return Err(Error::Future { requested: at, head: meta.head });
    }
    Ok(at)
}

fn check_watch(compacted: Revision, from: Revision) -> Result<()> {
    if from <= compacted && compacted > Revision::ABSENT {
        return Err(Error::Compacted { requested: from, compacted });
    }
    Ok(())
}

fn page(
    transaction: &Transaction<'_>,
    range: &Range,
    at: Revision,
    head: Revision,
) -> rusqlite::Result<Page> {
    let limit = range.limit.unwrap_or(PAGE_KEYS_MAX).clamp(1, PAGE_KEYS_MAX);
    let after = range.after.as_deref();
    // One more than asked for tells whether there is a next page.
    let mut keys = match at == head {
        true => rows::range(transaction, &range.prefix, after, limit + 1)?,
        false => rows::range_at(transaction, &range.prefix, after, limit + 1, at)?,
    };
    let more = keys.len() > limit;
    keys.truncate(limit);
    let next = keys.last().filter(|_| more).map(|last| Range {
        at: Some(at),
        after: Some(last.key.clone()),
        ..range.clone()
    });
    Ok(Page { revision: at, keys, next })
}

fn copy(store: &Path, target: &Path) -> io::Result<()> {
    let unfinished = with_suffix(target, ".part");
    remove_stale(&unfinished)?;
    create_private(&unfinished)?;
    let name = unfinished.to_str().ok_or_else(|| io::Error::other("the path is not valid UTF-8"))?;
    let copied = Connection::open(store)
        .and_then(|connection| connection.execute("VACUUM INTO ?1", [name]))
        .map_err(io::Error::other)
        .and_then(|_| File::open(&unfinished)?.sync_all())
        // A link, unlike a rename, never replaces a file that is there.
        .and_then(|()| std::fs::hard_link(&unfinished, target));
    remove_stale(&unfinished)?;
    copied?;
    File::open(directory_of(target))?.sync_all()
}

async fn spawn<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(Error::Unavailable { operation: "read", detail: error.to_string() }))
}
