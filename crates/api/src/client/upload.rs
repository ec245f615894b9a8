//! An image's bytes: sent with progress, and fetched.

use super::{BuildLines, Client, Error, build, path, read_all, read_json};
use crate::v1::types::{
    build::BuildQuery,
    image::{Image, ImportImage},
    instance::{Instance, SaveInstance},
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::{Method, body::Frame, header};
use std::{io, pin::Pin, sync::Mutex};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// Header with the SHA-256 that the bytes must have, in hex.
pub const SHA256_HEADER: &str = "x-content-sha256";

impl Client {
    /// Sends an image's bytes. `size_bytes` is how many there are, where that is known; `sha256` is what they must
    /// hash to, in hex; `progress` is told the bytes sent so far.
    pub async fn upload_image(
        &self,
        image: &str,
        reader: impl AsyncRead + Send + 'static,
        size_bytes: Option<u64>,
        sha256: Option<&str>,
        progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<Image, Error> {
        let target = format!("{}/content", path::<Image>(image));
        let mut builder =
            self.request(Method::PUT, &target).header(header::CONTENT_TYPE, "application/octet-stream");
        if let Some(size) = size_bytes {
            builder = builder.header(header::CONTENT_LENGTH, size);
        }
        if let Some(digest) = sha256 {
            builder = builder.header(SHA256_HEADER, digest);
        }
        let request = build(builder, body_of(reader, progress))?;
        // No deadline: how long it takes is the user's matter. The server ends an upload that stands still.
        let answer = self.transport.send_alone(request).await?;
        let status = answer.status();
        let bytes = read_all(answer.into_body()).await?;
        read_json(status, &bytes)
    }
}

impl Client {
    /// Builds an image of a context, which is sent as a tar. Gives what is told while it goes on; the build ends with it.
    pub async fn build_image(
        &self,
        query: &BuildQuery,
        context: impl AsyncRead + Send + 'static,
    ) -> Result<BuildLines, Error> {
        let target = super::with_query("/v1/builds", query);
        let builder = self.request(Method::POST, &target).header(header::CONTENT_TYPE, "application/x-tar");
        let request = build(builder, body_of(context, |_| ()))?;
        // The context may be large: no deadline, as for an upload.
        let answer = self.transport.send_alone(request).await?;
        if !answer.status().is_success() {
            let status = answer.status();
            let bytes = read_all(answer.into_body()).await?;
            return Err(Error::from_answer(status, &bytes));
        }
        Ok(BuildLines::new(answer.into_body()))
    }

    /// Makes an image of a system container's files, and returns when it can be used.
    pub async fn save_instance(&self, instance: &str, request: &SaveInstance) -> Result<Image, Error> {
        let target = format!("{}/image", path::<Instance>(instance));
        let text = serde_json::to_vec(request)
            .map_err(|error| Error::Invalid(format!("this cannot be sent: {error}")))?;
        let builder = self.request(Method::POST, &target).header(header::CONTENT_TYPE, "application/json");
        let request = build(builder, super::full(text))?;
        // How long it takes is a matter of how many files there are.
        let answer = self.transport.send_alone(request).await?;
        let status = answer.status();
        let bytes = read_all(answer.into_body()).await?;
        read_json(status, &bytes)
    }

    /// Asks for an image's bytes to be imported.
    pub async fn import_image(&self, image: &str, from: &ImportImage) -> Result<Image, Error> {
        let target = format!("{}/import", path::<Image>(image));
        self.call(Method::POST, &target, Some(from), None).await
    }

    /// An image's bytes as they come, and how many they are where that is known.
    pub async fn download_image(
        &self,
        image: &str,
    ) -> Result<(Option<u64>, impl futures::Stream<Item = io::Result<Bytes>> + Send + use<>), Error> {
        let target = format!("{}/content", path::<Image>(image));
        let request = build(self.request(Method::GET, &target), super::full(vec![]))?;
        let answer = self.open(request).await?;
        let length = answer.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        let frames = BodyStream::new(answer.into_body());
        let bytes = frames.filter_map(async |frame| match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(io::Error::other(error))),
        });
        Ok((length, bytes))
    }
}

struct Source<F> {
    reader: Pin<Box<dyn AsyncRead + Send>>,
    sent: u64,
    progress: F,
}

pub(super) fn body_of(
    reader: impl AsyncRead + Send + 'static,
    progress: impl FnMut(u64) + Send + 'static,
) -> super::transport::Body {
    let source = Source { reader: Box::pin(reader), sent: 0, progress };
    let chunks = stream::try_unfold(source, |mut source| async move {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        let count = source.reader.read_buf(&mut buffer).await?;
        if count == 0 {
            return Ok::<_, io::Error>(None);
        }
        source.sent += count as u64;
        (source.progress)(source.sent);
        Ok(Some((Frame::data(Bytes::from(buffer)), source)))
    });
    // A boxed body must be Sync; the stream is only ever polled by one task, so the lock is never waited for.
    BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(Box::pin(chunks)))))
}

/// A stream that is `Sync` because it can only be polled through `&mut`.
struct SyncStream<S>(Mutex<S>);

impl<S: futures::Stream + Unpin> futures::Stream for SyncStream<S> {
    type Item = S::Item;
    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        let inner = self.0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        Pin::new(inner).poll_next(context)
    }
}
