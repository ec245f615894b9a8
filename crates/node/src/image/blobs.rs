//! The content-addressed store: every manifest, config and layer is a file named by its sha256.
//!
//! ```text
//! <state>/blobs/sha256/<hex>     complete, checked, on disk
//! <state>/blobs/partial/<hex>    begun; a later download goes on from its end
//! <state>/blobs/partial/new-*    digest not known yet; swept at start
//! <state>/blobs/held/            who was given which blob, see [`Holder`]
//! ```
//!
//! A file gets its final name only after its digest was checked and it was flushed, so a crash leaves partial files
//! and nothing worse. One digest has one writer at a time: a second one waits and then finds the blob present. The
//! store never guesses what is in use: the collector is told.

use super::holder::Holder;
use crate::room::{self, Short, Space};
use model::{error::Code, id::ProjectId, image_digest::Digest};
use sha2::{Digest as _, Sha256};
use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime},
};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Bytes gathered before they are hashed and written.
const CHUNK_BYTES: usize = 256 << 10;
/// How long a partial download that is given up waits for its writer.
const GIVE_UP_WAIT: Duration = Duration::from_secs(2);
/// Age after which a partial download is given up.
pub const PARTIAL_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why the blob store failed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The file system failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The stream that fills a blob failed.
    #[error("the content of the blob cannot be read")]
    Input(#[source] io::Error),
    /// The disk has too little room for the blob. Nothing of it stays.
    #[error("there is no room for the blob at {}", path.display())]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// The numbers.
        source: Short,
    },
    /// More bytes came than were announced or allowed.
    #[error("the blob is longer than {size_bytes_max} bytes")]
    TooLarge {
        /// The limit.
        size_bytes_max: u64,
    },
    /// The content is not what its name says.
    #[error("the content has digest {actual}, not {expected}")]
    Mismatch {
        /// The name.
        expected: Digest,
        /// The content.
        actual: Digest,
    },
    /// No such blob.
    #[error("blob {0} is not in the store")]
    Missing(Digest),
    /// The daemon is shutting down.
    #[error("the work was cancelled")]
    Cancelled,
}

impl BlobError {
    /// Whether this host's disk is full, or nearly.
    pub fn is_full(&self) -> bool {
        match self {
            Self::NoRoom { .. } => true,
            Self::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    /// What kind of failure it is: all but bad content lies in this host and may pass.
    pub fn code(&self) -> Code {
        if self.is_full() { Code::NoCapacity } else { Code::Unavailable }
    }
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_path_buf();
    move |source| BlobError::Io { operation, path, source }
}

/// The store. Cheap to clone; all clones share the locks.
#[derive(Debug, Clone)]
pub struct BlobStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    complete: PathBuf,
    partial: PathBuf,
    held: PathBuf,
    writers: Mutex<HashMap<Digest, Weak<AsyncMutex<()>>>>,
}

/// What [`BlobStore::begin`] found.
#[derive(Debug)]
pub enum Begin {
    /// The blob is here already and has this many bytes.
    Present(u64),
    /// It has to be written, from [`BlobWriter::offset`] on.
    Write(Box<BlobWriter>),
}

/// What the collector removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Files.
    pub count: u64,
    /// Their bytes.
    pub size_bytes: u64,
}

impl BlobStore {
    /// Opens (and makes) the store under the state directory, and sweeps what a crash left. Blocking.
    pub fn open(state: &Path) -> Result<Self, BlobError> {
        let complete = state.join("blobs/sha256");
        let partial = state.join("blobs/partial");
        let held = state.join("blobs/held");
        for dir in [&complete, &partial, &held] {
            fs::create_dir_all(dir).map_err(at("create", dir))?;
        }
        // Private images lie here too: closed to all but the daemon.
        let top = state.join("blobs");
        fs::set_permissions(&top, fs::Permissions::from_mode(0o700)).map_err(at("close", &top))?;
        for entry in fs::read_dir(&partial).map_err(at("list", &partial))? {
            let entry = entry.map_err(at("list", &partial))?;
            if entry.file_name().to_string_lossy().starts_with("new-") {
                fs::remove_file(entry.path()).map_err(at("remove", &entry.path()))?;
            }
        }
        Ok(Self { inner: Arc::new(Inner { complete, partial, held, writers: Mutex::default() }) })
    }

    /// A project and what it may use, beside what it is given from now on.
    pub fn holder(&self, project: ProjectId, own: HashSet<Digest>) -> Holder {
        Holder::new(self.inner.held.clone(), project, own)
    }

    /// Where the blob is, or will be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.inner.complete.join(digest.hex())
    }

    /// Bytes of a blob, if it is here.
    pub fn size_bytes(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at("look at", &path)(error)),
        }
    }

    /// Opens a blob for reading.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, BlobError> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BlobError::Missing(*digest)),
            Err(error) => Err(at("open", &path)(error)),
        }
    }

    /// A small blob (manifest, config), checked again against its digest.
    pub fn read(&self, digest: &Digest, size_bytes_max: u64) -> Result<Vec<u8>, BlobError> {
        let path = self.path(digest);
        let mut content = Vec::new();
        let mut file = self.open_blob(digest)?.take(size_bytes_max + 1);
        file.read_to_end(&mut content).map_err(at("read", &path))?;
        if content.len() as u64 > size_bytes_max {
            return Err(BlobError::TooLarge { size_bytes_max });
        }
        let actual = Digest::of(&content);
        if actual != *digest {
            return Err(BlobError::Mismatch { expected: *digest, actual });
        }
        Ok(content)
    }

    /// Begins or goes on with a blob. Waits for another writer of the same digest. A blob that is present counts as
    /// fresh for the collector from now on.
    pub async fn begin(&self, digest: Digest, size_bytes_max: u64) -> Result<Begin, BlobError> {
        let lease = self.lock(digest).lock_owned().await;
        let store = self.clone();
        run(move || match store.touch(&digest)? {
            Some(size_bytes) => Ok(Begin::Present(size_bytes)),
            None => store.write(digest, size_bytes_max, lease).map(Begin::Write),
        })
        .await
    }

    /// Begins with a blob that may be here, for somebody who has to bring it all the same.
    pub async fn begin_anew(
        &self,
        digest: Digest,
        size_bytes_max: u64,
    ) -> Result<Box<BlobWriter>, BlobError> {
        let lease = self.lock(digest).lock_owned().await;
        let store = self.clone();
        run(move || store.write(digest, size_bytes_max, lease)).await
    }

    /// Whether there is room for all that is missing of these blobs.
    pub fn expect_room(&self, wanted: &[(Digest, u64)]) -> Result<(), BlobError> {
        let length = |path: PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
        let missing = wanted.iter().map(|(digest, size_bytes)| {
            let here = length(self.path(digest)).max(length(self.inner.partial.join(digest.hex())));
            size_bytes.saturating_sub(here)
        });
        let wanted_bytes = missing.fold(0, u64::saturating_add);
        let path = &self.inner.partial;
        let space = Space::at(path).map_err(at("look at the free space of", path))?;
        // What is all here needs none.
        if wanted_bytes == 0 {
            return Ok(());
        }
        space.holds(wanted_bytes).map_err(|source| BlobError::NoRoom { path: path.clone(), source })
    }

    /// Removes what came of a blob, unless somebody goes on with it.
    pub async fn give_up(&self, digest: Digest) {
        // A writer that was dropped lets go when its last write is done.
        let lease = tokio::time::timeout(GIVE_UP_WAIT, self.lock(digest).lock_owned()).await;
        if let Ok(_lease) = lease {
            let path = self.inner.partial.join(digest.hex());
            // Best effort: what stays is given up for its age. Mostly there is none.
            let _ = tokio::fs::remove_file(path).await;
        }
    }

    /// Stores content that is held in memory.
    pub async fn insert(&self, content: Vec<u8>) -> Result<Digest, BlobError> {
        let store = self.clone();
        run(move || store.ingest(&content[..], None, content.len() as u64).map(|(digest, _)| digest)).await
    }

    /// Reads a stream to its end into the store. With `expected`, content of another digest is refused. Blocking:
    /// for threads that may wait.
    pub fn ingest(
        &self,
        mut input: impl Read,
        expected: Option<Digest>,
        size_bytes_max: u64,
    ) -> Result<(Digest, u64), BlobError> {
        let path = self.inner.partial.join(format!("new-{}", uuid::Uuid::new_v4()));
        let mut sink = Sink::create(path, size_bytes_max)?;
        let result = sink.expect(0).and_then(|()| fill(&mut sink, &mut input)).and_then(|()| {
            let actual = sink.digest();
            let digest = expected.unwrap_or(actual);
            if actual != digest {
                return Err(BlobError::Mismatch { expected: digest, actual });
            }
            let _lease = self.lock(digest).blocking_lock_owned();
            sink.publish(&self.path(&digest), &self.inner.complete)?;
            Ok((digest, sink.written))
        });
        if result.is_err() {
            // What stays all the same is swept at the next start.
            sink.remove();
        }
        result
    }

    /// Removes blobs that are not `referenced` and were not written or asked for within `grace`, and partial
    /// downloads older than [`PARTIAL_AGE_MAX`]. Blocking.
    pub fn collect(
        &self,
        referenced: &HashSet<Digest>,
        grace: Duration,
        now: SystemTime,
    ) -> Result<Collected, BlobError> {
        let mut collected = Collected::default();
        for (dir, age_max, partial) in
            [(&self.inner.complete, grace, false), (&self.inner.partial, PARTIAL_AGE_MAX, true)]
        {
            for entry in fs::read_dir(dir).map_err(at("list", dir))? {
                let entry = entry.map_err(at("list", dir))?;
                let name = entry.file_name();
                let Ok(digest) = Digest::from_hex(&name.to_string_lossy()) else {
                    continue;
                };
                if !partial && referenced.contains(&digest) {
                    continue;
                }
                // Whoever holds the lock is writing it or about to use it.
                let Ok(_lease) = self.lock(digest).try_lock_owned() else {
                    continue;
                };
                let Ok(metadata) = entry.metadata() else { continue };
                let age = metadata.modified().ok().and_then(|modified| now.duration_since(modified).ok());
                if age.is_none_or(|age| age < age_max) {
                    continue;
                }
                fs::remove_file(entry.path()).map_err(at("remove", &entry.path()))?;
                collected.count += 1;
                collected.size_bytes += metadata.len();
            }
        }
        self.forget_holders()?;
        self.writers().retain(|_, lock| lock.strong_count() > 0);
        Ok(collected)
    }

    /// Who was given a blob is of no use without it.
    fn forget_holders(&self) -> Result<(), BlobError> {
        let held = &self.inner.held;
        for entry in fs::read_dir(held).map_err(at("list", held))? {
            let entry = entry.map_err(at("list", held))?;
            let name = entry.file_name();
            let digest = name.to_string_lossy().split('.').next().and_then(|hex| Digest::from_hex(hex).ok());
            if digest.is_none_or(|digest| !self.path(&digest).exists()) {
                fs::remove_file(entry.path()).map_err(at("remove", &entry.path()))?;
            }
        }
        Ok(())
    }

    /// Bytes of a blob, if it is here; it is fresh for the collector from now on.
    fn touch(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let path = self.path(digest);
        match OpenOptions::new().write(true).open(&path) {
            Ok(file) => {
                file.set_modified(SystemTime::now()).map_err(at("touch", &path))?;
                Ok(Some(file.metadata().map_err(at("look at", &path))?.len()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at("open", &path)(error)),
        }
    }

    fn write(
        &self,
        digest: Digest,
        size_bytes_max: u64,
        lease: OwnedMutexGuard<()>,
    ) -> Result<Box<BlobWriter>, BlobError> {
        let path = self.path(&digest);
        let sink = Sink::resume(self.inner.partial.join(digest.hex()), size_bytes_max)?;
        // All that is still to come, before any of it does.
        sink.expect(size_bytes_max - sink.written).inspect_err(|_| sink.remove())?;
        let work = Work { sink, _lease: lease };
        Ok(Box::new(BlobWriter {
            digest,
            offset: work.sink.written,
            path,
            dir: self.inner.complete.clone(),
            buffer: Vec::new(),
            work: Some(work),
        }))
    }

    fn writers(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Weak<AsyncMutex<()>>>> {
        // The map is whole at every moment, so a panic elsewhere does not spoil it.
        self.inner.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self, digest: Digest) -> Arc<AsyncMutex<()>> {
        let mut writers = self.writers();
        if let Some(lock) = writers.get(&digest).and_then(Weak::upgrade) {
            return lock;
        }
        if writers.len() > 4096 {
            writers.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::new(AsyncMutex::new(()));
        writers.insert(digest, Arc::downgrade(&lock));
        lock
    }
}

/// Runs blocking work beside the async threads.
async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(BlobError::Cancelled))
}

fn fill(sink: &mut Sink, input: &mut impl Read) -> Result<(), BlobError> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => sink.write(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(BlobError::Input(error)),
        }
    }
}

/// A file that grows together with its hash.
#[derive(Debug)]
struct Sink {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    written: u64,
    size_bytes_max: u64,
    /// Where the room is looked at again.
    checked_at: u64,
}

impl Sink {
    fn create(path: PathBuf, size_bytes_max: u64) -> Result<Self, BlobError> {
        let file =
            OpenOptions::new().write(true).create_new(true).open(&path).map_err(at("create", &path))?;
        Ok(Self { path, file, hasher: Sha256::new(), written: 0, size_bytes_max, checked_at: 0 })
    }

    /// Opens what an earlier try left and hashes it again; a file that is too long starts over.
    fn resume(path: PathBuf, size_bytes_max: u64) -> Result<Self, BlobError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(at("open", &path))?;
        let mut sink = Self { path, file, hasher: Sha256::new(), written: 0, size_bytes_max, checked_at: 0 };
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let count = match sink.file.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(at("read", &sink.path)(error)),
            };
            if count == 0 {
                break;
            }
            sink.hasher.update(&buffer[..count]);
            sink.written += count as u64;
            if sink.written > size_bytes_max {
                sink.restart()?;
                break;
            }
        }
        Ok(sink)
    }

    fn restart(&mut self) -> Result<(), BlobError> {
        self.file.set_len(0).map_err(at("truncate", &self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(at("seek in", &self.path))?;
        self.hasher = Sha256::new();
        self.written = 0;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        if self.written + bytes.len() as u64 > self.size_bytes_max {
            return Err(BlobError::TooLarge { size_bytes_max: self.size_bytes_max });
        }
        if self.written >= self.checked_at {
            self.expect(bytes.len() as u64)?;
            self.checked_at = self.written + room::CHECK_BYTES;
        }
        self.file.write_all(bytes).map_err(at("write", &self.path))?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Refuses bytes for which there is no room.
    fn expect(&self, wanted_bytes: u64) -> Result<(), BlobError> {
        let space = Space::around(&self.file).map_err(at("look at the free space of", &self.path))?;
        space.holds(wanted_bytes).map_err(|source| BlobError::NoRoom { path: self.path.clone(), source })
    }

    /// Gives back the room of what came.
    fn remove(&self) {
        // Best effort: what stays is given up for its age.
        let _ = fs::remove_file(&self.path);
    }

    fn digest(&self) -> Digest {
        Digest::from_bytes(self.hasher.clone().finalize().into())
    }

    /// Flushes the file and gives it its final name.
    fn publish(&self, path: &Path, dir: &Path) -> Result<(), BlobError> {
        self.file.sync_all().map_err(at("flush", &self.path))?;
        fs::rename(&self.path, path).map_err(at("rename", &self.path))?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(at("flush", dir))
    }
}

/// The open file and the right to write it. Goes to the blocking thread and back as one, so that dropping the
/// writer in mid-air frees the digest only when the thread is done with the file.
#[derive(Debug)]
struct Work {
    sink: Sink,
    _lease: OwnedMutexGuard<()>,
}

/// Writes one blob. Dropping it keeps what was written for the next try.
#[derive(Debug)]
pub struct BlobWriter {
    digest: Digest,
    offset: u64,
    path: PathBuf,
    dir: PathBuf,
    buffer: Vec<u8>,
    /// Gone only while a blocking thread has it, or after such a call was cancelled.
    work: Option<Work>,
}

impl BlobWriter {
    /// Bytes taken so far, those of earlier tries included.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.buffer.extend_from_slice(bytes);
        self.offset += bytes.len() as u64;
        if self.buffer.len() >= CHUNK_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Hands all bytes taken so far to the file.
    pub async fn flush(&mut self) -> Result<(), BlobError> {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            return Ok(());
        }
        self.with_work(move |work| work.sink.write(&buffer)).await
    }

    /// Starts over: the source cannot go on from the offset, or what is here turned out wrong.
    pub async fn restart(&mut self) -> Result<(), BlobError> {
        self.buffer.clear();
        self.offset = 0;
        self.with_work(|work| work.sink.restart()).await
    }

    /// Checks the digest and puts the blob in its place. Content of another digest is thrown away, so that the next
    /// try starts clean; the writer can be used again after that error.
    pub async fn finish(&mut self) -> Result<u64, BlobError> {
        self.flush().await?;
        let (digest, path, dir) = (self.digest, self.path.clone(), self.dir.clone());
        let result = self
            .with_work(move |work| {
                let actual = work.sink.digest();
                if actual != digest {
                    work.sink.restart()?;
                    return Err(BlobError::Mismatch { expected: digest, actual });
                }
                work.sink.publish(&path, &dir)
            })
            .await;
        if matches!(result, Err(BlobError::Mismatch { .. })) {
            self.offset = 0;
        }
        result.map(|()| self.offset)
    }

    async fn with_work(
        &mut self,
        act: impl FnOnce(&mut Work) -> Result<(), BlobError> + Send + 'static,
    ) -> Result<(), BlobError> {
        let mut work = self.work.take().ok_or(BlobError::Cancelled)?;
        let task = tokio::task::spawn_blocking(move || {
            let result = act(&mut work);
            if result.as_ref().is_err_and(BlobError::is_full) {
                // What came of it must not keep the disk full until somebody tries again.
                work.sink.remove();
            }
            (work, result)
        });
        let (work, result) = task.await.map_err(|_| BlobError::Cancelled)?;
        self.work = Some(work);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, BlobStore) {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = BlobStore::open(dir.path()).expect("store opens");
        (dir, store)
    }

    async fn writer(store: &BlobStore, digest: Digest) -> Box<BlobWriter> {
        match store.begin(digest, 1 << 20).await.expect("begins") {
            Begin::Write(writer) => writer,
            Begin::Present(_) => panic!("not written yet"),
        }
    }

    #[tokio::test]
    async fn a_broken_download_goes_on_where_it_stopped() {
        let (dir, store) = store();
        let content: Vec<u8> = (0..700_000u32).map(|n| n as u8).collect();
        let digest = Digest::of(&content);
        let mut first = writer(&store, digest).await;
        first.write(&content[..600_000]).await.expect("writes");
        first.flush().await.expect("flushes");
        drop(first);
        // A new daemon over the same directory.
        let store = BlobStore::open(dir.path()).expect("reopens");
        let mut second = writer(&store, digest).await;
        assert_eq!(second.offset(), 600_000);
        assert_eq!(store.size_bytes(&digest).expect("looks"), None);
        second.write(&content[600_000..]).await.expect("writes");
        assert_eq!(second.finish().await.expect("finishes"), 700_000);
        drop(second);
        assert_eq!(store.read(&digest, 1 << 20).expect("reads"), content);
        assert!(matches!(store.begin(digest, 1 << 20).await, Ok(Begin::Present(700_000))));
    }

    #[tokio::test]
    async fn wrong_content_never_gets_the_name() {
        let (_dir, store) = store();
        let digest = Digest::of(b"right");
        let mut work = writer(&store, digest).await;
        work.write(b"wrong").await.expect("writes");
        let error = work.finish().await.expect_err("wrong digest");
        assert!(matches!(error, BlobError::Mismatch { expected, .. } if expected == digest));
        assert_eq!(work.offset(), 0);
        work.write(b"right").await.expect("writes");
        work.finish().await.expect("right now");
    }

    #[tokio::test]
    async fn content_past_the_limit_is_refused() {
        let (_dir, store) = store();
        let digest = Digest::of(&[1; 11]);
        let Begin::Write(mut work) = store.begin(digest, 10).await.expect("begins") else { panic!("new") };
        work.write(&[1; 11]).await.expect("buffers");
        assert!(matches!(work.finish().await, Err(BlobError::TooLarge { size_bytes_max: 10 })));
        let blocking = tokio::task::spawn_blocking(move || {
            assert!(matches!(store.ingest(&[1u8; 11][..], None, 10), Err(BlobError::TooLarge { .. })));
            store.ingest(&[1u8; 10][..], None, 10).expect("just fits");
        });
        blocking.await.expect("joins");
    }

    #[tokio::test]
    async fn writers_of_one_digest_are_one() {
        let (_dir, store) = store();
        let content = vec![7u8; 300_000];
        let digest = Digest::of(&content);
        let mut tasks = Vec::new();
        for _ in 0..8 {
            let (store, content) = (store.clone(), content.clone());
            tasks.push(tokio::spawn(async move {
                match store.begin(digest, 1 << 20).await.expect("begins") {
                    Begin::Present(_) => 0,
                    Begin::Write(mut writer) => {
                        assert_eq!(writer.offset(), 0);
                        writer.write(&content).await.expect("writes");
                        writer.finish().await.expect("finishes");
                        1
                    }
                }
            }));
        }
        let mut written = 0;
        for task in tasks {
            written += task.await.expect("joins");
        }
        assert_eq!(written, 1);
    }

    #[tokio::test]
    async fn the_collector_spares_what_is_used_new_or_being_written() {
        let (_dir, store) = store();
        let used = store.insert(b"used".to_vec()).await.expect("inserts");
        let waste = store.insert(b"waste".to_vec()).await.expect("inserts");
        let begun = Digest::of(b"begun");
        let mut work = writer(&store, begun).await;
        work.write(b"be").await.expect("writes");
        let referenced = HashSet::from([used]);
        let hour = Duration::from_secs(3600);
        let collect = |now| {
            let (store, referenced) = (store.clone(), referenced.clone());
            tokio::task::spawn_blocking(move || store.collect(&referenced, hour, now).expect("collects"))
        };
        assert_eq!(collect(SystemTime::now()).await.expect("joins").count, 0);
        let later = SystemTime::now() + 2 * hour;
        assert_eq!(collect(later).await.expect("joins"), Collected { count: 1, size_bytes: 5 });
        assert_eq!(store.size_bytes(&waste).expect("looks"), None);
        assert_eq!(store.size_bytes(&used).expect("looks"), Some(4));
        let much_later = SystemTime::now() + 2 * PARTIAL_AGE_MAX;
        assert_eq!(collect(much_later).await.expect("joins").count, 0, "the writer still holds it");
        drop(work);
        assert_eq!(collect(much_later).await.expect("joins").count, 1);
    }

    #[tokio::test]
    async fn what_has_no_room_is_refused_with_numbers_and_leaves_nothing() {
        const MIB: u64 = 1 << 20;
        let dir = tempfile::tempdir().expect("temp dir");
        sys::mount::tmpfs(dir.path(), 96 * MIB, 0o700).expect("a small file system");
        let store = BlobStore::open(dir.path()).expect("store opens");
        let left = || fs::read_dir(dir.path().join("blobs/partial")).expect("lists").count();
        let refused = store.begin(Digest::of(b"large"), 40 * MIB).await;
        let before = left();
        // One whose size nobody told is refused as soon as it takes what must stay.
        let endless = store.clone();
        let ingest = move || endless.ingest(io::repeat(7), None, 1 << 40);
        let cut = tokio::task::spawn_blocking(ingest).await.expect("joins");
        let after = left();
        let small = store.insert(vec![7; 1 << 20]).await;
        let several = [Digest::of(b"a"), Digest::of(b"b")].map(|digest| (digest, 20 * MIB));
        let (all, one) = (store.expect_room(&several), store.expect_room(&several[..1]));
        let mut begun = writer(&store, several[0].0).await;
        begun.write(&[7; 1000]).await.expect("buffers");
        begun.flush().await.expect("writes");
        drop(begun);
        store.give_up(several[0].0).await;
        let given_up = left();
        sys::mount::unmount(dir.path()).expect("unmounts");
        let Err(BlobError::NoRoom { source, .. }) = &refused else { panic!("{refused:?}") };
        assert_eq!(source.wanted_bytes, 40 * MIB);
        assert!(source.free_bytes <= 96 * MIB && source.free_bytes_min == room::FREE_BYTES_MIN, "{source}");
        assert!(matches!(&cut, Err(error) if error.code() == Code::NoCapacity), "{cut:?}");
        assert_eq!((before, after), (0, 0), "nothing of them stays");
        small.expect("what fits comes in");
        assert!(all.is_err_and(|error| error.is_full()) && one.is_ok());
        assert_eq!(given_up, 0);
    }

    #[test]
    fn a_flipped_bit_is_seen_when_reading() {
        let (_dir, store) = store();
        let (digest, _) = store.ingest(&b"manifest"[..], None, 100).expect("ingests");
        fs::write(store.path(&digest), b"nanifest").expect("spoils");
        assert!(matches!(store.read(&digest, 100), Err(BlobError::Mismatch { .. })));
    }
}
