//! The embedded engine: one SQLite file for one machine.
//!
//! ```text
//!  commit ──► queue (bounded) ──► writer thread ──► one SQLite transaction per group ──► fsync ──► replies
//!                                      └──► feed ──► watchers
//!  get, range, old history ──► reader connection (WAL: never waits for the writer)
//! ```
//!
//! All waiting transactions are applied in one SQLite transaction, each with a revision of its own, and
//! share one fsync (write-ahead log, synchronous=FULL). So an acknowledged commit survives kill -9 and
//! power loss, and many concurrent commits cost hardly more than one. SQL must stay in this folder.

mod group;
mod lock;
mod open;
mod reader;
mod rows;
mod schema;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Semaphore, oneshot};

use crate::engine::{
    Engine, Error, KeyValue, LeaseId, Outcome, Page, Range, Result, Revision, Txn, Watch, check_key,
    check_prefix, watch_stream,
};

pub use open::OpenError;
use reader::Reader;
use writer::{Answer, Request, What, Writer};

/// The most requests that wait for the writer; further callers wait before they are queued.
const QUEUE_MAX: usize = 1024;

/// What can be chosen about a store file.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many revisions of history are kept for watchers and reads of the past.
    pub history_revisions: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { history_revisions: 10_000 }
    }
}

/// An engine in one SQLite file. Dropping it finishes what was accepted and lets go of the file.
pub struct Sqlite {
    reader: Arc<Reader>,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    places: Arc<Semaphore>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Sqlite {
    /// Opens the store file at `path`, or makes it if there is none, and holds it for this process alone.
    ///
    /// Blocks for the integrity check. A damaged file is refused and left exactly as it is.
    pub fn open(path: &Path, options: Options) -> Result<Sqlite, OpenError> {
        let opened = open::open(path)?;
        let reader = Arc::new(Reader::new(path.to_owned(), opened.reader, opened.meta));
        let (sender, receiver) = mpsc::channel();
        let writer = Writer::new(opened.writer, opened.lock, Arc::clone(&reader), opened.leases, options);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(receiver))
            .map_err(|error| OpenError::Io {
                operation: "start the writer of",
                path: path.to_owned(),
                error,
            })?;
        Ok(Sqlite {
            reader,
            requests: Mutex::new(Some(sender)),
            places: Arc::new(Semaphore::new(QUEUE_MAX)),
            writer: Mutex::new(Some(thread)),
        })
    }

    /// The store file.
    pub fn path(&self) -> &Path {
        self.reader.path()
    }

    /// Writes a consistent copy of the store, as of now, to a file that must not exist yet.
    pub async fn backup(&self, target: PathBuf) -> Result<()> {
        self.reader.backup(target).await
    }

    async fn ask(&self, operation: &'static str, what: What) -> Result<Answer> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| Error::closed(operation))?;
        let (reply, answer) = oneshot::channel();
        {
            let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            let sender = requests.as_ref().ok_or_else(|| Error::closed(operation))?;
            let request = Request { what, reply: Some(reply), _place: Some(place) };
            sender.send(request).map_err(|_| Error::closed(operation))?;
        }
        answer.await.map_err(|_| Error::closed(operation))?
    }

    /// Lets the writer finish what it has and gives its thread to wait for.
    fn stop(&self) -> Option<JoinHandle<()>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.places.close();
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        if let Some(writer) = self.stop() {
            // A writer that panicked has said so already.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Engine for Sqlite {
    async fn head(&self) -> Result<Revision> {
        self.reader.head().await
    }

    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<KeyValue>> {
        check_key(key)?;
        self.reader.get(key.to_owned(), at).await
    }

    async fn range(&self, range: Range) -> Result<Page> {
        check_prefix(&range.prefix)?;
        self.reader.range(range).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        match self.ask("commit", What::Commit(txn)).await? {
            Answer::Outcome(outcome) => Ok(outcome),
            other => Err(other.unexpected("commit")),
        }
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        check_prefix(prefix)?;
        self.reader.check_history(from).await?;
        Ok(watch_stream(Arc::clone(&self.reader), prefix, from))
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId> {
        match self.ask("grant a lease", What::Grant(ttl)).await? {
            Answer::Lease(lease) => Ok(lease),
            other => Err(other.unexpected("grant a lease")),
        }
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        match self.ask("keep a lease alive", What::KeepAlive(lease)).await? {
            Answer::Ttl(ttl) => Ok(ttl),
            other => Err(other.unexpected("keep a lease alive")),
        }
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<()> {
        self.ask("revoke a lease", What::Revoke(lease)).await.map(|_| ())
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.ask("compact", What::Compact(revision)).await.map(|_| ())
    }

    async fn close(&self) {
        if let Some(writer) = self.stop() {
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
        self.reader.close();
    }
}
