//! Bytes that a thread reads or makes, for the commands to wait for: standard input, and archives made on the way.
//!
//! Reading standard input cannot be cut short, so it has a thread of its own that dies with the process.

use bytes::Bytes;
use futures::stream;
use std::io::{self, Read, Write};
use tokio::{io::AsyncRead, sync::mpsc};
use tokio_util::io::StreamReader;

/// Bytes of one piece.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that wait before the thread is held up.
const PIECES_MAX: usize = 16;

/// Bytes as they come.
#[derive(Debug)]
pub struct Input(mpsc::Receiver<io::Result<Bytes>>);

impl Input {
    /// Standard input, from now on.
    pub fn stdin() -> Self {
        Self::made_by(|out| {
            let mut stdin = io::stdin().lock();
            let mut buffer = vec![0; PIECE_BYTES];
            loop {
                match stdin.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(count) => out.write_all(&buffer[..count])?,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
        })
    }

    /// What `work` writes in a thread of its own. Its error ends the bytes.
    pub fn made_by(work: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        std::thread::spawn(move || {
            let mut pipe = Pipe(sender);
            if let Err(error) = work(&mut pipe) {
                // Nobody listens any more when the command has ended.
                let _ = pipe.0.blocking_send(Err(error));
            }
        });
        Self(receiver)
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        self.0.recv().await
    }

    /// The bytes as a reader.
    pub fn into_reader(self) -> impl AsyncRead + Send {
        let pieces =
            stream::unfold(self, |mut input| async move { input.next().await.map(|piece| (piece, input)) });
        StreamReader::new(Box::pin(pieces))
    }
}

struct Pipe(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(&bytes[..bytes.len().min(PIECE_BYTES)]);
        let count = piece.len();
        self.0.blocking_send(Ok(piece)).map(|()| count).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn what_a_thread_makes_arrives_in_order_and_its_error_too() {
        let input = Input::made_by(|out| out.write_all(&[7; 3 * PIECE_BYTES]));
        let mut all = vec![];
        input.into_reader().read_to_end(&mut all).await.unwrap();
        assert_eq!(all, vec![7; 3 * PIECE_BYTES]);

        let input = Input::made_by(|out| out.write_all(b"x").and(Err(io::ErrorKind::NotFound.into())));
        let error = input.into_reader().read_to_end(&mut all).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
