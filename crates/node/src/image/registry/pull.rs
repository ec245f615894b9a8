//! Pulling an image: from a name to content in the store, told step by step.

use super::{
    Credentials, Registry, RegistryError,
    fetch::{BlobEvent, Wanted},
    request::Place,
};
use crate::image::{
    blobs::BlobStore,
    holder::Holder,
    layers::LayerStore,
    stored::{StoredError, StoredImage, UNPACKS_MAX},
};
use futures::{StreamExt, TryStreamExt, channel::mpsc, stream};
use model::{
    image_digest::Digest,
    image_manifest::{self as documents, CONFIG_BYTES_MAX, Document, MANIFEST_BYTES_MAX, Manifest, Platform},
    image_reference::Reference,
};
use std::collections::{HashMap, HashSet};
use tokio::sync::watch;

/// An index may point to an index; this deep and no deeper.
const INDEX_DEPTH_MAX: u32 = 3;
/// Bytes between two tellings of a layer's progress.
const TELL_BYTES: u64 = 256 << 10;

/// Where a pull is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Asking what the name stands for.
    #[default]
    Resolving,
    /// Layers come.
    Downloading,
    /// All content is here and checked.
    Done,
}

/// Where a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerState {
    /// Others go first.
    Waiting,
    /// It comes.
    Downloading,
    /// It broke and will go on.
    Retrying,
    /// It was here before.
    AlreadyExists,
    /// It is here and checked.
    Done,
}

/// One layer of a pull.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LayerProgress {
    /// The archive.
    pub digest: Digest,
    /// Its bytes.
    pub size_bytes: u64,
    /// Bytes that are here.
    pub done_bytes: u64,
    /// Where it is.
    pub state: LayerState,
}

/// What stands in a pull's way while it goes on: a mirror that failed and is gone round, a try that will be repeated.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Trouble {
    /// What failed, in one line.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// A whole pull.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// Where it is.
    pub phase: Phase,
    /// The host that content comes from.
    pub host: String,
    /// Layers, lowest first; empty until the manifest is here.
    pub layers: Vec<LayerProgress>,
    /// What stands in the way; gone as soon as content comes again.
    pub trouble: Option<Trouble>,
}

impl Progress {
    /// Bytes that are here, and all bytes.
    pub fn bytes(&self) -> (u64, u64) {
        let sum = |of: fn(&LayerProgress) -> u64| self.layers.iter().map(of).sum();
        (sum(|layer| layer.done_bytes), sum(|layer| layer.size_bytes))
    }
}

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// What was asked for.
    pub reference: Reference,
    /// What the name stands for now: the digest of an index or a manifest.
    pub digest: Digest,
    /// The image for this machine.
    pub image: StoredImage,
    /// The name stood for the same content before, and all of it was here.
    pub up_to_date: bool,
    /// The host that it came from.
    pub host: String,
}

/// What is to be pulled, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The name.
    pub reference: &'a Reference,
    /// What opens the registry.
    pub credentials: Option<&'a Credentials>,
    /// The machine that it is for.
    pub host_platform: &'a Platform,
    /// What the name stood for at the last pull.
    pub known: Option<Digest>,
    /// Whose image it becomes: content that is here for others comes once more.
    pub holder: &'a Holder,
    /// Where layers are unpacked as soon as they are here, while others still come.
    pub layers: Option<&'a LayerStore>,
}

impl Registry {
    /// Pulls an image into the store. Can be dropped at any time: what came is kept, and the next pull goes on with it.
    pub async fn pull(
        &self,
        blobs: &BlobStore,
        asked: Asked<'_>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Pulled, RegistryError> {
        let reference = asked.reference;
        if let Some(pulled) = load_known(blobs, &asked, reference.digest()) {
            progress.send_modify(|progress| progress.phase = Phase::Done);
            return Ok(pulled);
        }
        let mut errors = Vec::new();
        for place in self.places(reference, asked.credentials)? {
            let trouble = trouble(&errors, None);
            progress.send_replace(Progress { host: place.host(), trouble, ..Progress::default() });
            let pull = Pull { registry: self, place: &place, blobs, asked, progress, passed: &errors };
            match pull.run().await {
                Ok(pulled) => {
                    progress.send_modify(|progress| progress.phase = Phase::Done);
                    return Ok(pulled);
                }
                // Our own store is full or broken, or the image is not for us: another host would not help.
                Err(
                    error @ (RegistryError::Blob(_) | RegistryError::Image(_) | RegistryError::Document(_)),
                ) => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::warn!(host = place.host(), %error, %reference, "an image could not be pulled from here");
                    errors.push(error);
                }
            }
        }
        Err(if errors.len() == 1 { errors.remove(0) } else { RegistryError::AllFailed(errors) })
    }
}

/// The image that a digest names, if all of it is here for who asks.
fn load_known(blobs: &BlobStore, asked: &Asked<'_>, digest: Option<Digest>) -> Option<Pulled> {
    let digest = digest?;
    let image = StoredImage::load(blobs, digest, asked.host_platform).ok()?;
    let held = image.blobs().all(|blob| asked.holder.holds(&blob));
    let reference = asked.reference.clone();
    held.then_some(Pulled { reference, digest, image, up_to_date: true, host: String::new() })
}

/// What failed at the places before, and at this one, in one line.
fn trouble(passed: &[RegistryError], now: Option<&RegistryError>) -> Option<Trouble> {
    let last = now.or(passed.last())?;
    let all: Vec<String> = passed.iter().chain(now).map(|error| super::chain(error)).collect();
    Some(Trouble { message: all.join("; then "), hint: last.hint() })
}

/// One try at one place.
struct Pull<'a> {
    registry: &'a Registry,
    place: &'a Place,
    blobs: &'a BlobStore,
    asked: Asked<'a>,
    progress: &'a watch::Sender<Progress>,
    /// What failed at the places before.
    passed: &'a [RegistryError],
}

impl Pull<'_> {
    async fn run(&self) -> Result<Pulled, RegistryError> {
        let Asked { reference, host_platform, known, .. } = self.asked;
        let name = reference.manifest_name();
        if let Some(known) = known
            && self.registry.resolve_digest(self.place, &name, |error| self.warn(error)).await? == Some(known)
            && let Some(pulled) = load_known(self.blobs, &self.asked, Some(known))
        {
            return Ok(Pulled { host: self.place.host(), ..pulled });
        }
        let (digest, manifest) = self.manifest(&name, host_platform).await?;
        let diff_ids = self.config(&manifest, host_platform).await?;
        let (arrived, arrivals) = mpsc::unbounded();
        tokio::try_join!(self.layers(&manifest, arrived), self.unpack(&manifest, diff_ids, arrivals))?;
        let image = StoredImage::load(self.blobs, digest, host_platform)?;
        let up_to_date = known == Some(digest);
        Ok(Pulled { reference: reference.clone(), digest, image, up_to_date, host: self.place.host() })
    }

    /// Walks from the name to the manifest for this machine; all documents on the way are stored.
    async fn manifest(
        &self,
        name: &str,
        host_platform: &Platform,
    ) -> Result<(Digest, Manifest), RegistryError> {
        let mut name = name.to_string();
        let mut top = None;
        for _ in 0..=INDEX_DEPTH_MAX {
            let held = name.parse().ok().filter(|digest| self.asked.holder.holds(digest));
            let fetched = match held.map(|digest| (digest, self.blobs.read(&digest, MANIFEST_BYTES_MAX))) {
                Some((digest, Ok(content))) => {
                    super::fetch::FetchedManifest { digest, media_type: None, content }
                }
                _ => self.registry.fetch_manifest(self.place, &name, |error| self.warn(error)).await?,
            };
            let document = documents::parse_document(&fetched.content, fetched.media_type.as_deref())?;
            self.blobs.insert(fetched.content).await?;
            self.asked.holder.note(&fetched.digest);
            let top = *top.get_or_insert(fetched.digest);
            match document {
                Document::Manifest(manifest) => return Ok((top, manifest)),
                Document::Index(index) => {
                    name = documents::pick_platform(&index, host_platform)?.digest.to_string();
                }
            }
        }
        Err(RegistryError::Image(StoredError::Nested))
    }

    /// The config comes before the layers: an image for another machine is refused before it costs anything. It says what
    /// each layer unpacks to.
    async fn config(
        &self,
        manifest: &Manifest,
        host_platform: &Platform,
    ) -> Result<Vec<Digest>, RegistryError> {
        let digest = manifest.config.digest;
        let wanted = Wanted { digest, size_bytes: manifest.config.size, what: "the config".into() };
        let tell = |event: BlobEvent<'_>| {
            if let BlobEvent::Retry(error) = event {
                self.warn(error);
            }
        };
        self.registry.fetch_blob(self.place, (self.blobs, self.asked.holder), &wanted, tell).await?;
        let content = self.blobs.read(&digest, CONFIG_BYTES_MAX)?;
        Ok(documents::parse_config(&content, manifest, host_platform)?.rootfs.diff_ids)
    }

    /// Unpacks each layer that is told of as here.
    async fn unpack(
        &self,
        manifest: &Manifest,
        diff_ids: Vec<Digest>,
        arrivals: mpsc::UnboundedReceiver<Digest>,
    ) -> Result<(), RegistryError> {
        let Some(layers) = self.asked.layers.cloned() else { return Ok(()) };
        let blobs = self.blobs.clone();
        let unpacked: HashMap<Digest, Digest> =
            manifest.layers.iter().map(|layer| layer.digest).zip(diff_ids).collect();
        let unpacks = arrivals.map(move |blob| {
            let (blobs, layers, diff_id) = (blobs.clone(), layers.clone(), unpacked.get(&blob).copied());
            async move {
                if let Some(diff_id) = diff_id {
                    let archive = blobs.open_blob(&blob)?;
                    layers.unpack(archive, blob, diff_id).await.map_err(StoredError::from)?;
                }
                Ok::<(), RegistryError>(())
            }
        });
        unpacks.buffer_unordered(UNPACKS_MAX).try_collect().await
    }

    /// Fetches the layers, and tells of each one that is here.
    async fn layers(
        &self,
        manifest: &Manifest,
        arrived: mpsc::UnboundedSender<Digest>,
    ) -> Result<(), RegistryError> {
        let count = manifest.layers.len();
        let layers: Vec<LayerProgress> = manifest
            .layers
            .iter()
            .map(|layer| LayerProgress {
                digest: layer.digest,
                size_bytes: layer.size,
                done_bytes: 0,
                state: LayerState::Waiting,
            })
            .collect();
        self.progress.send_modify(|progress| {
            progress.phase = Phase::Downloading;
            progress.layers = layers;
            progress.trouble = None;
        });
        let mut seen = HashSet::new();
        let wanted = manifest.layers.iter().enumerate().filter(|(_, layer)| seen.insert(layer.digest));
        let wanted: Vec<Wanted> = wanted
            .map(|(n, layer)| {
                let what = format!("layer {} of {count}", n + 1);
                Wanted { digest: layer.digest, size_bytes: layer.size, what }
            })
            .collect();
        // Made before anything is awaited, so that the future of a pull can move between threads.
        let fetches: Vec<_> = wanted
            .iter()
            .map(|wanted| {
                let tell = move |event: BlobEvent<'_>| self.tell(wanted.digest, event);
                let fetch =
                    self.registry.fetch_blob(self.place, (self.blobs, self.asked.holder), wanted, tell);
                let arrived = arrived.clone();
                async move {
                    fetch.await?;
                    // Nobody hears it where nothing is unpacked.
                    let _ = arrived.unbounded_send(wanted.digest);
                    Ok::<(), RegistryError>(())
                }
            })
            .collect();
        // The end of these is the end of the unpacking.
        drop(arrived);
        self.blobs.expect_room(&wanted.iter().map(|w| (w.digest, w.size_bytes)).collect::<Vec<_>>())?;
        let fetched = stream::iter(fetches)
            .buffer_unordered(self.registry.settings.parallel_layers.max(1))
            .try_collect()
            .await;
        if matches!(&fetched, Err(RegistryError::Blob(error)) if error.is_full()) {
            // What came of the other layers must not keep the disk full until somebody tries again.
            for wanted in &wanted {
                self.blobs.give_up(wanted.digest).await;
            }
        }
        fetched
    }

    /// Tells of a failure that will be tried again.
    fn warn(&self, error: &RegistryError) {
        let trouble = trouble(self.passed, Some(error));
        self.progress.send_modify(|progress| progress.trouble = trouble);
    }

    fn tell(&self, digest: Digest, event: BlobEvent<'_>) {
        if let BlobEvent::Retry(error) = event {
            self.warn(error);
        }
        self.progress.send_if_modified(|progress| {
            let comes = matches!(event, BlobEvent::Bytes(_) | BlobEvent::Done);
            let mut changed = comes && progress.trouble.take().is_some();
            for layer in progress.layers.iter_mut().filter(|layer| layer.digest == digest) {
                let (state, done_bytes) = match event {
                    BlobEvent::Present => (LayerState::AlreadyExists, layer.size_bytes),
                    BlobEvent::Done => (LayerState::Done, layer.size_bytes),
                    BlobEvent::Retry(_) => (LayerState::Retrying, layer.done_bytes),
                    BlobEvent::Bytes(bytes) => (LayerState::Downloading, bytes),
                };
                // Every step of a state is told, bytes only now and then.
                if state != layer.state || done_bytes.abs_diff(layer.done_bytes) >= TELL_BYTES {
                    (layer.state, layer.done_bytes, changed) = (state, done_bytes, true);
                }
            }
            changed
        });
    }
}
