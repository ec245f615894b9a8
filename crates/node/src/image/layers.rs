//! Unpacked layers, one directory per diff id, ready to be stacked by overlayfs.
//!
//! ```text
//! <state>/layers/<hex>/        the files of one layer, owners as in the image
//! <state>/layers/<hex>.json    what unpacking it found; its time is when the layer was last asked for
//! <state>/layers/tmp-<uuid>/   being unpacked or removed; swept at start
//! ```
//!
//! A layer gets its name only when its whole archive was read, its diff id was right and its files were flushed.
//! The directory is closed to all but root, because images bring set-id programs that no user of the host may run.

use super::{
    cancel::{StopFlag, Stopped, run_blocking},
    compression::{CompressionError, decompress},
    layer_tree::{EntryError, LayerFacts, LayerLimits, LayerTree},
    tar::{TarError, TarReader},
};
use model::image_digest::Digest;
use sha2::{Digest as _, Sha256};
use std::{
    collections::{HashMap, HashSet},
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::sync::Mutex as AsyncMutex;

/// Unpacked bytes between two looks at the free space.
const FREE_SPACE_CHECK_BYTES: u64 = 64 << 20;
/// Archives that are remembered of one layer; others are read again.
const ARCHIVES_MAX: usize = 64;

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The store's own files failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The archive is damaged or past a limit.
    #[error("layer {diff_id} cannot be unpacked")]
    Archive {
        /// The layer.
        diff_id: Digest,
        /// Why not.
        source: TarError,
    },
    /// One entry is hostile or cannot be written.
    #[error("layer {diff_id} cannot be unpacked at '{entry}'")]
    Entry {
        /// The layer.
        diff_id: Digest,
        /// Name in the archive, made printable and cut.
        entry: String,
        /// Why not.
        source: EntryError,
    },
    /// Neither tar nor compressed by gzip or zstd.
    #[error("layer {diff_id} is compressed with {format}, only gzip and zstd are supported")]
    Compression {
        /// The layer.
        diff_id: Digest,
        /// What it looks like.
        format: &'static str,
    },
    /// The archive unpacks to other bytes than the image's config says.
    #[error("layer {expected} unpacks to {actual}: the image is broken or was tampered with")]
    DiffId {
        /// As in the config.
        expected: Digest,
        /// What came out.
        actual: Digest,
    },
    /// A limit was passed.
    #[error("layer {diff_id} has {what} past the limit of {limit}")]
    Limit {
        /// The layer.
        diff_id: Digest,
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The disk is nearly full.
    #[error(
        "there is no room to unpack layer {diff_id}: {free_bytes} bytes are free, {free_bytes_min} must stay"
    )]
    NoRoom {
        /// The layer.
        diff_id: Digest,
        /// Free now.
        free_bytes: u64,
        /// Reserve.
        free_bytes_min: u64,
    },
    /// The caller went away.
    #[error("unpacking was cancelled")]
    Cancelled,
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayerError {
    let path = path.to_path_buf();
    move |source| LayerError::Io { operation, path, source }
}

/// What is written beside a layer.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Told {
    #[serde(flatten)]
    facts: LayerFacts,
    /// Archives that are known to unpack to it, oldest first.
    #[serde(default)]
    archives: Vec<Digest>,
}

/// The store of unpacked layers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LayerStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    limits: LayerLimits,
    writers: Mutex<HashMap<Digest, Weak<AsyncMutex<()>>>>,
}

impl LayerStore {
    /// Opens (and makes) the store and sweeps what a crash left. Blocking.
    pub fn open(state: &Path, limits: LayerLimits) -> Result<Self, LayerError> {
        let dir = state.join("layers");
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(at("create", &dir))?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).map_err(at("close", &dir))?;
        let store = Self { inner: Arc::new(Inner { dir, limits, writers: Mutex::default() }) };
        for entry in fs::read_dir(&store.inner.dir).map_err(at("list", &store.inner.dir))? {
            let path = entry.map_err(at("list", &store.inner.dir))?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tmp-")) {
                fs::remove_dir_all(&path).map_err(at("remove", &path))?;
            }
        }
        Ok(store)
    }

    /// Where the layer is, or will be.
    pub fn path(&self, diff_id: &Digest) -> PathBuf {
        self.inner.dir.join(diff_id.hex())
    }

    /// Whether the layer is here, whole.
    pub fn contains(&self, diff_id: &Digest) -> bool {
        self.path(diff_id).is_dir()
    }

    /// What unpacking the layer found.
    pub fn facts(&self, diff_id: &Digest) -> Option<LayerFacts> {
        self.told(diff_id).map(|told| told.facts)
    }

    fn told(&self, diff_id: &Digest) -> Option<Told> {
        serde_json::from_slice(&fs::read(self.facts_path(diff_id)).ok()?).ok()
    }

    /// Unpacks a layer from its archive (plain, gzip or zstd, told by its first bytes) unless it is here already.
    /// `blob` is the archive's own digest, checked before. A layer that is here is given for an archive that unpacks
    /// to it, whatever the image says of it, and counts as fresh for the collector from now on. Dropping the future
    /// stops the work.
    pub async fn unpack(
        &self,
        archive: File,
        blob: Digest,
        diff_id: Digest,
    ) -> Result<LayerFacts, LayerError> {
        let lease = self.lock(diff_id).lock_owned().await;
        let store = self.clone();
        run_blocking(move |flag| {
            // The lease goes along: the digest is free only when the thread is done.
            let _lease = lease;
            store.unpack_locked(archive, blob, diff_id, &flag)
        })
        .await
        .unwrap_or(Err(LayerError::Cancelled))
    }

    /// Removes layers that are not `referenced` and were not asked for within `grace`; gives their number. Blocking.
    pub fn collect(
        &self,
        referenced: &HashSet<Digest>,
        grace: Duration,
        now: SystemTime,
    ) -> Result<u64, LayerError> {
        let mut count = 0;
        for entry in fs::read_dir(&self.inner.dir).map_err(at("list", &self.inner.dir))? {
            let entry = entry.map_err(at("list", &self.inner.dir))?;
            let Ok(diff_id) = Digest::from_hex(&entry.file_name().to_string_lossy()) else {
                continue;
            };
            if referenced.contains(&diff_id) {
                continue;
            }
            let Ok(_lease) = self.lock(diff_id).try_lock_owned() else {
                continue;
            };
            let facts = self.facts_path(&diff_id);
            let Ok(modified) = fs::metadata(&facts).and_then(|metadata| metadata.modified()) else {
                // Nobody knows how old it is: it counts from now on.
                self.write_facts(&diff_id, &Told::default())?;
                continue;
            };
            if now.duration_since(modified).is_ok_and(|age| age >= grace) {
                let doomed = self.inner.dir.join(format!("tmp-{}", uuid::Uuid::new_v4()));
                fs::rename(entry.path(), &doomed).map_err(at("rename", &entry.path()))?;
                fs::remove_dir_all(&doomed).map_err(at("remove", &doomed))?;
                fs::remove_file(&facts).map_err(at("remove", &facts))?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn unpack_locked(
        &self,
        archive: File,
        blob: Digest,
        diff_id: Digest,
        stopped: &StopFlag,
    ) -> Result<LayerFacts, LayerError> {
        let path = self.path(&diff_id);
        if path.is_dir() {
            let mut told = self.told(&diff_id).unwrap_or_default();
            // A plain archive is what its layer's id is made of.
            if blob != diff_id && !told.archives.contains(&blob) {
                check_archive(archive, diff_id, self.inner.limits, stopped)?;
                told.archives.push(blob);
                let more = told.archives.len().saturating_sub(ARCHIVES_MAX);
                told.archives.drain(..more);
            }
            self.write_facts(&diff_id, &told)?;
            return Ok(told.facts);
        }
        let staged = self.inner.dir.join(format!("tmp-{}", uuid::Uuid::new_v4()));
        DirBuilder::new().mode(0o755).create(&staged).map_err(at("create", &staged))?;
        let result = self.fill(&staged, archive, diff_id, stopped).and_then(|facts| {
            let dir = File::open(&staged).map_err(at("open", &staged))?;
            rustix::fs::syncfs(&dir).map_err(|errno| at("flush", &staged)(errno.into()))?;
            self.write_facts(&diff_id, &Told { facts, archives: vec![blob] })?;
            fs::rename(&staged, &path).map_err(at("rename", &staged))?;
            let parent = &self.inner.dir;
            File::open(parent).and_then(|dir| dir.sync_all()).map_err(at("flush", parent))?;
            Ok(facts)
        });
        if result.is_err() {
            // Best effort: what stays is swept at the next start.
            let _ = fs::remove_dir_all(&staged);
        }
        result
    }

    fn fill(
        &self,
        staged: &Path,
        archive: File,
        diff_id: Digest,
        stopped: &StopFlag,
    ) -> Result<LayerFacts, LayerError> {
        fs::set_permissions(staged, fs::Permissions::from_mode(0o755)).map_err(at("open up", staged))?;
        let tree = LayerTree::new(staged).map_err(|source| entry_error(diff_id, b".", source))?;
        unpack_archive(archive, diff_id, tree, self.inner.limits, stopped)
    }

    fn facts_path(&self, diff_id: &Digest) -> PathBuf {
        self.inner.dir.join(format!("{}.json", diff_id.hex()))
    }

    fn write_facts(&self, diff_id: &Digest, told: &Told) -> Result<(), LayerError> {
        let path = self.facts_path(diff_id);
        let text = serde_json::to_vec(told).map_err(|error| at("write", &path)(error.into()))?;
        fs::write(&path, text).map_err(at("write", &path))
    }

    fn lock(&self, diff_id: Digest) -> Arc<AsyncMutex<()>> {
        // The map is whole at every moment, so a panic elsewhere does not spoil it.
        let mut writers = self.inner.writers.lock().unwrap_or_else(PoisonError::into_inner);
        writers.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = writers.get(&diff_id).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(AsyncMutex::new(()));
        writers.insert(diff_id, Arc::downgrade(&lock));
        lock
    }
}

fn entry_error(diff_id: Digest, name: &[u8], source: EntryError) -> LayerError {
    let entry = name.escape_ascii().to_string().chars().take(200).collect();
    LayerError::Entry { diff_id, entry, source }
}

/// Reads an archive for its diff id alone.
fn check_archive(
    archive: File,
    diff_id: Digest,
    limits: LayerLimits,
    stopped: &StopFlag,
) -> Result<(), LayerError> {
    let consumed = AtomicU64::new(0);
    let watched = watch_archive(archive, &consumed, diff_id, limits, stopped)?;
    check_diff_id(watched, diff_id, limits)
}

/// Reads what is left, and compares.
fn check_diff_id(mut watched: Watched<'_>, diff_id: Digest, limits: LayerLimits) -> Result<(), LayerError> {
    io::copy(&mut watched, &mut io::sink())
        .map_err(|error| archive_error(diff_id, TarError::Io(error), limits))?;
    let actual = Digest::from_bytes(watched.hasher.finalize().into());
    if actual != diff_id {
        return Err(LayerError::DiffId { expected: diff_id, actual });
    }
    Ok(())
}

/// Compressed bytes → plain bytes, with their number, hash and limits.
///
/// ```text
/// file → counts what was read → gzip | zstd | plain → hashes, limits, asks whether to stop → tar
/// ```
fn watch_archive<'a>(
    archive: File,
    consumed: &'a AtomicU64,
    diff_id: Digest,
    limits: LayerLimits,
    stopped: &'a StopFlag,
) -> Result<Watched<'a>, LayerError> {
    let plain = decompress(Counted { input: archive, consumed }).map_err(|error| match error {
        CompressionError::Io(error) => LayerError::Archive { diff_id, source: TarError::Io(error) },
        CompressionError::Unsupported(format) => LayerError::Compression { diff_id, format },
        // Layers are undone without programs.
        CompressionError::Missing(missing) => {
            LayerError::Archive { diff_id, source: TarError::Io(io::Error::other(missing)) }
        }
    })?;
    Ok(Watched { input: plain, hasher: Sha256::new(), produced: 0, consumed, limits, stopped })
}

fn unpack_archive(
    archive: File,
    diff_id: Digest,
    mut tree: LayerTree,
    limits: LayerLimits,
    stopped: &StopFlag,
) -> Result<LayerFacts, LayerError> {
    let consumed = AtomicU64::new(0);
    let mut reader = TarReader::new(watch_archive(archive, &consumed, diff_id, limits, stopped)?);
    let mut entries = 0;
    let mut next_check = 0;
    let fail = |error| archive_error(diff_id, error, limits);
    while let Some(entry) = reader.next_entry().map_err(fail)? {
        entries += 1;
        if entries > limits.entries_max {
            return Err(LayerError::Limit { diff_id, what: "entries", limit: limits.entries_max });
        }
        let ahead = tree.facts().size_bytes.saturating_add(entry.size_bytes);
        if ahead >= next_check {
            check_room(&tree, diff_id, limits, entry.size_bytes)?;
            next_check = ahead + FREE_SPACE_CHECK_BYTES;
        }
        tree.write(&entry, &mut reader).map_err(|source| match source {
            EntryError::Io { operation: "read the content of", source } => fail(TarError::Io(source)),
            source => entry_error(diff_id, &entry.path, source),
        })?;
    }
    // What follows the archive's end is part of what the diff id names.
    check_diff_id(reader.into_inner(), diff_id, limits)?;
    tree.finish().map_err(|source| entry_error(diff_id, b".", source))
}

fn check_room(
    tree: &LayerTree,
    diff_id: Digest,
    limits: LayerLimits,
    ahead_bytes: u64,
) -> Result<(), LayerError> {
    let free_bytes = tree.free_bytes().unwrap_or(u64::MAX);
    // A sparse file may claim more than it takes, so only the next stretch is asked for.
    if free_bytes < limits.free_bytes_min.saturating_add(ahead_bytes.min(FREE_SPACE_CHECK_BYTES)) {
        return Err(LayerError::NoRoom { diff_id, free_bytes, free_bytes_min: limits.free_bytes_min });
    }
    Ok(())
}

/// Marks that travel through the decoders inside an `io::Error`.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Stop {
    #[error("it unpacks to too many bytes")]
    TooLarge,
    #[error("it unpacks to far more bytes than it has")]
    Bomb,
}

fn archive_error(diff_id: Digest, error: TarError, limits: LayerLimits) -> LayerError {
    if let TarError::Io(io) = &error {
        if io.get_ref().is_some_and(|inner| inner.is::<Stopped>()) {
            return LayerError::Cancelled;
        }
        let stop = io.get_ref().and_then(|inner| inner.downcast_ref::<Stop>());
        match stop {
            Some(Stop::TooLarge) => {
                return LayerError::Limit {
                    diff_id,
                    what: "unpacked bytes",
                    limit: limits.unpacked_bytes_max,
                };
            }
            Some(Stop::Bomb) => {
                let what = "unpacked bytes per byte of the archive";
                return LayerError::Limit { diff_id, what, limit: limits.expansion_ratio_max };
            }
            None => {}
        }
    }
    LayerError::Archive { diff_id, source: error }
}

struct Watched<'a> {
    input: Box<dyn Read + 'a>,
    hasher: Sha256,
    produced: u64,
    consumed: &'a AtomicU64,
    limits: LayerLimits,
    stopped: &'a StopFlag,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stopped.check()?;
        let count = self.input.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.produced += count as u64;
        if self.produced > self.limits.unpacked_bytes_max {
            return Err(io::Error::other(Stop::TooLarge));
        }
        let consumed = self.consumed.load(Ordering::Relaxed);
        let fair = consumed.saturating_mul(self.limits.expansion_ratio_max);
        if self.produced > self.limits.expansion_free_bytes.saturating_add(fair) {
            return Err(io::Error::other(Stop::Bomb));
        }
        Ok(count)
    }
}

struct Counted<'a> {
    input: File,
    consumed: &'a AtomicU64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.consumed.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
