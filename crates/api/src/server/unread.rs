//! What a handler left unread of a request's body.
//!
//! A handler that refuses a request answers before all of its body has come. Were the connection closed then, a client
//! that is still sending would see a broken pipe and never the answer. So what is left is read and thrown away (RFC 9112,
//! section 9.6), within limits; unless the client waits to be asked for its body (`Expect: 100-continue`).

use bytes::Bytes;
use futures::StreamExt;
use hyper::{
    Request,
    body::{Body, Frame, SizeHint},
    header::EXPECT,
};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{runtime::Handle, time::timeout};

/// Most bytes that are read only to be thrown away.
const DISCARDED_BYTES_MAX: u64 = 1 << 30;
/// And for how long.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(30);

/// The request, with a body that is read to its end wherever it is dropped.
pub fn discarding<B>(request: Request<B>) -> Request<axum::body::Body>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<axum::BoxError>,
{
    if request.headers().contains_key(EXPECT) {
        return request.map(axum::body::Body::new);
    }
    let runtime = Handle::current();
    request.map(|body| axum::body::Body::new(Discarding { body: Some(body), runtime }))
}

struct Discarding<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<axum::BoxError>,
{
    /// `None` once it has ended.
    body: Option<B>,
    runtime: Handle,
}

impl<B> Body for Discarding<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B> Drop for Discarding<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<axum::BoxError>,
{
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        let mut chunks = axum::body::Body::new(body).into_data_stream();
        let discard = async move {
            let mut left = DISCARDED_BYTES_MAX;
            while let Some(Ok(bytes)) = chunks.next().await
                && let Some(less) = left.checked_sub(bytes.len() as u64)
            {
                left = less;
            }
        };
        // Ends with the connection, and by its limits. A body may be dropped by a thread that is not the runtime's.
        self.runtime.spawn(async move {
            let _ = timeout(DISCARD_TIMEOUT, discard).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use std::io;

    type Sender = tokio::sync::mpsc::Sender<io::Result<Bytes>>;

    fn request(expects: bool) -> (Sender, Request<axum::body::Body>) {
        let (sender, came) = tokio::sync::mpsc::channel(1);
        let body = stream::unfold(came, |mut came| async move { Some((came.recv().await?, came)) });
        let mut request = Request::new(axum::body::Body::from_stream(body));
        if expects {
            request.headers_mut().insert(EXPECT, "100-continue".parse().unwrap());
        }
        (sender, discarding(request))
    }

    #[tokio::test]
    async fn what_is_left_of_a_body_is_read() {
        let (sender, request) = request(false);
        sender.send(Ok(Bytes::from_static(b"first"))).await.unwrap();
        let mut chunks = request.into_body().into_data_stream();
        assert_eq!(chunks.next().await.unwrap().unwrap(), "first");
        // As by the thread that unpacks.
        std::thread::spawn(move || drop(chunks)).join().unwrap();
        for _ in 0..5 {
            sender.send(Ok(Bytes::from_static(b"more"))).await.expect("it is read");
        }
    }

    #[tokio::test]
    async fn a_body_that_nobody_asked_for_is_not_read() {
        let (sender, request) = request(true);
        drop(request);
        assert!(sender.send(Ok(Bytes::from_static(b"more"))).await.is_err());
    }
}
