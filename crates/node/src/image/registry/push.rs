//! Pushing an image: its blobs where they are missing, then its manifest, byte for byte as it is stored.
//!
//! The manifest goes last, so that a push that breaks leaves nothing that anybody could pull.

use super::{
    Credentials, Registry, RegistryError,
    connection::{Body, empty},
    request::{Place, protocol},
};
use crate::image::{
    blobs::BlobStore,
    stored::{StoredError, StoredImage},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    Method,
    body::Frame,
    header::{self, HeaderMap, HeaderValue},
};
use model::{
    image_digest::Digest,
    image_manifest::{Document, MANIFEST_BYTES_MAX, MANIFEST_TYPES, parse_document},
    image_reference::Reference,
};
use std::{collections::HashSet, time::Duration};
use tokio_util::io::ReaderStream;

/// Slower uploads are given up.
const UPLOAD_BYTES_PER_S_MIN: u64 = 64 << 10;
/// Bytes read from a blob at a time.
const READ_BYTES: usize = 128 << 10;
/// Tries of one blob.
const TRIES_MAX: u32 = 3;

impl Registry {
    /// Pushes the image under the reference's tag (or `latest`); gives the digest that it can be pulled by.
    /// `told` hears the digest of each blob that is there.
    pub async fn push(
        &self,
        blobs: &BlobStore,
        image: &StoredImage,
        reference: &Reference,
        credentials: Option<&Credentials>,
        told: impl Fn(Digest),
    ) -> Result<Digest, RegistryError> {
        let place = self.origin(reference, credentials, "pull,push")?;
        let mut seen = HashSet::new();
        let layers = image.layers.iter().map(|layer| layer.blob).chain([image.id]);
        let wanted: Vec<Digest> = layers.filter(|digest| seen.insert(*digest)).collect();
        // The first one alone: it gets the token that the others then share.
        let (first, others) = wanted.split_at(wanted.len().min(1));
        let (place, told) = (&place, &told);
        for group in [first, others] {
            // Made before anything is awaited, so that the future of a push can move between threads.
            let pushes: Vec<_> = group
                .iter()
                .map(|digest| async move {
                    self.push_blob(place, blobs, *digest).await?;
                    told(*digest);
                    Ok::<_, RegistryError>(())
                })
                .collect();
            let at_a_time = self.settings.parallel_layers.max(1);
            stream::iter(pushes).buffer_unordered(at_a_time).try_collect::<()>().await?;
        }
        let content = blobs.read(&image.manifest, MANIFEST_BYTES_MAX)?;
        let Document::Manifest(manifest) = parse_document(&content, None)? else {
            return Err(RegistryError::Image(StoredError::Nested));
        };
        let media_type = manifest.media_type.unwrap_or_else(|| MANIFEST_TYPES[0].to_string());
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(&media_type)
            .map_err(|_| protocol(&place.base.authority, "its kind is odd"))?;
        headers.insert(header::CONTENT_TYPE, value);
        let to = self.address(place, &format!("manifests/{}", reference.tag().unwrap_or("latest")));
        let body = Full::new(Bytes::from(content)).map_err(|never| match never {}).boxed_unsync();
        self.upload(place, Method::PUT, &to, headers, body, Duration::from_secs(30)).await?;
        Ok(image.manifest)
    }

    async fn push_blob(&self, place: &Place, blobs: &BlobStore, digest: Digest) -> Result<(), RegistryError> {
        let mut tries = 0;
        loop {
            let error = match self.try_push_blob(place, blobs, digest).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            tries += 1;
            // A token that ended during a long upload is renewed by the next try's first request.
            let passing = error.is_passing() || matches!(error, RegistryError::Unauthorized { .. });
            if tries >= TRIES_MAX || !passing {
                return Err(error);
            }
            tokio::time::sleep(self.settings.backoff.saturating_mul(tries)).await;
        }
    }

    async fn try_push_blob(
        &self,
        place: &Place,
        blobs: &BlobStore,
        digest: Digest,
    ) -> Result<(), RegistryError> {
        match self.get(place, Method::HEAD, &format!("blobs/{digest}"), &HeaderMap::new()).await {
            Ok(_) => return Ok(()),
            Err(RegistryError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let begin = self.address(place, "blobs/uploads/");
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        let answer = self.upload(place, Method::POST, &begin, headers, empty(), Duration::ZERO).await?;
        let (authority, mut path) = self.redirect_target(&begin.0, &begin.1, &answer)?;
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(&format!("digest={digest}"));
        let file = blobs.open_blob(&digest)?;
        let size_bytes = blobs.size_bytes(&digest)?.unwrap_or_default();
        let chunks = ReaderStream::with_capacity(tokio::fs::File::from_std(file), READ_BYTES);
        let body: Body = StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size_bytes));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let sending = Duration::from_secs(60 + size_bytes / UPLOAD_BYTES_PER_S_MIN);
        self.upload(place, Method::PUT, &(authority, path), headers, body, sending).await?;
        Ok(())
    }
}
