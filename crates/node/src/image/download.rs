//! The bytes of an image for those who want them back: as they were sent, or, for what a registry gave, as an archive.

use super::{
    layout::{ImportedImage, export_tar},
    reconcile::Images,
    stored::StoredImage,
    upload::{fault, refused},
};
use crate::instance::sentence;
use model::{
    error::{Code, Fault},
    image::{Image, ImageContent, ImageSource, ImageStatus},
    image_digest::Digest,
    image_manifest::Platform,
};
use std::io::SeekFrom;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt};
use tokio_util::io::SyncIoBridge;

/// Bytes of an archive between its maker and its reader.
const PIPE_BYTES: usize = 256 << 10;

/// An image's bytes on their way out.
pub struct Download {
    /// How many there are in all; `None` for an archive that is made as it is read.
    pub size_bytes: Option<u64>,
    /// The bytes from where they were asked for on.
    pub body: Box<dyn AsyncRead + Send + Unpin>,
}

impl Images {
    /// The bytes of an image, from `offset` on.
    ///
    /// # Errors
    /// The image has no content, its file cannot be read, or it has fewer bytes than `offset`.
    pub async fn download(&self, image: &Image, offset: u64) -> Result<Download, Fault> {
        let id = image.meta.id;
        let status = self.store.get::<ImageStatus>(&id.to_string());
        let Some(content) = status.as_ref().and_then(|s| s.record.content()) else {
            let message = format!("image {} has no content yet", image.meta.name);
            return Err(fault(Code::Conflict, message, "wait until it is ready"));
        };
        if matches!(image.source, ImageSource::Registry { .. } | ImageSource::Content { .. }) {
            return self.archive(image, content, offset).await;
        }
        let size = content.size_bytes;
        if offset > size {
            let message = format!("the image has {size} bytes, {offset} is past its end");
            return Err(fault(Code::Invalid, message, ""));
        }
        let mut file = self.disks.open_sent(id, content.format).await.map_err(|error| refused(&error))?;
        let sought = file.seek(SeekFrom::Start(offset)).await;
        sought.map_err(|error| fault(Code::Internal, format!("the image cannot be read: {error}"), ""))?;
        Ok(Download { size_bytes: Some(size), body: Box::new(file.take(size - offset)) })
    }

    /// A pulled image as an OCI layout in a tar, which `docker load` reads, too.
    async fn archive(&self, image: &Image, content: &ImageContent, offset: u64) -> Result<Download, Fault> {
        let broken = |error: &dyn std::error::Error, hint: String| {
            fault(Code::Unavailable, format!("the image is not whole: {}", sentence(&error)), hint)
        };
        let digest: Digest = content.digest.parse().map_err(|e| broken(&e, String::new()))?;
        let platform = Platform::linux_on(std::env::consts::ARCH);
        let stored = StoredImage::load(&self.blobs, digest, &platform).map_err(|e| broken(&e, e.hint()))?;
        let names = image.reference().into_iter().collect();
        let (mut reader, writer) = tokio::io::duplex(PIPE_BYTES);
        let (blobs, hold) = (self.blobs.clone(), self.collector.hold().await);
        let images = vec![ImportedImage { names, digest, image: stored }];
        tokio::spawn(async move {
            let _hold = hold;
            // A reader that went away is no fault; one that sees the archive end early says so itself.
            if let Err(error) = export_tar(&blobs, images, SyncIoBridge::new(writer)).await {
                tracing::debug!(error = sentence(&error), "an archive was not read to its end");
            }
        });
        let skipped = tokio::io::copy(&mut (&mut reader).take(offset), &mut tokio::io::sink()).await;
        skipped.map_err(|error| broken(&error, String::new()))?;
        Ok(Download { size_bytes: None, body: Box::new(reader) })
    }
}
