//! OCI images that are not pulled: further names of what is here, archives that are loaded, layers that are put on top.
//!
//! What comes in is content alone, named by its digest; which image it is, and whose, is a record of the control's. Until
//! that record is there, [`Held`] keeps the collector away.

use super::{
    blobs::BlobError,
    cancel::{StoppableReader, run_blocking},
    compression::{CompressionError, decompress},
    layout::{ImportedImage, export_tar, import_tar},
    pipe::{Body, Taker, pipe},
    reconcile::{ImageError, Images, again_after, rest_after},
    squashfs,
    stored::StoredImage,
    upload::fault,
    xz,
};
use crate::{instance::sentence, room};
use jiff::Timestamp;
use model::{
    error::{Code, Fault},
    image::{Image, ImageContent, ImageState, ImageStatus},
    image_digest::Digest,
    image_manifest::{
        CONFIG_BYTES_MAX, CONFIG_TYPE, Descriptor, LAYER_BYTES_MAX, LAYER_TAR_TYPE, LAYERS_MAX,
        MANIFEST_BYTES_MAX, MANIFEST_TYPES, Manifest, Platform,
    },
    image_reference::Reference,
};
use reconcile::Outcome;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::Arc,
};
use tokio::sync::OwnedRwLockReadGuard;
use tokio_util::sync::CancellationToken;

/// What came in. It stays as long as this lives, and then as long as a record names it.
#[derive(Debug)]
pub struct Held {
    /// Digest of the manifest.
    pub digest: String,
    /// Docker's id.
    pub config_digest: String,
    /// Names that an archive gives it.
    pub names: Vec<Reference>,
    _hold: std::sync::Arc<OwnedRwLockReadGuard<()>>,
}

/// What an image says of itself in full.
#[derive(Debug, Clone, PartialEq)]
pub struct Details {
    /// Its config (OCI image specification, config.md).
    pub config: Value,
    /// Unpacked bytes of its layers, lowest first.
    pub layer_bytes: Vec<u64>,
}

/// A root file system as the plain bytes of a tar: one as it is, one out of gzip, zstd, bzip2 or xz, or one made of a squashfs.
fn plain_root(archive: File) -> Result<Box<dyn Read>, CompressionError> {
    let mut magic = [0; xz::MAGIC.len()];
    match archive.read_exact_at(&mut magic, 0) {
        Ok(()) if magic == xz::MAGIC => Ok(Box::new(xz::of(archive)?)),
        Ok(()) if magic.starts_with(&squashfs::MAGIC) => Ok(Box::new(squashfs::as_tar(archive)?)),
        _ => decompress(archive),
    }
}

fn host() -> Platform {
    Platform::linux_on(std::env::consts::ARCH)
}

fn broken(error: &dyn std::error::Error) -> Fault {
    fault(Code::Invalid, format!("the image cannot be used: {}", sentence(error)), "")
}

/// Content that could not be unpacked: bad, unless this host lacks the program for it.
fn unreadable(error: &CompressionError) -> Fault {
    match error {
        CompressionError::Missing(missing) => {
            let message = format!("the image cannot be unpacked here: {missing}");
            fault(Code::Unsupported, message, missing.hint())
        }
        error => broken(error),
    }
}

/// Content that could not be kept: bad, unless this host's disk is full.
fn unkept(error: &BlobError) -> Fault {
    if error.is_full() { fault(Code::NoCapacity, sentence(error), room::HINT) } else { broken(error) }
}

impl Images {
    /// Makes an image of what is here under a digest.
    pub(super) async fn run_content(&self, image: &Image, digest: &str) -> Result<Outcome, ImageError> {
        let id = image.meta.id;
        let status = self.store.get::<ImageStatus>(&id.to_string());
        let status = status.as_ref().map(|status| &status.record);
        match status.map(|status| (status, image.state(Some(status)))) {
            Some((_, ImageState::Ready(content))) if content.digest == digest && self.is_whole(content) => {
                return Ok(Outcome::Done);
            }
            // A failure of before, when the name meant another content, is none of this one's.
            Some((status, ImageState::Failed(fault))) => {
                if let Some(rest) = rest_after(status, fault) {
                    return Ok(rest);
                }
            }
            _ => {}
        }
        let _hold = self.collector.hold().await;
        let state = match self.stored(digest).await {
            Ok(stored) => match stored.unpack(&self.blobs, &self.layers, |_| {}).await {
                Ok(()) => ImageState::Ready(self.describe(&stored)),
                Err(error) => ImageState::Failed(fault(error.code(), sentence(&error), error.hint())),
            },
            Err(fault) => ImageState::Failed(fault),
        };
        let again = again_after(&state);
        self.write_answer(image, state, None).await?;
        Ok(again)
    }

    /// The image whose manifest (or index) has this digest.
    pub(super) async fn stored(&self, digest: &str) -> Result<StoredImage, Fault> {
        let digest: Digest = digest.parse().map_err(|error| broken(&error))?;
        let blobs = self.blobs.clone();
        let loaded = run_blocking(move |_| StoredImage::load(&blobs, digest, &host())).await;
        let whole = |error: super::stored::StoredError| {
            let message = format!("the image is not whole: {}", sentence(&error));
            fault(Code::Unavailable, message, error.hint())
        };
        loaded.unwrap_or(Err(BlobError::Cancelled.into())).map_err(whole)
    }

    /// What an image says of itself.
    ///
    /// # Errors
    /// Its config is not here.
    pub async fn details(&self, content: &ImageContent) -> Result<Details, Fault> {
        let Some(oci) = content.oci.clone() else {
            return Err(fault(Code::Unsupported, "it is no image of containers", ""));
        };
        let digest: Digest = oci.config_digest.parse().map_err(|error| broken(&error))?;
        let (blobs, layers) = (self.blobs.clone(), self.layers.clone());
        let read = run_blocking(move |_| {
            let text = blobs.read(&digest, CONFIG_BYTES_MAX).map_err(|error| broken(&error))?;
            let config = serde_json::from_slice(&text).map_err(|error| broken(&error))?;
            let ids = oci.diff_ids.iter().map(|id| id.parse::<Digest>().ok());
            let bytes = ids.map(|id| id.and_then(|id| layers.facts(&id)).map_or(0, |facts| facts.size_bytes));
            Ok(Details { config, layer_bytes: bytes.collect() })
        });
        read.await.unwrap_or_else(|| Err(broken(&BlobError::Cancelled)))
    }

    /// Images with these names as one archive, which is an OCI layout and docker's own at once.
    ///
    /// # Errors
    /// One of them is not whole.
    pub async fn save(&self, wanted: Vec<(ImageContent, Vec<Reference>)>) -> Result<Body, Fault> {
        let mut images: Vec<ImportedImage> = vec![];
        let hold = self.collector.hold().await;
        for (content, names) in wanted {
            let image = self.stored(&content.digest).await?;
            match images.iter_mut().find(|known| known.image.manifest == image.manifest) {
                Some(known) => known.names.extend(names),
                None => images.push(ImportedImage { names, digest: image.manifest, image }),
            }
        }
        let (body, maker) = pipe(CancellationToken::new());
        let (blobs, runtime) = (self.blobs.clone(), tokio::runtime::Handle::current());
        tokio::task::spawn_blocking(move || {
            let _hold = hold;
            maker.make(|output| runtime.block_on(export_tar(&blobs, images, output)));
        });
        Ok(body)
    }

    /// Takes all images of an archive that run on this host.
    ///
    /// # Errors
    /// What is wrong with the archive.
    pub async fn load(&self, archive: Body) -> Result<Vec<Held>, Fault> {
        let hold = std::sync::Arc::new(self.collector.hold().await);
        let input = Taker::new(archive, CancellationToken::new());
        let found = import_tar(&self.blobs, input, &host()).await;
        let found = found.map_err(|error| fault(error.code(), sentence(&error), error.hint()))?;
        let mut held = vec![];
        for ImportedImage { names, image, .. } in found {
            self.unpack_new(&image).await?;
            let (digest, config_digest) = (image.manifest.to_string(), image.id.to_string());
            held.push(Held { digest, config_digest, names, _hold: hold.clone() });
        }
        Ok(held)
    }

    /// Makes an image: the layers of another, or none, and one more where there is one. `config` has all but `rootfs`,
    /// which is made here; its history is the caller's.
    ///
    /// # Errors
    /// What is wrong with the layer or the config.
    pub async fn build(
        &self,
        base: Option<&ImageContent>,
        layer: Option<Body>,
        config: Value,
    ) -> Result<Held, Fault> {
        let hold = std::sync::Arc::new(self.collector.hold().await);
        let base = match base {
            Some(content) => Some(self.stored(&content.digest).await?),
            None => None,
        };
        if layer.is_some() && base.as_ref().is_some_and(|base| base.layers.len() >= LAYERS_MAX) {
            let message = format!("the image has {LAYERS_MAX} layers already");
            return Err(fault(Code::TooLarge, message, "make an image with fewer layers"));
        }
        let layer = match layer {
            Some(layer) => Some(self.take_layer(layer).await?),
            None => None,
        };
        let image = self.compose(base.as_ref(), layer, config).await?;
        self.unpack_new(&image).await?;
        let (digest, config_digest) = (image.manifest.to_string(), image.id.to_string());
        Ok(Held { digest, config_digest, names: vec![], _hold: hold })
    }

    /// Keeps a layer; its digest and its bytes.
    async fn take_layer(&self, layer: Body) -> Result<(Digest, u64), Fault> {
        let (blobs, input) = (self.blobs.clone(), Taker::new(layer, CancellationToken::new()));
        let taken = run_blocking(move |_| {
            let plain = decompress(input).map_err(|error| broken(&error))?;
            // As it is, so that its digest is that of the layer, too.
            blobs.ingest(plain, None, LAYER_BYTES_MAX).map_err(|error| unkept(&error))
        });
        taken.await.unwrap_or_else(|| Err(broken(&BlobError::Cancelled)))
    }

    /// Makes an image of a root file system in a tar, which may be compressed, or in a squashfs. It says nothing of what runs in it.
    pub(super) async fn unpack_root(&self, archive: File) -> Result<ImageContent, Fault> {
        let _hold = self.collector.hold().await;
        let blobs = self.blobs.clone();
        // Nobody closes it; and who goes away frees the place only when the program has ended.
        let place = Arc::clone(&self.unpackers).acquire_owned().await;
        let taken = run_blocking(move |flag| {
            let _place = place;
            let plain = plain_root(archive).map_err(|error| unreadable(&error))?;
            let plain = StoppableReader::new(plain, flag);
            blobs.ingest(plain, None, LAYER_BYTES_MAX).map_err(|error| unkept(&error))
        });
        let layer = taken.await.unwrap_or_else(|| Err(broken(&BlobError::Cancelled)))?;
        let image = self.compose(None, Some(layer), json!({ "config": {} })).await?;
        self.unpack_new(&image).await?;
        Ok(self.describe(&image))
    }

    /// Writes the documents of an image with the layers of `base`, and one more where there is one.
    async fn compose(
        &self,
        base: Option<&StoredImage>,
        layer: Option<(Digest, u64)>,
        mut config: Value,
    ) -> Result<StoredImage, Fault> {
        let below = base.map(|base| base.layers.as_slice()).unwrap_or_default();
        let diff_ids: Vec<String> = below
            .iter()
            .map(|layer| layer.diff_id)
            .chain(layer.map(|(id, _)| id))
            .map(|id| id.to_string())
            .collect();
        config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
        config["architecture"] = json!(host().architecture);
        config["os"] = json!("linux");
        if config.get("created").is_none() {
            config["created"] = json!(Timestamp::now().to_string());
        }
        let text = serde_json::to_vec(&config).map_err(|error| broken(&error))?;
        if text.len() as u64 > CONFIG_BYTES_MAX {
            return Err(fault(
                Code::TooLarge,
                format!("the config has more than {CONFIG_BYTES_MAX} bytes"),
                "",
            ));
        }
        let config_bytes = text.len() as u64;
        let id = self.blobs.insert(text).await.map_err(|error| unkept(&error))?;
        let describe = |media_type: &str, digest, size| Descriptor {
            media_type: media_type.to_string(),
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
        };
        let old = below.iter().map(|layer| describe(&layer.media_type, layer.blob, layer.size_bytes));
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST_TYPES[0].to_string()),
            config: describe(CONFIG_TYPE, id, config_bytes),
            layers: old.chain(layer.map(|(id, bytes)| describe(LAYER_TAR_TYPE, id, bytes))).collect(),
            annotations: BTreeMap::new(),
        };
        let text = serde_json::to_vec(&manifest).map_err(|error| broken(&error))?;
        if text.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(broken(&io::Error::other("its manifest is too long")));
        }
        let digest = self.blobs.insert(text).await.map_err(|error| unkept(&error))?;
        self.stored(&digest.to_string()).await
    }

    async fn unpack_new(&self, image: &StoredImage) -> Result<(), Fault> {
        image.unpack(&self.blobs, &self.layers, |_| {}).await.map_err(|error| {
            let code = if error.code().is_passing() { error.code() } else { Code::Invalid };
            fault(code, format!("the image could not be unpacked: {}", sentence(&error)), error.hint())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        source::SourceError,
        unpacker::{Program, Unpacker},
    };
    use super::*;

    #[test]
    fn a_program_that_is_missing_is_no_fault_of_the_image() {
        let program = Program {
            name: "holm-has-no-such-program",
            arguments: &[],
            input: "",
            memory_bytes_max: 1 << 20,
            cpu_s_max: None,
            form: "compressed by xz",
            package: "xz-utils",
        };
        let missing = || {
            let nothing = File::open("/dev/null").expect("opened");
            CompressionError::from(Unpacker::start(program, nothing).expect_err("it is missing"))
        };
        for fault in [unreadable(&missing()), SourceError::from(missing()).fault()] {
            assert_eq!(fault.code, Code::Unsupported);
            let told = "it is compressed by xz, and the program holm-has-no-such-program is not installed on this host \
                        (Debian package xz-utils)";
            assert!(fault.message.ends_with(told), "{}", fault.message);
            assert!(fault.hint.contains("`apt install xz-utils`"), "{}", fault.hint);
        }
        let broken = CompressionError::Io(io::Error::other("torn"));
        assert_eq!(unreadable(&broken).code, Code::Invalid);
    }
}
