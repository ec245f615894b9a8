//! Archives between blocking work and clients, who may be slow, stop, or go.
//!
//! ```text
//!   maker ──▶ pieces (bounded) ──▶ client        client ──▶ reader
//!             a failure is what comes last: an archive that was cut is never taken for one that ended
//! ```

use bytes::Bytes;
use futures::stream;
use std::{
    io::{self, BufWriter, Read, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    runtime::Handle,
    sync::mpsc,
    time::Instant,
};
use tokio_util::{io::StreamReader, sync::CancellationToken};

/// Bytes of one piece on its way.
const PIECE_BYTES: usize = 128 << 10;
/// Pieces that wait for a slow client.
const PIECES_MAX: usize = 4;

/// An archive on its way.
pub type Body = Box<dyn AsyncRead + Send + Unpin>;

/// A pipe from blocking work to a client. Work that waits for the client breaks off once `hurry` is cancelled. Must be
/// made on the runtime that drives the client's side.
pub(crate) fn pipe(hurry: CancellationToken) -> (Body, Maker) {
    let (pieces, queue) = mpsc::channel(PIECES_MAX);
    let failure = Failure::default();
    let all = stream::unfold((queue, failure.clone()), |(mut queue, failure)| async move {
        let next = match queue.recv().await {
            Some(piece) => Ok(piece),
            None => Err(failure.lock().unwrap_or_else(PoisonError::into_inner).take()?),
        };
        Some((next, (queue, failure)))
    });
    let maker = Maker { pieces, failure, hurry, runtime: Handle::current() };
    (Box::new(StreamReader::new(Box::pin(all))), maker)
}

/// Why an archive is not whole. Beside the pieces, so that work which breaks off waits for no client to take it.
type Failure = Arc<Mutex<Option<io::Error>>>;

/// Where blocking work writes an archive to.
pub(crate) struct Maker {
    pieces: mpsc::Sender<Bytes>,
    failure: Failure,
    hurry: CancellationToken,
    runtime: Handle,
}

impl Maker {
    /// Does the work with a buffered writer, and tells the reader when it fails.
    pub(crate) fn make<E: std::error::Error>(self, work: impl FnOnce(BufWriter<Self>) -> Result<(), E>) {
        // The pieces end when this does, and not before the failure is told.
        let (_pieces, failure) = (self.pieces.clone(), Arc::clone(&self.failure));
        let tell = |why| *failure.lock().unwrap_or_else(PoisonError::into_inner) = why;
        // Stays so if the work panics.
        tell(Some(io::Error::other("holm made a mistake")));
        match work(BufWriter::with_capacity(PIECE_BYTES, self)) {
            Ok(()) => tell(None),
            Err(error) => {
                let text = crate::instance::sentence(&error);
                tracing::debug!(error = text, "an archive ended early");
                tell(Some(io::Error::other(text)));
            }
        }
    }
}

impl Write for Maker {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(PIECE_BYTES)];
        let piece = Bytes::copy_from_slice(bytes);
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.hurry.cancelled() => Err(hurried()),
                sent = self.pieces.send(piece) => {
                    sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
                }
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where blocking work reads an archive from.
pub(crate) struct Taker {
    body: Body,
    hurry: CancellationToken,
    runtime: Handle,
    patience: Option<Duration>,
    deadline: Option<Instant>,
}

impl Taker {
    /// Reads `body`, until `hurry` is cancelled.
    pub(crate) fn new(body: Body, hurry: CancellationToken) -> Self {
        Self { body, hurry, runtime: Handle::current(), patience: None, deadline: None }
    }

    /// The same from a source that may stall on purpose: it is waited for no longer than this, each time.
    pub(crate) fn patient(body: Body, hurry: CancellationToken, patience: Duration) -> Self {
        Self { patience: Some(patience), ..Self::new(body, hurry) }
    }

    /// The same, and all of it has to be here after this time, where there is a limit.
    pub(crate) fn within(self, limit: Option<Duration>) -> Self {
        Self { deadline: limit.map(|limit| Instant::now() + limit), ..self }
    }
}

impl Read for Taker {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let patient_until = self.patience.map(|patience| Instant::now() + patience);
        let until = patient_until.into_iter().chain(self.deadline).min();
        let stalled = async move {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.hurry.cancelled() => Err(hurried()),
                count = self.body.read(buffer) => count,
                () = stalled => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }
}

fn hurried() -> io::Error {
    io::Error::other("somebody waits for the end of this work")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_archive_that_was_cut_does_not_end() {
        let (mut body, maker) = pipe(CancellationToken::new());
        std::thread::spawn(move || {
            maker.make(|mut output| {
                output.write_all(&[7; 1000])?;
                output.flush()?;
                Err(io::Error::other("the disk is gone"))
            });
        });
        let mut all = vec![];
        let error = body.read_to_end(&mut all).await.unwrap_err();
        assert!(all == [7; 1000] && error.to_string().contains("the disk is gone"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn work_that_waits_breaks_off_when_it_is_hurried() {
        let hurry = CancellationToken::new();
        let (mut body, maker) = pipe(hurry.clone());
        // Nobody reads: it waits as soon as the pieces are full, and ends without a reader when it is hurried.
        let work = tokio::task::spawn_blocking(move || {
            maker.make(|mut output| output.write_all(&vec![0; PIECE_BYTES * (PIECES_MAX + 2)]));
        });
        hurry.cancel();
        work.await.unwrap();
        let error = body.read_to_end(&mut vec![]).await.unwrap_err();
        assert!(error.to_string().contains("waits for the end"), "{error}");
        let (_silent, waits) = tokio::io::duplex(1);
        let mut taker = Taker::new(Box::new(waits), hurry);
        let read = tokio::task::spawn_blocking(move || taker.read(&mut [0])).await.unwrap();
        assert!(read.is_err(), "{read:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_source_that_stalls_is_not_waited_for_without_end() {
        let (_silent, waits) = tokio::io::duplex(1);
        let patience = Duration::from_millis(20);
        let mut taker = Taker::patient(Box::new(waits), CancellationToken::new(), patience);
        let read = tokio::task::spawn_blocking(move || taker.read(&mut [0])).await.unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
