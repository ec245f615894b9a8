//! What no image needs any more: blobs and layers that no record and no pod on this host names.
//!
//! ```text
//!  needed: every manifest, config and archive of an image that is ready, every layer of it,
//!          and every layer that a pod on this host was started from, whatever became of its image
//!  fresh:  whatever was written or asked for a short while ago
//!  held:   while an image comes in, nothing younger than a day goes: its first blobs may be old before its last one is here
//! ```
//!
//! What cannot be told is kept: a pod whose papers cannot be read stops the collection of layers, not that of blobs. Papers
//! of which a crash of the host left nothing are none: nothing of that pod runs, and its next start writes them anew.

use super::{
    blobs::BlobError, cancel::run_blocking, layers::LayerError, reconcile::Images, stored::StoredImage,
};
use crate::container::{bundle::Pod, protocol::POD};
use model::{
    image::{Image, ImageContent, ImageSource, ImageStatus},
    image_digest::Digest,
    image_manifest::Platform,
};
use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use store::Record;
use tokio::sync::{Notify, OwnedRwLockReadGuard, RwLock};

/// How often it is done, beside after every deletion of an image.
pub const COLLECT_EVERY: Duration = Duration::from_secs(3600);
/// What was written or asked for so lately stays.
pub const GRACE: Duration = Duration::from_secs(600);
/// The same while an image comes in.
pub const GRACE_WHILE_ARRIVING: Duration = Duration::from_secs(24 * 3600);

/// Why nothing was collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The blobs.
    #[error("blobs that nobody needs could not be removed")]
    Blobs(#[from] BlobError),
    /// The layers.
    #[error("layers that nobody needs could not be removed")]
    Layers(#[from] LayerError),
    /// What pods need.
    #[error("it cannot be told which layers the pod in {} needs", path.display())]
    Pod {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What images need.
    #[error("records of images cannot be read, so it cannot be told what they need")]
    Unreadable,
    /// holm stops.
    #[error("the work was cancelled")]
    Cancelled,
}

/// What went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs.
    pub blobs: u64,
    /// Bytes of those blobs.
    pub blob_bytes: u64,
    /// Layers.
    pub layers: u64,
}

/// When to collect, and when not.
#[derive(Debug)]
pub(super) struct Collector {
    pods: PathBuf,
    arrivals: Arc<RwLock<()>>,
    wake: Notify,
}

impl Collector {
    pub fn new(state: &Path) -> Self {
        Self { pods: state.join("pods"), arrivals: Arc::default(), wake: Notify::new() }
    }

    /// An image comes in: what it brings stays, though no record names it yet.
    pub async fn hold(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.arrivals).read_owned().await
    }

    /// An image went.
    pub fn wake(&self) {
        self.wake.notify_one();
    }
}

impl Images {
    /// Collects hourly and after deletions, until it is dropped.
    pub async fn collect_always(&self) {
        loop {
            match self.collect(GRACE).await {
                Ok(swept) if swept == Swept::default() => {}
                Ok(swept) => {
                    let Swept { blobs, blob_bytes, layers } = swept;
                    tracing::info!(blobs, blob_bytes, layers, "content that no image needs was removed");
                }
                Err(error) => tracing::warn!(
                    error = crate::instance::sentence(&error),
                    "content stays that no image needs"
                ),
            }
            let _ = tokio::time::timeout(COLLECT_EVERY, self.collector.wake.notified()).await;
        }
    }

    /// Removes blobs and layers that nothing needs and nobody asked for within `grace`.
    ///
    /// # Errors
    /// What cannot be read or removed; what is needed is never touched.
    pub async fn collect(&self, grace: Duration) -> Result<Swept, CollectError> {
        // As long as this is held, no image begins to come in.
        let quiet = Arc::clone(&self.collector.arrivals).try_write_owned();
        let grace = if quiet.is_ok() { grace } else { grace.max(GRACE_WHILE_ARRIVING) };
        let is_image = |table: &str| table == ImageStatus::TABLE || table == Image::TABLE;
        if self.store.mirror().corrupt().iter().any(|record| is_image(record.table)) {
            return Err(CollectError::Unreadable);
        }
        let contents: Vec<ImageContent> = self
            .store
            .list::<ImageStatus>()
            .iter()
            .filter_map(|status| status.record.content().cloned())
            .collect();
        // Content that has a name, and whose status is not written yet.
        let named: Vec<Digest> = self
            .store
            .list::<Image>()
            .iter()
            .filter_map(|image| match &image.record.source {
                ImageSource::Content { digest } => digest.parse().ok(),
                _ => None,
            })
            .collect();
        let (blobs, layers, pods) = (self.blobs.clone(), self.layers.clone(), self.collector.pods.clone());
        let done = run_blocking(move |_| {
            let _quiet = quiet;
            let now = SystemTime::now();
            let platform = Platform::linux_on(std::env::consts::ARCH);
            let mut needed_blobs = HashSet::new();
            // Blobs are not a pod's: what pods need is looked at before they go and told after that.
            let of_pods = layers_of_pods(&pods);
            let mut needed_layers = HashSet::new();
            for content in &contents {
                let Some(oci) = &content.oci else { continue };
                needed_layers.extend(oci.diff_ids.iter().filter_map(|id| id.parse::<Digest>().ok()));
                needed_blobs.extend(
                    [&content.digest, &oci.config_digest].iter().filter_map(|d| d.parse::<Digest>().ok()),
                );
                // An image that lacks a blob runs all the same; what is left of it is of no use to anybody.
                if let Ok(manifest) = content.digest.parse()
                    && let Ok(stored) = StoredImage::load(&blobs, manifest, &platform)
                {
                    needed_blobs.extend(stored.blobs());
                }
            }
            for digest in named {
                needed_blobs.insert(digest);
                if let Ok(stored) = StoredImage::load(&blobs, digest, &platform) {
                    needed_blobs.extend(stored.blobs());
                    needed_layers.extend(stored.diff_ids());
                }
            }
            let went = blobs.collect(&needed_blobs, grace, now)?;
            needed_layers.extend(of_pods?);
            let layers = layers.collect(&needed_layers, grace, now)?;
            Ok(Swept { blobs: went.count, blob_bytes: went.size_bytes, layers })
        });
        done.await.unwrap_or(Err(CollectError::Cancelled))
    }
}

/// Layers under the root file systems of the pods on this host, running or not.
fn layers_of_pods(pods: &Path) -> Result<HashSet<Digest>, CollectError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| CollectError::Pod { path, source }
    };
    let entries = match fs::read_dir(pods) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
        Err(error) => return Err(failed(pods)(error)),
    };
    let mut layers = HashSet::new();
    for entry in entries {
        let directory = entry.map_err(failed(pods))?.path();
        let text = match fs::read(directory.join(POD)) {
            Ok(text) => text,
            // It was never started, or is going.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                continue;
            }
            Err(error) => return Err(failed(&directory)(error)),
        };
        if text.iter().all(|byte| *byte == 0) {
            tracing::warn!(pod = %directory.display(), "a crash of the host left nothing of what the pod stood on");
            continue;
        }
        let pod: Pod = serde_json::from_slice(&text).map_err(|error| failed(&directory)(error.into()))?;
        let names =
            pod.containers.iter().flat_map(|container| &container.layers).filter_map(|path| path.file_name());
        layers.extend(names.filter_map(|name| Digest::from_hex(&name.to_string_lossy()).ok()));
    }
    Ok(layers)
}
