//! Images made true: pulls what comes from registries, takes what users send, removes what no record names.

use super::{
    blobs::BlobStore,
    collect::Collector,
    disk::{DiskError, DiskSettings, DiskStore, owner_of},
    layer_tree::LayerLimits,
    layers::LayerStore,
    lent::Lent,
    registry::{Asked, Progress, Registry, RegistryError, Settings, Web},
    stored::{StoredError, StoredImage},
};
use crate::instance::sentence;
use jiff::Timestamp;
use model::{
    error::{Code, Fault},
    id::{ImageId, NodeId},
    image::{Image, ImageContent, ImageSource, ImageState, ImageStatus, OciContent},
    image_manifest::{Healthcheck, Platform},
    image_reference::Reference,
};
use reconcile::Outcome;
use std::{
    collections::HashSet,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use store::{Store, Tx};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

/// How often progress is written to the store.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// A pull that failed in a way that may pass is tried again after this; at once when somebody asks for the image.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// A pull that nothing comes of because of failures is told as failed after this, and goes on.
const TROUBLE_TOLD_AFTER: Duration = Duration::from_millis(1500);

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct RegistrySettings {
    /// Mirrors: registry and URL, in order.
    pub mirrors: Vec<(String, String)>,
    /// Registries spoken to by plain HTTP.
    pub insecure: Vec<String>,
    /// Registries that may be at a private address whoever asks.
    pub private: Vec<String>,
    /// Hosts that images are fetched from by their address, as users ask: `host`, `host:port` or `*.domain`. None
    /// means that no image is.
    pub web_hosts: Vec<String>,
}

/// Root file systems that are unpacked at a time: each may take a processor, and much memory.
const UNPACKERS_MAX: usize = 2;

/// All images of this node.
pub struct Images {
    pub(super) store: Store,
    node: NodeId,
    pub(super) disks: DiskStore,
    pub(super) blobs: BlobStore,
    pub(super) layers: LayerStore,
    pub(super) registry: Registry,
    pub(super) lent: Lent,
    pub(super) web: Web,
    /// Images whose bytes are coming in from users now.
    arriving: Mutex<HashSet<ImageId>>,
    pub(super) collector: Collector,
    /// Places for root file systems that are unpacked by programs of their own.
    pub(super) unpackers: Arc<Semaphore>,
}

impl Images {
    /// Opens the image store below `state`.
    ///
    /// # Errors
    /// When its directories cannot be made or the settings cannot be used.
    pub fn open(store: Store, node: NodeId, state: &Path, settings: RegistrySettings) -> io::Result<Self> {
        let (insecure, private) = (settings.insecure, settings.private);
        let mut wanted = Settings { insecure, private, ..Settings::default() };
        for (registry, url) in settings.mirrors {
            wanted.mirrors.entry(registry).or_default().push(url);
        }
        Ok(Self {
            store,
            node,
            disks: DiskStore::open(state, DiskSettings::default()).map_err(io::Error::other)?,
            blobs: BlobStore::open(state).map_err(io::Error::other)?,
            layers: LayerStore::open(state, LayerLimits::default()).map_err(io::Error::other)?,
            web: Web::new(&wanted, &settings.web_hosts).map_err(io::Error::other)?,
            registry: Registry::new(wanted).map_err(io::Error::other)?,
            lent: Lent::default(),
            arriving: Mutex::default(),
            collector: Collector::new(state),
            unpackers: Arc::new(Semaphore::new(UNPACKERS_MAX)),
        })
    }

    /// Disks of VMs.
    pub fn disks(&self) -> &DiskStore {
        &self.disks
    }

    /// Unpacked layers.
    pub fn layers(&self) -> &LayerStore {
        &self.layers
    }

    /// Images whose bytes are coming in now.
    pub(super) fn arriving(&self) -> MutexGuard<'_, HashSet<ImageId>> {
        // The set is whole at every moment, so a panic elsewhere does not spoil it.
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ids of all images, and of files that no record names.
    pub fn keys(&self) -> Vec<ImageId> {
        let mut ids: Vec<ImageId> = self.store.list::<Image>().iter().map(|i| i.record.meta.id).collect();
        for entry in std::fs::read_dir(self.disks.images_dir()).into_iter().flatten().flatten() {
            if let Some(id) = entry.file_name().to_str().and_then(owner_of) {
                ids.push(id);
            }
        }
        ids.sort();
        ids.dedup();
        ids
    }

    /// Brings one image nearer to its wish.
    ///
    /// # Errors
    /// The store's, and files that cannot be removed.
    pub async fn run(&self, id: ImageId) -> Result<Outcome, ImageError> {
        let Some(stored) = self.store.get::<Image>(&id.to_string()) else {
            if !self.store.is_unreadable::<Image>(&id.to_string()) {
                self.lent.forget(id);
                self.disks.delete_image(id).await?;
                self.collector.wake();
            }
            return Ok(Outcome::Done);
        };
        let image = &stored.record;
        let reference = match &image.source {
            ImageSource::Registry { reference } => reference,
            ImageSource::Upload => return self.run_upload(id).await,
            ImageSource::Content { digest } => return self.run_content(image, digest).await,
            ImageSource::Staged { .. } | ImageSource::Web { .. } => return self.run_import(image).await,
            ImageSource::Volume { ground, size_gib, format, .. } => {
                return self.run_of_volume(id, ground, *size_gib, *format).await;
            }
        };
        let status = self.store.get::<ImageStatus>(&id.to_string());
        let status = status.as_ref().map(|s| &s.record);
        let here = status.and_then(ImageStatus::content).filter(|content| self.is_whole(content)).cloned();
        if let Some(status) = status.filter(|s| s.asked >= image.asked) {
            match &status.state {
                ImageState::Ready(_) if here.is_some() => return Ok(Outcome::Done),
                ImageState::Failed(fault) => {
                    if let Some(rest) = rest_after(status, fault) {
                        return Ok(rest);
                    }
                }
                _ => {}
            }
        }
        let Some(pulled) = self.pull_while_wanted(image, reference, here.as_ref()).await? else {
            return Ok(Outcome::Again);
        };
        if pulled.as_ref().err().is_none_or(|fault| !fault.code.is_passing()) {
            self.lent.forget(id);
        }
        match (pulled, here) {
            (Ok(content), _) => self.write_answer(image, ImageState::Ready(content), None).await?,
            // What is here is as good as before.
            (Err(fault), Some(here)) => {
                self.write_answer(image, ImageState::Ready(here), Some(fault)).await?;
            }
            (Err(fault), None) => {
                tracing::warn!(image = %image.meta.name, fault.message, "image could not be pulled");
                let state = ImageState::Failed(fault);
                let again = again_after(&state);
                self.write_answer(image, state, None).await?;
                return Ok(again);
            }
        }
        Ok(Outcome::Done)
    }

    /// Users send these. A sender that went away with its daemon left a word of progress that nobody goes on with.
    async fn run_upload(&self, id: ImageId) -> Result<Outcome, ImageError> {
        let status = self.store.get::<ImageStatus>(&id.to_string());
        let comes = status.is_some_and(|s| matches!(s.record.state, ImageState::Fetching { .. }));
        if comes && !self.arriving().contains(&id) {
            self.write(id, ImageState::Waiting).await?;
        }
        Ok(Outcome::Done)
    }

    /// Whether every layer of a pulled image is still unpacked here.
    pub(super) fn is_whole(&self, content: &ImageContent) -> bool {
        let Some(oci) = &content.oci else { return true };
        oci.diff_ids.iter().all(|id| id.parse().is_ok_and(|digest| self.layers.contains(&digest)))
    }

    /// Pulls, and tells how it goes. `None` when the wish changed meanwhile: it was asked anew, or is gone.
    async fn pull_while_wanted(
        &self,
        image: &Image,
        reference: &str,
        here: Option<&ImageContent>,
    ) -> Result<Option<Result<ImageContent, Fault>>, ImageError> {
        let (sender, progress) = watch::channel(Progress::default());
        let pull = self.pull(image, reference, here, &sender);
        tokio::pin!(pull);
        let mut troubled_since = None;
        loop {
            tokio::select! {
                done = &mut pull => return Ok(Some(done)),
                () = tokio::time::sleep(PROGRESS_EVERY) => {}
            }
            let now = self.store.get::<Image>(&image.meta.id.to_string());
            if now.is_none_or(|now| now.record.asked != image.asked) {
                return Ok(None);
            }
            let seen = progress.borrow().clone();
            let since = seen.trouble.as_ref().map(|_| *troubled_since.get_or_insert_with(Instant::now));
            troubled_since = since;
            // One that is here is used as it is until there is a newer one.
            if here.is_none()
                && let Err(error) = self
                    .tell(image, reference, &seen, since.is_some_and(|at| at.elapsed() >= TROUBLE_TOLD_AFTER))
                    .await
            {
                tracing::debug!(%error, "progress could not be written");
            }
        }
    }

    /// Writes how far a pull is. One that has been in trouble for a while is told as failed, though it goes on.
    async fn tell(
        &self,
        image: &Image,
        reference: &str,
        seen: &Progress,
        troubled: bool,
    ) -> Result<(), store::Error> {
        let before = self.store.get::<ImageStatus>(&image.meta.id.to_string());
        let before = before.as_ref().map(|s| image.state(Some(&s.record)));
        match &seen.trouble {
            Some(trouble) if troubled => {
                let message = format!("{reference} could not be pulled: {}; trying again", trouble.message);
                if matches!(before, Some(ImageState::Failed(fault)) if fault.message == message) {
                    return Ok(());
                }
                let fault = fault(Code::Unavailable, message, trouble.hint.clone());
                self.write_answer(image, ImageState::Failed(fault), None).await
            }
            // A failure stays told until there is something better to tell.
            _ if seen.layers.is_empty() && matches!(before, Some(ImageState::Failed(_))) => Ok(()),
            _ => {
                let (done_bytes, total_bytes) = seen.bytes();
                self.write_answer(image, ImageState::Fetching { done_bytes, total_bytes }, None).await
            }
        }
    }

    async fn pull(
        &self,
        image: &Image,
        reference: &str,
        here: Option<&ImageContent>,
        progress: &watch::Sender<Progress>,
    ) -> Result<ImageContent, Fault> {
        let reference: Reference =
            reference.parse().map_err(|e: model::image_reference::ReferenceError| {
                fault(Code::Invalid, e.to_string(), e.hint())
            })?;
        let platform = Platform::linux_on(std::env::consts::ARCH);
        // Nothing that comes in is collected before a record names it.
        let _hold = self.collector.hold().await;
        let known = here.and_then(|content| content.digest.parse().ok());
        let login = self.lent.get(image.meta.id);
        let registry = self.registry.reaching(image.reach);
        // What opens a registry for one user must not open it for the next one.
        let registry = if login.is_some() { registry.for_one() } else { registry };
        let failed = |e: RegistryError| {
            let done = match &e {
                RegistryError::Image(StoredError::Layer(_)) => "unpacked",
                _ => "pulled",
            };
            fault(e.code(), format!("{reference} could not be {done}: {}", sentence(&e)), e.hint())
        };
        let holder = self.holder(image.meta.project).await.map_err(|e| failed(e.into()))?;
        let asked = Asked {
            reference: &reference,
            credentials: login.as_ref(),
            host_platform: &platform,
            known,
            holder: &holder,
            layers: Some(&self.layers),
        };
        let pulled = registry.pull(&self.blobs, asked, progress).await.map_err(failed)?;
        let image = pulled.image;
        // What came is unpacked already; what was here before may not be.
        image.unpack(&self.blobs, &self.layers, |_| {}).await.map_err(|e| {
            fault(e.code(), format!("{reference} could not be unpacked: {}", sentence(&e)), e.hint())
        })?;
        Ok(self.describe(&image))
    }

    pub(super) fn describe(&self, image: &StoredImage) -> ImageContent {
        let run = image.config.config.clone().unwrap_or_default();
        let unpacked =
            image.layers.iter().filter_map(|l| self.layers.facts(&l.diff_id)).map(|f| f.size_bytes).sum();
        ImageContent {
            digest: image.manifest.to_string(),
            size_bytes: image.size_bytes(),
            virtual_bytes: unpacked,
            oci: Some(OciContent {
                config_digest: image.id.to_string(),
                diff_ids: image.diff_ids().map(|d| d.to_string()).collect(),
                entrypoint: run.entrypoint,
                cmd: run.cmd,
                env: run.env,
                working_dir: run.working_dir,
                user: run.user,
                exposed_ports: run.exposed_ports.into_keys().collect(),
                volumes: run.volumes.into_keys().collect(),
                stop_signal: run.stop_signal,
                labels: run.labels,
                architecture: image.config.architecture.clone(),
                os: image.config.os.clone(),
                created: image.config.created.clone().unwrap_or_default(),
                health: run.healthcheck.as_ref().map(Healthcheck::spec),
            }),
            ..ImageContent::default()
        }
    }

    /// Writes how far an upload is.
    pub(super) async fn write(&self, id: ImageId, state: ImageState) -> Result<(), store::Error> {
        self.put(ImageStatus { id, node: self.node, state, asked: 0, stale: None, at: Timestamp::now() })
            .await
    }

    /// Writes how far the pull is that was asked for.
    pub(super) async fn write_answer(
        &self,
        image: &Image,
        state: ImageState,
        stale: Option<Fault>,
    ) -> Result<(), store::Error> {
        let (id, asked) = (image.meta.id, image.asked);
        self.put(ImageStatus { id, node: self.node, state, asked, stale, at: Timestamp::now() }).await
    }

    async fn put(&self, status: ImageStatus) -> Result<(), store::Error> {
        let mut tx = Tx::new();
        tx.expect_exists::<Image>(&status.id.to_string());
        tx.put(&status);
        match self.store.commit(tx).await {
            Ok(_) | Err(store::Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn fault(code: Code, message: String, hint: String) -> Fault {
    Fault { code, message, hint, since: Timestamp::now() }
}

/// How long an image that failed is left alone: for good, or until a failure that may pass is old enough. `None` when it is
/// to be tried again.
pub(super) fn rest_after(status: &ImageStatus, fault: &Fault) -> Option<Outcome> {
    if !fault.code.is_passing() {
        return Some(Outcome::Done);
    }
    let left = RETRY_AFTER.saturating_sub(age(status.at));
    (!left.is_zero()).then_some(Outcome::After(left))
}

/// When an image that came to this is looked at again by itself.
pub(super) fn again_after(state: &ImageState) -> Outcome {
    match state {
        ImageState::Failed(fault) if fault.code.is_passing() => Outcome::After(RETRY_AFTER),
        _ => Outcome::Done,
    }
}

fn age(at: Timestamp) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(at)).unwrap_or_default()
}

pub(super) fn unwritten(error: store::Error) -> Fault {
    Fault {
        code: Code::Unavailable,
        message: format!("the image's state could not be written: {error}"),
        hint: String::new(),
        since: Timestamp::now(),
    }
}

/// Why an image is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The store.
    #[error("the image's state could not be written")]
    Store(#[from] store::Error),
    /// The files of a deleted image stay.
    #[error("the image's files could not be removed")]
    Remove(#[from] DiskError),
}
