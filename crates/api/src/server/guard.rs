//! A connection whose client has to take what is sent to it: one that takes no byte for too long is cut off, wherever the
//! connection has come to by then (an answer, a stream that left HTTP). As long as there is nothing to send it may be silent
//! for ever.
//!
//! It holds the connection's place, which is free when nobody has the connection any more.

use super::places::Place;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// A connection and its place.
pub struct Guarded<S> {
    stream: S,
    limit: Duration,
    /// Runs while the client takes nothing of what it is sent.
    stall: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

impl<S> Guarded<S> {
    /// Guards a connection. Nothing that is sent may wait for longer than `limit`.
    pub fn new(stream: S, limit: Duration, place: Place) -> Self {
        Self { stream, limit, stall: None, _place: place }
    }

    /// The connection.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    fn settle(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let limit = self.limit;
        ready!(self.stall.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(context));
        let message = format!("the client took nothing for {} s", limit.as_secs());
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

// Only what is written tells whether it is taken: to flush a socket does nothing.
impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.settle(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.settle(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::places::Places, *};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::{Instant, advance},
    };

    const LIMIT: Duration = Duration::from_secs(300);

    async fn pair() -> (Guarded<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(16);
        let place = Places::new(1, None).wait().await;
        (Guarded::new(near, LIMIT, place), far)
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_cut_off_when_the_time_has_come() {
        let (mut near, _far) = pair().await;
        near.write_all(&[0; 16]).await.expect("there is room");
        let begun = Instant::now();
        let error = near.write_all(b"more").await.expect_err("nobody takes it");
        assert_eq!((error.kind(), begun.elapsed().as_secs()), (io::ErrorKind::TimedOut, LIMIT.as_secs()));
        assert_eq!(error.to_string(), "the client took nothing for 300 s");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_little_now_and_then_and_who_is_sent_nothing_is_not() {
        let (mut near, mut far) = pair().await;
        advance(10 * LIMIT).await;
        let taker = tokio::spawn(async move {
            let mut all = [0; 64];
            for byte in &mut all {
                tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
                *byte = far.read_u8().await.expect("more comes");
            }
            (all, far)
        });
        near.write_all(&[7; 64]).await.expect("it is taken, slowly");
        let (all, mut far) = taker.await.expect("no panic");
        assert_eq!(all, [7; 64]);
        advance(10 * LIMIT).await;
        near.write_all(b"on").await.expect("a silence is no stall");
        assert_eq!(far.read_u16().await.expect("more comes").to_be_bytes(), *b"on");
    }
}
