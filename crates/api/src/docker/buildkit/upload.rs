//! A context that a client has as an archive (`docker build - <context.tar`): the session gives it as a stream of bytes.

use super::{
    session::{ANSWER_TIMEOUT, Session, Stream},
    wire::BytesMessage,
};
use crate::{
    error::{Failure, Result},
    limits::CONTEXT_BYTES_MAX,
    streams::Reader,
};
use bytes::Bytes;
use futures::stream;
use model::error::Code;
use std::io;
use tokio::io::AsyncReadExt;
use tokio_util::io::StreamReader;

const METHOD: &str = "/moby.upload.v1.Upload/Pull";
/// What a client puts in front of the archive's id, as the address of the context.
const ADDRESS: &str = "http://buildkit-session/";

/// The id of an archive in the address of a context; `None` for any other address.
pub fn id(address: &str) -> Option<&str> {
    address.strip_prefix(ADDRESS).filter(|id| !id.is_empty() && !id.contains('/'))
}

impl Session {
    /// An archive of the client's. Reading fails where the client breaks off.
    ///
    /// # Errors
    /// The client does not give it.
    pub async fn archive(&self, id: &str) -> Result<Reader> {
        let (path, host) = ([format!("/{id}")], ["buildkit-session".to_string()]);
        let headers = [("urlpath", &path[..]), ("urlhost", &host[..])];
        let stream = self.stream(METHOD, &headers).await;
        let stream = stream.map_err(|status| Failure::new(Code::Invalid, status.message))?;
        let pieces = stream::try_unfold(stream, |mut stream: Stream| async move {
            let piece: Option<BytesMessage> = stream
                .messages
                .next(ANSWER_TIMEOUT)
                .await
                .map_err(|status| io::Error::new(io::ErrorKind::UnexpectedEof, status.message))?;
            Ok::<_, io::Error>(piece.map(|piece| (piece.data, stream)))
        });
        Ok(Box::new(StreamReader::<_, Bytes>::new(Box::pin(pieces)).take(CONTEXT_BYTES_MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_have_an_address_of_their_own() {
        assert_eq!(id("http://buildkit-session/x1"), Some("x1"));
        for other in
            ["http://buildkit-session/", "http://buildkit-session/a/b", "https://example.org/x.tar", ""]
        {
            assert_eq!(id(other), None, "{other}");
        }
    }
}
