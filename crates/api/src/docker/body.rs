//! Bodies that are streams: archives on their way in and out.

use super::door::Door;
use crate::{error::Result, limits::UPLOAD_STALL_TIMEOUT, streams::Reader};
use axum::{
    body::{Body, BodyDataStream},
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use control::Caller;
use futures::{StreamExt, stream};
use std::io;
use tokio::time::timeout;
use tokio_util::io::{ReaderStream, StreamReader};

/// Bytes read at a time on the way out.
const CHUNK_BYTES: usize = 128 * 1024;

/// A body as it comes. Reading fails when nothing comes for a while, or past so many bytes.
pub fn reader(body: Body, bytes_max: u64) -> Reader {
    let incoming = Incoming { chunks: Some(body.into_data_stream()), left: bytes_max };
    let chunks = stream::try_unfold(incoming, |mut incoming| async move {
        Ok::<_, io::Error>(incoming.next().await?.map(|bytes| (bytes, incoming)))
    });
    Box::new(StreamReader::new(Box::pin(chunks)))
}

struct Incoming {
    /// `None` once it has ended.
    chunks: Option<BodyDataStream>,
    left: u64,
}

impl Incoming {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let Some(chunks) = &mut self.chunks else { return Ok(None) };
        let stalled = |_| {
            let text = format!("no byte came for {} s", UPLOAD_STALL_TIMEOUT.as_secs());
            io::Error::new(io::ErrorKind::TimedOut, text)
        };
        match timeout(UPLOAD_STALL_TIMEOUT, chunks.next()).await.map_err(stalled)? {
            None => {
                self.chunks = None;
                Ok(None)
            }
            Some(Err(error)) => {
                self.chunks = None;
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, error))
            }
            Some(Ok(bytes)) => {
                let past = || io::Error::new(io::ErrorKind::InvalidData, "the body is too large");
                self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(past)?;
                Ok(Some(bytes))
            }
        }
    }
}

/// An archive as the answer. It ends with the server, and holds one of its places for streams.
///
/// # Errors
/// `too_many`.
pub fn answer(door: &Door, caller: &Caller, archive: Reader) -> Result<Response> {
    let slot = door.app().stream_slot(caller)?;
    let ended = slot.ended();
    let pieces = ReaderStream::with_capacity(archive, CHUNK_BYTES).map(move |piece| {
        let _held = &slot;
        piece
    });
    let body = Body::from_stream(pieces.take_until(ended.cancelled_owned()));
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn a_body_has_a_limit() {
        for (length, fits) in [(10, true), (11, false)] {
            let mut all = vec![];
            let read = reader(Body::from(vec![1; length]), 10).read_to_end(&mut all).await;
            assert_eq!(read.is_ok(), fits, "{length}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_given_up() {
        let body = Body::from_stream(stream::pending::<io::Result<Bytes>>());
        let error = reader(body, 10).read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
