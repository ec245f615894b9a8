//! An image whose manifest and config are in the blob store: what it needs, and its way to unpacked layers.

use super::{
    blobs::{BlobError, BlobStore},
    layer_tree::EntryError,
    layers::{LayerError, LayerStore},
};
use crate::room;
use futures::{StreamExt, TryStreamExt, stream};
use model::{
    error::Code,
    image_digest::Digest,
    image_manifest::{
        self as documents, CONFIG_BYTES_MAX, Document, ImageConfig, MANIFEST_BYTES_MAX, ManifestError,
        Platform,
    },
};
use std::path::PathBuf;

/// Layers that are unpacked at the same time.
pub(super) const UNPACKS_MAX: usize = 2;
/// An index may point to an index; this deep and no deeper.
const INDEX_DEPTH_MAX: u32 = 3;

/// Why a stored image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// The blob store failed.
    #[error("the image's content cannot be read")]
    Blob(#[from] BlobError),
    /// A document cannot be used.
    #[error(transparent)]
    Document(#[from] ManifestError),
    /// A layer cannot be unpacked.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The manifest announces another size than the content has.
    #[error("blob {digest} has {actual_bytes} bytes, the image says {stated_bytes}")]
    Size {
        /// The blob.
        digest: Digest,
        /// What the image says.
        stated_bytes: u64,
        /// What it has.
        actual_bytes: u64,
    },
    /// Indexes within indexes.
    #[error("the image's indexes are nested more than {INDEX_DEPTH_MAX} deep")]
    Nested,
}

impl StoredError {
    /// What kind of failure it is. What lies in the image itself does not pass; what lies in this machine's disk may.
    pub fn code(&self) -> Code {
        match self {
            Self::Blob(error) => error.code(),
            Self::Layer(LayerError::NoRoom { .. }) => Code::NoCapacity,
            Self::Layer(LayerError::Io { .. }) => Code::Unavailable,
            Self::Layer(LayerError::Entry { source: EntryError::Io { .. }, .. }) => Code::Unavailable,
            Self::Document(_) | Self::Nested => Code::Unsupported,
            Self::Layer(_) | Self::Size { .. } => Code::Conflict,
        }
    }

    /// What to do about it, for people.
    pub fn hint(&self) -> String {
        match self {
            Self::Document(error) => error.hint(),
            Self::Blob(BlobError::Missing(_)) => "pull or import the image again".into(),
            Self::Layer(LayerError::NoRoom { .. }) => room::HINT.into(),
            Self::Blob(error) if error.is_full() => room::HINT.into(),
            _ => "the image is broken: pull it again, or tell its publisher".into(),
        }
    }
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLayer {
    /// The archive's blob.
    pub blob: Digest,
    /// Bytes of the archive.
    pub size_bytes: u64,
    /// What it unpacks to.
    pub diff_id: Digest,
    /// As the manifest says.
    pub media_type: String,
}

/// An image that is complete in the blob store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// The manifest.
    pub manifest: Digest,
    /// The config: what docker calls the image's id.
    pub id: Digest,
    /// How to run it.
    pub config: ImageConfig,
    /// Lowest first.
    pub layers: Vec<StoredLayer>,
    /// Indexes that led to the manifest, outermost first.
    pub indexes: Vec<Digest>,
}

impl StoredImage {
    /// Reads the image that `digest` (of a manifest or an index) names for `host`, and checks that all of it is
    /// here. Blocking; reads small files only.
    pub fn load(blobs: &BlobStore, digest: Digest, host: &Platform) -> Result<Self, StoredError> {
        let mut indexes = Vec::new();
        let mut current = digest;
        let manifest = loop {
            let bytes = blobs.read(&current, MANIFEST_BYTES_MAX)?;
            match documents::parse_document(&bytes, None)? {
                Document::Manifest(manifest) => break manifest,
                Document::Index(_) if indexes.len() as u32 == INDEX_DEPTH_MAX => {
                    return Err(StoredError::Nested);
                }
                Document::Index(index) => {
                    indexes.push(current);
                    current = documents::pick_platform(&index, host)?.digest;
                }
            }
        };
        let config_bytes = blobs.read(&manifest.config.digest, CONFIG_BYTES_MAX)?;
        check_size(manifest.config.digest, manifest.config.size, config_bytes.len() as u64)?;
        let config = documents::parse_config(&config_bytes, &manifest, host)?;
        let mut layers = Vec::with_capacity(manifest.layers.len());
        for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            let size_bytes = blobs.size_bytes(&layer.digest)?.ok_or(BlobError::Missing(layer.digest))?;
            check_size(layer.digest, layer.size, size_bytes)?;
            let media_type = layer.media_type.clone();
            layers.push(StoredLayer { blob: layer.digest, size_bytes, diff_id: *diff_id, media_type });
        }
        Ok(Self { manifest: current, id: manifest.config.digest, config, layers, indexes })
    }

    /// All blobs that the image needs: what a collector must spare.
    pub fn blobs(&self) -> impl Iterator<Item = Digest> + '_ {
        let documents = [self.manifest, self.id].into_iter().chain(self.indexes.iter().copied());
        documents.chain(self.layers.iter().map(|layer| layer.blob))
    }

    /// The layers' diff ids, lowest first: what a collector of layers must spare.
    pub fn diff_ids(&self) -> impl Iterator<Item = Digest> + '_ {
        self.layers.iter().map(|layer| layer.diff_id)
    }

    /// Bytes of all layer archives.
    pub fn size_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size_bytes).sum()
    }

    /// Directories of the layers, lowest first, as a container's plan wants them. A layer that occurs twice (empty
    /// ones do) is given once: overlayfs refuses the same directory twice.
    pub fn layer_paths(&self, layers: &LayerStore) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = Vec::with_capacity(self.layers.len());
        // Of two equal layers the upper one counts, since it hides what lies between.
        for layer in self.layers.iter().rev() {
            let path = layers.path(&layer.diff_id);
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        paths.reverse();
        paths
    }

    /// Unpacks every layer that is not unpacked yet; tells `done` of each one.
    pub async fn unpack(
        &self,
        blobs: &BlobStore,
        layers: &LayerStore,
        done: impl Fn(&StoredLayer),
    ) -> Result<(), StoredError> {
        let done = &done;
        // Made before anything is awaited, so that the future of a pull can move between threads.
        let unpacks: Vec<_> = self
            .layers
            .iter()
            .map(|layer| async move {
                layers.unpack(blobs.open_blob(&layer.blob)?, layer.blob, layer.diff_id).await?;
                done(layer);
                Ok(())
            })
            .collect();
        stream::iter(unpacks).buffer_unordered(UNPACKS_MAX).try_collect().await
    }
}

fn check_size(digest: Digest, stated_bytes: u64, actual_bytes: u64) -> Result<(), StoredError> {
    if stated_bytes != actual_bytes {
        return Err(StoredError::Size { digest, stated_bytes, actual_bytes });
    }
    Ok(())
}
